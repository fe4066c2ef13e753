/* SPDX-License-Identifier: MIT */
/*
 * The bind queue: what engines walk follows what was asked for, transaction by transaction, when fences have signaled.
 *
 * Oracle: the apply hook takes down what it is told, and keeps a page table by it. What is applied must be what was asked for after as many
 * transactions as the hook was called for, and the page table must say the same; at every moment, also while thousands of binds wait
 * for fences that signal in any order. A fault is a job that looks up an address which it may use and finds nothing there.
 */
#include "vm_testing.h"

#include <sched.h>

enum { PAGES = 64 };

/* What the hooks of a VM are told, and what they shall do. */
struct binder {
	struct world w;
	struct text log; /* the operations of each call, in brackets */
	bool quiet; /* no log: for tests with many binds */
	unsigned applies, fail_at, inside, wrong, mappings_released, released;
	int error; /* that the call number fail_at returns */
	void (*during)(struct binder *b); /* inside the apply hook */
	struct flag entered, leave;
	struct {
		const struct lf_vm_bo *vm_bo;
		uint64_t offset;
	} table[PAGES];
};

static void table_apply(struct binder *b, const struct lf_vm_op *op)
{
	uint64_t first = (op->va - b->w.base) / b->w.page, count = op->size / b->w.page;

	for (uint64_t i = first; i < first + count && i < PAGES && op->kind != LF_VM_OP_PREFETCH && !op->keep; i++) {
		bool comes = op->kind == LF_VM_OP_MAP;

		b->table[i].vm_bo = comes ? op->mapping->vm_bo : NULL;
		b->table[i].offset = comes ? op->mapping->offset + (i - first) * b->w.page : 0;
	}
}

/* Whether the page table says what is applied (sparse mappings are not used here). */
static bool table_is_applied(const struct binder *b)
{
	struct lf_view view;
	bool same = true;

	lf_read_lock();
	lf_vm_view_applied(b->w.vm, &view);
	for (uint64_t i = 0; i < PAGES; i++) {
		uint64_t va = b->w.base + i * b->w.page;
		const struct lf_mapping *m = lf_view_lookup(&view, va);

		same &= m ? b->table[i].vm_bo == m->vm_bo && b->table[i].offset == m->offset + (va - m->va) : !b->table[i].vm_bo;
	}
	lf_read_unlock();
	return same;
}

static void log_ops(struct binder *b, const struct lf_vm_op *ops, size_t count)
{
	struct text t;

	text_clear(&t);
	for (size_t i = 0; i < count; i++)
		text_op(&t, &b->w, &ops[i]);
	text_add(&b->log, "[%s]", t.s);
}

static int binder_apply(struct lf_vm *vm, const struct lf_vm_op *ops, size_t count, void *data)
{
	struct binder *b = data;

	if (lf_read_held() || __atomic_fetch_add(&b->inside, 1, __ATOMIC_SEQ_CST) != 0 || !table_is_applied(b))
		count_up(&b->wrong);
	if (!b->quiet)
		log_ops(b, ops, count);
	if (b->during)
		b->during(b);
	count_up(&b->applies);
	count_down(&b->inside);
	if (count_get(&b->applies) == b->fail_at)
		return b->error;
	for (size_t i = 0; i < count; i++)
		table_apply(b, &ops[i]);
	return 0;
}

static void binder_mapping_release(struct lf_mapping *m, void *data)
{
	struct binder *b = data;

	count_up(&b->mappings_released);
}

static void binder_release(void *data)
{
	struct binder *b = data;

	count_up(&b->released);
}

static const struct lf_vm_ops binder_ops = {
	.apply = binder_apply, .mapping_release = binder_mapping_release, .release = binder_release
};

static void binder_init_with(struct binder *b, struct lf_provider *provider)
{
	const struct lf_vm_desc desc = { .name = "binder", .flags = LF_VM_BIND, .ops = &binder_ops, .data = b, .provider = provider };

	memset(b, 0, sizeof(*b));
	flag_init(&b->entered);
	flag_init(&b->leave);
	world_init(&b->w, &desc);
}

static void binder_init(struct binder *b)
{
	binder_init_with(b, NULL);
}

static void binder_end(struct binder *b)
{
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&b->wrong), 0);
	assert_int_equal(count_get(&b->released), 1);
	flag_fini(&b->entered);
	flag_fini(&b->leave);
}

static void binder_fini(struct binder *b)
{
	if (lf_vm_error(b->w.vm) == 0)
		assert_true(table_is_applied(b));
	world_fini(&b->w);
	binder_end(b);
}

/* One transaction; a new reference on its out-fence. */
static struct lf_fence *bind_after(struct binder *b, const char *script, struct lf_fence *const *in, size_t count)
{
	struct lf_fence *out = NULL;
	struct lf_txn txn;

	vm_lock(b->w.vm);
	must(lf_txn_begin(&txn, b->w.vm) == 0);
	must(requests(&b->w, &txn, script) == 0);
	must(lf_txn_submit(&txn, in, count, &out) == 0);
	must(out != NULL);
	vm_unlock(b->w.vm);
	return out;
}

static struct lf_fence *bind_behind(struct binder *b, const char *script, struct lf_fence *in)
{
	return bind_after(b, script, &in, 1);
}

static void bind_now(struct binder *b, const char *script)
{
	struct lf_fence *out = bind_after(b, script, NULL, 0);

	must(lf_fence_status(out) == 1);
	lf_fence_put(out);
}

static void expect_log(struct binder *b, const char *expected)
{
	assert_string_equal(b->log.s, expected);
	text_clear(&b->log);
}

static struct lf_fence *plain(void)
{
	struct lf_fence *f = NULL;

	must(lf_fence_create(&f) == 0);
	return f;
}

static void end_fence(struct lf_fence *f, int error)
{
	lf_fence_signal(f, error);
	lf_fence_put(f);
}

static void expect_and_put(struct lf_fence *out, int status)
{
	assert_int_equal(lf_fence_status(out), status);
	lf_fence_put(out);
}

/* --- Applying ------------------------------------------------------------------------------------------------------------------- */

