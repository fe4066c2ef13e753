/* SPDX-License-Identifier: MIT */
/*
 * The fence: its life, its words, and how it becomes signaled.
 *
 * Purpose: something that happens once. What runs other people's code when it does (callbacks, hooks) is in dispatch.c; sleeping in wait.c;
 * order between fences in timeline.c.
 *
 * States:
 *
 *     PENDING --fence_finish()--> SIGNALED --the dispatcher finds the list empty--> DRAINED
 *
 * | state    | callback word                     | list holds                                     |
 * |----------|-----------------------------------|------------------------------------------------|
 * | PENDING  | list, no flag (LOCK now and then) | nodes, newest first                            |
 * | SIGNALED | list | SIGNALED                   | nodes not yet claimed, internal ones first, FIFO |
 * | DRAINED  | SIGNALED | DRAINED                | nothing                                        |
 * A fence without nodes goes from PENDING to DRAINED in one store.
 *
 * Layout, 64 bytes:
 *
 *     origin 8 | callbacks 8 | context 8 | seqno 8 | timestamp 8 | count 4 | state 4 | link 8 | running 8
 *
 * origin     what a pending fence needs of its producer; NULL for a stand-alone fence and after detaching. Protected by the lock.
 * callbacks  list and flags; the lock of everything marked so.
 * context, seqno   immutable once the fence was handed out.
 * timestamp  written once, under the lock, before SIGNALED.
 * count      references; see refcount.h and F9.
 * state      error, kind, flags, hooks in flight, offset: protected by the lock. Readers without it use what is immutable, or the
 *            error, which is final since SIGNALED.
 * link       while signaled: the next fence of a list of one thread (dispatch queue, or a timeline's batch). When dead: the reclaimer's.
 * running    the callback that runs now; protected by the lock. When dead: the reclaimer's.
 *
 * Invariants, with the fence locked (fence_assert_valid()):
 * F1. DRAINED implies SIGNALED, an empty list and no running callback.
 * F2. A pending fence has no running callback, no error and no DEAD mark.
 * F3. Every node of the list is QUEUED on this fence.
 * F4. After SIGNALED all internal nodes stand before all user nodes, and each node's prev is the node before it, but for the first's.
 * F5. An origin is there only while pending, or while hooks are in flight.
 * F6. DEAD implies SIGNALED, not DRAINED.
 * F7. The kind is set.
 *
 * And for everybody:
 * F8. Who locks takes the word from the very operation that locked. A later load may find another locker's mark in its place (see
 *     fence_lock_signaled()): the word proper is in the hands of the holder until it unlocks.
 *
 * Locking: FENCE_LOCK in the callback word, held for a few instructions; nothing is called under it but internal nodes' counting. A
 * timeline's mutex may be held when it is taken, never the other way round.
 *
 * Ordering: fence-lock, fence-push, fence-signaled; refcount. In docs/ORDERING.md.
 *
 * Lifetime: counted. While SIGNALED and not DRAINED the dispatcher needs the fence too, and the callback that runs may take references,
 * as if it had one. Instead of counting a reference for that (two locked operations for every signal), the last holder leaves its own to
 * the dispatcher (put_last_locked()), who puts it after the last callback. So:
 * F9. The count does not reach 0 while the fence is dispatched. Nobody touches a fence after giving its reference up.
 *
 * What ends a container may end a million others: see end_container().
 *
 * Not here: release hooks. Nothing of the producer is needed for freeing: the block comes from the library's allocator.
 */
#include "fence/core.h"

#include <stdio.h>

#include "base/alloc.h"
#include "base/rcu.h"
#include "base/reclaim.h"
#include "base/text.h"
#include "base/track.h"
#include "fence/timeline.h"

/* What the count of a freed fence holds in debug builds: far inside the upper half, so that puts and gets do not change it. */
#define COUNT_FREED UINT32_C(0xdeadf3ce)

const struct fence_class *fence_classes[FENCE_KINDS];

