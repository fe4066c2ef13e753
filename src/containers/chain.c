/* SPDX-License-Identifier: MIT */
/*
 * Chains: lines of links, each of which is signaled when its fence and all links before it are.
 *
 * Purpose: a timeline of fences from anywhere, in which a point is found by its seqno.
 *
 *     link 9 --prev--> link 7 --prev--> link 4 --prev--> NULL: let go, or the beginning
 *        \-fence        \-fence          \-fence
 *
 * A link is a container of two members, the link before it and its fence. So links are collected as they are signaled: the later link
 * lets go of the earlier.
 *
 * Finding: besides prev, a link can have a *jump* to a link much further back, placed as in Myers' random-access lists ("An applicative
 * random-access stack", Information Processing Letters 17, 1983): if the jumps of prev and of prev's jump are of equal length, the new
 * link's jump leads to where the latter leads, else to prev. From any link the first one at or above a seqno is then
 * O(log n) steps away, each either prev or the jump, and appending looks at two links.
 *
 * Invariants:
 * CH1. Along prev and along jump seqnos fall and depths fall. prev_seqno, jump_seqno, depth and jump_depth are those of the links that prev
 *      and jump led to when this link was appended, whether or not they still do; so an answer does not depend on what was collected.
 * CH2. A jump owns a reference, which is put when its link is signaled. What it leads to may be signaled before: then it is a signaled link
 *      that is kept by a pending one, at most one each, since it has itself no jump any more.
 * CH3. Links of one context follow each other: a link is followed by one link of its own context at most. So of two links of one context
 *      the later implies the earlier.
 * CH4. Who finds prev or jump NULL at a link that has one by its seqnos knows that all it led to is signaled. (But for a pending link that
 *      was put for the last time with callbacks, which is reported and completes it with -EDEADLK: it lets go of what is pending.)
 *
 * Locking: `followed` is protected by the link's fence lock. Finding takes none: it is in one read section, and each link that it comes to
 * was found in a place of another link that was not let go (C6).
 *
 * Everything else is in container.c.
 */
#include <libfence/chain.h>

#include "base/alloc.h"
#include "base/rcu.h"
#include "base/reclaim.h"
#include "containers/container.h"
#include "fence/timeline.h"

enum { PREV, FENCE, MEMBERS }; /* the members of a link */

/* The container stands last, since its members follow it. */
struct link {
	uint64_t prev_seqno; /* immutable; 0 for none */
	uint64_t jump_seqno; /* immutable; 0 for none */
	lf_atomic_ptr jump; /* RCU: struct link *, with a reference (CH2); NULL: follow prev */
	uint32_t depth, jump_depth; /* immutable; depth counts from 0 and may wrap: differences count */
	bool followed; /* protected by the fence's lock: another link of this context was appended (CH3) */
	struct container c;
};

/* Room is a link that is not initialised. */
struct lf_chain_room {
	struct link link;
};

_Static_assert(offsetof(struct link, c) <= LF_FENCE_MAX_OFFSET && offsetof(struct link, c) % 8 == 0, "the fence knows its block");

static bool is_link(const struct lf_fence *f)
{
	return fence_kind(f) == FENCE_CHAIN;
}

static struct link *to_link(const struct lf_fence *f)
{
	return container_of(to_container(f), struct link, c);
}

/* --- Letting go ---------------------------------------------------------------------------------------------------------- */

static struct link *look_jump(const struct link *link)
{
	/* order: chain-jump (acquire): the link that is found is initialised; of what is not found the signal is seen */
	return (struct link *)ptr_load(&link->jump, PLANT_ORDER(138, memory_order_relaxed, memory_order_acquire));
}

static void drop_jump(struct link *link)
{
	struct link *jump = look_jump(link);

	if (!jump)
		return;
	/* order: chain-jump (release): who finds it gone sees that all it led to is signaled (CH4). Readers may see it a little longer. */
	ptr_store(&link->jump, 0, PLANT_ORDER(213, memory_order_relaxed, memory_order_release));
	lf_fence_put(&jump->c.fence);
}

