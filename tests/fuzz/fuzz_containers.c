/* SPDX-License-Identifier: MIT */
/*
 * Graphs of containers beside a naive model, which computes everything from the leaves.
 *
 * A program makes leaves (alone, of ordered and unordered timelines with hooks, signaled ones, the stub), arrays, links of chains, joins
 * and merges over whatever it has, signals leaves in any order, adds and takes back callbacks, which themselves signal, put, add and take
 * back, asks, walks, looks points up, and puts what it has at any moment. When there is no room for more it ends that world, in a random
 * order, and begins another.
 *
 * Oracle, after each operation:
 * - a container is signaled exactly if its leaves say so; its timestamp and status are what the leaves' are put together to. Where several
 *   members were signaled in the same operation it is not promised who came first: then it is one of theirs;
 * - callbacks of what is signaled have run once, in the order in which they were added, those of what is pending have not;
 * - walks, parts of links, points and merges are what the graph says;
 * - leaves are armed exactly when somebody waits for something that hangs on them; hints and polls reach the leaves; detach comes once;
 * - an error of memory changes nothing; signals and puts allocate nothing;
 * - what is not needed any more is gone: as many fences live as the model can reach, and none in the end.
 */
#include "fuzz.h"

enum { NODES = 96, MEMBERS = 6, TIMELINES = 4, UNORDERED = 3, CALLBACKS = 40, TIMES = 60, ERRORS = 59, LOG = 40 };

/* --- Programs ---------------------------------------------------------------------------------------------------------------- */

enum kind {
	LEAF,
	ALL,
	ANY,
	LINK,
	MERGE,
	FLATTEN,
	SIGNAL,
	READY, /* a leaf will answer its hooks so */
	LOSE, /* a timeline */
	ADD, /* a callback */
	REMOVE,
	CHECK,
	WAIT,
	WAIT_MANY,
	HINT,
	WALK,
	FIND,
	PARTS,
	DROP,
	COUNT, /* what lives */
	DESCRIBE,
	MISUSE,
	KINDS
};

static const char *const kinds[] = { "leaf", "all", "any", "link", "merge", "flatten", "signal", "ready", "lose", "add", "remove", "check",
	"wait", "wait_many", "hint", "walk", "find", "parts", "drop", "count", "describe", "misuse", NULL };

enum hit { NO_MEMORY, WORLDS, SIGNALED, AMBIGUOUS, RAN, INSIDE, ARMED, POLLED, FOUND, FOUND_GONE, MERGED_ONE, MERGED_NONE, MERGED_ARRAY };

static const char *const hits[] = { "without memory", "worlds", "containers signaled", "in more than one way", "callbacks ran",
	"that did something", "leaves armed", "done when asked", "points found", "reached", "merges: one leaf", "nothing left", "an array",
	NULL };

static void hit(enum hit h, uint64_t count)
{
	fuzz_progress->hit[h] += count;
}

/* How often each is meant by a random byte; out of 256. */
static const uint8_t weights[KINDS] = { 44, 20, 16, 30, 9, 4, 22, 8, 1, 16, 7, 6, 7, 5, 4, 11, 12, 6, 20, 3, 2, 3 };

struct op {
	enum kind kind;
	uint8_t fail, how, n, detail;
	uint8_t which[3]; /* nodes */
};

static struct op to_op(const uint8_t *bytes)
{
	struct op op = { .fail = bytes[1], .how = bytes[2], .n = bytes[3], .detail = bytes[4], .which = { bytes[5], bytes[6], bytes[7] } };
	unsigned n = bytes[0], kind = 0;
	while (kind + 1 < KINDS && n >= weights[kind])
		n -= weights[kind++];
	op.kind = (enum kind)kind;
	return op;
}

/* --- The world --------------------------------------------------------------------------------------------------------------- */

enum sort { IS_LEAF, IS_ALL, IS_ANY, IS_LINK };

/*
 * What a result may be: a bit for each status (0 is success, else the error) and for each timestamp. Once the library has said which one it
 * is, there is one.
 */
struct outcome {
	uint64_t status, time;
};

/* A fence. Node 0 is the stub. */
struct node {
	enum sort sort;
	struct lf_fence *f;
	unsigned held; /* references of the program */
	uint8_t member[MEMBERS * 2], count; /* of a link: prev, which may be NONE, and its fence */
	uint64_t context, seqno;
	bool ordered, signaled, followed; /* followed: a link that another one was appended to */
	unsigned made, step; /* operations */
	struct outcome outcome; /* of a pending array: what it began with, if something */
	int timeline; /* of a leaf; -1: none */
	int ready; /* what its hooks will answer */
	bool asked; /* somebody may have armed it */
	unsigned enables, detaches;
	int64_t hint;
	bool seen; /* by a walk */
	unsigned busy; /* calls that borrow it, and may run callbacks */
};

enum { NONE = 255 };

enum callback_state { IDLE, ADDING, ADDED, HAS_RAN }; /* ADDING: its call has not returned */

struct callback {
	struct lf_fence_cb cb; /* first */
	enum callback_state state;
	uint8_t node, action, other;
	uint64_t number; /* of the adding */
};

struct timeline {
	struct lf_timeline *tl;
	int64_t last_time;
	int lost; /* the error */
	unsigned emitted, released;
};

static struct {
	struct node node[NODES];
	unsigned count, step;
	struct timeline tl[TIMELINES];
	struct callback callback[CALLBACKS];
	uint64_t added;
	uint8_t asked_from[CALLBACKS]; /* nodes that were waited for in this operation */
	unsigned asked_count;
	int64_t now;
	struct op op;
	struct op log[LOG];
	uint64_t random;
} w;

static long live_at_start, live_timelines;
static bool memory_failed;

static void fail_allocation(unsigned limit)
{
	memory_failed = false;
	alloc_fail_at(w.op.fail < limit ? w.op.fail + 1 : 0);
}

/* After what may have found no memory; returns whether it was done. */
static bool done(int error)
{
	memory_failed = alloc_failed();
	alloc_fail_at(0);
	must(error == 0 || (error == -ENOMEM && memory_failed));
	hit(NO_MEMORY, error != 0);
	return error == 0;
}

