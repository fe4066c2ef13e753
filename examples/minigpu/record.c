/* SPDX-License-Identifier: MIT */
/*
 * What engines did: bars, marks, latencies; the table and the timeline.
 *
 * Purpose. record_observe() is the observe hook of every queue. It turns its events into bars: RUN opens the bar of a job; RESET,
 * DONE and the next RUN of the same job close it. record_activity() adds a bar that is complete.
 *
 * Invariants.
 * R1. A lane's bars are in the order of their starts.
 * R2. A job has at most one open bar.
 *
 * Locking. A lane's lock protects it and the record_job of every job on it; nothing is called under it but the allocator.
 *
 * Lifetime. Job data must outlive the last event about the job, which may come after its finished fence has signaled: the
 * release hook of the job is the place to free it.
 *
 * Not here: the picture (picture.c).
 */
#include "record.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- Life --------------------------------------------------------------------------------------------------------------- */

void record_init(struct record *r)
{
	*r = (struct record){ 0 };
}

static void lane_free(struct lane *lane)
{
	pthread_mutex_destroy(&lane->lock);
	samples_free(&lane->waits);
	samples_free(&lane->works);
	samples_free(&lane->wholes);
	free(lane->bars);
	free(lane->marks);
	free(lane->name);
	free(lane);
}

void record_fini(struct record *r)
{
	for (size_t i = 0; i < r->lane_count; i++)
		lane_free(r->lanes[i]);
	for (size_t i = 0; i < r->group_count; i++)
		free(r->groups[i]);
	free(r->lanes);
	free(r->groups);
}

struct lane *record_add_lane(struct record *r, const char *name, enum lane_kind kind)
{
	struct lane *lane = allocate(1, sizeof(*lane));

	lane->kind = kind;
	pthread_mutex_init(&lane->lock, NULL);
	lane->name = copy_string(name);
	r->lanes = grow(r->lanes, r->lane_count, &r->lane_capacity, sizeof(struct lane *));
	r->lanes[r->lane_count++] = lane;
	return lane;
}

uint32_t record_add_group(struct record *r, const char *name)
{
	r->groups = grow(r->groups, r->group_count, &r->group_capacity, sizeof(char *));
	r->groups[r->group_count] = copy_string(name);
	return (uint32_t)r->group_count++;
}

/* --- Events ------------------------------------------------------------------------------------------------------------- */

static void close_bar(struct lane *lane, struct record_job *job, int64_t time, enum bar_end how)
{
	struct bar *bar;

	if (!job->bar)
		return;
	bar = &lane->bars[job->bar - 1];
	bar->end = time;
	bar->how = how;
	job->bar = 0;
}

static void open_bar(struct lane *lane, struct record_job *job, int64_t time)
{
	close_bar(lane, job, time, BAR_HUNG);
	if (!job->attempts++) {
		job->first_run = time;
		samples_add(&lane->waits, time - job->queued);
	}
	lane->bars = grow(lane->bars, lane->bar_count, &lane->bar_capacity, sizeof(*lane->bars));
	lane->bars[lane->bar_count++] = (struct bar){
		.start = time,
		.end = time,
		.number = job->number,
		.flow = job->flow,
		.group = job->group,
		.attempt = job->attempts,
	};
	job->bar = lane->bar_count;
}

static void finish_job(struct lane *lane, struct record_job *job, const struct lf_queue_event *event)
{
	lane->failed += event->error != 0;
	close_bar(lane, job, event->time, event->error ? BAR_FAILED : BAR_DONE);
	samples_add(&lane->wholes, event->time - job->queued);
	if (job->attempts)
		samples_add(&lane->works, event->time - job->first_run);
}

static void add_mark(struct lane *lane, const struct lf_queue_event *event)
{
	lane->resets += event->kind == LF_QUEUE_RESET;
	lane->lost += event->kind == LF_QUEUE_LOST;
	lane->marks = grow(lane->marks, lane->mark_count, &lane->mark_capacity, sizeof(*lane->marks));
	lane->marks[lane->mark_count++] = (struct mark){ event->time, event->kind };
}

static void note_event(struct lane *lane, struct record_job *job, const struct lf_queue_event *event)
{
	switch (event->kind) {
	case LF_QUEUE_JOB_QUEUE:
		lane->jobs++;
		job->queued = event->time;
		break;
	case LF_QUEUE_JOB_RUN:
		open_bar(lane, job, event->time);
		break;
	case LF_QUEUE_JOB_DONE:
		finish_job(lane, job, event);
		break;
	case LF_QUEUE_RESET:
		if (job)
			close_bar(lane, job, event->time, BAR_HUNG);
		add_mark(lane, event);
		break;
	default:
		add_mark(lane, event);
		break;
	}
}

void record_observe(void *user, const struct lf_queue_event *event)
{
	struct lane *lane = user;

	pthread_mutex_lock(&lane->lock);
	note_event(lane, event->job ? lf_job_data(event->job) : NULL, event);
	pthread_mutex_unlock(&lane->lock);
}

