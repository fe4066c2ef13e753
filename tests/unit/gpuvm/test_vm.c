/* SPDX-License-Identifier: MIT */
/*
 * Address spaces: what they are made from, where mappings can be, how versions are looked at and held, and how they end.
 *
 * Oracle of the tests that look: a dump of the view, which one walk makes; every other way to ask must give the answer that follows from
 * it, at each first and last address, right in front and right behind.
 */
#include "vm_testing.h"

#include "producer.h"

/* --- Making --------------------------------------------------------------------------------------------------------------------- */

static void a_vm_is_made_empty(void **state)
{
	int data;
	const struct lf_vm_desc desc = { .name = "empty", .data = &data };
	struct lf_vm *vm = vm_new(&desc);
	struct lf_vm_stats stats = stats_of(vm);
	struct lf_view view;

	assert_int_equal(lf_vm_error(vm), 0);
	assert_ptr_equal(lf_vm_data(vm), &data);
	assert_non_null(lf_vm_resv(vm));
	assert_int_equal(stats.mappings, 0);
	assert_int_equal(stats.held, 0);
	assert_int_equal(stats.pinned, 0);
	lf_read_lock();
	lf_vm_view(vm, &view);
	assert_int_equal(view.version, stats.version);
	assert_null(lf_view_lookup(&view, 0));
	assert_null(lf_view_lookup(&view, LAST));
	assert_null(lf_view_next(&view, 0));
	assert_null(lf_view_prev(&view, LAST));
	lf_vm_view_applied(vm, &view);
	assert_null(lf_view_next(&view, 0));
	lf_read_unlock();
	assert_null(lf_vm_lookup_get(vm, 0));
	assert_ptr_equal(lf_vm_get(vm), vm);
	lf_vm_put(vm);
	lf_vm_put(vm); /* without mappings it needs no close */
	assert_null(lf_vm_get(NULL));
	lf_vm_put(NULL);
	lf_mapping_put(NULL);
	lf_held_put(NULL);
	assert_null(lf_mapping_get(NULL));
}

/* Each is wrong in one way. */
static const struct lf_vm_desc wrong_descs[] = {
	{ .name = NULL },
	{ .name = "flags", .flags = 2 },
	{ .name = "flags", .flags = LF_VM_BIND | 0x80000000u },
	{ .name = "granule is no power of two", .granule = 3 * PAGE },
	{ .name = "granule too large", .granule = 2 * GIB },
	{ .name = "start not of the granule", .start = PAGE / 2 },
	{ .name = "size not of the granule", .size = PAGE + 1 },
	{ .name = "beyond the last address", .start = 0 - PAGE, .size = 2 * PAGE },
	{ .name = "beyond the last address by all", .start = PAGE, .size = 0 - PAGE + PAGE / 2 },
	{ .name = "reserved in front", .start = 10 * PAGE, .size = 10 * PAGE, .reserved_start = 9 * PAGE, .reserved_size = 2 * PAGE },
	{ .name = "reserved behind", .start = 10 * PAGE, .size = 10 * PAGE, .reserved_start = 19 * PAGE, .reserved_size = 2 * PAGE },
	{ .name = "reserved wraps", .reserved_start = 0 - PAGE, .reserved_size = 2 * PAGE },
	{ .name = "reserved not of the granule", .reserved_start = 1, .reserved_size = PAGE },
	{ .name = "reserved size not of the granule", .reserved_start = PAGE, .reserved_size = 7 },
	{ .name = "too many mappings", .max_mappings = (UINT64_C(1) << 30) + 1 },
	{ .name = "mapping outside its struct", .mapping_size = sizeof(struct lf_mapping), .mapping_offset = 8 },
	{ .name = "mapping larger than its struct", .mapping_size = sizeof(struct lf_mapping) - 8 },
	{ .name = "mapping in no struct", .mapping_offset = 8 },
	{ .name = "mapping not aligned", .mapping_size = sizeof(struct lf_mapping) + 16, .mapping_offset = 4 },
	{ .name = "VM_BO outside its struct", .vm_bo_size = sizeof(struct lf_vm_bo), .vm_bo_offset = 8 },
	{ .name = "VM_BO not aligned", .vm_bo_size = sizeof(struct lf_vm_bo) + 16, .vm_bo_offset = 2 },
};

static void wrong_descriptors_are_refused(void **state)
{
	struct lf_vm *vm = NULL;

	for (size_t i = 0; i < sizeof(wrong_descs) / sizeof(wrong_descs[0]); i++) {
		int error = lf_vm_create(&wrong_descs[i], &vm);

		if (error != -EINVAL || log_count(LF_LOG_MISUSE) != 1)
			print_error("%s: %d\n", wrong_descs[i].name ? wrong_descs[i].name : "no name", error);
		assert_int_equal(error, -EINVAL);
		assert_null(vm);
		expect_misuse(1);
	}
}

static int make_one(void *arg)
{
	const struct lf_vm_desc *desc = arg;
	struct lf_vm *vm;
	int error = lf_vm_create(desc, &vm);

	if (error == 0)
		lf_vm_put(vm);
	return error;
}

static void making_a_vm_fails_without_memory_and_leaks_nothing(void **state)
{
	const struct lf_vm_desc plain = { .name = "plain" }, bind = { .name = "bind", .flags = LF_VM_BIND };

	assert_true(alloc_fail_each(make_one, (void *)(uintptr_t)&plain) > 0);
	assert_true(alloc_fail_each(make_one, (void *)(uintptr_t)&bind) > 0);
}

static void a_vm_shares_the_reservation_that_it_is_given(void **state)
{
	struct lf_txn in_a, in_b;
	struct lf_resv *resv;
	struct lf_vm *a, *b;
	struct lf_vm_desc desc = { .name = "shared" };

	assert_int_equal(lf_resv_create(NULL, &resv), 0);
	desc.resv = resv;
	a = vm_new(&desc);
	b = vm_new(&desc);
	lf_resv_put(resv); /* each VM has one of its own */
	assert_ptr_equal(lf_vm_resv(a), resv);
	assert_ptr_equal(lf_vm_resv(b), resv);
	vm_lock(a);
	assert_int_equal(lf_txn_begin(&in_a, a), 0);
	assert_int_equal(lf_txn_begin(&in_b, b), 0); /* one of each */
	assert_int_equal(txn_map(&in_a, NULL, 0, PAGE, 0), 0);
	assert_int_equal(txn_map(&in_b, NULL, PAGE, PAGE, 0), 0);
	lf_txn_commit(&in_a);
	lf_txn_commit(&in_b);
	vm_unlock(b);
	assert_non_null(look(a, 0));
	assert_null(look(a, PAGE));
	vm_end(a);
	map_now(b, NULL, 0, PAGE, 0);
	assert_non_null(look(b, 0));
	assert_non_null(look(b, PAGE));
	vm_end(b);
}

