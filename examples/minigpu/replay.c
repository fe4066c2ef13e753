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
 * Files: replay_setup.c, replay_engines.c, replay_report.c.
 *
 * Locking. The player's lock protects the list of lost jobs and the count of violations; the rest is written by the player's thread
 * before a job is pushed.
 */
#include "replay.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define MAX_PATIENCE (60 * NS_PER_S) /* in real time, for a fence after the last event */

/* --- Violations --------------------------------------------------------------------------------------------------------- */

void player_violation(struct player *p, const struct job *job, const char *what)
{
	pthread_mutex_lock(&p->lock);
	p->violations++;
	model_complain(p->model, job->line, "replay: context %" PRIu64 " seqno %" PRIu64 ": %s", job->context->number, job->seqno, what);
	pthread_mutex_unlock(&p->lock);
}

/* --- Time --------------------------------------------------------------------------------------------------------------- */

int64_t player_scaled(const struct player *p, int64_t ns)
{
	return p->clock ? ns : (int64_t)((double)ns / p->options->speed);
}

int64_t player_now(const struct player *p)
{
	return p->clock ? lf_vclock_now(p->clock) : lf_now();
}

static void sleep_until(int64_t time)
{
	struct timespec ts = { .tv_sec = (time_t)(time / NS_PER_S), .tv_nsec = (long)(time % NS_PER_S) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static void advance_to(struct player *p, int64_t record_time)
{
	int64_t time = p->start + player_scaled(p, record_time - p->record_start);

	if (p->clock)
		lf_vclock_run(p->clock, time);
	else
		sleep_until(time);
}

/* --- Playing ------------------------------------------------------------------------------------------------------------ */

static void act(struct player *p, const struct action *action)
{
	const struct lone_fence *lone;

	switch (action->kind) {
	case ACT_SUBMIT:
		player_submit(p, action->index);
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
		player_replace_lost_engine(p);
		act(p, &p->actions[i]);
		progress("replay: %zu of %zu events", i + 1, p->action_count);
	}
}

/* Engines may still be lost here, so nobody waits for ever for one fence. */
static void wait_for(struct player *p, struct lf_fence *fence)
{
	int64_t deadline = lf_now() + MAX_PATIENCE;

	while (lf_fence_wait(fence, lf_now() + 10 * NS_PER_MS) == -ETIME && lf_now() < deadline)
		player_replace_lost_engine(p);
}

static void play_to_the_end(struct player *p)
{
	if (p->clock) {
		do
			lf_vclock_run(p->clock, LF_DEADLINE_NEVER);
		while (player_replace_lost_engine(p));
	} else {
		for (size_t i = 0; i < p->model->job_count; i++)
			wait_for(p, p->jobs[i].point);
	}
	for (size_t i = 0; i < p->model->track_count; i++) { /* the recording ended before they signaled */
		if (p->tracks[i])
			lf_timeline_signal_to_at(p->tracks[i], UINT64_MAX, 0, player_now(p));
	}
	for (size_t i = 0; i < p->model->ring_count; i++)
		player_close_engine(p, i);
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
		player_violation(p, pj->job, "never signaled");
		return;
	}
	if (!point_is_reached(pj))
		player_violation(p, pj->job, "its point of the chain is not reached");
	if (!pj->ran && lf_fence_status(pj->finished) == 1)
		player_violation(p, pj->job, "finished without a run");
	if (lf_fence_timestamp(pj->finished) < lf_fence_timestamp(pj->scheduled))
		player_violation(p, pj->job, "finished at a time before it was scheduled");
	if (lf_fence_timestamp(pj->finished) < lf_fence_timestamp(pj->point))
		player_violation(p, pj->job, "finished at a time before the one before it");
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

/* --- The command -------------------------------------------------------------------------------------------------------- */

static bool play(const struct options *options, struct model *m)
{
	struct player player;
	bool clean;

	player_init(&player, options, m);
	play_record(&player);
	play_to_the_end(&player);
	check_replay(&player);
	player_print_report(&player);
	if (options->trace)
		record_write_timeline(&player.record, options->trace);
	if (options->svg)
		player_draw(&player, options->svg);
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
