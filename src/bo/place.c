/* SPDX-License-Identifier: MIT */
/*
 * Places: a backing of a buffer, and who keeps it from being released.
 *
 * Purpose: a buffer leaves a place at once, and the place is released in its own time: when all that was in the reservation at that
 * moment is signaled, and nobody has it mapped. Nobody waits for that.
 *
 * States:
 *
 *     NEW --place_settle()--> SETTLED --place_set_current()--> CURRENT --place_leave()--> GHOST --last reference--> RELEASED
 *
 * | state    | refs                                          | who has it                                             |
 * |----------|-----------------------------------------------|--------------------------------------------------------|
 * | NEW      | 1, not counted for the buffer                 | who made it, or bo->spare                              |
 * | SETTLED  | 1                                             | lf_bo_init(), lf_bo_move()                             |
 * | CURRENT  | 1 of the buffer, 1 a mapping                  | bo->place                                              |
 * | GHOST    | 1 until its fences are signaled, 1 a mapping  | the notice; mappings                                   |
 * | RELEASED | 0                                             | who releases it, perhaps later; readers in sections    |
 *
 * Invariants:
 * PL1. The release hook is called once for each settled place, when refs are 0.
 * PL2. It is called by the notice's function or by the reclaimer, outside of place_call_begin() and place_call_end(), and with nothing
 *      locked by the library. A mapping that goes last, and a notice that fires inside the brackets, hand the place to the reclaimer.
 * PL3. The notice is over (lf_notice_fini()) before refs lose what it stood for: so whoever ends the place need not look at it.
 * PL4. The memory is freed a grace period after the hook, for lf_bo_memory() without a lock.
 *
 * Locking: none of its own. place_leave() once for each place.
 *
 * Ordering: bo-place (place.h); refcount: whoever releases sees what holders of mappings did, and what came before the fences.
 *
 * Not here: which place is the current one, and the end of the buffer (bo.c).
 */
#include "bo/place.h"

#include "base/alloc.h"
#include "base/check.h"
#include "base/reclaim.h"
#include "base/refcount.h"

struct place *place_create(void)
{
	struct place *p = mem_zalloc(sizeof(*p));

	if (!p)
		return NULL;
	u32_store(&p->refs, 1, memory_order_relaxed); /* relaxed: nobody else sees it yet */
	lf_notice_init(&p->notice);
	return p;
}

void place_settle(struct place *p, struct lf_bo *bo, const struct lf_backing *backing)
{
	p->bo = bo;
	if (backing)
		p->backing = *backing;
	u32_fetch_add(&bo_core(bo)->places, 1, memory_order_relaxed); /* relaxed: not 0, but for a buffer that nobody sees yet */
}

/* --- Releasing -------------------------------------------------------------------------------------------------------- */

static void call_release(const struct place *p)
{
	struct hook_frame frame;

	if (!p->backing.release)
		return;
	hook_enter(&frame, bo_core(p->bo)->resource.provider);
	p->backing.release(p->backing.memory, p->backing.user);
	hook_leave(&frame);
}

/* Nobody refers to the place. */
static void release(struct place *p)
{
	struct lf_bo *bo = p->bo;

	call_release(p);
	if (library_poisoned()) /* the hook forked, and this is the child */
		return;
	reclaim_free(&p->deferred, p);
	if (refcount_put(&bo_core(bo)->places, "buffer"))
		bo_end(bo);
}

static void release_deferred(struct lf_deferred *node)
{
	release(container_of(node, struct place, deferred));
}

/* The fences of a ghost are signaled. */
static void drop_ghost(struct place *p)
{
	if (!refcount_put(&p->refs, "place"))
		return;
	if (this_thread()->in_bo && !PLANTED(82))
		lf_defer_call(&p->deferred, release_deferred);
	else
		release(p);
}

static void fired(struct lf_notice *notice)
{
	struct place *p = container_of(notice, struct place, notice);

	lf_notice_fini(notice); /* PL3; here it waits for nobody */
	drop_ghost(p);
}

void place_leave(struct place *p)
{
	struct lf_snapshot snapshot = p->snapshot; /* moves: once armed, the place may end at any time */

	p->snapshot = (struct lf_snapshot){ 0 };
	if (lf_notice_arm_snapshot(&p->notice, &snapshot, PLANTED(81) ? LF_USAGE_KERNEL : LF_USAGE_BOOKKEEP, fired) == 0)
		return;
	lf_snapshot_put(&snapshot);
	if (!library_poisoned()) /* else a hook forked, and this is the child */
		drop_ghost(p);
}

/* --- Mappings --------------------------------------------------------------------------------------------------------- */

void place_get(struct place *p)
{
	refcount_get(&p->refs, "place");
}

void place_put(struct place *p)
{
	if (refcount_put(&p->refs, "place"))
		lf_defer_call(&p->deferred, release_deferred);
}
