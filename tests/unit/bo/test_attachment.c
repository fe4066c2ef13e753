/* SPDX-License-Identifier: MIT */
/*
 * Attachments: importers that are told, map, and let go, in every order and from inside their hooks; and those whose provider closes. The
 * oracles of hooks and releases are in buffers.h. Threads that do these things at once are in tests/race/race_bo.c.
 */
#include "buffers.h"

/* --- Telling ---------------------------------------------------------------------------------------------------------- */

static void importers_are_told_of_a_move_in_the_order_of_attaching(void **state)
{
	struct memory m[2] = { 0 };
	struct importer i[3] = { 0 };
	struct buffer *b = buffer_new(&m[0]);
	for (int k = 0; k < 3; k++)
		attach(&i[k], b, "importer");
	importers_told = 0;
	move(b, &m[1], NULL);
	for (unsigned k = 0; k < 3; k++) {
		assert_int_equal(i[k].told, 1);
		assert_int_equal(i[k].order, k + 1);
	}
	let_go(&i[1]);
	invalidate(b);
	assert_int_equal(i[0].told, 2);
	assert_int_equal(i[1].told, 1);
	assert_int_equal(i[2].told, 2);
	let_go(&i[0]);
	let_go(&i[2]);
	end(b);
}

static void an_attachment_knows_its_name_and_keeps_its_buffer(void **state)
{
	struct memory m = { 0 };
	struct importer i = { 0 };
	struct buffer *b = buffer_new(&m);
	char name[] = "camera";
	attach(&i, b, name);
	memset(name, 'x', 6);
	assert_string_equal(lf_attachment_name(i.a), "camera");
	assert_ptr_equal(lf_attachment_bo(i.a), &b->bo);
	assert_int_equal(lf_attachment_mapped(i.a), 0);
	assert_ptr_equal(lf_attachment_get(i.a), i.a);
	assert_null(lf_attachment_get(NULL));
	lf_attachment_put(NULL);
	lf_attachment_put(i.a);
	end(b);
	expect_there(&m);
	let_go(&i);
	settle();
	expect_released(&m);
}

static void wrong_arguments_are_refused(void **state)
{
	struct lf_attachment *a = NULL;
	struct lf_bo_map *m = NULL;
	struct importer i = { 0 };
	struct buffer *b = buffer_new(NULL);
	const struct lf_attachment_desc no_name = { .invalidate = importer_told }, no_hook = { .name = "x" };
	assert_int_equal(lf_bo_attach(&b->bo, &no_name, &a), -EINVAL);
	assert_int_equal(lf_bo_attach(&b->bo, &no_hook, &a), -EINVAL);
	assert_int_equal(lf_bo_attach(&b->bo, NULL, &a), -EINVAL);
	assert_int_equal(lf_attachment_detach(NULL), -EINVAL);
	expect_misuse(4);
	attach(&i, b, "x");
	assert_int_equal(lf_attachment_map(i.a, &m), -EINVAL); /* not locked */
	assert_int_equal(lf_attachment_map(NULL, &m), -EINVAL);
	assert_int_equal(lf_attachment_map(i.a, NULL), -EINVAL);
	expect_misuse(3);
	assert_null(m);
	lf_bo_unmap(NULL);
	let_go(&i);
	end(b);
}

/* --- Mapping ---------------------------------------------------------------------------------------------------------- */

static void a_mapping_keeps_its_place_and_nothing_else_does(void **state)
{
	struct memory m[3] = { 0 };
	struct importer i = { 0 };
	struct lf_bo_map *maps[2];
	struct buffer *b = buffer_new(&m[0]);
	attach(&i, b, "importer");
	maps[0] = map(&i);
	assert_ptr_equal(lf_bo_map_fence(maps[0]), lf_fence_stub());
	move(b, &m[1], NULL);
	move(b, &m[2], NULL);
	maps[1] = map(&i);
	assert_int_equal(lf_attachment_mapped(i.a), 2);
	settle();
	expect_there(&m[0]);
	expect_released(&m[1]); /* was never mapped */
	assert_ptr_equal(lf_bo_map_memory(maps[0]), &m[0]);
	assert_ptr_equal(lf_bo_map_memory(maps[1]), &m[2]);
	unmap(maps[0]);
	assert_int_equal(lf_attachment_mapped(i.a), 1);
	settle();
	expect_released(&m[0]);
	unmap(maps[1]);
	settle();
	expect_there(&m[2]);
	let_go(&i);
	end(b);
	expect_released(&m[2]);
}

