/* SPDX-License-Identifier: MIT */
/* Every kind of fence keeps the same promises; see family.h. */
#include "family.h"

#include <sched.h>

/* --- The kinds ---------------------------------------------------------------------------------------------------------- */

static void make_plain(struct specimen *s)
{
	must(lf_fence_create(&s->f) == 0);
}

static bool signal_plain(struct specimen *s, int error)
{
	return lf_fence_signal(s->f, error);
}

struct block {
	char before[88];
	struct lf_fence fence;
	char after[24];
};

static struct lf_fence *make_block(void)
{
	struct block *block = lf_alloc(sizeof(*block));
	must(block != NULL);
	must(lf_fence_init(&block->fence, offsetof(struct block, fence)) == 0);
	return &block->fence;
}

static void make_embedded(struct specimen *s)
{
	s->f = make_block();
}

static void make_done(struct specimen *s)
{
	must(lf_fence_create_signaled(0, 1234, &s->f) == 0);
}

static void make_failed(struct specimen *s)
{
	must(lf_fence_create_signaled(-EREMOTEIO, 1234, &s->f) == 0);
}

static void make_stub(struct specimen *s)
{
	s->f = lf_fence_stub();
}

static void count_detach(struct lf_fence *f, void *data)
{
	struct specimen *s = data;
	if (f == s->f)
		s->detached++;
}

static int arm(struct lf_fence *f, void *data)
{
	return 0;
}

static int not_yet(struct lf_fence *f, void *data)
{
	return 0;
}

static const struct lf_fence_ops hooks = { .enable = arm, .poll = not_yet, .detach = count_detach };

static void make_timeline(struct specimen *s, unsigned flags, const struct lf_fence_ops *ops)
{
	const struct lf_timeline_desc desc = { .name = "ring", .flags = flags, .ops = ops, .data = s };
	must(lf_timeline_create(&desc, &s->timeline) == 0);
}

static void make_ordered(struct specimen *s)
{
	make_timeline(s, LF_TIMELINE_ORDERED, NULL);
	must(lf_timeline_emit(s->timeline, 40, &s->f) == 0);
}

static void make_unordered(struct specimen *s)
{
	make_timeline(s, LF_TIMELINE_UNORDERED, NULL);
	must(lf_timeline_emit(s->timeline, 40, &s->f) == 0);
}

static void make_hooked(struct specimen *s)
{
	make_timeline(s, LF_TIMELINE_ORDERED, &hooks);
	must(lf_timeline_emit(s->timeline, 40, &s->f) == 0);
}

static void make_emitted_block(struct specimen *s)
{
	make_timeline(s, LF_TIMELINE_UNORDERED, &hooks);
	s->f = make_block();
	must(lf_timeline_emit_fence(s->timeline, 40, s->f) == 0);
}

static void make_lost(struct specimen *s)
{
	make_timeline(s, LF_TIMELINE_ORDERED, NULL);
	clock_set(1234);
	lf_timeline_lose(s->timeline, -ENODEV);
	must(lf_timeline_emit(s->timeline, 40, &s->f) == 0);
}

/* --- Containers: their members are of one timeline, and only they and it hold them ------------------------------------------ */

static struct lf_fence *emit_member(struct specimen *s)
{
	struct lf_fence *f;
	must(lf_timeline_emit(s->timeline, 0, &f) == 0);
	return f;
}

static void make_array_of(struct specimen *s, unsigned flags, struct lf_fence *a, struct lf_fence *b)
{
	struct lf_fence *members[2] = { a, b };
	must(lf_array_create(members, 2, flags, &s->f) == 0);
}

static void make_array_all(struct specimen *s)
{
	make_timeline(s, LF_TIMELINE_ORDERED, NULL);
	struct lf_fence *a = emit_member(s);
	make_array_of(s, LF_ARRAY_ALL, a, emit_member(s));
}

static void make_array_any(struct specimen *s)
{
	make_timeline(s, LF_TIMELINE_UNORDERED, NULL);
	struct lf_fence *a = emit_member(s);
	make_array_of(s, LF_ARRAY_ANY, a, emit_member(s));
}

static void make_link(struct specimen *s)
{
	struct lf_fence *first;
	make_timeline(s, LF_TIMELINE_UNORDERED, NULL);
	must(lf_chain_append(NULL, emit_member(s), 10, 0, &first) == 0);
	must(lf_chain_append(first, emit_member(s), 40, 0, &s->f) == 0);
}

