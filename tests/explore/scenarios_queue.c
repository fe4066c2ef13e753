/* SPDX-License-Identifier: MIT */
/* The stubbed hardware queue: pushes, signals of dependencies, and whoever drives the engine. */
#include "explore.h"

static struct lf_queue *queue;
static struct lf_job *job, *job2;
static struct lf_fence *dependency, *dependency2, *finished, *finished2;
static int written, runs, done, released;

static int on_run(struct lf_job *j, void *data)
{
	(void)data;
	CHECK(lf_fence_is_signaled(lf_job_scheduled(j)));
	CHECK(!lf_fence_is_signaled(lf_job_finished(j)));
	CHECK(!dependency || (lf_fence_is_signaled(dependency) && written == 1)); /* plain: what came before the signal */
	CHECK(!dependency2 || lf_fence_is_signaled(dependency2));
	runs++;
	return 0;
}

static const struct lf_queue_ops ops = { .run = on_run };

static void on_release(void *data)
{
	(void)data;
	released++;
}

static void make(enum lf_queue_mode mode, unsigned dependencies)
{
	const struct lf_job_desc desc = { .release = on_release };

	CHECK(lf_queue_create(&(struct lf_queue_desc){ .name = "engine", .mode = mode, .ops = &ops, .timeout = LF_DEADLINE_NEVER }, &queue) == 0);
	CHECK(lf_job_create(queue, &desc, &job) == 0);
	if (dependencies > 0) {
		CHECK(lf_fence_create(&dependency) == 0);
		CHECK(lf_job_add_dependency(job, dependency) == 0);
	}
	if (dependencies > 1) {
		CHECK(lf_fence_create(&dependency2) == 0);
		CHECK(lf_job_add_dependency(job, dependency2) == 0);
	}
}

static void make_manual(void)
{
	make(LF_QUEUE_MANUAL, 0);
}

static void make_manual_waiting(void)
{
	make(LF_QUEUE_MANUAL, 1);
}

static void make_pushed(void)
{
	make(LF_QUEUE_MANUAL, 2);
	CHECK(lf_job_push(job, &finished) == 0);
}

static void make_two(void)
{
	make(LF_QUEUE_MANUAL, 0);
	CHECK(lf_job_create(queue, &(struct lf_job_desc){ .release = on_release }, &job2) == 0);
}

static void make_thread(void)
{
	make(LF_QUEUE_THREAD, 0);
}

static void make_thread_waiting(void)
{
	make(LF_QUEUE_THREAD, 1);
	CHECK(lf_job_push(job, &finished) == 0);
}

/* --- Threads ------------------------------------------------------------------------------------------------------------------ */

static void push(void)
{
	CHECK(lf_job_push(job, &finished) == 0);
}

static void push2(void)
{
	CHECK(lf_job_push(job2, &finished2) == 0);
}

static void signal(void)
{
	written = 1;
	CHECK(lf_fence_signal(dependency, 0));
}

static void signal2(void)
{
	CHECK(lf_fence_signal(dependency2, 0));
}

static void step(void)
{
	CHECK(lf_queue_step(queue) >= 0);
	CHECK(lf_queue_step(queue) >= 0);
}

static void lose(void)
{
	lf_queue_lose(queue, -ENODEV);
}

static void wait_finished(void)
{
	CHECK(lf_fence_wait(finished, LF_DEADLINE_NEVER) == 0 && lf_fence_status(finished) == 1);
	CHECK(runs == 1);
	done = 1;
}

static void push_and_wait(void)
{
	push();
	wait_finished();
}

/* --- Ends --------------------------------------------------------------------------------------------------------------------- */

static void end(void)
{
	lf_job_put(job);
	lf_job_put(job2);
	lf_fence_put(finished);
	lf_fence_put(finished2);
	lf_fence_put(dependency);
	lf_fence_put(dependency2);
	CHECK(lf_queue_close(queue, LF_DEADLINE_NEVER) == 0);
	lf_queue_put(queue);
	lf_reclaim_barrier();
	CHECK(released == (job2 ? 2 : 1));
}

/* Steps until there is nothing left to do. */
static void run_to_end(void)
{
	while (lf_queue_step(queue) > 0)
		;
}

static void end_run_once(void)
{
	run_to_end();
	CHECK(runs == 1 && lf_fence_status(finished) == 1);
	end();
}

static void end_both_in_order(void)
{
	run_to_end();
	CHECK(runs == 2 && lf_fence_status(finished) == 1 && lf_fence_status(finished2) == 1);
	CHECK(lf_fence_seqno(finished) != lf_fence_seqno(finished2));
	end();
}

static void end_lost(void)
{
	int status;

	run_to_end();
	status = lf_fence_status(finished);
	CHECK(status == -ENODEV || (status == 1 && runs == 1));
	end();
}

static void end_thread(void)
{
	CHECK(done == 1 && runs == 1);
	end();
}

static const struct explore_scenario table[] = {
	{ .group = "queue", .name = "push_signal", .setup = make_manual_waiting, .threads = { push, signal }, .finish = end_run_once,
		.oracle = "a job runs once, after its dependency, whether that comes before the push or after" },
	{ .group = "queue", .name = "signal_signal", .setup = make_pushed, .threads = { signal, signal2, step }, .finish = end_run_once,
		.bound = 2, .oracle = "of two dependencies the last one makes the job ready, and it sees what came before both" },
	{ .group = "queue", .name = "push_step", .setup = make_manual, .threads = { push, step }, .finish = end_run_once,
		.oracle = "whoever steps finds a job whole, or not at all" },
	{ .group = "queue", .name = "push_push", .setup = make_two, .threads = { push, push2 }, .finish = end_both_in_order,
		.oracle = "two pushes give two places" },
	{ .group = "queue", .name = "push_lose", .setup = make_manual, .threads = { push, lose }, .finish = end_lost,
		.oracle = "a job beside a loss is run, or fails with the error" },
	{ .group = "queue", .name = "thread_push", .setup = make_thread, .threads = { push_and_wait }, .finish = end_thread,
		.oracle = "an engine that sleeps is woken by a push" },
	{ .group = "queue", .name = "thread_signal", .setup = make_thread_waiting, .threads = { signal, wait_finished },
		.finish = end_thread, .bound = 2, .oracle = "an engine that sleeps is woken by the last dependency" },
};
EXPLORE_SCENARIOS(table);
