/* SPDX-License-Identifier: MIT */
/*
 * The Containers table of the budgets: libfence's arrays and chains beside what one would write on fences with a mutex.
 *
 * The budgets were stated against kernel code, which is not part of this project, and for which there was no peer beside it. They are
 * converted by the anchor of that machine, a pthread_mutex pair (18 ns): "1.4 x kernel" of 375 ns is 525 ns, i.e. 29.2 mutex pairs, and a
 * mutex pair is measured in every repeat. So `peer` is the mutex pair, and the peers that do the same thing are for information.
 *
 * What is timed where the budget leaves it open:
 *
 *   array, merge      The references that the array consumes are taken in the time: who keeps the fences must do so.
 *   append            The call alone. The references that it consumes are the caller's only ones.
 *   scaling           Appending puts 256 points behind a chain that is there, and takes them away again. Signalling is that of all points
 *                     of a chain, in turn. Bytes are those of links, and of what a point needs in the peer; all wait for one fence.
 *   watched chains    Signals with all that follows. Making, appending, adding callbacks and puts are outside.
 */
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <libfence/libfence.h>

#include "bench.h"
#include "peers.h"

#define MEMBERS 16 /* of an array */
#define ARRAYS  16 /* that are made of members which were not enabled, between two drains */
#define APPENDS 512
#define WATCHED 1000
#define RANDOM  4096 /* random points, drawn before the time starts */
#define MILLION 1000000
#define PENDING 16 /* points that are pending on a timeline nobody looks at */
#define STACK   (64 * 1024)

/* Deferred frees, outside the timed sections. */
static void drain(struct bench_run *run)
{
	int64_t begun = bench_wall_ns();

	BENCH_CHECK(lf_reclaim_barrier() == 0);
	run->reclaim_ns += bench_wall_ns() - begun;
}

static struct lf_fence *lf_make(void)
{
	struct lf_fence *f;

	BENCH_CHECK(lf_fence_create(&f) == 0);
	return f;
}

static struct cv_fence *cv_make(void)
{
	struct cv_fence *f = cv_fence_create();

	BENCH_CHECK(f);
	return f;
}

/* How many callbacks have run. */
static size_t ran;

static void lf_ran(struct lf_fence *f, struct lf_fence_cb *cb)
{
	(void)f;
	(void)cb;
	ran++;
}

static void cv_ran(struct cv_fence *f, struct cv_cb *cb)
{
	(void)f;
	(void)cb;
	ran++;
}

/* --- Arrays -------------------------------------------------------------------------------------------------------------- */

static struct lf_fence *lf_array_of(struct lf_fence *const *fences)
{
	struct lf_fence *members[MEMBERS], *array;

	for (size_t i = 0; i < MEMBERS; i++)
		members[i] = lf_fence_get(fences[i]);
	BENCH_CHECK(lf_array_create(members, MEMBERS, LF_ARRAY_ALL, &array) == 0);
	return array;
}

static struct cv_array *cv_array_of(struct cv_fence *const *fences)
{
	struct cv_fence *members[MEMBERS];
	struct cv_array *array;

	for (size_t i = 0; i < MEMBERS; i++)
		members[i] = cv_fence_get(fences[i]);
	array = cv_array_create(members, MEMBERS);
	BENCH_CHECK(array);
	return array;
}

static void lf_array_life(struct bench_run *run)
{
	struct lf_fence *fences[MEMBERS];

	for (size_t i = 0; i < MEMBERS; i++)
		fences[i] = lf_make();
	bench_start(run);
	for (size_t i = 0; i < run->n; i++)
		lf_fence_put(lf_array_of(fences));
	bench_stop(run);
	for (size_t i = 0; i < MEMBERS; i++)
		lf_fence_put(fences[i]);
	BENCH_CHECK(lf_reclaim_barrier() == 0);
}

static void cv_array_life(struct bench_run *run)
{
	struct cv_fence *fences[MEMBERS];

	for (size_t i = 0; i < MEMBERS; i++)
		fences[i] = cv_make();
	bench_start(run);
	for (size_t i = 0; i < run->n; i++)
		cv_array_destroy(cv_array_of(fences));
	bench_stop(run);
	for (size_t i = 0; i < MEMBERS; i++)
		cv_fence_put(fences[i]);
}

/* What arming costs a driver is its own matter: the hook counts. */
static size_t enabled;

