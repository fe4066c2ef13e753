/* SPDX-License-Identifier: MIT */
/*
 * An address space that a writer changes while others look at it, hold it, keep mappings of it and close its buffers; a bind queue whose
 * fences are signaled in any order while engines walk what is applied; a VM_BO that many threads obtain and put at once.
 *
 * The writer's versions are numbered. Version G shows buffer r in region r, in pieces that are a function of r and (G + r) / REGIONS, the
 * region's epoch, which is in the flags of each piece: so the epochs of all regions tell the version, and most commits change one region and
 * leave the others as they are. What a transaction does on the way there, and what is aborted, has a flag that no version shows.
 *
 * Oracle:
 * - a view shows one version: in each region all pieces of one epoch, one behind the other without a hole, or nothing when its buffer was
 *   closed; all regions' epochs are of one version, which is not older than the last one whose commit had returned, nor newer than the
 *   last one that was begun; each mapping and what the driver wrote beside it before the commit is as it was made; lookups in it say what
 *   the walk said; walked again at the end of the section, it is the same;
 * - views of a thread do not go back;
 * - a held version is the same whenever it is walked, and so is a mapping that is kept, with its buffer;
 * - who has closed a buffer sees none of its mappings in any view that is taken from then on, and nobody does in a version that was begun
 *   later;
 * - what is applied is one version, goes forward only, not before its in-fence signals, and not later than its out-fence;
 * - threads that obtain a pair at once get one object, and each object is released once;
 * - at the end nothing is left, and each mapping has been released once.
 * Freed memory is overwritten, and a mapping's driver data in its release hook. A hit is a view that was not the current one any more when
 * it was walked for the second time. Healthy output has many of those, regions that were empty, closed while they were looked at, and held
 * versions that are hundreds of versions old.
 */
#include "producer.h"

#include <sched.h>
#include <stdatomic.h>

enum { REGIONS = 3, REGION_PAGES = 200, GAP_PAGES = 56, GRANULE = 4096, READERS = 2, HELD = 6, KEPT = 16, WINDOW = 12 };

static const uint64_t first_va = UINT64_C(0x7fff00000000);
static const uint32_t scratch = UINT32_C(0xffffffff); /* the flags of what no version shows */

/* What the driver keeps with a mapping. */
struct around {
	uint64_t check;
	struct lf_mapping m;
	uint64_t behind;
};

/* --- What versions look like --------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 31) * UINT64_C(0x9e3779b97f4a7c15);
	return x ^ x >> 29;
}

static uint64_t region_va(unsigned region)
{
	return first_va + (uint64_t)region * (REGION_PAGES + GAP_PAGES) * GRANULE;
}

static uint32_t epoch_of(uint64_t version, unsigned region)
{
	return (uint32_t)((version + region) / REGIONS);
}

/* A walk over the pieces of a region: its pages show those of the buffer, turned by some number, in runs of random lengths. */
struct pieces {
	unsigned region, page, turn;
	uint32_t epoch;
	uint64_t random;
	struct lf_map_desc now;
};

static void pieces_begin(struct pieces *p, unsigned region, uint32_t epoch)
{
	p->region = region;
	p->epoch = epoch;
	p->random = mix((uint64_t)epoch * REGIONS + region + 1) | 1;
	p->page = 0;
	p->turn = (unsigned)(random_next(&p->random) % REGION_PAGES);
}

static bool pieces_next(struct pieces *p)
{
	unsigned wrap = REGION_PAGES - p->turn, end = p->page + 1 + (unsigned)(random_next(&p->random) % 70);
	if (p->page == REGION_PAGES)
		return false;
	if (p->page < wrap && end > wrap)
		end = wrap;
	if (end > REGION_PAGES)
		end = REGION_PAGES;
	p->now = (struct lf_map_desc){
		.va = region_va(p->region) + (uint64_t)p->page * GRANULE,
		.size = (uint64_t)(end - p->page) * GRANULE,
		.offset = (uint64_t)((p->page + p->turn) % REGION_PAGES) * GRANULE,
		.flags = p->epoch,
	};
	p->page = end;
	return true;
}

static struct around *to_around(const struct lf_mapping *m)
{
	return (struct around *)(uintptr_t)((uintptr_t)m - offsetof(struct around, m));
}

static uint64_t check_of(const struct lf_mapping *m)
{
	return mix(m->va ^ m->size << 20 ^ m->offset << 40 ^ m->flags) | 1;
}

static void fill(struct lf_mapping *m)
{
	to_around(m)->check = check_of(m);
	to_around(m)->behind = ~check_of(m);
}

