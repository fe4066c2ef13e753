/* SPDX-License-Identifier: MIT */
/**
 * @file
 * The parts of `minigpu replay`: the jobs of a recorded trace, through timelines and queues. See replay.c for how they work together.
 */
#ifndef MINIGPU_REPLAY_H
#define MINIGPU_REPLAY_H

#include <inttypes.h>

#include "minigpu.h"
#include "model.h"
#include "record.h"

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

/** Counts a violation of the replay, and names it. */
void player_violation(struct player *p, const struct job *job, const char *what);

/** @return a duration of the record as the replay plays it, in ns. */
int64_t player_scaled(const struct player *p, int64_t ns);

/** @return the time of the replay's clock. */
int64_t player_now(const struct player *p);

/* --- replay_engines.c: from jobs to queues, and back to the fences of contexts ------------------------------------------- */

/** Makes the queue of a ring. */
void player_open_engine(struct player *p, size_t ring, bool replacement);

/** Closes it. */
void player_close_engine(struct player *p, size_t ring);

/** Submits a job as the record did. */
void player_submit(struct player *p, size_t index);

/** @return a new fence of a context or a track. */
struct lf_fence *player_emit(struct lf_timeline *timeline, uint64_t seqno);

/** Puts a new engine in the place of a lost one, and pushes its jobs again. @return whether one was lost. */
bool player_replace_lost_engine(struct player *p);

/** @return what a ring is called. */
const char *player_ring_name(const struct player *p, size_t ring);

/* --- replay_setup.c: the player's life ----------------------------------------------------------------------------------- */

void player_init(struct player *p, const struct options *options, struct model *m);
void player_fini(struct player *p);

/* --- replay_report.c: what comes out of it ------------------------------------------------------------------------------- */

/** Prints what record and replay have in common, and what not. */
void player_print_report(struct player *p);

/** Draws what the engines did. */
void player_draw(struct player *p, FILE *out);

#endif /* MINIGPU_REPLAY_H */
