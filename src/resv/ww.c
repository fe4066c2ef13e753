/* SPDX-License-Identifier: MIT */
/*
 * Wait/wound locks, and the tickets that they are taken with.
 *
 * Purpose: a lock of one word, which one compare-exchange takes and one gives back, and which many can be taken of in any order. When
 * transactions block each other, their age decides which one gives way.
 *
 * States of the owner word (ww.h):
 *
 *     free <-> owned <-> owned, WAITERS <-> WAITERS
 *
 * | from | to | by |
 * |---|---|---|
 * | free | owned | ww_take(): ww_lock(), ww_trylock(); take_or_stop() |
 * | owned | free | ww_unlock() |
 * | owned | owned, WAITERS | take_or_stop() |
 * | owned, WAITERS | free; owned by the oldest waiter, with WAITERS while others wait; WAITERS | pass_on(): ww_unlock_contended() |
 * | WAITERS | owned by the oldest waiter | take_when_called(); pass_on(): leave() |
 * | WAITERS | free; WAITERS | pass_on(): leave(), when the one who was called leaves |
 * | WAITERS | owned by somebody else, WAITERS | take_or_stop() |
 *
 * States of a ticket's word while it waits: 0 -> SLEEPING -> ... + GRANTED or DIE, each by one who has taken it off the queue; CALLED,
 * once, which clears SLEEPING and leaves it in the queue; and WOUNDED at any time while it holds something. The ticket's own thread clears
 * all but WOUNDED when its wait ends, and WOUNDED when it holds nothing any more.
 *
 * Invariants:
 * W1. The queue of a lock is sorted by stamp, oldest first; nobody in it is GRANTED or told to DIE (assert_valid()).
 * W2. While somebody is in the queue the owner word has WAITERS; and if nobody owns the lock, the oldest waiter is CALLED (assert_valid()).
 *     A lock with waiters is handed over to the oldest of them, with one exception: one that sleeps is called, once in a wait, and until it
 *     has come, others may take the lock. (Waking takes longer than most transactions: with hand-over alone, a lock that is wanted all the
 *     time goes from sleeper to sleeper.)
 * W3. Whoever has the spinlock and has seen WAITERS in the word, may use the ticket that the word names until it gives the spinlock back:
 *     its owner cannot finish unlocking before, and a ticket that owns a lock is alive. Nobody else follows a pointer out of the word.
 * W4. A waiting ticket is used by others only under the spinlock of the lock it waits for, or when they took it off the queue, or to tell
 *     it WOUNDED under the spinlock of a lock that it owns (W3). What they do to it last is to set GRANTED or DIE; the wake that follows
 *     uses the address only (park.h P2).
 * W5. A ticket that holds nothing and does not wait has the word 0. So a wound ends with the roll-back that it asked for.
 * W6. A ticket that holds something, and waits for the lock of another ticket, is older than that one (wait-die), or it is younger or
 *     that one is WOUNDED (wound-wait).
 * W7. library_thread.ticket is NULL, or a ticket of this thread that holds something.
 *
 * No deadlock: in a circle of tickets that wait for each other each holds something. Under wait-die each would be older than the next (W6).
 * Under wound-wait one at least is older than the next; that next one is WOUNDED, and so does not wait. W6 holds from the beginning of a
 * wait (enter()). When the owner changes under a waiter, then to the oldest waiter or to one who came by (W2). Under wait-die, those who
 * are younger than the new owner and hold something are told to die (losers()). Under wound-wait, a new owner who is younger than a waiter
 * that holds something is WOUNDED from the start (wound_if_younger()). Who waits for a lock that nobody owns waits for the one who is
 * CALLED, and that one for nobody but the wake that is under way. A thread without ticket holds one lock only, as far as we are concerned,
 * and has no part in circles.
 *
 * No starvation: stamps only grow, and a ticket keeps its own, so only finitely many are older. Let all of them be through. Then our ticket
 * is the oldest: nobody refuses it, or wounds it, any more; where it waits it is the first of the queue, and the owner, which does not wait
 * for ever since there is no deadlock, hands over to it, or calls it; then the next owner at the latest hands over. A thread that waits
 * without a ticket gets a stamp when it begins to, and has the same promise.
 *
 * Locking: the spinlock of a lock protects its queue. Nobody has two of them, and no user code, no sleep and no system call is under one.
 *
 * Ordering: ww-lock (holder to holder), ww-owner (a ticket is seen by who finds it in the word), ww-grant (hand-over, and giving a ticket
 * back to its thread).
 *
 * Lifetime: a lock is as long-lived as what it is in; nobody may wait for it when that ends. A ticket without lock and wait is memory. A
 * thread without one waits through one on its stack, marked ANONYMOUS, which never gets into an owner word.
 *
 * Not here: the loop around roll-backs (exec.c), the fences (resv.c).
 */