/* That a mapping is as its maker left it. */
static void check_mapping(const struct lf_mapping *m)
{
	must(m->flags != scratch);
	must(to_around(m)->check == check_of(m) && to_around(m)->behind == ~check_of(m));
	must(m->vm_bo != NULL && m->vm_bo->bo->size == REGION_PAGES * GRANULE);
}

/* --- Shared -------------------------------------------------------------------------------------------------------------------- */

static struct {
	uint64_t seed;
	long rounds;
	struct lf_vm *vm;
	struct lf_resv *resv;
	struct lf_bo *bo[REGIONS];
	_Atomic uint64_t begun, committed; /* versions: what is being committed, what was */
	_Atomic uint64_t prepared, closed; /* the version that the closer shall close something of before it is begun; that it did so for */
	atomic_int writing;
	/* what was made and released */
	atomic_long filled, released, pairs_made, pairs_released;
	/* what was hit */
	atomic_long views, changed, empty, vanished, lookups, held, held_age, kept, kept_unmapped, refused, closes, aborts;
} shared;

static void on_mapping_release(struct lf_mapping *m, void *data)
{
	struct around *around = to_around(m);
	must(data == &shared && !lf_read_held());
	must(around->check == check_of(m) && around->behind == ~around->check);
	around->check = 0;
	atomic_fetch_add(&shared.released, 1);
}

/* What the driver keeps with a VM_BO. */
struct pair_around {
	struct lf_vm_bo vm_bo;
	atomic_int made;
	_Atomic uint64_t closed_at; /* its close had returned before this version was begun; 0: not closed */
};

static struct pair_around *to_pair(const struct lf_vm_bo *vm_bo)
{
	return (struct pair_around *)(uintptr_t)vm_bo;
}

/* Whoever gets one says so. */
static void note_made(struct lf_vm_bo *vm_bo)
{
	struct pair_around *around = to_pair(vm_bo);
	int none = 0;
	if (atomic_compare_exchange_strong(&around->made, &none, 1))
		atomic_fetch_add(&shared.pairs_made, 1);
	else
		must(none == 1);
}

static void on_pair_release(struct lf_vm_bo *vm_bo, void *data)
{
	struct pair_around *around = to_pair(vm_bo);
	must(data == &shared);
	must(atomic_exchange(&around->made, -1) == 1);
	atomic_fetch_add(&shared.pairs_released, 1);
}

/* A piece is the writer's scratch, or about to be: its flags are not a version's. */
static int on_split(struct lf_mapping *piece, const struct lf_mapping *of, void *data)
{
	must(data == &shared && to_around(of)->check == check_of(of));
	fill(piece);
	atomic_fetch_add(&shared.filled, 1);
	return 0;
}

static int on_apply(struct lf_vm *vm, const struct lf_vm_op *ops, size_t count, void *data);

static const struct lf_vm_ops ops_plain = { .split = on_split, .mapping_release = on_mapping_release, .vm_bo_release = on_pair_release };
static const struct lf_vm_ops ops_bind = {
	.split = on_split, .mapping_release = on_mapping_release, .vm_bo_release = on_pair_release, .apply = on_apply
};

static void begin_vm(unsigned flags)
{
	const struct lf_vm_desc desc = {
		.name = "race",
		.flags = flags,
		.mapping_size = sizeof(struct around),
		.mapping_offset = offsetof(struct around, m),
		.vm_bo_size = sizeof(struct pair_around),
		.ops = flags & LF_VM_BIND ? &ops_bind : &ops_plain,
		.data = &shared,
	};
	shared.seed = test_seed();
	atomic_store(&shared.begun, 0);
	atomic_store(&shared.committed, 0);
	atomic_store(&shared.prepared, 0);
	must(lf_vm_create(&desc, &shared.vm) == 0);
	shared.resv = lf_vm_resv(shared.vm);
	for (int i = 0; i < REGIONS; i++) {
		const struct lf_bo_desc bo = { .size = REGION_PAGES * GRANULE, .resv = i == 0 ? shared.resv : NULL };
		shared.bo[i] = lf_alloc(sizeof(*shared.bo[i]));
		must(shared.bo[i] != NULL && lf_bo_init(shared.bo[i], &bo) == 0);
	}
}

static void end_vm(void)
{
	must(lf_resv_lock(shared.resv, NULL) == 0);
	must(lf_vm_close(shared.vm) == 0);
	lf_resv_unlock(shared.resv);
	lf_vm_put(shared.vm);
	for (int i = 0; i < REGIONS; i++)
		lf_bo_put(shared.bo[i]);
	must(lf_reclaim_barrier() == 0);
	must(atomic_load(&shared.filled) == atomic_load(&shared.released));
	must(atomic_load(&shared.pairs_made) == atomic_load(&shared.pairs_released));
}

