/* SPDX-License-Identifier: MIT */
/* A fence by itself: its life, what can be asked of it, and what is said when it is misused. */
#include "testing.h"

#if UINTPTR_MAX == UINT64_MAX
_Static_assert(sizeof(struct lf_fence) == 64, "a fence is one cache line");
#endif
_Static_assert(sizeof(struct lf_fence_cb) == 4 * sizeof(void *), "a callback node is four words");

static struct lf_fence *make_fence(void)
{
	struct lf_fence *f = NULL;
	must(lf_fence_create(&f) == 0);
	return f;
}

static struct lf_fence *make_signaled(int error, int64_t timestamp)
{
	struct lf_fence *f = NULL;
	must(lf_fence_create_signaled(error, timestamp, &f) == 0);
	return f;
}

/* --- States ------------------------------------------------------------------------------------------------------------- */

static void new_fence_is_pending(void **state)
{
	struct lf_fence *f = make_fence();
	assert_false(lf_fence_is_signaled(f));
	assert_false(lf_fence_is_drained(f));
	assert_int_equal(lf_fence_status(f), 0);
	assert_true(lf_fence_timestamp(f) == INT64_MIN);
	assert_int_equal(lf_fence_check(f), 0);
	lf_fence_put(f);
}

static void signal_without_error_gives_status_1(void **state)
{
	struct lf_fence *f = make_fence();
	assert_true(lf_fence_signal(f, 0));
	assert_true(lf_fence_is_signaled(f));
	assert_true(lf_fence_is_drained(f));
	assert_int_equal(lf_fence_status(f), 1);
	assert_int_equal(lf_fence_check(f), 1);
	lf_fence_put(f);
}

static void signal_reads_the_time_from_the_clock(void **state)
{
	clock_set(123456789);
	struct lf_fence *f = make_fence();
	lf_fence_signal(f, 0);
	clock_set(987654321);
	assert_true(lf_fence_timestamp(f) == 123456789);
	lf_fence_put(f);
}

static void timestamp_lies_between_the_times_before_and_after(void **state)
{
	struct lf_fence *f = make_fence();
	int64_t before = lf_now();
	lf_fence_signal(f, 0);
	int64_t after = lf_now();
	assert_true(before <= lf_fence_timestamp(f));
	assert_true(lf_fence_timestamp(f) <= after);
	lf_fence_put(f);
}

static void signal_at_takes_the_given_time(void **state)
{
	static const int64_t times[] = { 0, 1, -5, INT64_MAX, INT64_MIN + 1 };
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		struct lf_fence *f = make_fence();
		assert_true(lf_fence_signal_at(f, -EIO, times[i]));
		assert_true(lf_fence_timestamp(f) == times[i]);
		assert_int_equal(lf_fence_status(f), -EIO);
		lf_fence_put(f);
	}
}

static void second_signal_returns_false_and_changes_nothing(void **state)
{
	struct lf_fence *f = make_fence();
	assert_true(lf_fence_signal_at(f, -ECANCELED, 10));
	assert_false(lf_fence_signal(f, 0));
	assert_false(lf_fence_signal_at(f, -EIO, 20));
	assert_int_equal(lf_fence_status(f), -ECANCELED);
	assert_true(lf_fence_timestamp(f) == 10);
	assert_int_equal(log_count(LF_LOG_MISUSE), 0);
	lf_fence_put(f);
}

static void every_error_of_the_range_is_kept(void **state)
{
	for (int error = -1; error >= -LF_MAX_ERROR; error--) {
		struct lf_fence *f = make_fence();
		assert_true(lf_fence_signal(f, error));
		assert_int_equal(lf_fence_status(f), error);
		lf_fence_put(f);
	}
	assert_int_equal(log_count(LF_LOG_MISUSE), 0);
}

