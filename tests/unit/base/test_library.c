/* SPDX-License-Identifier: MIT */
/* The library as a whole: version, allocator, log, clock, the list of what was forgotten, and its end. */
#include "producer.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdalign.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void version_is_that_of_the_headers(void **state)
{
	(void)state;
	assert_true(lf_version() == (LF_VERSION_MAJOR << 16 | LF_VERSION_MINOR << 8 | LF_VERSION_PATCH));
}

/* --- Memory -------------------------------------------------------------------------------------------------------------- */

/* An allocator that gives memory full of rubbish and notes what it was asked for. */
struct notes {
	long live;
	size_t smallest_align;
	unsigned bad; /* alignment that is no power of two, size 0, free of NULL */
};

static void *noting_alloc(void *user, size_t size, size_t align)
{
	struct notes *n = user;
	void *block;

	if (size == 0 || align == 0 || (align & (align - 1)) != 0)
		count_up(&n->bad);
	if (align < sizeof(void *))
		align = sizeof(void *);
	block = aligned_alloc(align, (size + align - 1) / align * align);
	if (!block)
		return NULL;
	memset(block, 0xa5, size);
	__atomic_fetch_add(&n->live, 1, __ATOMIC_SEQ_CST);
	return block;
}

static void noting_free(void *user, void *ptr)
{
	struct notes *n = user;

	if (!ptr)
		count_up(&n->bad);
	__atomic_fetch_sub(&n->live, 1, __ATOMIC_SEQ_CST);
	free(ptr);
}

static void use_everything(void)
{
	struct lf_provider *provider;
	struct producer p = { .tl = NULL };
	struct lf_fence *f;
	struct noted_cb n;
	struct lf_deferred *block;

	assert_int_equal(lf_provider_create("drv", &provider), 0);
	assert_int_equal(producer_create(&p, "ring", LF_TIMELINE_ORDERED, provider), 0);
	f = emit(p.tl);
	noted_add(&n, f);
	lf_fence_publish(f);
	assert_int_equal(lf_provider_close(provider, LF_DEADLINE_NEVER), 0);
	assert_int_equal(n.ran, 1);
	lf_timeline_put(p.tl);
	lf_provider_put(provider);
	lf_fence_put(f);
	block = lf_alloc(100);
	assert_non_null(block);
	lf_defer_free(block, block);
	lf_free(NULL);
}

static void allocator_gets_every_request_and_all_of_it_back(void **state)
{
	struct notes notes = { .live = 0 };
	const struct lf_allocator allocator = { noting_alloc, noting_free, &notes };

	(void)state;
	assert_int_equal(lf_fini(), 0);
	assert_int_equal(lf_set_allocator(&allocator), 0);
	for (int i = 0; i < 3; i++) {
		use_everything();
		assert_true(notes.live > 0);
		/* Also what the library keeps for itself. */
		assert_int_equal(lf_fini(), 0);
		assert_true(notes.live == 0);
	}
	assert_int_equal(notes.bad, 0);
	fresh_library();
}

static void memory_is_zeroed_and_aligned_for_any_type(void **state)
{
	struct notes notes = { .live = 0 };
	const struct lf_allocator allocator = { noting_alloc, noting_free, &notes };

	(void)state;
	assert_int_equal(lf_fini(), 0);
	assert_int_equal(lf_set_allocator(&allocator), 0);
	for (size_t size = 1; size < 5000; size = size * 3 + 1) {
		unsigned char *block = lf_alloc(size);

		assert_non_null(block);
		assert_true((uintptr_t)block % alignof(max_align_t) == 0);
		for (size_t i = 0; i < size; i++)
			assert_int_equal(block[i], 0);
		lf_free(block);
	}
	assert_int_equal(lf_fini(), 0);
	fresh_library();
}