static void a_place_waits_for_fences_and_mappings_whichever_is_last(void **state)
{
	for (int unmap_first = 0; unmap_first < 2; unmap_first++) {
		struct memory m[2] = { 0 };
		struct importer i = { 0 };
		struct lf_fence *f = new_fence();
		struct buffer *b = buffer_new(&m[0]);
		struct lf_bo_map *one, *two;
		attach(&i, b, "importer");
		one = map(&i);
		two = map(&i);
		move(b, &m[1], f);
		unmap(one);
		if (unmap_first)
			unmap(two);
		settle();
		expect_there(&m[0]);
		lf_fence_signal(f, 0);
		if (!unmap_first) {
			settle();
			expect_there(&m[0]);
			unmap(two);
			settle();
		}
		expect_released(&m[0]);
		lf_fence_put(f);
		let_go(&i);
		end(b);
	}
}

static void a_mapping_carries_the_fence_from_which_it_is_valid(void **state)
{
	struct memory m[2] = { 0 };
	struct importer i = { 0 };
	struct lf_fence *f[2] = { new_fence(), new_fence() }, *job = new_fence();
	struct lf_bo_map *one, *both;
	struct buffer *b = buffer_new(&m[0]);
	attach(&i, b, "importer");
	add_fence(b->bo.resv, job, LF_USAGE_WRITE); /* nothing to wait for */
	move(b, &m[1], f[0]);
	one = map(&i);
	assert_ptr_equal(lf_bo_map_fence(one), f[0]);
	add_fence(b->bo.resv, f[1], LF_USAGE_KERNEL);
	both = map(&i);
	lf_fence_signal(f[0], 0);
	assert_true(lf_fence_is_signaled(lf_bo_map_fence(one)));
	assert_false(lf_fence_is_signaled(lf_bo_map_fence(both)));
	unmap(one);
	lf_fence_signal(f[1], 0);
	assert_true(lf_fence_is_signaled(lf_bo_map_fence(both)));
	unmap(both);
	lf_fence_signal(job, 0);
	lf_fence_put(job);
	lf_fence_put(f[0]);
	lf_fence_put(f[1]);
	let_go(&i);
	end(b);
}

static void a_buffer_that_is_nowhere_can_be_mapped(void **state)
{
	struct importer i = { 0 };
	struct buffer *b = buffer_new(NULL);
	attach(&i, b, "importer");
	i.map = map(&i);
	assert_null(lf_bo_map_memory(i.map));
	unmap(i.map);
	let_go(&i);
	end(b);
}

static void a_mapping_keeps_attachment_and_buffer(void **state)
{
	struct memory m = { 0 };
	struct importer i = { 0 };
	struct lf_attachment *found;
	struct buffer *b = buffer_new(&m);
	struct lf_bo *bo = &b->bo;
	attach(&i, b, "importer");
	i.map = map(&i);
	let_go(&i);
	put(b);
	settle();
	expect_there(&m);
	found = lf_bo_next_mapped(bo, NULL);
	assert_non_null(found);
	lf_attachment_put(found);
	unmap(i.map); /* the last of all */
	settle();
	expect_released(&m);
}

static int attach_map_and_let_go(void *arg)
{
	struct importer i = { 0 };
	struct buffer *b = arg;
	int error = attach_to(&i, &b->bo, "importer", NULL);
	if (error)
		return error;
	lock(b);
	error = lf_attachment_map(i.a, &i.map);
	unlock(b);
	if (error)
		must(lf_attachment_mapped(i.a) == 0);
	else
		unmap(i.map);
	let_go(&i);
	return error;
}

