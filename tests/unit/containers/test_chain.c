/* SPDX-License-Identifier: MIT */
/* Chains: a timeline put together from fences of any producers. */
#include "containers.h"

#include <time.h>

enum { WRONG_FLAGS = 0x40 };

/* The result pointer of a call that failed. */
#define UNTOUCHED ((struct lf_fence *)(void *)&untouched)
static int untouched;

static struct lf_fence *find(struct lf_fence *link, uint64_t seqno)
{
	struct lf_fence *f = NULL;

	assert_int_equal(lf_chain_find_seqno(link, seqno, &f), 0);
	assert_non_null(f);
	return f;
}

/* That a point is found, at a link or (NULL) as reached and gone. */
static void expect_found(struct lf_fence *link, uint64_t seqno, struct lf_fence *expected)
{
	struct lf_fence *f = find(link, seqno), *stub = lf_fence_stub();

	assert_ptr_equal(f, expected ? expected : stub);
	lf_fence_put(f);
	lf_fence_put(stub);
}

/*
 * That a point is found to be reached. Its link, the first whose seqno is not below, may be gone; where the library still has it for
 * its own purposes it may be found, signaled.
 */
static void expect_reached(struct lf_fence *link, uint64_t point, uint64_t seqno)
{
	struct lf_fence *f = find(link, point), *stub = lf_fence_stub();

	assert_true(lf_fence_is_signaled(f));
	if (f != stub) {
		assert_true(lf_fence_is_chain(f));
		assert_true(lf_fence_seqno(f) == seqno);
	}
	lf_fence_put(f);
	lf_fence_put(stub);
}

static void expect_not_appended(struct lf_fence *link, uint64_t seqno)
{
	struct lf_fence *f = UNTOUCHED;

	assert_int_equal(lf_chain_find_seqno(link, seqno, &f), -ENOENT);
	assert_ptr_equal(f, UNTOUCHED);
}

/* What stands before a link, and in it; NULL for what is let go. */
static void expect_holds(struct lf_fence *link, struct lf_fence *prev, struct lf_fence *fence)
{
	struct lf_fence *p = lf_chain_get_prev(link), *f = lf_chain_get_fence(link);

	assert_ptr_equal(p, prev);
	assert_ptr_equal(f, fence);
	lf_fence_put(p);
	lf_fence_put(f);
}

/* --- It works at all -------------------------------------------------------------------------------------------------- */

static void link_is_signaled_when_its_fence_and_all_before_are(void **state)
{
	struct lf_fence *f[3] = { plain(), plain(), plain() }, *link[3];

	link[0] = append(NULL, GET(f[0]), 1);
	link[1] = append(GET(link[0]), GET(f[1]), 2);
	link[2] = append(GET(link[1]), GET(f[2]), 3);
	for (size_t i = 0; i < 3; i++)
		expect_pending(link[i]);
	done(f[2], 0);
	done(f[0], 0);
	assert_int_equal(lf_fence_status(link[0]), 1);
	assert_true(lf_fence_is_drained(link[0]));
	expect_pending(link[1]);
	expect_pending(link[2]);
	done(f[1], 0);
	assert_int_equal(lf_fence_status(link[1]), 1);
	assert_int_equal(lf_fence_status(link[2]), 1);
	assert_true(lf_fence_is_drained(link[2]));
	for (size_t i = 0; i < 3; i++) {
		lf_fence_put(f[i]);
		lf_fence_put(link[i]);
	}
}

/* Every order in which four fences can be signaled. */
static void links_are_signaled_in_order_whatever_the_order_of_their_fences(void **state)
{
	for (unsigned order = 0; order < 4 * 4 * 4 * 4; order++) {
		unsigned at[4] = { order & 3, order >> 2 & 3, order >> 4 & 3, order >> 6 & 3 }, seen = 0;
		struct lf_fence *f[4], *link[4];

		for (unsigned i = 0; i < 4; i++)
			seen |= 1u << at[i];
		if (seen != 15)
			continue;
		for (unsigned i = 0; i < 4; i++) {
			f[i] = plain();
			link[i] = append(i ? GET(link[i - 1]) : NULL, GET(f[i]), i + 1);
		}
		seen = 0;
		for (unsigned n = 0; n < 4; n++) {
			done(f[at[n]], 0);
			seen |= 1u << at[n];
			for (unsigned i = 0; i < 4; i++) {
				unsigned needed = (2u << i) - 1;

				assert_int_equal(lf_fence_is_signaled(link[i]), (seen & needed) == needed);
			}
		}
		for (unsigned i = 0; i < 4; i++) {
			lf_fence_put(f[i]);
			lf_fence_put(link[i]);
		}
	}
}

static void link_is_a_chain_and_nothing_else_is(void **state)
{
	struct lf_fence *a = plain(), *array = ALL(GET(a)), *link = append(NULL, GET(a), 1), *stub = lf_fence_stub();

	for (int pass = 0; pass < 2; pass++) {
		assert_true(lf_fence_is_chain(link) && lf_fence_is_container(link) && !lf_fence_is_array(link));
		assert_false(lf_fence_is_chain(a) || lf_fence_is_chain(array) || lf_fence_is_chain(stub));
		if (pass == 0)
			done(a, 0);
	}
	lf_fence_put(a);
	lf_fence_put(array);
	lf_fence_put(link);
	lf_fence_put(stub);
}

static void links_share_an_ordered_context_of_their_own(void **state)
{
	struct producer p;
	char text[200];

	producer_init(&p, LF_TIMELINE_ORDERED);
	struct lf_fence *f = emit(p.tl), *g = emit(p.tl);
	struct lf_fence *one = append(NULL, GET(f), 10), *two = append(GET(one), GET(g), 20), *other = append(NULL, GET(f), 15);
	uint64_t context = lf_fence_context(one), other_context = lf_fence_context(other);
	for (int pass = 0; pass < 2; pass++) {
		assert_true(context != 0 && lf_fence_context(two) == context && lf_fence_context(one) == context);
		assert_true(other_context != 0 && other_context != context && lf_fence_context(other) == other_context);
		assert_true(context != lf_fence_context(f) && other_context != lf_fence_context(f));
		assert_true(lf_fence_seqno(one) == 10 && lf_fence_seqno(two) == 20);
		assert_true(lf_fence_is_ordered(one) && lf_fence_is_ordered(two));
		assert_true(lf_fence_is_later(two, one));
		assert_false(lf_fence_is_later(one, two) || lf_fence_is_later(one, one));
		assert_false(lf_fence_is_later(two, other) || lf_fence_is_later(other, one));
		assert_false(lf_fence_is_later(two, f) || lf_fence_is_later(f, two));
		assert_int_equal(lf_fence_name(one, text, sizeof(text)), 5);
		assert_string_equal(text, "chain");
		assert_true(lf_fence_describe(two, text, sizeof(text)) > 0);
		assert_non_null(strstr(text, "chain"));
		if (pass == 0)
			assert_int_equal(lf_timeline_signal_to(p.tl, 2, 0), 2);
	}
	lf_fence_put(one);
	lf_fence_put(two);
	lf_fence_put(other);
	lf_fence_put(f);
	lf_fence_put(g);
	producer_fini(&p, 2);
}

static void point_that_is_reached_now_stands_on_the_stub(void **state)
{
	struct lf_fence *link = append(NULL, lf_fence_stub(), 1), *f = plain();

	expect_signaled(link, 1, 0);
	assert_true(lf_fence_is_drained(link));
	expect_holds(link, NULL, NULL);
	/* behind what is pending it is not reached yet */
	struct lf_fence *two = append(GET(link), GET(f), 2), *three = append(GET(two), lf_fence_stub(), 3);
	assert_true(lf_fence_context(two) == lf_fence_context(link));
	expect_holds(two, NULL, f);
	expect_pending(three);
	done_at(f, 0, 44);
	expect_signaled(three, 1, 44);
	lf_fence_put(f);
	lf_fence_put(link);
	lf_fence_put(two);
	lf_fence_put(three);
}

