/* SPDX-License-Identifier: MIT */
/*
 * The explorer: the command.
 *
 *     explore [--list] [--bound N] [--random N] [--seed N] [--group NAME] [--tap] [SCENARIO]...
 *     explore --replay SCENARIO:SCHEDULE
 *
 * Each scenario is explored in a process of its own. Exit status: 0 all is well, 1 an error was found, 2 the command line is wrong.
 */
#include "engine.h"

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { MAX_SCENARIOS = 256, WARM_UP = 400 };

/* What a schedule looks like. */
#define SCHEDULE_TEXT "STEP>THREAD, STEP!THREAD or STEP~AGE, with commas between, as an error prints it"

static const struct explore_scenario *scenarios[MAX_SCENARIOS];
static size_t scenario_count;

static struct {
	unsigned bound; /* 0: each scenario's own */
	unsigned long random; /* executions at random after the search */
	uint64_t seed;
	const char *group, *replay;
	bool tap, list;
	char **names;
	int name_count;
} options = { .seed = 1 };

extern unsigned char __executable_start[];

void explore_enter(const struct explore_scenario *scenario)
{
	if (scenario_count == MAX_SCENARIOS) {
		fprintf(stderr, "explore: more than %d scenarios\n", MAX_SCENARIOS);
		exit(2);
	}
	scenarios[scenario_count++] = scenario;
}

/* --- What went wrong ------------------------------------------------------------------------------------------------------ */

static void print_schedule(void)
{
	const char *between = "";

	printf("%s:", ex->scenario->name);
	for (size_t i = 0; i < ex->depth; i++) {
		const struct decision *d = &ex->decisions[i];
		struct choice o = d->options[d->chosen];

		if (d->chosen == 0)
			continue;
		printf("%s%u%c%u", between, d->step, o.kind, o.value);
		between = ",";
	}
	printf("\n");
}

/* Function, file and line of an address of the program, as addr2line says it; the line of who called the port. */
static void site_name(const void *site, char *buf, size_t size)
{
	char command[128], line[1024];
	FILE *pipe;

	snprintf(buf, size, "?");
	if (!site)
		return;
	snprintf(command, sizeof(command), "addr2line -e /proc/%d/exe -f -i -p -s %#tx 2>/dev/null", (int)getpid(),
		(const unsigned char *)site - __executable_start - 1);
	pipe = popen(command, "r");
	if (!pipe)
		return;
	while (fgets(line, sizeof(line), pipe)) {
		const char *text = strncmp(line, " (inlined by) ", 14) == 0 ? line + 14 : line;

		if (strstr(text, "explore_port.h"))
			continue;
		snprintf(buf, size, "%.*s", (int)strcspn(text, "\n"), text);
		break;
	}
	pclose(pipe);
}

/* Names are asked for once each. */
static const char *site_name_cached(const void *site)
{
	enum { SITES = 512 };
	static struct {
		const void *site;
		char name[120];
	} *cache; /* not in the program's data, of which there is to be little */
	static size_t count;

	if (!cache)
		cache = calloc(SITES, sizeof(*cache));
	for (size_t i = 0; i < count; i++) {
		if (cache[i].site == site)
			return cache[i].name;
	}
	if (count == SITES)
		count = 0;
	cache[count].site = site;
	site_name(site, cache[count].name, sizeof(cache[count].name));
	return cache[count++].name;
}

static void print_event(const struct event *e)
{
	static const char *const orders[] = { "relaxed", "consume", "acquire", "release", "acq_rel", "seq_cst" };
	char name[80] = "";

	if (e->addr)
		memory_name(e->addr, name, sizeof(name));
	printf("#   %5u  %*s%u  %s %s", e->step, e->fiber * 2, "", e->fiber, e->what, name);
	if (e->size)
		printf(" = %#llx, %s", (unsigned long long)e->value, orders[e->order]);
	else if (e->value)
		printf(" %llu", (unsigned long long)e->value);
	if (e->site)
		printf("   [%s]", site_name_cached(e->site));
	printf("\n");
}

/* Of what a daemon does only that which others may feel. */
static bool is_worth_a_line(const struct event *e)
{
	return e->fiber == 0 || e->fiber != ex->daemon || strstr(e->what, "frees") || strstr(e->what, "grace");
}

static void print_trace(void)
{
	size_t n = ex->event_count, first = n > MAX_EVENTS ? n - MAX_EVENTS : 0;

	if (!options.replay && n - first > 60) {
		first = n - 60;
		printf("#   (the last of %zu events; --replay shows all)\n", n);
	}
	printf("#    step  thread\n");
	for (size_t i = first; i < n; i++) {
		if (is_worth_a_line(&ex->events[i % MAX_EVENTS]))
			print_event(&ex->events[i % MAX_EVENTS]);
	}
}

