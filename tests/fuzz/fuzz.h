/* SPDX-License-Identifier: MIT */
/*
 * What a fuzz target shares with the program that runs it: fuzz_main.c, or, with libFuzzer, fuzz_libfuzzer.c.
 *
 * A program is bytes. Whatever they are, they are a program; so a target never asks whether it was given a good one. What is wrong is found
 * by must(), which aborts.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "testing.h"

enum { FUZZ_HEAD = 16, FUZZ_OP = 8, FUZZ_MAX_OPS = 6000, FUZZ_MAX_SIZE = FUZZ_HEAD + FUZZ_MAX_OPS * FUZZ_OP, FUZZ_BATCH = 32 };

/* What a run has done. Lies in memory that a parent process shares. */
struct fuzz_progress {
	uint64_t program; /* the number of the one that runs */
	uint64_t steps; /* in it */
	uint64_t ops; /* in all programs */
	uint64_t count[64]; /* of each kind of operation, as the target numbers them */
	uint64_t hit[32]; /* what happened that might not have, as the target numbers it */
	uint64_t checks; /* whole states that were compared */
	bool failed;
};

extern struct fuzz_progress *fuzz_progress;

/* Programs to begin with: the files of a directory. */
struct fuzz_seeds {
	struct fuzz_seed {
		uint8_t *bytes;
		size_t size;
	} *seed;
	size_t count;
};

/*
 * A target. Programs are of operations (of FUZZ_OP bytes each, behind a head of FUZZ_HEAD, so that any of them may be cut out), or text,
 * of which any byte may.
 */
struct fuzz_target {
	bool text;
	long ops; /* to do when nothing else is said; of texts each is one */
	const char *const *kinds, *const *hits; /* names for what is counted; each ends with NULL */
	const char *checks; /* what fuzz_progress.checks counts, for people */
	/* Once before the first program. */
	void (*start)(void);
	void (*run)(const uint8_t *data, size_t size);
	/* Every FUZZ_BATCH programs, and at the end: waits for what they deferred, and checks that nothing is left of them. May be NULL. */
	void (*settle)(void);
	/* Writes what the program is that runs, and what it did last. */
	void (*dump)(FILE *file);
	/* Makes a text of at most @room bytes from random numbers, and returns its size. Only of texts. */
	size_t (*make)(uint64_t *random, const struct fuzz_seeds *seeds, uint8_t *bytes, size_t room);
};

extern const struct fuzz_target fuzz_target;

#endif /* FUZZ_H */
