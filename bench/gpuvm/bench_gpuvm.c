/* SPDX-License-Identifier: MIT */
/*
 * The Address space table of the budgets: libfence beside std::map under a std::shared_mutex, liburcu's rculfhash by page, and, for
 * orientation, a page table and a static B-tree without any synchronization.
 *
 * A case is written once, as an always-inlined function over `struct space_ops`, as in ../fence/bench_fence.c. Each implementation maps the
 * same ranges in the same order. A lookup reads the offset of the mapping that it finds.
 *
 * Layouts:
 *
 *   pages             One page every 64 KiB.
 *   mixed sizes       Sizes and gaps drawn as in a dump of an Adreno's address space (230 buffers of Mesa's CI data, MIT). None there is
 *                     larger than 1 MiB; the budgets ask for up to 64 MiB, so one in 1024 is. Tables by page are left out of 1e6: 20
 *                     million pages. The table of budgets does not tell the layouts apart, so both are held to them.
 *   three pages       Every 64 KiB, all of them mapped: for what splits and replaces.
 *
 * Budgets that were stated against code which is not here are converted by the same table of budgets (ns of that machine):
 *
 *   map one           0.8 x gpuvm: 0.8 x 227 / 89 = 2.04 x std::map at 1e3, 0.8 x 1685 / 898 = 1.50 x at 1e6.
 *   under churn       0.5 x maple tree: 0.5 x 435 / 167 = 1.30 x rculfhash.
 *   pair, readers     1.0 x maple tree: 1662 / 620 = 2.68 x rculfhash.
 *   map that splits   0.7 x gpuvm. No peer stands in that row, and mutex pairs say nothing of cache misses, so it is converted by the row
 *                     "map one" to what mapping one in a std::map takes in the same repeat: 0.7 x 574 / 89 = 4.51 x at 1e3, 0.7 x 2691 /
 *                     898 = 2.10 x at 1e6. A std::map that splits is measured beside it.
 *   replacing 16      0.7 x gpuvm, likewise: 0.7 x 75 / 89 = 0.59 x at 1e3, 0.7 x 295 / 898 = 0.23 x at 1e6.
 *   lock 64           1.0 x gpuvm, 43: 2.39 mutex pairs.
 *   2 readers         "No slower than one" is 1.05 x: the same twice is not the same either.
 *
 * What is timed where the budget leaves it open:
 *
 *   lookup            lf_read_lock(), lf_vm_lookup(), lf_read_unlock() for each. "64 a view": one section and one view for 64.
 *   map one           Begin, map, commit; the mapping object's allocation is inside, and so are the peers'. The reservation is locked once,
 *                     outside; the column that the budget comes from has its mutex inside, and so has std::map: the rows "locked for each"
 *                     lock and unlock the reservation, too. N others are there, and N / 32 more addresses (256 at least) take turns in
 *                     being free, so that what is mapped was unmapped some time ago.
 *   readers           On the wall, the reader that is timed on one CPU, the other thread on the other.
 *   replacing 16      16 requests in a transaction, for the same addresses with other flags. "by one": one request over all of them.
 *   scaling           Sets of up to 10,000,000 mappings, and threads that share lookups in 100,000. "In all" counts mapping objects, too.
 *   a held version    The memory that it keeps, after that many mappings were replaced, each in a transaction. A std::map would have to be
 *                     copied as a whole.
 */
#include <malloc.h>
#include <stdatomic.h>
#include <string.h>

#include <libfence/libfence.h>

#include "bench.h"
#include "peers.h"

#define INLINE static inline __attribute__((always_inline))

#define BASE       (UINT64_C(1) << 32)
#define STRIDE     (UINT64_C(64) << 10)
#define BO_SIZE    (UINT64_C(1) << 46)
#define BOS        64 /* that share the mappings */
#define BATCH      256 /* what is mapped before something must be unmapped */
#define LOOKUPS    ((size_t)1 << 16) /* of a run at most */
#define UPDATES    ((size_t)1 << 14) /* likewise */
#define WARM_UP    ((size_t)1 << 13) /* lookups before the time starts */
#define WARM_MAPS  1024
#define GROUP      16 /* mappings that a transaction replaces */
#define A_VIEW     64 /* lookups */
#define EXTERNALS  64
#define AT_A_TIME  64 /* what a partner does before it looks whether to stop */
#define CACHE_LINE 64

/* --- Layouts ------------------------------------------------------------------------------------------------------------- */

/* Which one, and how many mappings: a case's parameter. */
enum kind { KIND_PAGES, KIND_MIXED, KIND_THREE, KINDS };

#define PARAM(kind, n) ((kind) << 24 | (n))

struct layout {
	int param;
	size_t n; /* mapped at a time */
	size_t slots; /* n, and for two layouts some that take turns in being free */
	struct range *ranges; /* by slot, in the order of addresses */
	uint32_t *order; /* all slots, at random */
	uint64_t pages;
};

/* How many pages, and how many of that kind in 1024. */
struct share {
	uint32_t pages, share;
};

static const struct share sizes[] = { { 1, 983 }, { 5, 4 }, { 8, 27 }, { 256, 9 }, { 16384, 1 } };
static const struct share gaps[] = { { 0, 617 }, { 1, 81 }, { 2, 36 }, { 4, 76 }, { 8, 58 }, { 15, 36 }, { 24, 67 }, { 52, 18 }, { 109, 9 },
	{ 159, 9 }, { 332, 4 }, { 2259, 5 }, { 4125, 4 }, { 7407, 4 } };

static uint64_t draw_bytes(const struct share *shares)
{
	uint32_t left = (uint32_t)(bench_draw() >> 32) % 1024;

	while (left >= shares->share)
		left -= (shares++)->share;
	return (uint64_t)shares->pages * GRANULE;
}

