/* SPDX-License-Identifier: MIT */
/* Buffers: they move under those who look, die under those who find them, and are mapped, invalidated, detached and revoked. */
#include "explore.h"

#include "base/port.h"

/* A backing, as a driver has it. */
struct storage {
	int contents; /* written and read without atomics by whoever may use it */
	unsigned released;
};
static struct storage first, second;

static struct lf_bo *bo;
static struct lf_resv *shared;
static struct lf_timeline *timeline;
static struct lf_fence *fence, *later;
static bool is_waited_for; /* fence: by each place that is left */
static struct lf_attachment *attachment;
static struct lf_bo_map *map;
static struct lf_provider *provider;
static unsigned bo_released;
static int inside[EXPLORE_THREADS + 4]; /* which threads are in a call that takes the buffer */
static bool detached; /* what the hook uses is gone */
static int calls; /* of the hook */
static int result;

/* --- Making ------------------------------------------------------------------------------------------------------------------ */

/* Nobody uses the backing any more: what others did with it is seen. */
static void release_storage(void *memory, void *user)
{
	struct storage *s = memory;

	(void)user;
	CHECK(s->released == 0 && !inside[explore_self()]);
	CHECK(!is_waited_for || lf_fence_is_signaled(fence));
	s->contents = -1;
	s->released++;
}

static void release_bo(struct lf_bo *b)
{
	CHECK(b == bo && bo_released == 0);
	CHECK(first.released == 1);
	bo_released++;
}

static void make_desc(struct lf_bo_desc *desc)
{
	*desc = (struct lf_bo_desc){ .size = 4096, .backing = { .memory = &first, .release = release_storage }, .release = release_bo,
		.resv = shared, .provider = provider, .name = "buffer" };
}

static void make(void)
{
	struct lf_bo_desc desc;

	make_desc(&desc);
	bo = lf_alloc(sizeof(*bo));
	*bo = (struct lf_bo){ 0 };
	CHECK(lf_bo_init(bo, &desc) == 0);
}

static void lock(void)
{
	CHECK(lf_resv_lock(bo->resv, NULL) == 0);
}

static void unlock(void)
{
	lf_resv_unlock(bo->resv);
}

/* The fence is in the reservation. */
static void make_with_fence(void)
{
	make();
	CHECK(lf_fence_create(&fence) == 0);
	lock();
	CHECK(lf_resv_reserve(bo->resv, 1) == 0);
	lf_resv_add(bo->resv, fence, LF_USAGE_BOOKKEEP);
	unlock();
	is_waited_for = true;
}

static void put_fences(void)
{
	lf_timeline_put(timeline);
	lf_fence_put(fence);
	lf_fence_put(later);
}

/* --- Moving ------------------------------------------------------------------------------------------------------------------- */

static void make_to_move(void)
{
	make();
	CHECK(lf_fence_create(&fence) == 0);
	is_waited_for = true;
}

/* A device that is done as soon as somebody asks. */
static int done_when_asked(struct lf_fence *f, void *data)
{
	(void)f;
	(void)data;
	return 1;
}

static void make_to_move_at_once(void)
{
	static const struct lf_fence_ops ops = { .enable = done_when_asked };
	static const struct lf_timeline_desc desc = { .name = "timeline", .ops = &ops };

	make();
	CHECK(lf_timeline_create(&desc, &timeline) == 0);
	CHECK(lf_timeline_emit(timeline, 1, &fence) == 0);
	is_waited_for = true;
	lf_bo_get(bo); /* for who looks */
}

static void move(void)
{
	const struct lf_backing backing = { .memory = &second, .release = release_storage };

	lock();
	CHECK(lf_bo_prepare_move(bo) == 0);
	second.contents = 2;
	inside[explore_self()] = 1;
	lf_bo_move(bo, &backing, fence);
	inside[explore_self()] = 0;
	CHECK(lf_bo_memory(bo) == &second);
	unlock();
}

static void move_and_put(void)
{
	move();
	lf_bo_put(bo);
}

/* The last use of the first place. */
static void signal(void)
{
	first.contents = 1;
	CHECK(lf_fence_signal(fence, 0));
}

/* Without the reservation: where it was or is. */
static void look(void)
{
	const struct storage *s;

	s = lf_bo_memory(bo);
	CHECK(s == &first || s == &second);
	if (s == &second)
		CHECK(s->contents == 2);
}