static void without_memory_nothing_is_attached_or_mapped(void **state)
{
	struct lf_fence *f[2] = { new_fence(), new_fence() };
	struct buffer *b = buffer_new(NULL);
	add_fence(b->bo.resv, f[0], LF_USAGE_KERNEL);
	add_fence(b->bo.resv, f[1], LF_USAGE_KERNEL); /* so that the mapping's fence is an array */
	assert_true(alloc_fail_each(attach_map_and_let_go, b) >= 4);
	lock(b);
	assert_int_equal(lf_bo_revoke_begin(&b->bo), 0); /* what was not made is not counted */
	unlock(b);
	assert_int_equal(lf_bo_revoke_wait(&b->bo, 0), 0);
	for (int k = 0; k < 2; k++) {
		lf_fence_signal(f[k], 0);
		lf_fence_put(f[k]);
	}
	end(b);
}

/* --- From inside the hook --------------------------------------------------------------------------------------------- */

/* Maps the new place; the old mapping stays. */
static void map_again(struct importer *i)
{
	struct lf_bo_map **old = i->user;
	if (old)
		*old = i->map;
	i->map = map_locked(i);
}

static void the_new_place_is_mapped_from_inside_the_hook(void **state)
{
	struct memory m[2] = { 0 };
	struct lf_bo_map *old = NULL;
	struct importer i = { .during = map_again, .user = &old };
	struct lf_fence *arrived = new_fence();
	struct buffer *b = buffer_new(&m[0]);
	attach(&i, b, "importer");
	i.map = map(&i);
	move(b, &m[1], arrived);
	assert_ptr_equal(lf_bo_map_memory(old), &m[0]);
	assert_ptr_equal(lf_bo_map_memory(i.map), &m[1]);
	assert_ptr_equal(lf_bo_map_fence(i.map), arrived);
	lf_fence_signal(arrived, 0);
	settle();
	expect_there(&m[0]);
	unmap(old);
	settle();
	expect_released(&m[0]);
	unmap(i.map);
	lf_fence_put(arrived);
	let_go(&i);
	end(b);
}

static void unmap_inside(struct importer *i)
{
	unmap(i->map);
	i->map = NULL;
}

static void an_importer_without_fences_unmaps_inside(void **state)
{
	struct memory m[2] = { 0 };
	struct importer i = { .during = unmap_inside };
	struct buffer *b = buffer_new(&m[0]);
	attach(&i, b, "importer");
	i.map = map(&i);
	move(b, &m[1], NULL);
	settle();
	expect_released(&m[0]);
	let_go(&i);
	end(b);
}

/* Adds a fence to the reservation, as an importer does whose device still reads. */
static void fence_inside(struct importer *i)
{
	struct lf_resv *resv = lf_attachment_bo(i->a)->resv;
	i->result = lf_resv_reserve(resv, 1);
	if (i->result == 0)
		lf_resv_add(resv, i->user, LF_USAGE_BOOKKEEP);
}

static void an_importer_adds_fences_inside(void **state)
{
	struct memory m[3] = { 0 };
	struct lf_fence *reads = new_fence();
	struct importer i = { .during = fence_inside, .user = reads };
	struct buffer *b = buffer_new(&m[0]);
	attach(&i, b, "importer");
	move(b, &m[1], NULL);
	assert_int_equal(i.result, 0);
	i.during = NULL;
	settle();
	expect_released(&m[0]); /* it came after that one was left */
	move(b, &m[2], NULL);
	settle();
	expect_there(&m[1]);
	lf_fence_signal(reads, 0);
	expect_released(&m[1]);
	lf_fence_put(reads);
	let_go(&i);
	end(b);
}

/* Signals what a ghost waits for. */
static void signal_inside(struct importer *i)
{
	lf_fence_signal(i->user, 0);
}

static void a_hook_that_signals_releases_nothing_inside_the_call(void **state)
{
	struct memory m[2] = { 0 };
	struct lf_fence *f = new_fence();
	struct importer i = { .during = signal_inside, .user = f };
	struct buffer *b = buffer_new(&m[0]);
	attach(&i, b, "importer");
	move(b, &m[1], f);
	assert_true(lf_fence_is_signaled(f));
	settle();
	expect_released(&m[0]);
	lf_fence_put(f);
	let_go(&i);
	end(b);
}

