/* SPDX-License-Identifier: MIT */
/*
 * Buffers: named memory that moves while it is in use.
 *
 * Purpose: a buffer is a reservation and the place that it is in. It leaves a place without waiting: what it left is released in its own
 * time (place.c). Who uses it where it is, is told (attachment.c).
 *
 * States:
 *
 *     LIVE --last put--> DYING --retire(), its last place becomes a ghost--> GONE --the last of its places is released--> freed
 *
 * | state | refs | bo->place                     | who may look at it                                                  |
 * |-------|------|-------------------------------|---------------------------------------------------------------------|
 * | LIVE  | > 0  | current                       | anybody with a reference, or in a read section that found it        |
 * | DYING | 0    | as before, and has a snapshot | readers in their sections; lf_bo_tryget() refuses                   |
 * | GONE  | 0    | a ghost, or released          | its places                                                          |
 *
 * Invariants:
 * BO1. A LIVE buffer is in a place, also when it is nowhere; so what it needs to die is there since it was made, and dying allocates
 *     nothing.
 * BO2. A place's snapshot is taken when everything that the place must wait for is in the reservation, the move's fence included. What a
 *     shared reservation gets later is none of its business.
 * BO3. core->places is the number of places that are settled and not released. While it is not 0 the buffer is there, and its provider
 *     knows it. It is not 0 before the buffer is GONE.
 * BO4. bo->maps is REVOKED | the number of mappings that were counted and not uncounted. A mapping is counted before it is made, and
 *     uncounted after it has let go of its place. Once REVOKED is set no mapping is counted.
 * BO5. A mapping holds its attachment, and that the buffer: a DYING buffer has neither.
 *
 * Locking: the reservation, the user's to take, protects spare and all stores to place. bo_lock() (bo.h) protects lists. Hooks are called
 * with nothing locked but what the user has locked.
 *
 * Ordering: bo-place (place.h); bo-maps.
 *
 * Lifetime: refs are the users'. The block ends with the last place, and not before a grace period has passed since the last put, which is
 * that of retire().
 *
 * Not here: places (place.c), attachments (attachment.c), address spaces (gpuvm).
 */
#include <stdio.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/library.h"
#include "base/park.h"
#include "base/reclaim.h"
#include "base/refcount.h"
#include "base/track.h"
#include "bo/bo.h"
#include "bo/place.h"
#include "resv/block.h"

/* --- Being a resource ------------------------------------------------------------------------------------------------- */

static void unhold_core(struct bo_core *core)
{
	if (refcount_put(&core->holds, "buffer"))
		mem_free(core);
}

/* What is there is the driver's to put; nothing new. */
static void revoke_buffer(struct provider_resource *r)
{
	/* relaxed: a move that is prepared at this moment may still be */
	u32_store(&container_of(r, struct bo_core, resource)->closing, 1, memory_order_relaxed);
}

static void resource_put(struct provider_resource *r)
{
	unhold_core(container_of(r, struct bo_core, resource));
}

static bool is_closing(const struct lf_bo *bo)
{
	return u32_load(&bo_core(bo)->closing, memory_order_relaxed) != 0; /* relaxed: see revoke_buffer() */
}

static int describe_tracked(const void *object, char *buf, size_t size)
{
	return snprintf(buf, size, "%s", bo_core(object)->name);
}

static const struct track_kind bo_track_kind = { "buffer", 0, describe_tracked };

/* --- Checks ----------------------------------------------------------------------------------------------------------- */

int bo_check_holder(const struct lf_bo *bo, const char *function)
{
	if (library_poisoned())
		return -EOWNERDEAD;
	if (unlikely(!bo))
		return misuse(-EINVAL, "%s: the buffer is NULL", function);
	if (unlikely(!lf_resv_is_held(bo->resv)))
		return misuse(-EINVAL, "%s: the reservation of buffer %p is not locked by the caller", function, (const void *)bo);
	return 0;
}

_Static_assert(_Alignof(struct lf_bo) >= 8, "wherever it is embedded, it is at a multiple of 8");

static int check_desc(const struct lf_bo *bo, const struct lf_bo_desc *desc)
{
	if (unlikely(!bo || !desc))
		return misuse(-EINVAL, "lf_bo_init: a buffer and what it is made from are both needed");
	if (unlikely(desc->size == 0))
		return misuse(-EINVAL, "lf_bo_init: buffer %p has no size", (const void *)bo);
	if (unlikely(desc->offset % 8 != 0 || desc->offset > UINT32_MAX))
		return misuse(-EINVAL, "lf_bo_init: offset %zu is not a multiple of 8 below 4 GiB", desc->offset);
	if (unlikely(desc->resv && !resv_is_counted(desc->resv)))
		return misuse(-EINVAL, "lf_bo_init: reservation %p was not made by lf_resv_create()", (const void *)desc->resv);
	if (unlikely(desc->provider && !desc->name))
		return misuse(-EINVAL, "lf_bo_init: a buffer of provider %s has no name", provider_name(desc->provider));
	return 0;
}

