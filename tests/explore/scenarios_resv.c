/* SPDX-License-Identifier: MIT */
/* Reservations: the list changes under those who look, walk, hold a snapshot or wait; notices are armed, cancelled and fired. */
#include "explore.h"

#include "base/port.h"

enum { SMALL = 8 }; /* fences that a first list has room for */

static struct lf_resv resv;
static struct lf_timeline *timeline;
static struct lf_fence *fence, *second; /* references of setup's, put by finish */
static struct lf_snapshot snapshot;
static struct lf_notice notice, notice2;
static int added, written; /* before the fence is added, and before it is signaled */
static int fired, fired2, result, result2;

/* --- Making ------------------------------------------------------------------------------------------------------------------ */

static void lock(void)
{
	CHECK(lf_resv_lock(&resv, NULL) == 0);
}

static void add_one(struct lf_fence *f, enum lf_usage usage)
{
	CHECK(lf_resv_reserve(&resv, 1) == 0);
	lf_resv_add(&resv, f, usage);
}

static void make(void)
{
	lf_resv_init(&resv, NULL);
	CHECK(lf_fence_create(&fence) == 0 && lf_fence_create(&second) == 0);
}

/* The second is in the list. */
static void make_with_one(void)
{
	make();
	lock();
	add_one(second, LF_USAGE_READ);
	lf_resv_unlock(&resv);
}

static void make_with_both(void)
{
	make();
	lock();
	add_one(fence, LF_USAGE_WRITE);
	add_one(second, LF_USAGE_READ);
	lf_resv_unlock(&resv);
}

/*
 * When the list is full, the next who reserves makes a compacted copy. What is signaled is dropped then, and ends with it; the other two, which
 * do not stand for each other, stay.
 */
static void make_with(int count)
{
	struct lf_fence *f;

	make();
	lock();
	add_one(fence, LF_USAGE_KERNEL);
	add_one(second, LF_USAGE_WRITE);
	CHECK(lf_fence_create(&f) == 0);
	for (int i = 2; i < count; i++)
		add_one(f, LF_USAGE_WRITE);
	lf_resv_unlock(&resv);
	CHECK(lf_fence_signal(f, 0));
	lf_fence_put(f); /* the list's are the last */
}

static void make_full(void)
{
	make_with(SMALL);
}

static void make_almost_full(void)
{
	make_with(SMALL - 1);
}

/* The list is full of a timeline's fences, of which the last stands for all but the first, which is of a stronger usage. */
static void make_full_of_timeline(void)
{
	static const struct lf_timeline_desc desc = { .name = "timeline" };
	struct lf_fence *f;

	make();
	CHECK(lf_timeline_create(&desc, &timeline) == 0);
	lock();
	for (uint64_t i = 1; i <= SMALL; i++) {
		CHECK(lf_timeline_emit(timeline, i, &f) == 0);
		add_one(f, i == 1 ? LF_USAGE_KERNEL : LF_USAGE_WRITE);
		lf_fence_put(f);
	}
	lf_resv_unlock(&resv);
}

static void end(void)
{
	lf_snapshot_put(&snapshot);
	lf_resv_fini(&resv);
	lf_timeline_put(timeline);
	lf_fence_put(fence);
	lf_fence_put(second);
}

/* --- Writers ------------------------------------------------------------------------------------------------------------------ */

static void add(void)
{
	lock();
	CHECK(lf_resv_reserve(&resv, 1) == 0);
	added = 1;
	lf_resv_add(&resv, fence, LF_USAGE_WRITE);
	lf_resv_unlock(&resv);
}

/* There is room for one. */
static void add_twice(void)
{
	lock();
	CHECK(lf_resv_reserve(&resv, 1) == 0 && lf_resv_reserve(&resv, 1) == 0);
	lf_resv_add(&resv, fence, LF_USAGE_WRITE);
	lf_resv_add(&resv, second, LF_USAGE_WRITE);
	lf_resv_unlock(&resv);
}

/* The second, which is not in the list before. */
static void add_second(void)
{
	lock();
	add_one(second, LF_USAGE_WRITE);
	lf_resv_unlock(&resv);
}

