/* SPDX-License-Identifier: MIT */
/*
 * The case from which the nesting of containers was argued about on the kernel's lists in 2021: a driver that evicts without waiting.
 *
 * To move a buffer away takes a copy (the blit), the unbinding from each address space, and what was left over in its reservation. All
 * of it goes into the chain of the memory type that it leaves; who takes memory of that type waits for the chain's head, and so the head is
 * a left-over of evictions from elsewhere, and a member of an array that another driver builds, who does not know what it is.
 */
#include "containers.h"

enum {
	TYPES = 3, /* memory types */
	SPACES = 3, /* address spaces, each with a timeline of its own for its unbinds */
	LAG = 40, /* rounds that the slowest may be behind */
	/* of a round: blit, unbinds, flush, user's job, two arrays, a link, and another that the chain may keep to find it by */
	BLOCKS_OF_ROUND = SPACES + 7,
};

/* An ordered timeline on which each round emits one fence. */
struct engine {
	struct producer producer;
	long reached; /* rounds of which the fence is signaled */
};

struct eviction {
	struct lf_provider *driver, *other_driver;
	struct engine blit, unbind[SPACES], user;
	struct producer flush; /* unordered: the TLB flushes come back as they like */
	struct lf_fence *flushes[LAG]; /* of the last rounds; NULL when it came back */
	struct lf_fence *head[TYPES];
	uint64_t random;
};

static void engine_init(struct engine *e, struct lf_provider *provider)
{
	memset(e, 0, sizeof(*e));
	assert_int_equal(producer_create(&e->producer, "engine", LF_TIMELINE_ORDERED, provider), 0);
}

/* Gets on for a random number of rounds of those that were emitted; at least so far that it is not too far behind. */
static void engine_run(struct engine *e, long emitted, uint64_t *random)
{
	long to = e->reached;

	if (random_next(random) % 16 == 0)
		to += (long)(random_next(random) % (uint64_t)(emitted - e->reached + 1));
	if (to < emitted - LAG + 1)
		to = emitted - LAG + 1;
	if (to <= e->reached)
		return;
	assert_int_equal(lf_timeline_signal_to(e->producer.tl, (uint64_t)to, 0), to - e->reached);
	e->reached = to;
}

static void flush_done(struct eviction *x, long slot)
{
	if (!x->flushes[slot])
		return;
	assert_true(lf_timeline_signal_one(x->flush.tl, x->flushes[slot], 0));
	lf_fence_put(x->flushes[slot]);
	x->flushes[slot] = NULL;
}

static struct lf_fence *get_head(const struct eviction *x, long type)
{
	return x->head[type] ? GET(x->head[type]) : lf_fence_stub();
}

/* Code of the other driver: it waits for its own job and for what it was told to, whatever that is. */
static struct lf_fence *build_elsewhere(struct eviction *x, struct lf_fence *told)
{
	return ALL(told, emit(x->user.producer.tl));
}

static void evict(struct eviction *x, long round)
{
	long from = round % TYPES, to = (round + 1 + (long)(random_next(&x->random) % 2)) % TYPES;
	struct lf_fence *unbinds[SPACES], *flush = emit(x->flush.tl), *all;

	for (size_t i = 0; i < SPACES; i++)
		unbinds[i] = emit(x->unbind[i].producer.tl);
	/* the place that it moves to may still be moved out of: that chain's head is a left-over, once as it is and once inside */
	all = ALL(emit(x->blit.producer.tl), unbinds[0], unbinds[1], unbinds[2], GET(flush), get_head(x, to),
		build_elsewhere(x, get_head(x, to)));
	_Static_assert(SPACES == 3, "all unbinds are members");
	/* one of the types is kept flat, as a driver may that prefers that */
	if (from == 0) {
		struct lf_fence *flat = flatten(all);

		lf_fence_put(all);
		all = flat;
	}
	x->head[from] = append(x->head[from], all, (uint64_t)round + 1);
	flush_done(x, round % LAG);
	x->flushes[round % LAG] = flush;
}

static void get_on(struct eviction *x, long emitted)
{
	engine_run(&x->blit, emitted, &x->random);
	engine_run(&x->user, emitted, &x->random);
	for (size_t i = 0; i < SPACES; i++)
		engine_run(&x->unbind[i], emitted, &x->random);
	flush_done(x, (long)(random_next(&x->random) % LAG));
}

/* The points of a chain: the new one is pending (its blit was just emitted), those of all that is done are reached. */
static void check_points(struct eviction *x, long type, long emitted)
{
	struct lf_fence *f = NULL;
	/* a chain has one of so many points, so the first one from here on is no later than that */
	long reached = emitted - LAG - (TYPES - 1);

	assert_int_equal(lf_chain_find_seqno(x->head[type], lf_fence_seqno(x->head[type]), &f), 0);
	assert_ptr_equal(f, x->head[type]);
	lf_fence_put(f);
	if (reached <= 0)
		return;
	assert_int_equal(lf_chain_find_seqno(x->head[type], (uint64_t)reached, &f), 0);
	assert_true(lf_fence_is_signaled(f));
	assert_true(lf_fence_status(f) == 1);
	lf_fence_put(f);
}

