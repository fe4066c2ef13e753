/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz target on programs that are made from a seed.
 *
 *     fuzz_vm [--seed S] [--ops N]          programs of S, one after the other, until they have done N operations
 *     fuzz_vm --seed S --ops 10000000       what a release is run with (17 s)
 *     fuzz_vm [--seed S] --program K        the Kth of them alone, in this process (for a debugger)
 *     fuzz_vm FILE...                       programs in files, such as libFuzzer's; - is standard input
 *     ... --save FILE                       where a shrunk program that fails is written
 *
 * Programs run in a child process. When it fails, or ends in any way but a good one, the parent knows from the memory that they share which
 * program it was, cuts out whatever it fails without, each attempt in a child of its own, and shows what is left. The parent itself never
 * uses the library: a child of a process that has would be another thing.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

enum { SHRINK_SECONDS = 60, TRY_SECONDS = 20 };

/* A program's bytes. */
struct program {
	size_t size;
	uint8_t bytes[FUZZ_HEAD + FUZZ_MAX_OPS * FUZZ_OP];
};

static struct {
	uint64_t seed, ops;
	const char *save;
	struct program now, smaller;
	bool quiet;
} options = { .ops = 300000 };

struct fuzz_progress *fuzz_progress;

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* --- Programs -------------------------------------------------------------------------------------------------------------- */

/* Most are short; some are long, so that versions pile up. */
static void make_program(uint64_t number, struct program *p)
{
	uint64_t random = (options.seed * UINT64_C(0xd1342543de82ef95) + number * UINT64_C(0x9e3779b97f4a7c16)) | 1;
	for (int i = 0; i < 4; i++)
		random_next(&random);
	size_t ops = 100 + random_next(&random) % (random_next(&random) % 4 == 0 ? FUZZ_MAX_OPS - 100 : 1900);
	p->size = FUZZ_HEAD + ops * FUZZ_OP;
	for (size_t i = 0; i < p->size; i += 8) {
		uint64_t word = random_next(&random);
		memcpy(&p->bytes[i], &word, 8);
	}
}

static void read_program(const char *name, struct program *p)
{
	FILE *file = strcmp(name, "-") == 0 ? stdin : fopen(name, "rb");
	if (file == NULL) {
		perror(name);
		exit(2);
	}
	p->size = fread(p->bytes, 1, sizeof(p->bytes), file);
	if (file != stdin)
		fclose(file);
}

static void save_program(const struct program *p)
{
	FILE *file = options.save ? fopen(options.save, "wb") : NULL;
	if (file == NULL)
		return;
	fwrite(p->bytes, 1, p->size, file);
	fclose(file);
	fprintf(stderr, "written to %s\n", options.save);
}

/* --- In the child ---------------------------------------------------------------------------------------------------------- */

/* Of sanitizers, which do not raise a signal. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void tell(void)
{
	fuzz_progress->failed = true;
	if (!options.quiet)
		fuzz_dump(stderr);
}

/* Not what a handler may do in general: the process is about to end, and nobody else knows what it did. */
static void on_signal(int number)
{
	signal(number, SIG_DFL);
	tell();
	raise(number);
}

static void enter(void)
{
	static const int numbers[] = { SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGALRM };
	bool sanitized = test_is_sanitized();
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (!sanitized || numbers[i] == SIGABRT || numbers[i] == SIGALRM)
			signal(numbers[i], on_signal);
	}
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(tell);
	fuzz_start();
}

static void leave(void)
{
	fuzz_settle();
	must(lf_fini() == 0);
}

/* Alone, with a check of what is left, so that a leak is its own. */
static void run_alone(const struct program *p)
{
	enter();
	LLVMFuzzerTestOneInput(p->bytes, p->size);
	leave();
}

static void run_all(void)
{
	enter();
	for (uint64_t number = 0; fuzz_progress->ops < options.ops; number++) {
		fuzz_progress->program = number;
		make_program(number, &options.now);
		LLVMFuzzerTestOneInput(options.now.bytes, options.now.size);
	}
	leave();
}

/* --- In the parent --------------------------------------------------------------------------------------------------------- */

/* Runs the programs of the seed, or one alone; returns whether all went well. */
static bool in_child(const struct program *alone)
{
	int status;
	fflush(NULL);
	fuzz_progress->failed = false;
	pid_t pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		if (options.quiet) {
			int null = open("/dev/null", O_WRONLY);
			must(null >= 0 && dup2(null, STDOUT_FILENO) >= 0 && dup2(null, STDERR_FILENO) >= 0);
		}
		if (alone) {
			alarm(test_is_sanitized() ? 4 * TRY_SECONDS : TRY_SECONDS);
			run_alone(alone);
		} else {
			run_all();
		}
		exit(0);
	}
	must(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 && !fuzz_progress->failed;
}

/* Cuts @count operations out from the @first on; keeps that if it still fails. */
static bool cut_out(struct program *p, size_t first, size_t count)
{
	struct program *smaller = &options.smaller;
	size_t at = FUZZ_HEAD + first * FUZZ_OP, end = at + count * FUZZ_OP;
	if (end > p->size)
		end = p->size;
	memcpy(smaller->bytes, p->bytes, at);
	memcpy(smaller->bytes + at, p->bytes + end, p->size - end);
	smaller->size = p->size - (end - at);
	if (in_child(smaller))
		return false;
	memcpy(p->bytes, smaller->bytes, smaller->size);
	p->size = smaller->size;
	return true;
}

