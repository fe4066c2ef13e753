/* SPDX-License-Identifier: MIT */
/*
 * Address heaps: which ranges are free to be given out, and which will be.
 *
 * Purpose: the heap's range is cut into segments. One balanced tree holds them by address, and knows how much room the largest free
 * segment of each subtree has, for a few alignments: the first that is large enough, from either end, is found by one descent.
 *
 * States of a segment:
 *
 *     FREE --take()--> USED --give_back()--> RETIRED --sweep() finds it idle--> FREE
 *                         \--give_back() of what is idle----------------------> FREE
 *
 * | state   | busy                  | next_retired              |
 * |---------|-----------------------|---------------------------|
 * | FREE    | not set               | not set                   |
 * | USED    | not set               | not set                   |
 * | RETIRED | what it waits for     | the next of heap->retired |
 *
 * Invariants:
 * VH1. The segments, one after the other, are the heap's range: no gap, no overlap. Bounds are inclusive, so that nothing overflows at
 *     the last of 64 bits; and since a heap has at most 2^64 - 1 bytes, the size of whatever is in it is a number.
 * VH2. No two neighbours are both FREE. What is taken is one segment, as it was asked for.
 * VH3. neighbour[] is the order of the tree.
 * VH4. The tree is an AVL tree: the heights of a node's children differ by at most 1. So it is less than 1.45 times as high as it must be.
 * VH5. A node's height and room are what its children and its own segment make them.
 * VH6. The list of retired segments holds each RETIRED one once, and nothing else.
 * VH7. bytes and ranges say of each state how much there is of it.
 *
 * What allocation looks at: first at up to LOOKS retired segments, oldest first; what is idle becomes free, what is not goes to the end
 * of the list, so that a fence which takes for ever does not hide others. Then for room. When there is none now, but there would be if
 * all that is retired were free, it looks at all of them before it says -EBUSY. So "the lowest addresses that fit" are those of what is
 * free or has been looked at: with more than LOOKS retired, a lower range that became idle just now may be found only next time.
 *
 * What it costs: with n segments and r of them RETIRED, giving back is O(log n), allocating O(log n) plus what it looks at (LOOKS, or r
 * before it fails). A descent finds room at the largest of `grains` that is not larger than the alignment. With an alignment in between,
 * segments that have room at that grain but not at the alignment are passed over one by one, in O(log n) each. (Where all addresses and
 * sizes are pages, an alignment of a page is not in between: it is that of every byte.) The same goes for the two segments, one at either
 * end of the wanted range, of which only a part is wanted.
 *
 * Locking: the heap's mutex protects everything in it. Under it nothing is called but questions to fences, which are loads. Memory is
 * allocated before, and freed, like references put, behind it: struct baggage carries it.
 *
 * Ordering: by the mutex. Whoever finds a segment idle has acquired the signals; who is given the range later has it from the mutex.
 *
 * Lifetime: the heap belongs to its maker. A retired segment has references of its own on what it waits for.
 *
 * Not here: what the ranges are used for.
 */
#include <libfence/va_heap.h>

#include <stdio.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/library.h"
#include "base/track.h"
#include "fence/core.h"

enum { LOOKS = 16 };

/* The alignments for which the tree knows where there is room: any, and those of the large pages of GPUs. */
enum { GRAINS = 3 };
static const uint64_t grains[GRAINS] = { 1, UINT64_C(64) << 10, UINT64_C(2) << 20 };

enum { LEFT = 0, RIGHT = 1 }; /* towards lower addresses; towards higher */
enum state { FREE = 0, USED, RETIRED, STATES };

/* What a retired segment waits for, each part only if there is one. */
struct busy {
	struct lf_snapshot snapshot;
	struct lf_fence *fence;
};

struct segment {
	struct segment *parent, *child[2];
	struct segment *neighbour[2];
	uint64_t first, last;
	uint64_t room[GRAINS]; /* of the FREE segments of the subtree, the most bytes behind an address with this alignment */
	int32_t height; /* of the subtree; 1 without children */
	enum state state;
	struct segment *next_retired;
	struct busy busy;
};

