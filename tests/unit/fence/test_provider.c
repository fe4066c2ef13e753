/* SPDX-License-Identifier: MIT */
/* Providers: closing one completes and detaches all of its fences, refuses new ones, and tells the truth about what is left. */
#include "producer.h"

#include <sched.h>

#include "base/check.h"

static struct lf_provider *create(const char *name)
{
	struct lf_provider *provider = NULL;

	assert_int_equal(lf_provider_create(name, &provider), 0);
	assert_non_null(provider);
	return provider;
}

static void provider_without_a_name_is_refused_and_reported(void **state)
{
	struct lf_provider *untouched = (struct lf_provider *)&state, *provider = untouched;

	assert_int_equal(lf_provider_create(NULL, &provider), -EINVAL);
	expect_misuse(1);
	assert_ptr_equal(provider, untouched);
}

static void null_provider_may_be_taken_and_put(void **state)
{
	(void)state;
	assert_null(lf_provider_get(NULL));
	lf_provider_put(NULL);
}

static void provider_that_is_put_unclosed_lasts_as_long_as_its_timelines(void **state)
{
	struct lf_provider *provider = create("drv");
	struct producer p = { .tl = NULL };
	struct lf_fence *f;
	char name[32];

	(void)state;
	assert_int_equal(producer_create(&p, "ring", LF_TIMELINE_ORDERED, provider), 0);
	lf_provider_put(lf_provider_get(provider));
	lf_provider_put(provider);
	f = emit(p.tl);
	lf_fence_name(f, name, sizeof(name));
	assert_string_equal(name, "drv/ring");
	assert_int_equal(lf_fence_status(f), 0);
	producer_fini(&p, 1);
	lf_fence_put(f);
}

enum { TIMELINES = 4, FENCES = 5 };

static void close_completes_everything_with_ENODEV_and_runs_callbacks_here(void **state)
{
	struct lf_provider *provider = create("drv"), *bystander = create("other");
	struct producer p[TIMELINES], other = { .tl = NULL };
	struct lf_fence *f[TIMELINES][FENCES], *g;
	struct noted_cb n[TIMELINES][FENCES];

	(void)state;
	memset(p, 0, sizeof(p));
	assert_int_equal(producer_create(&other, "other", LF_TIMELINE_ORDERED, bystander), 0);
	g = emit(other.tl);
	for (unsigned t = 0; t < TIMELINES; t++) {
		assert_int_equal(producer_create(&p[t], "ring", t % 2 ? LF_TIMELINE_UNORDERED : LF_TIMELINE_ORDERED, provider), 0);
		for (int i = 0; i < FENCES; i++) {
			f[t][i] = emit(p[t].tl);
			noted_add(&n[t][i], f[t][i]);
		}
		/* One is done before, and keeps its result. */
		assert_int_equal(lf_timeline_signal_to(p[t].tl, 1, 0), 1);
	}
	assert_int_equal(lf_provider_close(provider, LF_DEADLINE_NEVER), 0);
	for (int t = 0; t < TIMELINES; t++) {
		assert_int_equal(p[t].detaches, FENCES);
		for (int i = 0; i < FENCES; i++) {
			assert_int_equal(lf_fence_status(f[t][i]), i == 0 ? 1 : -ENODEV);
			assert_int_equal(n[t][i].ran, 1);
			assert_true(pthread_equal(n[t][i].thread, pthread_self()));
		}
	}
	assert_int_equal(lf_fence_status(g), 0);
	assert_int_equal(other.detaches, 0);
	for (int t = 0; t < TIMELINES; t++) {
		for (int i = 0; i < FENCES; i++)
			lf_fence_put(f[t][i]);
		lf_timeline_put(p[t].tl);
		assert_int_equal(p[t].releases, 1);
		assert_int_equal(p[t].wrong, 0);
	}
	lf_provider_put(provider);
	lf_provider_put(bystander);
	lf_fence_put(g);
	producer_fini(&other, 1);
}

