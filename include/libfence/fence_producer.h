/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Fences, as their producers see them: making, embedding and signalling.
 *
 * A *stand-alone* fence is signaled by whoever made it, with lf_fence_signal(). A fence that needs hooks, or has a place in
 * an order, comes from a timeline (<libfence/timeline.h>), which signals it.
 */
#ifndef LIBFENCE_FENCE_PRODUCER_H
#define LIBFENCE_FENCE_PRODUCER_H

#include <libfence/fence.h>

LF_BEGIN_DECLS

/**
 * A fence. Complete here so that it can be embedded; nothing in it is yours. 64 bytes where pointers have 8.
 * Memory comes from lf_alloc(), and the library frees it, with all that surrounds the fence, after the last put.
 */
struct lf_fence {
	lf_atomic_ptr origin; /**< not yours */
	lf_atomic_ptr callbacks; /**< not yours */
	uint64_t context; /**< not yours */
	uint64_t seqno; /**< not yours */
	int64_t timestamp; /**< not yours */
	lf_atomic_u32 count; /**< not yours */
	lf_atomic_u32 state; /**< not yours */
	void *link; /**< not yours */
	uintptr_t running; /**< not yours */
} LF_ALIGNED(8);

/** The farthest that a fence may lie from the start of the block it is embedded in, in bytes. */
#define LF_FENCE_MAX_OFFSET 1016

/**
 * The producer's hooks for the fences of one timeline. Each may be NULL. They run with no lock held and outside read sections, on the
 * thread of whoever caused them, while the fence is pending or (detach) has just been signaled; they may do all that a callback may, and
 * may wait for fences of others if their producer's users can bear it. After detach has returned, no hook runs for this fence.
 */
struct lf_fence_ops {
	/**
	 * Arms the fence: somebody is interested now. Called at most once for each fence, before the first callback is added or wait
	 * begins. @p data is the timeline's.
	 * @return 0 when armed; 1 when it is already done: it is signaled at once; a negative errno: it is signaled with this
	 * error. On an ordered timeline all earlier fences are signaled with it, and alike, since states never go backwards.
	 */
	int (*enable)(struct lf_fence *f, void *data);
	/**
	 * Looks whether the fence is done. Called by lf_fence_check().
	 * @return 0 when pending; else like enable.
	 */
	int (*poll)(struct lf_fence *f, void *data);
	/** Takes a hint: somebody needs the fence by @p deadline (absolute nanoseconds). */
	void (*set_deadline)(struct lf_fence *f, int64_t deadline, void *data);
	/**
	 * Hands the payload back: the producer's part of the fence ends here. Called exactly once for each fence that was
	 * emitted, after it was signaled and when no other hook runs for it, before its first callback runs unless a hook
	 * was still running.
	 */
	void (*detach)(struct lf_fence *f, void *data);
};

/**
 * Makes a stand-alone fence of its own.
 *
 * @param ret_fence a new reference, the only one
 * @return 0; -ENOMEM; -EOWNERDEAD in a poisoned child. May sleep (see <libfence/base.h>).
 */
LF_API int lf_fence_create(struct lf_fence **ret_fence) LF_MUST_CHECK;

/**
 * Makes a fence inside a larger block.
 *
 * @param f inside a block from lf_alloc(), which the library frees after the last put; its contents do not matter
 * @param offset of @p f from the start of the block in bytes, a multiple of 8, at most #LF_FENCE_MAX_OFFSET
 *
 * @par Ownership
 * After a return of 0 the caller has the only reference, and the block ends with the last one. Nothing is called then: what lies beside
 * the fence must need no end, or have had it when the fence was signaled (a timeline's fence: in its detach hook). A job of a queue has
 * a release hook.
 * @return 0; -EINVAL (reported) for another offset, and the block is still the caller's; -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_fence_init(struct lf_fence *f, size_t offset) LF_MUST_CHECK;

/**
 * Makes a fence that is signaled already, for what was done at once.
 *
 * @param error 0 or a negative errno, see lf_fence_signal()
 * @param timestamp nanoseconds
 * @param ret_fence a new reference
 * @return like lf_fence_create().
 */
LF_API int lf_fence_create_signaled(int error, int64_t timestamp, struct lf_fence **ret_fence) LF_MUST_CHECK;

/**
 * Signals a stand-alone fence: result, timestamp and completion are one step. Its callbacks run here, unless the caller is inside a
 * callback itself: then they have run when the thread's outermost signal returns. Waiters and what else the library hangs on a fence are
 * told at once in any case.
 *
 * @param f the caller holds a reference during the call; a callback may put it
 * @param error 0, or -1 to -#LF_MAX_ERROR: the fence completes with this error. Anything else is misuse, reported, and counts as -EINVAL.
 *
 * @par Context
 * Any but inside a read section, where callbacks could not do what they may (reported; it signals all the same). Never blocks of itself,
 * allocates nothing. Callbacks run here: hold no lock of yours that one of them takes. That goes for all that signals: lf_timeline_signal_to(),
 * a loss, the last put of a timeline, a close.
 *
 * @par Ordering
 * A release: who sees the fence signaled sees what was written before.
 *
 * @return whether this call did it: false when the fence was signaled already, which is no misuse. Also false, reported: a fence of
 * a timeline, which its timeline signals; and, silently, in a poisoned child.
 */
LF_API bool lf_fence_signal(struct lf_fence *f, int error);

/**
 * Like lf_fence_signal(), but with the time at which it happened.
 *
 * @param f like there
 * @param error like there
 * @param timestamp nanoseconds of CLOCK_MONOTONIC; what lf_fence_timestamp() will say
 * @return like there.
 */
LF_API bool lf_fence_signal_at(struct lf_fence *f, int error, int64_t timestamp);

LF_END_DECLS

#endif /* LIBFENCE_FENCE_PRODUCER_H */
