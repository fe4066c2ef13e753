/* SPDX-License-Identifier: MIT */
/*
 * Transactions: seen whole or not at all, without trace when aborted, and operations from which page tables come out right.
 *
 * Oracle of the random tests: an array of pages says what is mapped where; it knows nothing of trees. After each request the transaction's
 * view must be what the array says, mapping by mapping. The operations must be the difference of two dumps, to the pointer: what is in the
 * old one only goes once, what is in the new one only comes once, what is in both is not mentioned. A second array is a page table: the
 * operations are applied to it as a driver would, and then it must say the same as the first. Aborts and failed allocations are mixed in,
 * and held versions are dumped again and again. Healthy output says how many there were of each.
 */
#include "vm_testing.h"

/* --- An array of pages ---------------------------------------------------------------------------------------------------------- */

enum { PAGES = 192 };

/* What is at a page: letter 0 for nothing; at: the page of the buffer. Pages with the same id are one mapping. */
struct entry {
	char letter;
	uint32_t flags;
	uint64_t at;
	unsigned id;
};

struct model {
	struct entry page[PAGES];
	unsigned ids;
};

/* From here on a mapping that reaches over the beginning of @at is two. */
static void model_cut(struct model *m, unsigned at)
{
	unsigned id;

	if (at == 0 || at >= PAGES || m->page[at].letter == 0 || m->page[at].id != m->page[at - 1].id)
		return;
	id = m->page[at].id;
	m->ids++;
	for (unsigned i = at; i < PAGES && m->page[i].id == id; i++)
		m->page[i].id = m->ids;
}

static unsigned model_end(const struct model *m, unsigned at)
{
	unsigned i = at;

	while (i < PAGES && m->page[i].id == m->page[at].id)
		i++;
	return i;
}

/* Whether exactly this is there, as one mapping. */
static bool model_has(const struct model *m, unsigned at, unsigned count, char letter, uint64_t offset, uint32_t flags)
{
	const struct entry *e = &m->page[at];

	if (e->letter != letter || (at > 0 && m->page[at - 1].id == e->id) || model_end(m, at) != at + count)
		return false;
	return (letter == '-' || e->at == offset) && e->flags == flags;
}

static void model_map(struct model *m, unsigned at, unsigned count, char letter, uint64_t offset, uint32_t flags)
{
	const struct entry nothing = { 0, 0, 0, 0 };

	if (letter != 0 && model_has(m, at, count, letter, offset, flags))
		return;
	model_cut(m, at);
	model_cut(m, at + count);
	m->ids++;
	for (unsigned i = 0; i < count; i++)
		m->page[at + i] = letter ? (struct entry){ letter, flags, letter == '-' ? 0 : offset + i, m->ids } : nothing;
}

static void model_text(struct text *t, const struct model *m)
{
	text_clear(t);
	for (unsigned i = 0, end; i < PAGES; i = end) {
		const struct entry *e = &m->page[i];

		end = model_end(m, i);
		if (e->letter == 0)
			continue;
		text_add(t, "%s%c%u+%u", t->used ? " " : "", e->letter, i, end - i);
		if (e->letter != '-')
			text_add(t, ":%" PRIu64, e->at);
		if (e->flags)
			text_add(t, "!%" PRIu32, e->flags);
	}
}

/* --- A page table ----------------------------------------------------------------------------------------------------------------- */

static bool same_memory(const struct entry *a, const struct entry *b)
{
	return a->letter == b->letter && a->at == b->at;
}

static struct entry entry_of(const struct world *w, const struct lf_mapping *m, unsigned page)
{
	struct entry e = { letter_of(w, m->vm_bo), m->flags, 0, 0 };

	if (m->vm_bo)
		e.at = m->offset / w->page + (page - (m->va - w->base) / w->page);
	return e;
}

static void table_apply(struct entry *table, const struct world *w, const struct lf_vm_op *op)
{
	unsigned first = (unsigned)((op->va - w->base) / w->page), count = (unsigned)(op->size / w->page);

	for (unsigned i = first; i < first + count && op->kind != LF_VM_OP_PREFETCH; i++) {
		struct entry e = entry_of(w, op->mapping, i);

		if (op->kind == LF_VM_OP_MAP && !op->keep)
			table[i] = e;
		else if (op->kind == LF_VM_OP_MAP)
			must(same_memory(&table[i], &e));
		else if (!op->keep)
			memset(&table[i], 0, sizeof(table[i]));
	}
}

static bool table_is(const struct entry *table, const struct model *m)
{
	for (unsigned i = 0; i < PAGES; i++) {
		if (!same_memory(&table[i], &m->page[i]))
			return false;
	}
	return true;
}

/* --- Operations against the two dumps ------------------------------------------------------------------------------------------- */

struct difference {
	const struct dump *old, *new;
	const struct model *after;
	unsigned char seen_old[PAGES], seen_new[PAGES]; /* how often an operation named it */
	enum lf_vm_op_kind stage;
	uint64_t at;
};

static void see(const struct dump *in, const struct dump *not_in, unsigned char *seen, const struct lf_mapping *m)
{
	const struct dumped *found = dump_find(in, m);

	must(found != NULL && dump_find(not_in, m) == NULL);
	must(seen[found - in->all]++ == 0);
}

/* By the definition: every page of what goes is mapped in the new version, to the same memory. */
static bool may_stay(const struct world *w, const struct model *after, const struct lf_vm_op *op)
{
	unsigned first = (unsigned)((op->va - w->base) / w->page), count = (unsigned)(op->size / w->page);

	for (unsigned i = first; i < first + count; i++) {
		struct entry e = entry_of(w, op->mapping, i);

		if (!same_memory(&e, &after->page[i]))
			return false;
	}
	return true;
}

static void difference_goes(struct difference *d, const struct world *w, const struct lf_vm_op *op)
{
	must(d->stage <= LF_VM_OP_REMAP);
	must(op->mapping->va >= d->at);
	d->at = op->mapping->va + (op->mapping->size - 1);
	see(d->old, d->new, d->seen_old, op->mapping);
	if (op->prev)
		see(d->new, d->old, d->seen_new, op->prev);
	if (op->next)
		see(d->new, d->old, d->seen_new, op->next);
	must(op->keep == may_stay(w, d->after, op));
}

static void difference_comes(struct difference *d, const struct lf_vm_op *op)
{
	must(d->stage <= LF_VM_OP_MAP);
	if (d->stage < LF_VM_OP_MAP)
		d->at = 0;
	d->stage = LF_VM_OP_MAP;
	must(op->va >= d->at);
	d->at = op->va + (op->size - 1);
	see(d->new, d->old, d->seen_new, op->mapping);
}

