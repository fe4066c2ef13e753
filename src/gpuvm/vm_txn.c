/* SPDX-License-Identifier: MIT */
/*
 * Transactions: requests, operations, commit and abort.
 *
 * Purpose: a change of any size is prepared on a tree of its own (va_tree.h), and becomes a version of the VM by one store. So what fails
 * before leaves no trace, and what comes after cannot fail. Operations are not recorded: they are the difference between two versions.
 *
 * States:
 *
 *     begun --a request fails--> failed --lf_txn_abort()--> ended
 *       \--lf_txn_commit(), lf_txn_submit(), lf_txn_abort()--> ended
 *
 * | list  | which mappings                                                     | linked by  | at the commit              | at an abort |
 * |-------|--------------------------------------------------------------------|------------|----------------------------|-------------|
 * | born  | in the transaction's tree, not in the VM's; tag is the edit's birth | next, prev | into their VM_BOs' lists   | freed       |
 * | gone  | in the VM's tree, not in the transaction's; tag has MAPPING_GONE    | of         | out of those lists, buried | as before   |
 *
 * Invariants (txn_assert_valid()):
 * X1. A mapping is in at most one of the lists; what was born and replaced in the same transaction is freed at once.
 * X2. `of` of a born mapping is the mapping of the VM's tree that it is a piece of, which is in gone, or NULL.
 * X3. vm->mappings + txn->mappings is what the VM will have, and never more than its limit.
 * X4. After an error, nothing is looked at but the lists.
 *
 * Locking: the VM's reservation, from begin to end; so there is one transaction of a VM at a time (vm->txn).
 *
 * The mappings of a closed BO (dead ones) are never split: what touches one unmaps it whole.
 *
 * Not here: the tree, publishing (version.c), the bind queue (bind.c).
 */
#include <inttypes.h>

#include "base/alloc.h"
#include "base/reclaim.h"
#include "gpuvm/vm.h"

/* Up to so many mappings a debug build checks the whole tree after each request. */
enum { CHECK_ALL = 256 };

/* A range that shall be prefetched. The transaction has the last one. */
struct prefetch {
	struct prefetch *next; /* the request after this one; of the last one, the first */
	uint64_t va, last;
};

/* A range of addresses, its last one included. */
struct span {
	uint64_t va, last;
};

/* --- Checks ---------------------------------------------------------------------------------------------------------------- */

static bool is_open(const struct lf_txn *txn)
{
	return txn && txn->vm && txn->vm->txn == txn;
}

/* How many mappings the VM would have (X3). */
static int64_t count_mappings(const struct lf_txn *txn)
{
	return (int64_t)u64_load(&txn->vm->mappings, memory_order_relaxed) + txn->mappings; /* relaxed: changed under the reservation */
}

int txn_check(const struct lf_txn *txn, const char *function)
{
	if (unlikely(!is_open(txn)))
		return misuse(-EINVAL, "%s: the transaction was not begun, or has ended", function);
	return library_poisoned() ? -EOWNERDEAD : txn->error;
}

static bool is_born(const struct lf_txn *txn, const struct lf_mapping *m)
{
	return mapping_birth(m) == txn->edit.birth;
}

static void txn_assert_valid(const struct lf_txn *txn)
{
	struct lf_view view;

	if (!DEBUG_CHECKS || txn->error || count_mappings(txn) > CHECK_ALL)
		return;
	lf_txn_view(txn, &view);
	vm_check_view(&view);
	for (const struct lf_mapping *m = txn->born; m; m = m->next) {
		invariant(is_born(txn, m)); /* X1 */
		invariant(!m->of || (m->of->tag & MAPPING_GONE)); /* X2 */
	}
	for (const struct lf_mapping *m = txn->gone; m; m = m->of)
		invariant(m->tag & MAPPING_GONE); /* X1 */
}

/* The error stays (X4). */
static int fail(struct lf_txn *txn, int error)
{
	txn->error = error;
	return error;
}

