/* SPDX-License-Identifier: MIT */
/*
 * Notices: told once when all of a snapshot is signaled.
 *
 * Purpose: one node waits for any number of fences of any kind. It hangs on one pending fence at a time; when that one is signaled, it
 * moves to the next that is pending, and when there is none, the notice fires. So arming needs no memory, and most fences are never
 * touched.
 *
 * States:
 *
 *     IDLE --arm--> ARMED --hop() finds nothing pending--> FIRED --arm--> ARMED
 *                     |\--cancel: the node was taken back--> IDLE
 *                      \--cancel: the node is claimed--> CANCELLED --hop()--> IDLE
 *
 * | state     | snapshot   | fence                                                        | node                               |
 * |-----------|------------|--------------------------------------------------------------|------------------------------------|
 * | IDLE      | empty      | NULL                                                         | the owner's                        |
 * | ARMED     | the fences | the one that the node is on, kept by the snapshot            | on it, or claimed: hop() will lock |
 * | CANCELLED | the fences | as above                                                     | claimed: hop() will lock           |
 * | FIRED     | empty      | the last one, with a reference: it tells whether fn still    | the owner's; running while fn is   |
 * |           |            | runs; NULL once somebody knows that it does not              |                                    |
 *
 * Invariants:
 * N1. All fields change under the notice's spinlock. ARMED and CANCELLED: what the table says is so whenever the lock is free.
 * N2. hop() locks once, and does not touch the notice after it has unlocked, but for handing its address to fn: from there on it is the
 *     owner's, who may free it. (What the dispatcher touches of the node: nothing after the claim, see dispatch.c D2.)
 * N3. A fence before `at` is signaled, or of a usage that was not asked for, or the one that the node is on. So a notice fires when all
 *     are signaled, and not before.
 * N4. The node is a user's callback, since fn is: it runs in the second phase of dispatch, with nothing held. Whether fn runs is what the
 *     fence says of its node.
 *
 * Locking: the notice's spinlock, held while the next pending fence is looked for; a fence's lock may be taken under it, nothing else. Only
 * who cancels, or asks to arm twice, ever waits for it. No lock of the reservation: arming takes a snapshot.
 *
 * Ordering: by the locks.
 *
 * Not here: snapshots (resv.c).
 */
#include <libfence/notice.h>

#include <unistd.h>

#include "base/check.h"
#include "base/library.h"
#include "base/rcu.h"
#include "fence/core.h"
#include "resv/block.h"

enum { IDLE = 0, ARMED, CANCELLED, FIRED };

/* --- Lock ------------------------------------------------------------------------------------------------------------------ */

static struct port_spin *spin_of(struct lf_notice *n)
{
	return port_spin_of(&n->spin);
}

static void notice_lock(struct lf_notice *n) LF_NO_THREAD_ANALYSIS
{
	if (!PLANTED(171))
		port_spin_lock(spin_of(n));
}

static void notice_unlock(struct lf_notice *n) LF_NO_THREAD_ANALYSIS
{
	if (!PLANTED(171))
		port_spin_unlock(spin_of(n));
}

/* --- Firing ---------------------------------------------------------------------------------------------------------------- */

static void write_event(int fd)
{
	const uint64_t one = 1;
	ssize_t written;

	do
		written = write(fd, &one, sizeof(one));
	while (written < 0 && errno == EINTR);
	/* EAGAIN: the count is at its limit, so whoever polls it is woken anyway. */
	if (unlikely(written < 0 && errno != EAGAIN))
		log_message(LF_LOG_WARNING, "a notice could not write to eventfd %d: %s", fd, strerror(errno));
}

static void hop(struct lf_fence *f, struct lf_fence_cb *cb);

/* Puts the node onto the next fence that is pending. The notice is locked. Returns false when there is none. */
static bool move_on(struct lf_notice *n)
{
	struct lf_resv_cursor cursor = { n->at, block_end(n->snapshot.block, n->snapshot.count), n->usage };
	struct lf_fence *f;
	bool moved = false;

	while (!moved && (f = lf_resv_cursor_next(&cursor)) != NULL) {
		n->fence = f;
		moved = is_pending(f) && fence_add_user(f, &n->cb, hop) == 0;
	}
	n->at = cursor.at;
	return moved;
}

