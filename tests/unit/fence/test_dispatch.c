/* SPDX-License-Identifier: MIT */
/* Callbacks: who runs them, in which order, how often, and what they may do. */
#include "testing.h"

#include <sched.h>
#include <stdatomic.h>

/*
 * A callback that writes down that it ran, and then does one more thing. What it does is a function, so that each test says its own in a
 * few lines. Asserts of cmocka are not possible inside callbacks (they leave by longjmp): must() is.
 */
struct node {
	struct lf_fence_cb cb;
	int runs;
	int began; /* place in the order of events; 0: never */
	int ended;
	int status; /* of the fence, as seen inside */
	int64_t timestamp;
	bool drained; /* as seen inside */
	bool read_held; /* as seen inside */
	pthread_t thread;
	void (*then)(struct lf_fence *f, struct node *node);
	struct lf_fence *other; /* for then() */
	struct node *peer; /* for then() */
	struct flag *entered; /* set when not NULL */
	struct flag *leave; /* waited for when not NULL */
	int result; /* of what then() did */
};

static atomic_int events;

static int next_event(void)
{
	return atomic_fetch_add(&events, 1) + 1;
}

static void run_node(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct node *node = (struct node *)(void *)cb;
	node->runs++;
	node->began = next_event();
	node->status = lf_fence_status(f);
	node->timestamp = lf_fence_timestamp(f);
	node->drained = lf_fence_is_drained(f);
	node->read_held = lf_read_held();
	node->thread = pthread_self();
	if (node->entered != NULL)
		flag_set(node->entered);
	if (node->leave != NULL)
		flag_wait(node->leave);
	if (node->then != NULL)
		node->then(f, node);
	node->ended = next_event();
}

static int add(struct lf_fence *f, struct node *node)
{
	return lf_fence_add_callback(f, &node->cb, run_node);
}

static struct lf_fence *make_fence(void)
{
	struct lf_fence *f = NULL;
	must(lf_fence_create(&f) == 0);
	return f;
}

static void signal_and_put(struct lf_fence *f)
{
	must(lf_fence_signal(f, 0));
	lf_fence_put(f);
}

static void *signal_on_thread(void *arg)
{
	lf_fence_signal(arg, 0);
	return NULL;
}

static unsigned take_misuse(void)
{
	unsigned count = log_count(LF_LOG_MISUSE);
	log_reset();
	return count;
}

/* --- Order and number --------------------------------------------------------------------------------------------------- */

static void callbacks_run_first_added_first(void **state)
{
	struct node nodes[100] = { 0 };
	struct lf_fence *f = make_fence();
	for (int i = 0; i < 100; i++)
		assert_int_equal(add(f, &nodes[i]), 0);
	lf_fence_signal(f, 0);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(nodes[i].runs, 1);
		if (i > 0)
			assert_true(nodes[i - 1].ended < nodes[i].began);
	}
	lf_fence_put(f);
}

static void removal_keeps_the_order_of_the_rest(void **state)
{
	struct node nodes[30] = { 0 };
	struct lf_fence *f = make_fence();
	for (int i = 0; i < 20; i++)
		assert_int_equal(add(f, &nodes[i]), 0);
	/* first, last and some between; and then more are pushed onto a list that was walked already */
	static const int removed[] = { 0, 7, 8, 13, 19 };
	for (size_t i = 0; i < sizeof(removed) / sizeof(removed[0]); i++)
		assert_int_equal(lf_fence_remove_callback(f, &nodes[removed[i]].cb), LF_CB_REMOVED);
	for (int i = 20; i < 30; i++)
		assert_int_equal(add(f, &nodes[i]), 0);
	assert_int_equal(lf_fence_remove_callback(f, &nodes[29].cb), LF_CB_REMOVED);
	assert_int_equal(lf_fence_remove_callback(f, &nodes[1].cb), LF_CB_REMOVED);
	lf_fence_signal(f, 0);
	int last = 0;
	for (int i = 0; i < 30; i++) {
		bool gone = i == 0 || i == 1 || i == 7 || i == 8 || i == 13 || i == 19 || i == 29;
		assert_int_equal(nodes[i].runs, gone ? 0 : 1);
		if (gone)
			continue;
		assert_true(nodes[i].began > last);
		last = nodes[i].began;
	}
	lf_fence_put(f);
}

static void callback_runs_on_the_signalling_thread(void **state)
{
	struct node node = { 0 };
	struct lf_fence *f = make_fence();
	assert_int_equal(add(f, &node), 0);
	pthread_t thread = thread_start(signal_on_thread, f, 0);
	pthread_t id = thread;
	thread_join(thread);
	assert_int_equal(node.runs, 1);
	assert_true(pthread_equal(node.thread, id));
	lf_fence_put(f);
}

static void result_and_timestamp_are_final_in_callbacks(void **state)
{
	struct node nodes[2] = { 0 };
	struct lf_fence *f = make_fence();
	assert_int_equal(add(f, &nodes[0]), 0);
	assert_int_equal(add(f, &nodes[1]), 0);
	lf_fence_signal_at(f, -ECANCELED, 777);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(nodes[i].status, -ECANCELED);
		assert_true(nodes[i].timestamp == 777);
	}
	lf_fence_put(f);
}

static void add_to_a_signaled_fence_returns_ENOENT_and_leaves_the_node_free(void **state)
{
	struct node node = { 0 };
	struct lf_fence *done = make_fence(), *next = make_fence();
	lf_fence_signal(done, 0);
	assert_int_equal(add(done, &node), -ENOENT);
	assert_int_equal(node.runs, 0);
	assert_int_equal(add(lf_fence_stub(), &node), -ENOENT);
	assert_int_equal(add(next, &node), 0);
	lf_fence_signal(next, 0);
	assert_int_equal(node.runs, 1);
	lf_fence_put(done);
	lf_fence_put(next);
}

static void node_can_be_added_again_after_it_ran_or_was_removed(void **state)
{
	struct node node = { 0 };
	for (int i = 0; i < 10; i++) {
		struct lf_fence *f = make_fence();
		assert_int_equal(add(f, &node), 0);
		assert_int_equal(lf_fence_remove_callback(f, &node.cb), LF_CB_REMOVED);
		assert_int_equal(add(f, &node), 0);
		lf_fence_signal(f, 0);
		assert_int_equal(node.runs, i + 1);
		lf_fence_put(f);
	}
}

/* --- Misuse of nodes ---------------------------------------------------------------------------------------------------- */