struct fence_origin fence_no_producer;

static struct lf_fence stub = {
	.callbacks = { FENCE_SIGNALED | FENCE_DRAINED },
	.count = { REFCOUNT_FOREVER },
	.state = { FENCE_STUB << FENCE_KIND_SHIFT },
};

/* --- Tracking ------------------------------------------------------------------------------------------------------------ */

static int describe_tracked(const void *fence, char *buf, size_t size)
{
	return lf_fence_describe(fence, buf, size);
}

const struct track_kind fence_track_kind = { "fence", 0, describe_tracked };

/* --- Checks -------------------------------------------------------------------------------------------------------------- */

void fence_assert_valid_slow(const struct lf_fence *f, uintptr_t word)
{
	const struct lf_fence_cb *prev = NULL;
	bool signaled = word & FENCE_SIGNALED, user_seen = false;
	uint32_t state = fence_state(f);

	invariant(!(word & FENCE_DRAINED) || (signaled && !word_list(word) && !f->running)); /* F1 */
	invariant(signaled || (!f->running && !(state & (FENCE_ERROR | FENCE_DEAD)))); /* F2 */
	for (const struct lf_fence_cb *cb = word_list(word); cb; prev = cb, cb = cb->next) {
		bool internal = cb_state(cb) & CB_INTERNAL;

		invariant((cb_state(cb) & CB_STATE) == CB_QUEUED && cb_fence(cb) == f); /* F3 */
		invariant(!signaled || !prev || cb->prev == prev); /* F4 */
		invariant(!signaled || !internal || !user_seen); /* F4 */
		user_seen = user_seen || !internal;
	}
	invariant(!signaled || !fence_origin(f) || (state & FENCE_HOOKS)); /* F5 */
	invariant(!(state & FENCE_DEAD) || (signaled && !(word & FENCE_DRAINED))); /* F6 */
	invariant(state & FENCE_KIND); /* F7 */
}

bool fence_check_slow(const struct lf_fence *f, const char *function)
{
	if (!f) {
		misuse(0, "%s: the fence is NULL", function);
		return false;
	}
	/* relaxed: a look for poison */
	if (u32_load(&f->count, memory_order_relaxed) == COUNT_FREED) {
		misuse(0, "%s: fence %p was used after its last put", function, (const void *)f);
		return false;
	}
	if (!fence_kind(f)) {
		misuse(0, "%s: fence %p was never initialised", function, (const void *)f);
		return false;
	}
	return true;
}

/* The same for functions whose whole work is a load or two: in release builds they check nothing. */
static bool debug_check(const struct lf_fence *f, const char *function)
{
	return !DEBUG_CHECKS || fence_check(f, function);
}

/* --- Lock ---------------------------------------------------------------------------------------------------------------- */

uintptr_t fence_lock_slow(struct lf_fence *f)
{
	unsigned rounds = 0;
	uintptr_t word;

	for (;;) {
		word = ptr_load(&f->callbacks, memory_order_relaxed); /* relaxed: the exchange below has the order */
		/* order: fence-lock (acquire), fence-push (acquire): like fence_lock() */
		if (!(word & FENCE_LOCK) &&
		    ptr_cas(&f->callbacks, &word, word | FENCE_LOCK, PLANT_ORDER(103, memory_order_relaxed, memory_order_acquire), memory_order_relaxed))
			return word;
		port_relax(&rounds);
	}
}

/* --- Making -------------------------------------------------------------------------------------------------------------- */

static void init(struct lf_fence *f, enum fence_kind kind, uint32_t flags, size_t offset)
{
	*f = (struct lf_fence){ .timestamp = INT64_MIN };
	/*
	 * Apart from the rest: merged with it into one wide store, the first load of the state would have to wait for that to leave the
	 * store buffer.
	 */
	u32_store(&f->count, 1, memory_order_relaxed); /* relaxed: who hands the fence on makes it visible */
	fence_set_state(f, (uint32_t)kind << FENCE_KIND_SHIFT | flags | (uint32_t)(offset / 8) * FENCE_OFFSET_UNIT);
	track_add(f, &fence_track_kind);
}