static void place(struct layout *layout, enum kind kind)
{
	uint64_t va = BASE;

	for (size_t i = 0; i < layout->slots; i++) {
		struct range *range = &layout->ranges[i];
		uint64_t size = kind == KIND_MIXED ? draw_bytes(sizes) : kind == KIND_THREE ? 3 * GRANULE : GRANULE;

		*range = (struct range){ .va = va, .size = size, .offset = va };
		layout->pages += size / GRANULE;
		va += kind == KIND_MIXED ? size + draw_bytes(gaps) : STRIDE;
	}
}

static void shuffle(uint32_t *order, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		size_t other = bench_draw() % (i + 1);

		order[i] = order[other];
		order[other] = (uint32_t)i;
	}
}

static struct layout *layout_create(int param)
{
	struct layout *layout = bench_alloc(sizeof(*layout));
	enum kind kind = (enum kind)(param >> 24);

	layout->param = param;
	layout->n = (size_t)param & 0xffffff;
	layout->slots = layout->n;
	if (kind != KIND_THREE)
		layout->slots += layout->n / 32 > BATCH ? layout->n / 32 : BATCH;
	layout->ranges = bench_alloc(layout->slots * sizeof(*layout->ranges));
	layout->order = bench_alloc(layout->slots * sizeof(*layout->order));
	place(layout, kind);
	shuffle(layout->order, layout->slots);
	return layout;
}

static const struct layout *layout_of(int param)
{
	static struct layout *layouts[4 * KINDS];
	size_t i = 0;

	while (layouts[i] && layouts[i]->param != param)
		BENCH_CHECK(++i < 4 * KINDS);
	if (!layouts[i])
		layouts[i] = layout_create(param);
	return layouts[i];
}

/* --- The implementations ------------------------------------------------------------------------------------------------- */

enum who { LIBFENCE, STD_MAP, RCULFHASH, PAGE_TABLE, B_TREE, WHO };

struct space_ops {
	enum who who;
	void *(*create)(const struct layout *layout);
	void (*map)(void *space, const struct range *range);
	void (*unmap)(void *space, const struct range *range);
	bool (*lookup)(void *space, uint64_t va, uint64_t *ret_offset);
	void (*replace)(void *space, const struct range *ranges, size_t count); /* in one transaction; NULL: not measured */
	void (*lock)(void *space); /* for a while of mapping and unmapping */
	void (*unlock)(void *space);
	void (*drain)(void *space);
};

struct lf_space {
	struct lf_vm *vm;
	struct lf_resv *resv;
	struct lf_vm_bo *vm_bos[BOS];
};

static struct lf_vm_bo *lf_make_vm_bo(struct lf_vm *vm, struct lf_resv *resv)
{
	struct lf_bo *bo = lf_alloc(sizeof(*bo));
	struct lf_bo_desc desc = { .size = BO_SIZE, .resv = resv };
	struct lf_vm_bo *vm_bo;

	BENCH_CHECK(bo && lf_bo_init(bo, &desc) == 0);
	BENCH_CHECK(lf_vm_bo_obtain(vm, bo, &vm_bo) == 0);
	lf_bo_put(bo);
	return vm_bo;
}

static void *lf_create(const struct layout *layout)
{
	struct lf_space *space = bench_alloc(sizeof(*space));
	struct lf_vm_desc desc = { .name = "bench" };

	(void)layout;
	BENCH_CHECK(lf_vm_create(&desc, &space->vm) == 0);
	space->resv = lf_vm_resv(space->vm);
	for (size_t i = 0; i < BOS; i++)
		space->vm_bos[i] = lf_make_vm_bo(space->vm, space->resv);
	return space;
}

/* The reservation is locked by this thread from here ... */
static void lf_op_lock(void *arg)
{
	struct lf_space *space = arg;

	BENCH_CHECK(lf_resv_lock(space->resv, NULL) == 0);
}

/* ... to here. */
static void lf_op_unlock(void *arg)
{
	struct lf_space *space = arg;

	lf_resv_unlock(space->resv);
}

INLINE void lf_request(struct lf_space *space, struct lf_txn *txn, const struct range *range)
{
	struct lf_map_desc desc = {
		.va = range->va,
		.size = range->size,
		.offset = range->offset,
		.flags = range->flags,
		.vm_bo = space->vm_bos[range->va / STRIDE % BOS],
	};

	BENCH_CHECK(lf_txn_map(txn, &desc, NULL) == 0);
}

INLINE void lf_op_map(void *arg, const struct range *range)
{
	struct lf_space *space = arg;
	struct lf_txn txn;

	BENCH_CHECK(lf_txn_begin(&txn, space->vm) == 0);
	lf_request(space, &txn, range);
	lf_txn_commit(&txn);
}

INLINE void lf_op_unmap(void *arg, const struct range *range)
{
	struct lf_space *space = arg;
	struct lf_txn txn;

	BENCH_CHECK(lf_txn_begin(&txn, space->vm) == 0);
	BENCH_CHECK(lf_txn_unmap(&txn, range->va, range->size) == 0);
	lf_txn_commit(&txn);
}

INLINE void lf_op_replace(void *arg, const struct range *ranges, size_t count)
{
	struct lf_space *space = arg;
	struct lf_txn txn;

	BENCH_CHECK(lf_txn_begin(&txn, space->vm) == 0);
	for (size_t i = 0; i < count; i++)
		lf_request(space, &txn, &ranges[i]);
	lf_txn_commit(&txn);
}

INLINE bool lf_op_lookup(void *arg, uint64_t va, uint64_t *ret_offset)
{
	struct lf_space *space = arg;
	struct lf_mapping *m;

	lf_read_lock();
	m = lf_vm_lookup(space->vm, va);
	if (m)
		*ret_offset = m->offset;
	lf_read_unlock();
	return m != NULL;
}

static void lf_op_drain(void *space)
{
	(void)space;
	BENCH_CHECK(lf_reclaim_barrier() == 0);
}

static const struct space_ops lf_ops = {
	.who = LIBFENCE,
	.create = lf_create,
	.map = lf_op_map,
	.unmap = lf_op_unmap,
	.lookup = lf_op_lookup,
	.replace = lf_op_replace,
	.lock = lf_op_lock,
	.unlock = lf_op_unlock,
	.drain = lf_op_drain,
};

