/* SPDX-License-Identifier: MIT */
/*
 * A model of one fence for the spin model checker: the lock in the callback word, the dispatch, and who frees the fence.
 *
 * What is modelled: two threads add a callback each, two take one back with cancel_callback_sync or leave it alone, one signals and
 * dispatches. Each holds a reference and puts it when it is through, the signalling thread perhaps inside a callback; so each may be the
 * last, before, during and after the dispatch. A callback may also take a reference, although its thread has perhaps none left; it is put
 * after the dispatch. The callback word is one value that is read, compared and exchanged as a whole; its holder works on a copy and
 * stores it plainly. The list is a set, and the dispatcher may claim any node of it: all orders at once. Callback 1 returns only when the
 * cancel of callback 0 has, which is allowed, since that waits for callback 0 alone.
 *
 * Checked:
 * - a callback whose add was accepted runs once, or was removed and never runs; one that was refused never runs;
 * - when a cancel returns, its callback is not running and never will;
 * - the fence is freed once, after the dispatcher is done with it, and nobody touches it afterwards;
 * - everybody comes to an end (no invalid end state): no wakeup is lost, and no cancel waits for another callback.
 *
 * Not modelled: weak memory (spin runs one step at a time; see docs/ORDERING.md), internal nodes, nested signals, hooks, published fences.
 *
 * To run (170 million states, five minutes, 10 GB; with -DBITSTATE in place of -DCOLLAPSE most of them in a tenth of the memory; with
 * `spin -DSMALL`, where nobody takes callback 1 back, 5 million):
 *
 *     spin -a src/fence/dispatch.pml && cc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m100000
 *
 * Each deliberate bug must be found: `spin -DBUG=1 -a src/fence/dispatch.pml`, then as above; `spin -DBUG=1 -t -p src/fence/dispatch.pml`
 * shows how it comes about.
 *
 * | BUG | what is wrong                                                            | what spin finds                          |
 * |-----|--------------------------------------------------------------------------|------------------------------------------|
 * | 1   | push ignores LOCK, and the holder's plain store overwrites the node      | an accepted callback lost                |
 * | 2   | the last put marks the fence DEAD without taking the lock                | a fence that is never freed              |
 * | 3   | cancel sleeps on a word that has its old value again when the next       | a cancel that waits for another callback |
 * |     | sleeper has come                                                         |                                          |
 * | 4   | the last put frees a signaled fence without asking whether it is drained | freed while the dispatcher runs          |
 * | 5   | a put counts down to 0 and looks at the fence afterwards                 | touched when a callback's reference, taken |
 * |     |                                                                          | in between, has freed it                 |
 */
#ifndef BUG
#define BUG 0
#endif

/* How many threads have a reference. */
#ifdef SMALL
#define THREADS 4
#else
#define THREADS 5
#endif

/* The callback word. */
#define NODE(i)  (1 << (i))
#define LIST     3
#define LOCK     4
#define SIGNALED 8
#define DRAINED  16

#define NONE 2 /* no node */

mtype = { idle, queued, ran, removed };

byte word;
byte count = THREADS;
byte running = NONE;
bool dead, sync_waiter; /* of the state word */
byte wakes; /* what cancel sleeps on: changes with each wake */
bool asleep[2];

/* Nodes, and what the checks want to know. */
mtype node[2] = idle;
bool accepted[2], refused[2], left_alone[2], returned[2], cancelled[2];
byte runs[2];
bool dispatching, freed;

#define STATE (sync_waiter + 2 * dead)
#define TOUCH assert(!freed)

inline lock(w)
{
	TOUCH;
	atomic {
		(!(word & LOCK)) -> TOUCH;
		w = word;
		word = word | LOCK
	}
}

inline unlock(w)
{
	atomic {
		TOUCH;
		word = w
	}
}

inline free()
{
	atomic {
		assert(!freed);
		assert(!dispatching);
		freed = true
	}
}

/* put_last_locked(), of an unpublished fence */
inline leave(w, done)
{
	if
	:: BUG == 2 ->
		TOUCH;
		done = !(word & DRAINED);
		dead = dead || done
	:: BUG != 2 ->
		lock(w);
		done = !(w & DRAINED);
		dead = dead || done;
		unlock(w)
	fi
}

/*
 * lf_fence_put(). The fence is signaled when the last reference goes, since the signalling thread has one until then; so of the two ways
 * to know that a count of 1 is the last only "drained before" is there.
 */
