/* SPDX-License-Identifier: MIT */
/*
 * Address heaps: where ranges are found, what is free when, and what is said of mistakes.
 *
 * Oracle of the random tests: an array with one entry a unit of the heap (taken by which range, or free), in which room is looked for by
 * counting free units, candidate by candidate. It knows which fences the test has signaled and asks the library for nothing: a retired
 * range is free in it from the moment on at which its last fence was signaled. Addresses must be exactly the oracle's, but where more
 * ranges were retired than an allocation looks at: there any range that is free in the oracle will do, and whether there is one is exact.
 *
 * Oracle of the threads: who has a range writes to its bytes, plainly; who signals for a retired one clears them first. So a byte that is
 * not clear when it is given out was given out twice, or too early; and a heap that does not order the two is a data race.
 */
#include "producer.h"

#include "base/library.h"

enum { PAGE = 4096, LOOKS = 16 };

static struct lf_va_heap *make(uint64_t start, uint64_t size)
{
	struct lf_va_heap *heap = NULL;
	assert_int_equal(lf_va_heap_create(start, size, &heap), 0);
	assert_non_null(heap);
	return heap;
}

/* Allocates what must fit, or returns what is no address in these tests. */
#define NOWHERE UINT64_C(0xbad)

static uint64_t get(struct lf_va_heap *heap, const struct lf_va_request request)
{
	uint64_t va = NOWHERE;
	assert_int_equal(lf_va_heap_alloc(heap, &request, &va), 0);
	return va;
}

static int refusal(struct lf_va_heap *heap, const struct lf_va_request request)
{
	uint64_t va = NOWHERE;
	int ret = lf_va_heap_alloc(heap, &request, &va);
	assert_true(va == NOWHERE);
	return ret;
}

#define GET(heap, ...)     get(heap, (struct lf_va_request){ __VA_ARGS__ })
#define REFUSED(heap, ...) refusal(heap, (struct lf_va_request){ __VA_ARGS__ })

#define assert_va_equal(a, b) assert_true((a) == (b))

static struct lf_va_heap_stats stats_of(struct lf_va_heap *heap)
{
	struct lf_va_heap_stats stats;
	memset(&stats, 0xa5, sizeof(stats));
	lf_va_heap_get_stats(heap, &stats);
	return stats;
}

static void check_stats(struct lf_va_heap *heap, uint64_t free, uint64_t retired, uint64_t allocated, uint64_t largest)
{
	struct lf_va_heap_stats stats = stats_of(heap);
	assert_true(stats.free == free);
	assert_true(stats.retired == retired);
	assert_true(stats.allocated == allocated);
	assert_true(stats.largest == largest);
}

static struct lf_fence *make_fence(void)
{
	struct lf_fence *f = NULL;
	must(lf_fence_create(&f) == 0);
	return f;
}

static void end(struct lf_fence *f)
{
	lf_fence_signal(f, 0);
	lf_fence_put(f);
}

static void add(struct lf_resv *r, struct lf_fence *f, enum lf_usage usage)
{
	must(lf_resv_lock(r, NULL) == 0);
	must(lf_resv_reserve(r, 1) == 0);
	lf_resv_add(r, f, usage);
	lf_resv_unlock(r);
}

/* --- Where ranges are found ------------------------------------------------------------------------------------------------ */

static void lowest_addresses_are_given_first_and_reused_first(void **state)
{
	struct lf_va_heap *heap = make(0x1000, 0x10000);
	assert_va_equal(GET(heap, .size = 0x1000), 0x1000);
	assert_va_equal(GET(heap, .size = 0x3000), 0x2000);
	assert_va_equal(GET(heap, .size = 0x1000), 0x5000);
	check_stats(heap, 0xb000, 0, 3, 0xb000);
	lf_va_heap_free(heap, 0x2000, 0x3000);
	check_stats(heap, 0xe000, 0, 2, 0xb000);
	assert_va_equal(GET(heap, .size = 0x4000), 0x6000); /* passes over the hole that is too small */
	assert_va_equal(GET(heap, .size = 0x2000), 0x2000);
	assert_va_equal(GET(heap, .size = 0x1000), 0x4000);
	check_stats(heap, 0x7000, 0, 5, 0x7000);
	lf_va_heap_destroy(heap);
}

static void highest_addresses_are_given_first_when_asked_for_top_down(void **state)
{
	struct lf_va_heap *heap = make(0x1000, 0x10000);
	assert_va_equal(GET(heap, .size = 0x1000, .order = LF_VA_TOP_DOWN), 0x10000);
	assert_va_equal(GET(heap, .size = 0x3000, .order = LF_VA_TOP_DOWN), 0xd000);
	assert_va_equal(GET(heap, .size = 0x1000), 0x1000);
	assert_va_equal(GET(heap, .size = 0x1000, .order = LF_VA_TOP_DOWN), 0xc000);
	lf_va_heap_free(heap, 0xd000, 0x3000);
	assert_va_equal(GET(heap, .size = 0x4000, .order = LF_VA_TOP_DOWN), 0x8000);
	assert_va_equal(GET(heap, .size = 0x2000, .order = LF_VA_TOP_DOWN), 0xe000);
	lf_va_heap_destroy(heap);
}

static void heap_of_any_start_gives_aligned_addresses(void **state)
{
	struct lf_va_heap *heap = make(0x1003, 0x10000); /* to 0x11002 */
	assert_va_equal(GET(heap, .size = 1, .align = 0x1000), 0x2000);
	assert_va_equal(GET(heap, .size = 0x1000, .align = 0x1000, .order = LF_VA_TOP_DOWN), 0x10000);
	assert_va_equal(GET(heap, .size = 3), 0x1003);
	assert_va_equal(GET(heap, .size = 0x10, .align = 0x10), 0x1010);
	assert_va_equal(GET(heap, .size = 5, .align = 1), 0x1006);
	assert_va_equal(GET(heap, .size = 0x8000, .align = 0x4000), 0x4000);
	assert_va_equal(GET(heap, .size = 0x1000, .align = 0x4000), 0xc000);
	assert_int_equal(REFUSED(heap, .size = 0x1000, .align = 0x4000), -ENOSPC); /* 0x10000 is taken, and so is 0x4000 */
	lf_va_heap_destroy(heap);
}

