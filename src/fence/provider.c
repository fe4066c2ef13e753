/* SPDX-License-Identifier: MIT */
/*
 * Providers: the code of a driver, and the way to let go of it.
 *
 * Purpose: after lf_provider_close() returned 0 no instruction of the driver is called, although its fences live on. Nothing is counted per
 * fence for that: a resource (a timeline) counts the fences that still need its hooks, and ends when there are none.
 *
 * States:
 *
 *     OPEN --lf_provider_close()--> CLOSING --the last resource is removed--> CLOSED
 *
 * | state   | closing | resources | provider_add() |
 * |---------|---------|-----------|----------------|
 * | OPEN    | 0       | any       | 0              |
 * | CLOSING | 1       | some      | -ESHUTDOWN     |
 * | CLOSED  | 1       | none      | -ESHUTDOWN     |
 *
 * Invariants:
 * PR1. A resource is in the list from provider_add() to provider_remove(); the code of the provider is reachable through listed resources
 *      only.
 * PR2. Once closing is set, no resource is added; each that was there is revoked once.
 * PR3. count is the length of the list; it reaches zero under the mutex, and whoever brings it there wakes who sleeps on it.
 *
 * Locking: the mutex protects list, count and closing. Nothing is called under it.
 *
 * Lifetime: counted; each listed resource holds a reference.
 */
#include "fence/provider.h"

#include <link.h>

#include "base/alloc.h"
#include "base/library.h"
#include "base/park.h"
#include "base/refcount.h"
#include "base/text.h"
#include "base/track.h"
#include "fence/core.h"

struct lf_provider {
	lf_atomic_u32 refs;
	lf_atomic_u32 count; /* written under mutex; slept on */
	struct port_mutex mutex;
	struct provider_resource list; /* protected by mutex; a ring with this as its head */
	bool closing; /* protected by mutex */
	char name[];
};

/* --- Tracking ------------------------------------------------------------------------------------------------------------ */

static const struct track_kind provider_track_kind = { "provider", offsetof(struct lf_provider, name), NULL };

/* --- Life ---------------------------------------------------------------------------------------------------------------- */

int lf_provider_create(const char *name, struct lf_provider **ret_provider)
{
	struct lf_provider *p;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!name || !ret_provider)
		return misuse(-EINVAL, "lf_provider_create: a name and a place for the provider are both needed");
	p = mem_zalloc(sizeof(*p) + strlen(name) + 1);
	if (!p)
		return -ENOMEM;
	p->refs.value = 1;
	port_mutex_init(&p->mutex);
	p->list.prev = p->list.next = &p->list;
	strcpy(p->name, name);
	track_add(p, &provider_track_kind);
	*ret_provider = p;
	return 0;
}

struct lf_provider *lf_provider_get(struct lf_provider *p)
{
	if (p)
		refcount_get(&p->refs, "lf_provider_get");
	return p;
}

void lf_provider_put(struct lf_provider *p)
{
	if (!p || library_poisoned() || !refcount_put(&p->refs, "lf_provider_put"))
		return;
	track_remove(p);
	port_mutex_fini(&p->mutex);
	mem_free(p);
}

const char *provider_name(const struct lf_provider *p)
{
	return p->name;
}

/* --- Resources ----------------------------------------------------------------------------------------------------------- */

/* Written under the mutex. */
static void set_count(struct lf_provider *p, uint32_t count)
{
	/* order: provider-count (release): whoever sees zero sees that all hooks have returned */
	u32_store(&p->count, count, PLANT_ORDER(116, memory_order_relaxed, memory_order_release));
}

static uint32_t get_count(const struct lf_provider *p)
{
	return u32_load(&p->count, PLANT_ORDER(117, memory_order_relaxed, memory_order_acquire)); /* order: provider-count (acquire) */
}

int provider_add(struct lf_provider *p, struct provider_resource *r)
{
	bool closing;

	r->provider = p;
	if (!p)
		return 0;
	lf_provider_get(p); /* before it is listed, since from then on it can be removed */
	port_mutex_lock(&p->mutex);
	closing = p->closing;
	if (!closing) {
		r->revoked = false;
		r->prev = p->list.prev;
		r->next = &p->list;
		r->prev->next = r;
		r->next->prev = r;
		set_count(p, get_count(p) + 1);
	}
	port_mutex_unlock(&p->mutex);
	if (!closing)
		return 0;
	lf_provider_put(p);
	return -ESHUTDOWN;
}

void provider_remove(struct provider_resource *r)
{
	struct lf_provider *p = r->provider;
	uint32_t left;

	if (!p)
		return;
	if (!PLANTED(178))
		port_mutex_lock(&p->mutex);
	r->prev->next = r->next;
	r->next->prev = r->prev;
	left = get_count(p) - 1;
	set_count(p, left);
	if (!PLANTED(178))
		port_mutex_unlock(&p->mutex);
	if (left == 0 && !PLANTED(189))
		park_wake(&p->count);
	lf_provider_put(p);
}