static int enable_hook(struct lf_fence *f, void *data)
{
	(void)f;
	(void)data;
	enabled++;
	return 0;
}

static struct lf_timeline *lf_make_timeline(void)
{
	static const struct lf_fence_ops ops = { .enable = enable_hook };
	struct lf_timeline_desc desc = { .name = "bench", .ops = &ops };
	struct lf_timeline *tl;

	BENCH_CHECK(lf_timeline_create(&desc, &tl) == 0);
	return tl;
}

static void lf_watch_briefly(struct lf_fence *array)
{
	struct lf_fence_cb cb = LF_FENCE_CB_INIT;

	BENCH_CHECK(lf_fence_add_callback(array, &cb, lf_ran) == 0);
	BENCH_CHECK(lf_fence_remove_callback(array, &cb) == LF_CB_REMOVED);
	lf_fence_put(array);
}

/* Each member is enabled here for the first time, so its hook is called; unless that was done before (param). */
static void lf_enable_members(struct bench_run *run, bool before)
{
	struct lf_fence *fences[ARRAYS * MEMBERS];
	struct lf_timeline *tl = lf_make_timeline();

	for (size_t done = 0; done < run->n; done += ARRAYS) {
		for (size_t i = 0; i < ARRAYS * MEMBERS; i++)
			BENCH_CHECK(lf_timeline_emit(tl, 0, &fences[i]) == 0);
		for (size_t i = 0; before && i < ARRAYS; i++)
			lf_watch_briefly(lf_array_of(&fences[i * MEMBERS]));
		enabled = 0;
		bench_start(run);
		for (size_t i = 0; i < ARRAYS; i++)
			lf_watch_briefly(lf_array_of(&fences[i * MEMBERS]));
		bench_stop(run);
		BENCH_CHECK(enabled == (before ? 0 : ARRAYS * MEMBERS));
		lf_timeline_signal_to(tl, lf_timeline_last_seqno(tl), 0);
		for (size_t i = 0; i < ARRAYS * MEMBERS; i++)
			lf_fence_put(fences[i]);
		BENCH_CHECK(lf_reclaim_barrier() == 0);
	}
	lf_timeline_put(tl);
	BENCH_CHECK(lf_reclaim_barrier() == 0);
}

static void lf_array_enabled(struct bench_run *run)
{
	lf_enable_members(run, false);
}

static void lf_array_enabled_again(struct bench_run *run)
{
	lf_enable_members(run, true);
}

static void cv_array_watched(struct bench_run *run)
{
	struct cv_fence *fences[MEMBERS];

	for (size_t i = 0; i < MEMBERS; i++)
		fences[i] = cv_make();
	bench_start(run);
	for (size_t i = 0; i < run->n; i++) {
		struct cv_array *array = cv_array_of(fences);
		struct cv_cb cb;

		BENCH_CHECK(cv_fence_add(cv_array_fence(array), &cb, cv_ran) == 0);
		BENCH_CHECK(cv_fence_remove(cv_array_fence(array), &cb));
		cv_array_destroy(array);
	}
	bench_stop(run);
	for (size_t i = 0; i < MEMBERS; i++)
		cv_fence_put(fences[i]);
}

/* --- Appending ----------------------------------------------------------------------------------------------------------- */

static struct lf_fence *lf_append(struct lf_fence *prev, struct lf_fence *f, uint64_t seqno)
{
	struct lf_fence *link;

	BENCH_CHECK(lf_chain_append(prev, f, seqno, 0, &link) == 0);
	return link;
}

/* Signals and puts what a chain was made of, and its last link. */
static void lf_end_chain(struct lf_fence *const *fences, size_t count, struct lf_fence *link)
{
	for (size_t i = 0; i < count; i++) {
		BENCH_CHECK(lf_fence_signal_at(fences[i], 0, 1));
		lf_fence_put(fences[i]);
	}
	BENCH_CHECK(lf_fence_is_signaled(link));
	lf_fence_put(link);
}

static void lf_chain_grow(struct bench_run *run)
{
	static struct lf_fence *fences[APPENDS];

	for (size_t done = 0; done < run->n; done += APPENDS) {
		struct lf_fence *link = NULL;

		for (size_t i = 0; i < APPENDS; i++)
			fences[i] = lf_fence_get(lf_make());
		bench_start(run);
		for (size_t i = 0; i < APPENDS; i++)
			link = lf_append(link, fences[i], i + 1);
		bench_stop(run);
		lf_end_chain(fences, APPENDS, link);
		drain(run);
	}
}

