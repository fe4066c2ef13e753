/* SPDX-License-Identifier: MIT */
/*
 * The Reservation objects table of the budgets: libfence beside an array of fences under a mutex.
 *
 * The budgets were stated against a pthread_mutex pair, against kernel code, or in ns of the machine on which that pair took 18 ns; all but
 * one are converted to mutex pairs of the same run, as in ../containers/bench_containers.c. The one is test_signaled, whose budget
 * is a multiple of the mutex with an array.
 *
 * What is timed where the budget leaves it open:
 *
 *   add               Fences of one timeline follow each other in the list, so that what is added makes the one before superfluous. The
 *                     growing and compacting of the list that this needs is in the time, frees that wait for a grace period are not.
 *   walk              Section, cursor, and one lf_fence_is_signaled() for each fence. The CPU time of one of the readers. The writer adds
 *                     the same 16 fences again and again, so that readers see lists of 16 and more.
 *   scaling           1 to 1,024 fences, each of a context of its own; those that are added take the place of one of them. Asking and walking
 *                     are for each fence; a snapshot is taken and put. Threads that lock take 4 of 64 reservations in random order; the
 *                     peer sorts what it locks. Bytes are those of lists, without fences.
 *   a transaction     From a ticket to the last unlock, on the wall, until both threads have done theirs: the time that each had for one.
 */
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <string.h>

#include <libfence/libfence.h>

#include "bench.h"
#include "peers.h"

#define OTHERS     16 /* fences in a list */
#define MOST       1024
#define LOCKS      8 /* of a transaction */
#define ADDS       256 /* between two drains */
#define AT_A_TIME  64 /* what a partner does before it looks whether to stop */
#define READERS    4
#define CACHE_LINE 64

/* Deferred frees, outside the timed sections. */
static void drain(struct bench_run *run)
{
	int64_t begun = bench_wall_ns();

	BENCH_CHECK(lf_reclaim_barrier() == 0);
	run->reclaim_ns += bench_wall_ns() - begun;
}

/* --- A list of 16 -------------------------------------------------------------------------------------------------------- */

/* A reservation with pending fences, each of a timeline of its own. */
struct lf_list {
	struct lf_resv resv;
	size_t count;
	struct lf_timeline *timelines[MOST];
	struct lf_fence *fences[MOST];
};

static struct lf_timeline *lf_make_timeline(void)
{
	struct lf_timeline_desc desc = { .name = "bench" };
	struct lf_timeline *tl;

	BENCH_CHECK(lf_timeline_create(&desc, &tl) == 0);
	return tl;
}

static void lf_add(struct lf_resv *resv, struct lf_fence *f)
{
	BENCH_CHECK(lf_resv_lock(resv, NULL) == 0);
	BENCH_CHECK(lf_resv_reserve(resv, 1) == 0);
	lf_resv_add(resv, f, LF_USAGE_READ);
	lf_resv_unlock(resv);
}

static struct lf_list *lf_list_create(size_t count)
{
	struct lf_list *list = bench_alloc(sizeof(*list));

	lf_resv_init(&list->resv, NULL);
	list->count = count;
	for (size_t i = 0; i < count; i++) {
		list->timelines[i] = lf_make_timeline();
		BENCH_CHECK(lf_timeline_emit(list->timelines[i], 0, &list->fences[i]) == 0);
		lf_add(&list->resv, list->fences[i]);
	}
	return list;
}

static void lf_list_signal(struct lf_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		BENCH_CHECK(lf_timeline_signal_to(list->timelines[i], 1, 0) == 1);
}

static void lf_list_destroy(struct lf_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		lf_fence_put(list->fences[i]);
		lf_timeline_put(list->timelines[i]);
	}
	lf_resv_fini(&list->resv);
	BENCH_CHECK(lf_reclaim_barrier() == 0); /* nobody reads it any more */
	free(list);
}

static struct cv_fence *cv_make(void)
{
	struct cv_fence *f = cv_fence_create();

	BENCH_CHECK(f);
	return f;
}

static void cv_add(struct cv_resv *resv, struct cv_fence *f, uint64_t context)
{
	pthread_mutex_lock(&resv->lock);
	BENCH_CHECK(cv_resv_add(resv, f, context));
	pthread_mutex_unlock(&resv->lock);
}

/* The contexts of what is in it begin at 1. */
static struct cv_resv *cv_list_create(size_t count)
{
	struct cv_resv *resv = cv_resv_create();