static bool is_container(const struct node *n)
{
	return n->sort != IS_LEAF;
}

/* One of the nodes that the program has: mostly a new one. */
static uint8_t some_node(uint8_t byte)
{
	unsigned far = byte % 4 == 0 ? byte / 4 * 2 : byte / 4 % 12, at = w.count - 1 - (far < w.count ? far : 0);
	for (unsigned i = 0; i < w.count; i++, at = at == 0 ? w.count - 1 : at - 1) {
		if (w.node[at].held != 0)
			return (uint8_t)at;
	}
	return 0;
}

/* Mostly one that is pending, so that something is to come. */
static uint8_t some_member(uint8_t byte)
{
	uint8_t first = some_node(byte);
	for (unsigned i = 0, at = first; i < w.count && byte % 8 != 7; i++, at = at == 0 ? w.count - 1 : at - 1) {
		if (w.node[at].held != 0 && !w.node[at].signaled)
			return (uint8_t)at;
	}
	return first;
}

static uint8_t node_of(const struct lf_fence *f)
{
	for (unsigned i = w.count; i-- != 0;) {
		if (w.node[i].f == f)
			return (uint8_t)i;
	}
	must_failed(__FILE__, __LINE__, "a fence of the program");
}

/* --- Outcomes ---------------------------------------------------------------------------------------------------------------- */

static const uint64_t success = 1;

static uint64_t status_bit(int status)
{
	return status == 1 ? success : UINT64_C(1) << (-status <= ERRORS ? -status : status == -ECANCELED ? 60 : 61);
}

static uint64_t time_bit(int64_t time)
{
	must(time >= 0 && time < 64);
	return UINT64_C(1) << time;
}

static uint64_t lowest(uint64_t bits)
{
	return bits & -bits;
}

/* Results that come one after the other: the first error, the latest time. */
struct together {
	uint64_t errors, times, least; /* least: a time that it is not before */
	bool certain; /* there was one that is an error for sure: what comes later does not count */
	bool any;
};

static void take_errors(struct together *t, uint64_t status, bool certain)
{
	if (t->certain)
		return;
	t->errors |= status & ~success;
	t->certain = certain;
}

static void take_time(struct together *t, uint64_t time)
{
	t->times |= time;
	t->least = lowest(time) > t->least ? lowest(time) : t->least;
	t->any = true;
}

static void take(struct together *t, const struct outcome *o)
{
	if (o->time == 0)
		return; /* nothing has completed */
	take_errors(t, o->status, (o->status & success) == 0);
	take_time(t, o->time);
}

static struct outcome outcome_of(const struct together *t)
{
	return (struct outcome){ t->errors | (t->certain ? 0 : success), t->times & ~(t->least - 1) };
}

/* When a container was told of a member: of what was there before it was made, at once and in order. */
static unsigned told_at(const struct node *n, unsigned i)
{
	const struct node *m = n->member[i] == NONE ? NULL : &w.node[n->member[i]];
	return m == NULL || !m->signaled ? UINT32_MAX : m->step < n->made ? i : MEMBERS * 2 + m->step;
}

/* The next moment after @after at which it was told of something. */
static unsigned next_told(const struct node *n, unsigned after)
{
	unsigned next = UINT32_MAX;
	for (unsigned i = 0; i < n->count; i++) {
		unsigned at = told_at(n, i);
		if (at != UINT32_MAX && (after == UINT32_MAX || at > after) && at < next)
			next = at;
	}
	return next;
}

/* What members of an array that were told of at one moment make of it: any of them may have been the first. */
static void take_moment(struct together *t, const struct node *n, unsigned moment)
{
	uint64_t status = 0;
	bool certain = false;
	for (unsigned i = 0; i < n->count; i++) {
		if (told_at(n, i) != moment)
			continue;
		const struct outcome *o = &w.node[n->member[i]].outcome;
		status |= o->status;
		certain = certain || (o->status & success) == 0;
		take_time(t, o->time);
	}
	take_errors(t, status, certain);
}

/* What has completed of a container; nothing: no times. */
static struct outcome so_far(const struct node *n)
{
	struct together t = { 0 };
	if (n->sort == IS_LINK) {
		for (unsigned i = 0; i < 2; i++) {
			if (told_at(n, i) != UINT32_MAX)
				take(&t, &w.node[n->member[i]].outcome);
		}
	} else {
		take(&t, &n->outcome);
		for (unsigned at = next_told(n, UINT32_MAX); at != UINT32_MAX; at = next_told(n, at))
			take_moment(&t, n, at);
	}
	return outcome_of(&t);
}

/* What signals an *any* array: each of those that were told of first. */
static struct outcome first_of(const struct node *n)
{
	unsigned first = next_told(n, UINT32_MAX);
	struct outcome all = { 0 };
	for (unsigned i = 0; i < n->count; i++) {
		if (told_at(n, i) != first)
			continue;
		all.status |= w.node[n->member[i]].outcome.status;
		all.time |= w.node[n->member[i]].outcome.time;
	}
	return all;
}

static void finish(struct node *n, struct outcome o)
{
	n->signaled = true;
	n->step = w.step;
	n->outcome = o;
	hit(SIGNALED, 1);
	hit(AMBIGUOUS, (o.status & (o.status - 1)) != 0 || (o.time & (o.time - 1)) != 0);
}

/* Signals a container in the model if its members say so. */
static void compute(struct node *n)
{
	unsigned signaled = 0, members = 0;
	for (unsigned i = 0; i < n->count; i++) {
		members += n->member[i] != NONE;
		signaled += told_at(n, i) != UINT32_MAX;
	}
	if (n->sort == IS_ANY && signaled != 0)
		finish(n, first_of(n));
	else if (n->sort != IS_ANY && signaled == members)
		finish(n, members == 0 ? (struct outcome){ success, time_bit(0) } : so_far(n));
}

/* --- Comparing --------------------------------------------------------------------------------------------------------------- */

