/* SPDX-License-Identifier: MIT */
/*
 * Fences outlive the code that made them, and buffers the code that uses them. A driver is loaded, makes fences of every kind and in every
 * state, closes its provider and is unloaded (which is verified), while threads of ours wait for its fences, poll them and are inside
 * callbacks of them. Then everything that a consumer may do is done with all of them. Likewise a buffer of ours that it has mapped, and
 * one of its own, which it moves and we have mapped. Any instruction of the driver that was still called, and any byte of it that was still
 * read, would be a fault.
 */
#include "driver.h"
#include "producer.h"

#include <dlfcn.h>
#include <sched.h>

static const char *driver_path;

/* What each kind looks like when the driver is gone. */
static const struct {
	int status;
	bool alone; /* else of a timeline that is gone, or a link of a chain */
} expected[KINDS] = {
	[KIND_SIGNALED] = { 1, false },
	[KIND_FAILED] = { -EIO, false },
	[KIND_ARMED] = { -ENODEV, false },
	[KIND_PENDING] = { -ENODEV, false },
	[KIND_WAITED] = { -ENODEV, false },
	[KIND_EMBEDDED] = { -ENODEV, false },
	[KIND_POLLED] = { -ENODEV, false },
	[KIND_ONE] = { 1, false },
	[KIND_EMBEDDED_DONE] = { 1, false },
	[KIND_WAITED_MANY] = { -ENODEV, false },
	[KIND_IN_CALLBACK] = { 1, false },
	[KIND_HOOKLESS] = { -ENODEV, false },
	[KIND_LOST] = { -ENODEV, false },
	[KIND_DROPPED] = { -ECANCELED, false },
	[KIND_ALONE] = { 1, true },
	[KIND_ALONE_PENDING] = { 0, true },
	[KIND_MADE_SIGNALED] = { -EIO, true },
	[KIND_STUB] = { 1, true },
	[KIND_ARRAY] = { -ENODEV, true },
	[KIND_ANY] = { -ENODEV, true },
	[KIND_ANY_DONE] = { 1, true },
	[KIND_LINK] = { -ENODEV, false },
	[KIND_CHAIN] = { -ENODEV, false },
	[KIND_NESTED] = { -ENODEV, true },
	[KIND_STILL_PENDING] = { -ENODEV, true },
	[KIND_STILL_PENDING_CHAIN] = { -ENODEV, true },
};

/* What containers are called. */
static const char *const containers[KINDS] = {
	[KIND_ARRAY] = "array",
	[KIND_ANY] = "array",
	[KIND_ANY_DONE] = "array",
	[KIND_LINK] = "chain",
	[KIND_CHAIN] = "chain",
	[KIND_NESTED] = "array",
	[KIND_STILL_PENDING] = "array",
	[KIND_STILL_PENDING_CHAIN] = "array",
};

struct counted_cb {
	struct lf_fence_cb cb;
	unsigned ran;
};

static void counted_run(struct lf_fence *f, struct lf_fence_cb *cb)
{
	(void)f;
	((struct counted_cb *)cb)->ran++;
}

struct host {
	void *handle;
	const struct driver *driver;
	struct lf_fence *fences[KINDS];
	struct lf_fence *own; /* ours, watched by the driver */
	struct lf_fence_slot slot;
	struct counted_cb armed, nested;
	struct lf_timeline *unordered;
	struct lf_fence_cb stay;
	char described_inside[200];
	int status_inside;
	struct flag inside, go;
	bool stop;
	pthread_t waiter, many_waiter, chain_waiter, poller, signaler;
	int many_result;
	size_t many_first;
	struct lf_bo *bo; /* ours, which the driver imports */
	unsigned moves, left; /* of it: how often it was moved, and places released */
	struct lf_attachment *theirs; /* the driver's, of our buffer: a reference that outlives the driver */
	struct lf_attachment *attachment; /* ours, of the driver's buffer */
	struct lf_bo_map *map;
};

static struct host host;

static void *wait_for_it(void *arg)
{
	return (void *)(intptr_t)lf_fence_wait(arg, LF_DEADLINE_NEVER);
}

/* Waits for the driver's fence and for two that stay pending until the driver is gone. */
static void *wait_for_many(void *arg)
{
	struct lf_fence *fences[] = { host.own, host.fences[KIND_ALONE_PENDING], host.fences[KIND_WAITED_MANY] };
	struct lf_wait_slot slots[3];
	const struct lf_wait_many wait = { .fences = fences, .slots = slots, .count = 3, .need = 1, .deadline = LF_DEADLINE_NEVER };

	(void)arg;
	host.many_result = lf_fence_wait_many(&wait, &host.many_first);
	return NULL;
}

