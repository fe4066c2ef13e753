/* SPDX-License-Identifier: MIT */
/* Looking into containers: leaves, merging, flattening. */
#include "containers.h"

enum { WRONG_FLAGS = 0x40 };

/* The result pointer of a call that failed. */
#define UNTOUCHED ((struct lf_fence *)(void *)&untouched)
static int untouched;

/* --- Leaves: it works at all ------------------------------------------------------------------------------------------ */

static void fence_that_is_no_container_is_its_own_one_leaf(void **state)
{
	struct producer p;

	producer_init(&p, LF_TIMELINE_ORDERED);
	struct lf_fence *a = plain(), *f = emit(p.tl), *stub = lf_fence_stub(), *done_already = signaled(-EIO, 1);
	struct lf_fence *each[] = { a, f, stub, done_already };
	for (size_t i = 0; i < 4; i++) {
		assert_false(lf_fence_is_container(each[i]));
		/* signaled or not */
		LEAVES(each[i], each[i]);
		LEAVES_ANY(each[i], each[i]);
	}
	done(a, 0);
	LEAVES(a, a);
	lf_fence_put(a);
	lf_fence_put(f);
	lf_fence_put(stub);
	lf_fence_put(done_already);
	producer_fini(&p, 1);
}

static void nothing_has_no_leaves(void **state)
{
	NO_LEAVES(NULL);
	expect_walk(NULL, LF_UNWRAP_KEEP_ANY, NULL, 0);
}

static void leaves_come_in_the_order_of_members_and_of_points(void **state)
{
	struct lf_fence *f[7];

	for (size_t i = 0; i < 7; i++)
		f[i] = plain();
	struct lf_fence *array = ALL(GET(f[3]), GET(f[2]));
	struct lf_fence *one = append(GET(f[5]), GET(f[4]), 1), *two = append(GET(one), GET(array), 2);
	struct lf_fence *all = ALL(GET(f[6]), GET(two), GET(f[0]), ALL(GET(f[1])));
	LEAVES(array, f[3], f[2]);
	LEAVES(two, f[5], f[4], f[3], f[2]);
	LEAVES(all, f[6], f[5], f[4], f[3], f[2], f[0], f[1]);
	for (size_t i = 0; i < 7; i++)
		done_put(f[i], 0);
	NO_LEAVES(all);
	NO_LEAVES(two);
	lf_fence_put(all);
	lf_fence_put(two);
	lf_fence_put(one);
	lf_fence_put(array);
}

static void leaf_comes_once_where_it_occurs_first(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain();
	struct lf_fence *shared = ALL(GET(c), GET(a));
	struct lf_fence *all = ALL(GET(b), GET(shared), GET(a), append(GET(shared), GET(b), 1), GET(shared), GET(c));

	LEAVES(all, b, c, a);
	lf_fence_put(all);
	all = ALL(GET(a), GET(shared), GET(shared));
	LEAVES(all, a, c);
	lf_fence_put(all);
	lf_fence_put(shared);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
}

static void what_is_signaled_is_left_out(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain();
	struct lf_fence *link = append(append(NULL, GET(a), 1), GET(b), 2), *all = ALL(GET(link), GET(c), GET(a));

	done(b, 0);
	LEAVES(all, a, c);
	done(a, 0);
	LEAVES(all, c);
	NO_LEAVES(link);
	done(c, 0);
	NO_LEAVES(all);
	lf_fence_put(all);
	lf_fence_put(link);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
}

static void any_array_is_looked_into_or_kept_as_asked(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain();
	struct lf_fence *any = ANY(GET(a), ALL(GET(b))), *all = ALL(GET(c), GET(any), GET(a), GET(any));

	LEAVES(any, a, b);
	LEAVES_ANY(any, any);
	LEAVES(all, c, a, b);
	LEAVES_ANY(all, c, any, a);
	done(a, 0);
	/* signaled, and gone as a whole */
	NO_LEAVES(any);
	LEAVES(all, c);
	LEAVES_ANY(all, c);
	lf_fence_put(all);
	lf_fence_put(any);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
}

