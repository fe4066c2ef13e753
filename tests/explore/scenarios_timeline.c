/* SPDX-License-Identifier: MIT */
/*
 * Timelines and providers: emitting, signaling, losing and dropping on several threads; names; hooks beside signals; closing a provider while
 * its code is in use.
 */
#include "explore.h"

#include <string.h>

#include "base/port.h"
#include "fence/timeline.h"

enum { FENCES = 17 };

static struct lf_provider *provider;
static struct lf_timeline *tl, *other;
static struct lf_fence *fences[FENCES];
static struct lf_fence_cb cb;
static size_t signaled[EXPLORE_THREADS + 1]; /* by whom, how many */
static int wrote[EXPLORE_THREADS + 1];
static int ran, result;

/* --- Helpers ---------------------------------------------------------------------------------------------------------------- */

static void make_timeline(unsigned flags, const struct lf_fence_ops *ops, void (*release)(void *data))
{
	CHECK(lf_timeline_create(&(struct lf_timeline_desc){ .name = "t", .flags = flags, .ops = ops, .release = release,
		.provider = provider }, &tl) == 0);
}

static void emit(unsigned i)
{
	CHECK(lf_timeline_emit(tl, 0, &fences[i]) == 0);
}

static void emit_many(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		emit(i);
}

static void put_fences(void)
{
	for (unsigned i = 0; i < FENCES; i++)
		lf_fence_put(fences[i]);
}

static void put_all(void)
{
	lf_timeline_put(tl);
	put_fences();
}

static size_t signaled_in_all(void)
{
	size_t n = 0;

	for (unsigned i = 0; i <= EXPLORE_THREADS; i++)
		n += signaled[i];
	return n;
}

static size_t fences_signaled(void)
{
	size_t n = 0;

	for (unsigned i = 0; i < FENCES; i++)
		n += fences[i] && lf_fence_is_signaled(fences[i]);
	return n;
}

/* --- Order -------------------------------------------------------------------------------------------------------------------- */

static void make_ordered_three(void)
{
	make_timeline(LF_TIMELINE_ORDERED, NULL, NULL);
	emit_many(3);
}

/* Each thread has an error of its own, so that a fence says who signaled it. The times that they give are in no order. */
static void signal_as_oneself(uint64_t seqno, int64_t time)
{
	unsigned self = explore_self();

	if (!wrote[self])
		wrote[self] = 1;
	signaled[self] += lf_timeline_signal_to_at(tl, seqno, -(int)self, time);
}

static void signal_first(void)
{
	signal_as_oneself(1, 5000);
}

static void signal_two(void)
{
	signal_as_oneself(2, 4000);
}

static void signal_three(void)
{
	signal_as_oneself(3, 3000);
}

static void see(const struct lf_fence *f)
{
	CHECK(lf_fence_is_signaled(f));
	CHECK(wrote[-lf_fence_status(f)] == 1);
}

static void look_back(void)
{
	for (unsigned i = 3; i-- > 1;) {
		if (!lf_fence_is_signaled(fences[i]))
			continue;
		see(fences[i]);
		see(fences[i - 1]);
		CHECK(lf_fence_timestamp(fences[i - 1]) <= lf_fence_timestamp(fences[i]));
	}
}

static void all_in_order(void)
{
	look_back();
	CHECK(signaled_in_all() == 3 && fences_signaled() == 3);
	put_all();
}

/* --- Emission ------------------------------------------------------------------------------------------------------------------ */

static void make_ordered(void)
{
	make_timeline(LF_TIMELINE_ORDERED, NULL, NULL);
	emit(0); /* the ring has room now */
}

static void emit_as_oneself(void)
{
	unsigned self = explore_self();

	emit(self);
	CHECK(lf_fence_context(fences[self]) == lf_timeline_context(tl));
	CHECK(lf_fence_seqno(fences[self]) == 2 || lf_fence_seqno(fences[self]) == 3);
}

static void signal_two_now(void)
{
	signaled[explore_self()] = lf_timeline_signal_to(tl, 2, 0);
}

