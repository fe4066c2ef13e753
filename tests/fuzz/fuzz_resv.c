/* SPDX-License-Identifier: MIT */
/*
 * Reservations beside a naive model of them.
 *
 * A program makes fences of all kinds (alone, of timelines that keep order and of such that do not, arrays, links of chains) and
 * signals them in any order; it locks two reservations, reserves, adds, replaces and copies in them; and it asks them, holds snapshots of
 * them and arms notices over them. The model of a reservation is an array of what was added, in order, and of a fence a flag.
 *
 * Oracle:
 * - a list is what was added to it, in order. Only reserving, replacing and copying may leave anything out, and then it is exactly what is
 *   signaled, or what a newer fence of an ordered context stands for in the same or a stronger usage;
 * - each fence that is found is the one that was made, alive, and as far as the model says;
 * - what is asked (test, wait, fences, singleton, cursors, text) is answered from that list;
 * - what was reserved is there: adds and replaces allocate nothing and cannot fail; two reservations add up; an error changes nothing;
 * - a snapshot stays as it was, whatever becomes of the reservation;
 * - a notice fires once, when the last fence that it was armed over is signaled, and not after a cancel;
 * - the generation counts the changes;
 * - in the end no memory is left.
 */
#include "fuzz.h"

#include <sys/eventfd.h>

enum { RESVS = 2, ORDERED = 3, TIMELINES = 5, CHAINS = 2, SNAPSHOTS = 6, NOTICES = 6, JOINED = 4, MEMBERS = 3 };
enum { LIST = 256, FENCES = 2000, LOG = 40 };

/* --- Programs ---------------------------------------------------------------------------------------------------------------- */

enum kind {
	MAKE, /* a fence */
	SIGNAL, /* one, or all up to one */
	DROP, /* the program's reference on one */
	LOSE, /* a timeline */
	LOCK,
	UNLOCK,
	RESERVE,
	ADD,
	ADD_MANY,
	RESERVE_REPLACE,
	REPLACE,
	COPY,
	ASK,
	GET_FENCES,
	SINGLETON,
	SNAPSHOT,
	LOOK_BACK, /* at a snapshot */
	PUT_SNAPSHOT,
	ARM,
	ARM_SNAPSHOT,
	CANCEL,
	RENEW, /* the reservation */
	MISUSE,
	KINDS
};

static const char *const kinds[] = { "make", "signal", "drop", "lose", "lock", "unlock", "reserve", "add", "add_many", "reserve_replace",
	"replace", "copy", "ask", "get_fences", "singleton", "snapshot", "look_back", "put_snapshot", "arm", "arm_snapshot", "cancel",
	"renew", "misuse", NULL };

enum hit { NO_MEMORY, COMPACTED, LEFT_OUT, COVERED, REPLACED, FIRED, CANCELLED, ARMED_INSIDE, NOTHING_PENDING };

static const char *const hits[] = { "without memory", "lists compacted", "left out", "of those stood for by a newer one", "fences replaced",
	"notices fired", "cancelled", "armed inside their function", "not armed since nothing was pending", NULL };

static void hit(enum hit h, uint64_t count)
{
	fuzz_progress->hit[h] += count;
}

/* How often each is meant by a random byte; out of 256. */
static const uint8_t weights[KINDS] = { 42, 26, 10, 1, 12, 8, 22, 26, 14, 6, 12, 4, 12, 5, 6, 8, 7, 4, 12, 4, 8, 2, 5 };

struct op {
	enum kind kind;
	uint8_t fail; /* which allocation fails; mostly none */
	uint16_t which; /* fence */
	uint8_t resv, usage, n, flags;
};

static struct op to_op(const uint8_t *bytes)
{
	struct op op = { .fail = bytes[1],
		.which = (uint16_t)(bytes[2] | bytes[3] << 8),
		.resv = bytes[4] % RESVS,
		.usage = bytes[5] % 4,
		.n = bytes[6],
		.flags = bytes[7] };
	unsigned n = bytes[0], kind = 0;
	while (kind + 1 < KINDS && n >= weights[kind])
		n -= weights[kind++];
	op.kind = (enum kind)kind;
	return op;
}

/* --- The world of a program -------------------------------------------------------------------------------------------------- */

enum sort { ALONE, OF_TIMELINE, ARRAY_ALL, ARRAY_ANY, LINK };

/* A fence that was made. Fence 0 is none. */
struct made {
	struct lf_fence *f;
	enum sort sort;
	unsigned timeline; /* or chain */
	uint64_t context, seqno;
	bool ordered, signaled, held; /* held: the program has a reference */
	uint16_t member[MEMBERS]; /* of a container; 0: none */
};

/* What surrounds a fence that the program made itself. */
struct tagged {
	uint64_t magic;
	struct lf_fence fence;
	uint64_t id;
};

static const uint64_t magic = UINT64_C(0x5eed0f7a96edfe1c);

struct entry {
	uint16_t id;
	uint8_t usage;
};