static void *poll_always(void *arg)
{
	uintptr_t rounds = 0;

	while (!__atomic_load_n(&host.stop, __ATOMIC_ACQUIRE)) {
		lf_fence_check(host.fences[KIND_POLLED]);
		lf_fence_check(host.fences[KIND_PENDING]);
		lf_fence_check(host.fences[KIND_NESTED]);
		lf_fence_set_deadline(host.fences[KIND_POLLED], 1);
		lf_fence_set_deadline(host.fences[KIND_STILL_PENDING_CHAIN], 1);
		rounds++;
	}
	(void)arg;
	return (void *)rounds;
}

static void stay_inside(struct lf_fence *f, struct lf_fence_cb *cb)
{
	(void)cb;
	flag_set(&host.inside);
	flag_wait(&host.go);
	/* By now the driver is unloaded. */
	host.status_inside = lf_fence_status(f);
	lf_fence_describe(f, host.described_inside, sizeof(host.described_inside));
}

static void *signal_and_stay(void *arg)
{
	(void)arg;
	if (!lf_timeline_signal_one(host.unordered, host.fences[KIND_IN_CALLBACK], 0))
		abort();
	lf_timeline_put(host.unordered);
	return NULL;
}

static void load(void)
{
	driver_entry_fn entry;
	void *symbol;

	memset(&host, 0, sizeof(host));
	host.handle = dlopen(driver_path, RTLD_NOW | RTLD_LOCAL);
	if (!host.handle)
		fprintf(stderr, "%s\n", dlerror());
	assert_non_null(host.handle);
	symbol = dlsym(host.handle, "driver_entry");
	assert_non_null(symbol);
	memcpy(&entry, &symbol, sizeof(entry));
	host.driver = entry();
	assert_int_equal(host.driver->open(), 0);
	for (enum kind kind = 0; kind < KINDS; kind++) {
		host.fences[kind] = host.driver->fence(kind);
		assert_non_null(host.fences[kind]);
	}
}

/* --- Buffers ------------------------------------------------------------------------------------------------------------- */

static void left_backing(void *memory, void *user)
{
	(void)memory;
	(void)user;
	__atomic_fetch_add(&host.left, 1, __ATOMIC_SEQ_CST);
}

static void move_ours(void)
{
	assert_int_equal(lf_resv_lock(host.bo->resv, NULL), 0);
	assert_int_equal(lf_bo_prepare_move(host.bo), 0);
	lf_bo_move(host.bo, &(struct lf_backing){ .release = left_backing }, NULL);
	lf_resv_unlock(host.bo->resv);
	host.moves++;
	assert_int_equal(lf_reclaim_barrier(), 0);
}

/* The driver takes its buffer back. */
static void taken_back(struct lf_attachment *a, void *data)
{
	(void)data;
	must(lf_bo_is_revoked(lf_attachment_bo(a)));
	lf_bo_unmap(host.map);
	lf_attachment_put(a);
}

static void import_theirs(void)
{
	const struct lf_attachment_desc desc = { .name = "host", .invalidate = taken_back };
	struct lf_bo *bo = host.driver->buffer();

	assert_int_equal(lf_bo_attach(bo, &desc, &host.attachment), 0);
	assert_int_equal(lf_resv_lock(bo->resv, NULL), 0);
	assert_int_equal(lf_attachment_map(host.attachment, &host.map), 0);
	lf_resv_unlock(bo->resv);
	lf_bo_put(bo);
}

static void make_buffers(void)
{
	const struct lf_bo_desc desc = { .size = 4096, .backing = { .release = left_backing } };

	host.bo = lf_alloc(sizeof(*host.bo));
	assert_non_null(host.bo);
	assert_int_equal(lf_bo_init(host.bo, &desc), 0);
	assert_int_equal(host.driver->import(host.bo), 0);
	import_theirs();
	for (int i = 0; i < 3; i++)
		move_ours();
	assert_int_equal(host.driver->told(), 3);
	assert_int_equal(host.left, 0); /* the driver has mapped each place, and stays there */
	host.theirs = lf_bo_next_mapped(host.bo, NULL);
	assert_string_equal(lf_attachment_name(host.theirs), "importer");
}

/* Nothing of the driver's is called, and nothing keeps a place any more. */
static void use_ours_alone(void)
{
	move_ours();
	assert_int_equal(host.left, host.moves);
	assert_null(lf_bo_next_mapped(host.bo, NULL));
	assert_string_equal(lf_attachment_name(host.theirs), "importer");
	assert_int_equal(lf_attachment_detach(host.theirs), 0);
	lf_attachment_put(host.theirs);
	lf_bo_put(host.bo);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(host.left, host.moves + 1);
}

