/* SPDX-License-Identifier: MIT */
/*
 * Containers: arrays and chains whose members are signaled by several threads, while they are made, put, waited for, enabled, walked, merged and
 * searched.
 */
#include "explore.h"

#include "base/port.h"

enum { LEAVES = 4 };

static struct lf_fence *leaves[LEAVES], *inner, *outer, *links[LEAVES + 2], *made;
static struct lf_fence_cb cb, cb2;
static int wrote[LEAVES]; /* before the leaf was signaled */
static int errors[LEAVES]; /* with which it is */
static int ran, ran2, result, result2;

/* --- Helpers ---------------------------------------------------------------------------------------------------------------- */

static void make_leaves(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		CHECK(lf_fence_create(&leaves[i]) == 0);
}

static int64_t time_of(unsigned i)
{
	return 1000 * (i + 1);
}

static void signal_leaf(unsigned i)
{
	wrote[i] = 1;
	CHECK(lf_fence_signal_at(leaves[i], errors[i], time_of(i)));
}

static void signal_0(void)
{
	signal_leaf(0);
}

static void signal_1(void)
{
	signal_leaf(1);
}

static void signal_0_1(void)
{
	signal_leaf(0);
	signal_leaf(1);
}

static void signal_1_0(void)
{
	signal_leaf(1);
	signal_leaf(0);
}

static void signal_1_2(void)
{
	signal_leaf(1);
	signal_leaf(2);
}

static void signal_2_0(void)
{
	signal_leaf(2);
	signal_leaf(0);
}

static struct lf_fence *make_array(unsigned flags, struct lf_fence *a, struct lf_fence *b)
{
	struct lf_fence *const members[] = { lf_fence_get(a), lf_fence_get(b) };
	struct lf_fence *array = NULL;

	CHECK(lf_array_create(members, b ? 2 : 1, flags, &array) == 0);
	return array;
}

static void put_leaves(void)
{
	for (unsigned i = 0; i < LEAVES; i++)
		lf_fence_put(leaves[i]);
}

static void put_all(void)
{
	lf_fence_put(inner);
	lf_fence_put(outer);
	lf_fence_put(made);
	for (unsigned i = 0; i < LEAVES + 2; i++)
		lf_fence_put(links[i]);
	put_leaves();
}

static void put_inner(void)
{
	lf_fence_put(inner);
}

static void put_outer(void)
{
	lf_fence_put(outer);
}

/* --- All of -------------------------------------------------------------------------------------------------------------------- */

/* What a container stands for is signaled, and what was written before is seen. */
static void see_first(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		CHECK(lf_fence_is_signaled(leaves[i]) && wrote[i] == 1);
}

static void on_three(struct lf_fence *f, struct lf_fence_cb *node)
{
	(void)node;
	CHECK(lf_fence_status(f) == 1 && lf_fence_timestamp(f) == time_of(2));
	see_first(3);
	ran++;
}

static void make_nested(void)
{
	make_leaves(3);
	inner = make_array(LF_ARRAY_ALL, leaves[0], leaves[1]);
	outer = make_array(LF_ARRAY_ALL, inner, leaves[2]);
}

static void make_nested_with_callback(void)
{
	make_nested();
	CHECK(lf_fence_add_callback(outer, &cb, on_three) == 0);
}

static void ran_once(void)
{
	CHECK(ran == 1 && lf_fence_is_drained(outer));
	put_all();
}

static void add_to_outer(void)
{
	result = lf_fence_add_callback(outer, &cb, on_three);
	if (result) {
		CHECK(result == -ENOENT && lf_fence_status(outer) == 1);
		see_first(3);
	}
}

static void added_ran_once(void)
{
	CHECK(ran == (result == 0));
	put_all();
}

/* For the first and the last. */
static void make_nested_that_waits(void)
{
	make_nested();
	signal_1();
}

static void make_two(void)
{
	make_leaves(2);
	inner = make_array(LF_ARRAY_ALL, leaves[0], leaves[1]);
}

static void wait_for_inner(void)
{
	CHECK(lf_fence_wait(inner, LF_DEADLINE_NEVER) == 0);
	see_first(2);
}

