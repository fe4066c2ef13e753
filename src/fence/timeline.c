/* SPDX-License-Identifier: MIT */
/*
 * Timelines: emitting fences in the order of their seqnos, and completing them.
 *
 * Purpose: the context object. It keeps its pending fences in a ring by seqno, so that everything that is pending can be found again: up
 * to a seqno, one, or all when the device is lost or the timeline dropped. And it is the origin (core.h) of its fences: their hooks live
 * here.
 *
 * States:
 *
 *     OPEN --lf_timeline_lose()--> LOST        --last put, or provider close--> CLOSED --last fence detached--> released
 *         \--------------------------------------/
 * | state  | emit                                    | pending fences           |
 * |--------|-----------------------------------------|--------------------------|
 * | OPEN   | pending fence                           | any                      |
 * | LOST   | completes at once, with the loss's error | none when the call ended |
 * | CLOSED | -ESHUTDOWN                              | none                     |
 *
 * Invariants, with the mutex held:
 * TL1. The ring holds entries of rising seqno; each fence in it is pending and the ring has a reference on it. A hole (NULL) is a fence
 *      that was signaled before an earlier one, on an unordered timeline. The first entry is no hole.
 * TL2. A fence becomes signaled under the mutex, and on an ordered timeline only as the first of the ring, at a clock read under the
 *      mutex: so states and timestamps never go backwards, however many threads signal at once.
 * TL3. attached is the number of fences whose detach hook has not returned, and of places reserved, plus one until CLOSED. Whoever brings
 *      it to zero releases the timeline's data. While it is not zero the timeline's memory is there.
 * TL4. last_seqno is that of the fence emitted last; emission and ring agree in order.
 * TL5. Once lost is set, whatever becomes signaled does with that error, whoever signals it.
 *
 * Locking: mutex -> a fence's lock. No user code under either; what must be called afterwards is carried out of the mutex in a list.
 * registry_mutex is taken alone.
 *
 * Ordering: timeline-registry (names found without lock); timeline-attached.
 *
 * Lifetime: refs are the users'; the last one drops the timeline. attached keeps the memory; it ends with a grace period, for those who
 * read the name.
 *
 * Not here: order between callbacks of different fences, which is not promised.
 */
#include "base/alloc.h"
#include "base/check.h"
#include "base/library.h"
#include "base/rcu.h"
#include "base/reclaim.h"
#include "base/refcount.h"
#include "base/track.h"
#include "fence/core.h"
#include "fence/provider.h"
#include "fence/timeline.h"

#include <stdio.h>

struct entry {
	uint64_t seqno;
	struct lf_fence *fence; /* NULL is a hole */
};

/* A queue in a circle. Capacity is a power of two, or 0. */
struct ring {
	struct entry *entries;
	size_t capacity, first, count, holes;
	size_t reserved; /* entries that timeline_reserve() keeps free */
};

enum { RING_MIN = 16, RING_KEEP = 1024 };

struct lf_timeline {
	struct fence_origin origin; /* immutable */
	struct provider_resource resource;
	lf_atomic_u32 refs; /* the users' */
	lf_atomic_u32 holds; /* of the memory: one for refs, one for attached */
	lf_atomic_u64 attached;
	struct port_mutex mutex;
	struct ring ring; /* protected by mutex */
	uint64_t last_seqno; /* protected by mutex */
	int64_t last_time; /* protected by mutex: the newest timestamp */
	int lost; /* protected by mutex: the error of the loss, or 0 */
	bool closed; /* protected by mutex */
	uint64_t context; /* immutable */
	unsigned flags; /* immutable */
	void (*release)(void *data); /* immutable */
	lf_atomic_ptr next_named; /* RCU: next in the registry's bucket */
	struct lf_deferred reclaim; /* when dead */
	char name[]; /* immutable: provider/name */
};

/* --- Registry of names --------------------------------------------------------------------------------------------------- */

enum { BUCKETS = 1024 };

static struct port_mutex registry_mutex = PORT_MUTEX_INIT;
static lf_atomic_ptr buckets[BUCKETS]; /* struct lf_timeline *, RCU; written under registry_mutex */
static lf_atomic_u64 last_context;

