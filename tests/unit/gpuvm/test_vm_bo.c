/* SPDX-License-Identifier: MIT */
/*
 * VM_BOs: one a pair; closed from anywhere at once; evicted and validated; what of a VM is locked for a job.
 *
 * Oracle of what was closed: views from then on show nothing of the buffer, those that are held show all of it, and the operations of one
 * transaction name each of its mappings once.
 */
#include "vm_testing.h"

#include <sched.h>

/* --- One a pair ----------------------------------------------------------------------------------------------------------------- */

static void obtaining_twice_gives_the_same(void **state)
{
	struct world w;
	struct lf_vm_bo *again, *found;

	world_init(&w, NULL);
	again = obtain(w.vm, w.bo[0]);
	found = lf_vm_bo_find(w.vm, w.bo[0]);
	assert_ptr_equal(again, w.vm_bo[0]);
	assert_ptr_equal(found, w.vm_bo[0]);
	assert_ptr_not_equal(w.vm_bo[0], w.vm_bo[1]);
	assert_ptr_equal(lf_vm_bo_get(found), found);
	lf_vm_bo_put(found);
	lf_vm_bo_put(found);
	lf_vm_bo_put(again);
	assert_null(lf_vm_bo_get(NULL));
	lf_vm_bo_put(NULL);
	world_fini(&w);
}

static void a_buffer_has_one_in_each_vm(void **state)
{
	struct world v, w;
	struct lf_vm_bo *in_w;

	world_init(&v, NULL);
	world_init(&w, NULL);
	assert_null(lf_vm_bo_find(w.vm, v.bo[0]));
	in_w = obtain(w.vm, v.bo[0]);
	assert_ptr_not_equal(in_w, v.vm_bo[0]);
	world_do(&v, "map a0+4:0");
	map_now(w.vm, in_w, 8 * PAGE, 4 * PAGE, 0);
	lf_vm_bo_close(v.vm_bo[0]);
	assert_null(look(v.vm, 0));
	assert_non_null(look(w.vm, 8 * PAGE));
	lf_vm_bo_put(in_w);
	world_fini(&v);
	assert_non_null(look(w.vm, 8 * PAGE));
	world_fini(&w);
}

static void one_without_mappings_is_part_of_the_vm_as_long_as_it_is_held(void **state)
{
	struct world w;
	struct lf_bo *bo;
	struct lf_vm_bo *vm_bo, *found;

	world_init(&w, NULL);
	bo = bo_new(4 * PAGE, NULL);
	assert_null(lf_vm_bo_find(w.vm, bo));
	vm_bo = obtain(w.vm, bo);
	found = lf_vm_bo_find(w.vm, bo);
	assert_ptr_equal(found, vm_bo);
	lf_vm_bo_put(found);
	lf_vm_bo_put(vm_bo);
	assert_null(lf_vm_bo_find(w.vm, bo));
	vm_bo = obtain(w.vm, bo);
	map_now(w.vm, vm_bo, 0, PAGE, 0);
	lf_vm_bo_put(vm_bo);
	found = lf_vm_bo_find(w.vm, bo); /* its mapping has it */
	assert_ptr_equal(found, vm_bo);
	lf_vm_bo_put(found);
	unmap_now(w.vm, 0, PAGE);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_null(lf_vm_bo_find(w.vm, bo));
	lf_bo_put(bo);
	world_fini(&w);
}

static void wrong_arguments_are_refused(void **state)
{
	struct world w;
	struct lf_vm_bo *vm_bo = NULL;

	world_init(&w, NULL);
	assert_int_equal(lf_vm_bo_obtain(NULL, w.bo[0], &vm_bo), -EINVAL);
	assert_int_equal(lf_vm_bo_obtain(w.vm, NULL, &vm_bo), -EINVAL);
	assert_int_equal(lf_vm_bo_obtain(w.vm, w.bo[0], NULL), -EINVAL);
	assert_null(vm_bo);
	expect_misuse(3);
	lf_vm_ban(w.vm, -EIO);
	assert_int_equal(lf_vm_bo_obtain(w.vm, w.bo[0], &vm_bo), -EIO);
	world_fini(&w);
}

static int obtain_one(void *arg)
{
	struct world *w = arg;
	struct lf_vm_bo *vm_bo;
	struct lf_bo *bo;
	int error = bo_create(PAGE, NULL, NULL, &bo);

	if (error != 0)
		return error;
	error = lf_vm_bo_obtain(w->vm, bo, &vm_bo);
	if (error == 0)
		lf_vm_bo_put(vm_bo);
	lf_bo_put(bo);
	return error;
}

static void obtaining_fails_without_memory(void **state)
{
	struct world w;

	world_init(&w, NULL);
	assert_true(alloc_fail_each(obtain_one, &w) > 1);
	world_fini(&w);
}

/* Threads that obtain the pair at once, again and again from nothing. Healthy: all get the same one, every time. */
enum { RACERS = 4 };

struct race {
	struct world w;
	struct lf_bo *bo;
	struct gate gate;
	long rounds;
	struct lf_vm_bo *got[RACERS];
	unsigned next;
};

static void *race_to_obtain(void *arg)
{
	struct race *r = arg;
	unsigned me = __atomic_fetch_add(&r->next, 1, __ATOMIC_SEQ_CST);

	for (long i = 0; i < r->rounds; i++) {
		gate_wait(&r->gate);
		must(lf_vm_bo_obtain(r->w.vm, r->bo, &r->got[me]) == 0);
		gate_wait(&r->gate);
		for (int k = 0; k < RACERS; k++)
			must(r->got[k] == r->got[me]);
		gate_wait(&r->gate);
		lf_vm_bo_put(r->got[me]);
	}
	return NULL;
}

static void threads_that_obtain_at_once_get_the_same(void **state)
{
	static struct race r;
	pthread_t threads[RACERS];

	memset(&r, 0, sizeof(r));
	world_init(&r.w, NULL);
	r.bo = bo_new(PAGE, NULL);
	r.rounds = test_rounds(1000);
	gate_init(&r.gate, RACERS);
	for (int i = 0; i < RACERS; i++)
		threads[i] = thread_start(race_to_obtain, &r, 0);
	for (int i = 0; i < RACERS; i++)
		thread_join(threads[i]);
	gate_fini(&r.gate);
	assert_null(lf_vm_bo_find(r.w.vm, r.bo));
	lf_bo_put(r.bo);
	world_fini(&r.w);
}

