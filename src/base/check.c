/* SPDX-License-Identifier: MIT */
/* What the library says when a contract is broken. Overview in check.h. */
#include "base/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static lf_log_fn log_fn; /* written while nobody uses the library */
static void *log_user;

static void default_log(enum lf_log_level level, const char *message)
{
	static const char *const names[] = { "misuse: ", "warning: ", "" };

	fprintf(stderr, "libfence: %s%s\n", names[level], message);
}

static void log_va(enum lf_log_level level, const char *format, va_list args)
{
	char message[512];

	vsnprintf(message, sizeof(message), format, args);
	if (log_fn)
		log_fn(log_user, level, message);
	else
		default_log(level, message);
}

void log_message(enum lf_log_level level, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_va(level, format, args);
	va_end(args);
}

int misuse(int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_va(LF_LOG_MISUSE, format, args);
	va_end(args);
	return error;
}

void invariant_broken(const char *file, int line, const char *cond)
{
	fprintf(stderr, "libfence: broken invariant at %s:%d: %s\n", file, line, cond);
	abort();
}

int check_error_slow(const char *function, int error)
{
	if (error <= 0 && error >= -LF_MAX_ERROR)
		return error;
	return misuse(-EINVAL, "%s: error %d is not 0 or -1 to -%d; -EINVAL is used", function, error, LF_MAX_ERROR);
}

void lf_set_log(lf_log_fn fn, void *user)
{
	log_fn = fn;
	log_user = user;
}