	BENCH_CHECK(resv);
	for (size_t i = 0; i < count; i++) {
		struct cv_fence *f = cv_make();

		cv_add(resv, f, i + 1);
		cv_fence_put(f);
	}
	return resv;
}

/* --- Locking ------------------------------------------------------------------------------------------------------------- */

static void lf_lock_one(struct bench_run *run)
{
	struct lf_list *list = lf_list_create(0);

	bench_start(run);
	for (size_t i = 0; i < run->n; i++) {
		BENCH_CHECK(lf_resv_lock(&list->resv, NULL) == 0);
		lf_resv_unlock(&list->resv);
	}
	bench_stop(run);
	lf_list_destroy(list);
}

static void lf_create_lists(struct lf_list **lists)
{
	for (size_t i = 0; i < LOCKS; i++)
		lists[i] = lf_list_create(0);
}

static void lf_destroy_lists(struct lf_list **lists)
{
	for (size_t i = 0; i < LOCKS; i++)
		lf_list_destroy(lists[i]);
}

static void lf_lock_with_ticket(struct bench_run *run)
{
	struct lf_list *lists[LOCKS];

	lf_create_lists(lists);
	bench_start(run);
	for (size_t done = 0; done < run->n; done += LOCKS) {
		struct lf_ticket ticket;

		lf_ticket_init(&ticket, NULL);
		for (size_t i = 0; i < LOCKS; i++)
			BENCH_CHECK(lf_resv_lock(&lists[i]->resv, &ticket) == 0);
		for (size_t i = LOCKS; i-- > 0;)
			lf_resv_unlock(&lists[i]->resv);
		lf_ticket_fini(&ticket);
	}
	bench_stop(run);
	lf_destroy_lists(lists);
}

static void lf_lock_with_exec(struct bench_run *run)
{
	struct lf_list *lists[LOCKS];

	lf_create_lists(lists);
	bench_start(run);
	for (size_t done = 0; done < run->n; done += LOCKS) {
		struct lf_exec x;

		lf_exec_init(&x, NULL);
		while (lf_exec_next(&x)) {
			for (size_t i = 0; i < LOCKS; i++)
				lf_exec_lock(&x, &lists[i]->resv, 0);
		}
		BENCH_CHECK(lf_exec_error(&x) == 0);
		lf_exec_fini(&x);
	}
	bench_stop(run);
	lf_destroy_lists(lists);
}

/* --- Adding, perhaps under the eyes of readers --------------------------------------------------------------------------- */

/* The threads that read or write a list while the caller does something. */
struct crowd {
	void (*read)(void *list, size_t n);
	void (*write)(void *list, size_t n);
	void *list;
	size_t count;
	pthread_t threads[READERS];
	_Alignas(CACHE_LINE) atomic_size_t running;
	_Alignas(CACHE_LINE) atomic_bool stop;
};

static void *crowd_member(struct crowd *crowd, void (*act)(void *list, size_t n))
{
	act(crowd->list, AT_A_TIME);
	atomic_fetch_add_explicit(&crowd->running, 1, memory_order_relaxed); /* relaxed: nothing else is handed over */
	while (!atomic_load_explicit(&crowd->stop, memory_order_relaxed)) /* relaxed: likewise */
		act(crowd->list, AT_A_TIME);
	return NULL;
}

static void *crowd_reader(void *arg)
{
	struct crowd *crowd = arg;

	return crowd_member(crowd, crowd->read);
}

static void *crowd_writer(void *arg)
{
	struct crowd *crowd = arg;

	return crowd_member(crowd, crowd->write);
}

/* The caller's CPU is the first; the others begin on the second. */
static void crowd_begin(struct crowd *crowd, size_t readers, bool writer)
{
	for (size_t i = 0; i < readers; i++)
		crowd->threads[crowd->count++] = bench_thread(crowd_reader, crowd, (int)(i + 1) % 2);
	if (writer)
		crowd->threads[crowd->count++] = bench_thread(crowd_writer, crowd, 1);
	while (atomic_load_explicit(&crowd->running, memory_order_relaxed) < crowd->count) /* relaxed: likewise */
		;
}

static void crowd_end(struct crowd *crowd)
{
	atomic_store_explicit(&crowd->stop, true, memory_order_relaxed); /* relaxed: likewise */
	for (size_t i = 0; i < crowd->count; i++)
		bench_join(crowd->threads[i]);
	free(crowd);
}

