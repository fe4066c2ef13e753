/* SPDX-License-Identifier: MIT */
/*
 * Readers walk, test and snapshot a reservation while writers add to it, compact it and replace in it, and fences are put for the last
 * time.
 *
 * Oracle:
 * - a walk finds the writers' fences in the order in which they were added (their seqnos rise), each of them the one that was made: what
 *   surrounds it says so, and what its writer wrote before signaling is seen with the signal;
 * - a fence that was in the list and pending before a walk and still is after it was found by it, and lf_resv_test_signaled() did not say
 *   true in between; the same for a snapshot, which is the same when it is walked again later;
 * - of the context that is replaced there is one fence in every walk: a replacement is seen whole;
 * - a reference that is refused inside a section belongs to a signaled fence;
 * - at the end nothing is left.
 * Freed memory is overwritten. A hit is a walk with such a fence, or one that found the list changed when it had ended; healthy output has
 * many of each, some snapshots that outlived their list, and some references that were refused.
 */
#include "testing.h"

#include <sched.h>
#include <stdatomic.h>

enum { READERS = 2, WRITERS = 2, WINDOW = 12 };

static const uint64_t magic = UINT64_C(0x600df00d4e5e4f00);

struct payload {
	uint64_t magic;
	uint64_t seqno;
	struct lf_fence fence;
	uint64_t result; /* written before the signal, not atomic */
};

static struct {
	long rounds;
	uint64_t seed;
	struct lf_resv resv;
	struct lf_timeline *line, *preempt; /* the writers' fences; those that are replaced */
	uint64_t last, last_preempt; /* protected by the lock */
	_Atomic uint64_t pending[WRITERS]; /* one fence of each writer that is in the list and pending; 0: none for sure */
	atomic_int writing;
	atomic_long walks, hits, changed, tests, snapshots, outlived, refused, taken;
} shared;

static struct payload *to_payload(struct lf_fence *f)
{
	return (struct payload *)(void *)((char *)f - offsetof(struct payload, fence));
}

/* --- Readers --------------------------------------------------------------------------------------------------------------- */

/* What a walk found. */
struct seen {
	uint64_t last; /* of the writers' fences */
	uint64_t sum; /* of all seqnos: the same when walked again */
	unsigned preempts;
	bool wanted;
};

static void see(struct seen *seen, struct lf_fence *f, uint64_t wanted)
{
	struct payload *p = to_payload(f);
	uint64_t seqno = lf_fence_seqno(f);
	if (lf_fence_context(f) == lf_timeline_context(shared.preempt)) {
		seen->preempts++;
		return;
	}
	must(p->magic == magic);
	must(p->seqno == seqno);
	must(lf_fence_context(f) == lf_timeline_context(shared.line));
	must(seqno > seen->last);
	if (lf_fence_is_signaled(f))
		must(lf_fence_status(f) == -ECANCELED || p->result == ~seqno);
	seen->last = seqno;
	seen->sum += seqno;
	seen->wanted = seen->wanted || seqno == wanted;
}

static struct seen walk(struct lf_resv_cursor *cursor, uint64_t wanted)
{
	struct seen seen = { 0 };
	struct lf_fence *f;
	while ((f = lf_resv_cursor_next(cursor)) != NULL)
		see(&seen, f, wanted);
	must(seen.preempts == 1);
	return seen;
}

/* Keeps one of the fences for longer than the section. */
static struct lf_fence *take_one(struct lf_resv_cursor *cursor, uint64_t *random)
{
	uint64_t skip = random_next(random) % WINDOW;
	struct lf_fence *f, *mine;
	while ((f = lf_resv_cursor_next(cursor)) != NULL && skip--)
		;
	mine = lf_fence_tryget(f);
	if (f != NULL && mine == NULL) {
		must(lf_fence_is_signaled(f));
		atomic_fetch_add(&shared.refused, 1);
	}
	return mine;
}

