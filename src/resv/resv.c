/* SPDX-License-Identifier: MIT */
/*
 * The reservation: a lock, and a list of fences that is changed under it and read without.
 *
 * Purpose: adding a fence cannot fail once room was reserved; asking takes no lock, no reference and does not start again. The list is a
 * block (block.h), which only grows at its end; when it is full, a compacted copy takes its place.
 *
 * States of the pointer:
 *
 *     NULL --lf_resv_reserve()--> block --lf_resv_reserve() finds it full, lf_resv_replace()--> another --lf_resv_fini()--> NULL
 *
 * Invariants (resv_assert_valid(), under the lock):
 * V1. resv->block is NULL or a valid block, of which the reservation has one reference.
 * V2. As long as each fence was added to a reserved slot: count + reserved <= capacity. So an add finds room.
 * V3. All spares have the same capacity, and the current block has no more. So a replace finds room in one: what it keeps and its fence
 *     take no more slots than were used, and what is reserved fits behind them.
 * V4. reserved is 0 and there are no spares when nobody holds the lock.
 *
 * And for readers:
 * V5. What a query looks at is the block that was current, and the slots it had, at one moment during the call. Of what is pending, a
 *     compacted copy lacks only what another fence in it stands for: so whichever block a query meets, its answer is right for that moment.
 * V6. A snapshot never fails: a block without references was replaced by another before, and that one is tried then. That is the one retry.
 *     It waits for nobody: the writer made the next block current before it gave this one up.
 *
 * Locking: resv->lock, the user's to take, protects reserved, spares and all stores to block, generation and the block. Readers take none.
 *
 * Ordering: resv-block, resv-generation; resv-count in block.h.
 *
 * Lifetime: the reservation is the user's memory, or counted (lf_resv_create()) and freed a grace period after the last put. Blocks end as
 * block.h says; fences when no block refers to them.
 *
 * Not here: the lock (ww.c), locking many (exec.c), notices (notice.c).
 */
#include <libfence/array.h>
#include <libfence/resv.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/library.h"
#include "base/rcu.h"
#include "base/reclaim.h"
#include "base/text.h"
#include "resv/block.h"
#include "resv/ww.h"

/* Free slots, at least, of a block that follows another: what making one costs is spread over so many adds. */
enum { BUSY_ROOM = 24 };

_Static_assert(LF_USAGE_BOOKKEEP <= 3 && _Alignof(struct lf_fence) >= 4, "a usage fits below a fence's address");

/* What lf_resv_create() makes. An embedded reservation has refs 0. */
struct counted_resv {
	struct lf_resv resv;
	struct lf_deferred deferred; /* once refs are 0 */
};

/* --- Accessors: the only atomics on a reservation's words ------------------------------------------------------------------ */

static struct block *current_block(const struct lf_resv *resv)
{
	/* order: resv-block (acquire): its slots are seen as they were written */
	return (struct block *)ptr_load(&resv->block, PLANT_ORDER(139, memory_order_relaxed, memory_order_acquire));
}

static void set_current_block(struct lf_resv *resv, struct block *b)
{
	/* order: resv-block (release): a reader would find a block whose slots are not written, or fences not initialised for it */
	ptr_store(&resv->block, (uintptr_t)b, PLANT_ORDER(60, memory_order_relaxed, memory_order_release));
}

static void list_changed(struct lf_resv *resv)
{
	/* relaxed: only who holds the lock writes it */
	uint64_t next = u64_load(&resv->generation, memory_order_relaxed) + 1;

	/* order: resv-generation (release): who read it could query, and not find what it counts */
	u64_store(&resv->generation, next, PLANT_ORDER(141, memory_order_relaxed, memory_order_release));
}

uint64_t lf_resv_generation(const struct lf_resv *resv)
{
	/* order: resv-generation (acquire): see list_changed() */
	return u64_load(&resv->generation, PLANT_ORDER(142, memory_order_relaxed, memory_order_acquire));
}

/* --- Checks ---------------------------------------------------------------------------------------------------------------- */

static uint32_t free_slots(const struct lf_resv *resv)
{
	const struct block *b = current_block(resv);

	return b ? b->capacity - block_count(b) : 0;
}

