/* SPDX-License-Identifier: MIT */
/* Text that is put together piece by piece, and cut where its buffer ends. */
#ifndef LF_BASE_TEXT_H
#define LF_BASE_TEXT_H

#include "base/port.h"

/* Begins as { buffer, its size, 0 }. */
struct text {
	char *buf;
	size_t size;
	int len; /* of all that was added; what fits of it is in buf */
};

/* Where the next piece goes, and how much of it fits, for functions that write like snprintf(); len grows by what they return. */
static inline char *text_end(const struct text *t)
{
	return (size_t)t->len < t->size ? t->buf + t->len : NULL;
}

static inline size_t text_room(const struct text *t)
{
	return (size_t)t->len < t->size ? t->size - (size_t)t->len : 0;
}

void text_add(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif /* LF_BASE_TEXT_H */
