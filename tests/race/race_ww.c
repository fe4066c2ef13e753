/* SPDX-License-Identifier: MIT */
/*
 * Threads take random sets of locks in random order, each set with a ticket, and roll back when they are told to. Other threads take
 * single locks without a ticket, or only if they are free.
 *
 * Oracle:
 * - mutual exclusion: each lock protects a counter and the number of its holder, neither of them atomic. Nobody finds a holder under a lock
 *   that was just taken, or another one before the unlock; and the counters add up to the locks that were counted;
 * - no deadlock: all transactions end; one that does not hangs, and the watchdog says so;
 * - no starvation: each thread gets its share of the transactions, which all take from one heap;
 * - -EDEADLK is said only to who holds something, -EALREADY only of what the ticket has.
 *
 * Counted, for each rule, are transactions by how often they were rolled back: those that were at least once are the hits, the others
 * the misses. Healthy output has many of each; its longest roll-backs are tens, and not thousands.
 *
 * LF_STRESS=10 runs a million transactions of each rule.
 */
#include "testing.h"

#include <stdatomic.h>
#include <unistd.h>

#include "resv/ww.h"

enum { THREADS = 8, OTHERS = 2, OBJECTS = 256, SET = 32, BUCKETS = 16 };

struct object {
	struct lf_ww_lock lock;
	int holder; /* number of the thread, or 0 */
	unsigned long counter;
};

static struct lf_ticket_class wait_die = LF_TICKET_CLASS_INIT(LF_WAIT_DIE);
static struct lf_ticket_class wound_wait = LF_TICKET_CLASS_INIT(LF_WOUND_WAIT);

static struct {
	struct lf_ticket_class *cls;
	struct object objects[OBJECTS];
	struct gate gate;
	uint64_t seed;
	atomic_long left; /* transactions */
	atomic_bool over;
} shared;

struct worker {
	int number; /* from 1 */
	uint64_t random;
	int order[OBJECTS]; /* a permutation; a transaction takes the first SET */
	long done;
	unsigned long locked;
	unsigned long histogram[BUCKETS]; /* by the logarithm of the roll-backs */
	unsigned long rollbacks, most;
};

static void enter(struct object *o, struct worker *w)
{
	must(o->holder == 0);
	o->holder = w->number;
	o->counter++;
	w->locked++;
}

static void leave(struct object *o, struct worker *w)
{
	must(o->holder == w->number);
	o->holder = 0;
	must(ww_check_held(&o->lock, "race_ww"));
	ww_unlock(&o->lock);
}

static void shuffle(struct worker *w)
{
	for (int i = 0; i < SET; i++) {
		int other = i + (int)(random_next(&w->random) % (uint64_t)(OBJECTS - i));
		int tmp = w->order[i];
		w->order[i] = w->order[other];
		w->order[other] = tmp;
	}
}

/* Takes the set; @first, which may be NULL, is locked already. Returns the lock that it was rolled back for, or NULL. */
static struct object *take_set(struct worker *w, struct lf_ticket *ticket, struct object *first)
{
	for (int i = 0; i < SET; i++) {
		struct object *o = &shared.objects[w->order[i]];
		int ret = ww_lock(&o->lock, ticket, "race_ww");
		if (ret == 0) {
			enter(o, w);
			continue;
		}
		if (ret == -EALREADY) {
			must(o == first);
			continue;
		}
		must(ret == -EDEADLK);
		must(ticket->held > 0 && ticket->wanted == &o->lock);
		while (i-- > 0) {
			if (&shared.objects[w->order[i]] != first)
				leave(&shared.objects[w->order[i]], w);
		}
		if (first)
			leave(first, w);
		return o;
	}
	return NULL;
}

static unsigned bucket_of(unsigned long rollbacks)
{
	unsigned bucket = 0;
	/* 0, 1, 2, 3-4, 5-8, ... */
	for (unsigned long upper = 0; rollbacks > upper && bucket < BUCKETS - 1; bucket++)
		upper = upper ? 2 * upper : 1;
	return bucket;
}

static void transaction(struct worker *w)
{
	struct lf_ticket ticket;
	struct object *contended = NULL;
	unsigned long rollbacks = 0;
	shuffle(w);
	lf_ticket_init(&ticket, shared.cls);
	while ((contended = take_set(w, &ticket, contended)) != NULL) {
		rollbacks++;
		must(ww_lock_slow(&contended->lock, &ticket, "race_ww") == 0);
		enter(contended, w);
	}
	must(ticket.held == SET);
	for (int i = SET - 1; i >= 0; i--)
		leave(&shared.objects[w->order[i]], w);
	lf_ticket_fini(&ticket);
	w->histogram[bucket_of(rollbacks)]++;
	w->rollbacks += rollbacks;
	if (rollbacks > w->most)
		w->most = rollbacks;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	gate_wait(&shared.gate);
	while (atomic_fetch_sub(&shared.left, 1) > 0) {
		transaction(w);
		w->done++;
	}
	return NULL;
}

