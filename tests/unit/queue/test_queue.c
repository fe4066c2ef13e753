/* SPDX-License-Identifier: MIT */
/*
 * The stubbed hardware queue: its three clocks, dependencies, credits, faults, resets, and every way to end.
 *
 * Hooks and callbacks run in the frames of the engine, so they only take notes (or must()); the tests look at them afterwards. What
 * several threads do at once is in tests/race/race_queue.c.
 */
#include "producer.h"

#include <unistd.h>

enum { MS = 1000000 };

/* --- A rig: a queue whose hooks do what the test wants, and take notes --------------------------------------------------- */

enum { MAX_EVENTS = 4096 };

struct noted_event {
	enum lf_queue_event_kind kind;
	int64_t time;
	int number; /* of the job's work; -1 without a job */
	int error;
};

struct rig;

struct work {
	struct rig *rig;
	int number;
	int result;
	unsigned runs, asked, released;
	int dependency_error; /* as the run hook saw it */
	bool scheduled; /* the scheduled fence was signaled when the run hook was called */
	bool guilty;
	enum lf_reset_verdict verdict;
	void (*during)(struct work *w, struct lf_job *job); /* called inside the run hook */
};

struct rig {
	struct lf_queue *q;
	struct lf_vclock *clock;
	struct noted_event events[MAX_EVENTS];
	size_t count;
	pthread_mutex_t mutex;
	void (*during)(struct rig *rig, const struct lf_queue_event *event); /* called inside the observe hook */
	void *user;
	struct flag entered, leave; /* for run hooks that block */
	long blocks; /* alive before the queue was made */
};

static int rig_run(struct lf_job *job, void *data)
{
	struct work *w = data;

	w->runs++;
	w->dependency_error = lf_job_dependency_error(job);
	w->scheduled = lf_fence_is_signaled(lf_job_scheduled(job));
	if (w->during)
		w->during(w, job);
	return w->result;
}

static enum lf_reset_verdict rig_reset(struct lf_job *job, void *data, bool guilty)
{
	struct work *w = data;

	w->asked++;
	w->guilty = guilty;
	return w->verdict;
}

static const struct lf_queue_ops rig_ops = { .run = rig_run, .reset = rig_reset };
static const struct lf_queue_ops rig_ops_without_reset = { .run = rig_run };

static void rig_observe(void *user, const struct lf_queue_event *event)
{
	struct rig *rig = user;

	pthread_mutex_lock(&rig->mutex);
	must(rig->count < MAX_EVENTS);
	rig->events[rig->count++] = (struct noted_event){
		.kind = event->kind,
		.time = event->time,
		.number = event->job ? ((struct work *)lf_job_data(event->job))->number : -1,
		.error = event->error,
	};
	pthread_mutex_unlock(&rig->mutex);
	if (rig->during)
		rig->during(rig, event);
}

static void rig_release(void *data)
{
	((struct work *)data)->released++;
}

/* Makes a queue of a mode; what else @desc says is kept. */
static int rig_create(struct rig *rig, enum lf_queue_mode mode, struct lf_queue_desc desc)
{
	int ret;

	test_watchdog(test_is_sanitized() ? 200 : 20, "a test of the queue hangs");
	memset(rig, 0, sizeof(*rig));
	rig->blocks = alloc_live();
	pthread_mutex_init(&rig->mutex, NULL);
	flag_init(&rig->entered);
	flag_init(&rig->leave);
	desc.mode = mode;
	if (!desc.name)
		desc.name = "engine";
	if (!desc.ops)
		desc.ops = &rig_ops;
	desc.observe = rig_observe;
	desc.user = rig;
	if (mode == LF_QUEUE_VIRTUAL && !desc.clock) {
		ret = lf_vclock_create(&rig->clock);
		if (ret)
			return ret;
		desc.clock = rig->clock;
	}
	ret = lf_queue_create(&desc, &rig->q);
	if (ret)
		lf_vclock_put(rig->clock);
	return ret;
}

static void rig_init(struct rig *rig, enum lf_queue_mode mode, struct lf_queue_desc desc)
{
	assert_int_equal(rig_create(rig, mode, desc), 0);
}

static void rig_free(struct rig *rig)
{
	flag_fini(&rig->entered);
	flag_fini(&rig->leave);
	pthread_mutex_destroy(&rig->mutex);
}

/*
 * For a queue whose handles are gone: waits until its engine is through with its jobs, and gone. There is nothing to sleep on, since nobody
 * is meant to know.
 */
static void rig_gone(struct rig *rig)
{
	for (int i = 0; i < 5000; i++) {
		assert_int_equal(lf_reclaim_barrier(), 0);
		if (alloc_live() <= rig->blocks)
			break;
		usleep(1000);
	}
	rig_free(rig);
}

static void rig_fini(struct rig *rig)
{
	assert_int_equal(lf_queue_close(rig->q, LF_DEADLINE_NEVER), 0);
	lf_queue_put(rig->q);
	lf_vclock_put(rig->clock);
	rig_free(rig);
}

/* Makes a job that must not fail; the rest of @desc is kept. */
static struct lf_job *make_with(struct rig *rig, struct work *w, int number, struct lf_job_desc desc)
{
	struct lf_job *job = NULL;

	w->rig = rig;
	w->number = number;
	desc.data = w;
	desc.release = rig_release;
	assert_int_equal(lf_job_create(rig->q, &desc, &job), 0);
	return job;
}

static struct lf_job *make(struct rig *rig, struct work *w, int number)
{
	return make_with(rig, w, number, (struct lf_job_desc){ 0 });
}

/* Pushes and puts; returns the finished fence. */
static struct lf_fence *push(struct lf_job *job)
{
	struct lf_fence *finished = NULL;

	assert_int_equal(lf_job_push(job, &finished), 0);
	lf_job_put(job);
	return finished;
}

/* Makes and pushes @n jobs whose work is zeroed but for what is in it. */
static void push_all(struct rig *rig, struct work *w, struct lf_fence **fences, int n, struct lf_job_desc desc)
{
	for (int i = 0; i < n; i++)
		fences[i] = push(make_with(rig, &w[i], i, desc));
}

static void expect_status(struct lf_fence **fences, const int *expected, int n)
{
	for (int i = 0; i < n; i++) {
		if (lf_fence_status(fences[i]) != expected[i])
			fail_msg("fence %d has status %d instead of %d", i, lf_fence_status(fences[i]), expected[i]);
	}
}

static void put_all(struct lf_fence **fences, int n)
{
	for (int i = 0; i < n; i++)
		lf_fence_put(fences[i]);
}

#define expect_steps(q, ...)                                                                                                       \
	do {                                                                                                                       \
		const int wanted_[] = { __VA_ARGS__ };                                                                             \
		for (size_t i_ = 0; i_ < sizeof(wanted_) / sizeof(wanted_[0]); i_++)                                               \
			assert_int_equal(lf_queue_step(q), wanted_[i_]);                                                           \
	} while (0)

enum {
	IDLE = LF_STEP_IDLE,
	RUN = LF_STEP_RUN,
	COMPLETE = LF_STEP_COMPLETE,
	INTERRUPT = LF_STEP_INTERRUPT,
	RESET = LF_STEP_RESET,
	LOST = LF_STEP_LOST
};

static void step_to_end(struct lf_queue *q)
{
	while (lf_queue_step(q) > 0)
		;
}

/* How many events of a kind there were. */
static unsigned events_of(const struct rig *rig, enum lf_queue_event_kind kind)
{
	unsigned n = 0;

	for (size_t i = 0; i < rig->count; i++)
		n += rig->events[i].kind == kind;
	return n;
}

static struct lf_queue_stats stats_of(struct lf_queue *q)
{
	struct lf_queue_stats stats;

	lf_queue_get_stats(q, &stats);
	return stats;
}

static void block(struct work *w, struct lf_job *job)
{
	flag_set(&w->rig->entered);
	flag_wait(&w->rig->leave);
}

/* The reclaimer keeps a little memory from the first time on that something it destroys defers memory itself. */
static void a_queue_that_is_put_without_a_close_ends_on_the_reclaimer(void **state)
{
	struct rig rig;

	rig_init(&rig, LF_QUEUE_THREAD, (struct lf_queue_desc){ 0 });
	lf_queue_put(rig.q);
	rig_free(&rig);
	assert_int_equal(lf_reclaim_barrier(), 0);
}

/* --- Sanity -------------------------------------------------------------------------------------------------------------- */

static void a_queue_of_each_mode_can_be_made_closed_and_put(void **state)
{
	struct rig rig;

	for (enum lf_queue_mode mode = LF_QUEUE_THREAD; mode <= LF_QUEUE_VIRTUAL; mode++) {
		rig_init(&rig, mode, (struct lf_queue_desc){ 0 });
		rig_fini(&rig);
		rig_init(&rig, mode, (struct lf_queue_desc){ 0 });
		lf_queue_put(rig.q);
		lf_vclock_put(rig.clock);
		rig_gone(&rig);
	}
}

static void a_job_of_each_mode_runs_and_finishes(void **state)
{
	struct rig rig;

	for (enum lf_queue_mode mode = LF_QUEUE_THREAD; mode <= LF_QUEUE_VIRTUAL; mode++) {
		struct work w = { .result = 0 };
		struct lf_fence *finished;

		rig_init(&rig, mode, (struct lf_queue_desc){ 0 });
		finished = push(make(&rig, &w, 0));
		if (mode == LF_QUEUE_MANUAL)
			step_to_end(rig.q);
		else if (mode == LF_QUEUE_VIRTUAL)
			assert_int_equal(lf_vclock_run(rig.clock, LF_DEADLINE_NEVER), 2);
		assert_int_equal(lf_fence_wait(finished, LF_DEADLINE_NEVER), 0);
		assert_int_equal(lf_fence_status(finished), 1);
		lf_fence_put(finished);
		rig_fini(&rig);
		assert_int_equal(w.runs, 1);
		assert_int_equal(w.released, 1);
		assert_true(w.scheduled);
	}
}

static void destroyers_and_getters_take_NULL(void **state)
{
	lf_queue_put(NULL);
	lf_job_put(NULL);
	lf_vclock_put(NULL);
	assert_null(lf_queue_get(NULL));
	assert_null(lf_job_get(NULL));
}

/* --- Manual -------------------------------------------------------------------------------------------------------------- */

