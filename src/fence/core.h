/* SPDX-License-Identifier: MIT */
/*
 * The inside of a fence, for the files of src/fence and for layers above that hang their own nodes on fences.
 *
 * Overview, states and invariants are in fence.c. Everything here works on one fence; what runs code of others is in dispatch.c.
 */
#ifndef LF_FENCE_CORE_H
#define LF_FENCE_CORE_H

#include <libfence/fence_producer.h>

#include "base/check.h"
#include "base/library.h"
#include "base/port.h"
#include "base/refcount.h"
#include "base/track.h"

_Static_assert(_Alignof(struct lf_fence) >= 8 && _Alignof(struct lf_fence_cb) >= 8, "three bits of their addresses hold flags");
_Static_assert(sizeof(void *) != 8 || sizeof(struct lf_fence) == 64, "a fence is one cache line");

/* --- The callback word: list pointer | flags ------------------------------------------------------------------------------ */

#define FENCE_LOCK     ((uintptr_t)1) /* the fence is locked: the list and the fields marked so belong to the holder */
#define FENCE_SIGNALED ((uintptr_t)2) /* result and timestamp are final */
#define FENCE_DRAINED  ((uintptr_t)4) /* every callback has returned */
#define FENCE_FLAGS    ((uintptr_t)7)

/* --- The state word ------------------------------------------------------------------------------------------------------- */

#define FENCE_ERROR       UINT32_C(0x00000fff) /* the error, negated */
#define FENCE_KIND        UINT32_C(0x00007000) /* enum fence_kind; 0 in memory that was never initialised */
#define FENCE_ORDERED     UINT32_C(0x00008000) /* of an ordered timeline */
#define FENCE_PUBLISHED   UINT32_C(0x00010000) /* readers may find it without a reference: its memory waits for a grace period */
#define FENCE_ENABLED     UINT32_C(0x00020000) /* the enable hook was called, or there is none */
#define FENCE_SYNC_WAITER UINT32_C(0x00040000) /* somebody sleeps until a callback returns */
#define FENCE_DEAD        UINT32_C(0x00080000) /* the last reference is the dispatcher's to put */
#define FENCE_HOOK        UINT32_C(0x00100000) /* one hook in flight; 5 bits */
#define FENCE_HOOKS       UINT32_C(0x01f00000)
#define FENCE_OFFSET_UNIT UINT32_C(0x02000000) /* 8 bytes of offset; 7 bits */

#define FENCE_KIND_SHIFT 12

enum fence_kind { FENCE_STAND_ALONE = 1, FENCE_OF_TIMELINE, FENCE_STUB, FENCE_ARRAY, FENCE_CHAIN, FENCE_KINDS };

/*
 * What the fences of a higher layer do in their own way: containers, which are signaled by their members. One constant instance a kind, in
 * the library's code, entered by a constructor of the layer. While such a fence is pending it has an origin, without hooks: the mark
 * that enabling it does something.
 */
struct fence_class {
	const char *name; /* what lf_fence_name() says */
	/* Arms the fence; with nothing held, perhaps several times. */
	void (*enable)(struct lf_fence *f);
	/* Calls @fn for each pending leaf; for none if there is no memory to find them. With nothing held. */
	void (*for_each_leaf)(struct lf_fence *f, void (*fn)(struct lf_fence *leaf, void *arg), void *arg);
	/*
	 * Gives up what a signaled fence does not need. In the first phase of its dispatch, so before its users' callbacks, with nothing held.
	 */
	void (*settle)(struct lf_fence *f);
	/* Gives up everything; nobody refers to the fence. Then calls fence_free_memory(). */
	void (*end)(struct lf_fence *f);
};
extern LF_INTERNAL const struct fence_class *fence_classes[FENCE_KINDS];

/*
 * What a pending fence needs of its producer. Lives in the producer's object of the library (a timeline), as long as a fence is attached.
 */
struct fence_origin {
	const struct lf_fence_ops *ops; /* may be NULL */
	void *data;
	struct lf_provider *provider; /* may be NULL; the origin holds a reference */
	/* Signals @f the way its producer does: what an enable or poll hook said. */
	void (*complete)(struct fence_origin *origin, struct lf_fence *f, int error);
	/* @n fences were detached; their detach hooks have returned. */
	void (*detached)(struct fence_origin *origin, size_t n);
};

/* The origin of all containers: a mark, of which nothing is ever called. */
extern LF_INTERNAL struct fence_origin fence_no_producer;

/* --- Node states (lf_fence_cb.state): fence | one of these ---------------------------------------------------------------- */

enum { CB_IDLE = 0, CB_QUEUED = 1, CB_RAN = 2, CB_REMOVED = 3, CB_STATE = 3, CB_INTERNAL = 4 };

/* --- Accessors: the only atomics on a fence's words ------------------------------------------------------------------------- */

