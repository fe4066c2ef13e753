/* SPDX-License-Identifier: MIT */
/*
 * The reclaimer.
 *
 * Purpose: memory and calls that must wait for a grace period. Memory goes home: a thread frees what it deferred itself, in small portions
 * inside its next calls, because a block that another CPU frees costs an allocator twenty times as much. Calls into user code run on the
 * reclaimer thread only. That thread also waits for the grace periods, and empties threads that are idle or gone.
 *
 * States of a deferred block:
 *
 *     open --seal--> waiting --grace period over--> ready --freed at home, or seized from an idle thread
 *
 * | transition      | who                                            |
 * |-----------------|------------------------------------------------|
 * | -> open         | any thread, on its own record                  |
 * | open -> waiting | the reclaimer, before a grace period begins    |
 * | waiting -> ready| the owner or the reclaimer, once cycle_done says |
 * | ready -> free   | the owner; the reclaimer for idle and gone     |
 *
 * Invariants:
 * RC1. A list is touched under its record's lock, and its nodes are freed after the lock was given back.
 * RC2. What is sealed for cycle n was deferred before cycle n's grace period began: the reclaimer takes the record's lock after the
 *      deferring thread gave it back, and asks for the grace period after that. So readers that it waits for include all that could see
 *      the block, and no barrier beyond the lock's is needed.
 * RC3. cycle_done >= n implies that cycle n's grace period is over.
 * RC4. Of one thread, calls are taken and run in the order in which they were deferred.
 * RC5. A record belongs to one thread until that ends. What is deferred by a thread whose destructors have run, or for which there was no
 *      memory once, goes to the orphans' record, which nobody owns and every cycle empties, before the others. A thread that goes over to
 *      the orphans takes its calls along, so RC4 holds across it.
 * RC6. Whoever makes an empty record non-empty stores the demand, without looking whether there is one already: the look could be older
 *      than the reclaimer's last.
 *
 * Locking: registry (mutex) protects the list of records and the thread's life; a record's spinlock its lists. registry -> record.
 * control words (demand, drain tickets) are atomic. No user code runs under either.
 *
 * Ordering: label reclaim-cycle (RC3). Everything else is ordered by the locks.
 *
 * Bound: a thread with more than RECLAIM_LIMIT pending frees sleeps in calls that make something, up to THROTTLE_MAX at a time; so a
 * thread's pending frees stay below the limit plus what it defers between two such calls, as long as no read section lasts longer than
 * that.
 *
 * Not here: what a read section is (rcu.h); only its public calls.
 */
#include "base/reclaim.h"

#include "base/alloc.h"
#include "base/check.h"
#include "base/library.h"
#include "base/park.h"
#include "base/rcu.h"

enum { HURRY = 2048 }; /* pending blocks of a thread that start a cycle now, not soon */
#define START_AGAIN  (100 * INT64_C(1000000)) /* ns after which a thread that could not be had is tried again */
#define PAUSE        (10 * INT64_C(1000000)) /* ns between cycles when nothing hurries */
#define THROTTLE_MAX (100 * INT64_C(1000000)) /* ns that one call sleeps at most */

/* Nodes in the order in which they were deferred. */
struct list {
	struct lf_deferred *head, *tail;
	size_t count;
};

struct reclaim_thread {
	struct port_spin lock;
	struct list open, waiting, ready; /* protected by lock */
	struct list calls; /* protected by lock */
	uint64_t waiting_cycle; /* protected by lock: which grace period @waiting needs */
	uint64_t touched, seen; /* protected by lock: uses by its owner, and their number at the last cycle */
	bool gone; /* protected by lock: the owner has ended */
	lf_atomic_u64 pending; /* blocks in the three lists; written under lock, read anywhere */
	struct reclaim_thread *next; /* protected by registry */
};

enum demand { DEMAND_NONE, DEMAND_SOON, DEMAND_NOW };

/* Who does the cycles: never two at once (RC3). */
enum driver { DRIVER_NONE, DRIVER_THREAD, DRIVER_IN_PLACE };

