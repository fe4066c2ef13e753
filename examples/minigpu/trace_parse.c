/* SPDX-License-Identifier: MIT */
/*
 * Text of a kernel trace -> events.
 *
 * Purpose. Reads what `trace-cmd report` prints and what /sys/kernel/tracing/trace holds:
 *
 *     task-pid [cpu] seconds.fraction: event: fields                           (trace-cmd)
 *     task-pid (tgid) [cpu] flags seconds.fraction: event: fields              (ftrace; "(tgid)" and "flags" may be missing)
 *
 * A task's name is anything: it may hold blanks, brackets and colons; so the line is read from its first "-pid [cpu]" that a
 * time follows. Fields are `key=value` or `key:value`, with blanks or commas between them; a value may hold blanks.
 *
 * Events (form, and where it comes from):
 *
 *     job      timeline=<ring> context=<n> seqno=<n>                           amdgpu_cs_ioctl, amdgpu_sched_run_job
 *     sched    dev=<device>, fence=<context>:<seqno>, ring=<ring>, ...         drm_sched_job_queue, drm_sched_job_run (Linux 6.17)
 *     done     fence=<context>:<seqno> signaled                                drm_sched_job_done
 *     depends  fence=<c>:<s> depends on [unsignalled] fence=<c>:<s>            drm_sched_job_add_dep, drm_sched_job_unschedulable
 *     fence    driver=<name> timeline=<name> context=<n> seqno=<n>             dma_fence_*
 *
 * Other events are counted, headers and comments are passed over.
 *
 * Not here: what the events mean together (model.c).
 */
#include "trace_parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util.h"

#define MAX_COMPLAINTS 10

/* --- Strings ------------------------------------------------------------------------------------------------------------ */

/* There are few different ones: rings, drivers, devices. */
static uint32_t intern(struct trace *t, const char *text, size_t length)
{
	for (size_t i = 0; i < t->string_count; i++) {
		if (!strncmp(t->strings[i], text, length) && !t->strings[i][length])
			return (uint32_t)i;
	}
	t->strings = grow(t->strings, t->string_count, &t->string_capacity, sizeof(char *));
	t->strings[t->string_count] = strndup(text, length);
	if (!t->strings[t->string_count])
		die("out of memory");
	return (uint32_t)t->string_count++;
}

/* --- Fields ------------------------------------------------------------------------------------------------------------- */

