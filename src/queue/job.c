/* SPDX-License-Identifier: MIT */
/*
 * Jobs: making them, what they wait for, and the push.
 *
 * Purpose: a job is built by one thread, pushed once, and from then on its queue's. No thread blocks for a dependency: each is an internal
 * node on its fence that counts the job's waits down.
 *
 * States (enum job_state; what follows the push is in queue.c):
 *
 *     CREATED --lf_job_push()--> PUSHING --fences emitted--> PUSHED
 *        ^----------failed----------/
 *
 * Invariants:
 * J1. waits counts the dependencies that have not signaled, and one until the push is through (announced). While it is not 0 it holds a
 *     reference on the job, which whoever brings it to 0 puts.
 * J2. A dependency's fence is referenced until the job starts or is finished without starting; its node is on the fence, or its
 *     function has run, or (fence NULL) it was never added.
 * J3. Scheduled and finished fence of a job have the same seqno, and the jobs of a queue stand in its list in the order of seqnos.
 * J4. A release hook is called once, by whoever takes the job out of the list of unreleased ones: the last put, or the close of the
 *     provider.
 *
 * Locking: lists are under the queue's mutex. So is emitting on the two timelines, in two steps: what can fail, or asks the allocator,
 * has happened before (reserve_places()), and what may call anybody happens after.
 *
 * Ordering: queue-waits (what came before a dependency's signal is seen by the run hook), queue-pushed.
 *
 * Lifetime: counted. The last put may be a dependency's, inside the dispatch of a fence before its waiters are told: then the release hook,
 * which is user code, is left to the reclaimer.
 *
 * Not here: the order of jobs, and what happens to them in the ring (engine.c).
 */
#include "queue/queue.h"

#include <stdio.h>

#include "base/alloc.h"
#include "base/track.h"
#include "fence/timeline.h"

enum { FIRST_DEPENDENCIES = 4 };

static int describe_tracked(const void *object, char *buf, size_t size)
{
	const struct lf_job *job = object;

	return snprintf(buf, size, "%s:%llu", job->queue->name, (unsigned long long)job->seqno);
}

static const struct track_kind job_track_kind = { "job", 0, describe_tracked };

static enum job_state job_state(struct lf_job *job)
{
	/* order: queue-pushed (acquire): the fences are those that were emitted */
	return (enum job_state)u32_load(&job->state, PLANT_ORDER(163, memory_order_relaxed, memory_order_acquire));
}

static void set_job_state(struct lf_job *job, enum job_state state)
{
	/* order: queue-pushed (release): whoever sees the job pushed finds its fences */
	u32_store(&job->state, (uint32_t)state, PLANT_ORDER(162, memory_order_relaxed, memory_order_release));
}

/* --- Dependencies that signal -------------------------------------------------------------------------------------------- */

/* Returns whether it was the last; then the reference of waits is the caller's. */
static bool waits_down(struct lf_job *job)
{
	/* order: queue-waits (release): what came before the signal, or the push, is seen by the engine */
	/* order: queue-waits (acquire): the last one passes on what all others came with */
	return u32_fetch_sub(&job->waits, 1, PLANT_ACQ_REL(40, 160)) == 1;
}

static void note_dependency_error(struct lf_job *job, uint32_t error)
{
	uint32_t none = 0;

	/* relaxed: the value is all there is; the count of waits orders it before the run */
	if (error)
		u32_cas(&job->dependency_error, &none, error, memory_order_relaxed, memory_order_relaxed);
}

static void free_deferred(struct lf_deferred *node);

/* The last dependency was signaled: nothing of the user's may run here (J1). */
static void ready(void *arg)
{
	struct lf_job *job = arg;

	engine_wake(job->queue);
	if (refcount_put(&job->count, "job"))
		lf_defer_call(&job->deferred, free_deferred);
}

static void dependency_signaled(struct lf_fence *f, struct lf_fence_cb *cb, struct fence_after *after)
{
	struct lf_job *job = container_of(cb, struct dependency, cb)->job;

	note_dependency_error(job, fence_state(f) & FENCE_ERROR);
	if (waits_down(job)) {
		after->fn = ready;
		after->arg = job;
	}
}

