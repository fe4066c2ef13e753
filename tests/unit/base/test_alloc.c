/* SPDX-License-Identifier: MIT */
/* Memory: sizes that a machine cannot say. */
#include "base/alloc.h"
#include "producer.h"

static void an_array_has_room_for_head_and_elements(void **state)
{
	long before = alloc_live();
	char *block = mem_alloc_array(24, 10, 100);

	(void)state;
	assert_non_null(block);
	memset(block, 1, 1024);
	assert_int_equal(alloc_live(), before + 1);
	mem_free(block);
}

static void an_array_of_more_than_there_can_be_is_no_memory(void **state)
{
	long before = alloc_calls();

	(void)state;
	assert_null(mem_alloc_array(0, SIZE_MAX / 16 + 1, 16));
	assert_null(mem_alloc_array(0, SIZE_MAX / 2, 3));
	assert_null(mem_alloc_array(32, SIZE_MAX / 16, 16));
	assert_null(mem_alloc_array(SIZE_MAX, 1, 1));
	assert_int_equal(alloc_calls(), before); /* the allocator was not asked for what the size wraps to */
}

static void growing_keeps_what_is_there_and_changes_nothing_without_memory(void **state)
{
	long before = alloc_live();
	uint32_t *grown, *array = mem_grow(NULL, 0, 2, sizeof(*array));

	(void)state;
	assert_non_null(array);
	array[0] = 11;
	array[1] = 22;
	assert_null(mem_grow(array, 2, SIZE_MAX / 2, sizeof(*array)));
	assert_int_equal(array[1], 22);
	grown = mem_grow(array, 2, 100, sizeof(*array));
	assert_non_null(grown);
	grown[99] = 33;
	assert_int_equal(grown[0], 11);
	assert_int_equal(grown[1], 22);
	assert_int_equal(alloc_live(), before + 1); /* the old one was freed */
	mem_free(grown);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_array_has_room_for_head_and_elements),
		TEST(an_array_of_more_than_there_can_be_is_no_memory),
		TEST(growing_keeps_what_is_there_and_changes_nothing_without_memory),
	};

	return TEST_MAIN(tests);
}
