/* SPDX-License-Identifier: MIT */
/*
 * minigpu's parser of kernel traces.
 *
 * Oracle, of any text:
 * - each line is an event, an event that is none of ours, a header, or malformed, and is counted as that;
 * - malformed lines are named in order, up to a limit, with what was expected there; a strict read ends with the first of them, and has
 *   what stands before it;
 * - events are in the order of their times, those of one time in the order of the file; what an event says stands in its line;
 * - events, printed as trace-cmd or as ftrace would and read again, are the same, and so is the text with CR LF at the ends of its lines;
 * - no memory is left.
 *
 * Besides, each text stands for a trace whose events are known before, printed in any way that trace_parse.c says it reads, with lines in
 * between that are none: it is read as these events.
 */
#include "parser.h"

#include <inttypes.h>

#include "trace_parse.h"

enum { SHOWN = 10, MADE_MAX = 24 };

static struct print printed, converted;

/* --- Lines ------------------------------------------------------------------------------------------------------------------- */

/* A text, by lines. */
static struct {
	struct line line[FUZZ_MAX_SIZE + 1]; /* from 1 */
	size_t count, headers;
	size_t malformed[SHOWN]; /* lines that were complained about */
} text;

static bool begins(struct line line, const char *with)
{
	return line.size >= strlen(with) && memcmp(line.text, with, strlen(with)) == 0;
}

static bool is_blank(struct line line)
{
	for (size_t i = 0; i < line.size; i++) {
		if (strchr(" \t\r", line.text[i]) == NULL || line.text[i] == '\0')
			return false;
	}
	return true;
}

static bool is_header(struct line line)
{
	static const char *const beginnings[] = { "#", "cpus=", "version = ", "CPU ", "CPU:", "trace-cmd", "tracer:", NULL };
	bool header = is_blank(line);
	for (size_t i = 0; beginnings[i] != NULL; i++)
		header = header || begins(line, beginnings[i]);
	return header && memchr(line.text, '\0', line.size) == NULL;
}

static void split(const char *bytes, size_t size)
{
	const char *at = bytes;
	text.count = text.headers = 0;
	while (next_line(&at, bytes + size, &text.line[text.count + 1])) {
		text.count++;
		text.headers += is_header(text.line[text.count]);
	}
}

/* Whether a line has some words in it. */
static bool has(const struct line *line, const char *words)
{
	return memmem(line->text, line->size, words, strlen(words)) != NULL;
}

static bool has_number(const struct line *line, uint64_t number)
{
	char digits[24];
	snprintf(digits, sizeof(digits), "%" PRIu64, number);
	return has(line, digits);
}

/* --- What must be true of any trace ------------------------------------------------------------------------------------------ */

static const char *string_of(const struct trace *t, uint32_t string)
{
	must(string < t->string_count);
	return t->strings[string];
}

/* Names of events by kind; each ends with NULL. */
static const char *const names[TRACE_KINDS][8] = {
	[TRACE_SUBMIT] = { "amdgpu_cs_ioctl", "drm_sched_job_queue" },
	[TRACE_RUN] = { "amdgpu_sched_run_job", "drm_sched_job_run" },
	[TRACE_DONE] = { "drm_sched_job_done" },
	[TRACE_SIGNALED] = { "dma_fence_signaled" },
	[TRACE_FENCE] = { "dma_fence_init", "dma_fence_emit", "dma_fence_destroy", "dma_fence_enable_signal", "dma_fence_wait_start",
		"dma_fence_wait_end" },
	[TRACE_DEPENDENCY] = { "drm_sched_job_add_dep", "drm_sched_job_unschedulable" },
};

static bool is_named(const struct line *line, enum trace_kind kind)
{
	for (size_t i = 0; names[kind][i] != NULL; i++) {
		if (has(line, names[kind][i]))
			return true;
	}
	return false;
}

