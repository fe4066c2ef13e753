/* SPDX-License-Identifier: MIT */
/*
 * The port: every atomic, lock, sleep, clock and thread operation of the library.
 *
 * Purpose: one place that a build for tests can replace. A build that defines LF_PORT_HEADER includes that header in place of the default
 * back end below: the explorer of interleavings (tests/explore) makes each operation a scheduling point this way. RCU has its own file
 * (rcu.h) and sleeping another (park.h), of which such a build replaces the .c files; memory has a third (alloc.h).
 *
 * Atomics are one-member structs (lf_atomic_u32, lf_atomic_u64, lf_atomic_ptr in <libfence/base.h>) that the compiler's builtins work
 * on, so that public headers compile as C++. Memory orders are spelled as in C11. There are no stand-alone fences: ThreadSanitizer does
 * not understand them, and an order that belongs to an access says which access it belongs to.
 */
#ifndef LF_BASE_PORT_H
#define LF_BASE_PORT_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libfence/base.h>

#include "base/plant.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* For variables that several files of the library use: found directly, not through a table. */
#define LF_INTERNAL __attribute__((visibility("hidden")))

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#define array_size(array)               (sizeof(array) / sizeof((array)[0]))

/* A number of so many bits, 1 to 63, for a place in a table: multiplying by the golden ratio, Knuth, vol. 3, 6.4. */
static inline uint64_t hash_bits(uint64_t key, int bits)
{
	return key * UINT64_C(0x9e3779b97f4a7c15) >> (64 - bits);
}

/* What clang's -Wthread-safety checks; nothing for other compilers. */
#if defined(__clang__)
#define LF_ANNOTATE(x) __attribute__((x))
#else
#define LF_ANNOTATE(x)
#endif
#define LF_CAPABILITY(name)   LF_ANNOTATE(capability(name))
#define LF_ACQUIRES(...)      LF_ANNOTATE(acquire_capability(__VA_ARGS__))
#define LF_RELEASES(...)      LF_ANNOTATE(release_capability(__VA_ARGS__))
#define LF_REQUIRES(...)      LF_ANNOTATE(requires_capability(__VA_ARGS__))
#define LF_EXCLUDES(...)      LF_ANNOTATE(locks_excluded(__VA_ARGS__))
#define LF_NO_THREAD_ANALYSIS LF_ANNOTATE(no_thread_safety_analysis)

#ifdef LF_PORT_HEADER
#include LF_PORT_HEADER
#else

/* --- Chaos: perturbs schedules in tests ---------------------------------------------------------------------------------- */

#ifdef LF_CHAOS
static inline void port_point(void)
{
	static __thread uint32_t x;

	if (!x)
		x = ((uint32_t)(uintptr_t)&x * 2654435761u) | 1;
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	if (x % LF_CHAOS == 0)
		usleep(20);
	else if (x % 16 == 0)
		sched_yield();
}
#else
static inline void port_point(void)
{
}
#endif

/* --- Atomics ------------------------------------------------------------------------------------------------------------- */

#define PORT_DEFINE_ATOMIC(name, atomic, type)												\
	static inline type name##_load(const atomic *a, memory_order order)								\
	{																\
		port_point();														\
		return PLANT_LOAD(&a->value, order);										\
	}																\
	static inline void name##_store(atomic *a, type v, memory_order order)								\
	{																\
		port_point();														\
		PLANT_STORE(&a->value, v, order);										\
	}																\
	static inline type name##_xchg(atomic *a, type v, memory_order order)								\
	{																\
		port_point();														\
		return PLANT_RMW(__atomic_exchange_n, &a->value, v, order);									\
	}																\
	/* Strong; on failure *expected is what was found. */										\
	static inline bool name##_cas(atomic *a, type *expected, type desired, memory_order ok, memory_order fail)			\
	{																\
		port_point();														\
		return PLANT_CAS(&a->value, expected, desired, ok, fail);				\
	}																\
	/* Both return the value before. */												\
	static inline type name##_fetch_add(atomic *a, type v, memory_order order)							\
	{																\
		port_point();														\
		return PLANT_RMW(__atomic_fetch_add, &a->value, v, order);									\
	}																\
	static inline type name##_fetch_sub(atomic *a, type v, memory_order order)							\
	{																\
		port_point();														\
		return PLANT_RMW(__atomic_fetch_sub, &a->value, v, order);									\
	}

/* A word of 8 bytes that is not aligned to 8 may lie in two cache lines, where plain loads and stores of it are not atomic. */
_Static_assert(_Alignof(lf_atomic_u64) == 8, "64-bit atomics are aligned");

PORT_DEFINE_ATOMIC(u32, lf_atomic_u32, uint32_t)
PORT_DEFINE_ATOMIC(u64, lf_atomic_u64, uint64_t)
PORT_DEFINE_ATOMIC(ptr, lf_atomic_ptr, uintptr_t)

