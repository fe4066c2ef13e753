/* SPDX-License-Identifier: MIT */
/*
 * Buffers: made, moved, gutted and put, in every context; when their backings are released, and where; reservations of their own and
 * shared; providers. The oracle of releases is in buffers.h.
 */
#include "buffers.h"

/* --- Sanity ----------------------------------------------------------------------------------------------------------- */

static void a_buffer_is_where_it_was_made_until_it_is_put(void **state)
{
	unsigned ended = 0;
	struct memory m = { 0 };
	struct buffer *b;
	b = buffer_from((struct lf_bo_desc){ .size = 12345, .name = "b" }, &m);
	b->ended = &ended;
	b->last = &m;
	assert_int_equal(b->bo.size, 12345);
	assert_non_null(b->bo.resv);
	assert_ptr_equal(lf_bo_memory(&b->bo), &m);
	assert_false(lf_bo_is_revoked(&b->bo));
	assert_ptr_equal(lf_bo_get(&b->bo), &b->bo);
	end(b);
	expect_there(&m);
	end(b);
	expect_released(&m);
	assert_int_equal(ended, 1);
}

static void a_buffer_may_be_nowhere_and_have_no_hooks(void **state)
{
	struct lf_bo *bo = lf_alloc(sizeof(*bo));
	struct lf_bo_desc desc = { .size = 1 };
	assert_non_null(bo);
	assert_int_equal(lf_bo_init(bo, &desc), 0);
	assert_null(lf_bo_memory(bo));
	assert_int_equal(lf_resv_lock(bo->resv, NULL), 0);
	assert_int_equal(lf_bo_prepare_move(bo), 0);
	lf_bo_move(bo, &(struct lf_backing){ .memory = &desc }, NULL);
	assert_ptr_equal(lf_bo_memory(bo), &desc);
	lf_resv_unlock(bo->resv);
	lf_bo_put(bo);
}

static void null_is_put_and_got(void **state)
{
	assert_null(lf_bo_get(NULL));
	assert_null(lf_bo_tryget(NULL));
	lf_bo_put(NULL);
}

static void wrong_descriptions_are_refused(void **state)
{
	struct lf_resv embedded;
	struct lf_provider *provider;
	struct lf_bo *bo = lf_alloc(sizeof(*bo));
	assert_non_null(bo);
	lf_resv_init(&embedded, NULL);
	assert_int_equal(lf_provider_create("p", &provider), 0);
	const struct lf_bo_desc wrong[] = {
		{ .size = 0 },
		{ .size = 1, .offset = 4 },
#if SIZE_MAX > UINT32_MAX
		{ .size = 1, .offset = (size_t)UINT32_MAX + 1 },
#endif
		{ .size = 1, .resv = &embedded },
		{ .size = 1, .provider = provider },
	};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(lf_bo_init(bo, &wrong[i]), -EINVAL);
		expect_misuse(1);
	}
	assert_int_equal(lf_bo_init(NULL, &wrong[0]), -EINVAL);
	assert_int_equal(lf_bo_init(bo, NULL), -EINVAL);
	expect_misuse(2);
	lf_free(bo);
	lf_provider_put(provider);
	lf_resv_fini(&embedded);
}

static int make_one(void *arg)
{
	struct memory *m = arg;
	struct buffer *b;
	int error;
	memset(m, 0, sizeof(*m));
	error = buffer_create((struct lf_bo_desc){ .name = "one" }, m, &b);
	if (error) {
		must(m->released == 0); /* the caller's still */
		return error;
	}
	put(b);
	return 0;
}

static void without_memory_no_buffer_is_made(void **state)
{
	struct memory m;
	assert_int_equal(alloc_fail_each(make_one, &m), 4);
}

/* --- Moving ----------------------------------------------------------------------------------------------------------- */

static void what_was_left_idle_is_released_but_not_inside_the_call(void **state)
{
	struct memory m[2] = { 0 };
	struct buffer *b = buffer_new(&m[0]);
	move(b, &m[1], NULL);
	settle();
	expect_released(&m[0]);
	expect_there(&m[1]);
	end(b);
	expect_released(&m[1]);
}