/* --- Making ----------------------------------------------------------------------------------------------------------- */

/* Where the driver's code lies, for debug builds. */
static const void *code_of(const struct lf_bo_desc *desc)
{
	return desc->release ? (const void *)(uintptr_t)desc->release : (const void *)(uintptr_t)desc->backing.release;
}

static struct bo_core *create_core(const struct lf_bo_desc *desc)
{
	const char *name = desc->name ? desc->name : "buffer";
	struct bo_core *core = mem_zalloc(sizeof(*core) + strlen(name) + 1);

	if (!core)
		return NULL;
	core->resource = (struct provider_resource){
		.kind = "buffer",
		.name = core->name,
		.code = code_of(desc),
		.revoke = revoke_buffer,
		.refs = &core->holds, /* only the memory: the buffer is not to end on the thread that closes */
		.put = resource_put,
	};
	core->holds.value = 1;
	strcpy(core->name, name);
	return core;
}

static int get_resv(const struct lf_bo_desc *desc, struct lf_resv **ret_resv)
{
	if (!desc->resv)
		return lf_resv_create(desc->cls, ret_resv);
	*ret_resv = lf_resv_get(desc->resv);
	return 0;
}

/* What a buffer is made of. */
struct parts {
	struct bo_core *core;
	struct place *place;
	struct lf_resv *resv;
};

static void free_parts(const struct parts *parts)
{
	mem_free(parts->core);
	mem_free(parts->place);
	lf_resv_put(parts->resv);
}

/* All that can fail. */
static int make_parts(struct parts *parts, const struct lf_bo_desc *desc)
{
	int ret;

	parts->core = create_core(desc);
	parts->place = place_create();
	if (!parts->core || !parts->place)
		return -ENOMEM;
	ret = get_resv(desc, &parts->resv);
	return ret ? ret : provider_add(desc->provider, &parts->core->resource);
}

int lf_bo_init(struct lf_bo *bo, const struct lf_bo_desc *desc)
{
	struct parts parts = { 0 };
	int ret = library_enter();

	if (ret)
		return ret;
	ret = check_desc(bo, desc);
	if (ret)
		return ret;
	reclaim_throttle();
	ret = make_parts(&parts, desc);
	if (ret) {
		free_parts(&parts);
		return ret;
	}
	*bo = (struct lf_bo){ .size = desc->size, .resv = parts.resv, .resource = parts.core, .offset = (uint32_t)desc->offset,
		.release = desc->release };
	bo->refs.value = 1;
	bo_link_init(&bo->attachments);
	bo_link_init(&bo->users);
	place_settle(parts.place, bo, &desc->backing);
	place_set_current(bo, parts.place);
	track_add(bo, &bo_track_kind);
	return 0;
}

/* --- References, and the end ------------------------------------------------------------------------------------------ */

struct lf_bo *lf_bo_get(struct lf_bo *bo)
{
	if (bo)
		refcount_get(&bo->refs, "lf_bo_get");
	return bo;
}

struct lf_bo *lf_bo_tryget(struct lf_bo *bo)
{
	return bo && refcount_tryget(&bo->refs) ? bo : NULL;
}

static void call_release(struct lf_bo *bo)
{
	struct hook_frame frame;

	if (!bo->release)
		return;
	hook_enter(&frame, bo_core(bo)->resource.provider);
	bo->release(bo);
	hook_leave(&frame);
}

void bo_end(struct lf_bo *bo)
{
	struct bo_core *core = bo_core(bo);

	invariant(bo_link_is_empty(&bo->attachments) && bo_link_is_empty(&bo->users)); /* BO5 */
	call_release(bo);
	if (library_poisoned()) /* the hook forked, and this is the child */
		return;
	track_remove(bo);
	mem_free(bo->spare);
	lf_resv_put(bo->resv);
	provider_remove(&core->resource);
	unhold_core(core);
	lf_free((char *)bo - bo->offset);
}

/* A grace period after the last put, on the reclaimer: enable hooks may run here. */
static void retire(struct lf_deferred *node)
{
	place_leave(place_current(container_of(node, struct lf_bo, deferred)));
}

void lf_bo_put(struct lf_bo *bo)
{
	if (!bo || library_poisoned() || !refcount_put(&bo->refs, "lf_bo_put"))
		return;
	lf_resv_snapshot(bo->resv, &place_current(bo)->snapshot); /* BO2 */
	lf_defer_call(&bo->deferred, retire);
}

/* --- Moving ----------------------------------------------------------------------------------------------------------- */

void *lf_bo_memory(const struct lf_bo *bo)
{
	void *memory;

	lf_read_lock(); /* for those without the lock, under whom the place may end */
	memory = place_current(bo)->backing.memory;
	lf_read_unlock();
	return memory;
}

