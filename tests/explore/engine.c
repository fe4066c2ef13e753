/* SPDX-License-Identifier: MIT */
/*
 * The explorer: who runs when, and the search over that.
 *
 * Purpose: run a scenario under every schedule that deviates from the straight one in at most @bound places, over the real sources of the
 * library: each atomic operation, lock, sleep, section and grace period of its port comes here. The threads of a scenario are fibers on
 * one thread of the system, so an execution is what its decisions make it, and a schedule can be repeated from the list of them.
 *
 * Steps: every operation of the port is one. Before a step another fiber may be switched to; that is a deviation, and so is a sleep that ends
 * by its deadline or for no reason while others can run, and a load that returns an old value (memory.c). When a fiber sleeps or ends, which
 * one goes on is a choice, too, but no deviation. (Musuvathi and Qadeer, "Iterative context bounding for systematic testing of multithreaded
 * programs", PLDI 2007.)
 *
 * Places: a step on an address that one fiber alone uses, or that nobody writes, commutes with all steps of the others, so there no switch is
 * tried. Which addresses are shared is learned: executions with random switches come first, and a search that meets a shared address which
 * it did not know begins anew. So when a search has ended, none of its executions had a conflict at an address that was no place.
 *
 * Invariants:
 * X1. When an execution begins, the program's data, heaps and locals are the same, byte by byte: it depends on its decisions only.
 * X2. A daemon runs at once when it can, until it sleeps, and its steps are no places.
 * X3. A fiber that spins runs again when one of the last LOOKS addresses that it used was written since, when it has read an old value, or when
 *     nobody else can run: then each that spins runs once before one does twice, so that in no execution they keep each other from going on.
 *
 * Grace periods: one begins when it is asked for, and ends with the last section that was open then. What came before its beginning is seen
 * by all sections that begin after it; what was done in sections that had begun before it is seen behind its end. RCU promises that much
 * and no more.
 *
 * What it does not see: what needs more deviations than the bound; loads that return what is stored later (which C11 allows where all is
 * relaxed); stores to one address that others see in another order than they were executed in.
 */
#include "engine.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/park.h"
#include "base/rcu.h"
#include "base/reclaim.h"

struct engine *ex;

/* --- Which addresses are shared -------------------------------------------------------------------------------------------- */

enum { ADDRESSES = 16384 };

/* Kept over all executions: apart from the program's data. */
struct address {
	const void *id;
	uint8_t users, writers; /* a bit a fiber */
	bool shared;
};
static struct address *addresses;
static unsigned *address_counts; /* of addresses, and of those that are shared */

static bool is_daemon(int fiber)
{
	return fiber != 0 && fiber == ex->daemon;
}

static struct address *address_of(const void *id)
{
	size_t i = ((uintptr_t)id >> 2) * UINT64_C(0x9e3779b97f4a7c15) >> 50;

	while (addresses[i].id && addresses[i].id != id)
		i = (i + 1) % ADDRESSES;
	if (!addresses[i].id) {
		if (++*address_counts > ADDRESSES / 2)
			explore_fail("the scenario uses more than %d addresses", ADDRESSES / 2);
		addresses[i].id = id;
	}
	return &addresses[i];
}

/* Notes a use. Returns whether the address is shared. */
static bool use_address(const void *id, bool writes)
{
	struct address *a = address_of(id);

	a->users |= (uint8_t)(1u << ex->current);
	if (writes)
		a->writers |= (uint8_t)(1u << ex->current);
	if (!a->shared && a->writers && (a->users & (a->users - 1))) {
		a->shared = true;
		ex->grew = true;
		address_counts[1]++;
	}
	return a->shared;
}

unsigned explorer_places(void)
{
	return address_counts[1];
}

/* --- Fibers -------------------------------------------------------------------------------------------------------------- */

static void switch_to(int to)
{
	struct fiber *from = fiber_now();

	if (from == &ex->fibers[to])
		return;
	ex->current = to;
	if (_setjmp(from->context) == 0)
		_longjmp(ex->fibers[to].context, 1);
}

