/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Looking into containers: their leaves, and new containers made of them.
 *
 * A *leaf* is a fence that is no container. A fence that is not a container is its own one leaf, so nobody needs to ask what kind a
 * fence is before walking it.
 */
#ifndef LIBFENCE_UNWRAP_H
#define LIBFENCE_UNWRAP_H

#include <libfence/fence.h>

LF_BEGIN_DECLS

/** How a container is walked. */
enum lf_unwrap_flags {
	LF_UNWRAP_KEEP_ANY = 1, /**< an *any* array counts as a leaf: its members mean something else than it */
};

/** A walk over leaves. On the caller's stack. */
struct lf_unwrap {
	struct lf_fence **leaves; /**< not yours */
	size_t count; /**< how many leaves there are */
	size_t next; /**< not yours */
};

/**
 * Collects the leaves of a fence, however deep it nests: each leaf once, in the order of array members and of chain points (oldest first),
 * where it occurs first. What is signaled is left out, since containers let it go; but for @p f itself if it is a leaf.
 *
 * @param walk to be given to lf_unwrap_next() and lf_unwrap_end()
 * @param f borrowed for the call; may be NULL, which has no leaves
 * @param flags of enum lf_unwrap_flags
 *
 * @par Ownership
 * After a return of 0 the walk has a reference on each leaf until lf_unwrap_end().
 *
 * @par Context
 * Any. Needs memory in proportion to the leaves, containers and links among them, and no stack for depth; time in proportion to the links.
 * @return 0; -ENOMEM; -EINVAL (reported): unknown flags; -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_unwrap_begin(struct lf_unwrap *walk, struct lf_fence *f, unsigned flags) LF_MUST_CHECK;

/**
 * The next leaf.
 *
 * @param walk begun
 * @return borrowed until lf_unwrap_end(); NULL behind the last.
 */
LF_API struct lf_fence *lf_unwrap_next(struct lf_unwrap *walk);

/**
 * Ends the walk and puts its references.
 *
 * @param walk begun; ending it twice does nothing
 */
LF_API void lf_unwrap_end(struct lf_unwrap *walk);

/**
 * Makes one fence of several, without nesting: it is signaled when all of them are, and holds leaves only.
 *
 * Of an ordered timeline only the newest leaf is taken, since it stands for the older ones; of what is not ordered everything, each fence
 * once. Chains are dissolved into what is pending of them. *Any* arrays are taken as they are. What has completed already is not
 * held, but remembered: the result carries its error (the first in order) and, unless it is a leaf, its timestamp.
 *
 * @param fences @p count of them, borrowed for the call; NULL entries are left out
 * @param count may be 0
 * @param ret_fence a new reference: the stub, when there was nothing at all; the one leaf, when one is left and nothing else completed
 * with an error; when nothing is left, a signaled fence with the first error and the latest timestamp; else an array
 *
 * @par Context
 * Like lf_unwrap_begin().
 * @return 0; -ENOMEM; -EINVAL (reported): no array of fences, or no place for the result; -EOWNERDEAD in a poisoned child. May sleep.
 */
LF_API int lf_fence_merge(struct lf_fence *const *fences, size_t count, struct lf_fence **ret_fence) LF_MUST_CHECK;

/**
 * Like lf_fence_merge() of one fence: the same without nesting.
 *
 * @param f borrowed for the call
 * @param ret_fence like there
 * @return like there; -EINVAL (reported): @p f is NULL.
 */
LF_API int lf_fence_flatten(struct lf_fence *f, struct lf_fence **ret_fence) LF_MUST_CHECK;

/**
 * Asks whether a fence is a container: an array or a link of a chain.
 *
 * @param f borrowed for the call
 * @return true for containers. Immutable.
 */
LF_API bool lf_fence_is_container(const struct lf_fence *f);

LF_END_DECLS

#endif /* LIBFENCE_UNWRAP_H */