/* A link that misuse has completed before its time stands for nothing that comes before it: what follows it is of another context (CH3). */
static void settle(struct lf_fence *f)
{
	struct link *link = to_link(f);
	uintptr_t word;

	if (link->c.missing) {
		word = fence_lock(f);
		link->followed = true;
		fence_unlock(f, word);
	}
	container_settle(f);
	drop_jump(link);
}

static void end_link(struct lf_fence *f)
{
	drop_jump(to_link(f));
	container_end(f);
}

static const struct fence_class chain_class = {
	.name = "chain",
	.enable = container_enable,
	.for_each_leaf = container_for_each_leaf,
	.settle = settle,
	.end = end_link,
};

__attribute__((constructor)) static void register_class(void)
{
	fence_classes[FENCE_CHAIN] = &chain_class;
}

/* --- Appending ----------------------------------------------------------------------------------------------------------- */

int lf_chain_prepare(struct lf_chain_room **ret_room)
{
	struct lf_chain_room *room;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!ret_room)
		return misuse(-EINVAL, "lf_chain_prepare: nowhere to put the room");
	reclaim_throttle();
	room = mem_alloc(sizeof(*room) + MEMBERS * sizeof(struct member));
	if (!room)
		return -ENOMEM;
	*ret_room = room;
	return 0;
}

void lf_chain_cancel(struct lf_chain_room *room)
{
	mem_free(room);
}

/* What a link's jump leads to, inside a read section; the link before it, when it leads no further than that. */
static const struct link *look_back(const struct link *link)
{
	const struct lf_fence *prev;

	if (link->jump_depth + 1 != link->depth)
		return look_jump(link);
	prev = container_look(&link->c.members[PREV]);
	return prev ? to_link(prev) : NULL;
}

/* Where the jump of a link behind @prev leads. */
static void set_jump(struct link *link, const struct link *prev)
{
	const struct link *middle;
	struct link *target;

	link->jump_seqno = prev->c.fence.seqno;
	link->jump_depth = prev->depth;
	rcu_begin();
	middle = look_back(prev);
	/* Without a middle, all behind prev's jump is signaled (CH4): nobody will look for it. */
	if (middle && prev->depth - prev->jump_depth == middle->depth - middle->jump_depth) {
		link->jump_seqno = middle->jump_seqno;
		link->jump_depth = middle->jump_depth;
		target = (struct link *)look_back(middle);
		if (target && refcount_tryget(&target->c.fence.count))
			/* order: chain-jump (release): it was there before us */
			ptr_store(&link->jump, (uintptr_t)target, PLANT_ORDER(137, memory_order_relaxed, memory_order_release));
	}
	rcu_end();
}

/* Puts the link before it into a new link. */
static void follow(struct link *link, struct lf_fence *f)
{
	struct link *prev = to_link(f);
	struct lf_fence *self = &link->c.fence;
	uintptr_t word;

	link->prev_seqno = f->seqno;
	link->depth = prev->depth + 1;
	set_jump(link, prev);
	word = fence_lock(f);
	self->context = prev->followed ? timeline_new_context() : f->context;
	prev->followed = true;
	container_put_in_locked(&link->c, PREV, f, word);
}

/* Begins a chain, behind a fence of another kind or nothing. */
static void begin(struct link *link, struct lf_fence *before)
{
	link->prev_seqno = link->jump_seqno = 0;
	link->depth = link->jump_depth = 0;
	link->c.fence.context = timeline_new_context();
	if (before) {
		container_put_in(&link->c, PREV, before);
	} else {
		link->c.members[PREV].fence.value = 0;
		link->c.missing--;
	}
}

static struct lf_fence *append(struct lf_chain_room *room, struct lf_fence *prev, struct lf_fence *fence, uint64_t seqno)
{
	struct link *link = &room->link;

	container_init(&link->c, FENCE_CHAIN, FENCE_ORDERED, offsetof(struct link, c), MEMBERS);
	link->c.first_counts = true;
	link->c.fence.seqno = seqno;
	link->jump.value = 0;
	link->followed = false;
	if (prev && is_link(prev))
		follow(link, prev);
	else
		begin(link, prev);
	container_put_in(&link->c, FENCE, fence);
	return &link->c.fence;
}

