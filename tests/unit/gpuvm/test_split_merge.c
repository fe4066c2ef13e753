/* SPDX-License-Identifier: MIT */
/*
 * Splitting and merging: what a request makes of the mappings that it meets, and which operations that is.
 *
 * Oracle: tables in the text form of vm_testing.h. Each row is: what is there, the requests of one transaction, the operations that the
 * driver must be told, and what is there afterwards. The rows of the first table are the fifteen cases that the kernel's documentation of
 * drm_gpuvm draws, each with another buffer and, where it makes a difference, with the same one going on. Every table is run at
 * several places of the address space and with several granules: where it lies must make no difference.
 */
#include "vm_testing.h"

struct row {
	const char *what;
	const char *before; /* requests that make it */
	const char *requests;
	const char *ops;
	const char *after;
};

/* --- Places ------------------------------------------------------------------------------------------------------------------ */

enum { PAGES = 64 }; /* that the rows use */

struct place {
	uint64_t granule;
	uint64_t base;
	uint64_t start; /* of the VM */
};

/* Beginning, end with the last byte, and across the ends of what the nodes of a tree of 64 slots cover on each level. */
static const struct place places[] = {
	{ PAGE, 0, 0 },
	{ PAGE, 5 * PAGE, 5 * PAGE },
	{ PAGE, (UINT64_C(1) << 18) - 3 * PAGE, (UINT64_C(1) << 18) - 13 * PAGE },
	{ PAGE, 0 - PAGES * PAGE, 0 },
	{ PAGE, (UINT64_C(1) << 18) - 10 * PAGE, 0 },
	{ PAGE, (UINT64_C(1) << 24) - 10 * PAGE, 0 },
	{ PAGE, (UINT64_C(1) << 36) - 9 * PAGE, 0 },
	{ PAGE, (UINT64_C(1) << 48) - 11 * PAGE, 0 },
	{ PAGE, (UINT64_C(1) << 63) - 10 * PAGE, 0 },
	{ 1, 0, 0 },
	{ 1, 0 - (uint64_t)PAGES, 0 },
	{ 1, (UINT64_C(1) << 12) - 10, 0 },
	{ 1, (UINT64_C(1) << 60) - 10, 0 },
	{ 64, 64 * 64 * 64 - 10 * 64, 0 },
	{ UINT64_C(65536), UINT64_C(65536) * 4096 - 10 * UINT64_C(65536), 0 },
	{ GIB, 0, 0 },
	{ GIB, 0 - PAGES * GIB, 0 },
	{ GIB, 64 * GIB - 10 * GIB, 0 },
};

static void run_row(struct world *w, const struct row *row)
{
	struct lf_txn txn;
	struct text ops, after;

	world_do(w, row->before);
	vm_lock(w->vm);
	assert_int_equal(lf_txn_begin(&txn, w->vm), 0);
	assert_int_equal(requests(w, &txn, row->requests), 0);
	text_ops(&ops, w, &txn);
	lf_txn_commit(&txn);
	vm_unlock(w->vm);
	text_vm(&after, w);
	if (strcmp(ops.s, row->ops) != 0 || strcmp(after.s, row->after) != 0)
		print_error("%s: [%s] on [%s] at %#" PRIx64 ", granule %#" PRIx64 "\n", row->what, row->requests, row->before, w->base,
			w->page);
	assert_string_equal(ops.s, row->ops);
	assert_string_equal(after.s, row->after);
	world_do(w, "unmap 0+64");
}

static void run_table(const struct row *rows, size_t count)
{
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		const struct lf_vm_desc desc = { .name = "place", .granule = places[i].granule, .start = places[i].start };
		struct world w;

		world_init_at(&w, &desc, places[i].base);
		for (size_t k = 0; k < count; k++)
			run_row(&w, &rows[k]);
		world_fini(&w);
	}
}

#define RUN(rows) run_table(rows, sizeof(rows) / sizeof((rows)[0]))

/* --- One mapping and one request: the fifteen cases ----------------------------------------------------------------------------- */

