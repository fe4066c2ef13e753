/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Address spaces of the emulated GPU: what engines see.
 */
#ifndef MINIGPU_SPACE_H
#define MINIGPU_SPACE_H

#include "manager.h"

#define PENDING_BINDS 64

/** A range of addresses, until it is idle. */
struct range {
	uint64_t va;
	uint64_t size;
};

/** An address space. Its binds are asked for by one thread, and applied by whichever signals what they wait for. */
struct space {
	struct manager *manager;
	unsigned index;
	struct lf_vm *vm;
	struct lf_va_heap *heap;
	struct range *closed; /**< of buffers that were closed here and not reaped */
	size_t closed_count, closed_capacity;
	uint64_t binds; /**< asked for */
	struct lane *lane;
	pthread_mutex_t lock; /* protects what follows */
	int64_t asked[PENDING_BINDS]; /**< when the binds were asked for that are not applied yet: a ring */
	uint64_t asked_count, applied_count;
};

void space_init(struct space *s, struct manager *m, unsigned index, struct lane *lane, uint64_t size);

/** Closes it: everything is idle, buffers have been dropped. After lf_reclaim_barrier() nothing of it is in use. */
void space_fini(struct space *s);

/** Binds a whole buffer, which must not be bound here, anywhere. @return a new reference on the bind's fence. */
struct lf_fence *space_bind(struct space *s, struct buffer *b, uint64_t *ret_va);

/** Unbinds a buffer that is bound here at @p va when @p idle (may be NULL) has signaled, and lets go of its range. */
void space_unbind(struct space *s, struct buffer *b, uint64_t va, struct lf_fence *idle);

/**
 * Unbinds a part of a buffer that is bound at @p va, and binds it again, behind it: pages @p first to @p first + @p count - 1.
 *
 * @return a new reference on the fence of the second bind.
 */
struct lf_fence *space_rebind(struct space *s, struct buffer *b, uint64_t va, size_t first, size_t count, struct lf_fence *idle);

/** Closes a buffer that is bound at @p va: it is bound no more, though engines find it until space_reap(). */
void space_close(struct space *s, struct buffer *b, uint64_t va);

/** Clears what closed buffers have left behind, when all jobs of the space that have been pushed are done. */
void space_reap(struct space *s);

/** What an engine does to find memory: walks the page tables. @return the byte at an address; NULL: a page fault. */
unsigned char *space_walk(const struct space *s, uint64_t va);

#endif /* MINIGPU_SPACE_H */
