/* SPDX-License-Identifier: MIT */
/*
 * What a fuzz target shares with the program that runs it where there is no libFuzzer (fuzz_main.c).
 *
 * A program is bytes: a head, and operations of a fixed size, so that any part of it may be cut out. Whatever the bytes are, it is a
 * program; so a target never asks whether it was given a good one. What is wrong is found by must(), which aborts.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "testing.h"

enum { FUZZ_HEAD = 16, FUZZ_OP = 8, FUZZ_MAX_OPS = 6000, FUZZ_BATCH = 32 };

/* What a run has done. Lies in memory that a parent process shares. */
struct fuzz_progress {
	uint64_t program; /* the number of the one that runs */
	uint64_t steps; /* in it */
	uint64_t ops; /* in all programs */
	uint64_t count[64]; /* of each kind of operation, as the target numbers them */
	uint64_t hit[32]; /* what happened that might not have, as the target numbers it */
	uint64_t checks; /* whole versions that were compared */
	bool failed;
};

extern struct fuzz_progress *fuzz_progress;

/* The target: libFuzzer's name for it. Runs one program; every FUZZ_BATCH of them it settles. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Names of the kinds of operations, and of what is counted in hit; each ends with NULL. */
extern const char *const fuzz_kinds[], *const fuzz_hits[];
/* Once before the first program. */
void fuzz_start(void);
/* Waits until all that programs deferred has happened, and checks that nothing is left of them. */
void fuzz_settle(void);
/* Writes what a program is, and the last operations of the one that runs. */
void fuzz_dump(FILE *file);

#endif /* FUZZ_H */
