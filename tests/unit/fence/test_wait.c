/* SPDX-License-Identifier: MIT */
/* Waiting for one fence, for some of many, and for the end of callbacks. */
#include "testing.h"

#include <sched.h>
#include <stdatomic.h>
#include <time.h>

static struct lf_fence *make_fence(void)
{
	struct lf_fence *f = NULL;
	must(lf_fence_create(&f) == 0);
	return f;
}

static struct lf_timeline *make_timeline(unsigned flags)
{
	const struct lf_timeline_desc desc = { .name = "ring", .flags = flags };
	struct lf_timeline *tl = NULL;
	must(lf_timeline_create(&desc, &tl) == 0);
	return tl;
}

static struct lf_fence *emit(struct lf_timeline *tl)
{
	struct lf_fence *f = NULL;
	must(lf_timeline_emit(tl, 0, &f) == 0);
	return f;
}

static unsigned take_misuse(void)
{
	unsigned count = log_count(LF_LOG_MISUSE);
	log_reset();
	return count;
}

/* A wait for many with storage of its own. */
static int wait_for(struct lf_fence *const *fences, size_t count, size_t need, int64_t deadline, size_t *ret_first)
{
	struct lf_wait_slot slots[16];
	const struct lf_wait_many wait = { .fences = fences, .slots = slots, .count = count, .need = need, .deadline = deadline };
	must(count <= 16);
	/* "uninitialised": what lies on the stack must not matter */
	memset(slots, 0xa5, sizeof(slots));
	return lf_fence_wait_many(&wait, ret_first);
}

/* A wait on a thread of its own. */
struct waiter {
	struct lf_fence *const *fences;
	size_t count;
	size_t need;
	int64_t deadline;
	int result;
	size_t first;
	long allocations;
	atomic_bool returned;
	pthread_t thread;
};

static void *wait_on_thread(void *arg)
{
	struct waiter *w = arg;
	long before = alloc_calls();
	w->first = SIZE_MAX;
	w->result = wait_for(w->fences, w->count, w->need, w->deadline, &w->first);
	w->allocations = alloc_calls() - before;
	atomic_store(&w->returned, true);
	return NULL;
}

/* The fence's word, while others may change it: only to see that it changes, and that it is as it was. */
static uintptr_t word_of(const struct lf_fence *f)
{
	return __atomic_load_n(&f->callbacks.value, __ATOMIC_RELAXED);
}

/*
 * Gives the waiter time to hang itself on a pending fence, until the fence's word changes or for so long that more proves nothing: the
 * test is right either way, but only a waiter that sleeps can miss its wake.
 */
static void let_come(const struct lf_fence *f, uintptr_t before)
{
	for (int i = 0; i < 100000 && word_of(f) == before; i++)
		sched_yield();
}

/* Starts the wait; @last is the pending fence that a waiter comes to last. */
static void start_wait(struct waiter *w, struct lf_fence *last)
{
	uintptr_t before = word_of(last);
	w->thread = thread_start(wait_on_thread, w, 0);
	let_come(last, before);
}

/* --- One fence ---------------------------------------------------------------------------------------------------------- */

