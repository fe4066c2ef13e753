/* SPDX-License-Identifier: MIT */
/*
 * The engines: a copy engine and two digest engines.
 *
 * Purpose. An engine is a queue with a thread of its own. What it runs is an op: a function, and the fences of what must have gone well
 * before.
 *
 * Why an op keeps fences. A reservation says what is pending and forgets what has completed, with its error; and of two dependencies on one
 * timeline a queue keeps the later. So what must have *succeeded* is kept by name, and asked when the op runs.
 *
 * Running an op again changes nothing: that is the business of whoever wrote it. So a reset may retry all, the guilty one too, but not for
 * ever.
 *
 * Not here: memory (device.c, manager.c), and what happens when an op fails (recover.c).
 */
#include "gpu.h"

#include <stdlib.h>

#include "chaos.h"

#define MAX_RUNS 16 /* of one op, before it is given up */

static const char *const engine_names[ENGINES] = { "copy", "digest 0", "digest 1" };

/* --- Ops ---------------------------------------------------------------------------------------------------------------- */

void op_need(struct op *op, struct lf_fence *fence)
{
	if (!fence)
		return;
	if (op->need_count == OP_NEEDS)
		die("an op needs too much");
	op->needs[op->need_count++] = lf_fence_get(fence);
}

int op_error(const struct op *op)
{
	for (unsigned i = 0; i < op->need_count; i++) {
		int status = lf_fence_status(op->needs[i]);

		if (status < 0)
			return status;
	}
	return 0;
}

static int run_op(struct lf_job *job, void *data)
{
	struct op *op = data;

	(void)job;
	return op->run(op);
}

static enum lf_reset_verdict retry_op(struct lf_job *job, void *data, bool guilty)
{
	(void)data;
	return guilty && lf_job_runs(job) >= MAX_RUNS ? LF_RESET_FAIL : LF_RESET_RETRY;
}

static void free_op(void *data)
{
	struct op *op = data;

	for (unsigned i = 0; i < op->need_count; i++)
		lf_fence_put(op->needs[i]);
	if (op->fini)
		op->fini(op);
	free(op);
}

/* --- Engines ------------------------------------------------------------------------------------------------------------ */

static const struct lf_queue_ops engine_ops = { .run = run_op, .reset = retry_op };

static void open_engine(struct gpu *gpu, enum engine engine, bool replacement)
{
	struct lf_queue_desc desc = {
		.name = engine_names[engine],
		.mode = LF_QUEUE_THREAD,
		.timeout = options_timeout(gpu->options),
		.ops = &engine_ops,
		.faults = options_faults(gpu->options, engine, engine == FIRST_DIGEST && !replacement),
		.observe = record_observe,
		.user = gpu->lanes[engine],
	};

	if (gpu->options->chaos && !replacement && !desc.faults.lose_engine_at)
		desc.faults.lose_engine_at = chaos_lose_at(gpu->options->seed, engine);
	must(lf_queue_create(&desc, &gpu->queues[engine]), "cannot start an engine");
}

static void close_engine(struct gpu *gpu, enum engine engine)
{
	lf_queue_close(gpu->queues[engine], LF_DEADLINE_NEVER);
	lf_queue_put(gpu->queues[engine]);
	gpu->queues[engine] = NULL;
}

void gpu_init(struct gpu *gpu, const struct options *options, struct record *record)
{
	*gpu = (struct gpu){ .options = options };
	for (unsigned i = 0; i < ENGINES; i++) {
		gpu->lanes[i] = record_add_lane(record, engine_names[i], LANE_ENGINE);
		open_engine(gpu, i, false);
	}
}

void gpu_stop(struct gpu *gpu)
{
	for (unsigned i = 0; i < ENGINES; i++) {
		if (gpu->last[i])
			lf_fence_wait(gpu->last[i], LF_DEADLINE_NEVER);
		replace_fence(&gpu->last[i], NULL);
		close_engine(gpu, i);
	}
}

void gpu_replace_engine(struct gpu *gpu, enum engine engine)
{
	close_engine(gpu, engine);
	open_engine(gpu, engine, true);
}

/* --- Jobs --------------------------------------------------------------------------------------------------------------- */

struct lf_job *gpu_job(struct gpu *gpu, enum engine engine, struct op *op)
{
	struct lf_job_desc desc = { .data = op, .release = free_op };
	struct lf_job *job;

	must(lf_job_create(gpu->queues[engine], &desc, &job), "cannot make a job");
	for (unsigned i = 0; i < op->need_count; i++)
		must(lf_job_add_dependency(job, op->needs[i]), "cannot add a dependency");
	return job;
}

void gpu_wait_for(struct lf_job *job, const struct lf_resv *resv, enum lf_usage usage)
{
	struct lf_resv_cursor cursor;
	struct lf_fence *fence;

	lf_resv_cursor_begin(&cursor, resv, usage);
	while ((fence = lf_resv_cursor_next(&cursor)))
		must(lf_job_add_dependency(job, fence), "cannot add a dependency");
}

struct lf_fence *gpu_push(struct gpu *gpu, enum engine engine, struct lf_job *job)
{
	struct lf_fence *finished;

	must(lf_job_push(job, &finished), "cannot push a job");
	lf_job_put(job);
	replace_fence(&gpu->last[engine], lf_fence_get(finished));
	return finished;
}
