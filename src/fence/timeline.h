/* SPDX-License-Identifier: MIT */
/*
 * What other files and layers need of timelines: names by context id, and emitting in two steps.
 */
#ifndef LF_FENCE_TIMELINE_H
#define LF_FENCE_TIMELINE_H

#include <libfence/timeline.h>

/*
 * Writes the name of the timeline with a context id, like snprintf(); "signaled-timeline" when it is gone. A fence holds the id only, so
 * that it needs nothing of its timeline.
 */
int registry_name(uint64_t context, char *buf, size_t size);

/* A context id that no other has, for what is ordered in itself. */
uint64_t timeline_new_context(void);

/*
 * Makes room for one fence, so that emitting it cannot fail. Returns 0, -ENOMEM, -EOVERFLOW or -ESHUTDOWN. Each success is followed by
 * timeline_emit_reserved() or timeline_unreserve().
 */
int timeline_reserve(struct lf_timeline *tl);
void timeline_unreserve(struct lf_timeline *tl);

/*
 * Emits a fence that lf_timeline_emit_fence() would take, with the next seqno, which it returns. Allocates nothing and calls nobody, so a
 * lock may be held that orders several emissions. On a timeline that is lost or closed the fence stays pending until timeline_settle().
 */
uint64_t timeline_emit_reserved(struct lf_timeline *tl, struct lf_fence *f);

/* Completes what was emitted behind a loss or a close. Callbacks run here. */
void timeline_settle(struct lf_timeline *tl);

#endif /* LF_FENCE_TIMELINE_H */