static void hole_that_is_large_enough_but_not_aligned_is_passed_over(void **state)
{
	struct lf_va_heap *heap = make(0, 0x10000);
	for (uint64_t va = 0; va < 0x10000; va += 0x1000)
		assert_va_equal(GET(heap, .size = 0x1000), va);
	for (uint64_t va = 0x1000; va < 0xf000; va += 0x3000) { /* 1-2, 4-5, 7-8, a-b, d-e */
		lf_va_heap_free(heap, va, 0x1000);
		lf_va_heap_free(heap, va + 0x1000, 0x1000);
	}
	check_stats(heap, 0xa000, 0, 6, 0x2000);
	assert_va_equal(GET(heap, .size = 0x2000, .align = 0x2000), 0x4000);
	assert_va_equal(GET(heap, .size = 0x2000, .align = 0x2000, .order = LF_VA_TOP_DOWN), 0xa000);
	assert_int_equal(REFUSED(heap, .size = 0x2000, .align = 0x2000), -ENOSPC);
	assert_va_equal(GET(heap, .size = 0x1000, .align = 0x8000), 0x8000);
	assert_va_equal(GET(heap, .size = 0x2000), 0x1000);
	lf_va_heap_destroy(heap);
}

static void limits_are_inclusive_and_cut_holes(void **state)
{
	struct lf_va_heap *heap = make(0x1000, 0xf000);
	assert_va_equal(GET(heap, .size = 0x1000, .min = 0x4800, .align = 0x1000), 0x5000);
	assert_va_equal(GET(heap, .size = 0x800, .min = 0x4800), 0x4800);
	assert_va_equal(GET(heap, .size = 0x800, .max = 0x4000 - 1, .order = LF_VA_TOP_DOWN), 0x3800);
	assert_va_equal(GET(heap, .size = 0x1000, .min = 0x8000, .max = 0x8fff), 0x8000);
	assert_int_equal(REFUSED(heap, .size = 0x1000, .min = 0x8000, .max = 0x8fff), -ENOSPC);
	assert_int_equal(REFUSED(heap, .size = 0x1000, .min = 0x9000, .max = 0x9ffe), -ENOSPC);
	assert_int_equal(REFUSED(heap, .size = 0x1000, .min = 0x9001, .max = 0x9fff), -ENOSPC);
	assert_va_equal(GET(heap, .size = 0x1000, .min = 0x7000, .max = 0x9fff), 0x7000);
	assert_va_equal(GET(heap, .size = 0x1000, .min = 0x7000, .max = 0x9fff), 0x9000);
	assert_int_equal(REFUSED(heap, .size = 1, .max = 0xfff), -ENOSPC); /* in front of the heap */
	assert_int_equal(REFUSED(heap, .size = 1, .min = 0x10000), -ENOSPC); /* behind it */
	assert_va_equal(GET(heap, .size = 1, .max = 0x1000), 0x1000);
	assert_va_equal(GET(heap, .size = 1, .min = 0xffff), 0xffff);
	assert_va_equal(GET(heap, .size = 0x27ff, .max = UINT64_MAX), 0x1001);
	lf_va_heap_destroy(heap);
}

static void given_addresses_are_taken_if_they_are_free(void **state)
{
	struct lf_va_heap *heap = make(0x1000, 0xf000);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0x4000, 0x2000), 0);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0x4000, 0x2000), -ENOSPC);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0x3000, 0x1001), -ENOSPC);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0x5fff, 1), -ENOSPC);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0x3000, 0x4000), -ENOSPC);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0x6000, 0xa000), 0);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0x1000, 0x3000), 0);
	check_stats(heap, 0, 0, 3, 0);
	lf_va_heap_free(heap, 0x1000, 0x3000);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0xfff, 1), -ENOSPC); /* outside */
	assert_int_equal(lf_va_heap_alloc_at(heap, 0xfff, 2), -ENOSPC);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0xffff, 2), -ENOSPC);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0x10000, 1), -ENOSPC);
	assert_int_equal(lf_va_heap_alloc_at(heap, UINT64_MAX, 2), -ENOSPC);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0x1000, UINT64_MAX), -ENOSPC);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0x3fff, 1), 0);
	check_stats(heap, 0x2fff, 0, 3, 0x2fff);
	lf_va_heap_destroy(heap);
}

static void neighbours_given_back_in_whatever_order_become_one(void **state)
{
	static const int orders[6][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
	for (int order = 0; order < 6; order++) {
		struct lf_va_heap *heap = make(100, 30);
		for (uint64_t i = 0; i < 3; i++)
			assert_va_equal(GET(heap, .size = 10), 100 + 10 * i);
		for (int i = 0; i < 3; i++)
			lf_va_heap_free(heap, 100 + 10 * (uint64_t)orders[order][i], 10);
		check_stats(heap, 30, 0, 0, 30);
		assert_va_equal(GET(heap, .size = 30), 100);
		lf_va_heap_destroy(heap);
	}
}

/* --- The ends of 64 bits ---------------------------------------------------------------------------------------------------- */

static void last_byte_of_64_bits_can_be_had(void **state)
{
	struct lf_va_heap *heap = make(1, UINT64_MAX);
	check_stats(heap, UINT64_MAX, 0, 0, UINT64_MAX);
	assert_va_equal(GET(heap, .size = 1, .order = LF_VA_TOP_DOWN), UINT64_MAX);
	assert_int_equal(lf_va_heap_alloc_at(heap, UINT64_MAX, 1), -ENOSPC);
	lf_va_heap_free(heap, UINT64_MAX, 1);
	assert_int_equal(lf_va_heap_alloc_at(heap, UINT64_MAX, 1), 0);
	assert_va_equal(GET(heap, .size = UINT64_C(1) << 63, .align = UINT64_C(1) << 62), UINT64_C(1) << 62);
	assert_int_equal(REFUSED(heap, .size = 1, .align = UINT64_C(1) << 63), -ENOSPC);
	assert_va_equal(GET(heap, .size = (UINT64_C(1) << 62) - 1), 1);
	check_stats(heap, (UINT64_C(1) << 62) - 1, 0, 3, (UINT64_C(1) << 62) - 1);
	assert_va_equal(GET(heap, .size = PAGE, .max = UINT64_MAX, .order = LF_VA_TOP_DOWN), UINT64_MAX - PAGE);
	lf_va_heap_free(heap, UINT64_MAX, 1);
	lf_va_heap_free(heap, UINT64_MAX - PAGE, PAGE);
	assert_va_equal(GET(heap, .size = PAGE, .align = PAGE, .order = LF_VA_TOP_DOWN), UINT64_MAX - PAGE + 1);
	lf_va_heap_free(heap, UINT64_MAX - PAGE + 1, PAGE);
	lf_va_heap_free(heap, 1, (UINT64_C(1) << 62) - 1);
	lf_va_heap_free(heap, UINT64_C(1) << 62, UINT64_C(1) << 63);
	assert_va_equal(GET(heap, .size = UINT64_MAX), 1);
	check_stats(heap, 0, 0, 1, 0);
	assert_int_equal(REFUSED(heap, .size = 1), -ENOSPC);
	lf_va_heap_destroy(heap);
}

static void address_0_can_be_had(void **state)
{
	struct lf_va_heap *heap = make(0, UINT64_MAX);
	assert_int_equal(lf_va_heap_alloc_at(heap, UINT64_MAX, 1), -ENOSPC);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0, 1), 0);
	lf_va_heap_free(heap, 0, 1);
	assert_va_equal(GET(heap, .size = 1), 0);
	assert_va_equal(GET(heap, .size = 1, .order = LF_VA_TOP_DOWN), UINT64_MAX - 1);
	assert_va_equal(GET(heap, .size = UINT64_MAX - 2), 1);
	lf_va_heap_destroy(heap);
	heap = make(UINT64_MAX, 1);
	assert_int_equal(REFUSED(heap, .size = 1, .align = 2), -ENOSPC); /* the next aligned address is 2^64 */
	assert_int_equal(REFUSED(heap, .size = 2), -ENOSPC);
	assert_va_equal(GET(heap, .size = 1), UINT64_MAX);
	lf_va_heap_destroy(heap);
	heap = make(UINT64_MAX - 2, 3);
	assert_int_equal(REFUSED(heap, .size = 1, .align = 4), -ENOSPC);
	assert_int_equal(REFUSED(heap, .size = 1, .align = 4, .order = LF_VA_TOP_DOWN), -ENOSPC);
	assert_va_equal(GET(heap, .size = 1, .align = 2), UINT64_MAX - 1);
	lf_va_heap_destroy(heap);
}