static void what_was_left_waits_for_all_that_was_there_and_for_the_move(void **state)
{
	struct memory m[2] = { 0 };
	struct buffer *b = buffer_new(&m[0]);
	struct lf_fence *before[4], *arrived = new_fence();
	for (int u = 0; u < 4; u++) {
		before[u] = new_fence();
		add_fence(b->bo.resv, before[u], (enum lf_usage)u);
	}
	move(b, &m[1], arrived);
	assert_false(lf_resv_test_signaled(b->bo.resv, LF_USAGE_KERNEL));
	lf_fence_signal(arrived, 0);
	for (int u = 0; u < 4; u++) {
		settle();
		expect_there(&m[0]);
		lf_fence_signal(before[u], 0);
	}
	expect_released(&m[0]); /* here, by the last signal */
	assert_true(pthread_equal(m[0].thread, pthread_self()));
	for (int u = 0; u < 4; u++)
		lf_fence_put(before[u]);
	lf_fence_put(arrived);
	end(b);
	expect_released(&m[1]);
}

static void the_fence_of_the_move_alone_keeps_what_was_left(void **state)
{
	struct memory m[2] = { 0 };
	struct buffer *b = buffer_new(&m[0]);
	struct lf_fence *arrived = new_fence(), *found = NULL;
	move(b, &m[1], arrived);
	settle();
	expect_there(&m[0]);
	assert_int_equal(lf_resv_get_singleton(b->bo.resv, LF_USAGE_KERNEL, &found), 0);
	assert_ptr_equal(found, arrived);
	lf_fence_put(found);
	lf_fence_signal(arrived, 0);
	expect_released(&m[0]);
	lf_fence_put(arrived);
	end(b);
}

static void what_comes_after_the_move_does_not_keep_what_was_left(void **state)
{
	struct memory m[2] = { 0 };
	struct buffer *b = buffer_new(&m[0]);
	struct lf_fence *arrived = new_fence(), *later = new_fence();
	move(b, &m[1], arrived);
	add_fence(b->bo.resv, later, LF_USAGE_WRITE);
	lf_fence_signal(arrived, -EIO); /* also one that failed */
	expect_released(&m[0]);
	end(b);
	expect_there(&m[1]);
	lf_fence_signal(later, 0);
	expect_released(&m[1]);
	lf_fence_put(arrived);
	lf_fence_put(later);
}

static void gutted_and_brought_back(void **state)
{
	struct memory m[2] = { 0 };
	struct lf_fence *gone = new_fence();
	struct buffer *b = buffer_new(&m[0]);
	move(b, NULL, gone);
	assert_null(lf_bo_memory(&b->bo));
	settle();
	expect_there(&m[0]);
	move(b, &m[1], NULL);
	move(b, NULL, NULL);
	lf_fence_signal(gone, 0);
	settle();
	expect_released(&m[0]);
	expect_released(&m[1]);
	lf_fence_put(gone);
	end(b);
}

/* A thousand moves, a job on each place, and nothing signaled until all of them are made. */
enum { MOVES = 1000 };

static long moves; /* fewer where each step takes long */

static struct {
	struct memory m[MOVES + 1];
	struct lf_fence *jobs[MOVES + 1], *moves[MOVES + 1]; /* jobs[i] works on m[i], moves[i] brought the buffer there */
	long through; /* both of all below are known to be signaled */
} many;

/* Whether everything is signaled that was there when place @i was left. */
static bool many_may_go(long i)
{
	while (many.through <= i && lf_fence_is_signaled(many.jobs[many.through]) && lf_fence_is_signaled(many.moves[many.through]))
		many.through++;
	return many.through > i && (i == moves || lf_fence_is_signaled(many.moves[i + 1]));
}

static void many_released(struct memory *m)
{
	if (!many_may_go(m - many.m))
		count_up(&m->wrong);
}

static void many_begin(struct buffer **b)
{
	struct lf_fence *f;
	memset(&many, 0, sizeof(many));
	moves = test_is_sanitized() ? MOVES / 4 : MOVES;
	*b = buffer_new(&many.m[0]);
	for (long i = 0; i <= moves; i++) {
		many.m[i].during = many_released;
		many.jobs[i] = new_fence();
		many.moves[i] = new_fence();
	}
	lf_fence_signal(many.moves[0], 0);
	f = new_fence(); /* sees to it that this thread's first deferred call, and the list's block, are there */
	move(*b, &many.m[0], f);
	lf_fence_signal(f, 0);
	lf_fence_put(f);
	settle();
	memset(&many.m[0], 0, sizeof(many.m[0]));
	many.m[0].during = many_released;
}

