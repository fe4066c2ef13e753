/* SPDX-License-Identifier: MIT */
/*
 * Containers whose members are signaled by several threads while others use the container. Six races, each with its oracle:
 *
 * 1. An *all* array of MEMBERS fences, half of them signaled by each of two threads, while a third adds callbacks to the array, takes them
 *    back, waits for it, walks it and puts its last reference.
 *    - a callback that was added ran once or was removed; when it runs, and when a wait has returned, every member is signaled
 *    - a callback that was refused finds the array signaled
 *    - a walk yields members in order, each once; what it leaves out was being signaled when it ended
 *    - the array's status is one of the members' errors, its timestamp the latest of theirs
 *    Hits: walks that found some of the members, callbacks that were added in time, puts of a pending array.
 * 2. An *any* array of two fences that are signaled by two threads at once, while a third puts the array.
 *    - it has the status and the timestamp of one of the two, of the same one, and keeps them; its callback runs once, with them
 *    Hits: each of the two won; the put came before the signal, and after it.
 * 3. A chain that one thread appends to, while a second signals its fences out of order, a third finds points, and a fourth walks it.
 *    - a point whose fence and all before have been signaled is found signaled; a pending link that is found is the first that is not
 *      below; a walk yields fences in the order of points, and what it leaves out was being signaled
 *    Hits: points found pending and found signaled; walks of which something was signaled meanwhile.
 * 4. Nested arrays that are built while their leaves are signaled by two threads.
 *    - at the end each level is signaled, with the error that one leaf has if that is below it
 *    Hits: arrays that were pending, and that were signaled, when they had been made.
 * 5. A link that two threads append to, while a third signals its fence.
 *    - one of the two new links is of its context, the other begins one; neither is later than the other; both are signaled at the end
 *    Hits: each of the two was first; the link was pending, and was signaled, when both were appended.
 * 6. Two containers over the same fences of a timeline, which two threads become interested in, while a third signals the timeline.
 *    - the producer is asked at most once for each fence, each callback that was added runs once, and no wait is left behind
 *    Hits: fences that were armed, and that were not.
 *
 * In the end no block is left, of any of it. A count of 0 means that the interleaving never happened.
 */
#include "testing.h"

#include <sched.h>
#include <stdatomic.h>

static struct lf_fence *make_array(unsigned flags, struct lf_fence *const *members, size_t count)
{
	struct lf_fence *f = NULL;

	must(lf_array_create(members, count, flags, &f) == 0);
	return f;
}

/* --- 1. Members signaled by two threads ------------------------------------------------------------------------------- */

enum { MEMBERS = 6 };

struct watch {
	struct lf_fence_cb cb;
	struct lf_fence *const *members;
	atomic_int runs;
};

static struct {
	long rounds;
	uint64_t seed;
	struct gate gate;
	struct lf_fence *array; /* the user's reference */
	struct lf_fence *members[MEMBERS];
	atomic_bool begun[MEMBERS]; /* it is being signaled */
	atomic_long added, refused, removed, ran, waited, walked_some, walked_none, walked_all, put_pending, put_signaled;
} halves;

static int error_of(long member)
{
	return member % 2 ? -(int)(member + 1) : 0;
}

static void watch_run(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct watch *w = (struct watch *)(void *)cb;

	for (size_t i = 0; i < MEMBERS; i++)
		must(lf_fence_is_signaled(w->members[i]));
	must(lf_fence_is_signaled(f) && lf_fence_status(f) != 0);
	must(atomic_fetch_add(&w->runs, 1) == 0);
}

static void *signal_half(void *arg)
{
	size_t me = *(size_t *)arg;
	uint64_t random = halves.seed + me + 1;

	for (long r = 0; r < halves.rounds; r++) {
		gate_wait(&halves.gate);
		for (size_t i = me; i < MEMBERS; i += 2) {
			pause_at_random(&random);
			atomic_store(&halves.begun[i], true);
			must(lf_fence_signal_at(halves.members[i], error_of((long)i), 100 + (int64_t)i));
		}
		gate_wait(&halves.gate);
	}
	return NULL;
}