static void error_out_of_range_is_reported_and_becomes_EINVAL(void **state)
{
	static const int errors[] = { 1, 2, INT32_MAX, -LF_MAX_ERROR - 1, INT32_MIN };
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		struct lf_fence *f = make_fence();
		assert_true(lf_fence_signal(f, errors[i]));
		assert_int_equal(lf_fence_status(f), -EINVAL);
		assert_int_equal(log_count(LF_LOG_MISUSE), 1);
		log_reset();
		lf_fence_put(f);

		f = make_fence();
		assert_true(lf_fence_signal_at(f, errors[i], 7));
		assert_int_equal(lf_fence_status(f), -EINVAL);
		assert_true(lf_fence_timestamp(f) == 7);
		assert_int_equal(log_count(LF_LOG_MISUSE), 1);
		log_reset();
		lf_fence_put(f);

		f = make_signaled(errors[i], 8);
		assert_int_equal(lf_fence_status(f), -EINVAL);
		assert_int_equal(log_count(LF_LOG_MISUSE), 1);
		log_reset();
		lf_fence_put(f);
	}
}

static void create_signaled_is_drained_with_result_and_time(void **state)
{
	struct lf_fence *f = make_signaled(0, 42);
	assert_true(lf_fence_is_signaled(f));
	assert_true(lf_fence_is_drained(f));
	assert_int_equal(lf_fence_status(f), 1);
	assert_true(lf_fence_timestamp(f) == 42);
	assert_false(lf_fence_signal(f, -EIO));
	lf_fence_put(f);

	f = make_signaled(-ENODEV, -1);
	assert_int_equal(lf_fence_status(f), -ENODEV);
	assert_true(lf_fence_timestamp(f) == -1);
	lf_fence_put(f);
}

/* Nothing runs when a fence is born signaled, so this is no signal that a read section would forbid. */
static void create_signaled_is_allowed_inside_a_read_section(void **state)
{
	lf_read_lock();
	struct lf_fence *f = make_signaled(0, 42);
	lf_read_unlock();
	assert_int_equal(log_count(LF_LOG_MISUSE), 0);
	assert_int_equal(lf_fence_status(f), 1);
	lf_fence_put(f);
}

static void stand_alone_fences_cannot_be_compared(void **state)
{
	struct lf_fence *a = make_fence(), *b = make_fence();
	assert_true(lf_fence_context(a) == 0);
	assert_true(lf_fence_seqno(a) == 0);
	assert_false(lf_fence_is_ordered(a));
	assert_false(lf_fence_is_later(a, b));
	assert_false(lf_fence_is_later(b, a));
	assert_false(lf_fence_is_later(a, a));
	lf_fence_put(a);
	lf_fence_put(b);
}

static void set_deadline_is_accepted_in_every_state(void **state)
{
	struct lf_fence *f = make_fence();
	lf_fence_set_deadline(f, 0);
	lf_fence_set_deadline(f, LF_DEADLINE_NEVER);
	assert_int_equal(lf_fence_status(f), 0);
	lf_fence_signal(f, 0);
	lf_fence_set_deadline(f, INT64_MIN);
	assert_int_equal(lf_fence_status(f), 1);
	lf_fence_put(f);
	lf_fence_set_deadline(lf_fence_stub(), 5);
}

/* --- References --------------------------------------------------------------------------------------------------------- */

static void references_keep_the_fence_until_the_last_put(void **state)
{
	long before = alloc_live();
	struct lf_fence *f = make_fence();
	assert_int_equal(alloc_live(), before + 1);
	for (int i = 0; i < 1000; i++)
		assert_ptr_equal(lf_fence_get(f), f);
	for (int i = 0; i < 1000; i++)
		lf_fence_put(f);
	assert_int_equal(alloc_live(), before + 1);
	assert_int_equal(lf_fence_status(f), 0);
	lf_fence_put(f);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(alloc_live(), before);
}

static void get_put_and_tryget_take_NULL(void **state)
{
	assert_null(lf_fence_get(NULL));
	assert_null(lf_fence_tryget(NULL));
	lf_fence_put(NULL);
}

static void tryget_takes_a_reference_while_there_is_one(void **state)
{
	struct lf_fence *f = make_fence();
	lf_fence_publish(f);
	lf_read_lock();
	assert_ptr_equal(lf_fence_tryget(f), f);
	lf_read_unlock();
	lf_fence_put(f);
	assert_int_equal(lf_fence_status(f), 0);
	lf_fence_signal(f, 0);
	lf_fence_put(f);
}

