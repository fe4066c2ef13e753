/* SPDX-License-Identifier: MIT */
/*
 * From chunks to jobs: what the engines do, and how it is submitted.
 *
 * Purpose. A submission is a transaction: the space and all buffers that do not share its reservation are locked, what is absent is brought
 * in, the job is pushed, and its fence goes into all that is locked, which is what moves wait for.
 *
 * What a job waits for. All moves of the space's buffers (LF_USAGE_KERNEL); the binds of what it touches; the jobs that made what it reads.
 * The two states of a file are a buffer that is bound in several spaces, and has a reservation of its own: there, digests are writers.
 *
 * Not here: memory (manager.c), binds (space.c), the order of things (hash.c).
 */
#include <errno.h>
#include <string.h>

#define OPENSSL_SUPPRESS_DEPRECATED /* a state that is plain bytes can live in GPU memory; no other interface has one */
#include <openssl/sha.h>

#include "hash.h"

#define ONE_IN_CLOSE 3

/* What is in the buffer of a file: digest k reads state k % 2 and writes state (k + 1) % 2 (H1). */
struct states {
	SHA256_CTX state[2];
};

_Static_assert(sizeof(struct states) <= GPU_PAGE, "the states of a file fit into a page");

struct upload {
	struct op op; /* first */
	const struct space *space;
	uint64_t va;
	const unsigned char *from;
	size_t size;
};

struct digest {
	struct op op; /* first */
	const struct space *space;
	uint64_t va;
	size_t size;
	uint64_t states_va;
	uint64_t index;
	unsigned char *hash; /* where the result goes; NULL but for the last */
};

/* --- What the engines do ------------------------------------------------------------------------------------------------ */

/* How much of @size bytes from @done on lies in one page. */
static size_t page_part(size_t size, size_t done)
{
	return size - done < GPU_PAGE ? size - done : GPU_PAGE;
}

static int run_upload(struct op *op)
{
	struct upload *u = (struct upload *)op;

	if (op_error(op))
		return -ECANCELED;
	for (size_t done = 0; done < u->size; done += GPU_PAGE) {
		unsigned char *page = space_walk(u->space, u->va + done);

		if (!page)
			return -EFAULT;
		memcpy(page, u->from + done, page_part(u->size, done));
	}
	return 0;
}

static int digest_pages(const struct digest *d, SHA256_CTX *state)
{
	for (size_t done = 0; done < d->size; done += GPU_PAGE) {
		const unsigned char *page = space_walk(d->space, d->va + done);

		if (!page)
			return -EFAULT;
		SHA256_Update(state, page, page_part(d->size, done));
	}
	return 0;
}

/* Of a copy, because finishing ends a state, and another run of the job must find it as it was (H1). */
static void finish_hash(const SHA256_CTX *state, unsigned char *hash)
{
	SHA256_CTX copy = *state;

	SHA256_Final(hash, &copy);
}

static int run_digest(struct op *op)
{
	struct digest *d = (struct digest *)op;
	struct states *states;
	SHA256_CTX *after;
	int error;

	if (op_error(op))
		return -ECANCELED;
	states = (struct states *)space_walk(d->space, d->states_va);
	if (!states)
		return -EFAULT;
	after = &states->state[(d->index + 1) % 2];
	*after = states->state[d->index % 2];
	if (!d->index)
		SHA256_Init(after);
	error = digest_pages(d, after);
	if (!error && d->hash)
		finish_hash(after, d->hash);
	return error;
}

/* --- Submission --------------------------------------------------------------------------------------------------------- */

/* Locks a space, with its buffers in device memory, and a slot more in one of the reservations (may be NULL). */
static int try_begin(struct driver *d, struct space *s, struct lf_resv *more, struct lf_exec *x)
{
	int error = 0;

	lf_exec_init(x, NULL);
	while (lf_exec_next(x)) {
		error = 0; /* the one of a round that was lost does not count */
		if (lf_vm_exec_lock(s->vm, x, 1))
			continue;
		if (more && lf_exec_lock(x, more, 1))
			continue;
		error = manager_make_room(&d->manager, s->index, x);
		if (!error)
			error = lf_vm_validate(s->vm, x);
		if (error && error != -EDEADLK)
			break;
	}
	if (error == -EAGAIN)
		lf_exec_fini(x);
	return error ? error : lf_exec_error(x);
}

static void begin(struct driver *d, struct space *s, struct lf_resv *more, struct lf_exec *x)
{
	int error;

	while ((error = try_begin(d, s, more, x)) == -EAGAIN)
		manager_wait(&d->manager);
	must(error, "cannot get the memory of a job ready");
	d->transactions++;
	d->rollbacks += x->rounds - 1;
	manager_touch(&d->manager, s->index);
}

/* Pushes a job that waits for the moves of the space's buffers. */
static struct lf_fence *end(struct driver *d, enum engine engine, struct lf_job *job, struct space *s, struct lf_exec *x)
{
	struct lf_fence *finished;