static void a_reservation_that_is_not_counted_is_refused(void **state)
{
	struct lf_vm_desc desc = { .name = "embedded" };
	struct lf_vm *vm = NULL;
	struct lf_resv resv;

	lf_resv_init(&resv, NULL);
	desc.resv = &resv;
	assert_int_equal(lf_vm_create(&desc, &vm), -EINVAL);
	assert_null(vm);
	expect_misuse(1);
	lf_resv_fini(&resv);
}

/* --- Where mappings can be -------------------------------------------------------------------------------------------------------- */

/* Maps [va, va + size), looks around it, and takes it away again. @size 0: all 64 bits, in two halves. */
static void expect_there(struct lf_vm *vm, uint64_t va, uint64_t size)
{
	uint64_t last = va + (size - 1);
	const struct lf_mapping *m;
	struct lf_view view;

	map_now(vm, NULL, va, size, 0);
	lf_read_lock();
	lf_vm_view(vm, &view);
	m = lf_view_lookup(&view, va);
	must(m != NULL && m->va == va && m->size == size);
	must(lf_view_lookup(&view, last) == m && lf_view_lookup(&view, va + (size - 1) / 2) == m);
	must(va == 0 || lf_view_lookup(&view, va - 1) == NULL);
	must(last == LAST || lf_view_lookup(&view, last + 1) == NULL);
	must(lf_view_next(&view, 0) == m && lf_view_next(&view, va) == m && lf_view_next(&view, last) == m);
	must(last == LAST || lf_view_next(&view, last + 1) == NULL);
	must(lf_view_prev(&view, LAST) == m && lf_view_prev(&view, va) == m && lf_view_prev(&view, last) == m);
	must(va == 0 || lf_view_prev(&view, va - 1) == NULL);
	must(lf_view_adjacent_next(&view, m) == NULL && lf_view_adjacent_prev(&view, m) == NULL);
	lf_read_unlock();
	must(stats_of(vm).mappings == 1);
	unmap_now(vm, va, size);
	must(stats_of(vm).mappings == 0 && look(vm, va) == NULL && look(vm, last) == NULL);
}

static bool fits(uint64_t va, uint64_t size)
{
	return size != 0 && va + (size - 1) >= va;
}

/* Sizes and addresses around what a node covers on each level, for a tree of 64 slots a node (and others that are powers of two). */
static unsigned ranges_of_all_levels(uint64_t granule)
{
	const struct lf_vm_desc desc = { .name = "levels", .granule = granule };
	struct lf_vm *vm = vm_new(&desc);
	unsigned tried = 0;

	for (unsigned i = 0; i < 64; i += 6) {
		for (unsigned k = 0; k < 64; k += 6) {
			uint64_t covers = granule << i, at = granule << k;

			for (int d = 0; d < 9; d++) {
				uint64_t size = covers + (uint64_t)(d % 3 - 1) * granule, va = at + (uint64_t)(d / 3 - 1) * granule;

				if (covers >> i != granule || at >> k != granule || !fits(va, size))
					continue;
				expect_there(vm, va, size);
				expect_there(vm, 0 - size, size);
				if (fits(0 - va - size, size))
					expect_there(vm, 0 - va - size, size);
				tried++;
			}
		}
	}
	vm_end(vm);
	return tried;
}

static void ranges_across_all_levels_of_a_tree_are_found(void **state)
{
	static const uint64_t granules[] = { 1, 2, 64, PAGE, 65536, UINT64_C(1) << 21, GIB };

	for (size_t i = 0; i < sizeof(granules) / sizeof(granules[0]); i++)
		test_note("granule %#" PRIx64 ": %u ranges", granules[i], ranges_of_all_levels(granules[i]));
}

static void the_last_byte_of_64_bits_can_be_mapped_with_every_granule(void **state)
{
	for (uint64_t granule = 1; granule <= GIB; granule *= 2) {
		const struct lf_vm_desc desc = { .name = "last", .granule = granule };
		struct lf_vm *vm = vm_new(&desc);

		expect_there(vm, 0 - granule, granule);
		expect_there(vm, 0, granule);
		expect_there(vm, UINT64_C(1) << 63, UINT64_C(1) << 63);
		expect_there(vm, granule, 0 - granule);
		expect_there(vm, 0, 0 - granule);
		vm_end(vm);
	}
}

static void two_mappings_fill_all_64_bits(void **state)
{
	const struct lf_vm_desc desc = { .name = "halves" };
	const uint64_t half = UINT64_C(1) << 63;
	struct lf_vm *vm = vm_new(&desc);
	const struct lf_mapping *low, *high;
	struct lf_walk walk;
	struct lf_view view;

	map_now(vm, NULL, 0, half, 0);
	map_now(vm, NULL, half, half, 0);
	low = look(vm, 0);
	high = look(vm, LAST);
	assert_true(low && high && low != high);
	assert_ptr_equal(look(vm, half - 1), low);
	assert_ptr_equal(look(vm, half), high);
	lf_read_lock();
	lf_vm_view(vm, &view);
	assert_ptr_equal(lf_view_adjacent_next(&view, low), high);
	assert_ptr_equal(lf_view_adjacent_prev(&view, high), low);
	assert_null(lf_view_adjacent_next(&view, high));
	assert_null(lf_view_adjacent_prev(&view, low));
	lf_walk_begin(&walk, &view, 0, 0);
	assert_ptr_equal(lf_walk_next(&walk), low);
	assert_ptr_equal(lf_walk_next(&walk), high);
	assert_null(lf_walk_next(&walk));
	assert_null(lf_walk_next(&walk));
	lf_read_unlock();
	unmap_now(vm, PAGE, 0 - 2 * PAGE);
	assert_non_null(look(vm, 0));
	assert_null(look(vm, PAGE));
	assert_null(look(vm, LAST - PAGE));
	assert_non_null(look(vm, LAST - PAGE + 1));
	vm_end(vm);
}

