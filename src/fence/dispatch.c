/* SPDX-License-Identifier: MIT */
/*
 * Callbacks: adding and taking back, and running them when a fence is signaled.
 *
 * Purpose: run each callback exactly once, on the thread that signals, with nothing of the library held; let anybody take one back at any
 * time without waiting for another.
 *
 * A signaled fence is dispatched in two phases. First the internal nodes (waiters, containers, dependencies of jobs), under the fence's
 * lock, since they only count; what a count asks for (waking a thread, kicking a queue) is done after the lock was given back. Then the
 * user's callbacks, one at a time. So no callback, blocking as it may, holds up a waiter.
 *
 * Signalling inside a callback does the first phase at once and leaves the second to the dispatch that is below on the stack: the fence
 * goes to the end of the thread's list. So a million fences that signal each other need the stack of one, and all callbacks have run when
 * the outermost signal returns. The same holds for the first phase: what is signaled inside one (a container by its last member) is told
 * next, by the loop that is below on the stack. So it reaches everything that follows before any user's callback runs.
 *
 * States of a node:
 *
 *     IDLE --add--> QUEUED --claimed by the dispatcher--> RAN
 *                      \------remove------> REMOVED               (RAN and REMOVED can be added again)
 *
 * Invariants (beside those of fence.c):
 * D1. Between the claim and the return of a callback, f->running is its node; the dispatcher claims under the lock, so whoever holds the
 *     lock sees each node either in the list, or running, or done. That is what makes remove's three answers exact.
 * D2. The dispatcher does not touch a node after the claim.
 * D3. A fence in one of a thread's lists (next, pending) is signaled and not drained, so it is not freed, and it is in one list; only that
 *     thread's dispatcher drains it.
 * D4. Of one thread at most one user callback is on the stack: the one that library_thread.current, a fence, has as running.
 * D5. FENCE_SYNC_WAITER is set while somebody may sleep until a callback of this fence has returned. Whoever ends a callback takes it
 *     under the lock and then advances sync_sequence, on which they sleep, from a value that they read under the lock: so a sleeper that
 *     comes late does not sleep. (The state word itself would not do: cleared and set again by another sleeper it looks the same.) One
 *     word serves all fences, since such waits are rare, and it outlives every fence.
 * D6. A reference that an internal node gives to the dispatcher (fence_after.put) is put under the lock, or left as the last one (F9).
 *
 * Ordering: fence-push. What a callback wrote is seen by whoever learns under the lock (fence-lock) that it has returned.
 *
 * Not here: containers. Their nodes are internal ones (containers/container.c).
 */
#include "base/check.h"
#include "base/park.h"
#include "base/rcu.h"
#include "fence/core.h"

/* How many internal nodes run while the lock is held once. */
enum { INTERNAL_BATCH = 16 };

static lf_atomic_u32 sync_sequence; /* see D5 */

/* --- The list ------------------------------------------------------------------------------------------------------------ */

/* Pushes a prepared node. Returns -ENOENT when the fence is signaled. */
static int push(struct lf_fence *f, struct lf_fence_cb *cb)
{
	/* order: fence-signaled (acquire): a refusal makes result and timestamp visible */
	uintptr_t word = ptr_load(&f->callbacks, PLANT_ORDER(100, memory_order_relaxed, memory_order_acquire));
	unsigned rounds = 0;

	for (;;) {
		if (word & FENCE_SIGNALED)
			return -ENOENT;
		if ((word & FENCE_LOCK) && !PLANTED(6)) {
			port_relax(&rounds);
			/* order: fence-signaled (acquire): as above */
			word = ptr_load(&f->callbacks, PLANT_ORDER(100, memory_order_relaxed, memory_order_acquire));
			continue;
		}
		cb->next = word_list(word);
		/* order: fence-push (release): whoever takes the list sees the node's contents, and what its owner wrote before */
		/* order: fence-signaled (acquire): as above */
		if (ptr_cas(&f->callbacks, &word, (uintptr_t)cb, PLANT_ORDER(4, memory_order_acquire, memory_order_release),
			    PLANT_ORDER(100, memory_order_relaxed, memory_order_acquire)))
			return 0;
	}
}

/* Completes the back pointers of the nodes pushed since the last time; pushing sets forward pointers only. */
static void complete_back_pointers(struct lf_fence_cb *head)
{
	for (struct lf_fence_cb *cb = head; cb && cb->next && cb->next->prev != cb; cb = cb->next)
		cb->next->prev = cb;
}