static void look_only(void)
{
	const struct storage *s = lf_bo_memory(bo);

	CHECK(s == &first || s == &second);
}

static void look_and_put(void)
{
	look_only();
	lf_bo_put(bo);
}

static void first_is_gone(void)
{
	CHECK(first.released == (lf_fence_is_signaled(fence) ? 1 : 0));
	CHECK(second.released == 0);
	if (!lf_fence_is_signaled(fence))
		lf_fence_signal(fence, 0);
	lf_bo_put(bo);
	put_fences();
}

static void both_are_gone(void)
{
	CHECK(first.released == 1 && second.released == 1 && bo_released == 1);
	put_fences();
}

/* --- Dying -------------------------------------------------------------------------------------------------------------------- */

static lf_atomic_ptr published; /* struct lf_bo */

static void publish(void)
{
	make_with_fence();
	ptr_store(&published, (uintptr_t)bo, memory_order_release);
}

static void find(void)
{
	struct lf_bo *b, *kept;

	lf_read_lock();
	b = (struct lf_bo *)ptr_load(&published, memory_order_acquire);
	kept = lf_bo_tryget(b);
	if (b)
		CHECK(b->size == 4096);
	lf_read_unlock();
	if (!kept)
		return;
	CHECK(lf_bo_memory(kept) == &first && bo_released == 0 && first.released == 0);
	lf_bo_put(kept);
}

static void withdraw(void)
{
	lf_bo_put((struct lf_bo *)ptr_xchg(&published, 0, memory_order_relaxed));
}

static void one_is_gone(void)
{
	CHECK(first.released == 1 && bo_released == 1);
	put_fences();
}

/* The reservation is shared with somebody, who goes on using it. */
static void make_shared(void)
{
	CHECK(lf_resv_create(NULL, &shared) == 0);
	make_with_fence();
	CHECK(lf_fence_create(&later) == 0);
}

static void put(void)
{
	lf_bo_put(bo);
}

/* Perhaps before the put, but then it is signaled in the end, too. */
static void add_later(void)
{
	CHECK(lf_resv_lock(shared, NULL) == 0);
	CHECK(lf_resv_reserve(shared, 1) == 0);
	lf_resv_add(shared, later, LF_USAGE_WRITE);
	lf_resv_unlock(shared);
}

static void shared_is_left(void)
{
	lf_fence_signal(later, 0);
	CHECK(first.released == 1 && bo_released == 1);
	lf_resv_put(shared);
	put_fences();
}

/* --- Attachments --------------------------------------------------------------------------------------------------------------- */

static void on_invalidate(struct lf_attachment *a, void *data)
{
	CHECK(a == attachment && data == &calls);
	CHECK(!detached);
	calls++;
}

static void attach(void (*hook)(struct lf_attachment *, void *))
{
	CHECK(lf_bo_attach(bo, &(struct lf_attachment_desc){ .name = "importer", .invalidate = hook, .data = &calls,
		.provider = provider }, &attachment) == 0);
}

static void make_attached(void)
{
	make();
	attach(on_invalidate);
}

static void invalidate(void)
{
	lock();
	lf_bo_invalidate(bo);
	unlock();
}

static void detach(void)
{
	CHECK(lf_attachment_detach(attachment) == 0);
	detached = true; /* plain: what the hook did came before */
	calls = -1;
}

static void detach_only(void)
{
	CHECK(lf_attachment_detach(attachment) == 0);
}

static void put_attachment(void)
{
	lf_attachment_put(attachment);
}

static void detach_and_put(void)
{
	detach();
	lf_attachment_put(attachment);
}

static void on_invalidate_detaches(struct lf_attachment *a, void *data)
{
	on_invalidate(a, data);
	CHECK(lf_attachment_detach(a) == 0);
}

/* The buffer moves again. */
static void on_invalidate_invalidates(struct lf_attachment *a, void *data)
{
	on_invalidate(a, data);
	if (calls == 1)
		lf_bo_invalidate(bo);
}

static void make_attached_to_invalidate(void)
{
	make();
	attach(on_invalidate_invalidates);
}

static void make_attached_to_detach(void)
{
	make();
	attach(on_invalidate_detaches);
}

static void end_attached(void)
{
	lf_attachment_put(attachment);
	lf_bo_put(bo);
}

static void called_at_most_once(void)
{
	CHECK(calls <= 1);
	end_attached();
}

