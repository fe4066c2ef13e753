/* SPDX-License-Identifier: MIT */
/*
 * A model of one container for the spin model checker: who counts its members, who puts their references, and who frees what.
 *
 * What is modelled: a container of two members, *all* or *any*. Two threads signal a member each and dispatch it; whoever completes the
 * container dispatches that next. The one reference on each member beside the place's is put by its signaling thread afterwards, or (of
 * member 0) by another thread at any time from its signal on. A consumer adds a callback to the container, takes it back or leaves it alone
 * or puts the container with the callback on it (misuse, -EDEADLK), and puts its reference on the container; the callback may do that for
 * it. A reader takes a reference on a member through its place, and puts its own reference on the container. So each of the four may be the
 * last, at any moment, and end the container, pending or signaled. The members are published: what a read section found stays memory until
 * that section ends, and not a moment longer. The container is not: it is freed at once.
 *
 * What is done under the container's lock is one step, since nothing is done in between and nobody looks without the lock. A member's lock
 * is held over several steps, as it is in the dispatch.
 *
 * Checked:
 * - nobody touches the container or a member after its memory was freed (C5, C6, F9), and neither is freed twice;
 * - every reference is put: in the end the container and both members are freed (C4);
 * - the container is in the thread's list of what comes next once at most, and drained once (C7);
 * - a member is counted once at most, and none after the container was signaled (C1, C2);
 * - behind the first phase no node of the container waits on a member;
 * - a callback whose add was accepted runs once, or was removed and never runs;
 * - everybody comes to an end (no invalid end state).
 *
 * Not modelled: weak memory (see docs/ORDERING.md), making, nested containers, other internal nodes, jumps.
 *
 * To run (25 million states, half a minute, 1.1 GB; with -DSMALL=1, without the reader, or -DSMALL=2, without the other thread that puts
 * the reference on member 0, 4 million):
 *
 *     spin -a src/containers/container.pml && cc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m100000
 *
 * Each deliberate bug must be found: `spin -DBUG=1 -a src/containers/container.pml`, then as above. tools/check-models does all of this.
 *
 * | BUG | what is wrong                                                               | what spin finds                             |
 * |-----|-----------------------------------------------------------------------------|---------------------------------------------|
 * | 1   | a container without callbacks is drained when its last member signals it    | a freed container listed as next            |
 * | 2   | the dispatcher puts a node's reference though it is the last                | a member freed under its dispatcher's lock  |
 * | 3   | who lets a member go looks at the node without the member's lock            | the container freed while it is counted     |
 * | 4   | the place is set to NULL before the member is counted                       | the same                                    |
 * | 5   | who lets a member go looks at the place outside of a read section           | a member locked after it was freed          |
 * | 6   | a reference is taken on a member without asking whether the last is gone    | a reference on what is freed                |
 * | 7   | a settled *any* array keeps what it still waits for                         | a node that waits behind the first phase    |
 */
#ifndef BUG
#define BUG 0
#endif

#ifndef SMALL
#define SMALL 0
#endif
#define READER (SMALL != 1)
#define HOLDER (SMALL != 2)

mtype = { queued, claimed, removed };

/* A member. */
typedef Member {
	bool lock, signaled, drained, dead, ended;
	bool place; /* what the container's place for it says: set, or NULL */
	byte count; /* one of the signaling thread, one of the place */
	byte readers; /* sections that were open when it ended, which its memory waits for */
	mtype node
};
Member m[2];

/* The container. */
byte count = READER + 1; /* the reader's and the consumer's */
byte missing = 2, enough;
bool signaled, drained, dead, freed, listed;
byte signals; /* how often it was signaled */
bool callback, running; /* on its list; entered and not returned */
bool accepted, refused, taken_back, leaves_put; /* of the callback; the last: it puts the consumer's reference */
byte runs;

byte sections; /* open read sections, a bit a thread */

#define BIT(self)     (1 << (self))
#define TOUCH         assert(!freed)
#define TOUCH_M(x)    assert(!(m[x].ended && m[x].readers == 0))

inline section_begin(self)
{
	sections = sections | BIT(self)
}

inline section_end(self)
{
	d_step {
		sections = sections & ~BIT(self);
		m[0].readers = m[0].readers & ~BIT(self);
		m[1].readers = m[1].readers & ~BIT(self)
	}
}

inline lock_member(x)
{
	atomic {
		TOUCH_M(x);
		!m[x].lock -> TOUCH_M(x);
		m[x].lock = true
	}
}

inline end_member(x)
{
	assert(!m[x].ended);
	m[x].ended = true;
	m[x].readers = sections
}