static void lf_chain_grow_prepared(struct bench_run *run)
{
	static struct lf_chain_room *rooms[APPENDS];
	static struct lf_fence *fences[APPENDS];

	for (size_t done = 0; done < run->n; done += APPENDS) {
		struct lf_fence *link = NULL;

		for (size_t i = 0; i < APPENDS; i++) {
			fences[i] = lf_fence_get(lf_make());
			BENCH_CHECK(lf_chain_prepare(&rooms[i]) == 0);
		}
		bench_start(run);
		for (size_t i = 0; i < APPENDS; i++)
			link = lf_chain_commit(rooms[i], link, fences[i], i + 1, 0);
		bench_stop(run);
		lf_end_chain(fences, APPENDS, link);
		BENCH_CHECK(lf_reclaim_barrier() == 0);
	}
}

static void cv_chain_grow(struct bench_run *run)
{
	static struct cv_fence *fences[APPENDS];

	for (size_t done = 0; done < run->n; done += APPENDS) {
		struct cv_chain *chain = cv_chain_create();

		BENCH_CHECK(chain);
		for (size_t i = 0; i < APPENDS; i++)
			fences[i] = cv_make();
		bench_start(run);
		for (size_t i = 0; i < APPENDS; i++)
			BENCH_CHECK(cv_chain_append(chain, fences[i], i + 1));
		bench_stop(run);
		cv_chain_destroy(chain);
	}
}

/* --- Finding ------------------------------------------------------------------------------------------------------------- */

/* Chains that stay until the program ends, by the logarithm of their length. All of their points wait for one fence. */
#define LENGTHS 7

static size_t length_index(int length)
{
	size_t i = 0;

	for (; length >= 10; length /= 10)
		i++;
	BENCH_CHECK(i < LENGTHS);
	return i;
}

static struct lf_fence *lf_chain_of(int length)
{
	static struct lf_fence *chains[LENGTHS];
	struct lf_fence **link = &chains[length_index(length)], *f;

	if (*link)
		return *link;
	f = lf_make();
	for (int i = 1; i <= length; i++)
		*link = lf_append(*link, lf_fence_get(f), (uint64_t)i);
	return *link;
}

static struct cv_chain *cv_chain_of(int length)
{
	static struct cv_chain *chains[LENGTHS];
	struct cv_chain **chain = &chains[length_index(length)];
	struct cv_fence *f;

	if (*chain)
		return *chain;
	*chain = cv_chain_create();
	BENCH_CHECK(*chain);
	f = cv_make();
	for (int i = 1; i <= length; i++)
		BENCH_CHECK(cv_chain_append(*chain, cv_fence_get(f), (uint64_t)i));
	return *chain;
}

/* The points to look for, in the chain of run->param. */
static const uint64_t *random_points(const struct bench_run *run)
{
	static uint64_t points[RANDOM];

	for (size_t i = 0; i < RANDOM; i++)
		points[i] = bench_draw() % (uint64_t)run->param + 1;
	return points;
}

static const uint64_t *middle_points(const struct bench_run *run)
{
	static uint64_t points[RANDOM];

	for (size_t i = 0; i < RANDOM; i++)
		points[i] = (uint64_t)run->param / 2;
	return points;
}

static void lf_find(struct bench_run *run, const uint64_t *points)
{
	struct lf_fence *chain = lf_chain_of(run->param), *f;

	bench_start(run);
	for (size_t i = 0; i < run->n; i++) {
		BENCH_CHECK(lf_chain_find_seqno(chain, points[i % RANDOM], &f) == 0);
		lf_fence_put(f);
	}
	bench_stop(run);
	for (size_t i = 0; i < 16; i++) {
		BENCH_CHECK(lf_chain_find_seqno(chain, points[i], &f) == 0 && lf_fence_seqno(f) == points[i]);
		lf_fence_put(f);
	}
}

static void cv_find(struct bench_run *run, const uint64_t *points)
{
	struct cv_chain *chain = cv_chain_of(run->param);

	bench_start(run);
	for (size_t i = 0; i < run->n; i++) {
		struct cv_fence *f = cv_chain_find(chain, points[i % RANDOM]);

		BENCH_CHECK(f);
		cv_fence_put(f);
	}
	bench_stop(run);
}