static void make_use(void)
{
	make_buffers();
	flag_init(&host.inside);
	flag_init(&host.go);
	assert_int_equal(lf_fence_create(&host.own), 0);
	assert_int_equal(host.driver->watch(host.own), 0);
	assert_int_equal(lf_fence_add_callback(host.fences[KIND_ARMED], &host.armed.cb, counted_run), 0);
	assert_int_equal(lf_fence_add_callback(host.fences[KIND_NESTED], &host.nested.cb, counted_run), 0);
	lf_fence_slot_set(&host.slot, host.fences[KIND_PENDING]);
	host.unordered = host.driver->unordered();
	assert_int_equal(lf_fence_add_callback(host.fences[KIND_IN_CALLBACK], &host.stay, stay_inside), 0);
	host.waiter = thread_start(wait_for_it, host.fences[KIND_WAITED], 0);
	host.many_waiter = thread_start(wait_for_many, NULL, 0);
	host.chain_waiter = thread_start(wait_for_it, host.fences[KIND_CHAIN], 0);
	host.poller = thread_start(poll_always, NULL, 0);
	host.signaler = thread_start(signal_and_stay, NULL, 0);
	flag_wait(&host.inside);
	/*
	 * Two callbacks and two waits arm a fence each, the callback of the nested container three; then everybody is where the test wants
	 * them.
	 */
	while (host.driver->enabled() < 7 || host.driver->polled() < 10)
		sched_yield();
}

static void unload(void)
{
	FILE *maps;
	char line[1000];
	const char *name = strrchr(driver_path, '/') ? strrchr(driver_path, '/') + 1 : driver_path;

	assert_int_equal(host.driver->close(), 0);
	assert_int_equal(dlclose(host.handle), 0);
	host.driver = NULL;
	assert_null(dlopen(driver_path, RTLD_NOW | RTLD_NOLOAD));
	maps = fopen("/proc/self/maps", "r");
	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps))
		assert_null(strstr(line, name));
	fclose(maps);
}

/* Leaves of a container of the driver's: at most one, which is ours by now. */
static void walk(struct lf_fence *f, struct lf_fence *leaf)
{
	struct lf_fence *flat = NULL;
	struct lf_unwrap unwrap;

	assert_int_equal(lf_unwrap_begin(&unwrap, f, 0), 0);
	assert_int_equal(unwrap.count, leaf ? 1 : 0);
	assert_ptr_equal(lf_unwrap_next(&unwrap), leaf);
	lf_unwrap_end(&unwrap);
	assert_int_equal(lf_fence_flatten(f, &flat), 0);
	assert_int_equal(lf_fence_status(flat), leaf ? 0 : lf_fence_status(f));
	lf_fence_put(flat);
}

/* A container that the driver made, and that is pending when the driver is gone. */
static void consume_pending_container(enum kind kind)
{
	struct lf_fence *f = host.fences[kind];
	char buf[200];

	assert_int_equal(lf_fence_status(f), 0);
	assert_int_equal(lf_fence_check(f), 0);
	lf_fence_set_deadline(f, 1);
	assert_int_equal(lf_fence_wait(f, 0), -ETIME);
	assert_true(lf_fence_describe(f, buf, sizeof(buf)) > 0);
	walk(f, host.fences[KIND_ALONE_PENDING]);
}

static void consume_container(enum kind kind)
{
	struct lf_fence *f = host.fences[kind], *member;

	assert_true(lf_fence_is_container(f));
	walk(f, NULL);
	if (!lf_fence_is_chain(f))
		return;
	assert_null(lf_chain_get_prev(f));
	assert_null(lf_chain_get_fence(f));
	assert_int_equal(lf_chain_find_seqno(f, 1, &member), 0);
	assert_true(lf_fence_is_signaled(member));
	lf_fence_put(member);
}

