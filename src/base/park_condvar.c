/* SPDX-License-Identifier: MIT */
/*
 * Sleeping on a word, with condition variables. Overview in park.h.
 *
 * A fixed table of mutex and condition variable, chosen by the word's address; words that share an entry wake each other for nothing.
 * The sleeper looks at the word under the entry's mutex and the waker takes that mutex between the change and the wake, so P1 holds.
 */
#include "base/park.h"

#include "base/check.h"
#include "base/library.h"

enum { TABLE_BITS = 6, ENTRIES = 1 << TABLE_BITS };

struct entry {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
};

static struct entry table[ENTRIES];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_table(void)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	for (size_t i = 0; i < ENTRIES; i++) {
		pthread_mutex_init(&table[i].mutex, NULL);
		pthread_cond_init(&table[i].cond, &attr);
	}
	pthread_condattr_destroy(&attr);
}

static struct entry *entry_of(const void *word)
{
	invariant(!library_poisoned()); /* P3 */
	pthread_once(&once, init_table);
	return &table[hash_bits((uintptr_t)word >> 2, TABLE_BITS)];
}

void park_wait_real(const lf_atomic_u32 *word, uint32_t expected, int64_t until)
{
	struct timespec ts = port_timespec(until);
	struct entry *e = entry_of(word);
	int before;

	/* A thread that is cancelled here would leave the entry locked, and its node on a fence. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
	pthread_mutex_lock(&e->mutex);
	/* relaxed: the mutex orders it against the waker; the caller loads again with the order it needs */
	if (u32_load(word, memory_order_relaxed) == expected) {
		if (until == LF_DEADLINE_NEVER)
			pthread_cond_wait(&e->cond, &e->mutex);
		else
			pthread_cond_timedwait(&e->cond, &e->mutex, &ts);
	}
	pthread_mutex_unlock(&e->mutex);
	pthread_setcancelstate(before, NULL);
}

void park_wake(const void *word)
{
	struct entry *e = entry_of(word);

	pthread_mutex_lock(&e->mutex);
	pthread_mutex_unlock(&e->mutex);
	pthread_cond_broadcast(&e->cond);
}

void park_after_fork_child(void)
{
	/* Threads that slept at the fork are counted in the condition variables, and are not there. */
	pthread_once(&once, init_table);
	init_table();
}
