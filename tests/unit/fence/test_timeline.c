/* SPDX-License-Identifier: MIT */
/* Timelines: names and ids, emitting, every way to complete a fence, hooks and when they are let go, failing allocations. */
#include "producer.h"

#include <inttypes.h>
#include <sched.h>

static struct lf_timeline *create(const char *name, unsigned flags)
{
	const struct lf_timeline_desc desc = { .name = name, .flags = flags };
	struct lf_timeline *tl = NULL;

	assert_int_equal(lf_timeline_create(&desc, &tl), 0);
	assert_non_null(tl);
	return tl;
}

static void assert_name(const struct lf_fence *f, const char *name)
{
	char buf[64];

	assert_int_equal(lf_fence_name(f, buf, sizeof(buf)), (int)strlen(name));
	assert_string_equal(buf, name);
}

static void put_all(struct lf_fence **fences, size_t count)
{
	for (size_t i = 0; i < count; i++)
		lf_fence_put(fences[i]);
}

/* --- Making a timeline --------------------------------------------------------------------------------------------------- */

static void create_without_name_or_with_unknown_flags_is_refused_and_reported(void **state)
{
	const struct lf_timeline_desc nameless = { .name = NULL };
	const struct lf_timeline_desc odd = { .name = "odd", .flags = 0x80 };
	struct lf_timeline *untouched = (struct lf_timeline *)&state, *tl = untouched;

	assert_int_equal(lf_timeline_create(&nameless, &tl), -EINVAL);
	expect_misuse(1);
	assert_int_equal(lf_timeline_create(&odd, &tl), -EINVAL);
	expect_misuse(1);
	assert_ptr_equal(tl, untouched);
}

static void context_ids_are_unique_and_not_zero(void **state)
{
	enum { N = 64 };
	struct lf_timeline *tl[N];
	uint64_t first;

	(void)state;
	for (int i = 0; i < N; i++) {
		tl[i] = create("unique", i % 2 ? LF_TIMELINE_UNORDERED : LF_TIMELINE_ORDERED);
		assert_true(lf_timeline_context(tl[i]) != 0);
		for (int k = 0; k < i; k++)
			assert_true(lf_timeline_context(tl[i]) != lf_timeline_context(tl[k]));
	}
	/* Nor are they used again: a fence that outlives its timeline must not seem to be of another one. */
	first = lf_timeline_context(tl[0]);
	lf_timeline_put(tl[0]);
	tl[0] = create("again", LF_TIMELINE_ORDERED);
	assert_true(lf_timeline_context(tl[0]) != first);
	for (int i = 0; i < N; i++)
		lf_timeline_put(tl[i]);
}

static void fence_knows_context_seqno_order_and_name_of_its_timeline(void **state)
{
	(void)state;
	for (int flags = LF_TIMELINE_ORDERED; flags <= LF_TIMELINE_UNORDERED; flags++) {
		struct lf_timeline *tl = create("gfx", (unsigned)flags);
		struct lf_fence *f = emit(tl);

		assert_true(lf_fence_context(f) == lf_timeline_context(tl));
		assert_true(lf_fence_seqno(f) == 1);
		assert_true(lf_timeline_last_seqno(tl) == 1);
		assert_int_equal(lf_fence_is_ordered(f), flags == LF_TIMELINE_ORDERED);
		assert_int_equal(lf_fence_status(f), 0);
		assert_true(lf_fence_timestamp(f) == INT64_MIN);
		assert_name(f, "gfx");
		lf_timeline_put(tl);
		lf_fence_put(f);
	}
}

static void name_is_copied_cut_and_prefixed_by_the_provider(void **state)
{
	char name[16] = "copied", buf[8];
	struct lf_provider *provider;
	struct lf_timeline_desc desc = { .name = name };
	struct lf_timeline *tl;
	struct lf_fence *f;

	(void)state;
	assert_int_equal(lf_provider_create("drv", &provider), 0);
	desc.provider = provider;
	assert_int_equal(lf_timeline_create(&desc, &tl), 0);
	strcpy(name, "other");
	f = emit(tl);
	assert_name(f, "drv/copied");
	assert_int_equal(lf_fence_name(f, buf, sizeof(buf)), 10);
	assert_string_equal(buf, "drv/cop");
	assert_int_equal(lf_fence_name(f, NULL, 0), 10);
	lf_timeline_put(tl);
	lf_provider_put(provider);
	lf_fence_put(f);
}

static void long_name_is_given_in_full(void **state)
{
	char name[2001], buf[2100];
	struct lf_timeline *tl;
	struct lf_fence *f;

	(void)state;
	memset(name, 'n', 2000);
	name[2000] = '\0';
	tl = create(name, LF_TIMELINE_ORDERED);
	f = emit(tl);
	assert_int_equal(lf_fence_name(f, buf, sizeof(buf)), 2000);
	assert_string_equal(buf, name);
	lf_timeline_put(tl);
	lf_fence_put(f);
}

static void name_is_forgotten_with_the_timeline(void **state)
{
	struct lf_timeline *tl = create("mortal", LF_TIMELINE_ORDERED), *other = create("other", LF_TIMELINE_ORDERED);
	struct lf_fence *f = emit(tl), *g = emit(other);
	char buf[200];

	(void)state;
	assert_int_equal(lf_timeline_signal_to(tl, 1, 0), 1);
	assert_name(f, "mortal");
	lf_timeline_put(lf_timeline_get(tl));
	assert_name(f, "mortal");
	lf_timeline_put(tl);
	assert_name(f, "signaled-timeline");
	assert_true(lf_fence_describe(f, buf, sizeof(buf)) > 0);
	assert_non_null(strstr(buf, "signaled-timeline"));
	assert_null(strstr(buf, "mortal"));
	assert_name(g, "other");
	lf_timeline_put(other);
	lf_fence_put(f);
	lf_fence_put(g);
}

static void describe_tells_name_place_and_result(void **state)
{
	struct lf_timeline *tl = create("described", LF_TIMELINE_ORDERED);
	struct lf_fence *f, *g;
	char buf[200], place[64];

	(void)state;
	assert_int_equal(lf_timeline_emit(tl, 4711, &f), 0);
	g = emit(tl);
	snprintf(place, sizeof(place), "%" PRIu64 ":4711", lf_timeline_context(tl));
	lf_fence_describe(f, buf, sizeof(buf));
	assert_non_null(strstr(buf, "described"));
	assert_non_null(strstr(buf, place));
	assert_int_equal(lf_timeline_signal_to_at(tl, 4711, -EIO, 123456789), 1);
	lf_fence_describe(f, buf, sizeof(buf));
	assert_non_null(strstr(buf, place));
	lf_timeline_put(tl);
	lf_fence_put(f);
	lf_fence_put(g);
}

static void null_timeline_may_be_taken_and_put(void **state)
{
	(void)state;
	assert_null(lf_timeline_get(NULL));
	lf_timeline_put(NULL);
}

/* --- Emitting ------------------------------------------------------------------------------------------------------------ */

static void seqnos_rise_by_one_or_to_where_the_caller_says(void **state)
{
	static const uint64_t given[] = { 0, 0, 10, 0, 1000000000000, 0 };
	static const uint64_t expected[] = { 1, 2, 10, 11, 1000000000000, 1000000000001 };
	struct lf_timeline *tl = create("gaps", LF_TIMELINE_ORDERED);
	struct lf_fence *f[6];

	(void)state;
	assert_true(lf_timeline_last_seqno(tl) == 0);
	for (int i = 0; i < 6; i++) {
		assert_int_equal(lf_timeline_emit(tl, given[i], &f[i]), 0);
		assert_true(lf_fence_seqno(f[i]) == expected[i]);
		assert_true(lf_timeline_last_seqno(tl) == expected[i]);
	}
	assert_true(lf_fence_is_later(f[3], f[2]));
	assert_false(lf_fence_is_later(f[2], f[3]));
	assert_false(lf_fence_is_later(f[2], f[2]));
	/* In the middle of a gap: what lies before it, nothing behind it. */
	assert_int_equal(lf_timeline_signal_to(tl, 999999999999, 0), 4);
	assert_true(lf_fence_is_signaled(f[3]));
	assert_false(lf_fence_is_signaled(f[4]));
	lf_timeline_put(tl);
	put_all(f, 6);
}

static void fences_of_different_timelines_are_not_compared(void **state)
{
	struct lf_timeline *a = create("a", LF_TIMELINE_ORDERED), *b = create("b", LF_TIMELINE_ORDERED);
	struct lf_fence *f, *g, *alone;

	(void)state;
	assert_int_equal(lf_timeline_emit(a, 1, &f), 0);
	assert_int_equal(lf_timeline_emit(b, 2, &g), 0);
	assert_int_equal(lf_fence_create(&alone), 0);
	assert_false(lf_fence_is_later(f, g));
	assert_false(lf_fence_is_later(g, f));
	assert_false(lf_fence_is_later(f, alone));
	lf_timeline_put(a);
	lf_timeline_put(b);
	lf_fence_put(f);
	lf_fence_put(g);
	lf_fence_put(alone);
}

