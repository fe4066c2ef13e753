/* SPDX-License-Identifier: MIT */
/*
 * Fences: callbacks added, removed and cancelled while others signal and put, also from inside callbacks; waiting; slots; what is put after a
 * grace period; fences that nobody will ever signal.
 */
#include "explore.h"

#include "base/port.h"

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

/* --- Signals that meet --------------------------------------------------------------------------------------------------------- */

static int won[EXPLORE_THREADS + 1]; /* not bool: cells are of four bytes */
static int wrote[EXPLORE_THREADS + 1];

/* With an error and a time that say who it was. */
static void signal_as_oneself(void)
{
	unsigned self = explore_self();

	wrote[self] = 1;
	won[self] = lf_fence_signal_at(fence, -(int)self, 1000 * self);
	CHECK(lf_fence_is_signaled(fence));
}

static void who_was_it(const struct lf_fence *f)
{
	unsigned winner = (unsigned)-lf_fence_status(f);

	CHECK(lf_fence_timestamp(f) == 1000 * (int64_t)winner);
	CHECK(wrote[winner] == 1);
}

static void on_contended_signal(struct lf_fence *f, struct lf_fence_cb *node)
{
	(void)node;
	who_was_it(f);
	ran++;
}

static void add_contended(void)
{
	make();
	CHECK(lf_fence_add_callback(fence, &cb, on_contended_signal) == 0);
}

static void look_who_it_was(void)
{
	if (lf_fence_is_signaled(fence))
		who_was_it(fence);
}

static void one_won(void)
{
	CHECK(won[1] + won[2] == 1);
	CHECK(lf_fence_status(fence) == (won[1] ? -1 : -2));
	ran_once();
}

/* --- Callbacks that do more ------------------------------------------------------------------------------------------------------ */

/* Held by who must be through before a callback goes on. */
static struct port_mutex gate = PORT_MUTEX_INIT;

static void pass_gate(void)
{
	port_mutex_lock(&gate);
	port_mutex_unlock(&gate);
}

static void on_signal_waits(struct lf_fence *f, struct lf_fence_cb *node)
{
	pass_gate();
	on_signal2(f, node);
}

static void add_one_that_waits(void)
{
	add_in_setup();
	CHECK(lf_fence_add_callback(fence, &cb2, on_signal_waits) == 0);
}

/* The second callback waits for us, so if we waited for it, too, nobody would go on. */
static void cancel_behind_gate(void)
{
	port_mutex_lock(&gate);
	cancel();
	port_mutex_unlock(&gate);
}

static void cancel2(void)
{
	result2 = lf_fence_cancel_callback_sync(fence, &cb2);
	CHECK(result2 == LF_CB_REMOVED || result2 == LF_CB_RAN);
	CHECK(ran2 == (result2 == LF_CB_RAN));
	cb2 = (struct lf_fence_cb){ 0 };
}

static void both_ran_or_removed(void)
{
	CHECK(ran2 == (result2 != LF_CB_REMOVED));
	ran_or_removed();
}

static void cancel_once_more(void)
{
	result2 = lf_fence_cancel_callback_sync(fence, &cb);
	CHECK(result2 == LF_CB_REMOVED || result2 == LF_CB_RAN);
	CHECK(returned == (result2 == LF_CB_RAN));
}

static void cancel_the_same(void)
{
	result = lf_fence_cancel_callback_sync(fence, &cb);
	CHECK(returned == (result == LF_CB_RAN));
}

static void alike(void)
{
	CHECK(result == result2);
	ran_or_removed();
}

/* Takes back the one behind it, and cannot take back itself. */
static void on_signal_removes(struct lf_fence *f, struct lf_fence_cb *node)
{
	on_signal(f, node);
	CHECK(lf_fence_remove_callback(f, node) == LF_CB_RUNNING);
	CHECK(lf_fence_cancel_callback_sync(f, node) == LF_CB_RUNNING);
	CHECK(lf_fence_cancel_callback_sync(f, &cb2) == LF_CB_REMOVED);
}

static void add_one_that_removes(void)
{
	make();
	CHECK(lf_fence_add_callback(fence, &cb, on_signal_removes) == 0);
	CHECK(lf_fence_add_callback(fence, &cb2, on_signal2) == 0);
}

