/* SPDX-License-Identifier: MIT */
/*
 * Races on timelines.
 *
 * 1. Order. Several threads call signal_to() with rising seqnos while others emit on the same ordered timeline and observers look.
 *    Oracle: an observer that has seen fence n signaled then sees every fence before n signaled, with a timestamp that is not greater,
 *    status 1 and the clock's past; the counts that all signal_to() calls returned add up to the fences that were emitted; each callback
 *    that was taken ran once.
 *    A hit is a fence that the observer saw pending first and signaled then, so that it looked at the others in the middle of the change; a
 *    miss was signaled at the first look. Healthy output has thousands of hits and `violations 0`.
 *
 * 2. Detach. Threads drive the hooks of fences (check, wait, deadline) while others signal, lose and drop their timeline.
 *    Oracle, for each fence: detach ran once, while no other hook ran for it, and no hook was entered after it; release ran once,
 *    after all of them.
 *    A hit is a hook that was entered with a pending fence and left with a signaled one; a miss is any other. Healthy output has hits.
 */
#include "producer.h"

#include <sched.h>

/* --- 1. Order ------------------------------------------------------------------------------------------------------------ */

enum { EMITTERS = 2, SIGNALERS = 3, OBSERVERS = 2, BEHIND = 8 };

struct order {
	struct lf_timeline *tl;
	struct lf_fence **fences; /* by seqno; stored with release once emitted */
	struct noted_cb *callbacks; /* by seqno */
	uint64_t total;
	uint64_t frontier; /* about how far it is signaled; a hint of where to look */
	unsigned emitting; /* emitters that have not ended */
	size_t signaled; /* sum of what signal_to() returned */
	unsigned taken; /* callbacks */
	unsigned hits, misses, violations;
	struct gate start;
};

struct order_thread {
	struct order *o;
	uint64_t random;
};

static void *order_emit(void *arg)
{
	struct order_thread *t = arg;
	struct order *o = t->o;

	gate_wait(&o->start);
	for (;;) {
		struct lf_fence *f;
		uint64_t seqno;

		if (lf_timeline_last_seqno(o->tl) + EMITTERS > o->total)
			break;
		if (lf_timeline_emit(o->tl, 0, &f) != 0) {
			count_up(&o->violations);
			break;
		}
		seqno = lf_fence_seqno(f);
		if (lf_fence_add_callback(f, &o->callbacks[seqno].cb, noted_run) == 0)
			count_up(&o->taken);
		__atomic_store_n(&o->fences[seqno], f, __ATOMIC_RELEASE);
		/* Let the others come close: the interesting fences are the newest. */
		if (random_next(&t->random) % 4 == 0)
			sched_yield();
	}
	count_down(&o->emitting);
	return NULL;
}