struct lf_va_heap {
	struct port_mutex mutex; /* protects all below, but for what is immutable */
	uint64_t first, last; /* immutable */
	struct segment *root; /* never NULL */
	struct segment *retired, *retired_last; /* a list: what was looked at, or retired, longest ago comes first */
	uint64_t bytes[STATES], ranges[STATES];
	uint64_t checks; /* how often somebody asked for heap_assert_valid() */
};

/* What goes into a section under the mutex, or comes out: memory for segments, and what the retired ones waited for. */
struct baggage {
	struct segment *nodes; /* linked by neighbour[RIGHT] */
	struct busy busy[LOOKS];
	unsigned count; /* of busy */
};

/* What is wanted: an address range of the heap, and what to look for in it. */
struct want {
	uint64_t first, last;
	uint64_t size;
	uint64_t mask; /* the bits that the address may not have */
	int grain; /* the largest of grains that is not larger than the alignment */
	int towards; /* where to look after what was looked at */
};

static int describe_tracked(const void *object, char *buf, size_t size)
{
	const struct lf_va_heap *heap = object;

	return snprintf(buf, size, "%#llx to %#llx", (unsigned long long)heap->first, (unsigned long long)heap->last);
}

static const struct track_kind heap_track_kind = { "address heap", 0, describe_tracked };

/* --- Segments --------------------------------------------------------------------------------------------------------------- */

static uint64_t size_of(const struct segment *s)
{
	return s->last - s->first + 1;
}

/* The bytes behind the first address of a FREE segment that is aligned to a grain. */
static uint64_t own_room(const struct segment *s, int grain)
{
	const uint64_t mask = grains[grain] - 1, first = (s->first + mask) & ~mask;

	/* less than s->first: the next aligned address is behind 64 bits */
	return s->state == FREE && first >= s->first && first <= s->last ? s->last - first + 1 : 0;
}

static bool is_state(const struct segment *s, enum state state)
{
	return s && s->state == state;
}

static int32_t height_of(const struct segment *s)
{
	return s ? s->height : 0;
}

static uint64_t room_of(const struct segment *s, int grain)
{
	return s ? s->room[grain] : 0;
}

static uint64_t max64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* VH5 */
static int32_t height_made(const struct segment *s)
{
	const int32_t left = height_of(s->child[LEFT]), right = height_of(s->child[RIGHT]);

	return 1 + (left > right ? left : right);
}

static uint64_t room_made(const struct segment *s, int grain)
{
	return max64(own_room(s, grain), max64(room_of(s->child[LEFT], grain), room_of(s->child[RIGHT], grain)));
}

static void refresh(struct segment *s)
{
	s->height = height_made(s);
	for (int grain = 0; grain < GRAINS; grain++)
		s->room[grain] = room_made(s, grain);
}

/* --- Checks ----------------------------------------------------------------------------------------------------------------- */

/* The next in the tree's own order. */
static const struct segment *tree_next(const struct segment *s)
{
	const struct segment *from;

	if (s->child[RIGHT]) {
		for (s = s->child[RIGHT]; s->child[LEFT]; s = s->child[LEFT])
			;
		return s;
	}
	do {
		from = s;
		s = s->parent;
	} while (s && s->child[RIGHT] == from);
	return s;
}

static void segment_assert_valid(const struct lf_va_heap *heap, const struct segment *s)
{
	const struct segment *next = s->neighbour[RIGHT];
	const int32_t lean = height_of(s->child[RIGHT]) - height_of(s->child[LEFT]);

	invariant(s->first <= s->last); /* VH1 */
	invariant(next ? next->first == s->last + 1 && next->neighbour[LEFT] == s : s->last == heap->last); /* VH1 */
	invariant(s->state != FREE || !is_state(next, FREE)); /* VH2 */
	invariant(tree_next(s) == next); /* VH3 */
	invariant(s->parent ? s->parent->child[LEFT] == s || s->parent->child[RIGHT] == s : heap->root == s); /* VH3 */
	invariant(lean >= -1 && lean <= 1); /* VH4 */
	invariant(s->height == height_made(s)); /* VH5 */
	for (int grain = 0; grain < GRAINS; grain++)
		invariant(s->room[grain] == room_made(s, grain)); /* VH5 */
}