static void node_added_twice_is_refused_and_runs_once(void **state)
{
	struct node node = { 0 };
	struct lf_fence *f = make_fence(), *other = make_fence();
	assert_int_equal(add(f, &node), 0);
	assert_int_equal(add(f, &node), -EALREADY);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(add(other, &node), -EALREADY);
	assert_int_equal(take_misuse(), 1);
	signal_and_put(other);
	assert_int_equal(node.runs, 0);
	signal_and_put(f);
	assert_int_equal(node.runs, 1);
}

static void missing_arguments_are_refused(void **state)
{
	struct node node = { 0 };
	struct lf_fence *f = make_fence();
	assert_int_equal(lf_fence_add_callback(f, &node.cb, NULL), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(lf_fence_add_callback(f, NULL, run_node), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(lf_fence_add_callback(NULL, &node.cb, run_node), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(lf_fence_remove_callback(f, NULL), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(lf_fence_remove_callback(NULL, &node.cb), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(lf_fence_cancel_callback_sync(f, NULL), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(lf_fence_cancel_callback_sync(NULL, &node.cb), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	/* the node that was refused is still fit for use */
	assert_int_equal(add(f, &node), 0);
	signal_and_put(f);
	assert_int_equal(node.runs, 1);
}

static void remove_of_a_node_that_was_never_added_is_refused(void **state)
{
	struct node node = { 0 };
	struct lf_fence *f = make_fence();
	assert_int_equal(lf_fence_remove_callback(f, &node.cb), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	assert_int_equal(lf_fence_cancel_callback_sync(f, &node.cb), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	lf_fence_signal(f, 0);
	assert_int_equal(lf_fence_remove_callback(f, &node.cb), -EINVAL);
	assert_int_equal(take_misuse(), 1);
	lf_fence_put(f);
}

/* --- What remove and cancel say in each state --------------------------------------------------------------------------- */

typedef int (*taker)(struct lf_fence *f, struct lf_fence_cb *cb);
static const taker takers[] = { lf_fence_remove_callback, lf_fence_cancel_callback_sync };

static void remove_from_a_pending_fence_returns_REMOVED(void **state)
{
	for (int t = 0; t < 2; t++) {
		struct node node = { 0 };
		struct lf_fence *f = make_fence();
		assert_int_equal(add(f, &node), 0);
		assert_int_equal(takers[t](f, &node.cb), LF_CB_REMOVED);
		signal_and_put(f);
		assert_int_equal(node.runs, 0);
	}
}

static void remove_after_the_callback_returned_returns_RAN(void **state)
{
	for (int t = 0; t < 2; t++) {
		struct node node = { 0 };
		struct lf_fence *f = make_fence();
		assert_int_equal(add(f, &node), 0);
		lf_fence_signal(f, 0);
		assert_int_equal(takers[t](f, &node.cb), LF_CB_RAN);
		assert_int_equal(takers[t](f, &node.cb), LF_CB_RAN);
		lf_fence_put(f);
		assert_int_equal(node.runs, 1);
	}
}

/* One callback stands still on another thread: one has run before it, one waits behind it. */
struct held {
	struct lf_fence *f;
	struct node before, held, behind, last;
	struct flag entered, leave;
	pthread_t thread;
};

static void hold(struct held *h)
{
	memset(h, 0, sizeof(*h));
	flag_init(&h->entered);
	flag_init(&h->leave);
	h->held.entered = &h->entered;
	h->held.leave = &h->leave;
	h->f = make_fence();
	must(add(h->f, &h->before) == 0);
	must(add(h->f, &h->held) == 0);
	must(add(h->f, &h->behind) == 0);
	must(add(h->f, &h->last) == 0);
	h->thread = thread_start(signal_on_thread, h->f, 0);
	flag_wait(&h->entered);
}

static void let_go(struct held *h)
{
	flag_set(&h->leave);
	thread_join(h->thread);
	flag_fini(&h->entered);
	flag_fini(&h->leave);
	lf_fence_put(h->f);
}

static void remove_while_another_thread_is_inside_a_callback(void **state)
{
	struct held h;
	hold(&h);
	assert_int_equal(lf_fence_remove_callback(h.f, &h.held.cb), LF_CB_RUNNING);
	assert_int_equal(lf_fence_remove_callback(h.f, &h.before.cb), LF_CB_RAN);
	assert_int_equal(lf_fence_remove_callback(h.f, &h.behind.cb), LF_CB_REMOVED);
	assert_int_equal(lf_fence_remove_callback(h.f, &h.held.cb), LF_CB_RUNNING);
	let_go(&h);
	assert_int_equal(h.before.runs, 1);
	assert_int_equal(h.held.runs, 1);
	assert_int_equal(h.behind.runs, 0);
	assert_int_equal(h.last.runs, 1);
}

static void cancel_sync_waits_for_no_callback_but_its_own(void **state)
{
	struct held h;
	hold(&h);
	/* each of these would hang if it waited for the callback that stands still */
	assert_int_equal(lf_fence_cancel_callback_sync(h.f, &h.before.cb), LF_CB_RAN);
	assert_int_equal(lf_fence_cancel_callback_sync(h.f, &h.behind.cb), LF_CB_REMOVED);
	assert_int_equal(h.held.ended, 0);
	let_go(&h);
	assert_int_equal(h.behind.runs, 0);
	assert_int_equal(h.last.runs, 1);
}

struct canceller {
	struct lf_fence *f;
	struct node *node;
	atomic_int stage; /* 1: about to cancel, 2: returned */
	int result;
	int ended_seen;
};

static void *cancel_on_thread(void *arg)
{
	struct canceller *c = arg;
	atomic_store(&c->stage, 1);
	c->result = lf_fence_cancel_callback_sync(c->f, &c->node->cb);
	c->ended_seen = c->node->ended;
	atomic_store(&c->stage, 2);
	return NULL;
}

static void cancel_sync_returns_only_after_the_running_callback_has(void **state)
{
	struct held h;
	hold(&h);
	struct canceller c = { .f = h.f, .node = &h.held };
	pthread_t thread = thread_start(cancel_on_thread, &c, 0);
	/* time for a canceller that does not wait to be caught; one that waits passes however slow it is */
	while (atomic_load(&c.stage) == 0)
		sched_yield();
	for (int i = 0; i < 1000; i++) {
		sched_yield();
		assert_int_equal(atomic_load(&c.stage), 1);
	}
	flag_set(&h.leave);
	thread_join(thread);
	assert_int_equal(c.result, LF_CB_RAN);
	/* and what the callback wrote is visible, its last line included */
	assert_true(c.ended_seen != 0);
	let_go(&h);
}

static void several_threads_cancel_sync_the_same_running_callback(void **state)
{
	struct held h;
	hold(&h);
	struct canceller c[4];
	pthread_t threads[4];
	for (int i = 0; i < 4; i++) {
		c[i] = (struct canceller){ .f = h.f, .node = &h.held };
		threads[i] = thread_start(cancel_on_thread, &c[i], 0);
	}
	for (int i = 0; i < 4; i++)
		while (atomic_load(&c[i].stage) == 0)
			sched_yield();
	flag_set(&h.leave);
	for (int i = 0; i < 4; i++) {
		thread_join(threads[i]);
		assert_int_equal(c[i].result, LF_CB_RAN);
		assert_true(c[i].ended_seen != 0);
	}
	let_go(&h);
}

static void cancel_sync_inside_a_read_section_is_refused(void **state)
{
	struct node node = { 0 };
	struct lf_fence *f = make_fence();
	assert_int_equal(add(f, &node), 0);
	lf_read_lock();
	assert_int_equal(lf_fence_cancel_callback_sync(f, &node.cb), -EDEADLK);
	lf_read_unlock();
	assert_int_equal(take_misuse(), 1);
	signal_and_put(f);
	assert_int_equal(node.runs, 1);
}

/* --- From inside callbacks of the same fence ---------------------------------------------------------------------------- */

static void then_remove_self(struct lf_fence *f, struct node *node)
{
	node->result = lf_fence_remove_callback(f, &node->cb);
}

static void remove_from_inside_callback_of_same_fence_returns_RUNNING(void **state)
{
	struct node node = { .then = then_remove_self, .result = -1 };
	struct lf_fence *f = make_fence();
	assert_int_equal(add(f, &node), 0);
	signal_and_put(f);
	assert_int_equal(node.result, LF_CB_RUNNING);
	assert_int_equal(node.runs, 1);
}

static void then_cancel_self(struct lf_fence *f, struct node *node)
{
	node->result = lf_fence_cancel_callback_sync(f, &node->cb);
}

static void cancel_sync_from_inside_itself_returns_RUNNING_at_once(void **state)
{
	struct node node = { .then = then_cancel_self, .result = -1 };
	struct lf_fence *f = make_fence();
	assert_int_equal(add(f, &node), 0);
	signal_and_put(f);
	assert_int_equal(node.result, LF_CB_RUNNING);
}

static void then_remove_peer(struct lf_fence *f, struct node *node)
{
	node->result = lf_fence_remove_callback(f, &node->peer->cb);
}

static void then_cancel_peer(struct lf_fence *f, struct node *node)
{
	node->result = lf_fence_cancel_callback_sync(f, &node->peer->cb);
}

static void callback_takes_back_one_that_waits_behind_it(void **state)
{
	static void (*const how[])(struct lf_fence *, struct node *) = { then_remove_peer, then_cancel_peer };
	for (int t = 0; t < 2; t++) {
		struct node nodes[3] = { 0 };
		struct lf_fence *f = make_fence();
		nodes[0].then = how[t];
		nodes[0].peer = &nodes[1];
		nodes[0].result = -1;
		for (int i = 0; i < 3; i++)
			assert_int_equal(add(f, &nodes[i]), 0);
		signal_and_put(f);
		assert_int_equal(nodes[0].result, LF_CB_REMOVED);
		assert_int_equal(nodes[1].runs, 0);
		assert_int_equal(nodes[2].runs, 1);
	}
}

static void callback_takes_back_one_that_has_run(void **state)
{
	static void (*const how[])(struct lf_fence *, struct node *) = { then_remove_peer, then_cancel_peer };
	for (int t = 0; t < 2; t++) {
		struct node nodes[2] = { 0 };
		struct lf_fence *f = make_fence();
		nodes[1].then = how[t];
		nodes[1].peer = &nodes[0];
		assert_int_equal(add(f, &nodes[0]), 0);
		assert_int_equal(add(f, &nodes[1]), 0);
		signal_and_put(f);
		assert_int_equal(nodes[1].result, LF_CB_RAN);
		assert_int_equal(nodes[0].runs, 1);
	}
}

static void then_add_peer(struct lf_fence *f, struct node *node)
{
	node->result = add(f, node->peer);
}

static void add_inside_a_callback_of_the_same_fence_returns_ENOENT(void **state)
{
	struct node late = { 0 }, node = { .then = then_add_peer, .peer = &late };
	struct lf_fence *f = make_fence();
	assert_int_equal(add(f, &node), 0);
	signal_and_put(f);
	assert_int_equal(node.result, -ENOENT);
	assert_int_equal(late.runs, 0);
}

static void then_signal_again(struct lf_fence *f, struct node *node)
{
	node->result = lf_fence_signal(f, -EIO);
}

static void signal_inside_a_callback_of_the_same_fence_returns_false(void **state)
{
	struct node nodes[2] = { { .then = then_signal_again, .result = -1 }, { .runs = 0 } };
	struct lf_fence *f = make_fence();
	assert_int_equal(add(f, &nodes[0]), 0);
	assert_int_equal(add(f, &nodes[1]), 0);
	lf_fence_signal(f, 0);
	assert_int_equal(nodes[0].result, 0);
	assert_int_equal(nodes[0].runs, 1);
	assert_int_equal(nodes[1].runs, 1);
	assert_int_equal(lf_fence_status(f), 1);
	lf_fence_put(f);
}

static void then_put_fence(struct lf_fence *f, struct node *node)
{
	lf_fence_put(f);
	/* alive during the call all the same */
	node->result = lf_fence_status(f);
}

static void callback_puts_the_last_reference_to_its_fence(void **state)
{
	long before = alloc_live();
	struct node nodes[2] = { { .then = then_put_fence }, { .runs = 0 } };
	struct lf_fence *f = make_fence();
	/* the caller of signal holds a reference during the call: here the callback puts it */
	assert_int_equal(add(f, &nodes[0]), 0);
	assert_int_equal(add(f, &nodes[1]), 0);
	lf_fence_signal(f, 0);
	assert_int_equal(nodes[0].result, 1);
	assert_int_equal(nodes[1].runs, 1);
	assert_int_equal(nodes[1].status, 1);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(alloc_live(), before);
}

static void then_wait_self(struct lf_fence *f, struct node *node)
{
	/* a signaled fence is no wait */
	node->result = lf_fence_wait(f, LF_DEADLINE_NEVER);
}

static void wait_inside_a_callback_for_its_own_fence_is_no_wait(void **state)
{
	struct node node = { .then = then_wait_self, .result = -1 };
	struct lf_fence *f = make_fence();
	assert_int_equal(add(f, &node), 0);
	signal_and_put(f);
	assert_int_equal(node.result, 0);
}

static void then_wait_drained_self(struct lf_fence *f, struct node *node)
{
	node->result = lf_fence_wait_drained(f, LF_DEADLINE_NEVER);
}

static void wait_drained_inside_a_callback_of_the_same_fence_returns_EDEADLK(void **state)
{
	struct node node = { .then = then_wait_drained_self };
	struct lf_fence *f = make_fence();
	assert_int_equal(add(f, &node), 0);
	signal_and_put(f);
	assert_int_equal(node.result, -EDEADLK);
	assert_int_equal(take_misuse(), 1);
}

/* --- From inside callbacks of other fences ------------------------------------------------------------------------------ */

static void then_wait_other(struct lf_fence *f, struct node *node)
{
	node->result = lf_fence_wait(node->other, LF_DEADLINE_NEVER);
}

static void wait_inside_a_callback_for_a_pending_fence_returns_EDEADLK(void **state)
{
	struct lf_fence *f = make_fence(), *pending = make_fence();
	struct node node = { .then = then_wait_other, .other = pending };
	assert_int_equal(add(f, &node), 0);
	signal_and_put(f);
	assert_int_equal(node.result, -EDEADLK);
	assert_int_equal(take_misuse(), 1);
	signal_and_put(pending);
}

static void then_add_to_other(struct lf_fence *f, struct node *node)
{
	node->result = add(node->other, node->peer);
}

static void callback_adds_to_another_fence(void **state)
{
	struct lf_fence *f = make_fence(), *other = make_fence();
	struct node late = { 0 }, node = { .then = then_add_to_other, .other = other, .peer = &late, .result = -1 };
	assert_int_equal(add(f, &node), 0);
	signal_and_put(f);
	assert_int_equal(node.result, 0);
	assert_int_equal(late.runs, 0);
	signal_and_put(other);
	assert_int_equal(late.runs, 1);
}

static void then_readd_self(struct lf_fence *f, struct node *node)
{
	struct lf_fence *other = node->other;
	node->other = NULL;
	node->then = NULL;
	node->result = add(other, node);
}

/* The node that comes back to its owner on entry may be in use again before the function that was called for it has returned. */
static void callback_adds_its_own_node_to_another_fence(void **state)
{
	struct lf_fence *f = make_fence(), *other = make_fence();
	struct node node = { .then = then_readd_self, .other = other, .result = -1 };
	assert_int_equal(add(f, &node), 0);
	signal_and_put(f);
	assert_int_equal(node.result, 0);
	assert_int_equal(node.runs, 1);
	assert_false(lf_fence_is_signaled(other));
	signal_and_put(other);
	assert_int_equal(node.runs, 2);
}

static void readded_node_can_be_removed_from_its_new_fence(void **state)
{
	struct lf_fence *f = make_fence(), *other = make_fence();
	struct node node = { .then = then_readd_self, .other = other, .result = -1 };
	assert_int_equal(add(f, &node), 0);
	signal_and_put(f);
	assert_int_equal(node.runs, 1);
	assert_int_equal(lf_fence_cancel_callback_sync(other, &node.cb), LF_CB_REMOVED);
	signal_and_put(other);
	assert_int_equal(node.runs, 1);
}

static void then_readd_and_signal(struct lf_fence *f, struct node *node)
{
	struct lf_fence *other = node->other;
	node->other = NULL;
	node->then = NULL;
	must(add(other, node) == 0);
	must(lf_fence_signal(other, 0));
	/* its second run is left to the outermost signal: it cannot begin inside the first */
	node->result = node->runs;
}

static void callback_adds_its_own_node_to_another_fence_and_signals_that(void **state)
{
	struct lf_fence *f = make_fence(), *other = make_fence();
	struct node node = { .then = then_readd_and_signal, .other = other };
	assert_int_equal(add(f, &node), 0);
	signal_and_put(f);
	assert_int_equal(node.result, 1);
	assert_int_equal(node.runs, 2);
	lf_fence_put(other);
}

/* The node's first run adds it again elsewhere and takes it back there, while the second run is on its way on another thread. */
struct twice {
	struct lf_fence_cb cb;
	struct lf_fence *other;
	struct flag second_entered;
	atomic_bool cancelling;
	bool second;
	bool second_ended; /* not atomic: cancel_sync must order it */
	pthread_t thread;
	int result;
	bool seen_ended;
};

static void run_twice(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct twice *t = (struct twice *)(void *)cb;
	if (t->second) {
		flag_set(&t->second_entered);
		while (!atomic_load(&t->cancelling))
			sched_yield();
		/* time for a canceller that does not wait to be caught */
		for (int i = 0; i < 1000; i++)
			sched_yield();
		t->second_ended = true;
		return;
	}
	t->second = true;
	must(lf_fence_add_callback(t->other, cb, run_twice) == 0);
	t->thread = thread_start(signal_on_thread, t->other, 0);
	flag_wait(&t->second_entered);
	atomic_store(&t->cancelling, true);
	t->result = lf_fence_cancel_callback_sync(t->other, cb);
	t->seen_ended = t->second_ended;
}

static void cancel_sync_inside_one_run_of_a_node_waits_for_its_next_run_on_another_thread(void **state)
{
	struct lf_fence *f = make_fence();
	struct twice t = { .cb = LF_FENCE_CB_INIT, .other = make_fence(), .result = -1 };
	flag_init(&t.second_entered);
	assert_int_equal(lf_fence_add_callback(f, &t.cb, run_twice), 0);
	signal_and_put(f);
	thread_join(t.thread);
	assert_int_equal(t.result, LF_CB_RAN);
	assert_true(t.seen_ended);
	flag_fini(&t.second_entered);
	lf_fence_put(t.other);
}

static void then_remove_from_other(struct lf_fence *f, struct node *node)
{
	node->result = lf_fence_remove_callback(node->other, &node->peer->cb);
}

static void then_cancel_in_other(struct lf_fence *f, struct node *node)
{
	node->result = lf_fence_cancel_callback_sync(node->other, &node->peer->cb);
}

static void callback_takes_back_one_of_another_fence(void **state)
{
	static void (*const how[])(struct lf_fence *, struct node *) = { then_remove_from_other, then_cancel_in_other };
	for (int t = 0; t < 2; t++) {
		struct lf_fence *f = make_fence(), *other = make_fence();
		struct node victim = { 0 }, node = { .then = how[t], .other = other, .peer = &victim, .result = -1 };
		assert_int_equal(add(other, &victim), 0);
		assert_int_equal(add(f, &node), 0);
		signal_and_put(f);
		assert_int_equal(node.result, LF_CB_REMOVED);
		signal_and_put(other);
		assert_int_equal(victim.runs, 0);
	}
}

static void then_put_other(struct lf_fence *f, struct node *node)
{
	lf_fence_put(node->other);
}

static void callback_puts_the_last_reference_to_another_fence(void **state)
{
	struct lf_fence *f = make_fence(), *done = make_fence(), *pending = make_fence();
	struct node a = { .then = then_put_other, .other = done }, b = { .then = then_put_other, .other = pending };
	lf_fence_signal(done, 0);
	assert_int_equal(add(f, &a), 0);
	assert_int_equal(add(f, &b), 0);
	signal_and_put(f);
	assert_int_equal(a.runs + b.runs, 2);
}

struct owned {
	struct lf_fence_cb cb;
	int *freed;
};

static void free_node(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct owned *owned = (struct owned *)(void *)cb;
	++*owned->freed;
	memset(cb, 0xa5, sizeof(*cb));
	free(owned);
}

static void callbacks_free_their_own_nodes(void **state)
{
	struct node last = { 0 };
	int freed = 0;
	struct lf_fence *f = make_fence();
	for (int i = 0; i < 10; i++) {
		struct owned *owned = calloc(1, sizeof(*owned));
		assert_non_null(owned);
		owned->freed = &freed;
		assert_int_equal(lf_fence_add_callback(f, &owned->cb, free_node), 0);
	}
	assert_int_equal(add(f, &last), 0);
	signal_and_put(f);
	assert_int_equal(freed, 10);
	assert_int_equal(last.runs, 1);
}

static void then_free_peer(struct lf_fence *f, struct node *node)
{
	must(lf_fence_remove_callback(f, &node->peer->cb) == LF_CB_REMOVED);
	memset(node->peer, 0xa5, sizeof(*node->peer));
	free(node->peer);
}

static void callback_removes_and_frees_the_node_behind_it(void **state)
{
	struct node *victim = calloc(1, sizeof(*victim));
	assert_non_null(victim);
	struct node first = { .then = then_free_peer, .peer = victim }, last = { 0 };
	struct lf_fence *f = make_fence();
	assert_int_equal(add(f, &first), 0);
	assert_int_equal(add(f, victim), 0);
	assert_int_equal(add(f, &last), 0);
	signal_and_put(f);
	assert_int_equal(last.runs, 1);
}

/* --- Nested signalling -------------------------------------------------------------------------------------------------- */

static void then_signal_other(struct lf_fence *f, struct node *node)
{
	node->result = lf_fence_signal(node->other, -EIO);
	/* signaled at once, whatever waits for its turn */
	must(lf_fence_status(node->other) == -EIO);
}

static void nested_signal_returns_true_and_its_callbacks_run_after_the_callback_that_signaled(void **state)
{
	struct lf_fence *outer = make_fence(), *inner = make_fence();
	struct node signaller = { .then = then_signal_other, .other = inner }, nested = { 0 };
	assert_int_equal(add(outer, &signaller), 0);
	assert_int_equal(add(inner, &nested), 0);
	lf_fence_signal(outer, 0);
	assert_int_equal(signaller.result, 1);
	/* all have run when the outermost signal returns, and none ran inside another */
	assert_int_equal(nested.runs, 1);
	assert_int_equal(nested.status, -EIO);
	assert_true(signaller.ended < nested.began);
	assert_true(lf_fence_is_drained(outer));
	assert_true(lf_fence_is_drained(inner));
	lf_fence_put(outer);
	lf_fence_put(inner);
}

static void then_signal_two(struct lf_fence *f, struct node *node)
{
	must(lf_fence_signal(node->other, 0));
	must(lf_fence_signal(node->peer->other, 0));
	must(!lf_fence_is_drained(node->other));
}

static void nested_fences_keep_the_order_of_their_callbacks_and_of_their_signals(void **state)
{
	struct lf_fence *outer = make_fence(), *b = make_fence(), *c = make_fence();
	struct node holder = { .other = c };
	struct node outer1 = { .then = then_signal_two, .other = b, .peer = &holder }, outer2 = { 0 };
	struct node b1 = { 0 }, b2 = { 0 }, c1 = { 0 }, c2 = { 0 };
	assert_int_equal(add(c, &c1), 0);
	assert_int_equal(add(c, &c2), 0);
	assert_int_equal(add(b, &b1), 0);
	assert_int_equal(add(b, &b2), 0);
	assert_int_equal(add(outer, &outer1), 0);
	assert_int_equal(add(outer, &outer2), 0);
	lf_fence_signal(outer, 0);
	assert_true(0 < outer1.began && outer1.ended < outer2.began);
	assert_true(outer1.ended < b1.began && b1.ended < b2.began);
	assert_true(outer1.ended < c1.began && c1.ended < c2.began);
	assert_true(b2.ended < c1.began);
	assert_true(c2.ended != 0);
	lf_fence_put(outer);
	lf_fence_put(b);
	lf_fence_put(c);
}

static void then_wake_thread(struct lf_fence *f, struct node *node)
{
	/* the waiter ends although this callback, which signaled what it waits for, has not returned */
	must(lf_fence_signal(node->other, 0));
	flag_wait(node->peer->entered);
}

struct waiter {
	struct lf_fence *f;
	struct flag awake;
	int result;
};

/* Gives a waiter time to hang itself on the fence: until the fence's word changes, or for so long that waiting on proves nothing more. */
static void let_waiter_come(const struct lf_fence *f, uintptr_t before)
{
	for (int i = 0; i < 100000 && __atomic_load_n(&f->callbacks.value, __ATOMIC_RELAXED) == before; i++)
		sched_yield();
}

static void *wait_on_thread(void *arg)
{
	struct waiter *w = arg;
	w->result = lf_fence_wait(w->f, LF_DEADLINE_NEVER);
	flag_set(&w->awake);
	return NULL;
}

static void nested_signal_wakes_waiters_at_once(void **state)
{
	struct lf_fence *outer = make_fence(), *inner = make_fence();
	struct waiter w = { .f = inner, .result = -1 };
	flag_init(&w.awake);
	struct node holder = { .entered = &w.awake };
	struct node node = { .then = then_wake_thread, .other = inner, .peer = &holder };
	assert_int_equal(add(outer, &node), 0);
	uintptr_t before = __atomic_load_n(&inner->callbacks.value, __ATOMIC_RELAXED);
	pthread_t thread = thread_start(wait_on_thread, &w, 0);
	let_waiter_come(inner, before);
	lf_fence_signal(outer, 0);
	thread_join(thread);
	assert_int_equal(w.result, 0);
	flag_fini(&w.awake);
	lf_fence_put(outer);
	lf_fence_put(inner);
}

static void waiter_wakes_although_an_earlier_callback_blocks(void **state)
{
	struct flag leave;
	flag_init(&leave);
	struct lf_fence *f = make_fence();
	struct node blocker = { .leave = &leave };
	assert_int_equal(add(f, &blocker), 0);
	struct waiter w = { .f = f, .result = -1 };
	flag_init(&w.awake);
	uintptr_t before = __atomic_load_n(&f->callbacks.value, __ATOMIC_RELAXED);
	pthread_t waiting = thread_start(wait_on_thread, &w, 0);
	let_waiter_come(f, before);
	pthread_t signalling = thread_start(signal_on_thread, f, 0);
	/* would hang here if the waiter had to wait for its turn behind the blocker */
	flag_wait(&w.awake);
	assert_int_equal(w.result, 0);
	assert_false(lf_fence_is_drained(f));
	flag_set(&leave);
	thread_join(waiting);
	thread_join(signalling);
	assert_true(lf_fence_is_drained(f));
	flag_fini(&w.awake);
	flag_fini(&leave);
	lf_fence_put(f);
}

struct chain_link {
	struct lf_fence fence;
	struct lf_fence_cb cb;
	struct chain_link *next;
	long *ran;
};

static void signal_next(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct chain_link *link = (struct chain_link *)(void *)((char *)cb - offsetof(struct chain_link, cb));
	struct chain_link *next = link->next;
	++*link->ran;
	/* ends the link, fence, node and all, while the dispatcher works on it; and then the next begins */
	lf_fence_put(f);
	if (next != NULL)
		must(lf_fence_signal(&next->fence, 0));
}

struct chain {
	long links;
	long ran;
};

static void *signal_a_long_chain(void *arg)
{
	struct chain *chain = arg;
	struct chain_link *next = NULL;
	for (long i = 0; i < chain->links; i++) {
		struct chain_link *link = lf_alloc(sizeof(*link));
		must(link != NULL);
		must(lf_fence_init(&link->fence, offsetof(struct chain_link, fence)) == 0);
		link->next = next;
		link->ran = &chain->ran;
		must(lf_fence_add_callback(&link->fence, &link->cb, signal_next) == 0);
		next = link;
	}
	must(lf_fence_signal(&next->fence, 0));
	must(chain->ran == chain->links);
	return NULL;
}

/* Recursion of 1,000,000 levels would need tens of MiB; a sanitizer's frames are larger, and so is what it takes of each stack. */
static void million_fences_signal_each_other_on_a_small_stack(void **state)
{
	size_t stack = test_is_sanitized() ? 512 * 1024 : 64 * 1024;
	struct chain chain = { .links = test_rounds(1000000) };
	thread_run(signal_a_long_chain, &chain, stack);
	assert_int_equal(chain.ran, chain.links);
}

struct fan {
	struct lf_fence_cb cb;
	struct lf_fence **members;
	long count;
};

static void signal_members(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct fan *fan = (struct fan *)(void *)cb;
	for (long i = 0; i < fan->count; i++)
		must(lf_fence_signal(fan->members[i], 0));
}

static void one_callback_signals_many_fences_with_callbacks(void **state)
{
	enum { COUNT = 1000 };
	static struct lf_fence *members[COUNT];
	static struct node nodes[COUNT];
	memset(nodes, 0, sizeof(nodes));
	struct fan fan = { .cb = LF_FENCE_CB_INIT, .members = members, .count = COUNT };
	struct lf_fence *f = make_fence();
	for (int i = 0; i < COUNT; i++) {
		members[i] = make_fence();
		assert_int_equal(add(members[i], &nodes[i]), 0);
	}
	assert_int_equal(lf_fence_add_callback(f, &fan.cb, signal_members), 0);
	lf_fence_signal(f, 0);
	for (int i = 0; i < COUNT; i++) {
		assert_int_equal(nodes[i].runs, 1);
		assert_true(lf_fence_is_drained(members[i]));
		lf_fence_put(members[i]);
	}
	lf_fence_put(f);
}

static void then_signal_and_take_back(struct lf_fence *f, struct node *node)
{
	must(lf_fence_signal(node->other, 0));
	/* signaled, its turn not yet come: it can still be taken back, which waits for nothing */
	node->result = lf_fence_cancel_callback_sync(node->other, &node->peer->cb);
}

static void callback_of_a_nested_fence_can_be_taken_back_before_its_turn(void **state)
{
	struct lf_fence *outer = make_fence(), *inner = make_fence();
	struct node victim = { 0 }, behind = { 0 };
	struct node node = { .then = then_signal_and_take_back, .other = inner, .peer = &victim, .result = -1 };
	assert_int_equal(add(inner, &victim), 0);
	assert_int_equal(add(inner, &behind), 0);
	assert_int_equal(add(outer, &node), 0);
	lf_fence_signal(outer, 0);
	assert_int_equal(node.result, LF_CB_REMOVED);
	assert_int_equal(victim.runs, 0);
	assert_int_equal(behind.runs, 1);
	lf_fence_put(outer);
	lf_fence_put(inner);
}

static void then_signal_and_put(struct lf_fence *f, struct node *node)
{
	must(lf_fence_signal(node->other, 0));
	lf_fence_put(node->other);
}

static void nested_fence_lives_until_its_callbacks_have_run(void **state)
{
	long before = alloc_live();
	struct lf_fence *outer = make_fence(), *inner = make_fence();
	struct node nested[2] = { 0 }, node = { .then = then_signal_and_put, .other = inner };
	assert_int_equal(add(inner, &nested[0]), 0);
	assert_int_equal(add(inner, &nested[1]), 0);
	assert_int_equal(add(outer, &node), 0);
	lf_fence_signal(outer, 0);
	assert_int_equal(nested[0].status, 1);
	assert_int_equal(nested[1].status, 1);
	lf_fence_put(outer);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(alloc_live(), before);
}

static void then_abandon(struct lf_fence *f, struct node *node)
{
	lf_fence_put(node->other);
}

/* The last put of a pending fence with callbacks completes it; inside a callback, its callbacks wait for their turn like any others. */
static void abandoning_a_fence_with_callbacks_inside_a_callback_runs_them(void **state)
{
	struct lf_fence *outer = make_fence(), *inner = make_fence();
	struct node nested = { 0 }, node = { .then = then_abandon, .other = inner };
	assert_int_equal(add(inner, &nested), 0);
	assert_int_equal(add(outer, &node), 0);
	signal_and_put(outer);
	assert_int_equal(nested.runs, 1);
	assert_int_equal(nested.status, -EDEADLK);
	assert_true(node.ended < nested.began);
	assert_int_equal(take_misuse(), 1);
}

/* --- Drained ------------------------------------------------------------------------------------------------------------ */

static void fence_is_not_drained_inside_its_callbacks(void **state)
{
	struct node nodes[2] = { 0 };
	struct lf_fence *f = make_fence();
	assert_int_equal(add(f, &nodes[0]), 0);
	assert_int_equal(add(f, &nodes[1]), 0);
	lf_fence_signal(f, 0);
	assert_false(nodes[0].drained);
	assert_false(nodes[1].drained);
	assert_true(lf_fence_is_drained(f));
	lf_fence_put(f);
}

static void fence_is_signaled_and_not_drained_while_a_callback_runs(void **state)
{
	struct held h;
	hold(&h);
	assert_true(lf_fence_is_signaled(h.f));
	assert_false(lf_fence_is_drained(h.f));
	assert_int_equal(lf_fence_wait(h.f, LF_DEADLINE_NEVER), 0);
	assert_int_equal(lf_fence_wait_drained(h.f, 0), -ETIME);
	let_go(&h);
}

static void drained_although_the_last_callbacks_were_removed(void **state)
{
	struct held h;
	hold(&h);
	assert_int_equal(lf_fence_remove_callback(h.f, &h.behind.cb), LF_CB_REMOVED);
	assert_int_equal(lf_fence_remove_callback(h.f, &h.last.cb), LF_CB_REMOVED);
	assert_false(lf_fence_is_drained(h.f));
	struct lf_fence *f = lf_fence_get(h.f);
	flag_set(&h.leave);
	assert_int_equal(lf_fence_wait_drained(f, LF_DEADLINE_NEVER), 0);
	assert_true(lf_fence_is_drained(f));
	assert_true(h.held.ended != 0);
	let_go(&h);
	lf_fence_put(f);
}

/* --- No lock, no read section ------------------------------------------------------------------------------------------- */

static void callbacks_run_outside_read_sections(void **state)
{
	struct node node = { .read_held = true };
	struct lf_fence *f = make_fence();
	assert_int_equal(add(f, &node), 0);
	signal_and_put(f);
	assert_int_equal(node.runs, 1);
	assert_false(node.read_held);
}

struct intruder {
	struct lf_fence *f;
	struct node *behind;
};

/* Every operation on the fence whose callback is running; each would hang if a lock were held while it runs. */
static void *use_everything(void *arg)
{
	struct intruder *in = arg;
	struct node late = { 0 };
	char text[200];
	size_t first = 99;
	struct lf_wait_slot slots[2];
	struct lf_fence *fences[2] = { in->f, in->f };
	const struct lf_wait_many all = {
		.fences = fences, .slots = slots, .count = 2, .need = 2, .deadline = LF_DEADLINE_NEVER
	};
	struct lf_fence_slot slot = { { 0 } };
	must(lf_fence_get(in->f) == in->f);
	must(add(in->f, &late) == -ENOENT);
	must(lf_fence_remove_callback(in->f, &in->behind->cb) == LF_CB_REMOVED);
	must(lf_fence_describe(in->f, text, sizeof(text)) > 0);
	must(lf_fence_name(in->f, text, sizeof(text)) > 0);
	must(!lf_fence_signal(in->f, -EIO));
	must(lf_fence_check(in->f) == 1);
	lf_fence_set_deadline(in->f, 0);
	must(lf_fence_wait(in->f, LF_DEADLINE_NEVER) == 0);
	must(lf_fence_wait_many(&all, &first) == 0);
	must(first == 0);
	must(lf_fence_wait_drained(in->f, 0) == -ETIME);
	lf_fence_slot_set(&slot, in->f);
	lf_fence_put(lf_fence_slot_get(&slot));
	lf_fence_slot_set(&slot, NULL);
	must(lf_reclaim_barrier() == 0);
	lf_fence_put(in->f);
	return NULL;
}

static void then_let_another_thread_use_the_fence(struct lf_fence *f, struct node *node)
{
	struct intruder in = { .f = f, .behind = node->peer };
	thread_run(use_everything, &in, 0);
}

static void another_thread_can_use_the_fence_while_its_callback_runs(void **state)
{
	struct node behind = { 0 }, last = { 0 }, node = { .then = then_let_another_thread_use_the_fence, .peer = &behind };
	struct lf_fence *f = make_fence();
	assert_int_equal(add(f, &node), 0);
	assert_int_equal(add(f, &behind), 0);
	assert_int_equal(add(f, &last), 0);
	lf_fence_signal(f, 0);
	assert_int_equal(behind.runs, 0);
	assert_int_equal(last.runs, 1);
	lf_fence_put(f);
}

/* The same with a fence of a timeline, and the timeline's own operations on top. */
static void *use_the_timeline(void *arg)
{
	struct lf_timeline *tl = arg;
	struct lf_fence *f = NULL;
	must(lf_timeline_emit(tl, 0, &f) == 0);
	must(lf_timeline_signal_to(tl, lf_fence_seqno(f), 0) == 1);
	lf_fence_put(f);
	return NULL;
}

struct timeline_node {
	struct lf_fence_cb cb;
	struct lf_timeline *tl;
	int runs;
};

static void let_another_thread_use_the_timeline(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct timeline_node *node = (struct timeline_node *)(void *)cb;
	node->runs++;
	thread_run(use_the_timeline, node->tl, 0);
}

static void another_thread_can_use_the_timeline_while_a_callback_of_its_fence_runs(void **state)
{
	const struct lf_timeline_desc desc = { .name = "ring" };
	struct timeline_node node = { .cb = LF_FENCE_CB_INIT };
	struct lf_fence *f = NULL;
	assert_int_equal(lf_timeline_create(&desc, &node.tl), 0);
	assert_int_equal(lf_timeline_emit(node.tl, 0, &f), 0);
	assert_int_equal(lf_fence_add_callback(f, &node.cb, let_another_thread_use_the_timeline), 0);
	assert_int_equal(lf_timeline_signal_to(node.tl, 1, 0), 1);
	assert_int_equal(node.runs, 1);
	assert_true(lf_timeline_last_seqno(node.tl) == 2);
	lf_timeline_put(node.tl);
	lf_fence_put(f);
}

/* --- Only with debug checks --------------------------------------------------------------------------------------------- */

#ifdef LF_DEBUG_CHECKS
struct mutual {
	struct lf_fence *f;
	struct mutual *peer;
	struct node node;
	struct gate *gate;
	int result;
};

static void then_cancel_mutually(struct lf_fence *f, struct node *node)
{
	struct mutual *m = (struct mutual *)(void *)((char *)node - offsetof(struct mutual, node));
	/* both are inside before either cancels */
	gate_wait(m->gate);
	m->result = lf_fence_cancel_callback_sync(m->peer->f, &m->peer->node.cb);
}

static void two_callbacks_that_cancel_each_other_are_told(void **state)
{
	struct gate gate;
	gate_init(&gate, 2);
	struct mutual a = { .gate = &gate }, b = { .gate = &gate };
	a.peer = &b;
	b.peer = &a;
	a.f = make_fence();
	b.f = make_fence();
	a.node.then = b.node.then = then_cancel_mutually;
	assert_int_equal(add(a.f, &a.node), 0);
	assert_int_equal(add(b.f, &b.node), 0);
	pthread_t thread = thread_start(signal_on_thread, a.f, 0);
	lf_fence_signal(b.f, 0);
	thread_join(thread);
	/* one of them is refused at least; the other one, if it is not, waits for the end of that one */
	assert_true(a.result == -EDEADLK || b.result == -EDEADLK);
	assert_true(a.result == -EDEADLK || a.result == LF_CB_RAN);
	assert_true(b.result == -EDEADLK || b.result == LF_CB_RAN);
	assert_true(take_misuse() >= 1);
	lf_fence_put(a.f);
	lf_fence_put(b.f);
	gate_fini(&gate);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(callbacks_run_first_added_first),
		TEST(removal_keeps_the_order_of_the_rest),
		TEST(callback_runs_on_the_signalling_thread),
		TEST(result_and_timestamp_are_final_in_callbacks),
		TEST(add_to_a_signaled_fence_returns_ENOENT_and_leaves_the_node_free),
		TEST(node_can_be_added_again_after_it_ran_or_was_removed),
		TEST(node_added_twice_is_refused_and_runs_once),
		TEST(missing_arguments_are_refused),
		TEST(remove_of_a_node_that_was_never_added_is_refused),
		TEST(remove_from_a_pending_fence_returns_REMOVED),
		TEST(remove_after_the_callback_returned_returns_RAN),
		TEST(remove_while_another_thread_is_inside_a_callback),
		TEST(cancel_sync_waits_for_no_callback_but_its_own),
		TEST(cancel_sync_returns_only_after_the_running_callback_has),
		TEST(several_threads_cancel_sync_the_same_running_callback),
		TEST(cancel_sync_inside_a_read_section_is_refused),
		TEST(remove_from_inside_callback_of_same_fence_returns_RUNNING),
		TEST(cancel_sync_from_inside_itself_returns_RUNNING_at_once),
		TEST(callback_takes_back_one_that_waits_behind_it),
		TEST(callback_takes_back_one_that_has_run),
		TEST(add_inside_a_callback_of_the_same_fence_returns_ENOENT),
		TEST(signal_inside_a_callback_of_the_same_fence_returns_false),
		TEST(callback_puts_the_last_reference_to_its_fence),
		TEST(wait_inside_a_callback_for_its_own_fence_is_no_wait),
		TEST(wait_drained_inside_a_callback_of_the_same_fence_returns_EDEADLK),
		TEST(wait_inside_a_callback_for_a_pending_fence_returns_EDEADLK),
		TEST(callback_adds_to_another_fence),
		TEST(callback_adds_its_own_node_to_another_fence),
		TEST(readded_node_can_be_removed_from_its_new_fence),
		TEST(callback_adds_its_own_node_to_another_fence_and_signals_that),
		TEST(cancel_sync_inside_one_run_of_a_node_waits_for_its_next_run_on_another_thread),
		TEST(callback_takes_back_one_of_another_fence),
		TEST(callback_puts_the_last_reference_to_another_fence),
		TEST(callbacks_free_their_own_nodes),
		TEST(callback_removes_and_frees_the_node_behind_it),
		TEST(nested_signal_returns_true_and_its_callbacks_run_after_the_callback_that_signaled),
		TEST(nested_fences_keep_the_order_of_their_callbacks_and_of_their_signals),
		TEST(nested_signal_wakes_waiters_at_once),
		TEST(waiter_wakes_although_an_earlier_callback_blocks),
		TEST(million_fences_signal_each_other_on_a_small_stack),
		TEST(one_callback_signals_many_fences_with_callbacks),
		TEST(callback_of_a_nested_fence_can_be_taken_back_before_its_turn),
		TEST(nested_fence_lives_until_its_callbacks_have_run),
		TEST(abandoning_a_fence_with_callbacks_inside_a_callback_runs_them),
		TEST(fence_is_not_drained_inside_its_callbacks),
		TEST(fence_is_signaled_and_not_drained_while_a_callback_runs),
		TEST(drained_although_the_last_callbacks_were_removed),
		TEST(callbacks_run_outside_read_sections),
		TEST(another_thread_can_use_the_fence_while_its_callback_runs),
		TEST(another_thread_can_use_the_timeline_while_a_callback_of_its_fence_runs),
#ifdef LF_DEBUG_CHECKS
		TEST(two_callbacks_that_cancel_each_other_are_told),
#endif
	};
	return TEST_MAIN(tests);
}
