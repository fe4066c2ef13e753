/* SPDX-License-Identifier: MIT */
/*
 * Containers: fences that are signaled by their members.
 *
 * Purpose: one mechanism for arrays and chains. A link of a chain is a container of two: the link before it, and its fence.
 *
 * States:
 *
 *     making --container_made()--> pending --enough members signaled--> signaled --settled--> drained
 *                                     \--last put--> ended
 *
 * | a place for a member | its node        | its pointer                | who changes that                                        |
 * |----------------------|-----------------|----------------------------|---------------------------------------------------------|
 * | waited for           | on the member   | set, owns a reference      | container_put_in()                                      |
 * | counted              | claimed         | NULL; reference handed on  | member_signaled(), in the dispatch of the member        |
 * | let go               | taken back      | NULL; reference put        | release_places(): *any* array settled, or container ended |
 *
 * A container subscribes to its members by internal nodes, which do not enable them. Enabling a container enables its members.
 *
 * Invariants, with the container's fence locked:
 * C1. missing is the number of members that have not been counted. Each member is counted once: by its node, or by who put it in and
 *     found it signaled.
 * C2. A pending container that is made has more than `enough` missing.
 * C3. error and time are the result that it would have if nothing more came.
 *
 * And for everybody:
 * C4. The reference of a place belongs to who takes the node off the member's list: the dispatcher, by claiming it (it puts the reference,
 *     fence_after.put), or release_places(), by removing it. Both happen under the member's lock, so it is one of them.
 * C5. The last thing that a claimed node does to its container is to set the place to NULL, inside the member's lock. So who finds
 *     a place NULL, or has had the member's lock and not found the node, may free the container as far as that place goes.
 * C6. A member was published before its place pointed to it. So inside a read section what a place pointed to is memory of that same
 *     fence, and taking a reference fails only when it was let go of: after it was counted, or when the container needs it no more.
 * C7. A container that a node completes is signaled and not drained when the node's lock on it ends, so it outlives its last put (F9), and
 *     is next in the first phase of the very dispatch that runs the node. No recursion: a million nested ones are a list.
 *
 * Locking: a member's lock -> its container's. Members are older than their container, so there is no circle.
 *
 * Ordering: container-member. The count is under the lock.
 *
 * Lifetime: a container has no reference on itself for its nodes; whoever ends it takes them back first (C5). Members are let go when
 * they are counted, not when somebody looks.
 *
 * Not here: what a user gives and gets (array.c, chain.c), walking (unwrap.c).
 */
#include "containers/container.h"

#include "base/rcu.h"

/* --- Counting ------------------------------------------------------------------------------------------------------------ */

/* Takes a member's result (C3). The container is locked, and pending; the member is signaled. */
static void take_result(struct container *c, const struct member *m, const struct lf_fence *f)
{
	int error = (int)(fence_state(f) & FENCE_ERROR);
	bool first = c->missing == c->count;

	if (c->any) {
		if (first) {
			c->error = -error;
			c->time = f->timestamp;
		}
		return;
	}
	if (error && (!c->error || (c->first_counts && m == c->members)))
		c->error = -error;
	if (f->timestamp > c->time)
		c->time = f->timestamp;
}

/* The new word of a locked, pending container: signaled if it has enough. Not drained, so that it is settled, and kept until then. */
static uintptr_t complete_if_enough(struct container *c, uintptr_t word)
{
	struct fence_origin *none;

	if (c->making || c->missing > c->enough)
		return word;
	return fence_finish(&c->fence, word, c->error, c->time, &none) & ~FENCE_DRAINED;
}

/* Counts a member (C1). Returns whether that signaled the container, which the caller dispatches then. */
static bool count(struct container *c, const struct member *m, const struct lf_fence *f)
{
	uintptr_t before = fence_lock(&c->fence), word = before;

	if (!(before & FENCE_SIGNALED)) {
		take_result(c, m, f);
		c->missing--;
		word = complete_if_enough(c, before);
	}
	fence_unlock(&c->fence, word);
	return (word & ~before) & FENCE_SIGNALED;
}

