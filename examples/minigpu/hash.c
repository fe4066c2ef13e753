/* SPDX-License-Identifier: MIT */
/*
 * minigpu hash: a driver that computes SHA-256 with GPU jobs.
 *
 * Purpose. A file is cut into chunks of one block. For each chunk the driver reads the file into a staging slot, pushes a copy job
 * (staging -> device block) and a digest job (block -> SHA-256 state of the file). Chunks are numbered in the order of their submission
 * over all files. Device memory is smaller than the files, so a chunk takes the place of an older one: that of one whose jobs are done
 * if there is one, else of any, and then its copy comes after them. What is evicted need not be copied out: it is digested by then.
 *
 * Memory (staging slots, device blocks, states of files) has a reservation each, which says who uses it:
 *
 *     copy(n)    reads its slot, moves into its block (KERNEL)       after  all that uses the block   (dependencies of the job)
 *     digest(n)  reads its block, writes the state of its file       after  copy(n), and the digest of the file's chunk before
 *     read(n)    the CPU writes the slot                             after  all that reads the slot   (the driver waits)
 *     retire(n)                                                      after  digest(n)                 (the driver waits)
 *
 * Invariants.
 * H1. Running a job again changes nothing: a copy copies the same bytes again, and a digest reads one state of the file and writes the
 *     other (chunk k reads state k % 2 and writes state (k + 1) % 2). So an engine may be reset and run a job twice.
 * H2. A job that depends on one that failed does nothing and fails with -ECANCELED. So after a failure every block still holds what
 *     the chunks that are not digested need, every staging slot what the chunks that are not copied need, and every file its last
 *     good state.
 * H3. By H2, recover() only has to wait for all that is in flight and push again what did not succeed, in the order of the chunks.
 *
 * Locking. One thread drives; run hooks touch their chunk between its push and its fence, the driver before and after. It locks the
 * memory of a chunk to push its jobs, and holds nothing when it waits.
 *
 * Not here: engines and memory (gpu.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "gpu.h"

#define OPEN_FILES (2 * DIGEST_ENGINES)
#define HASH_SIZE  32
#define MAX_RUNS   16 /* of one job, before a file is given up */
#define REFUSED    100000 /* of a million locks, with --faults: as if another driver had them */

enum file_state { FILE_WAITING, FILE_READING, FILE_SUBMITTED, FILE_DONE, FILE_FAILED };

struct file {
	const char *name;
	enum file_state state;
	int fd;
	off_t size; /* when it was opened; 0 for what has no size */
	uint64_t bytes; /* read so far */
	uint64_t chunks; /* submitted so far */
	enum engine engine;
	uint32_t group;
	struct lf_resv resv; /* the digests that use the states */
	EVP_MD_CTX *states[2]; /* H1 */
	unsigned char hash[HASH_SIZE]; /* of the last chunk's digest */
};

struct chunk {
	struct file *file;
	uint64_t number; /* of all chunks */
	uint64_t index; /* in its file */
	size_t size;
	bool last; /* of its file */
	struct block *slot; /* until it is copied */
	struct block *block;
	struct lf_fence *copied; /* finished fences */
	struct lf_fence *digested;
};

struct driver {
	struct gpu gpu;
	struct record record;
	struct file *files;
	size_t file_count;
	size_t next_file; /* to be opened */
	size_t printed; /* files whose line is out, or that failed */
	struct file *open[OPEN_FILES];
	unsigned turn;
	uint64_t evictions, busy_evictions; /* busy: its jobs were not done */
	uint64_t transactions, rollbacks; /* of locks */
	struct chunk *ring; /* chunks in flight are oldest .. newest - 1, at number % ring_size */
	size_t ring_size;
	uint64_t oldest, newest;
	uint64_t bytes; /* retired */
	uint64_t expected; /* bytes of all files that have a size; for the progress line only */
};

/* A job's data. It is not in the chunk because the observer may look at it after the chunk is retired. */
struct op {
	struct record_job record; /* first, for the observer */
	struct chunk *chunk;
};

/* --- What the engines do ------------------------------------------------------------------------------------------------ */

static int run_copy(struct lf_job *job, void *data)
{
	struct chunk *c = ((struct op *)data)->chunk;

	if (lf_job_dependency_error(job))
		return -ECANCELED;
	memcpy(c->block->bytes, c->slot->bytes, c->size);
	return 0;
}

/* In a copy, because finishing ends a state, and another run of the job must find it as it was (H1). */
static bool finish_hash(EVP_MD_CTX *state, unsigned char *hash)
{
	EVP_MD_CTX *copy = EVP_MD_CTX_new();
	bool done = copy && EVP_MD_CTX_copy_ex(copy, state) && EVP_DigestFinal_ex(copy, hash, NULL);

	EVP_MD_CTX_free(copy);
	return done;
}

