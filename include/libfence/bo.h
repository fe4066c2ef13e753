/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Buffer objects: memory that is named, shared, waited for, and moved while it is in use.
 *
 * A buffer has a *reservation* (its own, or one that it shares with others, such as those of an address space), and a *backing*: the
 * memory that it is in at present, which belongs to the driver and has a release hook. A buffer moves without anybody waiting:
 *
 *     lf_resv_lock(bo->resv)  ->  lf_bo_prepare_move(bo)  ->  lf_bo_move(bo, &new_backing, copy_done)  ->  lf_resv_unlock(bo->resv)
 *
 * The move's fence goes into the reservation as LF_USAGE_KERNEL, so that what is submitted from then on, for the new place, waits for it.
 * The old backing goes to a *ghost*, which keeps the fences that were there at that moment, the move's included, and releases it when all
 * of them have signaled and nobody has it mapped (<libfence/attachment.h>). Any number of moves may be in flight.
 *
 * Who must exclude whom:
 *
 * | | move, prepare, invalidate, revoke_begin, map | get, put, unmap, detach, revoke_wait |
 * |---|---|---|
 * | move, prepare, invalidate, revoke_begin, map | the reservation | run at once |
 * | get, put, unmap, detach, revoke_wait | run at once | run at once |
 */
#ifndef LIBFENCE_BO_H
#define LIBFENCE_BO_H

#include <libfence/reclaim.h>
#include <libfence/resv.h>

LF_BEGIN_DECLS

struct lf_attachment;
struct lf_bo;
struct lf_provider;

/** The memory that a buffer is in: a driver's name for it, and the way to give it back. */
struct lf_backing {
	void *memory; /**< the driver's; NULL is fine */
	/**
	 * Gives the memory back. Called once for each backing that a buffer was given, when the buffer has left it or is gone, all fences that
	 * were in its reservation then are signaled, and no mapping of it is left: on the thread where the last of those fences was
	 * signaled, like a fence's callback, or on the reclaimer thread, like a deferred call; never inside a call that takes a buffer,
	 * whatever that call's thread has locked. May be NULL.
	 */
	void (*release)(void *memory, void *user);
	void *user; /**< handed to release */
};

/** A reference to a part of the library's in a list. Not yours. */
struct lf_bo_link {
	struct lf_bo_link *prev; /**< not yours */
	struct lf_bo_link *next; /**< not yours */
};

/** A buffer. Embed it in a block from lf_alloc(), which the library frees. Read @c size and @c resv; nothing else in it is yours. */
struct lf_bo {
	uint64_t size; /**< bytes; immutable */
	struct lf_resv *resv; /**< the reservation; immutable, and lives as long as the buffer (lf_resv_get() to have it longer) */
	lf_atomic_ptr place; /**< not yours */
	void *spare; /**< not yours */
	lf_atomic_u32 refs; /**< not yours */
	lf_atomic_u32 maps; /**< not yours */
	lf_atomic_u32 spin; /**< not yours */
	uint32_t offset; /**< not yours */
	struct lf_bo_link attachments; /**< not yours */
	uint64_t attached; /**< not yours */
	struct lf_bo_link users; /**< not yours */
	struct lf_deferred deferred; /**< not yours */
	void *resource; /**< not yours */
	void (*release)(struct lf_bo *bo); /**< not yours */
} LF_ALIGNED(8);

/** What a buffer is made from. */
struct lf_bo_desc {
	size_t offset; /**< of the struct lf_bo from the start of its block, in bytes; a multiple of 8 */
	uint64_t size; /**< bytes, not 0 */
	struct lf_resv *resv; /**< to be shared, made by lf_resv_create(); takes a reference; NULL: one of its own */
	struct lf_ticket_class *cls; /**< of a reservation of its own; NULL for the default class */
	struct lf_backing backing; /**< where it is at first; copied; all zero: nowhere */
	/**
	 * Called once when the last reference is gone and every backing that the buffer was given is released, before the block is freed: for what
	 * the driver keeps around the struct. On the threads and under the rules of lf_backing.release. May be NULL.
	 */
	void (*release)(struct lf_bo *bo);
	/**
	 * Whose code the release hooks are; takes a reference; may be NULL. Its close waits until they have been called: a buffer is the driver's
	 * to put.
	 */
	struct lf_provider *provider;
	const char *name; /**< for people, copied; needed with a provider, which names what is left */
};

/**
 * Makes a buffer inside a larger block.
 *
 * @param bo inside a block from lf_alloc(), which the caller may have filled in around it
 * @param desc borrowed for the call
 *
 * @par Ownership
 * After a return of 0 the caller has the only reference, block and backing are the buffer's, and the block ends a grace period after
 * the last reference; on failure both are still the caller's.
 * @return 0; -ENOMEM; -EINVAL (reported): no size, a misplaced offset, a reservation that lf_resv_create() did not make, a provider without
 * a name; -ESHUTDOWN: the provider is closing; -EOWNERDEAD in a poisoned child. May sleep like lf_fence_create().
 */
LF_API int lf_bo_init(struct lf_bo *bo, const struct lf_bo_desc *desc) LF_MUST_CHECK;

/**
 * Takes a reference.
 *
 * @param bo may be NULL
 * @return @p bo
 */