static void check_event(const struct trace *t, const struct trace_event *e)
{
	must(e->line >= 1 && e->line <= text.count && (unsigned)e->kind < TRACE_KINDS);
	const struct line *line = &text.line[e->line];
	must(!is_header(*line) && is_named(line, e->kind));
	must(e->time >= 0 && has_number(line, (uint64_t)e->time / 1000000000));
	must(has_number(line, e->context) && has_number(line, e->seqno));
	must(e->kind != TRACE_DEPENDENCY || (has_number(line, e->on_context) && has_number(line, e->on_seqno)));
	must(has(line, string_of(t, e->ring)) && has(line, string_of(t, e->driver)));
	must((e->ring != 0) == (e->kind != TRACE_DONE && e->kind != TRACE_DEPENDENCY));
}

static void check_events(const struct trace *t)
{
	size_t kinds[TRACE_KINDS] = { 0 };
	for (size_t i = 0; i < t->count; i++) {
		const struct trace_event *e = &t->events[i], *before = e - 1;
		check_event(t, e);
		must(i == 0 || before->time < e->time || (before->time == e->time && before->line < e->line));
		kinds[e->kind]++;
	}
	must(memcmp(kinds, t->per_kind, sizeof(kinds)) == 0);
}

static void check_strings(const struct trace *t)
{
	must(t->string_count >= 1 && t->strings[0][0] == '\0');
	for (size_t i = 1; i < t->string_count; i++) {
		must(t->strings[i][0] != '\0' && strchr(t->strings[i], ',') == NULL);
		for (size_t k = 0; k < i && t->string_count < 100; k++)
			must(strcmp(t->strings[i], t->strings[k]) != 0);
	}
}

/* Each malformed line, up to a limit; then how many more. */
static void check_complaints(const struct trace *t)
{
	size_t shown = t->malformed < SHOWN ? t->malformed : SHOWN;
	char more[60];
	must(complaints.count == shown + (t->malformed > SHOWN));
	for (unsigned i = 0; i < shown; i++) {
		size_t line = complaint_line(i);
		must(line <= text.count && (i == 0 || line > text.malformed[i - 1]) && !is_header(text.line[line]));
		text.malformed[i] = line;
	}
	snprintf(more, sizeof(more), ": %zu more malformed lines", t->malformed - SHOWN);
	must(t->malformed <= SHOWN || strstr(complaints.text[SHOWN], more) != NULL);
	for (size_t i = 0; i < t->count; i++) {
		for (size_t k = 0; k < shown; k++)
			must(t->events[i].line != text.malformed[k]);
	}
}

static void check_trace(const struct trace *t)
{
	must(text.headers + t->count + t->unknown + t->malformed == text.count);
	check_complaints(t);
	check_events(t);
	check_strings(t);
	fuzz_progress->checks++;
}

/* --- Reading again ----------------------------------------------------------------------------------------------------------- */

static void check_same_event(const struct trace *a, const struct trace_event *x, const struct trace *b, const struct trace_event *y)
{
	must(x->time == y->time && x->kind == y->kind);
	must(x->context == y->context && x->seqno == y->seqno && x->on_context == y->on_context && x->on_seqno == y->on_seqno);
	must(strcmp(string_of(a, x->ring), string_of(b, y->ring)) == 0);
	must(strcmp(string_of(a, x->driver), string_of(b, y->driver)) == 0);
}

static void check_same(const struct trace *a, const struct trace *b)
{
	must(a->count == b->count);
	for (size_t i = 0; i < a->count; i++)
		check_same_event(a, &a->events[i], b, &b->events[i]);
}

/* Reads a text that is like the one of @t. */
static void read_like(const struct trace *t, const struct print *p, size_t unknown)
{
	struct trace again;
	long before = parser_begin(p->text, p->size);
	must(trace_read(&again, parser_path(), false));
	must(again.malformed == t->malformed && again.unknown == unknown);
	check_same(t, &again);
	trace_free(&again);
	parser_end(before);
}