/* The caller holds the lock. V2 is not here, since a user can break it: lf_resv_add() reports that. */
static void resv_assert_valid(const struct lf_resv *resv)
{
	const struct block *b = current_block(resv);
	uint32_t n = 0;

	if (!DEBUG_CHECKS)
		return;
	block_assert_valid(b); /* V1 */
	for (const struct block *s = resv->spares; s; s = s->next_spare, n++) {
		invariant(!b || s->capacity >= b->capacity); /* V3 */
		invariant(!s->next_spare || s->next_spare->capacity == s->capacity); /* V3 */
	}
	invariant(n == resv->spares_free);
}

__attribute__((cold)) static int report_null(const char *function)
{
	return misuse(-EINVAL, "%s: the reservation is NULL", function);
}

/* Whether the caller may change the list: 0, or the error that says why not. */
static int check_holder(const struct lf_resv *resv, const char *function)
{
	if (library_poisoned())
		return -EOWNERDEAD;
	if (unlikely(!resv))
		return report_null(function);
	if (unlikely(!ww_is_held(&resv->lock)))
		return misuse(-EINVAL, "%s: reservation %p is not locked by the caller", function, (const void *)resv);
	return 0;
}

/* Whether there is something to ask, and a usage: 0 or -EINVAL. */
static int check_query(const void *what, enum lf_usage usage, const char *function)
{
	if (unlikely(!what))
		return misuse(-EINVAL, "%s: the reservation, or snapshot, is NULL", function);
	if (unlikely((unsigned)usage > LF_USAGE_BOOKKEEP))
		return misuse(-EINVAL, "%s: %d is not a usage", function, (int)usage);
	return 0;
}

/* --- Life ------------------------------------------------------------------------------------------------------------------ */

void lf_resv_init(struct lf_resv *resv, struct lf_ticket_class *cls)
{
	library_enter(); /* in a poisoned child the lock will say so */
	memset(resv, 0, sizeof(*resv));
	ww_init(&resv->lock, cls);
}

static void free_spares(struct block *spare)
{
	struct block *next;

	for (; spare; spare = next) {
		next = spare->next_spare;
		mem_free(spare);
	}
}

/* Lets go of what was reserved (V4). */
static void drop_reserved(struct lf_resv *resv)
{
	resv->reserved = 0;
	if (unlikely(resv->spares != NULL)) {
		free_spares(resv->spares);
		resv->spares = NULL;
		resv->spares_free = 0;
	}
}

void lf_resv_fini(struct lf_resv *resv)
{
	struct block *b;

	if (!resv || library_poisoned())
		return;
	ww_fini(&resv->lock);
	drop_reserved(resv);
	b = current_block(resv);
	set_current_block(resv, NULL); /* before it ends, for readers who are still under way (V6) */
	block_put(b);
}

int lf_resv_create(struct lf_ticket_class *cls, struct lf_resv **ret_resv)
{
	struct counted_resv *c;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!ret_resv)
		return misuse(-EINVAL, "lf_resv_create: no place for the reservation");
	reclaim_throttle();
	c = mem_alloc(sizeof(*c));
	if (!c)
		return -ENOMEM;
	lf_resv_init(&c->resv, cls);
	u32_store(&c->resv.refs, 1, memory_order_relaxed); /* relaxed: nobody else sees it yet */
	*ret_resv = &c->resv;
	return 0;
}

struct lf_resv *lf_resv_get(struct lf_resv *resv)
{
	if (resv)
		refcount_get(&resv->refs, "lf_resv_get");
	return resv;
}

void lf_resv_put(struct lf_resv *resv)
{
	if (!resv || library_poisoned() || !refcount_put(&resv->refs, "lf_resv_put"))
		return;
	lf_resv_fini(resv);
	reclaim_free(&container_of(resv, struct counted_resv, resv)->deferred, container_of(resv, struct counted_resv, resv));
}

/* --- Lock ------------------------------------------------------------------------------------------------------------------ */

int lf_resv_lock(struct lf_resv *resv, struct lf_ticket *ticket)
{
	return likely(resv) ? ww_lock(&resv->lock, ticket, __func__) : report_null(__func__);
}

