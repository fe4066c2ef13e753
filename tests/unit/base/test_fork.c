/* SPDX-License-Identifier: MIT */
/*
 * Fork. Without the three calls the child's library is poisoned: it refuses or leaks, and nothing hangs, whatever the parent's threads were
 * doing. With them both go on.
 *
 * A child checks with CHILD_CHECK() and ends with child_ends(); a watchdog kills it when it hangs. The parent looks at how it ended.
 */
#include "producer.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static bool has_thread_sanitizer(void)
{
#if defined(__SANITIZE_THREAD__)
	return true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
	return true;
#else
	return false;
#endif
#else
	return false;
#endif
}

/* Says so, too. (cmocka's own skip() prints what a TAP parser takes for a failure.) */
static bool cannot_fork_here(void)
{
	if (!has_thread_sanitizer())
		return false;
	test_note("left out: ThreadSanitizer does not follow a fork of a process with threads");
	return true;
}

/* Not how long a child takes, but how long one that hangs may. */
static void child_watchdog(void)
{
	signal(SIGALRM, SIG_DFL);
	alarm(20);
}

static bool child_succeeds(pid_t pid)
{
	int status;

	if (pid <= 0 || waitpid(pid, &status, 0) != pid)
		return false;
	if (WIFSIGNALED(status))
		test_note("child ended by signal %d%s", WTERMSIG(status), WTERMSIG(status) == SIGALRM ? ": it hung" : "");
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* --- A parent that is busy in every way at the moment of the fork --------------------------------------------------------- */

struct busy {
	struct producer stuck, hooked, calm; /* timelines: locked by a thread, inside a hook, at rest */
	struct lf_provider *provider; /* of calm */
	struct lf_fence *stuck_fence, *hooked_fence, *pending, *signaled, *alone, *slow;
	struct noted_cb cb; /* on alone */
	struct noted_cb unused;
	struct lf_fence_slot slot;
	struct flag clock_read, hook_entered, section_entered, callback_entered, go;
	struct flag waiting;
	struct lf_fence_cb slow_cb;
	pthread_t threads[5];
};

static struct busy busy;
static __thread bool clock_blocks;

/* A timeline reads the clock where it orders its fences, that is, with its lock held. */
static int64_t blocking_clock(void *user)
{
	(void)user;
	if (clock_blocks) {
		clock_blocks = false;
		flag_set(&busy.clock_read);
		flag_wait(&busy.go);
	}
	return 1000;
}

static void *signal_with_lock_held(void *arg)
{
	(void)arg;
	clock_blocks = true;
	lf_timeline_signal_to(busy.stuck.tl, 1, 0);
	return NULL;
}

static void stay_in_hook(struct producer *p, struct lf_fence *f, enum hook hook)
{
	(void)p;
	(void)f;
	if (hook != HOOK_POLL)
		return;
	flag_set(&busy.hook_entered);
	flag_wait(&busy.go);
}

static void *stay_in_poll(void *arg)
{
	(void)arg;
	lf_fence_check(busy.hooked_fence);
	return NULL;
}

static void *stay_in_section(void *arg)
{
	struct lf_deferred *block = lf_alloc(64);

	(void)arg;
	must(block != NULL);
	lf_read_lock();
	lf_defer_free(block, block); /* the reclaimer has work that it cannot end */
	flag_set(&busy.section_entered);
	flag_wait(&busy.go);
	lf_read_unlock();
	return NULL;
}

static void stay_in_callback(struct lf_fence *f, struct lf_fence_cb *cb)
{
	(void)f;
	(void)cb;
	flag_set(&busy.callback_entered);
	flag_wait(&busy.go);
}

static void *signal_slow(void *arg)
{
	(void)arg;
	lf_fence_signal(busy.slow, 0);
	return NULL;
}

static void say_waiting(struct producer *p, struct lf_fence *f, enum hook hook)
{
	(void)p;
	(void)f;
	if (hook == HOOK_ENABLE)
		flag_set(&busy.waiting);
}

static void *wait_for_ever(void *arg)
{
	(void)arg;
	return (void *)(intptr_t)lf_fence_wait(busy.pending, LF_DEADLINE_NEVER);
}

static void busy_start(void)
{
	memset(&busy, 0, sizeof(busy));
	flag_init(&busy.clock_read);
	flag_init(&busy.hook_entered);
	flag_init(&busy.section_entered);
	flag_init(&busy.callback_entered);
	flag_init(&busy.waiting);
	flag_init(&busy.go);
	lf_set_clock(blocking_clock, NULL);
	producer_init(&busy.stuck, LF_TIMELINE_ORDERED);
	producer_init(&busy.hooked, LF_TIMELINE_UNORDERED);
	assert_int_equal(lf_provider_create("drv", &busy.provider), 0);
	assert_int_equal(producer_create(&busy.calm, "calm", LF_TIMELINE_UNORDERED, busy.provider), 0);
	busy.hooked.during = stay_in_hook;
	busy.calm.during = say_waiting;
	busy.stuck_fence = emit(busy.stuck.tl);
	busy.hooked_fence = emit(busy.hooked.tl);
	busy.pending = emit(busy.calm.tl);
	busy.signaled = emit(busy.calm.tl);
	assert_true(lf_timeline_signal_one(busy.calm.tl, busy.signaled, -EIO));
	assert_int_equal(lf_fence_create(&busy.alone), 0);
	assert_int_equal(lf_fence_create(&busy.slow), 0);
	noted_add(&busy.cb, busy.alone);
	lf_fence_slot_set(&busy.slot, busy.alone);
	assert_int_equal(lf_fence_add_callback(busy.slow, &busy.slow_cb, stay_in_callback), 0);
	busy.threads[0] = thread_start(signal_with_lock_held, NULL, 0);
	busy.threads[1] = thread_start(stay_in_poll, NULL, 0);
	busy.threads[2] = thread_start(stay_in_section, NULL, 0);
	busy.threads[3] = thread_start(signal_slow, NULL, 0);
	busy.threads[4] = thread_start(wait_for_ever, NULL, 0);
	flag_wait(&busy.clock_read);
	flag_wait(&busy.hook_entered);
	flag_wait(&busy.section_entered);
	flag_wait(&busy.callback_entered);
	flag_wait(&busy.waiting);
}

/* That nothing of the child's doings is seen in the parent: everybody goes on and ends as always. */
static void busy_end(void)
{
	flag_set(&busy.go);
	assert_int_equal(lf_fence_status(busy.pending), 0);
	assert_true(lf_timeline_signal_one(busy.calm.tl, busy.pending, 0));
	for (int i = 0; i < 5; i++)
		assert_null(thread_join(busy.threads[i]));
	assert_int_equal(lf_fence_status(busy.stuck_fence), 1);
	assert_true(lf_fence_is_drained(busy.slow));
	assert_int_equal(busy.cb.ran, 0);
	assert_true(lf_fence_signal(busy.alone, 0));
	assert_int_equal(busy.cb.ran, 1);
	lf_fence_slot_set(&busy.slot, NULL);
	assert_int_equal(lf_provider_close(busy.provider, LF_DEADLINE_NEVER), 0);
	lf_timeline_put(busy.calm.tl);
	lf_provider_put(busy.provider);
	lf_fence_put(busy.stuck_fence);
	lf_fence_put(busy.hooked_fence);
	lf_fence_put(busy.pending);
	lf_fence_put(busy.signaled);
	lf_fence_put(busy.alone);
	lf_fence_put(busy.slow);
	producer_fini(&busy.stuck, 1);
	producer_fini(&busy.hooked, 1);
	assert_int_equal(busy.calm.detaches, 2);
	flag_fini(&busy.clock_read);
	flag_fini(&busy.hook_entered);
	flag_fini(&busy.section_entered);
	flag_fini(&busy.callback_entered);
	flag_fini(&busy.waiting);
	flag_fini(&busy.go);
	clock_real();
}

static void child_creates(void)
{
	const struct lf_timeline_desc desc = { .name = "child" };
	struct lf_timeline *tl;
	struct lf_provider *provider;
	struct lf_fence *f;
	struct lf_fence *own = calloc(1, sizeof(*own));

	CHILD_CHECK(lf_fence_create(&f) == -EOWNERDEAD);
	CHILD_CHECK(lf_fence_create_signaled(0, 1, &f) == -EOWNERDEAD);
	CHILD_CHECK(own != NULL && lf_fence_init(own, 0) == -EOWNERDEAD);
	CHILD_CHECK(lf_timeline_create(&desc, &tl) == -EOWNERDEAD);
	CHILD_CHECK(lf_provider_create("child", &provider) == -EOWNERDEAD);
}

static void child_uses_fence(struct lf_fence *f)
{
	struct lf_wait_slot slot;
	const struct lf_wait_many many = { .fences = &f, .slots = &slot, .count = 1, .need = 1, .deadline = LF_DEADLINE_NEVER };
	static struct lf_fence_cb cb;
	bool signaled = lf_fence_is_signaled(f);
	char buf[200];
	int r;

	lf_fence_is_drained(f);
	CHILD_CHECK((lf_fence_status(f) != 0) == signaled);
	CHILD_CHECK((lf_fence_timestamp(f) != INT64_MIN) == signaled);
	lf_fence_context(f);
	lf_fence_seqno(f);
	lf_fence_is_ordered(f);
	lf_fence_is_later(f, f);
	lf_fence_check(f);
	lf_fence_set_deadline(f, 1);
	CHILD_CHECK(lf_fence_name(f, buf, sizeof(buf)) >= 0);
	CHILD_CHECK(lf_fence_describe(f, buf, sizeof(buf)) >= 0);
	/* A signaled fence is no wait: 0 would be as right as the refusal. */
	r = lf_fence_wait(f, LF_DEADLINE_NEVER);
	CHILD_CHECK(r == -EOWNERDEAD || (r == 0 && signaled));
	r = lf_fence_wait(f, 0);
	CHILD_CHECK(r == -EOWNERDEAD || (r == 0 && signaled));
	r = lf_fence_wait_many(&many, NULL);
	CHILD_CHECK(r == -EOWNERDEAD || (r == 0 && signaled));
	r = lf_fence_wait_drained(f, LF_DEADLINE_NEVER);
	CHILD_CHECK(r == -EOWNERDEAD || (r == 0 && signaled));
	r = lf_fence_add_callback(f, &cb, noted_run);
	CHILD_CHECK(r == -EOWNERDEAD || (r == -ENOENT && signaled));
	lf_fence_publish(f);
	lf_fence_put(lf_fence_get(f));
}

static void child_uses_timeline(struct lf_timeline *tl, struct lf_fence *f)
{
	struct lf_fence *g;

	CHILD_CHECK(lf_timeline_emit(tl, 0, &g) == -EOWNERDEAD);
	lf_timeline_context(tl);
	lf_timeline_last_seqno(tl);
	CHILD_CHECK(lf_timeline_signal_to(tl, UINT64_MAX, 0) == 0);
	CHILD_CHECK(lf_timeline_signal_to_at(tl, UINT64_MAX, 0, 1) == 0);
	CHILD_CHECK(!lf_timeline_signal_one(tl, f, 0));
	CHILD_CHECK(lf_timeline_lose(tl, -EIO) == 0);
	lf_timeline_put(lf_timeline_get(tl));
	lf_timeline_put(tl); /* leaks */
}

static void child_uses_everything(void)
{
	struct lf_reclaim_stats stats;
	static struct lf_deferred nodes[3];
	void *block;
	struct lf_fence *f;

	child_creates();
	child_uses_fence(busy.pending);
	child_uses_fence(busy.signaled);
	child_uses_fence(busy.alone);
	child_uses_fence(busy.slow);
	child_uses_fence(busy.stuck_fence);
	child_uses_fence(busy.hooked_fence);
	CHILD_CHECK(lf_fence_remove_callback(busy.alone, &busy.cb.cb) == -EOWNERDEAD);
	CHILD_CHECK(lf_fence_cancel_callback_sync(busy.alone, &busy.cb.cb) == -EOWNERDEAD);
	CHILD_CHECK(lf_fence_cancel_callback_sync(busy.slow, &busy.slow_cb) == -EOWNERDEAD);
	CHILD_CHECK(!lf_fence_signal(busy.alone, 0));
	CHILD_CHECK(!lf_fence_signal_at(busy.alone, 0, 1));
	CHILD_CHECK(busy.cb.ran == 0);
	child_uses_timeline(busy.calm.tl, busy.pending);
	child_uses_timeline(busy.hooked.tl, busy.hooked_fence);
	child_uses_timeline(busy.stuck.tl, busy.stuck_fence);
	CHILD_CHECK(lf_provider_close(busy.provider, LF_DEADLINE_NEVER) == -EOWNERDEAD);
	CHILD_CHECK(lf_provider_close(busy.provider, 0) == -EOWNERDEAD);
	lf_provider_put(lf_provider_get(busy.provider));
	lf_provider_put(busy.provider);
	f = lf_fence_slot_get(&busy.slot);
	lf_fence_put(f);
	lf_read_lock();
	lf_fence_slot_look(&busy.slot);
	f = lf_fence_tryget(busy.alone);
	lf_read_unlock();
	lf_fence_put(f);
	lf_fence_slot_set(&busy.slot, NULL);
	lf_fence_put(lf_fence_stub());
	block = lf_alloc(64);
	lf_free(block);
	block = lf_alloc(64);
	if (block)
		lf_defer_free(&nodes[0], block);
	lf_defer_put(&nodes[1], lf_fence_get(busy.alone));
	lf_reclaim_get_stats(&stats);
	CHILD_CHECK(lf_reclaim_barrier() == -EOWNERDEAD);
	CHILD_CHECK(lf_before_fork() == -EOWNERDEAD);
	CHILD_CHECK(lf_fini() == -EOWNERDEAD);
	/* The last references: leaks, not crashes. */
	lf_fence_put(busy.pending);
	lf_fence_put(busy.signaled);
	lf_fence_put(busy.alone);
	lf_fence_put(busy.slow);
	CHILD_CHECK(lf_version() != 0);
	CHILD_CHECK(lf_now() == 1000);
	child_creates();
}

static void child_of_an_unbracketed_fork_is_refused_everything_and_never_hangs(void **state)
{
	bool good;
	pid_t pid;

	(void)state;
	if (cannot_fork_here())
		return;
	busy_start();
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		child_watchdog();
		child_uses_everything();
		child_ends();
	}
	good = child_succeeds(pid);
	busy_end();
	assert_true(good);
}