static void heap_assert_valid_slow(const struct lf_va_heap *heap) LF_REQUIRES(&heap->mutex)
{
	uint64_t bytes[STATES] = { 0 }, ranges[STATES] = { 0 }, retired = 0;
	const struct segment *s = heap->root;

	while (s->child[LEFT])
		s = s->child[LEFT];
	invariant(s->first == heap->first && !s->neighbour[LEFT]); /* VH1 */
	for (; s; s = s->neighbour[RIGHT]) {
		segment_assert_valid(heap, s);
		bytes[s->state] += size_of(s);
		ranges[s->state]++;
	}
	for (s = heap->retired; s; s = s->next_retired) {
		invariant(s->state == RETIRED && (s->next_retired || s == heap->retired_last)); /* VH6 */
		retired++;
	}
	invariant(retired == ranges[RETIRED]); /* VH6 */
	invariant(memcmp(bytes, heap->bytes, sizeof(bytes)) == 0 && memcmp(ranges, heap->ranges, sizeof(ranges)) == 0); /* VH7 */
}

/* All numbered invariants. Of a large heap only now and then, or it would be quadratic. */
static void heap_assert_valid(struct lf_va_heap *heap) LF_REQUIRES(&heap->mutex)
{
	const uint64_t every = 1 + (heap->ranges[FREE] + heap->ranges[USED] + heap->ranges[RETIRED]) / 128;

	if (DEBUG_CHECKS && heap->checks++ % every == 0)
		heap_assert_valid_slow(heap);
}

/* --- Tree ------------------------------------------------------------------------------------------------------------------- */

/* Puts @now where @before hangs. */
static void hang(struct lf_va_heap *heap, const struct segment *before, struct segment *now) LF_REQUIRES(&heap->mutex)
{
	struct segment *parent = before->parent;

	if (parent)
		parent->child[parent->child[RIGHT] == before] = now;
	else
		heap->root = now;
	if (now)
		now->parent = parent;
}

/* Rotates: the child of that side takes the place of @s, which becomes its child. Returns the child. */
static struct segment *lift(struct lf_va_heap *heap, struct segment *s, int side) LF_REQUIRES(&heap->mutex)
{
	struct segment *up = s->child[side], *across = up->child[!side];

	hang(heap, s, up);
	s->child[side] = across;
	if (across)
		across->parent = s;
	up->child[!side] = s;
	s->parent = up;
	refresh(s);
	refresh(up);
	return up;
}

/* Makes VH4 true of a node whose children's heights differ by at most 2. Returns what stands in its place. */
static struct segment *balance(struct lf_va_heap *heap, struct segment *s) LF_REQUIRES(&heap->mutex)
{
	const int32_t lean = height_of(s->child[RIGHT]) - height_of(s->child[LEFT]);
	const int side = lean > 0;
	struct segment *c = s->child[side];

	if (lean >= -1 && lean <= 1)
		return s;
	if (height_of(c->child[!side]) > height_of(c->child[side]))
		lift(heap, c, !side);
	return lift(heap, s, side);
}

/*
 * Makes VH4 and VH5 true from a node upwards, after its segment or its children have changed; ends where nothing changes any more. When
 * several nodes have changed, each is repaired: a rotation on the way may refresh another of them, and then carries on what changed there.
 */
static void repair(struct lf_va_heap *heap, struct segment *s) LF_REQUIRES(&heap->mutex)
{
	while (s) {
		const int32_t height = s->height;
		uint64_t room[GRAINS];

		memcpy(room, s->room, sizeof(room));
		refresh(s);
		s = balance(heap, s);
		if (s->height == height && memcmp(room, s->room, sizeof(room)) == 0)
			return;
		s = s->parent;
	}
}

