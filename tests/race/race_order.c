/* SPDX-License-Identifier: MIT */
/*
 * Plain data on both sides of an order: one thread writes it and then does something to an object of the library; the other finds that this
 * was done, by what the object says, and reads it. Between the two there is nothing but the order that the library promises, so under
 * ThreadSanitizer an order that is lost is a data race.
 *
 * The other race tests count with atomics, lock and allocate on both sides, and much of what they do is ordered by that. Here only hints
 * pass from thread to thread, relaxed: they say when to begin, and order nothing.
 *
 * Oracle: who finds that the other was there reads what it wrote in this round. Healthy output has as many rounds that met (the second
 * came while the first was in the middle of it) as were played, where a scenario can tell.
 */
#include "producer.h"

#include <sched.h>
#include <stdatomic.h>

/* --- Two threads -------------------------------------------------------------------------------------------------------------- */

/* A round: prepare and judge on the main thread, then first and second at once, first on a thread of its own. */
struct scenario {
	void (*prepare)(void);
	void (*first)(void);
	void (*second)(void);
	void (*judge)(void);
};

static struct {
	const struct scenario *scenario;
	struct gate gate;
	long rounds, met;
	uint64_t random;
	/* of a round */
	long round;
	long plain; /* what the second reads, and the first writes */
	atomic_long hint; /* the round in which the first is in the middle of it; relaxed */
	atomic_long in_section; /* the round in which the second is inside its read section, where that must come first; relaxed */
	/* what the scenarios work on */
	struct lf_provider *provider;
	struct lf_timeline *timeline;
	struct lf_fence *fence;
	struct lf_resv resv;
	struct lf_fence *fences[20];
	struct lf_bo *bo;
	struct lf_attachment *attachment;
	struct lf_vm *vm;
	struct lf_vm_bo *vm_bo;
	struct lf_queue *queue;
	struct lf_job *job;
	struct lf_deferred deferred;
} shared;

static void *first_thread(void *unused)
{
	for (long i = 0; i < shared.rounds; i++) {
		gate_wait(&shared.gate);
		shared.scenario->first();
		gate_wait(&shared.gate);
	}
	return NULL;
}

static void play(const struct scenario *scenario, long rounds, const char *name)
{
	pthread_t thread;

	shared.scenario = scenario;
	shared.rounds = test_rounds(rounds);
	shared.random = test_seed();
	shared.met = 0;
	atomic_store(&shared.hint, 0);
	atomic_store(&shared.in_section, 0);
	gate_init(&shared.gate, 2);
	test_watchdog(100, name);
	thread = thread_start(first_thread, NULL, 0);
	for (shared.round = 1; shared.round <= shared.rounds; shared.round++) {
		shared.plain = 0;
		scenario->prepare();
		gate_wait(&shared.gate);
		scenario->second();
		gate_wait(&shared.gate);
		scenario->judge();
	}
	thread_join(thread);
	test_watchdog(0, "");
	gate_fini(&shared.gate);
	test_note("race_order: %s: met in %ld of %ld rounds", name, shared.met, shared.rounds);
}

/* Says that the first is in the middle of it, and gives the second some time to come. */
static void give_hint(void)
{
	atomic_store_explicit(&shared.hint, shared.round, memory_order_relaxed);
}

static void wait_for_hint(void)
{
	while (atomic_load_explicit(&shared.hint, memory_order_relaxed) != shared.round)
		sched_yield();
}

static void write_plain(void)
{
	shared.plain = shared.round;
}

/* What a hook or deferred call does in which the second must find us. */
static void write_plain_late(void)
{
	give_hint();
	usleep(300);
	write_plain();
}

static void read_plain(void)
{
	must(shared.plain == shared.round);
	shared.met++;
}

static void nothing(void)
{
}

static void make_bo(void)
{
	const struct lf_bo_desc desc = { .size = 4096 };

	shared.bo = lf_alloc(sizeof(*shared.bo));
	must(shared.bo != NULL && lf_bo_init(shared.bo, &desc) == 0);
}

/* --- Provider: order provider-count ------------------------------------------------------------------------------------------- */

static void on_detach(struct lf_fence *f, void *data)
{
	(void)f;
	(void)data;
	write_plain_late();
}