static void many_move_all(struct buffer *b)
{
	for (long i = 0; i <= moves; i++) {
		struct lf_backing backing = backing_of(&many.m[i]);
		long calls;
		lock(b);
		if (i > 0) {
			assert_int_equal(lf_bo_prepare_move(&b->bo), 0);
			calls = alloc_calls();
			CALL(lf_bo_move(&b->bo, &backing, many.moves[i]));
			assert_int_equal(alloc_calls(), calls);
		}
		assert_int_equal(lf_resv_reserve(b->bo.resv, 1), 0);
		lf_resv_add(b->bo.resv, many.jobs[i], i % 2 ? LF_USAGE_READ : LF_USAGE_BOOKKEEP);
		unlock(b);
	}
}

/* Signals all in a random order; each place goes exactly when it may. Returns the most that went with one signal. */
static long many_signal_all(void)
{
	uint64_t random = test_seed();
	long most = 0, gone = 0;
	for (long left = 2 * (moves + 1); left > 0; left--) {
		long first = (long)(random_next(&random) % (uint64_t)(2 * (moves + 1))), k = first, went;
		struct lf_fence *f;
		do {
			f = k % 2 ? many.moves[k / 2] : many.jobs[k / 2];
			k = (k + 1) % (2 * (moves + 1));
		} while (lf_fence_is_signaled(f) && k != first);
		lf_fence_signal(f, 0);
		for (went = gone; went < moves && many_may_go(went); went++)
			assert_int_equal(count_get(&many.m[went].released), 1);
		if (went < moves)
			assert_int_equal(count_get(&many.m[went].released), 0);
		if (went - gone > most)
			most = went - gone;
		gone = went;
	}
	assert_int_equal(gone, moves);
	return most;
}

static void a_thousand_moves_in_flight_block_nobody_and_release_each_place_in_its_time(void **state)
{
	struct buffer *b;
	long most;
	many_begin(&b);
	many_move_all(b);
	settle();
	for (long i = 0; i <= moves; i++)
		expect_there(&many.m[i]);
	most = many_signal_all();
	settle();
	expect_there(&many.m[moves]);
	end(b);
	for (long i = 0; i <= moves; i++) {
		expect_released(&many.m[i]);
		lf_fence_put(many.jobs[i]);
		lf_fence_put(many.moves[i]);
	}
	test_note("%ld moves in flight; up to %ld places went with one signal", moves, most);
}

/* In order, as an engine would: then place i goes with the job on place i or the move behind it. */
static void a_thousand_moves_put_at_once_end_with_the_last_fence(void **state)
{
	unsigned ended = 0;
	struct buffer *b;
	many_begin(&b);
	b->ended = &ended;
	many_move_all(b);
	put(b); /* with all of them in flight */
	for (long i = 0; i <= moves; i++) {
		lf_fence_signal(many.moves[i], 0);
		if (i % 100 == 99 || i == moves)
			settle();
		assert_int_equal(ended, 0);
		lf_fence_signal(many.jobs[i], 0);
	}
	settle();
	assert_int_equal(ended, 1);
	for (long i = 0; i <= moves; i++) {
		expect_released(&many.m[i]);
		lf_fence_put(many.jobs[i]);
		lf_fence_put(many.moves[i]);
	}
}

/* --- Preparing -------------------------------------------------------------------------------------------------------- */

/* The list is full, so that the slot needs memory, too. */
static void without_memory_nothing_is_prepared_and_the_buffer_stays_as_it_was(void **state)
{
	struct memory m[2] = { 0 };
	struct lf_backing backing = backing_of(&m[1]);
	struct buffer *b = buffer_new(&m[0]);
	struct lf_fence *f[8];
	uint64_t generation;
	long failures = 0;
	for (int i = 0; i < 8; i++) {
		f[i] = new_fence();
		add_fence(b->bo.resv, f[i], LF_USAGE_READ);
	}
	generation = lf_resv_generation(b->bo.resv);
	lock(b);
	for (;; failures++) {
		int error;
		alloc_fail_at(failures + 1);
		error = lf_bo_prepare_move(&b->bo);
		alloc_fail_at(0);
		assert_ptr_equal(lf_bo_memory(&b->bo), &m[0]);
		assert_true(lf_resv_generation(b->bo.resv) == generation);
		if (error == 0)
			break;
		assert_int_equal(error, -ENOMEM);
		unlock(b);
		lock(b);
	}
	assert_true(failures >= 1);
	alloc_fail_all(true);
	CALL(lf_bo_move(&b->bo, &backing, f[0]));
	alloc_fail_all(false);
	unlock(b);
	assert_ptr_equal(lf_bo_memory(&b->bo), &m[1]);
	end(b);
	for (int i = 0; i < 8; i++) {
		expect_there(&m[0]);
		lf_fence_signal(f[i], 0);
		lf_fence_put(f[i]);
	}
	settle();
	expect_released(&m[0]);
	expect_released(&m[1]);
}