static void *create_in_child_thread(void *arg)
{
	struct lf_fence *f;

	(void)arg;
	return (void *)(intptr_t)lf_fence_create(&f);
}

static void threads_and_children_of_a_poisoned_child_are_refused_too(void **state)
{
	pid_t pid;

	(void)state;
	if (cannot_fork_here())
		return;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		pthread_t thread;
		void *result;
		int status;

		child_watchdog();
		CHILD_CHECK(pthread_create(&thread, NULL, create_in_child_thread, NULL) == 0);
		CHILD_CHECK(pthread_join(thread, &result) == 0);
		CHILD_CHECK((intptr_t)result == -EOWNERDEAD);
		pid = fork();
		if (pid == 0) {
			child_watchdog();
			child_creates();
			child_ends();
		}
		CHILD_CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
		child_ends();
	}
	assert_true(child_succeeds(pid));
}

/* What a loop of threads leaves at a fork is different each time; the child must end each time. */
struct load {
	bool end;
	struct lf_timeline *tl;
	struct lf_fence_slot slot;
};

static void *load_run(void *arg)
{
	struct load *l = arg;

	while (!__atomic_load_n(&l->end, __ATOMIC_ACQUIRE)) {
		struct lf_deferred *block = lf_alloc(64);
		struct lf_fence *f, *g;
		struct noted_cb n = { .ran = 0 };

		if (block)
			lf_defer_free(block, block);
		if (lf_timeline_emit(l->tl, 0, &f) == 0) {
			bool added = lf_fence_add_callback(f, &n.cb, noted_run) == 0;

			lf_fence_slot_set(&l->slot, f);
			g = lf_fence_slot_get(&l->slot);
			lf_fence_put(g);
			lf_timeline_signal_to(l->tl, lf_fence_seqno(f), 0);
			if (added)
				lf_fence_cancel_callback_sync(f, &n.cb);
			lf_fence_put(f);
		}
	}
	return NULL;
}