static bool is_word(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

static bool is_gap(char c)
{
	return c == ' ' || c == '\t' || c == ',';
}

/* Whether a key begins here: a word and '=', or words and ':' as in "hw job count:". */
static bool is_key(const char *s)
{
	bool one_word = true;

	if (!is_word(*s) || isdigit((unsigned char)*s))
		return false;
	for (; is_word(*s) || *s == ' '; s++)
		one_word &= *s != ' ';
	return *s == ':' || (*s == '=' && one_word);
}

/* The value of @key, or NULL. */
static const char *find_value(const char *fields, const char *key)
{
	size_t length = strlen(key);

	for (const char *s = strstr(fields, key); s; s = strstr(s + 1, key)) {
		if ((s == fields || is_gap(s[-1])) && (s[length] == '=' || s[length] == ':'))
			return s + length + 1;
	}
	return NULL;
}

/* A value ends at a comma, or at blanks before the next key. */
static size_t value_length(const char *value)
{
	size_t length = 0;

	while (value[length] && value[length] != ',' && !(is_gap(value[length]) && is_key(value + length + 1)))
		length++;
	while (length && isspace((unsigned char)value[length - 1]))
		length--;
	return length;
}

static bool parse_string(struct trace *t, const char *fields, const char *key, uint32_t *ret_string)
{
	const char *value = find_value(fields, key);

	if (!value || !value_length(value))
		return false;
	*ret_string = intern(t, value, value_length(value));
	return true;
}

static bool parse_digits(const char **s, uint64_t *ret_number)
{
	char *end;

	if (!isdigit((unsigned char)**s))
		return false;
	errno = 0;
	*ret_number = strtoull(*s, &end, 10);
	*s = end;
	return !errno;
}

static bool parse_number(const char *fields, const char *key, uint64_t *ret_number)
{
	const char *value = find_value(fields, key);

	return value && parse_digits(&value, ret_number) && !is_word(*value);
}

static bool parse_fence(const char *fields, uint64_t *ret_context, uint64_t *ret_seqno)
{
	const char *value = find_value(fields, "fence");

	return value && parse_digits(&value, ret_context) && *value++ == ':' && parse_digits(&value, ret_seqno) && !is_word(*value);
}

/* --- Forms of events; each returns what was expected, or NULL ------------------------------------------------------------ */

static const char *parse_job_form(struct trace *t, const char *fields, struct trace_event *e)
{
	if (!parse_string(t, fields, "timeline", &e->ring))
		return "timeline=<name>";
	if (!parse_number(fields, "context", &e->context))
		return "context=<number>";
	return parse_number(fields, "seqno", &e->seqno) ? NULL : "seqno=<number>";
}

static const char *parse_sched_form(struct trace *t, const char *fields, struct trace_event *e)
{
	if (!parse_fence(fields, &e->context, &e->seqno))
		return "fence=<context>:<seqno>";
	if (!parse_string(t, fields, "ring", &e->ring))
		return "ring=<name>";
	parse_string(t, fields, "dev", &e->driver);
	return NULL;
}

static const char *parse_done_form(struct trace *t, const char *fields, struct trace_event *e)
{
	(void)t;
	return parse_fence(fields, &e->context, &e->seqno) ? NULL : "fence=<context>:<seqno>";
}

static const char *parse_depends_form(struct trace *t, const char *fields, struct trace_event *e)
{
	const char *on = strstr(fields, "depends on ");

	(void)t;
	if (!parse_fence(fields, &e->context, &e->seqno))
		return "fence=<context>:<seqno>";
	if (!on || !parse_fence(on, &e->on_context, &e->on_seqno))
		return "depends on fence=<context>:<seqno>";
	return NULL;
}

static const char *parse_fence_form(struct trace *t, const char *fields, struct trace_event *e)
{
	if (!parse_string(t, fields, "driver", &e->driver))
		return "driver=<name>";
	return parse_job_form(t, fields, e);
}

/* --- Names of events ---------------------------------------------------------------------------------------------------- */

struct event_name {
	const char *name;
	enum trace_kind kind;
	const char *(*parse)(struct trace *t, const char *fields, struct trace_event *e);
};

static const struct event_name event_names[] = {
	{ "amdgpu_cs_ioctl", TRACE_SUBMIT, parse_job_form },
	{ "amdgpu_sched_run_job", TRACE_RUN, parse_job_form },
	{ "drm_sched_job_queue", TRACE_SUBMIT, parse_sched_form },
	{ "drm_sched_job_run", TRACE_RUN, parse_sched_form },
	{ "drm_sched_job_done", TRACE_DONE, parse_done_form },
	{ "drm_sched_job_add_dep", TRACE_DEPENDENCY, parse_depends_form },
	{ "drm_sched_job_unschedulable", TRACE_DEPENDENCY, parse_depends_form },
	{ "dma_fence_signaled", TRACE_SIGNALED, parse_fence_form },
	{ "dma_fence_init", TRACE_FENCE, parse_fence_form },
	{ "dma_fence_emit", TRACE_FENCE, parse_fence_form },
	{ "dma_fence_destroy", TRACE_FENCE, parse_fence_form },
	{ "dma_fence_enable_signal", TRACE_FENCE, parse_fence_form },
	{ "dma_fence_wait_start", TRACE_FENCE, parse_fence_form },
	{ "dma_fence_wait_end", TRACE_FENCE, parse_fence_form },
};

static const struct event_name *find_event(const char *name, size_t length)
{
	for (size_t i = 0; i < sizeof(event_names) / sizeof(event_names[0]); i++) {
		if (!strncmp(event_names[i].name, name, length) && !event_names[i].name[length])
			return &event_names[i];
	}
	return NULL;
}

/* --- Lines -------------------------------------------------------------------------------------------------------------- */

/* What surrounds the events in the output of trace-cmd and ftrace. */
static bool is_header(const char *line)
{
	static const char *const beginnings[] = { "#", "cpus=", "version = ", "CPU ", "CPU:", "trace-cmd", "tracer:" };

	for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++) {
		if (!strncmp(line, beginnings[i], strlen(beginnings[i])))
			return true;
	}
	return !line[strspn(line, " \t\r\n")];
}

/* Whether "task-pid", and perhaps "(tgid)", stands before the bracket. */
static bool follows_task(const char *line, const char *bracket)
{
	const char *s = bracket;

	while (s > line && s[-1] == ' ')
		s--;
	if (s > line && s[-1] == ')') {
		while (s > line && s[-1] != '(')
			s--;
		s -= s > line;
		while (s > line && s[-1] == ' ')
			s--;
	}
	if (s == line || !isdigit((unsigned char)s[-1]))
		return false;
	while (s > line && isdigit((unsigned char)s[-1]))
		s--;
	return s > line + 1 && s[-1] == '-';
}

/* Past "[cpu] ", or NULL. */
static const char *skip_cpu(const char *bracket)
{
	const char *s = bracket + 1;
	uint64_t cpu;

	if (!parse_digits(&s, &cpu) || *s++ != ']')
		return NULL;
	return s + strspn(s, " \t");
}