static void consume(enum kind kind)
{
	struct lf_fence *f = host.fences[kind];
	struct counted_cb cb = { .ran = 0 };
	struct lf_wait_slot slot;
	struct lf_wait_many many = { .fences = &f, .slots = &slot, .count = 1, .need = 1, .deadline = LF_DEADLINE_NEVER };
	char buf[200];

	assert_int_equal(lf_fence_status(f), expected[kind].status);
	assert_int_equal(lf_fence_check(f), expected[kind].status);
	lf_fence_set_deadline(f, 1);
	assert_true(lf_fence_name(f, buf, sizeof(buf)) > 0);
	/* Of the timelines only the unordered one is still held, by the thread that is inside a callback. */
	if (containers[kind])
		assert_string_equal(buf, containers[kind]);
	if (expected[kind].alone)
		assert_true(lf_fence_context(f) == 0);
	else if (containers[kind])
		assert_true(lf_fence_context(f) != 0);
	else if (kind == KIND_POLLED || kind == KIND_ONE || kind == KIND_EMBEDDED_DONE || kind == KIND_WAITED_MANY ||
		kind == KIND_IN_CALLBACK)
		assert_true(strcmp(buf, "plug-in/unordered") == 0 || strcmp(buf, "signaled-timeline") == 0);
	else
		assert_string_equal(buf, "signaled-timeline");
	assert_true(lf_fence_describe(f, buf, sizeof(buf)) > 0);
	if (kind == KIND_ALONE_PENDING) {
		assert_int_equal(lf_fence_add_callback(f, &cb.cb, counted_run), 0);
		assert_true(lf_fence_signal(f, -EPERM));
		assert_int_equal(cb.ran, 1);
	}
	assert_true(lf_fence_is_signaled(f));
	assert_int_equal(lf_fence_add_callback(f, &cb.cb, counted_run), -ENOENT);
	assert_int_equal(lf_fence_wait(f, LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_fence_wait_many(&many, NULL), 0);
	assert_true(lf_fence_timestamp(f) != INT64_MIN);
	/* The one whose callback runs is not drained. */
	assert_int_equal(lf_fence_wait_drained(f, 0), kind == KIND_IN_CALLBACK ? -ETIME : 0);
	if (containers[kind])
		consume_container(kind);
}

static void finish(void)
{
	struct lf_fence *f;

	use_ours_alone();
	assert_int_equal((intptr_t)thread_join(host.waiter), 0);
	assert_int_equal((intptr_t)thread_join(host.chain_waiter), 0);
	thread_join(host.many_waiter);
	assert_int_equal(host.many_result, 0);
	assert_int_equal(host.many_first, 2);
	consume_pending_container(KIND_STILL_PENDING);
	consume_pending_container(KIND_STILL_PENDING_CHAIN);
	for (enum kind kind = 0; kind < KINDS; kind++)
		consume(kind);
	assert_int_equal(host.armed.ran, 1);
	assert_int_equal(host.nested.ran, 1);
	assert_true(lf_fence_is_later(host.fences[KIND_CHAIN], host.fences[KIND_LINK]));
	assert_true(lf_fence_is_later(host.fences[KIND_PENDING], host.fences[KIND_ARMED]));
	f = lf_fence_slot_get(&host.slot);
	assert_ptr_equal(f, host.fences[KIND_PENDING]);
	lf_fence_put(f);
	/* The driver took its callback back: nothing is called. */
	assert_true(lf_fence_signal(host.own, 0));
	__atomic_store_n(&host.stop, true, __ATOMIC_RELEASE);
	assert_true((uintptr_t)thread_join(host.poller) > 0);
	flag_set(&host.go);
	thread_join(host.signaler);
	assert_int_equal(host.status_inside, 1);
	assert_non_null(host.described_inside[0] ? host.described_inside : NULL);
	assert_int_equal(lf_fence_wait_drained(host.fences[KIND_IN_CALLBACK], LF_DEADLINE_NEVER), 0);
	for (enum kind kind = 0; kind < KINDS; kind++) {
		if (!expected[kind].alone && !containers[kind]) {
			char buf[64];

			lf_fence_name(host.fences[kind], buf, sizeof(buf));
			assert_string_equal(buf, "signaled-timeline");
		}
		lf_fence_put(host.fences[kind]);
	}
	lf_fence_slot_set(&host.slot, NULL);
	lf_fence_put(host.own);
	flag_fini(&host.inside);
	flag_fini(&host.go);
}

static void fences_in_every_state_outlive_the_unloaded_driver(void **state)
{
	(void)state;
	/* Several times: the driver may be loaded to the same place, or to another. */
	for (int round = 0; round < 5; round++) {
		load();
		make_use();
		unload();
		finish();
	}
}

static void driver_that_nobody_uses_can_be_unloaded_too(void **state)
{
	(void)state;
	load();
	assert_int_equal(lf_fence_create(&host.own), 0);
	assert_int_equal(host.driver->watch(host.own), 0);
	assert_true(host.driver->attached() > 0);
	for (enum kind kind = 0; kind < KINDS; kind++)
		if (kind != KIND_ALONE_PENDING)
			lf_fence_put(host.fences[kind]);
	unload();
	assert_true(lf_fence_signal(host.fences[KIND_ALONE_PENDING], 0));
	lf_fence_put(host.fences[KIND_ALONE_PENDING]);
	assert_true(lf_fence_signal(host.own, 0));
	lf_fence_put(host.own);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(fences_in_every_state_outlive_the_unloaded_driver),
		TEST_WARM(driver_that_nobody_uses_can_be_unloaded_too),
	};

	if (argc != 2) {
		fprintf(stderr, "usage: %s DRIVER\n", argv[0]);
		return EXIT_FAILURE;
	}
	driver_path = argv[1];
	return TEST_MAIN(tests);
}
