/* SPDX-License-Identifier: MIT */
/* The least that is a fence: a futex word and a count. No callbacks, no error. */
#include "peers.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PENDING, WAITED_FOR, SIGNALED };

struct fx_fence {
	atomic_uint word;
	atomic_uint count;
};

struct fx_fence *fx_fence_create(void)
{
	struct fx_fence *f = malloc(sizeof(*f));

	if (!f)
		return NULL;
	atomic_init(&f->word, PENDING);
	atomic_init(&f->count, 1);
	return f;
}

void fx_fence_put(struct fx_fence *f)
{
	if (atomic_fetch_sub_explicit(&f->count, 1, memory_order_acq_rel) == 1)
		free(f);
}

bool fx_fence_signal(struct fx_fence *f, int error)
{
	unsigned old = atomic_exchange_explicit(&f->word, SIGNALED, memory_order_acq_rel);

	(void)error;
	if (old == WAITED_FOR)
		syscall(SYS_futex, &f->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
	return old != SIGNALED;
}

bool fx_fence_is_signaled(const struct fx_fence *f)
{
	return atomic_load_explicit(&f->word, memory_order_acquire) == SIGNALED;
}

int fx_fence_wait(struct fx_fence *f)
{
	unsigned word = atomic_load_explicit(&f->word, memory_order_acquire);

	while (word != SIGNALED) {
		if (word == WAITED_FOR ||
		    atomic_compare_exchange_strong_explicit(&f->word, &word, WAITED_FOR, memory_order_acquire, memory_order_acquire))
			syscall(SYS_futex, &f->word, FUTEX_WAIT_PRIVATE, WAITED_FOR, NULL, NULL, 0);
		word = atomic_load_explicit(&f->word, memory_order_acquire);
	}
	return 0;
}