void report_failure(const char *message)
{
	static bool reporting;

	if (reporting)
		_exit(1);
	reporting = true;
	printf("# %s: %s\n", ex->scenario->name, message);
	printf("# in thread %d, at step %u of execution %u\n# schedule: ", ex->current, ex->step, ex->execution);
	print_schedule();
	if (!(ex->scenario->flags & EXPLORE_FAILS) || options.replay)
		print_trace();
	fflush(stdout);
	_exit(1);
}

static void on_signal(int signal)
{
	char message[64];

	snprintf(message, sizeof(message), "the program was ended by signal %d (%s)", signal, strsignal(signal));
	report_failure(message);
}

static void on_log(void *user, enum lf_log_level level, const char *message)
{
	(void)user;
	(void)level;
	ex->logged++;
	if (!(ex->scenario->flags & EXPLORE_MAY_LOG))
		explore_fail("the library says: %s", message);
}

/* --- One scenario ---------------------------------------------------------------------------------------------------------- */

static void catch_signals(void)
{
	enum { SIZE = 64 * 1024 };
	stack_t alternative = { .ss_sp = malloc(SIZE), .ss_size = SIZE };
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_NODEFER };
	static const int signals[] = { SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL };

	sigaltstack(&alternative, NULL);
	for (size_t i = 0; i < array_size(signals); i++)
		sigaction(signals[i], &action, NULL);
}

/* What the library sets up once a process is set up before the data is kept. */
static void prepare(const struct explore_scenario *s)
{
	static const struct lf_allocator allocator = { .alloc = memory_alloc, .free = memory_free };
	struct lf_fence *f;

	explorer_init(s);
	memory_keep_data();
	lf_set_log(on_log, NULL);
	if (lf_set_allocator(&allocator) != 0 || lf_fence_create(&f) != 0)
		explore_fail("the library cannot be set up");
	lf_fence_put(f);
	lf_fini();
	memory_keep_data();
	catch_signals();
}

static bool parse_schedule(const char *text)
{
	int used;

	while (*text) {
		struct followed *f = &ex->replay[ex->replay_count];
		unsigned value;

		if (ex->replay_count == MAX_DECISIONS || sscanf(text, "%u%c%u%n", &f->step, &f->option.kind, &value, &used) != 3)
			return false;
		f->option.value = (uint8_t)value;
		ex->replay_count++;
		text += used;
		text += *text == ',';
	}
	return true;
}

static void follow_schedule(const char *schedule)
{
	ex->mode = MODE_REPLAY;
	ex->bound = MAX_DECISIONS;
	if (!parse_schedule(schedule)) {
		fprintf(stderr, "explore: '%s' is not a schedule: " SCHEDULE_TEXT "\n", schedule);
		_exit(2);
	}
	explorer_execute();
	printf("# no error in this schedule\n");
	print_trace();
}

static void run_at_random(unsigned long executions)
{
	ex->mode = MODE_RANDOM;
	ex->bound = MAX_DECISIONS;
	for (unsigned long i = 0; i < executions; i++)
		explorer_execute();
}

/* Searches with ever more deviations, so that an error is found in its simplest form. Returns how many executions the last search had. */
static uint32_t search(unsigned bound)
{
	ex->mode = MODE_SEARCH;
	for (ex->bound = bound > 1 ? 1 : bound; ex->bound <= bound; ex->bound++) {
		explorer_restart();
		do
			explorer_execute();
		while (explorer_next());
	}
	return ex->searched;
}

static void explore(const struct explore_scenario *s)
{
	unsigned bound = options.bound ? options.bound : s->bound ? s->bound : 3;
	int64_t begun;
	struct timespec ts;
	uint32_t executions;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	begun = ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
	prepare(s);
	if (options.replay) {
		follow_schedule(strchr(options.replay, ':') + 1);
		return;
	}
	run_at_random(WARM_UP);
	executions = search(bound);
	if (s->schedules && executions != s->schedules && !options.bound)
		explore_fail("%u schedules where there must be %u", executions, s->schedules);
	ex->random += options.seed * 2;
	run_at_random(options.random);
	clock_gettime(CLOCK_MONOTONIC, &ts);
	printf("# %s: %u schedules with at most %u deviations, all; %u shared addresses; %lu at random; %.1f s\n", s->name, executions, bound,
		explorer_places(), options.random, (double)(ts.tv_sec * 1000 + ts.tv_nsec / 1000000 - begun) / 1000);
}

/* Explores in a process of its own. Returns whether all is as it should be. */
static bool run(const struct explore_scenario *s)
{
	int status;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		explore(s);
		fflush(stdout);
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child) {
		perror("explore: no process");
		exit(2);
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 2)
		exit(2);
	if (options.replay)
		return WIFEXITED(status) && WEXITSTATUS(status) == 0;
	return (WIFEXITED(status) && WEXITSTATUS(status) == 0) == !(s->flags & EXPLORE_FAILS);
}