/* Whether a range may be changed: 0 or -EINVAL, and the error before. */
static int check_range(const struct lf_txn *txn, uint64_t va, uint64_t size, struct span *ret_span, const char *function)
{
	int ret = txn_check(txn, function);
	const struct lf_vm *vm;
	uint64_t mask;

	*ret_span = (struct span){ va, va + (size - 1) };
	if (ret)
		return ret;
	vm = txn->vm;
	mask = (UINT64_C(1) << vm->shift) - 1;
	if (unlikely(size == 0 || ((va | size) & mask)))
		return misuse(-EINVAL, "%s: %#" PRIx64 " bytes at %#" PRIx64 " are nothing, or not of the granule, %#" PRIx64, function, size, va,
			mask + 1);
	if (unlikely(!vm_has(vm, va) || size - 1 > vm->extent - (va - vm->start)))
		return misuse(-EINVAL, "%s: %#" PRIx64 " bytes at %#" PRIx64 " are not within %s", function, size, va, vm->name);
	if (unlikely(ret_span->last - vm->start >= vm->reserved_first && va - vm->start <= vm->reserved_last &&
		     vm->reserved_first <= vm->reserved_last))
		return misuse(-EINVAL, "%s: %#" PRIx64 " bytes at %#" PRIx64 " touch what is reserved of %s", function, size, va, vm->name);
	return 0;
}

/* --- Begin ------------------------------------------------------------------------------------------------------------------ */

int lf_txn_begin(struct lf_txn *txn, struct lf_vm *vm)
{
	int ret = library_enter();

	if (ret)
		return ret;
	if (unlikely(!txn))
		return misuse(-EINVAL, "lf_txn_begin: the transaction is NULL");
	ret = vm_check_change(vm, __func__);
	if (ret)
		return ret;
	ret = lf_vm_error(vm);
	if (ret)
		return ret;
	reclaim_throttle();
	*txn = (struct lf_txn){ .vm = vm };
	/* relaxed: only closes write it meanwhile, and a birth may be too low */
	va_edit_begin(&txn->edit, (struct va_node *)ptr_load(&vm->root, memory_order_relaxed),
		u64_load(&vm->version, memory_order_relaxed) + 1); /* relaxed: as above */
	vm->txn = txn;
	return 0;
}

void lf_txn_view(const struct lf_txn *txn, struct lf_view *ret_view)
{
	lf_vm_view(txn->vm, ret_view);
	if (!txn->error) /* X4 */
		ret_view->root = (uintptr_t)txn->edit.root;
}

/* --- Lists ------------------------------------------------------------------------------------------------------------------- */

static void add_born(struct lf_txn *txn, struct lf_mapping *m)
{
	mapping_list_push(&txn->born, m);
	txn->mappings++;
	txn->sorted = false;
}

static void remove_born(struct lf_txn *txn, struct lf_mapping *m)
{
	mapping_list_remove(&txn->born, m);
	txn->mappings--;
}

/* The transaction's tree does not have the mapping any more. */
static void take_out(struct lf_txn *txn, struct lf_mapping *m)
{
	txn->sorted = false;
	if (is_born(txn, m)) {
		remove_born(txn, m);
		m->next = NULL;
		mapping_end_list(m);
		return;
	}
	m->tag |= MAPPING_GONE;
	m->of = txn->gone;
	txn->gone = m;
	txn->mappings--;
}

/* --- Changing the tree -------------------------------------------------------------------------------------------------------- */

/* Lets a range show a mapping, or nothing. */
static int set(struct lf_txn *txn, struct span s, struct lf_mapping *m)
{
	if (!va_edit_set(&txn->edit, vm_page(txn->vm, s.va), vm_page(txn->vm, s.last), m))
		return fail(txn, -ENOMEM);
	return 0;
}

