/* SPDX-License-Identifier: MIT */
/*
 * Walking containers: their leaves, and what is made of them.
 *
 * Purpose: one depth-first walk over any graph of containers, which cursor, merging, polling and deadline hints are plain loops over.
 *
 * Invariants:
 * U1. Each entry of the stack and each leaf that was found owns a reference. An entry of the stack is a fence to come to, or, tagged, a
 *     container whose result is to be taken: in the order of the chain, so behind what comes before the link.
 * U2. `seen` holds the addresses of the containers that were opened and of the leaves that were found. All of a graph is older than its
 *     root, so no address in it is that of another fence that was freed meanwhile.
 * U3. What completed before the walk came to it is in the result of the container that let it go (container_result()), which is read after
 *     its places were; or the walk met it, and took its result itself. Only merging wants to know.
 *
 * Time and memory are in proportion to the links between the fences. No recursion.
 */
#include <libfence/unwrap.h>

#include "base/alloc.h"
#include "base/rcu.h"
#include "containers/array.h"

/* --- A list of fences that grows ----------------------------------------------------------------------------------------- */

struct list {
	struct lf_fence **fences;
	size_t count, room;
};

/* Sees to it that @n more fit. Returns false when there is no memory. */
static bool list_make_room(struct list *list, size_t n)
{
	size_t room = list->room ? list->room : 16;
	struct lf_fence **larger;

	if (list->room - list->count >= n)
		return true;
	while (room - list->count < n)
		room *= 2;
	larger = mem_grow(list->fences, list->count, room, sizeof(*larger));
	if (!larger)
		return false;
	list->fences = larger;
	list->room = room;
	return true;
}

static bool push(struct list *list, struct lf_fence *f)
{
	if (!list_make_room(list, 1))
		return false;
	list->fences[list->count++] = f;
	return true;
}

/* The tag of an entry whose result is to be taken (U1). */
#define RESULT ((uintptr_t)1)

static struct lf_fence *tagged(struct lf_fence *f)
{
	return (struct lf_fence *)((uintptr_t)f | RESULT);
}

static struct lf_fence *untagged(struct lf_fence *f)
{
	return (struct lf_fence *)((uintptr_t)f & ~RESULT);
}

static void put_all(struct list *list)
{
	for (size_t i = 0; i < list->count; i++)
		lf_fence_put(untagged(list->fences[i]));
	mem_free(list->fences);
	*list = (struct list){ 0 };
}

/* --- A set of keys: open addressing, at most half full --------------------------------------------------------------------- */

struct set_entry {
	uint64_t key; /* 0 is empty */
	size_t value;
};

struct set {
	struct set_entry *entries;
	size_t count, room; /* room is a power of two, or 0 */
};

static struct set_entry *set_place(const struct set *set, uint64_t key)
{
	size_t i = (size_t)hash_bits(key, 32) & (set->room - 1);

	while (set->entries[i].key && set->entries[i].key != key)
		i = (i + 1) & (set->room - 1);
	return &set->entries[i];
}

/* Sees to it that @n keys fit, and when it grows, twice as many, since entering all anew is what costs. Returns false without memory. */
static bool set_make_room(struct set *set, size_t n)
{
	struct set larger = { .count = set->count, .room = set->room ? set->room : 32 };

	if (n * 2 <= set->room)
		return true;
	while (larger.room < n * (set->room ? 4 : 2))
		larger.room *= 2;
	larger.entries = mem_alloc_array(0, larger.room, sizeof(*larger.entries));
	if (!larger.entries)
		return false;
	memset(larger.entries, 0, larger.room * sizeof(*larger.entries));
	for (size_t i = 0; i < set->room; i++) {
		if (set->entries[i].key)
			*set_place(&larger, set->entries[i].key) = set->entries[i];
	}
	mem_free(set->entries);
	*set = larger;
	return true;
}

/* The entry of a key; a new one has value SIZE_MAX. NULL when there is no memory. */
static struct set_entry *set_enter(struct set *set, uint64_t key)
{
	struct set_entry *e;

	if (!set_make_room(set, set->count + 1))
		return NULL;
	e = set_place(set, key);
	if (!e->key) {
		*e = (struct set_entry){ key, SIZE_MAX };
		set->count++;
	}
	return e;
}

/* --- The walk ------------------------------------------------------------------------------------------------------------ */