/* --- Command line -------------------------------------------------------------------------------------------------------- */

static const char usage_text[] =
	"usage: explore [--list] [--bound N] [--random N] [--seed N] [--group NAME] [--tap] [SCENARIO]...\n"
	"       explore --replay SCENARIO:SCHEDULE\n";

/* @format says what is wrong. */
static _Noreturn void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));

static _Noreturn void wrong(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("explore: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(2);
}

static unsigned long number(const char *option, const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end)
		wrong("--%s: expected a number, not '%s'", option, text);
	return n;
}

static bool is_wanted(const struct explore_scenario *s)
{
	size_t len = options.replay ? strcspn(options.replay, ":") : 0;

	if (options.replay)
		return strlen(s->name) == len && strncmp(s->name, options.replay, len) == 0;
	if (options.group && strcmp(s->group, options.group) != 0)
		return false;
	for (int i = 0; i < options.name_count; i++) {
		if (strcmp(options.names[i], s->name) == 0)
			return true;
	}
	return options.name_count == 0;
}

static void parse(int argc, char **argv)
{
	static const struct option known[] = {
		{ "list", no_argument, NULL, 'l' },
		{ "bound", required_argument, NULL, 'b' },
		{ "random", required_argument, NULL, 'r' },
		{ "seed", required_argument, NULL, 's' },
		{ "group", required_argument, NULL, 'g' },
		{ "replay", required_argument, NULL, 'p' },
		{ "tap", no_argument, NULL, 't' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (c) {
		case 'l':
			options.list = true;
			break;
		case 'b':
			options.bound = (unsigned)number("bound", optarg);
			break;
		case 'r':
			options.random = number("random", optarg);
			break;
		case 's':
			options.seed = number("seed", optarg);
			break;
		case 'g':
			options.group = optarg;
			break;
		case 'p':
			options.replay = optarg;
			break;
		case 't':
			options.tap = true;
			break;
		case 'h':
			fputs(usage_text, stdout);
			exit(0);
		default: /* getopt has said what is wrong */
			fputs(usage_text, stderr);
			exit(2);
		}
	}
	options.names = argv + optind;
	options.name_count = argc - optind;
}

static bool is_scenario(const char *name, size_t len)
{
	for (size_t i = 0; i < scenario_count; i++) {
		if (strlen(scenarios[i]->name) == len && strncmp(scenarios[i]->name, name, len) == 0)
			return true;
	}
	return false;
}

static bool is_group(const char *name)
{
	for (size_t i = 0; i < scenario_count; i++) {
		if (strcmp(scenarios[i]->group, name) == 0)
			return true;
	}
	return false;
}

/* Names that nothing has, in scenarios, a group or a schedule. */
static void check_names(void)
{
	const char *colon = options.replay ? strchr(options.replay, ':') : NULL;

	for (int i = 0; i < options.name_count; i++) {
		const char *name = options.names[i];

		if (is_scenario(name, strlen(name)))
			continue;
		if (is_group(name))
			wrong("'%s' is a group of scenarios, for which say: --group %s", name, name);
		if (strchr(name, ':'))
			wrong("there is no scenario '%s'; to follow a schedule, say: --replay '%s'", name, name);
		wrong("there is no scenario '%s'; --list shows those there are", name);
	}
	if (options.group && !is_group(options.group))
		wrong("there is no group '%s'; --list shows those there are, in its first column", options.group);
	if (options.replay && !colon)
		wrong("--replay: expected SCENARIO:SCHEDULE, not '%s'; a SCHEDULE is " SCHEDULE_TEXT, options.replay);
	if (colon && !is_scenario(options.replay, (size_t)(colon - options.replay)))
		wrong("--replay: there is no scenario '%.*s'; --list shows those there are", (int)(colon - options.replay), options.replay);
}

static void list(void)
{
	for (size_t i = 0; i < scenario_count; i++) {
		if (is_wanted(scenarios[i]))
			printf("%-12s %-32s %s\n", scenarios[i]->group, scenarios[i]->name, scenarios[i]->oracle);
	}
}

int main(int argc, char **argv)
{
	unsigned wanted = 0, failed = 0;

	parse(argc, argv);
	check_names();
	if (options.list) {
		list();
		return 0;
	}
	for (size_t i = 0; i < scenario_count; i++)
		wanted += is_wanted(scenarios[i]);
	if (wanted == 0)
		wrong("no scenario of these is in the group '%s'", options.group);
	if (options.tap)
		printf("1..%u\n", wanted);
	for (size_t i = 0, n = 0; i < scenario_count; i++) {
		bool good;

		if (!is_wanted(scenarios[i]))
			continue;
		good = run(scenarios[i]);
		failed += !good;
		printf("%sok %zu - %s\n", good ? "" : "not ", ++n, scenarios[i]->name);
	}
	return failed ? 1 : 0;
}