int lf_bo_prepare_move(struct lf_bo *bo)
{
	int ret = bo_check_holder(bo, __func__);

	if (ret)
		return ret;
	if (is_closing(bo))
		return -ESHUTDOWN;
	reclaim_throttle();
	if (!bo->spare)
		bo->spare = place_create();
	if (!bo->spare)
		return -ENOMEM;
	place_call_begin(); /* fences that are put for the last time run callbacks */
	ret = lf_resv_reserve(bo->resv, 1); /* one more than needed, when this is the second time: it goes with the unlock */
	place_call_end();
	return ret;
}

/* Whether the next move is prepared; one without a fence needs no slot. */
static bool may_move(const struct lf_bo *bo, const struct lf_fence *f)
{
	if (bo_check_holder(bo, "lf_bo_move") != 0)
		return false;
	if (likely(bo->spare && (!f || bo->resv->reserved)))
		return true;
	misuse(0, "lf_bo_move: the move of buffer %p is not prepared", (const void *)bo);
	return false;
}

/* Puts the buffer into the prepared place. Returns the one that it has left, which waits for what is in the reservation now. */
static struct place *change_place(struct lf_bo *bo, const struct lf_backing *backing)
{
	struct place *old = place_current(bo), *p = bo->spare;

	bo->spare = NULL; /* becomes the current place */
	place_settle(p, bo, backing);
	place_set_current(bo, p);
	return old;
}

void lf_bo_move(struct lf_bo *bo, const struct lf_backing *backing, struct lf_fence *f)
{
	struct place *old;

	if (!may_move(bo, f))
		return;
	if (PLANTED(86))
		lf_resv_snapshot(bo->resv, &place_current(bo)->snapshot);
	if (f)
		lf_resv_add(bo->resv, f, LF_USAGE_KERNEL);
	old = change_place(bo, backing);
	if (!PLANTED(86))
		lf_resv_snapshot(bo->resv, &old->snapshot); /* BO2 */
	place_call_begin();
	place_leave(old);
	bo_invalidate(bo); /* last, so that the new place may be mapped from inside */
	place_call_end();
}

void lf_bo_invalidate(struct lf_bo *bo)
{
	if (bo_check_holder(bo, __func__) != 0)
		return;
	place_call_begin();
	bo_invalidate(bo);
	place_call_end();
}

/* --- Revoking --------------------------------------------------------------------------------------------------------- */

static uint32_t load_maps(const struct lf_bo *bo)
{
	/* order: bo-maps (acquire): who sees that no mapping is left sees what was done with them */
	return u32_load(&bo->maps, PLANT_ORDER(153, memory_order_relaxed, memory_order_acquire));
}

int bo_count_map(struct lf_bo *bo)
{
	uint32_t maps = load_maps(bo);

	do {
		if ((maps & BO_REVOKED) && !PLANTED(83))
			return -ENODEV;
		if (unlikely((maps | BO_REVOKED) == UINT32_MAX))
			return -ENOMEM; /* each has memory of its own */
		/* relaxed: counting shows nothing of the mapping, which is not made yet */
	} while (!u32_cas(&bo->maps, &maps, maps + 1, memory_order_relaxed, memory_order_relaxed));
	return 0;
}

void bo_uncount_map(struct lf_bo *bo)
{
	/* order: bo-maps (release): what was done with the mapping comes before it counts as gone */
	uint32_t before = u32_fetch_sub(&bo->maps, 1, PLANT_ORDER(84, memory_order_relaxed, memory_order_release));

	if (before == (BO_REVOKED | 1) && !PLANTED(190))
		park_wake(&bo->maps);
}

bool lf_bo_is_revoked(const struct lf_bo *bo)
{
	return load_maps(bo) & BO_REVOKED;
}

/* Returns whether it was not there before. */
static bool set_revoked(struct lf_bo *bo)
{
	uint32_t maps = load_maps(bo);

	do {
		if (maps & BO_REVOKED)
			return false;
		/* relaxed: mappings are made under the reservation, which the caller holds */
	} while (!u32_cas(&bo->maps, &maps, maps | BO_REVOKED, memory_order_relaxed, memory_order_relaxed));
	return true;
}

int lf_bo_revoke_begin(struct lf_bo *bo)
{
	int ret = bo_check_holder(bo, __func__);

	if (ret)
		return ret;
	if (!set_revoked(bo))
		return -EALREADY;
	lf_bo_invalidate(bo);
	return 0;
}

static int check_revoke_wait(const struct lf_bo *bo)
{
	int ret = library_check_fence_wait("lf_bo_revoke_wait"); /* importers unmap when their fences are signaled */

	if (ret)
		return ret;
	if (unlikely(!bo || !lf_bo_is_revoked(bo)))
		return misuse(-EINVAL, "lf_bo_revoke_wait: buffer %p was not revoked", (const void *)bo);
	return 0;
}

int lf_bo_revoke_wait(struct lf_bo *bo, int64_t deadline)
{
	int ret = check_revoke_wait(bo);
	uint32_t maps;

	if (ret)
		return ret;
	while ((maps = load_maps(bo)) != BO_REVOKED) {
		if (!park_wait(&bo->maps, maps, deadline))
			return load_maps(bo) == BO_REVOKED ? 0 : -ETIME;
	}
	return 0;
}