static bool all_threads_are(enum fiber_state least)
{
	for (int i = 1; i <= EXPLORE_THREADS; i++) {
		if (ex->scenario->threads[i - 1] && ex->fibers[i].state < least)
			return false;
	}
	return true;
}

static bool join_is_over(int on)
{
	switch (on) {
	case JOIN_GATE:
		return all_threads_are(FIBER_GATE);
	case JOIN_RETURNED:
		return all_threads_are(FIBER_RETURNED);
	case JOIN_DONE:
		return all_threads_are(FIBER_DONE);
	default:
		return ex->fibers[on].state == FIBER_DONE;
	}
}

static bool can_run(const struct fiber *f)
{
	switch (f->state) {
	case FIBER_READY:
		return true;
	case FIBER_GATE:
		return ex->phase == PHASE_EXPLORE;
	case FIBER_SPINS:
		return f->woken || f->stale;
	case FIBER_MUTEX:
		return ((const struct port_mutex *)f->on)->owner == 0;
	case FIBER_JOINS:
		return join_is_over(f->on_fiber);
	case FIBER_SYNCHRONIZES:
		return f->readers == 0;
	case FIBER_RETURNED:
		return ex->phase == PHASE_FINISH;
	default:
		return false;
	}
}

/* Lets the daemon do what it can (X2). Its sleeps end at once when they have a deadline. */
static void run_daemon(void)
{
	struct fiber *d = &ex->fibers[ex->daemon];

	if (!ex->daemon || is_daemon(ex->current))
		return;
	for (;;) {
		if (d->state == FIBER_PARKED && d->deadline != LF_DEADLINE_NEVER)
			ex->daemon_time = d->deadline > ex->daemon_time ? d->deadline : ex->daemon_time;
		else if (!can_run(d))
			return;
		d->state = FIBER_READY;
		ex->daemon_caller = ex->current;
		switch_to(ex->daemon);
	}
}

/* --- Choices ------------------------------------------------------------------------------------------------------------- */

static uint64_t random_number(void)
{
	ex->random ^= ex->random << 13;
	ex->random ^= ex->random >> 7;
	ex->random ^= ex->random << 17;
	return ex->random;
}

static bool same_option(struct choice a, struct choice b)
{
	return a.kind == b.kind && a.value == b.value;
}

/* What the string says that is followed, if it speaks of this step; else the first option. */
static unsigned follow(const struct choice *options, unsigned count)
{
	const struct followed *next = &ex->replay[ex->replayed];

	if (ex->replayed == ex->replay_count || next->step != ex->step)
		return 0;
	for (unsigned i = 0; i < count; i++) {
		if (same_option(options[i], next->option)) {
			ex->replayed++;
			return i;
		}
	}
	if ((next->option.kind == DECIDE_VALUE) == (options[0].kind == DECIDE_VALUE))
		explore_fail("the schedule cannot be followed: %u%c%u is not possible", next->step, next->option.kind, next->option.value);
	return 0;
}

/* Chooses one of @count options, of which all but the first @regular are deviations. */
static unsigned choose(const struct choice *options, unsigned count, unsigned regular)
{
	struct decision *d = &ex->decisions[ex->depth];
	unsigned chosen = 0;

	if (count == 1)
		return 0;
	if (ex->depth == MAX_DECISIONS)
		explore_fail("more than %d decisions in an execution", MAX_DECISIONS);
	if (ex->mode == MODE_REPLAY) {
		chosen = follow(options, count);
	} else if (ex->mode == MODE_RANDOM) {
		chosen = regular == 1 && random_number() % 8 ? 0 : (unsigned)(random_number() % count);
	} else if (ex->depth < ex->fixed) {
		chosen = d->chosen;
		if (d->step != ex->step || d->count != count)
			explore_fail("the scenario is not deterministic: step %u was another before", ex->step);
	}
	d->step = ex->step;
	d->count = (uint8_t)count;
	d->chosen = (uint8_t)chosen;
	memcpy(d->options, options, count * sizeof(*options));
	ex->depth++;
	if (chosen >= regular)
		ex->deviations++;
	return chosen;
}