static void each_step_does_one_thing(void **state)
{
	struct work w[2] = { 0 };
	struct lf_fence *scheduled, *finished[2];
	struct lf_job *job;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	expect_steps(rig.q, IDLE);
	job = make(&rig, &w[0], 0);
	assert_int_equal(lf_job_push(job, &finished[0]), 0);
	finished[1] = push(make(&rig, &w[1], 1));
	scheduled = lf_job_scheduled(job);
	assert_ptr_equal(lf_job_finished(job), finished[0]);
	assert_ptr_equal(lf_job_data(job), &w[0]);
	assert_int_equal(lf_job_runs(job), 0);
	assert_false(lf_fence_is_signaled(scheduled));
	expect_steps(rig.q, RUN);
	assert_true(lf_fence_is_signaled(scheduled));
	assert_false(lf_fence_is_signaled(finished[0]));
	assert_int_equal(lf_job_runs(job), 1);
	assert_int_equal(w[1].runs, 0);
	expect_steps(rig.q, COMPLETE);
	assert_int_equal(lf_fence_status(finished[0]), 1);
	assert_false(lf_fence_is_signaled(finished[1]));
	expect_steps(rig.q, RUN, COMPLETE, IDLE, IDLE);
	assert_int_equal(lf_fence_status(finished[1]), 1);
	lf_job_put(job);
	put_all(finished, 2);
	rig_fini(&rig);
}

static void fences_of_a_queue_have_its_name_and_rising_seqnos(void **state)
{
	struct work w[2] = { 0 };
	struct lf_fence *finished[2];
	struct lf_job *job;
	struct rig rig;
	char name[64];

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ .name = "copy" });
	job = make(&rig, &w[0], 0);
	assert_int_equal(lf_job_push(job, &finished[0]), 0);
	finished[1] = push(make(&rig, &w[1], 1));
	lf_fence_name(finished[0], name, sizeof(name));
	assert_string_equal(name, "copy");
	lf_fence_name(lf_job_scheduled(job), name, sizeof(name));
	assert_string_equal(name, "copy scheduled");
	assert_true(lf_fence_is_later(finished[1], finished[0]));
	assert_int_equal(lf_fence_seqno(lf_job_scheduled(job)), lf_fence_seqno(finished[0]));
	assert_int_not_equal(lf_fence_context(lf_job_scheduled(job)), lf_fence_context(finished[0]));
	lf_job_put(job);
	put_all(finished, 2);
	rig_fini(&rig);
}

static void the_result_of_the_run_hook_is_the_fences_result(void **state)
{
	struct work w[3] = { { .result = 0 }, { .result = -EIO }, { .result = 7 } };
	struct lf_fence *finished[3];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	push_all(&rig, w, finished, 3, (struct lf_job_desc){ 0 });
	step_to_end(rig.q);
	expect_misuse(1); /* 7 is no error */
	expect_status(finished, (int[]){ 1, -EIO, -EINVAL }, 3);
	assert_int_equal(stats_of(rig.q).finished, 3);
	assert_int_equal(stats_of(rig.q).failed, 2);
	put_all(finished, 3);
	rig_fini(&rig);
}

static void events_come_in_order(void **state)
{
	static const enum lf_queue_event_kind kinds[] = { LF_QUEUE_JOB_QUEUE, LF_QUEUE_JOB_QUEUE, LF_QUEUE_JOB_RUN, LF_QUEUE_JOB_DONE,
		LF_QUEUE_JOB_RUN, LF_QUEUE_JOB_DONE };
	static const int numbers[] = { 0, 1, 0, 0, 1, 1 };
	struct work w[2] = { { .result = 0 }, { .result = -EIO } };
	struct lf_fence *finished[2];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	push_all(&rig, w, finished, 2, (struct lf_job_desc){ .duration = 5 });
	step_to_end(rig.q);
	assert_int_equal(rig.count, 6);
	for (size_t i = 0; i < rig.count; i++) {
		assert_int_equal(rig.events[i].kind, kinds[i]);
		assert_int_equal(rig.events[i].number, numbers[i]);
	}
	assert_int_equal(rig.events[3].time, 5);
	assert_int_equal(rig.events[5].time, 10);
	assert_int_equal(rig.events[5].error, -EIO);
	put_all(finished, 2);
	rig_fini(&rig);
}

static struct lf_queue *other; /* of a hook that calls where it may not */
static int said[4];

static void call_what_drives(struct work *w, struct lf_job *job)
{
	said[0] = lf_queue_step(w->rig->q);
	said[1] = lf_queue_step(other);
	said[2] = lf_queue_close(w->rig->q, 0);
}

static void *step_elsewhere(void *q)
{
	said[3] = lf_queue_step(q);
	return NULL;
}

static void step_from_another_thread(struct work *w, struct lf_job *job)
{
	thread_run(step_elsewhere, w->rig->q, 0);
}

static void a_step_where_it_may_not_be_is_refused(void **state)
{
	struct work w[2] = { { .during = call_what_drives }, { .during = step_from_another_thread } };
	struct lf_fence *finished[2];
	struct rig rig, rest;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	rig_init(&rest, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	other = rest.q;
	push_all(&rig, w, finished, 2, (struct lf_job_desc){ 0 });
	step_to_end(rig.q);
	assert_int_equal(said[0], -EDEADLK);
	assert_int_equal(said[1], -EDEADLK);
	assert_int_equal(said[2], -EDEADLK);
	assert_int_equal(said[3], -EBUSY);
	expect_misuse(4);
	lf_read_lock();
	assert_int_equal(lf_queue_step(rig.q), -EDEADLK);
	lf_read_unlock();
	expect_misuse(1);
	put_all(finished, 2);
	rig_fini(&rest);
	rig_fini(&rig);
	rig_init(&rig, LF_QUEUE_THREAD, (struct lf_queue_desc){ 0 });
	assert_int_equal(lf_queue_step(rig.q), -EINVAL);
	expect_misuse(1);
	rig_fini(&rig);
}

/* --- Virtual ------------------------------------------------------------------------------------------------------------- */

static void a_virtual_clock_moves_by_durations_only(void **state)
{
	struct work w[3] = { 0 };
	struct lf_fence *finished[3];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_VIRTUAL, (struct lf_queue_desc){ 0 });
	assert_int_equal(lf_vclock_now(rig.clock), 0);
	push_all(&rig, w, finished, 3, (struct lf_job_desc){ .duration = 100 });
	assert_int_equal(lf_vclock_run(rig.clock, 0), 1);
	assert_int_equal(lf_vclock_run(rig.clock, 99), 0);
	assert_int_equal(lf_vclock_now(rig.clock), 99);
	assert_int_equal(lf_vclock_run(rig.clock, 100), 2);
	assert_int_equal(lf_fence_status(finished[0]), 1);
	assert_int_equal(lf_fence_timestamp(finished[0]), 100);
	assert_int_equal(lf_vclock_run(rig.clock, LF_DEADLINE_NEVER), 3);
	assert_int_equal(lf_fence_timestamp(finished[2]), 300);
	assert_int_equal(lf_vclock_now(rig.clock), 300);
	assert_int_equal(lf_vclock_run(rig.clock, 1000), 0);
	assert_int_equal(lf_vclock_now(rig.clock), 1000);
	put_all(finished, 3);
	rig_fini(&rig);
}

static void at_the_same_time_the_queue_made_first_comes_first(void **state)
{
	struct work w[4] = { 0 };
	struct lf_fence *finished[4];
	struct rig a, b;

	rig_init(&a, LF_QUEUE_VIRTUAL, (struct lf_queue_desc){ 0 });
	rig_init(&b, LF_QUEUE_VIRTUAL, (struct lf_queue_desc){ .clock = a.clock });
	/* b's job first, but a was made first; b's second job ends before a's first */
	finished[0] = push(make_with(&b, &w[0], 0, (struct lf_job_desc){ .duration = 10 }));
	finished[1] = push(make_with(&a, &w[1], 1, (struct lf_job_desc){ .duration = 25 }));
	finished[2] = push(make_with(&b, &w[2], 2, (struct lf_job_desc){ .duration = 10 }));
	assert_int_equal(lf_vclock_run(a.clock, 0), 2);
	assert_int_equal(w[1].runs, 1);
	assert_int_equal(w[0].runs, 1);
	assert_int_equal(lf_vclock_run(a.clock, 20), 3);
	assert_int_equal(lf_fence_status(finished[2]), 1);
	assert_int_equal(lf_fence_status(finished[1]), 0);
	assert_int_equal(lf_vclock_run(a.clock, LF_DEADLINE_NEVER), 1);
	put_all(finished, 3);
	rig_fini(&b);
	rig_fini(&a);
}

static void run_the_clock(struct work *w, struct lf_job *job)
{
	said[0] = (int)lf_vclock_run(w->rig->clock, LF_DEADLINE_NEVER);
}

static void *run_the_clock_elsewhere(void *clock)
{
	said[1] = (int)lf_vclock_run(clock, LF_DEADLINE_NEVER);
	return NULL;
}

static void run_the_clock_on_another_thread(struct work *w, struct lf_job *job)
{
	thread_run(run_the_clock_elsewhere, w->rig->clock, 0);
}

static void a_clock_that_runs_cannot_be_run(void **state)
{
	struct work w[2] = { { .during = run_the_clock }, { .during = run_the_clock_on_another_thread } };
	struct lf_fence *finished[2];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_VIRTUAL, (struct lf_queue_desc){ 0 });
	push_all(&rig, w, finished, 2, (struct lf_job_desc){ 0 });
	assert_int_equal(lf_vclock_run(rig.clock, LF_DEADLINE_NEVER), 4);
	assert_int_equal(said[0], -EDEADLK);
	assert_int_equal(said[1], -EBUSY);
	expect_misuse(2);
	put_all(finished, 2);
	rig_fini(&rig);
}

static void the_last_put_of_a_clock_closes_its_queues(void **state)
{
	struct work w[2] = { 0 };
	struct lf_fence *finished[2];
	struct lf_job *job;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_VIRTUAL, (struct lf_queue_desc){ 0 });
	push_all(&rig, w, finished, 2, (struct lf_job_desc){ .duration = 10 });
	lf_vclock_run(rig.clock, 5);
	lf_vclock_put(rig.clock);
	rig.clock = NULL;
	expect_status(finished, (int[]){ 1, -ECANCELED }, 2);
	job = make(&rig, &w[1], 1);
	assert_int_equal(lf_job_push(job, NULL), -ESHUTDOWN);
	lf_job_put(job);
	put_all(finished, 2);
	rig_fini(&rig);
}

/* --- Dependencies -------------------------------------------------------------------------------------------------------- */