static void walk_once(uint64_t *random)
{
	atomic_uint_fast64_t *pending = &shared.pending[random_next(random) % WRITERS];
	struct lf_resv_cursor cursor, again;
	struct lf_fence *mine = NULL;
	uint64_t before = atomic_load(pending), generation;
	struct seen seen;
	lf_read_lock();
	generation = lf_resv_generation(&shared.resv);
	lf_resv_cursor_begin(&cursor, &shared.resv, LF_USAGE_BOOKKEEP);
	again = cursor;
	seen = walk(&cursor, before);
	if (random_next(random) % 8 == 0)
		sched_yield();
	must(walk(&again, before).sum == seen.sum);
	if (random_next(random) % 4 == 0) {
		lf_resv_cursor_begin(&again, &shared.resv, LF_USAGE_BOOKKEEP);
		sched_yield();
		mine = take_one(&again, random);
	}
	if (lf_resv_generation(&shared.resv) != generation)
		atomic_fetch_add(&shared.changed, 1);
	lf_read_unlock();
	if (before != 0 && atomic_load(pending) == before) {
		must(seen.wanted);
		atomic_fetch_add(&shared.hits, 1);
	}
	atomic_fetch_add(&shared.walks, 1);
	if (mine) {
		must(lf_fence_seqno(mine) != 0);
		lf_fence_put(mine);
		atomic_fetch_add(&shared.taken, 1);
	}
}

static void test_once(uint64_t *random)
{
	atomic_uint_fast64_t *pending = &shared.pending[random_next(random) % WRITERS];
	uint64_t before = atomic_load(pending);
	bool signaled = lf_resv_test_signaled(&shared.resv, LF_USAGE_READ);
	if (before != 0 && atomic_load(pending) == before) {
		must(!signaled);
		atomic_fetch_add(&shared.tests, 1);
	}
}

static void snapshot_once(uint64_t *random)
{
	atomic_uint_fast64_t *pending = &shared.pending[random_next(random) % WRITERS];
	uint64_t before = atomic_load(pending), generation = lf_resv_generation(&shared.resv);
	struct lf_resv_cursor cursor;
	struct lf_snapshot snapshot;
	struct seen seen;
	lf_resv_snapshot(&shared.resv, &snapshot);
	lf_snapshot_cursor_begin(&cursor, &snapshot, LF_USAGE_BOOKKEEP);
	seen = walk(&cursor, before);
	if (before != 0 && atomic_load(pending) == before) {
		must(seen.wanted);
		must(!lf_snapshot_test_signaled(&snapshot, LF_USAGE_READ) || atomic_load(pending) != before);
		atomic_fetch_add(&shared.snapshots, 1);
	}
	if (random_next(random) % 4 == 0) {
		struct lf_fence **fences;
		size_t n;
		must(lf_resv_get_fences(&shared.resv, LF_USAGE_BOOKKEEP, &fences, &n) == 0);
		while (n)
			lf_fence_put(fences[--n]);
		lf_free(fences);
	}
	for (uint64_t i = random_next(random) % 4; i; i--)
		sched_yield();
	lf_snapshot_cursor_begin(&cursor, &snapshot, LF_USAGE_BOOKKEEP);
	must(walk(&cursor, before).sum == seen.sum);
	if (lf_resv_generation(&shared.resv) > generation + WINDOW)
		atomic_fetch_add(&shared.outlived, 1);
	lf_snapshot_put(&snapshot);
}

static void *reader(void *arg)
{
	uint64_t random = shared.seed + (uint64_t)*(int *)arg + 1;
	while (atomic_load(&shared.writing) > 0) {
		switch (random_next(&random) % 8) {
		case 0:
			snapshot_once(&random);
			break;
		case 1:
		case 2:
			test_once(&random);
			break;
		default:
			walk_once(&random);
			break;
		}
	}
	return NULL;
}

/* --- Writers --------------------------------------------------------------------------------------------------------------- */

static struct lf_fence *make_payload(void)
{
	struct payload *p = lf_alloc(sizeof(*p));
	must(p != NULL);
	must(lf_fence_init(&p->fence, offsetof(struct payload, fence)) == 0);
	p->magic = magic;
	return &p->fence;
}

static struct lf_fence *add_one(void)
{
	struct lf_fence *f = make_payload();
	must(lf_resv_lock(&shared.resv, NULL) == 0);
	must(lf_resv_reserve(&shared.resv, 1) == 0);
	to_payload(f)->seqno = ++shared.last;
	must(lf_timeline_emit_fence(shared.line, shared.last, f) == 0);
	lf_resv_add(&shared.resv, f, LF_USAGE_READ);
	lf_resv_unlock(&shared.resv);
	return f;
}