static void any_array_of_one_counts_as_a_leaf_like_any_other(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *any = ANY(GET(a)), *all = ALL(GET(any), GET(b)), *merged = MERGE(any, b);

	LEAVES_ANY(any, any);
	LEAVES_ANY(all, any, b);
	LEAVES(all, a, b);
	SET(merged, any, b);
	lf_fence_put(merged);
	lf_fence_put(all);
	lf_fence_put(any);
	lf_fence_put(a);
	lf_fence_put(b);
}

static void any_arrays_in_any_arrays(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *inner = ANY(GET(b), GET(a)), *outer = ANY(GET(inner), GET(b));
	struct lf_fence *link = append(GET(outer), ALL(GET(inner)), 1);

	LEAVES(link, b, a);
	LEAVES_ANY(link, outer, inner);
	LEAVES_ANY(outer, outer);
	lf_fence_put(link);
	lf_fence_put(outer);
	lf_fence_put(inner);
	lf_fence_put(a);
	lf_fence_put(b);
}

static void walk_holds_references_to_its_end(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *all = ALL(GET(a), GET(b));
	struct lf_unwrap walk;
	long before = live();

	assert_int_equal(lf_unwrap_begin(&walk, all, 0), 0);
	assert_int_equal(walk.count, 2);
	done(a, -EIO);
	done(b, 0);
	lf_fence_put(all);
	lf_fence_put(a);
	lf_fence_put(b);
	/* what has been collected stays, though it is signaled by now */
	assert_ptr_equal(lf_unwrap_next(&walk), a);
	assert_int_equal(lf_fence_status(a), -EIO);
	assert_ptr_equal(lf_unwrap_next(&walk), b);
	assert_int_equal(lf_fence_status(b), 1);
	assert_null(lf_unwrap_next(&walk));
	lf_unwrap_end(&walk);
	assert_true(live() <= before - 3);
	lf_unwrap_end(&walk);
}

static void walk_may_be_ended_before_its_end(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *all = ALL(GET(a), GET(b));
	struct lf_unwrap walk;

	assert_int_equal(lf_unwrap_begin(&walk, all, 0), 0);
	assert_ptr_equal(lf_unwrap_next(&walk), a);
	lf_unwrap_end(&walk);
	assert_int_equal(lf_unwrap_begin(&walk, all, 0), 0);
	lf_unwrap_end(&walk);
	lf_fence_put(all);
	lf_fence_put(a);
	lf_fence_put(b);
}

static void walk_with_unknown_flags_is_refused(void **state)
{
	struct lf_fence *a = plain();
	struct lf_unwrap walk;

	assert_int_equal(lf_unwrap_begin(&walk, a, WRONG_FLAGS), -EINVAL);
	assert_int_equal(lf_unwrap_begin(&walk, NULL, LF_UNWRAP_KEEP_ANY | 2), -EINVAL);
	expect_misuse(2);
	lf_fence_put(a);
}

static void walk_arms_nobody(void **state)
{
	struct producer p;

	producer_init(&p, LF_TIMELINE_UNORDERED);
	struct lf_fence *f = emit(p.tl), *all = ALL(GET(f), append(NULL, GET(f), 1)), *flat = flatten(all);
	LEAVES(all, f);
	assert_int_equal(p.enables + p.polls + p.hints, 0);
	assert_true(lf_timeline_signal_one(p.tl, f, 0));
	lf_fence_put(flat);
	lf_fence_put(all);
	lf_fence_put(f);
	producer_fini(&p, 1);
}

/* --- Shared graphs ---------------------------------------------------------------------------------------------------- */

/* What takes one step for each way from the top to the leaves never ends here. */
static void check_shared_graph(struct lf_fence *top, struct lf_fence *leaf, struct producer *p)
{
	struct noted_cb cb;
	struct lf_fence *flat;
	char text[200];

	LEAVES(top, leaf);
	LEAVES_ANY(top, leaf);
	flat = flatten(top);
	assert_ptr_equal(flat, leaf);
	lf_fence_put(flat);
	assert_int_equal(lf_fence_check(top), 0);
	assert_int_equal(p->polls, 1);
	lf_fence_set_deadline(top, 7);
	assert_int_equal(p->hints, 1);
	assert_true(lf_fence_describe(top, text, sizeof(text)) > 0);
	noted_add(&cb, top);
	assert_int_equal(p->enables, 1);
	assert_int_equal(lf_fence_wait(top, 0), -ETIME);
	assert_true(lf_timeline_signal_one(p->tl, leaf, -EIO));
	assert_int_equal(cb.ran, 1);
	assert_int_equal(lf_fence_status(top), -EIO);
	NO_LEAVES(top);
}