static struct port_mutex registry = PORT_MUTEX_INIT;
static struct reclaim_thread orphans; /* the head of the list of records, which are those of threads */
static port_key exit_key; /* valid while started at least once since fini; protected by registry */
static bool have_key; /* protected by registry */
static unsigned generation = 1; /* written by lf_fini(), when nobody uses the library */

static port_thread thread; /* protected by registry */
static lf_atomic_u32 driver; /* enum driver; written under registry, slept on by those who want to drive in place */
static int64_t start_again; /* protected by registry: not before this time, when a thread could not be had */
static lf_atomic_u32 demand; /* enum demand; the thread sleeps on it */
static lf_atomic_u32 stopping;
static lf_atomic_u32 pausing, paused; /* fork: a ticket asks to stand still (0: go on); the last ticket that was obeyed */
static lf_atomic_u32 drains_asked, drains_done; /* tickets of lf_reclaim_barrier() */
static lf_atomic_u32 cycle_word; /* changes with cycle_done, to sleep on */
static lf_atomic_u64 cycle_done; /* the last cycle whose grace period is over */
static uint64_t cycle_begun; /* the driver's own */
static lf_atomic_u64 in_hand; /* taken from records, not yet freed or called */
static lf_atomic_u64 throttled;

/* --- Lists --------------------------------------------------------------------------------------------------------------- */

static void list_push(struct list *list, struct lf_deferred *node)
{
	node->next = NULL;
	if (list->tail)
		list->tail->next = node;
	else
		list->head = node;
	list->tail = node;
	list->count++;
}

/* Moves all of @from behind @to. */
static void list_splice(struct list *to, struct list *from)
{
	if (!from->head)
		return;
	if (to->tail)
		to->tail->next = from->head;
	else
		to->head = from->head;
	to->tail = from->tail;
	to->count += from->count;
	*from = (struct list){ 0 };
}

/* Moves the first @n of @from to the empty list @to. */
static void list_take(struct list *to, struct list *from, size_t n)
{
	struct lf_deferred *last = from->head;

	if (from->count <= n) {
		list_splice(to, from);
		return;
	}
	for (size_t i = 1; i < n; i++)
		last = last->next;
	to->head = from->head;
	to->tail = last;
	to->count = n;
	from->head = last->next;
	from->count -= n;
	last->next = NULL;
}

static void free_blocks(struct list *list)
{
	struct lf_deferred *node, *next;

	for (node = list->head; node; node = next) {
		next = node->next; /* the node lies in the block */
		mem_free(node->what);
	}
	*list = (struct list){ 0 };
}

static void run_calls(struct list *list)
{
	struct lf_deferred *node, *next;

	for (node = list->head; node; node = next) {
		next = node->next; /* the node is its owner's once the function is entered */
		node->func(node);
	}
	*list = (struct list){ 0 };
}

/* --- Records ------------------------------------------------------------------------------------------------------------- */

static size_t blocks_of(const struct reclaim_thread *r) LF_REQUIRES(&r->lock)
{
	return r->open.count + r->waiting.count + r->ready.count;
}

/* After a change of the lists of blocks. */
static void count_pending(struct reclaim_thread *r) LF_REQUIRES(&r->lock)
{
	u64_store(&r->pending, blocks_of(r), memory_order_relaxed); /* relaxed: a figure */
}

/* Whether the grace period that @waiting needs is over. */
static bool waiting_is_over(const struct reclaim_thread *r) LF_REQUIRES(&r->lock)
{
	/* order: reclaim-cycle (acquire): the sections that the grace period waited for come before the free */
	return r->waiting_cycle <= u64_load(&cycle_done, PLANT_ORDER(119, memory_order_relaxed, memory_order_acquire));
}

static void ripen(struct reclaim_thread *r) LF_REQUIRES(&r->lock)
{
	if (r->waiting.head && (PLANTED(3) || waiting_is_over(r)))
		list_splice(&r->ready, &r->waiting);
}

