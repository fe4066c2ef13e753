/* SPDX-License-Identifier: MIT */
/*
 * Locks that no other race test contends: two threads do the same thing at once, to objects of their own that share what the lock protects.
 *
 * Oracle: what is shared is sound at the end (a provider closes at once, since nothing of it is left; a clock runs and finds no queue; the
 * table of live objects is empty), and what one thread counts between two calls that exclude each other, none is lost of. Under
 * ThreadSanitizer a lock that was not taken is a data race. There is nothing to hit but the lock.
 */
#include "producer.h"

enum { THREADS = 2 };

static struct {
	long rounds;
	void (*round)(void);
	struct gate gate;
	struct lf_provider *provider;
	struct lf_vclock *clock;
	long forks; /* under the bracket of a fork */
} shared;

static void *play(void *unused)
{
	gate_wait(&shared.gate);
	for (long i = 0; i < shared.rounds; i++)
		shared.round();
	return NULL;
}

static void at_once(void (*round)(void), long rounds)
{
	pthread_t threads[THREADS];

	shared.round = round;
	shared.rounds = test_rounds(rounds);
	gate_init(&shared.gate, THREADS);
	for (int i = 0; i < THREADS; i++)
		threads[i] = thread_start(play, NULL, 0);
	for (int i = 0; i < THREADS; i++)
		thread_join(threads[i]);
	gate_fini(&shared.gate);
	test_note("race_locks: %ld rounds on %d threads", shared.rounds, THREADS);
}

/* --- Provider ------------------------------------------------------------------------------------------------------------------- */

static void make_and_put_timeline(void)
{
	const struct lf_timeline_desc desc = { .name = "locks", .provider = shared.provider };
	struct lf_timeline *tl;

	must(lf_timeline_create(&desc, &tl) == 0);
	lf_timeline_put(tl);
}

static void resources_enter_and_leave_a_provider(void **state)
{
	assert_int_equal(lf_provider_create("locks", &shared.provider), 0);
	at_once(make_and_put_timeline, 2000);
	assert_int_equal(lf_provider_close(shared.provider, 0), 0);
	lf_provider_put(shared.provider);
}

/* --- Clock ---------------------------------------------------------------------------------------------------------------------- */

static int on_run(struct lf_job *job, void *data)
{
	(void)job;
	(void)data;
	return 0;
}

static void make_and_put_queue(void)
{
	static const struct lf_queue_ops ops = { .run = on_run };
	const struct lf_queue_desc desc = { .name = "locks", .mode = LF_QUEUE_VIRTUAL, .clock = shared.clock, .ops = &ops };
	struct lf_queue *q;

	must(lf_queue_create(&desc, &q) == 0);
	lf_queue_put(q);
}

static void queues_enter_and_leave_a_clock(void **state)
{
	assert_int_equal(lf_vclock_create(&shared.clock), 0);
	at_once(make_and_put_queue, 1000);
	assert_true(lf_vclock_run(shared.clock, 1000) >= 0);
	lf_vclock_put(shared.clock);
}

/* --- Table of live objects ------------------------------------------------------------------------------------------------------ */

/* Enough at once that both threads are in the same part of the table now and then. */
static void make_and_put_fences(void)
{
	struct lf_fence *fences[1024];

	for (int i = 0; i < 1024; i++)
		must(lf_fence_create(&fences[i]) == 0);
	for (int i = 0; i < 1024; i++) {
		lf_fence_signal(fences[i], 0);
		lf_fence_put(fences[i]);
	}
}

/* With the allocator of the C library: that of the tests counts, which would order the two threads. */
static void objects_enter_and_leave_the_table_of_live_ones(void **state)
{
	assert_int_equal(lf_fini(), 0);
	assert_int_equal(lf_set_allocator(NULL), 0);
	assert_int_equal(lf_track(LF_TRACK_OBJECTS), 0);
	at_once(make_and_put_fences, 20);
	assert_int_equal(lf_fini(), 0); /* the table is empty */
	assert_int_equal(lf_track(0), 0);
	fresh_library();
}

/* --- Fork ----------------------------------------------------------------------------------------------------------------------- */

static void almost_fork(void)
{
	must(lf_before_fork() == 0);
	shared.forks++;
	lf_after_fork_parent();
}

static void forks_come_one_after_the_other(void **state)
{
	shared.forks = 0;
	at_once(almost_fork, 100);
	assert_int_equal(shared.forks, THREADS * shared.rounds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(resources_enter_and_leave_a_provider),
		TEST_WARM(queues_enter_and_leave_a_clock),
		TEST_WARM(forks_come_one_after_the_other),
		TEST_FRESH(objects_enter_and_leave_the_table_of_live_ones),
	};

	return TEST_MAIN(tests);
}