static void a_vm_has_the_range_that_it_was_given(void **state)
{
	const struct lf_vm_desc desc = { .name = "range", .start = 3 * GIB, .size = 2 * GIB, .granule = 65536 };
	struct lf_vm *vm = vm_new(&desc);

	expect_there(vm, 3 * GIB, 2 * GIB);
	expect_there(vm, 3 * GIB, 65536);
	expect_there(vm, 5 * GIB - 65536, 65536);
	assert_null(look(vm, 0));
	assert_null(look(vm, LAST));
	vm_end(vm);
}

static void a_sparse_mapping_has_no_buffer(void **state)
{
	struct world w;
	const struct lf_mapping *m;

	world_init(&w, NULL);
	world_do(&w, "map -4+8!9");
	m = look(w.vm, 4 * PAGE);
	assert_null(m->vm_bo);
	assert_int_equal(m->offset, 0);
	assert_int_equal(m->flags, 9);
	assert_ptr_equal(m->vm, w.vm);
	world_do(&w, "map a6+2:0");
	expect_layout(&w, "-4+2!9 a6+2:0 -8+4!9");
	world_do(&w, "map -4+8");
	expect_layout(&w, "-4+8");
	world_fini(&w);
}

/* --- Looking ---------------------------------------------------------------------------------------------------------------------- */

/* The mapping that contains an address, or the nearest one in a direction, by the dump. */
static const struct lf_mapping *dumped_at(const struct dump *d, uint64_t va, int direction)
{
	const struct lf_mapping *before = NULL;

	for (size_t i = 0; i < d->count; i++) {
		const struct dumped *x = &d->all[i];

		if (va >= x->va && va - x->va < x->size)
			return x->m;
		if (x->va > va)
			return direction > 0 ? x->m : direction < 0 ? before : NULL;
		before = x->m;
	}
	return direction < 0 ? before : NULL;
}

static void check_address(const struct lf_view *view, const struct dump *d, uint64_t va)
{
	must(lf_view_lookup(view, va) == dumped_at(d, va, 0));
	must(lf_view_next(view, va) == dumped_at(d, va, 1));
	must(lf_view_prev(view, va) == dumped_at(d, va, -1));
}

/* A walk over a range, by the dump. */
static void check_walk(const struct lf_view *view, const struct dump *d, uint64_t va, uint64_t size)
{
	uint64_t last = size ? va + (size - 1) : LAST;
	struct lf_walk walk;

	lf_walk_begin(&walk, view, va, size);
	for (size_t i = 0; i < d->count; i++) {
		const struct dumped *x = &d->all[i];

		if (x->va <= last && x->va + (x->size - 1) >= va)
			must(lf_walk_next(&walk) == x->m);
	}
	must(lf_walk_next(&walk) == NULL);
}

static void check_everywhere(const struct lf_view *view, const struct dump *d)
{
	check_address(view, d, 0);
	check_address(view, d, LAST);
	for (size_t i = 0; i < d->count; i++) {
		const struct dumped *x = &d->all[i], *n = i + 1 < d->count ? x + 1 : NULL, *p = i > 0 ? x - 1 : NULL;
		uint64_t last = x->va + (x->size - 1);

		check_address(view, d, x->va - 1);
		check_address(view, d, x->va);
		check_address(view, d, x->va + x->size / 2);
		check_address(view, d, last);
		check_address(view, d, last + 1);
		must(lf_view_adjacent_next(view, x->m) == (n && n->va == last + 1 ? n->m : NULL));
		must(lf_view_adjacent_prev(view, x->m) == (p && p->va + p->size == x->va ? p->m : NULL));
		check_walk(view, d, x->va, 0);
		check_walk(view, d, x->va, x->size);
		check_walk(view, d, last, 1);
		if (x->va)
			check_walk(view, d, x->va - 1, 1);
		if (x->va)
			check_walk(view, d, 0, x->va);
		if (last != LAST)
			check_walk(view, d, last + 1, 0);
	}
}

static void fill_at_random(struct world *w, uint64_t *random, unsigned count, unsigned bits)
{
	for (unsigned i = 0; i < count; i++) {
		uint64_t va = random_next(random) >> (64 - bits) << 12, size = (1 + (random_next(random) & 15)) * PAGE;

		if (va == 0 || fits(va, size))
			map_now(w->vm, w->vm_bo[i % WORLD_BOS], va, size, (random_next(random) & 1023) * PAGE);
	}
}

static void look_at(struct lf_vm *vm)
{
	struct dump d = { NULL, 0, 0 };
	struct lf_view view;

	dump_vm(&d, vm);
	assert_int_equal(d.count, stats_of(vm).mappings);
	lf_read_lock();
	lf_vm_view(vm, &view);
	check_everywhere(&view, &d);
	lf_read_unlock();
	vm_lock(vm);
	lf_vm_view(vm, &view);
	check_everywhere(&view, &d);
	assert_ptr_equal(lf_vm_lookup(vm, d.all[d.count - 1].va), d.all[d.count - 1].m);
	vm_unlock(vm);
	dump_free(&d);
}

static void all_ways_to_look_agree(void **state)
{
	uint64_t random = test_seed();

	for (unsigned bits = 6; bits <= 52; bits += 2) {
		struct world w;

		world_init(&w, NULL);
		fill_at_random(&w, &random, 60, bits);
		map_now(w.vm, w.vm_bo[0], 0, PAGE, 0);
		map_now(w.vm, w.vm_bo[0], 0 - PAGE, PAGE, 0);
		look_at(w.vm);
		world_fini(&w);
	}
}

static void all_ways_to_look_agree_in_a_vm_that_has_a_part_of_the_addresses(void **state)
{
	const struct lf_vm_desc desc = { .name = "part", .start = 7 * PAGE, .size = (UINT64_C(1) << 30) + 3 * PAGE };
	uint64_t random = test_seed(), end = desc.start + desc.size;
	struct world w;

	for (int i = 0; i < 4; i++) {
		world_init(&w, &desc);
		for (unsigned k = 0; k < 200; k++) {
			uint64_t page = random_next(&random) % (desc.size / PAGE - 4);

			map_now(w.vm, w.vm_bo[k % 4], desc.start + page * PAGE, 4 * PAGE, k * PAGE);
		}
		if (i & 1)
			map_now(w.vm, NULL, desc.start, PAGE, 0);
		if (i & 2)
			map_now(w.vm, NULL, end - PAGE, PAGE, 0);
		look_at(w.vm);
		assert_null(look(w.vm, 0));
		assert_null(look(w.vm, desc.start - 1));
		assert_null(look(w.vm, end));
		assert_null(look(w.vm, LAST));
		world_fini(&w);
	}
}

