/* SPDX-License-Identifier: MIT */
/*
 * The bind queue: what engines walk follows what was asked for.
 *
 * Purpose: an unmap that waits for a job must not take the pages from under it, although the address space that userspace sees has changed
 * already. So there are two versions that count: the one asked for, and the one *applied*. Both are versions of one persistent tree: to
 * apply a transaction is to let engines walk the version that it made, by one store. Nothing is built for it, and nothing can fail in it
 * but the driver's own hook. A bind that waits holds its version.
 *
 * States of a bind:
 *
 *     queued --its in-fence signals--> ready --those before it are done--> applying --> applied
 *                                                                              \--the hook fails, or the VM was banned--> dropped
 *
 * Invariants:
 * BQ1. Binds are applied in the order of the queue, which is that of the transactions, one at a time: by whoever sets `applying`. So the
 *     applied version only goes forward.
 * BQ2. The version of each bind in the queue is held, and so is the applied one. What a bind's operations name is in its version or in the
 *     one before: alive while the hook runs.
 * BQ3. A bind's out-fence signals after the applied version was stored. When the VM is banned or closed the timeline is lost: all that are
 *     pending or will be complete at once, and binds that become ready are dropped without their hook.
 * BQ4. A bind in the queue has a reference on the VM until it was applied or dropped; what is applied has none, or the VM would never end.
 *     Whoever applies has one.
 *
 * Locking: vm->spin for the queue; nothing is called under it.
 *
 * Ordering: vm-applied.
 *
 * One queue a VM: with two, what is applied would be no version of the tree, and what an engine may rely on no sentence.
 */
#include <libfence/timeline.h>
#include <libfence/unwrap.h>

#include "base/alloc.h"
#include "base/reclaim.h"
#include "gpuvm/vm.h"

struct bind {
	struct lf_held held; /* the version that it applies */
	struct bind *next; /* protected by vm->spin */
	bool ready; /* protected by vm->spin */
	struct lf_fence *in; /* NULL: nothing to wait for */
	struct lf_fence_cb cb; /* on it */
	uint64_t seqno; /* of its out-fence */
	size_t count;
	struct lf_vm_op ops[];
};

/* --- What is applied --------------------------------------------------------------------------------------------------------- */

static struct lf_held *applied(const struct lf_vm *vm)
{
	/* order: vm-applied (acquire): the held version is seen as it was written, and so are its nodes */
	return (struct lf_held *)ptr_load(&vm->applied, PLANT_ORDER(159, memory_order_relaxed, memory_order_acquire));
}

void lf_vm_view_applied(const struct lf_vm *vm, struct lf_view *ret_view)
{
	const struct lf_held *held = applied(vm);

	if (held)
		*ret_view = (struct lf_view){ vm, (uintptr_t)held->root, held->version, 0 }; /* closes count when they were reaped */
	else
		lf_vm_view(vm, ret_view);
}

/* Ends what holds a version, which is in front of a bind's block, or all of it. Readers may look at it still. */
static void drop(struct lf_held *held)
{
	version_release(held);
	reclaim_free(&held->deferred, held);
}

static void apply_version(struct lf_vm *vm, struct lf_held *held)
{
	struct lf_held *old = applied(vm);

	/* order: vm-applied (release): an engine would walk a version whose nodes are not written */
	ptr_store(&vm->applied, (uintptr_t)held, PLANT_ORDER(94, memory_order_relaxed, memory_order_release));
	drop(old);
}

/* --- Applying ------------------------------------------------------------------------------------------------------------------ */

static int call_hook(struct lf_vm *vm, const struct bind *b)
{
	struct hook_frame frame;
	int ret;

	if (!vm->ops->apply)
		return 0;
	hook_enter(&frame, vm->resource.provider);
	ret = vm->ops->apply(vm, b->ops, b->count, vm->data);
	hook_leave(&frame);
	return ret;
}