static void allocator_cannot_be_replaced_once_it_was_used(void **state)
{
	struct notes notes = { .live = 0 };
	const struct lf_allocator allocator = { noting_alloc, noting_free, &notes };
	void *block;

	(void)state;
	assert_int_equal(lf_set_allocator(&allocator), -EBUSY);
	assert_int_equal(lf_set_allocator(NULL), -EBUSY);
	assert_int_equal(lf_fini(), 0);
	assert_int_equal(lf_set_allocator(&allocator), 0);
	assert_int_equal(lf_set_allocator(&allocator), 0); /* nothing was allocated yet */
	block = lf_alloc(1);
	assert_non_null(block);
	assert_true(notes.live >= 1);
	assert_int_equal(lf_set_allocator(NULL), -EBUSY);
	lf_free(block);
	assert_int_equal(lf_set_allocator(NULL), -EBUSY); /* "has allocated", not "has something out" */
	assert_int_equal(lf_fini(), 0);
	assert_true(notes.live == 0);
	/* The default: nothing arrives here any more. */
	assert_int_equal(lf_set_allocator(NULL), 0);
	block = lf_alloc(1);
	assert_non_null(block);
	assert_true(notes.live == 0);
	lf_free(block);
	fresh_library();
}

static void *keeping_alloc(void *user, size_t size, size_t align)
{
	(void)user;
	(void)align;
	return malloc(size);
}

/* What is freed, to be freed when the test has looked at it. */
struct kept {
	void *blocks[16];
	size_t count;
};

static void keeping_free(void *user, void *ptr)
{
	struct kept *kept = user;

	must(kept->count < sizeof(kept->blocks) / sizeof(kept->blocks[0]));
	kept->blocks[kept->count++] = ptr;
}

/* A put too many is the caller's mistake, and told as long as the memory is nobody else's. */
static void put_too_many_of_a_freed_fence_is_told(void **state)
{
	struct kept kept = { .count = 0 };
	const struct lf_allocator allocator = { keeping_alloc, keeping_free, &kept };
	struct lf_fence *f;

	(void)state;
	assert_int_equal(lf_fini(), 0);
	assert_int_equal(lf_set_allocator(&allocator), 0);
	assert_int_equal(lf_fence_create(&f), 0);
	assert_true(lf_fence_signal(f, 0));
	lf_fence_put(f);
	lf_fence_put(f);
	assert_int_equal(log_count(LF_LOG_MISUSE), 1);
	log_reset();
	assert_int_equal(lf_fini(), 0);
	assert_true(kept.count >= 1);
	while (kept.count > 0)
		free(kept.blocks[--kept.count]);
	fresh_library();
}

static void allocator_without_a_function_is_refused_and_the_old_one_stays(void **state)
{
	struct notes notes = { .live = 0 };
	const struct lf_allocator allocator = { noting_alloc, noting_free, &notes };
	const struct lf_allocator no_alloc = { NULL, noting_free, NULL }, no_free = { noting_alloc, NULL, NULL };
	void *block;

	(void)state;
	assert_int_equal(lf_fini(), 0);
	assert_int_equal(lf_set_allocator(&allocator), 0);
	assert_int_equal(lf_set_allocator(&no_alloc), -EINVAL);
	assert_int_equal(lf_set_allocator(&no_free), -EINVAL);
	block = lf_alloc(1);
	assert_true(notes.live >= 1);
	lf_free(block);
	log_reset(); /* whether it is reported is left open */
	fresh_library();
}

static int everything_scenario(void *arg)
{
	struct lf_deferred *block = lf_alloc(100);
	struct lf_fence *f = NULL;
	int r;

	(void)arg;
	if (!block)
		return -ENOMEM;
	lf_defer_free(block, block);
	r = lf_fence_create(&f);
	assert_int_equal(f == NULL, r != 0);
	lf_fence_put(f);
	if (r)
		return r;
	f = NULL;
	r = lf_fence_create_signaled(-EIO, 7, &f);
	assert_int_equal(f == NULL, r != 0);
	lf_fence_put(f);
	return r;
}

static void every_failed_allocation_is_an_ENOMEM(void **state)
{
	(void)state;
	assert_true(alloc_fail_each(everything_scenario, NULL) >= 3);
}

/* --- Log ----------------------------------------------------------------------------------------------------------------- */

