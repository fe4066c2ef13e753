/* SPDX-License-Identifier: MIT */
/*
 * The inside of a buffer, for the files of src/bo and for the address space above. Overview, states and invariants are in bo.c.
 */
#ifndef LF_BO_BO_H
#define LF_BO_BO_H

#include <libfence/bo.h>

#include "base/port.h"
#include "fence/provider.h"

/*
 * What a buffer shares with the places that it has been in: it lasts until the last of them is released, which may be long after the last
 * put. It is also what the provider knows of the buffer.
 */
struct bo_core {
	struct provider_resource resource; /* registered while there are places, if there is a provider */
	lf_atomic_u32 places; /* the current one, and ghosts (BO3) */
	lf_atomic_u32 holds; /* of this memory: one of the buffer, one while the provider closes */
	lf_atomic_u32 closing; /* the provider is: no further move is prepared */
	char name[]; /* immutable */
};

static inline struct bo_core *bo_core(const struct lf_bo *bo)
{
	return bo->resource;
}

/* --- Lock ------------------------------------------------------------------------------------------------------------- */

/*
 * For a few instructions. Protects
 *   attachments, attached, and the mappings of each attachment: attachment.c;
 *   users: the VM_BOs, of a layer above. Their links and what hangs on them are that layer's.
 */
static inline void bo_lock(struct lf_bo *bo) LF_NO_THREAD_ANALYSIS
{
	if (!PLANTED(173))
		port_spin_lock(port_spin_of(&bo->spin));
}

static inline void bo_unlock(struct lf_bo *bo) LF_NO_THREAD_ANALYSIS
{
	if (!PLANTED(173))
		port_spin_unlock(port_spin_of(&bo->spin));
}

/* --- Rings: a link to itself is empty, and a head alike --------------------------------------------------------------- */

static inline void bo_link_init(struct lf_bo_link *link)
{
	link->prev = link->next = link;
}

/* Puts @link behind the last one. The lock is held. */
static inline void bo_link_append(struct lf_bo_link *head, struct lf_bo_link *link)
{
	link->prev = head->prev;
	link->next = head;
	head->prev->next = link;
	head->prev = link;
}

/* Takes @link out; it is empty afterwards. The lock is held. */
static inline void bo_link_remove(struct lf_bo_link *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	bo_link_init(link);
}

static inline bool bo_link_is_empty(const struct lf_bo_link *link)
{
	return link->next == link;
}

/* --- The word bo->maps: REVOKED | mappings of all attachments --------------------------------------------------------- */

#define BO_REVOKED UINT32_C(0x80000000)

/* Counts a mapping that is about to be made. -ENODEV: the buffer was revoked. */
int bo_count_map(struct lf_bo *bo);

/* A counted mapping is gone. */
void bo_uncount_map(struct lf_bo *bo);

/* --- Between the files ------------------------------------------------------------------------------------------------ */

/* Whether the caller may change where the buffer is: 0, or the error that says why not. */
int bo_check_holder(const struct lf_bo *bo, const char *function);

/* Calls the hooks of the attachments that there are. The caller holds the reservation. (attachment.c) */
void bo_invalidate(struct lf_bo *bo);

/* The last place is released: ends the buffer. Where a release hook may run, and a grace period after the last put. */
void bo_end(struct lf_bo *bo);

#endif /* LF_BO_BO_H */