/* --- Retired ranges --------------------------------------------------------------------------------------------------------- */

static void retired_range_is_passed_over_until_its_fence_is_signaled(void **state)
{
	struct lf_va_heap *heap = make(0, 0x3000);
	struct lf_fence *f = make_fence();
	uint64_t va = GET(heap, .size = 0x1000);
	long calls = alloc_calls();
	lf_va_heap_retire(heap, va, 0x1000, NULL, f);
	assert_int_equal(alloc_calls(), calls);
	check_stats(heap, 0x2000, 0x1000, 0, 0x2000);
	assert_va_equal(GET(heap, .size = 0x1000), 0x1000);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0, 0x1000), -EBUSY);
	lf_fence_signal(f, -EIO); /* with whatever result */
	assert_va_equal(GET(heap, .size = 0x1000), 0);
	assert_va_equal(GET(heap, .size = 0x1000), 0x2000);
	lf_va_heap_destroy(heap);
	lf_fence_put(f);
}

static void retired_range_keeps_its_fence_alive(void **state)
{
	struct lf_va_heap *heap = make(0, 0x1000);
	struct producer p;
	producer_init(&p, 0);
	struct lf_fence *f = emit(p.tl);
	assert_va_equal(GET(heap, .size = 0x1000), 0);
	lf_va_heap_retire(heap, 0, 0x1000, NULL, f);
	lf_fence_put(f);
	assert_int_equal(REFUSED(heap, .size = 1), -EBUSY);
	assert_int_equal(count_get(&p.enables), 0); /* not armed by anything */
	assert_int_equal(count_get(&p.polls), 0);
	lf_timeline_signal_to(p.tl, 1, 0);
	assert_va_equal(GET(heap, .size = 1), 0);
	producer_fini(&p, 1);
	lf_va_heap_destroy(heap);
}

static void retired_range_waits_for_all_that_was_in_the_reservation_and_nothing_later(void **state)
{
	static const enum lf_usage usages[] = { LF_USAGE_KERNEL, LF_USAGE_WRITE, LF_USAGE_READ, LF_USAGE_BOOKKEEP };
	for (int last = 0; last < 4; last++) {
		struct lf_va_heap *heap = make(0, 0x1000);
		struct lf_fence *f[4], *later = make_fence();
		struct lf_resv r;
		lf_resv_init(&r, NULL);
		for (int i = 0; i < 4; i++) {
			f[i] = make_fence();
			add(&r, f[i], usages[i]);
		}
		assert_va_equal(GET(heap, .size = 0x1000), 0);
		long calls = alloc_calls();
		lf_va_heap_retire(heap, 0, 0x1000, &r, NULL);
		assert_int_equal(alloc_calls(), calls);
		add(&r, later, LF_USAGE_BOOKKEEP);
		for (int i = 0; i < 4; i++) {
			assert_int_equal(REFUSED(heap, .size = 1), -EBUSY);
			check_stats(heap, 0, 0x1000, 0, 0);
			end(f[(last + 1 + i) % 4]); /* that of usage @last is the last one */
		}
		check_stats(heap, 0x1000, 0, 0, 0x1000);
		assert_va_equal(GET(heap, .size = 0x1000), 0);
		lf_va_heap_destroy(heap);
		end(later);
		lf_resv_fini(&r);
	}
}

static void retired_range_waits_for_reservation_and_fence(void **state)
{
	for (int fence_first = 0; fence_first < 2; fence_first++) {
		struct lf_va_heap *heap = make(0, 0x1000);
		struct lf_fence *f = make_fence(), *in_resv = make_fence();
		struct lf_resv r;
		lf_resv_init(&r, NULL);
		add(&r, in_resv, LF_USAGE_BOOKKEEP);
		assert_va_equal(GET(heap, .size = 0x1000), 0);
		lf_va_heap_retire(heap, 0, 0x1000, &r, f);
		lf_resv_fini(&r); /* the snapshot outlives it */
		assert_int_equal(REFUSED(heap, .size = 1), -EBUSY);
		end(fence_first ? f : in_resv);
		assert_int_equal(REFUSED(heap, .size = 1), -EBUSY);
		end(fence_first ? in_resv : f);
		assert_va_equal(GET(heap, .size = 1), 0);
		lf_va_heap_destroy(heap);
	}
}

static void retiring_what_is_idle_is_giving_it_back(void **state)
{
	struct lf_va_heap *heap = make(0, 0x3000);
	struct lf_fence *f = make_fence();
	struct lf_resv r;
	lf_resv_init(&r, NULL);
	add(&r, f, LF_USAGE_BOOKKEEP);
	lf_fence_signal(f, 0);
	long live = alloc_live();
	for (int i = 0; i < 4; i++) {
		assert_va_equal(GET(heap, .size = 0x3000), 0);
		lf_va_heap_retire(heap, 0, 0x3000, i & 1 ? &r : NULL, i & 2 ? f : NULL);
		check_stats(heap, 0x3000, 0, 0, 0x3000);
	}
	assert_int_equal(alloc_live(), live);
	lf_va_heap_destroy(heap);
	lf_fence_put(f);
	lf_resv_fini(&r);
}

