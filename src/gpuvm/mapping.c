/* SPDX-License-Identifier: MIT */
/*
 * Mappings: a range of addresses that shows a part of a buffer.
 *
 * States, by who refers to it:
 *
 *     born in a transaction --commit--> in the tree --commit without it--> dead --last reference--> ending --grace period--> freed
 *            \--abort, or replaced in the same transaction--> freed
 *
 * Invariants:
 * M1. A mapping's named fields never change. So a reader that found it in a version sees what the version says.
 * M2. It has one reference for all versions that it is in, which ends with the last of them (mapping_end_list()). Others are users'.
 * M3. Its VM_BO, or, if it has none, the VM, lives until its memory ends, or, without a release hook, until the last reference is gone: what
 *     a reader can reach from it ends a grace period later, too, since the VM_BO's last put comes afterwards. The reference that sees to
 *     that is its own (MAPPING_OWNS), or it borrows that of its VM_BO's list:
 * M4. It is in its VM_BO's list while it is in the version asked for. `of` is NULL then, but while a transaction has it in its list of
 *     what goes.
 * M5. A VM_BO's list that is not empty has a reference on the VM_BO: the first one in brings its own, the last one out takes it along. So a
 *     mapping in the list has none, and one that is born while the list is not empty needs none. Whoever takes mappings out ends the trees'
 *     reference on them in the same order, so that the one which took the list's along comes behind those that borrowed it; and one that
 *     somebody else has, that a held version keeps, or that waits for its hook, gets one of its own before. So to replace a mapping of
 *     a buffer by another one costs no locked operation on the VM_BO.
 *
 * Locking: the list, and whether a mapping owns: the VM's reservation, until the trees' reference ends. The count: atomic.
 */
#include "base/alloc.h"
#include "base/refcount.h"
#include "base/reclaim.h"
#include "gpuvm/vm.h"

/* The driver's struct that the mapping lies in. */
static void *block_of(const struct lf_vm *vm, struct lf_mapping *m)
{
	return (char *)m - vm->mapping_offset;
}

/* What the driver keeps around a mapping, from another one. Of that itself nothing is read: others may be counting in it. */
static void copy_around(const struct lf_vm *vm, char *block, const char *from)
{
	size_t behind = vm->mapping_offset + sizeof(struct lf_mapping);

	memcpy(block, from, vm->mapping_offset);
	memcpy(block + behind, from + behind, vm->mapping_size - behind);
}

/* Takes a reference on the VM_BO, or on the VM, unless the mapping has one. */
static void own(struct lf_mapping *m)
{
	if (m->tag & MAPPING_OWNS)
		return;
	if (m->vm_bo)
		lf_vm_bo_get(m->vm_bo);
	else
		lf_vm_get(m->vm);
	m->tag |= MAPPING_OWNS;
}

static struct lf_mapping *create(struct lf_vm *vm, const struct lf_map_desc *desc, uint64_t birth, const char *from)
{
	char *block = mem_alloc(vm->mapping_size);
	struct lf_mapping *m;

	if (!block)
		return NULL;
	if (from)
		copy_around(vm, block, from);
	else if (vm->mapping_size != sizeof(*m))
		memset(block, 0, vm->mapping_size);
	m = (struct lf_mapping *)(void *)(block + vm->mapping_offset);
	*m = (struct lf_mapping){ .va = desc->va, .size = desc->size, .offset = desc->offset, .vm_bo = desc->vm_bo, .vm = vm,
		.flags = desc->flags, .refs = { 1 }, .tag = birth };
	if (!m->vm_bo || !m->vm_bo->mappings) /* M5: the list does not get empty before this one is in it, or has ended */
		own(m);
	return m;
}

struct lf_mapping *mapping_create(struct lf_vm *vm, const struct lf_map_desc *desc, uint64_t birth)
{
	return create(vm, desc, birth, NULL);
}

struct lf_mapping *mapping_create_piece(const struct lf_mapping *of, uint64_t va, uint64_t size, uint64_t birth)
{
	struct lf_map_desc desc = { .va = va, .size = size, .vm_bo = of->vm_bo, .flags = of->flags };

