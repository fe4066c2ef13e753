/* SPDX-License-Identifier: MIT */
/* Reference counts: they count, stay at zero, and saturate instead of wrapping. */
#include "base/refcount.h"
#include "producer.h"

static lf_atomic_u32 count_at(uint32_t value)
{
	lf_atomic_u32 count = { .value = value };

	return count;
}

static void last_put_is_told_once(void **state)
{
	lf_atomic_u32 count = count_at(1);

	(void)state;
	refcount_get(&count, "test");
	refcount_get(&count, "test");
	assert_false(refcount_put(&count, "test"));
	assert_false(refcount_put(&count, "test"));
	assert_true(refcount_put(&count, "test"));
}

static void tryget_fails_after_the_last_put(void **state)
{
	lf_atomic_u32 count = count_at(1);

	(void)state;
	assert_true(refcount_tryget(&count));
	assert_false(refcount_put(&count, "test"));
	assert_true(refcount_put(&count, "test"));
	assert_false(refcount_tryget(&count));
	assert_false(refcount_tryget(&count));
}

static void put_and_get_of_the_dead_are_reported(void **state)
{
	lf_atomic_u32 dead = count_at(0), gone = count_at(0);

	(void)state;
	assert_false(refcount_put(&dead, "corpse"));
	assert_true(log_contains("corpse"));
	expect_misuse(1);
	refcount_get(&gone, "ghost");
	assert_true(log_contains("ghost"));
	expect_misuse(1);
}

static void count_that_fills_up_is_reported_once_and_lasts_for_ever(void **state)
{
	lf_atomic_u32 count = count_at(INT32_MAX - 2);
	unsigned gets;

	(void)state;
	/* Within its range it counts still. */
	refcount_get(&count, "hoard");
	refcount_get(&count, "hoard");
	expect_misuse(0);
	for (gets = 0; gets < 10; gets++)
		refcount_get(&count, "hoard");
	assert_true(log_contains("hoard"));
	expect_misuse(1);
	/* Whatever is put now, or taken, never frees it and never wraps. */
	for (unsigned i = 0; i < 100; i++)
		assert_false(refcount_put(&count, "hoard"));
	assert_true(refcount_tryget(&count));
	for (unsigned i = 0; i < 100; i++)
		assert_false(refcount_put(&count, "hoard"));
	expect_misuse(0);
}

static void tryget_fills_up_without_wrapping(void **state)
{
	lf_atomic_u32 count = count_at(INT32_MAX - 1);

	(void)state;
	for (unsigned i = 0; i < 10; i++)
		assert_true(refcount_tryget(&count));
	for (unsigned i = 0; i < 100; i++)
		assert_false(refcount_put(&count, "hoard"));
	assert_true(refcount_tryget(&count));
	log_reset(); /* whether tryget reports is left open */
}

static void immortal_count_is_never_written(void **state)
{
	lf_atomic_u32 count = count_at(REFCOUNT_FOREVER);

	(void)state;
	refcount_get(&count, "stub");
	assert_true(refcount_tryget(&count));
	for (unsigned i = 0; i < 10; i++)
		assert_false(refcount_put(&count, "stub"));
	assert_true(count.value == REFCOUNT_FOREVER);
}

/* Oracle: of all threads that put, exactly one is told that it was the last, and tryget never succeeds after it. */
enum { THREADS = 4 };

struct puts {
	lf_atomic_u32 count;
	unsigned last, late;
	struct gate gate;
	long rounds;
};

static void *get_and_put(void *arg)
{
	struct puts *p = arg;

	for (long r = 0; r < p->rounds; r++) {
		gate_wait(&p->gate);
		for (int i = 0; i < 5; i++) {
			if (!refcount_tryget(&p->count))
				continue;
			if (count_get(&p->last) != 0)
				count_up(&p->late);
			if (refcount_put(&p->count, "race"))
				count_up(&p->last);
		}
		gate_wait(&p->gate);
	}
	return NULL;
}

static void one_of_all_threads_is_told_that_it_was_the_last(void **state)
{
	struct puts p = { .rounds = test_rounds(2000) };
	pthread_t threads[THREADS];
	long hits = 0;

	(void)state;
	gate_init(&p.gate, THREADS + 1);
	for (int i = 0; i < THREADS; i++)
		threads[i] = thread_start(get_and_put, &p, 0);
	for (long r = 0; r < p.rounds; r++) {
		p.count = count_at(1);
		p.last = 0;
		gate_wait(&p.gate);
		if (refcount_put(&p.count, "race"))
			count_up(&p.last);
		else
			hits++; /* another thread had it and was the last */
		gate_wait(&p.gate);
		assert_int_equal(p.last, 1);
	}
	for (int i = 0; i < THREADS; i++)
		thread_join(threads[i]);
	gate_fini(&p.gate);
	test_note("rounds %ld: hits %ld, misses %ld", p.rounds, hits, p.rounds - hits);
	assert_int_equal(p.late, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(last_put_is_told_once),
		TEST(tryget_fails_after_the_last_put),
		TEST(put_and_get_of_the_dead_are_reported),
		TEST(count_that_fills_up_is_reported_once_and_lasts_for_ever),
		TEST(tryget_fills_up_without_wrapping),
		TEST(immortal_count_is_never_written),
		TEST(one_of_all_threads_is_told_that_it_was_the_last),
	};

	return TEST_MAIN(tests);
}