enum shared_shape { SHARED_ARRAYS, SHARED_JOINED_LINKS, SHARED_MIXED, SHARED_SHAPES };

/* Each level holds the one before twice: 2^40 ways from the top to the leaf. */
static struct lf_fence *shared_graph(struct lf_fence *leaf, enum shared_shape shape)
{
	struct lf_fence *top = GET(leaf);

	for (unsigned level = 1; level <= 40; level++) {
		if (shape == SHARED_ARRAYS || (shape == SHARED_MIXED && level % 2))
			top = ALL(GET(top), top);
		else
			top = join(GET(top), top, level);
	}
	return top;
}

static void graph_with_more_ways_than_can_be_walked_is_walked_by_fences(void **state)
{
	test_watchdog(20, "a shared graph of 40 levels");
	for (enum shared_shape shape = 0; shape < SHARED_SHAPES; shape++) {
		struct producer p;

		producer_init(&p, LF_TIMELINE_UNORDERED);
		struct lf_fence *leaf = emit(p.tl), *top = shared_graph(leaf, shape);
		check_shared_graph(top, leaf, &p);
		lf_fence_put(top);
		lf_fence_put(leaf);
		/* and one that is put while it is pending */
		leaf = emit(p.tl);
		lf_fence_put(shared_graph(leaf, shape));
		lf_fence_put(leaf);
		producer_fini(&p, 2);
	}
	test_watchdog(0, "");
}

static void lattice_of_arrays_yields_each_leaf_once_in_order(void **state)
{
	enum { WIDTH = 8, LEVELS = 30 };
	struct lf_fence *level[WIDTH], *next[WIDTH], *leaves[WIDTH];

	test_watchdog(20, "a lattice of arrays");
	for (size_t i = 0; i < WIDTH; i++)
		level[i] = GET(leaves[i] = plain());
	for (size_t l = 0; l < LEVELS; l++) {
		for (size_t i = 0; i < WIDTH; i++) {
			for (size_t k = 0; k < WIDTH; k++)
				GET(level[k]);
			next[i] = make_array(LF_ARRAY_ALL, level, WIDTH);
		}
		for (size_t i = 0; i < WIDTH; i++)
			lf_fence_put(level[i]);
		memcpy(level, next, sizeof(level));
	}
	expect_walk(level[3], 0, leaves, WIDTH);
	struct lf_fence *merged = MERGE(level[0], level[7]);
	expect_set(merged, leaves, WIDTH);
	for (size_t i = 0; i < WIDTH; i++)
		done_put(leaves[i], i == 5 ? -EIO : 0);
	assert_int_equal(lf_fence_status(merged), -EIO);
	lf_fence_put(merged);
	for (size_t i = 0; i < WIDTH; i++) {
		assert_int_equal(lf_fence_status(level[i]), -EIO);
		lf_fence_put(level[i]);
	}
	test_watchdog(0, "");
}

static void leaves_of_a_wide_array(void **state)
{
	enum { N = 20000 };
	static struct lf_fence *members[N], *twice[2 * N];
	long n = test_rounds(test_is_sanitized() ? N / 10 : N);

	n = n < N ? n : N;
	for (long i = 0; i < n; i++) {
		members[i] = plain();
		twice[i] = GET(members[i]);
		twice[2 * n - 1 - i] = GET(members[i]);
	}
	struct lf_fence *all = make_array(LF_ARRAY_ALL, twice, (size_t)(2 * n));
	expect_walk(all, 0, members, (size_t)n);
	for (long i = 0; i < n; i++)
		done_put(members[i], 0);
	assert_int_equal(lf_fence_status(all), 1);
	lf_fence_put(all);
}

/* --- Merging ---------------------------------------------------------------------------------------------------------- */

