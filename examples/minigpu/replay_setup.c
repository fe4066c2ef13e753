/* SPDX-License-Identifier: MIT */
/*
 * The player of a replay: made from the model, and ended.
 *
 * Not here: what it does in between (replay.c).
 */
#include "replay.h"

#include <stdlib.h>

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
	p->fences[index] = player_emit(*timeline, lone->seqno);
}

/* A job may take as long as it did. */
static int64_t longest_timeout(const struct player *p)
{
	int64_t longest = 0;

	for (size_t i = 0; i < p->model->job_count; i++) {
		if (p->model->jobs[i]->duration > longest)
			longest = p->model->jobs[i]->duration;
	}
	return 2 * player_scaled(p, longest) + options_timeout(p->options);
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

void player_init(struct player *p, const struct options *options, struct model *m)
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
		p->rings[i].lane = record_add_lane(&p->record, player_ring_name(p, i), LANE_ENGINE);
		player_open_engine(p, i, false);
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

void player_fini(struct player *p)
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