struct logged {
	enum lf_log_level level;
	char message[500];
	unsigned count;
	struct lf_timeline *tl; /* used inside the log function when not NULL */
	bool in_section;
};

static void log_note(void *user, enum lf_log_level level, const char *message)
{
	struct logged *l = user;

	l->level = level;
	snprintf(l->message, sizeof(l->message), "%s", message);
	l->count++;
	if (l->tl) {
		struct lf_fence *f;

		/* The log is user code: it may do what it likes, with the very object that was misused. */
		if (lf_timeline_emit(l->tl, 0, &f) == 0) {
			lf_timeline_signal_to(l->tl, lf_fence_seqno(f), 0);
			lf_fence_put(f);
		}
	}
}

static void log_gets_one_line_a_message_with_its_level(void **state)
{
	struct logged l = { .count = 0 };
	struct lf_fence *f;

	(void)state;
	assert_int_equal(lf_fence_create(&f), 0);
	lf_set_log(log_note, &l);
	assert_true(lf_fence_signal(f, 12345));
	assert_int_equal(l.count, 1);
	assert_int_equal(l.level, LF_LOG_MISUSE);
	assert_true(strlen(l.message) > 0);
	assert_null(strchr(l.message, '\n'));
	log_capture();
	lf_fence_put(f);
}

static void log_function_may_use_the_library_and_the_object_that_was_misused(void **state)
{
	const struct lf_timeline_desc desc = { .name = "talkative" };
	struct logged l = { .count = 0 };
	struct lf_timeline *tl;
	struct lf_fence *f, *g;

	(void)state;
	assert_int_equal(lf_timeline_create(&desc, &tl), 0);
	assert_int_equal(lf_timeline_emit(tl, 10, &f), 0);
	l.tl = tl;
	lf_set_log(log_note, &l);
	assert_int_equal(lf_timeline_emit(tl, 5, &g), -EINVAL);
	assert_int_equal(l.count, 1);
	assert_true(lf_timeline_last_seqno(tl) == 11);
	assert_true(lf_fence_is_signaled(f));
	log_capture();
	lf_timeline_put(tl);
	lf_fence_put(f);
}

static void default_log_is_a_line_on_stderr(void **state)
{
	FILE *file = tmpfile();
	int saved = dup(STDERR_FILENO);
	struct lf_fence *f;
	char line[600];

	(void)state;
	assert_non_null(file);
	assert_true(saved >= 0);
	assert_int_equal(lf_fence_create(&f), 0);
	fflush(stderr);
	assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
	lf_set_log(NULL, NULL);
	lf_fence_signal(f, 12345);
	fflush(stderr);
	dup2(saved, STDERR_FILENO);
	close(saved);
	log_capture();
	rewind(file);
	assert_non_null(fgets(line, sizeof(line), file));
	assert_true(strlen(line) > 5);
	assert_int_equal(line[strlen(line) - 1], '\n');
	assert_null(fgets(line, sizeof(line), file));
	fclose(file);
	lf_fence_put(f);
}

/* --- Clock --------------------------------------------------------------------------------------------------------------- */

static void clock_is_monotonic_unless_replaced(void **state)
{
	struct timespec before, after;
	int64_t now;

	(void)state;
	clock_gettime(CLOCK_MONOTONIC, &before);
	now = lf_now();
	clock_gettime(CLOCK_MONOTONIC, &after);
	assert_true(now >= before.tv_sec * INT64_C(1000000000) + before.tv_nsec);
	assert_true(now <= after.tv_sec * INT64_C(1000000000) + after.tv_nsec);
	clock_set(-5);
	assert_true(lf_now() == -5);
	clock_set(77);
	assert_true(lf_now() == 77);
	clock_real();
	assert_true(lf_now() >= now);
}