/* Up to the first malformed line. */
static void read_strict(const struct trace *t, const void *bytes, size_t size)
{
	struct trace strict;
	size_t n = 0;
	long before = parser_begin(bytes, size);
	must(trace_read(&strict, parser_path(), true) == (t->malformed == 0));
	must(strict.malformed == (t->malformed != 0));
	must(complaints.count == strict.malformed && (strict.malformed == 0 || complaint_line(0) == text.malformed[0]));
	for (size_t i = 0; i < t->count; i++) {
		if (t->malformed != 0 && t->events[i].line > text.malformed[0])
			continue;
		must(n < strict.count);
		check_same_event(t, &t->events[i], &strict, &strict.events[n++]);
	}
	must(n == strict.count);
	trace_free(&strict);
	parser_end(before);
}

/* The same text with other ends of lines. */
static void read_converted(const struct trace *t)
{
	converted.size = 0;
	for (size_t i = 1; i <= text.count; i++) {
		struct line line = text.line[i];
		if (memchr(line.text, '\0', line.size) != NULL)
			print(&converted, "malformed");
		else
			print(&converted, "%.*s", (int)line.size, line.text);
		print(&converted, "\r\n");
	}
	read_like(t, &converted, t->unknown);
}

/* --- Printing ---------------------------------------------------------------------------------------------------------------- */

/* How a line is printed: some of the ways that there are. */
struct style {
	uint64_t random; /* 0: the plainest */
};

static size_t some(struct style *style, size_t limit)
{
	return style->random == 0 ? 0 : (size_t)(random_next(&style->random) % limit);
}

static void print_time(struct print *p, int64_t time, struct style *style)
{
	int digits = 9;
	int64_t fraction = time % 1000000000;
	size_t least = 1 + some(style, 9);
	while (digits > (int)least && fraction % 10 == 0) {
		fraction /= 10;
		digits--;
	}
	print(p, "%" PRId64 ".%0*" PRId64 ": ", time / 1000000000, digits, fraction);
}

static void print_prefix(struct print *p, int64_t time, struct style *style, bool ftrace)
{
	static const char *const tasks[] = { "task", "<idle>", "a [1] b", "vlc: decode #2", "Xorg-7", "kworker/u8:3", "x-5 [3] y",
		"t-1 (2)" };
	static const char *const groups[] = { "", " (  120)", " (-----)" };
	static const char *const flags[] = { "", "d..1 ", "...1. ", ".N.2 " };
	print(p, "%*s%s-%zu", (int)some(style, 9), "", tasks[some(style, sizeof(tasks) / sizeof(tasks[0]))], some(style, 99999));
	if (ftrace)
		print(p, "%s", groups[some(style, 3)]);
	print(p, " [%03zu] ", some(style, 200));
	if (ftrace)
		print(p, "%s", flags[some(style, 4)]);
	print_time(p, time, style);
}

/*
 * A value that holds blanks ends at blanks before a key only if that has one word and '=': else nobody could tell what is which. So where a
 * key is followed by ':', commas stand between.
 */
static void print_job_form(struct print *p, const struct trace *t, const struct trace_event *e, struct style *style)
{
	static const char *const before[] = { "", "sched_job_id=77", "entity=0x1 id=5", "x=1, y=2" };
	static const char *const behind[] = { "", " ring_name=18446622900245085648 num_ibs=1", ", count:3", " " };
	bool colon = some(style, 3) == 1;
	const char *is = colon ? ":" : "=", *gap = colon || some(style, 3) == 1 ? ", " : " ", *first = before[some(style, 4)];
	if (e->driver != 0)
		print(p, "driver%s%s%s", is, string_of(t, e->driver), gap);
	print(p, "%s%stimeline%s%s%scontext%s%" PRIu64 "%sseqno%s%" PRIu64 "%s", first, *first ? gap : "", is, string_of(t, e->ring), gap,
		is, e->context, gap, is, e->seqno, behind[some(style, 4)]);
}

static void print_sched_form(struct print *p, const struct trace *t, const struct trace_event *e, struct style *style)
{
	static const char *const behind[] = { "", ", job count:0, hw job count:1, client_id:31", " count=0" };
	const char *gap = some(style, 3) == 1 ? " " : ", ";
	if (e->driver != 0)
		print(p, "dev=%s%s", string_of(t, e->driver), gap);
	print(p, "fence=%" PRIu64 ":%" PRIu64 "%sring=%s%s", e->context, e->seqno, gap, string_of(t, e->ring), behind[some(style, 3)]);
}