static void a_view_is_one_version_whatever_is_committed_meanwhile(void **state)
{
	struct world w;
	struct lf_view view, later;
	struct text t;

	world_init(&w, NULL);
	world_do(&w, "map a0+8:0 map b20+4:0");
	vm_lock(w.vm); /* a thread may hold the lock in a read section, if it had it before */
	struct lf_txn txn;
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(requests(&w, &txn, "unmap 2+2 map c20+4:0 map d100000+4:0"), 0);
	lf_read_lock();
	lf_vm_view(w.vm, &view);
	lf_txn_commit(&txn);
	text_view(&t, &w, &view);
	assert_string_equal(t.s, "a0+8:0 b20+4:0");
	lf_vm_view(w.vm, &later);
	assert_true(later.version > view.version);
	text_view(&t, &w, &later);
	assert_string_equal(t.s, "a0+2:0 a4+4:4 c20+4:0 d100000+4:0");
	lf_read_unlock();
	vm_unlock(w.vm);
	world_fini(&w);
}

static void looking_allocates_nothing(void **state)
{
	struct world w;
	struct dump d = { NULL, 0, 0 };
	struct lf_view view;
	long calls;

	world_init(&w, NULL);
	world_do(&w, "map a0+8:0 map b20+4:0 map c100000+8:0");
	dump_vm(&d, w.vm);
	calls = alloc_calls();
	lf_read_lock();
	lf_vm_view(w.vm, &view);
	check_everywhere(&view, &d);
	lf_read_unlock();
	lf_mapping_put(lf_vm_lookup_get(w.vm, 0));
	stats_of(w.vm);
	assert_int_equal(alloc_calls(), calls);
	dump_free(&d);
	world_fini(&w);
}

static void a_mapping_that_was_got_outlives_its_unmapping(void **state)
{
	struct world w;
	struct lf_mapping *m, *again;

	world_init(&w, NULL);
	world_do(&w, "map a4+8:2!3");
	m = lf_vm_lookup_get(w.vm, 7 * PAGE);
	again = lf_mapping_get(m);
	assert_ptr_equal(again, m);
	world_do(&w, "unmap 0+64");
	assert_null(lf_vm_lookup_get(w.vm, 7 * PAGE));
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_true(m->va == 4 * PAGE && m->size == 8 * PAGE && m->offset == 2 * PAGE && m->flags == 3);
	lf_mapping_put(again);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(m->vm_bo->bo->size, WORLD_BO_PAGES * PAGE);
	lf_mapping_put(m);
	world_fini(&w);
}

/* --- Numbers ---------------------------------------------------------------------------------------------------------------------- */

static void the_version_rises_by_one_with_each_change(void **state)
{
	struct world w;
	uint64_t version;

	world_init(&w, NULL);
	version = stats_of(w.vm).version;
	for (unsigned i = 1; i <= 20; i++) {
		world_do(&w, i % 2 ? "map a0+8:0 map b20+4:0" : "unmap 0+30");
		assert_int_equal(stats_of(w.vm).version, version + i);
	}
	world_fini(&w);
}

static void counts_come_back_to_those_of_an_empty_vm(void **state)
{
	struct world w;
	struct lf_vm_stats empty, full, after;
	uint64_t random = test_seed();

	world_init(&w, NULL);
	empty = stats_of(w.vm);
	fill_at_random(&w, &random, 2000, 40);
	full = stats_of(w.vm);
	assert_true(full.mappings > 1900 && full.nodes > empty.nodes && full.bytes > empty.bytes);
	unmap_now(w.vm, 0, UINT64_C(1) << 63);
	unmap_now(w.vm, UINT64_C(1) << 63, UINT64_C(1) << 63);
	after = stats_of(w.vm);
	assert_int_equal(after.mappings, 0);
	assert_int_equal(after.nodes, empty.nodes);
	assert_true(after.bytes < empty.bytes + 64); /* a node keeps some room */
	assert_int_equal(after.pinned, 0);
	world_fini(&w);
}

/* --- Held versions ----------------------------------------------------------------------------------------------------------------- */

static void a_held_version_stays_as_it_is(void **state)
{
	struct dump then = { NULL, 0, 0 }, now = { NULL, 0, 0 };
	struct lf_held *held;
	struct lf_view view;
	struct world w;

	world_init(&w, NULL);
	world_do(&w, "map a0+8:0 map b20+4:0 map -40+4 map c100000+64:0");
	dump_vm(&then, w.vm);
	assert_int_equal(lf_vm_hold(w.vm, &held), 0);
	assert_int_equal(stats_of(w.vm).held, 1);
	assert_int_equal(stats_of(w.vm).pinned, 0);
	lf_held_view(held, &view);
	assert_int_equal(view.version, stats_of(w.vm).version);
	world_do(&w, "unmap 0+1000000 map d0+8:0");
	world_do(&w, "map a0+8:0 map b20+4:0");
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_true(stats_of(w.vm).pinned >= 4);
	lf_held_view(held, &view);
	dump_view(&now, &view);
	assert_true(dump_equal(&then, &now));
	check_everywhere(&view, &then);
	lf_held_put(held);
	assert_int_equal(stats_of(w.vm).held, 0);
	assert_int_equal(stats_of(w.vm).pinned, 0);
	dump_free(&then);
	dump_free(&now);
	world_fini(&w);
}

static int hold_one(void *arg)
{
	struct lf_held *held;
	int error = lf_vm_hold(arg, &held);

	if (error == 0)
		lf_held_put(held);
	return error;
}

static void holding_fails_without_memory(void **state)
{
	struct world w;

	world_init(&w, NULL);
	world_do(&w, "map a0+8:0");
	assert_true(alloc_fail_each(hold_one, w.vm) > 0);
	assert_int_equal(stats_of(w.vm).held, 0);
	world_fini(&w);
}