/* Begins to wait. The fences' enable hooks run here. */
static void subscribe(struct lf_job *job)
{
	for (size_t i = 0; i < job->dependency_count; i++) {
		struct dependency *d = &job->dependencies[i];
		int status;

		d->job = job; /* the array has its final place now */
		fence_enable(d->fence);
		if (fence_add_internal(d->fence, &d->cb, dependency_signaled) == 0)
			continue;
		status = lf_fence_status(d->fence);
		note_dependency_error(job, status < 0 ? (uint32_t)-status : 0);
		lf_fence_put(d->fence);
		d->fence = NULL;
		waits_down(job); /* never the last: the push holds one */
	}
}

void job_drop_dependencies(struct lf_job *job)
{
	bool waits = !job_is_ready(job) && !PLANTED(49), last = false;

	for (size_t i = 0; i < job->dependency_count; i++) {
		struct dependency *d = &job->dependencies[i];

		if (d->fence && waits && fence_remove_internal(d->fence, &d->cb))
			last = waits_down(job) || last;
		lf_fence_put(d->fence);
		d->fence = NULL;
	}
	if (last)
		lf_job_put(job); /* of waits; the queue's is there still */
}

/* --- Making -------------------------------------------------------------------------------------------------------------- */

/* Release hooks that nobody has taken on yet, so that a closing provider finds them (J4). Refuses when it has closed. */
static int list_unreleased(struct lf_queue *q, struct lf_job *job)
{
	bool refused;

	port_mutex_lock(&q->mutex);
	refused = q->revoked;
	if (!refused && job->release) {
		job->unreleased = true;
		job->unreleased_next = q->unreleased;
		if (q->unreleased)
			q->unreleased->unreleased_prev = job;
		q->unreleased = job;
	}
	port_mutex_unlock(&q->mutex);
	return refused ? -ESHUTDOWN : 0;
}

static int create_fences(struct lf_job *job)
{
	int ret = lf_fence_create(&job->scheduled);

	return ret ? ret : lf_fence_create(&job->finished);
}

static struct lf_job *new_job(struct lf_queue *q, const struct lf_job_desc *desc)
{
	struct lf_job *job = mem_zalloc(sizeof(*job));

	if (!job)
		return NULL;
	job->count.value = 1;
	job->queue = q;
	job->credits = desc->credits ? desc->credits : 1;
	job->duration = desc->duration;
	job->data = desc->data;
	job->release = desc->release;
	return job;
}

static void free_fences(struct lf_job *job)
{
	lf_fence_put(job->scheduled);
	lf_fence_put(job->finished);
}

int lf_job_create(struct lf_queue *q, const struct lf_job_desc *desc, struct lf_job **ret_job)
{
	struct lf_job *job;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!q || !desc || !ret_job)
		return misuse(-EINVAL, "lf_job_create: queue, description and a place for the job are all needed");
	if (desc->credits > q->credits)
		return misuse(-EINVAL, "lf_job_create: the job wants %u credits, and queue %s has %u", desc->credits, q->name, q->credits);
	if (desc->duration < 0)
		return misuse(-EINVAL, "lf_job_create: the duration is negative");
	job = new_job(q, desc);
	if (!job)
		return -ENOMEM;
	ret = create_fences(job);
	if (ret == 0)
		ret = list_unreleased(q, job);
	if (ret) {
		free_fences(job);
		mem_free(job);
		return ret;
	}
	queue_ref(q);
	track_add(job, &job_track_kind);
	*ret_job = job;
	return 0;
}

/* --- References ---------------------------------------------------------------------------------------------------------- */

void queue_take_release(struct lf_queue *q, struct lf_job *job)
{
	job->unreleased = false;
	if (job->unreleased_next)
		job->unreleased_next->unreleased_prev = job->unreleased_prev;
	if (job->unreleased_prev)
		job->unreleased_prev->unreleased_next = job->unreleased_next;
	else
		q->unreleased = job->unreleased_next;
	q->releasing++;
}

static void release(struct lf_queue *q, struct lf_job *job)
{
	bool mine;

	port_mutex_lock(&q->mutex);
	mine = job->unreleased;
	if (mine)
		queue_take_release(q, job);
	port_mutex_unlock(&q->mutex);
	if (!mine)
		return;
	queue_call_release(q, job->release, job->data);
	queue_settled(q);
}