static void look_at_inner(void)
{
	if (lf_fence_is_signaled(inner)) {
		CHECK(lf_fence_status(inner) == 1 && lf_fence_timestamp(inner) == time_of(1));
		see_first(2);
	}
}

/* Nobody keeps the leaves: those that signal have a reference each. */
static void signal_0_and_put(void)
{
	signal_0();
	lf_fence_put(leaves[0]);
}

static void signal_1_and_put(void)
{
	signal_1();
	lf_fence_put(leaves[1]);
}

static void signal_0_1_and_put(void)
{
	signal_0_and_put();
	signal_1_and_put();
}

/* Twice the same fence, and in two arrays. */
static void make_shared(void)
{
	make_leaves(1);
	inner = make_array(LF_ARRAY_ALL, leaves[0], leaves[0]);
	outer = make_array(LF_ARRAY_ANY, leaves[0], leaves[0]);
}

static void make_one_in_one(void)
{
	make_leaves(1);
	inner = make_array(LF_ARRAY_ALL, leaves[0], NULL);
	outer = make_array(LF_ARRAY_ALL, inner, NULL);
	lf_fence_put(inner);
}

/* --- Any of -------------------------------------------------------------------------------------------------------------------- */

static void see_one(const struct lf_fence *f)
{
	unsigned i = (unsigned)-lf_fence_status(f) - 1;

	CHECK(i < 2 && lf_fence_timestamp(f) == time_of(i) && wrote[i] == 1);
}

static void on_one(struct lf_fence *f, struct lf_fence_cb *node)
{
	(void)node;
	see_one(f);
	ran++;
}

static void make_any(void)
{
	errors[0] = -1;
	errors[1] = -2;
	make_leaves(2);
	outer = make_array(LF_ARRAY_ANY, leaves[0], leaves[1]);
}

static void make_any_with_callback(void)
{
	make_any();
	CHECK(lf_fence_add_callback(outer, &cb, on_one) == 0);
}

static void look_at_any(void)
{
	if (lf_fence_is_signaled(outer))
		see_one(outer);
}

/* What the array does not need any more it lets go of, though it is there itself. */
static void others_let_go(void)
{
	CHECK(lf_fence_status(outer) == -1);
	for (unsigned i = 0; i < 2; i++)
		CHECK(u32_load(&leaves[i]->count, memory_order_relaxed) == 1);
	put_all();
}

/* --- A callback on what is put (misuse) ----------------------------------------------------------------------------------------- */

static int told;

static void on_put(struct lf_fence *f, struct lf_fence_cb *node)
{
	(void)node;
	told = lf_fence_status(f);
	ran++;
}

static void make_two_with_callback(void)
{
	make_two();
	signal_0();
	CHECK(lf_fence_add_callback(inner, &cb, on_put) == 0);
}

static void told_once(void)
{
	CHECK(ran == 1 && (told == 1 || told == -EDEADLK));
	CHECK(explore_logged() == 1 || (explore_logged() == 0 && told == 1));
	put_leaves();
}

/* --- Being made ------------------------------------------------------------------------------------------------------------------ */

static void make_leaves_first(void)
{
	make_leaves(2);
}

static void make_failing_leaves_first(void)
{
	errors[0] = -1;
	errors[1] = -2;
	make_leaves(2);
}

static void make_all_now(void)
{
	inner = make_array(LF_ARRAY_ALL, leaves[0], leaves[1]);
	look_at_inner();
}

static void make_any_now(void)
{
	outer = make_array(LF_ARRAY_ANY, leaves[0], leaves[1]);
	look_at_any();
}

static void made_is_signaled(void)
{
	CHECK(inner ? lf_fence_is_drained(inner) : lf_fence_is_drained(outer));
	put_all();
}

/* --- Walking and merging --------------------------------------------------------------------------------------------------------- */

