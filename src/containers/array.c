/* SPDX-License-Identifier: MIT */
/*
 * Arrays: a container that users fill with what they like.
 *
 * Invariant AR1: members are put in one after the other, and some may be signaled meanwhile. An *all* array cannot have enough before the
 * last one is in; an *any* array could, so it is `making` until then. (An array of nothing has enough when that is said.)
 *
 * Everything else is in container.c.
 */
#include <libfence/array.h>

#include "base/alloc.h"
#include "base/reclaim.h"
#include "containers/array.h"

/* Room is a container whose count is how many members fit. */
struct lf_array_room {
	struct container c;
};

static const struct fence_class array_class = {
	.name = "array",
	.enable = container_enable,
	.for_each_leaf = container_for_each_leaf,
	.settle = container_settle,
	.end = container_end,
};

__attribute__((constructor)) static void register_class(void)
{
	fence_classes[FENCE_ARRAY] = &array_class;
}

/* --- Making -------------------------------------------------------------------------------------------------------------- */

int lf_array_prepare(size_t count, struct lf_array_room **ret_room)
{
	struct lf_array_room *room;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!ret_room)
		return misuse(-EINVAL, "lf_array_prepare: nowhere to put the room");
	if (count > UINT32_MAX)
		return misuse(-EINVAL, "lf_array_prepare: %zu members are too many", count);
	reclaim_throttle();
	room = mem_alloc_array(sizeof(*room), count, sizeof(struct member));
	if (!room)
		return -ENOMEM;
	room->c.count = (uint32_t)count;
	*ret_room = room;
	return 0;
}

void lf_array_cancel(struct lf_array_room *room)
{
	mem_free(room);
}

struct lf_fence *array_make(struct lf_array_room *room, struct lf_fence *const *fences, uint32_t count, unsigned flags, int error, int64_t time)
{
	struct container *c = &room->c;

	container_init(c, FENCE_ARRAY, 0, 0, count);
	c->error = error;
	c->time = time;
	if (flags & LF_ARRAY_ANY) {
		c->any = true;
		c->enough = count - 1;
	}
	c->making = c->any || count == 0;
	for (uint32_t i = 0; i < count; i++)
		container_put_in(c, i, fences[i]);
	if (c->any || count == 0)
		container_made(c);
	return &c->fence;
}

/* Whether a user's arguments make an array; reports when not. */
static bool check_arguments(struct lf_fence *const *fences, size_t count, unsigned flags, const char *function)
{
	if (flags & ~(unsigned)LF_ARRAY_ANY) {
		misuse(0, "%s: unknown flags %#x", function, flags);
		return false;
	}
	if ((count && !fences) || (!count && (flags & LF_ARRAY_ANY))) {
		misuse(0, "%s: there are no members", function);
		return false;
	}
	for (size_t i = 0; i < count; i++) {
		if (!fences[i])
			misuse(0, "%s: member %zu is NULL", function, i);
		if (!fences[i] || !fence_check(fences[i], function))
			return false;
		container_validate(fences[i], function);
	}
	return true;
}

struct lf_fence *lf_array_commit(struct lf_array_room *room, struct lf_fence *const *fences, size_t count, unsigned flags)
{
	if (!room || count > room->c.count) {
		misuse(0, "lf_array_commit: there is no room for %zu members", count);
		return NULL;
	}
	if (library_poisoned() || !check_arguments(fences, count, flags, __func__))
		return NULL;
	return array_make(room, fences, (uint32_t)count, flags, 0, count ? INT64_MIN : 0);
}

int lf_array_create(struct lf_fence *const *fences, size_t count, unsigned flags, struct lf_fence **ret_array)
{
	struct lf_array_room *room;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!ret_array)
		return misuse(-EINVAL, "lf_array_create: nowhere to put the array");
	if (!check_arguments(fences, count, flags, __func__))
		return -EINVAL;
	ret = lf_array_prepare(count, &room);
	if (ret)
		return ret;
	*ret_array = array_make(room, fences, (uint32_t)count, flags, 0, count ? INT64_MIN : 0);
	return 0;
}

bool lf_fence_is_array(const struct lf_fence *f)
{
	return fence_check(f, __func__) && fence_kind(f) == FENCE_ARRAY;
}
