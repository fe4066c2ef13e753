/* SPDX-License-Identifier: MIT */
/* The VA tree: looking and editing. Overview in va_tree.h. */
#include "gpuvm/va_tree.h"

#include "base/alloc.h"
#include "base/check.h"

/* --- Bits ----------------------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__) && !defined(__POPCNT__)
/* The compiler may not assume the instruction, which nearly all processors have; its builtin is a call. */
static bool has_popcnt;

__attribute__((constructor)) static void look_for_popcnt(void)
{
	__builtin_cpu_init();
	has_popcnt = __builtin_cpu_supports("popcnt");
}
#endif

static inline unsigned count_bits(uint64_t x)
{
#if defined(__x86_64__) && !defined(__POPCNT__)
	if (likely(has_popcnt)) {
		__asm__("popcnt %1, %0" : "=r"(x) : "r"(x) : "cc");
		return (unsigned)x;
	}
#endif
	return (unsigned)__builtin_popcountll(x);
}

/* Bits 0 to @slot. */
static inline uint64_t up_to(unsigned slot)
{
	return UINT64_MAX >> (63 - slot);
}

static inline unsigned node_runs(const struct va_node *n)
{
	return count_bits(n->starts);
}

/* Which run a slot is in. */
static inline unsigned run_of(const struct va_node *n, unsigned slot)
{
	return count_bits(n->starts & up_to(slot)) - 1;
}

/* The last page, relative to its first, of a subtree whose node is of @level. */
static inline uint64_t last_page(unsigned level)
{
	return level >= TOP_LEVEL ? UINT64_MAX : (UINT64_C(1) << (SLOT_BITS * (level + 1))) - 1;
}

/* --- Looking --------------------------------------------------------------------------------------------------------------- */

struct lf_mapping *va_tree_lookup(const struct va_node *root, uint64_t page)
{
	unsigned shift = SLOT_BITS * root_level(root);
	const struct va_node *node = root;
	uintptr_t word;

	if (unlikely(page > last_page(root_level(root))))
		return NULL;
	for (;; shift -= SLOT_BITS) {
		/* Of those that begin up to the slot, the last run. */
		word = node->runs[count_bits(node->starts << (63 - ((page >> shift) & (SLOTS - 1)))) - 1];
		if (!word_is_child(word))
			return (struct lf_mapping *)word;
		node = word_node(word);
		/* The run that comes next, most likely, while its starts are under way: full nodes above, a few runs at the bottom. */
		__builtin_prefetch(node->runs + (shift > SLOT_BITS ? (page >> (shift - SLOT_BITS)) & (SLOTS - 1) : 4));
	}
}

struct lf_mapping *va_tree_extent(const struct va_node *root, uint64_t page, uint64_t *ret_first, uint64_t *ret_last)
{
	unsigned level = root_level(root), shift = SLOT_BITS * level, slot;
	const struct va_node *node = root;
	uint64_t base, above;
	uintptr_t word;

	if (page > last_page(level)) {
		*ret_first = last_page(level) + 1;
		*ret_last = UINT64_MAX;
		return NULL;
	}
	for (;; level--, shift -= SLOT_BITS) {
		slot = (unsigned)(page >> shift) & (SLOTS - 1);
		word = node->runs[run_of(node, slot)];
		if (!word_is_child(word))
			break;
		node = word_node(word);
	}
	base = page & ~last_page(level);
	above = node->starts & ~up_to(slot);
	*ret_first = base + ((uint64_t)(63 - __builtin_clzll(node->starts & up_to(slot))) << shift);
	/* At the top level only 16 slots have pages: what ends with the last of them overflows to 0, and ends with the last page. */
	*ret_last = base + (above ? ((uint64_t)__builtin_ctzll(above) << shift) - 1 : last_page(level));
	return (struct lf_mapping *)word;
}

struct lf_mapping *va_tree_first(const struct va_node *root, uint64_t page, uint64_t end)
{
	uint64_t first, last;
	struct lf_mapping *m;

	for (;; page = last + 1) {
		m = va_tree_extent(root, page, &first, &last);
		if (m || last >= end)
			return m;
	}
}

/* --- Nodes ----------------------------------------------------------------------------------------------------------------- */

static struct va_node *node_create(struct lf_va_edit *e, unsigned capacity)
{
	struct va_node *n = mem_alloc(node_bytes(capacity)), *first = e->owned;

	if (!n)
		return NULL;
	n->tag = e->birth << TAG_BIRTH_SHIFT | capacity;
	n->link = first;
	n->back = NULL;
	if (first)
		first->back = n;
	e->owned = n;
	e->nodes++;
	e->bytes += (int64_t)node_bytes(capacity);
	return n;
}