static void replace(void)
{
	lock();
	CHECK(lf_resv_reserve_replace(&resv, 1) == 0);
	added = 1;
	CHECK(lf_resv_replace(&resv, lf_timeline_context(timeline), fence, LF_USAGE_WRITE) > 0);
	lf_resv_unlock(&resv);
}

static void signal(void)
{
	written = 1;
	CHECK(lf_fence_signal(fence, 0));
}

static void signal_second(void)
{
	CHECK(lf_fence_signal(second, 0));
}

static void add_second_and_signal(void)
{
	lock();
	add_one(second, LF_USAGE_KERNEL);
	lf_resv_unlock(&resv);
	CHECK(lf_fence_signal(second, 0));
}

/* The last one stays pending. */
static void signal_first(void)
{
	CHECK(lf_timeline_signal_to(timeline, 1, 0) == 1);
}

static void signal_first_and_add(void)
{
	signal_first();
	add();
}

static void signal_two(void)
{
	CHECK(lf_timeline_signal_to(timeline, 2, 0) == 2);
}

static void signal_both(void)
{
	signal();
	signal_second();
}

/* --- Readers ------------------------------------------------------------------------------------------------------------------ */

/* Walks over the list as it is, and returns how many there are that the walk may keep. */
static unsigned walk(const struct lf_fence *wanted, bool *ret_found)
{
	struct lf_resv_cursor cursor;
	struct lf_fence *f;
	unsigned n = 0;

	*ret_found = false;
	lf_read_lock();
	lf_resv_cursor_begin(&cursor, &resv, LF_USAGE_BOOKKEEP);
	while ((f = lf_resv_cursor_next(&cursor)) != NULL) {
		*ret_found |= f == wanted;
		n++;
	}
	lf_read_unlock();
	return n;
}

/* Who finds the fence sees what came before it was added. */
static void look(void)
{
	bool found;
	unsigned n = walk(fence, &found);

	CHECK(n <= 2);
	if (found)
		CHECK(added == 1);
}

static void look_at_generation(void)
{
	uint64_t before = lf_resv_generation(&resv);
	bool found;

	walk(fence, &found);
	CHECK(found || before < 2);
}

static void test(void)
{
	if (!lf_resv_test_signaled(&resv, LF_USAGE_READ))
		return;
	/* The second is pending and was there all the time. */
	CHECK(false);
}

/* The first fence of the timeline is still waited for by who waits for its usage. */
static void add_and_test(void)
{
	add();
	CHECK(!lf_resv_test_signaled(&resv, LF_USAGE_KERNEL));
}

/* Whatever the list looks like, both are in it; and each that is found is a fence still. */
static void look_at_all(void)
{
	struct lf_resv_cursor cursor;
	struct lf_fence *f;
	bool found = false, found_second = false;

	lf_read_lock();
	lf_resv_cursor_begin(&cursor, &resv, LF_USAGE_WRITE);
	while ((f = lf_resv_cursor_next(&cursor)) != NULL) {
		CHECK(lf_fence_is_signaled(f) == (f != fence && f != second));
		found |= f == fence;
		found_second |= f == second;
	}
	lf_read_unlock();
	CHECK(found && found_second);
}

/* The snapshot is kept to the end. */
static void snapshot_and_test(void)
{
	lf_resv_snapshot(&resv, &snapshot);
	CHECK(!lf_snapshot_test_signaled(&snapshot, LF_USAGE_KERNEL));
}

/* What a snapshot has is there, whoever puts the list. */
static void snapshot_and_walk(void)
{
	struct lf_resv_cursor cursor;
	struct lf_snapshot mine;
	struct lf_fence *f;
	unsigned n = 0;

	lf_resv_snapshot(&resv, &mine);
	lf_snapshot_cursor_begin(&cursor, &mine, LF_USAGE_BOOKKEEP);
	while ((f = lf_resv_cursor_next(&cursor)) != NULL) {
		lf_fence_get(f);
		if (n++ == 0)
			lf_fence_is_signaled(f);
		lf_fence_put(f);
	}
	CHECK(n >= 1);
	lf_snapshot_put(&mine);
}

