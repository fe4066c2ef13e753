/* SPDX-License-Identifier: MIT */
/*
 * VM_BOs: a buffer's part in an address space.
 *
 * States:
 *
 *     alive --lf_vm_bo_close()--> closed --a commit after which it has no mappings--> reaped
 *
 * | state  | dead_from   | in the buffer's list | in vm->closed, with a reference | its mappings are seen                   |
 * |--------|-------------|----------------------|---------------------------------|-----------------------------------------|
 * | alive  | UINT64_MAX  | yes                  | no                              | yes                                     |
 * | closed | a version   | yes                  | yes, while it has mappings      | in versions before dead_from            |
 * | reaped | a version   | yes                  | no                              | as before, in what is held of them      |
 *
 * Invariants:
 * O1. Of one VM, a buffer's list has at most one VM_BO with references that is alive. It is looked for and entered under the buffer's spin.
 * O2. A VM_BO is in the external list of its VM from lf_vm_bo_obtain() to its last put, if its buffer does not share the VM's reservation.
 *     So whoever has a reference on one can go on from it.
 * O3. It is in the evicted list while state says so. A closed one is evicted, locked and validated like others until it was reaped, since
 *     page tables have it.
 * O4. It holds references on VM and buffer until its memory ends, or, without a release hook, until its own last reference is gone.
 *
 * O5. A closed VM_BO that has mappings in the version asked for is in vm->closed, with a reference, unless the VM was closed. One
 *     without is not: it would keep the VM, which keeps nothing else of it.
 *
 * Locking: the buffer's spin for its list, vm->spin for the VM's lists and state; in this order where both are needed. Reservations: of the
 * VM for `mappings` and for taking out of vm->closed; of the buffer for evicting and validating.
 *
 * Lifetime: counted by its users and by mappings or the list of them (mapping.c, M5). What a reader can reach ends a grace period after the last put.
 */
#include "base/alloc.h"
#include "base/refcount.h"
#include "base/reclaim.h"
#include "gpuvm/vm.h"
#include "resv/block.h"

/* state, protected by vm->spin */
#define VM_BO_EVICTED UINT32_C(1) /* in vm->evicted */
#define VM_BO_MAPPED  UINT32_C(2) /* has mappings in the version asked for */
#define VM_BO_LISTED  UINT32_C(4) /* in vm->closed */

/* --- Links ------------------------------------------------------------------------------------------------------------------ */

static struct lf_vm_bo *of_external(struct lf_bo_link *link)
{
	return container_of(link, struct lf_vm_bo, external);
}

static struct lf_vm_bo *of_evicted(struct lf_bo_link *link)
{
	return container_of(link, struct lf_vm_bo, evicted);
}

static struct lf_vm_bo *of_user(struct lf_bo_link *link)
{
	return container_of(link, struct lf_vm_bo, of_bo);
}

/* --- References ------------------------------------------------------------------------------------------------------------- */

static void *block_of(struct lf_vm_bo *vm_bo)
{
	return (char *)vm_bo - vm_bo->vm->vm_bo_offset;
}

/* Frees one that no reader sees, without its release hook. */
static void discard(struct lf_vm_bo *vm_bo)
{
	struct lf_vm *vm = vm_bo->vm;
	struct lf_bo *bo = vm_bo->bo;

	mem_free(block_of(vm_bo));
	lf_bo_put(bo);
	lf_vm_put(vm);
}

static void release(struct lf_deferred *node)
{
	struct lf_vm_bo *vm_bo = container_of(node, struct lf_vm_bo, deferred);

	vm_bo->vm->ops->vm_bo_release(vm_bo, vm_bo->vm->data);
	discard(vm_bo);
}

struct lf_vm_bo *lf_vm_bo_get(struct lf_vm_bo *vm_bo)
{
	if (vm_bo)
		refcount_get(&vm_bo->refs, "lf_vm_bo_get");
	return vm_bo;
}