static void wait_for_a_signaled_fence_returns_at_once(void **state)
{
	struct lf_fence *f = make_fence();
	lf_fence_signal(f, 0);
	assert_int_equal(lf_fence_wait(f, LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_fence_wait(f, 0), 0);
	assert_int_equal(lf_fence_wait(f, INT64_MIN), 0);
	assert_int_equal(lf_fence_wait(lf_fence_stub(), LF_DEADLINE_NEVER), 0);
	lf_fence_put(f);
}

static void wait_with_a_deadline_in_the_past_asks(void **state)
{
	struct lf_fence *f = make_fence();
	assert_int_equal(lf_fence_wait(f, 0), -ETIME);
	assert_int_equal(lf_fence_wait(f, INT64_MIN), -ETIME);
	assert_int_equal(lf_fence_wait(f, -1), -ETIME);
	assert_int_equal(lf_fence_wait(f, lf_now() - 1), -ETIME);
	assert_int_equal(lf_fence_wait_drained(f, 0), -ETIME);
	/* nothing hangs on it now: this put would be reported */
	lf_fence_put(f);
}

/* A fence that failed with -ETIME is not a wait that ended with it. */
static void wait_returns_0_whatever_the_result(void **state)
{
	static const int errors[] = { 0, -ETIME, -EDEADLK, -EIO };
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		struct lf_fence *f = make_fence();
		struct waiter w = { .fences = &f, .count = 1, .need = 1, .deadline = LF_DEADLINE_NEVER };
		lf_fence_signal(f, errors[i]);
		assert_int_equal(lf_fence_wait(f, 0), 0);
		thread_run(wait_on_thread, &w, 0);
		assert_int_equal(w.result, 0);
		lf_fence_put(f);
	}
}

struct single {
	struct lf_fence *f;
	int64_t deadline;
	int (*wait)(struct lf_fence *f, int64_t deadline);
	int result;
	int status;
	int payload_seen;
	const int *payload;
};

static void *wait_single(void *arg)
{
	struct single *s = arg;
	s->result = s->wait(s->f, s->deadline);
	/* first, since looking at the fence would order it too */
	if (s->payload != NULL)
		s->payload_seen = *s->payload;
	s->status = lf_fence_status(s->f);
	return NULL;
}

static void waiting_thread_wakes_when_the_fence_is_signaled(void **state)
{
	int payload = 0;
	struct single s = { .f = make_fence(), .deadline = LF_DEADLINE_NEVER, .wait = lf_fence_wait, .payload = &payload };
	uintptr_t before = word_of(s.f);
	pthread_t thread = thread_start(wait_single, &s, 0);
	let_come(s.f, before);
	payload = 4711;
	lf_fence_signal(s.f, -EIO);
	thread_join(thread);
	assert_int_equal(s.result, 0);
	assert_int_equal(s.status, -EIO);
	assert_int_equal(s.payload_seen, 4711);
	lf_fence_put(s.f);
}

static void many_threads_wait_for_one_fence_and_all_wake(void **state)
{
	enum { THREADS = 16 };
	struct lf_fence *f = make_fence();
	struct single s[THREADS];
	pthread_t threads[THREADS];
	for (int i = 0; i < THREADS; i++) {
		s[i] = (struct single){ .f = f, .deadline = LF_DEADLINE_NEVER, .wait = i % 2 ? lf_fence_wait : lf_fence_wait_drained };
		uintptr_t before = word_of(f);
		threads[i] = thread_start(wait_single, &s[i], 0);
		let_come(f, before);
	}
	lf_fence_signal(f, 0);
	for (int i = 0; i < THREADS; i++) {
		thread_join(threads[i]);
		assert_int_equal(s[i].result, 0);
		assert_int_equal(s[i].status, 1);
	}
	lf_fence_put(f);
}

static void signal_wakes_before_a_deadline_that_is_far_away(void **state)
{
	struct single s = { .f = make_fence(), .deadline = lf_now() + INT64_C(3600000000000), .wait = lf_fence_wait };
	uintptr_t before = word_of(s.f);
	pthread_t thread = thread_start(wait_single, &s, 0);
	let_come(s.f, before);
	lf_fence_signal(s.f, 0);
	thread_join(thread);
	assert_int_equal(s.result, 0);
	lf_fence_put(s.f);
}

/* --- Deadlines on a clock that stands still ----------------------------------------------------------------------------- */

