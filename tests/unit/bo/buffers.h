/* SPDX-License-Identifier: MIT */
/*
 * Buffers for tests: backings that note when, where and how often they are released, and calls that note that they are being made.
 *
 * Oracle of every release: it comes once, never inside a read section or a call that takes a buffer, and after the fences that the test has
 * named. Hooks only take notes; the test looks at them afterwards.
 */
#ifndef BUFFERS_H
#define BUFFERS_H

#include "producer.h"

/* This thread is inside a call that takes a buffer. */
static __thread unsigned inside_call;

#define CALL(expression)       \
	do {                   \
		inside_call++; \
		expression;    \
		inside_call--; \
	} while (0)

/* A backing. Zeroed memory is one that was not released. */
struct memory {
	unsigned released; /* how often */
	unsigned wrong; /* see the oracle */
	struct lf_fence *after[4]; /* borrowed: to be signaled before it is released */
	pthread_t thread; /* that released it */
	void (*during)(struct memory *m); /* called inside */
	void *user; /* the test's */
};

static inline void memory_release(void *memory, void *user)
{
	struct memory *m = memory;
	if (inside_call || lf_read_held() || count_get(&m->released) != 0 || user != (void *)&m->wrong)
		count_up(&m->wrong);
	for (int i = 0; i < 4; i++) {
		if (m->after[i] && !lf_fence_is_signaled(m->after[i]))
			count_up(&m->wrong);
	}
	m->thread = pthread_self();
	if (m->during)
		m->during(m);
	count_up(&m->released);
}

static inline struct lf_backing backing_of(struct memory *m)
{
	return (struct lf_backing){ .memory = m, .release = memory_release, .user = &m->wrong };
}

static inline void expect_released(const struct memory *m)
{
	assert_int_equal(count_get(&m->released), 1);
	assert_int_equal(m->wrong, 0);
}

static inline void expect_there(const struct memory *m)
{
	assert_int_equal(count_get(&m->released), 0);
}

/* A driver's struct around a buffer. */
struct buffer {
	char before[24];
	struct lf_bo bo;
	unsigned *ended; /* counts */
	struct memory *last; /* not NULL: must be released before the buffer ends */
};

static inline void buffer_end(struct lf_bo *bo)
{
	struct buffer *b = (struct buffer *)(void *)((char *)bo - offsetof(struct buffer, bo));
	must(inside_call == 0 && !lf_read_held());
	must(!b->last || count_get(&b->last->released) == 1);
	if (b->ended)
		count_up(b->ended);
}

/* Makes a buffer; what the description leaves open becomes usual. */
static inline int buffer_create(struct lf_bo_desc desc, struct memory *m, struct buffer **ret)
{
	struct buffer *b = lf_alloc(sizeof(*b));
	int error;
	if (!b)
		return -ENOMEM;
	desc.offset = offsetof(struct buffer, bo);
	desc.size = desc.size ? desc.size : 4096;
	desc.release = buffer_end;
	if (m)
		desc.backing = backing_of(m);
	error = lf_bo_init(&b->bo, &desc);
	if (error) {
		lf_free(b);
		return error;
	}
	*ret = b;
	return 0;
}

/* The same where it must not fail. */
static inline struct buffer *buffer_from(struct lf_bo_desc desc, struct memory *m)
{
	struct buffer *b = NULL;
	must(buffer_create(desc, m, &b) == 0);
	return b;
}

static inline struct buffer *buffer_new(struct memory *m)
{
	return buffer_from((struct lf_bo_desc){ .size = 4096 }, m);
}

static inline void lock(struct buffer *b)
{
	must(lf_resv_lock(b->bo.resv, NULL) == 0);
}

static inline void unlock(struct buffer *b)
{
	lf_resv_unlock(b->bo.resv);
}

static inline void put(struct buffer *b)
{
	CALL(lf_bo_put(&b->bo));
}