static void lf_find_middle(struct bench_run *run)
{
	lf_find(run, middle_points(run));
}

static void cv_find_middle(struct bench_run *run)
{
	cv_find(run, middle_points(run));
}

static void lf_find_random(struct bench_run *run)
{
	lf_find(run, random_points(run));
}

static void cv_find_random(struct bench_run *run)
{
	cv_find(run, random_points(run));
}

/* --- Chains as they grow ------------------------------------------------------------------------------------------------- */

#define BEHIND 256 /* points that come and go behind a chain */

static void lf_append_behind(struct bench_run *run)
{
	struct lf_fence *chain = lf_chain_of(run->param), *fences[BEHIND];

	for (size_t done = 0; done < run->n; done += BEHIND) {
		struct lf_fence *link = lf_fence_get(chain);

		for (size_t i = 0; i < BEHIND; i++)
			fences[i] = lf_fence_get(lf_make());
		bench_start(run);
		for (size_t i = 0; i < BEHIND; i++)
			link = lf_append(link, fences[i], (uint64_t)run->param + i + 1);
		bench_stop(run);
		lf_fence_put(link);
		for (size_t i = 0; i < BEHIND; i++) {
			lf_fence_signal_at(fences[i], 0, 1);
			lf_fence_put(fences[i]);
		}
		drain(run);
	}
}

static void cv_append_behind(struct bench_run *run)
{
	struct cv_chain *chain = cv_chain_of(run->param);
	struct cv_fence *fences[BEHIND];

	for (size_t done = 0; done < run->n; done += BEHIND) {
		for (size_t i = 0; i < BEHIND; i++)
			fences[i] = cv_make();
		bench_start(run);
		for (size_t i = 0; i < BEHIND; i++)
			BENCH_CHECK(cv_chain_append(chain, fences[i], (uint64_t)run->param + i + 1));
		bench_stop(run);
		cv_chain_cut(chain, (size_t)run->param);
	}
}

/* Chains of run->param, made anew each time, whose points are signaled in turn: short ones several at a time. */
#define AT_ONCE(length) ((length) < BEHIND ? BEHIND / (length) * (length) : (length))

static void lf_signal_all(struct bench_run *run)
{
	size_t length = (size_t)run->param, count = AT_ONCE(length);
	struct lf_fence **fences = bench_alloc(count * sizeof(struct lf_fence *)), *links[BEHIND];

	for (size_t done = 0; done < run->n; done += count) {
		for (size_t i = 0; i < count; i++) {
			struct lf_fence **link = &links[i / length];

			fences[i] = lf_make();
			*link = lf_append(i % length ? *link : NULL, lf_fence_get(fences[i]), i % length + 1);
		}
		bench_start(run);
		for (size_t i = 0; i < count; i++)
			lf_fence_signal(fences[i], 0);
		bench_stop(run);
		for (size_t i = 0; i < count / length; i++) {
			BENCH_CHECK(lf_fence_is_signaled(links[i]));
			lf_fence_put(links[i]);
		}
		for (size_t i = 0; i < count; i++)
			lf_fence_put(fences[i]);
		drain(run);
	}
	free(fences);
}

static void cv_signal_all(struct bench_run *run)
{
	size_t length = (size_t)run->param, count = AT_ONCE(length);
	struct cv_fence **fences = bench_alloc(count * sizeof(struct cv_fence *));
	struct cv_chain *chains[BEHIND];

	for (size_t done = 0; done < run->n; done += count) {
		for (size_t i = 0; i < count; i++) {
			if (i % length == 0)
				chains[i / length] = cv_chain_create();
			fences[i] = cv_make();
			BENCH_CHECK(cv_chain_append(chains[i / length], cv_fence_get(fences[i]), i % length + 1));
		}
		bench_start(run);
		for (size_t i = 0; i < count; i++)
			cv_fence_signal(fences[i], 0);
		bench_stop(run);
		for (size_t i = 0; i < count / length; i++)
			cv_chain_destroy(chains[i]);
		for (size_t i = 0; i < count; i++)
			cv_fence_put(fences[i]);
	}
	free(fences);
}

static int64_t allocated(void)
{
	struct mallinfo2 info = mallinfo2();

	return (int64_t)(info.uordblks + info.hblkhd);
}