static void difference_end(const struct difference *d)
{
	for (size_t i = 0; i < d->old->count; i++)
		must(d->seen_old[i] == (dump_find(d->new, d->old->all[i].m) == NULL));
	for (size_t i = 0; i < d->new->count; i++)
		must(d->seen_new[i] == (dump_find(d->old, d->new->all[i].m) == NULL));
}

/* --- One random transaction after the other ------------------------------------------------------------------------------------- */

enum { HOLDERS = 4, MAX_REQUESTS = 6 };

struct random_test {
	struct world w;
	uint64_t random;
	struct model model; /* what is committed */
	struct entry table[PAGES];
	struct dump now, next; /* committed, and of the open transaction */
	struct {
		struct lf_held *held;
		struct dump dump;
	} holder[HOLDERS];
	struct {
		unsigned first, count;
	} prefetch[MAX_REQUESTS];
	unsigned prefetches;
	unsigned commits, aborts, failures, ops, kept, holds;
};

static uint64_t below(struct random_test *t, uint64_t n)
{
	return random_next(&t->random) % n;
}

static void random_range(struct random_test *t, unsigned *at, unsigned *count)
{
	static const unsigned most[] = { 2, 4, 8, 16, 64, PAGES };
	unsigned room;

	*at = (unsigned)below(t, PAGES);
	room = most[below(t, sizeof(most) / sizeof(most[0]))];
	if (room > PAGES - *at)
		room = PAGES - *at;
	*count = 1 + (unsigned)below(t, room);
}

/* Offsets are the address as a rule, so that what comes often goes on with what was there. */
static int random_map(struct random_test *t, struct lf_txn *txn, struct model *m, unsigned at, unsigned count)
{
	unsigned bo = (unsigned)below(t, WORLD_BOS + 1);
	bool sparse = bo == WORLD_BOS;
	uint64_t offset = below(t, 4) ? at : below(t, WORLD_BO_PAGES - count);
	struct lf_map_desc desc = { .va = t->w.base + at * t->w.page, .size = count * t->w.page, .flags = below(t, 8) ? 0 : 1 };
	int error;

	if (!sparse) {
		desc.vm_bo = t->w.vm_bo[bo];
		desc.offset = offset * t->w.page;
	}
	error = lf_txn_map(txn, &desc, NULL);
	if (error == 0)
		model_map(m, at, count, sparse ? '-' : (char)('a' + bo), offset, desc.flags);
	return error;
}

static int random_prefetch(struct random_test *t, struct lf_txn *txn, unsigned at, unsigned count)
{
	int error = lf_txn_prefetch(txn, t->w.base + at * t->w.page, count * t->w.page);

	if (error == 0) {
		t->prefetch[t->prefetches].first = at;
		t->prefetch[t->prefetches++].count = count;
	}
	return error;
}

static int random_request(struct random_test *t, struct lf_txn *txn, struct model *m)
{
	unsigned at, count;
	uint64_t va;
	int error;

	random_range(t, &at, &count);
	va = t->w.base + at * t->w.page;
	switch (below(t, 16)) {
	case 0:
		return random_prefetch(t, txn, at, count);
	case 1:
	case 2:
		error = lf_txn_split(txn, va, count * t->w.page);
		if (error == 0) {
			model_cut(m, at);
			model_cut(m, at + count);
		}
		return error;
	case 3:
	case 4:
	case 5:
	case 6:
		error = lf_txn_unmap(txn, va, count * t->w.page);
		if (error == 0)
			model_map(m, at, count, 0, 0, 0);
		return error;
	default:
		return random_map(t, txn, m, at, count);
	}
}

/* Prefetches as the array says they must be: request by request, mapping by mapping, no more than was asked for. */
static void expected_prefetches(struct random_test *t, const struct model *m, struct text *text)
{
	text_clear(text);
	for (unsigned k = 0; k < t->prefetches; k++) {
		unsigned end = t->prefetch[k].first + t->prefetch[k].count;

		for (unsigned i = t->prefetch[k].first, next; i < end; i = next) {
			next = model_end(m, i) < end ? model_end(m, i) : end;
			if (m->page[i].letter)
				text_add(text, " %u+%u", i, next - i);
		}
	}
}

static void check_ops(struct random_test *t, struct lf_txn *txn, const struct model *after, struct entry *table)
{
	struct difference d = { .old = &t->now, .new = &t->next, .after = after };
	struct text got, expected;
	struct lf_txn_cursor cursor;
	struct lf_vm_op op;

	text_clear(&got);
	lf_txn_ops_begin(&cursor, txn);
	while (lf_txn_ops_next(&cursor, &op)) {
		op_check(&op);
		if (op.kind <= LF_VM_OP_REMAP)
			difference_goes(&d, &t->w, &op);
		else if (op.kind == LF_VM_OP_MAP)
			difference_comes(&d, &op);
		else
			text_add(&got, " %" PRIu64 "+%" PRIu64, (op.va - t->w.base) / t->w.page, op.size / t->w.page);
		if (op.kind == LF_VM_OP_PREFETCH)
			d.stage = LF_VM_OP_PREFETCH;
		table_apply(table, &t->w, &op);
		t->ops++;
		t->kept += op.keep;
	}
	difference_end(&d);
	expected_prefetches(t, after, &expected);
	must(strcmp(got.s, expected.s) == 0);
	must(table_is(table, after));
}

/* Whether a mapping is what the array has at a page, from its first to its last. */
static bool mapping_is(const struct world *w, const struct lf_mapping *m, const struct model *model, unsigned at)
{
	struct entry e = entry_of(w, m, at);

	return m->va == w->base + at * w->page && m->size == (model_end(model, at) - at) * w->page && same_memory(&e, &model->page[at]) &&
		m->flags == model->page[at].flags;
}

static bool view_is(const struct world *w, const struct lf_view *view, const struct model *model)
{
	struct lf_walk walk;
	struct lf_mapping *m;

	lf_walk_begin(&walk, view, 0, 0);
	for (unsigned i = 0; i < PAGES; i = model_end(model, i)) {
		if (model->page[i].letter == 0)
			continue;
		m = lf_walk_next(&walk);
		if (m == NULL || !mapping_is(w, m, model, i))
			return false;
	}
	return lf_walk_next(&walk) == NULL;
}

static void check_view(const struct random_test *t, const struct lf_view *view, const struct model *m)
{
	struct text got, expected;

	if (view_is(&t->w, view, m))
		return;
	text_view(&got, &t->w, view);
	model_text(&expected, m);
	print_error("is       %s\nshall be %s\n", got.s, expected.s);
	must(view_is(&t->w, view, m));
}

