/* SPDX-License-Identifier: MIT */
/*
 * Address spaces: making, closing, ending.
 *
 * Purpose: the object that the others of src/gpuvm belong to. What it is made of is in their files: trees (va_tree.h), versions (version.c),
 * mappings, VM_BOs, transactions, and the bind queue.
 *
 * States:
 *
 *     open --lf_vm_ban()--> banned --lf_vm_close()--> closed --last reference--> ending --deferred--> gone
 *        \------------------------lf_vm_close()--------/
 *
 * | state  | error       | transactions  | the version asked for       | binds that were not applied                   |
 * |--------|-------------|---------------|-----------------------------|-----------------------------------------------|
 * | open   | 0           | yes           | any                         | wait for their fences                         |
 * | banned | the first   | none is begun | as it was                   | complete with the error                       |
 * | closed | one         | none          | empty, for ever             | complete with the error, or -ECANCELED        |
 *
 * Invariants (vm_check_view() for the trees):
 * VM1. The VM has references of its users, of its VM_BOs, of its mappings without a VM_BO, of held versions, and of binds. So when there are
 *      none left it has no mapping, and nobody holds a version.
 * VM2. Its mappings have references on it, and its versions on them: a cycle, which lf_vm_close() breaks. (Nothing else could: without the
 *      one way, a VM could end under its mappings; without the other, mappings under their readers.)
 * VM3. error is set once.
 * VM4. All that is needed to close was made with the VM: an empty tree, and, with a bind queue, what holds its version.
 *
 * Locking: the table in <libfence/vm.h>; fields in vm.h. vm->spin is the innermost lock but for those of the base layer. A VM has one kind of
 * locking: its reservation for all that changes it.
 *
 * Lifetime: the last put gives it to the reclaimer thread, since its end calls the driver, and puts may happen anywhere.
 */
#include <inttypes.h>

#include "base/alloc.h"
#include "base/refcount.h"
#include "base/reclaim.h"
#include "base/track.h"
#include "gpuvm/vm.h"
#include "resv/block.h"

enum { DEFAULT_GRANULE = 4096 };
#define MAX_GRANULE  (UINT64_C(1) << 30)
#define MAX_MAPPINGS (UINT64_C(1) << 30)

static const struct track_kind vm_track_kind = { "vm", offsetof(struct lf_vm, name), NULL };

/* --- Making ---------------------------------------------------------------------------------------------------------------- */

_Static_assert(_Alignof(struct lf_mapping) >= 8 && _Alignof(struct lf_vm_bo) >= 8, "wherever they are embedded, it is at a multiple of 8");

/* Whether a struct of the driver's has room for ours. */
static bool is_embedding(size_t size, size_t offset, size_t ours)
{
	return offset % 8 == 0 && (size == 0 ? offset == 0 : size >= ours && offset <= size - ours);
}

/* The distance of the last address from the first. */
static uint64_t extent_of(const struct lf_vm_desc *desc)
{
	return desc->size ? desc->size - 1 : UINT64_MAX - desc->start;
}

static int check_desc(const struct lf_vm_desc *d)
{
	uint64_t granule = d->granule ? d->granule : DEFAULT_GRANULE, extent = extent_of(d), reserved = d->reserved_start - d->start;

	if (!d->name)
		return misuse(-EINVAL, "lf_vm_create: no name");
	if (d->flags & ~(unsigned)LF_VM_BIND)
		return misuse(-EINVAL, "lf_vm_create: unknown flags %#x", d->flags);
	if ((granule & (granule - 1)) || granule > MAX_GRANULE)
		return misuse(-EINVAL, "lf_vm_create: granule %#" PRIx64 " is not a power of two up to 1 GiB", granule);
	if (extent > UINT64_MAX - d->start || ((d->start | (extent + 1) | d->reserved_start | d->reserved_size) & (granule - 1)))
		return misuse(-EINVAL, "lf_vm_create: the range is not of the granule, or goes beyond 64 bits");
	if (d->reserved_size && (reserved > extent || d->reserved_size - 1 > extent - reserved))
		return misuse(-EINVAL, "lf_vm_create: the reserved range is not within the VM");
	if (d->resv && !resv_is_counted(d->resv))
		return misuse(-EINVAL, "lf_vm_create: reservation %p was not made by lf_resv_create()", (const void *)d->resv);
	if (d->max_mappings > MAX_MAPPINGS)
		return misuse(-EINVAL, "lf_vm_create: more mappings than %" PRIu64, MAX_MAPPINGS);
	if (!is_embedding(d->mapping_size, d->mapping_offset, sizeof(struct lf_mapping)) ||
		!is_embedding(d->vm_bo_size, d->vm_bo_offset, sizeof(struct lf_vm_bo)))
		return misuse(-EINVAL, "lf_vm_create: a struct of the driver's has no room for the library's at its offset");
	return 0;
}