static void no_hook_is_called_after_close_whatever_is_done_with_fences_and_timelines(void **state)
{
	struct lf_provider *provider = create("drv");
	struct producer p = { .tl = NULL }, after;
	struct lf_timeline *tl;
	struct lf_fence *f;
	struct noted_cb n;

	(void)state;
	assert_int_equal(producer_create(&p, "ring", LF_TIMELINE_ORDERED, provider), 0);
	tl = p.tl;
	f = emit(tl);
	assert_int_equal(lf_provider_close(provider, LF_DEADLINE_NEVER), 0);
	/* From here on the driver's code and data may be unmapped. */
	after = p;
	assert_int_equal(lf_fence_check(f), -ENODEV);
	lf_fence_set_deadline(f, 1);
	assert_int_equal(lf_fence_wait(f, LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_fence_wait_drained(f, LF_DEADLINE_NEVER), 0);
	memset(&n, 0, sizeof(n));
	assert_int_equal(lf_fence_add_callback(f, &n.cb, noted_run), -ENOENT);
	lf_timeline_signal_to(tl, UINT64_MAX, 0);
	lf_timeline_lose(tl, -EIO);
	lf_timeline_put(tl);
	lf_provider_put(provider);
	lf_fence_put(f);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_memory_equal(&p, &after, sizeof(p));
}

static void nothing_new_is_made_after_close(void **state)
{
	struct lf_provider *provider = create("drv");
	struct producer p = { .tl = NULL }, late = { .tl = NULL };
	struct lf_fence *f = NULL, *alone;

	(void)state;
	assert_int_equal(producer_create(&p, "ring", LF_TIMELINE_ORDERED, provider), 0);
	assert_int_equal(lf_provider_close(provider, LF_DEADLINE_NEVER), 0);
	assert_int_equal(producer_create(&late, "late", LF_TIMELINE_ORDERED, provider), -ESHUTDOWN);
	assert_null(late.tl);
	assert_int_equal(lf_timeline_emit(p.tl, 0, &f), -ESHUTDOWN);
	assert_null(f);
	alone = lf_alloc(sizeof(*alone));
	assert_non_null(alone);
	assert_int_equal(lf_fence_init(alone, 0), 0);
	assert_int_equal(lf_timeline_emit_fence(p.tl, 0, alone), -ESHUTDOWN);
	assert_true(lf_timeline_last_seqno(p.tl) == 0);
	/* It stayed what it was. */
	assert_true(lf_fence_signal(alone, 0));
	lf_fence_put(alone);
	lf_timeline_put(p.tl);
	lf_provider_put(provider);
	assert_int_equal(p.detaches, 0);
}

static void close_of_a_closed_or_an_empty_provider_returns_0(void **state)
{
	struct lf_provider *provider = create("empty");

	(void)state;
	assert_int_equal(lf_provider_close(provider, 0), 0);
	assert_int_equal(lf_provider_close(provider, 0), 0);
	assert_int_equal(lf_provider_close(provider, LF_DEADLINE_NEVER), 0);
	lf_provider_put(provider);
}

static void timelines_that_are_gone_are_no_hindrance(void **state)
{
	struct lf_provider *provider = create("drv");
	struct lf_fence *f;

	(void)state;
	for (int i = 0; i < 10; i++) {
		struct producer p = { .tl = NULL };

		assert_int_equal(producer_create(&p, "short", LF_TIMELINE_ORDERED, provider), 0);
		f = emit(p.tl);
		producer_fini(&p, 1);
		lf_fence_put(f);
	}
	assert_int_equal(lf_provider_close(provider, 0), 0);
	lf_provider_put(provider);
}

static void fences_outlive_their_closed_provider(void **state)
{
	struct lf_provider *provider = create("drv");
	struct producer p = { .tl = NULL };
	struct lf_fence *f[2];
	char buf[200];

	(void)state;
	assert_int_equal(producer_create(&p, "ring", LF_TIMELINE_UNORDERED, provider), 0);
	f[0] = emit(p.tl);
	f[1] = emit(p.tl);
	assert_true(lf_timeline_signal_one(p.tl, f[1], -EIO));
	assert_int_equal(lf_provider_close(provider, 0), 0);
	lf_timeline_put(p.tl);
	lf_provider_put(provider);
	for (int i = 0; i < 2; i++) {
		lf_fence_name(f[i], buf, sizeof(buf));
		assert_string_equal(buf, "signaled-timeline");
		assert_true(lf_fence_describe(f[i], buf, sizeof(buf)) > 0);
		assert_int_equal(lf_fence_wait(f[i], LF_DEADLINE_NEVER), 0);
		assert_int_equal(lf_fence_status(f[i]), i == 0 ? -ENODEV : -EIO);
		lf_fence_put(f[i]);
	}
}

/* --- Where it may not be called ------------------------------------------------------------------------------------------ */

struct closer {
	struct lf_fence_cb cb;
	struct lf_provider *provider;
	int result;
};

static void close_in_hook(struct producer *p, struct lf_fence *f, enum hook hook)
{
	struct closer *c = p->user;

	(void)f;
	if (hook != HOOK_RELEASE && c->result == 1)
		c->result = lf_provider_close(c->provider, 0);
}

static void close_in_callback(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct closer *c = (struct closer *)cb;

	(void)f;
	c->result = lf_provider_close(c->provider, 0);
}

/* That close did nothing: the timeline still emits, and what is pending still is. */
static void assert_open(struct producer *p, const struct lf_fence *pending)
{
	lf_fence_put(emit(p->tl));
	assert_int_equal(lf_fence_status(pending), 0);
}

static void close_from_inside_its_own_hook_is_refused_and_does_nothing(void **state)
{
	(void)state;
	for (int hook = HOOK_ENABLE; hook <= HOOK_DETACH; hook++) {
		struct closer c = { .provider = create("drv"), .result = 1 };
		struct producer p = { .user = &c };
		struct lf_fence *f, *pending;

		assert_int_equal(producer_create(&p, "ring", LF_TIMELINE_ORDERED, c.provider), 0);
		f = emit(p.tl);
		pending = emit(p.tl);
		p.during = close_in_hook;
		switch (hook) {
		case HOOK_ENABLE:
			assert_int_equal(lf_fence_wait(f, 0), -ETIME);
			break;
		case HOOK_POLL:
			assert_int_equal(lf_fence_check(f), 0);
			break;
		case HOOK_DEADLINE:
			lf_fence_set_deadline(f, 1);
			break;
		default:
			assert_int_equal(lf_timeline_signal_to(p.tl, 1, 0), 1);
			break;
		}
		assert_int_equal(c.result, -EDEADLK);
		expect_misuse(1);
		assert_open(&p, pending);
		assert_int_equal(lf_provider_close(c.provider, 0), 0);
		assert_int_equal(p.wrong, 0);
		lf_timeline_put(p.tl);
		lf_provider_put(c.provider);
		lf_fence_put(f);
		lf_fence_put(pending);
	}
}

static void close_from_inside_a_callback_is_refused_and_does_nothing(void **state)
{
	struct closer c = { .provider = create("drv"), .result = 1 };
	struct producer p = { .tl = NULL };
	struct lf_fence *pending, *alone;

	(void)state;
	assert_int_equal(producer_create(&p, "ring", LF_TIMELINE_ORDERED, c.provider), 0);
	pending = emit(p.tl);
	assert_int_equal(lf_fence_create(&alone), 0);
	assert_int_equal(lf_fence_add_callback(alone, &c.cb, close_in_callback), 0);
	assert_true(lf_fence_signal(alone, 0));
	assert_int_equal(c.result, -EDEADLK);
	expect_misuse(1);
	assert_open(&p, pending);
	lf_fence_put(alone);
	lf_fence_put(pending);
	producer_fini(&p, 2);
	lf_provider_put(c.provider);
}

static void close_inside_a_read_section_is_refused_and_does_nothing(void **state)
{
	struct lf_provider *provider = create("drv");
	struct producer p = { .tl = NULL };
	struct lf_fence *pending;
	int r;

	(void)state;
	assert_int_equal(producer_create(&p, "ring", LF_TIMELINE_ORDERED, provider), 0);
	pending = emit(p.tl);
	lf_read_lock();
	r = lf_provider_close(provider, 0);
	lf_read_unlock();
	assert_int_equal(r, -EDEADLK);
	expect_misuse(1);
	assert_open(&p, pending);
	lf_fence_put(pending);
	producer_fini(&p, 2);
	lf_provider_put(provider);
}

static void close_from_inside_a_hook_of_another_provider_is_allowed(void **state)
{
	struct lf_provider *own = create("own");
	struct closer c = { .provider = create("other"), .result = 1 };
	struct producer p = { .user = &c }, other = { .tl = NULL };
	struct lf_fence *f, *g;

	(void)state;
	assert_int_equal(producer_create(&p, "ring", LF_TIMELINE_ORDERED, own), 0);
	assert_int_equal(producer_create(&other, "ring", LF_TIMELINE_ORDERED, c.provider), 0);
	f = emit(p.tl);
	g = emit(other.tl);
	p.during = close_in_hook;
	assert_int_equal(lf_fence_check(f), 0);
	assert_int_equal(c.result, 0);
	assert_int_equal(lf_fence_status(g), -ENODEV);
	assert_int_equal(lf_fence_status(f), 0);
	p.during = NULL;
	lf_fence_put(f);
	lf_fence_put(g);
	producer_fini(&p, 1);
	lf_timeline_put(other.tl);
	lf_provider_put(own);
	lf_provider_put(c.provider);
}

/* --- While something is under way ---------------------------------------------------------------------------------------- */

struct held_hook {
	enum hook which;
	struct lf_fence *f;
	struct flag inside, go;
	int result;
};

static void stay_inside(struct producer *p, struct lf_fence *f, enum hook hook)
{
	struct held_hook *h = p->user;

	(void)f;
	if (hook != h->which)
		return;
	flag_set(&h->inside);
	flag_wait(&h->go);
}

static void *poke(void *arg)
{
	struct held_hook *h = arg;

	if (h->which == HOOK_POLL)
		h->result = lf_fence_check(h->f);
	else if (h->which == HOOK_ENABLE)
		h->result = lf_fence_wait(h->f, LF_DEADLINE_NEVER);
	else
		lf_fence_set_deadline(h->f, 1);
	return NULL;
}

static void close_names_what_is_left_and_succeeds_once_the_hook_has_ended(void **state)
{
	(void)state;
	for (int hook = HOOK_ENABLE; hook <= HOOK_DEADLINE; hook++) {
		struct lf_provider *provider = create("slowpoke");
		struct held_hook h = { .which = (enum hook)hook };
		struct producer p = { .user = &h, .during = stay_inside };
		struct lf_fence *f = NULL;
		pthread_t thread;

		assert_int_equal(producer_create(&p, "sticky", LF_TIMELINE_ORDERED, provider), 0);
		h.f = emit(p.tl);
		flag_init(&h.inside);
		flag_init(&h.go);
		thread = thread_start(poke, &h, 0);
		flag_wait(&h.inside);
		assert_int_equal(lf_provider_close(provider, 0), -ETIME);
		assert_true(log_count(LF_LOG_WARNING) >= 1);
		assert_true(log_contains("slowpoke") || log_contains("sticky"));
		/* Completed and closed to new things all the same. */
		assert_int_equal(lf_fence_status(h.f), -ENODEV);
		assert_int_equal(lf_timeline_emit(p.tl, 0, &f), -ESHUTDOWN);
		assert_int_equal(count_get(&p.detaches), 0);
		assert_int_equal(lf_provider_close(provider, 0), -ETIME);
		flag_set(&h.go);
		thread_join(thread);
		assert_int_equal(lf_provider_close(provider, 0), 0);
		assert_int_equal(p.detaches, 1);
		assert_int_equal(p.detached_inside, 0);
		assert_int_equal(h.result, hook == HOOK_POLL ? -ENODEV : 0);
		flag_fini(&h.inside);
		flag_fini(&h.go);
		lf_fence_put(h.f);
		lf_timeline_put(p.tl);
		lf_provider_put(provider);
		log_reset();
	}
}

struct closing {
	struct lf_provider *provider;
	struct producer *producer;
	int result;
	unsigned detaches; /* when close returned */
};

static void *close_and_wait(void *arg)
{
	struct closing *c = arg;

	c->result = lf_provider_close(c->provider, LF_DEADLINE_NEVER);
	c->detaches = count_get(&c->producer->detaches);
	return NULL;
}

static void close_waits_for_the_hook_also_when_two_threads_close(void **state)
{
	struct lf_provider *provider = create("drv");
	struct held_hook h = { .which = HOOK_POLL };
	struct producer p = { .user = &h, .during = stay_inside };
	struct closing c[2] = { { provider, &p, 1, 0 }, { provider, &p, 1, 0 } };
	pthread_t poker, closers[2];

	(void)state;
	assert_int_equal(producer_create(&p, "ring", LF_TIMELINE_ORDERED, provider), 0);
	h.f = emit(p.tl);
	flag_init(&h.inside);
	flag_init(&h.go);
	poker = thread_start(poke, &h, 0);
	flag_wait(&h.inside);
	for (int i = 0; i < 2; i++)
		closers[i] = thread_start(close_and_wait, &c[i], 0);
	/* Whoever closes has completed the fence before it waits for the hook. */
	assert_int_equal(lf_fence_wait_drained(h.f, LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_fence_status(h.f), -ENODEV);
	flag_set(&h.go);
	thread_join(poker);
	for (int i = 0; i < 2; i++) {
		thread_join(closers[i]);
		assert_int_equal(c[i].result, 0);
		assert_int_equal(c[i].detaches, 1);
	}
	flag_fini(&h.inside);
	flag_fini(&h.go);
	lf_fence_put(h.f);
	lf_timeline_put(p.tl);
	lf_provider_put(provider);
}

static void *wait_for_it(void *arg)
{
	return (void *)(intptr_t)lf_fence_wait(arg, LF_DEADLINE_NEVER);
}

static void close_wakes_whoever_waits(void **state)
{
	struct lf_provider *provider = create("drv");
	struct held_hook h = { .which = HOOK_ENABLE };
	struct producer p = { .user = &h, .during = stay_inside };
	pthread_t thread;

	(void)state;
	assert_int_equal(producer_create(&p, "ring", LF_TIMELINE_ORDERED, provider), 0);
	h.f = emit(p.tl);
	flag_init(&h.inside);
	flag_init(&h.go);
	flag_set(&h.go);
	thread = thread_start(wait_for_it, h.f, 0);
	/* The waiter has armed the fence: it sleeps, or is about to. */
	flag_wait(&h.inside);
	assert_int_equal(lf_provider_close(provider, LF_DEADLINE_NEVER), 0);
	assert_int_equal((intptr_t)thread_join(thread), 0);
	flag_fini(&h.inside);
	flag_fini(&h.go);
	lf_fence_put(h.f);
	lf_timeline_put(p.tl);
	lf_provider_put(provider);
}

/*
 * Emitters, hook callers and droppers against close. Oracle: an emit returns 0 or -ESHUTDOWN, after the first -ESHUTDOWN of a thread never
 * 0 again; when close has returned 0, every fence that was emitted is signaled and detached and no hook runs or begins.
 * A hit is a round in which close came while threads were emitting (some fences, then -ESHUTDOWN); a miss is any other.
 */
enum { WORKERS = 3, ENOUGH = 40 };

struct race {
	struct producer p[WORKERS];
	bool closed;
	unsigned emitted, refused;
	unsigned violations; /* of what emit may return */
	unsigned after_close, across_close; /* hooks that began, or still ran, after close had returned */
	struct gate start;
};

struct worker {
	struct race *race;
	struct producer *p;
	struct lf_fence *f[ENOUGH];
	int count;
};

static void note_after_close(struct producer *p, struct lf_fence *f, enum hook hook)
{
	struct race *race = p->user;

	(void)f;
	(void)hook;
	if (__atomic_load_n(&race->closed, __ATOMIC_SEQ_CST))
		count_up(&race->after_close);
	sched_yield();
	if (__atomic_load_n(&race->closed, __ATOMIC_SEQ_CST))
		count_up(&race->across_close);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	bool refused = false;

	gate_wait(&w->race->start);
	for (int i = 0; i < ENOUGH; i++) {
		struct lf_fence *f;
		int r = lf_timeline_emit(w->p->tl, 0, &f);

		if (r == -ESHUTDOWN) {
			refused = true;
			continue;
		}
		if (r != 0 || refused) {
			count_up(&w->race->violations);
			break;
		}
		w->f[w->count++] = f;
		lf_fence_check(f);
		lf_fence_set_deadline(f, 1);
		if (i % 4 == 3)
			lf_timeline_signal_to(w->p->tl, lf_fence_seqno(f), 0);
	}
	if (refused)
		count_up(&w->race->refused);
	/* The last reference may well be put while close looks at the timeline. */
	lf_timeline_put(w->p->tl);
	return NULL;
}

static void nothing_of_the_driver_runs_after_close_has_returned(void **state)
{
	long rounds = test_rounds(300);
	unsigned hits = 0, violations = 0, hooks = 0;

	(void)state;
	for (long r = 0; r < rounds; r++) {
		struct lf_provider *provider = create("drv");
		struct race race = { .closed = false };
		struct worker w[WORKERS];
		pthread_t threads[WORKERS];

		memset(w, 0, sizeof(w));
		gate_init(&race.start, WORKERS + 1);
		for (unsigned i = 0; i < WORKERS; i++) {
			assert_int_equal(producer_create(&race.p[i], "ring", i % 2, provider), 0);
			race.p[i].during = note_after_close;
			race.p[i].user = &race;
			w[i].race = &race;
			w[i].p = &race.p[i];
			threads[i] = thread_start(work, &w[i], 0);
		}
		gate_wait(&race.start);
		for (long i = 0; i < r % 8; i++)
			sched_yield();
		assert_int_equal(lf_provider_close(provider, LF_DEADLINE_NEVER), 0);
		__atomic_store_n(&race.closed, true, __ATOMIC_SEQ_CST);
		for (int i = 0; i < WORKERS; i++) {
			thread_join(threads[i]);
			race.emitted += (unsigned)w[i].count;
			assert_int_equal(race.p[i].detaches, w[i].count);
			assert_int_equal(race.p[i].wrong, 0);
			for (int k = 0; k < w[i].count; k++) {
				assert_true(lf_fence_is_signaled(w[i].f[k]));
				lf_fence_put(w[i].f[k]);
			}
		}
		hits += race.emitted != 0 && race.refused != 0;
		violations += race.violations;
		hooks += race.after_close + race.across_close;
		gate_fini(&race.start);
		lf_provider_put(provider);
	}
	test_note("rounds %ld: hits %u, misses %ld, violations %u, hooks after close %u", rounds, hits, rounds - (long)hits, violations,
		hooks);
	assert_int_equal(violations, 0);
	assert_int_equal(hooks, 0);
}

static int create_scenario(void *arg)
{
	struct lf_provider *provider = NULL;
	int r = lf_provider_create("drv", &provider);

	(void)arg;
	assert_int_equal(provider == NULL, r != 0);
	if (r)
		return r;
	assert_int_equal(lf_provider_close(provider, 0), 0);
	lf_provider_put(provider);
	return 0;
}

static void failed_allocation_leaves_no_provider(void **state)
{
	(void)state;
	assert_true(alloc_fail_each(create_scenario, NULL) >= 1);
}

static void close_allocates_nothing(void **state)
{
	struct lf_provider *provider = create("drv");
	struct producer p = { .tl = NULL };

	(void)state;
	assert_int_equal(producer_create(&p, "ring", LF_TIMELINE_ORDERED, provider), 0);
	for (int i = 0; i < 50; i++)
		lf_fence_put(emit(p.tl));
	alloc_fail_at(1);
	assert_int_equal(lf_provider_close(provider, LF_DEADLINE_NEVER), 0);
	lf_timeline_put(p.tl);
	lf_provider_put(provider);
	assert_false(alloc_failed());
	alloc_fail_at(0);
	assert_int_equal(p.detaches, 50);
}

static void close_of_nothing_is_reported(void **state)
{
	struct lf_provider *p;

	(void)state;
	assert_int_equal(lf_provider_close(NULL, 0), -EINVAL);
	assert_int_equal(lf_provider_create(NULL, &p), -EINVAL);
	assert_int_equal(lf_provider_create("p", NULL), -EINVAL);
	assert_int_equal(log_count(LF_LOG_MISUSE), 3);
	log_reset();
}

static void a_callback_of_the_drivers_that_is_left_on_a_fence_is_named(void **state)
{
	struct lf_provider *p;
	struct producer producer = { .tl = NULL };
	struct noted_cb mine = { 0 };
	struct lf_fence *f;

	(void)state;
	if (!DEBUG_CHECKS)
		return; /* nobody looks */
	lf_track(LF_TRACK_OBJECTS);
	assert_int_equal(lf_provider_create("driver", &p), 0);
	assert_int_equal(producer_create(&producer, "gpu", 0, p), 0);
	assert_int_equal(lf_fence_create(&f), 0);
	noted_add(&mine, f); /* code of this program, as the hooks are */
	assert_int_equal(lf_provider_close(p, LF_DEADLINE_NEVER), 0);
	assert_true(log_contains("provider driver: callback node"));
	assert_true(log_contains("calls into its object, and was not cancelled"));
	log_reset();
	assert_true(lf_fence_signal(f, 0));
	lf_fence_put(f);
	producer_fini(&producer, 0);
	lf_provider_put(p);
	lf_track(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(provider_without_a_name_is_refused_and_reported),
		TEST(null_provider_may_be_taken_and_put),
		TEST(provider_that_is_put_unclosed_lasts_as_long_as_its_timelines),
		TEST(close_completes_everything_with_ENODEV_and_runs_callbacks_here),
		TEST(no_hook_is_called_after_close_whatever_is_done_with_fences_and_timelines),
		TEST(nothing_new_is_made_after_close),
		TEST(close_of_a_closed_or_an_empty_provider_returns_0),
		TEST(timelines_that_are_gone_are_no_hindrance),
		TEST(fences_outlive_their_closed_provider),
		TEST(close_from_inside_its_own_hook_is_refused_and_does_nothing),
		TEST(close_from_inside_a_callback_is_refused_and_does_nothing),
		TEST(close_inside_a_read_section_is_refused_and_does_nothing),
		TEST(close_from_inside_a_hook_of_another_provider_is_allowed),
		TEST(close_names_what_is_left_and_succeeds_once_the_hook_has_ended),
		TEST(close_waits_for_the_hook_also_when_two_threads_close),
		TEST(close_wakes_whoever_waits),
		TEST(nothing_of_the_driver_runs_after_close_has_returned),
		TEST(failed_allocation_leaves_no_provider),
		TEST(close_allocates_nothing),
		TEST(close_of_nothing_is_reported),
		TEST(a_callback_of_the_drivers_that_is_left_on_a_fence_is_named),
	};

	return TEST_MAIN(tests);
}
