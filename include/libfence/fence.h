/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Fences, as their consumers see them: something that will happen once.
 *
 * A fence is PENDING, then SIGNALED (its result and timestamp are final), then DRAINED (every callback has returned):
 *
 *     PENDING --signal--> SIGNALED --last callback returned--> DRAINED
 *
 * Whoever holds a reference may ask, wait, add callbacks and describe, in every state, whether or not the producer still exists: once
 * a fence is signaled, nothing of its producer's code or memory is needed any more. Producers include <libfence/fence_producer.h>;
 * with this header alone a fence cannot be signaled.
 *
 * Every function that takes a fence wants one that the caller holds a reference on, or has found inside the read section it is in.
 *
 * Words: a *hook* is the producer's code (fence_producer.h); a fence is *enabled*, or armed, when its producer's enable hook is called, since
 * somebody cares; a *stand-alone* fence is on no timeline; a *read section* is described in reclaim.h. A first reading may leave out
 * publishing, lf_fence_tryget() and slots.
 */
#ifndef LIBFENCE_FENCE_H
#define LIBFENCE_FENCE_H

#include <libfence/base.h>

LF_BEGIN_DECLS

struct lf_fence;

/* --- References --------------------------------------------------------------------------------------------------------- */

/**
 * Takes a reference.
 *
 * @param f may be NULL. A fence found inside a read section through a pointer whose references are given up with lf_defer_put() qualifies;
 * through any other (a slot, a reservation's list) take lf_fence_tryget().
 * @return @p f. A count that would overflow stays at its limit instead, and the fence lives for ever (reported).
 *
 * @par Ordering
 * None: who got the pointer already sees the fence.
 */
LF_API struct lf_fence *lf_fence_get(struct lf_fence *f);

/**
 * Takes a reference unless the last one is gone.
 *
 * @param f a fence that was published (see lf_fence_publish()), found inside the read section that the caller is in; may be NULL
 * @return @p f, or NULL when its last reference has been put.
 */
LF_API struct lf_fence *lf_fence_tryget(struct lf_fence *f) LF_MUST_CHECK;

/**
 * Consumes the caller's reference; the last one frees the fence, after a grace period if it was published.
 *
 * @param f may be NULL
 *
 * @par Context
 * Any: also inside callbacks of this fence, hooks, read sections and under any lock. Never blocks, and uses bounded stack however many
 * fences die of it. The last put of a pending fence of a timeline does not occur (the timeline holds a reference). The last put of a
 * pending stand-alone fence without callbacks is legal: nobody is left who could tell, but readers that look at a published one, who find
 * it signaled with -ECANCELED. With callbacks it is misuse: it is reported,
 * and the fence completes with -EDEADLK first, so that nobody waits for ever.
 */
LF_API void lf_fence_put(struct lf_fence *f);

/**
 * Makes a fence fit for being found by readers: its memory will outlive its last reference by a grace period. Call it before the
 * first store of a pointer that readers follow without holding a reference; lf_fence_slot_set() does so.
 *
 * @param f borrowed for the call
 */
LF_API void lf_fence_publish(struct lf_fence *f);

/* --- Looking ------------------------------------------------------------------------------------------------------------ */

/**
 * Asks whether the fence is signaled. A load: it never runs anybody's code (see lf_fence_check() for that), never blocks, and once
 * true stays true.
 *
 * @param f borrowed for the call
 * @return true from the moment on at which status and timestamp are final. Callbacks may still be running; see lf_fence_is_drained().
 *
 * @par Ordering
 * true is an acquire of the signal: what the producer wrote before it signaled is visible.
 */
LF_API bool lf_fence_is_signaled(const struct lf_fence *f);

/**
 * Asks whether every callback has returned. Like lf_fence_is_signaled(), but true from the later moment on; what callbacks
 * wrote is visible then.
 *
 * @param f borrowed for the call
 * @return true when signaled and no callback will run or is running.
 */
LF_API bool lf_fence_is_drained(const struct lf_fence *f);

/**
 * Reads the result.
 *
 * @param f borrowed for the call
 * @return 0 while pending, 1 when done, a negative errno when completed with an error. Final once not 0. Ordered like
 * lf_fence_is_signaled().
 */
LF_API int lf_fence_status(const struct lf_fence *f);