static void unlist(struct lf_vm_bo *vm_bo)
{
	struct lf_vm *vm = vm_bo->vm;

	bo_lock(vm_bo->bo);
	bo_link_remove(&vm_bo->of_bo);
	bo_unlock(vm_bo->bo);
	port_spin_lock(&vm->spin);
	bo_link_remove(&vm_bo->external);
	bo_link_remove(&vm_bo->evicted);
	port_spin_unlock(&vm->spin);
}

void lf_vm_bo_put(struct lf_vm_bo *vm_bo)
{
	struct lf_vm *vm;
	struct lf_bo *bo;

	if (!vm_bo || library_poisoned() || !refcount_put(&vm_bo->refs, "lf_vm_bo_put"))
		return;
	unlist(vm_bo);
	vm = vm_bo->vm;
	bo = vm_bo->bo;
	if (vm->ops->vm_bo_release) {
		lf_defer_call(&vm_bo->deferred, release);
		return;
	}
	reclaim_free(&vm_bo->deferred, block_of(vm_bo));
	lf_bo_put(bo); /* O4 */
	lf_vm_put(vm);
}

/* --- Finding ------------------------------------------------------------------------------------------------------------------ */

static bool is_closed(const struct lf_vm_bo *vm_bo)
{
	return u64_load(&vm_bo->dead_from, memory_order_relaxed) != UINT64_MAX; /* relaxed: written under vm->spin; a hint elsewhere */
}

/* Whether page tables may have the buffer: a closed one is there until it was reaped. vm->spin is held. */
static bool is_part(const struct lf_vm_bo *vm_bo)
{
	return !is_closed(vm_bo) || (vm_bo->state & VM_BO_MAPPED);
}

/* A new reference on the pair, or NULL. */
static struct lf_vm_bo *find_locked(const struct lf_vm *vm, struct lf_bo *bo)
{
	for (struct lf_bo_link *l = bo->users.next; l != &bo->users; l = l->next) {
		struct lf_vm_bo *vm_bo = of_user(l);

		if (vm_bo->vm == vm && !is_closed(vm_bo) && refcount_tryget(&vm_bo->refs))
			return vm_bo;
	}
	return NULL;
}

struct lf_vm_bo *lf_vm_bo_find(struct lf_vm *vm, struct lf_bo *bo)
{
	struct lf_vm_bo *vm_bo;

	if (unlikely(!vm || !bo)) {
		misuse(0, "lf_vm_bo_find: an argument is missing");
		return NULL;
	}
	if (library_poisoned())
		return NULL;
	bo_lock(bo);
	vm_bo = find_locked(vm, bo);
	bo_unlock(bo);
	return vm_bo;
}

static struct lf_vm_bo *create(struct lf_vm *vm, struct lf_bo *bo)
{
	char *block = mem_zalloc(vm->vm_bo_size);
	struct lf_vm_bo *vm_bo;

	if (!block)
		return NULL;
	vm_bo = (struct lf_vm_bo *)(void *)(block + vm->vm_bo_offset);
	vm_bo->vm = lf_vm_get(vm);
	vm_bo->bo = lf_bo_get(bo);
	u64_store(&vm_bo->dead_from, UINT64_MAX, memory_order_relaxed); /* relaxed: nobody else sees it yet */
	u32_store(&vm_bo->refs, 1, memory_order_relaxed); /* relaxed: as above */
	bo_link_init(&vm_bo->of_bo);
	bo_link_init(&vm_bo->external);
	bo_link_init(&vm_bo->evicted);
	return vm_bo;
}

static void enter_locked(struct lf_vm_bo *vm_bo)
{
	struct lf_vm *vm = vm_bo->vm;

	bo_link_append(&vm_bo->bo->users, &vm_bo->of_bo);
	if (vm_bo->bo->resv == vm->resv)
		return;
	port_spin_lock(&vm->spin);
	bo_link_append(&vm->externals, &vm_bo->external);
	port_spin_unlock(&vm->spin);
}

