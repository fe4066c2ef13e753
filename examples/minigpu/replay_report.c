/* SPDX-License-Identifier: MIT */
/* What a replay prints and draws. */
#include "replay.h"

#include <stdlib.h>
#include <string.h>

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
	printf("%zu job%s on %zu ring%s; the record lacks %zu submit%s, %zu run%s and %zu signal%s of them\n", m->job_count,
		plural(m->job_count), m->ring_count, plural(m->ring_count), no_submit, plural(no_submit), no_run, plural(no_run), no_signal,
		plural(no_signal));
	printf("%zu event%s of other kinds, %zu malformed line%s\n", m->trace->unknown, plural(m->trace->unknown), m->trace->malformed,
		plural(m->trace->malformed));
}

void player_print_report(struct player *p)
{
	const struct model *m = p->model;
	const struct trace *t = m->trace;
	size_t replay_contexts = 2 * m->context_count;
	size_t runs = 0;

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

void player_draw(struct player *p, FILE *out)
{
	const char *slash = strrchr(p->model->trace->path, '/');
	char title[160];
	char subtitle[320];

	snprintf(title, sizeof(title), "Replay of %s", slash ? slash + 1 : p->model->trace->path);
	snprintf(subtitle, sizeof(subtitle), "%zu jobs of %zu contexts on %zu rings, %s; %zu fences, %zu order violations",
		p->model->job_count, p->model->context_count, p->model->ring_count, p->clock ? "in virtual time" : "in real time",
		p->signals, p->model->violations + p->violations);
	picture_write(&p->record, &(struct picture){ title, subtitle, "context", "sequence number in the context" }, out);
}