struct entries {
	struct entry at[LIST];
	unsigned count;
};

struct held_snapshot {
	struct lf_snapshot snapshot;
	struct entries list;
	bool taken;
};

enum notice_state { NEVER, ARMED, FIRED_ONCE };

struct armed {
	struct lf_notice notice; /* first */
	enum notice_state state;
	bool by_event, again; /* again: its function arms it once more */
	unsigned resv, usage;
	struct entries list; /* what was pending */
};

struct joined {
	struct lf_fence *f;
	struct entries list;
};

static struct {
	struct made made[FENCES];
	unsigned count;
	uint16_t held[FENCES]; /* those that the program has references on */
	unsigned held_count;
	struct lf_timeline *tl[TIMELINES];
	bool lost[TIMELINES];
	uint16_t last_link[CHAINS];
	struct lf_resv embedded, *resv[RESVS];
	struct entries list[RESVS];
	bool locked[RESVS], may_compact;
	unsigned reserved[RESVS], spares[RESVS];
	uint64_t generation[RESVS];
	struct held_snapshot snapshot[SNAPSHOTS];
	struct armed armed[NOTICES];
	struct joined joined[JOINED];
	uint64_t events; /* that the eventfd should have */
	struct op op;
	struct op log[LOG];
	uint64_t random;
} w;

static int event_fd;
static long live_at_start;

static bool memory_failed;

static void fail_allocation(unsigned limit)
{
	memory_failed = false;
	alloc_fail_at(w.op.fail < limit ? w.op.fail + 1 : 0);
}

static void fail_no_more(void)
{
	memory_failed = alloc_failed();
	alloc_fail_at(0);
	hit(NO_MEMORY, memory_failed);
}

/* --- Fences ------------------------------------------------------------------------------------------------------------------ */

/* The newest that has this address: an older one would be dead. */
static uint16_t id_of(const struct lf_fence *f)
{
	for (unsigned id = w.count - 1; id != 0; id--) {
		if (w.made[id].f == f)
			return (uint16_t)id;
	}
	must_failed(__FILE__, __LINE__, "a fence of the program");
}

static bool is_own(const struct made *m)
{
	return m->sort == ALONE || m->sort == OF_TIMELINE;
}

static void check_fence(uint16_t id)
{
	const struct made *m = &w.made[id];
	const struct tagged *around = (const struct tagged *)(const void *)((const char *)m->f - offsetof(struct tagged, fence));
	must(!is_own(m) || (around->magic == magic && around->id == id));
	must(lf_fence_is_signaled(m->f) == m->signaled);
	must(lf_fence_context(m->f) == m->context && lf_fence_seqno(m->f) == m->seqno);
	must(lf_fence_is_ordered(m->f) == m->ordered);
}

/* What containers are, from what their members are. Members are older. */
static void settle_containers(void)
{
	for (unsigned id = 1; id < w.count; id++) {
		struct made *m = &w.made[id];
		unsigned members = 0, signaled = 0;
		if (is_own(m))
			continue;
		for (unsigned i = 0; i < MEMBERS; i++) {
			members += m->member[i] != 0;
			signaled += m->member[i] != 0 && w.made[m->member[i]].signaled;
		}
		m->signaled = m->sort == ARRAY_ANY ? signaled != 0 : signaled == members;
	}
}

static uint16_t some_held(uint16_t which)
{
	return w.held_count == 0 ? 0 : w.held[which % w.held_count];
}

static struct lf_fence *make_tagged(void)
{
	struct tagged *around = lf_alloc(sizeof(*around));
	must(around != NULL);
	around->magic = magic;
	around->id = w.count;
	must(lf_fence_init(&around->fence, offsetof(struct tagged, fence)) == 0);
	return &around->fence;
}

static void make_on_timeline(struct made *m, unsigned t)
{
	m->sort = OF_TIMELINE;
	m->timeline = t;
	m->f = make_tagged();
	must(lf_timeline_emit_fence(w.tl[t], w.op.n % 4 == 0 ? lf_timeline_last_seqno(w.tl[t]) + 3 : 0, m->f) == 0);
	m->signaled = w.lost[t];
	m->ordered = t < ORDERED;
}

static void make_array(struct made *m)
{
	struct lf_fence *members[MEMBERS];
	unsigned count = 1 + w.op.n % MEMBERS;
	for (unsigned i = 0; i < count; i++) {
		m->member[i] = some_held((uint16_t)(w.op.which + i * w.op.flags));
		members[i] = lf_fence_get(w.made[m->member[i]].f);
	}
	m->sort = w.op.usage % 2 ? ARRAY_ANY : ARRAY_ALL;
	must(lf_array_create(members, count, m->sort == ARRAY_ANY ? LF_ARRAY_ANY : LF_ARRAY_ALL, &m->f) == 0);
}

