/* SPDX-License-Identifier: MIT */
/*
 * The stubbed hardware queue: its life, who drives its engine, and how it ends.
 *
 * Purpose: an in-order engine that runs jobs and fails like hardware where it is told to. What it does is in engine.c, jobs and what they
 * wait for in job.c, virtual time in vclock.c.
 *
 * States of a job in its queue (enum job_stage; the ring is the engine's):
 *
 *     WAITING --admit()--> RING --engine_run()--> RUNNING --engine_complete()--> COMPLETED --finish()--> retired
 *                           ^------reset()----------/  \------reset(), close------/
 *
 * | stage     | where       | credits held | fences                                         |
 * |-----------|-------------|--------------|------------------------------------------------|
 * | WAITING   | q->waiting  | no           | pending                                        |
 * | RING      | q->ring     | yes          | pending (scheduled is done after a retry)      |
 * | RUNNING   | q->running  | yes          | scheduled done                                 |
 * | COMPLETED | q->ring     | yes          | nobody was told: memory holds it, or soon will |
 * A loss and a close take jobs from WAITING straight to COMPLETED.
 *
 * States of a queue: open; *lost* (sticky: what is pushed completes with its error); *closing* (nothing is pushed or started any more);
 * *over*: closing, nothing unfinished, nobody drives. A queue that is over calls no hook but release, and none at all when its provider
 * closed it.
 *
 * Invariants:
 * Q1. The jobs of ring and waiting, one after the other, have rising seqnos; whatever leaves, leaves at the head of the ring.
 * Q2. One thread at a time drives the engine (driven). Ring, memory word and faults are its own. A thread queue is driven by its thread
 *     from beginning to end.
 * Q3. Who changes lost, closing or announced under the mutex and finds the engine driven leaves the rest to the driver, who looks again
 *     under the mutex before it gives the engine back. So nothing is left behind.
 * Q4. A fence of a pushed job completes: the engine finishes it, or a loss, or a close, or the drop of the timelines.
 * Q5. ring_credits is the sum over the jobs of the ring that have entered it in order, and at most credits.
 * Q6. A job is finished with its own result, also when one interrupt finishes many.
 * Q7. unfinished counts the jobs that are pushed or being pushed; while it is not 0 the queue is not over.
 * Q8. The provider is told (provider_remove()) once: when the queue was revoked, is over, and every release hook has returned; or when it
 *     is freed.
 *
 * Locking: mutex protects what is marked so; the timelines' mutexes are taken under it (to emit), and nothing is called but counting. The
 * clock's mutex is taken alone. The right to drive is no lock: hooks and callbacks run while it is held, and whoever finds it taken goes
 * on.
 *
 * Ordering: queue-kick, and those of job.c.
 *
 * Lifetime: handles are the users'; count keeps the memory: one for all handles, one a job, one for a call in progress. The thread holds
 * none: it is joined before the memory goes, on the reclaimer when the last reference was put without a close, since a put may not wait
 * (and may be the thread's own). What has been pushed is finished although all handles are gone, as long as something can drive it: a
 * manual queue without handles is closed, and so are the queues of a clock that is put.
 *
 * After a fork the child has no engine thread: the first close or last put there takes the engine over.
 *
 * Not here: hooks are counted nowhere; they run inside a push, or by a driver, or as release hooks, and these are what is counted.
 */
#include "queue/queue.h"

#include <stdio.h>

#include "base/alloc.h"
#include "base/park.h"
#include "base/rcu.h"
#include "base/track.h"

enum { DEFAULT_CREDITS = 16, THREAD_NAME = 16 };
#define DEFAULT_TIMEOUT PORT_NSEC_PER_SEC

static const struct track_kind queue_track_kind = { "queue", offsetof(struct lf_queue, name), NULL };

/* Bit 0 of the kicks. */
enum { SLEEPS = 1, KICK = 2 };

/* --- Hooks --------------------------------------------------------------------------------------------------------------- */