static void without_in_fences_it_is_applied_inside_the_submission(void **state)
{
	struct binder b;
	struct lf_fence *first, *second;

	binder_init(&b);
	first = bind_after(&b, "map a0+4:0", NULL, 0);
	assert_int_equal(lf_fence_status(first), 1);
	expect_layout(&b.w, "a0+4:0");
	expect_applied(&b.w, "a0+4:0");
	expect_log(&b, "[M a0+4:0]");
	second = bind_after(&b, "unmap 1+1 prefetch 0+64", NULL, 0);
	expect_applied(&b.w, "a0+1:0 a2+2:2");
	expect_log(&b, "[R a0+4:0 <a0+1:0 >a2+2:2, P a0+1:0 0+1, P a2+2:2 2+2]");
	assert_true(lf_fence_is_later(second, first));
	assert_true(lf_fence_is_ordered(first));
	lf_fence_put(first);
	expect_and_put(second, 1);
	assert_int_equal(stats_of(b.w.vm).held, 1);
	binder_fini(&b);
}

static void with_an_in_fence_it_is_asked_for_at_once_and_applied_when_that_signals(void **state)
{
	struct binder b;
	struct lf_fence *f = plain(), *out;

	binder_init(&b);
	bind_now(&b, "map a0+4:0");
	out = bind_behind(&b, "unmap 0+2 map b8+2:0", f);
	expect_layout(&b.w, "a2+2:2 b8+2:0");
	expect_applied(&b.w, "a0+4:0");
	assert_int_equal(lf_fence_status(out), 0);
	assert_int_equal(b.applies, 1);
	assert_int_equal(stats_of(b.w.vm).held, 2);
	end_fence(f, 0);
	expect_applied(&b.w, "a2+2:2 b8+2:0");
	expect_log(&b, "[M a0+4:0][R a0+4:0 >a2+2:2, M b8+2:0]");
	expect_and_put(out, 1);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(stats_of(b.w.vm).held, 1);
	assert_int_equal(stats_of(b.w.vm).pinned, 0);
	binder_fini(&b);
}

static void binds_are_applied_in_order_whatever_order_their_fences_signal_in(void **state)
{
	struct binder b;
	struct lf_fence *f[3] = { plain(), plain(), plain() }, *out[4];

	binder_init(&b);
	out[0] = bind_behind(&b, "map a0+4:0", f[0]);
	out[1] = bind_behind(&b, "map b4+4:0", f[1]);
	out[2] = bind_behind(&b, "unmap 0+6", f[2]);
	out[3] = bind_after(&b, "map c0+2:0", NULL, 0);
	expect_layout(&b.w, "c0+2:0 b6+2:2");
	end_fence(f[2], 0);
	end_fence(f[1], 0);
	expect_applied(&b.w, "");
	for (int i = 0; i < 4; i++) {
		assert_int_equal(lf_fence_status(out[i]), 0);
		assert_true(i == 0 || lf_fence_is_later(out[i], out[i - 1]));
	}
	end_fence(f[0], 0);
	expect_applied(&b.w, "c0+2:0 b6+2:2");
	expect_log(&b, "[M a0+4:0][M b4+4:0][U a0+4:0, R b4+4:0 >b6+2:2][M c0+2:0]");
	for (int i = 0; i < 4; i++)
		expect_and_put(out[i], 1);
	binder_fini(&b);
}

static void all_in_fences_must_have_signaled(void **state)
{
	enum { N = 7 };

	for (unsigned order = 1; order < N; order++) {
		struct lf_fence *f[N + 2], *out;
		struct binder b;

		binder_init(&b);
		for (unsigned i = 0; i < N; i++)
			f[i] = plain();
		f[N] = f[2]; /* twice */
		f[N + 1] = lf_fence_stub();
		out = bind_after(&b, "map a0+1", f, N + 2);
		for (unsigned i = 0; i < N; i++) {
			assert_int_equal(b.applies, 0);
			end_fence(f[i * order % N], i == 3 ? -EIO : 0);
		}
		assert_int_equal(b.applies, 1);
		expect_and_put(out, 1); /* whatever their results */
		expect_applied(&b.w, "a0+1:0");
		binder_fini(&b);
	}
}

static void an_in_fence_that_completes_with_an_error_is_as_good(void **state)
{
	struct binder b;
	struct lf_fence *f = plain(), *done = NULL, *out;

	binder_init(&b);
	assert_int_equal(lf_fence_create_signaled(-ENODEV, 5, &done), 0);
	out = bind_behind(&b, "map a0+1", done);
	expect_and_put(out, 1);
	lf_fence_put(done);
	out = bind_behind(&b, "map b0+1", f);
	end_fence(f, -ETIME);
	expect_and_put(out, 1);
	expect_applied(&b.w, "b0+1:0");
	binder_fini(&b);
}

static void the_hook_is_called_for_a_transaction_that_changes_nothing(void **state)
{
	struct binder b;

	binder_init(&b);
	bind_now(&b, "");
	bind_now(&b, "map a0+4:0");
	bind_now(&b, "map a0+4:0");
	bind_now(&b, "map b8+1 unmap 8+1");
	expect_log(&b, "[][M a0+4:0][][]");
	binder_fini(&b);
}

static void a_vm_without_apply_hook_is_applied_all_the_same(void **state)
{
	const struct lf_vm_desc desc = { .name = "no hook", .flags = LF_VM_BIND };
	struct lf_fence *f = plain();
	struct lf_txn txn;
	struct world w;

	world_init(&w, &desc);
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(requests(&w, &txn, "map a0+4:0"), 0);
	assert_int_equal(lf_txn_submit(&txn, &f, 1, NULL), 0);
	vm_unlock(w.vm);
	expect_applied(&w, "");
	end_fence(f, 0);
	expect_applied(&w, "a0+4:0");
	world_fini(&w);
}