static const struct row fifteen[] = {
	{ "1 identical", "map a8+4:8", "map a8+4:8", "", "a8+4:8" },
	{ "1 identical, other flags", "map a8+4:8", "map a8+4:8!1", "Uk a8+4:8, M a8+4:8!1", "a8+4:8!1" },
	{ "2 other offset", "map a8+4:8", "map a8+4:0", "U a8+4:8, M a8+4:0", "a8+4:0" },
	{ "3 other buffer", "map a8+4:8", "map b8+4:8", "U a8+4:8, M b8+4:8", "b8+4:8" },

	{ "4 left superset, other buffer", "map a8+2:8", "map b8+4:0", "U a8+2:8, M b8+4:0", "b8+4:0" },
	{ "4 left superset, going on", "map a8+2:8", "map a8+4:8", "Uk a8+2:8, M a8+4:8", "a8+4:8" },
	{ "4 left superset, other offset", "map a8+2:8", "map a8+4:9", "U a8+2:8, M a8+4:9", "a8+4:9" },

	{ "5 left subset, other buffer", "map a8+4:8", "map b8+2:0", "R a8+4:8 >a10+2:10, M b8+2:0", "b8+2:0 a10+2:10" },
	{ "5 left subset, other offset", "map a8+4:8", "map a8+2:10", "R a8+4:8 >a10+2:10, M a8+2:10", "a8+2:10 a10+2:10" },
	{ "6 left subset, going on", "map a8+4:8", "map a8+2:8", "Rk a8+4:8 >a10+2:10, M a8+2:8", "a8+2:8 a10+2:10" },

	{ "7 right subset, other buffer", "map a8+4:8", "map b10+2:0", "R a8+4:8 <a8+2:8, M b10+2:0", "a8+2:8 b10+2:0" },
	{ "8 right subset, going on", "map a8+4:8", "map a10+2:10", "Rk a8+4:8 <a8+2:8, M a10+2:10", "a8+2:8 a10+2:10" },

	{ "9 overlap at the end, other buffer", "map a8+4:8", "map b10+4:0", "R a8+4:8 <a8+2:8, M b10+4:0", "a8+2:8 b10+4:0" },
	{ "9 overlap at the end, other offset", "map a8+4:8", "map a10+4:9", "R a8+4:8 <a8+2:8, M a10+4:9", "a8+2:8 a10+4:9" },
	{ "10 overlap at the end, going on", "map a8+4:8", "map a10+4:10", "Rk a8+4:8 <a8+2:8, M a10+4:10", "a8+2:8 a10+4:10" },

	{ "11 centre subset, other buffer", "map a8+4:8", "map b9+2:0", "R a8+4:8 <a8+1:8 >a11+1:11, M b9+2:0", "a8+1:8 b9+2:0 a11+1:11" },
	{ "12 centre subset, going on", "map a8+4:8", "map a9+2:9", "Rk a8+4:8 <a8+1:8 >a11+1:11, M a9+2:9", "a8+1:8 a9+2:9 a11+1:11" },

	{ "13 right superset, other buffer", "map a10+2:10", "map b8+4:0", "U a10+2:10, M b8+4:0", "b8+4:0" },
	{ "13 right superset, going on", "map a10+2:10", "map a8+4:8", "Uk a10+2:10, M a8+4:8", "a8+4:8" },

	{ "14 centre superset, other buffer", "map a9+2:9", "map b8+4:0", "U a9+2:9, M b8+4:0", "b8+4:0" },
	{ "14 centre superset, going on", "map a9+2:9", "map a8+4:8", "Uk a9+2:9, M a8+4:8", "a8+4:8" },

	{ "15 overlap at the start, other buffer", "map a8+4:8", "map b6+4:0", "R a8+4:8 >a10+2:10, M b6+4:0", "b6+4:0 a10+2:10" },
	{ "15 overlap at the start, going on", "map a8+4:8", "map a6+4:6", "Rk a8+4:8 >a10+2:10, M a6+4:6", "a6+4:6 a10+2:10" },
};

static void a_request_meets_one_mapping_in_the_fifteen_ways_of_drm_gpuvm(void **state)
{
	RUN(fifteen);
}

/* --- One request and several mappings ------------------------------------------------------------------------------------------- */