/* Returns how many fences were seen. */
static size_t lf_walk(struct lf_resv *resv, size_t n)
{
	size_t seen = 0, pending = 0;

	for (size_t i = 0; i < n; i++) {
		struct lf_resv_cursor cursor;
		struct lf_fence *f;

		lf_read_lock();
		lf_resv_cursor_begin(&cursor, resv, LF_USAGE_READ);
		while ((f = lf_resv_cursor_next(&cursor)) != NULL) {
			seen++;
			pending += !lf_fence_is_signaled(f);
		}
		lf_read_unlock();
	}
	BENCH_CHECK(pending == seen && seen >= n);
	return seen;
}

static void lf_read(void *list, size_t n)
{
	lf_walk(&((struct lf_list *)list)->resv, n);
}

static void lf_write(void *arg, size_t n)
{
	struct lf_list *list = arg;

	for (size_t i = 0; i < n; i++)
		lf_add(&list->resv, list->fences[i % OTHERS]);
}

static struct crowd *lf_crowd(struct lf_list *list, size_t readers, bool writer)
{
	struct crowd *crowd = bench_alloc(sizeof(*crowd));

	crowd->read = lf_read;
	crowd->write = lf_write;
	crowd->list = list;
	crowd_begin(crowd, readers, writer);
	return crowd;
}

static size_t cv_walk(struct cv_resv *resv, size_t n)
{
	size_t seen = 0, pending = 0;

	for (size_t i = 0; i < n; i++) {
		pthread_mutex_lock(&resv->lock);
		for (size_t k = 0; k < resv->count; k++)
			pending += !cv_fence_is_signaled(resv->entries[k].fence);
		seen += resv->count;
		pthread_mutex_unlock(&resv->lock);
	}
	BENCH_CHECK(pending == seen && seen >= n);
	return seen;
}

static void cv_read(void *list, size_t n)
{
	cv_walk(list, n);
}

static void cv_write(void *list, size_t n)
{
	static struct cv_fence *fences[OTHERS];

	for (size_t i = 0; i < n; i++) {
		if (!fences[i % OTHERS])
			fences[i % OTHERS] = cv_make();
		cv_add(list, fences[i % OTHERS], i % OTHERS + 1);
	}
}

static struct crowd *cv_crowd(struct cv_resv *list, size_t readers, bool writer)
{
	struct crowd *crowd = bench_alloc(sizeof(*crowd));

	crowd->read = cv_read;
	crowd->write = cv_write;
	crowd->list = list;
	crowd_begin(crowd, readers, writer);
	return crowd;
}

/* run->param others are there. */
static void lf_adds(struct bench_run *run, size_t readers)
{
	struct lf_list *list = lf_list_create((size_t)run->param);
	struct lf_timeline *tl = lf_make_timeline();
	struct crowd *crowd = lf_crowd(list, readers, false);
	struct lf_fence *fences[ADDS];

	for (size_t done = 0; done < run->n; done += ADDS) {
		for (size_t i = 0; i < ADDS; i++)
			BENCH_CHECK(lf_timeline_emit(tl, 0, &fences[i]) == 0);
		bench_start(run);
		for (size_t i = 0; i < ADDS; i++)
			lf_add(&list->resv, fences[i]);
		bench_stop(run);
		for (size_t i = 0; i < ADDS; i++)
			lf_fence_put(fences[i]);
		drain(run);
	}
	crowd_end(crowd);
	lf_timeline_put(tl);
	lf_list_destroy(list);
}

static void cv_adds(struct bench_run *run, size_t readers)
{
	struct cv_resv *list = cv_list_create((size_t)run->param);
	struct crowd *crowd = cv_crowd(list, readers, false);
	struct cv_fence *fences[ADDS];

	for (size_t done = 0; done < run->n; done += ADDS) {
		for (size_t i = 0; i < ADDS; i++)
			fences[i] = cv_make();
		bench_start(run);
		for (size_t i = 0; i < ADDS; i++)
			cv_add(list, fences[i], OTHERS + 1);
		bench_stop(run);
		for (size_t i = 0; i < ADDS; i++)
			cv_fence_put(fences[i]);
	}
	crowd_end(crowd);
	cv_resv_destroy(list);
}

static void lf_add_alone(struct bench_run *run)
{
	lf_adds(run, 0);
}

static void cv_add_alone(struct bench_run *run)
{
	cv_adds(run, 0);
}

static void lf_add_read(struct bench_run *run)
{
	lf_adds(run, 1);
}

static void cv_add_read(struct bench_run *run)
{
	cv_adds(run, 1);
}

