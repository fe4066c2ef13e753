/* SPDX-License-Identifier: MIT */
/*
 * The address space beside a naive model of it (vm_model.h).
 *
 * A program makes a VM with buffers, then does what its operations say: requests in transactions, which find no memory or whose split hook
 * fails now and then, commits and aborts, closes of buffers at any moment, versions and mappings that are held for long, and, of a VM with a
 * bind queue, fences that are signaled in any order. In the end all of it is let go of in a random order.
 *
 * Oracle:
 * - after each request the transaction's version is what the model says, and nobody else sees a difference; after a commit everybody does;
 *   after an abort nobody ever did. That is asked through lookup, next, previous, neighbours and walks, of addresses at the edges of pages;
 * - a mapping is the same one for as long as the model says so, with fields and driver data as they were made; its pieces have the data of
 *   what they are pieces of;
 * - the operations of a transaction, applied to page tables that believe each hint, turn the old version into the new one, and tell of each
 *   mapping that goes or comes exactly once;
 * - a held version, and a view in a read section, stay as they were, whatever is committed or closed;
 * - of a bind queue, transactions are applied in order, as soon as their fences and those of all before are signaled; engines see the last
 *   one that was; each out-fence says so;
 * - an error comes only where one was provoked, stays until the abort, and commits, aborts and closes allocate nothing;
 * - the tree is sound after each operation (va_tree_check());
 * - at the end each mapping, VM_BO, buffer and VM has been released once, and no memory is left.
 */
#include "fuzz.h"
#include "vm_model.h"

#include "gpuvm/va_tree.h"

#include <stdatomic.h>

enum { BUFFERS = 8, HELD = 8, KEPT = 8, BINDS = 8, FENCES = 4, LOG = 64 };

/* --- Programs -------------------------------------------------------------------------------------------------------------- */

/* Kinds of operations. */
enum kind {
	MAP, /* anything anywhere */
	MAP_AGAIN, /* what is or was mapped there */
	UNMAP,
	SPLIT,
	PREFETCH,
	REAP,
	WALK_OPS, /* of the open transaction, as it stands */
	COMMIT,
	ABORT,
	LOOK, /* at a page, in some version */
	WALK, /* over a range, in some version */
	HOLD,
	LET_GO,
	COMPARE, /* a whole version */
	KEEP, /* a reference on a mapping */
	UNKEEP,
	OBTAIN, /* a VM_BO */
	PUT_PAIR,
	FIND,
	CLOSE, /* of a buffer in the VM */
	MAPPINGS, /* of a VM_BO */
	STATS,
	MISUSE, /* requests that are refused */
	SIGNAL, /* an in-fence */
	BAN, /* the next apply fails */
	KINDS
};

static const char *const kinds[] = { "map", "map_again", "unmap", "split", "prefetch", "reap", "walk_ops", "commit", "abort", "look", "walk",
	"hold", "let_go", "compare", "keep", "unkeep", "obtain", "put_pair", "find", "close", "mappings", "stats", "misuse", "signal",
	"ban", NULL };

/* What may happen to them. */
enum hit {
	NO_MEMORY,
	HOOK_FAILED,
	TOO_MANY,
	CLOSED_PAIR,
	NOTHING_TO_DO, /* a mapping that was there already */
	PIECES,
	OP_UNMAP,
	OP_REMAP,
	OP_MAP,
	OP_PREFETCH,
	OP_KEPT, /* of those, with the hint */
	CLOSED_MEANWHILE, /* with a transaction open */
	APPLIED_AT_ONCE,
	APPLIED_LATER,
	BANNED,
};

static const char *const hits[] = { "without memory", "split hook failed", "too many mappings", "of a closed buffer", "mapped already",
	"pieces", "operations unmap", "remap", "map", "prefetch", "kept", "closed with a transaction open", "binds applied at once",
	"later", "bans", NULL };

static void hit(enum hit h, uint64_t count)
{
	fuzz_progress->hit[h] += count;
}

/* How often each is meant by a random byte; out of 256. Ban is rare, see to_op(). */
static const uint8_t weights[KINDS] = { 54, 22, 32, 12, 5, 5, 5, 22, 6, 22, 8, 5, 4, 5, 5, 4, 4, 3, 4, 3, 4, 2, 1, 18, 1 };

/* An operation, with its eight bytes as they are; what they mean depends on the kind. */
struct op {
	enum kind kind;
	uint8_t fail; /* which allocation fails; mostly none */
	uint16_t at;
	uint8_t length, bo, offset, flags;
};

static struct op to_op(const uint8_t *bytes)
{
	struct op op = { .fail = bytes[1],
		.at = (uint16_t)(bytes[2] | bytes[3] << 8),
		.length = bytes[4],
		.bo = bytes[5],
		.offset = bytes[6],
		.flags = bytes[7] };
	unsigned n = bytes[0], kind = 0;
	while (kind + 1 < KINDS && n >= weights[kind])
		n -= weights[kind++];
	op.kind = kind == BAN && op.fail >= 16 ? WALK : (enum kind)kind;
	return op;
}

/* --- The world of a program ------------------------------------------------------------------------------------------------ */

/* What a driver keeps with a VM_BO. */
struct pair_around {
	struct lf_vm_bo vm_bo;
	struct lf_vm_bo *self; /* NULL: new */
	uint64_t pair;
};

struct buffer {
	struct lf_bo bo;
	uint64_t magic;
};

struct held {
	struct lf_held *held; /* NULL: free */
	struct version version;
};

/* A transaction of a bind queue that is not applied yet. */
struct bind {
	struct version version;
	unsigned in; /* fences that are not signaled, a bit each */
	struct lf_fence *out; /* may be NULL */
};

/* Names of the operations that were done, for people. */
struct logged {
	struct op op;
	unsigned first, last;
	int result;
};

static struct {
	struct model model;
	struct lf_resv *resv;
	struct lf_vm *vm;
	unsigned reserved_first, reserved_last; /* pages; the first one behind all: none */
	uint64_t granule, max_mappings;
	bool binds;
	struct lf_bo *bo[BUFFERS];
	uint64_t bo_size[BUFFERS];
	unsigned open_pair[BUFFERS]; /* the one that was obtained last and is not closed; 0: none */
	bool pair_held[BUFFERS];
	unsigned closed_pair; /* one that is held still; 0: none */

	struct version asked, draft, applied;
	struct lf_txn txn;
	bool open; /* the transaction is, and the reservation is locked */
	int error; /* of the transaction */
	int split_error; /* what the split hook answers; 0: nothing wrong */
	bool split_failed;
	bool memory_failed; /* an allocation, in the call that was the last one for which one should */

