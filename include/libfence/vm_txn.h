/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Transactions: how an address space is changed.
 *
 *     lf_txn_begin(&txn, vm)  ->  lf_txn_map(), lf_txn_unmap(), ...  ->  lf_txn_ops_next() ...  ->  lf_txn_commit(), submit() or abort()
 *
 * Requests, in any mix and number, are applied one after the other to a version of the transaction's own; nobody else sees it. What may
 * fail, fails in them. Then the *operations* can be walked: the difference to the version before, which is what the driver has
 * to do to its page tables. First what goes, then what comes, then what shall be prefetched, the first two in the order of addresses:
 * so page tables come out right whatever overlapped. The commit makes the version the VM's, and cannot fail; an abort leaves no trace.
 *
 * An error of a request is sticky, since half of the request may be done: whatever comes next returns it again, and the transaction
 * can only be aborted. (Refused before anything was done, and not sticky: -EINVAL, -ENOSPC, -ENOENT.)
 */
#ifndef LIBFENCE_VM_TXN_H
#define LIBFENCE_VM_TXN_H

#include <libfence/vm_bo.h>

LF_BEGIN_DECLS

/** A tree that is being changed. Not yours. */
struct lf_va_edit {
	void *root; /**< not yours */
	void *owned; /**< not yours */
	void *replaced; /**< not yours */
	uint64_t birth; /**< not yours */
	int64_t nodes; /**< not yours */
	int64_t bytes; /**< not yours */
};

/** A transaction. Caller's storage; of the thread that has locked the VM's reservation. */
struct lf_txn {
	struct lf_vm *vm; /**< which it changes */
	struct lf_va_edit edit; /**< not yours */
	struct lf_mapping *born; /**< not yours */
	struct lf_mapping *gone; /**< not yours */
	void *prefetches; /**< not yours */
	int64_t mappings; /**< not yours */
	int error; /**< not yours */
	bool sorted; /**< not yours */
};

/**
 * Begins a transaction.
 *
 * @param txn the caller's storage
 * @param vm its reservation is locked by the caller until commit or abort
 * @return 0; -EBUSY (reported): another one is open; -EINVAL (reported): not locked; what lf_vm_error() says; -EOWNERDEAD in a poisoned
 * child. On failure there is nothing to abort. May sleep like lf_fence_create().
 */
LF_API int lf_txn_begin(struct lf_txn *txn, struct lf_vm *vm) LF_MUST_CHECK;

/** What shall be mapped. */
struct lf_map_desc {
	uint64_t va; /**< first address */
	uint64_t size; /**< bytes, not 0 */
	struct lf_vm_bo *vm_bo; /**< of this VM, not closed; borrowed for the call; NULL: no buffer (sparse) */
	uint64_t offset; /**< in the buffer, of the first byte, a multiple of the granule; with the size within it; 0 without one */
	uint32_t flags; /**< the driver's */
};

/**
 * Maps a range, whatever was there: mappings inside it go, those that reach over its ends are split. A mapping that is there already, with
 * the same buffer, offset and flags, stays, and nothing is to be done.
 *
 * @param txn begun
 * @param desc borrowed for the call
 * @param ret_mapping when not NULL: the mapping, borrowed until the end of the transaction or a request that replaces or splits it, so that
 * the driver can fill in its data. The data of a new one is zeroed.
 * @return 0; -ENOMEM; what the split hook says; -EINVAL (reported): the range is empty, not of the granule, not within the VM, touches
 * its reserved part, or the part of the buffer is not within that; -ENOSPC: too many mappings; -ENOENT: the VM_BO was closed; or the error
 * before.
 */
LF_API int lf_txn_map(struct lf_txn *txn, const struct lf_map_desc *desc, struct lf_mapping **ret_mapping) LF_MUST_CHECK;

/**
 * Unmaps a range: like lf_txn_map() of nothing.
 *
 * @param txn begun
 * @param va first address
 * @param size bytes
 * @return like lf_txn_map().
 */
LF_API int lf_txn_unmap(struct lf_txn *txn, uint64_t va, uint64_t size) LF_MUST_CHECK;

/**
 * Splits the mappings that reach over the ends of a range, there: so that what the driver keeps for those inside can be changed alone (as
 * madvise does). Maps and unmaps nothing.
 *
 * @param txn begun
 * @param va first address
 * @param size bytes
 * @return like lf_txn_map().
 */
LF_API int lf_txn_split(struct lf_txn *txn, uint64_t va, uint64_t size) LF_MUST_CHECK;

/**
 * Asks that what is mapped in a range, at the end of the transaction, be prefetched: yields operations, and changes nothing.
 *
 * @param txn begun
 * @param va first address
 * @param size bytes
 * @return like lf_txn_map().
 */
LF_API int lf_txn_prefetch(struct lf_txn *txn, uint64_t va, uint64_t size) LF_MUST_CHECK;