static void free_job(struct lf_job *job)
{
	struct lf_queue *q = job->queue;

	release(q, job);
	free_fences(job);
	for (size_t i = 0; i < job->dependency_count; i++)
		lf_fence_put(job->dependencies[i].fence);
	mem_free(job->dependencies);
	track_remove(job);
	mem_free(job);
	queue_unref(q);
}

/* Jobs that died inside a release hook wait for it to return: no recursion, however many hang on each other. */
static void end_job(struct lf_job *job)
{
	struct library_thread *t = this_thread();

	job->next = NULL;
	if (t->dead_jobs)
		t->last_dead_job->next = job;
	else
		t->dead_jobs = job;
	t->last_dead_job = job;
	if (t->freeing_jobs)
		return;
	t->freeing_jobs = true;
	while ((job = t->dead_jobs) != NULL) {
		t->dead_jobs = job->next;
		free_job(job);
	}
	t->freeing_jobs = false;
}

static void free_deferred(struct lf_deferred *node)
{
	end_job(container_of(node, struct lf_job, deferred));
}

struct lf_job *lf_job_get(struct lf_job *job)
{
	if (job)
		refcount_get(&job->count, "lf_job_get");
	return job;
}

void lf_job_put(struct lf_job *job)
{
	if (!job || library_poisoned())
		return;
	if (refcount_put(&job->count, "lf_job_put"))
		end_job(job);
}

/* --- Before the push ----------------------------------------------------------------------------------------------------- */

/* One of several fences of an ordered timeline is enough. Returns whether @f needs no place of its own. */
static bool merge_dependency(struct lf_job *job, struct lf_fence *f)
{
	for (size_t i = 0; i < job->dependency_count; i++) {
		struct dependency *d = &job->dependencies[i];

		if (d->fence == f)
			return true;
		if (!lf_fence_is_ordered(f) || lf_fence_context(f) == 0 || lf_fence_context(d->fence) != lf_fence_context(f))
			continue;
		if (lf_fence_is_later(f, d->fence) != PLANTED(43)) {
			lf_fence_put(d->fence);
			d->fence = lf_fence_get(f);
		}
		return true;
	}
	return false;
}