static int prepare_twice_and_put(void *arg)
{
	struct memory *m = arg;
	struct lf_backing backing = backing_of(&m[1]);
	struct buffer *b;
	int error;
	memset(m, 0, 2 * sizeof(*m));
	error = buffer_create((struct lf_bo_desc){ .size = 1 }, &m[0], &b);
	if (error)
		return error;
	lock(b);
	error = lf_bo_prepare_move(&b->bo);
	if (!error) {
		CALL(lf_bo_move(&b->bo, &backing, lf_fence_stub()));
		error = lf_bo_prepare_move(&b->bo); /* is never used */
	}
	unlock(b);
	put(b);
	return error;
}

static void what_was_prepared_in_vain_is_freed(void **state)
{
	struct memory m[2];
	assert_true(alloc_fail_each(prepare_twice_and_put, m) >= 7);
	expect_released(&m[0]);
	expect_released(&m[1]);
}

static void preparing_twice_prepares_one_move(void **state)
{
	struct memory m[3] = { 0 };
	struct lf_backing one = backing_of(&m[1]), two = backing_of(&m[2]);
	struct buffer *b = buffer_new(&m[0]);
	lock(b);
	assert_int_equal(lf_bo_prepare_move(&b->bo), 0);
	assert_int_equal(lf_bo_prepare_move(&b->bo), 0);
	lf_bo_move(&b->bo, &one, lf_fence_stub());
	lf_bo_move(&b->bo, &two, lf_fence_stub());
	expect_misuse(1);
	assert_ptr_equal(lf_bo_memory(&b->bo), &m[1]);
	unlock(b);
	end(b);
	expect_released(&m[0]);
	expect_released(&m[1]);
	expect_there(&m[2]); /* still the caller's */
}

static void what_was_prepared_is_kept_but_for_the_slot(void **state)
{
	struct memory m[3] = { 0 };
	struct lf_backing one = backing_of(&m[1]), two = backing_of(&m[2]);
	struct buffer *b = buffer_new(&m[0]);
	lock(b);
	assert_int_equal(lf_bo_prepare_move(&b->bo), 0);
	unlock(b);
	lock(b);
	lf_bo_move(&b->bo, &one, lf_fence_stub()); /* needs a slot */
	expect_misuse(1);
	assert_ptr_equal(lf_bo_memory(&b->bo), &m[0]);
	alloc_fail_all(true); /* the list has room */
	lf_bo_move(&b->bo, &one, NULL); /* needs none */
	alloc_fail_all(false);
	assert_ptr_equal(lf_bo_memory(&b->bo), &m[1]);
	assert_int_equal(lf_bo_prepare_move(&b->bo), 0);
	lf_bo_move(&b->bo, &two, lf_fence_stub());
	assert_ptr_equal(lf_bo_memory(&b->bo), &m[2]);
	unlock(b);
	end(b);
}

static void without_the_lock_nothing_is_moved(void **state)
{
	struct memory m[2] = { 0 };
	struct lf_backing backing = backing_of(&m[1]);
	struct buffer *b = buffer_new(&m[0]);
	assert_int_equal(lf_bo_prepare_move(&b->bo), -EINVAL);
	lock(b);
	assert_int_equal(lf_bo_prepare_move(&b->bo), 0);
	unlock(b);
	lf_bo_move(&b->bo, &backing, NULL);
	lf_bo_invalidate(&b->bo);
	expect_misuse(3);
	assert_ptr_equal(lf_bo_memory(&b->bo), &m[0]);
	assert_int_equal(lf_bo_prepare_move(NULL), -EINVAL);
	lf_bo_move(NULL, &backing, NULL);
	lf_bo_invalidate(NULL);
	expect_misuse(3);
	end(b);
	expect_released(&m[0]);
	expect_there(&m[1]);
}