static void walk_array(void)
{
	struct lf_unwrap walk;
	size_t next = 0, found = 0;

	must(lf_unwrap_begin(&walk, halves.array, 0) == 0);
	for (struct lf_fence *leaf = lf_unwrap_next(&walk); leaf != NULL; leaf = lf_unwrap_next(&walk), next++, found++) {
		for (; next < MEMBERS && halves.members[next] != leaf; next++)
			must(atomic_load(&halves.begun[next]));
		must(next < MEMBERS);
	}
	for (; next < MEMBERS; next++)
		must(atomic_load(&halves.begun[next]));
	lf_unwrap_end(&walk);
	atomic_fetch_add(found == 0 ? &halves.walked_none : found == MEMBERS ? &halves.walked_all : &halves.walked_some, 1);
}

static void check_array_result(struct lf_fence *f)
{
	int status = lf_fence_status(f);
	bool known = false;

	for (long i = 0; i < MEMBERS; i++)
		known |= error_of(i) != 0 && status == error_of(i);
	must(known);
	must(lf_fence_timestamp(f) == 100 + MEMBERS - 1);
}

/* Adds a callback; takes it back, or leaves it to run. */
static void watch_array(struct watch *w, uint64_t *random)
{
	int result = lf_fence_add_callback(halves.array, &w->cb, watch_run);

	if (result == -ENOENT) {
		must(lf_fence_is_signaled(halves.array));
		atomic_fetch_add(&halves.refused, 1);
		return;
	}
	must(result == 0);
	atomic_fetch_add(&halves.added, 1);
	pause_at_random(random);
	if (random_next(random) % 2) {
		must(lf_fence_wait_drained(halves.array, LF_DEADLINE_NEVER) == 0);
		must(atomic_load(&w->runs) == 1);
		atomic_fetch_add(&halves.ran, 1);
		return;
	}
	result = lf_fence_cancel_callback_sync(halves.array, &w->cb);
	must(result == LF_CB_REMOVED || result == LF_CB_RAN);
	must(atomic_load(&w->runs) == (result == LF_CB_RAN));
	atomic_fetch_add(result == LF_CB_REMOVED ? &halves.removed : &halves.ran, 1);
}

static void *use_array(void *arg)
{
	uint64_t random = halves.seed + 99;

	for (long r = 0; r < halves.rounds; r++) {
		struct watch watch = { .members = halves.members };

		gate_wait(&halves.gate);
		pause_at_random(&random);
		switch (random_next(&random) % 4) {
		case 0:
			watch_array(&watch, &random);
			break;
		case 1:
			must(lf_fence_wait(halves.array, LF_DEADLINE_NEVER) == 0);
			for (size_t i = 0; i < MEMBERS; i++)
				must(lf_fence_is_signaled(halves.members[i]));
			atomic_fetch_add(&halves.waited, 1);
			break;
		case 2:
			walk_array();
			walk_array();
			break;
		default:
			break;
		}
		pause_at_random(&random);
		if (lf_fence_is_signaled(halves.array)) {
			check_array_result(halves.array);
			atomic_fetch_add(&halves.put_signaled, 1);
		} else {
			atomic_fetch_add(&halves.put_pending, 1);
		}
		/* mostly the last one, unless the array is kept to the end to look at it */
		lf_fence_put(halves.array);
		gate_wait(&halves.gate);
	}
	return NULL;
}

static void members_of_an_array_signaled_by_two_threads(void **state)
{
	size_t numbers[2] = { 0, 1 };
	pthread_t threads[3];

	halves.seed = test_seed();
	halves.rounds = test_rounds(8000);
	gate_init(&halves.gate, 4);
	test_watchdog(100, "members signaled by two threads");
	threads[0] = thread_start(signal_half, &numbers[0], 0);
	threads[1] = thread_start(signal_half, &numbers[1], 0);
	threads[2] = thread_start(use_array, NULL, 0);
	for (long r = 0; r < halves.rounds; r++) {
		struct lf_fence *own[MEMBERS], *kept = NULL;

		for (size_t i = 0; i < MEMBERS; i++) {
			must(lf_fence_create(&halves.members[i]) == 0);
			own[i] = lf_fence_get(halves.members[i]);
			atomic_store(&halves.begun[i], false);
		}
		halves.array = make_array(LF_ARRAY_ALL, own, MEMBERS);
		if (r % 3 == 0)
			kept = lf_fence_get(halves.array);
		gate_wait(&halves.gate);
		gate_wait(&halves.gate);
		if (kept) {
			check_array_result(kept);
			must(lf_fence_is_drained(kept));
			lf_fence_put(kept);
		}
		for (size_t i = 0; i < MEMBERS; i++)
			lf_fence_put(halves.members[i]);
	}
	for (size_t i = 0; i < 3; i++)
		thread_join(threads[i]);
	test_watchdog(0, "");
	gate_fini(&halves.gate);
	test_note("all: %ld rounds: callbacks added %ld, refused %ld; removed %ld, ran %ld; waits %ld", halves.rounds,
		atomic_load(&halves.added), atomic_load(&halves.refused), atomic_load(&halves.removed), atomic_load(&halves.ran),
		atomic_load(&halves.waited));
	test_note("all: walks that found all %ld, some %ld, none %ld; put while pending %ld, signaled %ld", atomic_load(&halves.walked_all),
		atomic_load(&halves.walked_some), atomic_load(&halves.walked_none), atomic_load(&halves.put_pending),
		atomic_load(&halves.put_signaled));
}