static void emitted_in_order(void)
{
	struct lf_fence *first = fences[1], *later = fences[2];

	if (lf_fence_is_later(first, later)) {
		first = fences[2];
		later = fences[1];
	}
	CHECK(lf_fence_seqno(first) == 2 && lf_fence_seqno(later) == 3 && lf_timeline_last_seqno(tl) == 3);
	CHECK(!lf_fence_is_signaled(later)); /* a signal beyond what was emitted is none of what comes */
	CHECK(fences_signaled() == signaled_in_all());
	lf_timeline_put(tl);
	CHECK(lf_fence_status(later) == -ECANCELED);
	put_fences();
}

/* One more than fits into the ring's first memory: whoever emits next makes it grow. */
static void fill_ring(void)
{
	make_timeline(LF_TIMELINE_ORDERED, NULL, NULL);
	for (unsigned i = 0; i < 16; i++) {
		emit(0);
		lf_fence_put(fences[0]);
	}
	fences[0] = NULL;
}

static void emit_behind(void)
{
	emit(explore_self());
}

static void signal_ring(void)
{
	signaled[explore_self()] = lf_timeline_signal_to(tl, 17, 0);
}

static void ring_grew(void)
{
	CHECK(lf_timeline_last_seqno(tl) == 18);
	CHECK(signaled_in_all() == 16 + fences_signaled());
	CHECK(lf_timeline_signal_to(tl, 18, 0) == 18 - signaled_in_all());
	CHECK(fences_signaled() == 2);
	put_all();
}

/* Most of the ring is holes, which the next to emit closes. */
static void make_holes(void)
{
	make_timeline(LF_TIMELINE_UNORDERED, NULL, NULL);
	emit_many(16);
	for (unsigned i = 2; i < 14; i++)
		CHECK(lf_timeline_signal_one(tl, fences[i], 0));
}

static void emit_last(void)
{
	emit(16);
}

static void signal_in_ring(void)
{
	unsigned self = explore_self();

	for (unsigned i = 14; i < 16; i++)
		signaled[self] += lf_timeline_signal_one(tl, fences[i], -(int)self);
}

static void ring_was_compacted(void)
{
	CHECK(signaled_in_all() == 2 && fences_signaled() == 14);
	CHECK(lf_timeline_signal_one(tl, fences[16], 0));
	CHECK(lf_timeline_signal_to(tl, 17, 0) == 2);
	put_all();
}

/* --- No order -------------------------------------------------------------------------------------------------------------------- */

static void make_unordered_three(void)
{
	make_timeline(LF_TIMELINE_UNORDERED, NULL, NULL);
	emit_many(3);
}

static void signal_one(unsigned i)
{
	unsigned self = explore_self();

	if (!wrote[self])
		wrote[self] = 1;
	signaled[self] += lf_timeline_signal_one(tl, fences[i], -(int)self);
	CHECK(lf_fence_is_signaled(fences[i]));
}

static void signal_first_and_second(void)
{
	signal_one(0);
	signal_one(1);
}

static void signal_second_and_rest(void)
{
	signal_one(1);
	signal_as_oneself(3, 3000);
}

static void look_at_second(void)
{
	if (lf_fence_is_signaled(fences[1]))
		see(fences[1]);
}

static void each_once(void)
{
	CHECK(signaled_in_all() == 3 && fences_signaled() == 3);
	put_all();
}

/* --- Loss ------------------------------------------------------------------------------------------------------------------------ */

static void lose(void)
{
	unsigned self = explore_self();

	signaled[self] = lf_timeline_lose(tl, -(int)self);
	CHECK(lf_fence_is_signaled(fences[0]));
}

/* What is emitted behind a loss is signaled when that returns. */
static void emit_beside_loss(void)
{
	emit(1);
	if (lf_fence_is_signaled(fences[1])) {
		emit(2);
		CHECK(lf_fence_status(fences[2]) == lf_fence_status(fences[1]));
	}
}

static void all_lost_alike(void)
{
	int error = lf_fence_status(fences[0]);

	CHECK(error == -1 || error == -2);
	CHECK(lf_fence_status(fences[1]) == error);
	CHECK(!fences[2] || lf_fence_status(fences[2]) == error);
	put_all();
}