bool explorer_next(void)
{
	if (ex->grew) {
		explorer_restart();
		return true;
	}
	while (ex->depth > 0 && ex->decisions[ex->depth - 1].chosen + 1 >= ex->decisions[ex->depth - 1].count)
		ex->depth--;
	if (ex->depth == 0)
		return false;
	ex->decisions[ex->depth - 1].chosen++;
	ex->fixed = ex->depth;
	return true;
}

void explorer_restart(void)
{
	ex->grew = false;
	ex->fixed = 0;
	ex->searched = 0;
}

static bool may_deviate(void)
{
	return ex->phase == PHASE_EXPLORE && ex->deviations < ex->bound;
}

unsigned explorer_choose_value(unsigned count)
{
	struct choice options[2 * MAX_FIBERS];

	if (count == 1 || !may_deviate() || is_daemon(ex->current))
		return 0;
	if (count > array_size(options))
		count = array_size(options);
	for (unsigned i = 0; i < count; i++)
		options[i] = (struct choice){ DECIDE_VALUE, (uint8_t)i };
	return choose(options, count, 1);
}

/* Adds who can run, but for fiber @but. */
static unsigned add_runnable(struct choice *options, unsigned count, int but, bool (*may)(const struct fiber *f))
{
	for (int i = 0; i < ex->fiber_count; i++) {
		if (i != but && !is_daemon(i) && may(&ex->fibers[i]))
			options[count++] = (struct choice){ DECIDE_THREAD, (uint8_t)i };
	}
	return count;
}

static unsigned add_sleepers(struct choice *options, unsigned count)
{
	for (int i = 0; i < ex->fiber_count; i++) {
		if (ex->fibers[i].state == FIBER_PARKED && !is_daemon(i))
			options[count++] = (struct choice){ DECIDE_TIMEOUT, (uint8_t)i };
	}
	return count;
}

/* The sleeper whose deadline comes first. */
static unsigned add_first_deadline(struct choice *options, unsigned count)
{
	const struct fiber *first = NULL;

	for (int i = 0; i < ex->fiber_count; i++) {
		const struct fiber *f = &ex->fibers[i];

		if (f->state == FIBER_PARKED && f->deadline != LF_DEADLINE_NEVER && !is_daemon(i) &&
		    (!first || f->deadline < first->deadline))
			first = f;
	}
	if (first)
		options[count++] = (struct choice){ DECIDE_TIMEOUT, (uint8_t)(first - ex->fibers) };
	return count;
}

static bool may_try(const struct fiber *f)
{
	return f->state == FIBER_SPINS && !f->tried;
}

/* Adds those who spin, though nothing was written that they look at: a compare-exchange that failed looks again, for one. */
static unsigned add_spinners(struct choice *options)
{
	unsigned count = add_runnable(options, 0, -1, may_try);

	if (count)
		return count;
	for (int i = 0; i < ex->fiber_count; i++)
		ex->fibers[i].tried = false;
	return add_runnable(options, 0, -1, may_try);
}

/* Goes on with another fiber, or, unless this one is blocked, perhaps with the same. */
static void choose_fiber(bool blocked)
{
	struct choice options[2 * MAX_FIBERS];
	unsigned count = 0, regular, chosen;
	struct fiber *f;

	if (blocked) {
		count = add_runnable(options, 0, -1, can_run);
		if (count == 0)
			count = add_spinners(options);
		if (count == 0)
			count = add_first_deadline(options, 0);
		if (count == 0)
			explore_fail("nobody can run: a deadlock, or a lost wake");
	} else {
		options[count++] = (struct choice){ DECIDE_THREAD, (uint8_t)ex->current };
	}
	regular = count;
	if (may_deviate()) {
		if (!blocked)
			count = add_runnable(options, count, ex->current, can_run);
		if (options[0].kind != DECIDE_TIMEOUT)
			count = add_sleepers(options, count);
	}
	chosen = ex->phase == PHASE_EXPLORE ? choose(options, count, regular) : 0;
	f = &ex->fibers[options[chosen].value];
	if (options[chosen].kind == DECIDE_TIMEOUT) {
		if (f->deadline != LF_DEADLINE_NEVER && ex->time < f->deadline)
			ex->time = f->deadline;
		explorer_event("wakes by itself", f->on, 0, 0, options[chosen].value, NULL);
	}
	if (f->state == FIBER_SPINS) {
		f->tried = !can_run(f);
		f->stale = false;
	}
	f->state = FIBER_READY;
	ex->arrived = options[chosen].kind == DECIDE_THREAD && options[chosen].value != ex->current;
	switch_to(options[chosen].value);
}

