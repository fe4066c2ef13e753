/* SPDX-License-Identifier: MIT */
/*
 * The explorer of interleavings: what a scenario is.
 *
 * A scenario is a handful of calls of the library in two to four threads, and what must be true of them. The explorer runs it again and
 * again, each time with other threads' steps in between, until it has seen every schedule that differs from the straight one in at most so
 * many places (the bound). engine.c says how, and what it does not see.
 *
 * How to write one: statics of the file are as they were at the start of the program in each execution. setup() makes the objects, alone;
 * the threads run; finish() looks at the result and puts everything, alone again. Then nothing may be left: no block, no open section. What
 * is read and written without atomics is checked for races, so a plain variable that one thread writes before it publishes and another
 * reads behind that is the way to test an order.
 *
 * The oracle is CHECK() beside what every execution is checked for: data races, use of memory that was freed or never allocated, double
 * frees, leaks, deadlocks and lost wakes, endless loops, and anything that the library logs.
 */
#ifndef EXPLORE_H
#define EXPLORE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libfence/libfence.h>

enum { EXPLORE_THREADS = 4 };

enum explore_flags {
	/*
	 * The reclaimer is a thread like the others. Without, it does all that it can at once, as soon as it can, and its steps are no places
	 * to switch at: then memory is freed as early as is legal.
	 */
	EXPLORE_RECLAIMER = 1,
	EXPLORE_MAY_LOG = 2, /* what the library logs is the scenario's to judge */
	EXPLORE_FAILS = 4, /* a scenario of the self-test: an error must be found */
};

struct explore_scenario {
	const char *group, *name;
	const char *oracle; /* what must be true, in a sentence */
	void (*setup)(void);
	void (*threads[EXPLORE_THREADS])(void);
	void (*finish)(void);
	unsigned flags;
	unsigned bound; /* deviations in the gate; 0 is 3 */
	unsigned schedules; /* how many there must be, where that is known; 0 is any number */
};

/* The scenarios of a file, entered by a constructor: a table of struct explore_scenario. */
#define EXPLORE_SCENARIOS(table)													\
	__attribute__((constructor)) static void enter_scenarios(void)									\
	{																\
		for (size_t i = 0; i < sizeof(table) / sizeof((table)[0]); i++)								\
			explore_enter(&(table)[i]);											\
	}																\
	_Static_assert(sizeof(table) > 0, "")

void explore_enter(const struct explore_scenario *scenario);

/* What must be true, in any thread. */
#define CHECK(condition) ((condition) ? (void)0 : explore_fail("not true: %s (%s:%d)", #condition, __FILE__, __LINE__))

/* Ends the search: an error was found. */
_Noreturn void explore_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Which thread this is: 1 for threads[0], and so on; 0 in setup() and finish(). */
unsigned explore_self(void);

/* How many messages the library logged in this execution (EXPLORE_MAY_LOG). */
unsigned explore_logged(void);

/* Gives the turn away, as a thread does that has something else to do: others may run, and go on doing so. */
void explore_yield(void);

#endif /* EXPLORE_H */
