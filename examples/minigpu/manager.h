/* SPDX-License-Identifier: MIT */
/**
 * @file
 * The driver's memory manager: buffers that take turns in device memory.
 */
#ifndef MINIGPU_MANAGER_H
#define MINIGPU_MANAGER_H

#include "device.h"
#include "gpu.h"

#define SPACES 4

/** A buffer. */
struct buffer {
	struct lf_bo bo;
	struct manager *manager;
	struct buffer *prev, *next; /**< of the manager's list */
	struct place *place; /**< where it is, or will be when `moved` has signaled; NULL: nowhere yet */
	struct lf_fence *moved; /**< of the last move: who needs the contents needs that it succeeded; NULL: never moved */
	struct lf_vm_bo *vm_bos[SPACES]; /**< references; NULL where it is not bound */
	uint64_t used; /**< a larger number is later */
	uint32_t group; /**< for the record */
	uint64_t number; /**< for the record */
};

/** All buffers. One thread manages. */
struct manager {
	struct gpu *gpu;
	struct device device;
	struct buffer *first;
	struct lane *evict_lane, *bring_lane;
	uint64_t clock; /**< of buffer.used */
	size_t wanted; /**< pages that the last -EAGAIN was about */
	uint64_t evictions, busy_evictions; /**< busy: with jobs pending */
	uint64_t returns; /**< brought back */
	uint64_t waits; /**< for device memory */
};

void manager_init(struct manager *m, struct gpu *gpu, struct record *record, size_t bytes);

/** All buffers have been dropped, and everything deferred has happened. */
void manager_fini(struct manager *m);

/** @return a buffer of @p pages pages that is nowhere yet. @p resv is what it shares; NULL: it gets a reservation of its own. */
struct buffer *buffer_create(struct manager *m, size_t pages, struct lf_resv *resv);

/** Lets go of a buffer that is bound nowhere. Jobs may still use it. */
void buffer_drop(struct buffer *b);

/** @return the buffer around a part of the library's. */
static inline struct buffer *to_buffer(struct lf_bo *bo)
{
	return (struct buffer *)((char *)bo - offsetof(struct buffer, bo));
}

/** For the body of an lf_exec loop: locks a buffer with all spaces that it is bound in. @return like lf_exec_lock(). */
int buffer_lock(struct buffer *b, struct lf_exec *x);

/** Says that the next job of the spaces that it is bound in needs it, and it is not there. It is locked. */
void buffer_set_absent(struct buffer *b);

/**
 * Sees to it that all buffers of a space will find room, by moving others out. Inside an lf_exec loop that has locked the space.
 *
 * @return 0: there is room. -EAGAIN: there will be; end the transaction, manager_wait(), and begin again. Else like lf_exec_lock().
 */
int manager_make_room(struct manager *m, unsigned space, struct lf_exec *x);

/** The validate hook: brings a buffer into device memory. @return like manager_make_room(). */
int manager_bring(struct buffer *b, unsigned space, struct lf_exec *x);

/** Sleeps until what the last -EAGAIN was about is there. Nothing is locked. */
void manager_wait(struct manager *m);

/** Notes that a job uses all buffers of a space. */
void manager_touch(struct manager *m, unsigned space);

/** Moves a buffer to host memory, whatever uses it, if it is not there. Takes its locks itself. @return whether it was moved. */
bool manager_evict(struct buffer *b);

#endif /* MINIGPU_MANAGER_H */