static void lock_registry(void) LF_NO_THREAD_ANALYSIS
{
	port_mutex_lock(&registry_mutex);
}

static void unlock_registry(void) LF_NO_THREAD_ANALYSIS
{
	port_mutex_unlock(&registry_mutex);
}

__attribute__((constructor)) static void register_layer(void)
{
	static struct library_layer layer = { .before_fork = lock_registry, .after_fork = unlock_registry };

	library_add_layer(&layer);
}

static lf_atomic_ptr *bucket_of(uint64_t context)
{
	return &buckets[context % BUCKETS];
}

static struct lf_timeline *named(const lf_atomic_ptr *link)
{
	/* order: timeline-registry (acquire): the timeline that is found is initialised */
	return (struct lf_timeline *)ptr_load(link, PLANT_ORDER(114, memory_order_relaxed, memory_order_acquire));
}

uint64_t timeline_new_context(void)
{
	return u64_fetch_add(&last_context, 1, memory_order_relaxed) + 1; /* relaxed: a number that nobody else gets */
}

static void register_name(struct lf_timeline *tl)
{
	lf_atomic_ptr *bucket = bucket_of(tl->context);

	if (!PLANTED(177))
		port_mutex_lock(&registry_mutex);
	tl->next_named.value = (uintptr_t)named(bucket);
	/* order: timeline-registry (release) */
	ptr_store(bucket, (uintptr_t)tl, PLANT_ORDER(23, memory_order_relaxed, memory_order_release));
	if (!PLANTED(177))
		port_mutex_unlock(&registry_mutex);
}

static void unregister_name(struct lf_timeline *tl)
{
	lf_atomic_ptr *link;

	port_mutex_lock(&registry_mutex);
	for (link = bucket_of(tl->context); named(link) != tl; link = &named(link)->next_named)
		;
	/* order: timeline-registry (release): the next one was initialised long ago, by whoever put it there */
	ptr_store(link, (uintptr_t)named(&tl->next_named), PLANT_ORDER(113, memory_order_relaxed, memory_order_release));
	port_mutex_unlock(&registry_mutex);
}

int registry_name(uint64_t context, char *buf, size_t size)
{
	const struct lf_timeline *tl;
	int len;

	if (library_poisoned())
		return snprintf(buf, size, "signaled-timeline");
	rcu_begin();
	for (tl = named(bucket_of(context)); tl && tl->context != context; tl = named(&tl->next_named))
		;
	len = snprintf(buf, size, "%s", tl ? tl->name : "signaled-timeline");
	rcu_end();
	return len;
}

/* --- Ring ---------------------------------------------------------------------------------------------------------------- */

static struct entry *ring_at(const struct ring *ring, size_t i)
{
	return &ring->entries[(ring->first + i) & (ring->capacity - 1)];
}

static void ring_append(struct ring *ring, uint64_t seqno, struct lf_fence *f)
{
	ring->count++;
	*ring_at(ring, ring->count - 1) = (struct entry){ seqno, f };
}

/* Drops the holes at the front (TL1). */
static void ring_trim(struct ring *ring)
{
	while (ring->count && !ring_at(ring, 0)->fence) {
		ring->first++;
		ring->count--;
		ring->holes--;
	}
}

static struct lf_fence *ring_take_first(struct ring *ring)
{
	struct lf_fence *f = ring_at(ring, 0)->fence;

	ring->first++;
	ring->count--;
	ring_trim(ring);
	return f;
}

/* Takes one fence out of the middle. Returns false when it is not there. */
static bool ring_take(struct ring *ring, const struct lf_fence *f)
{
	size_t low = 0, high = ring->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (ring_at(ring, middle)->seqno < f->seqno)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == ring->count || ring_at(ring, low)->fence != f)
		return false;
	ring_at(ring, low)->fence = NULL;
	ring->holes++;
	ring_trim(ring);
	return true;
}

/* Closes the holes. */
static void ring_compact(struct ring *ring)
{
	size_t kept = 0;

	for (size_t i = 0; i < ring->count; i++) {
		if (ring_at(ring, i)->fence)
			*ring_at(ring, kept++) = *ring_at(ring, i);
	}
	ring->count = kept;
	ring->holes = 0;
}

