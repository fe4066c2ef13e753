/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Tickets: what lets many locks be taken in any order without deadlock.
 *
 * Each transaction takes a *ticket*, whose stamp is its age, and locks reservations with it (<libfence/resv.h>). When two transactions
 * block each other, the younger one is told -EDEADLK: it unlocks everything, waits for the lock that it could not have
 * (lf_resv_lock_slow()), and begins again with the same ticket. Age only grows, so each becomes the oldest one day and is through: nobody
 * starves. <libfence/exec.h> does all of this as a loop.
 *
 * Who is told depends on the class of the locks, after Rosenkrantz, Stearns and Lewis ("System Level Concurrency Control for Distributed
 * Database Systems", 1978): under *wait-die* the younger one that would have to wait for an older; under *wound-wait* the younger one that
 * an older has to wait for, when it comes to wait itself. Wound-wait rolls back less often where conflicts are rare, wait-die where they
 * are dense.
 */
#ifndef LIBFENCE_TICKET_H
#define LIBFENCE_TICKET_H

#include <libfence/base.h>

LF_BEGIN_DECLS

/** Who gives way to whom. */
enum lf_ticket_rule {
	LF_WAIT_DIE = 0, /**< the younger does not wait for the older */
	LF_WOUND_WAIT = 1, /**< the older makes the younger give way */
};

/** A class of tickets and of the locks they are for. Static or embedded; alive as long as its tickets and locks. */
struct lf_ticket_class {
	lf_atomic_u64 stamp; /**< not yours */
	lf_atomic_u32 inject_per_million; /**< not yours */
	lf_atomic_u32 inject_state; /**< not yours */
	enum lf_ticket_rule rule; /**< who gives way */
};

/** Initialises a class: `static struct lf_ticket_class c = LF_TICKET_CLASS_INIT(LF_WOUND_WAIT);` */
#define LF_TICKET_CLASS_INIT(rule) { { 0 }, { 0 }, { 0 }, rule }

/**
 * Injects -EDEADLK, for tests: some locks that are asked for with a ticket which holds others already are refused as if an older
 * transaction had them.
 *
 * @param cls NULL for the default class
 * @param per_million how many of a million; 0 ends it
 * @param seed of the pseudo-random choice
 *
 * @par Context
 * Any time, also while the class is used.
 */
LF_API void lf_ticket_class_inject(struct lf_ticket_class *cls, uint32_t per_million, uint32_t seed);

/** A transaction's right to lock several. Caller's storage, usually the stack; of one thread at a time. */
struct lf_ticket {
	struct lf_ticket_class *cls; /**< not yours */
	uint64_t stamp; /**< not yours */
	uint32_t held; /**< not yours */
	lf_atomic_u32 word; /**< not yours */
	void *wanted; /**< not yours */
	struct lf_ticket *next; /**< not yours */
	const void *thread; /**< not yours */
};

/**
 * Takes a ticket. Its age begins here, and is kept through all roll-backs until lf_ticket_fini().
 *
 * @param ticket the caller's storage; used by the thread that calls this
 * @param cls of the locks that it will be used on; NULL for the default class, which is wait-die
 */
LF_API void lf_ticket_init(struct lf_ticket *ticket, struct lf_ticket_class *cls);

/**
 * Ends a ticket. It holds no lock any more, else this is misuse (reported).
 *
 * @param ticket may be initialised again
 */
LF_API void lf_ticket_fini(struct lf_ticket *ticket);

LF_END_DECLS

#endif /* LIBFENCE_TICKET_H */