/* --- 2. Any of two ---------------------------------------------------------------------------------------------------- */

static struct {
	long rounds;
	uint64_t seed;
	struct gate gate;
	struct lf_fence *members[2], *any, *outer;
	struct lf_fence_cb cb;
	atomic_int runs;
	int status;
	int64_t timestamp;
	atomic_long won[2], put_before, put_after, removed;
} any;

static void any_run(struct lf_fence *f, struct lf_fence_cb *cb)
{
	any.status = lf_fence_status(f);
	any.timestamp = lf_fence_timestamp(f);
	must(atomic_fetch_add(&any.runs, 1) == 0);
}

static void *signal_one(void *arg)
{
	size_t me = *(size_t *)arg;
	uint64_t random = any.seed + me + 1;

	for (long r = 0; r < any.rounds; r++) {
		gate_wait(&any.gate);
		pause_at_random(&random);
		must(lf_fence_signal_at(any.members[me], -(int)(me + 1), 10 + (int64_t)me));
		lf_fence_put(any.members[me]);
		gate_wait(&any.gate);
	}
	return NULL;
}

/* Of one of the two, and of the same one; noted which. */
static void check_any_result(int status, int64_t timestamp)
{
	must(status == -1 || status == -2);
	must(timestamp == 9 - status);
}

static void *put_any(void *arg)
{
	uint64_t random = any.seed + 99;

	for (long r = 0; r < any.rounds; r++) {
		gate_wait(&any.gate);
		pause_at_random(&random);
		bool signaled = lf_fence_is_signaled(any.any);
		int status = lf_fence_status(any.any);
		if (status != 0)
			check_any_result(status, lf_fence_timestamp(any.any));
		atomic_fetch_add(signaled ? &any.put_after : &any.put_before, 1);
		if (any.outer == NULL) {
			/* the callback is ours, and goes before the last reference */
			int result = lf_fence_cancel_callback_sync(any.any, &any.cb);

			must(result == LF_CB_REMOVED || result == LF_CB_RAN);
			must(atomic_load(&any.runs) == (result == LF_CB_RAN));
			if (result == LF_CB_REMOVED)
				atomic_fetch_add(&any.removed, 1);
			else
				check_any_result(any.status, any.timestamp);
		}
		lf_fence_put(any.any);
		gate_wait(&any.gate);
	}
	return NULL;
}