static void children_of_forks_at_any_moment_end(void **state)
{
	enum { THREADS = 3 };
	const struct lf_timeline_desc desc = { .name = "load" };
	long rounds = test_rounds(40);
	struct load l = { .end = false };
	bool good = true; /* judged when the threads have ended */
	pthread_t threads[THREADS];

	(void)state;
	if (cannot_fork_here())
		return;
	assert_int_equal(lf_timeline_create(&desc, &l.tl), 0);
	for (int i = 0; i < THREADS; i++)
		threads[i] = thread_start(load_run, &l, 0);
	for (long r = 0; r < rounds && good; r++) {
		pid_t pid;

		fflush(NULL);
		pid = fork();
		if (pid == 0) {
			struct lf_fence *f;

			child_watchdog();
			child_creates();
			CHILD_CHECK(lf_timeline_emit(l.tl, 0, &f) == -EOWNERDEAD);
			CHILD_CHECK(lf_timeline_signal_to(l.tl, UINT64_MAX, 0) == 0);
			f = lf_fence_slot_get(&l.slot);
			if (f) {
				char buf[100];

				lf_fence_describe(f, buf, sizeof(buf));
				lf_fence_put(f);
			}
			lf_fence_slot_set(&l.slot, NULL);
			CHILD_CHECK(lf_reclaim_barrier() == -EOWNERDEAD);
			CHILD_CHECK(lf_fini() == -EOWNERDEAD);
			child_ends();
		}
		good = child_succeeds(pid);
	}
	__atomic_store_n(&l.end, true, __ATOMIC_RELEASE);
	for (int i = 0; i < THREADS; i++)
		thread_join(threads[i]);
	lf_fence_slot_set(&l.slot, NULL);
	lf_timeline_put(l.tl);
	assert_true(good);
}

