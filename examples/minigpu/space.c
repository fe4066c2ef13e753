/* SPDX-License-Identifier: MIT */
/*
 * Address spaces: binds, and the walk of the engines.
 *
 * Purpose. A space is a VM with a bind queue and a heap of addresses. What is asked for changes at once; what engines walk follows when
 * the jobs have finished that must still see the old state. The fence of each bind is in the reservations of the space and of the buffer,
 * so that a move of the buffer comes after it.
 *
 * Invariants.
 * P1. An entry that is bound gets the place that the buffer had when the bind was asked for (entry.h), pieces of a split included.
 * P2. A range of addresses is used again when the bind that cleared it was applied and all jobs of the space from before are done.
 * P3. A walk finds device memory or faults: host memory is not for engines, and jobs are pushed only when all buffers of the space are in.
 *
 * Locking. One thread asks. The lock protects when binds were asked for, which the apply hook records.
 */
#include "space.h"

#include <errno.h>
#include <stdlib.h>

#include "entry.h"

#define FIRST_ADDRESS 0x100000000ULL

/* --- The engines' part -------------------------------------------------------------------------------------------------- */

/* The place stays until the job has finished, which holds a fence on it; so the pointer is good outside the read section, too. */
unsigned char *space_walk(const struct space *s, uint64_t va)
{
	const struct place *place = NULL;
	uint64_t offset = 0;
	struct lf_mapping *m;
	struct lf_view view;

	lf_read_lock();
	lf_vm_view_applied(s->vm, &view);
	m = lf_view_lookup(&view, va);
	if (m) {
		place = entry_read(m);
		offset = va - m->va + m->offset;
	}
	lf_read_unlock();
	return place_is_device(place) ? place->pages[offset / GPU_PAGE] + offset % GPU_PAGE : NULL;
}

/* --- The bind queue's part ---------------------------------------------------------------------------------------------- */

static void apply_op(const struct lf_vm_op *op)
{
	if (op->kind == LF_VM_OP_MAP)
		entry_write(op->mapping, entry_of(op->mapping)->asked);
	if (op->kind == LF_VM_OP_REMAP && op->prev)
		entry_write(op->prev, entry_of(op->prev)->asked);
	if (op->kind == LF_VM_OP_REMAP && op->next)
		entry_write(op->next, entry_of(op->next)->asked);
}

static int64_t pop_asked(struct space *s)
{
	int64_t asked;

	pthread_mutex_lock(&s->lock);
	asked = s->asked[s->applied_count++ % PENDING_BINDS];
	pthread_mutex_unlock(&s->lock);
	return asked;
}

static int apply(struct lf_vm *vm, const struct lf_vm_op *ops, size_t count, void *data)
{
	struct space *s = data;
	struct activity activity = { .start = lf_now() };
	const struct buffer *b;

	(void)vm;
	if (!count)
		return 0;
	for (size_t i = 0; i < count; i++)
		apply_op(&ops[i]);
	b = to_buffer(ops[0].mapping->vm_bo->bo);
	activity.group = b->group;
	activity.number = b->number;
	activity.asked = pop_asked(s);
	activity.end = lf_now();
	record_activity(s->lane, &activity);
	return 0;
}

/* Makes the entry of a new mapping. What a piece has copied is that of another, and may be older than a move that is under way (P1). */
static void init_entry(struct lf_mapping *m)
{
	struct entry *entry = entry_of(m);

	entry->cell = allocate(1, sizeof(*entry->cell));
	entry->asked = to_buffer(m->vm_bo->bo)->place;
}

static int split(struct lf_mapping *piece, const struct lf_mapping *of, void *data)
{
	(void)of;
	(void)data;
	init_entry(piece);
	return 0;
}

static void release_mapping(struct lf_mapping *m, void *data)
{
	(void)data;
	free(entry_of(m)->cell);
}

static int validate(struct lf_vm_bo *vm_bo, struct lf_exec *x, void *data)
{
	struct space *s = data;

	return manager_bring(to_buffer(vm_bo->bo), s->index, x);
}

