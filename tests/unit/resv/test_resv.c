/* SPDX-License-Identifier: MIT */
/* Reservations: reserving, adding, compacting, replacing; asking in all usages; cursors and snapshots. */
#include "producer.h"

#define ALL LF_USAGE_BOOKKEEP

static const enum lf_usage usages[] = { LF_USAGE_KERNEL, LF_USAGE_WRITE, LF_USAGE_READ, LF_USAGE_BOOKKEEP };

static struct lf_fence *make_fence(void)
{
	struct lf_fence *f = NULL;
	must(lf_fence_create(&f) == 0);
	return f;
}

static void lock(struct lf_resv *r)
{
	must(lf_resv_lock(r, NULL) == 0);
}

/* Adds one fence in a section of its own; the caller keeps its reference. */
static void add(struct lf_resv *r, struct lf_fence *f, enum lf_usage usage)
{
	lock(r);
	must(lf_resv_reserve(r, 1) == 0);
	lf_resv_add(r, f, usage);
	lf_resv_unlock(r);
}

/* What a walk finds, pending or not. */
static size_t walk(const struct lf_resv *r, enum lf_usage usage, struct lf_fence **found, size_t room)
{
	struct lf_resv_cursor cursor;
	struct lf_fence *f;
	size_t n = 0;
	lf_read_lock();
	lf_resv_cursor_begin(&cursor, r, usage);
	for (; (f = lf_resv_cursor_next(&cursor)) != NULL; n++) {
		if (n < room)
			found[n] = f;
	}
	lf_read_unlock();
	return n;
}

static size_t count_all(const struct lf_resv *r)
{
	return walk(r, ALL, NULL, 0);
}

static bool has(const struct lf_resv *r, const struct lf_fence *f, enum lf_usage usage)
{
	struct lf_fence *found[100];
	size_t n = walk(r, usage, found, 100);
	must(n <= 100);
	for (size_t i = 0; i < n; i++) {
		if (found[i] == f)
			return true;
	}
	return false;
}

/* Makes the list be compacted, whatever room it has. */
static void compact(struct lf_resv *r)
{
	lock(r);
	must(lf_resv_reserve(r, 300) == 0);
	lf_resv_unlock(r);
	lock(r);
	must(lf_resv_reserve(r, 600) == 0);
	lf_resv_unlock(r);
	lock(r);
	must(lf_resv_reserve(r, 1200) == 0);
	lf_resv_unlock(r);
}

static void end(struct lf_fence *f)
{
	lf_fence_signal(f, 0);
	lf_fence_put(f);
}

/* --- Sanity -------------------------------------------------------------------------------------------------------------- */

static void empty_reservation_has_nothing_to_wait_for(void **state)
{
	struct lf_resv r;
	struct lf_snapshot s;
	struct lf_fence **fences = (void *)&r, *one = NULL;
	char text[10] = "x";
	size_t n = 1;
	lf_resv_init(&r, NULL);
	for (int u = 0; u < 4; u++) {
		assert_true(lf_resv_test_signaled(&r, usages[u]));
		assert_int_equal(lf_resv_wait(&r, usages[u], 0), 0);
		lf_resv_set_deadline(&r, usages[u], 0);
	}
	assert_int_equal(lf_resv_get_fences(&r, ALL, &fences, &n), 0);
	assert_null(fences);
	assert_int_equal(n, 0);
	assert_int_equal(lf_resv_get_singleton(&r, ALL, &one), 0);
	assert_ptr_equal(one, lf_fence_stub());
	assert_int_equal(lf_resv_describe(&r, text, sizeof(text)), 0);
	assert_string_equal(text, "");
	assert_int_equal(count_all(&r), 0);
	lf_resv_snapshot(&r, &s);
	assert_true(lf_snapshot_test_signaled(&s, ALL));
	assert_int_equal(lf_snapshot_wait(&s, ALL, 0), 0);
	lf_snapshot_put(&s);
	assert_true(lf_resv_generation(&r) == 0);
	lf_resv_fini(&r);
}

static void zeroed_reservation_may_be_ended(void **state)
{
	struct lf_resv r;
	struct lf_snapshot s = { 0 };
	memset(&r, 0, sizeof(r));
	lf_resv_fini(&r);
	lf_resv_fini(NULL);
	lf_snapshot_put(&s);
	lf_snapshot_put(NULL);
}

static void ended_reservation_may_be_initialised_again(void **state)
{
	struct lf_resv r;
	for (int i = 0; i < 3; i++) {
		struct lf_fence *f = make_fence();
		lf_resv_init(&r, NULL);
		add(&r, f, LF_USAGE_READ);
		assert_int_equal(count_all(&r), 1);
		end(f);
		lf_resv_fini(&r);
	}
}

static void lock_can_be_asked_about(void **state)
{
	struct lf_resv r;
	lf_resv_init(&r, NULL);
	assert_false(lf_resv_is_locked(&r));
	assert_false(lf_resv_is_held(&r));
	lock(&r);
	assert_true(lf_resv_is_locked(&r));
	assert_true(lf_resv_is_held(&r));
	lf_resv_unlock(&r);
	assert_int_equal(lf_resv_trylock(&r, NULL), 0);
	lf_resv_unlock(&r);
	assert_false(lf_resv_is_locked(&r));
	lf_resv_fini(&r);
}

static void lock_slow_wants_a_ticket_that_holds_nothing(void **state)
{
	struct lf_resv a, b;
	struct lf_ticket ticket;
	lf_resv_init(&a, NULL);
	lf_resv_init(&b, NULL);
	lf_ticket_init(&ticket, NULL);
	assert_int_equal(lf_resv_lock_slow(&a, &ticket), 0);
	assert_int_equal(lf_resv_lock_slow(&b, &ticket), -EINVAL);
	expect_misuse(1);
	assert_false(lf_resv_is_locked(&b));
	lf_resv_unlock(&a);
	lf_ticket_fini(&ticket);
	lf_resv_fini(&a);
	lf_resv_fini(&b);
}

static void unlock_by_who_does_not_hold_it_is_reported(void **state)
{
	struct lf_resv r;
	lf_resv_init(&r, NULL);
	lf_resv_unlock(&r);
	expect_misuse(1);
	lf_resv_fini(&r);
}

/* --- Reserving and adding ------------------------------------------------------------------------------------------------- */

static void reserve_is_cumulative_two_times_one_make_room_for_two(void **state)
{
	struct lf_resv r;
	struct lf_fence *f[200];
	lf_resv_init(&r, NULL);
	lock(&r);
	for (int i = 0; i < 200; i++) {
		f[i] = make_fence();
		assert_int_equal(lf_resv_reserve(&r, 1), 0);
		assert_int_equal(lf_resv_reserve(&r, 0), 0);
	}
	long calls = alloc_calls();
	for (int i = 0; i < 200; i++)
		lf_resv_add(&r, f[i], LF_USAGE_READ);
	assert_int_equal(alloc_calls(), calls);
	assert_int_equal(count_all(&r), 200);
	lf_resv_unlock(&r);
	assert_int_equal(log_count(LF_LOG_MISUSE), 0);
	for (int i = 0; i < 200; i++)
		end(f[i]);
	lf_resv_fini(&r);
}

static void add_never_allocates(void **state)
{
	struct lf_resv r;
	struct lf_fence *f = make_fence();
	lf_resv_init(&r, NULL);
	lock(&r);
	assert_int_equal(lf_resv_reserve(&r, 100), 0);
	long calls = alloc_calls();
	alloc_fail_all(true);
	for (int i = 0; i < 100; i++)
		lf_resv_add(&r, f, usages[i % 4]);
	lf_resv_unlock(&r);
	alloc_fail_all(false);
	assert_int_equal(alloc_calls(), calls);
	assert_int_equal(count_all(&r), 100);
	end(f);
	lf_resv_fini(&r);
}

