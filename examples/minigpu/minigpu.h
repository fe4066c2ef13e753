/* SPDX-License-Identifier: MIT */
/**
 * @file
 * What the commands of minigpu share: the options of the command line.
 */
#ifndef MINIGPU_H
#define MINIGPU_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <libfence/libfence.h>

#define NS_PER_MS 1000000LL
#define NS_PER_S  1000000000LL

/** The command line, checked. */
struct options {
	uint64_t vram; /**< bytes of device memory of `hash` */
	uint32_t hang_every; /**< every nth run of each engine hangs; 0 for never */
	uint64_t lose_engine_at; /**< the first digest engine (hash) or ring (replay) is lost at this run; 0 for never */
	uint64_t seed; /**< of the random faults */
	bool faults; /**< a mild mix of lost, late and reordered interrupts, and refused locks */
	bool chaos; /**< hash: all of that, hangs and lost engines, and memory that is evicted, unbound and closed at random */
	uint64_t repeat; /**< hash: how often at least */
	uint64_t minutes; /**< hash: for how long at least */
	bool strict; /**< replay: stop at the first malformed line */
	double speed; /**< replay: 0 for a virtual clock, else how many times faster than recorded */
	FILE *trace; /**< where the timeline goes, or NULL */
	FILE *svg; /**< where the picture goes, or NULL */
};

/** What goes wrong on an engine, as the options say; @p first: the engine that --lose-engine-at is about. */
struct lf_queue_faults options_faults(const struct options *options, unsigned engine, bool first);

/** How long a job may run, in nanoseconds, before its engine is reset: short where faults are asked for, so that they stay bearable. */
int64_t options_timeout(const struct options *options);

/** The commands. @return the exit status. */
int hash_command(const struct options *options, int count, char **names);
int replay_command(const struct options *options, const char *path);
int layout_command(const char *path);

#endif /* MINIGPU_H */