void queue_hook_enter(struct hook_frame *frame, struct lf_queue *q)
{
	hook_enter(frame, q->resource.provider);
	frame->queue = q;
}

static bool inside_hook_of(const struct lf_queue *q)
{
	const struct hook_frame *frame = this_thread()->hooks;

	while (frame && frame->queue != q)
		frame = frame->outer;
	return frame;
}

int queue_check_drive(const char *function)
{
	int ret = library_check_wait(function);

	if (ret)
		return ret;
	if (this_thread()->hooks)
		return misuse(-EDEADLK, "%s: called inside a hook", function);
	return 0;
}

void queue_observe(struct lf_queue *q, enum lf_queue_event_kind kind, struct lf_job *job, int error, int64_t time)
{
	const struct lf_queue_event event = { .kind = kind, .time = time, .job = job, .error = error };
	struct hook_frame frame;

	if (!q->observe)
		return;
	queue_hook_enter(&frame, q);
	q->observe(q->user, &event);
	hook_leave(&frame);
}

int64_t queue_now(struct lf_queue *q)
{
	switch (q->mode) {
	case LF_QUEUE_THREAD:
		break;
	case LF_QUEUE_MANUAL:
		return (int64_t)u64_load(&q->now, memory_order_relaxed); /* relaxed: a time, of itself */
	case LF_QUEUE_VIRTUAL:
		return lf_vclock_now(q->clock);
	}
	return lf_now();
}

/* --- Being over ---------------------------------------------------------------------------------------------------------- */

static bool is_over(const struct lf_queue *q) LF_REQUIRES(&q->mutex)
{
	return q->closing && q->unfinished == 0 && !q->driven;
}

void queue_call_release(struct lf_queue *q, void (*release)(void *data), void *data)
{
	struct hook_frame frame;

	queue_hook_enter(&frame, q);
	release(data);
	hook_leave(&frame);
	port_mutex_lock(&q->mutex);
	q->releasing--;
	port_mutex_unlock(&q->mutex);
}

/* Takes a release hook on that a closing provider must not leave behind, though its job lives on (J4). Returns false when there is none. */
static bool take_abandoned(struct lf_queue *q, void (**ret_release)(void *data), void **ret_data)
{
	struct lf_job *job;

	port_mutex_lock(&q->mutex);
	job = q->revoked && is_over(q) ? q->unreleased : NULL;
	if (job) {
		*ret_release = job->release;
		*ret_data = job->data;
		queue_take_release(q, job);
	}
	port_mutex_unlock(&q->mutex);
	return job;
}

static void release_abandoned(struct lf_queue *q)
{
	void (*release)(void *data);
	void *data;

	while (take_abandoned(q, &release, &data))
		queue_call_release(q, release, data);
}

/* Whether the provider is to be told now (Q8). */
static bool take_registration(struct lf_queue *q, bool freed)
{
	bool take;

	port_mutex_lock(&q->mutex);
	take = q->registered && (freed || (q->revoked && is_over(q) && !q->unreleased && (q->releasing == 0 || PLANTED(48))));
	if (take)
		q->registered = false;
	port_mutex_unlock(&q->mutex);
	return take;
}

void queue_settled(struct lf_queue *q)
{
	bool wake;

	release_abandoned(q);
	if (take_registration(q, false))
		provider_remove(&q->resource);
	port_mutex_lock(&q->mutex);
	wake = q->closers && is_over(q);
	if (wake)
		u32_fetch_add(&q->changes, 1, memory_order_relaxed); /* relaxed: the mutex has the order */
	port_mutex_unlock(&q->mutex);
	if (wake)
		park_wake(&q->changes);
}

/* --- Driving ------------------------------------------------------------------------------------------------------------- */

bool engine_begin(struct lf_queue *q)
{
	bool begun;

	port_mutex_lock(&q->mutex);
	begun = !q->driven || PLANTED(185);
	q->driven = true;
	port_mutex_unlock(&q->mutex);
	return begun;
}

