/* SPDX-License-Identifier: MIT */
/**
 * @file
 * VM_BOs: a buffer's part in an address space. One a pair, with or without mappings.
 *
 * What is true of a buffer in one VM is kept here: its mappings, whether it was evicted and must be validated before the VM's next job,
 * whether it is external (does not share the VM's reservation, and is locked by itself), and the driver's own data.
 */
#ifndef LIBFENCE_VM_BO_H
#define LIBFENCE_VM_BO_H

#include <libfence/exec.h>
#include <libfence/vm.h>

LF_BEGIN_DECLS

/** A VM_BO. Embed it in what the driver keeps for a pair (lf_vm_desc.vm_bo_size). The named fields never change. */
struct lf_vm_bo {
	struct lf_vm *vm; /**< holds a reference */
	struct lf_bo *bo; /**< holds a reference */
	lf_atomic_u64 dead_from; /**< not yours */
	lf_atomic_u32 refs; /**< not yours */
	uint32_t state; /**< not yours */
	struct lf_mapping *mappings; /**< not yours */
	struct lf_bo_link of_bo; /**< not yours */
	struct lf_bo_link external; /**< not yours */
	struct lf_bo_link evicted; /**< not yours */
	struct lf_vm_bo *next_closed; /**< not yours */
	struct lf_deferred deferred; /**< not yours */
} LF_ALIGNED(8);

/**
 * Finds the pair, or makes it. Threads that do so at once get the same one.
 *
 * @param vm borrowed for the call
 * @param bo borrowed for the call
 * @param ret_vm_bo a new reference; as long as there is one, or a mapping, the buffer is part of the VM
 *
 * @par Context
 * Any; needs neither reservation.
 * @return 0; -ENOMEM; -EINVAL (reported): an argument is missing; what lf_vm_error() says; -EOWNERDEAD in a poisoned child. May sleep like
 * lf_fence_create().
 */
LF_API int lf_vm_bo_obtain(struct lf_vm *vm, struct lf_bo *bo, struct lf_vm_bo **ret_vm_bo) LF_MUST_CHECK;

/**
 * Finds the pair.
 *
 * @param vm borrowed for the call
 * @param bo borrowed for the call
 * @return a new reference; NULL: the buffer is not part of the VM, or was closed in it. Needs neither reservation.
 */
LF_API struct lf_vm_bo *lf_vm_bo_find(struct lf_vm *vm, struct lf_bo *bo) LF_MUST_CHECK;

/**
 * Takes a reference.
 *
 * @param vm_bo may be NULL
 * @return @p vm_bo
 */
LF_API struct lf_vm_bo *lf_vm_bo_get(struct lf_vm_bo *vm_bo);

/**
 * Consumes the caller's reference; its mappings keep it, too.
 *
 * @param vm_bo may be NULL
 *
 * @par Context
 * Any, reservations of VM and buffer being locked by this thread included. Never blocks, calls nothing.
 */
LF_API void lf_vm_bo_put(struct lf_vm_bo *vm_bo);

/**
 * Closes a buffer in a VM: an application let go of it, or was killed. All its mappings there are gone at once for whoever looks from
 * now on at what was asked for; versions that are held, and what is applied, stay as they are. The VM keeps the mappings until a
 * transaction hands them out to be cleared from page tables (lf_txn_reap()), or they are in a range that is mapped anew. Until then the
 * buffer is locked, evicted and validated with the VM's others, since jobs can reach it.
 *
 * @param vm_bo borrowed for the call; obtaining the pair afterwards makes another one; closing again does nothing
 *
 * @par Context
 * Any. Never blocks, never fails, allocates nothing, needs no reservation.
 */
LF_API void lf_vm_bo_close(struct lf_vm_bo *vm_bo);

/**
 * Walks over the mappings of a VM_BO in what was asked for last: to write page table entries anew when its buffer has moved.
 *
 * @param vm_bo the VM's reservation is locked by the caller
 * @param after NULL for the first; else what this returned before
 * @return borrowed until the next commit or unlock; in no order; NULL behind the last.
 */
LF_API struct lf_mapping *lf_vm_bo_next_mapping(const struct lf_vm_bo *vm_bo, const struct lf_mapping *after);

/* --- Evicting and validating -------------------------------------------------------------------------------------------- */

/**
 * Says that a buffer was moved away, in all VMs that it is part of now: each validates it before its next job. Or, with false, that it is
 * back. (A VM_BO that is made later is not evicted: who makes one says what it is.)
 *
 * @param bo its reservation is locked by the caller (else reported, and nothing is done)
 * @param evicted what it is
 *
 * @par Context
 * Never blocks, never fails, allocates nothing.
 */
LF_API void lf_bo_set_evicted(struct lf_bo *bo, bool evicted);

/**
 * Asks whether a VM_BO waits to be validated.
 *
 * @param vm_bo borrowed for the call
 * @return whether lf_bo_set_evicted() said so last.
 */
LF_API bool lf_vm_bo_is_evicted(const struct lf_vm_bo *vm_bo);

/**
 * Locks all that a job of a VM needs: the VM's reservation, which is that of its local buffers, and each external buffer's. For the
 * body of an lf_exec loop, which may lock more.
 *
 * @param vm borrowed until lf_exec_fini()
 * @param x inside the loop
 * @param slots to reserve in each
 * @return like lf_exec_lock(). Not everything is locked unless it is 0.
 */
LF_API int lf_vm_exec_lock(struct lf_vm *vm, struct lf_exec *x, unsigned slots);

/**
 * Calls the validate hook for each VM_BO that was evicted and whose buffer the caller has locked: it brings the buffer back, and its page
 * table entries. One whose hook returns 0 is no longer evicted.
 *
 * @param vm all that lf_vm_exec_lock() locks is locked: inside the loop, only when it has just returned 0
 * @param x handed to the hook, which may lock more, if this is called inside the loop; may be NULL. If the hook returns the -EDEADLK
 * of that, so does this, and the body is done again
 * @return 0: none is evicted; the first error of the hook: those before stay validated, and the next call goes on with the rest.
 * -EOPNOTSUPP: something is evicted and there is no hook; -EINVAL (reported): the VM's reservation is not locked by the caller; -EOWNERDEAD
 * in a poisoned child.
 */
LF_API int lf_vm_validate(struct lf_vm *vm, struct lf_exec *x) LF_MUST_CHECK;

/**
 * Adds a job's fence to all that is locked; each must have a reserved slot.
 *
 * @param vm borrowed for the call
 * @param x behind the loop, without error
 * @param f takes references
 * @param local usage in the VM's reservation
 * @param external usage in all others
 */
LF_API void lf_vm_add_fence(struct lf_vm *vm, struct lf_exec *x, struct lf_fence *f, enum lf_usage local, enum lf_usage external);

LF_END_DECLS

#endif /* LIBFENCE_VM_BO_H */
