/* SPDX-License-Identifier: MIT */
/* Deferred frees, calls and puts: after a grace period, in order, on the right thread, in bounded number, whatever becomes of threads. */
#include "producer.h"

#include <sched.h>
#include <time.h>

static bool flag_get(struct flag *flag)
{
	bool set;

	pthread_mutex_lock(&flag->mutex);
	set = flag->set;
	pthread_mutex_unlock(&flag->mutex);
	return set;
}

/* A little real time for the library to do what it must not; no result depends on how long it is. */
static void give_it_time(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
}

static void barrier(void)
{
	assert_int_equal(lf_reclaim_barrier(), 0);
}

static uint64_t pending(void)
{
	struct lf_reclaim_stats stats;

	lf_reclaim_get_stats(&stats);
	return stats.pending;
}

struct block {
	struct lf_deferred node;
	char payload[48];
};

static struct block *block_alloc(void)
{
	struct block *b = lf_alloc(sizeof(*b));

	must(b != NULL);
	return b;
}

static void defer_one_free(void)
{
	struct block *b = block_alloc();

	lf_defer_free(&b->node, b);
}

/* A deferred call that notes how, where and in which place it came. */
struct noted_call {
	struct lf_deferred node;
	unsigned ran;
	unsigned place; /* 1 for the first of the test */
	pthread_t thread;
	bool in_section;
	int (*then)(struct noted_call *call); /* what to do besides */
	int result;
	unsigned again; /* how often to defer itself anew */
};

static unsigned places;

static void call_run(struct lf_deferred *node)
{
	struct noted_call *c = (struct noted_call *)node;

	c->thread = pthread_self();
	c->in_section = lf_read_held();
	c->place = __atomic_add_fetch(&places, 1, __ATOMIC_SEQ_CST);
	if (c->then)
		c->result = c->then(c);
	count_up(&c->ran);
	if (c->again != 0) {
		c->again--;
		lf_defer_call(&c->node, call_run);
	}
}

/* --- Read sections ------------------------------------------------------------------------------------------------------- */

static void unlock_without_a_section_is_reported_and_does_nothing(void **state)
{
	(void)state;
	lf_read_unlock();
	assert_int_equal(log_count(LF_LOG_MISUSE), 1);
	log_reset();
	lf_read_lock();
	assert_true(lf_read_held());
	lf_read_unlock();
	assert_false(lf_read_held());
}

static void read_sections_nest(void **state)
{
	(void)state;
	assert_false(lf_read_held());
	lf_read_lock();
	lf_read_lock();
	assert_true(lf_read_held());
	lf_read_unlock();
	assert_true(lf_read_held());
	lf_read_unlock();
	assert_false(lf_read_held());
}

static void *ask_held(void *arg)
{
	(void)arg;
	return lf_read_held() ? "held" : NULL;
}

static void read_section_belongs_to_its_thread(void **state)
{
	void *held;

	(void)state;
	lf_read_lock();
	held = thread_join(thread_start(ask_held, NULL, 0));
	lf_read_unlock();
	assert_null(held);
}

/* --- What is deferred ---------------------------------------------------------------------------------------------------- */

static void barrier_frees_and_calls_all_that_was_deferred(void **state)
{
	enum { N = 300 };
	struct noted_call calls[N];
	long live = alloc_live();

	(void)state;
	memset(calls, 0, sizeof(calls));
	for (int i = 0; i < N; i++) {
		defer_one_free();
		lf_defer_call(&calls[i].node, call_run);
	}
	barrier();
	assert_true(alloc_live() <= live);
	assert_true(pending() == 0);
	for (int i = 0; i < N; i++)
		assert_int_equal(calls[i].ran, 1);
}

static void barrier_with_nothing_deferred_returns_at_once_and_again(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++)
		barrier();
}

static void deferral_inside_a_read_section_is_allowed(void **state)
{
	struct noted_call call = { .ran = 0 };
	unsigned early;

	(void)state;
	lf_read_lock();
	defer_one_free();
	lf_defer_call(&call.node, call_run);
	give_it_time();
	early = count_get(&call.ran); /* our own section is open */
	lf_read_unlock();
	barrier();
	assert_int_equal(early, 0);
	assert_int_equal(call.ran, 1);
}

static void deferred_calls_run_on_the_reclaimer_outside_read_sections(void **state)
{
	struct noted_call calls[4];

	(void)state;
	memset(calls, 0, sizeof(calls));
	for (int i = 0; i < 4; i++) {
		lf_defer_call(&calls[i].node, call_run);
		if (i % 2)
			barrier();
	}
	for (int i = 0; i < 4; i++) {
		assert_int_equal(calls[i].ran, 1);
		assert_false(calls[i].in_section);
		assert_false(pthread_equal(calls[i].thread, pthread_self()));
		assert_true(pthread_equal(calls[i].thread, calls[0].thread));
	}
}

