/* SPDX-License-Identifier: MIT */
/*
 * Engines of the replay: jobs are pushed to queues, and what the queues signal is handed on to the fences of the contexts.
 *
 * A job whose engine is lost goes into a list, and is pushed again when the player has replaced the engine. All that a job depends on is
 * merged into one fence.
 *
 * Not here: when what happens (replay.c).
 */
#include "replay.h"

#include <errno.h>
#include <stdlib.h>

#define MAX_RUNS 16 /* of one job */

/* --- Engines ------------------------------------------------------------------------------------------------------------ */

static int run_job(struct lf_job *job, void *data)
{
	struct play_job *pj = data;

	(void)job;
	pj->ran = true;
	return 0;
}

static enum lf_reset_verdict retry(struct lf_job *job, void *data, bool guilty)
{
	(void)data;
	return guilty && lf_job_runs(job) >= MAX_RUNS ? LF_RESET_FAIL : LF_RESET_RETRY;
}

static const struct lf_queue_ops engine_ops = { .run = run_job, .reset = retry };

const char *player_ring_name(const struct player *p, size_t ring)
{
	return p->model->trace->strings[p->model->rings[ring]->name];
}

void player_open_engine(struct player *p, size_t ring, bool replacement)
{
	struct lf_queue_desc desc = {
		.name = player_ring_name(p, ring),
		.mode = p->clock ? LF_QUEUE_VIRTUAL : LF_QUEUE_THREAD,
		.clock = p->clock,
		.timeout = p->timeout,
		.ops = &engine_ops,
		.faults = options_faults(p->options, (unsigned)ring, ring == 0 && !replacement),
		.observe = record_observe,
		.user = p->rings[ring].lane,
	};

	must(lf_queue_create(&desc, &p->rings[ring].queue), "cannot make a queue");
}

void player_close_engine(struct player *p, size_t ring)
{
	lf_queue_close(p->rings[ring].queue, LF_DEADLINE_NEVER);
	lf_queue_put(p->rings[ring].queue);
	p->rings[ring].queue = NULL;
}

/* --- Watching ----------------------------------------------------------------------------------------------------------- */

static size_t count_pending(struct lf_fence *fence)
{
	struct lf_unwrap walk;
	struct lf_fence *leaf;
	size_t count = 0;

	must(lf_unwrap_begin(&walk, fence, 0), "cannot look into a fence");
	while ((leaf = lf_unwrap_next(&walk)))
		count += !lf_fence_is_signaled(leaf);
	lf_unwrap_end(&walk);
	return count;
}

/* A consumer's view of V5. */
static void watch_finished(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct play_job *pj = (struct play_job *)((char *)cb - offsetof(struct play_job, watch));

	(void)f;
	if (!lf_fence_is_signaled(pj->scheduled))
		player_violation(pj->player, pj->job, "finished before it is scheduled");
	if (count_pending(pj->point))
		player_violation(pj->player, pj->job, "finished before the one before it");
}

/* --- From the queue's fences to the context's ---------------------------------------------------------------------------- */

/* May come twice, from two threads: signal_to() signals what is pending. */
static void signal_scheduled(struct play_job *pj, int error)
{
	lf_timeline_signal_to_at(pj->context->scheduled, lf_fence_seqno(pj->scheduled), error, lf_fence_timestamp(pj->engine_scheduled));
}

static void handle_scheduled(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct play_job *pj = (struct play_job *)((char *)cb - offsetof(struct play_job, on_scheduled));

	if (lf_fence_status(f) == 1) /* else it was lost before it began, and will be pushed again */
		signal_scheduled(pj, 0);
}

static void add_lost(struct player *p, struct play_job *pj)
{
	pthread_mutex_lock(&p->lock);
	pj->next_lost = NULL;
	*p->lost_end = pj;
	p->lost_end = &pj->next_lost;
	pthread_mutex_unlock(&p->lock);
}

static void handle_finished(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct play_job *pj = (struct play_job *)((char *)cb - offsetof(struct play_job, on_finished));
	int status = lf_fence_status(f);
	int error = status < 0 ? status : 0;

	if (status == -ENODEV) {
		add_lost(pj->player, pj);
		return;
	}
	signal_scheduled(pj, error);
	lf_timeline_signal_to_at(pj->context->finished, lf_fence_seqno(pj->finished), error, lf_fence_timestamp(f));
}

static void call_when_signaled(struct lf_fence *f, struct lf_fence_cb *cb, lf_fence_cb_fn func)
{
	if (lf_fence_add_callback(f, cb, func) == -ENOENT)
		func(f, cb);
}

/* --- Submission --------------------------------------------------------------------------------------------------------- */

