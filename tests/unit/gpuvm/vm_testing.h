/* SPDX-License-Identifier: MIT */
/*
 * What the tests of address spaces share: buffers, VMs and requests in short form, and views and operations as text.
 *
 * A *world* is a VM with four buffers, a to d, and a place where its page 0 is. In texts all numbers are pages of it:
 *
 *     a4+2:8     pages 4 and 5 show buffer a from its page 8 on; a4+2:8!1 the same with flags 1; -4+2 without a buffer
 *     map a4+2:8, unmap 4+2, split 4+2, prefetch 4+2, reap          requests
 *     U a4+2:8                          UNMAP; Uk with keep
 *     R a4+4:0 <a4+1:0 >a7+1:3          REMAP: prev behind <, next behind >
 *     M a4+2:8                          MAP; Mk with keep
 *     P a4+4:0 5+1                      PREFETCH of page 5 of a mapping
 */
#ifndef VM_TESTING_H
#define VM_TESTING_H

#include <inttypes.h>

#include "../../lib/producer.h"

#define PAGE UINT64_C(4096)
#define GIB  (UINT64_C(1) << 30)
#define LAST UINT64_MAX

/* --- Buffers ---------------------------------------------------------------------------------------------------------------- */

/* A buffer that counts its release. */
struct test_bo {
	uint64_t driver; /* so that the library's part does not lie at the beginning */
	struct lf_bo bo;
	unsigned *released;
};

static inline struct test_bo *to_test_bo(struct lf_bo *bo)
{
	return (struct test_bo *)((char *)bo - offsetof(struct test_bo, bo));
}

static inline void count_bo_release(struct lf_bo *bo)
{
	if (to_test_bo(bo)->released)
		count_up(to_test_bo(bo)->released);
}

static inline int bo_create(uint64_t size, struct lf_resv *resv, unsigned *released, struct lf_bo **ret_bo)
{
	const struct lf_bo_desc desc = { .offset = offsetof(struct test_bo, bo), .size = size, .resv = resv, .release = count_bo_release };
	struct test_bo *b = lf_alloc(sizeof(*b));
	int error;

	if (b == NULL)
		return -ENOMEM;
	b->released = released;
	error = lf_bo_init(&b->bo, &desc);
	if (error != 0)
		lf_free(b);
	else
		*ret_bo = &b->bo;
	return error;
}

/* A buffer that must not fail, in a reservation that it shares, or with NULL in one of its own. */
static inline struct lf_bo *bo_new(uint64_t size, struct lf_resv *resv)
{
	struct lf_bo *bo = NULL;

	must(bo_create(size, resv, NULL, &bo) == 0);
	return bo;
}

/* --- VMs -------------------------------------------------------------------------------------------------------------------- */

static inline struct lf_vm *vm_new(const struct lf_vm_desc *desc)
{
	struct lf_vm *vm = NULL;

	must(lf_vm_create(desc, &vm) == 0);
	return vm;
}

static inline void vm_lock(struct lf_vm *vm)
{
	must(lf_resv_lock(lf_vm_resv(vm), NULL) == 0);
}

static inline void vm_unlock(struct lf_vm *vm)
{
	lf_resv_unlock(lf_vm_resv(vm));
}

static inline void vm_close(struct lf_vm *vm)
{
	vm_lock(vm);
	must(lf_vm_close(vm) == 0);
	vm_unlock(vm);
}

static inline void vm_end(struct lf_vm *vm)
{
	vm_close(vm);
	lf_vm_put(vm);
}

static inline struct lf_vm_stats stats_of(struct lf_vm *vm)
{
	struct lf_vm_stats stats;

	lf_vm_get_stats(vm, &stats);
	return stats;
}

static inline struct lf_vm_bo *obtain(struct lf_vm *vm, struct lf_bo *bo)
{
	struct lf_vm_bo *vm_bo = NULL;

	must(lf_vm_bo_obtain(vm, bo, &vm_bo) == 0);
	must(vm_bo != NULL && vm_bo->vm == vm && vm_bo->bo == bo);
	return vm_bo;
}

static inline int txn_map(struct lf_txn *txn, struct lf_vm_bo *vm_bo, uint64_t va, uint64_t size, uint64_t offset)
{
	const struct lf_map_desc desc = { .va = va, .size = size, .vm_bo = vm_bo, .offset = offset };

	return lf_txn_map(txn, &desc, NULL);
}

/* A transaction of one request, which must not fail. */
static inline void map_now(struct lf_vm *vm, struct lf_vm_bo *vm_bo, uint64_t va, uint64_t size, uint64_t offset)
{
	struct lf_txn txn;

	vm_lock(vm);
	must(lf_txn_begin(&txn, vm) == 0);
	must(txn_map(&txn, vm_bo, va, size, offset) == 0);
	lf_txn_commit(&txn);
	vm_unlock(vm);
}