/* What is pending is found. */
static void walk_and_try(void)
{
	struct lf_resv_cursor cursor;
	struct lf_fence *f, *kept = NULL;

	lf_read_lock();
	lf_resv_cursor_begin(&cursor, &resv, LF_USAGE_WRITE);
	f = lf_resv_cursor_next(&cursor);
	CHECK(f);
	kept = lf_fence_tryget(f);
	if (f == fence)
		CHECK(added == 1 && kept);
	lf_read_unlock();
	lf_fence_put(kept);
}

static void find_one(void)
{
	struct lf_resv_cursor cursor;
	struct lf_fence *f;
	unsigned old = 0, new = 0;

	lf_read_lock();
	lf_resv_cursor_begin(&cursor, &resv, LF_USAGE_WRITE);
	while ((f = lf_resv_cursor_next(&cursor)) != NULL) {
		new += f == fence;
		old += f != fence;
	}
	lf_read_unlock();
	CHECK((old == SMALL && new == 0) || (old == 0 && new == 1));
}

static void wait_for_what_is_there(void)
{
	CHECK(lf_resv_wait(&resv, LF_USAGE_WRITE, LF_DEADLINE_NEVER) == 0);
	CHECK(lf_fence_is_signaled(fence));
	CHECK(written == 1);
}

static void get_one_fence(void)
{
	struct lf_fence *one;

	CHECK(lf_resv_get_singleton(&resv, LF_USAGE_READ, &one) == 0);
	if (lf_fence_is_signaled(one))
		CHECK(lf_fence_is_signaled(second)); /* it was pending when it was added, before */
	lf_fence_put(one);
}

/* --- Counted ------------------------------------------------------------------------------------------------------------------ */

static lf_atomic_ptr published; /* struct lf_resv */

static void make_counted(void)
{
	struct lf_resv *r;

	make();
	CHECK(lf_resv_create(NULL, &r) == 0);
	CHECK(lf_resv_lock(r, NULL) == 0 && lf_resv_reserve(r, 1) == 0);
	lf_resv_add(r, second, LF_USAGE_WRITE);
	lf_resv_unlock(r);
	ptr_store(&published, (uintptr_t)r, memory_order_release);
}

static void look_in_published(void)
{
	const struct lf_resv *r;

	lf_read_lock();
	r = (const struct lf_resv *)ptr_load(&published, memory_order_acquire);
	if (r)
		lf_resv_test_signaled(r, LF_USAGE_WRITE); /* true when it ended meanwhile */
	lf_read_unlock();
}

static void keep_published(void)
{
	const struct lf_resv *r;

	lf_read_lock();
	r = (const struct lf_resv *)ptr_load(&published, memory_order_acquire);
	if (r)
		lf_resv_snapshot(r, &snapshot);
	lf_read_unlock();
	if (snapshot.block)
		CHECK(!lf_snapshot_test_signaled(&snapshot, LF_USAGE_WRITE));
}

static void put_published(void)
{
	lf_resv_put((struct lf_resv *)ptr_xchg(&published, 0, memory_order_relaxed));
}

/* --- Notices ------------------------------------------------------------------------------------------------------------------ */

static void on_fire(struct lf_notice *n)
{
	(void)n;
	CHECK(lf_fence_is_signaled(fence) && lf_fence_is_signaled(second));
	CHECK(written == 1);
	fired++;
}

static void on_fire2(struct lf_notice *n)
{
	(void)n;
	CHECK(lf_fence_is_signaled(fence));
	fired2++;
}

/* Ends the notice, and its memory with it. */
static void on_fire_ends(struct lf_notice *n)
{
	on_fire(n);
	lf_notice_fini(n);
	*n = (struct lf_notice){ 0 };
}

static void on_fire_arms(struct lf_notice *n)
{
	fired++;
	result2 = lf_notice_arm(n, &resv, LF_USAGE_READ, on_fire2);
	CHECK(result2 == 0 || result2 == -ENOENT);
}

