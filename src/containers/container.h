/* SPDX-License-Identifier: MIT */
/*
 * The inside of containers: a fence that is signaled by other fences. Arrays and the links of chains are this, with different ways to
 * begin. Overview and invariants in container.c.
 */
#ifndef LF_CONTAINERS_CONTAINER_H
#define LF_CONTAINERS_CONTAINER_H

#include "fence/core.h"

/* One place for a member. */
struct member {
	struct lf_fence_cb cb; /* on the member's list while the container waits for it */
	lf_atomic_ptr fence; /* RCU: the member, with a reference; NULL when it was let go, or there is none */
	struct container *owner; /* immutable */
};

struct container {
	struct lf_fence fence;
	int64_t time; /* protected by the fence's lock: the latest of members' timestamps so far; INT64_MIN for none */
	int error; /* protected by the lock: what the container will complete with */
	bool making; /* protected by the lock: members are being subscribed to, which must not signal it yet */
	bool any; /* immutable: the first member's result is the container's */
	bool first_counts; /* immutable: the error of the first member comes before those of the others */
	uint32_t missing; /* protected by the lock: members that are not signaled */
	uint32_t enough; /* immutable: signaled when no more than so many are missing */
	uint32_t count; /* immutable: places */
	const void *claimed; /* protected by the lock: the call that is enabling it, and owns next; or NULL */
	struct container *next; /* in a list of that call */
	struct member members[];
};

static inline struct container *to_container(const struct lf_fence *f)
{
	return (struct container *)(void *)f;
}

/*
 * Begins a container that is being made: places for @count members and one reference. @c lies @offset behind the start of its block. The
 * caller sets the constants that differ from an *all* array's.
 */
void container_init(struct container *c, enum fence_kind kind, uint32_t flags, size_t offset, uint32_t count);

/* Makes @f member @i: consumes the caller's reference. */
void container_put_in(struct container *c, uint32_t i, struct lf_fence *f);

/* The same for a fence that the caller has locked with @word, and which is unlocked here. */
void container_put_in_locked(struct container *c, uint32_t i, struct lf_fence *f, uintptr_t word);

/* Ends making, if it was begun with c->making: the container may be signaled from now on, perhaps here. */
void container_made(struct container *c);

/* A new reference on a member; NULL when it was let go. */
struct lf_fence *container_get_member(const struct container *c, uint32_t i);

/* The member, to look at inside a read section; NULL when it was let go. */
static inline struct lf_fence *container_look(const struct member *m)
{
	/* order: container-member (acquire): who finds it gone sees its result counted, and the container's memory is not needed any more */
	return (struct lf_fence *)ptr_load(&m->fence, PLANT_ORDER(72, memory_order_relaxed, memory_order_acquire));
}

/* Inside a read section: a reference on the member; NULL when it was let go. */
static inline struct lf_fence *container_tryget(const struct member *m)
{
	struct lf_fence *f;

	while ((f = container_look(m)) != NULL && !refcount_tryget(&f->count))
		; /* it is being let go of (C6) */
	return f;
}

/* What of a container has completed: its error so far and the latest timestamp. */
void container_result(struct container *c, int *ret_error, int64_t *ret_time);

/* The functions of struct fence_class. */
void container_enable(struct lf_fence *f);
void container_settle(struct lf_fence *f);
void container_end(struct lf_fence *f);
void container_for_each_leaf(struct lf_fence *f, void (*fn)(struct lf_fence *leaf, void *arg), void *arg); /* in unwrap.c */

/* Reports, when that was asked for (LF_VALIDATE_NESTING), that @f is nested in another container. */
void container_validate(const struct lf_fence *f, const char *function);

#endif /* LF_CONTAINERS_CONTAINER_H */
