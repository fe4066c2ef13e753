/* SPDX-License-Identifier: MIT */
/**
 * @file
 * `--chaos`: what nobody asked for, at random times. One seed, one run (but for the threads of the engines).
 */
#ifndef MINIGPU_CHAOS_H
#define MINIGPU_CHAOS_H

#include <stdbool.h>
#include <stdint.h>

struct driver;

/** The generator, and what it did. */
struct chaos {
	bool on;
	uint64_t state;
	uint64_t evictions, rebinds, closes;
};

void chaos_init(struct chaos *c, bool on, uint64_t seed);

/** @return true one time in @p n, when there is chaos. */
bool chaos_strikes(struct chaos *c, uint64_t n);

/** Between two chunks: evicts, unbinds and binds again, reaps. */
void chaos_step(struct driver *d);

/** When an engine is lost: at this run of it, 0 for never. One seed in ten loses the copy engine, which is the end of the device. */
uint64_t chaos_lose_at(uint64_t seed, unsigned engine);

#endif /* MINIGPU_CHAOS_H */
