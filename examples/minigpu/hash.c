/* SPDX-License-Identifier: MIT */
/*
 * minigpu hash: a driver that computes SHA-256 with GPU jobs.
 *
 * Purpose. A file is cut into chunks of one block. Chunks are numbered in the order of their submission over all files; WINDOW of them in a
 * row belong to one of the address spaces, in turn. What happens to chunk n:
 *
 *     read      the CPU reads the file into a staging slot
 *     bind      a buffer is made for it, and bound at free addresses of its space
 *     upload    a job of the copy engine:  slot -> buffer
 *     digest    LOOKAHEAD chunks later, a job of a digest engine:  buffer, state of the file -> state of the file
 *     unbind    behind that
 *     retire    the CPU waits for the digest; buffer and addresses are free for others
 *
 * A job runs when all buffers of its space are in device memory, which is smaller than all spaces together: so between upload and digest
 * a buffer is moved out and in again, in the middle of everything (manager.c). With --chaos more happens than that (chaos.c).
 *
 * Invariants.
 * H1. Running a job again changes nothing: an upload copies the same bytes again, and a digest reads one state of the file and writes the
 *     other (chunk k reads state k % 2 and writes state (k + 1) % 2). So an engine may be reset and run a job twice.
 * H2. A job that needs one that failed does nothing and fails with -ECANCELED (a move: with the error of the move before it). So after a
 *     failure every buffer whose moves succeeded still holds what the chunks that are not digested need, every staging slot what the
 *     chunks that are not uploaded need, and every file its last good state.
 * H3. A digest is printed when the job of the last chunk has succeeded, and by H2 all before it. So it is right or missing.
 *
 * Locking. One thread drives. It locks what a submission needs, and holds nothing when it waits.
 *
 * Files: hash_file.c, hash_jobs.c, hash_recover.c, hash_rounds.c, chaos.c; below them space.c, manager.c, device.c, gpu.c.
 */
#include "hash.h"

#include <inttypes.h>
#include <stdlib.h>

#define REFUSED       100000 /* of a million locks, with --faults: as if another driver had them */
#define MAX_BLOCK     ((size_t)1 << 20)
#define ADDRESS_SPACE ((uint64_t)64 << 20)

/* --- Chunks in flight --------------------------------------------------------------------------------------------------- */

static void digest_next(struct driver *d)
{
	struct chunk *c = ring_chunk(d, d->next_digest++);

	if (c->file->state != FILE_FAILED)
		chunk_digest(d, c);
}

/* Waits for a fence, which may be NULL, until it stays signaled. */
static void wait_for(struct driver *d, struct lf_fence *const *fence)
{
	do {
		if (*fence)
			lf_fence_wait(*fence, LF_DEADLINE_NEVER);
	} while (recover(d));
}

/* What a file has on the GPU goes when nothing more will use it. */
static void settle_file(struct driver *d, struct file *f)
{
	if (!f->in_flight && f->state >= FILE_DONE)
		file_end(d, f);
}

static void retire_oldest(struct driver *d)
{
	struct chunk *c = ring_chunk(d, d->oldest);
	struct file *f = c->file;

	if (d->next_digest == d->oldest)
		digest_next(d);
	wait_for(d, &c->uploaded);
	wait_for(d, &c->digested);
	if (c->last && f->state != FILE_FAILED)
		f->state = FILE_DONE;
	d->bytes += c->size;
	d->oldest++;
	chunk_end(c);
	settle_file(d, f);
	progress("%s of %s, %zu of %zu files", size_text(d->bytes).chars, size_text(d->expected).chars, d->printed, d->file_count);
	file_print_finished(d);
}

/* A place for the CPU to write to: who reads it is waited for. An upload that failed still needs it (H2). */
static unsigned char *take_slot(struct driver *d)
{
	if (d->newest - d->oldest >= STAGING_SLOTS)
		wait_for(d, &ring_chunk(d, d->newest - STAGING_SLOTS)->uploaded);
	return d->staging + d->newest % STAGING_SLOTS * d->block;
}

static void submit_next_chunk(struct driver *d, struct file *f)
{
	unsigned char *slot;
	struct chunk *c;

	if (d->newest - d->oldest == RING_SIZE)
		retire_oldest(d);
	slot = take_slot(d);
	if (f->state != FILE_READING) /* it failed while we waited */
		return;
	c = ring_chunk(d, d->newest);
	*c = (struct chunk){ .file = f, .number = d->newest, .index = f->chunks, .slot = slot };
	if (!file_read(c, d->block))
		return;
	f->chunks++;
	d->newest++;
	chunk_start(d, c);
	chunk_upload(d, c);
	if (d->newest - d->next_digest > LOOKAHEAD)
		digest_next(d);
	if (c->last) {
		f->state = FILE_SUBMITTED;
		file_close(f);
	}
}

static size_t hash_all(struct driver *d)
{
	size_t failed = 0;
	struct file *f;

	while ((f = file_next(d))) {
		submit_next_chunk(d, f);
		chaos_step(d);
	}
	while (d->oldest < d->newest) {
		if (d->next_digest < d->newest)
			digest_next(d);
		retire_oldest(d);
		chaos_step(d);
	}
	file_print_finished(d);
	progress_end();
	for (size_t i = 0; i < d->file_count; i++)
		failed += d->files[i].state != FILE_DONE;
	return failed;
}

/* --- Life --------------------------------------------------------------------------------------------------------------- */

/* A space needs half of device memory for its window; the other half is for the states of files. */
static size_t block_size(uint64_t vram)
{
	size_t block = GPU_PAGE;

	while (block < MAX_BLOCK && block * 2 * 2 * WINDOW <= vram)
		block *= 2;
	return block;
}