static void EBUSY_says_that_it_would_fit_if_what_is_retired_were_idle(void **state)
{
	struct lf_va_heap *heap = make(0, 0x8000);
	struct lf_fence *a = make_fence(), *b = make_fence();
	for (uint64_t va = 0; va < 0x8000; va += 0x1000)
		assert_va_equal(GET(heap, .size = 0x1000), va);
	assert_int_equal(REFUSED(heap, .size = 0x1000), -ENOSPC);
	/* used, free, A, free, B, free, used, A */
	lf_va_heap_free(heap, 0x1000, 0x1000);
	lf_va_heap_retire(heap, 0x2000, 0x1000, NULL, a);
	lf_va_heap_free(heap, 0x3000, 0x1000);
	lf_va_heap_retire(heap, 0x4000, 0x1000, NULL, b);
	lf_va_heap_free(heap, 0x5000, 0x1000);
	lf_va_heap_retire(heap, 0x7000, 0x1000, NULL, a);
	check_stats(heap, 0x3000, 0x3000, 2, 0x1000);
	assert_int_equal(REFUSED(heap, .size = 0x5000), -EBUSY);
	assert_int_equal(REFUSED(heap, .size = 0x5000, .order = LF_VA_TOP_DOWN), -EBUSY);
	assert_int_equal(REFUSED(heap, .size = 0x5001), -ENOSPC);
	assert_int_equal(REFUSED(heap, .size = 0x4000, .align = 0x2000), -EBUSY);
	assert_int_equal(REFUSED(heap, .size = 0x4000, .align = 0x4000), -ENOSPC);
	assert_int_equal(REFUSED(heap, .size = 0x4000, .min = 0x2000, .max = 0x5fff), -EBUSY);
	assert_int_equal(REFUSED(heap, .size = 0x4000, .min = 0x2001), -ENOSPC);
	assert_int_equal(REFUSED(heap, .size = 1, .min = 0x6000), -EBUSY);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0x1000, 0x5000), -EBUSY);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0x2fff, 2), -EBUSY);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0x1000, 0x6000), -ENOSPC); /* the end of it is used */
	assert_int_equal(lf_va_heap_alloc_at(heap, 0x7000, 0x1001), -ENOSPC); /* the end of it is outside */
	end(a);
	assert_int_equal(REFUSED(heap, .size = 0x5000), -EBUSY);
	check_stats(heap, 0x5000, 0x1000, 2, 0x3000);
	assert_va_equal(GET(heap, .size = 0x3000), 0x1000);
	assert_int_equal(REFUSED(heap, .size = 0x3000), -ENOSPC);
	assert_int_equal(REFUSED(heap, .size = 0x2000), -EBUSY);
	end(b);
	assert_va_equal(GET(heap, .size = 0x2000), 0x4000);
	lf_va_heap_destroy(heap);
}

static void idle_range_is_found_behind_any_number_of_busy_ones(void **state)
{
	enum { MANY = 100 };
	struct lf_va_heap *heap = make(0, MANY + 60);
	struct lf_fence *never = make_fence(), *soon = make_fence();
	for (uint64_t va = 0; va < MANY + 60; va++)
		assert_va_equal(GET(heap, .size = 1), va);
	for (uint64_t va = 0; va < MANY + 60; va++)
		lf_va_heap_retire(heap, va, 1, NULL, va < MANY ? never : soon);
	assert_int_equal(REFUSED(heap, .size = 1), -EBUSY);
	end(soon);
	assert_va_equal(GET(heap, .size = 60), MANY); /* more of them than one look frees, and all are one */
	check_stats(heap, 0, MANY, 1, 0);
	end(never);
	check_stats(heap, MANY, 0, 1, MANY);
	lf_va_heap_destroy(heap);
}

static void busy_ranges_do_not_hide_idle_ones_for_long(void **state)
{
	struct lf_va_heap *heap = make(0, 1000);
	struct lf_fence *never = make_fence(), *soon = make_fence();
	for (uint64_t va = 0; va < 41; va++)
		assert_va_equal(GET(heap, .size = 1), va);
	for (uint64_t va = 40; va >= 1; va--)
		lf_va_heap_retire(heap, va, 1, NULL, never);
	lf_va_heap_retire(heap, 0, 1, NULL, soon); /* the last of 41 */
	end(soon);
	/* an allocation looks at 16 of them: the third one finds it, although there is room elsewhere */
	assert_va_equal(GET(heap, .size = 1), 41);
	assert_va_equal(GET(heap, .size = 1), 42);
	assert_va_equal(GET(heap, .size = 1), 0);
	lf_va_heap_destroy(heap);
	end(never);
}

static void heap_ends_in_whatever_state_its_ranges_are(void **state)
{
	struct lf_va_heap *heap = make(0, 100);
	struct lf_fence *pending = make_fence(), *done = make_fence();
	struct lf_resv r;
	lf_resv_init(&r, NULL);
	add(&r, pending, LF_USAGE_BOOKKEEP);
	for (uint64_t va = 0; va < 50; va++)
		assert_va_equal(GET(heap, .size = 1), va);
	lf_va_heap_free(heap, 10, 1);
	lf_va_heap_retire(heap, 20, 1, &r, pending);
	lf_va_heap_retire(heap, 21, 1, &r, NULL);
	lf_va_heap_retire(heap, 22, 1, NULL, done);
	lf_fence_put(pending);
	end(done);
	lf_va_heap_destroy(heap);
	lf_va_heap_destroy(NULL);
	assert_false(lf_resv_test_signaled(&r, LF_USAGE_BOOKKEEP));
	lf_resv_fini(&r); /* the last reference on a fence that was never signaled */
}

/* --- Memory ----------------------------------------------------------------------------------------------------------------- */

static int work_in_a_heap(void *arg)
{
	struct lf_va_heap *heap = NULL;
	uint64_t va = NOWHERE;
	int ret = lf_va_heap_create(0, 100, &heap);
	if (ret) {
		assert_null(heap);
		return ret;
	}
	ret = lf_va_heap_alloc(heap, &(struct lf_va_request){ .size = 10, .min = 20 }, &va);
	if (ret) {
		assert_true(va == NOWHERE);
		check_stats(heap, 100, 0, 0, 100);
		goto destroy;
	}
	ret = lf_va_heap_alloc_at(heap, 50, 10);
	if (ret) {
		check_stats(heap, 90, 0, 1, 70);
		goto destroy;
	}
	lf_va_heap_free(heap, 20, 10);
	check_stats(heap, 90, 0, 1, 50);
destroy:
	lf_va_heap_destroy(heap);
	return ret;
}

static void every_allocation_may_fail(void **state)
{
	long survived = alloc_fail_each(work_in_a_heap, NULL);
	assert_true(survived >= 4);
	test_note("%ld allocations failed in turn", survived);
}

static void giving_back_needs_no_memory(void **state)
{
	struct lf_va_heap *heap = make(0, 100);
	struct lf_fence *f = make_fence();
	struct lf_resv r;
	lf_resv_init(&r, NULL);
	add(&r, f, LF_USAGE_BOOKKEEP);
	for (uint64_t va = 0; va < 100; va++)
		assert_va_equal(GET(heap, .size = 1), va);
	long calls = alloc_calls();
	alloc_fail_all(true);
	for (uint64_t va = 0; va < 100; va++) {
		if (va % 2)
			lf_va_heap_free(heap, va, 1);
		else
			lf_va_heap_retire(heap, va, 1, va % 4 ? &r : NULL, va % 4 ? NULL : f);
	}
	check_stats(heap, 50, 50, 0, 1);
	lf_fence_signal(f, 0);
	check_stats(heap, 100, 0, 0, 100);
	alloc_fail_all(false);
	assert_int_equal(alloc_calls(), calls);
	lf_va_heap_destroy(heap);
	lf_fence_put(f);
	lf_resv_fini(&r);
}

