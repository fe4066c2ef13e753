/* SPDX-License-Identifier: MIT */
/*
 * A published pointer to one fence, and fences put after a grace period.
 *
 * Invariants:
 * S1. The slot holds a reference on its fence, and the fence was published before the slot pointed to it. So inside a read section a
 *     fence that was found in the slot stays memory of that same fence: its last put waits for a grace period with freeing.
 * S2. Its count may reach zero meanwhile; so taking a reference can fail, and then the slot holds another fence by now. That is the one
 *     retry, and it is here.
 *
 * Ordering: fence-slot.
 */
#include "base/check.h"
#include "base/rcu.h"
#include "base/reclaim.h"
#include "fence/core.h"

void lf_fence_slot_set(struct lf_fence_slot *slot, struct lf_fence *f)
{
	struct lf_fence *old;

	if (library_poisoned())
		return;
	if (f) {
		if (!PLANTED(14))
			lf_fence_publish(f);
		lf_fence_get(f);
	}
	/* order: fence-slot (release): who finds the fence sees it, and what its setter wrote before */
	/* order: fence-slot (acquire): the old fence is put by one who sees it */
	old = (struct lf_fence *)ptr_xchg(&slot->fence, (uintptr_t)f, PLANT_ACQ_REL(16, 104));
	lf_fence_put(old);
}

/* Inside a read section. */
static struct lf_fence *look(const struct lf_fence_slot *slot)
{
	/* order: fence-slot (acquire): see lf_fence_slot_set() */
	return (struct lf_fence *)ptr_load(&slot->fence, PLANT_ORDER(17, memory_order_relaxed, memory_order_acquire));
}

struct lf_fence *lf_fence_slot_get(struct lf_fence_slot *slot)
{
	struct lf_fence *f;

	if (library_poisoned())
		return NULL;
	rcu_begin();
	while ((f = look(slot)) != NULL && !refcount_tryget(&f->count))
		;
	rcu_end();
	return f;
}

struct lf_fence *lf_fence_slot_look(const struct lf_fence_slot *slot)
{
	if (unlikely(!rcu_held())) {
		misuse(0, "lf_fence_slot_look: called outside a read section");
		return NULL;
	}
	return look(slot);
}

/* --- Deferred put -------------------------------------------------------------------------------------------------------- */

static void put_deferred(struct lf_deferred *node)
{
	struct lf_fence *f = node->what;

	lf_fence_put(f);
}

void lf_defer_put(struct lf_deferred *node, struct lf_fence *f)
{
	if (!node || !f) {
		misuse(0, "lf_defer_put: node and fence are both needed");
		return;
	}
	node->what = f;
	lf_defer_call(node, put_deferred);
}