static void cancel2_in_vain(void)
{
	CHECK(lf_fence_cancel_callback_sync(fence, &cb2) == LF_CB_REMOVED);
}

static void second_never_ran(void)
{
	CHECK(ran2 == 0);
	ran_once();
}

/* Nodes in the heap, which their functions free; cb lies between them. */
static struct lf_fence_cb *nodes[2];

static void on_signal_frees_node(struct lf_fence *f, struct lf_fence_cb *node)
{
	on_signal2(f, node);
	lf_free(node);
}

static void add_nodes_that_go(void)
{
	for (int i = 0; i < 2; i++)
		nodes[i] = lf_alloc(sizeof(*nodes[i]));
	make();
	CHECK(lf_fence_add_callback(fence, nodes[0], on_signal_frees_node) == 0);
	CHECK(lf_fence_add_callback(fence, &cb, on_signal) == 0);
	CHECK(lf_fence_add_callback(fence, nodes[1], on_signal_frees_node) == 0);
}

static void add_third(void)
{
	struct lf_fence_cb *node = lf_alloc(sizeof(*node));

	result2 = lf_fence_add_callback(fence, node, on_signal_frees_node);
	if (result2)
		lf_free(node);
}

static void all_that_were_added_ran(void)
{
	CHECK(ran2 == 2 + (result2 == 0));
	ran_or_removed();
}

/* The node goes to another fence. */
static void on_signal_moves_on(struct lf_fence *f, struct lf_fence_cb *node)
{
	on_signal(f, node);
	result2 = lf_fence_add_callback(second, node, on_signal2);
}

static void add_one_that_moves_on(void)
{
	make_two();
	CHECK(lf_fence_add_callback(fence, &cb, on_signal_moves_on) == 0);
}

static void look_at_second(void)
{
	if (lf_fence_is_drained(second) && ran2)
		CHECK(written == 1);
}

static void moved_on(void)
{
	CHECK(ran == 1 && ran2 == (result2 == 0));
	put_two();
}

/* Two fences on two threads; the first one's callback takes back the second one's. */
static void on_signal_cancels(struct lf_fence *f, struct lf_fence_cb *node)
{
	on_signal(f, node);
	result2 = lf_fence_cancel_callback_sync(second, &cb2);
	CHECK(result2 == LF_CB_REMOVED || result2 == LF_CB_RAN);
	CHECK(ran2 == (result2 == LF_CB_RAN));
}

/* A callback that is inside the library for a while. */
static void on_signal_looks(struct lf_fence *f, struct lf_fence_cb *node)
{
	CHECK(lf_fence_remove_callback(f, node) == LF_CB_RUNNING);
	on_signal2(f, node);
}

static void add_one_that_cancels(void)
{
	make_two();
	CHECK(lf_fence_add_callback(fence, &cb, on_signal_cancels) == 0);
	CHECK(lf_fence_add_callback(second, &cb2, on_signal_looks) == 0);
}

static void second_ran(void)
{
	CHECK(ran == 1 && ran2 == 1);
	put_two();
}

static void second_ran_or_removed(void)
{
	CHECK(ran == 1 && ran2 == (result2 != LF_CB_REMOVED));
	put_two();
}

/* A callback that signals another fence, and goes on when its waiter is through. */
static void on_signal_signals(struct lf_fence *f, struct lf_fence_cb *node)
{
	on_signal(f, node);
	CHECK(lf_fence_signal(second, 0));
	CHECK(ran2 == 0); /* it comes behind us, on this thread, or never */
	pass_gate();
}

static void add_one_that_signals(void)
{
	make_two();
	CHECK(lf_fence_add_callback(fence, &cb, on_signal_signals) == 0);
	CHECK(lf_fence_add_callback(second, &cb2, on_signal_looks) == 0);
}

static void wait_second_behind_gate(void)
{
	port_mutex_lock(&gate);
	CHECK(lf_fence_wait(second, LF_DEADLINE_NEVER) == 0);
	CHECK(written == 1);
	port_mutex_unlock(&gate);
}

static void cancel_on_second(void)
{
	result2 = lf_fence_cancel_callback_sync(second, &cb2);
	CHECK(ran2 == (result2 == LF_CB_RAN));
}

/* --- References that are given up and taken while callbacks run ---------------------------------------------------------------- */