/* --- Mistakes --------------------------------------------------------------------------------------------------------------- */

static void giving_back_what_was_not_allocated_is_reported_and_does_nothing(void **state)
{
	struct lf_va_heap *heap = make(0x1000, 0x10000);
	struct lf_fence *f = make_fence();
	struct lf_resv r;
	lf_resv_init(&r, NULL);
	add(&r, f, LF_USAGE_BOOKKEEP);
	assert_va_equal(GET(heap, .size = 0x1000), 0x1000);
	assert_va_equal(GET(heap, .size = 0x1000), 0x2000);
	assert_va_equal(GET(heap, .size = 0x1000), 0x3000);
	lf_va_heap_retire(heap, 0x3000, 0x1000, NULL, f);
	const struct {
		uint64_t va, size;
	} wrong[] = { { 0x1000, 0x800 }, { 0x1000, 0x2000 }, { 0x1800, 0x800 }, { 0x1001, 0x1000 }, { 0x1000, 0 }, { 0x5000, 0x1000 },
		{ 0x3000, 0x1000 }, { 0, 0x1000 }, { 0x11000, 1 }, { UINT64_MAX, 1 }, { 0x1000, UINT64_MAX } };
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		lf_va_heap_free(heap, wrong[i].va, wrong[i].size);
		expect_misuse(1);
		lf_va_heap_retire(heap, wrong[i].va, wrong[i].size, &r, f);
		assert_true(log_contains("not what was allocated"));
		expect_misuse(1);
		check_stats(heap, 0xd000, 0x1000, 2, 0xd000);
	}
	end(f);
	lf_va_heap_free(heap, 0x1000, 0x1000);
	lf_va_heap_free(heap, 0x1000, 0x1000);
	expect_misuse(1);
	check_stats(heap, 0xf000, 0, 1, 0xe000);
	lf_va_heap_destroy(heap);
	lf_resv_fini(&r);
}

static void wrong_arguments_are_reported(void **state)
{
	struct lf_va_heap *heap = NULL;
	struct lf_va_heap_stats stats;
	uint64_t va = NOWHERE;
	assert_int_equal(lf_va_heap_create(0, 0, &heap), -EINVAL);
	assert_int_equal(lf_va_heap_create(2, UINT64_MAX, &heap), -EINVAL);
	assert_int_equal(lf_va_heap_create(UINT64_MAX, 2, &heap), -EINVAL);
	assert_int_equal(lf_va_heap_create(0, 1, NULL), -EINVAL);
	assert_null(heap);
	expect_misuse(4);
	heap = make(0, 100);
	assert_int_equal(REFUSED(heap, .size = 0), -EINVAL);
	assert_int_equal(REFUSED(heap, .size = 1, .align = 3), -EINVAL);
	assert_int_equal(REFUSED(heap, .size = 1, .min = 2, .max = 1), -EINVAL);
	assert_int_equal(REFUSED(heap, .size = 1, .order = (enum lf_va_order)2), -EINVAL);
	assert_int_equal(lf_va_heap_alloc(heap, NULL, &va), -EINVAL);
	assert_int_equal(lf_va_heap_alloc(heap, &(struct lf_va_request){ .size = 1 }, NULL), -EINVAL);
	assert_int_equal(REFUSED(NULL, .size = 1), -EINVAL);
	assert_int_equal(lf_va_heap_alloc_at(heap, 1, 0), -EINVAL);
	assert_int_equal(lf_va_heap_alloc_at(NULL, 1, 1), -EINVAL);
	expect_misuse(9);
	lf_va_heap_free(NULL, 1, 1);
	lf_va_heap_retire(NULL, 1, 1, NULL, NULL);
	lf_va_heap_get_stats(NULL, &stats);
	lf_va_heap_get_stats(heap, NULL);
	expect_misuse(4);
	check_stats(heap, 100, 0, 0, 100);
	lf_va_heap_destroy(heap);
}

static void poisoned_child_is_refused(void **state)
{
	struct lf_va_heap *heap = make(0, 100), *other = NULL;
	uint64_t va = GET(heap, .size = 10), more = NOWHERE;
	struct lf_va_heap_stats stats;
	library_is_poisoned = true;
	int created = lf_va_heap_create(0, 1, &other);
	int got = lf_va_heap_alloc(heap, &(struct lf_va_request){ .size = 1 }, &more), at = lf_va_heap_alloc_at(heap, 50, 1);
	lf_va_heap_free(heap, va, 10);
	lf_va_heap_retire(heap, va, 10, NULL, NULL);
	lf_va_heap_get_stats(heap, &stats);
	lf_va_heap_destroy(heap);
	library_is_poisoned = false;
	assert_int_equal(created, -EOWNERDEAD);
	assert_int_equal(got, -EOWNERDEAD);
	assert_int_equal(at, -EOWNERDEAD);
	assert_true(stats.free == 0 && stats.largest == 0);
	check_stats(heap, 90, 0, 1, 90);
	lf_va_heap_destroy(heap);
}

static void forgotten_heap_is_listed(void **state)
{
	struct lf_va_heap *heap;
	assert_int_equal(lf_track(LF_TRACK_OBJECTS), 0);
	heap = make(0x1000, 0x1000);
	log_reset();
	assert_int_equal(lf_fini(), 1);
	assert_true(log_contains("still alive: address heap"));
	assert_true(log_contains("0x1000 to 0x1fff"));
	lf_va_heap_destroy(heap);
	assert_int_equal(lf_track(0), 0);
	log_reset();
	fresh_library();
}

/* --- Random operations against the oracle ----------------------------------------------------------------------------------- */

enum { UNITS = 1536, RANGES = 1536, FENCES = 64, RESVS = 4, IN_RESV = 8, ROUND = 400 };

struct range {
	size_t at, count; /* units */
	uint64_t waits; /* a bit for each fence; used while retired */
	bool retired;
};

struct model {
	struct lf_va_heap *heap;
	uint64_t start, unit;
	const unsigned *sizes; /* in units, ended by 0: what to draw from */
	struct range ranges[RANGES]; /* those that are used, or retired and not idle */
	size_t n;
	int16_t owner[UNITS]; /* 0: free; 1: used; 2: retired and not idle */
	struct lf_fence *fences[FENCES];
	uint64_t signaled; /* a bit for each */
	struct lf_resv resvs[RESVS];
	uint64_t in_resv[RESVS]; /* which fences */
	unsigned unseen; /* no more ranges than this are retired in the heap and were not looked at since one became idle */
	bool fell_idle; /* one became idle since the heap looked at all */
	uint64_t random;
	unsigned long hits[4], exact, frees, retires, plain; /* what happened; hits by result: 0, -EBUSY, -ENOSPC */
};