/* --- Looking ------------------------------------------------------------------------------------------------------------------- */

/* What a view shows. */
struct seen {
	uint64_t low, high; /* versions that look like that */
	uint64_t hash; /* of the mappings' addresses: not the same for what only looks the same */
	unsigned empty; /* regions, a bit each */
	const struct lf_vm_bo *vm_bo[REGIONS];
};

static void narrow(struct seen *seen, unsigned region, uint32_t epoch)
{
	uint64_t low = (uint64_t)epoch * REGIONS < region ? 0 : (uint64_t)epoch * REGIONS - region;
	uint64_t high = (uint64_t)epoch * REGIONS + REGIONS - 1 - region;
	seen->low = low > seen->low ? low : seen->low;
	seen->high = high < seen->high ? high : seen->high;
	must(seen->low <= seen->high);
}

/* One region, by a walk; and what is in front of and behind it is not mapped. */
static void see_region(struct seen *seen, const struct lf_view *view, unsigned region)
{
	struct lf_walk walk;
	struct pieces pieces;
	const struct lf_mapping *m;
	lf_walk_begin(&walk, view, region_va(region), REGION_PAGES * GRANULE);
	m = lf_walk_next(&walk);
	seen->vm_bo[region] = m ? m->vm_bo : NULL;
	if (m == NULL) {
		seen->empty |= 1U << region;
		return;
	}
	narrow(seen, region, m->flags);
	pieces_begin(&pieces, region, m->flags);
	while (pieces_next(&pieces)) {
		must(m != NULL);
		check_mapping(m);
		must(m->va == pieces.now.va && m->size == pieces.now.size && m->offset == pieces.now.offset);
		must(m->flags == pieces.now.flags && m->vm_bo == seen->vm_bo[region] && m->vm_bo->bo == shared.bo[region]);
		seen->hash = mix(seen->hash ^ (uintptr_t)m);
		m = lf_walk_next(&walk);
	}
	must(m == NULL);
}

static struct seen see(const struct lf_view *view)
{
	struct seen seen = { .high = UINT64_MAX };
	for (unsigned region = 0; region < REGIONS; region++)
		see_region(&seen, view, region);
	for (unsigned region = 0; region < REGIONS; region++) {
		uint64_t closed_at = seen.vm_bo[region] ? atomic_load(&to_pair(seen.vm_bo[region])->closed_at) : 0;
		must(closed_at == 0 || seen.low < closed_at);
	}
	return seen;
}

/* One address of the view: the same as the walk had there. */
static void look(const struct lf_view *view, const struct seen *seen, uint64_t *random)
{
	unsigned region = (unsigned)(random_next(random) % REGIONS);
	uint64_t va = region_va(region) + random_next(random) % (REGION_PAGES * GRANULE);
	const struct lf_mapping *m = lf_view_lookup(view, va), *next = lf_view_next(view, va);
	must((m == NULL) == (seen->empty >> region & 1));
	atomic_fetch_add(&shared.lookups, 1);
	if (m == NULL)
		return;
	check_mapping(m);
	must(va >= m->va && va - m->va < m->size && next == m && lf_view_prev(view, va) == m);
	must(m->vm_bo == seen->vm_bo[region]);
	narrow(&(struct seen){ .low = seen->low, .high = seen->high }, region, m->flags);
}

/* --- Readers ------------------------------------------------------------------------------------------------------------------- */

static void view_once(uint64_t *random, uint64_t *last)
{
	uint64_t before = atomic_load(&shared.committed);
	struct lf_view view, now;
	struct seen seen, again;
	lf_read_lock();
	lf_vm_view(shared.vm, &view);
	seen = see(&view);
	must(seen.low <= atomic_load(&shared.begun));
	must(seen.high >= before && seen.high >= *last);
	for (int i = 0; i < 4; i++)
		look(&view, &seen, random);
	if (random_next(random) % 16 == 0)
		sched_yield();
	again = see(&view);
	must(again.hash == seen.hash && again.empty == seen.empty);
	lf_vm_view(shared.vm, &now);
	must(now.version >= view.version);
	if (now.version != view.version)
		atomic_fetch_add(&shared.changed, 1);
	if (see(&now).empty & ~seen.empty)
		atomic_fetch_add(&shared.vanished, 1);
	lf_read_unlock();
	if (seen.empty)
		atomic_fetch_add(&shared.empty, 1);
	*last = seen.low > *last ? seen.low : *last;
	atomic_fetch_add(&shared.views, 1);
}

