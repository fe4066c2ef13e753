/* SPDX-License-Identifier: MIT */
/**
 * @file
 * Page table entries: what the driver keeps for a mapping.
 *
 * A buffer moves at once as far as the CPU is concerned, but jobs that were pushed before must find the old place, and jobs that are pushed
 * after it the new one. So an entry is written when its turn comes on the GPU, not when that is asked for:
 *
 *     by the apply hook of the bind    the place that the buffer had when the bind was asked for
 *     by the copy job of a move        the place that it copied to, into all entries of the buffer that had been asked for by the move
 *
 * The copy waits for every job and every bind that came before it and is about the buffer; what comes after it waits for the copy. So
 * between two writes of an entry nobody reads it who means something else, and the older write cannot come after the newer.
 */
#ifndef MINIGPU_ENTRY_H
#define MINIGPU_ENTRY_H

#include <stdatomic.h>

#include <libfence/vm.h>

#include "device.h"

/** What engines find. Behind a pointer, since the library copies entries when it splits mappings, whoever writes this meanwhile. */
struct cell {
	_Atomic(struct place *) place; /**< NULL: nothing yet */
};

/** The driver's part of a mapping. */
struct entry {
	struct cell *cell; /**< its own; immutable when the transaction has ended */
	struct place *asked; /**< for the apply hook; the same */
	struct lf_mapping mapping;
};

static inline struct entry *entry_of(struct lf_mapping *m)
{
	return (struct entry *)((char *)m - offsetof(struct entry, mapping));
}

/* Relaxed is enough: fences order the writers and the readers (see above). */
static inline void entry_write(struct lf_mapping *m, struct place *place)
{
	atomic_store_explicit(&entry_of(m)->cell->place, place, memory_order_relaxed);
}

static inline struct place *entry_read(struct lf_mapping *m)
{
	return atomic_load_explicit(&entry_of(m)->cell->place, memory_order_relaxed);
}

#endif /* MINIGPU_ENTRY_H */