static inline uintptr_t fence_word(const struct lf_fence *f)
{
	/* order: fence-signaled (acquire): whoever sees the flag sees result and timestamp, and what the producer wrote before */
	return ptr_load(&f->callbacks, PLANT_ORDER(10, memory_order_relaxed, memory_order_acquire));
}

static inline uint32_t fence_state(const struct lf_fence *f)
{
	/* relaxed: changes under the lock; of it, who holds no lock reads only what is immutable or final since FENCE_SIGNALED */
	return u32_load(&f->state, memory_order_relaxed);
}

static inline void fence_set_state(struct lf_fence *f, uint32_t state)
{
	u32_store(&f->state, state, memory_order_relaxed); /* relaxed: see fence_state() */
}

static inline struct fence_origin *fence_origin(const struct lf_fence *f)
{
	/* relaxed: read to use it only under the lock; without, only whether there is one */
	return (struct fence_origin *)ptr_load(&f->origin, memory_order_relaxed);
}

static inline void fence_set_origin(struct lf_fence *f, struct fence_origin *origin)
{
	ptr_store(&f->origin, (uintptr_t)origin, memory_order_relaxed); /* relaxed: see fence_origin() */
}

static inline enum fence_kind fence_kind(const struct lf_fence *f)
{
	return (enum fence_kind)((fence_state(f) & FENCE_KIND) >> FENCE_KIND_SHIFT);
}

/* The class of a container; NULL of other fences. Immutable. */
static inline const struct fence_class *fence_class(const struct lf_fence *f)
{
	return fence_classes[fence_kind(f)];
}

uintptr_t fence_lock_slow(struct lf_fence *f);

/*
 * Locks the fence and returns its word, without FENCE_LOCK. For a few instructions; nothing may be called under it. Under the lock of a
 * member that of a container may be taken, never the other way round.
 */
static inline uintptr_t fence_lock(struct lf_fence *f)
{
	uintptr_t word = ptr_load(&f->callbacks, memory_order_relaxed) & ~FENCE_LOCK; /* relaxed: the exchange below has the order */

	/* order: fence-lock (acquire): sees what the last holder wrote */
	/* order: fence-push (acquire): sees the nodes that were pushed */
	if (likely(ptr_cas(&f->callbacks, &word, word | (PLANTED(170) ? 0 : FENCE_LOCK),
			   PLANT_ORDER(101, memory_order_relaxed, memory_order_acquire), memory_order_relaxed)))
		return word;
	return fence_lock_slow(f);
}

/*
 * Like fence_lock(), of a fence that is signaled. Nobody pushes any more, so the word can be exchanged without looking: a holder, who
 * would be overwritten, stores its own word when it unlocks.
 */
static inline uintptr_t fence_lock_signaled(struct lf_fence *f)
{
	/* order: fence-lock (acquire): like fence_lock() */
	uintptr_t word = ptr_xchg(&f->callbacks, FENCE_LOCK | FENCE_SIGNALED, PLANT_ORDER(102, memory_order_relaxed, memory_order_acquire));

	return likely(!(word & FENCE_LOCK)) ? word : fence_lock_slow(f);
}

/*
 * Gives the lock back with a new word. A plain store: while FENCE_LOCK is set nobody else changes the word (a push that did would be lost).
 */
static inline void fence_unlock(struct lf_fence *f, uintptr_t word)
{
	/* order: fence-lock (release): the next holder sees our writes */
	/* order: fence-signaled (release): if the word says signaled, result and timestamp come before it */
	ptr_store(&f->callbacks, word, PLANT_ORDER(7, memory_order_relaxed, memory_order_release));
}

static inline struct lf_fence_cb *word_list(uintptr_t word)
{
	return (struct lf_fence_cb *)(word & ~FENCE_FLAGS);
}

static inline uintptr_t cb_state(const struct lf_fence_cb *cb)
{
	return ptr_load(&cb->state, memory_order_relaxed); /* relaxed: changes under the fence's lock, or in the owner's hands */
}

static inline void cb_set_state(struct lf_fence_cb *cb, uintptr_t state)
{
	ptr_store(&cb->state, state, memory_order_relaxed); /* relaxed: see cb_state() */
}

static inline struct lf_fence *cb_fence(const struct lf_fence_cb *cb)
{
	return (struct lf_fence *)(cb_state(cb) & ~(uintptr_t)(CB_STATE | CB_INTERNAL));
}

/* How fences are tracked. */
extern const struct track_kind fence_track_kind;

void fence_assert_valid_slow(const struct lf_fence *f, uintptr_t word);

/* Asserts what fence.c numbers. The fence is locked, @word is its word. */
static inline void fence_assert_valid(const struct lf_fence *f, uintptr_t word)
{
	if (DEBUG_CHECKS)
		fence_assert_valid_slow(f, word);
}

bool fence_check_slow(const struct lf_fence *f, const char *function);

/* Whether @f is a live fence; reports what it is instead. In release builds only NULL is told. */
static inline bool fence_check(const struct lf_fence *f, const char *function)
{
	if (DEBUG_CHECKS || unlikely(!f))
		return fence_check_slow(f, function);
	return true;
}

