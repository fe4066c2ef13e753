/* SPDX-License-Identifier: MIT */
/* Queues in the child of a fork: poisoned without the bracket; with it a queue's engine is everybody's, since its thread is not there. */
#include "producer.h"

#include <sys/wait.h>
#include <unistd.h>

static int run_at_once(struct lf_job *job, void *data)
{
	(void)job;
	(void)data;
	return 0;
}

static const struct lf_queue_ops ops = { .run = run_at_once };

static struct lf_queue *queue_new(enum lf_queue_mode mode)
{
	const struct lf_queue_desc desc = { .name = "q", .mode = mode, .ops = &ops };
	struct lf_queue *q = NULL;

	must(lf_queue_create(&desc, &q) == 0);
	return q;
}

static struct lf_job *job_new(struct lf_queue *q)
{
	struct lf_job *job = NULL;

	must(lf_job_create(q, &(struct lf_job_desc){ 0 }, &job) == 0);
	return job;
}

static void expect_success(pid_t pid)
{
	int status;

	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void a_poisoned_child_is_refused_and_leaks(void **state)
{
	struct lf_queue *q = queue_new(LF_QUEUE_MANUAL), *late;
	struct lf_job *job = job_new(q), *more;
	struct lf_vclock *clock, *other;
	struct lf_fence *f;
	pid_t pid;

	(void)state;
	assert_int_equal(lf_vclock_create(&clock), 0);
	assert_int_equal(lf_fence_create(&f), 0);
	pid = fork();
	if (pid == 0) {
		const struct lf_queue_desc desc = { .name = "late", .mode = LF_QUEUE_MANUAL, .ops = &ops };
		struct lf_queue_stats stats = { .pushed = 7 };
		struct lf_fence *finished;

		CHILD_CHECK(lf_vclock_create(&other) == -EOWNERDEAD);
		CHILD_CHECK(lf_vclock_run(clock, 1) == -EOWNERDEAD);
		CHILD_CHECK(lf_queue_create(&desc, &late) == -EOWNERDEAD);
		CHILD_CHECK(lf_job_create(q, &(struct lf_job_desc){ 0 }, &more) == -EOWNERDEAD);
		CHILD_CHECK(lf_job_add_dependency(job, f) == -EOWNERDEAD);
		CHILD_CHECK(lf_job_push(job, &finished) == -EOWNERDEAD);
		CHILD_CHECK(lf_queue_step(q) == -EOWNERDEAD);
		CHILD_CHECK(lf_queue_close(q, 0) == -EOWNERDEAD);
		lf_queue_lose(q, -EIO);
		lf_queue_get_stats(q, &stats);
		CHILD_CHECK(stats.pushed == 0);
		lf_job_put(job);
		lf_queue_put(q);
		lf_vclock_put(clock);
		CHILD_CHECK(log_count(LF_LOG_MISUSE) == 0);
		child_ends();
	}
	expect_success(pid);
	lf_job_put(job);
	assert_int_equal(lf_queue_close(q, LF_DEADLINE_NEVER), 0);
	lf_queue_put(q);
	lf_vclock_put(clock);
	lf_fence_put(f);
}

static void a_bracketed_child_closes_a_queue_whose_thread_it_does_not_have(void **state)
{
	struct lf_queue *q = queue_new(LF_QUEUE_THREAD);
	struct lf_fence *never, *finished = NULL;
	struct lf_job *job = job_new(q);
	pid_t pid;

	(void)state;
	assert_int_equal(lf_fence_create(&never), 0);
	assert_int_equal(lf_job_add_dependency(job, never), 0);
	assert_int_equal(lf_job_push(job, &finished), 0);
	assert_int_equal(lf_before_fork(), 0);
	pid = fork();
	if (pid == 0) {
		lf_after_fork_child();
		CHILD_CHECK(lf_queue_close(q, LF_DEADLINE_NEVER) == 0);
		CHILD_CHECK(lf_fence_status(finished) < 0);
		child_ends();
	}
	lf_after_fork_parent();
	expect_success(pid);
	assert_int_equal(lf_fence_status(finished), 0);
	lf_fence_signal(never, 0);
	assert_int_equal(lf_fence_wait(finished, LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_queue_close(q, LF_DEADLINE_NEVER), 0);
	lf_job_put(job);
	lf_queue_put(q);
	lf_fence_put(finished);
	lf_fence_put(never);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(a_poisoned_child_is_refused_and_leaks),
		TEST_WARM(a_bracketed_child_closes_a_queue_whose_thread_it_does_not_have),
	};
	return TEST_MAIN(tests);
}