/* --- Status and timestamp --------------------------------------------------------------------------------------------- */

static void error_is_the_first_along_the_chain_and_stays_with_all_later_links(void **state)
{
	struct lf_fence *f[4] = { plain(), plain(), plain(), plain() }, *link[5] = { NULL };

	for (size_t i = 0; i < 4; i++)
		link[i] = append(i ? GET(link[i - 1]) : NULL, GET(f[i]), i + 1);
	done(f[0], 0);
	done(f[1], -EIO);
	done(f[2], 0);
	done(f[3], -EPERM);
	assert_int_equal(lf_fence_status(link[0]), 1);
	assert_int_equal(lf_fence_status(link[1]), -EIO);
	assert_int_equal(lf_fence_status(link[2]), -EIO);
	assert_int_equal(lf_fence_status(link[3]), -EIO);
	/* of links that are made when it is all over, too */
	link[4] = append(GET(link[3]), lf_fence_stub(), 5);
	assert_int_equal(lf_fence_status(link[4]), -EIO);
	for (size_t i = 0; i < 5; i++)
		lf_fence_put(link[i]);
	for (size_t i = 0; i < 4; i++)
		lf_fence_put(f[i]);
}

static void earlier_link_that_fails_after_a_later_one_failed_has_the_first_error(void **state)
{
	struct lf_fence *f[3] = { plain(), plain(), plain() }, *link[3];

	for (size_t i = 0; i < 3; i++)
		link[i] = append(i ? GET(link[i - 1]) : NULL, GET(f[i]), i + 1);
	done(f[2], -EPERM);
	done(f[1], -ENOSPC);
	expect_pending(link[1]);
	done(f[0], -EIO);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(lf_fence_status(link[i]), -EIO);
	for (size_t i = 0; i < 3; i++) {
		lf_fence_put(link[i]);
		lf_fence_put(f[i]);
	}
	/* and where the earlier ones succeed the later one's own error counts */
	struct lf_fence *a = plain(), *b = plain(), *one = append(NULL, GET(a), 1), *two = append(GET(one), GET(b), 2);
	done(b, -EPERM);
	done(a, 0);
	assert_int_equal(lf_fence_status(one), 1);
	assert_int_equal(lf_fence_status(two), -EPERM);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(one);
	lf_fence_put(two);
}

static void timestamp_is_the_latest_up_to_the_link(void **state)
{
	struct lf_fence *f[3] = { plain(), plain(), plain() }, *link[3];

	for (size_t i = 0; i < 3; i++)
		link[i] = append(i ? GET(link[i - 1]) : NULL, GET(f[i]), i + 1);
	done_at(f[2], 0, 20);
	done_at(f[1], 0, 30);
	done_at(f[0], 0, 10);
	expect_signaled(link[0], 1, 10);
	expect_signaled(link[1], 1, 30);
	expect_signaled(link[2], 1, 30);
	struct lf_fence *late = append(GET(link[2]), signaled(0, 25), 9), *later = append(GET(late), signaled(0, 35), 10);
	expect_signaled(late, 1, 30);
	expect_signaled(later, 1, 35);
	lf_fence_put(late);
	lf_fence_put(later);
	for (size_t i = 0; i < 3; i++) {
		lf_fence_put(link[i]);
		lf_fence_put(f[i]);
	}
}

/* --- Points ----------------------------------------------------------------------------------------------------------- */

static void append_refused(struct lf_fence *prev, struct lf_fence *fence, uint64_t seqno, unsigned flags)
{
	struct lf_fence *link = UNTOUCHED;
	struct lf_chain_room *room;

	assert_int_equal(lf_chain_append(prev, fence, seqno, flags, &link), -EINVAL);
	assert_ptr_equal(link, UNTOUCHED);
	expect_misuse(1);
	assert_int_equal(lf_chain_prepare(&room), 0);
	assert_null(lf_chain_commit(room, prev, fence, seqno, flags));
	expect_misuse(1);
	/* the room is still ours */
	lf_chain_cancel(room);
}

static void append_refuses_what_is_wrong_and_takes_nothing(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *ten = append(NULL, GET(a), 10);
	long before = live();

	append_refused(ten, b, 10, 0);
	append_refused(ten, b, 9, 0);
	append_refused(ten, b, 0, 0);
	append_refused(NULL, b, 0, 0);
	append_refused(a, b, 0, 0);
	append_refused(ten, NULL, 11, 0);
	append_refused(NULL, NULL, 11, 0);
	append_refused(ten, b, 11, WRONG_FLAGS);
	append_refused(ten, b, 11, LF_CHAIN_JOIN | 2);
	append_refused(ten, ten, 11, 0);
	append_refused(NULL, ten, 11, 0);
	/* joining does not excuse the rest */
	append_refused(ten, ten, 10, LF_CHAIN_JOIN);
	assert_int_equal(live(), before);
	/* none of this was an append: the next one is no fork */
	struct lf_fence *eleven = append(GET(ten), b, 11);
	assert_true(lf_fence_context(eleven) == lf_fence_context(ten));
	lf_fence_put(eleven);
	done_put(a, 0);
	/* it must rise after the link is signaled, too */
	b = plain();
	append_refused(ten, b, 10, 0);
	lf_fence_put(b);
	lf_fence_put(ten);
	assert_int_equal(live(), before - 3);
}

static void points_may_have_gaps_and_reach_the_last_seqno(void **state)
{
	struct lf_fence *f = plain(), *one = append(NULL, GET(f), 1), *high = append(GET(one), GET(f), UINT64_MAX - 1);
	struct lf_fence *last = append(GET(high), GET(f), UINT64_MAX);

	assert_true(lf_fence_seqno(last) == UINT64_MAX);
	assert_true(lf_fence_is_later(last, high) && lf_fence_is_later(last, one) && !lf_fence_is_later(one, last));
	expect_found(last, UINT64_MAX, last);
	expect_found(last, UINT64_MAX - 1, high);
	expect_found(last, 2, high);
	expect_found(last, UINT64_MAX / 2, high);
	expect_found(last, 1, one);
	expect_not_appended(high, UINT64_MAX);
	append_refused(last, f, UINT64_MAX, 0);
	append_refused(last, f, 1, 0);
	done_put(f, 0);
	assert_int_equal(lf_fence_status(last), 1);
	lf_fence_put(one);
	lf_fence_put(high);
	lf_fence_put(last);
	f = plain();
	last = append(NULL, GET(f), UINT64_MAX);
	expect_found(last, 1, last);
	done_put(f, 0);
	lf_fence_put(last);
}

static void chain_may_begin_after_any_other_fence(void **state)
{
	struct lf_fence *before = plain(), *a = plain(), *link = append(GET(before), GET(a), 5);

	expect_holds(link, before, a);
	LEAVES(link, before, a);
	done_at(a, -EIO, 10);
	expect_pending(link);
	expect_holds(link, before, NULL);
	done_at(before, 0, 20);
	expect_signaled(link, -EIO, 20);
	expect_holds(link, NULL, NULL);
	lf_fence_put(link);
	lf_fence_put(a);
	lf_fence_put(before);
	/* its error comes first, being that of the beginning */
	before = plain();
	a = plain();
	link = append(GET(before), GET(a), 5);
	done(a, -EIO);
	done(before, -EPERM);
	assert_int_equal(lf_fence_status(link), -EPERM);
	lf_fence_put(link);
	lf_fence_put(a);
	/* one that is signaled is let go at once, and remembered */
	link = append(before, plain(), 5);
	a = lf_chain_get_fence(link);
	expect_holds(link, NULL, a);
	done_put(a, 0);
	assert_int_equal(lf_fence_status(link), -EPERM);
	lf_fence_put(link);
}

