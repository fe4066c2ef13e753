/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Reservation objects: which fences a piece of memory waits for, under a lock that writers take and readers do not need.
 *
 * A reservation is a list of fences, each with a *usage*, and a lock. It is embedded in what it is about (lf_resv_init()), or counted by
 * itself (lf_resv_create()): buffers and address spaces take only such. Whoever changes the list holds the lock:
 *
 *     lf_resv_lock(r, ticket)  ->  lf_resv_reserve(r, n)  ->  lf_resv_add(r, fence, usage) n times  ->  lf_resv_unlock(r)
 *
 * reserve can fail, add cannot. Readers take no lock: each query is answered from one *snapshot* of the list, taken at its call; it
 * never waits for a writer and never starts again. To look (test, cursor) takes no reference; what takes longer holds the list by one.
 *
 * The list says what is pending, not what went wrong: a fence that completed, with or without error, is dropped by the next reserve. Who
 * must know of errors looks first, and reserves then.
 *
 * What a reader may rely on inside a read section: each fence that it finds stays the same live object until the section ends; its
 * identity is immutable and it becomes signaled once. It may be asked and described. To keep it longer, take lf_fence_tryget(), which
 * fails only for a fence that nobody can be waiting for any more: it is signaled, or was dropped by everybody, and will be in a moment.
 *
 * Who must exclude whom:
 *
 * | | reserve, add, replace, copy into | query, cursor, snapshot, arm a notice | init, fini |
 * |---|---|---|---|
 * | reserve, add, replace, copy into | the lock | run at once | the caller sees to it |
 * | query, cursor, snapshot, arm a notice | run at once | run at once | the caller sees to it |
 */
#ifndef LIBFENCE_RESV_H
#define LIBFENCE_RESV_H

#include <libfence/fence.h>
#include <libfence/ticket.h>

LF_BEGIN_DECLS

/** What a fence means to whoever wants to use the memory. A query for one usage returns the fences of it and of all above it here. */
enum lf_usage {
	LF_USAGE_KERNEL = 0, /**< memory management (moves, clears): everybody waits for these */
	LF_USAGE_WRITE = 1, /**< somebody writes: readers and writers wait */
	LF_USAGE_READ = 2, /**< somebody reads: writers wait */
	LF_USAGE_BOOKKEEP = 3, /**< nobody waits but who frees or moves the memory */
};

/**
 * Whom to wait for.
 *
 * @param write whether the memory will be written
 * @return the usage to query: who reads waits for writers, who writes waits for readers too.
 */
static inline enum lf_usage lf_usage_to_wait_for(bool write)
{
	return write ? LF_USAGE_READ : LF_USAGE_WRITE;
}

/** A lock that tickets can be used on (<libfence/ticket.h>). */
struct lf_ww_lock {
	lf_atomic_ptr owner; /**< not yours */
	lf_atomic_u32 spin; /**< not yours */
	struct lf_ticket *waiters; /**< not yours */
	struct lf_ticket_class *cls; /**< not yours */
};

/** A reservation. Embed it; nothing in it is yours. */
struct lf_resv {
	lf_atomic_ptr block; /**< not yours; what readers load, away from what writers write */
	char apart[64 - sizeof(lf_atomic_ptr)]; /**< not yours */
	struct lf_ww_lock lock; /**< not yours */
	lf_atomic_u64 generation; /**< not yours */
	void *spares; /**< not yours */
	uint32_t reserved; /**< not yours */
	uint32_t spares_free; /**< not yours */
	lf_atomic_u32 refs; /**< not yours */
};

/* --- Life --------------------------------------------------------------------------------------------------------------- */

/**
 * Initialises an empty reservation. Allocates nothing.
 *
 * @param resv the caller's memory
 * @param cls of the tickets that it will be locked with; NULL for the default class
 */
LF_API void lf_resv_init(struct lf_resv *resv, struct lf_ticket_class *cls);

/**
 * Ends a reservation: its references are put. Nobody may hold its lock (reported), be in a call
 * that unlocks it, or read it.
 *
 * @param resv initialised, or zeroed memory; may be initialised again afterwards. Snapshots that were taken of it stay.
 *
 * @par Context
 * Any; never blocks, never fails. Readers who may still be under way must be waited for by whoever frees the memory, as with any object:
 * give it to lf_defer_free().
 */
LF_API void lf_resv_fini(struct lf_resv *resv);

