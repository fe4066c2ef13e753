/* SPDX-License-Identifier: MIT */
/*
 * minigpu layout: an address space with the buffers of a list.
 *
 * Purpose. Every line of the file becomes a buffer and a mapping, all in one transaction. Then the address space is asked, at the edges of
 * every buffer and every gap, in every way there is, and the answers are held against a scan of the list, line by line. The map is drawn
 * from the address space, not from the list.
 *
 * Not here: the text of the file (layout_parse.c).
 */
#include "layout.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "minigpu.h"
#include "util.h"

#define COLUMNS       64
#define MAX_ROWS      24 /* with something in them */
#define MAX_STRETCHES 24 /* that are listed */
#define MAX_SCANNED   200000000 /* lines, for one address around each buffer */
#define MAX_MESSAGES  10

struct line_bo {
	struct lf_bo bo;
	const struct layout_line *line;
};

struct explorer {
	const struct layout *layout;
	struct lf_vm *vm;
	struct lf_held *held; /* what is mapped */
	struct lf_view view; /* of that */
	size_t checked;
	size_t wrong;
};

static uint64_t last_of(const struct layout_line *line)
{
	return line->iova + (line->size - 1);
}

/* --- The address space -------------------------------------------------------------------------------------------------- */

static void map_line(struct lf_txn *txn, const struct layout_line *line)
{
	struct lf_bo_desc desc = { .offset = offsetof(struct line_bo, bo), .size = line->size, .resv = lf_vm_resv(txn->vm) };
	struct lf_map_desc map = { .va = line->iova, .size = line->size };
	struct line_bo *b = lf_alloc(sizeof(*b));

	must(b ? lf_bo_init(&b->bo, &desc) : -ENOMEM, "cannot make a buffer");
	b->line = line;
	must(lf_vm_bo_obtain(txn->vm, &b->bo, &map.vm_bo), "cannot make a buffer part of the address space");
	must(lf_txn_map(txn, &map, NULL), "cannot map a buffer");
	lf_vm_bo_put(map.vm_bo);
	lf_bo_put(&b->bo); /* the mapping has it */
}

static void map_all(struct explorer *e)
{
	struct lf_txn txn;

	must(lf_resv_lock(lf_vm_resv(e->vm), NULL), "cannot lock the address space");
	must(lf_txn_begin(&txn, e->vm), "cannot change the address space");
	for (size_t i = 0; i < e->layout->count; i++)
		map_line(&txn, &e->layout->lines[i]);
	lf_txn_commit(&txn);
	lf_resv_unlock(lf_vm_resv(e->vm));
}

static void explorer_init(struct explorer *e, const struct layout *l)
{
	struct lf_vm_desc desc = { .name = "layout", .granule = LAYOUT_GRANULE };

	*e = (struct explorer){ .layout = l };
	must(lf_vm_create(&desc, &e->vm), "cannot make an address space");
	map_all(e);
	must(lf_vm_hold(e->vm, &e->held), "cannot hold a version");
	lf_held_view(e->held, &e->view);
}

static void explorer_fini(struct explorer *e)
{
	lf_held_put(e->held);
	must(lf_resv_lock(lf_vm_resv(e->vm), NULL), "cannot lock the address space");
	lf_vm_close(e->vm);
	lf_resv_unlock(lf_vm_resv(e->vm));
	lf_vm_put(e->vm);
}

/* --- Checking ----------------------------------------------------------------------------------------------------------- */

static const struct layout_line *line_of(const struct lf_mapping *m)
{
	if (!m)
		return NULL;
	return ((struct line_bo *)((char *)m->vm_bo->bo - offsetof(struct line_bo, bo)))->line;
}

static const char *place_text(const struct layout_line *line, struct text *text)
{
	if (!line)
		return "nothing";
	snprintf(text->chars, sizeof(text->chars), "line %zu", line->line);
	return text->chars;
}

static void compare(struct explorer *e, const char *question, uint64_t va, const struct lf_mapping *m, const struct layout_line *expected)
{
	const struct layout_line *found = line_of(m);
	struct text a;
	struct text b;

	e->checked++;
	if (found == expected && (!m || (m->va == expected->iova && m->size == expected->size)))
		return;
	if (e->wrong++ < MAX_MESSAGES)
		complain("%s: %s 0x%" PRIx64 ": found %s, expected %s", e->layout->path, question, va, place_text(found, &a),
			place_text(expected, &b));
}

/* What a scan of the whole list says about an address. */
struct scan {
	const struct layout_line *at;
	const struct layout_line *next; /* that ends at or behind it */
	const struct layout_line *prev; /* that begins at or before it */
};