static void merge_dependencies(struct play_job *pj)
{
	struct player *p = pj->player;
	const struct dependency *d;
	struct lf_fence **fences;
	size_t count = 2;

	for (d = pj->job->dependencies; d; d = d->next)
		count++;
	fences = allocate(count, sizeof(struct lf_fence *));
	fences[0] = pj->gate;
	if (pj->context->ring != pj->job->ring) /* queues keep order; contexts that change rings have to */
		fences[1] = pj->context->chain;
	count = 2;
	for (d = pj->job->dependencies; d; d = d->next)
		fences[count++] = d->scheduled ? p->jobs[d->on->index].scheduled : p->jobs[d->on->index].finished;
	must(lf_fence_merge(fences, count, &pj->dependencies), "cannot merge dependencies");
	for (size_t i = 0; i < count; i++)
		p->dependencies += fences[i] != NULL;
	p->merged += count_pending(pj->dependencies);
	free(fences);
}

/* Also used for a job whose engine was lost. */
static void push(struct play_job *pj)
{
	struct player *p = pj->player;
	struct lf_job_desc desc = { .data = pj, .duration = player_scaled(p, pj->job->duration) };
	struct lf_fence *finished;
	struct lf_job *job;

	must(lf_job_create(p->rings[pj->job->ring->index].queue, &desc, &job), "cannot make a job");
	must(lf_job_add_dependency(job, pj->dependencies), "cannot add a dependency");
	must(lf_job_push(job, &finished), "cannot push a job");
	replace_fence(&pj->engine_finished, finished);
	replace_fence(&pj->engine_scheduled, lf_fence_get(lf_job_scheduled(job)));
	lf_job_put(job);
	call_when_signaled(pj->engine_scheduled, &pj->on_scheduled, handle_scheduled);
	call_when_signaled(pj->engine_finished, &pj->on_finished, handle_finished);
}

/* A seqno that does not rise (the record's check has said so) is replaced by the next one. */
struct lf_fence *player_emit(struct lf_timeline *timeline, uint64_t seqno)
{
	struct lf_fence *fence;

	must(lf_timeline_emit(timeline, seqno > lf_timeline_last_seqno(timeline) ? seqno : 0, &fence), "cannot emit a fence");
	return fence;
}

/* The chain's newest link belongs to the context, each link to its job as well. */
static void append_point(struct play_job *pj)
{
	struct play_context *pc = pj->context;

	must(lf_chain_append(pc->chain, lf_fence_get(pj->finished), lf_fence_seqno(pj->finished), 0, &pj->point), "cannot append a point");
	pc->chain = lf_fence_get(pj->point);
}

void player_submit(struct player *p, size_t index)
{
	struct play_job *pj = &p->jobs[index];
	struct play_context *pc = pj->context;

	merge_dependencies(pj);
	pj->scheduled = player_emit(pc->scheduled, pj->job->seqno);
	pj->finished = player_emit(pc->finished, pj->job->seqno);
	append_point(pj);
	pc->ring = pj->job->ring;
	call_when_signaled(pj->finished, &pj->watch, watch_finished);
	push(pj);
}

/* --- Lost engines ------------------------------------------------------------------------------------------------------- */

/* Takes the list of @ring's lost jobs, in the order in which they were pushed. */
static struct play_job *take_lost(struct player *p, const struct ring *ring)
{
	struct play_job *taken = NULL;
	struct play_job **taken_end = &taken;
	struct play_job **place;

	pthread_mutex_lock(&p->lock);
	for (place = &p->lost; *place;) {
		struct play_job *pj = *place;

		if (pj->job->ring != ring) {
			place = &pj->next_lost;
			continue;
		}
		*place = pj->next_lost;
		pj->next_lost = NULL;
		*taken_end = pj;
		taken_end = &pj->next_lost;
	}
	p->lost_end = place;
	pthread_mutex_unlock(&p->lock);
	return taken;
}

static const struct ring *lost_ring(struct player *p)
{
	const struct ring *ring;

	pthread_mutex_lock(&p->lock);
	ring = p->lost ? p->lost->job->ring : NULL;
	pthread_mutex_unlock(&p->lock);
	return ring;
}

/* Puts a new engine in the place of a lost one. When the old one is closed, all its jobs are in the list. @return whether one was lost. */
bool player_replace_lost_engine(struct player *p)
{
	const struct ring *ring = lost_ring(p);
	struct play_job *pj;

	if (!ring)
		return false;
	player_close_engine(p, ring->index);
	player_open_engine(p, ring->index, true);
	for (pj = take_lost(p, ring); pj;) {
		struct play_job *next = pj->next_lost; /* pushing may put it into the list again */

		push(pj);
		pj = next;
	}
	return true;
}