/*
 * Raises the demand, or stores it again. An exchange, not a store: a store would end the release sequence of an earlier demand that nobody
 * has taken yet, and whoever takes this one need not see what that one was for (a ticket of a drain).
 */
static void set_demand(enum demand wanted)
{
	uint32_t now = u32_load(&demand, memory_order_relaxed); /* relaxed: a guess */

	/* order: reclaim-demand (release): whoever takes the demand sees what was deferred before (or finds it under the locks) */
	if (PLANTED(210))
		u32_store(&demand, (uint32_t)wanted, memory_order_release);
	while (!PLANTED(210) && /* order: reclaim-demand (release): as above */
	       !u32_cas(&demand, &now, now > (uint32_t)wanted ? now : (uint32_t)wanted,
		       PLANT_ORDER(120, memory_order_relaxed, memory_order_release), memory_order_relaxed))
		;
	park_wake(&demand);
}

/* @first: nothing was in the record before (RC6). */
static void ask_for_cycle(enum demand wanted, bool first)
{
	uint32_t now = u32_load(&demand, memory_order_relaxed); /* relaxed: only a hint whether to write, and not to lower it */

	if (now < (uint32_t)wanted || first)
		set_demand(wanted);
}

/* Whether nothing is deferred in a record. */
static bool record_is_empty(const struct reclaim_thread *r) LF_REQUIRES(&r->lock)
{
	return !r->open.head && !r->waiting.head && !r->ready.head && !r->calls.head;
}

/* The destructor of the thread's key. What is deferred behind it goes to the orphans, and so do the calls from before. */
static void thread_gone(void *record)
{
	struct reclaim_thread *r;
	struct list calls = { 0 };

	this_thread()->gone = true;
	this_thread()->reclaim = NULL;
	if (library_poisoned())
		return;
	port_mutex_lock(&registry);
	for (r = orphans.next; r && r != record; r = r->next)
		;
	if (r) { /* else lf_fini() has freed it meanwhile */
		port_spin_lock(&r->lock);
		r->gone = true;
		list_splice(&calls, &r->calls);
		port_spin_unlock(&r->lock);
		port_spin_lock(&orphans.lock);
		list_splice(&orphans.calls, &calls);
		port_spin_unlock(&orphans.lock);
	}
	port_mutex_unlock(&registry);
	ask_for_cycle(DEMAND_SOON, true);
}

static void start_thread(void);

static struct reclaim_thread *new_record(struct library_thread *t)
{
	struct reclaim_thread *r;

	if (library_enter() != 0)
		return &orphans;
	r = mem_zalloc(sizeof(*r));
	port_mutex_lock(&registry);
	if (!have_key)
		have_key = port_key_create(&exit_key, thread_gone) == 0;
	if (!r || !have_key || port_key_set(exit_key, r) != 0) {
		port_mutex_unlock(&registry);
		mem_free(r);
		t->gone = true; /* from here on always, so that the order of its calls holds (RC4) */
		return &orphans;
	}
	r->next = orphans.next;
	orphans.next = r;
	port_mutex_unlock(&registry);
	t->reclaim = r;
	t->reclaim_generation = generation;
	return r;
}

/* A thread's record; NULL when it has none, or lf_fini() has freed it. */
static struct reclaim_thread *record_of(const struct library_thread *t)
{
	return likely(t->reclaim && t->reclaim_generation == generation) ? t->reclaim : NULL;
}

/* This thread's record; the orphans' where it can have none (RC5). */
static struct reclaim_thread *my_record(void)
{
	struct library_thread *t = this_thread();
	struct reclaim_thread *r = record_of(t);

	if (likely(r))
		return r;
	if (t->gone)
		return &orphans;
	return new_record(t);
}

/* --- Read sections, as users see them ------------------------------------------------------------------------------------ */

/* A poisoned child may not even register its thread with liburcu, whose lock another thread may have held at the fork. */