/* Status and timestamp of an *any* array are those of one and the same member. */
static bool is_of_one(const struct node *n, struct outcome said)
{
	unsigned first = next_told(n, UINT32_MAX);
	for (unsigned i = 0; i < n->count && n->sort == IS_ANY; i++) {
		const struct outcome *o = &w.node[n->member[i]].outcome;
		if (told_at(n, i) == first && (o->status & said.status) != 0 && (o->time & said.time) != 0)
			return true;
	}
	return n->sort != IS_ANY;
}

/* A node that the program has. */
static void compare(struct node *n)
{
	int status = lf_fence_status(n->f);
	must(lf_fence_is_signaled(n->f) == n->signaled);
	must(lf_fence_context(n->f) == n->context && lf_fence_seqno(n->f) == n->seqno && lf_fence_is_ordered(n->f) == n->ordered);
	if (!n->signaled) {
		must(status == 0 && lf_fence_timestamp(n->f) == INT64_MIN && !lf_fence_is_drained(n->f));
		return;
	}
	must(lf_fence_is_drained(n->f));
	struct outcome said = { status_bit(status), time_bit(lf_fence_timestamp(n->f)) };
	must((said.status & n->outcome.status) != 0 && (said.time & n->outcome.time) != 0 && is_of_one(n, said));
	n->outcome = said;
}

static void check_callbacks(void)
{
	for (unsigned i = 0; i < CALLBACKS; i++) {
		const struct callback *c = &w.callback[i];
		must(c->state != ADDED || !w.node[c->node].signaled);
	}
}

static void see_leaves(unsigned i);

static void check_leaf(const struct node *n)
{
	must(n->enables <= n->asked);
	must(n->timeline < 0 || n->detaches == n->signaled);
}

/* After each operation. Members are older than what they are in. */
static void check_all(void)
{
	for (unsigned i = 0; i < w.count; i++) {
		struct node *n = &w.node[i];
		if (is_container(n) && !n->signaled)
			compute(n);
		if (n->held != 0)
			compare(n);
		if (!is_container(n))
			check_leaf(n);
	}
	check_callbacks();
	for (unsigned a = 0; a < w.asked_count; a++) {
		see_leaves(w.asked_from[a]);
		for (unsigned i = 0; i < w.count; i++)
			must(!w.node[i].seen || is_container(&w.node[i]) || w.node[i].timeline < 0 || w.node[i].enables == 1);
	}
	fuzz_progress->checks++;
}

/* --- Walks in the model ------------------------------------------------------------------------------------------------------ */

/* What a walk over pending leaves finds. */
struct walked {
	uint8_t leaf[NODES];
	unsigned count;
	bool keep_any;
	struct together completed;
};

static void unsee(void)
{
	for (unsigned i = 0; i < w.count; i++)
		w.node[i].seen = false;
}

static void visit(struct walked *walked, unsigned i, bool root)
{
	struct node *n = &w.node[i];
	bool leaf = !is_container(n) || (walked->keep_any && n->sort == IS_ANY);
	if (n->signaled)
		take(&walked->completed, &n->outcome);
	if ((n->signaled && !(root && leaf)) || n->seen)
		return;
	n->seen = true;
	if (leaf) {
		walked->leaf[walked->count++] = (uint8_t)i;
		return;
	}
	struct outcome completed = so_far(n);
	for (unsigned k = 0; k < n->count; k++) {
		/* the result of a link stands between what comes before it and its fence */
		if (k == (n->sort == IS_LINK ? 1 : 0))
			take(&walked->completed, &completed);
		if (n->member[k] != NONE && !w.node[n->member[k]].signaled)
			visit(walked, n->member[k], false);
	}
}

/* Marks the pending leaves of a node, and the containers between. */
static void see_leaves(unsigned i)
{
	struct walked walked = { .count = 0 };
	unsee();
	visit(&walked, i, false);
}

/* Of an ordered context the newest leaf stands for all. */
static void keep_newest(struct walked *walked)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < walked->count; i++) {
		const struct node *n = &w.node[walked->leaf[i]];
		unsigned k = 0;
		while (k < kept && !(n->ordered && w.node[walked->leaf[k]].ordered && w.node[walked->leaf[k]].context == n->context))
			k++;
		if (k == kept)
			walked->leaf[kept++] = walked->leaf[i];
		else if (n->seqno > w.node[walked->leaf[k]].seqno)
			walked->leaf[k] = walked->leaf[i];
	}
	walked->count = kept;
}

/* --- Signals ----------------------------------------------------------------------------------------------------------------- */

static void flag(struct node *n, int status, int64_t time)
{
	if (n->signaled)
		return;
	n->signaled = true;
	n->step = w.step;
	n->outcome = (struct outcome){ status_bit(status), time_bit(time) };
}

/* All up to a seqno, of an ordered timeline in the order of time. Returns how many. */
static size_t flag_up_to(int t, uint64_t seqno, int status, int64_t time)
{
	size_t count = 0;
	for (unsigned i = 0; i < w.count; i++)
		count += w.node[i].timeline == t && !w.node[i].signaled && w.node[i].seqno <= seqno;
	if (count == 0)
		return 0;
	if (t != UNORDERED && time < w.tl[t].last_time)
		time = w.tl[t].last_time;
	if (t != UNORDERED)
		w.tl[t].last_time = time;
	for (unsigned i = 0; i < w.count; i++) {
		if (w.node[i].timeline == t && w.node[i].seqno <= seqno)
			flag(&w.node[i], status, time);
	}
	return count;
}

static int some_status(uint8_t byte)
{
	return byte % 3 == 0 ? -(1 + byte / 3 % ERRORS) : 1;
}

static int error_of(int status)
{
	return status == 1 ? 0 : status;
}

/* A pending leaf that the program has, or none. */
static uint8_t some_pending_leaf(uint8_t byte)
{
	for (unsigned i = 0, at = byte % w.count; i < w.count; i++, at = (at + 1) % w.count) {
		if (w.node[at].held != 0 && !is_container(&w.node[at]) && !w.node[at].signaled)
			return (uint8_t)at;
	}
	return NONE;
}

