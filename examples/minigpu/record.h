/* SPDX-License-Identifier: MIT */
/**
 * @file
 * What engines did: every run of a job as a bar, every fault as a mark, and the latencies.
 *
 * A lane belongs to an engine (it survives the queue behind it, when that is lost and replaced), or to an *activity*: a kind of work that
 * is worth a lane of its own, whoever does it. Jobs are told apart by the group they belong to, a file or a context, which gives them
 * their colour, and by their number in it.
 */
#ifndef MINIGPU_RECORD_H
#define MINIGPU_RECORD_H

#include <pthread.h>
#include <stdbool.h>

#include <libfence/queue.h>

#include "util.h"

/** How a run ended. */
enum bar_end { BAR_OPEN, BAR_DONE, BAR_FAILED, BAR_HUNG };

/** One run of a job. */
struct bar {
	int64_t start; /**< ns */
	int64_t end; /**< ns; of the run, or of the interrupt that told of it */
	uint64_t number; /**< of the job in its group */
	uint64_t flow; /**< jobs with the same flow, not 0, hand data on to each other */
	uint32_t group;
	uint32_t attempt; /**< 1 for the first run */
	enum bar_end how;
};

/** One thing that went wrong. */
struct mark {
	int64_t time; /**< ns */
	enum lf_queue_event_kind kind;
};

/** What a lane belongs to. */
enum lane_kind { LANE_ENGINE, LANE_ACTIVITY };

/** An engine or an activity. Its arrays may be read when the queues are closed. */
struct lane {
	char *name; /**< immutable */
	enum lane_kind kind; /**< immutable */
	pthread_mutex_t lock; /**< protects all below: the engine's thread and the one that pushes jobs both tell of events */
	struct bar *bars; /**< in the order of their starts */
	size_t bar_count, bar_capacity;
	struct mark *marks;
	size_t mark_count, mark_capacity;
	uint64_t jobs, failed, resets, lost;
	struct samples waits; /**< submit -> first run */
	struct samples works; /**< first run -> signal */
	struct samples wholes; /**< submit -> signal */
};

/** All engines, and the names of the groups. */
struct record {
	struct lane **lanes;
	size_t lane_count, lane_capacity;
	char **groups;
	size_t group_count, group_capacity;
};

/** The first member of the data of every job whose queue is observed. */
struct record_job {
	uint32_t group;
	uint64_t number;
	uint64_t flow;
	/* The rest is protected by the lane's lock. */
	int64_t queued;
	size_t bar; /**< 1 + index of the open bar; 0 for none */
	int64_t first_run;
	uint32_t attempts;
};

void record_init(struct record *r);
void record_fini(struct record *r);

/** @return a new lane, which lives as long as the record. */
struct lane *record_add_lane(struct record *r, const char *name, enum lane_kind kind);

/** @return the number of a new group. */
uint32_t record_add_group(struct record *r, const char *name);

/** The observe hook; @p lane is its user pointer. */
void record_observe(void *lane, const struct lf_queue_event *event);

/** Something that was asked for and done. Times are ns. */
struct activity {
	uint32_t group;
	uint64_t number; /**< in the group */
	int64_t asked;
	int64_t start;
	int64_t end;
};

/** Adds it to a lane of that kind. */
void record_activity(struct lane *lane, const struct activity *activity);

/** The time from the first to the last thing that is drawn. */
void record_span(const struct record *r, int64_t *ret_start, int64_t *ret_end);

/** When the engine was free again: bars may end after the next begins, because an interrupt came late; drawn, they do not overlap. */
int64_t lane_bar_end(const struct lane *lane, size_t bar);

/** Prints a row an engine, and their total. */
void record_print_table(const struct record *r, const char *title, FILE *out);

/** Prints a row an activity. */
void record_print_activities(const struct record *r, FILE *out);

/** Writes Chrome's trace event format, which ui.perfetto.dev reads. */
void record_write_timeline(const struct record *r, FILE *out);

/** What a picture says in words. */
struct picture {
	const char *title;
	const char *subtitle;
	const char *group_noun; /**< what a colour stands for: "file" */
	const char *number_noun; /**< what the number in a bar is: "chunk of the file" */
};

/** Writes the picture as SVG. */
void picture_write(const struct record *r, const struct picture *what, FILE *out);

/** @return what a mark is called. */
const char *mark_name(enum lf_queue_event_kind kind);

#endif /* MINIGPU_RECORD_H */