/* --- Bracketed ----------------------------------------------------------------------------------------------------------- */

struct bracket {
	struct producer p;
	struct lf_fence *before; /* pending, with a callback, at the fork */
	struct noted_cb cb;
	struct lf_fence_slot slot;
};

static void *signal_later(void *arg)
{
	struct bracket *b = arg;

	lf_timeline_signal_to(b->p.tl, UINT64_MAX, 0);
	return NULL;
}

static unsigned deferred_ran;

static void count_deferred(struct lf_deferred *node)
{
	(void)node;
	count_up(&deferred_ran);
}

/* What both do afterwards; returns the line of what failed, or 0. Not an assertion, since the child must not run into cmocka. */
static int go_on(struct bracket *b)
{
	static struct lf_deferred node;
	struct lf_deferred *block;
	struct noted_cb n = { .ran = 0 };
	struct lf_fence *f, *g;
	pthread_t thread;
	char name[32];

	deferred_ran = 0;
	if (lf_fence_create(&g) != 0)
		return __LINE__;
	if (lf_timeline_emit(b->p.tl, 0, &f) != 0)
		return __LINE__;
	if (lf_fence_add_callback(f, &n.cb, noted_run) != 0)
		return __LINE__;
	lf_fence_name(f, name, sizeof(name));
	if (strcmp(name, "tl") != 0)
		return __LINE__;
	thread = thread_start(signal_later, b, 0);
	if (lf_fence_wait(b->before, LF_DEADLINE_NEVER) != 0 || lf_fence_wait_drained(f, LF_DEADLINE_NEVER) != 0)
		return __LINE__;
	thread_join(thread);
	if (count_get(&n.ran) != 1 || count_get(&b->cb.ran) != 1)
		return __LINE__;
	if (!lf_fence_signal(g, -EIO) || lf_fence_status(g) != -EIO)
		return __LINE__;
	lf_fence_slot_set(&b->slot, g);
	lf_fence_slot_set(&b->slot, NULL);
	lf_fence_put(f);
	lf_fence_put(g);
	lf_fence_put(b->before);
	block = lf_alloc(64);
	if (!block)
		return __LINE__;
	lf_defer_free(block, block);
	lf_defer_call(&node, count_deferred);
	if (lf_reclaim_barrier() != 0 || deferred_ran != 1)
		return __LINE__;
	lf_timeline_put(b->p.tl);
	if (b->p.detaches != 2 || b->p.releases != 1)
		return __LINE__;
	return 0;
}