	struct held held[HELD];
	struct lf_mapping *kept[KEPT];
	uint16_t kept_record[KEPT];

	struct bind bind[BINDS];
	unsigned bind_first, bind_count;
	struct lf_fence *fence[FENCES];
	int apply_error; /* what the apply hook answers next */
	int banned; /* what the VM was banned with */
	uint64_t version; /* the number of what was asked for last */

	struct tables tables;
	struct logged log[LOG];
	struct op op; /* the one that runs */
	unsigned first, last; /* of it */
	int result;
	uint64_t random;
} w;

/* What was made and what was released, in all programs. */
static struct {
	uint64_t mappings, pairs, buffers, vms;
	_Atomic uint64_t mappings_released, pairs_released, buffers_released, vms_released;
} lives;

static long live_at_start;

static bool chance(uint64_t one_in)
{
	return random_next(&w.random) % one_in == 0;
}

static void fail_allocation(unsigned nth, unsigned limit)
{
	w.memory_failed = false;
	alloc_fail_at(nth < limit ? (long)nth + 1 : 0);
}

static void fail_no_more(void)
{
	w.memory_failed = alloc_failed();
	alloc_fail_at(0);
}

static struct pair_around *to_pair(struct lf_vm_bo *vm_bo)
{
	return (struct pair_around *)(void *)vm_bo;
}

/* --- Hooks ----------------------------------------------------------------------------------------------------------------- */

static void fill(struct lf_mapping *m, uint16_t r)
{
	struct around *around = to_around(m);
	around->magic = around_magic;
	around->self = m;
	around->record = r;
	around->tag = w.model.record[r].tag;
	around->behind = ~(uint64_t)around->tag;
	w.model.record[r].m = m;
	lives.mappings++;
}

/* Takes a piece down; the model will look for it. */
static int on_split(struct lf_mapping *piece, const struct lf_mapping *of, void *data)
{
	const struct around *whole = to_around(of), *copy = to_around(piece);
	const struct record *parent = &w.model.record[whole->record];
	must(data == &w && !lf_read_held());
	check_mapping(&w.model, (uint16_t)whole->record, of);
	must(copy->magic == around_magic && copy->self == of && copy->record == whole->record && copy->tag == whole->tag);
	must(copy->behind == whole->behind);
	if (w.split_error != 0) {
		w.split_failed = true;
		return w.split_error;
	}
	uint16_t r = model_record(&w.model, parent, model_page(&w.model, piece->va), model_page(&w.model, piece->va + (piece->size - 1)));
	struct record *record = &w.model.record[r];
	record->of = (uint16_t)whole->record;
	if (record->pair != 0)
		record->offset += w.model.bound[record->first] - w.model.bound[parent->first];
	fill(piece, r);
	check_mapping(&w.model, r, piece);
	hit(PIECES, 1);
	return 0;
}

static void on_mapping_release(struct lf_mapping *m, void *data)
{
	struct around *around = to_around(m);
	must(data == &w && !lf_read_held());
	must(around->magic == around_magic && around->self == m);
	around->self = NULL;
	atomic_fetch_add(&lives.mappings_released, 1);
}

static void on_pair_release(struct lf_vm_bo *vm_bo, void *data)
{
	struct pair_around *around = to_pair(vm_bo);
	must(data == &w && !lf_read_held());
	must(around->self == vm_bo);
	around->self = NULL;
	atomic_fetch_add(&lives.pairs_released, 1);
}

static void on_bo_release(struct lf_bo *bo)
{
	struct buffer *buffer = (struct buffer *)(void *)bo;
	must(buffer->magic == around_magic);
	buffer->magic = 0;
	atomic_fetch_add(&lives.buffers_released, 1);
}

static void on_vm_release(void *data)
{
	must(data == &w);
	atomic_fetch_add(&lives.vms_released, 1);
}

static struct bind *first_bind(void)
{
	return w.bind_count == 0 ? NULL : &w.bind[w.bind_first];
}

static int on_apply(struct lf_vm *vm, const struct lf_vm_op *ops, size_t count, void *data)
{
	struct bind *bind = first_bind();
	int error = w.apply_error;
	must(data == &w && vm == w.vm && !lf_read_held());
	must(bind != NULL && bind->in == 0 && w.banned == 0);
	must(bind->out == NULL || !lf_fence_is_signaled(bind->out));
	tables_begin(&w.tables, &w.model, &w.applied, &bind->version);
	for (size_t i = 0; i < count; i++)
		tables_apply(&w.tables, &ops[i]);
	tables_end(&w.tables);
	if (error != 0) {
		w.banned = error;
		hit(BANNED, 1);
		return error;
	}
	hit(w.op.kind == COMMIT ? APPLIED_AT_ONCE : APPLIED_LATER, 1);
	version_copy(&w.model, &w.applied, &bind->version);
	/* what engines walk ignores closes, as page tables do */
	memcpy(w.applied.seen, w.applied.tree, w.model.pages * sizeof(w.applied.seen[0]));
	/* its out-fence signals later, so it is looked at there: take_applied() */
	w.bind_first = (w.bind_first + 1) % BINDS;
	w.bind_count--;
	return 0;
}

static const struct lf_vm_ops ops_bind = {
	.split = on_split,
	.mapping_release = on_mapping_release,
	.vm_bo_release = on_pair_release,
	.apply = on_apply,
	.release = on_vm_release,
};

static const struct lf_vm_ops ops_plain = {
	.split = on_split,
	.mapping_release = on_mapping_release,
	.vm_bo_release = on_pair_release,
	.release = on_vm_release,
};

/* --- Views ----------------------------------------------------------------------------------------------------------------- */

static void check_whole(const struct lf_view *view, const struct version *v)
{
	check_range(&w.model, view, v, 0, w.model.pages - 1);
	fuzz_progress->checks++;
}

static void check_tree(const struct lf_view *view)
{
	va_tree_check(view->root);
}

static void view_asked(struct lf_view *view)
{
	lf_vm_view(w.vm, view);
	must(view->version >= w.version);
	w.version = view->version;
}

/* Large versions are not compared each time. */
static void check_asked(void)
{
	struct lf_view view;
	lf_read_lock();
	view_asked(&view);
	check_tree(&view);
	if (w.model.pages <= 256 || chance(8))
		check_whole(&view, &w.asked);
	lf_read_unlock();
}

static void check_applied(void)
{
	struct lf_view view;
	if (!w.binds)
		return;
	lf_read_lock();
	lf_vm_view_applied(w.vm, &view);
	check_tree(&view);
	if (w.model.pages <= 256 || chance(8))
		check_whole(&view, &w.applied);
	lf_read_unlock();
}

