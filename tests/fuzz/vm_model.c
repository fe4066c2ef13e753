/* SPDX-License-Identifier: MIT */
/* The naive model of an address space; see vm_model.h. */
#include "vm_model.h"

const uint64_t around_magic = UINT64_C(0x600dda7a0fa3a991);

struct around *to_around(const struct lf_mapping *m)
{
	return (struct around *)(uintptr_t)((uintptr_t)m - offsetof(struct around, m));
}

void version_clear(struct version *v)
{
	memset(v, 0, sizeof(*v));
}

void version_copy(const struct model *model, struct version *dst, const struct version *src)
{
	memcpy(dst->tree, src->tree, model->pages * sizeof(dst->tree[0]));
	memcpy(dst->seen, src->seen, model->pages * sizeof(dst->seen[0]));
	memcpy(dst->prefetch, src->prefetch, sizeof(dst->prefetch));
	dst->prefetches = src->prefetches;
}

/* --- Ranges ---------------------------------------------------------------------------------------------------------------- */

uint64_t model_va(const struct model *model, unsigned first)
{
	return model->bound[first];
}

uint64_t model_size(const struct model *model, unsigned first, unsigned last)
{
	return model->bound[last + 1] - model->bound[first];
}

/* Bounds rise, but for the last, which may have wrapped. */
unsigned model_page(const struct model *model, uint64_t va)
{
	unsigned low = 0, high = model->pages;
	must(va >= model->bound[0] && va - model->bound[0] <= model->bound[model->pages] - model->bound[0] - 1);
	while (high - low > 1) {
		unsigned middle = (low + high) / 2;
		if (va >= model->bound[middle])
			low = middle;
		else
			high = middle;
	}
	return low;
}

static bool begins_at(const struct model *model, uint16_t r, unsigned page)
{
	return r != 0 && model->record[r].first == page;
}

unsigned model_count(const struct model *model, const struct version *v)
{
	unsigned count = 0;
	for (unsigned p = 0; p < model->pages; p++)
		count += begins_at(model, v->tree[p], p);
	return count;
}

/* --- Changing a version ---------------------------------------------------------------------------------------------------- */

uint16_t model_record(struct model *model, const struct record *like, unsigned first, unsigned last)
{
	struct record *r = &model->record[model->records];
	must(model->records < MODEL_RECORDS);
	*r = *like;
	r->first = (uint16_t)first;
	r->last = (uint16_t)last;
	return (uint16_t)model->records++;
}

static bool is_dead(const struct model *model, uint16_t r)
{
	return model->pair[model->record[r].pair].closed;
}

static bool is_in(const struct version *v, const struct model *model, uint16_t r)
{
	return v->tree[model->record[r].first] == r;
}

static void put(const struct model *model, struct version *v, unsigned first, unsigned last, uint16_t r)
{
	uint16_t seen = is_dead(model, r) ? 0 : r;
	for (unsigned p = first; p <= last; p++) {
		v->tree[p] = r;
		v->seen[p] = seen;
	}
}

static bool comes_from(const struct model *model, uint16_t piece, uint16_t whole)
{
	while (piece != 0 && piece != whole)
		piece = model->record[piece].of;
	return piece != 0;
}

/* The library made a piece of @whole, directly or from another piece, and said so. */
static void put_piece(struct model *model, struct version *v, uint16_t whole, unsigned first, unsigned last, unsigned mark)
{
	for (unsigned r = mark; r < model->records; r++) {
		const struct record *piece = &model->record[r];
		if (piece->first != first || piece->last != last || !comes_from(model, (uint16_t)r, whole))
			continue;
		put(model, v, first, last, (uint16_t)r);
		return;
	}
	must_failed(__FILE__, __LINE__, "the split hook was called for each piece");
}

/* What sticks out of a range: a piece, but what is dead goes whole. */
static void keep_piece(struct model *model, struct version *v, uint16_t whole, unsigned first, unsigned last, unsigned mark)
{
	if (is_dead(model, whole))
		put(model, v, first, last, 0);
	else
		put_piece(model, v, whole, first, last, mark);
}

void model_fill(struct model *model, struct version *v, unsigned first, unsigned last, uint16_t r, unsigned mark)
{
	uint16_t left = v->tree[first], right = v->tree[last];
	if (left != 0 && model->record[left].first < first)
		keep_piece(model, v, left, model->record[left].first, first - 1, mark);
	if (right != 0 && model->record[right].last > last)
		keep_piece(model, v, right, last + 1, model->record[right].last, mark);
	put(model, v, first, last, r);
}