/* An array of {a chain that begins after an array, an *any* array of {an array, a fence}}. */
static void make_nested(struct specimen *s)
{
	struct lf_fence *link, *any;
	make_timeline(s, LF_TIMELINE_UNORDERED, NULL);
	struct lf_fence *a = emit_member(s);
	make_array_of(s, LF_ARRAY_ALL, lf_fence_get(a), emit_member(s));
	must(lf_chain_append(s->f, emit_member(s), 5, 0, &link) == 0);
	make_array_of(s, LF_ARRAY_ALL, a, emit_member(s));
	make_array_of(s, LF_ARRAY_ANY, s->f, emit_member(s));
	any = s->f;
	make_array_of(s, LF_ARRAY_ALL, link, any);
}

static void make_array_done(struct specimen *s)
{
	struct lf_fence *done, *failed;
	must(lf_fence_create_signaled(0, 1234, &done) == 0);
	must(lf_fence_create_signaled(-EREMOTEIO, 1000, &failed) == 0);
	make_array_of(s, LF_ARRAY_ALL, done, failed);
}

static void make_link_done(struct specimen *s)
{
	struct lf_fence *failed;
	must(lf_fence_create_signaled(-EREMOTEIO, 1234, &failed) == 0);
	must(lf_chain_append(failed, lf_fence_stub(), 40, 0, &s->f) == 0);
}

static bool signal_members(struct specimen *s, int error)
{
	return s->timeline != NULL && lf_timeline_signal_to(s->timeline, UINT64_MAX, error) != 0;
}

static bool signal_a_member(struct specimen *s, int error)
{
	return s->timeline != NULL && lf_timeline_signal_to(s->timeline, 1, error) == 1;
}

static bool signal_to(struct specimen *s, int error)
{
	return s->timeline != NULL && lf_timeline_signal_to(s->timeline, lf_fence_seqno(s->f), error) == 1;
}

static bool signal_one(struct specimen *s, int error)
{
	return s->timeline != NULL && lf_timeline_signal_one(s->timeline, s->f, error);
}

static void put_timeline(struct specimen *s)
{
	lf_timeline_put(s->timeline);
	s->timeline = NULL;
}

static const struct fence_kind all_kinds[] = {
	{
		.name = "plain",
		.fence_name = "stand-alone",
		.make = make_plain,
		.signal = signal_plain,
	},
	{
		.name = "embedded",
		.fence_name = "stand-alone",
		.make = make_embedded,
		.signal = signal_plain,
	},
	{
		.name = "done",
		.fence_name = "stand-alone",
		.make = make_done,
		.born_status = 1,
		.born_timestamp = 1234,
	},
	{
		.name = "failed",
		.fence_name = "stand-alone",
		.make = make_failed,
		.born_status = -EREMOTEIO,
		.born_timestamp = 1234,
	},
	{
		.name = "stub",
		.fence_name = "stub",
		.make = make_stub,
		.born_status = 1,
		.born_timestamp = 0,
		.immortal = true,
	},
	{
		.name = "ordered",
		.fence_name = "signaled-timeline",
		.make = make_ordered,
		.signal = signal_to,
		.end_producer = put_timeline,
		.abandoned_status = -ECANCELED,
		.on_timeline = true,
		.ordered = true,
	},
	{
		.name = "unordered",
		.fence_name = "signaled-timeline",
		.make = make_unordered,
		.signal = signal_one,
		.end_producer = put_timeline,
		.abandoned_status = -ECANCELED,
		.on_timeline = true,
	},
	{
		.name = "hooked",
		.fence_name = "signaled-timeline",
		.make = make_hooked,
		.signal = signal_to,
		.end_producer = put_timeline,
		.abandoned_status = -ECANCELED,
		.on_timeline = true,
		.ordered = true,
		.counts_detach = true,
	},
	{
		.name = "emitted-block",
		.fence_name = "signaled-timeline",
		.make = make_emitted_block,
		.signal = signal_one,
		.end_producer = put_timeline,
		.abandoned_status = -ECANCELED,
		.on_timeline = true,
		.counts_detach = true,
	},
	{
		.name = "lost",
		.fence_name = "signaled-timeline",
		.make = make_lost,
		.born_status = -ENODEV,
		.born_timestamp = 1234,
		.end_producer = put_timeline,
		.on_timeline = true,
		.ordered = true,
	},
	{
		.name = "array-of-all",
		.fence_name = "array",
		.make = make_array_all,
		.signal = signal_members,
		.end_producer = put_timeline,
		.abandoned_status = -ECANCELED,
		.has_leaves = true,
	},
	{
		.name = "array-of-any",
		.fence_name = "array",
		.make = make_array_any,
		.signal = signal_a_member,
		.end_producer = put_timeline,
		.abandoned_status = -ECANCELED,
		.has_leaves = true,
	},
	{
		.name = "link",
		.fence_name = "chain",
		.make = make_link,
		.signal = signal_members,
		.end_producer = put_timeline,
		.abandoned_status = -ECANCELED,
		.on_timeline = true,
		.ordered = true,
		.has_leaves = true,
	},
	{
		.name = "nested",
		.fence_name = "array",
		.make = make_nested,
		.signal = signal_members,
		.end_producer = put_timeline,
		.abandoned_status = -ECANCELED,
		.has_leaves = true,
	},
	{
		.name = "array-done",
		.fence_name = "array",
		.make = make_array_done,
		.born_status = -EREMOTEIO,
		.born_timestamp = 1234,
	},
	{
		.name = "link-done",
		.fence_name = "chain",
		.make = make_link_done,
		.born_status = -EREMOTEIO,
		.born_timestamp = 1234,
		.on_timeline = true,
		.ordered = true,
	},
};