/* On the newest link of a chain, if the program still has it. */
static void make_link(struct made *m, unsigned chain)
{
	uint16_t prev = w.made[w.last_link[chain]].held ? w.last_link[chain] : 0;
	m->sort = LINK;
	m->timeline = chain;
	m->ordered = true;
	m->member[0] = prev;
	m->member[1] = some_held(w.op.which);
	must(lf_chain_append(lf_fence_get(w.made[prev].f), lf_fence_get(w.made[m->member[1]].f), w.made[prev].seqno + 1 + w.op.n % 3,
		     LF_CHAIN_JOIN, &m->f) == 0);
	w.last_link[chain] = (uint16_t)w.count;
}

static void do_make(void)
{
	struct made *m = &w.made[w.count];
	unsigned sort = w.op.flags % 12;
	if (w.count == FENCES)
		return;
	memset(m, 0, sizeof(*m));
	if (sort < TIMELINES + 2)
		make_on_timeline(m, sort % TIMELINES);
	else if (sort == 8 && w.held_count != 0)
		make_array(m);
	else if (sort >= 9 && w.held_count != 0)
		make_link(m, w.op.resv % CHAINS);
	else
		m->f = make_tagged();
	m->context = lf_fence_context(m->f);
	m->seqno = lf_fence_seqno(m->f);
	m->held = true;
	w.held[w.held_count++] = (uint16_t)w.count++;
	settle_containers();
	check_fence((uint16_t)(w.count - 1));
}

/* The flags change first: functions of notices that run inside look at them. */
static void flag_timeline(unsigned t, uint64_t seqno)
{
	for (unsigned id = 1; id < w.count; id++) {
		struct made *m = &w.made[id];
		if (m->sort == OF_TIMELINE && m->timeline == t && m->seqno <= seqno)
			m->signaled = true;
	}
	settle_containers();
}

/* Mostly one that is pending. */
static uint16_t some_to_signal(void)
{
	uint16_t id = some_held(w.op.which);
	for (unsigned i = 1; i < w.held_count && w.op.n % 8 != 0 && (w.made[id].signaled || !is_own(&w.made[id])); i++)
		id = some_held((uint16_t)(w.op.which + i));
	return id;
}

static void do_signal(void)
{
	uint16_t id = some_to_signal();
	struct made *m = &w.made[id];
	int error = w.op.n % 4 == 0 ? -EIO : 0;
	bool was = m->signaled;
	if (id == 0 || !is_own(m))
		return;
	m->signaled = true;
	if (m->sort == ALONE) {
		settle_containers();
		must(lf_fence_signal(m->f, error) == !was);
	} else if (m->ordered || w.op.flags % 8 == 0) {
		flag_timeline(m->timeline, m->seqno);
		lf_timeline_signal_to(w.tl[m->timeline], m->seqno, error);
	} else {
		settle_containers();
		must(lf_timeline_signal_one(w.tl[m->timeline], m->f, error) == !was);
	}
}

static void do_lose(void)
{
	unsigned t = w.op.n % TIMELINES;
	if (w.op.flags % 64 != 0)
		return;
	w.lost[t] = true;
	flag_timeline(t, UINT64_MAX);
	lf_timeline_lose(w.tl[t], -ENODEV);
}

static void drop(unsigned at)
{
	struct made *m = &w.made[w.held[at]];
	m->held = false;
	w.held[at] = w.held[--w.held_count];
	lf_fence_put(m->f);
}

/* What is pending and dropped may stay so for ever, and keep notices from firing: so most of it is kept. */
static void do_drop(void)
{
	uint16_t id = some_held(w.op.which);
	if (id != 0 && (w.made[id].signaled || w.op.n % 4 == 0))
		drop(w.op.which % w.held_count);
}

/* --- Lists ------------------------------------------------------------------------------------------------------------------- */

static void note(struct entries *list, const struct lf_fence *f, unsigned usage)
{
	must(list->count < LIST);
	list->at[list->count++] = (struct entry){ id_of(f), (uint8_t)usage };
}

static void collect(struct lf_resv_cursor *cursor, struct entries *list, bool pending)
{
	struct lf_fence *f;
	list->count = 0;
	while ((f = lf_resv_cursor_next(cursor)) != NULL) {
		if (!pending || !lf_fence_is_signaled(f))
			note(list, f, lf_resv_cursor_usage(cursor));
	}
}

/* What the library has in a list. @pending: without what is signaled. */
static void list_of(unsigned r, unsigned usage, bool pending, struct entries *list)
{
	struct lf_resv_cursor cursor;
	lf_read_lock();
	lf_resv_cursor_begin(&cursor, w.resv[r], (enum lf_usage)usage);
	collect(&cursor, list, pending);
	lf_read_unlock();
}

static bool same_entry(struct entry a, struct entry b)
{
	return a.id == b.id && a.usage == b.usage;
}

/* Whether who waits for @a need not wait for @b. */
static bool covers(struct entry a, struct entry b)
{
	const struct made *x = &w.made[a.id], *y = &w.made[b.id];
	bool line = a.id == b.id || (x->ordered && y->ordered && x->context == y->context);
	return line && a.usage <= b.usage && x->seqno >= y->seqno;
}

