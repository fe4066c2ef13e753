/* SPDX-License-Identifier: MIT */
/* Sleeping on a word, with futex. Overview in park.h. */
#include "base/park.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>

/* SYS_futex takes the kernel's own timespec: with 64-bit time_t on a 32-bit machine that is another one. */
_Static_assert(sizeof(time_t) == sizeof(long), "configure with -Dpark=condvar on a 32-bit machine with 64-bit time");

void park_wait_real(const lf_atomic_u32 *word, uint32_t expected, int64_t until)
{
	struct timespec ts = { (time_t)(until / PORT_NSEC_PER_SEC), (long)(until % PORT_NSEC_PER_SEC) };

	/* WAIT_BITSET takes an absolute CLOCK_MONOTONIC time, where WAIT would take a relative one. */
	syscall(SYS_futex, &word->value, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, until == LF_DEADLINE_NEVER ? NULL : &ts, NULL,
		FUTEX_BITSET_MATCH_ANY);
}

bool park_wait(const lf_atomic_u32 *word, uint32_t expected, int64_t deadline)
{
	if (deadline != LF_DEADLINE_NEVER && lf_now() >= deadline)
		return false;
	park_wait_real(word, expected, park_real_deadline(deadline));
	return true;
}

void park_wake(const void *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX, NULL, NULL, 0);
}

void park_after_fork_child(void)
{
}