static void signal_beside_loss(void)
{
	signaled[explore_self()] = lf_timeline_signal_to(tl, 2, 0);
}

/* What comes back pending is lost later. */
static void emit_one(void)
{
	emit(1);
}

static void wait_for_loss(void)
{
	CHECK(lf_fence_wait(fences[0], LF_DEADLINE_NEVER) == 0);
	CHECK(lf_fence_status(fences[0]) == -1);
}

static void lost_or_done(void)
{
	CHECK(lf_fence_status(fences[0]) == 1 || lf_fence_status(fences[0]) == -1);
	CHECK(lf_fence_status(fences[1]) == 1 || lf_fence_status(fences[1]) == -1);
	CHECK(!(lf_fence_status(fences[0]) == -1 && lf_fence_status(fences[1]) == 1));
	put_all();
}

/* --- Drop, and names ----------------------------------------------------------------------------------------------------------------- */

static void on_signal(struct lf_fence *f, struct lf_fence_cb *node)
{
	(void)node;
	CHECK(lf_fence_is_signaled(f));
	ran++;
}

static void make_shared(void)
{
	make_timeline(LF_TIMELINE_ORDERED, NULL, NULL);
	emit(0);
	CHECK(lf_fence_add_callback(fences[0], &cb, on_signal) == 0);
	lf_timeline_get(tl);
}

static void drop(void)
{
	lf_timeline_put(tl);
}

static void signal_and_drop(void)
{
	signaled[explore_self()] = lf_timeline_signal_to(tl, 1, 0);
	drop();
}

static void emit_and_drop(void)
{
	emit(1);
	drop();
}

static void read_name(void)
{
	char name[32];
	int len = lf_fence_name(fences[0], name, sizeof(name));

	CHECK((size_t)len == strlen(name));
	CHECK(strcmp(name, "t") == 0 || strcmp(name, "signaled-timeline") == 0);
}

static void done_or_canceled(void)
{
	CHECK(ran == 1);
	CHECK(lf_fence_status(fences[0]) == (signaled_in_all() ? 1 : -ECANCELED));
	put_fences();
}

static void both_canceled(void)
{
	CHECK(ran == 1 && lf_fence_status(fences[0]) == -ECANCELED && lf_fence_status(fences[1]) == -ECANCELED);
	put_fences();
}

/* Names are found in buckets by context, of which there are 1024: the next timeline comes into the bucket of the first. */
static void make_for_bucket(void)
{
	make_timeline(LF_TIMELINE_ORDERED, NULL, NULL);
	emit(0);
	while (timeline_new_context() != lf_timeline_context(tl) + 1023)
		;
}

static void make_other(void)
{
	CHECK(lf_timeline_create(&(struct lf_timeline_desc){ .name = "other" }, &other) == 0);
	CHECK(lf_timeline_context(other) == lf_timeline_context(tl) + 1024);
}

static void make_and_drop_other(void)
{
	CHECK(lf_timeline_create(&(struct lf_timeline_desc){ .name = "other" }, &other) == 0);
	lf_timeline_put(other);
}

static lf_atomic_u64 first_context; /* of the timeline made first; no order comes with it */
static lf_atomic_ptr made_second;

/* Two of one bucket, of which the second one, in front, is given to another thread. */
static void make_both(void)
{
	struct lf_timeline *second;
	uint64_t context;

	make_timeline(LF_TIMELINE_ORDERED, NULL, NULL);
	context = lf_timeline_context(tl);
	while (timeline_new_context() != context + 1023)
		;
	CHECK(lf_timeline_create(&(struct lf_timeline_desc){ .name = "second" }, &second) == 0);
	u64_store(&first_context, context, memory_order_relaxed);
	ptr_store(&made_second, (uintptr_t)second, memory_order_release);
}

static void drop_second(void)
{
	struct lf_timeline *second = (struct lf_timeline *)ptr_xchg(&made_second, 0, memory_order_acquire);

	lf_timeline_put(second);
}

