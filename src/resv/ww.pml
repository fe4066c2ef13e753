/* SPDX-License-Identifier: MIT */
/*
 * A model of two wait/wound locks for the spin model checker: who owns them, who sleeps, and who wakes whom.
 *
 * What is modelled: a younger ticket, which locks lock 1 and then lock 0; an older one, which locks them in the opposite order, or in the
 * same order while it holds a third lock, which nobody else wants (so it wounds who has its first one); a thread without ticket, which
 * locks one of them, twice. Its wait may be older than both tickets, younger, or between them. Who is told -EDEADLK unlocks what it holds,
 * takes the contended lock first, and goes on, until it has had both at once. Then it ends, and its ticket with it; the ticket of the
 * thread without one ends with each of its waits.
 *
 * Each access to an owner word, and to a waiter's word, is a step, and so are the two of sleeping: the look at the word with the beginning
 * of the sleep, and its end. What is done to the queue under the spinlock is part of the step before it. A waiter may look
 * as long as it likes before it sleeps. A sleep never ends for no reason, but it does not begin when the word has changed.
 *
 * Checked:
 * - a lock has one owner (asserted by whoever gets it and by whoever gives it back);
 * - nobody touches a ticket that has ended (W3, W4);
 * - W1 and W2, whenever a spinlock is given back; W5 when a ticket begins to hold; who holds nothing is never told -EDEADLK;
 * - everybody comes to an end, with free locks, empty queues and nobody asleep (no invalid end state: no deadlock, no lost wake);
 * - nobody goes round for ever (no cycle at all: -DNP; there is no progress label).
 *
 * Not modelled: weak memory (see docs/ORDERING.md), those who come by without end (starvation), trylock, injection, poisoned children, the
 * end of a lock, more than two contended locks.
 *
 * To run, for wait-die, and again with -DWOUND for wound-wait (each 15 to 20 million states, half a minute, 0.9 GB; three times that with
 * -DNP; with `spin -DSMALL`, where the thread without ticket locks once, 4 million):
 *
 *     spin -a src/resv/ww.pml && cc -O2 -DSAFETY -DCOLLAPSE -DNOFAIR -o pan pan.c && ./pan -m100000
 *     spin -a src/resv/ww.pml && cc -O2 -DNP -DCOLLAPSE -DNOFAIR -o pan pan.c && ./pan -l -m200000
 *
 * Each deliberate bug must be found: `spin -DBUG=1 -a src/resv/ww.pml`, then as above. tools/check-models does all of this. Bugs 1, 2, 3 and
 * 4 are in the source, too, to be planted with the numbers 200, 201, 74 and 202; scenarios of tests/explore find them there.
 *
 * | BUG | what is wrong                                                                   | rule       | what spin finds           |
 * |-----|---------------------------------------------------------------------------------|------------|---------------------------|
 * | 1   | a sleeper is CALLED before the owner word says that the lock is free            | both       | it sleeps for ever        |
 * | 2   | a called waiter that leaves passes nothing on                                   | wound-wait | WAITERS alone for nobody  |
 * | 3   | who comes by is not WOUNDED for an older waiter                                 | wound-wait | deadlock                  |
 * | 4   | who comes by does not tell younger waiters to die                               | wait-die   | deadlock                  |
 * | 5   | the fast path takes a word that has WAITERS alone                               | both       | two owners                |
 * | 6   | the owner is wounded after the spinlock was given back                          | wound-wait | a dead ticket touched     |
 */
#ifndef BUG
#define BUG 0
#endif
#ifdef WOUND
#define WOUND_WAIT true
#else
#define WOUND_WAIT false
#endif

/* How often the thread without ticket locks. */
#ifdef SMALL
#define WAITS 1
#else
#define WAITS 2
#endif

/* Threads 0 and 1 have a ticket each, 2 has none. */
#define ANON 2
#define NONE 3

/* A ticket's word. */
#define GRANTED  1
#define DIE      2
#define WOUNDED  4
#define SLEEPING 8
#define CALLED   16

byte word[3];
byte held[3];
bool alive[3];
bool asleep[3];
byte anon_age; /* 0: older than both, 1: between them, 2: younger */