static void prepare_provider(void)
{
	static const struct lf_fence_ops ops = { .detach = on_detach };
	struct lf_timeline_desc desc = { .name = "order", .ops = &ops };

	must(lf_provider_create("order", &shared.provider) == 0);
	desc.provider = shared.provider;
	must(lf_timeline_create(&desc, &shared.timeline) == 0);
	must(lf_timeline_emit(shared.timeline, 0, &shared.fence) == 0);
}

static void signal_last(void)
{
	lf_timeline_signal_to(shared.timeline, 1, 0);
}

static void close_provider(void)
{
	wait_for_hint();
	must(lf_provider_close(shared.provider, LF_DEADLINE_NEVER) == 0);
	read_plain();
}

static void end_provider(void)
{
	lf_fence_put(shared.fence);
	lf_timeline_put(shared.timeline);
	lf_provider_put(shared.provider);
}

static void who_has_closed_a_provider_sees_what_its_hooks_did(void **state)
{
	static const struct scenario scenario = { prepare_provider, signal_last, close_provider, end_provider };

	play(&scenario, 100, "provider");
}

/* --- Attachment: order attach-hook -------------------------------------------------------------------------------------------- */

static void on_invalidate_late(struct lf_attachment *a, void *data)
{
	(void)a;
	(void)data;
	write_plain_late();
}

static void on_invalidate(struct lf_attachment *a, void *data)
{
	(void)a;
	(void)data;
	write_plain();
}

static void attach(void (*hook)(struct lf_attachment *a, void *data))
{
	const struct lf_attachment_desc desc = { .name = "order", .invalidate = hook, .provider = shared.provider };

	make_bo();
	must(lf_bo_attach(shared.bo, &desc, &shared.attachment) == 0);
}

static void prepare_attachment(void)
{
	shared.provider = NULL;
	attach(on_invalidate_late);
}

static void invalidate(void)
{
	must(lf_resv_lock(shared.bo->resv, NULL) == 0);
	lf_bo_invalidate(shared.bo);
	lf_resv_unlock(shared.bo->resv);
}

static void detach(void)
{
	wait_for_hint();
	must(lf_attachment_detach(shared.attachment) == 0);
	read_plain();
}

static void end_attachment(void)
{
	lf_attachment_put(shared.attachment);
	lf_bo_put(shared.bo);
}

static void who_has_detached_sees_what_the_hook_did(void **state)
{
	static const struct scenario scenario = { prepare_attachment, invalidate, detach, end_attachment };

	play(&scenario, 100, "detach");
}

static void prepare_importer(void)
{
	must(lf_provider_create("order", &shared.provider) == 0);
	attach(on_invalidate);
}

/* The hook has run by then, or never will. */
static void close_importer(void)
{
	pause_at_random(&shared.random);
	must(lf_provider_close(shared.provider, LF_DEADLINE_NEVER) == 0);
	must(shared.plain == shared.round || shared.plain == 0);
	shared.met += shared.plain != 0;
}

static void end_importer(void)
{
	end_attachment();
	lf_provider_put(shared.provider);
}

static void who_has_closed_an_importer_sees_what_its_hook_did(void **state)
{
	static const struct scenario scenario = { prepare_importer, invalidate, close_importer, end_importer };

	play(&scenario, 2000, "importer");
}

/* --- Reservation: order resv-generation, and the end of a block --------------------------------------------------------------------- */

static void make_fences(void)
{
	for (size_t i = 0; i < sizeof(shared.fences) / sizeof(shared.fences[0]); i++)
		must(lf_fence_create(&shared.fences[i]) == 0);
}

static void add_fences(size_t from, size_t to)
{
	must(lf_resv_lock(&shared.resv, NULL) == 0);
	must(lf_resv_reserve(&shared.resv, (unsigned)(to - from)) == 0);
	for (size_t i = from; i < to; i++)
		lf_resv_add(&shared.resv, shared.fences[i], LF_USAGE_READ);
	lf_resv_unlock(&shared.resv);
}

static void prepare_resv(void)
{
	lf_resv_init(&shared.resv, NULL);
	make_fences();
}

static void change(void)
{
	write_plain();
	add_fences(0, 1);
}

