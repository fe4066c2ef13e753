/* SPDX-License-Identifier: MIT */
/*
 * The reclaimer: what must wait for a grace period, waits here. Public side in <libfence/reclaim.h>.
 *
 * Overview and invariants in reclaim.c.
 */
#ifndef LF_BASE_RECLAIM_H
#define LF_BASE_RECLAIM_H

#include <libfence/reclaim.h>

#include "base/port.h"

/* Above so many pending frees a thread is throttled when it makes something. */
enum { RECLAIM_LIMIT = 16384 };

/*
 * Gives @block to mem_free() after a grace period. @node lies in it; of it only the first two words are used, so there need not be room
 * for more. Any context, never fails.
 */
void reclaim_free(struct lf_deferred *node, void *block);

/* The same of several: linked by next, the last one's being NULL, with `what` being the block of each. */
void reclaim_free_list(struct lf_deferred *head, struct lf_deferred *tail, size_t count);

/*
 * Stands in the calls that make, over and over, what is freed through here: frees what this thread deferred and whose grace period has
 * passed, and sleeps when too much is pending, unless the thread may not wait.
 */
void reclaim_throttle(void);

/* Runs and frees everything, stops the reclaimer. Nobody else uses the library. */
void reclaim_fini(void);

void reclaim_pause(void);
void reclaim_before_fork(void);
void reclaim_after_fork_parent(void);
void reclaim_after_fork_child(void);

#endif /* LF_BASE_RECLAIM_H */