/* Without a view: one lookup is one version, too. */
static void lookup_once(uint64_t *random)
{
	unsigned region = (unsigned)(random_next(random) % REGIONS);
	uint64_t va = region_va(region) + random_next(random) % ((REGION_PAGES + GAP_PAGES) * GRANULE);
	const struct lf_mapping *m;
	lf_read_lock();
	m = lf_vm_lookup(shared.vm, va);
	if (m != NULL) {
		check_mapping(m);
		must(va - m->va < m->size && m->vm_bo->bo == shared.bo[region]);
	}
	must(m == NULL || va - region_va(region) < REGION_PAGES * GRANULE);
	lf_read_unlock();
}

static void *reader(void *arg)
{
	uint64_t random = shared.seed + (uint64_t)*(int *)arg + 1, last = 0;
	while (atomic_load(&shared.writing) > 0) {
		view_once(&random, &last);
		for (int i = 0; i < 8; i++)
			lookup_once(&random);
	}
	return NULL;
}

/* --- Who holds versions and keeps mappings ----------------------------------------------------------------------------------------- */

struct hold {
	struct lf_held *held;
	struct seen seen;
};

static void walk_held(struct hold *h)
{
	struct lf_view view;
	struct seen seen;
	lf_held_view(h->held, &view);
	seen = see(&view);
	must(seen.hash == h->seen.hash && seen.empty == h->seen.empty);
	if (atomic_load(&shared.committed) > seen.high + 100)
		atomic_fetch_add(&shared.held_age, 1);
}

static void hold_once(struct hold *h, uint64_t *last)
{
	uint64_t before = atomic_load(&shared.committed);
	struct lf_view view;
	must(lf_vm_hold(shared.vm, &h->held) == 0);
	lf_held_view(h->held, &view);
	h->seen = see(&view);
	must(h->seen.high >= before && h->seen.high >= *last);
	*last = h->seen.low > *last ? h->seen.low : *last;
	atomic_fetch_add(&shared.held, 1);
}

static void let_go(struct hold *h)
{
	if (h->held == NULL)
		return;
	walk_held(h);
	lf_held_put(h->held);
	h->held = NULL;
}

/* A version is held once: who holds again and again keeps the writer from the VM's lock. */
static void *holder(void *arg)
{
	uint64_t random = shared.seed + 555, last = 0, begun = UINT64_MAX;
	struct hold holds[HELD] = { 0 };
	while (atomic_load(&shared.writing) > 0) {
		struct hold *h = &holds[random_next(&random) % HELD];
		if (h->held == NULL && atomic_load(&shared.begun) != begun) {
			begun = atomic_load(&shared.begun);
			hold_once(h, &last);
		} else if (h->held == NULL) {
			sched_yield();
		} else if (random_next(&random) % (UINT64_C(8) << 2 * (h - holds)) == 0) {
			let_go(h); /* some soon, some late */
		} else {
			walk_held(h);
		}
		if (random_next(&random) % 8 == 0)
			sched_yield();
	}
	for (int i = 0; i < HELD; i++)
		let_go(&holds[i]);
	return NULL;
}

static void unkeep(struct lf_mapping **slot)
{
	if (*slot == NULL)
		return;
	check_mapping(*slot);
	lf_read_lock();
	if (lf_vm_lookup(shared.vm, (*slot)->va) != *slot)
		atomic_fetch_add(&shared.kept_unmapped, 1);
	lf_read_unlock();
	lf_mapping_put(*slot);
	*slot = NULL;
}

/* With a view and a look at it, or in one call. */
static struct lf_mapping *keep(uint64_t va, uint64_t *random)
{
	struct lf_mapping *m, *mine;
	if (random_next(random) % 2)
		return lf_vm_lookup_get(shared.vm, va);
	lf_read_lock();
	m = lf_vm_lookup(shared.vm, va);
	if (random_next(random) % 16 == 0)
		sched_yield();
	mine = lf_mapping_tryget(m);
	if (m != NULL && mine == NULL) {
		check_mapping(m);
		must(lf_vm_lookup(shared.vm, va) != m);
		atomic_fetch_add(&shared.refused, 1);
	}
	lf_read_unlock();
	return mine;
}

