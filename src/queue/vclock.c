/* SPDX-License-Identifier: MIT */
/*
 * Virtual clocks: several queues in one deterministic time.
 *
 * Purpose: lf_vclock_run() asks each queue for its next event, lets the earliest happen, and sets the clock to its time.
 *
 * Invariants:
 * VC1. now never goes backwards, and changes only inside lf_vclock_run().
 * VC2. The list holds every queue on the clock, in the order in which they were made; a queue takes itself out before its memory goes.
 * VC3. Of events at the same time the queue that was made first comes first; an event that is overdue is due now.
 *
 * Locking: mutex protects list and flags, and is taken alone: queues are asked and driven without it, each kept alive by a reference.
 *
 * Lifetime: one reference of the maker, one of each queue. When the maker's goes nobody can run the clock any more, so its queues are
 * closed.
 */
#include "base/alloc.h"
#include "queue/queue.h"

struct lf_vclock {
	lf_atomic_u32 count;
	lf_atomic_u64 now; /* written by who runs the clock */
	struct port_mutex mutex;
	struct lf_queue *queues; /* protected by mutex; linked by clock_next */
	bool runs; /* protected by mutex: somebody is in lf_vclock_run() */
};

/* --- Life ---------------------------------------------------------------------------------------------------------------- */

int lf_vclock_create(struct lf_vclock **ret_clock)
{
	struct lf_vclock *clock;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!ret_clock)
		return misuse(-EINVAL, "lf_vclock_create: nowhere to put the clock");
	clock = mem_zalloc(sizeof(*clock));
	if (!clock)
		return -ENOMEM;
	clock->count.value = 1;
	port_mutex_init(&clock->mutex);
	*ret_clock = clock;
	return 0;
}

static void unref(struct lf_vclock *clock)
{
	if (!refcount_put(&clock->count, "lf_vclock_put"))
		return;
	port_mutex_fini(&clock->mutex);
	mem_free(clock);
}

void vclock_add(struct lf_vclock *clock, struct lf_queue *q)
{
	struct lf_queue **end;

	refcount_get(&clock->count, "clock");
	port_mutex_lock(&clock->mutex);
	for (end = &clock->queues; *end; end = &(*end)->clock_next)
		;
	*end = q;
	port_mutex_unlock(&clock->mutex);
}

void vclock_remove(struct lf_vclock *clock, struct lf_queue *q)
{
	struct lf_queue **link;

	if (!PLANTED(180))
		port_mutex_lock(&clock->mutex);
	for (link = &clock->queues; *link != q; link = &(*link)->clock_next)
		;
	*link = q->clock_next;
	if (!PLANTED(180))
		port_mutex_unlock(&clock->mutex);
	unref(clock);
}

/* The cursor: the next live queue with a reference, in exchange for that on @q. NULL begins, and ends. */
static struct lf_queue *next_queue(struct lf_vclock *clock, struct lf_queue *q)
{
	struct lf_queue *next;

	port_mutex_lock(&clock->mutex);
	next = q ? q->clock_next : clock->queues;
	while (next && !refcount_tryget(&next->count))
		next = next->clock_next;
	port_mutex_unlock(&clock->mutex);
	if (q)
		queue_unref(q);
	return next;
}

void lf_vclock_put(struct lf_vclock *clock)
{
	if (!clock || library_poisoned())
		return;
	for (struct lf_queue *q = next_queue(clock, NULL); q; q = next_queue(clock, q))
		queue_begin_close(q);
	unref(clock);
}

int64_t lf_vclock_now(struct lf_vclock *clock)
{
	return (int64_t)u64_load(&clock->now, memory_order_relaxed); /* relaxed: a time, of itself */
}

static void set_now(struct lf_vclock *clock, int64_t now)
{
	u64_store(&clock->now, (uint64_t)now, memory_order_relaxed); /* relaxed: see lf_vclock_now() */
}

/* --- Running ------------------------------------------------------------------------------------------------------------- */

/* The queue whose turn it is; its engine is ours to drive, and a reference. NULL when nothing is left to do. */
static struct lf_queue *whose_turn(struct lf_vclock *clock, struct event *ret_event)
{
	struct lf_queue *first = NULL;
	int64_t now = lf_vclock_now(clock);

	*ret_event = (struct event){ EVENT_NONE, LF_DEADLINE_NEVER };
	for (struct lf_queue *q = next_queue(clock, NULL); q; q = next_queue(clock, q)) {
		struct event event;

		if (!engine_begin(q))
			continue; /* it is being closed */
		event = engine_next(q, now);
		if (event.kind == EVENT_NONE || event.time >= ret_event->time) {
			engine_end(q);
			continue;
		}
		if (first) {
			engine_end(first);
			queue_unref(first);
		}
		queue_ref(q);
		first = q;
		*ret_event = event;
	}
	return first;
}

/* One event. Returns false when there is none until then. */
static bool run_one(struct lf_vclock *clock, int64_t until)
{
	struct event event;
	struct lf_queue *q = whose_turn(clock, &event);
	bool due = q && event.time <= until;

	if (due) {
		set_now(clock, event.time);
		engine_do(q, event.kind, event.time);
	}
	if (q) {
		engine_end(q);
		queue_unref(q);
	}
	return due;
}

static bool begin_run(struct lf_vclock *clock)
{
	bool begun;

	port_mutex_lock(&clock->mutex);
	begun = !clock->runs;
	clock->runs = true;
	port_mutex_unlock(&clock->mutex);
	return begun;
}

static void end_run(struct lf_vclock *clock)
{
	port_mutex_lock(&clock->mutex);
	clock->runs = false;
	port_mutex_unlock(&clock->mutex);
}

int64_t lf_vclock_run(struct lf_vclock *clock, int64_t until)
{
	int64_t events = 0;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!clock)
		return misuse(-EINVAL, "lf_vclock_run: the clock is NULL");
	ret = queue_check_drive(__func__);
	if (ret)
		return ret;
	if (!begin_run(clock))
		return misuse(-EBUSY, "lf_vclock_run: another thread runs the clock");
	refcount_get(&clock->count, "clock"); /* a hook may put the caller's */
	while (run_one(clock, until))
		events++;
	if (until != LF_DEADLINE_NEVER && lf_vclock_now(clock) < until)
		set_now(clock, until);
	end_run(clock);
	unref(clock);
	return events;
}