static void look_at_generation(void)
{
	while (lf_resv_generation(&shared.resv) == 0)
		sched_yield();
	read_plain();
}

static void end_resv(void)
{
	for (size_t i = 0; i < sizeof(shared.fences) / sizeof(shared.fences[0]); i++) {
		lf_fence_signal(shared.fences[i], 0);
		lf_fence_put(shared.fences[i]);
	}
	lf_resv_fini(&shared.resv);
}

static void who_sees_a_generation_sees_what_came_before_the_change(void **state)
{
	static const struct scenario scenario = { prepare_resv, change, look_at_generation, end_resv };

	play(&scenario, 200, "generation");
}

static void prepare_block(void)
{
	prepare_resv();
	add_fences(0, 2);
}

/* Reads the block outside a read section, lets go of it, and says so. */
static void walk_snapshot(void)
{
	struct lf_snapshot snapshot;
	struct lf_resv_cursor cursor;
	size_t n = 0;

	lf_resv_snapshot(&shared.resv, &snapshot);
	lf_snapshot_cursor_begin(&cursor, &snapshot, LF_USAGE_READ);
	while (lf_resv_cursor_next(&cursor))
		n++;
	must(n == 2);
	lf_snapshot_put(&snapshot);
	give_hint();
}

/* Needs a larger block, which inherits the references of the old one; that is freed. */
static void outgrow_block(void)
{
	wait_for_hint();
	add_fences(2, sizeof(shared.fences) / sizeof(shared.fences[0]));
	must(lf_reclaim_barrier() == 0);
	shared.met++;
}

static void a_block_is_freed_after_the_last_look_of_a_snapshot(void **state)
{
	static const struct scenario scenario = { prepare_block, walk_snapshot, outgrow_block, end_resv };

	play(&scenario, 50, "block");
}

/* --- Fence: order refcount, at the last put of a published fence --------------------------------------------------------------- */

/* The last put of a pending fence that others may find asks for the time; so that is where it can be met. */
static int64_t late_clock(void *unused)
{
	(void)unused;
	give_hint();
	usleep(300);
	return 1;
}

static void prepare_last_put(void)
{
	must(lf_fence_create(&shared.fence) == 0);
	lf_fence_publish(shared.fence);
}

/* Until the fence is freed, which the next round's start would order behind the look. */
static void put_last(void)
{
	while (atomic_load_explicit(&shared.in_section, memory_order_relaxed) != shared.round)
		sched_yield();
	lf_fence_put(shared.fence);
	must(lf_reclaim_barrier() == 0);
}

/* Takes a reference while the other is putting the last one, and looks at the fence outside the section. */
static void look_with_reference(void)
{
	struct lf_fence *f;

	lf_read_lock();
	atomic_store_explicit(&shared.in_section, shared.round, memory_order_relaxed);
	wait_for_hint();
	f = lf_fence_tryget(shared.fence);
	lf_read_unlock();
	if (!f)
		return;
	must(lf_fence_context(f) == 0);
	shared.met++;
	lf_fence_put(f);
}

static void a_fence_is_freed_after_the_last_look_of_who_had_a_reference(void **state)
{
	static const struct scenario scenario = { prepare_last_put, put_last, look_with_reference, nothing };

	lf_set_clock(late_clock, NULL);
	play(&scenario, 100, "last put");
	lf_set_clock(NULL, NULL);
}

/* --- Address space: order va-version ---------------------------------------------------------------------------------------------- */

static void prepare_vm(void)
{
	const struct lf_vm_desc desc = { .name = "order" };
	struct lf_map_desc map = { .va = 0x100000, .size = 4096 };
	struct lf_txn txn;

	make_bo();
	must(lf_vm_create(&desc, &shared.vm) == 0);
	must(lf_vm_bo_obtain(shared.vm, shared.bo, &shared.vm_bo) == 0);
	map.vm_bo = shared.vm_bo;
	must(lf_resv_lock(lf_vm_resv(shared.vm), NULL) == 0);
	must(lf_txn_begin(&txn, shared.vm) == 0);
	must(lf_txn_map(&txn, &map, NULL) == 0);
	lf_txn_commit(&txn);
	lf_resv_unlock(lf_vm_resv(shared.vm));
}