static void *keeper(void *arg)
{
	uint64_t random = shared.seed + 777;
	struct lf_mapping *kept[KEPT] = { NULL };
	while (atomic_load(&shared.writing) > 0) {
		struct lf_mapping **slot = &kept[random_next(&random) % KEPT];
		unsigned region = (unsigned)(random_next(&random) % REGIONS);
		unkeep(slot);
		if (random_next(&random) % 32 == 0)
			sched_yield();
		*slot = keep(region_va(region) + random_next(&random) % (REGION_PAGES * GRANULE), &random);
		if (*slot == NULL)
			continue;
		check_mapping(*slot);
		must((*slot)->vm_bo->bo == shared.bo[region]);
		lf_mapping_put(lf_mapping_get(*slot));
		atomic_fetch_add(&shared.kept, 1);
	}
	for (int i = 0; i < KEPT; i++)
		unkeep(&kept[i]);
	return NULL;
}

/* --- Who closes ------------------------------------------------------------------------------------------------------------------ */

static void close_once(unsigned region)
{
	struct lf_vm_bo *vm_bo = lf_vm_bo_find(shared.vm, shared.bo[region]);
	struct lf_view view;
	if (vm_bo == NULL)
		return;
	lf_vm_bo_close(vm_bo);
	atomic_store(&to_pair(vm_bo)->closed_at, atomic_load(&shared.begun) + 1);
	lf_read_lock();
	lf_vm_view(shared.vm, &view);
	must(see(&view).vm_bo[region] != vm_bo);
	lf_read_unlock();
	lf_vm_bo_put(vm_bo);
	atomic_fetch_add(&shared.closes, 1);
}

/* Mostly at any moment; by turns when the writer has mapped it and not committed that. */
static void *closer(void *arg)
{
	uint64_t random = shared.seed + 999, next = 0;
	while (atomic_load(&shared.writing) > 0) {
		uint64_t prepared = atomic_load(&shared.prepared), begun = atomic_load(&shared.begun);
		if (begun >= next || (prepared > begun && prepared != atomic_load(&shared.closed))) {
			close_once((unsigned)(random_next(&random) % REGIONS));
			next = begun + 1 + random_next(&random) % 128;
		} else {
			sched_yield();
		}
		atomic_store(&shared.closed, prepared);
	}
	return NULL;
}

/* --- The writer ------------------------------------------------------------------------------------------------------------------- */

static int map(struct lf_txn *txn, const struct lf_map_desc *desc)
{
	struct lf_mapping *m;
	int ret = lf_txn_map(txn, desc, &m);
	if (ret != 0 || to_around(m)->check != 0)
		return ret; /* or it was there already */
	fill(m);
	atomic_fetch_add(&shared.filled, 1);
	return 0;
}

/* Something that nobody may see. */
static int scribble(struct lf_txn *txn, unsigned region, struct lf_vm_bo *vm_bo, uint64_t *random)
{
	unsigned first = (unsigned)(random_next(random) % REGION_PAGES);
	unsigned count = 1 + (unsigned)(random_next(random) % (REGION_PAGES - first));
	const struct lf_map_desc desc = {
		.va = region_va(region) + (uint64_t)first * GRANULE,
		.size = (uint64_t)count * GRANULE,
		.vm_bo = vm_bo,
		.flags = scratch,
	};
	if (random_next(random) % 2)
		return lf_txn_unmap(txn, desc.va, desc.size);
	return map(txn, &desc);
}

static int write_region(struct lf_txn *txn, uint64_t version, unsigned region, struct lf_vm_bo *vm_bo, uint64_t *random)
{
	struct pieces pieces;
	int ret = random_next(random) % 4 == 0 ? scribble(txn, region, vm_bo, random) : 0;
	pieces_begin(&pieces, region, epoch_of(version, region));
	while (ret == 0 && pieces_next(&pieces)) {
		pieces.now.vm_bo = vm_bo;
		ret = map(txn, &pieces.now);
	}
	return ret;
}

static int write_regions(struct lf_txn *txn, uint64_t version, uint64_t *random)
{
	unsigned first = (unsigned)(random_next(random) % REGIONS);
	int ret = random_next(random) % 4 == 0 ? lf_txn_reap(txn) : 0;
	for (unsigned i = 0; i < REGIONS && ret == 0; i++) {
		unsigned region = (first + i) % REGIONS;
		struct lf_vm_bo *vm_bo;
		ret = lf_vm_bo_obtain(shared.vm, shared.bo[region], &vm_bo);
		if (ret != 0)
			return ret;
		note_made(vm_bo);
		ret = write_region(txn, version, region, vm_bo, random);
		lf_vm_bo_put(vm_bo);
	}
	return ret;
}

