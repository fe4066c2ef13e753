/* SPDX-License-Identifier: MIT */
/* What a fuzz target needs under libFuzzer, which has the main function. */
#include "fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct fuzz_progress progress;
struct fuzz_progress *fuzz_progress = &progress;

/* Of sanitizers: called before the process ends because of what they, or libFuzzer, found. */
void __sanitizer_set_death_callback(void (*callback)(void));

static void tell(void)
{
	fuzz_dump(stderr);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	__sanitizer_set_death_callback(tell);
	fuzz_start();
	return 0;
}