static void deadline_is_compared_with_the_replaced_clock(void **state)
{
	clock_set(1000);
	assert_true(lf_now() == 1000);
	struct single s = { .f = make_fence(), .deadline = 2000, .wait = lf_fence_wait };
	assert_int_equal(lf_fence_wait(s.f, 999), -ETIME);
	uintptr_t before = word_of(s.f);
	pthread_t thread = thread_start(wait_single, &s, 0);
	let_come(s.f, before);
	/* returns once the clock has passed the deadline, and not before: joined, it would hang */
	clock_set(2001);
	thread_join(thread);
	assert_int_equal(s.result, -ETIME);
	assert_int_equal(s.status, 0);
	lf_fence_put(s.f);
}

static void wait_does_not_end_before_its_deadline_on_the_replaced_clock(void **state)
{
	clock_set(1000);
	struct lf_fence *f = make_fence();
	struct waiter w = { .fences = &f, .count = 1, .need = 1, .deadline = 2000 };
	start_wait(&w, f);
	clock_set(1999);
	for (int i = 0; i < 1000; i++) {
		assert_false(atomic_load(&w.returned));
		sched_yield();
	}
	lf_fence_signal(f, 0);
	thread_join(w.thread);
	assert_int_equal(w.result, 0);
	lf_fence_put(f);
}

static void wait_drained_and_wait_many_keep_deadlines_on_the_replaced_clock(void **state)
{
	clock_set(1000);
	struct lf_fence *f = make_fence();
	struct single s = { .f = f, .deadline = 2000, .wait = lf_fence_wait_drained };
	struct waiter w = { .fences = &f, .count = 1, .need = 1, .deadline = 2000 };
	start_wait(&w, f);
	uintptr_t before = word_of(f);
	pthread_t thread = thread_start(wait_single, &s, 0);
	let_come(f, before);
	clock_set(5000);
	thread_join(thread);
	thread_join(w.thread);
	assert_int_equal(s.result, -ETIME);
	assert_int_equal(w.result, -ETIME);
	assert_true(w.first == SIZE_MAX);
	lf_fence_put(f);
}

/* --- Many fences -------------------------------------------------------------------------------------------------------- */

enum { MIXED = 8 };

/* Stand-alone, of timelines of both kinds, the stub, created signaled, and one of them twice. */
struct mixed {
	struct lf_timeline *ordered, *unordered;
	struct lf_fence *fences[MIXED];
};

static void make_mixed(struct mixed *m)
{
	m->ordered = make_timeline(LF_TIMELINE_ORDERED);
	m->unordered = make_timeline(LF_TIMELINE_UNORDERED);
	m->fences[0] = make_fence();
	m->fences[1] = emit(m->ordered);
	m->fences[2] = emit(m->unordered);
	m->fences[3] = lf_fence_stub();
	must(lf_fence_create_signaled(-EIO, 1, &m->fences[4]) == 0);
	m->fences[5] = lf_fence_get(m->fences[0]);
	m->fences[6] = emit(m->ordered);
	m->fences[7] = emit(m->unordered);
}

static void drop_mixed(struct mixed *m)
{
	lf_timeline_put(m->ordered);
	lf_timeline_put(m->unordered);
	for (int i = 0; i < MIXED; i++)
		lf_fence_put(m->fences[i]);
}

static void wait_for_any_is_satisfied_by_one_that_is_signaled(void **state)
{
	struct mixed m;
	size_t first = SIZE_MAX;
	make_mixed(&m);
	assert_int_equal(wait_for(m.fences, MIXED, 1, 0, &first), 0);
	assert_int_equal(first, 3);
	assert_int_equal(wait_for(m.fences, MIXED, 2, 0, &first), 0);
	assert_int_equal(first, 3);
	assert_int_equal(wait_for(m.fences, MIXED, 3, 0, &first), -ETIME);
	drop_mixed(&m);
}

static void wait_counts_a_fence_that_occurs_twice_twice(void **state)
{
	struct mixed m;
	size_t first = SIZE_MAX;
	make_mixed(&m);
	lf_fence_signal(m.fences[0], 0);
	assert_int_equal(wait_for(m.fences, MIXED, 4, 0, &first), 0);
	assert_int_equal(first, 0);
	assert_int_equal(wait_for(m.fences, MIXED, 5, 0, NULL), -ETIME);
	drop_mixed(&m);
}

