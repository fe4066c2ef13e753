/* SPDX-License-Identifier: MIT */
/*
 * Threads add callbacks to a fence and take them back, their own and each other's, while another thread signals it and all of them put it.
 *
 * Oracle, for each node in each round:
 * - what was added (a return of 0) ran exactly once or was removed (LF_CB_REMOVED), never both, never neither;
 * - what was refused (-ENOENT) never runs, and after it the fence is seen signaled;
 * - after remove returned LF_CB_REMOVED or LF_CB_RAN, or cancel_sync anything, the function is not entered and not running: the node is
 *   closed and overwritten at that moment, and the function looks for that on entry and before it returns;
 * - after LF_CB_RAN, what the function wrote is visible;
 * - callbacks that ran on one fence ran in the order in which one thread added them;
 * - when the signal has returned, the fence is drained, and nothing runs any more.
 *
 * Each result of each call is counted. Healthy output has none at 0: a count of 0 means that the interleaving never happened.
 */
#include "testing.h"

#include <sched.h>
#include <stdatomic.h>

enum { ADDERS = 2, NODES = 12 };

/* What became of a node. */
enum fate { FATE_NONE, FATE_REFUSED, FATE_ADDED, FATE_REMOVED, FATE_RAN };

struct node {
	struct lf_fence_cb cb;
	struct round *round;
	int adder;
	int number;
	atomic_int runs; /* times the function was entered */
	atomic_int inside; /* the function is running */
	atomic_bool closed; /* its owner has it back */
	int written; /* by the function, not atomically: cancel_sync must order it */
	atomic_int fate;
};

struct round {
	struct lf_fence *f;
	struct node nodes[ADDERS][NODES];
	int last_run[ADDERS]; /* by the dispatching thread alone */
	atomic_int progress; /* nodes that their adders are through with */
	/* nodes that their adder gave away to the canceller, by the number of the node */
	atomic_bool offered[ADDERS][NODES];
};

static struct {
	long rounds;
	uint64_t seed;
	struct gate gate;
	struct round round;
	atomic_long refused, removed, ran, running, cancel_removed, cancel_ran, ran_unasked;
} shared;

static void run_node(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct node *node = (struct node *)(void *)cb;
	struct round *r = node->round;
	must(!atomic_load(&node->closed));
	atomic_store(&node->inside, 1);
	must(atomic_fetch_add(&node->runs, 1) == 0);
	must(lf_fence_status(f) == -ECANCELED);
	must(r->last_run[node->adder] < node->number);
	r->last_run[node->adder] = node->number;
	if (node->number % 3 == 0)
		sched_yield();
	node->written = 4711;
	must(!atomic_load(&node->closed));
	atomic_store(&node->inside, 0);
}

/* The owner has the node back: from here on a late call of its function is seen, and a late look at its storage finds rubbish. */
static void close_node(struct node *node, enum fate fate)
{
	must(atomic_load(&node->inside) == 0);
	must(atomic_load(&node->runs) == (fate == FATE_RAN ? 1 : 0));
	if (fate == FATE_RAN)
		must(node->written == 4711);
	atomic_store(&node->closed, true);
	memset(&node->cb, 0xa5, sizeof(node->cb));
	atomic_store(&node->fate, fate);
}

static void take_back(struct lf_fence *f, struct node *node)
{
	int result = lf_fence_remove_callback(f, &node->cb);
	if (result == LF_CB_RUNNING) {
		atomic_fetch_add(&shared.running, 1);
		result = lf_fence_cancel_callback_sync(f, &node->cb);
		must(result == LF_CB_RAN);
	}
	must(result == LF_CB_REMOVED || result == LF_CB_RAN);
	atomic_fetch_add(result == LF_CB_REMOVED ? &shared.removed : &shared.ran, 1);
	close_node(node, result == LF_CB_REMOVED ? FATE_REMOVED : FATE_RAN);
}

static void cancel(struct lf_fence *f, struct node *node)
{
	int result = lf_fence_cancel_callback_sync(f, &node->cb);
	must(result == LF_CB_REMOVED || result == LF_CB_RAN);
	atomic_fetch_add(result == LF_CB_REMOVED ? &shared.cancel_removed : &shared.cancel_ran, 1);
	close_node(node, result == LF_CB_REMOVED ? FATE_REMOVED : FATE_RAN);
}

