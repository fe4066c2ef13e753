/* SPDX-License-Identifier: MIT */
/*
 * Chaos: what drivers do to buffers at bad moments.
 *
 * Purpose. Strikes between the submissions of the driver. A buffer is evicted while jobs on it are pending; a part of a buffer's addresses
 * is unbound and bound again behind the jobs that use it; a buffer is closed with its job pending (hash_jobs.c asks), and what it leaves
 * is reaped later. Engines hang, lose interrupts and get lost on their own (options_faults(), chaos_lose_at()).
 *
 * Not here: what keeps the result right all the same.
 */
#include "chaos.h"

#include "hash.h"

#define ONE_IN_EVICT  2
#define ONE_IN_REBIND 3
#define ONE_IN_REAP   4

/* splitmix64 */
static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static uint64_t below(struct chaos *c, uint64_t n)
{
	return next(&c->state) % n;
}

void chaos_init(struct chaos *c, bool on, uint64_t seed)
{
	*c = (struct chaos){ .on = on, .state = seed };
}

bool chaos_strikes(struct chaos *c, uint64_t n)
{
	return c->on && !below(c, n);
}

uint64_t chaos_lose_at(uint64_t seed, unsigned engine)
{
	uint64_t state = ~seed;
	uint64_t copy = next(&state);
	uint64_t digest = next(&state);

	if (engine == COPY_ENGINE)
		return copy % 10 ? 0 : 1 + copy / 10 % 150;
	return engine == FIRST_DIGEST && !(digest % 2) ? 1 + digest / 2 % 100 : 0;
}

/* --- Strikes ------------------------------------------------------------------------------------------------------------ */

static struct buffer *any_buffer(struct driver *d)
{
	struct buffer *chosen = NULL;
	uint64_t seen = 0;

	for (struct buffer *b = d->manager.first; b; b = b->next) {
		if (place_is_device(b->place) && !below(&d->chaos, ++seen))
			chosen = b;
	}
	return chosen;
}

static void evict_any(struct driver *d)
{
	struct buffer *b = any_buffer(d);

	d->chaos.evictions += b && manager_evict(b);
}

/* A part of a chunk's buffer, while its upload may still be to come. */
static void rebind_any(struct driver *d)
{
	struct chunk *c;
	size_t pages, first, count;

	if (d->newest == d->next_digest)
		return;
	c = ring_chunk(d, d->next_digest + below(&d->chaos, d->newest - d->next_digest));
	if (!chunk_is_bound(c))
		return;
	pages = (size_t)(c->buffer->bo.size / GPU_PAGE);
	first = (size_t)below(&d->chaos, pages);
	count = 1 + (size_t)below(&d->chaos, pages - first);
	replace_fence(&c->bound, space_rebind(c->space, c->buffer, c->va, first, count, c->uploaded));
	d->chaos.rebinds++;
}

void chaos_step(struct driver *d)
{
	if (chaos_strikes(&d->chaos, ONE_IN_EVICT))
		evict_any(d);
	if (chaos_strikes(&d->chaos, ONE_IN_REBIND))
		rebind_any(d);
	if (chaos_strikes(&d->chaos, ONE_IN_REAP))
		space_reap(&d->spaces[below(&d->chaos, SPACES)]);
}