/* --- Asking -------------------------------------------------------------------------------------------------------------- */

static void lf_test(struct bench_run *run)
{
	struct lf_list *list = lf_list_create(OTHERS);
	size_t yes = 0;

	BENCH_CHECK(!lf_resv_test_signaled(&list->resv, LF_USAGE_READ));
	lf_list_signal(list);
	bench_start(run);
	for (size_t i = 0; i < run->n; i++)
		yes += lf_resv_test_signaled(&list->resv, LF_USAGE_READ);
	bench_stop(run);
	BENCH_CHECK(yes == run->n);
	lf_list_destroy(list);
}

static void cv_test(struct bench_run *run)
{
	struct cv_resv *list = cv_list_create(OTHERS);
	size_t yes = 0;

	BENCH_CHECK(!cv_resv_test(list));
	for (size_t i = 0; i < OTHERS; i++)
		cv_fence_signal(list->entries[i].fence, 0);
	bench_start(run);
	for (size_t i = 0; i < run->n; i++)
		yes += cv_resv_test(list);
	bench_stop(run);
	BENCH_CHECK(yes == run->n);
	cv_resv_destroy(list);
}

static void lf_walks(struct bench_run *run, bool writer)
{
	struct lf_list *list = lf_list_create(OTHERS);
	struct crowd *crowd = lf_crowd(list, (size_t)run->param - 1, writer);
	size_t seen;

	bench_start(run);
	seen = lf_walk(&list->resv, run->n);
	bench_stop(run);
	run->n = seen;
	crowd_end(crowd);
	lf_list_destroy(list);
}

static void cv_walks(struct bench_run *run, bool writer)
{
	struct cv_resv *list = cv_list_create(OTHERS);
	struct crowd *crowd = cv_crowd(list, (size_t)run->param - 1, writer);
	size_t seen;

	bench_start(run);
	seen = cv_walk(list, run->n);
	bench_stop(run);
	run->n = seen;
	crowd_end(crowd);
	cv_resv_destroy(list);
}

static void lf_walk_read(struct bench_run *run)
{
	lf_walks(run, false);
}

static void cv_walk_read(struct bench_run *run)
{
	cv_walks(run, false);
}

static void lf_walk_written(struct bench_run *run)
{
	lf_walks(run, true);
}

static void cv_walk_written(struct bench_run *run)
{
	cv_walks(run, true);
}

/* --- Lists as they grow ---------------------------------------------------------------------------------------------------- */

/* What was added was there before, so nothing is published anew; the list is compacted now and then. */
static void lf_scale_add(struct bench_run *run)
{
	struct lf_list *list = lf_list_create((size_t)run->param);

	for (size_t done = 0; done < run->n; done += ADDS) {
		bench_start(run);
		for (size_t i = 0; i < ADDS; i++)
			lf_add(&list->resv, list->fences[i % list->count]);
		bench_stop(run);
		drain(run);
	}
	lf_list_destroy(list);
}

static void cv_scale_add(struct bench_run *run)
{
	size_t count = (size_t)run->param;
	struct cv_resv *list = cv_list_create(count);
	struct cv_fence *f = cv_make();

	bench_start(run);
	for (size_t i = 0; i < run->n; i++)
		cv_add(list, f, i % count + 1);
	bench_stop(run);
	cv_fence_put(f);
	cv_resv_destroy(list);
}

static void lf_scale_test(struct bench_run *run)
{
	struct lf_list *list = lf_list_create((size_t)run->param);
	size_t yes = 0;

	lf_list_signal(list);
	bench_start(run);
	for (size_t i = 0; i < run->n; i += list->count)
		yes += lf_resv_test_signaled(&list->resv, LF_USAGE_READ);
	bench_stop(run);
	BENCH_CHECK(yes * list->count == run->n);
	lf_list_destroy(list);
}

static void cv_scale_test(struct bench_run *run)
{
	struct cv_resv *list = cv_list_create((size_t)run->param);
	size_t yes = 0;

	for (size_t i = 0; i < list->count; i++)
		cv_fence_signal(list->entries[i].fence, 0);
	bench_start(run);
	for (size_t i = 0; i < run->n; i += list->count)
		yes += cv_resv_test(list);
	bench_stop(run);
	BENCH_CHECK(yes * list->count == run->n);
	cv_resv_destroy(list);
}

static void lf_scale_walk(struct bench_run *run)
{
	struct lf_list *list = lf_list_create((size_t)run->param);

	bench_start(run);
	lf_walk(&list->resv, run->n / list->count);
	bench_stop(run);
	lf_list_destroy(list);
}

