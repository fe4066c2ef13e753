/* SPDX-License-Identifier: MIT */
/* What memory and instructions allow, without synchronization, transactions or versions: a page table, and a tree that never changes. */
#include "peers.h"

#include <stdlib.h>
#include <string.h>

#define KEYS 16 /* 64 bytes of them */
#define FAN  (KEYS + 1)

static void *zeroed(size_t size)
{
	void *block = aligned_alloc(64, (size + 63) & ~(size_t)63);

	if (!block)
		abort();
	memset(block, 0, size);
	return block;
}

/* --- A page table -------------------------------------------------------------------------------------------------------- */

struct table {
	void *slots[512];
};

struct pt_space {
	struct table root;
};

static size_t slot(uint64_t va, unsigned level)
{
	return va / GRANULE >> 9 * level & 511;
}

struct pt_space *pt_create(void)
{
	return zeroed(sizeof(struct pt_space));
}

static struct table *below(struct table *table, size_t i)
{
	if (!table->slots[i])
		table->slots[i] = zeroed(sizeof(struct table));
	return table->slots[i];
}

static void set(struct pt_space *space, uint64_t va, struct peer_mapping *m)
{
	below(below(&space->root, slot(va, 2)), slot(va, 1))->slots[slot(va, 0)] = m;
}

static struct peer_mapping *find(const struct pt_space *space, uint64_t va)
{
	const struct table *table = space->root.slots[slot(va, 2)];

	table = table ? table->slots[slot(va, 1)] : NULL;
	return table ? table->slots[slot(va, 0)] : NULL;
}

void pt_map(struct pt_space *space, const struct range *range)
{
	struct peer_mapping *m = malloc(sizeof(*m));

	if (!m || range->va + range->size > (uint64_t)GRANULE << 27)
		abort();
	*m = (struct peer_mapping){ .range = *range };
	for (uint64_t at = 0; at < range->size; at += GRANULE)
		set(space, range->va + at, m);
}

void pt_unmap(struct pt_space *space, const struct range *range)
{
	struct peer_mapping *m = find(space, range->va);

	for (uint64_t at = 0; at < range->size; at += GRANULE)
		set(space, range->va + at, NULL);
	free(m);
}

bool pt_lookup(struct pt_space *space, uint64_t va, uint64_t *ret_offset)
{
	const struct peer_mapping *m = find(space, va);

	if (m)
		*ret_offset = m->range.offset;
	return m != NULL;
}

/* --- A static B-tree ----------------------------------------------------------------------------------------------------- */

/* Keys are the last pages of mappings; node k has nodes FAN * k + 1 and so on below it. What is not used is INT32_MAX. */
typedef int32_t quad __attribute__((vector_size(16)));

struct node {
	union {
		int32_t keys[KEYS];
		quad quads[KEYS / 4];
	};
};

struct bt_space {
	size_t count, nodes, used;
	struct node *keys;
	struct peer_mapping **mappings; /* of the keys */
};

static void fill(struct bt_space *space, size_t k, const struct range *ranges)
{
	if (k >= space->nodes)
		return;
	for (size_t i = 0; i < KEYS; i++) {
		fill(space, FAN * k + 1 + i, ranges);
		space->keys[k].keys[i] = INT32_MAX;
		if (space->used < space->count) {
			const struct range *range = &ranges[space->used++];

			space->keys[k].keys[i] = (int32_t)((range->va + range->size - 1) / GRANULE);
			space->mappings[k * KEYS + i] = malloc(sizeof(struct peer_mapping));
			*space->mappings[k * KEYS + i] = (struct peer_mapping){ .range = *range };
		}
	}
	fill(space, FAN * k + 1 + KEYS, ranges);
}

struct bt_space *bt_create(const struct range *ranges, size_t count)
{
	struct bt_space *space = zeroed(sizeof(*space));

	space->count = count;
	for (space->nodes = 1; space->nodes * KEYS < count;) /* all leaves at one depth: no branch to be guessed */
		space->nodes = space->nodes * FAN + 1;
	space->keys = zeroed(space->nodes * sizeof(*space->keys));
	space->mappings = zeroed(space->nodes * KEYS * sizeof(*space->mappings));
	fill(space, 0, ranges);
	return space;
}

/* How many keys are less. A comparison of vectors is -1 where it is true. */
static size_t rank(const struct node *node, int32_t page)
{
	quad pages = { page, page, page, page }, less = { 0 };

	for (size_t i = 0; i < KEYS / 4; i++)
		less -= node->quads[i] < pages;
	return (size_t)(less[0] + less[1] + less[2] + less[3]);
}

bool bt_lookup(struct bt_space *space, uint64_t va, uint64_t *ret_offset)
{
	int32_t page = (int32_t)(va / GRANULE);
	const struct peer_mapping *m;
	size_t k = 0, found = SIZE_MAX;

	while (k < space->nodes) {
		size_t i = rank(&space->keys[k], page);

		found ^= (found ^ (k * KEYS + i)) & -(size_t)(i < KEYS);
		k = FAN * k + 1 + i;
	}
	m = found == SIZE_MAX ? NULL : space->mappings[found];
	if (!m || m->range.va > va)
		return false;
	*ret_offset = m->range.offset;
	return true;
}