/* Does what a loss or a close asks for, without waiting: time stands still. */
static void settle(struct lf_queue *q)
{
	struct event event;

	while ((event = engine_next(q, queue_now(q))).kind != EVENT_NONE)
		engine_do(q, event.kind, queue_now(q));
}

/* Gives the engine back unless something came meanwhile (Q3). */
static bool try_end(struct lf_queue *q)
{
	bool ended;

	port_mutex_lock(&q->mutex);
	ended = !queue_must_settle(q) || PLANTED(44);
	if (ended)
		q->driven = false;
	port_mutex_unlock(&q->mutex);
	return ended;
}

void engine_end(struct lf_queue *q)
{
	while (!try_end(q))
		settle(q);
	queue_settled(q);
}

/* Takes the engine if there is something that needs nobody's step. */
static bool begin_to_settle(struct lf_queue *q)
{
	bool begun;

	port_mutex_lock(&q->mutex);
	begun = !q->driven && queue_must_settle(q);
	if (begun)
		q->driven = true;
	port_mutex_unlock(&q->mutex);
	return begun;
}

void engine_wake(struct lf_queue *q)
{
	/* order: queue-kick (release): the thread sees what it was woken for */
	if (q->mode == LF_QUEUE_THREAD && (u32_fetch_add(&q->kicks, KICK, PLANT_ORDER(165, memory_order_relaxed, memory_order_release)) & SLEEPS))
		park_wake(&q->kicks);
}

void engine_kick(struct lf_queue *q)
{
	engine_wake(q);
	if (begin_to_settle(q))
		engine_end(q);
}

/* --- The thread ---------------------------------------------------------------------------------------------------------- */

/* Sleeps unless there was a kick since @word was read. */
static void engine_sleep(struct lf_queue *q, uint32_t word, int64_t until)
{
	if (PLANTED(41))
		word = u32_load(&q->kicks, memory_order_relaxed); /* relaxed: a bug */
	/* relaxed: only says that we sleep; what we are woken for is read after the next load */
	if (!u32_cas(&q->kicks, &word, word | SLEEPS, memory_order_relaxed, memory_order_relaxed))
		return;
	park_wait(&q->kicks, word | SLEEPS, until);
	u32_fetch_sub(&q->kicks, SLEEPS, memory_order_relaxed); /* relaxed: as above */
}

/* Gives the engine up for good when the queue is through. */
static bool thread_is_through(struct lf_queue *q)
{
	bool through;

	port_mutex_lock(&q->mutex);
	through = q->closing && q->unfinished == 0 && !queue_must_settle(q);
	if (through)
		q->driven = false;
	port_mutex_unlock(&q->mutex);
	return through;
}

static void *engine_thread(void *arg)
{
	struct lf_queue *q = arg;

	for (;;) {
		/* order: queue-kick (acquire): sees what came before the kick; a later one changes the word */
		uint32_t word = u32_load(&q->kicks, PLANT_ORDER(166, memory_order_relaxed, memory_order_acquire));
		int64_t now = lf_now();
		struct event event = engine_next(q, now);

		if (event.kind != EVENT_NONE && event.time <= now)
			engine_do(q, event.kind, now);
		else if (thread_is_through(q))
			break;
		else
			engine_sleep(q, word, event.time);
	}
	/* Whoever joins us keeps the memory. */
	queue_settled(q);
	return NULL;
}

static int start_thread(struct lf_queue *q)
{
	char name[THREAD_NAME];
	int ret;

	if (q->mode != LF_QUEUE_THREAD)
		return 0;
	snprintf(name, sizeof(name), "%s", q->name);
	q->pid = getpid();
	ret = port_thread_create(&q->thread, name, engine_thread, q);
	port_mutex_lock(&q->mutex);
	q->thread_state = ret ? THREAD_NONE : THREAD_STARTED;
	if (ret)
		q->driven = false;
	port_mutex_unlock(&q->mutex);
	return ret ? -EAGAIN : 0;
}