/* Calls a function with some version and a view of it: by turns what was asked for, the transaction's, what is applied, a held one. */
static void with_some_version(unsigned which, void (*fn)(const struct lf_view *view, const struct version *v))
{
	const struct held *held = &w.held[which / 4 % HELD];
	struct lf_view view;
	if (which % 4 == 0 && held->held != NULL) {
		lf_held_view(held->held, &view);
		fn(&view, &held->version);
	} else if (which % 4 < 2 && w.open && w.error == 0) {
		lf_txn_view(&w.txn, &view);
		fn(&view, &w.draft);
	} else if (which % 4 == 2 && w.binds) {
		lf_read_lock();
		lf_vm_view_applied(w.vm, &view);
		fn(&view, &w.applied);
		lf_read_unlock();
	} else {
		lf_read_lock();
		view_asked(&view);
		fn(&view, &w.asked);
		lf_read_unlock();
	}
}

/* --- Ranges and requests --------------------------------------------------------------------------------------------------- */

/* The range that an operation is about: short ones, longer ones, blocks, and what is mapped there. */
static void choose_range(void)
{
	unsigned pages = w.model.pages, first = w.op.at % pages, count = 1, detail = w.op.length & 63;
	const struct record *r = &w.model.record[w.open ? w.draft.tree[first] : w.asked.tree[first]];
	switch (w.op.length >> 6) {
	case 0:
		count = 1 + detail % 8;
		break;
	case 1:
		count = 1 + detail;
		break;
	case 2:
		first &= ~63U;
		count = detail == 0 ? pages : 64 * (1 + detail % 4);
		first = detail == 0 ? 0 : first;
		break;
	default:
		if (r->m != NULL) {
			first = r->first;
			count = r->last - r->first + 1U;
		}
		count += detail % 4 == 3;
		count -= detail % 4 == 2 && count > 1;
		break;
	}
	w.first = first;
	w.last = first + count > pages ? pages - 1 : first + count - 1;
	if (model_size(&w.model, w.first, w.last) == 0) /* all of 64 bits is not a size */
		w.last--;
}

static bool in_reserved(void)
{
	return w.first <= w.reserved_last && w.last >= w.reserved_first;
}

static void expect_misuse_of(int result)
{
	must(result == -EINVAL);
	must(log_count(LF_LOG_MISUSE) == 1);
	log_reset();
}

/* Begins when none is open. Returns whether one is. */
static bool begin(void)
{
	if (w.open)
		return true;
	must(lf_resv_lock(w.resv, NULL) == 0);
	long calls = alloc_calls();
	int error = lf_txn_begin(&w.txn, w.vm);
	must(alloc_calls() == calls);
	if (error != 0) {
		must(w.banned != 0 && error == w.banned);
		lf_resv_unlock(w.resv);
		return false;
	}
	must(w.banned == 0);
	version_copy(&w.model, &w.draft, &w.asked);
	w.draft.prefetches = 0;
	w.open = true;
	w.error = 0;
	return true;
}

/* What comes before each request: what shall go wrong. */
static void before_request(void)
{
	fail_allocation(w.op.fail, 6);
	w.split_error = w.op.fail == 6 ? -EIO : 0;
	w.split_failed = false;
}

/* After an error the transaction shows what it began with. */
static void check_failed(void)
{
	struct lf_view view;
	lf_txn_view(&w.txn, &view);
	check_tree(&view);
	check_range(&w.model, &view, &w.asked, 0, w.model.pages - 1);
}

/* What a request may answer. Returns whether it was done. */
static bool after_request(int result)
{
	fail_no_more();
	w.result = result;
	if (w.error != 0) {
		must(result == w.error);
		return false;
	}
	if (in_reserved()) {
		expect_misuse_of(result);
		return false;
	}
	if (result == -ENOSPC) {
		must(w.max_mappings != 0 && model_count(&w.model, &w.draft) + 2 > w.max_mappings);
		hit(TOO_MANY, 1);
		return false;
	}
	must(result == (w.split_failed ? w.split_error : w.memory_failed && result != 0 ? -ENOMEM : 0));
	w.error = result;
	if (result != 0)
		check_failed();
	hit(HOOK_FAILED, w.split_failed);
	hit(NO_MEMORY, result == -ENOMEM);
	return result == 0;
}

/* The transaction's version around the range, and its tree. */
static void check_draft(void)
{
	struct lf_view view;
	lf_txn_view(&w.txn, &view);
	check_tree(&view);
	check_page(&w.model, &view, &w.draft, (int)w.first);
	check_page(&w.model, &view, &w.draft, (int)w.last);
	check_range(&w.model, &view, &w.draft, w.first > 0 ? w.first - 1 : 0, w.last + 1 < w.model.pages ? w.last + 1 : w.last);
	if (w.max_mappings != 0)
		must(model_count(&w.model, &w.draft) <= w.max_mappings);
}

/* --- VM_BOs ---------------------------------------------------------------------------------------------------------------- */

static bool is_mapped(const struct version *v, unsigned pair)
{
	for (unsigned p = 0; p < w.model.pages; p++) {
		if (v->tree[p] != 0 && w.model.record[v->tree[p]].pair == pair)
			return true;
	}
	return false;
}

/* Whether the VM_BO must be there still. */
static bool is_alive(unsigned bo)
{
	unsigned pair = w.open_pair[bo];
	if (pair == 0)
		return false;
	return w.pair_held[bo] || is_mapped(&w.asked, pair) || (w.open && w.error == 0 && is_mapped(&w.draft, pair));
}

/* A VM_BO that was returned for a buffer: the one we know, or, when that is gone, another one. */
static void recognize(unsigned bo, struct lf_vm_bo *vm_bo)
{
	struct pair_around *around = to_pair(vm_bo);
	must(vm_bo->vm == w.vm && vm_bo->bo == w.bo[bo]);
	if (around->self != NULL) {
		must(around->self == vm_bo && around->pair == w.open_pair[bo]);
		must(w.model.pair[around->pair].vm_bo == vm_bo);
		return;
	}
	must(!is_alive(bo) && w.model.pairs < MODEL_PAIRS);
	around->self = vm_bo;
	around->pair = w.model.pairs++;
	w.model.pair[around->pair] = (struct pair){ .vm_bo = vm_bo, .bo = bo };
	w.open_pair[bo] = (unsigned)around->pair;
	lives.pairs++;
}

static void put_pair(unsigned bo)
{
	if (w.pair_held[bo])
		lf_vm_bo_put(w.model.pair[w.open_pair[bo]].vm_bo);
	w.pair_held[bo] = false;
}