/* One for what another one will be changed to, at the same height. */
static struct va_node *node_create_like(struct lf_va_edit *e, const struct va_node *n, unsigned capacity)
{
	struct va_node *copy = node_create(e, capacity);

	if (copy)
		copy->tag |= n->tag & ((uint64_t)TAG_LEVEL_MASK << TAG_LEVEL_SHIFT);
	return copy;
}

static unsigned node_capacity(const struct va_node *n)
{
	return (unsigned)(n->tag & TAG_CAPACITY);
}

static bool is_owned(const struct lf_va_edit *e, const struct va_node *n)
{
	return node_birth(n) == e->birth;
}

static void unlink_owned(struct lf_va_edit *e, struct va_node *n)
{
	struct va_node *back = n->back;

	if (n->link)
		n->link->back = back;
	if (back)
		back->link = n->link;
	else
		e->owned = n->link;
}

/* The edit's tree does not have the node any more. */
static void node_drop(struct lf_va_edit *e, struct va_node *n)
{
	e->nodes--;
	e->bytes -= (int64_t)node_bytes(node_capacity(n));
	if (is_owned(e, n)) {
		unlink_owned(e, n);
		mem_free(n);
	} else {
		n->link = e->replaced;
		e->replaced = n;
	}
}

/* Drops all nodes of a subtree. Recursion is as deep as the tree is high. */
static void drop_subtree(struct lf_va_edit *e, uintptr_t word)
{
	struct va_node *n;

	if (!word_is_child(word))
		return;
	n = word_node(word);
	for (unsigned i = 0, runs = node_runs(n); i < runs; i++)
		drop_subtree(e, n->runs[i]);
	node_drop(e, n);
}

/* --- Changing a node --------------------------------------------------------------------------------------------------------- */

/* What becomes of a node's runs when some slots are set: a prefix, the new word, what is right of it, a suffix. */
struct change {
	uint64_t starts; /* afterwards */
	unsigned prefix; /* runs that stay as they are, at the beginning */
	unsigned suffix; /* and at the end */
	unsigned runs; /* afterwards */
	bool own_run; /* the new word begins a run, and is not part of its left neighbour's */
	bool right_run; /* the slot right of it begins a run, and is not part of the new word's */
	uintptr_t right; /* the word of that slot */
};

/* Plans to set slots @a to @b to @word. */
static struct change plan(const struct va_node *n, unsigned a, unsigned b, uintptr_t word)
{
	uint64_t before = a ? n->starts & up_to(a - 1) : 0;
	struct change c = { .prefix = count_bits(before) };

	c.own_run = a == 0 || n->runs[c.prefix - 1] != word;
	c.starts = before | (c.own_run ? UINT64_C(1) << a : 0);
	if (b < SLOTS - 1) {
		unsigned right = run_of(n, b + 1);
		uint64_t behind = n->starts & ~up_to(b + 1);

		c.right = n->runs[right];
		c.right_run = c.right != word;
		c.suffix = node_runs(n) - right - 1;
		c.starts |= behind | (c.right_run ? UINT64_C(1) << (b + 1) : 0);
	}
	c.runs = c.prefix + c.own_run + c.right_run + c.suffix;
	return c;
}

/* Does it; @to may be @from. */
static void carry_out(struct va_node *to, const struct va_node *from, const struct change *c, uintptr_t word)
{
	unsigned at = c->prefix;

	memmove(&to->runs[c->runs - c->suffix], &from->runs[node_runs(from) - c->suffix], c->suffix * sizeof(word));
	if (to != from)
		memcpy(to->runs, from->runs, c->prefix * sizeof(word));
	if (c->own_run)
		to->runs[at++] = word;
	if (c->right_run)
		to->runs[at] = c->right;
	to->starts = c->starts;
}

/* How much room a copy gets: what it needs, and when the edit has come here before, more for the next time. */
static unsigned room_for(bool again, unsigned runs)
{
	if (!again)
		return runs;
	return 2 * runs < SLOTS ? 2 * runs : SLOTS;
}

/* Sets slots @a to @b of a node to a word; the node may be replaced by a copy. Returns false without memory, and nothing has changed. */
static bool node_set(struct lf_va_edit *e, struct va_node **node, unsigned a, unsigned b, uintptr_t word)
{
	struct va_node *n = *node, *copy;
	struct change c = plan(n, a, b, word);
	bool owned = is_owned(e, n);

	if (owned && c.runs <= node_capacity(n)) {
		carry_out(n, n, &c, word);
		return true;
	}
	copy = node_create_like(e, n, room_for(owned, c.runs));
	if (!copy)
		return false;
	carry_out(copy, n, &c, word);
	node_drop(e, n);
	*node = copy;
	return true;
}