/* The requests of one transaction: 0, or the -ENOMEM that was injected. */
static int random_requests(struct random_test *t, struct lf_txn *txn, struct model *m)
{
	struct lf_view view;
	int error = 0;

	t->prefetches = 0;
	for (uint64_t n = 1 + below(t, MAX_REQUESTS); n > 0 && error == 0; n--) {
		error = random_request(t, txn, m);
		if (error == 0) {
			lf_txn_view(txn, &view);
			check_view(t, &view, m);
		}
	}
	return error;
}

static void random_commit(struct random_test *t, struct lf_txn *txn, const struct model *m)
{
	struct lf_view view;
	struct dump swap;
	long calls = alloc_calls();

	alloc_fail_all(true);
	lf_txn_commit(txn);
	alloc_fail_all(false);
	must(alloc_calls() == calls);
	t->model = *m;
	lf_vm_view(t->w.vm, &view);
	check_view(t, &view, m);
	swap = t->now;
	t->now = t->next;
	t->next = swap;
	t->commits++;
}

static void random_abort(struct random_test *t, struct lf_txn *txn, const struct lf_vm_stats *before)
{
	struct lf_vm_stats after;

	lf_txn_abort(txn);
	after = stats_of(t->w.vm);
	must(memcmp(before, &after, sizeof(after)) == 0);
	dump_vm(&t->next, t->w.vm);
	must(dump_equal(&t->now, &t->next));
	t->aborts++;
}

static void random_txn(struct random_test *t)
{
	struct model m = t->model;
	struct entry table[PAGES];
	struct lf_vm_stats before = stats_of(t->w.vm);
	struct lf_txn txn;
	struct lf_view view;
	int error;

	vm_lock(t->w.vm);
	must(lf_txn_begin(&txn, t->w.vm) == 0);
	if (below(t, 8) == 0)
		alloc_fail_at(1 + (long)below(t, 16));
	error = random_requests(t, &txn, &m);
	must(error == (alloc_failed() ? -ENOMEM : 0));
	alloc_fail_at(0);
	if (error == 0) {
		lf_txn_view(&txn, &view);
		dump_view(&t->next, &view);
		memcpy(table, t->table, sizeof(table));
		check_ops(t, &txn, &m, table);
	}
	t->failures += error != 0;
	if (error == 0 && below(t, 4) != 0) {
		memcpy(t->table, table, sizeof(table));
		random_commit(t, &txn, &m);
	} else {
		random_abort(t, &txn, &before);
	}
	vm_unlock(t->w.vm);
}

static void let_go(struct random_test *t, unsigned i)
{
	struct lf_view view;

	lf_held_view(t->holder[i].held, &view);
	dump_view(&t->next, &view);
	must(dump_equal(&t->next, &t->holder[i].dump));
	lf_held_put(t->holder[i].held);
	t->holder[i].held = NULL;
}

static void random_holder(struct random_test *t)
{
	unsigned i = (unsigned)below(t, HOLDERS);

	if (t->holder[i].held) {
		let_go(t, i);
		return;
	}
	must(lf_vm_hold(t->w.vm, &t->holder[i].held) == 0);
	dump_vm(&t->holder[i].dump, t->w.vm);
	must(dump_equal(&t->now, &t->holder[i].dump));
	t->holds++;
}

static void random_test_end(struct random_test *t)
{
	for (unsigned i = 0; i < HOLDERS; i++) {
		if (t->holder[i].held)
			let_go(t, i);
		dump_free(&t->holder[i].dump);
	}
	must(stats_of(t->w.vm).held == 0 && stats_of(t->w.vm).pinned == 0);
	dump_free(&t->now);
	dump_free(&t->next);
	test_note("%u committed, %u aborted, %u of those for want of memory, %u operations, %u of those with keep, %u versions held",
		t->commits, t->aborts, t->failures, t->ops, t->kept, t->holds);
	world_fini(&t->w);
}

static void run_random(uint64_t granule, uint64_t start, uint64_t base, long rounds)
{
	static struct random_test t;
	const struct lf_vm_desc desc = { .name = "random", .granule = granule, .start = start };

	memset(&t, 0, sizeof(t));
	t.random = test_seed();
	world_init_at(&t.w, &desc, base);
	for (long i = 0; i < rounds; i++) {
		random_txn(&t);
		if (below(&t, 16) == 0)
			random_holder(&t);
	}
	random_test_end(&t);
}

static long random_rounds(long rounds)
{
	return test_rounds(test_is_sanitized() ? rounds / 5 : rounds);
}

static void random_transactions_are_what_arrays_of_pages_say(void **state)
{
	run_random(PAGE, 0, (UINT64_C(1) << 24) - 96 * PAGE, random_rounds(20000));
}

static void random_transactions_at_the_end_of_the_address_space(void **state)
{
	run_random(PAGE, 0, 0 - PAGES * PAGE, random_rounds(4000));
}

/* The VM begins three bytes before. */
static void random_transactions_with_a_granule_of_a_byte(void **state)
{
	run_random(1, (UINT64_C(1) << 36) - 73, (UINT64_C(1) << 36) - 70, random_rounds(4000));
}

/* --- Random, with buffers that are closed ---------------------------------------------------------------------------------------- */

/* Of the pages of a closed buffer the table may say what it said, until they are handed out; never anything else. */
static void closing_commit(struct random_test *t, struct lf_txn *txn, const struct model *m, bool reaped)
{
	struct lf_txn_cursor cursor;
	struct lf_vm_op op;

	lf_txn_ops_begin(&cursor, txn);
	while (lf_txn_ops_next(&cursor, &op)) {
		op_check(&op);
		table_apply(t->table, &t->w, &op);
	}
	lf_txn_commit(txn);
	t->model = *m;
	for (unsigned i = 0; i < PAGES; i++)
		must(same_memory(&t->table[i], &m->page[i]) || (!reaped && m->page[i].letter == 0));
}

static void closing_txn(struct random_test *t)
{
	struct model m = t->model;
	struct lf_txn txn;
	bool reap = below(t, 4) == 0;
	int error;

	vm_lock(t->w.vm);
	must(lf_txn_begin(&txn, t->w.vm) == 0);
	if (below(t, 8) == 0)
		alloc_fail_at(1 + (long)below(t, 16));
	error = reap && below(t, 2) ? lf_txn_reap(&txn) : 0;
	if (error == 0)
		error = random_requests(t, &txn, &m);
	if (error == 0 && reap)
		error = lf_txn_reap(&txn);
	alloc_fail_at(0);
	if (error == 0 && below(t, 4) != 0)
		closing_commit(t, &txn, &m, reap);
	else
		lf_txn_abort(&txn);
	vm_unlock(t->w.vm);
	t->failures += error != 0;
}