static struct lf_fence *taken;

static void on_signal_takes(struct lf_fence *f, struct lf_fence_cb *node)
{
	(void)node;
	taken = lf_fence_get(f); /* whether or not anybody else has one */
}

/* The signaling thread's is put by the first callback, so the other thread's is the only one when the second callback takes one. */
static void add_one_that_takes(void)
{
	add_with_reference();
	CHECK(lf_fence_add_callback(fence, &cb2, on_signal_takes) == 0);
}

static void taken_is_one(void)
{
	CHECK(ran == 1 && lf_fence_status(taken) == 1);
	lf_fence_put(taken);
}

static void wait_and_put(void)
{
	wait_forever();
	lf_fence_put(fence);
}

static void wait_drained_and_put(void)
{
	wait_drained();
	lf_fence_put(fence);
}

/* --- At least so many of ---------------------------------------------------------------------------------------------------------- */

static struct lf_fence *third;

static void make_three(void)
{
	make_two();
	CHECK(lf_fence_create(&third) == 0);
}

/* Writes where the frames of calls that have returned were: whoever still comes there is found. */
static __attribute__((noinline)) void overwrite_stack(void)
{
	unsigned char frames[1024];

	memset(frames, 0x5a, sizeof(frames));
}

static void wait_two_of_three(void)
{
	struct lf_fence *const all[] = { fence, second, third };
	struct lf_wait_slot slots[3];
	size_t first = 99;

	CHECK(lf_fence_wait_many(&(struct lf_wait_many){ .fences = all, .count = 3, .need = 2, .slots = slots,
		.deadline = LF_DEADLINE_NEVER }, &first) == 0);
	memset(slots, 0, sizeof(slots));
	overwrite_stack();
	CHECK(lf_fence_is_signaled(fence) + lf_fence_is_signaled(second) + lf_fence_is_signaled(third) >= 2);
	CHECK(first < 2 && lf_fence_is_signaled(all[first]));
}

static void wait_two_for_a_time(void)
{
	struct lf_fence *const both[] = { fence, second };
	struct lf_wait_slot slots[2];
	int ret = lf_fence_wait_many(&(struct lf_wait_many){ .fences = both, .count = 2, .need = 2, .slots = slots,
		.deadline = lf_now() + 1000 }, NULL);

	memset(slots, 0, sizeof(slots));
	overwrite_stack();
	CHECK(ret == -ETIME || (ret == 0 && lf_fence_is_signaled(fence) && lf_fence_is_signaled(second)));
}

static void signal_all_three(void)
{
	CHECK(lf_fence_signal(third, 0));
	signal();
	signal_second();
}

static void put_three(void)
{
	lf_fence_put(third);
	put_two();
}

/* --- After a grace period --------------------------------------------------------------------------------------------------------- */

static lf_atomic_ptr shared; /* to a fence, whose reference is given up with lf_defer_put() */
static struct lf_deferred put_later, call_later;
static int calls;

static void called(struct lf_deferred *node)
{
	CHECK(node == &call_later && calls == 0);
	put_later = (struct lf_deferred){ 0 }; /* what was deferred before has happened */
	calls++;
	CHECK(lf_fence_signal(third, 0));
}

static void on_signal_defers(struct lf_fence *f, struct lf_fence_cb *node)
{
	on_signal(f, node);
	lf_defer_put(&put_later, (struct lf_fence *)ptr_xchg(&shared, 0, memory_order_acquire));
	lf_defer_call(&call_later, called);
}

static void share_second(void)
{
	make_three();
	CHECK(lf_fence_add_callback(fence, &cb, on_signal_defers) == 0);
	ptr_store(&shared, (uintptr_t)second, memory_order_release);
}

static void get_shared(void)
{
	struct lf_fence *f;

	lf_read_lock();
	f = lf_fence_get((struct lf_fence *)ptr_load(&shared, memory_order_acquire));
	lf_read_unlock();
	if (f)
		CHECK(lf_fence_status(f) == 0);
	lf_fence_put(f);
}

static void wait_for_call(void)
{
	CHECK(lf_fence_wait(third, LF_DEADLINE_NEVER) == 0);
	CHECK(written == 1 && calls == 1);
}

static void called_once(void)
{
	CHECK(lf_reclaim_barrier() == 0);
	CHECK(ran == 1 && calls == 1);
	lf_fence_put(third);
	put();
}