/* The first mapping, dead or alive, that overlaps a range. */
static struct lf_mapping *first_in(const struct lf_txn *txn, struct span s)
{
	return va_tree_first(txn->edit.root, vm_page(txn->vm, s.va), vm_page(txn->vm, s.last));
}

/* The one behind, in the same range. */
static struct lf_mapping *next_in(const struct lf_txn *txn, struct span s, uint64_t last)
{
	return last >= s.last ? NULL : first_in(txn, (struct span){ last + 1, s.last });
}

static bool is_dead(const struct lf_mapping *m)
{
	return mapping_is_dead(m, UINT64_MAX - 1);
}

static int call_split(struct lf_vm *vm, struct lf_mapping *piece, const struct lf_mapping *of)
{
	struct hook_frame frame;
	int ret;

	if (!vm->ops->split)
		return 0;
	hook_enter(&frame, vm->resource.provider);
	ret = vm->ops->split(piece, of, vm->data);
	hook_leave(&frame);
	return ret;
}

/* Makes a piece of a mapping, and puts it in its place. */
static int make_piece(struct lf_txn *txn, struct lf_mapping *of, struct span s)
{
	struct lf_mapping *piece = mapping_create_piece(of, s.va, s.last - s.va + 1, txn->edit.birth);
	int ret;

	if (!piece)
		return fail(txn, -ENOMEM);
	ret = call_split(txn->vm, piece, of);
	if (ret) {
		mapping_discard(piece);
		return fail(txn, ret);
	}
	piece->of = is_born(txn, of) ? of->of : of;
	add_born(txn, piece);
	return set(txn, s, piece);
}

/* Makes pieces of what sticks out of a range, and takes the mapping out. What it showed in the range is the caller's to set. */
static int cut_out(struct lf_txn *txn, struct lf_mapping *m, struct span s)
{
	uint64_t last = mapping_last(m);
	int ret = 0;

	if (unlikely(is_dead(m))) {
		ret = set(txn, (struct span){ m->va, last }, NULL);
	} else {
		if (m->va < s.va)
			ret = make_piece(txn, m, (struct span){ m->va, s.va - 1 });
		if (!ret && last > s.last)
			ret = make_piece(txn, m, (struct span){ s.last + 1, last });
	}
	if (!ret)
		take_out(txn, m);
	return ret;
}

/* Whether there is room for what a range will have, with @more new ones in it. 0 or -ENOSPC. */
static int check_limit(const struct lf_txn *txn, struct span s, int64_t more)
{
	int64_t now = count_mappings(txn), most = (int64_t)txn->vm->max_mappings;

	if (likely(now + more + 1 <= most))
		return 0; /* at worst one is cut in two */
	for (struct lf_mapping *m = first_in(txn, s); m; m = next_in(txn, s, mapping_last(m)))
		more += is_dead(m) ? -1 : (m->va < s.va) + (mapping_last(m) > s.last) - 1;
	return more <= 0 || now + more <= most ? 0 : -ENOSPC;
}

/* Lets a range show a mapping, or nothing, whatever was there. @m is the first that overlaps it. */
static int replace(struct lf_txn *txn, struct span s, struct lf_mapping *m, struct lf_mapping *new)
{
	struct lf_mapping *next;
	bool any = m;
	int ret = 0;

	for (; m && !ret; m = next) {
		next = next_in(txn, s, mapping_last(m));
		ret = cut_out(txn, m, s);
	}
	if (ret || (!any && !new))
		return ret;
	return set(txn, s, new);
}

/* --- Requests ------------------------------------------------------------------------------------------------------------------ */

static bool is_same(const struct lf_mapping *m, const struct lf_map_desc *desc)
{
	return m && m->va == desc->va && m->size == desc->size && m->vm_bo == desc->vm_bo && m->offset == desc->offset &&
		m->flags == desc->flags;
}

