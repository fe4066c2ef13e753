/* SPDX-License-Identifier: MIT */
/**
 * @file
 * What a trace says: jobs, the rings they ran on, their contexts, and the fences that belong to no job.
 */
#ifndef MINIGPU_MODEL_H
#define MINIGPU_MODEL_H

#include "trace_parse.h"
#include "util.h"

/** A time that was not recorded. */
#define NOT_RECORDED INT64_MIN

struct job;

/** A hardware ring. */
struct ring {
	uint32_t name; /**< string of the trace */
	uint32_t device; /**< string */
	size_t index;
};

/** A context of jobs: its number is that of their finished fences, the one below that of their scheduled fences. */
struct context {
	uint64_t number;
	size_t index;
	struct ring *ring; /**< of its first job */
};

/** What a job waits for. */
struct dependency {
	struct dependency *next;
	struct job *on;
	bool scheduled; /**< its scheduled fence, not the finished one */
};

/** A job. Times are ns of the record, or NOT_RECORDED. */
struct job {
	uint64_t seqno;
	struct context *context;
	struct ring *ring;
	int64_t submit;
	int64_t run;
	int64_t scheduled;
	int64_t signal;
	int64_t enter; /**< when the replay submits it: always a time */
	int64_t duration; /**< how long the engine worked on it, or the median of its ring where that is not known */
	struct dependency *dependencies;
	uint32_t line; /**< where it appears first */
	size_t index;
};

/** A context as fences show it. A number alone is not enough: context 0 belongs to several rings in old traces. */
struct track {
	uint32_t driver; /**< string; TRACK_OF_DONE for drm_sched_job_done, which tells no driver */
	uint32_t name; /**< string */
	uint64_t context;
	uint64_t last_seqno; /**< signaled */
	size_t signals;
	size_t index;
};

#define TRACK_OF_DONE UINT32_MAX

/** A fence that belongs to no job: of a hardware ring, a display, another driver. */
struct lone_fence {
	struct track *track;
	uint64_t seqno;
	int64_t signal;
};

/** Everything. */
struct model {
	const struct trace *trace;
	struct job **jobs; /**< by context and seqno */
	size_t job_count, job_capacity;
	struct context **contexts;
	size_t context_count, context_capacity;
	struct ring **rings;
	size_t ring_count, ring_capacity;
	struct track **tracks;
	size_t track_count, track_capacity;
	struct lone_fence **fences; /**< by track and seqno */
	size_t fence_count, fence_capacity;
	size_t violations; /**< of the record */
	size_t complaints; /**< printed, of record and replay */
	void *job_tree, *context_tree, *track_tree, *fence_tree; /**< while it is built */
};

/** Makes sense of a trace, which must outlive the model, and checks the record. */
void model_init(struct model *m, const struct trace *trace);
void model_fini(struct model *m);

/** @return how many contexts have a signal in the record. */
size_t model_signaled_contexts(const struct model *m);

/** Names a violation on stderr, up to a limit; counting is the caller's. */
void model_complain(struct model *m, uint32_t line, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif /* MINIGPU_MODEL_H */