/* What a walk leaves out is signaled, and the rest comes in order. */
static void walk(struct lf_fence *f, unsigned n)
{
	struct lf_unwrap w;
	struct lf_fence *leaf;
	unsigned i = 0;

	CHECK(lf_unwrap_begin(&w, f, 0) == 0);
	while ((leaf = lf_unwrap_next(&w)) != NULL) {
		while (i < n && leaves[i] != leaf)
			CHECK(lf_fence_is_signaled(leaves[i++]));
		CHECK(i++ < n);
	}
	while (i < n)
		CHECK(lf_fence_is_signaled(leaves[i++]));
	lf_unwrap_end(&w);
}

static void walk_outer(void)
{
	walk(outer, 3);
}

static void walk_any(void)
{
	struct lf_unwrap w;
	struct lf_fence *leaf;
	bool pending = false;

	CHECK(lf_unwrap_begin(&w, outer, 0) == 0);
	while ((leaf = lf_unwrap_next(&w)) != NULL)
		pending |= leaf == leaves[1];
	if (!pending) /* it was let go of, which the array does when it is signaled */
		CHECK(lf_fence_is_signaled(outer));
	lf_unwrap_end(&w);
}

static void make_two_of_which_one_fails(void)
{
	errors[0] = -EIO;
	make_two();
}

/* The error of what the walk found gone is not lost, nor its time. */
static void merge(void)
{
	CHECK(lf_fence_merge(&inner, 1, &made) == 0);
}

static void merged_has_the_error(void)
{
	CHECK(lf_fence_status(inner) == -EIO);
	CHECK(lf_fence_status(made) == -EIO || made == leaves[0]);
	CHECK(lf_fence_timestamp(made) == time_of(1) || made == leaves[0]);
	put_all();
}

static void merge_two(void)
{
	struct lf_fence *const both[] = { leaves[0], leaves[1] };

	CHECK(lf_fence_merge(both, 2, &made) == 0);
}

static void merged_two(void)
{
	CHECK(lf_fence_status(made) == -EIO);
	put_all();
}

/* --- Chains ---------------------------------------------------------------------------------------------------------------------- */

/* Link i has seqno i + 1. */
static void append(unsigned i)
{
	CHECK(lf_chain_append(i ? lf_fence_get(links[i - 1]) : NULL, lf_fence_get(leaves[i]), i + 1, 0, &links[i]) == 0);
}

static void make_chain(unsigned n)
{
	make_leaves(n);
	for (unsigned i = 0; i < n; i++)
		append(i);
}

/* Only the last link is held by us. */
static void keep_last(unsigned n)
{
	for (unsigned i = 0; i + 1 < n; i++) {
		lf_fence_put(links[i]);
		links[i] = NULL;
	}
}

static void on_link_2(struct lf_fence *f, struct lf_fence_cb *node)
{
	(void)f;
	(void)node;
	see_first(2);
	ran2++;
}

static void make_three_links(void)
{
	make_chain(3);
	CHECK(lf_fence_add_callback(links[2], &cb, on_three) == 0);
	CHECK(lf_fence_add_callback(links[1], &cb2, on_link_2) == 0);
}

static void links_ran_once(void)
{
	CHECK(ran == 1 && ran2 == 1);
	put_all();
}

static void make_two_links(void)
{
	errors[0] = -EIO;
	errors[1] = -ENODEV;
	make_chain(2);
}

static void look_at_links(void)
{
	if (lf_fence_is_signaled(links[1])) {
		CHECK(lf_fence_status(links[1]) == -EIO && lf_fence_status(links[0]) == -EIO);
		CHECK(lf_fence_timestamp(links[1]) == time_of(1));
		see_first(2);
	}
}

static void first_error_counts(void)
{
	CHECK(lf_fence_status(links[1]) == -EIO);
	put_all();
}

static void put_link(void)
{
	lf_fence_put(links[1]);
}

static void make_two_links_of_which_we_have_one(void)
{
	make_chain(2);
	keep_last(2);
}

/* Four links, of which the fourth jumps to the first. */
static void make_four_links(void)
{
	make_chain(4);
	keep_last(4);
}

static void find(struct lf_fence *link, uint64_t seqno)
{
	struct lf_fence *found;

	CHECK(lf_chain_find_seqno(link, seqno, &found) == 0);
	if (found == lf_fence_stub()) {
		see_first((unsigned)seqno);
	} else {
		CHECK(lf_fence_seqno(found) == seqno);
		if (lf_fence_is_signaled(found))
			see_first((unsigned)seqno);
	}
	lf_fence_put(found);
}

