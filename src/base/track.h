/* SPDX-License-Identifier: MIT */
/*
 * The list of live objects, kept on request (lf_track()).
 *
 * Invariant TK1: while tracking is on, the table holds each object that was made since and is not freed, but for those that it had no
 * memory for. Nothing of it lies in the objects: their layout is the same in all builds.
 */
#ifndef LF_BASE_TRACK_H
#define LF_BASE_TRACK_H

#include "base/port.h"

/* A kind of object. One static instance for each, in the file of the object. */
struct track_kind {
	const char *name;
	size_t label; /* where in the object the name stands that people know it by; 0: describe() says it */
	/* Writes what people know the object by, like snprintf(). Called without a lock of the library. */
	int (*describe)(const void *object, char *buf, size_t size);
};

extern LF_INTERNAL lf_atomic_u32 track_flags;

void track_add_slow(const void *object, const struct track_kind *kind);
void track_remove_slow(const void *object);

static inline void track_add(const void *object, const struct track_kind *kind)
{
	/* relaxed: switched while nobody uses the library */
	if (unlikely(u32_load(&track_flags, memory_order_relaxed)))
		track_add_slow(object, kind);
}

static inline void track_remove(const void *object)
{
	if (unlikely(u32_load(&track_flags, memory_order_relaxed))) /* relaxed: see track_add() */
		track_remove_slow(object);
}

/* A fork finds the table whole. */
void track_before_fork(void);
void track_after_fork(void);

/* Lists what is left in the log and returns how much. */
int track_report(void);

/* Calls @fn for each tracked object of a kind, with the table locked: @fn may not make or free objects, nor call out. */
void track_for_each(const struct track_kind *kind, void (*fn)(void *object, void *arg), void *arg);

#endif /* LF_BASE_TRACK_H */