static void a_lock_by_ticket_counts(void **state)
{
	struct memory m[2] = { 0 };
	struct buffer *b = buffer_new(&m[0]);
	struct lf_exec x;
	lf_exec_init(&x, NULL);
	while (lf_exec_next(&x))
		assert_int_equal(lf_exec_lock(&x, b->bo.resv, 0), 0);
	move_locked(b, &m[1], lf_fence_stub());
	put(b); /* the transaction keeps the reservation */
	lf_exec_fini(&x);
	settle();
	expect_released(&m[0]);
	expect_released(&m[1]);
}

/* --- Where hooks run -------------------------------------------------------------------------------------------------- */

/* An enable hook that signals what a ghost waits for. */
static void signal_other(struct producer *p, struct lf_fence *f, enum hook hook)
{
	if (hook == HOOK_ENABLE)
		lf_fence_signal(p->user, 0);
}

static void hooks_that_signal_inside_a_move_release_nothing_inside_it(void **state)
{
	struct memory m[3] = { 0 };
	struct lf_fence *job = new_fence(), *f;
	struct buffer *b = buffer_new(&m[0]);
	struct producer p;
	producer_init(&p, 0);
	p.during = signal_other;
	p.user = job;
	move(b, &m[1], job); /* m[0] waits for the job, armed */
	f = emit(p.tl);
	m[0].after[0] = m[1].after[0] = job;
	m[1].after[1] = f;
	move(b, &m[2], f); /* arms f, whose hook signals the job; m[0] may go, m[1] waits for f */
	assert_true(lf_fence_is_signaled(job));
	settle();
	expect_released(&m[0]);
	expect_there(&m[1]);
	assert_int_equal(lf_timeline_signal_to(p.tl, 1, 0), 1);
	expect_released(&m[1]);
	lf_fence_put(job);
	lf_fence_put(f);
	end(b);
	producer_fini(&p, 1);
}

static void a_hook_that_signals_the_move_itself_releases_nothing_inside_it(void **state)
{
	struct memory m[2] = { 0 };
	struct lf_fence *f;
	struct buffer *b = buffer_new(&m[0]);
	struct producer p;
	producer_init(&p, 0);
	p.enable_result = 1;
	f = emit(p.tl);
	move(b, &m[1], f);
	assert_int_equal(p.enables, 1);
	settle();
	expect_released(&m[0]);
	lf_fence_put(f);
	end(b);
	producer_fini(&p, 1);
}

/* Nobody is interested in the fence until the buffer dies: then its hook runs, on the reclaimer. */
static void a_dying_buffer_arms_its_fences(void **state)
{
	struct memory m = { 0 };
	struct lf_fence *f;
	struct buffer *b = buffer_new(&m);
	struct producer p;
	producer_init(&p, 0);
	p.enable_result = 1;
	f = emit(p.tl);
	add_fence(b->bo.resv, f, LF_USAGE_BOOKKEEP);
	m.after[0] = f;
	end(b);
	assert_int_equal(p.enables, 1);
	expect_released(&m);
	lf_fence_put(f);
	producer_fini(&p, 1);
}

static void make_another(struct memory *m)
{
	struct memory *other = m->user;
	struct buffer *b = buffer_new(&other[0]);
	move(b, &other[1], NULL);
	move(b, NULL, NULL);
	put(b);
}

static void a_release_hook_may_use_other_buffers(void **state)
{
	struct memory m[2] = { 0 }, other[2][2] = { 0 };
	struct lf_fence *f = new_fence();
	struct buffer *b = buffer_new(&m[0]);
	for (int i = 0; i < 2; i++) {
		m[i].during = make_another;
		m[i].user = other[i];
	}
	move(b, &m[1], f);
	put(b);
	lf_fence_signal(f, 0); /* m[0] on this thread, m[1] on the reclaimer */
	lf_fence_put(f);
	settle();
	for (int i = 0; i < 2; i++) {
		expect_released(&m[i]);
		expect_released(&other[i][0]);
		expect_released(&other[i][1]);
	}
}

/* --- Putting ---------------------------------------------------------------------------------------------------------- */

