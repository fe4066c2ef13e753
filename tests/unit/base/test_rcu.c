/* SPDX-License-Identifier: MIT */
/* Read sections and grace periods, and that liburcu makes them the way the kernel at hand allows. */
#include "base/rcu.h"
#include "producer.h"

#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>

/* Clang takes the second for a mistake. */
static LF_NO_THREAD_ANALYSIS void sections_nest(void **state)
{
	(void)state;
	assert_false(rcu_held());
	rcu_begin();
	rcu_begin();
	assert_true(rcu_held());
	rcu_end();
	assert_true(rcu_held());
	rcu_end();
	assert_false(rcu_held());
}

/* --- R1 -------------------------------------------------------------------------------------------------------------------- */

static struct {
	struct gate gate;
	uint32_t asked, ending; /* atomic */
} turn;

static void *read_for_a_while(void *arg)
{
	long rounds = *(const long *)arg;

	for (long i = 0; i < rounds; i++) {
		rcu_begin();
		gate_wait(&turn.gate);
		while (!__atomic_load_n(&turn.asked, __ATOMIC_RELAXED))
			sched_yield();
		for (int n = 0; n < 20; n++)
			sched_yield();
		__atomic_store_n(&turn.ending, 1, __ATOMIC_RELAXED);
		rcu_end();
		gate_wait(&turn.gate);
	}
	return NULL;
}

/* Oracle: who comes back from waiting for a grace period finds what the reader wrote before its section ended. */
static void a_grace_period_waits_for_an_open_section(void **state)
{
	long rounds = test_rounds(100);
	pthread_t reader;

	(void)state;
	gate_init(&turn.gate, 2);
	reader = thread_start(read_for_a_while, &rounds, 0);
	for (long i = 0; i < rounds; i++) {
		turn.asked = turn.ending = 0;
		gate_wait(&turn.gate);
		__atomic_store_n(&turn.asked, 1, __ATOMIC_RELAXED);
		rcu_synchronize();
		must(__atomic_load_n(&turn.ending, __ATOMIC_RELAXED));
		gate_wait(&turn.gate);
	}
	thread_join(reader);
	gate_fini(&turn.gate);
}

/* --- membarrier ------------------------------------------------------------------------------------------------------------ */

#ifdef LF_RCU_MEMB
#define HAS_MEMBARRIER urcu_memb_has_sys_membarrier
#else
#define HAS_MEMBARRIER urcu_bp_has_sys_membarrier
#endif

/* liburcu's own: whether its readers leave the barriers to whoever waits for a grace period. */
extern int HAS_MEMBARRIER;

static void readers_do_without_barriers_where_the_kernel_makes_them(void **state)
{
	const char *without = getenv("LF_WITHOUT"); /* set by tests/setups/without.c */
	long can = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
	bool expected = can >= 0 && (can & MEMBARRIER_CMD_PRIVATE_EXPEDITED);

	(void)state;
	if (without && strcmp(without, "membarrier") == 0)
		assert_int_equal(can, -1);
	rcu_begin();
	rcu_end();
	test_note("readers %s", HAS_MEMBARRIER ? "leave barriers to membarrier" : "have barriers of their own");
	assert_int_equal(HAS_MEMBARRIER, expected);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(sections_nest),
		TEST(a_grace_period_waits_for_an_open_section),
		TEST(readers_do_without_barriers_where_the_kernel_makes_them),
	};

	return TEST_MAIN(tests);
}
