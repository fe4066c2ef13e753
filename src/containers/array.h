/* SPDX-License-Identifier: MIT */
/* Making arrays of what has completed in part. */
#ifndef LF_CONTAINERS_ARRAY_H
#define LF_CONTAINERS_ARRAY_H

#include <libfence/array.h>

#include "containers/container.h"

/*
 * Like lf_array_commit() with arguments that were checked. The array begins with a result: @error and @time of what completed before and is
 * not among its members (0 and INT64_MIN for none).
 */
struct lf_fence *array_make(struct lf_array_room *room, struct lf_fence *const *fences, uint32_t count, unsigned flags, int error,
	int64_t time);

/* Whether a fence is an array that one member signals. */
static inline bool is_any_array(const struct lf_fence *f)
{
	return fence_kind(f) == FENCE_ARRAY && to_container(f)->any;
}

#endif /* LF_CONTAINERS_ARRAY_H */
