/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Chains: a timeline put together from fences of any producers.
 *
 * A chain is a line of *links*. Each link is a fence like any other; it stands for a *point* (a seqno that rises along the chain), holds
 * one fence, and is signaled when its fence and all links before it are. So it is for *one thing after the other*, such as a Vulkan
 * timeline semaphore whose points come from different queues; for fences that have nothing to do with each other there is the array
 * (<libfence/array.h>).
 *
 * A link is signaled by whoever signals the last of what it stands for. So inside a callback of its fence it may still be pending, also
 * when all before it is being signaled on another thread.
 *
 * All links of a chain share a context of their own and are ordered: lf_fence_is_later(), reservations and merging treat a newer link as
 * standing for the older ones. Links let go of the link before them and of their fence as those are signaled, whether or not anybody looks:
 * a chain that nobody waits for holds memory in proportion to what is pending. Like an array, a link arms nothing before somebody waits for
 * it.
 */
#ifndef LIBFENCE_CHAIN_H
#define LIBFENCE_CHAIN_H

#include <libfence/fence.h>

LF_BEGIN_DECLS

/** How a link is appended. */
enum lf_chain_flags {
	LF_CHAIN_JOIN = 1, /**< the fence may itself be a link of a chain, which joins the two; refused without this flag */
};

/**
 * Appends a link.
 *
 * Its status is the first error along the chain, from its beginning up to this link, else 1; so an error, once there, stays with all later
 * links. Its timestamp is the latest of all up to it.
 *
 * @param prev the link to append to, or NULL to begin a chain. Any other kind of fence begins a chain, too, which comes after that fence.
 * A link that was appended to before gets a second successor: a fork, whose new links have a context of their own.
 * @param fence what the point stands for; any kind but a link (see #LF_CHAIN_JOIN). For a point that is reached now, lf_fence_stub().
 * @param seqno of the point: above that of @p prev if this is a link, and above 0. Gaps are allowed.
 * @param flags of enum lf_chain_flags
 * @param ret_link a new reference
 *
 * @par Ownership
 * Success consumes the caller's references on @p prev and @p fence; after an error they are still the caller's.
 *
 * @par Context
 * Like lf_fence_create(). Runs no hook.
 * @return 0; -ENOMEM; -EINVAL (reported): the seqno does not rise, a fence that is a link without #LF_CHAIN_JOIN, no fence, unknown flags;
 * -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_chain_append(struct lf_fence *prev, struct lf_fence *fence, uint64_t seqno, unsigned flags, struct lf_fence **ret_link)
	LF_MUST_CHECK;

/** Room for a link that will be appended where nothing may fail. */
struct lf_chain_room;

/**
 * Does what can fail of appending a link.
 *
 * @param ret_room to be given to lf_chain_commit() or lf_chain_cancel()
 * @return 0; -ENOMEM; -EOWNERDEAD in a poisoned child. May sleep.
 */
LF_API int lf_chain_prepare(struct lf_chain_room **ret_room) LF_MUST_CHECK;

/**
 * Like lf_chain_append(), but in room that was prepared: allocates nothing and cannot fail.
 *
 * @param room consumed
 * @param prev like there
 * @param fence like there
 * @param seqno like there
 * @param flags like there
 * @return a new reference. NULL (reported) if lf_chain_append() would have said -EINVAL, or, silently, in a poisoned child: then
 * room, @p prev and @p fence are still the caller's.
 */
LF_API struct lf_fence *lf_chain_commit(struct lf_chain_room *room, struct lf_fence *prev, struct lf_fence *fence, uint64_t seqno,
	unsigned flags);

/**
 * Gives room back that is not needed.
 *
 * @param room may be NULL
 */
LF_API void lf_chain_cancel(struct lf_chain_room *room);

/**
 * Finds the fence that stands for a point: the first link whose seqno is not below it. In time that grows with the logarithm of the
 * number of links.
 *
 * @param link the newest link that is known, usually the chain's last; borrowed for the call
 * @param seqno the point; it need not be one that was appended
 * @param ret_fence a new reference: the link, pending or signaled; lf_fence_stub() when the point is reached and its link is gone already,
 * and for point 0, which comes before all. An error of a link that is gone is known to all later ones (see lf_chain_append()).
 *
 * @par Context
 * Any. Takes no lock, and writes nothing but the count of what it returns.
 * @return 0; -ENOENT: @p link is before the point, which so was not appended yet; -EINVAL (reported): not a link, or no place for
 * the fence; -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_chain_find_seqno(struct lf_fence *link, uint64_t seqno, struct lf_fence **ret_fence);

/**
 * The link, or other fence, before a link.
 *
 * @param link borrowed for the call
 * @return a new reference; NULL when it was let go (it is signaled), there was none, or @p link is none (reported).
 */
LF_API struct lf_fence *lf_chain_get_prev(const struct lf_fence *link) LF_MUST_CHECK;

/**
 * The fence of a link.
 *
 * @param link borrowed for the call
 * @return a new reference; NULL when it was let go (it is signaled), or @p link is none (reported).
 */
LF_API struct lf_fence *lf_chain_get_fence(const struct lf_fence *link) LF_MUST_CHECK;

/**
 * Asks whether a fence is a link of a chain.
 *
 * @param f borrowed for the call
 * @return true for what this header makes. Immutable.
 */
LF_API bool lf_fence_is_chain(const struct lf_fence *f);

LF_END_DECLS

#endif /* LIBFENCE_CHAIN_H */