static void calls_of_one_thread_come_in_the_order_in_which_they_were_deferred(void **state)
{
	enum { N = 2000 };
	struct noted_call *calls = calloc(N, sizeof(*calls));

	(void)state;
	assert_non_null(calls);
	for (int i = 0; i < N; i++) {
		lf_defer_call(&calls[i].node, call_run);
		if (i % 3 == 0)
			defer_one_free(); /* frees go their own way, and must not disturb */
		if (i % 700 == 0)
			sched_yield();
	}
	barrier();
	for (int i = 1; i < N; i++)
		assert_true(calls[i - 1].place < calls[i].place);
	free(calls);
}

static void cascades_are_part_of_the_barrier(void **state)
{
	struct noted_call call = { .again = 5 };

	(void)state;
	lf_defer_call(&call.node, call_run);
	barrier();
	assert_int_equal(call.ran, 6);
}

static int defer_more(struct noted_call *call)
{
	(void)call;
	for (int i = 0; i < 100; i++)
		defer_one_free();
	return 0;
}

static void frees_that_a_deferred_call_defers_are_part_of_the_barrier(void **state)
{
	struct noted_call call = { .then = defer_more, .again = 2 };
	long live = alloc_live();

	(void)state;
	lf_defer_call(&call.node, call_run);
	barrier();
	assert_int_equal(call.ran, 3);
	assert_true(alloc_live() <= live);
}

static void *defer_call(void *arg)
{
	struct noted_call *call = arg;

	lf_defer_call(&call->node, call_run);
	return NULL;
}

static void barrier_covers_what_other_threads_deferred_before(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) {
		struct noted_call call = { .ran = 0 };

		thread_join(thread_start(defer_call, &call, 0));
		barrier();
		assert_int_equal(call.ran, 1);
	}
}

static int use_library(struct noted_call *call)
{
	const struct lf_timeline_desc desc = { .name = "deferred" };
	struct lf_timeline *tl;
	struct lf_fence *f;
	struct noted_cb n = { .ran = 0 };

	(void)call;
	if (lf_timeline_create(&desc, &tl) != 0)
		return -1;
	if (lf_timeline_emit(tl, 0, &f) != 0 || lf_fence_add_callback(f, &n.cb, noted_run) != 0)
		return -2;
	lf_timeline_put(tl);
	lf_fence_put(f);
	return (int)n.ran;
}

static void deferred_call_may_create_signal_and_put(void **state)
{
	struct noted_call call = { .then = use_library };

	(void)state;
	lf_defer_call(&call.node, call_run);
	barrier();
	assert_int_equal(call.result, 1);
}

/* --- Where the barrier may not be called --------------------------------------------------------------------------------- */

static int call_barrier(struct noted_call *call)
{
	(void)call;
	return lf_reclaim_barrier();
}

static void barrier_in_callback(struct lf_fence *f, struct lf_fence_cb *cb)
{
	(void)f;
	((struct noted_cb *)cb)->status = lf_reclaim_barrier();
}

static void barrier_is_refused_in_read_section_callback_and_deferred_call(void **state)
{
	struct noted_call call = { .then = call_barrier };
	struct noted_cb n = { .ran = 0 };
	struct lf_fence *f;
	int r;

	(void)state;
	lf_read_lock();
	r = lf_reclaim_barrier();
	lf_read_unlock();
	assert_int_equal(r, -EDEADLK);
	assert_int_equal(lf_fence_create(&f), 0);
	assert_int_equal(lf_fence_add_callback(f, &n.cb, barrier_in_callback), 0);
	assert_true(lf_fence_signal(f, 0));
	assert_int_equal(n.status, -EDEADLK);
	lf_fence_put(f);
	lf_defer_call(&call.node, call_run);
	barrier();
	assert_int_equal(call.result, -EDEADLK);
	log_reset(); /* whether it is reported is left open */
}

/* --- Puts ---------------------------------------------------------------------------------------------------------------- */

static void deferred_put_frees_the_fence(void **state)
{
	enum { N = 50 };
	struct lf_deferred nodes[N];
	long live = alloc_live();

	(void)state;
	for (int i = 0; i < N; i++) {
		struct lf_fence *f;

		assert_int_equal(lf_fence_create(&f), 0);
		if (i % 2)
			lf_fence_publish(f);
		lf_fence_signal(f, 0);
		lf_defer_put(&nodes[i], f);
	}
	barrier();
	assert_true(alloc_live() <= live);
}