static void sleeping_wait_counts_a_fence_that_occurs_twice_twice(void **state)
{
	struct lf_fence *f = make_fence(), *other = make_fence();
	struct lf_fence *fences[] = { other, f, f };
	struct waiter w = { .fences = fences, .count = 3, .need = 2, .deadline = LF_DEADLINE_NEVER };
	start_wait(&w, f);
	lf_fence_signal(f, 0);
	thread_join(w.thread);
	assert_int_equal(w.result, 0);
	assert_int_equal(w.first, 1);
	lf_fence_put(f);
	/* nothing hangs on it any more: this put would be reported */
	lf_fence_put(other);
}

static void wait_for_all_of_mixed_kinds_returns_after_the_last(void **state)
{
	struct mixed m;
	make_mixed(&m);
	struct waiter w = { .fences = m.fences, .count = MIXED, .need = MIXED, .deadline = LF_DEADLINE_NEVER };
	start_wait(&w, m.fences[7]);
	lf_fence_signal(m.fences[0], 0);
	assert_int_equal(lf_timeline_signal_to(m.ordered, UINT64_MAX, 0), 2);
	assert_true(lf_timeline_signal_one(m.unordered, m.fences[7], 0));
	for (int i = 0; i < 200; i++) {
		assert_false(atomic_load(&w.returned));
		sched_yield();
	}
	assert_true(lf_timeline_signal_one(m.unordered, m.fences[2], 0));
	thread_join(w.thread);
	assert_int_equal(w.result, 0);
	assert_int_equal(w.first, 0);
	drop_mixed(&m);
}

/* Each number between any and all, with fences that become signaled from the highest index down. */
static void wait_for_at_least_n_returns_with_the_nth(void **state)
{
	enum { COUNT = 6 };
	for (size_t need = 1; need <= COUNT; need++) {
		struct lf_fence *fences[COUNT];
		for (int i = 0; i < COUNT; i++)
			fences[i] = make_fence();
		struct waiter w = { .fences = fences, .count = COUNT, .need = need, .deadline = LF_DEADLINE_NEVER };
		start_wait(&w, fences[COUNT - 1]);
		for (size_t n = 1; n <= need; n++) {
			assert_false(atomic_load(&w.returned));
			lf_fence_signal(fences[COUNT - n], 0);
		}
		thread_join(w.thread);
		assert_int_equal(w.result, 0);
		assert_int_equal(w.first, COUNT - need);
		/* those that are pending still were let go of */
		for (int i = 0; i < COUNT; i++)
			lf_fence_put(fences[i]);
	}
}

static void first_is_the_smallest_signaled_index_and_not_the_first_in_time(void **state)
{
	struct lf_fence *fences[3] = { make_fence(), make_fence(), make_fence() };
	size_t first = SIZE_MAX;
	lf_fence_signal(fences[2], 0);
	assert_int_equal(wait_for(fences, 3, 1, 0, &first), 0);
	assert_int_equal(first, 2);
	lf_fence_signal(fences[1], 0);
	assert_int_equal(wait_for(fences, 3, 1, 0, &first), 0);
	assert_int_equal(first, 1);
	assert_int_equal(wait_for(fences, 3, 2, LF_DEADLINE_NEVER, &first), 0);
	assert_int_equal(first, 1);
	for (int i = 0; i < 3; i++)
		lf_fence_put(fences[i]);
}

