/* SPDX-License-Identifier: MIT */
/*
 * Attachments: who uses a buffer where it is, and is told when it moves; and mappings.
 *
 * Purpose: telling importers with nothing of the library's locked, whatever they do from inside; and letting go of one, so that
 * its code is not called any more, while what it has mapped stays where it is.
 *
 * States of the gate, a->state:
 *
 *     OPEN <--enter(), leave()--> RUNNING
 *       |                            |
 *     detach                       detach
 *       v                            v
 *     DETACHED <------leave()---- DETACHED | RUNNING          REVOKED (the provider closes) comes with DETACHED, or is added to it
 *
 * | state              | the hook                  | mapping | who unregisters from the provider, if it REVOKED      |
 * |--------------------|---------------------------|---------|-------------------------------------------------------|
 * | OPEN               | may be called             | yes     | -                                                     |
 * | RUNNING            | runs, on one thread       | yes     | -                                                     |
 * | DETACHED, RUNNING  | runs for the last time    | no      | leave()                                               |
 * | DETACHED           | is not called any more    | no      | revoke_attachment()                                   |
 *
 * Without REVOKED it is unregistered at its end.
 *
 * Invariants:
 * A1. The hook is called between enter() and leave() only, by one thread at a time, which holds the buffer's reservation. A call that
 *     would nest is made up for when the running one returns.
 * A2. Once DETACHED is set, nobody enters. After whoever unregisters has, no code of the provider is called through the attachment.
 * A3. An attachment is in its buffer's list from lf_bo_attach() until its last reference is gone: so who has a reference can walk on.
 * A4. The list is in the order of serials; what is attached while an invalidation walks has a higher one than its last.
 * A5. A mapping in its attachment's ring is live: it has a reference on a place and is counted (bo.c BO4). Whoever takes it out, the
 *     importer or the provider's close, undoes both, once. DETACHED is looked at under the lock: so a close that has set it finds all
 *     that there are.
 *
 * Locking: the buffer's lock (bo.h) protects its list, the rings of mappings and the mappings' places. The reservation protects `again`.
 * Nothing is called under the lock.
 *
 * Ordering: attach-hook; refcount.
 *
 * Lifetime: refs are the users', one a mapping, and one of whoever walks. The attachment has a reference on its buffer.
 *
 * Not here: the word that counts mappings, and waiting for it (bo.c).
 */
#include <libfence/attachment.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/library.h"
#include "base/park.h"
#include "base/rcu.h"
#include "base/reclaim.h"
#include "base/refcount.h"
#include "base/track.h"
#include "bo/bo.h"
#include "bo/place.h"

enum { RUNNING = 1, DETACHED = 2, REVOKED = 4 };

struct lf_attachment {
	struct lf_bo_link link; /* in bo->attachments; protected by the buffer's lock */
	struct lf_bo_link maps; /* ring of struct lf_bo_map; protected by the buffer's lock */
	lf_atomic_u32 mapped; /* how many; written under the buffer's lock */
	lf_atomic_u32 refs;
	lf_atomic_u32 state; /* the gate; slept on */
	lf_atomic_ptr runner; /* struct library_thread: whose stack the hook is on, or 0 */
	bool again; /* protected by the reservation: it was to be called from inside itself */
	uint64_t serial; /* immutable once listed */
	struct lf_bo *bo; /* immutable; a reference */
	void (*invalidate)(struct lf_attachment *a, void *data); /* immutable */
	void *data; /* immutable */
	struct provider_resource resource;
	char name[]; /* immutable */
};

struct lf_bo_map {
	struct lf_bo_link link; /* in attachment->maps while it is live; protected by the buffer's lock */
	struct place *place; /* a reference while it is live, else NULL; protected by the buffer's lock */
	struct lf_attachment *attachment; /* immutable; a reference */
	struct lf_fence *fence; /* immutable; a reference */
	void *memory; /* immutable */
};

/* --- Gate ------------------------------------------------------------------------------------------------------------- */

static uint32_t load_state(const struct lf_attachment *a)
{
	/* order: attach-hook (acquire): who sees that the hook does not run sees what it did */
	return u32_load(&a->state, PLANT_ORDER(155, memory_order_relaxed, memory_order_acquire));
}

