/* SPDX-License-Identifier: MIT */
/*
 * Events -> jobs, and what is wrong with the record.
 *
 * Purpose. Puts the events of a trace together: three of them make a job (submitted, run, signaled), known by context and seqno of
 * its finished fence. Fences of a scheduler whose context is one below that of jobs are their scheduled fences: that is how the
 * kernel numbers them. All other fences stand alone.
 *
 * Checked in the record:
 * V1. A job is submitted, then run, then signaled.
 * V2. The jobs of a context are submitted and run in the order of their seqnos.
 * V3. The fences of a track (driver, timeline, context) signal in the order of their seqnos, each once.
 *
 * A recording begins and ends in the middle of work, so any of the times of a job may be missing; that is no violation.
 *
 * Not here: the replay (replay.c).
 */
#include "model.h"

#include <inttypes.h>
#include <search.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define MAX_COMPLAINTS 10

void model_complain(struct model *m, uint32_t line, const char *format, ...)
{
	char message[256];
	va_list args;

	if (m->complaints++ >= MAX_COMPLAINTS)
		return;
	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	complain("%s:%u: %s", m->trace->path, line, message);
	if (m->complaints == MAX_COMPLAINTS)
		complain("%s: more violations are only counted", m->trace->path);
}

/* --- Finding and making ------------------------------------------------------------------------------------------------- */