/* So many chains of run->param that blocks which malloc keeps at hand do not count. */
#define ENOUGH 10000
#define CHAINS(length) ((length) < ENOUGH ? ENOUGH / (length) : 1)

static void lf_link_bytes(struct bench_run *run)
{
	static struct lf_fence *chains[ENOUGH];
	int64_t count = CHAINS(run->param), before;
	struct lf_fence *f = lf_make();

	before = allocated();
	for (int64_t i = 0; i < count * run->param; i++) {
		struct lf_fence **link = &chains[i / run->param];

		*link = lf_append(i % run->param ? *link : NULL, lf_fence_get(f), (uint64_t)(i % run->param + 1));
	}
	bench_value(run, (allocated() - before) / (count * run->param));
	lf_fence_signal(f, 0);
	for (int64_t i = 0; i < count; i++)
		lf_fence_put(chains[i]);
	lf_fence_put(f);
	BENCH_CHECK(lf_reclaim_barrier() == 0);
}

static void cv_link_bytes(struct bench_run *run)
{
	static struct cv_chain *chains[ENOUGH];
	int64_t count = CHAINS(run->param), before = allocated();
	struct cv_fence *f = cv_make();

	for (int64_t i = 0; i < count * run->param; i++) {
		struct cv_chain **chain = &chains[i / run->param];

		if (i % run->param == 0)
			*chain = cv_chain_create();
		BENCH_CHECK(cv_chain_append(*chain, cv_fence_get(f), (uint64_t)(i % run->param + 1)));
	}
	bench_value(run, (allocated() - before) / (count * run->param));
	for (int64_t i = 0; i < count; i++)
		cv_chain_destroy(chains[i]);
	cv_fence_put(f);
}

/* --- A chain whose every point is watched -------------------------------------------------------------------------------- */

enum order { FIRST_TO_LAST, LAST_TO_FIRST, RANDOM_ORDER };

static const size_t *signal_order(enum order order)
{
	static size_t sequence[WATCHED];

	for (size_t i = 0; i < WATCHED; i++)
		sequence[i] = order == LAST_TO_FIRST ? WATCHED - 1 - i : i;
	for (size_t i = WATCHED; order == RANDOM_ORDER && i > 1; i--) { /* Fisher and Yates */
		size_t k = bench_draw() % i, swap = sequence[i - 1];

		sequence[i - 1] = sequence[k];
		sequence[k] = swap;
	}
	return sequence;
}

static void lf_watched(struct bench_run *run)
{
	static struct lf_fence *fences[WATCHED], *links[WATCHED];
	static struct lf_fence_cb nodes[WATCHED];

	for (size_t done = 0; done < run->n; done += WATCHED) {
		const size_t *order = signal_order((enum order)run->param);

		memset(nodes, 0, sizeof(nodes));
		ran = 0;
		for (size_t i = 0; i < WATCHED; i++) {
			fences[i] = lf_make();
			links[i] = lf_append(i ? lf_fence_get(links[i - 1]) : NULL, lf_fence_get(fences[i]), i + 1);
			BENCH_CHECK(lf_fence_add_callback(links[i], &nodes[i], lf_ran) == 0);
		}
		bench_start(run);
		for (size_t i = 0; i < WATCHED; i++)
			lf_fence_signal(fences[order[i]], 0);
		bench_stop(run);
		BENCH_CHECK(ran == WATCHED);
		for (size_t i = 0; i < WATCHED; i++) {
			lf_fence_put(fences[i]);
			lf_fence_put(links[i]);
		}
		drain(run);
	}
}

static void cv_watched(struct bench_run *run)
{
	static struct cv_fence *fences[WATCHED], *points[WATCHED];
	static struct cv_cb nodes[WATCHED];

	for (size_t done = 0; done < run->n; done += WATCHED) {
		const size_t *order = signal_order((enum order)run->param);
		struct cv_chain *chain = cv_chain_create();

		BENCH_CHECK(chain);
		ran = 0;
		for (size_t i = 0; i < WATCHED; i++) {
			fences[i] = cv_make();
			BENCH_CHECK(cv_chain_append(chain, cv_fence_get(fences[i]), i + 1));
			points[i] = cv_chain_find(chain, i + 1);
			BENCH_CHECK(cv_fence_add(points[i], &nodes[i], cv_ran) == 0);
		}
		bench_start(run);
		for (size_t i = 0; i < WATCHED; i++)
			cv_fence_signal(fences[order[i]], 0);
		bench_stop(run);
		BENCH_CHECK(ran == WATCHED);
		for (size_t i = 0; i < WATCHED; i++) {
			cv_fence_put(fences[i]);
			cv_fence_put(points[i]);
		}
		cv_chain_destroy(chain);
	}
}