/* In the child of a fork the thread does not exist: its engine is everybody's, as that of a manual queue. */
static void adopt_after_fork(struct lf_queue *q)
{
	bool stray = q->mode == LF_QUEUE_THREAD && q->pid != getpid();

	port_mutex_lock(&q->mutex);
	if (stray && q->thread_state == THREAD_STARTED) {
		q->thread_state = THREAD_JOINED;
		q->driven = false;
	}
	port_mutex_unlock(&q->mutex);
}

/* Joins the thread of a queue that is over, or waits until another has. */
static void join_thread(struct lf_queue *q)
{
	uint32_t word;
	bool mine;

	port_mutex_lock(&q->mutex);
	mine = q->thread_state == THREAD_STARTED;
	if (mine)
		q->thread_state = THREAD_JOINING;
	while (!mine && q->thread_state == THREAD_JOINING) {
		word = u32_load(&q->changes, memory_order_relaxed); /* relaxed: the mutex has the order */
		port_mutex_unlock(&q->mutex);
		park_wait_real(&q->changes, word, LF_DEADLINE_NEVER);
		port_mutex_lock(&q->mutex);
	}
	port_mutex_unlock(&q->mutex);
	if (!mine)
		return;
	port_thread_join(q->thread);
	port_mutex_lock(&q->mutex);
	q->thread_state = THREAD_JOINED;
	u32_fetch_add(&q->changes, 1, memory_order_relaxed); /* relaxed: as above */
	port_mutex_unlock(&q->mutex);
	park_wake(&q->changes);
}

/* --- Making -------------------------------------------------------------------------------------------------------------- */

static void resource_put(struct provider_resource *r)
{
	queue_unref(container_of(r, struct lf_queue, resource));
}

/* The provider closes: what is unfinished completes with -ENODEV, and then no hook is called any more, release included. */
static void revoke_queue(struct provider_resource *r)
{
	struct lf_queue *q = container_of(r, struct lf_queue, resource);

	queue_lose(q, -ENODEV);
	port_mutex_lock(&q->mutex);
	q->revoked = true;
	port_mutex_unlock(&q->mutex);
	queue_begin_close(q);
}

static struct lf_queue *new_queue(const struct lf_queue_desc *desc)
{
	size_t len = strlen(desc->name);
	struct lf_queue *q = mem_zalloc(sizeof(*q) + len + 1);

	if (!q)
		return NULL;
	q->handles.value = 1;
	q->count.value = 1;
	q->mode = desc->mode;
	q->credits = desc->credits ? desc->credits : DEFAULT_CREDITS;
	q->timeout = desc->timeout ? desc->timeout : DEFAULT_TIMEOUT;
	q->ops = desc->ops;
	q->faults = desc->faults;
	q->observe = desc->observe;
	q->user = desc->user;
	q->clock = desc->clock;
	q->resource = (struct provider_resource){
		.kind = "queue",
		.name = q->name,
		.code = desc->ops,
		.revoke = revoke_queue,
		.refs = &q->count,
		.put = resource_put,
	};
	port_mutex_init(&q->mutex);
	q->driven = desc->mode == LF_QUEUE_THREAD; /* by its thread, from the first moment (Q2) */
	memcpy(q->name, desc->name, len + 1);
	engine_init(q);
	return q;
}

static int create_timelines(struct lf_queue *q, struct lf_provider *provider)
{
	static const char suffix[] = " scheduled";
	struct lf_timeline_desc desc = { .name = q->name, .provider = provider };
	size_t size = strlen(q->name) + sizeof(suffix);
	int ret = lf_timeline_create(&desc, &q->finished);
	char *name;

	if (ret)
		return ret;
	name = mem_alloc(size);
	if (!name)
		return -ENOMEM;
	snprintf(name, size, "%s%s", q->name, suffix);
	desc.name = name;
	ret = lf_timeline_create(&desc, &q->scheduled);
	mem_free(name);
	return ret;
}