static void called_twice(void)
{
	CHECK(calls == 2);
	end_attached();
}

static void called_at_most_twice(void)
{
	CHECK(calls <= 2);
	end_attached();
}

static void end_bo(void)
{
	lf_bo_put(bo);
}

/* --- Mappings ----------------------------------------------------------------------------------------------------------------- */

/* The importer unmaps at the end of its own work, so not in the hook. */
static void on_invalidate_does_nothing(struct lf_attachment *a, void *data)
{
	(void)a;
	(void)data;
}

static void make_to_map(void)
{
	make();
	attach(on_invalidate_does_nothing);
}

static void make_mapped(void)
{
	make_to_map();
	CHECK(lf_fence_create(&fence) == 0);
	lock();
	CHECK(lf_attachment_map(attachment, &map) == 0);
	unlock();
}

static void make_mapped_to_move(void)
{
	make_mapped();
	is_waited_for = true;
}

static void move_and_finish_copy(void)
{
	move();
	CHECK(lf_fence_signal(fence, 0));
}

static void use_and_unmap(void)
{
	struct storage *s = lf_bo_map_memory(map);

	CHECK(s == &first && s->released == 0);
	s->contents = 1;
	lf_bo_unmap(map);
}

static void map_and_unmap(void)
{
	lock();
	result = lf_attachment_map(attachment, &map);
	unlock();
	CHECK(result == 0 || result == -ENODEV);
	if (result == 0)
		use_and_unmap();
}

static void map_where_it_is(void)
{
	struct lf_bo_map *m;
	struct storage *s;

	lock();
	CHECK(lf_attachment_map(attachment, &m) == 0);
	unlock();
	s = lf_bo_map_memory(m);
	CHECK(s == &first || lf_bo_map_fence(m) == fence);
	CHECK(s->released == 0);
	lf_bo_unmap(m);
}

static void revoke_all(void)
{
	lock();
	CHECK(lf_bo_revoke_begin(bo) == 0);
	unlock();
	CHECK(lf_bo_revoke_wait(bo, LF_DEADLINE_NEVER) == 0);
	first.contents = 0; /* plain: nobody uses it any more */
	CHECK(lf_bo_next_mapped(bo, NULL) == NULL);
}

static void wait_revoked(void)
{
	if (lf_bo_is_revoked(bo)) {
		int ret = lf_bo_revoke_wait(bo, lf_now() + 1000);

		CHECK(ret == 0 || ret == -ETIME);
	}
}

static void unmapped_and_gone(void)
{
	CHECK(first.released == 1);
	lf_attachment_put(attachment);
	lf_bo_put(bo);
	put_fences();
}

static void end_moved_attached(void)
{
	lf_fence_signal(fence, 0);
	lf_attachment_put(attachment);
	lf_bo_put(bo);
	put_fences();
}

static void end_mapped(void)
{
	CHECK(first.released == 0);
	lf_bo_unmap(map);
	end_moved_attached();
}

/* --- The provider closes --------------------------------------------------------------------------------------------------------- */

static void make_provider(void)
{
	CHECK(lf_provider_create("provider", &provider) == 0);
}

/* The importer is the provider's, the buffer somebody else's. */
static void make_attached_by_provider(void)
{
	make();
	make_provider();
	attach(on_invalidate);
	lock();
	CHECK(lf_attachment_map(attachment, &map) == 0);
	unlock();
}

static void make_of_provider(void)
{
	make_provider();
	make();
}

/* Its code is gone. */
static void close_provider(void)
{
	CHECK(lf_provider_close(provider, LF_DEADLINE_NEVER) == 0);
	detached = true;
}

static void close_provider_and_look(void)
{
	close_provider();
	CHECK(first.released == 1 && bo_released == 1);
}

static void unmap(void)
{
	lf_bo_unmap(map);
}

static void end_attached_by_provider(void)
{
	lf_bo_unmap(map);
	end_attached();
	lf_provider_put(provider);
}

static void end_unmapped_by_provider(void)
{
	end_attached();
	lf_provider_put(provider);
}

static void put_provider(void)
{
	lf_provider_put(provider);
}