/* A lock. The queue is a set, a bit a thread, since age orders it. */
typedef Lock {
	byte owner; /* a thread, or NONE */
	bool waiters;
	bool spin;
	byte queue;
	byte inside /* who is between lock and unlock, a bit a thread */
};
Lock l[2];

#define BIT(t)      (1 << (t))
#define AGE(t)      ((t) == ANON -> 2 * anon_age : 2 * (t) + 1)
#define OLDER(a, b) (AGE(a) < AGE(b))
#define TOUCH(t)    assert(alive[t])
#define IN(x, t)    ((l[x].queue & BIT(t)) != 0)
/* The oldest waiter, or NONE. Of ages 0, 2, 4 one is the anonymous wait's. */
#define FIRST(x)                                                                                                                        \
	(IN(x, ANON) && anon_age == 0 -> ANON :                                                                                         \
		(IN(x, 0) -> 0 : (IN(x, ANON) && anon_age == 1 -> ANON : (IN(x, 1) -> 1 : (IN(x, ANON) -> ANON : NONE)))))

#define LOSES(x, t, who) (IN(x, t) && held[t] > 0 && !OLDER(t, who))

/* In each thread: `me`, and the scratch that these use. */

inline spin_lock(x)
{
	atomic { !l[x].spin -> l[x].spin = true }
}

/* W1 and W2, and the spinlock is free. */
inline spin_unlock(x)
{
	atomic {
		assert(l[x].queue == 0 || l[x].waiters);
		assert(l[x].queue == 0 || l[x].owner != NONE || (word[FIRST(x)] & CALLED));
		assert(l[x].queue != 0 || l[x].owner != NONE || !l[x].waiters); /* WAITERS alone is for somebody */
		assert(!IN(x, 0) || !(word[0] & (GRANTED | DIE)));
		assert(!IN(x, 1) || !(word[1] & (GRANTED | DIE)));
		assert(!IN(x, 2) || !(word[2] & (GRANTED | DIE)));
		l[x].spin = false
	}
}

/* Adds to the news whom the new owner sends away. */
inline losers(x, who)
{
	if
	:: !WOUND_WAIT && who != ANON ->
		if :: LOSES(x, 0, who) -> TOUCH(0); l[x].queue = l[x].queue & ~BIT(0); dying = dying | BIT(0) :: else -> skip fi;
		if :: LOSES(x, 1, who) -> TOUCH(1); l[x].queue = l[x].queue & ~BIT(1); dying = dying | BIT(1) :: else -> skip fi
	:: else -> skip
	fi
}

inline tell_news()
{
	atomic {
		if
		:: sleeper != NONE -> asleep[sleeper] = false; sleeper = NONE
		:: else -> skip
		fi
	};
	do
	:: dying == 0 -> break
	:: dying != 0 ->
		atomic {
			if :: dying & BIT(0) -> other = 0 :: else -> other = 1 fi;
			dying = dying & ~BIT(other);
			TOUCH(other);
			if :: word[other] & SLEEPING -> sleeper = other :: else -> skip fi;
			word[other] = word[other] | DIE;
			other = NONE
		};
		atomic {
			if
			:: sleeper != NONE -> asleep[sleeper] = false; sleeper = NONE
			:: else -> skip
			fi
		}
	od
}

inline make_owner(x, heir)
{
	atomic {
		TOUCH(heir);
		l[x].queue = l[x].queue & ~BIT(heir);
		losers(x, heir);
		l[x].owner = heir;
		l[x].waiters = (l[x].queue != 0)
	}
}