struct family {
	struct importer i[4];
	struct buffer *b;
};

/* The second of four: one joins behind, one that is behind leaves, and it leaves itself. */
static void join_and_leave(struct importer *i)
{
	struct family *family = i->user;
	attach(&family->i[3], family->b, "late");
	i->result = lf_attachment_detach(family->i[2].a);
	CALL(lf_attachment_put(family->i[2].a));
	must(lf_attachment_detach(i->a) == 0); /* inside itself: at once */
	CALL(lf_attachment_put(i->a));
}

static void importers_come_and_go_inside_the_hook(void **state)
{
	struct family family = { 0 };
	family.b = buffer_new(NULL);
	for (int k = 0; k < 3; k++)
		attach(&family.i[k], family.b, "early");
	family.i[1].during = join_and_leave;
	family.i[1].user = &family;
	invalidate(family.b);
	assert_int_equal(family.i[0].told, 1);
	assert_int_equal(family.i[1].told, 1);
	assert_int_equal(family.i[1].result, 0);
	assert_int_equal(family.i[2].told, 0);
	assert_int_equal(family.i[3].told, 0); /* attached meanwhile */
	invalidate(family.b);
	assert_int_equal(family.i[0].told, 2);
	assert_int_equal(family.i[1].told, 1);
	assert_int_equal(family.i[3].told, 1);
	let_go(&family.i[0]);
	let_go(&family.i[3]);
	end(family.b);
}

/* Once, a move of its own, from inside. */
static void move_inside(struct importer *i)
{
	struct buffer *b = (struct buffer *)(void *)((char *)lf_attachment_bo(i->a) - offsetof(struct buffer, bo));
	if (i->told == 1)
		move_locked(b, i->user, NULL);
}

static void an_importer_that_moves_the_buffer_inside_is_told_again(void **state)
{
	struct memory m[3] = { 0 };
	struct importer i = { .during = move_inside, .user = &m[2] }, other = { 0 };
	struct buffer *b = buffer_new(&m[0]);
	attach(&i, b, "mover");
	attach(&other, b, "other");
	lock(b);
	assert_int_equal(lf_bo_prepare_move(&b->bo), 0);
	CALL(lf_bo_move(&b->bo, &(struct lf_backing){ .memory = &m[1], .release = memory_release, .user = &m[1].wrong }, NULL));
	unlock(b);
	assert_int_equal(i.told, 2);
	assert_true(other.told >= 1);
	assert_ptr_equal(lf_bo_memory(&b->bo), &m[2]);
	let_go(&i);
	let_go(&other);
	end(b);
	for (int k = 0; k < 3; k++)
		expect_released(&m[k]);
}

/* --- Unmapping from anywhere ------------------------------------------------------------------------------------------ */

struct unmap_cb {
	struct lf_fence_cb cb;
	struct lf_bo_map *map;
	struct lf_attachment *a;
};

static void unmap_in_callback(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct unmap_cb *u = (struct unmap_cb *)cb;
	unmap(u->map);
	must(lf_attachment_detach(u->a) == 0);
	CALL(lf_attachment_put(u->a));
}

static void an_importer_leaves_in_the_callback_of_its_own_fence(void **state)
{
	struct memory m[2] = { 0 };
	struct importer i = { 0 };
	struct lf_fence *f = new_fence();
	struct unmap_cb u;
	struct buffer *b = buffer_new(&m[0]);
	attach(&i, b, "importer");
	memset(&u, 0, sizeof(u));
	u.map = map(&i);
	u.a = i.a;
	assert_int_equal(lf_fence_add_callback(f, &u.cb, unmap_in_callback), 0);
	move(b, &m[1], NULL);
	settle();
	expect_there(&m[0]);
	lf_fence_signal(f, 0);
	settle();
	expect_released(&m[0]);
	lf_fence_put(f);
	end(b);
}

