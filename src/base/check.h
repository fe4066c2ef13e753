/* SPDX-License-Identifier: MIT */
/*
 * What the library says when a contract is broken.
 *
 * Two tiers: cheap checks are in every build, report through the log and let the call return an error; costly ones, and the assertions of
 * numbered invariants, only with LF_DEBUG_CHECKS. The disabled form still compiles its expression.
 */
#ifndef LF_BASE_CHECK_H
#define LF_BASE_CHECK_H

#include "base/port.h"

#ifdef LF_DEBUG_CHECKS
#define DEBUG_CHECKS true
#else
#define DEBUG_CHECKS false
#endif

/* Sends one line to the log. Not with a lock held: the log may be the user's. */
void log_message(enum lf_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Reports a broken contract and returns @error, so that a check reads `return misuse(-EINVAL, ...)`. */
int misuse(int error, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/* Asserts a numbered invariant in debug builds: a bug of the library, not of its user. */
#define invariant(cond)                                                                                                            \
	do {                                                                                                                       \
		if (DEBUG_CHECKS && !(cond))                                                                                       \
			invariant_broken(__FILE__, __LINE__, #cond);                                                               \
	} while (0)

/* The same in all builds, for checkers that tests call. */
#define invariant_always(cond) ((cond) ? (void)0 : invariant_broken(__FILE__, __LINE__, #cond))

void invariant_broken(const char *file, int line, const char *cond) __attribute__((noreturn, cold));

int check_error_slow(const char *function, int error);

/* Clamps an error that a caller gave for a fence: 0 and -1 to -LF_MAX_ERROR pass, anything else is reported and becomes -EINVAL. */
static inline int check_error(const char *function, int error)
{
	return likely(error == 0) ? 0 : check_error_slow(function, error);
}

#endif /* LF_BASE_CHECK_H */
