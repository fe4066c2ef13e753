/* SPDX-License-Identifier: MIT */
/*
 * Places: a backing of a buffer, and who keeps it from being released. Overview in place.c.
 */
#ifndef LF_BO_PLACE_H
#define LF_BO_PLACE_H

#include <libfence/notice.h>

#include "base/library.h"
#include "bo/bo.h"

struct place {
	lf_atomic_u32 refs; /* one of the buffer, or of the ghost's fences; one a mapping */
	struct lf_bo *bo; /* immutable since place_settle(); there as long as the place (BO3) */
	struct lf_backing backing; /* immutable since place_settle() */
	struct lf_notice notice; /* of a ghost: fires when its fences are signaled */
	struct lf_snapshot snapshot; /* what a ghost waits for, until it is armed */
	struct lf_deferred deferred;
};

/* A place that belongs to nobody; NULL without memory. mem_free() ends it until place_settle(). */
struct place *place_create(void);

/* Gives the place a backing (NULL: nowhere) of a buffer, for which it counts from here on. The one reference is the caller's. */
void place_settle(struct place *p, struct lf_bo *bo, const struct lf_backing *backing);

/* The place that a buffer is in. The caller holds its reservation, or is inside a read section, or ends the buffer. */
static inline struct place *place_current(const struct lf_bo *bo)
{
	/* order: bo-place (acquire): the place is seen as it was settled */
	return (struct place *)ptr_load(&bo->place, PLANT_ORDER(152, memory_order_relaxed, memory_order_acquire));
}

static inline void place_set_current(struct lf_bo *bo, struct place *p)
{
	/* order: bo-place (release): a reader would find a place without its backing */
	ptr_store(&bo->place, (uintptr_t)p, PLANT_ORDER(80, memory_order_relaxed, memory_order_release));
}

/* Takes a reference for a mapping of a place that is current under the caller's lock. */
void place_get(struct place *p);

/* A mapping is gone. Any context: nothing is released here. */
void place_put(struct place *p);

/*
 * Makes a place that is current no more a ghost: the buffer's reference becomes one of the fences in p->snapshot. Enable hooks run here, so
 * with nothing held.
 */
void place_leave(struct place *p);

/*
 * Brackets a call that takes a buffer, and in which hooks of others may run: they may signal what a ghost waits for, and its release hook
 * must not run inside that call. They nest.
 */
static inline void place_call_begin(void)
{
	this_thread()->in_bo++;
}

static inline void place_call_end(void)
{
	this_thread()->in_bo--;
}

#endif /* LF_BO_PLACE_H */
