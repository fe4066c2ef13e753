/* SPDX-License-Identifier: MIT */
/*
 * The emulated GPU: a copy engine, two digest engines, device memory in blocks.
 *
 * Purpose. An engine is a queue with a thread of its own; device memory is memory that only the jobs of engines touch. Who may use
 * which block when is the driver's business (hash.c), which says so with fences in the block's reservation.
 *
 * Not here: what the jobs do, and what happens when they fail.
 */
#include "gpu.h"

#include <stdlib.h>

static const char *const engine_names[ENGINES] = { "copy", "digest 0", "digest 1" };

static void open_engine(struct gpu *gpu, enum engine engine, struct lf_queue_faults faults)
{
	struct lf_queue_desc desc = {
		.name = engine_names[engine],
		.mode = LF_QUEUE_THREAD,
		.timeout = options_timeout(gpu->options),
		.ops = gpu->ops[engine],
		.faults = faults,
		.observe = record_observe,
		.user = gpu->lanes[engine],
	};

	must(lf_queue_create(&desc, &gpu->queues[engine]), "cannot start an engine");
}

static void close_engine(struct gpu *gpu, enum engine engine)
{
	lf_queue_close(gpu->queues[engine], LF_DEADLINE_NEVER);
	lf_queue_put(gpu->queues[engine]);
	gpu->queues[engine] = NULL;
}

static void memory_init(struct memory *m, size_t count)
{
	*m = (struct memory){ .blocks = allocate(count, sizeof(struct block)), .count = count, .bytes = allocate(count, BLOCK_SIZE) };
	for (size_t i = 0; i < count; i++) {
		lf_resv_init(&m->blocks[i].resv, NULL);
		m->blocks[i].bytes = m->bytes + i * BLOCK_SIZE;
	}
}

static void memory_fini(struct memory *m)
{
	for (size_t i = 0; i < m->count; i++)
		lf_resv_fini(&m->blocks[i].resv);
	free(m->blocks);
	free(m->bytes);
}

void gpu_init(struct gpu *gpu, const struct options *options, struct record *record, const struct lf_queue_ops *copy_ops,
	const struct lf_queue_ops *digest_ops)
{
	*gpu = (struct gpu){ .options = options };
	memory_init(&gpu->device, options->memory_mib);
	memory_init(&gpu->staging, STAGING_SLOTS);
	for (unsigned i = 0; i < ENGINES; i++) {
		gpu->ops[i] = i == COPY_ENGINE ? copy_ops : digest_ops;
		gpu->lanes[i] = record_add_lane(record, engine_names[i]);
		open_engine(gpu, i, options_faults(options, i, i == FIRST_DIGEST));
	}
}

void gpu_stop(struct gpu *gpu)
{
	for (unsigned i = 0; i < ENGINES; i++)
		close_engine(gpu, i);
}

void gpu_fini(struct gpu *gpu)
{
	memory_fini(&gpu->device);
	memory_fini(&gpu->staging);
}

void gpu_replace_engine(struct gpu *gpu, enum engine engine)
{
	close_engine(gpu, engine);
	open_engine(gpu, engine, options_faults(gpu->options, engine, false));
}
