/* SPDX-License-Identifier: MIT */
/* The explorer's inside, for engine.c (who runs), memory.c (what is seen) and main.c (the command). */
#ifndef EXPLORE_ENGINE_H
#define EXPLORE_ENGINE_H

#include <setjmp.h>
#include <ucontext.h>

#include "base/port.h"
#include "explore.h"

/* The explorer's own memory is nobody's business. */
#undef memcpy
#undef memmove
#undef memset

enum {
	MAX_FIBERS = 8, /* the main one, four of the scenario, and what the library starts */
	MAX_DECISIONS = 4096,
	MAX_EVENTS = 8192,
	MAX_STEPS = 60000, /* an execution that takes more has no end */
	STACK_SIZE = 128 * 1024,
	HEAP_SIZE = 512 * 1024, /* of each thread */
	LOCAL_SIZE = 4096,
	FIBER_SIZE = LOCAL_SIZE + STACK_SIZE + HEAP_SIZE,
	KEYS = 4,
	LOOKS = 8, /* addresses that a fiber which spins is taken to look at */
};

/* How much of each thread's past another one has seen (a vector clock). */
struct clock {
	uint16_t of[MAX_FIBERS];
};

static inline void clock_join(struct clock *to, const struct clock *from)
{
	for (int i = 0; i < MAX_FIBERS; i++)
		to->of[i] = to->of[i] < from->of[i] ? from->of[i] : to->of[i];
}

enum fiber_state {
	FIBER_UNUSED,
	FIBER_READY,
	FIBER_GATE, /* has done its prologue, and waits for the others */
	FIBER_SPINS, /* looked, and looks again when another one has written */
	FIBER_PARKED,
	FIBER_MUTEX,
	FIBER_JOINS, /* until fiber on_fiber is done */
	FIBER_SYNCHRONIZES, /* until the sections that were open have ended */
	FIBER_RETURNED, /* its function has; its destructors come when all have */
	FIBER_DONE,
};

/* What the main fiber waits for: that all threads of the scenario have come there. */
enum join { JOIN_GATE = -1, JOIN_RETURNED = -2, JOIN_DONE = -3 };

struct fiber {
	jmp_buf context;
	enum fiber_state state;
	bool daemon; /* runs as soon as it can, and unseen */
	void *(*fn)(void *);
	void *arg;
	const void *on; /* what it is parked on, or the mutex that it waits for */
	int on_fiber; /* FIBER_JOINS: or one of enum join */
	int64_t deadline; /* while parked */
	const void *looked_at[LOOKS]; /* the last addresses that it used */
	unsigned looks; /* how many, modulo */
	bool woken; /* FIBER_SPINS: one of these was written since */
	bool tried; /* FIBER_SPINS: ran in vain, since nobody else could, and nothing was written since */
	bool stale; /* has read an old value since it last spun */
	unsigned nesting; /* of read sections */
	uint32_t readers; /* FIBER_SYNCHRONIZES: whose sections it waits for */
	struct clock clock;
	struct clock sections; /* FIBER_SYNCHRONIZES: what those sections have seen */
	void *keys[KEYS];
	unsigned char *stack, *heap, *local;
	size_t heap_used;
};

enum decision_kind { DECIDE_THREAD = '>', DECIDE_TIMEOUT = '!', DECIDE_VALUE = '~' };

struct choice {
	char kind; /* enum decision_kind */
	uint8_t value; /* a fiber, or how old a value */
};

/* Where there was a choice. */
struct decision {
	uint32_t step;
	uint8_t count, chosen;
	struct choice options[2 * MAX_FIBERS];
};

/* One that is followed from a string. */
struct followed {
	uint32_t step;
	struct choice option;
};

/* What was done, for the trace. */
struct event {
	uint32_t step;
	uint8_t fiber, size;
	uint8_t order; /* of an atomic one */
	const char *what;
	const void *addr, *site;
	uint64_t value;
};

enum phase { PHASE_SETUP, PHASE_EXPLORE, PHASE_FINISH };
enum mode { MODE_SEARCH, MODE_RANDOM, MODE_REPLAY };

struct block {
	unsigned char *addr;
	size_t size;
	uint8_t fiber;
	bool freed;
	const void *made_at;
};

/* All that is the explorer's own. Lies apart from the program's data, which goes back to its start with each execution. */
struct engine {
	const struct explore_scenario *scenario;
	enum mode mode;
	unsigned bound; /* deviations that a schedule may have */

	/* Of the search. */
	struct decision decisions[MAX_DECISIONS];
	size_t fixed; /* how many of them this execution follows */
	uint32_t searched; /* executions since the search began anew */
	bool grew; /* a place to switch at was found that earlier executions did not know */
	uint64_t random;
	struct followed replay[MAX_DECISIONS];
	size_t replay_count, replayed;
	ucontext_t maker; /* who makes a fiber's context */

	/* Of this execution. */
	uint32_t execution; /* its number, from 1 */
	size_t depth; /* decisions so far */
	unsigned deviations;
	uint32_t step;
	int64_t time, daemon_time;
	enum phase phase;
	struct fiber fibers[MAX_FIBERS];
	int fiber_count, current, daemon, daemon_caller; /* daemon: which fiber it is, or 0 */
	jmp_buf base;
	bool arrived; /* the current fiber was switched to, and has done nothing at a place since */
	struct clock sections_see; /* what sections that begin now see: what came before each grace period */
	struct clock sections_ended; /* what those have seen that have ended */
	void (*destructors[KEYS])(void *);
	unsigned logged;
	struct event events[MAX_EVENTS];
	size_t event_count;
};

extern struct engine *ex;

static inline struct fiber *fiber_now(void)
{
	return &ex->fibers[ex->current];
}

/* --- engine.c ------------------------------------------------------------------------------------------------------------ */

/* Sets up the explorer for one scenario. */
void explorer_init(const struct explore_scenario *scenario);

/* A step: another thread may come in between, before something is done to @id. */
void explorer_point(const void *id, bool writes);

/* Something was written to @id, which others may spin on. */
void explorer_wrote(const void *id);

/* Which of @count values a load returns: 0 is the newest, each other costs a deviation. */
unsigned explorer_choose_value(unsigned count);

/* Notes what was done, for the trace. */
void explorer_event(const char *what, const void *addr, unsigned size, int order, uint64_t value, const void *site);

/* Runs the scenario once. */
void explorer_execute(void);

/* Prepares the next execution of the search. Returns false when there is none. */
bool explorer_next(void);

/* Forgets the search, but not which addresses are shared. */
void explorer_restart(void);

/* How many addresses are shared. */
unsigned explorer_places(void);

/* --- memory.c ------------------------------------------------------------------------------------------------------------ */

/* Zeroed memory that is the explorer's own; ends the process when there is none. */
void *memory_get(size_t size);

/* @memory is that of all fibers. What the program's data is now, it is at the start of each execution. */
void memory_init(unsigned char *memory, size_t size);
void memory_keep_data(void);
void memory_begin(void);
void memory_check_leaks(void);
void *memory_alloc(void *user, size_t size, size_t align);
void memory_free(void *user, void *ptr);

/* This fiber has seen what @seen has; and the other way round. */
void memory_acquire(const struct clock *seen);
void memory_release(struct clock *seen);

/* Names an address for people. */
void memory_name(const void *addr, char *buf, size_t size);

/* --- main.c -------------------------------------------------------------------------------------------------------------- */

/* Prints what went wrong, the schedule of this execution in the form that --replay takes, and its trace; ends the process. */
_Noreturn void report_failure(const char *message);

#endif /* EXPLORE_ENGINE_H */