static void a_deadline_so_far_from_now_ends_with_the_clock(void **state)
{
	(void)state;
	clock_set(1000);
	assert_true(lf_deadline_in(0) == 1000);
	assert_true(lf_deadline_in(234) == 1234);
	assert_true(lf_deadline_in(INT64_MAX - 1001) == INT64_MAX - 1);
	assert_true(lf_deadline_in(INT64_MAX - 1000) == LF_DEADLINE_NEVER);
	assert_true(lf_deadline_in(INT64_MAX) == LF_DEADLINE_NEVER);
	assert_true(lf_deadline_in(UINT64_MAX) == LF_DEADLINE_NEVER);
	clock_set(-1000);
	assert_true(lf_deadline_in(1) == -999);
	assert_true(lf_deadline_in(UINT64_MAX) == LF_DEADLINE_NEVER);
}

static void timestamps_come_from_the_replaced_clock(void **state)
{
	struct lf_fence *f;

	(void)state;
	clock_set(4242);
	assert_int_equal(lf_fence_create(&f), 0);
	assert_true(lf_fence_signal(f, 0));
	assert_true(lf_fence_timestamp(f) == 4242);
	lf_fence_put(f);
}

struct waiting {
	struct lf_fence *f;
	struct flag started;
	int result;
	int64_t ended;
};

static void *wait_until_2000(void *arg)
{
	struct waiting *w = arg;

	flag_set(&w->started);
	w->result = lf_fence_wait(w->f, 2000);
	w->ended = lf_now();
	return NULL;
}

static void deadlines_are_compared_with_the_replaced_clock(void **state)
{
	struct waiting w = { .result = 1 };
	pthread_t thread;

	(void)state;
	assert_int_equal(lf_fence_create(&w.f), 0);
	clock_set(1000);
	assert_int_equal(lf_fence_wait(w.f, 999), -ETIME);
	assert_int_equal(lf_fence_wait(w.f, 1000), -ETIME);
	flag_init(&w.started);
	thread = thread_start(wait_until_2000, &w, 0);
	flag_wait(&w.started);
	clock_set(1999);
	clock_set(2000);
	thread_join(thread);
	assert_int_equal(w.result, -ETIME);
	assert_true(w.ended == 2000);
	flag_fini(&w.started);
	lf_fence_put(w.f);
}

/* --- What was forgotten -------------------------------------------------------------------------------------------------- */

static void unknown_flags_are_refused(void **state)
{
	(void)state;
	assert_int_equal(lf_track(4), -EINVAL);
	assert_int_equal(lf_track(LF_TRACK_OBJECTS | 0x100), -EINVAL);
	log_reset(); /* whether it is reported is left open */
	assert_int_equal(lf_track(0), 0);
}

static void fini_lists_nothing_when_tracking_is_off(void **state)
{
	struct lf_fence *f;

	(void)state;
	assert_int_equal(lf_fence_create(&f), 0);
	log_reset();
	assert_int_equal(lf_fini(), 0);
	assert_int_equal(log_count(LF_LOG_INFO), 0);
	lf_fence_put(f);
	fresh_library();
}

static void fini_lists_each_live_object_in_a_line_and_they_live_on(void **state)
{
	struct lf_provider *provider;
	struct producer p = { .tl = NULL };
	struct lf_fence *alone, *mine, *gone, *unknown;
	struct noted_cb n;
	char address[32];

	(void)state;
	assert_int_equal(lf_fence_create(&unknown), 0); /* made before it is switched on */
	assert_int_equal(lf_track(LF_TRACK_OBJECTS), 0);
	assert_int_equal(lf_provider_create("forgotten-drv", &provider), 0);
	assert_int_equal(producer_create(&p, "forgotten-ring", LF_TIMELINE_ORDERED, provider), 0);
	mine = emit(p.tl);
	assert_int_equal(lf_fence_create(&alone), 0);
	assert_int_equal(lf_fence_create(&gone), 0);
	lf_fence_put(gone);
	log_reset();
	assert_int_equal(lf_fini(), 4);
	assert_int_equal(log_count(LF_LOG_INFO), 4);
	/* Each can be told from the others. */
	snprintf(address, sizeof(address), "%p", (void *)alone);
	assert_true(log_contains(address));
	snprintf(address, sizeof(address), "%p", (void *)mine);
	assert_true(log_contains(address));
	snprintf(address, sizeof(address), "%p", (void *)unknown);
	assert_false(log_contains(address));
	/* All of it is alive, and the library starts again. */
	noted_add(&n, mine);
	assert_int_equal(lf_timeline_signal_to(p.tl, 1, -EIO), 1);
	assert_int_equal(n.status, -EIO);
	assert_true(lf_fence_signal(alone, 0));
	lf_fence_put(alone);
	lf_fence_put(mine);
	lf_fence_put(unknown);
	lf_timeline_put(p.tl);
	assert_int_equal(p.releases, 1);
	lf_provider_put(provider);
	log_reset();
	assert_int_equal(lf_fini(), 0);
	assert_int_equal(log_count(LF_LOG_INFO), 0);
	assert_int_equal(lf_track(0), 0);
	fresh_library();
}