static void the_last_put_waits_for_what_is_there(void **state)
{
	struct memory m = { 0 };
	struct lf_fence *f = new_fence();
	unsigned ended = 0;
	struct buffer *b = buffer_new(&m);
	b->ended = &ended;
	b->last = &m;
	add_fence(b->bo.resv, f, LF_USAGE_BOOKKEEP);
	end(b);
	expect_there(&m);
	assert_int_equal(ended, 0);
	lf_fence_signal(f, 0);
	expect_released(&m);
	assert_int_equal(ended, 1);
	lf_fence_put(f);
}

static void what_a_shared_reservation_gets_later_does_not_keep_a_dead_buffer(void **state)
{
	struct memory m[2] = { 0 };
	struct lf_fence *f = new_fence(), *later = new_fence();
	struct lf_resv *resv;
	struct buffer *one, *two;
	assert_int_equal(lf_resv_create(NULL, &resv), 0);
	one = buffer_from((struct lf_bo_desc){ .resv = resv }, &m[0]);
	two = buffer_from((struct lf_bo_desc){ .resv = resv }, &m[1]);
	assert_ptr_equal(one->bo.resv, resv);
	lf_resv_put(resv); /* the buffers keep it */
	add_fence(two->bo.resv, f, LF_USAGE_READ);
	put(one);
	add_fence(two->bo.resv, later, LF_USAGE_KERNEL); /* also before the reclaimer has seen the put */
	settle();
	expect_there(&m[0]);
	lf_fence_signal(f, 0);
	settle();
	expect_released(&m[0]);
	put(two);
	settle();
	expect_there(&m[1]);
	lf_fence_signal(later, 0);
	expect_released(&m[1]);
	lf_fence_put(f);
	lf_fence_put(later);
}

static void a_shared_reservation_may_live_longer(void **state)
{
	struct memory m[2] = { 0 };
	struct lf_fence *f = new_fence();
	struct lf_resv *resv;
	struct buffer *b;
	assert_int_equal(lf_resv_create(NULL, &resv), 0);
	b = buffer_from((struct lf_bo_desc){ .resv = resv }, &m[0]);
	move(b, &m[1], f);
	end(b);
	assert_false(lf_resv_test_signaled(resv, LF_USAGE_KERNEL));
	lf_fence_signal(f, 0);
	settle();
	expect_released(&m[0]);
	expect_released(&m[1]);
	assert_true(lf_resv_test_signaled(resv, LF_USAGE_BOOKKEEP));
	lf_resv_put(resv);
	lf_fence_put(f);
}

struct put_cb {
	struct lf_fence_cb cb;
	struct buffer *b;
};

static void put_inside(struct lf_fence *f, struct lf_fence_cb *cb)
{
	put(((struct put_cb *)cb)->b);
}

static void the_last_put_may_come_from_a_callback(void **state)
{
	struct memory m[2] = { 0 };
	struct lf_fence *f = new_fence();
	struct put_cb put_cb = { .b = buffer_new(&m[0]) };
	move(put_cb.b, &m[1], f);
	assert_int_equal(lf_fence_add_callback(f, &put_cb.cb, put_inside), 0);
	lf_fence_signal(f, 0);
	settle();
	expect_released(&m[0]);
	expect_released(&m[1]);
	lf_fence_put(f);
}

static void the_last_put_may_come_in_a_read_section(void **state)
{
	struct memory m = { 0 };
	struct buffer *b = buffer_new(&m);
	assert_ptr_equal(lf_bo_tryget(&b->bo), &b->bo);
	lf_bo_put(&b->bo);
	lf_read_lock();
	put(b);
	assert_null(lf_bo_tryget(&b->bo)); /* it is there, and it is gone */
	assert_ptr_equal(lf_bo_memory(&b->bo), &m);
	usleep(20000);
	assert_null(lf_bo_tryget(&b->bo));
	expect_there(&m);
	lf_read_unlock();
	settle();
	expect_released(&m);
}

static void the_last_put_may_come_with_reservations_locked(void **state)
{
	struct memory m[2] = { 0 };
	struct lf_resv *resv, other;
	struct buffer *b;
	lf_resv_init(&other, NULL);
	assert_int_equal(lf_resv_lock(&other, NULL), 0);
	b = buffer_new(&m[0]);
	put(b);
	settle(); /* nothing of it needs the lock */
	expect_released(&m[0]);
	lf_resv_unlock(&other);
	lf_resv_fini(&other);
	b = buffer_new(&m[1]);
	resv = lf_resv_get(b->bo.resv);
	assert_int_equal(lf_resv_lock(resv, NULL), 0);
	end(b);
	expect_released(&m[1]);
	lf_resv_unlock(resv);
	lf_resv_put(resv);
}

