/* SPDX-License-Identifier: MIT */
/*
 * The containers that one would write on fences with a mutex. Nothing is collected before the end, nothing nests, and there is no
 * result but "done": what they lack they do not pay for.
 */
#include "peers.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* --- Array --------------------------------------------------------------------------------------------------------------- */

struct cv_member {
	struct cv_cb cb;
	struct cv_fence *fence;
	struct cv_array *array;
};

struct cv_array {
	struct cv_fence *done;
	atomic_size_t missing;
	size_t count;
	struct cv_member members[];
};

static void count_down(struct cv_array *a)
{
	if (atomic_fetch_sub_explicit(&a->missing, 1, memory_order_acq_rel) == 1)
		cv_fence_signal(a->done, 0);
}

static void member_done(struct cv_fence *f, struct cv_cb *cb)
{
	(void)f;
	count_down(((struct cv_member *)(void *)cb)->array);
}

struct cv_array *cv_array_create(struct cv_fence *const *fences, size_t count)
{
	struct cv_array *a = malloc(sizeof(*a) + count * sizeof(*a->members));

	if (!a)
		return NULL;
	a->done = cv_fence_create();
	if (!a->done) {
		free(a);
		return NULL;
	}
	atomic_init(&a->missing, count);
	a->count = count;
	for (size_t i = 0; i < count; i++) {
		struct cv_member *m = &a->members[i];

		m->cb.func = NULL;
		m->fence = fences[i];
		m->array = a;
		if (cv_fence_add(m->fence, &m->cb, member_done) != 0)
			count_down(a);
	}
	return a;
}

void cv_array_destroy(struct cv_array *a)
{
	for (size_t i = 0; i < a->count; i++) {
		cv_fence_remove(a->members[i].fence, &a->members[i].cb); /* waits while it runs */
		cv_fence_put(a->members[i].fence);
	}
	cv_fence_put(a->done);
	free(a);
}

struct cv_fence *cv_array_fence(struct cv_array *a)
{
	return a->done;
}

static int compare_addresses(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t)*(struct cv_fence *const *)a, y = (uintptr_t)*(struct cv_fence *const *)b;

	return (x > y) - (x < y);
}

struct cv_array *cv_array_merge(struct cv_array *const *arrays, size_t count)
{
	size_t all = 0, kept = 0;
	struct cv_fence **fences;
	struct cv_array *merged;

	for (size_t i = 0; i < count; i++)
		all += arrays[i]->count;
	fences = malloc(all * sizeof(struct cv_fence *));
	if (!fences)
		return NULL;
	all = 0;
	for (size_t i = 0; i < count; i++) {
		for (size_t k = 0; k < arrays[i]->count; k++)
			fences[all++] = arrays[i]->members[k].fence;
	}
	qsort(fences, all, sizeof(struct cv_fence *), compare_addresses);
	for (size_t i = 0; i < all; i++) {
		if (kept == 0 || fences[i] != fences[kept - 1])
			fences[kept++] = cv_fence_get(fences[i]);
	}
	merged = cv_array_create(fences, kept);
	for (size_t i = 0; !merged && i < kept; i++)
		cv_fence_put(fences[i]);
	free(fences);
	return merged;
}

/* --- Chain --------------------------------------------------------------------------------------------------------------- */

struct cv_point {
	struct cv_cb cb;
	struct cv_chain *chain;
	struct cv_fence *fence;
	struct cv_fence *done;
	bool signaled; /* protected by the chain's lock */
};

struct cv_entry {
	uint64_t seqno;
	struct cv_point *point;
};

struct cv_chain {
	pthread_mutex_t lock;
	struct cv_entry *entries; /* by seqno */
	size_t count, room;
	size_t reached; /* so many points */
};

struct cv_chain *cv_chain_create(void)
{
	struct cv_chain *c = calloc(1, sizeof(*c));

	if (c)
		pthread_mutex_init(&c->lock, NULL);
	return c;
}

void cv_chain_cut(struct cv_chain *c, size_t count)
{
	while (c->count > count) {
		struct cv_point *p = c->entries[--c->count].point;

		cv_fence_remove(p->fence, &p->cb);
		cv_fence_put(p->fence);
		cv_fence_put(p->done);
		free(p);
	}
}

void cv_chain_destroy(struct cv_chain *c)
{
	cv_chain_cut(c, 0);
	pthread_mutex_destroy(&c->lock);
	free(c->entries);
	free(c);
}

/* Points are signaled in order, under the chain's lock, so that they are seen in order. */
static void point_done(struct cv_fence *f, struct cv_cb *cb)
{
	struct cv_point *p = (struct cv_point *)(void *)cb;
	struct cv_chain *c = p->chain;

	(void)f;
	pthread_mutex_lock(&c->lock);
	p->signaled = true;
	while (c->reached < c->count && c->entries[c->reached].point->signaled)
		cv_fence_signal(c->entries[c->reached++].point->done, 0);
	pthread_mutex_unlock(&c->lock);
}

static bool push(struct cv_chain *c, uint64_t seqno, struct cv_point *p)
{
	bool ok = true;

	pthread_mutex_lock(&c->lock);
	if (c->count == c->room) {
		size_t room = c->room ? c->room * 2 : 16;
		struct cv_entry *larger = realloc(c->entries, room * sizeof(*larger));

		ok = larger != NULL;
		if (ok) {
			c->entries = larger;
			c->room = room;
		}
	}
	if (ok)
		c->entries[c->count++] = (struct cv_entry){ seqno, p };
	pthread_mutex_unlock(&c->lock);
	return ok;
}

bool cv_chain_append(struct cv_chain *c, struct cv_fence *f, uint64_t seqno)
{
	struct cv_point *p = malloc(sizeof(*p));
	struct cv_fence *done = cv_fence_create();

	if (p && done) {
		*p = (struct cv_point){ .chain = c, .fence = f, .done = done };
		if (push(c, seqno, p)) {
			if (cv_fence_add(f, &p->cb, point_done) != 0)
				point_done(f, &p->cb);
			return true;
		}
	}
	if (done)
		cv_fence_put(done);
	free(p);
	return false;
}

struct cv_fence *cv_chain_find(struct cv_chain *c, uint64_t seqno)
{
	struct cv_fence *found = NULL;
	size_t low = 0, high;

	pthread_mutex_lock(&c->lock);
	high = c->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (c->entries[middle].seqno < seqno)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < c->count)
		found = cv_fence_get(c->entries[low].point->done);
	pthread_mutex_unlock(&c->lock);
	return found;
}