static void a_job_waits_for_all_its_dependencies_and_holds_up_what_is_behind(void **state)
{
	struct work w[2] = { 0 };
	struct lf_fence *in[3], *finished[2];
	struct lf_job *job;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	job = make(&rig, &w[0], 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(lf_fence_create(&in[i]), 0);
		assert_int_equal(lf_job_add_dependency(job, in[i]), 0);
	}
	lf_fence_signal(in[1], 0); /* before the push */
	finished[0] = push(job);
	finished[1] = push(make(&rig, &w[1], 1));
	expect_steps(rig.q, IDLE);
	lf_fence_signal(in[0], 0);
	expect_steps(rig.q, IDLE);
	lf_fence_signal(in[2], 0);
	expect_steps(rig.q, RUN, COMPLETE, RUN, COMPLETE, IDLE);
	assert_int_equal(w[0].dependency_error, 0);
	put_all(in, 3);
	put_all(finished, 2);
	rig_fini(&rig);
}

static void the_first_error_of_the_dependencies_is_told(void **state)
{
	struct work w[3] = { 0 };
	struct lf_fence *in[3], *finished[3];
	struct lf_job *job[3];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	for (int i = 0; i < 3; i++) {
		assert_int_equal(lf_fence_create(&in[i]), 0);
		job[i] = make(&rig, &w[i], i);
	}
	lf_fence_signal(in[0], -EIO); /* signaled when it is added */
	assert_int_equal(lf_job_add_dependency(job[0], in[0]), 0);
	assert_int_equal(lf_job_dependency_error(job[0]), -EIO);
	assert_int_equal(lf_job_add_dependency(job[1], in[1]), 0);
	assert_int_equal(lf_job_add_dependency(job[1], in[2]), 0);
	lf_fence_signal(in[1], -ENOSPC); /* between add and push */
	for (int i = 0; i < 3; i++)
		finished[i] = push(job[i]);
	lf_fence_signal(in[2], -EPIPE); /* after the push: the second error */
	step_to_end(rig.q);
	assert_int_equal(w[0].dependency_error, -EIO);
	assert_int_equal(w[1].dependency_error, -ENOSPC);
	assert_int_equal(w[2].dependency_error, 0);
	put_all(in, 3);
	put_all(finished, 3);
	rig_fini(&rig);
}

static void of_an_ordered_timeline_only_the_latest_fence_counts(void **state)
{
	const struct lf_timeline_desc desc = { .name = "tl" };
	struct work w[2] = { 0 };
	struct lf_fence *in[3], *finished[2];
	struct lf_job *up, *down;
	struct lf_timeline *tl;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	assert_int_equal(lf_timeline_create(&desc, &tl), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(lf_timeline_emit(tl, 0, &in[i]), 0);
	up = make(&rig, &w[0], 0);
	down = make(&rig, &w[1], 1);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(lf_job_add_dependency(up, in[i]), 0);
		assert_int_equal(lf_job_add_dependency(down, in[1 - i]), 0);
	}
	finished[0] = push(up);
	finished[1] = push(down);
	lf_timeline_signal_to(tl, lf_fence_seqno(in[0]), -EIO); /* not kept, so its error is not seen */
	expect_steps(rig.q, IDLE);
	lf_timeline_signal_to(tl, lf_fence_seqno(in[1]), 0);
	expect_steps(rig.q, RUN, COMPLETE, RUN, COMPLETE, IDLE);
	assert_int_equal(w[0].dependency_error, 0);
	assert_int_equal(w[1].dependency_error, 0);
	put_all(in, 3);
	put_all(finished, 2);
	lf_timeline_put(tl);
	rig_fini(&rig);
}

static void of_an_unordered_timeline_every_fence_counts(void **state)
{
	const struct lf_timeline_desc desc = { .name = "tl", .flags = LF_TIMELINE_UNORDERED };
	struct work w = { 0 };
	struct lf_fence *in[40], *finished;
	struct lf_timeline *tl;
	struct lf_job *job;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	assert_int_equal(lf_timeline_create(&desc, &tl), 0);
	job = make(&rig, &w, 0);
	for (int i = 0; i < 40; i++) {
		assert_int_equal(lf_timeline_emit(tl, 0, &in[i]), 0);
		assert_int_equal(lf_job_add_dependency(job, in[i]), 0);
		assert_int_equal(lf_job_add_dependency(job, in[i]), 0); /* the same twice */
	}
	finished = push(job);
	for (int i = 39; i >= 0; i--) {
		expect_steps(rig.q, IDLE);
		assert_true(lf_timeline_signal_one(tl, in[i], 0));
	}
	expect_steps(rig.q, RUN, COMPLETE, IDLE);
	put_all(in, 40);
	lf_fence_put(finished);
	lf_timeline_put(tl);
	rig_fini(&rig);
}

static unsigned enabled;

static int note_enable(struct lf_fence *f, void *data)
{
	enabled++;
	return data ? 1 : 0;
}

static void a_dependency_is_armed_by_the_push(void **state)
{
	static const struct lf_fence_ops ops = { .enable = note_enable };
	struct work w = { 0 };
	struct lf_fence *in, *finished;
	struct lf_timeline *tl;
	struct lf_job *job;
	struct rig rig;

	for (int already = 0; already < 2; already++) {
		const struct lf_timeline_desc desc = { .name = "tl", .ops = &ops, .data = already ? &enabled : NULL };

		enabled = 0;
		rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
		assert_int_equal(lf_timeline_create(&desc, &tl), 0);
		assert_int_equal(lf_timeline_emit(tl, 0, &in), 0);
		job = make(&rig, &w, 0);
		assert_int_equal(lf_job_add_dependency(job, in), 0);
		assert_int_equal(enabled, 0);
		finished = push(job);
		assert_int_equal(enabled, 1);
		expect_steps(rig.q, already ? RUN : IDLE);
		lf_timeline_put(tl); /* cancels it */
		step_to_end(rig.q);
		assert_int_equal(w.dependency_error, already ? 0 : -ECANCELED);
		assert_int_equal(lf_fence_status(finished), 1);
		lf_fence_put(in);
		lf_fence_put(finished);
		rig_fini(&rig);
	}
}

struct waiting_cb {
	struct lf_fence_cb cb;
	struct rig *rig;
};

/* A callback may not wait for a fence, so it waits for what the job sets. */
static void wait_for_job(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct rig *rig = ((struct waiting_cb *)cb)->rig;

	flag_wait(&rig->entered);
	flag_set(&rig->leave);
}

static void a_blocking_callback_does_not_hold_up_a_dependency_added_after_it(void **state)
{
	struct waiting_cb waiting;
	struct work w = { 0 };
	struct lf_fence *in, *finished;
	struct lf_job *job;
	struct rig rig;

	/* The dependency's node comes after the callback, and runs first: the queue finishes the job although the callback waits for it. */
	rig_init(&rig, LF_QUEUE_THREAD, (struct lf_queue_desc){ 0 });
	assert_int_equal(lf_fence_create(&in), 0);
	job = make(&rig, &w, 0);
	waiting = (struct waiting_cb){ .rig = &rig };
	assert_int_equal(lf_fence_add_callback(in, &waiting.cb, wait_for_job), 0);
	w.during = block; /* sets entered; leave is set by the callback */
	assert_int_equal(lf_job_add_dependency(job, in), 0);
	finished = push(job);
	lf_fence_signal(in, 0);
	assert_int_equal(lf_fence_wait(finished, LF_DEADLINE_NEVER), 0);
	lf_fence_put(in);
	lf_fence_put(finished);
	rig_fini(&rig);
}

static void queues_depend_on_each_other(void **state)
{
	struct work w[20] = { 0 };
	struct lf_fence *finished[20], *before = NULL;
	struct rig a, b;

	/* A chain that goes back and forth, pushed before anything runs; its start needs the test. */
	struct lf_fence *start;
	assert_int_equal(lf_fence_create(&start), 0);
	rig_init(&a, LF_QUEUE_VIRTUAL, (struct lf_queue_desc){ 0 });
	rig_init(&b, LF_QUEUE_VIRTUAL, (struct lf_queue_desc){ .clock = a.clock });
	before = start;
	for (int i = 0; i < 20; i++) {
		struct lf_job *job = make_with(i % 2 ? &a : &b, &w[i], i, (struct lf_job_desc){ .duration = 10 });

		assert_int_equal(lf_job_add_dependency(job, before), 0);
		before = finished[i] = push(job);
	}
	assert_int_equal(lf_vclock_run(a.clock, LF_DEADLINE_NEVER), 0);
	lf_fence_signal(start, 0);
	assert_int_equal(lf_vclock_run(a.clock, LF_DEADLINE_NEVER), 40);
	for (int i = 0; i < 20; i++)
		assert_int_equal(lf_fence_timestamp(finished[i]), 10 * (i + 1));
	lf_fence_put(start);
	put_all(finished, 20);
	rig_fini(&b);
	rig_fini(&a);
}

/* --- States of a job ----------------------------------------------------------------------------------------------------- */

static void a_job_that_is_never_pushed_is_released(void **state)
{
	struct work w = { 0 };
	struct lf_fence *in;
	struct lf_job *job;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	assert_int_equal(lf_fence_create(&in), 0);
	job = lf_job_get(make(&rig, &w, 0));
	assert_int_equal(lf_job_add_dependency(job, in), 0);
	lf_job_put(job);
	assert_int_equal(w.released, 0);
	lf_job_put(job);
	assert_int_equal(w.released, 1);
	lf_fence_put(in);
	rig_fini(&rig);
}

static void a_job_is_pushed_once(void **state)
{
	struct work w = { 0 };
	struct lf_fence *stub = lf_fence_stub();
	struct lf_job *job, *unborn = NULL;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ .credits = 2 });
	job = make(&rig, &w, 0);
	assert_null(lf_job_scheduled(job));
	assert_null(lf_job_finished(job));
	expect_misuse(2);
	assert_int_equal(lf_job_push(job, NULL), 0);
	assert_int_equal(lf_job_push(job, NULL), -EINVAL);
	assert_int_equal(lf_job_add_dependency(job, stub), -EINVAL);
	expect_misuse(2);
	step_to_end(rig.q);
	assert_int_equal(lf_job_push(job, NULL), -EINVAL);
	assert_int_equal(lf_job_create(rig.q, &(struct lf_job_desc){ .credits = 3 }, &unborn), -EINVAL);
	assert_int_equal(lf_job_create(rig.q, &(struct lf_job_desc){ .duration = -1 }, &unborn), -EINVAL);
	assert_null(unborn);
	expect_misuse(3);
	lf_job_put(job);
	rig_fini(&rig);
}

