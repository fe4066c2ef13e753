/* SPDX-License-Identifier: MIT */
/*
 * The port of the explorer: each operation goes to its scheduler (engine.c) and its memory (memory.c). Included by src/base/port.h in
 * place of its default back end.
 */
#ifndef EXPLORE_PORT_H
#define EXPLORE_PORT_H

enum explore_rmw { EXPLORE_XCHG, EXPLORE_ADD, EXPLORE_SUB };

uint64_t explore_load(const void *addr, unsigned size, int order);
void explore_store(void *addr, unsigned size, uint64_t value, int order);
uint64_t explore_rmw(void *addr, unsigned size, enum explore_rmw op, uint64_t value, int order);
bool explore_cas(void *addr, unsigned size, uint64_t *expected, uint64_t desired, int ok, int fail);
void explore_relax(void);
void *explore_local(void *variable);
int64_t explore_clock(void);

/* Calls that the compiler's instrumentation does not see. */
void *explore_memcpy(void *to, const void *from, size_t size);
void *explore_memset(void *to, int byte, size_t size);
#define memcpy(to, from, size)  explore_memcpy(to, from, size)
#define memmove(to, from, size) explore_memcpy(to, from, size)
#define memset(to, byte, size)  explore_memset(to, byte, size)

static inline void port_point(void)
{
}

#define PORT_DEFINE_ATOMIC(name, atomic, type)												\
	static inline type name##_load(const atomic *a, memory_order order)								\
	{																\
		return (type)explore_load(&a->value, sizeof(type), (int)order);								\
	}																\
	static inline void name##_store(atomic *a, type v, memory_order order)								\
	{																\
		explore_store(&a->value, sizeof(type), v, (int)order);									\
	}																\
	static inline type name##_xchg(atomic *a, type v, memory_order order)								\
	{																\
		return (type)explore_rmw(&a->value, sizeof(type), EXPLORE_XCHG, v, (int)order);						\
	}																\
	static inline bool name##_cas(atomic *a, type *expected, type desired, memory_order ok, memory_order fail)			\
	{																\
		uint64_t found = *expected;												\
		bool done = explore_cas(&a->value, sizeof(type), &found, desired, (int)ok, (int)fail);					\
																	\
		if (!done)														\
			*expected = (type)found;											\
		return done;														\
	}																\
	static inline type name##_fetch_add(atomic *a, type v, memory_order order)							\
	{																\
		return (type)explore_rmw(&a->value, sizeof(type), EXPLORE_ADD, v, (int)order);						\
	}																\
	static inline type name##_fetch_sub(atomic *a, type v, memory_order order)							\
	{																\
		return (type)explore_rmw(&a->value, sizeof(type), EXPLORE_SUB, v, (int)order);						\
	}

PORT_DEFINE_ATOMIC(u32, lf_atomic_u32, uint32_t)
PORT_DEFINE_ATOMIC(u64, lf_atomic_u64, uint64_t)
PORT_DEFINE_ATOMIC(ptr, lf_atomic_ptr, uintptr_t)

/* A round of looking that is there for speed would only make schedules longer. */
#define PORT_LOOKS(n) 1

/* Of a loop that ends after some looks: goes on whether or not anything was written. */
void explore_yield(void);

static inline void port_pause(void)
{
	explore_yield();
}

static inline void port_relax(unsigned *rounds)
{
	++*rounds;
	explore_relax();
}

struct LF_CAPABILITY("mutex") port_mutex {
	uint32_t owner; /* a thread of the explorer + 1, or 0 */
	uint16_t seen[8]; /* what its holders have seen */
};
#define PORT_MUTEX_INIT { 0 }

void explore_mutex_lock(struct port_mutex *m);
void explore_mutex_unlock(struct port_mutex *m);

static inline void port_mutex_init(struct port_mutex *m)
{
	*m = (struct port_mutex){ 0 };
}

static inline void port_mutex_fini(struct port_mutex *m)
{
	(void)m;
}

static inline void port_mutex_lock(struct port_mutex *m) LF_ACQUIRES(m) LF_NO_THREAD_ANALYSIS
{
	explore_mutex_lock(m);
}

static inline void port_mutex_unlock(struct port_mutex *m) LF_RELEASES(m) LF_NO_THREAD_ANALYSIS
{
	explore_mutex_unlock(m);
}

#define PORT_NSEC_PER_SEC INT64_C(1000000000)

static inline int64_t port_clock(void)
{
	return explore_clock();
}

typedef int port_thread;

int port_thread_create(port_thread *thread, const char *name, void *(*fn)(void *), void *arg);
void explore_thread_join(port_thread thread);

static inline void port_thread_join(port_thread thread)
{
	explore_thread_join(thread);
}

#define PORT_THREAD_LOCAL(variable) ((__typeof__(&(variable)))explore_local(&(variable)))

typedef int port_key;

int port_key_create(port_key *key, void (*destructor)(void *value));
int port_key_set(port_key key, void *value);
int port_key_delete(port_key key);

#endif /* EXPLORE_PORT_H */
