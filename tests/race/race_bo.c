/* SPDX-License-Identifier: MIT */
/*
 * One buffer a round, and all at once: it moves, jobs are put on each of its places, an engine signals them in any order, importers map,
 * unmap, attach and detach, the owner revokes it, somebody looks without a lock, and whoever lets go last ends it.
 *
 * Oracle:
 * - a backing is overwritten when it is released. Who works on one (a job until its fence is signaled, a copy on both of its places, an
 *   importer until it unmaps) finds it whole. Each that was made is released exactly once, and never inside a call that takes a buffer;
 * - the buffer ends once, after all of them;
 * - when lf_bo_revoke_wait() has returned 0 nothing is mapped, and what was done with mappings is seen; no mapping is made afterwards;
 * - a hook is called with the reservation held, one call at a time, and not after lf_attachment_detach() has returned;
 * - what is found without a lock is a place that the buffer was in;
 * - when an importer's provider closes in the middle, its hook is not called after lf_provider_close() has returned 0, nothing more is
 *   mapped, and what it has mapped keeps no place.
 * A hit is a mapping that was refused, a walk that found who remains, a place that was released by a signal, by the reclaimer, and while
 * it had been left mapped; and a look that met the buffer dying. Healthy output has some of each.
 */
#include "producer.h"

#include <sched.h>
#include <stdatomic.h>

enum { STEPS = 120, PLACES = STEPS + 1, JOBS = 3 * STEPS, IMPORTERS = 2, MAPS = 4 };

enum { WHOLE = 0x600d, OVERWRITTEN = 0xdead };

/* A backing. */
struct cell {
	long data; /* not atomic on purpose: the library orders its uses */
	atomic_uint released;
};

struct job {
	struct lf_fence *fence;
	struct cell *cells[2];
};

struct importer {
	struct lf_attachment *a;
	struct lf_bo_map *maps[MAPS];
	bool attached; /* not atomic on purpose */
	long unmapped; /* likewise; read by the owner when the revoke is through */
	atomic_int running;
	uint64_t random;
};

static struct {
	uint64_t seed;
	/* of the round */
	struct lf_bo *bo;
	struct cell cells[PLACES];
	struct importer importers[IMPORTERS];
	_Atomic(struct lf_bo *) found; /* for the looker; NULL before the owner lets go */
	struct job jobs[JOBS]; /* protected by mutex */
	size_t job_count; /* protected by mutex */
	pthread_mutex_t mutex;
	atomic_int submitting; /* threads that may still hand in jobs */
	atomic_int mapped;
	atomic_bool gone; /* the revoke, or the close, is through */
	atomic_uint ended;
	atomic_bool over; /* for the looker */
	/* of all rounds */
	struct lf_provider *provider;
	atomic_bool closing;
	bool closed; /* not atomic on purpose: written when no hook is called any more */
	atomic_long by_signal, by_reclaimer, left_mapped, refused, remained, dying, looked, told, mapped_inside, detached, taken;
} shared;

static __thread unsigned inside_call;
static __thread bool signaling;

#define CALL(expression)       \
	do {                   \
		inside_call++; \
		expression;    \
		inside_call--; \
	} while (0)

