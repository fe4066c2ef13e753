/* SPDX-License-Identifier: MIT */
/*
 * Depth does not matter: containers nest to any depth, and what is done with them needs bounded stack and time in proportion to the links.
 *
 * A tower has so many levels, each a container of {the level below, one fence of its own}. All that can be done with one is done on
 * a thread with a small stack, where one frame for each level would not fit a thousandth of it.
 */
#include "containers.h"

#include <limits.h>
#include <time.h>

/* Sanitizers' frames are larger, and so is what they put on a stack themselves. */
static size_t small_stack(void)
{
	return test_is_sanitized() ? 512 * 1024 : 64 * 1024;
}

/* --- Kinds in kinds --------------------------------------------------------------------------------------------------- */

static void array_in_array(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain(), *inner = ALL(GET(a), GET(b)), *outer = ALL(GET(inner), GET(c));

	done_at(c, 0, 3);
	done_at(a, -EIO, 9);
	expect_pending(outer);
	expect_pending(inner);
	done_at(b, 0, 5);
	expect_signaled(inner, -EIO, 9);
	expect_signaled(outer, -EIO, 9);
	lf_fence_put(inner);
	lf_fence_put(outer);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
}

static void any_in_all_and_all_in_any(void **state)
{
	struct lf_fence *f[4] = { plain(), plain(), plain(), plain() };
	struct lf_fence *all_of_any = ALL(ANY(GET(f[0]), GET(f[1])), ANY(GET(f[2]), GET(f[3])));
	struct lf_fence *any_of_all = ANY(ALL(GET(f[0]), GET(f[1])), ALL(GET(f[2]), GET(f[3])));

	done_at(f[0], -EIO, 1);
	expect_pending(all_of_any);
	expect_pending(any_of_all);
	done_at(f[3], 0, 2);
	expect_signaled(all_of_any, -EIO, 2);
	expect_pending(any_of_all);
	done_at(f[2], -EPERM, 7);
	expect_signaled(any_of_all, -EPERM, 7);
	done_at(f[1], 0, 3);
	expect_signaled(all_of_any, -EIO, 2);
	expect_signaled(any_of_all, -EPERM, 7);
	lf_fence_put(all_of_any);
	lf_fence_put(any_of_all);
	for (size_t i = 0; i < 4; i++)
		lf_fence_put(f[i]);
}

static void chain_in_array_and_array_in_chain(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain();
	struct lf_fence *array = ALL(append(append(NULL, GET(a), 1), GET(b), 2), GET(c));
	struct lf_fence *link = append(append(NULL, ALL(GET(a), GET(b)), 1), GET(c), 2);

	done_at(b, -EPERM, 4);
	done_at(c, -ENOSPC, 6);
	expect_pending(array);
	expect_pending(link);
	done_at(a, 0, 5);
	/* the array was told of the third fence first; along the chain the first two come first */
	expect_signaled(array, -ENOSPC, 6);
	expect_signaled(link, -EPERM, 6);
	lf_fence_put(array);
	lf_fence_put(link);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
}

static void chain_in_chain(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain(), *inner = append(append(NULL, GET(a), 5), GET(b), 6);
	struct lf_fence *outer = append(join(append(NULL, GET(c), 1), GET(inner), 2), GET(a), 3);

	done(b, 0);
	done(c, 0);
	expect_pending(outer);
	done(a, -EIO);
	assert_int_equal(lf_fence_status(inner), -EIO);
	assert_int_equal(lf_fence_status(outer), -EIO);
	lf_fence_put(inner);
	lf_fence_put(outer);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
}

static void shared_parts_serve_each_whole(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *part = ALL(GET(a), GET(b)), *wholes[100];
	struct noted_cb cb[100];

	for (unsigned i = 0; i < 100; i++) {
		wholes[i] = i % 3 == 0 ? ALL(GET(part), GET(part)) : i % 3 == 1 ? ANY(GET(part)) : append(GET(part), GET(part), i);
		noted_add(&cb[i], wholes[i]);
	}
	done_put(a, 0);
	done_put(b, -EIO);
	lf_fence_put(part);
	for (size_t i = 0; i < 100; i++) {
		assert_int_equal(cb[i].ran, 1);
		assert_int_equal(cb[i].status, -EIO);
		lf_fence_put(wholes[i]);
	}
}

/* --- Towers ----------------------------------------------------------------------------------------------------------- */

