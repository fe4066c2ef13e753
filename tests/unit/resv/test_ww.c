/* SPDX-License-Identifier: MIT */
/* The lock of a reservation: who gets it, who waits, who gives way, and what is said of mistakes. */
#include "testing.h"

#include <sched.h>

#include "resv/ww.h"

static struct lf_ticket_class die = LF_TICKET_CLASS_INIT(LF_WAIT_DIE);
static struct lf_ticket_class wound = LF_TICKET_CLASS_INIT(LF_WOUND_WAIT);

static int lock(struct lf_ww_lock *l, struct lf_ticket *ticket)
{
	return ww_lock(l, ticket, "lock");
}

static int trylock(struct lf_ww_lock *l, struct lf_ticket *ticket)
{
	return ww_trylock(l, ticket, "trylock");
}

static int lock_slow(struct lf_ww_lock *l, struct lf_ticket *ticket)
{
	return ww_lock_slow(l, ticket, "lock_slow");
}

/* As lf_resv_unlock() does it. */
static int unlock(struct lf_ww_lock *l, struct lf_ticket *ticket)
{
	if (!ww_check_held(l, "unlock"))
		return -EPERM;
	ww_unlock(l);
	return 0;
}

static unsigned take_misuse(void)
{
	unsigned count = log_count(LF_LOG_MISUSE);
	log_reset();
	return count;
}

/* --- Actors: threads that do what they are told, each with a ticket ------------------------------------------------------ */

typedef int (*action_fn)(struct lf_ww_lock *l, struct lf_ticket *ticket);

struct actor {
	struct lf_ticket ticket;
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	action_fn action; /* NULL: nothing to do */
	struct lf_ww_lock *on;
	bool without_ticket;
	bool end;
	int result;
};

static void *act(void *arg)
{
	struct actor *a = arg;
	pthread_mutex_lock(&a->mutex);
	for (;;) {
		while (!a->action && !a->end)
			pthread_cond_wait(&a->cond, &a->mutex);
		if (a->end)
			break;
		pthread_mutex_unlock(&a->mutex);
		int result = a->action(a->on, a->without_ticket ? NULL : &a->ticket);
		pthread_mutex_lock(&a->mutex);
		a->result = result;
		a->action = NULL;
		pthread_cond_broadcast(&a->cond);
	}
	pthread_mutex_unlock(&a->mutex);
	return NULL;
}

/* Lets it begin, and does not wait for the result. */
static void begin(struct actor *a, action_fn action, struct lf_ww_lock *l)
{
	pthread_mutex_lock(&a->mutex);
	must(!a->action);
	a->action = action;
	a->on = l;
	pthread_cond_broadcast(&a->cond);
	pthread_mutex_unlock(&a->mutex);
}

static int result(struct actor *a)
{
	pthread_mutex_lock(&a->mutex);
	while (a->action)
		pthread_cond_wait(&a->cond, &a->mutex);
	int got = a->result;
	pthread_mutex_unlock(&a->mutex);
	return got;
}

static bool has_result(struct actor *a)
{
	pthread_mutex_lock(&a->mutex);
	bool has = !a->action;
	pthread_mutex_unlock(&a->mutex);
	return has;
}

static int order(struct actor *a, action_fn action, struct lf_ww_lock *l)
{
	begin(a, action, l);
	return result(a);
}

static struct lf_ticket_class *class_to_init;

static int init_ticket(struct lf_ww_lock *l, struct lf_ticket *ticket)
{
	lf_ticket_init(ticket, class_to_init);
	return 0;
}

static int fini_ticket(struct lf_ww_lock *l, struct lf_ticket *ticket)
{
	lf_ticket_fini(ticket);
	return 0;
}

