/* SPDX-License-Identifier: MIT */
/* One published pointer to a fence: set, get, look. */
#include "testing.h"

_Static_assert(sizeof(struct lf_fence_slot) == sizeof(void *), "a slot is a pointer");

static struct lf_fence *make_fence(void)
{
	struct lf_fence *f = NULL;
	must(lf_fence_create(&f) == 0);
	return f;
}

static struct lf_fence *look(const struct lf_fence_slot *slot)
{
	lf_read_lock();
	struct lf_fence *f = lf_fence_slot_look(slot);
	lf_read_unlock();
	return f;
}

static void zeroed_memory_is_an_empty_slot(void **state)
{
	struct lf_fence_slot slot;
	memset(&slot, 0, sizeof(slot));
	assert_null(lf_fence_slot_get(&slot));
	assert_null(look(&slot));
	lf_fence_slot_set(&slot, NULL);
	assert_null(lf_fence_slot_get(&slot));
}

static void set_takes_a_reference(void **state)
{
	long before = alloc_live();
	struct lf_fence_slot slot = { { 0 } };
	struct lf_fence *f = make_fence();
	lf_fence_slot_set(&slot, f);
	lf_fence_signal(f, -EIO);
	lf_fence_put(f);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(alloc_live(), before + 1);
	assert_ptr_equal(look(&slot), f);
	assert_int_equal(lf_fence_status(f), -EIO);
	lf_fence_slot_set(&slot, NULL);
	assert_null(look(&slot));
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(alloc_live(), before);
}

static void get_returns_a_reference_of_its_own(void **state)
{
	struct lf_fence_slot slot = { { 0 } };
	struct lf_fence *f = make_fence();
	lf_fence_slot_set(&slot, f);
	struct lf_fence *got = lf_fence_slot_get(&slot);
	assert_ptr_equal(got, f);
	lf_fence_slot_set(&slot, NULL);
	lf_fence_put(f);
	assert_int_equal(lf_reclaim_barrier(), 0);
	/* the one that get returned is the last */
	assert_int_equal(lf_fence_status(got), 0);
	assert_true(lf_fence_signal(got, 0));
	lf_fence_put(got);
}

static void set_puts_the_fence_that_was_there(void **state)
{
	long before = alloc_live();
	struct lf_fence_slot slot = { { 0 } };
	for (int i = 0; i < 100; i++) {
		struct lf_fence *f = make_fence();
		lf_fence_slot_set(&slot, f);
		assert_ptr_equal(look(&slot), f);
		lf_fence_put(f);
	}
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(alloc_live(), before + 1);
	lf_fence_slot_set(&slot, NULL);
}

static void set_of_the_same_fence_again_changes_nothing(void **state)
{
	long before = alloc_live();
	struct lf_fence_slot slot = { { 0 } };
	struct lf_fence *f = make_fence();
	for (int i = 0; i < 10; i++)
		lf_fence_slot_set(&slot, f);
	assert_ptr_equal(look(&slot), f);
	lf_fence_put(f);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(alloc_live(), before + 1);
	assert_int_equal(lf_fence_status(f), 0);
	/* set while the slot has the only reference */
	lf_fence_slot_set(&slot, f);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(alloc_live(), before + 1);
	lf_fence_slot_set(&slot, NULL);
}

static void one_fence_lies_in_many_slots(void **state)
{
	struct lf_fence_slot slots[20] = { { { 0 } } };
	struct lf_fence *f = make_fence();
	for (int i = 0; i < 20; i++)
		lf_fence_slot_set(&slots[i], f);
	lf_fence_put(f);
	for (int i = 0; i < 20; i++) {
		assert_ptr_equal(look(&slots[i]), f);
		lf_fence_slot_set(&slots[i], NULL);
	}
}

static void fence_found_by_look_lives_until_the_read_section_ends(void **state)
{
	char text[200];
	long before = alloc_live();
	struct lf_fence_slot slot = { { 0 } };
	struct lf_fence *f = make_fence();
	lf_fence_signal_at(f, -ENODEV, 4711);
	lf_fence_slot_set(&slot, f);
	lf_fence_put(f);
	lf_read_lock();
	lf_read_lock();
	struct lf_fence *seen = lf_fence_slot_look(&slot);
	assert_ptr_equal(seen, f);
	lf_fence_slot_set(&slot, NULL);
	assert_null(lf_fence_slot_look(&slot));
	lf_read_unlock();
	/* sections nest: only the outermost end lets go */
	assert_int_equal(alloc_live(), before + 1);
	assert_int_equal(lf_fence_status(seen), -ENODEV);
	assert_true(lf_fence_timestamp(seen) == 4711);
	assert_true(lf_fence_describe(seen, text, sizeof(text)) > 0);
	assert_null(lf_fence_tryget(seen));
	lf_read_unlock();
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(alloc_live(), before);
}