enum shape {
	TOWER_ARRAYS, /* {below, own} */
	TOWER_ANY, /* the same, of *any* arrays */
	TOWER_CHAIN, /* a chain: below is the link before */
	TOWER_JOINED, /* each level begins a chain after its own fence, with the link below as its fence */
	TOWER_SHARED, /* {below, below again, own}: as many ways from the top to the bottom as no number counts */
	TOWER_MIXED, /* arrays and links in turn */
	SHAPES
};

static struct lf_fence *raise(enum shape shape, long level, struct lf_fence *below, struct lf_fence *own)
{
	struct lf_fence *top = NULL;

	if (shape == TOWER_MIXED)
		shape = level % 3 == 0 ? TOWER_ARRAYS : level % 3 == 1 ? TOWER_CHAIN : TOWER_JOINED;
	switch (shape) {
	case TOWER_ARRAYS:
		must(lf_array_create(FENCES(below, own), 2, LF_ARRAY_ALL, &top) == 0);
		break;
	case TOWER_ANY:
		must(lf_array_create(FENCES(below, own), 2, LF_ARRAY_ANY, &top) == 0);
		break;
	case TOWER_SHARED:
		must(lf_array_create(FENCES(lf_fence_get(below), below, own), 3, LF_ARRAY_ALL, &top) == 0);
		break;
	case TOWER_CHAIN:
		must(lf_chain_append(below, own, (uint64_t)level + 1, 0, &top) == 0);
		break;
	default:
		must(lf_chain_append(own, below, 1, LF_CHAIN_JOIN, &top) == 0);
		break;
	}
	return top;
}

enum fate {
	INSIDE_OUT, /* the own fences from the bottom up */
	OUTSIDE_IN, /* from the top down */
	ALL_OWN_FIRST, /* all own fences, and at last the one at the bottom, from which everything collapses upwards */
	PUT_PENDING, /* nothing is signaled */
	FATES
};

struct tower {
	enum shape shape;
	enum fate fate;
	long levels;
	bool asked; /* walked, described, armed, hinted, checked, waited for */
	struct lf_fence *bottom, *top, **own;
	struct noted_cb cb;
};

static void ask_tower(struct tower *t)
{
	struct lf_unwrap walk;
	struct lf_fence *flat;
	char text[200];

	must(lf_unwrap_begin(&walk, t->top, 0) == 0);
	must(walk.count == (size_t)t->levels + 1);
	for (long i = 0; i <= t->levels; i++)
		must(lf_unwrap_next(&walk) != NULL);
	must(lf_unwrap_next(&walk) == NULL);
	lf_unwrap_end(&walk);
	must(lf_fence_flatten(t->top, &flat) == 0);
	must(!lf_fence_is_signaled(flat));
	lf_fence_put(flat);
	must(lf_fence_describe(t->top, text, sizeof(text)) > 0);
	must(lf_fence_check(t->top) == 0);
	lf_fence_set_deadline(t->top, 1);
	must(lf_fence_wait(t->top, 0) == -ETIME);
	must(lf_fence_add_callback(t->top, &t->cb.cb, noted_run) == 0);
}

static void signal_tower(struct tower *t)
{
	long n = t->levels;

	if (t->fate == INSIDE_OUT)
		must(lf_fence_signal(t->bottom, -EIO));
	for (long i = 0; i < n; i++)
		must(lf_fence_signal(t->own[t->fate == OUTSIDE_IN ? n - 1 - i : i], 0));
	if (t->fate != INSIDE_OUT)
		must(lf_fence_signal(t->bottom, -EIO));
}

static void *build_and_end_tower(void *arg)
{
	struct tower *t = arg;

	must(lf_fence_create(&t->bottom) == 0);
	t->top = GET(t->bottom);
	for (long i = 0; i < t->levels; i++) {
		must(lf_fence_create(&t->own[i]) == 0);
		t->top = raise(t->shape, i, t->top, GET(t->own[i]));
	}
	if (t->asked)
		ask_tower(t);
	if (t->fate == PUT_PENDING) {
		if (t->asked)
			must(lf_fence_remove_callback(t->top, &t->cb.cb) == LF_CB_REMOVED);
		lf_fence_put(t->top);
	} else {
		signal_tower(t);
		must(lf_fence_is_signaled(t->top));
		if (t->shape != TOWER_ANY)
			must(lf_fence_status(t->top) == -EIO);
		must(!t->asked || t->cb.ran == 1);
		must(lf_fence_wait(t->top, LF_DEADLINE_NEVER) == 0);
		must(lf_fence_check(t->top) == lf_fence_status(t->top));
		lf_fence_put(t->top);
	}
	/* these are the last references: of what was put while it was pending, nothing hangs on them */
	for (long i = 0; i < t->levels; i++)
		lf_fence_put(t->own[i]);
	lf_fence_put(t->bottom);
	return NULL;
}