static const struct lf_vm_ops space_ops = { .split = split, .mapping_release = release_mapping, .validate = validate, .apply = apply };

/* --- Asking ------------------------------------------------------------------------------------------------------------- */

enum change_kind { CHANGE_MAP, CHANGE_UNMAP, CHANGE_REAP };

struct change {
	enum change_kind kind;
	struct buffer *buffer; /* NULL: whatever it is */
	struct range range;
	uint64_t offset; /* in the buffer */
	struct lf_fence *in; /* NULL: nothing */
};

static int request(struct space *s, struct lf_txn *txn, const struct change *c)
{
	struct lf_map_desc desc = { .va = c->range.va, .size = c->range.size, .offset = c->offset };
	struct lf_mapping *m;
	int error;

	if (c->kind == CHANGE_REAP)
		return lf_txn_reap(txn);
	if (c->kind == CHANGE_UNMAP)
		return lf_txn_unmap(txn, c->range.va, c->range.size);
	desc.vm_bo = c->buffer->vm_bos[s->index];
	error = lf_txn_map(txn, &desc, &m);
	if (!error && !entry_of(m)->cell) /* else it was there already */
		init_entry(m);
	return error;
}

/* Before the submission, in which it may be applied. */
static void push_asked(struct space *s, struct lf_txn *txn)
{
	struct lf_txn_cursor cursor;
	struct lf_vm_op op;

	lf_txn_ops_begin(&cursor, txn);
	if (!lf_txn_ops_next(&cursor, &op))
		return;
	pthread_mutex_lock(&s->lock);
	s->asked[s->asked_count++ % PENDING_BINDS] = lf_now();
	pthread_mutex_unlock(&s->lock);
}

static struct lf_fence *submit_locked(struct space *s, const struct change *c)
{
	struct lf_fence *out;
	struct lf_txn txn;

	must(lf_txn_begin(&txn, s->vm), "cannot change an address space");
	must(request(s, &txn, c), "cannot change an address space");
	push_asked(s, &txn);
	must(lf_txn_submit(&txn, &c->in, c->in != NULL, &out), "cannot submit a bind");
	s->binds++;
	return out;
}

static bool is_full(struct space *s)
{
	bool full;

	pthread_mutex_lock(&s->lock);
	full = s->asked_count - s->applied_count == PENDING_BINDS;
	pthread_mutex_unlock(&s->lock);
	return full;
}

/* @return a new reference on the bind's fence. */
static struct lf_fence *submit(struct space *s, const struct change *c)
{
	struct lf_resv *resv = lf_vm_resv(s->vm);
	struct lf_fence *out;
	struct lf_exec x;

	while (is_full(s))
		lf_resv_wait(resv, LF_USAGE_BOOKKEEP, LF_DEADLINE_NEVER);
	lf_exec_init(&x, NULL);
	while (lf_exec_next(&x)) {
		lf_exec_lock(&x, resv, 1);
		if (c->buffer && c->buffer->bo.resv != resv)
			lf_exec_lock(&x, c->buffer->bo.resv, 1);
	}
	must(lf_exec_error(&x), "cannot lock an address space");
	out = submit_locked(s, c);
	lf_exec_add_fence(&x, out, LF_USAGE_BOOKKEEP);
	if (c->buffer && c->kind == CHANGE_MAP)
		buffer_set_absent(c->buffer);
	lf_exec_fini(&x);
	return out;
}

/* --- Addresses ---------------------------------------------------------------------------------------------------------- */

static uint64_t take_range(struct space *s, uint64_t size)
{
	struct lf_va_request wanted = { .size = size, .align = GPU_PAGE };
	uint64_t va;
	int error;

	while ((error = lf_va_heap_alloc(s->heap, &wanted, &va)) == -EBUSY)
		lf_resv_wait(lf_vm_resv(s->vm), LF_USAGE_BOOKKEEP, LF_DEADLINE_NEVER);
	must(error, "no addresses are left");
	return va;
}