static void print_fields(struct print *p, const struct trace *t, const struct trace_event *e, struct style *style, bool sched)
{
	if (e->kind == TRACE_DONE)
		print(p, "fence=%" PRIu64 ":%" PRIu64 " signaled", e->context, e->seqno);
	else if (e->kind == TRACE_DEPENDENCY)
		print(p, "%sfence=%" PRIu64 ":%" PRIu64 " depends on %sfence=%" PRIu64 ":%" PRIu64, some(style, 2) ? "dev=card0, " : "",
			e->context, e->seqno, some(style, 2) ? "unsignalled " : "", e->on_context, e->on_seqno);
	else if (sched)
		print_sched_form(p, t, e, style);
	else
		print_job_form(p, t, e, style);
}

/* Jobs have two names: the first is of the job form. */
static void print_event(struct print *p, const struct trace *t, const struct trace_event *e, struct style *style, bool ftrace)
{
	bool job = e->kind == TRACE_SUBMIT || e->kind == TRACE_RUN, sched = job && (e->driver != 0 || some(style, 2) == 1);
	size_t name = job ? sched : e->kind == TRACE_FENCE ? some(style, 6) : e->kind == TRACE_DEPENDENCY ? some(style, 2) : 0;
	print_prefix(p, e->time, style, ftrace);
	print(p, "%s: ", names[e->kind][name]);
	print_fields(p, t, e, style, sched);
	print(p, "\n");
}

static void read_printed(const struct trace *t, bool ftrace)
{
	struct style style = { 0 };
	struct trace clean = *t;
	clean.malformed = 0;
	printed.size = 0;
	for (size_t i = 0; i < t->count; i++)
		print_event(&printed, t, &t->events[i], &style, ftrace);
	read_like(&clean, &printed, 0);
}

/* --- A trace that is known before -------------------------------------------------------------------------------------------- */

static char *const strings[] = { "", "gfx", "comp_1.0.0", "sdma0", "a ring", "amdgpu", "0000:04:00.0", "x", "gf", "sdma" };

static uint64_t some_number(uint64_t *random)
{
	static const uint64_t limits[] = { 0, 1, 9, 10, INT32_MAX, UINT32_MAX, UINT64_C(1) << 32, INT64_MAX, UINT64_MAX };
	uint64_t n = random_next(random);
	return n % 4 == 0 ? limits[random_next(random) % 9] : n >> random_next(random) % 64;
}

static uint32_t some_string(uint64_t *random)
{
	return (uint32_t)(1 + random_next(random) % (sizeof(strings) / sizeof(strings[0]) - 1));
}

/* Few different times, so that some are the same. */
static int64_t some_time(uint64_t *random)
{
	int64_t seconds = (int64_t)(some_number(random) % 3), nanoseconds = (int64_t)(some_number(random) % 1000000000);
	if (random_next(random) % 16 == 0)
		seconds = INT32_MAX;
	return seconds * 1000000000 + (random_next(random) % 2 ? nanoseconds : nanoseconds % 3 * 1000);
}

static struct trace_event some_event(uint64_t *random)
{
	struct trace_event e = { .time = some_time(random), .context = some_number(random), .seqno = some_number(random) };
	e.kind = (enum trace_kind)(random_next(random) % TRACE_KINDS);
	if (e.kind == TRACE_DEPENDENCY) {
		e.on_context = some_number(random);
		e.on_seqno = some_number(random);
	} else if (e.kind != TRACE_DONE) {
		e.ring = some_string(random);
		e.driver = e.kind == TRACE_SIGNALED || e.kind == TRACE_FENCE || random_next(random) % 2 ? some_string(random) : 0;
	}
	return e;
}

/* Behind all that are not later. */
static void insert(struct trace *t, struct trace_event e)
{
	size_t at = t->count++;
	for (; at > 0 && t->events[at - 1].time > e.time; at--)
		t->events[at] = t->events[at - 1];
	t->events[at] = e;
}