/* Obtains the VM_BO when it is not held. Returns its number, or 0. */
static unsigned obtain(unsigned bo)
{
	struct lf_vm_bo *vm_bo;
	if (w.pair_held[bo] && !chance(16))
		return w.open_pair[bo];
	if (w.model.pairs == MODEL_PAIRS)
		return 0;
	int error = lf_vm_bo_obtain(w.vm, w.bo[bo], &vm_bo);
	fail_no_more();
	if (error != 0) {
		must(w.banned != 0 ? error == w.banned : error == -ENOMEM && w.memory_failed);
		return 0;
	}
	must(w.banned == 0);
	recognize(bo, vm_bo);
	if (w.pair_held[bo])
		lf_vm_bo_put(vm_bo);
	w.pair_held[bo] = true;
	return w.open_pair[bo];
}

static void do_obtain(void)
{
	fail_allocation(w.op.fail, 32);
	obtain(w.op.bo % BUFFERS);
	fail_no_more(); /* if it had nothing to do */
}

static void do_put_pair(void)
{
	put_pair(w.op.bo % BUFFERS);
}

static void do_find(void)
{
	unsigned bo = w.op.bo % BUFFERS;
	struct lf_vm_bo *vm_bo = lf_vm_bo_find(w.vm, w.bo[bo]);
	if (vm_bo == NULL) {
		must(!is_alive(bo));
		return;
	}
	must(to_pair(vm_bo)->self == vm_bo);
	recognize(bo, vm_bo);
	lf_vm_bo_put(vm_bo);
}

static void drop_closed_pair(void)
{
	if (w.closed_pair != 0)
		lf_vm_bo_put(w.model.pair[w.closed_pair].vm_bo);
	w.closed_pair = 0;
}

/* Closes the buffer in the VM, while somebody looks, who sees no difference. */
static void close_pair(unsigned bo)
{
	unsigned pair = w.open_pair[bo];
	struct lf_vm_bo *vm_bo = w.model.pair[pair].vm_bo;
	struct lf_view view;
	long calls = alloc_calls();
	lf_read_lock();
	view_asked(&view);
	lf_vm_bo_close(vm_bo);
	must(alloc_calls() == calls);
	check_whole(&view, &w.asked);
	lf_read_unlock();
	w.model.pair[pair].closed = true;
	model_hide(&w.model, &w.asked);
	if (w.open)
		model_hide(&w.model, &w.draft);
	if (w.pair_held[bo]) {
		drop_closed_pair();
		w.closed_pair = pair;
	}
	w.pair_held[bo] = false;
	w.open_pair[bo] = 0;
}

static void do_close(void)
{
	unsigned bo = w.op.bo % BUFFERS;
	if (w.closed_pair != 0 && w.op.flags % 8 == 0)
		lf_vm_bo_close(w.model.pair[w.closed_pair].vm_bo); /* again: nothing */
	if (!is_alive(bo))
		return;
	close_pair(bo);
	check_asked();
	hit(CLOSED_MEANWHILE, w.open);
	if (w.open && w.error == 0) {
		w.first = 0;
		w.last = 0;
		check_draft();
	}
}

/* Its mappings in what was asked for last, each once. */
static void do_mappings(void)
{
	unsigned bo = w.op.bo % BUFFERS, pair = w.open_pair[bo], count = 0;
	const struct lf_mapping *m = NULL;
	if (!is_alive(bo) || (!w.pair_held[bo] && !is_mapped(&w.asked, pair)))
		return;
	if (!w.open)
		must(lf_resv_lock(w.resv, NULL) == 0);
	while ((m = lf_vm_bo_next_mapping(w.model.pair[pair].vm_bo, m)) != NULL) {
		uint32_t r = to_around(m)->record;
		must(r < w.model.records);
		check_mapping(&w.model, (uint16_t)r, m);
		must(w.asked.tree[w.model.record[r].first] == r);
		count++;
	}
	if (!w.open)
		lf_resv_unlock(w.resv);
	for (unsigned p = 0; p < w.model.pages; p++) {
		const struct record *r = &w.model.record[w.asked.tree[p]];
		count -= w.asked.tree[p] != 0 && r->pair == pair && r->first == p;
	}
	must(count == 0);
}

/* --- Requests -------------------------------------------------------------------------------------------------------------- */

/* The transaction, its requests recorded so far. */
static bool ready(void)
{
	choose_range();
	return begin();
}

/* Which part of the buffer: its beginning, some part, its end, or what is there already. */
static uint64_t choose_offset(unsigned pair, uint64_t size)
{
	const struct record *r = &w.model.record[w.draft.tree[w.first]];
	uint64_t room = w.bo_size[w.model.pair[pair].bo] - size, offset = 0;
	switch (w.op.offset % 8) {
	case 0:
	case 1:
	case 2:
		if (r->m != NULL && r->pair == pair)
			offset = r->offset + (w.model.bound[w.first] - w.model.bound[r->first]);
		break;
	case 3:
	case 4:
		offset = (uint64_t)(w.op.offset / 8) * w.granule;
		break;
	case 5:
		offset = (uint64_t)w.op.offset * 37 * w.granule;
		break;
	case 6:
		offset = room;
		break;
	default:
		break;
	}
	offset = offset <= room ? offset : room;
	return offset - offset % w.granule;
}

static bool is_same(const struct record *a, const struct lf_map_desc *desc, unsigned pair)
{
	return a->m != NULL && a->first == w.first && a->last == w.last && a->pair == pair && a->offset == desc->offset &&
		a->flags == desc->flags;
}

/* What is there already stays; else a new one. */
static void map_done(const struct lf_map_desc *desc, unsigned pair, struct lf_mapping *m, unsigned mark)
{
	uint16_t there = w.draft.tree[w.first];
	const struct record new = {
		.offset = desc->offset, .flags = desc->flags, .tag = (uint32_t)random_next(&w.random), .pair = (uint16_t)pair
	};
	if (is_same(&w.model.record[there], desc, pair)) {
		check_mapping(&w.model, there, m);
		must(mark == w.model.records);
		hit(NOTHING_TO_DO, 1);
		return;
	}
	struct around *around = to_around(m);
	must(around->magic == 0 && around->self == NULL && around->record == 0 && around->behind == 0);
	uint16_t r = model_record(&w.model, &new, w.first, w.last);
	fill(m, r);
	check_mapping(&w.model, r, m);
	must(m->vm == w.vm);
	model_fill(&w.model, &w.draft, w.first, w.last, r, mark);
}

static void map(struct lf_map_desc *desc, unsigned pair)
{
	struct lf_mapping *m = NULL;
	unsigned mark = w.model.records;
	desc->va = model_va(&w.model, w.first);
	desc->size = model_size(&w.model, w.first, w.last);
	desc->vm_bo = w.model.pair[pair].vm_bo;
	before_request();
	int result = lf_txn_map(&w.txn, desc, &m);
	if (w.model.pair[pair].closed && w.error == 0 && !in_reserved()) {
		fail_no_more();
		must(result == -ENOENT); /* and nothing was done */
		hit(CLOSED_PAIR, 1);
		return;
	}
	if (!after_request(result)) {
		must(m == NULL);
		return;
	}
	map_done(desc, pair, m, mark);
	check_draft();
}