static void deferred_put_consumes_one_reference_only(void **state)
{
	struct lf_deferred node;
	struct lf_fence *f;

	(void)state;
	assert_int_equal(lf_fence_create(&f), 0);
	lf_defer_put(&node, lf_fence_get(f));
	barrier();
	assert_int_equal(lf_fence_status(f), 0);
	assert_true(lf_fence_signal(f, 0));
	lf_fence_put(f);
}

/* A fence whose last put is seen: it is pending with a callback, which is misuse, reported, and runs the callback there. */
struct seen_put {
	struct lf_fence_cb cb;
	struct lf_deferred node;
	unsigned place;
	pthread_t thread;
};

static void seen_run(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct seen_put *s = (struct seen_put *)((char *)cb - offsetof(struct seen_put, cb));

	(void)f;
	s->thread = pthread_self();
	s->place = __atomic_add_fetch(&places, 1, __ATOMIC_SEQ_CST);
}

static void puts_and_calls_of_one_thread_happen_in_the_order_in_which_they_were_deferred(void **state)
{
	enum { N = 200 };
	struct seen_put *puts = calloc(N, sizeof(*puts));
	struct noted_call *calls = calloc(N, sizeof(*calls));
	unsigned place = __atomic_load_n(&places, __ATOMIC_SEQ_CST);

	(void)state;
	assert_non_null(puts);
	assert_non_null(calls);
	for (int i = 0; i < N; i++) {
		struct lf_fence *f;

		assert_int_equal(lf_fence_create(&f), 0);
		assert_int_equal(lf_fence_add_callback(f, &puts[i].cb, seen_run), 0);
		lf_defer_put(&puts[i].node, f);
		lf_defer_call(&calls[i].node, call_run);
	}
	barrier();
	for (int i = 0; i < N; i++) {
		assert_int_equal(puts[i].place, ++place);
		assert_int_equal(calls[i].place, ++place);
		/* User code: never on the thread that deferred. */
		assert_false(pthread_equal(puts[i].thread, pthread_self()));
	}
	expect_misuse(N);
	free(puts);
	free(calls);
}

/* --- Grace periods ------------------------------------------------------------------------------------------------------- */

/* A reader that stays in its section until it is told to leave. */
struct reader {
	struct flag inside, leave;
	unsigned open; /* 1 while the section is certainly open */
	const unsigned *watched; /* looked at before leaving: must still be 0 */
	bool seen_early;
};

static void *read_and_stay(void *arg)
{
	struct reader *r = arg;

	lf_read_lock();
	count_up(&r->open);
	flag_set(&r->inside);
	flag_wait(&r->leave);
	r->seen_early = r->watched && count_get(r->watched) != 0;
	count_down(&r->open);
	lf_read_unlock();
	return NULL;
}

static void reader_start(struct reader *r, pthread_t *thread)
{
	memset(r, 0, sizeof(*r));
	flag_init(&r->inside);
	flag_init(&r->leave);
	*thread = thread_start(read_and_stay, r, 0);
	flag_wait(&r->inside);
}

static void reader_end(struct reader *r, pthread_t thread)
{
	flag_set(&r->leave);
	thread_join(thread);
	flag_fini(&r->inside);
	flag_fini(&r->leave);
}

static void nothing_deferred_happens_while_an_older_read_section_of_another_thread_is_open(void **state)
{
	struct noted_call call = { .ran = 0 };
	struct reader r;
	pthread_t reader;
	struct block *b = block_alloc();
	uint64_t before, after;
	unsigned early = 0;

	(void)state;
	strcpy(b->payload, "alive");
	reader_start(&r, &reader);
	r.watched = &call.ran;
	before = pending();
	lf_defer_call(&call.node, call_run);
	lf_defer_free(&b->node, b);
	after = pending();
	for (int i = 0; i < 4; i++) {
		/* New sections come and go and do not help. */
		lf_read_lock();
		lf_read_unlock();
		defer_one_free();
		give_it_time();
		early += count_get(&call.ran) != 0 || strcmp(b->payload, "alive") != 0;
	}
	reader_end(&r, reader);
	assert_int_equal(early, 0);
	assert_false(r.seen_early);
	assert_true(after >= before + 2);
	barrier();
	assert_int_equal(call.ran, 1);
}

/* What a reader follows: replaced and deferred by the writer all the time. */
static struct block *shared;
static bool shared_end;