static void merging_nothing_makes_the_stub(void **state)
{
	struct lf_fence *stub = lf_fence_stub(), *f = NULL;

	assert_int_equal(lf_fence_merge(NULL, 0, &f), 0);
	assert_ptr_equal(f, stub);
	lf_fence_put(f);
	f = MERGE(NULL, NULL, NULL);
	assert_ptr_equal(f, stub);
	lf_fence_put(f);
	lf_fence_put(stub);
}

static void one_fence_that_is_left_is_taken_itself(void **state)
{
	struct lf_fence *a = plain(), *array = ALL(ALL(GET(a)), GET(a)), *link = append(NULL, GET(a), 1), *f;
	struct lf_fence *fine = signaled(0, 50), *stub = lf_fence_stub(), *fine_array = ALL(signaled(0, 60));

	f = MERGE(a);
	assert_ptr_equal(f, a);
	lf_fence_put(f);
	f = MERGE(NULL, a, NULL, a);
	assert_ptr_equal(f, a);
	lf_fence_put(f);
	f = MERGE(array, link);
	assert_ptr_equal(f, a);
	lf_fence_put(f);
	f = MERGE(fine, a, stub, fine_array);
	assert_ptr_equal(f, a);
	lf_fence_put(f);
	/* its arguments are borrowed */
	done_put(a, 0);
	assert_int_equal(lf_fence_status(array), 1);
	lf_fence_put(array);
	lf_fence_put(link);
	lf_fence_put(fine);
	lf_fence_put(fine_array);
	lf_fence_put(stub);
}

static void fences_without_order_are_all_taken_each_once(void **state)
{
	struct producer p;

	producer_init(&p, LF_TIMELINE_UNORDERED);
	struct lf_fence *f = emit(p.tl), *g = emit(p.tl), *a = plain(), *b = plain();
	struct lf_fence *array = ALL(GET(f), GET(a)), *merged = MERGE(g, array, b, f, NULL, a, g);
	assert_true(lf_fence_is_array(merged));
	SET(merged, f, g, a, b);
	expect_pending(merged);
	done(a, 0);
	done(b, 0);
	assert_true(lf_timeline_signal_one(p.tl, g, 0));
	expect_pending(merged);
	assert_true(lf_timeline_signal_one(p.tl, f, -EIO));
	assert_int_equal(lf_fence_status(merged), -EIO);
	lf_fence_put(merged);
	lf_fence_put(array);
	lf_fence_put(f);
	lf_fence_put(g);
	lf_fence_put(a);
	lf_fence_put(b);
	producer_fini(&p, 2);
}

static void of_an_ordered_timeline_the_newest_is_taken(void **state)
{
	struct producer p, q;

	producer_init(&p, LF_TIMELINE_ORDERED);
	producer_init(&q, LF_TIMELINE_ORDERED);
	struct lf_fence *one = emit(p.tl), *two = emit(p.tl), *three = emit(p.tl), *other = emit(q.tl), *newer = emit(q.tl);
	struct lf_fence *merged = MERGE(one, three, two);
	assert_ptr_equal(merged, three);
	lf_fence_put(merged);
	struct lf_fence *array = ALL(GET(two), GET(newer)), *link = append(append(NULL, GET(three), 1), GET(other), 2);
	merged = MERGE(one, array, link, other);
	SET(merged, three, newer);
	lf_fence_put(merged);
	/* states of an ordered timeline go forward only: when the newest is signaled, so are the older ones */
	assert_int_equal(lf_timeline_signal_to(p.tl, 2, 0), 2);
	merged = MERGE(two, one, newer, other);
	assert_ptr_equal(merged, newer);
	lf_fence_put(merged);
	lf_fence_put(array);
	lf_fence_put(link);
	lf_fence_put(one);
	lf_fence_put(two);
	lf_fence_put(three);
	lf_fence_put(other);
	lf_fence_put(newer);
	producer_fini(&p, 3);
	producer_fini(&q, 2);
}