/* --- Nobody will ever signal it --------------------------------------------------------------------------------------------------- */

static int told;

static void on_abandoned(struct lf_fence *f, struct lf_fence_cb *node)
{
	(void)node;
	told = lf_fence_status(f);
	ran++;
}

static void fill_slot_alone(void)
{
	make();
	lf_fence_slot_set(&slot, fence);
	lf_fence_put(fence);
	result = -1;
}

/* Who has found a fence may add to it and take that back, without a reference, until the section ends. */
static void add_in_section(void)
{
	struct lf_fence *f;

	lf_read_lock();
	f = lf_fence_slot_look(&slot);
	if (f) {
		result = lf_fence_add_callback(f, &cb, on_abandoned);
		if (result == 0)
			result2 = lf_fence_remove_callback(f, &cb);
		else
			CHECK(result == -ENOENT && lf_fence_status(f) == -ECANCELED && lf_fence_timestamp(f) > 0);
	}
	lf_read_unlock();
}

static void abandon(void)
{
	lf_fence_slot_set(&slot, NULL);
}

/* If the callback was on the fence when that was put, it was reported, and the callback has run with -EDEADLK or was taken back even so. */
static void told_or_not(void)
{
	bool late = result == 0 && result2 != LF_CB_REMOVED;

	CHECK(ran == late && told == (late ? -EDEADLK : 0));
	CHECK(late ? explore_logged() == 1 : explore_logged() <= (result == 0));
}

/* With the callback on it the fence ends before its last reference is gone, so it may still be got. */
static void get_abandoned(void)
{
	struct lf_fence *f = lf_fence_slot_get(&slot);

	if (f)
		CHECK(lf_fence_status(f) == 0 || lf_fence_status(f) == -EDEADLK);
	lf_fence_put(f);
}

static void get_from_slot_and_keep(void)
{
	taken = lf_fence_slot_get(&slot);
	if (taken)
		CHECK(lf_fence_status(taken) == 0);
}

static void kept_is_pending(void)
{
	if (taken)
		CHECK(lf_fence_signal(taken, 0));
	lf_fence_put(taken);
}

static void set_new_in_slot(void)
{
	struct lf_fence *f;

	CHECK(lf_fence_create_signaled(-EIO, 4711, &f) == 0);
	lf_fence_slot_set(&slot, f);
	lf_fence_put(f);
}

/* What was written before it got there is seen. */
static void look_at_new(void)
{
	struct lf_fence *f = lf_fence_slot_get(&slot);

	if (f)
		CHECK(lf_fence_context(f) == 0 && lf_fence_seqno(f) == 0);
	lf_fence_put(f);
}

static void empty_slot_at_once(void)
{
	lf_fence_slot_set(&slot, NULL);
}