/**
 * Makes an empty reservation that is counted: for what several objects share, and must not disappear before the last of them.
 *
 * @param cls like lf_resv_init()
 * @param ret_resv a new reference
 * @return 0; -ENOMEM; -EOWNERDEAD in a poisoned child. May sleep like lf_fence_create().
 */
LF_API int lf_resv_create(struct lf_ticket_class *cls, struct lf_resv **ret_resv) LF_MUST_CHECK;

/**
 * Takes a reference.
 *
 * @param resv made by lf_resv_create() (any other is misuse, reported); may be NULL
 * @return @p resv
 */
LF_API struct lf_resv *lf_resv_get(struct lf_resv *resv);

/**
 * Consumes the caller's reference. The last one does what lf_resv_fini() does, and frees the memory after a grace period.
 *
 * @param resv made by lf_resv_create(); may be NULL
 *
 * @par Context
 * Any; never blocks, never fails.
 */
LF_API void lf_resv_put(struct lf_resv *resv);

/* --- Lock --------------------------------------------------------------------------------------------------------------- */

/**
 * Locks, waiting if need be.
 *
 * @param resv to lock
 * @param ticket of the calling thread and of the reservation's class; NULL to lock this one alone
 *
 * @par Context
 * Waits for the holder. Where that is not allowed (a callback, a read section) use lf_resv_trylock().
 *
 * @par Ordering
 * An acquire: sees what earlier holders did.
 *
 * @return 0. -EDEADLK: another transaction goes first; unlock everything that @p ticket holds, then lf_resv_lock_slow() this one.
 * -EALREADY: @p ticket (or, without ticket, this thread: reported) holds it already; nothing changed. -EPERM (reported): it would have to wait, and
 * the caller may not, or for a lock that this thread holds without this ticket. -EINVAL (reported): the ticket is of another class or
 * thread. -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_resv_lock(struct lf_resv *resv, struct lf_ticket *ticket) LF_MUST_CHECK;

/**
 * Like lf_resv_lock(), for the lock that -EDEADLK was said about: cannot be told so again, since the ticket holds nothing.
 *
 * @param resv to lock
 * @param ticket holds no lock
 * @return like lf_resv_lock(), but never -EDEADLK or -EALREADY; -EINVAL (reported) also when @p ticket holds a lock.
 */
LF_API int lf_resv_lock_slow(struct lf_resv *resv, struct lf_ticket *ticket) LF_MUST_CHECK;

/**
 * Locks if that is possible at once. Like lf_resv_lock(), but allowed everywhere, also in callbacks.
 *
 * @param resv to lock
 * @param ticket like there
 * @return 0; -EBUSY: somebody has it, or is being woken to take it; -EALREADY: @p ticket or this thread has; -EINVAL, -EOWNERDEAD like
 * there.
 */
LF_API int lf_resv_trylock(struct lf_resv *resv, struct lf_ticket *ticket) LF_MUST_CHECK;

/**
 * Unlocks. Slots that were reserved and not used are gone.
 *
 * @param resv locked by this thread or with its ticket; anything else is misuse, reported, and leaves the lock alone
 *
 * @par Ordering
 * A release.
 */
LF_API void lf_resv_unlock(struct lf_resv *resv);

/**
 * Asks whether anybody has the lock.
 *
 * @param resv borrowed for the call
 * @return true while somebody has it.
 */
LF_API bool lf_resv_is_locked(const struct lf_resv *resv);

/**
 * Asks whether the calling thread has the lock, with a ticket or without.
 *
 * @param resv borrowed for the call
 * @return true if so; that cannot change under the caller.
 */
LF_API bool lf_resv_is_held(const struct lf_resv *resv);

/* --- Changing ----------------------------------------------------------------------------------------------------------- */

/**
 * Makes room for @p n more fences, so that adding them cannot fail. Cumulative: two calls for one make room for two.
 *
 * When the list is full, a compacted copy takes its place: without what has completed, and of an ordered context (a timeline's, a chain's)
 * without what a newer fence of it stands for in the same or a stronger usage. Fences of contexts that are not ordered stay until they
 * are signaled.
 *
 * @param resv locked by the caller
 * @param n 0 does nothing
 *
 * @par Context
 * Like lf_fence_create().
 * @return 0; -ENOMEM: nothing changed, earlier reservations included; -EOVERFLOW: more than 2^31 slots; -EINVAL (reported): not locked by
 * the caller; -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_resv_reserve(struct lf_resv *resv, unsigned n) LF_MUST_CHECK;

/**
 * Adds a fence. Uses one reserved slot, allocates nothing, cannot fail.
 *
 * To promote a fence that is in the list, add it again with the stronger usage: then both count, until a compaction drops the weaker.
 * Adding it with a weaker usage demotes nothing.
 *
 * @param resv locked by the caller
 * @param f takes a reference; readers find it from now on
 * @param usage of enum lf_usage
 *
 * @par Ordering
 * A release: readers that find the fence see what was written before.
 *
 * @par Context
 * Any. Without a reserved slot it is misuse, reported; the fence is not lost as long as there is memory for it.
 */
