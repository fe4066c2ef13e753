/* SPDX-License-Identifier: MIT */
/*
 * Read sections and grace periods: the one place that names liburcu.
 *
 * Purpose: the flavour is bp, since the library lives in threads that it does not own: bp registers a thread at its first read section and
 * unregisters it at its end. The ThreadSanitizer job may use memb (registered here in the same way), with which it sees more.
 *
 * Three builds: inlined (LF_RCU_INLINE: 2 ns a section instead of 17; liburcu allows its inline code to LGPL-compatible users), called, and
 * annotated for ThreadSanitizer (LF_RCU_TSAN, rcu.c). LF_RCU_EAGER pauses after read sections so that use after one shows. A build with
 * another port (LF_PORT_HEADER, see port.h) brings grace periods of its own instead of rcu.c, and needs no liburcu.
 *
 * Invariant R1: when rcu_synchronize() returns, every read section that was open at its call has ended.
 *
 * Not here: who waits for grace periods and what happens then (reclaim.c). Nothing in a path that a driver takes per submit waits for one.
 */
#ifndef LF_BASE_RCU_H
#define LF_BASE_RCU_H

#include "base/port.h"

#ifndef LF_PORT_HEADER
#if defined(LF_RCU_INLINE) && !defined(LF_RCU_TSAN)
#define _LGPL_SOURCE
#endif
#define URCU_NO_COMPAT_IDENTIFIERS
#ifdef LF_RCU_MEMB
#include <urcu/urcu-memb.h>
#define RCU_FLAVOR(x) urcu_memb_##x
#else
#include <urcu/urcu-bp.h>
#define RCU_FLAVOR(x) urcu_bp_##x
#endif
#endif /* LF_PORT_HEADER */

/* The read side as a capability that clang checks: functions that may only run inside or only outside a section say so. Never defined. */
struct LF_CAPABILITY("read section") rcu_capability {
	int dummy;
};
extern struct rcu_capability rcu_section;

#if defined(LF_RCU_TSAN) || defined(LF_RCU_EAGER) || defined(LF_RCU_MEMB) || defined(LF_PORT_HEADER)

void rcu_begin(void) LF_ANNOTATE(acquire_shared_capability(rcu_section));
void rcu_end(void) LF_ANNOTATE(release_shared_capability(rcu_section));
bool rcu_held(void);

#else

static inline void rcu_begin(void) LF_ANNOTATE(acquire_shared_capability(rcu_section)) LF_NO_THREAD_ANALYSIS
{
	RCU_FLAVOR(read_lock)();
}

static inline void rcu_end(void) LF_ANNOTATE(release_shared_capability(rcu_section)) LF_NO_THREAD_ANALYSIS
{
	RCU_FLAVOR(read_unlock)();
}

/* Whether this thread is inside a read section. */
static inline bool rcu_held(void)
{
	return RCU_FLAVOR(read_ongoing)();
}

#endif

/* Waits for a grace period. Not inside a read section. */
void rcu_synchronize(void) LF_EXCLUDES(rcu_section);

/*
 * Keeps liburcu loaded. It runs code of its own at the end of each thread that had a read section; when a plug-in that brought it along goes,
 * that code must not.
 */
void rcu_keep_loaded(void);

/* Bracket a fork; the child knows only the thread that forked. */
void rcu_before_fork(void);
void rcu_after_fork_parent(void);
void rcu_after_fork_child(void);

#endif /* LF_BASE_RCU_H */