static void seqno_that_does_not_rise_is_refused_and_reported(void **state)
{
	struct lf_timeline *tl = create("backwards", LF_TIMELINE_ORDERED);
	struct lf_fence *f, *untouched = (struct lf_fence *)&state, *g = untouched;

	assert_int_equal(lf_timeline_emit(tl, 10, &f), 0);
	assert_int_equal(lf_timeline_emit(tl, 9, &g), -EINVAL);
	expect_misuse(1);
	assert_int_equal(lf_timeline_emit(tl, 10, &g), -EINVAL);
	expect_misuse(1);
	assert_ptr_equal(g, untouched);
	assert_true(lf_timeline_last_seqno(tl) == 10);
	/* Nothing was emitted: there is one fence to signal. */
	assert_int_equal(lf_timeline_signal_to(tl, UINT64_MAX, 0), 1);
	lf_timeline_put(tl);
	lf_fence_put(f);
}

static void last_seqno_of_all_is_usable_and_none_is_left_after_it(void **state)
{
	struct lf_timeline *tl = create("overflow", LF_TIMELINE_ORDERED);
	struct lf_fence *f, *g = NULL;

	(void)state;
	assert_int_equal(lf_timeline_emit(tl, UINT64_MAX, &f), 0);
	assert_int_equal(lf_timeline_emit(tl, 0, &g), -EOVERFLOW);
	assert_null(g);
	assert_true(lf_timeline_last_seqno(tl) == UINT64_MAX);
	assert_int_equal(lf_timeline_signal_to(tl, UINT64_MAX, 0), 1);
	assert_true(lf_fence_is_signaled(f));
	log_reset(); /* whether it is reported is left open */
	lf_timeline_put(tl);
	lf_fence_put(f);
}

struct job {
	char before[72];
	struct lf_fence fence;
	int after;
};

static struct job *job_create(void)
{
	struct job *job = lf_alloc(sizeof(*job));

	assert_non_null(job);
	job->after = 42;
	assert_int_equal(lf_fence_init(&job->fence, offsetof(struct job, fence)), 0);
	return job;
}

static void embedded_fence_is_emitted_and_lasts_as_long_as_a_reference(void **state)
{
	struct producer p;
	struct job *job = job_create();
	struct noted_cb n;
	long live;

	(void)state;
	producer_init(&p, LF_TIMELINE_ORDERED);
	assert_int_equal(lf_timeline_emit_fence(p.tl, 7, &job->fence), 0);
	assert_true(lf_fence_context(&job->fence) == lf_timeline_context(p.tl));
	assert_true(lf_fence_seqno(&job->fence) == 7);
	assert_true(lf_timeline_last_seqno(p.tl) == 7);
	noted_add(&n, &job->fence);
	/* Only the timeline holds it now. */
	lf_fence_put(&job->fence);
	assert_int_equal(job->after, 42);
	live = alloc_live();
	assert_int_equal(lf_timeline_signal_to(p.tl, 7, -EIO), 1);
	assert_int_equal(n.ran, 1);
	assert_int_equal(n.status, -EIO);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_true(alloc_live() < live);
	producer_fini(&p, 1);
}

enum spoil { SPOIL_SIGNALED, SPOIL_REFERENCE, SPOIL_CALLBACK, SPOIL_PUBLISHED, SPOIL_EMITTED, SPOIL_STUB, SPOILS };

static void emit_fence_refuses_any_other_fence_and_reports_it(void **state)
{
	(void)state;
	for (int spoil = 0; spoil < SPOILS; spoil++) {
		struct lf_timeline *tl = create("picky", LF_TIMELINE_ORDERED), *other = create("other", LF_TIMELINE_UNORDERED);
		struct job *job = job_create();
		struct lf_fence *f = &job->fence;
		struct noted_cb n = { .ran = 0 };

		switch (spoil) {
		case SPOIL_SIGNALED:
			assert_true(lf_fence_signal(f, 0));
			break;
		case SPOIL_REFERENCE:
			lf_fence_get(f);
			break;
		case SPOIL_CALLBACK:
			noted_add(&n, f);
			break;
		case SPOIL_PUBLISHED:
			lf_fence_publish(f);
			break;
		case SPOIL_EMITTED:
			assert_int_equal(lf_timeline_emit_fence(other, 5, f), 0);
			break;
		case SPOIL_STUB:
			f = lf_fence_stub();
			break;
		}
		assert_int_equal(lf_timeline_emit_fence(tl, 3, f), -EINVAL);
		assert_int_equal(log_count(LF_LOG_MISUSE), 1);
		log_reset();
		assert_true(lf_timeline_last_seqno(tl) == 0);
		assert_int_equal(lf_timeline_signal_to(tl, UINT64_MAX, 0), 0);
		assert_true(lf_fence_context(f) == (spoil == SPOIL_EMITTED ? lf_timeline_context(other) : 0));
		/* What was stand-alone and pending still is: its maker can signal it. */
		if (spoil == SPOIL_REFERENCE || spoil == SPOIL_CALLBACK || spoil == SPOIL_PUBLISHED)
			assert_true(lf_fence_signal(f, 0));
		if (spoil == SPOIL_CALLBACK)
			assert_int_equal(n.ran, 1);
		if (spoil == SPOIL_EMITTED)
			assert_int_equal(lf_timeline_signal_to(other, 5, 0), 1);
		lf_timeline_put(tl);
		lf_timeline_put(other);
		if (spoil == SPOIL_REFERENCE || spoil == SPOIL_STUB)
			lf_fence_put(f);
		lf_fence_put(&job->fence);
	}
}

static void fence_that_could_not_be_emitted_stays_stand_alone_and_can_be_emitted_again(void **state)
{
	struct producer p;
	struct job *job = job_create();
	struct lf_fence *first;

	(void)state;
	producer_init(&p, LF_TIMELINE_ORDERED);
	assert_int_equal(lf_timeline_emit(p.tl, 10, &first), 0);
	assert_int_equal(lf_timeline_emit_fence(p.tl, 10, &job->fence), -EINVAL);
	expect_misuse(1);
	assert_true(lf_fence_context(&job->fence) == 0);
	assert_true(lf_fence_seqno(&job->fence) == 0);
	assert_name(&job->fence, "stand-alone");
	assert_int_equal(lf_timeline_emit_fence(p.tl, 0, &job->fence), 0);
	assert_true(lf_fence_seqno(&job->fence) == 11);
	lf_fence_put(first);
	lf_fence_put(&job->fence);
	producer_fini(&p, 2);
}

static void a_hundred_thousand_may_be_pending_and_complete_in_one_call(void **state)
{
	int count = (int)test_rounds(100000);
	struct lf_timeline *tl = create("many", LF_TIMELINE_ORDERED);
	struct lf_fence **f = calloc((size_t)count, sizeof(*f));
	int64_t timestamp;

	(void)state;
	assert_non_null(f);
	for (int i = 0; i < count; i++)
		f[i] = emit(tl);
	assert_int_equal(lf_timeline_signal_to(tl, (uint64_t)count / 2, 0), count / 2);
	timestamp = lf_fence_timestamp(f[0]);
	for (int i = 0; i < count; i++) {
		assert_int_equal(lf_fence_is_signaled(f[i]), i < count / 2);
		assert_true(lf_fence_timestamp(f[i]) == (i < count / 2 ? timestamp : INT64_MIN));
	}
	lf_timeline_put(tl);
	for (int i = count / 2; i < count; i++)
		assert_int_equal(lf_fence_status(f[i]), -ECANCELED);
	put_all(f, (size_t)count);
	free(f);
}

/* --- signal_to ----------------------------------------------------------------------------------------------------------- */

static void signal_to_completes_up_to_the_seqno_with_one_timestamp_and_counts(void **state)
{
	(void)state;
	for (unsigned flags = LF_TIMELINE_ORDERED; flags <= LF_TIMELINE_UNORDERED; flags++) {
		struct producer p;
		struct lf_fence *f[6];
		struct noted_cb n[6];

		producer_init(&p, flags);
		for (int i = 0; i < 6; i++) {
			f[i] = emit(p.tl);
			noted_add(&n[i], f[i]);
		}
		clock_set(5000);
		assert_int_equal(lf_timeline_signal_to(p.tl, 0, 0), 0);
		assert_int_equal(lf_timeline_signal_to(p.tl, 4, 0), 4);
		clock_set(6000);
		assert_int_equal(lf_timeline_signal_to(p.tl, 4, 0), 0);
		assert_int_equal(lf_timeline_signal_to(p.tl, 2, 0), 0);
		for (int i = 0; i < 6; i++) {
			assert_int_equal(lf_fence_status(f[i]), i < 4);
			assert_int_equal(n[i].ran, i < 4);
		}
		for (int i = 0; i < 4; i++) {
			assert_true(lf_fence_timestamp(f[i]) == 5000);
			assert_true(n[i].timestamp == 5000);
			assert_true(lf_fence_is_drained(f[i]));
		}
		/* Beyond the end: all that is there, nothing that comes later. */
		assert_int_equal(lf_timeline_signal_to(p.tl, 1000, 0), 2);
		lf_fence_put(f[0]);
		f[0] = emit(p.tl);
		assert_true(lf_fence_seqno(f[0]) == 7);
		assert_int_equal(lf_fence_status(f[0]), 0);
		clock_real();
		put_all(f, 6);
		producer_fini(&p, 7);
	}
}

