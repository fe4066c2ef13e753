/* SPDX-License-Identifier: MIT */
/*
 * minigpu replay: the jobs of a recorded trace, through timelines and queues.
 *
 * Purpose. Every context of the record becomes a timeline that emits fences with the recorded seqnos; every ring becomes a queue. The
 * player walks through the record in the order of time and does three things: it pushes a job when it was submitted; it opens the job's
 * gate when it was run; it signals fences that belong to no job when they signaled. The gate is a stand-alone fence that the job depends
 * on: it stands for whatever the job waited for in the record, which the record rarely tells. Where it does (drm_sched_job_add_dep), the
 * job depends on those fences too. All that a job depends on is merged into one fence.
 *
 *     queue:    push --gate, dependencies--> run --duration--> complete
 *                                             |                   |
 *     context:                     scheduled fence signals   finished fence signals          (signal_to with the recorded seqno)
 *                                                                 |
 *     chain of the context:                                  point is reached                (when all points before it are)
 *
 * A job keeps an engine busy for as long as the ring worked on it in the record, and the engine runs one job at a time, so a run begins
 * here when a ring would really begin, later than the kernel's "run", which only puts the job into the ring.
 *
 * Time is virtual, so that a replay takes no time and repeats itself to the last event; or real (--speed).
 *
 * Checked in the replay, by fences alone:
 * V4. Every fence signals, and every point of every chain is reached.
 * V5. When the finished fence of a job signals, its scheduled fence has, and nothing is pending in the chain up to its point.
 * V6. A finished fence's time is not before that of its scheduled fence, nor that of any job before (its point's time is the latest of
 *     them); and the job was run.
 *
 * A dependency on a job that is pushed later is left out (a damaged trace may hold circles), so whatever the record says the replay ends.
 *
 * Locking. The player's lock protects the list of lost jobs and the count of violations; the rest is written by the player's thread
 * before a job is pushed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "minigpu.h"
#include "model.h"
#include "record.h"

#define MAX_RUNS     16 /* of one job */
#define MAX_PATIENCE (60 * NS_PER_S) /* in real time, for a fence after the last event */

struct player;

struct play_context {
	struct lf_timeline *scheduled;
	struct lf_timeline *finished;
	struct lf_fence *chain; /* of the finished fences: its newest link */
	const struct ring *ring; /* of the newest job */
	uint32_t group;
};

struct play_ring {
	struct lf_queue *queue;
	struct lane *lane;
};

struct play_job {
	struct record_job record; /* first, for the observer */
	struct player *player;
	const struct job *job;
	struct play_context *context;
	struct lf_fence *gate; /* NULL when its run was not recorded */
	struct lf_fence *dependencies; /* gate and all others, merged */
	struct lf_fence *scheduled, *finished; /* of the context; NULL before the submission */
	struct lf_fence *point; /* of the context's chain */
	struct lf_fence *engine_scheduled, *engine_finished; /* of the queue */
	struct lf_fence_cb on_scheduled, on_finished, watch;
	struct play_job *next_lost;
	bool ran; /* written by the engine, read when the queue is closed */
};

enum action_kind { ACT_SUBMIT, ACT_OPEN_GATE, ACT_SIGNAL };

struct action {
	int64_t time;
	enum action_kind kind; /* at the same time, in this order */
	size_t index; /* of the job or the fence */
};

struct player {
	const struct options *options;
	struct model *model;
	struct record record;
	struct lf_vclock *clock; /* NULL in real time */
	int64_t record_start; /* ns of the record */
	int64_t start; /* ns of the replay's clock */
	int64_t timeout;
	struct play_context *contexts;
	struct play_ring *rings;
	struct play_job *jobs;
	struct lf_timeline **tracks; /* NULL where all fences belong to jobs */
	struct lf_fence **fences;
	struct action *actions;
	size_t action_count;
	pthread_mutex_t lock;
	struct play_job *lost, **lost_end;
	size_t violations;
	size_t signals;
	size_t dependencies, merged; /* fences that jobs depend on, and how many of them were left to wait for */
};

/* --- Violations --------------------------------------------------------------------------------------------------------- */

static void violation(struct player *p, const struct job *job, const char *what)
{
	pthread_mutex_lock(&p->lock);
	p->violations++;
	model_complain(p->model, job->line, "replay: context %" PRIu64 " seqno %" PRIu64 ": %s", job->context->number, job->seqno, what);
	pthread_mutex_unlock(&p->lock);
}

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
		violation(pj->player, pj->job, "finished before it is scheduled");
	if (count_pending(pj->point))
		violation(pj->player, pj->job, "finished before the one before it");
}