/* Versions are held and let go in every order; each shows what was there when it was taken. */
static void versions_are_let_go_in_any_order(void **state)
{
	enum { N = 24 };
	static const unsigned steps[] = { 1, 5, 7, 11, 13, 23 }; /* none has a divisor of N */
	struct lf_held *held[N];
	struct text then[N], now;
	struct lf_view view;
	char script[64];
	struct world w;

	world_init(&w, NULL);
	for (size_t s = 0; s < sizeof(steps) / sizeof(steps[0]); s++) {
		unsigned step = steps[s];

		for (unsigned i = 0; i < N; i++) {
			snprintf(script, sizeof(script), "map %c%u+3:0 unmap %u+1", "abcd"[i % 4], i * 2 % 17, i * 5 % 19);
			world_do(&w, script);
			text_vm(&then[i], &w);
			assert_int_equal(lf_vm_hold(w.vm, &held[i]), 0);
		}
		world_do(&w, "unmap 0+64");
		assert_int_equal(stats_of(w.vm).held, N);
		for (unsigned i = 0; i < N; i++) {
			unsigned k = i * step % N;

			lf_held_view(held[k], &view);
			text_view(&now, &w, &view);
			assert_string_equal(now.s, then[k].s);
			lf_held_put(held[k]);
			assert_int_equal(lf_reclaim_barrier(), 0);
		}
		assert_int_equal(stats_of(w.vm).held, 0);
		assert_int_equal(stats_of(w.vm).pinned, 0);
		assert_int_equal(stats_of(w.vm).mappings, 0);
	}
	world_fini(&w);
}

/* What two versions share is kept by either alone. */
static void what_two_held_versions_share_stays_for_the_one_that_is_left(void **state)
{
	struct lf_held *first, *second;
	struct lf_view view;
	struct world w;
	struct text t;

	for (int order = 0; order < 2; order++) {
		world_init(&w, NULL);
		world_do(&w, "map a0+8:0 map b20+4:0");
		assert_int_equal(lf_vm_hold(w.vm, &first), 0);
		world_do(&w, "unmap 20+4 map c30+4:0");
		assert_int_equal(lf_vm_hold(w.vm, &second), 0);
		world_do(&w, "unmap 0+64");
		lf_held_put(order ? second : first);
		assert_int_equal(lf_reclaim_barrier(), 0);
		lf_held_view(order ? first : second, &view);
		text_view(&t, &w, &view);
		assert_string_equal(t.s, order ? "a0+8:0 b20+4:0" : "a0+8:0 c30+4:0");
		lf_held_put(order ? first : second);
		assert_int_equal(stats_of(w.vm).pinned, 0);
		world_fini(&w);
	}
}

/* Each update of the loop changes one of @spread mappings. */
static void update(struct world *w, uint64_t i, uint64_t spread)
{
	map_now(w->vm, w->vm_bo[i % 4], (i * 7919 % spread) * 16 * PAGE, PAGE, (i & 1023) * PAGE);
}

static void one_version_held_through_a_million_updates_pins_what_it_can_see_and_no_more(void **state)
{
	enum { SPREAD = 1000 };
	long updates = test_rounds(test_is_sanitized() ? 100000 : 1000000);
	struct dump then = { NULL, 0, 0 }, now = { NULL, 0, 0 };
	struct lf_vm_stats before, after;
	struct lf_held *held;
	struct lf_view view;
	struct world w;
	long live;

	world_init(&w, NULL);
	for (unsigned i = 0; i < SPREAD; i++)
		update(&w, i, SPREAD);
	assert_int_equal(lf_vm_hold(w.vm, &held), 0);
	dump_vm(&then, w.vm);
	before = stats_of(w.vm);
	assert_int_equal(lf_reclaim_barrier(), 0);
	live = alloc_live();
	for (long i = 0; i < updates; i++)
		update(&w, (uint64_t)i + SPREAD + 1, SPREAD);
	assert_int_equal(lf_reclaim_barrier(), 0);
	after = stats_of(w.vm);
	test_note("%ld updates: pinned %" PRIu64 " of a version with %" PRIu64 " nodes and %" PRIu64 " mappings; %ld blocks more", updates,
		after.pinned, before.nodes, before.mappings, alloc_live() - live);
	assert_int_equal(before.mappings, SPREAD);
	assert_int_equal(after.mappings, SPREAD);
	assert_true(after.pinned <= before.nodes + before.mappings);
	/* all of it was replaced but for a node or two; blocks: what is pinned, and what is there anew */
	assert_true(updates < 10 * SPREAD || after.pinned > before.mappings);
	assert_true(alloc_live() - live <= (long)after.pinned + 64);
	lf_held_view(held, &view);
	dump_view(&now, &view);
	assert_true(dump_equal(&then, &now));
	lf_held_put(held);
	assert_int_equal(stats_of(w.vm).pinned, 0);
	dump_free(&then);
	dump_free(&now);
	world_fini(&w);
}

static void a_held_version_of_a_vm_that_was_closed_and_put_stays(void **state)
{
	struct dump then = { NULL, 0, 0 }, now = { NULL, 0, 0 };
	struct lf_held *held;
	struct lf_view view;
	struct world w;

	world_init(&w, NULL);
	world_do(&w, "map a0+8:0 map b20+4:0 map -40+4");
	assert_int_equal(lf_vm_hold(w.vm, &held), 0);
	dump_vm(&then, w.vm);
	world_fini(&w);
	assert_int_equal(lf_reclaim_barrier(), 0);
	lf_held_view(held, &view);
	dump_view(&now, &view);
	assert_true(dump_equal(&then, &now));
	assert_int_equal(now.all[0].m->vm_bo->bo->size, WORLD_BO_PAGES * PAGE);
	dump_free(&then);
	dump_free(&now);
	lf_held_put(held); /* the last of the VM; the teardown sees that nothing is left */
}

static void the_empty_version_of_a_closed_vm_can_be_held(void **state)
{
	struct lf_held *held;
	struct lf_view view;
	struct world w;

	world_init(&w, NULL);
	world_do(&w, "map a0+8:0");
	vm_close(w.vm);
	assert_int_equal(lf_vm_hold(w.vm, &held), 0);
	lf_held_view(held, &view);
	assert_null(lf_view_next(&view, 0));
	lf_held_put(held);
	world_fini(&w);
}

static void *put_elsewhere(void *arg)
{
	lf_held_put(arg);
	return NULL;
}