static int check_map(const struct lf_txn *txn, const struct lf_map_desc *desc)
{
	const struct lf_vm_bo *vm_bo = desc->vm_bo;

	if (!vm_bo)
		return desc->offset ? misuse(-EINVAL, "lf_txn_map: an offset without a buffer") : 0;
	if (unlikely(vm_bo->vm != txn->vm))
		return misuse(-EINVAL, "lf_txn_map: the VM_BO is of another VM");
	if (unlikely(desc->offset > vm_bo->bo->size || desc->size > vm_bo->bo->size - desc->offset))
		return misuse(-EINVAL, "lf_txn_map: %#" PRIx64 " bytes at %#" PRIx64 " are not within the buffer, which has %#" PRIx64, desc->size,
			desc->offset, vm_bo->bo->size);
	if (unlikely(desc->offset & ((UINT64_C(1) << txn->vm->shift) - 1)))
		return misuse(-EINVAL, "lf_txn_map: offset %#" PRIx64 " is not of the granule", desc->offset);
	/* relaxed: one that is closed at this moment may be mapped and is reaped then */
	return u64_load(&vm_bo->dead_from, memory_order_relaxed) == UINT64_MAX ? 0 : -ENOENT;
}

int lf_txn_map(struct lf_txn *txn, const struct lf_map_desc *desc, struct lf_mapping **ret_mapping)
{
	struct lf_mapping *first, *m;
	struct span s;
	int ret;

	if (unlikely(!desc))
		return misuse(-EINVAL, "lf_txn_map: nothing is described");
	ret = check_range(txn, desc->va, desc->size, &s, __func__);
	if (!ret)
		ret = check_map(txn, desc);
	if (ret)
		return ret;
	first = first_in(txn, s);
	if (is_same(first, desc)) {
		if (ret_mapping)
			*ret_mapping = first;
		return 0;
	}
	ret = check_limit(txn, s, 1);
	if (ret)
		return ret;
	m = mapping_create(txn->vm, desc, txn->edit.birth);
	if (!m)
		return fail(txn, -ENOMEM);
	add_born(txn, m);
	ret = replace(txn, s, first, m);
	if (ret) {
		/* The driver has not seen it; nor will anybody look at the tree any more (X4). */
		remove_born(txn, m);
		mapping_discard(m);
		return ret;
	}
	txn_assert_valid(txn);
	if (ret_mapping)
		*ret_mapping = m;
	return 0;
}

int lf_txn_unmap(struct lf_txn *txn, uint64_t va, uint64_t size)
{
	struct span s;
	int ret = check_range(txn, va, size, &s, __func__);

	if (!ret)
		ret = check_limit(txn, s, 0);
	if (!ret)
		ret = replace(txn, s, first_in(txn, s), NULL);
	if (!ret)
		txn_assert_valid(txn);
	return ret;
}

/* What lies across the border before an address; NULL when nothing does. */
static struct lf_mapping *across(const struct lf_txn *txn, uint64_t va)
{
	struct lf_mapping *m = vm_has(txn->vm, va) ? va_tree_lookup(txn->edit.root, vm_page(txn->vm, va)) : NULL;

	return m && m->va != va && !is_dead(m) ? m : NULL;
}

/* Splits that. */
static int split_at(struct lf_txn *txn, uint64_t va)
{
	struct lf_mapping *m = across(txn, va);
	uint64_t last;
	int ret;

	if (!m)
		return 0;
	last = mapping_last(m);
	ret = make_piece(txn, m, (struct span){ m->va, va - 1 });
	if (!ret)
		ret = make_piece(txn, m, (struct span){ va, last });
	if (!ret)
		take_out(txn, m);
	return ret;
}

int lf_txn_split(struct lf_txn *txn, uint64_t va, uint64_t size)
{
	struct span s;
	int64_t more;
	int ret = check_range(txn, va, size, &s, __func__);

	if (ret)
		return ret;
	/* Behind the last address there is 0, which is in no mapping's middle. */
	more = (across(txn, va) != NULL) + (across(txn, s.last + 1) != NULL);
	if (more && count_mappings(txn) + more > (int64_t)txn->vm->max_mappings)
		return -ENOSPC;
	ret = split_at(txn, va);
	if (!ret)
		ret = split_at(txn, s.last + 1);
	if (!ret)
		txn_assert_valid(txn);
	return ret;
}

