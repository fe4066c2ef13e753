/* SPDX-License-Identifier: MIT */
/* The library as a whole: threads' state, clock, set-up and tear-down, fork. Overview in library.h. */
#include "base/library.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/park.h"
#include "base/rcu.h"
#include "base/reclaim.h"
#include "base/track.h"

__thread struct library_thread library_thread;
bool library_is_poisoned;
lf_atomic_u32 library_is_set_up;
unsigned library_validate;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct port_mutex fork_mutex = PORT_MUTEX_INIT; /* held between lf_before_fork() and its partner: one fork at a time */
static __thread bool fork_bracketed; /* this thread is between the two; of the system's threads, since a fork is theirs */
static struct library_layer *layers; /* appended to by constructors, before threads use them */

static int64_t (*clock_hook)(void *user); /* written while nobody uses the library */
static void *clock_user;

/* --- Clock --------------------------------------------------------------------------------------------------------------- */

int64_t lf_now(void)
{
	if (unlikely(clock_hook != NULL))
		return clock_hook(clock_user);
	return port_clock();
}

void lf_set_clock(int64_t (*now)(void *user), void *user)
{
	clock_hook = now;
	clock_user = user;
}

/*
 * When a sleep must end at the latest, in CLOCK_MONOTONIC: the deadline, or soon where a replaced clock (lf_set_clock()) must be asked
 * again.
 */
static int64_t real_deadline(int64_t deadline)
{
	enum { LOOK_AGAIN = 1000000 };

	if (unlikely(clock_hook != NULL) && deadline != LF_DEADLINE_NEVER)
		return port_clock() + LOOK_AGAIN;
	return deadline;
}

bool park_wait(const lf_atomic_u32 *word, uint32_t expected, int64_t deadline)
{
	if (deadline != LF_DEADLINE_NEVER && lf_now() >= deadline)
		return false;
	park_wait_real(word, expected, real_deadline(deadline));
	return true;
}

/* --- Planted bugs ---------------------------------------------------------------------------------------------------------- */

#ifdef LF_PLANT_ENV
unsigned long plant_number;

__attribute__((constructor(101))) static void read_plant_number(void)
{
	const char *number = getenv("LF_PLANT");

	plant_number = number ? strtoul(number, NULL, 10) : 0;
}
#endif

/* --- Set-up -------------------------------------------------------------------------------------------------------------- */

static void poison_child(void)
{
	if (!fork_bracketed)
		library_is_poisoned = true;
}

/* A variable of the environment that sets flags, and what it may say. */
struct setting {
	const char *variable;
	const char *expected;
	int (*set)(unsigned flags);
	struct {
		const char *word;
		unsigned flags;
	} words[3];
	const char *bad; /* what it says, if it is none of these; told once, outside of pthread_once() */
};

static struct setting settings[] = {
	{
		.variable = "LF_TRACK",
		.expected = "`objects` or `where`",
		.set = lf_track,
		.words = { { "objects", LF_TRACK_OBJECTS }, { "where", LF_TRACK_WHERE } },
	},
	{
		.variable = "LF_VALIDATE",
		.expected = "`nesting`, `waits` or `all`",
		.set = lf_validate,
		.words = { { "nesting", LF_VALIDATE_NESTING }, { "waits", LF_VALIDATE_WAITS },
			{ "all", LF_VALIDATE_NESTING | LF_VALIDATE_WAITS } },
	},
};

static void read_setting(struct setting *s)
{
	const char *says = getenv(s->variable);

	if (!says || !*says)
		return;
	for (size_t i = 0; i < array_size(s->words); i++) {
		if (s->words[i].word && strcmp(says, s->words[i].word) == 0) {
			s->set(s->words[i].flags);
			return;
		}
	}
	s->bad = says;
}

static void set_up(void)
{
	pthread_atfork(NULL, NULL, poison_child);
	rcu_keep_loaded();
	for (size_t i = 0; i < array_size(settings); i++)
		read_setting(&settings[i]);
}