static void close_vm_bo(void)
{
	write_plain();
	lf_vm_bo_close(shared.vm_bo);
}

static bool is_mapped(void)
{
	struct lf_view view;
	bool mapped;

	lf_read_lock();
	lf_vm_view(shared.vm, &view);
	mapped = lf_view_lookup(&view, 0x100000) != NULL;
	lf_read_unlock();
	return mapped;
}

static void look_until_unmapped(void)
{
	while (is_mapped())
		sched_yield();
	read_plain();
}

static void end_vm(void)
{
	lf_vm_bo_put(shared.vm_bo);
	must(lf_resv_lock(lf_vm_resv(shared.vm), NULL) == 0);
	must(lf_vm_close(shared.vm) == 0);
	lf_resv_unlock(lf_vm_resv(shared.vm));
	lf_vm_put(shared.vm);
	lf_bo_put(shared.bo);
}

static void who_misses_a_mapping_sees_what_came_before_the_close(void **state)
{
	static const struct scenario scenario = { prepare_vm, close_vm_bo, look_until_unmapped, end_vm };

	play(&scenario, 200, "close of a buffer in a VM");
}

/* --- Queue: order queue-pushed ------------------------------------------------------------------------------------------------------ */

static int on_run(struct lf_job *job, void *data)
{
	(void)job;
	(void)data;
	return 0;
}

static void prepare_job(void)
{
	const struct lf_job_desc desc = { .duration = 0 };

	must(lf_job_create(shared.queue, &desc, &shared.job) == 0);
}

static void push(void)
{
	write_plain();
	must(lf_job_push(shared.job, NULL) == 0);
	give_hint();
}

static void ask_for_fence(void)
{
	struct lf_fence *f;

	wait_for_hint();
	f = lf_job_finished(shared.job);
	must(f != NULL && !lf_fence_is_signaled(f));
	read_plain();
}

static void run_job(void)
{
	while (lf_queue_step(shared.queue) != LF_STEP_IDLE)
		;
	must(lf_fence_status(lf_job_finished(shared.job)) == 1);
	lf_job_put(shared.job);
}

static void who_finds_a_job_pushed_sees_what_came_before_the_push(void **state)
{
	static const struct scenario scenario = { prepare_job, push, ask_for_fence, run_job };
	static const struct lf_queue_ops ops = { .run = on_run };
	const struct lf_queue_desc desc = { .name = "order", .mode = LF_QUEUE_MANUAL, .ops = &ops };

	must(lf_queue_create(&desc, &shared.queue) == 0);
	play(&scenario, 200, "push");
	lf_queue_put(shared.queue);
}

/* --- Fork: order reclaim-paused ----------------------------------------------------------------------------------------------------- */

static void on_deferred(struct lf_deferred *node)
{
	(void)node;
	write_plain_late();
}

/* The first is the reclaimer here. */
static void defer(void)
{
	lf_defer_call(&shared.deferred, on_deferred);
}

static void prepare_to_fork(void)
{
	wait_for_hint();
	must(lf_before_fork() == 0);
	read_plain();
	lf_after_fork_parent();
}

static void wait_for_reclaimer(void)
{
	must(lf_reclaim_barrier() == 0);
}

static void who_may_fork_sees_what_deferred_calls_did(void **state)
{
	static const struct scenario scenario = { nothing, defer, prepare_to_fork, wait_for_reclaimer };

	play(&scenario, 20, "fork");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(who_has_closed_a_provider_sees_what_its_hooks_did),
		TEST_WARM(who_has_detached_sees_what_the_hook_did),
		TEST_WARM(who_has_closed_an_importer_sees_what_its_hook_did),
		TEST_WARM(who_sees_a_generation_sees_what_came_before_the_change),
		TEST_WARM(a_block_is_freed_after_the_last_look_of_a_snapshot),
		TEST_WARM(a_fence_is_freed_after_the_last_look_of_who_had_a_reference),
		TEST_WARM(who_misses_a_mapping_sees_what_came_before_the_close),
		TEST_WARM(who_finds_a_job_pushed_sees_what_came_before_the_push),
		TEST_WARM(who_may_fork_sees_what_deferred_calls_did),
	};

	return TEST_MAIN(tests);
}