/**
 * Reads when the fence was signaled.
 *
 * @param f borrowed for the call
 * @return CLOCK_MONOTONIC nanoseconds, or what the producer gave as the time; INT64_MIN while pending. Final once it is not that.
 * Ordered like lf_fence_is_signaled().
 */
LF_API int64_t lf_fence_timestamp(const struct lf_fence *f);

/**
 * Names the context (the timeline) of a fence.
 *
 * @param f borrowed for the call
 * @return its id, unique in the process; 0 for a stand-alone fence or an array, which is on no timeline. The links of a chain
 * have a context of their own. Immutable.
 */
LF_API uint64_t lf_fence_context(const struct lf_fence *f);

/**
 * The place of a fence on its timeline.
 *
 * @param f borrowed for the call
 * @return 64 bits that never wrap; 0 for a stand-alone fence or an array. Immutable.
 */
LF_API uint64_t lf_fence_seqno(const struct lf_fence *f);

/**
 * Asks whether the timeline of a fence promises order: on an ordered one a later fence is not signaled before an earlier one.
 *
 * @param f borrowed for the call
 * @return true for fences of ordered timelines, and for the links of a chain. Immutable.
 */
LF_API bool lf_fence_is_ordered(const struct lf_fence *f);

/**
 * Compares two fences of one context.
 *
 * @param a borrowed for the call
 * @param b borrowed for the call
 * @return true when both are of the same timeline and @p a has the greater seqno; false for fences of different timelines and for
 * stand-alone ones, which cannot be compared.
 */
LF_API bool lf_fence_is_later(const struct lf_fence *a, const struct lf_fence *b);

/**
 * Asks the producer. When the fence is pending and its producer has a poll hook, the hook runs here; if it says that the fence is
 * done, the fence is signaled here, and its callbacks run in this call. Of a container the leaves are asked (see lf_unwrap_begin(); without
 * memory for that, nobody is).
 *
 * @param f borrowed for the call
 * @return like lf_fence_status(), after asking.
 *
 * @par Context
 * Not inside a read section, since the hook is user code (reported; it is called all the same).
 */
LF_API int lf_fence_check(struct lf_fence *f);

/**
 * Hints that somebody will need the fence by a time. Passed to the producer's hook while the fence is pending; several hints may come,
 * and the producer keeps the soonest. A container hands it to its leaves (without memory to find them, the hint is lost).
 *
 * @param f borrowed for the call
 * @param deadline nanoseconds; the past means now
 *
 * @par Context
 * Not inside a read section (like lf_fence_check()).
 */
LF_API void lf_fence_set_deadline(struct lf_fence *f, int64_t deadline);

/**
 * Writes the name of the fence's timeline, as `provider/timeline`, the provider being left out where there is none.
 *
 * @param f borrowed for the call
 * @param buf receives a terminated string, cut where it must be; may be NULL when @p size is 0
 * @param size of @p buf in bytes
 * @return the length the full name has, as snprintf() does. While the timeline exists (one of a queue: until the queue's memory is gone,
 * which may be later than its last put): its name; afterwards `signaled-timeline`;
 * for a stand-alone fence `stand-alone`; for the stub `stub`; for containers `array` and `chain`.
 */
LF_API int lf_fence_name(const struct lf_fence *f, char *buf, size_t size);

/**
 * Writes a line for people: name, context:seqno, and state with result and timestamp.
 *
 * @param f borrowed for the call
 * @param buf like lf_fence_name()
 * @param size like lf_fence_name()
 * @return like lf_fence_name().
 */
LF_API int lf_fence_describe(const struct lf_fence *f, char *buf, size_t size);

/* --- Callbacks ---------------------------------------------------------------------------------------------------------- */

struct lf_fence_cb;

/**
 * A callback: runs once when the fence is signaled.
 *
 * @param f the fence; signaled, result and timestamp final; alive during the call
 * @param cb the node that was added. From here on it is the owner's: the function may free it, or add it again.
 *
 * @par Context
 * The thread that signals, with no lock of the library held, outside its read sections. It may do anything but wait: signal, add, remove,
 * cancel (itself too), take and put references, the last one to this fence included. It must return: no exception, longjmp() or
 * pthread_exit() may leave it. It runs under whatever lock the caller of the signal holds. Callbacks of one fence run one after the other,
 * first added first. What signals inside a callback leaves its callbacks to the thread's outermost signal, in the order in which it
 * signaled: no recursion, and all have run when that returns.
 */