static void defer_some(void)
{
	for (int i = 0; i < 20; i++) {
		struct lf_deferred *block = lf_alloc(64);

		assert_non_null(block);
		lf_defer_free(block, block);
	}
}

static void *defer_on_a_thread(void *arg)
{
	(void)arg;
	for (int i = 0; i < 20; i++) {
		struct lf_deferred *block = lf_alloc(64);

		must(block != NULL);
		lf_defer_free(block, block);
	}
	return NULL;
}

static void parent_and_child_of_a_bracketed_fork_go_on(void **state)
{
	(void)state;
	if (cannot_fork_here())
		return;
	for (int round = 0; round < 5; round++) {
		struct bracket b;
		pid_t pid;
		int failed;

		memset(&b, 0, sizeof(b));
		producer_init(&b.p, LF_TIMELINE_ORDERED);
		b.before = emit(b.p.tl);
		noted_add(&b.cb, b.before);
		/* Of this thread, of one that ended, and on their way at the reclaimer. */
		defer_some();
		thread_join(thread_start(defer_on_a_thread, NULL, 0));
		fflush(NULL);
		assert_int_equal(lf_before_fork(), 0);
		pid = fork();
		if (pid == 0) {
			child_watchdog();
			lf_after_fork_child();
			failed = go_on(&b);
			if (failed)
				fprintf(stderr, "child: line %d\n", failed);
			CHILD_CHECK(failed == 0);
			CHILD_CHECK(lf_fini() == 0);
			CHILD_CHECK(alloc_live() == 0);
			child_ends();
		}
		lf_after_fork_parent();
		assert_true(child_succeeds(pid));
		failed = go_on(&b);
		assert_int_equal(failed, 0);
	}
}