static void make_armed(void)
{
	make_with_both();
	lf_notice_init(&notice);
	CHECK(lf_notice_arm(&notice, &resv, LF_USAGE_READ, on_fire) == 0);
}

static void make_armed_to_end(void)
{
	make_with_both();
	lf_notice_init(&notice);
	CHECK(lf_notice_arm(&notice, &resv, LF_USAGE_READ, on_fire_ends) == 0);
}

static void make_armed_to_arm(void)
{
	make_with_both();
	lf_notice_init(&notice);
	CHECK(lf_notice_arm(&notice, &resv, LF_USAGE_WRITE, on_fire_arms) == 0);
}

static void make_armed_twice(void)
{
	make_armed();
	lf_notice_init(&notice2);
	CHECK(lf_notice_arm(&notice2, &resv, LF_USAGE_WRITE, on_fire2) == 0);
}

static void make_not_armed(void)
{
	make_with_both();
	lf_notice_init(&notice);
}

static void arm(void)
{
	result = lf_notice_arm(&notice, &resv, LF_USAGE_READ, on_fire);
	CHECK(result == 0 || result == -ENOENT);
	if (result)
		CHECK(lf_fence_is_signaled(fence) && lf_fence_is_signaled(second) && written == 1);
}

static void cancel(void)
{
	result = lf_notice_cancel(&notice);
	CHECK(result == LF_CB_REMOVED || result == LF_CB_RAN || result == LF_CB_RUNNING);
	if (result == LF_CB_RAN)
		CHECK(fired == 1);
}

static void cancel_sync(void)
{
	result = lf_notice_cancel_sync(&notice);
	CHECK(result == LF_CB_REMOVED || result == LF_CB_RAN);
	CHECK(fired == (result == LF_CB_RAN)); /* plain: what the function did is seen */
}

/* Its memory is the caller's afterwards. */
static void fini_notice(void)
{
	lf_notice_fini(&notice);
	notice = (struct lf_notice){ 0 };
	result = LF_CB_REMOVED;
	fired2 = fired;
}

static void cancel2(void)
{
	result2 = lf_notice_cancel_sync(&notice2);
	CHECK(fired2 == (result2 == LF_CB_RAN));
}

static void end_notices(void)
{
	lf_notice_fini(&notice);
	lf_notice_fini(&notice2);
	end();
}

static void fired_if_armed(void)
{
	CHECK(fired == (result == 0));
	end_notices();
}

static void fired_unless_cancelled(void)
{
	if (result != LF_CB_RUNNING)
		CHECK(fired == (result == LF_CB_RAN));
	CHECK(fired <= 1);
	end_notices();
}

/* The second was never signaled. */
static void did_not_fire(void)
{
	CHECK(fired == 0 && result == LF_CB_REMOVED);
	end_notices();
}

static void fired_once(void)
{
	CHECK(fired == 1);
	end();
}

static void both_fired_unless_cancelled(void)
{
	CHECK(fired == 1);
	CHECK(fired2 == (result2 == LF_CB_RAN));
	end_notices();
}

static void armed_again_fired(void)
{
	CHECK(fired == 1 && fired2 == (result2 == 0));
	end_notices();
}

static void fired_before_the_end(void)
{
	CHECK(fired == fired2); /* nothing behind lf_notice_fini() */
	end();
}