/* A line that is no event of ours. */
static void print_other_line(struct print *p, struct trace *t, struct style *style)
{
	static const char *const headers[] = { "# tracer: nop", "cpus=4", "", "   ", "CPU 1 is empty", "version = 7" };
	static const char *const malformed[] = { "what?", "task-1 [000]",
		"task-1 [000] 1.5: dma_fence_signaled: driver=a timeline=b context=1",
		"task-1 [000] 1.0000000001: drm_sched_job_done: fence=1:1", "task [000] 1.5: drm_sched_job_done: fence=1:1",
		"task-1 [000] 1.5: drm_sched_job_done: fence=1", "task-1 [000] 2147483648.5: drm_sched_job_done: fence=1:1",
		"task-1 [000] 1.5: amdgpu_cs_ioctl: timeline=a context=18446744073709551616 seqno=1" };
	switch (some(style, 3)) {
	case 0:
		print(p, "%s\n", headers[some(style, 6)]);
		break;
	case 1:
		print_prefix(p, 5, style, some(style, 2));
		print(p, "sched_switch: prev_comm=a timeline=b\n");
		t->unknown++;
		break;
	default:
		print(p, "%s\n", malformed[some(style, 8)]);
		t->malformed++;
		break;
	}
}

static void read_known(uint64_t seed)
{
	struct trace_event events[MADE_MAX];
	struct trace t = { .events = events, .strings = (char **)(uintptr_t)strings, .string_count = sizeof(strings) / sizeof(strings[0]) };
	struct style style = { .random = seed | 1 };
	printed.size = 0;
	for (size_t n = 1 + some(&style, MADE_MAX); n != 0; n--) {
		struct trace_event e = some_event(&style.random);
		insert(&t, e);
		print_event(&printed, &t, &e, &style, some(&style, 2));
		if (some(&style, 8) == 0)
			print_other_line(&printed, &t, &style);
	}
	read_like(&t, &printed, t.unknown);
}

/* --- The target -------------------------------------------------------------------------------------------------------------- */

enum hit { EVENTS, UNKNOWN, MALFORMED };

static const char *const hits[] = { "events", "of others", "malformed lines", NULL };

static uint64_t hash(const uint8_t *data, size_t size)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
	for (size_t i = 0; i < size; i++)
		h = (h ^ data[i]) * UINT64_C(0x100000001b3);
	return h;
}

static void run(const uint8_t *data, size_t size)
{
	struct trace t;
	if (size > FUZZ_MAX_SIZE)
		return;
	split((const char *)data, size);
	long before = parser_begin(data, size);
	must(trace_read(&t, parser_path(), false));
	check_trace(&t);
	read_strict(&t, data, size);
	read_converted(&t);
	read_printed(&t, false);
	read_printed(&t, true);
	read_known(hash(data, size));
	fuzz_progress->hit[EVENTS] += t.count;
	fuzz_progress->hit[UNKNOWN] += t.unknown;
	fuzz_progress->hit[MALFORMED] += t.malformed;
	trace_free(&t);
	parser_end(before);
}

static size_t make(uint64_t *random, const struct fuzz_seeds *seeds, uint8_t *bytes, size_t room)
{
	static const char *const tokens[] = { "timeline=", "context=", "seqno=", "fence=", "driver=", "ring=", "dev=", " depends on ",
		"unsignalled ", "-1 [000] ", "1.5: ", ": ", ", ", " (12) ", "d..1 ", "\n", "\r\n",
		"dma_fence_signaled:", "drm_sched_job_done:", "drm_sched_job_add_dep:", "amdgpu_cs_ioctl:", "cpus=", "#", NULL };
	return parser_make(random, seeds, tokens, bytes, room);
}

static void start(void)
{
	/* so that their memory is there before a parser's is counted */
	print(&printed, "%s", "");
	print(&converted, "%s", "");
}

const struct fuzz_target fuzz_target = {
	.text = true,
	.ops = 6000,
	.hits = hits,
	.checks = "traces checked",
	.start = start,
	.run = run,
	.dump = parser_dump,
	.make = make,
};