static void retire_range(struct space *s, struct range range, struct lf_fence *cleared)
{
	lf_va_heap_retire(s->heap, range.va, range.size, lf_vm_resv(s->vm), cleared);
}

/* --- Binds -------------------------------------------------------------------------------------------------------------- */

struct lf_fence *space_bind(struct space *s, struct buffer *b, uint64_t *ret_va)
{
	struct change map = { .kind = CHANGE_MAP, .buffer = b };

	must(lf_vm_bo_obtain(s->vm, &b->bo, &b->vm_bos[s->index]), "cannot make a buffer part of an address space");
	map.range = (struct range){ take_range(s, b->bo.size), b->bo.size };
	*ret_va = map.range.va;
	return submit(s, &map);
}

static void leave_space(struct space *s, struct buffer *b)
{
	lf_vm_bo_put(b->vm_bos[s->index]);
	b->vm_bos[s->index] = NULL;
}

void space_unbind(struct space *s, struct buffer *b, uint64_t va, struct lf_fence *idle)
{
	struct change unmap = { CHANGE_UNMAP, b, { va, b->bo.size }, 0, idle };
	struct lf_fence *out = submit(s, &unmap);

	retire_range(s, unmap.range, out);
	lf_fence_put(out);
	leave_space(s, b);
}

struct lf_fence *space_rebind(struct space *s, struct buffer *b, uint64_t va, size_t first, size_t count, struct lf_fence *idle)
{
	struct range part = { va + first * GPU_PAGE, count * GPU_PAGE };
	struct change unmap = { CHANGE_UNMAP, b, part, 0, idle };
	struct change map = { CHANGE_MAP, b, part, first * GPU_PAGE, NULL };

	lf_fence_put(submit(s, &unmap));
	return submit(s, &map);
}

void space_close(struct space *s, struct buffer *b, uint64_t va)
{
	lf_vm_bo_close(b->vm_bos[s->index]);
	leave_space(s, b);
	s->closed = grow(s->closed, s->closed_count, &s->closed_capacity, sizeof(*s->closed));
	s->closed[s->closed_count++] = (struct range){ va, b->bo.size };
}

void space_reap(struct space *s)
{
	struct change reap = { .kind = CHANGE_REAP };
	struct lf_fence *out;

	if (!s->closed_count)
		return;
	must(lf_resv_get_singleton(lf_vm_resv(s->vm), LF_USAGE_BOOKKEEP, &reap.in), "cannot merge fences");
	out = submit(s, &reap);
	while (s->closed_count)
		retire_range(s, s->closed[--s->closed_count], out);
	lf_fence_put(reap.in);
	lf_fence_put(out);
}

/* --- Life --------------------------------------------------------------------------------------------------------------- */

void space_init(struct space *s, struct manager *m, unsigned index, struct lane *lane, uint64_t size)
{
	struct lf_vm_desc desc = {
		.name = "minigpu",
		.flags = LF_VM_BIND,
		.start = FIRST_ADDRESS,
		.size = size,
		.granule = GPU_PAGE,
		.mapping_size = sizeof(struct entry),
		.mapping_offset = offsetof(struct entry, mapping),
		.ops = &space_ops,
		.data = s,
	};

	*s = (struct space){ .manager = m, .index = index, .lane = lane };
	pthread_mutex_init(&s->lock, NULL);
	must(lf_vm_create(&desc, &s->vm), "cannot make an address space");
	must(lf_va_heap_create(FIRST_ADDRESS, size, &s->heap), "cannot make a heap of addresses");
}

void space_fini(struct space *s)
{
	struct lf_resv *resv = lf_vm_resv(s->vm);

	must(lf_resv_lock(resv, NULL), "cannot lock an address space");
	lf_vm_close(s->vm);
	lf_resv_unlock(resv);
	lf_vm_put(s->vm);
	lf_va_heap_destroy(s->heap);
	pthread_mutex_destroy(&s->lock);
	free(s->closed);
}