/* Of two neighbours in a tree one is above the other; so there is a place for a leaf between them, at one or the other. */
static void insert_beside(struct lf_va_heap *heap, struct segment *s, int side, struct segment *leaf) LF_REQUIRES(&heap->mutex)
{
	struct segment *beyond = s->neighbour[side];
	const bool below = !s->child[side];

	leaf->neighbour[side] = beyond;
	leaf->neighbour[!side] = s;
	s->neighbour[side] = leaf;
	if (beyond)
		beyond->neighbour[!side] = leaf;
	leaf->child[LEFT] = leaf->child[RIGHT] = NULL;
	leaf->parent = below ? s : beyond;
	leaf->parent->child[below ? side : !side] = leaf;
	refresh(leaf);
	repair(heap, leaf->parent);
}

/* Takes a node out that has at most one child, and is not the root. */
static void remove_node(struct lf_va_heap *heap, struct segment *s) LF_REQUIRES(&heap->mutex)
{
	for (int side = LEFT; side <= RIGHT; side++) {
		if (s->neighbour[side])
			s->neighbour[side]->neighbour[!side] = s->neighbour[!side];
	}
	hang(heap, s, s->child[LEFT] ? s->child[LEFT] : s->child[RIGHT]);
	repair(heap, s->parent);
}

/* The segment with an address of the heap. */
static struct segment *find(const struct lf_va_heap *heap, uint64_t va) LF_REQUIRES(&heap->mutex)
{
	struct segment *s = heap->root;

	while (va < s->first || va > s->last)
		s = s->child[va > s->last];
	return s;
}

/* Whether a segment itself may do, and whether there is one in a subtree that may. */
static bool is_large(const struct segment *s, const struct want *want)
{
	return own_room(s, want->grain) >= want->size;
}

static bool has_large(const struct segment *s, const struct want *want)
{
	return room_of(s, want->grain) >= want->size;
}

/* The first large segment of a subtree that has one. */
static struct segment *first_large(struct segment *s, const struct want *want)
{
	for (;;) {
		if (has_large(s->child[!want->towards], want))
			s = s->child[!want->towards];
		else if (is_large(s, want))
			return s;
		else
			s = s->child[want->towards];
	}
}

/* The next large segment behind @s, or NULL. */
static struct segment *next_large(struct segment *s, const struct want *want)
{
	do {
		const struct segment *from;

		if (has_large(s->child[want->towards], want))
			return first_large(s->child[want->towards], want);
		do {
			from = s;
			s = s->parent;
		} while (s && s->child[want->towards] == from);
	} while (s && !is_large(s, want));
	return s;
}

/* --- Baggage ---------------------------------------------------------------------------------------------------------------- */

/* The part of it that is not filled is not touched. */
static void baggage_init(struct baggage *baggage)
{
	baggage->nodes = NULL;
	baggage->count = 0;
}

static struct segment *take_node(struct baggage *baggage)
{
	struct segment *s = baggage->nodes;

	baggage->nodes = s->neighbour[RIGHT];
	return s;
}

static void add_node(struct baggage *baggage, struct segment *s)
{
	s->neighbour[RIGHT] = baggage->nodes;
	baggage->nodes = s;
}

static void put_busy(struct busy *busy)
{
	lf_snapshot_put(&busy->snapshot);
	lf_fence_put(busy->fence);
}

static void put_all_busy(struct baggage *baggage)
{
	while (baggage->count)
		put_busy(&baggage->busy[--baggage->count]);
}

static void free_baggage(struct baggage *baggage)
{
	put_all_busy(baggage);
	while (baggage->nodes)
		mem_free(take_node(baggage));
}

/* As many nodes as taking a range can need: the range may be in the middle of a free one. */
static int pack(struct baggage *baggage)
{
	baggage_init(baggage);
	for (int i = 0; i < 2; i++) {
		struct segment *s = mem_alloc(sizeof(*s));

		if (!s) {
			free_baggage(baggage);
			return -ENOMEM;
		}
		add_node(baggage, s);
	}
	return 0;
}

/* --- Changing states -------------------------------------------------------------------------------------------------------- */

