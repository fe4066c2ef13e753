/* SPDX-License-Identifier: MIT */
/*
 * Several threads signal the same fence at the same time.
 *
 * Oracle, for each round:
 * - exactly one call returns true, and it is that thread's error and timestamp that the fence carries;
 * - whoever lost sees the fence signaled, with the winner's result, as soon as its own call has returned;
 * - every callback ran exactly once, on the winner's thread, with that result; and when the winner's call has returned, the fence is
 *   drained;
 * - a thread that only looks never sees a result change, nor a result without its timestamp.
 *
 * A round is hit when a losing call began before the winning one had returned: those are the ones that raced. Healthy output has hits in
 * thousands of rounds (a busy machine, and valgrind, which runs one thread at a time, have fewer), and each thread wins some.
 */
#include "testing.h"

#include <sched.h>
#include <stdatomic.h>

enum { THREADS = 3, CALLBACKS = 3, LOOKER = THREADS, BATCH = 64 };

struct seen {
	struct lf_fence_cb cb;
	int runs;
	int status;
	pthread_t thread;
};

struct round {
	struct lf_fence *f;
	atomic_int arrived; /* threads that have come to this fence */
	atomic_int events;
	struct seen callbacks[CALLBACKS];
	bool won[THREADS];
	int began[THREADS], ended[THREADS]; /* places in the order of events */
	int status_after[THREADS];
	pthread_t id[THREADS];
};

/* Threads meet at the gate once for many rounds: it lets them out one after the other, too late for most to race. */
static struct {
	long batches;
	struct gate gate;
	struct round rounds[BATCH];
} shared;

static int error_of(int thread)
{
	return -(thread + 1);
}

static int64_t timestamp_of(int thread)
{
	return 1000 + thread;
}

static void note(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct seen *seen = (struct seen *)(void *)cb;
	seen->runs++;
	seen->status = lf_fence_status(f);
	seen->thread = pthread_self();
}

/*
 * Waits until another thread has come to the fence too, but not for ever: it may not be running. Long for the first fence of a batch,
 * since the gate lets threads out one after the other; from there on they go side by side.
 */
static void meet(struct round *r, bool first)
{
	long limit = first ? 100000 : 5000;
	atomic_fetch_add(&r->arrived, 1);
	for (long i = 1; i < limit && atomic_load(&r->arrived) < 2; i++)
		if (i % 500 == 0)
			sched_yield();
}

static void signal_once(struct round *r, int me)
{
	r->id[me] = pthread_self();
	meet(r, r == shared.rounds);
	r->began[me] = atomic_fetch_add(&r->events, 1);
	r->won[me] = lf_fence_signal_at(r->f, error_of(me), timestamp_of(me));
	r->status_after[me] = lf_fence_status(r->f);
	r->ended[me] = atomic_fetch_add(&r->events, 1);
	if (r->won[me])
		must(lf_fence_is_drained(r->f));
}

static void *signaller(void *arg)
{
	for (long batch = 0; batch < shared.batches; batch++) {
		gate_wait(&shared.gate);
		for (int i = 0; i < BATCH; i++)
			signal_once(&shared.rounds[i], *(int *)arg);
		gate_wait(&shared.gate);
	}
	return NULL;
}

static void look_once(struct round *r)
{
	int first = 0;
	for (int n = 0; n < 1000 && first == 0; n++)
		first = lf_fence_status(r->f);
	if (first == 0)
		return;
	must(first < 0 && first >= -THREADS);
	must(lf_fence_is_signaled(r->f));
	must(lf_fence_timestamp(r->f) == timestamp_of(-first - 1));
	must(lf_fence_status(r->f) == first);
}

static void *looker(void *arg)
{
	for (long batch = 0; batch < shared.batches; batch++) {
		gate_wait(&shared.gate);
		for (int i = 0; i < BATCH; i++)
			look_once(&shared.rounds[i]);
		gate_wait(&shared.gate);
	}
	return NULL;
}

static void prepare(struct round *r)
{
	memset(r, 0, sizeof(*r));
	must(lf_fence_create(&r->f) == 0);
	for (int i = 0; i < CALLBACKS; i++)
		must(lf_fence_add_callback(r->f, &r->callbacks[i].cb, note) == 0);
}

/* Returns the winner. */
static int judge(struct round *r)
{
	int winner = -1;
	for (int t = 0; t < THREADS; t++) {
		if (!r->won[t])
			continue;
		must(winner == -1);
		winner = t;
	}
	must(winner != -1);
	must(lf_fence_status(r->f) == error_of(winner));
	must(lf_fence_timestamp(r->f) == timestamp_of(winner));
	must(lf_fence_is_drained(r->f));
	for (int t = 0; t < THREADS; t++)
		must(r->status_after[t] == error_of(winner));
	for (int i = 0; i < CALLBACKS; i++) {
		must(r->callbacks[i].runs == 1);
		must(r->callbacks[i].status == error_of(winner));
		must(pthread_equal(r->callbacks[i].thread, r->id[winner]));
	}
	return winner;
}

static bool was_hit(const struct round *r, int winner)
{
	bool hit = false;
	for (int t = 0; t < THREADS; t++)
		hit |= t != winner && r->began[t] < r->ended[winner];
	return hit;
}

static void one_of_many_signals_wins_and_the_result_is_its_own(void **state)
{
	long wins[THREADS] = { 0 }, hits = 0;
	int numbers[THREADS];
	pthread_t threads[THREADS + 1];
	shared.batches = test_rounds(4000);
	gate_init(&shared.gate, THREADS + 2);
	test_watchdog(100, "race_signal");
	for (int t = 0; t < THREADS; t++) {
		numbers[t] = t;
		threads[t] = thread_start(signaller, &numbers[t], 0);
	}
	threads[LOOKER] = thread_start(looker, NULL, 0);
	for (long batch = 0; batch < shared.batches; batch++) {
		for (int i = 0; i < BATCH; i++)
			prepare(&shared.rounds[i]);
		gate_wait(&shared.gate);
		gate_wait(&shared.gate);
		for (int i = 0; i < BATCH; i++) {
			int winner = judge(&shared.rounds[i]);
			hits += was_hit(&shared.rounds[i], winner);
			wins[winner]++;
			lf_fence_put(shared.rounds[i].f);
		}
	}
	for (int t = 0; t <= THREADS; t++)
		thread_join(threads[t]);
	test_watchdog(0, "");
	gate_fini(&shared.gate);
	test_note("race_signal: %ld rounds, %ld hits, %ld misses; won by thread 0/1/2: %ld/%ld/%ld", shared.batches * BATCH, hits,
		shared.batches * BATCH - hits, wins[0], wins[1], wins[2]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_of_many_signals_wins_and_the_result_is_its_own),
	};
	return TEST_MAIN(tests);
}
