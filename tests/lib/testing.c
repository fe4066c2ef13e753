/* SPDX-License-Identifier: MIT */
/* What the tests share; see testing.h. */
#include "testing.h"

#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

/* --- Log ---------------------------------------------------------------------------------------------------------------- */

static struct {
	pthread_mutex_t mutex;
	unsigned count[LF_LOG_INFO + 1];
	size_t used; /* of text: lines, each ended by a newline */
	char text[64 * 1024];
	char last[512];
} captured = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static void capture(void *user, enum lf_log_level level, const char *message)
{
	(void)user;
	pthread_mutex_lock(&captured.mutex);
	captured.count[level]++;
	snprintf(captured.last, sizeof(captured.last), "%s", message);
	size_t room = sizeof(captured.text) - captured.used;
	int wanted = snprintf(captured.text + captured.used, room, "%s\n", message);
	/* a message that does not fit is counted, and lost */
	if (wanted > 0 && (size_t)wanted < room)
		captured.used += (size_t)wanted;
	captured.text[captured.used] = '\0';
	pthread_mutex_unlock(&captured.mutex);
}

void log_capture(void)
{
	log_reset();
	lf_set_log(capture, NULL);
}

unsigned log_count(enum lf_log_level level)
{
	pthread_mutex_lock(&captured.mutex);
	unsigned count = captured.count[level];
	pthread_mutex_unlock(&captured.mutex);
	return count;
}

bool log_contains(const char *text)
{
	pthread_mutex_lock(&captured.mutex);
	bool found = strstr(captured.text, text) != NULL;
	pthread_mutex_unlock(&captured.mutex);
	return found;
}

void log_last(char *buf, size_t size)
{
	pthread_mutex_lock(&captured.mutex);
	snprintf(buf, size, "%s", captured.last);
	pthread_mutex_unlock(&captured.mutex);
}

void log_reset(void)
{
	pthread_mutex_lock(&captured.mutex);
	memset(captured.count, 0, sizeof(captured.count));
	captured.used = 0;
	captured.text[0] = '\0';
	captured.last[0] = '\0';
	pthread_mutex_unlock(&captured.mutex);
}

static void log_print(void)
{
	pthread_mutex_lock(&captured.mutex);
	fputs(captured.text, stderr);
	pthread_mutex_unlock(&captured.mutex);
}

/* --- Memory ------------------------------------------------------------------------------------------------------------- */

/* What stands in front of each block, so that free() knows how much to overwrite and where malloc's block began. */
struct block_header {
	void *start;
	size_t size;
};

static atomic_long live_blocks;
static _Thread_local long calls;
static _Thread_local long fail_countdown; /* 0: none is to fail */
static _Thread_local bool fail_all;
static _Thread_local bool failed;

static bool this_one_fails(void)
{
	calls++;
	if (!fail_all && (fail_countdown == 0 || --fail_countdown != 0))
		return false;
	failed = true;
	return true;
}

static void *counting_alloc(void *user, size_t size, size_t align)
{
	(void)user;
	if (this_one_fails())
		return NULL;
	if (align < sizeof(struct block_header))
		align = sizeof(struct block_header);
	char *start = malloc(size + 2 * align);
	if (start == NULL)
		return NULL;
	char *block = start + align;
	block += (align - (uintptr_t)block % align) % align;
	struct block_header *header = (struct block_header *)(void *)block - 1;
	header->start = start;
	header->size = size;
	atomic_fetch_add(&live_blocks, 1);
	return block;
}

static void counting_free(void *user, void *ptr)
{
	(void)user;
	struct block_header *header = (struct block_header *)ptr - 1;
	void *start = header->start;
	atomic_fetch_sub(&live_blocks, 1);
	memset(ptr, 0xdd, header->size);
	/* or the compiler would leave out stores to memory that is about to be freed */
	__asm__ volatile("" : : "r"(ptr) : "memory");
	free(start);
}

void alloc_install(void)
{
	static const struct lf_allocator allocator = { counting_alloc, counting_free, NULL };
	must(lf_set_allocator(&allocator) == 0);
}

void alloc_fail_at(long nth)
{
	fail_countdown = nth;
	failed = false;
}

