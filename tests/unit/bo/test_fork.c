/* SPDX-License-Identifier: MIT */
/* Buffers in the child of a fork: poisoned without the bracket, as good as ever with it. */
#include "buffers.h"

#include <sys/wait.h>

static void a_poisoned_child_is_refused_and_leaks(void **state)
{
	struct memory m[2] = { 0 };
	struct lf_backing backing = backing_of(&m[1]);
	struct buffer *b = buffer_new(&m[0]);
	int status;
	pid_t pid;
	struct importer i = { 0 };
	struct lf_bo_map *more = NULL;
	attach(&i, b, "importer");
	i.map = map(&i);
	lock(b);
	assert_int_equal(lf_bo_prepare_move(&b->bo), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct lf_bo_desc desc = { .size = 1 };
		struct lf_attachment_desc a_desc = { .name = "late", .invalidate = importer_told };
		struct lf_attachment *a;
		struct lf_bo bo = { 0 };
		CHILD_CHECK(lf_bo_init(&bo, &desc) == -EOWNERDEAD);
		CHILD_CHECK(lf_bo_prepare_move(&b->bo) == -EOWNERDEAD);
		lf_bo_move(&b->bo, &backing, NULL);
		CHILD_CHECK(lf_bo_memory(&b->bo) == &m[0]);
		CHILD_CHECK(lf_bo_revoke_begin(&b->bo) == -EOWNERDEAD);
		CHILD_CHECK(lf_bo_revoke_wait(&b->bo, 0) == -EOWNERDEAD);
		CHILD_CHECK(lf_bo_next_mapped(&b->bo, NULL) == NULL);
		CHILD_CHECK(lf_bo_attach(&b->bo, &a_desc, &a) == -EOWNERDEAD);
		CHILD_CHECK(lf_attachment_map(i.a, &more) == -EOWNERDEAD);
		CHILD_CHECK(lf_attachment_detach(i.a) == -EOWNERDEAD);
		lf_bo_invalidate(&b->bo);
		CHILD_CHECK(i.told == 0);
		lf_bo_unmap(i.map);
		lf_attachment_put(i.a);
		lf_bo_put(&b->bo);
		CHILD_CHECK(log_count(LF_LOG_MISUSE) == 0);
		child_ends();
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	unlock(b);
	unmap(i.map);
	let_go(&i);
	end(b);
}

static void a_bracketed_child_goes_on_with_its_buffers(void **state)
{
	struct memory m[2] = { 0 };
	struct buffer *b = buffer_new(&m[0]);
	struct lf_fence *f = new_fence();
	int status;
	pid_t pid;
	move(b, &m[1], f);
	assert_int_equal(lf_before_fork(), 0);
	pid = fork();
	if (pid == 0) {
		lf_after_fork_child();
		CHILD_CHECK(lf_fence_signal(f, 0));
		CHILD_CHECK(count_get(&m[0].released) == 1);
		put(b);
		settle();
		CHILD_CHECK(count_get(&m[1].released) == 1 && m[1].wrong == 0);
		child_ends();
	}
	lf_after_fork_parent();
	assert_true(pid >= 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	expect_there(&m[0]);
	lf_fence_signal(f, 0);
	expect_released(&m[0]);
	lf_fence_put(f);
	end(b);
	expect_released(&m[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(a_poisoned_child_is_refused_and_leaks),
		TEST_WARM(a_bracketed_child_goes_on_with_its_buffers),
	};
	return TEST_MAIN(tests);
}
