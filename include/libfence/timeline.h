/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Timelines: the context that fences are emitted on, in the order of their seqnos.
 *
 * A timeline holds a reference on each pending fence that it emitted, and can therefore always find and complete it: up to a seqno, one by
 * one, or all at once when the device is lost or the timeline is dropped. No fence of a timeline stays pending for ever.
 */
#ifndef LIBFENCE_TIMELINE_H
#define LIBFENCE_TIMELINE_H

#include <libfence/fence_producer.h>

LF_BEGIN_DECLS

struct lf_provider;
struct lf_timeline;

/** How a timeline orders its fences. */
enum lf_timeline_flags {
	LF_TIMELINE_ORDERED = 0, /**< signaled in the order of seqnos: states and timestamps never go backwards */
	LF_TIMELINE_UNORDERED = 1, /**< each may be signaled by itself, with lf_timeline_signal_one() */
};

/** What a timeline is made from. */
struct lf_timeline_desc {
	const char *name; /**< copied; not NULL */
	unsigned flags; /**< enum lf_timeline_flags */
	const struct lf_fence_ops *ops; /**< hooks for all its fences; borrowed until release has returned; may be NULL */
	void *data; /**< handed to the hooks */
	/**
	 * Called once, when the timeline has been put for the last time, or its provider is closed, and its last fence is detached:
	 * @p data is no longer used. May be NULL. Runs like a hook.
	 */
	void (*release)(void *data);
	struct lf_provider *provider; /**< whose code the hooks are; takes a reference; may be NULL */
};

/**
 * Makes a timeline, with a context id of its own.
 *
 * @param desc borrowed for the call
 * @param ret_timeline a new reference
 * @return 0; -ENOMEM; -EINVAL (reported): no name, or unknown flags; -ESHUTDOWN: the provider is closing; -EOWNERDEAD in a poisoned child.
 * May sleep.
 */
LF_API int lf_timeline_create(const struct lf_timeline_desc *desc, struct lf_timeline **ret_timeline) LF_MUST_CHECK;

/**
 * Takes a reference.
 *
 * @param tl may be NULL
 * @return @p tl
 */
LF_API struct lf_timeline *lf_timeline_get(struct lf_timeline *tl);

/**
 * Consumes the caller's reference. The last one drops the timeline: what is pending completes with -ECANCELED, the name is forgotten.
 *
 * @param tl may be NULL
 *
 * @par Context
 * Like lf_fence_signal(): callbacks may run here.
 */
LF_API void lf_timeline_put(struct lf_timeline *tl);

/**
 * The context id of its fences.
 *
 * @param tl borrowed for the call
 * @return never 0
 */
LF_API uint64_t lf_timeline_context(const struct lf_timeline *tl);

/**
 * The seqno of the fence emitted last.
 *
 * @param tl borrowed for the call
 * @return 0 when none was
 */
LF_API uint64_t lf_timeline_last_seqno(struct lf_timeline *tl);

/**
 * Makes a fence and emits it. On a timeline that was lost it is signaled before this returns, with the error of the loss.
 *
 * @param tl borrowed for the call; any number of threads may emit and signal at once
 * @param seqno greater than that of every fence emitted before; 0 for one more than the last
 * @param ret_fence a new reference; the timeline has one of its own until the fence is signaled
 *
 * @par Context
 * Any, also under locks of yours that order what is emitted; but on a timeline that was lost the fence's detach hook runs inside this call,
 * and must not take them.
 *
 * @return 0; -ENOMEM; -EINVAL (reported): the seqno does not rise; -ESHUTDOWN: the provider is closed; -EOVERFLOW: no seqno is left;
 * -EOWNERDEAD in a poisoned child. On failure nothing was emitted. May sleep like lf_fence_create().
 */
LF_API int lf_timeline_emit(struct lf_timeline *tl, uint64_t seqno, struct lf_fence **ret_fence) LF_MUST_CHECK;

/**
 * Like lf_timeline_emit(), but with a fence that lf_fence_init() made inside a block of the caller's, filled in before: from here on
 * hooks may be called for it.
 *
 * @param tl like there
 * @param seqno like there
 * @param f pending, stand-alone, and nobody else has seen it: no other reference, no callback, not published. Takes a reference.
 * @return like there; also -EINVAL (reported) for any other fence. On failure the fence stays stand-alone.
 */
LF_API int lf_timeline_emit_fence(struct lf_timeline *tl, uint64_t seqno, struct lf_fence *f) LF_MUST_CHECK;

/**
 * Signals every pending fence up to a seqno, in order, all with the same result and one timestamp. Calls of several threads at once
 * keep the order: whoever sees a fence of an ordered timeline signaled sees all earlier ones signaled. (Callbacks of different
 * fences may run at the same time on the threads that signaled them.)
 *
 * @param tl borrowed for the call
 * @param seqno up to and with it; may lie beyond the last one emitted, which does not signal what is emitted later
 * @param error like lf_fence_signal()
 *
 * @par Context
 * Like lf_fence_signal().
 * @return how many fences this call signaled
 */
LF_API size_t lf_timeline_signal_to(struct lf_timeline *tl, uint64_t seqno, int error);

/**
 * Like lf_timeline_signal_to(), but with the time at which it happened.
 *
 * @param tl like there
 * @param seqno like there
 * @param error like there
 * @param timestamp nanoseconds; on an ordered timeline a time before that of an earlier fence is moved up to it
 * @return like there
 */
LF_API size_t lf_timeline_signal_to_at(struct lf_timeline *tl, uint64_t seqno, int error, int64_t timestamp);

/**
 * Signals one fence of an unordered timeline.
 *
 * @param tl the timeline that emitted it
 * @param f the caller holds a reference
 * @param error like lf_fence_signal()
 *
 * @par Context
 * Like lf_fence_signal().
 * @return whether this call did it. false, reported: an ordered timeline, or a fence of another.
 */
LF_API bool lf_timeline_signal_one(struct lf_timeline *tl, struct lf_fence *f, int error);

/**
 * Declares the device lost: everything pending completes with the error, and so does everything that is emitted later, also what another
 * thread signals at the same moment. Sticky; the first loss counts.
 *
 * @param tl borrowed for the call
 * @param error like lf_fence_signal(); 0 is no loss, and misuse like any other bad error: -EINVAL
 *
 * @par Context
 * Like lf_fence_signal().
 * @return how many fences this call signaled
 */
LF_API size_t lf_timeline_lose(struct lf_timeline *tl, int error);

LF_END_DECLS

#endif /* LIBFENCE_TIMELINE_H */
