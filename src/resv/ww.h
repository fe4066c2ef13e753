/* SPDX-License-Identifier: MIT */
/*
 * The lock of a reservation, without the reservation. Overview in ww.c; contracts in <libfence/ticket.h> and <libfence/resv.h>, where each
 * function has its public twin.
 *
 * Here are the paths without contention, so that the twins are one call.
 */
#ifndef LF_RESV_WW_H
#define LF_RESV_WW_H

#include <libfence/resv.h>

#include "base/check.h"
#include "base/library.h"
#include "base/port.h"

/* --- The owner word: 0, or a ticket or thread | flags ---------------------------------------------------------------------- */

#define WW_WAITERS ((uintptr_t)1) /* the owner unlocks through ww_unlock_contended() */
#define WW_TICKET  ((uintptr_t)2) /* a ticket has the lock; otherwise a thread has it without one */
#define WW_FLAGS   ((uintptr_t)3)

_Static_assert(_Alignof(struct lf_ticket) >= 4 && _Alignof(struct library_thread) >= 4, "two bits of their addresses hold flags");

/* How many classes inject. Apart from the classes, whose line every new ticket writes to. */
extern LF_INTERNAL lf_atomic_u32 ww_injecting;

static inline uintptr_t ww_owner_word(const struct lf_ticket *ticket, const struct library_thread *me)
{
	return ticket ? (uintptr_t)ticket | WW_TICKET : (uintptr_t)me;
}

/* The ticket that a word names, or NULL. */
static inline struct lf_ticket *ww_owner_ticket(uintptr_t word)
{
	return word & WW_TICKET ? (struct lf_ticket *)(word & ~WW_FLAGS) : NULL;
}

/* --- What holders count ----------------------------------------------------------------------------------------------------- */

/* For library_check_fence_wait(). */
static inline void ww_note_held(struct library_thread *me, int change)
{
	if (library_validates(LF_VALIDATE_WAITS) && (change > 0 || me->held))
		me->held += (unsigned)change;
}

static inline void ww_acquired(struct lf_ticket *ticket, struct library_thread *me)
{
	if (ticket && ticket->held++ == 0)
		me->ticket = ticket;
	ww_note_held(me, +1);
}

/* After the lock was given back: until then others may still write to the ticket (W3). */
static inline void ww_released(struct lf_ticket *ticket, struct library_thread *me)
{
	ww_note_held(me, -1);
	if (!ticket || --ticket->held > 0)
		return;
	ticket->wanted = NULL;
	if (!PLANTED(56))
		u32_store(&ticket->word, 0, memory_order_relaxed); /* relaxed: it holds nothing, so it is nobody's but its thread's */
	if (me->ticket == ticket)
		me->ticket = NULL;
}

/* --- Lock -------------------------------------------------------------------------------------------------------------------- */

int ww_lock_contended(struct lf_ww_lock *l, struct lf_ticket *ticket, struct library_thread *me, const char *function);

/* Whether nothing speaks against taking the lock but that somebody may have it. If something does, ww_lock_contended() says what. */
static inline bool ww_may_take(const struct lf_ww_lock *l, const struct lf_ticket *ticket, const struct library_thread *me)
{
	if (library_poisoned())
		return false;
	if (!ticket)
		return true;
	if (unlikely(ticket->thread != me || ticket->cls != l->cls))
		return false;
	if (DEBUG_CHECKS && ticket->held && ticket->wanted)
		return false;
	/* relaxed: injection is seen soon, which is all that is promised */
	return !ticket->held || likely(!u32_load(&ww_injecting, memory_order_relaxed));
}

/* Returns whether it was free. */
static inline bool ww_take(struct lf_ww_lock *l, uintptr_t mine)
{
	uintptr_t none = 0;

	/* order: ww-lock (acquire): sees what the last holder did */
	/* order: ww-owner (release): who finds the ticket in the word sees its stamp */
	return ptr_cas(&l->owner, &none, mine, PLANT_ACQ_REL(54, 145), memory_order_relaxed);
}

/* @function is the public one, for messages. */
static inline int ww_lock(struct lf_ww_lock *l, struct lf_ticket *ticket, const char *function)
{
	struct library_thread *me = this_thread();

	if (unlikely(!ww_may_take(l, ticket, me)) || unlikely(!ww_take(l, ww_owner_word(ticket, me))))
		return ww_lock_contended(l, ticket, me, function);
	ww_acquired(ticket, me);
	return 0;
}

int ww_lock_slow(struct lf_ww_lock *l, struct lf_ticket *ticket, const char *function);
int ww_trylock(struct lf_ww_lock *l, struct lf_ticket *ticket, const char *function);

/* --- Holding ----------------------------------------------------------------------------------------------------------------- */

bool ww_is_held_by_ticket(const struct lf_ww_lock *l, struct library_thread *me);

/* By this thread, with a ticket or without. */
static inline bool ww_is_held(const struct lf_ww_lock *l)
{
	struct library_thread *me = this_thread();
	/* relaxed: a word with this thread or a ticket of it was put there by it, or for it before it was told */
	uintptr_t word = ptr_load(&l->owner, memory_order_relaxed) & ~WW_WAITERS;

	if (!(word & WW_TICKET))
		return word == (uintptr_t)me;
	return likely(ww_owner_ticket(word) == me->ticket) || ww_is_held_by_ticket(l, me);
}

/* By anybody. */
static inline bool ww_is_locked(const struct lf_ww_lock *l)
{
	/* relaxed: true or not, for others it may change at once */
	return (ptr_load(&l->owner, memory_order_relaxed) & ~WW_WAITERS) != 0;
}

/* --- Unlock ------------------------------------------------------------------------------------------------------------------ */

bool ww_report_not_held(const struct lf_ww_lock *l, const char *function) __attribute__((cold));
void ww_unlock_contended(struct lf_ww_lock *l);

/* Whether the caller may unlock; reports when not. What a holder does last happens between this and ww_unlock(). */
static inline bool ww_check_held(const struct lf_ww_lock *l, const char *function)
{
	return likely(ww_is_held(l)) || ww_report_not_held(l, function);
}

/* The caller has the lock, and asked ww_check_held(). */
static inline void ww_unlock(struct lf_ww_lock *l)
{
	/* relaxed: our own; others only add WW_WAITERS */
	uintptr_t word = ptr_load(&l->owner, memory_order_relaxed) & ~WW_WAITERS;
	struct lf_ticket *ticket = ww_owner_ticket(word);
	struct library_thread *me = ticket ? (struct library_thread *)ticket->thread : (struct library_thread *)word;

	/* order: ww-lock (release): the next holder sees what was done under the lock */
	if (unlikely(!ptr_cas(&l->owner, &word, 0, PLANT_ORDER(50, memory_order_relaxed, memory_order_release), memory_order_relaxed)))
		ww_unlock_contended(l);
	ww_released(ticket, me);
}

/* --- Life -------------------------------------------------------------------------------------------------------------------- */

void ww_init(struct lf_ww_lock *l, struct lf_ticket_class *cls);

/* Reports a lock that somebody holds. */
void ww_fini(struct lf_ww_lock *l);

#endif /* LF_RESV_WW_H */
