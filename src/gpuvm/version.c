/* SPDX-License-Identifier: MIT */
/*
 * Versions: how a VM's tree is published, seen, held and let go of.
 *
 * Purpose: whoever looks sees one version, whole, and what is in no version any more that somebody can look at is freed, without a count
 * in any node and without looking at versions that cannot see it.
 *
 * A version is a number. A commit makes one, with a new tree; the close of a BO makes one, with the same tree and one BO less. All that is
 * in trees (nodes, mappings) has a birth, in its tag, and dies when a commit makes a tree without it: it was in the versions from its birth
 * to the one before its death. (A node's birth may be given too low by the closes that came between begin and commit of its transaction:
 * it is kept a little longer then. A root's is exact.)
 *
 *     born --commit without it--> dead --no held version from birth to death--> a grace period --> freed
 *                                   \-- kept by the newest held version that is older than its death --released--> the same again
 *
 * Invariants:
 * VV1. version and root are written under vm->spin, root first. So who loads version (V), and then root, whose birth is B, sees a state
 *      that was there: version max(V, B). If B <= V then root is the tree of version V, because a newer one would have a birth above V,
 *      and an older one would not have been found after V. If B > V then root is the tree of version B.
 * VV2. A close stores dead_from and last_close before version, under vm->spin. So whoever sees version n, or a root that is born in n, sees
 *      dead_from of all BOs closed up to n: a mapping is dead in version n if its VM_BO's dead_from <= n, whatever happens meanwhile. (In what
 *      is applied a close does not count, only its reaping: page tables have the mapping until then. So view->closes is 0 there.)
 * VV3. A root whose tag says clean has no mapping whose BO was closed before its birth. So if last_close <= birth, none of its mappings is
 *      dead, and nothing of them need be looked at.
 * VV4. vm->newest is the list of held versions, newest first, each as long as it is held. Numbers fall along it; equal ones are possible.
 * VV5. What is dead and in a held version's version lies in the list of the newest such one, once; what is in none was given to the
 *      reclaimer. A version that is held later has a number from its death on, and cannot see it.
 *
 * So one old version that is held keeps what it can see, and nothing of what came and went since.
 *
 * Locking: vm->spin, for a few instructions, or for each thing that is buried or moved while a version is held.
 *
 * Ordering: va-version, va-root; VV1 and VV2 say what for.
 *
 * Lifetime: readers look inside read sections, or at what is held; the reclaimer does the rest.
 */
#include "base/alloc.h"
#include "base/rcu.h"
#include "base/refcount.h"
#include "base/reclaim.h"
#include "gpuvm/vm.h"

/* --- Looking --------------------------------------------------------------------------------------------------------------- */

static uint64_t load_version(const struct lf_vm *vm)
{
	/* order: va-version (acquire): sees what was closed up to this version (VV2), and its root, or a later one (VV1) */
	return u64_load(&vm->version, PLANT_ORDER(157, memory_order_relaxed, memory_order_acquire));
}

static struct va_node *load_root(const struct lf_vm *vm)
{
	/* order: va-root (acquire): the nodes are seen as they were written, and what was closed before (VV2) */
	return (struct va_node *)ptr_load(&vm->root, PLANT_ORDER(158, memory_order_relaxed, memory_order_acquire));
}

/* The current version (VV1). */
static inline struct lf_view view_now(const struct lf_vm *vm)
{
	uint64_t version = load_version(vm);
	const struct va_node *root = load_root(vm);
	uint64_t birth = node_birth(root);

	if (birth > version && !PLANTED(97))
		version = birth;
	return (struct lf_view){ vm, (uintptr_t)root, version, version };
}

void lf_vm_view(const struct lf_vm *vm, struct lf_view *ret_view)
{
	*ret_view = view_now(vm);
}

void lf_held_view(const struct lf_held *held, struct lf_view *ret_view)
{
	*ret_view = (struct lf_view){ held->vm, (uintptr_t)held->root, held->version, held->version };
}

/* --- Burying --------------------------------------------------------------------------------------------------------------- */

/* What is buried: in no version later than up_to; and kept by no held version from @released on, if that is not NULL. */
struct burial {
	struct lf_vm *vm;
	uint64_t up_to;
	const struct lf_held *released; /* listed, as long as it lasts */
};