/* Returns the state before. */
static uint32_t change_state(struct lf_attachment *a, uint32_t set, uint32_t clear)
{
	uint32_t state = load_state(a);

	/* order: attach-hook (release): what the hook did comes before leaving */
	/* order: attach-hook (acquire): see load_state() */
	while (!u32_cas(&a->state, &state, (state & ~clear) | set, PLANT_ACQ_REL(154, 156), memory_order_relaxed))
		;
	return state;
}

/* Returns whether the hook may be called. The caller holds the reservation, so if it runs, it is below us on the stack. */
static bool enter(struct lf_attachment *a)
{
	uint32_t state = load_state(a);

	do {
		if ((state & RUNNING) && !PLANTED(187))
			a->again = true;
		if (state & (RUNNING | DETACHED))
			return false;
		/* relaxed: who changed the state before us did nothing for the hook to see */
	} while (!u32_cas(&a->state, &state, state | RUNNING, memory_order_relaxed, memory_order_relaxed));
	ptr_store(&a->runner, (uintptr_t)this_thread(), memory_order_relaxed); /* relaxed: means something to this thread only */
	a->again = false;
	return true;
}

static void unregister(struct lf_attachment *a)
{
	provider_remove(&a->resource);
}

static void leave(struct lf_attachment *a)
{
	uint32_t before;

	ptr_store(&a->runner, 0, memory_order_relaxed); /* relaxed: see enter() */
	before = change_state(a, 0, RUNNING);
	if ((before & DETACHED) && !PLANTED(85))
		park_wake(&a->state);
	if (before & REVOKED)
		unregister(a);
}

/* Whether this thread is inside the hook. */
static bool is_inside(const struct lf_attachment *a)
{
	return ptr_load(&a->runner, memory_order_relaxed) == (uintptr_t)this_thread(); /* relaxed: if so, this thread wrote it */
}

static void call_hook(struct lf_attachment *a)
{
	struct hook_frame frame;

	while (enter(a)) {
		hook_enter(&frame, a->resource.provider);
		a->invalidate(a, a->data);
		hook_leave(&frame);
		leave(a);
		if (!a->again)
			break;
	}
}

/* --- Mappings --------------------------------------------------------------------------------------------------------- */

/* Lists a mapping, which is counted and has its place, unless the attachment is detached. */
static bool list_map(struct lf_attachment *a, struct lf_bo_map *map)
{
	bool detached;

	bo_lock(a->bo);
	detached = load_state(a) & DETACHED;
	if (!detached) {
		bo_link_append(&a->maps, &map->link);
		/* relaxed: a figure, written under the lock */
		u32_store(&a->mapped, u32_load(&a->mapped, memory_order_relaxed) + 1, memory_order_relaxed);
	}
	bo_unlock(a->bo);
	return !detached;
}

/* Takes a mapping out of the ring. Returns its place, with the reference. The lock is held. */
static struct place *unlist_map(struct lf_attachment *a, struct lf_bo_map *map)
{
	struct place *p = map->place;

	if (!p)
		return NULL;
	map->place = NULL; /* the reference moves to p */
	bo_link_remove(&map->link);
	/* relaxed: see list_map() */
	u32_store(&a->mapped, u32_load(&a->mapped, memory_order_relaxed) - 1, memory_order_relaxed);
	return p;
}

/* A mapping of the place is gone. */
static void unmap(struct lf_bo *bo, struct place *p)
{
	place_put(p);
	bo_uncount_map(bo);
}

/* Unmaps what is mapped. Nothing is being mapped any more (A5). The mappings themselves are the importer's still. */
static void unmap_all(struct lf_attachment *a)
{
	struct place *p;

	do {
		bo_lock(a->bo);
		p = bo_link_is_empty(&a->maps) ? NULL : unlist_map(a, container_of(a->maps.next, struct lf_bo_map, link));
		bo_unlock(a->bo);
		if (p)
			unmap(a->bo, p);
	} while (p);
}

/* --- Being a resource ------------------------------------------------------------------------------------------------- */

static void revoke_attachment(struct provider_resource *r)
{
	struct lf_attachment *a = container_of(r, struct lf_attachment, resource);
	uint32_t before = change_state(a, DETACHED | REVOKED, 0);

	unmap_all(a);
	if (!(before & RUNNING))
		unregister(a);
}

static void resource_put(struct provider_resource *r)
{
	lf_attachment_put(container_of(r, struct lf_attachment, resource));
}