static int run_digest(struct lf_job *job, void *data)
{
	struct chunk *c = ((struct op *)data)->chunk;
	EVP_MD_CTX *before = c->file->states[c->index % 2];
	EVP_MD_CTX *after = c->file->states[(c->index + 1) % 2];

	if (lf_job_dependency_error(job))
		return -ECANCELED;
	if (!EVP_MD_CTX_copy_ex(after, before) || !EVP_DigestUpdate(after, c->block->bytes, c->size))
		return -EIO;
	if (c->last && !finish_hash(after, c->file->hash))
		return -EIO;
	return 0;
}

/* A job is idempotent (H1), so the guilty one may try again as well as the innocent; but not for ever. */
static enum lf_reset_verdict retry(struct lf_job *job, void *data, bool guilty)
{
	(void)data;
	return guilty && lf_job_runs(job) >= MAX_RUNS ? LF_RESET_FAIL : LF_RESET_RETRY;
}

static const struct lf_queue_ops copy_ops = { .run = run_copy, .reset = retry };
static const struct lf_queue_ops digest_ops = { .run = run_digest, .reset = retry };

/* --- Submission --------------------------------------------------------------------------------------------------------- */

/* What a job does with memory. */
struct access {
	struct lf_resv *resv; /* locked */
	enum lf_usage usage;
};

/* Whom it has to wait for. */
static const enum lf_usage usage_before[] = {
	[LF_USAGE_KERNEL] = LF_USAGE_BOOKKEEP,
	[LF_USAGE_WRITE] = LF_USAGE_READ,
	[LF_USAGE_READ] = LF_USAGE_WRITE,
};

/* Looks before it reserves: reserving drops what has signaled, and with it the errors that H2 asks for. */
static void depend(struct lf_job *job, const struct access *access)
{
	struct lf_resv_cursor cursor;
	struct lf_fence *fence;

	lf_resv_cursor_begin(&cursor, access->resv, usage_before[access->usage]);
	while ((fence = lf_resv_cursor_next(&cursor)))
		must(lf_job_add_dependency(job, fence), "cannot add a dependency");
	must(lf_resv_reserve(access->resv, 1), "cannot reserve a place for a fence");
}

static struct op *create_op(struct chunk *c)
{
	struct op *op = allocate(1, sizeof(*op));

	*op = (struct op){
		.record = { .group = c->file->group, .number = c->index, .flow = c->number + 1 },
		.chunk = c,
	};
	return op;
}

/* Pushes a job that comes after whoever its accesses conflict with. @return its finished fence. */
static struct lf_fence *push(struct driver *d, enum engine engine, struct chunk *c, struct access first, struct access second)
{
	struct lf_job_desc desc = { .data = create_op(c), .release = free };
	struct lf_fence *finished;
	struct lf_job *job;

	must(lf_job_create(d->gpu.queues[engine], &desc, &job), "cannot make a job");
	depend(job, &first);
	depend(job, &second);
	must(lf_job_push(job, &finished), "cannot push a job");
	lf_resv_add(first.resv, finished, first.usage);
	lf_resv_add(second.resv, finished, second.usage);
	lf_job_put(job);
	return finished;
}

static void replace_fence(struct lf_fence **place, struct lf_fence *fence)
{
	lf_fence_put(*place);
	*place = fence;
}

static bool succeeded(const struct lf_fence *fence)
{
	return fence && lf_fence_status(fence) == 1;
}

/* Pushes what of a chunk has not succeeded yet. */
static void submit(struct driver *d, struct chunk *c)
{
	struct lf_resv *slot = &c->slot->resv;
	struct lf_resv *block = &c->block->resv;
	struct lf_resv *state = &c->file->resv;
	struct lf_exec x;

	lf_exec_init(&x, NULL);
	while (lf_exec_next(&x)) {
		lf_exec_lock(&x, slot, 0);
		lf_exec_lock(&x, block, 0);
		lf_exec_lock(&x, state, 0);
	}
	must(lf_exec_error(&x), "cannot lock the memory of a chunk");
	d->transactions++;
	d->rollbacks += x.rounds - 1;
	if (!succeeded(c->copied))
		replace_fence(&c->copied,
			push(d, COPY_ENGINE, c, (struct access){ slot, LF_USAGE_READ }, (struct access){ block, LF_USAGE_KERNEL }));
	replace_fence(&c->digested,
		push(d, c->file->engine, c, (struct access){ block, LF_USAGE_READ }, (struct access){ state, LF_USAGE_WRITE }));
	lf_exec_fini(&x);
}

