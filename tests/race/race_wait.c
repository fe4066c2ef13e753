/* SPDX-License-Identifier: MIT */
/*
 * Threads wait for any, for all and for some of a set of fences while others signal those, one by one and in changing order.
 *
 * Oracle:
 * - a wait without a deadline returns: a lost wake hangs, and the watchdog says so;
 * - what was written before a signal is seen by a wait that ended with it, without another look at the fence;
 * - a wait that returned 0 finds at least as many fences signaled as it needed, and its index names a signaled one;
 * - a wait that returned -ETIME does so no earlier than its deadline;
 * - a wait for the end of callbacks that returned 0 finds the fence drained, and what its callback wrote;
 * - when a wait has returned it has let go of its nodes: the slots are overwritten at once, and all fences are put, the pending ones too.
 *
 * Counted are the waits that were satisfied at once (misses), those that had to wait (hits), and those that their deadline ended. Healthy
 * output has many of each.
 */
#include "testing.h"

#include <sched.h>
#include <stdatomic.h>

enum { WAITERS = 3, SIGNALLERS = 2, FENCES = 6 };

struct written {
	struct lf_fence_cb cb;
	int value; /* by the callback, not atomically: a wait for drained must order it */
};

static struct {
	long rounds;
	uint64_t seed;
	struct gate gate;
	struct lf_timeline *timeline; /* of the odd fences; unordered, so that they can be signaled in any order */
	struct lf_fence *fences[FENCES];
	struct written callbacks[FENCES];
	int payload[FENCES]; /* written before the signal, not atomically: the wait must order it */
	bool rest_pending; /* the last fence is never signaled in this round */
	atomic_long at_once, waited, late, drained_waited;
} shared;

static void write_down(struct lf_fence *f, struct lf_fence_cb *cb)
{
	((struct written *)(void *)cb)->value = 4711;
}

static size_t count_signaled(void)
{
	size_t n = 0;
	for (int i = 0; i < FENCES; i++)
		n += lf_fence_is_signaled(shared.fences[i]);
	return n;
}

static void wait_for_some(uint64_t *random)
{
	struct lf_wait_slot slots[FENCES];
	size_t can_be = shared.rest_pending ? FENCES - 1 : FENCES;
	size_t need = 1 + (size_t)(random_next(random) % can_be);
	size_t first = SIZE_MAX;
	bool timed = random_next(random) % 2 == 0;
	struct lf_wait_many wait = {
		.fences = shared.fences, .slots = slots, .count = FENCES, .need = need, .deadline = LF_DEADLINE_NEVER
	};
	if (timed)
		wait.deadline = lf_now() + (int64_t)(random_next(random) % 5000);
	bool satisfied = count_signaled() >= need;
	int result = lf_fence_wait_many(&wait, &first);
	memset(slots, 0xa5, sizeof(slots));
	if (result == -ETIME) {
		must(timed);
		must(lf_now() >= wait.deadline);
		must(first == SIZE_MAX);
		atomic_fetch_add(&shared.late, 1);
		return;
	}
	must(result == 0);
	must(first < FENCES);
	must(shared.payload[first] == 1234);
	must(count_signaled() >= need);
	must(lf_fence_is_signaled(shared.fences[first]));
	atomic_fetch_add(satisfied ? &shared.at_once : &shared.waited, 1);
}

static void wait_for_one(uint64_t *random)
{
	size_t i = (size_t)(random_next(random) % (FENCES - 1));
	bool satisfied = lf_fence_is_signaled(shared.fences[i]);
	must(lf_fence_wait(shared.fences[i], LF_DEADLINE_NEVER) == 0);
	must(shared.payload[i] == 1234);
	must(lf_fence_is_signaled(shared.fences[i]));
	atomic_fetch_add(satisfied ? &shared.at_once : &shared.waited, 1);
}

static void wait_for_callbacks(uint64_t *random)
{
	size_t i = (size_t)(random_next(random) % (FENCES - 1));
	bool satisfied = lf_fence_is_drained(shared.fences[i]);
	must(lf_fence_wait_drained(shared.fences[i], LF_DEADLINE_NEVER) == 0);
	must(lf_fence_is_drained(shared.fences[i]));
	must(shared.callbacks[i].value == 4711);
	atomic_fetch_add(satisfied ? &shared.at_once : &shared.drained_waited, 1);
}