static void cv_scale_walk(struct bench_run *run)
{
	struct cv_resv *list = cv_list_create((size_t)run->param);

	bench_start(run);
	cv_walk(list, run->n / list->count);
	bench_stop(run);
	cv_resv_destroy(list);
}

static void lf_scale_snapshot(struct bench_run *run)
{
	struct lf_list *list = lf_list_create((size_t)run->param);

	bench_start(run);
	for (size_t i = 0; i < run->n; i++) {
		struct lf_snapshot snapshot;

		lf_resv_snapshot(&list->resv, &snapshot);
		lf_snapshot_put(&snapshot);
	}
	bench_stop(run);
	lf_list_destroy(list);
}

/* A copy with references. */
static void cv_scale_snapshot(struct bench_run *run)
{
	struct cv_resv *list = cv_list_create((size_t)run->param);

	bench_start(run);
	for (size_t i = 0; i < run->n; i++) {
		struct cv_fence **copy = malloc(list->count * sizeof(struct cv_fence *));
		size_t count = list->count;

		BENCH_CHECK(copy);
		pthread_mutex_lock(&list->lock);
		for (size_t k = 0; k < count; k++)
			copy[k] = cv_fence_get(list->entries[k].fence);
		pthread_mutex_unlock(&list->lock);
		for (size_t k = 0; k < count; k++)
			cv_fence_put(copy[k]);
		free(copy);
	}
	bench_stop(run);
	cv_resv_destroy(list);
}

static int64_t allocated(void)
{
	struct mallinfo2 info = mallinfo2();

	return (int64_t)(info.uordblks + info.hblkhd);
}

/* So many lists of the same fences that blocks which malloc keeps at hand do not count. */
#define LISTS 1024

static void lf_scale_bytes(struct bench_run *run)
{
	struct lf_list *list = lf_list_create((size_t)run->param);
	struct lf_resv *resvs = bench_alloc(LISTS * sizeof(*resvs));
	int64_t before;

	BENCH_CHECK(lf_reclaim_barrier() == 0);
	before = allocated();
	for (size_t i = 0; i < LISTS; i++) {
		lf_resv_init(&resvs[i], NULL);
		for (size_t k = 0; k < list->count; k++)
			lf_add(&resvs[i], list->fences[k]);
	}
	BENCH_CHECK(lf_reclaim_barrier() == 0);
	bench_value(run, (allocated() - before) / (int64_t)(LISTS * list->count));
	for (size_t i = 0; i < LISTS; i++)
		lf_resv_fini(&resvs[i]);
	lf_list_destroy(list);
	free(resvs);
}

static void cv_scale_bytes(struct bench_run *run)
{
	size_t count = (size_t)run->param;
	struct cv_resv *list = cv_list_create(count), *lists[LISTS];
	int64_t before = allocated();

	for (size_t i = 0; i < LISTS; i++) {
		lists[i] = cv_resv_create();
		BENCH_CHECK(lists[i]);
		for (size_t k = 0; k < count; k++)
			cv_add(lists[i], list->entries[k].fence, k + 1);
	}
	bench_value(run, (allocated() - before) / (int64_t)(LISTS * count));
	for (size_t i = 0; i < LISTS; i++)
		cv_resv_destroy(lists[i]);
	cv_resv_destroy(list);
}

/* --- Threads that lock ----------------------------------------------------------------------------------------------------- */

#define POOL 64 /* reservations */
#define SOME 4 /* that a transaction locks */

struct pool {
	struct lf_resv *resvs;
	struct cv_resv *mutexes[POOL];
};

/* Different ones, in random order; each thread has numbers of its own. */
static void choose_some(uint64_t *state, size_t *chosen)
{
	uint64_t random = *state = *state * 6364136223846793005 + 1442695040888963407; /* Knuth, MMIX */

	for (size_t i = 0; i < SOME; i++) /* 64 are split into 4 parts, one of each; the parts change places */
		chosen[(i + (random >> 62)) % SOME] = i * (POOL / SOME) + (random >> (30 + 6 * i)) % (POOL / SOME);
}

static void lf_lock_some(void *arg, size_t n, size_t thread)
{
	struct pool *pool = arg;
	uint64_t state = thread;
	size_t chosen[SOME];

	for (size_t i = 0; i < n; i++) {
		struct lf_exec x;

		choose_some(&state, chosen);
		lf_exec_init(&x, NULL);
		while (lf_exec_next(&x)) {
			for (size_t k = 0; k < SOME; k++)
				lf_exec_lock(&x, &pool->resvs[chosen[k]], 0);
		}
		BENCH_CHECK(lf_exec_error(&x) == 0);
		lf_exec_fini(&x);
	}
}