static void count_in(struct lf_va_heap *heap, const struct segment *s) LF_REQUIRES(&heap->mutex)
{
	heap->bytes[s->state] += size_of(s);
	heap->ranges[s->state]++;
}

static void count_out(struct lf_va_heap *heap, const struct segment *s) LF_REQUIRES(&heap->mutex)
{
	heap->bytes[s->state] -= size_of(s);
	heap->ranges[s->state]--;
}

static void insert_free(struct lf_va_heap *heap, struct segment *s, int side, struct segment *leaf) LF_REQUIRES(&heap->mutex)
{
	leaf->state = FREE;
	count_in(heap, leaf);
	insert_beside(heap, s, side, leaf);
}

/* Makes a range of a FREE segment USED, and FREE ones of what is left of it. */
static void take(struct lf_va_heap *heap, struct segment *s, uint64_t va, uint64_t size, struct baggage *baggage) LF_REQUIRES(&heap->mutex)
{
	const uint64_t first = s->first, last = s->last;
	struct segment *rest;

	count_out(heap, s);
	s->first = va;
	s->last = va + (size - 1);
	s->state = USED;
	count_in(heap, s);
	repair(heap, s);
	if (s->first > first) {
		rest = take_node(baggage);
		rest->first = first;
		rest->last = s->first - 1;
		insert_free(heap, s, LEFT, rest);
	}
	if (s->last < last) {
		rest = take_node(baggage);
		rest->first = s->last + 1;
		rest->last = last;
		insert_free(heap, s, RIGHT, rest);
	}
}

/*
 * Joins two neighbours in the one that is above the other, and returns it, to be repaired. (If the right one has a left child, the left
 * one is below it and has no right child; else it is the other way round. So who goes has at most one child.)
 */
static struct segment *join(struct lf_va_heap *heap, struct segment *left, struct segment *right, struct baggage *baggage)
	LF_REQUIRES(&heap->mutex)
{
	struct segment *stays = right->child[LEFT] ? right : left, *goes = right->child[LEFT] ? left : right;

	stays->first = left->first;
	stays->last = right->last;
	remove_node(heap, goes);
	add_node(baggage, goes);
	heap->ranges[FREE]--;
	return stays;
}

/* A segment becomes FREE, and one with its FREE neighbours (VH2). */
static void release(struct lf_va_heap *heap, struct segment *s, struct baggage *baggage) LF_REQUIRES(&heap->mutex)
{
	count_out(heap, s);
	s->state = FREE;
	count_in(heap, s);
	if (PLANTED(88))
		repair(heap, s);
	if (is_state(s->neighbour[LEFT], FREE))
		s = join(heap, s->neighbour[LEFT], s, baggage);
	if (is_state(s->neighbour[RIGHT], FREE))
		s = join(heap, s, s->neighbour[RIGHT], baggage);
	if (!PLANTED(88))
		repair(heap, s);
}

/* --- Retired segments ------------------------------------------------------------------------------------------------------- */

static bool is_idle(const struct busy *busy)
{
	const enum lf_usage usage = PLANTED(87) ? LF_USAGE_READ : LF_USAGE_BOOKKEEP;

	return (!busy->fence || lf_fence_is_signaled(busy->fence)) && lf_snapshot_test_signaled(&busy->snapshot, usage);
}

static void push_retired(struct lf_va_heap *heap, struct segment *s) LF_REQUIRES(&heap->mutex)
{
	s->next_retired = NULL;
	if (heap->retired)
		heap->retired_last->next_retired = s;
	else
		heap->retired = s;
	heap->retired_last = s;
}

static struct segment *pop_retired(struct lf_va_heap *heap) LF_REQUIRES(&heap->mutex)
{
	struct segment *s = heap->retired;

	heap->retired = s->next_retired;
	return s;
}

static void retire(struct lf_va_heap *heap, struct segment *s, const struct busy *busy) LF_REQUIRES(&heap->mutex)
{
	count_out(heap, s);
	s->state = RETIRED;
	s->busy = *busy;
	count_in(heap, s);
	push_retired(heap, s);
}

/*
 * Looks at retired segments until it has looked at @looks of them, or there is no room for what more of them waited for; frees those that
 * are idle. Returns whether it has looked at all.
 */