/* --- Memory ------------------------------------------------------------------------------------------------------------- */

/* The next block that nobody uses; if there is none, just the next. */
static struct block *take_block(struct memory *m)
{
	size_t taken = m->next;

	for (size_t i = 0; i < m->count; i++) {
		size_t candidate = (m->next + i) % m->count;

		if (lf_resv_test_signaled(&m->blocks[candidate].resv, LF_USAGE_BOOKKEEP)) {
			taken = candidate;
			break;
		}
	}
	m->next = (taken + 1) % m->count;
	return &m->blocks[taken];
}

/* A place in device memory, which may still be in use: the chunk's copy will wait for that, nobody does here. */
static struct block *evict_block(struct driver *d)
{
	struct block *block = take_block(&d->gpu.device);

	d->evictions += d->newest >= d->gpu.device.count; /* the first ones are empty */
	d->busy_evictions += !lf_resv_test_signaled(&block->resv, LF_USAGE_BOOKKEEP);
	return block;
}

/* --- Failure ------------------------------------------------------------------------------------------------------------ */

static void close_file(struct file *f)
{
	if (f->fd >= 0 && f->fd != STDIN_FILENO)
		close(f->fd);
	f->fd = -1;
}

static void fail_file(struct file *f, const char *reason)
{
	if (f->state == FILE_FAILED)
		return;
	complain("%s: %s", f->name, reason);
	f->state = FILE_FAILED;
	close_file(f);
}

static struct chunk *ring_chunk(struct driver *d, uint64_t number)
{
	return &d->ring[number % d->ring_size];
}

/* Waits for all users of a piece of memory and forgets them, and how they ended. */
static void settle(struct lf_resv *resv)
{
	lf_resv_wait(resv, LF_USAGE_BOOKKEEP, LF_DEADLINE_NEVER);
	lf_resv_fini(resv);
	lf_resv_init(resv, NULL);
}

static void settle_all(struct driver *d)
{
	for (size_t i = 0; i < d->gpu.device.count; i++)
		settle(&d->gpu.device.blocks[i].resv);
	for (size_t i = 0; i < STAGING_SLOTS; i++)
		settle(&d->gpu.staging.blocks[i].resv);
	for (size_t i = 0; i < d->file_count; i++)
		settle(&d->files[i].resv);
}

/* -ECANCELED only says that something before it failed (H2). */
static void judge(struct file *f, struct lf_fence *fence, bool *ret_lost)
{
	int status = lf_fence_status(fence);

	if (status == -ENODEV)
		*ret_lost = true;
	else if (status == -ETIME)
		fail_file(f, "given up: its jobs hang again and again");
	else if (status < 0 && status != -ECANCELED)
		fail_file(f, strerror(-status));
}

static void judge_all(struct driver *d)
{
	bool lost[ENGINES] = { false };

	for (uint64_t n = d->oldest; n < d->newest; n++) {
		struct chunk *c = ring_chunk(d, n);

		if (c->file->state == FILE_FAILED) /* its fences may tell of an engine that has been replaced since */
			continue;
		judge(c->file, c->copied, &lost[COPY_ENGINE]);
		judge(c->file, c->digested, &lost[c->file->engine]);
	}
	for (unsigned i = 0; i < ENGINES; i++) {
		if (lost[i])
			gpu_replace_engine(&d->gpu, i);
	}
}

static bool anything_has_failed(struct driver *d)
{
	for (uint64_t n = d->oldest; n < d->newest; n++) {
		const struct chunk *c = ring_chunk(d, n);

		if (c->file->state != FILE_FAILED && (lf_fence_status(c->copied) < 0 || lf_fence_status(c->digested) < 0))
			return true;
	}
	return false;
}

/* To be called after each wait. @return whether there was something to do; then what was waited for may be in use again. */
static bool recover(struct driver *d)
{
	if (!anything_has_failed(d))
		return false;
	settle_all(d);
	judge_all(d);
	for (uint64_t n = d->oldest; n < d->newest; n++) {
		struct chunk *c = ring_chunk(d, n);

		if (c->file->state != FILE_FAILED && !succeeded(c->digested))
			submit(d, c);
	}
	return true;
}

/* --- Retirement --------------------------------------------------------------------------------------------------------- */