/* --- Editing ----------------------------------------------------------------------------------------------------------------- */

/* A range of pages, relative to the subtree at hand. */
struct range {
	uint64_t first, last;
};

static bool set_in_node(struct lf_va_edit *e, struct va_node **node, unsigned level, struct range r, uintptr_t value);

/* A subtree all of whose pages show one word, as a node. */
static struct va_node *expand(struct lf_va_edit *e, uintptr_t word)
{
	struct va_node *n = node_create(e, EMPTY_RUNS);

	if (n) {
		n->starts = 1;
		n->runs[0] = word;
	}
	return n;
}

/* Sets some pages of a subtree, but not all, whose node is, or would be, of @level. */
static bool set_in_subtree(struct lf_va_edit *e, uintptr_t *word, unsigned level, struct range r, uintptr_t value)
{
	struct va_node *n;

	if (*word == value)
		return true;
	n = word_is_child(*word) ? word_node(*word) : expand(e, *word);
	if (!n || !set_in_node(e, &n, level, r, value))
		return false;
	if (n->starts == 1 && !word_is_child(n->runs[0])) {
		*word = n->runs[0]; /* T3 */
		node_drop(e, n);
	} else {
		*word = (uintptr_t)n | WORD_CHILD;
	}
	return true;
}

/* Gives a run that is a child another one: neither is equal to a neighbour (T1, T2). */
static bool set_child(struct lf_va_edit *e, struct va_node **node, unsigned run, uintptr_t child)
{
	struct va_node *n = *node, *copy;
	unsigned runs;

	if (!is_owned(e, n)) {
		runs = node_runs(n);
		copy = node_create_like(e, n, runs);
		if (!copy)
			return false;
		copy->starts = n->starts;
		memcpy(copy->runs, n->runs, runs * sizeof(child));
		node_drop(e, n);
		*node = n = copy;
	}
	n->runs[run] = child;
	return true;
}

/* Sets pages below one slot of a node. */
static bool set_in_slot(struct lf_va_edit *e, struct va_node **node, unsigned level, unsigned slot, struct range r, uintptr_t value)
{
	unsigned run = run_of(*node, slot);
	uintptr_t word = (*node)->runs[run], was = word;

	if (!set_in_subtree(e, &word, level - 1, r, value))
		return false;
	if (word == was)
		return true;
	if (word_is_child(word) && word_is_child(was))
		return set_child(e, node, run, word);
	return node_set(e, node, slot, slot, word);
}

/* Sets whole slots. */
static bool set_slots(struct lf_va_edit *e, struct va_node **node, unsigned a, unsigned b, uintptr_t value)
{
	for (unsigned i = run_of(*node, a), end = run_of(*node, b); i <= end; i++)
		drop_subtree(e, (*node)->runs[i]);
	return node_set(e, node, a, b, value);
}

static bool set_in_node(struct lf_va_edit *e, struct va_node **node, unsigned level, struct range r, uintptr_t value)
{
	unsigned shift = SLOT_BITS * level, a = (unsigned)(r.first >> shift), b = (unsigned)(r.last >> shift);
	uint64_t low = level ? last_page(level - 1) : 0, first = r.first & low, last = r.last & low;

	if (a == b && (first != 0 || last != low))
		return set_in_slot(e, node, level, a, (struct range){ first, last }, value);
	if (first != 0 && !set_in_slot(e, node, level, a++, (struct range){ first, low }, value))
		return false;
	if (last != low && !set_in_slot(e, node, level, b--, (struct range){ 0, last }, value))
		return false;
	return a > b || set_slots(e, node, a, b, value);
}

static void set_level(struct va_node *root, unsigned level)
{
	root->tag = (root->tag & ~((uint64_t)TAG_LEVEL_MASK << TAG_LEVEL_SHIFT)) | (uint64_t)level << TAG_LEVEL_SHIFT;
}

/* One level more: the root becomes the child of another, or, when it is one run, a word in it. */
static bool grow(struct lf_va_edit *e)
{
	struct va_node *root = e->root, *taller = expand(e, 0);
	uintptr_t word = (uintptr_t)root | WORD_CHILD;
	unsigned level = root_level(root) + 1;

	if (!taller)
		return false;
	set_level(taller, level);
	e->root = taller;
	if (root->starts == 1 && !word_is_child(root->runs[0])) {
		word = root->runs[0]; /* T3 */
		node_drop(e, root);
	}
	if (word) {
		taller->starts = 3;
		taller->runs[0] = word;
		taller->runs[1] = 0;
	}
	return true;
}