/* --- Merging ------------------------------------------------------------------------------------------------------------- */

/* Members of two arrays, each of a timeline of its own; or one of each array on a timeline, so that half of them go. */
static void lf_merge(struct bench_run *run, size_t timelines)
{
	struct lf_fence *fences[2 * MEMBERS], *arrays[2], *merged;
	struct lf_timeline *tls[2 * MEMBERS];

	for (size_t i = 0; i < timelines; i++)
		tls[i] = lf_make_timeline();
	for (size_t i = 0; i < 2 * MEMBERS; i++)
		BENCH_CHECK(lf_timeline_emit(tls[i % timelines], 0, &fences[i]) == 0);
	arrays[0] = lf_array_of(fences);
	arrays[1] = lf_array_of(fences + MEMBERS);
	bench_start(run);
	for (size_t i = 0; i < run->n; i++) {
		BENCH_CHECK(lf_fence_merge(arrays, 2, &merged) == 0);
		lf_fence_put(merged);
	}
	bench_stop(run);
	lf_fence_put(arrays[0]);
	lf_fence_put(arrays[1]);
	for (size_t i = 0; i < timelines; i++)
		lf_timeline_put(tls[i]);
	for (size_t i = 0; i < 2 * MEMBERS; i++)
		lf_fence_put(fences[i]);
	BENCH_CHECK(lf_reclaim_barrier() == 0);
}

static void lf_merge_distinct(struct bench_run *run)
{
	lf_merge(run, 2 * MEMBERS);
}

static void lf_merge_alike(struct bench_run *run)
{
	lf_merge(run, MEMBERS);
}

static void cv_merge(struct bench_run *run)
{
	struct cv_fence *fences[2 * MEMBERS];
	struct cv_array *arrays[2];

	for (size_t i = 0; i < 2 * MEMBERS; i++)
		fences[i] = cv_make();
	arrays[0] = cv_array_of(fences);
	arrays[1] = cv_array_of(fences + MEMBERS);
	bench_start(run);
	for (size_t i = 0; i < run->n; i++) {
		struct cv_array *merged = cv_array_merge(arrays, 2);

		BENCH_CHECK(merged);
		cv_array_destroy(merged);
	}
	bench_stop(run);
	cv_array_destroy(arrays[0]);
	cv_array_destroy(arrays[1]);
	for (size_t i = 0; i < 2 * MEMBERS; i++)
		cv_fence_put(fences[i]);
}

/* --- Memory and stack: in a process of their own -------------------------------------------------------------------------- */

/* A program that was called with the name of a probe does that alone, and prints one number. */
static const char *program;

static void run_probe(struct bench_run *run, const char *probe)
{
	char command[4096];
	long long value;
	FILE *pipe;
	int got;

	snprintf(command, sizeof(command), "exec '%s' %s", program, probe);
	pipe = popen(command, "r");
	BENCH_CHECK(pipe);
	got = fscanf(pipe, "%lld", &value);
	pclose(pipe);
	bench_value(run, got == 1 ? value : INT32_MAX); /* it crashed: more than any budget */
}

/* Counts bytes; the size of a block stands before it. */
static atomic_llong live;

static void *counting_alloc(void *user, size_t size, size_t align)
{
	size_t *block = malloc(size + align);

	(void)user;
	BENCH_CHECK(block && align >= sizeof(size_t));
	*block = size;
	atomic_fetch_add_explicit(&live, (long long)size, memory_order_relaxed); /* relaxed: a figure */
	return (char *)block + align;
}

static void counting_free(void *user, void *ptr)
{
	size_t *block = (size_t *)(void *)((char *)ptr - _Alignof(max_align_t));

	(void)user;
	atomic_fetch_sub_explicit(&live, (long long)*block, memory_order_relaxed); /* relaxed: a figure */
	free(block);
}