static const struct track_kind attachment_track_kind = { "attachment", offsetof(struct lf_attachment, name), NULL };

/* --- Life ------------------------------------------------------------------------------------------------------------- */

static struct lf_attachment *new_attachment(struct lf_bo *bo, const struct lf_attachment_desc *desc)
{
	struct lf_attachment *a = mem_zalloc(sizeof(*a) + strlen(desc->name) + 1);

	if (!a)
		return NULL;
	bo_link_init(&a->link);
	bo_link_init(&a->maps);
	a->refs.value = 1;
	a->bo = bo;
	a->invalidate = desc->invalidate;
	a->data = desc->data;
	a->resource = (struct provider_resource){
		.kind = "attachment",
		.name = a->name,
		.code = (const void *)(uintptr_t)desc->invalidate,
		.revoke = revoke_attachment,
		.refs = &a->refs,
		.put = resource_put,
	};
	strcpy(a->name, desc->name);
	return a;
}

/* Lists an attachment; from here on its hook may be called. -ENODEV: the buffer was revoked, and may have told all that there were. */
static int list_attachment(struct lf_attachment *a)
{
	bool revoked;

	bo_lock(a->bo);
	revoked = lf_bo_is_revoked(a->bo);
	if (!revoked) {
		a->serial = ++a->bo->attached;
		bo_link_append(&a->bo->attachments, &a->link);
	}
	bo_unlock(a->bo);
	return revoked ? -ENODEV : 0;
}

int lf_bo_attach(struct lf_bo *bo, const struct lf_attachment_desc *desc, struct lf_attachment **ret_attachment)
{
	struct lf_attachment *a;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!bo || !desc || !ret_attachment || !desc->name || !desc->invalidate)
		return misuse(-EINVAL, "lf_bo_attach: a buffer, a name, a hook and a place for the attachment are all needed");
	reclaim_throttle();
	a = new_attachment(bo, desc);
	if (!a)
		return -ENOMEM;
	ret = provider_add(desc->provider, &a->resource);
	if (ret) {
		mem_free(a);
		return ret;
	}
	lf_bo_get(bo); /* the attachment's */
	track_add(a, &attachment_track_kind);
	ret = list_attachment(a);
	if (ret) {
		lf_attachment_put(a);
		return ret;
	}
	*ret_attachment = a;
	return 0;
}

struct lf_attachment *lf_attachment_get(struct lf_attachment *a)
{
	if (a)
		refcount_get(&a->refs, "lf_attachment_get");
	return a;
}

/* Nobody refers to it: so its hook does not run, nothing is mapped, and no provider is about to revoke it. */
static void end(struct lf_attachment *a)
{
	struct lf_bo *bo = a->bo;

	invariant(!(load_state(a) & RUNNING) && bo_link_is_empty(&a->maps)); /* A1, A5 */
	bo_lock(bo);
	bo_link_remove(&a->link);
	bo_unlock(bo);
	if (!(load_state(a) & REVOKED))
		unregister(a);
	track_remove(a);
	mem_free(a);
	lf_bo_put(bo);
}

void lf_attachment_put(struct lf_attachment *a)
{
	if (a && !library_poisoned() && refcount_put(&a->refs, "lf_attachment_put"))
		end(a);
}

int lf_attachment_detach(struct lf_attachment *a)
{
	uint32_t state;

	if (library_poisoned())
		return -EOWNERDEAD;
	if (unlikely(!a))
		return misuse(-EINVAL, "lf_attachment_detach: the attachment is NULL");
	change_state(a, DETACHED, 0);
	/* Refused whether or not it would have to wait, so that the mistake shows each time. */
	if (unlikely(rcu_held()))
		return misuse(-EDEADLK, "lf_attachment_detach: waits, and was called inside a read section");
	while (((state = load_state(a)) & RUNNING) && !is_inside(a))
		park_wait(&a->state, state, LF_DEADLINE_NEVER);
	return 0;
}

/* --- Asking ----------------------------------------------------------------------------------------------------------- */

struct lf_bo *lf_attachment_bo(const struct lf_attachment *a)
{
	return a->bo;
}

const char *lf_attachment_name(const struct lf_attachment *a)
{
	return a->name;
}

unsigned lf_attachment_mapped(const struct lf_attachment *a)
{
	return u32_load(&a->mapped, memory_order_relaxed); /* relaxed: a figure */
}

/* --- Walking ---------------------------------------------------------------------------------------------------------- */