/* --- Close --------------------------------------------------------------------------------------------------------------- */

static bool inside_own_hook(const struct lf_provider *p)
{
	for (const struct hook_frame *h = this_thread()->hooks; h; h = h->outer) {
		if (h->provider == p)
			return true;
	}
	return false;
}

/* The next resource that has not been revoked, with a reference; NULL when there is none. Marks it. */
static struct provider_resource *next_to_revoke(struct lf_provider *p)
{
	struct provider_resource *r, *found = NULL;

	port_mutex_lock(&p->mutex);
	p->closing = true;
	for (r = p->list.next; r != &p->list && !found; r = r->next) {
		if (r->revoked)
			continue;
		r->revoked = true;
		if (refcount_tryget(r->refs))
			found = r; /* else it is ending by itself, and will remove itself */
	}
	port_mutex_unlock(&p->mutex);
	return found;
}

static bool sleep_until_empty(struct lf_provider *p, int64_t deadline)
{
	uint32_t count;

	while ((count = get_count(p)) != 0) {
		if (!park_wait(&p->count, count, deadline))
			return get_count(p) == 0;
	}
	return true;
}

/* Names up to so many resources that are left; the log is called without the mutex, so their names are copied. */
static void name_what_is_left(struct lf_provider *p)
{
	char line[400];
	struct text text = { line, sizeof(line), 0 };

	port_mutex_lock(&p->mutex);
	for (const struct provider_resource *r = p->list.next; r != &p->list && text_room(&text) > 1; r = r->next)
		text_add(&text, "%s%s %s", text.len ? ", " : "", r->kind, r->name);
	port_mutex_unlock(&p->mutex);
	if (text.len)
		log_message(LF_LOG_WARNING, "provider %s is not closed yet; left are: %s", p->name, line);
}

/* --- Callbacks that stay behind, in debug builds ----------------------------------------------------------------------------- */

struct left_behind {
	uintptr_t code, begin, end; /* an address of the closing provider's, and the object that it lies in */
	const struct lf_fence *fence[8];
	const struct lf_fence_cb *cb[8];
	size_t n;
};

/* Looks the object up before any lock is taken: the loader has locks of its own. */
static int find_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct left_behind *left = arg;
	uintptr_t begin = UINTPTR_MAX, end = 0;

	(void)size;
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		uintptr_t at = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;

		if (info->dlpi_phdr[i].p_type != PT_LOAD)
			continue;
		if (at < begin)
			begin = at;
		if (at + info->dlpi_phdr[i].p_memsz > end)
			end = at + info->dlpi_phdr[i].p_memsz;
	}
	if (left->code < begin || left->code >= end)
		return 0;
	left->begin = begin;
	left->end = end;
	return 1;
}

static bool lies_in_object(const struct left_behind *left, lf_fence_cb_fn func)
{
	return (uintptr_t)func >= left->begin && (uintptr_t)func < left->end;
}

static void look_for_callbacks(void *object, void *arg)
{
	struct lf_fence *f = object;
	struct left_behind *left = arg;
	uintptr_t word = fence_lock(f);

	for (struct lf_fence_cb *cb = word_list(word); cb && left->n < array_size(left->cb); cb = cb->next) {
		if ((cb_state(cb) & CB_INTERNAL) || !lies_in_object(left, cb->func))
			continue;
		left->fence[left->n] = f;
		left->cb[left->n++] = cb;
	}
	fence_unlock(f, word);
}

/* @code is an address inside the provider's object, taken before its resources ended; NULL when it had no hooks. */
static void name_callbacks_left(const struct lf_provider *p, const void *code)
{
	struct left_behind left = { .code = (uintptr_t)code };

	if (!DEBUG_CHECKS || !code || !dl_iterate_phdr(find_object, &left))
		return;
	track_for_each(&fence_track_kind, look_for_callbacks, &left);
	for (size_t i = 0; i < left.n; i++)
		log_message(LF_LOG_WARNING, "provider %s: callback node %p on fence %p calls into its object, and was not cancelled", p->name,
			(const void *)left.cb[i], (const void *)left.fence[i]);
}

int lf_provider_close(struct lf_provider *p, int64_t deadline)
{
	struct provider_resource *r;
	const void *code = NULL;
	int ret;

	if (!p)
		return misuse(-EINVAL, "lf_provider_close: the provider is NULL");
	ret = library_check_wait(__func__);
	if (ret)
		return ret;
	if (inside_own_hook(p))
		return misuse(-EDEADLK, "lf_provider_close: called inside a hook of provider %s, for whose end it would wait", p->name);
	while ((r = next_to_revoke(p)) != NULL) {
		if (r->code)
			code = r->code;
		r->revoke(r);
		r->put(r);
	}
	if (!sleep_until_empty(p, deadline)) {
		name_what_is_left(p);
		return -ETIME;
	}
	name_callbacks_left(p, code);
	return 0;
}