static void close_one(struct random_test *t)
{
	unsigned i = (unsigned)below(t, WORLD_BOS);
	struct lf_view view;

	lf_vm_bo_close(t->w.vm_bo[i]);
	lf_vm_bo_put(t->w.vm_bo[i]);
	t->w.vm_bo[i] = obtain(t->w.vm, t->w.bo[i]);
	for (unsigned p = 0; p < PAGES; p++) {
		if (t->model.page[p].letter == (char)('a' + i))
			memset(&t->model.page[p], 0, sizeof(t->model.page[p]));
	}
	lf_read_lock();
	lf_vm_view(t->w.vm, &view);
	check_view(t, &view, &t->model);
	lf_read_unlock();
	t->aborts++;
}

static void random_transactions_while_buffers_are_closed(void **state)
{
	static struct random_test t;
	long rounds = random_rounds(8000);

	memset(&t, 0, sizeof(t));
	t.random = test_seed();
	world_init_at(&t.w, NULL, (UINT64_C(1) << 30) - 96 * PAGE);
	for (long i = 0; i < rounds; i++) {
		closing_txn(&t);
		if (below(&t, 8) == 0)
			close_one(&t);
	}
	reap_now(t.w.vm);
	dump_vm(&t.now, t.w.vm);
	assert_int_equal(stats_of(t.w.vm).mappings, t.now.count);
	dump_free(&t.now);
	test_note("%u buffers closed, %u transactions failed", t.aborts, t.failures);
	world_fini(&t.w);
}

/* --- Aborting ------------------------------------------------------------------------------------------------------------------- */

/* A bit of everything. What is there first is BEFORE. */
#define BEFORE     "map a0+8:0 map b8+8:0 map -20+8 map c40+20:0 map d63+10:0 map a200+1:0 map a4096+64:0 map d300000+2:0"
#define EVERYTHING \
	"map b2+4:0 unmap 10+2 split 22+2 prefetch 0+64 map c44+4:4 map a44+2:0 unmap 0+1 map a0+8:0 map d60+80:0 split 65+3 reap " \
	"unmap 4100+20 map -300001+9000 prefetch 300000+1 unmap 20+100"

static void abort_after(struct world *w, int n)
{
	const char *script = EVERYTHING;
	struct lf_txn txn;

	vm_lock(w->vm);
	assert_int_equal(lf_txn_begin(&txn, w->vm), 0);
	for (int i = 0; i < n; i++)
		assert_int_equal(request(w, &txn, &script), 0);
	long calls = alloc_calls();
	lf_txn_abort(&txn);
	assert_int_equal(alloc_calls(), calls);
	vm_unlock(w->vm);
}

static void abort_leaves_no_trace_at_any_point(void **state)
{
	struct world w;
	struct picture before = { { NULL, 0, 0 }, { 0, 0, 0, 0, 0, 0 } };
	long live;

	world_init(&w, NULL);
	world_do(&w, BEFORE);
	picture_take(&before, w.vm);
	assert_int_equal(before.stats.mappings, 8);
	abort_after(&w, 15);
	assert_int_equal(lf_reclaim_barrier(), 0);
	live = alloc_live();
	for (int n = 0; n <= 15; n++) {
		abort_after(&w, n);
		assert_true(picture_matches(&before, w.vm));
		assert_int_equal(lf_reclaim_barrier(), 0);
		assert_int_equal(alloc_live(), live);
	}
	dump_free(&before.dump);
	world_fini(&w);
}

/* Begin included. Returns whether an allocation was failed. */
static bool fail_nth(struct world *w, long nth, const struct picture *before)
{
	struct lf_txn txn;
	int error;
	bool failed;

	vm_lock(w->vm);
	alloc_fail_at(nth);
	error = lf_txn_begin(&txn, w->vm);
	if (error == 0) {
		error = requests(w, &txn, EVERYTHING);
		failed = alloc_failed();
		alloc_fail_at(0);
		assert_int_equal(error, failed ? -ENOMEM : 0);
		if (failed) {
			assert_int_equal(lf_txn_unmap(&txn, 0, PAGE), -ENOMEM);
			assert_int_equal(txn_map(&txn, NULL, 0, PAGE, 0), -ENOMEM);
			assert_int_equal(lf_txn_split(&txn, 0, PAGE), -ENOMEM);
			assert_int_equal(lf_txn_prefetch(&txn, 0, PAGE), -ENOMEM);
			assert_int_equal(lf_txn_reap(&txn), -ENOMEM);
		}
		lf_txn_abort(&txn);
	} else {
		failed = alloc_failed();
		assert_true(failed && error == -ENOMEM);
	}
	alloc_fail_at(0);
	vm_unlock(w->vm);
	assert_true(picture_matches(before, w->vm));
	return failed;
}

static void every_allocation_of_a_transaction_may_fail_and_the_error_stays(void **state)
{
	struct world w;
	struct picture before = { { NULL, 0, 0 }, { 0, 0, 0, 0, 0, 0 } };
	long live, nth = 1;

	world_init(&w, NULL);
	world_do(&w, BEFORE);
	picture_take(&before, w.vm);
	abort_after(&w, 15);
	assert_int_equal(lf_reclaim_barrier(), 0);
	live = alloc_live();
	while (fail_nth(&w, nth, &before)) {
		assert_int_equal(lf_reclaim_barrier(), 0);
		assert_int_equal(alloc_live(), live);
		nth++;
	}
	test_note("%ld allocations failed in turn", nth - 1);
	assert_true(nth > 10);
	world_do(&w, EVERYTHING);
	dump_free(&before.dump);
	world_fini(&w);
}

static int life_of_a_vm(void *arg)
{
	const struct lf_vm_desc desc = { .name = "oom" };
	struct world w = { .page = PAGE };
	struct lf_txn txn;
	int error = lf_vm_create(&desc, &w.vm);

	if (error != 0)
		return error;
	error = bo_create(WORLD_BO_PAGES * PAGE, lf_vm_resv(w.vm), NULL, &w.bo[0]);
	if (error == 0)
		error = lf_vm_bo_obtain(w.vm, w.bo[0], &w.vm_bo[0]);
	if (error == 0) {
		vm_lock(w.vm);
		error = lf_txn_begin(&txn, w.vm);
		if (error == 0) {
			error = requests(&w, &txn, "map a0+8:0 unmap 2+2 split 5+1 map a1000+2000:0 prefetch 0+9");
			if (error == 0)
				lf_txn_commit(&txn);
			else
				lf_txn_abort(&txn);
		}
		vm_unlock(w.vm);
	}
	lf_vm_bo_put(w.vm_bo[0]);
	lf_bo_put(w.bo[0]);
	vm_end(w.vm);
	return error;
}