static int compare_numbers(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

static int compare_contexts(const void *a, const void *b)
{
	return compare_numbers(((const struct context *)a)->number, ((const struct context *)b)->number);
}

static int compare_jobs(const void *a, const void *b)
{
	const struct job *x = a;
	const struct job *y = b;
	int order = compare_contexts(x->context, y->context);

	return order ? order : compare_numbers(x->seqno, y->seqno);
}

static int compare_tracks(const void *a, const void *b)
{
	const struct track *x = a;
	const struct track *y = b;
	int order = compare_numbers(x->context, y->context);

	order = order ? order : compare_numbers(x->driver, y->driver);
	return order ? order : compare_numbers(x->name, y->name);
}

static int compare_fences(const void *a, const void *b)
{
	const struct lone_fence *x = a;
	const struct lone_fence *y = b;
	int order = compare_tracks(x->track, y->track);

	return order ? order : compare_numbers(x->seqno, y->seqno);
}

static void *find(const void *key, void *const *tree, int (*compare)(const void *, const void *))
{
	void *node = tfind(key, tree, compare);

	return node ? *(void **)node : NULL;
}

/* @return what was there, or a copy of @key that is there now. */
static void *find_or_add(const void *key, size_t size, void **tree, int (*compare)(const void *, const void *), bool *ret_new)
{
	void *object = find(key, tree, compare);

	*ret_new = !object;
	if (object)
		return object;
	object = allocate(1, size);
	memcpy(object, key, size);
	if (!tsearch(object, tree, compare))
		die("out of memory");
	return object;
}

static struct ring *get_ring(struct model *m, uint32_t name, uint32_t device)
{
	struct ring *ring;

	for (size_t i = 0; i < m->ring_count; i++) {
		if (m->rings[i]->name == name && m->rings[i]->device == device)
			return m->rings[i];
	}
	ring = allocate(1, sizeof(*ring));
	*ring = (struct ring){ name, device, m->ring_count };
	m->rings = grow(m->rings, m->ring_count, &m->ring_capacity, sizeof(struct ring *));
	return m->rings[m->ring_count++] = ring;
}

static struct context *find_context(struct model *m, uint64_t number)
{
	return find(&(struct context){ .number = number }, &m->context_tree, compare_contexts);
}

static struct context *get_context(struct model *m, uint64_t number, struct ring *ring)
{
	bool is_new;
	struct context key = { number, m->context_count, ring };
	struct context *context = find_or_add(&key, sizeof(key), &m->context_tree, compare_contexts, &is_new);

	if (is_new) {
		m->contexts = grow(m->contexts, m->context_count, &m->context_capacity, sizeof(struct context *));
		m->contexts[m->context_count++] = context;
	}
	return context;
}

static struct job *find_job(struct model *m, uint64_t context, uint64_t seqno)
{
	struct job key = { .context = find_context(m, context), .seqno = seqno };

	return key.context ? find(&key, &m->job_tree, compare_jobs) : NULL;
}

static struct job *get_job(struct model *m, struct context *context, uint64_t seqno, uint32_t line)
{
	bool is_new;
	struct job key = {
		.seqno = seqno,
		.context = context,
		.ring = context->ring,
		.submit = NOT_RECORDED,
		.run = NOT_RECORDED,
		.scheduled = NOT_RECORDED,
		.signal = NOT_RECORDED,
		.line = line,
	};
	struct job *job = find_or_add(&key, sizeof(key), &m->job_tree, compare_jobs, &is_new);

	if (is_new) {
		m->jobs = grow(m->jobs, m->job_count, &m->job_capacity, sizeof(struct job *));
		m->jobs[m->job_count++] = job;
	}
	return job;
}

static struct track *get_track(struct model *m, uint32_t driver, uint32_t name, uint64_t context)
{
	bool is_new;
	struct track key = { .driver = driver, .name = name, .context = context, .index = m->track_count };
	struct track *track = find_or_add(&key, sizeof(key), &m->track_tree, compare_tracks, &is_new);

	if (is_new) {
		m->tracks = grow(m->tracks, m->track_count, &m->track_capacity, sizeof(struct track *));
		m->tracks[m->track_count++] = track;
	}
	return track;
}

static struct lone_fence *get_lone_fence(struct model *m, struct track *track, uint64_t seqno)
{
	bool is_new;
	struct lone_fence key = { track, seqno, NOT_RECORDED };
	struct lone_fence *fence = find_or_add(&key, sizeof(key), &m->fence_tree, compare_fences, &is_new);

	if (is_new) {
		m->fences = grow(m->fences, m->fence_count, &m->fence_capacity, sizeof(struct lone_fence *));
		m->fences[m->fence_count++] = fence;
	}
	return fence;
}

/* --- From events to jobs ------------------------------------------------------------------------------------------------ */

/* The first time counts: a job that is run again after a reset of the GPU appears twice. */
static void set_time(int64_t *place, int64_t time)
{
	if (*place == NOT_RECORDED)
		*place = time;
}

static void take_job_event(struct model *m, const struct trace_event *e)
{
	struct ring *ring = get_ring(m, e->ring, e->driver);
	struct job *job = get_job(m, get_context(m, e->context, ring), e->seqno, e->line);

	job->ring = ring;
	set_time(e->kind == TRACE_SUBMIT ? &job->submit : &job->run, e->time);
}

/* Whether a fence is one of a job: then *ret_job is that job, which the recording may not have shown before. */
static bool fence_of_job(struct model *m, const struct trace_event *e, struct job **ret_job, bool *ret_scheduled)
{
	struct context *finished = find_context(m, e->context);
	struct context *scheduled = find_context(m, e->context + 1);

	if (e->kind != TRACE_DONE && !strstr(m->trace->strings[e->driver], "sched"))
		return false;
	*ret_scheduled = !finished;
	if (!finished && !scheduled)
		return false;
	*ret_job = get_job(m, finished ? finished : scheduled, e->seqno, e->line);
	return true;
}

static void check_signal(struct model *m, struct track *track, const struct trace_event *e)
{
	if (track->signals++ && e->seqno <= track->last_seqno) {
		m->violations++;
		model_complain(m, e->line, "context %" PRIu64 ": seqno %" PRIu64 " signals after %" PRIu64, e->context, e->seqno,
			track->last_seqno);
		return;
	}
	track->last_seqno = e->seqno;
}

static void take_fence_event(struct model *m, const struct trace_event *e)
{
	bool signals = e->kind != TRACE_FENCE;
	bool scheduled = false;
	struct track *track = get_track(m, e->kind == TRACE_DONE ? TRACK_OF_DONE : e->driver, e->ring, e->context);
	struct job *job;

	if (signals)
		check_signal(m, track, e);
	if (!fence_of_job(m, e, &job, &scheduled)) {
		struct lone_fence *fence = get_lone_fence(m, track, e->seqno);

		if (signals)
			set_time(&fence->signal, e->time);
	} else if (signals) {
		set_time(scheduled ? &job->scheduled : &job->signal, e->time);
	}
}

static void take_dependency(struct model *m, const struct trace_event *e)
{
	struct job *job = find_job(m, e->context, e->seqno);
	struct job *on = find_job(m, e->on_context, e->on_seqno);
	struct dependency *dependency;
	bool scheduled = !on;

	if (!on)
		on = find_job(m, e->on_context + 1, e->on_seqno);
	if (!job || !on || job == on)
		return;
	dependency = allocate(1, sizeof(*dependency));
	*dependency = (struct dependency){ job->dependencies, on, scheduled };
	job->dependencies = dependency;
}

/* Jobs first: which fences belong to jobs is only known when all contexts of jobs are. */
static void take_events(struct model *m)
{
	const struct trace *t = m->trace;

	for (size_t i = 0; i < t->count; i++) {
		if (t->events[i].kind == TRACE_SUBMIT || t->events[i].kind == TRACE_RUN)
			take_job_event(m, &t->events[i]);
	}
	for (size_t i = 0; i < t->count; i++) {
		enum trace_kind kind = t->events[i].kind;

		if (kind == TRACE_DONE || kind == TRACE_SIGNALED || kind == TRACE_FENCE)
			take_fence_event(m, &t->events[i]);
	}
	for (size_t i = 0; i < t->count; i++) {
		if (t->events[i].kind == TRACE_DEPENDENCY)
			take_dependency(m, &t->events[i]);
	}
}

/* --- What is wrong with the record -------------------------------------------------------------------------------------- */

static void check_times(struct model *m, const struct job *job, int64_t first, int64_t second, const char *what)
{
	if (first == NOT_RECORDED || second == NOT_RECORDED || first <= second)
		return;
	m->violations++;
	model_complain(m, job->line, "%s context %" PRIu64 " seqno %" PRIu64 ": %s", m->trace->strings[job->ring->name],
		job->context->number, job->seqno, what);
}

/* @before: the job before it in its context, or NULL */
static void check_job(struct model *m, const struct job *job, const struct job *before)
{
	check_times(m, job, job->submit, job->run, "runs before it is submitted");
	check_times(m, job, job->run, job->signal, "signals before it runs");
	check_times(m, job, job->scheduled, job->signal, "finishes before it is scheduled");
	if (job->run == NOT_RECORDED)
		check_times(m, job, job->submit, job->signal, "signals before it is submitted");
	if (before) {
		check_times(m, job, before->submit, job->submit, "is submitted before the one before it");
		check_times(m, job, before->run, job->run, "runs before the one before it");
	}
}

/* --- What the replay needs to know --------------------------------------------------------------------------------------- */

static int64_t earliest(int64_t a, int64_t b)
{
	return a == NOT_RECORDED || (b != NOT_RECORDED && b < a) ? b : a;
}

/* A job whose submission was not recorded was submitted before it ran, and before the next of its context. @next may be NULL. */
static int64_t enter_time(const struct job *job, const struct job *next)
{
	int64_t time = earliest(earliest(job->run, job->scheduled), job->signal);

	if (job->submit != NOT_RECORDED)
		return job->submit;
	return next ? earliest(time, next->enter) : time;
}

static struct job *neighbour(const struct model *m, size_t index, size_t other)
{
	return other < m->job_count && m->jobs[other]->context == m->jobs[index]->context ? m->jobs[other] : NULL;
}

static int compare_job_pointers(const void *a, const void *b)
{
	return compare_jobs(*(struct job *const *)a, *(struct job *const *)b);
}

static int compare_runs(const void *a, const void *b)
{
	const struct job *x = *(struct job *const *)a;
	const struct job *y = *(struct job *const *)b;

	return x->run != y->run ? (x->run < y->run ? -1 : 1) : compare_numbers(x->index, y->index);
}

/* An engine works on a job from its run, or from the end of the one before it, to its signal. */
static void set_durations(struct job **by_run, size_t count, struct ring *ring)
{
	struct samples known = { 0 };
	int64_t busy_until = NOT_RECORDED;
	int64_t median;

	for (size_t i = 0; i < count; i++) {
		struct job *job = by_run[i];

		if (job->ring != ring || job->run == NOT_RECORDED || job->signal == NOT_RECORDED)
			continue;
		job->duration = job->signal - (job->run > busy_until ? job->run : busy_until);
		job->duration = job->duration > 0 ? job->duration : 0;
		busy_until = job->signal > busy_until ? job->signal : busy_until;
		samples_add(&known, job->duration);
	}
	median = samples_percentile(&known, 50);
	for (size_t i = 0; i < count; i++) {
		if (by_run[i]->ring == ring && (by_run[i]->run == NOT_RECORDED || by_run[i]->signal == NOT_RECORDED))
			by_run[i]->duration = median > 0 ? median : 0;
	}
	samples_free(&known);
}

static void set_all_durations(struct model *m)
{
	struct job **by_run = allocate(m->job_count, sizeof(struct job *));

	for (size_t i = 0; i < m->job_count; i++)
		by_run[i] = m->jobs[i];
	qsort(by_run, m->job_count, sizeof(struct job *), compare_runs);
	for (size_t i = 0; i < m->ring_count; i++)
		set_durations(by_run, m->job_count, m->rings[i]);
	free(by_run);
}

/* --- Life --------------------------------------------------------------------------------------------------------------- */

static int compare_fence_pointers(const void *a, const void *b)
{
	return compare_fences(*(struct lone_fence *const *)a, *(struct lone_fence *const *)b);
}

static void forget_node(void *object)
{
	(void)object; /* the arrays own it */
}

static void destroy_trees(struct model *m)
{
	tdestroy(m->job_tree, forget_node);
	tdestroy(m->context_tree, forget_node);
	tdestroy(m->track_tree, forget_node);
	tdestroy(m->fence_tree, forget_node);
}

static void sort(void *array, size_t count, int (*compare)(const void *, const void *))
{
	if (count)
		qsort(array, count, sizeof(void *), compare);
}

void model_init(struct model *m, const struct trace *trace)
{
	*m = (struct model){ .trace = trace };
	take_events(m);
	destroy_trees(m);
	sort(m->jobs, m->job_count, compare_job_pointers);
	sort(m->fences, m->fence_count, compare_fence_pointers);
	for (size_t i = m->job_count; i-- > 0;) {
		m->jobs[i]->index = i;
		m->jobs[i]->enter = enter_time(m->jobs[i], neighbour(m, i, i + 1));
	}
	for (size_t i = 0; i < m->job_count; i++)
		check_job(m, m->jobs[i], i ? neighbour(m, i, i - 1) : NULL);
	set_all_durations(m);
}

/* @array holds @count pointers, of any type. */
static void free_all(void *array, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		void *object;

		memcpy(&object, (char *)array + i * sizeof(object), sizeof(object));
		free(object);
	}
	free(array);
}

static void free_dependencies(struct job *job)
{
	while (job->dependencies) {
		struct dependency *next = job->dependencies->next;

		free(job->dependencies);
		job->dependencies = next;
	}
}

void model_fini(struct model *m)
{
	for (size_t i = 0; i < m->job_count; i++)
		free_dependencies(m->jobs[i]);
	free_all(m->jobs, m->job_count);
	free_all(m->contexts, m->context_count);
	free_all(m->rings, m->ring_count);
	free_all(m->tracks, m->track_count);
	free_all(m->fences, m->fence_count);
}

/* A context that both drm_sched_job_done and dma_fence_signaled tell of counts once. */
static bool is_told_of_otherwise(const struct model *m, const struct track *done)
{
	for (size_t i = 0; i < m->track_count; i++) {
		if (m->tracks[i] != done && m->tracks[i]->context == done->context && m->tracks[i]->signals)
			return true;
	}
	return false;
}

size_t model_signaled_contexts(const struct model *m)
{
	size_t count = 0;

	for (size_t i = 0; i < m->track_count; i++) {
		const struct track *track = m->tracks[i];

		count += track->signals && (track->driver != TRACK_OF_DONE || !is_told_of_otherwise(m, track));
	}
	return count;
}