static void any_array_of_two_signaled_at_once(void **state)
{
	size_t numbers[2] = { 0, 1 };
	pthread_t threads[3];

	any.seed = test_seed();
	any.rounds = test_rounds(12000);
	gate_init(&any.gate, 4);
	test_watchdog(100, "any of two");
	threads[0] = thread_start(signal_one, &numbers[0], 0);
	threads[1] = thread_start(signal_one, &numbers[1], 0);
	threads[2] = thread_start(put_any, NULL, 0);
	for (long r = 0; r < any.rounds; r++) {
		struct lf_fence *own[2];

		for (size_t i = 0; i < 2; i++) {
			must(lf_fence_create(&any.members[i]) == 0);
			own[i] = lf_fence_get(any.members[i]);
		}
		any.any = make_array(LF_ARRAY_ANY, own, 2);
		memset(&any.cb, 0, sizeof(any.cb));
		atomic_store(&any.runs, 0);
		/* half of the rounds an outer array has the callback, and holds the inner one when that is put */
		any.outer = NULL;
		if (r % 2) {
			struct lf_fence *inner = lf_fence_get(any.any);

			any.outer = make_array(LF_ARRAY_ALL, &inner, 1);
		}
		must(lf_fence_add_callback(any.outer ? any.outer : any.any, &any.cb, any_run) == 0);
		gate_wait(&any.gate);
		gate_wait(&any.gate);
		if (any.outer) {
			must(lf_fence_is_drained(any.outer));
			must(atomic_load(&any.runs) == 1);
			check_any_result(lf_fence_status(any.outer), lf_fence_timestamp(any.outer));
			must(any.status == lf_fence_status(any.outer) && any.timestamp == lf_fence_timestamp(any.outer));
			atomic_fetch_add(&any.won[any.status == -2], 1);
			lf_fence_put(any.outer);
		}
	}
	for (size_t i = 0; i < 3; i++)
		thread_join(threads[i]);
	test_watchdog(0, "");
	gate_fini(&any.gate);
	test_note("any: %ld rounds: the first won %ld, the second %ld; put before the signal %ld, after it %ld; callback removed %ld",
		any.rounds, atomic_load(&any.won[0]), atomic_load(&any.won[1]), atomic_load(&any.put_before), atomic_load(&any.put_after),
		atomic_load(&any.removed));
}

/* --- 3. A chain that moves -------------------------------------------------------------------------------------------- */

enum { WINDOW = 64 };

/* A fence that knows its point; the library frees it. */
struct point {
	struct lf_fence fence;
	long number; /* its link has seqno 2 * (number + 1) */
};

static struct {
	long points;
	uint64_t seed;
	struct lf_fence_slot newest; /* link */
	struct lf_fence *fences[WINDOW]; /* the signaller's references: of number n at n % WINDOW */
	atomic_long appended; /* points with numbers below are in the chain */
	atomic_long reached; /* fences with numbers below have been signaled */
	atomic_bool *begun; /* of each number: it is being signaled */
	atomic_bool end;
	atomic_long found_pending, found_signaled, walks, walks_moved, leaves;
} chain;

static long number_of(const struct lf_fence *f)
{
	return ((const struct point *)(const void *)f)->number;
}

static void *append_points(void *arg)
{
	struct lf_fence *link = NULL;

	for (long n = 0; n < chain.points; n++) {
		struct point *point = lf_alloc(sizeof(*point));
		struct lf_fence *previous = link;

		while (n - atomic_load(&chain.reached) >= WINDOW)
			sched_yield();
		must(point != NULL);
		must(lf_fence_init(&point->fence, 0) == 0);
		point->number = n;
		chain.fences[n % WINDOW] = lf_fence_get(&point->fence);
		must(lf_chain_append(previous, &point->fence, 2 * (uint64_t)n + 2, 0, &link) == 0);
		must(!lf_fence_is_signaled(link));
		lf_fence_slot_set(&chain.newest, link);
		atomic_store(&chain.appended, n + 1);
	}
	must(lf_fence_wait(link, LF_DEADLINE_NEVER) == 0);
	must(lf_fence_status(link) == (chain.points > 7 ? -EIO : 1));
	lf_fence_put(link);
	return NULL;
}

/* Takes what there is, in random order. */
static void *signal_points(void *arg)
{
	uint64_t random = chain.seed + 1;
	long next = 0;

	while (next < chain.points) {
		long order[WINDOW], n = atomic_load(&chain.appended) - next;

		if (n == 0) {
			sched_yield();
			continue;
		}
		n = 1 + (long)(random_next(&random) % (uint64_t)n);
		for (long i = 0; i < n; i++) {
			long k = (long)(random_next(&random) % (uint64_t)(i + 1));

			order[i] = order[k];
			order[k] = next + i;
		}
		for (long i = 0; i < n; i++) {
			struct lf_fence *f = chain.fences[order[i] % WINDOW];

			must(number_of(f) == order[i]);
			atomic_store(&chain.begun[order[i]], true);
			must(lf_fence_signal(f, order[i] == 7 ? -EIO : 0));
			lf_fence_put(f);
			pause_at_random(&random);
		}
		next += n;
		atomic_store(&chain.reached, next);
	}
	atomic_store(&chain.end, true);
	return NULL;
}

