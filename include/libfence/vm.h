/* SPDX-License-Identifier: MIT */
/**
 * @file
 * GPU address spaces: which buffer is where in the addresses that a GPU sees, in versions that readers walk without a lock.
 *
 * Four objects: the address space (*VM*), the buffer (BO, <libfence/bo.h>), their pair (*VM_BO*, <libfence/vm_bo.h>), and the *mapping*:
 * a range of addresses that shows a part of a buffer. Who keeps whom:
 *
 *     mapping --> VM_BO --> VM --> reservation
 *                    \----> BO --> reservation
 *
 * and the VM's versions keep their mappings. So a VM with mappings does not end by itself: lf_vm_close() lets go of them.
 *
 * A VM is changed by transactions (<libfence/vm_txn.h>), under its reservation: each makes a new *version*, which readers see whole or not
 * at all. A version may be held for as long as one likes (lf_vm_hold()): it stays as it is, and keeps no more alive than can be seen in it.
 * What a transaction changes is what userspace asked for; what engines walk may follow later (#LF_VM_BIND): see lf_vm_view_applied().
 *
 * Addresses are 64 bits; a range is its first address and its size in bytes, may end with the last address there is, and is a multiple
 * of the VM's granule.
 *
 * Who must exclude whom:
 *
 * | | begin to commit or abort, close, reap | views, lookups, hold | close of a BO, get, put |
 * |---|---|---|---|
 * | begin to commit or abort, close, reap | the VM's reservation | run at once | run at once |
 * | views, lookups, hold | run at once | run at once | run at once |
 * | close of a BO, get, put | run at once | run at once | run at once |
 */
#ifndef LIBFENCE_VM_H
#define LIBFENCE_VM_H

#include <libfence/bo.h>

LF_BEGIN_DECLS

struct lf_exec;
struct lf_held;
struct lf_vm;
struct lf_vm_bo;
struct lf_vm_op;

/**
 * A mapping. Embed it in what the driver keeps for a mapping (lf_vm_desc.mapping_size); the library makes and frees it. The named fields
 * never change.
 */
struct lf_mapping {
	uint64_t va; /**< first address */
	uint64_t size; /**< bytes */
	uint64_t offset; /**< of its first byte in the buffer; 0 without one */
	struct lf_vm_bo *vm_bo; /**< whose buffer; NULL: none (sparse) */
	struct lf_vm *vm; /**< where */
	uint32_t flags; /**< the driver's, as given to the transaction */
	lf_atomic_u32 refs; /**< not yours */
	uint64_t tag; /**< not yours */
	struct lf_deferred deferred; /**< not yours */
	struct lf_mapping *prev; /**< not yours */
	struct lf_mapping *next; /**< not yours */
	struct lf_mapping *of; /**< not yours */
} LF_ALIGNED(8);

/** The driver's code. Each may be NULL. None is called with a lock of the library held. */
struct lf_vm_ops {
	/**
	 * A piece of a mapping that a transaction splits was made. What the driver keeps around @p of was copied byte by byte; here it is
	 * put right. Called inside the transaction's call.
	 * @return 0, or a negative errno, with which the transaction fails; the piece is freed then, and not released.
	 */
	int (*split)(struct lf_mapping *piece, const struct lf_mapping *of, void *data);
	/**
	 * A mapping is in no version any more, nobody holds it, and no reader sees it. Once for each that lf_txn_map() returned or split was called
	 * for with success. On the reclaimer thread, like a deferred call.
	 */
	void (*mapping_release)(struct lf_mapping *m, void *data);
	/** The same of a VM_BO. */
	void (*vm_bo_release)(struct lf_vm_bo *vm_bo, void *data);
	/** See lf_vm_validate(). */
	int (*validate)(struct lf_vm_bo *vm_bo, struct lf_exec *x, void *data);
	/**
	 * Applies a transaction to page tables (#LF_VM_BIND). Called once for each, in the order of the transactions, one at a time, when its
	 * in-fences have signaled: on the thread that signaled the last, like a fence's callback, or inside the submit. @p ops are the
	 * operations of the transaction in the order of lf_txn_ops_next(), perhaps none; they and what they name are borrowed for the call.
	 * @return 0, or a negative errno: the VM is banned with it.
	 */
	int (*apply)(struct lf_vm *vm, const struct lf_vm_op *ops, size_t count, void *data);
	/** The VM is gone. On the reclaimer thread, like a deferred call. */
	void (*release)(void *data);
};

