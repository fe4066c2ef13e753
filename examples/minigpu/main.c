/* SPDX-License-Identifier: MIT */
/*
 * minigpu: an emulated GPU and its userspace driver, on libfence's public API.
 *
 * Purpose. This file is the command line and nothing else: it checks the options, opens the files that will be written (so that a
 * path that cannot be written is an error before the work, not after it) and calls a command.
 *
 * Files: gpu.c (engines, device memory), hash.c (the driver that hashes files), trace_parse.c (text of a kernel trace -> events),
 * model.c (events -> jobs, and what is wrong with the record), replay.c (jobs -> timelines and queues), record.c (what engines did:
 * table and timeline), picture.c (the same as a picture), util.c.
 *
 * Exit status: 0 all is well; 1 something named on stderr is not; 2 the command line is wrong.
 */
#include "minigpu.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "util.h"

#define EXIT_USAGE 2

static const char help[] =
	"Usage: minigpu [OPTION...] hash FILE...\n"
	"       minigpu [OPTION...] replay TRACE\n"
	"\n"
	"An emulated GPU (a copy engine, two digest engines) and its driver, built on libfence.\n"
	"\n"
	"  hash FILE...          print the SHA-256 of files, computed by GPU jobs, as sha256sum does; - is standard input\n"
	"  replay TRACE          replay the jobs of a recorded kernel trace (text of trace-cmd or ftrace) and check the order of\n"
	"                        their fences\n"
	"\n"
	"Faults, after which the result must be the same:\n"
	"  --hang-every N        every Nth run of each engine hangs, and the engine is reset\n"
	"  --lose-engine-at N    the first digest engine (or ring) is lost when it starts its Nth run, and replaced\n"
	"  --faults              lost, late and reordered interrupts; of hash, locks refused as well\n"
	"  --seed N              seed of the random faults (default 1)\n"
	"\n"
	"Output:\n"
	"  --trace FILE          write a timeline for ui.perfetto.dev or chrome://tracing (JSON)\n"
	"  --svg FILE            write a picture of it\n"
	"\n"
	"Of hash:\n"
	"  --memory MIB          device memory in blocks of 1 MiB (default 16)\n"
	"\n"
	"Of replay:\n"
	"  --speed SPEED         full: on a virtual clock (default); recorded: in real time; a number: that many times faster\n"
	"  --strict              stop at the first malformed line\n"
	"\n"
	"  --help                show this\n"
	"  --version             show the version\n";

enum option_code {
	OPT_HANG = 256,
	OPT_LOSE,
	OPT_FAULTS,
	OPT_SEED,
	OPT_TRACE,
	OPT_SVG,
	OPT_MEMORY,
	OPT_SPEED,
	OPT_STRICT,
	OPT_HELP,
	OPT_VERSION
};

static const struct option long_options[] = {
	{ "hang-every", required_argument, NULL, OPT_HANG },
	{ "lose-engine-at", required_argument, NULL, OPT_LOSE },
	{ "faults", no_argument, NULL, OPT_FAULTS },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "trace", required_argument, NULL, OPT_TRACE },
	{ "svg", required_argument, NULL, OPT_SVG },
	{ "memory", required_argument, NULL, OPT_MEMORY },
	{ "speed", required_argument, NULL, OPT_SPEED },
	{ "strict", no_argument, NULL, OPT_STRICT },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

/* What the options name; opened when the whole command line is known to be right. */
struct paths {
	const char *trace;
	const char *svg;
};

static void usage_error(const char *message, const char *detail) __attribute__((noreturn));

static void usage_error(const char *message, const char *detail)
{
	fprintf(stderr, "minigpu: %s%s\nTry 'minigpu --help'.\n", message, detail);
	exit(EXIT_USAGE);
}

static void bad_value(const char *option, const char *expected, const char *value) __attribute__((noreturn));

static void bad_value(const char *option, const char *expected, const char *value)
{
	fprintf(stderr, "minigpu: %s: expected %s, not '%s'\n", option, expected, value);
	exit(EXIT_USAGE);
}

static uint64_t parse_number(const char *option, const char *value, uint64_t min, uint64_t max)
{
	char expected[96];
	char *end;
	uint64_t number;

	errno = 0;
	number = strtoull(value, &end, 10);
	if (value[0] >= '0' && value[0] <= '9' && !*end && !errno && number >= min && number <= max)
		return number;
	snprintf(expected, sizeof(expected), "a whole number from %llu to %llu", (unsigned long long)min, (unsigned long long)max);
	bad_value(option, expected, value);
}

