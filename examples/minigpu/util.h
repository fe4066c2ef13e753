/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Small things: messages, memory that cannot fail, percentiles, numbers as people read them.
 *
 * An example may end the process when memory runs out; the library never does.
 */
#ifndef MINIGPU_UTIL_H
#define MINIGPU_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/** Prints "minigpu: message" on stderr, above the progress line if there is one. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** Like complain(), and exits with status 1. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/** die()s when @p error, the result of a call of the library that only fails for want of memory or threads, is not 0. */
void must(int error, const char *what);

/** Shows a line that the next one overwrites, at most ten times a second; nothing when stderr is no terminal. */
void progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** Takes the progress line away. */
void progress_end(void);

/** @return zeroed memory for @p count elements of @p size bytes. */
void *allocate(size_t count, size_t size);

/** @return @p array with room for one element more than @p count; @p capacity follows. */
void *grow(void *array, size_t count, size_t *capacity, size_t size);

/** A copy of a string. */
char *copy_string(const char *text);

struct lf_fence;

/** Puts the fence in a variable, if there is one. @p fence is consumed. */
void replace_fence(struct lf_fence **place, struct lf_fence *fence);

/** @return whether a fence, which may be NULL, has signaled without error. */
bool succeeded(const struct lf_fence *fence);

/** Durations in nanoseconds, from which percentiles are asked. */
struct samples {
	int64_t *values;
	size_t count;
	size_t capacity;
};

void samples_add(struct samples *s, int64_t value);
void samples_append(struct samples *s, const struct samples *more);

/** Sorts, and @return the value that @p percent of the samples do not exceed (nearest rank); -1 when there is none. */
int64_t samples_percentile(struct samples *s, unsigned percent);
void samples_free(struct samples *s);

/** Text for people, in the caller's buffer. */
struct text {
	char chars[64];
};

/** @return a duration as in "3.58 ms"; "-" for a negative one. */
struct text duration_text(int64_t ns);

/** @return a size as in "16.0 MiB". */
struct text size_text(uint64_t bytes);

/** @return what makes a noun the plural that goes with @p count. */
const char *plural(uint64_t count);

/** The kinds of quoting that the outputs need. */
enum quoting { QUOTE_XML, QUOTE_JSON };

/** Writes a string of unknown origin (a file name, a task) so that the output stays well-formed: what is not UTF-8 becomes U+FFFD. */
void write_quoted(FILE *out, const char *text, enum quoting quoting);

#endif /* MINIGPU_UTIL_H */