/* --- Time --------------------------------------------------------------------------------------------------------------- */

static int64_t scaled(const struct player *p, int64_t ns)
{
	return p->clock ? ns : (int64_t)((double)ns / p->options->speed);
}

static int64_t player_now(const struct player *p)
{
	return p->clock ? lf_vclock_now(p->clock) : lf_now();
}

static void sleep_until(int64_t time)
{
	struct timespec ts = { .tv_sec = time / NS_PER_S, .tv_nsec = time % NS_PER_S };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static void advance_to(struct player *p, int64_t record_time)
{
	int64_t time = p->start + scaled(p, record_time - p->record_start);

	if (p->clock)
		lf_vclock_run(p->clock, time);
	else
		sleep_until(time);
}

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

static const char *ring_name(const struct player *p, size_t ring)
{
	return p->model->trace->strings[p->model->rings[ring]->name];
}

static void open_engine(struct player *p, size_t ring, bool replacement)
{
	struct lf_queue_desc desc = {
		.name = ring_name(p, ring),
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

static void close_engine(struct player *p, size_t ring)
{
	lf_queue_close(p->rings[ring].queue, LF_DEADLINE_NEVER);
	lf_queue_put(p->rings[ring].queue);
	p->rings[ring].queue = NULL;
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

static void replace_fence(struct lf_fence **place, struct lf_fence *fence)
{
	lf_fence_put(*place);
	*place = fence;
}

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
	struct lf_job_desc desc = { .data = pj, .duration = scaled(p, pj->job->duration) };
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
static struct lf_fence *emit(struct lf_timeline *timeline, uint64_t seqno)
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

static void submit(struct player *p, size_t index)
{
	struct play_job *pj = &p->jobs[index];
	struct play_context *pc = pj->context;

	merge_dependencies(pj);
	pj->scheduled = emit(pc->scheduled, pj->job->seqno);
	pj->finished = emit(pc->finished, pj->job->seqno);
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
static bool replace_lost_engine(struct player *p)
{
	const struct ring *ring = lost_ring(p);
	struct play_job *pj;

	if (!ring)
		return false;
	close_engine(p, ring->index);
	open_engine(p, ring->index, true);
	for (pj = take_lost(p, ring); pj;) {
		struct play_job *next = pj->next_lost; /* pushing may put it into the list again */

		push(pj);
		pj = next;
	}
	return true;
}

/* --- Playing ------------------------------------------------------------------------------------------------------------ */

static void act(struct player *p, const struct action *action)
{
	const struct lone_fence *lone;

	switch (action->kind) {
	case ACT_SUBMIT:
		submit(p, action->index);
		break;
	case ACT_OPEN_GATE:
		lf_fence_signal_at(p->jobs[action->index].gate, 0, player_now(p));
		break;
	case ACT_SIGNAL:
		lone = p->model->fences[action->index];
		lf_timeline_signal_to_at(p->tracks[lone->track->index], lone->seqno, 0, player_now(p));
		break;
	}
}

static void play_record(struct player *p)
{
	p->start = player_now(p);
	for (size_t i = 0; i < p->action_count; i++) {
		advance_to(p, p->actions[i].time);
		replace_lost_engine(p);
		act(p, &p->actions[i]);
		progress("replay: %zu of %zu events", i + 1, p->action_count);
	}
}

/* Engines may still be lost here, so nobody waits for ever for one fence. */
static void wait_for(struct player *p, struct lf_fence *fence)
{
	int64_t deadline = lf_now() + MAX_PATIENCE;

	while (lf_fence_wait(fence, lf_now() + 10 * NS_PER_MS) == -ETIME && lf_now() < deadline)
		replace_lost_engine(p);
}

static void play_to_the_end(struct player *p)
{
	if (p->clock) {
		do
			lf_vclock_run(p->clock, LF_DEADLINE_NEVER);
		while (replace_lost_engine(p));
	} else {
		for (size_t i = 0; i < p->model->job_count; i++)
			wait_for(p, p->jobs[i].point);
	}
	for (size_t i = 0; i < p->model->track_count; i++) { /* the recording ended before they signaled */
		if (p->tracks[i])
			lf_timeline_signal_to_at(p->tracks[i], UINT64_MAX, 0, player_now(p));
	}
	for (size_t i = 0; i < p->model->ring_count; i++)
		close_engine(p, i);
	progress_end();
}

static bool point_is_reached(const struct play_job *pj)
{
	struct lf_fence *point;
	bool reached;

	must(lf_chain_find_seqno(pj->context->chain, lf_fence_seqno(pj->finished), &point), "a point is missing");
	reached = lf_fence_is_signaled(point);
	lf_fence_put(point);
	return reached;
}

/* V4 and V6, when all has come to rest. */
static void check_job(struct player *p, const struct play_job *pj)
{
	p->signals += (size_t)lf_fence_is_signaled(pj->scheduled) + (size_t)lf_fence_is_signaled(pj->finished);
	if (!lf_fence_is_signaled(pj->scheduled) || !lf_fence_is_signaled(pj->finished)) {
		violation(p, pj->job, "never signaled");
		return;
	}
	if (!point_is_reached(pj))
		violation(p, pj->job, "its point of the chain is not reached");
	if (!pj->ran && lf_fence_status(pj->finished) == 1)
		violation(p, pj->job, "finished without a run");
	if (lf_fence_timestamp(pj->finished) < lf_fence_timestamp(pj->scheduled))
		violation(p, pj->job, "finished at a time before it was scheduled");
	if (lf_fence_timestamp(pj->finished) < lf_fence_timestamp(pj->point))
		violation(p, pj->job, "finished at a time before the one before it");
}

static void check_replay(struct player *p)
{
	for (size_t i = 0; i < p->model->job_count; i++)
		check_job(p, &p->jobs[i]);
	for (size_t i = 0; i < p->model->fence_count; i++) {
		p->signals += lf_fence_is_signaled(p->fences[i]);
		p->violations += !lf_fence_is_signaled(p->fences[i]);
	}
}

/* --- Setting up --------------------------------------------------------------------------------------------------------- */

static struct lf_timeline *create_timeline(const char *name)
{
	struct lf_timeline_desc desc = { .name = name, .flags = LF_TIMELINE_ORDERED };
	struct lf_timeline *timeline;

	must(lf_timeline_create(&desc, &timeline), "cannot make a timeline");
	return timeline;
}

static void init_context(struct player *p, size_t index)
{
	const struct context *context = p->model->contexts[index];
	struct play_context *pc = &p->contexts[index];
	char name[128];

	snprintf(name, sizeof(name), "%s context %" PRIu64, p->model->trace->strings[context->ring->name], context->number);
	pc->group = record_add_group(&p->record, name);
	pc->finished = create_timeline(name);
	snprintf(name, sizeof(name), "%s context %" PRIu64, p->model->trace->strings[context->ring->name], context->number - 1);
	pc->scheduled = create_timeline(name);
}

static void init_job(struct player *p, size_t index)
{
	const struct job *job = p->model->jobs[index];
	struct play_job *pj = &p->jobs[index];

	pj->player = p;
	pj->job = job;
	pj->context = &p->contexts[job->context->index];
	pj->record.group = pj->context->group;
	pj->record.number = job->seqno;
	if (job->run != NOT_RECORDED)
		must(lf_fence_create(&pj->gate), "cannot make a fence");
}

/* Lone fences exist from the start: the record rarely says since when. */
static void init_fence(struct player *p, size_t index)
{
	const struct lone_fence *lone = p->model->fences[index];
	struct lf_timeline **timeline = &p->tracks[lone->track->index];

	if (!*timeline)
		*timeline = create_timeline(p->model->trace->strings[lone->track->name]);
	p->fences[index] = emit(*timeline, lone->seqno);
}

/* A job may take as long as it did. */
static int64_t longest_timeout(const struct player *p)
{
	int64_t longest = 0;

	for (size_t i = 0; i < p->model->job_count; i++) {
		if (p->model->jobs[i]->duration > longest)
			longest = p->model->jobs[i]->duration;
	}
	return 2 * scaled(p, longest) + options_timeout(p->options);
}

static int compare_actions(const void *a, const void *b)
{
	const struct action *x = a;
	const struct action *y = b;

	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	return (x->index > y->index) - (x->index < y->index);
}

static void plan(struct player *p)
{
	const struct model *m = p->model;
	struct action *next = p->actions = allocate(2 * m->job_count + m->fence_count, sizeof(*p->actions));

	for (size_t i = 0; i < m->job_count; i++) {
		*next++ = (struct action){ m->jobs[i]->enter, ACT_SUBMIT, i };
		if (m->jobs[i]->run != NOT_RECORDED)
			*next++ = (struct action){ m->jobs[i]->run, ACT_OPEN_GATE, i };
	}
	for (size_t i = 0; i < m->fence_count; i++) {
		if (m->fences[i]->signal != NOT_RECORDED)
			*next++ = (struct action){ m->fences[i]->signal, ACT_SIGNAL, i };
	}
	p->action_count = (size_t)(next - p->actions);
	qsort(p->actions, p->action_count, sizeof(*p->actions), compare_actions);
	p->record_start = p->action_count ? p->actions[0].time : 0;
}

static void player_init(struct player *p, const struct options *options, struct model *m)
{
	*p = (struct player){ .options = options, .model = m };
	p->lost_end = &p->lost;
	pthread_mutex_init(&p->lock, NULL);
	record_init(&p->record);
	if (options->speed <= 0)
		must(lf_vclock_create(&p->clock), "cannot make a clock");
	p->timeout = longest_timeout(p);
	p->contexts = allocate(m->context_count, sizeof(*p->contexts));
	p->rings = allocate(m->ring_count, sizeof(*p->rings));
	p->jobs = allocate(m->job_count, sizeof(*p->jobs));
	p->tracks = allocate(m->track_count, sizeof(struct lf_timeline *));
	p->fences = allocate(m->fence_count, sizeof(struct lf_fence *));
	for (size_t i = 0; i < m->context_count; i++)
		init_context(p, i);
	for (size_t i = 0; i < m->ring_count; i++) {
		p->rings[i].lane = record_add_lane(&p->record, ring_name(p, i));
		open_engine(p, i, false);
	}
	for (size_t i = 0; i < m->job_count; i++)
		init_job(p, i);
	for (size_t i = 0; i < m->fence_count; i++)
		init_fence(p, i);
	plan(p);
}

static void fini_job(struct play_job *pj)
{
	lf_fence_put(pj->gate);
	lf_fence_put(pj->dependencies);
	lf_fence_put(pj->scheduled);
	lf_fence_put(pj->finished);
	lf_fence_put(pj->point);
	lf_fence_put(pj->engine_scheduled);
	lf_fence_put(pj->engine_finished);
}

static void player_fini(struct player *p)
{
	for (size_t i = 0; i < p->model->context_count; i++) {
		lf_timeline_put(p->contexts[i].scheduled);
		lf_timeline_put(p->contexts[i].finished);
		lf_fence_put(p->contexts[i].chain);
	}
	for (size_t i = 0; i < p->model->track_count; i++)
		lf_timeline_put(p->tracks[i]);
	for (size_t i = 0; i < p->model->job_count; i++)
		fini_job(&p->jobs[i]);
	for (size_t i = 0; i < p->model->fence_count; i++)
		lf_fence_put(p->fences[i]);
	lf_vclock_put(p->clock);
	free(p->contexts);
	free(p->rings);
	free(p->jobs);
	free(p->tracks);
	free(p->fences);
	free(p->actions);
	record_fini(&p->record);
	pthread_mutex_destroy(&p->lock);
}

/* --- Report ------------------------------------------------------------------------------------------------------------- */

static void add_latency(struct samples *s, int64_t from, int64_t to)
{
	if (from != NOT_RECORDED && to != NOT_RECORDED && from <= to)
		samples_add(s, to - from);
}

static void print_latency(const char *what, struct samples *record, struct samples *replay)
{
	printf("%-19s%-7s%12s%12s\n", what, "p50", duration_text(samples_percentile(record, 50)).chars,
		duration_text(samples_percentile(replay, 50)).chars);
	printf("%-19s%-7s%12s%12s\n", "", "p99", duration_text(samples_percentile(record, 99)).chars,
		duration_text(samples_percentile(replay, 99)).chars);
	samples_free(record);
	samples_free(replay);
}

/* What a job lives through, of all jobs. */
struct latencies {
	struct samples waits; /* submit -> run */
	struct samples works; /* run -> signal */
	struct samples wholes; /* submit -> signal */
};

static struct latencies record_latencies(const struct model *m)
{
	struct latencies l = { 0 };

	for (size_t i = 0; i < m->job_count; i++) {
		add_latency(&l.waits, m->jobs[i]->submit, m->jobs[i]->run);
		add_latency(&l.works, m->jobs[i]->run, m->jobs[i]->signal);
		add_latency(&l.wholes, m->jobs[i]->submit, m->jobs[i]->signal);
	}
	return l;
}

static struct latencies replay_latencies(const struct record *r)
{
	struct latencies l = { 0 };

	for (size_t i = 0; i < r->lane_count; i++) {
		samples_append(&l.waits, &r->lanes[i]->waits);
		samples_append(&l.works, &r->lanes[i]->works);
		samples_append(&l.wholes, &r->lanes[i]->wholes);
	}
	return l;
}

static void print_latencies(const struct player *p)
{
	struct latencies record = record_latencies(p->model);
	struct latencies replay = replay_latencies(&p->record);

	print_latency("submit -> run", &record.waits, &replay.waits);
	print_latency("run -> signal", &record.works, &replay.works);
	print_latency("submit -> signal", &record.wholes, &replay.wholes);
	puts("(run: in the record, when the ring was told; in the replay, when it begins)");
}

static void print_counts(const char *what, size_t record, size_t replay)
{
	printf("%-26s%12zu%12zu\n", what, record, replay);
}

static void print_incomplete(const struct model *m)
{
	size_t no_submit = 0;
	size_t no_run = 0;
	size_t no_signal = 0;

	for (size_t i = 0; i < m->job_count; i++) {
		no_submit += m->jobs[i]->submit == NOT_RECORDED;
		no_run += m->jobs[i]->run == NOT_RECORDED;
		no_signal += m->jobs[i]->signal == NOT_RECORDED;
	}
	printf("%zu jobs on %zu rings; the record lacks %zu submits, %zu runs and %zu signals of them\n", m->job_count, m->ring_count,
		no_submit, no_run, no_signal);
	printf("%zu events of other kinds, %zu malformed lines\n", m->trace->unknown, m->trace->malformed);
}

static void print_report(struct player *p)
{
	const struct model *m = p->model;
	const struct trace *t = m->trace;
	size_t replay_contexts = 2 * m->context_count;
	uint64_t runs = 0;

	for (size_t i = 0; i < m->track_count; i++)
		replay_contexts += p->tracks[i] != NULL;
	for (size_t i = 0; i < p->record.lane_count; i++)
		runs += p->record.lanes[i]->bar_count;

	printf("%-26s%12s%12s\n", "", "record", "replay");
	print_counts("submits", t->per_kind[TRACE_SUBMIT], m->job_count);
	print_counts("runs", t->per_kind[TRACE_RUN], runs);
	print_counts("signals", t->per_kind[TRACE_SIGNALED] + t->per_kind[TRACE_DONE], p->signals);
	print_counts("contexts", model_signaled_contexts(m), replay_contexts);
	print_counts("order violations", m->violations, p->violations);
	print_latencies(p);
	putchar('\n');
	record_print_table(&p->record, "ring", stdout);
	putchar('\n');
	print_incomplete(m);
	printf("jobs depend on %zu fences, of which merging leaves %zu\n", p->dependencies, p->merged);
}

static void draw(struct player *p, FILE *out)
{
	const char *slash = strrchr(p->model->trace->path, '/');
	char title[160];
	char subtitle[320];

	snprintf(title, sizeof(title), "Replay of %s", slash ? slash + 1 : p->model->trace->path);
	snprintf(subtitle, sizeof(subtitle), "%zu jobs of %zu contexts on %zu rings, %s; %zu fences, %zu order violations",
		p->model->job_count, p->model->context_count, p->model->ring_count, p->clock ? "in virtual time" : "in real time",
		p->signals, p->model->violations + p->violations);
	picture_write(&p->record, &(struct picture){ title, subtitle, "context" }, out);
}

static bool play(const struct options *options, struct model *m)
{
	struct player player;
	bool clean;

	player_init(&player, options, m);
	play_record(&player);
	play_to_the_end(&player);
	check_replay(&player);
	print_report(&player);
	if (options->trace)
		record_write_timeline(&player.record, options->trace);
	if (options->svg)
		draw(&player, options->svg);
	clean = !m->violations && !player.violations;
	player_fini(&player);
	return clean;
}

int replay_command(const struct options *options, const char *path)
{
	struct trace trace;
	struct model model;
	bool clean = false;

	if (trace_read(&trace, path, options->strict)) {
		model_init(&model, &trace);
		if (model.job_count || model.fence_count)
			clean = play(options, &model);
		else
			complain("%s: no events of GPU jobs or fences in it", path);
		model_fini(&model);
	}
	trace_free(&trace);
	return clean ? EXIT_SUCCESS : EXIT_FAILURE;
}