void fence_init_class(struct lf_fence *f, enum fence_kind kind, uint32_t flags, size_t offset)
{
	init(f, kind, flags, offset);
	fence_set_origin(f, &fence_no_producer);
}

int lf_fence_init(struct lf_fence *f, size_t offset)
{
	int ret = library_enter();

	if (ret)
		return ret;
	if (!f)
		return misuse(-EINVAL, "lf_fence_init: the fence is NULL");
	if (offset % 8 != 0 || offset > LF_FENCE_MAX_OFFSET)
		return misuse(-EINVAL, "lf_fence_init: offset %zu is not a multiple of 8 up to %d", offset, LF_FENCE_MAX_OFFSET);
	init(f, FENCE_STAND_ALONE, 0, offset);
	return 0;
}

int lf_fence_create(struct lf_fence **ret_fence)
{
	struct lf_fence *f;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!ret_fence)
		return misuse(-EINVAL, "lf_fence_create: nowhere to put the fence");
	reclaim_throttle();
	f = mem_alloc(sizeof(*f));
	if (!f)
		return -ENOMEM;
	init(f, FENCE_STAND_ALONE, 0, 0);
	*ret_fence = f;
	return 0;
}

int lf_fence_create_signaled(int error, int64_t timestamp, struct lf_fence **ret_fence)
{
	struct fence_origin *none;
	int ret = lf_fence_create(ret_fence);

	if (ret)
		return ret;
	/* Nobody has seen it: there is nothing to lock, and nothing to run. */
	ptr_store(&(*ret_fence)->callbacks, fence_finish(*ret_fence, 0, check_error(__func__, error), timestamp, &none),
		memory_order_relaxed); /* relaxed: who hands the fence on makes it visible */
	return 0;
}

struct lf_fence *lf_fence_stub(void)
{
	return &stub;
}

/* --- Becoming signaled --------------------------------------------------------------------------------------------------- */

/*
 * Newest first becomes internal nodes first, each group in the order of adding, with back pointers that hold (F4). Walking from the newest,
 * each node goes to the front of its group.
 */
static uintptr_t order_list(struct lf_fence_cb *newest)
{
	struct lf_fence_cb *internal = NULL, *last_internal = NULL, *user = NULL, *cb, *next;

	if (!newest->next)
		return (uintptr_t)newest;
	for (cb = newest; cb; cb = next) {
		struct lf_fence_cb **group = cb_state(cb) & CB_INTERNAL ? &internal : &user;

		next = cb->next;
		if (group == &internal && !internal)
			last_internal = cb;
		cb->next = *group;
		if (*group)
			(*group)->prev = cb;
		*group = cb;
	}
	if (!last_internal)
		return (uintptr_t)user;
	last_internal->next = user;
	if (user)
		user->prev = last_internal;
	return (uintptr_t)internal;
}

uintptr_t fence_finish(struct lf_fence *f, uintptr_t word, int error, int64_t timestamp, struct fence_origin **ret_detach)
{
	struct fence_origin *origin = fence_origin(f);
	uint32_t state = fence_state(f);

	fence_assert_valid(f, word);
	f->timestamp = timestamp;
	fence_set_state(f, state | (uint32_t)-error);
	*ret_detach = NULL;
	if (origin && (!(state & FENCE_HOOKS) || PLANTED(22))) {
		fence_set_origin(f, NULL);
		*ret_detach = origin;
	}
	if (!word)
		return FENCE_SIGNALED | FENCE_DRAINED;
	return order_list(word_list(word)) | FENCE_SIGNALED;
}

