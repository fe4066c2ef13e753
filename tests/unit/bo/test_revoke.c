/* SPDX-License-Identifier: MIT */
/*
 * Revoking: the flag, the wait with nothing held, who is still there, and what must go on meanwhile: other holders of the reservation, and
 * a reset of the engine that the importer's fences come from. The oracles of hooks and releases are in buffers.h; mappings that race with
 * the flag are in tests/race/race_bo.c.
 */
#include "buffers.h"

enum { MS = 1000000 };

static int take_away(struct buffer *b)
{
	int ret;
	lock(b);
	CALL(ret = lf_bo_revoke_begin(&b->bo));
	unlock(b);
	return ret;
}

static void a_revoked_buffer_is_told_of_once_and_mapped_no_more(void **state)
{
	struct memory m = { 0 };
	struct importer i = { 0 }, late = { 0 };
	struct lf_bo_map *more = NULL;
	struct buffer *b = buffer_new(&m);
	attach(&i, b, "importer");
	assert_false(lf_bo_is_revoked(&b->bo));
	assert_int_equal(take_away(b), 0);
	assert_true(lf_bo_is_revoked(&b->bo));
	assert_int_equal(i.told, 1);
	assert_int_equal(take_away(b), -EALREADY);
	assert_int_equal(i.told, 1);
	lock(b);
	assert_int_equal(lf_attachment_map(i.a, &more), -ENODEV);
	unlock(b);
	assert_null(more);
	assert_int_equal(attach_to(&late, &b->bo, "late", NULL), -ENODEV);
	assert_null(late.a);
	assert_int_equal(lf_bo_revoke_wait(&b->bo, 0), 0); /* nothing was mapped */
	assert_int_equal(lf_bo_revoke_wait(&b->bo, LF_DEADLINE_NEVER), 0);
	assert_ptr_equal(lf_bo_memory(&b->bo), &m); /* it is still the owner's */
	let_go(&i);
	end(b);
}

static void map_is_refused_inside(struct importer *i)
{
	struct lf_bo_map *more = NULL;
	i->result = lf_bo_is_revoked(lf_attachment_bo(i->a)) ? lf_attachment_map(i->a, &more) : 0;
}

static void a_mapping_asked_for_inside_the_revoking_hook_is_refused(void **state)
{
	struct importer i = { .during = map_is_refused_inside };
	struct buffer *b = buffer_new(NULL);
	attach(&i, b, "importer");
	assert_int_equal(take_away(b), 0);
	assert_int_equal(i.result, -ENODEV);
	let_go(&i);
	end(b);
}

static void the_wait_says_who_remains_and_can_be_repeated(void **state)
{
	struct memory m[2] = { 0 };
	struct importer i[3] = { 0 };
	struct lf_bo_map *old;
	struct lf_attachment *found;
	struct buffer *b = buffer_new(&m[0]);
	attach(&i[0], b, "gone");
	attach(&i[1], b, "slow");
	attach(&i[2], b, "slower");
	i[0].map = map(&i[0]);
	old = map(&i[1]);
	move(b, &m[1], NULL);
	i[1].map = map(&i[1]);
	i[2].map = map(&i[2]);
	assert_int_equal(take_away(b), 0);
	unmap(i[0].map);
	assert_int_equal(lf_bo_revoke_wait(&b->bo, 0), -ETIME);
	assert_int_equal(lf_bo_revoke_wait(&b->bo, lf_now() + 2 * MS), -ETIME);
	found = lf_bo_next_mapped(&b->bo, NULL);
	assert_string_equal(lf_attachment_name(found), "slow");
	assert_int_equal(lf_attachment_mapped(found), 2);
	unmap(i[2].map); /* the next one goes while we look */
	assert_null(lf_bo_next_mapped(&b->bo, found));
	unmap(old); /* of the old place: counts, too */
	assert_int_equal(lf_bo_revoke_wait(&b->bo, 0), -ETIME);
	unmap(i[1].map);
	assert_int_equal(lf_bo_revoke_wait(&b->bo, 0), 0);
	assert_null(lf_bo_next_mapped(&b->bo, NULL));
	for (int k = 0; k < 3; k++)
		let_go(&i[k]);
	end(b);
	expect_released(&m[0]);
	expect_released(&m[1]);
}

static void the_walk_goes_on_from_one_that_has_left(void **state)
{
	struct importer i[3] = { 0 };
	struct lf_attachment *found;
	struct buffer *b = buffer_new(NULL), *other = buffer_new(NULL);
	for (int k = 0; k < 3; k++) {
		attach(&i[k], b, "importer");
		i[k].map = map(&i[k]);
	}
	found = lf_bo_next_mapped(&b->bo, NULL);
	assert_ptr_equal(found, i[0].a);
	unmap(i[0].map);
	let_go(&i[0]); /* the walk's reference is the last one */
	unmap(i[1].map);
	let_go(&i[1]);
	found = lf_bo_next_mapped(&b->bo, found);
	assert_ptr_equal(found, i[2].a);
	assert_null(lf_bo_next_mapped(&other->bo, lf_attachment_get(i[2].a)));
	expect_misuse(1);
	assert_null(lf_bo_next_mapped(&b->bo, found));
	unmap(i[2].map);
	let_go(&i[2]);
	end(b);
	end(other);
}

