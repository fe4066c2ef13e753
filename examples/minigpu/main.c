/* SPDX-License-Identifier: MIT */
/*
 * minigpu: an emulated GPU and its userspace driver, on libfence's public API.
 *
 * Purpose. This file is the command line and nothing else: it checks the options, opens the files that will be written (so that a
 * path that cannot be written is an error before the work, not after it) and calls a command.
 *
 * Files, from the ground up: gpu.c (engines), device.c (pages of memory), manager.c (buffers that move), space.c (address spaces);
 * hash.c and hash_*.c (the driver that hashes files), chaos.c; trace_parse.c (text of a kernel trace -> events), model.c (events -> jobs,
 * and what is wrong with the record), replay.c and replay_*.c (jobs -> timelines and queues); layout_parse.c, layout.c (a list of buffers
 * -> an address space); record.c (what engines did: table and timeline), picture.c (the same as a picture), util.c.
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
#define MIN_VRAM   (256ULL << 10)
#if SIZE_MAX > UINT32_MAX
#define MAX_VRAM      (64ULL << 30)
#define MAX_VRAM_TEXT "64G"
#else /* it is memory of this process, after all */
#define MAX_VRAM      (1ULL << 30)
#define MAX_VRAM_TEXT "1G"
#endif

static const char help[] =
	"Usage: minigpu [OPTION...] hash FILE...\n"
	"       minigpu [OPTION...] replay TRACE\n"
	"       minigpu layout FILE\n"
	"\n"
	"An emulated GPU (a copy engine, two digest engines) and its driver, built on libfence.\n"
	"\n"
	"  hash FILE...          print the SHA-256 of files, computed by GPU jobs, as sha256sum does; - is standard input\n"
	"  replay TRACE          replay the jobs of a recorded kernel trace (text of trace-cmd or ftrace) and check the order of\n"
	"                        their fences\n"
	"  layout FILE           map the buffers of FILE (lines of iova,size[,name]) in an address space, check every lookup, and\n"
	"                        show what is where\n"
	"\n"
	"Faults, after which the result must be the same:\n"
	"  --hang-every N        every Nth run of each engine hangs, and the engine is reset\n"
	"  --lose-engine-at N    the first digest engine (or ring) is lost when it starts its Nth run, and replaced\n"
	"  --faults              lost, late and reordered interrupts; of hash, locks refused as well\n"
	"  --seed N              seed of the random faults (default 1)\n"
	"  --chaos SEED          of hash: all of these at random; besides, buffers are evicted, bound anew and closed while jobs use\n"
	"                        them; one seed in ten loses the copy engine, which nothing can replace\n"
	"\n"
	"Output:\n"
	"  --trace FILE          write a timeline for ui.perfetto.dev or chrome://tracing (JSON)\n"
	"  --svg FILE            write a picture of it\n"
	"\n"
	"Of hash:\n"
	"  --repeat N            hash the files N times, with the next seed each time; digests must stay the same\n"
	"  --minutes N           repeat until N minutes are over; a line each time says what is left in memory\n"
	"  --vram SIZE           device memory, in MiB, or with a K, M or G behind it (default 8, at least 256K)\n"
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
	OPT_VRAM,
	OPT_CHAOS,
	OPT_REPEAT,
	OPT_MINUTES,
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
	{ "vram", required_argument, NULL, OPT_VRAM },
	{ "chaos", required_argument, NULL, OPT_CHAOS },
	{ "repeat", required_argument, NULL, OPT_REPEAT },
	{ "minutes", required_argument, NULL, OPT_MINUTES },
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