static void signal_to_carries_an_error_and_a_bad_one_counts_as_EINVAL(void **state)
{
	static const struct {
		int given, status;
		unsigned reports;
	} errors[] = { { 0, 1, 0 }, { -1, -1, 0 }, { -LF_MAX_ERROR, -LF_MAX_ERROR, 0 }, { -LF_MAX_ERROR - 1, -EINVAL, 1 },
		{ 1, -EINVAL, 1 } };

	(void)state;
	for (unsigned flags = LF_TIMELINE_ORDERED; flags <= LF_TIMELINE_UNORDERED; flags++) {
		for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
			struct lf_timeline *tl = create("errors", flags);
			struct lf_fence *f[2] = { emit(tl), emit(tl) };

			assert_int_equal(lf_timeline_signal_to(tl, 2, errors[i].given), 2);
			assert_int_equal(lf_fence_status(f[0]), errors[i].status);
			assert_int_equal(lf_fence_status(f[1]), errors[i].status);
			expect_misuse(errors[i].reports);
			put_all(f, 2);
			lf_timeline_put(tl);
		}
	}
}

static void earlier_timestamp_is_moved_up_on_an_ordered_timeline(void **state)
{
	struct lf_timeline *tl = create("late", LF_TIMELINE_ORDERED);
	struct lf_fence *f[4];

	(void)state;
	clock_set(2000);
	for (int i = 0; i < 4; i++)
		f[i] = emit(tl);
	assert_int_equal(lf_timeline_signal_to_at(tl, 1, 0, 1000), 1);
	assert_int_equal(lf_timeline_signal_to_at(tl, 2, 0, 500), 1);
	assert_int_equal(lf_timeline_signal_to_at(tl, 3, 0, 3000), 1);
	assert_int_equal(lf_timeline_signal_to(tl, 4, 0), 1); /* at 2000 */
	assert_true(lf_fence_timestamp(f[0]) == 1000);
	assert_true(lf_fence_timestamp(f[1]) == 1000);
	assert_true(lf_fence_timestamp(f[2]) == 3000);
	assert_true(lf_fence_timestamp(f[3]) == 3000);
	clock_real();
	put_all(f, 4);
	lf_timeline_put(tl);
}

static void timestamps_of_an_unordered_timeline_are_taken_as_given(void **state)
{
	struct lf_timeline *tl = create("as-given", LF_TIMELINE_UNORDERED);
	struct lf_fence *f[2] = { emit(tl), emit(tl) };

	(void)state;
	assert_int_equal(lf_timeline_signal_to_at(tl, 1, 0, 1000), 1);
	assert_int_equal(lf_timeline_signal_to_at(tl, 2, 0, 500), 1);
	assert_true(lf_fence_timestamp(f[0]) == 1000);
	assert_true(lf_fence_timestamp(f[1]) == 500);
	put_all(f, 2);
	lf_timeline_put(tl);
}

struct held_up {
	struct lf_fence_cb cb;
	struct flag waited;
	struct lf_fence *later;
	pthread_t waiter;
	bool woke;
};

static void *wait_for_later(void *arg)
{
	struct held_up *h = arg;

	h->woke = lf_fence_wait(h->later, LF_DEADLINE_NEVER) == 0;
	flag_set(&h->waited);
	return NULL;
}

/* A callback that blocks until a thread that waits for another fence has gone on. */
static void block_until_waited(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct held_up *h = (struct held_up *)cb;

	(void)f;
	flag_wait(&h->waited);
}

static void callback_that_blocks_holds_up_no_waiter_of_a_fence_that_was_signaled_with_its_own(void **state)
{
	(void)state;
	for (int way = 0; way < 3; way++) {
		struct producer p;
		struct held_up h = { .woke = false };
		struct lf_fence *f;

		producer_init(&p, LF_TIMELINE_ORDERED);
		f = emit(p.tl);
		h.later = emit(p.tl);
		flag_init(&h.waited);
		assert_int_equal(lf_fence_add_callback(f, &h.cb, block_until_waited), 0);
		h.waiter = thread_start(wait_for_later, &h, 0);
		/* It has armed the fence: it sleeps, or is about to. (Too late for that is right as well: then it need not sleep.) */
		while (count_get(&p.enables) < 2)
			sched_yield();
		if (way == 0)
			assert_int_equal(lf_timeline_signal_to(p.tl, 2, 0), 2);
		else if (way == 1)
			assert_int_equal(lf_timeline_lose(p.tl, -EIO), 2);
		p.poll_result = 1;
		if (way == 2)
			assert_int_equal(lf_fence_check(h.later), 1);
		thread_join(h.waiter);
		assert_true(h.woke);
		flag_fini(&h.waited);
		lf_fence_put(f);
		lf_fence_put(h.later);
		producer_fini(&p, 2);
	}
}

static void callback_that_blocks_holds_up_no_detach_of_a_fence_that_was_signaled_with_its_own(void **state)
{
	struct producer p;
	struct lf_fence *f[3];
	struct noted_cb n = { .producer = &p };

	(void)state;
	producer_init(&p, LF_TIMELINE_ORDERED);
	for (int i = 0; i < 3; i++)
		f[i] = emit(p.tl);
	/* Each is signaled, so each has been detached before any callback of the consumers runs. */
	assert_int_equal(lf_fence_add_callback(f[0], &n.cb, noted_run), 0);
	assert_int_equal(lf_timeline_signal_to(p.tl, 3, 0), 3);
	assert_int_equal(n.ran, 1);
	assert_int_equal(n.detaches, 3);
	put_all(f, 3);
	producer_fini(&p, 3);
}

/* --- signal_one ---------------------------------------------------------------------------------------------------------- */

static void unordered_fences_are_signaled_one_by_one_in_any_order(void **state)
{
	enum { N = 200 };
	struct producer p;
	struct lf_fence *f[N];
	int order[N];
	uint64_t seed = test_seed();

	(void)state;
	producer_init(&p, LF_TIMELINE_UNORDERED);
	for (int i = 0; i < N; i++) {
		f[i] = emit(p.tl);
		order[i] = i;
	}
	for (int i = N - 1; i > 0; i--) {
		int k = (int)(random_next(&seed) % (uint64_t)(i + 1)), swap = order[i];

		order[i] = order[k];
		order[k] = swap;
	}
	for (int i = 0; i < N; i++) {
		struct lf_fence *g = f[order[i]];
		int error = order[i] % 3 == 0 ? -EIO : 0;

		assert_int_equal(lf_fence_status(g), 0);
		assert_true(lf_timeline_signal_one(p.tl, g, error));
		assert_int_equal(lf_fence_status(g), error ? error : 1);
		assert_false(lf_timeline_signal_one(p.tl, g, -ENODEV));
		assert_int_equal(lf_fence_status(g), error ? error : 1);
		assert_int_equal(p.detaches, i + 1);
	}
	assert_int_equal(lf_timeline_signal_to(p.tl, UINT64_MAX, 0), 0);
	put_all(f, N);
	producer_fini(&p, N);
}