static double parse_speed(const char *value)
{
	char *end;
	double speed;

	if (!strcmp(value, "full"))
		return 0;
	if (!strcmp(value, "recorded"))
		return 1;
	speed = strtod(value, &end);
	if (end == value || *end || !isfinite(speed) || speed < 0.001 || speed > 1e6)
		bad_value("--speed", "full, recorded, or a number from 0.001 to 1000000", value);
	return speed;
}

static void parse_option(struct options *o, struct paths *paths, int code)
{
	switch (code) {
	case OPT_HANG:
		o->hang_every = (uint32_t)parse_number("--hang-every", optarg, 1, UINT32_MAX);
		break;
	case OPT_LOSE:
		o->lose_engine_at = parse_number("--lose-engine-at", optarg, 1, INT64_MAX);
		break;
	case OPT_FAULTS:
		o->faults = true;
		break;
	case OPT_SEED:
		o->seed = parse_number("--seed", optarg, 0, UINT64_MAX);
		break;
	case OPT_TRACE:
		paths->trace = optarg;
		break;
	case OPT_SVG:
		paths->svg = optarg;
		break;
	case OPT_MEMORY:
		o->memory_mib = (uint32_t)parse_number("--memory", optarg, 1, 65536);
		break;
	case OPT_SPEED:
		o->speed = parse_speed(optarg);
		break;
	case OPT_STRICT:
		o->strict = true;
		break;
	case OPT_HELP:
		fputs(help, stdout);
		exit(EXIT_SUCCESS);
	case OPT_VERSION:
		printf("minigpu of libfence %d.%d.%d\n", LF_VERSION_MAJOR, LF_VERSION_MINOR, LF_VERSION_PATCH);
		exit(EXIT_SUCCESS);
	default: /* getopt has said what is wrong */
		fputs("Try 'minigpu --help'.\n", stderr);
		exit(EXIT_USAGE);
	}
}

struct lf_queue_faults options_faults(const struct options *o, unsigned engine, bool first)
{
	struct lf_queue_faults faults = {
		.seed = o->seed + engine,
		.exact = o->hang_every != 0,
		.hang_one_in = o->hang_every,
		.lose_engine_at = first ? o->lose_engine_at : 0,
	};

	if (o->faults) { /* numbers without a common divisor: with --hang-every they count exactly, and should not all fall on one run */
		faults.lost_interrupt_one_in = 41;
		faults.late_one_in = 23;
		faults.late_ns = NS_PER_MS;
		faults.reorder_one_in = 17;
	}
	return faults;
}

int64_t options_timeout(const struct options *o)
{
	return o->hang_every || o->faults ? 20 * NS_PER_MS : NS_PER_S;
}

static FILE *open_output(const char *path)
{
	FILE *file;

	if (!path)
		return NULL;
	file = fopen(path, "w");
	if (!file)
		die("%s: cannot be written: %s", path, strerror(errno));
	return file;
}

/* Buffered output fails as late as here; a disk that is full must not look like success. */
static int close_output(FILE *file, const char *path)
{
	bool failed = file && ferror(file);

	if (file && (fclose(file) || failed)) {
		complain("%s: could not be written completely", path);
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}

/* Everything about the command line that can be known to be wrong before a file is created. */
static void check_command(int argc, char **argv)
{
	if (!argc)
		usage_error("expected a command: hash or replay", "");
	if (!strcmp(argv[0], "hash") && argc < 2)
		usage_error("hash: expected at least one file", "");
	else if (!strcmp(argv[0], "replay") && argc != 2)
		usage_error("replay: expected one trace", "");
	else if (strcmp(argv[0], "hash") && strcmp(argv[0], "replay"))
		usage_error("expected hash or replay, not ", argv[0]);
}

int main(int argc, char **argv)
{
	struct options options = { .memory_mib = 16, .seed = 1 };
	struct paths paths = { NULL, NULL };
	int code;
	int status;

	while ((code = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		parse_option(&options, &paths, code);
	argc -= optind;
	argv += optind;
	check_command(argc, argv);
	options.trace = open_output(paths.trace);
	options.svg = open_output(paths.svg);

	status = !strcmp(argv[0], "hash") ? hash_command(&options, argc - 1, argv + 1) : replay_command(&options, argv[1]);

	status |= close_output(options.trace, paths.trace);
	status |= close_output(options.svg, paths.svg);
	status |= close_output(stdout, "standard output");
	lf_fini();
	return status;
}