static void misuse_is_reported(void **state)
{
	struct buffer *b = buffer_new(NULL);
	assert_int_equal(lf_bo_revoke_begin(&b->bo), -EINVAL); /* not locked */
	assert_int_equal(lf_bo_revoke_begin(NULL), -EINVAL);
	assert_int_equal(lf_bo_revoke_wait(&b->bo, 0), -EINVAL); /* not revoked */
	assert_int_equal(lf_bo_revoke_wait(NULL, 0), -EINVAL);
	expect_misuse(4);
	assert_false(lf_bo_is_revoked(&b->bo));
	assert_int_equal(take_away(b), 0);
	lf_read_lock();
	assert_int_equal(lf_bo_revoke_wait(&b->bo, LF_DEADLINE_NEVER), -EDEADLK);
	lf_read_unlock();
	expect_misuse(1);
	assert_int_equal(lf_validate(LF_VALIDATE_WAITS), 0);
	lock(b);
	assert_int_equal(lf_bo_revoke_wait(&b->bo, 0), 0);
	assert_int_equal(log_count(LF_LOG_WARNING), 1); /* whoever unmaps may need what we hold */
	unlock(b);
	assert_int_equal(lf_validate(0), 0);
	log_reset();
	end(b);
}

/* --- Others go on ----------------------------------------------------------------------------------------------------- */

struct waiter {
	struct buffer *b;
	struct flag waits;
	bool done;
};

