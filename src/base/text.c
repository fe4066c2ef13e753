/* SPDX-License-Identifier: MIT */
/* Text that is put together piece by piece. Overview in text.h. */
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>

void text_add(struct text *t, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	t->len += vsnprintf(text_end(t), text_room(t), format, args);
	va_end(args);
}