static bool sweep(struct lf_va_heap *heap, uint64_t looks, struct baggage *baggage) LF_REQUIRES(&heap->mutex)
{
	uint64_t left = heap->ranges[RETIRED];

	for (; left && looks && baggage->count < LOOKS; left--, looks--) {
		struct segment *s = pop_retired(heap);

		if (!is_idle(&s->busy)) {
			push_retired(heap, s);
			continue;
		}
		baggage->busy[baggage->count++] = s->busy; /* moved */
		release(heap, s, baggage);
	}
	return left == 0;
}

/* --- Looking for room ------------------------------------------------------------------------------------------------------- */

/* Whether what is wanted fits into a range, and where. */
static bool fit(const struct want *want, uint64_t first, uint64_t last, uint64_t *ret_va)
{
	uint64_t va;

	first = max64(first, want->first);
	last = min64(last, want->last);
	if (first > last || last - first < want->size - 1)
		return false;
	va = want->towards == RIGHT ? first + want->mask : last - (want->size - 1);
	va &= ~want->mask;
	*ret_va = va;
	/* in front of it: the next aligned address is behind 64 bits, or the last one before the range */
	return (va >= first || PLANTED(89)) && va <= last && last - va >= want->size - 1;
}

/* The first FREE segment with room, in the order that is wanted, or NULL. */
static struct segment *find_room(const struct lf_va_heap *heap, const struct want *want, uint64_t *ret_va) LF_REQUIRES(&heap->mutex)
{
	struct segment *s = find(heap, want->towards == RIGHT ? want->first : want->last);

	if (!is_large(s, want))
		s = next_large(s, want);
	while (s && s->first <= want->last && s->last >= want->first) {
		if (fit(want, s->first, s->last, ret_va))
			return s;
		s = next_large(s, want);
	}
	return NULL;
}

/* Whether a RETIRED segment is the first of those between two USED ones. */
static bool begins_run(const struct segment *s)
{
	const struct segment *before = s->neighbour[LEFT];

	if (is_state(before, FREE))
		before = before->neighbour[LEFT]; /* which is not FREE (VH2) */
	return !is_state(before, RETIRED);
}

/* Whether there is room in what would be free around a RETIRED segment that begins_run(), if nothing were busy. */
static bool fits_run(const struct segment *s, const struct want *want)
{
	const uint64_t first = is_state(s->neighbour[LEFT], FREE) ? s->neighbour[LEFT]->first : s->first;
	uint64_t va;

	while (s->neighbour[RIGHT] && s->neighbour[RIGHT]->state != USED)
		s = s->neighbour[RIGHT];
	return fit(want, first, s->last, &va);
}

/* Whether there would be room if nothing were busy, while there is none now. Linear in the number of RETIRED segments. */
static bool would_fit(const struct lf_va_heap *heap, const struct want *want) LF_REQUIRES(&heap->mutex)
{
	for (const struct segment *s = heap->retired; s; s = s->next_retired) {
		if (begins_run(s) && fits_run(s, want))
			return true;
	}
	return false;
}

static int try_take(struct lf_va_heap *heap, const struct want *want, struct baggage *baggage, uint64_t *ret_va)
	LF_REQUIRES(&heap->mutex)
{
	struct segment *s = find_room(heap, want, ret_va);

	if (!s)
		return would_fit(heap, want) ? -EBUSY : -ENOSPC;
	take(heap, s, *ret_va, want->size, baggage);
	return 0;
}

/* --- Life ------------------------------------------------------------------------------------------------------------------- */

static struct lf_va_heap *make_heap(uint64_t first, uint64_t last)
{
	struct lf_va_heap *heap = mem_zalloc(sizeof(*heap));
	struct segment *s = mem_zalloc(sizeof(*s));

	if (!heap || !s) {
		mem_free(heap);
		mem_free(s);
		return NULL;
	}
	s->first = heap->first = first;
	s->last = heap->last = last;
	refresh(s);
	heap->root = s;
	heap->bytes[FREE] = size_of(s);
	heap->ranges[FREE] = 1;
	port_mutex_init(&heap->mutex);
	return heap;
}