static void nothing(void *space)
{
	(void)space;
}

INLINE void each_op_map(void *space, const struct range *range)
{
	lf_op_lock(space);
	lf_op_map(space, range);
	lf_op_unlock(space);
}

INLINE void each_op_unmap(void *space, const struct range *range)
{
	lf_op_lock(space);
	lf_op_unmap(space, range);
	lf_op_unlock(space);
}

/* The same address space, locked for each transaction. */
static const struct space_ops each_ops = {
	.who = LIBFENCE,
	.create = lf_create,
	.map = each_op_map,
	.unmap = each_op_unmap,
	.lookup = lf_op_lookup,
	.lock = nothing,
	.unlock = nothing,
	.drain = lf_op_drain,
};

#ifdef HAVE_PEER_MAP
static void *sm_op_create(const struct layout *layout)
{
	(void)layout;
	return sm_create();
}

INLINE void sm_op_map(void *space, const struct range *range)
{
	sm_map(space, range);
}

INLINE void sm_op_unmap(void *space, const struct range *range)
{
	sm_unmap(space, range);
}

INLINE bool sm_op_lookup(void *space, uint64_t va, uint64_t *ret_offset)
{
	return sm_lookup(space, va, ret_offset);
}

INLINE void sm_op_replace(void *space, const struct range *ranges, size_t count)
{
	sm_map_all(space, ranges, count);
}

static const struct space_ops sm_ops = {
	.who = STD_MAP,
	.create = sm_op_create,
	.map = sm_op_map,
	.unmap = sm_op_unmap,
	.lookup = sm_op_lookup,
	.replace = sm_op_replace,
	.lock = nothing,
	.unlock = nothing,
	.drain = nothing,
};
#endif

#ifdef HAVE_PEER_LFHT
static void *lh_op_create(const struct layout *layout)
{
	return lh_create(layout->pages * layout->n / layout->slots);
}

INLINE void lh_op_map(void *space, const struct range *range)
{
	lh_map(space, range);
}

INLINE void lh_op_unmap(void *space, const struct range *range)
{
	lh_unmap(space, range);
}

INLINE bool lh_op_lookup(void *space, uint64_t va, uint64_t *ret_offset)
{
	return lh_lookup(space, va, ret_offset);
}

static void lh_op_drain(void *space)
{
	lh_drain(space);
}

static const struct space_ops lh_ops = {
	.who = RCULFHASH,
	.create = lh_op_create,
	.map = lh_op_map,
	.unmap = lh_op_unmap,
	.lookup = lh_op_lookup,
	.lock = nothing,
	.unlock = nothing,
	.drain = lh_op_drain,
};
#endif

static void *pt_op_create(const struct layout *layout)
{
	(void)layout;
	return pt_create();
}

INLINE void pt_op_map(void *space, const struct range *range)
{
	pt_map(space, range);
}

INLINE void pt_op_unmap(void *space, const struct range *range)
{
	pt_unmap(space, range);
}

INLINE bool pt_op_lookup(void *space, uint64_t va, uint64_t *ret_offset)
{
	return pt_lookup(space, va, ret_offset);
}

static const struct space_ops pt_ops = {
	.who = PAGE_TABLE,
	.create = pt_op_create,
	.map = pt_op_map,
	.unmap = pt_op_unmap,
	.lookup = pt_op_lookup,
	.lock = nothing,
	.unlock = nothing,
	.drain = nothing,
};

/* All there will ever be. */
static void *bt_op_create(const struct layout *layout)
{
	return bt_create(layout->ranges, layout->slots);
}

static void bt_op_map(void *space, const struct range *range)
{
	(void)space;
	(void)range;
}

INLINE bool bt_op_lookup(void *space, uint64_t va, uint64_t *ret_offset)
{
	return bt_lookup(space, va, ret_offset);
}

static const struct space_ops bt_ops = {
	.who = B_TREE,
	.create = bt_op_create,
	.map = bt_op_map,
	.unmap = bt_op_map,
	.lookup = bt_op_lookup,
	.lock = nothing,
	.unlock = nothing,
	.drain = nothing,
};

/* --- Address spaces with something in them ------------------------------------------------------------------------------- */

/* An address space of an implementation. The n mappings that are there are those of a window of the layout's order, which moves. */
struct set {
	const struct layout *layout;
	const struct space_ops *ops;
	void *space;
	size_t head; /* where the window begins */
	uint32_t flags; /* of what was replaced last */
	int64_t bytes; /* what the allocator gave for it, but for the mappings */
};

static const struct range *range_at(const struct set *set, size_t i)
{
	const struct layout *layout = set->layout;

	return &layout->ranges[layout->order[(set->head + i) % layout->slots]];
}

static int64_t allocated(void)
{
	struct mallinfo2 info = mallinfo2();

	return (int64_t)(info.uordblks + info.hblkhd);
}

/* What a block of this size takes. */
static int64_t chunk(size_t size)
{
	void *block = malloc(size);
	int64_t taken = (int64_t)malloc_usable_size(block) + (int64_t)sizeof(size_t);

	free(block);
	return taken;
}

static void set_fill(struct set *set)
{
	size_t mapping = set->ops->who == LIBFENCE ? sizeof(struct lf_mapping) : sizeof(struct peer_mapping);
	int64_t before = allocated();

	set->space = set->ops->create(set->layout);
	BENCH_CHECK(set->space);
	set->ops->lock(set->space);
	for (size_t i = 0; i < set->layout->n; i++)
		set->ops->map(set->space, range_at(set, i));
	set->ops->unlock(set->space);
	set->ops->drain(set->space);
	set->bytes = allocated() - before - (int64_t)set->layout->n * chunk(mapping);
}

/* Made when it is needed first, and kept: making one of a million mappings takes a second. */
static struct set *set_of(const struct space_ops *ops, int param)
{
	static struct set *sets[WHO][4 * KINDS];
	struct set **of = sets[ops->who];
	size_t i = 0;