static void published_fence_outlives_its_last_reference_by_the_read_section(void **state)
{
	long before = alloc_live();
	struct lf_fence *f = make_fence();
	lf_fence_publish(f);
	lf_fence_signal_at(f, -EIO, 99);
	lf_read_lock();
	lf_fence_put(f);
	assert_null(lf_fence_tryget(f));
	assert_int_equal(alloc_live(), before + 1);
	/* to a reader it is the live fence that it was, with nothing to report */
	assert_int_equal(lf_fence_status(f), -EIO);
	assert_true(lf_fence_timestamp(f) == 99);
	assert_int_equal(log_count(LF_LOG_MISUSE), 0);
	lf_read_unlock();
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(alloc_live(), before);
}

/*
 * The limit is the library's own; both places where a 32-bit count may have one are tried. What must not be is that a count wraps, and
 * that a fence which lost count is freed.
 */
static void full_reference_count_stays_full_and_is_reported(void **state)
{
	static const uint32_t near_limit[] = { INT32_MAX - 100, UINT32_MAX - 100 };
	unsigned reports = 0;
	for (size_t i = 0; i < sizeof(near_limit) / sizeof(near_limit[0]); i++) {
		long before = alloc_live();
		struct lf_fence *f = make_fence();
		uint32_t one = f->count.value;
		f->count.value = near_limit[i];
		for (int n = 0; n < 1000; n++)
			assert_ptr_equal(lf_fence_get(f), f);
		reports += log_count(LF_LOG_MISUSE);
		for (int n = 0; n < 100000; n++)
			lf_fence_put(f);
		/* all the puts that a wrapped count could stand are behind us, and the fence lives */
		assert_int_equal(lf_reclaim_barrier(), 0);
		assert_int_equal(alloc_live(), before + 1);
		assert_true(f->count.value > INT32_MAX / 2);
		assert_int_equal(lf_fence_status(f), 0);
		assert_true(lf_fence_signal(f, 0));
		f->count.value = one;
		lf_fence_put(f);
		assert_int_equal(lf_reclaim_barrier(), 0);
		assert_int_equal(alloc_live(), before);
	}
	assert_true(reports >= 1);
	log_reset();
}

static void put_of_a_pending_fence_without_callbacks_is_legal(void **state)
{
	lf_fence_put(make_fence());
	assert_int_equal(log_count(LF_LOG_MISUSE), 0);
}

struct late {
	struct lf_fence_cb cb;
	int status;
	int runs;
	bool held_in_callback;
};

static void note_status(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct late *late = (struct late *)(void *)cb;
	late->status = lf_fence_status(f);
	late->runs++;
}

static void put_of_a_pending_fence_with_callbacks_completes_it_with_EDEADLK(void **state)
{
	struct late first = { .cb = LF_FENCE_CB_INIT }, second = { .cb = LF_FENCE_CB_INIT };
	struct lf_fence *f = make_fence();
	assert_int_equal(lf_fence_add_callback(f, &first.cb, note_status), 0);
	assert_int_equal(lf_fence_add_callback(f, &second.cb, note_status), 0);
	lf_fence_put(f);
	assert_int_equal(first.runs, 1);
	assert_int_equal(second.runs, 1);
	assert_int_equal(first.status, -EDEADLK);
	assert_int_equal(second.status, -EDEADLK);
	assert_int_equal(log_count(LF_LOG_MISUSE), 1);
	log_reset();
}

static void take_and_keep(struct lf_fence *f, struct lf_fence_cb *cb)
{
	note_status(f, cb);
	lf_fence_get(f);
}

/* "Before the count falls to zero": the fence is a live one for its callbacks, which may take references. */
static void callback_of_an_abandoned_fence_may_take_a_reference(void **state)
{
	long before = alloc_live();
	struct late late = { .cb = LF_FENCE_CB_INIT };
	struct lf_fence *f = make_fence();
	assert_int_equal(lf_fence_add_callback(f, &late.cb, take_and_keep), 0);
	lf_fence_put(f);
	assert_int_equal(late.status, -EDEADLK);
	assert_int_equal(log_count(LF_LOG_MISUSE), 1);
	log_reset();
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(alloc_live(), before + 1);
	assert_int_equal(lf_fence_status(f), -EDEADLK);
	lf_fence_put(f);
}