/* Processor time of all threads, the one that frees included: what others do on the machine does not count. */
static int64_t cpu_time(void)
{
	struct timespec now;

	must(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) == 0);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t time_tower(enum shape shape, enum fate fate, long levels, bool asked)
{
	struct tower t = { .shape = shape, .fate = fate, .levels = levels, .asked = asked };
	int64_t start;

	t.own = malloc((size_t)levels * sizeof(struct lf_fence *));
	assert_non_null(t.own);
	start = cpu_time();
	thread_run(build_and_end_tower, &t, small_stack());
	assert_int_equal(lf_reclaim_barrier(), 0);
	start = cpu_time() - start;
	free(t.own);
	return start;
}

/* What a small tower takes: the middle one of some tries. */
static int64_t time_small_tower(enum shape shape, enum fate fate, long levels, bool asked)
{
	enum { TRIES = 5 };
	int64_t times[TRIES];

	for (int i = 0; i < TRIES; i++) {
		int64_t took = time_tower(shape, fate, levels, asked);
		int k = i;

		for (; k > 0 && times[k - 1] > took; k--)
			times[k] = times[k - 1];
		times[k] = took;
	}
	return times[TRIES / 2];
}

/*
 * A hundredth of the levels first, then all of them: that must not take more than 30 times a hundred times as long. What is quadratic would
 * take a hundred times that. (The slack is for caches: a small tower fits into them.)
 */
static void check_tower(enum shape shape, enum fate fate, long levels, bool asked)
{
	static const char *const shapes[] = { "arrays", "any arrays", "a chain", "joined chains", "shared arrays",
		"arrays and links" };
	static const char *const fates[] = { "inside out", "outside in", "bottom last", "put pending" };
	long few = levels / 100 < 10 ? 10 : levels / 100;
	int64_t base, large;

	test_watchdog(100, shapes[shape]);
	base = time_small_tower(shape, fate, few, asked);
	/* shorter than this is noise */
	base = base < 100000 ? 100000 : base;
	large = time_tower(shape, fate, levels, asked);
	test_note("%s, %s%s: %ld levels %.1f ms, %ld levels %.1f ms, %.2f of linear", shapes[shape], fates[fate],
		asked ? ", asked" : "", few, (double)base / 1e6, levels, (double)large / 1e6,
		(double)large * (double)few / ((double)base * (double)levels));
	assert_true(large / 30 <= base * (levels / few));
	test_watchdog(0, "");
}

/* What nobody is interested in goes other ways than what was asked: both. */
static void check_towers(enum shape shape)
{
	long levels = test_rounds(test_is_sanitized() ? 3000 : 20000);

	for (enum fate fate = 0; fate < FATES; fate++) {
		check_tower(shape, fate, levels, false);
		check_tower(shape, fate, levels, true);
	}
}

static void million_nested_arrays(void **state)
{
	long levels = test_rounds(test_is_sanitized() ? 20000 : 1000000);

	for (enum fate fate = 0; fate < FATES; fate++)
		check_tower(TOWER_ARRAYS, fate, levels, fate == OUTSIDE_IN);
}

static void twenty_thousand_nested_arrays(void **state)
{
	check_towers(TOWER_ARRAYS);
}

static void twenty_thousand_nested_any_arrays(void **state)
{
	check_towers(TOWER_ANY);
}

static void chain_of_twenty_thousand(void **state)
{
	check_towers(TOWER_CHAIN);
}

static void twenty_thousand_joined_chains(void **state)
{
	check_towers(TOWER_JOINED);
}

static void twenty_thousand_shared_arrays(void **state)
{
	check_towers(TOWER_SHARED);
}

static void twenty_thousand_of_all_kinds(void **state)
{
	check_towers(TOWER_MIXED);
}

/* The last reference goes from inside a callback at the bottom: the whole tower dies within a dispatch. */
struct dropping_cb {
	struct lf_fence_cb cb;
	struct lf_fence *top;
};