static void chains_are_dissolved_into_what_is_pending_of_them(void **state)
{
	struct lf_fence *f[5];

	for (size_t i = 0; i < 5; i++)
		f[i] = plain();
	struct lf_fence *one = append(GET(f[0]), GET(f[1]), 1), *two = append(GET(one), GET(f[2]), 2);
	struct lf_fence *other = join(NULL, GET(two), 9), *last = append(GET(other), ALL(GET(f[3]), GET(f[4])), 10);
	struct lf_fence *merged = MERGE(last, one);
	SET(merged, f[0], f[1], f[2], f[3], f[4]);
	lf_fence_put(merged);
	done(f[1], 0);
	done(f[3], 0);
	merged = flatten(last);
	SET(merged, f[0], f[2], f[4]);
	lf_fence_put(merged);
	merged = flatten(one);
	assert_ptr_equal(merged, f[0]);
	lf_fence_put(merged);
	for (size_t i = 0; i < 5; i++)
		lf_fence_put(f[i]);
	lf_fence_put(one);
	lf_fence_put(two);
	lf_fence_put(other);
	lf_fence_put(last);
}

static void any_arrays_are_taken_as_they_are(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain();
	struct lf_fence *any = ANY(GET(a), GET(b)), *array = ALL(GET(any), GET(c)), *merged = MERGE(array, any, c);

	SET(merged, any, c);
	done(c, 0);
	expect_pending(merged);
	lf_fence_put(array);
	struct lf_fence *alone = MERGE(any, c);
	assert_ptr_equal(alone, any);
	lf_fence_put(alone);
	alone = flatten(any);
	assert_ptr_equal(alone, any);
	lf_fence_put(alone);
	done(b, -EIO);
	assert_int_equal(lf_fence_status(merged), -EIO);
	lf_fence_put(merged);
	lf_fence_put(any);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
}

static void result_holds_leaves_only(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *deep = ALL(GET(a), GET(b));

	for (unsigned i = 1; i < 10; i++)
		deep = i % 2 ? append(GET(a), deep, i) : ALL(deep, GET(b));
	long before = live();
	struct lf_fence *flat = flatten(deep);
	assert_true(lf_fence_is_array(flat));
	SET(flat, a, b);
	long with = live();
	/* it does not hold what it was made of */
	lf_fence_put(deep);
	assert_true(live() <= with - 10);
	assert_true(with > before);
	done_put(a, 0);
	done_put(b, 0);
	assert_int_equal(lf_fence_status(flat), 1);
	lf_fence_put(flat);
}

static void what_has_completed_is_remembered_with_its_error_and_its_timestamp(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *failed = signaled(-EIO, 900), *failed_too = signaled(-EPERM, 950);
	struct lf_fence *fine = signaled(0, 980);
	struct lf_fence *merged = MERGE(a, failed, fine, b, failed_too);

	SET(merged, a, b);
	expect_pending(merged);
	done_at(a, -ENOSPC, 100);
	done_at(b, 0, 200);
	expect_signaled(merged, -EIO, 980);
	lf_fence_put(merged);
	/* with one that is left it takes an array to remember */
	struct lf_fence *c = plain();
	merged = MERGE(failed_too, c, failed);
	assert_ptr_not_equal(merged, c);
	SET(merged, c);
	done_at(c, 0, 300);
	expect_signaled(merged, -EPERM, 950);
	lf_fence_put(merged);
	/* and with none a fence that is signaled */
	merged = MERGE(fine, failed, NULL, a);
	expect_signaled(merged, -EIO, 980);
	lf_fence_put(merged);
	merged = MERGE(fine, b);
	expect_signaled(merged, 1, 980);
	assert_false(lf_fence_is_container(merged) && !lf_fence_is_signaled(merged));
	lf_fence_put(merged);
	merged = flatten(failed);
	expect_signaled(merged, -EIO, 900);
	lf_fence_put(merged);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
	lf_fence_put(failed);
	lf_fence_put(failed_too);
	lf_fence_put(fine);
}

static void containers_remember_what_they_let_go(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain(), *d = plain(), *failed = signaled(-EPERM, 5);
	struct lf_fence *array = ALL(GET(a), GET(b)), *link = append(append(NULL, GET(c), 1), GET(d), 2), *merged;

	/* the leaf is gone, its error and its time are in the array */
	done_at(a, -EIO, 700);
	merged = flatten(array);
	SET(merged, b);
	done_at(b, 0, 20);
	expect_signaled(merged, -EIO, 700);
	lf_fence_put(merged);
	/* and in a link whose predecessor is gone */
	done_at(c, -ENOSPC, 800);
	merged = flatten(link);
	SET(merged, d);
	lf_fence_put(merged);
	/* the first in order counts */
	merged = MERGE(link, failed, array);
	SET(merged, d);
	lf_fence_put(link);
	struct lf_fence *second = MERGE(failed, d, array);
	done_at(d, 0, 30);
	expect_signaled(merged, -ENOSPC, 800);
	expect_signaled(second, -EPERM, 700);
	lf_fence_put(merged);
	lf_fence_put(second);
	lf_fence_put(array);
	lf_fence_put(failed);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
	lf_fence_put(d);
}