static void child_of_a_bracketed_fork_may_fork_again(void **state)
{
	pid_t pid;

	(void)state;
	if (cannot_fork_here())
		return;
	fflush(NULL);
	assert_int_equal(lf_before_fork(), 0);
	pid = fork();
	if (pid == 0) {
		struct lf_fence *f;
		int status;

		child_watchdog();
		lf_after_fork_child();
		CHILD_CHECK(lf_before_fork() == 0);
		pid = fork();
		if (pid == 0) {
			child_watchdog();
			lf_after_fork_child();
			CHILD_CHECK(lf_fence_create(&f) == 0);
			CHILD_CHECK(lf_fence_signal(f, 0));
			lf_fence_put(f);
			CHILD_CHECK(lf_reclaim_barrier() == 0);
			/* And one without brackets. */
			pid = fork();
			if (pid == 0) {
				child_watchdog();
				child_creates();
				child_ends();
			}
			CHILD_CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
			child_ends();
		}
		lf_after_fork_parent();
		CHILD_CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
		CHILD_CHECK(lf_fence_create(&f) == 0);
		lf_fence_put(f);
		CHILD_CHECK(lf_reclaim_barrier() == 0);
		child_ends();
	}
	lf_after_fork_parent();
	assert_true(child_succeeds(pid));
}

static void *create_during_the_bracket(void *arg)
{
	const struct lf_timeline_desc desc = { .name = "late" };
	bool *created = arg;
	struct lf_timeline *tl;

	must(lf_timeline_create(&desc, &tl) == 0);
	__atomic_store_n(created, true, __ATOMIC_SEQ_CST);
	lf_timeline_put(tl);
	return NULL;
}

