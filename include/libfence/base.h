/* SPDX-License-Identifier: MIT */
/**
 * @file
 * What every object of libfence shares: results, time, memory, log, set-up and tear-down.
 *
 * Conventions of the whole library, said once:
 * - A call that can fail returns 0 or a negative errno; a result goes through a `ret_...` parameter, which is written on
 *   success only. A call that destroys takes NULL.
 * - Times and deadlines are absolute CLOCK_MONOTONIC nanoseconds (::lf_now). #LF_DEADLINE_NEVER waits for ever, 0 (or any time
 *   in the past) asks without waiting.
 * - "(reported)" behind an error: the caller broke the contract. A message goes to the log (#LF_LOG_MISUSE), and the call changes nothing
 *   but what its documentation says.
 * - A descriptor (struct lf_..._desc) is read during the call; members that are left zero have the meaning that is given for 0 or NULL.
 *   Members of structs that are marked "not yours" are neither read nor written by users.
 * - References: "takes a reference" leaves the caller's own alone; "consumes the caller's reference" ends it; "returns a new
 *   reference" gives one that the caller must put; "borrows for the call" keeps nothing.
 * - Pointers must not be NULL unless the text says so. Calls that can fail report NULL and return -EINVAL; calls that only look at an
 *   object check that in builds with debug checks only.
 * - Context: unless a function says otherwise, it may be called from any thread that is not a signal handler, from inside fence
 *   callbacks and hooks, and inside a read section (::lf_read_lock). "Waits" means that it sleeps until others have done something: that is
 *   refused inside callbacks, deferred calls and read sections, and allowed in a hook, unless the function says otherwise, as far as those
 *   who cause the hook can bear it.
 * - "May sleep": a call that makes something sleeps for as long as grace periods take, if its thread has deferred too much memory that is
 *   not free yet (lf_reclaim_stats.limit); never inside a read section, a callback, a hook or a deferred call. This is no wait in the sense
 *   above.
 * - A "poisoned child" is a child of a fork that was not bracketed (lf_before_fork()). Calls that could block there return -EOWNERDEAD.
 * - No function calls code of yours (callbacks, hooks, release functions, the allocator, the log) with a lock of the library held.
 *   The clock hook is the one exception, and says so.
 */
#ifndef LIBFENCE_BASE_H
#define LIBFENCE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define LF_BEGIN_DECLS extern "C" {
#define LF_END_DECLS   }
#else
#define LF_BEGIN_DECLS
#define LF_END_DECLS
#endif

#define LF_API        __attribute__((visibility("default")))
#define LF_MUST_CHECK __attribute__((warn_unused_result))
#define LF_ALIGNED(n) __attribute__((aligned(n)))

LF_BEGIN_DECLS

#define LF_VERSION_MAJOR 0 /**< Version of these headers. */
#define LF_VERSION_MINOR 1 /**< Version of these headers. */
#define LF_VERSION_PATCH 0 /**< Version of these headers. */

/** A deadline that never comes. */
#define LF_DEADLINE_NEVER INT64_MAX

/** The struct that has a struct of the library in it: of a callback's node what it is embedded in, for one. */
#define LF_CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/** Errors that a fence can carry are -1 to -#LF_MAX_ERROR. */
#define LF_MAX_ERROR 4095

/** A 32-bit word that only the library reads and writes, atomically. */
typedef struct {
	uint32_t value; /**< not yours */
} lf_atomic_u32;

/** A 64-bit word that only the library reads and writes, atomically: aligned for that also where other 64-bit words are not (i386). */
typedef struct {
	uint64_t value; /**< not yours */
} LF_ALIGNED(8) lf_atomic_u64;

/** A pointer-sized word that only the library reads and writes, atomically. */
typedef struct {
	uintptr_t value; /**< not yours */
} lf_atomic_ptr;

/**
 * The version of the library that is linked, as (major << 16 | minor << 8 | patch).
 *
 * @return the number; compare it with LF_VERSION_MAJOR and its kin to see whether headers and library belong together.
 */
LF_API uint32_t lf_version(void);

/* --- Memory ------------------------------------------------------------------------------------------------------------- */

/** Where the library gets its memory. Both functions must be callable from any thread. */
struct lf_allocator {
	/** @return @p size bytes aligned to at least @p align (a power of two), or NULL. */
	void *(*alloc)(void *user, size_t size, size_t align);
	/** Frees what alloc returned; never called with NULL. */
	void (*free)(void *user, void *ptr);
	void *user; /**< handed to both */
};

/**
 * Replaces the allocator (default: malloc and free).
 *
 * @param allocator copied; NULL for the default
 *
 * @par Context
 * Before anything else of the library is used, or after lf_fini().
 * @return 0; -EBUSY when the library has allocated since the start or the last lf_fini(); -EINVAL when a function is missing.
 */
LF_API int lf_set_allocator(const struct lf_allocator *allocator);

/**
 * Memory from the library's allocator, for objects that embed one of ours and are freed by it (see lf_fence_init()).
 *
 * @param size in bytes, not 0
 * @return zeroed memory, aligned for any type, to be given to lf_free() or to an object of the library; NULL when there is none.
 */
LF_API void *lf_alloc(size_t size) LF_MUST_CHECK;

/**
 * Frees what lf_alloc() returned.
 *
 * @param ptr may be NULL
 */
LF_API void lf_free(void *ptr);

/* --- Log ---------------------------------------------------------------------------------------------------------------- */

/** How grave a message is. */
enum lf_log_level {
	LF_LOG_MISUSE, /**< a caller broke a contract; the library went on as the function documents */
	LF_LOG_WARNING, /**< something that a user would want to know, such as a worker that could not be started */
	LF_LOG_INFO, /**< what was asked for: the list of live objects at lf_fini() */
};