/* Those that are made first are the older ones. */
static void actor_init(struct actor *a, struct lf_ticket_class *cls)
{
	*a = (struct actor){ .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	a->thread = thread_start(act, a, 0);
	class_to_init = cls;
	order(a, init_ticket, NULL);
}

static void actor_fini(struct actor *a)
{
	must(has_result(a));
	a->without_ticket = false;
	order(a, fini_ticket, NULL);
	pthread_mutex_lock(&a->mutex);
	a->end = true;
	pthread_cond_broadcast(&a->cond);
	pthread_mutex_unlock(&a->mutex);
	thread_join(a->thread);
}

static void actors_init(struct actor *actors, size_t n, struct lf_ticket_class *cls)
{
	for (size_t i = 0; i < n; i++)
		actor_init(&actors[i], cls);
}

static void actors_fini(struct actor *actors, size_t n)
{
	for (size_t i = 0; i < n; i++)
		actor_fini(&actors[i]);
}

/* --- What happens inside -------------------------------------------------------------------------------------------------- */

static size_t count_waiters(struct lf_ww_lock *l)
{
	struct port_spin *spin = (struct port_spin *)&l->spin;
	size_t n = 0;
	port_spin_lock(spin);
	for (const struct lf_ticket *w = l->waiters; w; w = w->next)
		n++;
	port_spin_unlock(spin);
	return n;
}

static void until_waiters(struct lf_ww_lock *l, size_t n)
{
	while (count_waiters(l) != n)
		sched_yield();
}

/* Of a ticket that waits and was told nothing only the flag that it sleeps can be set. */
static void until_asleep(struct actor *a)
{
	while (u32_load(&a->ticket.word, memory_order_relaxed) == 0)
		sched_yield();
}

/* Begins to lock, and waits until it is in the queue as the nth. */
static void queue(struct actor *a, struct lf_ww_lock *l, size_t nth)
{
	begin(a, lock, l);
	until_waiters(l, nth);
}

static void stays_waiting(struct actor *a)
{
	for (int i = 0; i < 200; i++) {
		assert_false(has_result(a));
		sched_yield();
	}
}

/* --- Without contention ---------------------------------------------------------------------------------------------------- */

static void zeroed_memory_is_a_free_lock_of_the_default_class(void **state)
{
	struct lf_ww_lock l;
	struct lf_ticket ticket;
	memset(&l, 0, sizeof(l));
	assert_false(ww_is_locked(&l));
	assert_false(ww_is_held(&l));
	assert_int_equal(lock(&l, NULL), 0);
	assert_true(ww_is_locked(&l));
	assert_true(ww_is_held(&l));
	assert_int_equal(unlock(&l, NULL), 0);
	lf_ticket_init(&ticket, NULL);
	assert_int_equal(lock(&l, &ticket), 0);
	assert_true(ww_is_locked(&l));
	assert_true(ww_is_held(&l));
	assert_int_equal(unlock(&l, NULL), 0);
	assert_false(ww_is_locked(&l));
	lf_ticket_fini(&ticket);
	ww_fini(&l);
}

static void fini_of_a_held_lock_is_reported(void **state)
{
	struct lf_ww_lock l;
	ww_init(&l, NULL);
	assert_int_equal(lock(&l, NULL), 0);
	ww_fini(&l);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(unlock(&l, NULL), 0);
}

static int is_held(struct lf_ww_lock *l, struct lf_ticket *ticket)
{
	return ww_is_held(l);
}

static void is_held_tells_threads_and_tickets_apart(void **state)
{
	struct lf_ww_lock l[3];
	struct lf_ticket first, second;
	struct actor other;
	for (int i = 0; i < 3; i++)
		ww_init(&l[i], &die);
	actor_init(&other, &die);
	lf_ticket_init(&first, &die);
	lf_ticket_init(&second, &die);
	assert_int_equal(lock(&l[0], &first), 0);
	assert_int_equal(lock(&l[1], &second), 0);
	assert_int_equal(lock(&l[2], NULL), 0);
	for (int i = 0; i < 3; i++) {
		assert_true(ww_is_held(&l[i]));
		assert_true(ww_is_held(&l[i]));
		assert_false(order(&other, is_held, &l[i]));
		assert_true(ww_is_locked(&l[i]));
	}
	assert_int_equal(unlock(&l[1], NULL), 0);
	assert_true(ww_is_held(&l[0]));
	assert_false(ww_is_held(&l[1]));
	assert_int_equal(order(&other, lock, &l[1]), 0);
	assert_false(ww_is_held(&l[1]));
	assert_true(order(&other, is_held, &l[1]));
	assert_int_equal(order(&other, unlock, &l[1]), 0);
	assert_int_equal(unlock(&l[0], NULL), 0);
	assert_int_equal(unlock(&l[2], NULL), 0);
	lf_ticket_fini(&first);
	lf_ticket_fini(&second);
	actor_fini(&other);
}

/* The memory of a ticket that this thread used becomes another thread's. */
static void is_held_is_not_deceived_by_memory_that_was_our_ticket(void **state)
{
	struct lf_ww_lock l;
	struct actor other;
	ww_init(&l, NULL);
	actor_init(&other, NULL);
	order(&other, fini_ticket, NULL);
	lf_ticket_init(&other.ticket, NULL);
	assert_int_equal(lock(&l, &other.ticket), 0);
	assert_int_equal(unlock(&l, NULL), 0);
	lf_ticket_fini(&other.ticket);
	order(&other, init_ticket, NULL);
	assert_int_equal(order(&other, lock, &l), 0);
	assert_false(ww_is_held(&l));
	assert_int_equal(order(&other, unlock, &l), 0);
	actor_fini(&other);
}

static void locking_again_returns_EALREADY(void **state)
{
	struct lf_ww_lock l;
	struct lf_ticket ticket;
	ww_init(&l, &die);
	lf_ticket_init(&ticket, &die);
	assert_int_equal(lock(&l, &ticket), 0);
	assert_int_equal(lock(&l, &ticket), -EALREADY);
	assert_int_equal(trylock(&l, &ticket), -EALREADY);
	assert_int_equal(take_misuse(), 0);
	assert_int_equal(lock(&l, NULL), -EALREADY);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(trylock(&l, NULL), -EALREADY);
	assert_int_equal(take_misuse(), 0);
	assert_int_equal(unlock(&l, NULL), 0);
	assert_int_equal(lock(&l, NULL), 0);
	assert_int_equal(lock(&l, NULL), -EALREADY);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(trylock(&l, NULL), -EALREADY);
	assert_int_equal(take_misuse(), 0);
	assert_int_equal(unlock(&l, NULL), 0);
	assert_false(ww_is_locked(&l));
	lf_ticket_fini(&ticket);
}

static void locking_what_the_thread_holds_otherwise_is_refused(void **state)
{
	struct lf_ww_lock l;
	struct lf_ticket first, second;
	ww_init(&l, &die);
	lf_ticket_init(&first, &die);
	lf_ticket_init(&second, &die);
	assert_int_equal(lock(&l, NULL), 0);
	assert_int_equal(lock(&l, &first), -EPERM);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(trylock(&l, &first), -EALREADY);
	assert_int_equal(unlock(&l, NULL), 0);
	assert_int_equal(lock(&l, &second), 0);
	assert_int_equal(lock(&l, &first), -EPERM);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(unlock(&l, NULL), 0);
	lf_ticket_fini(&first);
	lf_ticket_fini(&second);
}

static void trylock_takes_what_is_free_and_waits_for_nothing(void **state)
{
	struct lf_ww_lock l;
	struct actor a, b;
	ww_init(&l, &die);
	actor_init(&a, &die);
	actor_init(&b, &die);
	assert_int_equal(order(&a, trylock, &l), 0);
	assert_int_equal(order(&b, trylock, &l), -EBUSY);
	assert_int_equal(trylock(&l, NULL), -EBUSY);
	assert_int_equal(order(&a, unlock, &l), 0);
	assert_int_equal(trylock(&l, NULL), 0);
	assert_int_equal(order(&b, trylock, &l), -EBUSY);
	assert_int_equal(unlock(&l, NULL), 0);
	actor_fini(&a);
	actor_fini(&b);
}

/* --- Mistakes --------------------------------------------------------------------------------------------------------------- */

static void ticket_of_another_class_is_refused(void **state)
{
	struct lf_ww_lock l, of_default;
	struct lf_ticket ticket, default_ticket;
	ww_init(&l, &die);
	ww_init(&of_default, NULL);
	lf_ticket_init(&ticket, &wound);
	lf_ticket_init(&default_ticket, NULL);
	assert_int_equal(lock(&l, &ticket), -EINVAL);
	assert_int_equal(trylock(&l, &ticket), -EINVAL);
	assert_int_equal(lock_slow(&l, &ticket), -EINVAL);
	assert_int_equal(lock(&of_default, &ticket), -EINVAL);
	assert_int_equal(lock(&l, &default_ticket), -EINVAL);
	assert_int_equal(take_misuse(), 5);
	assert_false(ww_is_locked(&l));
	assert_false(ww_is_locked(&of_default));
	lf_ticket_fini(&ticket);
	lf_ticket_fini(&default_ticket);
}

static void ticket_of_another_thread_or_of_none_is_refused(void **state)
{
	struct lf_ww_lock l;
	struct actor other;
	ww_init(&l, &die);
	actor_init(&other, &die);
	assert_int_equal(lock(&l, &other.ticket), -EINVAL);
	assert_int_equal(trylock(&l, &other.ticket), -EINVAL);
	assert_int_equal(take_misuse(), 2);
	order(&other, fini_ticket, NULL);
	assert_int_equal(order(&other, lock, &l), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	assert_false(ww_is_locked(&l));
	actor_fini(&other);
}

static void unlock_by_who_has_it_not_changes_nothing(void **state)
{
	struct lf_ww_lock l;
	struct actor a, b;
	ww_init(&l, &die);
	actor_init(&a, &die);
	actor_init(&b, &die);
	assert_int_equal(unlock(&l, NULL), -EPERM);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(order(&a, lock, &l), 0);
	assert_int_equal(unlock(&l, NULL), -EPERM);
	assert_int_equal(order(&b, unlock, &l), -EPERM);
	assert_int_equal(take_misuse(), 2);
	assert_true(order(&a, is_held, &l));
	assert_int_equal(order(&a, unlock, &l), 0);
	assert_int_equal(lock(&l, NULL), 0);
	assert_int_equal(order(&a, unlock, &l), -EPERM);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(unlock(&l, NULL), 0);
	actor_fini(&a);
	actor_fini(&b);
}

static void ticket_that_ends_while_it_holds_is_reported_and_lives_on(void **state)
{
	struct lf_ww_lock l;
	struct lf_ticket ticket;
	ww_init(&l, &die);
	lf_ticket_init(&ticket, &die);
	assert_int_equal(lock(&l, &ticket), 0);
	lf_ticket_fini(&ticket);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(unlock(&l, NULL), 0);
	lf_ticket_fini(&ticket);
	lf_ticket_fini(NULL);
}

static void slow_lock_wants_a_ticket_that_holds_nothing(void **state)
{
	struct lf_ww_lock l[2];
	struct lf_ticket ticket;
	ww_init(&l[0], &die);
	ww_init(&l[1], &die);
	lf_ticket_init(&ticket, &die);
	assert_int_equal(lock_slow(&l[0], &ticket), 0);
	assert_int_equal(lock_slow(&l[1], &ticket), -EINVAL);
	assert_int_equal(lock_slow(&l[0], &ticket), -EINVAL);
	assert_int_equal(lock_slow(&l[1], NULL), -EINVAL);
	assert_int_equal(take_misuse(), 3);
	assert_false(ww_is_locked(&l[1]));
	assert_int_equal(unlock(&l[0], NULL), 0);
	lf_ticket_fini(&ticket);
}

static void poisoned_child_gets_EOWNERDEAD(void **state)
{
	struct lf_ww_lock l, held;
	struct lf_ticket ticket;
	ww_init(&l, NULL);
	ww_init(&held, NULL);
	lf_ticket_init(&ticket, NULL);
	assert_int_equal(lock(&held, NULL), 0);
	library_is_poisoned = true;
	int locked = lock(&l, NULL), with = lock(&l, &ticket), slow = lock_slow(&l, &ticket), tried = trylock(&l, NULL);
	int unlocked = unlock(&held, NULL);
	library_is_poisoned = false;
	assert_int_equal(locked, -EOWNERDEAD);
	assert_int_equal(with, -EOWNERDEAD);
	assert_int_equal(slow, -EOWNERDEAD);
	assert_int_equal(tried, -EOWNERDEAD);
	assert_int_equal(unlocked, 0);
	lf_ticket_fini(&ticket);
}

/* --- Where waiting is not allowed -------------------------------------------------------------------------------------------- */

static struct lf_ww_lock free_lock, busy_lock;

static void lock_where_waiting_is_refused(void)
{
	struct lf_ticket ticket;
	lf_ticket_init(&ticket, NULL);
	must(trylock(&free_lock, NULL) == 0);
	must(unlock(&free_lock, NULL) == 0);
	must(trylock(&busy_lock, NULL) == -EBUSY);
	must(trylock(&busy_lock, &ticket) == -EBUSY);
	must(take_misuse() == 0);
	must(lock(&busy_lock, NULL) == -EPERM);
	must(lock(&busy_lock, &ticket) == -EPERM);
	must(lock_slow(&busy_lock, &ticket) == -EPERM);
	must(take_misuse() == 3);
	/* what need not wait is allowed */
	must(lock(&free_lock, &ticket) == 0);
	must(lock(&free_lock, &ticket) == -EALREADY);
	must(lock(&busy_lock, &ticket) == -EPERM);
	must(take_misuse() == 1);
	must(unlock(&free_lock, NULL) == 0);
	lf_ticket_fini(&ticket);
}

static void lock_in_callback(struct lf_fence *f, struct lf_fence_cb *cb)
{
	lock_where_waiting_is_refused();
}

static void lock_in_deferred_call(struct lf_deferred *node)
{
	lock_where_waiting_is_refused();
}

static void lock_that_must_wait_is_refused_where_waiting_is(void **state)
{
	struct actor owner;
	struct lf_fence *f = NULL;
	struct lf_fence_cb cb = LF_FENCE_CB_INIT;
	static struct lf_deferred node;
	ww_init(&free_lock, NULL);
	ww_init(&busy_lock, NULL);
	actor_init(&owner, NULL);
	assert_int_equal(order(&owner, lock, &busy_lock), 0);
	must(lf_fence_create(&f) == 0);
	must(lf_fence_add_callback(f, &cb, lock_in_callback) == 0);
	must(lf_fence_signal(f, 0));
	lf_fence_put(f);
	lf_read_lock();
	lock_where_waiting_is_refused();
	lf_read_unlock();
	lf_defer_call(&node, lock_in_deferred_call);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(order(&owner, unlock, &busy_lock), 0);
	actor_fini(&owner);
}

/* --- Wait-die ---------------------------------------------------------------------------------------------------------------- */

static void younger_that_holds_something_dies(void **state)
{
	struct lf_ww_lock l, own;
	struct actor a[2];
	ww_init(&l, &die);
	ww_init(&own, &die);
	actors_init(a, 2, &die);
	assert_int_equal(order(&a[0], lock, &l), 0);
	assert_int_equal(order(&a[1], lock, &own), 0);
	assert_int_equal(order(&a[1], lock, &l), -EDEADLK);
	assert_ptr_equal(a[1].ticket.wanted, &l);
	assert_int_equal(count_waiters(&l), 0);
	/* the way out */
	assert_int_equal(order(&a[1], unlock, &own), 0);
	begin(&a[1], lock_slow, &l);
	until_waiters(&l, 1);
	stays_waiting(&a[1]);
	assert_int_equal(order(&a[0], unlock, &l), 0);
	assert_int_equal(result(&a[1]), 0);
	assert_int_equal(order(&a[1], lock, &own), 0);
	assert_int_equal(order(&a[1], unlock, &own), 0);
	assert_int_equal(order(&a[1], unlock, &l), 0);
	actors_fini(a, 2);
}

static void younger_that_holds_nothing_waits(void **state)
{
	struct lf_ww_lock l;
	struct actor a[2];
	ww_init(&l, &die);
	actors_init(a, 2, &die);
	assert_int_equal(order(&a[0], lock, &l), 0);
	queue(&a[1], &l, 1);
	until_asleep(&a[1]);
	assert_int_equal(order(&a[0], unlock, &l), 0);
	assert_int_equal(result(&a[1]), 0);
	assert_true(order(&a[1], is_held, &l));
	assert_int_equal(order(&a[1], unlock, &l), 0);
	assert_false(ww_is_locked(&l));
	actors_fini(a, 2);
}

static void older_waits_whatever_it_holds(void **state)
{
	struct lf_ww_lock l, own;
	struct actor a[2];
	ww_init(&l, &die);
	ww_init(&own, &die);
	actors_init(a, 2, &die);
	assert_int_equal(order(&a[1], lock, &l), 0);
	assert_int_equal(order(&a[0], lock, &own), 0);
	queue(&a[0], &l, 1);
	until_asleep(&a[0]);
	assert_int_equal(order(&a[1], unlock, &l), 0);
	assert_int_equal(result(&a[0]), 0);
	assert_int_equal(order(&a[0], unlock, &l), 0);
	assert_int_equal(order(&a[0], unlock, &own), 0);
	actors_fini(a, 2);
}

static void owner_without_ticket_is_not_older(void **state)
{
	struct lf_ww_lock l, own;
	struct actor a;
	ww_init(&l, &die);
	ww_init(&own, &die);
	assert_int_equal(lock(&l, NULL), 0);
	actor_init(&a, &die);
	assert_int_equal(order(&a, lock, &own), 0);
	queue(&a, &l, 1);
	assert_int_equal(unlock(&l, NULL), 0);
	assert_int_equal(result(&a), 0);
	assert_int_equal(order(&a, unlock, &l), 0);
	assert_int_equal(order(&a, unlock, &own), 0);
	actor_fini(&a);
}

/* The owner has no ticket, so that all of them wait; then the oldest of them is the owner. */
static void younger_waiters_that_hold_something_die_when_an_older_gets_the_lock(void **state)
{
	struct lf_ww_lock l, own[4];
	struct actor a[4], anonymous;
	ww_init(&l, &die);
	actors_init(a, 4, &die);
	actor_init(&anonymous, &die);
	anonymous.without_ticket = true;
	assert_int_equal(lock(&l, NULL), 0);
	for (int i = 3; i >= 0; i--) {
		ww_init(&own[i], &die);
		if (i != 2)
			assert_int_equal(order(&a[i], lock, &own[i]), 0);
		queue(&a[i], &l, (size_t)(4 - i));
	}
	queue(&anonymous, &l, 5);
	until_asleep(&a[3]);
	assert_int_equal(unlock(&l, NULL), 0);
	assert_int_equal(result(&a[0]), 0);
	assert_int_equal(result(&a[1]), -EDEADLK);
	assert_int_equal(result(&a[3]), -EDEADLK);
	assert_ptr_equal(a[3].ticket.wanted, &l);
	assert_int_equal(count_waiters(&l), 2);
	stays_waiting(&a[2]);
	assert_int_equal(order(&a[1], unlock, &own[1]), 0);
	assert_int_equal(order(&a[3], unlock, &own[3]), 0);
	assert_int_equal(order(&a[0], unlock, &l), 0);
	assert_int_equal(result(&a[2]), 0);
	assert_int_equal(order(&a[2], unlock, &l), 0);
	assert_int_equal(result(&anonymous), 0);
	assert_int_equal(order(&anonymous, unlock, &l), 0);
	assert_int_equal(order(&a[0], unlock, &own[0]), 0);
	assert_false(ww_is_locked(&l));
	actors_fini(a, 4);
	actor_fini(&anonymous);
}

static void nobody_dies_when_a_thread_without_ticket_gets_the_lock(void **state)
{
	struct lf_ww_lock l, own;
	struct actor anonymous, a;
	ww_init(&l, &die);
	ww_init(&own, &die);
	actor_init(&anonymous, &die);
	anonymous.without_ticket = true;
	assert_int_equal(lock(&l, NULL), 0);
	queue(&anonymous, &l, 1);
	actor_init(&a, &die);
	assert_int_equal(order(&a, lock, &own), 0);
	queue(&a, &l, 2);
	assert_int_equal(unlock(&l, NULL), 0);
	assert_int_equal(result(&anonymous), 0);
	stays_waiting(&a);
	assert_int_equal(order(&anonymous, unlock, &l), 0);
	assert_int_equal(result(&a), 0);
	assert_int_equal(order(&a, unlock, &l), 0);
	assert_int_equal(order(&a, unlock, &own), 0);
	actor_fini(&a);
	actor_fini(&anonymous);
}

/* --- Wound-wait -------------------------------------------------------------------------------------------------------------- */

static void younger_waits_for_older_whatever_it_holds(void **state)
{
	struct lf_ww_lock l, own;
	struct actor a[2];
	ww_init(&l, &wound);
	ww_init(&own, &wound);
	actors_init(a, 2, &wound);
	assert_int_equal(order(&a[0], lock, &l), 0);
	assert_int_equal(order(&a[1], lock, &own), 0);
	queue(&a[1], &l, 1);
	stays_waiting(&a[1]);
	assert_int_equal(order(&a[0], unlock, &l), 0);
	assert_int_equal(result(&a[1]), 0);
	assert_int_equal(order(&a[1], unlock, &l), 0);
	assert_int_equal(order(&a[1], unlock, &own), 0);
	actors_fini(a, 2);
}

static void wounded_may_lock_what_is_free_and_not_wait(void **state)
{
	struct lf_ww_lock l, own, spare, busy;
	struct actor a[3];
	ww_init(&l, &wound);
	ww_init(&own, &wound);
	ww_init(&spare, &wound);
	ww_init(&busy, &wound);
	actors_init(a, 3, &wound);
	assert_int_equal(order(&a[2], lock, &busy), 0);
	assert_int_equal(order(&a[1], lock, &l), 0);
	assert_int_equal(order(&a[0], lock, &own), 0);
	queue(&a[0], &l, 1);
	assert_int_equal(order(&a[1], lock, &spare), 0);
	/* the oldest of these two, and yet */
	assert_int_equal(order(&a[1], lock, &busy), -EDEADLK);
	assert_ptr_equal(a[1].ticket.wanted, &busy);
	assert_int_equal(count_waiters(&busy), 0);
	assert_int_equal(order(&a[1], unlock, &spare), 0);
	assert_int_equal(order(&a[1], unlock, &l), 0);
	assert_int_equal(result(&a[0]), 0);
	/* the wound is over: it waits again, also when it holds something */
	assert_int_equal(order(&a[1], lock, &spare), 0);
	queue(&a[1], &busy, 1);
	stays_waiting(&a[1]);
	assert_int_equal(order(&a[2], unlock, &busy), 0);
	assert_int_equal(result(&a[1]), 0);
	assert_int_equal(order(&a[1], unlock, &busy), 0);
	assert_int_equal(order(&a[1], unlock, &spare), 0);
	assert_int_equal(order(&a[0], unlock, &l), 0);
	assert_int_equal(order(&a[0], unlock, &own), 0);
	actors_fini(a, 3);
}

static void wounded_sleeper_wakes_and_leaves_the_queue(void **state)
{
	struct lf_ww_lock l, busy, own;
	struct actor a[3];
	ww_init(&l, &wound);
	ww_init(&busy, &wound);
	ww_init(&own, &wound);
	actors_init(a, 3, &wound);
	assert_int_equal(order(&a[2], lock, &busy), 0);
	assert_int_equal(order(&a[1], lock, &l), 0);
	assert_int_equal(order(&a[0], lock, &own), 0);
	queue(&a[1], &busy, 1);
	until_asleep(&a[1]);
	begin(&a[0], lock, &l);
	assert_int_equal(result(&a[1]), -EDEADLK);
	assert_ptr_equal(a[1].ticket.wanted, &busy);
	assert_int_equal(count_waiters(&busy), 0);
	assert_int_equal(order(&a[2], unlock, &busy), 0);
	assert_false(ww_is_locked(&busy));
	assert_int_equal(order(&a[1], unlock, &l), 0);
	assert_int_equal(result(&a[0]), 0);
	assert_int_equal(order(&a[1], lock_slow, &busy), 0);
	assert_int_equal(order(&a[1], unlock, &busy), 0);
	assert_int_equal(order(&a[0], unlock, &l), 0);
	assert_int_equal(order(&a[0], unlock, &own), 0);
	actors_fini(a, 3);
}

static void older_that_holds_nothing_wounds_nobody(void **state)
{
	struct lf_ww_lock l, busy;
	struct actor a[3];
	ww_init(&l, &wound);
	ww_init(&busy, &wound);
	actors_init(a, 3, &wound);
	assert_int_equal(order(&a[2], lock, &busy), 0);
	assert_int_equal(order(&a[1], lock, &l), 0);
	queue(&a[0], &l, 1);
	queue(&a[1], &busy, 1);
	stays_waiting(&a[1]);
	assert_int_equal(order(&a[2], unlock, &busy), 0);
	assert_int_equal(result(&a[1]), 0);
	assert_int_equal(order(&a[1], unlock, &busy), 0);
	assert_int_equal(order(&a[1], unlock, &l), 0);
	assert_int_equal(result(&a[0]), 0);
	assert_int_equal(order(&a[0], unlock, &l), 0);
	actors_fini(a, 3);
}

static void new_owner_by_hand_over_is_wounded_like_any(void **state)
{
	struct lf_ww_lock l, own, busy;
	struct actor a[3];
	ww_init(&l, &wound);
	ww_init(&own, &wound);
	ww_init(&busy, &wound);
	actors_init(a, 3, &wound);
	assert_int_equal(order(&a[2], lock, &busy), 0);
	assert_int_equal(order(&a[0], lock, &own), 0);
	assert_int_equal(lock(&l, NULL), 0);
	queue(&a[1], &l, 1);
	until_asleep(&a[1]);
	assert_int_equal(unlock(&l, NULL), 0);
	assert_int_equal(result(&a[1]), 0);
	queue(&a[0], &l, 1);
	assert_int_equal(order(&a[1], lock, &busy), -EDEADLK);
	assert_int_equal(order(&a[1], unlock, &l), 0);
	assert_int_equal(result(&a[0]), 0);
	assert_int_equal(order(&a[0], unlock, &l), 0);
	assert_int_equal(order(&a[0], unlock, &own), 0);
	assert_int_equal(order(&a[2], unlock, &busy), 0);
	actors_fini(a, 3);
}

/* --- Who is next ------------------------------------------------------------------------------------------------------------- */

static void oldest_goes_first(struct lf_ticket_class *cls)
{
	enum { N = 6 };
	static const int arrive[N] = { 3, 1, 5, 0, 4, 2 };
	struct lf_ww_lock l;
	struct actor a[N];
	ww_init(&l, cls);
	actors_init(a, N, cls);
	assert_int_equal(lock(&l, NULL), 0);
	for (size_t i = 0; i < N; i++)
		queue(&a[arrive[i]], &l, i + 1);
	assert_int_equal(unlock(&l, NULL), 0);
	for (int i = 0; i < N; i++) {
		assert_int_equal(result(&a[i]), 0);
		for (int rest = i + 1; rest < N; rest++)
			assert_false(has_result(&a[rest]));
		assert_int_equal(count_waiters(&l), N - 1 - i);
		/* nobody overtakes those who wait */
		assert_int_equal(trylock(&l, NULL), -EBUSY);
		assert_int_equal(order(&a[i], unlock, &l), 0);
	}
	assert_false(ww_is_locked(&l));
	actors_fini(a, N);
}

static void oldest_waiter_goes_first_under_both_rules(void **state)
{
	oldest_goes_first(&die);
	oldest_goes_first(&wound);
	oldest_goes_first(NULL);
}

static atomic_int turns;

static int lock_and_unlock(struct lf_ww_lock *l, struct lf_ticket *ticket)
{
	must(lock(l, ticket) == 0);
	atomic_fetch_add(&turns, 1);
	return unlock(l, ticket);
}

/* It takes time to wake: meanwhile somebody else may have the lock, and then it is handed over. */
static void sleeper_is_overtaken_once_at_most(void **state)
{
	struct lf_ww_lock l;
	struct actor a;
	int overtaken = 0, rounds = 0;
	ww_init(&l, &die);
	actor_init(&a, &die);
	for (; overtaken < 20 && rounds < 5000; rounds++) {
		int before = atomic_load(&turns);
		assert_int_equal(lock(&l, NULL), 0);
		begin(&a, lock_and_unlock, &l);
		until_waiters(&l, 1);
		until_asleep(&a);
		assert_int_equal(unlock(&l, NULL), 0);
		assert_int_equal(lock(&l, NULL), 0);
		bool first = atomic_load(&turns) == before;
		assert_int_equal(unlock(&l, NULL), 0);
		assert_int_equal(lock(&l, NULL), 0);
		assert_int_equal(atomic_load(&turns), before + 1);
		assert_int_equal(unlock(&l, NULL), 0);
		assert_int_equal(result(&a), 0);
		overtaken += first;
	}
	test_note("overtaken %d times in %d rounds", overtaken, rounds);
	assert_true(overtaken > 0);
	actor_fini(&a);
}

/* Likewise under wound-wait: who came by, and is younger than a sleeper that holds something, gives way at its next wait. */
static void who_overtakes_an_older_sleeper_is_wounded(void **state)
{
	struct lf_ww_lock l, own, busy;
	struct actor a, holder;
	struct lf_ticket ticket;
	int overtaken = 0;
	ww_init(&l, &wound);
	ww_init(&own, &wound);
	ww_init(&busy, &wound);
	actor_init(&a, &wound);
	actor_init(&holder, &wound);
	assert_int_equal(order(&holder, lock, &busy), 0);
	assert_int_equal(order(&a, lock, &own), 0);
	for (int rounds = 0; overtaken < 5 && rounds < 5000; rounds++) {
		int before = atomic_load(&turns);
		lf_ticket_init(&ticket, &wound);
		assert_int_equal(lock(&l, NULL), 0);
		begin(&a, lock_and_unlock, &l);
		until_waiters(&l, 1);
		until_asleep(&a);
		assert_int_equal(unlock(&l, NULL), 0);
		assert_int_equal(lock(&l, &ticket), 0);
		if (atomic_load(&turns) == before) {
			assert_int_equal(lock(&busy, &ticket), -EDEADLK);
			overtaken++;
		}
		assert_int_equal(unlock(&l, &ticket), 0);
		assert_int_equal(result(&a), 0);
		lf_ticket_fini(&ticket);
	}
	assert_true(overtaken > 0);
	assert_int_equal(order(&a, unlock, &own), 0);
	assert_int_equal(order(&holder, unlock, &busy), 0);
	actor_fini(&a);
	actor_fini(&holder);
}

/* Who asks without waiting is never put before a waiter, even while that sleeps. */
static void trylock_overtakes_nobody(void **state)
{
	struct lf_ww_lock l;
	struct actor a;
	ww_init(&l, &die);
	actor_init(&a, &die);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(lock(&l, NULL), 0);
		queue(&a, &l, 1);
		assert_int_equal(unlock(&l, NULL), 0);
		assert_int_equal(trylock(&l, NULL), -EBUSY);
		assert_false(ww_is_held(&l));
		assert_int_equal(result(&a), 0);
		assert_int_equal(order(&a, unlock, &l), 0);
	}
	actor_fini(&a);
}

static void threads_without_ticket_are_as_old_as_their_wait(void **state)
{
	struct lf_ww_lock l;
	struct actor anonymous[3], before, after;
	ww_init(&l, &die);
	for (int i = 0; i < 3; i++) {
		actor_init(&anonymous[i], &die);
		anonymous[i].without_ticket = true;
	}
	actor_init(&before, &die);
	assert_int_equal(lock(&l, NULL), 0);
	queue(&anonymous[2], &l, 1);
	queue(&anonymous[0], &l, 2);
	actor_init(&after, &die);
	queue(&after, &l, 3);
	queue(&anonymous[1], &l, 4);
	queue(&before, &l, 5);
	assert_int_equal(unlock(&l, NULL), 0);
	struct actor *expected[] = { &before, &anonymous[2], &anonymous[0], &after, &anonymous[1] };
	for (int i = 0; i < 5; i++) {
		assert_int_equal(result(expected[i]), 0);
		assert_int_equal(count_waiters(&l), 4 - i);
		assert_int_equal(order(expected[i], unlock, &l), 0);
	}
	assert_false(ww_is_locked(&l));
	for (int i = 0; i < 3; i++)
		actor_fini(&anonymous[i]);
	actor_fini(&before);
	actor_fini(&after);
}

static void ticket_keeps_its_age_until_it_is_initialised_again(void **state)
{
	struct lf_ww_lock l;
	struct actor a, b;
	ww_init(&l, &die);
	actor_init(&a, &die);
	actor_init(&b, &die);
	for (int i = 0; i < 2; i++) {
		struct actor *first = i ? &b : &a, *second = i ? &a : &b;
		assert_int_equal(lock(&l, NULL), 0);
		queue(second, &l, 1);
		queue(first, &l, 2);
		assert_int_equal(unlock(&l, NULL), 0);
		assert_int_equal(result(first), 0);
		assert_false(has_result(second));
		assert_int_equal(order(first, unlock, &l), 0);
		assert_int_equal(result(second), 0);
		assert_int_equal(order(second, unlock, &l), 0);
		class_to_init = &die;
		order(&a, fini_ticket, NULL);
		order(&a, init_ticket, NULL);
	}
	actor_fini(&a);
	actor_fini(&b);
}

/* --- The protocol of -EDEADLK -------------------------------------------------------------------------------------------------- */

static void locking_on_after_EDEADLK_is_told_in_debug_builds(void **state)
{
	if (!DEBUG_CHECKS) {
		test_note("not a build with debug checks");
		return;
	}
	struct lf_ww_lock l[3];
	struct lf_ticket ticket;
	for (int i = 0; i < 3; i++)
		ww_init(&l[i], &die);
	lf_ticket_init(&ticket, &die);
	assert_int_equal(lock(&l[0], &ticket), 0);
	lf_ticket_class_inject(&die, 1000000, 1);
	assert_int_equal(lock(&l[1], &ticket), -EDEADLK);
	lf_ticket_class_inject(&die, 0, 0);
	assert_int_equal(take_misuse(), 0);
	assert_int_equal(lock(&l[2], &ticket), -EDEADLK);
	assert_true(log_contains("-EDEADLK"));
	assert_int_equal(take_misuse(), 1);
	assert_false(ww_is_locked(&l[2]));
	assert_int_equal(unlock(&l[0], NULL), 0);
	assert_int_equal(lock_slow(&l[1], &ticket), 0);
	assert_int_equal(lock(&l[2], &ticket), 0);
	assert_int_equal(unlock(&l[2], NULL), 0);
	assert_int_equal(unlock(&l[1], NULL), 0);
	lf_ticket_fini(&ticket);
}

/* --- Injection ----------------------------------------------------------------------------------------------------------------- */

/* How many of @n locks are refused. */
static long count_refused(struct lf_ticket_class *cls, long n)
{
	struct lf_ww_lock held, l;
	struct lf_ticket ticket;
	long refused = 0;
	ww_init(&held, cls);
	ww_init(&l, cls);
	lf_ticket_init(&ticket, cls);
	for (long i = 0; i < n; i++) {
		assert_int_equal(lock(&held, &ticket), 0);
		int ret = lock(&l, &ticket);
		if (ret) {
			assert_int_equal(ret, -EDEADLK);
			assert_ptr_equal(ticket.wanted, &l);
			assert_false(ww_is_locked(&l));
			refused++;
		} else {
			assert_int_equal(unlock(&l, NULL), 0);
		}
		assert_int_equal(unlock(&held, NULL), 0);
	}
	lf_ticket_fini(&ticket);
	return refused;
}

static void injection_refuses_as_many_as_it_was_told(void **state)
{
	const long n = test_is_sanitized() ? 10000 : 100000;
	static const uint32_t rates[] = { 1000, 10000, 250000, 500000, 900000 };
	struct lf_ticket_class cls = LF_TICKET_CLASS_INIT(LF_WOUND_WAIT);
	assert_int_equal(count_refused(&cls, 1000), 0);
	for (uint32_t seed = 0; seed < 4; seed++) {
		for (size_t i = 0; i < array_size(rates); i++) {
			double expected = (double)n * rates[i] / 1e6;
			double variance = expected * (1 - rates[i] / 1e6);
			lf_ticket_class_inject(&cls, rates[i], seed);
			double off = (double)count_refused(&cls, n) - expected;
			/* four times the standard deviation: the seeds are fixed, so it is met always or never */
			assert_true(off * off < 16 * variance);
		}
	}
	lf_ticket_class_inject(&cls, 1000000, 7);
	assert_int_equal(count_refused(&cls, 1000), 1000);
	lf_ticket_class_inject(&cls, 0, 7);
	assert_int_equal(count_refused(&cls, 1000), 0);
	assert_int_equal(u32_load(&ww_injecting, memory_order_relaxed), 0);
}

static void injection_repeats_itself_for_a_seed(void **state)
{
	struct lf_ticket_class cls = LF_TICKET_CLASS_INIT(LF_WAIT_DIE);
	long counts[2][10];
	for (int run = 0; run < 2; run++) {
		lf_ticket_class_inject(&cls, 300000, 4711);
		for (int i = 0; i < 10; i++)
			counts[run][i] = count_refused(&cls, 100);
	}
	lf_ticket_class_inject(&cls, 0, 0);
	assert_memory_equal(counts[0], counts[1], sizeof(counts[0]));
}

static void injection_spares_who_holds_nothing_and_other_classes(void **state)
{
	struct lf_ticket_class cls = LF_TICKET_CLASS_INIT(LF_WAIT_DIE);
	struct lf_ww_lock l, second;
	struct lf_ticket ticket;
	ww_init(&l, &cls);
	ww_init(&second, &cls);
	lf_ticket_init(&ticket, &cls);
	lf_ticket_class_inject(&cls, 1000000, 1);
	assert_int_equal(lock(&l, NULL), 0);
	assert_int_equal(unlock(&l, NULL), 0);
	assert_int_equal(lock(&l, &ticket), 0);
	assert_int_equal(lock(&l, &ticket), -EALREADY);
	assert_int_equal(trylock(&second, &ticket), 0);
	assert_int_equal(unlock(&second, NULL), 0);
	assert_int_equal(lock(&second, NULL), 0);
	assert_int_equal(unlock(&second, NULL), 0);
	assert_int_equal(unlock(&l, NULL), 0);
	assert_int_equal(count_refused(NULL, 1000), 0);
	assert_int_equal(count_refused(&wound, 1000), 0);
	lf_ticket_class_inject(NULL, 1000000, 1);
	assert_int_equal(count_refused(NULL, 1000), 1000);
	lf_ticket_class_inject(NULL, 0, 1);
	lf_ticket_class_inject(&cls, 0, 1);
	lf_ticket_fini(&ticket);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(zeroed_memory_is_a_free_lock_of_the_default_class),
		TEST(fini_of_a_held_lock_is_reported),
		TEST(is_held_tells_threads_and_tickets_apart),
		TEST(is_held_is_not_deceived_by_memory_that_was_our_ticket),
		TEST(locking_again_returns_EALREADY),
		TEST(locking_what_the_thread_holds_otherwise_is_refused),
		TEST(trylock_takes_what_is_free_and_waits_for_nothing),
		TEST(ticket_of_another_class_is_refused),
		TEST(ticket_of_another_thread_or_of_none_is_refused),
		TEST(unlock_by_who_has_it_not_changes_nothing),
		TEST(ticket_that_ends_while_it_holds_is_reported_and_lives_on),
		TEST(slow_lock_wants_a_ticket_that_holds_nothing),
		TEST(poisoned_child_gets_EOWNERDEAD),
		TEST(lock_that_must_wait_is_refused_where_waiting_is),
		TEST(younger_that_holds_something_dies),
		TEST(younger_that_holds_nothing_waits),
		TEST(older_waits_whatever_it_holds),
		TEST(owner_without_ticket_is_not_older),
		TEST(younger_waiters_that_hold_something_die_when_an_older_gets_the_lock),
		TEST(nobody_dies_when_a_thread_without_ticket_gets_the_lock),
		TEST(younger_waits_for_older_whatever_it_holds),
		TEST(wounded_may_lock_what_is_free_and_not_wait),
		TEST(wounded_sleeper_wakes_and_leaves_the_queue),
		TEST(older_that_holds_nothing_wounds_nobody),
		TEST(new_owner_by_hand_over_is_wounded_like_any),
		TEST(oldest_waiter_goes_first_under_both_rules),
		TEST(sleeper_is_overtaken_once_at_most),
		TEST(who_overtakes_an_older_sleeper_is_wounded),
		TEST(trylock_overtakes_nobody),
		TEST(threads_without_ticket_are_as_old_as_their_wait),
		TEST(ticket_keeps_its_age_until_it_is_initialised_again),
		TEST(locking_on_after_EDEADLK_is_told_in_debug_builds),
		TEST(injection_refuses_as_many_as_it_was_told),
		TEST(injection_repeats_itself_for_a_seed),
		TEST(injection_spares_who_holds_nothing_and_other_classes),
	};
	test_watchdog(25, "test_ww: somebody waits for ever");
	return TEST_MAIN(tests);
}
