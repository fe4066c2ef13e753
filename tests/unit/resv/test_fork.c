/* SPDX-License-Identifier: MIT */
/* Reservations, transactions of locks and notices in the child of a fork: poisoned without the bracket, as good as ever with it. */
#include "producer.h"

#include <sys/wait.h>
#include <unistd.h>

#define ALL LF_USAGE_BOOKKEEP

static void expect_success(pid_t pid)
{
	int status;

	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static struct lf_fence *fence_in(struct lf_resv *r)
{
	struct lf_fence *f;

	must(lf_fence_create(&f) == 0);
	must(lf_resv_lock(r, NULL) == 0);
	must(lf_resv_reserve(r, 1) == 0);
	lf_resv_add(r, f, LF_USAGE_WRITE);
	lf_resv_unlock(r);
	return f;
}

static unsigned fired;

static void count_fired(struct lf_notice *notice)
{
	(void)notice;
	fired++;
}

static void a_poisoned_child_is_refused_and_leaks(void **state)
{
	struct lf_resv *r, *late;
	struct lf_snapshot snapshot;
	struct lf_notice notice, other;
	struct lf_fence *f, *one, **all;
	pid_t pid;

	assert_int_equal(lf_resv_create(NULL, &r), 0);
	f = fence_in(r);
	lf_resv_snapshot(r, &snapshot);
	lf_notice_init(&notice);
	lf_notice_init(&other);
	fired = 0;
	assert_int_equal(lf_notice_arm(&notice, r, ALL, count_fired), 0);
	assert_int_equal(lf_resv_lock(r, NULL), 0);
	assert_int_equal(lf_resv_reserve(r, 1), 0);
	pid = fork();
	if (pid == 0) {
		struct lf_resv_cursor cursor;
		char text[200];
		struct lf_exec x;
		size_t count;

		CHILD_CHECK(lf_resv_create(NULL, &late) == -EOWNERDEAD);
		CHILD_CHECK(lf_resv_reserve(r, 1) == -EOWNERDEAD);
		CHILD_CHECK(lf_resv_reserve_replace(r, 1) == -EOWNERDEAD);
		lf_resv_add(r, f, LF_USAGE_READ);
		CHILD_CHECK(lf_resv_replace(r, lf_fence_context(f), f, LF_USAGE_READ) == 0);
		CHILD_CHECK(lf_resv_trylock(r, NULL) == -EOWNERDEAD);
		CHILD_CHECK(lf_resv_lock(r, NULL) == -EOWNERDEAD);
		lf_resv_unlock(r);
		CHILD_CHECK(!lf_resv_test_signaled(r, ALL));
		CHILD_CHECK(lf_resv_wait(r, ALL, 0) == -EOWNERDEAD);
		lf_resv_set_deadline(r, ALL, 0);
		CHILD_CHECK(lf_resv_get_fences(r, ALL, &all, &count) == -EOWNERDEAD);
		CHILD_CHECK(lf_resv_get_singleton(r, ALL, &one) == -EOWNERDEAD);
		lf_resv_cursor_begin(&cursor, r, ALL);
		CHILD_CHECK(lf_resv_cursor_next(&cursor) == f);
		CHILD_CHECK(lf_resv_describe(r, text, sizeof(text)) > 0);
		lf_exec_init(&x, NULL);
		while (lf_exec_next(&x))
			lf_exec_lock(&x, r, 1);
		CHILD_CHECK(lf_exec_error(&x) == -EOWNERDEAD);
		lf_exec_fini(&x);
		CHILD_CHECK(lf_notice_arm(&other, r, ALL, count_fired) == -EOWNERDEAD);
		CHILD_CHECK(lf_notice_cancel(&notice) == -EOWNERDEAD);
		CHILD_CHECK(lf_notice_cancel_sync(&notice) == -EOWNERDEAD);
		lf_notice_fini(&notice);
		lf_snapshot_put(&snapshot);
		lf_resv_put(r);
		CHILD_CHECK(fired == 0);
		CHILD_CHECK(log_count(LF_LOG_MISUSE) == 0);
		child_ends();
	}
	expect_success(pid);
	lf_resv_unlock(r);
	assert_int_equal(lf_notice_cancel(&notice), LF_CB_REMOVED);
	lf_notice_fini(&notice);
	lf_notice_fini(&other);
	lf_snapshot_put(&snapshot);
	lf_fence_signal(f, 0);
	lf_fence_put(f);
	lf_resv_put(r);
}

static void a_bracketed_child_goes_on_with_its_reservations_and_notices(void **state)
{
	struct lf_notice notice;
	struct lf_fence *f;
	struct lf_resv *r;
	pid_t pid;

	assert_int_equal(lf_resv_create(NULL, &r), 0);
	f = fence_in(r);
	lf_notice_init(&notice);
	fired = 0;
	assert_int_equal(lf_notice_arm(&notice, r, ALL, count_fired), 0);
	assert_int_equal(lf_before_fork(), 0);
	pid = fork();
	if (pid == 0) {
		lf_after_fork_child();
		lf_fence_put(fence_in(r)); /* pending, and known to the reservation alone */
		CHILD_CHECK(lf_fence_signal(f, 0));
		CHILD_CHECK(fired == 1);
		CHILD_CHECK(lf_resv_wait(r, ALL, 0) == -ETIME);
		child_ends();
	}
	lf_after_fork_parent();
	expect_success(pid);
	assert_int_equal(fired, 0);
	lf_fence_signal(f, 0);
	assert_int_equal(fired, 1);
	assert_int_equal(lf_resv_wait(r, ALL, 0), 0);
	lf_notice_fini(&notice);
	lf_fence_put(f);
	lf_resv_put(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(a_poisoned_child_is_refused_and_leaks),
		TEST_WARM(a_bracketed_child_goes_on_with_its_reservations_and_notices),
	};
	return TEST_MAIN(tests);
}