/* Those of several threads may arrive a little out of order (R1). */
static void insert_bar(struct lane *lane, const struct bar *bar)
{
	size_t place = lane->bar_count;

	lane->bars = grow(lane->bars, lane->bar_count, &lane->bar_capacity, sizeof(*lane->bars));
	for (; place && lane->bars[place - 1].start > bar->start; place--)
		lane->bars[place] = lane->bars[place - 1];
	lane->bars[place] = *bar;
	lane->bar_count++;
}

void record_activity(struct lane *lane, const struct activity *activity)
{
	struct bar bar = {
		.start = activity->start,
		.end = activity->end,
		.number = activity->number,
		.group = activity->group,
		.attempt = 1,
		.how = BAR_DONE,
	};

	pthread_mutex_lock(&lane->lock);
	lane->jobs++;
	insert_bar(lane, &bar);
	samples_add(&lane->waits, activity->start - activity->asked);
	samples_add(&lane->works, activity->end - activity->start);
	pthread_mutex_unlock(&lane->lock);
}

const char *mark_name(enum lf_queue_event_kind kind)
{
	switch (kind) {
	case LF_QUEUE_FAULT_HANG:
		return "hang";
	case LF_QUEUE_FAULT_LOST_INTERRUPT:
		return "lost interrupt";
	case LF_QUEUE_FAULT_LATE:
		return "late interrupt";
	case LF_QUEUE_FAULT_REORDER:
		return "reordered interrupt";
	case LF_QUEUE_RESET:
		return "reset";
	case LF_QUEUE_LOST:
		return "engine lost";
	default:
		return "event";
	}
}

/* --- Times -------------------------------------------------------------------------------------------------------------- */

static void stretch(int64_t *start, int64_t *end, int64_t from, int64_t to)
{
	*start = from < *start ? from : *start;
	*end = to > *end ? to : *end;
}

void record_span(const struct record *r, int64_t *ret_start, int64_t *ret_end)
{
	int64_t start = INT64_MAX;
	int64_t end = INT64_MIN;

	for (size_t i = 0; i < r->lane_count; i++) {
		const struct lane *lane = r->lanes[i];

		for (size_t k = 0; k < lane->bar_count; k++)
			stretch(&start, &end, lane->bars[k].start, lane->bars[k].end);
		for (size_t k = 0; k < lane->mark_count; k++)
			stretch(&start, &end, lane->marks[k].time, lane->marks[k].time);
	}
	*ret_start = start <= end ? start : 0;
	*ret_end = start < end ? end : *ret_start + 1;
}

int64_t lane_bar_end(const struct lane *lane, size_t bar)
{
	int64_t end = lane->bars[bar].end;

	if (bar + 1 < lane->bar_count && lane->bars[bar + 1].start < end)
		return lane->bars[bar + 1].start;
	return end;
}

/* --- Table -------------------------------------------------------------------------------------------------------------- */

/* What a row shows: a lane, or the sum of all. */
struct row {
	const char *name;
	uint64_t jobs, runs, failed, resets, lost;
	struct samples waits, works; /* copies, since asking for a percentile sorts */
};

static void row_add(struct row *row, const struct lane *lane)
{
	row->jobs += lane->jobs;
	row->runs += lane->bar_count;
	row->failed += lane->failed;
	row->resets += lane->resets;
	row->lost += lane->lost;
	samples_append(&row->waits, &lane->waits);
	samples_append(&row->works, &lane->works);
}

/* A job has two fences, scheduled and finished. */
static void print_row(struct row *row, FILE *out)
{
	fprintf(out, "%-16s %7" PRIu64 " %7" PRIu64 " %7" PRIu64 " %7" PRIu64 " %7" PRIu64 " %7" PRIu64 " %10s %10s %10s %10s\n", row->name,
		row->jobs, 2 * row->jobs, row->runs, row->failed, row->resets, row->lost,
		duration_text(samples_percentile(&row->waits, 50)).chars, duration_text(samples_percentile(&row->waits, 99)).chars,
		duration_text(samples_percentile(&row->works, 50)).chars, duration_text(samples_percentile(&row->works, 99)).chars);
	samples_free(&row->waits);
	samples_free(&row->works);
}

void record_print_table(const struct record *r, const char *title, FILE *out)
{
	struct row total = { .name = "total" };

	fprintf(out, "%-16s %7s %7s %7s %7s %7s %7s %21s %21s\n", "", "", "", "", "", "", "engines", "submit -> run ", "run -> signal ");
	fprintf(out, "%-16s %7s %7s %7s %7s %7s %7s %10s %10s %10s %10s\n", title, "jobs", "fences", "runs", "failed", "resets", "lost",
		"p50", "p99", "p50", "p99");
	for (size_t i = 0; i < r->lane_count; i++) {
		struct row row = { .name = r->lanes[i]->name };

		if (r->lanes[i]->kind != LANE_ENGINE)
			continue;
		row_add(&row, r->lanes[i]);
		row_add(&total, r->lanes[i]);
		print_row(&row, out);
	}
	print_row(&total, out);
}