int lf_vm_bo_obtain(struct lf_vm *vm, struct lf_bo *bo, struct lf_vm_bo **ret_vm_bo)
{
	struct lf_vm_bo *vm_bo, *made;
	int ret = library_enter();

	if (ret)
		return ret;
	if (unlikely(!vm || !bo || !ret_vm_bo))
		return misuse(-EINVAL, "lf_vm_bo_obtain: an argument is missing");
	ret = lf_vm_error(vm);
	if (ret)
		return ret;
	vm_bo = lf_vm_bo_find(vm, bo);
	if (!vm_bo) {
		reclaim_throttle();
		made = create(vm, bo);
		if (!made)
			return -ENOMEM;
		bo_lock(bo);
		vm_bo = find_locked(vm, bo);
		if (!vm_bo)
			enter_locked(made);
		bo_unlock(bo);
		if (vm_bo)
			discard(made); /* another thread was faster */
		else
			vm_bo = made;
	}
	*ret_vm_bo = vm_bo;
	return 0;
}

struct lf_mapping *lf_vm_bo_next_mapping(const struct lf_vm_bo *vm_bo, const struct lf_mapping *after)
{
	return after ? after->next : vm_bo->mappings;
}

/* --- Closing ------------------------------------------------------------------------------------------------------------------ */

void lf_vm_bo_close(struct lf_vm_bo *vm_bo)
{
	if (unlikely(!vm_bo))
		misuse(0, "lf_vm_bo_close: the VM_BO is NULL");
	else if (!library_poisoned())
		version_close(vm_bo);
}

void vm_bo_list_closed(struct lf_vm *vm, struct lf_vm_bo *vm_bo)
{
	if (!(vm_bo->state & VM_BO_MAPPED) || (vm_bo->state & VM_BO_LISTED) || vm->is_closed)
		return;
	vm_bo->state |= VM_BO_LISTED;
	vm_bo->next_closed = vm->closed;
	vm->closed = lf_vm_bo_get(vm_bo);
}

void vm_bo_set_mapped(struct lf_vm_bo *vm_bo, bool mapped)
{
	struct lf_vm *vm = vm_bo->vm;

	port_spin_lock(&vm->spin);
	if (mapped)
		vm_bo->state |= VM_BO_MAPPED;
	else
		vm_bo->state &= ~VM_BO_MAPPED;
	if (is_closed(vm_bo)) /* while the transaction was open */
		vm_bo_list_closed(vm, vm_bo);
	port_spin_unlock(&vm->spin);
}

struct lf_vm_bo *vm_bo_take_reaped(struct lf_vm *vm)
{
	struct lf_vm_bo **link = &vm->closed, *vm_bo, *reaped = NULL;

	while ((vm_bo = *link) != NULL) {
		if (vm_bo->state & VM_BO_MAPPED) {
			link = &vm_bo->next_closed;
			continue;
		}
		*link = vm_bo->next_closed;
		vm_bo->state &= ~(VM_BO_LISTED | VM_BO_EVICTED);
		bo_link_remove(&vm_bo->evicted);
		vm_bo->next_closed = reaped;
		reaped = vm_bo;
	}
	return reaped;
}

void vm_bo_put_list(struct lf_vm_bo *list)
{
	struct lf_vm_bo *vm_bo;

	while ((vm_bo = list) != NULL) {
		list = vm_bo->next_closed;
		lf_vm_bo_put(vm_bo);
	}
}

/* --- Evicting and validating ---------------------------------------------------------------------------------------------------- */

static void set_evicted(struct lf_vm_bo *vm_bo, bool evicted)
{
	struct lf_vm *vm = vm_bo->vm;

	port_spin_lock(&vm->spin);
	if (evicted && is_part(vm_bo) && !(vm_bo->state & VM_BO_EVICTED)) {
		vm_bo->state |= VM_BO_EVICTED;
		bo_link_append(&vm->evicted, &vm_bo->evicted);
	} else if (!evicted && (vm_bo->state & VM_BO_EVICTED)) {
		vm_bo->state &= ~VM_BO_EVICTED;
		bo_link_remove(&vm_bo->evicted);
	}
	port_spin_unlock(&vm->spin);
}

void lf_bo_set_evicted(struct lf_bo *bo, bool evicted)
{
	if (bo_check_holder(bo, __func__) != 0)
		return;
	bo_lock(bo);
	for (struct lf_bo_link *l = bo->users.next; l != &bo->users; l = l->next)
		set_evicted(of_user(l), evicted);
	bo_unlock(bo);
}