/* Nobody is left who could signal it: a reader that goes on looking finds that said. */
/* A callback node at the start of the block that its fence lies in: its address is also that of what the fence's end gives to the reclaimer. */
struct job {
	struct lf_fence_cb cb;
	struct lf_fence fence;
};

static void ignore_job(struct lf_fence *f, struct lf_fence_cb *cb)
{
	(void)f;
	(void)cb;
}

static void callback_of_a_fence_that_died_has_run_for_its_readers(void **state)
{
	struct lf_fence_slot slot = { { 0 } };
	struct job *job = lf_alloc(sizeof(*job));
	assert_non_null(job);
	assert_int_equal(lf_fence_init(&job->fence, offsetof(struct job, fence)), 0);
	assert_int_equal(lf_fence_add_callback(&job->fence, &job->cb, ignore_job), 0);
	lf_fence_slot_set(&slot, &job->fence);
	lf_fence_signal(&job->fence, 0);
	lf_read_lock();
	struct lf_fence *seen = lf_fence_slot_look(&slot);
	assert_ptr_equal(seen, &job->fence);
	lf_fence_slot_set(&slot, NULL);
	lf_fence_put(&job->fence);
	assert_int_equal(lf_fence_remove_callback(seen, &job->cb), LF_CB_RAN);
	lf_read_unlock();
}

static void pending_fence_put_for_the_last_time_is_canceled_for_its_readers(void **state)
{
	struct lf_fence_slot slot = { { 0 } };
	struct lf_fence *f = make_fence();
	lf_fence_slot_set(&slot, f);
	lf_fence_put(f);
	lf_read_lock();
	struct lf_fence *seen = lf_fence_slot_look(&slot);
	assert_int_equal(lf_fence_status(seen), 0);
	lf_fence_slot_set(&slot, NULL);
	assert_int_equal(lf_fence_status(seen), -ECANCELED);
	assert_true(lf_fence_timestamp(seen) != INT64_MIN);
	assert_true(lf_fence_is_drained(seen));
	assert_null(lf_fence_tryget(seen));
	lf_read_unlock();
	assert_int_equal(log_count(LF_LOG_MISUSE), 0);
}

static void fence_found_by_look_can_be_made_ones_own(void **state)
{
	struct lf_fence_slot slot = { { 0 } };
	struct lf_fence *f = make_fence();
	lf_fence_slot_set(&slot, f);
	lf_fence_put(f);
	lf_read_lock();
	struct lf_fence *mine = lf_fence_tryget(lf_fence_slot_look(&slot));
	lf_read_unlock();
	assert_ptr_equal(mine, f);
	lf_fence_slot_set(&slot, NULL);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(lf_fence_status(mine), 0);
	lf_fence_put(mine);
}

static void look_outside_a_read_section_is_refused(void **state)
{
	struct lf_fence_slot slot = { { 0 } };
	lf_fence_slot_set(&slot, lf_fence_stub());
	assert_null(lf_fence_slot_look(&slot));
	assert_int_equal(log_count(LF_LOG_MISUSE), 1);
	log_reset();
	lf_fence_slot_set(&slot, NULL);
}

static void slot_holds_fences_of_every_kind(void **state)
{
	struct lf_fence_slot slot = { { 0 } };
	const struct lf_timeline_desc desc = { .name = "ring" };
	struct lf_timeline *tl = NULL;
	struct lf_fence *emitted = NULL, *done = NULL;
	assert_int_equal(lf_timeline_create(&desc, &tl), 0);
	assert_int_equal(lf_timeline_emit(tl, 0, &emitted), 0);
	assert_int_equal(lf_fence_create_signaled(0, 0, &done), 0);
	struct lf_fence *fences[] = { emitted, lf_fence_stub(), done, lf_fence_stub() };
	for (int i = 0; i < 4; i++) {
		lf_fence_slot_set(&slot, fences[i]);
		struct lf_fence *got = lf_fence_slot_get(&slot);
		assert_ptr_equal(got, fences[i]);
		lf_fence_put(got);
	}
	lf_fence_slot_set(&slot, emitted);
	lf_fence_put(emitted);
	lf_fence_put(done);
	lf_timeline_put(tl);
	assert_int_equal(lf_fence_status(emitted), -ECANCELED);
	lf_fence_slot_set(&slot, NULL);
}