/* Whole pages of device memory. */
static uint64_t parse_size(const char *option, const char *value)
{
	static const char expected[] = "a size from 256K to " MAX_VRAM_TEXT ", in MiB or with K, M or G";
	char *end;
	unsigned long long number;
	unsigned shift;

	errno = 0;
	number = strtoull(value, &end, 10);
	shift = *end == 'K' ? 10 : *end == 'G' ? 30 : 20;
	if (value[0] < '0' || value[0] > '9' || errno || (*end && (!strchr("KMG", *end) || end[1])) || number > MAX_VRAM >> shift ||
		number << shift < MIN_VRAM)
		bad_value(option, expected, value);
	return number << shift;
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
	case OPT_VRAM:
		o->vram = parse_size("--vram", optarg);
		break;
	case OPT_CHAOS:
		o->seed = parse_number("--chaos", optarg, 0, UINT64_MAX);
		o->chaos = true;
		break;
	case OPT_REPEAT:
		o->repeat = parse_number("--repeat", optarg, 1, UINT32_MAX);
		break;
	case OPT_MINUTES:
		o->minutes = parse_number("--minutes", optarg, 1, 60 * 24 * 365);
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

	if (o->chaos && !o->hang_every)
		faults.hang_one_in = 50;
	if (o->faults || o->chaos) {
		/* numbers without a common divisor: with --hang-every they count exactly, and should not all fall on one run */
		faults.lost_interrupt_one_in = 41;
		faults.late_one_in = 23;
		faults.late_ns = NS_PER_MS;
		faults.reorder_one_in = 17;
	}
	return faults;
}

int64_t options_timeout(const struct options *o)
{
	return o->hang_every || o->faults || o->chaos ? 20 * NS_PER_MS : NS_PER_S;
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

/* What a command is called with, when that is wrong. */
static const char *command_error(int argc, const char *command)
{
	if (!strcmp(command, "hash"))
		return argc < 2 ? "hash: expected at least one file" : NULL;
	if (!strcmp(command, "replay"))
		return argc != 2 ? "replay: expected one trace" : NULL;
	return argc != 2 ? "layout: expected one file" : NULL;
}

static void check_repeat(const struct options *o, const struct paths *paths, char **argv)
{
	if (o->repeat == 1 && !o->minutes)
		return;
	if (strcmp(argv[0], "hash"))
		usage_error("--repeat and --minutes are for hash, not for ", argv[0]);
	if (paths->trace || paths->svg)
		usage_error("--trace and --svg are of one round, not for --repeat and --minutes", "");
	for (char **name = argv + 1; *name; name++) {
		if (!strcmp(*name, "-"))
			usage_error("hash: standard input can be read once only, and not with --repeat and --minutes", "");
	}
}

/* Everything about the command line that can be known to be wrong before a file is created. */
static void check_command(const struct options *o, const struct paths *paths, int argc, char **argv)
{
	const char *error;

	if (!argc)
		usage_error("expected a command: hash, replay or layout", "");
	if (strcmp(argv[0], "hash") && strcmp(argv[0], "replay") && strcmp(argv[0], "layout"))
		usage_error("expected hash, replay or layout, not ", argv[0]);
	error = command_error(argc, argv[0]);
	if (error)
		usage_error(error, "");
	if (o->chaos && strcmp(argv[0], "hash"))
		usage_error("--chaos is for hash, not for ", argv[0]);
	check_repeat(o, paths, argv);
	if ((paths->trace || paths->svg) && !strcmp(argv[0], "layout"))
		usage_error("--trace and --svg are for what engines do, not for layout", "");
}

static int run_command(const struct options *options, int argc, char **argv)
{
	if (!strcmp(argv[0], "hash"))
		return hash_command(options, argc - 1, argv + 1);
	return strcmp(argv[0], "replay") ? layout_command(argv[1]) : replay_command(options, argv[1]);
}

int main(int argc, char **argv)
{
	struct options options = { .vram = 8 << 20, .seed = 1, .repeat = 1 };
	struct paths paths = { NULL, NULL };
	int code;
	int status;

	while ((code = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		parse_option(&options, &paths, code);
	argc -= optind;
	argv += optind;
	check_command(&options, &paths, argc, argv);
	options.trace = open_output(paths.trace);
	options.svg = open_output(paths.svg);

	status = run_command(&options, argc, argv);

	status |= close_output(options.trace, paths.trace);
	status |= close_output(options.svg, paths.svg);
	status |= close_output(stdout, "standard output");
	lf_fini();
	return status;
}