/* Signals a fence that is pending, whatever its kind. Returns whether this call did it. */
static bool complete(struct lf_fence *f, int error, int64_t timestamp)
{
	struct fence_origin *none;
	uintptr_t word = fence_lock(f);

	if (unlikely(word & FENCE_SIGNALED)) {
		fence_unlock(f, word);
		return false;
	}
	word = fence_finish(f, word, error, timestamp, &none);
	if (fence_class(f))
		word &= ~FENCE_DRAINED; /* it must be settled */
	if (word & FENCE_DRAINED)
		fence_unlock(f, word);
	else
		fence_dispatch_locked(f, word);
	return true;
}

/* --- References ---------------------------------------------------------------------------------------------------------- */

struct lf_fence *lf_fence_get(struct lf_fence *f)
{
	if (f && debug_check(f, __func__))
		refcount_get(&f->count, "lf_fence_get");
	return f;
}

struct lf_fence *lf_fence_tryget(struct lf_fence *f)
{
	return f && refcount_tryget(&f->count) ? f : NULL;
}

void fence_free_memory(struct lf_fence *f)
{
	uint32_t state = fence_state(f);
	size_t offset = (size_t)(state / FENCE_OFFSET_UNIT) * 8;
	void *block = (char *)f - offset;

	track_remove(f);
	/*
	 * In debug builds every dead fence waits for a grace period, so that a use after the last put meets the poison and not other
	 * memory. In others a put too many finds no reference, as long as the memory is nobody else's. A published one keeps its count, which
	 * is 0: readers may look at it until then.
	 */
	if (!(state & FENCE_PUBLISHED))
		u32_store(&f->count, DEBUG_CHECKS ? COUNT_FREED : 0, memory_order_relaxed); /* relaxed: who reads it has no business to */
	if (DEBUG_CHECKS || (state & FENCE_PUBLISHED)) {
		_Static_assert(offsetof(struct lf_deferred, func) <= sizeof(struct lf_fence) - offsetof(struct lf_fence, link), "it fits");
		reclaim_free((struct lf_deferred *)(void *)&f->link, block);
		return;
	}
	mem_free(block);
}

/*
 * Ends a container. Its members are put then, of which some may be containers that end in turn: those wait in the thread's list, so that
 * any depth of them needs the stack of one.
 */
static void end_container(struct lf_fence *f)
{
	struct library_thread *t = this_thread();

	f->link = t->dead;
	t->dead = f;
	if (t->ending)
		return;
	t->ending = true;
	while ((f = t->dead) != NULL) {
		t->dead = f->link;
		fence_class(f)->end(f);
	}
	t->ending = false;
}

/* Ends a fence that nobody refers to. */
static void end(struct lf_fence *f)
{
	if (unlikely(fence_class(f) != NULL))
		end_container(f);
	else
		fence_free_memory(f);
}

/* The last reference of a pending fence, which somebody still waits for: the count is 1. */
static void put_awaited(struct lf_fence *f)
{
	if (fence_kind(f) == FENCE_OF_TIMELINE) {
		misuse(0, "lf_fence_put: pending fence %p was put once too often; its timeline's reference stays", (void *)f);
		return;
	}
	misuse(0,
		"lf_fence_put: the last reference of pending fence %p was put with callbacks on it; it completes with -EDEADLK (waiters and containers "
		"count as callbacks; a container consumes the references of its members)",
		(void *)f);
	complete(f, -EDEADLK, lf_now());
	lf_fence_put(f);
}

static bool is_awaited(const struct lf_fence *f, uintptr_t word)
{
	return !(word & FENCE_SIGNALED) && (word_list(word) || fence_kind(f) == FENCE_OF_TIMELINE);
}

/*
 * The last reference of a fence that others may look at or that is being dispatched; all decided under the lock. A fence that is
 * dispatched is not put: the reference is left to the dispatcher (F9). A pending one is signaled before it goes, so that no reader adds a
 * node that nobody will ever run. @before is a look at the word. Returns false when there is another reference by now.
 */