static void a_queue_wants_a_sound_description(void **state)
{
	struct lf_queue_desc good = { .name = "q", .mode = LF_QUEUE_MANUAL, .ops = &rig_ops }, bad;
	struct lf_queue *q = NULL;
	struct lf_vclock *clock;

	assert_int_equal(lf_vclock_create(&clock), 0);
#define REFUSED(field, value)                                                                                                      \
	(bad = good, bad.field = (value), assert_int_equal(lf_queue_create(&bad, &q), -EINVAL), expect_misuse(1))
	REFUSED(name, NULL);
	REFUSED(ops, NULL);
	REFUSED(ops, (&(const struct lf_queue_ops){ .run = NULL }));
	REFUSED(mode, LF_QUEUE_VIRTUAL);
	REFUSED(clock, clock);
	REFUSED(mode, (enum lf_queue_mode)9);
	REFUSED(timeout, -1);
	REFUSED(faults.late_ns, -1);
#undef REFUSED
	assert_null(q);
	lf_vclock_put(clock);
}

/* --- Credits ------------------------------------------------------------------------------------------------------------- */

static void the_ring_holds_no_more_credits_than_it_has(void **state)
{
	struct work w[4] = { { .verdict = LF_RESET_FAIL }, { .verdict = LF_RESET_RETRY }, { 0 }, { 0 } };
	static const uint32_t credits[] = { 2, 2, 3, 1 };
	struct lf_fence *finished[4];
	struct rig rig;

	/* Who was in the ring is asked at a reset. The fourth would fit, but stands behind the third. */
	rig_init(&rig, LF_QUEUE_MANUAL,
		(struct lf_queue_desc){ .credits = 5, .faults = { .exact = true, .hang_one_in = 1 } });
	for (int i = 0; i < 4; i++)
		finished[i] = push(make_with(&rig, &w[i], i, (struct lf_job_desc){ .credits = credits[i] }));
	expect_steps(rig.q, RUN, RESET);
	assert_int_equal(w[0].asked, 1);
	assert_int_equal(w[1].asked, 1);
	assert_int_equal(w[2].asked, 0);
	assert_int_equal(w[3].asked, 0);
	w[1].verdict = LF_RESET_FAIL;
	expect_steps(rig.q, RUN, RESET);
	assert_int_equal(w[1].asked, 2);
	assert_int_equal(w[2].asked, 1);
	assert_int_equal(w[3].asked, 0);
	put_all(finished, 4);
	rig_fini(&rig);
}

static void credits_come_back_however_a_job_ends(void **state)
{
	struct work w[6] = { { 0 }, { .result = -EIO }, { .verdict = LF_RESET_FAIL }, { 0 }, { 0 }, { 0 } };
	struct lf_fence *finished[6];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL,
		(struct lf_queue_desc){ .credits = 1, .faults = { .exact = true, .hang_one_in = 3, .lost_interrupt_one_in = 4 } });
	push_all(&rig, w, finished, 6, (struct lf_job_desc){ 0 });
	step_to_end(rig.q);
	for (int i = 0; i < 6; i++)
		assert_true(lf_fence_is_signaled(finished[i]));
	put_all(finished, 6);
	rig_fini(&rig);
}

/* --- Faults -------------------------------------------------------------------------------------------------------------- */

static void a_hang_ends_with_the_timeout(void **state)
{
	struct work w[3] = { { .verdict = LF_RESET_FAIL } };
	struct lf_fence *finished[3];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_VIRTUAL, (struct lf_queue_desc){ .timeout = 50, .faults = { .exact = true, .hang_one_in = 2 } });
	w[1].verdict = LF_RESET_FAIL;
	push_all(&rig, w, finished, 3, (struct lf_job_desc){ .duration = 10 });
	lf_vclock_run(rig.clock, LF_DEADLINE_NEVER);
	expect_status(finished, (int[]){ 1, -ETIME, 1 }, 3);
	assert_int_equal(lf_fence_timestamp(finished[1]), 60);
	assert_int_equal(lf_fence_timestamp(finished[2]), 70);
	assert_int_equal(w[1].runs, 0); /* a hung run has no effect */
	assert_true(w[1].guilty);
	assert_int_equal(w[2].asked, 1);
	assert_false(w[2].guilty);
	assert_int_equal(events_of(&rig, LF_QUEUE_FAULT_HANG), 1);
	assert_int_equal(events_of(&rig, LF_QUEUE_RESET), 1);
	assert_int_equal(stats_of(rig.q).hangs, 1);
	assert_int_equal(stats_of(rig.q).resets, 1);
	assert_int_equal(stats_of(rig.q).runs, 3);
	put_all(finished, 3);
	rig_fini(&rig);
}

static void a_retried_job_runs_again_and_stays_scheduled(void **state)
{
	struct work w = { .verdict = LF_RESET_RETRY };
	struct lf_job *job;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ .faults = { .exact = true, .lose_engine_at = 0, .hang_one_in = 1 } });
	job = make(&rig, &w, 0);
	assert_int_equal(lf_job_push(job, NULL), 0);
	expect_steps(rig.q, RUN, RESET, RUN, RESET, RUN);
	assert_int_equal(lf_job_runs(job), 3);
	assert_int_equal(lf_fence_status(lf_job_scheduled(job)), 1);
	w.verdict = LF_RESET_FAIL;
	expect_steps(rig.q, RESET, IDLE);
	assert_int_equal(lf_fence_status(lf_job_finished(job)), -ETIME);
	assert_int_equal(lf_fence_status(lf_job_scheduled(job)), 1);
	lf_job_put(job);
	rig_fini(&rig);
}

static void without_a_reset_hook_the_guilty_one_fails_and_the_others_run_again(void **state)
{
	struct work w[3] = { 0 };
	struct lf_fence *finished[3];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL,
		(struct lf_queue_desc){ .ops = &rig_ops_without_reset, .faults = { .exact = true, .hang_one_in = 2 } });
	push_all(&rig, w, finished, 3, (struct lf_job_desc){ 0 });
	expect_steps(rig.q, RUN, COMPLETE, RUN, RESET, RUN, COMPLETE, IDLE);
	expect_status(finished, (int[]){ 1, -ETIME, 1 }, 3);
	put_all(finished, 3);
	rig_fini(&rig);
}

static void a_job_failed_by_a_reset_waits_for_those_before_it(void **state)
{
	struct work w[3] = { { .verdict = LF_RESET_RETRY }, { .verdict = LF_RESET_FAIL }, { .verdict = LF_RESET_RETRY } };
	struct lf_fence *finished[3];
	struct lf_job *failed;
	struct rig rig;

	/* The first run hangs, the later ones do not: hangs come every hundredth time. */
	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ .timeout = 10 });
	finished[0] = push(make_with(&rig, &w[0], 0, (struct lf_job_desc){ .duration = 20 })); /* runs too long */
	failed = make(&rig, &w[1], 1);
	assert_int_equal(lf_job_push(failed, &finished[1]), 0);
	finished[2] = push(make(&rig, &w[2], 2));
	expect_steps(rig.q, RUN, RESET);
	expect_status(finished, (int[]){ 0, 0, 0 }, 3); /* in order: the second may not come before the first */
	assert_false(lf_fence_is_signaled(lf_job_scheduled(failed)));
	w[0].verdict = LF_RESET_FAIL;
	expect_steps(rig.q, RUN, RESET);
	expect_status(finished, (int[]){ -ETIME, -ECANCELED, 0 }, 3);
	assert_int_equal(lf_fence_status(lf_job_scheduled(failed)), -ECANCELED);
	assert_int_equal(w[1].asked, 1);
	assert_int_equal(w[1].runs, 0);
	expect_steps(rig.q, RUN, COMPLETE, IDLE);
	expect_status(finished, (int[]){ -ETIME, -ECANCELED, 1 }, 3);
	lf_job_put(failed);
	put_all(finished, 3);
	rig_fini(&rig);
}

static void a_lost_interrupt_is_healed_by_the_next_and_each_keeps_its_result(void **state)
{
	struct work w[4] = { { .result = 0 }, { .result = -EIO }, { .result = -ENOSPC }, { .result = 0 } };
	struct lf_fence *finished[4];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_VIRTUAL, (struct lf_queue_desc){ .faults = { .seed = 1 } });
	rig_fini(&rig);
	/* Runs 1, 2 and 3 lose their interrupts; the fourth tells of all. Late never, so that "every 4th is spared" is said by hang_one_in 0. */
	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ .faults = { .exact = true, .lost_interrupt_one_in = 1 } });
	push_all(&rig, w, finished, 4, (struct lf_job_desc){ 0 });
	expect_steps(rig.q, RUN, COMPLETE, RUN, COMPLETE, RUN, COMPLETE, RUN, COMPLETE);
	expect_status(finished, (int[]){ 0, 0, 0, 0 }, 4);
	expect_steps(rig.q, INTERRUPT, IDLE); /* the timeout reads memory, and needs no reset */
	expect_status(finished, (int[]){ 1, -EIO, -ENOSPC, 1 }, 4);
	assert_int_equal(stats_of(rig.q).lost_interrupts, 4);
	assert_int_equal(stats_of(rig.q).resets, 0);
	assert_int_equal(stats_of(rig.q).failed, 2);
	put_all(finished, 4);
	rig_fini(&rig);
	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ .faults = { .exact = true, .lost_interrupt_one_in = 3 } });
	push_all(&rig, w, finished, 4, (struct lf_job_desc){ 0 });
	expect_steps(rig.q, RUN, COMPLETE, RUN, COMPLETE, RUN, COMPLETE);
	expect_status(finished, (int[]){ 1, -EIO, 0, 0 }, 4);
	expect_steps(rig.q, RUN, COMPLETE, IDLE); /* the next interrupt tells of it */
	expect_status(finished, (int[]){ 1, -EIO, -ENOSPC, 1 }, 4);
	put_all(finished, 4);
	rig_fini(&rig);
}