/* Only the first buffer is large enough for everything. */
static unsigned choose_pair(void)
{
	unsigned bo = w.op.bo % (BUFFERS + 2);
	if (bo >= BUFFERS)
		return 0;
	if (w.op.offset == 0xff && w.closed_pair != 0)
		bo = w.model.pair[w.closed_pair].bo;
	if (model_size(&w.model, w.first, w.last) > w.bo_size[bo])
		bo = 0;
	if (w.op.offset == 0xff && w.closed_pair != 0 && bo == w.model.pair[w.closed_pair].bo)
		return w.closed_pair;
	return obtain(bo);
}

static void do_map(void)
{
	struct lf_map_desc desc = { .flags = w.op.flags % 3 };
	if (!ready())
		return;
	unsigned pair = choose_pair();
	if (pair != 0)
		desc.offset = choose_offset(pair, model_size(&w.model, w.first, w.last));
	map(&desc, pair);
}

/* A mapping that was there when the transaction began: a difference only if it is gone meanwhile, or has other flags. */
static void do_map_again(void)
{
	if (!ready())
		return;
	const struct record *r = &w.model.record[w.asked.seen[w.first]];
	if (r->m == NULL || w.model.pair[r->pair].closed)
		return;
	struct lf_map_desc desc = { .offset = r->offset, .flags = w.op.flags % 4 == 0 ? r->flags ^ 1 : r->flags };
	w.first = r->first;
	w.last = r->last;
	map(&desc, r->pair);
}

static void do_unmap(void)
{
	unsigned mark = w.model.records;
	if (!ready())
		return;
	before_request();
	if (!after_request(lf_txn_unmap(&w.txn, model_va(&w.model, w.first), model_size(&w.model, w.first, w.last))))
		return;
	model_fill(&w.model, &w.draft, w.first, w.last, 0, mark);
	check_draft();
}

static void do_split(void)
{
	unsigned mark = w.model.records;
	if (!ready())
		return;
	before_request();
	if (!after_request(lf_txn_split(&w.txn, model_va(&w.model, w.first), model_size(&w.model, w.first, w.last))))
		return;
	model_split(&w.model, &w.draft, w.first, w.last, mark);
	check_draft();
}

static void do_prefetch(void)
{
	if (!ready() || w.draft.prefetches == MODEL_PREFETCHES)
		return;
	before_request();
	if (!after_request(lf_txn_prefetch(&w.txn, model_va(&w.model, w.first), model_size(&w.model, w.first, w.last))))
		return;
	w.draft.prefetch[w.draft.prefetches++] = (struct pages){ w.first, w.last };
	check_draft();
}

static void do_reap(void)
{
	if (!ready())
		return;
	/* any range does, but one that is not refused */
	w.first = w.last = w.reserved_first == 0 ? w.model.pages - 1 : 0;
	before_request();
	if (!after_request(lf_txn_reap(&w.txn)))
		return;
	model_reap(&w.model, &w.asked, &w.draft);
	check_draft();
}

/* Ranges that are empty, crooked or outside are refused, and the transaction goes on. */
static void do_misuse(void)
{
	struct lf_map_desc desc = { .va = model_va(&w.model, 0), .size = model_size(&w.model, 0, 0) };
	if (!ready() || w.error != 0)
		return;
	switch (w.op.flags % 4) {
	case 0:
		expect_misuse_of(lf_txn_unmap(&w.txn, desc.va, 0));
		break;
	case 1:
		desc.offset = w.granule; /* without a buffer */
		expect_misuse_of(lf_txn_map(&w.txn, &desc, NULL));
		break;
	case 2: {
		unsigned pair = obtain(1);
		if (pair == 0)
			return;
		desc.vm_bo = w.model.pair[pair].vm_bo;
		desc.offset = w.op.flags % 8 == 2 || w.granule == 1 ? w.bo_size[1] : w.granule / 2;
		expect_misuse_of(lf_txn_map(&w.txn, &desc, NULL));
		break;
	}
	default:
		expect_misuse_of(lf_txn_split(&w.txn, desc.va, 0));
		break;
	}
	w.first = w.last = 0;
	check_draft();
}

/* --- Operations ------------------------------------------------------------------------------------------------------------ */

static void check_ops(void)
{
	struct lf_txn_cursor cursor;
	struct lf_vm_op op;
	tables_begin(&w.tables, &w.model, &w.asked, &w.draft);
	lf_txn_ops_begin(&cursor, &w.txn);
	while (lf_txn_ops_next(&cursor, &op))
		tables_apply(&w.tables, &op);
	tables_end(&w.tables);
	for (unsigned kind = 0; kind <= LF_VM_OP_PREFETCH; kind++)
		hit((enum hit)(OP_UNMAP + kind), w.tables.ops[kind]);
	hit(OP_KEPT, w.tables.kept);
}

static void do_walk_ops(void)
{
	if (w.open && w.error == 0)
		check_ops();
}

/* --- The end of a transaction ---------------------------------------------------------------------------------------------- */

/* The out-fences of what was applied say so, and no other's. */
static void check_queue(void)
{
	must(first_bind() == NULL || first_bind()->in != 0 || w.banned != 0);
	for (unsigned i = 0; i < w.bind_count; i++) {
		const struct lf_fence *out = w.bind[(w.bind_first + i) % BINDS].out;
		must(out == NULL || lf_fence_status(out) == w.banned);
	}
}

/* Takes the out-fences of what was applied, after a call in which that may have happened. */
static void take_applied(unsigned first, unsigned count)
{
	unsigned applied = count - w.bind_count;
	for (unsigned i = 0; i < applied; i++) {
		struct bind *bind = &w.bind[(first + i) % BINDS];
		must(bind->out == NULL || lf_fence_status(bind->out) == 1);
		lf_fence_put(bind->out);
		bind->out = NULL;
	}
	check_queue();
	check_applied();
	if (w.banned != 0)
		must(lf_vm_error(w.vm) == w.banned);
}

static void signal_fence(unsigned i)
{
	unsigned first = w.bind_first, count = w.bind_count;
	struct lf_fence *f = w.fence[i];
	if (f == NULL)
		return;
	for (unsigned b = 0; b < w.bind_count; b++)
		w.bind[(w.bind_first + b) % BINDS].in &= ~(1U << i);
	must(lf_fence_signal(f, chance(8) ? -EIO : 0));
	lf_fence_put(f);
	w.fence[i] = NULL;
	take_applied(first, count);
}

