/* SPDX-License-Identifier: MIT */
/*
 * Grace periods, and the read side of the builds for tests. Overview in rcu.h.
 *
 * What ThreadSanitizer must be told (LF_RCU_TSAN; liburcu itself is not instrumented): a section that was open when a grace period was
 * asked for happens before its end. One tag for all would say more than that, and hide uses outside of sections, so there is a ring of
 * tags: a section samples the epoch after the real lock and releases the epoch's tag before the real unlock; a grace period takes the
 * next epoch before the real wait and acquires all tags up to it afterwards. If a section's epoch is not greater than the grace period's,
 * it was inside before, and was waited for; if it is greater, its loads began after the removal. Reuse of a tag after RING epochs only
 * adds edges.
 */
#include "base/rcu.h"

#include <dlfcn.h>

#ifdef LF_RCU_TSAN

void __tsan_acquire(void *addr);
void __tsan_release(void *addr);

enum { RING = 4096 };
static long ring[RING];
static unsigned long epoch; /* touched by the two functions below only, which must not make edges of their own */
static __thread unsigned long section_epoch, acquired;
static __thread unsigned nesting;

__attribute__((no_sanitize("thread"), noinline)) static unsigned long epoch_get(void)
{
	return __atomic_load_n(&epoch, __ATOMIC_SEQ_CST);
}

__attribute__((no_sanitize("thread"), noinline)) static unsigned long epoch_next(void)
{
	return __atomic_fetch_add(&epoch, 1, __ATOMIC_SEQ_CST);
}

static void note_begin(void)
{
	if (nesting++ == 0)
		section_epoch = epoch_get();
}

static void note_end(void)
{
	if (--nesting == 0)
		__tsan_release(&ring[section_epoch % RING]);
}

static void note_grace_period(unsigned long n)
{
	if (n < acquired)
		return;
	if (n - acquired > RING)
		acquired = n - RING;
	for (; acquired <= n; acquired++)
		__tsan_acquire(&ring[acquired % RING]);
}

#else

static unsigned long epoch_next(void)
{
	return 0;
}

static void note_grace_period(unsigned long n)
{
	(void)n;
}

#if defined(LF_RCU_EAGER) || defined(LF_RCU_MEMB)
static void note_begin(void)
{
}

static void note_end(void)
{
}
#endif

#endif /* LF_RCU_TSAN */

#ifdef LF_RCU_MEMB

/* memb wants threads registered: done at the first section, and undone when the thread ends. */
static __thread bool registered;
static pthread_key_t exit_key;
static pthread_once_t exit_once = PTHREAD_ONCE_INIT;

static void unregister(void *unused)
{
	(void)unused;
	registered = false;
	RCU_FLAVOR(unregister_thread)();
}

static void make_key(void)
{
	pthread_key_create(&exit_key, unregister);
}

static void register_here(void)
{
	if (registered)
		return;
	registered = true;
	pthread_once(&exit_once, make_key);
	pthread_setspecific(exit_key, &registered);
	RCU_FLAVOR(register_thread)();
}

#elif defined(LF_RCU_TSAN) || defined(LF_RCU_EAGER)

static void register_here(void)
{
}

#endif /* LF_RCU_MEMB */

#if defined(LF_RCU_TSAN) || defined(LF_RCU_EAGER) || defined(LF_RCU_MEMB)

void rcu_begin(void) LF_NO_THREAD_ANALYSIS
{
	register_here();
	RCU_FLAVOR(read_lock)();
	note_begin();
}

void rcu_end(void) LF_NO_THREAD_ANALYSIS
{
	port_point();
	note_end();
	RCU_FLAVOR(read_unlock)();
	port_point();
#ifdef LF_RCU_EAGER
	/* The window in which a use after the section meets memory that is gone already. */
	static __thread unsigned n;

	if (++n % 64 == 0)
		usleep(200);
#endif
}

bool rcu_held(void)
{
	register_here();
	return RCU_FLAVOR(read_ongoing)();
}

#endif

void rcu_synchronize(void) LF_NO_THREAD_ANALYSIS
{
	unsigned long n = epoch_next();

	RCU_FLAVOR(synchronize_rcu)();
	note_grace_period(n);
}

void rcu_keep_loaded(void)
{
	void (*synchronize)(void) = RCU_FLAVOR(synchronize_rcu);
	Dl_info liburcu;
	void *address;

	memcpy(&address, &synchronize, sizeof(address)); /* C has no cast from a function to an object */
	/* For ever, and whoever asks: what this returns is never closed. In a static program there is nothing to keep. */
	if (dladdr(address, &liburcu) && liburcu.dli_fname)
		(void)dlopen(liburcu.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

#ifdef LF_RCU_MEMB

void rcu_before_fork(void)
{
}

void rcu_after_fork_parent(void)
{
}

void rcu_after_fork_child(void)
{
}

#else

void rcu_before_fork(void)
{
	RCU_FLAVOR(before_fork)();
}

void rcu_after_fork_parent(void)
{
	RCU_FLAVOR(after_fork_parent)();
}

void rcu_after_fork_child(void)
{
	RCU_FLAVOR(after_fork_child)();
}

#endif
