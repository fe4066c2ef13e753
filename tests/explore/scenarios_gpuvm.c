/* SPDX-License-Identifier: MIT */
/*
 * Address spaces: lookups without a lock, held versions and engines beside commits, closes of buffers and binds.
 *
 * Page 0 shows buffer a at first; writers move it to page 1, or close it. So exactly one of the two pages is mapped in any version but those
 * in which the buffer is closed.
 */
#include "explore.h"

#define PAGE UINT64_C(4096)
#define SIZE (64 * PAGE)

struct buffer {
	struct lf_bo bo;
	int released; /* so that the block has something of its own */
};

static struct lf_vm *vm;
static struct lf_bo *bo;
static struct lf_vm_bo *vm_bo, *obtained[2];
static struct lf_fence *in_fence, *out_fence;
static struct lf_mapping *kept;
static int written, applied, mappings_released;

/* --- Helpers ---------------------------------------------------------------------------------------------------------------- */

static void lock(void)
{
	CHECK(lf_resv_lock(lf_vm_resv(vm), NULL) == 0);
}

static void unlock(void)
{
	lf_resv_unlock(lf_vm_resv(vm));
}

static void begin(struct lf_txn *txn)
{
	lock();
	CHECK(lf_txn_begin(txn, vm) == 0);
}

static void map(struct lf_txn *txn, uint64_t page, uint32_t flags)
{
	const struct lf_map_desc desc = { .va = page * PAGE, .size = PAGE, .vm_bo = vm_bo, .flags = flags };

	CHECK(lf_txn_map(txn, &desc, NULL) == 0);
}

static void unmap(struct lf_txn *txn, uint64_t page)
{
	CHECK(lf_txn_unmap(txn, page * PAGE, PAGE) == 0);
}

static void commit(struct lf_txn *txn)
{
	lf_txn_commit(txn);
	unlock();
}

static void on_mapping_release(struct lf_mapping *m, void *data)
{
	(void)m;
	(void)data;
	mappings_released++;
}

static const struct lf_vm_ops ops = { .mapping_release = on_mapping_release };

static struct lf_bo *make_bo(struct lf_resv *resv)
{
	struct buffer *b = lf_alloc(sizeof(*b));

	CHECK(b && lf_bo_init(&b->bo, &(struct lf_bo_desc){ .size = SIZE, .resv = resv }) == 0);
	return &b->bo;
}

static void make(unsigned flags, const struct lf_vm_ops *hooks)
{
	CHECK(lf_vm_create(&(struct lf_vm_desc){ .name = "vm", .size = SIZE, .flags = flags, .ops = hooks }, &vm) == 0);
	bo = make_bo(lf_vm_resv(vm));
	CHECK(lf_vm_bo_obtain(vm, bo, &vm_bo) == 0);
}

/* With page 0 mapped. */
static void make_mapped(void)
{
	struct lf_txn txn;

	make(0, &ops);
	begin(&txn);
	map(&txn, 0, 0);
	commit(&txn);
}

static void end(void)
{
	lf_vm_bo_put(vm_bo);
	lf_bo_put(bo);
	lock();
	CHECK(lf_vm_close(vm) == 0);
	unlock();
	lf_vm_put(vm);
}

/* --- What writers do ---------------------------------------------------------------------------------------------------------- */

static void move_to_page_1(void)
{
	struct lf_txn txn;

	begin(&txn);
	unmap(&txn, 0);
	map(&txn, 1, 1);
	written = 1;
	commit(&txn);
}

static void move_and_abort(void)
{
	struct lf_txn txn;

	begin(&txn);
	unmap(&txn, 0);
	map(&txn, 1, 1);
	lf_txn_abort(&txn);
	unlock();
}

static void unmap_page_0(void)
{
	struct lf_txn txn;

	begin(&txn);
	unmap(&txn, 0);
	commit(&txn);
}

static void close_bo(void)
{
	written = 1;
	lf_vm_bo_close(vm_bo);
}

static void reap(void)
{
	struct lf_txn txn;

	begin(&txn);
	CHECK(lf_txn_reap(&txn) == 0);
	commit(&txn);
}

/* --- What readers see --------------------------------------------------------------------------------------------------------- */

/* Which of the two pages a view shows: 0 or 1. */
static uint32_t page_of(const struct lf_view *view)
{
	const struct lf_mapping *first = lf_view_lookup(view, 0), *second = lf_view_lookup(view, PAGE);
	const struct lf_mapping *m = first ? first : second;

	CHECK(!first != !second);
	CHECK(m->va == m->flags * PAGE && m->size == PAGE && m->vm_bo == vm_bo);
	CHECK(!second || written == 1);
	return m->flags;
}

static void look(void)
{
	struct lf_view view;

	lf_read_lock();
	lf_vm_view(vm, &view);
	page_of(&view);
	lf_read_unlock();
}

static void look_twice(void)
{
	struct lf_view view, later;
	uint32_t page;

	lf_read_lock();
	lf_vm_view(vm, &view);
	page = page_of(&view);
	lf_vm_view(vm, &later);
	CHECK(page_of(&later) >= page && later.version >= view.version);
	CHECK(page_of(&view) == page);
	lf_read_unlock();
}