static bool put_last_locked(struct lf_fence *f, uintptr_t before)
{
	/* Read before the lock is taken, since the clock may be the user's, and only if somebody may ask: a reader who saw it pending. */
	int64_t now = (before & FENCE_SIGNALED) || !(fence_state(f) & FENCE_PUBLISHED) ? 0 : lf_now();
	uintptr_t word = fence_lock(f);
	struct fence_origin *none;
	uint32_t one = 1;

	if ((word & (FENCE_SIGNALED | FENCE_DRAINED)) == FENCE_SIGNALED) {
		fence_set_state(f, fence_state(f) | FENCE_DEAD);
		fence_unlock(f, word);
		return true;
	}
	/* order: refcount (acquire): sees what other holders did before their puts */
	/* order: refcount (release): who is refused a reference sees it, too */
	if (!u32_cas(&f->count, &one, 0, PLANT_ACQ_REL(212, 107), memory_order_relaxed)) {
		fence_unlock(f, word);
		return false;
	}
	if (is_awaited(f, word)) {
		u32_store(&f->count, 1, memory_order_relaxed); /* relaxed: nobody else has a reference */
		fence_unlock(f, word);
		put_awaited(f);
		return true;
	}
	if (!(word & FENCE_SIGNALED))
		word = fence_finish(f, word, -ECANCELED, now, &none);
	fence_unlock(f, word);
	end(f);
	return true;
}

/*
 * Whether a count of 1 says that an unpublished fence is the caller's alone, so that there is nothing to count down against; that saves
 * the locked operation of the commonest put. Nobody can take a reference without having one, but for a callback that runs: so the count
 * must have been read when the fence was drained already (@before), or it is still pending (who signals has a reference, so nobody else
 * could). A container is signaled by who has none.
 */
static bool is_exclusive(const struct lf_fence *f, uintptr_t before)
{
	if ((fence_state(f) & FENCE_PUBLISHED) || fence_class(f))
		return false;
	return (before & FENCE_DRAINED) || !(fence_word(f) & FENCE_SIGNALED) || PLANTED(19);
}

void lf_fence_put(struct lf_fence *f)
{
	if (!f || !debug_check(f, __func__) || library_poisoned())
		return;
	for (;;) {
		uintptr_t word = fence_word(f);
		/* order: refcount (acquire): sees what other holders did before their puts */
		uint32_t count = u32_load(&f->count, PLANT_ORDER(108, memory_order_relaxed, memory_order_acquire));

		if (unlikely(refcount_is_forever(count)))
			return;
		if (unlikely(count == 0)) {
			misuse(0, "lf_fence_put: fence %p was put once too often", (void *)f);
			return;
		}
		if (count > 1) {
			/* order: refcount (release): what this holder did comes before the end of the object */
			if (u32_cas(&f->count, &count, count - 1, PLANT_ORDER(8, memory_order_relaxed, memory_order_release),
				    memory_order_relaxed))
				return;
		} else if (!is_exclusive(f, word)) {
			if (put_last_locked(f, word))
				return;
		} else if (is_awaited(f, word)) {
			put_awaited(f);
			return;
		} else {
			end(f);
			return;
		}
	}
}

void lf_fence_publish(struct lf_fence *f)
{
	uintptr_t word;

	if (!fence_check(f, __func__) || library_poisoned() || (fence_state(f) & FENCE_PUBLISHED) || f == &stub)
		return;
	word = fence_lock(f);
	fence_set_state(f, fence_state(f) | FENCE_PUBLISHED);
	fence_unlock(f, word);
}

/* --- Looking ------------------------------------------------------------------------------------------------------------- */

bool lf_fence_is_signaled(const struct lf_fence *f)
{
	return debug_check(f, __func__) && (fence_word(f) & FENCE_SIGNALED);
}

bool lf_fence_is_drained(const struct lf_fence *f)
{
	return debug_check(f, __func__) && (fence_word(f) & FENCE_DRAINED);
}