/* Until it works: buffers are closed meanwhile, allocations fail, and now and then it changes its mind. The reservation is locked. */
static void prepare(struct lf_txn *txn, uint64_t version, uint64_t *random)
{
	for (;;) {
		must(lf_txn_begin(txn, shared.vm) == 0);
		alloc_fail_at(random_next(random) % 16 == 0 ? 1 + (long)(random_next(random) % 16) : 0);
		int ret = write_regions(txn, version, random);
		must(ret == 0 || ret == -ENOENT || (ret == -ENOMEM && alloc_failed()));
		alloc_fail_at(0);
		if (ret == 0 && random_next(random) % 16 != 0)
			return;
		lf_txn_abort(txn);
		atomic_fetch_add(&shared.aborts, 1);
	}
}

/* Between requests and commit: lets the closer have its turn, for a while. */
static void wait_for_close(uint64_t version)
{
	atomic_store(&shared.prepared, version);
	for (int i = 0; i < 20 && atomic_load(&shared.closed) != version; i++)
		sched_yield();
}

static void *writer(void *arg)
{
	uint64_t random = shared.seed + 31337;
	struct lf_txn txn;
	for (uint64_t version = 1; version <= (uint64_t)shared.rounds; version++) {
		must(lf_resv_lock(shared.resv, NULL) == 0);
		prepare(&txn, version, &random);
		if (random_next(&random) % (test_is_sanitized() ? 3 : 16) == 0)
			wait_for_close(version);
		atomic_store(&shared.begun, version);
		lf_txn_commit(&txn);
		atomic_store(&shared.committed, version);
		lf_resv_unlock(shared.resv);
		pause_at_random(&random);
	}
	atomic_fetch_sub(&shared.writing, 1);
	return NULL;
}

static void each_view_is_one_version_however_many_change_it(void **state)
{
	void *(*const roles[])(void *) = { reader, reader, holder, keeper, closer, writer };
	enum { THREADS = sizeof(roles) / sizeof(roles[0]) };
	pthread_t threads[THREADS];
	int numbers[THREADS];
	test_watchdog(100, "race_vm: views");
	begin_vm(0);
	shared.rounds = test_rounds(test_is_sanitized() ? 10000 : 40000);
	atomic_store(&shared.writing, 1);
	for (int t = 0; t < THREADS; t++) {
		numbers[t] = t;
		threads[t] = thread_start(roles[t], &numbers[t], 0);
	}
	for (int t = 0; t < THREADS; t++)
		thread_join(threads[t]);
	end_vm();
	test_watchdog(0, "");
	test_note("race_vm: %ld versions, %ld transactions aborted, %ld closes", shared.rounds, atomic_load(&shared.aborts),
		atomic_load(&shared.closes));
	test_note("race_vm: views %ld: not the current one any more at their end %ld, with an empty region %ld, one vanished meanwhile %ld",
		atomic_load(&shared.views), atomic_load(&shared.changed), atomic_load(&shared.empty), atomic_load(&shared.vanished));
	test_note("race_vm: lookups %ld; versions held %ld, walked when more than 100 versions old %ld", atomic_load(&shared.lookups),
		atomic_load(&shared.held), atomic_load(&shared.held_age));
	test_note("race_vm: mappings kept %ld, unmapped meanwhile %ld, refused %ld", atomic_load(&shared.kept),
		atomic_load(&shared.kept_unmapped), atomic_load(&shared.refused));
}

/* --- The bind queue ---------------------------------------------------------------------------------------------------------------- */

static struct {
	struct lf_fence *in[WINDOW], *out[WINDOW]; /* of the version that has its number modulo WINDOW; set before `submitted` */
	struct lf_fence_slot outs[WINDOW]; /* the same, for engines */
	_Atomic uint64_t submitted, ended; /* versions that were submitted; all up to this one were seen applied by their out-fence */
	_Atomic uint64_t allowed[WINDOW]; /* the version whose in-fence was signaled last there */
	atomic_int applying;
	_Atomic uint64_t applied; /* the last one that the hook was called for */
	atomic_long views, behind, changed, out_of_order;
} queue;

/* The version that a transaction makes: one region at least changes, and tells. */
static int on_apply(struct lf_vm *vm, const struct lf_vm_op *ops, size_t count, void *data)
{
	uint64_t version = atomic_load(&queue.applied) + 1;
	unsigned maps = 0;
	must(data == &shared && vm == shared.vm && !lf_read_held());
	must(atomic_fetch_add(&queue.applying, 1) == 0);
	for (size_t i = 0; i < count; i++) {
		unsigned region = (unsigned)((ops[i].va - first_va) / ((REGION_PAGES + GAP_PAGES) * GRANULE));
		check_mapping(ops[i].mapping);
		if (ops[i].kind == LF_VM_OP_MAP)
			must(ops[i].mapping->flags == epoch_of(version, region));
		maps += ops[i].kind == LF_VM_OP_MAP;
	}
	must(maps != 0 && atomic_load(&queue.allowed[version % WINDOW]) == version);
	atomic_store(&queue.applied, version);
	must(atomic_fetch_sub(&queue.applying, 1) == 1);
	return 0;
}