static void init_fields(struct lf_vm *vm, const struct lf_vm_desc *d)
{
	static const struct lf_vm_ops no_ops;

	vm->start = d->start;
	vm->extent = extent_of(d);
	vm->shift = (unsigned)__builtin_ctzll(d->granule ? d->granule : DEFAULT_GRANULE);
	vm->reserved_first = d->reserved_size ? d->reserved_start - d->start : 1;
	vm->reserved_last = d->reserved_size ? vm->reserved_first + d->reserved_size - 1 : 0;
	vm->flags = d->flags;
	vm->max_mappings = d->max_mappings ? d->max_mappings : MAX_MAPPINGS;
	vm->mapping_size = d->mapping_size ? d->mapping_size : sizeof(struct lf_mapping);
	vm->mapping_offset = d->mapping_offset;
	vm->vm_bo_size = d->vm_bo_size ? d->vm_bo_size : sizeof(struct lf_vm_bo);
	vm->vm_bo_offset = d->vm_bo_offset;
	vm->ops = d->ops ? d->ops : &no_ops;
	vm->data = d->data;
	bo_link_init(&vm->externals);
	bo_link_init(&vm->evicted);
	vm->refs.value = 1;
	strcpy(vm->name, d->name);
	lf_notice_init(&vm->idle);
}

/* What may fail. What was made before is the caller's to undo, with destroy(). */
static int make_parts(struct lf_vm *vm, const struct lf_vm_desc *d)
{
	struct va_node *root = va_tree_create();
	int ret;

	vm->root.value = (uintptr_t)root;
	vm->last_root = va_tree_create();
	if (!root || !vm->last_root)
		return -ENOMEM;
	vm->nodes.value = 1;
	vm->bytes.value = node_bytes(EMPTY_RUNS);
	if (d->resv)
		vm->resv = lf_resv_get(d->resv);
	ret = vm->resv ? 0 : lf_resv_create(d->cls, &vm->resv);
	return ret || !(vm->flags & LF_VM_BIND) ? ret : bind_init(vm);
}

static void destroy(struct lf_vm *vm)
{
	bind_fini(vm);
	lf_resv_put(vm->resv);
	va_tree_destroy((struct va_node *)vm->root.value);
	va_tree_destroy(vm->last_root);
	mem_free(vm);
}

/* --- The provider's resource ------------------------------------------------------------------------------------------------- */

static struct lf_vm *of_resource(struct provider_resource *r)
{
	return container_of(r, struct lf_vm, resource);
}

static void revoke_vm(struct provider_resource *r)
{
	lf_vm_ban(of_resource(r), -ENODEV);
}

static void put_resource(struct provider_resource *r)
{
	lf_vm_put(of_resource(r));
}

/* @code is the driver's, for people who look for it; may be NULL. */
static int enter_provider(struct lf_vm *vm, struct lf_provider *provider, const void *code)
{
	vm->resource = (struct provider_resource){ .kind = "vm", .name = vm->name, .code = code, .revoke = revoke_vm,
		.refs = &vm->refs, .put = put_resource };
	return provider_add(provider, &vm->resource);
}