/* One thread closes what others obtain, map and look at. Healthy: a VM_BO that was found is never closed twice, and all ends. */
static void *race_to_close(void *arg)
{
	struct race *r = arg;

	for (long i = 0; i < r->rounds; i++) {
		struct lf_vm_bo *vm_bo = lf_vm_bo_find(r->w.vm, r->bo);

		if (vm_bo) {
			lf_vm_bo_close(vm_bo);
			lf_vm_bo_put(vm_bo);
		}
		sched_yield();
	}
	__atomic_store_n(&r->next, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void mapping_and_closing_at_once_leaves_nothing_behind(void **state)
{
	static struct race r;
	unsigned mapped = 0, refused = 0, reaped = 0;
	pthread_t closer;
	struct lf_txn txn;

	memset(&r, 0, sizeof(r));
	world_init(&r.w, NULL);
	r.bo = bo_new(PAGE, NULL);
	r.rounds = test_rounds(1000);
	closer = thread_start(race_to_close, &r, 0);
	while (__atomic_load_n(&r.next, __ATOMIC_SEQ_CST) == 0) {
		struct lf_vm_bo *vm_bo = obtain(r.w.vm, r.bo);

		vm_lock(r.w.vm);
		must(lf_txn_begin(&txn, r.w.vm) == 0);
		int error = txn_map(&txn, vm_bo, (mapped % 64) * PAGE, PAGE, 0);
		must(error == 0 || error == -ENOENT);
		if (error == 0)
			lf_txn_commit(&txn);
		else
			lf_txn_abort(&txn);
		vm_unlock(r.w.vm);
		mapped += error == 0;
		refused += error != 0;
		lf_vm_bo_put(vm_bo);
		if ((mapped + refused) % 16 == 0)
			reaped += reap_now(r.w.vm);
	}
	thread_join(closer);
	test_note("%u mapped, %u refused, %u reaped", mapped, refused, reaped);
	struct lf_vm_bo *last = lf_vm_bo_find(r.w.vm, r.bo);
	if (last)
		lf_vm_bo_close(last);
	lf_vm_bo_put(last);
	reap_now(r.w.vm);
	assert_int_equal(stats_of(r.w.vm).mappings, 0);
	lf_bo_put(r.bo);
	world_fini(&r.w);
}

/* --- Its mappings ------------------------------------------------------------------------------------------------------------------ */

static unsigned count_mappings(struct lf_vm *vm, const struct lf_vm_bo *vm_bo)
{
	unsigned n = 0;

	vm_lock(vm);
	for (struct lf_mapping *m = NULL; (m = lf_vm_bo_next_mapping(vm_bo, m)) != NULL; n++) {
		must(m->vm_bo == vm_bo);
		must(lf_vm_lookup(vm, m->va) == m);
	}
	vm_unlock(vm);
	return n;
}

static void its_mappings_can_be_walked(void **state)
{
	struct world w;
	struct lf_txn txn;

	world_init(&w, NULL);
	assert_int_equal(count_mappings(w.vm, w.vm_bo[0]), 0);
	world_do(&w, "map a0+8:0 map b8+8:0 map a16+8:0 map a100000+8:0");
	assert_int_equal(count_mappings(w.vm, w.vm_bo[0]), 3);
	assert_int_equal(count_mappings(w.vm, w.vm_bo[1]), 1);
	world_do(&w, "unmap 2+2 map b16+2:0");
	assert_int_equal(count_mappings(w.vm, w.vm_bo[0]), 4);
	assert_int_equal(count_mappings(w.vm, w.vm_bo[1]), 2);
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(requests(&w, &txn, "unmap 0+64 map a70+1:0"), 0);
	lf_txn_abort(&txn);
	vm_unlock(w.vm);
	assert_int_equal(count_mappings(w.vm, w.vm_bo[0]), 4);
	world_do(&w, "unmap 0+64");
	assert_int_equal(count_mappings(w.vm, w.vm_bo[0]), 1);
	assert_int_equal(count_mappings(w.vm, w.vm_bo[1]), 0);
	world_fini(&w);
}

/* --- Closing ------------------------------------------------------------------------------------------------------------------------- */

#define MIXED "map a0+4:0 map b4+4:0 map a8+4:0 map c12+4:0 map a100000+64:0"

static void closed_mappings_are_gone_at_once_and_without_memory(void **state)
{
	struct world w;
	struct lf_view view;
	struct text t;
	long calls;

	world_init(&w, NULL);
	world_do(&w, MIXED);
	calls = alloc_calls();
	alloc_fail_all(true);
	lf_vm_bo_close(w.vm_bo[0]);
	lf_vm_bo_close(w.vm_bo[0]); /* again: nothing */
	alloc_fail_all(false);
	assert_int_equal(alloc_calls(), calls);
	expect_layout(&w, "b4+4:0 c12+4:0");
	assert_null(look(w.vm, 0));
	assert_null(lf_vm_lookup_get(w.vm, 9 * PAGE));
	assert_int_equal(stats_of(w.vm).mappings, 5);
	lf_read_lock();
	lf_vm_view(w.vm, &view);
	assert_ptr_equal(lf_view_next(&view, 0), lf_view_lookup(&view, 4 * PAGE));
	assert_ptr_equal(lf_view_next(&view, 8 * PAGE), lf_view_lookup(&view, 12 * PAGE));
	assert_ptr_equal(lf_view_prev(&view, 11 * PAGE), lf_view_lookup(&view, 4 * PAGE));
	assert_ptr_equal(lf_view_prev(&view, LAST), lf_view_lookup(&view, 12 * PAGE));
	assert_null(lf_view_adjacent_next(&view, lf_view_lookup(&view, 4 * PAGE)));
	assert_null(lf_view_adjacent_prev(&view, lf_view_lookup(&view, 4 * PAGE)));
	assert_null(lf_view_prev(&view, 3 * PAGE));
	assert_null(lf_view_next(&view, 16 * PAGE));
	lf_read_unlock();
	assert_int_equal(reap_now(w.vm), 3);
	assert_int_equal(stats_of(w.vm).mappings, 2);
	text_vm(&t, &w);
	assert_string_equal(t.s, "b4+4:0 c12+4:0");
	assert_int_equal(reap_now(w.vm), 0);
	world_fini(&w);
}

static void a_close_is_a_version_of_its_own(void **state)
{
	struct lf_held *before, *after;
	struct lf_view view, old;
	struct world w;
	struct text t;
	uint64_t version;

	world_init(&w, NULL);
	world_do(&w, MIXED);
	version = stats_of(w.vm).version;
	assert_int_equal(lf_vm_hold(w.vm, &before), 0);
	lf_read_lock();
	lf_vm_view(w.vm, &old);
	lf_vm_bo_close(w.vm_bo[0]);
	text_view(&t, &w, &old);
	assert_string_equal(t.s, "a0+4:0 b4+4:0 a8+4:0 c12+4:0 a100000+64:0");
	lf_read_unlock();
	assert_int_equal(stats_of(w.vm).version, version + 1);
	assert_int_equal(lf_vm_hold(w.vm, &after), 0);
	reap_now(w.vm);
	assert_int_equal(lf_reclaim_barrier(), 0);
	lf_held_view(before, &view);
	text_view(&t, &w, &view);
	assert_string_equal(t.s, "a0+4:0 b4+4:0 a8+4:0 c12+4:0 a100000+64:0");
	lf_held_view(after, &view);
	text_view(&t, &w, &view);
	assert_string_equal(t.s, "b4+4:0 c12+4:0");
	lf_held_put(before);
	lf_held_view(after, &view);
	text_view(&t, &w, &view);
	assert_string_equal(t.s, "b4+4:0 c12+4:0");
	lf_held_put(after);
	assert_int_equal(stats_of(w.vm).pinned, 0);
	world_fini(&w);
}

static void obtaining_after_a_close_makes_another(void **state)
{
	struct world w;
	struct lf_vm_bo *other;

	world_init(&w, NULL);
	world_do(&w, MIXED);
	lf_vm_bo_close(w.vm_bo[0]);
	assert_null(lf_vm_bo_find(w.vm, w.bo[0]));
	other = obtain(w.vm, w.bo[0]);
	assert_ptr_not_equal(other, w.vm_bo[0]);
	map_now(w.vm, other, 8 * PAGE, 4 * PAGE, 0); /* as it was: but that one is dead */
	assert_ptr_equal(look(w.vm, 8 * PAGE)->vm_bo, other);
	expect_layout(&w, "b4+4:0 a8+4:0 c12+4:0");
	lf_vm_bo_close(other);
	expect_layout(&w, "b4+4:0 c12+4:0");
	lf_vm_bo_put(other);
	assert_int_equal(reap_now(w.vm), 3);
	world_fini(&w);
}

struct closing_cb {
	struct lf_fence_cb cb;
	struct lf_vm_bo *vm_bo;
};

static void close_inside(struct lf_fence *f, struct lf_fence_cb *cb)
{
	lf_vm_bo_close(((struct closing_cb *)(void *)cb)->vm_bo);
}

static void *close_on_thread(void *arg)
{
	lf_vm_bo_close(arg);
	return NULL;
}

static void a_buffer_may_be_closed_anywhere(void **state)
{
	struct closing_cb cb = { .cb = LF_FENCE_CB_INIT };
	struct lf_fence *f;
	struct lf_txn txn;
	struct world w;

	world_init(&w, NULL);
	world_do(&w, "map a0+4:0 map b4+4:0 map c8+4:0 map d12+4:0");
	assert_int_equal(lf_fence_create(&f), 0);
	cb.vm_bo = w.vm_bo[0];
	assert_int_equal(lf_fence_add_callback(f, &cb.cb, close_inside), 0);
	lf_fence_signal(f, 0);
	lf_fence_put(f);
	expect_layout(&w, "b4+4:0 c8+4:0 d12+4:0");
	lf_read_lock();
	lf_vm_bo_close(w.vm_bo[1]);
	lf_read_unlock();
	expect_layout(&w, "c8+4:0 d12+4:0");
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(requests(&w, &txn, "unmap 9+1"), 0);
	thread_run(close_on_thread, w.vm_bo[2], 0); /* the lock and the open transaction of another thread do not matter */
	expect_layout(&w, "d12+4:0");
	lf_txn_commit(&txn);
	expect_layout(&w, "d12+4:0");
	lf_vm_bo_close(w.vm_bo[3]);
	vm_unlock(w.vm);
	expect_layout(&w, "");
	assert_int_equal(reap_now(w.vm), 5); /* a, b, two pieces of c, d */
	world_fini(&w);
}

static void what_was_mapped_in_a_transaction_during_which_it_was_closed_is_reaped(void **state)
{
	struct world w;
	struct lf_txn txn;

	world_init(&w, NULL);
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(requests(&w, &txn, "map a0+4:0 map b4+4:0"), 0);
	lf_vm_bo_close(w.vm_bo[0]);
	assert_int_equal(requests(&w, &txn, "map a8+4:0"), -ENOENT);
	lf_txn_abort(&txn);
	vm_unlock(w.vm);
	assert_int_equal(stats_of(w.vm).mappings, 0);
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(requests(&w, &txn, "map b0+4:0 map c4+4:0"), 0);
	lf_vm_bo_close(w.vm_bo[1]);
	lf_txn_commit(&txn);
	vm_unlock(w.vm);
	expect_layout(&w, "c4+4:0");
	assert_int_equal(reap_now(w.vm), 1);
	assert_int_equal(stats_of(w.vm).mappings, 1);
	world_fini(&w);
}

/* --- Reaping ------------------------------------------------------------------------------------------------------------------------- */

static void expect_ops(struct world *w, struct lf_txn *txn, const char *expected)
{
	struct text t;

	text_ops(&t, w, txn);
	assert_string_equal(t.s, expected);
}

static void each_dead_mapping_is_handed_out_once_and_again_after_an_abort(void **state)
{
	struct world w;
	struct lf_txn txn;

	world_init(&w, NULL);
	world_do(&w, MIXED);
	lf_vm_bo_close(w.vm_bo[0]);
	for (int i = 0; i < 3; i++) {
		vm_lock(w.vm);
		assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
		assert_int_equal(requests(&w, &txn, "reap reap"), 0);
		expect_ops(&w, &txn, "U a0+4:0, U a8+4:0, U a100000+64:0");
		if (i < 2)
			lf_txn_abort(&txn);
		else
			lf_txn_commit(&txn);
		vm_unlock(w.vm);
	}
	assert_int_equal(reap_now(w.vm), 0);
	world_fini(&w);
}

static void reaping_fails_without_memory_and_hands_out_all_the_next_time(void **state)
{
	struct world w;
	struct lf_txn txn;
	struct picture before = { { NULL, 0, 0 }, { 0, 0, 0, 0, 0, 0 } };
	long nth = 1;
	int error;

	world_init(&w, NULL);
	world_do(&w, MIXED " map a5000000+1:0 map a1000000000+1:0");
	lf_vm_bo_close(w.vm_bo[0]);
	picture_take(&before, w.vm);
	do {
		vm_lock(w.vm);
		assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
		alloc_fail_at(nth++);
		error = lf_txn_reap(&txn);
		alloc_fail_at(0);
		if (error == 0) {
			expect_ops(&w, &txn, "U a0+4:0, U a8+4:0, U a100000+64:0, U a5000000+1:0, U a1000000000+1:0");
			lf_txn_commit(&txn);
		} else {
			assert_int_equal(error, -ENOMEM);
			lf_txn_abort(&txn);
			assert_true(picture_matches(&before, w.vm));
		}
		vm_unlock(w.vm);
	} while (error != 0);
	assert_true(nth > 2);
	dump_free(&before.dump);
	world_fini(&w);
}

static void a_dead_mapping_that_is_touched_goes_whole(void **state)
{
	static const struct {
		const char *requests, *ops, *after;
		unsigned left;
	} rows[] = {
		{ "map b10+2:0", "U a8+8:0, M b10+2:0", "b10+2:0", 0 },
		{ "unmap 15+9", "U a8+8:0", "", 0 },
		{ "map b0+9:0", "U a8+8:0, M b0+9:0", "b0+9:0", 0 },
		{ "map b0+8:0", "M b0+8:0", "b0+8:0", 1 },
		{ "unmap 16+9", "", "", 1 },
		{ "map b10+1:0 map c12+1:0", "U a8+8:0, M b10+1:0, M c12+1:0", "b10+1:0 c12+1:0", 0 },
		{ "reap map b10+2:0", "U a8+8:0, M b10+2:0", "b10+2:0", 0 },
		{ "map b10+2:0 reap", "U a8+8:0, M b10+2:0", "b10+2:0", 0 },
		{ "split 9+3", "", "", 1 },
		{ "prefetch 0+64", "", "", 1 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct lf_txn txn;
		struct world w;

		world_init(&w, NULL);
		world_do(&w, "map a8+8:0");
		lf_vm_bo_close(w.vm_bo[0]);
		vm_lock(w.vm);
		assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
		assert_int_equal(requests(&w, &txn, rows[i].requests), 0);
		expect_ops(&w, &txn, rows[i].ops);
		lf_txn_commit(&txn);
		vm_unlock(w.vm);
		expect_layout(&w, rows[i].after);
		assert_int_equal(reap_now(w.vm), rows[i].left);
		world_fini(&w);
	}
}

static void closed_buffers_that_nobody_reaps_end_with_the_vm(void **state)
{
	struct world w;

	world_init(&w, NULL);
	world_do(&w, MIXED);
	lf_vm_bo_close(w.vm_bo[0]);
	lf_vm_bo_close(w.vm_bo[3]); /* without mappings */
	world_fini(&w);
}

static void a_buffer_closed_in_a_closed_vm_changes_nothing(void **state)
{
	struct world w;
	struct lf_held *held;
	struct lf_view view;
	struct text t;

	world_init(&w, NULL);
	world_do(&w, MIXED);
	assert_int_equal(lf_vm_hold(w.vm, &held), 0);
	vm_close(w.vm);
	lf_vm_bo_close(w.vm_bo[0]);
	lf_held_view(held, &view);
	text_view(&t, &w, &view);
	assert_string_equal(t.s, "a0+4:0 b4+4:0 a8+4:0 c12+4:0 a100000+64:0");
	lf_held_put(held);
	world_fini(&w);
}

/* --- Locking what a job needs -------------------------------------------------------------------------------------------------------- */

enum { OUTSIDE = 5 };

struct outside {
	struct world w;
	struct lf_bo *bo[OUTSIDE];
	struct lf_vm_bo *vm_bo[OUTSIDE];
};

/* A VM with local buffers and external ones; the last two share a reservation. */
static void outside_init(struct outside *o, const struct lf_vm_desc *desc)
{
	struct lf_resv *shared;

	assert_int_equal(lf_resv_create(NULL, &shared), 0);
	world_init(&o->w, desc);
	for (int i = 0; i < OUTSIDE; i++) {
		o->bo[i] = bo_new(8 * PAGE, i < OUTSIDE - 2 ? NULL : shared);
		o->vm_bo[i] = obtain(o->w.vm, o->bo[i]);
	}
	lf_resv_put(shared);
}

static void outside_fini(struct outside *o)
{
	for (int i = 0; i < OUTSIDE; i++) {
		lf_vm_bo_put(o->vm_bo[i]);
		lf_bo_put(o->bo[i]);
	}
	world_fini(&o->w);
}

static size_t count_locked(const struct lf_exec *x)
{
	size_t n = 0;

	while (lf_exec_at(x, n))
		n++;
	return n;
}

static bool is_busy(const struct lf_resv *r, enum lf_usage usage)
{
	return !lf_resv_test_signaled(r, usage);
}

static void a_job_locks_the_vm_and_each_external_reservation_once(void **state)
{
	struct outside o;
	struct lf_exec x;
	struct lf_fence *f;

	outside_init(&o, NULL);
	assert_int_equal(lf_fence_create(&f), 0);
	lf_exec_init(&x, NULL);
	while (lf_exec_next(&x))
		lf_vm_exec_lock(o.w.vm, &x, 1);
	assert_int_equal(lf_exec_error(&x), 0);
	assert_int_equal(count_locked(&x), 1 + OUTSIDE - 1);
	assert_true(lf_resv_is_held(lf_vm_resv(o.w.vm)));
	for (int i = 0; i < OUTSIDE; i++)
		assert_true(lf_resv_is_held(o.bo[i]->resv));
	lf_vm_add_fence(o.w.vm, &x, f, LF_USAGE_WRITE, LF_USAGE_BOOKKEEP);
	lf_exec_fini(&x);
	assert_true(is_busy(lf_vm_resv(o.w.vm), LF_USAGE_WRITE));
	assert_false(is_busy(lf_vm_resv(o.w.vm), LF_USAGE_KERNEL));
	for (int i = 0; i < OUTSIDE; i++) {
		assert_true(is_busy(o.bo[i]->resv, LF_USAGE_BOOKKEEP));
		assert_false(is_busy(o.bo[i]->resv, LF_USAGE_READ));
		assert_false(lf_resv_is_locked(o.bo[i]->resv));
	}
	lf_fence_signal(f, 0);
	lf_fence_put(f);
	outside_fini(&o);
}

static size_t locked_by_a_job(struct lf_vm *vm)
{
	struct lf_exec x;
	size_t n;

	lf_exec_init(&x, NULL);
	while (lf_exec_next(&x))
		lf_vm_exec_lock(vm, &x, 1);
	must(lf_exec_error(&x) == 0);
	n = count_locked(&x);
	lf_exec_fini(&x);
	return n;
}

static void a_buffer_is_locked_as_long_as_it_is_part_of_the_vm(void **state)
{
	struct world w;
	struct lf_bo *bo = bo_new(8 * PAGE, NULL);
	struct lf_vm_bo *vm_bo;

	world_init(&w, NULL);
	assert_int_equal(locked_by_a_job(w.vm), 1);
	vm_bo = obtain(w.vm, bo);
	assert_int_equal(locked_by_a_job(w.vm), 2);
	map_now(w.vm, vm_bo, 0, 4 * PAGE, 0);
	map_now(w.vm, vm_bo, 8 * PAGE, 4 * PAGE, 0);
	lf_vm_bo_put(vm_bo);
	assert_int_equal(locked_by_a_job(w.vm), 2);
	unmap_now(w.vm, 0, 64 * PAGE);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(locked_by_a_job(w.vm), 1);
	lf_bo_put(bo);
	world_fini(&w);
}

static int lock_all(void *arg)
{
	struct outside *o = arg;
	struct lf_exec x;
	int error;

	lf_exec_init(&x, NULL);
	while (lf_exec_next(&x))
		lf_vm_exec_lock(o->w.vm, &x, 1);
	error = lf_exec_error(&x);
	assert_int_equal(count_locked(&x), error ? 0 : OUTSIDE);
	lf_exec_fini(&x);
	return error;
}

static void locking_fails_without_memory_and_locks_nothing(void **state)
{
	struct outside o;

	outside_init(&o, NULL);
	alloc_fail_all(true); /* later on, the reservations have the room that was made in them once */
	assert_int_equal(lock_all(&o), -ENOMEM);
	alloc_fail_all(false);
	assert_false(lf_resv_is_locked(lf_vm_resv(o.w.vm)));
	alloc_fail_each(lock_all, &o);
	outside_fini(&o);
}

static void locking_gives_way_and_begins_again_under_injected_deadlocks(void **state)
{
	static struct lf_ticket_class cls = LF_TICKET_CLASS_INIT(LF_WAIT_DIE);
	const struct lf_vm_desc desc = { .name = "inject", .cls = &cls };
	struct lf_vm *vm = vm_new(&desc);
	struct lf_bo *bo[8];
	struct lf_vm_bo *vm_bo[8];
	uint64_t rounds = 0;

	for (int i = 0; i < 8; i++) {
		struct test_bo *b = lf_alloc(sizeof(*b));
		const struct lf_bo_desc of = { .offset = offsetof(struct test_bo, bo), .size = PAGE, .cls = &cls };

		assert_non_null(b);
		assert_int_equal(lf_bo_init(&b->bo, &of), 0);
		bo[i] = &b->bo;
		vm_bo[i] = obtain(vm, bo[i]);
	}
	lf_ticket_class_inject(&cls, 300000, 1);
	for (int k = 0; k < 50; k++) {
		struct lf_exec x;

		lf_exec_init(&x, &cls);
		while (lf_exec_next(&x))
			lf_vm_exec_lock(vm, &x, 1);
		assert_int_equal(lf_exec_error(&x), 0);
		assert_int_equal(count_locked(&x), 9);
		rounds += x.rounds;
		lf_exec_fini(&x);
	}
	lf_ticket_class_inject(&cls, 0, 1);
	test_note("50 transactions in %" PRIu64 " rounds", rounds);
	assert_true(rounds > 50);
	for (int i = 0; i < 8; i++) {
		lf_vm_bo_put(vm_bo[i]);
		lf_bo_put(bo[i]);
	}
	vm_end(vm);
}

/* --- Evicting and validating ---------------------------------------------------------------------------------------------------------- */

/* What the validate hook is told, and what it shall answer. */
struct validating {
	struct lf_vm_bo *order[16];
	unsigned calls, fail_at, wrong;
	struct lf_exec *x;
};

static int note_validate(struct lf_vm_bo *vm_bo, struct lf_exec *x, void *data)
{
	struct validating *v = data;

	if (lf_read_held() || x != v->x || !lf_resv_is_held(vm_bo->bo->resv) || !lf_vm_bo_is_evicted(vm_bo))
		v->wrong++;
	v->order[v->calls % 16] = vm_bo;
	return ++v->calls == v->fail_at ? -ENOSPC : 0;
}

static const struct lf_vm_ops validating_ops = { .validate = note_validate };

static void evict(struct lf_bo *bo, bool evicted)
{
	must(lf_resv_lock(bo->resv, NULL) == 0);
	lf_bo_set_evicted(bo, evicted);
	lf_resv_unlock(bo->resv);
}

static int validate_all(struct outside *o, struct validating *v)
{
	struct lf_exec x;
	int error;

	lf_exec_init(&x, NULL);
	while (lf_exec_next(&x))
		lf_vm_exec_lock(o->w.vm, &x, 1);
	must(lf_exec_error(&x) == 0);
	v->x = &x;
	error = lf_vm_validate(o->w.vm, &x);
	lf_exec_fini(&x);
	return error;
}

static void each_evicted_buffer_is_validated_once(void **state)
{
	struct validating v = { .calls = 0 };
	const struct lf_vm_desc desc = { .name = "validate", .ops = &validating_ops, .data = &v };
	struct outside o;

	outside_init(&o, &desc);
	assert_int_equal(validate_all(&o, &v), 0);
	assert_int_equal(v.calls, 0);
	evict(o.bo[0], true);
	evict(o.bo[0], true);
	evict(o.bo[3], true);
	evict(o.w.bo[2], true);
	evict(o.bo[1], true);
	evict(o.bo[1], false);
	assert_true(lf_vm_bo_is_evicted(o.vm_bo[0]));
	assert_false(lf_vm_bo_is_evicted(o.vm_bo[1]));
	assert_false(lf_vm_bo_is_evicted(o.vm_bo[2]));
	assert_true(lf_vm_bo_is_evicted(o.vm_bo[3]));
	assert_true(lf_vm_bo_is_evicted(o.w.vm_bo[2]));
	assert_int_equal(validate_all(&o, &v), 0);
	assert_int_equal(v.calls, 3);
	assert_int_equal(v.wrong, 0);
	assert_false(lf_vm_bo_is_evicted(o.vm_bo[0]));
	assert_int_equal(validate_all(&o, &v), 0);
	assert_int_equal(v.calls, 3);
	evict(o.bo[0], true);
	assert_int_equal(validate_all(&o, &v), 0);
	assert_int_equal(v.calls, 4);
	outside_fini(&o);
}

static void validating_stops_at_the_first_error_and_goes_on_with_the_rest(void **state)
{
	struct validating v = { .fail_at = 3 };
	const struct lf_vm_desc desc = { .name = "validate", .ops = &validating_ops, .data = &v };
	struct outside o;
	unsigned left = 0;

	outside_init(&o, &desc);
	for (int i = 0; i < OUTSIDE; i++)
		evict(o.bo[i], true);
	assert_int_equal(validate_all(&o, &v), -ENOSPC);
	assert_int_equal(v.calls, 3);
	for (int i = 0; i < OUTSIDE; i++)
		left += lf_vm_bo_is_evicted(o.vm_bo[i]);
	assert_int_equal(left, OUTSIDE - 2);
	assert_true(lf_vm_bo_is_evicted(v.order[2]));
	assert_false(lf_vm_bo_is_evicted(v.order[0]));
	assert_int_equal(validate_all(&o, &v), 0);
	assert_int_equal(v.calls, 3 + OUTSIDE - 2);
	for (int i = 0; i < OUTSIDE; i++) {
		assert_false(lf_vm_bo_is_evicted(o.vm_bo[i]));
		for (unsigned k = 3; k < v.calls; k++)
			assert_true(v.order[k] != v.order[0] && v.order[k] != v.order[1]); /* those stay validated */
	}
	assert_int_equal(v.wrong, 0);
	outside_fini(&o);
}

static void an_evicted_buffer_is_validated_by_each_vm_that_it_is_part_of(void **state)
{
	struct validating v = { .calls = 0 };
	const struct lf_vm_desc desc = { .name = "validate", .ops = &validating_ops, .data = &v };
	struct outside o, p;
	struct lf_vm_bo *both;

	outside_init(&o, &desc);
	outside_init(&p, &desc);
	both = obtain(p.w.vm, o.bo[0]);
	evict(o.bo[0], true);
	assert_true(lf_vm_bo_is_evicted(both));
	assert_int_equal(validate_all(&o, &v), 0);
	assert_false(lf_vm_bo_is_evicted(o.vm_bo[0]));
	assert_true(lf_vm_bo_is_evicted(both));
	assert_int_equal(validate_all(&p, &v), 0);
	assert_false(lf_vm_bo_is_evicted(both));
	assert_int_equal(v.calls, 2);
	lf_vm_bo_put(both);
	outside_fini(&p);
	outside_fini(&o);
}

static void closed_and_forgotten_buffers_are_not_validated(void **state)
{
	struct validating v = { .calls = 0 };
	const struct lf_vm_desc desc = { .name = "validate", .ops = &validating_ops, .data = &v };
	struct outside o;
	struct lf_bo *bo = bo_new(PAGE, NULL);
	struct lf_vm_bo *vm_bo;

	outside_init(&o, &desc);
	vm_bo = obtain(o.w.vm, bo);
	evict(o.bo[0], true);
	evict(bo, true);
	lf_vm_bo_close(o.vm_bo[0]);
	lf_vm_bo_put(vm_bo);
	assert_int_equal(validate_all(&o, &v), 0);
	assert_int_equal(v.calls, 0);
	evict(o.bo[0], true);
	assert_int_equal(validate_all(&o, &v), 0);
	assert_int_equal(v.calls, 0);
	lf_bo_put(bo);
	outside_fini(&o);
}

static void evicting_and_validating_need_locks_and_a_hook(void **state)
{
	struct outside o;
	struct validating v = { .calls = 0 };
	long calls;

	outside_init(&o, NULL);
	lf_bo_set_evicted(o.bo[0], true);
	expect_misuse(1);
	assert_false(lf_vm_bo_is_evicted(o.vm_bo[0]));
	assert_int_equal(lf_vm_validate(o.w.vm, NULL), -EINVAL);
	expect_misuse(1);
	assert_int_equal(validate_all(&o, &v), 0); /* nothing is evicted: needs no hook */
	calls = alloc_calls();
	evict(o.bo[0], true);
	assert_int_equal(alloc_calls(), calls);
	assert_int_equal(validate_all(&o, &v), -EOPNOTSUPP);
	assert_true(lf_vm_bo_is_evicted(o.vm_bo[0]));
	evict(o.bo[0], false);
	assert_int_equal(validate_all(&o, &v), 0);
	outside_fini(&o);
}

/* --- Who keeps whom ------------------------------------------------------------------------------------------------------------------- */

static void a_vm_bo_keeps_its_buffer_and_its_vm(void **state)
{
	const struct lf_vm_desc desc = { .name = "kept" };
	struct lf_vm *vm = vm_new(&desc);
	unsigned released = 0;
	struct lf_bo *bo = NULL;
	struct lf_vm_bo *vm_bo;

	assert_int_equal(bo_create(PAGE, NULL, &released, &bo), 0);
	vm_bo = obtain(vm, bo);
	lf_bo_put(bo);
	lf_vm_put(vm);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&released), 0);
	assert_ptr_equal(vm_bo->vm, vm);
	assert_int_equal(vm_bo->bo->size, PAGE);
	assert_int_equal(lf_vm_error(vm), 0);
	lf_vm_bo_put(vm_bo);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&released), 1);
}

