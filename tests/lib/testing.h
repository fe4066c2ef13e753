/* SPDX-License-Identifier: MIT */
/*
 * What the tests share: cmocka with its includes, a log that is captured, an allocator that counts and fails on demand, threads, and a
 * clock that stands still.
 */
#ifndef TESTING_H
#define TESTING_H

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <libfence/libfence.h>

/* --- Log: every message is kept; a test that provokes misuse says how much of it ---------------------------------------- */

/* Captures the log from here on. */
void log_capture(void);
/* How many messages of a level came since the last log_reset(). */
unsigned log_count(enum lf_log_level level);
/* Whether one of the messages since the last log_reset() contains a text. */
bool log_contains(const char *text);
/* Copies the last message, cut where it must be. */
void log_last(char *buf, size_t size);
void log_reset(void);

/* --- Memory: counts live blocks; fails the nth allocation; overwrites what is freed, so that a late reader sees it ------- */

/* Installs the counting allocator; before the library is first used. */
void alloc_install(void);
/* The nth allocation of this thread from now on fails (1 is the next); 0 switches that off. Other threads' allocations do not count. */
void alloc_fail_at(long nth);
/* Every allocation of this thread fails, or none. */
void alloc_fail_all(bool on);
/* Whether an allocation of this thread was failed since alloc_fail_at() or alloc_fail_all(). */
bool alloc_failed(void);
/* Blocks that are allocated now. */
long alloc_live(void);
/* Allocations of this thread since it started, failed ones included: equal before and after a call that allocates nothing. */
long alloc_calls(void);

/*
 * Runs a scenario with its first, second ... allocation failing until none fails. The scenario returns 0 or the error it got and must leave
 * nothing behind; the helper checks that the error is -ENOMEM and that no block is left. Returns how many failures were survived.
 */
long alloc_fail_each(int (*scenario)(void *arg), void *arg);

/* --- Clock -------------------------------------------------------------------------------------------------------------- */

/* Replaces the clock by one that stands at @now until it is set again. clock_real() goes back. */
void clock_set(int64_t now);
void clock_real(void);

/* --- Threads ------------------------------------------------------------------------------------------------------------ */

/* Starts a thread that must not fail to start; stack_size 0 is the default, and less than the machine allows (128 KiB on arm64) its least. */
pthread_t thread_start(void *(*fn)(void *), void *arg, size_t stack_size);
void *thread_join(pthread_t thread);
/* Runs one function on a thread of its own and waits for it. */
void thread_run(void *(*fn)(void *), void *arg, size_t stack_size);

/* A gate that threads wait at until all @n have come. Reusable. */
struct gate {
	pthread_barrier_t barrier;
};
void gate_init(struct gate *gate, unsigned n);
void gate_wait(struct gate *gate);
void gate_fini(struct gate *gate);

/* A flag that another thread waits for, sleeping. */
struct flag {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool set;
};
void flag_init(struct flag *flag);
void flag_set(struct flag *flag);
void flag_wait(struct flag *flag);
void flag_fini(struct flag *flag);

/*
 * Ends the child of a fork well: without the parent's handlers of exit, but in a build that measures coverage with what was measured.
 * A child leaks by design, which valgrind would take for a failure when it ends; it does not look when another program takes its place.
 */
_Noreturn void child_ends(void);

/* In the child of a fork, where cmocka's assertions would go on with the parent's tests: ends it with status 1. */
#define CHILD_CHECK(condition)                                                                           \
	do {                                                                                             \
		if (!(condition)) {                                                                      \
			fprintf(stderr, "child: %s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
			_exit(1);                                                                        \
		}                                                                                        \
	} while (0)

/* xorshift64*: a seeded random number. *state must not be 0. */
uint64_t random_next(uint64_t *state);
/* Lets some time pass, now and then a turn of others too, so that what a race test does next meets another moment each time. */
void pause_at_random(uint64_t *random);
/* The seed of a race test: from the environment variable LF_SEED, else a fixed one; printed. */
uint64_t test_seed(void);
/* How many rounds a race test runs: @rounds times the environment variable LF_STRESS (default 1), less under valgrind (LF_STRESS=0.1). */
long test_rounds(long rounds);

/* Prints a line that a TAP reader takes for a comment: what a race test hit and missed. */
void test_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends the program with a message when @seconds pass before the next call; 0 switches that off. For tests where a bug shows as a hang. */
void test_watchdog(unsigned seconds, const char *what);
/* Whether the build is one for a sanitizer, which makes each step many times slower and each stack frame larger. */
bool test_is_sanitized(void);

/*
 * Like assert_true(), for threads and callbacks: cmocka's leave by longjmp, which is possible only on the thread and in the frames of
 * the test.
 */
#define must(condition) ((condition) ? (void)0 : must_failed(__FILE__, __LINE__, #condition))
_Noreturn void must_failed(const char *file, int line, const char *condition);

/* --- Running ------------------------------------------------------------------------------------------------------------ */

/*
 * Setup and teardown of a cmocka test: capture the log and remember the live blocks; then check that no misuse was logged that the test did
 * not ask for with log_reset(), and that after lf_reclaim_barrier() as many blocks live as before.
 */
int test_setup(void **state);
int test_teardown(void **state);

#define TEST(function) cmocka_unit_test_setup_teardown(function, test_setup, test_teardown)

/* Runs a group as a program: installs the allocator, runs the tests, ends with lf_fini(). Returns the exit status. */
#define TEST_MAIN(tests) tests_run(#tests, tests, sizeof(tests) / sizeof((tests)[0]))
int tests_run(const char *name, const struct CMUnitTest *tests, size_t count);

#endif /* TESTING_H */