static void find_first_two(void)
{
	find(links[3], 1);
	find(links[3], 2);
}

/* All but the first leaf is signaled, so this one signals all links, and they let go of each other. */
static void make_four_links_that_wait_for_one(void)
{
	make_four_links();
	for (unsigned i = 1; i < 4; i++)
		signal_leaf(i);
}

static void find_and_put(void)
{
	find(links[3], 1);
	lf_fence_put(links[3]);
}

static void look_around(void)
{
	struct lf_fence *prev = lf_chain_get_prev(links[1]), *fence = lf_chain_get_fence(links[1]);

	CHECK(prev ? lf_fence_seqno(prev) == 1 : lf_fence_is_signaled(leaves[0]));
	CHECK(fence ? fence == leaves[1] : lf_fence_is_signaled(leaves[1]));
	lf_fence_put(prev);
	lf_fence_put(fence);
}

/* Each of two threads appends to the first link. */
static void make_trunk(void)
{
	make_leaves(3);
	append(0);
}

static void append_branch(void)
{
	unsigned self = explore_self();

	CHECK(lf_chain_append(lf_fence_get(links[0]), lf_fence_get(leaves[self]), 2, 0, &links[self]) == 0);
}

static void branches_are_apart(void)
{
	uint64_t trunk = lf_fence_context(links[0]);

	CHECK((lf_fence_context(links[1]) == trunk) + (lf_fence_context(links[2]) == trunk) == 1);
	signal_1_2();
	CHECK(lf_fence_status(links[1]) == 1 && lf_fence_status(links[2]) == 1);
	put_all();
}

/* The next link is the fourth, which jumps, to a link that perhaps nobody holds any more. */
static void make_three_links_before_a_jump(void)
{
	make_leaves(4);
	for (unsigned i = 0; i < 3; i++)
		append(i);
	keep_last(3);
}

static void append_fourth(void)
{
	append(3);
}

static void append_fourth_and_find(void)
{
	append(3);
	find(links[3], 1);
}

static void fourth_is_whole(void)
{
	find(links[3], 2);
	signal_leaf(3);
	if (!wrote[2])
		signal_leaf(2);
	CHECK(lf_fence_status(links[3]) == 1);
	put_all();
}

static void walk_links(void)
{
	walk(links[2], 3);
}

static void make_three_plain_links(void)
{
	make_chain(3);
	keep_last(3);
}

/* --- Enabling ---------------------------------------------------------------------------------------------------------------------- */

static struct lf_timeline *tl;
static int enables[2], detaches[2], says;

static int enable(struct lf_fence *f, void *data)
{
	(void)data;
	CHECK(enables[f == leaves[1]]++ == 0);
	(void)lf_fence_is_signaled(f); /* somebody may come in between */
	return says;
}

static void detach(struct lf_fence *f, void *data)
{
	(void)data;
	CHECK(detaches[f == leaves[1]]++ == 0);
}

static const struct lf_fence_ops hooks = { .enable = enable, .detach = detach };

static void emit_two(void)
{
	CHECK(lf_timeline_create(&(struct lf_timeline_desc){ .name = "t", .ops = &hooks, .flags = LF_TIMELINE_UNORDERED }, &tl) == 0);
	for (unsigned i = 0; i < 2; i++)
		CHECK(lf_timeline_emit(tl, 0, &leaves[i]) == 0);
}

/* Two containers over one that they share. */
static void make_graph(void)
{
	emit_two();
	inner = make_array(LF_ARRAY_ALL, leaves[0], leaves[1]);
	outer = make_array(LF_ARRAY_ALL, inner, NULL);
	made = make_array(LF_ARRAY_ANY, inner, NULL);
	result = result2 = -1;
}

static void make_graph_that_is_done(void)
{
	make_graph();
	says = 1;
}