static void every_allocation_in_the_life_of_a_vm_may_fail_and_nothing_leaks(void **state)
{
	test_note("%ld allocations failed in turn", alloc_fail_each(life_of_a_vm, NULL));
}

static void an_empty_transaction_commits_and_changes_nothing(void **state)
{
	struct world w;
	struct dump before = { NULL, 0, 0 }, after = { NULL, 0, 0 };
	struct lf_txn txn;
	struct text ops;

	world_init(&w, NULL);
	world_do(&w, BEFORE);
	dump_vm(&before, w.vm);
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	text_ops(&ops, &w, &txn);
	assert_string_equal(ops.s, "");
	lf_txn_commit(&txn);
	vm_unlock(w.vm);
	dump_vm(&after, w.vm);
	assert_true(dump_equal(&before, &after));
	dump_free(&before);
	dump_free(&after);
	world_fini(&w);
}

static void nobody_sees_a_transaction_before_its_commit(void **state)
{
	struct world w;
	struct lf_txn txn;
	struct lf_view view;
	struct text t;

	world_init(&w, NULL);
	world_do(&w, "map a0+8:0");
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(requests(&w, &txn, "unmap 2+2 map b20+2:0"), 0);
	expect_layout(&w, "a0+8:0");
	lf_txn_view(&txn, &view);
	text_view(&t, &w, &view);
	assert_string_equal(t.s, "a0+2:0 a4+4:4 b20+2:0");
	lf_txn_commit(&txn);
	expect_layout(&w, "a0+2:0 a4+4:4 b20+2:0");
	vm_unlock(w.vm);
	world_fini(&w);
}

static void operations_can_be_walked_again_and_between_requests(void **state)
{
	struct world w;
	struct lf_txn txn;
	struct text ops;

	world_init(&w, NULL);
	world_do(&w, "map a0+8:0");
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(requests(&w, &txn, "unmap 0+4"), 0);
	for (int i = 0; i < 3; i++) {
		text_ops(&ops, &w, &txn);
		assert_string_equal(ops.s, "R a0+8:0 >a4+4:4");
	}
	assert_int_equal(requests(&w, &txn, "unmap 4+4"), 0);
	text_ops(&ops, &w, &txn);
	assert_string_equal(ops.s, "U a0+8:0");
	assert_int_equal(requests(&w, &txn, "map b4+1:0"), 0);
	text_ops(&ops, &w, &txn);
	assert_string_equal(ops.s, "U a0+8:0, M b4+1:0");
	assert_int_equal(requests(&w, &txn, "map c6+1:0"), 0);
	text_ops(&ops, &w, &txn);
	assert_string_equal(ops.s, "U a0+8:0, M b4+1:0, M c6+1:0");
	assert_int_equal(requests(&w, &txn, "map d0+1:0"), 0);
	text_ops(&ops, &w, &txn);
	assert_string_equal(ops.s, "U a0+8:0, M d0+1:0, M b4+1:0, M c6+1:0");
	lf_txn_commit(&txn);
	vm_unlock(w.vm);
	world_fini(&w);
}

static void mappings_that_go_live_on_for_who_has_a_reference(void **state)
{
	struct world w;
	struct lf_mapping *m;

	world_init(&w, NULL);
	world_do(&w, "map a3+8:1");
	m = lf_vm_lookup_get(w.vm, 5 * PAGE);
	assert_non_null(m);
	world_do(&w, "unmap 0+64");
	world_fini(&w);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_true(m->va == 3 * PAGE && m->size == 8 * PAGE && m->offset == PAGE);
	assert_int_equal(m->vm_bo->bo->size, WORLD_BO_PAGES * PAGE);
	assert_ptr_equal(m->vm_bo->vm, m->vm);
	assert_int_equal(lf_vm_error(m->vm), -ESHUTDOWN);
	lf_mapping_put(m);
}

/* --- What is refused ------------------------------------------------------------------------------------------------------------- */

enum { ROOM = 100, RESERVED_AT = 40, RESERVED = 10 };

struct refusal {
	const char *what;
	uint64_t va, size, offset;
	bool sparse;
};

/* Of a VM of pages 10 to 109 with pages 40 to 49 reserved, and a buffer of 20 pages. */
static const struct refusal refusals[] = {
	{ "empty", 10 * PAGE, 0, 0, true },
	{ "address not of the granule", 10 * PAGE + 1, PAGE, 0, true },
	{ "address half of the granule", 10 * PAGE + PAGE / 2, PAGE, 0, true },
	{ "size not of the granule", 10 * PAGE, PAGE + 1, 0, true },
	{ "in front", 9 * PAGE, PAGE, 0, true },
	{ "partly in front", 9 * PAGE, 2 * PAGE, 0, true },
	{ "behind", 110 * PAGE, PAGE, 0, true },
	{ "partly behind", 109 * PAGE, 2 * PAGE, 0, true },
	{ "over both ends", 0, 200 * PAGE, 0, true },
	{ "around the end of 64 bits", 0 - PAGE, 12 * PAGE, 0, true },
	{ "far beyond", 0 - 2 * PAGE, PAGE, 0, true },
	{ "all but a page", PAGE, 0 - PAGE, 0, true },
	{ "the first reserved page", 40 * PAGE, PAGE, 0, true },
	{ "the last reserved page", 49 * PAGE, PAGE, 0, true },
	{ "into the reserved part", 38 * PAGE, 3 * PAGE, 0, true },
	{ "out of the reserved part", 49 * PAGE, 3 * PAGE, 0, true },
	{ "over the reserved part", 30 * PAGE, 30 * PAGE, 0, true },
	{ "more than the buffer", 50 * PAGE, 21 * PAGE, 0, false },
	{ "over the end of the buffer", 50 * PAGE, 5 * PAGE, 16 * PAGE, false },
	{ "behind the buffer", 50 * PAGE, PAGE, 20 * PAGE, false },
	{ "offset that wraps", 50 * PAGE, 2 * PAGE, 0 - PAGE, false },
	{ "an offset that is not of the granule", 50 * PAGE, PAGE, PAGE / 2, false },
	{ "an offset without a buffer", 50 * PAGE, PAGE, PAGE, true },
};