int lf_resv_lock_slow(struct lf_resv *resv, struct lf_ticket *ticket)
{
	return likely(resv) ? ww_lock_slow(&resv->lock, ticket, __func__) : report_null(__func__);
}

int lf_resv_trylock(struct lf_resv *resv, struct lf_ticket *ticket)
{
	return likely(resv) ? ww_trylock(&resv->lock, ticket, __func__) : report_null(__func__);
}

void lf_resv_unlock(struct lf_resv *resv)
{
	if (unlikely(!resv)) {
		report_null(__func__);
		return;
	}
	if (!ww_check_held(&resv->lock, __func__))
		return;
	resv_assert_valid(resv);
	drop_reserved(resv);
	ww_unlock(&resv->lock);
}

bool lf_resv_is_locked(const struct lf_resv *resv)
{
	return ww_is_locked(&resv->lock);
}

bool lf_resv_is_held(const struct lf_resv *resv)
{
	return ww_is_held(&resv->lock);
}

/* --- Making room ----------------------------------------------------------------------------------------------------------- */

/* Makes a block, which was planned, current in place of the one that the plan was for. */
static void install(struct lf_resv *resv, struct block *b)
{
	struct block *old = current_block(resv);

	set_current_block(resv, b);
	block_assert_valid(b);
	if (old)
		block_hand_over(old);
}

/* @n linked spares; NULL without memory. */
static struct block *make_spares(uint32_t n, uint32_t capacity)
{
	struct block *spares = NULL, *spare;

	for (; n; n--) {
		spare = block_create(capacity);
		if (!spare) {
			free_spares(spares);
			return NULL;
		}
		spare->next_spare = spares;
		spares = spare;
	}
	return spares;
}

/* Sees to V3 before a block of this capacity becomes current. */
static int grow_spares(struct lf_resv *resv, uint32_t capacity)
{
	struct block *spares = resv->spares, *larger;

	if (likely(!spares) || spares->capacity >= capacity)
		return 0;
	larger = make_spares(resv->spares_free, capacity);
	if (!larger)
		return -ENOMEM;
	free_spares(spares);
	resv->spares = larger;
	return 0;
}

/*
 * The capacity for @kept fences and room for @room more. At least as many free slots as kept ones: so between two compactions there are
 * as many adds as a compaction has fences to copy. The first block is small, since most lists are; one that was full once will be again.
 */
static uint32_t capacity_for(uint64_t kept, uint64_t room, bool first)
{
	uint64_t capacity = BLOCK_MIN;

	if (room < kept)
		room = kept;
	if (room < BUSY_ROOM && !first)
		room = BUSY_ROOM;
	while (capacity < kept + room && capacity < BLOCK_MAX)
		capacity *= 2;
	return (uint32_t)capacity;
}

/* Puts a compacted copy with room for @room more in the place of the list. */
static int make_room(struct lf_resv *resv, uint64_t room)
{
	struct block *old = current_block(resv), *b;
	size_t gone;
	uint64_t kept = old ? block_plan(old, 0, &gone) : 0;

	if (kept + room > BLOCK_MAX)
		return -EOVERFLOW;
	reclaim_throttle();
	b = block_create(capacity_for(kept, room, !old));
	if (!b)
		return -ENOMEM;
	if (grow_spares(resv, b->capacity) != 0) {
		mem_free(b);
		return -ENOMEM;
	}
	if (old)
		block_copy(b, old);
	install(resv, b);
	return 0;
}

int lf_resv_reserve(struct lf_resv *resv, unsigned n)
{
	int ret = check_holder(resv, __func__);
	uint64_t room;

	if (ret || n == 0)
		return ret;
	room = (PLANTED(66) ? 0 : (uint64_t)resv->reserved) + n;
	if (free_slots(resv) < room) {
		ret = make_room(resv, room);
		if (ret)
			return ret;
	}
	resv->reserved = (uint32_t)room;
	resv_assert_valid(resv);
	return 0;
}