static void a_version_may_be_let_go_anywhere(void **state)
{
	struct lf_held *held;
	struct world w;

	world_init(&w, NULL);
	for (int i = 0; i < 4; i++) {
		world_do(&w, "map a0+8:0");
		assert_int_equal(lf_vm_hold(w.vm, &held), 0);
		world_do(&w, "unmap 0+8");
		if (i == 0) {
			lf_read_lock();
			lf_held_put(held);
			lf_read_unlock();
		} else if (i == 1) {
			vm_lock(w.vm);
			lf_held_put(held);
			vm_unlock(w.vm);
		} else if (i == 2) {
			thread_run(put_elsewhere, held, 0);
		} else {
			struct lf_txn txn;

			vm_lock(w.vm);
			assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
			assert_int_equal(requests(&w, &txn, "map a0+8:0"), 0);
			lf_held_put(held);
			lf_txn_commit(&txn);
			vm_unlock(w.vm);
		}
		assert_int_equal(stats_of(w.vm).held, 0);
		assert_int_equal(stats_of(w.vm).pinned, 0);
	}
	world_fini(&w);
}

static void a_version_held_while_a_transaction_is_open_is_the_one_before_it(void **state)
{
	struct lf_held *held;
	struct lf_view view;
	struct lf_txn txn;
	struct world w;
	struct text t;

	for (int commit = 0; commit < 2; commit++) {
		world_init(&w, NULL);
		world_do(&w, "map a0+8:0");
		vm_lock(w.vm);
		assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
		assert_int_equal(requests(&w, &txn, "map b2+2:0"), 0);
		assert_int_equal(lf_vm_hold(w.vm, &held), 0);
		assert_int_equal(requests(&w, &txn, "unmap 5+1"), 0);
		if (commit)
			lf_txn_commit(&txn);
		else
			lf_txn_abort(&txn);
		vm_unlock(w.vm);
		world_do(&w, "unmap 0+8");
		assert_int_equal(lf_reclaim_barrier(), 0);
		lf_held_view(held, &view);
		text_view(&t, &w, &view);
		assert_string_equal(t.s, "a0+8:0");
		lf_held_put(held);
		assert_int_equal(stats_of(w.vm).pinned, 0);
		world_fini(&w);
	}
}

/* --- Ends --------------------------------------------------------------------------------------------------------------------------- */

struct ending {
	unsigned releases, mappings, vm_bos, wrong;
	pthread_t thread;
};

static void ending_note(struct ending *e, unsigned *count)
{
	if (lf_read_held() || pthread_equal(pthread_self(), e->thread) || (count != &e->releases && count_get(&e->releases)))
		count_up(&e->wrong);
	count_up(count);
}

static void ending_release(void *data)
{
	struct ending *e = data;
	ending_note(e, &e->releases);
}

static void ending_mapping(struct lf_mapping *m, void *data)
{
	struct ending *e = data;
	ending_note(e, &e->mappings);
}

static void ending_vm_bo(struct lf_vm_bo *vm_bo, void *data)
{
	struct ending *e = data;
	ending_note(e, &e->vm_bos);
}

static const struct lf_vm_ops ending_ops = { .release = ending_release, .mapping_release = ending_mapping, .vm_bo_release = ending_vm_bo };

static struct lf_vm *ending_vm(struct ending *e)
{
	const struct lf_vm_desc desc = { .name = "ending", .ops = &ending_ops, .data = e };

	memset(e, 0, sizeof(*e));
	e->thread = pthread_self();
	return vm_new(&desc);
}

static void ending_expect(const struct ending *e, unsigned releases, unsigned mappings, unsigned vm_bos)
{
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&e->releases), releases);
	assert_int_equal(count_get(&e->mappings), mappings);
	assert_int_equal(count_get(&e->vm_bos), vm_bos);
	assert_int_equal(count_get(&e->wrong), 0);
}

static void close_breaks_the_cycle_of_a_vm_and_its_mappings(void **state)
{
	struct ending e;
	struct lf_vm *vm = ending_vm(&e);
	unsigned released = 0;
	struct lf_bo *bo = NULL;
	struct lf_vm_bo *vm_bo;
	struct lf_resv *resv = lf_resv_get(lf_vm_resv(vm));

	assert_int_equal(bo_create(64 * PAGE, NULL, &released, &bo), 0);
	vm_bo = obtain(vm, bo);
	map_now(vm, vm_bo, 0, 4 * PAGE, 0);
	map_now(vm, NULL, 8 * PAGE, 4 * PAGE, 0);
	lf_vm_bo_put(vm_bo);
	lf_bo_put(bo);
	lf_vm_put(vm);
	ending_expect(&e, 0, 0, 0); /* nobody has it but its mappings */
	assert_non_null(look(vm, 0));
	assert_int_equal(stats_of(vm).mappings, 2);
	assert_int_equal(lf_resv_lock(resv, NULL), 0);
	assert_int_equal(lf_vm_close(vm), 0);
	lf_resv_unlock(resv);
	lf_resv_put(resv);
	ending_expect(&e, 1, 2, 1);
	assert_int_equal(count_get(&released), 1);
}

static void a_closed_vm_is_empty_and_says_so(void **state)
{
	struct ending e;
	struct lf_vm *vm = ending_vm(&e);
	struct lf_bo *bo = bo_new(PAGE, NULL);
	struct lf_vm_bo *vm_bo = obtain(vm, bo), *again = NULL;

	map_now(vm, NULL, 0, PAGE, 0);
	map_now(vm, vm_bo, PAGE, PAGE, 0);
	long calls = alloc_calls();
	vm_close(vm);
	vm_close(vm); /* again: nothing */
	assert_int_equal(alloc_calls(), calls);
	assert_int_equal(lf_vm_error(vm), -ESHUTDOWN);
	assert_null(look(vm, 0));
	assert_null(look(vm, PAGE));
	assert_int_equal(stats_of(vm).mappings, 0);
	assert_int_equal(lf_vm_bo_obtain(vm, bo, &again), -ESHUTDOWN);
	assert_null(again);
	ending_expect(&e, 0, 2, 0);
	lf_vm_bo_put(vm_bo);
	lf_bo_put(bo);
	ending_expect(&e, 0, 2, 1);
	lf_vm_put(vm);
	ending_expect(&e, 1, 2, 1);
}