#include "resv/ww.h"

#include "base/park.h"
#include "base/rcu.h"

/* lf_ticket.word */
#define GRANTED   UINT32_C(1) /* has the lock that it waits for */
#define DIE       UINT32_C(2) /* shall not wait any more: an older one got the lock */
#define WOUNDED   UINT32_C(4) /* shall not wait any more while it holds something: an older one waits for it */
#define SLEEPING  UINT32_C(8) /* must be woken */
#define ANONYMOUS UINT32_C(16) /* stands for a thread without ticket, in one wait */
#define CALLED    UINT32_C(32) /* was woken to take the lock, in this wait; the next time it is handed over */

/*
 * Rounds of looking before a wait joins the queue: about a microsecond, which most holders do not take. And before it sleeps: about as
 * long as sleeping and being woken takes, so that who waits for a transaction, which holds longer, is there when it is handed the lock.
 */
enum { LOOKS = PORT_LOOKS(40), LOOKS_QUEUED = PORT_LOOKS(250) };

lf_atomic_u32 ww_injecting;

static struct lf_ticket_class default_class = LF_TICKET_CLASS_INIT(LF_WAIT_DIE);

static struct lf_ticket_class *class_of(struct lf_ticket_class *cls)
{
	return cls ? cls : &default_class;
}

static struct port_spin *spin_of(struct lf_ww_lock *l)
{
	return port_spin_of(&l->spin);
}

static bool is_older(const struct lf_ticket *a, const struct lf_ticket *b)
{
	return a->stamp < b->stamp;
}

/* --- State accessors ----------------------------------------------------------------------------------------------------- */

static uint32_t flags_of(const struct lf_ticket *ticket)
{
	/* order: ww-grant (acquire): the new owner sees what the last one did; who is told to die may use its ticket again */
	return u32_load(&ticket->word, PLANT_ORDER(151, memory_order_relaxed, memory_order_acquire));
}

/*
 * Sets a flag of a ticket. Returns what wake() wants: the address, if the ticket's thread sleeps on it. With GRANTED and DIE the ticket may
 * be gone by then.
 */
static const void *tell(struct lf_ticket *ticket, uint32_t flag)
{
	const void *address = &ticket->word;
	uint32_t word = u32_load(&ticket->word, memory_order_relaxed); /* relaxed: a guess, for the exchange */

	/* order: ww-grant (release): comes after what was done under the lock, and after the last look at the ticket */
	while (!u32_cas(&ticket->word, &word, word | flag, PLANT_ORDER(51, memory_order_relaxed, memory_order_release), memory_order_relaxed))
		;
	return word & SLEEPING ? address : NULL;
}

static void wake(const void *address)
{
	if (address)
		park_wake(address);
}

/* What is left of a wait, by the ticket's own thread. A wound may come at the same time. */
static void forget_wait(struct lf_ticket *ticket)
{
	uint32_t word = u32_load(&ticket->word, memory_order_relaxed); /* relaxed: our own flags */

	/* relaxed: flags_of() was the acquire */
	while (!u32_cas(&ticket->word, &word, word & WOUNDED, memory_order_relaxed, memory_order_relaxed))
		;
}

/* Whether nobody owns the lock, though some may wait. */
static bool is_free(uintptr_t word)
{
	return !(word & ~WW_WAITERS);
}

