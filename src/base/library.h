/* SPDX-License-Identifier: MIT */
/*
 * What belongs to the library as a whole: per-thread state, the clock, set-up, and the state after a fork.
 *
 * There is no lf_init(): library_enter() stands at the head of every call that makes something, and sets up once. lf_fini() ends what runs
 * and frees what is kept: the next deferral starts the reclaimer again, the set-up stays.
 *
 * Fork: a child of a fork that was not bracketed finds locks held by threads that do not exist. An atfork handler marks it as poisoned
 * (it only sets a flag, so it is safe with any allocator), and calls that could block return -EOWNERDEAD instead.
 */
#ifndef LF_BASE_LIBRARY_H
#define LF_BASE_LIBRARY_H

#include "base/port.h"

struct lf_fence;
struct lf_job;
struct lf_provider;
struct lf_queue;
struct reclaim_thread;

/* A hook of a producer that is running on this thread; they nest. */
struct hook_frame {
	struct lf_provider *provider;
	const struct lf_queue *queue; /* whose hook it is, if it is a queue's (queue/queue.c) */
	struct hook_frame *outer;
};

/*
 * All that the library keeps for a thread, in one place because finding thread-local memory costs a call in a shared object. Not
 * here: what is of the system's threads, the fork that one is in (library.c) and its registration with liburcu (rcu.c), and what builds for
 * tests count.
 */
struct library_thread {
	/* Signaled fences whose user callbacks wait for the outermost dispatch, in order, linked by lf_fence.link (fence/dispatch.c). */
	struct lf_fence *pending_head, *pending_tail;
	struct lf_fence *next_head, *next_tail; /* signaled fences whose first phase comes next, linked alike */
	struct lf_fence *dead; /* containers that this thread is about to end, newest first, linked alike (fence/fence.c) */
	bool telling; /* a first phase is below us on the stack, which does the others */
	bool ending; /* this thread is ending a container, and will do the others */
	struct lf_job *dead_jobs, *last_dead_job; /* jobs that this thread is about to free, in order, linked by next (queue/job.c) */
	bool freeing_jobs; /* this thread is freeing a job, and will do the others */
	unsigned held; /* reservations that it holds, while LF_VALIDATE_WAITS looks */
	const void *ticket; /* a ticket of this thread that holds something, most likely the last one, or NULL; compared, not followed */
	struct lf_fence *current; /* whose user callback this thread is inside, or NULL */
	bool dispatching; /* a dispatch loop is below us on the stack */
	bool reclaiming; /* this thread is the reclaimer, or does its work */
	bool gone; /* the thread's destructors ran; it may still call */
	struct hook_frame *hooks; /* innermost first */
	struct reclaim_thread *reclaim; /* what this thread deferred (base/reclaim.c) */
	unsigned reclaim_generation; /* of that pointer */
	unsigned in_bo; /* calls below us on the stack in which no release hook of a buffer runs (bo/place.c) */
};

extern __thread LF_INTERNAL struct library_thread library_thread;

/* This thread's state. Opaque to the compiler, which would else look it up again for each use. */
static inline struct library_thread *this_thread(void)
{
	struct library_thread *t = PORT_THREAD_LOCAL(library_thread);

	__asm__("" : "+r"(t));
	return t;
}

/* Whether this process is the child of a fork that was not bracketed. Written by the child before it has a second thread. */
extern LF_INTERNAL bool library_is_poisoned;

static inline bool library_poisoned(void)
{
	return unlikely(library_is_poisoned);
}

/* Sets up on first use. Returns 0 or -EOWNERDEAD. */
int library_enter_slow(void);

/* Whether that was done; never undone. */
extern LF_INTERNAL lf_atomic_u32 library_is_set_up;

static inline int library_enter(void)
{
	/* order: library-set-up (acquire): what set_up() wrote is seen */
	if (likely(u32_load(&library_is_set_up, PLANT_ORDER(135, memory_order_relaxed, memory_order_acquire))) && !library_poisoned())
		return 0;
	return library_enter_slow();
}

/* What lf_validate() was told. */
extern LF_INTERNAL unsigned library_validate;

static inline bool library_validates(unsigned flag)
{
	return unlikely(library_validate & flag);
}

/*
 * Whether this thread may wait: reports and returns -EDEADLK inside a callback, a read section or a deferred call; -EOWNERDEAD in a
 * poisoned child.
 */
int library_check_wait(const char *function);

/* The same for one that is about to wait for a fence: LF_VALIDATE_WAITS looks here. */
int library_check_fence_wait(const char *function);

/* Hooks of user code run between these; see struct hook_frame. */
static inline void hook_enter(struct hook_frame *frame, struct lf_provider *provider)
{
	struct library_thread *t = this_thread();

	frame->provider = provider;
	frame->queue = NULL;
	frame->outer = t->hooks;
	t->hooks = frame;
}

static inline void hook_leave(struct hook_frame *frame)
{
	this_thread()->hooks = frame->outer;
}

/* The global locks of higher layers, which a fork must find free. Registered by constructors, so before there are threads that use them. */
struct library_layer {
	void (*before_fork)(void); /* takes the layer's global locks */
	void (*after_fork)(void); /* gives them back, in parent and child */
	struct library_layer *next;
};
void library_add_layer(struct library_layer *layer);

#endif /* LF_BASE_LIBRARY_H */