static inline void unmap_now(struct lf_vm *vm, uint64_t va, uint64_t size)
{
	struct lf_txn txn;

	vm_lock(vm);
	must(lf_txn_begin(&txn, vm) == 0);
	must(lf_txn_unmap(&txn, va, size) == 0);
	lf_txn_commit(&txn);
	vm_unlock(vm);
}

/* Hands out what closed buffers left; returns how many operations that were. */
static inline unsigned reap_now(struct lf_vm *vm)
{
	struct lf_txn txn;
	struct lf_txn_cursor cursor;
	struct lf_vm_op op;
	unsigned count = 0;

	vm_lock(vm);
	must(lf_txn_begin(&txn, vm) == 0);
	must(lf_txn_reap(&txn) == 0);
	lf_txn_ops_begin(&cursor, &txn);
	while (lf_txn_ops_next(&cursor, &op)) {
		must(op.kind == LF_VM_OP_UNMAP && !op.keep);
		count++;
	}
	lf_txn_commit(&txn);
	vm_unlock(vm);
	return count;
}

/* Looks without a lock. The pointer is good for comparing only. */
static inline const struct lf_mapping *look(struct lf_vm *vm, uint64_t va)
{
	const struct lf_mapping *m;

	lf_read_lock();
	m = lf_vm_lookup(vm, va);
	lf_read_unlock();
	return m;
}

static inline const struct lf_mapping *look_applied(struct lf_vm *vm, uint64_t va)
{
	struct lf_view view;
	const struct lf_mapping *m;

	lf_read_lock();
	lf_vm_view_applied(vm, &view);
	m = lf_view_lookup(&view, va);
	lf_read_unlock();
	return m;
}

/* --- Dumps: all there is to see in a view, to be compared with another -------------------------------------------------------- */

struct dumped {
	const struct lf_mapping *m;
	uint64_t va, size, offset;
	const struct lf_vm_bo *vm_bo;
	uint32_t flags;
};

struct dump {
	struct dumped *all;
	size_t count, room;
};

static inline void dump_add(struct dump *d, const struct lf_mapping *m)
{
	if (d->count == d->room) {
		d->room = d->room ? 2 * d->room : 64;
		d->all = realloc(d->all, d->room * sizeof(*d->all));
		must(d->all != NULL);
	}
	memset(&d->all[d->count], 0, sizeof(*d->all));
	d->all[d->count].m = m;
	d->all[d->count].va = m->va;
	d->all[d->count].size = m->size;
	d->all[d->count].offset = m->offset;
	d->all[d->count].vm_bo = m->vm_bo;
	d->all[d->count].flags = m->flags;
	d->count++;
}

/* Begins with zeroed storage, which may be used again and again; dump_free() ends it. */
static inline void dump_view(struct dump *d, const struct lf_view *view)
{
	struct lf_walk walk;
	struct lf_mapping *m;

	d->count = 0;
	lf_walk_begin(&walk, view, 0, 0);
	while ((m = lf_walk_next(&walk)) != NULL) {
		must(d->count == 0 || m->va > d->all[d->count - 1].va + (d->all[d->count - 1].size - 1));
		must(m->size != 0 && m->va + (m->size - 1) >= m->va);
		dump_add(d, m);
	}
}

static inline void dump_vm(struct dump *d, struct lf_vm *vm)
{
	struct lf_view view;

	lf_read_lock();
	lf_vm_view(vm, &view);
	dump_view(d, &view);
	lf_read_unlock();
}

/* Equal to the pointer. */
static inline bool dump_equal(const struct dump *a, const struct dump *b)
{
	return a->count == b->count && (a->count == 0 || memcmp(a->all, b->all, a->count * sizeof(*a->all)) == 0);
}

static inline const struct dumped *dump_find(const struct dump *d, const struct lf_mapping *m)
{
	for (size_t i = 0; i < d->count; i++) {
		if (d->all[i].m == m)
			return &d->all[i];
	}
	return NULL;
}

static inline void dump_free(struct dump *d)
{
	free(d->all);
	memset(d, 0, sizeof(*d));
}

/* All of a VM that an abort must leave as it was. */
struct picture {
	struct dump dump;
	struct lf_vm_stats stats;
};

static inline void picture_take(struct picture *p, struct lf_vm *vm)
{
	dump_vm(&p->dump, vm);
	p->stats = stats_of(vm);
}

static inline bool picture_equal(const struct picture *a, const struct picture *b)
{
	return dump_equal(&a->dump, &b->dump) && a->stats.version == b->stats.version && a->stats.mappings == b->stats.mappings &&
		a->stats.nodes == b->stats.nodes && a->stats.bytes == b->stats.bytes && a->stats.held == b->stats.held &&
		a->stats.pinned == b->stats.pinned;
}