/* One look in a loop of looking. */
static inline void port_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
	port_point();
}

/* How often to look before sleeping, where that is only a matter of speed. */
#define PORT_LOOKS(n) (n)

/* One round of waiting for a lock that is held for a few instructions: spins, then lets others run. Start with *rounds 0. */
static inline void port_relax(unsigned *rounds)
{
	if (++*rounds < 64) {
		port_pause();
		return;
	}
	sched_yield();
	port_point();
}

/* --- Locks --------------------------------------------------------------------------------------------------------------- */

struct LF_CAPABILITY("mutex") port_mutex {
	pthread_mutex_t mutex;
};
#define PORT_MUTEX_INIT { PTHREAD_MUTEX_INITIALIZER }

static inline void port_mutex_init(struct port_mutex *m)
{
	pthread_mutex_init(&m->mutex, NULL);
}

static inline void port_mutex_fini(struct port_mutex *m)
{
	pthread_mutex_destroy(&m->mutex);
}

static inline void port_mutex_lock(struct port_mutex *m) LF_ACQUIRES(m) LF_NO_THREAD_ANALYSIS
{
	port_point();
	pthread_mutex_lock(&m->mutex);
}

static inline void port_mutex_unlock(struct port_mutex *m) LF_RELEASES(m) LF_NO_THREAD_ANALYSIS
{
	pthread_mutex_unlock(&m->mutex);
	port_point();
}

/* --- Clock --------------------------------------------------------------------------------------------------------------- */

#define PORT_NSEC_PER_SEC INT64_C(1000000000)

/* CLOCK_MONOTONIC in nanoseconds. */
static inline int64_t port_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * PORT_NSEC_PER_SEC + ts.tv_nsec;
}

/*
 * The other way round. Where seconds have 32 bits, a time beyond them (68 years of uptime) becomes the last one that they can say: who sleeps
 * until then wakes early, and looks at the clock. Times before 0 are 0, which the kernel would refuse to wait for.
 */
static inline struct timespec port_timespec(int64_t time)
{
	const int64_t last = sizeof(time_t) == sizeof(int64_t) ? INT64_MAX : INT32_MAX * PORT_NSEC_PER_SEC;

	if (time > last)
		time = last;
	else if (time < 0)
		time = 0;
	return (struct timespec){ .tv_sec = (time_t)(time / PORT_NSEC_PER_SEC), .tv_nsec = (long)(time % PORT_NSEC_PER_SEC) };
}

/* --- Threads ------------------------------------------------------------------------------------------------------------- */

typedef pthread_t port_thread;

/* Starts a thread of the library's own, which takes no signals. Returns 0 or a negative errno. */
int port_thread_create(port_thread *thread, const char *name, void *(*fn)(void *), void *arg);

static inline void port_thread_join(port_thread thread)
{
	pthread_join(thread, NULL);
}

/* The address of this thread's own of a variable that is declared __thread. */
#define PORT_THREAD_LOCAL(variable) (&(variable))

/* A key whose destructor runs at the end of each thread that has set it to something. All three return 0, or an error. */
typedef pthread_key_t port_key;

static inline int port_key_create(port_key *key, void (*destructor)(void *value))
{
	return pthread_key_create(key, destructor);
}

static inline int port_key_set(port_key key, void *value)
{
	return pthread_setspecific(key, value);
}

static inline int port_key_delete(port_key key)
{
	return pthread_key_delete(key);
}

#endif /* LF_PORT_HEADER */

/* --- Locks that stand on the above ---------------------------------------------------------------------------------------- */

/* A lock for a few instructions, in one word. Zeroed memory is an open lock. */
struct LF_CAPABILITY("spinlock") port_spin {
	lf_atomic_u32 word;
};

/* The lock whose word stands in a public struct. */
static inline struct port_spin *port_spin_of(lf_atomic_u32 *word)
{
	return container_of(word, struct port_spin, word);
}

static inline void port_spin_lock(struct port_spin *s) LF_ACQUIRES(s) LF_NO_THREAD_ANALYSIS
{
	unsigned rounds = 0;
	uint32_t open = 0;

	/* order: spin (acquire): sees what the last holder wrote */
	while (!u32_cas(&s->word, &open, 1, PLANT_ORDER(118, memory_order_relaxed, memory_order_acquire), memory_order_relaxed)) {
		port_relax(&rounds);
		open = 0;
	}
}

static inline void port_spin_unlock(struct port_spin *s) LF_RELEASES(s) LF_NO_THREAD_ANALYSIS
{
	/* order: spin (release): the next holder sees what was written under the lock */
	u32_store(&s->word, 0, PLANT_ORDER(24, memory_order_relaxed, memory_order_release));
}

#endif /* LF_BASE_PORT_H */