static int compare_sizes(const void *a, const void *b)
{
	size_t x = *(const size_t *)a, y = *(const size_t *)b;

	return (x > y) - (x < y);
}

static void cv_lock_some(void *arg, size_t n, size_t thread)
{
	struct pool *pool = arg;
	uint64_t state = thread;
	size_t chosen[SOME];

	for (size_t i = 0; i < n; i++) {
		choose_some(&state, chosen);
		qsort(chosen, SOME, sizeof(*chosen), compare_sizes);
		for (size_t k = 0; k < SOME; k++)
			pthread_mutex_lock(&pool->mutexes[chosen[k]]->lock);
		for (size_t k = 0; k < SOME; k++)
			pthread_mutex_unlock(&pool->mutexes[chosen[k]]->lock);
	}
}

static void lf_share_locks(struct bench_run *run)
{
	struct pool pool = { .resvs = bench_alloc(POOL * sizeof(struct lf_resv)) };

	for (size_t i = 0; i < POOL; i++)
		lf_resv_init(&pool.resvs[i], NULL);
	bench_share(run, lf_lock_some, &pool);
	for (size_t i = 0; i < POOL; i++)
		lf_resv_fini(&pool.resvs[i]);
	free(pool.resvs);
}

static void cv_share_locks(struct bench_run *run)
{
	struct pool pool = { 0 };

	for (size_t i = 0; i < POOL; i++) {
		pool.mutexes[i] = cv_resv_create();
		BENCH_CHECK(pool.mutexes[i]);
	}
	bench_share(run, cv_lock_some, &pool);
	for (size_t i = 0; i < POOL; i++)
		cv_resv_destroy(pool.mutexes[i]);
}

/* --- Transactions of two threads that meet ------------------------------------------------------------------------------- */

struct duel {
	void (*transact)(struct duel *duel, bool backwards);
	size_t rounds;
	struct lf_ticket_class *cls;
	struct lf_resv *resvs[LOCKS];
	struct cv_resv *mutexes[LOCKS];
	_Alignas(CACHE_LINE) atomic_int ready;
	_Alignas(CACHE_LINE) atomic_bool done;
};

/* Locks all that are not locked yet. Returns the one that could not be had, and then none is locked; NULL: all are. */
static struct lf_resv *lf_lock_all(struct duel *duel, bool backwards, struct lf_ticket *ticket, struct lf_resv *locked)
{
	for (size_t i = 0; i < LOCKS; i++) {
		struct lf_resv *resv = duel->resvs[backwards ? LOCKS - 1 - i : i];

		if (resv == locked || lf_resv_lock(resv, ticket) == 0)
			continue;
		while (i-- > 0) {
			if (duel->resvs[backwards ? LOCKS - 1 - i : i] != locked)
				lf_resv_unlock(duel->resvs[backwards ? LOCKS - 1 - i : i]);
		}
		if (locked)
			lf_resv_unlock(locked);
		return resv;
	}
	return NULL;
}

static void lf_transact(struct duel *duel, bool backwards)
{
	struct lf_resv *contended = NULL;
	struct lf_ticket ticket;

	lf_ticket_init(&ticket, duel->cls);
	while ((contended = lf_lock_all(duel, backwards, &ticket, contended)) != NULL)
		BENCH_CHECK(lf_resv_lock_slow(contended, &ticket) == 0);
	for (size_t i = 0; i < LOCKS; i++)
		lf_resv_unlock(duel->resvs[i]);
	lf_ticket_fini(&ticket);
}

static void lf_exec_transact(struct duel *duel, bool backwards)
{
	struct lf_exec x;

	lf_exec_init(&x, duel->cls);
	while (lf_exec_next(&x)) {
		for (size_t i = 0; i < LOCKS; i++)
			lf_exec_lock(&x, duel->resvs[backwards ? LOCKS - 1 - i : i], 0);
	}
	BENCH_CHECK(lf_exec_error(&x) == 0);
	lf_exec_fini(&x);
}