void alloc_fail_all(bool on)
{
	fail_all = on;
	failed = false;
}

bool alloc_failed(void)
{
	return failed;
}

long alloc_live(void)
{
	return atomic_load(&live_blocks);
}

long alloc_calls(void)
{
	return calls;
}

long alloc_fail_each(int (*scenario)(void *arg), void *arg)
{
	/* once without a failure: what the library keeps for itself from its first use on is no leak of the scenario */
	assert_int_equal(scenario(arg), 0);
	assert_int_equal(lf_reclaim_barrier(), 0);
	long before = alloc_live();
	for (long nth = 1;; nth++) {
		alloc_fail_at(nth);
		int error = scenario(arg);
		bool hit = alloc_failed();
		alloc_fail_at(0);
		assert_int_equal(error, hit ? -ENOMEM : 0);
		assert_int_equal(lf_reclaim_barrier(), 0);
		assert_int_equal(alloc_live(), before);
		if (!hit)
			return nth - 1;
	}
}

/* --- Clock -------------------------------------------------------------------------------------------------------------- */

static _Atomic int64_t clock_stands_at;
static bool clock_replaced;

static int64_t read_clock(void *user)
{
	(void)user;
	return atomic_load(&clock_stands_at);
}

/* The hook is put in place once: setting the time again is allowed while others use the library, replacing the hook is not. */
void clock_set(int64_t now)
{
	atomic_store(&clock_stands_at, now);
	if (!clock_replaced)
		lf_set_clock(read_clock, NULL);
	clock_replaced = true;
}

void clock_real(void)
{
	lf_set_clock(NULL, NULL);
	clock_replaced = false;
}

/* --- Threads ------------------------------------------------------------------------------------------------------------ */

pthread_t thread_start(void *(*fn)(void *), void *arg, size_t stack_size)
{
	pthread_t thread;
	pthread_attr_t attr;
	long least = PTHREAD_STACK_MIN;
	must(pthread_attr_init(&attr) == 0);
	if (stack_size != 0 && least > 0 && stack_size < (size_t)least)
		stack_size = (size_t)least;
	if (stack_size != 0)
		must(pthread_attr_setstacksize(&attr, stack_size) == 0);
	must(pthread_create(&thread, &attr, fn, arg) == 0);
	pthread_attr_destroy(&attr);
	return thread;
}

void *thread_join(pthread_t thread)
{
	void *result;
	must(pthread_join(thread, &result) == 0);
	return result;
}

void thread_run(void *(*fn)(void *), void *arg, size_t stack_size)
{
	thread_join(thread_start(fn, arg, stack_size));
}

void gate_init(struct gate *gate, unsigned n)
{
	must(pthread_barrier_init(&gate->barrier, NULL, n) == 0);
}

void gate_wait(struct gate *gate)
{
	int result = pthread_barrier_wait(&gate->barrier);
	must(result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD);
}

void gate_fini(struct gate *gate)
{
	pthread_barrier_destroy(&gate->barrier);
}

void flag_init(struct flag *flag)
{
	must(pthread_mutex_init(&flag->mutex, NULL) == 0);
	must(pthread_cond_init(&flag->cond, NULL) == 0);
	flag->set = false;
}

void flag_set(struct flag *flag)
{
	pthread_mutex_lock(&flag->mutex);
	flag->set = true;
	pthread_cond_broadcast(&flag->cond);
	pthread_mutex_unlock(&flag->mutex);
}

void flag_wait(struct flag *flag)
{
	pthread_mutex_lock(&flag->mutex);
	while (!flag->set)
		pthread_cond_wait(&flag->cond, &flag->mutex);
	pthread_mutex_unlock(&flag->mutex);
}

void flag_fini(struct flag *flag)
{
	pthread_cond_destroy(&flag->cond);
	pthread_mutex_destroy(&flag->mutex);
}

/* --- Random numbers and amounts ----------------------------------------------------------------------------------------- */

uint64_t random_next(uint64_t *state)
{
	uint64_t x = *state;
	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * UINT64_C(0x2545f4914f6cdd1d);
}

void pause_at_random(uint64_t *random)
{
	uint64_t n = random_next(random) % 64;

	if (n == 0)
		sched_yield();
	for (uint64_t i = 0; i < n; i++)
		atomic_signal_fence(memory_order_seq_cst);
}