/* A list without some of what it had. */
static void check_compacted(const struct entries *before, const struct entries *now)
{
	unsigned at = 0;
	for (unsigned i = 0; i < before->count; i++) {
		struct entry e = before->at[i];
		bool covered = false;
		if (at < now->count && same_entry(e, now->at[at])) {
			must(!w.made[e.id].signaled);
			at++;
			continue;
		}
		for (unsigned k = 0; k < now->count; k++)
			covered = covered || covers(now->at[k], e);
		must(w.made[e.id].signaled || covered);
		hit(LEFT_OUT, 1);
		hit(COVERED, !w.made[e.id].signaled);
	}
	must(at == now->count);
	for (unsigned i = 0; i < now->count; i++) {
		for (unsigned k = 0; k < now->count; k++)
			must(i == k || !covers(now->at[k], now->at[i]));
	}
	hit(COMPACTED, 1);
}

static bool same_list(const struct entries *a, const struct entries *b)
{
	bool same = a->count == b->count;
	for (unsigned i = 0; same && i < a->count; i++)
		same = same_entry(a->at[i], b->at[i]);
	return same;
}

static void check_lists(void)
{
	for (unsigned r = 0; r < RESVS; r++) {
		static struct entries now;
		list_of(r, LF_USAGE_BOOKKEEP, false, &now);
		for (unsigned i = 0; i < now.count; i++)
			check_fence(now.at[i].id);
		if (!same_list(&w.list[r], &now)) {
			must(w.may_compact && r == w.op.resv);
			check_compacted(&w.list[r], &now);
			w.list[r] = now;
		}
		must(lf_resv_generation(w.resv[r]) == w.generation[r]);
		fuzz_progress->checks++;
	}
}

static bool is_pending(const struct entries *list, unsigned usage)
{
	for (unsigned i = 0; i < list->count; i++) {
		if (list->at[i].usage <= usage && !w.made[list->at[i].id].signaled)
			return true;
	}
	return false;
}

static void expect_misuse(void)
{
	must(log_count(LF_LOG_MISUSE) == 1);
	log_reset();
}

/* --- Locking, reserving, adding ---------------------------------------------------------------------------------------------- */

static bool lock(unsigned r)
{
	if (!w.locked[r])
		must(lf_resv_lock(w.resv[r], NULL) == 0);
	else
		must(lf_resv_trylock(w.resv[r], NULL) == -EALREADY);
	w.locked[r] = true;
	must(lf_resv_is_locked(w.resv[r]) && lf_resv_is_held(w.resv[r]));
	log_reset(); /* that it holds it already was misuse */
	return w.list[r].count + w.reserved[r] < LIST / 2;
}

static void do_lock(void)
{
	lock(w.op.resv);
}

static void unlock(unsigned r)
{
	if (w.locked[r])
		lf_resv_unlock(w.resv[r]);
	w.locked[r] = false;
	w.reserved[r] = w.spares[r] = 0;
	must(!lf_resv_is_locked(w.resv[r]));
}

static void do_unlock(void)
{
	unlock(w.op.resv);
}

/* Compaction is allowed even if memory fails in the end, but then nothing may have changed. */
static bool reserved(int result)
{
	fail_no_more();
	must(result == 0 || (result == -ENOMEM && memory_failed));
	w.may_compact = result == 0;
	return result == 0;
}

static void do_reserve(void)
{
	unsigned n = w.op.n % 4 == 0 ? w.op.n / 4 % 32 : 1 + w.op.n / 4 % 3;
	if (!lock(w.op.resv))
		return;
	fail_allocation(4);
	if (reserved(lf_resv_reserve(w.resv[w.op.resv], n)))
		w.reserved[w.op.resv] += n;
}

static void add(uint16_t id, unsigned usage)
{
	unsigned r = w.op.resv;
	long calls = alloc_calls();
	lf_resv_add(w.resv[r], w.made[id].f, (enum lf_usage)usage);
	must(alloc_calls() == calls);
	w.list[r].at[w.list[r].count++] = (struct entry){ id, (uint8_t)usage };
	w.reserved[r]--;
	w.generation[r]++;
}

static void do_add(void)
{
	uint16_t id = some_held(w.op.which);
	if (id != 0 && w.locked[w.op.resv] && w.reserved[w.op.resv] != 0)
		add(id, w.op.usage);
}

/* As many as were reserved. */
static void do_add_many(void)
{
	for (unsigned i = 0; w.locked[w.op.resv] && w.held_count != 0 && w.reserved[w.op.resv] != 0; i++)
		add(some_held((uint16_t)(w.op.which + i * w.op.flags)), (w.op.usage + i * w.op.n) % 4);
}