static void seqno_of_a_timeline_does_not_bind_a_chain_that_begins_after_it(void **state)
{
	struct producer p;
	struct lf_fence *f, *a = plain();

	producer_init(&p, LF_TIMELINE_ORDERED);
	assert_int_equal(lf_timeline_emit(p.tl, 1000, &f), 0);
	struct lf_fence *link = append(f, GET(a), 1), *array_first = append(ALL(GET(a)), GET(a), 1);
	assert_true(lf_fence_context(link) != lf_timeline_context(p.tl));
	expect_found(link, 1, link);
	assert_int_equal(lf_timeline_signal_to(p.tl, 1000, 0), 1);
	done_put(a, 0);
	assert_int_equal(lf_fence_status(link), 1);
	assert_int_equal(lf_fence_status(array_first), 1);
	lf_fence_put(link);
	lf_fence_put(array_first);
	producer_fini(&p, 1);
}

static void same_fence_may_stand_in_several_links_and_before_them(void **state)
{
	struct lf_fence *a = plain(), *one = append(GET(a), GET(a), 1), *two = append(GET(one), GET(a), 2);

	LEAVES(two, a);
	done_at(a, -EIO, 4);
	expect_signaled(one, -EIO, 4);
	expect_signaled(two, -EIO, 4);
	lf_fence_put(one);
	lf_fence_put(two);
	lf_fence_put(a);
}

/* --- Finding ---------------------------------------------------------------------------------------------------------- */

static void find_gives_the_first_link_that_is_not_below(void **state)
{
	struct lf_fence *f[3] = { plain(), plain(), plain() }, *ten = append(NULL, GET(f[0]), 10);
	struct lf_fence *twenty = append(GET(ten), GET(f[1]), 20), *thirty = append(GET(twenty), GET(f[2]), 30);

	for (uint64_t n = 1; n <= 30; n++)
		expect_found(thirty, n, n <= 10 ? ten : n <= 20 ? twenty : thirty);
	expect_found(thirty, 0, NULL);
	expect_not_appended(thirty, 31);
	expect_not_appended(thirty, UINT64_MAX);
	expect_not_appended(ten, 11);
	expect_found(ten, 5, ten);
	/* the last one's fence first: nothing is reached by that */
	done(f[2], 0);
	expect_found(thirty, 30, thirty);
	done(f[0], 0);
	lf_fence_put(ten);
	/* the first link is gone */
	assert_int_equal(lf_reclaim_barrier(), 0);
	for (uint64_t n = 1; n <= 10; n++)
		expect_reached(thirty, n, 10);
	for (uint64_t n = 11; n <= 30; n++)
		expect_found(thirty, n, n <= 20 ? twenty : thirty);
	done(f[1], 0);
	lf_fence_put(twenty);
	assert_int_equal(lf_reclaim_barrier(), 0);
	for (uint64_t n = 1; n <= 20; n++)
		expect_reached(thirty, n, n <= 10 ? 10 : 20);
	for (uint64_t n = 21; n <= 30; n++)
		expect_found(thirty, n, thirty);
	expect_found(thirty, 0, NULL);
	expect_not_appended(thirty, 31);
	for (size_t i = 0; i < 3; i++)
		lf_fence_put(f[i]);
	lf_fence_put(thirty);
}

/* A link that is signaled and that others still hold may be found or be gone; what is found has reached the point either way. */
static void find_of_a_reached_point_is_signaled_whoever_holds_its_link(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *one = append(NULL, GET(a), 10), *two = append(GET(one), GET(b), 20);

	done(a, -EIO);
	for (uint64_t n = 1; n <= 10; n++)
		expect_reached(two, n, 10);
	expect_found(one, 7, one);
	expect_found(two, 11, two);
	done(b, 0);
	/* the error of the link that is gone is known to the later one */
	assert_int_equal(lf_fence_status(two), -EIO);
	lf_fence_put(one);
	lf_fence_put(two);
	lf_fence_put(a);
	lf_fence_put(b);
}

static void find_refuses_what_is_no_link(void **state)
{
	struct lf_fence *a = plain(), *array = ALL(GET(a)), *f = UNTOUCHED;

	assert_int_equal(lf_chain_find_seqno(a, 1, &f), -EINVAL);
	assert_int_equal(lf_chain_find_seqno(array, 1, &f), -EINVAL);
	expect_misuse(2);
	assert_ptr_equal(f, UNTOUCHED);
	assert_null(lf_chain_get_prev(a));
	assert_null(lf_chain_get_prev(array));
	assert_null(lf_chain_get_fence(a));
	assert_null(lf_chain_get_fence(array));
	expect_misuse(4);
	lf_fence_put(array);
	lf_fence_put(a);
}

static void find_behind_a_fence_that_is_no_link(void **state)
{
	struct lf_fence *before = plain(), *a = plain(), *link = append(GET(before), GET(a), 50), *next = append(GET(link), GET(a), 60);

	for (int pass = 0; pass < 2; pass++) {
		expect_found(next, 0, NULL);
		expect_found(next, 1, link);
		expect_found(next, 50, link);
		expect_found(next, 51, next);
		expect_found(link, 1, link);
		expect_not_appended(link, 51);
		if (pass == 0)
			done(before, 0);
	}
	done_put(a, 0);
	lf_fence_put(link);
	lf_fence_put(next);
	lf_fence_put(before);
}

/* With 1, 2, 3 ... n links, each point from each newest link; then again while they are collected from the beginning. */
static void find_is_right_at_every_place(void **state)
{
	enum { N = 70 };
	struct lf_fence *f[N], *link[N];

	for (unsigned i = 0; i < N; i++) {
		f[i] = plain();
		link[i] = append(i ? GET(link[i - 1]) : NULL, GET(f[i]), 2 * i + 2);
		for (unsigned n = 1; n <= 2 * i + 2; n++)
			expect_found(link[i], n, link[(n - 1) / 2]);
		expect_not_appended(link[i], 2 * i + 3);
	}
	for (unsigned gone = 0; gone < N - 1; gone++) {
		done(f[gone], 0);
		lf_fence_put(link[gone]);
		assert_int_equal(lf_reclaim_barrier(), 0);
		for (unsigned from = gone + 1; from < N; from += gone % 3 + 1)
			for (unsigned n = 1; n <= 2 * from + 2; n += gone % 2 + 1)
				if (n <= 2 * gone + 2)
					expect_reached(link[from], n, (n + 1) / 2 * 2);
				else
					expect_found(link[from], n, link[(n - 1) / 2]);
	}
	lf_fence_put(link[N - 1]);
	for (unsigned i = 0; i < N; i++)
		lf_fence_put(f[i]);
}