static void *find_points(void *arg)
{
	uint64_t random = chain.seed + 2;

	while (!atomic_load(&chain.end)) {
		long reached = atomic_load(&chain.reached);
		struct lf_fence *newest = lf_fence_slot_get(&chain.newest), *found = NULL;

		if (newest == NULL)
			continue;
		uint64_t last = lf_fence_seqno(newest);
		/* mostly where it is decided now */
		uint64_t back = random_next(&random) % 4 ? 2 * WINDOW + 10 : last;
		uint64_t seqno = last - random_next(&random) % (back < last ? back : last);
		must(lf_chain_find_seqno(newest, seqno, &found) == 0);
		bool signaled = lf_fence_is_signaled(found);
		if (lf_fence_is_chain(found))
			must(lf_fence_seqno(found) == (seqno + 1) / 2 * 2);
		else
			must(signaled);
		if ((long)((seqno + 1) / 2) <= reached)
			must(signaled);
		if (signaled)
			for (uint64_t n = 0; n < (seqno + 1) / 2; n += 1 + n / 16)
				must(atomic_load(&chain.begun[n]));
		atomic_fetch_add(signaled ? &chain.found_signaled : &chain.found_pending, 1);
		must(lf_chain_find_seqno(newest, last + 1, &found) == -ENOENT);
		lf_fence_put(found);
		lf_fence_put(newest);
	}
	return NULL;
}

static void *walk_points(void *arg)
{
	while (!atomic_load(&chain.end)) {
		struct lf_fence *newest = lf_fence_slot_get(&chain.newest);
		struct lf_unwrap walk;
		bool moved = false;
		long next;

		if (newest == NULL)
			continue;
		long last = (long)(lf_fence_seqno(newest) / 2) - 1;
		/* what is missing at the beginning is gone as a whole */
		next = last - 2 * WINDOW < 0 ? 0 : last - 2 * WINDOW;
		must(lf_unwrap_begin(&walk, newest, 0) == 0);
		for (struct lf_fence *leaf = lf_unwrap_next(&walk); leaf != NULL; leaf = lf_unwrap_next(&walk), next++) {
			long number = number_of(leaf);

			must(number >= next && number <= last);
			for (; next < number; next++)
				must(atomic_load(&chain.begun[next]));
			moved |= lf_fence_is_signaled(leaf);
			atomic_fetch_add(&chain.leaves, 1);
		}
		for (; next <= last; next++)
			must(atomic_load(&chain.begun[next]));
		lf_unwrap_end(&walk);
		lf_fence_put(newest);
		atomic_fetch_add(&chain.walks, 1);
		atomic_fetch_add(&chain.walks_moved, moved);
	}
	return NULL;
}

static void chain_is_appended_to_signaled_searched_and_walked(void **state)
{
	void *(*const jobs[])(void *) = { append_points, signal_points, find_points, walk_points };
	pthread_t threads[4];

	chain.seed = test_seed();
	chain.points = test_rounds(40000);
	chain.begun = calloc((size_t)chain.points, sizeof(*chain.begun));
	assert_non_null(chain.begun);
	test_watchdog(100, "a chain that moves");
	for (size_t i = 0; i < 4; i++)
		threads[i] = thread_start(jobs[i], NULL, 0);
	for (size_t i = 0; i < 4; i++)
		thread_join(threads[i]);
	test_watchdog(0, "");
	lf_fence_slot_set(&chain.newest, NULL);
	free(chain.begun);
	test_note("chain: %ld points: found pending %ld, signaled %ld; %ld walks of %ld leaves, during %ld of which leaves were signaled",
		chain.points, atomic_load(&chain.found_pending), atomic_load(&chain.found_signaled), atomic_load(&chain.walks),
		atomic_load(&chain.leaves), atomic_load(&chain.walks_moved));
}

/* --- 4. Nested arrays that are built meanwhile ------------------------------------------------------------------------ */

enum { LEAVES = 8, LEVELS = 12 };

static struct {
	long rounds;
	uint64_t seed;
	struct gate gate;
	struct lf_fence *leaves[LEAVES];
	atomic_long born_pending, born_signaled, ended_pending;
} nest;