/* Moves what is there into @entries, of the new capacity. Returns the old memory. */
static struct entry *ring_move(struct ring *ring, struct entry *entries, size_t capacity)
{
	struct entry *old = ring->entries;

	for (size_t i = 0; i < ring->count; i++)
		entries[i] = *ring_at(ring, i);
	ring->entries = entries;
	ring->capacity = capacity;
	ring->first = 0;
	return old;
}

/* An empty ring that once was large gives its memory up, so that it is in proportion to what is pending. Returns it. */
static struct entry *ring_shrink(struct ring *ring)
{
	struct entry *old = ring->entries;

	if (ring->count || ring->reserved || ring->capacity <= RING_KEEP)
		return NULL;
	*ring = (struct ring){ 0 };
	return old;
}

/* --- Memory and origin --------------------------------------------------------------------------------------------------- */

/* One of the two that keep the memory is through: the users' references, or what is attached. */
static void unhold(struct lf_timeline *tl)
{
	if (!refcount_put(&tl->holds, "timeline"))
		return;
	track_remove(tl);
	mem_free(tl->ring.entries);
	port_mutex_fini(&tl->mutex);
	reclaim_free(&tl->reclaim, tl);
}

static void end(struct lf_timeline *tl)
{
	struct hook_frame frame;

	if (tl->release) {
		hook_enter(&frame, tl->origin.provider);
		tl->release(tl->origin.data);
		hook_leave(&frame);
	}
	provider_remove(&tl->resource);
	unhold(tl);
}

/* @n fences were detached (or the timeline was closed, which counts as one). The timeline may be gone afterwards. */
static void detached(struct fence_origin *origin, size_t n)
{
	struct lf_timeline *tl = container_of(origin, struct lf_timeline, origin);

	/* order: timeline-attached (release): our hooks have returned */
	/* order: timeline-attached (acquire): whoever ends it comes after all hooks */
	if (n && u64_fetch_sub(&tl->attached, n, PLANT_ACQ_REL(115, 13)) == n)
		end(tl);
}

/* --- Completing ---------------------------------------------------------------------------------------------------------- */

/*
 * What was signaled under the mutex and must be told outside: fences in order, each with the reference that the ring had. They are linked
 * by lf_fence.link, which is ours until the dispatch, with a tag on those whose origin was taken for detaching.
 */
struct batch {
	struct lf_fence *head, *last;
	size_t count, to_detach;
};

#define TELL_DETACH ((uintptr_t)1)

/* Signals a fence that was taken out of the ring. Under the mutex; nobody but its timeline signals it, so it is pending. */
static void complete_one(struct batch *b, struct lf_fence *f, int error, int64_t time)
{
	struct fence_origin *detach;
	uintptr_t word = fence_lock(f);

	word = fence_finish(f, word, error, time, &detach);
	f->link = (void *)(detach ? TELL_DETACH : 0);
	fence_unlock(f, word);
	if (b->last)
		b->last->link = (void *)((uintptr_t)f | ((uintptr_t)b->last->link & TELL_DETACH));
	else
		b->head = f;
	b->last = f;
	b->count++;
	b->to_detach += detach != NULL;
}

/* The fence behind @f in a batch. */
static struct lf_fence *batch_next(const struct lf_fence *f)
{
	return (struct lf_fence *)((uintptr_t)f->link & ~TELL_DETACH);
}

/* Calls the detach hooks. The origin stays until detached() was told of them. */
static void detach_batch(struct fence_origin *origin, const struct batch *b)
{
	if (origin->ops && origin->ops->detach) {
		for (struct lf_fence *f = b->head; f; f = batch_next(f)) {
			if ((uintptr_t)f->link & TELL_DETACH)
				fence_detach(f, origin);
		}
	}
	if (!library_poisoned()) /* else a hook forked, and this is the child */
		detached(origin, b->to_detach);
}

/*
 * Runs what hangs on the fences of a batch, without the mutex. First all that is the producer's, so that no callback, blocking as it may,
 * keeps the producer from being let go of. The timeline may be gone after that. Returns the number of fences.
 */