/* Under the spinlock. Costly. */
static void assert_valid(const struct lf_ww_lock *l)
{
	uintptr_t word;

	if (!DEBUG_CHECKS)
		return;
	word = ptr_load(&l->owner, memory_order_relaxed); /* relaxed: WAITERS is changed under the spinlock only */
	invariant(l->waiters || word != WW_WAITERS); /* W2 */
	invariant(!l->waiters || ((word & WW_WAITERS) && (!is_free(word) || (flags_of(l->waiters) & CALLED)))); /* W2 */
	for (const struct lf_ticket *w = l->waiters; w; w = w->next) {
		invariant(!(flags_of(w) & (GRANTED | DIE))); /* W1 */
		invariant(!w->next || is_older(w, w->next)); /* W1 */
	}
}

/* --- Classes ------------------------------------------------------------------------------------------------------------- */

void lf_ticket_class_inject(struct lf_ticket_class *cls, uint32_t per_million, uint32_t seed)
{
	uint32_t before;

	cls = class_of(cls);
	u32_store(&cls->inject_state, seed * 2654435761u | 1, memory_order_relaxed); /* spread over all bits, and not 0 */
	/* relaxed: all of it: who locks meanwhile is refused or not, by the old seed or the new */
	before = u32_xchg(&cls->inject_per_million, per_million, memory_order_relaxed);
	if (!before != !per_million)
		u32_fetch_add(&ww_injecting, per_million ? 1 : UINT32_MAX, memory_order_relaxed);
}

static uint32_t xorshift(uint32_t x)
{
	x ^= x << 13;
	x ^= x >> 17;
	return x ^ x << 5;
}

/* Whether this lock is one of those to be refused. */
static bool is_injected(struct lf_ticket_class *cls)
{
	uint32_t per_million = u32_load(&cls->inject_per_million, memory_order_relaxed); /* relaxed: see lf_ticket_class_inject() */
	uint32_t state;

	if (!per_million)
		return false;
	/* relaxed: a number, which stands for nothing else */
	state = u32_load(&cls->inject_state, memory_order_relaxed);
	while (!u32_cas(&cls->inject_state, &state, xorshift(state), memory_order_relaxed, memory_order_relaxed))
		;
	return ((uint64_t)xorshift(state) * 1000000) >> 32 < per_million;
}

/* --- Tickets ------------------------------------------------------------------------------------------------------------- */

static void ticket_init(struct lf_ticket *ticket, struct lf_ticket_class *cls, const struct library_thread *me, uint32_t word)
{
	/* relaxed: that each gets another, and later ones greater, needs no order */
	uint64_t stamp = u64_fetch_add(&class_of(cls)->stamp, 1, memory_order_relaxed);

	*ticket = (struct lf_ticket){ .cls = cls, .stamp = stamp, .word = { word }, .thread = me };
}

void lf_ticket_init(struct lf_ticket *ticket, struct lf_ticket_class *cls)
{
	/* In a poisoned child the locks will say so. */
	library_enter();
	ticket_init(ticket, cls, this_thread(), 0);
}

void lf_ticket_fini(struct lf_ticket *ticket)
{
	if (!ticket)
		return;
	if (unlikely(ticket->held)) {
		misuse(0, "lf_ticket_fini: the ticket holds %u locks still", ticket->held);
		return;
	}
	/* No thread's: whoever uses it without another init is told. */
	ticket->thread = NULL;
}

/* --- The spinlock and what it gives -------------------------------------------------------------------------------------- */

/*
 * Takes the lock if it is free, and returns 0; otherwise sees to it that its owner comes to the spinlock before it is through with
 * unlocking (W3), and returns the word. @mine may be 0, to take nothing.
 */
static uintptr_t take_or_stop(struct lf_ww_lock *l, uintptr_t mine) LF_REQUIRES(spin_of(l))
{
	uintptr_t word = ptr_load(&l->owner, memory_order_relaxed); /* relaxed: a guess, for the exchange */
	uintptr_t next;

	/* order: ww-lock (acquire): sees what the last holder did */
	/* order: ww-owner (acq_rel): sees the owner's stamp, and shows ours */
	do
		next = is_free(word) ? mine | (word & WW_WAITERS) : word | WW_WAITERS;
	while (!ptr_cas(&l->owner, &word, next, PLANT_ACQ_REL(148, 146), memory_order_relaxed));
	return is_free(word) ? 0 : next;
}

/* Under the spinlock, with a word that has WAITERS. */
static const void *thread_of(uintptr_t word)
{
	const struct lf_ticket *owner = ww_owner_ticket(word);

	return owner ? owner->thread : (const void *)(word & ~WW_FLAGS);
}