static void add_takes_a_reference(void **state)
{
	struct lf_resv r;
	struct lf_fence *f = make_fence();
	lf_resv_init(&r, NULL);
	add(&r, f, LF_USAGE_WRITE);
	lf_fence_signal(f, -EIO);
	lf_fence_put(f);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_true(has(&r, f, LF_USAGE_WRITE));
	lf_read_lock();
	assert_int_equal(lf_fence_status(f), -EIO);
	lf_read_unlock();
	lf_resv_fini(&r);
}

/* Only the holder of the lock may change the list. */
static void reserve_without_the_lock_is_refused(void **state)
{
	struct lf_resv r;
	lf_resv_init(&r, NULL);
	assert_int_equal(lf_resv_reserve(&r, 1), -EINVAL);
	assert_int_equal(lf_resv_reserve_replace(&r, 1), -EINVAL);
	assert_int_equal(lf_resv_copy(&r, &r), -EINVAL);
	expect_misuse(3);
	lf_resv_fini(&r);
}

static void reserve_of_more_than_there_can_be_is_an_overflow(void **state)
{
	struct lf_resv r;
	lf_resv_init(&r, NULL);
	lock(&r);
	assert_int_equal(lf_resv_reserve(&r, 5), 0);
	assert_int_equal(lf_resv_reserve(&r, UINT32_MAX), -EOVERFLOW);
	assert_int_equal(lf_resv_reserve(&r, 0x80000000u), -EOVERFLOW);
	lf_resv_unlock(&r);
	lf_resv_fini(&r);
}

#ifdef LF_DEBUG_CHECKS
enum { debug_checks = 1 };
#else
enum { debug_checks = 0 };
#endif

/* Reported in debug builds; the fence is not lost in any. */
static void reserved_slots_are_void_at_unlock(void **state)
{
	struct lf_resv r;
	struct lf_fence *f = make_fence();
	lf_resv_init(&r, NULL);
	lock(&r);
	assert_int_equal(lf_resv_reserve(&r, 2), 0);
	lf_resv_unlock(&r);
	assert_int_equal(r.reserved, 0);
	lock(&r);
	lf_resv_add(&r, f, LF_USAGE_READ);
	lf_resv_unlock(&r);
	expect_misuse(debug_checks);
	assert_true(has(&r, f, LF_USAGE_READ));
	end(f);
	lf_resv_fini(&r);
}

static void add_without_a_slot_is_reported_and_finds_room(void **state)
{
	struct lf_resv r;
	struct lf_fence *f = make_fence();
	lf_resv_init(&r, NULL);
	lock(&r);
	lf_resv_add(&r, f, LF_USAGE_READ);
	lf_resv_unlock(&r);
	expect_misuse(1);
	assert_true(has(&r, f, LF_USAGE_READ));
	end(f);
	lf_resv_fini(&r);
}

static void add_without_a_slot_and_without_memory_says_that_the_fence_is_lost(void **state)
{
	struct lf_resv r;
	struct lf_fence *f = make_fence();
	lf_resv_init(&r, NULL);
	lock(&r);
	alloc_fail_all(true);
	lf_resv_add(&r, f, LF_USAGE_READ);
	alloc_fail_all(false);
	lf_resv_unlock(&r);
	assert_true(log_contains("is lost"));
	expect_misuse(2);
	assert_int_equal(count_all(&r), 0);
	end(f);
	lf_resv_fini(&r);
}

static void add_of_what_is_no_usage_counts_as_the_strongest(void **state)
{
	struct lf_resv r;
	struct lf_fence *f = make_fence();
	lf_resv_init(&r, NULL);
	add(&r, f, (enum lf_usage)9);
	expect_misuse(1);
	assert_true(has(&r, f, LF_USAGE_KERNEL));
	lock(&r);
	assert_int_equal(lf_resv_reserve(&r, 1), 0);
	lf_resv_add(&r, NULL, LF_USAGE_READ);
	lf_resv_unlock(&r);
	expect_misuse(1);
	assert_int_equal(count_all(&r), 1);
	end(f);
	lf_resv_fini(&r);
}

static void generation_changes_with_each_fence(void **state)
{
	struct lf_resv r;
	struct lf_fence *f = make_fence();
	lf_resv_init(&r, NULL);
	for (uint64_t i = 0; i < 20; i++) {
		assert_true(lf_resv_generation(&r) == i);
		add(&r, f, LF_USAGE_READ);
	}
	end(f);
	lf_resv_fini(&r);
}

/* --- Compaction ----------------------------------------------------------------------------------------------------------- */

/* Nothing of an unordered context stands for another: eight pending, the newest signaled, seven stay. */
static void compaction_keeps_all_but_the_signaled_one_of_an_unordered_context(void **state)
{
	struct lf_resv r;
	struct producer p;
	struct lf_fence *f[8];
	producer_init(&p, LF_TIMELINE_UNORDERED);
	lf_resv_init(&r, NULL);
	for (int i = 0; i < 8; i++) {
		f[i] = emit(p.tl);
		add(&r, f[i], LF_USAGE_READ);
	}
	assert_true(lf_timeline_signal_one(p.tl, f[7], 0));
	compact(&r);
	assert_int_equal(count_all(&r), 7);
	for (int i = 0; i < 7; i++)
		assert_true(has(&r, f[i], LF_USAGE_READ));
	for (int i = 0; i < 8; i++)
		lf_fence_put(f[i]);
	producer_fini(&p, 8);
	lf_resv_fini(&r);
}

/*
 * What is kept of one ordered timeline: in each usage the newest, unless a stronger usage has one that is as new. Added here out of order,
 * to show that the seqno counts and not the place.
 */
static void compaction_keeps_the_newest_of_an_ordered_context_in_each_usage(void **state)
{
	struct lf_resv r;
	struct producer p;
	struct lf_fence *f[10];
	producer_init(&p, 0);
	lf_resv_init(&r, NULL);
	for (int i = 0; i < 10; i++)
		f[i] = emit(p.tl);
	add(&r, f[3], LF_USAGE_KERNEL); /* kept */
	add(&r, f[1], LF_USAGE_KERNEL);
	add(&r, f[2], LF_USAGE_WRITE); /* covered by the kernel's */
	add(&r, f[8], LF_USAGE_READ); /* kept: newer, though weaker */
	add(&r, f[5], LF_USAGE_READ);
	add(&r, f[8], LF_USAGE_BOOKKEEP); /* covered: the same fence in a stronger usage */
	add(&r, f[9], LF_USAGE_BOOKKEEP); /* kept */
	add(&r, f[0], LF_USAGE_BOOKKEEP);
	compact(&r);
	assert_int_equal(count_all(&r), 3);
	assert_true(has(&r, f[3], LF_USAGE_KERNEL));
	assert_true(has(&r, f[8], LF_USAGE_READ));
	assert_false(has(&r, f[8], LF_USAGE_WRITE));
	assert_true(has(&r, f[9], LF_USAGE_BOOKKEEP));
	for (int i = 0; i < 10; i++)
		lf_fence_put(f[i]);
	producer_fini(&p, 10);
	lf_resv_fini(&r);
}