/* Takes the snapshot out. The notice is locked. */
static struct lf_snapshot take_snapshot(struct lf_notice *n)
{
	struct lf_snapshot snapshot = n->snapshot;

	n->snapshot = (struct lf_snapshot){ 0 };
	n->fence = NULL; /* was kept by it */
	return snapshot;
}

/* The callback of the fence that the node was on. */
static void hop(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct lf_notice *n = container_of(cb, struct lf_notice, cb);
	struct lf_snapshot snapshot;
	lf_notice_fn fn;
	bool cancelled;
	int fd;

	notice_lock(n);
	cancelled = n->state == CANCELLED && !PLANTED(67);
	if (!cancelled && !PLANTED(68) && move_on(n)) {
		notice_unlock(n);
		return;
	}
	snapshot = take_snapshot(n);
	n->state = cancelled ? IDLE : FIRED;
	if (!cancelled)
		n->fence = lf_fence_get(f);
	fn = n->fn;
	fd = n->fd;
	notice_unlock(n);
	lf_snapshot_put(&snapshot);
	if (cancelled)
		return;
	if (fn)
		fn(n);
	else
		write_event(fd);
	if (PLANTED(69))
		n->usage = 0;
}

/* --- Life ------------------------------------------------------------------------------------------------------------------ */

void lf_notice_init(struct lf_notice *notice)
{
	*notice = (struct lf_notice){ .fd = -1 };
}

void lf_notice_fini(struct lf_notice *notice)
{
	struct lf_fence *last;

	if (!notice || library_poisoned())
		return;
	lf_notice_cancel_sync(notice);
	notice_lock(notice);
	last = notice->state == FIRED ? notice->fence : NULL;
	if (notice->state == FIRED)
		notice->fence = NULL;
	notice_unlock(notice);
	lf_fence_put(last);
}

/* --- Arming ---------------------------------------------------------------------------------------------------------------- */

/* Whether fn runs for the fence, on whatever thread. The notice is locked and FIRED. */
static bool is_running(struct lf_notice *n)
{
	return n->fence && lf_fence_remove_callback(n->fence, &n->cb) == LF_CB_RUNNING;
}

/* Whether this thread is inside a callback of @f; that is fn, if it runs at all, since a fence runs one at a time. */
static bool is_inside(const struct lf_fence *f)
{
	return this_thread()->current == f;
}

/* Whether the notice may not be armed. It is locked. */
static bool is_busy(struct lf_notice *n)
{
	if (n->state == FIRED)
		return is_running(n) && !is_inside(n->fence);
	return n->state != IDLE;
}

/* What a notice does when it fires: @fn, or a write to @fd. */
struct action {
	lf_notice_fn fn;
	int fd;
};

/*
 * Arms over a snapshot, which is moved into the notice before anybody can see it fire: that may end what surrounds the snapshot. *ret_last
 * is the fence that the notice had fired for, to be put.
 */
static int arm_locked(struct lf_notice *n, struct lf_snapshot *snapshot, enum lf_usage usage, struct action action,
	struct lf_fence **ret_last)
{
	*ret_last = NULL;
	if (is_busy(n))
		return -EALREADY;
	*ret_last = n->fence;
	n->snapshot = *snapshot;
	n->at = block_slots(snapshot->block);
	n->usage = (uint32_t)usage;
	n->fn = action.fn;
	n->fd = action.fd;
	if (!move_on(n)) {
		take_snapshot(n); /* the caller's still */
		n->fence = *ret_last;
		*ret_last = NULL;
		return -ENOENT;
	}
	*snapshot = (struct lf_snapshot){ 0 }; /* moved into the notice */
	n->state = ARMED;
	return 0;
}

static int arm(struct lf_notice *n, struct lf_snapshot *snapshot, enum lf_usage usage, struct action action, const char *function)
{
	struct lf_fence *last;
	int ret;

	snapshot_enable(snapshot, usage); /* before anything is held: hooks may signal, and do what they like */
	notice_lock(n);
	ret = arm_locked(n, snapshot, usage, action, &last);
	notice_unlock(n);
	if (ret == -EALREADY)
		return misuse(ret, "%s: notice %p is armed, or its function is running", function, (void *)n);
	lf_fence_put(last);
	return ret;
}