/**
 * Receives one message.
 *
 * @param user what lf_set_log() was given
 * @param level how grave
 * @param message one line without a newline; borrowed for the call
 */
typedef void (*lf_log_fn)(void *user, enum lf_log_level level, const char *message);

/**
 * Replaces the log (default: lines on stderr). No lock of the library is held when @p fn runs.
 *
 * @param fn NULL for the default
 * @param user handed to @p fn
 *
 * @par Context
 * While no other thread uses the library.
 */
LF_API void lf_set_log(lf_log_fn fn, void *user);

/* --- Time --------------------------------------------------------------------------------------------------------------- */

/**
 * Reads the library's clock: CLOCK_MONOTONIC, or what lf_set_clock() put in its place.
 *
 * @return nanoseconds
 */
LF_API int64_t lf_now(void);

/**
 * A deadline that is so far from now.
 *
 * @param ns nanoseconds from lf_now(); what goes beyond the clock's end, UINT64_MAX for one, is for ever
 * @return nanoseconds of lf_now(), or #LF_DEADLINE_NEVER
 */
static inline int64_t lf_deadline_in(uint64_t ns)
{
	int64_t now = lf_now();

	return ns < (uint64_t)(INT64_MAX - (now > 0 ? now : 0)) ? now + (int64_t)ns : LF_DEADLINE_NEVER;
}

/**
 * Replaces the clock that timestamps are read from and deadlines are compared with, for tests. A thread that waits while a
 * replaced clock is set looks at it every millisecond of real time.
 *
 * @param now returns nanoseconds and never goes backwards; NULL for CLOCK_MONOTONIC. It is called with internal locks held (a
 * timeline reads its clock where it orders its fences), so it must not call the library.
 * @param user handed to @p now
 *
 * @par Context
 * While no other thread uses the library.
 */
LF_API void lf_set_clock(int64_t (*now)(void *user), void *user);

/* --- Set-up and tear-down ----------------------------------------------------------------------------------------------- */

/**
 * What lf_track() records of what the library makes: fences, timelines, providers, queues, jobs, buffers, attachments, address spaces,
 * address heaps. Not virtual clocks and held versions of address spaces.
 */
enum lf_track_flags {
	LF_TRACK_OBJECTS = 1, /**< which are alive */
	LF_TRACK_WHERE = 2, /**< and the call stack that made each, where the C library can tell (implies LF_TRACK_OBJECTS) */
};

/**
 * Starts or stops recording live objects, so that lf_fini() can list what was forgotten. Costs a lock and an allocation for each
 * object that is made; objects made before it are unknown to it. An object that cannot be recorded for want of memory is left out.
 *
 * @param flags of enum lf_track_flags; 0 stops and forgets. The environment variable LF_TRACK (`objects` or `where`) sets it at start.
 *
 * @par Context
 * While no other thread uses the library.
 * @return 0; -EINVAL for unknown flags.
 */
LF_API int lf_track(unsigned flags);

/** What lf_validate() looks for: things that are allowed, and that a project may not want to do. */
enum lf_validate_flags {
	LF_VALIDATE_NESTING = 1, /**< a container becomes a member of an array (lf_fence_flatten() helps), or two chains are joined */
	LF_VALIDATE_WAITS = 2, /**< a thread waits for a fence while it holds a reservation: whoever signals it may need that one */
};

/**
 * Starts or stops the strict mode: each use of what it looks for is reported (LF_LOG_WARNING) and goes on as usual.
 *
 * @param flags of enum lf_validate_flags; 0 stops. The environment variable LF_VALIDATE (`nesting`, `waits` or `all`) sets it at start.
 *
 * @par Context
 * While no other thread uses the library, and this one holds no reservation.
 * @return 0; -EINVAL for unknown flags.
 */
LF_API int lf_validate(unsigned flags);

/**
 * Ends the use of the library: runs and frees everything deferred, stops and joins the reclaimer thread, and frees what the library keeps
 * for itself. With lf_track(), what is still alive is listed in the log (LF_LOG_INFO), a line each, and forgotten (reservations, their
 * snapshots and notices are not recorded; the fences that they hold are). There is no lf_init():
 * the first use sets up, also after lf_fini().
 *
 * @par Context
 * Waits. No other thread may be in a call of the library or in a read section. A program that just ends need not call it. A static
 * build inside an object that will be unloaded must, after every thread that used it has ended or will use it no more. Of the shared
 * library it is the end for the whole process: a plug-in does not call it.
 *
 * @return the number of live objects that lf_track() knows of, 0 when it is off or none is left; -EDEADLK from inside a callback, a
 * deferred call or a read section; -EOWNERDEAD in a child of a fork that was not bracketed (see lf_before_fork()).
 */
LF_API int lf_fini(void);

/**
 * Brackets a fork() whose child goes on using the library. Between lf_before_fork() and its partner nothing is reclaimed, and other
 * threads' calls that need the library's own locks (making a timeline is one) wait; the calling thread calls nothing of the library but
 * lf_after_fork_parent() or lf_after_fork_child(). The child keeps all objects; objects that another thread was working on at the moment
 * of the fork stay as that thread left them, so let threads come to rest first. Without the three calls the child's library is poisoned:
 * calls that could block return -EOWNERDEAD, puts leak, and nothing hangs.
 *
 * @par Context
 * Waits. Not inside a read section, a callback or a hook. Not nested.
 * @return 0; -EDEADLK where it may not be called; -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_before_fork(void);

/** Ends lf_before_fork() in the parent. */
LF_API void lf_after_fork_parent(void);

/** Ends lf_before_fork() in the child. */
LF_API void lf_after_fork_child(void);

LF_END_DECLS

#endif /* LIBFENCE_BASE_H */