bool lf_vm_bo_is_evicted(const struct lf_vm_bo *vm_bo)
{
	struct lf_vm *vm = vm_bo->vm;
	bool evicted;

	if (library_poisoned())
		return false;
	port_spin_lock(&vm->spin);
	evicted = vm_bo->state & VM_BO_EVICTED;
	port_spin_unlock(&vm->spin);
	return evicted;
}

/* A new reference on the next external VM_BO; NULL behind the last. Those whose last reference is gone are about to leave the list. */
static struct lf_vm_bo *next_external(struct lf_vm *vm, const struct lf_vm_bo *after)
{
	struct lf_vm_bo *found = NULL;

	port_spin_lock(&vm->spin);
	for (struct lf_bo_link *l = after ? after->external.next : vm->externals.next; l != &vm->externals && !found; l = l->next) {
		if (is_part(of_external(l)) && refcount_tryget(&of_external(l)->refs))
			found = of_external(l);
	}
	port_spin_unlock(&vm->spin);
	return found;
}

/* Each VM_BO is held until the next one is found (O2); the reservations are kept by the transaction. */
int lf_vm_exec_lock(struct lf_vm *vm, struct lf_exec *x, unsigned slots)
{
	int ret = lf_exec_lock(x, vm->resv, slots);
	struct lf_vm_bo *vm_bo = NULL, *next;

	while (!ret) {
		next = next_external(vm, vm_bo);
		lf_vm_bo_put(vm_bo);
		vm_bo = next;
		if (!vm_bo)
			break;
		ret = lf_exec_lock(x, vm_bo->bo->resv, slots);
	}
	lf_vm_bo_put(vm_bo);
	return ret;
}

/*
 * A new reference on the first evicted VM_BO whose buffer the caller has locked: one that came to the VM since it locked all is no part of
 * its job, and waits for the next one.
 */
static struct lf_vm_bo *first_evicted(struct lf_vm *vm)
{
	struct lf_vm_bo *found = NULL;

	port_spin_lock(&vm->spin);
	for (struct lf_bo_link *l = vm->evicted.next; l != &vm->evicted && !found; l = l->next) {
		if (lf_resv_is_held(of_evicted(l)->bo->resv) && refcount_tryget(&of_evicted(l)->refs))
			found = of_evicted(l);
	}
	port_spin_unlock(&vm->spin);
	return found;
}

static int validate(struct lf_vm_bo *vm_bo, struct lf_exec *x)
{
	struct lf_vm *vm = vm_bo->vm;
	struct hook_frame frame;
	int ret;

	if (!vm->ops->validate)
		return -EOPNOTSUPP;
	hook_enter(&frame, vm->resource.provider);
	ret = vm->ops->validate(vm_bo, x, vm->data);
	hook_leave(&frame);
	if (!ret)
		set_evicted(vm_bo, false);
	return ret;
}

int lf_vm_validate(struct lf_vm *vm, struct lf_exec *x)
{
	struct lf_vm_bo *vm_bo;
	int ret = 0;

	if (library_poisoned())
		return -EOWNERDEAD;
	if (unlikely(!vm || !lf_resv_is_held(vm->resv)))
		return misuse(-EINVAL, "lf_vm_validate: %s", vm ? "the VM's reservation is not locked by the caller" : "the VM is NULL");
	while (!ret && (vm_bo = first_evicted(vm)) != NULL) {
		ret = validate(vm_bo, x);
		lf_vm_bo_put(vm_bo);
	}
	return ret;
}

void lf_vm_add_fence(struct lf_vm *vm, struct lf_exec *x, struct lf_fence *f, enum lf_usage local, enum lf_usage external)
{
	struct lf_resv *resv;

	if (!exec_check_locked(x, __func__))
		return;
	for (size_t i = 0; (resv = lf_exec_at(x, i)) != NULL; i++)
		lf_resv_add(resv, f, resv == vm->resv ? local : external);
}