static void do_reserve_replace(void)
{
	unsigned n = 1 + w.op.n % 3;
	lock(w.op.resv);
	fail_allocation(4);
	if (reserved(lf_resv_reserve_replace(w.resv[w.op.resv], n)))
		w.spares[w.op.resv] += n;
	w.may_compact = false;
}

/* Takes what is of a context out of the model; what is left is compacted with that. */
static size_t take_context(struct entries *list, uint64_t context)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < list->count; i++) {
		if (w.made[list->at[i].id].context != context)
			list->at[kept++] = list->at[i];
	}
	size_t gone = list->count - kept;
	list->count = kept;
	return gone;
}

/* Without a preparation it is misuse, reported, and done all the same: so it is known which are there still. */
static void do_replace(void)
{
	static struct entries before, now;
	unsigned r = w.op.resv;
	uint16_t id = some_held(w.op.which);
	bool prepared = w.spares[r] != 0;
	if (id == 0 || !w.locked[r] || w.list[r].count == 0 || (!prepared && w.op.flags % 4 != 0))
		return;
	uint64_t context = w.made[w.list[r].at[w.op.n % w.list[r].count].id].context;
	if (context == 0)
		context = lf_timeline_context(w.tl[w.op.n % TIMELINES]);
	before = w.list[r];
	long calls = alloc_calls();
	size_t gone = take_context(&before, context), said = lf_resv_replace(w.resv[r], context, w.made[id].f, (enum lf_usage)w.op.usage);
	must((alloc_calls() == calls || (gone != 0 && !prepared)) && said == gone);
	hit(REPLACED, gone);
	if (gone == 0)
		return;
	if (prepared)
		w.spares[r]--;
	else
		expect_misuse();
	w.generation[r]++;
	list_of(r, LF_USAGE_BOOKKEEP, false, &now);
	must(now.count != 0 && same_entry(now.at[now.count - 1], (struct entry){ id, w.op.usage }));
	w.list[r] = now;
	now.count--; /* the new one is not weighed against the others */
	check_compacted(&before, &now);
}

static void do_copy(void)
{
	static struct entries pending;
	unsigned r = w.op.resv, from = w.op.flags % 4 == 0 ? r : 1 - r;
	if (!lock(r) || w.list[from].count > LIST / 4)
		return;
	list_of(from, LF_USAGE_BOOKKEEP, true, &pending);
	fail_allocation(4);
	bool done = reserved(lf_resv_copy(w.resv[r], w.resv[from]));
	if (!done || from == r)
		return;
	static struct entries now;
	list_of(r, LF_USAGE_BOOKKEEP, false, &now);
	must(now.count >= pending.count);
	now.count -= pending.count;
	if (!same_list(&w.list[r], &now))
		check_compacted(&w.list[r], &now);
	for (unsigned i = 0; i < pending.count; i++)
		now.at[now.count++] = pending.at[i];
	w.list[r] = now;
	w.generation[r] += pending.count;
	w.may_compact = false;
}

/* --- Asking ------------------------------------------------------------------------------------------------------------------ */

static void check_described(unsigned r)
{
	static char text[LIST * 200];
	unsigned lines = 0;
	int length = lf_resv_describe(w.resv[r], text, sizeof(text));
	must(length >= 0 && (size_t)length == strlen(text));
	for (const char *c = text; *c != '\0'; c++)
		lines += *c == '\n';
	must(lines == w.list[r].count);
}

static void do_ask(void)
{
	static struct entries now;
	unsigned r = w.op.resv;
	for (unsigned usage = 0; usage < 4; usage++) {
		unsigned at = 0;
		must(lf_resv_test_signaled(w.resv[r], (enum lf_usage)usage) == !is_pending(&w.list[r], usage));
		list_of(r, usage, false, &now);
		for (unsigned i = 0; i < w.list[r].count; i++) {
			if (w.list[r].at[i].usage <= usage)
				must(at < now.count && same_entry(now.at[at++], w.list[r].at[i]));
		}
		must(at == now.count);
	}
	int waited = lf_resv_wait(w.resv[r], (enum lf_usage)w.op.usage, 0);
	must(waited == (is_pending(&w.list[r], w.op.usage) ? -ETIME : 0));
	lf_resv_set_deadline(w.resv[r], (enum lf_usage)w.op.usage, w.op.n);
	if (w.op.flags % 8 == 0)
		check_described(r);
}

static void do_get_fences(void)
{
	static struct entries pending;
	struct lf_fence **fences = NULL;
	size_t count = 0;
	list_of(w.op.resv, w.op.usage, true, &pending);
	fail_allocation(4);
	int error = lf_resv_get_fences(w.resv[w.op.resv], (enum lf_usage)w.op.usage, &fences, &count);
	fail_no_more();
	must(error == 0 || (error == -ENOMEM && memory_failed));
	if (error != 0)
		return;
	must(count == pending.count && (fences == NULL) == (count == 0));
	for (size_t i = 0; i < count; i++) {
		must(fences[i] == w.made[pending.at[i].id].f);
		lf_fence_put(fences[i]);
	}
	lf_free(fences);
}