/* Of a queue that nothing refers to any more, or that was never finished. */
static void free_queue(struct lf_queue *q)
{
	lf_timeline_put(q->scheduled);
	lf_timeline_put(q->finished);
	port_mutex_fini(&q->mutex);
	mem_free(q);
}

static int check_desc(const struct lf_queue_desc *desc)
{
	if (!desc->name || !desc->ops || !desc->ops->run)
		return misuse(-EINVAL, "lf_queue_create: a name and a run hook are both needed");
	if ((unsigned)desc->mode > LF_QUEUE_VIRTUAL || (desc->mode == LF_QUEUE_VIRTUAL) != (desc->clock != NULL))
		return misuse(-EINVAL, "lf_queue_create: a clock is for a virtual queue, and needed there");
	if (desc->timeout < 0 || desc->faults.late_ns < 0)
		return misuse(-EINVAL, "lf_queue_create: a time is negative");
	return 0;
}

/* Makes everything of a queue but its place among others. */
static int prepare(const struct lf_queue_desc *desc, struct lf_queue **ret_queue)
{
	struct lf_queue *q = new_queue(desc);
	int ret;

	if (!q)
		return -ENOMEM;
	ret = create_timelines(q, desc->provider);
	q->registered = desc->provider; /* before it is found: it may be revoked at once */
	if (ret == 0)
		ret = provider_add(desc->provider, &q->resource);
	if (ret) {
		free_queue(q);
		return ret;
	}
	*ret_queue = q;
	return 0;
}

int lf_queue_create(const struct lf_queue_desc *desc, struct lf_queue **ret_queue)
{
	struct lf_queue *q = NULL;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!desc || !ret_queue)
		return misuse(-EINVAL, "lf_queue_create: a description and a place for the queue are both needed");
	ret = check_desc(desc);
	if (ret)
		return ret;
	reclaim_throttle();
	ret = prepare(desc, &q);
	if (ret)
		return ret;
	track_add(q, &queue_track_kind);
	if (q->clock)
		vclock_add(q->clock, q);
	ret = start_thread(q);
	if (ret) {
		lf_queue_put(q);
		return ret;
	}
	*ret_queue = q;
	return 0;
}

/* --- References ---------------------------------------------------------------------------------------------------------- */

void queue_ref(struct lf_queue *q)
{
	refcount_get(&q->count, "queue");
}

/* Nothing refers to the queue: no handle, no job. */
static void destroy(struct lf_queue *q)
{
	if (q->clock)
		vclock_remove(q->clock, q);
	if (take_registration(q, true))
		provider_remove(&q->resource);
	track_remove(q);
	free_queue(q);
}

static void destroy_deferred(struct lf_deferred *node)
{
	struct lf_queue *q = container_of(node, struct lf_queue, deferred);

	join_thread(q);
	destroy(q);
}

void queue_unref(struct lf_queue *q)
{
	bool join;

	if (!refcount_put(&q->count, "queue"))
		return;
	adopt_after_fork(q);
	port_mutex_lock(&q->mutex);
	q->closing = true;
	join = q->thread_state == THREAD_STARTED;
	port_mutex_unlock(&q->mutex);
	if (!join) {
		destroy(q);
		return;
	}
	engine_wake(q);
	lf_defer_call(&q->deferred, destroy_deferred);
}

struct lf_queue *lf_queue_get(struct lf_queue *q)
{
	if (q)
		refcount_get(&q->handles, "lf_queue_get");
	return q;
}

void lf_queue_put(struct lf_queue *q)
{
	if (!q || library_poisoned() || !refcount_put(&q->handles, "lf_queue_put"))
		return;
	/* Nobody can step it any more. */
	if (q->mode == LF_QUEUE_MANUAL)
		queue_begin_close(q);
	queue_unref(q);
}

