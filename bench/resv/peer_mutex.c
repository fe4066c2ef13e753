/* SPDX-License-Identifier: MIT */
/* The reservation that one would write: an array of fences under a mutex. No usages, no order of locks; who looks must lock. */
#include "peers.h"

#include <stdlib.h>

struct cv_resv *cv_resv_create(void)
{
	struct cv_resv *r = calloc(1, sizeof(*r));

	if (r)
		pthread_mutex_init(&r->lock, NULL);
	return r;
}

void cv_resv_destroy(struct cv_resv *r)
{
	for (size_t i = 0; i < r->count; i++)
		cv_fence_put(r->entries[i].fence);
	pthread_mutex_destroy(&r->lock);
	free(r->entries);
	free(r);
}

static bool grow(struct cv_resv *r)
{
	size_t room = r->room ? r->room * 2 : 4;
	struct cv_resv_entry *larger = realloc(r->entries, room * sizeof(*larger));

	if (!larger)
		return false;
	r->entries = larger;
	r->room = room;
	return true;
}

bool cv_resv_add(struct cv_resv *r, struct cv_fence *f, uint64_t context)
{
	for (size_t i = 0; i < r->count; i++) {
		struct cv_fence *old = r->entries[i].fence;

		if (r->entries[i].context == context) {
			r->entries[i].fence = cv_fence_get(f);
			cv_fence_put(old);
			return true;
		}
	}
	if (r->count == r->room && !grow(r))
		return false;
	r->entries[r->count++] = (struct cv_resv_entry){ cv_fence_get(f), context };
	return true;
}

bool cv_resv_test(struct cv_resv *r)
{
	bool done = true;

	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; done && i < r->count; i++)
		done = cv_fence_is_signaled(r->entries[i].fence);
	pthread_mutex_unlock(&r->lock);
	return done;
}