/* Whether the version of a bind is to be applied, after calling the hook. */
static bool may_apply(struct lf_vm *vm, const struct bind *b)
{
	int error;

	if (b == vm->closing)
		return true;
	if (lf_vm_error(vm))
		return false;
	error = call_hook(vm, b);
	if (error)
		lf_vm_ban(vm, error);
	return !error || PLANTED(95);
}

static void apply(struct lf_vm *vm, struct bind *b)
{
	uint64_t seqno = b->seqno;

	if (may_apply(vm, b)) {
		apply_version(vm, &b->held);
		lf_timeline_signal_to(vm->timeline, seqno, 0);
	} else {
		drop(&b->held);
	}
	lf_vm_put(vm); /* the bind's (BQ4) */
}

/* The first bind, if it is ready and nobody else applies; then the caller does. */
static struct bind *take_ready(struct lf_vm *vm, bool mine)
{
	struct bind *b;

	port_spin_lock(&vm->spin);
	b = vm->binds;
	if ((vm->applying && !mine && !PLANTED(186)) || (b && !b->ready && !PLANTED(96)))
		b = NULL;
	if (b) {
		vm->binds = b->next;
		if (!b->next)
			vm->last_bind = NULL;
	}
	if (b || mine)
		vm->applying = b;
	port_spin_unlock(&vm->spin);
	return b;
}

/* Applies what can be, in order. The caller has a reference on the VM. */
static void run(struct lf_vm *vm)
{
	struct bind *b = take_ready(vm, false);

	while (b) {
		lf_fence_put(b->in);
		apply(vm, b);
		b = take_ready(vm, true);
	}
}

/* The in-fence's callback. */
static void become_ready(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct bind *b = container_of(cb, struct bind, cb);
	struct lf_vm *vm = lf_vm_get(b->held.vm); /* the bind may end below */

	(void)f;
	port_spin_lock(&vm->spin);
	b->ready = true;
	port_spin_unlock(&vm->spin);
	run(vm);
	lf_vm_put(vm);
}

/* --- Submitting ---------------------------------------------------------------------------------------------------------------- */

static size_t count_ops(struct lf_txn *txn)
{
	struct lf_txn_cursor cursor;
	struct lf_vm_op op;
	size_t n = 0;

	lf_txn_ops_begin(&cursor, txn);
	while (lf_txn_ops_next(&cursor, &op))
		n++;
	return n;
}

/* A bind with the operations of a transaction; the hook gets them, so without one there are none. NULL without memory. */
static struct bind *create(struct lf_txn *txn)
{
	size_t count = txn->vm->ops->apply ? count_ops(txn) : 0;
	struct lf_txn_cursor cursor;
	struct bind *b = mem_alloc_array(sizeof(*b), count, sizeof(b->ops[0]));

	if (!b)
		return NULL;
	memset(b, 0, sizeof(*b));
	lf_txn_ops_begin(&cursor, txn);
	/* A close meanwhile can leave less to prefetch. */
	while (b->count < count && lf_txn_ops_next(&cursor, &b->ops[b->count]))
		b->count++;
	return b;
}

/* All that can fail. */
static int prepare(struct lf_txn *txn, struct lf_fence *const *in, size_t count, struct bind **ret_bind, struct lf_fence **ret_out)
{
	struct bind *b = create(txn);
	int ret;

	if (!b)
		return -ENOMEM;
	ret = count ? lf_fence_merge(in, count, &b->in) : 0;
	if (!ret)
		ret = lf_timeline_emit(txn->vm->timeline, 0, ret_out);
	if (ret) {
		lf_fence_put(b->in);
		mem_free(b);
		return ret;
	}
	b->seqno = lf_fence_seqno(*ret_out);
	*ret_bind = b;
	return 0;
}

static void enqueue(struct lf_vm *vm, struct bind *b)
{
	port_spin_lock(&vm->spin);
	if (vm->last_bind)
		vm->last_bind->next = b;
	else
		vm->binds = b;
	vm->last_bind = b;
	port_spin_unlock(&vm->spin);
}