static void a_late_interrupt_comes_late_unless_another_is_earlier(void **state)
{
	struct work w[2] = { 0 };
	struct lf_fence *finished[2];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_VIRTUAL, (struct lf_queue_desc){ .faults = { .exact = true, .late_one_in = 1, .late_ns = 100 } });
	finished[0] = push(make_with(&rig, &w[0], 0, (struct lf_job_desc){ .duration = 10 }));
	lf_vclock_run(rig.clock, LF_DEADLINE_NEVER);
	assert_int_equal(lf_fence_timestamp(finished[0]), 110);
	lf_fence_put(finished[0]);
	push_all(&rig, w, finished, 2, (struct lf_job_desc){ .duration = 10 });
	lf_vclock_run(rig.clock, LF_DEADLINE_NEVER);
	assert_int_equal(lf_fence_timestamp(finished[0]), 220);
	assert_int_equal(lf_fence_timestamp(finished[1]), 220); /* the first interrupt tells of both */
	assert_int_equal(stats_of(rig.q).late, 3);
	put_all(finished, 2);
	rig_fini(&rig);
	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ .faults = { .exact = true, .late_one_in = 2, .late_ns = 100 } });
	push_all(&rig, w, finished, 2, (struct lf_job_desc){ 0 });
	expect_steps(rig.q, RUN, COMPLETE, RUN, COMPLETE, INTERRUPT, IDLE);
	put_all(finished, 2);
	rig_fini(&rig);
}

static void a_late_interrupt_behind_the_timeout_is_no_reset(void **state)
{
	struct work w = { 0 };
	struct lf_fence *finished;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_VIRTUAL,
		(struct lf_queue_desc){ .timeout = 50, .faults = { .exact = true, .late_one_in = 1, .late_ns = 1000 } });
	finished = push(make_with(&rig, &w, 0, (struct lf_job_desc){ .duration = 10 }));
	lf_vclock_run(rig.clock, LF_DEADLINE_NEVER);
	assert_int_equal(lf_fence_status(finished), 1);
	assert_int_equal(lf_fence_timestamp(finished), 50);
	assert_int_equal(stats_of(rig.q).resets, 0);
	lf_fence_put(finished);
	rig_fini(&rig);
}

static void a_reordered_interrupt_comes_behind_the_next(void **state)
{
	struct work w[3] = { 0 };
	struct lf_fence *finished[3];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_VIRTUAL, (struct lf_queue_desc){ .faults = { .exact = true, .reorder_one_in = 2 } });
	push_all(&rig, w, finished, 3, (struct lf_job_desc){ .duration = 10 });
	lf_vclock_run(rig.clock, LF_DEADLINE_NEVER);
	assert_int_equal(lf_fence_timestamp(finished[0]), 10);
	assert_int_equal(lf_fence_timestamp(finished[1]), 30);
	assert_int_equal(lf_fence_timestamp(finished[2]), 30);
	assert_int_equal(stats_of(rig.q).reordered, 1);
	put_all(finished, 3);
	rig_fini(&rig);
	/* With nothing behind it, it comes at once. */
	rig_init(&rig, LF_QUEUE_VIRTUAL, (struct lf_queue_desc){ .faults = { .exact = true, .reorder_one_in = 1 } });
	finished[0] = push(make_with(&rig, &w[0], 0, (struct lf_job_desc){ .duration = 10 }));
	lf_vclock_run(rig.clock, LF_DEADLINE_NEVER);
	assert_int_equal(lf_fence_timestamp(finished[0]), 10);
	lf_fence_put(finished[0]);
	rig_fini(&rig);
}

static void a_reordered_interrupt_comes_although_the_next_is_lost(void **state)
{
	struct work w[3] = { 0 };
	struct lf_fence *finished[3];
	struct rig rig;

	/* Run 2 is put behind run 3, and run 3 loses its own. */
	rig_init(&rig, LF_QUEUE_MANUAL,
		(struct lf_queue_desc){ .faults = { .exact = true, .reorder_one_in = 2, .lost_interrupt_one_in = 3 } });
	push_all(&rig, w, finished, 3, (struct lf_job_desc){ 0 });
	expect_steps(rig.q, RUN, COMPLETE, RUN, COMPLETE, RUN, COMPLETE, IDLE);
	expect_status(finished, (int[]){ 1, 1, 1 }, 3);
	put_all(finished, 3);
	rig_fini(&rig);
}

static void the_engine_is_lost_at_its_nth_run(void **state)
{
	struct work w[3] = { 0 };
	struct lf_fence *finished[3];
	struct rig rig;

	for (enum lf_queue_mode mode = LF_QUEUE_THREAD; mode <= LF_QUEUE_VIRTUAL; mode++) {
		memset(w, 0, sizeof(w));
		rig_init(&rig, mode, (struct lf_queue_desc){ .faults = { .lose_engine_at = 2 } });
		push_all(&rig, w, finished, 3, (struct lf_job_desc){ 0 });
		if (mode == LF_QUEUE_MANUAL)
			expect_steps(rig.q, RUN, COMPLETE, LOST, IDLE);
		else if (mode == LF_QUEUE_VIRTUAL)
			lf_vclock_run(rig.clock, LF_DEADLINE_NEVER);
		assert_int_equal(lf_fence_wait(finished[2], LF_DEADLINE_NEVER), 0);
		expect_status(finished, (int[]){ 1, -ENODEV, -ENODEV }, 3);
		put_all(finished, 3);
		finished[0] = push(make(&rig, &w[0], 0)); /* after the loss */
		assert_int_equal(lf_fence_status(finished[0]), -ENODEV);
		lf_fence_put(finished[0]);
		rig_fini(&rig);
		assert_int_equal(w[0].runs, 1);
		assert_int_equal(w[1].runs, 0);
		assert_int_equal(events_of(&rig, LF_QUEUE_LOST), 1);
		assert_int_equal(events_of(&rig, LF_QUEUE_JOB_DONE), 4);
		assert_int_equal(w[0].released, 2);
	}
}

static void a_hang_in_a_thread_sleeps_until_the_timeout(void **state)
{
	struct work w[2] = { { .verdict = LF_RESET_FAIL }, { .verdict = LF_RESET_RETRY } };
	struct lf_fence *finished[2];
	struct rig rig;
	int64_t start = lf_now();

	rig_init(&rig, LF_QUEUE_THREAD, (struct lf_queue_desc){ .timeout = 5 * MS, .faults = { .exact = true, .hang_one_in = 1 } });
	finished[0] = push(make(&rig, &w[0], 0));
	assert_int_equal(lf_fence_wait(finished[0], LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_fence_status(finished[0]), -ETIME);
	assert_true(lf_now() - start >= 5 * MS);
	lf_fence_put(finished[0]);
	rig_fini(&rig);
}

static void a_lost_interrupt_in_a_thread_is_found_by_the_timeout(void **state)
{
	struct work w = { .result = -EIO };
	struct lf_fence *finished;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_THREAD,
		(struct lf_queue_desc){ .timeout = 2 * MS, .faults = { .exact = true, .lost_interrupt_one_in = 1 } });
	finished = push(make(&rig, &w, 0));
	assert_int_equal(lf_fence_wait(finished, LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_fence_status(finished), -EIO);
	assert_int_equal(stats_of(rig.q).resets, 0);
	assert_int_equal(stats_of(rig.q).finished, 1);
	lf_fence_put(finished);
	rig_fini(&rig);
}

/* A run with many faults: returns the events. */
static void random_run(struct rig *rig, enum lf_queue_mode mode, uint64_t seed)
{
	static struct work w[300];
	struct lf_fence *finished[300];

	memset(w, 0, sizeof(w));
	for (int i = 0; i < 300; i++) {
		w[i].verdict = i % 3 ? LF_RESET_RETRY : LF_RESET_FAIL;
		w[i].result = i % 7 ? 0 : -EIO;
	}
	rig_init(rig, mode, (struct lf_queue_desc){
		.timeout = 1000,
		.faults = { .seed = seed, .hang_one_in = 10, .lost_interrupt_one_in = 5, .late_one_in = 6, .late_ns = 70, .reorder_one_in = 4 },
	});
	push_all(rig, w, finished, 300, (struct lf_job_desc){ .duration = 13 });
	if (mode == LF_QUEUE_MANUAL)
		step_to_end(rig->q);
	else
		lf_vclock_run(rig->clock, LF_DEADLINE_NEVER);
	for (int i = 0; i < 300; i++)
		assert_true(lf_fence_is_signaled(finished[i]));
	put_all(finished, 300);
	rig_fini(rig);
}

static void the_same_seed_gives_the_same_events(void **state)
{
	static struct rig a, b, c;

	for (enum lf_queue_mode mode = LF_QUEUE_MANUAL; mode <= LF_QUEUE_VIRTUAL; mode++) {
		random_run(&a, mode, 42);
		random_run(&b, mode, 42);
		random_run(&c, mode, 43);
		assert_int_equal(a.count, b.count);
		assert_memory_equal(a.events, b.events, a.count * sizeof(a.events[0]));
		assert_true(a.count != c.count || memcmp(a.events, c.events, a.count * sizeof(a.events[0])) != 0);
		for (enum lf_queue_event_kind kind = LF_QUEUE_JOB_QUEUE; kind <= LF_QUEUE_RESET; kind++)
			assert_true(events_of(&a, kind) > 0);
		assert_int_equal(events_of(&a, LF_QUEUE_JOB_DONE), 300);
	}
}

/* --- Loss ---------------------------------------------------------------------------------------------------------------- */

static void a_loss_completes_everything_and_is_sticky(void **state)
{
	struct work w[4] = { 0 };
	struct lf_fence *in, *finished[4];
	struct lf_job *job;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	assert_int_equal(lf_fence_create(&in), 0);
	push_all(&rig, w, finished, 2, (struct lf_job_desc){ 0 });
	job = make(&rig, &w[2], 2);
	assert_int_equal(lf_job_add_dependency(job, in), 0);
	assert_int_equal(lf_job_push(job, &finished[2]), 0);
	expect_steps(rig.q, RUN);
	lf_queue_lose(rig.q, -EIO);
	expect_status(finished, (int[]){ -EIO, -EIO, -EIO }, 3);
	assert_int_equal(lf_fence_status(lf_job_scheduled(job)), -EIO);
	lf_job_put(job);
	lf_queue_lose(rig.q, -EPIPE); /* the first counts */
	finished[3] = push(make(&rig, &w[3], 3));
	assert_int_equal(lf_fence_status(finished[3]), -EIO);
	expect_steps(rig.q, IDLE);
	assert_int_equal(events_of(&rig, LF_QUEUE_LOST), 1);
	assert_int_equal(events_of(&rig, LF_QUEUE_JOB_DONE), 4);
	assert_int_equal(stats_of(rig.q).finished, 4);
	assert_int_equal(stats_of(rig.q).failed, 4);
	for (int i = 0; i < 4; i++)
		assert_int_equal(w[i].released, 1);
	lf_fence_signal(in, 0); /* nobody waits any more */
	lf_fence_put(in);
	put_all(finished, 4);
	rig_fini(&rig);
}

static void lose_it(struct work *w, struct lf_job *job)
{
	lf_queue_lose(w->rig->q, -EIO);
	must(lf_fence_status(lf_job_finished(job)) == -EIO);
}

static void a_loss_from_inside_the_run_hook(void **state)
{
	struct rig rig;

	for (enum lf_queue_mode mode = LF_QUEUE_THREAD; mode <= LF_QUEUE_VIRTUAL; mode++) {
		struct work w[2] = { { .during = lose_it } };
		struct lf_fence *finished[2];

		rig_init(&rig, mode, (struct lf_queue_desc){ 0 });
		push_all(&rig, w, finished, 2, (struct lf_job_desc){ 0 });
		if (mode == LF_QUEUE_MANUAL)
			expect_steps(rig.q, RUN, IDLE);
		else if (mode == LF_QUEUE_VIRTUAL)
			lf_vclock_run(rig.clock, LF_DEADLINE_NEVER);
		assert_int_equal(lf_fence_wait(finished[1], LF_DEADLINE_NEVER), 0);
		/* The second may have been pushed after the loss: it has the error all the same. */
		expect_status(finished, (int[]){ -EIO, -EIO }, 2);
		put_all(finished, 2);
		rig_fini(&rig);
		assert_int_equal(w[1].runs, 0);
		assert_int_equal(w[0].released + w[1].released, 2);
	}
}

static void a_loss_does_not_wait_for_a_run_hook(void **state)
{
	struct work w[2] = { { .during = block } };
	struct lf_fence *finished[2];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_THREAD, (struct lf_queue_desc){ 0 });
	push_all(&rig, w, finished, 2, (struct lf_job_desc){ 0 });
	flag_wait(&rig.entered);
	lf_queue_lose(rig.q, -ENODEV);
	expect_status(finished, (int[]){ -ENODEV, -ENODEV }, 2);
	flag_set(&rig.leave);
	put_all(finished, 2);
	rig_fini(&rig);
	assert_int_equal(w[1].runs, 0);
}