static void check_joined(void)
{
	for (unsigned i = 0; i < JOINED; i++) {
		const struct joined *j = &w.joined[i];
		if (j->f != NULL)
			must(lf_fence_is_signaled(j->f) == !is_pending(&j->list, LF_USAGE_BOOKKEEP));
	}
}

static bool all_alike(const struct entries *list)
{
	for (unsigned i = 1; i < list->count; i++) {
		if (list->at[i].id != list->at[0].id)
			return false;
	}
	return true;
}

static void do_singleton(void)
{
	struct joined *j = &w.joined[w.op.n % JOINED];
	lf_fence_put(j->f);
	j->f = NULL;
	list_of(w.op.resv, w.op.usage, true, &j->list);
	fail_allocation(6);
	int error = lf_resv_get_singleton(w.resv[w.op.resv], (enum lf_usage)w.op.usage, &j->f);
	fail_no_more();
	must(error == 0 || (error == -ENOMEM && memory_failed));
	if (error != 0)
		j->f = NULL;
	else if (j->list.count == 0)
		must(j->f == lf_fence_stub());
	else if (all_alike(&j->list))
		must(j->f == w.made[j->list.at[0].id].f);
	else
		must(lf_fence_is_array(j->f));
}

/* --- Snapshots --------------------------------------------------------------------------------------------------------------- */

static void look_back(struct held_snapshot *s)
{
	static struct entries now;
	struct lf_resv_cursor cursor;
	if (!s->taken)
		return;
	lf_snapshot_cursor_begin(&cursor, &s->snapshot, LF_USAGE_BOOKKEEP);
	collect(&cursor, &now, false);
	must(same_list(&now, &s->list));
	for (unsigned i = 0; i < now.count; i++)
		check_fence(now.at[i].id);
	for (unsigned usage = 0; usage < 4; usage++)
		must(lf_snapshot_test_signaled(&s->snapshot, (enum lf_usage)usage) == !is_pending(&s->list, usage));
	must(lf_snapshot_wait(&s->snapshot, (enum lf_usage)w.op.usage, 0) == (is_pending(&s->list, w.op.usage) ? -ETIME : 0));
}

static void put_snapshot(struct held_snapshot *s)
{
	look_back(s);
	lf_snapshot_put(&s->snapshot);
	s->taken = false;
}

static void do_snapshot(void)
{
	struct held_snapshot *s = &w.snapshot[w.op.n % SNAPSHOTS];
	put_snapshot(s);
	long calls = alloc_calls();
	lf_resv_snapshot(w.resv[w.op.resv], &s->snapshot);
	must(alloc_calls() == calls);
	s->list = w.list[w.op.resv];
	s->taken = true;
}

static void do_look_back(void)
{
	look_back(&w.snapshot[w.op.n % SNAPSHOTS]);
}

static void do_put_snapshot(void)
{
	put_snapshot(&w.snapshot[w.op.n % SNAPSHOTS]);
}

/* --- Notices ----------------------------------------------------------------------------------------------------------------- */

static void check_notices(void)
{
	uint64_t events = 0;
	for (unsigned i = 0; i < NOTICES; i++) {
		struct armed *a = &w.armed[i];
		bool pending = is_pending(&a->list, LF_USAGE_BOOKKEEP);
		if (a->state == ARMED && a->by_event && !pending) {
			a->state = FIRED_ONCE;
			w.events++;
			hit(FIRED, 1);
		}
		must(a->state != ARMED || pending);
	}
	if (w.events != 0)
		must(read(event_fd, &events, sizeof(events)) == sizeof(events) && events == w.events);
	w.events = 0;
}

static void on_notice(struct lf_notice *notice);

/* Arms over what is pending of the reservation now; inside a function, that is not what the model says (not everybody was told yet). */
static void arm(struct armed *a)
{
	enum lf_usage usage = (enum lf_usage)a->usage;
	static struct entries pending;
	list_of(a->resv, a->usage, true, &pending);
	long calls = alloc_calls();
	int error = a->by_event ? lf_notice_arm_eventfd(&a->notice, w.resv[a->resv], usage, event_fd)
				: lf_notice_arm(&a->notice, w.resv[a->resv], usage, on_notice);
	must(alloc_calls() == calls);
	must(error == (pending.count == 0 ? -ENOENT : 0));
	hit(NOTHING_PENDING, error != 0);
	if (error == 0) {
		a->state = ARMED;
		a->list = pending;
	}
}

static void on_notice(struct lf_notice *notice)
{
	struct armed *a = (struct armed *)(void *)notice;
	must(a->state == ARMED && !a->by_event && !lf_read_held());
	for (unsigned i = 0; i < a->list.count; i++)
		must(w.made[a->list.at[i].id].signaled);
	a->state = FIRED_ONCE;
	hit(FIRED, 1);
	if (a->again) {
		a->again = false;
		must(lf_notice_cancel(notice) == LF_CB_RUNNING);
		arm(a);
		hit(ARMED_INSIDE, a->state == ARMED);
	}
}