static const struct explore_scenario table[] = {
	{ .group = "bo", .name = "bo_move_look", .setup = make_to_move, .threads = { move, look, look }, .finish = first_is_gone,
		.oracle = "who looks without the lock finds a place as it was made" },
	{ .group = "bo", .name = "bo_move_signal", .setup = make_to_move, .threads = { move, signal, look_only }, .finish = first_is_gone,
		.oracle = "what was left is released once, when the move's fence is signaled" },
	{ .group = "bo", .name = "bo_move_put", .setup = make_to_move, .threads = { move_and_put, signal }, .finish = both_are_gone,
		.oracle = "both places are released, and then the buffer" },
	{ .group = "bo", .name = "bo_move_enable", .setup = make_to_move_at_once, .threads = { move_and_put, look_and_put },
		.finish = both_are_gone, .oracle = "no place is released inside a call that takes the buffer" },
	{ .group = "bo", .name = "bo_put_find", .setup = publish, .threads = { withdraw, find, signal }, .finish = one_is_gone,
		.oracle = "who finds a dying buffer has it or not, and its place waits for its fences" },
	{ .group = "bo", .name = "bo_put_shared", .setup = make_shared, .threads = { put, add_later, signal },
		.finish = shared_is_left, .oracle = "a dying buffer takes the fences along that its shared reservation has" },
	{ .group = "bo", .name = "attachment_detach", .setup = make_attached, .threads = { invalidate, detach }, .finish = end_attached,
		.oracle = "behind detach the hook does not run" },
	{ .group = "bo", .name = "attachment_detach_two", .setup = make_attached, .threads = { invalidate, detach, detach_only },
		.finish = end_attached, .oracle = "the same when two detach" },
	{ .group = "bo", .name = "attachment_put", .setup = make_attached, .threads = { invalidate, put_attachment }, .finish = end_bo,
		.oracle = "an attachment may be put for the last time while the importers are called" },
	{ .group = "bo", .name = "attachment_detach_put", .setup = make_attached, .threads = { invalidate, detach_and_put },
		.finish = end_bo, .oracle = "the same when it detaches before" },
	{ .group = "bo", .name = "attachment_two_invalidate", .setup = make_attached, .threads = { invalidate, invalidate, detach_only },
		.finish = called_at_most_twice, .bound = 2, /* two that wait for the reservation's lock, see scenarios_ww.c */
		.oracle = "a hook runs on one thread at a time" },
	{ .group = "bo", .name = "attachment_again", .setup = make_attached_to_invalidate, .threads = { invalidate, look_only },
		.finish = called_twice, .oracle = "a hook is told again of what happened inside it" },
	{ .group = "bo", .name = "attachment_detaches_itself", .setup = make_attached_to_detach,
		.threads = { invalidate, detach_only }, .finish = called_at_most_once,
		.oracle = "a hook may detach, and is not called again" },
	{ .group = "bo", .name = "map_revoke", .setup = make_to_map, .threads = { map_and_unmap, revoke_all }, .finish = end_attached,
		.oracle = "behind a revoke nothing is mapped, and what was done with mappings is seen" },
	{ .group = "bo", .name = "map_revoke_wait", .setup = make_mapped, .threads = { use_and_unmap, revoke_all, wait_revoked },
		.finish = end_moved_attached, .oracle = "the last mapping wakes who waits" },
	{ .group = "bo", .name = "map_move", .setup = make_mapped_to_move, .threads = { move_and_finish_copy, use_and_unmap },
		.finish = unmapped_and_gone, .oracle = "a place is not released while it is mapped" },
	{ .group = "bo", .name = "map_where_it_is", .setup = make_mapped_to_move, .threads = { move, map_where_it_is }, .finish = end_mapped,
		.oracle = "a mapping comes with the fence from which it is valid" },
	{ .group = "bo", .name = "attachment_close", .setup = make_attached_by_provider, .threads = { close_provider, invalidate },
		.finish = end_attached_by_provider, .oracle = "behind the close of its provider no hook is called" },
	{ .group = "bo", .name = "map_close", .setup = make_attached_by_provider, .threads = { close_provider, unmap },
		.finish = end_unmapped_by_provider, .oracle = "the importer or the close unmaps, once" },
	{ .group = "bo", .name = "bo_close", .setup = make_of_provider, .threads = { close_provider_and_look, put },
		.flags = EXPLORE_RECLAIMER, .finish = put_provider,
		.bound = 2, /* all that the reclaimer and ending threads do is explored, too */
		.oracle = "a close waits until the buffers have released what they had" },
};
EXPLORE_SCENARIOS(table);