static void *signal_leaves(void *arg)
{
	size_t me = *(size_t *)arg;
	uint64_t random = nest.seed + me + 1;

	for (long r = 0; r < nest.rounds; r++) {
		gate_wait(&nest.gate);
		for (size_t i = me; i < LEAVES; i += 2) {
			pause_at_random(&random);
			must(lf_fence_signal(nest.leaves[i], i == 3 ? -EIO : 0));
		}
		gate_wait(&nest.gate);
	}
	return NULL;
}

static void nested_arrays_built_while_their_leaves_are_signaled(void **state)
{
	size_t numbers[2] = { 0, 1 };
	uint64_t random;
	pthread_t threads[2];

	nest.seed = random = test_seed();
	nest.rounds = test_rounds(6000);
	gate_init(&nest.gate, 3);
	test_watchdog(100, "nested arrays that are built meanwhile");
	threads[0] = thread_start(signal_leaves, &numbers[0], 0);
	threads[1] = thread_start(signal_leaves, &numbers[1], 0);
	for (long r = 0; r < nest.rounds; r++) {
		struct lf_fence *level[LEVELS];
		bool below[LEVELS]; /* the leaf that fails is */

		for (size_t i = 0; i < LEAVES; i++)
			must(lf_fence_create(&nest.leaves[i]) == 0);
		gate_wait(&nest.gate);
		for (size_t l = 0; l < LEVELS; l++) {
			size_t leaf = (size_t)(random_next(&random) % LEAVES);
			size_t before = l ? (size_t)(random_next(&random) % l) : 0;
			struct lf_fence *members[3] = { lf_fence_get(nest.leaves[leaf]) };
			size_t n = 1;

			below[l] = leaf == 3;
			if (l) {
				members[n++] = lf_fence_get(level[l - 1]);
				members[n++] = lf_fence_get(level[before]);
				below[l] |= below[l - 1] | below[before];
			}
			/* an array, or the same as a chain: after one, the other */
			if (l % 4 == 3 && !lf_fence_is_chain(members[2])) {
				lf_fence_put(members[1]);
				below[l] = leaf == 3 || below[before];
				must(lf_chain_append(members[0], members[2], 1, 0, &level[l]) == 0);
			} else {
				level[l] = make_array(LF_ARRAY_ALL, members, n);
			}
			atomic_fetch_add(lf_fence_is_signaled(level[l]) ? &nest.born_signaled : &nest.born_pending, 1);
		}
		/* every other one is put while it may be pending; those above hold it */
		for (size_t l = 0; l < LEVELS; l += 2) {
			atomic_fetch_add(&nest.ended_pending, !lf_fence_is_signaled(level[l]));
			lf_fence_put(level[l]);
		}
		gate_wait(&nest.gate);
		for (size_t l = 1; l < LEVELS; l += 2) {
			must(lf_fence_is_signaled(level[l]));
			must(lf_fence_status(level[l]) == (below[l] ? -EIO : 1));
			lf_fence_put(level[l]);
		}
		for (size_t i = 0; i < LEAVES; i++)
			lf_fence_put(nest.leaves[i]);
	}
	for (size_t i = 0; i < 2; i++)
		thread_join(threads[i]);
	test_watchdog(0, "");
	gate_fini(&nest.gate);
	test_note("nested: %ld rounds of %d levels: made pending %ld, signaled %ld; put while pending %ld", nest.rounds, LEVELS,
		atomic_load(&nest.born_pending), atomic_load(&nest.born_signaled), atomic_load(&nest.ended_pending));
}

/* --- 5. Forks --------------------------------------------------------------------------------------------------------- */

static struct {
	long rounds;
	uint64_t seed;
	struct gate gate;
	struct lf_fence *trunk, *branch[2], *fence;
	atomic_long first[2], onto_pending, onto_signaled;
} forks;

static void *append_branch(void *arg)
{
	size_t me = *(size_t *)arg;
	uint64_t random = forks.seed + me + 1;

	for (long r = 0; r < forks.rounds; r++) {
		gate_wait(&forks.gate);
		pause_at_random(&random);
		must(lf_chain_append(lf_fence_get(forks.trunk), lf_fence_stub(), 11 + me, 0, &forks.branch[me]) == 0);
		atomic_fetch_add(lf_fence_is_signaled(forks.branch[me]) ? &forks.onto_signaled : &forks.onto_pending, 1);
		gate_wait(&forks.gate);
	}
	return NULL;
}