inline pass_on(x)
{
	/* Who it is, and whether it sleeps, changes under the spinlock only, but for a beginning sleep. */
	atomic {
		first = FIRST(x);
		if
		:: first == NONE -> l[x].owner = NONE; l[x].waiters = false
		:: first != NONE ->
			TOUCH(first);
			calls = (word[first] & SLEEPING) && !(word[first] & CALLED);
			if
			:: calls && BUG != 1 -> l[x].owner = NONE
			:: calls && BUG == 1 -> word[first] = (word[first] & ~SLEEPING) | CALLED
			:: else -> skip
			fi
		fi
	};
	if
	:: first == NONE -> skip
	:: first != NONE && calls ->
		atomic {
			TOUCH(first);
			if
			:: BUG != 1 -> word[first] = (word[first] & ~SLEEPING) | CALLED
			:: else -> l[x].owner = NONE
			fi;
			sleeper = first
		}
	:: first != NONE && !calls ->
		make_owner(x, first);
		atomic {
			TOUCH(first);
			if :: word[first] & SLEEPING -> sleeper = first :: else -> skip fi;
			word[first] = word[first] | GRANTED
		}
	fi;
	atomic { first = NONE; calls = false }
}

/* ww_acquired(). */
inline acquired(x)
{
	atomic {
		assert(l[x].inside == 0 && l[x].owner == me);
		l[x].inside = BIT(me);
		held[me]++
	}
}

inline unlock(x)
{
	atomic {
		assert(l[x].inside == BIT(me) && l[x].owner == me);
		l[x].inside = 0;
		if
		:: !l[x].waiters -> l[x].owner = NONE; slow = false
		:: else -> slow = true
		fi
	};
	if
	:: slow ->
		spin_lock(x);
		pass_on(x);
		spin_unlock(x);
		tell_news()
	:: else -> skip
	fi;
	/* ww_released() */
	atomic {
		slow = false;
		held[me]--;
		if :: held[me] == 0 && me != ANON -> word[me] = 0 :: else -> skip fi
	}
}

/* Leaves `took` true: the lock is ours; `refused`: -EDEADLK; neither: we are in the queue. */
inline enter(x)
{
	spin_lock(x);
	atomic {
		if
		:: l[x].owner == NONE ->
			l[x].owner = me; /* WAITERS stays */
			took = true;
			if :: BUG != 4 -> losers(x, me) :: else -> skip fi;
			if
			:: BUG != 3 && WOUND_WAIT && me == 1 && IN(x, 0) && held[0] > 0 -> TOUCH(0); word[1] = word[1] | WOUNDED
			:: else -> skip
			fi
		:: else ->
			l[x].waiters = true;
			other = l[x].owner
		fi
	};
	if
	:: !took ->
		/* W3: the owner's ticket is there. */
		atomic {
			assert(other != me);
			if
			:: me != ANON && other != ANON && held[me] > 0 ->
				TOUCH(other);
				if
				:: !WOUND_WAIT && OLDER(other, me) -> refused = true
				:: WOUND_WAIT && OLDER(me, other) && BUG != 6 ->
					if :: word[other] & SLEEPING -> sleeper = other :: else -> skip fi;
					word[other] = word[other] | WOUNDED
				:: else -> skip
				fi
			:: else -> skip
			fi;
			if :: BUG != 6 -> other = NONE :: else -> skip fi;
			if :: !refused -> l[x].queue = l[x].queue | BIT(me) :: else -> skip fi
		}
	:: else -> skip
	fi;
	spin_unlock(x);
	if
	:: BUG == 6 ->
		atomic {
			if
			:: WOUND_WAIT && other != NONE && other != ANON && me != ANON && held[me] > 0 && OLDER(me, other) ->
				TOUCH(other);
				if :: word[other] & SLEEPING -> sleeper = other :: else -> skip fi;
				word[other] = word[other] | WOUNDED
			:: else -> skip
			fi;
			other = NONE
		}
	:: else -> skip
	fi;
	tell_news()
}

/* Ends with `left` true when we were in the queue. */
inline leave(x)
{
	spin_lock(x);
	atomic {
		if
		:: IN(x, me) -> l[x].queue = l[x].queue & ~BIT(me); left = true
		:: else -> skip
		fi
	};
	if
	:: left && l[x].owner == NONE && BUG != 2 -> pass_on(x)
	:: else -> skip
	fi;
	spin_unlock(x);
	tell_news()
}

/* Ends with `took`. */
inline take_when_called(x)
{
	if
	:: l[x].owner == NONE ->
		spin_lock(x);
		if
		:: atomic { FIRST(x) == me && l[x].owner == NONE -> took = true };
			make_owner(x, me)
		:: else -> skip
		fi;
		spin_unlock(x);
		tell_news()
	:: else -> skip
	fi
}