	while (of[i] && of[i]->layout->param != param)
		BENCH_CHECK(++i < 4 * KINDS);
	if (!of[i]) {
		of[i] = bench_alloc(sizeof(*of[i]));
		of[i]->layout = layout_of(param);
		of[i]->ops = ops;
		set_fill(of[i]);
	}
	return of[i];
}

/* Deferred frees, outside the timed sections. What the peers' take is not told: rculfhash's thread wakes up every 10 ms. */
static void drain(struct bench_run *run, const struct set *set)
{
	int64_t begun = bench_wall_ns();

	set->ops->drain(set->space);
	if (set->ops->who == LIBFENCE)
		run->reclaim_ns += bench_wall_ns() - begun;
}

/* --- Lookups ------------------------------------------------------------------------------------------------------------- */

struct lookups {
	uint64_t vas[LOOKUPS];
	uint64_t offsets; /* the sum of what is there */
};

/* Random pages of random mappings. */
static void choose(const struct set *set, struct lookups *lookups, size_t count)
{
	BENCH_CHECK(count <= LOOKUPS);
	lookups->offsets = 0;
	for (size_t i = 0; i < count; i++) {
		const struct range *range = range_at(set, bench_draw() % set->layout->n);

		lookups->vas[i] = range->va + bench_draw() % range->size / 8 * 8;
		lookups->offsets += range->offset;
	}
}

/* What the other thread does meanwhile, and what it does it to. */
struct partner {
	void (*act)(struct partner *partner);
	struct set *set;
	const struct lookups *lookups;
	size_t done;
	pthread_t thread;
	_Alignas(CACHE_LINE) atomic_bool running;
	_Alignas(CACHE_LINE) atomic_bool stop;
};

static void partner_reads(struct partner *partner)
{
	for (size_t i = 0; i < AT_A_TIME; i++) {
		uint64_t va = partner->lookups->vas[partner->done++ % LOOKUPS], offset = 0;

		if (partner->set->ops->lookup(partner->set->space, va, &offset))
			BENCH_CHECK(offset > 0 && offset <= va);
	}
}

/* Takes away the mapping that is there for longest, and maps what was away for longest. */
INLINE void turn(struct set *set, const struct space_ops *ops)
{
	ops->unmap(set->space, range_at(set, 0));
	ops->map(set->space, range_at(set, set->layout->n));
	set->head = (set->head + 1) % set->layout->slots;
}

static void partner_churns(struct partner *partner)
{
	partner->set->ops->lock(partner->set->space);
	for (size_t i = 0; i < AT_A_TIME; i++)
		turn(partner->set, partner->set->ops);
	partner->set->ops->unlock(partner->set->space);
}

static void *partner_thread(void *arg)
{
	struct partner *partner = arg;

	partner->act(partner);
	atomic_store_explicit(&partner->running, true, memory_order_relaxed); /* relaxed: nothing else is handed over */
	while (!atomic_load_explicit(&partner->stop, memory_order_relaxed)) /* relaxed: likewise */
		partner->act(partner);
	return NULL;
}

static struct partner *partner_begin(struct set *set, void (*act)(struct partner *partner), const struct lookups *lookups)
{
	struct partner *partner = bench_alloc(sizeof(*partner));

	partner->act = act;
	partner->set = set;
	partner->lookups = lookups;
	partner->thread = bench_thread(partner_thread, partner, 1);
	while (!atomic_load_explicit(&partner->running, memory_order_relaxed)) /* relaxed: likewise */
		;
	return partner;
}

static void partner_end(struct partner *partner)
{
	atomic_store_explicit(&partner->stop, true, memory_order_relaxed); /* relaxed: likewise */
	bench_join(partner->thread);
	free(partner);
}

/* Between two runs of an implementation others had the caches. */
INLINE void warm_up(const struct bench_run *run, const struct set *set, const struct space_ops *ops)
{
	static struct lookups lookups;
	size_t count = run->n * 8 < WARM_UP ? run->n * 8 : WARM_UP;

	choose(set, &lookups, count);
	for (size_t i = 0; i < count; i++) {
		uint64_t offset = 0;

		if (ops->lookup(set->space, lookups.vas[i], &offset))
			BENCH_CHECK(offset > 0);
	}
}

/* Returns how many were found. */
INLINE size_t look_up(struct bench_run *run, const struct set *set, const struct space_ops *ops, const struct lookups *lookups)
{
	uint64_t offsets = 0;
	size_t found = 0;

	warm_up(run, set, ops);
	bench_start(run);
	for (size_t i = 0; i < run->n; i++) {
		uint64_t offset;

		if (ops->lookup(set->space, lookups->vas[i], &offset)) {
			offsets += offset;
			found++;
		}
	}
	bench_stop(run);
	BENCH_CHECK(found < run->n || offsets == lookups->offsets);
	return found;
}

INLINE void alone(struct bench_run *run, const struct space_ops *ops)
{
	static struct lookups lookups;
	struct set *set = set_of(ops, run->param);

	choose(set, &lookups, run->n);
	BENCH_CHECK(look_up(run, set, ops, &lookups) == run->n);
}

/* Beside another reader. */
INLINE void together(struct bench_run *run, const struct space_ops *ops)
{
	static struct lookups lookups, others;
	struct set *set = set_of(ops, run->param);
	struct partner *partner;

	choose(set, &lookups, run->n);
	choose(set, &others, LOOKUPS);
	partner = partner_begin(set, partner_reads, &others);
	BENCH_CHECK(look_up(run, set, ops, &lookups) == run->n);
	partner_end(partner);
}

/* While another thread writes. Some of what is looked up is not there at that moment. */
INLINE void churned(struct bench_run *run, const struct space_ops *ops)
{
	static struct lookups lookups;
	struct set *set = set_of(ops, run->param);
	struct partner *partner;

	choose(set, &lookups, run->n);
	partner = partner_begin(set, partner_churns, NULL);
	BENCH_CHECK(look_up(run, set, ops, &lookups) >= run->n / 2);
	partner_end(partner);
	ops->drain(set->space);
}

