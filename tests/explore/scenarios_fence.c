/* SPDX-License-Identifier: MIT */
/* Fences: callbacks added, removed and cancelled while others signal and put; waiting; slots. */
#include "explore.h"

static struct lf_fence *fence, *second;
static struct lf_fence_cb cb, cb2;
static int written, ran, ran2, result, result2;
static bool returned; /* the callback has */

/* --- Helpers ---------------------------------------------------------------------------------------------------------------- */

static void make(void)
{
	CHECK(lf_fence_create(&fence) == 0);
}

static void make_two(void)
{
	make();
	CHECK(lf_fence_create(&second) == 0);
}

static void on_signal(struct lf_fence *f, struct lf_fence_cb *node)
{
	(void)node;
	CHECK(lf_fence_status(f) == 1);
	CHECK(written == 1); /* what the producer wrote before */
	ran++;
	returned = true;
}

static void on_signal2(struct lf_fence *f, struct lf_fence_cb *node)
{
	(void)f;
	(void)node;
	ran2++;
}

static void add_in_setup(void)
{
	make();
	CHECK(lf_fence_add_callback(fence, &cb, on_signal) == 0);
}

static void put(void)
{
	lf_fence_put(fence);
}

static void put_two(void)
{
	lf_fence_put(fence);
	lf_fence_put(second);
}

/* --- Threads ------------------------------------------------------------------------------------------------------------------ */

static void signal(void)
{
	written = 1;
	CHECK(lf_fence_signal(fence, 0));
}

static void signal_second(void)
{
	CHECK(lf_fence_signal(second, 0));
}

static void add(void)
{
	result = lf_fence_add_callback(fence, &cb, on_signal);
	if (result)
		CHECK(result == -ENOENT && lf_fence_status(fence) == 1 && written == 1);
}

static void add2(void)
{
	result2 = lf_fence_add_callback(fence, &cb2, on_signal2);
}

static void remove_it(void)
{
	result = lf_fence_remove_callback(fence, &cb);
	CHECK(result == LF_CB_REMOVED || result == LF_CB_RAN || result == LF_CB_RUNNING);
	if (result == LF_CB_RAN)
		CHECK(returned && ran == 1);
}

static void cancel(void)
{
	result = lf_fence_cancel_callback_sync(fence, &cb);
	CHECK(result == LF_CB_REMOVED || result == LF_CB_RAN);
	CHECK(returned == (result == LF_CB_RAN)); /* plain: what the callback did is seen */
	cb = (struct lf_fence_cb){ 0 }; /* the node is ours again */
}

static void look(void)
{
	if (lf_fence_is_signaled(fence)) {
		CHECK(lf_fence_status(fence) == 1);
		CHECK(lf_fence_timestamp(fence) > 0);
		CHECK(written == 1);
	}
}

static void look_drained(void)
{
	if (lf_fence_is_drained(fence))
		CHECK(ran == 1);
}

static void wait_forever(void)
{
	CHECK(lf_fence_wait(fence, LF_DEADLINE_NEVER) == 0);
	CHECK(written == 1);
}

static void wait_for_a_time(void)
{
	int ret = lf_fence_wait(fence, lf_now() + 1000);

	CHECK(ret == 0 || ret == -ETIME);
	if (ret == 0)
		CHECK(written == 1);
}

static void wait_drained(void)
{
	CHECK(lf_fence_wait_drained(fence, LF_DEADLINE_NEVER) == 0);
	CHECK(ran == 1);
}

static void wait_any(void)
{
	struct lf_fence *const both[] = { fence, second };
	struct lf_wait_slot slots[2];
	size_t first = 99;

	CHECK(lf_fence_wait_many(&(struct lf_wait_many){ .fences = both, .count = 2, .need = 1, .slots = slots,
		.deadline = LF_DEADLINE_NEVER }, &first) == 0);
	CHECK(first < 2 && lf_fence_is_signaled(both[first]));
}

static void wait_all(void)
{
	struct lf_fence *const both[] = { fence, second };
	struct lf_wait_slot slots[2];

	CHECK(lf_fence_wait_many(&(struct lf_wait_many){ .fences = both, .count = 2, .need = 2, .slots = slots,
		.deadline = LF_DEADLINE_NEVER }, NULL) == 0);
	CHECK(lf_fence_is_signaled(fence) && lf_fence_is_signaled(second) && written == 1);
}

/* --- What must be true in the end ----------------------------------------------------------------------------------------------- */

static void added_ran_once(void)
{
	CHECK(ran == (result == 0));
	CHECK(lf_fence_is_drained(fence));
	put();
}

static void both_ran_once(void)
{
	CHECK(ran2 == (result2 == 0));
	added_ran_once();
}

static void ran_or_removed(void)
{
	CHECK(ran == (result != LF_CB_REMOVED));
	put();
}

static void ran_once(void)
{
	CHECK(ran == 1);
	put();
}

