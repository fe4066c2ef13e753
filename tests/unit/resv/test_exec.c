/* SPDX-License-Identifier: MIT */
/* Locking many reservations as a loop: what is locked after each way in which it can end. */
#include "testing.h"

#include <sched.h>
#include <stdatomic.h>

#include "resv/ww.h"

static struct lf_ticket_class cls = LF_TICKET_CLASS_INIT(LF_WAIT_DIE);
static struct lf_ticket_class wound = LF_TICKET_CLASS_INIT(LF_WOUND_WAIT);

enum { MANY = 40 };

static struct lf_resv resv[MANY];

static void make(struct lf_ticket_class *of)
{
	for (int i = 0; i < MANY; i++)
		lf_resv_init(&resv[i], of);
}

static void drop(void)
{
	for (int i = 0; i < MANY; i++) {
		assert_false(lf_resv_is_locked(&resv[i]));
		lf_resv_fini(&resv[i]);
	}
}

static int count_locked(void)
{
	int n = 0;
	for (int i = 0; i < MANY; i++)
		n += lf_resv_is_held(&resv[i]);
	return n;
}

static unsigned take_misuse(void)
{
	unsigned count = log_count(LF_LOG_MISUSE);
	log_reset();
	return count;
}

static struct lf_fence *make_fence(void)
{
	struct lf_fence *f = NULL;
	must(lf_fence_create(&f) == 0);
	return f;
}

static void end_fence(struct lf_fence *f)
{
	must(lf_fence_signal(f, 0));
	lf_fence_put(f);
}

static bool is_busy(int i)
{
	return !lf_resv_test_signaled(&resv[i], LF_USAGE_BOOKKEEP);
}

/* --- Without contention -------------------------------------------------------------------------------------------------- */

static void loop_locks_all_once_and_adds_a_fence_to_each(void **state)
{
	struct lf_exec x;
	struct lf_fence *f = make_fence();
	int rounds = 0;
	make(&cls);
	lf_exec_init(&x, &cls);
	while (lf_exec_next(&x)) {
		rounds++;
		for (int i = 0; i < MANY; i += 2)
			assert_int_equal(lf_exec_lock(&x, &resv[i], 1), 0);
	}
	assert_int_equal(rounds, 1);
	assert_int_equal(lf_exec_error(&x), 0);
	assert_int_equal(count_locked(), MANY / 2);
	for (size_t i = 0; i < MANY / 2; i++)
		assert_ptr_equal(lf_exec_at(&x, i), &resv[2 * i]);
	assert_null(lf_exec_at(&x, MANY / 2));
	lf_exec_add_fence(&x, f, LF_USAGE_WRITE);
	assert_false(lf_exec_next(&x));
	lf_exec_fini(&x);
	assert_int_equal(count_locked(), 0);
	for (int i = 0; i < MANY; i++)
		assert_int_equal(is_busy(i), i % 2 == 0);
	end_fence(f);
	drop();
}

static void loop_with_an_empty_body_ends_after_one_round(void **state)
{
	struct lf_exec x;
	int rounds = 0;
	long before = alloc_calls();
	lf_exec_init(&x, NULL);
	while (lf_exec_next(&x))
		rounds++;
	assert_int_equal(rounds, 1);
	assert_int_equal(lf_exec_error(&x), 0);
	assert_null(lf_exec_at(&x, 0));
	lf_exec_fini(&x);
	lf_exec_fini(&x);
	assert_false(lf_exec_next(&x));
	lf_exec_fini(NULL);
	assert_int_equal(alloc_calls(), before);
}

static void locking_again_reserves_more(void **state)
{
	struct lf_exec x;
	struct lf_fence *f[3] = { make_fence(), make_fence(), make_fence() };
	make(&cls);
	lf_exec_init(&x, &cls);
	while (lf_exec_next(&x)) {
		assert_int_equal(lf_exec_lock(&x, &resv[0], 1), 0);
		assert_int_equal(lf_exec_lock(&x, &resv[1], 3), 0);
		/* two objects share it */
		assert_int_equal(lf_exec_lock(&x, &resv[0], 2), 0);
		assert_int_equal(lf_exec_lock(&x, &resv[0], 0), 0);
	}
	assert_int_equal(x.count, 2);
	for (int i = 0; i < 3; i++)
		lf_exec_add_fence(&x, f[i], LF_USAGE_READ);
	assert_int_equal(take_misuse(), 0);
	lf_exec_fini(&x);
	assert_true(is_busy(0) && is_busy(1));
	for (int i = 0; i < 3; i++)
		end_fence(f[i]);
	drop();
}