/* What this thread had of the processor: what others do on the machine does not count. */
static int64_t cpu_time(void)
{
	struct timespec now;

	assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/*
 * A hundred random points against going once from the end to the beginning: some thousand steps against all of them. If finding took all
 * the steps, it would be the other way round.
 */
static void check_find_is_short(struct lf_fence *link, long n, uint64_t *random)
{
	uint64_t last = lf_fence_seqno(link);
	struct lf_fence *at = GET(link);
	int64_t start = cpu_time(), finding, going;
	long steps = 0;

	for (int i = 0; i < 100; i++)
		lf_fence_put(find(link, 1 + random_next(random) % last));
	finding = cpu_time() - start;
	start = cpu_time();
	for (; at; steps++) {
		struct lf_fence *prev = lf_chain_get_prev(at);

		lf_fence_put(at);
		at = prev;
	}
	going = cpu_time() - start;
	assert_int_equal(steps, n);
	test_note("100 of %ld points found in %.3f ms; all of them gone through in %.3f ms", n, (double)finding / 1e6, (double)going / 1e6);
	/* in a short one there is little between the two */
	assert_true(n < 10000 || finding < going);
}

/* Random gaps, all pending, random points against a search in a table of them. */
static void find_in_a_chain_of_a_million_pending_links(void **state)
{
	long n = test_rounds(test_is_sanitized() ? 20000 : 1000000), finds = 10000;
	uint64_t *seqnos = malloc((size_t)n * sizeof(*seqnos)), random = test_seed(), seqno = 0;
	struct lf_fence *f = plain(), *link = NULL;

	assert_non_null(seqnos);
	test_watchdog(100, "find in a long chain");
	for (long i = 0; i < n; i++) {
		seqno += 1 + random_next(&random) % 3;
		seqnos[i] = seqno;
		link = append(link, GET(f), seqno);
	}
	for (long i = 0; i < finds; i++) {
		uint64_t point = i == 0 ? 1 : 1 + random_next(&random) % seqno;
		long low = 0, high = n - 1;

		while (low < high) {
			long middle = low + (high - low) / 2;

			if (seqnos[middle] < point)
				low = middle + 1;
			else
				high = middle;
		}
		struct lf_fence *found = find(link, point);
		assert_true(lf_fence_seqno(found) == seqnos[low]);
		assert_true(lf_fence_context(found) == lf_fence_context(link));
		lf_fence_put(found);
	}
	expect_not_appended(link, seqno + 1);
	check_find_is_short(link, n, &random);
	test_watchdog(0, "");
	done_put(f, 0);
	assert_int_equal(lf_fence_status(link), 1);
	lf_fence_put(link);
	free(seqnos);
}

/* The beginning is collected while the end grows: what is left must be found, what is gone must be said to be reached. */
static void find_in_a_chain_that_moves_on(void **state)
{
	enum { WINDOW = 100 };
	struct lf_fence *window[WINDOW], *link = NULL;
	uint64_t random = test_seed();
	long rounds = test_rounds(20000);

	for (long i = 0; i < rounds + WINDOW; i++) {
		uint64_t seqno = 3 * (uint64_t)(i + 1);

		if (i >= WINDOW) {
			struct lf_fence *found;
			uint64_t reached = seqno - 3 * WINDOW, point = 1 + random_next(&random) % seqno;

			done_put(window[i % WINDOW], 0);
			found = find(link, point > seqno - 3 ? seqno - 3 : point);
			assert_int_equal(lf_fence_is_signaled(found), point <= reached);
			if (point > reached && point <= seqno - 3)
				assert_true(lf_fence_seqno(found) == (point + 2) / 3 * 3);
			lf_fence_put(found);
			expect_not_appended(link, seqno);
		}
		window[i % WINDOW] = plain();
		link = append(link, GET(window[i % WINDOW]), seqno);
	}
	for (size_t i = 0; i < WINDOW; i++)
		done_put(window[(rounds + (long)i) % WINDOW], 0);
	assert_int_equal(lf_fence_status(link), 1);
	lf_fence_put(link);
}

static void finding_allocates_nothing(void **state)
{
	struct lf_fence *f = plain(), *link = NULL;

	for (uint64_t i = 1; i <= 1000; i++)
		link = append(link, GET(f), i);
	long calls = alloc_calls();
	alloc_fail_all(true);
	for (uint64_t i = 0; i <= 1000; i++)
		lf_fence_put(find(link, i));
	alloc_fail_all(false);
	assert_int_equal(alloc_calls(), calls);
	done_put(f, 0);
	lf_fence_put(link);
}

static void find_inside_a_read_section(void **state)
{
	struct lf_fence *f = plain(), *link = append(append(NULL, GET(f), 1), GET(f), 2), *found;

	lf_read_lock();
	found = find(link, 1);
	lf_read_unlock();
	assert_true(lf_fence_seqno(found) == 1);
	lf_fence_put(found);
	done_put(f, 0);
	lf_fence_put(link);
}

/* --- Forks ------------------------------------------------------------------------------------------------------------ */

static void second_successor_is_a_fork_with_a_context_of_its_own(void **state)
{
	struct lf_fence *f[5], *trunk, *main_one, *main_two, *fork_one, *fork_two;

	for (size_t i = 0; i < 5; i++)
		f[i] = plain();
	trunk = append(NULL, GET(f[0]), 10);
	main_one = append(GET(trunk), GET(f[1]), 20);
	fork_one = append(GET(trunk), GET(f[2]), 15);
	main_two = append(GET(main_one), GET(f[3]), 30);
	fork_two = append(GET(fork_one), GET(f[4]), 40);
	assert_true(lf_fence_context(main_one) == lf_fence_context(trunk));
	assert_true(lf_fence_context(main_two) == lf_fence_context(trunk));
	assert_true(lf_fence_context(fork_one) != lf_fence_context(trunk));
	assert_true(lf_fence_context(fork_two) == lf_fence_context(fork_one));
	assert_true(lf_fence_is_later(fork_two, fork_one) && lf_fence_is_later(main_two, trunk));
	struct lf_fence *branch[] = { main_one, main_two }, *fork[] = { fork_one, fork_two };
	for (size_t i = 0; i < 2; i++)
		for (size_t k = 0; k < 2; k++)
			assert_false(lf_fence_is_later(branch[i], fork[k]) || lf_fence_is_later(fork[k], branch[i]));
	assert_false(lf_fence_is_later(fork_one, trunk));
	for (uint64_t n = 1; n <= 40; n++) {
		expect_found(fork_two, n, n <= 10 ? trunk : n <= 15 ? fork_one : fork_two);
		if (n <= 30)
			expect_found(main_two, n, n <= 10 ? trunk : n <= 20 ? main_one : main_two);
	}
	expect_not_appended(main_two, 31);
	expect_not_appended(fork_one, 16);
	LEAVES(fork_two, f[0], f[2], f[4]);
	LEAVES(main_two, f[0], f[1], f[3]);
	/* each branch goes its own way */
	done(f[0], 0);
	done(f[2], -EIO);
	done(f[4], 0);
	assert_int_equal(lf_fence_status(fork_two), -EIO);
	expect_pending(main_two);
	done(f[1], 0);
	done(f[3], 0);
	assert_int_equal(lf_fence_status(main_two), 1);
	lf_fence_put(trunk);
	assert_int_equal(lf_reclaim_barrier(), 0);
	expect_reached(fork_one, 10, 10);
	expect_found(fork_one, 11, fork_one);
	expect_reached(main_one, 10, 10);
	expect_found(main_one, 11, main_one);
	lf_fence_put(main_one);
	lf_fence_put(main_two);
	lf_fence_put(fork_one);
	lf_fence_put(fork_two);
	for (size_t i = 0; i < 5; i++)
		lf_fence_put(f[i]);
}

static void error_of_the_trunk_comes_to_both_branches(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain(), *trunk = append(NULL, GET(a), 1);
	struct lf_fence *main_one = append(GET(trunk), GET(b), 2), *fork = append(GET(trunk), GET(c), 2);

	done(b, -EPERM);
	done(c, 0);
	done(a, -EIO);
	assert_int_equal(lf_fence_status(main_one), -EIO);
	assert_int_equal(lf_fence_status(fork), -EIO);
	/* a fork of what is signaled */
	struct lf_fence *late = append(GET(trunk), lf_fence_stub(), 2);
	assert_int_equal(lf_fence_status(late), -EIO);
	assert_false(lf_fence_is_later(main_one, late) || lf_fence_is_later(late, main_one) || lf_fence_is_later(late, trunk));
	lf_fence_put(late);
	lf_fence_put(trunk);
	lf_fence_put(main_one);
	lf_fence_put(fork);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
}

/* Random trees of links against a search from parent to parent. */
static void find_in_a_random_tree_of_forks(void **state)
{
	enum { N = 400 };
	struct lf_fence *f = plain(), *link[N];
	uint64_t random = test_seed();
	int parent[N];

	for (int i = 0; i < N; i++) {
		uint64_t base = 0;

		/* mostly the last one, so that branches become long */
		parent[i] = i == 0 ? -1 : random_next(&random) % 8 ? i - 1 : (int)(random_next(&random) % (uint64_t)i);
		if (parent[i] >= 0)
			base = lf_fence_seqno(link[parent[i]]);
		link[i] = append(parent[i] >= 0 ? GET(link[parent[i]]) : NULL, GET(f), base + 1 + random_next(&random) % 5);
	}
	for (int tries = 0; tries < 20000; tries++) {
		int from = (int)(random_next(&random) % N), expected = from;
		uint64_t point = 1 + random_next(&random) % lf_fence_seqno(link[from]);

		while (parent[expected] >= 0 && lf_fence_seqno(link[parent[expected]]) >= point)
			expected = parent[expected];
		expect_found(link[from], point, link[expected]);
		int other = (int)(random_next(&random) % N), below = from;
		/* later means: after it on the same way from the root */
		while (below >= 0 && below != other)
			below = parent[below];
		if (lf_fence_is_later(link[from], link[other]))
			assert_true(below == other);
	}
	done_put(f, 0);
	for (int i = 0; i < N; i++) {
		assert_int_equal(lf_fence_status(link[i]), 1);
		lf_fence_put(link[i]);
	}
}

/* --- Joined chains ---------------------------------------------------------------------------------------------------- */

static void chains_are_joined_only_when_asked_for(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain();
	struct lf_fence *one = append(NULL, GET(a), 100), *other_one = append(NULL, GET(b), 7);
	struct lf_fence *other = append(GET(other_one), GET(c), 8);

	append_refused(one, other, 101, 0);
	struct lf_fence *joined = join(GET(one), GET(other), 101);
	assert_true(lf_fence_context(joined) == lf_fence_context(one));
	expect_holds(joined, one, other);
	LEAVES(joined, a, b, c);
	expect_found(joined, 8, one);
	expect_found(joined, 101, joined);
	done_at(c, 0, 5);
	done_at(a, 0, 3);
	expect_pending(joined);
	expect_holds(joined, NULL, other);
	done_at(b, -EIO, 4);
	expect_signaled(joined, -EIO, 5);
	expect_holds(joined, NULL, NULL);
	lf_fence_put(joined);
	lf_fence_put(other);
	lf_fence_put(other_one);
	lf_fence_put(one);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
	/* a fence that is no link may be appended with the flag, too */
	a = plain();
	one = join(NULL, GET(a), 1);
	done_put(a, 0);
	assert_int_equal(lf_fence_status(one), 1);
	lf_fence_put(one);
}

static void array_that_holds_links_is_no_join(void **state)
{
	struct lf_fence *a = plain(), *other = append(NULL, GET(a), 7), *link = append(NULL, ALL(GET(other)), 1);

	LEAVES(link, a);
	done_put(a, -EIO);
	assert_int_equal(lf_fence_status(link), -EIO);
	lf_fence_put(link);
	lf_fence_put(other);
}

static void link_may_be_joined_to_itself_as_its_predecessor(void **state)
{
	struct lf_fence *a = plain(), *one = append(NULL, GET(a), 1), *two = join(GET(one), GET(one), 2);

	LEAVES(two, a);
	done_put(a, -EIO);
	assert_int_equal(lf_fence_status(two), -EIO);
	lf_fence_put(one);
	lf_fence_put(two);
}

/* --- Callbacks and waits ---------------------------------------------------------------------------------------------- */

struct order_cb {
	struct lf_fence_cb cb;
	struct lf_fence *before; /* the link before the one that it is added to */
	unsigned ran;
	bool wrong;
};

static void look_before(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct order_cb *o = (struct order_cb *)(void *)cb;

	o->ran++;
	o->wrong = o->before && !lf_fence_is_signaled(o->before);
}

static void callbacks_of_links_run_once_when_all_before_is_signaled(void **state)
{
	enum { N = 50 };

	/* the fences from first to last, and from last to first */
	for (int backwards = 0; backwards < 2; backwards++) {
		struct lf_fence *f[N], *link[N];
		struct order_cb cb[N];

		memset(cb, 0, sizeof(cb));
		for (unsigned i = 0; i < N; i++) {
			f[i] = plain();
			link[i] = append(i ? GET(link[i - 1]) : NULL, GET(f[i]), i + 1);
			cb[i].before = i ? link[i - 1] : NULL;
			assert_int_equal(lf_fence_add_callback(link[i], &cb[i].cb, look_before), 0);
		}
		for (unsigned i = 0; i < N; i++) {
			done(f[backwards ? N - 1 - i : i], 0);
			for (unsigned k = 0; k < N; k++)
				assert_int_equal(cb[k].ran, backwards ? i == N - 1 : k <= i);
		}
		for (unsigned i = 0; i < N; i++) {
			assert_false(cb[i].wrong);
			lf_fence_put(f[i]);
			lf_fence_put(link[i]);
		}
	}
}

/* Points over one timeline, of which an interrupt completes many at once: each is told once, in order, at one time. */
static void links_over_a_timeline_are_signaled_together(void **state)
{
	enum { N = 200 };
	struct lf_fence *link[N];
	struct order_cb cb[N];
	struct producer p;

	producer_init(&p, LF_TIMELINE_ORDERED);
	memset(cb, 0, sizeof(cb));
	for (unsigned i = 0; i < N; i++) {
		link[i] = append(i ? GET(link[i - 1]) : NULL, emit(p.tl), i + 1);
		cb[i].before = i ? link[i - 1] : NULL;
		assert_int_equal(lf_fence_add_callback(link[i], &cb[i].cb, look_before), 0);
	}
	assert_int_equal(p.enables, N);
	assert_int_equal(lf_timeline_signal_to_at(p.tl, N / 2, 0, 40), N / 2);
	assert_int_equal(lf_timeline_signal_to_at(p.tl, N, -EIO, 50), N / 2);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(cb[i].ran, 1);
		assert_false(cb[i].wrong);
		expect_signaled(link[i], i < N / 2 ? 1 : -EIO, i < N / 2 ? 40 : 50);
		lf_fence_put(link[i]);
	}
	producer_fini(&p, N);
}