/* May be called inside a callback. */
static void signal_leaf(uint8_t i, int status, int64_t time)
{
	if (i == NONE)
		return;
	struct node *n = &w.node[i];
	int t = n->timeline;
	long calls = alloc_calls();
	if (t < 0) {
		flag(n, status, time);
		must(lf_fence_signal_at(n->f, error_of(status), time));
	} else if (t != UNORDERED) {
		size_t count = flag_up_to(t, n->seqno, status, time);
		must(lf_timeline_signal_to_at(w.tl[t].tl, n->seqno, error_of(status), time) == count);
	} else {
		flag(n, status, w.now);
		must(lf_timeline_signal_one(w.tl[t].tl, n->f, error_of(status)));
	}
	must(alloc_calls() == calls);
}

static void do_signal(void)
{
	signal_leaf(some_pending_leaf(w.op.which[0]), some_status(w.op.detail), w.op.n % TIMES);
}

static void do_ready(void)
{
	uint8_t i = some_pending_leaf(w.op.which[0]);
	if (i != NONE)
		w.node[i].ready = some_status(w.op.detail);
}

static void do_lose(void)
{
	int t = w.op.n % TIMELINES;
	if (w.op.how % 4 != 0)
		return;
	if (w.tl[t].lost == 0)
		w.tl[t].lost = -(1 + w.op.detail % ERRORS);
	size_t count = flag_up_to(t, UINT64_MAX, w.tl[t].lost, w.now);
	must(lf_timeline_lose(w.tl[t].tl, w.tl[t].lost) == count);
}

/* --- Hooks ------------------------------------------------------------------------------------------------------------------- */

/* What a leaf says when it is asked. */
static int answer(struct node *n)
{
	int t = n->timeline;
	must(!n->signaled && n->detaches == 0 && !lf_read_held());
	if (n->ready == 0)
		return 0;
	if (t != UNORDERED)
		flag_up_to(t, n->seqno, n->ready, w.now);
	else
		flag(n, n->ready, w.now);
	hit(POLLED, 1);
	return n->ready;
}

static int on_enable(struct lf_fence *f, void *data)
{
	struct node *n = &w.node[node_of(f)];
	must(data == &w.tl[n->timeline]);
	n->enables++;
	hit(ARMED, 1);
	return answer(n);
}

static int on_poll(struct lf_fence *f, void *data)
{
	return answer(&w.node[node_of(f)]);
}

static void on_deadline(struct lf_fence *f, int64_t deadline, void *data)
{
	w.node[node_of(f)].hint = deadline;
}

static void on_detach(struct lf_fence *f, void *data)
{
	struct node *n = &w.node[node_of(f)];
	must(lf_fence_is_signaled(f) && data == &w.tl[n->timeline]);
	n->detaches++;
}

static void on_release(void *data)
{
	((struct timeline *)data)->released++;
}

static const struct lf_fence_ops ops = { .enable = on_enable, .poll = on_poll, .set_deadline = on_deadline, .detach = on_detach };

/* --- Making ------------------------------------------------------------------------------------------------------------------ */

/* The place of the next node, of which there is one. */
static struct node *new_node(enum sort sort)
{
	struct node *n = &w.node[w.count];
	memset(n, 0, sizeof(*n));
	n->sort = sort;
	n->made = w.step;
	n->timeline = -1;
	return n;
}

static void made(struct node *n)
{
	n->held = 1;
	n->context = lf_fence_context(n->f);
	n->seqno = lf_fence_seqno(n->f);
	n->ordered = n->sort == IS_LINK || (n->timeline >= 0 && n->timeline != UNORDERED);
	w.count++;
}

/* Emitted on a lost timeline it is signaled, with a time that may be that of an earlier one. */
static void emit(struct node *n, int t)
{
	struct timeline *tl = &w.tl[t];
	uint64_t last = lf_timeline_last_seqno(tl->tl), seqno = last + 1 + w.op.n % 3;
	struct lf_fence *f = lf_alloc(sizeof(*f));
	must(f != NULL && lf_fence_init(f, 0) == 0);
	n->f = f;
	n->timeline = t;
	n->seqno = seqno;
	w.count++; /* hooks look for it */
	must(lf_timeline_emit_fence(tl->tl, seqno, f) == 0);
	if (tl->lost != 0)
		flag_up_to(t, seqno, tl->lost, w.now);
	w.count--;
	tl->emitted++;
}

static void do_leaf(void)
{
	struct node *n = new_node(IS_LEAF);
	int status = some_status(w.op.detail), how = w.op.how % 16;
	if (how < TIMELINES * 2) {
		emit(n, how % TIMELINES);
	} else if (how == 8) {
		must(lf_fence_create_signaled(error_of(status), w.op.n % TIMES, &n->f) == 0);
		flag(n, status, w.op.n % TIMES);
		n->step = 0;
	} else {
		must(lf_fence_create(&n->f) == 0);
	}
	made(n);
}

/* Takes references for a container to consume. */
static void choose_members(struct node *n, struct lf_fence **members, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		n->member[i] = some_member((uint8_t)(w.op.which[i % 3] + 37 * (i / 3)));
		members[i] = lf_fence_get(w.node[n->member[i]].f);
	}
	n->count = (uint8_t)count;
}

static void put_members(struct lf_fence **members, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		lf_fence_put(members[i]);
}

static void make_array(bool any)
{
	struct node *n = new_node(any ? IS_ANY : IS_ALL);
	struct lf_fence *members[MEMBERS];
	struct lf_array_room *room = NULL;
	unsigned count = w.op.n % MEMBERS, flags = any ? LF_ARRAY_ANY : LF_ARRAY_ALL;
	if (any && count == 0)
		count = 2;
	choose_members(n, members, count);
	fail_allocation(3);
	bool ok;
	if (w.op.how % 4 == 0) {
		ok = done(lf_array_prepare(count + w.op.how / 4 % 3, &room));
		long calls = alloc_calls();
		n->f = ok ? lf_array_commit(room, members, count, flags) : NULL;
		must(alloc_calls() == calls && ok == (n->f != NULL));
	} else {
		ok = done(lf_array_create(members, count, flags, &n->f));
	}
	if (ok)
		made(n);
	else
		put_members(members, count);
}

static void do_all(void)
{
	make_array(false);
}