/* --- Steps --------------------------------------------------------------------------------------------------------------- */

void explorer_event(const char *what, const void *addr, unsigned size, int order, uint64_t value, const void *site)
{
	struct event *e = &ex->events[ex->event_count++ % MAX_EVENTS];

	*e = (struct event){ ex->step, (uint8_t)ex->current, (uint8_t)size, (uint8_t)order, what, addr, site, value };
}

static void count_step(void)
{
	if (++ex->step == MAX_STEPS)
		explore_fail("no end after %d steps", MAX_STEPS);
}

static bool looked_at(const struct fiber *f, const void *id)
{
	for (unsigned i = 0; i < LOOKS; i++) {
		if (f->looked_at[i] == id)
			return true;
	}
	return false;
}

void explorer_wrote(const void *id)
{
	for (int i = 0; i < ex->fiber_count; i++) {
		struct fiber *f = &ex->fibers[i];

		f->tried = f->tried && is_daemon(ex->current);
		if (f->state == FIBER_SPINS && !f->woken)
			f->woken = looked_at(f, id);
	}
}

void explorer_point(const void *id, bool writes)
{
	struct fiber *f = fiber_now();

	f->looked_at[f->looks++ % LOOKS] = id;
	if (is_daemon(ex->current))
		return;
	count_step();
	run_daemon();
	if (ex->phase != PHASE_EXPLORE)
		return;
	if (!use_address(id, writes) && ex->mode == MODE_SEARCH)
		return;
	/* To go on with a third one when this one has done nothing yet is to have chosen the third one before. */
	if (!ex->arrived)
		choose_fiber(false);
	ex->arrived = false;
}

/* The fiber cannot go on; its state says why. */
static void block(void)
{
	if (is_daemon(ex->current)) {
		switch_to(ex->daemon_caller);
		return;
	}
	count_step();
	run_daemon();
	choose_fiber(true);
}

void explore_relax(void)
{
	struct fiber *f = fiber_now();

	f->state = FIBER_SPINS;
	f->woken = false;
	block();
}

void explore_yield(void)
{
	fiber_now()->state = FIBER_READY;
	block();
}

unsigned explore_self(void)
{
	return (unsigned)ex->current;
}

unsigned explore_logged(void)
{
	return ex->logged;
}

int64_t explore_clock(void)
{
	return is_daemon(ex->current) ? ++ex->daemon_time : ++ex->time;
}