static void ten_thousand_reservations_are_locked_at_once(void **state)
{
	enum { N = 10000 };
	struct lf_resv *all = calloc(N, sizeof(*all));
	struct lf_fence *f = make_fence();
	struct lf_exec x;
	must(all != NULL);
	for (int i = 0; i < N; i++)
		lf_resv_init(&all[i], NULL);
	lf_exec_init(&x, NULL);
	while (lf_exec_next(&x)) {
		/* a stride without common divisor: in an order that is not theirs; and a part of them twice */
		for (size_t i = 0; i < N + N / 4; i++)
			assert_int_equal(lf_exec_lock(&x, &all[i * 7919 % N], 1), 0);
	}
	assert_int_equal(lf_exec_error(&x), 0);
	assert_int_equal(x.count, N);
	lf_exec_add_fence(&x, f, LF_USAGE_WRITE);
	lf_exec_fini(&x);
	for (int i = 0; i < N; i++) {
		assert_false(lf_resv_is_locked(&all[i]));
		assert_false(lf_resv_test_signaled(&all[i], LF_USAGE_READ));
		lf_resv_fini(&all[i]);
	}
	free(all);
	end_fence(f);
}

/* --- Marks --------------------------------------------------------------------------------------------------------------- */

static void rollback_unlocks_what_was_locked_since_the_mark(void **state)
{
	struct lf_exec x;
	make(&cls);
	lf_exec_init(&x, &cls);
	while (lf_exec_next(&x)) {
		size_t empty = lf_exec_mark(&x);
		assert_int_equal(lf_exec_lock(&x, &resv[0], 1), 0);
		size_t one = lf_exec_mark(&x);
		for (int i = 1; i < 30; i++)
			assert_int_equal(lf_exec_lock(&x, &resv[i], 1), 0);
		size_t thirty = lf_exec_mark(&x);
		assert_int_equal(lf_exec_lock(&x, &resv[30], 1), 0);
		/* one that was there before the mark stays where it was */
		assert_int_equal(lf_exec_lock(&x, &resv[0], 1), 0);
		lf_exec_rollback(&x, thirty);
		assert_int_equal(count_locked(), 30);
		assert_false(lf_resv_is_locked(&resv[30]));
		lf_exec_rollback(&x, one);
		assert_int_equal(count_locked(), 1);
		assert_true(lf_resv_is_held(&resv[0]));
		/* a mark behind the end */
		lf_exec_rollback(&x, thirty);
		assert_int_equal(count_locked(), 1);
		/* what was given back can be had again */
		assert_int_equal(lf_exec_lock(&x, &resv[30], 1), 0);
		assert_ptr_equal(lf_exec_at(&x, 1), &resv[30]);
		lf_exec_rollback(&x, empty);
		assert_int_equal(count_locked(), 0);
		assert_int_equal(lf_exec_lock(&x, &resv[5], 1), 0);
		assert_int_equal(lf_exec_lock(&x, &resv[6], 1), 0);
	}
	lf_exec_rollback(&x, 1);
	assert_int_equal(count_locked(), 1);
	assert_ptr_equal(lf_exec_at(&x, 0), &resv[5]);
	assert_null(lf_exec_at(&x, 1));
	lf_exec_fini(&x);
	drop();
}

/* --- Leaving --------------------------------------------------------------------------------------------------------------- */

static void body_may_be_left_at_any_point(void **state)
{
	struct lf_exec x;
	make(&cls);
	for (int at = 0; at <= 3; at++) {
		lf_exec_init(&x, &cls);
		while (lf_exec_next(&x)) {
			for (int i = 0; i < at; i++)
				assert_int_equal(lf_exec_lock(&x, &resv[i], 1), 0);
			if (at < 3)
				break;
		}
		assert_int_equal(count_locked(), at);
		lf_exec_fini(&x);
		assert_int_equal(count_locked(), 0);
	}
	drop();
}