static void on_graph(struct lf_fence *f, struct lf_fence_cb *node)
{
	CHECK(lf_fence_status(f) == 1);
	CHECK(lf_fence_is_signaled(leaves[0]) && lf_fence_is_signaled(leaves[1]));
	ran += node == &cb;
	ran2 += node == &cb2;
}

/* When it returns, both hooks have been called, by whomever. */
static void care_for_outer(void)
{
	result = lf_fence_add_callback(outer, &cb, on_graph);
	CHECK(result == 0 || lf_fence_is_signaled(outer));
}

static void care_for_made(void)
{
	result2 = lf_fence_add_callback(made, &cb2, on_graph);
	CHECK(result2 == 0 || lf_fence_is_signaled(made));
}

static void signal_leaf_of_timeline(void)
{
	(void)lf_timeline_signal_one(tl, leaves[1], 0);
}

static void enabled_once_each(void)
{
	CHECK(enables[0] == 1 && enables[1] <= 1);
	lf_timeline_signal_to(tl, 2, 0);
	CHECK(ran == (result == 0) && ran2 == (result2 == 0) && detaches[0] && detaches[1]);
	lf_timeline_put(tl);
	put_all();
}

/* Where three deviations are more than some 200,000 schedules, because three threads lock each other's fences or calls are long, there are two. */
static const struct explore_scenario table[] = {
	{ .group = "containers", .name = "all_nested", .setup = make_nested_with_callback, .threads = { signal_2_0, signal_1 }, .finish = ran_once,
		.oracle = "a container is signaled when all of it is, and tells so once" },
	{ .group = "containers", .name = "all_nested_add", .setup = make_nested_that_waits, .threads = { add_to_outer, signal_2_0 },
		.finish = added_ran_once, .oracle = "a callback is added and runs, or is refused and all is final" },
	{ .group = "containers", .name = "all_wait", .setup = make_two, .threads = { wait_for_inner, signal_0_1 }, .finish = put_all,
		.oracle = "the last member wakes who waits" },
	{ .group = "containers", .name = "all_look", .setup = make_two, .threads = { look_at_inner, signal_0, signal_1 }, .finish = put_all,
		.oracle = "who sees a container signaled sees all of it, and what came before" },
	{ .group = "containers", .name = "all_put", .setup = make_two, .bound = 2,
		.threads = { signal_0_and_put, signal_1_and_put, put_inner },
		.oracle = "a container may be put while its members signal, and lets go of each once" },
	{ .group = "containers", .name = "all_put_one", .bound = 2, .setup = make_two, .threads = { signal_0_1_and_put, put_inner },
		.oracle = "the same with one who signals" },
	{ .group = "containers", .name = "shared_put", .bound = 2, .setup = make_shared, .threads = { signal_0, put_inner, put_outer }, .finish = put_leaves,
		.oracle = "so may containers of the same fence" },
	{ .group = "containers", .name = "nested_put", .bound = 2, .setup = make_one_in_one, .threads = { signal_0_and_put, put_outer },
		.oracle = "so may one that keeps another" },
	{ .group = "containers", .name = "any", .setup = make_any_with_callback, .threads = { signal_0, signal_1 }, .finish = ran_once,
		.oracle = "of two members one signals, with its result and time" },
	{ .group = "containers", .name = "any_look", .bound = 2, .setup = make_any, .threads = { signal_0, signal_1, look_at_any }, .finish = put_all,
		.oracle = "and nobody sees a mixture" },
	{ .group = "containers", .name = "any_put", .bound = 2, .setup = make_any, .threads = { signal_0_and_put, signal_1_and_put, put_outer },
		.oracle = "an any array that settles may be put" },
	{ .group = "containers", .name = "any_settles", .setup = make_any, .threads = { signal_0, look_at_any }, .finish = others_let_go,
		.oracle = "an any array that is signaled lets go of its other members" },
	{ .group = "containers", .name = "any_walk", .setup = make_any, .threads = { signal_0, walk_any }, .finish = put_all,
		.oracle = "or walked" },
	{ .group = "containers", .name = "put_with_callback", .setup = make_two_with_callback, .threads = { signal_1, put_inner },
		.finish = told_once, .flags = EXPLORE_MAY_LOG, .oracle = "a callback on a container that nobody holds runs" },
	{ .group = "containers", .name = "make_all", .bound = 2, .setup = make_leaves_first, .threads = { make_all_now, signal_0, signal_1 },
		.finish = made_is_signaled, .oracle = "an array may be made while its members signal" },
	{ .group = "containers", .name = "make_any", .bound = 2, .setup = make_failing_leaves_first, .threads = { make_any_now, signal_0, signal_1 },
		.finish = made_is_signaled, .oracle = "of any kind" },
	{ .group = "containers", .name = "walk", .setup = make_nested, .threads = { walk_outer, signal_1_0 }, .finish = put_all,
		.oracle = "a walk leaves out what is signaled, and nothing else" },
	{ .group = "containers", .name = "merge", .setup = make_two_of_which_one_fails, .threads = { merge, signal_0_1 },
		.finish = merged_has_the_error, .oracle = "what has completed is remembered" },
	{ .group = "containers", .name = "merge_two", .bound = 2, .setup = make_two_of_which_one_fails, .threads = { merge_two, signal_0, signal_1 },
		.finish = merged_two, .oracle = "by whatever it was met" },
	{ .group = "containers", .name = "chain_collect", .setup = make_three_links, .threads = { signal_2_0, signal_1 }, .finish = links_ran_once,
		.oracle = "a link is signaled when all before it are, in whatever order they come" },
	{ .group = "containers", .name = "chain_errors", .bound = 2, .setup = make_two_links, .threads = { signal_0, signal_1, look_at_links },
		.finish = first_error_counts, .oracle = "the first error along the chain counts, whoever is first" },
	{ .group = "containers", .name = "chain_put", .setup = make_two_links_of_which_we_have_one,
		.threads = { signal_0_and_put, signal_1_and_put, put_link }, .bound = 2, .oracle = "a chain may be put while it is signaled" },
	{ .group = "containers", .name = "chain_find", .setup = make_four_links, .threads = { find_first_two, signal_1_0 }, .finish = put_all,
		.oracle = "a point is found while links are collected" },
	{ .group = "containers", .name = "chain_jump", .bound = 2, .setup = make_four_links_that_wait_for_one, .threads = { find_and_put, signal_0 },
		.finish = put_leaves, .oracle = "also through a jump that is dropped, in a chain that ends" },
	{ .group = "containers", .name = "chain_look", .setup = make_two_links, .threads = { look_around, signal_1_0 }, .finish = put_all,
		.oracle = "what a link does not have any more is signaled" },
	{ .group = "containers", .name = "chain_fork", .setup = make_trunk, .threads = { append_branch, append_branch, signal_0 }, .bound = 2,
		.finish = branches_are_apart, .oracle = "of two links behind one, one begins a context" },
	{ .group = "containers", .name = "chain_append", .setup = make_three_links_before_a_jump, .threads = { append_fourth, signal_0_1 },
		.finish = fourth_is_whole, .oracle = "a link is appended while those before it are collected" },
	{ .group = "containers", .name = "chain_append_find", .setup = make_three_links_before_a_jump,
		.threads = { append_fourth_and_find, signal_1_0 }, .finish = fourth_is_whole, .oracle = "and its jump leads somewhere" },
	{ .group = "containers", .name = "chain_walk", .setup = make_three_plain_links, .threads = { walk_links, signal_0 }, .finish = put_all,
		.oracle = "a walk meets each point that is pending" },
	{ .group = "containers", .name = "enable_two", .setup = make_graph, .threads = { care_for_outer, care_for_made }, .bound = 2,
		.finish = enabled_once_each, .oracle = "the leaves of a shared graph are enabled once" },
	{ .group = "containers", .name = "enable_signal", .setup = make_graph, .threads = { care_for_outer, signal_leaf_of_timeline },
		.finish = enabled_once_each, .oracle = "or not at all, when they are signaled" },
	{ .group = "containers", .name = "enable_answers", .setup = make_graph_that_is_done, .threads = { care_for_outer, care_for_made }, .bound = 2,
		.finish = enabled_once_each, .oracle = "what enable says signals what is being enabled" },
};
EXPLORE_SCENARIOS(table);