static void close_needs_the_lock_and_no_open_transaction(void **state)
{
	struct world w;
	struct lf_txn txn;

	world_init(&w, NULL);
	world_do(&w, "map a0+8:0");
	assert_int_equal(lf_vm_close(w.vm), -EINVAL);
	expect_misuse(1);
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(lf_vm_close(w.vm), -EBUSY);
	expect_misuse(1);
	lf_txn_abort(&txn);
	vm_unlock(w.vm);
	expect_layout(&w, "a0+8:0");
	world_fini(&w);
}

/* What is put last, and where. */
struct last_puts {
	struct lf_fence_cb cb;
	struct lf_vm *vm;
	struct lf_bo *bo;
	struct lf_vm_bo *vm_bo;
	struct lf_mapping *m;
};

static void put_all(struct last_puts *p, int order)
{
	for (int i = 0; i < 4; i++) {
		switch ((i + order) % 4) {
		case 0:
			lf_vm_put(p->vm);
			break;
		case 1:
			lf_bo_put(p->bo);
			break;
		case 2:
			lf_vm_bo_put(p->vm_bo);
			break;
		case 3:
			lf_mapping_put(p->m);
			break;
		}
	}
}

static void put_all_inside(struct lf_fence *f, struct lf_fence_cb *cb)
{
	put_all((struct last_puts *)(void *)cb, (int)lf_fence_timestamp(f));
}

/* A VM that is closed, of which there are these four references. */
static void last_puts_init(struct last_puts *p, struct ending *e, unsigned *released)
{
	memset(p, 0, sizeof(*p));
	*released = 0;
	p->vm = ending_vm(e);
	assert_int_equal(bo_create(16 * PAGE, NULL, released, &p->bo), 0);
	p->vm_bo = obtain(p->vm, p->bo);
	map_now(p->vm, p->vm_bo, 0, 8 * PAGE, 0);
	map_now(p->vm, p->vm_bo, 8 * PAGE, 8 * PAGE, 0);
	p->m = lf_vm_lookup_get(p->vm, 0);
	vm_close(p->vm);
	ending_expect(e, 0, 1, 0);
}

static void the_last_references_may_be_put_inside_a_callback_in_any_order(void **state)
{
	for (int order = 0; order < 4; order++) {
		struct last_puts p;
		struct ending e;
		struct lf_fence *f;
		unsigned released;

		last_puts_init(&p, &e, &released);
		assert_int_equal(lf_fence_create(&f), 0);
		assert_int_equal(lf_fence_add_callback(f, &p.cb, put_all_inside), 0);
		lf_fence_signal_at(f, 0, order);
		lf_fence_put(f);
		ending_expect(&e, 1, 2, 1);
		assert_int_equal(count_get(&released), 1);
	}
}

static void the_last_references_may_be_put_inside_a_read_section_in_any_order(void **state)
{
	for (int order = 0; order < 4; order++) {
		struct last_puts p;
		struct ending e;
		unsigned released;

		last_puts_init(&p, &e, &released);
		lf_read_lock();
		put_all(&p, order);
		assert_int_equal(count_get(&e.releases) + count_get(&e.vm_bos) + count_get(&released), 0);
		lf_read_unlock();
		ending_expect(&e, 1, 2, 1);
		assert_int_equal(count_get(&released), 1);
	}
}

static void the_last_references_may_be_put_with_the_reservations_locked_in_any_order(void **state)
{
	for (int order = 0; order < 4; order++) {
		struct last_puts p;
		struct ending e;
		struct lf_resv *resv;
		unsigned released;

		last_puts_init(&p, &e, &released);
		resv = lf_resv_get(lf_vm_resv(p.vm));
		assert_int_equal(lf_resv_lock(resv, NULL), 0);
		put_all(&p, order);
		ending_expect(&e, 1, 2, 1);
		assert_int_equal(count_get(&released), 1);
		lf_resv_unlock(resv);
		lf_resv_put(resv);
	}
}

static void putting_allocates_nothing(void **state)
{
	struct last_puts p;
	struct ending e;
	unsigned released;
	long calls;

	last_puts_init(&p, &e, &released);
	calls = alloc_calls();
	put_all(&p, 0);
	assert_int_equal(alloc_calls(), calls);
	ending_expect(&e, 1, 2, 1);
}

static void a_buffer_outlives_the_vm_whose_reservation_it_shares(void **state)
{
	struct world w;
	struct lf_bo *bo = NULL;

	world_init(&w, NULL);
	bo = lf_bo_get(w.bo[0]);
	world_do(&w, "map a0+8:0");
	world_fini(&w);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(lf_resv_lock(bo->resv, NULL), 0);
	lf_resv_unlock(bo->resv);
	lf_bo_put(bo);
}

/* --- Bans --------------------------------------------------------------------------------------------------------------------------- */

static void a_banned_vm_refuses_changes_with_the_first_error_and_is_looked_at_as_before(void **state)
{
	struct world w;
	struct lf_txn txn;
	struct lf_held *held;

	world_init(&w, NULL);
	world_do(&w, "map a0+8:0");
	lf_vm_ban(w.vm, -EIO);
	lf_vm_ban(w.vm, -ENODEV);
	assert_int_equal(lf_vm_error(w.vm), -EIO);
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), -EIO);
	vm_unlock(w.vm);
	expect_layout(&w, "a0+8:0");
	assert_int_equal(lf_vm_hold(w.vm, &held), 0);
	lf_held_put(held);
	world_fini(&w);
}

static void a_vm_is_not_banned_with_what_is_no_error(void **state)
{
	struct world w;

	world_init(&w, NULL);
	lf_vm_ban(w.vm, 5);
	assert_true(log_count(LF_LOG_MISUSE) > 0);
	assert_int_equal(lf_vm_error(w.vm), -EINVAL); /* as with fences */
	log_reset();
	world_fini(&w);
}

/* --- Providers ---------------------------------------------------------------------------------------------------------------------- */