static void do_any(void)
{
	make_array(true);
}

/* The context of a link is that of the link it follows, unless that was followed before; else a new one. */
static void check_context(const struct node *n, uint8_t prev)
{
	struct node *before = prev == NONE || w.node[prev].sort != IS_LINK ? NULL : &w.node[prev];
	bool same = before != NULL && !before->followed;
	must(!same || n->context == before->context);
	for (unsigned i = 0; i < w.count - 1 && !same; i++)
		must(w.node[i].context != n->context);
	if (before != NULL)
		before->followed = true;
}

static void do_link(void)
{
	struct node *n = new_node(IS_LINK);
	uint8_t prev = w.op.how % 8 == 0 ? NONE : some_node(w.op.which[0]), fence = some_member(w.op.which[1]);
	/* mostly on a link, so that chains grow */
	for (unsigned i = w.count; prev != NONE && w.op.how % 4 != 1 && w.node[prev].sort != IS_LINK && i-- != 0;)
		prev = w.node[i].sort == IS_LINK && w.node[i].held != 0 ? (uint8_t)i : prev;
	struct lf_fence *members[2] = { prev == NONE ? NULL : lf_fence_get(w.node[prev].f), lf_fence_get(w.node[fence].f) };
	uint64_t last = prev != NONE && w.node[prev].sort == IS_LINK ? w.node[prev].seqno : 0;
	n->member[0] = prev;
	n->member[1] = fence;
	n->count = 2;
	fail_allocation(2);
	if (done(lf_chain_append(members[0], members[1], last + 1 + w.op.n % 4, LF_CHAIN_JOIN, &n->f))) {
		made(n);
		must(n->seqno == last + 1 + w.op.n % 4);
		check_context(n, prev);
	} else {
		put_members(members, 2);
	}
}

/* --- Merging ----------------------------------------------------------------------------------------------------------------- */

/* A fence that was there already: one more reference of the program. */
static void held_again(uint8_t i)
{
	w.node[i].held++;
}

/* Nothing is left: the stub, or a signaled fence with what completed. */
static void merged_none(struct lf_fence *f, struct outcome o, bool completed)
{
	struct outcome said = { status_bit(lf_fence_status(f)), time_bit(lf_fence_timestamp(f)) };
	hit(MERGED_NONE, 1);
	must(completed ? (o.status & said.status) && (o.time & said.time) : f == lf_fence_stub());
	must((f == lf_fence_stub()) == (said.status == success && said.time == time_bit(0)));
	if (f == lf_fence_stub())
		return;
	struct node *n = new_node(IS_LEAF);
	n->f = f;
	flag(n, lf_fence_status(f), lf_fence_timestamp(f));
	n->step = 0;
	made(n);
}

/* Several, or one and an error: an array, which begins with what completed. */
static void merged_array(struct lf_fence *f, const struct walked *walked, struct outcome o)
{
	struct node *n = new_node(IS_ALL);
	must(lf_fence_is_array(f) && walked->count <= sizeof(n->member));
	n->f = f;
	memcpy(n->member, walked->leaf, walked->count);
	n->count = (uint8_t)walked->count;
	n->outcome = walked->completed.any ? o : (struct outcome){ 0 };
	made(n);
	hit(MERGED_ARRAY, 1);
}

static void check_merged(struct lf_fence *f, struct walked *walked)
{
	struct outcome o = outcome_of(&walked->completed);
	keep_newest(walked);
	if (walked->count == 0) {
		merged_none(f, o, walked->completed.any);
	} else if (walked->count == 1 && (o.status & success) && f == w.node[walked->leaf[0]].f) {
		held_again(walked->leaf[0]);
		hit(MERGED_ONE, 1);
	} else {
		must(walked->count != 1 || (o.status & ~success) != 0);
		merged_array(f, walked, o);
	}
}

static void merge(const uint8_t *nodes, unsigned count, bool flatten)
{
	struct walked walked = { .keep_any = true };
	struct lf_fence *fences[MEMBERS], *f = NULL;
	unsee();
	for (unsigned i = 0; i < count; i++) {
		fences[i] = nodes[i] == NONE ? NULL : w.node[nodes[i]].f;
		/* what is signaled is no leaf here, not even of a root */
		if (nodes[i] != NONE)
			visit(&walked, nodes[i], false);
	}
	if (walked.count > sizeof(w.node[0].member))
		return;
	fail_allocation(6);
	if (done(flatten ? lf_fence_flatten(fences[0], &f) : lf_fence_merge(fences, count, &f)))
		check_merged(f, &walked);
}

static void do_merge(void)
{
	uint8_t nodes[MEMBERS];
	unsigned count = w.op.n % 5;
	for (unsigned i = 0; i < count; i++)
		nodes[i] = (w.op.how >> i & 3) == 3 ? NONE : some_member((uint8_t)(w.op.which[i % 3] + 37 * (i / 3)));
	merge(nodes, count, false);
}

static void do_flatten(void)
{
	uint8_t node = some_node(w.op.which[0]);
	merge(&node, 1, true);
}

/* --- Callbacks --------------------------------------------------------------------------------------------------------------- */

static void drop(uint8_t i);

/* What waits for a node arms its leaves. */
static void ask(uint8_t i)
{
	struct walked walked = { .count = 0 };
	unsee();
	visit(&walked, i, false);
	for (unsigned k = 0; k < walked.count; k++)
		w.node[walked.leaf[k]].asked = true;
	if (w.asked_count < CALLBACKS)
		w.asked_from[w.asked_count++] = i;
}

static void remove_callback(struct callback *c, bool sync)
{
	struct lf_fence *f = w.node[c->node].f;
	int result = sync ? lf_fence_cancel_callback_sync(f, &c->cb) : lf_fence_remove_callback(f, &c->cb);
	must(result == (c->state == ADDED ? LF_CB_REMOVED : LF_CB_RAN));
	c->state = IDLE;
}

static void on_callback(struct lf_fence *f, struct lf_fence_cb *cb);