static uint64_t below(struct model *m, uint64_t n)
{
	return random_next(&m->random) % n;
}

static void set_owner(struct model *m, const struct range *r, int16_t owner)
{
	for (size_t i = 0; i < r->count; i++)
		m->owner[r->at + i] = owner;
}

static void forget(struct model *m, size_t which)
{
	set_owner(m, &m->ranges[which], 0);
	m->ranges[which] = m->ranges[--m->n];
}

/* What is idle becomes free. */
static void settle(struct model *m)
{
	for (size_t i = m->n; i-- > 0;) {
		if (m->ranges[i].retired && !(m->ranges[i].waits & ~m->signaled)) {
			forget(m, i);
			m->fell_idle = true;
		}
	}
}

static void begin_round(struct model *m)
{
	static const enum lf_usage usages[] = { LF_USAGE_KERNEL, LF_USAGE_WRITE, LF_USAGE_READ, LF_USAGE_BOOKKEEP };
	for (int i = 0; i < FENCES; i++)
		m->fences[i] = make_fence();
	m->signaled = 0;
	for (int r = 0; r < RESVS; r++) {
		lf_resv_init(&m->resvs[r], NULL);
		m->in_resv[r] = 0;
		for (int i = 0; i < IN_RESV; i++) {
			add(&m->resvs[r], m->fences[r * IN_RESV + i], usages[below(m, 4)]);
			m->in_resv[r] |= UINT64_C(1) << (r * IN_RESV + i);
		}
	}
}

static void signal_one(struct model *m, unsigned which)
{
	lf_fence_signal(m->fences[which], 0);
	m->signaled |= UINT64_C(1) << which;
	settle(m);
}

static void end_round(struct model *m)
{
	for (unsigned i = 0; i < FENCES; i++) {
		signal_one(m, i);
		lf_fence_put(m->fences[i]);
	}
	for (int r = 0; r < RESVS; r++)
		lf_resv_fini(&m->resvs[r]);
}

/* Whether a range is free, or retired when @busy_too. */
static bool is_free(const struct model *m, size_t at, size_t count, bool busy_too)
{
	for (size_t i = 0; i < count; i++) {
		if (m->owner[at + i] == 1 || (m->owner[at + i] == 2 && !busy_too))
			return false;
	}
	return true;
}

static bool may_start_at(const struct model *m, size_t at, size_t count, const struct lf_va_request *r, bool busy_too)
{
	const uint64_t va = m->start + at * m->unit, last = va + (r->size - 1);
	if ((r->align && va % r->align) || va < r->min || (r->max && last > r->max))
		return false;
	return is_free(m, at, count, busy_too);
}

/* Tries one candidate after the other; returns UNITS when there is none. */
static size_t first_fit(const struct model *m, const struct lf_va_request *r, bool busy_too)
{
	const size_t count = (size_t)(r->size / m->unit);
	for (size_t i = 0; i + count <= UNITS; i++) {
		size_t at = r->order == LF_VA_BOTTOM_UP ? i : UNITS - count - i;
		if (may_start_at(m, at, count, r, busy_too))
			return at;
	}
	return UNITS;
}

static void compare_stats(struct model *m)
{
	struct lf_va_heap_stats stats = stats_of(m->heap);
	uint64_t units[3] = { 0 }, run = 0, largest = 0, used = 0;
	for (size_t i = 0; i < UNITS; i++) {
		units[m->owner[i]]++;
		run = m->owner[i] ? 0 : run + 1;
		largest = run > largest ? run : largest;
	}
	for (size_t i = 0; i < m->n; i++)
		used += !m->ranges[i].retired;
	assert_true(stats.free == units[0] * m->unit);
	assert_true(stats.retired == units[2] * m->unit);
	assert_true(stats.largest == largest * m->unit);
	assert_true(stats.allocated == used);
	m->fell_idle = false;
	m->unseen = (unsigned)(m->n - used);
}

/* An allocation looks at LOOKS of what is retired: all of it, or those that it does not look at are busy. */
static bool knows_all(const struct model *m)
{
	return !m->fell_idle || m->unseen <= LOOKS;
}

static struct lf_va_request random_request(struct model *m)
{
	unsigned sizes = 0;
	while (m->sizes[sizes])
		sizes++;
	struct lf_va_request r = { .size = m->sizes[below(m, sizes)] * m->unit, .order = (enum lf_va_order)below(m, 2) };
	if (below(m, 8) == 0)
		r.size = (1 + below(m, UNITS / 8)) * m->unit; /* now and then a large one, mostly refused */
	if (below(m, 4) == 0)
		r.align = m->unit << below(m, 10);
	if (below(m, 4) == 0)
		r.min = m->start + below(m, UNITS) * m->unit;
	if (below(m, 4) == 0) {
		r.max = m->start + below(m, UNITS) * m->unit + (m->unit - 1);
		if (r.max < r.min)
			r.max = r.min + (r.max - m->start) % (UINT64_MAX - r.min + 1);
	}
	return r;
}

static void note_taken(struct model *m, uint64_t va, uint64_t size)
{
	struct range *r = &m->ranges[m->n++];
	*r = (struct range){ .at = (size_t)((va - m->start) / m->unit), .count = (size_t)(size / m->unit) };
	set_owner(m, r, 1);
}

static unsigned result_index(int ret)
{
	return ret == 0 ? 0 : ret == -EBUSY ? 1 : ret == -ENOSPC ? 2 : 3;
}

/* @at is where the oracle would put what is wanted. */
static void check_result(struct model *m, const struct lf_va_request *r, int ret, size_t at, uint64_t va)
{
	m->hits[result_index(ret)]++;
	if (at == UNITS) {
		assert_int_equal(ret, first_fit(m, r, true) == UNITS ? -ENOSPC : -EBUSY);
		m->fell_idle = m->fell_idle && ret == -ENOSPC; /* it has looked at all before it says -EBUSY */
		return;
	}
	assert_int_equal(ret, 0);
	if (knows_all(m)) {
		m->exact++;
		assert_true(va == m->start + at * m->unit);
	}
	assert_true(va >= m->start && (va - m->start) % m->unit == 0 && (va - m->start) / m->unit + r->size / m->unit <= UNITS);
	assert_true(may_start_at(m, (size_t)((va - m->start) / m->unit), (size_t)(r->size / m->unit), r, false));
	note_taken(m, va, r->size);
}

