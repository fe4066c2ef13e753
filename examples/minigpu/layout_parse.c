/* SPDX-License-Identifier: MIT */
/*
 * Text of a layout -> ranges.
 *
 * A header line, `iova,size` or `iova,size,name`, then a line a buffer: two numbers, decimal or with 0x, and what follows them up to the
 * end of the line is the name. Lines may end with CR LF; empty ones are passed over.
 *
 * Not here: what becomes of it (layout.c).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "layout.h"
#include "util.h"

#define MAX_COMPLAINTS 10

struct parser {
	struct layout *layout;
	size_t line;
	size_t mistakes;
};

static void mistake(struct parser *p, size_t line, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void mistake(struct parser *p, size_t line, const char *format, ...)
{
	char message[256];
	va_list args;

	if (p->mistakes++ == MAX_COMPLAINTS)
		complain("%s: more mistakes are not shown", p->layout->path);
	if (p->mistakes > MAX_COMPLAINTS)
		return;
	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	complain("%s:%zu: %s", p->layout->path, line, message);
}

/* --- Lines -------------------------------------------------------------------------------------------------------------- */

/* @return whether a number stands at *@at, which is then moved behind it. */
static bool take_number(const char **at, uint64_t *ret_number)
{
	char *end;

	if (**at < '0' || **at > '9')
		return false;
	errno = 0;
	*ret_number = strtoull(*at, &end, (*at)[0] == '0' && ((*at)[1] | 0x20) == 'x' ? 16 : 10);
	*at = end;
	return !errno;
}

static bool take_comma(const char **at)
{
	bool found = **at == ',';

	*at += found;
	return found;
}

static bool check_range(struct parser *p, const struct layout_line *line)
{
	if (line->iova % LAYOUT_GRANULE)
		mistake(p, p->line, "expected an iova that is a multiple of %d, not 0x%" PRIx64, LAYOUT_GRANULE, line->iova);
	else if (!line->size || line->size % LAYOUT_GRANULE)
		mistake(p, p->line, "expected a size that is a multiple of %d and not 0, not %" PRIu64, LAYOUT_GRANULE, line->size);
	else if (line->iova + (line->size - 1) < line->iova)
		mistake(p, p->line, "expected a range within 64 bits, not 0x%" PRIx64 " and %" PRIu64 " bytes", line->iova, line->size);
	else
		return true;
	return false;
}

static void parse_buffer(struct parser *p, const char *text)
{
	struct layout *l = p->layout;
	struct layout_line line = { .line = p->line };
	const char *at = text;

	if (!take_number(&at, &line.iova) || !take_comma(&at)) {
		mistake(p, p->line, "expected an iova and ',', as in 0x10372f000,4096, not '%.60s'", text);
		return;
	}
	if (!take_number(&at, &line.size) || (*at && !take_comma(&at))) {
		mistake(p, p->line, "expected a size behind the iova, as in 0x10372f000,4096, not '%.60s'", text);
		return;
	}
	if (!check_range(p, &line))
		return;
	line.name = copy_string(at);
	l->lines = grow(l->lines, l->count, &l->capacity, sizeof(*l->lines));
	l->lines[l->count++] = line;
}

/* Cuts off what ends a line. @return false when a NUL stands in it, behind which nobody would look. */
static bool cut_line(char *text, size_t length)
{
	length -= length && text[length - 1] == '\n';
	length -= length && text[length - 1] == '\r';
	text[length] = '\0';
	return strlen(text) == length;
}

static void parse_line(struct parser *p, char *text, size_t length)
{
	if (!cut_line(text, length)) {
		mistake(p, p->line, "expected text, not a NUL byte");
	} else if (p->line == 1) {
		if (strcmp(text, "iova,size") && strcmp(text, "iova,size,name"))
			mistake(p, 1, "expected the header iova,size or iova,size,name, not '%.60s'", text);
	} else if (*text) {
		parse_buffer(p, text);
	}
}

/* --- The whole ---------------------------------------------------------------------------------------------------------- */

static int compare_lines(const void *a, const void *b)
{
	const struct layout_line *x = a;
	const struct layout_line *y = b;

	if (x->iova != y->iova)
		return x->iova < y->iova ? -1 : 1;
	return (x->line > y->line) - (x->line < y->line);
}

/* The line that comes later in the file is the one that is wrong. */
static void complain_overlap(struct parser *p, const struct layout_line *a, const struct layout_line *b)
{
	const struct layout_line *later = a->line > b->line ? a : b;
	const struct layout_line *earlier = a->line > b->line ? b : a;

	mistake(p, later->line, "expected a range of its own, not one with 0x%" PRIx64 ", which belongs to line %zu", b->iova,
		earlier->line);
}

/* Each is held against the one before it that reaches furthest. */
static void check_overlaps(struct parser *p)
{
	const struct layout *l = p->layout;
	const struct layout_line *reach = l->lines;

	for (size_t i = 1; i < l->count; i++) {
		const struct layout_line *line = &l->lines[i];

		if (reach->iova + (reach->size - 1) >= line->iova)
			complain_overlap(p, reach, line);
		if (line->iova + (line->size - 1) > reach->iova + (reach->size - 1))
			reach = line;
	}
}

static bool read_lines(struct parser *p, FILE *file)
{
	char *text = NULL;
	size_t capacity = 0;
	ssize_t length;
	bool failed;

	errno = 0;
	while ((length = getline(&text, &capacity, file)) >= 0) {
		p->line++;
		parse_line(p, text, (size_t)length);
	}
	failed = ferror(file);
	if (failed)
		complain("%s: %s", p->layout->path, strerror(errno));
	free(text);
	return !failed;
}

bool layout_read(struct layout *l, const char *path)
{
	struct parser p = { .layout = l };
	FILE *file = fopen(path, "r");
	bool read;

	*l = (struct layout){ .path = path };
	if (!file) {
		complain("%s: %s", path, strerror(errno));
		return false;
	}
	read = read_lines(&p, file);
	fclose(file);
	if (!read)
		return false;
	if (!p.line)
		mistake(&p, 1, "expected the header iova,size or iova,size,name, not the end of the file");
	else if (!l->count && !p.mistakes)
		mistake(&p, p.line + 1, "expected a buffer, as in 0x10372f000,4096, not the end of the file");
	if (l->count)
		qsort(l->lines, l->count, sizeof(*l->lines), compare_lines);
	check_overlaps(&p);
	return !p.mistakes;
}

void layout_free(struct layout *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->lines[i].name);
	free(l->lines);
}