/* The newest held version that has seen what was born at @birth; NULL when there is none. */
static struct lf_held *keeper(const struct lf_vm *vm, const struct burial *b, uint64_t birth) LF_REQUIRES(&vm->spin)
{
	struct lf_held *h = b->released ? b->released->older : vm->newest;
	uint64_t up_to = b->up_to;

	while (h && h->version > up_to)
		h = h->older;
	return h && h->version >= birth ? h : NULL;
}

static void count_pinned(struct lf_vm *vm, struct lf_held *h) LF_REQUIRES(&vm->spin)
{
	h->pinned++;
	vm->pinned++;
}

/* Buries nodes that are linked by link. Returns those that nobody keeps. */
static struct va_node *keep_nodes(const struct burial *b, struct va_node *nodes)
{
	struct lf_vm *vm = b->vm;
	struct va_node *n, *free = NULL;
	struct lf_held *h;

	while ((n = nodes) != NULL) {
		nodes = n->link;
		port_spin_lock(&vm->spin);
		h = keeper(vm, b, node_birth(n));
		if (h) {
			n->link = h->nodes;
			h->nodes = n;
			count_pinned(vm, h);
		}
		port_spin_unlock(&vm->spin);
		if (!h) {
			n->link = free;
			free = n;
		}
	}
	return free;
}

/* The same of mappings, linked by next. */
static struct lf_mapping *keep_mappings(const struct burial *b, struct lf_mapping *mappings)
{
	struct lf_vm *vm = b->vm;
	struct lf_mapping *m, *free = NULL;
	struct lf_held *h;

	while ((m = mappings) != NULL) {
		mappings = m->next;
		port_spin_lock(&vm->spin);
		h = keeper(vm, b, mapping_birth(m));
		if (h) {
			m->next = h->mappings;
			h->mappings = m;
			count_pinned(vm, h);
		}
		port_spin_unlock(&vm->spin);
		if (!h) {
			m->next = free;
			free = m;
		}
	}
	return free;
}

/* What the reclaimer writes of a node: link and back. */
static struct lf_deferred *node_deferred(struct va_node *n)
{
	return (struct lf_deferred *)(void *)&n->link;
}

static void free_nodes(struct va_node *nodes)
{
	struct lf_deferred *tail = NULL, *head = nodes ? node_deferred(nodes) : NULL;
	size_t count = 0;

	for (struct va_node *n = nodes, *next; n; n = next, count++) {
		next = n->link;
		tail = node_deferred(n);
		tail->next = next ? node_deferred(next) : NULL;
		tail->what = n;
	}
	if (count)
		reclaim_free_list(head, tail, count);
}

static void free_mappings(struct lf_mapping *mappings)
{
	struct lf_mapping *m;

	while ((m = mappings) != NULL) {
		mappings = m->next;
		lf_mapping_put(m); /* the trees' reference */
	}
}

/* --- Holding --------------------------------------------------------------------------------------------------------------- */

static void list_held(struct lf_vm *vm, struct lf_held *h) LF_REQUIRES(&vm->spin)
{
	/* relaxed: written under spin */
	h->root = (struct va_node *)ptr_load(&vm->root, memory_order_relaxed);
	h->version = u64_load(&vm->version, memory_order_relaxed); /* relaxed: as above */
	h->nodes = NULL;
	h->mappings = NULL;
	h->pinned = 0;
	h->newer = NULL;
	h->older = vm->newest;
	if (h->older)
		h->older->newer = h;
	vm->newest = h;
	vm->held++;
}

void version_hold(struct lf_vm *vm, struct lf_held *held)
{
	held->vm = vm;
	port_spin_lock(&vm->spin);
	list_held(vm, held);
	port_spin_unlock(&vm->spin);
}

static void unlist_held(struct lf_vm *vm, struct lf_held *h) LF_REQUIRES(&vm->spin)
{
	if (h->newer)
		h->newer->older = h->older;
	else
		vm->newest = h->older;
	if (h->older)
		h->older->newer = h->newer;
	vm->held--;
}

/* Takes what a version that is being released keeps; when that is nothing, takes it out of the list. Returns whether there was anything. */
static bool take_kept(struct lf_held *held, struct va_node **ret_nodes, struct lf_mapping **ret_mappings)
{
	struct lf_vm *vm = held->vm;
	bool any;

	port_spin_lock(&vm->spin);
	any = held->pinned;
	*ret_nodes = held->nodes;
	*ret_mappings = held->mappings;
	vm->pinned -= held->pinned;
	held->nodes = NULL;
	held->mappings = NULL;
	held->pinned = 0;
	if (!any)
		unlist_held(vm, held);
	port_spin_unlock(&vm->spin);
	return any;
}

