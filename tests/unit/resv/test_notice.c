/* SPDX-License-Identifier: MIT */
/* Notices: fired once when all is signaled; cancelled, armed again, ended and freed in every state; event loops. */
#include "producer.h"

#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define ALL LF_USAGE_BOOKKEEP

/* A notice that notes what happens, and does what the test tells it to. */
struct noted {
	struct lf_notice notice;
	unsigned fired;
	void (*during)(struct noted *n); /* inside fn, last of all: it may free it */
	struct lf_resv *r;
	struct lf_fence *f[64];
	unsigned more; /* how often it arms itself again */
	struct flag entered, leave;
	int result;
};

static void noted_fn(struct lf_notice *notice)
{
	struct noted *n = (struct noted *)(void *)notice;
	must(!lf_read_held());
	count_up(&n->fired);
	if (n->during)
		n->during(n);
}

static void add(struct lf_resv *r, struct lf_fence *f, enum lf_usage usage)
{
	must(lf_resv_lock(r, NULL) == 0);
	must(lf_resv_reserve(r, 1) == 0);
	lf_resv_add(r, f, usage);
	lf_resv_unlock(r);
}

/* A reservation with @count stand-alone fences, and a notice that is not armed. */
static void begin(struct noted *n, struct lf_resv *r, int count)
{
	memset(n, 0, sizeof(*n));
	lf_notice_init(&n->notice);
	lf_resv_init(r, NULL);
	n->r = r;
	for (int i = 0; i < count; i++) {
		assert_int_equal(lf_fence_create(&n->f[i]), 0);
		add(r, n->f[i], LF_USAGE_READ);
	}
}

static void end_fence(struct noted *n, int i)
{
	lf_fence_signal(n->f[i], 0);
	lf_fence_put(n->f[i]);
	n->f[i] = NULL;
}

static void finish(struct noted *n)
{
	lf_notice_fini(&n->notice);
	for (int i = 0; i < 64; i++) {
		if (n->f[i])
			end_fence(n, i);
	}
	lf_resv_fini(n->r);
}

static int arm(struct noted *n)
{
	return lf_notice_arm(&n->notice, n->r, ALL, noted_fn);
}

/* --- Firing ---------------------------------------------------------------------------------------------------------------- */

static void notice_fires_once_when_the_last_fence_is_signaled_in_whatever_order(void **state)
{
	for (int order = 0; order < 3; order++) {
		struct lf_resv r;
		struct noted n;
		begin(&n, &r, 12);
		long calls = alloc_calls();
		assert_int_equal(arm(&n), 0);
		assert_int_equal(alloc_calls(), calls);
		for (int i = 0; i < 12; i++) {
			assert_int_equal(n.fired, 0);
			lf_fence_signal(n.f[order == 0 ? i : order == 1 ? 11 - i : i * 5 % 12], 0);
		}
		assert_int_equal(n.fired, 1);
		finish(&n);
		assert_int_equal(n.fired, 1);
	}
}

static void arming_when_all_is_signaled_is_refused(void **state)
{
	struct lf_resv r;
	struct lf_snapshot s;
	struct noted n;
	begin(&n, &r, 0);
	assert_int_equal(arm(&n), -ENOENT);
	begin(&n, &r, 3);
	for (int i = 0; i < 3; i++)
		lf_fence_signal(n.f[i], 0);
	assert_int_equal(arm(&n), -ENOENT);
	lf_resv_snapshot(&r, &s);
	assert_int_equal(lf_notice_arm_snapshot(&n.notice, &s, ALL, noted_fn), -ENOENT);
	assert_non_null(s.block); /* still the caller's */
	lf_snapshot_put(&s);
	assert_int_equal(lf_notice_cancel(&n.notice), LF_CB_REMOVED);
	finish(&n);
	assert_int_equal(n.fired, 0);
}