int lf_fence_status(const struct lf_fence *f)
{
	int error;

	if (!lf_fence_is_signaled(f))
		return 0;
	error = (int)(fence_state(f) & FENCE_ERROR);
	return error ? -error : 1;
}

int64_t lf_fence_timestamp(const struct lf_fence *f)
{
	return lf_fence_is_signaled(f) ? f->timestamp : INT64_MIN;
}

uint64_t lf_fence_context(const struct lf_fence *f)
{
	return debug_check(f, __func__) ? f->context : 0;
}

uint64_t lf_fence_seqno(const struct lf_fence *f)
{
	return debug_check(f, __func__) ? f->seqno : 0;
}

bool lf_fence_is_ordered(const struct lf_fence *f)
{
	return debug_check(f, __func__) && (fence_state(f) & FENCE_ORDERED);
}

bool lf_fence_is_later(const struct lf_fence *a, const struct lf_fence *b)
{
	if (!debug_check(a, __func__) || !debug_check(b, __func__))
		return false;
	return a->context != 0 && a->context == b->context && a->seqno > b->seqno;
}

/* --- Signalling ---------------------------------------------------------------------------------------------------------- */

static bool may_signal(struct lf_fence *f, const char *function)
{
	if (!fence_check(f, function) || library_poisoned())
		return false;
	if (unlikely(rcu_held()))
		misuse(0, "%s: called inside a read section, where callbacks could not do what they may", function);
	return true;
}

static bool signal_at(struct lf_fence *f, int error, int64_t timestamp, const char *function)
{
	enum fence_kind kind = fence_kind(f);

	if (unlikely(kind != FENCE_STAND_ALONE)) {
		if (kind == FENCE_OF_TIMELINE)
			misuse(0, "%s: fence %p is of a timeline, which signals it", function, (void *)f);
		else if (kind != FENCE_STUB)
			misuse(0, "%s: fence %p is a container, which its members signal", function, (void *)f);
		return false;
	}
	return complete(f, error, timestamp);
}

bool lf_fence_signal(struct lf_fence *f, int error)
{
	/*
	 * Before the fence is touched: reading the clock waits for loads that are under way, and a poller's cache line is one to wait
	 * for.
	 */
	int64_t now = lf_now();

	return may_signal(f, __func__) && signal_at(f, check_error(__func__, error), now, __func__);
}

bool lf_fence_signal_at(struct lf_fence *f, int error, int64_t timestamp)
{
	return may_signal(f, __func__) && signal_at(f, check_error(__func__, error), timestamp, __func__);
}

/* --- Describe ------------------------------------------------------------------------------------------------------------ */

int lf_fence_name(const struct lf_fence *f, char *buf, size_t size)
{
	if (!fence_check(f, __func__))
		return snprintf(buf, size, "not a fence");
	switch (fence_kind(f)) {
	case FENCE_OF_TIMELINE:
		return registry_name(f->context, buf, size);
	case FENCE_STUB:
		return snprintf(buf, size, "stub");
	case FENCE_STAND_ALONE:
		return snprintf(buf, size, "stand-alone");
	default:
		return snprintf(buf, size, "%s", fence_class(f)->name);
	}
}

int lf_fence_describe(const struct lf_fence *f, char *buf, size_t size)
{
	struct text text = { buf, size, 0 };
	int status;

	if (!fence_check(f, __func__))
		return snprintf(buf, size, "not a fence");
	text.len = lf_fence_name(f, buf, size);
	status = lf_fence_status(f);
	if (status == 0)
		text_add(&text, " %llu:%llu pending", (unsigned long long)f->context, (unsigned long long)f->seqno);
	else
		text_add(&text, " %llu:%llu %s at %lld ns: %s", (unsigned long long)f->context, (unsigned long long)f->seqno,
			lf_fence_is_drained(f) ? "drained" : "signaled", (long long)f->timestamp, status > 0 ? "ok" : strerror(-status));
	return text.len;
}