/* All points are appended and signaled in turn, the last few but one are pending, and nobody ever asks. */
static long long lf_memory(void)
{
	static const struct lf_allocator counting = { counting_alloc, counting_free, NULL };
	struct lf_fence *pending[PENDING] = { 0 }, *link = NULL;

	BENCH_CHECK(lf_set_allocator(&counting) == 0);
	for (uint64_t i = 0; i < MILLION + PENDING; i++) {
		struct lf_fence **f = &pending[i % PENDING];

		if (*f) {
			BENCH_CHECK(lf_fence_signal(*f, 0));
			lf_fence_put(*f);
		}
		*f = lf_make();
		link = lf_append(link, lf_fence_get(*f), i + 1);
	}
	BENCH_CHECK(lf_reclaim_barrier() == 0);
	return atomic_load_explicit(&live, memory_order_relaxed); /* relaxed: the barrier ordered them */
}

static long long cv_memory(void)
{
	struct cv_fence *pending[PENDING] = { 0 };
	struct cv_chain *chain = cv_chain_create();
	struct mallinfo2 info;

	for (uint64_t i = 0; i < MILLION + PENDING; i++) {
		struct cv_fence **f = &pending[i % PENDING];

		if (*f) {
			BENCH_CHECK(cv_fence_signal(*f, 0));
			cv_fence_put(*f);
		}
		*f = cv_make();
		BENCH_CHECK(cv_chain_append(chain, cv_fence_get(*f), i + 1));
	}
	info = mallinfo2();
	return (long long)(info.uordblks + info.hblkhd);
}

static struct lf_fence *nest(struct lf_fence *f, size_t depth)
{
	for (size_t i = 0; i < depth; i++)
		BENCH_CHECK(lf_array_create(&f, 1, LF_ARRAY_ALL, &f) == 0);
	return f;
}

static void *signal_and_put(void *arg)
{
	struct lf_fence **fences = arg;

	BENCH_CHECK(lf_fence_signal(fences[0], 0)); /* which signals a million */
	lf_fence_put(fences[1]); /* pending, and so are a million inside */
	return NULL;
}

/* The deepest byte of a small stack that was written to. */
static long long lf_stack(void)
{
	struct lf_fence *inner = lf_make(), *outer = nest(lf_fence_get(inner), MILLION);
	struct lf_fence *fences[2] = { inner, nest(lf_make(), MILLION) };
	unsigned char *stack = bench_alloc(STACK);
	pthread_attr_t attr;
	pthread_t thread;
	size_t untouched = 0;

	memset(stack, 0xa5, STACK);
	BENCH_CHECK(pthread_attr_init(&attr) == 0);
	BENCH_CHECK(pthread_attr_setstack(&attr, stack, STACK) == 0);
	BENCH_CHECK(pthread_create(&thread, &attr, signal_and_put, fences) == 0);
	bench_join(thread);
	BENCH_CHECK(lf_fence_is_signaled(outer));
	while (untouched < STACK && stack[untouched] == 0xa5)
		untouched++;
	return untouched ? (long long)(STACK - untouched) : INT32_MAX;
}

static void memory(struct bench_run *run)
{
	run_probe(run, "memory");
}

static void memory_of_peer(struct bench_run *run)
{
	run_probe(run, "memory-of-peer");
}

static void stack(struct bench_run *run)
{
	run_probe(run, "stack");
}

/* Returns whether the program was called to do a probe. */
static bool probe(int argc, char **argv)
{
	static const struct {
		const char *name;
		long long (*fn)(void);
	} probes[] = { { "memory", lf_memory }, { "memory-of-peer", cv_memory }, { "stack", lf_stack } };

	for (size_t i = 0; argc == 2 && i < sizeof(probes) / sizeof(probes[0]); i++) {
		if (strcmp(argv[1], probes[i].name) == 0) {
			printf("%lld\n", probes[i].fn());
			return true;
		}
	}
	return false;
}

/* --- The table ----------------------------------------------------------------------------------------------------------- */

#define LF "libfence"
#define CV "mutex + condvar"
#define VECTOR "mutex + vector"
#define PAIR { BENCH_MUTEX, bench_mutex_pairs }
#define ANCHORED .clock = BENCH_THREAD_TIME, .cpus = 1, .peer = BENCH_MUTEX
#define FIND(n, budget) \
	{ .name = "chain of " #n ": a random point", ANCHORED, .step = 512, .param = n, .size = n, .max_ratio = budget, \
		.impls = { { LF, lf_find_random }, PAIR, { VECTOR, cv_find_random } } }