	gpu_wait_for(job, lf_vm_resv(s->vm), LF_USAGE_KERNEL);
	finished = gpu_push(&d->gpu, engine, job);
	lf_vm_add_fence(s->vm, x, finished, LF_USAGE_BOOKKEEP, LF_USAGE_BOOKKEEP);
	return finished;
}

static struct record_job record_of(const struct chunk *c)
{
	return (struct record_job){ .group = c->file->group, .number = c->index, .flow = c->number + 1 };
}

/* --- Chunks ------------------------------------------------------------------------------------------------------------- */

bool chunk_is_bound(const struct chunk *c)
{
	return c->buffer && c->buffer->vm_bos[c->space->index];
}

static void bind_chunk(struct chunk *c)
{
	replace_fence(&c->bound, space_bind(c->space, c->buffer, &c->va));
}

static void bind_states(struct driver *d, struct file *f, struct space *s)
{
	if (!f->digest) {
		f->digest = buffer_create(&d->manager, 1, NULL);
		f->digest->group = f->group;
	}
	if (!f->bound[s->index])
		f->bound[s->index] = space_bind(s, f->digest, &f->va[s->index]);
}

void chunk_start(struct driver *d, struct chunk *c)
{
	size_t pages = (c->size + GPU_PAGE - 1) / GPU_PAGE;

	c->space = &d->spaces[c->number / WINDOW % SPACES];
	c->buffer = buffer_create(&d->manager, pages ? pages : 1, lf_vm_resv(c->space->vm));
	c->buffer->group = c->file->group;
	c->buffer->number = c->index;
	c->file->in_flight++;
	bind_states(d, c->file, c->space);
	bind_chunk(c);
}

/* --- Jobs --------------------------------------------------------------------------------------------------------------- */

void chunk_upload(struct driver *d, struct chunk *c)
{
	struct upload *u = allocate(1, sizeof(*u));
	struct lf_exec x;

	if (!chunk_is_bound(c))
		bind_chunk(c);
	*u = (struct upload){ { record_of(c), .run = run_upload }, c->space, c->va, c->slot, c->size };
	begin(d, c->space, NULL, &x);
	op_need(&u->op, c->bound);
	op_need(&u->op, c->buffer->moved);
	replace_fence(&c->uploaded, end(d, COPY_ENGINE, gpu_job(&d->gpu, COPY_ENGINE, &u->op), c->space, &x));
	lf_exec_fini(&x);
}

static struct digest *create_digest(const struct chunk *c)
{
	struct file *f = c->file;
	struct digest *g = allocate(1, sizeof(*g));

	*g = (struct digest){ { record_of(c), .run = run_digest }, c->space, c->va, c->size, f->va[c->space->index], c->index,
		c->last ? f->hash : NULL };
	op_need(&g->op, c->bound);
	op_need(&g->op, c->buffer->moved);
	op_need(&g->op, c->uploaded);
	op_need(&g->op, f->bound[c->space->index]);
	op_need(&g->op, f->digest->moved);
	op_need(&g->op, f->digested);
	return g;
}

/* Behind the job; or at once, which the job survives, since what engines walk changes later. */
static void release_chunk(struct driver *d, struct chunk *c)
{
	if (chaos_strikes(&d->chaos, ONE_IN_CLOSE)) {
		space_close(c->space, c->buffer, c->va);
		d->chaos.closes++;
	} else {
		space_unbind(c->space, c->buffer, c->va, c->digested);
	}
}

void chunk_digest(struct driver *d, struct chunk *c)
{
	struct lf_resv *states = c->file->digest->bo.resv;
	struct lf_job *job;
	struct lf_exec x;

	if (!chunk_is_bound(c))
		bind_chunk(c);
	begin(d, c->space, states, &x);
	job = gpu_job(&d->gpu, c->file->engine, &create_digest(c)->op);
	gpu_wait_for(job, states, lf_usage_to_wait_for(true));
	replace_fence(&c->digested, end(d, c->file->engine, job, c->space, &x));
	lf_resv_add(states, c->digested, LF_USAGE_WRITE);
	lf_exec_fini(&x);
	replace_fence(&c->file->digested, lf_fence_get(c->digested));
	release_chunk(d, c);
}

void chunk_end(struct chunk *c)
{
	if (chunk_is_bound(c))
		space_unbind(c->space, c->buffer, c->va, c->uploaded);
	buffer_drop(c->buffer);
	replace_fence(&c->bound, NULL);
	replace_fence(&c->uploaded, NULL);
	replace_fence(&c->digested, NULL);
	c->file->in_flight--;
}

void file_end(struct driver *d, struct file *f)
{
	if (!f->digest)
		return;
	for (unsigned i = 0; i < SPACES; i++) {
		if (f->bound[i])
			space_unbind(&d->spaces[i], f->digest, f->va[i], f->digested);
		replace_fence(&f->bound[i], NULL);
	}
	replace_fence(&f->digested, NULL);
	buffer_drop(f->digest);
	f->digest = NULL;
}