/*
 * What it kept goes to older ones, or ends. It stays in the list meanwhile, so that its neighbour is known without a search; what a commit
 * buries with it in this time goes the same way.
 */
void version_release(struct lf_held *held)
{
	const struct burial b = { .vm = held->vm, .up_to = held->version, .released = held };
	struct lf_mapping *mappings;
	struct va_node *nodes;

	while (take_kept(held, &nodes, &mappings)) {
		free_nodes(keep_nodes(&b, nodes));
		free_mappings(keep_mappings(&b, mappings));
	}
}

int lf_vm_hold(struct lf_vm *vm, struct lf_held **ret_held)
{
	struct lf_held *held;
	int ret = library_enter();

	if (ret)
		return ret;
	if (unlikely(!vm || !ret_held))
		return misuse(-EINVAL, "lf_vm_hold: an argument is missing");
	reclaim_throttle();
	held = mem_alloc(sizeof(*held));
	if (!held)
		return -ENOMEM;
	version_hold(lf_vm_get(vm), held);
	*ret_held = held;
	return 0;
}

void lf_held_put(struct lf_held *held)
{
	struct lf_vm *vm;

	if (!held || library_poisoned())
		return;
	vm = held->vm;
	version_release(held);
	mem_free(held);
	lf_vm_put(vm);
}

/* --- Publishing ------------------------------------------------------------------------------------------------------------ */

static void store_version(struct lf_vm *vm, uint64_t version) LF_REQUIRES(&vm->spin)
{
	/* order: va-version (release): who sees the number sees its root and what was closed up to it (VV1, VV2) */
	u64_store(&vm->version, version, PLANT_ORDER(90, memory_order_relaxed, memory_order_release));
}

static uint64_t next_version(const struct lf_vm *vm) LF_REQUIRES(&vm->spin)
{
	return u64_load(&vm->version, memory_order_relaxed) + 1; /* relaxed: written under spin */
}

/* Puts what only a published root has into its tag. */
static void finish_root(const struct lf_vm *vm, struct va_node *root, uint64_t version) LF_REQUIRES(&vm->spin)
{
	uint64_t rest = root->tag & ((UINT64_C(1) << TAG_BIRTH_SHIFT) - 1) & ~TAG_CLEAN;

	root->tag = version << TAG_BIRTH_SHIFT | rest | (vm->closed && !PLANTED(92) ? 0 : TAG_CLEAN);
}

void version_publish(struct lf_vm *vm, struct lf_va_edit *edit, struct lf_mapping *gone, struct lf_held *hold)
{
	struct va_node *nodes = edit->replaced;
	struct burial b = { .vm = vm };
	struct lf_vm_bo *reaped;
	uint64_t version;
	bool any_held;

	if (!PLANTED(174))
		port_spin_lock(&vm->spin);
	reaped = vm_bo_take_reaped(vm);
	version = next_version(vm);
	any_held = vm->newest;
	if (va_edit_is_changed(edit)) {
		finish_root(vm, edit->root, version);
		/* order: va-root (release): a reader would find nodes and mappings that are not written */
		ptr_store(&vm->root, (uintptr_t)edit->root, PLANT_ORDER(91, memory_order_relaxed, memory_order_release));
		store_version(vm, version);
	}
	if (hold) {
		hold->vm = vm;
		list_held(vm, hold);
	}
	if (!PLANTED(174))
		port_spin_unlock(&vm->spin);
	b.up_to = version - 1;
	if (any_held && !PLANTED(93)) {
		nodes = keep_nodes(&b, nodes);
		if (!PLANTED(221))
			mapping_own_list(gone);
		gone = keep_mappings(&b, gone);
	}
	free_nodes(nodes);
	mapping_end_list(gone);
	vm_bo_put_list(reaped);
}

void version_close(struct lf_vm_bo *vm_bo)
{
	struct lf_vm *vm = vm_bo->vm;
	uint64_t version;

	port_spin_lock(&vm->spin);
	/* relaxed: written under spin */
	if (u64_load(&vm_bo->dead_from, memory_order_relaxed) == UINT64_MAX) {
		version = next_version(vm);
		u64_store(&vm_bo->dead_from, version, memory_order_relaxed); /* relaxed: the store of the version has the order */
		if (!PLANTED(98))
			u64_store(&vm->last_close, version, memory_order_relaxed); /* relaxed: as above */
		store_version(vm, version);
		vm_bo_list_closed(vm, vm_bo);
	}
	port_spin_unlock(&vm->spin);
}

