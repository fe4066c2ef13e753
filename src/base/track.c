/* SPDX-License-Identifier: MIT */
/* The list of live objects. Overview in track.h. */
#include "base/track.h"

#ifndef LF_NO_BACKTRACE
#include <execinfo.h>
#endif
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/text.h"

enum { BUCKET_BITS = 12, BUCKETS = 1 << BUCKET_BITS, MAX_FRAMES = 16, SKIPPED_FRAMES = 2 };

struct entry {
	struct entry *next;
	const void *object;
	const struct track_kind *kind;
	int frames;
	void *where[]; /* @frames of them */
};

lf_atomic_u32 track_flags;

static struct port_mutex mutex = PORT_MUTEX_INIT;
static struct entry *buckets[BUCKETS]; /* protected by mutex */

#ifdef LF_NO_BACKTRACE /* a C library without call stacks: objects are listed without */
static int backtrace(void **where, int n)
{
	(void)where;
	(void)n;
	return 0;
}

static char **backtrace_symbols(void *const *where, int n)
{
	(void)where;
	(void)n;
	return NULL;
}
#endif

static struct entry **bucket_of(const void *object)
{
	return &buckets[hash_bits((uintptr_t)object >> 4, BUCKET_BITS)];
}

void track_add_slow(const void *object, const struct track_kind *kind)
{
	void *where[MAX_FRAMES];
	struct entry *e, **bucket = bucket_of(object);
	int n = 0;

	/* relaxed: see track_add() */
	if (u32_load(&track_flags, memory_order_relaxed) & LF_TRACK_WHERE)
		n = backtrace(where, MAX_FRAMES);
	n = n > SKIPPED_FRAMES ? n - SKIPPED_FRAMES : 0;
	e = mem_alloc(sizeof(*e) + (size_t)n * sizeof(e->where[0]));
	if (!e)
		return;
	e->object = object;
	e->kind = kind;
	e->frames = n;
	memcpy(e->where, where + SKIPPED_FRAMES, (size_t)n * sizeof(e->where[0]));
	port_mutex_lock(&mutex);
	e->next = *bucket;
	*bucket = e;
	port_mutex_unlock(&mutex);
}

void track_remove_slow(const void *object)
{
	struct entry *e, **link;

	if (!PLANTED(183))
		port_mutex_lock(&mutex);
	for (link = bucket_of(object); (e = *link) != NULL; link = &e->next) {
		if (e->object == object) {
			*link = e->next;
			break;
		}
	}
	if (!PLANTED(183))
		port_mutex_unlock(&mutex);
	mem_free(e);
}

void track_for_each(const struct track_kind *kind, void (*fn)(void *object, void *arg), void *arg)
{
	port_mutex_lock(&mutex);
	for (size_t i = 0; i < BUCKETS; i++) {
		for (struct entry *e = buckets[i]; e; e = e->next) {
			if (e->kind == kind)
				fn((void *)(uintptr_t)e->object, arg);
		}
	}
	port_mutex_unlock(&mutex);
}

void track_before_fork(void) LF_NO_THREAD_ANALYSIS
{
	port_mutex_lock(&mutex);
}

void track_after_fork(void) LF_NO_THREAD_ANALYSIS
{
	port_mutex_unlock(&mutex);
}

static void report(const struct entry *e)
{
	char line[480], what[120];
	struct text text = { line, sizeof(line), 0 };
	char **symbols = e->frames ? backtrace_symbols(e->where, e->frames) : NULL;

	if (e->kind->label)
		snprintf(what, sizeof(what), "%s", (const char *)e->object + e->kind->label);
	else
		e->kind->describe(e->object, what, sizeof(what));
	text_add(&text, "still alive: %s %p %s", e->kind->name, e->object, what);
	for (int i = 0; symbols && i < e->frames && text_room(&text) > 0; i++)
		text_add(&text, "%s%s", i == 0 ? ", made at " : " < ", symbols[i]);
	free(symbols);
	log_message(LF_LOG_INFO, "%s", line);
}

/* Empties the table. */
static struct entry *take_all(void)
{
	struct entry *all = NULL, *e;

	port_mutex_lock(&mutex);
	for (size_t i = 0; i < BUCKETS; i++) {
		while ((e = buckets[i]) != NULL) {
			buckets[i] = e->next;
			e->next = all;
			all = e;
		}
	}
	port_mutex_unlock(&mutex);
	return all;
}

int track_report(void)
{
	struct entry *all = take_all(), *e; /* out of the table first: the log is called without a lock */
	int n = 0;

	while ((e = all) != NULL) {
		all = e->next;
		report(e);
		mem_free(e);
		n++;
	}
	return n;
}

int lf_track(unsigned flags)
{
	struct entry *all, *e;

	if (flags & ~(unsigned)(LF_TRACK_OBJECTS | LF_TRACK_WHERE))
		return misuse(-EINVAL, "lf_track: unknown flags %#x", flags);
	if (flags & LF_TRACK_WHERE)
		flags |= LF_TRACK_OBJECTS;
	u32_store(&track_flags, flags, memory_order_relaxed); /* relaxed: see track_add() */
	if (flags)
		return 0;
	all = take_all();
	while ((e = all) != NULL) {
		all = e->next;
		mem_free(e);
	}
	return 0;
}