/* --- References: each thread has one of its own, and nobody keeps the fence for them --------------------------------------------- */

static void get_for_two(void)
{
	add_in_setup();
	lf_fence_get(fence);
}

static void get_for_three(void)
{
	get_for_two();
	lf_fence_get(fence);
}

static void signal_and_put(void)
{
	signal();
	lf_fence_put(fence);
}

static void look_and_put(void)
{
	look();
	lf_fence_put(fence);
}

static void remove_and_put(void)
{
	remove_it();
	lf_fence_put(fence);
}

static void cancel_and_put(void)
{
	cancel();
	lf_fence_put(fence);
}

static void ran_unless_removed(void)
{
	CHECK(ran == (result != LF_CB_REMOVED));
}

static void on_signal_frees(struct lf_fence *f, struct lf_fence_cb *node)
{
	on_signal(f, node);
	lf_fence_put(f); /* the reference that the callback stood for, perhaps the last */
}

static void add_with_reference(void)
{
	make();
	lf_fence_get(fence);
	CHECK(lf_fence_add_callback(fence, &cb, on_signal_frees) == 0);
}

static void did_run(void)
{
	CHECK(ran == 1);
}

/* --- Slots ---------------------------------------------------------------------------------------------------------------------- */

static struct lf_fence_slot slot;

static void fill_slot(void)
{
	make_two();
	lf_fence_slot_set(&slot, fence);
	lf_fence_put(fence); /* the slot's is the last one */
}

static void look_in_slot(void)
{
	struct lf_fence *f;

	lf_read_lock();
	f = lf_fence_slot_look(&slot);
	if (f)
		CHECK(lf_fence_context(f) == 0 && (lf_fence_status(f) == 0 || lf_fence_status(f) == -ECANCELED));
	lf_read_unlock();
}

static void get_from_slot(void)
{
	struct lf_fence *f = lf_fence_slot_get(&slot);

	if (!f)
		return;
	CHECK(lf_fence_status(f) == 0); /* whoever has a reference keeps it pending */
	lf_fence_put(f);
}

static void replace_in_slot(void)
{
	lf_fence_slot_set(&slot, second);
}

static void empty_slot(void)
{
	lf_fence_slot_set(&slot, NULL);
	lf_fence_put(second);
}

static const struct explore_scenario table[] = {
	{ .group = "fence", .name = "add_signal", .setup = make, .threads = { add, add2, signal }, .finish = both_ran_once,
		.oracle = "a callback is added and runs once, or is refused and all is final" },
	{ .group = "fence", .name = "remove_signal", .setup = add_in_setup, .threads = { remove_it, signal, add2 }, .finish = ran_or_removed,
		.oracle = "a callback is removed, or runs" },
	{ .group = "fence", .name = "cancel_signal", .setup = add_in_setup, .threads = { cancel, signal, look },
		.finish = ran_or_removed, .oracle = "after cancel_sync the callback does not run, and its node is the caller's" },
	{ .group = "fence", .name = "signal_look", .setup = make, .threads = { signal, look, look }, .finish = put,
		.oracle = "who sees signaled sees what came before" },
	{ .group = "fence", .name = "drained_look", .setup = add_in_setup, .threads = { signal, look_drained, wait_drained },
		.finish = ran_once, .oracle = "who sees drained sees what callbacks did" },
	{ .group = "fence", .name = "wait_signal", .setup = make, .threads = { wait_forever, wait_for_a_time, signal }, .finish = put,
		.oracle = "no wake is lost, and a wait that ends well sees what came before" },
	{ .group = "fence", .name = "wait_many_signal", .setup = make_two, .threads = { wait_any, signal, signal_second }, .finish = put_two,
		.oracle = "any of two wakes the waiter" },
	{ .group = "fence", .name = "wait_all_signal", .setup = make_two, .threads = { wait_all, signal, signal_second }, .finish = put_two,
		.oracle = "both of two wake the waiter" },
	{ .group = "fence", .name = "put_signal", .setup = get_for_two, .threads = { signal_and_put, remove_and_put },
		.finish = ran_unless_removed, .oracle = "the last put frees, and a fence that is dispatched lives on" },
	{ .group = "fence", .name = "put_cancel_look", .setup = get_for_three, .threads = { signal_and_put, cancel_and_put, look_and_put },
		.finish = ran_unless_removed, .oracle = "the same with three holders" },
	{ .group = "fence", .name = "put_in_callback", .setup = add_with_reference, .threads = { signal_and_put }, .finish = did_run,
		.oracle = "a callback may put the last reference" },
	{ .group = "fence", .name = "slot", .setup = fill_slot, .threads = { look_in_slot, get_from_slot, replace_in_slot },
		.finish = empty_slot, .oracle = "what is found in a slot is alive to the end of the section" },
};
EXPLORE_SCENARIOS(table);
