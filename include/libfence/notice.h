/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Notices: being told when all that a reservation holds at one moment is signaled.
 *
 * A notice is armed over a snapshot and fires once, when the last fence of it is signaled: by calling a function, or by writing to an
 * eventfd, which makes any event loop (poll, epoll) a waiter for a reservation: one wake for all of its fences, no lock in the loop's path,
 * and nothing that was there at arming is missed. What is added later is the matter of the next arming; lf_resv_generation() tells whether
 * there was any.
 */
#ifndef LIBFENCE_NOTICE_H
#define LIBFENCE_NOTICE_H

#include <libfence/resv.h>

LF_BEGIN_DECLS

struct lf_notice;

/**
 * Called when a notice fires.
 *
 * @param notice the one that was armed; it may be armed again here, ended (lf_notice_fini()) and then freed. A cancel that comes after it
 * was armed again asks for that arming, and does not wait for the rest of this call.
 *
 * @par Context
 * Like a fence's callback (lf_fence_cb_fn), on the thread that signaled the last fence.
 */
typedef void (*lf_notice_fn)(struct lf_notice *notice);

/**
 * A notice. Caller's storage, usually embedded in what it is about. Its memory ends after lf_notice_fini(): also one that has fired keeps
 * something, a reference on the last fence.
 */
struct lf_notice {
	struct lf_fence_cb cb; /**< not yours */
	struct lf_fence *fence; /**< not yours */
	struct lf_snapshot snapshot; /**< not yours */
	const uintptr_t *at; /**< not yours */
	lf_notice_fn fn; /**< not yours */
	lf_atomic_u32 spin; /**< not yours */
	uint32_t usage; /**< not yours */
	int fd; /**< not yours */
	uint32_t state; /**< not yours */
};

/**
 * Initialises a notice that is not armed.
 *
 * @param notice the caller's memory
 */
LF_API void lf_notice_init(struct lf_notice *notice);

/**
 * Ends a notice: disarms it, and waits while its function runs, unless the caller is inside it.
 *
 * @param notice initialised; its memory is the caller's afterwards
 *
 * @par Context
 * Like lf_fence_cancel_callback_sync().
 */
LF_API void lf_notice_fini(struct lf_notice *notice);

/**
 * Arms a notice over what a reservation holds now, and arms the fences (their producers' enable hooks run).
 *
 * @param notice not armed
 * @param resv need not be locked
 * @param usage of enum lf_usage
 * @param fn called once
 *
 * @par Ownership
 * From a return of 0 until @p fn is entered, or a cancel has returned LF_CB_REMOVED, the notice belongs to the library. It needs
 * neither the reservation nor references of the caller meanwhile.
 *
 * @par Context
 * Like lf_fence_add_callback(). Allocates nothing.
 * @return 0: it will fire, perhaps before this returns. -ENOENT: all is signaled already, and it will not. -EALREADY (reported): it is
 * armed, or running. -EINVAL (reported): an argument is missing. -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_notice_arm(struct lf_notice *notice, const struct lf_resv *resv, enum lf_usage usage, lf_notice_fn fn) LF_MUST_CHECK;

/**
 * Like lf_notice_arm(), but fires by adding 1 to an eventfd.
 *
 * @param notice like there
 * @param resv like there
 * @param usage like there
 * @param fd from eventfd(), nonblocking; stays open until the notice has fired or was cancelled
 * @return like there; after -ENOENT nothing is written.
 */
LF_API int lf_notice_arm_eventfd(struct lf_notice *notice, const struct lf_resv *resv, enum lf_usage usage, int fd) LF_MUST_CHECK;

/**
 * Like lf_notice_arm(), but over a snapshot: what a buffer that dies, a move or a range of addresses waits for.
 *
 * @param notice like there
 * @param snapshot consumed when 0 is returned
 * @param usage like there
 * @param fn like there
 * @return like there; with an error the snapshot is still the caller's.
 */
LF_API int lf_notice_arm_snapshot(struct lf_notice *notice, struct lf_snapshot *snapshot, enum lf_usage usage, lf_notice_fn fn) LF_MUST_CHECK;

/**
 * Disarms a notice. Never blocks.
 *
 * @param notice in any state
 * @return LF_CB_REMOVED: it was armed and will not fire, or was never armed. LF_CB_RAN: it has fired, and its function has returned.
 * LF_CB_RUNNING: its storage is in use on another thread (it is firing, or just about to and will find itself cancelled), or the caller is
 * inside its function. -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_notice_cancel(struct lf_notice *notice);

/**
 * Like lf_notice_cancel(), but waits while its storage is in use on another thread.
 *
 * @param notice in any state
 *
 * @par Context
 * Like lf_fence_cancel_callback_sync().
 * @return LF_CB_REMOVED or LF_CB_RAN; LF_CB_RUNNING only inside its own function; -EDEADLK, -EOWNERDEAD like
 * lf_fence_cancel_callback_sync().
 */
LF_API int lf_notice_cancel_sync(struct lf_notice *notice);

LF_END_DECLS

#endif /* LIBFENCE_NOTICE_H */
