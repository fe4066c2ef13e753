/* SPDX-License-Identifier: MIT */
/*
 * A producer for tests: a timeline whose hooks count their calls, note what the contract forbids, and do what the test tells them to.
 *
 * Assertions of cmocka must not leave a hook or another thread, so hooks only take notes; the test looks at them afterwards.
 */
#ifndef PRODUCER_H
#define PRODUCER_H

#include "testing.h"

/* Counters that several threads touch. */
static inline void count_up(unsigned *count)
{
	__atomic_fetch_add(count, 1, __ATOMIC_SEQ_CST);
}

static inline void count_down(unsigned *count)
{
	__atomic_fetch_sub(count, 1, __ATOMIC_SEQ_CST);
}

static inline unsigned count_get(const unsigned *count)
{
	return __atomic_load_n(count, __ATOMIC_SEQ_CST);
}

enum hook { HOOK_ENABLE, HOOK_POLL, HOOK_DEADLINE, HOOK_DETACH, HOOK_RELEASE };

struct producer {
	struct lf_timeline *tl; /* the test's reference */
	unsigned enables, polls, hints, detaches, releases; /* how often each hook was called */
	unsigned inside; /* hooks other than detach and release that run now */
	unsigned detached_inside; /* detach ran while another hook of the producer did; wrong where it has a single fence */
	unsigned wrong; /* in a read section, detach of a pending fence, something after release */
	unsigned late; /* a hook was entered with a fence that was signaled already; only wrong where nobody else signals */
	int enable_result, poll_result; /* what the hooks answer */
	int64_t hint; /* the last one */
	void (*during)(struct producer *p, struct lf_fence *f, enum hook hook); /* called inside every hook; @f is NULL for release */
	void *user; /* the test's */
};

static inline void producer_note(struct producer *p, struct lf_fence *f, enum hook hook)
{
	if (lf_read_held() || count_get(&p->releases) != 0)
		count_up(&p->wrong);
	if (hook == HOOK_DETACH && (!lf_fence_is_signaled(f) || lf_fence_status(f) == 0))
		count_up(&p->wrong);
	if (hook == HOOK_DETACH && count_get(&p->inside) != 0)
		count_up(&p->detached_inside);
	if (hook < HOOK_DETACH && lf_fence_is_signaled(f))
		count_up(&p->late);
}

static inline void producer_during(struct producer *p, struct lf_fence *f, enum hook hook)
{
	if (p->during)
		p->during(p, f, hook);
}

static inline int producer_enable(struct lf_fence *f, void *data)
{
	struct producer *p = data;

	producer_note(p, f, HOOK_ENABLE);
	count_up(&p->enables);
	count_up(&p->inside);
	producer_during(p, f, HOOK_ENABLE);
	count_down(&p->inside);
	return p->enable_result;
}

static inline int producer_poll(struct lf_fence *f, void *data)
{
	struct producer *p = data;

	producer_note(p, f, HOOK_POLL);
	count_up(&p->polls);
	count_up(&p->inside);
	producer_during(p, f, HOOK_POLL);
	count_down(&p->inside);
	return p->poll_result;
}

static inline void producer_deadline(struct lf_fence *f, int64_t deadline, void *data)
{
	struct producer *p = data;

	producer_note(p, f, HOOK_DEADLINE);
	count_up(&p->hints);
	count_up(&p->inside);
	p->hint = deadline;
	producer_during(p, f, HOOK_DEADLINE);
	count_down(&p->inside);
}

static inline void producer_detach(struct lf_fence *f, void *data)
{
	struct producer *p = data;

	producer_note(p, f, HOOK_DETACH);
	count_up(&p->detaches);
	producer_during(p, f, HOOK_DETACH);
}

static inline void producer_release(void *data)
{
	struct producer *p = data;

	if (lf_read_held())
		count_up(&p->wrong);
	count_up(&p->releases);
	producer_during(p, NULL, HOOK_RELEASE);
}