static inline bool picture_matches(const struct picture *p, struct lf_vm *vm)
{
	struct picture now = { { NULL, 0, 0 }, { 0, 0, 0, 0, 0, 0 } };
	bool same;

	picture_take(&now, vm);
	same = picture_equal(p, &now);
	dump_free(&now.dump);
	return same;
}

/* --- Worlds ------------------------------------------------------------------------------------------------------------------ */

#define WORLD_BOS      4
#define WORLD_BO_PAGES 4096

struct world {
	struct lf_vm *vm;
	struct lf_bo *bo[WORLD_BOS];
	struct lf_vm_bo *vm_bo[WORLD_BOS];
	uint64_t base; /* address of page 0 */
	uint64_t page; /* bytes */
};

/* @desc NULL: all 64 bits, pages of 4096 bytes. The buffers share the VM's reservation. */
static inline void world_init_at(struct world *w, const struct lf_vm_desc *desc, uint64_t base)
{
	const struct lf_vm_desc plain = { .name = "world" };

	memset(w, 0, sizeof(*w));
	w->vm = vm_new(desc ? desc : &plain);
	w->page = desc && desc->granule ? desc->granule : PAGE;
	w->base = base;
	for (int i = 0; i < WORLD_BOS; i++) {
		w->bo[i] = bo_new(WORLD_BO_PAGES * w->page, lf_vm_resv(w->vm));
		w->vm_bo[i] = obtain(w->vm, w->bo[i]);
	}
}

static inline void world_init(struct world *w, const struct lf_vm_desc *desc)
{
	world_init_at(w, desc, 0);
}

static inline void world_put_bos(struct world *w)
{
	for (int i = 0; i < WORLD_BOS; i++) {
		lf_vm_bo_put(w->vm_bo[i]);
		lf_bo_put(w->bo[i]);
		w->vm_bo[i] = NULL;
	}
}

static inline void world_fini(struct world *w)
{
	world_put_bos(w);
	vm_end(w->vm);
	w->vm = NULL;
}

/* --- Texts ------------------------------------------------------------------------------------------------------------------- */

struct text {
	char s[8192];
	size_t used;
};

__attribute__((format(printf, 2, 3))) static inline void text_add(struct text *t, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(t->s + t->used, sizeof(t->s) - t->used, format, args);
	va_end(args);
	must(n >= 0 && (size_t)n < sizeof(t->s) - t->used);
	t->used += (size_t)n;
}

static inline void text_clear(struct text *t)
{
	t->used = 0;
	t->s[0] = '\0';
}

/* By the buffer and not the VM_BO, of which there may be several in a row. */
static inline char letter_of(const struct world *w, const struct lf_vm_bo *vm_bo)
{
	for (int i = 0; vm_bo && i < WORLD_BOS; i++) {
		if (w->bo[i] == vm_bo->bo)
			return (char)('a' + i);
	}
	return vm_bo ? '?' : '-';
}

static inline void text_mapping(struct text *t, const struct world *w, const struct lf_mapping *m)
{
	must(m->vm == w->vm && m->va % w->page == 0 && m->size % w->page == 0 && m->offset % w->page == 0);
	text_add(t, "%c%" PRIu64 "+%" PRIu64, letter_of(w, m->vm_bo), (m->va - w->base) / w->page, m->size / w->page);
	if (m->vm_bo)
		text_add(t, ":%" PRIu64, m->offset / w->page);
	if (m->flags)
		text_add(t, "!%" PRIu32, m->flags);
}

static inline void text_view(struct text *t, const struct world *w, const struct lf_view *view)
{
	struct lf_walk walk;
	struct lf_mapping *m;

	text_clear(t);
	lf_walk_begin(&walk, view, 0, 0);
	while ((m = lf_walk_next(&walk)) != NULL) {
		text_add(t, "%s", t->used ? " " : "");
		text_mapping(t, w, m);
	}
}

static inline void text_vm(struct text *t, const struct world *w)
{
	struct lf_view view;

	lf_read_lock();
	lf_vm_view(w->vm, &view);
	text_view(t, w, &view);
	lf_read_unlock();
}

static inline void text_applied(struct text *t, const struct world *w)
{
	struct lf_view view;

	lf_read_lock();
	lf_vm_view_applied(w->vm, &view);
	text_view(t, w, &view);
	lf_read_unlock();
}