static void list_of_one_ordered_context_does_not_grow(void **state)
{
	struct lf_resv r;
	struct producer p;
	producer_init(&p, 0);
	lf_resv_init(&r, NULL);
	for (int i = 0; i < 1000; i++) {
		struct lf_fence *f = emit(p.tl);
		add(&r, f, usages[i % 4]);
		lf_fence_put(f);
		assert_true(count_all(&r) <= 32);
	}
	assert_false(lf_resv_test_signaled(&r, LF_USAGE_KERNEL));
	lf_timeline_signal_to(p.tl, 1000, 0);
	assert_true(lf_resv_test_signaled(&r, ALL));
	producer_fini(&p, 1000);
	lf_resv_fini(&r);
}

static void promotion_by_adding_again_makes_both_count_until_compaction_drops_the_weaker(void **state)
{
	struct lf_resv r;
	struct lf_fence *f = make_fence();
	lf_resv_init(&r, NULL);
	add(&r, f, LF_USAGE_BOOKKEEP);
	assert_false(has(&r, f, LF_USAGE_WRITE));
	add(&r, f, LF_USAGE_WRITE);
	assert_true(has(&r, f, LF_USAGE_WRITE));
	assert_int_equal(count_all(&r), 2);
	compact(&r);
	assert_int_equal(count_all(&r), 1);
	assert_true(has(&r, f, LF_USAGE_WRITE));
	end(f);
	lf_resv_fini(&r);
}

static void adding_again_with_a_weaker_usage_demotes_nothing(void **state)
{
	struct lf_resv r;
	struct producer p;
	struct lf_fence *alone = make_fence(), *of_line;
	producer_init(&p, 0);
	of_line = emit(p.tl);
	lf_resv_init(&r, NULL);
	add(&r, alone, LF_USAGE_KERNEL);
	add(&r, of_line, LF_USAGE_KERNEL);
	add(&r, alone, LF_USAGE_READ);
	add(&r, of_line, LF_USAGE_READ);
	compact(&r);
	assert_int_equal(count_all(&r), 2);
	assert_true(has(&r, alone, LF_USAGE_KERNEL));
	assert_true(has(&r, of_line, LF_USAGE_KERNEL));
	lf_fence_put(of_line);
	producer_fini(&p, 1);
	end(alone);
	lf_resv_fini(&r);
}

static void compaction_keeps_the_order_of_adding(void **state)
{
	struct lf_resv r;
	struct lf_fence *f[40], *found[40];
	size_t n = 0;
	lf_resv_init(&r, NULL);
	for (int i = 0; i < 40; i++) {
		f[i] = make_fence();
		add(&r, f[i], usages[i % 4]);
	}
	for (int i = 0; i < 40; i += 3)
		lf_fence_signal(f[i], 0);
	compact(&r);
	assert_int_equal(walk(&r, ALL, found, 40), 26);
	for (int i = 0; i < 40; i++) {
		if (i % 3 != 0)
			assert_ptr_equal(found[n++], f[i]);
		end(f[i]);
	}
	lf_resv_fini(&r);
}

/* What a compaction drops is let go of, at once when nobody has a snapshot. */
static void compaction_lets_go_of_what_it_drops(void **state)
{
	struct lf_resv r;
	lf_resv_init(&r, NULL);
	for (int i = 0; i < 50; i++) {
		struct lf_fence *f = make_fence();
		add(&r, f, LF_USAGE_READ);
		end(f);
	}
	compact(&r);
	assert_int_equal(lf_reclaim_barrier(), 0);
	long before = alloc_live();
	assert_int_equal(count_all(&r), 0);
	lf_resv_fini(&r);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(alloc_live(), before - 1); /* the list itself, and nothing in it */
}

static void compaction_beside_a_snapshot_leaves_both_with_references(void **state)
{
	struct lf_resv r;
	struct lf_snapshot s;
	struct lf_resv_cursor cursor;
	struct lf_fence *f[8], *seen;
	int n = 0;
	lf_resv_init(&r, NULL);
	for (int i = 0; i < 8; i++) {
		f[i] = make_fence();
		add(&r, f[i], LF_USAGE_READ);
	}
	lf_resv_snapshot(&r, &s);
	for (int i = 0; i < 8; i += 2)
		lf_fence_signal(f[i], -i);
	compact(&r);
	assert_int_equal(count_all(&r), 4);
	for (int i = 0; i < 8; i++)
		lf_fence_put(f[i]);
	assert_int_equal(lf_reclaim_barrier(), 0);
	lf_snapshot_cursor_begin(&cursor, &s, ALL);
	for (; (seen = lf_resv_cursor_next(&cursor)) != NULL; n++) {
		assert_ptr_equal(seen, f[n]);
		assert_int_equal(lf_fence_status(seen), n % 2 ? 0 : n ? -n : 1);
	}
	assert_int_equal(n, 8);
	lf_snapshot_put(&s);
	assert_int_equal(lf_reclaim_barrier(), 0);
	for (int i = 1; i < 8; i += 2) {
		assert_true(has(&r, f[i], LF_USAGE_READ));
		lf_read_lock();
		lf_fence_get(f[i]);
		lf_read_unlock();
		end(f[i]);
	}
	lf_resv_fini(&r);
}

/* --- Replacing ------------------------------------------------------------------------------------------------------------ */

static void replace_puts_one_fence_in_the_place_of_a_context(void **state)
{
	struct lf_resv r;
	struct producer p;
	struct lf_fence *old[3], *other = make_fence(), *preempt = make_fence();
	producer_init(&p, LF_TIMELINE_UNORDERED);
	lf_resv_init(&r, NULL);
	for (int i = 0; i < 3; i++) {
		old[i] = emit(p.tl);
		add(&r, old[i], usages[i]);
	}
	add(&r, other, LF_USAGE_WRITE);
	uint64_t generation = lf_resv_generation(&r);
	lock(&r);
	assert_int_equal(lf_resv_reserve_replace(&r, 1), 0);
	alloc_fail_all(true);
	assert_int_equal(lf_resv_replace(&r, lf_timeline_context(p.tl), preempt, LF_USAGE_BOOKKEEP), 3);
	alloc_fail_all(false);
	lf_resv_unlock(&r);
	assert_true(lf_resv_generation(&r) != generation);
	assert_int_equal(count_all(&r), 2);
	assert_true(has(&r, other, LF_USAGE_WRITE));
	assert_true(has(&r, preempt, LF_USAGE_BOOKKEEP));
	assert_false(has(&r, preempt, LF_USAGE_READ));
	for (int i = 0; i < 3; i++)
		lf_fence_put(old[i]);
	producer_fini(&p, 3);
	end(other);
	end(preempt);
	lf_resv_fini(&r);
}

static void replace_of_a_context_that_is_not_there_adds_nothing(void **state)
{
	struct lf_resv r;
	struct lf_fence *f = make_fence();
	lf_resv_init(&r, NULL);
	lock(&r);
	assert_int_equal(lf_resv_reserve_replace(&r, 1), 0);
	assert_int_equal(lf_resv_replace(&r, 12345678, f, LF_USAGE_READ), 0);
	assert_int_equal(lf_resv_reserve(&r, 1), 0);
	lf_resv_add(&r, f, LF_USAGE_READ);
	assert_int_equal(lf_resv_replace(&r, 12345678, f, LF_USAGE_READ), 0);
	lf_resv_unlock(&r);
	assert_int_equal(count_all(&r), 1);
	lock(&r);
	assert_int_equal(lf_resv_replace(&r, 0, f, LF_USAGE_READ), 0);
	lf_resv_unlock(&r);
	expect_misuse(1);
	end(f);
	lf_resv_fini(&r);
}

