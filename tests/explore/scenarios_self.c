/* SPDX-License-Identifier: MIT */
/*
 * The explorer's own test: protocols of a few lines of which it is known whether they are right, and, of two, how many schedules there
 * are.
 */
#include "explore.h"

#include "base/park.h"
#include "base/port.h"
#include "base/rcu.h"

static lf_atomic_u32 flag, other, turn;
static lf_atomic_ptr published;
static int data, result, result2;
static struct port_mutex mutex_a = PORT_MUTEX_INIT, mutex_b = PORT_MUTEX_INIT;

/* --- Message passing ------------------------------------------------------------------------------------------------------ */

static void pass_release(void)
{
	data = 42;
	u32_store(&flag, 1, memory_order_release);
}

static void pass_relaxed(void)
{
	data = 42;
	u32_store(&flag, 1, memory_order_relaxed);
}

static void take_acquire(void)
{
	if (u32_load(&flag, memory_order_acquire))
		CHECK(data == 42);
}

static void take_relaxed(void)
{
	if (u32_load(&flag, memory_order_relaxed))
		CHECK(data == 42);
}

/* --- The same with data that is atomic, where only a value tells ------------------------------------------------------------- */

static void pass_atomic_release(void)
{
	u32_store(&other, 42, memory_order_relaxed);
	u32_store(&flag, 1, memory_order_release);
}

static void pass_atomic_relaxed(void)
{
	u32_store(&other, 42, memory_order_relaxed);
	u32_store(&flag, 1, memory_order_relaxed);
}

static void take_atomic(void)
{
	if (u32_load(&flag, memory_order_acquire))
		CHECK(u32_load(&other, memory_order_relaxed) == 42);
}

/* --- Store buffering: both may read 0, which no interleaving of the steps shows ------------------------------------------------- */

static void buffer_one(void)
{
	u32_store(&flag, 1, memory_order_release);
	result = (int)u32_load(&other, memory_order_acquire);
}

static void buffer_other(void)
{
	u32_store(&other, 1, memory_order_release);
	result2 = (int)u32_load(&flag, memory_order_acquire);
}

static void buffered(void)
{
	CHECK(result || result2);
}

/* --- Release sequences ------------------------------------------------------------------------------------------------------- */

static void bump(void)
{
	u32_fetch_add(&flag, 1, memory_order_relaxed);
}

static void take_after_bump(void)
{
	if (u32_load(&flag, memory_order_acquire) == 2)
		CHECK(data == 42);
}

/* --- Coherence: who has seen the new value never sees the old one again, nor who heard of it ------------------------------------ */

static void look_twice(void)
{
	uint32_t first = u32_load(&flag, memory_order_relaxed);

	CHECK(u32_load(&flag, memory_order_relaxed) >= first);
}

static void hear_of_it(void)
{
	if (u32_load(&other, memory_order_acquire))
		CHECK(u32_load(&flag, memory_order_relaxed) == 1);
}

static void look_and_tell(void)
{
	if (u32_load(&flag, memory_order_relaxed))
		u32_store(&other, 1, memory_order_release);
}

/* What was stored under a lock is seen under it, however often the one who stored has looked since. */
static void store_and_look_often(void)
{
	port_mutex_lock(&mutex_a);
	u32_store(&flag, 1, memory_order_relaxed);
	data = 1;
	port_mutex_unlock(&mutex_a);
	for (int i = 0; i < 20; i++)
		CHECK(u32_load(&flag, memory_order_relaxed) == 1);
}

static void look_under_lock(void)
{
	port_mutex_lock(&mutex_a);
	if (data)
		CHECK(u32_load(&flag, memory_order_relaxed) == 1);
	port_mutex_unlock(&mutex_a);
}

/* --- Updates that get lost ----------------------------------------------------------------------------------------------------- */

static void add_in_two_steps(void)
{
	u32_store(&turn, u32_load(&turn, memory_order_relaxed) + 1, memory_order_relaxed);
}

static void add_at_once(void)
{
	u32_fetch_add(&turn, 1, memory_order_relaxed);
}

static void two_were_added(void)
{
	CHECK(u32_load(&turn, memory_order_relaxed) == 2);
}