LF_API void lf_resv_add(struct lf_resv *resv, struct lf_fence *f, enum lf_usage usage);

/**
 * Does what can fail of replacing. Cumulative, like lf_resv_reserve(), and like there gone with the unlock.
 *
 * @param resv locked by the caller
 * @param n calls of lf_resv_replace() that are to come
 * @return like lf_resv_reserve().
 */
LF_API int lf_resv_reserve_replace(struct lf_resv *resv, unsigned n) LF_MUST_CHECK;

/**
 * Replaces all fences of a context by one: for fences that stand for a condition rather than for work, such as "this process is preempted",
 * where the new one says that what the old ones protected does not happen.
 *
 * @param resv locked by the caller
 * @param context whose fences go; not 0
 * @param f takes a reference
 * @param usage of @p f, whatever the old ones had
 *
 * @par Context
 * Any; needs lf_resv_reserve_replace(), and no reserved slot. Without it: misuse, reported, like lf_resv_add().
 * @return how many were replaced; 0 when there was none (signaled ones that were still in the list count), and then @p f is not added.
 */
LF_API size_t lf_resv_replace(struct lf_resv *resv, uint64_t context, struct lf_fence *f, enum lf_usage usage);

/**
 * Adds what another reservation has pending, with its usages.
 *
 * @param dst locked by the caller; need not have room
 * @param src need not be locked; may be @p dst
 * @return 0; like lf_resv_reserve(), and then @p dst is unchanged.
 */
LF_API int lf_resv_copy(struct lf_resv *dst, const struct lf_resv *src) LF_MUST_CHECK;

/* --- Asking ------------------------------------------------------------------------------------------------------------- */

/**
 * Asks whether all fences of a usage are signaled. Loads only.
 *
 * @param resv need not be locked
 * @param usage of enum lf_usage
 * @return true when nothing of this usage is pending; false (reported) for what is no reservation or usage.
 *
 * @par Ordering
 * true is an acquire of all of their signals.
 */
LF_API bool lf_resv_test_signaled(const struct lf_resv *resv, enum lf_usage usage);

/**
 * Waits for all fences of a usage that are there at the call; those that are added later do not prolong it. All are armed first.
 *
 * @param resv need not be locked, and should not be
 * @param usage of enum lf_usage
 * @param deadline absolute nanoseconds
 *
 * @par Context
 * Waits. Allocates nothing.
 * @return like lf_fence_wait().
 */
LF_API int lf_resv_wait(const struct lf_resv *resv, enum lf_usage usage, int64_t deadline);

/**
 * Hints at a deadline to all fences of a usage; see lf_fence_set_deadline().
 *
 * @param resv need not be locked
 * @param usage of enum lf_usage
 * @param deadline absolute nanoseconds
 */
LF_API void lf_resv_set_deadline(const struct lf_resv *resv, enum lf_usage usage, int64_t deadline);

/**
 * The pending fences of a usage.
 *
 * @param resv need not be locked
 * @param usage of enum lf_usage
 * @param ret_fences new references, in an array to be freed with lf_free(); NULL when there is none
 * @param ret_count how many
 * @return 0; -ENOMEM; -EINVAL (reported): no reservation, no usage, or no place for the result; -EOWNERDEAD in a poisoned child. May sleep.
 */
LF_API int lf_resv_get_fences(const struct lf_resv *resv, enum lf_usage usage, struct lf_fence ***ret_fences, size_t *ret_count) LF_MUST_CHECK;

/**
 * The pending fences of a usage as one fence.
 *
 * @param resv need not be locked
 * @param usage of enum lf_usage
 * @param ret_fence a new reference: the stub when there is none, the fence when there is one, else an array of them
 * @return like lf_resv_get_fences().
 */
LF_API int lf_resv_get_singleton(const struct lf_resv *resv, enum lf_usage usage, struct lf_fence **ret_fence) LF_MUST_CHECK;