/* The next one that is not ending, with a reference. The lock is held. */
static struct lf_attachment *get_next_locked(struct lf_bo *bo, const struct lf_attachment *after)
{
	struct lf_bo_link *link = after ? after->link.next : bo->attachments.next;

	for (; link != &bo->attachments; link = link->next) {
		struct lf_attachment *a = container_of(link, struct lf_attachment, link);

		if (refcount_tryget(&a->refs))
			return a;
	}
	return NULL;
}

/* The same without the lock; consumes the caller's reference on @after. */
static struct lf_attachment *get_next(struct lf_bo *bo, struct lf_attachment *after)
{
	struct lf_attachment *a;

	bo_lock(bo);
	a = get_next_locked(bo, after);
	bo_unlock(bo);
	lf_attachment_put(after);
	return a;
}

static uint64_t last_serial(struct lf_bo *bo)
{
	uint64_t serial;

	bo_lock(bo);
	serial = bo->attached;
	bo_unlock(bo);
	return serial;
}

void bo_invalidate(struct lf_bo *bo)
{
	uint64_t last = last_serial(bo);
	struct lf_attachment *a = get_next(bo, NULL);

	for (; a && a->serial <= last; a = get_next(bo, a))
		call_hook(a);
	lf_attachment_put(a); /* attached meanwhile */
}

struct lf_attachment *lf_bo_next_mapped(struct lf_bo *bo, struct lf_attachment *after)
{
	struct lf_attachment *a = after;

	if (library_poisoned())
		return NULL;
	if (unlikely(!bo || (after && after->bo != bo))) {
		misuse(0, "lf_bo_next_mapped: attachment %p is not of buffer %p", (void *)after, (void *)bo);
		lf_attachment_put(after);
		return NULL;
	}
	do
		a = get_next(bo, a);
	while (a && lf_attachment_mapped(a) == 0);
	return a;
}

/* --- Mapping ---------------------------------------------------------------------------------------------------------- */

/* Fills in a mapping, which is counted. */
static int make_map(struct lf_attachment *a, struct lf_bo_map *map)
{
	int ret = lf_resv_get_singleton(a->bo->resv, LF_USAGE_KERNEL, &map->fence);

	if (ret)
		return ret;
	map->place = place_current(a->bo);
	map->memory = map->place->backing.memory;
	map->attachment = a;
	place_get(map->place);
	if (list_map(a, map)) {
		lf_attachment_get(a); /* the mapping's */
		return 0;
	}
	place_put(map->place);
	lf_fence_put(map->fence);
	return -ENODEV;
}

/* The reservation is held. */
static int map_counted(struct lf_attachment *a, struct lf_bo_map *map)
{
	int ret = bo_count_map(a->bo);

	if (ret)
		return ret;
	place_call_begin(); /* a fence that is put for the last time runs callbacks */
	ret = make_map(a, map);
	place_call_end();
	if (ret)
		bo_uncount_map(a->bo);
	return ret;
}

int lf_attachment_map(struct lf_attachment *a, struct lf_bo_map **ret_map)
{
	struct lf_bo_map *map;
	int ret;

	if (unlikely(!a || !ret_map))
		return misuse(-EINVAL, "lf_attachment_map: an attachment and a place for the mapping are both needed");
	ret = bo_check_holder(a->bo, __func__);
	if (ret)
		return ret;
	reclaim_throttle();
	map = mem_zalloc(sizeof(*map));
	if (!map)
		return -ENOMEM;
	ret = map_counted(a, map);
	if (ret) {
		mem_free(map);
		return ret;
	}
	*ret_map = map;
	return 0;
}

void lf_bo_unmap(struct lf_bo_map *map)
{
	struct lf_attachment *a;
	struct place *p;

	if (!map || library_poisoned())
		return;
	a = map->attachment;
	bo_lock(a->bo);
	p = unlist_map(a, map);
	bo_unlock(a->bo);
	if (p)
		unmap(a->bo, p);
	place_call_begin(); /* as in map_counted() */
	lf_fence_put(map->fence);
	place_call_end();
	mem_free(map);
	lf_attachment_put(a);
}

void *lf_bo_map_memory(const struct lf_bo_map *map)
{
	return map->memory;
}

struct lf_fence *lf_bo_map_fence(const struct lf_bo_map *map)
{
	return map->fence;
}