void lf_read_lock(void) LF_NO_THREAD_ANALYSIS
{
	if (!library_poisoned())
		rcu_begin();
}

void lf_read_unlock(void) LF_NO_THREAD_ANALYSIS
{
	if (library_poisoned())
		return;
	if (unlikely(!rcu_held())) {
		misuse(0, "lf_read_unlock: no read section is open");
		return;
	}
	rcu_end();
}

bool lf_read_held(void)
{
	return !library_poisoned() && rcu_held();
}

/* --- Deferring ----------------------------------------------------------------------------------------------------------- */

static void after_defer(size_t pending, bool first)
{
	if (unlikely(u32_load(&driver, memory_order_relaxed) == DRIVER_NONE)) /* relaxed: start_thread() looks again, locked */
		start_thread();
	ask_for_cycle(pending >= HURRY ? DEMAND_NOW : DEMAND_SOON, first);
}

void reclaim_free_list(struct lf_deferred *head, struct lf_deferred *tail, size_t count)
{
	struct list mine = { 0 }, more = { head, tail, count };
	struct reclaim_thread *r;
	size_t pending;
	bool first;

	if (library_poisoned())
		return;
	r = my_record();
	port_spin_lock(&r->lock);
	first = record_is_empty(r);
	list_splice(&r->open, &more);
	r->touched++;
	if (r != &orphans) {
		ripen(r);
		list_take(&mine, &r->ready, count); /* as many as come: a few at a time suit the allocator's cache */
	}
	count_pending(r);
	pending = r->open.count + r->waiting.count;
	port_spin_unlock(&r->lock);
	free_blocks(&mine);
	after_defer(pending, first);
}

void reclaim_free(struct lf_deferred *node, void *block)
{
	node->next = NULL;
	node->what = block;
	reclaim_free_list(node, node, 1);
}

void lf_defer_free(struct lf_deferred *node, void *block)
{
	if (!node || !block) {
		misuse(0, "lf_defer_free: node and block are both needed");
		return;
	}
	reclaim_free(node, block);
}

void lf_defer_call(struct lf_deferred *node, lf_deferred_fn fn)
{
	struct reclaim_thread *r;
	bool first;

	if (!node || !fn) {
		misuse(0, "lf_defer_call: node and function are both needed");
		return;
	}
	if (library_poisoned())
		return;
	node->func = fn;
	r = my_record();
	if (!PLANTED(182))
		port_spin_lock(&r->lock);
	first = record_is_empty(r);
	list_push(&r->calls, node);
	r->touched++;
	if (!PLANTED(182))
		port_spin_unlock(&r->lock);
	after_defer(0, first);
}

/* --- Cycles -------------------------------------------------------------------------------------------------------------- */

/* Whose blocks a cycle takes, besides those of ended threads. */
enum taking { TAKE_GONE, TAKE_IDLE, TAKE_ALL };

/* What a cycle took out of the records. */
struct harvest {
	struct list now; /* free at once: idle or gone threads' */
	struct list after; /* free after the grace period */
	struct list calls; /* call after the grace period */
	uint64_t left; /* blocks that stay with their threads */
};

/* Seals what is open and takes what nobody will free at home: of the gone, of the idle where asked for, or everything. */
static void harvest_record(struct reclaim_thread *r, struct harvest *h, enum taking taking)
{
	bool take = taking == TAKE_ALL || r == &orphans;

	port_spin_lock(&r->lock);
	take = take || r->gone;
	if (taking == TAKE_IDLE) {
		take = take || r->touched == r->seen;
		r->seen = r->touched;
	}
	ripen(r);
	list_splice(&h->calls, &r->calls);
	if (take) {
		list_splice(&h->now, &r->ready);
		list_splice(&h->after, &r->waiting);
		list_splice(&h->after, &r->open);
	} else if (!r->waiting.head) {
		list_splice(&r->waiting, &r->open);
		r->waiting_cycle = cycle_begun;
	}
	count_pending(r);
	h->left += blocks_of(r);
	port_spin_unlock(&r->lock);
}