/** Kinds of VMs. */
enum lf_vm_flags {
	LF_VM_BIND = 1, /**< what engines walk follows what was asked for on a bind queue: see lf_txn_submit() */
};

/** What a VM is made from. */
struct lf_vm_desc {
	const char *name; /**< for people; copied; not NULL */
	unsigned flags; /**< enum lf_vm_flags */
	uint64_t start; /**< first address */
	uint64_t size; /**< bytes; 0: up to the last address of 64 bits */
	uint64_t granule; /**< a power of two, at most 1 GiB, that start and size are multiples of; 0 for 4096 */
	uint64_t reserved_start; /**< a part of it that nothing can be mapped in: first address */
	uint64_t reserved_size; /**< bytes; 0: none */
	struct lf_resv *resv; /**< from lf_resv_create(), shared with its local buffers; takes a reference; NULL: it makes one */
	struct lf_ticket_class *cls; /**< of a reservation that it makes; NULL for the default class */
	uint64_t max_mappings; /**< 0 for 2^30, which is also the most */
	/**
	 * Of the struct of the driver's that has a struct lf_mapping in it, in bytes; 0 for the bare one. A split copies what is around it, so what
	 * others write while the VM is being changed (page table entries, say) belongs behind a pointer.
	 */
	size_t mapping_size;
	size_t mapping_offset; /**< of the struct lf_mapping in it, a multiple of 8 */
	size_t vm_bo_size; /**< the same of struct lf_vm_bo; what is around a new one is zeroed */
	size_t vm_bo_offset; /**< the same of struct lf_vm_bo */
	const struct lf_vm_ops *ops; /**< borrowed until release has returned; may be NULL */
	void *data; /**< handed to the hooks */
	/**
	 * Whose code the hooks are; takes a reference; may be NULL. Its close bans the VM with -ENODEV and waits until it is gone: it
	 * is the driver's to close and put.
	 */
	struct lf_provider *provider;
};

/* --- Life --------------------------------------------------------------------------------------------------------------- */

/**
 * Makes an empty VM.
 *
 * @param desc borrowed for the call
 * @param ret_vm a new reference
 * @return 0; -ENOMEM; -EINVAL (reported): something in @p desc; -ESHUTDOWN: the provider is closing; -EOWNERDEAD in a poisoned child.
 * May sleep.
 */
LF_API int lf_vm_create(const struct lf_vm_desc *desc, struct lf_vm **ret_vm) LF_MUST_CHECK;

/**
 * Takes a reference.
 *
 * @param vm may be NULL
 * @return @p vm
 */
LF_API struct lf_vm *lf_vm_get(struct lf_vm *vm);

/**
 * Consumes the caller's reference. A VM with mappings has references of theirs; see lf_vm_close().
 *
 * @param vm may be NULL
 *
 * @par Context
 * Any, its reservation being locked by this thread included. Never blocks, calls nothing.
 */
LF_API void lf_vm_put(struct lf_vm *vm);

/**
 * Ends a VM: nothing is mapped any more, nothing can be, and binds that were not applied yet complete with -ECANCELED. Engines walk what
 * was applied until all that is in the reservation now, and what those binds waited for, has signaled. Held versions stay.
 *
 * @param vm its reservation is locked by the caller, and no transaction is open (else reported); closing again does nothing
 *
 * @par Context
 * Never blocks, never fails, allocates nothing. Fences of binds may be signaled here, and, with #LF_VM_BIND, the enable hooks of what is in the
 * reservation run.
 * @return 0; -EINVAL, -EBUSY (reported): not locked; a transaction is open. -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_vm_close(struct lf_vm *vm);

/**
 * Bans a VM, because its page tables cannot be trusted: no transaction can be begun, binds that are not applied, or are submitted by one that
 * is open, complete, all with this error. Sticky; the first one counts. Readers go on.
 *
 * @param vm borrowed for the call
 * @param error a negative errno
 *
 * @par Context
 * Like lf_fence_signal().
 */
