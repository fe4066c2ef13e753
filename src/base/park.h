/* SPDX-License-Identifier: MIT */
/*
 * Sleeping on a word.
 *
 * Purpose: a thread sleeps while a word has a value; who changes the word wakes whoever sleeps on it. Two back ends, chosen when the
 * build is configured: futex (park_futex.c) and condition variables in a table by address (park_condvar.c). park_wait(), which knows the
 * replaced clock, is not theirs: it stands beside that in library.c.
 *
 * Invariants:
 * P1. park_wait() does not sleep when the word differs from @expected at its call; a change of the word that is followed by park_wake()
 *     ends the sleep. So a flag and its waiters must share the word: whoever changes it and then wakes loses nobody.
 * P2. park_wake() does not touch the word, only its address: the word may be gone by then. Who sleeps on other memory at the same address
 *     wakes for nothing, and looks again.
 * P3. Neither is called in a poisoned child (library.h): a condition variable's mutex may be held by a thread that is not there.
 */
#ifndef LF_BASE_PARK_H
#define LF_BASE_PARK_H

#include "base/port.h"

/*
 * Sleeps while *word == expected: until woken, until the deadline (absolute nanoseconds of lf_now()), or for no reason. Returns false
 * once the deadline has passed. Not inside a read section.
 */
bool park_wait(const lf_atomic_u32 *word, uint32_t expected, int64_t deadline);

/* Like park_wait(), but the deadline is of CLOCK_MONOTONIC, whatever lf_set_clock() put in its place; the caller looks at it itself. */
void park_wait_real(const lf_atomic_u32 *word, uint32_t expected, int64_t until);

/* Wakes all that sleep on the word's address. */
void park_wake(const void *word);

/* In the child of a bracketed fork: forgets the parent's sleepers. */
void park_after_fork_child(void);

#endif /* LF_BASE_PARK_H */