void explore_fail(const char *format, ...)
{
	char message[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	report_failure(message);
}

/* --- Locks ----------------------------------------------------------------------------------------------------------------- */

_Static_assert(sizeof(((struct port_mutex *)NULL)->seen) == sizeof(struct clock), "a mutex keeps a clock");

void explore_mutex_lock(struct port_mutex *m) LF_NO_THREAD_ANALYSIS
{
	struct fiber *f = fiber_now();

	explorer_point(m, true);
	while (m->owner) {
		f->state = FIBER_MUTEX;
		f->on = m;
		block();
	}
	m->owner = (uint32_t)ex->current + 1;
	memory_acquire((const struct clock *)(const void *)m->seen);
	explorer_event("locks mutex", m, 0, 0, 0, __builtin_return_address(0));
}

void explore_mutex_unlock(struct port_mutex *m) LF_NO_THREAD_ANALYSIS
{
	if (m->owner != (uint32_t)ex->current + 1)
		explore_fail("a mutex is unlocked by who does not have it");
	explorer_event("unlocks mutex", m, 0, 0, 0, __builtin_return_address(0));
	memory_release((struct clock *)(void *)m->seen);
	m->owner = 0;
	explorer_wrote(m);
}

/* --- Sleep --------------------------------------------------------------------------------------------------------------- */

/* What stands for the sleepers of a word, which are not in the word. */
static const void *sleepers_of(const void *word)
{
	return (const char *)word + 1;
}

void park_wait_real(const lf_atomic_u32 *word, uint32_t expected, int64_t until)
{
	struct fiber *f = fiber_now();

	explorer_point(sleepers_of(word), true);
	if (word->value != expected) {
		explorer_event("does not sleep", word, 4, 0, word->value, __builtin_return_address(0));
		return;
	}
	explorer_event("sleeps", word, 4, 0, expected, __builtin_return_address(0));
	f->state = FIBER_PARKED;
	f->on = word;
	f->deadline = until;
	block();
}

void park_wake(const void *word)
{
	explorer_point(sleepers_of(word), true);
	explorer_event("wakes", word, 0, 0, 0, __builtin_return_address(0));
	for (int i = 0; i < ex->fiber_count; i++) {
		if (ex->fibers[i].state == FIBER_PARKED && ex->fibers[i].on == word)
			ex->fibers[i].state = FIBER_READY;
	}
	run_daemon();
}

void park_after_fork_child(void)
{
}

/* --- Read sections and grace periods ---------------------------------------------------------------------------------------- */

void rcu_begin(void) LF_NO_THREAD_ANALYSIS
{
	struct fiber *f = fiber_now();

	explorer_point(&ex->sections_see, false);
	if (f->nesting++ == 0)
		memory_acquire(&ex->sections_see);
	explorer_event("begins a section", NULL, 0, 0, f->nesting, __builtin_return_address(0));
}

void rcu_end(void) LF_NO_THREAD_ANALYSIS
{
	struct fiber *f = fiber_now();
	struct clock seen = { { 0 } };

	explorer_point(&ex->sections_see, false);
	explorer_event("ends a section", NULL, 0, 0, f->nesting, __builtin_return_address(0));
	if (f->nesting == 0)
		explore_fail("a read section is ended that was not begun");
	if (--f->nesting > 0)
		return;
	memory_release(&seen);
	clock_join(&ex->sections_ended, &seen);
	for (int i = 0; i < ex->fiber_count; i++) {
		struct fiber *s = &ex->fibers[i];

		if (s->state != FIBER_SYNCHRONIZES || !(s->readers & 1u << ex->current))
			continue;
		clock_join(&s->sections, &seen);
		s->readers &= ~(1u << ex->current);
	}
	run_daemon();
}

bool rcu_held(void)
{
	return fiber_now()->nesting > 0;
}

void rcu_synchronize(void) LF_NO_THREAD_ANALYSIS
{
	struct fiber *f = fiber_now();

	if (f->nesting)
		explore_fail("a grace period is waited for inside a section");
	explorer_point(&ex->sections_see, true);
	explorer_event("begins a grace period", NULL, 0, 0, 0, __builtin_return_address(0));
	memory_release(&ex->sections_see);
	f->sections = ex->sections_ended;
	f->readers = 0;
	for (int i = 0; i < ex->fiber_count; i++) {
		if (ex->fibers[i].nesting)
			f->readers |= 1u << i;
	}
	f->state = FIBER_SYNCHRONIZES;
	if (f->readers)
		block();
	f->state = FIBER_READY;
	memory_acquire(&f->sections);
	explorer_event("ends a grace period", NULL, 0, 0, 0, __builtin_return_address(0));
}

void rcu_keep_loaded(void)
{
}

void rcu_before_fork(void)
{
}

void rcu_after_fork_parent(void)
{
}

void rcu_after_fork_child(void)
{
}

/* --- Threads ------------------------------------------------------------------------------------------------------------- */

void *explore_local(void *variable)
{
	size_t offset = (size_t)((unsigned char *)__builtin_thread_pointer() - (unsigned char *)variable);

	if (offset > LOCAL_SIZE)
		explore_fail("a thread-local variable is %zu bytes from where they are", offset);
	return fiber_now()->local + LOCAL_SIZE - offset;
}

int port_key_create(port_key *key, void (*destructor)(void *value))
{
	for (*key = 0; *key < KEYS; ++*key) {
		if (!ex->destructors[*key]) {
			ex->destructors[*key] = destructor;
			return 0;
		}
	}
	return EAGAIN;
}

int port_key_set(port_key key, void *value)
{
	fiber_now()->keys[key] = value;
	return 0;
}

int port_key_delete(port_key key)
{
	ex->destructors[key] = NULL;
	return 0;
}

static void run_destructors(struct fiber *f)
{
	for (int i = 0; i < KEYS; i++) {
		void *value = f->keys[i];

		f->keys[i] = NULL;
		if (value && ex->destructors[i])
			ex->destructors[i](value);
	}
}

/* The end of a fiber other than the main one. In a scenario that is not about that, its destructors come when all have returned. */
static void end_thread(struct fiber *f)
{
	bool is_explored = ex->scenario->flags & EXPLORE_RECLAIMER;

	explorer_event("returns", NULL, 0, 0, 0, NULL);
	if (f->nesting)
		explore_fail("a thread ends inside a read section");
	if (!is_explored && !is_daemon(ex->current)) {
		f->state = FIBER_RETURNED;
		block();
	}
	run_destructors(f);
	f->state = FIBER_DONE;
	block();
}

/* Where a fiber lives: one function after the other. */
static void live(void)
{
	if (_setjmp(fiber_now()->context) == 0)
		setcontext(&ex->maker);
	for (;;) {
		struct fiber *f = fiber_now();

		f->fn(f->arg);
		if (f != ex->fibers)
			end_thread(f);
		else if (_setjmp(f->context) == 0)
			_longjmp(ex->base, 1);
	}
}

static void make_fiber(int i, unsigned char *memory)
{
	static ucontext_t context;
	struct fiber *f = &ex->fibers[i];

	f->local = memory;
	f->stack = f->local + LOCAL_SIZE;
	f->heap = f->stack + STACK_SIZE;
	ex->current = i;
	getcontext(&context);
	context.uc_stack.ss_sp = f->stack;
	context.uc_stack.ss_size = STACK_SIZE;
	context.uc_link = NULL;
	makecontext(&context, live, 0);
	swapcontext(&ex->maker, &context);
}

/* Starts a fiber, which sees what this one has seen. */
static void start_fiber(int i, void *(*fn)(void *), void *arg)
{
	struct fiber *f = &ex->fibers[i];

	f->fn = fn;
	f->arg = arg;
	f->state = FIBER_READY;
	memory_release(&f->clock);
	f->clock.of[i] = 1;
}

int port_thread_create(port_thread *thread, const char *name, void *(*fn)(void *), void *arg)
{
	explorer_point(thread, true);
	if (ex->fiber_count == MAX_FIBERS)
		explore_fail("the library starts more than %d threads", MAX_FIBERS - 1 - EXPLORE_THREADS);
	*thread = ex->fiber_count++;
	start_fiber(*thread, fn, arg);
	if (strcmp(name, "lf-reclaim") == 0 && !(ex->scenario->flags & EXPLORE_RECLAIMER))
		ex->daemon = *thread;
	explorer_event("starts a thread", NULL, 0, 0, (uint64_t)*thread, __builtin_return_address(0));
	return 0;
}

static void join(int on)
{
	struct fiber *f = fiber_now();

	while (!join_is_over(on)) {
		f->state = FIBER_JOINS;
		f->on_fiber = on;
		block();
	}
	for (int i = 0; i < ex->fiber_count; i++) {
		if (i == on || (on < 0 && i > 0 && i <= EXPLORE_THREADS))
			memory_acquire(&ex->fibers[i].clock);
	}
}

void explore_thread_join(port_thread thread)
{
	explorer_point(&ex->fibers[thread], false);
	join(thread);
	if (thread == ex->daemon)
		ex->daemon = 0;
}

/* --- One execution ------------------------------------------------------------------------------------------------------- */

/* A thread of the scenario. What is set up once for each thread of the library is set up before the others start. */
static void *thread_main(void *arg)
{
	void (*const *fn)(void) = arg;

	if (!(ex->scenario->flags & EXPLORE_RECLAIMER)) {
		struct lf_deferred *block = lf_alloc(sizeof(*block));

		lf_defer_free(block, block);
	}
	fiber_now()->state = FIBER_GATE;
	block();
	(*fn)();
	return NULL;
}

static void *main_main(void *unused)
{
	const struct explore_scenario *s = ex->scenario;

	(void)unused;
	if (s->setup)
		s->setup();
	for (int i = 0; i < EXPLORE_THREADS && s->threads[i]; i++)
		start_fiber(i + 1, thread_main, (void *)(uintptr_t)&s->threads[i]);
	join(JOIN_GATE);
	ex->phase = PHASE_EXPLORE;
	join(JOIN_RETURNED);
	ex->phase = PHASE_FINISH;
	join(JOIN_DONE);
	if (s->finish)
		s->finish();
	reclaim_fini(); /* as lf_fini() does, but without its look at each tracked object */
	memory_check_leaks();
	return NULL;
}

static void reset_fiber(struct fiber *f)
{
	f->state = FIBER_UNUSED;
	f->nesting = 0;
	f->tried = f->stale = false;
	memset(f->looked_at, 0, sizeof(f->looked_at));
	f->looks = 0;
	f->heap_used = 0;
	f->clock = (struct clock){ { 0 } };
	memset(f->keys, 0, sizeof(f->keys));
	memset(f->local, 0, LOCAL_SIZE);
}

void explorer_execute(void)
{
	ex->execution++;
	ex->searched++;
	ex->depth = 0;
	ex->deviations = 0;
	ex->step = 0;
	ex->time = 1000000;
	ex->daemon_time = 1000000;
	ex->phase = PHASE_SETUP;
	ex->daemon = 0;
	ex->sections_see = ex->sections_ended = (struct clock){ { 0 } };
	memset(ex->destructors, 0, sizeof(ex->destructors));
	ex->logged = 0;
	ex->event_count = 0;
	ex->replayed = 0;
	ex->arrived = false;
	for (int i = 0; i < MAX_FIBERS; i++)
		reset_fiber(&ex->fibers[i]);
	memory_begin();
	ex->fiber_count = 1 + EXPLORE_THREADS;
	ex->current = 0;
	ex->fibers[0].fn = main_main;
	ex->fibers[0].state = FIBER_READY;
	ex->fibers[0].clock.of[0] = 1;
	if (_setjmp(ex->base) == 0)
		_longjmp(ex->fibers[0].context, 1);
	if (ex->mode == MODE_REPLAY && ex->replayed < ex->replay_count)
		explore_fail("the schedule was not followed to its end: nothing is decided at step %u", ex->replay[ex->replayed].step);
}

void explorer_init(const struct explore_scenario *scenario)
{
	unsigned char *memory = memory_get((size_t)MAX_FIBERS * FIBER_SIZE);

	ex = memory_get(sizeof(*ex));
	ex->scenario = scenario;
	ex->random = 88172645463325252u;
	addresses = memory_get(ADDRESSES * sizeof(*addresses));
	address_counts = memory_get(2 * sizeof(*address_counts));
	memory_init(memory, (size_t)MAX_FIBERS * FIBER_SIZE);
	for (int i = 0; i < MAX_FIBERS; i++)
		make_fiber(i, memory + (size_t)i * FIBER_SIZE);
	ex->current = 0;
	ex->fiber_count = 1;
}