static void *signal_trunk(void *arg)
{
	uint64_t random = forks.seed + 99;

	for (long r = 0; r < forks.rounds; r++) {
		gate_wait(&forks.gate);
		pause_at_random(&random);
		must(lf_fence_signal(forks.fence, -EIO));
		gate_wait(&forks.gate);
	}
	return NULL;
}

static void link_that_two_threads_append_to(void **state)
{
	size_t numbers[2] = { 0, 1 };
	pthread_t threads[3];

	forks.seed = test_seed();
	forks.rounds = test_rounds(6000);
	gate_init(&forks.gate, 4);
	test_watchdog(100, "a link that two threads append to");
	threads[0] = thread_start(append_branch, &numbers[0], 0);
	threads[1] = thread_start(append_branch, &numbers[1], 0);
	threads[2] = thread_start(signal_trunk, NULL, 0);
	for (long r = 0; r < forks.rounds; r++) {
		must(lf_fence_create(&forks.fence) == 0);
		must(lf_chain_append(NULL, lf_fence_get(forks.fence), 10, 0, &forks.trunk) == 0);
		gate_wait(&forks.gate);
		gate_wait(&forks.gate);
		uint64_t context = lf_fence_context(forks.trunk);
		bool same[2] = { lf_fence_context(forks.branch[0]) == context, lf_fence_context(forks.branch[1]) == context };

		must(same[0] != same[1]);
		must(lf_fence_context(forks.branch[0]) != lf_fence_context(forks.branch[1]));
		must(!lf_fence_is_later(forks.branch[0], forks.branch[1]) && !lf_fence_is_later(forks.branch[1], forks.branch[0]));
		must(lf_fence_is_later(forks.branch[same[1]], forks.trunk) && !lf_fence_is_later(forks.branch[same[0]], forks.trunk));
		atomic_fetch_add(&forks.first[same[1]], 1);
		for (size_t i = 0; i < 2; i++) {
			must(lf_fence_status(forks.branch[i]) == -EIO);
			lf_fence_put(forks.branch[i]);
		}
		lf_fence_put(forks.trunk);
		lf_fence_put(forks.fence);
	}
	for (size_t i = 0; i < 3; i++)
		thread_join(threads[i]);
	test_watchdog(0, "");
	gate_fini(&forks.gate);
	test_note("forks: %ld rounds: first was the one %ld, the other %ld; appended to a pending link %ld, to a signaled one %ld",
		forks.rounds, atomic_load(&forks.first[0]), atomic_load(&forks.first[1]), atomic_load(&forks.onto_pending),
		atomic_load(&forks.onto_signaled));
}

/* --- 6. Interest ------------------------------------------------------------------------------------------------------ */

enum { ARMED = 4 };

static struct {
	long rounds;
	uint64_t seed;
	struct gate gate;
	struct lf_timeline *tl;
	struct lf_fence *part, *whole[2];
	struct counted_cb {
		struct lf_fence_cb cb;
		atomic_int runs;
	} cb[2];
	atomic_bool added[2];
	atomic_uint asked[ARMED]; /* of the round, by seqno */
	atomic_int steps; /* of the interested in this round, before and after they have said so */
	atomic_long armed, not_armed, added_in_time, refused, waited;
} interest;

static int interest_enable(struct lf_fence *f, void *data)
{
	atomic_fetch_add(&interest.asked[lf_fence_seqno(f) % ARMED], 1);
	sched_yield();
	return 0;
}

static void count_run(struct lf_fence *f, struct lf_fence_cb *cb)
{
	must(lf_fence_is_signaled(f));
	atomic_fetch_add(&((struct counted_cb *)(void *)cb)->runs, 1);
}

static void *become_interested(void *arg)
{
	size_t me = *(size_t *)arg;
	uint64_t random = interest.seed + me + 1;

	for (long r = 0; r < interest.rounds; r++) {
		gate_wait(&interest.gate);
		pause_at_random(&random);
		atomic_fetch_add(&interest.steps, 1);
		if (random_next(&random) % 4 == 0) {
			must(lf_fence_wait(interest.whole[me], LF_DEADLINE_NEVER) == 0);
			atomic_fetch_add(&interest.waited, 1);
		} else {
			int result = lf_fence_add_callback(interest.whole[me], &interest.cb[me].cb, count_run);

			must(result == 0 || result == -ENOENT);
			atomic_store(&interest.added[me], result == 0);
			atomic_fetch_add(result == 0 ? &interest.added_in_time : &interest.refused, 1);
		}
		atomic_fetch_add(&interest.steps, 1);
		gate_wait(&interest.gate);
	}
	return NULL;
}