/* --- Making, for layers above ---------------------------------------------------------------------------------------------- */

/*
 * Initialises a pending fence of a class, with one reference. @flags: FENCE_ORDERED or 0. @offset as in lf_fence_init().
 */
void fence_init_class(struct lf_fence *f, enum fence_kind kind, uint32_t flags, size_t offset);

/* --- Signalling, in steps ------------------------------------------------------------------------------------------------- */

/*
 * Makes a pending, locked fence signaled: writes result and timestamp, brings the list into the order of dispatch, takes the origin when it
 * can be detached at once. Returns the new word, with which the caller unlocks.
 */
uintptr_t fence_finish(struct lf_fence *f, uintptr_t word, int error, int64_t timestamp, struct fence_origin **ret_detach);

/* Calls the detach hook of a fence whose origin was taken. The caller tells the origin with ->detached(). */
void fence_detach(struct lf_fence *f, struct fence_origin *origin);

/* Dispatches a signaled fence that is not drained: see dispatch.c. It may be gone afterwards. */
void fence_dispatch(struct lf_fence *f);

/* The same for a locked fence, whose word will be @word: saves unlocking in between. SIGNALED need not be visible yet. */
void fence_dispatch_locked(struct lf_fence *f, uintptr_t word);

/*
 * Leaves a signaled, not drained fence to the dispatch of the fence whose internal node is calling: it comes next in the first phase. So
 * what signals what signals what needs no stack.
 */
void fence_dispatch_next(struct lf_fence *f);

/*
 * Between these, what is dispatched does its first phase only; the second follows at the end, or in the dispatch that is below on the
 * stack. So of several fences that are signaled together no callback keeps another one's waiters.
 */
bool fence_dispatch_begin(void);
void fence_dispatch_end(bool outermost);

/* Frees the memory of a fence that was ended. */
void fence_free_memory(struct lf_fence *f);

/* --- Hooks ---------------------------------------------------------------------------------------------------------------- */

void fence_enable_slow(struct lf_fence *f);

/* Arms the fence unless that was done: calls the enable hook. What has no origin has no hook, and is told by a look. */
static inline void fence_enable(struct lf_fence *f)
{
	if (fence_origin(f))
		fence_enable_slow(f);
}

/* --- Nodes of the library's own -------------------------------------------------------------------------------------------- */

/* What an internal node wants done when the fence's lock has been given back. */
struct fence_after {
	void (*fn)(void *arg);
	void *arg;
	bool put; /* a reference on the fence, which the node had, is the dispatcher's to put */
};

/*
 * What an internal node does when its fence is signaled: called with the fence locked, so it may only count, and ask for more through
 * @after. The fence does not touch the node afterwards.
 */
typedef void (*fence_internal_fn)(struct lf_fence *f, struct lf_fence_cb *cb, struct fence_after *after);

/*
 * Adds an internal node; they run before all user callbacks. Does not enable the fence (that is fence_enable()). The node need not be
 * initialised. Returns 0 or -ENOENT: signaled already.
 */
int fence_add_internal(struct lf_fence *f, struct lf_fence_cb *cb, fence_internal_fn fn);

/*
 * Like fence_add_internal(), for a node that readers reach the fence through: publishes it, too. The locked form does that to a locked
 * fence and returns the new word, or the same one when the fence is signaled.
 */
int fence_subscribe(struct lf_fence *f, struct lf_fence_cb *cb, fence_internal_fn fn);
uintptr_t fence_subscribe_locked(struct lf_fence *f, uintptr_t word, struct lf_fence_cb *cb, fence_internal_fn fn);

/* Takes an internal node back. Returns false when its function has run; it has returned then. */
bool fence_remove_internal(struct lf_fence *f, struct lf_fence_cb *cb);

/* --- Nodes that are run like a user's ---------------------------------------------------------------------------------------- */

/*
 * lf_fence_add_callback() without its checks, and without enabling the fence: for a node that the library adds on behalf of its user.
 * Returns 0 or -ENOENT: signaled already, and the node is as it was.
 */
int fence_add_user(struct lf_fence *f, struct lf_fence_cb *cb, lf_fence_cb_fn func);

/*
 * Sleeps until callback @cb of @f, which was running a moment ago, does not run; its node is not looked at. Returns LF_CB_RAN, or -EDEADLK
 * (reported) for the mutual wait of lf_fence_cancel_callback_sync(). Not inside that callback.
 */
int fence_sleep_while_running(struct lf_fence *f, const struct lf_fence_cb *cb);

/*
 * For wait_drained and cancel_sync: unlocks, and sleeps until a callback has returned (D5 in dispatch.c), or for no reason. False: too
 * late.
 */
bool fence_sleep_locked(struct lf_fence *f, uintptr_t word, int64_t deadline);

#endif /* LF_FENCE_CORE_H */