static size_t tell(struct fence_origin *origin, const struct batch *b)
{
	struct lf_fence *f, *next;
	bool outermost;

	if (!b->head)
		return 0;
	if (b->to_detach)
		detach_batch(origin, b);
	outermost = fence_dispatch_begin();
	for (f = b->head; f; f = next) {
		if (library_poisoned())
			return b->count; /* a hook forked, and this is the child */
		next = batch_next(f);
		if (!(fence_word(f) & FENCE_DRAINED))
			fence_dispatch(f);
		lf_fence_put(f);
	}
	fence_dispatch_end(outermost);
	return b->count;
}

/* The time of a completion: the clock, or what was given; on an ordered timeline never before the last one (TL2). Under the mutex. */
static int64_t completion_time(struct lf_timeline *tl, const int64_t *given) LF_REQUIRES(&tl->mutex)
{
	int64_t time = given ? *given : lf_now();

	if ((tl->flags & LF_TIMELINE_UNORDERED) || PLANTED(21))
		return time;
	if (time < tl->last_time)
		time = tl->last_time;
	tl->last_time = time;
	return time;
}

/* What becomes of @error, or 0, that somebody completes with (TL5). Under the mutex. */
static int completion_error(const struct lf_timeline *tl, int error) LF_REQUIRES(&tl->mutex)
{
	return tl->lost ? tl->lost : error;
}

/* Signals all up to a seqno. @given is the time, or NULL for now. */
static size_t complete_up_to(struct lf_timeline *tl, uint64_t seqno, int error, const int64_t *given)
{
	struct batch b = { 0 };
	struct entry *old;

	port_mutex_lock(&tl->mutex);
	if (tl->ring.count && ring_at(&tl->ring, 0)->seqno <= seqno) {
		int64_t time = completion_time(tl, given);

		error = completion_error(tl, error);
		while (tl->ring.count && ring_at(&tl->ring, 0)->seqno <= seqno)
			complete_one(&b, ring_take_first(&tl->ring), error, time);
	}
	old = ring_shrink(&tl->ring);
	port_mutex_unlock(&tl->mutex);
	mem_free(old);
	return tell(&tl->origin, &b);
}

/* Signals one. Returns false when it is not pending here. */
static bool complete_single(struct lf_timeline *tl, struct lf_fence *f, int error)
{
	struct batch b = { 0 };
	struct entry *old;

	port_mutex_lock(&tl->mutex);
	if (ring_take(&tl->ring, f))
		complete_one(&b, f, completion_error(tl, error), completion_time(tl, NULL));
	old = ring_shrink(&tl->ring);
	port_mutex_unlock(&tl->mutex);
	mem_free(old);
	return tell(&tl->origin, &b) == 1;
}

/* What an enable or poll hook of a fence said. */
static void complete_hook(struct fence_origin *origin, struct lf_fence *f, int error)
{
	struct lf_timeline *tl = container_of(origin, struct lf_timeline, origin);

	if (tl->flags & LF_TIMELINE_UNORDERED)
		complete_single(tl, f, error);
	else
		complete_up_to(tl, f->seqno, error, NULL);
}

/* Makes a loss sticky. Returns the error of the first one. */
static int note_loss(struct lf_timeline *tl, int error)
{
	port_mutex_lock(&tl->mutex);
	if (!tl->lost)
		tl->lost = error;
	error = tl->lost;
	port_mutex_unlock(&tl->mutex);
	return error;
}

/* Nothing more is emitted; what is pending completes. Once. */
static void close_timeline(struct lf_timeline *tl, int error)
{
	bool first;

	port_mutex_lock(&tl->mutex);
	first = !tl->closed;
	tl->closed = true;
	port_mutex_unlock(&tl->mutex);
	if (!first)
		return;
	complete_up_to(tl, UINT64_MAX, error, NULL);
	detached(&tl->origin, 1);
}

/* --- Being a resource ---------------------------------------------------------------------------------------------------- */

static void revoke_timeline(struct provider_resource *r)
{
	struct lf_timeline *tl = container_of(r, struct lf_timeline, resource);

	close_timeline(tl, note_loss(tl, -ENODEV));
}