static void *signal_timeline(void *arg)
{
	uint64_t random = interest.seed + 99;

	for (long r = 0; r < interest.rounds; r++) {
		gate_wait(&interest.gate);
		for (uint64_t i = 1; i <= ARMED; i++) {
			/* amid their arming, at another place in each round; who waits takes no further step */
			int target = (int)(random_next(&random) % 5);

			for (int n = 0; n < 200 && atomic_load(&interest.steps) < target; n++)
				sched_yield();
			pause_at_random(&random);
			lf_timeline_signal_to(interest.tl, (uint64_t)r * ARMED + i, 0);
		}
		gate_wait(&interest.gate);
	}
	return NULL;
}

static void interest_in_overlapping_containers_while_they_are_signaled(void **state)
{
	static const struct lf_fence_ops ops = { .enable = interest_enable };
	const struct lf_timeline_desc desc = { .name = "interest", .flags = LF_TIMELINE_ORDERED, .ops = &ops };
	size_t numbers[2] = { 0, 1 };
	pthread_t threads[3];

	interest.seed = test_seed();
	interest.rounds = test_rounds(6000);
	assert_int_equal(lf_timeline_create(&desc, &interest.tl), 0);
	gate_init(&interest.gate, 4);
	test_watchdog(100, "interest in overlapping containers");
	threads[0] = thread_start(become_interested, &numbers[0], 0);
	threads[1] = thread_start(become_interested, &numbers[1], 0);
	threads[2] = thread_start(signal_timeline, NULL, 0);
	for (long r = 0; r < interest.rounds; r++) {
		struct lf_fence *f[ARMED];

		for (size_t i = 0; i < ARMED; i++) {
			must(lf_timeline_emit(interest.tl, 0, &f[i]) == 0);
			atomic_store(&interest.asked[i], 0);
		}
		/* part = {0, 1}; one whole = {part, 2, 3}, the other a chain of part and 3 */
		struct lf_fence *all[] = { NULL, f[2], lf_fence_get(f[3]) };

		interest.part = make_array(LF_ARRAY_ALL, f, 2);
		all[0] = lf_fence_get(interest.part);
		interest.whole[0] = make_array(LF_ARRAY_ALL, all, 3);
		must(lf_chain_append(interest.part, f[3], 1, 0, &interest.whole[1]) == 0);
		memset(interest.cb, 0, sizeof(interest.cb));
		atomic_store(&interest.steps, 0);
		atomic_store(&interest.added[0], false);
		atomic_store(&interest.added[1], false);
		gate_wait(&interest.gate);
		gate_wait(&interest.gate);
		for (size_t i = 0; i < ARMED; i++) {
			unsigned asked = atomic_load(&interest.asked[i]);

			must(asked <= 1);
			atomic_fetch_add(asked ? &interest.armed : &interest.not_armed, 1);
		}
		for (size_t i = 0; i < 2; i++) {
			must(lf_fence_status(interest.whole[i]) == 1);
			must(lf_fence_is_drained(interest.whole[i]));
			must(atomic_load(&interest.cb[i].runs) == atomic_load(&interest.added[i]));
			lf_fence_put(interest.whole[i]);
		}
	}
	for (size_t i = 0; i < 3; i++)
		thread_join(threads[i]);
	test_watchdog(0, "");
	gate_fini(&interest.gate);
	lf_timeline_put(interest.tl);
	test_note("interest: %ld rounds: fences armed %ld, not armed %ld; callbacks added %ld, refused %ld; waits %ld", interest.rounds,
		atomic_load(&interest.armed), atomic_load(&interest.not_armed), atomic_load(&interest.added_in_time),
		atomic_load(&interest.refused), atomic_load(&interest.waited));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(members_of_an_array_signaled_by_two_threads),
		TEST(any_array_of_two_signaled_at_once),
		TEST(chain_is_appended_to_signaled_searched_and_walked),
		TEST(nested_arrays_built_while_their_leaves_are_signaled),
		TEST(link_that_two_threads_append_to),
		TEST(interest_in_overlapping_containers_while_they_are_signaled),
	};
	return TEST_MAIN(tests);
}
