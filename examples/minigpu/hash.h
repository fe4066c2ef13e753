/* SPDX-License-Identifier: MIT */
/**
 * @file
 * The parts of `minigpu hash`: a driver that computes SHA-256 with GPU jobs. See hash.c for how they work together.
 */
#ifndef MINIGPU_HASH_H
#define MINIGPU_HASH_H

#include <sys/types.h>

#include "chaos.h"
#include "space.h"

#define WINDOW        4 /**< chunks in a row that belong to one space */
#define RING_SIZE     (SPACES * WINDOW) /**< chunks in flight */
#define LOOKAHEAD     (RING_SIZE / 2) /**< chunks that are uploaded before the first of them is digested */
#define STAGING_SLOTS 4
#define OPEN_FILES    (2 * DIGEST_ENGINES)
#define HASH_SIZE     32

enum file_state { FILE_WAITING, FILE_READING, FILE_SUBMITTED, FILE_DONE, FILE_FAILED };

/** A file. */
struct file {
	const char *name;
	enum file_state state;
	int fd;
	off_t size; /**< when it was opened; 0 for what has no size */
	uint64_t bytes; /**< read so far */
	uint64_t chunks; /**< read so far */
	unsigned in_flight; /**< of those */
	enum engine engine;
	uint32_t group;
	struct buffer *digest; /**< of GPU memory, with both states (H1); NULL before the first chunk and after the last */
	uint64_t va[SPACES]; /**< where it is bound */
	struct lf_fence *bound[SPACES]; /**< NULL where it is not */
	struct lf_fence *digested; /**< the job that uses the states last */
	unsigned char hash[HASH_SIZE]; /**< written by the last chunk's job */
};

/** A piece of a file. */
struct chunk {
	struct file *file;
	uint64_t number; /**< of all chunks */
	uint64_t index; /**< in its file */
	size_t size;
	bool last; /**< of its file */
	unsigned char *slot; /**< of the staging area; its content until it is uploaded */
	struct space *space;
	struct buffer *buffer; /**< its content from then on */
	uint64_t va; /**< where that is bound in the space */
	struct lf_fence *bound; /**< out-fence of the last bind */
	struct lf_fence *uploaded; /**< finished fence */
	struct lf_fence *digested; /**< finished fence; NULL: not submitted yet */
};

/** A digest that some round has computed. */
struct known {
	bool is;
	unsigned char hash[HASH_SIZE];
};

/** What stays from one round to the next. */
struct rounds {
	uint64_t count; /**< of those that have ended */
	uint64_t repeat; /**< how many there are at least */
	int64_t until; /**< none begins after it; 0: when there were enough */
	bool repeats; /**< there may be more than one */
	bool failed; /**< for another reason than the loss of the device */
	struct known *known; /**< one a file */
	size_t file_count;
};

/** All of it, in one round. */
struct driver {
	const struct options *options;
	struct rounds *rounds;
	struct gpu gpu;
	struct manager manager;
	struct space spaces[SPACES];
	struct chaos chaos;
	struct record record;
	size_t block; /**< bytes of a chunk, but the last of a file */
	unsigned char *staging; /**< STAGING_SLOTS blocks */
	struct file *files;
	size_t file_count;
	size_t next_file; /**< to be opened */
	size_t printed; /**< files whose line is out, or that failed */
	struct file *open[OPEN_FILES];
	unsigned turn;
	bool lost; /**< the device */
	uint64_t transactions, rollbacks; /**< of locks */
	struct chunk ring[RING_SIZE];
	uint64_t oldest, next_digest, newest; /**< chunks in flight are oldest .. newest - 1 */
	uint64_t bytes; /**< retired */
	uint64_t expected; /**< bytes of all files that have a size; for the progress line only */
};

/** @return the chunk in flight of this number. */
static inline struct chunk *ring_chunk(struct driver *d, uint64_t number)
{
	return &d->ring[number % RING_SIZE];
}

/* --- hash_file.c: files in, lines out ----------------------------------------------------------------------------------- */

void file_init(struct driver *d, struct file *f, const char *name);

/** Gives up on a file, once. */
void file_fail(struct file *f, const char *reason);

/** @return the file whose turn it is; NULL when all are read. */
struct file *file_next(struct driver *d);

/** Reads the next chunk of a file into its slot. @return whether there was one; if not, the file has failed. */
bool file_read(struct chunk *c, size_t block);

/** Says that nothing more is read. */
void file_close(struct file *f);

/** Prints what is done, if no round before did: in the order of the arguments, each line as soon as the ones before it are out. */
void file_print_finished(struct driver *d);

/* --- hash_jobs.c: from chunks to jobs ----------------------------------------------------------------------------------- */

/** Gives a chunk that was read its buffer, bound in its space. */
void chunk_start(struct driver *d, struct chunk *c);

/** Pushes the job that copies the slot into the buffer. */
void chunk_upload(struct driver *d, struct chunk *c);

/** Pushes the job that digests the buffer, and unbinds the buffer behind it. */
void chunk_digest(struct driver *d, struct chunk *c);

/** Whether its buffer is bound in its space. */
bool chunk_is_bound(const struct chunk *c);

/** Lets go of everything. What still runs is not hurt. */
void chunk_end(struct chunk *c);

/** Lets go of a file's GPU memory. */
void file_end(struct driver *d, struct file *f);

/* --- hash_recover.c: when jobs fail ------------------------------------------------------------------------------------- */

/**
 * To be called after each wait: if a job in flight has failed, waits for all and pushes again what has to be.
 *
 * @return whether there was something to do; then what was waited for may be in use again.
 */
bool recover(struct driver *d);

/* --- hash_rounds.c: again and again ------------------------------------------------------------------------------------- */

/** Before anything of the library is used. */
void rounds_init(struct rounds *r, const struct options *options, size_t file_count);

/** Holds a digest against that of earlier rounds. @return whether it is the first one, so that it has to be printed. */
bool rounds_keep(struct rounds *r, size_t file, const struct file *f);

/** Ends a round, and, if there may be more, says how it was and what is left of it. @p failed: files without a digest. */
void rounds_end(struct rounds *r, const struct driver *d, size_t failed, int64_t took);

/** @return whether there is another round. */
bool rounds_go_on(const struct rounds *r);

/** @return whether all is well: each file has a digest, and always the same. */
bool rounds_fini(struct rounds *r);

#endif /* MINIGPU_HASH_H */