static void containers_remember_through_any_nesting(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain();
	struct lf_fence *deep = ALL(append(NULL, ALL(GET(a), GET(b)), 1), ALL(ALL(GET(b), GET(c))));

	done_at(a, -EIO, 700);
	struct lf_fence *flat = flatten(deep);
	SET(flat, b, c);
	done_at(b, 0, 8);
	done_at(c, 0, 9);
	expect_signaled(flat, -EIO, 700);
	expect_signaled(deep, -EIO, 700);
	lf_fence_put(flat);
	/* of a fence in a link that is signaled while the link waits for those before it */
	struct lf_fence *d = plain(), *e = plain(), *link = append(append(NULL, GET(d), 1), GET(e), 2);
	done_at(e, -EPERM, 900);
	flat = MERGE(link);
	SET(flat, d);
	done_at(d, 0, 10);
	expect_signaled(flat, -EPERM, 900);
	expect_signaled(link, -EPERM, 900);
	lf_fence_put(flat);
	lf_fence_put(link);
	lf_fence_put(deep);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
	lf_fence_put(d);
	lf_fence_put(e);
}

/* Along a chain the first error is that of the earliest point, whichever was there first: without the nesting it is the same. */
static void flattened_chain_has_the_error_of_the_chain(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain();
	struct lf_fence *link = append(append(append(NULL, GET(a), 1), GET(b), 2), GET(c), 3);

	done_at(c, -EPERM, 10);
	done_at(b, -EIO, 20);
	struct lf_fence *flat = flatten(link);
	SET(flat, a);
	done_at(a, 0, 5);
	expect_signaled(link, -EIO, 20);
	expect_signaled(flat, -EIO, 20);
	lf_fence_put(flat);
	lf_fence_put(link);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
}

/* Random fences of ordered and unordered timelines in random containers: nothing is lost of what a result would not stand for. */
static void merge_of_random_containers_against_a_model(void **state)
{
	enum { TIMELINES = 4, EACH = 6, FENCES_ALL = TIMELINES * EACH, INPUTS = 6, MEMBERS = 5 };
	uint64_t random = test_seed();
	long rounds = test_rounds(2000);

	for (long round = 0; round < rounds; round++) {
		struct lf_timeline *tl[TIMELINES];
		struct lf_fence *f[FENCES_ALL], *input[INPUTS], *expected[FENCES_ALL];
		bool in[FENCES_ALL] = { false };
		size_t count = 0;

		for (unsigned t = 0; t < TIMELINES; t++) {
			const struct lf_timeline_desc desc = { .name = "t", .flags = t % 2 ? LF_TIMELINE_UNORDERED : LF_TIMELINE_ORDERED };

			assert_int_equal(lf_timeline_create(&desc, &tl[t]), 0);
			for (unsigned i = 0; i < EACH; i++)
				f[t * EACH + i] = emit(tl[t]);
		}
		for (unsigned i = 0; i < INPUTS; i++) {
			struct lf_fence *members[MEMBERS];
			size_t n = 1 + (size_t)(random_next(&random) % MEMBERS);

			for (size_t m = 0; m < n; m++) {
				unsigned which = (unsigned)(random_next(&random) % (FENCES_ALL + i));

				members[m] = GET(which < FENCES_ALL ? f[which] : input[which - FENCES_ALL]);
				if (which < FENCES_ALL)
					in[which] = true;
			}
			input[i] = make_array(LF_ARRAY_ALL, members, n);
			if (random_next(&random) % 3 == 0)
				input[i] = append(GET(input[i]), input[i], 1);
		}
		struct lf_fence *merged = make_merged(input, INPUTS);
		for (unsigned i = 0; i < FENCES_ALL; i++) {
			bool newer = false;

			for (unsigned k = i + 1; k < (i / EACH + 1) * EACH; k++)
				newer |= in[k];
			if (in[i] && !(newer && lf_fence_is_ordered(f[i])))
				expected[count++] = f[i];
		}
		expect_set(merged, expected, count);
		for (unsigned t = 0; t < TIMELINES; t++)
			lf_timeline_put(tl[t]);
		assert_int_equal(lf_fence_status(merged), -ECANCELED);
		lf_fence_put(merged);
		for (unsigned i = 0; i < INPUTS; i++)
			lf_fence_put(input[i]);
		for (unsigned i = 0; i < FENCES_ALL; i++)
			lf_fence_put(f[i]);
	}
}