static void refused(struct lf_vm *vm, struct lf_vm_bo *vm_bo, const struct refusal *r)
{
	bool of_buffer = !r->sparse || r->offset;
	struct lf_txn txn;

	vm_lock(vm);
	assert_int_equal(lf_txn_begin(&txn, vm), 0);
	int error = txn_map(&txn, r->sparse ? NULL : vm_bo, r->va, r->size, r->offset);
	unsigned reports = log_count(LF_LOG_MISUSE);
	if (error != -EINVAL || reports != 1)
		print_error("%s: %d, %u reports\n", r->what, error, reports);
	assert_int_equal(error, -EINVAL);
	expect_misuse(1);
	if (!of_buffer) {
		assert_int_equal(lf_txn_unmap(&txn, r->va, r->size), -EINVAL);
		assert_int_equal(lf_txn_split(&txn, r->va, r->size), -EINVAL);
		assert_int_equal(lf_txn_prefetch(&txn, r->va, r->size), -EINVAL);
		expect_misuse(3);
	}
	assert_int_equal(txn_map(&txn, vm_bo, 60 * PAGE, 20 * PAGE, 0), 0); /* not sticky */
	lf_txn_commit(&txn);
	vm_unlock(vm);
	assert_null(look(vm, r->va));
	assert_non_null(look(vm, 60 * PAGE));
	unmap_now(vm, 60 * PAGE, 20 * PAGE);
}

static const struct lf_vm_desc with_reserved = {
	.name = "reserved", .start = 10 * PAGE, .size = ROOM * PAGE, .reserved_start = RESERVED_AT * PAGE, .reserved_size = RESERVED * PAGE
};

static void wrong_ranges_are_refused_and_the_transaction_goes_on(void **state)
{
	struct lf_vm *vm = vm_new(&with_reserved);
	struct lf_bo *bo = bo_new(20 * PAGE, lf_vm_resv(vm));
	struct lf_vm_bo *vm_bo = obtain(vm, bo);

	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
		refused(vm, vm_bo, &refusals[i]);
	lf_vm_bo_put(vm_bo);
	lf_bo_put(bo);
	vm_end(vm);
}

static void ranges_up_to_the_ends_are_not_refused(void **state)
{
	struct lf_vm *vm = vm_new(&with_reserved);
	struct lf_bo *bo = bo_new(20 * PAGE, lf_vm_resv(vm));
	struct lf_vm_bo *vm_bo = obtain(vm, bo);

	map_now(vm, NULL, 10 * PAGE, 30 * PAGE, 0);
	map_now(vm, NULL, 50 * PAGE, 60 * PAGE, 0);
	map_now(vm, vm_bo, 90 * PAGE, 20 * PAGE, 0);
	map_now(vm, vm_bo, 10 * PAGE, PAGE, 19 * PAGE);
	assert_null(look(vm, 10 * PAGE - 1));
	assert_non_null(look(vm, 10 * PAGE));
	assert_non_null(look(vm, 40 * PAGE - 1));
	assert_null(look(vm, 40 * PAGE));
	assert_null(look(vm, 50 * PAGE - 1));
	assert_non_null(look(vm, 50 * PAGE));
	assert_non_null(look(vm, 110 * PAGE - 1));
	assert_null(look(vm, 110 * PAGE));
	lf_vm_bo_put(vm_bo);
	lf_bo_put(bo);
	vm_end(vm);
}

static void a_vm_bo_of_another_vm_is_refused(void **state)
{
	struct world v, w;
	struct lf_txn txn;

	world_init(&v, NULL);
	world_init(&w, NULL);
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(txn_map(&txn, v.vm_bo[0], 0, PAGE, 0), -EINVAL);
	expect_misuse(1);
	assert_int_equal(txn_map(&txn, w.vm_bo[0], 0, PAGE, 0), 0);
	lf_txn_commit(&txn);
	vm_unlock(w.vm);
	expect_layout(&w, "a0+1:0");
	world_fini(&v);
	world_fini(&w);
}

static void a_closed_vm_bo_is_not_mapped(void **state)
{
	struct world w;
	struct lf_txn txn;

	world_init(&w, NULL);
	lf_vm_bo_close(w.vm_bo[0]);
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(txn_map(&txn, w.vm_bo[0], 0, PAGE, 0), -ENOENT);
	lf_txn_abort(&txn);
	vm_unlock(w.vm);
	expect_layout(&w, "");
	world_fini(&w);
}

static void more_mappings_than_the_limit_are_refused(void **state)
{
	const struct lf_vm_desc desc = { .name = "limit", .max_mappings = 4 };
	struct lf_txn txn;
	struct world w;

	world_init(&w, &desc);
	world_do(&w, "map a0+4:0 map a4+4:0 map a8+4:0 map a12+4:0");
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(requests(&w, &txn, "map b20+1"), -ENOSPC);
	assert_int_equal(requests(&w, &txn, "unmap 1+2"), -ENOSPC);
	assert_int_equal(requests(&w, &txn, "split 2+4"), -ENOSPC);
	assert_int_equal(requests(&w, &txn, "map b2+1"), -ENOSPC);
	assert_int_equal(requests(&w, &txn, "unmap 12+4 map b20+1"), 0);
	assert_int_equal(requests(&w, &txn, "map b22+1"), -ENOSPC);
	lf_txn_commit(&txn);
	vm_unlock(w.vm);
	expect_layout(&w, "a0+4:0 a4+4:0 a8+4:0 b20+1:0");
	assert_int_equal(stats_of(w.vm).mappings, 4);
	world_do(&w, "map a0+4:0"); /* is there already */
	world_do(&w, "unmap 0+3");
	expect_layout(&w, "a3+1:3 a4+4:0 a8+4:0 b20+1:0");
	world_fini(&w);
}

static void a_second_transaction_is_refused_while_one_is_open(void **state)
{
	struct lf_txn first, second;
	struct world w;

	world_init(&w, NULL);
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&first, w.vm), 0);
	assert_int_equal(lf_txn_begin(&second, w.vm), -EBUSY);
	expect_misuse(1);
	assert_int_equal(requests(&w, &first, "map a0+1"), 0);
	lf_txn_commit(&first);
	assert_int_equal(lf_txn_begin(&second, w.vm), 0);
	lf_txn_abort(&second);
	assert_int_equal(lf_txn_begin(&second, w.vm), 0);
	lf_txn_commit(&second);
	vm_unlock(w.vm);
	world_fini(&w);
}

static void *begin_elsewhere(void *arg)
{
	struct world *w = arg;
	struct lf_txn txn;

	must(lf_txn_begin(&txn, w->vm) == -EINVAL);
	return NULL;
}

static void a_transaction_needs_the_lock(void **state)
{
	struct lf_txn txn;
	struct world w;

	world_init(&w, NULL);
	assert_int_equal(lf_txn_begin(&txn, w.vm), -EINVAL);
	expect_misuse(1);
	vm_lock(w.vm);
	thread_run(begin_elsewhere, &w, 0);
	expect_misuse(1);
	vm_unlock(w.vm);
	world_fini(&w);
}