/* Waits for one mutex at a time, holding nothing; what cannot be had is the first one next time. */
static void cv_transact(struct duel *duel, bool backwards)
{
	size_t first = 0, i;

	do {
		pthread_mutex_t *held = &duel->mutexes[backwards ? LOCKS - 1 - first : first]->lock;
		size_t was = first;

		pthread_mutex_lock(held);
		for (i = 0; i < LOCKS; i++) {
			if (i != was && pthread_mutex_trylock(&duel->mutexes[backwards ? LOCKS - 1 - i : i]->lock) != 0)
				break;
		}
		if (i == LOCKS)
			break;
		first = i;
		while (i-- > 0) {
			if (i != was)
				pthread_mutex_unlock(&duel->mutexes[backwards ? LOCKS - 1 - i : i]->lock);
		}
		pthread_mutex_unlock(held);
	} while (true);
	for (i = 0; i < LOCKS; i++)
		pthread_mutex_unlock(&duel->mutexes[i]->lock);
}

/* Both begin at the same time. */
static void duel_meet(struct duel *duel)
{
	atomic_fetch_add_explicit(&duel->ready, 1, memory_order_acq_rel);
	while (atomic_load_explicit(&duel->ready, memory_order_acquire) < 2)
		;
}

static void *duel_partner(void *arg)
{
	struct duel *duel = arg;

	duel_meet(duel);
	for (size_t i = 0; i < duel->rounds; i++)
		duel->transact(duel, true);
	atomic_store_explicit(&duel->done, true, memory_order_release);
	return NULL;
}

static void fight(struct bench_run *run, struct duel *duel)
{
	pthread_t partner;

	duel->rounds = run->n;
	partner = bench_thread(duel_partner, duel, 1);
	duel_meet(duel);
	bench_start(run);
	for (size_t i = 0; i < run->n; i++)
		duel->transact(duel, false);
	while (!atomic_load_explicit(&duel->done, memory_order_acquire))
		;
	bench_stop(run);
	bench_join(partner);
	free(duel);
}

static void lf_fight(struct bench_run *run, void (*transact)(struct duel *duel, bool backwards), struct lf_ticket_class *cls)
{
	struct duel *duel = bench_alloc(sizeof(*duel));
	struct lf_list *lists[LOCKS];

	for (size_t i = 0; i < LOCKS; i++) {
		lists[i] = bench_alloc(sizeof(*lists[i]));
		lf_resv_init(&lists[i]->resv, cls);
		duel->resvs[i] = &lists[i]->resv;
	}
	duel->transact = transact;
	duel->cls = cls;
	fight(run, duel);
	lf_destroy_lists(lists);
}

static void lf_duel(struct bench_run *run)
{
	lf_fight(run, lf_transact, NULL);
}

static void lf_duel_exec(struct bench_run *run)
{
	lf_fight(run, lf_exec_transact, NULL);
}

static void lf_duel_wound(struct bench_run *run)
{
	static struct lf_ticket_class wound_wait = LF_TICKET_CLASS_INIT(LF_WOUND_WAIT);

	lf_fight(run, lf_transact, &wound_wait);
}

static void cv_duel(struct bench_run *run)
{
	struct duel *duel = bench_alloc(sizeof(*duel));
	struct cv_resv *mutexes[LOCKS];

	for (size_t i = 0; i < LOCKS; i++)
		mutexes[i] = duel->mutexes[i] = cv_list_create(0);
	duel->transact = cv_transact;
	fight(run, duel);
	for (size_t i = 0; i < LOCKS; i++)
		cv_resv_destroy(mutexes[i]);
}

/* --- The table ----------------------------------------------------------------------------------------------------------- */

#define LF "libfence"
#define CV "mutex + array"
#define PAIR { BENCH_MUTEX, bench_mutex_pairs }
#define ANCHORED .clock = BENCH_THREAD_TIME, .peer = BENCH_MUTEX
#define WALK(readers, text, need, budget) \
	{ .name = "walk of 16, " text ", a fence", ANCHORED, .cpus = need, .step = 64, .param = readers, .calls = true, \
		.max_ratio = BENCH_IN_PAIRS(budget), .impls = { { LF, lf_walk_read }, PAIR, { CV, cv_walk_read } } }
#define WALK_WRITTEN(readers, text, budget) \
	{ .name = "walk of 16, " text " and a writer, a fence", ANCHORED, .cpus = 2, .step = 64, .param = readers, .calls = true, \
		.max_ratio = BENCH_IN_PAIRS(budget), .impls = { { LF, lf_walk_written }, PAIR, { CV, cv_walk_written } } }

