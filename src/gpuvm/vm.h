/* SPDX-License-Identifier: MIT */
/*
 * The inside of an address space, for the files of src/gpuvm.
 *
 * Overview and invariants of the VM in vm.c, of its versions in version.c, of its trees in va_tree.h.
 */
#ifndef LF_GPUVM_VM_H
#define LF_GPUVM_VM_H

#include <libfence/notice.h>
#include <libfence/vm_txn.h>

#include "base/check.h"
#include "base/library.h"
#include "base/port.h"
#include "bo/bo.h"
#include "fence/provider.h"
#include "gpuvm/va_tree.h"

/* A version of a VM's tree that somebody holds. */
struct lf_held {
	struct lf_vm *vm; /* immutable; who holds it sees to it that the VM lives */
	struct va_node *root; /* immutable since version_hold() */
	uint64_t version; /* immutable since version_hold() */
	struct lf_held *older, *newer; /* protected by vm->spin */
	struct va_node *nodes; /* what is kept only by this one and older ones; linked by link; protected by vm->spin */
	struct lf_mapping *mappings; /* the same; linked by next */
	uint64_t pinned; /* how many that are; protected by vm->spin */
	struct lf_deferred deferred; /* when it is released */
};

struct bind;

struct lf_vm {
	/* What readers load. */
	lf_atomic_ptr root; /* struct va_node: what was asked for; RCU; written under spin */
	lf_atomic_u64 version; /* its number; written under spin */
	lf_atomic_u64 last_close; /* the version that the last close of a BO made; written under spin */
	lf_atomic_ptr applied; /* struct lf_held: what engines walk; RCU; NULL without LF_VM_BIND; written by who applies */
	uint64_t start, extent; /* immutable: first address, and distance of the last from it */
	unsigned shift; /* immutable: log2 of the granule */

	char apart[64]; /* keeps what readers load away from what writers write */
	struct port_spin spin;
	struct lf_held *newest; /* protected by spin */
	uint64_t pinned, held; /* protected by spin */
	struct lf_vm_bo *closed; /* VM_BOs that were closed and not reaped, with references; pushed under spin, removed under spin and resv */
	struct lf_bo_link externals; /* all external VM_BOs; protected by spin */
	struct lf_bo_link evicted; /* VM_BOs to be validated; protected by spin */
	struct bind *binds, *last_bind; /* not applied yet, in order; protected by spin */
	bool applying; /* somebody does; protected by spin */
	bool is_closed; /* protected by spin */

	struct lf_txn *txn; /* the open transaction; protected by resv */
	lf_atomic_u64 mappings, nodes, bytes; /* in the version asked for; written under resv */
	lf_atomic_u32 error; /* 0, or what it was banned with, negated; set once */
	lf_atomic_u32 refs;

	/* Immutable. */
	struct lf_resv *resv;
	unsigned flags;
	uint64_t reserved_first, reserved_last; /* distances from start; first > last: none */
	uint64_t max_mappings;
	size_t mapping_size, mapping_offset, vm_bo_size, vm_bo_offset;
	const struct lf_vm_ops *ops; /* never NULL */
	void *data;
	struct lf_timeline *timeline; /* of binds; NULL without LF_VM_BIND */

	struct provider_resource resource;
	struct va_node *last_root; /* for lf_vm_close(): an empty tree */
	struct bind *closing; /* for lf_vm_close(), with LF_VM_BIND: applies that tree */
	struct lf_notice idle; /* what lf_vm_close() waits for */
	struct lf_deferred deferred; /* when refs are 0 */
	char name[];
};

/* --- Addresses ------------------------------------------------------------------------------------------------------------ */

/* The page of an address; only for those within the VM. */
static inline uint64_t vm_page(const struct lf_vm *vm, uint64_t va)
{
	return (va - vm->start) >> vm->shift;
}

static inline bool vm_has(const struct lf_vm *vm, uint64_t va)
{
	return va - vm->start <= vm->extent;
}

static inline uint64_t mapping_last(const struct lf_mapping *m)
{
	return m->va + (m->size - 1);
}

/* --- Versions (version.c) -------------------------------------------------------------------------------------------------- */

/*
 * Makes the edit's tree the VM's, as a new version, and buries what it does not have any more. The caller holds the VM's reservation. The
 * mappings of @gone are linked by next, in no list, and as mapping_end_list() wants them. @hold, if it is not NULL, holds the new version
 * from its first moment on.
 */
void version_publish(struct lf_vm *vm, struct lf_va_edit *edit, struct lf_mapping *gone, struct lf_held *hold);

/* Holds the version that is current. */
void version_hold(struct lf_vm *vm, struct lf_held *held);

/* Ends that: what only it kept is freed. Its memory is the caller's. */
void version_release(struct lf_held *held);

/* Closes a VM_BO in a new version, unless it is closed. */
void version_close(struct lf_vm_bo *vm_bo);

/* --- Mappings (mapping.c) -------------------------------------------------------------------------------------------------- */

