/* SPDX-License-Identifier: MIT */
/*
 * What libfence's fences are compared with: what one would write, or pick, instead. All of it in translation units of its own and
 * linked like libfence itself (shared with shared, static with static), so that a call costs everybody a call.
 */
#ifndef BENCH_FENCE_PEERS_H
#define BENCH_FENCE_PEERS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PEER_API __attribute__((visibility("default")))

/* --- A mutex, a condition variable and a list of callbacks (peer_condvar.c). ------------------------------------------- */

struct cv_fence;
struct cv_cb {
	struct cv_cb *next, *prev;
	void (*func)(struct cv_fence *f, struct cv_cb *cb);
};

PEER_API struct cv_fence *cv_fence_create(void);
PEER_API struct cv_fence *cv_fence_get(struct cv_fence *f);
PEER_API void cv_fence_put(struct cv_fence *f);
PEER_API bool cv_fence_signal(struct cv_fence *f, int error);
PEER_API bool cv_fence_is_signaled(const struct cv_fence *f);
PEER_API int cv_fence_wait(struct cv_fence *f);
/* 0, or -ENOENT when it is signaled already. */
PEER_API int cv_fence_add(struct cv_fence *f, struct cv_cb *cb, void (*func)(struct cv_fence *f, struct cv_cb *cb));
/* Whether it was taken back. */
PEER_API bool cv_fence_remove(struct cv_fence *f, struct cv_cb *cb);

/* A pointer to one that may be replaced: under a mutex. */
struct cv_slot;
PEER_API struct cv_slot *cv_slot_create(struct cv_fence *f);
PEER_API void cv_slot_destroy(struct cv_slot *slot);
PEER_API struct cv_fence *cv_slot_get(struct cv_slot *slot);
PEER_API void cv_slot_set(struct cv_slot *slot, struct cv_fence *f);
PEER_API bool cv_slot_is_signaled(struct cv_slot *slot);

/* --- A futex word and a count, no callbacks (peer_futex.c). ------------------------------------------------------------- */

struct fx_fence;
PEER_API struct fx_fence *fx_fence_create(void);
PEER_API void fx_fence_put(struct fx_fence *f);
PEER_API bool fx_fence_signal(struct fx_fence *f, int error);
PEER_API bool fx_fence_is_signaled(const struct fx_fence *f);
PEER_API int fx_fence_wait(struct fx_fence *f);

/* --- std::promise and std::shared_future (peer_future.cpp). ------------------------------------------------------------- */

struct sf_fence;
PEER_API struct sf_fence *sf_fence_create(void);
PEER_API void sf_fence_put(struct sf_fence *f);
PEER_API bool sf_fence_signal(struct sf_fence *f, int error);
PEER_API bool sf_fence_is_signaled(const struct sf_fence *f);
PEER_API int sf_fence_wait(struct sf_fence *f);

#ifdef __cplusplus
}
#endif

#endif