static void unmapping_in_a_read_section_releases_later(void **state)
{
	struct memory m[2] = { 0 };
	struct importer i = { 0 };
	struct buffer *b = buffer_new(&m[0]);
	attach(&i, b, "importer");
	i.map = map(&i);
	move(b, &m[1], NULL);
	settle();
	lf_read_lock();
	unmap(i.map);
	let_go(&i);
	expect_there(&m[0]);
	lf_read_unlock();
	settle();
	expect_released(&m[0]);
	end(b);
}

static void unmapping_does_not_need_the_lock_that_another_holds(void **state)
{
	struct memory m[2] = { 0 };
	struct importer i = { 0 };
	struct buffer *b = buffer_new(&m[0]);
	attach(&i, b, "importer");
	i.map = map(&i);
	lock(b);
	move_locked(b, &m[1], NULL);
	unmap(i.map);
	settle(); /* nor does the release */
	expect_released(&m[0]);
	unlock(b);
	let_go(&i);
	end(b);
}

/* --- Detaching -------------------------------------------------------------------------------------------------------- */

static void a_detached_importer_is_not_told_and_keeps_its_mappings(void **state)
{
	struct memory m[2] = { 0 };
	struct importer i = { 0 };
	struct lf_bo_map *more = NULL;
	struct lf_attachment *found;
	struct buffer *b = buffer_new(&m[0]);
	attach(&i, b, "importer");
	i.map = map(&i);
	assert_int_equal(lf_attachment_detach(i.a), 0);
	assert_int_equal(lf_attachment_detach(i.a), 0);
	move(b, &m[1], NULL);
	assert_int_equal(i.told, 0);
	lock(b);
	assert_int_equal(lf_attachment_map(i.a, &more), -ENODEV);
	unlock(b);
	assert_null(more);
	assert_int_equal(lf_attachment_mapped(i.a), 1);
	found = lf_bo_next_mapped(&b->bo, NULL);
	assert_ptr_equal(found, i.a);
	assert_null(lf_bo_next_mapped(&b->bo, found));
	settle();
	expect_there(&m[0]);
	unmap(i.map);
	assert_null(lf_bo_next_mapped(&b->bo, NULL));
	settle();
	expect_released(&m[0]);
	let_go(&i);
	end(b);
}

static void detaching_in_a_read_section_is_reported_and_done(void **state)
{
	struct importer i = { 0 };
	struct buffer *b = buffer_new(NULL);
	attach(&i, b, "importer");
	lf_read_lock();
	assert_int_equal(lf_attachment_detach(i.a), -EDEADLK);
	lf_read_unlock();
	expect_misuse(1);
	invalidate(b);
	assert_int_equal(i.told, 0);
	let_go(&i);
	end(b);
}

static void block_inside(struct importer *i)
{
	flag_set(&i->entered);
	flag_wait(&i->leave);
	usleep(10000);
}

static void *invalidate_thread(void *arg)
{
	invalidate(arg);
	return NULL;
}

static void *detach_thread(void *arg)
{
	struct importer *i = arg;
	must(lf_attachment_detach(i->a) == 0);
	must(count_get(&i->running) == 0);
	return NULL;
}

static void blocking_init(struct importer *i)
{
	*i = (struct importer){ .during = block_inside };
	flag_init(&i->entered);
	flag_init(&i->leave);
}

static void blocking_fini(struct importer *i)
{
	flag_fini(&i->entered);
	flag_fini(&i->leave);
}

static void detach_waits_while_the_hook_runs_on_another_thread(void **state)
{
	struct importer i;
	pthread_t telling, detaching[2];
	struct buffer *b = buffer_new(NULL);
	test_watchdog(20, "detach does not return");
	blocking_init(&i);
	attach(&i, b, "importer");
	telling = thread_start(invalidate_thread, b, 0);
	flag_wait(&i.entered);
	detaching[0] = thread_start(detach_thread, &i, 0);
	detaching[1] = thread_start(detach_thread, &i, 0);
	usleep(20000);
	assert_int_equal(count_get(&i.running), 1);
	flag_set(&i.leave);
	thread_join(detaching[0]);
	thread_join(detaching[1]);
	thread_join(telling);
	test_watchdog(0, "");
	invalidate(b);
	assert_int_equal(i.told, 1);
	let_go(&i);
	blocking_fini(&i);
	end(b);
}