int lf_txn_prefetch(struct lf_txn *txn, uint64_t va, uint64_t size)
{
	struct prefetch *p, *last = txn ? txn->prefetches : NULL;
	struct span s;
	int ret = check_range(txn, va, size, &s, __func__);

	if (ret)
		return ret;
	p = mem_alloc(sizeof(*p));
	if (!p)
		return fail(txn, -ENOMEM);
	*p = (struct prefetch){ last ? last->next : p, s.va, s.last };
	if (last)
		last->next = p;
	txn->prefetches = p;
	return 0;
}

static int reap_vm_bo(struct lf_txn *txn, const struct lf_vm_bo *vm_bo)
{
	int ret = 0;

	for (struct lf_mapping *m = vm_bo->mappings; m && !ret; m = m->next) {
		if (m->tag & MAPPING_GONE)
			continue;
		ret = set(txn, (struct span){ m->va, mapping_last(m) }, NULL);
		if (!ret)
			take_out(txn, m);
	}
	return ret;
}

/* Under the reservation the list only grows, at its head, so that it can be walked from any head that it had. */
int lf_txn_reap(struct lf_txn *txn)
{
	int ret = txn_check(txn, __func__);
	const struct lf_vm_bo *vm_bo;

	if (ret)
		return ret;
	port_spin_lock(&txn->vm->spin);
	vm_bo = txn->vm->closed;
	port_spin_unlock(&txn->vm->spin);
	for (; vm_bo && !ret; vm_bo = vm_bo->next_closed)
		ret = reap_vm_bo(txn, vm_bo);
	if (!ret)
		txn_assert_valid(txn);
	return ret;
}

/* --- Operations ------------------------------------------------------------------------------------------------------------------ */

/* What links the mappings of a list: the lists are sorted alike. */
typedef struct lf_mapping **(*link_fn)(struct lf_mapping *m);

static struct lf_mapping **link_of(struct lf_mapping *m)
{
	return &m->of;
}

static struct lf_mapping **link_next(struct lf_mapping *m)
{
	return &m->next;
}

static struct lf_mapping *merge_lists(struct lf_mapping *a, struct lf_mapping *b, link_fn link)
{
	struct lf_mapping *list = NULL, **end = &list;

	while (a && b) {
		struct lf_mapping **from = a->va < b->va ? &a : &b;

		*end = *from;
		end = link(*from);
		*from = *end;
	}
	*end = a ? a : b;
	return list;
}

/* Sorts by address, bottom-up, without recursion and memory: bins[i] is a sorted list of 2^i mappings. */
static struct lf_mapping *sort_list(struct lf_mapping *list, link_fn link)
{
	struct lf_mapping *bins[32] = { NULL }, *m, *all = NULL;

	while ((m = list) != NULL) {
		unsigned i = 0;

		list = *link(m);
		*link(m) = NULL;
		for (; bins[i]; i++) {
			m = merge_lists(bins[i], m, link);
			bins[i] = NULL;
		}
		bins[i] = m;
	}
	for (unsigned i = 0; i < array_size(bins); i++)
		all = merge_lists(bins[i], all, link);
	return all;
}

static void sort_lists(struct lf_txn *txn)
{
	struct lf_mapping *prev = NULL;

	if (txn->sorted)
		return;
	txn->gone = sort_list(txn->gone, link_of);
	txn->born = sort_list(txn->born, link_next);
	for (struct lf_mapping *m = txn->born; m; m = m->next) {
		m->prev = prev;
		prev = m;
	}
	txn->sorted = true;
}