/* Takes a queued node out of the list. The fence is locked. Returns the new word. */
static uintptr_t unlink_node(uintptr_t word, struct lf_fence_cb *cb)
{
	struct lf_fence_cb *head = word_list(word);

	if (!(word & FENCE_SIGNALED))
		complete_back_pointers(head);
	if (cb == head) {
		if (cb->next && !(word & FENCE_SIGNALED))
			cb->next->prev = NULL; /* the next push must not take it for completed */
		return (uintptr_t)cb->next | (word & FENCE_FLAGS);
	}
	if (cb->next)
		cb->next->prev = cb->prev;
	cb->prev->next = cb->next;
	return word;
}

/* Takes the first node. The fence is locked and signaled, the list not empty. What the node behind has as prev does not matter (F4). */
static uintptr_t claim(struct lf_fence *f, uintptr_t word)
{
	struct lf_fence_cb *cb = word_list(word);

	cb_set_state(cb, (uintptr_t)f | CB_RAN);
	return (uintptr_t)cb->next | FENCE_SIGNALED;
}

/* --- Dispatch ------------------------------------------------------------------------------------------------------------ */

/*
 * Takes the mark of those who sleep until a callback has returned, or all have. The fence is locked; returns whether to wake after
 * unlocking.
 */
static bool take_sync_waiters(struct lf_fence *f)
{
	uint32_t state = fence_state(f);

	if (likely(!(state & FENCE_SYNC_WAITER)) || PLANTED(15))
		return false;
	fence_set_state(f, state & ~FENCE_SYNC_WAITER);
	return true;
}

static void wake_sync_waiters(void)
{
	u32_fetch_add(&sync_sequence, 1, memory_order_relaxed); /* relaxed: who wakes looks under the fence's lock */
	park_wake(&sync_sequence);
}

/* The list is empty for good. The fence is locked, and may be gone when this returns. */
static void drained(struct lf_fence *f)
{
	bool wake = take_sync_waiters(f);
	bool dead = fence_state(f) & FENCE_DEAD;

	f->running = 0;
	if (dead)
		fence_set_state(f, fence_state(f) & ~FENCE_DEAD);
	fence_unlock(f, FENCE_SIGNALED | FENCE_DRAINED);
	if (unlikely(wake))
		wake_sync_waiters();
	if (dead)
		lf_fence_put(f);
}

/* Puts a reference that a node gave to the dispatcher (D6). The fence is locked; of several threads only the dispatcher's is here. */
static void put_for_node(struct lf_fence *f)
{
	uint32_t count = u32_load(&f->count, memory_order_relaxed); /* relaxed: the exchange below has the order */

	for (;;) {
		if (refcount_is_forever(count))
			return;
		if (count == 1 && !PLANTED(70)) {
			fence_set_state(f, fence_state(f) | FENCE_DEAD);
			return;
		}
		/* order: refcount (release): what this holder did comes before the end of the object */
		if (u32_cas(&f->count, &count, count - 1, PLANT_ORDER(106, memory_order_relaxed, memory_order_release), memory_order_relaxed))
			return;
	}
}

/*
 * Runs the internal nodes. The fence is locked with @word, and SIGNALED visible (a waiter that is counted down may look at once). Returns
 * with the lock held.
 */
static uintptr_t run_internal(struct lf_fence *f, uintptr_t word)
{
	struct fence_after after = { 0 };
	struct lf_fence_cb *cb;
	unsigned n = 0;

	while ((cb = word_list(word)) != NULL && (cb_state(cb) & CB_INTERNAL)) {
		fence_internal_fn fn = (fence_internal_fn)(void (*)(void))cb->func;

		word = claim(f, word);
		fn(f, cb, &after);
		if (after.put)
			put_for_node(f);
		after.put = false;
		if (!after.fn && ++n < INTERNAL_BATCH)
			continue;
		fence_unlock(f, word);
		if (after.fn)
			after.fn(after.arg);
		after.fn = NULL;
		n = 0;
		word = fence_lock(f);
	}
	return word;
}

/*
 * Runs the user's callbacks until none is left. The fence is locked with @word, and may be gone when this returns. One lock operation for
 * each callback: the one that ends a callback's turn begins the next one's.
 */