static void what_goes_lives_until_it_was_taken_from_the_page_tables(void **state)
{
	struct binder b;
	struct lf_fence *f = plain(), *g = plain();

	binder_init(&b);
	bind_now(&b, "map a0+4:0");
	lf_fence_put(bind_behind(&b, "map b0+4:0", f));
	lf_fence_put(bind_behind(&b, "unmap 0+4", g)); /* b was never applied, and is gone from what is asked for */
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&b.mappings_released), 0);
	expect_layout(&b.w, "");
	expect_applied(&b.w, "a0+4:0");
	end_fence(f, 0);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&b.mappings_released), 1);
	expect_applied(&b.w, "b0+4:0");
	end_fence(g, 0);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&b.mappings_released), 2);
	assert_int_equal(stats_of(b.w.vm).pinned, 0);
	expect_log(&b, "[M a0+4:0][U a0+4:0, M b0+4:0][U b0+4:0]");
	binder_fini(&b);
}

/* --- What the hook and callbacks may do ------------------------------------------------------------------------------------------- */

static void look_around(struct binder *b)
{
	struct lf_held *held;
	struct lf_fence *f = plain();

	lf_mapping_put(lf_vm_lookup_get(b->w.vm, b->w.base));
	must(lf_vm_hold(b->w.vm, &held) == 0);
	lf_held_put(held);
	stats_of(b->w.vm);
	end_fence(f, 0);
	lf_vm_put(lf_vm_get(b->w.vm));
}

static void the_hook_may_look_hold_signal_and_put(void **state)
{
	struct binder b;
	struct lf_fence *f = plain();

	binder_init(&b);
	b.during = look_around;
	bind_now(&b, "map a0+4:0");
	lf_fence_put(bind_behind(&b, "unmap 1+1", f));
	end_fence(f, 0);
	assert_int_equal(b.applies, 2);
	binder_fini(&b);
}

/* Looks at what is applied, inside a callback of an out-fence. */
struct looking_cb {
	struct lf_fence_cb cb;
	struct binder *b;
	struct text seen;
};

static void look_inside(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct looking_cb *c = (struct looking_cb *)(void *)cb;

	text_applied(&c->seen, &c->b->w);
}

static struct looking_cb looking;

/* With the reservation locked by the submission that calls the hook. */
static void submit_inside(struct binder *b)
{
	struct lf_fence *out = NULL;
	struct lf_txn txn;

	if (count_get(&b->applies) != 0)
		return;
	must(lf_txn_begin(&txn, b->w.vm) == 0);
	must(requests(&b->w, &txn, "map b8+4:0") == 0);
	must(lf_txn_submit(&txn, NULL, 0, &out) == 0);
	must(lf_fence_add_callback(out, &looking.cb, look_inside) == 0);
	lf_fence_put(out);
}

/* No other dispatch is around its own, so that the out-fence's callback runs in the moment of the signal. */
static void the_hook_may_submit_and_an_out_fence_signals_after_what_it_says_is_applied(void **state)
{
	struct binder b;

	binder_init(&b);
	memset(&looking, 0, sizeof(looking));
	looking.b = &b;
	b.during = submit_inside;
	bind_now(&b, "map a0+4:0");
	assert_string_equal(looking.seen.s, "a0+4:0 b8+4:0");
	expect_log(&b, "[M a0+4:0][M b8+4:0]");
	binder_fini(&b);
}

/* A callback of each out-fence that submits the next, so many times. */
struct chained {
	struct lf_fence_cb cb;
	struct binder *b;
	unsigned left;
};

static void submit_next(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct chained *c = (struct chained *)(void *)cb;
	struct lf_fence *out = NULL, *in = plain();
	struct lf_txn txn;

	if (c->left == 0) {
		end_fence(in, 0);
		return;
	}
	c->left--;
	must(lf_resv_trylock(lf_vm_resv(c->b->w.vm), NULL) == 0);
	must(lf_txn_begin(&txn, c->b->w.vm) == 0);
	must(requests(&c->b->w, &txn, c->left % 2 ? "map a0+4:0" : "unmap 0+4") == 0);
	must(lf_txn_submit(&txn, &in, 1, &out) == 0);
	lf_resv_unlock(lf_vm_resv(c->b->w.vm));
	must(lf_fence_add_callback(out, &c->cb, submit_next) == 0);
	lf_fence_put(out);
	end_fence(in, 0);
}

static void *chain_many(void *arg)
{
	struct chained *c = arg;

	submit_next(NULL, &c->cb);
	return NULL;
}

static void an_out_fences_callback_may_submit_the_next_bind_any_number_of_times(void **state)
{
	struct binder b;
	struct chained c = { .cb = LF_FENCE_CB_INIT, .b = &b, .left = 20000 };

	binder_init(&b);
	b.quiet = true;
	test_watchdog(60, "binds that submit binds");
	thread_run(chain_many, &c, 256 * 1024); /* a stack too small for recursion */
	test_watchdog(0, "");
	assert_int_equal(c.left, 0);
	assert_int_equal(b.applies, 20000);
	binder_fini(&b);
}

static struct lf_provider *own_provider;

static void close_own_provider(struct binder *b)
{
	if (lf_provider_close(own_provider, lf_now() + 1000000000) != -EDEADLK)
		count_up(&b->wrong);
}

static void the_hook_may_not_close_its_own_provider(void **state)
{
	struct binder b;

	assert_int_equal(lf_provider_create("driver", &own_provider), 0);
	binder_init_with(&b, own_provider);
	b.during = close_own_provider;
	bind_now(&b, "map a0+4:0");
	expect_misuse(1);
	assert_int_equal(lf_vm_error(b.w.vm), 0);
	binder_fini(&b);
	assert_int_equal(lf_provider_close(own_provider, 0), 0);
	lf_provider_put(own_provider);
}

static void many_binds_that_become_ready_at_once_need_no_stack(void **state)
{
	unsigned count = (unsigned)test_rounds(test_is_sanitized() ? 2000 : 20000);
	struct lf_fence *f = plain(), *last = NULL;
	struct binder b;

	binder_init(&b);
	b.quiet = true;
	for (unsigned i = 0; i < count; i++) {
		lf_fence_put(last);
		last = bind_behind(&b, i % 2 ? "unmap 0+4" : "map a0+4:0", f);
	}
	assert_int_equal(b.applies, 0);
	assert_int_equal(lf_fence_status(last), 0);
	lf_fence_signal(f, 0);
	assert_int_equal(b.applies, count);
	expect_and_put(last, 1);
	lf_fence_put(f);
	binder_fini(&b);
}

