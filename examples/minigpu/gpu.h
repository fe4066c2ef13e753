/* SPDX-License-Identifier: MIT */
/**
 * @file
 * The emulated GPU of `minigpu hash`: three engines and memory in blocks.
 */
#ifndef MINIGPU_GPU_H
#define MINIGPU_GPU_H

#include "minigpu.h"
#include "record.h"

#define BLOCK_SIZE     ((size_t)1 << 20) /**< of device memory, and of a slot of the staging area */
#define STAGING_SLOTS  4 /**< memory that both the CPU and the copy engine see */
#define DIGEST_ENGINES 2

/** The copy engine first; digest engine n is FIRST_DIGEST + n. */
enum engine { COPY_ENGINE, FIRST_DIGEST, ENGINES = FIRST_DIGEST + DIGEST_ENGINES };

/** A piece of memory that engines work on. */
struct block {
	struct lf_resv resv; /**< the jobs that use it */
	unsigned char *bytes; /**< BLOCK_SIZE of them */
};

/** Memory of one kind. */
struct memory {
	struct block *blocks;
	size_t count;
	size_t next; /**< the driver's: looked at first when a block is taken */
	unsigned char *bytes; /**< of all blocks */
};

/** The device. */
struct gpu {
	const struct options *options;
	struct lf_queue *queues[ENGINES];
	struct lane *lanes[ENGINES];
	const struct lf_queue_ops *ops[ENGINES];
	struct memory device;
	struct memory staging; /**< STAGING_SLOTS blocks */
};

/** Makes the device. @p copy_ops and @p digest_ops are borrowed until gpu_stop(). Ends the process when it cannot. */
void gpu_init(struct gpu *gpu, const struct options *options, struct record *record, const struct lf_queue_ops *copy_ops,
	const struct lf_queue_ops *digest_ops);

/** Closes the engines. After that nothing more is recorded, and the record may be read. */
void gpu_stop(struct gpu *gpu);

/** Frees the memory of a device that has been stopped. */
void gpu_fini(struct gpu *gpu);

/** Puts a new engine in the place of a lost one, all of whose jobs have completed. */
void gpu_replace_engine(struct gpu *gpu, enum engine engine);

#endif /* MINIGPU_GPU_H */
