/* SPDX-License-Identifier: MIT */
/*
 * The fence that one would write: a mutex, a condition variable, a count, a list of callbacks.
 *
 * Callbacks run with the mutex held, like the kernel's: that makes remove simple and right, and is the fastest way to run many.
 * Looking needs no lock. No timestamp, no error kept apart, no order: what it lacks it does not pay for.
 */
#include "peers.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct cv_fence {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	atomic_uint count;
	atomic_int status; /* 0 pending, 1 done, negative failed; written under the lock */
	struct cv_cb *first, *last; /* under the lock */
};

struct cv_fence *cv_fence_create(void)
{
	struct cv_fence *f = malloc(sizeof(*f));

	if (!f)
		return NULL;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->cond, NULL);
	atomic_init(&f->count, 1);
	atomic_init(&f->status, 0);
	f->first = f->last = NULL;
	return f;
}

struct cv_fence *cv_fence_get(struct cv_fence *f)
{
	atomic_fetch_add_explicit(&f->count, 1, memory_order_relaxed); /* relaxed: the caller holds a reference */
	return f;
}

void cv_fence_put(struct cv_fence *f)
{
	if (atomic_fetch_sub_explicit(&f->count, 1, memory_order_acq_rel) != 1)
		return;
	pthread_cond_destroy(&f->cond);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static void unlink_cb(struct cv_fence *f, struct cv_cb *cb)
{
	if (cb->prev)
		cb->prev->next = cb->next;
	else
		f->first = cb->next;
	if (cb->next)
		cb->next->prev = cb->prev;
	else
		f->last = cb->prev;
	cb->func = NULL;
}

bool cv_fence_signal(struct cv_fence *f, int error)
{
	struct cv_cb *cb;

	pthread_mutex_lock(&f->lock);
	if (atomic_load_explicit(&f->status, memory_order_relaxed)) { /* relaxed: written under the lock */
		pthread_mutex_unlock(&f->lock);
		return false;
	}
	atomic_store_explicit(&f->status, error ? error : 1, memory_order_release);
	pthread_cond_broadcast(&f->cond);
	while ((cb = f->first) != NULL) {
		void (*func)(struct cv_fence *, struct cv_cb *) = cb->func;

		unlink_cb(f, cb);
		func(f, cb);
	}
	pthread_mutex_unlock(&f->lock);
	return true;
}

bool cv_fence_is_signaled(const struct cv_fence *f)
{
	return atomic_load_explicit(&f->status, memory_order_acquire) != 0;
}

int cv_fence_wait(struct cv_fence *f)
{
	if (cv_fence_is_signaled(f))
		return 0;
	pthread_mutex_lock(&f->lock);
	while (!atomic_load_explicit(&f->status, memory_order_relaxed)) /* relaxed: written under the lock */
		pthread_cond_wait(&f->cond, &f->lock);
	pthread_mutex_unlock(&f->lock);
	return 0;
}

int cv_fence_add(struct cv_fence *f, struct cv_cb *cb, void (*func)(struct cv_fence *f, struct cv_cb *cb))
{
	if (cv_fence_is_signaled(f))
		return -ENOENT;
	pthread_mutex_lock(&f->lock);
	if (atomic_load_explicit(&f->status, memory_order_relaxed)) { /* relaxed: written under the lock */
		pthread_mutex_unlock(&f->lock);
		return -ENOENT;
	}
	cb->func = func;
	cb->next = NULL;
	cb->prev = f->last;
	if (f->last)
		f->last->next = cb;
	else
		f->first = cb;
	f->last = cb;
	pthread_mutex_unlock(&f->lock);
	return 0;
}

bool cv_fence_remove(struct cv_fence *f, struct cv_cb *cb)
{
	bool listed;

	pthread_mutex_lock(&f->lock);
	listed = cb->func != NULL;
	if (listed)
		unlink_cb(f, cb);
	pthread_mutex_unlock(&f->lock);
	return listed;
}

/* --- A pointer under a mutex -------------------------------------------------------------------------------------------- */

struct cv_slot {
	pthread_mutex_t lock;
	struct cv_fence *fence;
};

struct cv_slot *cv_slot_create(struct cv_fence *f)
{
	struct cv_slot *slot = malloc(sizeof(*slot));

	if (!slot)
		return NULL;
	pthread_mutex_init(&slot->lock, NULL);
	slot->fence = cv_fence_get(f);
	return slot;
}

void cv_slot_destroy(struct cv_slot *slot)
{
	cv_fence_put(slot->fence);
	pthread_mutex_destroy(&slot->lock);
	free(slot);
}

struct cv_fence *cv_slot_get(struct cv_slot *slot)
{
	struct cv_fence *f;

	pthread_mutex_lock(&slot->lock);
	f = cv_fence_get(slot->fence);
	pthread_mutex_unlock(&slot->lock);
	return f;
}

void cv_slot_set(struct cv_slot *slot, struct cv_fence *f)
{
	struct cv_fence *old;

	cv_fence_get(f);
	pthread_mutex_lock(&slot->lock);
	old = slot->fence;
	slot->fence = f;
	pthread_mutex_unlock(&slot->lock);
	cv_fence_put(old);
}

bool cv_slot_is_signaled(struct cv_slot *slot)
{
	bool signaled;

	pthread_mutex_lock(&slot->lock);
	signaled = cv_fence_is_signaled(slot->fence);
	pthread_mutex_unlock(&slot->lock);
	return signaled;
}