int lf_va_heap_create(uint64_t start, uint64_t size, struct lf_va_heap **ret_heap)
{
	struct lf_va_heap *heap;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!ret_heap)
		return misuse(-EINVAL, "lf_va_heap_create: nowhere to put the heap");
	if (size == 0 || size - 1 > UINT64_MAX - start)
		return misuse(-EINVAL, "lf_va_heap_create: %#llx bytes from %#llx are no range", (unsigned long long)size,
			(unsigned long long)start);
	heap = make_heap(start, start + (size - 1));
	if (!heap)
		return -ENOMEM;
	track_add(heap, &heap_track_kind);
	*ret_heap = heap;
	return 0;
}

void lf_va_heap_destroy(struct lf_va_heap *heap) LF_NO_THREAD_ANALYSIS
{
	struct segment *s, *next;

	if (!heap || library_poisoned())
		return;
	track_remove(heap);
	for (s = find(heap, heap->first); s; s = next) {
		next = s->neighbour[RIGHT];
		if (s->state == RETIRED)
			put_busy(&s->busy);
		mem_free(s);
	}
	port_mutex_fini(&heap->mutex);
	mem_free(heap);
}

/* --- Allocating ------------------------------------------------------------------------------------------------------------- */

/* Room is looked for again when all that is retired was looked at, and then the answer stands. */
static int allocate(struct lf_va_heap *heap, const struct want *want, uint64_t *ret_va)
{
	uint64_t looks = LOOKS;
	struct baggage baggage;
	bool all;
	int ret = pack(&baggage);

	if (ret)
		return ret;
	do {
		port_mutex_lock(&heap->mutex);
		all = sweep(heap, looks, &baggage);
		ret = try_take(heap, want, &baggage, ret_va);
		heap_assert_valid(heap);
		port_mutex_unlock(&heap->mutex);
		put_all_busy(&baggage);
		looks = UINT64_MAX;
	} while (ret == -EBUSY && !all);
	free_baggage(&baggage);
	return ret;
}

/* Cuts what is wanted down to the heap's range first. */
static int allocate_within(struct lf_va_heap *heap, struct want *want, uint64_t *ret_va)
{
	want->first = max64(want->first, heap->first);
	want->last = min64(want->last, heap->last);
	if (want->first > want->last || want->last - want->first < want->size - 1)
		return -ENOSPC;
	return allocate(heap, want, ret_va);
}

static int grain_of(uint64_t align)
{
	int grain = 0;

	while (grain + 1 < GRAINS && grains[grain + 1] <= align)
		grain++;
	return grain;
}

static bool check_request(const struct lf_va_request *r)
{
	return r->size && !(r->align & (r->align - 1)) && (!r->max || r->max >= r->min) && (unsigned)r->order <= LF_VA_TOP_DOWN;
}

int lf_va_heap_alloc(struct lf_va_heap *heap, const struct lf_va_request *request, uint64_t *ret_va)
{
	struct want want;
	uint64_t va = 0;
	int ret = library_enter();

	if (ret)
		return ret;
	if (!heap || !request || !ret_va)
		return misuse(-EINVAL, "lf_va_heap_alloc: an argument is missing");
	if (!check_request(request))
		return misuse(-EINVAL, "lf_va_heap_alloc: %#llx bytes, aligned to %#llx, from %#llx to %#llx, in order %d, is no request",
			(unsigned long long)request->size, (unsigned long long)request->align, (unsigned long long)request->min,
			(unsigned long long)request->max, (int)request->order);
	want = (struct want){
		.first = request->min,
		.last = request->max ? request->max : UINT64_MAX,
		.size = request->size,
		.mask = request->align ? request->align - 1 : 0,
		.grain = grain_of(request->align),
		.towards = request->order == LF_VA_TOP_DOWN ? LEFT : RIGHT,
	};
	ret = allocate_within(heap, &want, &va);
	if (ret == 0)
		*ret_va = va;
	return ret;
}