/* Whether a run of an owned node can become another word just so: it is all of slots @a to @b, and its neighbours are other words (T1). */
static bool is_whole_run(const struct va_node *n, unsigned run, unsigned a, unsigned b, uintptr_t word)
{
	if (!(n->starts >> a & 1) || (n->starts & up_to(b) & ~up_to(a)) || (b < SLOTS - 1 && !(n->starts >> (b + 1) & 1)))
		return false;
	return (run == 0 || n->runs[run - 1] != word) && (b == SLOTS - 1 || n->runs[run + 1] != word);
}

/*
 * What is asked for most often once an edit has its copies: pages that show one mapping, and whose run is within an owned node of the
 * lowest level, shall show another. Returns whether that was it, and is done.
 */
static bool replace_in_place(const struct lf_va_edit *e, uint64_t first, uint64_t last, struct lf_mapping *m)
{
	unsigned shift = SLOT_BITS * root_level(e->root), a = (unsigned)first & (SLOTS - 1), run;
	struct va_node *n = e->root;

	if (!m || !is_owned(e, n) || first >> SLOT_BITS != last >> SLOT_BITS || last > last_page(root_level(n)))
		return false;
	for (; shift > 0 && is_owned(e, n); shift -= SLOT_BITS) {
		uintptr_t word = n->runs[run_of(n, (unsigned)(first >> shift) & (SLOTS - 1))];

		if (!word_is_child(word))
			return false;
		n = word_node(word);
	}
	if (shift > 0 || !is_owned(e, n))
		return false;
	run = run_of(n, a);
	if (!is_whole_run(n, run, a, (unsigned)last & (SLOTS - 1), (uintptr_t)m))
		return false;
	n->runs[run] = (uintptr_t)m;
	return true;
}

bool va_edit_set(struct lf_va_edit *edit, uint64_t first, uint64_t last, struct lf_mapping *m)
{
	struct va_node *root;
	unsigned level;
	bool done;

	if (replace_in_place(edit, first, last, m))
		return true;

	while (m && last > last_page(root_level(edit->root))) {
		if (!grow(edit))
			return false;
	}
	root = edit->root;
	level = root_level(root);
	if (last > last_page(level)) {
		/* Nothing is there, and nothing shall be. */
		last = last_page(level);
		if (first > last)
			return true;
	}
	done = set_in_node(edit, &root, level, (struct range){ first, last }, (uintptr_t)m);
	edit->root = root;
	return done;
}

/* --- Life -------------------------------------------------------------------------------------------------------------------- */

struct va_node *va_tree_create(void)
{
	struct lf_va_edit e = { 0 };

	return expand(&e, 0);
}

void va_tree_destroy(struct va_node *root)
{
	/* An edit that owns nothing, and drops all. */
	struct lf_va_edit e = { .root = root, .birth = UINT64_MAX };
	struct va_node *next;

	if (!root)
		return;
	va_edit_replace_all(&e);
	for (struct va_node *n = e.replaced; n; n = next) {
		next = n->link;
		mem_free(n);
	}
}

void va_edit_begin(struct lf_va_edit *edit, struct va_node *root, uint64_t birth)
{
	*edit = (struct lf_va_edit){ .root = root, .birth = birth };
}

void va_edit_abort(struct lf_va_edit *edit)
{
	struct va_node *next;

	for (struct va_node *n = edit->owned; n; n = next) {
		next = n->link;
		mem_free(n);
	}
	edit->owned = edit->replaced = edit->root = NULL;
}

void va_edit_replace_all(struct lf_va_edit *edit)
{
	drop_subtree(edit, (uintptr_t)edit->root | WORD_CHILD);
}

/* --- Checking ---------------------------------------------------------------------------------------------------------------- */

static void check_node(const struct va_node *n, unsigned level, bool is_root)
{
	unsigned runs = node_runs(n);
	uint64_t rest = n->starts;

	invariant_always((n->starts & 1) && runs <= node_capacity(n)); /* T1 */
	invariant_always(is_root || runs > 1 || word_is_child(n->runs[0])); /* T3 */
	for (unsigned i = 0; i < runs; i++) {
		unsigned slot = (unsigned)__builtin_ctzll(rest), end;

		rest &= rest - 1;
		end = rest ? (unsigned)__builtin_ctzll(rest) : SLOTS;
		invariant_always(i == 0 || n->runs[i] != n->runs[i - 1]); /* T1 */
		if (!word_is_child(n->runs[i]))
			continue;
		invariant_always(level > 0 && end == slot + 1); /* T2 */
		check_node(word_node(n->runs[i]), level - 1, false);
	}
}

void va_tree_check(uintptr_t root)
{
	const struct va_node *n = (const struct va_node *)root;

	invariant_always(root_level(n) <= TOP_LEVEL);
	check_node(n, root_level(n), true);
}