static void count(atomic_long *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* --- Backings --------------------------------------------------------------------------------------------------------- */

static void cell_release(void *memory, void *user)
{
	struct cell *c = memory;
	must(inside_call == 0 && !lf_read_held());
	must(atomic_fetch_add(&c->released, 1) == 0);
	must(c->data == WHOLE);
	c->data = OVERWRITTEN;
	count(signaling ? &shared.by_signal : &shared.by_reclaimer);
}

static struct lf_backing cell_backing(struct cell *c)
{
	c->data = WHOLE;
	return (struct lf_backing){ .memory = c, .release = cell_release };
}

static void cell_check(const struct cell *c)
{
	must(c >= shared.cells && c < shared.cells + PLACES);
	must(c->data == WHOLE);
}

static void buffer_end(struct lf_bo *bo)
{
	must(bo == shared.bo && inside_call == 0);
	for (int i = 0; i < PLACES; i++)
		must(shared.cells[i].data != WHOLE);
	must(atomic_fetch_add(&shared.ended, 1) == 0);
}

static void lock(void)
{
	must(lf_resv_lock(shared.bo->resv, NULL) == 0);
}

static void unlock(void)
{
	lf_resv_unlock(shared.bo->resv);
}

/* --- The engine ------------------------------------------------------------------------------------------------------- */

/* Hands in a job; a reference on its fence moves. */
static void hand_in(struct lf_fence *f, struct cell *a, struct cell *b)
{
	pthread_mutex_lock(&shared.mutex);
	must(shared.job_count < JOBS);
	shared.jobs[shared.job_count++] = (struct job){ f, { a, b } };
	pthread_mutex_unlock(&shared.mutex);
}

static bool take_job(uint64_t *random, struct job *ret_job)
{
	bool any;
	pthread_mutex_lock(&shared.mutex);
	any = shared.job_count > 0;
	if (any) {
		size_t k = (size_t)(random_next(random) % shared.job_count);
		*ret_job = shared.jobs[k];
		shared.jobs[k] = shared.jobs[--shared.job_count];
	}
	pthread_mutex_unlock(&shared.mutex);
	return any;
}

static void *engine(void *arg)
{
	uint64_t random = shared.seed + 11;
	struct job job;
	for (;;) {
		bool last = atomic_load(&shared.submitting) == 0;
		if (take_job(&random, &job)) {
			for (int i = 0; i < 2; i++)
				cell_check(job.cells[i]);
			signaling = true;
			must(lf_fence_signal(job.fence, 0));
			signaling = false;
			lf_fence_put(job.fence);
			if (random_next(&random) % 4)
				continue;
		} else if (last) {
			return NULL;
		}
		usleep(1); /* lets some jobs gather */
	}
}

/* --- Submitter and mover ---------------------------------------------------------------------------------------------- */

static struct lf_fence *new_fence(void)
{
	struct lf_fence *f = NULL;
	must(lf_fence_create(&f) == 0);
	return f;
}

static void let_go(void)
{
	CALL(lf_bo_put(shared.bo));
}

static void *submitter(void *arg)
{
	uint64_t random = shared.seed + 22;
	for (int i = 0; i < STEPS; i++) {
		struct lf_fence *f = new_fence();
		struct cell *c;
		lock();
		must(lf_resv_reserve(shared.bo->resv, 1) == 0);
		lf_resv_add(shared.bo->resv, f, (enum lf_usage)(random_next(&random) % 4));
		c = lf_bo_memory(shared.bo);
		unlock();
		hand_in(f, c, c);
		pause_at_random(&random);
	}
	let_go();
	atomic_fetch_sub(&shared.submitting, 1);
	return NULL;
}

static void *mover(void *arg)
{
	uint64_t random = shared.seed + 33;
	for (int i = 1; i <= STEPS; i++) {
		struct lf_backing backing = cell_backing(&shared.cells[i]);
		struct lf_fence *f = random_next(&random) % 8 ? new_fence() : NULL;
		lock();
		must(lf_bo_memory(shared.bo) == &shared.cells[i - 1]);
		must(lf_bo_prepare_move(shared.bo) == 0);
		CALL(lf_bo_move(shared.bo, &backing, f));
		unlock();
		if (f)
			hand_in(f, &shared.cells[i - 1], &shared.cells[i]);
		pause_at_random(&random);
	}
	let_go();
	atomic_fetch_sub(&shared.submitting, 1);
	return NULL;
}

/* --- Importers -------------------------------------------------------------------------------------------------------- */

/* The reservation is held. */
static struct lf_bo_map *map_locked(struct importer *i)
{
	bool gone = atomic_load(&shared.gone);
	struct lf_bo_map *map = NULL;
	int error;
	CALL(error = lf_attachment_map(i->a, &map));
	if (error) {
		must(error == -ENODEV && lf_bo_is_revoked(shared.bo));
		count(&shared.refused);
		return NULL;
	}
	must(!gone);
	atomic_fetch_add_explicit(&shared.mapped, 1, memory_order_relaxed);
	return map;
}

static void unmap(struct importer *i, struct lf_bo_map *map)
{
	struct cell *c = lf_bo_map_memory(map);
	cell_check(c);
	if (c != lf_bo_memory(shared.bo))
		count(&shared.left_mapped);
	i->unmapped++;
	atomic_fetch_sub_explicit(&shared.mapped, 1, memory_order_relaxed);
	CALL(lf_bo_unmap(map));
}

/* Sometimes maps the new place, and lets go of it at once. `unmapped` is the importer's thread's, so not touched here. */
static void told(struct lf_attachment *a, void *data)
{
	struct importer *i = data;
	struct lf_bo_map *map;
	must(atomic_fetch_add_explicit(&i->running, 1, memory_order_relaxed) == 0);
	must(i->attached);
	must(lf_resv_is_held(shared.bo->resv));
	count(&shared.told);
	if (random_next(&i->random) % 4 == 0 && lf_attachment_map(a, &map) == 0) {
		must(lf_bo_map_memory(map) == lf_bo_memory(shared.bo));
		must(!atomic_load(&shared.gone));
		cell_check(lf_bo_map_memory(map));
		lf_bo_unmap(map);
		count(&shared.mapped_inside);
	}
	atomic_fetch_sub_explicit(&i->running, 1, memory_order_relaxed);
}

/* Returns false when the buffer was revoked. */
static bool attach(struct importer *i)
{
	const struct lf_attachment_desc desc = { .name = "importer", .invalidate = told, .data = i };
	int error;
	i->attached = true;
	error = lf_bo_attach(shared.bo, &desc, &i->a);
	must(error == 0 || (error == -ENODEV && lf_bo_is_revoked(shared.bo)));
	if (error)
		i->a = NULL;
	return error == 0;
}

static void detach(struct importer *i)
{
	if (!i->a)
		return;
	must(lf_attachment_detach(i->a) == 0);
	i->attached = false;
	CALL(lf_attachment_put(i->a));
	i->a = NULL;
	count(&shared.detached);
}

/* Does something with one of the mappings. Returns false when there is nothing more to do. */
static bool import(struct importer *i, uint64_t *random)
{
	struct lf_bo_map **map = &i->maps[random_next(random) % MAPS];
	if (*map) {
		unmap(i, *map);
		*map = NULL;
		return true;
	}
	if (random_next(random) % 16 == 0) {
		detach(i); /* what is mapped stays */
		return attach(i);
	}
	lock();
	*map = map_locked(i);
	unlock();
	return *map != NULL;
}

static void *importer(void *arg)
{
	struct importer *i = arg;
	uint64_t random = shared.seed + 44 + (uint64_t)(i - shared.importers);
	bool more = attach(i);
	for (int k = 0; more && k < STEPS; k++) {
		more = import(i, &random);
		pause_at_random(&random);
	}
	for (int k = 0; k < MAPS; k++) {
		if (i->maps[k])
			unmap(i, i->maps[k]);
		pause_at_random(&random);
	}
	detach(i);
	let_go();
	return NULL;
}

/* --- Owner and looker ------------------------------------------------------------------------------------------------- */

static void wait_until_gone(void)
{
	long sum = 0;
	int error;
	while ((error = lf_bo_revoke_wait(shared.bo, lf_now() + 20000)) == -ETIME) {
		struct lf_attachment *a = lf_bo_next_mapped(shared.bo, NULL);
		for (; a; a = lf_bo_next_mapped(shared.bo, a))
			count(&shared.remained);
		error = lf_bo_revoke_wait(shared.bo, LF_DEADLINE_NEVER);
		break;
	}
	must(error == 0);
	for (int k = 0; k < IMPORTERS; k++)
		sum += shared.importers[k].unmapped; /* nobody writes them any more */
	must(sum >= 0 && atomic_load_explicit(&shared.mapped, memory_order_relaxed) == 0);
	atomic_store(&shared.gone, true);
}

static void *owner(void *arg)
{
	uint64_t random = shared.seed + 55;
	for (uint64_t i = random_next(&random) % (2 * STEPS); i; i--)
		pause_at_random(&random);
	if (random_next(&random) % 4) {
		lock();
		must(lf_bo_revoke_begin(shared.bo) == 0);
		unlock();
		wait_until_gone();
	}
	atomic_store_explicit(&shared.found, NULL, memory_order_release);
	let_go();
	return NULL;
}

static void look(struct lf_bo *bo)
{
	const struct cell *c = lf_bo_memory(bo);
	must(c >= shared.cells && c < shared.cells + PLACES);
	count(&shared.looked);
}

/* Without a lock, and without a reference if there is none to be had. */
static void *looker(void *arg)
{
	uint64_t random = shared.seed + 66;
	while (!atomic_load_explicit(&shared.over, memory_order_relaxed)) {
		struct lf_bo *bo, *mine = NULL;
		lf_read_lock();
		bo = atomic_load_explicit(&shared.found, memory_order_acquire);
		if (bo)
			look(bo);
		if (bo && random_next(&random) % 2) {
			sched_yield();
			mine = lf_bo_tryget(bo);
			if (!mine)
				count(&shared.dying);
		}
		lf_read_unlock();
		if (mine)
			CALL(lf_bo_put(mine));
		usleep(1); /* it only looks: not at the cost of the others */
	}
	return NULL;
}

/* --- Rounds ----------------------------------------------------------------------------------------------------------- */

static void round_begin(int others)
{
	struct lf_bo_desc desc = { .size = 4096, .release = buffer_end };
	memset(shared.cells, 0, sizeof(shared.cells));
	memset(shared.importers, 0, sizeof(shared.importers));
	desc.backing = cell_backing(&shared.cells[0]);
	shared.bo = lf_alloc(sizeof(*shared.bo));
	must(shared.bo && lf_bo_init(shared.bo, &desc) == 0);
	for (int i = 0; i < others; i++)
		lf_bo_get(shared.bo); /* the first is the owner's */
	for (int i = 0; i < IMPORTERS; i++)
		shared.importers[i].random = shared.seed + 77 + (uint64_t)i;
	shared.job_count = 0;
	atomic_store(&shared.found, shared.bo);
	atomic_store(&shared.submitting, 2);
	atomic_store(&shared.mapped, 0);
	atomic_store(&shared.gone, false);
	atomic_store(&shared.ended, 0);
	atomic_store(&shared.over, false);
}

static void round_run(void)
{
	pthread_t threads[5 + IMPORTERS];
	int n = 0;
	threads[n++] = thread_start(engine, NULL, 0);
	threads[n++] = thread_start(submitter, NULL, 0);
	threads[n++] = thread_start(mover, NULL, 0);
	threads[n++] = thread_start(owner, NULL, 0);
	for (int i = 0; i < IMPORTERS; i++)
		threads[n++] = thread_start(importer, &shared.importers[i], 0);
	threads[n] = thread_start(looker, NULL, 0);
	for (int i = 0; i < n; i++)
		thread_join(threads[i]);
	atomic_store(&shared.over, true);
	thread_join(threads[n]);
	must(lf_reclaim_barrier() == 0);
}

static void round_check(void)
{
	assert_int_equal(atomic_load(&shared.ended), 1);
	for (int i = 0; i < PLACES; i++)
		assert_int_equal(atomic_load(&shared.cells[i].released), 1);
	shared.seed += 1000;
}

static void everything_at_once(void **state)
{
	long rounds = test_rounds(300);
	shared.seed = test_seed();
	pthread_mutex_init(&shared.mutex, NULL);
	test_watchdog(100, "race_bo: a fence that does not signal, or a wait that does not end");
	for (long r = 0; r < rounds; r++) {
		round_begin(2 + IMPORTERS); /* submitter, mover, importers */
		round_run();
		round_check();
	}
	test_watchdog(0, "");
	pthread_mutex_destroy(&shared.mutex);
	test_note("race_bo: %ld rounds; places released by a signal %ld, by the reclaimer %ld; mappings of places that were left %ld",
		rounds, atomic_load(&shared.by_signal), atomic_load(&shared.by_reclaimer), atomic_load(&shared.left_mapped));
	test_note("race_bo: mappings refused %ld, importers that remained %ld; told %ld, mapped inside %ld, detached %ld",
		atomic_load(&shared.refused), atomic_load(&shared.remained), atomic_load(&shared.told), atomic_load(&shared.mapped_inside),
		atomic_load(&shared.detached));
	test_note("race_bo: looks without a lock %ld, of which met it dying %ld", atomic_load(&shared.looked), atomic_load(&shared.dying));
}

/* --- A provider that closes in the middle ----------------------------------------------------------------------------- */

static void told_unless_closed(struct lf_attachment *a, void *data)
{
	struct importer *i = data;
	struct lf_bo_map *map;
	must(!shared.closed);
	count(&shared.told);
	if (random_next(&i->random) % 4 == 0 && lf_attachment_map(a, &map) == 0) {
		CALL(lf_bo_unmap(map));
		count(&shared.mapped_inside);
	}
}

/* What it has mapped may be taken at any time, so it does not look at it. */
static void *closed_importer(void *arg)
{
	struct importer *i = arg;
	const struct lf_attachment_desc desc = {
		.name = "importer", .invalidate = told_unless_closed, .data = i, .provider = shared.provider
	};
	uint64_t random = shared.seed + 88;
	int error = lf_bo_attach(shared.bo, &desc, &i->a);
	must(error == 0 || (error == -ESHUTDOWN && atomic_load(&shared.closing)));
	for (int k = 0; error == 0 && k < 2 * STEPS; k++) {
		struct lf_bo_map **map = &i->maps[random_next(&random) % MAPS];
		CALL(lf_bo_unmap(*map));
		*map = NULL;
		bool gone = atomic_load_explicit(&shared.gone, memory_order_relaxed);
		lock();
		CALL(error = lf_attachment_map(i->a, map));
		unlock();
		must(error != 0 || !gone);
		must(error == 0 || (error == -ENODEV && atomic_load(&shared.closing)));
		pause_at_random(&random);
	}
	if (error == -ENODEV) {
		for (int k = 0; k < MAPS; k++)
			atomic_fetch_add_explicit(&shared.taken, i->maps[k] != NULL, memory_order_relaxed);
	}
	for (int k = 0; k < MAPS; k++)
		CALL(lf_bo_unmap(i->maps[k]));
	CALL(lf_attachment_put(i->a));
	let_go();
	return NULL;
}

static void *closer(void *arg)
{
	uint64_t random = shared.seed + 99;
	for (uint64_t i = random_next(&random) % (2 * STEPS); i; i--)
		pause_at_random(&random);
	atomic_store(&shared.closing, true);
	must(lf_provider_close(shared.provider, LF_DEADLINE_NEVER) == 0);
	shared.closed = true;
	atomic_store_explicit(&shared.gone, true, memory_order_relaxed);
	must(lf_bo_next_mapped(shared.bo, NULL) == NULL);
	let_go();
	return NULL;
}

static void closing_round_run(void)
{
	pthread_t threads[4];
	threads[0] = thread_start(engine, NULL, 0);
	threads[1] = thread_start(mover, NULL, 0);
	threads[2] = thread_start(closed_importer, &shared.importers[0], 0);
	threads[3] = thread_start(closer, NULL, 0);
	for (int i = 0; i < 4; i++)
		thread_join(threads[i]);
	must(lf_reclaim_barrier() == 0);
}

static void a_provider_closes_while_its_importer_maps(void **state)
{
	long rounds = test_rounds(300), told_before = atomic_load(&shared.told);
	shared.seed = test_seed();
	pthread_mutex_init(&shared.mutex, NULL);
	test_watchdog(100, "race_bo: a provider that does not close");
	for (long r = 0; r < rounds; r++) {
		round_begin(2);
		atomic_store(&shared.submitting, 1);
		atomic_store(&shared.closing, false);
		shared.closed = false;
		must(lf_provider_create("importer", &shared.provider) == 0);
		closing_round_run();
		round_check();
		lf_provider_put(shared.provider);
	}
	test_watchdog(0, "");
	pthread_mutex_destroy(&shared.mutex);
	test_note("race_bo: %ld rounds; told %ld, mappings taken from their importer %ld", rounds, atomic_load(&shared.told) - told_before,
		atomic_load(&shared.taken));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(everything_at_once),
		TEST_WARM(a_provider_closes_while_its_importer_maps),
	};
	return TEST_MAIN(tests);
}
