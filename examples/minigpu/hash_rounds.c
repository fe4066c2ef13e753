/* SPDX-License-Identifier: MIT */
/*
 * `minigpu hash --repeat`, `--minutes`: the same files again and again in one process, each round with a device and a driver of its own
 * and with the next seed.
 *
 * Purpose. What a round leaves behind shows in the rounds after it: the line of each says how many blocks of memory the library has, when
 * all that the round made is gone, and how many wait to be freed. And a digest is computed in every round, but printed once: another one,
 * later, is a mistake.
 *
 * A round whose copy engine is lost for good (chaos) leaves files without a digest. That is no failure, if another round has it.
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"

/* --- Blocks of the library ---------------------------------------------------------------------------------------------- */

static atomic_ulong blocks;

static void *count_alloc(void *user, size_t size, size_t align)
{
	void *memory = aligned_alloc(align, (size + align - 1) / align * align);

	(void)user;
	if (memory)
		atomic_fetch_add_explicit(&blocks, 1, memory_order_relaxed);
	return memory;
}

static void count_free(void *user, void *memory)
{
	(void)user;
	atomic_fetch_sub_explicit(&blocks, 1, memory_order_relaxed);
	free(memory);
}

/* --- Rounds ------------------------------------------------------------------------------------------------------------- */

void rounds_init(struct rounds *r, const struct options *options, size_t file_count)
{
	*r = (struct rounds){ .file_count = file_count, .repeats = options->repeat > 1 || options->minutes };
	r->repeat = options->repeat;
	r->until = options->minutes ? lf_now() + (int64_t)options->minutes * 60 * NS_PER_S : 0;
	r->known = allocate(file_count, sizeof(*r->known));
	if (r->repeats)
		must(lf_set_allocator(&(struct lf_allocator){ .alloc = count_alloc, .free = count_free }), "counting memory");
}

bool rounds_keep(struct rounds *r, size_t file, const struct file *f)
{
	struct known *known = &r->known[file];

	if (!known->is) {
		known->is = true;
		memcpy(known->hash, f->hash, HASH_SIZE);
		return true;
	}
	if (memcmp(known->hash, f->hash, HASH_SIZE)) {
		complain("%s: another digest than before, in round %" PRIu64, f->name, r->count + 1);
		r->failed = true;
	}
	return false;
}

/* A round ends here; all that it made is gone, but for what waits for a grace period. */
static void report(const struct rounds *r, const struct driver *d, size_t failed, int64_t took)
{
	struct lf_reclaim_stats stats;

	lf_reclaim_barrier();
	lf_reclaim_get_stats(&stats);
	fprintf(stderr,
		"round %" PRIu64 ", seed %" PRIu64 ": %zu of %zu files in %s, %" PRIu64 " buffers evicted%s; blocks of memory left: %lu, "
		"waiting to be freed: %" PRIu64 "\n",
		r->count, d->options->seed, d->file_count - failed, d->file_count, duration_text(took).chars, d->manager.evictions,
		d->lost ? ", the device lost" : "", atomic_load_explicit(&blocks, memory_order_relaxed), stats.pending);
}

void rounds_end(struct rounds *r, const struct driver *d, size_t failed, int64_t took)
{
	r->count++;
	r->failed = r->failed || (failed && !d->lost);
	if (r->repeats)
		report(r, d, failed, took);
}

bool rounds_go_on(const struct rounds *r)
{
	return r->count < r->repeat || lf_now() < r->until;
}

bool rounds_fini(struct rounds *r)
{
	bool good = !r->failed;

	for (size_t i = 0; i < r->file_count; i++)
		good = good && r->known[i].is;
	free(r->known);
	return good;
}