static void do_signal(void)
{
	if (w.binds)
		signal_fence(w.op.bo % FENCES);
}

static void do_ban(void)
{
	if (w.binds && w.op.flags % 8 == 0)
		w.apply_error = -EFAULT;
}

static void make_room(void)
{
	for (unsigned i = 0; w.bind_count == BINDS && i < FENCES; i++)
		signal_fence(i);
}

/* Up to two fences, made now or before. */
static size_t choose_fences(struct lf_fence **in, unsigned *ret_bits)
{
	size_t count = 0;
	*ret_bits = 0;
	for (unsigned i = 0; i < FENCES; i++) {
		if ((w.op.offset & (17U << i)) == 0 || w.op.offset % 3 == 0)
			continue;
		if (w.fence[i] == NULL)
			must(lf_fence_create(&w.fence[i]) == 0);
		in[count++] = w.fence[i];
		*ret_bits |= 1U << i;
	}
	return count;
}

/* Submits; what is applied at once is applied inside. Returns whether the transaction has ended. */
static bool submit(struct bind *bind)
{
	struct lf_fence *in[FENCES];
	unsigned bits;
	size_t count = choose_fences(in, &bits);
	bool wanted = w.op.flags % 4 != 0;
	bind->in = bits;
	w.bind_count++;
	fail_allocation(w.op.fail, 16);
	int error = lf_txn_submit(&w.txn, in, count, wanted ? &bind->out : NULL);
	fail_no_more();
	w.result = error;
	if (error != 0) {
		must(error == -ENOMEM && w.memory_failed);
		hit(NO_MEMORY, 1);
		w.bind_count--;
		return false;
	}
	return true;
}

static bool end_bind(void)
{
	struct bind *bind;
	make_room();
	if (w.banned != 0) { /* while it made room; a commit of a banned VM has nobody who would apply it */
		lf_txn_abort(&w.txn);
		return true;
	}
	bind = &w.bind[(w.bind_first + w.bind_count) % BINDS];
	version_copy(&w.model, &bind->version, &w.draft);
	bind->in = 0;
	bind->out = NULL;
	unsigned first = w.bind_first, count = w.bind_count + 1;
	if (!submit(bind))
		return false;
	version_copy(&w.model, &w.asked, &w.draft);
	take_applied(first, count);
	return true;
}

/* Commits inside a read section, in which nothing changes. */
static void end_plain(void)
{
	struct lf_view view;
	long calls = alloc_calls();
	lf_read_lock();
	view_asked(&view);
	lf_txn_commit(&w.txn);
	must(alloc_calls() == calls);
	if (w.model.pages <= 256 || chance(8))
		check_whole(&view, &w.asked);
	lf_read_unlock();
	version_copy(&w.model, &w.asked, &w.draft);
}

static void abort_now(void)
{
	long calls = alloc_calls();
	lf_txn_abort(&w.txn);
	must(alloc_calls() == calls);
	w.open = false;
	lf_resv_unlock(w.resv);
	check_asked();
}

static void commit_now(void)
{
	check_ops();
	if (w.binds && !end_bind())
		return;
	if (!w.binds)
		end_plain();
	w.open = false;
	check_asked(); /* under the lock */
	lf_resv_unlock(w.resv);
}

static void do_commit(void)
{
	if (!w.open)
		return;
	if (w.error != 0)
		abort_now();
	else
		commit_now();
}

static void do_abort(void)
{
	if (w.open)
		abort_now();
}

/* --- Looking --------------------------------------------------------------------------------------------------------------- */

static void look_at(const struct lf_view *view, const struct version *v)
{
	check_page(&w.model, view, v, (int)(w.op.at % (w.model.pages + 2)) - 1);
}

static void check_lookup_get(unsigned page)
{
	struct lf_mapping *m = lf_vm_lookup_get(w.vm, w.model.bound[page]);
	must((m != NULL) == (w.asked.seen[page] != 0));
	if (m != NULL)
		check_mapping(&w.model, w.asked.seen[page], m);
	lf_read_lock();
	must(lf_mapping_tryget(m) == m);
	lf_read_unlock();
	lf_mapping_put(m);
	lf_mapping_put(m);
}

static void do_look(void)
{
	unsigned page = w.op.at % w.model.pages;
	with_some_version(w.op.bo, look_at);
	lf_read_lock();
	must((lf_vm_lookup(w.vm, w.model.bound[page]) != NULL) == (w.asked.seen[page] != 0));
	lf_read_unlock();
	if (w.op.flags % 8 == 0)
		check_lookup_get(page);
}

static void walk_over(const struct lf_view *view, const struct version *v)
{
	check_range(&w.model, view, v, w.first, w.last);
}

static void do_walk(void)
{
	choose_range();
	with_some_version(w.op.bo, walk_over);
}

static void compare(const struct lf_view *view, const struct version *v)
{
	check_tree(view);
	check_whole(view, v);
}

static void do_compare(void)
{
	with_some_version(w.op.bo, compare);
}

static void do_hold(void)
{
	struct held *held = &w.held[w.op.bo % HELD];
	if (held->held != NULL)
		return;
	fail_allocation(w.op.fail / 4, 4);
	int error = lf_vm_hold(w.vm, &held->held);
	fail_no_more();
	must(error == 0 || (error == -ENOMEM && w.memory_failed));
	if (error != 0)
		held->held = NULL;
	version_copy(&w.model, &held->version, &w.asked);
}

static void let_go(struct held *held)
{
	struct lf_view view;
	if (held->held == NULL)
		return;
	lf_held_view(held->held, &view);
	compare(&view, &held->version);
	lf_held_put(held->held);
	held->held = NULL;
}

static void do_let_go(void)
{
	let_go(&w.held[w.op.bo % HELD]);
}

static void unkeep(unsigned i)
{
	if (w.kept[i] == NULL)
		return;
	check_mapping(&w.model, w.kept_record[i], w.kept[i]);
	lf_mapping_put(w.kept[i]);
	w.kept[i] = NULL;
}

static void do_keep(void)
{
	unsigned i = w.op.bo % KEPT, page = w.op.at % w.model.pages;
	unkeep(i);
	w.kept[i] = lf_vm_lookup_get(w.vm, w.model.bound[page + 1] - 1);
	w.kept_record[i] = w.asked.seen[page];
	must((w.kept[i] != NULL) == (w.kept_record[i] != 0));
	if (w.kept[i] != NULL)
		check_mapping(&w.model, w.kept_record[i], w.kept[i]);
}

static void do_unkeep(void)
{
	unkeep(w.op.bo % KEPT);
}

