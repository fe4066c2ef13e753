/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz target on programs that are made from a seed.
 *
 *     fuzz_vm [--seed S] [--ops N]          programs of S, one after the other, until they have done N operations
 *     fuzz_vm --seed S --ops 10000000       what a release is run with (17 s)
 *     fuzz_vm [--seed S] --program K        the Kth of them alone, in this process (for a debugger)
 *     fuzz_vm FILE...                       programs in files, such as libFuzzer's; - is standard input, of a directory all files
 *     ... --seeds DIRECTORY                 texts are made out of those in its files
 *     ... --save FILE                       where a shrunk program that fails is written
 *
 * Programs run in a child process. When it fails, or ends in any way but a good one, the parent knows from the memory that they share which
 * program it was, cuts out whatever it fails without, each attempt in a child of its own, and shows what is left. The parent itself never
 * uses the library: a child of a process that has would be another thing.
 */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum { SHRINK_SECONDS = 60, TRY_SECONDS = 20 };

/* A program's bytes. */
struct program {
	size_t size;
	uint8_t bytes[FUZZ_MAX_SIZE];
};

static struct {
	uint64_t seed, ops;
	const char *save;
	struct fuzz_seeds seeds;
	struct program now, smaller;
	bool quiet;
} options;

struct fuzz_progress *fuzz_progress;

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* --- Programs -------------------------------------------------------------------------------------------------------------- */

/* Most are short; some are long, so that much piles up. */
static void make_ops(uint64_t *random, struct program *p)
{
	size_t ops = 100 + (size_t)(random_next(random) % (random_next(random) % 4 == 0 ? FUZZ_MAX_OPS - 100 : 1900));
	p->size = FUZZ_HEAD + ops * FUZZ_OP;
	for (size_t i = 0; i < p->size; i += 8) {
		uint64_t word = random_next(random);
		memcpy(&p->bytes[i], &word, 8);
	}
}