static void closing_a_provider_names_its_vms_and_bans_them(void **state)
{
	struct ending e;
	struct lf_vm_desc desc = { .name = "the-vm", .ops = &ending_ops, .data = &e };
	struct lf_provider *p;
	struct lf_vm *vm, *late = NULL;
	struct lf_held *held;

	memset(&e, 0, sizeof(e));
	e.thread = pthread_self();
	assert_int_equal(lf_provider_create("driver", &p), 0);
	desc.provider = p;
	vm = vm_new(&desc);
	map_now(vm, NULL, 0, PAGE, 0);
	assert_int_equal(lf_vm_hold(vm, &held), 0);
	assert_int_equal(lf_provider_close(p, 0), -ETIME);
	assert_true(log_contains("the-vm"));
	assert_int_equal(lf_vm_error(vm), -ENODEV);
	assert_int_equal(lf_vm_create(&desc, &late), -ESHUTDOWN);
	assert_null(late);
	assert_non_null(look(vm, 0));
	vm_end(vm);
	assert_int_equal(lf_provider_close(p, lf_now() + 20000000), -ETIME); /* held */
	assert_int_equal(count_get(&e.releases), 0);
	lf_held_put(held);
	assert_int_equal(lf_provider_close(p, lf_now() + INT64_C(10000000000)), 0);
	assert_int_equal(count_get(&e.releases), 1); /* 0 means that no hook runs or will run */
	assert_int_equal(count_get(&e.mappings), 1);
	assert_int_equal(count_get(&e.wrong), 0);
	lf_provider_put(p);
	log_reset();
}

static void a_provider_without_vms_closes_at_once(void **state)
{
	struct ending e;
	struct lf_vm_desc desc = { .name = "gone", .ops = &ending_ops, .data = &e };
	struct lf_provider *p;

	memset(&e, 0, sizeof(e));
	e.thread = pthread_self();
	assert_int_equal(lf_provider_create("driver", &p), 0);
	desc.provider = p;
	vm_end(vm_new(&desc));
	ending_expect(&e, 1, 0, 0);
	assert_int_equal(lf_provider_close(p, 0), 0);
	lf_provider_put(p);
}

static void what_is_missing_is_reported(void **state)
{
	struct lf_vm *vm = vm_new(&(struct lf_vm_desc){ .name = "vm" });
	struct lf_vm_stats stats;
	struct lf_held *held;
	struct lf_bo *bo = bo_new(PAGE, NULL);

	assert_int_equal(lf_vm_create(NULL, &vm), -EINVAL);
	assert_int_equal(lf_vm_create(&(struct lf_vm_desc){ .name = "vm" }, NULL), -EINVAL);
	lf_vm_ban(NULL, -EIO);
	lf_vm_ban(vm, 0);
	assert_int_equal(lf_vm_close(NULL), -EINVAL);
	lf_vm_get_stats(NULL, &stats);
	lf_vm_get_stats(vm, NULL);
	assert_int_equal(lf_vm_hold(NULL, &held), -EINVAL);
	assert_int_equal(lf_vm_hold(vm, NULL), -EINVAL);
	assert_int_equal(log_count(LF_LOG_MISUSE), 9);
	log_reset();
	lf_bo_put(bo);
	lf_vm_put(vm);
}

static void a_vm_that_was_forgotten_is_listed(void **state)
{
	struct lf_vm *vm;

	assert_int_equal(lf_fini(), 0);
	lf_track(LF_TRACK_OBJECTS);
	vm = vm_new(&(struct lf_vm_desc){ .name = "forgotten" });
	assert_int_not_equal(lf_fini(), 0);
	assert_true(log_contains("vm") && log_contains("forgotten"));
	lf_track(0);
	lf_vm_put(vm);
	log_reset();
	fresh_library();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(a_vm_is_made_empty),
		TEST_WARM(wrong_descriptors_are_refused),
		TEST_WARM(making_a_vm_fails_without_memory_and_leaks_nothing),
		TEST_WARM(a_vm_shares_the_reservation_that_it_is_given),
		TEST_WARM(a_reservation_that_is_not_counted_is_refused),
		TEST_WARM(ranges_across_all_levels_of_a_tree_are_found),
		TEST_WARM(the_last_byte_of_64_bits_can_be_mapped_with_every_granule),
		TEST_WARM(two_mappings_fill_all_64_bits),
		TEST_WARM(a_vm_has_the_range_that_it_was_given),
		TEST_WARM(a_sparse_mapping_has_no_buffer),
		TEST_WARM(all_ways_to_look_agree),
		TEST_WARM(all_ways_to_look_agree_in_a_vm_that_has_a_part_of_the_addresses),
		TEST_WARM(a_view_is_one_version_whatever_is_committed_meanwhile),
		TEST_WARM(looking_allocates_nothing),
		TEST_WARM(a_mapping_that_was_got_outlives_its_unmapping),
		TEST_WARM(the_version_rises_by_one_with_each_change),
		TEST_WARM(counts_come_back_to_those_of_an_empty_vm),
		TEST_WARM(a_held_version_stays_as_it_is),
		TEST_WARM(holding_fails_without_memory),
		TEST_WARM(versions_are_let_go_in_any_order),
		TEST_WARM(what_two_held_versions_share_stays_for_the_one_that_is_left),
		TEST_WARM(one_version_held_through_a_million_updates_pins_what_it_can_see_and_no_more),
		TEST_WARM(a_held_version_of_a_vm_that_was_closed_and_put_stays),
		TEST_WARM(the_empty_version_of_a_closed_vm_can_be_held),
		TEST_WARM(a_version_may_be_let_go_anywhere),
		TEST_WARM(a_version_held_while_a_transaction_is_open_is_the_one_before_it),
		TEST_WARM(close_breaks_the_cycle_of_a_vm_and_its_mappings),
		TEST_WARM(a_closed_vm_is_empty_and_says_so),
		TEST_WARM(close_needs_the_lock_and_no_open_transaction),
		TEST_WARM(the_last_references_may_be_put_inside_a_callback_in_any_order),
		TEST_WARM(the_last_references_may_be_put_inside_a_read_section_in_any_order),
		TEST_WARM(the_last_references_may_be_put_with_the_reservations_locked_in_any_order),
		TEST_WARM(putting_allocates_nothing),
		TEST_WARM(a_buffer_outlives_the_vm_whose_reservation_it_shares),
		TEST_WARM(a_banned_vm_refuses_changes_with_the_first_error_and_is_looked_at_as_before),
		TEST_WARM(a_vm_is_not_banned_with_what_is_no_error),
		TEST_WARM(closing_a_provider_names_its_vms_and_bans_them),
		TEST_WARM(a_provider_without_vms_closes_at_once),
		TEST(what_is_missing_is_reported),
		TEST_FRESH(a_vm_that_was_forgotten_is_listed),
	};
	return TEST_MAIN(tests);
}
