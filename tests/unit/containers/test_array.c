/* SPDX-License-Identifier: MIT */
/* Arrays: one fence for a set of fences. */
#include "containers.h"

enum { WRONG_FLAGS = 0x40 };

/* --- It works at all -------------------------------------------------------------------------------------------------- */

static void all_array_is_signaled_with_its_last_member(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain();
	struct lf_fence *array = ALL(GET(a), GET(b), GET(c));

	expect_pending(array);
	done(b, 0);
	expect_pending(array);
	done(a, 0);
	expect_pending(array);
	clock_set(777);
	done(c, 0);
	assert_true(lf_fence_is_signaled(array));
	assert_true(lf_fence_is_drained(array));
	assert_int_equal(lf_fence_status(array), 1);
	lf_fence_put(array);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
}

static void any_array_is_signaled_with_its_first_member(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain();
	struct lf_fence *array = ANY(GET(a), GET(b), GET(c));

	expect_pending(array);
	done_at(b, 0, 55);
	expect_signaled(array, 1, 55);
	assert_true(lf_fence_is_drained(array));
	done_at(a, -EIO, 66);
	done_at(c, -EPERM, 5);
	expect_signaled(array, 1, 55);
	lf_fence_put(array);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
}

static void array_of_one_is_signaled_with_it(void **state)
{
	for (unsigned flags = LF_ARRAY_ALL; flags <= LF_ARRAY_ANY; flags++) {
		struct lf_fence *a = plain(), *array = make_array(flags, FENCES(GET(a)), 1);

		expect_pending(array);
		done_at(a, -EIO, 9);
		expect_signaled(array, -EIO, 9);
		lf_fence_put(a);
		lf_fence_put(array);
	}
}

static void array_of_nothing_is_signaled_at_once(void **state)
{
	struct lf_fence *array = NULL;

	assert_int_equal(lf_array_create(NULL, 0, LF_ARRAY_ALL, &array), 0);
	expect_signaled(array, 1, 0);
	assert_true(lf_fence_is_drained(array));
	assert_true(lf_fence_is_array(array));
	NO_LEAVES(array);
	lf_fence_put(array);
}

static void array_is_an_array_and_nothing_else_is(void **state)
{
	struct lf_fence *a = plain(), *array = ALL(GET(a)), *any = ANY(GET(a)), *link = append(NULL, GET(a), 1);
	struct lf_fence *stub = lf_fence_stub();
	struct lf_fence *yes[] = { array, any };
	struct lf_fence *no[] = { a, link, stub };

	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < 2; i++)
			assert_true(lf_fence_is_array(yes[i]) && lf_fence_is_container(yes[i]) && !lf_fence_is_chain(yes[i]));
		for (size_t i = 0; i < 3; i++)
			assert_false(lf_fence_is_array(no[i]));
		/* and it stays one */
		if (pass == 0)
			done(a, 0);
	}
	lf_fence_put(a);
	lf_fence_put(array);
	lf_fence_put(any);
	lf_fence_put(link);
	lf_fence_put(stub);
}

static void array_is_on_no_timeline(void **state)
{
	struct producer p;
	char text[200];

	producer_init(&p, LF_TIMELINE_ORDERED);
	struct lf_fence *early = ALL(emit(p.tl)), *late = ALL(emit(p.tl));
	for (int pass = 0; pass < 2; pass++) {
		assert_true(lf_fence_context(early) == 0);
		assert_true(lf_fence_seqno(early) == 0);
		assert_false(lf_fence_is_ordered(early));
		assert_false(lf_fence_is_later(late, early));
		assert_false(lf_fence_is_later(early, late));
		assert_int_equal(lf_fence_name(early, text, sizeof(text)), 5);
		assert_string_equal(text, "array");
		assert_true(lf_fence_describe(early, text, sizeof(text)) > 0);
		assert_non_null(strstr(text, "array"));
		if (pass == 0)
			assert_int_equal(lf_timeline_signal_to(p.tl, 2, 0), 2);
	}
	lf_fence_put(early);
	lf_fence_put(late);
	producer_fini(&p, 2);
}

/* --- Status and timestamp --------------------------------------------------------------------------------------------- */

static void error_is_that_of_the_member_that_failed_first_in_time(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *c = plain(), *d = plain();
	struct lf_fence *array = ALL(GET(a), GET(b), GET(c), GET(d));

	done(d, 0);
	done(c, -EIO);
	done(a, -EPERM);
	expect_pending(array);
	done(b, -ENOSPC);
	assert_int_equal(lf_fence_status(array), -EIO);
	lf_fence_put(array);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(c);
	lf_fence_put(d);
}

static void error_of_the_last_member_counts_too(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *array = ALL(GET(a), GET(b));

	done(a, 0);
	done(b, -LF_MAX_ERROR);
	assert_int_equal(lf_fence_status(array), -LF_MAX_ERROR);
	lf_fence_put(array);
	lf_fence_put(a);
	lf_fence_put(b);
}

static void of_members_that_had_failed_before_the_first_in_order_counts(void **state)
{
	struct lf_fence *late = signaled(-EPERM, 300), *early = signaled(-EIO, 100), *pending = plain();
	struct lf_fence *array = ALL(signaled(0, 5), GET(pending), GET(late), GET(early));

	expect_pending(array);
	done_at(pending, -ENOSPC, 200);
	expect_signaled(array, -EPERM, 300);
	lf_fence_put(array);
	array = ALL(GET(early), GET(late), GET(pending));
	expect_signaled(array, -EIO, 300);
	lf_fence_put(array);
	lf_fence_put(late);
	lf_fence_put(early);
	lf_fence_put(pending);
}

static void timestamp_is_the_latest_of_the_members_whichever_came_last(void **state)
{
	static const int64_t times[][3] = { { 1, 2, 3 }, { 3, 2, 1 }, { 2, 3, 1 }, { 7, 7, 7 } };

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		struct lf_fence *f[3] = { plain(), plain(), plain() }, *array = ALL(GET(f[0]), GET(f[1]), GET(f[2]));

		for (size_t k = 0; k < 3; k++)
			done_at(f[k], 0, times[i][k]);
		expect_signaled(array, 1, times[i][0] == 7 ? 7 : 3);
		lf_fence_put(array);
		for (size_t k = 0; k < 3; k++)
			lf_fence_put(f[k]);
	}
}

static void array_of_signaled_members_is_born_signaled(void **state)
{
	struct lf_fence *array = ALL(signaled(0, 10), lf_fence_stub(), signaled(0, 30), signaled(0, 20));

	expect_signaled(array, 1, 30);
	assert_true(lf_fence_is_drained(array));
	NO_LEAVES(array);
	lf_fence_put(array);
	array = ALL(lf_fence_stub());
	expect_signaled(array, 1, 0);
	lf_fence_put(array);
}

static void any_array_of_which_one_is_signaled_is_born_with_its_result(void **state)
{
	struct lf_fence *slow = plain();
	struct lf_fence *array = ANY(GET(slow), signaled(-EIO, 40), signaled(0, 30));

	/* of several that were signaled already the first in order, as with errors */
	expect_signaled(array, -EIO, 40);
	assert_true(lf_fence_is_drained(array));
	lf_fence_put(array);
	array = ANY(GET(slow), signaled(0, 30), signaled(-EIO, 20));
	expect_signaled(array, 1, 30);
	lf_fence_put(array);
	lf_fence_put(slow);
}