static void late_duplicate_and_removed_callbacks_of_a_link(void **state)
{
	struct lf_fence *a = plain(), *link = append(NULL, GET(a), 1);
	struct noted_cb kept, removed;

	noted_add(&kept, link);
	noted_add(&removed, link);
	assert_int_equal(lf_fence_add_callback(link, &kept.cb, noted_run), -EALREADY);
	expect_misuse(1);
	assert_int_equal(lf_fence_remove_callback(link, &removed.cb), LF_CB_REMOVED);
	done_at(a, -EIO, 3);
	assert_int_equal(kept.ran, 1);
	assert_int_equal(kept.status, -EIO);
	assert_int_equal(kept.timestamp, 3);
	assert_int_equal(removed.ran, 0);
	assert_int_equal(lf_fence_add_callback(link, &removed.cb, noted_run), -ENOENT);
	lf_fence_put(link);
	lf_fence_put(a);
}

static void *wait_for_it(void *arg)
{
	return (void *)(intptr_t)lf_fence_wait(arg, LF_DEADLINE_NEVER);
}

static void waits_for_a_link_end_with_its_signal(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *link = append(append(NULL, GET(a), 1), GET(b), 2);
	pthread_t waiter = thread_start(wait_for_it, link, 0);

	assert_int_equal(lf_fence_wait(link, 0), -ETIME);
	done_put(b, 0);
	done_put(a, 0);
	assert_int_equal((intptr_t)thread_join(waiter), 0);
	assert_int_equal(lf_fence_wait(link, 0), 0);
	assert_int_equal(lf_fence_wait_drained(link, LF_DEADLINE_NEVER), 0);
	lf_fence_put(link);
}

