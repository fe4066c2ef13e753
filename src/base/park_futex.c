/* SPDX-License-Identifier: MIT */
/* Sleeping on a word, with futex. Overview in park.h. */
#include "base/park.h"

#include "base/check.h"
#include "base/library.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>

/*
 * WAIT_BITSET takes an absolute CLOCK_MONOTONIC time, where WAIT would take a relative one. The kernel does not know which time_t a program
 * was built with: SYS_futex takes seconds of a long, and on 32-bit machines SYS_futex_time64 those of 64 bits.
 */
static void sleep_until(const lf_atomic_u32 *word, uint32_t expected, const struct timespec *until)
{
	enum { OPERATION = FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG };

	struct {
		long sec, nsec;
	} until_long = { 0 };

#ifdef SYS_futex_time64
	if (sizeof(time_t) > sizeof(long)) {
		if (syscall(SYS_futex_time64, &word->value, OPERATION, expected, until, NULL, FUTEX_BITSET_MATCH_ANY) == 0 || errno != ENOSYS)
			return; /* ENOSYS: a kernel before 5.1 */
	}
#else
	_Static_assert(sizeof(time_t) == sizeof(long), "the build should have chosen -Dpark=condvar");
#endif
	if (until) {
		until_long.sec = until->tv_sec > LONG_MAX ? LONG_MAX : (long)until->tv_sec; /* see port_timespec() */
		until_long.nsec = until->tv_nsec;
	}
	syscall(SYS_futex, &word->value, OPERATION, expected, until ? &until_long : NULL, NULL, FUTEX_BITSET_MATCH_ANY);
}

void park_wait_real(const lf_atomic_u32 *word, uint32_t expected, int64_t until)
{
	struct timespec ts = port_timespec(until);

	invariant(!library_poisoned()); /* P3 */
	sleep_until(word, expected, until == LF_DEADLINE_NEVER ? NULL : &ts);
}

void park_wake(const void *word)
{
	invariant(!library_poisoned()); /* P3 */
	syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX, NULL, NULL, 0);
}

void park_after_fork_child(void)
{
}
