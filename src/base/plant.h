/* SPDX-License-Identifier: MIT */
/*
 * Deliberate bugs, built in so that tools/planted-bugs can show what catches them.
 *
 * Normal builds: PLANTED(n) is 0 and PLANT_ORDER(n, weak, right) is right, both constant, so no code is left of them.
 * -Dplant=N: bug N alone is built in, as constant. For people, with a debugger or beside a failure; no tool of ours builds so.
 * -Dplant_env=true: all are, and the environment variable LF_PLANT says which one shows itself in this run. One build serves a whole table.
 *
 * A compiler takes an order that is no constant for seq_cst. So in the third kind of build the orders are told apart before the access, each
 * with an access of its own.
 */
#ifndef LF_BASE_PLANT_H
#define LF_BASE_PLANT_H

#ifdef LF_PLANT_ENV

/* Set before anything else runs in the library. */
extern __attribute__((visibility("hidden"))) unsigned long plant_number;
#define PLANTED(n) (plant_number == (n))

#define PLANT_LOAD(p, order)													\
	((order) == memory_order_relaxed   ? __atomic_load_n(p, __ATOMIC_RELAXED)							\
	 : (order) == memory_order_acquire ? __atomic_load_n(p, __ATOMIC_ACQUIRE)							\
					   : __atomic_load_n(p, __ATOMIC_SEQ_CST))
#define PLANT_STORE(p, v, order)												\
	((order) == memory_order_relaxed   ? __atomic_store_n(p, v, __ATOMIC_RELAXED)							\
	 : (order) == memory_order_release ? __atomic_store_n(p, v, __ATOMIC_RELEASE)							\
					   : __atomic_store_n(p, v, __ATOMIC_SEQ_CST))
/* @rmw is a builtin with two arguments and an order. */
#define PLANT_RMW(rmw, p, v, order)												\
	((order) == memory_order_relaxed   ? rmw(p, v, __ATOMIC_RELAXED)								\
	 : (order) == memory_order_acquire ? rmw(p, v, __ATOMIC_ACQUIRE)								\
	 : (order) == memory_order_release ? rmw(p, v, __ATOMIC_RELEASE)								\
	 : (order) == memory_order_acq_rel ? rmw(p, v, __ATOMIC_ACQ_REL)								\
					   : rmw(p, v, __ATOMIC_SEQ_CST))
/* A failure order other than relaxed is acquire, for which the other must not be relaxed. */
#define PLANT_CAS_TO(p, expected, desired, ok, fail)										\
	((fail) == memory_order_relaxed ? __atomic_compare_exchange_n(p, expected, desired, false, ok, __ATOMIC_RELAXED)		\
					: __atomic_compare_exchange_n(p, expected, desired, false, ok, __ATOMIC_ACQUIRE))
#define PLANT_CAS(p, expected, desired, ok, fail)										\
	((ok) == memory_order_relaxed												\
		? __atomic_compare_exchange_n(p, expected, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)			\
	 : (ok) == memory_order_acquire ? PLANT_CAS_TO(p, expected, desired, __ATOMIC_ACQUIRE, fail)					\
	 : (ok) == memory_order_release ? PLANT_CAS_TO(p, expected, desired, __ATOMIC_RELEASE, fail)					\
	 : (ok) == memory_order_acq_rel ? PLANT_CAS_TO(p, expected, desired, __ATOMIC_ACQ_REL, fail)					\
					: PLANT_CAS_TO(p, expected, desired, __ATOMIC_SEQ_CST, fail))

#else

#ifndef LF_PLANT
#define LF_PLANT 0
#endif
#define PLANTED(n) (LF_PLANT == (n))

#define PLANT_LOAD(p, order)			      __atomic_load_n(p, (int)(order))
#define PLANT_STORE(p, v, order)		      __atomic_store_n(p, v, (int)(order))
#define PLANT_RMW(rmw, p, v, order)		      rmw(p, v, (int)(order))
#define PLANT_CAS(p, expected, desired, ok, fail) __atomic_compare_exchange_n(p, expected, desired, false, (int)(ok), (int)(fail))

#endif

#define PLANT_ORDER(n, weak, right) (PLANTED(n) ? (weak) : (right))
/* acq_rel, of which the one bug takes the release and the other the acquire. */
#define PLANT_ACQ_REL(no_release, no_acquire)											\
	PLANT_ORDER(no_release, memory_order_acquire, PLANT_ORDER(no_acquire, memory_order_release, memory_order_acq_rel))

#endif /* LF_BASE_PLANT_H */