/* --- Flattening ------------------------------------------------------------------------------------------------------- */

static void flatten_of_a_leaf_is_the_leaf_and_of_nothing_is_refused(void **state)
{
	struct lf_fence *a = plain(), *f = flatten(a);

	assert_ptr_equal(f, a);
	lf_fence_put(f);
	f = UNTOUCHED;
	assert_int_equal(lf_fence_flatten(NULL, &f), -EINVAL);
	expect_misuse(1);
	assert_ptr_equal(f, UNTOUCHED);
	done(a, -EIO);
	f = flatten(a);
	expect_signaled(f, -EIO, lf_fence_timestamp(a));
	lf_fence_put(f);
	lf_fence_put(a);
}

static void flattened_fences_need_no_validator(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *nested = ALL(ALL(GET(a)), GET(b));

	assert_int_equal(lf_validate(LF_VALIDATE_NESTING), 0);
	struct lf_fence *flat = flatten(nested), *merged = MERGE(nested, flat, a);
	assert_int_equal(log_count(LF_LOG_WARNING), 0);
	assert_int_equal(lf_validate(0), 0);
	SET(merged, a, b);
	lf_fence_put(merged);
	lf_fence_put(flat);
	lf_fence_put(nested);
	lf_fence_put(a);
	lf_fence_put(b);
}

/* --- From inside a callback ------------------------------------------------------------------------------------------- */

struct merging_cb {
	struct lf_fence_cb cb;
	struct lf_fence *array, *merged;
	size_t leaves;
};

static void walk_and_merge(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct merging_cb *m = (struct merging_cb *)(void *)cb;
	struct lf_unwrap walk;

	must(lf_unwrap_begin(&walk, m->array, 0) == 0);
	m->leaves = walk.count;
	lf_unwrap_end(&walk);
	must(lf_fence_merge(FENCES(m->array, f), 2, &m->merged) == 0);
}

static void callback_of_a_member_may_walk_and_merge(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain(), *array = ALL(GET(a), GET(b), GET(c));
	struct merging_cb cb = { .array = array };

	assert_int_equal(lf_fence_add_callback(a, &cb.cb, walk_and_merge), 0);
	done(a, -EIO);
	/* in the callback the array has let go already */
	assert_int_equal(cb.leaves, 2);
	SET(cb.merged, b, c);
	done_put(b, 0);
	done_put(c, 0);
	assert_int_equal(lf_fence_status(cb.merged), -EIO);
	lf_fence_put(cb.merged);
	lf_fence_put(array);
	lf_fence_put(a);
}

static void walk_inside_a_read_section(void **state)
{
	struct lf_fence *a = plain(), *array = ALL(GET(a));

	lf_read_lock();
	LEAVES(array, a);
	struct lf_fence *flat = flatten(array);
	lf_read_unlock();
	assert_ptr_equal(flat, a);
	lf_fence_put(flat);
	lf_fence_put(array);
	lf_fence_put(a);
}

/* --- Memory that runs out --------------------------------------------------------------------------------------------- */

static int walk_all(void *arg)
{
	struct lf_fence *const *given = arg;
	struct lf_unwrap walk;
	int error = lf_unwrap_begin(&walk, given[0], 0);

	if (error)
		return error;
	assert_int_equal(walk.count, 1000);
	lf_unwrap_end(&walk);
	return 0;
}

