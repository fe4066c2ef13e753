/* SPDX-License-Identifier: MIT */
/*
 * The first calls of a program, from two threads: one sets the library up, the other finds that it is. There is one such moment in a
 * program, so this is one test, and nothing is called before it. In between passes a hint, relaxed, which orders nothing: so if what was set
 * up were not ordered before the flag that says so (library-set-up), ThreadSanitizer would report what the second reads.
 *
 * Oracle: what the environment asks for (LF_VALIDATE) holds for the thread that did not read it.
 */
#include "testing.h"

#include <sched.h>
#include <stdatomic.h>

static atomic_bool is_set_up;
static struct lf_provider *provider;

static void *first(void *unused)
{
	must(lf_provider_create("first", &provider) == 0);
	atomic_store_explicit(&is_set_up, true, memory_order_relaxed);
	return NULL;
}

static void *second(void *unused)
{
	struct lf_resv resv;
	struct lf_fence *f;

	while (!atomic_load_explicit(&is_set_up, memory_order_relaxed))
		sched_yield();
	lf_resv_init(&resv, NULL);
	must(lf_fence_create(&f) == 0);
	must(lf_resv_lock(&resv, NULL) == 0);
	must(lf_fence_wait(f, 0) == -ETIME);
	lf_resv_unlock(&resv);
	lf_resv_fini(&resv);
	lf_fence_put(f);
	return NULL;
}

static void who_finds_the_library_set_up_sees_what_was_set(void **state)
{
	pthread_t threads[2] = { thread_start(first, NULL, 0), thread_start(second, NULL, 0) };

	thread_join(threads[0]);
	thread_join(threads[1]);
	assert_int_equal(log_count(LF_LOG_WARNING) + log_count(LF_LOG_MISUSE), 1);
	assert_true(log_contains("lf_fence_wait"));
	lf_provider_put(provider);
	assert_int_equal(lf_fini(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_finds_the_library_set_up_sees_what_was_set),
	};

	must(setenv("LF_VALIDATE", "waits", 1) == 0);
	log_capture();
	return cmocka_run_group_tests_name("first", tests, NULL, NULL);
}