static void a_put_allocates_nothing_and_calls_nothing(void **state)
{
	struct memory m = { 0 };
	struct producer p;
	struct lf_fence *f;
	struct buffer *b = buffer_new(&m);
	producer_init(&p, 0);
	f = emit(p.tl);
	add_fence(b->bo.resv, f, LF_USAGE_READ);
	long calls = alloc_calls();
	lf_read_lock(); /* so that the reclaimer does not come between */
	put(b);
	assert_int_equal(alloc_calls(), calls);
	assert_int_equal(p.enables, 0);
	lf_read_unlock();
	settle();
	assert_int_equal(p.enables, 1);
	assert_int_equal(lf_timeline_signal_to(p.tl, 1, 0), 1);
	expect_released(&m);
	lf_fence_put(f);
	producer_fini(&p, 1);
}

/* The struct is there until the last place is released, however long its fences take. */
static void a_buffer_ends_after_all_of_its_places(void **state)
{
	struct memory m[2] = { 0 };
	unsigned ended = 0;
	struct lf_fence *slow = new_fence(), *preempted = new_fence();
	struct producer p;
	struct lf_fence *f;
	struct buffer *b = buffer_new(&m[0]);
	producer_init(&p, 0);
	f = emit(p.tl);
	b->ended = &ended;
	b->last = &m[0];
	add_fence(b->bo.resv, f, LF_USAGE_BOOKKEEP);
	move(b, &m[1], NULL);
	/* the fence that the first place waits for is replaced, so the second does not wait for it */
	lock(b);
	assert_int_equal(lf_resv_reserve_replace(b->bo.resv, 1), 0);
	lf_fence_signal(preempted, 0);
	assert_int_equal(lf_resv_replace(b->bo.resv, lf_fence_context(f), preempted, LF_USAGE_BOOKKEEP), 1);
	unlock(b);
	end(b);
	expect_released(&m[1]);
	expect_there(&m[0]);
	assert_int_equal(ended, 0);
	assert_int_equal(lf_timeline_signal_to(p.tl, 1, 0), 1);
	expect_released(&m[0]);
	assert_int_equal(ended, 1);
	lf_fence_put(f);
	lf_fence_put(slow);
	lf_fence_put(preempted);
	producer_fini(&p, 1);
}

/* --- Providers -------------------------------------------------------------------------------------------------------- */

static void close_names_a_buffer_that_is_there(void **state)
{
	struct memory m[2] = { 0 };
	struct lf_provider *p;
	struct buffer *b, *refused = NULL;
	assert_int_equal(lf_provider_create("driver", &p), 0);
	b = buffer_from((struct lf_bo_desc){ .provider = p, .name = "frame" }, &m[0]);
	assert_int_equal(lf_provider_close(p, 0), -ETIME);
	assert_true(log_contains("buffer frame"));
	lock(b);
	assert_int_equal(lf_bo_prepare_move(&b->bo), -ESHUTDOWN);
	unlock(b);
	assert_int_equal(buffer_create((struct lf_bo_desc){ .provider = p, .name = "late" }, &m[1], &refused), -ESHUTDOWN);
	expect_there(&m[1]);
	assert_int_equal(lf_provider_close(p, lf_now() + 1000000), -ETIME);
	put(b);
	assert_int_equal(lf_provider_close(p, LF_DEADLINE_NEVER), 0);
	expect_released(&m[0]);
	lf_provider_put(p);
}

static void close_waits_for_ghosts(void **state)
{
	struct memory m[3] = { 0 };
	struct lf_fence *f = new_fence();
	struct lf_provider *p;
	struct buffer *b;
	assert_int_equal(lf_provider_create("driver", &p), 0);
	b = buffer_from((struct lf_bo_desc){ .provider = p, .name = "moving" }, &m[0]);
	move(b, &m[1], f);
	lock(b);
	assert_int_equal(lf_bo_prepare_move(&b->bo), 0); /* before the close, and may be used after it */
	assert_int_equal(lf_provider_close(p, 0), -ETIME);
	CALL(lf_bo_move(&b->bo, NULL, NULL));
	unlock(b);
	end(b);
	log_reset();
	assert_int_equal(lf_provider_close(p, 0), -ETIME);
	assert_true(log_contains("buffer moving"));
	lf_fence_signal(f, 0);
	settle();
	assert_int_equal(lf_provider_close(p, 0), 0);
	expect_released(&m[0]);
	expect_released(&m[1]);
	lf_fence_put(f);
	lf_provider_put(p);
}