static const struct lf_fence_ops producer_ops = {
	.enable = producer_enable, .poll = producer_poll, .set_deadline = producer_deadline, .detach = producer_detach
};

/* Makes the timeline of a zeroed producer; -ENOMEM and its kin come back. */
static inline int producer_create(struct producer *p, const char *name, unsigned flags, struct lf_provider *provider)
{
	const struct lf_timeline_desc desc = {
		.name = name, .flags = flags, .ops = &producer_ops, .data = p, .release = producer_release, .provider = provider
	};

	return lf_timeline_create(&desc, &p->tl);
}

static inline void producer_init(struct producer *p, unsigned flags)
{
	memset(p, 0, sizeof(*p));
	assert_int_equal(producer_create(p, "tl", flags, NULL), 0);
}

/* Drops the timeline and checks that all that was promised about hooks was kept. */
static inline void producer_fini(struct producer *p, unsigned emitted)
{
	lf_timeline_put(p->tl);
	p->tl = NULL;
	assert_int_equal(count_get(&p->detaches), emitted);
	assert_int_equal(count_get(&p->releases), 1);
	assert_int_equal(count_get(&p->wrong), 0);
}

/* Emits one fence that must not fail. */
static inline struct lf_fence *emit(struct lf_timeline *tl)
{
	struct lf_fence *f = NULL;

	assert_int_equal(lf_timeline_emit(tl, 0, &f), 0);
	assert_non_null(f);
	return f;
}

/* That a test provoked so many reports of misuse, and no other. */
static inline void expect_misuse(unsigned count)
{
	assert_int_equal(log_count(LF_LOG_MISUSE), count);
	log_reset();
}

static inline void defer_own_free(struct lf_deferred *node)
{
	lf_defer_free(node, node);
}

/* The reclaimer sets itself up when a deferred call defers for the first time; like all that the library keeps, that is no leak. */
static inline void warm_reclaimer(void)
{
	struct lf_deferred *node = lf_alloc(sizeof(*node));

	assert_non_null(node);
	lf_defer_call(node, defer_own_free);
	assert_int_equal(lf_reclaim_barrier(), 0);
}

/*
 * For tests that call lf_fini(): it frees what the library keeps for itself, so that the live blocks before and after could not be compared.
 * Such a test starts and ends with a library that has just been set up.
 */
static inline void fresh_library(void)
{
	struct lf_fence *f;

	assert_int_equal(lf_fini(), 0);
	alloc_install();
	assert_int_equal(lf_fence_create(&f), 0);
	lf_fence_publish(f);
	assert_true(lf_fence_signal(f, 0));
	lf_fence_put(f);
	warm_reclaimer();
}

static inline int fresh_setup(void **state)
{
	log_capture();
	fresh_library();
	return test_setup(state);
}

/* Like test_setup(), for tests in which deferred calls defer. */
static inline int warm_setup(void **state)
{
	warm_reclaimer();
	return test_setup(state);
}

#define TEST_WARM(function)  cmocka_unit_test_setup_teardown(function, warm_setup, test_teardown)
#define TEST_FRESH(function) cmocka_unit_test_setup_teardown(function, fresh_setup, test_teardown)

/* A callback that notes that, when and where it ran. */
struct noted_cb {
	struct lf_fence_cb cb;
	unsigned ran;
	int status; /* of the fence, inside the callback */
	int64_t timestamp;
	pthread_t thread;
	struct producer *producer; /* when not NULL: its detaches when the callback began */
	unsigned detaches;
};

static inline void noted_run(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct noted_cb *n = (struct noted_cb *)cb;

	n->status = lf_fence_status(f);
	n->timestamp = lf_fence_timestamp(f);
	n->thread = pthread_self();
	if (n->producer)
		n->detaches = count_get(&n->producer->detaches);
	count_up(&n->ran);
}

static inline void noted_add(struct noted_cb *n, struct lf_fence *f)
{
	memset(n, 0, sizeof(*n));
	assert_int_equal(lf_fence_add_callback(f, &n->cb, noted_run), 0);
}

#endif /* PRODUCER_H */