#define SCALING .scaling = true, .repeats = 11
#define TIMED   .clock = BENCH_THREAD_TIME, .cpus = 1, .peer = CV
#define LIST(n) \
	{ .name = "lock, reserve, add, unlock, " #n " fences", SCALING, TIMED, .step = ADDS, .param = n, \
		.impls = { { LF, lf_scale_add }, { CV, cv_scale_add } } }, \
	{ .name = "test_signaled, each of, " #n " fences", SCALING, TIMED, .step = MOST, .param = n, \
		.impls = { { LF, lf_scale_test }, { CV, cv_scale_test } } }, \
	{ .name = "walk, each of, " #n " fences", SCALING, TIMED, .step = MOST, .param = n, \
		.impls = { { LF, lf_scale_walk }, { CV, cv_scale_walk } } }, \
	{ .name = "snapshot of, " #n " fences", SCALING, TIMED, .step = 64, .param = n, \
		.impls = { { LF, lf_scale_snapshot }, { CV, cv_scale_snapshot } } }, \
	{ .name = "bytes of the list, for each of, " #n " fences", SCALING, .clock = BENCH_NO_TIME, .unit = "bytes", .param = n, \
		.impls = { { LF, lf_scale_bytes }, { CV, cv_scale_bytes } } }
#define LOCKERS(threads, need) \
	{ .name = "lock 4 of 64 reservations, " #threads " threads", SCALING, BENCH_SHARED(threads, need), .peer = SORTED, \
		.impls = { { LF, lf_share_locks }, { SORTED, cv_share_locks } } }
#define SORTED "mutexes, sorted"

static const struct bench_case cases[] = {
	{ .name = "lock, unlock", ANCHORED, .cpus = 1, .step = 512, .max_ratio = 1.2, .impls = { { LF, lf_lock_one }, PAIR } },
	{ .name = "with a ticket, each of 8", ANCHORED, .cpus = 1, .step = 512, .max_ratio = 1.6,
		.impls = { { LF, lf_lock_with_ticket }, PAIR, { "libfence, exec", lf_lock_with_exec } } },
	{ .name = "lock, reserve, add, unlock; alone", ANCHORED, .cpus = 1, .step = ADDS, .param = 0, .max_ratio = BENCH_IN_PAIRS(36),
		.impls = { { LF, lf_add_alone }, PAIR, { CV, cv_add_alone } } },
	{ .name = "lock, reserve, add, unlock; 16 others", ANCHORED, .cpus = 1, .step = ADDS, .param = 16, .max_ratio = BENCH_IN_PAIRS(46),
		.impls = { { LF, lf_add_alone }, PAIR, { CV, cv_add_alone } } },
	{ .name = "test_signaled over 16, all completed", .clock = BENCH_THREAD_TIME, .cpus = 1, .step = 512, .peer = CV, .max_ratio = 1,
		.impls = { { LF, lf_test }, PAIR, { CV, cv_test } } },
	WALK(1, "1 reader", 1, 3),
	WALK(2, "2 readers", 2, 3.5),
	WALK(3, "3 readers", 2, 0),
	WALK(4, "4 readers", 2, 0),
	WALK_WRITTEN(1, "1 reader", 8),
	WALK_WRITTEN(2, "2 readers", 0),
	WALK_WRITTEN(3, "3 readers", 0),
	WALK_WRITTEN(4, "4 readers", 0),
	{ .name = "add while one reader walks 16", ANCHORED, .cpus = 2, .step = ADDS, .param = OTHERS,
		.max_ratio = BENCH_IN_PAIRS(0.5 * 350), .impls = { { LF, lf_add_read }, PAIR, { CV, cv_add_read } } },
	{ .name = "two threads lock 8 in opposite order, a transaction", .clock = BENCH_WALL_TIME, .cpus = 2, .step = 1024,
		.peer = BENCH_MUTEX, .max_ratio = BENCH_IN_PAIRS(590),
		.impls = { { LF, lf_duel }, PAIR, { CV, cv_duel }, { "libfence, exec", lf_duel_exec },
			{ "libfence, wound-wait", lf_duel_wound } } },
	LIST(1),
	LIST(4),
	LIST(16),
	LIST(64),
	LIST(256),
	LIST(1024),
	LOCKERS(1, 1),
	LOCKERS(2, 2),
	LOCKERS(4, 2),
	LOCKERS(8, 2),
	LOCKERS(16, 2),
};

int main(int argc, char **argv)
{
	return bench_main(argc, argv, "Reservation objects", cases, sizeof(cases) / sizeof(cases[0]));
}
