/* SPDX-License-Identifier: MIT */
/*
 * Waiting: for one fence, for some of many, for a fence to be drained.
 *
 * Purpose: a waiter is a node like any other, so a signal without waiters makes no system call and there is no flag to race with. The
 * node counts a word down; whoever brings it to zero wakes the sleeper, once.
 *
 * Invariants:
 * WT1. missing is the number of fences still needed; each node counts it down once, under its fence's lock, or not at all if taken back.
 * WT2. That count is the last that anybody else does to the waiter's memory: the wake that follows uses the address only (park.h P2). So
 *      the waiter may return as soon as it sees zero and has its other nodes back.
 * WT3. Each node is taken back, or has run, before the wait returns.
 *
 * Ordering: wait-done (count down release, look acquire): a waiter that sees zero sees its fences signaled, and what came before.
 *
 * Not here: eventfds, containers.
 */
#include "base/check.h"
#include "base/park.h"
#include "base/rcu.h"
#include "fence/core.h"

struct waiter {
	lf_atomic_u32 missing; /* goes on below zero when more fences signal than are needed */
};

/* --- The node ------------------------------------------------------------------------------------------------------------ */

static void wake(void *word)
{
	park_wake(word);
}

static void count_down(struct lf_fence *f, struct lf_fence_cb *cb, struct fence_after *after)
{
	struct lf_wait_slot *slot = container_of(cb, struct lf_wait_slot, cb);
	struct waiter *w = slot->waiter;

	(void)f;
	/* order: wait-done (release): the waiter sees what the signalling thread wrote */
	if (u32_fetch_sub(&w->missing, 1, PLANT_ORDER(12, memory_order_relaxed, memory_order_release)) == 1 && !PLANTED(188)) {
		after->fn = wake;
		after->arg = &w->missing;
	}
}

static bool satisfied(const struct waiter *w, uint32_t *ret_missing)
{
	/* order: wait-done (acquire): see count_down() */
	*ret_missing = u32_load(&w->missing, PLANT_ORDER(112, memory_order_relaxed, memory_order_acquire));
	return (int32_t)*ret_missing <= 0;
}

/* Sleeps until nothing is missing. Returns false when the deadline came first. */
static bool sleep_until_satisfied(struct waiter *w, int64_t deadline)
{
	uint32_t missing;

	while (!satisfied(w, &missing)) {
		if (!park_wait(&w->missing, missing, deadline))
			return satisfied(w, &missing);
	}
	return true;
}

/* --- One ----------------------------------------------------------------------------------------------------------------- */

static int wait_pending(struct lf_fence *f, int64_t deadline)
{
	struct waiter waiter = { .missing = { 1 } };
	struct lf_wait_slot slot = { .waiter = &waiter };
	int ret = library_check_fence_wait("lf_fence_wait");

	if (ret)
		return ret;
	fence_enable(f);
	if (library_poisoned())
		return -EOWNERDEAD; /* the hook forked, and this is the child */
	if (fence_add_internal(f, &slot.cb, count_down) != 0)
		return 0;
	if (sleep_until_satisfied(&waiter, deadline))
		return 0;
	/* Too late, unless it was signaled in between. */
	return fence_remove_internal(f, &slot.cb) ? -ETIME : 0;
}

int lf_fence_wait(struct lf_fence *f, int64_t deadline)
{
	if (unlikely(!f))
		return misuse(-EINVAL, "lf_fence_wait: the fence is NULL");
	if (DEBUG_CHECKS && !fence_check(f, __func__))
		return -EINVAL;
	if (fence_word(f) & FENCE_SIGNALED)
		return 0;
	return wait_pending(f, deadline);
}

/* --- Many ---------------------------------------------------------------------------------------------------------------- */

/* The smallest index that is signaled; counts them up to @need. */
static size_t count_signaled(const struct lf_wait_many *wait, size_t *ret_first)
{
	size_t n = 0;

	for (size_t i = 0; i < wait->count && n < wait->need; i++) {
		if (!lf_fence_is_signaled(wait->fences[i]))
			continue;
		if (n++ == 0)
			*ret_first = i;
	}
	return n;
}

