/* SPDX-License-Identifier: MIT */
/* Address spaces in the child of a fork: poisoned without the bracket, as good as ever with it. */
#include "vm_testing.h"

#include "producer.h"

#include <sys/wait.h>
#include <unistd.h>

static void expect_success(pid_t pid)
{
	int status;

	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void a_poisoned_child_is_refused_and_leaks(void **state)
{
	struct lf_vm *vm = vm_new(&(struct lf_vm_desc){ .name = "vm" });
	struct lf_bo *bo = bo_new(16 * PAGE, lf_vm_resv(vm)), *other = bo_new(PAGE, NULL);
	struct lf_vm_bo *vm_bo = obtain(vm, bo), *late;
	struct lf_va_heap *heap, *no_heap;
	struct lf_mapping *m;
	struct lf_held *held, *more;
	struct lf_txn open, txn;
	pid_t pid;

	map_now(vm, vm_bo, 0, 2 * PAGE, 0);
	assert_int_equal(lf_vm_hold(vm, &held), 0);
	assert_int_equal(lf_va_heap_create(0, 16 * PAGE, &heap), 0);
	assert_int_equal(lf_va_heap_alloc_at(heap, 0, PAGE), 0);
	m = lf_vm_lookup_get(vm, 0);
	vm_lock(vm);
	assert_int_equal(lf_txn_begin(&open, vm), 0);
	pid = fork();
	if (pid == 0) {
		struct lf_va_heap_stats heap_stats = { 0 };
		struct lf_vm_stats stats = { 0 };
		struct lf_fence *out;
		struct lf_exec x;
		struct lf_vm *no_vm;
		uint64_t va;

		CHILD_CHECK(lf_vm_create(&(struct lf_vm_desc){ .name = "late" }, &no_vm) == -EOWNERDEAD);
		CHILD_CHECK(lf_vm_close(vm) == -EOWNERDEAD);
		lf_vm_ban(vm, -EIO);
		CHILD_CHECK(lf_vm_error(vm) == 0);
		lf_vm_get_stats(vm, &stats);
		CHILD_CHECK(stats.mappings == 0);
		CHILD_CHECK(lf_vm_lookup_get(vm, 0) == NULL);
		CHILD_CHECK(lf_vm_hold(vm, &more) == -EOWNERDEAD);
		CHILD_CHECK(lf_vm_bo_obtain(vm, other, &late) == -EOWNERDEAD);
		CHILD_CHECK(lf_vm_bo_find(vm, bo) == NULL);
		CHILD_CHECK(!lf_vm_bo_is_evicted(vm_bo));
		lf_bo_set_evicted(bo, true);
		CHILD_CHECK(lf_vm_validate(vm, &x) == -EOWNERDEAD);
		CHILD_CHECK(lf_txn_unmap(&open, 0, PAGE) == -EOWNERDEAD);
		CHILD_CHECK(lf_txn_submit(&open, NULL, 0, &out) == -EOWNERDEAD);
		lf_txn_commit(&open);
		lf_txn_abort(&open);
		CHILD_CHECK(lf_txn_begin(&txn, vm) == -EOWNERDEAD);
		CHILD_CHECK(lf_va_heap_create(0, PAGE, &no_heap) == -EOWNERDEAD);
		CHILD_CHECK(lf_va_heap_alloc(heap, &(struct lf_va_request){ .size = PAGE }, &va) == -EOWNERDEAD);
		CHILD_CHECK(lf_va_heap_alloc_at(heap, PAGE, PAGE) == -EOWNERDEAD);
		lf_va_heap_free(heap, 0, PAGE);
		lf_va_heap_retire(heap, 0, PAGE, NULL, NULL);
		lf_va_heap_get_stats(heap, &heap_stats);
		CHILD_CHECK(heap_stats.allocated == 0);
		lf_va_heap_destroy(heap);
		lf_vm_bo_close(vm_bo);
		lf_vm_bo_put(vm_bo);
		lf_mapping_put(m);
		lf_held_put(held);
		lf_bo_put(bo);
		lf_vm_put(vm);
		CHILD_CHECK(log_count(LF_LOG_MISUSE) == 0);
		child_ends();
	}
	expect_success(pid);
	lf_txn_abort(&open);
	vm_unlock(vm);
	lf_va_heap_free(heap, 0, PAGE);
	lf_va_heap_destroy(heap);
	lf_mapping_put(m);
	lf_held_put(held);
	lf_vm_bo_put(vm_bo);
	lf_bo_put(bo);
	lf_bo_put(other);
	vm_end(vm);
}

static void a_bracketed_child_goes_on_with_its_address_space(void **state)
{
	struct lf_vm *vm = vm_new(&(struct lf_vm_desc){ .name = "vm" });
	struct lf_bo *bo = bo_new(16 * PAGE, NULL);
	struct lf_vm_bo *vm_bo = obtain(vm, bo);
	pid_t pid;

	map_now(vm, vm_bo, 0, 2 * PAGE, 0);
	assert_int_equal(lf_before_fork(), 0);
	pid = fork();
	if (pid == 0) {
		lf_after_fork_child();
		unmap_now(vm, 0, PAGE);
		map_now(vm, vm_bo, 8 * PAGE, PAGE, 0);
		CHILD_CHECK(look(vm, 0) == NULL && look(vm, PAGE) != NULL && look(vm, 8 * PAGE) != NULL);
		lf_vm_bo_put(vm_bo);
		lf_bo_put(bo);
		vm_end(vm);
		CHILD_CHECK(lf_reclaim_barrier() == 0);
		CHILD_CHECK(log_count(LF_LOG_MISUSE) == 0);
		child_ends();
	}
	lf_after_fork_parent();
	expect_success(pid);
	assert_non_null(look(vm, 0));
	assert_null(look(vm, 8 * PAGE));
	lf_vm_bo_put(vm_bo);
	lf_bo_put(bo);
	vm_end(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(a_poisoned_child_is_refused_and_leaks),
		TEST_WARM(a_bracketed_child_goes_on_with_its_address_space),
	};
	return TEST_MAIN(tests);
}
