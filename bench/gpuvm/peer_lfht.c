/* SPDX-License-Identifier: MIT */
/*
 * liburcu's lock-free hash table, by page: what is closest in a library. Each page of a mapping has an entry, so it knows nothing of
 * ranges, of the next mapping, or of versions. Entries go through call_rcu().
 */
#define RCU_BP
#define _LGPL_SOURCE
#include <urcu-bp.h>
#include <urcu/rculfhash.h>

#include "peers.h"

#include <stdlib.h>

struct lh_space {
	struct cds_lfht *table;
};

struct entry {
	struct cds_lfht_node node;
	struct rcu_head rcu;
	uint64_t page;
	struct peer_mapping *mapping; /* goes with the entry of its last page */
};

struct lh_space *lh_create(size_t pages)
{
	struct lh_space *space = malloc(sizeof(*space));
	size_t buckets = 1;

	while (buckets < pages)
		buckets *= 2;
	if (space)
		space->table = cds_lfht_new(buckets, buckets, buckets, 0, NULL);
	return space && space->table ? space : NULL;
}

static unsigned long hash(uint64_t page)
{
	page *= 0x9e3779b97f4a7c15;
	return page ^ page >> 32;
}

static int is_page(struct cds_lfht_node *node, const void *page)
{
	return caa_container_of(node, struct entry, node)->page == *(const uint64_t *)page;
}

/* In a read section. */
static struct entry *find(struct lh_space *space, uint64_t page)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	cds_lfht_lookup(space->table, hash(page), is_page, &page, &iter);
	node = cds_lfht_iter_get_node(&iter);
	return node ? caa_container_of(node, struct entry, node) : NULL;
}

static void add(struct lh_space *space, uint64_t page, struct peer_mapping *m)
{
	struct entry *entry = malloc(sizeof(*entry));

	if (!entry)
		abort();
	entry->page = page;
	entry->mapping = m;
	cds_lfht_node_init(&entry->node);
	if (cds_lfht_add_unique(space->table, hash(page), is_page, &page, &entry->node) != &entry->node)
		abort();
}

void lh_map(struct lh_space *space, const struct range *range)
{
	struct peer_mapping *m = malloc(sizeof(*m));

	if (!m)
		abort();
	*m = (struct peer_mapping){ .range = *range };
	rcu_read_lock();
	for (uint64_t at = 0; at < range->size; at += GRANULE)
		add(space, (range->va + at) / GRANULE, m);
	rcu_read_unlock();
}

static void free_entry(struct rcu_head *head)
{
	struct entry *entry = caa_container_of(head, struct entry, rcu);
	const struct range *range = &entry->mapping->range;

	if (entry->page == (range->va + range->size) / GRANULE - 1)
		free(entry->mapping);
	free(entry);
}

/* From the first page to the last, so the mapping is freed behind all entries. */
void lh_unmap(struct lh_space *space, const struct range *range)
{
	rcu_read_lock();
	for (uint64_t at = 0; at < range->size; at += GRANULE) {
		struct entry *entry = find(space, (range->va + at) / GRANULE);

		if (!entry || cds_lfht_del(space->table, &entry->node) != 0)
			abort();
		call_rcu(&entry->rcu, free_entry);
	}
	rcu_read_unlock();
}

bool lh_lookup(struct lh_space *space, uint64_t va, uint64_t *ret_offset)
{
	struct entry *entry;

	rcu_read_lock();
	entry = find(space, va / GRANULE);
	if (entry)
		*ret_offset = entry->mapping->range.offset;
	rcu_read_unlock();
	return entry != NULL;
}

void lh_drain(struct lh_space *space)
{
	(void)space;
	rcu_barrier();
}