static void drop_top(struct lf_fence *f, struct lf_fence_cb *cb)
{
	lf_fence_put(((struct dropping_cb *)(void *)cb)->top);
}

static void *drop_tower_inside_callback(void *arg)
{
	long levels = *(long *)arg;
	struct lf_fence *trigger, *f;
	struct dropping_cb cb = { .top = NULL };

	must(lf_fence_create(&trigger) == 0 && lf_fence_create(&cb.top) == 0);
	for (long i = 0; i < levels; i++) {
		must(lf_fence_create(&f) == 0);
		cb.top = raise(TOWER_MIXED, i, cb.top, f);
	}
	must(lf_fence_add_callback(trigger, &cb.cb, drop_top) == 0);
	must(lf_fence_signal(trigger, 0));
	lf_fence_put(trigger);
	return NULL;
}

static void pending_tower_that_is_put_inside_a_callback(void **state)
{
	long levels = test_rounds(test_is_sanitized() ? 3000 : 20000);

	thread_run(drop_tower_inside_callback, &levels, small_stack());
}

/* Threads that wait at every hundredth level, and callbacks everywhere: one signal ends it all. */
struct level_waiter {
	pthread_t thread;
	struct lf_fence *f;
};

static void *wait_for_level(void *arg)
{
	return (void *)(intptr_t)lf_fence_wait(arg, LF_DEADLINE_NEVER);
}

static void one_signal_wakes_and_calls_back_on_all_levels(void **state)
{
	enum { LEVELS = 1000, WAITERS = 10 };
	static struct noted_cb cb[LEVELS];
	static struct lf_fence *level[LEVELS];
	struct level_waiter waiter[WAITERS];
	struct lf_fence *bottom = plain();

	for (long i = 0; i < LEVELS; i++) {
		level[i] = raise(TOWER_MIXED, i, i ? GET(level[i - 1]) : GET(bottom), GET(bottom));
		noted_add(&cb[i], level[i]);
	}
	for (long i = 0; i < WAITERS; i++)
		waiter[i].thread = thread_start(wait_for_level, level[i * LEVELS / WAITERS], 0);
	done_at(bottom, -EIO, 8);
	for (long i = 0; i < WAITERS; i++)
		assert_int_equal((intptr_t)thread_join(waiter[i].thread), 0);
	for (long i = 0; i < LEVELS; i++) {
		assert_int_equal(cb[i].ran, 1);
		assert_int_equal(cb[i].status, -EIO);
		assert_int_equal(cb[i].timestamp, 8);
		lf_fence_put(level[i]);
	}
	lf_fence_put(bottom);
}

/* --- Random graphs against a model ------------------------------------------------------------------------------------ */

/*
 * Up to LEAVES fences, and containers of all kinds over them and over each other, some made before, some between signals. After each signal
 * every container is compared with what the model says from the states of the leaves alone: whether it is signaled, and since which step;
 * its timestamp; its status.
 *
 * Where several members of an array fail in the same step (they hang on the same leaf), it is not promised which is told first: then any of
 * theirs will do. How often that was so is printed.
 */
enum { LEAVES_MAX = 64, NODES_MAX = 160, MEMBERS_MAX = 5, NEVER = 1 << 30 };

enum node_kind { NODE_LEAF, NODE_ALL, NODE_ANY, NODE_LINK };

struct node {
	enum node_kind kind;
	struct lf_fence *f;
	int members[MEMBERS_MAX], count; /* of a link: prev if there is one, and its fence */
	int made; /* the step before which it was made */
	bool callback;
	struct noted_cb cb;
	/* the model's */
	int step; /* in which it was signaled; NEVER while pending */
	int64_t timestamp;
};

struct graph {
	struct node node[NODES_MAX];
	int count;
	int step;
	long compared, ambiguous;
	uint64_t random;
};