/* Behind everybody who is older. */
static void enqueue(struct lf_ww_lock *l, struct lf_ticket *ticket) LF_REQUIRES(spin_of(l))
{
	struct lf_ticket **at = &l->waiters;

	while (*at && (is_older(*at, ticket) || PLANTED(55)))
		at = &(*at)->next;
	ticket->next = *at;
	*at = ticket;
	assert_valid(l);
}

/* --- Passing on ---------------------------------------------------------------------------------------------------------- */

/* Whom to tell once the spinlock was given back. */
struct news {
	const void *sleeper; /* for wake() */
	struct lf_ticket *dying; /* a list of those who were taken off the queue */
};

static void tell_news(struct news news)
{
	wake(news.sleeper);
	while (news.dying) {
		struct lf_ticket *ticket = news.dying;

		news.dying = ticket->next;
		wake(tell(ticket, DIE));
	}
}

static bool is_anonymous(const struct lf_ticket *ticket)
{
	/* relaxed: it was set before the ticket joined the queue */
	return u32_load(&ticket->word, memory_order_relaxed) & ANONYMOUS;
}

/* Takes those off the queue who may not wait for the new owner (W6), and returns them as a list. */
static struct lf_ticket *losers(struct lf_ww_lock *l, const struct lf_ticket *owner) LF_REQUIRES(spin_of(l))
{
	struct lf_ticket *list = NULL, **end = &list, **at = &l->waiters;

	if (class_of(l->cls)->rule != LF_WAIT_DIE || is_anonymous(owner) || PLANTED(52))
		return NULL;
	while (*at) {
		struct lf_ticket *ticket = *at;

		if (!ticket->held || is_older(ticket, owner)) {
			at = &ticket->next;
			continue;
		}
		*at = ticket->next;
		*end = ticket;
		end = &ticket->next;
	}
	*end = NULL;
	return list;
}

/* A new owner, who came by, must give way to waiters that are older and hold something (W6). */
static void wound_if_younger(struct lf_ww_lock *l, struct lf_ticket *owner) LF_REQUIRES(spin_of(l))
{
	const struct lf_ticket *w = l->waiters;

	if (class_of(l->cls)->rule != LF_WOUND_WAIT || is_anonymous(owner) || PLANTED(74))
		return;
	while (w && !w->held)
		w = w->next;
	if (w && is_older(w, owner))
		tell(owner, WOUNDED);
}

/* Makes the first of the queue the owner. */
static struct lf_ticket *make_owner(struct lf_ww_lock *l, struct lf_ticket *heir) LF_REQUIRES(spin_of(l))
{
	uintptr_t word = is_anonymous(heir) ? (uintptr_t)heir->thread : (uintptr_t)heir | WW_TICKET;
	struct lf_ticket *dying;

	l->waiters = heir->next;
	dying = losers(l, heir);
	/* order: ww-owner (release): who finds the ticket in the word sees its stamp */
	ptr_store(&l->owner, l->waiters ? word | WW_WAITERS : word, PLANT_ORDER(149, memory_order_relaxed, memory_order_release));
	assert_valid(l);
	return dying;
}

/* Whether a waiter sleeps and is to be called, rather than handed the lock (W2). Under the spinlock it stays so but for the sleep. */
static bool is_to_be_called(const struct lf_ticket *ticket)
{
	/* relaxed: a guess whether it sleeps; who says so a moment later is handed the lock */
	return (u32_load(&ticket->word, memory_order_relaxed) & (SLEEPING | CALLED)) == SLEEPING;
}

/*
 * Calls a waiter. The owner word says before that the lock is free: so who finds itself CALLED finds that, or an owner who came by and
 * will hand over, and may sleep again if it does not get the lock. It counts as awake. Returns what wake() wants.
 */
static const void *call(struct lf_ticket *ticket)
{
	uint32_t word = u32_load(&ticket->word, memory_order_relaxed); /* relaxed: a guess, for the exchange */

	/* order: ww-grant (release): comes after the owner word, and after what was done under the lock */
	while (!u32_cas(&ticket->word, &word, (word & ~SLEEPING) | CALLED, PLANT_ORDER(150, memory_order_relaxed, memory_order_release),
			memory_order_relaxed))
		;
	return &ticket->word;
}