/* May be called inside a callback, where the model does not know yet what is signaled. */
static void add_callback(struct callback *c, uint8_t i)
{
	struct node *n = &w.node[i];
	bool pending = !lf_fence_is_signaled(n->f);
	c->node = i;
	c->action = w.op.detail;
	c->other = w.op.which[1];
	c->number = ++w.added;
	if (pending)
		ask(i);
	c->state = ADDING;
	n->busy++;
	int error = lf_fence_add_callback(n->f, &c->cb, on_callback);
	must(error == 0 || (error == -ENOENT && lf_fence_is_signaled(n->f) && c->state == ADDING));
	must(pending || error == -ENOENT);
	n->busy--;
	if (c->state == ADDING)
		c->state = error == 0 ? ADDED : IDLE;
}

static struct callback *idle_callback(void)
{
	for (unsigned i = 0; i < CALLBACKS; i++) {
		if (w.callback[i].state == IDLE || w.callback[i].state == HAS_RAN)
			return &w.callback[i];
	}
	return NULL;
}

static void act(struct callback *c)
{
	struct callback *other = &w.callback[c->other % CALLBACKS], *idle = idle_callback();
	uint8_t node = some_node(c->other);
	switch (c->action % 12) {
	case 0:
	case 1:
		signal_leaf(some_pending_leaf(c->other), some_status(c->action / 12), w.now);
		break;
	case 2:
		if (w.node[c->node].held != 0 && w.node[c->node].busy == 0)
			drop(c->node);
		break;
	case 3:
		if (idle != NULL && idle != c && node != 0)
			add_callback(idle, node);
		break;
	case 4:
		if (other->state == ADDED)
			remove_callback(other, false);
		break;
	case 5:
		if (node != 0 && w.node[node].busy == 0)
			drop(node);
		break;
	default:
		return;
	}
	hit(INSIDE, 1);
}

static void on_callback(struct lf_fence *f, struct lf_fence_cb *cb)
{
	struct callback *c = (struct callback *)(void *)cb;
	must((c->state == ADDED || c->state == ADDING) && f == w.node[c->node].f && !lf_read_held());
	must(lf_fence_is_signaled(f) && !lf_fence_is_drained(f));
	for (unsigned i = 0; i < CALLBACKS; i++)
		must(w.callback[i].state != ADDED || w.callback[i].node != c->node || w.callback[i].number >= c->number);
	must(lf_fence_remove_callback(f, cb) == LF_CB_RUNNING);
	c->state = HAS_RAN;
	hit(RAN, 1);
	act(c);
}

static void do_add(void)
{
	struct callback *c = idle_callback();
	uint8_t i = some_node(w.op.which[0]);
	if (c != NULL)
		add_callback(c, i);
}

static void do_remove(void)
{
	struct callback *c = &w.callback[w.op.n % CALLBACKS];
	for (unsigned i = 0; i < CALLBACKS && c->state != ADDED; i++)
		c = &w.callback[(w.op.n + i) % CALLBACKS];
	if (c->state == ADDED || (c->state == HAS_RAN && w.node[c->node].held != 0))
		remove_callback(c, w.op.how % 2);
}

/* --- Asking and waiting ------------------------------------------------------------------------------------------------------ */

static void do_check(void)
{
	struct walked walked = { .count = 0 };
	uint8_t i = some_node(w.op.which[0]);
	unsee();
	visit(&walked, i, false);
	w.node[i].busy++;
	int status = lf_fence_check(w.node[i].f);
	must(status == lf_fence_status(w.node[i].f));
	w.node[i].busy--;
	for (unsigned k = 0; k < walked.count; k++) {
		const struct node *n = &w.node[walked.leaf[k]];
		must(n->signaled || n->timeline < 0 || n->ready == 0);
	}
}

static void do_wait(void)
{
	uint8_t i = some_node(w.op.which[0]);
	ask(i);
	w.node[i].busy++;
	int result = lf_fence_wait(w.node[i].f, 0);
	must(result == (lf_fence_is_signaled(w.node[i].f) ? 0 : -ETIME));
	w.node[i].busy--;
}

static void do_wait_many(void)
{
	struct lf_fence *fences[4];
	struct lf_wait_slot slots[4];
	uint8_t nodes[4];
	size_t count = w.op.n % 5, need = count == 0 ? 0 : w.op.how % (count + 1), signaled = 0, first = SIZE_MAX, said = SIZE_MAX;
	bool before = true;
	for (size_t i = 0; i < count; i++) {
		nodes[i] = some_node((uint8_t)(w.op.which[i % 3] + 11 * i));
		w.node[nodes[i]].busy++;
		fences[i] = w.node[nodes[i]].f;
		signaled += lf_fence_is_signaled(fences[i]);
	}
	before = signaled >= need;
	for (size_t i = 0; i < count && !before; i++)
		ask(nodes[i]);
	int result = lf_fence_wait_many(&(struct lf_wait_many){ fences, slots, count, need, 0 }, &said);
	signaled = 0;
	for (size_t i = 0; i < count; i++) {
		signaled += lf_fence_is_signaled(fences[i]);
		first = first == SIZE_MAX && signaled != 0 ? i : first;
		w.node[nodes[i]].busy--;
	}
	must(result == (signaled >= need ? 0 : -ETIME));
	must(said == (result == 0 && need != 0 ? first : SIZE_MAX));
	/* it stops arming once it has enough */
	w.asked_count = result == 0 ? 0 : w.asked_count;
}

static void do_hint(void)
{
	struct walked walked = { .count = 0 };
	uint8_t i = some_node(w.op.which[0]);
	int64_t deadline = 1000 + w.step;
	unsee();
	visit(&walked, i, false);
	lf_fence_set_deadline(w.node[i].f, deadline);
	for (unsigned k = 0; k < walked.count; k++)
		must(w.node[walked.leaf[k]].timeline < 0 || w.node[walked.leaf[k]].hint == deadline);
}

static void do_describe(void)
{
	char text[400];
	const struct node *n = &w.node[some_node(w.op.which[0])];
	int length = lf_fence_describe(n->f, text, sizeof(text));
	must(length > 0 && (size_t)length == strlen(text));
	must(lf_fence_is_container(n->f) == is_container(n) && lf_fence_is_chain(n->f) == (n->sort == IS_LINK));
	must(lf_fence_is_array(n->f) == (n->sort == IS_ALL || n->sort == IS_ANY));
}