LF_API void lf_vm_ban(struct lf_vm *vm, int error);

/**
 * What a VM was banned with.
 *
 * @param vm borrowed for the call
 * @return 0, or the error; -ESHUTDOWN when it was closed.
 */
LF_API int lf_vm_error(const struct lf_vm *vm);

/**
 * The reservation under which the VM is changed, and which its local buffers share.
 *
 * @param vm borrowed for the call
 * @return borrowed from the VM
 */
LF_API struct lf_resv *lf_vm_resv(const struct lf_vm *vm);

/**
 * The driver's data.
 *
 * @param vm borrowed for the call
 * @return what lf_vm_desc.data was
 */
LF_API void *lf_vm_data(const struct lf_vm *vm);

/** What a VM is made of at a moment. */
struct lf_vm_stats {
	uint64_t version; /**< of what was asked for: one more with each change */
	uint64_t mappings; /**< in that version, those of closed buffers included until they are reaped */
	uint64_t nodes; /**< of the tree of that version */
	uint64_t bytes; /**< of those nodes, without the allocator's own */
	uint64_t held; /**< versions that are kept: by lf_vm_hold(), by binds, and, with #LF_VM_BIND, what is applied */
	uint64_t pinned; /**< nodes and mappings that are in a held version only */
};

/**
 * Counts.
 *
 * @param vm borrowed for the call
 * @param ret_stats filled in
 */
LF_API void lf_vm_get_stats(struct lf_vm *vm, struct lf_vm_stats *ret_stats);

/* --- References on mappings --------------------------------------------------------------------------------------------- */

/**
 * Takes a reference: the mapping, its VM_BO, buffer and VM stay, mapped or not.
 *
 * @param m may be NULL; the caller has a reference, or holds a version or the reservation under which it was found
 * @return @p m
 */
LF_API struct lf_mapping *lf_mapping_get(struct lf_mapping *m);

/**
 * Takes a reference unless the last one is gone.
 *
 * @param m found inside the read section that the caller is in; may be NULL
 * @return @p m, or NULL when it was unmapped meanwhile and nobody has it.
 */
LF_API struct lf_mapping *lf_mapping_tryget(struct lf_mapping *m) LF_MUST_CHECK;

/**
 * Consumes the caller's reference.
 *
 * @param m may be NULL
 *
 * @par Context
 * Any; never blocks, calls nothing.
 */
LF_API void lf_mapping_put(struct lf_mapping *m);

/* --- Views: one version, seen whole ------------------------------------------------------------------------------------- */

/** One version of a VM. Caller's storage; copy it as you like. */
struct lf_view {
	const struct lf_vm *vm; /**< not yours */
	uintptr_t root; /**< not yours */
	uint64_t version; /**< its number */
	uint64_t closes; /**< not yours */
};

/**
 * Looks at what was asked for, as it is now. Loads only: never waits, never starts again.
 *
 * @param vm the caller is inside a read section, and the view is valid until it ends; or its reservation is locked by the caller, and
 * the view is valid until the next commit or unlock. (Not checked.)
 * @param ret_view filled in
 *
 * @par Ordering
 * An acquire of the commit that made the version.
 */
LF_API void lf_vm_view(const struct lf_vm *vm, struct lf_view *ret_view);

/**
 * Like lf_vm_view(), but at what was applied last, which is what engines walk. Without #LF_VM_BIND the same thing; with it, mappings of
 * buffers that were closed are seen until a transaction that reaps them (lf_txn_reap()) is applied, as in page tables.
 *
 * @param vm the caller is inside a read section
 * @param ret_view filled in
 */
LF_API void lf_vm_view_applied(const struct lf_vm *vm, struct lf_view *ret_view);

