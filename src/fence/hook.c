/* SPDX-License-Identifier: MIT */
/*
 * The producer's hooks: enable, poll, set_deadline, detach.
 *
 * Purpose: call them with nothing held, and know when none runs, so that the producer can be let go of.
 *
 * Invariants:
 * H1. A hook other than detach runs only between hook_begin() and hook_end(); as long as it is counted in the state word, the origin stays.
 * H2. detach runs once, after SIGNALED, when no hook is counted: whoever takes the origin out of the fence under the lock calls it. That is
 *     fence_finish() when nothing is in flight, else the last hook_end().
 *
 * Containers have no hooks: theirs are their leaves' (struct fence_class).
 *
 * So ops need no read section to be reached, and a fence whose origin is NULL needs nothing of its producer.
 */
#include "base/check.h"
#include "base/rcu.h"
#include "fence/core.h"

enum which { HOOK_ENABLE, HOOK_POLL, HOOK_SET_DEADLINE };

static bool has_hook(const struct lf_fence_ops *ops, enum which which)
{
	switch (which) {
	case HOOK_ENABLE:
		return ops->enable;
	case HOOK_POLL:
		return ops->poll;
	case HOOK_SET_DEADLINE:
		return ops->set_deadline;
	}
	return false;
}

/*
 * Whether the state allows one more hook. There is room for 31 at a time: one is kept for enable, which is called once and must not be
 * left out, as polls and hints can be.
 */
static bool may_begin(uint32_t state, enum which which)
{
	if (which == HOOK_ENABLE)
		return !(state & FENCE_ENABLED);
	return (state & FENCE_HOOKS) < FENCE_HOOKS - FENCE_HOOK;
}

/* Begins a hook. Returns the origin, which stays until hook_end(); NULL when there is nothing to call. */
static struct fence_origin *hook_begin(struct lf_fence *f, enum which which)
{
	struct fence_origin *origin;
	uint32_t state;
	uintptr_t word;

	/* A look first, without the lock: stand-alone and signaled fences have no hooks, and enable is called once. */
	if (!fence_origin(f) || !may_begin(fence_state(f), which))
		return NULL;
	word = fence_lock(f);
	state = fence_state(f);
	origin = fence_origin(f);
	if ((word & FENCE_SIGNALED) || !may_begin(state, which))
		origin = NULL;
	if (origin && which == HOOK_ENABLE)
		state |= FENCE_ENABLED;
	if (origin && !(origin->ops && has_hook(origin->ops, which)))
		origin = NULL;
	if (origin)
		state += FENCE_HOOK;
	fence_set_state(f, state);
	fence_unlock(f, word);
	if (unlikely(origin && rcu_held()))
		misuse(0, "a hook of fence %p was called for inside a read section", (void *)f);
	return origin;
}

static void hook_end(struct lf_fence *f, struct fence_origin *origin)
{
	uintptr_t word = fence_lock(f);
	uint32_t state = fence_state(f) - FENCE_HOOK;
	bool detach = (word & FENCE_SIGNALED) && !(state & FENCE_HOOKS);

	fence_set_state(f, state);
	if (detach)
		fence_set_origin(f, NULL);
	fence_unlock(f, word);
	if (detach) {
		fence_detach(f, origin);
		origin->detached(origin, 1);
	}
}

void fence_detach(struct lf_fence *f, struct fence_origin *origin)
{
	struct hook_frame frame;

	if (!origin->ops || !origin->ops->detach)
		return;
	hook_enter(&frame, origin->provider);
	origin->ops->detach(f, origin->data);
	hook_leave(&frame);
}

/*
 * Ends a hook, after doing what it said: 0 nothing yet, else the result. The fence is signaled inside the hook's bracket, where the
 * origin is there; the users' callbacks run behind it, so that no callback, blocking as it may, keeps the producer from being let go of.
 */
static void obey_and_end(struct lf_fence *f, struct fence_origin *origin, int said)
{
	bool outermost;

	if (library_poisoned())
		return; /* the hook forked, and this is the child */
	outermost = fence_dispatch_begin();
	if (said != 0)
		origin->complete(origin, f, said > 0 ? 0 : check_error("hook", said));
	hook_end(f, origin);
	fence_dispatch_end(outermost);
}

/* Calls a hook, if there is one and the state allows it; @deadline is for set_deadline. */
static void call_hook(struct lf_fence *f, enum which which, int64_t deadline)
{
	struct fence_origin *origin = hook_begin(f, which);
	struct hook_frame frame;
	int said = 0;

	if (!origin)
		return;
	hook_enter(&frame, origin->provider);
	switch (which) {
	case HOOK_ENABLE:
		said = origin->ops->enable(f, origin->data);
		break;
	case HOOK_POLL:
		said = origin->ops->poll(f, origin->data);
		break;
	case HOOK_SET_DEADLINE:
		origin->ops->set_deadline(f, deadline, origin->data);
		break;
	}
	hook_leave(&frame);
	obey_and_end(f, origin, said);
}

void fence_enable_slow(struct lf_fence *f)
{
	const struct fence_class *class = fence_class(f);

	if (library_poisoned())
		return; /* the child of a hook that forked comes here */
	if (class)
		class->enable(f);
	else
		call_hook(f, HOOK_ENABLE, 0);
}

static void check_leaf(struct lf_fence *leaf, void *unused)
{
	(void)unused;
	lf_fence_check(leaf);
}

int lf_fence_check(struct lf_fence *f)
{
	const struct fence_class *class;

	if (!fence_check(f, __func__))
		return 0;
	if (library_poisoned())
		return lf_fence_status(f);
	class = fence_class(f);
	if (class)
		class->for_each_leaf(f, check_leaf, NULL);
	else
		call_hook(f, HOOK_POLL, 0);
	return lf_fence_status(f);
}

static void hint_leaf(struct lf_fence *leaf, void *deadline)
{
	lf_fence_set_deadline(leaf, *(const int64_t *)deadline);
}

void lf_fence_set_deadline(struct lf_fence *f, int64_t deadline)
{
	const struct fence_class *class;

	if (!fence_check(f, __func__) || library_poisoned())
		return;
	class = fence_class(f);
	if (class)
		class->for_each_leaf(f, hint_leaf, &deadline);
	else
		call_hook(f, HOOK_SET_DEADLINE, deadline);
}
