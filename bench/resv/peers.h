/* SPDX-License-Identifier: MIT */
/*
 * What libfence's reservations are compared with: what one would write on the fences with a mutex (../fence/peer_condvar.c). Linked like
 * the fences' peers. The structure is here so that a walk over it is inlined, as libfence's is.
 */
#ifndef BENCH_RESV_PEERS_H
#define BENCH_RESV_PEERS_H

#include <pthread.h>
#include <stddef.h>

#include "../fence/peers.h"

struct cv_resv_entry {
	struct cv_fence *fence;
	uint64_t context;
};

struct cv_resv {
	pthread_mutex_t lock;
	struct cv_resv_entry *entries; /* under the lock */
	size_t count, room;
};

PEER_API struct cv_resv *cv_resv_create(void);
PEER_API void cv_resv_destroy(struct cv_resv *r);
/* Takes a reference; one of the same context goes. Under the lock. */
PEER_API bool cv_resv_add(struct cv_resv *r, struct cv_fence *f, uint64_t context);
/* Whether all are signaled. Takes the lock. */
PEER_API bool cv_resv_test(struct cv_resv *r);

#endif