struct walk {
	unsigned flags; /* of enum lf_unwrap_flags */
	struct list stack, leaves;
	struct set seen;
	bool completed; /* something had completed: with these (U3) */
	int error;
	int64_t time;
};

/* Takes the result of what has completed, in part or as a whole. */
static void note_result(struct walk *w, int error, int64_t time)
{
	if (time == INT64_MIN && !error)
		return; /* nothing has */
	if (!w->completed || time > w->time)
		w->time = time;
	if (!w->error)
		w->error = error;
	w->completed = true;
}

static void note_signaled(struct walk *w, const struct lf_fence *f)
{
	int status = lf_fence_status(f);

	note_result(w, status < 0 ? status : 0, f->timestamp);
}

static void take_result(struct walk *w, struct container *c)
{
	int error;
	int64_t time;

	container_result(c, &error, &time);
	note_result(w, error, time);
}

/* How many members are taken in one read section. */
enum { OPEN_BATCH = 64 };

/* Puts the members of a container on the stack, the first on top, and the container itself for its result, with the walk's reference. */
static bool open_container(struct walk *w, struct container *c)
{
	struct list *stack = &w->stack;
	uint32_t result_at = c->first_counts ? 1 : 0;

	if (!list_make_room(stack, (size_t)c->count + 1) || !set_make_room(&w->seen, w->seen.count + c->count))
		return false;
	for (uint32_t i = c->count; i > 0;) {
		uint32_t last = i > OPEN_BATCH ? i - OPEN_BATCH : 0;

		rcu_begin();
		while (i > last) {
			struct lf_fence *f = container_tryget(&c->members[--i]);

			if (f)
				stack->fences[stack->count++] = f;
			if (i == result_at)
				stack->fences[stack->count++] = tagged(&c->fence); /* the walk's reference moves here */
		}
		rcu_end();
	}
	return true;
}

/* Whether a fence was not come to before; enters it. -ENOMEM when there is no memory. */
static int enter(struct walk *w, const struct lf_fence *f)
{
	struct set_entry *e = set_enter(&w->seen, (uintptr_t)f);
	bool first;

	if (!e)
		return -ENOMEM;
	first = e->value == SIZE_MAX;
	e->value = 0;
	return first;
}

/* Comes to a fence, whose reference moves to where it belongs or is put. Returns false when there is no memory. */
static bool visit(struct walk *w, struct lf_fence *f, bool root)
{
	bool leaf = !fence_class(f) || ((w->flags & LF_UNWRAP_KEEP_ANY) && is_any_array(f));
	bool signaled = fence_word(f) & FENCE_SIGNALED;
	bool ok = true;
	int first = 0;

	if (signaled)
		note_signaled(w, f);
	if (!signaled || (root && leaf))
		first = enter(w, f);
	if (first > 0)
		ok = leaf ? push(&w->leaves, f) : open_container(w, to_container(f));
	if (first <= 0 || !ok)
		lf_fence_put(f);
	return ok && first >= 0;
}

static void walk_end(struct walk *w)
{
	put_all(&w->stack);
	put_all(&w->leaves);
	mem_free(w->seen.entries);
	w->seen = (struct set){ 0 };
}

/* Walks one root; the leaves of several gather. Returns 0 or -ENOMEM, and then the walk has ended. */
static int walk_root(struct walk *w, struct lf_fence *root, bool keep_signaled)
{
	bool ok = visit(w, lf_fence_get(root), keep_signaled);

	while (ok && w->stack.count) {
		struct lf_fence *f = w->stack.fences[--w->stack.count];

		if ((uintptr_t)f & RESULT) {
			take_result(w, to_container(untagged(f)));
			lf_fence_put(untagged(f));
		} else {
			ok = visit(w, f, false);
		}
	}
	if (ok)
		return 0;
	walk_end(w);
	return -ENOMEM;
}

void container_for_each_leaf(struct lf_fence *f, void (*fn)(struct lf_fence *leaf, void *arg), void *arg)
{
	struct walk w = { 0 };

	if (walk_root(&w, f, false) != 0)
		return;
	for (size_t i = 0; i < w.leaves.count; i++)
		fn(w.leaves.fences[i], arg);
	walk_end(&w);
}

/* --- Cursor -------------------------------------------------------------------------------------------------------------- */