static void resource_put(struct provider_resource *r)
{
	lf_timeline_put(container_of(r, struct lf_timeline, resource));
}

static const struct track_kind timeline_track_kind = { "timeline", offsetof(struct lf_timeline, name), NULL };

/* --- Life ---------------------------------------------------------------------------------------------------------------- */

static struct lf_timeline *new_timeline(const struct lf_timeline_desc *desc)
{
	size_t provider_len = desc->provider ? strlen(provider_name(desc->provider)) + 1 : 0;
	size_t size = sizeof(struct lf_timeline) + provider_len + strlen(desc->name) + 1;
	struct lf_timeline *tl = mem_zalloc(size);

	if (!tl)
		return NULL;
	tl->origin = (struct fence_origin){
		.ops = desc->ops,
		.data = desc->data,
		.provider = desc->provider,
		.complete = complete_hook,
		.detached = detached,
	};
	tl->resource = (struct provider_resource){
		.kind = "timeline",
		.name = tl->name,
		.code = desc->ops,
		.revoke = revoke_timeline,
		.refs = &tl->refs,
		.put = resource_put,
	};
	tl->refs.value = 1;
	tl->holds.value = 2;
	tl->attached.value = 1;
	port_mutex_init(&tl->mutex);
	tl->last_time = INT64_MIN;
	tl->flags = desc->flags;
	tl->release = desc->release;
	tl->context = timeline_new_context();
	if (desc->provider)
		snprintf(tl->name, provider_len + 1, "%s/", provider_name(desc->provider));
	strcpy(tl->name + provider_len, desc->name);
	return tl;
}

int lf_timeline_create(const struct lf_timeline_desc *desc, struct lf_timeline **ret_timeline)
{
	struct lf_timeline *tl;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!desc || !desc->name || !ret_timeline)
		return misuse(-EINVAL, "lf_timeline_create: a name and a place for the timeline are both needed");
	if (desc->flags & ~(unsigned)LF_TIMELINE_UNORDERED)
		return misuse(-EINVAL, "lf_timeline_create: unknown flags %#x", desc->flags);
	reclaim_throttle();
	tl = new_timeline(desc);
	if (!tl)
		return -ENOMEM;
	ret = provider_add(desc->provider, &tl->resource);
	if (ret) {
		port_mutex_fini(&tl->mutex);
		mem_free(tl);
		return ret;
	}
	register_name(tl);
	track_add(tl, &timeline_track_kind);
	*ret_timeline = tl;
	return 0;
}

struct lf_timeline *lf_timeline_get(struct lf_timeline *tl)
{
	if (tl)
		refcount_get(&tl->refs, "lf_timeline_get");
	return tl;
}

void lf_timeline_put(struct lf_timeline *tl)
{
	if (!tl || library_poisoned() || !refcount_put(&tl->refs, "lf_timeline_put"))
		return;
	close_timeline(tl, -ECANCELED);
	unregister_name(tl);
	unhold(tl);
}

uint64_t lf_timeline_context(const struct lf_timeline *tl)
{
	return tl->context;
}

uint64_t lf_timeline_last_seqno(struct lf_timeline *tl)
{
	uint64_t seqno;

	if (library_poisoned())
		return 0;
	port_mutex_lock(&tl->mutex);
	seqno = tl->last_seqno;
	port_mutex_unlock(&tl->mutex);
	return seqno;
}

/* --- Emitting ------------------------------------------------------------------------------------------------------------ */

/* Whether a seqno may come next; 0 becomes one more than the last. Under the mutex. */
static int check_seqno(const struct lf_timeline *tl, uint64_t *seqno) LF_REQUIRES(&tl->mutex)
{
	if (tl->closed)
		return -ESHUTDOWN;
	if (*seqno == 0 && tl->last_seqno >= UINT64_MAX - tl->ring.reserved)
		return -EOVERFLOW;
	if (*seqno == 0)
		*seqno = tl->last_seqno + 1;
	return *seqno > tl->last_seqno ? 0 : -EINVAL;
}