static void do_alloc(struct model *m)
{
	const struct lf_va_request r = random_request(m);
	uint64_t va = NOWHERE;
	int ret = lf_va_heap_alloc(m->heap, &r, &va);
	check_result(m, &r, ret, first_fit(m, &r, false), va);
}

/* Free or not: mostly next to something that is taken. */
static void do_alloc_at(struct model *m)
{
	const size_t count = 1 + (size_t)below(m, 8), at = (size_t)below(m, UNITS - count + 1);
	const uint64_t va = m->start + at * m->unit, size = count * m->unit;
	int ret = lf_va_heap_alloc_at(m->heap, va, size);
	m->hits[result_index(ret)]++;
	assert_int_equal(ret, is_free(m, at, count, false) ? 0 : is_free(m, at, count, true) ? -EBUSY : -ENOSPC);
	if (ret == 0)
		note_taken(m, va, size);
}

static void do_retire(struct model *m, size_t which)
{
	struct range *r = &m->ranges[which];
	const unsigned resv = (unsigned)below(m, 2 * RESVS), fence = (unsigned)below(m, 2 * FENCES);
	lf_va_heap_retire(m->heap, m->start + r->at * m->unit, r->count * m->unit, resv < RESVS ? &m->resvs[resv] : NULL,
		fence < FENCES ? m->fences[fence] : NULL);
	r->waits = (resv < RESVS ? m->in_resv[resv] : 0) | (fence < FENCES ? UINT64_C(1) << fence : 0);
	m->retires++;
	if (!(r->waits & ~m->signaled)) {
		m->plain++;
		forget(m, which);
		return;
	}
	r->retired = true;
	m->unseen++;
	set_owner(m, r, 2);
}

static void do_give_back(struct model *m)
{
	if (m->n == 0)
		return;
	const size_t which = (size_t)below(m, m->n);
	struct range *r = &m->ranges[which];
	if (r->retired)
		return;
	if (below(m, 2)) {
		do_retire(m, which);
		return;
	}
	lf_va_heap_free(m->heap, m->start + r->at * m->unit, r->count * m->unit);
	forget(m, which);
	m->frees++;
}

static void do_one(struct model *m)
{
	switch (below(m, 16)) {
	case 0:
		signal_one(m, (unsigned)below(m, FENCES));
		break;
	case 1:
		compare_stats(m);
		break;
	case 2:
		do_alloc_at(m);
		break;
	case 3:
	case 4:
	case 5:
	case 6:
	case 7:
	case 8:
	case 9:
		do_give_back(m);
		break;
	default:
		do_alloc(m);
	}
}

static void run_model(uint64_t start, uint64_t unit, const unsigned *sizes, long operations)
{
	struct model *m = calloc(1, sizeof(*m));
	must(m != NULL);
	m->start = start;
	m->unit = unit;
	m->sizes = sizes;
	m->random = test_seed() + start + unit;
	m->heap = make(start, UNITS * unit);
	for (long done = 0; done < operations; done += ROUND) {
		begin_round(m);
		for (int i = 0; i < ROUND; i++)
			do_one(m);
		end_round(m);
		compare_stats(m);
	}
	test_note("%lu taken (%lu at exactly the oracle's address), %lu -EBUSY, %lu -ENOSPC; %lu freed, %lu retired, %lu of these idle",
		m->hits[0], m->exact, m->hits[1], m->hits[2], m->frees, m->retires, m->plain);
	assert_true(m->hits[3] == 0);
	while (m->n) {
		lf_va_heap_free(m->heap, m->start + m->ranges[0].at * unit, m->ranges[0].count * unit);
		forget(m, 0);
	}
	check_stats(m->heap, UNITS * unit, 0, 0, UNITS * unit);
	lf_va_heap_destroy(m->heap);
	free(m);
}

static const unsigned small_sizes[] = { 1, 1, 1, 2, 2, 3, 4, 5, 6, 8, 12, 16, 0 };
/* in pages, as a capture of an Adreno driver's address space has them: nearly all of them one, a few eight, or 256 */
static const unsigned adreno_sizes[] = {
	1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 5, 8, 8, 256, 0
};

static void random_operations_match_the_oracle(void **state)
{
	test_watchdog(60, "random operations");
	run_model(0, 1, small_sizes, test_rounds(60000));
	run_model(1000003, 1, small_sizes, test_rounds(60000));
	test_watchdog(0, NULL);
}

static void random_operations_at_the_end_of_64_bits_match_the_oracle(void **state)
{
	test_watchdog(60, "random operations");
	run_model(UINT64_MAX - UNITS + 1, 1, small_sizes, test_rounds(60000));
	test_watchdog(0, NULL);
}

static void random_operations_with_the_sizes_of_a_driver_match_the_oracle(void **state)
{
	test_watchdog(60, "random operations");
	run_model(UINT64_C(0x100000000), PAGE, adreno_sizes, test_rounds(60000));
	test_watchdog(0, NULL);
}

/* --- Scale ------------------------------------------------------------------------------------------------------------------ */

/* Holes that are too small in front of all the room, and ranges in the order that would make a plain tree a list. */
static void many_small_holes_cost_little(void **state)
{
	const uint64_t n = (uint64_t)test_rounds(test_is_sanitized() ? 10000 : 60000);
	struct lf_va_heap *heap = make(0, 16 * n);
	test_watchdog(50, "linear search, or a tree that is a list");
	for (uint64_t i = 0; i < 2 * n; i++)
		must(GET(heap, .size = 1) == i);
	for (uint64_t i = 0; i < 2 * n; i += 2)
		lf_va_heap_free(heap, i, 1);
	for (uint64_t i = 0; i < n; i++)
		must(GET(heap, .size = 2) == 2 * n + 2 * i);
	for (uint64_t i = 0; i < n; i++)
		must(GET(heap, .size = 2, .max = 14 * n - 1, .order = LF_VA_TOP_DOWN) == 14 * n - 2 * (i + 1));
	for (uint64_t i = 0; i < n; i++)
		must(GET(heap, .size = 1) == 2 * i);
	for (uint64_t i = 0; i < 2 * n; i++)
		lf_va_heap_free(heap, i, 1);
	for (uint64_t i = 0; i < n; i++)
		lf_va_heap_free(heap, 2 * n + 2 * i, 2);
	for (uint64_t i = 0; i < n; i++)
		lf_va_heap_free(heap, 14 * n - 2 * (i + 1), 2);
	test_watchdog(0, NULL);
	check_stats(heap, 16 * n, 0, 0, 16 * n);
	lf_va_heap_destroy(heap);
}