/* --- What the tests are written with ------------------------------------------------------------------------------------ */

static struct specimen *make(void **state)
{
	static struct specimen s;
	s = (struct specimen){ .kind = *state };
	s.kind->make(&s);
	return &s;
}

static void drop(struct specimen *s)
{
	if (s->timeline != NULL)
		s->kind->end_producer(s);
	lf_fence_put(s->f);
	if (s->kind->counts_detach)
		assert_int_equal(s->detached, 1);
}

static bool born_pending(const struct specimen *s)
{
	return s->kind->signal != NULL;
}

/* Makes it signaled, where it is not; returns the status it must have. */
static int complete(struct specimen *s, int error)
{
	if (!born_pending(s))
		return s->kind->born_status;
	must(s->kind->signal(s, error));
	return error == 0 ? 1 : error;
}

struct node {
	struct lf_fence_cb cb;
	int runs;
	int status;
	int64_t timestamp;
	bool put;
};

static void run_node(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct node *node = (struct node *)(void *)cb;
	node->runs++;
	node->status = lf_fence_status(f);
	node->timestamp = lf_fence_timestamp(f);
	must(lf_fence_is_signaled(f));
	must(!lf_fence_is_drained(f));
	if (node->put)
		lf_fence_put(f);
}

/* --- The suite ---------------------------------------------------------------------------------------------------------- */

static void looks_as_its_state_says(void **state)
{
	struct specimen *s = make(state);
	bool pending = born_pending(s);
	assert_int_equal(lf_fence_is_signaled(s->f), !pending);
	assert_int_equal(lf_fence_is_drained(s->f), !pending);
	assert_int_equal(lf_fence_status(s->f), pending ? 0 : s->kind->born_status);
	assert_int_equal(lf_fence_check(s->f), pending ? 0 : s->kind->born_status);
	assert_true(lf_fence_timestamp(s->f) == (pending ? INT64_MIN : s->kind->born_timestamp));
	drop(s);
}

static void result_and_time_are_final_once_signaled(void **state)
{
	struct specimen *s = make(state);
	if (born_pending(s))
		clock_set(1234567);
	int status = complete(s, -EIO);
	assert_true(lf_fence_is_signaled(s->f));
	assert_true(lf_fence_is_drained(s->f));
	assert_int_equal(lf_fence_status(s->f), status);
	int64_t timestamp = lf_fence_timestamp(s->f);
	assert_true(timestamp == (born_pending(s) ? 1234567 : s->kind->born_timestamp));
	clock_set(7654321);
	if (born_pending(s))
		assert_false(s->kind->signal(s, 0));
	assert_int_equal(lf_fence_check(s->f), status);
	assert_true(lf_fence_timestamp(s->f) == timestamp);
	drop(s);
}

static void identity_never_changes(void **state)
{
	struct specimen *s = make(state);
	uint64_t context = lf_fence_context(s->f), seqno = lf_fence_seqno(s->f);
	bool ordered = lf_fence_is_ordered(s->f);
	assert_int_equal(context != 0, s->kind->on_timeline);
	assert_true(seqno == (s->kind->on_timeline ? 40 : 0));
	assert_int_equal(ordered, s->kind->ordered);
	assert_false(lf_fence_is_later(s->f, s->f));
	complete(s, 0);
	if (s->kind->end_producer != NULL)
		s->kind->end_producer(s);
	assert_true(lf_fence_context(s->f) == context);
	assert_true(lf_fence_seqno(s->f) == seqno);
	assert_int_equal(lf_fence_is_ordered(s->f), ordered);
	drop(s);
}