static const struct row several[] = {
	{ "all inside", "map a2+2:2 map b4+2 map a8+2:0", "map c0+12:0", "U a2+2:2, U b4+2:0, U a8+2:0, M c0+12:0", "c0+12:0" },
	{ "both ends reach over", "map a0+4:0 map b4+4:0 map c8+4:0", "map d2+8:0",
		"R a0+4:0 <a0+2:0, U b4+4:0, R c8+4:0 >c10+2:2, M d2+8:0", "a0+2:0 d2+8:0 c10+2:2" },
	{ "pieces of one buffer become one mapping", "map a0+4:0 map a4+4:4 map a8+4:8", "map a0+12:0",
		"Uk a0+4:0, Uk a4+4:4, Uk a8+4:8, M a0+12:0", "a0+12:0" },
	{ "the middle one is of another", "map a0+4:0 map b4+4:4 map a8+4:8", "map a0+12:0", "Uk a0+4:0, U b4+4:4, Uk a8+4:8, M a0+12:0",
		"a0+12:0" },
	{ "one that lies right in front and one right behind stay", "map a0+4:0 map b4+4:0 map a8+4:0", "map c4+4:0", "U b4+4:0, M c4+4:0",
		"a0+4:0 c4+4:0 a8+4:0" },
	{ "neighbours of the same buffer are not joined", "map a0+4:0 map a8+4:8", "map a4+4:4", "M a4+4:4", "a0+4:0 a4+4:4 a8+4:8" },
	{ "a hole", "map a0+1 map b63+1", "map c1+62:0", "M c1+62:0", "a0+1:0 c1+62:0 b63+1:0" },
};

static void a_request_meets_several_mappings(void **state)
{
	RUN(several);
}

/* --- Unmapping ------------------------------------------------------------------------------------------------------------------ */

static const struct row unmaps[] = {
	{ "nothing there", "", "unmap 8+4", "", "" },
	{ "nothing there, neighbours", "map a4+4:4 map b12+4:0", "unmap 8+4", "", "a4+4:4 b12+4:0" },
	{ "identical", "map a8+4:8", "unmap 8+4", "U a8+4:8", "" },
	{ "superset", "map a8+4:8", "unmap 6+10", "U a8+4:8", "" },
	{ "left part", "map a8+4:8", "unmap 8+1", "R a8+4:8 >a9+3:9", "a9+3:9" },
	{ "right part", "map a8+4:8", "unmap 11+1", "R a8+4:8 <a8+3:8", "a8+3:8" },
	{ "centre", "map a8+4:8", "unmap 9+2", "R a8+4:8 <a8+1:8 >a11+1:11", "a8+1:8 a11+1:11" },
	{ "overlap at the start", "map a8+4:8", "unmap 6+4", "R a8+4:8 >a10+2:10", "a10+2:10" },
	{ "overlap at the end", "map a8+4:8", "unmap 10+4", "R a8+4:8 <a8+2:8", "a8+2:8" },
	{ "several", "map a0+4:0 map b4+4:0 map a8+4:0", "unmap 2+8", "R a0+4:0 <a0+2:0, U b4+4:0, R a8+4:0 >a10+2:2", "a0+2:0 a10+2:2" },
	{ "flags go on", "map a8+4:8!5", "unmap 9+2", "R a8+4:8!5 <a8+1:8!5 >a11+1:11!5", "a8+1:8!5 a11+1:11!5" },
	{ "sparse", "map -8+4", "unmap 9+2", "R -8+4 <-8+1 >-11+1", "-8+1 -11+1" },
	{ "all", "map a0+64:0", "unmap 0+64", "U a0+64:0", "" },
};

static void unmapping_is_mapping_of_nothing(void **state)
{
	RUN(unmaps);
}

/* --- Splitting ------------------------------------------------------------------------------------------------------------------ */

static const struct row splits[] = {
	{ "nothing there", "", "split 8+4", "", "" },
	{ "identical", "map a8+4:8", "split 8+4", "", "a8+4:8" },
	{ "superset", "map a8+4:8", "split 6+8", "", "a8+4:8" },
	{ "centre", "map a8+4:8", "split 9+2", "Rk a8+4:8 <a8+1:8 >a11+1:11, Mk a9+2:9", "a8+1:8 a9+2:9 a11+1:11" },
	{ "flags go on", "map a8+4:8!7", "split 9+2", "Rk a8+4:8!7 <a8+1:8!7 >a11+1:11!7, Mk a9+2:9!7", "a8+1:8!7 a9+2:9!7 a11+1:11!7" },
	{ "left part", "map a8+4:8", "split 8+2", "Rk a8+4:8 <a8+2:8 >a10+2:10", "a8+2:8 a10+2:10" },
	{ "right part", "map a8+4:8", "split 10+2", "Rk a8+4:8 <a8+2:8 >a10+2:10", "a8+2:8 a10+2:10" },
	{ "overlap at the start", "map a8+4:8", "split 6+3", "Rk a8+4:8 <a8+1:8 >a9+3:9", "a8+1:8 a9+3:9" },
	{ "overlap at the end", "map a8+4:8", "split 11+9", "Rk a8+4:8 <a8+3:8 >a11+1:11", "a8+3:8 a11+1:11" },
	{ "two ends, one between stays", "map a0+4:0 map b4+4:0 map c8+4:0", "split 2+8",
		"Rk a0+4:0 <a0+2:0 >a2+2:2, Rk c8+4:0 <c8+2:0 >c10+2:2", "a0+2:0 a2+2:2 b4+4:0 c8+2:0 c10+2:2" },
	{ "sparse", "map -8+4", "split 9+2", "Rk -8+4 <-8+1 >-11+1, Mk -9+2", "-8+1 -9+2 -11+1" },
};