inline put(w, old, done)
{
	done = false;
	do
	:: done -> break
	:: !done ->
		TOUCH;
		w = word;
		/* The load and the exchange that counts down, unless it is 1: as one step, since a failed exchange only looks again. */
		atomic {
			TOUCH;
			assert(count > 0);
			old = count;
			if
			:: old > 1 && BUG != 5 ->
				count--;
				done = true
			:: else -> skip
			fi
		};
		if
		:: done -> skip
		:: !done && old > 1 && BUG == 5 ->
			atomic {
				TOUCH;
				count--;
				old = count;
				done = true
			};
			if
			:: old == 0 ->
				TOUCH;
				w = word;
				if
				:: w & DRAINED -> free()
				:: else ->
					leave(w, done);
					if
					:: done -> count++
					:: else -> free()
					fi;
					done = true
				fi
			:: else -> skip
			fi
		:: !done && old == 1 && ((w & DRAINED) || BUG == 4) ->
			free();
			done = true
		:: !done && old == 1 && !(w & DRAINED) && BUG != 4 ->
			assert(word & SIGNALED);
			leave(w, done)
		fi
	od;
	atomic { w = 0; old = 0; done = false } /* fewer states */
}

/* lf_fence_get() by the callback that runs: without a reference to take it from. */
inline get()
{
	atomic {
		TOUCH;
		count++
	}
}

/* Clears the mark under the lock, and remembers to wake. */
inline take_sync_waiters(wake)
{
	running = NONE;
	wake = sync_waiter;
	sync_waiter = false
}

/* Touches nothing of the fence. */
inline wake_all(wake)
{
	if
	:: wake ->
		atomic {
			wakes++;
			asleep[0] = false;
			asleep[1] = false
		}
	:: else -> skip
	fi
}

proctype adder(byte i)
{
	byte w, old;
	bool done;

	node[i] = queued;
	do
	:: true ->
		TOUCH;
		w = word;
		if
		:: w & SIGNALED ->
			node[i] = idle;
			refused[i] = true;
			break
		:: !(w & SIGNALED) && (w & LOCK) && BUG != 1 -> (word != w)
		:: !(w & SIGNALED) && (!(w & LOCK) || BUG == 1) ->
			if
			:: atomic { word == w -> TOUCH; word = (w & LIST) | NODE(i) };
				accepted[i] = true;
				break
			:: word != w -> skip
			fi
		fi
	od;
	put(w, old, done)
}

proctype canceller(byte i)
{
	byte w, old, expected;
	bool done;

	(accepted[i] || refused[i]);
	if
	:: left_alone[i] = true
	:: accepted[i] -> skip
	fi;
	do
	:: left_alone[i] -> break
	:: !left_alone[i] ->
		lock(w);
		if
		:: node[i] == queued ->
			w = w & ~NODE(i);
			node[i] = removed;
			unlock(w);
			break
		:: node[i] != queued && running != i ->
			unlock(w);
			break
		:: node[i] != queued && running == i ->
			sync_waiter = true;
			expected = (BUG == 3 -> STATE : wakes);
			unlock(w);
			/* The futex: looks and goes to sleep in one step. */
			atomic {
				TOUCH;
				asleep[i] = (expected == (BUG == 3 -> STATE : wakes))
			};
			(!asleep[i])
		fi
	od;
	assert(left_alone[i] || node[i] == removed || returned[i]);
	cancelled[i] = true;
	put(w, old, done)
}

proctype signaler()
{
	byte w, inner, old, i;
	bool wake, give, has_put, has_got, done;

	lock(w);
	if
	:: w == 0 -> unlock((SIGNALED | DRAINED))
	:: else ->
		dispatching = true;
		w = w | SIGNALED;
		do
		:: (w & LIST) == 0 -> break
		:: (w & LIST) != 0 ->
			if
			:: w & NODE(0) -> i = 0
			:: w & NODE(1) -> i = 1
			fi;
			atomic { /* all but the unlock is under the lock, and seen by nobody without it */
				take_sync_waiters(wake);
				w = w & ~NODE(i);
				node[i] = ran;
				running = i;
				unlock(w)
			};
			wake_all(wake);
			/* The callback. */
			runs[i]++;
			if
			:: i == 1 -> cancelled[0]
			:: else -> skip
			fi;
			if
			:: !has_put ->
				has_put = true;
				put(inner, old, done)
			:: !has_got ->
				has_got = true;
				get()
			:: true -> skip
			fi;
			returned[i] = true;
			lock(w)
		od;
		/* drained() */
		take_sync_waiters(wake);
		give = dead;
		dead = false;
		atomic {
			unlock((SIGNALED | DRAINED));
			dispatching = false
		};
		wake_all(wake);
		if
		:: give -> put(inner, old, done)
		:: else -> skip
		fi
	fi;
	if
	:: !has_put -> put(inner, old, done)
	:: else -> skip
	fi;
	if
	:: has_got -> put(inner, old, done)
	:: else -> skip
	fi
}

init
{
	byte i;

	atomic {
		run adder(0);
		run adder(1);
		run canceller(0);
#ifndef SMALL
		run canceller(1);
#endif
		run signaler()
	};
	(_nr_pr == 1);
	for (i : 0 .. 1) {
		assert(accepted[i] != refused[i]);
		assert(!refused[i] || runs[i] == 0);
		assert(!accepted[i] || (node[i] == ran && runs[i] == 1) || (node[i] == removed && runs[i] == 0))
	}
	assert(freed)
}