static void any_array_takes_the_error_of_the_member_that_signaled_it(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *array = ANY(GET(a), GET(b));

	done_at(b, -ECONNRESET, 8);
	expect_signaled(array, -ECONNRESET, 8);
	done_at(a, 0, 1);
	expect_signaled(array, -ECONNRESET, 8);
	lf_fence_put(array);
	lf_fence_put(a);
	lf_fence_put(b);
}

static void result_of_a_dropped_timeline_and_of_a_closed_provider_comes_through(void **state)
{
	struct lf_provider *provider;
	struct producer dropped, closed;

	assert_int_equal(lf_provider_create("driver", &provider), 0);
	producer_init(&dropped, LF_TIMELINE_ORDERED);
	memset(&closed, 0, sizeof(closed));
	assert_int_equal(producer_create(&closed, "tl", LF_TIMELINE_UNORDERED, provider), 0);
	struct lf_fence *array = ALL(emit(dropped.tl)), *both = ALL(GET(array), emit(closed.tl));
	producer_fini(&dropped, 1);
	assert_int_equal(lf_fence_status(array), -ECANCELED);
	expect_pending(both);
	assert_int_equal(lf_provider_close(provider, LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_fence_status(both), -ECANCELED);
	lf_fence_put(array);
	lf_fence_put(both);
	producer_fini(&closed, 1);
	lf_provider_put(provider);
}

/* --- The same fence several times ------------------------------------------------------------------------------------- */

static void same_fence_may_occur_several_times(void **state)
{
	for (unsigned flags = LF_ARRAY_ALL; flags <= LF_ARRAY_ANY; flags++) {
		struct lf_fence *a = plain(), *b = plain();
		struct lf_fence *array = make_array(flags, FENCES(GET(a), GET(b), GET(a), GET(a)), 4);

		LEAVES(array, a, b);
		done_at(a, 0, 3);
		assert_int_equal(lf_fence_is_signaled(array), flags == LF_ARRAY_ANY);
		done_at(b, 0, 2);
		expect_signaled(array, 1, 3);
		lf_fence_put(array);
		lf_fence_put(a);
		lf_fence_put(b);
	}
}

static void array_of_one_fence_ten_thousand_times_takes_so_many_references(void **state)
{
	enum { N = 10000 };
	static struct lf_fence *members[N];
	struct lf_fence *a = plain();
	long before = live();

	for (size_t i = 0; i < N; i++)
		members[i] = GET(a);
	struct lf_fence *array = make_array(LF_ARRAY_ALL, members, N);
	done(a, 0);
	assert_int_equal(lf_fence_status(array), 1);
	lf_fence_put(array);
	assert_int_equal(live(), before);
	/* ours is the last one */
	lf_fence_put(a);
	assert_int_equal(live(), before - 1);
}

/* --- Callbacks and waits ---------------------------------------------------------------------------------------------- */

static void callbacks_of_an_array_run_once_when_it_is_signaled(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *array = ALL(GET(a), GET(b));
	struct noted_cb first, second, removed, late;

	noted_add(&first, array);
	noted_add(&second, array);
	noted_add(&removed, array);
	assert_int_equal(lf_fence_add_callback(array, &first.cb, noted_run), -EALREADY);
	expect_misuse(1);
	assert_int_equal(lf_fence_remove_callback(array, &removed.cb), LF_CB_REMOVED);
	done_at(a, -EIO, 6);
	assert_int_equal(first.ran, 0);
	done_at(b, 0, 4);
	assert_int_equal(first.ran, 1);
	assert_int_equal(first.status, -EIO);
	assert_int_equal(first.timestamp, 6);
	assert_int_equal(second.ran, 1);
	assert_int_equal(removed.ran, 0);
	memset(&late, 0, sizeof(late));
	assert_int_equal(lf_fence_add_callback(array, &late.cb, noted_run), -ENOENT);
	assert_int_equal(lf_fence_cancel_callback_sync(array, &first.cb), LF_CB_RAN);
	lf_fence_put(array);
	lf_fence_put(a);
	lf_fence_put(b);
	assert_int_equal(late.ran, 0);
}

struct looking_cb {
	struct lf_fence_cb cb;
	struct lf_fence *other;
	unsigned ran;
	int status; /* of the other, inside the callback */
};

static void look_at_other(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct looking_cb *l = (struct looking_cb *)(void *)cb;

	l->status = lf_fence_status(l->other);
	l->ran++;
}

/* What the library hangs on a fence is told before users are, whoever was first. */
static void callback_of_a_member_finds_the_array_signaled(void **state)
{
	struct lf_fence *a = plain();
	struct looking_cb before = { .ran = 0 }, after = { .ran = 0 };

	assert_int_equal(lf_fence_add_callback(a, &before.cb, look_at_other), 0);
	struct lf_fence *array = ALL(GET(a)), *outer = ALL(GET(array));
	assert_int_equal(lf_fence_add_callback(a, &after.cb, look_at_other), 0);
	before.other = array;
	after.other = outer;
	done(a, -EIO);
	assert_int_equal(before.ran, 1);
	assert_int_equal(before.status, -EIO);
	assert_int_equal(after.status, -EIO);
	lf_fence_put(outer);
	lf_fence_put(array);
	lf_fence_put(a);
}

struct signalling_cb {
	struct lf_fence_cb cb;
	struct lf_fence *victim, *array;
	const struct noted_cb *noted; /* a callback of the array */
	bool signaled_at_once, ran_at_once;
};

static void signal_victim(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct signalling_cb *s = (struct signalling_cb *)(void *)cb;

	must(lf_fence_signal(s->victim, -EIO));
	s->signaled_at_once = lf_fence_is_signaled(s->array);
	s->ran_at_once = s->noted->ran != 0;
}

static void member_signaled_inside_a_callback_signals_the_array_at_once_and_its_callbacks_afterwards(void **state)
{
	struct lf_fence *trigger = plain(), *member = plain(), *array = ALL(GET(member));
	struct noted_cb noted;
	struct signalling_cb s = { .victim = member, .array = array, .noted = &noted };

	noted_add(&noted, array);
	assert_int_equal(lf_fence_add_callback(trigger, &s.cb, signal_victim), 0);
	done(trigger, 0);
	assert_true(s.signaled_at_once);
	assert_false(s.ran_at_once);
	assert_int_equal(noted.ran, 1);
	assert_int_equal(noted.status, -EIO);
	lf_fence_put(trigger);
	lf_fence_put(member);
	lf_fence_put(array);
}

struct waiting_thread {
	struct lf_fence *f;
	int result, drained_result, status;
};

static void *wait_for_it(void *arg)
{
	struct waiting_thread *w = arg;

	w->result = lf_fence_wait(w->f, LF_DEADLINE_NEVER);
	w->status = lf_fence_status(w->f);
	w->drained_result = lf_fence_wait_drained(w->f, LF_DEADLINE_NEVER);
	return NULL;
}

static void waits_for_an_array_end_with_its_signal(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *array = ALL(GET(a), GET(b)), *any = ANY(GET(a), GET(b));
	struct waiting_thread all_waiter = { .f = array }, any_waiter = { .f = any };

	assert_int_equal(lf_fence_wait(array, 0), -ETIME);
	assert_int_equal(lf_fence_wait_drained(array, 0), -ETIME);
	pthread_t one = thread_start(wait_for_it, &all_waiter, 0), two = thread_start(wait_for_it, &any_waiter, 0);
	done(a, -EIO);
	thread_join(two);
	assert_int_equal(any_waiter.result, 0);
	assert_int_equal(any_waiter.status, -EIO);
	done(b, 0);
	thread_join(one);
	assert_int_equal(all_waiter.result, 0);
	assert_int_equal(all_waiter.drained_result, 0);
	assert_int_equal(all_waiter.status, -EIO);
	lf_fence_put(array);
	lf_fence_put(any);
	lf_fence_put(a);
	lf_fence_put(b);
}

static void wait_for_many_takes_arrays_and_their_members(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *array = ALL(GET(a), GET(b)), *any = ANY(GET(a), GET(b));
	struct lf_fence *fences[] = { array, b, any, a };
	struct lf_wait_slot slots[4];
	struct lf_wait_many wait = { .fences = fences, .slots = slots, .count = 4, .need = 2, .deadline = 0 };
	size_t first = 99;

	assert_int_equal(lf_fence_wait_many(&wait, &first), -ETIME);
	done(a, 0);
	assert_int_equal(lf_fence_wait_many(&wait, &first), 0);
	assert_int_equal(first, 2);
	wait.need = 3;
	assert_int_equal(lf_fence_wait_many(&wait, &first), -ETIME);
	done(b, 0);
	wait.need = 4;
	assert_int_equal(lf_fence_wait_many(&wait, &first), 0);
	assert_int_equal(first, 0);
	lf_fence_put(array);
	lf_fence_put(any);
	lf_fence_put(a);
	lf_fence_put(b);
}

/* --- Arming ----------------------------------------------------------------------------------------------------------- */

static void enable_by_callback(struct lf_fence *f)
{
	struct noted_cb cb;

	noted_add(&cb, f);
	assert_int_equal(lf_fence_remove_callback(f, &cb.cb), LF_CB_REMOVED);
}

static void enable_by_wait(struct lf_fence *f)
{
	assert_int_equal(lf_fence_wait(f, 0), -ETIME);
}

static void enable_by_wait_many(struct lf_fence *f)
{
	struct lf_wait_slot slot;
	const struct lf_wait_many wait = { .fences = &f, .slots = &slot, .count = 1, .need = 1, .deadline = 0 };

	assert_int_equal(lf_fence_wait_many(&wait, NULL), -ETIME);
}

static void (*const enablers[])(struct lf_fence *f) = { enable_by_callback, enable_by_wait, enable_by_wait_many };

static void making_an_array_enables_nobody_and_interest_enables_each_once(void **state)
{
	for (size_t e = 0; e < sizeof(enablers) / sizeof(enablers[0]); e++) {
		for (unsigned flags = LF_ARRAY_ALL; flags <= LF_ARRAY_ANY; flags++) {
			struct producer p, q;
			struct lf_fence_slot slot = { { 0 } };
			char text[200];

			producer_init(&p, LF_TIMELINE_UNORDERED);
			producer_init(&q, LF_TIMELINE_ORDERED);
			struct lf_fence *f = emit(p.tl), *g = emit(q.tl);
			struct lf_fence *array = make_array(flags, FENCES(GET(f), GET(g), GET(f)), 3);
			/* what only looks, arms nobody */
			expect_pending(array);
			lf_fence_describe(array, text, sizeof(text));
			lf_fence_name(array, text, sizeof(text));
			lf_fence_slot_set(&slot, array);
			lf_fence_slot_set(&slot, NULL);
			LEAVES(array, f, g);
			assert_int_equal(p.enables + q.enables, 0);
			for (int again = 0; again < 2; again++)
				for (size_t other = 0; other < sizeof(enablers) / sizeof(enablers[0]); other++)
					enablers[(e + other) % (sizeof(enablers) / sizeof(enablers[0]))](array);
			assert_int_equal(p.enables, 1);
			assert_int_equal(q.enables, 1);
			assert_int_equal(p.late + q.late, 0);
			lf_timeline_signal_to(p.tl, 1, 0);
			lf_timeline_signal_to(q.tl, 1, 0);
			assert_int_equal(lf_fence_status(array), 1);
			assert_int_equal(p.enables + q.enables, 2);
			lf_fence_put(array);
			lf_fence_put(f);
			lf_fence_put(g);
			producer_fini(&p, 1);
			producer_fini(&q, 1);
		}
	}
}

static void interest_goes_through_any_nesting_and_meets_each_leaf_once(void **state)
{
	for (size_t e = 0; e < sizeof(enablers) / sizeof(enablers[0]); e++) {
		struct producer p;

		producer_init(&p, LF_TIMELINE_UNORDERED);
		struct lf_fence *f = emit(p.tl), *g = emit(p.tl), *h = emit(p.tl), *i = emit(p.tl);
		struct lf_fence *inner = ALL(GET(f), GET(g)), *any = ANY(GET(inner), GET(h));
		struct lf_fence *link = append(append(NULL, GET(any), 1), GET(i), 2);
		struct lf_fence *outer = ALL(GET(link), GET(inner), GET(f));
		assert_int_equal(p.enables, 0);
		/* a part first: it is not armed again with the whole */
		enablers[e](inner);
		assert_int_equal(p.enables, 2);
		enablers[e](outer);
		assert_int_equal(p.enables, 4);
		enablers[e](any);
		enablers[e](link);
		assert_int_equal(p.enables, 4);
		assert_int_equal(p.late, 0);
		assert_int_equal(lf_timeline_signal_to(p.tl, 4, 0), 4);
		assert_int_equal(lf_fence_status(outer), 1);
		lf_fence_put(outer);
		lf_fence_put(link);
		lf_fence_put(any);
		lf_fence_put(inner);
		lf_fence_put(f);
		lf_fence_put(g);
		lf_fence_put(h);
		lf_fence_put(i);
		producer_fini(&p, 4);
	}
}

static void members_that_are_signaled_are_not_armed(void **state)
{
	struct producer p;

	producer_init(&p, LF_TIMELINE_UNORDERED);
	struct lf_fence *f = emit(p.tl), *g = emit(p.tl), *array = ALL(GET(f), GET(g));
	assert_true(lf_timeline_signal_one(p.tl, f, 0));
	enable_by_callback(array);
	assert_int_equal(p.enables, 1);
	assert_int_equal(p.late, 0);
	lf_fence_put(array);
	lf_fence_put(f);
	lf_fence_put(g);
	producer_fini(&p, 2);
}

/* The producer may find while it arms that the fence is done. */
static void enable_hook_that_completes_its_fence_completes_the_array(void **state)
{
	static const int answers[] = { 1, -EIO };

	for (size_t i = 0; i < 2; i++) {
		struct producer p;
		struct noted_cb cb;
		int added;

		producer_init(&p, LF_TIMELINE_UNORDERED);
		p.enable_result = answers[i];
		struct lf_fence *array = ALL(emit(p.tl), emit(p.tl));
		memset(&cb, 0, sizeof(cb));
		added = lf_fence_add_callback(array, &cb.cb, noted_run);
		assert_true(added == 0 || added == -ENOENT);
		assert_int_equal(cb.ran, added == 0 ? 1 : 0);
		assert_int_equal(lf_fence_status(array), answers[i]);
		assert_int_equal(p.enables, 2);
		lf_fence_put(array);
		array = ANY(emit(p.tl), emit(p.tl));
		assert_int_equal(lf_fence_wait(array, LF_DEADLINE_NEVER), 0);
		assert_int_equal(lf_fence_status(array), answers[i]);
		lf_fence_put(array);
		assert_true(p.enables >= 3);
		producer_fini(&p, 4);
	}
}

/* The other part of the graph, and how waiting for it in the hook of a leaf ended. */
struct part {
	struct lf_fence *f;
	int result;
};

static void wait_for_part(struct producer *p, struct lf_fence *f, enum hook hook)
{
	struct part *part = p->user;

	if (hook == HOOK_ENABLE)
		part->result = lf_fence_wait(part->f, lf_now() + 10 * INT64_C(1000000000));
}

static void enable_hook_may_wait_for_another_part_of_its_own_graph(void **state)
{
	struct producer waits, answers;
	struct lf_fence *a, *b, *inner, *outer;
	struct part part = { .result = -1 };

	(void)state;
	producer_init(&waits, 0);
	producer_init(&answers, 0);
	a = emit(waits.tl);
	b = emit(answers.tl);
	answers.enable_result = 1; /* done, once somebody asks */
	waits.enable_result = 1;
	waits.during = wait_for_part;
	waits.user = &part;
	inner = ALL(ALL(GET(b)));
	outer = ALL(GET(inner), GET(a)); /* comes to a before it has opened the inner one */
	part.f = inner;
	assert_int_equal(lf_fence_wait(outer, LF_DEADLINE_NEVER), 0);
	assert_int_equal(part.result, 0);
	assert_int_equal(count_get(&waits.enables), 1);
	assert_int_equal(count_get(&answers.enables), 1);
	lf_fence_put(outer);
	lf_fence_put(inner);
	lf_fence_put(a);
	lf_fence_put(b);
	producer_fini(&waits, 1);
	producer_fini(&answers, 1);
}

static void arming_allocates_nothing(void **state)
{
	struct producer p;
	struct noted_cb cb;

	producer_init(&p, LF_TIMELINE_UNORDERED);
	struct lf_fence *array = ALL(emit(p.tl), emit(p.tl));
	for (int i = 0; i < 100; i++)
		array = i % 2 ? ALL(GET(array), array, emit(p.tl)) : append(emit(p.tl), array, 1);
	long calls = alloc_calls();
	alloc_fail_all(true);
	noted_add(&cb, array);
	alloc_fail_all(false);
	assert_int_equal(alloc_calls(), calls);
	assert_int_equal(p.enables, 102);
	assert_int_equal(lf_timeline_signal_to(p.tl, UINT64_MAX, 0), 102);
	assert_int_equal(cb.ran, 1);
	lf_fence_put(array);
	producer_fini(&p, 102);
}

/* A hook may do all that a callback may: here it takes the array apart while that is being armed. */
static void put_array_of_user(struct producer *p, struct lf_fence *f, enum hook hook)
{
	if (hook != HOOK_ENABLE || !p->user)
		return;
	lf_fence_put(p->user);
	p->user = NULL;
	lf_timeline_signal_to(p->tl, UINT64_MAX, -EIO);
}

static void enable_hook_may_signal_all_members_and_put_a_reference(void **state)
{
	struct producer p;

	producer_init(&p, LF_TIMELINE_UNORDERED);
	struct lf_fence *array = ALL(emit(p.tl), emit(p.tl), emit(p.tl)), *outer = ALL(GET(array));
	p.during = put_array_of_user;
	p.user = array;
	assert_int_equal(lf_fence_wait(outer, 0), 0);
	assert_int_equal(lf_fence_status(outer), -EIO);
	assert_null(p.user);
	lf_fence_put(outer);
	producer_fini(&p, 3);
}

/* --- Asking and hinting ----------------------------------------------------------------------------------------------- */

static void check_asks_each_leaf_once(void **state)
{
	struct producer p;

	producer_init(&p, LF_TIMELINE_UNORDERED);
	struct lf_fence *f = emit(p.tl), *g = emit(p.tl);
	struct lf_fence *array = ALL(GET(f), ANY(GET(g), GET(f)), ALL(GET(f)));
	assert_int_equal(lf_fence_check(array), 0);
	assert_int_equal(p.polls, 2);
	assert_int_equal(p.enables, 0);
	p.poll_result = -EIO;
	assert_int_equal(lf_fence_check(array), -EIO);
	expect_signaled(array, -EIO, lf_fence_timestamp(array));
	assert_true(lf_fence_is_signaled(f));
	unsigned polls = p.polls;
	assert_int_equal(lf_fence_check(array), -EIO);
	assert_int_equal(p.polls, polls);
	lf_fence_put(array);
	lf_fence_put(f);
	lf_fence_put(g);
	producer_fini(&p, 2);
}

static void check_runs_the_callbacks_of_what_it_finds_done(void **state)
{
	struct producer p;
	struct noted_cb cb;

	producer_init(&p, LF_TIMELINE_ORDERED);
	struct lf_fence *array = ALL(emit(p.tl), emit(p.tl));
	noted_add(&cb, array);
	p.poll_result = 1;
	assert_int_equal(lf_fence_check(array), 1);
	assert_int_equal(cb.ran, 1);
	lf_fence_put(array);
	producer_fini(&p, 2);
}

static void deadline_is_handed_to_pending_leaves(void **state)
{
	struct producer p, q;

	producer_init(&p, LF_TIMELINE_UNORDERED);
	producer_init(&q, LF_TIMELINE_UNORDERED);
	struct lf_fence *f = emit(p.tl), *g = emit(q.tl);
	struct lf_fence *array = ALL(ALL(GET(f)), GET(g), GET(g));
	lf_fence_set_deadline(array, 4711);
	assert_int_equal(p.hints, 1);
	assert_int_equal(p.hint, 4711);
	assert_int_equal(q.hints, 1);
	assert_int_equal(q.hint, 4711);
	assert_true(lf_timeline_signal_one(p.tl, f, 0));
	lf_fence_set_deadline(array, 42);
	assert_int_equal(p.hints, 1);
	assert_int_equal(q.hints, 2);
	assert_int_equal(q.hint, 42);
	assert_true(lf_timeline_signal_one(q.tl, g, 0));
	lf_fence_set_deadline(array, 43);
	assert_int_equal(q.hints, 2);
	assert_int_equal(p.enables + q.enables, 0);
	lf_fence_put(array);
	lf_fence_put(f);
	lf_fence_put(g);
	producer_fini(&p, 1);
	producer_fini(&q, 1);
}

static void without_memory_nobody_is_asked_and_the_hint_is_lost(void **state)
{
	struct producer p;

	producer_init(&p, LF_TIMELINE_UNORDERED);
	p.poll_result = 1;
	/* of a size that no buffer on the stack is made for */
	struct lf_fence *members[1000];
	for (size_t i = 0; i < 1000; i++)
		members[i] = emit(p.tl);
	struct lf_fence *array = make_array(LF_ARRAY_ALL, members, 1000);
	alloc_fail_all(true);
	assert_int_equal(lf_fence_check(array), 0);
	lf_fence_set_deadline(array, 1);
	alloc_fail_all(false);
	assert_int_equal(p.polls + p.hints, 0);
	expect_pending(array);
	assert_int_equal(lf_fence_check(array), 1);
	lf_fence_put(array);
	producer_fini(&p, 1000);
}

/* --- Misuse ----------------------------------------------------------------------------------------------------------- */

static void array_cannot_be_signaled_by_hand(void **state)
{
	struct lf_fence *a = plain(), *array = ALL(GET(a)), *any = ANY(GET(a));

	assert_false(lf_fence_signal(array, 0));
	assert_false(lf_fence_signal_at(array, -EIO, 5));
	assert_false(lf_fence_signal(any, -EIO));
	expect_misuse(3);
	expect_pending(array);
	expect_pending(any);
	done_at(a, 0, 12);
	expect_signaled(array, 1, 12);
	assert_false(lf_fence_signal(array, -EIO));
	log_reset();
	expect_signaled(array, 1, 12);
	lf_fence_put(a);
	lf_fence_put(array);
	lf_fence_put(any);
}

static void array_cannot_be_emitted_or_signaled_by_a_timeline(void **state)
{
	struct producer p;
	struct lf_fence *a = plain(), *array = ALL(GET(a));

	producer_init(&p, LF_TIMELINE_UNORDERED);
	assert_int_equal(lf_timeline_emit_fence(p.tl, 0, array), -EINVAL);
	assert_false(lf_timeline_signal_one(p.tl, array, 0));
	expect_misuse(2);
	expect_pending(array);
	done_put(a, 0);
	lf_fence_put(array);
	producer_fini(&p, 0);
}

/* The result pointer of a call that failed. */
#define UNTOUCHED ((struct lf_fence *)(void *)&untouched)
static int untouched;

static void create_refuses_what_is_wrong_and_takes_nothing(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *array = UNTOUCHED;
	long before = live();

	assert_int_equal(lf_array_create(FENCES(a, NULL, b), 3, LF_ARRAY_ALL, &array), -EINVAL);
	assert_int_equal(lf_array_create(FENCES(a, b, NULL), 3, LF_ARRAY_ANY, &array), -EINVAL);
	assert_int_equal(lf_array_create(FENCES(a, b), 2, WRONG_FLAGS, &array), -EINVAL);
	assert_int_equal(lf_array_create(FENCES(a, b), 2, LF_ARRAY_ANY | 2, &array), -EINVAL);
	assert_int_equal(lf_array_create(FENCES(a), 0, LF_ARRAY_ANY, &array), -EINVAL);
	expect_misuse(5);
	assert_ptr_equal(array, UNTOUCHED);
	assert_int_equal(live(), before);
	/* nothing hangs on them, and the references are ours: these are the last */
	done(a, 0);
	lf_fence_put(a);
	lf_fence_put(b);
	assert_int_equal(live(), before - 2);
}

/* --- Prepare, commit, cancel ------------------------------------------------------------------------------------------ */

static void commit_allocates_nothing_and_makes_the_same(void **state)
{
	for (unsigned flags = LF_ARRAY_ALL; flags <= LF_ARRAY_ANY; flags++) {
		struct lf_array_room *room = NULL;
		struct lf_fence *a = plain(), *b = plain();

		assert_int_equal(lf_array_prepare(2, &room), 0);
		assert_non_null(room);
		long calls = alloc_calls();
		alloc_fail_all(true);
		struct lf_fence *array = lf_array_commit(room, FENCES(GET(a), GET(b)), 2, flags);
		alloc_fail_all(false);
		assert_int_equal(alloc_calls(), calls);
		assert_non_null(array);
		assert_true(lf_fence_is_array(array));
		expect_pending(array);
		LEAVES(array, a, b);
		done_at(b, -EIO, 70);
		assert_int_equal(lf_fence_is_signaled(array), flags == LF_ARRAY_ANY);
		done_at(a, 0, 60);
		expect_signaled(array, -EIO, 70);
		lf_fence_put(array);
		lf_fence_put(a);
		lf_fence_put(b);
	}
}

static void room_serves_for_fewer_members_too(void **state)
{
	struct lf_array_room *room;
	struct lf_fence *a = plain();

	assert_int_equal(lf_array_prepare(50, &room), 0);
	struct lf_fence *array = lf_array_commit(room, FENCES(GET(a)), 1, LF_ARRAY_ALL);
	assert_non_null(array);
	LEAVES(array, a);
	done_put(a, 0);
	assert_int_equal(lf_fence_status(array), 1);
	lf_fence_put(array);
	for (size_t size = 0; size < 3; size++) {
		assert_int_equal(lf_array_prepare(size, &room), 0);
		array = lf_array_commit(room, NULL, 0, LF_ARRAY_ALL);
		assert_non_null(array);
		expect_signaled(array, 1, 0);
		lf_fence_put(array);
	}
}

static void commit_that_is_refused_leaves_room_and_members_to_the_caller(void **state)
{
	struct lf_array_room *room;
	struct lf_fence *a = plain(), *b = plain();

	assert_int_equal(lf_array_prepare(2, &room), 0);
	assert_null(lf_array_commit(room, FENCES(a, b, a), 3, LF_ARRAY_ALL));
	assert_null(lf_array_commit(room, FENCES(a, NULL), 2, LF_ARRAY_ALL));
	assert_null(lf_array_commit(room, FENCES(a, b), 2, WRONG_FLAGS));
	assert_null(lf_array_commit(room, FENCES(a), 0, LF_ARRAY_ANY));
	expect_misuse(4);
	/* still good for what fits */
	struct lf_fence *array = lf_array_commit(room, FENCES(a, b), 2, LF_ARRAY_ALL);
	assert_non_null(array);
	LEAVES(array, a, b);
	lf_fence_put(array);
}

static void cancelled_room_is_given_back(void **state)
{
	struct lf_array_room *room;
	long before = live();

	lf_array_cancel(NULL);
	for (size_t size = 0; size < 20; size++) {
		assert_int_equal(lf_array_prepare(size, &room), 0);
		lf_array_cancel(room);
	}
	assert_int_equal(live(), before);
}

static void room_for_too_many_is_refused(void **state)
{
	if (sizeof(size_t) > 4) {
		struct lf_array_room *room = (void *)UNTOUCHED;

		assert_int_equal(lf_array_prepare((size_t)UINT32_MAX + 1, &room), -EINVAL);
		assert_int_equal(lf_array_prepare(SIZE_MAX, &room), -EINVAL);
		expect_misuse(2);
		assert_ptr_equal(room, UNTOUCHED);
	}
}

/* --- Re-entrant ------------------------------------------------------------------------------------------------------- */

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

static void callback_of_an_array_may_put_its_last_reference(void **state)
{
	struct lf_fence *a = plain(), *array = ALL(GET(a));
	struct putting_cb cb = { .put = { array, a } };

	assert_int_equal(lf_fence_add_callback(array, &cb.cb, put_them), 0);
	assert_true(lf_fence_signal(a, 0));
}

static void callback_of_a_member_may_put_the_last_references_of_all_that_stands_on_it(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *pending = ALL(GET(a), GET(b)), *any = ANY(GET(a), GET(b));
	struct putting_cb cb = { .put = { pending, any, a } };

	assert_int_equal(lf_fence_add_callback(a, &cb.cb, put_them), 0);
	assert_true(lf_fence_signal(a, -EIO));
	/* nothing is left on the other member: as the last put of a pending fence without callbacks this is legal */
	lf_fence_put(b);
}

struct building_cb {
	struct lf_fence_cb cb;
	struct lf_fence *pending, *built, *any;
};

static void build_on_it(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct building_cb *b = (struct building_cb *)(void *)cb;

	must(lf_array_create(FENCES(GET(f), GET(b->pending)), 2, LF_ARRAY_ALL, &b->built) == 0);
	must(lf_array_create(FENCES(GET(b->pending), GET(f)), 2, LF_ARRAY_ANY, &b->any) == 0);
	must(lf_fence_status(b->any) == -EIO);
}

static void array_may_be_built_of_a_fence_inside_its_callback(void **state)
{
	struct lf_fence *a = plain();
	struct building_cb cb = { .pending = plain() };

	assert_int_equal(lf_fence_add_callback(a, &cb.cb, build_on_it), 0);
	done_put(a, -EIO);
	expect_pending(cb.built);
	done_put(cb.pending, -EPERM);
	assert_int_equal(lf_fence_status(cb.built), -EIO);
	lf_fence_put(cb.built);
	lf_fence_put(cb.any);
}

struct waiting_cb {
	struct lf_fence_cb cb;
	struct lf_fence *array;
	int pending_result, drained_result;
};

static void wait_inside(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct waiting_cb *w = (struct waiting_cb *)(void *)cb;

	w->pending_result = lf_fence_wait(w->array, LF_DEADLINE_NEVER);
	w->drained_result = lf_fence_wait_drained(w->array, LF_DEADLINE_NEVER);
}

static void wait_for_an_array_inside_a_callback_or_a_read_section_is_refused(void **state)
{
	struct lf_fence *trigger = plain(), *a = plain(), *array = ALL(GET(a));
	struct waiting_cb cb = { .array = array };

	assert_int_equal(lf_fence_add_callback(trigger, &cb.cb, wait_inside), 0);
	done_put(trigger, 0);
	assert_int_equal(cb.pending_result, -EDEADLK);
	assert_int_equal(cb.drained_result, -EDEADLK);
	lf_read_lock();
	assert_int_equal(lf_fence_wait(array, LF_DEADLINE_NEVER), -EDEADLK);
	lf_read_unlock();
	expect_misuse(3);
	done_put(a, 0);
	/* signaled it is no wait */
	lf_read_lock();
	assert_int_equal(lf_fence_wait(array, LF_DEADLINE_NEVER), 0);
	lf_read_unlock();
	lf_fence_put(array);
}

/* --- Memory ----------------------------------------------------------------------------------------------------------- */

static void member_is_let_go_the_moment_it_is_signaled(void **state)
{
	enum { N = 20 };
	struct producer p;
	struct lf_fence *members[N + 1], *last = plain();

	producer_init(&p, LF_TIMELINE_ORDERED);
	for (size_t i = 0; i < N; i++)
		members[i] = emit(p.tl);
	members[N] = GET(last);
	struct lf_fence *array = make_array(LF_ARRAY_ALL, members, N + 1);
	long before = live();
	for (long i = 1; i <= N; i++) {
		/* nobody looks at the array */
		assert_int_equal(lf_timeline_signal_to(p.tl, (uint64_t)i, 0), 1);
		assert_int_equal(live(), before - i);
	}
	expect_pending(array);
	done_put(last, 0);
	assert_int_equal(lf_fence_status(array), 1);
	assert_true(live() <= before - N - 1);
	lf_fence_put(array);
	producer_fini(&p, N);
}

static void members_that_were_signaled_before_are_let_go_at_once(void **state)
{
	struct lf_fence *pending = plain();
	long before = live();
	struct lf_fence *array = ALL(signaled(0, 1), GET(pending), signaled(-EIO, 2), ALL(signaled(0, 3)));
	long with = live();
	struct lf_fence *bare = ALL(GET(pending), GET(pending), GET(pending), GET(pending));

	/* as many blocks as an array of the same size without them needs */
	assert_int_equal(live() - with, with - before);
	LEAVES(array, pending);
	done_put(pending, 0);
	assert_int_equal(lf_fence_status(array), -EIO);
	lf_fence_put(array);
	lf_fence_put(bare);
}

static void any_array_leaves_nothing_on_its_slow_members_once_signaled(void **state)
{
	struct lf_fence *slow = plain(), *quick = plain();
	struct lf_fence *array = ANY(GET(slow), GET(quick), GET(slow));

	done_put(quick, 0);
	long before = live();
	/* the array is held, and the last reference on its slow member is ours: no callback is reported to be left on it */
	lf_fence_put(slow);
	assert_int_equal(live(), before - 1);
	assert_int_equal(lf_fence_status(array), 1);
	lf_fence_put(array);
}

static void any_arrays_over_a_slow_fence_need_constant_memory(void **state)
{
	enum { N = 100000, INTERVAL = 10000 };
	long rounds = test_rounds(N);
	struct lf_fence *slow = plain();
	long first = 0;

	for (long i = 0; i < rounds; i++) {
		struct lf_fence *quick = plain(), *array = ANY(GET(slow), GET(quick));

		if (i % 3 == 0)
			array = ANY(array, GET(slow));
		if (i % 5 != 4)
			done(quick, 0);
		assert_int_equal(lf_fence_is_signaled(array), i % 5 != 4);
		lf_fence_put(quick);
		lf_fence_put(array);
		if (i == rounds / 100)
			first = live();
		else if (i % INTERVAL == INTERVAL - 1)
			assert_true(live() <= first);
	}
	assert_true(live() <= first);
	done_put(slow, 0);
}

/*
 * They all wait on one list, and leave it from its beginning, from its end, and all over the place, while others come. If each had to
 * be looked for, this would take hours.
 */
static void any_arrays_leave_a_fence_that_many_wait_for_in_any_order(void **state)
{
	long n = test_rounds(test_is_sanitized() ? 20000 : 200000);
	struct lf_fence *slow = plain(), **quick = malloc((size_t)n * sizeof(*quick)), **array = malloc((size_t)n * sizeof(*array));

	assert_non_null(quick);
	assert_non_null(array);
	test_watchdog(60, "any arrays leave a fence");
	for (long order = 0; order < 3; order++) {
		long before = live();

		for (long i = 0; i < n; i++) {
			quick[i] = plain();
			array[i] = ANY(GET(slow), GET(quick[i]));
		}
		for (long i = 0; i < n; i++) {
			/* 7919 is a prime, and the numbers are not multiples of it */
			long at = order == 0 ? i : order == 1 ? n - 1 - i : i * 7919 % n;
			struct lf_fence *meanwhile = ANY(GET(slow), GET(slow));

			/* by its other member, or by being put */
			if (i % 2)
				done(quick[at], 0);
			lf_fence_put(array[at]);
			lf_fence_put(quick[at]);
			lf_fence_put(meanwhile);
		}
		assert_int_equal(live(), before);
	}
	test_watchdog(0, "");
	done_put(slow, 0);
	free(quick);
	free(array);
}

static void pending_array_that_is_put_leaves_nothing_behind(void **state)
{
	for (unsigned flags = LF_ARRAY_ALL; flags <= LF_ARRAY_ANY; flags++) {
		struct lf_fence *slow = plain(), *done_one = plain();
		long before = live();
		struct lf_fence *array = make_array(flags, FENCES(GET(slow), GET(slow), plain(), ALL(GET(slow), plain())), 4);

		lf_fence_put(array);
		assert_int_equal(live(), before);
		array = ALL(GET(slow), GET(done_one));
		done_put(done_one, 0);
		lf_fence_put(array);
		assert_int_equal(live(), before - 1);
		/* nothing hangs on it any more */
		lf_fence_put(slow);
		assert_int_equal(live(), before - 2);
	}
}

static void pending_array_with_callbacks_that_is_put_is_misuse_and_completes(void **state)
{
	struct lf_fence *a = plain(), *array = ALL(GET(a)), *outer = ALL(GET(array));
	struct noted_cb cb;

	/* the outer one is the last owner: its own node on the array is no callback of a user */
	lf_fence_put(array);
	lf_fence_put(outer);
	assert_int_equal(log_count(LF_LOG_MISUSE), 0);
	array = ALL(GET(a));
	noted_add(&cb, array);
	lf_fence_put(array);
	expect_misuse(1);
	assert_int_equal(cb.ran, 1);
	assert_int_equal(cb.status, -EDEADLK);
	done(a, 0);
	lf_fence_put(a);
}

static void published_array_stays_the_same_live_object_to_the_end_of_a_read_section(void **state)
{
	struct lf_fence *a = plain(), *array = ALL(GET(a));
	struct lf_fence_slot slot = { { 0 } };

	lf_fence_slot_set(&slot, array);
	done(a, -EIO);
	lf_fence_put(array);
	lf_read_lock();
	array = lf_fence_slot_look(&slot);
	lf_fence_slot_set(&slot, NULL);
	assert_true(lf_fence_is_array(array));
	assert_int_equal(lf_fence_status(array), -EIO);
	lf_read_unlock();
	/* and a pending one, which readers find canceled once nobody is left who could tell */
	struct lf_fence *b = plain(), *pending = ALL(GET(b));
	lf_fence_slot_set(&slot, pending);
	lf_fence_put(pending);
	lf_read_lock();
	pending = lf_fence_slot_look(&slot);
	lf_fence_slot_set(&slot, NULL);
	assert_int_equal(lf_fence_status(pending), -ECANCELED);
	lf_read_unlock();
	done_put(b, 0);
	lf_fence_put(a);
}

static void array_outlives_its_members_producers(void **state)
{
	struct producer p;
	char text[200];

	producer_init(&p, LF_TIMELINE_ORDERED);
	struct lf_fence *array = ALL(emit(p.tl), ANY(emit(p.tl), emit(p.tl)));
	producer_fini(&p, 3);
	memset(&p, 0xdd, sizeof(p));
	assert_int_equal(lf_fence_check(array), -ECANCELED);
	lf_fence_set_deadline(array, 1);
	assert_true(lf_fence_describe(array, text, sizeof(text)) > 0);
	assert_int_equal(lf_fence_wait(array, 0), 0);
	NO_LEAVES(array);
	lf_fence_put(array);
}

static void forgotten_containers_are_listed_like_any_fence(void **state)
{
	/* the leaf too, which they hold; made before the list is begun it is not known to it */
	struct lf_fence *a = plain();

	assert_int_equal(lf_track(LF_TRACK_OBJECTS), 0);
	struct lf_fence *array = ALL(GET(a)), *link = append(NULL, GET(array), 1), *gone = ANY(GET(a));
	lf_fence_put(gone);
	log_reset();
	assert_int_equal(lf_fini(), 2);
	assert_int_equal(log_count(LF_LOG_INFO), 2);
	assert_true(log_contains("array") && log_contains("chain"));
	assert_int_equal(lf_track(0), 0);
	/* they live on */
	done_put(a, 0);
	assert_int_equal(lf_fence_status(link), 1);
	lf_fence_put(array);
	lf_fence_put(link);
	fresh_library();
}

/* --- Memory that runs out --------------------------------------------------------------------------------------------- */

static int create_array(void *arg)
{
	struct lf_fence *const *members = arg;
	struct lf_fence *array = UNTOUCHED, *any = UNTOUCHED;

	/* given again by each success, and ours again by each failure */
	for (size_t i = 0; i < 3; i++)
		GET(members[i]);
	int error = lf_array_create(members, 3, LF_ARRAY_ALL, &array);
	if (error) {
		assert_ptr_equal(array, UNTOUCHED);
		for (size_t i = 0; i < 3; i++)
			lf_fence_put(members[i]);
		return error;
	}
	error = lf_array_create(FENCES(array, GET(members[0])), 2, LF_ARRAY_ANY, &any);
	if (error) {
		assert_ptr_equal(any, UNTOUCHED);
		expect_pending(array);
		lf_fence_put(array);
		lf_fence_put(members[0]);
		return error;
	}
	expect_pending(any);
	lf_fence_put(any);
	return 0;
}

static void create_survives_each_failure_and_references_stay_the_callers(void **state)
{
	struct lf_fence *members[3] = { plain(), plain(), signaled(0, 4) };

	assert_true(alloc_fail_each(create_array, members) >= 2);
	lf_fence_put(members[0]);
	done_put(members[1], 0);
	lf_fence_put(members[2]);
}

static int prepare_array(void *arg)
{
	struct lf_array_room *room = (void *)UNTOUCHED;
	struct lf_fence *const *members = arg;
	int error = lf_array_prepare(3, &room);

	if (error) {
		assert_ptr_equal(room, UNTOUCHED);
		return error;
	}
	lf_fence_put(lf_array_commit(room, FENCES(GET(members[0]), GET(members[1])), 2, LF_ARRAY_ALL));
	return 0;
}

static void prepare_survives_each_failure(void **state)
{
	struct lf_fence *members[2] = { plain(), plain() };

	assert_true(alloc_fail_each(prepare_array, members) >= 1);
	lf_fence_put(members[0]);
	lf_fence_put(members[1]);
}

static void completing_and_putting_need_no_memory(void **state)
{
	struct lf_fence *a = plain(), *b = plain(), *slow = plain();
	struct lf_fence *all = ALL(GET(a), ALL(GET(b), GET(a))), *any = ANY(GET(slow), GET(b));
	struct lf_fence *abandoned = ALL(GET(slow), ANY(GET(slow)));
	struct noted_cb cb;

	long calls = alloc_calls();
	alloc_fail_all(true);
	noted_add(&cb, all);
	done(a, 0);
	done(b, -EIO);
	assert_int_equal(cb.status, -EIO);
	assert_int_equal(lf_fence_status(any), -EIO);
	lf_fence_put(all);
	lf_fence_put(any);
	lf_fence_put(abandoned);
	lf_fence_put(a);
	lf_fence_put(b);
	lf_fence_put(slow);
	assert_int_equal(alloc_calls(), calls);
	alloc_fail_all(false);
}

/* --- Teardown in every state ------------------------------------------------------------------------------------------ */

/* Members: how many of three are signaled before the array is made, how many after; then it is put before or after the rest. */
static void teardown_in_every_state(void **state)
{
	for (unsigned bits = 0; bits < 2 * 2 * 2 * 4 * 4; bits++) {
		unsigned flags = bits & 1, order = bits >> 1 & 1, watched = bits >> 2 & 1, before = bits >> 3 & 3, after = bits >> 5 & 3;
		struct lf_fence *f[3] = { plain(), plain(), plain() }, *array;
		struct noted_cb cb = { .ran = 0 };
		bool added;

		for (unsigned i = 0; i < before; i++)
			done(f[i], 0);
		array = make_array(flags, FENCES(GET(f[0]), GET(f[1]), GET(f[2])), 3);
		added = watched && lf_fence_add_callback(array, &cb.cb, noted_run) == 0;
		for (unsigned i = before; i < before + after && i < 3; i++)
			done(f[i], 0);
		assert_int_equal(lf_fence_is_signaled(array), before + after >= (flags == LF_ARRAY_ANY ? 1 : 3));
		if (added && !lf_fence_is_signaled(array))
			assert_int_equal(lf_fence_cancel_callback_sync(array, &cb.cb), LF_CB_REMOVED);
		else
			assert_int_equal(cb.ran, added ? 1 : 0);
		if (order)
			lf_fence_put(array);
		for (unsigned i = 0; i < 3; i++)
			lf_fence_put(f[i]);
		if (!order)
			lf_fence_put(array);
	}
}

/* --- The strict mode -------------------------------------------------------------------------------------------------- */

static void validator_warns_of_containers_in_arrays(void **state)
{
	struct lf_fence *a = plain(), *array = ALL(GET(a)), *link = append(NULL, GET(a), 1), *made;
	struct lf_array_room *room;

	lf_fence_put(ALL(GET(array)));
	assert_int_equal(log_count(LF_LOG_WARNING), 0);
	assert_int_equal(lf_validate(~0u), -EINVAL);
	log_reset();
	assert_int_equal(lf_validate(LF_VALIDATE_NESTING), 0);
	lf_fence_put(ALL(GET(a), GET(a)));
	lf_fence_put(ANY(GET(a)));
	assert_int_equal(log_count(LF_LOG_WARNING), 0);
	/* reported, and goes on as usual */
	made = ALL(GET(a), GET(array));
	LEAVES(made, a);
	lf_fence_put(made);
	assert_true(log_count(LF_LOG_WARNING) >= 1);
	log_reset();
	lf_fence_put(ANY(GET(link)));
	assert_true(log_count(LF_LOG_WARNING) >= 1);
	log_reset();
	assert_int_equal(lf_array_prepare(1, &room), 0);
	assert_int_equal(log_count(LF_LOG_WARNING), 0);
	lf_fence_put(lf_array_commit(room, FENCES(GET(array)), 1, LF_ARRAY_ALL));
	assert_true(log_count(LF_LOG_WARNING) >= 1);
	log_reset();
	assert_int_equal(lf_validate(0), 0);
	lf_fence_put(ALL(GET(array)));
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
	assert_int_equal(lf_array_create(&f, 1, LF_ARRAY_ALL, NULL), -EINVAL);
	assert_int_equal(lf_array_prepare(1, NULL), -EINVAL);
	assert_int_equal(log_count(LF_LOG_MISUSE), 2);
	lf_array_cancel(NULL);
	log_reset();
	lf_fence_put(f);
}

static void a_member_that_is_let_go_with_a_callback_on_it_completes_and_the_callback_runs_last(void **state)
{
	struct noted_cb on_member, on_array;
	struct lf_fence *f[2], *array;

	(void)state;
	assert_int_equal(lf_fence_create(&f[0]), 0);
	assert_int_equal(lf_fence_create(&f[1]), 0);
	lf_fence_get(f[0]);
	assert_int_equal(lf_array_create(f, 2, LF_ARRAY_ANY, &array), 0); /* has the only reference on the second */
	noted_add(&on_member, f[1]);
	noted_add(&on_array, array);
	assert_true(lf_fence_signal(f[0], 0)); /* the array completes, and lets the other go */
	assert_true(log_contains("was put with callbacks on it; it completes with -EDEADLK"));
	assert_int_equal(log_count(LF_LOG_MISUSE), 1);
	log_reset();
	assert_int_equal(on_array.ran, 1);
	assert_int_equal(on_member.ran, 1);
	assert_int_equal(on_member.status, -EDEADLK);
	lf_fence_put(array);
	lf_fence_put(f[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(all_array_is_signaled_with_its_last_member),
		TEST_WARM(any_array_is_signaled_with_its_first_member),
		TEST_WARM(array_of_one_is_signaled_with_it),
		TEST_WARM(array_of_nothing_is_signaled_at_once),
		TEST_WARM(array_is_an_array_and_nothing_else_is),
		TEST_WARM(array_is_on_no_timeline),
		TEST_WARM(error_is_that_of_the_member_that_failed_first_in_time),
		TEST_WARM(error_of_the_last_member_counts_too),
		TEST_WARM(of_members_that_had_failed_before_the_first_in_order_counts),
		TEST_WARM(timestamp_is_the_latest_of_the_members_whichever_came_last),
		TEST_WARM(array_of_signaled_members_is_born_signaled),
		TEST_WARM(any_array_of_which_one_is_signaled_is_born_with_its_result),
		TEST_WARM(any_array_takes_the_error_of_the_member_that_signaled_it),
		TEST_WARM(result_of_a_dropped_timeline_and_of_a_closed_provider_comes_through),
		TEST_WARM(same_fence_may_occur_several_times),
		TEST_WARM(array_of_one_fence_ten_thousand_times_takes_so_many_references),
		TEST_WARM(callbacks_of_an_array_run_once_when_it_is_signaled),
		TEST_WARM(callback_of_a_member_finds_the_array_signaled),
		TEST_WARM(member_signaled_inside_a_callback_signals_the_array_at_once_and_its_callbacks_afterwards),
		TEST_WARM(waits_for_an_array_end_with_its_signal),
		TEST_WARM(wait_for_many_takes_arrays_and_their_members),
		TEST_WARM(making_an_array_enables_nobody_and_interest_enables_each_once),
		TEST_WARM(interest_goes_through_any_nesting_and_meets_each_leaf_once),
		TEST_WARM(members_that_are_signaled_are_not_armed),
		TEST_WARM(enable_hook_that_completes_its_fence_completes_the_array),
		TEST_WARM(enable_hook_may_wait_for_another_part_of_its_own_graph),
		TEST_WARM(arming_allocates_nothing),
		TEST_WARM(enable_hook_may_signal_all_members_and_put_a_reference),
		TEST_WARM(check_asks_each_leaf_once),
		TEST_WARM(check_runs_the_callbacks_of_what_it_finds_done),
		TEST_WARM(deadline_is_handed_to_pending_leaves),
		TEST_WARM(without_memory_nobody_is_asked_and_the_hint_is_lost),
		TEST_WARM(array_cannot_be_signaled_by_hand),
		TEST_WARM(array_cannot_be_emitted_or_signaled_by_a_timeline),
		TEST_WARM(create_refuses_what_is_wrong_and_takes_nothing),
		TEST_WARM(commit_allocates_nothing_and_makes_the_same),
		TEST_WARM(room_serves_for_fewer_members_too),
		TEST_WARM(commit_that_is_refused_leaves_room_and_members_to_the_caller),
		TEST_WARM(cancelled_room_is_given_back),
		TEST_WARM(room_for_too_many_is_refused),
		TEST_WARM(callback_of_an_array_may_put_its_last_reference),
		TEST_WARM(callback_of_a_member_may_put_the_last_references_of_all_that_stands_on_it),
		TEST_WARM(array_may_be_built_of_a_fence_inside_its_callback),
		TEST_WARM(wait_for_an_array_inside_a_callback_or_a_read_section_is_refused),
		TEST_WARM(member_is_let_go_the_moment_it_is_signaled),
		TEST_WARM(members_that_were_signaled_before_are_let_go_at_once),
		TEST_WARM(any_array_leaves_nothing_on_its_slow_members_once_signaled),
		TEST_WARM(any_arrays_over_a_slow_fence_need_constant_memory),
		TEST_WARM(any_arrays_leave_a_fence_that_many_wait_for_in_any_order),
		TEST_WARM(pending_array_that_is_put_leaves_nothing_behind),
		TEST_WARM(pending_array_with_callbacks_that_is_put_is_misuse_and_completes),
		TEST_WARM(published_array_stays_the_same_live_object_to_the_end_of_a_read_section),
		TEST_WARM(array_outlives_its_members_producers),
		TEST_FRESH(forgotten_containers_are_listed_like_any_fence),
		TEST_WARM(create_survives_each_failure_and_references_stay_the_callers),
		TEST_WARM(prepare_survives_each_failure),
		TEST_WARM(completing_and_putting_need_no_memory),
		TEST_WARM(teardown_in_every_state),
		TEST_WARM(validator_warns_of_containers_in_arrays),
		TEST(what_is_missing_is_reported),
		TEST(a_member_that_is_let_go_with_a_callback_on_it_completes_and_the_callback_runs_last),
	};
	return TEST_MAIN(tests);
}