static void stay_inside(struct binder *b)
{
	if (count_get(&b->applies) == 0) {
		flag_set(&b->entered);
		flag_wait(&b->leave);
	}
}

static void *signal_fence(void *arg)
{
	lf_fence_signal(arg, 0);
	return NULL;
}

static void a_bind_that_becomes_ready_while_the_hook_runs_elsewhere_does_not_wait_for_it(void **state)
{
	struct lf_fence *f = plain(), *g = plain(), *out;
	struct binder b;
	pthread_t thread;

	binder_init(&b);
	b.during = stay_inside;
	test_watchdog(30, "a bind behind a hook that runs");
	lf_fence_put(bind_behind(&b, "map a0+4:0", f));
	out = bind_behind(&b, "map b0+4:0", g);
	thread = thread_start(signal_fence, f, 0);
	flag_wait(&b.entered);
	lf_fence_signal(g, 0); /* returns, and leaves it to the thread that is inside */
	lf_fence_put(bind_after(&b, "map c8+1", NULL, 0)); /* the same */
	expect_layout(&b.w, "b0+4:0 c8+1:0");
	expect_applied(&b.w, "");
	assert_int_equal(lf_fence_status(out), 0);
	flag_set(&b.leave);
	thread_join(thread);
	test_watchdog(0, "");
	expect_and_put(out, 1);
	expect_applied(&b.w, "b0+4:0 c8+1:0");
	assert_int_equal(b.applies, 3);
	lf_fence_put(f);
	lf_fence_put(g);
	binder_fini(&b);
}

/* --- Errors ------------------------------------------------------------------------------------------------------------------------ */

static void every_allocation_of_a_submission_may_fail_and_it_can_be_tried_again(void **state)
{
	struct lf_fence *f[2] = { plain(), plain() }, *out = NULL;
	struct picture before = { { NULL, 0, 0 }, { 0, 0, 0, 0, 0, 0 } };
	struct text ops, now;
	struct lf_view view;
	struct lf_txn txn;
	struct binder b;
	long nth = 0;
	int error;

	binder_init(&b);
	bind_now(&b, "map a0+8:0");
	picture_take(&before, b.w.vm);
	vm_lock(b.w.vm);
	assert_int_equal(lf_txn_begin(&txn, b.w.vm), 0);
	assert_int_equal(requests(&b.w, &txn, "unmap 2+2 map b20+2:0 prefetch 0+64"), 0);
	text_ops(&ops, &b.w, &txn);
	do {
		alloc_fail_at(++nth);
		error = lf_txn_submit(&txn, f, 2, &out);
		alloc_fail_at(0);
		if (error == 0)
			break;
		assert_int_equal(error, -ENOMEM);
		assert_null(out);
		assert_true(picture_matches(&before, b.w.vm));
		text_ops(&now, &b.w, &txn);
		assert_string_equal(now.s, ops.s);
		lf_txn_view(&txn, &view);
		text_view(&now, &b.w, &view);
		assert_string_equal(now.s, "a0+2:0 a4+4:4 b20+2:0");
		assert_int_equal(lf_txn_unmap(&txn, 60 * PAGE, PAGE), 0); /* the error of a submission is not one of the transaction */
	} while (true);
	vm_unlock(b.w.vm);
	test_note("%ld allocations failed in turn", nth - 1);
	assert_true(nth > 2);
	expect_layout(&b.w, "a0+2:0 a4+4:4 b20+2:0");
	expect_applied(&b.w, "a0+8:0");
	end_fence(f[0], 0);
	end_fence(f[1], 0);
	expect_applied(&b.w, "a0+2:0 a4+4:4 b20+2:0");
	expect_and_put(out, 1);
	dump_free(&before.dump);
	binder_fini(&b);
}

static int life_of_a_bind(void *arg)
{
	const struct lf_vm_desc desc = { .name = "oom", .flags = LF_VM_BIND };
	struct world w = { .page = PAGE };
	struct lf_fence *out = NULL;
	struct lf_txn txn;
	int error = lf_vm_create(&desc, &w.vm);

	if (error != 0)
		return error;
	vm_lock(w.vm);
	error = lf_txn_begin(&txn, w.vm);
	if (error == 0) {
		error = requests(&w, &txn, "map -0+8 unmap 2+2");
		if (error == 0)
			error = lf_txn_submit(&txn, (struct lf_fence *const *)arg, 2, &out);
		if (error != 0)
			lf_txn_abort(&txn);
	}
	must(lf_vm_close(w.vm) == 0);
	vm_unlock(w.vm);
	lf_fence_put(out);
	lf_vm_put(w.vm);
	return error;
}

static void every_allocation_in_the_life_of_a_bind_may_fail_and_nothing_leaks(void **state)
{
	struct lf_fence *f[2] = { NULL, NULL };

	assert_int_equal(lf_fence_create_signaled(0, 1, &f[0]), 0);
	assert_int_equal(lf_fence_create_signaled(-EIO, 1, &f[1]), 0);
	test_note("%ld allocations failed in turn", alloc_fail_each(life_of_a_bind, f));
	lf_fence_put(f[0]);
	lf_fence_put(f[1]);
}

static void submitting_is_refused_where_it_makes_no_sense(void **state)
{
	struct lf_fence *out = NULL;
	struct lf_txn txn;
	struct binder b;
	struct world w;

	binder_init(&b);
	world_init(&w, NULL);
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(requests(&w, &txn, "map a0+1"), 0);
	assert_int_equal(lf_txn_submit(&txn, NULL, 0, &out), -EINVAL); /* no bind queue */
	expect_misuse(1);
	assert_null(out);
	lf_txn_commit(&txn); /* it is open still */
	vm_unlock(w.vm);
	expect_layout(&w, "a0+1:0");
	vm_lock(b.w.vm);
	assert_int_equal(lf_txn_begin(&txn, b.w.vm), 0);
	assert_int_equal(lf_txn_submit(&txn, NULL, 3, &out), -EINVAL);
	expect_misuse(1);
	alloc_fail_all(true);
	assert_int_equal(requests(&b.w, &txn, "map a0+1"), -ENOMEM);
	alloc_fail_all(false);
	assert_int_equal(lf_txn_submit(&txn, NULL, 0, &out), -ENOMEM); /* the error of the request */
	lf_txn_abort(&txn);
	assert_int_equal(lf_txn_begin(&txn, b.w.vm), 0);
	assert_int_equal(requests(&b.w, &txn, "map a0+1"), 0);
	lf_txn_commit(&txn); /* has one: reported, and an abort */
	expect_misuse(1);
	vm_unlock(b.w.vm);
	expect_layout(&b.w, "");
	assert_null(out);
	world_fini(&w);
	binder_fini(&b);
}