/* The lock goes to the oldest waiter, if there is one. The caller owns it, or nobody does. */
static struct news pass_on(struct lf_ww_lock *l) LF_REQUIRES(spin_of(l))
{
	struct lf_ticket *heir = l->waiters;
	struct news news = { NULL, NULL };

	if (!heir) {
		/* order: ww-lock (release): the next holder sees what was done under the lock */
		ptr_store(&l->owner, 0, PLANT_ORDER(143, memory_order_relaxed, memory_order_release));
	} else if (is_to_be_called(heir)) {
		if (PLANTED(200))
			call(heir);
		/* order: ww-lock (release): as above */
		ptr_store(&l->owner, WW_WAITERS, PLANT_ORDER(144, memory_order_relaxed, memory_order_release));
		news.sleeper = PLANTED(200) ? &heir->word : call(heir);
	} else {
		news.dying = make_owner(l, heir);
		/* Under the spinlock, so that a wounded heir finds itself in the queue or granted. */
		news.sleeper = tell(heir, GRANTED);
	}
	return news;
}

/* What is left of ww_unlock() when there are waiters, or were. */
void ww_unlock_contended(struct lf_ww_lock *l)
{
	struct news news;

	/* As in ww_is_held_by_ticket(). Nobody will ever lock again. */
	if (library_poisoned())
		return;
	/*
	 * In a read section, since the next owner may be through, and have ended the lock, before the spinlock is given back: its memory
	 * then waits for us, if it was given to lf_defer_free().
	 */
	rcu_begin();
	if (!PLANTED(172))
		port_spin_lock(spin_of(l));
	assert_valid(l);
	news = pass_on(l);
	if (!PLANTED(172))
		port_spin_unlock(spin_of(l));
	rcu_end();
	tell_news(news);
}

/* Takes a wounded ticket off the queue. Returns false if it is not in it any more: then it was granted the lock. */
static bool leave(struct lf_ww_lock *l, struct lf_ticket *ticket)
{
	struct lf_ticket **at = &l->waiters;
	struct news news = { NULL, NULL };
	bool found;

	port_spin_lock(spin_of(l));
	while (*at && *at != ticket)
		at = &(*at)->next;
	found = *at != NULL;
	if (found)
		*at = ticket->next;
	/* It may have been called: then the next one is. relaxed: under the spinlock, a lock with waiters is given away by who has that */
	if (found && is_free(ptr_load(&l->owner, memory_order_relaxed)) && !PLANTED(201))
		news = pass_on(l);
	port_spin_unlock(spin_of(l));
	tell_news(news);
	return found || PLANTED(57);
}

/* Takes the lock if it is still free for one who was called. Returns false when somebody came by, or it was granted meanwhile. */
static bool take_when_called(struct lf_ww_lock *l, struct lf_ticket *ticket)
{
	struct news news = { NULL, NULL };
	bool taken;

	if (!is_free(ptr_load(&l->owner, memory_order_relaxed))) /* relaxed: a look whether it is worth the spinlock */
		return false;
	port_spin_lock(spin_of(l));
	/* order: ww-lock (acquire): sees what the last holder did */
	taken = l->waiters == ticket && is_free(ptr_load(&l->owner, PLANT_ORDER(147, memory_order_relaxed, memory_order_acquire)));
	if (taken)
		news.dying = make_owner(l, ticket);
	port_spin_unlock(spin_of(l));
	tell_news(news);
	return taken;
}

/* --- Lock ---------------------------------------------------------------------------------------------------------------- */

static int refuse(struct lf_ww_lock *l, struct lf_ticket *ticket)
{
	ticket->wanted = l;
	return -EDEADLK;
}

/* What can be said of the arguments alone. Returns 0, or an error that is reported where that is due. */
static int check(const struct lf_ww_lock *l, const struct lf_ticket *ticket, const struct library_thread *me, const char *function)
{
	int ret = library_enter();

	if (ret)
		return ret;
	if (!ticket)
		return 0;
	if (ticket->thread != me)
		return misuse(-EINVAL, "%s: the ticket is another thread's, or has ended", function);
	if (ticket->cls != l->cls)
		return misuse(-EINVAL, "%s: the ticket is of another class than the lock", function);
	return 0;
}

