/* SPDX-License-Identifier: MIT */
/*
 * Containers in a child of a fork. Without the three calls the library is poisoned there: it refuses, or leaks, and nothing hangs. With
 * them parent and child each go on with their own.
 *
 * A child checks with CHILD_CHECK() and ends with child_ends(); a watchdog kills it when it hangs.
 */
#include "containers.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

struct family_silver {
	struct lf_fence *a, *b, *array, *any, *link, *tip;
	struct lf_array_room *array_room;
	struct lf_chain_room *chain_room;
	struct lf_unwrap walk;
};

static void make(struct family_silver *s)
{
	s->a = plain();
	s->b = plain();
	s->array = ALL(GET(s->a), GET(s->b));
	s->any = ANY(GET(s->a), GET(s->array));
	s->link = append(GET(s->any), GET(s->array), 1);
	s->tip = append(GET(s->link), GET(s->b), 2);
	assert_int_equal(lf_array_prepare(2, &s->array_room), 0);
	assert_int_equal(lf_chain_prepare(&s->chain_room), 0);
	assert_int_equal(lf_unwrap_begin(&s->walk, s->tip, 0), 0);
}

static void check_and_put(struct family_silver *s)
{
	lf_array_cancel(s->array_room);
	lf_chain_cancel(s->chain_room);
	assert_int_equal(s->walk.count, 2);
	lf_unwrap_end(&s->walk);
	LEAVES(s->tip, s->a, s->b);
	done(s->b, -EIO);
	done(s->a, 0);
	assert_int_equal(lf_fence_status(s->any), 1);
	assert_int_equal(lf_fence_status(s->tip), -EIO);
	lf_fence_put(s->tip);
	lf_fence_put(s->link);
	lf_fence_put(s->any);
	lf_fence_put(s->array);
	lf_fence_put(s->a);
	lf_fence_put(s->b);
}

static void child_of_a_poisoned_library(struct family_silver *s)
{
	struct lf_fence *untouched = s->a, *f = untouched;
	struct lf_fence_cb cb = LF_FENCE_CB_INIT;
	struct lf_array_room *array_room;
	struct lf_chain_room *chain_room;
	struct lf_unwrap walk;
	char text[200];

	CHILD_CHECK(lf_array_create(FENCES(s->a, s->b), 2, LF_ARRAY_ALL, &f) == -EOWNERDEAD);
	CHILD_CHECK(lf_array_prepare(2, &array_room) == -EOWNERDEAD);
	CHILD_CHECK(lf_chain_append(s->tip, s->a, 3, 0, &f) == -EOWNERDEAD);
	CHILD_CHECK(lf_chain_prepare(&chain_room) == -EOWNERDEAD);
	CHILD_CHECK(lf_chain_find_seqno(s->tip, 1, &f) == -EOWNERDEAD);
	CHILD_CHECK(lf_unwrap_begin(&walk, s->tip, 0) == -EOWNERDEAD);
	CHILD_CHECK(lf_fence_merge(FENCES(s->a, s->tip), 2, &f) == -EOWNERDEAD);
	CHILD_CHECK(lf_fence_flatten(s->tip, &f) == -EOWNERDEAD);
	CHILD_CHECK(f == untouched);
	CHILD_CHECK(lf_fence_add_callback(s->array, &cb, noted_run) == -EOWNERDEAD);
	CHILD_CHECK(lf_fence_wait(s->tip, LF_DEADLINE_NEVER) == -EOWNERDEAD);
	/* looking needs no lock of anybody */
	CHILD_CHECK(lf_fence_is_array(s->array) && lf_fence_is_chain(s->tip) && lf_fence_is_container(s->any));
	CHILD_CHECK(!lf_fence_is_signaled(s->array) && lf_fence_status(s->tip) == 0);
	CHILD_CHECK(lf_fence_is_later(s->tip, s->link));
	CHILD_CHECK(lf_fence_describe(s->tip, text, sizeof(text)) > 0);
	CHILD_CHECK(lf_fence_check(s->array) == 0);
	lf_fence_set_deadline(s->tip, 1);
	/* leaked, without a hang */
	CHILD_CHECK(!lf_fence_signal(s->a, 0));
	lf_fence_put(lf_chain_get_prev(s->tip));
	lf_fence_put(lf_chain_get_fence(s->tip));
	lf_array_cancel(s->array_room);
	lf_chain_cancel(s->chain_room);
	lf_unwrap_end(&s->walk);
	lf_fence_put(s->tip);
	lf_fence_put(s->link);
	lf_fence_put(s->any);
	lf_fence_put(s->array);
}

static void child_of_a_fork_that_was_bracketed(struct family_silver *s)
{
	struct lf_fence *f = NULL;

	CHILD_CHECK(lf_array_create(FENCES(GET(s->a), GET(s->tip)), 2, LF_ARRAY_ALL, &f) == 0);
	CHILD_CHECK(lf_fence_signal(s->a, -EPERM));
	CHILD_CHECK(lf_fence_signal(s->b, 0));
	CHILD_CHECK(lf_fence_status(f) == -EPERM);
	CHILD_CHECK(lf_fence_status(s->tip) == -EPERM);
	lf_fence_put(f);
	lf_fence_put(s->tip);
	lf_fence_put(s->link);
	lf_fence_put(s->any);
	lf_fence_put(s->array);
}

static void fork_and_check(bool bracketed)
{
	struct family_silver s;
	int status;
	pid_t pid;

	make(&s);
	fflush(NULL);
	if (bracketed)
		assert_int_equal(lf_before_fork(), 0);
	pid = fork();
	if (pid == 0) {
		signal(SIGALRM, SIG_DFL);
		alarm(20);
		if (bracketed)
			lf_after_fork_child();
		(bracketed ? child_of_a_fork_that_was_bracketed : child_of_a_poisoned_library)(&s);
		child_ends();
	}
	if (bracketed)
		lf_after_fork_parent();
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	/* the parent's are as they were */
	check_and_put(&s);
}

static void poisoned_child_is_refused_and_does_not_hang(void **state)
{
	fork_and_check(false);
}

static void parent_and_child_of_a_bracketed_fork_go_on(void **state)
{
	fork_and_check(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(poisoned_child_is_refused_and_does_not_hang),
		TEST_WARM(parent_and_child_of_a_bracketed_fork_go_on),
	};
	return TEST_MAIN(tests);
}
