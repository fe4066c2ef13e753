/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Read sections, and memory that is freed when no reader can see it any more.
 *
 * A *read section* is what lies between lf_read_lock() and lf_read_unlock(). A *grace period* has passed when every read section that
 * was open at its start has ended. What is deferred here happens after a grace period that begins after the call; so what a reader
 * found inside its section stays the same live object until the section ends.
 */
#ifndef LIBFENCE_RECLAIM_H
#define LIBFENCE_RECLAIM_H

#include <libfence/base.h>

LF_BEGIN_DECLS

struct lf_fence;

/**
 * Opens a read section. Sections nest; the outermost counts.
 *
 * @par Context
 * Any thread, without registration. Nothing inside a section may block, wait, signal a fence or fork.
 *
 * @par Ordering
 * What lf_fence_slot_look() and the library's other lookups return is fully initialised.
 */
LF_API void lf_read_lock(void);

/** Closes the read section that the last lf_read_lock() of this thread opened. Without one it does nothing (reported). */
LF_API void lf_read_unlock(void);

/** @return whether this thread is inside a read section. */
LF_API bool lf_read_held(void);

/**
 * A place in the queue of what waits for a grace period. Embed one in what shall be freed or called back; it needs no
 * initialisation.
 */
struct lf_deferred {
	struct lf_deferred *next; /**< not yours */
	void *what; /**< not yours */
	void (*func)(struct lf_deferred *node); /**< not yours */
};

/**
 * What lf_defer_call() calls.
 *
 * @param node what was deferred; it belongs to the function again
 */
typedef void (*lf_deferred_fn)(struct lf_deferred *node);

/**
 * Frees a block after a grace period, with lf_free(), as a rule on the thread that called (so that the allocator gets it back where it
 * came from).
 *
 * @param node lies inside the block, or lives as long as it
 * @param block from lf_alloc()
 *
 * @par Ownership
 * Node and block are the library's from the call on.
 *
 * @par Context
 * Any, also inside a read section. Never blocks, never fails; the first call starts the reclaimer thread.
 */
LF_API void lf_defer_free(struct lf_deferred *node, void *block);

/**
 * Calls a function after a grace period, on the reclaimer thread, outside read sections and with no lock of the library held. The
 * function may do all that a fence callback may.
 *
 * @param node the caller's storage; the library's until @p fn is entered
 * @param fn called once
 *
 * @par Context
 * Like lf_defer_free().
 */
LF_API void lf_defer_call(struct lf_deferred *node, lf_deferred_fn fn);

/**
 * Puts a fence after a grace period: for a pointer of yours that readers follow inside a read section, taking plain references.
 * (lf_fence_slot does this for you.)
 *
 * @param node the caller's storage; the library's until the put has happened. There is no notice of that; where you need one, defer a
 * call behind it: what one thread gives to lf_defer_put() and lf_defer_call() happens in that order.
 * @param f the reference is consumed
 *
 * @par Context
 * Like lf_defer_free().
 */
LF_API void lf_defer_put(struct lf_deferred *node, struct lf_fence *f);

/**
 * Waits until everything that any thread deferred before the call has been freed or called, what those calls deferred in turn included,
 * and but for the few blocks that another thread is freeing at this moment. For tests ("reclaim now"), and for plug-ins that deferred calls
 * of functions of theirs, before their code goes away.
 *
 * @par Context
 * Waits. Not inside a read section, a callback or a deferred call.
 * @return 0; -EDEADLK where it may not be called; -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_reclaim_barrier(void);

/** What waits for grace periods. */
struct lf_reclaim_stats {
	uint64_t pending; /**< deferred and not yet freed or called, in all threads */
	uint64_t grace_periods; /**< completed since the start */
	uint64_t throttled; /**< calls that created something and had to wait because their thread deferred too fast */
	uint64_t limit; /**< pending frees of one thread above which it is throttled */
};

/**
 * Reads the counters.
 *
 * @param ret_stats filled in; the numbers are of about the same moment
 */
LF_API void lf_reclaim_get_stats(struct lf_reclaim_stats *ret_stats);

LF_END_DECLS

#endif /* LIBFENCE_RECLAIM_H */