static void making_links_enables_nobody_and_interest_enables_all_up_to_it_once(void **state)
{
	struct producer p;
	struct noted_cb cb;

	producer_init(&p, LF_TIMELINE_UNORDERED);
	struct lf_fence *f[4] = { emit(p.tl), emit(p.tl), emit(p.tl), emit(p.tl) };
	struct lf_fence *one = append(GET(f[0]), GET(f[1]), 1), *two = append(GET(one), GET(f[2]), 2);
	struct lf_fence *three = append(GET(two), GET(f[3]), 3);
	lf_fence_put(find(three, 1));
	expect_holds(two, one, f[2]);
	LEAVES(three, f[0], f[1], f[2], f[3]);
	assert_int_equal(p.enables, 0);
	/* the points up to it, and not those behind it */
	assert_int_equal(lf_fence_wait(two, 0), -ETIME);
	assert_int_equal(p.enables, 3);
	noted_add(&cb, one);
	assert_int_equal(p.enables, 3);
	assert_int_equal(lf_fence_wait(three, 0), -ETIME);
	assert_int_equal(lf_fence_wait(three, 0), -ETIME);
	assert_int_equal(p.enables, 4);
	assert_int_equal(p.late, 0);
	/* a link that is appended to what is armed is not armed by that */
	struct lf_fence *g = emit(p.tl), *four = append(GET(three), GET(g), 4);
	assert_int_equal(p.enables, 4);
	assert_int_equal(lf_fence_wait(four, 0), -ETIME);
	assert_int_equal(p.enables, 5);
	assert_int_equal(lf_timeline_signal_to(p.tl, UINT64_MAX, 0), 5);
	assert_int_equal(cb.ran, 1);
	assert_int_equal(lf_fence_status(four), 1);
	for (size_t i = 0; i < 4; i++)
		lf_fence_put(f[i]);
	lf_fence_put(g);
	lf_fence_put(one);
	lf_fence_put(two);
	lf_fence_put(three);
	lf_fence_put(four);
	producer_fini(&p, 5);
}

static void check_and_deadline_go_to_the_pending_fences_of_a_chain(void **state)
{
	struct producer p;

	producer_init(&p, LF_TIMELINE_UNORDERED);
	struct lf_fence *f = emit(p.tl), *g = emit(p.tl), *link = append(append(NULL, GET(f), 1), GET(g), 2);
	lf_fence_set_deadline(link, 99);
	assert_int_equal(p.hints, 2);
	assert_int_equal(p.hint, 99);
	assert_int_equal(lf_fence_check(link), 0);
	assert_int_equal(p.polls, 2);
	assert_true(lf_timeline_signal_one(p.tl, g, 0));
	lf_fence_set_deadline(link, 98);
	assert_int_equal(p.hints, 3);
	p.poll_result = 1;
	assert_int_equal(lf_fence_check(link), 1);
	assert_int_equal(p.polls, 3);
	assert_int_equal(p.enables, 0);
	lf_fence_put(link);
	lf_fence_put(f);
	lf_fence_put(g);
	producer_fini(&p, 2);
}

static void link_cannot_be_signaled_by_hand(void **state)
{
	struct lf_fence *a = plain(), *link = append(NULL, GET(a), 1);

	assert_false(lf_fence_signal(link, 0));
	assert_false(lf_fence_signal_at(link, -EIO, 5));
	expect_misuse(2);
	expect_pending(link);
	done_put(a, 0);
	assert_int_equal(lf_fence_status(link), 1);
	lf_fence_put(link);
}

/* --- Prepare, commit, cancel ------------------------------------------------------------------------------------------ */

static void commit_allocates_nothing_and_makes_the_same(void **state)
{
	struct lf_chain_room *room[3];
	struct lf_fence *a = plain(), *b = plain(), *one, *two, *three;

	for (size_t i = 0; i < 3; i++)
		assert_int_equal(lf_chain_prepare(&room[i]), 0);
	long calls = alloc_calls();
	alloc_fail_all(true);
	one = lf_chain_commit(room[0], NULL, GET(a), 10, 0);
	assert_non_null(one);
	two = lf_chain_commit(room[1], GET(one), GET(b), 20, 0);
	assert_non_null(two);
	three = lf_chain_commit(room[2], GET(two), GET(one), 30, LF_CHAIN_JOIN);
	assert_non_null(three);
	alloc_fail_all(false);
	assert_int_equal(alloc_calls(), calls);
	assert_true(lf_fence_is_chain(two) && lf_fence_context(two) == lf_fence_context(one));
	expect_found(three, 11, two);
	done(b, -EIO);
	done(a, 0);
	assert_int_equal(lf_fence_status(one), 1);
	assert_int_equal(lf_fence_status(two), -EIO);
	assert_int_equal(lf_fence_status(three), -EIO);
	lf_fence_put(one);
	lf_fence_put(two);
	lf_fence_put(three);
	lf_fence_put(a);
	lf_fence_put(b);
}

static void commit_that_is_refused_leaves_room_and_references_to_the_caller(void **state)
{
	struct lf_chain_room *room;
	struct lf_fence *a = plain(), *one = append(NULL, plain(), 10);

	assert_int_equal(lf_chain_prepare(&room), 0);
	assert_null(lf_chain_commit(room, one, a, 10, 0));
	assert_null(lf_chain_commit(room, one, NULL, 11, 0));
	assert_null(lf_chain_commit(room, a, one, 11, 0));
	assert_null(lf_chain_commit(room, one, a, 11, WRONG_FLAGS));
	expect_misuse(4);
	struct lf_fence *two = lf_chain_commit(room, one, a, 11, 0);
	assert_non_null(two);
	lf_fence_put(two);
}

static void cancelled_room_is_given_back(void **state)
{
	struct lf_chain_room *room;
	long before = live();

	lf_chain_cancel(NULL);
	assert_int_equal(lf_chain_prepare(&room), 0);
	lf_chain_cancel(room);
	assert_int_equal(live(), before);
}

/* --- Re-entrant ------------------------------------------------------------------------------------------------------- */

struct appending_cb {
	struct lf_fence_cb cb;
	struct lf_fence *pending, *appended;
};

static void append_to_it(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct appending_cb *a = (struct appending_cb *)(void *)cb;

	must(lf_chain_append(GET(f), GET(a->pending), lf_fence_seqno(f) + 1, 0, &a->appended) == 0);
}

static void link_may_be_appended_to_inside_its_callback(void **state)
{
	struct lf_fence *a = plain(), *one = append(NULL, GET(a), 1);
	struct appending_cb cb = { .pending = plain() };

	assert_int_equal(lf_fence_add_callback(one, &cb.cb, append_to_it), 0);
	done_put(a, -EIO);
	assert_true(lf_fence_context(cb.appended) == lf_fence_context(one));
	expect_pending(cb.appended);
	done_put(cb.pending, 0);
	assert_int_equal(lf_fence_status(cb.appended), -EIO);
	lf_fence_put(cb.appended);
	lf_fence_put(one);
}

struct putting_cb {
	struct lf_fence_cb cb;
	struct lf_fence *put[3];
};

static void put_them(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct putting_cb *p = (struct putting_cb *)(void *)cb;

	for (size_t i = 0; i < 3; i++)
		lf_fence_put(p->put[i]);
}

static void callbacks_may_put_the_last_references_of_a_chain(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *one = append(NULL, GET(a), 1), *two = append(GET(one), GET(b), 2);
	struct putting_cb cb = { .put = { one, two, a } };

	/* the pending end of the chain goes, too */
	assert_int_equal(lf_fence_add_callback(one, &cb.cb, put_them), 0);
	assert_true(lf_fence_signal(a, 0));
	lf_fence_put(b);
}

/* --- Memory ----------------------------------------------------------------------------------------------------------- */