/* Whether a user's arguments make a link; reports when not. */
static bool check_arguments(const struct lf_fence *prev, const struct lf_fence *fence, uint64_t seqno, unsigned flags, const char *function)
{
	uint64_t last;

	if (!fence || !fence_check(fence, function) || (prev && !fence_check(prev, function))) {
		misuse(0, "%s: a link needs a fence", function);
		return false;
	}
	if (flags & ~(unsigned)LF_CHAIN_JOIN) {
		misuse(0, "%s: unknown flags %#x", function, flags);
		return false;
	}
	last = prev && is_link(prev) ? prev->seqno : 0;
	if (seqno <= last) {
		misuse(0, "%s: seqno %llu does not rise above %llu", function, (unsigned long long)seqno, (unsigned long long)last);
		return false;
	}
	if (is_link(fence)) {
		if (!(flags & LF_CHAIN_JOIN)) {
			misuse(0, "%s: fence %p is a link of a chain; LF_CHAIN_JOIN would join the two", function, (const void *)fence);
			return false;
		}
		container_validate(fence, function);
	}
	return true;
}

struct lf_fence *lf_chain_commit(struct lf_chain_room *room, struct lf_fence *prev, struct lf_fence *fence, uint64_t seqno, unsigned flags)
{
	if (!room) {
		misuse(0, "lf_chain_commit: there is no room");
		return NULL;
	}
	if (library_poisoned() || !check_arguments(prev, fence, seqno, flags, __func__))
		return NULL;
	return append(room, prev, fence, seqno);
}

int lf_chain_append(struct lf_fence *prev, struct lf_fence *fence, uint64_t seqno, unsigned flags, struct lf_fence **ret_link)
{
	struct lf_chain_room *room;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!ret_link)
		return misuse(-EINVAL, "lf_chain_append: nowhere to put the link");
	if (!check_arguments(prev, fence, seqno, flags, __func__))
		return -EINVAL;
	ret = lf_chain_prepare(&room);
	if (ret)
		return ret;
	*ret_link = append(room, prev, fence, seqno);
	return 0;
}

/* --- Looking ------------------------------------------------------------------------------------------------------------- */

/* Whether @f is a link; reports when not. */
static bool check_link(const struct lf_fence *f, const char *function)
{
	if (!f || !fence_check(f, function) || !is_link(f)) {
		misuse(0, "%s: fence %p is not a link of a chain", function, (const void *)f);
		return false;
	}
	return true;
}

/*
 * The first link at or above a seqno, from a link that is. NULL when it was let go of (CH4), so is signaled. Inside a read section.
 */
static const struct link *find(const struct link *link, uint64_t seqno)
{
	while (link && link->prev_seqno >= seqno) {
		const struct lf_fence *prev;

		__builtin_prefetch(&link->c.members[PREV].fence); /* on another cache line, and every other step needs it */
		if (link->jump_seqno >= seqno) {
			link = look_back(link);
			continue;
		}
		prev = container_look(&link->c.members[PREV]);
		link = prev ? to_link(prev) : NULL;
	}
	return link;
}

int lf_chain_find_seqno(struct lf_fence *link, uint64_t seqno, struct lf_fence **ret_fence)
{
	const struct link *found;

	if (!ret_fence)
		return misuse(-EINVAL, "lf_chain_find_seqno: nowhere to put the fence");
	if (!check_link(link, __func__))
		return -EINVAL;
	if (library_poisoned())
		return -EOWNERDEAD;
	if (seqno > link->seqno)
		return -ENOENT;
	rcu_begin();
	found = seqno ? find(to_link(link), seqno) : NULL;
	*ret_fence = found ? lf_fence_tryget((struct lf_fence *)&found->c.fence) : NULL;
	rcu_end();
	if (!*ret_fence)
		*ret_fence = lf_fence_stub();
	return 0;
}

struct lf_fence *lf_chain_get_prev(const struct lf_fence *link)
{
	return check_link(link, __func__) && !library_poisoned() ? container_get_member(to_container(link), PREV) : NULL;
}

struct lf_fence *lf_chain_get_fence(const struct lf_fence *link)
{
	return check_link(link, __func__) && !library_poisoned() ? container_get_member(to_container(link), FENCE) : NULL;
}

bool lf_fence_is_chain(const struct lf_fence *f)
{
	return fence_check(f, __func__) && is_link(f);
}