static void *adder(void *arg)
{
	int me = *(int *)arg;
	struct round *r = &shared.round;
	uint64_t random = shared.seed + (uint64_t)me + 1;
	for (long i = 0; i < shared.rounds; i++) {
		gate_wait(&shared.gate);
		for (int n = 0; n < NODES; n++) {
			struct node *node = &r->nodes[me][n];
			int result = lf_fence_add_callback(r->f, &node->cb, run_node);
			if (result == -ENOENT) {
				must(lf_fence_is_signaled(r->f));
				atomic_fetch_add(&shared.refused, 1);
				close_node(node, FATE_REFUSED);
				atomic_fetch_add(&r->progress, 1);
				continue;
			}
			must(result == 0);
			atomic_store(&node->fate, FATE_ADDED);
			switch (random_next(&random) % 4) {
			case 0:
				take_back(r->f, node);
				break;
			case 1:
				cancel(r->f, node);
				break;
			case 2:
				atomic_store(&r->offered[me][n], true);
				break;
			default: /* left to run */
				break;
			}
			atomic_fetch_add(&r->progress, 1);
			pause_at_random(&random);
		}
		/* the canceller and the signaller have references of their own: this put races with theirs and with the signal */
		lf_fence_put(r->f);
		gate_wait(&shared.gate);
	}
	return NULL;
}

/* Takes back what others added. */
static void *canceller(void *arg)
{
	struct round *r = &shared.round;
	uint64_t random = shared.seed + 77;
	for (long i = 0; i < shared.rounds; i++) {
		gate_wait(&shared.gate);
		for (int pass = 0; pass < 6; pass++) {
			for (int n = 0; n < NODES; n++) {
				for (int a = 0; a < ADDERS; a++) {
					if (!atomic_exchange(&r->offered[a][n], false))
						continue;
					if (random_next(&random) % 2)
						take_back(r->f, &r->nodes[a][n]);
					else
						cancel(r->f, &r->nodes[a][n]);
				}
			}
			pause_at_random(&random);
		}
		lf_fence_put(r->f);
		gate_wait(&shared.gate);
	}
	return NULL;
}

static void *signaller(void *arg)
{
	struct round *r = &shared.round;
	uint64_t random = shared.seed + 99;
	for (long i = 0; i < shared.rounds; i++) {
		gate_wait(&shared.gate);
		/* amid the adding, at another place in each round */
		int target = (int)(random_next(&random) % (ADDERS * NODES + 1));
		for (int n = 1; n < 20000 && atomic_load(&r->progress) < target; n++)
			if (n % 500 == 0)
				sched_yield();
		pause_at_random(&random);
		must(lf_fence_signal(r->f, -ECANCELED));
		must(lf_fence_is_drained(r->f));
		lf_fence_put(r->f);
		gate_wait(&shared.gate);
	}
	return NULL;
}

static void prepare(struct round *r)
{
	memset(r, 0, sizeof(*r));
	must(lf_fence_create(&r->f) == 0);
	for (int a = 0; a < ADDERS; a++) {
		r->last_run[a] = -1;
		lf_fence_get(r->f);
		for (int n = 0; n < NODES; n++) {
			r->nodes[a][n].round = r;
			r->nodes[a][n].adder = a;
			r->nodes[a][n].number = n;
		}
	}
	/* one each for canceller and signaller; the judge needs none, so the last put is one of those that race */
	lf_fence_get(r->f);
}

static void judge(struct round *r)
{
	for (int a = 0; a < ADDERS; a++) {
		for (int n = 0; n < NODES; n++) {
			struct node *node = &r->nodes[a][n];
			int runs = atomic_load(&node->runs);
			must(atomic_load(&node->inside) == 0);
			switch (atomic_load(&node->fate)) {
			case FATE_REFUSED:
			case FATE_REMOVED:
				must(runs == 0);
				break;
			case FATE_ADDED: /* nobody took it back */
				atomic_fetch_add(&shared.ran_unasked, 1);
				must(runs == 1);
				break;
			case FATE_RAN:
				must(runs == 1);
				break;
			default:
				must_failed(__FILE__, __LINE__, "a node was forgotten");
			}
		}
	}
}

static void each_added_callback_runs_once_or_is_removed(void **state)
{
	pthread_t threads[ADDERS + 2];
	int numbers[ADDERS];
	shared.seed = test_seed();
	shared.rounds = test_rounds(30000);
	gate_init(&shared.gate, ADDERS + 3);
	test_watchdog(100, "race_callbacks");
	for (int a = 0; a < ADDERS; a++) {
		numbers[a] = a;
		threads[a] = thread_start(adder, &numbers[a], 0);
	}
	threads[ADDERS] = thread_start(canceller, NULL, 0);
	threads[ADDERS + 1] = thread_start(signaller, NULL, 0);
	for (long i = 0; i < shared.rounds; i++) {
		prepare(&shared.round);
		gate_wait(&shared.gate);
		gate_wait(&shared.gate);
		judge(&shared.round);
	}
	for (int t = 0; t < ADDERS + 2; t++)
		thread_join(threads[t]);
	test_watchdog(0, "");
	gate_fini(&shared.gate);
	test_note("race_callbacks: %ld rounds of %d nodes: refused %ld; left alone and ran %ld", shared.rounds, ADDERS * NODES,
		atomic_load(&shared.refused), atomic_load(&shared.ran_unasked));
	test_note("race_callbacks: remove: removed %ld, ran %ld, running %ld", atomic_load(&shared.removed), atomic_load(&shared.ran),
		atomic_load(&shared.running));
	test_note("race_callbacks: cancel_sync: removed %ld, ran %ld", atomic_load(&shared.cancel_removed),
		atomic_load(&shared.cancel_ran));
}

