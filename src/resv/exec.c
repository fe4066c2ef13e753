/* SPDX-License-Identifier: MIT */
/*
 * Locking many reservations as a loop.
 *
 * Purpose: the roll-back that -EDEADLK asks for, and its second attempt, written once.
 *
 * States, told apart by three fields:
 *
 *     begun -> round -> done
 *                 round -> lost (contended) -> round
 *                 round -> failed (error)
 *
 * | from | to | by |
 * |---|---|---|
 * | begun, lost | round | lf_exec_next(), with the contended reservation locked |
 * | round | lost | lose(), when a lock says -EDEADLK |
 * | round | done | lf_exec_next(); lf_exec_fini() |
 * | any but done | failed | fail() |
 *
 * Invariants (assert_valid()):
 * E1. locked[0] to locked[count - 1] are locked with the ticket, each once, in the order of locking; so is prelocked, if there is one, and
 *     nothing else.
 * E2. prelocked is what the last round was lost for, as long as the body has not asked for it in this one.
 * E3. locked, prelocked and contended hold a reference each on a reservation that is counted: whoever said what to lock need keep nothing
 *     alive for the transaction's sake.
 * E4. Lost or failed, nothing is locked. So the roll-back is not put off until the body ends.
 *
 * What is reserved goes with the unlock, so there is nothing to undo, and each round reserves anew.
 *
 * Not here: who gives way (ww.c), slots (resv.c).
 */
#include <libfence/exec.h>

#include "base/alloc.h"
#include "base/check.h"
#include "resv/block.h"

enum { FIRST_CAPACITY = 16 };

static void assert_valid(const struct lf_exec *x)
{
	invariant(x->ticket.held == x->count + (x->prelocked ? 1 : 0)); /* E1 */
	invariant(!x->prelocked || !x->contended); /* E2 */
	invariant(!(x->contended || x->error) || (!x->count && !x->prelocked)); /* E4 */
}

/* --- References ---------------------------------------------------------------------------------------------------------- */

static void keep(struct lf_resv *resv)
{
	if (resv_is_counted(resv))
		lf_resv_get(resv);
}

static void let_go(struct lf_resv *resv)
{
	if (resv && resv_is_counted(resv))
		lf_resv_put(resv);
}

/* --- Unlocking ----------------------------------------------------------------------------------------------------------- */

static void unlock(struct lf_resv *resv)
{
	lf_resv_unlock(resv);
	let_go(resv);
}

static void unlock_to(struct lf_exec *x, size_t mark)
{
	while (x->count > mark)
		unlock(x->locked[--x->count]);
}

static void drop_prelocked(struct lf_exec *x)
{
	struct lf_resv *resv = x->prelocked;

	x->prelocked = NULL;
	if (resv && !PLANTED(58))
		unlock(resv);
}

static void unlock_all(struct lf_exec *x)
{
	unlock_to(x, 0);
	drop_prelocked(x);
}

static void drop_contended(struct lf_exec *x)
{
	let_go(x->contended);
	x->contended = NULL;
}

static int fail(struct lf_exec *x, int error)
{
	unlock_all(x);
	x->error = error;
	drop_contended(x);
	assert_valid(x);
	return error;
}

static int lose(struct lf_exec *x, struct lf_resv *resv)
{
	keep(resv); /* before the others go: the caller's borrowed pointer may depend on them */
	unlock_all(x);
	x->contended = resv;
	assert_valid(x);
	return -EDEADLK;
}

/* --- Life ---------------------------------------------------------------------------------------------------------------- */

void lf_exec_init(struct lf_exec *x, struct lf_ticket_class *cls)
{
	*x = (struct lf_exec){ 0 };
	lf_ticket_init(&x->ticket, cls);
}

void lf_exec_fini(struct lf_exec *x)
{
	if (!x)
		return;
	unlock_all(x);
	lf_ticket_fini(&x->ticket);
	mem_free(x->locked);
	x->locked = NULL;
	x->capacity = 0;
	drop_contended(x);
	x->done = true;
}