static void run_user(struct lf_fence *f, uintptr_t word, struct library_thread *t)
{
	struct lf_fence_cb *cb;

	fence_assert_valid(f, word);
	t->current = f;
	while ((cb = word_list(word)) != NULL) {
		lf_fence_cb_fn func = cb->func;
		bool wake = take_sync_waiters(f);

		word = claim(f, word);
		f->running = PLANTED(11) ? 0 : (uintptr_t)cb;
		fence_unlock(f, word);
		if (unlikely(wake))
			wake_sync_waiters();
		func(f, cb);
		if (library_poisoned())
			return; /* the callback forked, and this is the child: locks may be held by threads that it does not have */
		word = fence_lock_signaled(f);
	}
	t->current = NULL;
	drained(f);
}

static void append(struct lf_fence **head, struct lf_fence **tail, struct lf_fence *f)
{
	f->link = NULL;
	if (*tail)
		(*tail)->link = f;
	else
		*head = f;
	*tail = f;
}

static struct lf_fence *take(struct lf_fence **head, struct lf_fence **tail)
{
	struct lf_fence *f = *head;

	if (f) {
		*head = f->link;
		if (!*head)
			*tail = NULL;
	}
	return f;
}

/* The second phase of all that the thread has pending, and what that makes pending in turn. */
static void run_pending(struct library_thread *t)
{
	struct lf_fence *f;

	while (!library_poisoned() && (f = take(&t->pending_head, &t->pending_tail)) != NULL)
		run_user(f, fence_lock(f), t);
	t->dispatching = false;
}

/* Whether a fence has anything to do in its first phase. The fence is locked. */
static bool has_first_phase(const struct lf_fence *f, uintptr_t word)
{
	return (word_list(word) && (cb_state(word_list(word)) & CB_INTERNAL)) || fence_class(f);
}

/* The first phase of one fence. It is locked with @word, before and after. */
static uintptr_t tell(struct lf_fence *f, uintptr_t word)
{
	const struct fence_class *class = fence_class(f);

	/* The flag must be seen by whoever an internal node wakes, so it is stored now, under the lock that goes on. */
	fence_unlock(f, word | FENCE_LOCK);
	word = run_internal(f, word);
	if (class) {
		fence_unlock(f, word);
		class->settle(f);
		word = fence_lock(f);
	}
	return word;
}

/* The second phase of a fence comes later, if it has one. It is locked with @word, and may be gone when this returns. */
static void postpone(struct lf_fence *f, uintptr_t word, struct library_thread *t)
{
	if (!word_list(word)) {
		drained(f);
		return;
	}
	append(&t->pending_head, &t->pending_tail, f);
	fence_unlock(f, word);
}

/* The first phase of a fence, and of all that follows from it. The fence is locked with @word, and may be gone when this returns. */
static void tell_all(struct lf_fence *f, uintptr_t word, struct library_thread *t)
{
	t->telling = true;
	postpone(f, tell(f, word), t);
	while (!library_poisoned() && (f = take(&t->next_head, &t->next_tail)) != NULL)
		postpone(f, tell(f, fence_lock(f)), t);
	t->telling = false;
}

void fence_dispatch_locked(struct lf_fence *f, uintptr_t word)
{
	struct library_thread *t = this_thread();
	bool outermost = !t->dispatching;

	if (unlikely(t->telling)) {
		fence_dispatch_next(f);
		fence_unlock(f, word);
		return;
	}
	t->dispatching = true;
	if (has_first_phase(f, word))
		tell_all(f, word, t);
	else if (outermost)
		run_user(f, word, t);
	else
		postpone(f, word, t);
	if (outermost)
		run_pending(t);
}

void fence_dispatch_next(struct lf_fence *f)
{
	struct library_thread *t = this_thread();

	append(&t->next_head, &t->next_tail, f);
}

void fence_dispatch(struct lf_fence *f)
{
	fence_dispatch_locked(f, fence_lock(f));
}

bool fence_dispatch_begin(void)
{
	struct library_thread *t = this_thread();
	bool outermost = !t->dispatching;

	t->dispatching = true;
	return outermost;
}

void fence_dispatch_end(bool outermost)
{
	if (outermost)
		run_pending(this_thread());
}

/* --- Internal nodes ------------------------------------------------------------------------------------------------------ */

static void prepare(struct lf_fence *f, struct lf_fence_cb *cb, lf_fence_cb_fn func, uintptr_t flags)
{
	cb->prev = NULL;
	cb->func = func;
	cb_set_state(cb, (uintptr_t)f | CB_QUEUED | flags);
}

static void prepare_internal(struct lf_fence *f, struct lf_fence_cb *cb, fence_internal_fn fn)
{
	prepare(f, cb, (lf_fence_cb_fn)(void (*)(void))fn, CB_INTERNAL);
}