/* Closed or not: who sees it gone sees what was before the close. */
static void look_for_closed(void)
{
	const struct lf_mapping *m;

	lf_read_lock();
	m = lf_vm_lookup(vm, 0);
	if (m)
		CHECK(m->va == 0 && m->vm_bo == vm_bo);
	else
		CHECK(written == 1);
	lf_read_unlock();
}

static void hold(void)
{
	struct lf_held *held;
	struct lf_view view;
	uint32_t page;

	CHECK(lf_vm_hold(vm, &held) == 0);
	lf_held_view(held, &view);
	page = page_of(&view);
	CHECK(page_of(&view) == page);
	lf_held_put(held);
}

static void get_and_put(void)
{
	struct lf_mapping *m = lf_vm_lookup_get(vm, 0);

	if (!m)
		return;
	CHECK(m->va == 0 && m->vm_bo->bo == bo);
	lf_mapping_put(m);
}

static void tryget_and_put(void)
{
	struct lf_mapping *m;

	lf_read_lock();
	m = lf_mapping_tryget(lf_vm_lookup(vm, 0));
	lf_read_unlock();
	if (m) {
		CHECK(m->va == 0 && m->vm_bo == vm_bo);
		lf_mapping_put(m);
	}
}

static void look_for_any(void)
{
	lf_read_lock();
	CHECK(!lf_vm_lookup(vm, PAGE));
	(void)lf_vm_lookup(vm, 0);
	lf_read_unlock();
}

static void put_kept(void)
{
	CHECK(kept->va == 0 && kept->vm_bo->bo->size == SIZE);
	lf_mapping_put(kept);
}

static void make_mapped_and_keep(void)
{
	make_mapped();
	kept = lf_vm_lookup_get(vm, 0);
	CHECK(kept != NULL);
}

static void end_moved(void)
{
	struct lf_view view;

	lf_read_lock();
	lf_vm_view(vm, &view);
	CHECK(page_of(&view) == 1);
	lf_read_unlock();
	end();
}

static void end_not_moved(void)
{
	struct lf_view view;

	lf_read_lock();
	lf_vm_view(vm, &view);
	CHECK(page_of(&view) == 0);
	lf_read_unlock();
	end();
}

static void end_empty(void)
{
	struct lf_view view;

	lf_read_lock();
	lf_vm_view(vm, &view);
	CHECK(!lf_view_next(&view, 0));
	lf_read_unlock();
	end();
	lf_reclaim_barrier();
	CHECK(mappings_released == 1);
}

static void reap_and_end(void)
{
	reap();
	end_empty();
}

/* --- Pairs ---------------------------------------------------------------------------------------------------------------------- */

static void make_unpaired(void)
{
	CHECK(lf_vm_create(&(struct lf_vm_desc){ .name = "vm", .size = SIZE }, &vm) == 0);
	bo = make_bo(lf_vm_resv(vm));
}

static void obtain(void)
{
	CHECK(lf_vm_bo_obtain(vm, bo, &obtained[explore_self() - 1]) == 0);
}

static void obtain_and_put(void)
{
	struct lf_vm_bo *pair;

	CHECK(lf_vm_bo_obtain(vm, bo, &pair) == 0);
	CHECK(pair->vm == vm && pair->bo == bo);
	lf_vm_bo_put(pair);
}

static void end_one_pair(void)
{
	CHECK(obtained[0] == obtained[1]);
	lf_vm_bo_put(obtained[0]);
	vm_bo = obtained[1];
	end();
}

static void end_unpaired(void)
{
	lf_bo_put(bo);
	lock();
	CHECK(lf_vm_close(vm) == 0);
	unlock();
	lf_vm_put(vm);
}

/* --- Binds ---------------------------------------------------------------------------------------------------------------------- */

static int on_apply(struct lf_vm *of, const struct lf_vm_op *op, size_t count, void *data)
{
	(void)of;
	(void)data;
	CHECK(!lf_read_held());
	CHECK(count > 0 && op[0].mapping->vm_bo == vm_bo);
	applied++;
	return 0;
}

static const struct lf_vm_ops bind_ops = { .apply = on_apply };

static void submit(struct lf_fence *in, bool first, struct lf_fence **out)
{
	struct lf_txn txn;

	begin(&txn);
	if (first) {
		map(&txn, 0, 0);
	} else {
		unmap(&txn, 0);
		map(&txn, 1, 1);
	}
	CHECK(lf_txn_submit(&txn, in ? &in : NULL, in ? 1 : 0, out) == 0);
	unlock();
}

static void make_bind(void)
{
	make(LF_VM_BIND, &bind_ops);
	CHECK(lf_fence_create(&in_fence) == 0);
	submit(NULL, true, NULL);
	CHECK(applied == 1);
}

static void make_bound(void)
{
	make_bind();
	submit(in_fence, false, &out_fence);
	CHECK(applied == 1);
}