/* Like sha256sum: a name that would break the line is escaped, and a backslash in front of the line says so. */
static void print_hash(const struct file *f)
{
	if (strpbrk(f->name, "\\\n\r"))
		putchar('\\');
	for (unsigned i = 0; i < HASH_SIZE; i++)
		printf("%02x", f->hash[i]);
	fputs("  ", stdout);
	for (const char *c = f->name; *c; c++) {
		if (*c == '\\' || *c == '\n' || *c == '\r')
			printf("\\%c", *c == '\n' ? 'n' : *c == '\r' ? 'r' : '\\');
		else
			putchar(*c);
	}
	putchar('\n');
}

/* Lines come in the order of the arguments, each as soon as the ones before it are out. */
static void print_finished(struct driver *d)
{
	while (d->printed < d->file_count && d->files[d->printed].state >= FILE_DONE) {
		if (d->files[d->printed].state == FILE_DONE) {
			progress_end();
			print_hash(&d->files[d->printed]);
		}
		d->printed++;
	}
	fflush(stdout);
}

static void retire_oldest(struct driver *d)
{
	struct chunk *c = ring_chunk(d, d->oldest);

	do
		lf_fence_wait(c->digested, LF_DEADLINE_NEVER);
	while (recover(d));
	if (c->last && c->file->state != FILE_FAILED)
		c->file->state = FILE_DONE;
	d->bytes += c->size;
	replace_fence(&c->copied, NULL);
	replace_fence(&c->digested, NULL);
	d->oldest++;
	progress("%s of %s, %zu of %zu files", size_text(d->bytes).chars, size_text(d->expected).chars, d->printed, d->file_count);
	print_finished(d);
}

/* --- Reading ------------------------------------------------------------------------------------------------------------ */

static bool open_file(struct file *f, enum engine engine)
{
	struct stat st;

	f->fd = strcmp(f->name, "-") ? open(f->name, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
	if (f->fd < 0 || fstat(f->fd, &st)) {
		fail_file(f, strerror(errno));
		return false;
	}
	f->size = S_ISREG(st.st_mode) ? st.st_size : 0;
	f->state = FILE_READING;
	f->engine = engine;
	return true;
}

/* Half of the places for open files belong to each digest engine: that is how files are spread over them. */
static struct file *open_next_file(struct driver *d, unsigned place)
{
	while (d->next_file < d->file_count) {
		struct file *f = &d->files[d->next_file++];

		if (open_file(f, FIRST_DIGEST + place % DIGEST_ENGINES))
			return f;
	}
	return NULL;
}

/* The file whose turn it is; NULL when all are read. */
static struct file *next_file(struct driver *d)
{
	for (unsigned tries = 0; tries < OPEN_FILES; tries++) {
		unsigned place = d->turn++ % OPEN_FILES;

		if (!d->open[place] || d->open[place]->state != FILE_READING)
			d->open[place] = open_next_file(d, place);
		if (d->open[place])
			return d->open[place];
	}
	return NULL;
}

/* @return bytes, fewer than @size only at the end of the file; -1 with errno. */
static ssize_t read_fully(int fd, unsigned char *buf, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = read(fd, buf + done, size - done);

		if (n < 0 && errno != EINTR)
			return -1;
		if (n == 0)
			break;
		if (n > 0)
			done += (size_t)n;
	}
	return (ssize_t)done;
}

/* A hash of a file that was cut off while it was read is of no state that the file ever had. (Files in /sys end before their size, and
 * are whole all the same: theirs does not change.) */
static bool file_shrank(const struct file *f)
{
	struct stat st;

	return f->bytes < (uint64_t)f->size && (fstat(f->fd, &st) || st.st_size < f->size);
}

static bool read_chunk(struct chunk *c)
{
	struct file *f = c->file;
	ssize_t size = read_fully(f->fd, c->slot->bytes, BLOCK_SIZE);

	if (size < 0) {
		fail_file(f, strerror(errno));
		return false;
	}
	c->size = (size_t)size;
	c->last = c->size < BLOCK_SIZE;
	f->bytes += c->size;
	if (c->last && file_shrank(f)) {
		fail_file(f, "file became shorter while it was read");
		return false;
	}
	return true;
}

/* A place for the CPU to write to, so whoever reads it is waited for here. A copy that failed still needs it (H2). */
static struct block *take_slot(struct driver *d)
{
	struct block *slot = take_block(&d->gpu.staging);

	do
		lf_resv_wait(&slot->resv, LF_USAGE_READ, LF_DEADLINE_NEVER);
	while (recover(d));
	return slot;
}