static void add_under_lock(void)
{
	port_mutex_lock(&mutex_a);
	data++;
	port_mutex_unlock(&mutex_a);
}

static void two_under_lock(void)
{
	CHECK(data == 2);
}

/* --- Locks in opposite order, and sleeping ------------------------------------------------------------------------------------- */

static void lock_a_b(void)
{
	port_mutex_lock(&mutex_a);
	port_mutex_lock(&mutex_b);
	port_mutex_unlock(&mutex_b);
	port_mutex_unlock(&mutex_a);
}

static void lock_b_a(void)
{
	port_mutex_lock(&mutex_b);
	port_mutex_lock(&mutex_a);
	port_mutex_unlock(&mutex_a);
	port_mutex_unlock(&mutex_b);
}

static void sleep_on_flag(void)
{
	while (!u32_load(&flag, memory_order_acquire))
		park_wait_real(&flag, 0, LF_DEADLINE_NEVER);
	CHECK(data == 42);
}

static void sleep_on_wrong_word(void)
{
	while (!u32_load(&flag, memory_order_acquire))
		park_wait_real(&other, 0, LF_DEADLINE_NEVER); /* the wake may come before the sleep */
}

static void set_and_wake(void)
{
	pass_release();
	park_wake(&flag);
}

static void set_and_wake_other(void)
{
	pass_release();
	park_wake(&other);
}

static void spin_on_flag(void)
{
	unsigned rounds = 0;

	while (!u32_load(&flag, memory_order_acquire))
		port_relax(&rounds);
	CHECK(data == 42);
}

/* --- Memory ---------------------------------------------------------------------------------------------------------------- */

struct node {
	struct lf_deferred deferred;
	int value;
};

static void publish_node(void)
{
	struct node *n = lf_alloc(sizeof(*n));

	n->value = 42;
	ptr_store(&published, (uintptr_t)n, memory_order_release);
}

static void look_inside(void)
{
	const struct node *n;

	rcu_begin();
	n = (const struct node *)ptr_load(&published, memory_order_acquire);
	if (n)
		CHECK(n->value == 42);
	rcu_end();
}

static void look_outside(void)
{
	const struct node *n;

	rcu_begin();
	n = (const struct node *)ptr_load(&published, memory_order_acquire);
	rcu_end();
	if (n)
		CHECK(n->value == 42);
}

static void withdraw_node(void)
{
	struct node *n = (struct node *)ptr_xchg(&published, 0, memory_order_relaxed);

	lf_defer_free(&n->deferred, n);
}

static void withdraw_node_at_once(void)
{
	lf_free((struct node *)ptr_xchg(&published, 0, memory_order_relaxed));
}

static void forget_node(void)
{
	CHECK(lf_alloc(16) != NULL);
}

static void overrun(void)
{
	char *block = lf_alloc(16);
	volatile char c = block[16];

	(void)c;
	lf_free(block);
}

/* --- How many schedules: threads of two stores each -------------------------------------------------------------------------- */

static void two_stores(void)
{
	u32_store(&flag, 1, memory_order_relaxed);
	u32_store(&flag, 2, memory_order_relaxed);
}

/* An own address each: no place at all. */
static void private_stores(void)
{
	lf_atomic_u32 mine[EXPLORE_THREADS + 1] = { { 0 } };

	u32_store(&mine[explore_self()], 1, memory_order_relaxed);
	u32_store(&mine[explore_self()], 2, memory_order_relaxed);
}

