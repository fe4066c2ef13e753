/* SPDX-License-Identifier: MIT */
/*
 * A notice arms itself again whenever it fires, while writers keep adding fences and signaling them, and another thread cancels it.
 *
 * Oracle:
 * - each arming that succeeded ends in exactly one way: it fires once, or it is cancelled. So at the end the armings are as many as the
 *   fires and the effective cancels together;
 * - when it fires, what was pending before it was armed is signaled;
 * - after lf_notice_cancel_sync() has returned REMOVED or RAN the notice does not fire and its memory is the caller's, who overwrites it;
 * - an armed notice that nobody cancels fires, since writers signal all that they add: else the test hangs.
 * A hit is a cancel that came while the function ran or was about to (RUNNING). Healthy output has some of each result, and both
 * armings inside the function that succeeded and that found all signaled.
 */
#include "testing.h"

#include <sched.h>
#include <stdatomic.h>

enum { WRITERS = 2, WINDOW = 4 };

static struct {
	long rounds;
	uint64_t seed;
	struct lf_resv resv;
	struct lf_notice notice;
	atomic_int writing;
	_Atomic uint64_t added[WRITERS], ended[WRITERS]; /* fences that are in the list; whose signal has begun. Both in order. */
	uint64_t waits_for[WRITERS]; /* what was in the list before the notice was armed; the armer's, then the function's */
	atomic_long armed, fired, nothing;
	bool quiet; /* the notice must not fire now; not atomic, as the canceller and the function exclude each other */
	long removed, ran, running, waited;
} shared;

/* --- The notice ------------------------------------------------------------------------------------------------------------- */

static void fire(struct lf_notice *notice);

/* Either thread's, but never at once: the canceller's when it is not armed, else the function's. Returns whether it is armed. */
static bool arm(void)
{
	for (int w = 0; w < WRITERS; w++)
		shared.waits_for[w] = atomic_load(&shared.added[w]);
	/* counted before, since it may fire before arming returns */
	atomic_fetch_add(&shared.armed, 1);
	if (lf_notice_arm(&shared.notice, &shared.resv, LF_USAGE_READ, fire) == 0)
		return true;
	atomic_fetch_sub(&shared.armed, 1);
	return false;
}

static void fire(struct lf_notice *notice)
{
	must(notice == &shared.notice);
	must(!shared.quiet);
	for (int w = 0; w < WRITERS; w++)
		must(atomic_load(&shared.ended[w]) >= shared.waits_for[w]);
	if (atomic_fetch_add(&shared.fired, 1) % 2 == 0)
		sched_yield(); /* or nobody would ever meet it running */
	if (!arm())
		atomic_fetch_add(&shared.nothing, 1);
}

/* --- The canceller ------------------------------------------------------------------------------------------------------------ */

/* Cancels an armed notice, or one whose function did not arm it again. */
static void cancel(bool sync)
{
	int result = LF_CB_RUNNING;
	if (!sync)
		result = lf_notice_cancel(&shared.notice);
	if (result == LF_CB_RUNNING) {
		shared.running += !sync;
		result = lf_notice_cancel_sync(&shared.notice);
	}
	must(result == LF_CB_REMOVED || result == LF_CB_RAN);
	if (result == LF_CB_REMOVED)
		shared.removed++;
	else
		shared.ran++;
}

/* The notice is not armed: nobody may touch it. */
static void overwrite(void)
{
	long fired = atomic_load(&shared.fired);
	shared.quiet = true;
	lf_notice_fini(&shared.notice);
	memset(&shared.notice, 0xdd, sizeof(shared.notice));
	sched_yield();
	must(atomic_load(&shared.fired) == fired);
	lf_notice_init(&shared.notice);
	shared.quiet = false;
}

/* Waits until the notice has fired again, or need not. */
static void wait_for_fire(void)
{
	long fired = atomic_load(&shared.fired);
	while (atomic_load(&shared.fired) == fired && !lf_resv_test_signaled(&shared.resv, LF_USAGE_READ))
		sched_yield();
	shared.waited++;
}

static void *canceller(void *arg)
{
	uint64_t random = shared.seed + 77;
	while (atomic_load(&shared.writing) > 0) {
		if (!arm()) {
			sched_yield();
			continue;
		}
		for (uint64_t i = random_next(&random) % 4; i; i--)
			sched_yield();
		if (random_next(&random) % 8 == 0)
			wait_for_fire();
		cancel(random_next(&random) % 2);
		overwrite();
	}
	/* the writers have signaled everything: what is armed now fires */
	return NULL;
}

/* --- Writers ------------------------------------------------------------------------------------------------------------------- */

static struct lf_fence *add_one(void)
{
	struct lf_fence *f;
	must(lf_fence_create(&f) == 0);
	must(lf_resv_lock(&shared.resv, NULL) == 0);
	must(lf_resv_reserve(&shared.resv, 1) == 0);
	lf_resv_add(&shared.resv, f, LF_USAGE_READ);
	lf_resv_unlock(&shared.resv);
	return f;
}

static void end_one(int me, struct lf_fence *f)
{
	atomic_fetch_add(&shared.ended[me], 1);
	must(lf_fence_signal(f, 0));
	lf_fence_put(f);
}

static void *writer(void *arg)
{
	int me = *(int *)arg;
	uint64_t random = shared.seed + (uint64_t)me + 1000;
	struct lf_fence *window[WINDOW];
	uint64_t added = 0, ended = 0;
	for (long i = 0; i < shared.rounds; i++) {
		if (added - ended == WINDOW || (added != ended && random_next(&random) % 2)) {
			end_one(me, window[ended++ % WINDOW]);
		} else {
			window[added++ % WINDOW] = add_one();
			atomic_store(&shared.added[me], added);
		}
		if (random_next(&random) % 16 == 0)
			sched_yield();
	}
	while (ended != added)
		end_one(me, window[ended++ % WINDOW]);
	atomic_fetch_sub(&shared.writing, 1);
	return NULL;
}

static void each_arming_fires_once_or_is_cancelled(void **state)
{
	pthread_t threads[WRITERS + 1];
	int numbers[WRITERS];
	shared.seed = test_seed();
	shared.rounds = test_rounds(150000);
	test_watchdog(100, "race_notice: a notice that does not fire, or a cancel that does not return");
	lf_resv_init(&shared.resv, NULL);
	lf_notice_init(&shared.notice);
	atomic_store(&shared.writing, WRITERS);
	for (int w = 0; w < WRITERS; w++) {
		numbers[w] = w;
		threads[w] = thread_start(writer, &numbers[w], 0);
	}
	threads[WRITERS] = thread_start(canceller, NULL, 0);
	for (int t = 0; t <= WRITERS; t++)
		thread_join(threads[t]);
	must(lf_resv_test_signaled(&shared.resv, LF_USAGE_BOOKKEEP));
	must(lf_notice_cancel(&shared.notice) == LF_CB_REMOVED);
	lf_notice_fini(&shared.notice);
	lf_resv_fini(&shared.resv);
	test_watchdog(0, "");
	test_note("race_notice: %ld armings: %ld fired, %ld cancelled; the function found all signaled %ld times",
		atomic_load(&shared.armed), atomic_load(&shared.fired), shared.removed, atomic_load(&shared.nothing));
	test_note("race_notice: cancel while running or about to %ld; cancelled when it had run %ld; fires waited for %ld", shared.running,
		shared.ran, shared.waited);
	assert_int_equal(atomic_load(&shared.armed), atomic_load(&shared.fired) + shared.removed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_arming_fires_once_or_is_cancelled),
	};
	return TEST_MAIN(tests);
}
