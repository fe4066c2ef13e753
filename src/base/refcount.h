/* SPDX-License-Identifier: MIT */
/*
 * A reference count that saturates.
 *
 * Values 1 to 2^31-1 count; 0 is the last put behind it; the upper half is for ever: a count that got there, or started there (a static
 * object), is neither raised nor lowered, so a leak can not wrap round to a free. Who finds the upper half does not write, so that an
 * immortal object's cache line is shared by all who use it. 2^30 threads would have to race to carry it from the middle of that half to
 * an end.
 */
#ifndef LF_BASE_REFCOUNT_H
#define LF_BASE_REFCOUNT_H

#include "base/check.h"

#define REFCOUNT_FOREVER UINT32_C(0xc0000000)

static inline bool refcount_is_forever(uint32_t count)
{
	return (int32_t)count < 0;
}

static inline void refcount_get(lf_atomic_u32 *count, const char *what)
{
	uint32_t old;

	/* relaxed: who has the pointer has, or borrows, a reference, and sees the object already */
	if (refcount_is_forever(u32_load(count, memory_order_relaxed)))
		return;
	old = u32_fetch_add(count, 1, memory_order_relaxed); /* relaxed: as above */
	if (unlikely(old == 0)) {
		u32_store(count, REFCOUNT_FOREVER, memory_order_relaxed); /* relaxed: so that the put of this one does not end it again */
		misuse(0, "%s: reference taken after the last put", what);
	} else if (unlikely(refcount_is_forever(old + 1))) {
		u32_store(count, REFCOUNT_FOREVER, memory_order_relaxed); /* relaxed: counts no more */
		misuse(0, "%s: the reference count is full; the object will never be freed", what);
	}
}

/* Takes a reference unless the last one is gone. Who is refused sees what came before the end: of a fence, that it was signaled. */
static inline bool refcount_tryget(lf_atomic_u32 *count)
{
	/* relaxed: a count says nothing of the object's contents; who found the pointer saw them through it */
	uint32_t c = u32_load(count, memory_order_relaxed);

	while (c != 0 || PLANTED(20)) {
		if (refcount_is_forever(c))
			return true;
		/* relaxed: as above */
		if (u32_cas(count, &c, c + 1, memory_order_relaxed, memory_order_relaxed))
			return true;
	}
	/* order: refcount (acquire): what every holder did before the end is seen by who is refused */
	(void)u32_load(count, PLANT_ORDER(211, memory_order_relaxed, memory_order_acquire));
	return false;
}

/* Returns whether this was the last reference. */
static inline bool refcount_put(lf_atomic_u32 *count, const char *what)
{
	uint32_t old;

	if (refcount_is_forever(u32_load(count, memory_order_relaxed))) /* relaxed: see refcount_get() */
		return false;
	/* order: refcount (release): what this holder did comes before the end of the object */
	/* order: refcount (acquire): whoever ends the object sees what every holder did */
	old = u32_fetch_sub(count, 1, PLANT_ACQ_REL(111, 105));
	if (unlikely(old == 0)) {
		u32_store(count, REFCOUNT_FOREVER, memory_order_relaxed); /* relaxed: counts no more */
		misuse(0, "%s: put once too often", what);
		return false;
	}
	return old == 1;
}

/* Ends the last reference, if the caller's is that. Returns whether it was; else the caller has it still. */
static inline bool refcount_put_only(lf_atomic_u32 *count)
{
	uint32_t only = 1;

	/* order: refcount (acquire): whoever ends the object sees what every holder did */
	return u32_cas(count, &only, 0, PLANT_ORDER(222, memory_order_relaxed, memory_order_acquire), memory_order_relaxed);
}

#endif /* LF_BASE_REFCOUNT_H */