static void submit_move(void)
{
	submit(in_fence, false, &out_fence);
}

static void signal_in(void)
{
	written = 1;
	CHECK(lf_fence_signal(in_fence, 0));
}

/* What engines see follows the in-fence. */
static void look_applied(void)
{
	struct lf_view view;

	lf_read_lock();
	lf_vm_view_applied(vm, &view);
	if (page_of(&view) == 1)
		CHECK(lf_fence_is_signaled(in_fence) && applied == 2);
	lf_read_unlock();
}

static void wait_out(void)
{
	struct lf_view view;

	CHECK(lf_fence_wait(out_fence, LF_DEADLINE_NEVER) == 0 && lf_fence_status(out_fence) == 1);
	CHECK(applied == 2 && lf_fence_is_signaled(in_fence));
	lf_read_lock();
	lf_vm_view_applied(vm, &view);
	CHECK(page_of(&view) == 1);
	lf_read_unlock();
}

static void ban(void)
{
	lf_vm_ban(vm, -EIO);
	CHECK(lf_vm_error(vm) == -EIO);
}

static void end_bind(void)
{
	CHECK(applied == 2 && lf_fence_status(out_fence) == 1);
	lf_fence_put(in_fence);
	lf_fence_put(out_fence);
	end();
}

static void end_banned(void)
{
	int status = lf_fence_status(out_fence);

	CHECK(status == -EIO || (status == 1 && applied == 2));
	lf_fence_put(in_fence);
	lf_fence_put(out_fence);
	end();
}

static const struct explore_scenario table[] = {
	{ .group = "gpuvm", .name = "commit_look", .setup = make_mapped, .threads = { move_to_page_1, look, look_twice }, .finish = end_moved,
		.oracle = "a reader sees the version before or the one after, whole, and never goes back" },
	{ .group = "gpuvm", .name = "abort_look", .setup = make_mapped, .threads = { move_and_abort, look, look_twice },
		.finish = end_not_moved, .oracle = "nobody sees what is aborted" },
	{ .group = "gpuvm", .name = "close_look", .setup = make_mapped, .threads = { close_bo, look_for_closed, look_for_closed },
		.finish = end_empty, .oracle = "who sees a buffer closed sees what was done before" },
	{ .group = "gpuvm", .name = "commit_hold", .setup = make_mapped, .threads = { move_to_page_1, hold }, .finish = end_moved,
		.oracle = "a held version is the same as long as it is held, and what only it kept is freed" },
	{ .group = "gpuvm", .name = "hold_hold", .setup = make_mapped, .threads = { move_to_page_1, hold, hold }, .finish = end_moved,
		.oracle = "the same with two that are let go of in any order", .bound = 2 },
	{ .group = "gpuvm", .name = "unmap_get", .setup = make_mapped, .threads = { unmap_page_0, get_and_put, tryget_and_put },
		.finish = end_empty, .oracle = "a reference on what is found is one on a live mapping, or none" },
	{ .group = "gpuvm", .name = "unmap_put", .setup = make_mapped_and_keep, .threads = { unmap_page_0, put_kept, look_for_any },
		.finish = end_empty, .oracle = "a mapping outlives its place as long as it is referred to" },
	{ .group = "gpuvm", .name = "close_reap", .setup = make_mapped, .threads = { close_bo, reap, look_for_closed },
		.finish = reap_and_end, .oracle = "what a closed buffer left is reaped once, now or later" },
	{ .group = "gpuvm", .name = "obtain", .setup = make_unpaired, .threads = { obtain, obtain }, .finish = end_one_pair,
		.oracle = "two that obtain a pair at once get one object" },
	{ .group = "gpuvm", .name = "obtain_put", .setup = make_unpaired, .threads = { obtain_and_put, obtain_and_put }, .finish = end_unpaired,
		.oracle = "a pair that ends and one that is obtained do not meet" },
	{ .group = "gpuvm", .name = "bind_apply", .setup = make_bound, .threads = { signal_in, look_applied }, .finish = end_bind,
		.oracle = "what engines see follows the in-fence" },
	{ .group = "gpuvm", .name = "bind_wait", .setup = make_bound, .threads = { signal_in, wait_out }, .finish = end_bind,
		.oracle = "who waited for the out-fence sees the bind applied" },
	{ .group = "gpuvm", .name = "bind_submit", .setup = make_bind, .threads = { signal_in, submit_move }, .finish = end_bind,
		.oracle = "a bind is applied once, whether its in-fence comes before it or after" },
	{ .group = "gpuvm", .name = "bind_submit_look", .setup = make_bind, .threads = { signal_in, submit_move, look_applied }, .bound = 1,
		.finish = end_bind, .oracle = "the same while an engine looks (one deviation: 150,000 schedules have three)" },
	{ .group = "gpuvm", .name = "bind_ban", .setup = make_bound, .threads = { signal_in, ban }, .finish = end_banned,
		.oracle = "a bind beside a ban is applied, or its fence says the error" },
};
EXPLORE_SCENARIOS(table);