/* Whether one more fits; closes holes for it where that pays. Under the mutex. */
static bool has_room(struct lf_timeline *tl) LF_REQUIRES(&tl->mutex)
{
	struct ring *ring = &tl->ring;

	if (ring->count + ring->reserved >= ring->capacity && ring->holes > ring->count / 2)
		ring_compact(ring);
	return ring->count + ring->reserved < ring->capacity;
}

/* The fence gets its place. Nobody else has seen it. Under the mutex. */
static void place(struct lf_timeline *tl, struct lf_fence *f, uint64_t seqno) LF_REQUIRES(&tl->mutex)
{
	uint32_t state = fence_state(f) & ~FENCE_KIND;

	state |= FENCE_OF_TIMELINE << FENCE_KIND_SHIFT;
	if (!(tl->flags & LF_TIMELINE_UNORDERED))
		state |= FENCE_ORDERED;
	if (!tl->origin.ops || !tl->origin.ops->enable)
		state |= FENCE_ENABLED; /* nobody need look for a hook */
	f->context = tl->context;
	f->seqno = seqno;
	fence_set_state(f, state);
	fence_set_origin(f, &tl->origin);
	u32_store(&f->count, 2, memory_order_relaxed); /* relaxed: the emitter's reference and the ring's; nobody else looks yet */
	ring_append(&tl->ring, seqno, f);
	tl->last_seqno = seqno;
}

/* What emitting asks of the ring: a place for @f now, or for somebody later (@f NULL). */
struct request {
	struct lf_fence *f;
	uint64_t seqno;
	struct entry *entries; /* a larger ring to move to, of @capacity */
	size_t capacity;
	int lost; /* what came out: the error of the loss */
};

/* One try. -ENOSPC: the ring is full, and r->capacity is how large it must become. */
static int try_request(struct lf_timeline *tl, struct request *r)
{
	uint64_t seqno = r->seqno;
	int ret;

	if (!PLANTED(176))
		port_mutex_lock(&tl->mutex);
	ret = check_seqno(tl, &seqno);
	if (ret == 0 && !has_room(tl) && r->entries && r->capacity > tl->ring.capacity)
		r->entries = ring_move(&tl->ring, r->entries, r->capacity);
	if (ret == 0 && !has_room(tl)) {
		r->capacity = tl->ring.capacity ? tl->ring.capacity * 2 : RING_MIN;
		ret = -ENOSPC;
	}
	if (ret == 0)
		u64_fetch_add(&tl->attached, 1, memory_order_relaxed); /* relaxed: not closed, so it is above zero (TL3) */
	if (ret == 0 && r->f)
		place(tl, r->f, seqno);
	else if (ret == 0)
		tl->ring.reserved++;
	r->lost = tl->lost;
	if (!PLANTED(176))
		port_mutex_unlock(&tl->mutex);
	return ret;
}

/* The ring grows outside the mutex, since the allocator may be the user's; others may have emitted or grown it meanwhile. */
static int request(struct lf_timeline *tl, struct request *r)
{
	int ret;

	while ((ret = try_request(tl, r)) == -ENOSPC) {
		mem_free(r->entries);
		r->entries = mem_alloc_array(0, r->capacity, sizeof(*r->entries));
		if (!r->entries)
			return -ENOMEM;
	}
	mem_free(r->entries);
	return ret;
}

static int emit(struct lf_timeline *tl, uint64_t seqno, struct lf_fence *f)
{
	struct request r = { .f = f, .seqno = seqno };
	int ret = request(tl, &r);

	if (ret == -EINVAL)
		return misuse(ret, "lf_timeline_emit: seqno %llu of %s does not rise", (unsigned long long)seqno, tl->name);
	if (ret == 0 && r.lost)
		complete_up_to(tl, f->seqno, r.lost, NULL);
	return ret;
}

int timeline_reserve(struct lf_timeline *tl)
{
	struct request r = { .f = NULL };

	return request(tl, &r);
}

void timeline_unreserve(struct lf_timeline *tl)
{
	port_mutex_lock(&tl->mutex);
	tl->ring.reserved--;
	port_mutex_unlock(&tl->mutex);
	detached(&tl->origin, 1);
}