/* lf_fence_put() of a member, which is published. */
inline put_member(x)
{
	done = false;
	do
	:: done -> break
	:: !done ->
		atomic { TOUCH_M(x); old = m[x].count; assert(old > 0) };
		if
		:: old > 1 ->
			atomic {
				TOUCH_M(x);
				if
				:: m[x].count == old -> m[x].count--; done = true
				:: else -> skip
				fi
			}
		:: old == 1 ->
			/* put_last_locked(): one step, since the lock is free when it is made */
			atomic {
				TOUCH_M(x);
				!m[x].lock -> TOUCH_M(x);
				if
				:: m[x].signaled && !m[x].drained -> assert(!m[x].dead); m[x].dead = true; done = true
				:: else ->
					if
					:: m[x].count == 1 ->
						m[x].count = 0;
						assert(m[x].signaled);
						end_member(x);
						done = true
					:: else -> skip
					fi
				fi
			}
		fi
	od;
	atomic { old = 0; done = false }
}

/* The container's lock held: counts a member. Returns whether that signaled it. */
inline count_member(completed)
{
	atomic {
		TOUCH;
		if
		:: !signaled ->
			assert(missing > enough);
			missing--;
			if
			:: missing <= enough ->
				signaled = true;
				signals++;
				drained = (BUG == 1 && !callback);
				completed = true
			:: else -> skip
			fi
		:: else -> skip
		fi
	}
}

inline clear_place(x)
{
	atomic { TOUCH; assert(m[x].place); m[x].place = false }
}

/* put_for_node(). The member is locked. */
inline put_for_node(x)
{
	do
	:: done -> break
	:: !done ->
		atomic { TOUCH_M(x); old = m[x].count; assert(old > 0) };
		atomic {
			TOUCH_M(x);
			if
			:: old == 1 && BUG != 2 -> assert(!m[x].dead); m[x].dead = true; done = true
			:: old == 1 && BUG == 2 -> m[x].count = 0; end_member(x); done = true
			:: old > 1 && m[x].count == old -> m[x].count--; done = true
			:: else -> skip
			fi
		}
	od;
	atomic { old = 0; done = false }
}

/* container_settle(), container_end(): takes back what still waits. */
inline release_member(x, self)
{
	if
	:: BUG != 5 -> section_begin(self)
	:: else -> skip
	fi;
	atomic { TOUCH; had = m[x].place };
	if
	:: had && BUG != 3 ->
		lock_member(x);
		atomic {
			TOUCH_M(x);
			mine = (m[x].node == queued);
			if
			:: mine -> m[x].node = removed
			:: else -> skip
			fi;
			m[x].lock = false
		}
	:: had && BUG == 3 ->
		atomic {
			TOUCH_M(x);
			mine = (m[x].node == queued);
			if
			:: mine -> m[x].node = removed
			:: else -> skip
			fi
		}
	:: else -> skip
	fi;
	section_end(self);
	if
	:: mine ->
		clear_place(x);
		put_member(x)
	:: else -> skip
	fi;
	atomic { had = false; mine = false }
}

/* Dispatches the container, which its caller has signaled. */
inline dispatch(self, give, inner)
{
	/* The first phase: settle. */
	atomic { TOUCH; assert(signaled); had = (missing > 0 && BUG != 7) };
	if
	:: had ->
		release_member(0, self);
		release_member(1, self)
	:: else -> skip
	fi;
	assert(m[0].node != queued && m[1].node != queued);
	/* The second: the callback, claimed under the lock. */
	atomic {
		TOUCH;
		if
		:: callback -> callback = false; running = true
		:: else -> skip
		fi
	};
	if
	:: running ->
		runs++;
		if
		:: leaves_put -> put_container(self, inner)
		:: else -> skip
		fi;
		atomic { TOUCH; running = false }
	:: else -> skip
	fi;
	atomic {
		TOUCH;
		assert(!drained || BUG == 1);
		drained = true;
		give = dead;
		dead = false
	};
	if
	:: give -> put_container(self, inner)
	:: else -> skip
	fi;
	give = false
}

/* lf_fence_put() of the container, but for a pending one with a callback on it: then @awaited is set, and the reference still there. */
inline put_container(self, awaited)
{
	done = false;
	awaited = false;
	do
	:: done -> break
	:: !done ->
		atomic { TOUCH; old = count; assert(old > 0) };
		if
		:: old > 1 ->
			atomic {
				TOUCH;
				if
				:: count == old -> count--; done = true
				:: else -> skip
				fi
			}
		:: old == 1 ->
			atomic {
				TOUCH;
				if
				:: signaled && !drained -> assert(!dead); dead = true; done = true
				:: !(signaled && !drained) && count == 1 && !signaled && callback -> awaited = true; done = true
				:: !(signaled && !drained) && count == 1 && (signaled || !callback) ->
					count = 0;
					/* A pending one completes with -ECANCELED. */
					signaled = true;
					drained = true
				:: else -> skip
				fi
			};
			if
			:: count == 0 && !done ->
				release_member(0, self);
				release_member(1, self);
				atomic { TOUCH; freed = true; done = true }
			:: else -> skip
			fi
		fi
	od;
	atomic { old = 0; done = false }
}