static void *order_signal(void *arg)
{
	struct order_thread *t = arg;
	struct order *o = t->o;
	bool last;

	gate_wait(&o->start);
	do {
		uint64_t seqno, frontier = __atomic_load_n(&o->frontier, __ATOMIC_RELAXED), end;
		size_t count;

		last = count_get(&o->emitting) == 0;
		end = lf_timeline_last_seqno(o->tl);
		seqno = frontier + 1 + random_next(&t->random) % 4;
		/* Some stay pending while others are emitted: those are what the observers look for. */
		if (last)
			seqno = end;
		else if (seqno + BEHIND / 2 > end)
			seqno = end > BEHIND / 2 ? end - BEHIND / 2 : 0;
		count = lf_timeline_signal_to(o->tl, seqno, 0);
		__atomic_fetch_add(&o->signaled, count, __ATOMIC_RELAXED);
		while (frontier < seqno &&
			!__atomic_compare_exchange_n(&o->frontier, &frontier, seqno, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			;
		if (count == 0)
			sched_yield();
	} while (!last);
	return NULL;
}

/* Fence n was seen signaled: looks at those before it. */
static void order_look_behind(struct order *o, uint64_t n, const struct lf_fence *f)
{
	int64_t later = lf_fence_timestamp(f);

	if (lf_fence_status(f) != 1 || later > lf_now())
		count_up(&o->violations);
	for (uint64_t k = n - 1; k >= 1 && k + BEHIND > n; k--) {
		const struct lf_fence *earlier = __atomic_load_n(&o->fences[k], __ATOMIC_ACQUIRE);

		if (!earlier)
			continue;
		if (!lf_fence_is_signaled(earlier) || lf_fence_timestamp(earlier) > later) {
			count_up(&o->violations);
			continue;
		}
		later = lf_fence_timestamp(earlier);
	}
}

static void *order_observe(void *arg)
{
	struct order_thread *t = arg;
	struct order *o = t->o;

	gate_wait(&o->start);
	while (count_get(&o->emitting) != 0) {
		uint64_t n = __atomic_load_n(&o->frontier, __ATOMIC_RELAXED) + 1 + random_next(&t->random) % BEHIND;
		const struct lf_fence *f = n <= o->total ? __atomic_load_n(&o->fences[n], __ATOMIC_ACQUIRE) : NULL;
		bool pending;

		if (!f) {
			sched_yield();
			continue;
		}
		pending = !lf_fence_is_signaled(f);
		for (int i = 0; i < 1000 && !lf_fence_is_signaled(f); i++)
			if (i % 100 == 99)
				sched_yield();
		if (!lf_fence_is_signaled(f))
			continue;
		count_up(pending ? &o->hits : &o->misses);
		order_look_behind(o, n, f);
	}
	return NULL;
}

static void whoever_sees_a_fence_signaled_sees_all_earlier_ones_signaled(void **state)
{
	const struct lf_timeline_desc desc = { .name = "order" };
	struct order o = { .total = (uint64_t)test_rounds(100000), .emitting = EMITTERS };
	struct order_thread args[EMITTERS + SIGNALERS + OBSERVERS];
	pthread_t threads[EMITTERS + SIGNALERS + OBSERVERS];
	uint64_t seed = test_seed(), last, ran = 0;
	int64_t before = INT64_MIN;

	(void)state;
	o.fences = calloc((size_t)o.total + 1, sizeof(struct lf_fence *));
	o.callbacks = calloc((size_t)o.total + 1, sizeof(struct noted_cb));
	assert_non_null(o.fences);
	assert_non_null(o.callbacks);
	assert_int_equal(lf_timeline_create(&desc, &o.tl), 0);
	gate_init(&o.start, EMITTERS + SIGNALERS + OBSERVERS);
	for (int i = 0; i < EMITTERS + SIGNALERS + OBSERVERS; i++) {
		void *(*fn)(void *) = i < EMITTERS ? order_emit : i < EMITTERS + SIGNALERS ? order_signal : order_observe;

		args[i] = (struct order_thread){ .o = &o, .random = random_next(&seed) | 1 };
		threads[i] = thread_start(fn, &args[i], 0);
	}
	for (int i = 0; i < EMITTERS + SIGNALERS + OBSERVERS; i++)
		thread_join(threads[i]);
	gate_fini(&o.start);
	last = lf_timeline_last_seqno(o.tl);
	o.signaled += lf_timeline_signal_to(o.tl, last, 0);
	test_note("fences %llu: hits %u, misses %u, violations %u", (unsigned long long)last, o.hits, o.misses, o.violations);
	assert_int_equal(o.violations, 0);
	assert_true(o.signaled == last);
	for (uint64_t n = 1; n <= last; n++) {
		struct lf_fence *f = o.fences[n];

		assert_non_null(f);
		assert_int_equal(lf_fence_status(f), 1);
		assert_true(lf_fence_timestamp(f) >= before);
		before = lf_fence_timestamp(f);
		assert_true(o.callbacks[n].ran <= 1);
		ran += o.callbacks[n].ran;
		lf_fence_put(f);
	}
	assert_true(ran == o.taken);
	lf_timeline_put(o.tl);
	free(o.fences);
	free(o.callbacks);
}

/* --- 2. Detach ----------------------------------------------------------------------------------------------------------- */

enum { FENCES = 6, POKERS = 3 };

struct watched {
	unsigned inside, detached;
};

struct detach_round {
	struct lf_timeline *tl;
	struct lf_fence *fences[FENCES];
	struct watched watched[FENCES];
	unsigned releases;
};

struct detach {
	struct detach_round round;
	bool end;
	unsigned hits, misses, violations;
	uint64_t random[POKERS + 2]; /* of the threads; each its own */
	struct gate gate;
};

struct detach_thread {
	struct detach *d;
	int index;
};

static struct detach *detach_data; /* what the hooks count in; one test at a time */

static struct watched *watch(struct lf_fence *f)
{
	return &detach_data->round.watched[lf_fence_seqno(f) - 1];
}

static void hook_enter_and_leave(struct lf_fence *f)
{
	struct watched *w = watch(f);
	bool pending = !lf_fence_is_signaled(f);

	if (count_get(&w->detached) != 0 || count_get(&detach_data->round.releases) != 0)
		count_up(&detach_data->violations);
	count_up(&w->inside);
	sched_yield();
	if (count_get(&w->detached) != 0)
		count_up(&detach_data->violations);
	count_up(pending && lf_fence_is_signaled(f) ? &detach_data->hits : &detach_data->misses);
	count_down(&w->inside);
}

static int detach_enable(struct lf_fence *f, void *data)
{
	(void)data;
	hook_enter_and_leave(f);
	return 0;
}

static int detach_poll(struct lf_fence *f, void *data)
{
	(void)data;
	hook_enter_and_leave(f);
	/* A third of the fences complete through the hook, if nobody is quicker. */
	return lf_fence_seqno(f) % 3 == 0;
}

static void detach_deadline(struct lf_fence *f, int64_t deadline, void *data)
{
	(void)data;
	(void)deadline;
	hook_enter_and_leave(f);
}

static void detach_detach(struct lf_fence *f, void *data)
{
	struct watched *w = watch(f);

	(void)data;
	if (count_get(&w->inside) != 0 || count_get(&detach_data->round.releases) != 0 || !lf_fence_is_signaled(f))
		count_up(&detach_data->violations);
	count_up(&w->detached);
}

static void detach_release(void *data)
{
	struct detach *d = data;

	count_up(&d->round.releases);
}

static void detach_poke(struct detach *d, uint64_t *random)
{
	for (int i = 0; i < FENCES; i++) {
		struct lf_fence *f = d->round.fences[random_next(random) % FENCES];

		switch (random_next(random) % 3) {
		case 0:
			lf_fence_check(f);
			break;
		case 1:
			lf_fence_wait(f, 0);
			break;
		default:
			lf_fence_set_deadline(f, 1);
			break;
		}
	}
}

static void detach_signal(struct detach *d, uint64_t *random)
{
	uint64_t what = random_next(random);

	for (uint64_t n = 1; n <= what % (FENCES + 1); n++) {
		lf_timeline_signal_to(d->round.tl, n, 0);
		if (what & 64)
			sched_yield();
	}
	if (what & 128)
		lf_timeline_lose(d->round.tl, -EIO);
	lf_timeline_put(d->round.tl);
}

static void *detach_run(void *arg)
{
	struct detach_thread *t = arg;
	struct detach *d = t->d;

	for (;;) {
		gate_wait(&d->gate);
		if (d->end)
			return NULL;
		if (t->index < POKERS)
			detach_poke(d, &d->random[t->index]);
		else
			detach_signal(d, &d->random[t->index]);
		gate_wait(&d->gate);
	}
}

static void detach_runs_once_and_never_beside_a_hook_of_its_fence(void **state)
{
	static const struct lf_fence_ops ops = { detach_enable, detach_poll, detach_deadline, detach_detach };
	long rounds = test_rounds(5000);
	struct detach d = { .end = false };
	struct detach_thread args[POKERS + 1];
	pthread_t threads[POKERS + 1];
	uint64_t seed = test_seed();

	(void)state;
	detach_data = &d;
	gate_init(&d.gate, POKERS + 2);
	for (int i = 0; i <= POKERS + 1; i++)
		d.random[i] = random_next(&seed) | 1;
	for (int i = 0; i <= POKERS; i++) {
		args[i] = (struct detach_thread){ .d = &d, .index = i };
		threads[i] = thread_start(detach_run, &args[i], 0);
	}
	for (long r = 0; r < rounds; r++) {
		const struct lf_timeline_desc desc = { .name = "detach",
			.flags = r % 2 ? LF_TIMELINE_UNORDERED : LF_TIMELINE_ORDERED,
			.ops = &ops,
			.data = &d,
			.release = detach_release };

		memset(&d.round, 0, sizeof(d.round));
		assert_int_equal(lf_timeline_create(&desc, &d.round.tl), 0);
		for (int i = 0; i < FENCES; i++)
			assert_int_equal(lf_timeline_emit(d.round.tl, 0, &d.round.fences[i]), 0);
		lf_timeline_get(d.round.tl);
		gate_wait(&d.gate);
		if (random_next(&d.random[POKERS + 1]) % 2)
			sched_yield();
		lf_timeline_put(d.round.tl);
		gate_wait(&d.gate);
		for (int i = 0; i < FENCES; i++) {
			assert_int_equal(d.round.watched[i].detached, 1);
			assert_true(lf_fence_is_signaled(d.round.fences[i]));
			lf_fence_put(d.round.fences[i]);
		}
		assert_int_equal(d.round.releases, 1);
		assert_int_equal(d.violations, 0);
	}
	d.end = true;
	gate_wait(&d.gate);
	for (int i = 0; i <= POKERS; i++)
		thread_join(threads[i]);
	gate_fini(&d.gate);
	test_note("rounds %ld: hits %u, misses %u, violations %u", rounds, d.hits, d.misses, d.violations);
}

/*
 * Names, found while other timelines come and go. Contexts are found in buckets by their lower bits, so every so often a timeline that is being made
 * or dropped stands in the way of the look-up of another.
 *
 * Oracle: a name is that of the fence's own timeline, whole, at every look; and once that timeline is dropped it is "signaled-timeline". A hit is a
 * look during which timelines were made. What a look-up finds half made shows under ThreadSanitizer, or as another name.
 */
enum { ALIVE = 2048 }; /* more than there are buckets, so that each holds one that is not ours */

struct names {
	struct lf_fence *f;
	unsigned made; /* atomic */
	bool end; /* atomic */
	unsigned hits, misses, violations; /* the reader's */
};

static void *names_read(void *arg)
{
	struct names *n = arg;
	char name[32];

	while (!__atomic_load_n(&n->end, __ATOMIC_RELAXED)) {
		unsigned before = __atomic_load_n(&n->made, __ATOMIC_RELAXED);

		lf_fence_name(n->f, name, sizeof(name));
		if (strcmp(name, "the one") != 0)
			n->violations++;
		if (__atomic_load_n(&n->made, __ATOMIC_RELAXED) != before)
			n->hits++;
		else
			n->misses++;
	}
	return NULL;
}

static void name_is_found_while_other_timelines_come_and_go(void **state)
{
	static struct lf_timeline *others[ALIVE];
	const struct lf_timeline_desc the_one = { .name = "the one" }, other = { .name = "another" };
	struct names n = { .end = false };
	struct lf_timeline *tl;
	char name[32];
	pthread_t reader;

	(void)state;
	assert_int_equal(lf_timeline_create(&the_one, &tl), 0);
	assert_int_equal(lf_timeline_emit(tl, 0, &n.f), 0);
	reader = thread_start(names_read, &n, 0);
	for (long i = 0; i < test_rounds(40000); i++) {
		lf_timeline_put(others[i % ALIVE]);
		assert_int_equal(lf_timeline_create(&other, &others[i % ALIVE]), 0);
		__atomic_store_n(&n.made, (unsigned)i + 1, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&n.end, true, __ATOMIC_RELAXED);
	thread_join(reader);
	for (int i = 0; i < ALIVE; i++) {
		lf_timeline_put(others[i]);
		others[i] = NULL;
	}
	lf_timeline_put(tl);
	lf_fence_name(n.f, name, sizeof(name));
	assert_string_equal(name, "signaled-timeline");
	lf_fence_put(n.f);
	test_note("timelines %u: hits %u, misses %u, violations %u", n.made, n.hits, n.misses, n.violations);
	assert_int_equal(n.violations, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(whoever_sees_a_fence_signaled_sees_all_earlier_ones_signaled),
		TEST(detach_runs_once_and_never_beside_a_hook_of_its_fence),
		TEST(name_is_found_while_other_timelines_come_and_go),
	};

	return TEST_MAIN(tests);
}