/**
 * A number that changes whenever the list does: whoever finds it unchanged has missed no fence.
 *
 * @param resv need not be locked
 * @return the number of changes.
 *
 * @par Ordering
 * Who reads a generation and then queries finds at least what was added up to it.
 */
LF_API uint64_t lf_resv_generation(const struct lf_resv *resv);

/**
 * Writes for people: a line for each fence, all usages, signaled or not.
 *
 * @param resv need not be locked
 * @param buf receives a terminated string, cut where it must be; may be NULL when @p size is 0
 * @param size of @p buf in bytes
 * @return the length the full text has, as snprintf() does.
 */
LF_API int lf_resv_describe(const struct lf_resv *resv, char *buf, size_t size);

/* --- Cursor ------------------------------------------------------------------------------------------------------------- */

/** A walk over a list as it was at one moment. On the caller's stack. */
struct lf_resv_cursor {
	const uintptr_t *at; /**< not yours */
	const uintptr_t *end; /**< not yours */
	uintptr_t usage; /**< not yours */
};

/**
 * Begins a walk over the fences of a usage as they are now, in the order in which they were added. What is added later is not seen.
 *
 * @param cursor to be given to lf_resv_cursor_next(); needs no end
 * @param resv locked by the caller, or the caller is inside a read section, which must not end before the walk (else reported, and there is
 * nothing to see)
 * @param usage of enum lf_usage
 */
LF_API void lf_resv_cursor_begin(struct lf_resv_cursor *cursor, const struct lf_resv *resv, enum lf_usage usage);

/**
 * The next fence of a walk, pending or signaled.
 *
 * @param cursor begun
 * @return borrowed for as long as what the walk was begun under: the read section, the snapshot, or the lock (there until the holder's next
 * reserve or replace); NULL behind the last.
 */
static inline struct lf_fence *lf_resv_cursor_next(struct lf_resv_cursor *cursor)
{
	while (cursor->at != cursor->end) {
		uintptr_t slot = *cursor->at++;

		if ((slot & 3) <= cursor->usage)
			return (struct lf_fence *)(slot & ~(uintptr_t)7);
	}
	return NULL;
}

/**
 * The usage of the fence that lf_resv_cursor_next() returned last.
 *
 * @param cursor has returned a fence
 * @return its usage.
 */
static inline enum lf_usage lf_resv_cursor_usage(const struct lf_resv_cursor *cursor)
{
	return (enum lf_usage)(cursor->at[-1] & 3);
}

/* --- Snapshot ----------------------------------------------------------------------------------------------------------- */

/** The fences of a reservation as they were at one moment, kept alive. Caller's storage; zeroed memory is an empty one. */
struct lf_snapshot {
	void *block; /**< not yours */
	size_t count; /**< not yours */
};

/**
 * Takes a snapshot: of all usages, in constant time, without lock and without memory. What is added to the reservation later is not
 * in it; it stays valid when the reservation ends. So a buffer that shares its reservation and dies takes its fences along.
 *
 * @param resv need not be locked
 * @param ret_snapshot to be given to lf_snapshot_put()
 *
 * @par Context
 * Any; cannot fail.
 */
LF_API void lf_resv_snapshot(const struct lf_resv *resv, struct lf_snapshot *ret_snapshot);

/**
 * Ends a snapshot.
 *
 * @param snapshot becomes an empty one
 *
 * @par Context
 * Like lf_fence_put().
 */
LF_API void lf_snapshot_put(struct lf_snapshot *snapshot);

/**
 * Like lf_resv_test_signaled(), of a snapshot.
 *
 * @param snapshot borrowed for the call
 * @param usage of enum lf_usage
 * @return like there.
 */
LF_API bool lf_snapshot_test_signaled(const struct lf_snapshot *snapshot, enum lf_usage usage);

/**
 * Like lf_resv_wait(), for a snapshot.
 *
 * @param snapshot borrowed for the call
 * @param usage of enum lf_usage
 * @param deadline absolute nanoseconds
 * @return like there.
 */
LF_API int lf_snapshot_wait(const struct lf_snapshot *snapshot, enum lf_usage usage, int64_t deadline);

/**
 * Like lf_resv_cursor_begin(), over a snapshot, which must outlive the walk.
 *
 * @param cursor like there
 * @param snapshot needs neither lock nor read section
 * @param usage like there
 */
LF_API void lf_snapshot_cursor_begin(struct lf_resv_cursor *cursor, const struct lf_snapshot *snapshot, enum lf_usage usage);

LF_END_DECLS

#endif /* LIBFENCE_RESV_H */
