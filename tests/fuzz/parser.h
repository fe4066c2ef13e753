/* SPDX-License-Identifier: MIT */
/*
 * What the targets of minigpu's parsers share: a text as a file, what the parser complains about, the memory that it has, and texts that
 * are made out of others.
 *
 * The parsers are linked with complain() and the functions for memory wrapped (meson.build), so that their sources are as they are.
 */
#ifndef FUZZ_PARSER_H
#define FUZZ_PARSER_H

#include "fuzz.h"

enum { COMPLAINTS_MAX = 16, COMPLAINT_SIZE = 400 };

/* What the parser said since parser_begin(). */
struct complaints {
	unsigned count; /* more than fit are counted only */
	char text[COMPLAINTS_MAX][COMPLAINT_SIZE];
};

extern struct complaints complaints;

/* Makes a text the contents of the file that parser_path() names, and forgets what was said. Returns how many blocks are allocated. */
long parser_begin(const void *text, size_t size);
const char *parser_path(void);
/* That all memory which was allocated since parser_begin() is free again. */
void parser_end(long blocks_before);

/* That a complaint is "path:LINE: expected ..."; returns the line. */
unsigned long complaint_line(unsigned i);

/* The next line of a text, as getline() would read it: up to '\n' or the end. Returns false behind the last. */
struct line {
	const char *text;
	size_t size; /* without '\n' */
};
bool next_line(const char **at, const char *end, struct line *ret_line);

/* A text that is printed. */
struct print {
	char *text;
	size_t size, room;
};
void print(struct print *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* One of the seeds, a little different. @tokens: what may be put in; ends with NULL. */
size_t parser_make(uint64_t *random, const struct fuzz_seeds *seeds, const char *const *tokens, uint8_t *bytes, size_t room);

/* For fuzz_target.dump: the text. */
void parser_dump(FILE *file);

#endif /* FUZZ_PARSER_H */
