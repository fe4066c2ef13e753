/* SPDX-License-Identifier: MIT */
/* Messages, memory, fences, percentiles, numbers as people read them. */
#include "util.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libfence/fence.h>

#define PROGRESS_INTERVAL 100000000 /* ns */

static bool progress_shown; /* protected by the lock of stderr, since engines may complain too */

/* --- Messages ----------------------------------------------------------------------------------------------------------- */

static void clear_progress(void)
{
	if (progress_shown)
		fputs("\r\033[K", stderr);
	progress_shown = false;
}

static void print_message(const char *format, va_list args)
{
	flockfile(stderr);
	clear_progress();
	fputs("minigpu: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	funlockfile(stderr);
}

void complain(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_message(format, args);
	va_end(args);
}

void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_message(format, args);
	va_end(args);
	exit(EXIT_FAILURE);
}

void must(int error, const char *what)
{
	if (error)
		die("%s: %s", what, strerror(-error));
}

void progress(const char *format, ...)
{
	static int64_t last; /* one thread shows progress */
	int64_t now = lf_now();
	va_list args;

	if (!isatty(STDERR_FILENO) || now - last < PROGRESS_INTERVAL)
		return;
	last = now;
	flockfile(stderr);
	clear_progress();
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	progress_shown = true;
	fflush(stderr);
	funlockfile(stderr);
}

void progress_end(void)
{
	flockfile(stderr);
	clear_progress();
	funlockfile(stderr);
}

/* --- Memory ------------------------------------------------------------------------------------------------------------- */

void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count ? count : 1, size);

	if (!memory)
		die("out of memory");
	return memory;
}

void *grow(void *array, size_t count, size_t *capacity, size_t size)
{
	if (count < *capacity)
		return array;
	*capacity = *capacity ? *capacity * 2 : 64;
	array = realloc(array, *capacity * size);
	if (!array)
		die("out of memory");
	return array;
}

char *copy_string(const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		die("out of memory");
	return copy;
}

/* --- Fences ------------------------------------------------------------------------------------------------------------- */

void replace_fence(struct lf_fence **place, struct lf_fence *fence)
{
	lf_fence_put(*place);
	*place = fence;
}

bool succeeded(const struct lf_fence *fence)
{
	return fence && lf_fence_status(fence) == 1;
}

/* --- Percentiles -------------------------------------------------------------------------------------------------------- */

void samples_add(struct samples *s, int64_t value)
{
	s->values = grow(s->values, s->count, &s->capacity, sizeof(*s->values));
	s->values[s->count++] = value;
}

void samples_append(struct samples *s, const struct samples *more)
{
	for (size_t i = 0; i < more->count; i++)
		samples_add(s, more->values[i]);
}

static int compare_int64(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a;
	int64_t y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int64_t samples_percentile(struct samples *s, unsigned percent)
{
	size_t rank = (s->count * percent + 99) / 100;

	if (!s->count)
		return -1;
	qsort(s->values, s->count, sizeof(*s->values), compare_int64);
	return s->values[rank ? rank - 1 : 0];
}

void samples_free(struct samples *s)
{
	free(s->values);
	*s = (struct samples){ 0 };
}

/* --- Numbers ------------------------------------------------------------------------------------------------------------ */

/* Three digits that count, as in 3.58, 41.2 and 693. */
static void print_three_digits(struct text *text, double value, const char *unit)
{
	int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;

	snprintf(text->chars, sizeof(text->chars), "%.*f %s", decimals, value, unit);
}

struct text duration_text(int64_t ns)
{
	struct text text = { "-" };

	if (ns >= 999500000)
		print_three_digits(&text, (double)ns / 1e9, "s");
	else if (ns >= 999500)
		print_three_digits(&text, (double)ns / 1e6, "ms");
	else if (ns >= 1000)
		print_three_digits(&text, (double)ns / 1e3, "us");
	else if (ns >= 0)
		snprintf(text.chars, sizeof(text.chars), "%" PRId64 " ns", ns);
	return text;
}

struct text size_text(uint64_t bytes)
{
	struct text text;

	if (bytes >= 1 << 30)
		print_three_digits(&text, (double)bytes / (1 << 30), "GiB");
	else if (bytes >= 1 << 20)
		print_three_digits(&text, (double)bytes / (1 << 20), "MiB");
	else if (bytes >= 1 << 10)
		print_three_digits(&text, (double)bytes / (1 << 10), "KiB");
	else
		snprintf(text.chars, sizeof(text.chars), "%" PRIu64 " B", bytes);
	return text;
}

const char *plural(uint64_t count)
{
	return count == 1 ? "" : "s";
}

/* --- Quoting ------------------------------------------------------------------------------------------------------------ */

/* How many bytes the UTF-8 character at @s has; 0 when it is none, or one that XML does not allow. */
static size_t utf8_length(const unsigned char *s)
{
	uint32_t code;
	size_t length = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;

	if (length == 1)
		return s[0] >= 0x20 && s[0] != 0x7f;
	if (!length)
		return 0;
	code = s[0] & (0xffu >> (length + 1));
	for (size_t i = 1; i < length; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3f);
	}
	if ((length == 3 && code < 0x800) || (length == 4 && (code < 0x10000 || code > 0x10ffff)))
		return 0;
	return (code >= 0xd800 && code < 0xe000) || (code & 0xfffe) == 0xfffe ? 0 : length;
}

static const char *escape(char c, enum quoting quoting)
{
	if (quoting == QUOTE_JSON)
		return c == '"' ? "\\\"" : c == '\\' ? "\\\\" : NULL;
	switch (c) {
	case '&':
		return "&amp;";
	case '<':
		return "&lt;";
	case '>':
		return "&gt;";
	case '"':
		return "&quot;";
	default:
		return NULL;
	}
}

void write_quoted(FILE *out, const char *text, enum quoting quoting)
{
	while (*text) {
		size_t length = utf8_length((const unsigned char *)text);
		const char *escaped = escape(*text, quoting);

		if (!length)
			fputs("\xef\xbf\xbd", out);
		else if (escaped)
			fputs(escaped, out);
		else
			fwrite(text, 1, length, out);
		text += length ? length : 1;
	}
}