int fence_add_internal(struct lf_fence *f, struct lf_fence_cb *cb, fence_internal_fn fn)
{
	prepare_internal(f, cb, fn);
	return push(f, cb);
}

uintptr_t fence_subscribe_locked(struct lf_fence *f, uintptr_t word, struct lf_fence_cb *cb, fence_internal_fn fn)
{
	uint32_t state = fence_state(f);

	if (word & FENCE_SIGNALED)
		return word;
	if (!(state & FENCE_PUBLISHED))
		fence_set_state(f, state | FENCE_PUBLISHED);
	cb->next = word_list(word);
	prepare_internal(f, cb, fn);
	return (uintptr_t)cb;
}

int fence_subscribe(struct lf_fence *f, struct lf_fence_cb *cb, fence_internal_fn fn)
{
	uintptr_t word;

	if (fence_word(f) & FENCE_SIGNALED)
		return -ENOENT;
	word = fence_lock(f);
	fence_unlock(f, fence_subscribe_locked(f, word, cb, fn));
	return word & FENCE_SIGNALED ? -ENOENT : 0;
}

bool fence_remove_internal(struct lf_fence *f, struct lf_fence_cb *cb)
{
	uintptr_t word = fence_lock(f);
	bool queued = (cb_state(cb) & CB_STATE) == CB_QUEUED;

	if (queued) {
		word = unlink_node(word, cb);
		cb_set_state(cb, CB_REMOVED);
	}
	fence_unlock(f, word);
	return queued;
}

/* --- The user's callbacks ------------------------------------------------------------------------------------------------ */

int fence_add_user(struct lf_fence *f, struct lf_fence_cb *cb, lf_fence_cb_fn func)
{
	uintptr_t before = cb_state(cb);
	int ret;

	prepare(f, cb, func, 0);
	ret = push(f, cb);
	if (ret)
		cb_set_state(cb, before);
	return ret;
}

int lf_fence_add_callback(struct lf_fence *f, struct lf_fence_cb *cb, lf_fence_cb_fn func)
{
	if (unlikely(!f || !cb || !func))
		return misuse(-EINVAL, "lf_fence_add_callback: fence, node and function are all needed");
	if (!fence_check(f, __func__))
		return -EINVAL;
	if (library_poisoned())
		return -EOWNERDEAD;
	if (unlikely((cb_state(cb) & CB_STATE) == CB_QUEUED))
		return misuse(-EALREADY, "lf_fence_add_callback: node %p is on fence %p already", (void *)cb, (void *)cb_fence(cb));
	fence_enable(f);
	if (library_poisoned())
		return -EOWNERDEAD; /* the hook forked, and this is the child */
	return fence_add_user(f, cb, func);
}

/* Whether @cb was ever added to @f; reports when not. */
static int check_node(const struct lf_fence *f, const struct lf_fence_cb *cb, const char *function)
{
	if (unlikely(!f || !cb))
		return misuse(-EINVAL, "%s: fence and node are both needed", function);
	if (!fence_check(f, function))
		return -EINVAL;
	if (library_poisoned())
		return -EOWNERDEAD;
	if (unlikely(cb_fence(cb) != f))
		return misuse(-EINVAL, "%s: node %p is not, and was not last, on fence %p", function, (const void *)cb, (const void *)f);
	return 0;
}

/* What became of a node that was added to @f; takes it back if it waits. The fence is locked with *word. */
static enum lf_cb_result take_back(struct lf_fence *f, struct lf_fence_cb *cb, uintptr_t *word)
{
	switch (cb_state(cb) & CB_STATE) {
	case CB_QUEUED:
		*word = unlink_node(*word, cb);
		cb_set_state(cb, (uintptr_t)f | CB_REMOVED);
		return LF_CB_REMOVED;
	case CB_REMOVED:
		return LF_CB_REMOVED;
	default:
		/* Of a drained fence `running` may be the reclaimer's: a reader may ask about one that is dead. */
		return !(*word & FENCE_DRAINED) && f->running == (uintptr_t)cb ? LF_CB_RUNNING : LF_CB_RAN;
	}
}

int lf_fence_remove_callback(struct lf_fence *f, struct lf_fence_cb *cb)
{
	enum lf_cb_result result;
	int ret = check_node(f, cb, __func__);
	uintptr_t word;

	if (ret)
		return ret;
	word = fence_lock(f);
	result = take_back(f, cb, &word);
	fence_unlock(f, word);
	return (int)result;
}