/* Takes the records of ended threads out of the list. Returns them, linked. */
static struct reclaim_thread *unlink_gone(void) LF_REQUIRES(&registry)
{
	struct reclaim_thread *r, **link = &orphans.next, *gone = NULL;

	while ((r = *link) != NULL) {
		bool ended;

		port_spin_lock(&r->lock);
		ended = r->gone && record_is_empty(r);
		port_spin_unlock(&r->lock);
		if (ended) {
			*link = r->next;
			r->next = gone;
			gone = r;
		} else {
			link = &r->next;
		}
	}
	return gone;
}

static void free_records(struct reclaim_thread *r)
{
	while (r) {
		struct reclaim_thread *next = r->next;

		mem_free(r);
		r = next;
	}
}

/* One grace period and what is due after it. Returns how many blocks are left with their threads. */
static uint64_t cycle(enum taking taking)
{
	struct harvest h = { 0 };
	struct reclaim_thread *gone;

	cycle_begun++;
	if (!PLANTED(181))
		port_mutex_lock(&registry);
	for (struct reclaim_thread *r = &orphans; r; r = r->next)
		harvest_record(r, &h, taking);
	gone = unlink_gone();
	if (!PLANTED(181))
		port_mutex_unlock(&registry);
	u64_store(&in_hand, h.now.count + h.after.count + h.calls.count, memory_order_relaxed); /* relaxed: a figure */
	free_records(gone);
	free_blocks(&h.now);
	rcu_synchronize();
	/* order: reclaim-cycle (release): whoever sees the cycle done frees after the sections that it waited for */
	u64_store(&cycle_done, cycle_begun, PLANT_ORDER(18, memory_order_relaxed, memory_order_release));
	u32_fetch_add(&cycle_word, 1, memory_order_relaxed); /* relaxed: only wakes; cycle_done carries the order */
	park_wake(&cycle_word);
	free_blocks(&h.after);
	run_calls(&h.calls);
	u64_store(&in_hand, 0, memory_order_relaxed); /* relaxed: a figure */
	return h.left;
}

/* Whether there is something in the record of the thread that does the cycles: what deferred calls deferred in turn. */
static bool cascaded(void)
{
	struct reclaim_thread *r = record_of(this_thread());
	bool any;

	if (!r)
		r = &orphans; /* that is where it went, if anything did */
	port_spin_lock(&r->lock);
	any = !record_is_empty(r);
	port_spin_unlock(&r->lock);
	return any;
}

/* Everything that was deferred before, and what that deferred in turn. Returns what is left at threads (deferred meanwhile). */
static uint64_t drain(void)
{
	struct library_thread *t = this_thread();
	bool outer = t->reclaiming;
	uint64_t left;

	t->reclaiming = true;
	do
		left = cycle(TAKE_ALL);
	while (cascaded());
	t->reclaiming = outer;
	return left;
}

/* --- The reclaimer thread ------------------------------------------------------------------------------------------------ */

/* Stands still while a fork is under way. Tickets, so that an answer to an earlier fork is not taken for one to this. */
static void obey_pause(void)
{
	uint32_t ticket;

	/* order: reclaim-pause (acquire): what the forking thread did to the lists is seen */
	while ((ticket = u32_load(&pausing, PLANT_ORDER(131, memory_order_relaxed, memory_order_acquire))) != 0) {
		/* order: reclaim-paused (release): our work on the lists comes before the fork */
		u32_store(&paused, ticket, PLANT_ORDER(132, memory_order_relaxed, memory_order_release));
		park_wake(&paused);
		park_wait_real(&pausing, ticket, LF_DEADLINE_NEVER);
	}
}

static bool is_stopping(void)
{
	/* order: reclaim-stop (acquire) */
	return u32_load(&stopping, PLANT_ORDER(128, memory_order_relaxed, memory_order_acquire));
}

/*
 * Sleeps until there is something to do; @left tells that there is, only not now. In real time: the reclaimer reads nothing that a user
 * may replace while no thread of his own is in the library.
 */