static void do_stats(void)
{
	struct lf_vm_stats stats;
	unsigned held = 0;
	lf_vm_get_stats(w.vm, &stats);
	for (unsigned i = 0; i < HELD; i++)
		held += w.held[i].held != NULL;
	must(stats.mappings == model_count(&w.model, &w.asked));
	must(stats.version >= w.version);
	if (w.binds)
		held += 1 + w.bind_count; /* what is applied, and what will be */
	must(stats.held == held || w.banned != 0);
	if (!w.binds && held == 0)
		must(stats.pinned == 0);
	must((stats.nodes == 0) == (stats.bytes == 0));
}

/* --- The beginning and the end of a program -------------------------------------------------------------------------------- */

/* How large the next page is, in granules: all alike, any level of the tree, or anything. */
static uint64_t page_granules(unsigned layout, unsigned level)
{
	switch (layout) {
	case 0:
		return 1;
	case 1:
		return UINT64_C(1) << 6 * level;
	case 2:
		return UINT64_C(1) << random_next(&w.random) % 24;
	case 3:
		return 1 + random_next(&w.random) % 200;
	default:
		return chance(64) ? UINT64_C(1) << 6 * level : 1;
	}
}

static uint64_t choose_granule(uint8_t byte)
{
	static const uint64_t granules[8] = { 4096, 4096, 4096, 4096, 4096, 1, 65536, UINT64_C(1) << 26 };
	return granules[byte % 8];
}

static void choose_bounds(const uint8_t *head)
{
	static const unsigned sizes[8] = { 24, 64, 128, 128, 200, 256, 512, MODEL_PAGES };
	unsigned layout = head[2] % 5, level = 1 + head[3] % 4;
	struct model *model = &w.model;
	uint64_t all = 0;
	model->pages = sizes[head[1] % 8];
	for (unsigned p = 0; p <= model->pages; p++) {
		model->bound[p] = all * w.granule;
		all += page_granules(layout, level);
	}
	uint64_t start = random_next(&w.random) << 30;
	if (head[4] % 4 == 0)
		start = 0;
	else if (head[4] % 4 == 1 || start > UINT64_MAX - model->bound[model->pages])
		start = -model->bound[model->pages]; /* the last page ends with the last address */
	start -= start % w.granule;
	for (unsigned p = 0; p <= model->pages; p++)
		model->bound[p] += start;
}

static void make_buffers(const uint8_t *head)
{
	for (unsigned i = 0; i < BUFFERS; i++) {
		struct buffer *buffer = lf_alloc(sizeof(*buffer));
		must(buffer != NULL);
		buffer->magic = around_magic;
		w.bo_size[i] = i == 0 ? UINT64_MAX : (uint64_t)64 * 4096 << 4 * (i % 4);
		if (i == 1) /* for requests that do not fit */
			w.bo_size[i] += model_size(&w.model, 0, 0);
		struct lf_bo_desc desc = {
			.size = w.bo_size[i], .resv = (head[5] >> i & 1) != 0 ? w.resv : NULL, .release = on_bo_release
		};
		must(lf_bo_init(&buffer->bo, &desc) == 0);
		w.bo[i] = &buffer->bo;
		lives.buffers++;
	}
}

static void make_vm(const uint8_t *head)
{
	const struct model *model = &w.model;
	struct lf_vm_desc desc = {
		.name = "fuzz",
		.granule = w.granule,
		.mapping_size = sizeof(struct around),
		.mapping_offset = offsetof(struct around, m),
		.vm_bo_size = sizeof(struct pair_around),
		.vm_bo_offset = offsetof(struct pair_around, vm_bo),
		.data = &w,
	};
	w.binds = head[6] % 3 == 0;
	desc.flags = w.binds ? LF_VM_BIND : 0;
	desc.ops = w.binds ? &ops_bind : &ops_plain;
	desc.resv = w.resv;
	if (head[6] % 2 == 0) {
		desc.start = model->bound[0];
		desc.size = model->bound[model->pages] == 0 ? 0 : model->bound[model->pages] - model->bound[0];
	}
	w.max_mappings = head[7] % 16 == 0 ? 3 + head[7] / 16 : 0;
	desc.max_mappings = w.max_mappings;
	w.reserved_first = MODEL_PAGES;
	w.reserved_last = 0;
	if (head[7] % 8 == 1) {
		w.reserved_first = head[7] / 8 % 2 == 0 ? 0 : model->pages - 2;
		w.reserved_last = w.reserved_first + 1;
		desc.reserved_start = model_va(model, w.reserved_first);
		desc.reserved_size = model_size(model, w.reserved_first, w.reserved_last);
	}
	must(lf_vm_create(&desc, &w.vm) == 0);
	lives.vms++;
}

static void start_program(const uint8_t *head)
{
	memcpy(&w.random, head + 8, sizeof(w.random));
	w.random |= 1;
	w.model.records = 1;
	w.model.pairs = 1;
	w.model.pair[0] = (struct pair){ 0 };
	memset(&w.model.record[0], 0, sizeof(w.model.record[0]));
	w.open = false;
	w.error = w.apply_error = w.banned = w.split_error = 0;
	w.bind_first = w.bind_count = 0;
	w.closed_pair = 0;
	w.version = 0;
	memset(w.open_pair, 0, sizeof(w.open_pair));
	memset(w.pair_held, 0, sizeof(w.pair_held));
	version_clear(&w.asked);
	version_clear(&w.draft);
	version_clear(&w.applied);
	w.granule = choose_granule(head[0]);
	choose_bounds(head);
	must(lf_resv_create(NULL, &w.resv) == 0);
	make_buffers(head);
	make_vm(head);
}

/* What was not applied is cancelled; what was asked for is gone. */
static void close_vm(void)
{
	struct lf_view view;
	struct lf_vm_bo *vm_bo;
	must(lf_resv_lock(w.resv, NULL) == 0);
	long calls = alloc_calls();
	must(lf_vm_close(w.vm) == 0);
	must(lf_vm_close(w.vm) == 0);
	must(alloc_calls() == calls);
	must(lf_txn_begin(&w.txn, w.vm) == lf_vm_error(w.vm));
	lf_resv_unlock(w.resv);
	must(lf_vm_error(w.vm) == (w.banned != 0 ? w.banned : -ESHUTDOWN));
	must(lf_vm_bo_obtain(w.vm, w.bo[0], &vm_bo) == lf_vm_error(w.vm));
	while (w.bind_count != 0) {
		struct bind *bind = first_bind();
		must(bind->out == NULL || lf_fence_status(bind->out) == (w.banned != 0 ? w.banned : -ECANCELED));
		lf_fence_put(bind->out);
		w.bind_first = (w.bind_first + 1) % BINDS;
		w.bind_count--;
	}
	version_clear(&w.asked);
	lf_read_lock();
	lf_vm_view(w.vm, &view);
	check_whole(&view, &w.asked);
	lf_read_unlock();
}