static void begin_prefetch(struct lf_txn_cursor *c, struct prefetch *p)
{
	c->prefetch = p;
	c->at = p->va;
}

void lf_txn_ops_begin(struct lf_txn_cursor *cursor, struct lf_txn *txn)
{
	struct prefetch *last;

	*cursor = (struct lf_txn_cursor){ .txn = txn };
	if (txn_check(txn, __func__))
		return;
	last = txn->prefetches;
	sort_lists(txn);
	cursor->gone = txn->gone;
	cursor->born = txn->born;
	if (last)
		begin_prefetch(cursor, last->next);
}

/* Whether two mappings show the same memory where both are. */
static bool is_contiguous(const struct lf_mapping *a, const struct lf_mapping *b)
{
	return a->vm_bo == b->vm_bo && (!a->vm_bo || a->offset - a->va == b->offset - b->va);
}

/* Whether a part of a mapping that goes shows the same memory afterwards. */
static bool is_kept(const struct lf_txn *txn, const struct lf_mapping *gone, struct span s)
{
	const struct lf_mapping *m;

	for (uint64_t at = s.va;; at = mapping_last(m) + 1) {
		m = va_tree_lookup(txn->edit.root, vm_page(txn->vm, at));
		if (!m || !is_contiguous(m, gone))
			return false;
		if (mapping_last(m) >= s.last)
			return true;
	}
}

/* Whether a mapping is the beginning, or the end, that stays of another one. */
static bool is_end_piece(const struct lf_mapping *m)
{
	return m->of && (m->va == m->of->va || mapping_last(m) == mapping_last(m->of));
}

static void describe_gone(const struct lf_txn *txn, struct lf_mapping *gone, struct lf_vm_op *op)
{
	struct span s = { gone->va, mapping_last(gone) };
	struct lf_mapping *prev = va_tree_lookup(txn->edit.root, vm_page(txn->vm, s.va));
	struct lf_mapping *next = va_tree_lookup(txn->edit.root, vm_page(txn->vm, s.last));

	*op = (struct lf_vm_op){ .mapping = gone };
	if (prev && is_born(txn, prev) && prev->of == gone) {
		op->prev = prev;
		s.va = mapping_last(prev) + 1;
	}
	if (next && is_born(txn, next) && next->of == gone) {
		op->next = next;
		s.last = next->va - 1;
	}
	op->kind = op->prev || op->next ? LF_VM_OP_REMAP : LF_VM_OP_UNMAP;
	op->va = s.va;
	op->size = s.last - s.va + 1;
	op->keep = s.va > s.last || is_kept(txn, gone, s);
	gone->tag = (gone->tag & ~MAPPING_KEPT) | (op->keep ? MAPPING_KEPT : 0); /* for the pieces in between, which come later */
}

static bool next_gone(struct lf_txn_cursor *c, struct lf_vm_op *op)
{
	struct lf_mapping *m = c->gone;

	if (!m)
		return false;
	c->gone = m->of;
	describe_gone(c->txn, m, op);
	return true;
}

static bool next_born(struct lf_txn_cursor *c, struct lf_vm_op *op)
{
	struct lf_mapping *m = c->born;

	while (m && is_end_piece(m))
		m = m->next;
	c->born = m ? m->next : NULL;
	if (m)
		*op = (struct lf_vm_op){ .kind = LF_VM_OP_MAP, .keep = m->of && (m->of->tag & MAPPING_KEPT), .mapping = m, .va = m->va, .size = m->size };
	return m;
}