/*
 * A callback takes a reference to its fence while another thread puts the last one.
 *
 * The first callback puts the reference that the signalling thread came with; so while the second runs, the other thread's is the only
 * one that is counted, and it is put at about the moment at which the callback takes one.
 *
 * Oracle: what the callback took is a reference: the fence has its result until that is put, and is freed then. Freed memory is
 * overwritten, so a fence that was freed too early shows. A hit is a round in which the other thread's put came before the callback's
 * end.
 */
struct taken {
	struct gate gate;
	struct lf_fence *f;
	struct lf_fence_cb first, second;
	unsigned go, ready; /* atomic: the first callback has put its reference; the other thread has seen it, and both start */
	unsigned put; /* atomic: the other thread is through */
	unsigned pause[2]; /* how long each waits then, in looks at @put */
	long hits;
	bool end;
};

static void pause_for(struct taken *t, int who)
{
	for (unsigned i = 0; i < t->pause[who]; i++)
		__atomic_load_n(&t->put, __ATOMIC_RELAXED);
}

static void put_the_signallers(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct taken *t = (struct taken *)((char *)cb - offsetof(struct taken, first));

	lf_fence_put(f);
	__atomic_store_n(&t->go, 1, __ATOMIC_RELAXED);
	while (!__atomic_load_n(&t->ready, __ATOMIC_RELAXED))
		sched_yield();
}

static void take_one(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct taken *t = (struct taken *)((char *)cb - offsetof(struct taken, second));

	pause_for(t, 0);
	lf_fence_get(f);
	t->hits += (long)__atomic_load_n(&t->put, __ATOMIC_RELAXED);
}

static void *put_the_other(void *arg)
{
	struct taken *t = arg;

	for (;;) {
		gate_wait(&t->gate);
		if (t->end)
			return NULL;
		while (!__atomic_load_n(&t->go, __ATOMIC_RELAXED))
			sched_yield();
		__atomic_store_n(&t->ready, 1, __ATOMIC_RELAXED);
		pause_for(t, 1);
		lf_fence_put(t->f);
		__atomic_store_n(&t->put, 1, __ATOMIC_RELAXED);
		gate_wait(&t->gate);
	}
}

static void callback_takes_a_reference_while_the_last_one_is_put(void **state)
{
	struct taken t = { .first = LF_FENCE_CB_INIT, .second = LF_FENCE_CB_INIT };
	long rounds = test_rounds(20000);
	uint64_t random = test_seed();
	pthread_t thread;

	(void)state;
	gate_init(&t.gate, 2);
	thread = thread_start(put_the_other, &t, 0);
	for (long r = 0; r < rounds; r++) {
		assert_int_equal(lf_fence_create(&t.f), 0);
		lf_fence_get(t.f);
		if (r % 2)
			lf_fence_publish(t.f);
		assert_int_equal(lf_fence_add_callback(t.f, &t.first, put_the_signallers), 0);
		assert_int_equal(lf_fence_add_callback(t.f, &t.second, take_one), 0);
		t.put = 0;
		t.go = 0;
		t.ready = 0;
		t.pause[0] = (unsigned)(random_next(&random) % 128);
		t.pause[1] = (unsigned)(random_next(&random) % 128);
		gate_wait(&t.gate);
		assert_true(lf_fence_signal(t.f, -EIO));
		gate_wait(&t.gate);
		assert_int_equal(lf_fence_status(t.f), -EIO);
		lf_fence_put(t.f);
	}
	t.end = true;
	gate_wait(&t.gate);
	thread_join(thread);
	gate_fini(&t.gate);
	test_note("%ld rounds: hits %ld, misses %ld", rounds, t.hits, rounds - t.hits);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_added_callback_runs_once_or_is_removed),
		TEST(callback_takes_a_reference_while_the_last_one_is_put),
	};
	return TEST_MAIN(tests);
}
