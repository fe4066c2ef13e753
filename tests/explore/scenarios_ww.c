/* SPDX-License-Identifier: MIT */
/*
 * The lock of reservations: tickets in opposite order under both rules, threads without ticket, hand-over, calls and who comes by.
 *
 * Sleep and hand-over need a holder who holds for a while: stay() gives the turn away in the middle, so that others may queue, and sleep,
 * without a deviation.
 */
#include "explore.h"

#include "base/port.h"

static struct lf_ticket_class wait_die = LF_TICKET_CLASS_INIT(LF_WAIT_DIE);
static struct lf_ticket_class wound_wait = LF_TICKET_CLASS_INIT(LF_WOUND_WAIT);

/* A lock, and what it protects. Neither is atomic: so a lost order is a race. */
struct thing {
	struct lf_resv resv;
	unsigned holder; /* a thread, or 0 */
	unsigned taken; /* how often */
};
static struct thing a, b, c;
static unsigned rollbacks[EXPLORE_THREADS + 1]; /* how often each thread was told to roll back */

/* --- Helpers ---------------------------------------------------------------------------------------------------------------- */

static void make(struct lf_ticket_class *cls)
{
	lf_resv_init(&a.resv, cls);
	lf_resv_init(&b.resv, cls);
	lf_resv_init(&c.resv, cls);
}

static void make_wait_die(void)
{
	make(&wait_die);
}

static void make_wound_wait(void)
{
	make(&wound_wait);
}

/* This thread has the lock. */
static void hold(struct thing *t)
{
	CHECK(lf_resv_is_held(&t->resv));
	CHECK(t->holder == 0);
	t->holder = explore_self();
	t->taken++;
}

static void let_go(struct thing *t)
{
	CHECK(t->holder == explore_self());
	t->holder = 0;
	lf_resv_unlock(&t->resv);
}

/* Holds on while others look: who looks does so again when something was written since. */
static void stay(unsigned looks)
{
	lf_atomic_u32 written = { 0 };

	while (looks--) {
		u32_store(&written, looks, memory_order_relaxed);
		explore_yield();
	}
}

/* --- Without ticket ------------------------------------------------------------------------------------------------------------ */

static void lock_a(void)
{
	CHECK(lf_resv_lock(&a.resv, NULL) == 0);
	hold(&a);
	let_go(&a);
}

static void lock_b(void)
{
	CHECK(lf_resv_lock(&b.resv, NULL) == 0);
	hold(&b);
	let_go(&b);
}

static void lock_a_and_stay(void)
{
	CHECK(lf_resv_lock(&a.resv, NULL) == 0);
	hold(&a);
	stay(1);
	let_go(&a);
}

static void lock_a_and_stay_long(void)
{
	CHECK(lf_resv_lock(&a.resv, NULL) == 0);
	hold(&a);
	stay(3);
	let_go(&a);
}

static void lock_b_and_stay(void)
{
	CHECK(lf_resv_lock(&b.resv, NULL) == 0);
	hold(&b);
	stay(1);
	let_go(&b);
}

static void try_a(void)
{
	int ret = lf_resv_trylock(&a.resv, NULL);

	CHECK(ret == 0 || ret == -EBUSY);
	if (ret)
		return;
	hold(&a);
	let_go(&a);
}

/* --- With a ticket: what the user of one does ---------------------------------------------------------------------------------- */

/* Locks both, from @first on, and rolls back when told to. */
static void lock_both(struct lf_ticket *ticket, struct thing *first, struct thing *second)
{
	int ret;

	CHECK(lf_resv_lock(&first->resv, ticket) == 0);
	hold(first);
	while ((ret = lf_resv_lock(&second->resv, ticket)) != 0) {
		struct thing *lost = second;

		CHECK(ret == -EDEADLK);
		rollbacks[explore_self()]++;
		let_go(first);
		CHECK(lf_resv_lock_slow(&lost->resv, ticket) == 0);
		second = first;
		first = lost;
		hold(first);
	}
	hold(second);
}

/* Tickets have blocks of their own, which end with them: so a touch that comes too late is found. */
static struct lf_ticket *begin(struct lf_ticket_class *cls)
{
	struct lf_ticket *ticket = lf_alloc(sizeof(*ticket));

	lf_ticket_init(ticket, cls);
	return ticket;
}

static void end(struct lf_ticket *ticket)
{
	lf_ticket_fini(ticket);
	lf_free(ticket);
}