/* Slots that were reserved before and after stay reserved, and what is prepared is cumulative. */
static void replace_keeps_reserved_slots_and_needs_one_preparation_each(void **state)
{
	struct lf_resv r;
	struct producer p[2];
	struct lf_fence *f[2], *g = make_fence();
	lf_resv_init(&r, NULL);
	for (int i = 0; i < 2; i++) {
		producer_init(&p[i], 0);
		f[i] = emit(p[i].tl);
		add(&r, f[i], LF_USAGE_READ);
	}
	lock(&r);
	assert_int_equal(lf_resv_reserve_replace(&r, 1), 0);
	assert_int_equal(lf_resv_reserve(&r, 5), 0);
	assert_int_equal(lf_resv_reserve_replace(&r, 1), 0);
	assert_int_equal(lf_resv_reserve(&r, 50), 0); /* grows what was prepared */
	alloc_fail_all(true);
	for (int i = 0; i < 2; i++)
		assert_int_equal(lf_resv_replace(&r, lf_timeline_context(p[i].tl), g, LF_USAGE_KERNEL), 1);
	for (int i = 0; i < 55; i++)
		lf_resv_add(&r, g, LF_USAGE_READ);
	alloc_fail_all(false);
	assert_int_equal(log_count(LF_LOG_MISUSE), 0);
	lf_resv_unlock(&r);
	for (int i = 0; i < 2; i++) {
		lf_fence_put(f[i]);
		producer_fini(&p[i], 1);
	}
	end(g);
	lf_resv_fini(&r);
}

static void replace_that_was_not_prepared_is_reported_and_done_if_there_is_memory(void **state)
{
	struct lf_resv r;
	struct producer p;
	struct lf_fence *f, *g = make_fence();
	producer_init(&p, 0);
	f = emit(p.tl);
	lf_resv_init(&r, NULL);
	add(&r, f, LF_USAGE_READ);
	lock(&r);
	assert_int_equal(lf_resv_reserve_replace(&r, 1), 0);
	lf_resv_unlock(&r); /* and void */
	lock(&r);
	alloc_fail_all(true);
	assert_int_equal(lf_resv_replace(&r, lf_timeline_context(p.tl), g, LF_USAGE_WRITE), 0);
	alloc_fail_all(false);
	assert_true(log_contains("is lost"));
	expect_misuse(2);
	assert_true(has(&r, f, LF_USAGE_READ));
	assert_int_equal(lf_resv_replace(&r, lf_timeline_context(p.tl), g, LF_USAGE_WRITE), 1);
	expect_misuse(1);
	assert_true(has(&r, g, LF_USAGE_WRITE));
	lf_resv_unlock(&r);
	lf_fence_put(f);
	producer_fini(&p, 1);
	end(g);
	lf_resv_fini(&r);
}

/* --- Memory that runs out -------------------------------------------------------------------------------------------------- */

/* What a failing call leaves as it was is used afterwards. */
static int reserve_until_failure(void *arg)
{
	struct producer *p = arg;
	struct lf_resv r;
	struct lf_fence *f;
	int error = lf_timeline_emit(p->tl, 0, &f);
	if (error != 0)
		return error;
	lf_resv_init(&r, NULL);
	lock(&r);
	for (int i = 0; i < 6 && error == 0; i++) {
		uint32_t reserved = r.reserved, spares = r.spares_free;
		uintptr_t block = r.block.value;
		void *spare = r.spares;
		error = i % 2 ? lf_resv_reserve(&r, 7u << i) : lf_resv_reserve_replace(&r, 2);
		if (error != 0)
			assert_true(r.reserved == reserved && r.block.value == block && r.spares == spare && r.spares_free == spares);
	}
	while (r.reserved)
		lf_resv_add(&r, f, LF_USAGE_READ);
	while (r.spares_free && r.block.value)
		must(lf_resv_replace(&r, lf_timeline_context(p->tl), f, LF_USAGE_READ) > 0);
	lf_resv_unlock(&r);
	lf_timeline_signal_to(p->tl, lf_fence_seqno(f), 0);
	lf_fence_put(f);
	lf_resv_fini(&r);
	assert_int_equal(log_count(LF_LOG_MISUSE), 0);
	return error;
}

static void reserving_survives_each_failure_and_leaves_all_as_it_was(void **state)
{
	struct producer p;
	producer_init(&p, 0);
	assert_true(alloc_fail_each(reserve_until_failure, &p) >= 5);
	lf_timeline_put(p.tl);
}

struct two_resvs {
	struct lf_resv src;
	struct lf_fence *f[20];
};

static int copy_and_get(void *arg)
{
	struct two_resvs *t = arg;
	struct lf_resv dst;
	struct lf_fence **fences;
	size_t n;
	int error;
	lf_resv_init(&dst, NULL);
	lock(&dst);
	error = lf_resv_copy(&dst, &t->src);
	assert_int_equal(count_all(&dst), error ? 0 : 20);
	lf_resv_unlock(&dst);
	if (error == 0)
		error = lf_resv_get_fences(&dst, ALL, &fences, &n);
	if (error == 0) {
		while (n)
			lf_fence_put(fences[--n]);
		lf_free(fences);
	}
	lf_resv_fini(&dst);
	return error;
}

static void copy_and_get_fences_fail_without_a_trace(void **state)
{
	struct two_resvs t;
	lf_resv_init(&t.src, NULL);
	for (int i = 0; i < 20; i++) {
		t.f[i] = make_fence();
		add(&t.src, t.f[i], usages[i % 4]);
	}
	assert_true(alloc_fail_each(copy_and_get, &t) >= 2);
	lf_resv_fini(&t.src);
	for (int i = 0; i < 20; i++)
		end(t.f[i]);
}

static int get_singleton_of_three(void *arg)
{
	struct lf_fence *f[3] = { NULL }, *one = (void *)(uintptr_t)0x10;
	struct lf_resv r;
	int error = 0;
	lf_resv_init(&r, NULL);
	lock(&r);
	for (int i = 0; i < 3 && error == 0; i++) {
		error = lf_fence_create(&f[i]);
		if (error == 0)
			error = lf_resv_reserve(&r, 1);
		if (error == 0)
			lf_resv_add(&r, f[i], LF_USAGE_READ);
	}
	lf_resv_unlock(&r);
	if (error == 0) {
		error = lf_resv_get_singleton(&r, LF_USAGE_READ, &one);
		assert_int_equal(error != 0, one == (void *)(uintptr_t)0x10); /* written on success only */
	}
	for (int i = 0; i < 3; i++) {
		if (f[i])
			end(f[i]);
	}
	if (one != (void *)(uintptr_t)0x10)
		lf_fence_put(one);
	lf_resv_fini(&r);
	return error;
}

static void get_singleton_survives_each_failure(void **state)
{
	assert_true(alloc_fail_each(get_singleton_of_three, NULL) >= 6);
}

/* --- Asking, with all four usages ------------------------------------------------------------------------------------------- */

/* One fence of each usage, by usage. */
struct four {
	struct lf_resv r;
	struct producer p;
	struct lf_fence *f[4];
};

static void four_init(struct four *four)
{
	producer_init(&four->p, LF_TIMELINE_UNORDERED);
	lf_resv_init(&four->r, NULL);
	for (int i = 0; i < 4; i++) {
		four->f[i] = emit(four->p.tl);
		add(&four->r, four->f[i], usages[i]);
	}
}

static void four_fini(struct four *four)
{
	for (int i = 0; i < 4; i++)
		lf_fence_put(four->f[i]);
	producer_fini(&four->p, 4);
	lf_resv_fini(&four->r);
}