uint64_t timeline_emit_reserved(struct lf_timeline *tl, struct lf_fence *f)
{
	uint64_t seqno;

	port_mutex_lock(&tl->mutex);
	tl->ring.reserved--;
	seqno = tl->last_seqno + 1;
	place(tl, f, seqno);
	port_mutex_unlock(&tl->mutex);
	return seqno;
}

void timeline_settle(struct lf_timeline *tl)
{
	int error;

	port_mutex_lock(&tl->mutex);
	error = tl->lost ? tl->lost : tl->closed ? -ECANCELED : 0;
	port_mutex_unlock(&tl->mutex);
	if (error)
		complete_up_to(tl, UINT64_MAX, error, NULL);
}

int lf_timeline_emit_fence(struct lf_timeline *tl, uint64_t seqno, struct lf_fence *f)
{
	int ret = library_enter();

	if (ret)
		return ret;
	if (!tl || !f)
		return misuse(-EINVAL, "lf_timeline_emit_fence: timeline and fence are both needed");
	if (!fence_check(f, __func__))
		return -EINVAL;
	/* relaxed: a fence that nobody else has seen */
	if ((fence_state(f) & (FENCE_KIND | FENCE_PUBLISHED)) != FENCE_STAND_ALONE << FENCE_KIND_SHIFT || (fence_word(f) & ~FENCE_LOCK) != 0 ||
	    u32_load(&f->count, memory_order_relaxed) != 1)
		return misuse(-EINVAL, "lf_timeline_emit_fence: fence %p is not a pending stand-alone fence that nobody has seen", (void *)f);
	reclaim_throttle();
	return emit(tl, seqno, f);
}

int lf_timeline_emit(struct lf_timeline *tl, uint64_t seqno, struct lf_fence **ret_fence)
{
	struct lf_fence *f;
	int ret;

	if (!tl || !ret_fence)
		return misuse(-EINVAL, "lf_timeline_emit: timeline and a place for the fence are both needed");
	ret = lf_fence_create(&f);
	if (ret)
		return ret;
	ret = emit(tl, seqno, f);
	if (ret) {
		if (!PLANTED(9))
			lf_fence_put(f);
		return ret;
	}
	*ret_fence = f;
	return 0;
}

/* --- Signalling ---------------------------------------------------------------------------------------------------------- */

static bool may_signal(const struct lf_timeline *tl, const char *function)
{
	if (!tl) {
		misuse(0, "%s: the timeline is NULL", function);
		return false;
	}
	if (library_poisoned())
		return false;
	if (unlikely(rcu_held()))
		misuse(0, "%s: called inside a read section, where callbacks could not do what they may", function);
	return true;
}

size_t lf_timeline_signal_to(struct lf_timeline *tl, uint64_t seqno, int error)
{
	return may_signal(tl, __func__) ? complete_up_to(tl, seqno, check_error(__func__, error), NULL) : 0;
}

size_t lf_timeline_signal_to_at(struct lf_timeline *tl, uint64_t seqno, int error, int64_t timestamp)
{
	return may_signal(tl, __func__) ? complete_up_to(tl, seqno, check_error(__func__, error), &timestamp) : 0;
}

bool lf_timeline_signal_one(struct lf_timeline *tl, struct lf_fence *f, int error)
{
	if (!may_signal(tl, __func__) || !fence_check(f, __func__))
		return false;
	if (!(tl->flags & LF_TIMELINE_UNORDERED)) {
		misuse(0, "lf_timeline_signal_one: %s is ordered; use lf_timeline_signal_to()", tl->name);
		return false;
	}
	if (f->context != tl->context) {
		misuse(0, "lf_timeline_signal_one: fence %p is not of %s", (void *)f, tl->name);
		return false;
	}
	return complete_single(tl, f, check_error(__func__, error));
}

size_t lf_timeline_lose(struct lf_timeline *tl, int error)
{
	if (!may_signal(tl, __func__))
		return 0;
	if (error == 0)
		error = misuse(-EINVAL, "lf_timeline_lose: a loss needs an error; -EINVAL is used");
	error = note_loss(tl, check_error(__func__, error));
	return complete_up_to(tl, UINT64_MAX, error, NULL);
}