static void *waiter(void *arg)
{
	uint64_t random = shared.seed + (uint64_t)*(int *)arg + 1;
	for (long i = 0; i < shared.rounds; i++) {
		gate_wait(&shared.gate);
		for (int n = 0; n < 3; n++) {
			switch (random_next(&random) % 4) {
			case 0:
				wait_for_one(&random);
				break;
			case 1:
				wait_for_callbacks(&random);
				break;
			default:
				wait_for_some(&random);
				break;
			}
		}
		gate_wait(&shared.gate);
	}
	return NULL;
}

static void signal_fence(size_t i)
{
	shared.payload[i] = 1234;
	if (i % 2)
		must(lf_timeline_signal_one(shared.timeline, shared.fences[i], -EIO));
	else
		must(lf_fence_signal(shared.fences[i], 0));
}

/* Signals every second fence, beginning anywhere. */
static void *signaller(void *arg)
{
	size_t me = (size_t)*(int *)arg;
	uint64_t random = shared.seed + me + 100;
	for (long i = 0; i < shared.rounds; i++) {
		gate_wait(&shared.gate);
		size_t start = (size_t)(random_next(&random) % FENCES);
		for (size_t n = 0; n < FENCES; n++) {
			size_t f = (start + n) % FENCES;
			if (f / 2 % SIGNALLERS != me || (shared.rest_pending && f == FENCES - 1))
				continue;
			for (uint64_t pauses = random_next(&random) % 4; pauses > 0; pauses--)
				sched_yield();
			signal_fence(f);
		}
		gate_wait(&shared.gate);
	}
	return NULL;
}

static void prepare(uint64_t *random)
{
	shared.rest_pending = random_next(random) % 2 == 0;
	for (int i = 0; i < FENCES; i++) {
		shared.payload[i] = 0;
		shared.callbacks[i] = (struct written){ .cb = LF_FENCE_CB_INIT };
		if (i % 2)
			must(lf_timeline_emit(shared.timeline, 0, &shared.fences[i]) == 0);
		else
			must(lf_fence_create(&shared.fences[i]) == 0);
		must(lf_fence_add_callback(shared.fences[i], &shared.callbacks[i].cb, write_down) == 0);
	}
}

static void judge(void)
{
	/* a node of a waiter that was left on the pending one would be called now, in overwritten storage */
	if (shared.rest_pending)
		signal_fence(FENCES - 1);
	for (int i = 0; i < FENCES; i++) {
		must(lf_fence_is_drained(shared.fences[i]));
		must(shared.callbacks[i].value == 4711);
		lf_fence_put(shared.fences[i]);
	}
}

static void no_wake_is_lost(void **state)
{
	const struct lf_timeline_desc desc = { .name = "race", .flags = LF_TIMELINE_UNORDERED };
	pthread_t threads[WAITERS + SIGNALLERS];
	int numbers[WAITERS + SIGNALLERS];
	shared.seed = test_seed();
	shared.rounds = test_rounds(12000);
	uint64_t random = shared.seed;
	must(lf_timeline_create(&desc, &shared.timeline) == 0);
	gate_init(&shared.gate, WAITERS + SIGNALLERS + 1);
	test_watchdog(100, "race_wait: a lost wake");
	for (int t = 0; t < WAITERS + SIGNALLERS; t++) {
		numbers[t] = t < WAITERS ? t : t - WAITERS;
		threads[t] = thread_start(t < WAITERS ? waiter : signaller, &numbers[t], 0);
	}
	for (long i = 0; i < shared.rounds; i++) {
		prepare(&random);
		gate_wait(&shared.gate);
		gate_wait(&shared.gate);
		judge();
	}
	for (int t = 0; t < WAITERS + SIGNALLERS; t++)
		thread_join(threads[t]);
	test_watchdog(0, "");
	gate_fini(&shared.gate);
	lf_timeline_put(shared.timeline);
	long for_callbacks = atomic_load(&shared.drained_waited);
	test_note("race_wait: %ld rounds: waited %ld (for callbacks %ld), late %ld, satisfied at once %ld", shared.rounds,
		atomic_load(&shared.waited) + for_callbacks, for_callbacks, atomic_load(&shared.late), atomic_load(&shared.at_once));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(no_wake_is_lost),
	};
	return TEST_MAIN(tests);
}