static void link_lets_go_of_its_fence_and_of_the_link_before_as_those_are_signaled(void **state)
{
	struct producer p;

	producer_init(&p, LF_TIMELINE_UNORDERED);
	struct lf_fence *f[3] = { emit(p.tl), emit(p.tl), emit(p.tl) }, *one = append(NULL, f[0], 1);
	struct lf_fence *two = append(GET(one), f[1], 2), *tip = append(GET(two), f[2], 3);
	expect_holds(tip, two, f[2]);
	/* nobody looks, and each goes when it is done: the last one's fence while its link waits for the others */
	lf_fence_put(two);
	long before = live();
	assert_true(lf_timeline_signal_one(p.tl, f[2], 0));
	assert_int_equal(live(), before - 1);
	expect_holds(tip, two, NULL);
	lf_fence_put(one);
	assert_int_equal(live(), before - 1);
	assert_true(lf_timeline_signal_one(p.tl, f[0], 0));
	/* the first fence and the first link */
	assert_true(live() <= before - 3);
	expect_pending(tip);
	expect_holds(two, NULL, f[1]);
	assert_true(lf_timeline_signal_one(p.tl, f[1], 0));
	assert_true(live() <= before - 5);
	assert_int_equal(lf_fence_status(tip), 1);
	expect_holds(tip, NULL, NULL);
	lf_fence_put(tip);
	producer_fini(&p, 3);
}

/* A signaled link holds nothing but itself. */
static void put_last_link(struct lf_fence *link)
{
	long before = live();

	lf_fence_put(link);
	assert_int_equal(live(), before - 1);
}

static void chain_that_nobody_looks_at_holds_what_is_pending_and_no_more(void **state)
{
	enum { WINDOW = 16 };
	static const long windows[] = { 0, WINDOW };
	long points = test_rounds(test_is_sanitized() ? 20000 : 1000000);

	for (size_t w = 0; w < 2; w++) {
		struct lf_fence *pending[WINDOW + 1], *link = NULL;
		/* a fence and a link for each, and as much again for whatever helps to find them */
		long n = windows[w], most = live() + 4 * (n + 1) + 4;

		for (long i = 0; i < points; i++) {
			pending[i % (n + 1)] = plain();
			link = append(link, GET(pending[i % (n + 1)]), (uint64_t)i + 1);
			if (i >= n)
				done_put(pending[(i - n) % (n + 1)], 0);
			if (i % (points / 10) == 0)
				assert_true(live() <= most);
		}
		assert_true(live() <= most);
		for (long i = points; i < points + n; i++)
			done_put(pending[(i - n) % (n + 1)], 0);
		assert_int_equal(lf_fence_status(link), 1);
		put_last_link(link);
	}
}

/* The other order: the newest fences first, so that a link whose fence is gone waits for those before it. */
static void chain_whose_fences_complete_backwards_lets_go_of_them_all(void **state)
{
	long n = test_rounds(10000);
	struct producer p;

	producer_init(&p, LF_TIMELINE_UNORDERED);
	struct lf_fence **f = malloc((size_t)n * sizeof(*f)), *link = NULL;
	assert_non_null(f);
	for (long i = 0; i < n; i++) {
		f[i] = emit(p.tl);
		link = append(link, f[i], (uint64_t)i + 1);
	}
	long before = live();
	for (long i = n - 1; i > 0; i--)
		assert_true(lf_timeline_signal_one(p.tl, f[i], 0));
	assert_true(live() <= before - (n - 1));
	expect_pending(link);
	assert_true(lf_timeline_signal_one(p.tl, f[0], -EIO));
	assert_int_equal(lf_fence_status(link), -EIO);
	put_last_link(link);
	producer_fini(&p, (unsigned)n);
	free(f);
}

static void pending_chain_that_is_put_leaves_nothing_behind(void **state)
{
	struct lf_fence *slow = plain();
	long before = live();
	struct lf_fence *link = NULL;

	for (uint64_t i = 1; i <= 100; i++)
		link = append(link, i % 2 ? GET(slow) : plain(), i);
	lf_fence_put(find(link, 50));
	lf_fence_put(link);
	assert_int_equal(live(), before);
	/* a link in the middle that somebody holds keeps what is before it, and goes on */
	link = append(append(NULL, GET(slow), 1), GET(slow), 2);
	struct lf_fence *held = find(link, 1);
	lf_fence_put(link);
	expect_pending(held);
	done_put(slow, -EIO);
	assert_int_equal(lf_fence_status(held), -EIO);
	lf_fence_put(held);
}

static void chain_outlives_the_producers_of_its_fences(void **state)
{
	struct producer p;
	char text[200];

	producer_init(&p, LF_TIMELINE_ORDERED);
	struct lf_fence *one = append(NULL, emit(p.tl), 1), *two = append(GET(one), emit(p.tl), 2);
	producer_fini(&p, 2);
	memset(&p, 0xdd, sizeof(p));
	assert_int_equal(lf_fence_check(two), -ECANCELED);
	lf_fence_set_deadline(two, 1);
	assert_true(lf_fence_describe(two, text, sizeof(text)) > 0);
	NO_LEAVES(two);
	expect_found(two, 2, two);
	lf_fence_put(one);
	lf_fence_put(two);
}

static void pending_link_with_callbacks_that_is_put_is_misuse_and_completes(void **state)
{
	struct lf_fence *a = plain(), *link = append(NULL, GET(a), 1);
	struct noted_cb cb;

	noted_add(&cb, link);
	lf_fence_put(link);
	expect_misuse(1);
	assert_int_equal(cb.ran, 1);
	assert_int_equal(cb.status, -EDEADLK);
	done_put(a, 0);
}

/* --- Memory that runs out --------------------------------------------------------------------------------------------- */

static int append_links(void *arg)
{
	struct lf_fence *const *f = arg;
	struct lf_fence *one = UNTOUCHED, *two = UNTOUCHED;
	int error = lf_chain_append(GET(f[0]), GET(f[1]), 1, 0, &one);

	if (error) {
		assert_ptr_equal(one, UNTOUCHED);
		lf_fence_put(f[0]);
		lf_fence_put(f[1]);
		return error;
	}
	error = lf_chain_append(one, GET(f[1]), 2, 0, &two);
	if (error) {
		assert_ptr_equal(two, UNTOUCHED);
		expect_pending(one);
		lf_fence_put(f[1]);
		lf_fence_put(one);
		return error;
	}
	lf_fence_put(two);
	return 0;
}

static void append_survives_each_failure_and_references_stay_the_callers(void **state)
{
	struct lf_fence *f[2] = { plain(), plain() };

	assert_true(alloc_fail_each(append_links, f) >= 2);
	lf_fence_put(f[0]);
	lf_fence_put(f[1]);
}

static int prepare_link(void *arg)
{
	struct lf_chain_room *room = (void *)UNTOUCHED;
	int error = lf_chain_prepare(&room);

	if (error) {
		assert_ptr_equal(room, UNTOUCHED);
		return error;
	}
	lf_fence_put(lf_chain_commit(room, NULL, GET(arg), 1, 0));
	return 0;
}

static void prepare_survives_each_failure(void **state)
{
	struct lf_fence *a = plain();

	assert_true(alloc_fail_each(prepare_link, a) >= 1);
	lf_fence_put(a);
}

/* An append that failed for want of memory was none: the next one is no fork. */
static void append_that_failed_makes_no_fork_of_the_next(void **state)
{
	struct lf_fence *a = plain(), *one = append(NULL, GET(a), 1), *two;

	alloc_fail_all(true);
	assert_int_equal(lf_chain_append(one, a, 2, 0, &two), -ENOMEM);
	alloc_fail_all(false);
	two = append(GET(one), GET(a), 2);
	assert_true(lf_fence_is_later(two, one));
	done_put(a, 0);
	lf_fence_put(one);
	lf_fence_put(two);
}