static void close_inside(struct memory *m)
{
	must(lf_provider_close(m->user, 0) == -EDEADLK);
}

static void a_release_hook_cannot_close_its_provider(void **state)
{
	struct memory m = { .during = close_inside };
	struct lf_provider *p;
	struct buffer *b;
	assert_int_equal(lf_provider_create("driver", &p), 0);
	m.user = p;
	b = buffer_from((struct lf_bo_desc){ .provider = p, .name = "b" }, &m);
	end(b);
	expect_misuse(1);
	expect_released(&m);
	assert_int_equal(lf_provider_close(p, 0), 0);
	lf_provider_put(p);
}

/* --- The rest --------------------------------------------------------------------------------------------------------- */

static void live_buffers_are_listed(void **state)
{
	struct buffer *b;
	struct importer i = { 0 };
	assert_int_equal(lf_track(LF_TRACK_OBJECTS), 0);
	b = buffer_from((struct lf_bo_desc){ .name = "forgotten" }, NULL);
	attach(&i, b, "importer");
	assert_int_equal(lf_fini(), 2);
	assert_true(log_contains("still alive: buffer"));
	assert_true(log_contains("forgotten"));
	assert_true(log_contains("still alive: attachment"));
	assert_true(log_contains("importer"));
	assert_int_equal(lf_track(0), 0);
	let_go(&i);
	put(b);
	fresh_library();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(a_buffer_is_where_it_was_made_until_it_is_put),
		TEST_WARM(a_buffer_may_be_nowhere_and_have_no_hooks),
		TEST_WARM(null_is_put_and_got),
		TEST_WARM(wrong_descriptions_are_refused),
		TEST_WARM(without_memory_no_buffer_is_made),
		TEST_WARM(what_was_left_idle_is_released_but_not_inside_the_call),
		TEST_WARM(what_was_left_waits_for_all_that_was_there_and_for_the_move),
		TEST_WARM(the_fence_of_the_move_alone_keeps_what_was_left),
		TEST_WARM(what_comes_after_the_move_does_not_keep_what_was_left),
		TEST_WARM(gutted_and_brought_back),
		TEST_WARM(a_thousand_moves_in_flight_block_nobody_and_release_each_place_in_its_time),
		TEST_WARM(a_thousand_moves_put_at_once_end_with_the_last_fence),
		TEST_WARM(without_memory_nothing_is_prepared_and_the_buffer_stays_as_it_was),
		TEST_WARM(what_was_prepared_in_vain_is_freed),
		TEST_WARM(preparing_twice_prepares_one_move),
		TEST_WARM(what_was_prepared_is_kept_but_for_the_slot),
		TEST_WARM(without_the_lock_nothing_is_moved),
		TEST_WARM(a_lock_by_ticket_counts),
		TEST_WARM(hooks_that_signal_inside_a_move_release_nothing_inside_it),
		TEST_WARM(a_hook_that_signals_the_move_itself_releases_nothing_inside_it),
		TEST_WARM(a_dying_buffer_arms_its_fences),
		TEST_WARM(a_release_hook_may_use_other_buffers),
		TEST_WARM(the_last_put_waits_for_what_is_there),
		TEST_WARM(what_a_shared_reservation_gets_later_does_not_keep_a_dead_buffer),
		TEST_WARM(a_shared_reservation_may_live_longer),
		TEST_WARM(the_last_put_may_come_from_a_callback),
		TEST_WARM(the_last_put_may_come_in_a_read_section),
		TEST_WARM(the_last_put_may_come_with_reservations_locked),
		TEST_WARM(a_put_allocates_nothing_and_calls_nothing),
		TEST_WARM(a_buffer_ends_after_all_of_its_places),
		TEST_WARM(close_names_a_buffer_that_is_there),
		TEST_WARM(close_waits_for_ghosts),
		TEST_WARM(a_release_hook_cannot_close_its_provider),
		TEST_FRESH(live_buffers_are_listed),
	};
	return TEST_MAIN(tests);
}
