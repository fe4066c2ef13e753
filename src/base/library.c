/* SPDX-License-Identifier: MIT */
/* The library as a whole: threads' state, clock, set-up and tear-down, fork. Overview in library.h. */
#include "base/library.h"

#include <signal.h>
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

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct port_mutex fork_mutex = PORT_MUTEX_INIT; /* held between lf_before_fork() and its partner: one fork at a time */
static __thread bool fork_bracketed; /* this thread is between the two */
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

int64_t park_real_deadline(int64_t deadline)
{
	enum { LOOK_AGAIN = 1000000 };

	if (unlikely(clock_hook != NULL) && deadline != LF_DEADLINE_NEVER)
		return port_clock() + LOOK_AGAIN;
	return deadline;
}

/* --- Threads ------------------------------------------------------------------------------------------------------------- */

int port_thread_create(port_thread *thread, const char *name, void *(*fn)(void *), void *arg)
{
	sigset_t all, before;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	ret = pthread_create(thread, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (ret == 0)
		pthread_setname_np(*thread, name);
	return -ret;
}

/* --- Set-up -------------------------------------------------------------------------------------------------------------- */

static void poison_child(void)
{
	if (!fork_bracketed)
		library_is_poisoned = true;
}

static const char *bad_track; /* what LF_TRACK says, if it is neither; told once, outside of pthread_once() */

static void set_up(void)
{
	const char *track = getenv("LF_TRACK");

	pthread_atfork(NULL, NULL, poison_child);
	if (!track)
		return;
	if (strcmp(track, "objects") == 0)
		lf_track(LF_TRACK_OBJECTS);
	else if (strcmp(track, "where") == 0)
		lf_track(LF_TRACK_WHERE);
	else
		bad_track = track;
}

int library_enter_slow(void)
{
	static lf_atomic_u32 told;

	if (library_poisoned())
		return -EOWNERDEAD;
	pthread_once(&once, set_up);
	/* relaxed: who comes first tells; what it tells was written inside pthread_once() */
	if (bad_track && u32_xchg(&told, 1, memory_order_relaxed) == 0)
		log_message(LF_LOG_WARNING, "LF_TRACK=%s: expected `objects` or `where`; nothing is tracked", bad_track);
	u32_store(&library_is_set_up, 1, memory_order_release); /* order: library-set-up (release): comes after set_up() */
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
	port_mutex_unlock(&fork_mutex);
}

/* The reclaimer comes to rest first: a deferred call that it is in may need any of the locks. */
static void take_locks(void) LF_NO_THREAD_ANALYSIS
{
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