static void a_loss_needs_an_error(void **state)
{
	struct work w = { 0 };
	struct lf_fence *finished;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	finished = push(make(&rig, &w, 0));
	lf_queue_lose(rig.q, 0);
	expect_misuse(1);
	assert_int_equal(lf_fence_status(finished), -EINVAL);
	lf_fence_put(finished);
	rig_fini(&rig);
}

/* --- Close --------------------------------------------------------------------------------------------------------------- */

static void a_close_cancels_what_does_not_run(void **state)
{
	struct work w[3] = { 0 };
	struct lf_fence *in, *finished[3];
	struct lf_job *job, *late;
	struct rig rig;

	for (enum lf_queue_mode mode = LF_QUEUE_THREAD; mode <= LF_QUEUE_VIRTUAL; mode++) {
		memset(w, 0, sizeof(w));
		rig_init(&rig, mode, (struct lf_queue_desc){ 0 });
		assert_int_equal(lf_fence_create(&in), 0);
		job = make(&rig, &w[0], 0);
		assert_int_equal(lf_job_add_dependency(job, in), 0);
		assert_int_equal(lf_job_push(job, &finished[0]), 0);
		finished[1] = push(make(&rig, &w[1], 1));
		late = make(&rig, &w[2], 2);
		assert_int_equal(lf_queue_close(rig.q, LF_DEADLINE_NEVER), 0);
		expect_status(finished, (int[]){ -ECANCELED, -ECANCELED }, 2);
		assert_int_equal(lf_fence_status(lf_job_scheduled(job)), -ECANCELED);
		assert_int_equal(lf_job_push(late, NULL), -ESHUTDOWN);
		assert_int_equal(lf_job_push(late, NULL), -ESHUTDOWN); /* it is as it was */
		assert_int_equal(lf_job_add_dependency(late, in), 0);
		lf_job_put(late);
		lf_fence_signal(in, 0);
		lf_job_put(job);
		lf_fence_put(in);
		put_all(finished, 2);
		assert_int_equal(lf_queue_close(rig.q, LF_DEADLINE_NEVER), 0);
		rig_fini(&rig);
		assert_int_equal(w[0].runs + w[1].runs, 0);
		assert_int_equal(w[0].released + w[1].released + w[2].released, 3);
	}
}

static void a_close_lets_the_running_job_have_its_result(void **state)
{
	struct work w[3] = { { .result = -EIO } };
	struct lf_fence *finished[3];
	struct rig rig;

	for (enum lf_queue_mode mode = LF_QUEUE_MANUAL; mode <= LF_QUEUE_VIRTUAL; mode++) {
		rig_init(&rig, mode, (struct lf_queue_desc){ 0 });
		push_all(&rig, w, finished, 3, (struct lf_job_desc){ .duration = 10 });
		if (mode == LF_QUEUE_MANUAL)
			expect_steps(rig.q, RUN);
		else
			assert_int_equal(lf_vclock_run(rig.clock, 0), 1);
		assert_int_equal(lf_queue_close(rig.q, 0), 0);
		expect_status(finished, (int[]){ -EIO, -ECANCELED, -ECANCELED }, 3);
		put_all(finished, 3);
		rig_fini(&rig);
	}
}

static void a_close_finds_a_lost_interrupt(void **state)
{
	struct work w[2] = { 0 };
	struct lf_fence *finished[2];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ .faults = { .exact = true, .lost_interrupt_one_in = 1 } });
	push_all(&rig, w, finished, 2, (struct lf_job_desc){ 0 });
	expect_steps(rig.q, RUN, COMPLETE, RUN);
	assert_int_equal(lf_queue_close(rig.q, 0), 0);
	expect_status(finished, (int[]){ 1, 1 }, 2);
	put_all(finished, 2);
	rig_fini(&rig);
}

static void a_close_fails_a_hung_job_at_once(void **state)
{
	struct rig rig;

	for (enum lf_queue_mode mode = LF_QUEUE_THREAD; mode <= LF_QUEUE_VIRTUAL; mode++) {
		struct work w[2] = { { .verdict = LF_RESET_RETRY } };
		struct lf_fence *finished[2];
		struct lf_job *job;

		rig_init(&rig, mode,
			(struct lf_queue_desc){ .timeout = LF_DEADLINE_NEVER, .faults = { .exact = true, .hang_one_in = 1 } });
		job = make(&rig, &w[0], 0);
		assert_int_equal(lf_job_push(job, &finished[0]), 0);
		finished[1] = push(make(&rig, &w[1], 1));
		if (mode == LF_QUEUE_MANUAL)
			expect_steps(rig.q, RUN, IDLE);
		else if (mode == LF_QUEUE_VIRTUAL)
			assert_int_equal(lf_vclock_run(rig.clock, LF_DEADLINE_NEVER), 1);
		assert_int_equal(lf_fence_wait(lf_job_scheduled(job), LF_DEADLINE_NEVER), 0);
		assert_int_equal(lf_queue_close(rig.q, LF_DEADLINE_NEVER), 0);
		expect_status(finished, (int[]){ -ETIME, -ECANCELED }, 2);
		assert_int_equal(w[0].asked, 0);
		lf_job_put(job);
		put_all(finished, 2);
		rig_fini(&rig);
	}
}

static void a_close_gives_up_at_its_deadline_and_can_be_repeated(void **state)
{
	struct work w[2] = { { .during = block } };
	struct lf_fence *finished[2];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_THREAD, (struct lf_queue_desc){ 0 });
	push_all(&rig, w, finished, 2, (struct lf_job_desc){ 0 });
	flag_wait(&rig.entered);
	assert_int_equal(lf_queue_close(rig.q, 0), -ETIME);
	assert_int_equal(lf_queue_close(rig.q, lf_now() + MS), -ETIME);
	assert_int_equal(lf_fence_status(finished[0]), 0);
	flag_set(&rig.leave);
	assert_int_equal(lf_queue_close(rig.q, LF_DEADLINE_NEVER), 0);
	expect_status(finished, (int[]){ 1, -ECANCELED }, 2);
	put_all(finished, 2);
	rig_fini(&rig);
}

static void *close_it(void *q)
{
	return (void *)(intptr_t)lf_queue_close(q, LF_DEADLINE_NEVER);
}

static void two_threads_may_close_at_once(void **state)
{
	struct work w = { .during = block };
	struct lf_fence *finished;
	pthread_t closer[2];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_THREAD, (struct lf_queue_desc){ 0 });
	finished = push(make(&rig, &w, 0));
	flag_wait(&rig.entered);
	for (int i = 0; i < 2; i++)
		closer[i] = thread_start(close_it, rig.q, 0);
	flag_set(&rig.leave);
	for (int i = 0; i < 2; i++)
		assert_null(thread_join(closer[i]));
	assert_int_equal(lf_fence_status(finished), 1);
	lf_fence_put(finished);
	rig_fini(&rig);
}

static void close_in_callback(struct lf_fence *f, struct lf_fence_cb *cb)
{
	said[0] = lf_queue_close(other, 0);
}

static void a_close_from_a_callback_is_refused(void **state)
{
	struct lf_fence_cb cb = LF_FENCE_CB_INIT;
	struct work w = { 0 };
	struct lf_fence *finished;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	other = rig.q;
	finished = push(make(&rig, &w, 0));
	assert_int_equal(lf_fence_add_callback(finished, &cb, close_in_callback), 0);
	step_to_end(rig.q);
	assert_int_equal(said[0], -EDEADLK);
	expect_misuse(1);
	lf_fence_put(finished);
	rig_fini(&rig);
}

static void close_when_queued(struct rig *rig, const struct lf_queue_event *event)
{
	if (event->kind == LF_QUEUE_JOB_QUEUE)
		said[0] = lf_queue_close(rig->q, 0);
}

static void a_close_from_the_observer_is_refused(void **state)
{
	struct work w = { 0 };
	struct lf_fence *finished;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	rig.during = close_when_queued;
	finished = push(make(&rig, &w, 0));
	assert_int_equal(said[0], -EDEADLK);
	expect_misuse(1);
	step_to_end(rig.q);
	assert_int_equal(lf_fence_status(finished), 1);
	lf_fence_put(finished);
	rig_fini(&rig);
}

/* --- Puts ---------------------------------------------------------------------------------------------------------------- */