static void *read_shared(void *arg)
{
	unsigned *bad = arg;

	while (!__atomic_load_n(&shared_end, __ATOMIC_ACQUIRE)) {
		lf_read_lock();
		for (int i = 0; i < 20; i++) {
			const struct block *b = __atomic_load_n(&shared, __ATOMIC_ACQUIRE);

			if (i % 8 == 0)
				sched_yield();
			if (b->payload[0] != 'l' || b->payload[47] != 'e')
				count_up(bad);
		}
		lf_read_unlock();
	}
	return NULL;
}

static void block_found_in_a_read_section_keeps_its_contents_to_the_end_of_it(void **state)
{
	enum { READERS = 3 };
	pthread_t threads[READERS];
	unsigned bad = 0;
	long rounds = test_rounds(50000);

	(void)state;
	shared = block_alloc();
	memset(shared->payload, 'l', 47);
	shared->payload[47] = 'e';
	shared_end = false;
	for (int i = 0; i < READERS; i++)
		threads[i] = thread_start(read_shared, &bad, 0);
	for (long i = 0; i < rounds; i++) {
		struct block *b = block_alloc(), *old = shared;

		memset(b->payload, 'l', 47);
		b->payload[47] = 'e';
		__atomic_store_n(&shared, b, __ATOMIC_RELEASE);
		lf_defer_free(&old->node, old);
		if (i % 512 == 0) {
			struct lf_fence *f;

			/* Lets the library throttle and free at home. */
			assert_int_equal(lf_fence_create(&f), 0);
			lf_fence_put(f);
		}
	}
	__atomic_store_n(&shared_end, true, __ATOMIC_RELEASE);
	for (int i = 0; i < READERS; i++)
		thread_join(threads[i]);
	lf_free(shared);
	assert_int_equal(bad, 0);
}

static void grace_periods_are_counted(void **state)
{
	struct lf_reclaim_stats before, after;

	(void)state;
	lf_reclaim_get_stats(&before);
	for (int i = 0; i < 3; i++) {
		defer_one_free();
		barrier();
	}
	lf_reclaim_get_stats(&after);
	assert_true(after.grace_periods >= before.grace_periods + 3);
	assert_true(after.pending == 0);
	assert_true(after.limit != 0);
}

/* --- Memory goes home ---------------------------------------------------------------------------------------------------- */

/* An allocator that knows which thread frees the blocks that are marked. */
enum { MARKED = 2000 };
static struct home {
	pthread_mutex_t mutex;
	void *marked[MARKED];
	pthread_t freed_by[MARKED];
	unsigned count, freed;
	long live;
} home = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static void *home_alloc(void *user, size_t size, size_t align)
{
	(void)user;
	__atomic_fetch_add(&home.live, 1, __ATOMIC_RELAXED);
	return aligned_alloc(align, (size + align - 1) / align * align);
}

static void home_free(void *user, void *ptr)
{
	(void)user;
	pthread_mutex_lock(&home.mutex);
	/* From the end: what was marked last is found first should an address come twice. */
	for (unsigned i = home.count; i-- != 0;) {
		if (home.marked[i] != ptr)
			continue;
		home.marked[i] = NULL;
		home.freed_by[i] = pthread_self();
		home.freed++;
		break;
	}
	pthread_mutex_unlock(&home.mutex);
	__atomic_fetch_sub(&home.live, 1, __ATOMIC_RELAXED);
	free(ptr);
}

static unsigned home_freed(void)
{
	unsigned freed;

	pthread_mutex_lock(&home.mutex);
	freed = home.freed;
	pthread_mutex_unlock(&home.mutex);
	return freed;
}

/* Defers a block whose free is noted. */
static void home_defer(void)
{
	struct block *b = block_alloc();

	pthread_mutex_lock(&home.mutex);
	must(home.count < MARKED);
	home.marked[home.count++] = b;
	pthread_mutex_unlock(&home.mutex);
	lf_defer_free(&b->node, b);
}

static unsigned home_count_by(pthread_t thread)
{
	unsigned by = 0;

	pthread_mutex_lock(&home.mutex);
	for (unsigned i = 0; i < home.count; i++)
		by += home.marked[i] == NULL && pthread_equal(home.freed_by[i], thread);
	pthread_mutex_unlock(&home.mutex);
	return by;
}

static void home_begin(void)
{
	static const struct lf_allocator allocator = { home_alloc, home_free, NULL };

	assert_int_equal(lf_fini(), 0);
	assert_int_equal(lf_set_allocator(&allocator), 0);
	home.count = home.freed = 0;
	home.live = 0;
}