typedef void (*lf_fence_cb_fn)(struct lf_fence *f, struct lf_fence_cb *cb);

/**
 * A callback node: caller's storage, usually embedded in what the callback is about. Zero it before its first use
 * (or write #LF_FENCE_CB_INIT). After it ran or was removed it can be added again, to any fence.
 */
struct lf_fence_cb {
	struct lf_fence_cb *next; /**< not yours */
	struct lf_fence_cb *prev; /**< not yours */
	lf_fence_cb_fn func; /**< not yours */
	lf_atomic_ptr state; /**< not yours */
} LF_ALIGNED(8);

/** Initialises a node that is not zeroed otherwise. */
#define LF_FENCE_CB_INIT { NULL, NULL, NULL, { 0 } }

/** What became of a callback. */
enum lf_cb_result {
	LF_CB_REMOVED = 0, /**< it had not run, and never will */
	LF_CB_RAN = 1, /**< it has run and returned */
	LF_CB_RUNNING = 2, /**< it is running right now: on another thread, or the caller is inside it */
};

/**
 * Adds a callback, and asks the producer to arm the fence (its enable hook, once per fence).
 *
 * @param f borrowed for the call: the callback holds no reference, and a fence that is put for the last time with callbacks is misuse
 * @param cb a node that is not in use
 * @param func not NULL
 *
 * @par Ownership
 * From a return of 0 until @p func is entered, or until a remove or cancel returns LF_CB_REMOVED, the node belongs to the fence.
 *
 * @par Context
 * Any but inside a read section if the producer has an enable hook, which is user code (reported; it is called all the same).
 *
 * @par Ordering
 * What was written before the call is visible in @p func.
 *
 * @return 0: @p func will be called, once, perhaps before this returns. -ENOENT: already signaled, @p func will not be called and the node
 * is the caller's. -EALREADY (reported): the node is in use. -EINVAL (reported): an argument is missing. -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_fence_add_callback(struct lf_fence *f, struct lf_fence_cb *cb, lf_fence_cb_fn func) LF_MUST_CHECK;

/**
 * Takes a callback back. Never blocks.
 *
 * @param f the fence that @p cb was added to
 * @param cb the node
 *
 * @par Context
 * Any, also inside callbacks of the same fence.
 * @return enum lf_cb_result, where LF_CB_RUNNING means that its storage is still in use (unless the caller is inside it); -EINVAL
 * (reported): the node was never added, or an argument is missing; -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_fence_remove_callback(struct lf_fence *f, struct lf_fence_cb *cb);

/**
 * Like lf_fence_remove_callback(), but waits while the callback runs on another thread. It waits for that callback alone.
 * Called from inside that very callback it returns at once.
 *
 * @param f the fence that @p cb was added to
 * @param cb the node
 *
 * @par Context
 * Waits, and is nevertheless allowed inside callbacks: two callbacks that cancel each other wait for ever, which a build with
 * debug checks reports and ends with -EDEADLK. Not inside a read section.
 *
 * @par Ordering
 * After LF_CB_RAN, what the callback wrote is visible.
 *
 * @return LF_CB_REMOVED or LF_CB_RAN: the callback is not running and never will, its storage is the caller's. LF_CB_RUNNING: the caller
 * is inside it. -EDEADLK (reported): inside a read section, or the mutual wait above. Else like lf_fence_remove_callback().
 */
LF_API int lf_fence_cancel_callback_sync(struct lf_fence *f, struct lf_fence_cb *cb);

/* --- Waiting ------------------------------------------------------------------------------------------------------------ */

/**
 * Waits until the fence is signaled.
 *
 * @param f borrowed for the call
 * @param deadline absolute nanoseconds; 0 asks without waiting (the producer is asked to arm the fence all the same)
 *
 * @par Context
 * Waits (sleeps; does not spin). A fence that is signaled already is no wait, and allowed everywhere.
 *
 * @par Ordering
 * Like lf_fence_is_signaled().
 *
 * @return 0: signaled, with whatever result (lf_fence_status() tells: the two are kept apart so that a fence that failed with -ETIME is
 * not taken for a wait that ended with it). -ETIME: the deadline came first. -EDEADLK (reported): inside a callback, a deferred call
 * (lf_defer_call()) or a read section. -EINVAL (reported): @p f is NULL. -EOWNERDEAD in a poisoned child. That it is signaled does not
 * say that its callbacks have returned: before the memory of a node goes, there are lf_fence_wait_drained() and
 * lf_fence_cancel_callback_sync().
 */