static void a_mapping_keeps_its_vm_bo_and_buffer(void **state)
{
	const struct lf_vm_desc desc = { .name = "kept" };
	struct lf_vm *vm = vm_new(&desc);
	unsigned released = 0;
	struct lf_bo *bo = NULL;
	struct lf_vm_bo *vm_bo;
	struct lf_mapping *m;

	assert_int_equal(bo_create(4 * PAGE, NULL, &released, &bo), 0);
	vm_bo = obtain(vm, bo);
	map_now(vm, vm_bo, 0, 4 * PAGE, 0);
	m = lf_vm_lookup_get(vm, PAGE);
	lf_vm_bo_put(vm_bo);
	lf_bo_put(bo);
	vm_end(vm);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&released), 0);
	assert_ptr_equal(m->vm_bo, vm_bo);
	assert_int_equal(m->vm_bo->bo->size, 4 * PAGE);
	lf_mapping_put(m);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&released), 1);
}

/* Two go in one transaction; whichever somebody else has, keeps the VM_BO, although both borrowed the same reference until then. */
static void each_of_several_mappings_keeps_the_vm_bo(void **state)
{
	for (unsigned kept = 0; kept < 2; kept++) {
		const struct lf_vm_desc desc = { .name = "kept" };
		struct lf_vm *vm = vm_new(&desc);
		unsigned released = 0;
		struct lf_bo *bo = NULL;
		struct lf_vm_bo *vm_bo, *found;
		struct lf_mapping *m;

		assert_int_equal(bo_create(4 * PAGE, NULL, &released, &bo), 0);
		vm_bo = obtain(vm, bo);
		map_now(vm, vm_bo, 0, PAGE, 0);
		map_now(vm, vm_bo, PAGE, PAGE, 2 * PAGE);
		m = lf_vm_lookup_get(vm, kept * PAGE);
		lf_vm_bo_put(vm_bo);
		unmap_now(vm, 0, 2 * PAGE);
		assert_int_equal(lf_reclaim_barrier(), 0);
		found = lf_vm_bo_find(vm, bo);
		assert_ptr_equal(found, vm_bo);
		lf_vm_bo_put(found);
		lf_mapping_put(m);
		assert_int_equal(lf_reclaim_barrier(), 0);
		assert_null(lf_vm_bo_find(vm, bo));
		lf_bo_put(bo);
		vm_end(vm);
		assert_int_equal(lf_reclaim_barrier(), 0);
		assert_int_equal(count_get(&released), 1);
	}
}