/**
 * Unmaps what buffers that were closed have left behind (lf_vm_bo_close()): each mapping that must be cleared from page tables is an
 * operation of one transaction, once. Without memory, or after an abort, it is there the next time; and so is what was mapped in this very
 * transaction before its buffer was closed.
 *
 * @param txn begun
 * @return 0; -ENOMEM, or the error before.
 */
LF_API int lf_txn_reap(struct lf_txn *txn) LF_MUST_CHECK;

/**
 * Looks at the transaction's version; after an error, at the one that it began with.
 *
 * @param txn begun
 * @param ret_view valid until the next request, commit or abort
 */
LF_API void lf_txn_view(const struct lf_txn *txn, struct lf_view *ret_view);

/* --- Operations --------------------------------------------------------------------------------------------------------- */

/** What is to be done. */
enum lf_vm_op_kind {
	LF_VM_OP_UNMAP, /**< a mapping goes */
	LF_VM_OP_REMAP, /**< a mapping goes, but for its beginning (prev), its end (next), or both, which are mappings of their own now */
	LF_VM_OP_MAP, /**< a mapping comes */
	LF_VM_OP_PREFETCH, /**< a part of a mapping is wanted soon */
};

/** An operation. */
struct lf_vm_op {
	enum lf_vm_op_kind kind; /**< which */
	/**
	 * UNMAP, REMAP: of what goes, the page table entries may stay as they are, since the same memory comes there. MAP: they are there already,
	 * since this is a piece of a mapping whose operation says keep. Flags and driver data may differ.
	 */
	bool keep;
	struct lf_mapping *mapping; /**< UNMAP, REMAP: what goes; MAP: what comes; PREFETCH: what is wanted */
	struct lf_mapping *prev; /**< REMAP: what stays of its beginning; NULL where nothing does */
	struct lf_mapping *next; /**< REMAP: what stays of its end; NULL where nothing does */
	uint64_t va; /**< the addresses whose entries change (REMAP: without prev and next) or are wanted: the first one */
	uint64_t size; /**< bytes of that */
};

/** A walk over operations. On the caller's stack. */
struct lf_txn_cursor {
	struct lf_txn *txn; /**< not yours */
	struct lf_mapping *gone; /**< not yours */
	struct lf_mapping *born; /**< not yours */
	void *prefetch; /**< not yours */
	uint64_t at; /**< not yours */
};

/**
 * Begins a walk over the operations of a transaction, as it stands.
 *
 * @param cursor to be given to lf_txn_ops_next(); needs no end
 * @param txn begun, without error; no request may come before the end of the walk
 */
LF_API void lf_txn_ops_begin(struct lf_txn_cursor *cursor, struct lf_txn *txn);

/**
 * The next operation.
 *
 * @param cursor begun
 * @param ret_op filled in when there is one; its mappings are borrowed until the next request, commit or abort (with a reference, or
 * inside the apply hook, longer)
 * @return whether there is one.
 */
LF_API bool lf_txn_ops_next(struct lf_txn_cursor *cursor, struct lf_vm_op *ret_op);

/* --- End ---------------------------------------------------------------------------------------------------------------- */

/**
 * Makes the transaction's version the VM's: one store, before which readers see the old one, and after it the new one.
 *
 * @param txn begun, without error, of a VM without a bind queue (else reported, and it is an abort)
 *
 * @par Context
 * Never blocks, never fails, allocates nothing, calls nothing.
 */
LF_API void lf_txn_commit(struct lf_txn *txn);

/**
 * Commits on the VM's bind queue: what userspace asked for changes now, and what engines walk when fences have signaled, in the order of
 * the transactions; until then, a job finds what was there before. If applying fails the VM is banned.
 *
 * @param txn begun, without error; of a VM with #LF_VM_BIND
 * @param in fences to wait for, borrowed for the call; whatever their results
 * @param count how many; 0: it waits for earlier ones only
 * @param ret_out when not NULL: a new reference on a fence of the VM's bind timeline that signals when the transaction was applied, or with
 * the error of a ban
 *
 * @par
 * After a return of 0 the transaction is over, and the VM's reservation can be unlocked. When what is unmapped may be moved or taken away
 * before it was applied, add the out-fence to its buffer's reservation: page tables have it until then.
 *
 * @par Context
 * Like lf_fence_create(). Enable hooks of the in-fences run here, and the apply hook if there is nothing to wait for.
 * @return 0: committed. -ENOMEM, or the error of a request: nothing has happened, and the transaction is open still, to be tried again or
 * aborted. -EINVAL (reported): no bind queue, or an argument is missing.
 */
LF_API int lf_txn_submit(struct lf_txn *txn, struct lf_fence *const *in, size_t count, struct lf_fence **ret_out) LF_MUST_CHECK;

/**
 * Ends a transaction as if it had never begun.
 *
 * @param txn begun
 *
 * @par Context
 * Never blocks, never fails.
 */
LF_API void lf_txn_abort(struct lf_txn *txn);

LF_END_DECLS

#endif /* LIBFENCE_VM_TXN_H */