static void wait_for_demand(uint64_t left)
{
	int64_t until = port_clock() + PAUSE;

	for (;;) {
		/* order: reclaim-demand (acquire) */
		uint32_t d = u32_load(&demand, PLANT_ORDER(121, memory_order_relaxed, memory_order_acquire));

		if (d == DEMAND_NOW || is_stopping())
			break;
		if (d == DEMAND_NONE && !left) {
			park_wait_real(&demand, d, LF_DEADLINE_NEVER);
			until = port_clock() + PAUSE;
		} else if (port_clock() >= until) {
			break;
		} else {
			park_wait_real(&demand, d, until);
		}
	}
	/* order: reclaim-demand (acquire): an exchange, so that a demand that came just now is not overwritten unseen */
	u32_xchg(&demand, DEMAND_NONE, PLANT_ORDER(122, memory_order_relaxed, memory_order_acquire));
}

static void *reclaimer(void *unused)
{
	int64_t idle_check = port_clock() + PAUSE; /* cycles can follow each other fast; a thread is idle when it did nothing for a pause */
	uint64_t left = 0;

	(void)unused;
	this_thread()->reclaiming = true;
	while (!is_stopping()) {
		uint32_t ticket;

		wait_for_demand(left);
		obey_pause();
		/* order: reclaim-drain (acquire): what the asking thread deferred is in the lists */
		ticket = u32_load(&drains_asked, PLANT_ORDER(124, memory_order_relaxed, memory_order_acquire));
		/* relaxed: our own word */
		if (ticket != u32_load(&drains_done, memory_order_relaxed)) {
			left = drain();
			/* order: reclaim-drained (release): whoever sees its ticket done sees everything freed */
			u32_store(&drains_done, ticket, PLANT_ORDER(125, memory_order_relaxed, memory_order_release));
			if (!PLANTED(191))
				park_wake(&drains_done);
		} else if (port_clock() >= idle_check) {
			left = cycle(TAKE_IDLE);
			idle_check = port_clock() + PAUSE;
		} else {
			left = cycle(TAKE_GONE);
		}
	}
	return NULL;
}

static void start_thread(void)
{
	bool again = false;
	int ret = 0;

	port_mutex_lock(&registry);
	if (u32_load(&driver, memory_order_relaxed) == DRIVER_NONE && port_clock() >= start_again) { /* relaxed: written under the lock */
		ret = port_thread_create(&thread, "lf-reclaim", reclaimer, NULL);
		again = start_again != 0;
		start_again = ret ? port_clock() + START_AGAIN : 0;
		if (ret == 0)
			u32_store(&driver, DRIVER_THREAD, memory_order_relaxed); /* relaxed: a hint for readers without the lock */
	}
	port_mutex_unlock(&registry);
	if (ret && !again)
		log_message(LF_LOG_WARNING, "the reclaimer thread could not be started (%s); until it can, memory waits for lf_reclaim_barrier()",
			strerror(-ret));
}

/* Takes the right to do cycles on this thread. Returns false when the reclaimer has it. */
static bool begin_in_place(void)
{
	uint32_t now;

	do {
		port_mutex_lock(&registry);
		now = u32_load(&driver, memory_order_relaxed); /* relaxed: written under the lock */
		if (now == DRIVER_NONE)
			u32_store(&driver, DRIVER_IN_PLACE, memory_order_relaxed); /* relaxed: as above */
		port_mutex_unlock(&registry);
		if (now == DRIVER_IN_PLACE)
			park_wait_real(&driver, now, LF_DEADLINE_NEVER);
	} while (now == DRIVER_IN_PLACE);
	return now == DRIVER_NONE;
}

static void end_in_place(void)
{
	port_mutex_lock(&registry);
	u32_store(&driver, DRIVER_NONE, memory_order_relaxed); /* relaxed: written under the lock */
	port_mutex_unlock(&registry);
	park_wake(&driver);
}