static void *wait_for_revoke(void *arg)
{
	struct waiter *w = arg;
	must(lf_bo_revoke_wait(&w->b->bo, 0) == -ETIME);
	flag_set(&w->waits);
	must(lf_bo_revoke_wait(&w->b->bo, LF_DEADLINE_NEVER) == 0);
	__atomic_store_n(&w->done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static void nothing_is_held_while_a_revoke_waits(void **state)
{
	struct memory m[2] = { 0 };
	struct importer i = { 0 };
	struct waiter w = { .b = buffer_new(&m[0]) };
	pthread_t threads[2];
	test_watchdog(20, "a revoke does not end, or holds something");
	flag_init(&w.waits);
	attach(&i, w.b, "importer");
	i.map = map(&i);
	assert_int_equal(take_away(w.b), 0);
	threads[0] = thread_start(wait_for_revoke, &w, 0);
	threads[1] = thread_start(wait_for_revoke, &w, 0);
	flag_wait(&w.waits);
	usleep(5000);
	move(w.b, &m[1], NULL);
	invalidate(w.b);
	usleep(5000);
	assert_false(__atomic_load_n(&w.done, __ATOMIC_SEQ_CST));
	unmap(i.map);
	thread_join(threads[0]);
	thread_join(threads[1]);
	test_watchdog(0, "");
	flag_fini(&w.waits);
	let_go(&i);
	end(w.b);
}

struct device {
	struct lf_queue *q;
	struct lf_bo_map *map;
	struct lf_fence_cb cb;
	unsigned runs, resets;
};

static int device_run(struct lf_job *job, void *data)
{
	struct device *d = data;
	must(((struct memory *)lf_bo_map_memory(d->map))->released == 0);
	d->runs++;
	return 0;
}

static enum lf_reset_verdict device_reset(struct lf_job *job, void *data, bool guilty)
{
	struct device *d = data;
	count_up(&d->resets);
	return LF_RESET_FAIL;
}

/* The importer's device does nothing with the mapping any more. */
static void device_done(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct device *d = (struct device *)(void *)((char *)cb - offsetof(struct device, cb));
	must(lf_fence_status(f) == -ETIME);
	unmap(d->map);
}

static const struct lf_queue_ops device_ops = { .run = device_run, .reset = device_reset };

/* Puts a job, which hangs, on the mapping. */
static void device_start(struct device *d, enum lf_queue_mode mode, struct lf_resv *resv)
{
	struct lf_fence *finished = NULL;
	struct lf_job *job = NULL;
	assert_int_equal(lf_queue_create(&(struct lf_queue_desc){ .name = "engine", .mode = mode, .ops = &device_ops, .timeout = 50 * MS,
				 .faults = { .exact = true, .hang_one_in = 1 } }, &d->q), 0);
	assert_int_equal(lf_job_create(d->q, &(struct lf_job_desc){ .data = d }, &job), 0);
	assert_int_equal(lf_job_push(job, &finished), 0);
	add_fence(resv, finished, LF_USAGE_READ);
	if (lf_fence_add_callback(finished, &d->cb, device_done) == -ENOENT)
		device_done(finished, &d->cb);
	lf_fence_put(finished);
	lf_job_put(job);
}

struct holder {
	struct lf_resv *resv[2];
	struct flag holds, leave;
};

static void *hold(void *arg)
{
	struct holder *h = arg;
	for (int i = 0; i < 2; i++)
		must(lf_resv_lock(h->resv[i], NULL) == 0);
	flag_set(&h->holds);
	flag_wait(&h->leave);
	for (int i = 0; i < 2; i++)
		lf_resv_unlock(h->resv[i]);
	return NULL;
}

static void reset_while_all_is_held(enum lf_queue_mode mode)
{
	struct memory m[2] = { 0 };
	struct lf_resv other;
	struct importer i = { 0 };
	struct device d = { 0 };
	struct waiter w = { .b = buffer_new(&m[0]) };
	struct holder h = { .resv = { w.b->bo.resv, &other } };
	pthread_t holding, waiting;
	test_watchdog(20, "a reset does not end while a revoke waits and reservations are held");
	lf_resv_init(&other, NULL);
	flag_init(&w.waits);
	flag_init(&h.holds);
	flag_init(&h.leave);
	attach(&i, w.b, "importer");
	d.map = map(&i);
	device_start(&d, mode, w.b->bo.resv);
	move(w.b, &m[1], NULL);
	assert_int_equal(take_away(w.b), 0);
	holding = thread_start(hold, &h, 0);
	flag_wait(&h.holds);
	if (mode == LF_QUEUE_MANUAL) {
		waiting = thread_start(wait_for_revoke, &w, 0);
		flag_wait(&w.waits);
		assert_int_equal(lf_queue_step(d.q), LF_STEP_RUN);
		assert_int_equal(lf_queue_step(d.q), LF_STEP_RESET);
		thread_join(waiting);
	} else {
		assert_int_equal(lf_bo_revoke_wait(&w.b->bo, LF_DEADLINE_NEVER), 0);
	}
	assert_int_equal(count_get(&d.resets), 1);
	assert_int_equal(d.runs, 0);
	assert_true(lf_resv_is_locked(w.b->bo.resv));
	assert_int_equal(lf_queue_close(d.q, LF_DEADLINE_NEVER), 0); /* all callbacks have returned */
	settle();
	expect_released(&m[0]); /* the place that the hung job was on */
	flag_set(&h.leave);
	thread_join(holding);
	test_watchdog(0, "");
	lf_queue_put(d.q);
	let_go(&i);
	end(w.b);
	lf_resv_fini(&other);
	flag_fini(&w.waits);
	flag_fini(&h.holds);
	flag_fini(&h.leave);
}

static void a_reset_by_thread_ends_while_a_revoke_waits_and_reservations_are_held(void **state)
{
	reset_while_all_is_held(LF_QUEUE_THREAD);
}

static void a_reset_by_hand_ends_while_a_revoke_waits_and_reservations_are_held(void **state)
{
	reset_while_all_is_held(LF_QUEUE_MANUAL);
}

/* --- Who closes instead of unmapping ---------------------------------------------------------------------------------- */

static void a_closing_provider_ends_the_wait(void **state)
{
	struct memory m = { 0 };
	struct lf_provider *p = NULL;
	struct importer i = { 0 };
	struct waiter w = { .b = buffer_new(&m) };
	struct lf_bo_map *maps[3];
	pthread_t waiting;
	test_watchdog(20, "a closed provider's mappings are waited for");
	assert_int_equal(lf_provider_create("p", &p), 0);
	flag_init(&w.waits);
	assert_int_equal(attach_to(&i, &w.b->bo, "importer", p), 0);
	for (int k = 0; k < 3; k++)
		maps[k] = map(&i);
	assert_int_equal(take_away(w.b), 0);
	unmap(maps[1]);
	waiting = thread_start(wait_for_revoke, &w, 0);
	flag_wait(&w.waits);
	assert_int_equal(lf_provider_close(p, LF_DEADLINE_NEVER), 0);
	thread_join(waiting);
	test_watchdog(0, "");
	put(w.b);
	unmap(maps[0]);
	let_go(&i);
	settle();
	expect_there(&m);
	unmap(maps[2]); /* was still the importer's, and kept the attachment */
	settle();
	expect_released(&m);
	lf_provider_put(p);
	flag_fini(&w.waits);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(a_revoked_buffer_is_told_of_once_and_mapped_no_more),
		TEST_WARM(a_mapping_asked_for_inside_the_revoking_hook_is_refused),
		TEST_WARM(the_wait_says_who_remains_and_can_be_repeated),
		TEST_WARM(the_walk_goes_on_from_one_that_has_left),
		TEST_WARM(misuse_is_reported),
		TEST_WARM(nothing_is_held_while_a_revoke_waits),
		TEST_WARM(a_reset_by_thread_ends_while_a_revoke_waits_and_reservations_are_held),
		TEST_WARM(a_reset_by_hand_ends_while_a_revoke_waits_and_reservations_are_held),
		TEST_WARM(a_closing_provider_ends_the_wait),
	};
	return TEST_MAIN(tests);
}