LF_API struct lf_bo *lf_bo_get(struct lf_bo *bo);

/**
 * Takes a reference unless the last one is gone.
 *
 * @param bo found inside the read section that the caller is in (lf_vm_lookup()); may be NULL
 * @return @p bo, or NULL when its last reference has been put.
 */
LF_API struct lf_bo *lf_bo_tryget(struct lf_bo *bo) LF_MUST_CHECK;

/**
 * Consumes the caller's reference. The last one ends the buffer: its backing is released when what is in the reservation now has
 * signaled, however many more fences a shared reservation gets.
 *
 * @param bo may be NULL
 *
 * @par Context
 * Any: callbacks, hooks, read sections, any reservation of this thread being locked (also its own, as long as somebody has a reference on
 * that). Never blocks, never fails, allocates nothing, calls nothing.
 */
LF_API void lf_bo_put(struct lf_bo *bo);

/**
 * The memory that the buffer is in.
 *
 * @param bo its reservation is locked by the caller; without, the answer may be out of date when it arrives
 * @return what was given as lf_backing.memory; NULL when it is nowhere. It may not have arrived there yet: see lf_bo_move().
 */
LF_API void *lf_bo_memory(const struct lf_bo *bo);

/**
 * Does what can fail of the next move. Doing it twice prepares one move.
 *
 * @param bo its reservation is locked by the caller, and stays so until the move; what was prepared and not used is kept for another
 * time, but for the slot in the reservation
 *
 * @par Context
 * Like lf_fence_create().
 * @return 0; -ENOMEM: nothing changed; -EINVAL (reported): the reservation is not locked; -EOVERFLOW; -ESHUTDOWN: the provider is closing;
 * -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_bo_prepare_move(struct lf_bo *bo) LF_MUST_CHECK;

/**
 * Moves the buffer, as far as the CPU is concerned: from here on it is in the new place. Whoever uses it must wait for its
 * fences of LF_USAGE_KERNEL, as always. The importers are told (lf_bo_invalidate()) when all of that is done, and may ask for the new place
 * from within. Gutting is a move to nowhere.
 *
 * @param bo its reservation is locked by the caller, and lf_bo_prepare_move() has succeeded since the last move
 * @param backing copied; NULL: nowhere
 * @param f signals when the contents have arrived; takes a reference; NULL: they have already. The driver's copy must wait for what was in
 * the reservation before.
 *
 * @par Ownership
 * The new backing is the buffer's, the old one is released in its time.
 *
 * @par Context
 * The importers' invalidate hooks run here, with nothing locked but what the caller has locked. Else it never blocks, never fails, and
 * allocates nothing. The enable hooks of pending fences run here. Address spaces are not told: see lf_bo_set_evicted().
 * Without preparation or lock it is misuse, reported, and nothing is done: the new backing is still the caller's.
 */
LF_API void lf_bo_move(struct lf_bo *bo, const struct lf_backing *backing, struct lf_fence *f);

/**
 * Tells the importers that their mappings are out of date: calls the invalidate hook of each attachment, in the order of attaching. Those
 * attached meanwhile are not called. The mappings stay valid until they are unmapped.
 *
 * @param bo its reservation is locked by the caller (else reported, and nothing is done)
 *
 * @par Context
 * The hooks run here, with nothing locked but what the caller has locked.
 */
LF_API void lf_bo_invalidate(struct lf_bo *bo);

/* --- Revoking ----------------------------------------------------------------------------------------------------------- */

/**
 * Takes the buffer away from its importers, for good: from here on no mapping is made, and they are told (lf_bo_invalidate()) to
 * unmap those that there are.
 *
 * @param bo its reservation is locked by the caller (else reported)
 * @return 0; -EALREADY: it was revoked before, and nobody is told again; -EINVAL; -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_bo_revoke_begin(struct lf_bo *bo);

/**
 * Waits until every mapping of a revoked buffer is gone. Importers unmap when their own fences are signaled, so this is also the
 * wait for those.
 *
 * @param bo borrowed for the call; nothing need be locked, and nothing should be
 * @param deadline absolute nanoseconds
 *
 * @par Context
 * Waits. Any number of threads may, again and again.
 * @return 0: no mapping is left, and none will be. -ETIME: the deadline came first; lf_bo_next_mapped() tells whom it waits for.
 * -EINVAL (reported): not revoked. -EDEADLK (reported): where waiting is not allowed. -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_bo_revoke_wait(struct lf_bo *bo, int64_t deadline);

/**
 * Asks whether the buffer was revoked.
 *
 * @param bo borrowed for the call
 * @return true from lf_bo_revoke_begin() on.
 */
LF_API bool lf_bo_is_revoked(const struct lf_bo *bo);

/**
 * Walks over the importers that have the buffer mapped.
 *
 * @param bo borrowed for the call
 * @param after NULL for the first; else what this returned before: consumes that reference
 * @return a new reference on the next attachment that has mappings at this moment; NULL behind the last.
 */
LF_API struct lf_attachment *lf_bo_next_mapped(struct lf_bo *bo, struct lf_attachment *after) LF_MUST_CHECK;

LF_END_DECLS

#endif /* LIBFENCE_BO_H */