static void a_held_version_keeps_the_vm_bos_of_its_mappings(void **state)
{
	const struct lf_vm_desc desc = { .name = "kept" };
	struct lf_vm *vm = vm_new(&desc);
	struct lf_bo *bo = bo_new(4 * PAGE, NULL);
	struct lf_vm_bo *vm_bo = obtain(vm, bo), *found;
	struct lf_held *held;

	map_now(vm, vm_bo, 0, PAGE, 0);
	assert_int_equal(lf_vm_hold(vm, &held), 0);
	map_now(vm, vm_bo, PAGE, PAGE, 2 * PAGE); /* which the version does not have */
	lf_vm_bo_put(vm_bo);
	unmap_now(vm, 0, 2 * PAGE);
	assert_int_equal(lf_reclaim_barrier(), 0);
	found = lf_vm_bo_find(vm, bo);
	assert_ptr_equal(found, vm_bo);
	lf_vm_bo_put(found);
	lf_held_put(held);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_null(lf_vm_bo_find(vm, bo));
	lf_bo_put(bo);
	vm_end(vm);
}

/* What was mapped and replaced in one transaction, of a buffer that has nothing else there, and by an abort. */
static void what_a_transaction_drops_lets_go_of_its_vm_bo(void **state)
{
	const struct lf_vm_desc desc = { .name = "kept" };
	struct lf_vm *vm = vm_new(&desc);
	struct lf_bo *bo = bo_new(4 * PAGE, NULL);
	struct lf_vm_bo *vm_bo = obtain(vm, bo);
	struct lf_map_desc first = { .va = 0, .size = 2 * PAGE, .vm_bo = vm_bo }, second = first;
	struct lf_txn txn;

	second.flags = 1;
	for (unsigned commit = 0; commit < 2; commit++) {
		assert_int_equal(lf_resv_lock(lf_vm_resv(vm), NULL), 0);
		assert_int_equal(lf_txn_begin(&txn, vm), 0);
		assert_int_equal(lf_txn_map(&txn, &first, NULL), 0);
		assert_int_equal(lf_txn_map(&txn, &second, NULL), 0);
		if (commit)
			lf_txn_commit(&txn);
		else
			lf_txn_abort(&txn);
		lf_resv_unlock(lf_vm_resv(vm));
	}
	lf_vm_bo_put(vm_bo);
	vm_bo = lf_vm_bo_find(vm, bo);
	assert_non_null(vm_bo);
	lf_vm_bo_put(vm_bo);
	unmap_now(vm, 0, 2 * PAGE);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_null(lf_vm_bo_find(vm, bo));
	lf_bo_put(bo);
	vm_end(vm);
}

