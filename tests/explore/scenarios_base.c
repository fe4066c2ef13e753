/* SPDX-License-Identifier: MIT */
/*
 * The base layer: counts, the spinlock, and the reclaimer as a thread like any other. Its sleeps have deadlines, so each of them may end as a
 * deviation.
 */
#include "explore.h"

#include "base/port.h"
#include "base/reclaim.h"
#include "base/refcount.h"

/* --- Counts and the spinlock ---------------------------------------------------------------------------------------------------- */

static lf_atomic_u32 count;
static struct port_spin spin;
static int plain, ended, notes[EXPLORE_THREADS + 1];

static void count_two(void)
{
	u32_store(&count, 2, memory_order_relaxed);
}

static void count_three(void)
{
	u32_store(&count, 3, memory_order_relaxed);
}

/* Each holder writes before its put; who ends the object reads all of it. */
static void note_and_put(void)
{
	notes[explore_self()] = 1;
	if (!refcount_put(&count, "count"))
		return;
	ended++;
	CHECK(notes[1] == 1 && notes[2] == 1);
}

static void note_and_put_three(void)
{
	notes[explore_self()] = 1;
	if (!refcount_put(&count, "count"))
		return;
	ended++;
	CHECK(notes[1] + notes[2] + notes[3] == 3);
}

static void tryget_and_put(void)
{
	if (!refcount_tryget(&count))
		return;
	CHECK(ended == 0);
	if (refcount_put(&count, "count"))
		ended++;
}

static void ended_once(void)
{
	CHECK(ended == 1 && u32_load(&count, memory_order_relaxed) == 0);
}

static void add_under_spin(void)
{
	port_spin_lock(&spin);
	plain++;
	port_spin_unlock(&spin);
}

static void three_were_added(void)
{
	CHECK(plain == 3);
}

/* --- The reclaimer ---------------------------------------------------------------------------------------------------------------- */

struct node {
	struct lf_deferred deferred;
	int value;
};

static lf_atomic_ptr published;
static struct lf_deferred calls[4];
static int called[4], order, forking;

static void publish_node(void)
{
	struct node *n = lf_alloc(sizeof(*n));

	CHECK(n != NULL);
	n->value = 42;
	ptr_store(&published, (uintptr_t)n, memory_order_release);
}

static void look(void)
{
	const struct node *n;

	lf_read_lock();
	n = (const struct node *)ptr_load(&published, memory_order_acquire);
	if (n)
		CHECK(n->value == 42);
	lf_read_unlock();
}

static void withdraw(void)
{
	struct node *n = (struct node *)ptr_xchg(&published, 0, memory_order_relaxed);

	lf_defer_free(&n->deferred, n);
}

/* What this thread deferred and whose grace period is over it frees at home, when it defers the next time. */
static void withdraw_and_go_on(void)
{
	struct node *n = lf_alloc(sizeof(*n));

	withdraw();
	explore_yield();
	lf_defer_free(&n->deferred, n);
}

static void withdraw_and_bar(void)
{
	withdraw();
	CHECK(lf_reclaim_barrier() == 0);
}

static void on_call(struct lf_deferred *node)
{
	size_t i = (size_t)(node - calls);

	CHECK(!lf_read_held() && !called[i] && !forking);
	called[i] = ++order;
}

static void call_and_bar(void)
{
	size_t i = explore_self() - 1;

	lf_defer_call(&calls[i], on_call);
	CHECK(lf_reclaim_barrier() == 0);
	CHECK(called[i] > 0); /* plain: seen behind the barrier */
}

static void call_two(void)
{
	lf_defer_call(&calls[0], on_call);
	lf_defer_call(&calls[1], on_call);
}

static void bar(void)
{
	CHECK(lf_reclaim_barrier() == 0);
}

static void two_in_order(void)
{
	CHECK(lf_reclaim_barrier() == 0);
	CHECK(called[0] == 1 && called[1] == 2);
}

static void all_called(void)
{
	CHECK(lf_reclaim_barrier() == 0);
	CHECK(order == 2);
}

static void call_one(void)
{
	lf_defer_call(&calls[1], on_call);
}

/* Between the two nothing deferred runs. */
static void fork_parent(void)
{
	reclaim_pause();
	reclaim_before_fork();
	forking = 1;
	forking = 0;
	reclaim_after_fork_parent();
}

static void start_reclaimer(void)
{
	lf_defer_call(&calls[0], on_call);
	CHECK(lf_reclaim_barrier() == 0);
	CHECK(called[0] == 1);
}

static void both_called(void)
{
	CHECK(lf_reclaim_barrier() == 0);
	CHECK(called[1] > 0);
}

static void call_and_end(void)
{
	lf_defer_call(&calls[1], on_call);
	CHECK(lf_fini() == 0);
	CHECK(called[1] > 0);
}

static const struct explore_scenario table[] = {
	{ .group = "base", .name = "count_put", .setup = count_two, .threads = { note_and_put, note_and_put }, .finish = ended_once,
		.oracle = "who puts last sees what all holders did" },
	{ .group = "base", .name = "count_put_three", .setup = count_three,
		.threads = { note_and_put_three, note_and_put_three, note_and_put_three }, .finish = ended_once,
		.oracle = "the same of three" },
	{ .group = "base", .name = "count_tryget", .setup = count_two, .threads = { note_and_put, note_and_put, tryget_and_put },
		.finish = ended_once, .oracle = "no reference is taken after the last put" },
	{ .group = "base", .name = "spin", .threads = { add_under_spin, add_under_spin, add_under_spin }, .finish = three_were_added,
		.oracle = "the spinlock orders what it protects" },
	{ .group = "base", .name = "reclaim_read", .setup = publish_node, .threads = { look, withdraw }, .flags = EXPLORE_RECLAIMER,
		.oracle = "a block outlives the sections that may see it" },
	{ .group = "base", .name = "reclaim_home", .setup = publish_node, .threads = { look, withdraw_and_go_on },
		.flags = EXPLORE_RECLAIMER, .oracle = "the same when its own thread frees it" },
	{ .group = "base", .name = "reclaim_read_bar", .setup = publish_node, .threads = { look, withdraw_and_bar },
		.flags = EXPLORE_RECLAIMER, .bound = 2, .oracle = "the same before a barrier" },
	{ .group = "base", .name = "reclaim_barrier", .threads = { call_and_bar }, .flags = EXPLORE_RECLAIMER,
		.oracle = "behind a barrier all that was deferred before has run, and is seen" },
	{ .group = "base", .name = "reclaim_barriers", .threads = { call_and_bar, call_and_bar }, .finish = all_called,
		.flags = EXPLORE_RECLAIMER, .bound = 1, .oracle = "the same of two (one deviation: a million schedules have two)" },
	{ .group = "base", .name = "reclaim_order", .threads = { call_two, bar }, .finish = two_in_order, .flags = EXPLORE_RECLAIMER,
		.bound = 2, .oracle = "calls of one thread run in order, also when it ends" },
	{ .group = "base", .name = "reclaim_fork", .setup = start_reclaimer, .threads = { fork_parent, call_one }, .finish = both_called,
		.flags = EXPLORE_RECLAIMER, .bound = 2, .oracle = "nothing deferred runs during a fork, and nothing is lost by it" },
	{ .group = "base", .name = "reclaim_end", .setup = start_reclaimer, .threads = { call_and_end }, .flags = EXPLORE_RECLAIMER,
		.oracle = "lf_fini() runs all that was deferred, and joins" },
};
EXPLORE_SCENARIOS(table);