int lf_resv_reserve_replace(struct lf_resv *resv, unsigned n)
{
	int ret = check_holder(resv, __func__);
	struct block *b, *more, **end = &more;
	uint32_t capacity = BLOCK_MIN;

	if (ret || n == 0)
		return ret;
	if (n > BLOCK_MAX - resv->spares_free)
		return -EOVERFLOW;
	b = resv->spares ? resv->spares : current_block(resv); /* V3 */
	if (b)
		capacity = b->capacity;
	reclaim_throttle();
	more = make_spares(n, capacity);
	if (!more)
		return -ENOMEM;
	while (*end)
		end = &(*end)->next_spare;
	*end = resv->spares;
	resv->spares = more;
	resv->spares_free += n;
	resv_assert_valid(resv);
	return 0;
}

/* --- Changing -------------------------------------------------------------------------------------------------------------- */

/* Counts a fence for the list, whose readers find it from the next store on. */
static struct lf_fence *get_published(struct lf_fence *f)
{
	if (!(fence_state(f) & FENCE_PUBLISHED) && !PLANTED(64))
		lf_fence_publish(f);
	refcount_get(&f->count, "lf_resv_add");
	return f;
}

/* An add without a slot. Returns whether there is one now. */
static bool add_unreserved(struct lf_resv *resv, const struct lf_fence *f)
{
	misuse(0, "lf_resv_add: no slot of reservation %p is reserved for fence %p", (const void *)resv, (const void *)f);
	if (free_slots(resv) != 0 || make_room(resv, (uint64_t)resv->reserved + 1) == 0)
		return true;
	misuse(0, "lf_resv_add: there is no memory for a slot; fence %p is lost for reservation %p", (const void *)f, (const void *)resv);
	return false;
}

/* Whether a fence may be added. What is no usage becomes the strongest. */
static bool check_add(const struct lf_resv *resv, const struct lf_fence *f, enum lf_usage *usage, const char *function)
{
	if (!fence_check(f, function) || library_poisoned())
		return false;
	if (unlikely(!resv)) {
		report_null(function);
		return false;
	}
	if (DEBUG_CHECKS && check_holder(resv, function) != 0)
		return false;
	if (check_query(resv, *usage, function) != 0)
		*usage = LF_USAGE_KERNEL;
	return true;
}

void lf_resv_add(struct lf_resv *resv, struct lf_fence *f, enum lf_usage usage)
{
	if (!check_add(resv, f, &usage, __func__))
		return;
	if (unlikely(free_slots(resv) == 0 || (DEBUG_CHECKS && resv->reserved == 0)) && !add_unreserved(resv, f))
		return;
	block_append(current_block(resv), get_published(f), usage);
	if (likely(resv->reserved))
		resv->reserved--;
	list_changed(resv);
}

/* A spare, with room for what the plan keeps and one more (V3); NULL, reported, when there is none and no memory either. */
static struct block *take_spare(struct lf_resv *resv, const struct lf_fence *f)
{
	struct block *spare = resv->spares;

	if (likely(spare)) {
		resv->spares = spare->next_spare;
		resv->spares_free--;
		return spare;
	}
	misuse(0, "lf_resv_replace: nothing is prepared on reservation %p for fence %p", (const void *)resv, (const void *)f);
	spare = block_create(current_block(resv)->capacity);
	if (!spare)
		misuse(0, "lf_resv_replace: there is no memory; fence %p is lost for reservation %p", (const void *)f, (const void *)resv);
	return spare;
}

size_t lf_resv_replace(struct lf_resv *resv, uint64_t context, struct lf_fence *f, enum lf_usage usage)
{
	struct block *old, *b;
	size_t gone = 0;

	if (!check_add(resv, f, &usage, __func__) || check_holder(resv, __func__) != 0)
		return 0;
	if (context == 0) {
		misuse(0, "lf_resv_replace: 0 is no context");
		return 0;
	}
	old = current_block(resv);
	if (old)
		block_plan(old, context, &gone);
	if (gone == 0)
		return 0;
	b = take_spare(resv, f);
	if (!b)
		return 0;
	block_copy(b, old);
	block_append(b, get_published(f), usage);
	install(resv, b);
	list_changed(resv);
	return gone;
}