/* "seconds.fraction:", the fraction of one to nine digits. */
static bool parse_time(const char **cursor, int64_t *ret_time)
{
	const char *s = *cursor;
	const char *point;
	uint64_t seconds;
	uint64_t fraction;

	if (!parse_digits(&s, &seconds) || *s++ != '.' || seconds > INT32_MAX)
		return false;
	point = s;
	if (!parse_digits(&s, &fraction) || s - point > 9 || *s != ':')
		return false;
	for (ptrdiff_t digits = s - point; digits < 9; digits++)
		fraction *= 10;
	*ret_time = (int64_t)(seconds * 1000000000 + fraction);
	*cursor = s + 1;
	return true;
}

static bool parse_time_behind_flags(const char **cursor, int64_t *ret_time)
{
	if (parse_time(cursor, ret_time))
		return true;
	*cursor += strcspn(*cursor, " \t");
	*cursor += strspn(*cursor, " \t");
	return parse_time(cursor, ret_time);
}

/* Leaves @cursor behind the time. @return what was expected, or NULL. */
static const char *parse_prefix(const char **cursor, int64_t *ret_time)
{
	const char *line = *cursor;
	const char *expected = "task-pid [cpu] seconds.fraction: event: fields";

	for (const char *bracket = strchr(line, '['); bracket; bracket = strchr(bracket + 1, '[')) {
		const char *s = follows_task(line, bracket) ? skip_cpu(bracket) : NULL;

		if (!s)
			continue;
		if (parse_time_behind_flags(&s, ret_time)) {
			*cursor = s + strspn(s, " \t");
			return NULL;
		}
		expected = "a time, as in 630659.133156:";
	}
	return expected;
}

static void add_event(struct trace *t, const struct trace_event *e)
{
	t->events = grow(t->events, t->count, &t->capacity, sizeof(*t->events));
	t->events[t->count++] = *e;
	t->per_kind[e->kind]++;
}

/* Cuts off what ends a line. @return false when a NUL stands in it, behind which nobody would look. */
static bool cut_line(char *line, size_t length)
{
	length -= length && line[length - 1] == '\n';
	line[length] = '\0';
	return strlen(line) == length;
}

/* @return what was expected, or NULL. */
static const char *parse_line(struct trace *t, const char *line, uint32_t number)
{
	struct trace_event e = { .line = number };
	const struct event_name *event;
	const char *expected = parse_prefix(&line, &e.time);
	size_t length = strcspn(line, ": \t");

	if (expected)
		return expected;
	if (!length || line[length] != ':')
		return "the name of an event and ':'";
	event = find_event(line, length);
	if (!event) {
		t->unknown++;
		return NULL;
	}
	e.kind = event->kind;
	expected = event->parse(t, line + length + 1 + strspn(line + length + 1, " \t"), &e);
	if (!expected)
		add_event(t, &e);
	return expected;
}

/* --- Files -------------------------------------------------------------------------------------------------------------- */

static void complain_about_line(struct trace *t, uint32_t number, const char *expected)
{
	if (t->malformed++ < MAX_COMPLAINTS)
		complain("%s:%u: expected %s", t->path, number, expected);
}

/* @return false when a malformed line ended it. */
static bool read_lines(struct trace *t, FILE *file, bool strict)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t length;
	uint32_t number = 0;

	while ((length = getline(&line, &size, file)) >= 0) {
		const char *expected = NULL;

		number++;
		if (!cut_line(line, (size_t)length))
			expected = "text, not a NUL byte";
		else if (!is_header(line))
			expected = parse_line(t, line, number);
		if (expected)
			complain_about_line(t, number, expected);
		if (expected && strict)
			break;
	}
	free(line);
	return length < 0;
}

static int compare_events(const void *a, const void *b)
{
	const struct trace_event *x = a;
	const struct trace_event *y = b;

	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	return (x->line > y->line) - (x->line < y->line);
}

bool trace_read(struct trace *t, const char *path, bool strict)
{
	FILE *file = fopen(path, "r");
	bool read;

	*t = (struct trace){ .path = path };
	intern(t, "", 0);
	if (!file) {
		complain("%s: %s", path, strerror(errno));
		return false;
	}
	errno = 0;
	read = read_lines(t, file, strict);
	if (read && ferror(file)) {
		complain("%s: %s", path, strerror(errno));
		read = false;
	}
	fclose(file);
	if (t->malformed > MAX_COMPLAINTS)
		complain("%s: %zu more malformed lines", path, t->malformed - MAX_COMPLAINTS);
	if (t->count)
		qsort(t->events, t->count, sizeof(*t->events), compare_events);
	return read;
}

void trace_free(struct trace *t)
{
	for (size_t i = 0; i < t->string_count; i++)
		free(t->strings[i]);
	free(t->strings);
	free(t->events);
}