static void home_end(void)
{
	assert_int_equal(lf_fini(), 0);
	assert_true(home.live == 0);
	fresh_library();
}

static void use_a_fence(void)
{
	struct lf_fence *f;

	must(lf_fence_create(&f) == 0);
	lf_fence_publish(f);
	lf_fence_signal(f, 0);
	lf_fence_put(f);
}

static void blocks_of_a_thread_that_goes_on_are_freed_on_it(void **state)
{
	enum { N = 1000 };
	unsigned mine;

	(void)state;
	/* "As a rule": the reclaimer takes a batch when this thread was off the processor for long, which on a busy machine is often. */
	test_watchdog(60, "blocks are freed by the reclaimer, and never on the thread that goes on");
	do {
		home_begin();
		for (int i = 0; i < N; i++) {
			home_defer();
			use_a_fence();
		}
		/* Goes on until all of them are gone; a thread that is at work empties its own batches. */
		while (home_freed() < N)
			use_a_fence();
		mine = home_count_by(pthread_self());
		test_note("%u of %u blocks were freed at home", mine, N);
		home_end();
	} while (mine <= N / 2);
	test_watchdog(0, "");
}

struct deferrer {
	struct flag deferred, go;
	pthread_t thread;
	unsigned mine; /* what it freed itself while it deferred */
};

static void *defer_and_stay(void *arg)
{
	struct deferrer *d = arg;

	for (int i = 0; i < 100; i++)
		home_defer();
	d->mine = home_count_by(pthread_self());
	flag_set(&d->deferred);
	flag_wait(&d->go);
	return NULL;
}

static void blocks_of_an_idle_thread_are_freed_by_another(void **state)
{
	struct deferrer d;

	(void)state;
	home_begin();
	for (int with_barrier = 0; with_barrier <= 1; with_barrier++) {
		home.count = home.freed = 0; /* thread ids come again */
		flag_init(&d.deferred);
		flag_init(&d.go);
		d.thread = thread_start(defer_and_stay, &d, 0);
		flag_wait(&d.deferred);
		if (with_barrier)
			barrier();
		/* Without one it takes as long as it takes; it must happen, and while the thread sleeps. */
		while (home_freed() < 100)
			give_it_time();
		assert_true(d.mine < 100);
		assert_int_equal(home_count_by(d.thread), d.mine);
		flag_set(&d.go);
		thread_join(d.thread);
		flag_fini(&d.deferred);
		flag_fini(&d.go);
	}
	home_end();
}

static void *defer_and_end(void *arg)
{
	(void)arg;
	for (int i = 0; i < 100; i++)
		home_defer();
	return NULL;
}

static void blocks_of_a_thread_that_ended_are_freed_by_another(void **state)
{
	(void)state;
	home_begin();
	thread_join(thread_start(defer_and_end, NULL, 0));
	while (home_freed() < 100)
		give_it_time();
	for (int i = 0; i < 5; i++)
		thread_join(thread_start(defer_and_end, NULL, 0));
	barrier();
	assert_int_equal(home_freed(), 600);
	home_end();
}

/* A thread whose own destructors use the library after those of the library may have run. */
static pthread_key_t late_key;

static void late_destructor(void *arg)
{
	uintptr_t left = (uintptr_t)arg;

	defer_one_free();
	use_a_fence();
	lf_read_lock();
	lf_read_unlock();
	if (left > 1)
		must(pthread_setspecific(late_key, (void *)(left - 1)) == 0);
}

static void *end_late(void *arg)
{
	(void)arg;
	defer_one_free();
	/* Of four rounds of destructors the last is where ThreadSanitizer ends the thread, so nothing may be left for it then. */
	must(pthread_setspecific(late_key, (void *)(uintptr_t)(test_is_sanitized() ? 2 : 3)) == 0);
	return NULL;
}

static void thread_local_destructors_may_still_defer(void **state)
{
	long live;

	(void)state;
	assert_int_equal(pthread_key_create(&late_key, late_destructor), 0);
	barrier();
	live = alloc_live();
	for (int i = 0; i < 50; i++)
		thread_join(thread_start(end_late, NULL, 0));
	barrier();
	assert_true(alloc_live() <= live);
	pthread_key_delete(late_key);
}