/* --- Looking --------------------------------------------------------------------------------------------------------------- */

/* A poisoned child may not even register with liburcu; it has one thread, and nothing is freed. */
static void section_begin(void) LF_NO_THREAD_ANALYSIS
{
	if (!library_poisoned())
		rcu_begin();
}

static void section_end(void) LF_NO_THREAD_ANALYSIS
{
	if (!library_poisoned())
		rcu_end();
}

static void cursor_over(struct lf_resv_cursor *cursor, const struct block *b, size_t count, enum lf_usage usage)
{
	cursor->at = block_slots(b);
	cursor->end = block_end(b, count);
	cursor->usage = (uintptr_t)usage;
}

/* Inside a read section, or under the lock. */
static void cursor_over_current(struct lf_resv_cursor *cursor, const struct lf_resv *resv, enum lf_usage usage)
{
	const struct block *b = current_block(resv);

	cursor_over(cursor, b, b ? block_count(b) : 0, usage);
}

static struct lf_fence *next_pending(struct lf_resv_cursor *cursor)
{
	struct lf_fence *f;

	while ((f = lf_resv_cursor_next(cursor)) != NULL && !is_pending(f))
		;
	return f;
}

void lf_resv_cursor_begin(struct lf_resv_cursor *cursor, const struct lf_resv *resv, enum lf_usage usage)
{
	cursor_over(cursor, NULL, 0, usage);
	if (check_query(resv, usage, __func__) != 0)
		return;
	if (library_poisoned() || rcu_held() || ww_is_held(&resv->lock)) {
		cursor_over_current(cursor, resv, usage);
		return;
	}
	misuse(0, "lf_resv_cursor_begin: called outside a read section, and without the lock of reservation %p", (const void *)resv);
}

bool lf_resv_test_signaled(const struct lf_resv *resv, enum lf_usage usage)
{
	struct lf_resv_cursor cursor;
	bool signaled;

	if (check_query(resv, usage, __func__) != 0)
		return false;
	section_begin();
	cursor_over_current(&cursor, resv, usage);
	signaled = next_pending(&cursor) == NULL;
	section_end();
	return signaled;
}

/* --- Snapshots ------------------------------------------------------------------------------------------------------------- */

/* The current block, with a reference. Inside a read section. See V6. */
static struct block *get_current_block(const struct lf_resv *resv)
{
	struct block *b;

	while ((b = current_block(resv)) != NULL && !refcount_tryget(&b->refs))
		;
	return b;
}

void lf_resv_snapshot(const struct lf_resv *resv, struct lf_snapshot *ret_snapshot)
{
	struct block *b;

	section_begin();
	b = get_current_block(resv);
	section_end();
	ret_snapshot->block = b;
	ret_snapshot->count = b ? block_count(b) : 0;
}

void lf_snapshot_put(struct lf_snapshot *snapshot)
{
	struct block *b;

	if (!snapshot)
		return;
	b = snapshot->block;
	*snapshot = (struct lf_snapshot){ 0 }; /* the reference moves to b */
	if (!library_poisoned())
		block_put(b);
}

void lf_snapshot_cursor_begin(struct lf_resv_cursor *cursor, const struct lf_snapshot *snapshot, enum lf_usage usage)
{
	cursor_over(cursor, NULL, 0, usage);
	if (check_query(snapshot, usage, __func__) == 0)
		cursor_over(cursor, snapshot->block, snapshot->count, usage);
}

bool lf_snapshot_test_signaled(const struct lf_snapshot *snapshot, enum lf_usage usage)
{
	struct lf_resv_cursor cursor;

	if (check_query(snapshot, usage, __func__) != 0)
		return false;
	lf_snapshot_cursor_begin(&cursor, snapshot, usage);
	return next_pending(&cursor) == NULL;
}

/* --- Waiting --------------------------------------------------------------------------------------------------------------- */

void snapshot_enable(const struct lf_snapshot *snapshot, enum lf_usage usage)
{
	struct lf_resv_cursor cursor;
	struct lf_fence *f;

	cursor_over(&cursor, snapshot->block, snapshot->count, usage);
	while ((f = next_pending(&cursor)) != NULL)
		fence_enable(f);
}