static void shrink(struct program *p)
{
	double end = seconds() + SHRINK_SECONDS;
	options.quiet = true;
	/* what comes behind the step that failed was never run */
	size_t steps = (size_t)fuzz_progress->steps;
	if (FUZZ_HEAD + (steps + 1) * FUZZ_OP < p->size)
		cut_out(p, steps + 1, (p->size - FUZZ_HEAD) / FUZZ_OP);
	for (size_t count = (p->size - FUZZ_HEAD) / FUZZ_OP / 2; count != 0; count /= 2) {
		for (size_t first = 0; FUZZ_HEAD + first * FUZZ_OP < p->size && seconds() < end;) {
			if (!cut_out(p, first, count))
				first += count;
		}
	}
	options.quiet = false;
}

static void shrink_and_show(struct program *p)
{
	fprintf(stderr, "\nshrinking (at most %d s) ...\n", SHRINK_SECONDS);
	shrink(p);
	fprintf(stderr, "%zu operations are left:\n\n", (p->size - FUZZ_HEAD) / FUZZ_OP);
	if (in_child(p))
		fprintf(stderr, "which do not fail every time\n");
	save_program(p);
}

/* A batch that leaves something behind failed as a whole: each of its programs is tried alone. */
static void show_failure(void)
{
	uint64_t last = fuzz_progress->program, number = last;
	fprintf(stderr, "\nfuzz: --seed %llu --program %llu failed in step %llu\n", (unsigned long long)options.seed,
		(unsigned long long)last, (unsigned long long)fuzz_progress->steps);
	options.quiet = true;
	make_program(number, &options.now);
	while (in_child(&options.now)) {
		if (number == 0 || last - number == FUZZ_BATCH) {
			fprintf(stderr, "neither that one nor one before it fails alone\n");
			return;
		}
		make_program(--number, &options.now);
	}
	options.quiet = false;
	fprintf(stderr, "fuzz: --seed %llu --program %llu fails alone, in step %llu\n", (unsigned long long)options.seed,
		(unsigned long long)number, (unsigned long long)fuzz_progress->steps);
	shrink_and_show(&options.now);
}

/* As many to a line as fit. */
static void show_counts(const char *const *names, const uint64_t *counts)
{
	char line[400];
	size_t used = 0;
	for (int i = 0; names[i] != NULL; i++) {
		used += (size_t)snprintf(line + used, sizeof(line) - used, "%s%s %llu", used ? ", " : "", names[i],
			(unsigned long long)counts[i]);
		if (used > 110 || names[i + 1] == NULL) {
			test_note("%s", line);
			used = 0;
		}
	}
}

static void show_run(double took)
{
	const struct fuzz_progress *p = fuzz_progress;
	show_counts(fuzz_kinds, p->count);
	show_counts(fuzz_hits, p->hit);
	test_note("%llu operations in %llu programs, %llu whole versions compared: %.1f s, %.0f operations/s", (unsigned long long)p->ops,
		(unsigned long long)p->program + 1, (unsigned long long)p->checks, took, (double)p->ops / took);
}

static int fuzz_seed(void)
{
	double start = seconds();
	if (!in_child(NULL)) {
		show_failure();
		return EXIT_FAILURE;
	}
	show_run(seconds() - start);
	return EXIT_SUCCESS;
}

static int fuzz_file(const char *name)
{
	read_program(name, &options.now);
	if (in_child(&options.now))
		return EXIT_SUCCESS;
	shrink_and_show(&options.now);
	return EXIT_FAILURE;
}

/* --- Command line ---------------------------------------------------------------------------------------------------------- */

static void share_progress(void)
{
	fuzz_progress = mmap(NULL, sizeof(*fuzz_progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(fuzz_progress != MAP_FAILED);
}

static uint64_t number_of(int argc, char **argv, int i)
{
	if (i + 1 >= argc) {
		fprintf(stderr, "%s needs a number\n", argv[i]);
		exit(2);
	}
	return strtoull(argv[i + 1], NULL, 0);
}

/* A tenth under a sanitizer; LF_STRESS as everywhere. */
static uint64_t default_ops(void)
{
	return (uint64_t)test_rounds(test_is_sanitized() ? 30000 : 300000);
}

int main(int argc, char **argv)
{
	int status = EXIT_SUCCESS, files = 0;
	bool alone = false;
	uint64_t number = 0;
	share_progress();
	options.seed = 1;
	options.ops = default_ops();
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--seed") == 0) {
			options.seed = number_of(argc, argv, i++);
		} else if (strcmp(argv[i], "--ops") == 0) {
			options.ops = number_of(argc, argv, i++);
		} else if (strcmp(argv[i], "--program") == 0) {
			number = number_of(argc, argv, i++);
			alone = true;
		} else if (strcmp(argv[i], "--save") == 0 && i + 1 < argc) {
			options.save = argv[++i];
		} else {
			files++;
			status |= fuzz_file(argv[i]);
		}
	}
	if (files != 0)
		return status;
	if (!alone)
		return fuzz_seed();
	make_program(number, &options.now);
	run_alone(&options.now);
	return EXIT_SUCCESS;
}