static void driver_init(struct driver *d, const struct options *options, struct rounds *rounds, char **names)
{
	struct lane *binds;

	*d = (struct driver){ .options = options, .rounds = rounds, .file_count = rounds->file_count, .block = block_size(options->vram) };
	lf_ticket_class_inject(NULL, options->faults || options->chaos ? REFUSED : 0, (uint32_t)options->seed);
	chaos_init(&d->chaos, options->chaos, options->seed);
	record_init(&d->record);
	gpu_init(&d->gpu, options, &d->record);
	manager_init(&d->manager, &d->gpu, &d->record, (size_t)options->vram);
	binds = record_add_lane(&d->record, "bind", LANE_ACTIVITY);
	for (unsigned i = 0; i < SPACES; i++)
		space_init(&d->spaces[i], &d->manager, i, binds, ADDRESS_SPACE);
	d->staging = allocate(STAGING_SLOTS, d->block);
	d->files = allocate(d->file_count, sizeof(*d->files));
	for (size_t i = 0; i < d->file_count; i++)
		file_init(d, &d->files[i], names[i]);
}

/* Lets everything come to rest: what is recorded may be read afterwards. */
static void driver_stop(struct driver *d)
{
	for (size_t i = 0; i < d->file_count; i++)
		file_end(d, &d->files[i]);
	for (unsigned i = 0; i < SPACES; i++)
		lf_resv_wait(lf_vm_resv(d->spaces[i].vm), LF_USAGE_BOOKKEEP, LF_DEADLINE_NEVER);
	gpu_stop(&d->gpu);
	for (unsigned i = 0; i < SPACES; i++)
		space_fini(&d->spaces[i]);
	lf_reclaim_barrier();
	manager_fini(&d->manager);
}

static void driver_fini(struct driver *d)
{
	free(d->files);
	free(d->staging);
	record_fini(&d->record);
}

/* --- Report ------------------------------------------------------------------------------------------------------------- */

static uint64_t count_binds(const struct driver *d)
{
	uint64_t binds = 0;

	for (unsigned i = 0; i < SPACES; i++)
		binds += d->spaces[i].binds;
	return binds;
}

static void report(struct driver *d, size_t failed, int64_t took)
{
	const struct manager *m = &d->manager;
	double rate = (double)d->bytes / ((double)took / NS_PER_S);

	fputc('\n', stderr);
	record_print_table(&d->record, "engine", stderr);
	fputc('\n', stderr);
	record_print_activities(&d->record, stderr);
	fprintf(stderr, "\n%zu of %zu files, %s through %s of device memory in %s (%s/s)\n", d->file_count - failed, d->file_count,
		size_text(d->bytes).chars, size_text(d->options->vram).chars, duration_text(took).chars, size_text((uint64_t)rate).chars);
	fprintf(stderr,
		"%" PRIu64 " buffers evicted from device memory, %" PRIu64 " of them with jobs pending; %" PRIu64
		" brought back; waited for memory %" PRIu64 " times\n",
		m->evictions, m->busy_evictions, m->returns, m->waits);
	fprintf(stderr, "%" PRIu64 " binds; %" PRIu64 " transactions of locks, rolled back %" PRIu64 " times\n", count_binds(d),
		d->transactions, d->rollbacks);
	if (d->chaos.on)
		fprintf(stderr,
			"chaos: %" PRIu64 " buffers evicted, %" PRIu64 " parts of them bound again, %" PRIu64
			" closed with a job pending\n",
			d->chaos.evictions, d->chaos.rebinds, d->chaos.closes);
}

static void draw(struct driver *d, FILE *out, int64_t took)
{
	uint64_t resets = 0;
	uint64_t lost = 0;
	char subtitle[320];

	for (size_t i = 0; i < d->record.lane_count; i++) {
		resets += d->record.lanes[i]->resets;
		lost += d->record.lanes[i]->lost;
	}
	snprintf(subtitle, sizeof(subtitle),
		"%zu file%s, %s in %s, through %s of device memory; evictions: %" PRIu64 ", binds: %" PRIu64 ", resets: %" PRIu64
		", engines lost: %" PRIu64,
		d->file_count, d->file_count == 1 ? "" : "s", size_text(d->bytes).chars, duration_text(took).chars,
		size_text(d->options->vram).chars, d->manager.evictions, count_binds(d), resets, lost);
	picture_write(&d->record, &(struct picture){ "SHA-256 on an emulated GPU", subtitle, "file", "chunk of the file (from 0)" }, out);
}

static void hash_once(const struct options *options, struct rounds *rounds, char **names)
{
	struct driver *driver = allocate(1, sizeof(*driver));
	int64_t start = lf_now();
	int64_t took;
	size_t failed;

	driver_init(driver, options, rounds, names);
	failed = hash_all(driver);
	driver_stop(driver);
	took = lf_now() - start;
	if (!rounds->repeats)
		report(driver, failed, took);
	rounds_end(rounds, driver, failed, took);
	if (options->trace)
		record_write_timeline(&driver->record, options->trace);
	if (options->svg)
		draw(driver, options->svg, took);
	driver_fini(driver);
	free(driver);
}

int hash_command(const struct options *options, int count, char **names)
{
	struct options round = *options;
	struct rounds rounds;

	rounds_init(&rounds, options, (size_t)count);
	do {
		hash_once(&round, &rounds, names);
		round.seed++;
	} while (rounds_go_on(&rounds));
	return rounds_fini(&rounds) ? EXIT_SUCCESS : EXIT_FAILURE;
}
