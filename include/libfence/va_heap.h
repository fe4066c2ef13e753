/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Address heaps: which ranges of an address space are free to be given out, with ranges that are free *later*.
 *
 * A range that was unmapped may still be in use by jobs that were submitted before. It is *retired*: handed back together with what those
 * jobs will signal. Allocation passes over retired ranges until that has happened, and never waits for it.
 */
#ifndef LIBFENCE_VA_HEAP_H
#define LIBFENCE_VA_HEAP_H

#include <libfence/resv.h>

LF_BEGIN_DECLS

struct lf_va_heap;

/**
 * Makes a heap that has one free range.
 *
 * @param start first address; it need not be aligned to anything
 * @param size bytes, not 0; the last address may be the last of 64 bits
 * @param ret_heap to be given to lf_va_heap_destroy()
 * @return 0; -ENOMEM; -EINVAL (reported): the range is empty or wraps; -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_va_heap_create(uint64_t start, uint64_t size, struct lf_va_heap **ret_heap) LF_MUST_CHECK;

/**
 * Ends a heap, whatever is allocated or retired.
 *
 * @param heap may be NULL; nobody uses it
 */
LF_API void lf_va_heap_destroy(struct lf_va_heap *heap);

/** Where to look first. */
enum lf_va_order {
	LF_VA_BOTTOM_UP = 0, /**< the lowest addresses that fit */
	LF_VA_TOP_DOWN = 1, /**< the highest addresses that fit */
};

/** What is wanted. */
struct lf_va_request {
	uint64_t size; /**< bytes, not 0 */
	uint64_t align; /**< a power of two that the first address is a multiple of; 0 for 1 */
	uint64_t min; /**< no address below it; 0: any */
	uint64_t max; /**< no address above it; 0: any */
	enum lf_va_order order; /**< where to look first */
};

/**
 * Allocates a range. One that was retired and is idle by now is as good as free; one that is not is passed over. (Of many that are
 * retired a few are asked each time, and all before it fails: so one that has just become idle may be found a call or two later.)
 *
 * @param heap any number of threads may use it at once
 * @param request borrowed for the call
 * @param ret_va the first address
 *
 * @par Context
 * Never waits for a fence. Takes time in proportion to the logarithm of the number of ranges, and to how many retired ones are looked at.
 * @return 0; -ENOSPC: nothing fits; -EBUSY: nothing fits now, but it would if what is retired were idle; -ENOMEM; -EINVAL (reported): no
 * size, an alignment that is no power of two, or a maximum below the minimum; -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_va_heap_alloc(struct lf_va_heap *heap, const struct lf_va_request *request, uint64_t *ret_va) LF_MUST_CHECK;

/**
 * Allocates a range at given addresses.
 *
 * @param heap like lf_va_heap_alloc()
 * @param va first address
 * @param size bytes, not 0
 * @return 0; -ENOSPC: some of it is allocated, or outside; -EBUSY: some of it is retired and not idle; else like lf_va_heap_alloc().
 */
LF_API int lf_va_heap_alloc_at(struct lf_va_heap *heap, uint64_t va, uint64_t size) LF_MUST_CHECK;

/**
 * Gives a range back that is idle.
 *
 * @param heap like lf_va_heap_alloc()
 * @param va first address of what was allocated
 * @param size bytes, as allocated (else reported, and nothing is done)
 *
 * @par Context
 * Never fails, allocates nothing.
 */
LF_API void lf_va_heap_free(struct lf_va_heap *heap, uint64_t va, uint64_t size);

/**
 * Gives a range back that may be in use still.
 *
 * @param heap like lf_va_heap_alloc()
 * @param va like lf_va_heap_free()
 * @param size like lf_va_heap_free()
 * @param resv when not NULL: the range is busy until what is in this reservation now has signaled, of all usages: give the VM's, where its
 * jobs' fences are
 * @param f when not NULL: and until this fence has: give the bind's out-fence. Takes a reference. (Without either the range is free.)
 *
 * @par Context
 * Never fails, allocates nothing. Enable hooks are not run: somebody else sees to it that the fences signal.
 */
LF_API void lf_va_heap_retire(struct lf_va_heap *heap, uint64_t va, uint64_t size, const struct lf_resv *resv, struct lf_fence *f);

/** What a heap has, in bytes and ranges. */
struct lf_va_heap_stats {
	uint64_t free; /**< bytes that are free */
	uint64_t retired; /**< bytes that are retired and not idle at this moment */
	uint64_t allocated; /**< ranges */
	uint64_t largest; /**< bytes of the largest range that could be allocated now */
};

/**
 * Counts.
 *
 * @param heap like lf_va_heap_alloc()
 * @param ret_stats filled in
 */
LF_API void lf_va_heap_get_stats(struct lf_va_heap *heap, struct lf_va_heap_stats *ret_stats);

LF_END_DECLS

#endif /* LIBFENCE_VA_HEAP_H */