static void notice_waits_for_its_usage_and_stronger_ones_only(void **state)
{
	for (int u = 0; u < 4; u++) {
		struct lf_resv r;
		struct noted n;
		begin(&n, &r, 0);
		for (int i = 0; i < 4; i++) {
			assert_int_equal(lf_fence_create(&n.f[i]), 0);
			add(&r, n.f[i], (enum lf_usage)i);
		}
		assert_int_equal(lf_notice_arm(&n.notice, &r, (enum lf_usage)u, noted_fn), 0);
		for (int i = 0; i < 4; i++) {
			assert_int_equal(n.fired, i > u);
			lf_fence_signal(n.f[i], 0);
		}
		assert_int_equal(n.fired, 1);
		finish(&n);
	}
}

static void notice_is_not_prolonged_by_what_is_added_later(void **state)
{
	struct lf_resv r;
	struct noted n;
	begin(&n, &r, 2);
	assert_int_equal(arm(&n), 0);
	assert_int_equal(lf_fence_create(&n.f[2]), 0);
	add(&r, n.f[2], LF_USAGE_KERNEL);
	lf_fence_signal(n.f[0], 0);
	lf_fence_signal(n.f[1], 0);
	assert_int_equal(n.fired, 1);
	finish(&n);
}

static void arming_arms_every_fence(void **state)
{
	struct lf_resv r;
	struct noted n;
	struct producer p;
	producer_init(&p, 0);
	begin(&n, &r, 0);
	for (int i = 0; i < 5; i++) {
		n.f[i] = emit(p.tl);
		add(&r, n.f[i], (enum lf_usage)(i % 4));
	}
	assert_int_equal(lf_notice_arm(&n.notice, &r, LF_USAGE_WRITE, noted_fn), 0);
	assert_int_equal(p.enables, 3);
	assert_int_equal(lf_timeline_signal_to(p.tl, 5, 0), 5);
	assert_int_equal(n.fired, 1);
	for (int i = 0; i < 5; i++) {
		lf_fence_put(n.f[i]);
		n.f[i] = NULL;
	}
	finish(&n);
	producer_fini(&p, 5);
}

/* The enable hook says that the fence is done: then there may be nothing left to wait for. */
static void fences_that_are_done_when_they_are_armed_leave_nothing_to_wait_for(void **state)
{
	struct lf_resv r;
	struct noted n;
	struct producer p;
	producer_init(&p, 0);
	p.enable_result = 1;
	begin(&n, &r, 0);
	for (int i = 0; i < 5; i++) {
		struct lf_fence *f = emit(p.tl);
		add(&r, f, LF_USAGE_READ);
		lf_fence_put(f);
	}
	assert_int_equal(arm(&n), -ENOENT);
	finish(&n);
	assert_int_equal(n.fired, 0);
	producer_fini(&p, 5);
}

static void wrong_arguments_are_refused(void **state)
{
	struct lf_resv r;
	struct noted n;
	begin(&n, &r, 1);
	assert_int_equal(lf_notice_arm(NULL, &r, ALL, noted_fn), -EINVAL);
	assert_int_equal(lf_notice_arm(&n.notice, NULL, ALL, noted_fn), -EINVAL);
	assert_int_equal(lf_notice_arm(&n.notice, &r, ALL, NULL), -EINVAL);
	assert_int_equal(lf_notice_arm(&n.notice, &r, (enum lf_usage)4, noted_fn), -EINVAL);
	assert_int_equal(lf_notice_arm_eventfd(&n.notice, &r, ALL, -1), -EINVAL);
	assert_int_equal(lf_notice_arm_snapshot(&n.notice, NULL, ALL, noted_fn), -EINVAL);
	expect_misuse(6);
	assert_int_equal(arm(&n), 0);
	assert_int_equal(arm(&n), -EALREADY);
	expect_misuse(1);
	finish(&n);
	lf_notice_fini(NULL);
}

/* --- Cancelling, in every state ---------------------------------------------------------------------------------------------- */

