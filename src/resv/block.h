/* SPDX-License-Identifier: MIT */
/*
 * A block: the list of a reservation's fences, as readers find it.
 *
 * Purpose: a list that grows at its end while others walk it, and that outlives its reservation for as long as somebody holds a snapshot.
 *
 * States:
 *
 *     NEW --store to resv->block--> CURRENT --block_hand_over()--> HANDED OVER           (nobody had a snapshot)
 *                                      \--block_hand_over(), lf_resv_fini()--> SNAPSHOT --last block_put()--> DEAD
 *
 * | state       | refs | who has it                              | references on its fences               |
 * |-------------|------|-----------------------------------------|----------------------------------------|
 * | NEW         | 1    | the holder of the reservation's lock    | none yet: its predecessor has them (B4) |
 * | CURRENT     | >= 1 | the reservation, and each snapshot      | its own, or still its predecessor's (B4) |
 * | SNAPSHOT    | >= 1 | snapshots                               | its own                                |
 * | HANDED OVER | 0    | readers in their sections               | none: they are its successor's         |
 * | DEAD        | 0    | readers in their sections               | put                                    |
 *
 * Invariants (block_assert_valid()):
 * B1. count <= capacity, a power of two. A slot below count never changes; count only grows, and only while the block is CURRENT.
 * B2. Every fence in a slot was published before the slot was counted. So in a read section each fence that is found is memory of that
 *     same fence until the section ends, whether or not the block still has references: its last put waits for a grace period with
 *     freeing.
 * B3. Nobody takes a reference on a block whose refs are 0, and its memory is freed a grace period after they got there.
 * B4. Each slot below count stands for one reference on its fence. While a block is CURRENT or in a snapshot, those references exist: they
 *     are the block's, or, between the store that makes it CURRENT and the end of block_hand_over(), its predecessor's, which
 *     does not put them before.
 *
 * Who reads in a section may look at each fence; to keep one it takes lf_fence_tryget(), which can fail for a fence that was dropped from
 * the list meanwhile and put for the last time. Such a fence is signaled, or will be by that very put (fence.c), so there was nothing to
 * wait for.
 *
 * Locking: the lock of the reservation for all that changes a CURRENT block, its scratch included. None for readers.
 *
 * Ordering: resv-count; refcount. The pointer to the block is its reservation's (resv-block).
 *
 * Not here: which block is the current one (resv.c).
 */
#ifndef LF_RESV_BLOCK_H
#define LF_RESV_BLOCK_H

#include <libfence/exec.h>
#include <libfence/reclaim.h>
#include <libfence/resv.h>

#include "fence/core.h"

enum { BLOCK_MIN = 8 };
#define BLOCK_MAX (UINT64_C(1) << 31)

struct block {
	lf_atomic_u32 refs; /* one of the reservation, one a snapshot */
	lf_atomic_u32 count; /* slots that are used; written under the reservation's lock */
	uint32_t capacity; /* immutable */
	union {
		struct lf_deferred deferred; /* once refs are 0 */
		struct block *next_spare; /* while NEW: protected by the reservation's lock */
	};
	uintptr_t slots[]; /* fence | usage; behind them the scratch of block_plan(), two uint32_t a slot */
};

/* --- Slots ---------------------------------------------------------------------------------------------------------------- */

static inline uintptr_t slot_make(struct lf_fence *f, enum lf_usage usage)
{
	return (uintptr_t)f | (uintptr_t)usage;
}

static inline struct lf_fence *slot_fence(uintptr_t slot)
{
	return (struct lf_fence *)(slot & ~(uintptr_t)7);
}

static inline enum lf_usage slot_usage(uintptr_t slot)
{
	return (enum lf_usage)(slot & 3);
}

static inline bool is_pending(const struct lf_fence *f)
{
	return !(fence_word(f) & FENCE_SIGNALED);
}

static inline const uintptr_t *block_slots(const struct block *b)
{
	return b ? b->slots : NULL;
}

/* Behind the first @count slots. */
static inline const uintptr_t *block_end(const struct block *b, size_t count)
{
	return b ? b->slots + count : NULL;
}

/* How many slots may be read. */
static inline uint32_t block_count(const struct block *b)
{
	/* order: resv-count (acquire): the slots below it are seen, and the fences in them */
	return u32_load(&b->count, PLANT_ORDER(140, memory_order_relaxed, memory_order_acquire));
}

/* --- Life ----------------------------------------------------------------------------------------------------------------- */

/* An empty block for @capacity fences, a power of two from BLOCK_MIN to BLOCK_MAX; NULL without memory. While NEW, mem_free() ends it. */
struct block *block_create(uint32_t capacity);

/* Ends a reference; the last one puts the fences. */
void block_put(struct block *b);

/* --- Under the reservation's lock ------------------------------------------------------------------------------------------ */

/* Takes over the caller's reference on @f, which is published. There is room. */
void block_append(struct block *b, struct lf_fence *f, enum lf_usage usage);

/*
 * Decides which slots a successor keeps, and returns how many. Those of @context, if it is not 0, go, and are counted in *ret_gone. Of
 * the rest, those go that are signaled, or that another one stands for. Changes nothing but the scratch.
 */
uint32_t block_plan(struct block *b, uint64_t context, size_t *ret_gone);

/* Copies to a NEW block what the plan keeps. */
void block_copy(struct block *to, const struct block *from);

/*
 * Gives up what was the current block, after its successor, which has what the plan keeps, was made current: the successor has references
 * on its fences afterwards.
 */
void block_hand_over(struct block *old);

/* --- Snapshots (resv.c) ----------------------------------------------------------------------------------------------------- */

/* Arms what a snapshot has pending of a usage. Hooks run, so with nothing held. */
void snapshot_enable(const struct lf_snapshot *snapshot, enum lf_usage usage);

/* --- Counted reservations (resv.c) ------------------------------------------------------------------------------------------ */

/* Whether lf_resv_create() made it. The caller has a reference then, or borrows one. */
static inline bool resv_is_counted(const struct lf_resv *resv)
{
	return u32_load(&resv->refs, memory_order_relaxed) != 0; /* relaxed: never 0 or always */
}

/* --- Transactions (exec.c) --------------------------------------------------------------------------------------------------- */

/* Whether a fence may be added to what a transaction has locked; reports when it has failed, or lost its round and locked nothing. */
bool exec_check_locked(const struct lf_exec *x, const char *function);

/* --- Checks ----------------------------------------------------------------------------------------------------------------- */

void block_assert_valid_slow(const struct block *b);

static inline void block_assert_valid(const struct block *b)
{
	if (DEBUG_CHECKS && b)
		block_assert_valid_slow(b);
}

#endif /* LF_RESV_BLOCK_H */
