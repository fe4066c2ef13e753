/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Locking many reservations at once, as a plain loop:
 *
 *     struct lf_exec x;
 *
 *     lf_exec_init(&x, NULL);
 *     while (lf_exec_next(&x)) {
 *         for (i = 0; i < n; i++)
 *             lf_exec_lock(&x, resv[i], 1);
 *     }
 *     if (lf_exec_error(&x) == 0)
 *         lf_exec_add_fence(&x, fence, LF_USAGE_WRITE);
 *     lf_exec_fini(&x);
 *
 * The body says what to lock, in any order. When another transaction goes first, everything is unlocked, the rest of the body does nothing,
 * and lf_exec_next() begins the body again, with the contended reservation locked. So the body must not remember anything of a round that
 * it does not do again, and it may be left (`break`, `return` behind lf_exec_fini()) at any point. Errors are sticky: after one the body
 * does nothing, the loop ends, nothing is locked, and lf_exec_error() says what it was.
 */
#ifndef LIBFENCE_EXEC_H
#define LIBFENCE_EXEC_H

#include <libfence/resv.h>

LF_BEGIN_DECLS

/** A transaction over many reservations. Caller's storage, usually the stack; of one thread. */
struct lf_exec {
	struct lf_ticket ticket; /**< not yours */
	struct lf_resv **locked; /**< not yours */
	size_t count; /**< how many are locked */
	size_t capacity; /**< not yours */
	struct lf_resv *contended; /**< not yours */
	struct lf_resv *prelocked; /**< not yours */
	uint64_t rounds; /**< how often the body was begun */
	int error; /**< not yours */
	bool done; /**< not yours */
};

/**
 * Begins a transaction. Allocates nothing.
 *
 * @param x the caller's memory
 * @param cls of the reservations; NULL for the default class
 */
LF_API void lf_exec_init(struct lf_exec *x, struct lf_ticket_class *cls);

/**
 * Ends a transaction: unlocks what is locked, last first.
 *
 * @param x initialised; ending it twice does nothing
 */
LF_API void lf_exec_fini(struct lf_exec *x);

/**
 * The head of the loop.
 *
 * @param x initialised
 *
 * @par Context
 * Waits, when the last round was contended.
 * @return true: do the body. false: everything that the body asked for is locked, or there was an error and nothing is.
 */
LF_API bool lf_exec_next(struct lf_exec *x);

/**
 * Locks a reservation and reserves slots in it. Locking one again, also one that several objects share, just reserves more.
 *
 * @param x inside the loop
 * @param resv borrowed for the call, if lf_resv_create() made it: the transaction takes a reference until it unlocks; else borrowed until
 * lf_exec_fini()
 * @param slots to reserve (lf_resv_reserve()); may be 0
 *
 * @par Context
 * Waits.
 * @return 0; -EDEADLK: the round is lost, and lf_exec_next() will begin another; or the error that ended the transaction: -ENOMEM,
 * and what lf_resv_lock() and lf_resv_reserve() say of misuse. The body need not look, and may go on.
 */
LF_API int lf_exec_lock(struct lf_exec *x, struct lf_resv *resv, unsigned slots);

/**
 * Notes a place to roll back to.
 *
 * @param x inside the loop, or behind it
 * @return a mark, valid in this round.
 */
LF_API size_t lf_exec_mark(const struct lf_exec *x);

/**
 * Unlocks what was locked since a mark, last first: for a victim that was looked at and not taken.
 *
 * @param x inside the loop, or behind it
 * @param mark of this round
 */
LF_API void lf_exec_rollback(struct lf_exec *x, size_t mark);

/**
 * Adds a fence to all that is locked; each must have a reserved slot.
 *
 * @param x behind the loop, without error
 * @param f takes references
 * @param usage of enum lf_usage
 */
LF_API void lf_exec_add_fence(struct lf_exec *x, struct lf_fence *f, enum lf_usage usage);

/**
 * One of the locked reservations.
 *
 * @param x initialised
 * @param i from 0, in the order of locking
 * @return borrowed; NULL behind the last.
 */
LF_API struct lf_resv *lf_exec_at(const struct lf_exec *x, size_t i);

/**
 * What became of it.
 *
 * @param x initialised
 * @return 0, or the error that ended it.
 */
LF_API int lf_exec_error(const struct lf_exec *x);

LF_END_DECLS

#endif /* LIBFENCE_EXEC_H */