static void cancel_of_what_was_never_armed_says_REMOVED(void **state)
{
	struct lf_notice notice;
	lf_notice_init(&notice);
	assert_int_equal(lf_notice_cancel(&notice), LF_CB_REMOVED);
	assert_int_equal(lf_notice_cancel_sync(&notice), LF_CB_REMOVED);
	lf_notice_fini(&notice);
}

static void cancelled_notice_does_not_fire_and_can_be_armed_again(void **state)
{
	struct lf_resv r;
	struct noted n;
	begin(&n, &r, 3);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(arm(&n), 0);
		assert_int_equal(i % 2 ? lf_notice_cancel(&n.notice) : lf_notice_cancel_sync(&n.notice), LF_CB_REMOVED);
		assert_int_equal(lf_notice_cancel(&n.notice), LF_CB_REMOVED);
	}
	lf_fence_signal(n.f[0], 0);
	assert_int_equal(arm(&n), 0);
	lf_fence_signal(n.f[1], 0); /* moves on, and is taken back from the next */
	assert_int_equal(lf_notice_cancel_sync(&n.notice), LF_CB_REMOVED);
	lf_fence_signal(n.f[2], 0);
	assert_int_equal(n.fired, 0);
	finish(&n);
}

static void cancel_of_a_fired_notice_says_RAN(void **state)
{
	struct lf_resv r;
	struct noted n;
	begin(&n, &r, 1);
	assert_int_equal(arm(&n), 0);
	lf_fence_signal(n.f[0], 0);
	assert_int_equal(lf_notice_cancel(&n.notice), LF_CB_RAN);
	assert_int_equal(lf_notice_cancel_sync(&n.notice), LF_CB_RAN);
	assert_int_equal(n.fired, 1);
	finish(&n);
}

static void cancel_inside(struct noted *n)
{
	must(lf_notice_cancel(&n->notice) == LF_CB_RUNNING);
	must(lf_notice_cancel_sync(&n->notice) == LF_CB_RUNNING);
}

static void cancel_inside_its_function_says_RUNNING_and_does_not_wait(void **state)
{
	struct lf_resv r;
	struct noted n;
	begin(&n, &r, 1);
	n.during = cancel_inside;
	assert_int_equal(arm(&n), 0);
	lf_fence_signal(n.f[0], 0);
	assert_int_equal(n.fired, 1);
	finish(&n);
}

static void stay_inside(struct noted *n)
{
	flag_set(&n->entered);
	flag_wait(&n->leave);
}

static void *signal_first(void *arg)
{
	struct noted *n = arg;
	lf_fence_signal(n->f[0], 0);
	return NULL;
}

static void *cancel_sync_on_thread(void *arg)
{
	struct noted *n = arg;
	n->result = lf_notice_cancel_sync(&n->notice);
	return NULL;
}

static void cancel_while_its_function_runs_elsewhere_says_RUNNING_and_sync_waits(void **state)
{
	struct lf_resv r;
	struct noted n;
	pthread_t signaller, canceller;
	begin(&n, &r, 1);
	n.during = stay_inside;
	n.result = -1;
	flag_init(&n.entered);
	flag_init(&n.leave);
	test_watchdog(30, "cancel_sync of a running notice");
	assert_int_equal(arm(&n), 0);
	signaller = thread_start(signal_first, &n, 0);
	flag_wait(&n.entered);
	int cancelled = lf_notice_cancel(&n.notice), armed = arm(&n);
	canceller = thread_start(cancel_sync_on_thread, &n, 0);
	usleep(1000);
	int early = __atomic_load_n(&n.result, __ATOMIC_SEQ_CST);
	flag_set(&n.leave);
	thread_join(signaller);
	thread_join(canceller);
	test_watchdog(0, "");
	assert_int_equal(cancelled, LF_CB_RUNNING);
	assert_int_equal(armed, -EALREADY);
	expect_misuse(1);
	assert_int_equal(early, -1);
	assert_int_equal(n.result, LF_CB_RAN);
	assert_int_equal(n.fired, 1);
	finish(&n);
	flag_fini(&n.entered);
	flag_fini(&n.leave);
}