static unsigned enables_of(const struct eviction *x)
{
	unsigned n = x->blit.producer.enables + x->user.producer.enables + x->flush.enables;

	for (size_t i = 0; i < SPACES; i++)
		n += x->unbind[i].producer.enables;
	return n;
}

static void finish(struct eviction *x, long rounds)
{
	struct noted_cb cb[TYPES];

	for (size_t t = 0; t < TYPES; t++)
		noted_add(&cb[t], x->head[t]);
	assert_true(enables_of(x) > 0);
	assert_true(lf_timeline_signal_to(x->blit.producer.tl, UINT64_MAX, 0) == (size_t)(rounds - x->blit.reached));
	assert_true(lf_timeline_signal_to(x->user.producer.tl, UINT64_MAX, 0) == (size_t)(rounds - x->user.reached));
	for (size_t i = 0; i < SPACES; i++)
		assert_true(lf_timeline_signal_to(x->unbind[i].producer.tl, UINT64_MAX, 0) == (size_t)(rounds - x->unbind[i].reached));
	for (long i = 0; i < LAG; i++)
		flush_done(x, i);
	for (size_t t = 0; t < TYPES; t++) {
		assert_int_equal(cb[t].ran, 1);
		assert_int_equal(cb[t].status, 1);
		assert_int_equal(lf_fence_wait(x->head[t], LF_DEADLINE_NEVER), 0);
		lf_fence_put(x->head[t]);
	}
	producer_fini(&x->blit.producer, (unsigned)rounds);
	producer_fini(&x->user.producer, (unsigned)rounds);
	producer_fini(&x->flush, (unsigned)rounds);
	for (size_t i = 0; i < SPACES; i++)
		producer_fini(&x->unbind[i].producer, (unsigned)rounds);
	lf_provider_put(x->driver);
	lf_provider_put(x->other_driver);
}

static void eviction_init(struct eviction *x)
{
	memset(x, 0, sizeof(*x));
	x->random = test_seed();
	assert_int_equal(lf_provider_create("driver", &x->driver), 0);
	assert_int_equal(lf_provider_create("other", &x->other_driver), 0);
	engine_init(&x->blit, x->driver);
	engine_init(&x->user, x->other_driver);
	for (size_t i = 0; i < SPACES; i++)
		engine_init(&x->unbind[i], x->driver);
	assert_int_equal(producer_create(&x->flush, "flush", LF_TIMELINE_UNORDERED, x->driver), 0);
}

static void eviction_of_2021_thread_100000_rounds_in_constant_memory(void **state)
{
	static struct eviction x;
	long rounds = test_rounds(test_is_sanitized() ? 5000 : 100000), interval = rounds / 50 < 100 ? 100 : rounds / 50;
	long at_start, most = 0;

	eviction_init(&x);
	at_start = live();
	test_watchdog(100, "evictions");
	for (long round = 0; round < rounds; round++) {
		evict(&x, round);
		expect_pending(x.head[round % TYPES]);
		check_points(&x, round % TYPES, round + 1);
		get_on(&x, round + 1);
		if (round % interval == interval - 1) {
			long now = live() - at_start;

			most = now > most ? now : most;
			assert_true(now <= LAG * BLOCKS_OF_ROUND + 64);
		}
	}
	/* nobody was interested: no producer was asked for anything */
	assert_int_equal(enables_of(&x), 0);
	finish(&x, rounds);
	test_watchdog(0, "");
	test_note("%ld evictions, at most %ld blocks", rounds, most);
}

/* The device is lost amid it: everything ends with that error, and nothing is left. */
static void eviction_whose_device_is_lost_ends_with_its_error(void **state)
{
	static struct eviction x;
	long rounds = test_rounds(1000);
	struct noted_cb cb[TYPES];

	eviction_init(&x);
	for (long round = 0; round < rounds || round < TYPES; round++) {
		evict(&x, round);
		get_on(&x, round + 1);
	}
	for (size_t t = 0; t < TYPES; t++) {
		/* one behind it, so that there is something to lose in each chain */
		x.head[t] = append(x.head[t], emit(x.blit.producer.tl), (uint64_t)rounds + TYPES + t + 1);
		noted_add(&cb[t], x.head[t]);
	}
	assert_int_equal(lf_provider_close(x.driver, LF_DEADLINE_NEVER), 0);
	for (size_t i = 0; i < LAG; i++) {
		lf_fence_put(x.flushes[i]);
		x.flushes[i] = NULL;
	}
	/* the other driver goes on, and its jobs are done */
	lf_timeline_signal_to(x.user.producer.tl, UINT64_MAX, 0);
	for (size_t t = 0; t < TYPES; t++) {
		assert_int_equal(cb[t].ran, 1);
		assert_int_equal(cb[t].status, -ENODEV);
		lf_fence_put(x.head[t]);
	}
	lf_timeline_put(x.blit.producer.tl);
	lf_timeline_put(x.user.producer.tl);
	lf_timeline_put(x.flush.tl);
	for (size_t i = 0; i < SPACES; i++)
		lf_timeline_put(x.unbind[i].producer.tl);
	lf_provider_put(x.driver);
	lf_provider_put(x.other_driver);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(eviction_of_2021_thread_100000_rounds_in_constant_memory),
		TEST_WARM(eviction_whose_device_is_lost_ends_with_its_error),
	};
	return TEST_MAIN(tests);
}