/* --- Walking and finding ----------------------------------------------------------------------------------------------------- */

static void do_walk(void)
{
	struct walked walked = { .keep_any = w.op.how % 2 };
	struct lf_unwrap unwrap;
	uint8_t i = some_node(w.op.which[0]);
	unsee();
	visit(&walked, i, true);
	fail_allocation(4);
	if (!done(lf_unwrap_begin(&unwrap, w.node[i].f, walked.keep_any ? LF_UNWRAP_KEEP_ANY : 0)))
		return;
	must(unwrap.count == walked.count);
	for (unsigned k = 0; k < walked.count; k++)
		must(lf_unwrap_next(&unwrap) == w.node[walked.leaf[k]].f);
	must(lf_unwrap_next(&unwrap) == NULL);
	lf_unwrap_end(&unwrap);
}

/* A link that the program has, or none. */
static uint8_t some_link(uint8_t byte)
{
	for (unsigned i = 0, at = byte % w.count; i < w.count; i++, at = at == 0 ? w.count - 1 : at - 1) {
		if (w.node[at].held != 0 && w.node[at].sort == IS_LINK)
			return (uint8_t)at;
	}
	return NONE;
}

/* The first link that is not before the point, from one that is not. */
static const struct node *find(const struct node *n, uint64_t seqno)
{
	for (;;) {
		const struct node *prev = n->member[0] == NONE ? NULL : &w.node[n->member[0]];
		if (prev == NULL || prev->sort != IS_LINK || prev->seqno < seqno)
			return n;
		n = prev;
	}
}

static void do_find(void)
{
	uint8_t i = some_link(w.op.which[0]);
	struct lf_fence *f = NULL;
	if (i == NONE)
		return;
	const struct node *link = &w.node[i];
	uint64_t seqno = (w.op.n | (uint64_t)w.op.detail << 8) % (link->seqno + 3);
	int error = lf_chain_find_seqno(link->f, seqno, &f);
	must(error == (seqno > link->seqno ? -ENOENT : 0));
	if (error != 0)
		return;
	const struct node *n = find(link, seqno);
	if (seqno == 0 || f == lf_fence_stub())
		must(f == lf_fence_stub() && (seqno == 0 || n->signaled));
	else
		must(f == n->f);
	hit(f == lf_fence_stub() ? FOUND_GONE : FOUND, 1);
	lf_fence_put(f);
}

static void do_parts(void)
{
	uint8_t i = some_link(w.op.which[0]);
	if (i == NONE)
		return;
	struct lf_fence *part[2] = { lf_chain_get_prev(w.node[i].f), lf_chain_get_fence(w.node[i].f) };
	for (unsigned k = 0; k < 2; k++) {
		uint8_t m = w.node[i].member[k];
		must(part[k] == (m == NONE || w.node[m].signaled ? NULL : w.node[m].f));
		lf_fence_put(part[k]);
	}
}

/* --- Letting go -------------------------------------------------------------------------------------------------------------- */

/* What is put while it is pending must have no callbacks. May be called inside a callback. */
static void drop(uint8_t i)
{
	struct node *n = &w.node[i];
	for (unsigned k = 0; k < CALLBACKS && n->held == 1; k++) {
		if (w.callback[k].state == ADDED && w.callback[k].node == i && !lf_fence_is_signaled(n->f))
			remove_callback(&w.callback[k], false);
	}
	n->held--;
	long calls = alloc_calls();
	lf_fence_put(n->f);
	must(alloc_calls() == calls);
}

static void do_drop(void)
{
	uint8_t i = some_node(w.op.which[0]);
	if (i != 0)
		drop(i);
}

/* Whether somebody needs it: the program, its timeline, or a pending container that somebody needs. */
static bool is_alive(unsigned i)
{
	const struct node *n = &w.node[i];
	bool alive = n->held != 0 || (n->timeline >= 0 && !n->signaled);
	for (unsigned c = i + 1; c < w.count && !alive && !n->signaled; c++) {
		for (unsigned k = 0; k < w.node[c].count && !alive && !w.node[c].signaled; k++)
			alive = w.node[c].member[k] == i && is_alive(c);
	}
	return alive;
}

/* A pending link may keep a signaled one that it would jump to; a timeline has memory for what is pending. */
static void do_count(void)
{
	long least = 0, most = 0;
	must(lf_reclaim_barrier() == 0);
	for (unsigned i = 1; i < w.count; i++) {
		bool alive = is_alive(i);
		least += alive;
		most += alive + (alive && w.node[i].sort == IS_LINK && !w.node[i].signaled);
	}
	for (unsigned t = 0; t < TIMELINES; t++)
		most += w.tl[t].emitted != 0;
	long live = alloc_live() - live_at_start - live_timelines;
	must(live >= least && live <= most);
}

static void do_misuse(void)
{
	struct lf_fence *f = NULL, *none = NULL;
	uint8_t i = some_link(w.op.which[0]);
	switch (w.op.n % 4) {
	case 0:
		must(lf_array_create(&none, 1, LF_ARRAY_ALL, &f) == -EINVAL);
		break;
	case 1:
		must(lf_array_create(NULL, 0, LF_ARRAY_ANY, &f) == -EINVAL);
		break;
	default:
		if (i == NONE)
			return;
		if (w.op.n % 4 == 2)
			must(lf_chain_append(w.node[i].f, w.node[0].f, w.node[i].seqno, 0, &f) == -EINVAL);
		else
			must(lf_chain_append(NULL, w.node[i].f, 1, 0, &f) == -EINVAL);
		break;
	}
	must(f == NULL && log_count(LF_LOG_MISUSE) != 0);
	log_reset();
}

/* --- The beginning and the end of a world ------------------------------------------------------------------------------------ */