static void signal_to_skips_what_was_signaled_by_itself(void **state)
{
	struct lf_timeline *tl = create("skip", LF_TIMELINE_UNORDERED);
	struct lf_fence *f[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		f[i] = emit(tl);
	assert_true(lf_timeline_signal_one(tl, f[1], -EIO));
	assert_true(lf_timeline_signal_one(tl, f[3], -EIO));
	assert_int_equal(lf_timeline_signal_to(tl, 4, 0), 2);
	assert_int_equal(lf_fence_status(f[0]), 1);
	assert_int_equal(lf_fence_status(f[1]), -EIO);
	assert_int_equal(lf_fence_status(f[2]), 1);
	assert_int_equal(lf_fence_status(f[3]), -EIO);
	put_all(f, 4);
	lf_timeline_put(tl);
}

static void signal_one_on_an_ordered_timeline_or_a_foreign_fence_is_refused_and_reported(void **state)
{
	struct lf_timeline *ordered = create("ordered", LF_TIMELINE_ORDERED);
	struct lf_timeline *mine = create("mine", LF_TIMELINE_UNORDERED), *yours = create("yours", LF_TIMELINE_UNORDERED);
	struct lf_fence *f[3] = { emit(ordered), emit(yours), NULL };

	(void)state;
	assert_int_equal(lf_fence_create(&f[2]), 0);
	assert_false(lf_timeline_signal_one(ordered, f[0], 0));
	expect_misuse(1);
	assert_false(lf_timeline_signal_one(mine, f[1], 0));
	expect_misuse(1);
	assert_false(lf_timeline_signal_one(mine, f[2], 0));
	expect_misuse(1);
	assert_false(lf_timeline_signal_one(ordered, f[1], 0));
	expect_misuse(1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(lf_fence_status(f[i]), 0);
	lf_timeline_put(ordered);
	lf_timeline_put(mine);
	lf_timeline_put(yours);
	put_all(f, 3);
}

static void fence_of_a_timeline_is_not_signaled_like_a_stand_alone_one(void **state)
{
	struct lf_timeline *tl = create("owner", LF_TIMELINE_ORDERED);
	struct lf_fence *f = emit(tl);

	(void)state;
	assert_false(lf_fence_signal(f, 0));
	expect_misuse(1);
	assert_false(lf_fence_signal_at(f, 0, 77));
	expect_misuse(1);
	assert_int_equal(lf_fence_status(f), 0);
	assert_int_equal(lf_timeline_signal_to(tl, 1, 0), 1);
	lf_timeline_put(tl);
	lf_fence_put(f);
}

/* --- lose and drop ------------------------------------------------------------------------------------------------------- */

static void loss_completes_the_pending_and_all_that_is_emitted_later(void **state)
{
	(void)state;
	for (unsigned flags = LF_TIMELINE_ORDERED; flags <= LF_TIMELINE_UNORDERED; flags++) {
		struct producer p;
		struct lf_fence *f[5];
		struct noted_cb n;
		struct job *job = job_create();

		producer_init(&p, flags);
		for (int i = 0; i < 4; i++)
			f[i] = emit(p.tl);
		noted_add(&n, f[3]);
		assert_int_equal(lf_timeline_signal_to(p.tl, 1, 0), 1);
		assert_int_equal(lf_timeline_lose(p.tl, -ENODEV), 3);
		assert_int_equal(lf_fence_status(f[0]), 1);
		for (int i = 1; i < 4; i++)
			assert_int_equal(lf_fence_status(f[i]), -ENODEV);
		assert_int_equal(n.ran, 1);
		assert_int_equal(n.status, -ENODEV);
		/* Sticky, and detached before emit returns. */
		f[4] = emit(p.tl);
		assert_int_equal(lf_fence_status(f[4]), -ENODEV);
		assert_true(lf_fence_is_drained(f[4]));
		assert_true(lf_fence_seqno(f[4]) == 5);
		assert_int_equal(p.detaches, 5);
		assert_int_equal(lf_fence_add_callback(f[4], &n.cb, noted_run), -ENOENT);
		assert_int_equal(p.enables, 1);
		/* The first loss counts. */
		assert_int_equal(lf_timeline_lose(p.tl, -EIO), 0);
		assert_int_equal(lf_timeline_emit_fence(p.tl, 0, &job->fence), 0);
		assert_int_equal(lf_fence_status(&job->fence), -ENODEV);
		assert_true(lf_timeline_last_seqno(p.tl) == 6);
		assert_int_equal(lf_timeline_signal_to(p.tl, UINT64_MAX, 0), 0);
		put_all(f, 5);
		lf_fence_put(&job->fence);
		producer_fini(&p, 6);
	}
}

static void timestamps_do_not_go_backwards_across_a_loss(void **state)
{
	struct lf_timeline *tl = create("lost", LF_TIMELINE_ORDERED);
	struct lf_fence *f[3] = { emit(tl), emit(tl), NULL };

	(void)state;
	clock_set(100);
	assert_int_equal(lf_timeline_signal_to_at(tl, 1, 0, 900), 1);
	assert_int_equal(lf_timeline_lose(tl, -EIO), 1);
	f[2] = emit(tl);
	assert_true(lf_fence_timestamp(f[1]) >= 900);
	assert_true(lf_fence_timestamp(f[2]) >= lf_fence_timestamp(f[1]));
	clock_real();
	put_all(f, 3);
	lf_timeline_put(tl);
}

static void loss_without_an_error_is_reported(void **state)
{
	struct lf_timeline *tl = create("lost-how", LF_TIMELINE_ORDERED);
	struct lf_fence *f = emit(tl);

	(void)state;
	assert_int_equal(lf_timeline_lose(tl, 0), 1);
	expect_misuse(1);
	assert_true(lf_fence_status(f) < 0); /* some error: which one is left open */
	lf_timeline_put(tl);
	lf_fence_put(f);
}

static void drop_cancels_what_is_pending_and_runs_callbacks(void **state)
{
	(void)state;
	for (unsigned flags = LF_TIMELINE_ORDERED; flags <= LF_TIMELINE_UNORDERED; flags++) {
		struct producer p;
		struct lf_fence *f[3];
		struct noted_cb n[3];

		producer_init(&p, flags);
		for (int i = 0; i < 3; i++) {
			f[i] = emit(p.tl);
			noted_add(&n[i], f[i]);
		}
		assert_int_equal(lf_timeline_signal_to(p.tl, 1, -EIO), 1);
		/* Not the last reference. */
		lf_timeline_get(p.tl);
		lf_timeline_put(p.tl);
		assert_int_equal(lf_fence_status(f[1]), 0);
		producer_fini(&p, 3);
		assert_int_equal(lf_fence_status(f[0]), -EIO);
		for (int i = 1; i < 3; i++) {
			assert_int_equal(lf_fence_status(f[i]), -ECANCELED);
			assert_int_equal(n[i].ran, 1);
			assert_int_equal(n[i].status, -ECANCELED);
		}
		put_all(f, 3);
	}
}

static void fences_that_nobody_holds_are_freed_when_they_complete(void **state)
{
	struct lf_timeline *tl = create("unheld", LF_TIMELINE_ORDERED);
	long live;

	(void)state;
	for (int i = 0; i < 100; i++)
		lf_fence_put(emit(tl));
	live = alloc_live();
	assert_int_equal(lf_timeline_signal_to(tl, 100, 0), 100);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_true(alloc_live() <= live - 100);
	lf_timeline_put(tl);
}

struct put_cb {
	struct lf_fence_cb cb;
	struct lf_timeline *put;
	unsigned *ran;
};

static void put_timeline(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct put_cb *p = (struct put_cb *)cb;

	(void)f;
	count_up(p->ran);
	lf_timeline_put(p->put);
}

static void *drop_chain(void *arg)
{
	lf_timeline_put(arg);
	return NULL;
}

/* Each timeline dies in a callback of the one before it, on a stack that recursion would overflow. */
static void timelines_that_drop_each_other_in_callbacks_need_no_stack(void **state)
{
	size_t count = (size_t)test_rounds(20000);
	struct lf_timeline **tl = calloc(count, sizeof(*tl));
	struct put_cb *cb = calloc(count, sizeof(*cb));
	unsigned ran = 0;

	(void)state;
	assert_non_null(tl);
	assert_non_null(cb);
	for (size_t i = 0; i < count; i++)
		tl[i] = create("chain", LF_TIMELINE_ORDERED);
	for (size_t i = 0; i < count; i++) {
		struct lf_fence *f = emit(tl[i]);

		cb[i].put = i + 1 < count ? tl[i + 1] : NULL;
		cb[i].ran = &ran;
		assert_int_equal(lf_fence_add_callback(f, &cb[i].cb, put_timeline), 0);
		lf_fence_put(f);
	}
	thread_join(thread_start(drop_chain, tl[0], 64 << 10));
	assert_int_equal(ran, count);
	free(tl);
	free(cb);
}

struct again_cb {
	struct lf_fence_cb cb;
	struct lf_timeline *tl;
	unsigned left, failed;
};

static void emit_and_signal_again(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct again_cb *a = (struct again_cb *)cb;
	struct lf_fence *next;

	if (lf_timeline_last_seqno(a->tl) != lf_fence_seqno(f))
		a->failed++;
	if (a->left-- == 0)
		return;
	if (lf_timeline_emit(a->tl, 0, &next) != 0 || lf_fence_add_callback(next, &a->cb, emit_and_signal_again) != 0 ||
		lf_timeline_signal_to(a->tl, lf_fence_seqno(next), 0) != 1)
		a->failed++;
	lf_fence_put(next);
}

static void *signal_first(void *arg)
{
	lf_timeline_signal_to(arg, 1, 0);
	return NULL;
}

static void callback_may_emit_and_signal_on_its_own_timeline_without_end(void **state)
{
	unsigned rounds = (unsigned)test_rounds(100000);
	struct again_cb a = { .tl = create("again", LF_TIMELINE_ORDERED), .left = rounds };
	struct lf_fence *f = emit(a.tl);

	(void)state;
	assert_int_equal(lf_fence_add_callback(f, &a.cb, emit_and_signal_again), 0);
	thread_join(thread_start(signal_first, a.tl, 64 << 10));
	assert_int_equal(a.left, (unsigned)-1);
	assert_int_equal(a.failed, 0);
	assert_true(lf_timeline_last_seqno(a.tl) == rounds + 1);
	lf_fence_put(f);
	lf_timeline_put(a.tl);
}

/* --- Hooks --------------------------------------------------------------------------------------------------------------- */

static void enable_is_called_once_at_the_first_interest_and_not_for_looking(void **state)
{
	struct producer p;
	struct lf_fence *f[4];
	struct noted_cb n[2];
	struct lf_wait_slot slot;
	char buf[100];

	(void)state;
	producer_init(&p, LF_TIMELINE_ORDERED);
	for (int i = 0; i < 4; i++)
		f[i] = emit(p.tl);
	lf_fence_is_signaled(f[0]);
	lf_fence_is_drained(f[0]);
	lf_fence_status(f[0]);
	lf_fence_timestamp(f[0]);
	lf_fence_check(f[0]);
	lf_fence_set_deadline(f[0], 1);
	lf_fence_describe(f[0], buf, sizeof(buf));
	lf_fence_publish(f[0]);
	assert_int_equal(p.enables, 0);
	noted_add(&n[0], f[0]);
	assert_int_equal(p.enables, 1);
	noted_add(&n[1], f[0]);
	assert_int_equal(lf_fence_wait(f[0], 0), -ETIME);
	assert_int_equal(lf_fence_remove_callback(f[0], &n[0].cb), LF_CB_REMOVED);
	noted_add(&n[0], f[0]);
	assert_int_equal(p.enables, 1);
	/* Each way of waiting arms, too, without time to wait. */
	assert_int_equal(lf_fence_wait(f[1], 0), -ETIME);
	assert_int_equal(p.enables, 2);
	assert_int_equal(
		lf_fence_wait_many(&(struct lf_wait_many){ .fences = &f[2], .slots = &slot, .count = 1, .need = 1 }, NULL), -ETIME);
	assert_int_equal(p.enables, 3);
	assert_int_equal(lf_timeline_signal_to(p.tl, 4, 0), 4);
	assert_int_equal(lf_fence_wait(f[3], 0), 0);
	assert_int_equal(p.enables, 3);
	assert_int_equal(p.late, 0);
	put_all(f, 4);
	producer_fini(&p, 4);
}

/* What enable (or poll) answers, and how the fence completes then. */
static const struct {
	int answer, status;
} answers[] = { { 1, 1 }, { -EIO, -EIO } };

static void check_answered(struct producer *p, struct lf_fence **f, int status, bool ordered)
{
	for (int i = 0; i < 3; i++) {
		bool done = ordered ? i <= 1 : i == 1;

		assert_int_equal(lf_fence_status(f[i]), done ? status : 0);
		if (done)
			assert_true(lf_fence_timestamp(f[i]) == lf_fence_timestamp(f[1]));
	}
	assert_int_equal(p->detaches, ordered ? 2 : 1);
	assert_int_equal(p->detached_inside, 0);
}

static void enable_that_answers_completes_the_fence_and_the_earlier_of_an_ordered_timeline(void **state)
{
	(void)state;
	for (unsigned flags = LF_TIMELINE_ORDERED; flags <= LF_TIMELINE_UNORDERED; flags++) {
		for (int way = 0; way < 4; way++) {
			struct producer p;
			struct lf_fence *f[3];
			struct noted_cb early, n = { .ran = 0 };
			struct lf_wait_slot slot;
			int r;

			producer_init(&p, flags);
			for (int i = 0; i < 3; i++)
				f[i] = emit(p.tl);
			noted_add(&early, f[0]);
			p.enable_result = answers[way % 2].answer;
			if (way < 2) {
				/* Either is right: called before this returned, or never taken. */
				r = lf_fence_add_callback(f[1], &n.cb, noted_run);
				assert_true((r == 0 && n.ran == 1) || (r == -ENOENT && n.ran == 0));
			} else if (flags == LF_TIMELINE_ORDERED) {
				assert_int_equal(lf_fence_wait(f[1], 0), 0);
			} else {
				r = lf_fence_wait_many(
					&(struct lf_wait_many){ .fences = &f[1], .slots = &slot, .count = 1, .need = 1 }, NULL);
				assert_int_equal(r, 0);
			}
			check_answered(&p, f, answers[way % 2].status, flags == LF_TIMELINE_ORDERED);
			assert_int_equal(early.ran, flags == LF_TIMELINE_ORDERED);
			assert_int_equal(p.enables, 2);
			put_all(f, 3);
			producer_fini(&p, 3);
		}
	}
}

static void check_asks_the_producer_and_completes_the_fence(void **state)
{
	(void)state;
	for (unsigned flags = LF_TIMELINE_ORDERED; flags <= LF_TIMELINE_UNORDERED; flags++) {
		for (int a = 0; a < 2; a++) {
			struct producer p;
			struct lf_fence *f[3];
			struct noted_cb n[2];

			producer_init(&p, flags);
			for (int i = 0; i < 3; i++)
				f[i] = emit(p.tl);
			noted_add(&n[0], f[0]);
			noted_add(&n[1], f[1]);
			assert_int_equal(lf_fence_check(f[1]), 0);
			assert_int_equal(p.polls, 1);
			p.poll_result = answers[a].answer;
			assert_int_equal(lf_fence_status(f[1]), 0);
			assert_false(lf_fence_is_signaled(f[1]));
			assert_int_equal(p.polls, 1);
			assert_int_equal(lf_fence_check(f[1]), answers[a].status);
			assert_int_equal(p.polls, 2);
			assert_int_equal(n[1].ran, 1);
			assert_int_equal(n[0].ran, flags == LF_TIMELINE_ORDERED);
			check_answered(&p, f, answers[a].status, flags == LF_TIMELINE_ORDERED);
			/* A signaled fence needs nobody. */
			assert_int_equal(lf_fence_check(f[1]), answers[a].status);
			assert_int_equal(p.polls, 2);
			put_all(f, 3);
			producer_fini(&p, 3);
		}
	}
}

static void check_and_hint_without_hooks_only_look(void **state)
{
	struct lf_timeline *tl = create("hookless", LF_TIMELINE_ORDERED);
	struct lf_fence *f = emit(tl);
	struct noted_cb n;

	(void)state;
	assert_int_equal(lf_fence_check(f), 0);
	lf_fence_set_deadline(f, 17);
	noted_add(&n, f);
	assert_int_equal(lf_timeline_signal_to(tl, 1, -EIO), 1);
	assert_int_equal(lf_fence_check(f), -EIO);
	lf_fence_set_deadline(f, 18);
	assert_int_equal(n.ran, 1);
	lf_timeline_put(tl);
	lf_fence_put(f);
}

static void hook_that_is_called_for_inside_a_read_section_is_reported_and_called(void **state)
{
	struct producer p;
	struct noted_cb n;
	struct lf_fence *f;

	(void)state;
	producer_init(&p, LF_TIMELINE_ORDERED);
	f = emit(p.tl);
	lf_read_lock();
	assert_int_equal(lf_fence_check(f), 0);
	lf_fence_set_deadline(f, 17);
	noted_add(&n, f);
	lf_read_unlock();
	assert_int_equal(log_count(LF_LOG_MISUSE), 3);
	log_reset();
	assert_int_equal(p.polls, 1);
	assert_int_equal(p.hints, 1);
	assert_int_equal(p.enables, 1);
	assert_int_equal(p.wrong, 3); /* the hooks found themselves in a section */
	p.wrong = 0;
	assert_int_equal(lf_timeline_signal_to(p.tl, 1, 0), 1);
	assert_int_equal(n.ran, 1);
	lf_fence_put(f);
	producer_fini(&p, 1);
}

static void deadline_hints_reach_the_producer_while_the_fence_is_pending(void **state)
{
	struct producer p;
	struct lf_fence *f;

	(void)state;
	producer_init(&p, LF_TIMELINE_ORDERED);
	f = emit(p.tl);
	lf_fence_set_deadline(f, 5000);
	assert_int_equal(p.hints, 1);
	assert_true(p.hint == 5000);
	lf_fence_set_deadline(f, 0);
	assert_int_equal(p.hints, 2);
	assert_true(p.hint == 0);
	assert_int_equal(lf_timeline_signal_to(p.tl, 1, 0), 1);
	lf_fence_set_deadline(f, 6000);
	assert_int_equal(p.hints, 2);
	assert_int_equal(p.late, 0);
	lf_fence_put(f);
	producer_fini(&p, 1);
}

static void detach_comes_before_the_first_callback(void **state)
{
	struct producer p;
	struct lf_fence *f;
	struct noted_cb n;

	(void)state;
	producer_init(&p, LF_TIMELINE_ORDERED);
	f = emit(p.tl);
	memset(&n, 0, sizeof(n));
	n.producer = &p;
	assert_int_equal(lf_fence_add_callback(f, &n.cb, noted_run), 0);
	assert_int_equal(lf_timeline_signal_to(p.tl, 1, 0), 1);
	assert_int_equal(n.ran, 1);
	assert_int_equal(n.detaches, 1);
	lf_fence_put(f);
	producer_fini(&p, 1);
}

enum path { PATH_TO, PATH_ONE, PATH_LOSE, PATH_EMIT_LOST, PATH_DROP, PATH_ENABLE, PATH_POLL, PATHS };

static void detach_comes_exactly_once_on_every_path(void **state)
{
	(void)state;
	for (unsigned flags = LF_TIMELINE_ORDERED; flags <= LF_TIMELINE_UNORDERED; flags++) {
		for (int path = 0; path < PATHS; path++) {
			struct producer p;
			struct lf_fence *f;

			if (path == PATH_ONE && flags == LF_TIMELINE_ORDERED)
				continue;
			producer_init(&p, flags);
			if (path == PATH_EMIT_LOST)
				assert_int_equal(lf_timeline_lose(p.tl, -EIO), 0);
			f = emit(p.tl);
			assert_int_equal(p.detaches, path == PATH_EMIT_LOST);
			switch (path) {
			case PATH_TO:
				assert_int_equal(lf_timeline_signal_to(p.tl, 1, 0), 1);
				break;
			case PATH_ONE:
				assert_true(lf_timeline_signal_one(p.tl, f, 0));
				break;
			case PATH_LOSE:
				assert_int_equal(lf_timeline_lose(p.tl, -EIO), 1);
				break;
			case PATH_DROP:
				lf_timeline_get(p.tl);
				lf_timeline_put(p.tl);
				break;
			case PATH_ENABLE:
				p.enable_result = 1;
				assert_int_equal(lf_fence_wait(f, 0), 0);
				break;
			case PATH_POLL:
				p.poll_result = 1;
				assert_int_equal(lf_fence_check(f), 1);
				break;
			}
			assert_int_equal(p.detaches, path != PATH_DROP);
			assert_int_equal(p.releases, 0);
			lf_timeline_signal_to(p.tl, UINT64_MAX, 0);
			lf_timeline_lose(p.tl, -EIO);
			lf_fence_check(f);
			producer_fini(&p, 1);
			/* Nor later, when the fence itself goes. */
			lf_fence_put(f);
			assert_int_equal(lf_reclaim_barrier(), 0);
			assert_int_equal(p.detaches, 1);
			assert_int_equal(p.releases, 1);
		}
	}
}

static void signal_own(struct producer *p, struct lf_fence *f, enum hook hook)
{
	if (hook == HOOK_DETACH || hook == HOOK_RELEASE)
		return;
	lf_timeline_signal_to(p->tl, lf_fence_seqno(f), -EIO);
}

static void hook_may_signal_its_own_fence_and_is_not_detached_inside(void **state)
{
	(void)state;
	for (int hook = HOOK_ENABLE; hook <= HOOK_DEADLINE; hook++) {
		for (int answer = 0; answer <= 1; answer++) {
			struct producer p;
			struct lf_fence *f;

			producer_init(&p, LF_TIMELINE_ORDERED);
			p.during = signal_own;
			p.enable_result = p.poll_result = answer;
			f = emit(p.tl);
			if (hook == HOOK_ENABLE)
				assert_int_equal(lf_fence_wait(f, 0), 0);
			else if (hook == HOOK_POLL)
				assert_int_equal(lf_fence_check(f), -EIO);
			else
				lf_fence_set_deadline(f, 1);
			/* The first result stays, whatever the hook answers afterwards. */
			assert_int_equal(lf_fence_status(f), -EIO);
			assert_int_equal(p.detaches, 1);
			assert_int_equal(p.detached_inside, 0);
			lf_fence_put(f);
			producer_fini(&p, 1);
		}
	}
}

static void hook_may_signal_its_own_fence_while_a_callback_is_added(void **state)
{
	struct producer p;
	struct lf_fence *f;
	struct noted_cb n = { .ran = 0 };
	int r;

	(void)state;
	producer_init(&p, LF_TIMELINE_ORDERED);
	p.during = signal_own;
	f = emit(p.tl);
	r = lf_fence_add_callback(f, &n.cb, noted_run);
	assert_true((r == 0 && n.ran == 1) || (r == -ENOENT && n.ran == 0));
	assert_int_equal(p.detached_inside, 0);
	lf_fence_put(f);
	producer_fini(&p, 1);
}

/* A hook that stays inside until the test lets it go. */
struct held_hook {
	enum hook which;
	struct flag inside, go;
};

static void stay_inside(struct producer *p, struct lf_fence *f, enum hook hook)
{
	struct held_hook *h = p->user;

	(void)f;
	if (hook != h->which)
		return;
	flag_set(&h->inside);
	flag_wait(&h->go);
}

struct poke {
	enum hook which;
	struct lf_fence *f;
	struct noted_cb n;
	int result;
};

static void *poke(void *arg)
{
	struct poke *k = arg;

	switch (k->which) {
	case HOOK_ENABLE:
		k->result = lf_fence_add_callback(k->f, &k->n.cb, noted_run);
		break;
	case HOOK_POLL:
		k->result = lf_fence_check(k->f);
		break;
	default:
		lf_fence_set_deadline(k->f, 1);
		break;
	}
	return NULL;
}

static void signal_during_a_hook_of_another_thread_leaves_detach_to_the_end_of_the_hook(void **state)
{
	(void)state;
	for (int hook = HOOK_ENABLE; hook <= HOOK_DEADLINE; hook++) {
		for (int drop = 0; drop <= 1; drop++) {
			struct producer p;
			struct held_hook h = { .which = (enum hook)hook };
			struct poke k = { .which = (enum hook)hook };
			struct noted_cb n;
			pthread_t thread;

			producer_init(&p, LF_TIMELINE_ORDERED);
			k.f = emit(p.tl);
			if (hook != HOOK_ENABLE)
				noted_add(&n, k.f); /* enables */
			p.during = stay_inside;
			p.user = &h;
			flag_init(&h.inside);
			flag_init(&h.go);
			thread = thread_start(poke, &k, 0);
			flag_wait(&h.inside);
			if (drop) {
				lf_timeline_put(p.tl);
				p.tl = NULL;
			} else {
				assert_int_equal(lf_timeline_signal_to(p.tl, 1, -ECANCELED), 1);
			}
			/* Everybody but the producer's payload is done with it; release waits for detach. */
			assert_int_equal(lf_fence_status(k.f), -ECANCELED);
			if (hook != HOOK_ENABLE)
				assert_int_equal(n.ran, 1);
			assert_int_equal(count_get(&p.detaches), 0);
			assert_int_equal(count_get(&p.releases), 0);
			flag_set(&h.go);
			thread_join(thread);
			assert_int_equal(count_get(&p.detaches), 1);
			assert_int_equal(p.detached_inside, 0);
			if (hook == HOOK_ENABLE)
				assert_true((k.result == 0 && k.n.ran == 1) || (k.result == -ENOENT && k.n.ran == 0));
			if (hook == HOOK_POLL)
				assert_int_equal(k.result, -ECANCELED);
			flag_fini(&h.inside);
			flag_fini(&h.go);
			lf_fence_put(k.f);
			producer_fini(&p, 1);
		}
	}
}

static void put_own_timeline(struct producer *p, struct lf_fence *f, enum hook hook)
{
	struct lf_timeline *tl = p->tl;

	(void)f;
	if (hook != *(enum hook *)p->user || !tl)
		return;
	p->tl = NULL;
	lf_timeline_put(tl);
	/* Still inside a hook: the producer's data must not be let go, and of the two fences only the other one can be detached. */
	if (count_get(&p->releases) != 0 || (hook != HOOK_DETACH && count_get(&p->detaches) > 1))
		count_up(&p->wrong);
}

static void last_reference_may_be_put_inside_a_hook(void **state)
{
	(void)state;
	for (int hook = HOOK_ENABLE; hook <= HOOK_DETACH; hook++) {
		enum hook when = (enum hook)hook;
		struct producer p;
		struct lf_fence *f[2];

		producer_init(&p, LF_TIMELINE_ORDERED);
		p.during = put_own_timeline;
		p.user = &when;
		f[0] = emit(p.tl);
		f[1] = emit(p.tl);
		if (hook == HOOK_ENABLE) {
			assert_int_equal(lf_fence_wait(f[0], 0), 0);
		} else if (hook == HOOK_DEADLINE) {
			lf_fence_set_deadline(f[0], 1);
		} else {
			/* For detach the poll hook completes the fence, so that nobody else holds the timeline. */
			p.poll_result = hook == HOOK_DETACH ? -ECANCELED : 0;
			assert_int_equal(lf_fence_check(f[0]), -ECANCELED);
		}
		assert_null(p.tl);
		assert_int_equal(lf_fence_status(f[0]), -ECANCELED);
		assert_int_equal(lf_fence_status(f[1]), -ECANCELED);
		assert_name(f[0], "signaled-timeline");
		put_all(f, 2);
		producer_fini(&p, 2);
	}
}

static void put_in_callback(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct noted_cb *n = (struct noted_cb *)cb;
	struct lf_timeline *tl = n->producer->tl;

	n->producer->tl = NULL;
	lf_timeline_put(tl);
	noted_run(f, cb);
}

static void last_reference_may_be_put_inside_a_callback_of_its_own_fence(void **state)
{
	struct producer p;
	struct lf_timeline *tl;
	struct lf_fence *f[2];
	struct noted_cb n = { .producer = &p }, later;

	(void)state;
	producer_init(&p, LF_TIMELINE_ORDERED);
	tl = p.tl;
	f[0] = emit(tl);
	f[1] = emit(tl);
	assert_int_equal(lf_fence_add_callback(f[0], &n.cb, put_in_callback), 0);
	noted_add(&later, f[1]);
	p.poll_result = 1;
	/* check borrows the fence alone, so the timeline's only reference may go inside. */
	assert_int_equal(lf_fence_check(f[0]), 1);
	assert_int_equal(n.ran, 1);
	assert_int_equal(later.ran, 1);
	assert_int_equal(later.status, -ECANCELED);
	put_all(f, 2);
	producer_fini(&p, 2);
}

/* Uses the library as a hook may, on another thread, so that even a recursive lock that the caller holds would be found. */
struct other_user {
	struct lf_timeline *tl; /* NULL when it is gone */
	const struct lf_fence *f;
	unsigned failed;
};

static void *use_library(void *arg)
{
	struct other_user *u = arg;
	struct lf_timeline_desc desc = { .name = "from-a-hook" };
	struct lf_timeline *fresh;
	struct lf_fence *f;
	char buf[100];

	if (u->tl) {
		if (lf_timeline_emit(u->tl, 0, &f) != 0)
			u->failed++;
		else {
			if (lf_timeline_last_seqno(u->tl) < lf_fence_seqno(f) || lf_timeline_context(u->tl) != lf_fence_context(f))
				u->failed++;
			if (lf_timeline_signal_to(u->tl, lf_fence_seqno(f), 0) == 0 || !lf_fence_is_signaled(f))
				u->failed++;
			lf_fence_put(f);
		}
	}
	if (u->f && (lf_fence_name(u->f, buf, sizeof(buf)) <= 0 || lf_fence_describe(u->f, buf, sizeof(buf)) <= 0))
		u->failed++;
	if (lf_timeline_create(&desc, &fresh) != 0)
		u->failed++;
	else
		lf_timeline_put(fresh);
	return NULL;
}

static void use_elsewhere(struct producer *p, struct lf_fence *f, enum hook hook)
{
	unsigned *once = p->user;
	struct other_user u = { .tl = hook == HOOK_RELEASE ? NULL : p->tl, .f = f };

	/* Emitting in a hook leads to further hooks; once each is enough. */
	if (once[hook]++)
		return;
	thread_join(thread_start(use_library, &u, 0));
	p->wrong += u.failed;
}

static void hooks_run_outside_locks_and_read_sections(void **state)
{
	(void)state;
	for (unsigned flags = LF_TIMELINE_ORDERED; flags <= LF_TIMELINE_UNORDERED; flags++) {
		unsigned once[HOOK_RELEASE + 1] = { 0 };
		struct producer p;
		struct lf_fence *f[4];
		struct noted_cb n = { .ran = 0 };
		int r;

		producer_init(&p, flags);
		for (int i = 0; i < 4; i++)
			f[i] = emit(p.tl);
		/* Each other user signals everything, so each hook gets a fence of its own. */
		p.during = use_elsewhere;
		p.user = once;
		lf_fence_set_deadline(f[0], 1);
		lf_fence_put(f[1]);
		f[1] = emit(p.tl);
		assert_int_equal(lf_fence_check(f[1]), 1);
		lf_fence_put(f[2]);
		f[2] = emit(p.tl);
		r = lf_fence_add_callback(f[2], &n.cb, noted_run);
		assert_true((r == 0 && n.ran == 1) || (r == -ENOENT && n.ran == 0));
		lf_timeline_put(p.tl);
		p.tl = NULL;
		for (int hook = 0; hook <= HOOK_RELEASE; hook++)
			assert_true(once[hook] > 0);
		put_all(f, 4);
		/* Emitted: here 4 and 2, and one in each of the four hooks that still had the timeline. */
		producer_fini(&p, 10);
	}
}

static void release_comes_once_after_the_last_detach_also_without_fences(void **state)
{
	struct producer p;

	(void)state;
	producer_init(&p, LF_TIMELINE_ORDERED);
	lf_timeline_get(p.tl);
	lf_timeline_put(p.tl);
	assert_int_equal(p.releases, 0);
	producer_fini(&p, 0);
	/* With fences: producer_note() counts a detach after release as wrong, which producer_fini() checks. */
	producer_init(&p, LF_TIMELINE_UNORDERED);
	for (int i = 0; i < 50; i++)
		lf_fence_put(emit(p.tl));
	assert_int_equal(lf_timeline_signal_to(p.tl, 20, 0), 20);
	assert_int_equal(p.releases, 0);
	producer_fini(&p, 50);
}

static void signaled_fence_does_not_keep_the_producer(void **state)
{
	struct producer p;
	struct lf_fence *f;
	struct noted_cb n = { .ran = 0 };

	(void)state;
	producer_init(&p, LF_TIMELINE_ORDERED);
	f = emit(p.tl);
	producer_fini(&p, 1);
	/* Whatever is asked of the fence now reaches no hook; under a sanitizer the stack frame above would tell as well. */
	memset(&p, 0xff, sizeof(p));
	assert_int_equal(lf_fence_check(f), -ECANCELED);
	lf_fence_set_deadline(f, 1);
	assert_int_equal(lf_fence_wait(f, LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_fence_add_callback(f, &n.cb, noted_run), -ENOENT);
	assert_int_equal(lf_fence_wait_drained(f, LF_DEADLINE_NEVER), 0);
	lf_fence_put(f);
}

/* --- Memory -------------------------------------------------------------------------------------------------------------- */

/* An allocator that knows how many bytes are out: a ring that only grows would be a single block. */
static size_t bytes_live, bytes_peak;

static void *bytes_alloc(void *user, size_t size, size_t align)
{
	size_t room = align > 16 ? align : 16, live, peak;
	char *block = aligned_alloc(room, (room + size + room - 1) / room * room);

	(void)user;
	if (!block)
		return NULL;
	memcpy(block + room - 16, &size, sizeof(size));
	memcpy(block + room - 8, &room, sizeof(room));
	live = __atomic_add_fetch(&bytes_live, size, __ATOMIC_RELAXED);
	peak = __atomic_load_n(&bytes_peak, __ATOMIC_RELAXED);
	while (live > peak && !__atomic_compare_exchange_n(&bytes_peak, &peak, live, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	return block + room;
}

static void bytes_free(void *user, void *ptr)
{
	char *end = ptr;
	size_t size, room;

	(void)user;
	memcpy(&size, end - 16, sizeof(size));
	memcpy(&room, end - 8, sizeof(room));
	__atomic_sub_fetch(&bytes_live, size, __ATOMIC_RELAXED);
	free(end - room);
}

static void emit_and_signal_many(unsigned flags, long rounds)
{
	enum { WINDOW = 32 };
	struct lf_timeline *tl = create("window", flags);
	struct lf_fence *window[WINDOW] = { NULL };
	size_t before, peak, bound;
#ifdef LF_DEBUG_CHECKS
	struct lf_reclaim_stats stats;
#endif

	for (long i = 0; i < rounds; i++) {
		struct lf_fence **f = &window[i % WINDOW];

		if (*f) {
			if (flags == LF_TIMELINE_UNORDERED)
				assert_true(lf_timeline_signal_one(tl, *f, 0));
			else
				assert_int_equal(lf_timeline_signal_to(tl, lf_fence_seqno(*f), 0), 1);
			lf_fence_put(*f);
		}
		*f = emit(tl);
		if (i == 4L * WINDOW) {
			before = __atomic_load_n(&bytes_live, __ATOMIC_RELAXED);
			__atomic_store_n(&bytes_peak, before, __ATOMIC_RELAXED);
		}
	}
	before = __atomic_load_n(&bytes_live, __ATOMIC_RELAXED);
	peak = __atomic_load_n(&bytes_peak, __ATOMIC_RELAXED);
	test_note("%ld fences: %zu bytes live at the end, %zu at most", rounds, before, peak);
	/* 32 fences of 64 bytes, their ring, and what the library keeps: far below the bytes of a thousand fences. */
	bound = 64 << 10;
#ifdef LF_DEBUG_CHECKS
	/* Such a build keeps every fence for a grace period, so that use after the last put is seen. */
	lf_reclaim_get_stats(&stats);
	bound += (size_t)stats.limit * 128;
#endif
	assert_true(peak < bound);
	lf_timeline_put(tl);
	put_all(window, WINDOW);
}

static void memory_stays_in_proportion_to_what_is_pending(void **state)
{
	static const struct lf_allocator allocator = { bytes_alloc, bytes_free, NULL };
	long rounds = test_rounds(1000000);

	(void)state;
	assert_int_equal(lf_fini(), 0);
	assert_int_equal(lf_set_allocator(&allocator), 0);
	emit_and_signal_many(LF_TIMELINE_ORDERED, rounds);
	emit_and_signal_many(LF_TIMELINE_UNORDERED, rounds / 10);
	assert_int_equal(lf_fini(), 0);
	assert_true(bytes_live == 0);
	fresh_library();
}

static int create_scenario(void *arg)
{
	struct lf_provider *provider;
	struct producer p = { .tl = NULL };
	int r;

	(void)arg;
	r = lf_provider_create("drv", &provider);
	if (r)
		return r;
	r = producer_create(&p, "oom", LF_TIMELINE_ORDERED, provider);
	if (r)
		assert_null(p.tl);
	lf_timeline_put(p.tl);
	lf_provider_put(provider);
	assert_int_equal(p.releases, r == 0);
	return r;
}

static int emit_scenario(void *arg)
{
	enum { N = 70 };
	struct producer p = { .tl = NULL };
	unsigned emitted = 0;
	int r = producer_create(&p, "oom", *(unsigned *)arg, NULL);

	while (r == 0 && emitted < N) {
		struct lf_fence *f = NULL;
		struct job *job = NULL;

		if (emitted % 2 == 0) {
			r = lf_timeline_emit(p.tl, 0, &f);
			assert_int_equal(f == NULL, r != 0);
		} else {
			job = lf_alloc(sizeof(*job));
			r = job ? lf_fence_init(&job->fence, offsetof(struct job, fence)) : -ENOMEM;
			if (r == 0) {
				f = &job->fence;
				r = lf_timeline_emit_fence(p.tl, 0, f);
				if (r) {
					/* Unchanged: it can still be signaled like any stand-alone fence. */
					assert_true(lf_fence_context(f) == 0);
					assert_true(lf_fence_signal(f, 0));
				}
			} else {
				lf_free(job);
			}
		}
		if (r == 0)
			emitted++;
		assert_true(lf_timeline_last_seqno(p.tl) == emitted);
		lf_fence_put(f);
	}
	if (p.tl) {
		assert_int_equal(lf_timeline_signal_to(p.tl, 10, 0), emitted < 10 ? emitted : 10);
		producer_fini(&p, emitted);
	}
	return r;
}

static void every_failed_allocation_leaves_the_timeline_as_it_was(void **state)
{
	(void)state;
	assert_int_equal(create_scenario(NULL), 0);
	assert_true(alloc_fail_each(create_scenario, NULL) >= 2);
	for (unsigned flags = LF_TIMELINE_ORDERED; flags <= LF_TIMELINE_UNORDERED; flags++)
		assert_true(alloc_fail_each(emit_scenario, &flags) >= 71);
}

static void completing_allocates_nothing(void **state)
{
	struct producer p;
	struct lf_fence *f[40];

	(void)state;
	for (unsigned flags = LF_TIMELINE_ORDERED; flags <= LF_TIMELINE_UNORDERED; flags++) {
		producer_init(&p, flags);
		for (int i = 0; i < 40; i++)
			f[i] = emit(p.tl);
		alloc_fail_at(1);
		assert_int_equal(lf_timeline_signal_to(p.tl, 10, 0), 10);
		if (flags == LF_TIMELINE_UNORDERED)
			assert_true(lf_timeline_signal_one(p.tl, f[20], 0));
		p.poll_result = 1;
		assert_int_equal(lf_fence_check(f[25]), 1);
		assert_true(lf_timeline_lose(p.tl, -EIO) > 0);
		put_all(f, 40);
		producer_fini(&p, 40);
		assert_false(alloc_failed());
		alloc_fail_at(0);
	}
}

static void what_is_missing_is_reported(void **state)
{
	struct lf_fence f, *ret = NULL;
	struct lf_timeline *tl;

	(void)state;
	assert_int_equal(lf_timeline_create(&(struct lf_timeline_desc){ .name = "t" }, &tl), 0);
	assert_int_equal(lf_timeline_emit(NULL, 1, &ret), -EINVAL);
	assert_int_equal(lf_timeline_emit(tl, 1, NULL), -EINVAL);
	assert_int_equal(lf_timeline_emit_fence(tl, 1, NULL), -EINVAL);
	assert_int_equal(lf_timeline_emit_fence(NULL, 1, &f), -EINVAL);
	lf_timeline_signal_to(NULL, 1, 0);
	lf_timeline_signal_one(NULL, NULL, 0);
	lf_timeline_lose(NULL, -EIO);
	assert_int_equal(log_count(LF_LOG_MISUSE), 7);
	log_reset();
	lf_timeline_put(tl);
}

static void signalling_inside_a_read_section_is_reported(void **state)
{
	struct lf_timeline *tl;
	struct lf_fence *f;

	(void)state;
	assert_int_equal(lf_timeline_create(&(struct lf_timeline_desc){ .name = "t" }, &tl), 0);
	assert_int_equal(lf_timeline_emit(tl, 1, &f), 0);
	lf_read_lock();
	lf_timeline_signal_to(tl, 1, 0);
	lf_read_unlock();
	assert_true(log_contains("inside a read section"));
	assert_true(lf_fence_is_signaled(f)); /* all the same */
	log_reset();
	lf_fence_put(f);
	lf_timeline_put(tl);
}

static void a_pending_fence_that_is_put_once_too_often_stays_its_timelines(void **state)
{
	struct lf_timeline *tl;
	struct lf_fence *f;

	(void)state;
	assert_int_equal(lf_timeline_create(&(struct lf_timeline_desc){ .name = "t" }, &tl), 0);
	assert_int_equal(lf_timeline_emit(tl, 1, &f), 0);
	lf_fence_put(f);
	lf_fence_put(f);
	assert_true(log_contains("was put once too often; its timeline's reference stays"));
	log_reset();
	lf_timeline_signal_to(tl, 1, 0); /* ends the fence */
	lf_timeline_put(tl);
}

static void a_hook_that_is_called_for_inside_a_read_section_is_reported(void **state)
{
	struct producer p;
	struct lf_fence *f;

	(void)state;
	producer_init(&p, 0);
	f = emit(p.tl);
	lf_read_lock();
	lf_fence_check(f); /* runs the poll hook all the same */
	lf_read_unlock();
	assert_true(log_contains("was called for inside a read section"));
	log_reset();
	p.wrong = 0; /* the producer has noticed, too */
	lf_timeline_signal_to(p.tl, 1, 0);
	lf_fence_put(f);
	producer_fini(&p, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(create_without_name_or_with_unknown_flags_is_refused_and_reported),
		TEST(context_ids_are_unique_and_not_zero),
		TEST(fence_knows_context_seqno_order_and_name_of_its_timeline),
		TEST(name_is_copied_cut_and_prefixed_by_the_provider),
		TEST(long_name_is_given_in_full),
		TEST(name_is_forgotten_with_the_timeline),
		TEST(describe_tells_name_place_and_result),
		TEST(null_timeline_may_be_taken_and_put),
		TEST(seqnos_rise_by_one_or_to_where_the_caller_says),
		TEST(fences_of_different_timelines_are_not_compared),
		TEST(seqno_that_does_not_rise_is_refused_and_reported),
		TEST(last_seqno_of_all_is_usable_and_none_is_left_after_it),
		TEST(embedded_fence_is_emitted_and_lasts_as_long_as_a_reference),
		TEST(emit_fence_refuses_any_other_fence_and_reports_it),
		TEST(fence_that_could_not_be_emitted_stays_stand_alone_and_can_be_emitted_again),
		TEST(a_hundred_thousand_may_be_pending_and_complete_in_one_call),
		TEST(signal_to_completes_up_to_the_seqno_with_one_timestamp_and_counts),
		TEST(signal_to_carries_an_error_and_a_bad_one_counts_as_EINVAL),
		TEST(earlier_timestamp_is_moved_up_on_an_ordered_timeline),
		TEST(timestamps_of_an_unordered_timeline_are_taken_as_given),
		TEST(callback_that_blocks_holds_up_no_waiter_of_a_fence_that_was_signaled_with_its_own),
		TEST(callback_that_blocks_holds_up_no_detach_of_a_fence_that_was_signaled_with_its_own),
		TEST(unordered_fences_are_signaled_one_by_one_in_any_order),
		TEST(signal_to_skips_what_was_signaled_by_itself),
		TEST(signal_one_on_an_ordered_timeline_or_a_foreign_fence_is_refused_and_reported),
		TEST(fence_of_a_timeline_is_not_signaled_like_a_stand_alone_one),
		TEST(loss_completes_the_pending_and_all_that_is_emitted_later),
		TEST(timestamps_do_not_go_backwards_across_a_loss),
		TEST(loss_without_an_error_is_reported),
		TEST(drop_cancels_what_is_pending_and_runs_callbacks),
		TEST(fences_that_nobody_holds_are_freed_when_they_complete),
		TEST(timelines_that_drop_each_other_in_callbacks_need_no_stack),
		TEST(callback_may_emit_and_signal_on_its_own_timeline_without_end),
		TEST(enable_is_called_once_at_the_first_interest_and_not_for_looking),
		TEST(enable_that_answers_completes_the_fence_and_the_earlier_of_an_ordered_timeline),
		TEST(check_asks_the_producer_and_completes_the_fence),
		TEST(check_and_hint_without_hooks_only_look),
		TEST(hook_that_is_called_for_inside_a_read_section_is_reported_and_called),
		TEST(deadline_hints_reach_the_producer_while_the_fence_is_pending),
		TEST(detach_comes_before_the_first_callback),
		TEST(detach_comes_exactly_once_on_every_path),
		TEST(hook_may_signal_its_own_fence_and_is_not_detached_inside),
		TEST(hook_may_signal_its_own_fence_while_a_callback_is_added),
		TEST(signal_during_a_hook_of_another_thread_leaves_detach_to_the_end_of_the_hook),
		TEST(last_reference_may_be_put_inside_a_hook),
		TEST(last_reference_may_be_put_inside_a_callback_of_its_own_fence),
		TEST(hooks_run_outside_locks_and_read_sections),
		TEST(release_comes_once_after_the_last_detach_also_without_fences),
		TEST(signaled_fence_does_not_keep_the_producer),
		TEST_FRESH(memory_stays_in_proportion_to_what_is_pending),
		TEST(every_failed_allocation_leaves_the_timeline_as_it_was),
		TEST(completing_allocates_nothing),
		TEST(what_is_missing_is_reported),
		TEST(signalling_inside_a_read_section_is_reported),
		TEST(a_pending_fence_that_is_put_once_too_often_stays_its_timelines),
		TEST(a_hook_that_is_called_for_inside_a_read_section_is_reported),
	};

	return TEST_MAIN(tests);
}