/**
 * The mapping at an address.
 *
 * @param view valid
 * @param va any address
 * @return borrowed for as long as the view is valid; NULL: nothing is mapped there.
 */
LF_API struct lf_mapping *lf_view_lookup(const struct lf_view *view, uint64_t va);

/**
 * The first mapping that ends at or behind an address: the one that contains it, or the next.
 *
 * @param view valid
 * @param va any address
 * @return like lf_view_lookup()
 */
LF_API struct lf_mapping *lf_view_next(const struct lf_view *view, uint64_t va);

/**
 * The last mapping that begins at or before an address: the one that contains it, or the previous.
 *
 * @param view valid
 * @param va any address
 * @return like lf_view_lookup()
 */
LF_API struct lf_mapping *lf_view_prev(const struct lf_view *view, uint64_t va);

/**
 * The neighbour behind: the mapping that begins right where this one ends.
 *
 * @param view valid
 * @param m of this view
 * @return like lf_view_lookup(); NULL when there is a hole, or the end.
 */
LF_API struct lf_mapping *lf_view_adjacent_next(const struct lf_view *view, const struct lf_mapping *m);

/**
 * The neighbour in front: the mapping that ends right where this one begins.
 *
 * @param view valid
 * @param m of this view
 * @return like lf_view_lookup(); NULL when there is a hole, or the beginning.
 */
LF_API struct lf_mapping *lf_view_adjacent_prev(const struct lf_view *view, const struct lf_mapping *m);

/** A walk over the mappings of a range, in the order of addresses. */
struct lf_walk {
	struct lf_view view; /**< not yours */
	uint64_t at; /**< not yours */
	uint64_t last; /**< not yours */
	bool done; /**< not yours */
};

/**
 * Begins a walk over the mappings that overlap a range.
 *
 * @param walk to be given to lf_walk_next(); needs no end
 * @param view valid until the end of the walk; copied
 * @param va first address
 * @param size bytes, as many as there are to the last address at most; 0: all to the last address
 */
LF_API void lf_walk_begin(struct lf_walk *walk, const struct lf_view *view, uint64_t va, uint64_t size);

/**
 * The next mapping of a walk.
 *
 * @param walk begun
 * @return like lf_view_lookup(); NULL behind the last.
 */
LF_API struct lf_mapping *lf_walk_next(struct lf_walk *walk);

/**
 * Like lf_vm_view() and lf_view_lookup() in one.
 *
 * @param vm the caller is inside a read section, or holds its reservation locked
 * @param va any address
 * @return like lf_view_lookup()
 */
LF_API struct lf_mapping *lf_vm_lookup(const struct lf_vm *vm, uint64_t va);

/**
 * Like lf_vm_lookup(), with a reference, and without need of a read section. (It looks again if what it found was unmapped, and put for the
 * last time, before it had the reference.)
 *
 * @param vm borrowed for the call
 * @param va any address
 * @return a new reference; NULL: nothing is mapped there.
 */
LF_API struct lf_mapping *lf_vm_lookup_get(struct lf_vm *vm, uint64_t va) LF_MUST_CHECK;

/* --- Held versions ------------------------------------------------------------------------------------------------------ */

/**
 * Holds the version that was asked for last: for a crash dump, a check point, a slow reader. No read section is needed.
 *
 * @param vm takes a reference
 * @param ret_held to be given to lf_held_put()
 * @return 0; -ENOMEM; -EINVAL (reported): an argument is missing; -EOWNERDEAD in a poisoned child. May sleep.
 */
LF_API int lf_vm_hold(struct lf_vm *vm, struct lf_held **ret_held) LF_MUST_CHECK;

/**
 * Lets a version go.
 *
 * @param held consumed; NULL does nothing
 *
 * @par Context
 * Any; never blocks.
 */
LF_API void lf_held_put(struct lf_held *held);

/**
 * Looks at a held version.
 *
 * @param held borrowed for the call
 * @param ret_view valid until lf_held_put()
 */
LF_API void lf_held_view(const struct lf_held *held, struct lf_view *ret_view);

LF_END_DECLS

#endif /* LIBFENCE_VM_H */