static void start_world(void)
{
	memset(&w, 0, offsetof(typeof(w), op));
	w.step = 1;
	for (int t = 0; t < TIMELINES; t++) {
		struct lf_timeline_desc desc = { .name = "fuzz",
			.flags = t == UNORDERED ? LF_TIMELINE_UNORDERED : LF_TIMELINE_ORDERED,
			.ops = &ops,
			.data = &w.tl[t],
			.release = on_release };
		must(lf_timeline_create(&desc, &w.tl[t].tl) == 0);
	}
	struct node *stub = new_node(IS_LEAF);
	stub->f = lf_fence_stub();
	flag(stub, 1, 0);
	stub->step = 0;
	made(stub);
	clock_set(0);
	hit(WORLDS, 1);
}

static void end_timeline(int t)
{
	flag_up_to(t, UINT64_MAX, -ECANCELED, w.now);
	lf_timeline_put(w.tl[t].tl);
	must(w.tl[t].released == 1);
	w.tl[t].tl = NULL;
}

static unsigned held_nodes(void)
{
	unsigned held = 0;
	for (unsigned i = 1; i < w.count; i++)
		held += w.node[i].held;
	return held;
}

/* In a random order; some leaves are signaled on the way. */
static void end_world(void)
{
	int next_timeline = 0;
	for (unsigned i = 0; i < CALLBACKS; i++)
		w.callback[i].action = 255; /* nothing */
	while (next_timeline < TIMELINES || held_nodes() != 0) {
		uint8_t byte = (uint8_t)random_next(&w.random), i = some_node(byte);
		w.step++;
		w.asked_count = 0;
		if (next_timeline < TIMELINES && byte % 16 == 0)
			end_timeline(next_timeline++);
		else if (byte % 4 == 1 && next_timeline == 0)
			signal_leaf(some_pending_leaf(byte), some_status(byte), byte % TIMES);
		else if (i != 0)
			drop(i);
		check_all();
	}
	must(log_count(LF_LOG_MISUSE) == 0);
}

static void (*const actions[KINDS])(void) = {
	[LEAF] = do_leaf,
	[ALL] = do_all,
	[ANY] = do_any,
	[LINK] = do_link,
	[MERGE] = do_merge,
	[FLATTEN] = do_flatten,
	[SIGNAL] = do_signal,
	[READY] = do_ready,
	[LOSE] = do_lose,
	[ADD] = do_add,
	[REMOVE] = do_remove,
	[CHECK] = do_check,
	[WAIT] = do_wait,
	[WAIT_MANY] = do_wait_many,
	[HINT] = do_hint,
	[WALK] = do_walk,
	[FIND] = do_find,
	[PARTS] = do_parts,
	[DROP] = do_drop,
	[COUNT] = do_count,
	[DESCRIBE] = do_describe,
	[MISUSE] = do_misuse,
};

static void step(const uint8_t *bytes)
{
	if (w.count == NODES) {
		end_world();
		start_world();
	}
	w.op = to_op(bytes);
	w.log[fuzz_progress->steps % LOG] = w.op;
	w.step++;
	w.asked_count = 0;
	w.now = (w.now + w.op.how % 2) % TIMES;
	clock_set(w.now);
	actions[w.op.kind]();
	check_all();
	must(log_count(LF_LOG_MISUSE) == 0);
	fuzz_progress->count[w.op.kind]++;
	fuzz_progress->ops++;
	fuzz_progress->steps++;
}

static void run(const uint8_t *data, size_t size)
{
	fuzz_progress->steps = 0;
	if (size < FUZZ_HEAD)
		return;
	memcpy(&w.random, data + 8, sizeof(w.random));
	w.random |= 1;
	start_world();
	for (size_t at = FUZZ_HEAD; at + FUZZ_OP <= size; at += FUZZ_OP)
		step(data + at);
	end_world();
}

static void settle(void)
{
	must(lf_reclaim_barrier() == 0);
	must(alloc_live() == live_at_start);
}

static void start(void)
{
	static const uint8_t nothing[FUZZ_HEAD];
	alloc_install();
	log_capture();
	/* what the library sets up with its first use stays */
	struct lf_deferred *node = lf_alloc(sizeof(*node));
	must(node != NULL);
	lf_defer_free(node, node);
	run(nothing, sizeof(nothing));
	must(lf_reclaim_barrier() == 0);
	live_at_start = alloc_live();
	start_world();
	live_timelines = alloc_live() - live_at_start;
	end_world();
}

/* --- For people -------------------------------------------------------------------------------------------------------------- */

static void dump_node(FILE *file, unsigned i)
{
	static const char *const sorts[] = { "leaf", "all", "any", "link" };
	const struct node *n = &w.node[i];
	fprintf(file, "%4u  %s", i, sorts[n->sort]);
	if (n->timeline >= 0)
		fprintf(file, " of timeline %d", n->timeline);
	if (n->seqno != 0)
		fprintf(file, ", seqno %llu", (unsigned long long)n->seqno);
	for (unsigned k = 0; k < n->count; k++) {
		if (n->member[k] != NONE)
			fprintf(file, "%s %u", k == 0 ? " of" : ",", n->member[k]);
	}
	fprintf(file, ", %s%s", n->signaled ? "signaled" : "pending", n->held ? "" : ", put");
	if (n->held)
		fprintf(file, "; the library says: %d at %lld", lf_fence_status(n->f), (long long)lf_fence_timestamp(n->f));
	fprintf(file, "\n");
}

static void dump(FILE *file)
{
	uint64_t last = fuzz_progress->steps, first = last < LOG ? 0 : last - LOG + 1;
	for (uint64_t i = first; i <= last; i++) {
		const struct op *op = &w.log[i % LOG];
		fprintf(file, "%6llu  %-9s %u %u %u, n %u, how %u, detail %u%s\n", (unsigned long long)i, kinds[op->kind], op->which[0],
			op->which[1], op->which[2], op->n, op->how, op->detail, i == last ? "  <-- here" : "");
	}
	for (unsigned i = 1; i < w.count; i++)
		dump_node(file, i);
	fflush(file);
}

const struct fuzz_target fuzz_target = {
	.ops = 150000,
	.kinds = kinds,
	.hits = hits,
	.checks = "graphs compared",
	.start = start,
	.run = run,
	.settle = settle,
	.dump = dump,
};