static const struct explore_scenario table[] = {
	{ .group = "resv", .name = "resv_first", .setup = make, .threads = { add, look, look }, .finish = end,
		.oracle = "who finds the first fence in a list sees what came before" },
	{ .group = "resv", .name = "resv_add", .setup = make_with_one, .threads = { add, look, test }, .finish = end,
		.oracle = "the same with a list that is there, and what is pending stays" },
	{ .group = "resv", .name = "resv_generation", .setup = make_with_one, .threads = { add, look_at_generation, look_at_generation },
		.finish = end, .oracle = "who reads a generation finds what it counts" },
	{ .group = "resv", .name = "resv_two_writers", .setup = make, .threads = { add, add_second, look }, .finish = end,
		.oracle = "two add under the lock, and each finds the other's" },
	{ .group = "resv", .name = "resv_compact", .setup = make_full, .threads = { add, snapshot_and_test, look_at_all }, .finish = end,
		.oracle = "what is pending is in the list before and after it was compacted, and in each snapshot" },
	{ .group = "resv", .name = "resv_reserve_twice", .setup = make_almost_full, .threads = { add_twice, look_at_all }, .finish = end,
		.oracle = "two reserve for two, also when the second makes the list new" },
	{ .group = "resv", .name = "resv_compact_walk", .setup = make_full_of_timeline, .threads = { signal_first_and_add, walk_and_try },
		.finish = end, .oracle = "a fence that compaction drops lives on while readers look" },
	{ .group = "resv", .name = "resv_compact_complete", .setup = make_full_of_timeline, .threads = { add, signal_two },
		.finish = end, .oracle = "fences may be signaled while they are dropped" },
	{ .group = "resv", .name = "resv_compact_snapshot", .setup = make_full_of_timeline, .threads = { add_and_test, snapshot_and_walk },
		.finish = end, .oracle = "a snapshot keeps what compaction drops" },
	{ .group = "resv", .name = "resv_replace", .setup = make_full_of_timeline, .threads = { replace, find_one, find_one },
		.finish = end, .oracle = "readers find what was replaced or what replaces it" },
	{ .group = "resv", .name = "resv_replace_snapshot", .setup = make_full_of_timeline, .threads = { replace, snapshot_and_walk },
		.finish = end, .oracle = "a snapshot keeps what was replaced" },
	{ .group = "resv", .name = "resv_wait", .setup = make_with_both, .threads = { wait_for_what_is_there, signal, add_second_and_signal },
		.finish = end, .oracle = "a wait ends when what was there is signaled" },
	{ .group = "resv", .name = "resv_complete", .setup = make_with_one, .threads = { add, signal, get_one_fence }, .finish = end,
		.oracle = "a fence may be signaled while it is added" },
	{ .group = "resv", .name = "resv_put", .setup = make_counted, .threads = { put_published, look_in_published, keep_published },
		.finish = end, .oracle = "a counted reservation outlives the sections that found it, and a snapshot outlives it" },
	{ .group = "resv", .name = "notice_arm", .setup = make_not_armed, .threads = { arm, signal, signal_second },
		.finish = fired_if_armed, .oracle = "a notice is armed and fires once when all are signaled, or all were" },
	{ .group = "resv", .name = "notice_cancel", .setup = make_armed, .threads = { cancel, signal, signal_second },
		.finish = fired_unless_cancelled, .oracle = "a notice is cancelled, or fires" },
	{ .group = "resv", .name = "notice_cancel_sync", .setup = make_armed, .threads = { cancel_sync, signal_both },
		.finish = fired_unless_cancelled, .oracle = "behind cancel_sync the function does not run" },
	{ .group = "resv", .name = "notice_cancel_moving", .setup = make_armed, .threads = { cancel_sync, signal },
		.finish = did_not_fire, .oracle = "a notice that is about to move on finds itself cancelled" },
	{ .group = "resv", .name = "notice_fini", .setup = make_armed, .threads = { fini_notice, signal_both },
		.finish = fired_before_the_end, .oracle = "an ended notice is the owner's memory" },
	{ .group = "resv", .name = "notice_ends_itself", .setup = make_armed_to_end, .threads = { signal, signal_second },
		.finish = fired_once, .oracle = "a notice may end in its function" },
	{ .group = "resv", .name = "notice_two", .setup = make_armed_twice, .threads = { signal_both, cancel2 },
		.finish = both_fired_unless_cancelled, .oracle = "two notices on the same fences do not know each other" },
	{ .group = "resv", .name = "notice_arms_again", .setup = make_armed_to_arm, .threads = { signal, signal_second },
		.finish = armed_again_fired, .oracle = "a notice may be armed again in its function" },
};
EXPLORE_SCENARIOS(table);