LF_API int lf_fence_wait(struct lf_fence *f, int64_t deadline);

/** One fence of a wait for many: caller's storage, on the stack as well, uninitialised; the library's during the call. */
struct lf_wait_slot {
	struct lf_fence_cb cb; /**< not yours */
	void *waiter; /**< not yours */
};

/** A wait for many fences, of any kinds and producers. */
struct lf_wait_many {
	struct lf_fence *const *fences; /**< @p count of them, borrowed for the call; the same fence may occur twice, and counts twice */
	struct lf_wait_slot *slots; /**< storage, @p count of them */
	size_t count; /**< at most INT32_MAX */
	size_t need; /**< how many must be signaled: 1 for any, count for all, or anything between; 0 is satisfied at once */
	int64_t deadline; /**< absolute nanoseconds */
};

/**
 * Waits until @p need of the fences are signaled. Allocates nothing, sleeps once, takes every node back before it returns. (A
 * container that another thread is just enabling is an exception: to enable its leaves at once takes memory, if there is any.)
 *
 * @param wait described by struct lf_wait_many
 * @param ret_first when not NULL, and the call returned 0 with count not 0 and need not 0: the smallest index whose fence was signaled
 *
 * @par Context
 * Like lf_fence_wait().
 * @return like lf_fence_wait(); -EINVAL (reported): need above count, count too large, or an argument is missing. A wait that is
 * satisfied at once returns 0 everywhere.
 */
LF_API int lf_fence_wait_many(const struct lf_wait_many *wait, size_t *ret_first);

/**
 * Waits until the fence is drained: signaled, and every callback has returned.
 *
 * @param f borrowed for the call
 * @param deadline absolute nanoseconds
 *
 * @par Context
 * Waits. A drained fence is no wait, and allowed everywhere.
 * @return like lf_fence_wait().
 */
LF_API int lf_fence_wait_drained(struct lf_fence *f, int64_t deadline);

/* --- The stub ----------------------------------------------------------------------------------------------------------- */

/**
 * A fence that has always been signaled, with status 1 and timestamp 0.
 *
 * @return a new reference. The stub is never freed and its references are not counted, so threads that share it share no
 * written cache line; putting it is allowed, and does nothing.
 */
LF_API struct lf_fence *lf_fence_stub(void);

/* --- One published pointer ---------------------------------------------------------------------------------------------- */

/** A pointer to a fence that may be replaced while others read it. Zeroed memory is an empty slot. */
struct lf_fence_slot {
	lf_atomic_ptr fence; /**< not yours */
};

/**
 * Puts another fence into the slot.
 *
 * @param slot any number of threads may set, get and look at once
 * @param f takes a reference; NULL empties the slot, which is how it is torn down
 *
 * @par Context
 * Like lf_fence_put(), since the old fence is put.
 *
 * @par Ordering
 * A release: who gets or looks sees what was written before.
 */
LF_API void lf_fence_slot_set(struct lf_fence_slot *slot, struct lf_fence *f);

/**
 * Takes a reference on the fence in the slot.
 *
 * @param slot may be set meanwhile
 * @return a new reference, or NULL when the slot is empty.
 */
LF_API struct lf_fence *lf_fence_slot_get(struct lf_fence_slot *slot) LF_MUST_CHECK;

/**
 * Looks at the fence in the slot: one load.
 *
 * @param slot may be set meanwhile
 *
 * @par Context
 * Inside a read section.
 * @return a fence that stays the same live object until the read section ends (it may be asked and described; lf_fence_tryget() makes
 * it the caller's), or NULL when the slot is empty. Outside a read section: NULL, reported.
 */
LF_API struct lf_fence *lf_fence_slot_look(const struct lf_fence_slot *slot);

LF_END_DECLS

#endif /* LIBFENCE_FENCE_H */