static void committing_a_failed_transaction_is_reported_and_an_abort(void **state)
{
	struct lf_txn txn;
	struct world w;

	world_init(&w, NULL);
	world_do(&w, "map a0+8:0");
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(requests(&w, &txn, "map b20+1"), 0);
	alloc_fail_all(true);
	assert_int_equal(requests(&w, &txn, "map b2+1 map c100000+1 unmap 6+1"), -ENOMEM);
	alloc_fail_all(false);
	lf_txn_commit(&txn);
	expect_misuse(1);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	lf_txn_abort(&txn);
	vm_unlock(w.vm);
	expect_layout(&w, "a0+8:0");
	world_fini(&w);
}

static void a_closed_vm_takes_no_transaction(void **state)
{
	struct lf_txn txn;
	struct world w;

	world_init(&w, NULL);
	vm_close(w.vm);
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), -ESHUTDOWN);
	vm_unlock(w.vm);
	world_fini(&w);
}

/* --- What the driver keeps ------------------------------------------------------------------------------------------------------- */

struct driver_mapping {
	uint64_t cookie;
	struct lf_mapping mapping;
	uint64_t first; /* page of the buffer: wrong in a copy until the split hook puts it right */
	char tail[24];
};

struct driver_vm_bo {
	char head[16];
	struct lf_vm_bo vm_bo;
	uint64_t cookie;
};

struct driver {
	unsigned splits, mapping_releases, vm_bo_releases, releases;
	unsigned fail_split_at; /* this one returns -EDOM */
	unsigned wrong;
	pthread_t thread; /* of the test */
	struct lf_vm *vm;
};

static struct driver_mapping *to_driver(const struct lf_mapping *m)
{
	return (struct driver_mapping *)((char *)(uintptr_t)m - offsetof(struct driver_mapping, mapping));
}

static void driver_look(struct driver *d, bool wrong)
{
	if (wrong || lf_read_held() || count_get(&d->releases) != 0)
		count_up(&d->wrong);
}

/* Takes the locks that there are inside: a hook that is called under one would hang. */
static void driver_ask(struct driver *d, struct lf_vm_bo *vm_bo)
{
	driver_look(d, stats_of(vm_bo->vm).mappings > 1000 || lf_vm_bo_is_evicted(vm_bo));
	lf_vm_bo_put(lf_vm_bo_find(vm_bo->vm, vm_bo->bo));
}

static int driver_split(struct lf_mapping *piece, const struct lf_mapping *of, void *data)
{
	struct driver *d = data;
	struct driver_mapping *p = to_driver(piece), *o = to_driver(of);

	driver_look(d, p->cookie != o->cookie || p->first != o->first || memcmp(p->tail, o->tail, sizeof(p->tail)) != 0);
	driver_look(d, piece->vm_bo != of->vm_bo || piece->offset - piece->va != of->offset - of->va);
	driver_look(d, !pthread_equal(d->thread, pthread_self()));
	driver_look(d, piece->va < of->va || piece->va + piece->size > of->va + of->size || !lf_resv_is_held(lf_vm_resv(d->vm)));
	driver_ask(d, piece->vm_bo);
	if (++d->splits == d->fail_split_at)
		return -EDOM;
	p->first = piece->offset / PAGE;
	return 0;
}

static void driver_mapping_release(struct lf_mapping *m, void *data)
{
	struct driver *d = data;

	driver_look(d, pthread_equal(d->thread, pthread_self()) || m->size == 0);
	driver_ask(d, m->vm_bo);
	count_up(&d->mapping_releases);
}

static void driver_vm_bo_release(struct lf_vm_bo *vm_bo, void *data)
{
	struct driver *d = data;
	struct driver_vm_bo *b = (struct driver_vm_bo *)((char *)vm_bo - offsetof(struct driver_vm_bo, vm_bo));

	driver_look(d, pthread_equal(d->thread, pthread_self()) || b->cookie != 7);
	driver_ask(d, vm_bo);
	count_up(&d->vm_bo_releases);
}

static void driver_release(void *data)
{
	struct driver *d = data;

	driver_look(d, pthread_equal(d->thread, pthread_self()));
	count_up(&d->releases);
}

static const struct lf_vm_ops driver_ops = {
	.split = driver_split, .mapping_release = driver_mapping_release, .vm_bo_release = driver_vm_bo_release, .release = driver_release
};

static void driver_init(struct driver *d, struct world *w)
{
	const struct lf_vm_desc desc = { .name = "driver", .mapping_size = sizeof(struct driver_mapping),
		.mapping_offset = offsetof(struct driver_mapping, mapping), .vm_bo_size = sizeof(struct driver_vm_bo),
		.vm_bo_offset = offsetof(struct driver_vm_bo, vm_bo), .ops = &driver_ops, .data = d };

	memset(d, 0, sizeof(*d));
	d->thread = pthread_self();
	world_init(w, &desc);
	d->vm = w->vm;
	assert_ptr_equal(lf_vm_data(w->vm), d);
	for (int i = 0; i < WORLD_BOS; i++)
		((struct driver_vm_bo *)((char *)w->vm_bo[i] - offsetof(struct driver_vm_bo, vm_bo)))->cookie = 7;
}

/* Until the last hook has run the driver's data must stay. */
static void driver_fini(struct driver *d, struct world *w)
{
	world_fini(w);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&d->wrong), 0);
	assert_int_equal(count_get(&d->releases), 1);
}

static void driver_map(struct world *w, uint64_t page, uint64_t count, uint64_t cookie)
{
	const struct lf_map_desc desc = { .va = page * PAGE, .size = count * PAGE, .vm_bo = w->vm_bo[0], .offset = page * PAGE };
	static const struct driver_mapping zero;
	struct lf_mapping *m = NULL;
	struct lf_txn txn;

	vm_lock(w->vm);
	assert_int_equal(lf_txn_begin(&txn, w->vm), 0);
	assert_int_equal(lf_txn_map(&txn, &desc, &m), 0);
	struct driver_mapping *d = to_driver(m);
	assert_int_equal(d->cookie, 0);
	assert_int_equal(d->first, 0);
	assert_memory_equal(d->tail, zero.tail, sizeof(d->tail));
	d->cookie = cookie;
	d->first = page;
	memset(d->tail, (int)cookie, sizeof(d->tail));
	lf_txn_commit(&txn);
	vm_unlock(w->vm);
}

static void expect_driver(struct world *w, uint64_t page, uint64_t cookie)
{
	const struct lf_mapping *m = look(w->vm, page * PAGE);

	assert_non_null(m);
	assert_int_equal(to_driver(m)->cookie, cookie);
	assert_int_equal(to_driver(m)->first, m->offset / PAGE);
	assert_int_equal(to_driver(m)->tail[23], cookie);
}