/* Finds the first one through the place that the second one left. */
static void read_first_name(void)
{
	uint64_t context = u64_load(&first_context, memory_order_relaxed);
	char name[32];

	if (!context)
		return;
	registry_name(context, name, sizeof(name));
	CHECK(strcmp(name, "t") == 0 || strcmp(name, "signaled-timeline") == 0);
}

static void put_both(void)
{
	drop_second();
	lf_timeline_put(tl);
}

static void read_name_that_stays(void)
{
	char name[32];

	lf_fence_name(fences[0], name, sizeof(name));
	CHECK(strcmp(name, "t") == 0);
}

static void put_other_too(void)
{
	lf_timeline_put(other);
	put_all();
}

/* --- Hooks ------------------------------------------------------------------------------------------------------------------------- */

/* What runs for the fence now, and whether its producer's part is over: plain, so that a hook beside detach is a race if it is nothing else. */
static int in_enable, in_poll, in_deadline, detaches, releases, enables, enable_says, poll_says, unloaded;
static int detached_of[2]; /* for release() to see */

/* Somebody may come in between. */
static void linger(int *inside, const struct lf_fence *f)
{
	CHECK(!unloaded && !detaches && !releases);
	*inside = 1;
	(void)lf_fence_is_signaled(f);
	*inside = 0;
}

static int enable(struct lf_fence *f, void *data)
{
	(void)data;
	CHECK(enables++ == 0);
	linger(&in_enable, f);
	return enable_says;
}

static int poll(struct lf_fence *f, void *data)
{
	(void)data;
	linger(&in_poll, f);
	return poll_says;
}

static void set_deadline(struct lf_fence *f, int64_t deadline, void *data)
{
	(void)data;
	CHECK(deadline == 4711);
	linger(&in_deadline, f);
}

static void detach(struct lf_fence *f, void *data)
{
	(void)data;
	CHECK(lf_fence_is_signaled(f) && !unloaded && !releases);
	CHECK(!in_enable && !in_poll && !in_deadline);
	CHECK(detaches++ == 0);
}

static void release(void *data)
{
	(void)data;
	CHECK(detaches == 1 && !unloaded);
	CHECK(releases++ == 0);
}

static const struct lf_fence_ops hooks = { .enable = enable, .poll = poll, .set_deadline = set_deadline, .detach = detach };

static void make_hooked(void)
{
	make_timeline(LF_TIMELINE_ORDERED, &hooks, release);
	emit(0);
}

static void make_hooked_that_is_done(void)
{
	make_hooked();
	enable_says = -EIO;
}

static void make_hooked_that_can_be_polled(void)
{
	make_hooked();
	poll_says = -EIO;
}

static void become_interested(void)
{
	result = lf_fence_add_callback(fences[0], &cb, on_signal);
	CHECK(result == 0 || lf_fence_is_signaled(fences[0]));
}

static void become_interested_and_wait(void)
{
	CHECK(lf_fence_wait(fences[0], LF_DEADLINE_NEVER) == 0);
}

static void check(void)
{
	(void)lf_fence_check(fences[0]);
}

static void hint(void)
{
	lf_fence_set_deadline(fences[0], 4711);
}

static void signal_hooked(void)
{
	signaled[explore_self()] = lf_timeline_signal_to(tl, 1, 0);
	CHECK(lf_fence_is_signaled(fences[0]));
}

static void detached_once(void)
{
	CHECK(detaches == 1 && ran == (result == 0));
	lf_timeline_put(tl);
	CHECK(releases == 1);
	put_fences();
}

static void detached_once_without_callback(void)
{
	result = -1;
	detached_once();
}

/* Either the hook's result or the signal's. */
static void detached_once_either_way(void)
{
	CHECK(lf_fence_status(fences[0]) == (signaled_in_all() ? 1 : -EIO));
	detached_once();
}

/* A hook that signals its own fence, and so does not see its end. */
static int enable_and_signal(struct lf_fence *f, void *data)
{
	(void)data;
	CHECK(enables++ == 0);
	in_enable = 1;
	lf_timeline_signal_to(tl, 1, 0);
	CHECK(lf_fence_is_signaled(f) && !detaches && ran == 0);
	in_enable = 0;
	return 0;
}