static void a_manual_queue_that_nobody_can_step_is_closed(void **state)
{
	struct work w[2] = { 0 };
	struct lf_fence *finished[2];
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	push_all(&rig, w, finished, 2, (struct lf_job_desc){ 0 });
	expect_steps(rig.q, RUN);
	assert_ptr_equal(lf_queue_get(rig.q), rig.q);
	lf_queue_put(rig.q);
	expect_status(finished, (int[]){ 0, 0 }, 2);
	lf_queue_put(rig.q);
	expect_status(finished, (int[]){ 1, -ECANCELED }, 2);
	assert_int_equal(w[0].released, 1);
	assert_int_equal(w[1].released, 1);
	put_all(finished, 2);
	rig_free(&rig);
}

static void what_was_pushed_finishes_although_the_queue_was_put(void **state)
{
	struct work w[3] = { { .during = block } };
	struct lf_fence *in, *finished[3];
	struct lf_job *job;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_THREAD, (struct lf_queue_desc){ 0 });
	assert_int_equal(lf_fence_create(&in), 0);
	push_all(&rig, w, finished, 2, (struct lf_job_desc){ 0 });
	job = make(&rig, &w[2], 2);
	assert_int_equal(lf_job_add_dependency(job, in), 0);
	finished[2] = push(job);
	flag_wait(&rig.entered);
	lf_queue_put(rig.q);
	flag_set(&rig.leave);
	assert_int_equal(lf_fence_wait(finished[1], LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_fence_status(finished[2]), 0);
	lf_fence_signal(in, 0);
	assert_int_equal(lf_fence_wait(finished[2], LF_DEADLINE_NEVER), 0);
	expect_status(finished, (int[]){ 1, 1, 1 }, 3);
	lf_fence_put(in);
	put_all(finished, 3);
	rig_gone(&rig);
}

static void put_the_queue(struct work *w, struct lf_job *job)
{
	lf_queue_put(w->rig->q);
}

static void a_queue_can_be_put_from_its_run_hook(void **state)
{
	struct rig rig;

	for (enum lf_queue_mode mode = LF_QUEUE_THREAD; mode <= LF_QUEUE_VIRTUAL; mode++) {
		struct work w[2] = { { .during = put_the_queue } };
		struct lf_fence *in, *finished[2];
		struct lf_job *job[2];

		rig_init(&rig, mode, (struct lf_queue_desc){ 0 });
		assert_int_equal(lf_fence_create(&in), 0);
		for (int i = 0; i < 2; i++) {
			job[i] = make(&rig, &w[i], i);
			assert_int_equal(lf_job_add_dependency(job[i], in), 0);
			finished[i] = push(job[i]);
		}
		lf_fence_signal(in, 0);
		if (mode == LF_QUEUE_MANUAL)
			expect_steps(rig.q, RUN); /* the rest is done in this step, since none can follow */
		else if (mode == LF_QUEUE_VIRTUAL)
			lf_vclock_run(rig.clock, LF_DEADLINE_NEVER);
		assert_int_equal(lf_fence_wait(finished[1], LF_DEADLINE_NEVER), 0);
		expect_status(finished, (int[]){ 1, mode == LF_QUEUE_MANUAL ? -ECANCELED : 1 }, 2);
		lf_fence_put(in);
		put_all(finished, 2);
		lf_vclock_put(rig.clock);
		rig_gone(&rig);
		assert_int_equal(w[0].released + w[1].released, 2);
	}
}

struct putter {
	struct lf_fence_cb cb;
	struct lf_queue *q;
	struct lf_job *job;
	struct lf_fence *f;
};

static void put_everything(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct putter *p = (struct putter *)cb;

	lf_queue_put(p->q);
	lf_job_put(p->job);
	lf_fence_put(p->f);
}

static void the_last_puts_can_be_inside_a_callback_of_the_finished_fence(void **state)
{
	struct rig rig;

	for (enum lf_queue_mode mode = LF_QUEUE_THREAD; mode <= LF_QUEUE_VIRTUAL; mode++) {
		struct work w = { 0 };
		struct lf_fence *in;
		struct putter p = { 0 };

		rig_init(&rig, mode, (struct lf_queue_desc){ 0 });
		assert_int_equal(lf_fence_create(&in), 0);
		p.q = rig.q;
		p.job = make(&rig, &w, 0);
		assert_int_equal(lf_job_add_dependency(p.job, in), 0);
		assert_int_equal(lf_job_push(p.job, &p.f), 0);
		assert_int_equal(lf_fence_add_callback(p.f, &p.cb, put_everything), 0);
		if (mode == LF_QUEUE_THREAD) {
			struct lf_fence *f = lf_fence_get(p.f);

			lf_fence_signal(in, 0);
			assert_int_equal(lf_fence_wait_drained(f, LF_DEADLINE_NEVER), 0);
			lf_fence_put(f);
		} else {
			lf_fence_signal(in, 0);
			if (mode == LF_QUEUE_MANUAL)
				expect_steps(rig.q, RUN, COMPLETE);
			else
				lf_vclock_run(rig.clock, LF_DEADLINE_NEVER);
		}
		lf_fence_put(in);
		lf_vclock_put(rig.clock);
		rig_gone(&rig);
		assert_int_equal(w.released, 1);
	}
}

struct link {
	struct lf_job *next;
};

static void put_next(void *data)
{
	struct link *link = data;

	lf_job_put(link->next);
	free(link);
}

static void *put_the_first(void *job)
{
	lf_job_put(job);
	return NULL;
}

static void jobs_that_hang_on_each_other_die_on_a_small_stack(void **state)
{
	struct lf_job *first = NULL;
	struct rig rig;

	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	for (int i = 0; i < 20000; i++) {
		struct link *link = malloc(sizeof(*link));
		struct lf_job_desc desc = { .data = link, .release = put_next };

		link->next = first;
		assert_int_equal(lf_job_create(rig.q, &desc, &first), 0);
	}
	thread_run(put_the_first, first, 64 * 1024);
	rig_fini(&rig);
}

/* --- Provider ------------------------------------------------------------------------------------------------------------ */

static void closing_the_provider_loses_the_engine_and_ends_all_hooks(void **state)
{
	struct lf_provider *p;
	struct rig rig;

	for (enum lf_queue_mode mode = LF_QUEUE_THREAD; mode <= LF_QUEUE_VIRTUAL; mode++) {
		struct work w[4] = { 0 };
		struct lf_fence *in, *finished[3];
		struct lf_job *job[4], *none = NULL;
		size_t events;

		assert_int_equal(lf_provider_create("driver", &p), 0);
		rig_init(&rig, mode, (struct lf_queue_desc){ .provider = p });
		assert_int_equal(lf_fence_create(&in), 0);
		for (int i = 0; i < 3; i++) {
			job[i] = make(&rig, &w[i], i);
			assert_int_equal(lf_job_add_dependency(job[i], in), 0);
			assert_int_equal(lf_job_push(job[i], &finished[i]), 0);
		}
		job[3] = make(&rig, &w[3], 3);
		lf_job_put(job[0]);
		assert_int_equal(lf_provider_close(p, LF_DEADLINE_NEVER), 0);
		expect_status(finished, (int[]){ -ENODEV, -ENODEV, -ENODEV }, 3);
		/* The release hooks are the driver's code, so they have run although two of the jobs live on. */
		for (int i = 0; i < 4; i++)
			assert_int_equal(w[i].released, 1);
		events = rig.count;
		assert_int_equal(lf_job_push(job[3], NULL), -ESHUTDOWN);
		assert_int_equal(lf_job_create(rig.q, &(struct lf_job_desc){ 0 }, &none), -ESHUTDOWN);
		for (int i = 1; i < 4; i++)
			lf_job_put(job[i]);
		lf_fence_signal(in, 0);
		lf_fence_put(in);
		put_all(finished, 3);
		lf_provider_put(p);
		rig_fini(&rig);
		assert_int_equal(rig.count, events);
		for (int i = 0; i < 4; i++)
			assert_int_equal(w[i].released, 1);
	}
}

static void closing_the_provider_waits_for_a_hook(void **state)
{
	struct work w = { .during = block };
	struct lf_fence *finished;
	struct lf_provider *p;
	struct rig rig;

	assert_int_equal(lf_provider_create("driver", &p), 0);
	rig_init(&rig, LF_QUEUE_THREAD, (struct lf_queue_desc){ .provider = p });
	finished = push(make(&rig, &w, 0));
	flag_wait(&rig.entered);
	assert_int_equal(lf_provider_close(p, 0), -ETIME);
	assert_int_equal(lf_fence_status(finished), -ENODEV);
	assert_int_equal(w.released, 0);
	flag_set(&rig.leave);
	assert_int_equal(lf_provider_close(p, LF_DEADLINE_NEVER), 0);
	assert_int_equal(w.released, 1);
	lf_fence_put(finished);
	lf_provider_put(p);
	rig_fini(&rig);
	assert_int_equal(lf_provider_create("driver", &p), 0);
	assert_int_equal(lf_provider_close(p, 0), 0);
	assert_int_equal(rig_create(&rig, LF_QUEUE_THREAD, (struct lf_queue_desc){ .provider = p }), -ESHUTDOWN);
	lf_provider_put(p);
	rig_free(&rig);
}

static void blocking_release(void *data)
{
	struct work *w = data;

	flag_set(&w->rig->entered);
	flag_wait(&w->rig->leave);
	w->released++;
}

static void closing_the_provider_waits_for_a_release_hook(void **state)
{
	struct work w = { 0 };
	const struct lf_job_desc desc = { .data = &w, .release = blocking_release };
	struct lf_provider *p;
	struct lf_job *job;
	pthread_t putter;
	struct rig rig;

	assert_int_equal(lf_provider_create("driver", &p), 0);
	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ .provider = p });
	w.rig = &rig;
	assert_int_equal(lf_job_create(rig.q, &desc, &job), 0);
	putter = thread_start(put_the_first, job, 0);
	flag_wait(&rig.entered);
	assert_int_equal(lf_provider_close(p, 0), -ETIME);
	flag_set(&rig.leave);
	assert_int_equal(lf_provider_close(p, LF_DEADLINE_NEVER), 0);
	assert_int_equal(w.released, 1);
	thread_join(putter);
	lf_provider_put(p);
	rig_fini(&rig);
}

static void a_provider_can_be_closed_after_its_queue(void **state)
{
	struct work w = { 0 };
	struct lf_provider *p;
	struct rig rig;

	assert_int_equal(lf_provider_create("driver", &p), 0);
	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ .provider = p });
	lf_fence_put(push(make(&rig, &w, 0)));
	rig_fini(&rig);
	assert_int_equal(lf_provider_close(p, 0), 0);
	lf_provider_put(p);
}