/* What a mapping's tag says besides its birth, while it is in a transaction's list of what goes: that, and that its operation said keep. */
#define MAPPING_GONE  (UINT64_C(1) << 63)
#define MAPPING_KEPT  (UINT64_C(1) << 62)
#define MAPPING_FLAGS (MAPPING_GONE | MAPPING_KEPT)

/* What it says at any time: that the mapping has a reference on its VM_BO, or on the VM, of its own (M3). */
#define MAPPING_OWNS (UINT64_C(1) << 61)

/* The first version that has it. */
static inline uint64_t mapping_birth(const struct lf_mapping *m)
{
	return m->tag & ~(MAPPING_FLAGS | MAPPING_OWNS);
}

/* A mapping with one reference, the tree's; NULL without memory. */
struct lf_mapping *mapping_create(struct lf_vm *vm, const struct lf_map_desc *desc, uint64_t birth);

/* A piece of one, with what the driver keeps there, but without its split hook being called. */
struct lf_mapping *mapping_create_piece(const struct lf_mapping *of, uint64_t va, uint64_t size, uint64_t birth);

/* Frees one that no reader sees, without its release hook. */
void mapping_discard(struct lf_mapping *m);

/* Makes mappings, linked by next, independent of their VM_BOs' lists (M3). */
void mapping_own_list(struct lf_mapping *list);

/*
 * Ends the tree's reference on mappings that are in no list any more, linked by next, in the order in which they were taken out. The caller
 * has held the VM's reservation since then.
 */
void mapping_end_list(struct lf_mapping *list);

/* Whether the mapping's buffer was closed in or before a version. */
static inline bool mapping_is_dead(const struct lf_mapping *m, uint64_t version)
{
	/* relaxed: a close up to this version was seen when the version was (va-version, va-root); a later one does not count */
	return m->vm_bo && u64_load(&m->vm_bo->dead_from, memory_order_relaxed) <= version;
}

/* Lists by next and prev. */
static inline void mapping_list_push(struct lf_mapping **head, struct lf_mapping *m)
{
	m->prev = NULL;
	m->next = *head;
	if (m->next)
		m->next->prev = m;
	*head = m;
}

static inline void mapping_list_remove(struct lf_mapping **head, struct lf_mapping *m)
{
	if (m->next)
		m->next->prev = m->prev;
	if (m->prev)
		m->prev->next = m->next;
	else
		*head = m->next;
}

/* Puts a mapping into its VM_BO's list of those in the version asked for, and takes it out; under the reservation. */
void mapping_link(struct lf_mapping *m);
void mapping_unlink(struct lf_mapping *m);

/* --- VM_BOs (vm_bo.c) ------------------------------------------------------------------------------------------------------- */

/* Notes that the first mapping came, or the last one went, in the version asked for; under the VM's reservation. */
void vm_bo_set_mapped(struct lf_vm_bo *vm_bo, bool mapped);

/* Puts a VM_BO that is closed and has mappings among the closed ones, unless it is there, or the VM is closed. */
void vm_bo_list_closed(struct lf_vm *vm, struct lf_vm_bo *vm_bo) LF_REQUIRES(&vm->spin);

/*
 * Takes those VM_BOs off the closed ones that have no mappings any more, under the VM's reservation; linked by next_closed, with
 * references that vm_bo_put_list() ends.
 */
struct lf_vm_bo *vm_bo_take_reaped(struct lf_vm *vm) LF_REQUIRES(&vm->spin);
void vm_bo_put_list(struct lf_vm_bo *list);

/* --- Binds (bind.c) --------------------------------------------------------------------------------------------------------- */

/* Makes the bind timeline, and the empty version that is applied. Returns 0 or a negative errno, and then bind_fini() may be called. */
int bind_init(struct lf_vm *vm);
void bind_fini(struct lf_vm *vm);

/* Completes all binds, now and later, with an error. */
void bind_lose(struct lf_vm *vm, int error);

/* What holds the version that lf_vm_close() makes; NULL without a bind queue. */
struct lf_held *bind_closing(const struct lf_vm *vm);

/* That version was made: engines walk what is applied until what is in the reservation has signaled. Under the VM's reservation. */
void bind_close(struct lf_vm *vm);

/* --- Transactions (vm_txn.c) ------------------------------------------------------------------------------------------------ */

/* Commits: what can be done of a transaction that cannot fail. @hold as in version_publish(). */
void txn_publish(struct lf_txn *txn, struct lf_held *hold);

/* 0, or why the transaction cannot be committed. */
int txn_check(const struct lf_txn *txn, const char *function);

/* --- Checks (vm.c) ---------------------------------------------------------------------------------------------------------- */

/* 0, or the error that says why the VM may not be changed by the caller. */
int vm_check_change(const struct lf_vm *vm, const char *function);

/* Checks all that is numbered of trees, of one version. */
void vm_check_view(const struct lf_view *view);

#endif /* LF_GPUVM_VM_H */