/* Offsets are even, which no compiler knows: each address depends on what the lookup before it has read. */
INLINE void dependent(struct bench_run *run, const struct space_ops *ops)
{
	static struct lookups lookups;
	struct set *set = set_of(ops, run->param);
	uint64_t offset = 0;

	choose(set, &lookups, run->n);
	warm_up(run, set, ops);
	bench_start(run);
	for (size_t i = 0; i < run->n; i++)
		BENCH_CHECK(ops->lookup(set->space, lookups.vas[i] + (offset & 1), &offset));
	bench_stop(run);
}

/* Threads that look up, each its own share. */
#define SHARED PARAM(KIND_PAGES, 100000)

struct reader {
	const struct set *set;
	const struct space_ops *ops;
	const struct lookups *lookups;
};

INLINE void read_part(const struct reader *reader, const struct space_ops *ops, size_t n, size_t thread)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t offset;

		BENCH_CHECK(ops->lookup(reader->set->space, reader->lookups->vas[(thread * n + i) % LOOKUPS], &offset));
	}
}

INLINE void share_lookups(struct bench_run *run, const struct space_ops *ops, void (*work)(void *arg, size_t n, size_t thread))
{
	static struct lookups lookups;
	struct reader reader = { .set = set_of(ops, SHARED), .ops = ops, .lookups = &lookups };

	choose(reader.set, &lookups, LOOKUPS);
	bench_share(run, work, &reader);
}

/* One view for many. */
static void lf_views(struct bench_run *run)
{
	static struct lookups lookups;
	struct set *set = set_of(&lf_ops, run->param);
	struct lf_space *space = set->space;
	uint64_t offsets = 0;

	choose(set, &lookups, run->n);
	warm_up(run, set, &lf_ops);
	bench_start(run);
	for (size_t i = 0; i < run->n; i += A_VIEW) {
		struct lf_view view;

		lf_read_lock();
		lf_vm_view(space->vm, &view);
		for (size_t k = 0; k < A_VIEW; k++)
			offsets += lf_view_lookup(&view, lookups.vas[i + k])->offset;
		lf_read_unlock();
	}
	bench_stop(run);
	BENCH_CHECK(offsets == lookups.offsets);
}

/* --- Mapping and unmapping ----------------------------------------------------------------------------------------------- */

INLINE void map_batch(struct bench_run *run, struct set *set, const struct space_ops *ops)
{
	struct range batch[BATCH];

	for (size_t i = 0; i < BATCH; i++)
		batch[i] = *range_at(set, set->layout->n + i);
	bench_start(run);
	for (size_t i = 0; i < BATCH; i++)
		ops->map(set->space, &batch[i]);
	bench_stop(run);
	for (size_t i = 0; i < BATCH; i++)
		ops->unmap(set->space, range_at(set, i));
	set->head = (set->head + BATCH) % set->layout->slots;
}

INLINE void unmap_batch(struct bench_run *run, struct set *set, const struct space_ops *ops)
{
	struct range batch[BATCH];

	for (size_t i = 0; i < BATCH; i++)
		batch[i] = *range_at(set, i);
	bench_start(run);
	for (size_t i = 0; i < BATCH; i++)
		ops->unmap(set->space, &batch[i]);
	bench_stop(run);
	for (size_t i = 0; i < BATCH; i++)
		ops->map(set->space, range_at(set, set->layout->n + i));
	set->head = (set->head + BATCH) % set->layout->slots;
}

/* --- Mapping over what is there ------------------------------------------------------------------------------------------ */

/* The page in the middle, with flags that it did not have. */
static struct range middle(const struct range *range, uint32_t flags)
{
	return (struct range){ .va = range->va + GRANULE, .size = GRANULE, .offset = range->offset + GRANULE, .flags = flags };
}

INLINE void split_batch(struct bench_run *run, struct set *set, const struct space_ops *ops)
{
	struct range batch[BATCH];

	for (size_t i = 0; i < BATCH; i++)
		batch[i] = middle(range_at(set, i), 1);
	bench_start(run);
	for (size_t i = 0; i < BATCH; i++)
		ops->map(set->space, &batch[i]);
	bench_stop(run);
	for (size_t i = 0; i < BATCH; i++)
		ops->map(set->space, range_at(set, i));
	set->head = (set->head + BATCH) % set->layout->slots;
}

/* Neighbours, with flags that they do not have. */
static void choose_group(struct set *set, struct range *group)
{
	size_t first = bench_draw() % (set->layout->n - GROUP + 1);

	set->flags++;
	memcpy(group, &set->layout->ranges[first], GROUP * sizeof(*group));
	for (size_t i = 0; i < GROUP; i++)
		group[i].flags = set->flags;
}

INLINE void replace_batch(struct bench_run *run, struct set *set, const struct space_ops *ops)
{
	struct range groups[BATCH / GROUP][GROUP];

	for (size_t i = 0; i < BATCH / GROUP; i++)
		choose_group(set, groups[i]);
	bench_start(run);
	for (size_t i = 0; i < BATCH / GROUP; i++)
		ops->replace(set->space, groups[i], GROUP);
	bench_stop(run);
}

/* By one mapping over them and the holes between them. */
INLINE void by_one_batch(struct bench_run *run, struct set *set, const struct space_ops *ops)
{
	for (size_t i = 0; i < BATCH / GROUP; i++) {
		struct range group[GROUP], whole;

		choose_group(set, group);
		whole = group[0];
		whole.size = group[GROUP - 1].va + group[GROUP - 1].size - whole.va;
		bench_start(run);
		ops->replace(set->space, &whole, 1);
		bench_stop(run);
		ops->unmap(set->space, &whole);
		ops->replace(set->space, group, GROUP);
	}
}

/* --- The cases of these --------------------------------------------------------------------------------------------------- */