/* Looks for a while whether the lock becomes free. Not if somebody waits in the queue, since those go first (W2). */
static bool look_and_take(struct lf_ww_lock *l, uintptr_t mine)
{
	unsigned rounds = 0;

	while (rounds < LOOKS) {
		uintptr_t word = ptr_load(&l->owner, memory_order_relaxed); /* relaxed: a guess, for ww_take() */

		if (!word && ww_take(l, mine))
			return true;
		if (word & WW_WAITERS)
			return false;
		rounds++;
		port_pause();
	}
	return false;
}

/*
 * Begins to wait. Returns 0: the lock was free, and is ours; -EDEADLK: we give way to its owner; -EALREADY: this very thread owns it;
 * -EAGAIN: we are in the queue.
 */
static int enter(struct lf_ww_lock *l, struct lf_ticket *ticket, uintptr_t mine)
{
	const bool wound_wait = class_of(l->cls)->rule == LF_WOUND_WAIT;
	struct news news = { NULL, NULL };
	struct lf_ticket *owner;
	uintptr_t word;
	int ret = 0;

	port_spin_lock(spin_of(l));
	word = take_or_stop(l, mine);
	owner = ww_owner_ticket(word);
	if (!word) {
		if (!PLANTED(202))
			news.dying = losers(l, ticket);
		wound_if_younger(l, ticket);
		goto unlock;
	}
	ret = -EALREADY;
	if (thread_of(word) == ticket->thread)
		goto unlock;
	/* Who holds nothing closes no circle: it dies for nobody, and wounds nobody. */
	ret = -EDEADLK;
	if (ticket->held && owner && !wound_wait && is_older(owner, ticket) && !PLANTED(59))
		goto unlock;
	if (ticket->held && owner && wound_wait && is_older(ticket, owner))
		news.sleeper = tell(owner, WOUNDED);
	enqueue(l, ticket);
	ret = -EAGAIN;
unlock:
	port_spin_unlock(spin_of(l));
	if (!PLANTED(53))
		tell_news(news);
	return ret;
}

/* One round of waiting: a look, or in the end sleep. */
static void doze(struct lf_ticket *ticket, uint32_t word, unsigned *rounds)
{
	if (*rounds < LOOKS_QUEUED) {
		++*rounds;
		port_pause();
		return;
	}
	/* relaxed: it says that we sleep, and nothing else */
	if (!(word & SLEEPING) && !u32_cas(&ticket->word, &word, word | SLEEPING, memory_order_relaxed, memory_order_relaxed))
		return;
	park_wait(&ticket->word, word | SLEEPING, LF_DEADLINE_NEVER);
}

/* Waits in the queue. Returns 0 as the owner, or -EDEADLK; either way off the queue. */
static int wait_in_queue(struct lf_ww_lock *l, struct lf_ticket *ticket)
{
	unsigned rounds = 0;
	uint32_t word;

	while (!((word = flags_of(ticket)) & (GRANTED | DIE))) {
		if ((word & WOUNDED) && ticket->held && leave(l, ticket))
			break;
		if ((word & CALLED) && take_when_called(l, ticket)) {
			word = GRANTED;
			break;
		}
		doze(ticket, word, &rounds);
	}
	forget_wait(ticket);
	return word & GRANTED ? 0 : -EDEADLK;
}

/* Waits for a lock that somebody has. */
static int wait_for(struct lf_ww_lock *l, struct lf_ticket *ticket, uintptr_t mine)
{
	int ret;

	/* Who holds something may have to give way, and is waited for: it asks at once. */
	if (!ticket->held && look_and_take(l, mine))
		return 0;
	/* Without this it would join the queue to leave it. */
	if (ticket->held && (flags_of(ticket) & WOUNDED))
		return -EDEADLK;
	ret = enter(l, ticket, mine);
	return ret == -EAGAIN ? wait_in_queue(l, ticket) : ret;
}

/* This thread holds the lock, and not with the ticket that it would wait with. */
static int report_own(const struct lf_ticket *ticket, const char *function)
{
	if (!ticket)
		return misuse(-EALREADY, "%s: this thread holds the lock already", function);
	return misuse(-EPERM, "%s: waits for a lock that this thread holds without this ticket", function);
}