uint64_t test_seed(void)
{
	const char *text = getenv("LF_SEED");
	uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : 0;
	if (seed == 0)
		seed = UINT64_C(0x9e3779b97f4a7c15);
	test_note("LF_SEED=%#llx", (unsigned long long)seed);
	return seed;
}

long test_rounds(long rounds)
{
	const char *text = getenv("LF_STRESS");
	double factor = text != NULL ? strtod(text, NULL) : 1.0;
	double scaled = (double)rounds * factor;
	return scaled < 1.0 ? 1 : (long)scaled;
}

bool test_is_sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
	return true;
#else
	return false;
#endif
#else
	return false;
#endif
}

void test_note(const char *format, ...)
{
	char line[512];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	printf("# %s\n", line);
	fflush(stdout);
}

#ifdef LF_COVERAGE
void __gcov_dump(void); /* of gcc's run-time library */
#endif

_Noreturn void child_ends(void)
{
	const char *preload = getenv("LD_PRELOAD");
	if (preload && strstr(preload, "vgpreload"))
		execl("/bin/true", "true", (char *)NULL);
#ifdef LF_COVERAGE
	__gcov_dump();
#endif
	_exit(0);
}

_Noreturn void must_failed(const char *file, int line, const char *condition)
{
	fflush(stdout);
	fprintf(stderr, "%s:%d: not true: %s\n", file, line, condition);
	log_print();
	abort();
}

static char watchdog_message[256];

static void watchdog_bites(int signal_number)
{
	(void)signal_number;
	ssize_t written = write(STDERR_FILENO, watchdog_message, strlen(watchdog_message));
	(void)written;
	abort();
}

void test_watchdog(unsigned seconds, const char *what)
{
	/* generous: it is there for what hangs, not for what is slow */
	if (test_is_sanitized())
		seconds *= 10;
	snprintf(watchdog_message, sizeof(watchdog_message), "watchdog: no end after %u s: %s\n", seconds, what);
	signal(SIGALRM, watchdog_bites);
	alarm(seconds);
}

/* --- Running ------------------------------------------------------------------------------------------------------------ */

static long live_at_start;

int test_setup(void **state)
{
	(void)state;
	log_capture();
	if (lf_reclaim_barrier() != 0)
		return -1;
	live_at_start = alloc_live();
	return 0;
}

int test_teardown(void **state)
{
	(void)state;
	clock_real();
	alloc_fail_at(0);
	alloc_fail_all(false);
	int barrier = lf_reclaim_barrier();
	long left = alloc_live() - live_at_start;
	unsigned misuse = log_count(LF_LOG_MISUSE);
	if (barrier != 0)
		fprintf(stderr, "lf_reclaim_barrier() returned %d\n", barrier);
	if (left != 0)
		fprintf(stderr, "%ld blocks more than before the test\n", left);
	if (misuse != 0) {
		fprintf(stderr, "%u reports of misuse that the test did not ask for:\n", misuse);
		log_print();
	}
	log_reset();
	return barrier == 0 && left == 0 && misuse == 0 ? 0 : -1;
}

/* What the library sets up with its first use, and keeps until lf_fini(), would be a leak of whichever test comes first. */
static void warm_up(void)
{
	struct lf_fence *f;
	must(lf_fence_create(&f) == 0);
	lf_fence_publish(f);
	must(lf_fence_signal(f, 0));
	lf_fence_put(f);
	must(lf_reclaim_barrier() == 0);
}

int tests_run(const char *name, const struct CMUnitTest *tests, size_t count)
{
	/* the plan comes first, so that a test that crashes is seen to be missing */
	setvbuf(stdout, NULL, _IOLBF, 0);
	alloc_install();
	warm_up();
	int failures = _cmocka_run_group_tests(name, tests, count, NULL, NULL);
	int still_alive = lf_fini();
	if (still_alive != 0)
		fprintf(stderr, "lf_fini() returned %d\n", still_alive);
	long left = alloc_live();
	if (left != 0)
		fprintf(stderr, "%ld blocks left after lf_fini()\n", left);
	return failures == 0 && still_alive == 0 && left == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
