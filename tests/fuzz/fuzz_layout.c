/* SPDX-License-Identifier: MIT */
/*
 * minigpu's parser of layouts beside a naive one.
 *
 * Oracle:
 * - a text is accepted exactly if the naive parser accepts it, which knows what layout_parse.c promises, and nothing of how it keeps that;
 * - what was read is the same, in the order of addresses;
 * - of what is wrong each line is named, up to a limit, and what was expected there: in the order of the file, then overlaps in the
 *   order of addresses. A line is one of the file, or the one behind its end;
 * - what was read, printed and read again, is the same;
 * - no memory is left.
 */
#include "parser.h"

#include <inttypes.h>

#include "layout.h"

enum { SHOWN = 10 };

/* --- The naive parser ------------------------------------------------------------------------------------------------------- */

struct range {
	uint64_t first, last; /* bytes; the last one included */
	struct line name;
	size_t line;
};

static struct {
	struct range range[FUZZ_MAX_SIZE / 4]; /* by address */
	size_t count;
	size_t mistake[SHOWN]; /* lines */
	size_t mistakes, lines;
} model;

static void wrong(size_t line)
{
	if (model.mistakes < SHOWN)
		model.mistake[model.mistakes] = line;
	model.mistakes++;
}

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

/* Takes a number from the beginning of what is left of a line. */
static bool number(struct line *rest, uint64_t *ret_value)
{
	bool prefix = rest->size > 2 && rest->text[0] == '0' && (rest->text[1] == 'x' || rest->text[1] == 'X');
	int base = prefix && digit_of(rest->text[2]) < 16 ? 16 : 10;
	size_t at = base == 16 ? 2 : 0, begin = at;
	uint64_t value = 0;
	for (; at < rest->size && digit_of(rest->text[at]) < base; at++) {
		uint64_t digit = (uint64_t)digit_of(rest->text[at]);
		if (value > (UINT64_MAX - digit) / (uint64_t)base)
			return false;
		value = value * (uint64_t)base + digit;
	}
	*ret_value = value;
	*rest = (struct line){ rest->text + at, rest->size - at };
	return at > begin;
}

static bool comma(struct line *rest)
{
	if (rest->size == 0 || rest->text[0] != ',')
		return false;
	*rest = (struct line){ rest->text + 1, rest->size - 1 };
	return true;
}

static bool parse_range(struct line rest, struct range *r)
{
	uint64_t size;
	if (!number(&rest, &r->first) || !comma(&rest) || !number(&rest, &size) || (rest.size != 0 && !comma(&rest)))
		return false;
	r->name = rest;
	r->last = r->first + (size - 1);
	return r->first % LAYOUT_GRANULE == 0 && size % LAYOUT_GRANULE == 0 && size != 0 && r->last >= r->first;
}

/* Behind all that do not begin later. */
static void insert(const struct range *r)
{
	size_t at = model.count++;
	for (; at > 0 && model.range[at - 1].first > r->first; at--)
		model.range[at] = model.range[at - 1];
	model.range[at] = *r;
}

static bool is_header(struct line line)
{
	static const char *const headers[] = { "iova,size", "iova,size,name" };
	for (size_t i = 0; i < 2; i++) {
		if (line.size == strlen(headers[i]) && memcmp(line.text, headers[i], line.size) == 0)
			return true;
	}
	return false;
}

static void parse_line(struct line line, size_t n)
{
	struct range r = { .line = n };
	if (line.size != 0 && line.text[line.size - 1] == '\r')
		line.size--;
	if (memchr(line.text, '\0', line.size) != NULL) {
		wrong(n);
	} else if (n == 1) {
		if (!is_header(line))
			wrong(1);
	} else if (line.size != 0) {
		if (parse_range(line, &r))
			insert(&r);
		else
			wrong(n);
	}
}

/* A range is wrong when one that begins before it, or in the same place, reaches into it: of the two, the one that comes later. */
static void find_overlaps(void)
{
	for (size_t i = 1; i < model.count; i++) {
		const struct range *r = &model.range[i], *furthest = &model.range[0];
		for (size_t k = 1; k < i; k++)
			furthest = model.range[k].last > furthest->last ? &model.range[k] : furthest;
		if (furthest->last >= r->first)
			wrong(furthest->line > r->line ? furthest->line : r->line);
	}
}