static void user_functions_never_run_inside_an_unrelated_call_of_the_thread_that_deferred(void **state)
{
	enum { N = 500 };
	struct noted_call *calls = calloc(N, sizeof(*calls));
	struct lf_fence *f;

	(void)state;
	assert_non_null(calls);
	for (int i = 0; i < N; i++) {
		lf_defer_call(&calls[i].node, call_run);
		for (int k = 0; k < 10; k++)
			defer_one_free();
		use_a_fence();
		assert_int_equal(lf_fence_create(&f), 0);
		lf_fence_signal(f, 0);
		lf_fence_put(f);
	}
	barrier();
	for (int i = 0; i < N; i++) {
		assert_int_equal(calls[i].ran, 1);
		assert_false(pthread_equal(calls[i].thread, pthread_self()));
	}
	free(calls);
}

/* --- Throttling ---------------------------------------------------------------------------------------------------------- */

static struct lf_reclaim_stats stats_now(void)
{
	struct lf_reclaim_stats stats;

	lf_reclaim_get_stats(&stats);
	return stats;
}

/* Defers up to the limit and beyond it, while a section is open that keeps all of it pending. */
static void defer_beyond_the_limit(void)
{
	uint64_t limit = stats_now().limit;

	for (uint64_t i = 0; i < limit + 16; i++)
		defer_one_free();
}

struct too_fast {
	struct flag started;
	struct flag created;
	uint64_t most; /* pending, after any create */
	long rounds;
};

static void *defer_too_fast(void *arg)
{
	struct too_fast *t = arg;
	struct lf_fence *f;

	defer_beyond_the_limit();
	flag_set(&t->started);
	must(lf_fence_create(&f) == 0);
	flag_set(&t->created);
	lf_fence_put(f);
	return NULL;
}

static void create_waits_when_its_thread_defers_too_fast(void **state)
{
	struct too_fast t = { .rounds = 0 };
	struct reader r;
	pthread_t reader, thread;
	uint64_t before = stats_now().throttled;

	(void)state;
	flag_init(&t.started);
	flag_init(&t.created);
	reader_start(&r, &reader);
	thread = thread_start(defer_too_fast, &t, 0);
	flag_wait(&t.started);
	/* Nothing can be freed before the reader leaves. Counted when it begins to wait, or when it has: both are right. */
	for (int i = 0; i < 20 && stats_now().throttled == before && !flag_get(&t.created); i++)
		give_it_time();
	reader_end(&r, reader);
	thread_join(thread);
	assert_true(stats_now().throttled > before);
	flag_fini(&t.started);
	flag_fini(&t.created);
}

static bool fast_end;

static void *reopen_sections(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&fast_end, __ATOMIC_ACQUIRE)) {
		lf_read_lock();
		for (int i = 0; i < 50; i++)
			sched_yield();
		lf_read_unlock();
	}
	return NULL;
}

static void *defer_without_pause(void *arg)
{
	struct too_fast *t = arg;

	for (long i = 0; i < t->rounds; i++) {
		struct lf_fence *f;
		uint64_t now;

		must(lf_fence_create(&f) == 0);
		defer_one_free();
		lf_fence_put(f);
		now = pending();
		if (now > t->most)
			t->most = now;
	}
	return NULL;
}

static void what_is_pending_is_bounded_while_readers_come_and_go(void **state)
{
	struct lf_reclaim_stats before, after;
	struct too_fast t = { .rounds = test_rounds(100000) };
	pthread_t readers[2], thread;

	(void)state;
	barrier();
	before = stats_now();
	fast_end = false;
	for (int i = 0; i < 2; i++)
		readers[i] = thread_start(reopen_sections, NULL, 0);
	thread = thread_start(defer_without_pause, &t, 0);
	thread_join(thread);
	__atomic_store_n(&fast_end, true, __ATOMIC_RELEASE);
	for (int i = 0; i < 2; i++)
		thread_join(readers[i]);
	after = stats_now();
	test_note("deferred %ld: at most %llu pending, limit %llu, throttled %llu times", t.rounds, (unsigned long long)t.most,
		(unsigned long long)after.limit, (unsigned long long)(after.throttled - before.throttled));
	/* One that was deferred after the look, and a rounding of batches. */
	assert_true(t.most <= after.limit + 64);
}

static void *create_in_own_section(void *arg)
{
	struct lf_fence *f;

	(void)arg;
	/* A wait for a grace period in here would wait for itself. */
	lf_read_lock();
	defer_beyond_the_limit();
	must(lf_fence_create(&f) == 0);
	lf_fence_put(f);
	lf_read_unlock();
	return NULL;
}

static void create_is_never_throttled_inside_a_read_section(void **state)
{
	uint64_t before = stats_now().throttled;

	(void)state;
	thread_join(thread_start(create_in_own_section, NULL, 0));
	assert_true(stats_now().throttled == before);
}