static int64_t later_of(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* For the order of what was there before a container was made, which counts as one moment. */
static int step_seen_by(const struct node *n, const struct node *member)
{
	return member->step < n->made ? -1 : member->step;
}

static bool is_status_of_any(const struct graph *g, const struct node *n, int status, bool errors_only)
{
	int first = NEVER;
	bool found = false;
	int distinct = 0, last = 0;

	for (int i = 0; i < n->count; i++) {
		const struct node *m = &g->node[n->members[i]];

		if (m->step != NEVER && !(errors_only && lf_fence_status(m->f) == 1) && step_seen_by(n, m) < first)
			first = step_seen_by(n, m);
	}
	for (int i = 0; i < n->count; i++) {
		const struct node *m = &g->node[n->members[i]];

		if (m->step == NEVER || (errors_only && lf_fence_status(m->f) == 1) || step_seen_by(n, m) != first)
			continue;
		/* of what was signaled when it was made, the first in order */
		if (first == -1 && distinct == 1)
			break;
		if (distinct == 0 || lf_fence_status(m->f) != last)
			distinct++;
		last = lf_fence_status(m->f);
		found |= last == status && (errors_only || m->timestamp == n->timestamp);
	}
	((struct graph *)(uintptr_t)g)->ambiguous += distinct > 1;
	return distinct == 0 ? errors_only && status == 1 : found;
}

static void compute(struct graph *g, struct node *n)
{
	int first = NEVER, last = -1;
	int64_t latest = 0;

	for (int i = 0; i < n->count; i++) {
		const struct node *m = &g->node[n->members[i]];

		first = m->step < first ? m->step : first;
		last = m->step > last ? m->step : last;
		if (m->step != NEVER)
			latest = later_of(latest, m->timestamp);
	}
	n->step = n->kind == NODE_ANY ? first : last;
	/* of an *any* array whose members are signaled in the same step it may be that of each; see below */
	n->timestamp = n->step == NEVER ? INT64_MIN : n->kind == NODE_ANY ? lf_fence_timestamp(n->f) : latest;
}

static void compare(struct graph *g, const struct node *n)
{
	int status = lf_fence_status(n->f);

	g->compared++;
	assert_int_equal(lf_fence_is_signaled(n->f), n->step != NEVER);
	assert_true(lf_fence_timestamp(n->f) == n->timestamp);
	if (n->callback)
		assert_int_equal(n->cb.ran, n->step != NEVER);
	if (n->step == NEVER) {
		assert_int_equal(status, 0);
		return;
	}
	if (n->kind == NODE_ALL)
		assert_true(is_status_of_any(g, n, status, true));
	else if (n->kind == NODE_ANY)
		assert_true(is_status_of_any(g, n, status, false));
	else {
		int expected = 1;

		for (int i = 0; i < n->count && expected == 1; i++)
			expected = lf_fence_status(g->node[n->members[i]].f);
		assert_int_equal(status, expected);
	}
}

static void add_container(struct graph *g)
{
	struct node *n = &g->node[g->count];
	struct lf_fence *members[MEMBERS_MAX];
	/* mostly of what is near, so that it becomes deep */
	uint64_t reach = random_next(&g->random) % 3 ? 12 : (uint64_t)g->count;

	memset(n, 0, sizeof(*n));
	n->kind = (enum node_kind)(NODE_ALL + random_next(&g->random) % 3);
	n->made = g->step;
	n->count = n->kind == NODE_LINK ? 1 + (int)(random_next(&g->random) % 2) : 1 + (int)(random_next(&g->random) % MEMBERS_MAX);
	if (reach > (uint64_t)g->count)
		reach = (uint64_t)g->count;
	for (int i = 0; i < n->count; i++) {
		n->members[i] = g->count - 1 - (int)(random_next(&g->random) % reach);
		members[i] = GET(g->node[n->members[i]].f);
	}
	if (n->kind == NODE_LINK) {
		struct lf_fence *prev = n->count == 2 ? members[0] : NULL;
		uint64_t seqno = 1 + random_next(&g->random) % 3;

		if (prev && lf_fence_is_chain(prev))
			seqno += lf_fence_seqno(prev);
		n->f = join(prev, members[n->count - 1], seqno);
	} else {
		n->f = make_array(n->kind == NODE_ANY ? LF_ARRAY_ANY : LF_ARRAY_ALL, members, (size_t)n->count);
	}
	n->callback = random_next(&g->random) % 3 == 0 && lf_fence_add_callback(n->f, &n->cb.cb, noted_run) == 0;
	compute(g, n);
	compare(g, n);
	g->count++;
}

static void play_graph(struct graph *g)
{
	int leaves = 1 + (int)(random_next(&g->random) % LEAVES_MAX), order[LEAVES_MAX];
	int containers = 1 + (int)(random_next(&g->random) % (NODES_MAX - LEAVES_MAX - LEAVES_MAX / 2));

	g->count = 0;
	g->step = 0;
	for (; g->count < leaves; g->count++) {
		struct node *n = &g->node[g->count];

		memset(n, 0, sizeof(*n));
		n->step = NEVER;
		n->timestamp = INT64_MIN;
		n->f = plain();
		order[g->count] = g->count;
	}
	for (int i = 0; i < containers; i++)
		add_container(g);
	for (int i = leaves - 1; i > 0; i--) {
		int k = (int)(random_next(&g->random) % (uint64_t)(i + 1)), swap = order[i];

		order[i] = order[k];
		order[k] = swap;
	}
	for (int i = 0; i < leaves; i++) {
		struct node *leaf = &g->node[order[i]];
		/* each leaf has an error of its own, so that it is seen whose is whose */
		int error = random_next(&g->random) % 3 ? 0 : -(order[i] + 1);

		leaf->step = g->step;
		leaf->timestamp = (int64_t)(random_next(&g->random) % 1000);
		done_at(leaf->f, error, leaf->timestamp);
		for (int n = leaves; n < g->count; n++) {
			/* what is signaled is final; what was not is computed from scratch */
			if (g->node[n].step == NEVER)
				compute(g, &g->node[n]);
			compare(g, &g->node[n]);
		}
		g->step++;
		if (g->count < NODES_MAX && random_next(&g->random) % 2)
			add_container(g);
	}
	/* in an order that has nothing to do with how it was built */
	for (int i = 0; i < g->count; i++)
		lf_fence_put(g->node[(i * 7919) % g->count].f);
}

/* The number by which the puts step has no divisor in common with the count, being a prime above it. */
_Static_assert(NODES_MAX < 7919, "each node is put once");

static void random_graphs_against_a_model(void **state)
{
	static struct graph g;
	long rounds = test_rounds(test_is_sanitized() ? 100 : 1000);

	memset(&g, 0, sizeof(g));
	g.random = test_seed();
	for (long i = 0; i < rounds; i++)
		play_graph(&g);
	test_note("%ld graphs: %ld comparisons, %ld of them where the order was not promised", rounds, g.compared, g.ambiguous);
	/* or the test would hold nothing */
	assert_true(g.ambiguous < g.compared / 10);
}

/* The same graphs, put while they are pending, from the top, from the bottom and in between. */
static void random_graphs_put_while_pending(void **state)
{
	static struct graph g;
	long rounds = test_rounds(test_is_sanitized() ? 50 : 500);

	memset(&g, 0, sizeof(g));
	g.random = test_seed();
	for (long r = 0; r < rounds; r++) {
		int leaves = 1 + (int)(random_next(&g.random) % LEAVES_MAX);

		for (g.count = 0; g.count < leaves; g.count++) {
			memset(&g.node[g.count], 0, sizeof(g.node[0]));
			g.node[g.count].step = NEVER;
			g.node[g.count].f = plain();
		}
		while (g.count < NODES_MAX)
			add_container(&g);
		for (int i = 0; i < g.count; i++) {
			struct node *n = &g.node[(i * 7919) % g.count];

			if (n->callback)
				assert_int_equal(lf_fence_remove_callback(n->f, &n->cb.cb), LF_CB_REMOVED);
			if (n->kind == NODE_LEAF && random_next(&g.random) % 4 == 0)
				n->made = -1;
			else
				lf_fence_put(n->f);
		}
		/* some leaves end after all that stood on them is gone */
		for (int i = 0; i < leaves; i++)
			if (g.node[i].made == -1)
				done_put(g.node[i].f, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(array_in_array),
		TEST_WARM(any_in_all_and_all_in_any),
		TEST_WARM(chain_in_array_and_array_in_chain),
		TEST_WARM(chain_in_chain),
		TEST_WARM(shared_parts_serve_each_whole),
		TEST_WARM(million_nested_arrays),
		TEST_WARM(twenty_thousand_nested_arrays),
		TEST_WARM(twenty_thousand_nested_any_arrays),
		TEST_WARM(chain_of_twenty_thousand),
		TEST_WARM(twenty_thousand_joined_chains),
		TEST_WARM(twenty_thousand_shared_arrays),
		TEST_WARM(twenty_thousand_of_all_kinds),
		TEST_WARM(pending_tower_that_is_put_inside_a_callback),
		TEST_WARM(one_signal_wakes_and_calls_back_on_all_levels),
		TEST_WARM(random_graphs_against_a_model),
		TEST_WARM(random_graphs_put_while_pending),
	};
	return TEST_MAIN(tests);
}