static void end_fence(unsigned i)
{
	if (w.fence[i] == NULL)
		return;
	must(lf_fence_signal(w.fence[i], 0));
	lf_fence_put(w.fence[i]);
	w.fence[i] = NULL;
}

static void end_buffer(unsigned bo)
{
	put_pair(bo);
	lf_bo_put(w.bo[bo]);
	w.bo[bo] = NULL;
}

/* Everything that is left, in a random order: what is held must stay whatever goes before it. */
static void end_rest(void)
{
	unsigned left[HELD + KEPT + FENCES + BUFFERS + 2], count = sizeof(left) / sizeof(left[0]);
	for (unsigned i = 0; i < count; i++)
		left[i] = i;
	while (count != 0) {
		unsigned at = (unsigned)(random_next(&w.random) % count), which = left[at];
		left[at] = left[--count];
		if (which < HELD) {
			let_go(&w.held[which]);
		} else if ((which -= HELD) < KEPT) {
			unkeep(which);
		} else if ((which -= KEPT) < FENCES) {
			end_fence(which);
		} else if ((which -= FENCES) < BUFFERS) {
			end_buffer(which);
		} else if (which == BUFFERS) {
			lf_vm_put(w.vm);
		} else {
			drop_closed_pair();
		}
	}
}

static void end_program(void)
{
	if (w.open && (w.error != 0 || chance(2)))
		abort_now();
	w.op = (struct op){ .kind = COMMIT, .fail = 0xff, .flags = 2 };
	if (w.open)
		commit_now();
	close_vm();
	end_rest();
	lf_resv_put(w.resv);
	must(log_count(LF_LOG_MISUSE) == 0);
}

/* --- Running --------------------------------------------------------------------------------------------------------------- */

static void (*const actions[KINDS])(void) = {
	[MAP] = do_map,
	[MAP_AGAIN] = do_map_again,
	[UNMAP] = do_unmap,
	[SPLIT] = do_split,
	[PREFETCH] = do_prefetch,
	[REAP] = do_reap,
	[WALK_OPS] = do_walk_ops,
	[COMMIT] = do_commit,
	[ABORT] = do_abort,
	[LOOK] = do_look,
	[WALK] = do_walk,
	[HOLD] = do_hold,
	[LET_GO] = do_let_go,
	[COMPARE] = do_compare,
	[KEEP] = do_keep,
	[UNKEEP] = do_unkeep,
	[OBTAIN] = do_obtain,
	[PUT_PAIR] = do_put_pair,
	[FIND] = do_find,
	[CLOSE] = do_close,
	[MAPPINGS] = do_mappings,
	[STATS] = do_stats,
	[MISUSE] = do_misuse,
	[SIGNAL] = do_signal,
	[BAN] = do_ban,
};

static void step(const uint8_t *bytes)
{
	struct logged *logged = &w.log[fuzz_progress->steps % LOG];
	w.op = to_op(bytes);
	w.first = w.last = w.op.at % w.model.pages;
	w.result = 0;
	*logged = (struct logged){ w.op, w.first, w.last, 0 };
	actions[w.op.kind]();
	*logged = (struct logged){ w.op, w.first, w.last, w.result };
	fuzz_progress->count[w.op.kind]++;
	fuzz_progress->ops++;
	fuzz_progress->steps++;
}

static bool room_for_more(void)
{
	return w.model.records + 64 < MODEL_RECORDS;
}

static void run_program(const uint8_t *data, size_t size)
{
	fuzz_progress->steps = 0;
	if (size < FUZZ_HEAD)
		return;
	start_program(data);
	for (size_t at = FUZZ_HEAD; at + FUZZ_OP <= size && room_for_more(); at += FUZZ_OP)
		step(data + at);
	end_program();
}

static void start(void)
{
	static const uint8_t nothing[FUZZ_HEAD];
	struct lf_deferred *node;
	alloc_install();
	log_capture();
	/* what the library sets up with its first use stays */
	node = lf_alloc(sizeof(*node));
	must(node != NULL);
	lf_defer_free(node, node);
	run_program(nothing, sizeof(nothing));
	must(lf_reclaim_barrier() == 0);
	live_at_start = alloc_live();
}

static void settle(void)
{
	must(lf_reclaim_barrier() == 0);
	must(atomic_load(&lives.mappings_released) == lives.mappings);
	must(atomic_load(&lives.pairs_released) == lives.pairs);
	must(atomic_load(&lives.vms_released) == lives.vms);
	must(atomic_load(&lives.buffers_released) == lives.buffers);
	must(alloc_live() == live_at_start);
}

static void dump_op(FILE *file, uint64_t number)
{
	const struct logged *l = &w.log[number % LOG];
	bool now = number == fuzz_progress->steps;
	fprintf(file, "%6llu  %-9s pages %u to %u, buffer %u, offset %u, flags %u", (unsigned long long)number, kinds[l->op.kind],
		now ? w.first : l->first, now ? w.last : l->last, l->op.bo, l->op.offset, l->op.flags);
	if (l->op.fail < 32)
		fprintf(file, ", failure %u", l->op.fail);
	fprintf(file, "%s%s\n", now ? "  <-- here" : l->result != 0 ? ": " : "", now || l->result == 0 ? "" : strerror(-l->result));
}

static void dump(FILE *file)
{
	uint64_t last = fuzz_progress->steps, first = last < LOG ? 0 : last - LOG + 1;
	const struct model *model = &w.model;
	if (model->pages == 0)
		return;
	fprintf(file,
		"VM%s with %u pages, the first at %#llx with %#llx bytes, the last up to %#llx; reserved %u to %u; at most %llu mappings\n",
		w.binds ? " with a bind queue" : "", model->pages, (unsigned long long)model->bound[0],
		(unsigned long long)model_size(model, 0, 0), (unsigned long long)(model->bound[model->pages] - 1), w.reserved_first,
		w.reserved_last, (unsigned long long)w.max_mappings);
	for (uint64_t i = first; i <= last; i++)
		dump_op(file, i);
	fprintf(file, "in the transaction: %s, error %d; banned %d; %u binds queued\n", w.open ? "open" : "none", w.error, w.banned,
		w.bind_count);
	fflush(file);
}

const struct fuzz_target fuzz_target = {
	.ops = 300000,
	.kinds = kinds,
	.hits = hits,
	.checks = "whole versions compared",
	.start = start,
	.run = run_program,
	.settle = settle,
	.dump = dump,
};