static bool next_prefetch(struct lf_txn_cursor *c, struct lf_vm_op *op)
{
	struct prefetch *p;
	struct lf_mapping *m;
	struct lf_view view;
	uint64_t last;

	lf_txn_view(c->txn, &view);
	while ((p = c->prefetch) != NULL) {
		m = lf_view_next(&view, c->at);
		last = m && mapping_last(m) < p->last ? mapping_last(m) : p->last;
		if (m && m->va <= p->last) {
			*op = (struct lf_vm_op){ .kind = LF_VM_OP_PREFETCH, .mapping = m, .va = m->va > c->at ? m->va : c->at };
			op->size = last - op->va + 1;
		}
		c->at = last + 1;
		if (last == p->last && p == c->txn->prefetches)
			c->prefetch = NULL;
		else if (last == p->last)
			begin_prefetch(c, p->next);
		if (m && m->va <= p->last)
			return true;
	}
	return false;
}

bool lf_txn_ops_next(struct lf_txn_cursor *cursor, struct lf_vm_op *ret_op)
{
	return next_gone(cursor, ret_op) || next_born(cursor, ret_op) || next_prefetch(cursor, ret_op);
}

/* --- End ---------------------------------------------------------------------------------------------------------------------------- */

static void free_prefetches(struct lf_txn *txn)
{
	struct prefetch *last = txn->prefetches, *p = last ? last->next : NULL, *next;

	for (; p; p = next) {
		next = p == last ? NULL : p->next;
		mem_free(p);
	}
	txn->prefetches = NULL;
}

static void end(struct lf_txn *txn)
{
	txn->vm->txn = NULL;
	txn->vm = NULL;
	free_prefetches(txn);
}

/* Takes a mapping off the list of those that go, as it was before. NULL at its end. */
static struct lf_mapping *take_gone(struct lf_txn *txn)
{
	struct lf_mapping *m = txn->gone;

	if (m) {
		txn->gone = m->of;
		m->of = NULL;
		m->tag &= ~MAPPING_FLAGS;
	}
	return m;
}

/* What goes leaves its VM_BO's list, and is linked by next from here on, in this order (M5). */
static struct lf_mapping *unlink_gone(struct lf_txn *txn)
{
	struct lf_mapping *m, *list = NULL, **link = &list;

	while ((m = take_gone(txn)) != NULL) {
		mapping_unlink(m);
		m->next = NULL;
		*link = m;
		link = &m->next;
	}
	return list;
}

static void link_born(struct lf_txn *txn)
{
	struct lf_mapping *m;

	while ((m = txn->born) != NULL) {
		txn->born = m->next;
		mapping_link(m);
	}
}

static void add_up(lf_atomic_u64 *count, int64_t more)
{
	/* relaxed: written under the reservation; a figure for all others */
	u64_store(count, u64_load(count, memory_order_relaxed) + (uint64_t)more, memory_order_relaxed);
}

void txn_publish(struct lf_txn *txn, struct lf_held *hold)
{
	struct lf_vm *vm = txn->vm;
	struct lf_mapping *gone;

	link_born(txn); /* first: a list whose mappings are all replaced does not become empty */
	gone = unlink_gone(txn);
	add_up(&vm->mappings, txn->mappings);
	add_up(&vm->nodes, txn->edit.nodes);
	add_up(&vm->bytes, txn->edit.bytes);
	version_publish(vm, &txn->edit, gone, hold);
	end(txn);
}

void lf_txn_commit(struct lf_txn *txn)
{
	int error = txn_check(txn, __func__);

	if (unlikely(!is_open(txn) || error == -EOWNERDEAD))
		return;
	if (unlikely(error || (txn->vm->flags & LF_VM_BIND))) {
		misuse(0, "lf_txn_commit: the transaction %s, and is aborted", error ? "has failed" : "is of a VM with a bind queue");
		lf_txn_abort(txn);
		return;
	}
	txn_publish(txn, NULL);
}

void lf_txn_abort(struct lf_txn *txn)
{
	if (unlikely(!is_open(txn))) {
		misuse(0, "lf_txn_abort: the transaction was not begun, or has ended");
		return;
	}
	if (library_poisoned())
		return;
	while (take_gone(txn))
		;
	mapping_end_list(txn->born);
	txn->born = NULL;
	va_edit_abort(&txn->edit);
	end(txn);
}