static void an_error_of_the_hook_bans_the_vm_and_completes_all_that_waits_with_it(void **state)
{
	struct lf_fence *f[4], *out[4];
	struct lf_txn txn;
	struct binder b;

	binder_init(&b);
	bind_now(&b, "map a0+4:0");
	b.fail_at = 3;
	b.error = -EIO;
	for (int i = 0; i < 4; i++) {
		f[i] = plain();
		out[i] = bind_behind(&b, i % 2 ? "unmap 0+1 map b8+4:0" : "map c4+2:0 map d0+1:0", f[i]);
	}
	end_fence(f[3], 0);
	end_fence(f[0], 0);
	expect_applied(&b.w, "d0+1:0 a1+3:1 c4+2:0");
	assert_int_equal(lf_fence_status(out[0]), 1);
	assert_int_equal(lf_vm_error(b.w.vm), 0);
	end_fence(f[1], 0);
	assert_int_equal(lf_vm_error(b.w.vm), -EIO);
	expect_applied(&b.w, "d0+1:0 a1+3:1 c4+2:0"); /* as it was */
	expect_and_put(out[0], 1);
	for (int i = 1; i < 4; i++)
		expect_and_put(out[i], -EIO);
	vm_lock(b.w.vm);
	assert_int_equal(lf_txn_begin(&txn, b.w.vm), -EIO);
	vm_unlock(b.w.vm);
	end_fence(f[2], 0);
	assert_int_equal(b.applies, 3); /* never again */
	expect_layout(&b.w, "a1+3:1 c4+2:0 b8+4:0"); /* what was asked for stays */
	binder_fini(&b);
}

static void a_ban_completes_what_waits(void **state)
{
	struct lf_fence *f = plain(), *out[2], *late = NULL;
	struct lf_txn txn;
	struct binder b;

	binder_init(&b);
	bind_now(&b, "map a0+4:0");
	out[0] = bind_behind(&b, "unmap 0+1", f);
	out[1] = bind_after(&b, "unmap 1+1", NULL, 0);
	vm_lock(b.w.vm);
	assert_int_equal(lf_txn_begin(&txn, b.w.vm), 0);
	assert_int_equal(requests(&b.w, &txn, "unmap 3+1"), 0);
	lf_vm_ban(b.w.vm, -ENODEV);
	expect_and_put(out[0], -ENODEV);
	expect_and_put(out[1], -ENODEV);
	if (lf_txn_submit(&txn, NULL, 0, &late) == 0)
		expect_and_put(late, -ENODEV);
	else
		lf_txn_abort(&txn);
	vm_unlock(b.w.vm);
	expect_applied(&b.w, "a0+4:0");
	end_fence(f, 0);
	expect_applied(&b.w, "a0+4:0");
	assert_int_equal(b.applies, 1);
	binder_fini(&b);
}

static void ban_inside(struct binder *b)
{
	if (count_get(&b->applies) == 1)
		lf_vm_ban(b->w.vm, -EPROTO);
}

static void the_hook_may_ban_its_own_vm(void **state)
{
	struct lf_fence *f = plain(), *out[2];
	struct binder b;

	binder_init(&b);
	b.during = ban_inside;
	bind_now(&b, "map a0+4:0");
	out[0] = bind_behind(&b, "unmap 0+1", f);
	out[1] = bind_behind(&b, "unmap 1+1", f);
	end_fence(f, 0);
	expect_and_put(out[0], -EPROTO);
	expect_and_put(out[1], -EPROTO);
	assert_int_equal(b.applies, 2);
	assert_int_equal(lf_vm_error(b.w.vm), -EPROTO);
	binder_fini(&b);
}

/* --- Engines ------------------------------------------------------------------------------------------------------------------------ */

/* A job that reads a page, as an engine does: through what is applied. */
struct reading {
	struct binder *b;
	uint64_t page;
	unsigned runs, faults;
};

static int run_reading(struct lf_job *job, void *data)
{
	struct reading *r = data;

	r->runs++;
	r->faults += look_applied(r->b->w.vm, r->b->w.base + r->page * r->b->w.page) == NULL;
	return 0;
}

static const struct lf_queue_ops reading_ops = { .run = run_reading };

static struct lf_queue *manual_queue(bool hangs)
{
	struct lf_queue_desc desc = { .name = "engine", .mode = LF_QUEUE_MANUAL, .ops = &reading_ops, .timeout = 1000 };
	struct lf_queue *q = NULL;

	if (hangs) {
		desc.faults.exact = true;
		desc.faults.hang_one_in = 2;
	}
	must(lf_queue_create(&desc, &q) == 0);
	return q;
}

/* A new reference on its finished fence. */
static struct lf_fence *push_reading(struct lf_queue *q, struct reading *r, struct lf_fence *behind)
{
	const struct lf_job_desc desc = { .data = r, .duration = 10 };
	struct lf_fence *finished = NULL;
	struct lf_job *job = NULL;

	must(lf_job_create(q, &desc, &job) == 0);
	if (behind)
		must(lf_job_add_dependency(job, behind) == 0);
	must(lf_job_push(job, &finished) == 0);
	lf_job_put(job);
	return finished;
}

static void step_until_idle(struct lf_queue *q)
{
	while (lf_queue_step(q) != LF_STEP_IDLE)
		;
}