/* The node: its member is signaled, and locked. */
static void member_signaled(struct lf_fence *f, struct lf_fence_cb *cb, struct fence_after *after)
{
	struct member *m = container_of(cb, struct member, cb);
	struct lf_fence *container = &m->owner->fence;
	bool completed = count(m->owner, m, f);

	if (completed)
		fence_dispatch_next(container);
	/* order: container-member (release): who finds it gone sees it counted, and we do not come back (C5) */
	ptr_store(&m->fence, 0, PLANT_ORDER(71, memory_order_relaxed, memory_order_release));
	after->put = true;
}

/* --- Making -------------------------------------------------------------------------------------------------------------- */

void container_init(struct container *c, enum fence_kind kind, uint32_t flags, size_t offset, uint32_t count)
{
	fence_init_class(&c->fence, kind, flags, offset);
	c->time = INT64_MIN;
	c->error = 0;
	c->making = false;
	c->any = false;
	c->first_counts = false;
	c->claimed = NULL;
	c->missing = count;
	c->enough = 0;
	c->count = count;
}

/* Readies a place. */
static struct member *occupy(struct container *c, uint32_t i, struct lf_fence *f)
{
	struct member *m = &c->members[i];

	m->owner = c;
	/* relaxed: nobody has seen the container but the member's dispatcher, once the node is on it */
	ptr_store(&m->fence, (uintptr_t)f, memory_order_relaxed);
	return m;
}

/* The member was signaled already. */
static void count_signaled(struct container *c, struct member *m, struct lf_fence *f)
{
	ptr_store(&m->fence, 0, memory_order_relaxed); /* relaxed: no node is there */
	if (count(c, m, f))
		fence_dispatch(&c->fence);
	lf_fence_put(f);
}

void container_put_in(struct container *c, uint32_t i, struct lf_fence *f)
{
	struct member *m = occupy(c, i, f);

	if (fence_subscribe(f, &m->cb, member_signaled) != 0)
		count_signaled(c, m, f);
}

void container_put_in_locked(struct container *c, uint32_t i, struct lf_fence *f, uintptr_t word)
{
	struct member *m = occupy(c, i, f);

	fence_unlock(f, fence_subscribe_locked(f, word, &m->cb, member_signaled));
	if (word & FENCE_SIGNALED)
		count_signaled(c, m, f);
}

void container_made(struct container *c)
{
	uintptr_t before = fence_lock(&c->fence), word;

	c->making = false;
	word = complete_if_enough(c, before);
	fence_unlock(&c->fence, word);
	if (word & FENCE_SIGNALED)
		fence_dispatch(&c->fence);
}

/* --- Looking ------------------------------------------------------------------------------------------------------------- */

struct lf_fence *container_get_member(const struct container *c, uint32_t i)
{
	struct lf_fence *f;

	rcu_begin();
	f = container_tryget(&c->members[i]);
	rcu_end();
	return f;
}

void container_result(struct container *c, int *ret_error, int64_t *ret_time)
{
	uintptr_t word = fence_lock(&c->fence);

	*ret_error = c->error;
	*ret_time = c->time;
	fence_unlock(&c->fence, word);
}

void container_validate(const struct lf_fence *f, const char *function)
{
	if (library_validates(LF_VALIDATE_NESTING) && fence_class(f))
		log_message(LF_LOG_WARNING, "%s: %s %p gets into a container; lf_fence_flatten() would avoid it", function, fence_class(f)->name,
			(const void *)f);
}

/* --- Enabling ------------------------------------------------------------------------------------------------------------ */

/*
 * Enabling a container enables what hangs on it, in a list and not by recursion. The hooks that run then take as long as they like, and may
 * themselves wait for a container that comes later in the list. So it says ENABLED only when all of the list is done; until then it is
 * claimed by the call whose list it is, and another call that comes to it enables its leaves for itself: a leaf's hook runs once in any
 * case. (That needs memory. Without, the first call will come to the leaves.)
 */
enum claim { CLAIM_OURS, CLAIM_OTHERS, CLAIM_NOT_NEEDED };

/* What enables: a call of container_enable(), which is told from others by the address of this. */
struct enabling {
	struct container *todo, *done;
};

static enum claim claim(struct container *c, const struct enabling *e)
{
	enum claim result = CLAIM_OURS;
	uintptr_t word;

