/* SPDX-License-Identifier: MIT */
/*
 * When jobs of `minigpu hash` fail.
 *
 * Purpose. By H2 (hash.c) a failure leaves everything as it was. So it is enough to wait for all that is in flight, to find out what is
 * wrong, and to push again what did not succeed, in the order of the chunks.
 *
 * What is asked for its result are the fences that chunks and buffers keep: reservations forget what has completed.
 *
 *     a digest engine lost      replaced
 *     the copy engine lost      the end: what moved last is lost, and nothing moves any more
 *     a job given up            its file fails
 */
#include <errno.h>
#include <string.h>

#include "hash.h"

static void wait_all(struct driver *d)
{
	for (unsigned i = 0; i < SPACES; i++)
		lf_resv_wait(lf_vm_resv(d->spaces[i].vm), LF_USAGE_BOOKKEEP, LF_DEADLINE_NEVER);
	for (uint64_t n = d->oldest; n < d->newest; n++) {
		struct file *f = ring_chunk(d, n)->file;

		if (f->digest)
			lf_resv_wait(f->digest->bo.resv, LF_USAGE_BOOKKEEP, LF_DEADLINE_NEVER);
	}
}

/* -ECANCELED only says that something before it failed (H2). @fence may be NULL. */
static void judge(struct file *f, const struct lf_fence *fence, bool *ret_lost)
{
	int status = fence ? lf_fence_status(fence) : 0;

	if (status == -ENODEV)
		*ret_lost = true;
	else if (status == -ETIME)
		file_fail(f, "given up: its jobs hang again and again");
	else if (status == -EFAULT)
		file_fail(f, "an engine found nothing where its memory should be");
	else if (status < 0 && status != -ECANCELED)
		file_fail(f, strerror(-status));
}

static void judge_chunk(struct chunk *c, bool *lost)
{
	struct file *f = c->file;

	judge(f, c->buffer->moved, &lost[COPY_ENGINE]);
	judge(f, f->digest->moved, &lost[COPY_ENGINE]);
	judge(f, c->uploaded, &lost[COPY_ENGINE]);
	judge(f, c->digested, &lost[f->engine]);
}

static void lose_device(struct driver *d)
{
	size_t given_up = 0;

	for (size_t i = 0; i < d->file_count; i++) {
		struct file *f = &d->files[i];

		if (f->state >= FILE_DONE)
			continue;
		f->state = FILE_FAILED;
		file_close(f);
		given_up++;
	}
	d->lost = true;
	complain("the copy engine is lost for good: %zu of %zu files are given up", given_up, d->file_count);
}

static void judge_all(struct driver *d)
{
	bool lost[ENGINES] = { false };

	for (uint64_t n = d->oldest; n < d->newest; n++) {
		struct chunk *c = ring_chunk(d, n);

		if (c->file->state != FILE_FAILED) /* else its fences may tell of an engine that has been replaced since */
			judge_chunk(c, lost);
	}
	if (lost[COPY_ENGINE])
		lose_device(d);
	for (unsigned i = FIRST_DIGEST; i < ENGINES; i++) {
		if (lost[i])
			gpu_replace_engine(&d->gpu, i);
	}
}

static bool has_failed(const struct lf_fence *fence)
{
	return fence && lf_fence_status(fence) < 0;
}

static bool anything_has_failed(struct driver *d)
{
	for (uint64_t n = d->oldest; n < d->newest; n++) {
		const struct chunk *c = ring_chunk(d, n);

		if (c->file->state != FILE_FAILED && (has_failed(c->uploaded) || has_failed(c->digested)))
			return true;
	}
	return false;
}

/* What is digested stays; the first digest that is not needs no other, since all are at rest. */
static void forget_digests(struct driver *d)
{
	for (uint64_t n = d->oldest; n < d->newest; n++)
		replace_fence(&ring_chunk(d, n)->file->digested, NULL);
}

static void push_again(struct driver *d, struct chunk *c)
{
	if (!succeeded(c->uploaded))
		chunk_upload(d, c);
	if (c->digested && !succeeded(c->digested))
		chunk_digest(d, c);
}

bool recover(struct driver *d)
{
	if (!anything_has_failed(d))
		return false;
	wait_all(d);
	judge_all(d);
	forget_digests(d);
	for (uint64_t n = d->oldest; n < d->newest; n++) {
		if (ring_chunk(d, n)->file->state != FILE_FAILED)
			push_again(d, ring_chunk(d, n));
	}
	return true;
}