/* All are armed before the first is waited for, so that their producers work side by side. Something may be pending. */
static int wait_for(const struct lf_snapshot *snapshot, enum lf_usage usage, int64_t deadline, const char *function)
{
	struct lf_resv_cursor cursor;
	struct lf_fence *f;
	int ret = library_check_fence_wait(function);

	if (ret)
		return ret;
	snapshot_enable(snapshot, usage);
	cursor_over(&cursor, snapshot->block, snapshot->count, usage);
	while (ret == 0 && (f = next_pending(&cursor)) != NULL)
		ret = lf_fence_wait(f, deadline);
	return ret;
}

int lf_snapshot_wait(const struct lf_snapshot *snapshot, enum lf_usage usage, int64_t deadline)
{
	int ret = check_query(snapshot, usage, __func__);

	if (ret || lf_snapshot_test_signaled(snapshot, usage))
		return ret;
	return wait_for(snapshot, usage, deadline, __func__);
}

int lf_resv_wait(const struct lf_resv *resv, enum lf_usage usage, int64_t deadline)
{
	struct lf_snapshot snapshot;
	int ret = check_query(resv, usage, __func__);

	/* A look first, which takes no reference: mostly there is nothing to wait for. */
	if (ret || lf_resv_test_signaled(resv, usage))
		return ret;
	lf_resv_snapshot(resv, &snapshot);
	ret = wait_for(&snapshot, usage, deadline, __func__);
	lf_snapshot_put(&snapshot);
	return ret;
}

void lf_resv_set_deadline(const struct lf_resv *resv, enum lf_usage usage, int64_t deadline)
{
	struct lf_snapshot snapshot;
	struct lf_resv_cursor cursor;
	struct lf_fence *f;

	if (check_query(resv, usage, __func__) != 0 || library_poisoned())
		return;
	lf_resv_snapshot(resv, &snapshot); /* hooks run, so not in a read section */
	cursor_over(&cursor, snapshot.block, snapshot.count, usage);
	while ((f = next_pending(&cursor)) != NULL)
		lf_fence_set_deadline(f, deadline);
	lf_snapshot_put(&snapshot);
}

/* --- Taking fences out ----------------------------------------------------------------------------------------------------- */

static size_t count_pending(const struct lf_snapshot *snapshot, enum lf_usage usage)
{
	struct lf_resv_cursor cursor;
	size_t n = 0;

	cursor_over(&cursor, snapshot->block, snapshot->count, usage);
	while (next_pending(&cursor))
		n++;
	return n;
}

/* References on what is pending in a snapshot, in an array; NULL and 0 when there is nothing. */
static int collect(const struct lf_snapshot *snapshot, enum lf_usage usage, struct lf_fence ***ret_fences, size_t *ret_count)
{
	size_t room = count_pending(snapshot, usage), n = 0;
	struct lf_fence **fences = NULL, *f;
	struct lf_resv_cursor cursor;

	if (room) {
		fences = lf_alloc(room * sizeof(struct lf_fence *));
		if (!fences)
			return -ENOMEM;
	}
	cursor_over(&cursor, snapshot->block, snapshot->count, usage);
	while (n < room && (f = next_pending(&cursor)) != NULL)
		fences[n++] = lf_fence_get(f);
	if (n == 0) { /* they were signaled meanwhile */
		lf_free(fences);
		fences = NULL;
	}
	*ret_fences = fences;
	*ret_count = n;
	return 0;
}

static int get_fences(const struct lf_resv *resv, enum lf_usage usage, struct lf_fence ***ret_fences, size_t *ret_count,
	const char *function)
{
	struct lf_snapshot snapshot;
	int ret = library_enter();

	if (ret)
		return ret;
	ret = check_query(resv, usage, function);
	if (ret)
		return ret;
	reclaim_throttle();
	lf_resv_snapshot(resv, &snapshot);
	ret = collect(&snapshot, usage, ret_fences, ret_count);
	lf_snapshot_put(&snapshot);
	return ret;
}