static void need_of_0_is_satisfied_at_once_and_writes_no_index(void **state)
{
	struct lf_fence *f = make_fence(), *done = lf_fence_stub();
	size_t first = 4711;
	assert_int_equal(wait_for(&f, 1, 0, LF_DEADLINE_NEVER, &first), 0);
	assert_int_equal(wait_for(&done, 1, 0, LF_DEADLINE_NEVER, &first), 0);
	assert_int_equal(wait_for(NULL, 0, 0, LF_DEADLINE_NEVER, &first), 0);
	const struct lf_wait_many nothing = { .deadline = LF_DEADLINE_NEVER };
	assert_int_equal(lf_fence_wait_many(&nothing, &first), 0);
	assert_int_equal(first, 4711);
	lf_fence_put(f);
}

static void failed_wait_writes_no_index(void **state)
{
	struct lf_fence *fences[2] = { make_fence(), lf_fence_stub() };
	size_t first = 4711;
	assert_int_equal(wait_for(fences, 2, 2, 0, &first), -ETIME);
	assert_int_equal(first, 4711);
	lf_fence_put(fences[0]);
}

static void index_is_not_asked_for(void **state)
{
	struct lf_fence *fences[2] = { make_fence(), lf_fence_stub() };
	assert_int_equal(wait_for(fences, 2, 1, 0, NULL), 0);
	lf_fence_put(fences[0]);
}