static int merge_all(void *arg)
{
	struct lf_fence *const *given = arg;
	struct lf_fence *merged = UNTOUCHED;
	int error = lf_fence_merge(given, 3, &merged);

	if (error) {
		assert_ptr_equal(merged, UNTOUCHED);
		return error;
	}
	expect_pending(merged);
	lf_fence_put(merged);
	return 0;
}

static int merge_completed(void *arg)
{
	struct lf_fence *merged = UNTOUCHED;
	int error = lf_fence_flatten(arg, &merged);

	if (error) {
		assert_ptr_equal(merged, UNTOUCHED);
		return error;
	}
	assert_int_equal(lf_fence_status(merged), -EIO);
	lf_fence_put(merged);
	return 0;
}

static void walk_and_merge_survive_each_failure(void **state)
{
	struct lf_fence *members[1000], *a = plain(), *failed = signaled(-EIO, 4);

	for (size_t i = 0; i < 1000; i++)
		members[i] = plain();
	struct lf_fence *array = make_array(LF_ARRAY_ALL, members, 1000);
	struct lf_fence *given[] = { array, a, failed };
	assert_true(alloc_fail_each(walk_all, given) >= 1);
	assert_true(alloc_fail_each(merge_all, given) >= 2);
	/* nothing is left on any of them */
	done(a, 0);
	lf_fence_put(array);
	lf_fence_put(a);
	struct lf_fence *done_array = ALL(GET(failed));
	(void)alloc_fail_each(merge_completed, done_array);
	lf_fence_put(done_array);
	lf_fence_put(failed);
}

static void what_is_missing_is_reported(void **state)
{
	struct lf_fence *f = NULL;

	(void)state;
	assert_int_equal(lf_fence_merge(NULL, 1, &f), -EINVAL);
	assert_int_equal(lf_fence_merge(&f, 1, NULL), -EINVAL);
	assert_int_equal(log_count(LF_LOG_MISUSE), 2);
	lf_unwrap_end(NULL);
	log_reset();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(fence_that_is_no_container_is_its_own_one_leaf),
		TEST_WARM(nothing_has_no_leaves),
		TEST_WARM(leaves_come_in_the_order_of_members_and_of_points),
		TEST_WARM(leaf_comes_once_where_it_occurs_first),
		TEST_WARM(what_is_signaled_is_left_out),
		TEST_WARM(any_array_is_looked_into_or_kept_as_asked),
		TEST_WARM(any_array_of_one_counts_as_a_leaf_like_any_other),
		TEST_WARM(any_arrays_in_any_arrays),
		TEST_WARM(walk_holds_references_to_its_end),
		TEST_WARM(walk_may_be_ended_before_its_end),
		TEST_WARM(walk_with_unknown_flags_is_refused),
		TEST_WARM(walk_arms_nobody),
		TEST_WARM(graph_with_more_ways_than_can_be_walked_is_walked_by_fences),
		TEST_WARM(lattice_of_arrays_yields_each_leaf_once_in_order),
		TEST_WARM(leaves_of_a_wide_array),
		TEST_WARM(merging_nothing_makes_the_stub),
		TEST_WARM(one_fence_that_is_left_is_taken_itself),
		TEST_WARM(fences_without_order_are_all_taken_each_once),
		TEST_WARM(of_an_ordered_timeline_the_newest_is_taken),
		TEST_WARM(chains_are_dissolved_into_what_is_pending_of_them),
		TEST_WARM(any_arrays_are_taken_as_they_are),
		TEST_WARM(result_holds_leaves_only),
		TEST_WARM(what_has_completed_is_remembered_with_its_error_and_its_timestamp),
		TEST_WARM(containers_remember_what_they_let_go),
		TEST_WARM(containers_remember_through_any_nesting),
		TEST_WARM(flattened_chain_has_the_error_of_the_chain),
		TEST_WARM(merge_of_random_containers_against_a_model),
		TEST_WARM(flatten_of_a_leaf_is_the_leaf_and_of_nothing_is_refused),
		TEST_WARM(flattened_fences_need_no_validator),
		TEST_WARM(callback_of_a_member_may_walk_and_merge),
		TEST_WARM(walk_inside_a_read_section),
		TEST_WARM(walk_and_merge_survive_each_failure),
		TEST(what_is_missing_is_reported),
	};
	return TEST_MAIN(tests);
}