static const struct explore_scenario table[] = {
	{ .group = "self", .name = "self_message", .threads = { pass_release, take_acquire }, .oracle = "what was released is seen" },
	{ .group = "self", .name = "self_message_unreleased", .threads = { pass_relaxed, take_acquire }, .flags = EXPLORE_FAILS,
		.oracle = "a race is found where the release is missing" },
	{ .group = "self", .name = "self_message_unacquired", .threads = { pass_release, take_relaxed }, .flags = EXPLORE_FAILS,
		.oracle = "a race is found where the acquire is missing" },
	{ .group = "self", .name = "self_value", .threads = { pass_atomic_release, take_atomic }, .oracle = "no old value behind an acquire" },
	{ .group = "self", .name = "self_value_unreleased", .threads = { pass_atomic_relaxed, take_atomic }, .flags = EXPLORE_FAILS,
		.oracle = "an old value is found where the release is missing" },
	{ .group = "self", .name = "self_store_buffer", .threads = { buffer_one, buffer_other }, .finish = buffered, .flags = EXPLORE_FAILS,
		.oracle = "stores that wait in buffers are found" },
	{ .group = "self", .name = "self_sequence", .threads = { pass_release, bump, take_after_bump },
		.oracle = "an exchange passes on what was released before it" },
	{ .group = "self", .name = "self_coherence", .threads = { pass_atomic_relaxed, look_twice }, .oracle = "nobody sees time go back" },
	{ .group = "self", .name = "self_hearsay", .threads = { bump, look_and_tell, hear_of_it },
		.oracle = "who hears of a value does not see an older one" },
	{ .group = "self", .name = "self_look_often", .threads = { store_and_look_often, look_under_lock },
		.oracle = "what was seen once is not forgotten" },
	{ .group = "self", .name = "self_update", .threads = { add_at_once, add_at_once }, .finish = two_were_added,
		.oracle = "exchanges lose nothing" },
	{ .group = "self", .name = "self_update_lost", .threads = { add_in_two_steps, add_in_two_steps }, .finish = two_were_added,
		.flags = EXPLORE_FAILS, .oracle = "a lost update is found" },
	{ .group = "self", .name = "self_mutex", .threads = { add_under_lock, add_under_lock }, .finish = two_under_lock,
		.oracle = "a mutex orders what it protects" },
	{ .group = "self", .name = "self_opposite_locks", .threads = { lock_a_b, lock_b_a }, .flags = EXPLORE_FAILS,
		.oracle = "a deadlock is found" },
	{ .group = "self", .name = "self_sleep", .threads = { sleep_on_flag, sleep_on_flag, set_and_wake }, .oracle = "no wake is lost" },
	{ .group = "self", .name = "self_sleep_lost", .threads = { sleep_on_wrong_word, set_and_wake_other }, .flags = EXPLORE_FAILS,
		.oracle = "a lost wake is found" },
	{ .group = "self", .name = "self_spin", .threads = { spin_on_flag, pass_release }, .oracle = "who spins sees the flag in the end" },
	{ .group = "self", .name = "self_spin_for_ever", .threads = { spin_on_flag, bump, take_relaxed }, .flags = EXPLORE_FAILS,
		.oracle = "a race is found behind a flag that somebody else has set" },
	{ .group = "self", .name = "self_section", .setup = publish_node, .threads = { look_inside, look_inside, withdraw_node },
		.oracle = "a block outlives the sections that may see it" },
	{ .group = "self", .name = "self_section_left", .setup = publish_node, .threads = { look_outside, withdraw_node },
		.flags = EXPLORE_FAILS, .oracle = "a use behind the section is found" },
	{ .group = "self", .name = "self_no_grace", .setup = publish_node, .threads = { look_inside, withdraw_node_at_once },
		.flags = EXPLORE_FAILS, .oracle = "a free without a grace period is found" },
	{ .group = "self", .name = "self_leak", .threads = { forget_node }, .flags = EXPLORE_FAILS, .oracle = "a leak is found" },
	{ .group = "self", .name = "self_overrun", .threads = { overrun }, .flags = EXPLORE_FAILS, .oracle = "a look behind a block is found" },
	{ .group = "self", .name = "self_count", .threads = { two_stores, two_stores }, .bound = 6, .schedules = 6,
		.oracle = "of two and two steps there are 4! / (2! 2!) schedules" },
	{ .group = "self", .name = "self_count_one", .threads = { two_stores, two_stores }, .bound = 1, .schedules = 4,
		.oracle = "of which four have at most one switch too many" },
	{ .group = "self", .name = "self_count_three", .threads = { two_stores, two_stores, two_stores }, .bound = 6, .schedules = 90,
		.oracle = "of two, two and two steps there are 6! / (2! 2! 2!)" },
	{ .group = "self", .name = "self_count_private", .threads = { private_stores, private_stores }, .bound = 6, .schedules = 2,
		.oracle = "what nobody shares is no place to switch at; one of two begins" },
};
EXPLORE_SCENARIOS(table);