static void do_arm(void)
{
	struct armed *a = &w.armed[w.op.n % NOTICES];
	if (a->state == ARMED) {
		must(lf_notice_arm(&a->notice, w.resv[w.op.resv], (enum lf_usage)w.op.usage, on_notice) == -EALREADY);
		expect_misuse();
		return;
	}
	a->resv = w.op.resv;
	a->usage = w.op.usage;
	a->by_event = w.op.flags % 4 == 0;
	a->again = w.op.flags % 4 == 1;
	arm(a);
}

static void do_arm_snapshot(void)
{
	struct armed *a = &w.armed[w.op.n % NOTICES];
	struct held_snapshot *s = &w.snapshot[w.op.flags % SNAPSHOTS];
	if (a->state == ARMED || !s->taken)
		return;
	int error = lf_notice_arm_snapshot(&a->notice, &s->snapshot, (enum lf_usage)w.op.usage, on_notice);
	must(error == (is_pending(&s->list, w.op.usage) ? 0 : -ENOENT));
	if (error != 0)
		return;
	a->state = ARMED;
	a->by_event = a->again = false;
	a->list.count = 0;
	for (unsigned i = 0; i < s->list.count; i++) {
		if (s->list.at[i].usage <= w.op.usage)
			a->list.at[a->list.count++] = s->list.at[i];
	}
	s->taken = false;
}

static void cancel(struct armed *a, bool sync)
{
	int result = sync ? lf_notice_cancel_sync(&a->notice) : lf_notice_cancel(&a->notice);
	must(result == (a->state == FIRED_ONCE ? LF_CB_RAN : LF_CB_REMOVED));
	hit(CANCELLED, a->state == ARMED);
	if (a->state == ARMED)
		a->state = NEVER;
}

static void do_cancel(void)
{
	cancel(&w.armed[w.op.n % NOTICES], w.op.flags % 2);
}

/* --- The rest ---------------------------------------------------------------------------------------------------------------- */

static void make_resv(unsigned r)
{
	w.resv[r] = &w.embedded;
	if (r == 0)
		lf_resv_init(w.resv[r], NULL);
	else
		must(lf_resv_create(NULL, &w.resv[r]) == 0);
	w.list[r].count = 0;
	w.generation[r] = 0;
	w.locked[r] = false;
	w.reserved[r] = w.spares[r] = 0;
}

static void end_resv(unsigned r)
{
	unlock(r);
	long calls = alloc_calls();
	if (r == 0)
		lf_resv_fini(w.resv[r]);
	else
		lf_resv_put(w.resv[r]);
	must(alloc_calls() == calls);
}

static void do_renew(void)
{
	end_resv(w.op.resv);
	make_resv(w.op.resv);
}

static void do_misuse(void)
{
	unsigned r = w.op.resv;
	uint16_t id = some_held(w.op.which);
	if (w.locked[r] || id == 0)
		return;
	switch (w.op.n % 4) {
	case 0:
		must(lf_resv_reserve(w.resv[r], 1) == -EINVAL);
		break;
	case 1:
		must(lf_resv_replace(w.resv[r], 1, w.made[id].f, LF_USAGE_READ) == 0);
		break;
	case 2:
		must(!lf_resv_test_signaled(w.resv[r], (enum lf_usage)4));
		break;
	default:
		must(lf_resv_copy(w.resv[r], w.resv[1 - r]) == -EINVAL);
		break;
	}
	expect_misuse();
}

static void (*const actions[KINDS])(void) = {
	[MAKE] = do_make,
	[SIGNAL] = do_signal,
	[DROP] = do_drop,
	[LOSE] = do_lose,
	[LOCK] = do_lock,
	[UNLOCK] = do_unlock,
	[RESERVE] = do_reserve,
	[ADD] = do_add,
	[ADD_MANY] = do_add_many,
	[RESERVE_REPLACE] = do_reserve_replace,
	[REPLACE] = do_replace,
	[COPY] = do_copy,
	[ASK] = do_ask,
	[GET_FENCES] = do_get_fences,
	[SINGLETON] = do_singleton,
	[SNAPSHOT] = do_snapshot,
	[LOOK_BACK] = do_look_back,
	[PUT_SNAPSHOT] = do_put_snapshot,
	[ARM] = do_arm,
	[ARM_SNAPSHOT] = do_arm_snapshot,
	[CANCEL] = do_cancel,
	[RENEW] = do_renew,
	[MISUSE] = do_misuse,
};

static void step(const uint8_t *bytes)
{
	w.op = to_op(bytes);
	w.log[fuzz_progress->steps % LOG] = w.op;
	w.may_compact = false;
	actions[w.op.kind]();
	check_lists();
	check_notices();
	check_joined();
	must(log_count(LF_LOG_MISUSE) == 0);
	fuzz_progress->count[w.op.kind]++;
	fuzz_progress->ops++;
	fuzz_progress->steps++;
}