/* What must be true of every operation by itself. */
static inline void op_check(const struct lf_vm_op *op)
{
	const struct lf_mapping *m = op->mapping, *prev = op->prev, *next = op->next;
	uint64_t va = m->va + (prev ? prev->size : 0), size = m->size - (prev ? prev->size : 0) - (next ? next->size : 0);

	must(op->kind == LF_VM_OP_REMAP ? prev || next : !prev && !next);
	must(!prev || (prev->va == m->va && prev->offset == m->offset && prev->size <= m->size));
	must(!next || (next->va + (next->size - 1) == m->va + (m->size - 1) && next->va > m->va));
	must(!next || !m->vm_bo || next->offset - next->va == m->offset - m->va);
	must(!prev || (prev->vm_bo == m->vm_bo && prev->flags == m->flags));
	must(!next || (next->vm_bo == m->vm_bo && next->flags == m->flags));
	if (op->kind == LF_VM_OP_PREFETCH)
		must(op->size != 0 && op->va >= m->va && op->va + (op->size - 1) <= m->va + (m->size - 1));
	else
		must(op->va == va && op->size == size);
}

static inline void text_op(struct text *t, const struct world *w, const struct lf_vm_op *op)
{
	op_check(op);
	text_add(t, "%s%c%s ", t->used ? ", " : "", "URMP"[op->kind], op->keep ? "k" : "");
	text_mapping(t, w, op->mapping);
	if (op->prev) {
		text_add(t, " <");
		text_mapping(t, w, op->prev);
	}
	if (op->next) {
		text_add(t, " >");
		text_mapping(t, w, op->next);
	}
	if (op->kind == LF_VM_OP_PREFETCH)
		text_add(t, " %" PRIu64 "+%" PRIu64, (op->va - w->base) / w->page, op->size / w->page);
}

static inline void text_ops(struct text *t, const struct world *w, struct lf_txn *txn)
{
	struct lf_txn_cursor cursor;
	struct lf_vm_op op;

	text_clear(t);
	lf_txn_ops_begin(&cursor, txn);
	while (lf_txn_ops_next(&cursor, &op))
		text_op(t, w, &op);
}

/* --- Requests ---------------------------------------------------------------------------------------------------------------- */

static inline int request_map(struct world *w, struct lf_txn *txn, const char **script)
{
	struct lf_map_desc desc = { 0, 0, NULL, 0, 0 };
	uint64_t va, size, offset = 0;
	unsigned flags = 0;
	char letter;
	int n = 0;

	must(sscanf(*script, " %c%" SCNu64 "+%" SCNu64 "%n", &letter, &va, &size, &n) == 3);
	*script += n;
	if (sscanf(*script, ":%" SCNu64 "%n", &offset, &n) == 1)
		*script += n;
	if (sscanf(*script, "!%u%n", &flags, &n) == 1)
		*script += n;
	desc.va = w->base + va * w->page;
	desc.size = size * w->page;
	desc.vm_bo = letter == '-' ? NULL : w->vm_bo[letter - 'a'];
	desc.offset = offset * w->page;
	desc.flags = flags;
	return lf_txn_map(txn, &desc, NULL);
}

static inline int request_range(struct world *w, struct lf_txn *txn, const char *verb, const char **script)
{
	uint64_t va, size;
	int n = 0;

	must(sscanf(*script, " %" SCNu64 "+%" SCNu64 "%n", &va, &size, &n) == 2);
	*script += n;
	va = w->base + va * w->page;
	size *= w->page;
	if (strcmp(verb, "unmap") == 0)
		return lf_txn_unmap(txn, va, size);
	if (strcmp(verb, "split") == 0)
		return lf_txn_split(txn, va, size);
	must(strcmp(verb, "prefetch") == 0);
	return lf_txn_prefetch(txn, va, size);
}

/* Makes the next request of a script: 0 or its error, 1 when there is none. */
static inline int request(struct world *w, struct lf_txn *txn, const char **script)
{
	char verb[16];
	int n = 0;

	if (sscanf(*script, " %15[a-z]%n", verb, &n) != 1)
		return 1;
	*script += n;
	if (strcmp(verb, "map") == 0)
		return request_map(w, txn, script);
	if (strcmp(verb, "reap") == 0)
		return lf_txn_reap(txn);
	return request_range(w, txn, verb, script);
}

/* All of it, up to the first error. */
static inline int requests(struct world *w, struct lf_txn *txn, const char *script)
{
	int error;

	while ((error = request(w, txn, &script)) == 0)
		;
	return error == 1 ? 0 : error;
}

/* A transaction that must not fail. */
static inline void world_do(struct world *w, const char *script)
{
	struct lf_txn txn;

	vm_lock(w->vm);
	must(lf_txn_begin(&txn, w->vm) == 0);
	must(requests(w, &txn, script) == 0);
	lf_txn_commit(&txn);
	vm_unlock(w->vm);
}

static inline void expect_layout(struct world *w, const char *expected)
{
	struct text t;

	text_vm(&t, w);
	assert_string_equal(t.s, expected);
}

static inline void expect_applied(struct world *w, const char *expected)
{
	struct text t;

	text_applied(&t, w);
	assert_string_equal(t.s, expected);
}

#endif /* VM_TESTING_H */