static void parse(const char *text, size_t size)
{
	const char *at = text;
	struct line line;
	model.count = model.mistakes = model.lines = 0;
	while (next_line(&at, text + size, &line))
		parse_line(line, ++model.lines);
	if (model.lines == 0)
		wrong(1);
	else if (model.count == 0 && model.mistakes == 0)
		wrong(model.lines + 1);
	find_overlaps();
}

/* --- Comparing --------------------------------------------------------------------------------------------------------------- */

static void check_complaints(void)
{
	size_t shown = model.mistakes < SHOWN ? model.mistakes : SHOWN;
	must(complaints.count == shown + (model.mistakes > SHOWN));
	for (unsigned i = 0; i < shown; i++) {
		unsigned long line = complaint_line(i);
		must(line == model.mistake[i] && line <= model.lines + 1);
	}
	if (model.mistakes > SHOWN)
		must(strstr(complaints.text[SHOWN], ": more mistakes are not shown") != NULL);
}

static void check_range(const struct range *r, const struct layout_line *line, bool same_line)
{
	must(line->iova == r->first && line->iova + (line->size - 1) == r->last);
	must(strlen(line->name) == r->name.size && memcmp(line->name, r->name.text, r->name.size) == 0);
	must(!same_line || line->line == r->line);
}

static void check_layout(const struct layout *l, bool same_lines)
{
	must(l->count == model.count);
	for (size_t i = 0; i < l->count; i++)
		check_range(&model.range[i], &l->lines[i], same_lines);
	fuzz_progress->checks++;
}

/* Printed in another way, and not in the order of the file. */
static void print_layout(struct print *p, const struct layout *l)
{
	print(p, "iova,size,name\n");
	for (size_t i = 0; i < l->count; i++)
		print(p, "0x%" PRIX64 ",%" PRIu64 ",%s\r\n\n", l->lines[i].iova, l->lines[i].size, l->lines[i].name);
}

static void read_again(const struct print *p)
{
	struct layout again;
	long before = parser_begin(p->text, p->size);
	must(layout_read(&again, parser_path()));
	must(complaints.count == 0);
	check_layout(&again, false);
	layout_free(&again);
	parser_end(before);
}

/* --- The target -------------------------------------------------------------------------------------------------------------- */

enum hit { ACCEPTED, REFUSED, MANY };

static const char *const hits[] = { "accepted", "refused", "with too many mistakes", NULL };

static struct print printed;

static void run(const uint8_t *data, size_t size)
{
	struct layout l;
	if (size > FUZZ_MAX_SIZE)
		return;
	parse((const char *)data, size);
	long before = parser_begin(data, size);
	bool accepted = layout_read(&l, parser_path());
	check_complaints();
	must(accepted == (model.mistakes == 0));
	check_layout(&l, true);
	printed.size = 0;
	if (accepted)
		print_layout(&printed, &l);
	layout_free(&l);
	parser_end(before);
	if (accepted)
		read_again(&printed);
	fuzz_progress->hit[accepted ? ACCEPTED : REFUSED]++;
	fuzz_progress->hit[MANY] += model.mistakes > SHOWN;
}

static size_t make(uint64_t *random, const struct fuzz_seeds *seeds, uint8_t *bytes, size_t room)
{
	static const char *const tokens[] = { "iova,size", "iova,size,name", "0x", "\r\n", "\n", ",", "4096", ",4096,", "0x1000,4096\n",
		NULL };
	return parser_make(random, seeds, tokens, bytes, room);
}

static void start(void)
{
	print(&printed, "%s", ""); /* so that its memory is there before a parser's is counted */
}

const struct fuzz_target fuzz_target = {
	.text = true,
	.ops = 20000,
	.hits = hits,
	.checks = "layouts compared",
	.start = start,
	.run = run,
	.dump = parser_dump,
	.make = make,
};