	desc.offset = of->vm_bo ? of->offset + (va - of->va) : 0;
	return create(of->vm, &desc, birth, (const char *)of - of->vm->mapping_offset);
}

/* --- References ------------------------------------------------------------------------------------------------------------ */

static void put_owner(struct lf_vm *vm, struct lf_vm_bo *vm_bo)
{
	if (vm_bo)
		lf_vm_bo_put(vm_bo);
	else
		lf_vm_put(vm);
}

void mapping_discard(struct lf_mapping *m)
{
	struct lf_vm *vm = m->vm;
	struct lf_vm_bo *vm_bo = m->vm_bo;
	bool owns = m->tag & MAPPING_OWNS;

	mem_free(block_of(vm, m));
	if (owns)
		put_owner(vm, vm_bo);
}

static void release(struct lf_deferred *node)
{
	struct lf_mapping *m = container_of(node, struct lf_mapping, deferred);

	m->vm->ops->mapping_release(m, m->vm->data);
	mapping_discard(m);
}

struct lf_mapping *lf_mapping_get(struct lf_mapping *m)
{
	if (m)
		refcount_get(&m->refs, "lf_mapping_get");
	return m;
}

struct lf_mapping *lf_mapping_tryget(struct lf_mapping *m)
{
	return m && refcount_tryget(&m->refs) ? m : NULL;
}

void lf_mapping_put(struct lf_mapping *m)
{
	struct lf_vm *vm;
	struct lf_vm_bo *vm_bo;

	if (!m || library_poisoned() || !refcount_put(&m->refs, "lf_mapping_put"))
		return;
	vm = m->vm;
	vm_bo = m->vm_bo;
	if (vm->ops->mapping_release) {
		lf_defer_call(&m->deferred, release);
		return;
	}
	reclaim_free(&m->deferred, block_of(vm, m));
	put_owner(vm, vm_bo); /* M3; it owns, since the trees' reference has ended (M5) */
}

void mapping_own_list(struct lf_mapping *list)
{
	for (struct lf_mapping *m = list; m; m = m->next)
		own(m);
}

/* Whether that is all there is to it: then its memory is to be freed. */
static bool end_borrower(struct lf_mapping *m)
{
	return !(m->tag & MAPPING_OWNS) && !m->vm->ops->mapping_release && refcount_put_only(&m->refs);
}

void mapping_end_list(struct lf_mapping *list)
{
	struct lf_deferred *head = NULL, **link = &head, *tail = NULL;
	struct lf_mapping *next;
	size_t count = 0;

	for (struct lf_mapping *m = list; m; m = next) {
		next = m->next;
		if (end_borrower(m)) {
			tail = &m->deferred;
			tail->what = block_of(m->vm, m);
			tail->next = NULL;
			*link = tail;
			link = &tail->next;
			count++;
		} else {
			if (!PLANTED(220))
				own(m);
			lf_mapping_put(m);
		}
	}
	if (count)
		reclaim_free_list(head, tail, count);
}

/* --- The VM_BO's list ------------------------------------------------------------------------------------------------------ */

void mapping_link(struct lf_mapping *m)
{
	struct lf_vm_bo *vm_bo = m->vm_bo;

	m->of = m->prev = m->next = NULL;
	if (!vm_bo)
		return;
	mapping_list_push(&vm_bo->mappings, m);
	if (!m->next)
		vm_bo_set_mapped(vm_bo, true); /* M5: its reference is the list's now */
	else if (m->tag & MAPPING_OWNS)
		lf_vm_bo_put(vm_bo); /* another one came first, to the same empty list */
	m->tag &= ~MAPPING_OWNS;
}

void mapping_unlink(struct lf_mapping *m)
{
	struct lf_vm_bo *vm_bo = m->vm_bo;

	if (!vm_bo)
		return;
	mapping_list_remove(&vm_bo->mappings, m);
	if (!vm_bo->mappings) {
		m->tag |= MAPPING_OWNS; /* M5: the list's reference is its now */
		vm_bo_set_mapped(vm_bo, false);
	}
}
