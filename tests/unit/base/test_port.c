/* SPDX-License-Identifier: MIT */
/* The port: what word size, alignment and clock of a machine must not change. */
#include "base/port.h"
#include "producer.h"

/* --- 64-bit atomics ------------------------------------------------------------------------------------------------------- */

/* Where 64-bit words are aligned to 4 (i386), this one would lie in two cache lines, and a plain load could see half of a store. */
struct straddling {
	uint32_t words[15];
	lf_atomic_u64 word;
};

static void a_64_bit_word_is_aligned_in_any_struct(void **state)
{
	(void)state;
	assert_int_equal(offsetof(struct straddling, word) % 8, 0);
	assert_int_equal(sizeof(lf_atomic_u64), 8);
}

/* --- Times ----------------------------------------------------------------------------------------------------------------- */

static void a_time_becomes_seconds_and_nanoseconds(void **state)
{
	struct timespec ts = port_timespec(5 * PORT_NSEC_PER_SEC + 7);

	(void)state;
	assert_int_equal(ts.tv_sec, 5);
	assert_int_equal(ts.tv_nsec, 7);
}

static void a_time_that_time_t_cannot_say_is_far_away_and_not_past(void **state)
{
	struct timespec ts = port_timespec(INT64_MAX - 1), past = port_timespec(INT64_MIN);

	(void)state;
	assert_true(ts.tv_sec >= INT32_MAX);
	assert_true(ts.tv_nsec >= 0 && ts.tv_nsec < 1000000000);
	/* the kernel refuses negative ones, and who would sleep until then would run in circles until the clock said so */
	assert_int_equal(past.tv_sec, 0);
	assert_int_equal(past.tv_nsec, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_64_bit_word_is_aligned_in_any_struct),
		TEST(a_time_becomes_seconds_and_nanoseconds),
		TEST(a_time_that_time_t_cannot_say_is_far_away_and_not_past),
	};

	return TEST_MAIN(tests);
}