int lf_unwrap_begin(struct lf_unwrap *walk, struct lf_fence *f, unsigned flags)
{
	struct walk w = { .flags = flags };
	int ret = library_enter();

	if (ret)
		return ret;
	if (!walk || (flags & ~(unsigned)LF_UNWRAP_KEEP_ANY) || (f && !fence_check(f, __func__)))
		return misuse(-EINVAL, "lf_unwrap_begin: no walk, no fence, or unknown flags %#x", flags);
	if (f) {
		ret = walk_root(&w, f, true);
		if (ret)
			return ret;
	}
	*walk = (struct lf_unwrap){ w.leaves.fences, w.leaves.count, 0 };
	w.leaves = (struct list){ 0 }; /* they are the cursor's now */
	walk_end(&w);
	return 0;
}

struct lf_fence *lf_unwrap_next(struct lf_unwrap *walk)
{
	return walk->next < walk->count ? walk->leaves[walk->next++] : NULL;
}

void lf_unwrap_end(struct lf_unwrap *walk)
{
	struct list leaves;

	if (!walk)
		return;
	leaves = (struct list){ walk->leaves, walk->count, 0 };
	put_all(&leaves);
	*walk = (struct lf_unwrap){ 0 };
}

bool lf_fence_is_container(const struct lf_fence *f)
{
	return fence_check(f, __func__) && fence_class(f);
}

/* --- Merging ------------------------------------------------------------------------------------------------------------- */

/* Leaves the newest of each ordered context. Returns false when there is no memory, and nothing changed. */
static bool keep_newest(struct list *leaves)
{
	struct set contexts = { 0 };
	size_t kept = 0, ordered = 0;

	for (size_t i = 0; i < leaves->count; i++)
		ordered += (fence_state(leaves->fences[i]) & FENCE_ORDERED) != 0;
	if (ordered < 2)
		return true;
	if (!set_make_room(&contexts, ordered))
		return false;
	for (size_t i = 0; i < leaves->count; i++) {
		struct lf_fence *f = leaves->fences[i];
		struct set_entry *e = fence_state(f) & FENCE_ORDERED ? set_enter(&contexts, f->context) : NULL;

		if (!e || e->value == SIZE_MAX) {
			if (e)
				e->value = kept;
			leaves->fences[kept++] = f;
		} else if (lf_fence_is_later(f, leaves->fences[e->value])) {
			lf_fence_put(leaves->fences[e->value]);
			leaves->fences[e->value] = f;
		} else {
			lf_fence_put(f);
		}
	}
	leaves->count = kept;
	mem_free(contexts.entries);
	return true;
}

/* Makes a fence of what a walk found. */
static int make(struct walk *w, struct lf_fence **ret_fence)
{
	struct lf_array_room *room;
	int ret;

	if (!w->leaves.count) {
		if (w->completed && (w->error || w->time != 0))
			return lf_fence_create_signaled(w->error, w->time, ret_fence);
		*ret_fence = lf_fence_stub();
		return 0;
	}
	if (w->leaves.count == 1 && !w->error) {
		*ret_fence = w->leaves.fences[0];
		w->leaves.count = 0; /* the reference is the caller's now */
		return 0;
	}
	ret = lf_array_prepare(w->leaves.count, &room);
	if (ret)
		return ret;
	*ret_fence = array_make(room, w->leaves.fences, (uint32_t)w->leaves.count, LF_ARRAY_ALL, w->error, w->completed ? w->time : INT64_MIN);
	w->leaves.count = 0; /* the references are the array's now */
	return 0;
}

int lf_fence_merge(struct lf_fence *const *fences, size_t count, struct lf_fence **ret_fence)
{
	struct walk w = { .flags = LF_UNWRAP_KEEP_ANY };
	int ret = library_enter();

	if (ret)
		return ret;
	if (!ret_fence || (count && !fences))
		return misuse(-EINVAL, "lf_fence_merge: fences and a place for the result are both needed");
	for (size_t i = 0; i < count && ret == 0; i++) {
		if (fences[i])
			ret = fence_check(fences[i], __func__) ? walk_root(&w, fences[i], false) : -EINVAL;
	}
	if (ret == 0)
		ret = keep_newest(&w.leaves) ? make(&w, ret_fence) : -ENOMEM;
	walk_end(&w);
	return ret;
}

int lf_fence_flatten(struct lf_fence *f, struct lf_fence **ret_fence)
{
	if (!f)
		return misuse(-EINVAL, "lf_fence_flatten: the fence is NULL");
	return lf_fence_merge(&f, 1, ret_fence);
}