inline doze()
{
	if
	:: word[me] != seen -> skip /* looks, and finds a change */
	:: true ->
		atomic {
			if
			:: word[me] == seen -> seen = seen | SLEEPING; word[me] = seen; sleeps = true
			:: else -> skip
			fi
		};
		if
		:: sleeps ->
			atomic { asleep[me] = (word[me] == seen); sleeps = false };
			!asleep[me]
		:: else -> skip
		fi
	fi
}

/* Ends with `took` or `refused`. */
inline wait_in_queue(x)
{
	do
	:: took || refused -> break
	:: else ->
		seen = word[me];
		if
		:: seen & GRANTED -> took = true
		:: !(seen & GRANTED) && (seen & DIE) -> refused = true
		:: !(seen & (GRANTED | DIE)) ->
			if
			:: (seen & WOUNDED) && held[me] > 0 ->
				leave(x);
				atomic { refused = left; left = false }
			:: else -> skip
			fi;
			if
			:: !refused && (seen & CALLED) -> take_when_called(x)
			:: else -> skip
			fi;
			if
			:: !refused && !took -> doze()
			:: else -> skip
			fi
		fi
	od;
	atomic { seen = 0; word[me] = word[me] & WOUNDED } /* forget_wait() */
}

/* Ends with `took` or `refused`. */
inline lock(x)
{
	atomic {
		assert(me == ANON || held[me] > 0 || word[me] == 0); /* W5 */
		took = false;
		refused = false;
		if
		:: l[x].owner == NONE && (!l[x].waiters || BUG == 5) -> l[x].owner = me; took = true
		:: else -> skip
		fi
	};
	if
	:: !took && me != ANON && held[me] > 0 && (word[me] & WOUNDED) -> refused = true
	:: else -> skip
	fi;
	if
	:: !took && !refused ->
		if :: me == ANON -> alive[me] = true :: else -> skip fi;
		enter(x);
		if
		:: !took && !refused -> wait_in_queue(x)
		:: else -> skip
		fi;
		if :: me == ANON -> alive[me] = false :: else -> skip fi
	:: else -> skip
	fi;
	if
	:: took -> acquired(x)
	:: else -> assert(held[me] > 0)
	fi
}

#define SCRATCH												\
	byte sleeper = NONE, dying = 0, other = NONE, first = NONE, seen = 0;				\
	bool calls = false, slow = false, took = false, refused = false, left = false, sleeps = false

proctype with_ticket(byte me)
{
	SCRATCH;
	byte a = me, at = 0;
	bool third = false;

	if
	:: me == 0 -> atomic { a = 1; third = true; held[0] = 1 }
	:: true -> skip
	fi;
	/* at: 0: has neither; 1: has a. */
	do
	:: at == 0 ->
		lock(a);
		assert(took);
		at = 1
	:: at == 1 ->
		lock(1 - a);
		if
		:: took -> break
		:: else ->
			unlock(a);
			atomic { a = 1 - a; at = 0 }
		fi
	od;
	unlock(1 - a);
	unlock(a);
	if
	:: third -> atomic { held[me]--; word[me] = 0 }
	:: else -> skip
	fi;
	atomic { assert(held[me] == 0 && word[me] == 0); alive[me] = false }
}

proctype without_ticket(byte me)
{
	SCRATCH;
	byte a = 0, n = 0;

	do
	:: n == WAITS -> break
	:: n < WAITS ->
		if :: a = 0 :: a = 1 fi;
		lock(a);
		unlock(a);
		n++
	od
}

init {
	atomic {
		l[0].owner = NONE;
		l[1].owner = NONE;
		alive[0] = true;
		alive[1] = true;
		if :: anon_age = 0 :: anon_age = 1 :: anon_age = 2 fi;
		run with_ticket(0);
		run with_ticket(1);
		run without_ticket(2)
	};
	_nr_pr == 1 ->
	assert(l[0].owner == NONE && l[1].owner == NONE && !l[0].waiters && !l[1].waiters && l[0].queue == 0 && l[1].queue == 0)
}