INLINE void batches(struct bench_run *run, const struct space_ops *ops,
	void (*batch)(struct bench_run *run, struct set *set, const struct space_ops *ops))
{
	struct set *set = set_of(ops, run->param);
	struct bench_run before = *run;

	ops->lock(set->space);
	for (size_t done = 0; done < WARM_MAPS; done += BATCH)
		batch(&before, set, ops);
	for (size_t done = 0; done < run->n; done += BATCH)
		batch(run, set, ops);
	ops->unlock(set->space);
	drain(run, set);
}

INLINE void map_one(struct bench_run *run, const struct space_ops *ops)
{
	batches(run, ops, map_batch);
}

INLINE void unmap_one(struct bench_run *run, const struct space_ops *ops)
{
	batches(run, ops, unmap_batch);
}

INLINE void split(struct bench_run *run, const struct space_ops *ops)
{
	batches(run, ops, split_batch);
}

INLINE void replace(struct bench_run *run, const struct space_ops *ops)
{
	batches(run, ops, replace_batch);
}

INLINE void replace_by_one(struct bench_run *run, const struct space_ops *ops)
{
	batches(run, ops, by_one_batch);
}

/* Unmapping one and mapping another, under the eyes of a reader. */
INLINE void pairs(struct bench_run *run, const struct space_ops *ops)
{
	static struct lookups lookups;
	struct set *set = set_of(ops, run->param);
	struct range *ranges = bench_alloc(2 * run->n * sizeof(*ranges));
	struct partner *partner;

	choose(set, &lookups, LOOKUPS);
	partner = partner_begin(set, partner_reads, &lookups);
	ops->lock(set->space);
	for (size_t i = 0; i < run->n * 8 && i < WARM_MAPS; i++)
		turn(set, ops);
	for (size_t i = 0; i < run->n; i++) {
		ranges[2 * i] = *range_at(set, i);
		ranges[2 * i + 1] = *range_at(set, set->layout->n + i);
	}
	bench_start(run);
	for (size_t i = 0; i < run->n; i++) {
		ops->unmap(set->space, &ranges[2 * i]);
		ops->map(set->space, &ranges[2 * i + 1]);
	}
	bench_stop(run);
	ops->unlock(set->space);
	partner_end(partner);
	set->head = (set->head + run->n) % set->layout->slots;
	drain(run, set);
	free(ranges);
}

/* --- Memory -------------------------------------------------------------------------------------------------------------- */

static void lf_bytes(struct bench_run *run)
{
	struct set *set = set_of(&lf_ops, run->param);
	struct lf_space *space = set->space;
	struct lf_vm_stats stats;

	lf_vm_get_stats(space->vm, &stats);
	BENCH_CHECK(stats.mappings == set->layout->n);
	bench_value(run, (int64_t)((stats.bytes + stats.mappings - 1) / stats.mappings));
}

/* With the allocator's own. */
INLINE void malloced(struct bench_run *run, const struct space_ops *ops)
{
	struct set *set = set_of(ops, run->param);

	bench_value(run, (set->bytes + (int64_t)set->layout->n - 1) / (int64_t)set->layout->n);
}

/* Mapping objects, too. */
INLINE void in_all(struct bench_run *run, const struct space_ops *ops)
{
	struct set *set = set_of(ops, run->param);
	int64_t n = (int64_t)set->layout->n;

	bench_value(run, (set->bytes + n - 1) / n + chunk(ops->who == LIBFENCE ? sizeof(struct lf_mapping) : sizeof(struct peer_mapping)));
}

#define HELD 100000 /* mappings, of which run->param are replaced since */

static void lf_hold(struct bench_run *run)
{
	struct set *set = set_of(&lf_ops, PARAM(KIND_THREE, HELD));
	struct lf_space *space = set->space;
	struct lf_held *held;
	int64_t with;

	BENCH_CHECK(lf_vm_hold(space->vm, &held) == 0);
	set->flags++;
	lf_op_lock(space);
	for (size_t i = 0; i < (size_t)run->param; i++) {
		struct range range = *range_at(set, i);

		range.flags = set->flags;
		lf_op_map(space, &range);
	}
	lf_op_unlock(space);
	lf_op_drain(space);
	with = allocated();
	lf_held_put(held);
	lf_op_drain(space);
	bench_value(run, with - allocated());
}

/* A copy. */
INLINE void held(struct bench_run *run, const struct space_ops *ops)
{
	struct set *set = set_of(ops, PARAM(KIND_THREE, HELD));

	bench_value(run, set->bytes + HELD * chunk(sizeof(struct peer_mapping)));
}

/* --- Locking all that a job needs ---------------------------------------------------------------------------------------- */

/* A VM with buffers that do not share its reservation. */
static struct lf_vm *lf_externals(void)
{
	static struct lf_space *space;

	if (!space) {
		space = lf_create(NULL);
		lf_op_lock(space);
		for (uint64_t i = 0; i < EXTERNALS; i++) {
			struct range range = { .va = BASE + i * STRIDE, .size = GRANULE };

			space->vm_bos[i] = lf_make_vm_bo(space->vm, NULL);
			lf_op_map(space, &range);
		}
		lf_op_unlock(space);
	}
	return space->vm;
}

static void lf_lock_externals(struct bench_run *run)
{
	struct lf_vm *vm = lf_externals();

	bench_start(run);
	for (size_t done = 0; done < run->n; done += EXTERNALS) {
		struct lf_exec x;

		lf_exec_init(&x, NULL);
		while (lf_exec_next(&x))
			lf_vm_exec_lock(vm, &x, 1);
		BENCH_CHECK(lf_exec_error(&x) == 0 && lf_exec_at(&x, EXTERNALS));
		lf_exec_fini(&x);
	}
	bench_stop(run);
}

/* --- The table ----------------------------------------------------------------------------------------------------------- */