static void start_program(const uint8_t *head)
{
	memset(&w, 0, offsetof(typeof(w), log));
	memcpy(&w.random, head + 8, sizeof(w.random));
	w.random |= 1;
	w.count = 1;
	for (unsigned t = 0; t < TIMELINES; t++) {
		struct lf_timeline_desc desc = { .name = "fuzz", .flags = t < ORDERED ? LF_TIMELINE_ORDERED : LF_TIMELINE_UNORDERED };
		must(lf_timeline_create(&desc, &w.tl[t]) == 0);
	}
	for (unsigned r = 0; r < RESVS; r++)
		make_resv(r);
	for (unsigned i = 0; i < NOTICES; i++)
		lf_notice_init(&w.armed[i].notice);
}

static void end_one(unsigned which)
{
	if (which < SNAPSHOTS) {
		put_snapshot(&w.snapshot[which]);
	} else if ((which -= SNAPSHOTS) < NOTICES) {
		w.armed[which].again = false;
		cancel(&w.armed[which], false);
	} else if ((which -= NOTICES) < RESVS) {
		end_resv(which);
	} else if ((which -= RESVS) < JOINED) {
		lf_fence_put(w.joined[which].f);
		w.joined[which].f = NULL;
	} else if ((which -= JOINED) < TIMELINES) {
		flag_timeline(which, UINT64_MAX);
		lf_timeline_put(w.tl[which]);
		check_notices();
	} else {
		while (w.held_count != 0)
			drop((unsigned)(random_next(&w.random) % w.held_count));
	}
}

/* Everything that is left, in a random order. */
static void end_program(void)
{
	unsigned left[SNAPSHOTS + NOTICES + RESVS + JOINED + TIMELINES + 1], count = sizeof(left) / sizeof(left[0]);
	for (unsigned i = 0; i < count; i++)
		left[i] = i;
	for (unsigned i = 0; i < NOTICES; i++)
		w.armed[i].again = false; /* which may find no reservation */
	while (count != 0) {
		unsigned at = (unsigned)(random_next(&w.random) % count), which = left[at];
		left[at] = left[--count];
		end_one(which);
		check_joined();
	}
	for (unsigned i = 0; i < NOTICES; i++)
		lf_notice_fini(&w.armed[i].notice);
	must(log_count(LF_LOG_MISUSE) == 0);
}

static void run(const uint8_t *data, size_t size)
{
	fuzz_progress->steps = 0;
	if (size < FUZZ_HEAD)
		return;
	start_program(data);
	for (size_t at = FUZZ_HEAD; at + FUZZ_OP <= size; at += FUZZ_OP)
		step(data + at);
	end_program();
}

static void start(void)
{
	static const uint8_t nothing[FUZZ_HEAD];
	alloc_install();
	log_capture();
	event_fd = eventfd(0, EFD_NONBLOCK);
	must(event_fd >= 0);
	/* what the library sets up with its first use stays */
	struct lf_deferred *node = lf_alloc(sizeof(*node));
	must(node != NULL);
	lf_defer_free(node, node);
	run(nothing, sizeof(nothing));
	must(lf_reclaim_barrier() == 0);
	live_at_start = alloc_live();
}

static void settle(void)
{
	must(lf_reclaim_barrier() == 0);
	must(alloc_live() == live_at_start);
}

static void dump_op(FILE *file, uint64_t number)
{
	const struct op *op = &w.log[number % LOG];
	fprintf(file, "%6llu  %-15s reservation %u, usage %u, fence %u, n %u, flags %u", (unsigned long long)number, kinds[op->kind],
		op->resv, op->usage, op->which, op->n, op->flags);
	if (op->fail < 8)
		fprintf(file, ", failure %u", op->fail);
	fprintf(file, "%s\n", number == fuzz_progress->steps ? "  <-- here" : "");
}

static void dump(FILE *file)
{
	uint64_t last = fuzz_progress->steps, first = last < LOG ? 0 : last - LOG + 1;
	for (uint64_t i = first; i <= last; i++)
		dump_op(file, i);
	for (unsigned r = 0; r < RESVS; r++) {
		fprintf(file, "reservation %u: %s, %u slots and %u replacements reserved; fence:usage", r,
			w.locked[r] ? "locked" : "not locked", w.reserved[r], w.spares[r]);
		for (unsigned i = 0; i < w.list[r].count; i++)
			fprintf(file, " %u:%u%s", w.list[r].at[i].id, w.list[r].at[i].usage,
				w.made[w.list[r].at[i].id].signaled ? "!" : "");
		fprintf(file, "\n");
	}
	fflush(file);
}

const struct fuzz_target fuzz_target = {
	.ops = 150000,
	.kinds = kinds,
	.hits = hits,
	.checks = "lists compared",
	.start = start,
	.run = run,
	.settle = settle,
	.dump = dump,
};