static void transact(struct lf_ticket_class *cls, struct thing *first, struct thing *second)
{
	struct lf_ticket *ticket = begin(cls);

	lock_both(ticket, first, second);
	let_go(first);
	let_go(second);
	end(ticket);
}

static void die_a_b(void)
{
	transact(&wait_die, &a, &b);
}

static void die_b_a(void)
{
	transact(&wait_die, &b, &a);
}

static void wound_a_b(void)
{
	transact(&wound_wait, &a, &b);
}

static void wound_b_a(void)
{
	transact(&wound_wait, &b, &a);
}

static void wound_c_a(void)
{
	transact(&wound_wait, &c, &a);
}

/* Does without b if it cannot have it. */
static void wound_a_perhaps_b(void)
{
	struct lf_ticket *ticket = begin(&wound_wait);

	CHECK(lf_resv_lock(&a.resv, ticket) == 0);
	hold(&a);
	if (lf_resv_lock(&b.resv, ticket) == 0) {
		hold(&b);
		let_go(&b);
	}
	let_go(&a);
	end(ticket);
}

/* Gives b back, and wounds who is called for it, since that one has a. */
static void wound_who_is_called(void)
{
	struct lf_ticket *ticket = begin(&wound_wait);

	CHECK(lf_resv_lock(&c.resv, ticket) == 0);
	CHECK(lf_resv_lock(&b.resv, ticket) == 0);
	hold(&b);
	let_go(&b);
	if (lf_resv_lock(&a.resv, ticket) == 0) {
		hold(&a);
		let_go(&a);
	}
	lf_resv_unlock(&c.resv);
	end(ticket);
}

static void lock_b_with_ticket(void)
{
	struct lf_ticket *ticket = begin(&wound_wait);

	CHECK(lf_resv_lock(&b.resv, ticket) == 0);
	hold(&b);
	let_go(&b);
	end(ticket);
}

static void try_with_ticket(void)
{
	struct lf_ticket *ticket = begin(&wait_die);
	int ret;

	ret = lf_resv_trylock(&a.resv, ticket);
	CHECK(ret == 0 || ret == -EBUSY);
	if (ret == 0) {
		hold(&a);
		CHECK(lf_resv_trylock(&a.resv, ticket) == -EALREADY);
		let_go(&a);
	}
	end(ticket);
}

/* --- Whole transactions -------------------------------------------------------------------------------------------------------- */

static void exec(struct thing *first, struct thing *second)
{
	struct lf_exec x;

	lf_exec_init(&x, &wait_die);
	while (lf_exec_next(&x)) {
		lf_exec_lock(&x, &first->resv, 0);
		lf_exec_lock(&x, &second->resv, 0);
	}
	CHECK(lf_exec_error(&x) == 0 && x.count == 2);
	CHECK(first->holder == 0 && second->holder == 0);
	first->holder = second->holder = explore_self();
	first->taken++;
	second->taken++;
	CHECK(first->holder == explore_self() && second->holder == explore_self());
	first->holder = second->holder = 0;
	lf_exec_fini(&x);
}

/* Does not ask again for what it could not have. */
static void exec_once(struct thing *first, struct thing *second)
{
	bool lost = false;
	struct lf_exec x;

	lf_exec_init(&x, &wait_die);
	while (lf_exec_next(&x)) {
		lf_exec_lock(&x, &first->resv, 0);
		if (!lost)
			lost = lf_exec_lock(&x, &second->resv, 0) == -EDEADLK;
	}
	CHECK(lf_exec_error(&x) == 0 && x.count == (lost ? 1 : 2));
	CHECK(lf_resv_is_held(&first->resv) && lf_resv_is_held(&second->resv) == !lost);
	lf_exec_fini(&x);
}

static void exec_a_b(void)
{
	exec(&a, &b);
}

static void exec_b_a(void)
{
	exec(&b, &a);
}

static void exec_b_perhaps_a(void)
{
	exec_once(&b, &a);
}

/* --- What must be true in the end ---------------------------------------------------------------------------------------------- */

static void all_free(void)
{
	CHECK(!lf_resv_is_locked(&a.resv) && !lf_resv_is_locked(&b.resv));
	CHECK(!a.holder && !b.holder);
	/* Also the flag for waiters is gone: the fast path takes it. */
	CHECK(lf_resv_trylock(&a.resv, NULL) == 0 && lf_resv_trylock(&b.resv, NULL) == 0);
	lf_resv_unlock(&a.resv);
	lf_resv_unlock(&b.resv);
	lf_resv_fini(&a.resv);
	lf_resv_fini(&b.resv);
	lf_resv_fini(&c.resv);
}