static void *binder(void *arg)
{
	uint64_t random = shared.seed + 31337;
	struct lf_txn txn;
	for (uint64_t version = 1; version <= (uint64_t)shared.rounds; version++) {
		unsigned slot = (unsigned)(version % WINDOW);
		while (version > atomic_load(&queue.ended) + WINDOW - 1)
			sched_yield();
		must(lf_resv_lock(shared.resv, NULL) == 0);
		prepare(&txn, version, &random);
		must(lf_fence_create(&queue.in[slot]) == 0);
		atomic_store(&shared.begun, version);
		must(lf_txn_submit(&txn, &queue.in[slot], 1, &queue.out[slot]) == 0);
		lf_resv_unlock(shared.resv);
		must(lf_fence_seqno(queue.out[slot]) == version);
		lf_fence_slot_set(&queue.outs[slot], queue.out[slot]);
		atomic_store(&queue.submitted, version);
		pause_at_random(&random);
	}
	return NULL;
}

/* Signals in-fences in any order; waits for out-fences in theirs. */
static void *signaler(void *arg)
{
	uint64_t random = shared.seed + 4242, ended = 0, rounds = (uint64_t)shared.rounds, wanted = 1;
	while (ended != rounds) {
		uint64_t submitted = atomic_load(&queue.submitted);
		if (submitted < ended + wanted && submitted != rounds) {
			sched_yield();
			continue;
		}
		wanted = 1 + random_next(&random) % (WINDOW - 2);
		uint64_t version = ended + 1 + random_next(&random) % (submitted - ended);
		unsigned slot = (unsigned)(version % WINDOW);
		if (queue.in[slot] != NULL) {
			atomic_store(&queue.allowed[slot], version);
			must(lf_fence_signal(queue.in[slot], 0));
			lf_fence_put(queue.in[slot]);
			queue.in[slot] = NULL;
			if (version != ended + 1)
				atomic_fetch_add(&queue.out_of_order, 1);
		}
		slot = (unsigned)((ended + 1) % WINDOW);
		while (ended != submitted && lf_fence_is_signaled(queue.out[slot])) {
			must(lf_fence_status(queue.out[slot]) == 1);
			lf_fence_put(queue.out[slot]);
			atomic_store(&queue.ended, ++ended);
			slot = (unsigned)((ended + 1) % WINDOW);
		}
	}
	atomic_fetch_sub(&shared.writing, 1);
	return NULL;
}

/* The newest version whose out-fence is seen signaled. In a read section. */
static uint64_t signaled_by_now(void)
{
	uint64_t last = atomic_load(&queue.ended);
	for (uint64_t version = last + 1; version < last + WINDOW; version++) {
		const struct lf_fence *f = lf_fence_slot_look(&queue.outs[version % WINDOW]);
		if (f == NULL || lf_fence_seqno(f) != version || !lf_fence_is_signaled(f))
			return version - 1;
	}
	return last;
}

static void walk_applied(uint64_t *random, uint64_t *last)
{
	struct lf_view view, asked, now;
	struct seen seen, again;
	lf_read_lock();
	uint64_t before = signaled_by_now();
	lf_vm_view_applied(shared.vm, &view);
	seen = see(&view);
	must(seen.empty == 0 || before == 0);
	if (seen.empty == 0) {
		must(seen.low == seen.high && seen.low >= before && seen.low >= *last);
		must(seen.low <= atomic_load(&queue.applied));
		lf_vm_view(shared.vm, &asked);
		must(see(&asked).low >= seen.low);
		if (see(&asked).low != seen.low)
			atomic_fetch_add(&queue.behind, 1);
		*last = seen.low;
		look(&view, &seen, random);
	}
	if (random_next(random) % 16 == 0)
		sched_yield();
	again = see(&view);
	must(again.hash == seen.hash && again.empty == seen.empty);
	lf_vm_view_applied(shared.vm, &now);
	if (now.version != view.version)
		atomic_fetch_add(&queue.changed, 1);
	lf_read_unlock();
	atomic_fetch_add(&queue.views, 1);
}