/* --- Memory -------------------------------------------------------------------------------------------------------------- */

static int build_and_run(void *arg)
{
	enum lf_queue_mode mode = *(enum lf_queue_mode *)arg;
	struct work w[2] = { 0 };
	struct lf_fence *in[6] = { 0 }, *finished = NULL;
	struct lf_job *job = NULL;
	struct rig rig;
	int ret = rig_create(&rig, mode, (struct lf_queue_desc){ 0 });

	if (ret)
		goto free_rig;
	for (int i = 0; i < 6 && ret == 0; i++)
		ret = lf_fence_create(&in[i]);
	for (int i = 0; i < 20 && ret == 0; i++) { /* more than the timelines' first rings hold */
		struct lf_job_desc desc = { .data = &w[0], .release = rig_release };

		w[0].rig = &rig;
		ret = lf_job_create(rig.q, &desc, &job);
		for (int k = 0; k < 6 && ret == 0; k++)
			ret = lf_job_add_dependency(job, in[k]);
		if (ret == 0)
			ret = lf_job_push(job, i == 19 ? &finished : NULL);
		if (ret == -ENOMEM && job && lf_job_push(job, NULL) == 0) { /* as it was: it can be tried again */
			must(lf_fence_seqno(lf_job_scheduled(job)) == lf_fence_seqno(lf_job_finished(job)));
			must(lf_fence_status(lf_job_scheduled(job)) >= 0);
		}
		lf_job_put(job);
		job = NULL;
	}
	for (int i = 0; i < 6; i++) {
		if (in[i])
			lf_fence_signal(in[i], 0);
		lf_fence_put(in[i]);
	}
	lf_queue_close(rig.q, LF_DEADLINE_NEVER);
	must(!finished || lf_fence_is_signaled(finished));
	lf_fence_put(finished);
	lf_queue_put(rig.q);
	lf_vclock_put(rig.clock);
free_rig:
	rig_free(&rig);
	if (mode == LF_QUEUE_THREAD)
		lf_reclaim_barrier();
	return ret;
}

static void every_allocation_can_fail(void **state)
{
	for (enum lf_queue_mode mode = LF_QUEUE_THREAD; mode <= LF_QUEUE_VIRTUAL; mode++) {
		long survived = alloc_fail_each(build_and_run, &mode);

		assert_true(survived > 40);
	}
}

static void running_and_completing_allocate_nothing(void **state)
{
	struct work w[20] = { { .verdict = LF_RESET_RETRY } };
	struct lf_fence *finished[20];
	struct rig rig;
	long calls;

	rig_init(&rig, LF_QUEUE_MANUAL,
		(struct lf_queue_desc){ .faults = { .exact = true, .hang_one_in = 7, .lost_interrupt_one_in = 3, .reorder_one_in = 2 } });
	push_all(&rig, w, finished, 20, (struct lf_job_desc){ 0 });
	calls = alloc_calls();
	for (int i = 0; i < 15; i++)
		lf_queue_step(rig.q);
	assert_int_equal(lf_queue_close(rig.q, 0), 0);
	assert_int_equal(alloc_calls(), calls);
	put_all(finished, 20);
	rig_fini(&rig);
}

static void what_is_missing_is_reported(void **state)
{
	struct lf_job *job = NULL;
	struct lf_fence *f = NULL;
	struct lf_queue *q;
	struct rig rig;

	(void)state;
	assert_int_equal(lf_vclock_create(NULL), -EINVAL);
	assert_int_equal(lf_vclock_run(NULL, 0), -EINVAL);
	assert_int_equal(lf_queue_create(NULL, &q), -EINVAL);
	assert_int_equal(lf_queue_close(NULL, 0), -EINVAL);
	lf_queue_lose(NULL, -EIO);
	assert_int_equal(lf_queue_step(NULL), -EINVAL);
	assert_int_equal(lf_job_create(NULL, NULL, &job), -EINVAL);
	assert_int_equal(lf_job_add_dependency(NULL, NULL), -EINVAL);
	assert_int_equal(lf_job_push(NULL, &f), -EINVAL);
	assert_int_equal(log_count(LF_LOG_MISUSE), 9);
	log_reset();
	rig_init(&rig, LF_QUEUE_MANUAL, (struct lf_queue_desc){ 0 });
	assert_int_equal(lf_job_create(rig.q, NULL, &job), -EINVAL);
	log_reset();
	rig_fini(&rig);
}

static void queue_and_job_that_were_forgotten_are_listed(void **state)
{
	struct lf_queue_desc desc = { .name = "forgotten", .mode = LF_QUEUE_MANUAL, .ops = &rig_ops };
	struct lf_queue *q;
	struct lf_job *job;

	(void)state;
	assert_int_equal(lf_fini(), 0);
	lf_track(LF_TRACK_OBJECTS);
	assert_int_equal(lf_queue_create(&desc, &q), 0);
	assert_int_equal(lf_job_create(q, &(struct lf_job_desc){ 0 }, &job), 0);
	assert_int_not_equal(lf_fini(), 0);
	assert_true(log_contains("queue") && log_contains("job") && log_contains("forgotten"));
	lf_track(0);
	lf_job_put(job);
	lf_queue_put(q);
	log_reset();
	fresh_library();
}

static void without_a_thread_a_threaded_queue_is_not_made(void **state)
{
	struct lf_queue_desc desc = { .name = "q", .mode = LF_QUEUE_THREAD, .ops = &rig_ops };
	pthread_attr_t attr, before;
	struct lf_queue *q = NULL;

	(void)state;
	/* No address space has room for such a stack. */
	assert_int_equal(pthread_getattr_default_np(&before), 0);
	assert_int_equal(pthread_getattr_default_np(&attr), 0);
	assert_int_equal(pthread_attr_setstacksize(&attr, SIZE_MAX - (SIZE_MAX >> 3)), 0);
	assert_int_equal(pthread_setattr_default_np(&attr), 0);
	assert_int_equal(lf_queue_create(&desc, &q), -EAGAIN);
	assert_int_equal(pthread_setattr_default_np(&before), 0);
	pthread_attr_destroy(&before);
	pthread_attr_destroy(&attr);
}

static const struct CMUnitTest queue_tests[] = {
	cmocka_unit_test(a_queue_that_is_put_without_a_close_ends_on_the_reclaimer), /* first, and without counting blocks */
	TEST(a_queue_of_each_mode_can_be_made_closed_and_put),
	TEST(a_job_of_each_mode_runs_and_finishes),
	TEST(destroyers_and_getters_take_NULL),
	TEST(each_step_does_one_thing),
	TEST(fences_of_a_queue_have_its_name_and_rising_seqnos),
	TEST(the_result_of_the_run_hook_is_the_fences_result),
	TEST(events_come_in_order),
	TEST(a_step_where_it_may_not_be_is_refused),
	TEST(a_virtual_clock_moves_by_durations_only),
	TEST(at_the_same_time_the_queue_made_first_comes_first),
	TEST(a_clock_that_runs_cannot_be_run),
	TEST(the_last_put_of_a_clock_closes_its_queues),
	TEST(a_job_waits_for_all_its_dependencies_and_holds_up_what_is_behind),
	TEST(the_first_error_of_the_dependencies_is_told),
	TEST(of_an_ordered_timeline_only_the_latest_fence_counts),
	TEST(of_an_unordered_timeline_every_fence_counts),
	TEST(a_dependency_is_armed_by_the_push),
	TEST(a_blocking_callback_does_not_hold_up_a_dependency_added_after_it),
	TEST(queues_depend_on_each_other),
	TEST(a_job_that_is_never_pushed_is_released),
	TEST(a_job_is_pushed_once),
	TEST(a_queue_wants_a_sound_description),
	TEST(the_ring_holds_no_more_credits_than_it_has),
	TEST(credits_come_back_however_a_job_ends),
	TEST(a_hang_ends_with_the_timeout),
	TEST(a_retried_job_runs_again_and_stays_scheduled),
	TEST(without_a_reset_hook_the_guilty_one_fails_and_the_others_run_again),
	TEST(a_job_failed_by_a_reset_waits_for_those_before_it),
	TEST(a_lost_interrupt_is_healed_by_the_next_and_each_keeps_its_result),
	TEST(a_late_interrupt_comes_late_unless_another_is_earlier),
	TEST(a_late_interrupt_behind_the_timeout_is_no_reset),
	TEST(a_reordered_interrupt_comes_behind_the_next),
	TEST(a_reordered_interrupt_comes_although_the_next_is_lost),
	TEST(the_engine_is_lost_at_its_nth_run),
	TEST(a_hang_in_a_thread_sleeps_until_the_timeout),
	TEST(a_lost_interrupt_in_a_thread_is_found_by_the_timeout),
	TEST(the_same_seed_gives_the_same_events),
	TEST(a_loss_completes_everything_and_is_sticky),
	TEST(a_loss_from_inside_the_run_hook),
	TEST(a_loss_does_not_wait_for_a_run_hook),
	TEST(a_loss_needs_an_error),
	TEST(a_close_cancels_what_does_not_run),
	TEST(a_close_lets_the_running_job_have_its_result),
	TEST(a_close_finds_a_lost_interrupt),
	TEST(a_close_fails_a_hung_job_at_once),
	TEST(a_close_gives_up_at_its_deadline_and_can_be_repeated),
	TEST(two_threads_may_close_at_once),
	TEST(a_close_from_a_callback_is_refused),
	TEST(a_close_from_the_observer_is_refused),
	TEST(a_manual_queue_that_nobody_can_step_is_closed),
	TEST(what_was_pushed_finishes_although_the_queue_was_put),
	TEST(a_queue_can_be_put_from_its_run_hook),
	TEST(the_last_puts_can_be_inside_a_callback_of_the_finished_fence),
	TEST(jobs_that_hang_on_each_other_die_on_a_small_stack),
	TEST(closing_the_provider_loses_the_engine_and_ends_all_hooks),
	TEST(closing_the_provider_waits_for_a_hook),
	TEST(closing_the_provider_waits_for_a_release_hook),
	TEST(a_provider_can_be_closed_after_its_queue),
	TEST(every_allocation_can_fail),
	TEST(running_and_completing_allocate_nothing),
	TEST(what_is_missing_is_reported),
	TEST_FRESH(queue_and_job_that_were_forgotten_are_listed),
	TEST(without_a_thread_a_threaded_queue_is_not_made),
};

int main(void)
{
	return TEST_MAIN(queue_tests);
}