/* Single locks, every second by trylock. */
static void *disturb(void *arg)
{
	struct worker *w = arg;
	gate_wait(&shared.gate);
	while (!atomic_load(&shared.over)) {
		struct object *o = &shared.objects[random_next(&w->random) % OBJECTS];
		int ret = w->done % 2 ? ww_trylock(&o->lock, NULL, "race_ww") : ww_lock(&o->lock, NULL, "race_ww");
		must(ret == 0 || (ret == -EBUSY && w->done % 2));
		w->done++;
		if (ret)
			continue;
		enter(o, w);
		leave(o, w);
		usleep(50);
	}
	return NULL;
}

static void report(const char *rule, const struct worker *workers, long transactions)
{
	unsigned long histogram[BUCKETS] = { 0 }, rollbacks = 0, most = 0;
	long fewest = transactions, greatest = 0;
	char line[256] = "";
	int used = 0;
	for (int t = 0; t < THREADS; t++) {
		for (int i = 0; i < BUCKETS; i++)
			histogram[i] += workers[t].histogram[i];
		rollbacks += workers[t].rollbacks;
		most = workers[t].most > most ? workers[t].most : most;
		fewest = workers[t].done < fewest ? workers[t].done : fewest;
		greatest = workers[t].done > greatest ? workers[t].done : greatest;
	}
	for (unsigned i = 0, upper = 0; i == 0 || (i < BUCKETS && upper < most); i++) {
		unsigned lower = i ? upper + 1 : 0;
		upper = i ? (upper ? 2 * upper : 1) : 0;
		if (lower < upper)
			used += snprintf(line + used, sizeof(line) - (size_t)used, " %u-%u: %lu", lower, upper, histogram[i]);
		else
			used += snprintf(line + used, sizeof(line) - (size_t)used, " %u: %lu", lower, histogram[i]);
	}
	test_note("race_ww: %s: %ld transactions: rolled back (hits) %lu, not (misses) %lu, roll-backs %lu, most of one %lu", rule,
		transactions, (unsigned long)transactions - histogram[0], histogram[0], rollbacks, most);
	test_note("race_ww: %s: transactions by roll-backs:%s", rule, line);
	test_note("race_ww: %s: transactions of a thread: %ld to %ld; locks without ticket %lu", rule, fewest, greatest,
		workers[THREADS].locked + workers[THREADS + 1].locked);
	/* with few of them the first thread may be through before the last has begun */
	must(transactions < 50000 || fewest > transactions / THREADS / 8);
}

static void race(struct lf_ticket_class *cls, const char *rule)
{
	static struct worker workers[THREADS + OTHERS];
	pthread_t threads[THREADS + OTHERS];
	unsigned long locked = 0;
	long transactions = test_rounds(test_is_sanitized() ? 10000 : 100000);
	memset(workers, 0, sizeof(workers));
	shared.cls = cls;
	shared.seed = test_seed();
	atomic_store(&shared.left, transactions);
	atomic_store(&shared.over, false);
	for (int i = 0; i < OBJECTS; i++) {
		shared.objects[i] = (struct object){ 0 };
		ww_init(&shared.objects[i].lock, cls);
	}
	gate_init(&shared.gate, THREADS + OTHERS);
	test_watchdog(100, "race_ww: a deadlock, or a lost wake");
	for (int t = 0; t < THREADS + OTHERS; t++) {
		workers[t].number = t + 1;
		workers[t].random = shared.seed + (uint64_t)t;
		for (int i = 0; i < OBJECTS; i++)
			workers[t].order[i] = i;
		threads[t] = thread_start(t < THREADS ? work : disturb, &workers[t], 0);
	}
	for (int t = 0; t < THREADS; t++)
		thread_join(threads[t]);
	atomic_store(&shared.over, true);
	for (int t = THREADS; t < THREADS + OTHERS; t++)
		thread_join(threads[t]);
	test_watchdog(0, "");
	gate_fini(&shared.gate);
	for (int t = 0; t < THREADS + OTHERS; t++)
		locked += workers[t].locked;
	for (int i = 0; i < OBJECTS; i++) {
		must(shared.objects[i].holder == 0);
		must(!ww_is_locked(&shared.objects[i].lock));
		locked -= shared.objects[i].counter;
		ww_fini(&shared.objects[i].lock);
	}
	must(locked == 0);
	report(rule, workers, transactions);
}

static void transactions_exclude_each_other_and_all_end_under_wait_die(void **state)
{
	race(&wait_die, "wait-die");
}

static void transactions_exclude_each_other_and_all_end_under_wound_wait(void **state)
{
	race(&wound_wait, "wound-wait");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(transactions_exclude_each_other_and_all_end_under_wait_die),
		TEST(transactions_exclude_each_other_and_all_end_under_wound_wait),
	};
	return TEST_MAIN(tests);
}