static __attribute__((noinline)) struct lf_fence *leak_here(void)
{
	struct lf_fence *f = NULL;

	assert_int_equal(lf_fence_create(&f), 0);
	return f;
}

static void fini_lists_where_an_object_was_made(void **state)
{
	struct lf_fence *f;

	(void)state;
	assert_int_equal(lf_track(LF_TRACK_WHERE), 0);
	f = leak_here();
	log_reset();
	assert_int_equal(lf_fini(), 1);
	assert_true(log_count(LF_LOG_INFO) >= 1);
	/* The call stack names at least the program, since the function is static. */
	assert_true(log_contains(program_invocation_short_name));
	lf_fence_put(f);
	assert_int_equal(lf_track(0), 0);
	fresh_library();
}

static void switching_tracking_off_forgets(void **state)
{
	struct lf_fence *f;

	(void)state;
	assert_int_equal(lf_track(LF_TRACK_OBJECTS), 0);
	assert_int_equal(lf_fence_create(&f), 0);
	assert_int_equal(lf_track(0), 0);
	assert_int_equal(lf_fini(), 0);
	assert_int_equal(lf_track(LF_TRACK_OBJECTS), 0);
	assert_int_equal(lf_fini(), 0);
	lf_fence_put(f);
	assert_int_equal(lf_track(0), 0);
	fresh_library();
}

static void object_that_cannot_be_recorded_for_want_of_memory_is_left_out(void **state)
{
	struct lf_fence *f = NULL;
	long nth;
	bool left_out = false;

	(void)state;
	assert_int_equal(lf_track(LF_TRACK_WHERE), 0);
	for (nth = 1; nth < 100; nth++) {
		int r;

		alloc_fail_at(nth);
		r = lf_fence_create(&f);
		if (!alloc_failed())
			break;
		alloc_fail_at(0);
		assert_true(r == 0 || r == -ENOMEM);
		if (r == 0) {
			/* It failed to be recorded, and is a fence like any other. */
			left_out = true;
			assert_true(lf_fence_signal(f, 0));
			lf_fence_put(f);
		}
		f = NULL;
	}
	alloc_fail_at(0);
	assert_true(left_out);
	assert_true(nth < 100);
	lf_fence_put(f);
	assert_int_equal(lf_fini(), 0);
	assert_int_equal(lf_track(0), 0);
	fresh_library();
}

/* What the program does when it is started anew by the next test. */
static int leak_and_count(void)
{
	struct lf_fence *f[3];

	lf_set_log(NULL, NULL);
	for (int i = 0; i < 3; i++)
		if (lf_fence_create(&f[i]) != 0)
			return 99;
	return lf_fini();
}

static void count_warning(void *user, enum lf_log_level level, const char *message)
{
	(void)message;
	*(int *)user += level == LF_LOG_WARNING;
}

/* Likewise: how many warnings there are when an array gets into an array. */
static int nest_and_count(void)
{
	int warnings = 0;
	struct lf_fence *f;

	lf_set_log(count_warning, &warnings);
	if (lf_fence_create(&f) != 0)
		return 99;
	lf_fence_get(f);
	for (int i = 0; i < 2; i++)
		if (lf_array_create(&f, 1, LF_ARRAY_ALL, &f) != 0)
			return 99;
	return warnings;
}