static void *engine(void *arg)
{
	uint64_t random = shared.seed + (uint64_t)*(int *)arg + 1, last = 0;
	while (atomic_load(&shared.writing) > 0)
		walk_applied(&random, &last);
	return NULL;
}

static void engines_walk_applied_versions_one_after_the_other(void **state)
{
	void *(*const roles[])(void *) = { engine, engine, holder, keeper, signaler, binder };
	enum { THREADS = sizeof(roles) / sizeof(roles[0]) };
	pthread_t threads[THREADS];
	int numbers[THREADS];
	test_watchdog(100, "race_vm: bind queue");
	begin_vm(LF_VM_BIND);
	shared.rounds = test_rounds(test_is_sanitized() ? 5000 : 20000);
	atomic_store(&shared.writing, 1);
	for (int t = 0; t < THREADS; t++) {
		numbers[t] = t;
		threads[t] = thread_start(roles[t], &numbers[t], 0);
	}
	for (int t = 0; t < THREADS; t++)
		thread_join(threads[t]);
	must(atomic_load(&queue.applied) == (uint64_t)shared.rounds);
	for (int i = 0; i < WINDOW; i++)
		lf_fence_slot_set(&queue.outs[i], NULL);
	end_vm();
	test_watchdog(0, "");
	test_note("race_vm: %ld versions bound, %ld of their fences signaled before an earlier one's", shared.rounds,
		atomic_load(&queue.out_of_order));
	test_note("race_vm: views of what is applied %ld: behind what was asked for %ld, not the applied one any more at their end %ld",
		atomic_load(&queue.views), atomic_load(&queue.behind), atomic_load(&queue.changed));
}

/* --- VM_BOs ------------------------------------------------------------------------------------------------------------------------ */

enum { OBTAINERS = 4 };

static struct {
	struct gate gate;
	struct lf_vm_bo *got[OBTAINERS];
	atomic_long found, gone;
} pairs;

static void find_once(void)
{
	struct lf_vm_bo *vm_bo = lf_vm_bo_find(shared.vm, shared.bo[1]);
	atomic_fetch_add(vm_bo ? &pairs.found : &pairs.gone, 1);
	if (vm_bo)
		note_made(vm_bo);
	lf_vm_bo_put(vm_bo);
}

/* Obtained by all before the first gate, put by all after the second: with the next round's obtains, and now and then a close. */
static void *obtainer(void *arg)
{
	int me = *(int *)arg;
	uint64_t random = shared.seed + (uint64_t)me + 1;
	for (long i = 0; i < shared.rounds; i++) {
		pause_at_random(&random);
		must(lf_vm_bo_obtain(shared.vm, shared.bo[1], &pairs.got[me]) == 0);
		note_made(pairs.got[me]);
		gate_wait(&pairs.gate);
		for (int t = 0; t < OBTAINERS; t++)
			must(pairs.got[t] == pairs.got[me]);
		gate_wait(&pairs.gate);
		if (i % 8 == me)
			lf_vm_bo_close(pairs.got[me]);
		lf_vm_bo_put(pairs.got[me]);
		if (random_next(&random) % 4 == 0)
			find_once();
		gate_wait(&pairs.gate);
	}
	return NULL;
}

static void threads_that_obtain_a_pair_at_once_get_one_object(void **state)
{
	pthread_t threads[OBTAINERS];
	int numbers[OBTAINERS];
	long before = atomic_load(&shared.pairs_made);
	test_watchdog(100, "race_vm: VM_BOs");
	begin_vm(0);
	shared.rounds = test_rounds(test_is_sanitized() ? 2000 : 6000);
	gate_init(&pairs.gate, OBTAINERS);
	for (int t = 0; t < OBTAINERS; t++) {
		numbers[t] = t;
		threads[t] = thread_start(obtainer, &numbers[t], 0);
	}
	for (int t = 0; t < OBTAINERS; t++)
		thread_join(threads[t]);
	gate_fini(&pairs.gate);
	end_vm();
	test_watchdog(0, "");
	test_note("race_vm: %ld rounds of %d threads: %ld VM_BOs; found while others put it %ld, not any more %ld", shared.rounds,
		OBTAINERS, atomic_load(&shared.pairs_made) - before, atomic_load(&pairs.found), atomic_load(&pairs.gone));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WARM(each_view_is_one_version_however_many_change_it),
		TEST_WARM(engines_walk_applied_versions_one_after_the_other),
		TEST_WARM(threads_that_obtain_a_pair_at_once_get_one_object),
	};
	return TEST_MAIN(tests);
}
