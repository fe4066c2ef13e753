/* SPDX-License-Identifier: MIT */
/*
 * What libfence's address space is compared with. Linked like the fences' peers.
 *
 * All but the static B-tree map ranges of addresses to objects of a few words, which they allocate as libfence allocates its mappings; a
 * lookup reads the offset out of what it finds, while that cannot go away.
 */
#ifndef BENCH_GPUVM_PEERS_H
#define BENCH_GPUVM_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PEER_API __attribute__((visibility("default")))

#define GRANULE 4096

/* Addresses, and what is mapped there. */
struct range {
	uint64_t va, size, offset;
	uint32_t flags;
};

struct peer_mapping {
	struct range range;
	void *bo;
};

/* --- std::map under a std::shared_mutex (peer_map.cpp) ------------------------------------------------------------------- */

struct sm_space;
PEER_API struct sm_space *sm_create(void);
/* Whatever was there: as a driver needs it, what overlaps is cut or goes. Under the mutex. */
PEER_API void sm_map(struct sm_space *space, const struct range *range);
/* The same for several, under the mutex once. */
PEER_API void sm_map_all(struct sm_space *space, const struct range *ranges, size_t count);
PEER_API void sm_unmap(struct sm_space *space, const struct range *range);
PEER_API bool sm_lookup(struct sm_space *space, uint64_t va, uint64_t *ret_offset);

/* --- liburcu's rculfhash, an entry for each page (peer_lfht.c) ----------------------------------------------------------- */

struct lh_space;
/* The number of buckets stays what it was made for. */
PEER_API struct lh_space *lh_create(size_t pages);
/* Where nothing was. */
PEER_API void lh_map(struct lh_space *space, const struct range *range);
/* Exactly what was mapped. */
PEER_API void lh_unmap(struct lh_space *space, const struct range *range);
PEER_API bool lh_lookup(struct lh_space *space, uint64_t va, uint64_t *ret_offset);
/* Waits until what was unmapped is freed. */
PEER_API void lh_drain(struct lh_space *space);

/* --- For orientation, without any synchronization (peer_limit.c) --------------------------------------------------------- */

/* A page table as hardware has it: three levels of 512, a pointer a page. */
struct pt_space;
PEER_API struct pt_space *pt_create(void);
/* Where nothing was. */
PEER_API void pt_map(struct pt_space *space, const struct range *range);
/* Exactly what was mapped. */
PEER_API void pt_unmap(struct pt_space *space, const struct range *range);
PEER_API bool pt_lookup(struct pt_space *space, uint64_t va, uint64_t *ret_offset);

/* A B-tree in one array, with 16 keys a node, that cannot be changed. The ranges are in the order of addresses. */
struct bt_space;
PEER_API struct bt_space *bt_create(const struct range *ranges, size_t count);
PEER_API bool bt_lookup(struct bt_space *space, uint64_t va, uint64_t *ret_offset);

#ifdef __cplusplus
}
#endif

#endif