static void completing_and_putting_need_no_memory(void **state)
{
	struct lf_fence *f[4] = { plain(), plain(), plain(), plain() }, *link = NULL, *abandoned = append(NULL, GET(f[3]), 1);

	for (unsigned i = 0; i < 3; i++)
		link = append(link, GET(f[i]), i + 1);
	long calls = alloc_calls();
	alloc_fail_all(true);
	for (unsigned i = 3; i-- > 0;)
		done(f[i], -EIO);
	assert_int_equal(lf_fence_status(link), -EIO);
	lf_fence_put(link);
	lf_fence_put(abandoned);
	for (unsigned i = 0; i < 4; i++)
		lf_fence_put(f[i]);
	assert_int_equal(alloc_calls(), calls);
	alloc_fail_all(false);
}

/* --- Teardown in every state ------------------------------------------------------------------------------------------ */

/* Three links; each subset of the fences signaled; put from the beginning or from the end, links or fences first. */
static void teardown_in_every_state(void **state)
{
	for (unsigned bits = 0; bits < 8 * 2 * 2; bits++) {
		struct lf_fence *f[3], *link[3];

		for (unsigned i = 0; i < 3; i++) {
			f[i] = plain();
			link[i] = append(i ? GET(link[i - 1]) : NULL, GET(f[i]), i + 1);
		}
		for (unsigned i = 3; i-- > 0;)
			if (bits & 1u << i)
				done(f[i], 0);
		for (unsigned half = 0; half < 2; half++)
			for (unsigned i = 0; i < 3; i++)
				lf_fence_put((bits >> 4 & 1) == half ? link[bits & 8 ? i : 2 - i] : f[i]);
	}
}

/* --- The strict mode -------------------------------------------------------------------------------------------------- */

static void validator_warns_of_chains_that_are_joined(void **state)
{
	struct lf_fence *a = plain(), *array = ALL(GET(a)), *link = append(NULL, GET(a), 1);
	struct lf_chain_room *room;

	lf_fence_put(join(NULL, GET(link), 5));
	assert_int_equal(log_count(LF_LOG_WARNING), 0);
	assert_int_equal(lf_validate(LF_VALIDATE_NESTING), 0);
	/* a link after a link is what a chain is, and an array in a link is one point of it */
	lf_fence_put(append(GET(link), GET(a), 2));
	lf_fence_put(append(NULL, GET(array), 1));
	assert_int_equal(log_count(LF_LOG_WARNING), 0);
	lf_fence_put(join(NULL, GET(link), 5));
	assert_true(log_count(LF_LOG_WARNING) >= 1);
	log_reset();
	assert_int_equal(lf_chain_prepare(&room), 0);
	assert_int_equal(log_count(LF_LOG_WARNING), 0);
	lf_fence_put(lf_chain_commit(room, GET(link), GET(link), 5, LF_CHAIN_JOIN));
	assert_true(log_count(LF_LOG_WARNING) >= 1);
	log_reset();
	assert_int_equal(lf_validate(0), 0);
	lf_fence_put(join(NULL, GET(link), 5));
	assert_int_equal(log_count(LF_LOG_WARNING), 0);
	lf_fence_put(array);
	lf_fence_put(link);
	lf_fence_put(a);
}

static void what_is_missing_is_reported(void **state)
{
	struct lf_fence *f;

	(void)state;
	assert_int_equal(lf_fence_create(&f), 0);
	assert_int_equal(lf_chain_append(NULL, f, 1, 0, NULL), -EINVAL);
	assert_int_equal(lf_chain_prepare(NULL), -EINVAL);
	assert_null(lf_chain_commit(NULL, NULL, f, 1, 0));
	assert_int_equal(lf_chain_find_seqno(f, 1, NULL), -EINVAL);
	assert_int_equal(log_count(LF_LOG_MISUSE), 4);
	lf_chain_cancel(NULL);
	log_reset();
	lf_fence_put(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(link_is_signaled_when_its_fence_and_all_before_are),
		TEST_WARM(links_are_signaled_in_order_whatever_the_order_of_their_fences),
		TEST_WARM(link_is_a_chain_and_nothing_else_is),
		TEST_WARM(links_share_an_ordered_context_of_their_own),
		TEST_WARM(point_that_is_reached_now_stands_on_the_stub),
		TEST_WARM(error_is_the_first_along_the_chain_and_stays_with_all_later_links),
		TEST_WARM(earlier_link_that_fails_after_a_later_one_failed_has_the_first_error),
		TEST_WARM(timestamp_is_the_latest_up_to_the_link),
		TEST_WARM(append_refuses_what_is_wrong_and_takes_nothing),
		TEST_WARM(points_may_have_gaps_and_reach_the_last_seqno),
		TEST_WARM(chain_may_begin_after_any_other_fence),
		TEST_WARM(seqno_of_a_timeline_does_not_bind_a_chain_that_begins_after_it),
		TEST_WARM(same_fence_may_stand_in_several_links_and_before_them),
		TEST_WARM(find_gives_the_first_link_that_is_not_below),
		TEST_WARM(find_of_a_reached_point_is_signaled_whoever_holds_its_link),
		TEST_WARM(find_refuses_what_is_no_link),
		TEST_WARM(find_behind_a_fence_that_is_no_link),
		TEST_WARM(find_is_right_at_every_place),
		TEST_WARM(find_in_a_chain_of_a_million_pending_links),
		TEST_WARM(find_in_a_chain_that_moves_on),
		TEST_WARM(finding_allocates_nothing),
		TEST_WARM(find_inside_a_read_section),
		TEST_WARM(second_successor_is_a_fork_with_a_context_of_its_own),
		TEST_WARM(error_of_the_trunk_comes_to_both_branches),
		TEST_WARM(find_in_a_random_tree_of_forks),
		TEST_WARM(chains_are_joined_only_when_asked_for),
		TEST_WARM(array_that_holds_links_is_no_join),
		TEST_WARM(link_may_be_joined_to_itself_as_its_predecessor),
		TEST_WARM(callbacks_of_links_run_once_when_all_before_is_signaled),
		TEST_WARM(links_over_a_timeline_are_signaled_together),
		TEST_WARM(late_duplicate_and_removed_callbacks_of_a_link),
		TEST_WARM(waits_for_a_link_end_with_its_signal),
		TEST_WARM(making_links_enables_nobody_and_interest_enables_all_up_to_it_once),
		TEST_WARM(check_and_deadline_go_to_the_pending_fences_of_a_chain),
		TEST_WARM(link_cannot_be_signaled_by_hand),
		TEST_WARM(commit_allocates_nothing_and_makes_the_same),
		TEST_WARM(commit_that_is_refused_leaves_room_and_references_to_the_caller),
		TEST_WARM(cancelled_room_is_given_back),
		TEST_WARM(link_may_be_appended_to_inside_its_callback),
		TEST_WARM(callbacks_may_put_the_last_references_of_a_chain),
		TEST_WARM(link_lets_go_of_its_fence_and_of_the_link_before_as_those_are_signaled),
		TEST_WARM(chain_that_nobody_looks_at_holds_what_is_pending_and_no_more),
		TEST_WARM(chain_whose_fences_complete_backwards_lets_go_of_them_all),
		TEST_WARM(pending_chain_that_is_put_leaves_nothing_behind),
		TEST_WARM(chain_outlives_the_producers_of_its_fences),
		TEST_WARM(pending_link_with_callbacks_that_is_put_is_misuse_and_completes),
		TEST_WARM(append_survives_each_failure_and_references_stay_the_callers),
		TEST_WARM(prepare_survives_each_failure),
		TEST_WARM(append_that_failed_makes_no_fork_of_the_next),
		TEST_WARM(completing_and_putting_need_no_memory),
		TEST_WARM(teardown_in_every_state),
		TEST_WARM(validator_warns_of_chains_that_are_joined),
		TEST(what_is_missing_is_reported),
	};
	return TEST_MAIN(tests);
}