static void callbacks_run_once_or_are_refused(void **state)
{
	struct specimen *s = make(state);
	struct node first = { .cb = LF_FENCE_CB_INIT }, second = first, late = first;
	int expected = born_pending(s) ? 0 : -ENOENT;
	assert_int_equal(lf_fence_add_callback(s->f, &first.cb, run_node), expected);
	assert_int_equal(lf_fence_add_callback(s->f, &second.cb, run_node), expected);
	int status = complete(s, -ECOMM);
	assert_int_equal(lf_fence_add_callback(s->f, &late.cb, run_node), -ENOENT);
	assert_int_equal(first.runs, born_pending(s) ? 1 : 0);
	assert_int_equal(second.runs, first.runs);
	assert_int_equal(late.runs, 0);
	if (born_pending(s)) {
		assert_int_equal(first.status, status);
		assert_true(first.timestamp == lf_fence_timestamp(s->f));
		assert_int_equal(lf_fence_remove_callback(s->f, &first.cb), LF_CB_RAN);
		assert_int_equal(lf_fence_cancel_callback_sync(s->f, &second.cb), LF_CB_RAN);
	}
	drop(s);
}

static void callback_that_was_taken_back_never_runs(void **state)
{
	struct specimen *s = make(state);
	struct node removed = { .cb = LF_FENCE_CB_INIT }, cancelled = removed, kept = removed;
	if (born_pending(s)) {
		assert_int_equal(lf_fence_add_callback(s->f, &removed.cb, run_node), 0);
		assert_int_equal(lf_fence_add_callback(s->f, &cancelled.cb, run_node), 0);
		assert_int_equal(lf_fence_add_callback(s->f, &kept.cb, run_node), 0);
		assert_int_equal(lf_fence_remove_callback(s->f, &removed.cb), LF_CB_REMOVED);
		assert_int_equal(lf_fence_cancel_callback_sync(s->f, &cancelled.cb), LF_CB_REMOVED);
	}
	complete(s, 0);
	assert_int_equal(removed.runs + cancelled.runs, 0);
	assert_int_equal(kept.runs, born_pending(s) ? 1 : 0);
	drop(s);
}

static void callback_may_put_the_last_reference(void **state)
{
	struct specimen *s = make(state);
	struct node node = { .cb = LF_FENCE_CB_INIT, .put = true };
	if (!born_pending(s)) {
		drop(s);
		return;
	}
	assert_int_equal(lf_fence_add_callback(s->f, &node.cb, run_node), 0);
	complete(s, 0);
	assert_int_equal(node.status, 1);
	/* ours went with the callback */
	if (s->timeline != NULL)
		s->kind->end_producer(s);
}

struct waiter {
	struct lf_fence *f;
	int result;
	int drained_result;
	int status;
};

static void *wait_on_thread(void *arg)
{
	struct waiter *w = arg;
	w->result = lf_fence_wait(w->f, LF_DEADLINE_NEVER);
	w->status = lf_fence_status(w->f);
	w->drained_result = lf_fence_wait_drained(w->f, LF_DEADLINE_NEVER);
	return NULL;
}

static void waits_end_with_the_signal(void **state)
{
	struct specimen *s = make(state);
	int expected = born_pending(s) ? -ETIME : 0;
	assert_int_equal(lf_fence_wait(s->f, 0), expected);
	assert_int_equal(lf_fence_wait_drained(s->f, 0), expected);
	struct waiter w = { .f = s->f };
	pthread_t thread = thread_start(wait_on_thread, &w, 0);
	/* most often asleep by then, and right in any case */
	for (int i = 0; i < 20; i++)
		sched_yield();
	int status = complete(s, -EPROTO);
	thread_join(thread);
	assert_int_equal(w.result, 0);
	assert_int_equal(w.drained_result, 0);
	assert_int_equal(w.status, status);
	drop(s);
}

