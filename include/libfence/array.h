/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Arrays: one fence for a set of fences.
 *
 * An array is a fence like any other (everything in <libfence/fence.h> works on it) that is signaled when all of its members are, or when
 * the first of them is. It is for *dependency sets*: fences of any producers that have nothing to do with each other. For points on a
 * line, each of which stands for all before it, there is the chain (<libfence/chain.h>).
 *
 * Members may be of any kind, arrays and chains included, to any depth; the same fence may occur several times. Being made, an array
 * subscribes to its members without arming them: their producers' enable hooks run when somebody adds a callback to the array or waits for
 * it. It lets a member go at the moment that one is signaled, not when somebody looks.
 *
 * Making an array consumes the references on its members (unlike lf_resv_add(), which takes its own): lf_fence_get() what you keep.
 */
#ifndef LIBFENCE_ARRAY_H
#define LIBFENCE_ARRAY_H

#include <libfence/fence.h>

LF_BEGIN_DECLS

/** When an array is signaled. */
enum lf_array_flags {
	LF_ARRAY_ALL = 0, /**< when all members are signaled */
	LF_ARRAY_ANY = 1, /**< when one member is; it takes its subscriptions back from the others then, and puts them */
};

/**
 * Makes an array.
 *
 * Its status is the error of the member that was the first to complete with one (of members that were signaled already when the array was
 * made: the first in order), else 1; of an *any* array, the status of the member that signaled it (again, the first in order). Its
 * timestamp is the latest of its members', of an *any* array that of the member that signaled it. It is on no timeline: context and seqno
 * are 0.
 *
 * @param fences @p count of them; the array of pointers is borrowed for the call
 * @param count at most UINT32_MAX; with #LF_ARRAY_ALL may be 0, which makes a signaled array with status 1 and timestamp 0
 * @param flags of enum lf_array_flags
 * @param ret_array a new reference
 *
 * @par Ownership
 * Success consumes the caller's references on all members; after an error they are still the caller's.
 *
 * @par Context
 * Like lf_fence_create(). Runs no hook.
 * @return 0; -ENOMEM; -EINVAL (reported): a NULL member, unknown flags, or *any* of no members; -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_array_create(struct lf_fence *const *fences, size_t count, unsigned flags, struct lf_fence **ret_array) LF_MUST_CHECK;

/** Room for an array that will be made where nothing may fail. */
struct lf_array_room;

/**
 * Does what can fail of making an array.
 *
 * @param count of members at most
 * @param ret_room to be given to lf_array_commit() or lf_array_cancel()
 * @return 0; -ENOMEM; -EINVAL (reported): more than UINT32_MAX members; -EOWNERDEAD in a poisoned child. May sleep.
 */
LF_API int lf_array_prepare(size_t count, struct lf_array_room **ret_room) LF_MUST_CHECK;

/**
 * Like lf_array_create(), but in room that was prepared: allocates nothing and cannot fail.
 *
 * @param room consumed
 * @param fences like there
 * @param count at most what the room was prepared for
 * @param flags like there
 * @return a new reference. NULL (reported) if lf_array_create() would have said -EINVAL or the room is too small, or, silently, in
 * a poisoned child: then room and members are still the caller's.
 */
LF_API struct lf_fence *lf_array_commit(struct lf_array_room *room, struct lf_fence *const *fences, size_t count, unsigned flags);

/**
 * Gives room back that is not needed.
 *
 * @param room may be NULL
 */
LF_API void lf_array_cancel(struct lf_array_room *room);

/**
 * Asks whether a fence is an array.
 *
 * @param f borrowed for the call
 * @return true for what this header makes. Immutable.
 */
LF_API bool lf_fence_is_array(const struct lf_fence *f);

LF_END_DECLS

#endif /* LIBFENCE_ARRAY_H */