/* A range that must be where it is wanted fits in one place at most. */
int lf_va_heap_alloc_at(struct lf_va_heap *heap, uint64_t va, uint64_t size)
{
	struct want want = { .first = va, .last = va + (size - 1), .size = size, .towards = RIGHT };
	int ret = library_enter();

	if (ret)
		return ret;
	if (!heap || size == 0)
		return misuse(-EINVAL, "lf_va_heap_alloc_at: the heap is NULL, or the range empty");
	if (want.last < va)
		return -ENOSPC;
	return allocate_within(heap, &want, &va);
}

/* --- Giving back ------------------------------------------------------------------------------------------------------------ */

/* The segment that was taken as this range, or NULL. */
static struct segment *find_used(const struct lf_va_heap *heap, uint64_t va, uint64_t size) LF_REQUIRES(&heap->mutex)
{
	struct segment *s;

	if (size == 0 || va < heap->first || va > heap->last)
		return NULL;
	s = find(heap, va);
	return s->state == USED && s->first == va && size_of(s) == size ? s : NULL;
}

/* Makes a range FREE, or RETIRED when @busy is not idle; then that moves into the heap. */
static void give_back(struct lf_va_heap *heap, uint64_t va, uint64_t size, struct busy *busy, const char *function)
{
	const bool idle = is_idle(busy);
	struct baggage baggage;
	struct segment *s;

	baggage_init(&baggage);
	if (!PLANTED(175))
		port_mutex_lock(&heap->mutex);
	s = find_used(heap, va, size);
	if (s && idle) {
		release(heap, s, &baggage);
	} else if (s) {
		retire(heap, s, busy);
		*busy = (struct busy){ 0 }; /* moved */
	}
	heap_assert_valid(heap);
	if (!PLANTED(175))
		port_mutex_unlock(&heap->mutex);
	free_baggage(&baggage);
	if (!s)
		misuse(0, "%s: %#llx bytes at %#llx are not what was allocated", function, (unsigned long long)size,
			(unsigned long long)va);
}

void lf_va_heap_free(struct lf_va_heap *heap, uint64_t va, uint64_t size)
{
	struct busy busy = { 0 };

	if (library_poisoned())
		return;
	if (!heap) {
		misuse(0, "lf_va_heap_free: the heap is NULL");
		return;
	}
	give_back(heap, va, size, &busy, __func__);
}

void lf_va_heap_retire(struct lf_va_heap *heap, uint64_t va, uint64_t size, const struct lf_resv *resv, struct lf_fence *f)
{
	struct busy busy = { 0 };

	if (library_poisoned())
		return;
	if (!heap) {
		misuse(0, "lf_va_heap_retire: the heap is NULL");
		return;
	}
	if (f && !fence_check(f, __func__))
		return; /* the range stays allocated: nobody knows for how long it is in use */
	if (resv)
		lf_resv_snapshot(resv, &busy.snapshot);
	busy.fence = lf_fence_get(f);
	give_back(heap, va, size, &busy, __func__);
	put_busy(&busy);
}

/* --- Counting --------------------------------------------------------------------------------------------------------------- */

void lf_va_heap_get_stats(struct lf_va_heap *heap, struct lf_va_heap_stats *ret_stats)
{
	struct baggage baggage;
	bool all;

	if (!heap || !ret_stats) {
		misuse(0, "lf_va_heap_get_stats: an argument is missing");
		return;
	}
	*ret_stats = (struct lf_va_heap_stats){ 0 };
	if (library_poisoned())
		return;
	baggage_init(&baggage);
	do {
		port_mutex_lock(&heap->mutex);
		all = sweep(heap, UINT64_MAX, &baggage);
		ret_stats->free = heap->bytes[FREE];
		ret_stats->retired = heap->bytes[RETIRED];
		ret_stats->allocated = heap->ranges[USED];
		ret_stats->largest = heap->root->room[0];
		heap_assert_valid(heap);
		port_mutex_unlock(&heap->mutex);
		put_all_busy(&baggage);
	} while (!all);
	free_baggage(&baggage);
}
