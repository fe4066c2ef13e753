/* SPDX-License-Identifier: MIT */
/*
 * A naive model of an address space: an array of pages, each of which names the mapping that it is part of.
 *
 * A page is whatever lies between two neighbouring bounds, and need not be as large as the next one: all ranges begin and end at bounds, so
 * that an array of a few hundred pages covers any part of 64 bits, at any level of the library's tree.
 *
 * A mapping is named by the *record* of what it was when it was made. Records of a program are never used again, so that a record's number
 * is the identity which the library keeps by address.
 */
#ifndef VM_MODEL_H
#define VM_MODEL_H

#include "testing.h"

enum { MODEL_PAGES = 4096, MODEL_RECORDS = 60000, MODEL_PAIRS = 8192, MODEL_PREFETCHES = 16 };

/* What a mapping was when it was made. Record 0 is no mapping. */
struct record {
	struct lf_mapping *m;
	uint64_t offset;
	uint32_t flags;
	uint32_t tag; /* what the driver wrote beside it, which pieces inherit */
	uint16_t first, last; /* pages */
	uint16_t pair; /* 0: without a buffer */
	uint16_t of; /* what it is a piece of; 0: mapped by a request */
};

/* A VM_BO. Pair 0 is none, and is never closed. */
struct pair {
	struct lf_vm_bo *vm_bo;
	unsigned bo;
	bool closed;
};

struct pages {
	unsigned first, last;
};

/* A version: the record of each page. What is left of closed buffers is in the tree, but not seen. */
struct version {
	uint16_t tree[MODEL_PAGES];
	uint16_t seen[MODEL_PAGES];
	struct pages prefetch[MODEL_PREFETCHES]; /* that the transaction which made it asked for */
	unsigned prefetches;
};

struct model {
	unsigned pages;
	uint64_t bound[MODEL_PAGES + 1]; /* page i is from bound[i] to before bound[i + 1]; the last one may be 2^64, which is 0 */
	struct record record[MODEL_RECORDS];
	unsigned records;
	struct pair pair[MODEL_PAIRS];
	unsigned pairs;
};

/* What a driver keeps with a mapping. */
struct around {
	uint64_t magic;
	struct lf_mapping *self;
	uint32_t record, tag;
	struct lf_mapping m;
	uint64_t behind; /* ~tag */
};

extern const uint64_t around_magic;

struct around *to_around(const struct lf_mapping *m);

void version_clear(struct version *v);
void version_copy(const struct model *model, struct version *dst, const struct version *src);

/* --- Ranges ---------------------------------------------------------------------------------------------------------------- */

uint64_t model_va(const struct model *model, unsigned first);
/* 0 when it is all 2^64 bytes. */
uint64_t model_size(const struct model *model, unsigned first, unsigned last);
/* The page that an address lies in, which must be one. */
unsigned model_page(const struct model *model, uint64_t va);
/* How many mappings there are, what is not seen included. */
unsigned model_count(const struct model *model, const struct version *v);

/* --- Changing a version ---------------------------------------------------------------------------------------------------- */

/* A new record; its mapping and what the driver keeps with it are the caller's to fill in. */
uint16_t model_record(struct model *model, const struct record *like, unsigned first, unsigned last);
/*
 * The range shows record @r, which may be 0. Pieces that are left at its ends were recorded from record @mark on; what is of a closed pair
 * goes whole.
 */
void model_fill(struct model *model, struct version *v, unsigned first, unsigned last, uint16_t r, unsigned mark);
/* Mappings that reach over the ends of the range are split; pieces like in model_fill(). */
void model_split(struct model *model, struct version *v, unsigned first, unsigned last, unsigned mark);
/* A pair was closed: what is of it is seen no more. */
void model_hide(const struct model *model, struct version *v);
/* What is of closed pairs goes, if it was in the version @asked, and not only in the transaction's. */
void model_reap(const struct model *model, const struct version *asked, struct version *v);

/* --- Checking what the library says ---------------------------------------------------------------------------------------- */

/* That a mapping is the one that was recorded, and still as it was. */
void check_mapping(const struct model *model, uint16_t r, const struct lf_mapping *m);
/* Lookups, next, previous and neighbours at a page. -1 and @pages of the model are the addresses in front and behind. */
void check_page(const struct model *model, const struct lf_view *view, const struct version *v, int page);
/* A walk over a range. */
void check_range(const struct model *model, const struct lf_view *view, const struct version *v, unsigned first, unsigned last);

/*
 * Page tables that operations are applied to. Two for each page: the mapping that a driver would know there, which must be the new version's
 * in the end, so that each mapping that goes or comes is told once and none else; and the memory that is really there, with all hints to keep
 * something believed.
 */
struct tables {
	const struct model *model;
	const struct version *before, *after;
	uint16_t owner[MODEL_PAGES];
	uint16_t memory[MODEL_PAGES]; /* a record that shows it */
	bool kept_at[MODEL_PAGES]; /* what went there was told to be kept */
	uint8_t wanted[MODEL_PAGES]; /* prefetches */
	enum lf_vm_op_kind phase; /* UNMAP: what goes; MAP; PREFETCH */
	uint64_t at; /* what comes next in this phase does not begin before it */
	unsigned ops[LF_VM_OP_PREFETCH + 1], kept; /* of each kind; of those, with the hint */
};

void tables_begin(struct tables *t, const struct model *model, const struct version *before, const struct version *after);
void tables_apply(struct tables *t, const struct lf_vm_op *op);
void tables_end(struct tables *t);

#endif /* VM_MODEL_H */