/* --- Ending -------------------------------------------------------------------------------------------------------------- */

void queue_begin_close(struct lf_queue *q)
{
	port_mutex_lock(&q->mutex);
	q->closing = true;
	port_mutex_unlock(&q->mutex);
	engine_kick(q);
	queue_settled(q);
}

/* Returns false when the deadline has passed. */
static bool sleep_until_over(struct lf_queue *q, int64_t deadline)
{
	bool over, in_time = true;
	uint32_t word;

	port_mutex_lock(&q->mutex);
	q->closers++;
	while (!(over = is_over(q)) && in_time) {
		word = u32_load(&q->changes, memory_order_relaxed); /* relaxed: the mutex has the order */
		port_mutex_unlock(&q->mutex);
		in_time = park_wait(&q->changes, word, deadline);
		port_mutex_lock(&q->mutex);
	}
	q->closers--;
	port_mutex_unlock(&q->mutex);
	return over;
}

int lf_queue_close(struct lf_queue *q, int64_t deadline)
{
	int ret;

	if (!q)
		return misuse(-EINVAL, "lf_queue_close: the queue is NULL");
	if (library_poisoned())
		return -EOWNERDEAD;
	ret = library_check_wait(__func__);
	if (ret)
		return ret;
	if (inside_hook_of(q))
		return misuse(-EDEADLK, "lf_queue_close: called inside a hook of queue %s, for whose end it would wait", q->name);
	adopt_after_fork(q);
	queue_begin_close(q);
	if (!sleep_until_over(q, deadline))
		return -ETIME;
	join_thread(q);
	return 0;
}

void queue_lose(struct lf_queue *q, int error)
{
	port_mutex_lock(&q->mutex);
	if (!q->lost) {
		q->lost = error;
		q->loss_untold = !is_over(q);
	}
	error = q->lost;
	port_mutex_unlock(&q->mutex);
	lf_timeline_lose(q->scheduled, error);
	lf_timeline_lose(q->finished, error);
	engine_kick(q);
}

void lf_queue_lose(struct lf_queue *q, int error)
{
	if (!q) {
		misuse(0, "lf_queue_lose: the queue is NULL");
		return;
	}
	if (library_poisoned())
		return;
	if (error == 0)
		error = misuse(-EINVAL, "lf_queue_lose: a loss needs an error; -EINVAL is used");
	queue_lose(q, check_error(__func__, error));
}

/* --- Stepping ------------------------------------------------------------------------------------------------------------ */

/* Time is over when it is its turn. */
static int step(struct lf_queue *q)
{
	int64_t now = queue_now(q);
	struct event event = engine_next(q, now);

	if (event.kind == EVENT_NONE)
		return LF_STEP_IDLE;
	u64_store(&q->now, (uint64_t)event.time, memory_order_relaxed); /* relaxed: see queue_now() */
	return (int)engine_do(q, event.kind, event.time);
}

int lf_queue_step(struct lf_queue *q)
{
	int ret = library_enter();

	if (ret)
		return ret;
	if (!q || q->mode != LF_QUEUE_MANUAL)
		return misuse(-EINVAL, "lf_queue_step: the queue is not manual");
	ret = queue_check_drive(__func__);
	if (ret)
		return ret;
	if (!engine_begin(q))
		return misuse(-EBUSY, "lf_queue_step: another thread drives queue %s", q->name);
	queue_ref(q); /* a hook may put the caller's */
	ret = step(q);
	engine_end(q);
	queue_unref(q);
	return ret;
}

void lf_queue_get_stats(struct lf_queue *q, struct lf_queue_stats *ret_stats)
{
	*ret_stats = (struct lf_queue_stats){ 0 };
	if (library_poisoned())
		return;
	port_mutex_lock(&q->mutex);
	*ret_stats = q->stats;
	port_mutex_unlock(&q->mutex);
}
