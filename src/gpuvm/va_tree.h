/* SPDX-License-Identifier: MIT */
/*
 * The VA tree: which mapping is at which page, in versions that share what they have in common.
 *
 * Purpose: a page table whose nodes store runs. A node has 64 slots; slot i of a node of level l stands for 64^l pages. What neighbouring
 * slots have in common is stored once: `starts` has a bit for each slot where a run of equal slots begins, and `runs` a word for each
 * run. So finding a slot's word is a popcount and a load, nothing is searched, and a node takes the memory of its runs. (Runs under a bit
 * map: as in poptries, Asai and Ohara, "Poptrie: A Compressed Trie with Population Count for Fast and Scalable Software IP Routing Table
 * Lookup", 2015. Versions by copying paths: Driscoll, Sarnak, Sleator and Tarjan, "Making Data Structures Persistent", 1989.)
 *
 * The tree is persistent: what was published never changes. An *edit* copies the nodes on the way to what it changes, once, and changes
 * its copies in place from then on; nobody else sees them until its root is published (version.c).
 *
 * Words: 0 is a hole; a mapping is its address; a child is its address with WORD_CHILD.
 *
 * Invariants (va_tree_check()):
 * T1. Bit 0 of starts is set; there are as many runs as bits; no two neighbouring runs are equal words.
 * T2. A child of a node of level l > 0 is a node of level l - 1; a node of level 0 has no children. Of a run that is a child, one
 *     slot.
 * T3. A node but the root is not one run that is no child: that would stand in its parent. So what is mapped determines the shape, but
 *     for the root's height.
 * T4. A mapping's runs are exactly its pages (checked by vm_check(), which knows pages).
 * T5. The birth of an owned node is the edit's, and that of no published one. Owned nodes are in the edit's list, and in no tree but its.
 * T6. Each published node that an edit's tree does not have is in its list of replaced ones, once.
 *
 * So an abort frees the owned nodes and forgets the list of replaced ones; a commit forgets the list of owned ones and buries the
 * replaced.
 *
 * Locking: an edit is its transaction's. Readers take nothing.
 *
 * Ordering: nodes are written before the root is published (va-root, version.c), and never after. But for `link`, which readers do not
 * look at.
 *
 * Not here: when nodes are freed (version.c), what mappings are (mapping.c).
 */
#ifndef LF_GPUVM_VA_TREE_H
#define LF_GPUVM_VA_TREE_H

#include <libfence/vm_txn.h>

#include "base/port.h"

enum { SLOT_BITS = 6, SLOTS = 64, TOP_LEVEL = 10 };

#define WORD_CHILD ((uintptr_t)2)

/* A node's tag: birth | level (of a root) | clean (of a root) | capacity */
#define TAG_CAPACITY UINT64_C(0x7f)
#define TAG_CLEAN    UINT64_C(0x80)
enum { TAG_LEVEL_SHIFT = 8, TAG_LEVEL_MASK = 15, TAG_BIRTH_SHIFT = 12 };

struct va_node {
	struct va_node *link; /* owned: the next one; replaced: the next one; then what reclaim_free() needs */
	void *back; /* owned: the one before; then what reclaim_free() needs */
	uint64_t tag; /* immutable once published */
	uint64_t starts; /* beside the runs, as they are read together */
	uintptr_t runs[];
};

static inline uint64_t node_birth(const struct va_node *n)
{
	return n->tag >> TAG_BIRTH_SHIFT;
}

static inline unsigned root_level(const struct va_node *root)
{
	return (unsigned)(root->tag >> TAG_LEVEL_SHIFT) & TAG_LEVEL_MASK;
}

static inline bool word_is_child(uintptr_t word)
{
	return word & WORD_CHILD;
}

static inline struct va_node *word_node(uintptr_t word)
{
	return (struct va_node *)(word - WORD_CHILD);
}

enum { EMPTY_RUNS = 3 }; /* room of a new node: a range in the middle makes three runs of one */

static inline size_t node_bytes(size_t runs)
{
	return sizeof(struct va_node) + runs * sizeof(uintptr_t);
}

/* A root with nothing in it; NULL without memory. */
struct va_node *va_tree_create(void);

/* Frees all nodes of a tree that nobody reads. */
void va_tree_destroy(struct va_node *root);

/* What is at a page: a mapping, or NULL. */
struct lf_mapping *va_tree_lookup(const struct va_node *root, uint64_t page);

/* Like va_tree_lookup(), and says which pages around it have the same for one reason: a run. */
struct lf_mapping *va_tree_extent(const struct va_node *root, uint64_t page, uint64_t *ret_first, uint64_t *ret_last);

/* The first mapping that has one of the pages @page to @end; NULL when none has. */
struct lf_mapping *va_tree_first(const struct va_node *root, uint64_t page, uint64_t end);

/* Begins an edit of a tree. @birth: no published node has it. */
void va_edit_begin(struct lf_va_edit *edit, struct va_node *root, uint64_t birth);

/* Lets pages @first to @last show a mapping, or nothing. Returns false without memory; then all that can be done is an abort. */
bool va_edit_set(struct lf_va_edit *edit, uint64_t first, uint64_t last, struct lf_mapping *m);

/* Frees what the edit made. */
void va_edit_abort(struct lf_va_edit *edit);

/* Puts all nodes of the edit's tree into its list of replaced ones. */
void va_edit_replace_all(struct lf_va_edit *edit);

/* Whether the edit has changed anything. */
static inline bool va_edit_is_changed(const struct lf_va_edit *edit)
{
	return edit->owned;
}

/* Ends the program with a message if T1, T2 or T3 does not hold. In all builds: for tests. */
void va_tree_check(uintptr_t root);

#endif /* LF_GPUVM_VA_TREE_H */