static void what_is_missing_is_reported(void **state)
{
	struct lf_vm *vm = vm_new(&(struct lf_vm_desc){ .name = "vm" });
	struct lf_bo *bo = bo_new(PAGE, NULL);

	assert_null(lf_vm_bo_find(NULL, bo));
	assert_null(lf_vm_bo_find(vm, NULL));
	lf_vm_bo_close(NULL);
	lf_bo_set_evicted(NULL, true);
	assert_int_equal(lf_vm_validate(NULL, NULL), -EINVAL);
	assert_int_equal(log_count(LF_LOG_MISUSE), 5);
	log_reset();
	lf_bo_put(bo);
	lf_vm_put(vm);
}

static void a_fence_is_not_added_by_a_transaction_that_failed(void **state)
{
	struct lf_vm *vm = vm_new(&(struct lf_vm_desc){ .name = "vm" });
	struct lf_fence *f;
	struct lf_exec x;

	assert_int_equal(lf_fence_create(&f), 0);
	lf_exec_init(&x, NULL);
	while (lf_exec_next(&x))
		lf_exec_lock(&x, NULL, 1); /* fails */
	assert_int_equal(lf_exec_error(&x), -EINVAL);
	log_reset();
	lf_vm_add_fence(vm, &x, f, LF_USAGE_READ, LF_USAGE_READ);
	assert_true(log_contains("nothing is locked, since the transaction failed"));
	log_reset();
	lf_exec_fini(&x);
	assert_true(lf_resv_test_signaled(lf_vm_resv(vm), LF_USAGE_BOOKKEEP)); /* there is nothing in it */
	lf_fence_put(f);
	lf_vm_put(vm);
}