int lf_vm_create(const struct lf_vm_desc *desc, struct lf_vm **ret_vm)
{
	struct lf_vm *vm;
	int ret = library_enter();

	if (ret)
		return ret;
	if (unlikely(!desc || !ret_vm))
		return misuse(-EINVAL, "lf_vm_create: an argument is missing");
	ret = check_desc(desc);
	if (ret)
		return ret;
	vm = mem_zalloc(sizeof(*vm) + strlen(desc->name) + 1);
	if (!vm)
		return -ENOMEM;
	init_fields(vm, desc);
	ret = make_parts(vm, desc);
	if (!ret)
		ret = enter_provider(vm, desc->provider, desc->ops);
	if (ret) {
		destroy(vm);
		return ret;
	}
	track_add(vm, &vm_track_kind);
	*ret_vm = vm;
	return 0;
}

/* --- References -------------------------------------------------------------------------------------------------------------- */

struct lf_vm *lf_vm_get(struct lf_vm *vm)
{
	if (vm)
		refcount_get(&vm->refs, "lf_vm_get");
	return vm;
}

static void end(struct lf_deferred *node)
{
	struct lf_vm *vm = container_of(node, struct lf_vm, deferred);

	lf_notice_fini(&vm->idle);
	if (vm->ops->release)
		vm->ops->release(vm->data);
	if (library_poisoned())
		return; /* the hook forked, and this is the child */
	track_remove(vm);
	provider_remove(&vm->resource);
	destroy(vm);
}

void lf_vm_put(struct lf_vm *vm)
{
	if (vm && !library_poisoned() && refcount_put(&vm->refs, "lf_vm_put"))
		lf_defer_call(&vm->deferred, end);
}

/* --- Banning and closing ------------------------------------------------------------------------------------------------------- */

int lf_vm_error(const struct lf_vm *vm)
{
	return -(int)u32_load(&vm->error, memory_order_relaxed); /* relaxed: a number, which says nothing of anything else */
}

/* The first one counts. Returns whether this is it. */
static bool set_error(struct lf_vm *vm, int error)
{
	uint32_t none = 0;

	/* relaxed: see lf_vm_error() */
	return u32_cas(&vm->error, &none, (uint32_t)-error, memory_order_relaxed, memory_order_relaxed);
}

void lf_vm_ban(struct lf_vm *vm, int error)
{
	if (unlikely(!vm || error == 0)) {
		misuse(0, "lf_vm_ban: %s", vm ? "0 is no error" : "the VM is NULL");
		return;
	}
	if (library_poisoned())
		return;
	error = check_error(__func__, error);
	if (set_error(vm, error) && vm->timeline)
		bind_lose(vm, error);
}

int vm_check_change(const struct lf_vm *vm, const char *function)
{
	if (library_poisoned())
		return -EOWNERDEAD;
	if (unlikely(!vm))
		return misuse(-EINVAL, "%s: the VM is NULL", function);
	if (unlikely(!lf_resv_is_held(vm->resv)))
		return misuse(-EINVAL, "%s: the reservation of %s is not locked by the caller", function, vm->name);
	if (unlikely(vm->txn))
		return misuse(-EBUSY, "%s: a transaction of %s is open", function, vm->name);
	return 0;
}

/* Takes all mappings of the version asked for out of their lists. They are linked by next, in this order (M5). */
static struct lf_mapping *unlink_all(struct lf_vm *vm)
{
	struct va_node *root = (struct va_node *)ptr_load(&vm->root, memory_order_relaxed); /* relaxed: written under the reservation */
	uint64_t page = 0, last, end = vm->extent >> vm->shift;
	struct lf_mapping *list = NULL, **link = &list, *m;

	while ((m = va_tree_first(root, page, end)) != NULL) {
		mapping_unlink(m);
		m->next = NULL;
		*link = m;
		link = &m->next;
		last = vm_page(vm, mapping_last(m));
		if (last >= end)
			break; /* behind the last page that there is comes 0 */
		page = last + 1;
	}
	return list;
}