/* Signaling inside a callback leaves the second phase to the outermost dispatch: there the notice can still be taken back. */
struct nested {
	struct lf_fence_cb cb;
	struct noted *n;
	int result;
};

static void signal_and_cancel(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct nested *s = (struct nested *)(void *)cb;
	lf_fence_signal(s->n->f[0], 0);
	s->result = lf_notice_cancel_sync(&s->n->notice);
}

static void notice_whose_fence_waits_for_an_outer_callback_can_be_cancelled(void **state)
{
	struct lf_resv r;
	struct noted n;
	struct nested s = { .cb = LF_FENCE_CB_INIT, .n = &n, .result = -1 };
	struct lf_fence *outer;
	begin(&n, &r, 1);
	assert_int_equal(lf_fence_create(&outer), 0);
	assert_int_equal(arm(&n), 0);
	assert_int_equal(lf_fence_add_callback(outer, &s.cb, signal_and_cancel), 0);
	lf_fence_signal(outer, 0);
	lf_fence_put(outer);
	assert_int_equal(s.result, LF_CB_REMOVED);
	assert_int_equal(n.fired, 0);
	finish(&n);
}

/* Whether the node was claimed by a dispatcher: its state says that it has run (CB_RAN). */
static bool is_claimed(struct noted *n)
{
	return (__atomic_load_n(&n->notice.cb.state.value, __ATOMIC_SEQ_CST) & 3) == 2;
}

/*
 * The dispatcher has claimed the node and wants the notice's lock, which the test has; then the test gives it back and cancels. Whoever
 * comes first, nothing fires. Returns whether it was the cancel.
 */
static bool cancel_against_hop(bool sync)
{
	struct lf_resv r;
	struct noted n;
	pthread_t thread;
	begin(&n, &r, 2);
	assert_int_equal(arm(&n), 0);
	__atomic_store_n(&n.notice.spin.value, 1, __ATOMIC_SEQ_CST);
	thread = thread_start(signal_first, &n, 0);
	while (!is_claimed(&n))
		sched_yield();
	__atomic_store_n(&n.notice.spin.value, 0, __ATOMIC_SEQ_CST);
	int result = sync ? lf_notice_cancel_sync(&n.notice) : lf_notice_cancel(&n.notice);
	bool first = sync ? is_claimed(&n) : result == LF_CB_RUNNING; /* what is taken back from the second fence is not claimed */
	thread_join(thread);
	must(first && !sync ? result == LF_CB_RUNNING : result == LF_CB_REMOVED);
	lf_fence_signal(n.f[1], 0);
	assert_int_equal(n.fired, 0);
	assert_int_equal(lf_notice_cancel(&n.notice), LF_CB_REMOVED);
	finish(&n);
	return first;
}

static void cancel_of_a_notice_that_is_about_to_move_on_keeps_it_from_firing(void **state)
{
	unsigned hits = 0, misses = 0;
	test_watchdog(60, "a notice that is cancelled when it is about to move on");
	for (int i = 0; i < 2000 && hits < 50; i++) {
		bool first = cancel_against_hop(i % 2);
		hits += first;
		misses += !first;
	}
	test_watchdog(0, "");
	test_note("cancelled before it moved on %u, after %u", hits, misses);
}

static void cancel_sync_inside_a_read_section_is_refused(void **state)
{
	struct lf_resv r;
	struct noted n;
	begin(&n, &r, 1);
	assert_int_equal(arm(&n), 0);
	lf_read_lock();
	assert_int_equal(lf_notice_cancel_sync(&n.notice), -EDEADLK);
	lf_read_unlock();
	expect_misuse(1);
	finish(&n);
}

/* --- From inside its function ------------------------------------------------------------------------------------------------ */