/* Cuts a mapping in three, of which the outer two may be empty. */
static void cut(struct model *model, struct version *v, uint16_t whole, unsigned first, unsigned last, unsigned mark)
{
	unsigned begin = model->record[whole].first, end = model->record[whole].last;
	if (is_dead(model, whole) || (first == begin && last == end))
		return;
	if (first != begin)
		put_piece(model, v, whole, begin, first - 1, mark);
	put_piece(model, v, whole, first, last, mark);
	if (last != end)
		put_piece(model, v, whole, last + 1, end, mark);
}

void model_split(struct model *model, struct version *v, unsigned first, unsigned last, unsigned mark)
{
	uint16_t left = v->tree[first], right = v->tree[last];
	if (left != 0 && left == right) {
		cut(model, v, left, first, last, mark);
		return;
	}
	if (left != 0)
		cut(model, v, left, first, model->record[left].last, mark);
	if (right != 0)
		cut(model, v, right, model->record[right].first, last, mark);
}

void model_hide(const struct model *model, struct version *v)
{
	for (unsigned p = 0; p < model->pages; p++)
		v->seen[p] = is_dead(model, v->seen[p]) ? 0 : v->seen[p];
}

void model_reap(const struct model *model, const struct version *asked, struct version *v)
{
	for (unsigned p = 0; p < model->pages; p++)
		v->tree[p] = is_dead(model, v->tree[p]) && is_in(asked, model, v->tree[p]) ? 0 : v->tree[p];
}

/* --- Checking what the library says ---------------------------------------------------------------------------------------- */

void check_mapping(const struct model *model, uint16_t r, const struct lf_mapping *m)
{
	const struct record *record = &model->record[r];
	const struct around *around = to_around(m);
	must(record->m == m);
	must(m->va == model->bound[record->first]);
	must(m->size == model->bound[record->last + 1] - m->va);
	must(m->offset == record->offset);
	must(m->flags == record->flags);
	must(m->vm_bo == model->pair[record->pair].vm_bo);
	must(around->magic == around_magic && around->self == m);
	must(around->record == r);
	must(around->tag == record->tag && around->behind == ~(uint64_t)record->tag);
}

static void check_found(const struct model *model, uint16_t r, const struct lf_mapping *m)
{
	if (r == 0)
		must(m == NULL);
	else
		must(m != NULL);
	if (r != 0)
		check_mapping(model, r, m);
}

static uint16_t first_from(const struct model *model, const struct version *v, int page)
{
	for (int p = page < 0 ? 0 : page; p < (int)model->pages; p++) {
		if (v->seen[p] != 0)
			return v->seen[p];
	}
	return 0;
}

static uint16_t last_until(const struct model *model, const struct version *v, int page)
{
	for (int p = page < (int)model->pages ? page : (int)model->pages - 1; p >= 0; p--) {
		if (v->seen[p] != 0)
			return v->seen[p];
	}
	return 0;
}

static void check_neighbours(const struct model *model, const struct lf_view *view, const struct version *v, uint16_t r)
{
	const struct record *record = &model->record[r];
	uint16_t before = record->first == 0 ? 0 : v->seen[record->first - 1];
	uint16_t behind = record->last + 1U == model->pages ? 0 : v->seen[record->last + 1];
	check_found(model, before, lf_view_adjacent_prev(view, record->m));
	check_found(model, behind, lf_view_adjacent_next(view, record->m));
}

/* At the first or the last address of a page. */
static void check_address(const struct model *model, const struct lf_view *view, const struct version *v, int page, uint64_t va)
{
	bool inside = page >= 0 && page < (int)model->pages;
	check_found(model, inside ? v->seen[page] : 0, lf_view_lookup(view, va));
	check_found(model, first_from(model, v, page), lf_view_next(view, va));
	check_found(model, last_until(model, v, page), lf_view_prev(view, va));
}

void check_page(const struct model *model, const struct lf_view *view, const struct version *v, int page)
{
	if (page >= 0 && model->bound[page] != 0)
		check_address(model, view, v, page - 1, model->bound[page] - 1);
	if (page >= 0 && (page < (int)model->pages || model->bound[page] != 0))
		check_address(model, view, v, page, model->bound[page]);
	if (page < (int)model->pages && (page >= 0 || model->bound[0] != 0))
		check_address(model, view, v, page, model->bound[page + 1] - 1);
	if (page >= 0 && page < (int)model->pages && v->seen[page] != 0)
		check_neighbours(model, view, v, v->seen[page]);
}