static int check_arm(const struct lf_notice *n, const void *what, enum lf_usage usage, struct action action, const char *function)
{
	if (unlikely(!n || !what || (!action.fn && action.fd < 0)))
		return misuse(-EINVAL, "%s: an argument is missing", function);
	if (unlikely((unsigned)usage > LF_USAGE_BOOKKEEP))
		return misuse(-EINVAL, "%s: %d is not a usage", function, (int)usage);
	return library_poisoned() ? -EOWNERDEAD : 0;
}

static int arm_over(struct lf_notice *n, const struct lf_resv *resv, enum lf_usage usage, struct action action, const char *function)
{
	struct lf_snapshot snapshot;
	int ret = check_arm(n, resv, usage, action, function);

	if (ret)
		return ret;
	lf_resv_snapshot(resv, &snapshot);
	ret = arm(n, &snapshot, usage, action, function);
	lf_snapshot_put(&snapshot); /* empty when the notice has it */
	return ret;
}

int lf_notice_arm(struct lf_notice *notice, const struct lf_resv *resv, enum lf_usage usage, lf_notice_fn fn)
{
	return arm_over(notice, resv, usage, (struct action){ .fn = fn, .fd = -1 }, __func__);
}

int lf_notice_arm_eventfd(struct lf_notice *notice, const struct lf_resv *resv, enum lf_usage usage, int fd)
{
	return arm_over(notice, resv, usage, (struct action){ .fd = fd }, __func__);
}

int lf_notice_arm_snapshot(struct lf_notice *notice, struct lf_snapshot *snapshot, enum lf_usage usage, lf_notice_fn fn)
{
	struct action action = { .fn = fn, .fd = -1 };
	int ret = check_arm(notice, snapshot, usage, action, __func__);

	return ret ? ret : arm(notice, snapshot, usage, action, __func__);
}

/* --- Cancelling ------------------------------------------------------------------------------------------------------------ */

/* Like lf_notice_cancel(). With LF_CB_RUNNING, *ret_fence is a reference on the fence whose callback the node is; else NULL. */
static int disarm(struct lf_notice *n, struct lf_fence **ret_fence)
{
	struct lf_snapshot snapshot = { 0 };
	struct lf_fence *last = NULL;
	int result = LF_CB_REMOVED;

	notice_lock(n);
	if (n->state == ARMED && lf_fence_remove_callback(n->fence, &n->cb) == LF_CB_REMOVED) {
		snapshot = take_snapshot(n);
		n->state = IDLE;
	} else if (n->state == ARMED || n->state == CANCELLED) {
		n->state = CANCELLED;
		result = LF_CB_RUNNING;
	} else if (n->state == FIRED) {
		result = is_running(n) ? LF_CB_RUNNING : LF_CB_RAN;
	}
	if (result == LF_CB_RAN) {
		last = n->fence;
		n->fence = NULL;
	}
	*ret_fence = result == LF_CB_RUNNING ? lf_fence_get(n->fence) : NULL;
	notice_unlock(n);
	lf_snapshot_put(&snapshot);
	lf_fence_put(last);
	return result;
}

int lf_notice_cancel(struct lf_notice *notice)
{
	struct lf_fence *f;
	int result;

	if (library_poisoned())
		return -EOWNERDEAD;
	result = disarm(notice, &f);
	lf_fence_put(f);
	return result;
}

/* A function that has armed the notice again while it was waited for is waited for again. */
int lf_notice_cancel_sync(struct lf_notice *notice)
{
	struct lf_fence *f;
	int result;

	if (library_poisoned())
		return -EOWNERDEAD;
	/* Refused whether or not it would have to wait, so that the mistake shows each time; but not left armed. */
	if (unlikely(rcu_held())) {
		lf_notice_cancel(notice);
		return misuse(-EDEADLK, "lf_notice_cancel_sync: waits, and was called inside a read section");
	}
	while ((result = disarm(notice, &f)) == LF_CB_RUNNING && !is_inside(f)) {
		result = fence_sleep_while_running(f, &notice->cb);
		lf_fence_put(f);
		if (result < 0)
			return result;
	}
	lf_fence_put(f);
	return result;
}