/* Whether nothing was ever deferred that is not done. */
static bool nothing_pending(void)
{
	struct lf_reclaim_stats stats;

	lf_reclaim_get_stats(&stats);
	return stats.pending == 0;
}

/* Has the reclaimer thread drain, and sleeps until it has. */
static void drain_by_thread(void)
{
	uint32_t ticket, done;

	/* order: reclaim-drain (release): what this thread deferred, or saw others defer, comes before the ticket */
	ticket = u32_fetch_add(&drains_asked, 1, PLANT_ORDER(123, memory_order_relaxed, memory_order_release)) + 1;
	set_demand(DEMAND_NOW);
	/* order: reclaim-drained (acquire) */
	while ((int32_t)((done = u32_load(&drains_done, PLANT_ORDER(126, memory_order_relaxed, memory_order_acquire))) - ticket) < 0)
		park_wait_real(&drains_done, done, LF_DEADLINE_NEVER);
}

int lf_reclaim_barrier(void)
{
	int ret = library_check_wait(__func__);

	if (ret)
		return ret;
	if (u32_load(&driver, memory_order_relaxed) != DRIVER_THREAD) { /* relaxed: a hint; start_thread() looks again */
		if (nothing_pending())
			return 0;
		start_thread();
	}
	if (begin_in_place()) { /* no thread to be had: here, then */
		drain();
		end_in_place();
	} else {
		drain_by_thread();
	}
	return 0;
}

/* --- Throttling ---------------------------------------------------------------------------------------------------------- */

/* Frees what is ripe, all of it or a portion. Returns what is still pending. */
static uint64_t free_ripe(struct reclaim_thread *r, size_t portion)
{
	struct list mine = { 0 };

	port_spin_lock(&r->lock);
	r->touched++;
	ripen(r);
	list_take(&mine, &r->ready, portion);
	count_pending(r);
	port_spin_unlock(&r->lock);
	free_blocks(&mine);
	return u64_load(&r->pending, memory_order_relaxed); /* relaxed: our own figure */
}

static void throttle(struct reclaim_thread *r)
{
	int64_t until = port_clock() + THROTTLE_MAX;

	u64_fetch_add(&throttled, 1, memory_order_relaxed); /* relaxed: a figure */
	do {
		uint32_t word = u32_load(&cycle_word, memory_order_relaxed); /* relaxed: ripen() loads cycle_done with acquire */

		if (free_ripe(r, SIZE_MAX) <= RECLAIM_LIMIT / 2)
			return;
		ask_for_cycle(DEMAND_NOW, false);
		park_wait_real(&cycle_word, word, until);
	} while (port_clock() < until);
}

void reclaim_throttle(void)
{
	const struct library_thread *t = this_thread();
	struct reclaim_thread *r = record_of(t);
	uint64_t pending;

	if (!r)
		return;
	pending = u64_load(&r->pending, memory_order_relaxed); /* relaxed: written by this thread, or lowered by the reclaimer */
	if (likely(pending == 0))
		return;
	if (likely(pending <= RECLAIM_LIMIT) || t->current || t->hooks || t->reclaiming || rcu_held())
		free_ripe(r, 1); /* one more than it defers, so that a backlog shrinks */
	else
		throttle(r);
}

void lf_reclaim_get_stats(struct lf_reclaim_stats *ret_stats)
{
	uint64_t pending = u64_load(&in_hand, memory_order_relaxed); /* relaxed: figures, as all below */

	*ret_stats = (struct lf_reclaim_stats){ .limit = RECLAIM_LIMIT };
	if (library_poisoned())
		return;
	port_mutex_lock(&registry);
	for (struct reclaim_thread *r = &orphans; r; r = r->next) {
		port_spin_lock(&r->lock);
		pending += blocks_of(r) + r->calls.count;
		port_spin_unlock(&r->lock);
	}
	port_mutex_unlock(&registry);
	*ret_stats = (struct lf_reclaim_stats){
		.pending = pending,
		.grace_periods = u64_load(&cycle_done, memory_order_relaxed), /* relaxed: a figure */
		.throttled = u64_load(&throttled, memory_order_relaxed), /* relaxed: a figure */
		.limit = RECLAIM_LIMIT,
	};
}