/* Lets the bind wait for its in-fence, and runs it if there is nothing to wait for. */
static void start(struct lf_vm *vm, struct bind *b)
{
	if (b->in && lf_fence_add_callback(b->in, &b->cb, become_ready) == 0)
		return;
	port_spin_lock(&vm->spin);
	b->ready = true;
	port_spin_unlock(&vm->spin);
	run(vm);
}

int lf_txn_submit(struct lf_txn *txn, struct lf_fence *const *in, size_t count, struct lf_fence **ret_out)
{
	struct lf_fence *out = NULL;
	struct lf_vm *vm;
	struct bind *b;
	int ret = txn_check(txn, __func__);

	if (ret)
		return ret;
	vm = txn->vm;
	if (unlikely(!vm->timeline || (count && !in)))
		return misuse(-EINVAL, "lf_txn_submit: %s", vm->timeline ? "the in-fences are missing" : "the VM has no bind queue");
	ret = prepare(txn, in, count, &b, &out);
	if (ret)
		return ret;
	lf_vm_get(vm); /* the bind's (BQ4) */
	lf_vm_get(vm); /* ours: the caller's may be put by what runs here */
	txn_publish(txn, &b->held);
	enqueue(vm, b);
	start(vm, b);
	if (ret_out)
		*ret_out = out;
	else
		lf_fence_put(out);
	lf_vm_put(vm);
	return 0;
}

/* --- Life ------------------------------------------------------------------------------------------------------------------------ */

int bind_init(struct lf_vm *vm)
{
	const struct lf_timeline_desc desc = { .name = vm->name };
	struct lf_held *first = mem_zalloc(sizeof(*first));
	int ret;

	ptr_store(&vm->applied, (uintptr_t)first, memory_order_relaxed); /* relaxed: nobody else sees the VM yet */
	vm->closing = mem_zalloc(sizeof(*vm->closing));
	if (!first || !vm->closing)
		return -ENOMEM;
	ret = lf_timeline_create(&desc, &vm->timeline);
	if (!ret)
		version_hold(vm, first);
	return ret;
}

/* Nobody has a reference on the VM, so no mapping is in any version; or it was never finished, and then it has no timeline. */
void bind_fini(struct lf_vm *vm)
{
	/* relaxed: as above, or nobody else sees it any more */
	struct lf_held *held = (struct lf_held *)ptr_load(&vm->applied, memory_order_relaxed);

	if ((void *)vm->closing != (void *)held)
		mem_free(vm->closing);
	if (vm->timeline)
		version_release(held);
	lf_timeline_put(vm->timeline);
	mem_free(held);
}

void bind_lose(struct lf_vm *vm, int error)
{
	lf_timeline_lose(vm->timeline, error);
}

/* --- Closing --------------------------------------------------------------------------------------------------------------------- */

struct lf_held *bind_closing(const struct lf_vm *vm)
{
	return vm->closing ? &vm->closing->held : NULL;
}

/* What was in the VM's reservation at its close has signaled. The last bind has a reference on the VM until it runs below. */
static void walk_no_more(struct lf_notice *notice)
{
	struct lf_vm *vm = lf_vm_get(container_of(notice, struct lf_vm, idle));

	port_spin_lock(&vm->spin);
	vm->closing->ready = true;
	port_spin_unlock(&vm->spin);
	run(vm);
	lf_vm_put(vm);
}

/* The close is the last bind: so what is applied goes forward here, too (BQ1). */
void bind_close(struct lf_vm *vm)
{
	lf_vm_get(vm); /* the bind's (BQ4) */
	enqueue(vm, vm->closing);
	if (lf_notice_arm(&vm->idle, vm->resv, LF_USAGE_BOOKKEEP, walk_no_more))
		walk_no_more(&vm->idle);
}