/* Starts this program anew, where it needs it through the emulator that meson names. Returns its status, or a negative number. */
static int run_self(const char *self, const char *argument, const char *setting)
{
	const char *emulator = getenv("MESON_EXE_WRAPPER");
	char *words = strdup(emulator ? emulator : ""), *rest = words, *argv[16];
	char no_lsan[] = "ASAN_OPTIONS=detect_leaks=0", *envp[] = { (char *)(uintptr_t)setting, no_lsan, NULL };
	posix_spawn_file_actions_t actions;
	size_t n = 0;
	pid_t pid;
	int r, status;

	assert_non_null(words);
	while (n < 13 && (argv[n] = strtok_r(NULL, " ", &rest)) != NULL)
		n++;
	argv[n++] = (char *)(uintptr_t)self;
	argv[n++] = (char *)(uintptr_t)argument;
	argv[n] = NULL;
	assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
	assert_int_equal(posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0), 0);
	r = posix_spawnp(&pid, argv[0], &actions, NULL, argv, envp);
	posix_spawn_file_actions_destroy(&actions);
	free(words);
	if (r != 0)
		return -r;
	assert_true(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1000 - WTERMSIG(status);
}

static void environment_switches_tracking_and_validation_on(void **state)
{
	static const struct {
		const char *argument, *value;
		int status;
	} cases[] = {
		{ "leak", "LF_TRACK=objects", 3 },
		{ "leak", "LF_TRACK=where", 3 },
		{ "leak", "LF_TRACK_NOT=objects", 0 },
		{ "nest", "LF_VALIDATE=nesting", 1 },
		{ "nest", "LF_VALIDATE=all", 1 },
		{ "nest", "LF_VALIDATE=waits", 0 },
		{ "nest", "LF_VALIDATE=nestings", 1 }, /* which says what was expected */
		{ "nest", "LF_TRACK=nothing", 1 },
		{ "nest", "LF_TRACK=", 0 }, /* as if it was not there */
	};

	char self[1000];
	ssize_t length;

	(void)state;
	/* By name, since an emulator or valgrind would start itself anew. */
	length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	assert_true(length > 0);
	self[length] = '\0';
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(run_self(self, cases[i].argument, cases[i].value), cases[i].status);
}

/* --- The end ------------------------------------------------------------------------------------------------------------- */

static void fini_may_be_called_again_and_the_library_used_again(void **state)
{
	(void)state;
	for (int i = 0; i < 5; i++) {
		use_everything();
		assert_int_equal(lf_fini(), 0);
		assert_int_equal(lf_fini(), 0);
		if (i % 2)
			assert_int_equal(lf_reclaim_barrier(), 0);
	}
	fresh_library();
}

static void note_deferred(struct lf_deferred *node)
{
	*(bool *)((char *)node + sizeof(*node)) = true;
}

static void fini_runs_and_frees_what_was_deferred(void **state)
{
	struct {
		struct lf_deferred node;
		bool ran;
	} call = { .ran = false };
	long live = alloc_live();
	struct lf_deferred *block = lf_alloc(64);

	(void)state;
	assert_non_null(block);
	lf_defer_free(block, block);
	lf_defer_call(&call.node, note_deferred);
	assert_int_equal(lf_fini(), 0);
	assert_true(call.ran);
	assert_true(alloc_live() < live + 1);
	fresh_library();
}

static void fini_in_callback(struct lf_fence *f, struct lf_fence_cb *cb)
{
	(void)f;
	((struct noted_cb *)cb)->status = lf_fini();
}

static struct lf_deferred fini_node;
static int fini_result;

static void fini_in_deferred_call(struct lf_deferred *node)
{
	(void)node;
	fini_result = lf_fini();
}