/* Gives a member's lock back in between, as for its other nodes: once is enough for all others to come in. Of one member, to keep it small. */
inline pause(x)
{
	if
	:: x == 0 ->
		atomic { TOUCH_M(x); m[x].lock = false };
		lock_member(x)
	:: else -> skip
	fi
}

proctype signaler(byte i)
{
	bool completed, give, had, mine, done, inner;
	byte old;

	lock_member(i);
	m[i].signaled = true;
	pause(i);
	if
	:: m[i].node == queued ->
		m[i].node = claimed;
		if
		:: BUG == 4 -> clear_place(i)
		:: else -> skip
		fi;
		count_member(completed);
		if
		:: BUG != 4 -> clear_place(i)
		:: else -> skip
		fi;
		if
		:: completed -> atomic { TOUCH; assert(!listed); listed = true }
		:: else -> skip
		fi;
		put_for_node(i)
	:: else -> skip
	fi;
	pause(i);
	atomic {
		TOUCH_M(i);
		m[i].drained = true;
		give = m[i].dead;
		m[i].dead = false;
		m[i].lock = false
	};
	if
	:: give -> put_member(i)
	:: else -> skip
	fi;
	give = false;
	if
	:: completed ->
		atomic { TOUCH; listed = false };
		dispatch(i, give, inner)
	:: else -> skip
	fi;
	if
	:: i == 1 || !HOLDER -> put_member(i)
	:: else -> skip
	fi
}

/* Who signals member 0 has no reference on it, as with a container that is a member: somebody else puts that meanwhile. */
proctype holder()
{
	bool done;
	byte old;

	(m[0].signaled);
	put_member(0)
}

proctype consumer()
{
	bool give, had, mine, done, awaited, completed, inner;
	byte old;

	if
	:: true -> skip
	:: true ->
		leaves_put = true;
		goto add
	:: true ->
add:		atomic {
			TOUCH;
			if
			:: signaled -> refused = true; leaves_put = false
			:: else -> callback = true; accepted = true
			fi
		}
	fi;
	if
	:: accepted && leaves_put -> goto out /* the reference is the callback's: whoever signals it has the members' */
	:: accepted && !leaves_put ->
		if
		:: true ->
			atomic {
				TOUCH;
				if
				:: callback -> callback = false; taken_back = true
				:: else -> skip
				fi
			}
		:: true -> skip /* leaves it on: misuse, if it is pending and this is the last put */
		fi
	:: else -> skip
	fi;
	put_container(2, awaited);
	if
	:: awaited ->
		/* put_awaited() */
		atomic {
			TOUCH;
			if
			:: !signaled ->
				signaled = true;
				signals++;
				completed = true
			:: else -> skip
			fi
		};
		if
		:: completed -> dispatch(2, give, inner)
		:: else -> skip
		fi;
		put_container(2, awaited);
		assert(!awaited)
	:: else -> skip
	fi;
out:	skip
}

proctype reader()
{
	bool had, mine, done, awaited, got, give, inner, completed;
	byte old, i;

	section_begin(3);
	do
	:: atomic { TOUCH; had = m[i].place };
		if
		:: !had -> break
		:: had ->
			atomic {
				TOUCH_M(i);
				if
				:: m[i].count > 0 || BUG == 6 -> m[i].count++; got = true; break
				:: else -> skip
				fi
			}
		fi
	od;
	section_end(3);
	had = false;
	if
	:: got ->
		assert(!m[i].ended);
		put_member(i)
	:: else -> skip
	fi;
	i = 0;
	put_container(3, awaited);
	if
	:: awaited ->
		atomic {
			TOUCH;
			if
			:: !signaled ->
				signaled = true;
				signals++;
				completed = true
			:: else -> skip
			fi
		};
		if
		:: completed -> dispatch(3, give, inner)
		:: else -> skip
		fi;
		put_container(3, awaited)
	:: else -> skip
	fi
}

init
{
	byte i;

	atomic {
		if
		:: enough = 0
		:: enough = 1
		fi;
		for (i : 0 .. 1) {
			m[i].place = true;
			m[i].count = 2;
			m[i].node = queued
		};
		run signaler(0);
		run signaler(1);
		run consumer();
#if HOLDER
		run holder();
#endif
#if READER
		run reader();
#endif
		skip
	};
	(_nr_pr == 1);
	assert(freed);
	assert(m[0].ended && m[1].ended);
	assert(signals <= 1);
	assert(!refused || runs == 0);
	assert(!accepted || (taken_back && runs == 0) || (!taken_back && runs == 1))
}