static void a_job_finds_what_it_may_use_until_it_is_finished(void **state)
{
	struct binder b;
	struct reading first = { .b = &b, .page = 2 }, second = { .b = &b, .page = 9 };
	struct lf_queue *q = manual_queue(false);
	struct lf_fence *done, *bound, *last;

	binder_init(&b);
	bind_now(&b, "map a0+4:0");
	done = push_reading(q, &first, NULL);
	bound = bind_behind(&b, "unmap 0+4 map b8+4:0", done); /* as soon as the job is through */
	last = push_reading(q, &second, bound); /* needs the new mapping */
	assert_null(look(b.w.vm, 2 * PAGE));
	step_until_idle(q);
	assert_int_equal(first.runs, 1);
	assert_int_equal(first.faults, 0);
	assert_int_equal(second.runs, 1);
	assert_int_equal(second.faults, 0);
	assert_int_equal(lf_fence_status(done), 1);
	assert_int_equal(lf_fence_status(bound), 1);
	assert_null(look_applied(b.w.vm, 2 * PAGE));
	expect_and_put(last, 1);
	lf_fence_put(done);
	lf_fence_put(bound);
	lf_queue_put(q);
	binder_fini(&b);
}

static void a_bind_behind_a_job_that_hangs_is_applied_by_the_reset(void **state)
{
	struct binder b;
	struct reading first = { .b = &b, .page = 2 }, hung = { .b = &b, .page = 3 }, third = { .b = &b, .page = 8 };
	struct lf_queue *q = manual_queue(true);
	struct lf_fence *f[3], *bound;
	struct lf_queue_stats stats;

	binder_init(&b);
	bind_now(&b, "map a0+4:0");
	f[0] = push_reading(q, &first, NULL);
	f[1] = push_reading(q, &hung, NULL);
	bound = bind_behind(&b, "unmap 0+4 map b8+4:0", f[1]);
	f[2] = push_reading(q, &third, bound);
	vm_lock(b.w.vm); /* a reset must get through while somebody has the reservation */
	step_until_idle(q);
	vm_unlock(b.w.vm);
	lf_queue_get_stats(q, &stats);
	assert_int_equal(stats.resets, 1);
	assert_int_equal(lf_fence_status(f[1]), -ETIME);
	assert_int_equal(lf_fence_status(bound), 1);
	expect_applied(&b.w, "b8+4:0");
	assert_int_equal(first.faults + hung.faults + third.faults, 0);
	assert_int_equal(third.runs, 1);
	for (int i = 0; i < 3; i++)
		lf_fence_put(f[i]);
	lf_fence_put(bound);
	lf_queue_put(q);
	binder_fini(&b);
}

static void what_is_applied_of_a_closed_buffer_stays_until_its_reap_is_applied(void **state)
{
	struct lf_fence *job = plain(), *out = NULL;
	struct lf_txn txn;
	struct binder b;

	binder_init(&b);
	bind_now(&b, "map a0+4:0 map b4+4:0");
	lf_vm_bo_close(b.w.vm_bo[0]);
	expect_layout(&b.w, "b4+4:0");
	expect_applied(&b.w, "a0+4:0 b4+4:0");
	vm_lock(b.w.vm);
	assert_int_equal(lf_txn_begin(&txn, b.w.vm), 0);
	assert_int_equal(lf_txn_reap(&txn), 0);
	assert_int_equal(lf_txn_submit(&txn, &job, 1, &out), 0);
	vm_unlock(b.w.vm);
	assert_int_equal(lf_reclaim_barrier(), 0);
	expect_applied(&b.w, "a0+4:0 b4+4:0");
	assert_int_equal(count_get(&b.mappings_released), 0);
	end_fence(job, 0);
	expect_applied(&b.w, "b4+4:0");
	expect_log(&b, "[M a0+4:0, M b4+4:0][U a0+4:0]");
	expect_and_put(out, 1);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&b.mappings_released), 1);
	binder_fini(&b);
}

/* A bind whose version was made before the close and is applied after it: its mappings are seen, until the reap. */
static void a_bind_that_waits_while_its_buffer_is_closed_is_applied_and_reaped(void **state)
{
	struct lf_fence *f = plain();
	struct binder b;

	binder_init(&b);
	lf_fence_put(bind_behind(&b, "map a0+4:0", f));
	lf_vm_bo_close(b.w.vm_bo[0]);
	expect_layout(&b.w, "");
	lf_fence_put(bind_after(&b, "reap", NULL, 0));
	end_fence(f, 0);
	expect_log(&b, "[M a0+4:0][U a0+4:0]");
	expect_applied(&b.w, "");
	binder_fini(&b);
}

/* --- Ends ---------------------------------------------------------------------------------------------------------------------------- */

static void close_cancels_what_waits_and_engines_walk_on_until_the_reservation_is_idle(void **state)
{
	struct lf_fence *f = plain(), *job = plain(), *out;
	struct binder b;
	struct lf_vm *vm;

	binder_init(&b);
	bind_now(&b, "map a0+4:0");
	out = bind_behind(&b, "unmap 0+2", f);
	vm_lock(b.w.vm);
	assert_int_equal(lf_resv_reserve(lf_vm_resv(b.w.vm), 1), 0);
	lf_resv_add(lf_vm_resv(b.w.vm), job, LF_USAGE_BOOKKEEP);
	vm_unlock(b.w.vm);
	long calls = alloc_calls();
	vm_close(b.w.vm);
	assert_int_equal(alloc_calls(), calls);
	expect_and_put(out, -ECANCELED);
	expect_layout(&b.w, "");
	expect_applied(&b.w, "a0+4:0");
	assert_int_equal(lf_vm_error(b.w.vm), -ESHUTDOWN);
	assert_int_equal(lf_reclaim_barrier(), 0);
	expect_applied(&b.w, "a0+4:0");
	vm = lf_vm_get(b.w.vm);
	world_fini(&b.w);
	end_fence(f, 0); /* the bind that was cancelled */
	assert_int_equal(b.applies, 1);
	assert_non_null(look_applied(vm, 0));
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&b.mappings_released), 1); /* the piece, which was in the version that was cancelled only */
	end_fence(job, 0);
	assert_null(look_applied(vm, 0));
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&b.mappings_released), 2);
	assert_int_equal(count_get(&b.released), 0);
	lf_vm_put(vm);
	binder_end(&b);
}