static void the_last_put_while_the_hook_runs_does_not_wait(void **state)
{
	struct importer i;
	pthread_t telling;
	struct buffer *b = buffer_new(NULL);
	blocking_init(&i);
	attach(&i, b, "importer");
	telling = thread_start(invalidate_thread, b, 0);
	flag_wait(&i.entered);
	lf_attachment_put(i.a);
	assert_int_equal(count_get(&i.running), 1);
	flag_set(&i.leave);
	thread_join(telling);
	invalidate(b);
	assert_int_equal(i.told, 1);
	blocking_fini(&i);
	end(b);
}

/* --- Providers -------------------------------------------------------------------------------------------------------- */

static struct lf_provider *new_provider(const char *name)
{
	struct lf_provider *p = NULL;
	must(lf_provider_create(name, &p) == 0);
	return p;
}

/* One that unmaps late, and one whose driver is unloaded in the middle. */
static void of_two_importers_one_is_slow_and_one_is_unloaded(void **state)
{
	struct memory m[3] = { 0 };
	struct lf_bo_map *slow_old = NULL, *gone_old = NULL;
	struct lf_provider *p[2] = { new_provider("slow"), new_provider("gone") };
	struct importer slow = { .during = map_again, .user = &slow_old }, gone = { .during = map_again, .user = &gone_old };
	struct lf_fence *arrived = new_fence();
	struct buffer *b = buffer_new(&m[0]);
	assert_int_equal(attach_to(&slow, &b->bo, "slow", p[0]), 0);
	assert_int_equal(attach_to(&gone, &b->bo, "gone", p[1]), 0);
	slow.map = map(&slow);
	gone.map = map(&gone);
	move(b, &m[1], arrived); /* both map the new place, too */
	assert_int_equal(lf_attachment_mapped(gone.a), 2);
	assert_int_equal(lf_provider_close(p[1], LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_attachment_mapped(gone.a), 0);
	assert_int_equal(lf_attachment_mapped(slow.a), 2);
	slow.user = NULL;
	unmap(slow.map);
	move(b, &m[2], NULL);
	assert_int_equal(slow.told, 2);
	assert_int_equal(gone.told, 1); /* its code is not called any more */
	lf_fence_signal(arrived, 0);
	settle();
	expect_there(&m[0]); /* the slow one has it */
	expect_released(&m[1]); /* nobody waits for the one that is gone */
	unmap(slow_old);
	settle();
	expect_released(&m[0]);
	/* what was handed to the importer is still its, and is only freed */
	unmap(gone_old);
	unmap(gone.map);
	let_go(&gone);
	unmap(slow.map);
	let_go(&slow);
	assert_int_equal(lf_provider_close(p[0], LF_DEADLINE_NEVER), 0);
	for (int k = 0; k < 2; k++)
		lf_provider_put(p[k]);
	lf_fence_put(arrived);
	end(b);
}

static void a_closed_provider_attaches_and_maps_nothing(void **state)
{
	struct lf_bo_map *m = NULL;
	struct lf_provider *p = new_provider("p");
	struct importer i = { 0 }, late = { 0 };
	struct buffer *b = buffer_new(NULL);
	assert_int_equal(attach_to(&i, &b->bo, "early", p), 0);
	assert_int_equal(lf_provider_close(p, LF_DEADLINE_NEVER), 0);
	assert_int_equal(attach_to(&late, &b->bo, "late", p), -ESHUTDOWN);
	assert_null(late.a);
	lock(b);
	assert_int_equal(lf_attachment_map(i.a, &m), -ENODEV);
	unlock(b);
	assert_int_equal(lf_attachment_detach(i.a), 0);
	let_go(&i);
	lf_provider_put(p);
	end(b);
}

static void close_waits_while_a_hook_runs(void **state)
{
	struct lf_provider *p = new_provider("p");
	struct importer i;
	pthread_t telling;
	struct buffer *b = buffer_new(NULL);
	blocking_init(&i);
	assert_int_equal(attach_to(&i, &b->bo, "busy", p), 0);
	telling = thread_start(invalidate_thread, b, 0);
	flag_wait(&i.entered);
	log_reset();
	assert_int_equal(lf_provider_close(p, lf_now() + 1000000), -ETIME);
	assert_true(log_contains("attachment busy"));
	flag_set(&i.leave);
	assert_int_equal(lf_provider_close(p, LF_DEADLINE_NEVER), 0);
	assert_int_equal(count_get(&i.running), 0);
	thread_join(telling);
	let_go(&i);
	blocking_fini(&i);
	lf_provider_put(p);
	end(b);
}

static void close_inside(struct importer *i)
{
	i->result = lf_provider_close(i->user, 0);
}

static void a_hook_cannot_close_its_provider(void **state)
{
	struct lf_provider *p = new_provider("p");
	struct importer i = { .during = close_inside, .user = p };
	struct buffer *b = buffer_new(NULL);
	assert_int_equal(attach_to(&i, &b->bo, "importer", p), 0);
	invalidate(b);
	assert_int_equal(i.result, -EDEADLK);
	expect_misuse(1);
	let_go(&i);
	assert_int_equal(lf_provider_close(p, 0), 0); /* nothing is left */
	lf_provider_put(p);
	end(b);
}

/* The driver has a buffer of its own, which somebody else has mapped: that is waited for. */
static void close_waits_for_a_buffer_that_another_has_mapped(void **state)
{
	struct memory m = { 0 };
	struct lf_provider *p = new_provider("exporter");
	struct importer i = { 0 };
	struct buffer *b = buffer_from((struct lf_bo_desc){ .provider = p, .name = "exported" }, &m);
	attach(&i, b, "importer");
	i.map = map(&i);
	put(b);
	settle();
	assert_int_equal(lf_provider_close(p, 0), -ETIME);
	assert_true(log_contains("buffer exported"));
	unmap(i.map);
	let_go(&i);
	assert_int_equal(lf_provider_close(p, LF_DEADLINE_NEVER), 0);
	expect_released(&m);
	lf_provider_put(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(importers_are_told_of_a_move_in_the_order_of_attaching),
		TEST_WARM(an_attachment_knows_its_name_and_keeps_its_buffer),
		TEST_WARM(wrong_arguments_are_refused),
		TEST_WARM(a_mapping_keeps_its_place_and_nothing_else_does),
		TEST_WARM(a_place_waits_for_fences_and_mappings_whichever_is_last),
		TEST_WARM(a_mapping_carries_the_fence_from_which_it_is_valid),
		TEST_WARM(a_buffer_that_is_nowhere_can_be_mapped),
		TEST_WARM(a_mapping_keeps_attachment_and_buffer),
		TEST_WARM(without_memory_nothing_is_attached_or_mapped),
		TEST_WARM(the_new_place_is_mapped_from_inside_the_hook),
		TEST_WARM(an_importer_without_fences_unmaps_inside),
		TEST_WARM(an_importer_adds_fences_inside),
		TEST_WARM(a_hook_that_signals_releases_nothing_inside_the_call),
		TEST_WARM(importers_come_and_go_inside_the_hook),
		TEST_WARM(an_importer_that_moves_the_buffer_inside_is_told_again),
		TEST_WARM(an_importer_leaves_in_the_callback_of_its_own_fence),
		TEST_WARM(unmapping_in_a_read_section_releases_later),
		TEST_WARM(unmapping_does_not_need_the_lock_that_another_holds),
		TEST_WARM(a_detached_importer_is_not_told_and_keeps_its_mappings),
		TEST_WARM(detaching_in_a_read_section_is_reported_and_done),
		TEST_WARM(detach_waits_while_the_hook_runs_on_another_thread),
		TEST_WARM(the_last_put_while_the_hook_runs_does_not_wait),
		TEST_WARM(of_two_importers_one_is_slow_and_one_is_unloaded),
		TEST_WARM(a_closed_provider_attaches_and_maps_nothing),
		TEST_WARM(close_waits_while_a_hook_runs),
		TEST_WARM(a_hook_cannot_close_its_provider),
		TEST_WARM(close_waits_for_a_buffer_that_another_has_mapped),
	};
	return TEST_MAIN(tests);
}