static void a_fence_is_not_added_in_a_lost_round(void **state)
{
	static struct lf_ticket_class cls = LF_TICKET_CLASS_INIT(LF_WAIT_DIE);
	struct lf_vm *vm = vm_new(&(struct lf_vm_desc){ .name = "vm", .cls = &cls });
	struct lf_vm *first = vm_new(&(struct lf_vm_desc){ .name = "first", .cls = &cls });
	struct lf_fence *f;
	struct lf_exec x;

	assert_int_equal(lf_fence_create(&f), 0);
	lf_exec_init(&x, &cls);
	assert_true(lf_exec_next(&x));
	assert_int_equal(lf_exec_lock(&x, lf_vm_resv(first), 1), 0); /* who holds nothing loses nothing */
	lf_ticket_class_inject(&cls, 1000000, 1);
	assert_int_equal(lf_vm_exec_lock(vm, &x, 1), -EDEADLK);
	lf_ticket_class_inject(&cls, 0, 1);
	assert_int_equal(lf_exec_error(&x), 0);
	log_reset();
	lf_vm_add_fence(vm, &x, f, LF_USAGE_READ, LF_USAGE_READ);
	assert_int_equal(log_count(LF_LOG_MISUSE), 1);
	assert_true(log_contains("lf_vm_add_fence: nothing is locked, since the transaction lost its round"));
	log_reset();
	lf_exec_fini(&x);
	assert_true(lf_resv_test_signaled(lf_vm_resv(vm), LF_USAGE_BOOKKEEP)); /* there is nothing in it */
	lf_fence_signal(f, 0);
	lf_fence_put(f);
	lf_vm_put(first);
	lf_vm_put(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(obtaining_twice_gives_the_same),
		TEST_WARM(a_buffer_has_one_in_each_vm),
		TEST_WARM(one_without_mappings_is_part_of_the_vm_as_long_as_it_is_held),
		TEST_WARM(wrong_arguments_are_refused),
		TEST_WARM(obtaining_fails_without_memory),
		TEST_WARM(threads_that_obtain_at_once_get_the_same),
		TEST_WARM(mapping_and_closing_at_once_leaves_nothing_behind),
		TEST_WARM(its_mappings_can_be_walked),
		TEST_WARM(closed_mappings_are_gone_at_once_and_without_memory),
		TEST_WARM(a_close_is_a_version_of_its_own),
		TEST_WARM(obtaining_after_a_close_makes_another),
		TEST_WARM(a_buffer_may_be_closed_anywhere),
		TEST_WARM(what_was_mapped_in_a_transaction_during_which_it_was_closed_is_reaped),
		TEST_WARM(each_dead_mapping_is_handed_out_once_and_again_after_an_abort),
		TEST_WARM(reaping_fails_without_memory_and_hands_out_all_the_next_time),
		TEST_WARM(a_dead_mapping_that_is_touched_goes_whole),
		TEST_WARM(closed_buffers_that_nobody_reaps_end_with_the_vm),
		TEST_WARM(a_buffer_closed_in_a_closed_vm_changes_nothing),
		TEST_WARM(a_job_locks_the_vm_and_each_external_reservation_once),
		TEST_WARM(a_buffer_is_locked_as_long_as_it_is_part_of_the_vm),
		TEST_WARM(locking_fails_without_memory_and_locks_nothing),
		TEST_WARM(locking_gives_way_and_begins_again_under_injected_deadlocks),
		TEST_WARM(each_evicted_buffer_is_validated_once),
		TEST_WARM(validating_stops_at_the_first_error_and_goes_on_with_the_rest),
		TEST_WARM(an_evicted_buffer_is_validated_by_each_vm_that_it_is_part_of),
		TEST_WARM(closed_and_forgotten_buffers_are_not_validated),
		TEST_WARM(evicting_and_validating_need_locks_and_a_hook),
		TEST_WARM(a_vm_bo_keeps_its_buffer_and_its_vm),
		TEST_WARM(a_mapping_keeps_its_vm_bo_and_buffer),
		TEST_WARM(each_of_several_mappings_keeps_the_vm_bo),
		TEST_WARM(a_held_version_keeps_the_vm_bos_of_its_mappings),
		TEST_WARM(what_a_transaction_drops_lets_go_of_its_vm_bo),
		TEST(what_is_missing_is_reported),
		TEST(a_fence_is_not_added_by_a_transaction_that_failed),
		TEST(a_fence_is_not_added_in_a_lost_round),
	};
	return TEST_MAIN(tests);
}
