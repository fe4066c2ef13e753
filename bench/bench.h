/* SPDX-License-Identifier: MIT */
/*
 * What the benchmarks share: pinning, interleaved repeats, medians, ratios, JSON.
 *
 * A *case* is one row of a table of budgets: one thing to do, and the implementations that do it, libfence first. A *repeat* runs every
 * implementation of the case once, in turn, so that whatever drifts (clock rate, neighbours, caches of the host) hits all alike; the
 * ratio is taken inside each repeat, and its median is what a budget is compared with. Times are medians over the repeats too, and the
 * spread is the 90th percentile over the 10th. A case whose spread is over BENCH_NOISY is measured again, a few times at most, and the
 * calmest measurement counts.
 *
 * An implementation is a function that prepares outside, works between bench_start() and bench_stop() (as often as it likes in one run),
 * and checks that what it timed has really happened (BENCH_CHECK): a benchmark of a broken operation is worth nothing.
 */
#ifndef BENCH_H
#define BENCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define BENCH_MAX_IMPLS 6
#define BENCH_NOISY     1.3

#define BENCH_MAX_THREADS 16 /* of bench_share() */

/* Which time a case is measured in. */
enum bench_clock {
	/* CPU time of the calling thread: for work that never sleeps. What other processes take is no cost of the operation. */
	BENCH_THREAD_TIME,
	/* CPU time of all threads of the process: for threads that hand over to each other on one CPU, where it is the time that passes. */
	BENCH_PROCESS_TIME,
	/* What passes on the wall: for threads on different CPUs that wait for each other. */
	BENCH_WALL_TIME,
	/* None: the function finds out a number that is the same each time, such as a size, and says it with bench_value(). Run once. */
	BENCH_NO_TIME,
};

/* One run of one implementation. */
struct bench_run {
	size_t n; /* how many operations to time; the function may lower it to what it did */
	int param; /* the case's */
	int64_t reclaim_ns; /* the function may add what it took to drain deferred frees, outside the timed sections */
	/* the harness's own: */
	enum bench_clock clock;
	int64_t started;
	int64_t ns;
};

struct bench_impl {
	const char *name;
	void (*run)(struct bench_run *run); /* NULL: not in this build, left out */
};

struct bench_case {
	const char *name;
	enum bench_clock clock;
	int cpus; /* how many it needs; left out where there are fewer */
	int param; /* for the functions */
	size_t step; /* n is a multiple of this */
	size_t max_n; /* and at most this; 0: as many as fill the time of a run */
	bool scaling; /* of the tables of --scaling: the name ends with ", NUMBER WHAT", and WHAT is what the number counts */
	size_t size; /* how many of something it makes first, if that takes long: over 1,000,000 not with --quick, over 100,000 not with --smoke */
	size_t repeats; /* at most so many, and no second attempt; 0: as many as the others have */
	int64_t stretch; /* a run lasts so many times longer; 0: once */
	size_t memory; /* left out, with a message, where less is free, in bytes; 0: anywhere */
	const char *peer; /* the implementation that the first one is compared with; NULL: none */
	double max_ratio; /* budget as a multiple of the peer; 0: none */
	bool calls; /* that budget is about what a call takes, so it is not judged with --ratios-only either */
	double max_ns; /* budget in nanoseconds (or units), where the peer is none; 0: none */
	const char *unit; /* of a case without time; NULL: ns */
	struct bench_impl impls[BENCH_MAX_IMPLS]; /* libfence's first */
};

/*
 * Runs the cases of a table. Options: --quick, --smoke (each implementation once, with as little as it can do: whether it works at all),
 * --scaling (the cases that are marked so, else those that are not), --ratios-only (budgets of nanoseconds are not judged), --json FILE,
 * --case TEXT (only cases with this in their name), --tag TEXT (put behind every implementation's name). Returns the exit status; budgets
 * that are not met are no failure.
 */
int bench_main(int argc, char **argv, const char *table, const struct bench_case *cases, size_t count);

/* Time passes from here ... */
void bench_start(struct bench_run *run);
/* ... to here. */
void bench_stop(struct bench_run *run);
int64_t bench_wall_ns(void);
/* A pseudo-random number, the same ones in each run. For one thread. */
uint64_t bench_draw(void);
/* What a run without time found out. */
void bench_value(struct bench_run *run, int64_t value);

/*
 * A run of n pairs of pthread_mutex_lock() and unlock(): the anchor for budgets that were stated against code which is not here. Such a
 * budget becomes a number of mutex pairs by the figures of the machine where both were measured.
 */
void bench_mutex_pairs(struct bench_run *run);
#define BENCH_MUTEX        "mutex pair"
#define BENCH_IN_PAIRS(ns) ((ns) / 18.0) /* a pair took 18 ns there */

/* Starts a thread on one of the CPUs that bench_main() chose: 0 is the caller's, 1 the other. */
pthread_t bench_thread(void *(*fn)(void *), void *arg, int cpu);
void bench_join(pthread_t thread);

/*
 * A run of n operations that run->param threads share, on the two CPUs in turn: each calls work with the part that is its own, and an
 * index. They begin together, and time passes until the last one is done; so what comes out is the wall time for one operation of all.
 */
void bench_share(struct bench_run *run, void (*work)(void *arg, size_t n, size_t thread), void *arg);
/* More threads than CPUs take turns, so a run is long enough for several of these. */
#define BENCH_SHARED(threads, need) \
	.clock = BENCH_WALL_TIME, .cpus = need, .param = threads, .step = 64 * (threads), .stretch = 10 + 2 * (threads)

/* Allocates or ends the program. */
void *bench_alloc(size_t size);

#define BENCH_CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: benchmark is broken: %s\n", __FILE__, __LINE__, #condition); \
			exit(2); \
		} \
	} while (0)

#endif