static void clear_slot(void)
{
	lf_fence_slot_set(&slot, NULL);
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
	{ .group = "fence", .name = "drained_look", .setup = add_in_setup, .threads = { signal, look_drained, look_drained },
		.finish = ran_once, .oracle = "who sees drained sees what callbacks did" },
	{ .group = "fence", .name = "drained_wait", .setup = add_in_setup, .threads = { signal, wait_drained }, .finish = ran_once,
		.oracle = "the end of the last callback wakes who waits for it" },
	{ .group = "fence", .name = "wait_signal", .setup = make, .threads = { wait_forever, signal, look }, .finish = put,
		.oracle = "no wake is lost, and a wait that ends well sees what came before" },
	/* Three deviations are 305,000 schedules; of three threads two wait for one event, which is the same twice. */
	{ .group = "fence", .name = "two_wait", .setup = make, .threads = { wait_forever, wait_forever, signal }, .finish = put, .bound = 2,
		.oracle = "one signal wakes all who wait" },
	{ .group = "fence", .name = "wait_late", .setup = make, .threads = { wait_for_a_time, signal }, .finish = put,
		.oracle = "a wait that is late takes its node back, or is not late" },
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
	{ .group = "fence", .name = "slot_new", .threads = { set_new_in_slot, look_at_new }, .finish = clear_slot,
		.oracle = "a fence in a slot is whole" },
	{ .group = "fence", .name = "slot_exchange", .threads = { set_new_in_slot, empty_slot_at_once }, .finish = clear_slot,
		.oracle = "whoever takes a fence out of a slot sees who else has it" },
	{ .group = "fence", .name = "signal_signal", .setup = add_contended, .threads = { signal_as_oneself, signal_as_oneself, look_who_it_was },
		.finish = one_won, .oracle = "of two signals one wins, with its result and its time" },
	/* Three deviations are 620,000 and 390,000 schedules. What these are for, one sleeper that is woken into another's sleep, takes two. */
	{ .group = "fence", .name = "cancel_cancel", .setup = add_one_that_waits, .threads = { cancel_behind_gate, cancel2, signal }, .bound = 2,
		.finish = both_ran_or_removed, .oracle = "a cancel waits for no callback but its own" },
	{ .group = "fence", .name = "cancel_same", .setup = add_in_setup, .threads = { cancel_the_same, cancel_once_more, signal }, .bound = 2,
		.finish = alike, .oracle = "two cancels of one callback are told the same" },
	{ .group = "fence", .name = "remove_inside", .setup = add_one_that_removes, .threads = { signal, cancel2_in_vain, look_drained },
		.finish = second_never_ran, .oracle = "a callback takes back the one behind it, and is told that it runs itself" },
	{ .group = "fence", .name = "nodes_go", .setup = add_nodes_that_go, .threads = { signal, remove_it, add_third },
		.finish = all_that_were_added_ran, .oracle = "a node is not looked at any more when its callback runs, nor by its neighbours" },
	{ .group = "fence", .name = "node_moves_on", .setup = add_one_that_moves_on, .threads = { signal, signal_second, look_at_second },
		.finish = moved_on, .oracle = "a callback may add its own node to another fence that is being signaled" },
	{ .group = "fence", .name = "cancel_inside", .setup = add_one_that_cancels, .threads = { signal, signal_second },
		.finish = second_ran_or_removed, .oracle = "a callback may wait for one of another fence on another thread" },
	{ .group = "fence", .name = "signal_inside", .setup = add_one_that_signals, .threads = { signal, wait_second_behind_gate },
		.finish = second_ran, .oracle = "no callback holds up waiters of what was signaled inside it" },
	{ .group = "fence", .name = "cancel_nested", .setup = add_one_that_signals, .threads = { signal, cancel_on_second },
		.finish = second_ran_or_removed, .oracle = "what was signaled inside a callback can be cancelled until its turn" },
	{ .group = "fence", .name = "take_inside", .setup = add_one_that_takes, .threads = { signal, put }, .finish = taken_is_one,
		.oracle = "a callback may take a reference when there is none left" },
	{ .group = "fence", .name = "put_waited", .setup = get_for_two, .threads = { signal_and_put, wait_and_put }, .finish = did_run,
		.oracle = "who was woken may put the last reference" },
	{ .group = "fence", .name = "put_drained", .setup = get_for_two, .threads = { signal_and_put, wait_drained_and_put }, .finish = did_run,
		.oracle = "so may who waited until all callbacks had returned" },
	{ .group = "fence", .name = "wait_two_of_three", .setup = make_three, .threads = { wait_two_of_three, signal_all_three },
		.finish = put_three, .oracle = "two of three wake the waiter, and the third does not touch what is the waiter's again" },
	{ .group = "fence", .name = "wait_two_late", .setup = make_two, .threads = { wait_two_for_a_time, signal, signal_second },
		.finish = put_two, .oracle = "a wait that is late leaves nothing behind" },
	{ .group = "fence", .name = "defer", .setup = share_second, .threads = { signal, get_shared, wait_for_call }, .finish = called_once,
		.oracle = "what a section has found lives to its end, and deferred calls come in order" },
	{ .group = "fence", .name = "abandon", .setup = fill_slot_alone, .threads = { add_in_section, abandon, get_abandoned },
		.finish = told_or_not, .flags = EXPLORE_MAY_LOG, .oracle = "a callback on a fence that nobody holds runs, or is refused" },
	{ .group = "fence", .name = "abandon_get", .setup = fill_slot_alone, .threads = { look_in_slot, get_from_slot_and_keep, abandon },
		.finish = kept_is_pending, .oracle = "a fence that somebody has got is not canceled" },
};
EXPLORE_SCENARIOS(table);