static struct scan scan_list(const struct layout *l, uint64_t va)
{
	struct scan s = { NULL, NULL, NULL };

	for (size_t i = 0; i < l->count; i++) {
		const struct layout_line *line = &l->lines[i];

		if (line->iova <= va && last_of(line) >= va)
			s.at = line;
		if (last_of(line) >= va && (!s.next || line->iova < s.next->iova))
			s.next = line;
		if (line->iova <= va && (!s.prev || line->iova > s.prev->iova))
			s.prev = line;
	}
	return s;
}

static void check_address(struct explorer *e, uint64_t va)
{
	struct scan expected = scan_list(e->layout, va);
	struct lf_mapping *m = lf_vm_lookup_get(e->vm, va);

	compare(e, "a lookup at", va, m, expected.at);
	lf_mapping_put(m);
	compare(e, "a lookup in a held version at", va, lf_view_lookup(&e->view, va), expected.at);
	compare(e, "what comes at or behind", va, lf_view_next(&e->view, va), expected.next);
	compare(e, "what comes at or before", va, lf_view_prev(&e->view, va), expected.prev);
}

/* Edges and middle of a buffer, and of the gap behind it up to @next, the first address of the next or 0. */
static void check_around(struct explorer *e, const struct layout_line *line, uint64_t next)
{
	uint64_t behind = last_of(line) + 1;

	check_address(e, line->iova);
	check_address(e, line->iova + line->size / 2);
	check_address(e, last_of(line));
	if (line->iova)
		check_address(e, line->iova - 1);
	if (behind != next) {
		check_address(e, behind);
		check_address(e, behind + (next - behind) / 2);
		check_address(e, next - 1);
	}
}

/* Every how manyth buffer is looked around, since a scan takes as long as there are lines. */
static size_t check_step(const struct layout *l)
{
	return 1 + l->count * l->count / MAX_SCANNED;
}

static void check_addresses(struct explorer *e)
{
	const struct layout *l = e->layout;
	size_t step = check_step(l);

	check_address(e, 0);
	check_address(e, UINT64_MAX);
	for (size_t i = 0; i < l->count; i += step)
		check_around(e, &l->lines[i], i + 1 < l->count ? l->lines[i + 1].iova : 0);
}

static void check_walk(struct explorer *e)
{
	const struct layout *l = e->layout;
	struct lf_mapping *m;
	struct lf_walk walk;

	lf_walk_begin(&walk, &e->view, 0, 0);
	for (size_t i = 0; i < l->count; i++) {
		m = lf_walk_next(&walk);
		compare(e, "a walk at", l->lines[i].iova, m, &l->lines[i]);
		if (m && i + 1 < l->count)
			compare(e, "the neighbour of", m->va, lf_view_adjacent_next(&e->view, m),
				last_of(&l->lines[i]) + 1 == l->lines[i + 1].iova ? &l->lines[i + 1] : NULL);
	}
	compare(e, "a walk to", UINT64_MAX, lf_walk_next(&walk), NULL);
}

/* --- The map ------------------------------------------------------------------------------------------------------------ */

/* How many rows of 2^@shift bytes have something in them. */
static uint64_t count_rows(const struct layout *l, unsigned shift)
{
	uint64_t rows = 0;
	uint64_t next = 0; /* first row that is not counted */

	for (size_t i = 0; i < l->count; i++) {
		uint64_t first = l->lines[i].iova >> shift;
		uint64_t last = last_of(&l->lines[i]) >> shift;

		first = first > next ? first : next;
		if (last >= first && !(rows && last < next)) {
			rows += last - first + 1;
			next = last + 1;
		}
	}
	return rows;
}

/* @return log2 of the bytes of a row: few enough rows, as fine as possible. */
static unsigned choose_shift(const struct layout *l)
{
	unsigned shift = 18; /* a granule a column */

	while (shift < 63 && count_rows(l, shift) > MAX_ROWS)
		shift++;
	return shift;
}

static char density(uint64_t mapped, uint64_t size)
{
	return !mapped ? '.' : mapped == size ? '#' : mapped >= size / 2 ? '+' : '-';
}

static uint64_t mapped_bytes(const struct explorer *e, uint64_t va, uint64_t size)
{
	uint64_t last = va + (size - 1);
	uint64_t bytes = 0;
	struct lf_mapping *m;
	struct lf_walk walk;

	lf_walk_begin(&walk, &e->view, va, size);
	while ((m = lf_walk_next(&walk))) {
		uint64_t from = m->va > va ? m->va : va;
		uint64_t to = m->va + (m->size - 1) < last ? m->va + (m->size - 1) : last;

		bytes += to - from + 1;
	}
	return bytes;
}