static void splitting_makes_pieces_and_touches_no_page(void **state)
{
	RUN(splits);
}

/* --- Prefetching ---------------------------------------------------------------------------------------------------------------- */

static const struct row prefetches[] = {
	{ "nothing there", "", "prefetch 0+64", "", "" },
	{ "a part of one", "map a8+4:8", "prefetch 9+2", "P a8+4:8 9+2", "a8+4:8" },
	{ "over the ends of one", "map a8+4:8", "prefetch 0+64", "P a8+4:8 8+4", "a8+4:8" },
	{ "several, with holes", "map a0+4:0 map b6+2:0 map c8+4:0", "prefetch 2+8", "P a0+4:0 2+2, P b6+2:0 6+2, P c8+4:0 8+2",
		"a0+4:0 b6+2:0 c8+4:0" },
	{ "in the order of requests", "map a0+4:0 map b6+2:0", "prefetch 6+1 prefetch 0+2 prefetch 6+1",
		"P b6+2:0 6+1, P a0+4:0 0+2, P b6+2:0 6+1", "a0+4:0 b6+2:0" },
	{ "behind what goes and comes", "map a0+4:0", "prefetch 0+8 unmap 0+2 map b4+4:0",
		"R a0+4:0 >a2+2:2, M b4+4:0, P a2+2:2 2+2, P b4+4:0 4+4", "a2+2:2 b4+4:0" },
	{ "of what goes: nothing", "map a0+4:0", "prefetch 0+4 unmap 0+4", "U a0+4:0", "" },
};

static void prefetching_asks_for_what_is_there_at_the_end_in_the_order_of_requests(void **state)
{
	RUN(prefetches);
}

/* --- Several requests in one transaction ---------------------------------------------------------------------------------------- */

static const struct row together[] = {
	{ "what goes before what comes, each in the order of addresses", "map a0+4:0 map b8+4:0 map c16+4:0",
		"map d30+2 unmap 16+4 map d20+2 unmap 8+4 map d4+2 unmap 0+4",
		"U a0+4:0, U b8+4:0, U c16+4:0, M d4+2:0, M d20+2:0, M d30+2:0", "d4+2:0 d20+2:0 d30+2:0" },
	{ "born and gone", "", "map a0+4:0 unmap 0+4", "", "" },
	{ "born, cut and gone", "", "map a0+4:0 unmap 1+2 unmap 0+8", "", "" },
	{ "born and covered", "", "map a0+4:0 map b0+4:0", "M b0+4:0", "b0+4:0" },
	{ "born and cut", "", "map a0+8:0 unmap 2+4", "M a0+2:0, M a6+2:6", "a0+2:0 a6+2:6" },
	{ "born and split", "", "map a0+8:0 split 2+4", "M a0+2:0, M a2+4:2, M a6+2:6", "a0+2:0 a2+4:2 a6+2:6" },
	{ "born and mapped again", "", "map a0+8:0 map a0+8:0", "M a0+8:0", "a0+8:0" },
	{ "cut twice", "map a0+16:0", "unmap 2+2 unmap 8+2", "R a0+16:0 <a0+2:0 >a10+6:10, M a4+4:4",
		"a0+2:0 a4+4:4 a10+6:10" },
	{ "gone and back", "map a0+4:0", "unmap 0+4 map a0+4:0", "Uk a0+4:0, M a0+4:0", "a0+4:0" },
	{ "over another and back", "map a0+4:0", "map b0+4:0 map a0+4:0", "Uk a0+4:0, M a0+4:0", "a0+4:0" },
	{ "split and one piece over", "map a0+12:0", "split 4+4 map b4+4:0", "R a0+12:0 <a0+4:0 >a8+4:8, M b4+4:0",
		"a0+4:0 b4+4:0 a8+4:8" },
	{ "split and the beginning gone", "map a0+12:0", "split 4+4 unmap 0+4", "R a0+12:0 >a8+4:8, M a4+4:4", "a4+4:4 a8+4:8" },
	{ "split and split again", "map a0+12:0", "split 4+4 split 2+8", "Rk a0+12:0 <a0+2:0 >a10+2:10, Mk a2+2:2, Mk a4+4:4, Mk a8+2:8",
		"a0+2:0 a2+2:2 a4+4:4 a8+2:8 a10+2:10" },
	{ "exchanged", "map a0+4:0 map b4+4:0", "map b0+4:0 map a4+4:0", "U a0+4:0, U b4+4:0, M b0+4:0, M a4+4:0", "b0+4:0 a4+4:0" },
	{ "moved up by one page", "map a0+4:0", "unmap 0+1 map a1+4:0", "U a0+4:0, M a1+4:0", "a1+4:0" },
};