#define IMPLEMENT(name, op) \
	static void name##_##op(struct bench_run *run) \
	{ \
		op(run, &name##_ops); \
	}

#define SHARE(name) \
	static void name##_part(void *arg, size_t n, size_t thread) \
	{ \
		read_part(arg, &name##_ops, n, thread); \
	} \
\
	static void name##_share(struct bench_run *run) \
	{ \
		share_lookups(run, &name##_ops, name##_part); \
	}

IMPLEMENT(lf, alone)
IMPLEMENT(lf, together)
IMPLEMENT(lf, churned)
IMPLEMENT(lf, dependent)
IMPLEMENT(lf, map_one)
IMPLEMENT(each, map_one)
IMPLEMENT(lf, pairs)
IMPLEMENT(lf, split)
IMPLEMENT(lf, replace)
IMPLEMENT(lf, replace_by_one)
IMPLEMENT(lf, malloced)
IMPLEMENT(lf, unmap_one)
IMPLEMENT(lf, in_all)
SHARE(lf)

#ifdef HAVE_PEER_MAP
IMPLEMENT(sm, alone)
IMPLEMENT(sm, together)
IMPLEMENT(sm, churned)
IMPLEMENT(sm, dependent)
IMPLEMENT(sm, map_one)
IMPLEMENT(sm, pairs)
IMPLEMENT(sm, split)
IMPLEMENT(sm, replace)
IMPLEMENT(sm, malloced)
IMPLEMENT(sm, unmap_one)
IMPLEMENT(sm, in_all)
SHARE(sm)
IMPLEMENT(sm, held)

/* What budgets of splitting and replacing are multiples of. */
static void sm_map_other(struct bench_run *run)
{
	run->param = PARAM(KIND_PAGES, run->param & 0xffffff);
	map_one(run, &sm_ops);
}
#define SM(op) { "std::map", sm_##op }
#define ONE    { STD_MAP_ONE, sm_map_other }
#define COPY   { "std::map, a copy", sm_held }
#else
#define SM(op) { "std::map", NULL }
#define ONE    { STD_MAP_ONE, NULL }
#define COPY   { "std::map, a copy", NULL }
#endif
#define STD_MAP_ONE "std::map, map one"

#ifdef HAVE_PEER_LFHT
IMPLEMENT(lh, alone)
IMPLEMENT(lh, together)
IMPLEMENT(lh, churned)
IMPLEMENT(lh, dependent)
IMPLEMENT(lh, map_one)
IMPLEMENT(lh, pairs)
IMPLEMENT(lh, malloced)
IMPLEMENT(lh, unmap_one)
IMPLEMENT(lh, in_all)
SHARE(lh)
#define LH(op) { "rculfhash", lh_##op }
#else
#define LH(op) { "rculfhash", NULL }
#endif

IMPLEMENT(pt, alone)
IMPLEMENT(pt, together)
IMPLEMENT(pt, dependent)
IMPLEMENT(pt, map_one)
IMPLEMENT(pt, malloced)
IMPLEMENT(bt, alone)
IMPLEMENT(bt, together)
IMPLEMENT(bt, dependent)
IMPLEMENT(bt, malloced)

#define LF(op)     { "libfence", lf_##op }
#define PT(op)     { "page table", pt_##op }
#define BT(op)     { "static B-tree", bt_##op }
#define MALLOCED   { "libfence, malloced", lf_malloced }
#define VIEWS      { "libfence, 64 a view", lf_views }
#define WALL       .clock = BENCH_WALL_TIME, .cpus = 2
#define CPU        .clock = BENCH_THREAD_TIME, .cpus = 1
#define LOOKUP     .step = 64, .max_n = LOOKUPS
#define UPDATE     .step = BATCH, .max_n = UPDATES
#define PAGES(n)   .param = PARAM(KIND_PAGES, n), .size = n
#define MIXED(n)   .param = PARAM(KIND_MIXED, n), .size = n
#define THREE(n)   .param = PARAM(KIND_THREE, n), .size = n
#define OF_MAP(x)  .peer = "std::map", .max_ratio = x
#define OF_HASH(x) .peer = "rculfhash", .max_ratio = x
#define OF_ONE(x)  .peer = STD_MAP_ONE, .max_ratio = x
#define BYTES      .clock = BENCH_NO_TIME, .unit = "bytes"

#define LOOKUP_PAGES(n, budget) \
	{ .name = "lookup, " #n, CPU, LOOKUP, PAGES(n), OF_MAP(budget), \
		.impls = { LF(alone), SM(alone), LH(alone), PT(alone), BT(alone), VIEWS } }
#define LOOKUP_MIXED(n, budget) \
	{ .name = "lookup, mixed sizes, " #n, CPU, LOOKUP, MIXED(n), OF_MAP(budget), \
		.impls = { LF(alone), SM(alone), LH(alone), PT(alone), BT(alone), VIEWS } }
#define MAP_PAGES(n, budget) \
	{ .name = "map one, " #n, CPU, UPDATE, PAGES(n), OF_MAP(budget), \
		.impls = { LF(map_one), SM(map_one), LH(map_one), PT(map_one) } }
#define MAP_MIXED(n, budget) \
	{ .name = "map one, mixed sizes, " #n, CPU, UPDATE, MIXED(n), OF_MAP(budget), \
		.impls = { LF(map_one), SM(map_one), LH(map_one), PT(map_one) } }
#define MAP_EACH(n, budget) \
	{ .name = "map one, locked for each, " #n, CPU, UPDATE, PAGES(n), OF_MAP(budget), \
		.impls = { { "libfence", each_map_one }, SM(map_one) } }
#define SPLIT(n, budget) \
	{ .name = "map that splits one, " #n, CPU, UPDATE, THREE(n), OF_ONE(budget), .impls = { LF(split), ONE, SM(split) } }
#define REPLACE(n, budget) \
	{ .name = "replacing 16 neighbours, each, " #n, CPU, UPDATE, THREE(n), OF_ONE(budget), \
		.impls = { LF(replace), ONE, SM(replace), { "libfence, by one", lf_replace_by_one } } }
#define HOLD(n) \
	{ .name = "a version held while " #n " of 100000 are replaced: kept", BYTES, .param = n, \
		.impls = { { "libfence", lf_hold }, COPY } }

/* Lookups, updates, and memory as the number grows. */
#define SCALE(n, ...) \
	{ .name = "lookup, " #n " mappings", SCALING, CPU, LOOKUP, PAGES(n), OF_MAP(0), .impls = { LF(alone), SM(alone), LH(alone) }, \
		__VA_ARGS__ }, \
	{ .name = "map one, " #n " mappings", SCALING, CPU, UPDATE, PAGES(n), OF_MAP(0), \
		.impls = { LF(map_one), SM(map_one), LH(map_one) }, __VA_ARGS__ }, \
	{ .name = "unmap one, " #n " mappings", SCALING, CPU, UPDATE, PAGES(n), OF_MAP(0), \
		.impls = { LF(unmap_one), SM(unmap_one), LH(unmap_one) }, __VA_ARGS__ }, \
	{ .name = "the tree, for each of, " #n " mappings", SCALING, BYTES, PAGES(n), \
		.impls = { LF(malloced), SM(malloced), LH(malloced) }, __VA_ARGS__ }, \
	{ .name = "in all, for each of, " #n " mappings", SCALING, BYTES, PAGES(n), .impls = { LF(in_all), SM(in_all), LH(in_all) }, \
		__VA_ARGS__ }
#define READERS(threads, need) \
	{ .name = "lookups in 100000, " #threads " threads", SCALING, BENCH_SHARED(threads, need), OF_MAP(0), \
		.impls = { LF(share), SM(share), LH(share) } }
#define SCALING .scaling = true, .repeats = 11

static const struct bench_case cases[] = {
	LOOKUP_PAGES(1000, 0.25),
	LOOKUP_PAGES(10000, 0.2),
	LOOKUP_PAGES(100000, 0),
	LOOKUP_PAGES(1000000, 0.15),
	LOOKUP_MIXED(1000, 0.25),
	LOOKUP_MIXED(10000, 0.2),
	{ .name = "lookup, mixed sizes, 1000000", CPU, LOOKUP, MIXED(1000000), OF_MAP(0.15),
		.impls = { LF(alone), SM(alone), BT(alone), VIEWS } },
	{ .name = "lookup in 1000000, each address depends on the last", CPU, LOOKUP, PAGES(1000000), OF_MAP(0.3),
		.impls = { LF(dependent), SM(dependent), LH(dependent), PT(dependent), BT(dependent) } },
	{ .name = "lookup in 1000000, 1 reader", WALL, LOOKUP, PAGES(1000000), OF_MAP(0),
		.impls = { LF(alone), SM(alone), LH(alone), PT(alone), BT(alone) } },
	{ .name = "lookup in 1000000, 2 readers, each", WALL, LOOKUP, PAGES(1000000), OF_MAP(0.15),
		.impls = { LF(together), SM(together), LH(together), PT(together), BT(together) } },
	{ .name = "lookup in 1000000, 2 readers against one", WALL, LOOKUP, PAGES(1000000), .peer = "libfence, alone", .max_ratio = 1.05,
		.impls = { LF(together), { "libfence, alone", lf_alone } } },
	{ .name = "lookup in 1000000, another thread unmaps and maps", WALL, .step = 16, .max_n = LOOKUPS, PAGES(1000000),
		OF_HASH(0.5 * 435 / 167), .impls = { LF(churned), LH(churned), SM(churned) } },
	MAP_PAGES(1000, 0.8 * 227 / 89),
	MAP_PAGES(10000, 0),
	MAP_PAGES(100000, 0),
	MAP_PAGES(1000000, 0.8 * 1685 / 898),
	MAP_MIXED(1000, 0.8 * 227 / 89),
	MAP_MIXED(10000, 0),
	{ .name = "map one, mixed sizes, 1000000", CPU, UPDATE, MIXED(1000000), OF_MAP(0.8 * 1685 / 898),
		.impls = { LF(map_one), SM(map_one) } },
	MAP_EACH(1000, 0.8 * 227 / 89),
	MAP_EACH(1000000, 0.8 * 1685 / 898),
	{ .name = "unmap + map in 1000000, under the eyes of a reader", WALL, .step = 16, .max_n = UPDATES, PAGES(1000000),
		OF_HASH(1662 / 620.0), .impls = { LF(pairs), LH(pairs), SM(pairs) } },
	SPLIT(1000, 0.7 * 574 / 89),
	SPLIT(1000000, 0.7 * 2691 / 898),
	REPLACE(1000, 0.7 * 75 / 89),
	REPLACE(1000000, 0.7 * 295 / 898),
	{ .name = "1000000 mappings: the tree, for each", BYTES, PAGES(1000000), .max_ns = 40,
		.impls = { { "libfence", lf_bytes }, MALLOCED, SM(malloced), LH(malloced), PT(malloced), BT(malloced) } },
	{ .name = "1000000 mappings of mixed sizes: the tree, for each", BYTES, MIXED(1000000), .max_ns = 40,
		.impls = { { "libfence", lf_bytes }, MALLOCED, SM(malloced), BT(malloced) } },
	HOLD(100),
	HOLD(1000),
	HOLD(10000),
	HOLD(100000),
	{ .name = "lock 64 external buffers and reserve, each", CPU, .step = EXTERNALS, .peer = BENCH_MUTEX,
		.max_ratio = BENCH_IN_PAIRS(43), .impls = { { "libfence", lf_lock_externals }, { BENCH_MUTEX, bench_mutex_pairs } } },
	SCALE(1000, ),
	SCALE(10000, ),
	SCALE(100000, ),
	SCALE(1000000, ),
	SCALE(10000000, .memory = (size_t)8 << 30),
	READERS(1, 1),
	READERS(2, 2),
	READERS(4, 2),
	READERS(8, 2),
	READERS(16, 2),
};

int main(int argc, char **argv)
{
	return bench_main(argc, argv, "Address space", cases, sizeof(cases) / sizeof(cases[0]));
}
