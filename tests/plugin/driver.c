/* SPDX-License-Identifier: MIT */
/*
 * A driver that is a plug-in. All that its hooks touch lies in the shared object, so a call or an access after it was unloaded
 * is a fault.
 */
#include "driver.h"

#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>

/* A block of the driver's with a buffer inside; the library frees it. */
struct frame {
	char before[40];
	struct lf_bo bo;
};

/* A block of the driver's with a fence inside; the library frees it. */
struct job {
	char before[40];
	struct lf_fence fence;
	char after[16];
};

static struct {
	struct lf_provider *provider;
	struct lf_timeline *ordered, *unordered, *hookless, *lost;
	struct lf_fence *fences[KINDS]; /* our references */
	struct lf_fence *watched; /* the host's, with our callback on it */
	struct lf_fence_cb watch_cb;
	struct lf_bo *bo;
	struct lf_attachment *imported; /* of a buffer of the host's */
	struct lf_bo_map *maps[8];
	struct lf_vm *vm;
	struct lf_deferred deferred;
	unsigned enabled, polled, emitted, detached, released, deferred_ran, mapped, told, left, ended, applied, unmapped, vms;
} driver;

static void count(unsigned *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
}

static unsigned get(const unsigned *counter)
{
	return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

static int hook_enable(struct lf_fence *f, void *data)
{
	(void)f;
	(void)data;
	count(&driver.enabled);
	return 0;
}

static int hook_poll(struct lf_fence *f, void *data)
{
	(void)f;
	(void)data;
	count(&driver.polled);
	/* Stay a little: close must wait for those that are inside. */
	sched_yield();
	return (int)(get(&driver.polled) & 0); /* pending; from our memory, after the pause */
}

static void hook_deadline(struct lf_fence *f, int64_t deadline, void *data)
{
	(void)f;
	(void)deadline;
	count(data);
}

static void hook_detach(struct lf_fence *f, void *data)
{
	(void)f;
	(void)data;
	count(&driver.detached);
}

static void hook_release(void *data)
{
	(void)data;
	count(&driver.released);
}

static const struct lf_fence_ops ops = { .enable = hook_enable, .poll = hook_poll, .set_deadline = hook_deadline, .detach = hook_detach };

static int timeline(const char *name, unsigned flags, const struct lf_fence_ops *hooks, struct lf_timeline **ret)
{
	/* A name from our memory, too: it must be copied. */
	const struct lf_timeline_desc desc = {
		.name = name, .flags = flags, .ops = hooks, .data = &driver.polled, .release = hook_release, .provider = driver.provider
	};

	return lf_timeline_create(&desc, ret);
}

static int emit(enum kind kind, struct lf_timeline *tl, bool hooks)
{
	driver.emitted += hooks;
	return lf_timeline_emit(tl, 0, &driver.fences[kind]);
}

static int emit_embedded(enum kind kind, struct lf_timeline *tl)
{
	struct job *job = lf_alloc(sizeof(*job));
	int r;

	if (!job)
		return -ENOMEM;
	r = lf_fence_init(&job->fence, offsetof(struct job, fence));
	if (r) {
		lf_free(job);
		return r;
	}
	driver.emitted++;
	driver.fences[kind] = &job->fence;
	return lf_timeline_emit_fence(tl, 0, &job->fence);
}

static int make_ordered(void)
{
	int r = 0;

	r |= emit(KIND_SIGNALED, driver.ordered, true);
	r |= emit(KIND_FAILED, driver.ordered, true);
	r |= emit(KIND_ARMED, driver.ordered, true);
	r |= emit(KIND_PENDING, driver.ordered, true);
	r |= emit(KIND_WAITED, driver.ordered, true);
	r |= emit_embedded(KIND_EMBEDDED, driver.ordered);
	lf_timeline_signal_to(driver.ordered, 1, 0);
	lf_timeline_signal_to(driver.ordered, 2, -EIO);
	return r;
}

static int make_unordered(void)
{
	int r = 0;

	r |= emit(KIND_POLLED, driver.unordered, true);
	r |= emit(KIND_ONE, driver.unordered, true);
	r |= emit_embedded(KIND_EMBEDDED_DONE, driver.unordered);
	r |= emit(KIND_WAITED_MANY, driver.unordered, true);
	r |= emit(KIND_IN_CALLBACK, driver.unordered, true);
	if (r)
		return r;
	lf_timeline_signal_one(driver.unordered, driver.fences[KIND_ONE], 0);
	lf_timeline_signal_one(driver.unordered, driver.fences[KIND_EMBEDDED_DONE], 0);
	return 0;
}

static int make_others(void)
{
	struct lf_timeline *gone;
	int r = 0;

	r |= emit(KIND_HOOKLESS, driver.hookless, false);
	lf_timeline_lose(driver.lost, -ENODEV);
	r |= emit(KIND_LOST, driver.lost, true);
	r |= timeline("gone", LF_TIMELINE_ORDERED, &ops, &gone);
	if (r)
		return r;
	r |= emit(KIND_DROPPED, gone, true);
	lf_timeline_put(gone);
	r |= lf_fence_create(&driver.fences[KIND_ALONE]);
	r |= lf_fence_create(&driver.fences[KIND_ALONE_PENDING]);
	r |= lf_fence_create_signaled(-EIO, 4711, &driver.fences[KIND_MADE_SIGNALED]);
	driver.fences[KIND_STUB] = lf_fence_stub();
	if (r == 0)
		lf_fence_signal(driver.fences[KIND_ALONE], 0);
	return r;
}

static struct lf_fence *share(enum kind kind)
{
	return lf_fence_get(driver.fences[kind]);
}

static int array(enum kind kind, unsigned flags, struct lf_fence *a, struct lf_fence *b, struct lf_fence *c)
{
	struct lf_fence *const members[] = { a, b, c };

	return lf_array_create(members, c ? 3 : 2, flags, &driver.fences[kind]);
}

static int make_containers(void)
{
	struct lf_fence *link;
	int r = 0;

	r |= array(KIND_ARRAY, LF_ARRAY_ALL, share(KIND_SIGNALED), share(KIND_PENDING), NULL);
	r |= array(KIND_ANY, LF_ARRAY_ANY, share(KIND_POLLED), share(KIND_EMBEDDED), NULL);
	r |= array(KIND_ANY_DONE, LF_ARRAY_ANY, share(KIND_PENDING), share(KIND_EMBEDDED_DONE), NULL);
	r |= lf_chain_append(share(KIND_EMBEDDED), share(KIND_ONE), 1, 0, &driver.fences[KIND_LINK]);
	if (r)
		return r;
	r |= lf_chain_append(share(KIND_LINK), share(KIND_HOOKLESS), 2, 0, &driver.fences[KIND_CHAIN]);
	if (r)
		return r;
	r |= array(KIND_NESTED, LF_ARRAY_ALL, share(KIND_CHAIN), share(KIND_ARRAY), share(KIND_POLLED));
	r |= array(KIND_STILL_PENDING, LF_ARRAY_ALL, share(KIND_PENDING), share(KIND_ALONE_PENDING), NULL);
	r |= lf_chain_append(share(KIND_ARMED), share(KIND_ALONE_PENDING), 1, 0, &link);
	if (r)
		return r;
	return array(KIND_STILL_PENDING_CHAIN, LF_ARRAY_ALL, share(KIND_EMBEDDED_DONE), link, NULL);
}

static void deferred_call(struct lf_deferred *node)
{
	(void)node;
	count(&driver.deferred_ran);
}

static void release_backing(void *memory, void *user)
{
	(void)memory;
	count(user);
}

static void end_buffer(struct lf_bo *bo)
{
	(void)bo;
	count(&driver.ended);
}

static int move(struct lf_bo *bo, const struct lf_backing *backing, struct lf_fence *f)
{
	int r = lf_resv_lock(bo->resv, NULL);

	if (r)
		return r;
	r = lf_bo_prepare_move(bo);
	if (r == 0)
		lf_bo_move(bo, backing, f);
	lf_resv_unlock(bo->resv);
	return r;
}

/* A buffer that has left one place, which waits for a fence that is signaled when the driver is closed. */
static int make_buffer(void)
{
	const struct lf_backing backing = { .memory = &driver, .release = release_backing, .user = &driver.left };
	const struct lf_bo_desc desc = { .offset = offsetof(struct frame, bo), .size = 4096, .backing = backing, .release = end_buffer,
		.provider = driver.provider, .name = "frame" };
	struct frame *frame = lf_alloc(sizeof(*frame));
	int r;

	if (!frame)
		return -ENOMEM;
	r = lf_bo_init(&frame->bo, &desc);
	if (r) {
		lf_free(frame);
		return r;
	}
	driver.bo = &frame->bo;
	return move(driver.bo, &backing, driver.fences[KIND_PENDING]);
}

/* Takes the buffer back from whoever has it mapped, and lets go of it. */
static int drop_buffer(void)
{
	int r = lf_resv_lock(driver.bo->resv, NULL);

	if (r)
		return r;
	r = lf_bo_revoke_begin(driver.bo);
	lf_resv_unlock(driver.bo->resv);
	if (r == 0)
		r = lf_bo_revoke_wait(driver.bo, LF_DEADLINE_NEVER);
	lf_bo_put(driver.bo);
	return r;
}

static int map(struct lf_attachment *a)
{
	int r = lf_attachment_map(a, &driver.maps[driver.mapped]);

	driver.mapped += r == 0;
	return r;
}

static void hook_invalidate(struct lf_attachment *a, void *data)
{
	count(data);
	if (map(a) != 0)
		abort();
}

static int hook_apply(struct lf_vm *vm, const struct lf_vm_op *list, size_t n, void *data)
{
	(void)vm;
	(void)list;
	(void)n;
	count(data);
	return 0;
}

static void hook_unmapped(struct lf_mapping *m, void *data)
{
	(void)m;
	(void)data;
	count(&driver.unmapped);
}

static void hook_vm_gone(void *data)
{
	(void)data;
	count(&driver.vms);
}

/* Maps the first page of a buffer, or unmaps it, when a fence has signaled. */
static int bind(struct lf_vm_bo *vm_bo, bool unmap, struct lf_fence *in)
{
	const struct lf_map_desc desc = { .va = 1 << 20, .size = 4096, .vm_bo = vm_bo };
	struct lf_txn txn;
	int r = lf_resv_lock(lf_vm_resv(driver.vm), NULL);

	if (r)
		return r;
	r = lf_txn_begin(&txn, driver.vm);
	if (r == 0) {
		r = unmap ? lf_txn_unmap(&txn, desc.va, desc.size) : lf_txn_map(&txn, &desc, NULL);
		r = r ? r : lf_txn_submit(&txn, &in, in ? 1 : 0, NULL);
		if (r)
			lf_txn_abort(&txn);
	}
	lf_resv_unlock(lf_vm_resv(driver.vm));
	return r;
}

/* An address space with a mapping of the host's buffer that is applied, and an unmap that waits for the driver's own fence. */
static int make_vm(struct lf_bo *bo)
{
	static const struct lf_vm_ops vm_ops = { .apply = hook_apply, .mapping_release = hook_unmapped, .release = hook_vm_gone };
	const struct lf_vm_desc desc = { .name = "vm", .flags = LF_VM_BIND, .ops = &vm_ops, .data = &driver.applied, .provider = driver.provider };
	struct lf_vm_bo *vm_bo;
	int r = lf_vm_create(&desc, &driver.vm);

	if (r)
		return r;
	r = lf_vm_bo_obtain(driver.vm, bo, &vm_bo);
	if (r)
		return r;
	r = bind(vm_bo, false, NULL);
	r = r ? r : bind(vm_bo, true, driver.fences[KIND_ARMED]);
	lf_vm_bo_put(vm_bo);
	return r;
}

static int driver_import(struct lf_bo *bo)
{
	const struct lf_attachment_desc desc = {
		.name = "importer", .invalidate = hook_invalidate, .data = &driver.told, .provider = driver.provider
	};
	int r = lf_bo_attach(bo, &desc, &driver.imported);

	if (r)
		return r;
	r = lf_resv_lock(bo->resv, NULL);
	if (r)
		return r;
	r = map(driver.imported);
	lf_resv_unlock(bo->resv);
	return r ? r : make_vm(bo);
}

static int drop_vm(void)
{
	int r = driver.vm ? lf_resv_lock(lf_vm_resv(driver.vm), NULL) : 0;

	if (r || !driver.vm)
		return r;
	r = lf_vm_close(driver.vm);
	lf_resv_unlock(lf_vm_resv(driver.vm));
	lf_vm_put(driver.vm);
	return r;
}

/* Whether the hooks of the address space were called as often as they should, before the provider was closed. */
static bool vm_is_gone(void)
{
	return !driver.vm || (get(&driver.applied) == 1 && get(&driver.unmapped) == 1 && get(&driver.vms) == 1);
}

/* What the close has unmapped is ours to free. */
static int drop_imported(void)
{
	if (driver.imported && lf_attachment_mapped(driver.imported) != 0)
		return -EBUSY;
	for (unsigned i = 0; i < driver.mapped; i++)
		lf_bo_unmap(driver.maps[i]);
	lf_attachment_put(driver.imported);
	return 0;
}

static struct lf_bo *driver_buffer(void)
{
	return lf_bo_get(driver.bo);
}

static unsigned driver_told(void)
{
	return get(&driver.told);
}

static int driver_open(void)
{
	int r = lf_provider_create("plug-in", &driver.provider);

	if (r)
		return r;
	r |= timeline("ordered", LF_TIMELINE_ORDERED, &ops, &driver.ordered);
	r |= timeline("unordered", LF_TIMELINE_UNORDERED, &ops, &driver.unordered);
	r |= timeline("hookless", LF_TIMELINE_ORDERED, NULL, &driver.hookless);
	r |= timeline("lost", LF_TIMELINE_ORDERED, &ops, &driver.lost);
	if (r)
		return r;
	r = make_ordered();
	r = r ? r : make_unordered();
	r = r ? r : make_others();
	r = r ? r : make_containers();
	return r ? r : make_buffer();
}

static struct lf_fence *driver_fence(enum kind kind)
{
	return lf_fence_get(driver.fences[kind]);
}

static struct lf_timeline *driver_unordered(void)
{
	return lf_timeline_get(driver.unordered);
}

static void watch_run(struct lf_fence *f, struct lf_fence_cb *cb)
{
	(void)f;
	(void)cb;
	/* The host signals this fence only after we are gone. */
	abort();
}

static int driver_watch(struct lf_fence *f)
{
	driver.watched = lf_fence_get(f);
	return lf_fence_add_callback(f, &driver.watch_cb, watch_run);
}

static unsigned driver_enabled(void)
{
	return get(&driver.enabled);
}

static unsigned driver_polled(void)
{
	return get(&driver.polled);
}

static unsigned driver_attached(void)
{
	return driver.emitted - get(&driver.detached);
}

static int driver_close(void)
{
	int r = drop_buffer();

	r = r ? r : drop_vm();
	r = r ? r : lf_provider_close(driver.provider, LF_DEADLINE_NEVER);
	if (r)
		return r;
	if (driver_attached() != 0 || get(&driver.left) != 2 || get(&driver.ended) != 1 || !vm_is_gone())
		return -EBUSY;
	r = drop_imported();
	if (r)
		return r;
	if (lf_fence_cancel_callback_sync(driver.watched, &driver.watch_cb) != LF_CB_REMOVED)
		return -EBUSY;
	lf_fence_put(driver.watched);
	for (int i = 0; i < KINDS; i++)
		lf_fence_put(driver.fences[i]);
	lf_timeline_put(driver.ordered);
	lf_timeline_put(driver.unordered);
	lf_timeline_put(driver.hookless);
	lf_timeline_put(driver.lost);
	lf_provider_put(driver.provider);
	/* A function of ours that was deferred has run when the barrier returns. */
	lf_defer_call(&driver.deferred, deferred_call);
	r = lf_reclaim_barrier();
	if (r)
		return r;
	return get(&driver.deferred_ran) == 1 ? 0 : -EBUSY;
}

static const struct driver entry = {
	.open = driver_open,
	.fence = driver_fence,
	.unordered = driver_unordered,
	.watch = driver_watch,
	.buffer = driver_buffer,
	.import = driver_import,
	.told = driver_told,
	.enabled = driver_enabled,
	.polled = driver_polled,
	.attached = driver_attached,
	.close = driver_close,
};

__attribute__((visibility("default"))) const struct driver *driver_entry(void);

const struct driver *driver_entry(void)
{
	return &entry;
}