/* The reservation is locked. */
static inline void move_locked(struct buffer *b, struct memory *m, struct lf_fence *f)
{
	struct lf_backing backing = m ? backing_of(m) : (struct lf_backing){ 0 };
	must(lf_bo_prepare_move(&b->bo) == 0);
	CALL(lf_bo_move(&b->bo, m ? &backing : NULL, f));
	must(lf_bo_memory(&b->bo) == m);
}

static inline void move(struct buffer *b, struct memory *m, struct lf_fence *f)
{
	lock(b);
	move_locked(b, m, f);
	unlock(b);
}

/* Adds a fence in a section of its own; the caller keeps its reference. */
static inline void add_fence(struct lf_resv *resv, struct lf_fence *f, enum lf_usage usage)
{
	must(lf_resv_lock(resv, NULL) == 0);
	must(lf_resv_reserve(resv, 1) == 0);
	lf_resv_add(resv, f, usage);
	lf_resv_unlock(resv);
}

static inline struct lf_fence *new_fence(void)
{
	struct lf_fence *f = NULL;
	must(lf_fence_create(&f) == 0);
	return f;
}

static inline void settle(void)
{
	must(lf_reclaim_barrier() == 0);
}

/* Puts the last reference, and sees it end: memory of the test's may be on its stack. */
static inline void end(struct buffer *b)
{
	put(b);
	settle();
}

/* --- Importers -------------------------------------------------------------------------------------------------------- */

/*
 * An importer whose hook takes notes. Oracle: it is called with the reservation held by the calling thread, outside of read sections, one
 * call at a time.
 */
struct importer {
	struct lf_attachment *a; /* the test's reference */
	struct lf_bo_map *map; /* made by hooks that map */
	unsigned told; /* how often */
	unsigned order; /* of the last call, among all importers */
	unsigned wrong, running;
	int result; /* of what a hook does */
	void (*during)(struct importer *i);
	void *user; /* the test's */
	struct flag entered, leave; /* for hooks that block */
};

static unsigned importers_told;

static inline void importer_told(struct lf_attachment *a, void *data)
{
	struct importer *i = data;
	if (!lf_resv_is_held(lf_attachment_bo(a)->resv) || lf_read_held() || count_get(&i->running) != 0)
		count_up(&i->wrong);
	count_up(&i->running);
	count_up(&i->told);
	i->order = __atomic_add_fetch(&importers_told, 1, __ATOMIC_SEQ_CST);
	if (i->during)
		i->during(i);
	count_down(&i->running);
}

static inline int attach_to(struct importer *i, struct lf_bo *bo, const char *name, struct lf_provider *provider)
{
	const struct lf_attachment_desc desc = { .name = name, .invalidate = importer_told, .data = i, .provider = provider };
	return lf_bo_attach(bo, &desc, &i->a);
}

static inline void attach(struct importer *i, struct buffer *b, const char *name)
{
	must(attach_to(i, &b->bo, name, NULL) == 0);
}

/* The reservation is locked. */
static inline struct lf_bo_map *map_locked(struct importer *i)
{
	struct lf_bo_map *map = NULL;
	int error;
	CALL(error = lf_attachment_map(i->a, &map));
	must(error == 0 && lf_bo_map_memory(map) == lf_bo_memory(lf_attachment_bo(i->a)));
	return map;
}

static inline struct lf_bo_map *map(struct importer *i)
{
	struct lf_resv *resv = lf_attachment_bo(i->a)->resv;
	struct lf_bo_map *m;
	must(lf_resv_lock(resv, NULL) == 0);
	m = map_locked(i);
	lf_resv_unlock(resv);
	return m;
}

static inline void unmap(struct lf_bo_map *m)
{
	CALL(lf_bo_unmap(m));
}

static inline void invalidate(struct buffer *b)
{
	lock(b);
	CALL(lf_bo_invalidate(&b->bo));
	unlock(b);
}

static inline void let_go(struct importer *i)
{
	CALL(lf_attachment_put(i->a));
	i->a = NULL;
	must(i->wrong == 0);
}

#endif /* BUFFERS_H */
