/* SPDX-License-Identifier: MIT */
/*
 * What a fuzz target needs under libFuzzer, which has the main function.
 *
 * What a program leaves behind shows only when a batch of them is settled, and libFuzzer keeps the last one alone. So when that goes wrong
 * all of the batch are written beside it, as batch-0, batch-1 ...: fuzz_main.c runs each of them alone.
 */
#include "fuzz.h"

#include <signal.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

const char *__asan_default_options(void);

static struct fuzz_progress progress;
struct fuzz_progress *fuzz_progress = &progress;

static struct {
	uint8_t *bytes[FUZZ_BATCH];
	size_t size[FUZZ_BATCH];
	unsigned count;
	bool settling;
	const char *prefix; /* of files */
} batch = { .prefix = "" };

/*
 * What was deferred looks like a leak after each program, and to look for leaks takes longer than the program. All memory is counted
 * anyway, and must be gone when a batch is settled. The rest is for speed.
 */
const char *__asan_default_options(void)
{
	return "detect_leaks=0:malloc_context_size=10:quarantine_size_mb=64";
}

static void write_program(unsigned i)
{
	char name[1000];
	snprintf(name, sizeof(name), "%sbatch-%u", batch.prefix, i);
	FILE *file = fopen(name, "wb");
	if (file == NULL)
		return;
	fwrite(batch.bytes[i], 1, batch.size[i], file);
	fclose(file);
}

static void tell(void)
{
	fuzz_target.dump(stderr);
	if (!batch.settling)
		return;
	for (unsigned i = 0; i < batch.count; i++)
		write_program(i);
	fprintf(stderr, "one of the last %u programs left something behind; all of them are in %sbatch-*\n", batch.count, batch.prefix);
}

static struct sigaction libfuzzers;

/* What must() ends with: ours first, then libFuzzer's, which keeps the program. */
static void on_abort(int number, siginfo_t *info, void *context)
{
	tell();
	libfuzzers.sa_sigaction(number, info, context);
}

/* When the first program runs libFuzzer has its handlers in place; it would leave out those that it finds taken. */
static void catch_abort(void)
{
	struct sigaction ours = { .sa_sigaction = on_abort, .sa_flags = SA_SIGINFO };
	must(sigaction(SIGABRT, NULL, &libfuzzers) == 0);
	must((libfuzzers.sa_flags & SA_SIGINFO) && libfuzzers.sa_sigaction != NULL);
	must(sigaction(SIGABRT, &ours, NULL) == 0);
}

static void remember(const uint8_t *data, size_t size)
{
	unsigned i = batch.count++;
	batch.bytes[i] = realloc(batch.bytes[i], size + 1);
	must(batch.bytes[i] != NULL);
	if (size != 0)
		memcpy(batch.bytes[i], data, size);
	batch.size[i] = size;
}

static void settle(void)
{
	batch.settling = true;
	fuzz_target.settle();
	batch.settling = false;
	batch.count = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (libfuzzers.sa_sigaction == NULL)
		catch_abort();
	fuzz_target.run(data, size);
	if (fuzz_target.settle == NULL)
		return 0;
	remember(data, size);
	if (batch.count == FUZZ_BATCH)
		settle();
	return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const char option[] = "-artifact_prefix=";
	for (int i = 1; i < *argc; i++) {
		if (strncmp((*argv)[i], option, strlen(option)) == 0)
			batch.prefix = (*argv)[i] + strlen(option);
	}
	fuzz_target.start();
	return 0;
}