static void test_signaled_asks_for_a_usage_and_all_stronger_ones(void **state)
{
	struct four four;
	four_init(&four);
	for (int signaled = 0; signaled < 4; signaled++) {
		for (int u = 0; u < 4; u++)
			assert_int_equal(lf_resv_test_signaled(&four.r, usages[u]), u < signaled);
		lf_timeline_signal_one(four.p.tl, four.f[signaled], 0);
	}
	assert_true(lf_resv_test_signaled(&four.r, ALL));
	four_fini(&four);
}

static void wait_waits_for_a_usage_and_all_stronger_ones_and_arms_them_all_first(void **state)
{
	struct four four;
	four_init(&four);
	assert_int_equal(lf_resv_wait(&four.r, LF_USAGE_WRITE, 0), -ETIME);
	assert_int_equal(four.p.enables, 2);
	assert_int_equal(lf_resv_wait(&four.r, ALL, 0), -ETIME);
	assert_int_equal(four.p.enables, 4);
	lf_timeline_signal_one(four.p.tl, four.f[0], 0);
	assert_int_equal(lf_resv_wait(&four.r, LF_USAGE_KERNEL, LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_resv_wait(&four.r, LF_USAGE_WRITE, 0), -ETIME);
	for (int i = 1; i < 4; i++)
		lf_timeline_signal_one(four.p.tl, four.f[i], -EIO);
	assert_int_equal(lf_resv_wait(&four.r, ALL, LF_DEADLINE_NEVER), 0);
	four_fini(&four);
}

static void wait_where_it_is_not_allowed_is_refused_unless_all_is_signaled(void **state)
{
	struct lf_resv r;
	struct lf_fence *f = make_fence();
	struct lf_snapshot s;
	lf_resv_init(&r, NULL);
	add(&r, f, LF_USAGE_READ);
	lf_resv_snapshot(&r, &s);
	lf_read_lock();
	assert_int_equal(lf_resv_wait(&r, LF_USAGE_READ, 0), -EDEADLK);
	assert_int_equal(lf_snapshot_wait(&s, LF_USAGE_READ, 0), -EDEADLK);
	assert_int_equal(lf_resv_wait(&r, LF_USAGE_WRITE, 0), 0);
	lf_read_unlock();
	expect_misuse(2);
	lf_fence_signal(f, 0);
	lf_read_lock();
	assert_int_equal(lf_resv_wait(&r, LF_USAGE_READ, LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_snapshot_wait(&s, LF_USAGE_READ, LF_DEADLINE_NEVER), 0);
	lf_read_unlock();
	lf_snapshot_put(&s);
	lf_fence_put(f);
	lf_resv_fini(&r);
}

static void validator_warns_of_a_wait_for_a_fence_while_a_reservation_is_held(void **state)
{
	struct lf_fence *f = make_fence();
	struct lf_resv r, other;
	struct lf_ticket ticket;

	(void)state;
	lf_resv_init(&r, NULL);
	lf_resv_init(&other, NULL);
	add(&r, f, LF_USAGE_READ);
	assert_int_equal(lf_validate(LF_VALIDATE_WAITS), 0);
	assert_int_equal(lf_fence_wait(f, 0), -ETIME);
	assert_int_equal(log_count(LF_LOG_WARNING), 0);
	lf_ticket_init(&ticket, NULL);
	assert_int_equal(lf_resv_lock(&r, &ticket), 0);
	assert_int_equal(lf_resv_lock(&other, &ticket), 0); /* waiting for a lock is another matter */
	assert_int_equal(log_count(LF_LOG_WARNING), 0);
	assert_int_equal(lf_fence_wait(f, 0), -ETIME);
	assert_int_equal(log_count(LF_LOG_WARNING), 1);
	assert_true(log_contains("holds 2 reservations"));
	lf_resv_unlock(&other);
	assert_int_equal(lf_resv_wait(&r, LF_USAGE_READ, 0), -ETIME);
	assert_true(log_contains("holds 1 reservations"));
	lf_resv_unlock(&r);
	lf_ticket_fini(&ticket);
	log_reset();
	assert_int_equal(lf_resv_trylock(&r, NULL), 0);
	lf_fence_signal(f, 0);
	assert_int_equal(lf_fence_wait(f, 0), 0); /* no wait */
	lf_resv_unlock(&r);
	assert_int_equal(lf_resv_wait(&r, LF_USAGE_READ, 0), 0);
	assert_int_equal(log_count(LF_LOG_WARNING), 0);
	assert_int_equal(lf_validate(0), 0);
	lf_fence_put(f);
	lf_resv_fini(&r);
	lf_resv_fini(&other);
}

static void null_is_reported(void **state)
{
	struct lf_snapshot none = { 0 };
	struct lf_resv_cursor cursor;
	struct lf_fence **fences;
	struct lf_resv r;
	size_t n;

	(void)state;
	lf_resv_init(&r, NULL);
	assert_int_equal(lf_resv_lock(NULL, NULL), -EINVAL);
	assert_int_equal(lf_resv_trylock(NULL, NULL), -EINVAL);
	lf_resv_unlock(NULL);
	assert_int_equal(lf_resv_reserve(NULL, 1), -EINVAL);
	assert_int_equal(lf_resv_reserve_replace(NULL, 1), -EINVAL);
	assert_int_equal(lf_resv_copy(NULL, NULL), -EINVAL);
	assert_int_equal(lf_resv_lock(&r, NULL), 0);
	assert_int_equal(lf_resv_copy(&r, NULL), -EINVAL);
	lf_resv_unlock(&r);
	lf_resv_add(NULL, lf_fence_stub(), LF_USAGE_READ);
	assert_int_equal(lf_resv_replace(NULL, 1, lf_fence_stub(), LF_USAGE_READ), 0);
	assert_false(lf_resv_test_signaled(NULL, LF_USAGE_READ));
	assert_int_equal(lf_resv_wait(NULL, LF_USAGE_READ, 0), -EINVAL);
	assert_int_equal(lf_resv_get_fences(NULL, LF_USAGE_READ, &fences, &n), -EINVAL);
	lf_resv_cursor_begin(&cursor, NULL, LF_USAGE_READ);
	assert_null(lf_resv_cursor_next(&cursor));
	assert_false(lf_snapshot_test_signaled(NULL, LF_USAGE_READ));
	expect_misuse(14);
	lf_resv_fini(&r);
	/* These take it. */
	lf_resv_fini(NULL);
	lf_snapshot_put(NULL);
	lf_snapshot_put(&none);
}

static void usage_to_wait_for_follows_from_what_one_does(void **state)
{
	(void)state;
	assert_int_equal(lf_usage_to_wait_for(true), LF_USAGE_READ);
	assert_int_equal(lf_usage_to_wait_for(false), LF_USAGE_WRITE);
}

struct waiting {
	struct four four;
	struct flag enabled;
	int result;
};

static void tell_enabled(struct producer *p, struct lf_fence *f, enum hook hook)
{
	/* the weakest is armed last: from here on the wait has its snapshot */
	if (hook == HOOK_ENABLE && lf_fence_seqno(f) == 4)
		flag_set(&((struct waiting *)p->user)->enabled);
}

static void *wait_for_four(void *arg)
{
	struct waiting *w = arg;
	w->result = lf_resv_wait(&w->four.r, ALL, LF_DEADLINE_NEVER);
	return NULL;
}

static void wait_is_not_prolonged_by_later_adds(void **state)
{
	struct waiting w;
	struct lf_fence *later[30];
	pthread_t thread;
	memset(&w, 0, sizeof(w));
	flag_init(&w.enabled);
	four_init(&w.four);
	w.four.p.user = &w;
	w.four.p.during = tell_enabled;
	w.result = 1;
	test_watchdog(30, "a wait that later adds prolong");
	thread = thread_start(wait_for_four, &w, 0);
	flag_wait(&w.enabled);
	for (int i = 0; i < 30; i++) {
		later[i] = make_fence();
		add(&w.four.r, later[i], usages[i % 4]);
	}
	for (int i = 0; i < 4; i++)
		lf_timeline_signal_one(w.four.p.tl, w.four.f[i], 0);
	thread_join(thread);
	test_watchdog(0, "");
	assert_int_equal(w.result, 0);
	for (int i = 0; i < 30; i++)
		end(later[i]);
	w.four.p.during = NULL;
	four_fini(&w.four);
	flag_fini(&w.enabled);
}

static void get_fences_returns_what_is_pending_of_a_usage_and_all_stronger_ones(void **state)
{
	struct four four;
	struct lf_fence **fences;
	size_t n;
	four_init(&four);
	lf_timeline_signal_one(four.p.tl, four.f[1], 0);
	for (size_t u = 0; u < 4; u++) {
		assert_int_equal(lf_resv_get_fences(&four.r, usages[u], &fences, &n), 0);
		assert_int_equal(n, u == 0 ? 1 : u);
		assert_ptr_equal(fences[0], four.f[0]);
		if (u >= 2)
			assert_ptr_equal(fences[n - 1], four.f[u]);
		while (n)
			lf_fence_put(fences[--n]);
		lf_free(fences);
	}
	assert_int_equal(lf_resv_get_fences(&four.r, (enum lf_usage)4, &fences, &n), -EINVAL);
	assert_int_equal(lf_resv_get_fences(&four.r, ALL, NULL, &n), -EINVAL);
	assert_int_equal(lf_resv_get_singleton(&four.r, ALL, NULL), -EINVAL);
	expect_misuse(3);
	four_fini(&four);
}

static void get_singleton_is_the_fence_or_one_that_stands_for_all(void **state)
{
	struct four four;
	struct lf_fence *one;
	four_init(&four);
	assert_int_equal(lf_resv_get_singleton(&four.r, LF_USAGE_KERNEL, &one), 0);
	assert_ptr_equal(one, four.f[0]);
	lf_fence_put(one);
	add(&four.r, four.f[0], LF_USAGE_KERNEL); /* a second time, and still the only one */
	assert_int_equal(lf_resv_get_singleton(&four.r, LF_USAGE_KERNEL, &one), 0);
	assert_ptr_equal(one, four.f[0]);
	lf_fence_put(one);
	assert_int_equal(lf_resv_get_singleton(&four.r, LF_USAGE_READ, &one), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(lf_fence_status(one), 0);
		lf_timeline_signal_one(four.p.tl, four.f[i], 0);
	}
	assert_int_equal(lf_fence_status(one), 1);
	lf_fence_put(one);
	assert_int_equal(lf_resv_get_singleton(&four.r, LF_USAGE_READ, &one), 0);
	assert_ptr_equal(one, lf_fence_stub());
	four_fini(&four);
}

static void copy_adds_what_is_pending_with_its_usages(void **state)
{
	struct four four;
	struct lf_resv dst;
	struct lf_fence *mine = make_fence();
	four_init(&four);
	lf_timeline_signal_one(four.p.tl, four.f[2], 0);
	lf_resv_init(&dst, NULL);
	lock(&dst);
	assert_int_equal(lf_resv_reserve(&dst, 1), 0);
	assert_int_equal(lf_resv_copy(&dst, &four.r), 0);
	assert_int_equal(lf_resv_copy(&dst, &dst), 0);
	assert_int_equal(dst.reserved, 1); /* what was reserved before is still there */
	lf_resv_add(&dst, mine, LF_USAGE_READ);
	lf_resv_unlock(&dst);
	assert_int_equal(count_all(&dst), 4);
	for (int u = 0; u < 4; u++) {
		if (u != 2)
			assert_true(has(&dst, four.f[u], usages[u]));
		if (u > 0)
			assert_false(has(&dst, four.f[u], usages[u - 1]));
	}
	end(mine);
	lf_resv_fini(&dst);
	four_fini(&four);
}

static void set_deadline_tells_a_usage_and_all_stronger_ones(void **state)
{
	struct four four;
	four_init(&four);
	for (unsigned u = 0; u < 4; u++) {
		four.p.hints = 0;
		lf_resv_set_deadline(&four.r, usages[u], 100 + u);
		assert_int_equal(four.p.hints, u + 1);
		assert_true(four.p.hint == 100 + u);
	}
	four_fini(&four);
}

static void describe_writes_a_line_for_each_fence_with_its_usage(void **state)
{
	static const char *const names[] = { "kernel ", "write ", "read ", "bookkeep " };
	struct four four;
	char text[1000], line[200], small[30];
	const char *at = text;
	four_init(&four);
	lf_timeline_signal_one(four.p.tl, four.f[3], 0);
	int len = lf_resv_describe(&four.r, text, sizeof(text));
	assert_int_equal(len, strlen(text));
	for (int i = 0; i < 4; i++) {
		int n = lf_fence_describe(four.f[i], line, sizeof(line));
		assert_int_equal(strncmp(at, names[i], strlen(names[i])), 0);
		at += strlen(names[i]);
		assert_int_equal(strncmp(at, line, (size_t)n), 0);
		at += n;
		assert_int_equal(*at++, '\n');
	}
	assert_int_equal(*at, '\0');
	for (size_t size = 0; size <= sizeof(small); size++) {
		memset(small, 'x', sizeof(small));
		assert_int_equal(lf_resv_describe(&four.r, size ? small : NULL, size), len);
		assert_true(size == 0 || strlen(small) == size - 1);
		assert_int_equal(strncmp(small, text, size ? size - 1 : 0), 0);
	}
	four_fini(&four);
}

/* --- Cursor ---------------------------------------------------------------------------------------------------------------- */

static void cursor_shows_usages_and_skips_weaker_ones(void **state)
{
	struct four four;
	struct lf_resv_cursor cursor;
	struct lf_fence *f;
	four_init(&four);
	for (int u = 0; u < 4; u++) {
		int n = 0;
		lock(&four.r);
		lf_resv_cursor_begin(&cursor, &four.r, usages[u]);
		for (; (f = lf_resv_cursor_next(&cursor)) != NULL; n++) {
			assert_ptr_equal(f, four.f[n]);
			assert_int_equal(lf_resv_cursor_usage(&cursor), usages[n]);
		}
		assert_null(lf_resv_cursor_next(&cursor));
		lf_resv_unlock(&four.r);
		assert_int_equal(n, u + 1);
	}
	four_fini(&four);
}

static void cursor_outside_of_lock_and_section_is_refused(void **state)
{
	struct four four;
	struct lf_resv_cursor cursor;
	four_init(&four);
	lf_resv_cursor_begin(&cursor, &four.r, ALL);
	assert_null(lf_resv_cursor_next(&cursor));
	expect_misuse(1);
	four_fini(&four);
}

static void cursor_does_not_see_what_is_added_later(void **state)
{
	struct four four;
	struct lf_resv_cursor cursor;
	int n = 0;
	four_init(&four);
	lf_read_lock();
	lf_resv_cursor_begin(&cursor, &four.r, ALL);
	lock(&four.r);
	assert_int_equal(lf_resv_reserve(&four.r, 1), 0);
	lf_resv_add(&four.r, four.f[0], LF_USAGE_KERNEL);
	lf_resv_unlock(&four.r);
	while (lf_resv_cursor_next(&cursor))
		n++;
	lf_read_unlock();
	assert_int_equal(n, 4);
	four_fini(&four);
}

/* What a reader found stays what it is until its section ends, whatever the writer does meanwhile. */
static void fence_found_by_a_walk_lives_until_the_section_ends(void **state)
{
	struct lf_resv r;
	struct lf_resv_cursor cursor;
	struct lf_fence *f = make_fence();
	char text[100];
	lf_resv_init(&r, NULL);
	add(&r, f, LF_USAGE_READ);
	lf_fence_signal(f, -ENODEV);
	lf_fence_put(f);
	lf_read_lock();
	lf_resv_cursor_begin(&cursor, &r, ALL);
	f = lf_resv_cursor_next(&cursor);
	assert_non_null(f);
	compact(&r);
	assert_int_equal(lf_fence_status(f), -ENODEV);
	assert_null(lf_fence_tryget(f));
	assert_true(lf_fence_describe(f, text, sizeof(text)) > 0);
	assert_null(lf_resv_cursor_next(&cursor));
	lf_read_unlock();
	lf_resv_fini(&r);
}

struct looking {
	struct lf_resv r;
	struct flag stop;
	unsigned stopped, looks, signaled;
};

/* As a user would write it. */
static void *look_at_the_first(void *arg)
{
	struct looking *l = arg;
	while (!count_get(&l->stopped)) {
		struct lf_resv_cursor cursor;
		struct lf_fence *f;
		lf_read_lock();
		lf_resv_cursor_begin(&cursor, &l->r, LF_USAGE_BOOKKEEP);
		f = lf_resv_cursor_next(&cursor);
		if (f && lf_fence_is_signaled(f))
			count_up(&l->signaled);
		lf_read_unlock();
		count_up(&l->looks);
	}
	return NULL;
}

static void reader_may_look_at_any_fence_it_finds_while_a_writer_replaces_them_all(void **state)
{
	struct looking l;
	pthread_t thread;
	long rounds = test_rounds(20000);
	memset(&l, 0, sizeof(l));
	lf_resv_init(&l.r, NULL);
	thread = thread_start(look_at_the_first, &l, 0);
	for (long i = 0; i < rounds || count_get(&l.looks) < 100; i++) {
		struct lf_fence *f = make_fence();
		add(&l.r, f, usages[i % 4]);
		end(f);
	}
	count_up(&l.stopped);
	thread_join(thread);
	test_note("%u looks, %u at signaled fences", l.looks, l.signaled);
	lf_resv_fini(&l.r);
}

/* --- Snapshots ------------------------------------------------------------------------------------------------------------- */

static void snapshot_keeps_fences_and_outlives_its_reservation(void **state)
{
	struct lf_resv r;
	struct lf_snapshot s;
	struct lf_fence *f = make_fence(), *later = make_fence();
	lf_resv_init(&r, NULL);
	add(&r, f, LF_USAGE_READ);
	lf_resv_snapshot(&r, &s);
	add(&r, later, LF_USAGE_KERNEL);
	lf_resv_fini(&r);
	assert_true(lf_snapshot_test_signaled(&s, LF_USAGE_WRITE));
	assert_false(lf_snapshot_test_signaled(&s, LF_USAGE_READ));
	assert_int_equal(lf_snapshot_wait(&s, LF_USAGE_READ, 0), -ETIME);
	lf_fence_signal(f, 0);
	assert_true(lf_snapshot_test_signaled(&s, ALL));
	assert_int_equal(lf_snapshot_wait(&s, ALL, LF_DEADLINE_NEVER), 0);
	lf_fence_put(f);
	lf_snapshot_put(&s);
	assert_null(s.block);
	end(later);
}

struct held {
	struct lf_resv *r;
	struct flag locked, done;
};

static void *hold(void *arg)
{
	struct held *h = arg;
	lock(h->r);
	flag_set(&h->locked);
	flag_wait(&h->done);
	lf_resv_unlock(h->r);
	return NULL;
}

/* Another thread has the lock all the while, and there is no memory. */
static void asking_needs_no_lock_and_a_snapshot_no_memory(void **state)
{
	struct four four;
	struct held h = { .r = &four.r };
	struct lf_snapshot s;
	struct lf_fence *one;
	pthread_t thread;
	char text[100];
	four_init(&four);
	flag_init(&h.locked);
	flag_init(&h.done);
	test_watchdog(30, "a query that takes the lock");
	thread = thread_start(hold, &h, 0);
	flag_wait(&h.locked);
	long calls = alloc_calls();
	alloc_fail_all(true);
	lf_resv_snapshot(&four.r, &s);
	assert_false(lf_resv_test_signaled(&four.r, ALL));
	assert_int_equal(lf_resv_wait(&four.r, ALL, 0), -ETIME);
	assert_true(lf_resv_describe(&four.r, text, sizeof(text)) > 0);
	lf_resv_set_deadline(&four.r, ALL, 1);
	lf_snapshot_put(&s);
	assert_int_equal(alloc_calls(), calls);
	alloc_fail_all(false);
	assert_int_equal(lf_resv_get_singleton(&four.r, LF_USAGE_KERNEL, &one), 0);
	lf_fence_put(one);
	flag_set(&h.done);
	thread_join(thread);
	test_watchdog(0, "");
	flag_fini(&h.locked);
	flag_fini(&h.done);
	four_fini(&four);
}

/* In constant time: a snapshot costs one count whatever is in it. Shown by the fences, whose counts do not change. */
static void snapshot_takes_one_reference_in_all(void **state)
{
	struct lf_resv r;
	struct lf_snapshot s[10];
	struct lf_fence *f = make_fence();
	uint32_t before;
	lf_resv_init(&r, NULL);
	add(&r, f, LF_USAGE_READ);
	before = f->count.value;
	for (int i = 0; i < 10; i++)
		lf_resv_snapshot(&r, &s[i]);
	assert_int_equal(f->count.value, before);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(s[i].count, 1);
		lf_snapshot_put(&s[i]);
	}
	assert_int_equal(f->count.value, before);
	end(f);
	lf_resv_fini(&r);
}

/* --- Tear-down in every state ----------------------------------------------------------------------------------------------- */

static void reservation_ends_with_pending_fences_and_spares_of_slots(void **state)
{
	struct lf_resv r;
	struct four four;
	four_init(&four);
	lf_resv_init(&r, NULL);
	lock(&r);
	assert_int_equal(lf_resv_reserve(&r, 100), 0);
	assert_int_equal(lf_resv_reserve_replace(&r, 3), 0);
	assert_int_equal(lf_resv_copy(&r, &four.r), 0);
	lf_resv_unlock(&r);
	assert_null(r.spares);
	lf_resv_fini(&r);
	four_fini(&four);
}

static void abandoned_fence_is_canceled_when_its_last_reservation_ends(void **state)
{
	struct lf_resv r;
	struct lf_fence *f = make_fence();
	lf_resv_init(&r, NULL);
	add(&r, f, LF_USAGE_READ);
	lf_fence_put(f);
	lf_read_lock();
	assert_int_equal(lf_fence_status(f), 0);
	lf_resv_fini(&r);
	assert_int_equal(lf_fence_status(f), -ECANCELED);
	lf_read_unlock();
}

static void end_while_locked(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct noted_cb *n = (struct noted_cb *)(void *)cb;
	struct lf_resv *r = (struct lf_resv *)(void *)n->producer;
	must(lf_resv_trylock(r, NULL) == 0);
	must(lf_resv_reserve(r, 1) == 0);
	lf_resv_add(r, lf_fence_stub(), LF_USAGE_READ);
	must(lf_resv_test_signaled(r, ALL));
	lf_resv_unlock(r);
	n->ran++;
}

static void callback_of_a_fence_may_change_and_ask_its_reservation(void **state)
{
	struct lf_resv r;
	struct lf_fence *f = make_fence();
	struct noted_cb n = { .cb = LF_FENCE_CB_INIT, .producer = (struct producer *)(void *)&r };
	lf_resv_init(&r, NULL);
	for (int i = 0; i < 8; i++)
		add(&r, f, LF_USAGE_READ); /* full, so that the callback compacts */
	assert_int_equal(lf_fence_add_callback(f, &n.cb, end_while_locked), 0);
	end(f);
	assert_int_equal(n.ran, 1);
	assert_int_equal(count_all(&r), 1);
	lf_resv_fini(&r);
}

/* --- Counted reservations ------------------------------------------------------------------------------------------------ */

static int create_and_put(void *arg)
{
	struct lf_resv *r = NULL;
	int error = lf_resv_create(NULL, &r);
	if (error == 0)
		lf_resv_put(r);
	return error;
}

static void counted_reservation_is_like_any_other(void **state)
{
	struct lf_resv *r = NULL;
	struct lf_fence *f = make_fence();
	struct lf_snapshot s;
	assert_int_equal(lf_resv_create(NULL, &r), 0);
	assert_int_equal(count_all(r), 0);
	assert_ptr_equal(lf_resv_get(r), r);
	lf_resv_put(r);
	add(r, f, LF_USAGE_WRITE);
	assert_true(has(r, f, LF_USAGE_WRITE));
	lf_resv_snapshot(r, &s);
	lf_resv_put(r);
	assert_false(lf_snapshot_test_signaled(&s, ALL)); /* the snapshot stays */
	end(f);
	assert_true(lf_snapshot_test_signaled(&s, ALL));
	lf_snapshot_put(&s);
}

static void counted_reservation_is_there_for_readers_after_the_last_put(void **state)
{
	struct lf_resv *r = NULL;
	struct lf_fence *f = make_fence();
	assert_int_equal(lf_resv_create(NULL, &r), 0);
	add(r, f, LF_USAGE_WRITE);
	lf_read_lock();
	lf_resv_put(r); /* any context */
	usleep(20000);
	assert_int_equal(count_all(r), 0); /* empty, and still memory */
	assert_true(lf_resv_test_signaled(r, ALL));
	lf_read_unlock();
	end(f);
}

static void without_memory_no_reservation_is_created(void **state)
{
	assert_int_equal(alloc_fail_each(create_and_put, NULL), 1);
}

static void counting_an_embedded_reservation_is_reported(void **state)
{
	struct lf_resv r;
	lf_resv_init(&r, NULL);
	lf_resv_get(&r);
	expect_misuse(1);
	lf_resv_init(&r, NULL);
	lf_resv_put(&r);
	expect_misuse(1);
	lf_resv_fini(&r);
	assert_int_equal(lf_resv_create(NULL, NULL), -EINVAL);
	expect_misuse(1);
	assert_null(lf_resv_get(NULL));
	lf_resv_put(NULL);
}

static void last_put_of_a_locked_reservation_is_reported(void **state)
{
	struct lf_resv *r = NULL;
	assert_int_equal(lf_resv_create(NULL, &r), 0);
	lock(r);
	lf_resv_put(r);
	expect_misuse(1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(empty_reservation_has_nothing_to_wait_for),
		TEST(zeroed_reservation_may_be_ended),
		TEST(ended_reservation_may_be_initialised_again),
		TEST(lock_can_be_asked_about),
		TEST(lock_slow_wants_a_ticket_that_holds_nothing),
		TEST(unlock_by_who_does_not_hold_it_is_reported),
		TEST(reserve_is_cumulative_two_times_one_make_room_for_two),
		TEST(add_never_allocates),
		TEST(add_takes_a_reference),
		TEST(reserve_without_the_lock_is_refused),
		TEST(reserve_of_more_than_there_can_be_is_an_overflow),
		TEST(reserved_slots_are_void_at_unlock),
		TEST(add_without_a_slot_is_reported_and_finds_room),
		TEST(add_without_a_slot_and_without_memory_says_that_the_fence_is_lost),
		TEST(add_of_what_is_no_usage_counts_as_the_strongest),
		TEST(generation_changes_with_each_fence),
		TEST(compaction_keeps_all_but_the_signaled_one_of_an_unordered_context),
		TEST(compaction_keeps_the_newest_of_an_ordered_context_in_each_usage),
		TEST(list_of_one_ordered_context_does_not_grow),
		TEST(promotion_by_adding_again_makes_both_count_until_compaction_drops_the_weaker),
		TEST(adding_again_with_a_weaker_usage_demotes_nothing),
		TEST(compaction_keeps_the_order_of_adding),
		TEST(compaction_lets_go_of_what_it_drops),
		TEST(compaction_beside_a_snapshot_leaves_both_with_references),
		TEST(replace_puts_one_fence_in_the_place_of_a_context),
		TEST(replace_of_a_context_that_is_not_there_adds_nothing),
		TEST(replace_keeps_reserved_slots_and_needs_one_preparation_each),
		TEST(replace_that_was_not_prepared_is_reported_and_done_if_there_is_memory),
		TEST(reserving_survives_each_failure_and_leaves_all_as_it_was),
		TEST(copy_and_get_fences_fail_without_a_trace),
		TEST(get_singleton_survives_each_failure),
		TEST(test_signaled_asks_for_a_usage_and_all_stronger_ones),
		TEST(wait_waits_for_a_usage_and_all_stronger_ones_and_arms_them_all_first),
		TEST(wait_where_it_is_not_allowed_is_refused_unless_all_is_signaled),
		TEST(validator_warns_of_a_wait_for_a_fence_while_a_reservation_is_held),
		TEST(null_is_reported),
		TEST(usage_to_wait_for_follows_from_what_one_does),
		TEST(wait_is_not_prolonged_by_later_adds),
		TEST(get_fences_returns_what_is_pending_of_a_usage_and_all_stronger_ones),
		TEST(get_singleton_is_the_fence_or_one_that_stands_for_all),
		TEST(copy_adds_what_is_pending_with_its_usages),
		TEST(set_deadline_tells_a_usage_and_all_stronger_ones),
		TEST(describe_writes_a_line_for_each_fence_with_its_usage),
		TEST(cursor_shows_usages_and_skips_weaker_ones),
		TEST(cursor_outside_of_lock_and_section_is_refused),
		TEST(cursor_does_not_see_what_is_added_later),
		TEST(fence_found_by_a_walk_lives_until_the_section_ends),
		TEST(reader_may_look_at_any_fence_it_finds_while_a_writer_replaces_them_all),
		TEST(snapshot_keeps_fences_and_outlives_its_reservation),
		TEST(asking_needs_no_lock_and_a_snapshot_no_memory),
		TEST(snapshot_takes_one_reference_in_all),
		TEST(reservation_ends_with_pending_fences_and_spares_of_slots),
		TEST(abandoned_fence_is_canceled_when_its_last_reservation_ends),
		TEST(callback_of_a_fence_may_change_and_ask_its_reservation),
		TEST(counted_reservation_is_like_any_other),
		TEST(counted_reservation_is_there_for_readers_after_the_last_put),
		TEST(without_memory_no_reservation_is_created),
		TEST(counting_an_embedded_reservation_is_reported),
		TEST(last_put_of_a_locked_reservation_is_reported),
	};
	return TEST_MAIN(tests);
}