static void wait_that_cannot_be_is_refused(void **state)
{
	struct lf_fence *f = make_fence();
	struct lf_wait_slot slot;
	size_t first = 4711;
	assert_int_equal(wait_for(&f, 1, 2, 0, &first), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(wait_for(NULL, 0, 1, 0, &first), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(lf_fence_wait_many(NULL, &first), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	const struct lf_wait_many no_fences = { .slots = &slot, .count = 1, .need = 1 };
	assert_int_equal(lf_fence_wait_many(&no_fences, &first), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	const struct lf_wait_many no_slots = { .fences = &f, .count = 1, .need = 1 };
	assert_int_equal(lf_fence_wait_many(&no_slots, &first), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	const struct lf_wait_many too_many = { .fences = &f, .slots = &slot, .count = (size_t)INT32_MAX + 1, .need = 1 };
	assert_int_equal(lf_fence_wait_many(&too_many, &first), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(first, 4711);
	lf_fence_put(f);
}

static void same_slots_serve_one_wait_after_the_other(void **state)
{
	struct lf_fence *fences[2] = { make_fence(), make_fence() };
	struct lf_wait_slot slots[2];
	memset(slots, 0xff, sizeof(slots));
	const struct lf_wait_many wait = { .fences = fences, .slots = slots, .count = 2, .need = 1, .deadline = 0 };
	for (int i = 0; i < 10; i++)
		assert_int_equal(lf_fence_wait_many(&wait, NULL), -ETIME);
	lf_fence_signal(fences[1], 0);
	assert_int_equal(lf_fence_wait_many(&wait, NULL), 0);
	/* the slots are the caller's again, whatever becomes of the fences */
	memset(slots, 0xff, sizeof(slots));
	lf_fence_signal(fences[0], 0);
	lf_fence_put(fences[0]);
	lf_fence_put(fences[1]);
}

static void wait_takes_its_nodes_back_when_satisfied_and_when_late(void **state)
{
	struct lf_fence *fences[3] = { make_fence(), make_fence(), make_fence() };
	struct waiter w = { .fences = fences, .count = 3, .need = 1, .deadline = LF_DEADLINE_NEVER };
	uintptr_t empty = word_of(fences[0]);
	start_wait(&w, fences[2]);
	lf_fence_signal(fences[1], 0);
	thread_join(w.thread);
	assert_int_equal(w.first, 1);
	assert_true(word_of(fences[0]) == empty);
	assert_true(word_of(fences[2]) == empty);
	assert_int_equal(wait_for(fences, 3, 2, 0, NULL), -ETIME);
	assert_true(word_of(fences[0]) == empty);
	assert_true(word_of(fences[2]) == empty);
	/* pending, put for the last time: reported if a node were left */
	for (int i = 0; i < 3; i++)
		lf_fence_put(fences[i]);
}

static void fence_dies_right_after_it_woke_its_waiter(void **state)
{
	for (int i = 0; i < 200; i++) {
		struct lf_fence *f = make_fence();
		struct waiter w = { .fences = &f, .count = 1, .need = 1, .deadline = LF_DEADLINE_NEVER };
		lf_fence_get(f);
		start_wait(&w, f);
		lf_fence_signal(f, 0);
		lf_fence_put(f);
		thread_join(w.thread);
		lf_fence_put(f);
	}
}

/* --- Costs -------------------------------------------------------------------------------------------------------------- */

static void waits_allocate_nothing(void **state)
{
	struct mixed m;
	make_mixed(&m);
	long before = alloc_calls();
	assert_int_equal(wait_for(m.fences, MIXED, 1, 0, NULL), 0);
	assert_int_equal(wait_for(m.fences, MIXED, MIXED, 0, NULL), -ETIME);
	assert_int_equal(lf_fence_wait(m.fences[0], 0), -ETIME);
	assert_int_equal(lf_fence_wait_drained(m.fences[0], 0), -ETIME);
	assert_int_equal(alloc_calls(), before);
	/* and asleep, on a thread that never used the library before */
	struct waiter w = { .fences = m.fences, .count = MIXED, .need = MIXED, .deadline = LF_DEADLINE_NEVER };
	start_wait(&w, m.fences[7]);
	lf_fence_signal(m.fences[0], 0);
	lf_timeline_lose(m.ordered, -EIO);
	lf_timeline_lose(m.unordered, -EIO);
	thread_join(w.thread);
	assert_int_equal(w.result, 0);
	assert_int_equal(w.allocations, 0);
	drop_mixed(&m);
}

static int64_t thread_cpu_time(void)
{
	struct timespec ts;
	must(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts) == 0);
	return (int64_t)ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* The only test that lets time pass: what it measures is processor time, which a waiter that sleeps does not use. */
static void wait_of_a_second_uses_no_processor_time(void **state)
{
	struct lf_fence *fences[4];
	for (int i = 0; i < 4; i++)
		fences[i] = make_fence();
	int64_t before = thread_cpu_time();
	assert_int_equal(lf_fence_wait(fences[0], lf_now() + INT64_C(300000000)), -ETIME);
	assert_int_equal(wait_for(fences, 4, 2, lf_now() + INT64_C(400000000), NULL), -ETIME);
	assert_int_equal(lf_fence_wait_drained(fences[0], lf_now() + INT64_C(300000000)), -ETIME);
	int64_t used = thread_cpu_time() - before;
	assert_true(used < INT64_C(50000000));
	for (int i = 0; i < 4; i++)
		lf_fence_put(fences[i]);
}

static void wait_ends_no_earlier_than_its_deadline(void **state)
{
	struct lf_fence *f = make_fence();
	int64_t deadline = lf_now() + INT64_C(2000000);
	assert_int_equal(lf_fence_wait(f, deadline), -ETIME);
	assert_true(lf_now() >= deadline);
	lf_fence_put(f);
}

/* --- Where waiting is not allowed --------------------------------------------------------------------------------------- */

static void wait_inside_a_read_section_is_refused_unless_satisfied(void **state)
{
	struct lf_fence *f = make_fence(), *done = lf_fence_stub();
	struct lf_fence *fences[2] = { f, done };
	lf_read_lock();
	assert_int_equal(lf_fence_wait(f, LF_DEADLINE_NEVER), -EDEADLK);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(wait_for(fences, 2, 2, LF_DEADLINE_NEVER, NULL), -EDEADLK);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(lf_fence_wait_drained(f, LF_DEADLINE_NEVER), -EDEADLK);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(lf_fence_wait(done, LF_DEADLINE_NEVER), 0);
	assert_int_equal(wait_for(fences, 2, 1, LF_DEADLINE_NEVER, NULL), 0);
	assert_int_equal(wait_for(fences, 2, 0, LF_DEADLINE_NEVER, NULL), 0);
	assert_int_equal(lf_fence_wait_drained(done, LF_DEADLINE_NEVER), 0);
	assert_int_equal(take_misuse(), 0);
	lf_read_unlock();
	/* the refused waits left nothing behind */
	lf_fence_put(f);
}

struct in_callback {
	struct lf_fence_cb cb;
	struct lf_fence *pending;
	int wait, wait_many, wait_drained; /* results for a pending fence */
	int done_wait, done_wait_many, done_wait_drained; /* results for a drained one */
};

static void wait_in_every_way(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct in_callback *in = (struct in_callback *)(void *)cb;
	struct lf_fence *done = lf_fence_stub();
	struct lf_fence *fences[2] = { in->pending, done };
	in->wait = lf_fence_wait(in->pending, LF_DEADLINE_NEVER);
	in->wait_many = wait_for(fences, 2, 2, LF_DEADLINE_NEVER, NULL);
	in->wait_drained = lf_fence_wait_drained(in->pending, LF_DEADLINE_NEVER);
	in->done_wait = lf_fence_wait(done, LF_DEADLINE_NEVER);
	in->done_wait_many = wait_for(fences, 2, 1, LF_DEADLINE_NEVER, NULL);
	in->done_wait_drained = lf_fence_wait_drained(done, LF_DEADLINE_NEVER);
}

static void wait_inside_a_callback_is_refused_unless_satisfied(void **state)
{
	struct lf_fence *f = make_fence();
	struct in_callback in = { .cb = LF_FENCE_CB_INIT, .pending = make_fence() };
	assert_int_equal(lf_fence_add_callback(f, &in.cb, wait_in_every_way), 0);
	lf_fence_signal(f, 0);
	assert_int_equal(in.wait, -EDEADLK);
	assert_int_equal(in.wait_many, -EDEADLK);
	assert_int_equal(in.wait_drained, -EDEADLK);
	assert_int_equal(in.done_wait, 0);
	assert_int_equal(in.done_wait_many, 0);
	assert_int_equal(in.done_wait_drained, 0);
	assert_int_equal(take_misuse(), 3);
	lf_fence_put(f);
	lf_fence_put(in.pending);
}

/* --- Drained ------------------------------------------------------------------------------------------------------------ */

struct blocker {
	struct lf_fence_cb cb;
	struct flag entered, leave;
	int written;
};

static void block(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct blocker *b = (struct blocker *)(void *)cb;
	flag_set(&b->entered);
	flag_wait(&b->leave);
	b->written = 4711;
}

static void *signal_on_thread(void *arg)
{
	lf_fence_signal(arg, 0);
	return NULL;
}

static void wait_drained_returns_after_the_last_callback_has(void **state)
{
	struct lf_fence *f = make_fence();
	struct blocker b = { .cb = LF_FENCE_CB_INIT };
	flag_init(&b.entered);
	flag_init(&b.leave);
	assert_int_equal(lf_fence_add_callback(f, &b.cb, block), 0);
	/* one that comes while the fence is pending, and one that comes while it is signaled and not drained */
	struct single early = { .f = f, .deadline = LF_DEADLINE_NEVER, .wait = lf_fence_wait_drained, .payload = &b.written };
	struct single late = early;
	uintptr_t before = word_of(f);
	pthread_t early_thread = thread_start(wait_single, &early, 0);
	let_come(f, before);
	pthread_t signaller = thread_start(signal_on_thread, f, 0);
	flag_wait(&b.entered);
	pthread_t late_thread = thread_start(wait_single, &late, 0);
	assert_int_equal(lf_fence_wait(f, LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_fence_wait_drained(f, 0), -ETIME);
	assert_false(lf_fence_is_drained(f));
	flag_set(&b.leave);
	thread_join(early_thread);
	thread_join(late_thread);
	thread_join(signaller);
	assert_int_equal(early.result, 0);
	assert_int_equal(late.result, 0);
	assert_int_equal(early.payload_seen, 4711);
	assert_int_equal(late.payload_seen, 4711);
	assert_true(lf_fence_is_drained(f));
	flag_fini(&b.entered);
	flag_fini(&b.leave);
	lf_fence_put(f);
}

static void wait_drained_for_a_fence_without_callbacks_ends_with_the_signal(void **state)
{
	struct single s = { .f = make_fence(), .deadline = LF_DEADLINE_NEVER, .wait = lf_fence_wait_drained };
	uintptr_t before = word_of(s.f);
	pthread_t thread = thread_start(wait_single, &s, 0);
	let_come(s.f, before);
	lf_fence_signal(s.f, 0);
	thread_join(thread);
	assert_int_equal(s.result, 0);
	assert_true(lf_fence_is_drained(s.f));
	lf_fence_put(s.f);
}

static void what_is_missing_is_reported(void **state)
{
	struct lf_fence *fences[2] = { NULL, NULL };
	struct lf_wait_slot slots[2];
	const struct lf_wait_many wait = { .fences = fences, .count = 2, .slots = slots };
	size_t first;

	(void)state;
	assert_int_equal(lf_fence_create(&fences[0]), 0);
	assert_int_equal(lf_fence_wait(NULL, 0), -EINVAL);
	assert_int_equal(lf_fence_wait_many(&wait, &first), -EINVAL);
	assert_true(log_contains("fence 1 is NULL"));
	assert_int_equal(lf_fence_wait_drained(NULL, 0), -EINVAL);
	assert_int_equal(log_count(LF_LOG_MISUSE), 3);
	lf_fence_put(fences[0]);
	log_reset();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(wait_for_a_signaled_fence_returns_at_once),
		TEST(wait_with_a_deadline_in_the_past_asks),
		TEST(wait_returns_0_whatever_the_result),
		TEST(waiting_thread_wakes_when_the_fence_is_signaled),
		TEST(many_threads_wait_for_one_fence_and_all_wake),
		TEST(signal_wakes_before_a_deadline_that_is_far_away),
		TEST(deadline_is_compared_with_the_replaced_clock),
		TEST(wait_does_not_end_before_its_deadline_on_the_replaced_clock),
		TEST(wait_drained_and_wait_many_keep_deadlines_on_the_replaced_clock),
		TEST(wait_for_any_is_satisfied_by_one_that_is_signaled),
		TEST(wait_counts_a_fence_that_occurs_twice_twice),
		TEST(sleeping_wait_counts_a_fence_that_occurs_twice_twice),
		TEST(wait_for_all_of_mixed_kinds_returns_after_the_last),
		TEST(wait_for_at_least_n_returns_with_the_nth),
		TEST(first_is_the_smallest_signaled_index_and_not_the_first_in_time),
		TEST(need_of_0_is_satisfied_at_once_and_writes_no_index),
		TEST(failed_wait_writes_no_index),
		TEST(index_is_not_asked_for),
		TEST(wait_that_cannot_be_is_refused),
		TEST(same_slots_serve_one_wait_after_the_other),
		TEST(wait_takes_its_nodes_back_when_satisfied_and_when_late),
		TEST(fence_dies_right_after_it_woke_its_waiter),
		TEST(waits_allocate_nothing),
		TEST(wait_of_a_second_uses_no_processor_time),
		TEST(wait_ends_no_earlier_than_its_deadline),
		TEST(wait_inside_a_read_section_is_refused_unless_satisfied),
		TEST(wait_inside_a_callback_is_refused_unless_satisfied),
		TEST(wait_drained_returns_after_the_last_callback_has),
		TEST(wait_drained_for_a_fence_without_callbacks_ends_with_the_signal),
		TEST(what_is_missing_is_reported),
	};
	return TEST_MAIN(tests);
}
