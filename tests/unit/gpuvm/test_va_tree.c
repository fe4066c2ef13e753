/* SPDX-License-Identifier: MIT */
/*
 * The VA tree by itself: edits against an array of pages.
 *
 * Oracle: after each edit, the tree shows at each page what the array has, and it has the shape that its invariants ask for
 * (va_tree_check()); the tree that was there before still shows what it showed.
 */
#include "testing.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "gpuvm/va_tree.h"

enum { PAGES = 3 * 64 * 64, MAPPINGS = 5 };

static struct lf_mapping mappings[MAPPINGS];

/* Frees what an edit replaced, as a commit does once nobody sees it. */
static void free_replaced(struct lf_va_edit *edit)
{
	struct va_node *n, *next;

	for (n = edit->replaced; n; n = next) {
		next = n->link;
		mem_free(n);
	}
}

static struct va_node *begin(struct lf_va_edit *edit, struct va_node *root)
{
	static uint64_t birth = 1;

	va_edit_begin(edit, root, birth++);
	return root;
}

static void assert_shows(const struct va_node *root, struct lf_mapping *const *pages, uint64_t base)
{
	uint64_t first, last;

	va_tree_check((uintptr_t)root);
	for (uint64_t p = 0; p < PAGES; p++) {
		assert_ptr_equal(va_tree_lookup(root, base + p), pages[p]);
		assert_ptr_equal(va_tree_extent(root, base + p, &first, &last), pages[p]);
		assert_true(first <= base + p && base + p <= last);
		assert_true(first >= base ? pages[first - base] == pages[p] : !pages[p]);
		assert_true(last - base < PAGES ? pages[last - base] == pages[p] : last - base >= PAGES);
	}
}

/* Random ranges, often of whole slots and nodes, so that edges, growth and collapse all occur. */
static void random_range(uint64_t *random, uint64_t *first, uint64_t *last)
{
	static const uint64_t grain[] = { 1, 1, 8, 64, 64, 64 * 64 };
	uint64_t g = grain[random_next(random) % 6], n = PAGES / g, a = random_next(random) % n, b = random_next(random) % n;

	*first = (a < b ? a : b) * g;
	*last = (a < b ? b : a) * g + g - 1;
}

static void edit_at(uint64_t base)
{
	struct lf_mapping **pages = calloc(PAGES, sizeof(*pages)), **before = calloc(PAGES, sizeof(*pages));
	uint64_t random = test_seed();
	struct va_node *root = va_tree_create();
	long rounds = test_rounds(400);

	for (long i = 0; i < rounds; i++) {
		struct lf_va_edit edit;
		bool check = i % 16 == 0;

		memcpy(before, pages, PAGES * sizeof(*pages));
		begin(&edit, root);
		for (uint64_t n = random_next(&random) % 4 + 1; n; n--) {
			struct lf_mapping *m = random_next(&random) % 3 ? &mappings[random_next(&random) % MAPPINGS] : NULL;
			uint64_t first, last;

			random_range(&random, &first, &last);
			assert_true(va_edit_set(&edit, base + first, base + last, m));
			for (uint64_t p = first; p <= last; p++)
				pages[p] = m;
		}
		if (check)
			assert_shows(root, before, base);
		if (random_next(&random) % 3 == 0) {
			va_edit_abort(&edit);
			memcpy(pages, before, PAGES * sizeof(*pages));
		} else {
			root = edit.root;
			free_replaced(&edit);
		}
		if (check)
			assert_shows(root, pages, base);
	}
	va_tree_destroy(root);
	free(pages);
	free(before);
}

static void edits_show_what_was_set_and_leave_the_old_tree(void **state)
{
	(void)state;
	edit_at(0);
}

static void edits_far_up_and_at_the_last_page_do_so_too(void **state)
{
	(void)state;
	edit_at(UINT64_C(1) << 40);
	edit_at(UINT64_MAX - PAGES + 1);
}

