/* SPDX-License-Identifier: MIT */
/* Blocks: making, compacting, handing over. Overview in block.h. */
#include "resv/block.h"

#include "base/alloc.h"
#include "base/reclaim.h"

/* What the scratch says of a slot: that it goes, or which slot is the next of its bucket. */
#define DROPPED UINT32_MAX
#define LAST    UINT32_C(0) /* else index + 1 */

/* First slots of the buckets, as many as there are slots. */
static uint32_t *heads(const struct block *b)
{
	return (uint32_t *)(uintptr_t)&b->slots[b->capacity];
}

/* What comes behind each slot in its bucket. */
static uint32_t *nexts(const struct block *b)
{
	return heads(b) + b->capacity;
}

void block_assert_valid_slow(const struct block *b)
{
	uint32_t count = block_count(b);

	invariant(b->capacity >= BLOCK_MIN && (b->capacity & (b->capacity - 1)) == 0 && count <= b->capacity); /* B1 */
	invariant(u32_load(&b->refs, memory_order_relaxed) != 0); /* B3; relaxed: one reference is the caller's */
	for (uint32_t i = 0; i < count; i++) {
		const struct lf_fence *f = slot_fence(b->slots[i]);

		invariant(f && ((fence_state(f) & FENCE_PUBLISHED) || f == lf_fence_stub())); /* B2 */
		invariant(u32_load(&f->count, memory_order_relaxed) != 0); /* B4; relaxed: the block's is there */
	}
}

/* --- Life ----------------------------------------------------------------------------------------------------------------- */

struct block *block_create(uint32_t capacity)
{
	size_t slot = sizeof(uintptr_t) + 2 * sizeof(uint32_t);
	struct block *b = mem_alloc_array(sizeof(*b), capacity, slot);
	if (!b)
		return NULL;
	u32_store(&b->refs, 1, memory_order_relaxed); /* relaxed: whoever makes it current makes it visible */
	u32_store(&b->count, 0, memory_order_relaxed); /* relaxed: as above */
	b->capacity = capacity;
	b->next_spare = NULL;
	return b;
}

void block_put(struct block *b)
{
	uint32_t count;

	if (!b || !refcount_put(&b->refs, "a reservation's list"))
		return;
	count = block_count(b);
	for (uint32_t i = 0; i < count; i++)
		lf_fence_put(slot_fence(b->slots[i]));
	reclaim_free(&b->deferred, b);
}

void block_append(struct block *b, struct lf_fence *f, enum lf_usage usage)
{
	uint32_t count = u32_load(&b->count, memory_order_relaxed); /* relaxed: only who holds the lock writes it */

	b->slots[count] = slot_make(f, usage);
	/* order: resv-count (release): a reader would find a slot that is not written, or a fence that is not initialised for it */
	u32_store(&b->count, count + 1, PLANT_ORDER(61, memory_order_relaxed, memory_order_release));
}

/* --- What stands for what -------------------------------------------------------------------------------------------------- */

/* Whether one of two is signaled no sooner than the other: the same fence, or both of a timeline that keeps order. */
static bool same_line(const struct lf_fence *a, const struct lf_fence *b)
{
	return a == b || (((fence_state(a) & FENCE_ORDERED) || PLANTED(63)) && a->context == b->context);
}

/* Whether who waits for slot @a need not wait for slot @b, whatever usage is asked for. */
static bool covers(uintptr_t a, uintptr_t b)
{
	const struct lf_fence *fa = slot_fence(a), *fb = slot_fence(b);

	return same_line(fa, fb) && (slot_usage(a) <= slot_usage(b) || PLANTED(65)) && fa->seqno >= fb->seqno;
}

/* The bucket of a slot: the same for all that it might cover. */
static uint32_t *bucket(const struct block *b, uintptr_t slot)
{
	const struct lf_fence *f = slot_fence(slot);
	uint64_t key = (fence_state(f) & FENCE_ORDERED) || PLANTED(63) ? f->context : (uint64_t)(uintptr_t)f;
	int bits = 31 - __builtin_clz(b->capacity);

	return &heads(b)[hash_bits(key, bits)];
}

/*
 * Weighs a slot against those of its bucket, of which none covers another: so of one timeline there are at most as many as usages, and
 * a bucket stays short. Returns how many more are kept now.
 */
static int weigh(struct block *b, uint32_t i)
{
	uint32_t *next = nexts(b), *link = bucket(b, b->slots[i]);
	int more = 1;

	while (*link != LAST) {
		uint32_t other = *link - 1;

		if (covers(b->slots[other], b->slots[i])) {
			next[i] = DROPPED;
			return 0;
		}
		if (covers(b->slots[i], b->slots[other])) {
			*link = next[other];
			next[other] = DROPPED;
			more--;
		} else {
			link = &next[other];
		}
	}
	next[i] = LAST;
	*link = i + 1;
	return more;
}

uint32_t block_plan(struct block *b, uint64_t context, size_t *ret_gone)
{
	uint32_t count = block_count(b), kept = 0;
	uint32_t *next = nexts(b);

	*ret_gone = 0;
	memset(heads(b), 0, b->capacity * sizeof(*next));
	for (uint32_t i = 0; i < count; i++) {
		const struct lf_fence *f = slot_fence(b->slots[i]);
		bool goes = context && f->context == context;

		*ret_gone += goes;
		if (goes || !is_pending(f))
			next[i] = DROPPED;
		else
			kept += (uint32_t)weigh(b, i);
	}
	return kept;
}

/* --- Handing over ---------------------------------------------------------------------------------------------------------- */

void block_copy(struct block *to, const struct block *from)
{
	uint32_t count = block_count(from), n = 0;
	const uint32_t *next = nexts(from);

	for (uint32_t i = 0; i < count; i++) {
		if (next[i] != DROPPED)
			to->slots[n++] = from->slots[i];
	}
	u32_store(&to->count, n, memory_order_relaxed); /* relaxed: whoever makes it current makes it visible */
}

/* Nobody has a snapshot: the successor's references are ours, and what it does not have is put. */
static void move_references(const struct block *old)
{
	uint32_t count = block_count(old);
	const uint32_t *next = nexts(old);

	for (uint32_t i = 0; i < count; i++) {
		if (next[i] == DROPPED)
			lf_fence_put(slot_fence(old->slots[i]));
	}
}

/* Somebody has a snapshot, which needs all that is here: the successor gets references of its own, while ours are still there. */
static void copy_references(const struct block *old)
{
	uint32_t count = block_count(old);
	const uint32_t *next = nexts(old);

	for (uint32_t i = 0; i < count; i++) {
		if (next[i] != DROPPED)
			refcount_get(&slot_fence(old->slots[i])->count, "a reservation's list");
	}
}

/*
 * The successor is current already, so that nobody who looks for the current block finds a dead one and must wait for us. So
 * a snapshot of the old block may be taken until the very exchange, which then fails, and one of the new block at any time, before its
 * references are there: until they are, ours are (B4), since our own reference on the old block is put last.
 */
void block_hand_over(struct block *old)
{
	uint32_t ours = 1;

	block_assert_valid(old);
	/* order: refcount (acq_rel): what holders of snapshots did comes before the puts, and what we did before the end of the block */
	if (u32_cas(&old->refs, &ours, 0, PLANT_ACQ_REL(109, 110), memory_order_relaxed) || PLANTED(62)) {
		move_references(old);
		reclaim_free(&old->deferred, old);
	} else {
		copy_references(old);
		block_put(old);
	}
}