static void transaction_that_never_looped_can_be_ended(void **state)
{
	struct lf_exec x;
	lf_exec_init(&x, &cls);
	lf_exec_fini(&x);
	lf_exec_init(&x, NULL);
	lf_exec_fini(&x);
}

/* --- Errors ---------------------------------------------------------------------------------------------------------------- */

static void locking_outside_the_loop_ends_the_transaction(void **state)
{
	struct lf_exec x;
	struct lf_fence *f = make_fence();
	make(&cls);
	lf_exec_init(&x, &cls);
	assert_int_equal(lf_exec_lock(&x, &resv[0], 1), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	assert_false(lf_exec_next(&x));
	lf_exec_fini(&x);
	lf_exec_init(&x, &cls);
	while (lf_exec_next(&x))
		assert_int_equal(lf_exec_lock(&x, &resv[0], 1), 0);
	assert_int_equal(lf_exec_lock(&x, &resv[1], 1), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(count_locked(), 0);
	lf_exec_add_fence(&x, f, LF_USAGE_WRITE);
	assert_int_equal(take_misuse(), 1);
	assert_false(is_busy(0));
	lf_exec_fini(&x);
	end_fence(f);
	drop();
}

static void error_is_sticky_and_nothing_stays_locked(void **state)
{
	struct lf_resv other_class;
	struct lf_exec x;
	int rounds = 0;
	make(&cls);
	lf_resv_init(&other_class, &wound);
	lf_exec_init(&x, &cls);
	while (lf_exec_next(&x)) {
		rounds++;
		for (int i = 0; i < 20; i++)
			assert_int_equal(lf_exec_lock(&x, &resv[i], 1), 0);
		size_t mark = lf_exec_mark(&x);
		assert_int_equal(lf_exec_lock(&x, &other_class, 1), -EINVAL);
		assert_int_equal(take_misuse(), 1);
		assert_int_equal(count_locked(), 0);
		assert_int_equal(lf_exec_lock(&x, &resv[20], 1), -EINVAL);
		assert_int_equal(lf_exec_lock(&x, NULL, 1), -EINVAL);
		lf_exec_rollback(&x, mark);
		assert_int_equal(lf_exec_mark(&x), 0);
		assert_int_equal(count_locked(), 0);
	}
	assert_int_equal(rounds, 1);
	assert_false(lf_exec_next(&x));
	assert_int_equal(lf_exec_error(&x), -EINVAL);
	assert_null(lf_exec_at(&x, 0));
	lf_exec_fini(&x);
	assert_int_equal(lf_exec_error(&x), -EINVAL);
	lf_resv_fini(&other_class);
	drop();
}

static void null_reservation_ends_the_transaction(void **state)
{
	struct lf_exec x;
	make(&cls);
	lf_exec_init(&x, &cls);
	while (lf_exec_next(&x)) {
		assert_int_equal(lf_exec_lock(&x, &resv[0], 1), 0);
		assert_int_equal(lf_exec_lock(&x, NULL, 1), -EINVAL);
	}
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(lf_exec_error(&x), -EINVAL);
	lf_exec_fini(&x);
	drop();
}

static void lock_of_this_thread_outside_the_transaction_is_an_error(void **state)
{
	struct lf_exec x;
	make(&cls);
	must(lf_resv_lock(&resv[1], NULL) == 0);
	lf_exec_init(&x, &cls);
	while (lf_exec_next(&x)) {
		assert_int_equal(lf_exec_lock(&x, &resv[0], 1), 0);
		assert_int_equal(lf_exec_lock(&x, &resv[1], 1), -EPERM);
	}
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(count_locked(), 1);
	lf_exec_fini(&x);
	lf_resv_unlock(&resv[1]);
	drop();
}

/* Returns the transaction's error; checks that nothing is locked then. */
static int lock_many(void *arg)
{
	struct lf_exec x;
	struct lf_fence *f = arg;
	make(&cls);
	lf_exec_init(&x, &cls);
	while (lf_exec_next(&x)) {
		for (int i = 0; i < MANY; i++)
			lf_exec_lock(&x, &resv[i], 2);
		for (int i = 0; i < MANY; i += 3)
			lf_exec_lock(&x, &resv[i], 3);
	}
	int error = lf_exec_error(&x);
	assert_int_equal(count_locked(), error ? 0 : MANY);
	if (!error)
		lf_exec_add_fence(&x, f, LF_USAGE_READ);
	lf_exec_fini(&x);
	drop();
	return error;
}

static void each_allocation_that_fails_leaves_nothing_locked(void **state)
{
	struct lf_fence *f = make_fence();
	long survived = alloc_fail_each(lock_many, f);
	/* the list's at least, which grows twice */
	assert_true(survived >= 2);
	end_fence(f);
}

/* --- Rounds ---------------------------------------------------------------------------------------------------------------- */

static void lost_round_locks_nothing_and_the_next_begins_with_the_contended_one(void **state)
{
	struct lf_exec x;
	struct lf_fence *f = make_fence();
	int round = 0;
	make(&cls);
	lf_exec_init(&x, &cls);
	while (lf_exec_next(&x)) {
		if (++round == 1) {
			assert_int_equal(lf_exec_lock(&x, &resv[0], 1), 0);
			assert_int_equal(lf_exec_lock(&x, &resv[1], 1), 0);
			size_t mark = lf_exec_mark(&x);
			lf_ticket_class_inject(&cls, 1000000, 1);
			assert_int_equal(lf_exec_lock(&x, &resv[2], 1), -EDEADLK);
			lf_ticket_class_inject(&cls, 0, 1);
			assert_int_equal(count_locked(), 0);
			/* the rest of the body does nothing */
			assert_int_equal(lf_exec_lock(&x, &resv[3], 1), -EDEADLK);
			assert_int_equal(lf_exec_lock(&x, &resv[2], 1), -EDEADLK);
			assert_int_equal(lf_exec_mark(&x), 0);
			lf_exec_rollback(&x, mark);
			assert_int_equal(count_locked(), 0);
			assert_int_equal(lf_exec_error(&x), 0);
			continue;
		}
		assert_int_equal(count_locked(), 1);
		assert_true(lf_resv_is_held(&resv[2]));
		assert_int_equal(lf_exec_lock(&x, &resv[0], 1), 0);
		assert_int_equal(lf_exec_lock(&x, &resv[2], 1), 0);
		assert_int_equal(lf_exec_lock(&x, &resv[2], 1), 0);
	}
	assert_int_equal(round, 2);
	assert_true(x.rounds == 2);
	assert_int_equal(count_locked(), 2);
	assert_ptr_equal(lf_exec_at(&x, 0), &resv[0]);
	assert_ptr_equal(lf_exec_at(&x, 1), &resv[2]);
	lf_exec_add_fence(&x, f, LF_USAGE_WRITE);
	lf_exec_fini(&x);
	assert_true(is_busy(2) && !is_busy(1));
	end_fence(f);
	drop();
}

/* Loses the first round for resv[1]; the second is up to the caller. */
static void lose_a_round(struct lf_exec *x)
{
	lf_exec_init(x, &cls);
	must(lf_exec_next(x));
	must(lf_exec_lock(x, &resv[0], 1) == 0);
	lf_ticket_class_inject(&cls, 1000000, 1);
	must(lf_exec_lock(x, &resv[1], 1) == -EDEADLK);
	lf_ticket_class_inject(&cls, 0, 1);
}

static void contended_one_that_is_not_asked_for_again_is_released(void **state)
{
	struct lf_exec x;
	make(&cls);
	lose_a_round(&x);
	while (lf_exec_next(&x)) {
		assert_true(lf_resv_is_held(&resv[1]));
		assert_int_equal(lf_exec_lock(&x, &resv[2], 1), 0);
	}
	assert_false(lf_resv_is_locked(&resv[1]));
	assert_int_equal(count_locked(), 1);
	lf_exec_fini(&x);
	drop();
}

static void contended_one_is_released_by_the_end_and_by_errors_and_by_losing_again(void **state)
{
	struct lf_exec x;
	make(&cls);
	/* left in a lost round, and in the one after it */
	lose_a_round(&x);
	assert_int_equal(count_locked(), 0);
	lf_exec_fini(&x);
	assert_int_equal(count_locked(), 0);
	lose_a_round(&x);
	assert_true(lf_exec_next(&x));
	lf_exec_fini(&x);
	assert_int_equal(count_locked(), 0);

	lose_a_round(&x);
	assert_true(lf_exec_next(&x));
	assert_int_equal(lf_exec_lock(&x, NULL, 0), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(count_locked(), 0);
	lf_exec_fini(&x);

	lose_a_round(&x);
	assert_true(lf_exec_next(&x));
	lf_ticket_class_inject(&cls, 1000000, 1);
	assert_int_equal(lf_exec_lock(&x, &resv[5], 1), -EDEADLK);
	lf_ticket_class_inject(&cls, 0, 1);
	assert_int_equal(count_locked(), 0);
	assert_true(lf_exec_next(&x));
	assert_int_equal(count_locked(), 1);
	assert_true(lf_resv_is_held(&resv[5]));
	assert_false(lf_exec_next(&x));
	assert_int_equal(count_locked(), 0);
	lf_exec_fini(&x);
	drop();
}

static void fence_is_not_added_in_a_lost_round(void **state)
{
	struct lf_exec x;
	struct lf_fence *f = make_fence();
	make(&cls);
	lose_a_round(&x);
	lf_exec_add_fence(&x, f, LF_USAGE_WRITE);
	assert_int_equal(take_misuse(), 1);
	lf_exec_fini(&x);
	assert_false(is_busy(0));
	end_fence(f);
	drop();
}

/* The lock number @at of the first round is refused, for each @at. */
static void round_lost_at_any_lock_is_made_up_for(void **state)
{
	make(&cls);
	for (int at = 1; at < MANY; at++) {
		struct lf_exec x;
		lf_exec_init(&x, &cls);
		while (lf_exec_next(&x)) {
			for (int i = 0; i < MANY; i++) {
				if (x.rounds == 1 && i == at)
					lf_ticket_class_inject(&cls, 1000000, 1);
				int ret = lf_exec_lock(&x, &resv[i], 1);
				lf_ticket_class_inject(&cls, 0, 1);
				assert_int_equal(ret, x.rounds == 1 && i >= at ? -EDEADLK : 0);
			}
		}
		assert_true(x.rounds == 2);
		assert_int_equal(lf_exec_error(&x), 0);
		assert_int_equal(x.count, MANY);
		assert_int_equal(count_locked(), MANY);
		lf_exec_fini(&x);
		assert_int_equal(count_locked(), 0);
	}
	drop();
}

static void one_object_is_locked_even_if_all_that_can_be_refused_is(void **state)
{
	struct lf_exec x;
	make(&cls);
	lf_ticket_class_inject(&cls, 1000000, 1);
	lf_exec_init(&x, &cls);
	while (lf_exec_next(&x)) {
		assert_int_equal(lf_exec_lock(&x, &resv[0], 1), 0);
		assert_int_equal(lf_exec_lock(&x, &resv[0], 1), 0);
	}
	assert_true(x.rounds == 1);
	assert_int_equal(count_locked(), 1);
	lf_exec_fini(&x);
	lf_ticket_class_inject(&cls, 0, 1);
	drop();
}

static void loop_ends_with_all_locked_however_often_it_is_refused(void **state)
{
	static const uint32_t rates[] = { 1000, 10000, 50000, 100000 };
	make(&cls);
	for (size_t r = 0; r < array_size(rates); r++) {
		uint64_t rounds = 0, random = 4711;
		for (uint32_t seed = 0; seed < 20; seed++) {
			struct lf_exec x;
			int start = (int)(random_next(&random) % MANY);
			lf_ticket_class_inject(&cls, rates[r], seed);
			lf_exec_init(&x, &cls);
			while (lf_exec_next(&x)) {
				for (int i = 0; i < MANY; i++)
					lf_exec_lock(&x, &resv[(start + i) % MANY], 1);
			}
			assert_int_equal(lf_exec_error(&x), 0);
			assert_int_equal(count_locked(), MANY);
			rounds += x.rounds;
			lf_exec_fini(&x);
			assert_int_equal(count_locked(), 0);
		}
		test_note("%u of a million refused: %.1f rounds for %d locks", rates[r], (double)rounds / 20, MANY);
	}
	lf_ticket_class_inject(&cls, 0, 0);
	drop();
}

/* Injection and failing allocations together, so that errors meet contended reservations. */
static void allocation_that_fails_in_any_round_leaves_nothing_locked(void **state)
{
	struct lf_fence *f = make_fence();
	lf_ticket_class_inject(&cls, 30000, 99);
	for (long nth = 1; nth <= 150; nth++) {
		alloc_fail_at(nth);
		int error = lock_many(f);
		bool hit = alloc_failed();
		alloc_fail_at(0);
		assert_int_equal(error, hit ? -ENOMEM : 0);
	}
	lf_ticket_class_inject(&cls, 0, 0);
	end_fence(f);
}

/* --- Contention ---------------------------------------------------------------------------------------------------------- */

enum { THREADS = 4, TRANSACTIONS = 300 };

static struct lf_ticket_class *contended_class;
static unsigned long counters[MANY]; /* each under the lock of its reservation */

static void *transact(void *arg)
{
	uint64_t random = (uint64_t)(uintptr_t)arg;
	struct lf_exec x;
	for (long n = 0; n < TRANSACTIONS; n++) {
		int set[10];
		for (int i = 0; i < 10; i++)
			set[i] = (int)(random_next(&random) % MANY);
		lf_exec_init(&x, contended_class);
		while (lf_exec_next(&x)) {
			for (int i = 0; i < 10; i++)
				lf_exec_lock(&x, &resv[set[i]], 0);
		}
		must(lf_exec_error(&x) == 0);
		/* some are in the set twice */
		for (size_t i = 0; i < x.count; i++)
			counters[lf_exec_at(&x, i) - resv]++;
		lf_exec_fini(&x);
	}
	return NULL;
}

static void threads_transact(struct lf_ticket_class *of)
{
	pthread_t threads[THREADS];
	unsigned long sum = 0;
	memset(counters, 0, sizeof(counters));
	contended_class = of;
	make(of);
	lf_ticket_class_inject(of, 5000, 17);
	for (uintptr_t t = 0; t < THREADS; t++)
		threads[t] = thread_start(transact, (void *)(t + 1), 0);
	for (int t = 0; t < THREADS; t++)
		thread_join(threads[t]);
	lf_ticket_class_inject(of, 0, 0);
	for (int i = 0; i < MANY; i++)
		sum += counters[i];
	assert_true(sum > THREADS * TRANSACTIONS * 8ul && sum <= THREADS * TRANSACTIONS * 10ul);
	drop();
}

static void transactions_of_many_threads_all_end_under_both_rules(void **state)
{
	threads_transact(&cls);
	threads_transact(&wound);
	threads_transact(NULL);
}

/* --- Counted reservations ------------------------------------------------------------------------------------------------ */

static struct lf_resv *make_counted(void)
{
	struct lf_resv *r = NULL;
	must(lf_resv_create(&cls, &r) == 0);
	return r;
}

/* Others let go of it in the middle: what is locked stays, and ends with the transaction. */
static void counted_one_lives_as_long_as_it_is_locked(void **state)
{
	struct lf_resv *r[3] = { make_counted(), make_counted(), make_counted() };
	struct lf_fence *f = make_fence();
	struct lf_exec x;
	size_t mark;
	lf_exec_init(&x, &cls);
	while (lf_exec_next(&x)) {
		for (int i = 0; i < 2; i++) {
			assert_int_equal(lf_exec_lock(&x, r[i], 1), 0);
			assert_int_equal(lf_exec_lock(&x, r[i], 1), 0); /* twice: one reference */
		}
		mark = lf_exec_mark(&x);
		assert_int_equal(lf_exec_lock(&x, r[2], 1), 0);
		for (int i = 0; i < 3; i++)
			lf_resv_put(r[i]);
		assert_true(lf_resv_is_held(r[2]));
		lf_exec_rollback(&x, mark); /* the end of the third */
	}
	lf_exec_add_fence(&x, f, LF_USAGE_WRITE);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_true(lf_resv_is_held(r[0]) && lf_resv_is_held(r[1]));
	lf_exec_fini(&x);
	end_fence(f);
}

static void contended_one_that_is_counted_is_kept(void **state)
{
	struct lf_resv *r = make_counted();
	struct lf_exec x;
	int round = 0;
	make(&cls);
	lf_exec_init(&x, &cls);
	while (lf_exec_next(&x)) {
		if (round++ == 0) {
			assert_int_equal(lf_exec_lock(&x, &resv[0], 1), 0);
			lf_ticket_class_inject(&cls, 1000000, 1);
			assert_int_equal(lf_exec_lock(&x, r, 1), -EDEADLK);
			lf_ticket_class_inject(&cls, 0, 1);
			lf_resv_put(r); /* whoever had it lets go, before it is locked */
			assert_int_equal(lf_reclaim_barrier(), 0);
			continue;
		}
		assert_true(lf_resv_is_held(r));
		if (round == 2)
			assert_int_equal(lf_exec_lock(&x, r, 1), 0);
	}
	assert_int_equal(round, 2);
	assert_true(lf_resv_is_held(r));
	lf_exec_fini(&x);
	drop();
}

/* Contended, and then not asked for; and left in the lost round. */
static void contended_one_that_is_counted_is_let_go_of(void **state)
{
	make(&cls);
	for (int leave = 0; leave < 2; leave++) {
		struct lf_resv *r = make_counted();
		struct lf_exec x;
		lf_exec_init(&x, &cls);
		assert_true(lf_exec_next(&x));
		assert_int_equal(lf_exec_lock(&x, &resv[0], 1), 0);
		lf_ticket_class_inject(&cls, 1000000, 1);
		assert_int_equal(lf_exec_lock(&x, r, 1), -EDEADLK);
		lf_ticket_class_inject(&cls, 0, 1);
		lf_resv_put(r);
		if (!leave) {
			assert_true(lf_exec_next(&x));
			assert_false(lf_exec_next(&x));
		}
		lf_exec_fini(&x);
	}
	drop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(loop_locks_all_once_and_adds_a_fence_to_each),
		TEST(loop_with_an_empty_body_ends_after_one_round),
		TEST(locking_again_reserves_more),
		TEST(ten_thousand_reservations_are_locked_at_once),
		TEST(rollback_unlocks_what_was_locked_since_the_mark),
		TEST(body_may_be_left_at_any_point),
		TEST(transaction_that_never_looped_can_be_ended),
		TEST(locking_outside_the_loop_ends_the_transaction),
		TEST(error_is_sticky_and_nothing_stays_locked),
		TEST(null_reservation_ends_the_transaction),
		TEST(lock_of_this_thread_outside_the_transaction_is_an_error),
		TEST(each_allocation_that_fails_leaves_nothing_locked),
		TEST(lost_round_locks_nothing_and_the_next_begins_with_the_contended_one),
		TEST(contended_one_that_is_not_asked_for_again_is_released),
		TEST(contended_one_is_released_by_the_end_and_by_errors_and_by_losing_again),
		TEST(fence_is_not_added_in_a_lost_round),
		TEST(round_lost_at_any_lock_is_made_up_for),
		TEST(one_object_is_locked_even_if_all_that_can_be_refused_is),
		TEST(loop_ends_with_all_locked_however_often_it_is_refused),
		TEST(allocation_that_fails_in_any_round_leaves_nothing_locked),
		TEST(transactions_of_many_threads_all_end_under_both_rules),
		TEST(counted_one_lives_as_long_as_it_is_locked),
		TEST(contended_one_that_is_counted_is_kept),
		TEST(contended_one_that_is_counted_is_let_go_of),
	};
	test_watchdog(50, "test_exec: somebody waits for ever");
	return TEST_MAIN(tests);
}