static void threads_create_again_when_the_bracket_is_closed(void **state)
{
	bool created = false, early;
	pthread_t thread;

	(void)state;
	assert_int_equal(lf_before_fork(), 0);
	thread = thread_start(create_during_the_bracket, &created, 0);
	/* Time enough to do what it must not; no result depends on how long it is. */
	for (int i = 0; i < 50 && !__atomic_load_n(&created, __ATOMIC_SEQ_CST); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	early = __atomic_load_n(&created, __ATOMIC_SEQ_CST);
	lf_after_fork_parent();
	thread_join(thread);
	assert_false(early);
	assert_true(created);
}

/* Bracketed forks while other threads work: the child may find their objects in any state, but its own must work. */
static void fork_beside_other_threads(bool tracked)
{
	enum { THREADS = 3 };
	const struct lf_timeline_desc desc = { .name = "load" };
	long rounds = test_rounds(40);
	struct load l = { .end = false };
	bool good = true; /* judged when the threads have ended */
	pthread_t threads[THREADS];

	if (test_is_sanitized()) {
		test_note("left out: the sanitizers' malloc does not survive a fork while other threads allocate");
		return;
	}
	/* The record of live objects is one more thing that another thread may be changing. */
	assert_int_equal(lf_track(tracked ? LF_TRACK_OBJECTS : 0), 0);
	assert_int_equal(lf_timeline_create(&desc, &l.tl), 0);
	for (int i = 0; i < THREADS; i++)
		threads[i] = thread_start(load_run, &l, 0);
	for (long r = 0; r < rounds && good; r++) {
		pid_t pid;

		fflush(NULL);
		must(lf_before_fork() == 0);
		pid = fork();
		if (pid == 0) {
			struct bracket b;
			int failed;

			child_watchdog();
			lf_after_fork_child();
			memset(&b, 0, sizeof(b));
			CHILD_CHECK(producer_create(&b.p, "tl", LF_TIMELINE_ORDERED, NULL) == 0);
			CHILD_CHECK(lf_timeline_emit(b.p.tl, 0, &b.before) == 0);
			CHILD_CHECK(lf_fence_add_callback(b.before, &b.cb.cb, noted_run) == 0);
			failed = go_on(&b);
			if (failed)
				fprintf(stderr, "child: line %d\n", failed);
			CHILD_CHECK(failed == 0);
			child_ends();
		}
		lf_after_fork_parent();
		good = child_succeeds(pid);
	}
	__atomic_store_n(&l.end, true, __ATOMIC_RELEASE);
	for (int i = 0; i < THREADS; i++)
		thread_join(threads[i]);
	lf_fence_slot_set(&l.slot, NULL);
	lf_timeline_put(l.tl);
	assert_int_equal(lf_track(0), 0);
	assert_true(good);
}

static void child_of_a_bracketed_fork_works_beside_what_other_threads_left(void **state)
{
	(void)state;
	fork_beside_other_threads(false);
}

static void child_of_a_bracketed_fork_works_beside_others_with_tracking(void **state)
{
	(void)state;
	fork_beside_other_threads(true);
}

static void fork_before_the_first_use_poisons_nothing_that_matters(void **state)
{
	pid_t pid;

	(void)state;
	if (cannot_fork_here())
		return;
	assert_int_equal(lf_fini(), 0);
	fflush(NULL);
	/* After lf_fini() no lock can be held; whichever it does, the child must not hang and the parent must go on. */
	pid = fork();
	if (pid == 0) {
		struct lf_fence *f;
		int r;

		child_watchdog();
		r = lf_fence_create(&f);
		CHILD_CHECK(r == 0 || r == -EOWNERDEAD);
		if (r == 0)
			lf_fence_put(f);
		child_ends();
	}
	assert_true(child_succeeds(pid));
	fresh_library();
}

static void before_in_callback(struct lf_fence *f, struct lf_fence_cb *cb)
{
	(void)f;
	((struct noted_cb *)cb)->status = lf_before_fork();
}

static void before_in_hook(struct producer *p, struct lf_fence *f, enum hook hook)
{
	(void)f;
	if (hook == HOOK_POLL)
		*(int *)p->user = lf_before_fork();
}

static void bracket_is_refused_in_read_section_callback_hook_and_bracket(void **state)
{
	struct noted_cb n = { .ran = 0 };
	struct producer p;
	struct lf_fence *f;
	int r;

	(void)state;
	lf_read_lock();
	r = lf_before_fork();
	lf_read_unlock();
	assert_int_equal(r, -EDEADLK);
	assert_int_equal(lf_fence_create(&f), 0);
	assert_int_equal(lf_fence_add_callback(f, &n.cb, before_in_callback), 0);
	assert_true(lf_fence_signal(f, 0));
	assert_int_equal(n.status, -EDEADLK);
	lf_fence_put(f);
	producer_init(&p, LF_TIMELINE_ORDERED);
	f = emit(p.tl);
	r = 1;
	p.user = &r;
	p.during = before_in_hook;
	assert_int_equal(lf_fence_check(f), 0);
	assert_int_equal(r, -EDEADLK);
	lf_fence_put(f);
	producer_fini(&p, 1);
	assert_int_equal(lf_before_fork(), 0);
	r = lf_before_fork();
	lf_after_fork_parent();
	assert_int_equal(r, -EDEADLK);
	log_reset(); /* whether it is reported is left open */
}

static void after_a_fork_that_was_not_bracketed_the_other_calls_do_nothing(void **state)
{
	struct lf_fence *f;

	(void)state;
	lf_after_fork_parent();
	lf_after_fork_child();
	assert_int_equal(lf_fence_create(&f), 0); /* nothing is locked, and nothing poisoned */
	lf_fence_put(f);
}

/* --- User code that forks ------------------------------------------------------------------------------------------------- */

enum forked_in { IN_CALLBACK, IN_ENABLE_OF_ADD, IN_ENABLE_OF_WAIT, IN_ENABLE_OF_WAIT_MANY, IN_DETACH };

static pid_t forked; /* what fork() said to user code; -1 before */

static void fork_here(void)
{
	if (forked == -1)
		forked = fork();
	if (forked == 0)
		child_watchdog();
}

static void fork_in_callback(struct lf_fence *f, struct lf_fence_cb *cb)
{
	(void)f;
	(void)cb;
	fork_here();
}

static void fork_in_hook(struct producer *p, struct lf_fence *f, enum hook hook)
{
	(void)f;
	if (hook == *(enum hook *)p->user)
		fork_here();
}

/* Makes the call inside which user code forks; in the child it must come back, and say that the child is poisoned. */
static void fork_inside(enum forked_in place)
{
	enum hook hook = place == IN_DETACH ? HOOK_DETACH : HOOK_ENABLE;
	struct producer p;
	struct lf_fence_cb cb = LF_FENCE_CB_INIT;
	struct lf_wait_slot slot;
	struct lf_fence *f;
	struct lf_wait_many many = { .fences = &f, .count = 1, .slots = &slot, .need = 1, .deadline = 0 };
	int ret = -EOWNERDEAD;

	producer_init(&p, 0);
	p.user = &hook;
	f = emit(p.tl);
	forked = -1;
	if (place == IN_CALLBACK) {
		assert_int_equal(lf_fence_add_callback(f, &cb, fork_in_callback), 0);
		lf_timeline_signal_to(p.tl, 1, 0);
	} else {
		p.during = fork_in_hook;
	}
	if (place == IN_ENABLE_OF_ADD)
		ret = lf_fence_add_callback(f, &cb, fork_in_callback);
	else if (place == IN_ENABLE_OF_WAIT)
		ret = lf_fence_wait(f, 0);
	else if (place == IN_ENABLE_OF_WAIT_MANY)
		ret = lf_fence_wait_many(&many, NULL);
	else if (place == IN_DETACH)
		lf_timeline_signal_to(p.tl, 1, 0);
	if (forked == 0) {
		CHILD_CHECK(ret == -EOWNERDEAD);
		child_ends();
	}
	assert_true(child_succeeds(forked));
	if (place == IN_ENABLE_OF_ADD)
		assert_int_equal(lf_fence_remove_callback(f, &cb), LF_CB_REMOVED);
	p.during = NULL;
	lf_timeline_signal_to(p.tl, 1, 0);
	lf_fence_put(f);
	producer_fini(&p, 1);
}

static void user_code_that_forks_without_the_bracket_returns_to_a_call_that_says_so(void **state)
{
	static const enum forked_in places[] = { IN_CALLBACK, IN_ENABLE_OF_ADD, IN_ENABLE_OF_WAIT, IN_ENABLE_OF_WAIT_MANY, IN_DETACH };

	(void)state;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		fork_inside(places[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* First: nothing of the library's higher layers was used before the bracket. */
		TEST(threads_create_again_when_the_bracket_is_closed),
		TEST(child_of_an_unbracketed_fork_is_refused_everything_and_never_hangs),
		TEST(threads_and_children_of_a_poisoned_child_are_refused_too),
		TEST(children_of_forks_at_any_moment_end),
		TEST(parent_and_child_of_a_bracketed_fork_go_on),
		TEST(child_of_a_bracketed_fork_may_fork_again),
		TEST(child_of_a_bracketed_fork_works_beside_what_other_threads_left),
		TEST(child_of_a_bracketed_fork_works_beside_others_with_tracking),
		TEST_FRESH(fork_before_the_first_use_poisons_nothing_that_matters),
		TEST(bracket_is_refused_in_read_section_callback_hook_and_bracket),
		TEST(after_a_fork_that_was_not_bracketed_the_other_calls_do_nothing),
		TEST(user_code_that_forks_without_the_bracket_returns_to_a_call_that_says_so),
	};

	return TEST_MAIN(tests);
}