static void both_came(void)
{
	all_free();
	CHECK(a.taken >= 2 && b.taken >= 2);
}

/* Under wound-wait an older one that wants two locks wounds once; under wait-die it may have each when the younger one asks. */
static void rolled_back_once(void)
{
	both_came();
	CHECK(rollbacks[1] + rollbacks[2] <= 1);
}

static void rolled_back_twice(void)
{
	both_came();
	CHECK(rollbacks[1] + rollbacks[2] <= 2);
}

/*
 * Two deviations where three threads may sleep: whoever sleeps leaves a choice which of the others goes on, so these have as many schedules
 * with two as those of two threads with five.
 */
/* Who looks before it sleeps may go on at each look, so three threads that do are up to two million schedules with one deviation more. */
static const struct explore_scenario table[] = {
	{ .group = "ww", .name = "ww_call", .setup = make_wait_die, .threads = { lock_a_and_stay_long, lock_a }, .finish = all_free,
		.oracle = "a sleeper that is called comes" },
	{ .group = "ww", .name = "ww_hand_over", .setup = make_wait_die, .threads = { lock_a_and_stay, lock_a, lock_a }, .finish = all_free,
		.bound = 1, .oracle = "a lock has one holder, who sees what the last one did, and nobody sleeps for ever" },
	{ .group = "ww", .name = "ww_come_by", .setup = make_wait_die, .threads = { lock_a_and_stay, lock_a, try_a }, .finish = all_free,
		.bound = 2, .oracle = "the same when somebody comes by" },
	{ .group = "ww", .name = "ww_try", .setup = make_wait_die, .threads = { lock_a, try_with_ticket, try_a }, .finish = all_free,
		.oracle = "who only tries has it or not" },
	{ .group = "ww", .name = "ww_wait_die", .setup = make_wait_die, .threads = { die_a_b, die_b_a }, .finish = rolled_back_twice,
		.oracle = "wait-die: two in opposite order both come through" },
	{ .group = "ww", .name = "ww_wound_wait", .setup = make_wound_wait, .threads = { wound_a_b, wound_b_a }, .finish = rolled_back_once,
		.oracle = "wound-wait: two in opposite order both come through" },
	{ .group = "ww", .name = "ww_wait_die_third", .setup = make_wait_die, .threads = { die_a_b, die_b_a, lock_a },
		.finish = rolled_back_twice, .bound = 2, .oracle = "wait-die: the same with a third one without ticket" },
	{ .group = "ww", .name = "ww_wound_wait_third", .setup = make_wound_wait, .threads = { wound_a_b, wound_b_a, lock_b },
		.finish = rolled_back_once, .bound = 1, .oracle = "wound-wait: the same with a third one without ticket" },
	{ .group = "ww", .name = "ww_wound_unlock", .setup = make_wound_wait, .threads = { wound_a_b, lock_b_with_ticket },
		.finish = all_free, .oracle = "who is wounded while it unlocks ends its ticket untouched" },
	{ .group = "ww", .name = "ww_overtaken", .setup = make_wound_wait, .threads = { lock_b_and_stay, wound_a_b, wound_b_a },
		.finish = both_came, .bound = 1, .oracle = "who overtakes an older sleeper that holds something gives way to it" },
	{ .group = "ww", .name = "ww_leave", .setup = make_wound_wait, .threads = { lock_b_and_stay, wound_a_b, wound_c_a },
		.finish = all_free, .bound = 2, .oracle = "who is wounded in a queue leaves it, unless it was granted the lock" },
	{ .group = "ww", .name = "ww_called_leaves", .setup = make_wound_wait,
		.threads = { wound_who_is_called, wound_a_perhaps_b, lock_b }, .finish = all_free, .bound = 2,
		.oracle = "when who was called leaves, the next is called" },
	{ .group = "ww", .name = "ww_exec", .setup = make_wait_die, .threads = { exec_a_b, exec_b_a }, .finish = both_came,
		.oracle = "the loop comes through with both, whoever gives way" },
	{ .group = "ww", .name = "ww_exec_once", .setup = make_wait_die, .threads = { exec_a_b, exec_b_perhaps_a }, .finish = all_free,
		.oracle = "what a round was lost for is unlocked if the next does not ask for it" },
};
EXPLORE_SCENARIOS(table);
