/* SPDX-License-Identifier: MIT */
/* What the tests of containers share: short ways to make fences, arrays and links, and to look at leaves. Calls that must not fail don't. */
#ifndef CONTAINERS_H
#define CONTAINERS_H

#include "../../lib/producer.h"

/* --- Making: what is given to a container is consumed, so that which stays the test's is given as GET(f) -------------- */

#define GET(f) lf_fence_get(f)

#define FENCES(...)   ((struct lf_fence *[]){ __VA_ARGS__ })
#define COUNT_OF(...) (sizeof(FENCES(__VA_ARGS__)) / sizeof(struct lf_fence *))
#define ALL(...)      make_array(LF_ARRAY_ALL, FENCES(__VA_ARGS__), COUNT_OF(__VA_ARGS__))
#define ANY(...)      make_array(LF_ARRAY_ANY, FENCES(__VA_ARGS__), COUNT_OF(__VA_ARGS__))
#define MERGE(...)    make_merged(FENCES(__VA_ARGS__), COUNT_OF(__VA_ARGS__))

static inline struct lf_fence *plain(void)
{
	struct lf_fence *f = NULL;

	assert_int_equal(lf_fence_create(&f), 0);
	return f;
}

static inline struct lf_fence *signaled(int error, int64_t timestamp)
{
	struct lf_fence *f = NULL;

	assert_int_equal(lf_fence_create_signaled(error, timestamp, &f), 0);
	return f;
}

static inline struct lf_fence *make_array(unsigned flags, struct lf_fence *const *fences, size_t count)
{
	struct lf_fence *f = NULL;

	assert_int_equal(lf_array_create(fences, count, flags, &f), 0);
	assert_non_null(f);
	return f;
}

static inline struct lf_fence *append_flags(struct lf_fence *prev, struct lf_fence *fence, uint64_t seqno, unsigned flags)
{
	struct lf_fence *link = NULL;

	assert_int_equal(lf_chain_append(prev, fence, seqno, flags, &link), 0);
	assert_non_null(link);
	return link;
}

static inline struct lf_fence *append(struct lf_fence *prev, struct lf_fence *fence, uint64_t seqno)
{
	return append_flags(prev, fence, seqno, 0);
}

static inline struct lf_fence *join(struct lf_fence *prev, struct lf_fence *fence, uint64_t seqno)
{
	return append_flags(prev, fence, seqno, LF_CHAIN_JOIN);
}

static inline struct lf_fence *make_merged(struct lf_fence *const *fences, size_t count)
{
	struct lf_fence *f = NULL;

	assert_int_equal(lf_fence_merge(fences, count, &f), 0);
	assert_non_null(f);
	return f;
}

static inline struct lf_fence *flatten(struct lf_fence *f)
{
	struct lf_fence *flat = NULL;

	assert_int_equal(lf_fence_flatten(f, &flat), 0);
	assert_non_null(flat);
	return flat;
}

/* --- Signalling and looking ------------------------------------------------------------------------------------------- */

static inline void done(struct lf_fence *f, int error)
{
	assert_true(lf_fence_signal(f, error));
}

static inline void done_at(struct lf_fence *f, int error, int64_t timestamp)
{
	assert_true(lf_fence_signal_at(f, error, timestamp));
}

/* Signals, and gives the reference back. */
static inline void done_put(struct lf_fence *f, int error)
{
	assert_true(lf_fence_signal(f, error));
	lf_fence_put(f);
}

static inline void expect_pending(const struct lf_fence *f)
{
	assert_false(lf_fence_is_signaled(f));
	assert_int_equal(lf_fence_status(f), 0);
	assert_true(lf_fence_timestamp(f) == INT64_MIN);
	assert_false(lf_fence_is_drained(f));
}

static inline void expect_signaled(const struct lf_fence *f, int status, int64_t timestamp)
{
	assert_true(lf_fence_is_signaled(f));
	assert_int_equal(lf_fence_status(f), status);
	assert_true(lf_fence_timestamp(f) == timestamp);
}

/* Blocks that live when all that was deferred is gone. */
static inline long live(void)
{
	assert_int_equal(lf_reclaim_barrier(), 0);
	return alloc_live();
}

/* --- Leaves ----------------------------------------------------------------------------------------------------------- */

/* That a walk yields these leaves in this order. */
static inline void expect_walk(struct lf_fence *f, unsigned flags, struct lf_fence *const *expected, size_t count)
{
	struct lf_unwrap walk;

	assert_int_equal(lf_unwrap_begin(&walk, f, flags), 0);
	assert_int_equal(walk.count, count);
	for (size_t i = 0; i < count; i++)
		assert_ptr_equal(lf_unwrap_next(&walk), expected[i]);
	assert_null(lf_unwrap_next(&walk));
	assert_null(lf_unwrap_next(&walk));
	lf_unwrap_end(&walk);
	lf_unwrap_end(&walk);
}

#define LEAVES(f, ...)     expect_walk(f, 0, FENCES(__VA_ARGS__), COUNT_OF(__VA_ARGS__))
#define LEAVES_ANY(f, ...) expect_walk(f, LF_UNWRAP_KEEP_ANY, FENCES(__VA_ARGS__), COUNT_OF(__VA_ARGS__))
#define NO_LEAVES(f)       expect_walk(f, 0, NULL, 0)

/* That a walk that keeps *any* arrays yields these leaves in whatever order. */
static inline void expect_set(struct lf_fence *f, struct lf_fence *const *expected, size_t count)
{
	struct lf_unwrap walk;

	assert_int_equal(lf_unwrap_begin(&walk, f, LF_UNWRAP_KEEP_ANY), 0);
	assert_int_equal(walk.count, count);
	for (struct lf_fence *leaf = lf_unwrap_next(&walk); leaf; leaf = lf_unwrap_next(&walk)) {
		size_t i = 0;

		while (i < count && expected[i] != leaf)
			i++;
		assert_true(i < count);
	}
	lf_unwrap_end(&walk);
}

#define SET(f, ...) expect_set(f, FENCES(__VA_ARGS__), COUNT_OF(__VA_ARGS__))

#endif /* CONTAINERS_H */
