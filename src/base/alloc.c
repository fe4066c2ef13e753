/* SPDX-License-Identifier: MIT */
/*
 * Memory from malloc or the user's allocator.
 *
 * Invariant MA1: between the first allocation and lf_fini() the allocator does not change, so that what one allocated no other frees.
 */
#include "base/alloc.h"

#include <stdlib.h>

#include "base/check.h"

static struct lf_allocator hooks; /* written while nobody uses the library; hooks.alloc NULL is malloc */
static lf_atomic_u32 used;

static void note_use(void)
{
	/* relaxed: a mark that only lf_set_allocator() reads, which no other call runs beside */
	if (unlikely(!u32_load(&used, memory_order_relaxed)))
		u32_store(&used, 1, memory_order_relaxed); /* relaxed: as above */
}

void *mem_alloc(size_t size)
{
	note_use();
	if (unlikely(hooks.alloc != NULL))
		return hooks.alloc(hooks.user, size, _Alignof(max_align_t));
	return malloc(size);
}

void *mem_zalloc(size_t size)
{
	void *ptr = mem_alloc(size);

	if (ptr)
		memset(ptr, 0, size);
	return ptr;
}

void *mem_alloc_array(size_t head, size_t count, size_t size)
{
	size_t bytes;

	/* On a 32-bit machine a count that memory allows can make a size that it does not. */
	if (__builtin_mul_overflow(count, size, &bytes) || __builtin_add_overflow(bytes, head, &bytes))
		return NULL;
	return mem_alloc(bytes);
}

void *mem_grow(void *old, size_t filled, size_t count, size_t size)
{
	void *grown = mem_alloc_array(0, count, size);

	if (!grown)
		return NULL;
	if (filled)
		memcpy(grown, old, filled * size);
	mem_free(old);
	return grown;
}

void mem_free(void *ptr)
{
	if (!ptr)
		return;
	if (unlikely(hooks.alloc != NULL))
		hooks.free(hooks.user, ptr);
	else
		free(ptr);
}

void mem_reset(void)
{
	u32_store(&used, 0, memory_order_relaxed); /* relaxed: see note_use() */
}

int lf_set_allocator(const struct lf_allocator *allocator)
{
	if (allocator && (!allocator->alloc || !allocator->free))
		return misuse(-EINVAL, "lf_set_allocator: alloc and free are both needed");
	if (u32_load(&used, memory_order_relaxed)) /* relaxed: see note_use() */
		return -EBUSY;
	hooks = allocator ? *allocator : (struct lf_allocator){ 0 };
	return 0;
}

void *lf_alloc(size_t size)
{
	return mem_zalloc(size);
}

void lf_free(void *ptr)
{
	mem_free(ptr);
}