static void arm_again(struct noted *n)
{
	if (n->more-- > 0)
		must(arm(n) == 0);
	else
		must(arm(n) == -ENOENT);
}

static void notice_may_be_armed_again_inside_its_function(void **state)
{
	struct lf_resv r;
	struct noted n;
	begin(&n, &r, 1);
	n.during = arm_again;
	n.more = 9;
	assert_int_equal(arm(&n), 0);
	for (int i = 0; i < 10; i++) {
		if (i < 9) {
			assert_int_equal(lf_fence_create(&n.f[i + 1]), 0);
			add(&r, n.f[i + 1], LF_USAGE_READ);
		}
		lf_fence_signal(n.f[i], 0);
		assert_int_equal(n.fired, i + 1);
	}
	assert_int_equal(lf_notice_cancel(&n.notice), LF_CB_RAN);
	finish(&n);
}

static void arm_and_cancel_again(struct noted *n)
{
	must(lf_fence_create(&n->f[1]) == 0);
	add(n->r, n->f[1], LF_USAGE_READ);
	must(arm(n) == 0);
	must(lf_notice_cancel_sync(&n->notice) == LF_CB_REMOVED);
	lf_fence_signal(n->f[1], 0);
}

static void notice_armed_again_inside_its_function_can_be_cancelled_there(void **state)
{
	struct lf_resv r;
	struct noted n;
	begin(&n, &r, 1);
	n.during = arm_and_cancel_again;
	assert_int_equal(arm(&n), 0);
	lf_fence_signal(n.f[0], 0);
	assert_int_equal(n.fired, 1);
	finish(&n);
}

static unsigned freed;

static void free_it(struct noted *n)
{
	lf_notice_fini(&n->notice);
	lf_free(n);
	freed++;
}

static void notice_may_be_ended_and_freed_inside_its_function(void **state)
{
	struct lf_resv r;
	struct noted *n = lf_alloc(sizeof(*n));
	struct lf_fence *f[3];
	assert_non_null(n);
	begin(n, &r, 3);
	memcpy(f, n->f, sizeof(f));
	n->during = free_it;
	freed = 0;
	assert_int_equal(arm(n), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(freed, 0);
		lf_fence_signal(f[i], 0);
		lf_fence_put(f[i]);
	}
	assert_int_equal(freed, 1);
	lf_resv_fini(&r);
}

/* --- Snapshots: a buffer that dies ------------------------------------------------------------------------------------------- */

/* A buffer that shares its reservation. It goes when all that it was used for is done, and takes what it needs to know along. */
struct buffer {
	struct lf_notice notice;
	struct lf_snapshot fences;
	unsigned *released;
};

static void release_buffer(struct lf_notice *notice)
{
	struct buffer *b = (struct buffer *)(void *)notice;
	(*b->released)++;
	lf_notice_fini(&b->notice);
	lf_free(b);
}

static void kill_buffer(struct buffer *b, const struct lf_resv *shared)
{
	lf_notice_init(&b->notice);
	lf_resv_snapshot(shared, &b->fences);
	must(lf_notice_arm_snapshot(&b->notice, &b->fences, ALL, release_buffer) == 0);
}

struct held {
	struct lf_resv *r;
	struct flag locked, done;
};

static void *hold(void *arg)
{
	struct held *h = arg;
	must(lf_resv_lock(h->r, NULL) == 0);
	flag_set(&h->locked);
	flag_wait(&h->done);
	lf_resv_unlock(h->r);
	return NULL;
}