/* --- The loop ------------------------------------------------------------------------------------------------------------ */

bool lf_exec_next(struct lf_exec *x)
{
	struct lf_resv *resv = x->contended;
	int ret;

	if (x->error || x->done)
		return false;
	if (x->rounds && !resv) {
		/* The body came to its end. What it did not ask for this time, it does not want. */
		drop_prelocked(x);
		assert_valid(x);
		x->done = true;
		return false;
	}
	if (resv) {
		ret = lf_resv_lock_slow(resv, &x->ticket);
		if (ret) {
			fail(x, ret);
			return false;
		}
		x->prelocked = resv; /* the reference moves along */
		x->contended = NULL;
	}
	x->rounds++;
	assert_valid(x);
	return true;
}

/* Makes room for one more. */
static int grow(struct lf_exec *x)
{
	size_t capacity = x->capacity ? 2 * x->capacity : FIRST_CAPACITY;
	struct lf_resv **locked;

	if (likely(x->count < x->capacity))
		return 0;
	locked = mem_grow(x->locked, x->count, capacity, sizeof(*locked));
	if (!locked)
		return -ENOMEM;
	x->locked = locked;
	x->capacity = capacity;
	return 0;
}

/* Puts a reservation into the list, which has room, unless it is there. Returns 0, or what lf_resv_lock() says. */
static int lock(struct lf_exec *x, struct lf_resv *resv)
{
	int ret = 0;

	if (resv == x->prelocked) {
		x->prelocked = NULL; /* from here to the list, with its reference */
	} else {
		ret = lf_resv_lock(resv, &x->ticket);
		if (ret)
			return ret == -EALREADY ? 0 : ret;
		keep(resv);
	}
	x->locked[x->count++] = resv;
	return 0;
}

int lf_exec_lock(struct lf_exec *x, struct lf_resv *resv, unsigned slots)
{
	int ret;

	if (x->error)
		return x->error;
	if (x->contended)
		return -EDEADLK;
	if (unlikely(!resv || !x->rounds || x->done))
		return fail(x, misuse(-EINVAL, "lf_exec_lock: %s", resv ? "called outside the loop" : "the reservation is NULL"));
	/* Before the lock, so that there is nothing to take back. */
	ret = grow(x);
	if (!ret)
		ret = lock(x, resv);
	if (ret == -EDEADLK)
		return lose(x, resv);
	if (!ret && slots)
		ret = lf_resv_reserve(resv, slots);
	if (ret)
		return fail(x, ret);
	assert_valid(x);
	return 0;
}

/* --- Roll-back ----------------------------------------------------------------------------------------------------------- */

size_t lf_exec_mark(const struct lf_exec *x)
{
	return x->count;
}

/* A mark that was set before the round was lost stands behind the end, and there is nothing to do. */
void lf_exec_rollback(struct lf_exec *x, size_t mark)
{
	unlock_to(x, mark);
	assert_valid(x);
}

/* --- Behind the loop ----------------------------------------------------------------------------------------------------- */

bool exec_check_locked(const struct lf_exec *x, const char *function)
{
	if (likely(!x->error && !x->contended))
		return true;
	misuse(0, "%s: nothing is locked, since the transaction %s", function, x->error ? "failed" : "lost its round");
	return false;
}

void lf_exec_add_fence(struct lf_exec *x, struct lf_fence *f, enum lf_usage usage)
{
	if (!exec_check_locked(x, __func__))
		return;
	for (size_t i = 0; i < x->count; i++)
		lf_resv_add(x->locked[i], f, usage);
}

struct lf_resv *lf_exec_at(const struct lf_exec *x, size_t i)
{
	return i < x->count ? x->locked[i] : NULL;
}

int lf_exec_error(const struct lf_exec *x)
{
	return x->error;
}