/* Sets a page, then all of it but the first and the last page, at each level. */
static void what_crosses_every_level_is_one_mapping(void **state)
{
	struct va_node *root = va_tree_create();

	(void)state;
	for (unsigned level = 0; level <= TOP_LEVEL; level++) {
		uint64_t last = level == TOP_LEVEL ? UINT64_MAX : (UINT64_C(1) << (6 * (level + 1))) - 1;
		struct lf_va_edit edit;

		begin(&edit, root);
		assert_true(va_edit_set(&edit, 1, last - 1, &mappings[level % MAPPINGS]));
		root = edit.root;
		free_replaced(&edit);
		va_tree_check((uintptr_t)root);
		assert_null(va_tree_lookup(root, 0));
		assert_null(va_tree_lookup(root, last));
		assert_ptr_equal(va_tree_lookup(root, 1), &mappings[level % MAPPINGS]);
		assert_ptr_equal(va_tree_lookup(root, last / 2), &mappings[level % MAPPINGS]);
		assert_ptr_equal(va_tree_lookup(root, last - 1), &mappings[level % MAPPINGS]);
	}
	va_tree_destroy(root);
}

/* What is mapped determines the shape: after unmapping, the tree has as many nodes and bytes as before. */
static void nodes_that_became_one_run_are_gone(void **state)
{
	struct va_node *root = va_tree_create();
	struct lf_va_edit edit;
	int64_t nodes;

	(void)state;
	begin(&edit, root);
	assert_true(va_edit_set(&edit, 0, 64 * 64 - 1, &mappings[0]));
	nodes = edit.nodes;
	assert_true(va_edit_set(&edit, 100, 100, &mappings[1]));
	assert_true(edit.nodes > nodes);
	assert_true(va_edit_set(&edit, 100, 100, &mappings[0]));
	assert_int_equal(edit.nodes, nodes);
	va_tree_check((uintptr_t)edit.root);
	root = edit.root;
	free_replaced(&edit);
	va_tree_destroy(root);
}

static struct va_node *oom_root;

static int edit_without_memory(void *arg)
{
	struct lf_va_edit edit;
	bool done;

	(void)arg;
	begin(&edit, oom_root);
	done = va_edit_set(&edit, 5, 64 * 64 * 2 + 7, &mappings[1]) && va_edit_set(&edit, 70, 75, &mappings[2]) &&
		va_edit_set(&edit, UINT64_C(1) << 50, (UINT64_C(1) << 50) + 1, &mappings[3]) && va_edit_set(&edit, 80, 5000, NULL);
	va_edit_abort(&edit);
	return done ? 0 : -ENOMEM;
}

static void an_edit_without_memory_leaves_nothing(void **state)
{
	struct lf_mapping **pages = calloc(PAGES, sizeof(*pages));
	struct lf_va_edit edit;

	(void)state;
	begin(&edit, va_tree_create());
	assert_true(va_edit_set(&edit, 64, 6400, &mappings[0]));
	oom_root = edit.root;
	free_replaced(&edit);
	for (uint64_t p = 64; p <= 6400; p++)
		pages[p] = &mappings[0];
	assert_true(alloc_fail_each(edit_without_memory, NULL) > 10);
	assert_shows(oom_root, pages, 0);
	va_tree_destroy(oom_root);
	free(pages);
}

static void unmapping_behind_the_tree_changes_nothing(void **state)
{
	struct va_node *root = va_tree_create();
	struct lf_va_edit edit;
	int64_t nodes;

	(void)state;
	begin(&edit, root);
	assert_true(va_edit_set(&edit, 5, 9, &mappings[0]));
	nodes = edit.nodes;
	assert_true(va_edit_set(&edit, UINT64_C(1) << 40, (UINT64_C(1) << 40) + 7, NULL));
	assert_int_equal(edit.nodes, nodes);
	assert_ptr_equal(va_tree_lookup(edit.root, 9), &mappings[0]);
	va_tree_check((uintptr_t)edit.root);
	root = edit.root;
	free_replaced(&edit);
	va_tree_destroy(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(edits_show_what_was_set_and_leave_the_old_tree),
		TEST(edits_far_up_and_at_the_last_page_do_so_too),
		TEST(what_crosses_every_level_is_one_mapping),
		TEST(nodes_that_became_one_run_are_gone),
		TEST(an_edit_without_memory_leaves_nothing),
		TEST(unmapping_behind_the_tree_changes_nothing),
	};

	return TEST_MAIN(tests);
}