/* Holes that would be large enough, if it were not for the alignment, in front of all the room. */
static void many_unaligned_holes_cost_little(void **state)
{
	static const uint64_t aligns[] = { UINT64_C(64) << 10, UINT64_C(2) << 20 };
	const uint64_t n = (uint64_t)test_rounds(test_is_sanitized() ? 4000 : 30000);
	for (size_t a = 0; a < sizeof(aligns) / sizeof(aligns[0]); a++) {
		const uint64_t align = aligns[a];
		struct lf_va_heap *heap = make(0, (n + 2) * 4 * align);
		test_watchdog(50, "linear search");
		for (uint64_t i = 0; i <= n; i++) { /* half of it each: taken, free, free, taken */
			must(lf_va_heap_alloc_at(heap, i * 2 * align, align / 2) == 0);
			must(lf_va_heap_alloc_at(heap, i * 2 * align + align + align / 2, align / 2) == 0);
		}
		for (uint64_t i = 0; i < n; i++)
			must(GET(heap, .size = align, .align = align) == (n + 1) * 2 * align + i * align);
		for (uint64_t i = 0; i < n; i++)
			must(GET(heap, .size = align / 2, .align = align) == i * 2 * align + align);
		lf_va_heap_destroy(heap);
	}
	test_watchdog(0, NULL);
}

/* --- Threads ---------------------------------------------------------------------------------------------------------------- */

enum { THREADS = 3, BYTES = 192, HELD = 12 };

/* A range that was retired, and will be done with when somebody signals. */
struct pending {
	struct lf_fence *f;
	uint64_t va, size;
};

static struct {
	struct lf_va_heap *heap;
	long rounds;
	uint64_t seed;
	unsigned char bytes[BYTES]; /* plainly written by who has the range */
	unsigned taken, busy, full, retired;
} shared;

static void own(uint64_t va, uint64_t size)
{
	for (uint64_t i = va; i < va + size; i++) {
		must(shared.bytes[i] == 0);
		shared.bytes[i] = 1;
	}
}

static void disown(uint64_t va, uint64_t size)
{
	for (uint64_t i = va; i < va + size; i++) {
		must(shared.bytes[i] == 1);
		shared.bytes[i] = 0;
	}
}

static void finish(struct pending *p)
{
	disown(p->va, p->size);
	lf_fence_signal(p->f, 0);
	lf_fence_put(p->f);
	*p = (struct pending){ 0 };
}

/* In a slot there is nothing, or a range that is allocated (without a fence), or one that is retired. */
static void drop(struct pending *p)
{
	if (p->f) {
		finish(p);
	} else if (p->size) {
		disown(p->va, p->size);
		lf_va_heap_free(shared.heap, p->va, p->size);
		p->size = 0;
	}
}

static void step(struct pending *p, uint64_t *random)
{
	const struct lf_va_request r = { .size = 1 + random_next(random) % 24, .align = UINT64_C(1) << random_next(random) % 4,
		.order = (enum lf_va_order)(random_next(random) % 2) };
	int ret;
	if (p->size && !p->f && random_next(random) % 2) {
		p->f = make_fence();
		lf_va_heap_retire(shared.heap, p->va, p->size, NULL, p->f);
		count_up(&shared.retired);
	} else if (p->size) {
		drop(p);
	} else {
		ret = lf_va_heap_alloc(shared.heap, &r, &p->va);
		must(ret == 0 || ret == -EBUSY || ret == -ENOSPC);
		count_up(ret == 0 ? &shared.taken : ret == -EBUSY ? &shared.busy : &shared.full);
		if (ret)
			return;
		p->size = r.size;
		own(p->va, p->size);
	}
}

static void *work(void *arg)
{
	struct pending held[HELD] = { 0 };
	struct lf_va_heap_stats stats;
	uint64_t random = shared.seed + (uint64_t)*(int *)arg + 1;
	for (long i = 0; i < shared.rounds; i++) {
		step(&held[random_next(&random) % HELD], &random);
		if (random_next(&random) % 32 == 0) {
			lf_va_heap_get_stats(shared.heap, &stats);
			must(stats.free + stats.retired <= BYTES && stats.largest <= stats.free);
		}
	}
	for (int i = 0; i < HELD; i++)
		drop(&held[i]);
	return NULL;
}

static void threads_never_share_a_range_and_get_no_busy_one(void **state)
{
	pthread_t threads[THREADS];
	int numbers[THREADS];
	memset(&shared, 0, sizeof(shared));
	shared.heap = make(0, BYTES);
	shared.rounds = test_rounds(test_is_sanitized() ? 10000 : 40000);
	shared.seed = test_seed();
	test_watchdog(60, "threads");
	for (int i = 0; i < THREADS; i++) {
		numbers[i] = i;
		threads[i] = thread_start(work, &numbers[i], 0);
	}
	for (int i = 0; i < THREADS; i++)
		thread_join(threads[i]);
	test_watchdog(0, NULL);
	test_note("%u taken, %u busy, %u full, %u retired", shared.taken, shared.busy, shared.full, shared.retired);
	assert_true(shared.taken && shared.busy && shared.full && shared.retired);
	check_stats(shared.heap, BYTES, 0, 0, BYTES);
	lf_va_heap_destroy(shared.heap);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(lowest_addresses_are_given_first_and_reused_first),
		TEST(highest_addresses_are_given_first_when_asked_for_top_down),
		TEST(heap_of_any_start_gives_aligned_addresses),
		TEST(hole_that_is_large_enough_but_not_aligned_is_passed_over),
		TEST(limits_are_inclusive_and_cut_holes),
		TEST(given_addresses_are_taken_if_they_are_free),
		TEST(neighbours_given_back_in_whatever_order_become_one),
		TEST(last_byte_of_64_bits_can_be_had),
		TEST(address_0_can_be_had),
		TEST(retired_range_is_passed_over_until_its_fence_is_signaled),
		TEST(retired_range_keeps_its_fence_alive),
		TEST(retired_range_waits_for_all_that_was_in_the_reservation_and_nothing_later),
		TEST(retired_range_waits_for_reservation_and_fence),
		TEST(retiring_what_is_idle_is_giving_it_back),
		TEST(EBUSY_says_that_it_would_fit_if_what_is_retired_were_idle),
		TEST(idle_range_is_found_behind_any_number_of_busy_ones),
		TEST(busy_ranges_do_not_hide_idle_ones_for_long),
		TEST(heap_ends_in_whatever_state_its_ranges_are),
		TEST(every_allocation_may_fail),
		TEST(giving_back_needs_no_memory),
		TEST(giving_back_what_was_not_allocated_is_reported_and_does_nothing),
		TEST(wrong_arguments_are_reported),
		TEST(poisoned_child_is_refused),
		TEST_FRESH(forgotten_heap_is_listed),
		TEST(random_operations_match_the_oracle),
		TEST(random_operations_at_the_end_of_64_bits_match_the_oracle),
		TEST(random_operations_with_the_sizes_of_a_driver_match_the_oracle),
		TEST(many_small_holes_cost_little),
		TEST(many_unaligned_holes_cost_little),
		TEST(threads_never_share_a_range_and_get_no_busy_one),
	};
	return TEST_MAIN(tests);
}