/* Publishes the tree that was made for it, which is an edit that replaced all. */
static void empty(struct lf_vm *vm)
{
	struct lf_va_edit edit;
	struct lf_mapping *gone = unlink_all(vm);

	va_edit_begin(&edit, (struct va_node *)ptr_load(&vm->root, memory_order_relaxed), UINT64_MAX); /* relaxed: as above */
	va_edit_replace_all(&edit);
	edit.root = edit.owned = vm->last_root;
	vm->last_root = NULL;
	u64_store(&vm->mappings, 0, memory_order_relaxed); /* relaxed: a figure */
	u64_store(&vm->nodes, 1, memory_order_relaxed); /* relaxed: as above */
	u64_store(&vm->bytes, node_bytes(EMPTY_RUNS), memory_order_relaxed); /* relaxed: as above */
	version_publish(vm, &edit, gone, bind_closing(vm));
}

int lf_vm_close(struct lf_vm *vm)
{
	bool was_closed;
	int ret = vm_check_change(vm, __func__);

	if (ret)
		return ret;
	port_spin_lock(&vm->spin);
	was_closed = vm->is_closed;
	vm->is_closed = true;
	port_spin_unlock(&vm->spin);
	if (was_closed)
		return 0;
	lf_vm_get(vm); /* callbacks of the binds' fences may put the caller's */
	set_error(vm, -ESHUTDOWN);
	if (vm->timeline)
		bind_lose(vm, -ECANCELED);
	empty(vm);
	if (vm->timeline)
		bind_close(vm);
	lf_vm_put(vm);
	return 0;
}

/* --- Asking -------------------------------------------------------------------------------------------------------------------- */

struct lf_resv *lf_vm_resv(const struct lf_vm *vm)
{
	return vm->resv;
}

void *lf_vm_data(const struct lf_vm *vm)
{
	return vm->data;
}

void lf_vm_get_stats(struct lf_vm *vm, struct lf_vm_stats *ret_stats)
{
	if (unlikely(!vm || !ret_stats)) {
		misuse(0, "lf_vm_get_stats: an argument is missing");
		return;
	}
	*ret_stats = (struct lf_vm_stats){ 0 };
	if (library_poisoned())
		return;
	port_spin_lock(&vm->spin);
	*ret_stats = (struct lf_vm_stats){ .held = vm->held, .pinned = vm->pinned };
	port_spin_unlock(&vm->spin);
	ret_stats->version = u64_load(&vm->version, memory_order_relaxed); /* relaxed: figures, all of them */
	ret_stats->mappings = u64_load(&vm->mappings, memory_order_relaxed); /* relaxed: as above */
	ret_stats->nodes = u64_load(&vm->nodes, memory_order_relaxed); /* relaxed: as above */
	ret_stats->bytes = u64_load(&vm->bytes, memory_order_relaxed); /* relaxed: as above */
}

/* --- Checking ------------------------------------------------------------------------------------------------------------------ */

void vm_check_view(const struct lf_view *view)
{
	const struct lf_vm *vm = view->vm;
	const struct va_node *root = (const struct va_node *)view->root;
	uint64_t page = 0, first, last, end = vm->extent >> vm->shift;

	va_tree_check(view->root);
	for (;; page = last + 1) {
		const struct lf_mapping *m = va_tree_extent(root, page, &first, &last);

		/* T4: where a mapping is found, it begins, or it was found in the page before. */
		if (m) {
			invariant_always(m->vm == vm && first >= vm_page(vm, m->va) && last <= vm_page(vm, mapping_last(m)));
			invariant_always(page == vm_page(vm, m->va) || va_tree_lookup(root, page - 1) == m);
			invariant_always(last == vm_page(vm, mapping_last(m)) || va_tree_lookup(root, last + 1) == m);
		}
		if (last >= end)
			return;
	}
}