static const struct lf_fence_ops impatient = { .enable = enable_and_signal, .detach = detach };

static void make_impatient(void)
{
	make_timeline(LF_TIMELINE_ORDERED, &impatient, release);
	emit(0);
}

/* What is written in one detach hook is seen by release(), wherever the last one was. */
static void detach_and_note(struct lf_fence *f, void *data)
{
	(void)data;
	CHECK(f == fences[1] || !in_poll);
	detached_of[f == fences[1]] = 1;
}

static void release_after_both(void *data)
{
	(void)data;
	CHECK(detached_of[0] && detached_of[1]);
	CHECK(releases++ == 0);
}

static int poll_and_linger(struct lf_fence *f, void *data)
{
	(void)data;
	linger(&in_poll, f);
	return 0;
}

static const struct lf_fence_ops noting = { .poll = poll_and_linger, .detach = detach_and_note };

static void make_noting(void)
{
	make_timeline(LF_TIMELINE_ORDERED, &noting, release_after_both);
	emit_many(2);
}

static void signal_both_and_drop(void)
{
	CHECK(lf_timeline_signal_to(tl, 2, 0) == 2);
	drop();
}

static void released_once(void)
{
	CHECK(releases == 1);
	put_fences();
}

/* --- Several at once ------------------------------------------------------------------------------------------------------------------ */

static struct port_mutex gate = PORT_MUTEX_INIT;

static void on_signal_waits(struct lf_fence *f, struct lf_fence_cb *node)
{
	port_mutex_lock(&gate);
	port_mutex_unlock(&gate);
	on_signal(f, node);
}

static void make_one_that_waits(void)
{
	make_ordered_three();
	CHECK(lf_fence_add_callback(fences[0], &cb, on_signal_waits) == 0);
}

static void wait_for_last_behind_gate(void)
{
	port_mutex_lock(&gate);
	CHECK(lf_fence_wait(fences[2], LF_DEADLINE_NEVER) == 0);
	CHECK(wrote[1] == 1);
	port_mutex_unlock(&gate);
}

static void waiter_went_on(void)
{
	CHECK(ran == 1);
	put_all();
}

/* --- Providers -------------------------------------------------------------------------------------------------------------------------- */

static void make_provided(void)
{
	CHECK(lf_provider_create("p", &provider) == 0);
	make_hooked();
}

static void make_provided_with_callback(void)
{
	make_provided();
	become_interested();
}

/* Behind this, nothing of the driver may run. */
static void close_provider(void)
{
	CHECK(lf_provider_close(provider, LF_DEADLINE_NEVER) == 0);
	CHECK(detaches == 1 && releases == 1);
	unloaded = 1;
}

static void close_provider_for_a_time(void)
{
	int ret = lf_provider_close(provider, lf_now() + 1000);

	CHECK(ret == 0 || ret == -ETIME);
	CHECK(lf_fence_is_signaled(fences[0]));
	if (ret)
		CHECK(lf_provider_close(provider, LF_DEADLINE_NEVER) == 0);
	unloaded = 1;
}

static void close_too(void)
{
	CHECK(lf_provider_close(provider, LF_DEADLINE_NEVER) == 0);
	CHECK(detaches == 1 && releases == 1 && !in_poll);
}

static void closed(void)
{
	CHECK(unloaded && detaches == 1 && releases == 1 && ran == (result == 0));
	CHECK(lf_fence_status(fences[0]) == -ENODEV || (lf_fence_status(fences[0]) == 1 && signaled_in_all() == 1));
	CHECK(lf_timeline_emit(tl, 0, &fences[1]) == -ESHUTDOWN);
	put_all();
	lf_provider_put(provider);
}

static void closed_without_callback(void)
{
	result = -1;
	closed();
}

static void closed_perhaps_late(void)
{
	CHECK(explore_logged() <= 1);
	closed_without_callback();
}