static void put_after_the_callbacks_were_removed_is_legal(void **state)
{
	struct late late = { .cb = LF_FENCE_CB_INIT };
	struct lf_fence *f = make_fence();
	assert_int_equal(lf_fence_add_callback(f, &late.cb, note_status), 0);
	assert_int_equal(lf_fence_remove_callback(f, &late.cb), LF_CB_REMOVED);
	lf_fence_put(f);
	assert_int_equal(late.runs, 0);
	assert_int_equal(log_count(LF_LOG_MISUSE), 0);
}

static void note_section(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct late *late = (struct late *)(void *)cb;
	note_status(f, cb);
	late->held_in_callback = lf_read_held();
}

static void signal_inside_a_read_section_is_reported_and_still_signals(void **state)
{
	struct late late = { .cb = LF_FENCE_CB_INIT };
	struct lf_fence *f = make_fence();
	assert_int_equal(lf_fence_add_callback(f, &late.cb, note_section), 0);
	lf_read_lock();
	assert_true(lf_fence_signal(f, -EIO));
	lf_read_unlock();
	assert_int_equal(log_count(LF_LOG_MISUSE), 1);
	log_reset();
	assert_int_equal(lf_fence_status(f), -EIO);
	assert_int_equal(late.runs, 1);
	assert_int_equal(late.status, -EIO);
	assert_true(lf_fence_is_drained(f));
	lf_fence_put(f);
}

/* --- Embedding ---------------------------------------------------------------------------------------------------------- */

struct job {
	char payload[40];
	struct lf_fence fence;
	char more[100];
};

static void embedded_fence_frees_its_block_with_the_last_reference(void **state)
{
	long before = alloc_live();
	struct job *job = lf_alloc(sizeof(*job));
	assert_non_null(job);
	assert_int_equal(lf_fence_init(&job->fence, offsetof(struct job, fence)), 0);
	assert_int_equal(alloc_live(), before + 1);
	assert_int_equal(lf_fence_status(&job->fence), 0);
	lf_fence_get(&job->fence);
	assert_true(lf_fence_signal(&job->fence, 0));
	lf_fence_put(&job->fence);
	assert_int_equal(alloc_live(), before + 1);
	lf_fence_put(&job->fence);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(alloc_live(), before);
}

static void fence_at_the_start_of_a_block_and_at_the_greatest_offset(void **state)
{
	static const size_t offsets[] = { 0, 8, 64, 512, LF_FENCE_MAX_OFFSET };
	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		for (int published = 0; published <= 1; published++) {
			long before = alloc_live();
			char *block = lf_alloc(offsets[i] + sizeof(struct lf_fence));
			assert_non_null(block);
			struct lf_fence *f = (struct lf_fence *)(void *)(block + offsets[i]);
			assert_int_equal(lf_fence_init(f, offsets[i]), 0);
			if (published)
				lf_fence_publish(f);
			lf_fence_signal(f, -1);
			assert_int_equal(lf_fence_status(f), -1);
			lf_fence_put(f);
			assert_int_equal(lf_reclaim_barrier(), 0);
			assert_int_equal(alloc_live(), before);
		}
	}
}

static void contents_of_the_memory_before_init_do_not_matter(void **state)
{
	for (int fill = 0; fill < 256; fill += 15) {
		struct job *job = lf_alloc(sizeof(*job));
		assert_non_null(job);
		memset(job, fill, sizeof(*job));
		assert_int_equal(lf_fence_init(&job->fence, offsetof(struct job, fence)), 0);
		assert_int_equal(lf_fence_status(&job->fence), 0);
		assert_true(lf_fence_timestamp(&job->fence) == INT64_MIN);
		assert_true(lf_fence_context(&job->fence) == 0);
		assert_true(lf_fence_seqno(&job->fence) == 0);
		assert_false(lf_fence_is_ordered(&job->fence));
		assert_int_equal((unsigned char)job->payload[39], fill);
		assert_int_equal((unsigned char)job->more[0], fill);
		lf_fence_put(&job->fence);
	}
}

static void offset_out_of_range_is_refused_and_the_block_stays_the_callers(void **state)
{
	static const size_t offsets[] = { 1, 4, 7, 12, LF_FENCE_MAX_OFFSET + 1, LF_FENCE_MAX_OFFSET + 8, SIZE_MAX - 7, SIZE_MAX };
	char *block = lf_alloc(4096);
	assert_non_null(block);
	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		assert_int_equal(lf_fence_init((struct lf_fence *)(void *)(block + 1024), offsets[i]), -EINVAL);
		assert_int_equal(log_count(LF_LOG_MISUSE), 1);
		log_reset();
	}
	lf_free(block);
}