static void make_program(uint64_t number, struct program *p)
{
	uint64_t random = (options.seed * UINT64_C(0xd1342543de82ef95) + number * UINT64_C(0x9e3779b97f4a7c16)) | 1;
	for (int i = 0; i < 4; i++)
		random_next(&random);
	if (fuzz_target.text)
		p->size = fuzz_target.make(&random, &options.seeds, p->bytes, sizeof(p->bytes));
	else
		make_ops(&random, p);
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

/* The names of the files of a directory, in order; NULL behind the last. */
static char **files_of(const char *directory)
{
	struct dirent **entries = NULL;
	int count = scandir(directory, &entries, NULL, alphasort);
	size_t files = 0;
	if (count < 0) {
		perror(directory);
		exit(2);
	}
	char **names = calloc((size_t)count + 1, sizeof(char *));
	must(names != NULL);
	for (int i = 0; i < count; i++) {
		if (entries[i]->d_name[0] != '.')
			must(asprintf(&names[files++], "%s/%s", directory, entries[i]->d_name) > 0);
		free(entries[i]);
	}
	free(entries);
	return names;
}

static void free_names(char **names)
{
	for (char **name = names; *name != NULL; name++)
		free(*name);
	free(names);
}

static void add_seed(const char *name)
{
	struct fuzz_seeds *seeds = &options.seeds;
	seeds->seed = realloc(seeds->seed, (seeds->count + 1) * sizeof(*seeds->seed));
	must(seeds->seed != NULL);
	struct fuzz_seed *seed = &seeds->seed[seeds->count++];
	read_program(name, &options.now);
	seed->size = options.now.size;
	seed->bytes = malloc(seed->size + 1);
	must(seed->bytes != NULL);
	memcpy(seed->bytes, options.now.bytes, seed->size);
}

static void read_seeds(const char *directory)
{
	char **names = files_of(directory);
	for (char **name = names; *name != NULL; name++)
		add_seed(*name);
	free_names(names);
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
		fuzz_target.dump(stderr);
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
	fuzz_target.start();
}

static void run(const struct program *p)
{
	fuzz_target.run(p->bytes, p->size);
	fuzz_progress->ops += fuzz_target.text;
}

static void settle(void)
{
	if (fuzz_target.settle)
		fuzz_target.settle();
}

static void leave(void)
{
	settle();
	must(lf_fini() == 0);
}

/* Alone, with a check of what is left, so that a leak is its own. */
static void run_alone(const struct program *p)
{
	enter();
	run(p);
	leave();
}

static void run_all(void)
{
	enter();
	for (uint64_t number = 0; fuzz_progress->ops < options.ops; number++) {
		fuzz_progress->program = number;
		make_program(number, &options.now);
		run(&options.now);
		if (number % FUZZ_BATCH == FUZZ_BATCH - 1)
			settle();
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

/* What may not be cut out, and the pieces that the rest may be cut into. */
static size_t head_size(void)
{
	return fuzz_target.text ? 0 : FUZZ_HEAD;
}

static size_t piece_size(void)
{
	return fuzz_target.text ? 1 : FUZZ_OP;
}

static size_t pieces(const struct program *p)
{
	return p->size <= head_size() ? 0 : (p->size - head_size()) / piece_size();
}

/* Cuts @count pieces out from the @first on; keeps that if it still fails. */
static bool cut_out(struct program *p, size_t first, size_t count)
{
	struct program *smaller = &options.smaller;
	size_t at = head_size() + first * piece_size(), end = at + count * piece_size();
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
	if (!fuzz_target.text && steps + 1 < pieces(p))
		cut_out(p, steps + 1, pieces(p));
	for (size_t count = pieces(p) / 2; count != 0; count /= 2) {
		for (size_t first = 0; first < pieces(p) && seconds() < end;) {
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
	fprintf(stderr, "%zu %s are left:\n\n", pieces(p), fuzz_target.text ? "bytes" : "operations");
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
	for (int i = 0; names != NULL && names[i] != NULL; i++) {
		used += (size_t)snprintf(
			line + used, sizeof(line) - used, "%s%s %llu", used ? ", " : "", names[i], (unsigned long long)counts[i]);
		if (used > 110 || names[i + 1] == NULL) {
			test_note("%s", line);
			used = 0;
		}
	}
}

static void show_run(double took)
{
	const struct fuzz_progress *p = fuzz_progress;
	show_counts(fuzz_target.kinds, p->count);
	show_counts(fuzz_target.hits, p->hit);
	test_note("%llu %s in %llu programs, %llu %s: %.1f s, %.0f %s/s", (unsigned long long)p->ops,
		fuzz_target.text ? "texts" : "operations", (unsigned long long)p->program + 1, (unsigned long long)p->checks,
		fuzz_target.checks, took, (double)p->ops / took, fuzz_target.text ? "texts" : "operations");
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
	fprintf(stderr, "\nfuzz: %s fails\n", name);
	shrink_and_show(&options.now);
	return EXIT_FAILURE;
}

/* Each file alone; a directory without any is a mistake. */
static int fuzz_directory(const char *directory)
{
	int status = EXIT_SUCCESS;
	size_t count = 0;
	char **names = files_of(directory);
	for (; names[count] != NULL; count++)
		status |= fuzz_file(names[count]);
	free_names(names);
	test_note("%zu programs of %s, %llu %s", count, directory, (unsigned long long)fuzz_progress->checks, fuzz_target.checks);
	return count == 0 ? EXIT_FAILURE : status;
}

static int fuzz_path(const char *name)
{
	struct stat about;
	return stat(name, &about) == 0 && S_ISDIR(about.st_mode) ? fuzz_directory(name) : fuzz_file(name);
}

/* --- Command line ---------------------------------------------------------------------------------------------------------- */

static void share_progress(void)
{
	fuzz_progress = mmap(NULL, sizeof(*fuzz_progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(fuzz_progress != MAP_FAILED);
}

static const char *argument_of(int argc, char **argv, int i)
{
	if (i + 1 >= argc) {
		fprintf(stderr, "%s needs an argument\n", argv[i]);
		exit(2);
	}
	return argv[i + 1];
}

static uint64_t number_of(int argc, char **argv, int i)
{
	return strtoull(argument_of(argc, argv, i), NULL, 0);
}

/* A tenth under a sanitizer; LF_STRESS as everywhere. */
static uint64_t default_ops(void)
{
	return (uint64_t)test_rounds(test_is_sanitized() ? fuzz_target.ops / 10 : fuzz_target.ops);
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
		} else if (strcmp(argv[i], "--save") == 0) {
			options.save = argument_of(argc, argv, i++);
		} else if (strcmp(argv[i], "--seeds") == 0) {
			read_seeds(argument_of(argc, argv, i++));
		} else {
			files++;
			status |= fuzz_path(argv[i]);
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