static void wait_for_many_counts_it_as_often_as_it_occurs(void **state)
{
	struct specimen *s = make(state);
	struct lf_fence *pending = NULL;
	assert_int_equal(lf_fence_create(&pending), 0);
	struct lf_fence *fences[3] = { pending, s->f, s->f };
	struct lf_wait_slot slots[3];
	struct lf_wait_many wait = { .fences = fences, .slots = slots, .count = 3, .need = 2, .deadline = 0 };
	size_t first = 99;
	assert_int_equal(lf_fence_wait_many(&wait, &first), born_pending(s) ? -ETIME : 0);
	complete(s, 0);
	assert_int_equal(lf_fence_wait_many(&wait, &first), 0);
	assert_int_equal(first, 1);
	wait.need = 3;
	assert_int_equal(lf_fence_wait_many(&wait, NULL), -ETIME);
	lf_fence_put(pending);
	drop(s);
}

static void slot_holds_it(void **state)
{
	struct lf_fence_slot slot = { { 0 } };
	struct specimen *s = make(state);
	lf_fence_slot_set(&slot, s->f);
	int status = complete(s, -EIO);
	struct lf_fence *f = s->f;
	drop(s);
	lf_read_lock();
	assert_ptr_equal(lf_fence_slot_look(&slot), f);
	assert_int_equal(lf_fence_status(f), status);
	lf_fence_slot_set(&slot, NULL);
	/* its last reference is gone, and it is the same live object to the end of the section */
	assert_int_equal(lf_fence_status(f), status);
	lf_read_unlock();
}