static void what_the_driver_keeps_is_copied_to_pieces_and_put_right_by_its_hook(void **state)
{
	struct driver d;
	struct world w;

	driver_init(&d, &w);
	driver_map(&w, 0, 16, 11);
	driver_map(&w, 20, 10, 22);
	world_do(&w, "unmap 4+2");
	world_do(&w, "split 9+2 map b22+2:0");
	expect_layout(&w, "a0+4:0 a6+3:6 a9+2:9 a11+5:11 a20+2:20 b22+2:0 a24+6:24");
	expect_driver(&w, 0, 11);
	expect_driver(&w, 6, 11);
	expect_driver(&w, 9, 11);
	expect_driver(&w, 11, 11);
	expect_driver(&w, 20, 22);
	expect_driver(&w, 24, 22);
	assert_int_equal(to_driver(look(w.vm, 22 * PAGE))->cookie, 0);
	assert_int_equal(d.wrong, 0);
	assert_true(d.splits >= 7);
	driver_fini(&d, &w);
}

static void release_hooks_are_called_once_each_on_another_thread(void **state)
{
	struct lf_mapping *kept;
	struct lf_txn txn;
	struct driver d;
	struct world w;

	driver_init(&d, &w);
	driver_map(&w, 0, 16, 11);
	driver_map(&w, 20, 10, 22);
	kept = lf_vm_lookup_get(w.vm, 0);
	world_do(&w, "unmap 4+2"); /* two pieces, one goes; it is kept */
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&d.mapping_releases), 0);
	vm_lock(w.vm);
	lf_mapping_put(kept);
	vm_unlock(w.vm);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&d.mapping_releases), 1);
	world_do(&w, "unmap 20+10");
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&d.mapping_releases), 2);
	assert_int_equal(count_get(&d.vm_bo_releases), 0);
	world_put_bos(&w);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&d.vm_bo_releases), WORLD_BOS - 1); /* one has mappings */
	vm_lock(w.vm);
	assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
	assert_int_equal(requests(&w, &txn, "unmap 0+64"), 0);
	lf_txn_abort(&txn);
	vm_unlock(w.vm);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&d.mapping_releases), 2);
	vm_end(w.vm);
	assert_int_equal(lf_reclaim_barrier(), 0);
	assert_int_equal(count_get(&d.mapping_releases), 4);
	assert_int_equal(count_get(&d.vm_bo_releases), WORLD_BOS);
	assert_int_equal(count_get(&d.releases), 1);
	assert_int_equal(count_get(&d.wrong), 0);
}

static void an_error_of_the_split_hook_fails_the_transaction_and_nothing_leaks(void **state)
{
	struct picture before = { { NULL, 0, 0 }, { 0, 0, 0, 0, 0, 0 } };
	struct driver d;
	struct world w;
	struct lf_txn txn;

	driver_init(&d, &w);
	driver_map(&w, 0, 16, 11);
	driver_map(&w, 20, 10, 22);
	picture_take(&before, w.vm);
	for (unsigned n = 1; n <= 12; n++) {
		vm_lock(w.vm);
		assert_int_equal(lf_txn_begin(&txn, w.vm), 0);
		d.splits = d.mapping_releases = 0;
		d.fail_split_at = n;
		int error = requests(&w, &txn, "unmap 2+2 split 6+2 unmap 22+2");
		assert_int_equal(error, n <= d.splits ? -EDOM : 0);
		if (n <= d.splits)
			assert_int_equal(lf_txn_unmap(&txn, 0, PAGE), -EDOM);
		lf_txn_abort(&txn);
		vm_unlock(w.vm);
		assert_int_equal(lf_reclaim_barrier(), 0);
		assert_true(picture_matches(&before, w.vm));
		/* what the hook has put right is released, what it refused is not */
		assert_int_equal(count_get(&d.mapping_releases), n <= d.splits ? n - 1 : d.splits);
	}
	assert_int_equal(d.wrong, 0);
	expect_driver(&w, 0, 11);
	expect_driver(&w, 20, 22);
	dump_free(&before.dump);
	driver_fini(&d, &w);
}

static void what_is_missing_is_reported(void **state)
{
	struct lf_vm *vm = vm_new(&(struct lf_vm_desc){ .name = "vm" });
	struct lf_txn txn, never = { 0 };

	vm_lock(vm);
	assert_int_equal(lf_txn_begin(NULL, vm), -EINVAL);
	assert_int_equal(lf_txn_unmap(&never, 0, PAGE), -EINVAL);
	lf_txn_abort(&never);
	assert_int_equal(log_count(LF_LOG_MISUSE), 3);
	log_reset();
	assert_int_equal(lf_txn_begin(&txn, vm), 0);
	assert_int_equal(lf_txn_map(&txn, NULL, NULL), -EINVAL);
	assert_int_equal(log_count(LF_LOG_MISUSE), 1);
	log_reset();
	lf_txn_abort(&txn);
	vm_unlock(vm);
	lf_vm_put(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(random_transactions_are_what_arrays_of_pages_say),
		TEST_WARM(random_transactions_at_the_end_of_the_address_space),
		TEST_WARM(random_transactions_with_a_granule_of_a_byte),
		TEST_WARM(random_transactions_while_buffers_are_closed),
		TEST_WARM(abort_leaves_no_trace_at_any_point),
		TEST_WARM(every_allocation_of_a_transaction_may_fail_and_the_error_stays),
		TEST_WARM(every_allocation_in_the_life_of_a_vm_may_fail_and_nothing_leaks),
		TEST_WARM(an_empty_transaction_commits_and_changes_nothing),
		TEST_WARM(nobody_sees_a_transaction_before_its_commit),
		TEST_WARM(operations_can_be_walked_again_and_between_requests),
		TEST_WARM(mappings_that_go_live_on_for_who_has_a_reference),
		TEST_WARM(wrong_ranges_are_refused_and_the_transaction_goes_on),
		TEST_WARM(ranges_up_to_the_ends_are_not_refused),
		TEST_WARM(a_vm_bo_of_another_vm_is_refused),
		TEST_WARM(a_closed_vm_bo_is_not_mapped),
		TEST_WARM(more_mappings_than_the_limit_are_refused),
		TEST_WARM(a_second_transaction_is_refused_while_one_is_open),
		TEST_WARM(a_transaction_needs_the_lock),
		TEST_WARM(committing_a_failed_transaction_is_reported_and_an_abort),
		TEST_WARM(a_closed_vm_takes_no_transaction),
		TEST_WARM(what_the_driver_keeps_is_copied_to_pieces_and_put_right_by_its_hook),
		TEST_WARM(release_hooks_are_called_once_each_on_another_thread),
		TEST_WARM(an_error_of_the_split_hook_fails_the_transaction_and_nothing_leaks),
		TEST(what_is_missing_is_reported),
	};
	return TEST_MAIN(tests);
}