/* --- Tear-down and fork -------------------------------------------------------------------------------------------------- */

static void stop_thread(void)
{
	if (u32_load(&driver, memory_order_relaxed) != DRIVER_THREAD) /* relaxed: nobody else uses the library */
		return;
	/* order: reclaim-stop (release): the thread sees all that was deferred */
	u32_store(&stopping, 1, PLANT_ORDER(127, memory_order_relaxed, memory_order_release));
	set_demand(DEMAND_NOW);
	port_thread_join(thread);
	u32_store(&stopping, 0, memory_order_relaxed); /* relaxed: the thread is gone */
	u32_store(&driver, DRIVER_NONE, memory_order_relaxed); /* relaxed: as above */
}

void reclaim_fini(void)
{
	struct reclaim_thread *all;

	lf_reclaim_barrier();
	stop_thread();
	/* What the thread's last calls deferred; no other thread is in the library, so nobody drives. */
	while (!nothing_pending())
		drain();
	port_mutex_lock(&registry);
	all = orphans.next;
	orphans.next = NULL;
	if (have_key)
		port_key_delete(exit_key);
	have_key = false;
	generation++; /* threads that live on see that their record is gone */
	port_mutex_unlock(&registry);
	free_records(all);
	this_thread()->gone = false;
}

static void lock_records(bool lock) LF_NO_THREAD_ANALYSIS
{
	for (struct reclaim_thread *r = &orphans; r; r = r->next) {
		if (lock)
			port_spin_lock(&r->lock);
		else
			port_spin_unlock(&r->lock);
	}
}

/* Brings the reclaimer to rest. Nothing is locked yet: a deferred call that it is in may need any lock. */
void reclaim_pause(void)
{
	static uint32_t ticket; /* one fork at a time */
	uint32_t done;

	if (u32_load(&driver, memory_order_relaxed) != DRIVER_THREAD) /* relaxed: a thread that starts now finds nothing to do before the locks */
		return;
	if (++ticket == 0)
		ticket = 1;
	u32_store(&pausing, ticket, PLANT_ORDER(129, memory_order_relaxed, memory_order_release)); /* order: reclaim-pause (release) */
	set_demand(DEMAND_NOW);
	/* order: reclaim-paused (acquire) */
	while ((done = u32_load(&paused, PLANT_ORDER(133, memory_order_relaxed, memory_order_acquire))) != ticket)
		park_wait_real(&paused, done, LF_DEADLINE_NEVER);
}

void reclaim_before_fork(void) LF_NO_THREAD_ANALYSIS
{
	port_mutex_lock(&registry);
	lock_records(true);
}

void reclaim_after_fork_parent(void) LF_NO_THREAD_ANALYSIS
{
	lock_records(false);
	port_mutex_unlock(&registry);
	u32_store(&pausing, 0, PLANT_ORDER(130, memory_order_relaxed, memory_order_release)); /* order: reclaim-pause (release) */
	park_wake(&pausing);
}

void reclaim_after_fork_child(void) LF_NO_THREAD_ANALYSIS
{
	struct reclaim_thread *mine = this_thread()->reclaim;

	lock_records(false);
	/* The other threads are gone, and what they deferred is nobody's. */
	for (struct reclaim_thread *r = orphans.next; r; r = r->next)
		r->gone = r != mine;
	/* relaxed: a single thread */
	u32_store(&pausing, 0, memory_order_relaxed);
	u32_store(&driver, DRIVER_NONE, memory_order_relaxed);
	u32_store(&demand, DEMAND_NONE, memory_order_relaxed);
	u32_store(&drains_done, u32_load(&drains_asked, memory_order_relaxed), memory_order_relaxed);
	port_mutex_unlock(&registry);
}
