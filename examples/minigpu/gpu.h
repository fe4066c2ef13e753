/* SPDX-License-Identifier: MIT */
/**
 * @file
 * The engines of the emulated GPU, and what they run.
 */
#ifndef MINIGPU_GPU_H
#define MINIGPU_GPU_H

#include "minigpu.h"
#include "record.h"

#define DIGEST_ENGINES 2
#define OP_NEEDS       6

/** The copy engine first; digest engine n is FIRST_DIGEST + n. */
enum engine { COPY_ENGINE, FIRST_DIGEST, ENGINES = FIRST_DIGEST + DIGEST_ENGINES };

/** The engines. */
struct gpu {
	const struct options *options;
	struct lf_queue *queues[ENGINES];
	struct lane *lanes[ENGINES];
	struct lf_fence *last[ENGINES]; /**< what was pushed last */
};

/** What an engine runs: the data of a job. Embed it first, in memory from allocate(). */
struct op {
	struct record_job record; /* first, for the observer */
	int (*run)(struct op *op); /**< may run again after a reset */
	void (*fini)(struct op *op); /**< before it is freed; may be NULL */
	struct lf_fence *needs[OP_NEEDS]; /**< what must have succeeded */
	unsigned need_count;
};

/** Starts the engines. Ends the process when it cannot. */
void gpu_init(struct gpu *gpu, const struct options *options, struct record *record);

/** Waits for the engines, and closes them. After that nothing more is recorded, and the record may be read. */
void gpu_stop(struct gpu *gpu);

/** Puts a new engine in the place of a lost one, all of whose jobs have completed. */
void gpu_replace_engine(struct gpu *gpu, enum engine engine);

/** @p op cannot do its work unless @p fence (may be NULL, which is nothing) has succeeded. Takes a reference. */
void op_need(struct op *op, struct lf_fence *fence);

/** In the run function. @return 0, or the first error among what the op needs. */
int op_error(const struct op *op);

/** Makes a job of an op, which it frees, and which waits for all that the op needs. */
struct lf_job *gpu_job(struct gpu *gpu, enum engine engine, struct op *op);

/** Lets a job wait for what a reservation, which is locked, holds. */
void gpu_wait_for(struct lf_job *job, const struct lf_resv *resv, enum lf_usage usage);

/** Pushes a job of that engine and puts it. @return its finished fence. */
struct lf_fence *gpu_push(struct gpu *gpu, enum engine engine, struct lf_job *job);

#endif /* MINIGPU_GPU_H */