static void dying_buffer_takes_the_fences_of_a_shared_reservation_along_without_lock_or_memory(void **state)
{
	struct lf_resv shared;
	struct noted n;
	struct buffer *b = lf_alloc(sizeof(*b));
	struct held h = { .r = &shared };
	unsigned released = 0;
	pthread_t thread;
	assert_non_null(b);
	b->released = &released;
	begin(&n, &shared, 8);
	flag_init(&h.locked);
	flag_init(&h.done);
	test_watchdog(30, "a dying buffer that takes the lock");
	thread = thread_start(hold, &h, 0);
	flag_wait(&h.locked);
	long calls = alloc_calls();
	alloc_fail_all(true);
	kill_buffer(b, &shared);
	for (int i = 0; i < 8; i++) {
		must(released == 0);
		lf_fence_signal(n.f[i], 0);
	}
	must(released == 1);
	must(alloc_calls() == calls);
	alloc_fail_all(false);
	flag_set(&h.done);
	thread_join(thread);
	test_watchdog(0, "");
	flag_fini(&h.locked);
	flag_fini(&h.done);
	finish(&n);
	assert_int_equal(released, 1);
}

static void armed_notice_needs_neither_the_reservation_nor_references(void **state)
{
	struct lf_resv r;
	struct noted n;
	struct lf_fence *f[4];
	begin(&n, &r, 4);
	assert_int_equal(arm(&n), 0);
	lf_resv_fini(&r);
	lf_resv_init(&r, NULL);
	for (int i = 0; i < 4; i++) {
		f[i] = n.f[i];
		n.f[i] = NULL;
		lf_fence_put(lf_fence_get(f[i]));
	}
	for (int i = 0; i < 4; i++)
		lf_fence_signal(f[i], 0);
	assert_int_equal(n.fired, 1);
	for (int i = 0; i < 4; i++)
		lf_fence_put(f[i]);
	finish(&n);
}

/* --- Event loops --------------------------------------------------------------------------------------------------------------- */

static uint64_t drain_fd(int fd)
{
	uint64_t count = 0;
	return read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count) ? count : 0;
}

static bool readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	return poll(&p, 1, 0) == 1;
}

static void poll_on_an_eventfd_wakes_once_for_64_fences(void **state)
{
	struct lf_resv r;
	struct noted n;
	int fd = eventfd(0, EFD_NONBLOCK);
	assert_true(fd >= 0);
	begin(&n, &r, 64);
	assert_int_equal(lf_notice_arm_eventfd(&n.notice, &r, ALL, fd), 0);
	for (int i = 0; i < 64; i++) {
		assert_false(readable(fd));
		lf_fence_signal(n.f[i * 37 % 64], 0);
	}
	assert_true(readable(fd));
	assert_int_equal(drain_fd(fd), 1);
	assert_false(readable(fd));
	assert_int_equal(lf_notice_arm_eventfd(&n.notice, &r, ALL, fd), -ENOENT);
	assert_false(readable(fd));
	assert_int_equal(lf_notice_cancel(&n.notice), LF_CB_RAN);
	finish(&n);
	close(fd);
}

static void *signal_all(void *arg)
{
	struct noted *n = arg;
	for (int i = 63; i >= 0; i--)
		lf_fence_signal(n->f[i], 0);
	return NULL;
}

static void epoll_sleeps_until_all_64_are_signaled_and_wakes_once(void **state)
{
	struct lf_resv r;
	struct noted n;
	struct epoll_event event = { .events = EPOLLIN | EPOLLET }, got;
	int fd = eventfd(0, EFD_NONBLOCK), loop = epoll_create1(0);
	pthread_t thread;
	assert_true(fd >= 0 && loop >= 0);
	assert_int_equal(epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event), 0);
	begin(&n, &r, 64);
	assert_int_equal(lf_notice_arm_eventfd(&n.notice, &r, ALL, fd), 0);
	thread = thread_start(signal_all, &n, 0);
	int woken = epoll_wait(loop, &got, 1, 30000);
	bool all = lf_resv_test_signaled(&r, ALL);
	thread_join(thread);
	assert_int_equal(woken, 1);
	assert_true(all);
	assert_int_equal(epoll_wait(loop, &got, 1, 0), 0);
	assert_int_equal(drain_fd(fd), 1);
	finish(&n);
	close(loop);
	close(fd);
}