static int check_many(const struct lf_wait_many *wait)
{
	if (!wait || (wait->count && (!wait->fences || !wait->slots)))
		return misuse(-EINVAL, "lf_fence_wait_many: fences and slots are both needed");
	if (wait->need > wait->count || wait->count > INT32_MAX)
		return misuse(-EINVAL, "lf_fence_wait_many: %zu needed of %zu fences", wait->need, wait->count);
	for (size_t i = 0; i < wait->count; i++) {
		if (!wait->fences[i])
			return misuse(-EINVAL, "lf_fence_wait_many: fence %zu is NULL", i);
	}
	return 0;
}

/* Adds nodes until enough are signaled already. Returns how many slots were used; the others' cb is idle. */
static size_t add_nodes(const struct lf_wait_many *wait, struct waiter *waiter)
{
	uint32_t missing;
	size_t i;

	for (i = 0; i < wait->count && !satisfied(waiter, &missing); i++) {
		struct lf_wait_slot *slot = &wait->slots[i];

		slot->waiter = waiter;
		fence_enable(wait->fences[i]);
		if (library_poisoned())
			break;
		if (fence_add_internal(wait->fences[i], &slot->cb, count_down) != 0) {
			slot->waiter = NULL;
			u32_fetch_sub(&waiter->missing, 1, memory_order_relaxed); /* relaxed: our own word, and the refusal was an acquire */
		}
	}
	return i;
}

static void take_nodes_back(const struct lf_wait_many *wait, size_t used)
{
	for (size_t i = 0; i < used; i++) {
		if (wait->slots[i].waiter)
			fence_remove_internal(wait->fences[i], &wait->slots[i].cb);
	}
}

static int wait_many_pending(const struct lf_wait_many *wait)
{
	struct waiter waiter = { .missing = { (uint32_t)wait->need } };
	int ret = library_check_fence_wait("lf_fence_wait_many");
	uint32_t missing;
	size_t used;

	if (ret)
		return ret;
	used = add_nodes(wait, &waiter);
	if (library_poisoned())
		return -EOWNERDEAD; /* a hook forked, and this is the child */
	sleep_until_satisfied(&waiter, wait->deadline);
	take_nodes_back(wait, used);
	return satisfied(&waiter, &missing) ? 0 : -ETIME;
}

int lf_fence_wait_many(const struct lf_wait_many *wait, size_t *ret_first)
{
	size_t first = 0;
	int ret = check_many(wait);

	if (ret)
		return ret;
	if (count_signaled(wait, &first) < wait->need) {
		ret = wait_many_pending(wait);
		if (ret)
			return ret;
		count_signaled(wait, &first);
	}
	if (ret_first && wait->need)
		*ret_first = first;
	return 0;
}

/* --- Drained ------------------------------------------------------------------------------------------------------------- */

static int sleep_until_drained(struct lf_fence *f, int64_t deadline)
{
	for (;;) {
		uintptr_t word = fence_lock(f);

		if (word & FENCE_DRAINED) {
			fence_unlock(f, word);
			return 0;
		}
		if (!fence_sleep_locked(f, word, deadline))
			return lf_fence_is_drained(f) ? 0 : -ETIME;
	}
}

int lf_fence_wait_drained(struct lf_fence *f, int64_t deadline)
{
	int ret;

	if (unlikely(!f))
		return misuse(-EINVAL, "lf_fence_wait_drained: the fence is NULL");
	if (lf_fence_is_drained(f))
		return 0;
	ret = library_check_fence_wait(__func__);
	if (ret)
		return ret;
	/* Signaled first: waiting for that enables the fence, and sleeps on a word of our own. */
	ret = lf_fence_wait(f, deadline);
	return ret ? ret : sleep_until_drained(f, deadline);
}