static void submit_next_chunk(struct driver *d, struct file *f)
{
	struct block *slot;
	struct chunk *c;

	if (d->newest - d->oldest == d->ring_size)
		retire_oldest(d);
	slot = take_slot(d);
	if (f->state != FILE_READING) /* it failed while we waited */
		return;
	c = ring_chunk(d, d->newest);
	*c = (struct chunk){ .file = f, .number = d->newest, .index = f->chunks, .slot = slot };
	if (!read_chunk(c))
		return;
	c->block = evict_block(d);
	f->chunks++;
	d->newest++;
	submit(d, c);
	if (c->last) {
		f->state = FILE_SUBMITTED;
		close_file(f);
	}
}

/* --- The command -------------------------------------------------------------------------------------------------------- */

static void init_file(struct driver *d, struct file *f, const char *name)
{
	const char *slash = strrchr(name, '/');
	struct stat st;

	if (!stat(name, &st) && S_ISREG(st.st_mode))
		d->expected += (uint64_t)st.st_size;
	*f = (struct file){ .name = name, .fd = -1 };
	lf_resv_init(&f->resv, NULL);
	f->group = record_add_group(&d->record, slash && slash[1] ? slash + 1 : name);
	f->states[0] = EVP_MD_CTX_new();
	f->states[1] = EVP_MD_CTX_new();
	if (!f->states[0] || !f->states[1] || !EVP_DigestInit_ex(f->states[0], EVP_sha256(), NULL))
		die("cannot set up SHA-256");
}

static void fini_file(struct file *f)
{
	EVP_MD_CTX_free(f->states[0]);
	EVP_MD_CTX_free(f->states[1]);
	lf_resv_fini(&f->resv);
}

static void driver_init(struct driver *d, const struct options *options, int count, char **names)
{
	*d = (struct driver){ .file_count = (size_t)count };
	lf_ticket_class_inject(NULL, options->faults ? REFUSED : 0, (uint32_t)options->seed);
	record_init(&d->record);
	gpu_init(&d->gpu, options, &d->record, &copy_ops, &digest_ops);
	d->files = allocate(d->file_count, sizeof(*d->files));
	for (size_t i = 0; i < d->file_count; i++)
		init_file(d, &d->files[i], names[i]);
	d->ring_size = d->gpu.device.count + STAGING_SLOTS;
	d->ring = allocate(d->ring_size, sizeof(*d->ring));
}

static void driver_fini(struct driver *d)
{
	gpu_fini(&d->gpu);
	for (size_t i = 0; i < d->file_count; i++)
		fini_file(&d->files[i]);
	free(d->files);
	free(d->ring);
	record_fini(&d->record);
}

static size_t hash_all(struct driver *d)
{
	size_t failed = 0;
	struct file *f;

	while ((f = next_file(d)))
		submit_next_chunk(d, f);
	while (d->oldest < d->newest)
		retire_oldest(d);
	print_finished(d);
	progress_end();
	for (size_t i = 0; i < d->file_count; i++)
		failed += d->files[i].state != FILE_DONE;
	return failed;
}

static void report(struct driver *d, size_t failed, int64_t took)
{
	double rate = (double)d->bytes / ((double)took / NS_PER_S);

	fputc('\n', stderr);
	record_print_table(&d->record, "engine", stderr);
	fprintf(stderr, "\n%zu of %zu files, %s through %s of device memory in %s (%s/s)\n", d->file_count - failed, d->file_count,
		size_text(d->bytes).chars, size_text(d->gpu.device.count * BLOCK_SIZE).chars, duration_text(took).chars,
		size_text((uint64_t)rate).chars);
	fprintf(stderr,
		"%" PRIu64 " chunks evicted from device memory, %" PRIu64
		" of them before they were digested: the copy in their place waited for that\n",
		d->evictions, d->busy_evictions);
	fprintf(stderr, "%" PRIu64 " transactions of locks, rolled back %" PRIu64 " times\n", d->transactions, d->rollbacks);
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
		"%zu files, %s in %s, through %s of device memory; evictions: %" PRIu64 ", resets: %" PRIu64 ", engines lost: %" PRIu64,
		d->file_count, size_text(d->bytes).chars, duration_text(took).chars, size_text(d->gpu.device.count * BLOCK_SIZE).chars,
		d->evictions, resets, lost);
	picture_write(&d->record, &(struct picture){ "SHA-256 on an emulated GPU", subtitle, "file" }, out);
}

int hash_command(const struct options *options, int count, char **names)
{
	struct driver driver;
	int64_t start = lf_now();
	int64_t took;
	size_t failed;

	driver_init(&driver, options, count, names);
	failed = hash_all(&driver);
	gpu_stop(&driver.gpu);
	took = lf_now() - start;
	report(&driver, failed, took);
	if (options->trace)
		record_write_timeline(&driver.record, options->trace);
	if (options->svg)
		draw(&driver, options->svg, took);
	driver_fini(&driver);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