static void a_closed_and_put_vm_ends_when_its_last_fence_has_signaled(void **state)
{
	for (int order = 0; order < 2; order++) {
		struct lf_fence *f = plain(), *job = plain();
		struct binder b;

		binder_init(&b);
		bind_now(&b, "map a0+4:0");
		lf_fence_put(bind_behind(&b, "unmap 0+2", f));
		vm_lock(b.w.vm);
		assert_int_equal(lf_resv_reserve(lf_vm_resv(b.w.vm), 1), 0);
		lf_resv_add(lf_vm_resv(b.w.vm), job, LF_USAGE_READ);
		vm_unlock(b.w.vm);
		world_fini(&b.w);
		assert_int_equal(lf_reclaim_barrier(), 0);
		assert_int_equal(count_get(&b.released), 0);
		end_fence(order ? f : job, 0);
		assert_int_equal(lf_reclaim_barrier(), 0);
		assert_int_equal(count_get(&b.released), 0);
		end_fence(order ? job : f, 0);
		binder_end(&b);
	}
}

static void a_vm_that_was_banned_and_closed_ends(void **state)
{
	struct lf_fence *f = plain();
	struct binder b;

	binder_init(&b);
	bind_now(&b, "map a0+4:0");
	lf_fence_put(bind_behind(&b, "unmap 0+2", f));
	lf_vm_ban(b.w.vm, -EIO);
	world_fini(&b.w);
	end_fence(f, 0);
	binder_end(&b);
}

struct last_put {
	struct lf_fence_cb cb;
	struct lf_vm *vm;
};

static void put_inside(struct lf_fence *f, struct lf_fence_cb *cb)
{
	lf_vm_put(((struct last_put *)(void *)cb)->vm);
}

static void the_last_put_of_a_vm_may_come_from_its_own_out_fence(void **state)
{
	struct last_put c = { .cb = LF_FENCE_CB_INIT };
	struct lf_fence *f = plain(), *out;
	struct binder b;

	binder_init(&b);
	c.vm = b.w.vm;
	bind_now(&b, "map a0+4:0");
	out = bind_behind(&b, "unmap 0+4", f);
	assert_int_equal(lf_fence_add_callback(out, &c.cb, put_inside), 0);
	lf_fence_put(out);
	world_put_bos(&b.w); /* nothing is mapped: the bind and the callback alone have the VM */
	end_fence(f, 0);
	assert_int_equal(b.applies, 2);
	binder_end(&b);
}

static void closing_a_provider_completes_binds_with_ENODEV(void **state)
{
	struct lf_fence *f = plain(), *out;
	struct lf_provider *p;
	struct binder b;

	assert_int_equal(lf_provider_create("driver", &p), 0);
	binder_init_with(&b, p);
	out = bind_behind(&b, "map a0+4:0", f);
	assert_int_equal(lf_provider_close(p, 0), -ETIME);
	assert_true(log_contains("binder"));
	expect_and_put(out, -ENODEV);
	assert_int_equal(lf_vm_error(b.w.vm), -ENODEV);
	end_fence(f, 0);
	assert_int_equal(b.applies, 0);
	world_fini(&b.w);
	assert_int_equal(lf_provider_close(p, lf_now() + INT64_C(10000000000)), 0);
	lf_provider_put(p);
	log_reset();
	binder_end(&b);
}

/* --- Random --------------------------------------------------------------------------------------------------------------------------- */

enum { WINDOW = 64 };

/* Binds in flight, in a ring by their number; each with the text of what was asked for when it was submitted. */
struct flight {
	struct binder b;
	uint64_t random;
	struct lf_fence *in[WINDOW], *out[WINDOW];
	struct text asked[WINDOW];
	unsigned submitted, checked, applied_early;
};

static uint64_t below(struct flight *t, uint64_t n)
{
	return random_next(&t->random) % n;
}

static void random_script(struct flight *t, struct text *script)
{
	text_clear(script);
	for (uint64_t n = 1 + below(t, 3); n > 0; n--) {
		unsigned at = (unsigned)below(t, PAGES), count = 1 + (unsigned)below(t, PAGES - at > 16 ? 16 : PAGES - at);
		unsigned offset = below(t, 2) ? at : (unsigned)below(t, 100);
		uint64_t what = below(t, 8);

		if (what < 5)
			text_add(script, " map %c%u+%u:%u", (char)('a' + below(t, 4)), at, count, offset);
		else
			text_add(script, " %s %u+%u", what < 7 ? "unmap" : "split", at, count);
	}
}

static void random_submit(struct flight *t)
{
	unsigned i = t->submitted++ % WINDOW;
	struct text script;

	random_script(t, &script);
	t->in[i] = below(t, 4) ? plain() : NULL;
	t->out[i] = bind_after(&t->b, script.s, &t->in[i], t->in[i] ? 1 : 0);
	text_vm(&t->asked[i], &t->b.w);
}

/* What is applied is what was asked for after so many transactions, and the page table says so. */
static void check_applied(struct flight *t)
{
	unsigned applies = count_get(&t->b.applies);
	struct text now;

	must(table_is_applied(&t->b));
	if (applies > 0) {
		text_applied(&now, &t->b.w);
		must(strcmp(now.s, t->asked[(applies - 1) % WINDOW].s) == 0);
	}
	for (; t->checked < applies; t->checked++) {
		must(lf_fence_status(t->out[t->checked % WINDOW]) == 1);
		lf_fence_put(t->out[t->checked % WINDOW]);
	}
	must(applies == t->submitted || lf_fence_status(t->out[applies % WINDOW]) == 0);
}

/* Signals one of those that wait, any. */
static void random_signal(struct flight *t)
{
	unsigned waiting = t->submitted - t->checked, i;

	if (waiting == 0)
		return;
	i = (t->checked + (unsigned)below(t, waiting)) % WINDOW;
	if (t->in[i] == NULL)
		return;
	t->applied_early += i != t->checked % WINDOW;
	end_fence(t->in[i], below(t, 4) ? 0 : -EIO);
	t->in[i] = NULL;
}