/* --- The stub ----------------------------------------------------------------------------------------------------------- */

static void stub_is_always_signaled(void **state)
{
	struct lf_fence *stub = lf_fence_stub();
	assert_non_null(stub);
	assert_true(lf_fence_is_signaled(stub));
	assert_true(lf_fence_is_drained(stub));
	assert_int_equal(lf_fence_status(stub), 1);
	assert_true(lf_fence_timestamp(stub) == 0);
	assert_false(lf_fence_is_later(stub, stub));
	lf_fence_put(stub);
}

static void stub_is_one_fence_and_never_freed(void **state)
{
	struct lf_fence *stub = lf_fence_stub();
	long calls = alloc_calls();
	for (int i = 0; i < 1000; i++)
		assert_ptr_equal(lf_fence_stub(), stub);
	for (int i = 0; i < 3000; i++)
		lf_fence_put(stub);
	assert_int_equal(alloc_calls(), calls);
	assert_int_equal(lf_fence_status(stub), 1);
}

/* What is not written bounces between no caches: byte for byte, the stub stays what it was. */
static void using_the_stub_writes_nothing_to_it(void **state)
{
	struct lf_fence *stub = lf_fence_stub();
	struct lf_fence before;
	memcpy(&before, stub, sizeof(before));
	struct late late = { .cb = LF_FENCE_CB_INIT };
	struct lf_fence_slot slot = { { 0 } };
	char text[100];
	lf_fence_get(stub);
	lf_read_lock();
	assert_ptr_equal(lf_fence_tryget(stub), stub);
	lf_read_unlock();
	lf_fence_publish(stub);
	assert_int_equal(lf_fence_add_callback(stub, &late.cb, note_status), -ENOENT);
	assert_int_equal(lf_fence_wait(stub, LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_fence_wait_drained(stub, LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_fence_check(stub), 1);
	assert_true(lf_fence_describe(stub, text, sizeof(text)) > 0);
	assert_false(lf_fence_signal(stub, -EIO));
	lf_fence_slot_set(&slot, stub);
	lf_fence_slot_set(&slot, NULL);
	lf_fence_put(stub);
	assert_memory_equal(stub, &before, sizeof(before));
	assert_int_equal(late.runs, 0);
}

/* --- Names -------------------------------------------------------------------------------------------------------------- */

static void stand_alone_fence_has_a_name(void **state)
{
	char name[64] = "";
	struct lf_fence *f = make_fence();
	assert_int_equal(lf_fence_name(f, name, sizeof(name)), strlen("stand-alone"));
	assert_string_equal(name, "stand-alone");
	lf_fence_signal(f, 0);
	assert_int_equal(lf_fence_name(f, name, sizeof(name)), strlen("stand-alone"));
	assert_string_equal(name, "stand-alone");
	lf_fence_put(f);
}

typedef int (*writer)(const struct lf_fence *f, char *buf, size_t size);

/* Each size from 0 on: the text is a prefix, terminated, nothing behind is touched, and the length is always that of the whole. */
static void check_every_size(writer write, const struct lf_fence *f)
{
	char whole[512], cut[512];
	int length = write(f, whole, sizeof(whole));
	assert_true(length > 0 && (size_t)length < sizeof(whole));
	assert_int_equal(strlen(whole), length);
	assert_null(strchr(whole, '\n'));
	assert_int_equal(write(f, NULL, 0), length);
	for (size_t size = 0; size <= (size_t)length + 2; size++) {
		memset(cut, 'x', sizeof(cut));
		assert_int_equal(write(f, cut, size), length);
		assert_int_equal(cut[size], 'x');
		if (size == 0)
			continue;
		size_t kept = size <= (size_t)length ? size - 1 : (size_t)length;
		assert_int_equal(strlen(cut), kept);
		assert_memory_equal(cut, whole, kept);
	}
}

static void name_and_description_are_cut_as_snprintf_does(void **state)
{
	struct lf_fence *f = make_fence();
	check_every_size(lf_fence_name, f);
	check_every_size(lf_fence_describe, f);
	lf_fence_signal(f, -ETIME);
	check_every_size(lf_fence_describe, f);
	lf_fence_put(f);
	check_every_size(lf_fence_name, lf_fence_stub());
	check_every_size(lf_fence_describe, lf_fence_stub());
}

static void description_tells_the_states_and_results_apart(void **state)
{
	char pending[200], done[200], error[200];
	struct lf_fence *f = make_fence();
	lf_fence_describe(f, pending, sizeof(pending));
	assert_non_null(strstr(pending, "stand-alone"));
	lf_fence_signal_at(f, 0, 5000);
	lf_fence_describe(f, done, sizeof(done));
	assert_non_null(strstr(done, "stand-alone"));
	lf_fence_put(f);
	f = make_signaled(-EIO, 5000);
	lf_fence_describe(f, error, sizeof(error));
	lf_fence_put(f);
	assert_string_not_equal(pending, done);
	assert_string_not_equal(pending, error);
	assert_string_not_equal(done, error);
}

static void description_contains_context_and_seqno(void **state)
{
	char text[200], expected[64];
	struct lf_timeline *tl = NULL;
	struct lf_fence *f = NULL;
	const struct lf_timeline_desc desc = { .name = "ring" };
	assert_int_equal(lf_timeline_create(&desc, &tl), 0);
	assert_int_equal(lf_timeline_emit(tl, 77, &f), 0);
	lf_fence_describe(f, text, sizeof(text));
	snprintf(expected, sizeof(expected), "%llu:77", (unsigned long long)lf_timeline_context(tl));
	assert_non_null(strstr(text, expected));
	assert_non_null(strstr(text, "ring"));
	lf_timeline_put(tl);
	lf_fence_put(f);
}

static void description_contains_a_long_name_as_a_whole(void **state)
{
	char name[301], text[600];
	struct lf_timeline *tl = NULL;
	struct lf_fence *f = NULL;
	const struct lf_timeline_desc desc = { .name = name };
	memset(name, 'n', 300);
	name[300] = '\0';
	assert_int_equal(lf_timeline_create(&desc, &tl), 0);
	assert_int_equal(lf_timeline_emit(tl, 0, &f), 0);
	assert_int_equal(lf_fence_name(f, text, sizeof(text)), 300);
	assert_string_equal(text, name);
	int length = lf_fence_describe(f, text, sizeof(text));
	assert_int_equal(length, strlen(text));
	assert_non_null(strstr(text, name));
	lf_timeline_put(tl);
	lf_fence_put(f);
}

/* --- Whose fence it is -------------------------------------------------------------------------------------------------- */

static void signalling_a_fence_of_a_timeline_directly_is_reported(void **state)
{
	struct lf_timeline *tl = NULL;
	struct lf_fence *f = NULL;
	const struct lf_timeline_desc desc = { .name = "ring" };
	assert_int_equal(lf_timeline_create(&desc, &tl), 0);
	assert_int_equal(lf_timeline_emit(tl, 0, &f), 0);
	assert_false(lf_fence_signal(f, 0));
	assert_int_equal(log_count(LF_LOG_MISUSE), 1);
	log_reset();
	assert_false(lf_fence_signal_at(f, 0, 1));
	assert_int_equal(log_count(LF_LOG_MISUSE), 1);
	log_reset();
	assert_int_equal(lf_fence_status(f), 0);
	assert_int_equal(lf_timeline_signal_to(tl, 1, 0), 1);
	assert_int_equal(lf_fence_status(f), 1);
	lf_timeline_put(tl);
	lf_fence_put(f);
}

/* --- Many hooks at once ------------------------------------------------------------------------------------------------- */

enum { POLLERS = 40 };

struct busy_producer {
	struct lf_timeline *timeline;
	struct lf_fence *f;
	struct flag leave;
	pthread_mutex_t mutex;
	pthread_cond_t came;
	int polls_begun; /* protected by the mutex; threads that are through, with or without a hook, count too */
	int enabled;
	int detached;
};

static void one_more(struct busy_producer *p)
{
	pthread_mutex_lock(&p->mutex);
	p->polls_begun++;
	pthread_cond_signal(&p->came);
	pthread_mutex_unlock(&p->mutex);
}

static _Thread_local bool poll_ran;

static int poll_and_stay(struct lf_fence *f, void *data)
{
	struct busy_producer *p = data;
	poll_ran = true;
	one_more(p);
	flag_wait(&p->leave);
	return 0;
}

static int already_done(struct lf_fence *f, void *data)
{
	((struct busy_producer *)data)->enabled++;
	return 1;
}

static void count_detach(struct lf_fence *f, void *data)
{
	((struct busy_producer *)data)->detached++;
}

static void *check_on_thread(void *arg)
{
	struct busy_producer *p = arg;
	lf_fence_check(p->f);
	if (!poll_ran)
		one_more(p);
	return NULL;
}

/*
 * However many hooks are running, the fence is armed for its first callback (here: it turns out to be done), is detached once, and only
 * when the last of them has returned.
 */
static void fence_is_armed_and_detached_once_with_many_hooks_running(void **state)
{
	static const struct lf_fence_ops ops = { .enable = already_done, .poll = poll_and_stay, .detach = count_detach };
	struct busy_producer p = { .mutex = PTHREAD_MUTEX_INITIALIZER, .came = PTHREAD_COND_INITIALIZER };
	const struct lf_timeline_desc desc = { .name = "busy", .ops = &ops, .data = &p };
	struct late late = { .cb = LF_FENCE_CB_INIT };
	pthread_t threads[POLLERS];
	struct job *job = lf_alloc(sizeof(*job));
	assert_non_null(job);
	p.f = &job->fence;
	flag_init(&p.leave);
	assert_int_equal(lf_timeline_create(&desc, &p.timeline), 0);
	assert_int_equal(lf_fence_init(p.f, offsetof(struct job, fence)), 0);
	assert_int_equal(lf_timeline_emit_fence(p.timeline, 0, p.f), 0);
	for (int i = 0; i < POLLERS; i++)
		threads[i] = thread_start(check_on_thread, &p, 0);
	pthread_mutex_lock(&p.mutex);
	while (p.polls_begun < POLLERS)
		pthread_cond_wait(&p.came, &p.mutex);
	pthread_mutex_unlock(&p.mutex);
	assert_int_equal(lf_fence_add_callback(p.f, &late.cb, note_status), -ENOENT);
	assert_int_equal(p.enabled, 1);
	assert_int_equal(lf_fence_status(p.f), 1);
	int detached_early = p.detached;
	flag_set(&p.leave);
	for (int i = 0; i < POLLERS; i++)
		thread_join(threads[i]);
	assert_int_equal(detached_early, 0);
	assert_int_equal(p.detached, 1);
	lf_timeline_put(p.timeline);
	/* the block is found by its offset, which the teardown's count of blocks and a sanitizer check */
	lf_fence_put(p.f);
	flag_fini(&p.leave);
}

/* --- Only with debug checks: memory that is no fence -------------------------------------------------------------------- */

#ifdef LF_DEBUG_CHECKS
static void use_before_init_and_after_the_last_put_are_reported_and_told_apart(void **state)
{
	char before_init[512], after_put[512];
	struct lf_fence *f = lf_alloc(sizeof(*f));
	assert_non_null(f);
	lf_fence_status(f);
	assert_true(log_count(LF_LOG_MISUSE) >= 1);
	log_last(before_init, sizeof(before_init));
	log_reset();
	lf_free(f);

	f = make_fence();
	/* debug checks keep the memory of a dead fence for a grace period, so the read section keeps it here */
	lf_read_lock();
	lf_fence_put(f);
	lf_fence_status(f);
	assert_true(log_count(LF_LOG_MISUSE) >= 1);
	log_last(after_put, sizeof(after_put));
	log_reset();
	lf_read_unlock();
	assert_string_not_equal(before_init, after_put);
}

/* Every entry point that takes a fence looks at what it is given. */
static void every_call_reports_a_fence_that_was_never_initialised(void **state)
{
	struct lf_fence *f = lf_alloc(sizeof(*f));
	struct lf_fence_cb cb = LF_FENCE_CB_INIT;
	char text[100];
	assert_non_null(f);
#define REPORTS(call)                                                                                                              \
	do {                                                                                                                       \
		(void)(call);                                                                                                      \
		if (log_count(LF_LOG_MISUSE) == 0)                                                                                 \
			fail_msg("no report: %s", #call);                                                                          \
		log_reset();                                                                                                       \
		memset(f, 0, sizeof(*f));                                                                                          \
	} while (0)
	REPORTS(lf_fence_is_signaled(f));
	REPORTS(lf_fence_is_drained(f));
	REPORTS(lf_fence_status(f));
	REPORTS(lf_fence_timestamp(f));
	REPORTS(lf_fence_context(f));
	REPORTS(lf_fence_seqno(f));
	REPORTS(lf_fence_is_ordered(f));
	REPORTS(lf_fence_check(f));
	REPORTS((lf_fence_set_deadline(f, 0), 0));
	REPORTS(lf_fence_name(f, text, sizeof(text)));
	REPORTS(lf_fence_describe(f, text, sizeof(text)));
	REPORTS((lf_fence_publish(f), 0));
	REPORTS(lf_fence_get(f));
	REPORTS(lf_fence_add_callback(f, &cb, note_status) == 0);
	REPORTS(lf_fence_wait(f, 0));
	REPORTS(lf_fence_wait_drained(f, 0));
	REPORTS(lf_fence_signal(f, 0));
#undef REPORTS
	lf_free(f);
}
#endif

static void what_is_missing_is_reported(void **state)
{
	(void)state;
	assert_int_equal(lf_fence_init(NULL, 0), -EINVAL);
	assert_int_equal(lf_fence_create(NULL), -EINVAL);
	assert_int_equal(log_count(LF_LOG_MISUSE), 2);
	assert_null(lf_fence_get(NULL));
	lf_fence_put(NULL);
	log_reset();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(new_fence_is_pending),
		TEST(signal_without_error_gives_status_1),
		TEST(signal_reads_the_time_from_the_clock),
		TEST(timestamp_lies_between_the_times_before_and_after),
		TEST(signal_at_takes_the_given_time),
		TEST(second_signal_returns_false_and_changes_nothing),
		TEST(every_error_of_the_range_is_kept),
		TEST(error_out_of_range_is_reported_and_becomes_EINVAL),
		TEST(create_signaled_is_drained_with_result_and_time),
		TEST(create_signaled_is_allowed_inside_a_read_section),
		TEST(stand_alone_fences_cannot_be_compared),
		TEST(set_deadline_is_accepted_in_every_state),
		TEST(references_keep_the_fence_until_the_last_put),
		TEST(get_put_and_tryget_take_NULL),
		TEST(tryget_takes_a_reference_while_there_is_one),
		TEST(published_fence_outlives_its_last_reference_by_the_read_section),
		TEST(full_reference_count_stays_full_and_is_reported),
		TEST(put_of_a_pending_fence_without_callbacks_is_legal),
		TEST(put_of_a_pending_fence_with_callbacks_completes_it_with_EDEADLK),
		TEST(callback_of_an_abandoned_fence_may_take_a_reference),
		TEST(put_after_the_callbacks_were_removed_is_legal),
		TEST(signal_inside_a_read_section_is_reported_and_still_signals),
		TEST(embedded_fence_frees_its_block_with_the_last_reference),
		TEST(fence_at_the_start_of_a_block_and_at_the_greatest_offset),
		TEST(contents_of_the_memory_before_init_do_not_matter),
		TEST(offset_out_of_range_is_refused_and_the_block_stays_the_callers),
		TEST(stub_is_always_signaled),
		TEST(stub_is_one_fence_and_never_freed),
		TEST(using_the_stub_writes_nothing_to_it),
		TEST(stand_alone_fence_has_a_name),
		TEST(name_and_description_are_cut_as_snprintf_does),
		TEST(description_tells_the_states_and_results_apart),
		TEST(description_contains_context_and_seqno),
		TEST(description_contains_a_long_name_as_a_whole),
		TEST(signalling_a_fence_of_a_timeline_directly_is_reported),
		TEST(fence_is_armed_and_detached_once_with_many_hooks_running),
#ifdef LF_DEBUG_CHECKS
		TEST(use_before_init_and_after_the_last_put_are_reported_and_told_apart),
		TEST(every_call_reports_a_fence_that_was_never_initialised),
#endif
		TEST(what_is_missing_is_reported),
	};
	return TEST_MAIN(tests);
}