/* --- Walking --------------------------------------------------------------------------------------------------------------- */

/* Whether any mapping of the view can be dead: closed in a version up to view->closes. */
static inline bool view_has_dead(const struct lf_view *view)
{
	const struct va_node *root = (const struct va_node *)view->root;

	/* relaxed: what was closed up to the view's version was seen with it (VV2) */
	return !(root->tag & TAG_CLEAN) || u64_load(&view->vm->last_close, memory_order_relaxed) > node_birth(root);
}

static inline struct lf_mapping *alive(const struct lf_view *view, struct lf_mapping *m)
{
	if (m && unlikely(view_has_dead(view)) && mapping_is_dead(m, view->closes))
		return NULL;
	return m;
}

static inline struct lf_mapping *find(const struct lf_view *view, uint64_t va)
{
	if (unlikely(!vm_has(view->vm, va)))
		return NULL;
	return alive(view, va_tree_lookup((const struct va_node *)view->root, vm_page(view->vm, va)));
}

struct lf_mapping *lf_view_lookup(const struct lf_view *view, uint64_t va)
{
	return find(view, va);
}

struct lf_mapping *lf_vm_lookup(const struct lf_vm *vm, uint64_t va)
{
	struct lf_view view = view_now(vm);

	return find(&view, va);
}

struct lf_mapping *lf_view_next(const struct lf_view *view, uint64_t va)
{
	const struct lf_vm *vm = view->vm;
	uint64_t page, first, last, end = vm->extent >> vm->shift;
	struct lf_mapping *m;

	if (va < vm->start)
		va = vm->start;
	if (!vm_has(vm, va))
		return NULL;
	for (page = vm_page(vm, va);; page = last + 1) {
		m = va_tree_extent((const struct va_node *)view->root, page, &first, &last);
		if (alive(view, m))
			return m;
		if (last >= end)
			return NULL;
	}
}

struct lf_mapping *lf_view_prev(const struct lf_view *view, uint64_t va)
{
	const struct lf_vm *vm = view->vm;
	uint64_t page, first, last;
	struct lf_mapping *m;

	if (va < vm->start)
		return NULL;
	if (!vm_has(vm, va))
		va = vm->start + vm->extent;
	for (page = vm_page(vm, va);; page = first - 1) {
		m = va_tree_extent((const struct va_node *)view->root, page, &first, &last);
		if (alive(view, m))
			return m;
		if (first == 0)
			return NULL;
	}
}

struct lf_mapping *lf_view_adjacent_next(const struct lf_view *view, const struct lf_mapping *m)
{
	uint64_t last = mapping_last(m);

	return last == UINT64_MAX ? NULL : lf_view_lookup(view, last + 1);
}

struct lf_mapping *lf_view_adjacent_prev(const struct lf_view *view, const struct lf_mapping *m)
{
	return m->va == 0 ? NULL : lf_view_lookup(view, m->va - 1);
}

void lf_walk_begin(struct lf_walk *walk, const struct lf_view *view, uint64_t va, uint64_t size)
{
	*walk = (struct lf_walk){ .view = *view, .at = va, .last = va + (size - 1) };
	if (size == 0 || walk->last < va)
		walk->last = UINT64_MAX;
}

struct lf_mapping *lf_walk_next(struct lf_walk *walk)
{
	struct lf_mapping *m = walk->done ? NULL : lf_view_next(&walk->view, walk->at);

	if (!m || m->va > walk->last) {
		walk->done = true;
		return NULL;
	}
	walk->done = mapping_last(m) >= walk->last;
	walk->at = mapping_last(m) + 1;
	return m;
}

struct lf_mapping *lf_vm_lookup_get(struct lf_vm *vm, uint64_t va) LF_NO_THREAD_ANALYSIS
{
	struct lf_mapping *m;

	if (library_poisoned())
		return NULL;
	rcu_begin();
	/* One without references was unmapped after the view was taken: a view that is taken now does not have it. */
	do
		m = lf_vm_lookup(vm, va);
	while (m && !lf_mapping_tryget(m));
	rcu_end();
	return m;
}