/* Whether the ticket is the owner. */
static bool is_owned_by(const struct lf_ww_lock *l, const struct lf_ticket *ticket)
{
	/* relaxed: a word with our ticket was put there by us, or for us before we were told */
	return ticket && ww_owner_ticket(ptr_load(&l->owner, memory_order_relaxed)) == ticket;
}

/* All that ww_lock() does not do at once. */
int ww_lock_contended(struct lf_ww_lock *l, struct lf_ticket *ticket, struct library_thread *me, const char *function)
{
	const uintptr_t mine = ww_owner_word(ticket, me);
	struct lf_ticket anonymous;
	int ret = check(l, ticket, me, function);

	if (ret)
		return ret;
	/* relaxed: it is nobody's but ours, if it holds nothing */
	invariant(!ticket || ticket->held || !u32_load(&ticket->word, memory_order_relaxed)); /* W5 */
	if (is_owned_by(l, ticket))
		return -EALREADY;
	if (DEBUG_CHECKS && ticket && ticket->held && ticket->wanted)
		return misuse(-EDEADLK, "%s: the ticket was told -EDEADLK, and holds %u locks still", function, ticket->held);
	if (ticket && ticket->held && is_injected(class_of(l->cls)))
		return refuse(l, ticket);
	if (ww_take(l, mine))
		goto acquired;
	ret = library_check_wait(function);
	if (ret)
		return ret == -EDEADLK ? -EPERM : ret;
	if (!ticket)
		ticket_init(&anonymous, l->cls, me, ANONYMOUS);
	ret = wait_for(l, ticket ? ticket : &anonymous, mine);
	if (ret == -EDEADLK)
		return refuse(l, ticket);
	if (ret)
		return report_own(ticket, function);
acquired:
	ww_acquired(ticket, me);
	return 0;
}

int ww_lock_slow(struct lf_ww_lock *l, struct lf_ticket *ticket, const char *function)
{
	if (unlikely(!ticket))
		return misuse(-EINVAL, "%s: the ticket is NULL", function);
	if (unlikely(ticket->held))
		return misuse(-EINVAL, "%s: the ticket holds %u locks still", function, ticket->held);
	return ww_lock(l, ticket, function);
}

int ww_trylock(struct lf_ww_lock *l, struct lf_ticket *ticket, const char *function)
{
	struct library_thread *me = this_thread();
	int ret = check(l, ticket, me, function);

	if (ret)
		return ret;
	if (!ww_take(l, ww_owner_word(ticket, me)))
		return ww_is_held(l) ? -EALREADY : -EBUSY;
	ww_acquired(ticket, me);
	return 0;
}

/* --- Holding ------------------------------------------------------------------------------------------------------------- */

bool ww_is_held_by_ticket(const struct lf_ww_lock *l, struct library_thread *me)
{
	struct lf_ww_lock *lock = (struct lf_ww_lock *)l; /* it says the same afterwards */
	uintptr_t word;
	bool mine;

	/* Who has the spinlock may be a thread that the child does not have. */
	if (library_poisoned())
		return false;
	port_spin_lock(spin_of(lock));
	word = take_or_stop(lock, 0);
	mine = word && thread_of(word) == me;
	if (mine)
		me->ticket = ww_owner_ticket(word);
	port_spin_unlock(spin_of(lock));
	return mine;
}

bool ww_report_not_held(const struct lf_ww_lock *l, const char *function)
{
	misuse(0, "%s: %s", function, ww_is_locked(l) ? "another thread has the lock" : "it is not locked");
	return false;
}

/* --- Life ---------------------------------------------------------------------------------------------------------------- */

void ww_init(struct lf_ww_lock *l, struct lf_ticket_class *cls)
{
	*l = (struct lf_ww_lock){ .cls = cls };
}

void ww_fini(struct lf_ww_lock *l)
{
	/* relaxed: nobody else uses it, or that is the mistake; who is being woken to take it counts, too */
	if (unlikely(ptr_load(&l->owner, memory_order_relaxed)) && !library_poisoned())
		misuse(0, "lf_resv_fini: somebody has the lock still");
}