static void fini_is_refused_in_read_section_callback_and_deferred_call(void **state)
{
	struct noted_cb n = { .ran = 0 };
	struct lf_fence *f;
	int r;

	(void)state;
	lf_read_lock();
	r = lf_fini();
	lf_read_unlock();
	assert_int_equal(r, -EDEADLK);
	assert_int_equal(lf_fence_create(&f), 0);
	assert_int_equal(lf_fence_add_callback(f, &n.cb, fini_in_callback), 0);
	assert_true(lf_fence_signal(f, 0));
	assert_int_equal(n.status, -EDEADLK);
	lf_fence_put(f);
	fini_result = 1;
	lf_defer_call(&fini_node, fini_in_deferred_call);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(fini_result, -EDEADLK);
	log_reset(); /* whether it is reported is left open */
}

static void *use_and_end(void *arg)
{
	(void)arg;
	for (int i = 0; i < 10; i++) {
		struct lf_deferred *block = lf_alloc(64);
		struct lf_fence *f;

		must(block != NULL);
		lf_defer_free(block, block);
		must(lf_fence_create(&f) == 0);
		lf_fence_publish(f);
		lf_fence_signal(f, 0);
		lf_fence_put(f);
	}
	return NULL;
}

/* A thread that used the library before lf_fini() and uses it again after it: what it knew of its own must not be taken for valid. */
struct survivor {
	struct gate gate;
};

static void *use_across_fini(void *arg)
{
	struct survivor *s = arg;

	for (int i = 0; i < 3; i++) {
		use_and_end(NULL);
		gate_wait(&s->gate); /* lf_fini() runs between these two */
		gate_wait(&s->gate);
	}
	return NULL;
}

static void threads_that_ended_or_rest_are_no_hindrance_to_fini(void **state)
{
	struct survivor s;
	pthread_t survivor;

	(void)state;
	gate_init(&s.gate, 2);
	survivor = thread_start(use_across_fini, &s, 0);
	for (int i = 0; i < 3; i++) {
		thread_join(thread_start(use_and_end, NULL, 0));
		gate_wait(&s.gate);
		assert_int_equal(lf_fini(), 0);
		gate_wait(&s.gate);
	}
	thread_join(survivor);
	gate_fini(&s.gate);
	fresh_library();
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(version_is_that_of_the_headers),
		TEST_FRESH(allocator_gets_every_request_and_all_of_it_back),
		TEST_FRESH(memory_is_zeroed_and_aligned_for_any_type),
		TEST_FRESH(allocator_cannot_be_replaced_once_it_was_used),
		TEST_FRESH(allocator_without_a_function_is_refused_and_the_old_one_stays),
		TEST_FRESH(put_too_many_of_a_freed_fence_is_told),
		TEST(every_failed_allocation_is_an_ENOMEM),
		TEST(log_gets_one_line_a_message_with_its_level),
		TEST(log_function_may_use_the_library_and_the_object_that_was_misused),
		TEST(default_log_is_a_line_on_stderr),
		TEST(clock_is_monotonic_unless_replaced),
		TEST(a_deadline_so_far_from_now_ends_with_the_clock),
		TEST(timestamps_come_from_the_replaced_clock),
		TEST(deadlines_are_compared_with_the_replaced_clock),
		TEST(unknown_flags_are_refused),
		TEST_FRESH(fini_lists_nothing_when_tracking_is_off),
		TEST_FRESH(fini_lists_each_live_object_in_a_line_and_they_live_on),
		TEST_FRESH(fini_lists_where_an_object_was_made),
		TEST_FRESH(switching_tracking_off_forgets),
		TEST_FRESH(object_that_cannot_be_recorded_for_want_of_memory_is_left_out),
		TEST(environment_switches_tracking_and_validation_on),
		TEST_FRESH(fini_may_be_called_again_and_the_library_used_again),
		TEST_FRESH(fini_runs_and_frees_what_was_deferred),
		TEST(fini_is_refused_in_read_section_callback_and_deferred_call),
		TEST_FRESH(threads_that_ended_or_rest_are_no_hindrance_to_fini),
	};

	if (argc == 2 && strcmp(argv[1], "leak") == 0)
		return leak_and_count();
	if (argc == 2 && strcmp(argv[1], "nest") == 0)
		return nest_and_count();
	return TEST_MAIN(tests);
}