static void several_requests_are_one_difference(void **state)
{
	RUN(together);
}

/* --- The mappings themselves ---------------------------------------------------------------------------------------------------- */

static const struct lf_mapping *at(struct world *w, uint64_t page)
{
	return look(w->vm, w->base + page * w->page);
}

static void an_identical_mapping_stays_the_same_object(void **state)
{
	struct world w;
	const struct lf_mapping *a, *s;
	struct lf_txn txn;
	struct lf_mapping *ret = NULL;

	world_init(&w, NULL);
	world_do(&w, "map a0+4:0!3 map -8+4!1");
	a = at(&w, 0);
	s = at(&w, 8);
	world_do(&w, "map a0+4:0!3 map -8+4!1");
	assert_ptr_equal(at(&w, 0), a);
	assert_ptr_equal(at(&w, 8), s);
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	const struct lf_map_desc desc = { .va = 0, .size = 4 * PAGE, .vm_bo = w.vm_bo[0], .flags = 3 };
	assert_int_equal(lf_txn_map(&txn, &desc, &ret), 0);
	assert_ptr_equal(ret, a);
	lf_txn_abort(&txn);
	vm_unlock(w.vm);
	world_fini(&w);
}

static void neighbours_of_a_request_stay_the_same_objects(void **state)
{
	struct world w;
	const struct lf_mapping *left, *right;

	world_init(&w, NULL);
	world_do(&w, "map a0+4:0 map b4+4:0 map c8+4:0");
	left = at(&w, 0);
	right = at(&w, 8);
	world_do(&w, "map d4+4:0");
	world_do(&w, "unmap 4+4");
	world_do(&w, "split 4+4");
	assert_ptr_equal(at(&w, 0), left);
	assert_ptr_equal(at(&w, 8), right);
	world_fini(&w);
}

static void named_fields_of_a_mapping_are_what_was_asked_for(void **state)
{
	struct world w;
	struct lf_txn txn;
	struct lf_mapping *m = NULL;
	const struct lf_map_desc with = { .va = 5 * PAGE, .size = 3 * PAGE, .offset = 7 * PAGE, .flags = 0xdeadbeef };
	struct lf_map_desc desc = with;

	world_init(&w, NULL);
	desc.vm_bo = w.vm_bo[2];
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(lf_txn_map(&txn, &desc, &m), 0);
	assert_non_null(m);
	lf_txn_commit(&txn);
	vm_unlock(w.vm);
	assert_ptr_equal(look(w.vm, 6 * PAGE), m);
	assert_true(m->va == with.va && m->size == with.size && m->offset == with.offset && m->flags == with.flags);
	assert_ptr_equal(m->vm_bo, w.vm_bo[2]);
	assert_ptr_equal(m->vm, w.vm);
	world_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(a_request_meets_one_mapping_in_the_fifteen_ways_of_drm_gpuvm),
		TEST_WARM(a_request_meets_several_mappings),
		TEST_WARM(unmapping_is_mapping_of_nothing),
		TEST_WARM(splitting_makes_pieces_and_touches_no_page),
		TEST_WARM(prefetching_asks_for_what_is_there_at_the_end_in_the_order_of_requests),
		TEST_WARM(several_requests_are_one_difference),
		TEST_WARM(an_identical_mapping_stays_the_same_object),
		TEST_WARM(neighbours_of_a_request_stay_the_same_objects),
		TEST_WARM(named_fields_of_a_mapping_are_what_was_asked_for),
	};
	return TEST_MAIN(tests);
}