static void create_in_callback(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct noted_cb *n = (struct noted_cb *)cb;
	struct lf_fence *g;

	defer_beyond_the_limit();
	n->status = lf_fence_create(&g);
	if (n->status == 0)
		lf_fence_put(g);
	(void)f;
	count_up(&n->ran);
}

static void *signal_it(void *arg)
{
	struct lf_fence *f = arg;

	lf_fence_signal(f, 0);
	return NULL;
}

static void create_is_never_throttled_inside_a_callback(void **state)
{
	struct noted_cb n = { .ran = 0 };
	struct lf_fence *f;
	struct reader r;
	pthread_t reader;
	uint64_t before = stats_now().throttled;

	(void)state;
	assert_int_equal(lf_fence_create(&f), 0);
	assert_int_equal(lf_fence_add_callback(f, &n.cb, create_in_callback), 0);
	reader_start(&r, &reader);
	/* The reader leaves only afterwards: if create waited, this would never end. */
	thread_join(thread_start(signal_it, f, 0));
	reader_end(&r, reader);
	assert_int_equal(n.ran, 1);
	assert_int_equal(n.status, 0);
	assert_true(stats_now().throttled == before);
	lf_fence_put(f);
}

static void *signal_and_put_beyond_the_limit(void *arg)
{
	struct lf_fence **f = arg;

	defer_beyond_the_limit();
	lf_fence_signal(*f, 0);
	lf_fence_put(*f);
	return NULL;
}

static void signal_and_put_are_never_throttled(void **state)
{
	struct lf_fence *f;
	struct reader r;
	pthread_t reader;

	(void)state;
	assert_int_equal(lf_fence_create(&f), 0);
	lf_fence_publish(f);
	reader_start(&r, &reader);
	thread_join(thread_start(signal_and_put_beyond_the_limit, &f, 0));
	reader_end(&r, reader);
}

/* --- Threads that come and go -------------------------------------------------------------------------------------------- */

static void *live_shortly(void *arg)
{
	struct lf_fence *f;

	(void)arg;
	lf_read_lock();
	defer_one_free();
	lf_read_unlock();
	must(lf_fence_create(&f) == 0);
	lf_fence_publish(f);
	lf_fence_signal(f, 0);
	lf_fence_put(f);
	return NULL;
}

static void come_and_go(long threads)
{
	enum { AT_ONCE = 8 };

	for (long i = 0; i < threads; i += AT_ONCE) {
		pthread_t t[AT_ONCE];

		for (int k = 0; k < AT_ONCE; k++)
			t[k] = thread_start(live_shortly, NULL, 0);
		for (int k = 0; k < AT_ONCE; k++)
			thread_join(t[k]);
	}
	barrier();
}

static void memory_is_flat_after_thousands_of_threads_while_readers_run(void **state)
{
	long threads = test_rounds(2000), half, whole;
	pthread_t readers[2];

	(void)state;
	fast_end = false;
	for (int i = 0; i < 2; i++)
		readers[i] = thread_start(reopen_sections, NULL, 0);
	come_and_go(threads / 2);
	half = alloc_live();
	come_and_go(threads / 2);
	whole = alloc_live();
	__atomic_store_n(&fast_end, true, __ATOMIC_RELEASE);
	for (int i = 0; i < 2; i++)
		thread_join(readers[i]);
	test_note("%ld threads: %ld blocks live at half time, %ld at the end", threads, half, whole);
	assert_true(whole <= half + 8);
}

/* --- Without memory ------------------------------------------------------------------------------------------------------ */

static void *defer_without_memory(void *arg)
{
	struct block *b = arg;
	struct noted_call call = { .ran = 0 };

	/* The first deferral of this thread: whatever the library wants to set up for it is refused. */
	alloc_fail_at(1);
	lf_defer_free(&b->node, b);
	alloc_fail_at(1);
	lf_defer_call(&call.node, call_run);
	alloc_fail_at(0);
	must(lf_reclaim_barrier() == 0);
	return (void *)(uintptr_t)call.ran;
}

static void deferral_never_fails_for_want_of_memory(void **state)
{
	long live = alloc_live();
	struct block *b = block_alloc();

	(void)state;
	assert_true((uintptr_t)thread_join(thread_start(defer_without_memory, b, 0)) == 1);
	barrier();
	assert_true(alloc_live() <= live);
}

static void what_is_missing_is_reported(void **state)
{
	struct lf_deferred node;

	(void)state;
	lf_defer_free(NULL, &node);
	lf_defer_free(&node, NULL);
	lf_defer_call(NULL, NULL);
	lf_defer_call(&node, NULL);
	assert_int_equal(log_count(LF_LOG_MISUSE), 4);
	log_reset();
	lf_read_unlock(); /* of a section that is not open */
	assert_true(log_contains("no read section is open"));
	assert_false(lf_read_held());
	log_reset();
}