int library_enter_slow(void)
{
	static lf_atomic_u32 told;

	if (library_poisoned())
		return -EOWNERDEAD;
	pthread_once(&once, set_up);
	/* relaxed: who comes first tells; what it tells was written inside pthread_once() */
	if (u32_xchg(&told, 1, memory_order_relaxed) == 0) {
		for (struct setting *s = settings; s < settings + array_size(settings); s++) {
			if (s->bad)
				log_message(LF_LOG_WARNING, "%s=%s: expected %s; it is left out", s->variable, s->bad, s->expected);
		}
	}
	/* order: library-set-up (release): comes after set_up() */
	u32_store(&library_is_set_up, 1, PLANT_ORDER(134, memory_order_relaxed, memory_order_release));
	return 0;
}

int lf_validate(unsigned flags)
{
	if (flags & ~(unsigned)(LF_VALIDATE_NESTING | LF_VALIDATE_WAITS))
		return -EINVAL;
	library_validate = flags;
	return 0;
}

int library_check_wait(const char *function)
{
	const struct library_thread *t = this_thread();

	if (library_poisoned())
		return -EOWNERDEAD;
	if (t->current)
		return misuse(-EDEADLK, "%s: waits, and was called inside a fence callback", function);
	if (t->reclaiming)
		return misuse(-EDEADLK, "%s: waits, and was called inside a deferred call", function);
	if (rcu_held())
		return misuse(-EDEADLK, "%s: waits, and was called inside a read section", function);
	return 0;
}

int library_check_fence_wait(const char *function)
{
	unsigned held = this_thread()->held;
	int ret = library_check_wait(function);

	if (ret == 0 && library_validates(LF_VALIDATE_WAITS) && held)
		log_message(LF_LOG_WARNING, "%s: waits, and this thread holds %u reservations", function, held);
	return ret;
}

void library_add_layer(struct library_layer *layer)
{
	struct library_layer **end = &layers;

	while (*end)
		end = &(*end)->next;
	*end = layer;
}

/* --- Tear-down ----------------------------------------------------------------------------------------------------------- */

int lf_fini(void)
{
	int ret = library_check_wait(__func__);

	if (ret)
		return ret;
	reclaim_fini();
	ret = track_report();
	mem_reset();
	return ret;
}

uint32_t lf_version(void)
{
	return LF_VERSION_MAJOR << 16 | LF_VERSION_MINOR << 8 | LF_VERSION_PATCH;
}

/* --- Fork ---------------------------------------------------------------------------------------------------------------- */

static void layers_after_fork(void) LF_NO_THREAD_ANALYSIS
{
	for (struct library_layer *layer = layers; layer; layer = layer->next)
		layer->after_fork();
	if (!PLANTED(184))
		port_mutex_unlock(&fork_mutex);
}

/* The reclaimer comes to rest first: a deferred call that it is in may need any of the locks. */
static void take_locks(void) LF_NO_THREAD_ANALYSIS
{
	if (!PLANTED(184))
		port_mutex_lock(&fork_mutex);
	reclaim_pause();
	for (struct library_layer *layer = layers; layer; layer = layer->next)
		layer->before_fork();
	track_before_fork();
	reclaim_before_fork();
	rcu_before_fork();
}

int lf_before_fork(void)
{
	int ret = library_check_wait(__func__);

	if (ret)
		return ret;
	if (this_thread()->hooks)
		return misuse(-EDEADLK, "lf_before_fork: called inside a hook");
	if (fork_bracketed)
		return misuse(-EDEADLK, "lf_before_fork: called twice");
	take_locks();
	fork_bracketed = true;
	return 0;
}

void lf_after_fork_parent(void)
{
	if (!fork_bracketed)
		return;
	fork_bracketed = false;
	rcu_after_fork_parent();
	reclaim_after_fork_parent();
	track_after_fork();
	layers_after_fork();
}

void lf_after_fork_child(void)
{
	if (!fork_bracketed)
		return;
	fork_bracketed = false;
	park_after_fork_child();
	rcu_after_fork_child();
	reclaim_after_fork_child();
	track_after_fork();
	layers_after_fork();
}