static void random_binds_are_applied_in_order_and_page_tables_follow(void **state)
{
	static struct flight t;
	long rounds = test_rounds(test_is_sanitized() ? 2000 : 10000);

	memset(&t, 0, sizeof(t));
	t.random = test_seed();
	binder_init(&t.b);
	t.b.quiet = true;
	for (long i = 0; i < rounds; i++) {
		if (t.submitted - t.checked < WINDOW - 1)
			random_submit(&t);
		check_applied(&t);
		/* so that there are sometimes many and sometimes none */
		while (below(&t, WINDOW) < t.submitted - t.checked) {
			random_signal(&t);
			check_applied(&t);
		}
	}
	while (t.checked < t.submitted) {
		random_signal(&t);
		check_applied(&t);
	}
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(stats_of(t.b.w.vm).held, 1);
	assert_int_equal(stats_of(t.b.w.vm).pinned, 0);
	test_note("%u binds, %u fences that signaled before their turn", t.submitted, t.applied_early);
	binder_fini(&t.b);
}

/* Threads signal in-fences at once while one submits. Healthy: one hook at a time, in order (the table shows it), and all complete. */
struct signallers {
	struct lf_fence **f;
	unsigned count;
	unsigned next;
};

static void *signal_all(void *arg)
{
	struct signallers *s = arg;
	uint64_t random = 88172645463325252u + (uint64_t)(uintptr_t)&random;
	unsigned i;

	while ((i = __atomic_fetch_add(&s->next, 1, __ATOMIC_SEQ_CST)) < s->count) {
		struct lf_fence *f;

		while ((f = __atomic_load_n(&s->f[i], __ATOMIC_SEQ_CST)) == NULL)
			sched_yield();
		pause_at_random(&random);
		lf_fence_signal(f, 0);
	}
	return NULL;
}

static void threads_that_signal_in_fences_at_once_apply_one_at_a_time(void **state)
{
	enum { THREADS = 3 };
	unsigned count = (unsigned)test_rounds(test_is_sanitized() ? 1000 : 6000);
	struct lf_fence **f = calloc(count, sizeof(*f)), *last = NULL;
	struct signallers s = { f, count, 0 };
	pthread_t threads[THREADS];
	struct binder b;

	assert_non_null(f);
	binder_init(&b);
	b.quiet = true;
	test_watchdog(100, "binds under threads");
	for (int i = 0; i < THREADS; i++)
		threads[i] = thread_start(signal_all, &s, 0);
	for (unsigned i = 0; i < count; i++) {
		struct lf_fence *in = plain();
		char script[64];

		if (i % 3)
			snprintf(script, sizeof(script), "map %c%u+4:0", "abcd"[i % 4], i * 7 % 60);
		else
			snprintf(script, sizeof(script), "unmap %u+4", i * 7 % 60);
		lf_fence_put(last);
		last = bind_behind(&b, script, in);
		__atomic_store_n(&f[i], in, __ATOMIC_SEQ_CST);
	}
	for (int i = 0; i < THREADS; i++)
		thread_join(threads[i]);
	assert_int_equal(lf_fence_wait(last, LF_DEADLINE_NEVER), 0);
	test_watchdog(0, "");
	expect_and_put(last, 1);
	assert_int_equal(b.applies, count);
	for (unsigned i = 0; i < count; i++)
		lf_fence_put(f[i]);
	free(f);
	binder_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(without_in_fences_it_is_applied_inside_the_submission),
		TEST_WARM(with_an_in_fence_it_is_asked_for_at_once_and_applied_when_that_signals),
		TEST_WARM(binds_are_applied_in_order_whatever_order_their_fences_signal_in),
		TEST_WARM(all_in_fences_must_have_signaled),
		TEST_WARM(an_in_fence_that_completes_with_an_error_is_as_good),
		TEST_WARM(the_hook_is_called_for_a_transaction_that_changes_nothing),
		TEST_WARM(a_vm_without_apply_hook_is_applied_all_the_same),
		TEST_WARM(what_goes_lives_until_it_was_taken_from_the_page_tables),
		TEST_WARM(the_hook_may_look_hold_signal_and_put),
		TEST_WARM(the_hook_may_submit_and_an_out_fence_signals_after_what_it_says_is_applied),
		TEST_WARM(an_out_fences_callback_may_submit_the_next_bind_any_number_of_times),
		TEST_WARM(the_hook_may_not_close_its_own_provider),
		TEST_WARM(many_binds_that_become_ready_at_once_need_no_stack),
		TEST_WARM(a_bind_that_becomes_ready_while_the_hook_runs_elsewhere_does_not_wait_for_it),
		TEST_WARM(every_allocation_of_a_submission_may_fail_and_it_can_be_tried_again),
		TEST_WARM(every_allocation_in_the_life_of_a_bind_may_fail_and_nothing_leaks),
		TEST_WARM(submitting_is_refused_where_it_makes_no_sense),
		TEST_WARM(an_error_of_the_hook_bans_the_vm_and_completes_all_that_waits_with_it),
		TEST_WARM(a_ban_completes_what_waits),
		TEST_WARM(the_hook_may_ban_its_own_vm),
		TEST_WARM(a_job_finds_what_it_may_use_until_it_is_finished),
		TEST_WARM(a_bind_behind_a_job_that_hangs_is_applied_by_the_reset),
		TEST_WARM(what_is_applied_of_a_closed_buffer_stays_until_its_reap_is_applied),
		TEST_WARM(a_bind_that_waits_while_its_buffer_is_closed_is_applied_and_reaped),
		TEST_WARM(close_cancels_what_waits_and_engines_walk_on_until_the_reservation_is_idle),
		TEST_WARM(a_closed_and_put_vm_ends_when_its_last_fence_has_signaled),
		TEST_WARM(a_vm_that_was_banned_and_closed_ends),
		TEST_WARM(the_last_put_of_a_vm_may_come_from_its_own_out_fence),
		TEST_WARM(closing_a_provider_completes_binds_with_ENODEV),
		TEST_WARM(random_binds_are_applied_in_order_and_page_tables_follow),
		TEST_WARM(threads_that_signal_in_fences_at_once_apply_one_at_a_time),
	};
	return TEST_MAIN(tests);
}