int lf_resv_get_fences(const struct lf_resv *resv, enum lf_usage usage, struct lf_fence ***ret_fences, size_t *ret_count)
{
	if (unlikely(!ret_fences || !ret_count))
		return misuse(-EINVAL, "lf_resv_get_fences: nowhere to put the fences");
	return get_fences(resv, usage, ret_fences, ret_count, __func__);
}

static void put_all(struct lf_fence **fences, size_t n)
{
	while (n)
		lf_fence_put(fences[--n]);
}

/* Whether all are the same fence, which may be in a list in two usages. */
static bool all_the_same(struct lf_fence *const *fences, size_t n)
{
	while (n > 1 && fences[n - 1] == fences[0])
		n--;
	return n == 1;
}

/* Makes one fence of the caller's references, which are consumed, also with an error. */
static int join(struct lf_fence **fences, size_t n, struct lf_fence **ret_fence)
{
	int ret;

	if (n == 0) {
		*ret_fence = lf_fence_stub();
		return 0;
	}
	if (all_the_same(fences, n)) {
		*ret_fence = fences[0]; /* this reference moves */
		put_all(fences + 1, n - 1);
		return 0;
	}
	ret = lf_array_create(fences, n, LF_ARRAY_ALL, ret_fence);
	if (ret)
		put_all(fences, n);
	return ret;
}

int lf_resv_get_singleton(const struct lf_resv *resv, enum lf_usage usage, struct lf_fence **ret_fence)
{
	struct lf_fence **fences;
	size_t n;
	int ret;

	if (unlikely(!ret_fence))
		return misuse(-EINVAL, "lf_resv_get_singleton: nowhere to put the fence");
	ret = get_fences(resv, usage, &fences, &n, __func__);
	if (ret)
		return ret;
	ret = join(fences, n, ret_fence);
	lf_free(fences);
	return ret;
}

/* Adds what a snapshot has pending. Of what the caller had reserved before, nothing is used. */
static int add_pending(struct lf_resv *resv, const struct lf_snapshot *snapshot)
{
	size_t n = count_pending(snapshot, LF_USAGE_BOOKKEEP);
	uint32_t reserved = resv->reserved;
	struct lf_resv_cursor cursor;
	struct lf_fence *f;
	int ret = lf_resv_reserve(resv, (unsigned)n);

	if (ret)
		return ret;
	cursor_over(&cursor, snapshot->block, snapshot->count, LF_USAGE_BOOKKEEP);
	while (n-- && (f = next_pending(&cursor)) != NULL)
		lf_resv_add(resv, f, lf_resv_cursor_usage(&cursor));
	resv->reserved = reserved;
	return 0;
}

int lf_resv_copy(struct lf_resv *dst, const struct lf_resv *src)
{
	struct lf_snapshot snapshot;
	int ret = check_holder(dst, __func__);

	if (ret || dst == src)
		return ret;
	if (unlikely(!src))
		return report_null(__func__);
	lf_resv_snapshot(src, &snapshot);
	ret = add_pending(dst, &snapshot);
	lf_snapshot_put(&snapshot);
	return ret;
}

/* --- Describe -------------------------------------------------------------------------------------------------------------- */

static void describe_slot(struct text *t, const struct lf_fence *f, enum lf_usage usage)
{
	static const char *const names[] = { "kernel", "write", "read", "bookkeep" };

	text_add(t, "%s ", names[usage]);
	t->len += lf_fence_describe(f, text_end(t), text_room(t));
	text_add(t, "\n");
}

int lf_resv_describe(const struct lf_resv *resv, char *buf, size_t size)
{
	struct text text = { buf, size, 0 };
	struct lf_snapshot snapshot;
	struct lf_resv_cursor cursor;
	const struct lf_fence *f;

	if (size)
		*buf = '\0';
	lf_resv_snapshot(resv, &snapshot);
	cursor_over(&cursor, snapshot.block, snapshot.count, LF_USAGE_BOOKKEEP);
	while ((f = lf_resv_cursor_next(&cursor)) != NULL)
		describe_slot(&text, f, lf_resv_cursor_usage(&cursor));
	lf_snapshot_put(&snapshot);
	return text.len;
}