void check_range(const struct model *model, const struct lf_view *view, const struct version *v, unsigned first, unsigned last)
{
	struct lf_walk walk;
	lf_walk_begin(&walk, view, model_va(model, first), model_size(model, first, last));
	for (unsigned p = first; p <= last; p++) {
		uint16_t r = v->seen[p];
		if (r == 0)
			continue;
		check_found(model, r, lf_walk_next(&walk));
		p = model->record[r].last;
	}
	must(lf_walk_next(&walk) == NULL);
}

/* --- Operations ------------------------------------------------------------------------------------------------------------ */

void tables_begin(struct tables *t, const struct model *model, const struct version *before, const struct version *after)
{
	t->model = model;
	t->before = before;
	t->after = after;
	t->phase = LF_VM_OP_UNMAP;
	t->at = 0;
	t->kept = 0;
	memset(t->ops, 0, sizeof(t->ops));
	memcpy(t->owner, before->tree, model->pages * sizeof(t->owner[0]));
	memcpy(t->memory, before->tree, model->pages * sizeof(t->memory[0]));
	memset(t->kept_at, 0, model->pages * sizeof(t->kept_at[0]));
	memset(t->wanted, 0, model->pages * sizeof(t->wanted[0]));
}

/* The record of a mapping that an operation names, which is as it was made. */
static uint16_t record_of(const struct tables *t, const struct lf_mapping *m)
{
	uint32_t r = to_around(m)->record;
	must(r != 0 && r < t->model->records);
	check_mapping(t->model, (uint16_t)r, m);
	return (uint16_t)r;
}

static void own(struct tables *t, unsigned first, unsigned last, uint16_t before, uint16_t after)
{
	for (unsigned p = first; p <= last; p++) {
		must(t->owner[p] == before);
		t->owner[p] = after;
	}
}

static bool same_memory(const struct model *model, uint16_t a, uint16_t b)
{
	const struct record *x = &model->record[a], *y = &model->record[b];
	if (a == 0 || b == 0 || x->pair == 0 || y->pair == 0)
		return (a == 0) == (b == 0) && (a == 0 || x->pair == y->pair);
	return x->pair == y->pair && x->offset - model->bound[x->first] == y->offset - model->bound[y->first];
}

/* The pages of an operation, which may be none. */
static struct pages pages_of(const struct tables *t, const struct lf_vm_op *op)
{
	struct pages s = { 1, 0 };
	if (op->size == 0)
		return s;
	s = (struct pages){ model_page(t->model, op->va), model_page(t->model, op->va + (op->size - 1)) };
	must(t->model->bound[s.first] == op->va && t->model->bound[s.last + 1] == op->va + op->size);
	return s;
}

static void overwrite(struct tables *t, const struct lf_vm_op *op, uint16_t r)
{
	struct pages s = pages_of(t, op);
	for (unsigned p = s.first; p <= s.last && !op->keep; p++)
		t->memory[p] = r;
}

/* What goes is kept exactly if the same memory comes everywhere there. */
static void check_kept(struct tables *t, const struct lf_vm_op *op)
{
	struct pages s = pages_of(t, op);
	bool same = true;
	for (unsigned p = s.first; p <= s.last; p++)
		same = same && same_memory(t->model, t->before->tree[p], t->after->tree[p]);
	must(op->keep == same);
	for (unsigned p = s.first; p <= s.last; p++)
		t->kept_at[p] = op->keep;
}

/* What comes is there already if it is a piece of something that went, and was kept. */
static bool is_there(const struct tables *t, uint16_t r)
{
	uint16_t whole = r;
	while (whole != 0 && !is_in(t->before, t->model, whole))
		whole = t->model->record[whole].of;
	return whole != 0 && t->kept_at[t->model->record[r].first];
}

static void in_order(struct tables *t, enum lf_vm_op_kind phase, uint64_t va)
{
	if (t->phase != phase) {
		must(t->phase < phase);
		t->phase = phase;
		t->at = 0;
	}
	must(va >= t->at);
	t->at = va;
}

static void goes_whole(struct tables *t, const struct lf_vm_op *op)
{
	uint16_t r = record_of(t, op->mapping);
	const struct record *record = &t->model->record[r];
	must(op->prev == NULL && op->next == NULL);
	must(op->va == op->mapping->va && op->size == op->mapping->size);
	own(t, record->first, record->last, r, 0);
}

/* What is left of a mapping at one of its ends. */
static const struct record *stays(struct tables *t, uint16_t whole, const struct lf_mapping *m)
{
	uint16_t r = record_of(t, m);
	const struct record *piece = &t->model->record[r];
	must(r != whole && comes_from(t->model, r, whole));
	must(is_in(t->after, t->model, r));
	own(t, piece->first, piece->last, 0, r);
	return piece;
}