bool fence_sleep_locked(struct lf_fence *f, uintptr_t word, int64_t deadline)
{
	uint32_t sequence = u32_load(&sync_sequence, memory_order_relaxed); /* relaxed: advanced by those who lock after us */

	fence_set_state(f, fence_state(f) | FENCE_SYNC_WAITER);
	fence_unlock(f, word);
	return park_wait(&sync_sequence, sequence, deadline);
}

/* --- Mutual waits, in debug builds ----------------------------------------------------------------------------------------- */

/* A callback is a node on a fence: the same node may run for another fence later. */
struct callback {
	const struct lf_fence *fence;
	const struct lf_fence_cb *cb;
};

static bool same_callback(struct callback a, struct callback b)
{
	return a.fence == b.fence && a.cb == b.cb;
}

/* The callback that this thread is inside; of NULLs when there is none. What runs for its fence is this thread's to change. */
static struct callback current_callback(void)
{
	const struct lf_fence *f = this_thread()->current;

	return (struct callback){ f, f ? (const struct lf_fence_cb *)f->running : NULL };
}

/* A thread inside callback @inside that waits for callback @target to return. On the thread's stack. */
struct sync_wait {
	struct callback inside, target;
	struct sync_wait *next;
};

static struct port_mutex sync_waits_mutex = PORT_MUTEX_INIT;
static struct sync_wait *sync_waits; /* protected by the mutex */

/* Who is it that waits inside this callback? */
static const struct sync_wait *waiting_inside(struct callback c) LF_REQUIRES(&sync_waits_mutex)
{
	const struct sync_wait *w = sync_waits;

	while (w && !same_callback(w->inside, c))
		w = w->next;
	return w;
}

/* Notes the wait, unless it would close a circle: then returns false. */
static bool sync_wait_begin(struct sync_wait *wait)
{
	const struct sync_wait *w;
	bool circle = false;

	if (!DEBUG_CHECKS || !wait->inside.cb)
		return true;
	port_mutex_lock(&sync_waits_mutex);
	for (w = waiting_inside(wait->target); w && !circle; w = waiting_inside(w->target))
		circle = same_callback(w->target, wait->inside);
	if (!circle) {
		wait->next = sync_waits;
		sync_waits = wait;
	}
	port_mutex_unlock(&sync_waits_mutex);
	return !circle;
}

static void sync_wait_end(const struct sync_wait *wait)
{
	struct sync_wait **link;

	if (!DEBUG_CHECKS || !wait->inside.cb)
		return;
	port_mutex_lock(&sync_waits_mutex);
	for (link = &sync_waits; *link != wait; link = &(*link)->next)
		;
	*link = wait->next;
	port_mutex_unlock(&sync_waits_mutex);
}

static void lock_sync_waits(void) LF_NO_THREAD_ANALYSIS
{
	port_mutex_lock(&sync_waits_mutex);
}

static void unlock_sync_waits(void) LF_NO_THREAD_ANALYSIS
{
	port_mutex_unlock(&sync_waits_mutex);
}

int fence_sleep_while_running(struct lf_fence *f, const struct lf_fence_cb *cb)
{
	struct sync_wait wait = { .inside = current_callback(), .target = { f, cb } };
	uintptr_t word;

	if (!sync_wait_begin(&wait))
		return misuse(-EDEADLK, "lf_fence_cancel_callback_sync: callbacks %p and %p wait for each other",
			(const void *)wait.inside.cb, (const void *)cb);
	while (word = fence_lock(f), f->running == (uintptr_t)cb)
		fence_sleep_locked(f, word, LF_DEADLINE_NEVER);
	fence_unlock(f, word);
	sync_wait_end(&wait);
	return LF_CB_RAN;
}

int lf_fence_cancel_callback_sync(struct lf_fence *f, struct lf_fence_cb *cb)
{
	int result;

	/* Refused whether or not it would have to wait, so that the mistake shows each time. */
	if (!library_poisoned() && unlikely(rcu_held()))
		return misuse(-EDEADLK, "lf_fence_cancel_callback_sync: waits, and was called inside a read section");
	result = lf_fence_remove_callback(f, cb);
	/* A fence has one callback running at a time: if it is on this thread, it is the one that asks. */
	if (result != LF_CB_RUNNING || this_thread()->current == f)
		return result;
	return fence_sleep_while_running(f, cb);
}

/* --- Fork ---------------------------------------------------------------------------------------------------------------- */

__attribute__((constructor)) static void register_layer(void)
{
	static struct library_layer layer = { .before_fork = lock_sync_waits, .after_fork = unlock_sync_waits };

	library_add_layer(&layer);
}