static int grow_dependencies(struct lf_job *job)
{
	size_t capacity = job->dependency_capacity ? job->dependency_capacity * 2 : FIRST_DEPENDENCIES;
	struct dependency *grown;

	if (job->dependency_count < job->dependency_capacity)
		return 0;
	grown = mem_grow(job->dependencies, job->dependency_count, capacity, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	job->dependencies = grown;
	job->dependency_capacity = capacity;
	return 0;
}

int lf_job_add_dependency(struct lf_job *job, struct lf_fence *f)
{
	int ret = library_enter(), status;

	if (ret)
		return ret;
	if (!job || !f)
		return misuse(-EINVAL, "lf_job_add_dependency: job and fence are both needed");
	if (job_state(job) != JOB_CREATED)
		return misuse(-EINVAL, "lf_job_add_dependency: the job was pushed");
	status = lf_fence_status(f);
	if (status) {
		note_dependency_error(job, status < 0 ? (uint32_t)-status : 0);
		return 0;
	}
	if (merge_dependency(job, f))
		return 0;
	ret = grow_dependencies(job);
	if (ret)
		return ret;
	job->dependencies[job->dependency_count++] = (struct dependency){ .fence = lf_fence_get(f) };
	return 0;
}

/* --- Push ---------------------------------------------------------------------------------------------------------------- */

/* From here on the queue is not over before the push is through. */
static int reserve(struct lf_queue *q)
{
	int ret = 0;

	port_mutex_lock(&q->mutex);
	if (q->closing)
		ret = -ESHUTDOWN;
	else
		q->unfinished++;
	port_mutex_unlock(&q->mutex);
	return ret;
}

static void unreserve(struct lf_queue *q)
{
	port_mutex_lock(&q->mutex);
	q->unfinished--;
	port_mutex_unlock(&q->mutex);
	engine_wake(q);
	queue_settled(q);
}

/* Room for both fences, so that nothing can fail any more once the first has its seqno. */
static int reserve_places(struct lf_queue *q)
{
	int ret = timeline_reserve(q->scheduled);

	if (ret)
		return ret;
	ret = timeline_reserve(q->finished);
	if (ret)
		timeline_unreserve(q->scheduled);
	return ret;
}

/*
 * Gives both fences their seqno and the job its place, under one lock: so both timelines and the list have the same order (J3). The
 * queue's from here on, though it is not looked at before it is announced.
 */
static void commit(struct lf_queue *q, struct lf_job *job)
{
	refcount_get(&job->count, "job"); /* the queue's, until it is finished */
	refcount_get(&job->count, "job"); /* of waits, J1 */
	/* relaxed: published by the mutex */
	u32_store(&job->waits, 1 + (uint32_t)job->dependency_count, memory_order_relaxed);
	if (!PLANTED(179))
		port_mutex_lock(&q->mutex);
	job->seqno = timeline_emit_reserved(q->scheduled, job->scheduled);
	timeline_emit_reserved(q->finished, job->finished);
	list_append(&q->waiting, job);
	q->stats.pushed++;
	if (!PLANTED(179))
		port_mutex_unlock(&q->mutex);
	/* If the engine is lost, the fences complete now; callbacks may run, and nothing is held. */
	timeline_settle(q->scheduled);
	timeline_settle(q->finished);
}

static int enqueue(struct lf_queue *q, struct lf_job *job)
{
	int ret = reserve(q);

	if (ret)
		return ret;
	ret = reserve_places(q);
	if (ret)
		unreserve(q);
	else
		commit(q, job);
	return ret;
}

/* The push is through: the engine may have the job. */
static void announce(struct lf_queue *q, struct lf_job *job)
{
	bool settle, last;

	port_mutex_lock(&q->mutex);
	job->announced = true;
	settle = q->lost || q->closing;
	port_mutex_unlock(&q->mutex);
	last = waits_down(job);
	if (last)
		lf_job_put(job); /* of waits; the caller has one */
	if (settle || last)
		engine_kick(q);
}

int lf_job_push(struct lf_job *job, struct lf_fence **ret_finished)
{
	uint32_t created = JOB_CREATED;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!job)
		return misuse(-EINVAL, "lf_job_push: the job is NULL");
	/* order: queue-pushed (acquire): another thread may have tried before */
	if (!u32_cas(&job->state, &created, JOB_PUSHING, PLANT_ORDER(164, memory_order_relaxed, memory_order_acquire), memory_order_relaxed))
		return misuse(-EINVAL, "lf_job_push: the job was pushed before");
	ret = enqueue(job->queue, job);
	if (ret) {
		set_job_state(job, JOB_CREATED);
		return ret;
	}
	set_job_state(job, JOB_PUSHED);
	subscribe(job);
	if (PLANTED(45))
		announce(job->queue, job);
	queue_observe(job->queue, LF_QUEUE_JOB_QUEUE, job, 0, queue_now(job->queue));
	if (!PLANTED(45))
		announce(job->queue, job);
	if (ret_finished)
		*ret_finished = lf_fence_get(job->finished);
	return 0;
}

/* --- Looking ------------------------------------------------------------------------------------------------------------- */

static bool check_pushed(struct lf_job *job, const char *function)
{
	if (job && job_state(job) == JOB_PUSHED)
		return true;
	misuse(0, "%s: the job was not pushed", function);
	return false;
}

struct lf_fence *lf_job_scheduled(struct lf_job *job)
{
	return check_pushed(job, __func__) ? job->scheduled : NULL;
}

struct lf_fence *lf_job_finished(struct lf_job *job)
{
	return check_pushed(job, __func__) ? job->finished : NULL;
}

int lf_job_dependency_error(struct lf_job *job)
{
	return -(int)u32_load(&job->dependency_error, memory_order_relaxed); /* relaxed: see note_dependency_error() */
}

uint32_t lf_job_runs(struct lf_job *job)
{
	return u32_load(&job->runs, memory_order_relaxed); /* relaxed: a figure */
}

void *lf_job_data(struct lf_job *job)
{
	return job->data;
}