static void cancelled_eventfd_notice_writes_nothing(void **state)
{
	struct lf_resv r;
	struct noted n;
	int fd = eventfd(0, EFD_NONBLOCK);
	begin(&n, &r, 2);
	assert_int_equal(lf_notice_arm_eventfd(&n.notice, &r, ALL, fd), 0);
	assert_int_equal(lf_notice_cancel_sync(&n.notice), LF_CB_REMOVED);
	lf_fence_signal(n.f[0], 0);
	lf_fence_signal(n.f[1], 0);
	assert_false(readable(fd));
	finish(&n);
	close(fd);
}

/* --- Tear-down in every state ---------------------------------------------------------------------------------------------------- */

static void notice_may_be_ended_in_every_state(void **state)
{
	struct lf_resv r;
	struct noted n;
	begin(&n, &r, 0); /* never armed */
	finish(&n);
	begin(&n, &r, 2); /* armed */
	assert_int_equal(arm(&n), 0);
	finish(&n);
	assert_int_equal(n.fired, 0);
	begin(&n, &r, 2); /* armed, and moved on */
	assert_int_equal(arm(&n), 0);
	lf_fence_signal(n.f[0], 0);
	finish(&n);
	assert_int_equal(n.fired, 0);
	begin(&n, &r, 1); /* fired */
	assert_int_equal(arm(&n), 0);
	end_fence(&n, 0);
	finish(&n);
	assert_int_equal(n.fired, 1);
}

static void an_eventfd_that_was_closed_too_early_is_reported(void **state)
{
	struct lf_resv r;
	struct noted n;
	int fd = eventfd(0, EFD_NONBLOCK);

	(void)state;
	begin(&n, &r, 1);
	assert_true(fd >= 0);
	assert_int_equal(lf_notice_arm_eventfd(&n.notice, &r, ALL, fd), 0);
	close(fd);
	end_fence(&n, 0);
	assert_int_equal(log_count(LF_LOG_WARNING), 1);
	assert_true(log_contains("could not write to eventfd"));
	log_reset();
	finish(&n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(notice_fires_once_when_the_last_fence_is_signaled_in_whatever_order),
		TEST(arming_when_all_is_signaled_is_refused),
		TEST(notice_waits_for_its_usage_and_stronger_ones_only),
		TEST(notice_is_not_prolonged_by_what_is_added_later),
		TEST(arming_arms_every_fence),
		TEST(fences_that_are_done_when_they_are_armed_leave_nothing_to_wait_for),
		TEST(wrong_arguments_are_refused),
		TEST(cancel_of_what_was_never_armed_says_REMOVED),
		TEST(cancelled_notice_does_not_fire_and_can_be_armed_again),
		TEST(cancel_of_a_fired_notice_says_RAN),
		TEST(cancel_inside_its_function_says_RUNNING_and_does_not_wait),
		TEST(cancel_while_its_function_runs_elsewhere_says_RUNNING_and_sync_waits),
		TEST(notice_whose_fence_waits_for_an_outer_callback_can_be_cancelled),
		TEST(cancel_of_a_notice_that_is_about_to_move_on_keeps_it_from_firing),
		TEST(cancel_sync_inside_a_read_section_is_refused),
		TEST(notice_may_be_armed_again_inside_its_function),
		TEST(notice_armed_again_inside_its_function_can_be_cancelled_there),
		TEST(notice_may_be_ended_and_freed_inside_its_function),
		TEST(dying_buffer_takes_the_fences_of_a_shared_reservation_along_without_lock_or_memory),
		TEST(armed_notice_needs_neither_the_reservation_nor_references),
		TEST(poll_on_an_eventfd_wakes_once_for_64_fences),
		TEST(epoll_sleeps_until_all_64_are_signaled_and_wakes_once),
		TEST(cancelled_eventfd_notice_writes_nothing),
		TEST(notice_may_be_ended_in_every_state),
		TEST(an_eventfd_that_was_closed_too_early_is_reported),
	};
	return TEST_MAIN(tests);
}
