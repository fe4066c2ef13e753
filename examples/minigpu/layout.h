/* SPDX-License-Identifier: MIT */
/**
 * @file
 * A list of buffers and where they are.
 */
#ifndef MINIGPU_LAYOUT_H
#define MINIGPU_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LAYOUT_GRANULE 4096

/** A line of the file. */
struct layout_line {
	uint64_t iova;
	uint64_t size;
	char *name; /**< "" when there is none */
	size_t line; /**< from 1 */
};

/** The file. */
struct layout {
	const char *path;
	struct layout_line *lines; /**< by address */
	size_t count;
	size_t capacity;
};

/**
 * Reads a file and checks that its ranges are whole granules and apart from each other.
 *
 * @return whether all is well; else each mistake was named, as path:line.
 */
bool layout_read(struct layout *l, const char *path);

/** Whatever layout_read() has returned. */
void layout_free(struct layout *l);

#endif /* MINIGPU_LAYOUT_H */