static void goes_in_part(struct tables *t, const struct lf_vm_op *op)
{
	uint16_t r = record_of(t, op->mapping);
	const struct record *record = &t->model->record[r];
	unsigned first = record->first, last = record->last + 1U;
	must(op->prev != NULL || op->next != NULL);
	own(t, record->first, record->last, r, 0);
	if (op->prev) {
		must(op->prev->va == op->mapping->va);
		first = stays(t, r, op->prev)->last + 1U;
	}
	if (op->next) {
		must(op->next->va + (op->next->size - 1) == op->mapping->va + (op->mapping->size - 1));
		last = stays(t, r, op->next)->first;
	}
	must(op->va == t->model->bound[first] && op->size == t->model->bound[last] - t->model->bound[first]);
}

/* A piece at one of its ends must have been told as such. */
static void told_pieces(struct tables *t, const struct lf_vm_op *op)
{
	uint16_t r = record_of(t, op->mapping);
	const struct record *record = &t->model->record[r];
	uint16_t at_begin = t->after->tree[record->first], at_end = t->after->tree[record->last];
	bool begins = at_begin != 0 && comes_from(t->model, at_begin, r);
	bool ends = at_end != 0 && comes_from(t->model, at_end, r);
	must(is_in(t->before, t->model, r) && !is_in(t->after, t->model, r));
	must((op->prev != NULL) == begins && (op->next != NULL) == ends);
}

static void comes(struct tables *t, const struct lf_vm_op *op)
{
	uint16_t r = record_of(t, op->mapping);
	const struct record *record = &t->model->record[r];
	must(op->prev == NULL && op->next == NULL);
	must(op->va == op->mapping->va && op->size == op->mapping->size);
	must(is_in(t->after, t->model, r) && !is_in(t->before, t->model, r));
	must(op->keep == is_there(t, r));
	own(t, record->first, record->last, 0, r);
	overwrite(t, op, r);
	for (unsigned p = record->first; p <= record->last; p++)
		must(same_memory(t->model, t->memory[p], r));
}

static void is_wanted(struct tables *t, const struct lf_vm_op *op)
{
	uint16_t r = record_of(t, op->mapping);
	struct pages s = pages_of(t, op);
	must(op->size != 0 && s.first >= t->model->record[r].first && s.last <= t->model->record[r].last);
	must(is_in(t->after, t->model, r));
	for (unsigned p = s.first; p <= s.last; p++)
		t->wanted[p]++;
}

void tables_apply(struct tables *t, const struct lf_vm_op *op)
{
	switch (op->kind) {
	case LF_VM_OP_UNMAP:
		in_order(t, LF_VM_OP_UNMAP, op->mapping->va);
		told_pieces(t, op);
		goes_whole(t, op);
		check_kept(t, op);
		overwrite(t, op, 0);
		break;
	case LF_VM_OP_REMAP:
		in_order(t, LF_VM_OP_UNMAP, op->mapping->va);
		told_pieces(t, op);
		goes_in_part(t, op);
		check_kept(t, op);
		overwrite(t, op, 0);
		break;
	case LF_VM_OP_MAP:
		in_order(t, LF_VM_OP_MAP, op->mapping->va);
		comes(t, op);
		break;
	case LF_VM_OP_PREFETCH:
		in_order(t, LF_VM_OP_PREFETCH, UINT64_MAX);
		is_wanted(t, op);
		break;
	default:
		must_failed(__FILE__, __LINE__, "a known kind of operation");
	}
	t->ops[op->kind]++;
	t->kept += op->keep;
}

/* Of each page that is seen, at least one operation if somebody asked for it, and at most one for each request. */
static void check_wanted(struct tables *t)
{
	uint8_t asked[MODEL_PAGES];
	memset(asked, 0, t->model->pages);
	for (unsigned i = 0; i < t->after->prefetches; i++) {
		for (unsigned p = t->after->prefetch[i].first; p <= t->after->prefetch[i].last; p++)
			asked[p]++;
	}
	for (unsigned p = 0; p < t->model->pages; p++) {
		must(t->wanted[p] <= asked[p]);
		must((t->wanted[p] != 0) == (asked[p] != 0 && t->after->seen[p] != 0));
	}
}

void tables_end(struct tables *t)
{
	must(memcmp(t->owner, t->after->tree, t->model->pages * sizeof(t->owner[0])) == 0);
	for (unsigned p = 0; p < t->model->pages; p++) {
		if (t->memory[p] != t->after->tree[p])
			must(same_memory(t->model, t->memory[p], t->after->tree[p]));
	}
	if (t->after->prefetches != 0 || t->phase == LF_VM_OP_PREFETCH)
		check_wanted(t);
}