#define WATCH(text, order, budget) \
	{ .name = "chain of 1000 watched, signaled " text ", a node", ANCHORED, .step = WATCHED, .param = order, .max_ratio = budget, \
		.impls = { { LF, lf_watched }, PAIR, { VECTOR, cv_watched } } }

#define SCALING .scaling = true, .repeats = 11
#define CHAIN(n) \
	{ .name = "bytes a link, " #n " links", SCALING, .clock = BENCH_NO_TIME, .unit = "bytes", .param = n, .size = n, \
		.impls = { { LF, lf_link_bytes }, { VECTOR, cv_link_bytes } } }, \
	{ .name = "append, " #n " links", SCALING, .clock = BENCH_THREAD_TIME, .cpus = 1, .step = BEHIND, .param = n, .size = n, .peer = VECTOR, \
		.impls = { { LF, lf_append_behind }, { VECTOR, cv_append_behind } } }, \
	{ .name = "find a random point, " #n " links", SCALING, .clock = BENCH_THREAD_TIME, .cpus = 1, .step = 512, .param = n, .size = n, \
		.peer = VECTOR, .impls = { { LF, lf_find_random }, { VECTOR, cv_find_random } } }, \
	{ .name = "signal a point, " #n " links", SCALING, .clock = BENCH_THREAD_TIME, .cpus = 1, .step = AT_ONCE(n), .param = n, \
		.size = n, .peer = VECTOR, .impls = { { LF, lf_signal_all }, { VECTOR, cv_signal_all } } }

static const struct bench_case cases[] = {
	{ .name = "array of 16: create, put", ANCHORED, .step = 16, .max_ratio = BENCH_IN_PAIRS(1.4 * 375),
		.impls = { { LF, lf_array_life }, PAIR, { CV, cv_array_life } } },
	{ .name = "array of 16: the same, enabled", ANCHORED, .step = ARRAYS, .max_ratio = BENCH_IN_PAIRS(0.5 * 2057),
		.impls = { { LF, lf_array_enabled }, PAIR, { CV, cv_array_watched },
			{ "libfence, members enabled before", lf_array_enabled_again } } },
	{ .name = "chain: append, a node", ANCHORED, .step = APPENDS, .max_ratio = BENCH_IN_PAIRS(1.3 * 34),
		.impls = { { LF, lf_chain_grow }, PAIR, { VECTOR, cv_chain_grow },
			{ "libfence, room prepared", lf_chain_grow_prepared } } },
	{ .name = "chain of 1000: the middle point", ANCHORED, .step = 512, .param = 1000, .max_ratio = BENCH_IN_PAIRS(300),
		.impls = { { LF, lf_find_middle }, PAIR, { VECTOR, cv_find_middle } } },
	FIND(100, 0),
	FIND(1000, 0),
	FIND(10000, 0),
	FIND(100000, 0),
	FIND(1000000, BENCH_IN_PAIRS(2000)),
	WATCH("first to last", FIRST_TO_LAST, BENCH_IN_PAIRS(0.7 * 201)),
	WATCH("last to first", LAST_TO_FIRST, BENCH_IN_PAIRS(200)),
	WATCH("in random order", RANDOM_ORDER, BENCH_IN_PAIRS(200)),
	{ .name = "merge of 16 + 16", ANCHORED, .step = 16, .max_ratio = BENCH_IN_PAIRS(0.9 * 1725),
		.impls = { { LF, lf_merge_distinct }, PAIR, { CV, cv_merge }, { "libfence, of 16 timelines", lf_merge_alike } } },
	{ .name = "1000000 points signaled, 16 pending, nobody looks: live", .clock = BENCH_NO_TIME, .unit = "bytes", .size = MILLION,
		.max_ns = 16 * 1024, .impls = { { LF, memory }, { VECTOR, memory_of_peer } } },
	{ .name = "signal and put of 1000000 nested, 64 KiB stack: used", .clock = BENCH_NO_TIME, .unit = "bytes", .size = MILLION,
		.max_ns = STACK, .impls = { { LF, stack } } },
	CHAIN(1),
	CHAIN(10),
	CHAIN(100),
	CHAIN(1000),
	CHAIN(10000),
	CHAIN(100000),
	CHAIN(1000000),
};

int main(int argc, char **argv)
{
	if (probe(argc, argv))
		return 0;
	program = argv[0];
	return bench_main(argc, argv, "Containers", cases, sizeof(cases) / sizeof(cases[0]));
}