static void replace_one(void)
{
	struct lf_fence *f;
	uint64_t seqno;
	must(lf_resv_lock(&shared.resv, NULL) == 0);
	must(lf_resv_reserve_replace(&shared.resv, 1) == 0);
	seqno = ++shared.last_preempt;
	must(lf_timeline_emit(shared.preempt, seqno, &f) == 0);
	must(lf_resv_replace(&shared.resv, lf_timeline_context(shared.preempt), f, LF_USAGE_BOOKKEEP) == 1);
	lf_resv_unlock(&shared.resv);
	lf_fence_put(f);
	if (seqno > 2)
		lf_timeline_signal_to(shared.preempt, seqno - 2, 0); /* out of the list for good */
}

static void end_one(struct lf_fence *f)
{
	to_payload(f)->result = ~to_payload(f)->seqno;
	must(lf_timeline_signal_one(shared.line, f, 0));
	lf_fence_put(f);
}

static void *writer(void *arg)
{
	int me = *(int *)arg;
	uint64_t random = shared.seed + (uint64_t)me + 1000;
	struct lf_fence *window[WINDOW] = { NULL };
	for (long i = 0; i < shared.rounds; i++) {
		struct lf_fence **slot = &window[random_next(&random) % WINDOW];
		if (*slot) {
			if (atomic_load(&shared.pending[me]) == lf_fence_seqno(*slot))
				atomic_store(&shared.pending[me], 0);
			end_one(*slot);
		}
		*slot = add_one();
		if (atomic_load(&shared.pending[me]) == 0)
			atomic_store(&shared.pending[me], lf_fence_seqno(*slot));
		if (random_next(&random) % 16 == 0)
			replace_one();
		if (random_next(&random) % 64 == 0)
			sched_yield();
	}
	atomic_store(&shared.pending[me], 0);
	for (int i = 0; i < WINDOW; i++) {
		if (window[i])
			end_one(window[i]);
	}
	atomic_fetch_sub(&shared.writing, 1);
	return NULL;
}

static void every_walk_and_snapshot_is_the_list_as_it_was_at_one_moment(void **state)
{
	const struct lf_timeline_desc desc = { .name = "race", .flags = LF_TIMELINE_UNORDERED }, preempt = { .name = "preempt" };
	pthread_t threads[READERS + WRITERS];
	int numbers[READERS + WRITERS];
	struct lf_fence *first;
	shared.seed = test_seed();
	shared.rounds = test_rounds(100000);
	test_watchdog(100, "race_resv");
	must(lf_timeline_create(&desc, &shared.line) == 0);
	must(lf_timeline_create(&preempt, &shared.preempt) == 0);
	lf_resv_init(&shared.resv, NULL);
	must(lf_resv_lock(&shared.resv, NULL) == 0);
	must(lf_resv_reserve(&shared.resv, 1) == 0);
	must(lf_timeline_emit(shared.preempt, ++shared.last_preempt, &first) == 0);
	lf_resv_add(&shared.resv, first, LF_USAGE_BOOKKEEP);
	lf_resv_unlock(&shared.resv);
	lf_fence_put(first);
	atomic_store(&shared.writing, WRITERS);
	for (int t = 0; t < READERS + WRITERS; t++) {
		numbers[t] = t < READERS ? t : t - READERS;
		threads[t] = thread_start(t < READERS ? reader : writer, &numbers[t], 0);
	}
	for (int t = 0; t < READERS + WRITERS; t++)
		thread_join(threads[t]);
	lf_resv_fini(&shared.resv);
	lf_timeline_put(shared.line);
	lf_timeline_put(shared.preempt);
	test_watchdog(0, "");
	test_note("race_resv: %ld fences added, %lu replacements", shared.rounds * WRITERS, (unsigned long)shared.last_preempt);
	test_note("race_resv: walks %ld: with a fence that had to be there %ld, changed meanwhile %ld", atomic_load(&shared.walks),
		atomic_load(&shared.hits), atomic_load(&shared.changed));
	test_note("race_resv: tests that had to say no %ld; snapshots with a fence that had to be there %ld, outlived their list %ld",
		atomic_load(&shared.tests), atomic_load(&shared.snapshots), atomic_load(&shared.outlived));
	test_note("race_resv: references refused %ld, taken %ld", atomic_load(&shared.refused), atomic_load(&shared.taken));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_walk_and_snapshot_is_the_list_as_it_was_at_one_moment),
	};
	return TEST_MAIN(tests);
}