static void without_a_reclaimer_thread_the_barrier_frees_until_there_is_one(void **state)
{
	pthread_attr_t attr, before;
	struct lf_reclaim_stats stats;
	struct lf_deferred *block;
	const long before_all = alloc_live();

	(void)state;
	assert_int_equal(lf_fini(), 0); /* joins the thread that there is */
	/* No address space has room for such a stack. */
	assert_int_equal(pthread_getattr_default_np(&before), 0);
	assert_int_equal(pthread_getattr_default_np(&attr), 0);
	assert_int_equal(pthread_attr_setstacksize(&attr, SIZE_MAX - (SIZE_MAX >> 3)), 0);
	assert_int_equal(pthread_setattr_default_np(&attr), 0);
	for (int i = 0; i < 3; i++) {
		block = lf_alloc(64);
		assert_non_null(block);
		lf_defer_free(block, block);
		lf_reclaim_get_stats(&stats);
		assert_int_equal(stats.pending, 1);
		assert_int_equal(lf_reclaim_barrier(), 0);
		lf_reclaim_get_stats(&stats);
		assert_int_equal(stats.pending, 0);
	}
	assert_int_equal(log_count(LF_LOG_WARNING), 1); /* once, and not each time */
	assert_true(log_contains("the reclaimer thread could not be started"));
	assert_int_equal(pthread_setattr_default_np(&before), 0);
	pthread_attr_destroy(&before);
	pthread_attr_destroy(&attr);
	log_reset();
	/* It is tried again when some time has passed; then there is a record of the thread again, as before the test. */
	test_watchdog(60, "no reclaimer thread is started, although it could be");
	do
		fresh_library();
	while (alloc_live() != before_all);
	test_watchdog(0, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(unlock_without_a_section_is_reported_and_does_nothing),
		TEST_WARM(read_sections_nest),
		TEST_WARM(read_section_belongs_to_its_thread),
		TEST_WARM(barrier_frees_and_calls_all_that_was_deferred),
		TEST_WARM(barrier_with_nothing_deferred_returns_at_once_and_again),
		TEST_WARM(deferral_inside_a_read_section_is_allowed),
		TEST_WARM(deferred_calls_run_on_the_reclaimer_outside_read_sections),
		TEST_WARM(calls_of_one_thread_come_in_the_order_in_which_they_were_deferred),
		TEST_WARM(cascades_are_part_of_the_barrier),
		TEST_WARM(frees_that_a_deferred_call_defers_are_part_of_the_barrier),
		TEST_WARM(barrier_covers_what_other_threads_deferred_before),
		TEST_WARM(deferred_call_may_create_signal_and_put),
		TEST_WARM(barrier_is_refused_in_read_section_callback_and_deferred_call),
		TEST_WARM(deferred_put_frees_the_fence),
		TEST_WARM(deferred_put_consumes_one_reference_only),
		TEST_WARM(puts_and_calls_of_one_thread_happen_in_the_order_in_which_they_were_deferred),
		TEST_WARM(nothing_deferred_happens_while_an_older_read_section_of_another_thread_is_open),
		TEST_WARM(block_found_in_a_read_section_keeps_its_contents_to_the_end_of_it),
		TEST_WARM(grace_periods_are_counted),
		TEST_FRESH(blocks_of_a_thread_that_goes_on_are_freed_on_it),
		TEST_FRESH(blocks_of_an_idle_thread_are_freed_by_another),
		TEST_FRESH(blocks_of_a_thread_that_ended_are_freed_by_another),
		TEST_WARM(thread_local_destructors_may_still_defer),
		TEST_WARM(user_functions_never_run_inside_an_unrelated_call_of_the_thread_that_deferred),
		TEST_WARM(create_waits_when_its_thread_defers_too_fast),
		TEST_WARM(what_is_pending_is_bounded_while_readers_come_and_go),
		TEST_WARM(create_is_never_throttled_inside_a_read_section),
		TEST_WARM(create_is_never_throttled_inside_a_callback),
		TEST_WARM(signal_and_put_are_never_throttled),
		TEST_WARM(memory_is_flat_after_thousands_of_threads_while_readers_run),
		TEST_WARM(deferral_never_fails_for_want_of_memory),
		TEST(what_is_missing_is_reported),
		TEST_FRESH(without_a_reclaimer_thread_the_barrier_frees_until_there_is_one),
	};

	return TEST_MAIN(tests);
}