static void print_row(const struct explorer *e, uint64_t va, unsigned shift)
{
	uint64_t cell = (uint64_t)1 << (shift - 6);
	char cells[COLUMNS + 1] = "";

	for (unsigned i = 0; i < COLUMNS; i++)
		cells[i] = density(mapped_bytes(e, va + i * cell, cell), cell);
	printf("0x%012" PRIx64 " %s\n", va, cells);
}

/* Rows without anything become one line. */
static void print_map(const struct explorer *e)
{
	unsigned shift = choose_shift(e->layout);
	struct lf_mapping *m = lf_view_next(&e->view, 0);
	uint64_t row = m->va >> shift;

	printf("%s a column; # mapped, + most of it, - some of it, . nothing\n\n", size_text((uint64_t)1 << (shift - 6)).chars);
	while (m) {
		uint64_t wanted = m->va >> shift;

		if (wanted > row)
			printf("%14s %s without a mapping\n", "", size_text((wanted - row) << shift).chars);
		row = wanted > row ? wanted : row;
		print_row(e, row << shift, shift);
		row++;
		m = row << shift >> shift == row ? lf_view_next(&e->view, row << shift) : NULL;
	}
	putchar('\n');
}

/* --- Summary ------------------------------------------------------------------------------------------------------------ */

struct summary {
	uint64_t bytes;
	uint64_t gap_bytes;
	uint64_t largest_gap;
	size_t gaps;
};

static struct summary sum_up(const struct layout *l)
{
	struct summary s = { 0 };

	for (size_t i = 0; i < l->count; i++) {
		uint64_t gap = i ? l->lines[i].iova - last_of(&l->lines[i - 1]) - 1 : 0;

		s.bytes += l->lines[i].size;
		s.gap_bytes += gap;
		s.gaps += gap > 0;
		s.largest_gap = gap > s.largest_gap ? gap : s.largest_gap;
	}
	return s;
}

/* @return how many lines from @first on follow each other without a gap. */
static size_t stretch_length(const struct layout *l, size_t first)
{
	size_t count = 1;

	while (first + count < l->count && last_of(&l->lines[first + count - 1]) + 1 == l->lines[first + count].iova)
		count++;
	return count;
}

static void print_stretches(const struct layout *l)
{
	for (size_t i = 0; i < l->count;) {
		size_t count = stretch_length(l, i);
		const struct layout_line *line = &l->lines[i];
		uint64_t last = last_of(&line[count - 1]);

		printf("0x%012" PRIx64 " - 0x%012" PRIx64 " %10s ", line->iova, last, size_text(last - line->iova + 1).chars);
		printf("%4zu buffer%s %s%s\n", count, count == 1 ? " " : "s", line->name, count == 1 || !*line->name ? "" : ", ...");
		i += count;
	}
	putchar('\n');
}

static void print_summary(const struct explorer *e)
{
	const struct layout *l = e->layout;
	struct summary s = sum_up(l);
	struct lf_vm_stats stats;

	lf_vm_get_stats(e->vm, &stats);
	printf("%zu buffer%s, %" PRIu64 " bytes (%s), from 0x%" PRIx64 " to 0x%" PRIx64 "\n", l->count, plural(l->count), s.bytes,
		size_text(s.bytes).chars, l->lines[0].iova, last_of(&l->lines[l->count - 1]));
	printf("%zu gap%s, %" PRIu64 " bytes (%s), the largest %s\n", s.gaps, plural(s.gaps), s.gap_bytes, size_text(s.gap_bytes).chars,
		size_text(s.largest_gap).chars);
	printf("%" PRIu64 " mapping%s in %" PRIu64 " node%s of %" PRIu64 " bytes\n", stats.mappings, plural(stats.mappings), stats.nodes,
		plural(stats.nodes), stats.bytes);
	if (check_step(l) > 1)
		printf("too many to look around each: around one in %zu\n", check_step(l));
	printf("%zu answers checked against the list, %zu wrong\n", e->checked, e->wrong);
}

int layout_command(const char *path)
{
	struct layout layout = { 0 };
	struct explorer e = { 0 };
	bool clean = layout_read(&layout, path);

	if (clean) {
		explorer_init(&e, &layout);
		check_addresses(&e);
		check_walk(&e);
		print_map(&e);
		if (sum_up(&layout).gaps < MAX_STRETCHES)
			print_stretches(&layout);
		print_summary(&e);
		clean = !e.wrong;
		explorer_fini(&e);
	}
	layout_free(&layout);
	return clean ? EXIT_SUCCESS : EXIT_FAILURE;
}