static void make_another(void)
{
	struct lf_fence *f;

	result = lf_timeline_create(&(struct lf_timeline_desc){ .name = "other", .provider = provider }, &other);
	CHECK(result == 0 || result == -ESHUTDOWN);
	if (result)
		return;
	if (lf_timeline_emit(other, 0, &f) == 0) {
		CHECK(lf_fence_wait(f, LF_DEADLINE_NEVER) == 0 && lf_fence_status(f) == -ENODEV);
		lf_fence_put(f);
	}
	lf_timeline_put(other);
}

static void make_provided_empty(void)
{
	CHECK(lf_provider_create("p", &provider) == 0);
}

static void close_empty(void)
{
	CHECK(lf_provider_close(provider, LF_DEADLINE_NEVER) == 0);
}

static void put_provider(void)
{
	lf_provider_put(provider);
}

static void put_fences_and_provider(void)
{
	CHECK(releases == 1 && detaches == 1);
	put_fences();
	lf_provider_put(provider);
}

static const struct explore_scenario table[] = {
	{ .group = "timeline", .name = "signal_order", .setup = make_ordered_three, .threads = { signal_first, signal_three, look_back },
		.finish = all_in_order, .oracle = "who sees a fence signaled sees all earlier ones, at times that do not go back" },
	{ .group = "timeline", .name = "signal_order_times", .setup = make_ordered_three, .threads = { signal_first, signal_two, signal_three },
		.finish = all_in_order, .oracle = "the same of three who signal" },
	{ .group = "timeline", .name = "emit_signal", .setup = make_ordered, .threads = { emit_as_oneself, emit_as_oneself, signal_two_now },
		.finish = emitted_in_order, .oracle = "seqnos rise by one, and what is signaled was emitted before" },
	{ .group = "timeline", .name = "ring_grows", .setup = fill_ring, .threads = { emit_behind, emit_behind, signal_ring }, .finish = ring_grew,
		.oracle = "no fence is lost while the ring moves" },
	{ .group = "timeline", .name = "ring_holes", .setup = make_holes, .threads = { emit_last, signal_in_ring, signal_in_ring },
		.finish = ring_was_compacted, .oracle = "no fence is lost while holes are closed" },
	{ .group = "timeline", .name = "unordered", .setup = make_unordered_three,
		.threads = { signal_first_and_second, signal_second_and_rest, look_at_second }, .finish = each_once,
		.oracle = "each fence is signaled by one of those who try" },
	{ .group = "timeline", .name = "lose_lose", .setup = make_ordered, .threads = { lose, lose, emit_beside_loss }, .finish = all_lost_alike,
		.oracle = "the first loss counts, for all that is emitted, before and behind it" },
	{ .group = "timeline", .name = "lose_signal", .setup = make_ordered, .threads = { lose, signal_beside_loss, emit_one },
		.finish = lost_or_done, .oracle = "behind a loss no fence stays pending, and none is done" },
	{ .group = "timeline", .name = "lose_wait", .setup = make_ordered, .threads = { lose, wait_for_loss }, .finish = put_all,
		.oracle = "a loss wakes who waits" },
	{ .group = "timeline", .name = "drop", .setup = make_shared, .threads = { drop, signal_and_drop, read_name }, .finish = done_or_canceled,
		.oracle = "the last put ends what is pending, and the name goes with it" },
	{ .group = "timeline", .name = "drop_emit", .setup = make_shared, .threads = { drop, emit_and_drop, read_name }, .finish = both_canceled,
		.oracle = "what the last holder emits is canceled with the rest" },
	{ .group = "timeline", .name = "registry_add", .setup = make_for_bucket, .threads = { make_other, read_name_that_stays },
		.finish = put_other_too, .oracle = "names are found whole while others come into their bucket" },
	{ .group = "timeline", .name = "registry_remove", .setup = make_for_bucket, .threads = { make_and_drop_other, read_name, drop },
		.finish = put_fences, .oracle = "and while they leave it" },
	{ .group = "timeline", .name = "registry_through", .threads = { make_both, drop_second, read_first_name }, .finish = put_both,
		.oracle = "and whole behind one that has left" },
	{ .group = "timeline", .name = "hooks_enable", .setup = make_hooked, .threads = { become_interested, signal_hooked },
		.finish = detached_once, .oracle = "detach runs once, and not beside enable" },
	{ .group = "timeline", .name = "hooks_wait", .setup = make_hooked, .threads = { become_interested_and_wait, signal_hooked },
		.finish = detached_once_without_callback, .oracle = "the same of who waits" },
	{ .group = "timeline", .name = "hooks_enable_once", .setup = make_hooked, .threads = { become_interested, become_interested_and_wait,
		signal_hooked }, .bound = 2, .finish = detached_once, .oracle = "of two who become interested one enables" },
	/* Three deviations are 320,000 schedules; two for each of two of the threads are among those of the scenarios beside. */
	{ .group = "timeline", .name = "hooks_hint", .setup = make_hooked, .threads = { hint, check, signal_hooked }, .bound = 2,
		.finish = detached_once_without_callback, .oracle = "detach runs once, and not beside a hint or a poll" },
	{ .group = "timeline", .name = "hooks_poll", .setup = make_hooked_that_can_be_polled, .threads = { become_interested, check },
		.finish = detached_once_either_way, .oracle = "what poll says is the fence's result, and detach waits for enable" },
	{ .group = "timeline", .name = "hooks_answer", .setup = make_hooked_that_is_done, .threads = { become_interested, signal_hooked },
		.finish = detached_once_either_way, .oracle = "what enable says is the fence's result, unless somebody signals first" },
	{ .group = "timeline", .name = "hooks_answer_hint", .setup = make_hooked_that_is_done, .threads = { become_interested, hint },
		.finish = detached_once_either_way, .oracle = "the last hook detaches, whoever signaled" },
	{ .group = "timeline", .name = "hooks_signal", .setup = make_impatient, .threads = { become_interested, signal_hooked },
		.finish = detached_once, .oracle = "a hook that signals its own fence is not beside detach" },
	{ .group = "timeline", .name = "release", .setup = make_noting, .threads = { check, signal_both_and_drop }, .finish = released_once,
		.oracle = "release comes once, and after all detach hooks" },
	{ .group = "timeline", .name = "wake_behind_callback", .setup = make_one_that_waits, .threads = { signal_three, wait_for_last_behind_gate },
		.finish = waiter_went_on, .oracle = "no callback holds up a waiter of a fence that was signaled with its own" },
	{ .group = "timeline", .name = "close_signal", .setup = make_provided_with_callback, .threads = { close_provider, signal_hooked },
		.finish = closed, .oracle = "nothing of the driver runs behind close, and callbacks do" },
	{ .group = "timeline", .name = "close_enable", .setup = make_provided, .threads = { close_provider, become_interested },
		.finish = closed, .oracle = "close waits for a hook that runs, and none begins behind it" },
	{ .group = "timeline", .name = "close_late", .setup = make_provided, .threads = { close_provider_for_a_time, check },
		.flags = EXPLORE_MAY_LOG, .finish = closed_perhaps_late, .oracle = "a close that is late can be waited for again" },
	/* Three deviations are more than 500,000 schedules each; with two threads they are above. */
	{ .group = "timeline", .name = "close_hooks", .setup = make_provided, .threads = { close_provider, check, hint }, .bound = 2,
		.finish = closed_without_callback, .oracle = "close waits for all hooks" },
	{ .group = "timeline", .name = "close_close", .setup = make_provided, .threads = { close_provider, close_too, check }, .bound = 2,
		.finish = closed_without_callback, .oracle = "both who close wait for the hook" },
	{ .group = "timeline", .name = "close_make", .setup = make_provided_empty, .threads = { close_empty, make_another },
		.finish = put_provider, .oracle = "what is made beside close is refused, or lost" },
	{ .group = "timeline", .name = "close_drop", .setup = make_provided, .threads = { close_provider, drop },
		.finish = put_fences_and_provider, .oracle = "close waits for a timeline that is being dropped" },
};
EXPLORE_SCENARIOS(table);
