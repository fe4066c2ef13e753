/* SPDX-License-Identifier: MIT */
/*
 * A model of a VM's versions for the spin model checker: what a reader sees is one version, whatever commits and closes do meanwhile.
 *
 * What is modelled: two buffers with a mapping each; a committer, whose first commit changes something else and whose second one reaps what
 * it finds closed at its begin; a closer, which closes both buffers; a holder, which takes what version_hold() takes. A reader takes a
 * view, asks for both mappings, in any order with all that goes on, and asks again. Each store and load is a step; what is done under the
 * VM's spinlock excludes only others under it.
 *
 * Checked: at the end, when it is known what version n was:
 * - the reader's root is the root of the reader's version (VV1);
 * - each of its answers is what was true in its version, the second time like the first (VV2, VV3);
 * - what the holder took is a version, too.
 *
 * Not modelled: weak memory (see docs/ORDERING.md), memory itself.
 *
 * To run (400,000 states, a second):
 *
 *     spin -a src/gpuvm/version.pml && cc -O2 -DSAFETY -o pan pan.c && ./pan -m10000
 *
 * Each deliberate bug must be found: `spin -DBUG=1 -a src/gpuvm/version.pml`, then as above. tools/check-models does all of this.
 *
 * | BUG | what is wrong                                                        |
 * |-----|----------------------------------------------------------------------|
 * | 1   | the reader loads the root before the version                          |
 * | 2   | a commit stores the version before the root                           |
 * | 3   | a close stores dead_from after the version                            |
 * | 4   | the reader takes the version that it loaded, not the greater one      |
 * | 5   | a root is clean although something closed was not reaped              |
 * | 6   | a commit whose root is clean was decided before the lock was taken    |
 */
#ifndef BUG
#define BUG 0
#endif

#define NEVER 100
#define VERSIONS 8

byte version;			/* vm->version */
byte root;			/* vm->root, named by its birth */
byte last_close;
byte dead[2] = { NEVER, NEVER };
bool spin;

/* What is known of each root when it is published, and of each version at the end. */
bool has[VERSIONS * 2];		/* has[birth * 2 + i]: mapping i is in the tree */
bool clean[VERSIONS];
byte root_of[VERSIONS];

bool unreaped[2];		/* vm->closed */
byte running = 4;

#define lock()   atomic { !spin; spin = true }
#define unlock() spin = false

proctype committer()
{
	byte n, v, i;
	bool keep[2], early;

	for (n : 0 .. 1) {
		/* The transaction: what is closed by now is reaped by the second one. */
		atomic {
			for (i : 0 .. 1) {
				keep[i] = has[root * 2 + i] && !(n == 1 && unreaped[i])
			}
			early = !unreaped[0] && !unreaped[1]
		}
		lock();
		v = version + 1;
		d_step {
			for (i : 0 .. 1) {
				if
				:: !keep[i] -> unreaped[i] = false
				:: else
				fi;
				has[v * 2 + i] = keep[i]
			}
			clean[v] = !unreaped[0] && !unreaped[1];
#if BUG == 5
			clean[v] = true;
#elif BUG == 6
			clean[v] = early;
#endif
			root_of[v] = v
		}
#if BUG == 2
		version = v;
		root = v;
#else
		root = v;
		version = v;
#endif
		unlock()
	}
	running--
}

proctype closer()
{
	byte i, v;

	for (i : 0 .. 1) {
		lock();
		v = version + 1;
		d_step {
			root_of[v] = root;
			unreaped[i] = true
		}
#if BUG == 3
		last_close = v;
		version = v;
		dead[i] = v;
#else
		dead[i] = v;
		last_close = v;
		version = v;
#endif
		unlock()
	}
	running--
}

/* What a view is, and what it shows. */
#define shows(i, answer)										\
	answer = has[b * 2 + i];									\
	if												\
	:: answer && !clean[b] -> answer = dead[i] > view						\
	:: answer && clean[b] ->									\
		if											\
		:: last_close > b -> answer = dead[i] > view						\
		:: else											\
		fi											\
	:: else												\
	fi

proctype reader()
{
	byte v, b, view;
	bool first[2], again[2];

#if BUG == 1
	b = root;
	v = version;
#else
	v = version;
	b = root;
#endif
#if BUG == 4
	view = v;
#else
	view = (v > b -> v : b);
#endif
	shows(0, first[0]);
	shows(1, first[1]);
	shows(1, again[1]);
	shows(0, again[0]);
	running--;
	running == 0;
	d_step {
		assert(root_of[view] == b);
		assert(first[0] == (has[b * 2 + 0] && dead[0] > view));
		assert(first[1] == (has[b * 2 + 1] && dead[1] > view));
		assert(again[0] == first[0] && again[1] == first[1])
	}
}

proctype holder()
{
	byte v, b;

	lock();
	b = root;
	v = version;
	unlock();
	running--;
	running == 0;
	assert(root_of[v] == b)
}

init {
	has[0] = true;
	has[1] = true;
	clean[0] = true;
	atomic {
		run committer();
		run closer();
		run reader();
		run holder()
	}
}