/* Everything that a consumer may do with a fence whose producer is gone. */
static void check_without_producer(struct lf_fence *f, int status)
{
	char text[200];
	struct node node = { .cb = LF_FENCE_CB_INIT };
	struct lf_wait_slot slot;
	const struct lf_wait_many wait = { .fences = &f, .slots = &slot, .count = 1, .need = 1, .deadline = LF_DEADLINE_NEVER };
	struct lf_fence_slot published = { { 0 } };
	lf_fence_put(lf_fence_get(f));
	assert_int_equal(lf_fence_status(f), status);
	assert_int_equal(lf_fence_check(f), status);
	assert_true(lf_fence_is_drained(f));
	assert_true(lf_fence_timestamp(f) != INT64_MIN);
	lf_fence_set_deadline(f, 1);
	assert_true(lf_fence_describe(f, text, sizeof(text)) > 0);
	assert_true(lf_fence_name(f, text, sizeof(text)) > 0);
	assert_int_equal(lf_fence_add_callback(f, &node.cb, run_node), -ENOENT);
	assert_int_equal(lf_fence_wait(f, LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_fence_wait_many(&wait, NULL), 0);
	assert_int_equal(lf_fence_wait_drained(f, LF_DEADLINE_NEVER), 0);
	lf_fence_slot_set(&published, f);
	lf_fence_put(lf_fence_slot_get(&published));
	lf_fence_slot_set(&published, NULL);
	assert_int_equal(node.runs, 0);
}

static void signaled_fence_outlives_its_producer(void **state)
{
	char name[64];
	struct specimen *s = make(state);
	int status = complete(s, -EIO);
	if (s->kind->end_producer != NULL)
		s->kind->end_producer(s);
	assert_int_equal(lf_reclaim_barrier(), 0);
	check_without_producer(s->f, status);
	lf_fence_name(s->f, name, sizeof(name));
	assert_string_equal(name, s->kind->fence_name);
	drop(s);
}

static void pending_fence_completes_when_its_producer_ends(void **state)
{
	struct specimen *s = make(state);
	struct node node = { .cb = LF_FENCE_CB_INIT };
	if (!born_pending(s) || s->kind->end_producer == NULL) {
		complete(s, 0);
		drop(s);
		return;
	}
	assert_int_equal(lf_fence_add_callback(s->f, &node.cb, run_node), 0);
	struct waiter w = { .f = s->f };
	pthread_t thread = thread_start(wait_on_thread, &w, 0);
	s->kind->end_producer(s);
	thread_join(thread);
	assert_int_equal(node.runs, 1);
	assert_int_equal(node.status, s->kind->abandoned_status);
	assert_int_equal(w.status, s->kind->abandoned_status);
	assert_int_equal(lf_reclaim_barrier(), 0);
	check_without_producer(s->f, s->kind->abandoned_status);
	drop(s);
}

static void memory_ends_with_the_last_reference(void **state)
{
	struct specimen *s = make(state);
	complete(s, 0);
	if (s->kind->end_producer != NULL)
		s->kind->end_producer(s);
	assert_int_equal(lf_reclaim_barrier(), 0);
	long before = alloc_live();
	lf_fence_get(s->f);
	lf_fence_put(s->f);
	assert_int_equal(alloc_live(), before);
	drop(s);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(alloc_live(), before - (s->kind->immortal ? 0 : 1));
}

static void consumer_side_allocates_nothing(void **state)
{
	struct specimen *s = make(state);
	struct node node = { .cb = LF_FENCE_CB_INIT }, other = node;
	struct lf_wait_slot slot;
	const struct lf_wait_many wait = { .fences = &s->f, .slots = &slot, .count = 1, .need = 1, .deadline = 0 };
	char text[200];
	long before = alloc_calls();
	bool added = lf_fence_add_callback(s->f, &node.cb, run_node) == 0;
	if (lf_fence_add_callback(s->f, &other.cb, run_node) == 0)
		assert_int_equal(lf_fence_remove_callback(s->f, &other.cb), LF_CB_REMOVED);
	(void)lf_fence_wait(s->f, 0);
	(void)lf_fence_wait_many(&wait, NULL);
	(void)lf_fence_wait_drained(s->f, 0);
	if (!s->kind->has_leaves) {
		lf_fence_check(s->f);
		lf_fence_set_deadline(s->f, 0);
	}
	lf_fence_describe(s->f, text, sizeof(text));
	lf_fence_put(lf_fence_get(s->f));
	complete(s, 0);
	if (added)
		assert_int_equal(lf_fence_cancel_callback_sync(s->f, &node.cb), LF_CB_RAN);
	assert_int_equal(alloc_calls(), before);
	drop(s);
}

static void description_fits_any_buffer(void **state)
{
	char whole[256], cut[256];
	struct specimen *s = make(state);
	for (int pass = 0; pass < 2; pass++) {
		int length = lf_fence_describe(s->f, whole, sizeof(whole));
		assert_true(length > 0 && length < (int)sizeof(whole));
		for (size_t size = 1; size <= (size_t)length; size++) {
			memset(cut, 'x', sizeof(cut));
			assert_int_equal(lf_fence_describe(s->f, cut, size), length);
			assert_int_equal(strlen(cut), size - 1);
			assert_memory_equal(cut, whole, size - 1);
			assert_int_equal(cut[size], 'x');
		}
		if (pass == 0)
			complete(s, -EIO);
	}
	drop(s);
}

/* --- All of it ---------------------------------------------------------------------------------------------------------- */

struct behaviour {
	const char *name;
	CMUnitTestFunction run;
};

#define BEHAVIOUR(function) { #function, function }

static const struct behaviour suite[] = {
	BEHAVIOUR(looks_as_its_state_says),
	BEHAVIOUR(result_and_time_are_final_once_signaled),
	BEHAVIOUR(identity_never_changes),
	BEHAVIOUR(callbacks_run_once_or_are_refused),
	BEHAVIOUR(callback_that_was_taken_back_never_runs),
	BEHAVIOUR(callback_may_put_the_last_reference),
	BEHAVIOUR(waits_end_with_the_signal),
	BEHAVIOUR(wait_for_many_counts_it_as_often_as_it_occurs),
	BEHAVIOUR(slot_holds_it),
	BEHAVIOUR(signaled_fence_outlives_its_producer),
	BEHAVIOUR(pending_fence_completes_when_its_producer_ends),
	BEHAVIOUR(memory_ends_with_the_last_reference),
	BEHAVIOUR(consumer_side_allocates_nothing),
	BEHAVIOUR(description_fits_any_buffer),
};

enum { KINDS = sizeof(all_kinds) / sizeof(all_kinds[0]), BEHAVIOURS = sizeof(suite) / sizeof(suite[0]) };

int main(void)
{
	static struct CMUnitTest tests[KINDS * BEHAVIOURS];
	static char names[KINDS * BEHAVIOURS][96];
	size_t n = 0;
	for (size_t kind = 0; kind < KINDS; kind++) {
		for (size_t b = 0; b < BEHAVIOURS; b++, n++) {
			snprintf(names[n], sizeof(names[n]), "%s_fence: %s", all_kinds[kind].name, suite[b].name);
			/* cmocka passes the adaptor through as the state, which no test changes */
			void *initial = (void *)(uintptr_t)&all_kinds[kind];
			tests[n] = (struct CMUnitTest){ names[n], suite[b].run, test_setup, test_teardown, initial };
		}
	}
	return tests_run("family", tests, n);
}
