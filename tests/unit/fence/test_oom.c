/* SPDX-License-Identifier: MIT */
/*
 * Memory runs out: every allocation of every call is failed in turn. A call that can fail then returns -ENOMEM and leaves nothing
 * behind; one that completes, puts or defers does its work all the same.
 */
#include "testing.h"

struct node {
	struct lf_fence_cb cb;
	int runs;
};

static void run_node(struct lf_fence *f, struct lf_fence_cb *cb)
{
	((struct node *)(void *)cb)->runs++;
}

/* --- What may fail ------------------------------------------------------------------------------------------------------ */

static int create(void *arg)
{
	struct lf_fence *f = (void *)(uintptr_t)0x10;
	int error = lf_fence_create(&f);
	if (error != 0) {
		/* written on success only */
		assert_true(f == (void *)(uintptr_t)0x10);
		return error;
	}
	assert_int_equal(lf_fence_status(f), 0);
	assert_true(lf_fence_signal(f, 0));
	lf_fence_put(f);
	return 0;
}

static void create_survives_each_failure(void **state)
{
	assert_true(alloc_fail_each(create, NULL) >= 1);
}

static int create_signaled(void *arg)
{
	struct lf_fence *f = (void *)(uintptr_t)0x10;
	int error = lf_fence_create_signaled(-EIO, 5, &f);
	if (error != 0) {
		assert_true(f == (void *)(uintptr_t)0x10);
		return error;
	}
	assert_int_equal(lf_fence_status(f), -EIO);
	lf_fence_put(f);
	return 0;
}

static void create_signaled_survives_each_failure(void **state)
{
	assert_true(alloc_fail_each(create_signaled, NULL) >= 1);
}

static int embed(void *arg)
{
	struct lf_fence *f = lf_alloc(sizeof(*f));
	if (f == NULL)
		return -ENOMEM;
	int error = lf_fence_init(f, 0);
	if (error != 0) {
		lf_free(f);
		return error;
	}
	lf_fence_put(f);
	return 0;
}

static void alloc_and_init_survive_each_failure(void **state)
{
	assert_true(alloc_fail_each(embed, NULL) >= 1);
}

/*
 * From nothing: what the library sets up for itself with its first use can fail too, inside create or, later, where nothing may fail.
 * Brackets itself with lf_fini(), so without the usual set-up.
 */
static void first_use_survives_each_failure(void **state)
{
	bool hit = true;
	long nth;
	assert_int_equal(lf_fini(), 0);
	for (nth = 1; hit; nth++) {
		struct lf_fence *f = NULL;
		alloc_fail_at(nth);
		int error = lf_fence_create(&f);
		assert_int_equal(error, alloc_failed() ? -ENOMEM : 0);
		if (error == 0) {
			lf_fence_publish(f);
			assert_true(lf_fence_signal(f, 0));
			lf_fence_put(f);
		}
		hit = alloc_failed();
		alloc_fail_at(0);
		assert_int_equal(lf_fini(), 0);
		assert_int_equal(alloc_live(), 0);
	}
	assert_true(nth > 2);
}

/* --- What may not fail -------------------------------------------------------------------------------------------------- */

/* Nothing of it asks for memory: with all allocations failing from the first on, all of it works. */
static void completing_and_putting_need_no_memory(void **state)
{
	struct node nodes[3] = { { .cb = LF_FENCE_CB_INIT }, { .cb = LF_FENCE_CB_INIT }, { .cb = LF_FENCE_CB_INIT } };
	struct lf_fence_slot slot = { { 0 } };
	struct lf_fence *f = NULL, *abandoned = NULL;
	struct lf_wait_slot wait_slot;
	const struct lf_wait_many wait = { .fences = &f, .slots = &wait_slot, .count = 1, .need = 1, .deadline = 0 };
	assert_int_equal(lf_fence_create(&f), 0);
	assert_int_equal(lf_fence_create(&abandoned), 0);
	long calls = alloc_calls();
	alloc_fail_all(true);
	assert_int_equal(lf_fence_add_callback(f, &nodes[0].cb, run_node), 0);
	assert_int_equal(lf_fence_add_callback(f, &nodes[1].cb, run_node), 0);
	assert_int_equal(lf_fence_add_callback(abandoned, &nodes[2].cb, run_node), 0);
	assert_int_equal(lf_fence_remove_callback(f, &nodes[1].cb), LF_CB_REMOVED);
	assert_int_equal(lf_fence_wait_many(&wait, NULL), -ETIME);
	assert_int_equal(lf_fence_wait_drained(f, 0), -ETIME);
	lf_fence_slot_set(&slot, f);
	assert_true(lf_fence_signal(f, 0));
	lf_fence_put(f);
	lf_fence_slot_set(&slot, NULL);
	lf_fence_put(abandoned);
	assert_int_equal(alloc_calls(), calls);
	assert_int_equal(nodes[0].runs, 1);
	assert_int_equal(nodes[2].runs, 1);
	assert_int_equal(log_count(LF_LOG_MISUSE), 1);
	log_reset();
}

struct first_use {
	struct lf_fence *f;
	struct lf_fence *published;
	struct node node;
};

static void *complete_on_thread(void *arg)
{
	struct first_use *u = arg;
	alloc_fail_all(true);
	must(lf_fence_add_callback(u->f, &u->node.cb, run_node) == 0);
	must(lf_fence_signal(u->f, 0));
	lf_fence_put(u->f);
	lf_fence_put(u->published);
	return NULL;
}

/* A thread that never used the library has nothing of its own yet in which to keep what it defers, and gets nothing. */
static void first_use_of_a_thread_completes_and_puts_without_memory(void **state)
{
	struct first_use u = { .node = { .cb = LF_FENCE_CB_INIT } };
	assert_int_equal(lf_fence_create(&u.f), 0);
	assert_int_equal(lf_fence_create(&u.published), 0);
	lf_fence_publish(u.published);
	thread_run(complete_on_thread, &u, 0);
	assert_int_equal(u.node.runs, 1);
	/* that nothing is left of either fence is what the teardown checks */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(create_survives_each_failure),
		TEST(create_signaled_survives_each_failure),
		TEST(alloc_and_init_survive_each_failure),
		TEST(completing_and_putting_need_no_memory),
		TEST(first_use_of_a_thread_completes_and_puts_without_memory),
		cmocka_unit_test(first_use_survives_each_failure),
	};
	return TEST_MAIN(tests);
}