static void print_activity(struct lane *lane, FILE *out)
{
	fprintf(out, "%-16s %7" PRIu64 " %10s %10s %10s %10s\n", lane->name, lane->jobs,
		duration_text(samples_percentile(&lane->waits, 50)).chars, duration_text(samples_percentile(&lane->waits, 99)).chars,
		duration_text(samples_percentile(&lane->works, 50)).chars, duration_text(samples_percentile(&lane->works, 99)).chars);
}

void record_print_activities(const struct record *r, FILE *out)
{
	fprintf(out, "%-16s %7s %21s %21s\n", "", "", "asked -> start ", "start -> end ");
	fprintf(out, "%-16s %7s %10s %10s %10s %10s\n", "memory", "count", "p50", "p99", "p50", "p99");
	for (size_t i = 0; i < r->lane_count; i++) {
		if (r->lanes[i]->kind == LANE_ACTIVITY)
			print_activity(r->lanes[i], out);
	}
}

/* --- Timeline ----------------------------------------------------------------------------------------------------------- */

/* The format wants microseconds. */
static double microseconds(int64_t ns)
{
	return (double)ns / 1000;
}

static const char *how_text(enum bar_end how)
{
	switch (how) {
	case BAR_DONE:
		return "done";
	case BAR_FAILED:
		return "failed";
	case BAR_HUNG:
		return "hung";
	default:
		return "unfinished";
	}
}

static void write_thread_name(FILE *out, size_t tid, const char *name)
{
	fprintf(out, ",\n{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":1,\"tid\":%zu,\"args\":{\"name\":\"", tid);
	write_quoted(out, name, QUOTE_JSON);
	fprintf(out, "\"}},\n{\"ph\":\"M\",\"name\":\"thread_sort_index\",\"pid\":1,\"tid\":%zu,\"args\":{\"sort_index\":%zu}}", tid, tid);
}

static void write_bar(const struct record *r, FILE *out, size_t tid, size_t index, int64_t origin)
{
	const struct lane *lane = r->lanes[tid - 1];
	const struct bar *bar = &lane->bars[index];
	int64_t length = lane_bar_end(lane, index) - bar->start;

	fprintf(out, ",\n{\"ph\":\"X\",\"pid\":1,\"tid\":%zu,\"ts\":%.3f,\"dur\":%.3f,\"cat\":\"%s\",\"name\":\"", tid,
		microseconds(bar->start - origin), microseconds(length), lane->kind == LANE_ENGINE ? "job" : "memory");
	write_quoted(out, r->groups[bar->group], QUOTE_JSON);
	fprintf(out, " #%" PRIu64 "\",\"args\":{\"attempt\":%u,\"result\":\"%s\"}}", bar->number, bar->attempt, how_text(bar->how));
}

/* An arrow from the first job of a flow to the next; it must lie inside the bars to be found. */
static void write_flow(const struct bar *bar, FILE *out, size_t tid, bool first, int64_t origin)
{
	fprintf(out, ",\n{\"ph\":\"%s\",\"pid\":1,\"tid\":%zu,\"ts\":%.3f,\"cat\":\"data\",\"name\":\"data\",\"id\":%" PRIu64 "%s}",
		first ? "s" : "f", tid, microseconds(bar->start - origin), bar->flow, first ? "" : ",\"bp\":\"e\"");
}

static void write_lane(const struct record *r, FILE *out, size_t tid, int64_t origin)
{
	const struct lane *lane = r->lanes[tid - 1];

	write_thread_name(out, tid, lane->name);
	for (size_t i = 0; i < lane->bar_count; i++) {
		write_bar(r, out, tid, i, origin);
		if (lane->bars[i].flow && lane->bars[i].how == BAR_DONE)
			write_flow(&lane->bars[i], out, tid, tid == 1, origin);
	}
	for (size_t i = 0; i < lane->mark_count; i++)
		fprintf(out, ",\n{\"ph\":\"i\",\"s\":\"t\",\"pid\":1,\"tid\":%zu,\"ts\":%.3f,\"cat\":\"fault\",\"name\":\"%s\"}", tid,
			microseconds(lane->marks[i].time - origin), mark_name(lane->marks[i].kind));
}

void record_write_timeline(const struct record *r, FILE *out)
{
	int64_t origin;
	int64_t end;

	record_span(r, &origin, &end);
	fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n"
	      "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":1,\"args\":{\"name\":\"minigpu\"}}",
		out);
	for (size_t tid = 1; tid <= r->lane_count; tid++)
		write_lane(r, out, tid, origin);
	fputs("\n]}\n", out);
}