	if (fence_state(&c->fence) & FENCE_ENABLED)
		return CLAIM_NOT_NEEDED;
	word = fence_lock(&c->fence);
	if ((word & FENCE_SIGNALED) || (fence_state(&c->fence) & FENCE_ENABLED) || c->claimed == e)
		result = CLAIM_NOT_NEEDED;
	else if (c->claimed)
		result = CLAIM_OTHERS;
	else
		c->claimed = e;
	fence_unlock(&c->fence, word);
	return result;
}

static void set_enabled(struct container *c)
{
	uintptr_t word = fence_lock(&c->fence);

	fence_set_state(&c->fence, fence_state(&c->fence) | FENCE_ENABLED);
	fence_unlock(&c->fence, word);
}

static void enable_leaf(struct lf_fence *leaf, void *unused)
{
	(void)unused;
	fence_enable(leaf);
}

/* A reference on a member that there is something to enable of; a look, and no reference, when there is not. */
static struct lf_fence *get_to_enable(const struct member *m)
{
	struct lf_fence *f;

	rcu_begin();
	f = container_look(m);
	if (f && (!fence_origin(f) || (fence_state(f) & FENCE_ENABLED) || !refcount_tryget(&f->count)))
		f = NULL;
	rcu_end();
	return f;
}

/* Returns whether @f went to the front of the list, with the reference. */
static bool enable_member(struct lf_fence *f, struct enabling *e)
{
	struct container *c = to_container(f);

	if (!fence_class(f)) {
		fence_enable(f);
		return false;
	}
	switch (claim(c, e)) {
	case CLAIM_OURS:
		c->next = e->todo;
		e->todo = c;
		return true;
	case CLAIM_OTHERS:
		container_for_each_leaf(f, enable_leaf, NULL);
		return false;
	case CLAIM_NOT_NEEDED:
		break;
	}
	return false;
}

static void enable_members(struct container *c, struct enabling *e)
{
	for (uint32_t i = 0; i < c->count && !library_poisoned(); i++) {
		struct lf_fence *f = get_to_enable(&c->members[i]);

		if (f && !enable_member(f, e))
			lf_fence_put(f);
	}
}

void container_enable(struct lf_fence *f)
{
	struct enabling e = { NULL, NULL };
	struct container *c;

	if (!enable_member(lf_fence_get(f), &e))
		lf_fence_put(f);
	while ((c = e.todo) != NULL && !library_poisoned()) { /* a hook may have forked, and this be the child */
		e.todo = c->next;
		c->next = e.done;
		e.done = c;
		enable_members(c, &e);
	}
	while ((c = e.done) != NULL && !library_poisoned()) {
		e.done = c->next;
		set_enabled(c);
		lf_fence_put(&c->fence);
	}
}

/* --- Letting go ---------------------------------------------------------------------------------------------------------- */

/* How many places are released in one read section. */
enum { RELEASE_BATCH = 32 };

/* Takes back the nodes of @n places that still wait, and puts their members behind the read section (C4). */
static void release_places(struct member *places, uint32_t n)
{
	struct lf_fence *removed[RELEASE_BATCH];

	rcu_begin();
	for (uint32_t i = 0; i < n; i++) {
		removed[i] = container_look(&places[i]);
		if (removed[i] && !fence_remove_internal(removed[i], &places[i].cb))
			removed[i] = NULL;
	}
	rcu_end();
	for (uint32_t i = 0; i < n; i++) {
		if (!removed[i])
			continue;
		/* order: container-member (release): as in member_signaled(), though nothing was counted. Readers may see it a little longer (C6). */
		ptr_store(&places[i].fence, 0, PLANT_ORDER(136, memory_order_relaxed, memory_order_release));
		lf_fence_put(removed[i]);
	}
}

static void release_members(struct container *c)
{
	for (uint32_t i = 0; i < c->count; i += RELEASE_BATCH)
		release_places(&c->members[i], c->count - i < RELEASE_BATCH ? c->count - i : RELEASE_BATCH);
}

void container_settle(struct lf_fence *f)
{
	struct container *c = to_container(f);

	/* Final since the container is signaled: nobody counts any more. */
	if (c->missing && !PLANTED(73))
		release_members(c);
}

void container_end(struct lf_fence *f)
{
	release_members(to_container(f));
	fence_free_memory(f);
}