struct in_slot {
	struct lf_fence_cb cb;
	struct lf_fence_slot *slot;
};

static void empty_the_slot(struct lf_fence *f, struct lf_fence_cb *cb)
{
	lf_fence_slot_set(((struct in_slot *)(void *)cb)->slot, NULL);
	/* alive during the call, although the slot had the last reference */
	must(lf_fence_status(f) == 1);
}

static void callback_empties_the_slot_that_holds_its_fence(void **state)
{
	long before = alloc_live();
	struct lf_fence_slot slot = { { 0 } };
	struct lf_fence *f = make_fence();
	struct in_slot in = { .cb = LF_FENCE_CB_INIT, .slot = &slot };
	assert_int_equal(lf_fence_add_callback(f, &in.cb, empty_the_slot), 0);
	lf_fence_slot_set(&slot, f);
	lf_fence_signal(f, 0);
	lf_fence_put(f);
	assert_null(look(&slot));
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(alloc_live(), before);
}

static void emptied_slot_lets_go_of_a_pending_fence(void **state)
{
	struct lf_fence_slot slot = { { 0 } };
	struct lf_fence *f = make_fence();
	lf_fence_slot_set(&slot, f);
	lf_fence_put(f);
	lf_fence_slot_set(&slot, NULL);
	assert_int_equal(log_count(LF_LOG_MISUSE), 0);
}

static void note_status(struct lf_fence *f, struct lf_fence_cb *cb)
{
	must(lf_fence_status(f) == -EDEADLK);
	((struct in_slot *)(void *)cb)->slot = NULL;
}

/* A slot that is emptied puts its reference like any other holder: of a pending fence with callbacks that is misuse. */
static void emptied_slot_that_abandons_a_fence_with_a_callback_is_reported(void **state)
{
	struct lf_fence_slot slot = { { 0 } };
	struct lf_fence *f = make_fence();
	struct in_slot in = { .cb = LF_FENCE_CB_INIT, .slot = &slot };
	lf_fence_slot_set(&slot, f);
	assert_int_equal(lf_fence_add_callback(f, &in.cb, note_status), 0);
	lf_fence_put(f);
	assert_int_equal(log_count(LF_LOG_MISUSE), 0);
	lf_fence_slot_set(&slot, NULL);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_null(in.slot);
	assert_int_equal(log_count(LF_LOG_MISUSE), 1);
	log_reset();
}

static void operations_on_a_slot_allocate_nothing(void **state)
{
	struct lf_fence_slot slot = { { 0 } };
	struct lf_fence *f = make_fence();
	long before = alloc_calls();
	for (int i = 0; i < 100; i++) {
		lf_fence_slot_set(&slot, f);
		lf_fence_put(lf_fence_slot_get(&slot));
		assert_ptr_equal(look(&slot), f);
		lf_fence_slot_set(&slot, NULL);
	}
	assert_int_equal(alloc_calls(), before);
	lf_fence_put(f);
}

static void what_is_missing_is_reported(void **state)
{
	struct lf_deferred node;
	struct lf_fence_slot slot = { 0 };

	(void)state;
	lf_defer_put(NULL, NULL);
	lf_defer_put(&node, NULL);
	assert_int_equal(log_count(LF_LOG_MISUSE), 2);
	assert_null(lf_fence_slot_get(&slot));
	log_reset();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(zeroed_memory_is_an_empty_slot),
		TEST(set_takes_a_reference),
		TEST(get_returns_a_reference_of_its_own),
		TEST(set_puts_the_fence_that_was_there),
		TEST(set_of_the_same_fence_again_changes_nothing),
		TEST(one_fence_lies_in_many_slots),
		TEST(fence_found_by_look_lives_until_the_read_section_ends),
		TEST(callback_of_a_fence_that_died_has_run_for_its_readers),
		TEST(pending_fence_put_for_the_last_time_is_canceled_for_its_readers),
		TEST(fence_found_by_look_can_be_made_ones_own),
		TEST(look_outside_a_read_section_is_refused),
		TEST(slot_holds_fences_of_every_kind),
		TEST(callback_empties_the_slot_that_holds_its_fence),
		TEST(emptied_slot_lets_go_of_a_pending_fence),
		TEST(emptied_slot_that_abandons_a_fence_with_a_callback_is_reported),
		TEST(operations_on_a_slot_allocate_nothing),
		TEST(what_is_missing_is_reported),
	};
	return TEST_MAIN(tests);
}
