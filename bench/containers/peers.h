/* SPDX-License-Identifier: MIT */
/*
 * What libfence's containers are compared with: what one would write on the fences with a mutex (../fence/peer_condvar.c). Linked like the
 * fences' peers.
 */
#ifndef BENCH_CONTAINERS_PEERS_H
#define BENCH_CONTAINERS_PEERS_H

#include <stddef.h>

#include "../fence/peers.h"

/* --- A counter, and a callback on each member. ---------------------------------------------------------------------------- */

struct cv_array;
/* Consumes the references, when it does not return NULL. */
PEER_API struct cv_array *cv_array_create(struct cv_fence *const *fences, size_t count);
PEER_API void cv_array_destroy(struct cv_array *a);
/* What is signaled when all members are; the array's. */
PEER_API struct cv_fence *cv_array_fence(struct cv_array *a);
/* An array of what is in several: each member once. */
PEER_API struct cv_array *cv_array_merge(struct cv_array *const *arrays, size_t count);

/* --- Points in a vector under a mutex, found by bisection. ---------------------------------------------------------------- */

struct cv_chain;
PEER_API struct cv_chain *cv_chain_create(void);
PEER_API void cv_chain_destroy(struct cv_chain *c);
/* Consumes the reference. */
PEER_API bool cv_chain_append(struct cv_chain *c, struct cv_fence *f, uint64_t seqno);
/* Takes the last points away until @count are left. */
PEER_API void cv_chain_cut(struct cv_chain *c, size_t count);
/* A new reference on what is signaled when the first point at or above @seqno is reached; NULL when there is none. */
PEER_API struct cv_fence *cv_chain_find(struct cv_chain *c, uint64_t seqno);

#endif
