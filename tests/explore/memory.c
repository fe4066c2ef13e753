/* SPDX-License-Identifier: MIT */
/*
 * The explorer: what is seen when.
 *
 * Purpose: say of each access whether the memory is there and whether the accesses before it happened before it, and give each atomic load a
 * value that the orders in the source allow. The scenarios and the library are compiled with the instrumentation of ThreadSanitizer, but
 * linked with the functions below in place of its own: so plain accesses come here, one by one.
 *
 * Happens-before: each fiber has a clock of how much it has seen of each other one, after Lamport. A release gives the fiber's clock away,
 * with the value that is stored or in a lock; an acquire takes it over. Two accesses to a cell, one of them plain and one a write, must be
 * ordered by it. (As in FastTrack: Flanagan and Freund, PLDI 2009.)
 *
 * Values: an atomic word has a history of stores. A load may return any that is not older than one that its fiber has seen already, by itself
 * or through others; older ones than the newest are deviations (engine.c). Loads of an exchange, and of a compare-exchange, return the newest.
 * A release sequence is continued by exchanges of others, as in C17 without the same thread's later stores, which C20 dropped. (As in Relacy,
 * and CDSChecker: Norris and Demsky, OOPSLA 2013.)
 *
 * Invariants:
 * Y1. The memory of an atomic word holds its newest value.
 * Y2. No address is given out twice in an execution; what is freed stays marked, so any later access is found.
 * Y3. Each fiber has a heap of its own, so that where a block lies depends on what its thread allocated before it, and on nobody else.
 *
 * What it does not see: accesses by functions of the C library but memcpy(), memmove() and memset(); two fields of less than four bytes
 * that share a cell look as if they were one.
 */
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
	CELL = 4, /* bytes */
	HISTORY = 8, /* stores of a word that are remembered */
	SIGHTINGS = HISTORY, /* of stores of a word, by one fiber */
	MAX_WORDS = 4096,
	MAX_BLOCKS = 4096,
	NOBODY = 255,
};

struct store {
	uint64_t value;
	struct clock seen; /* what is acquired with it */
};

/* That a fiber saw a store, at a time of its own. */
struct sighting {
	uint16_t at;
	uint32_t store;
};

/* An atomic word: an address that was used with an atomic operation since it was last written plainly. */
struct word {
	uintptr_t addr;
	uint32_t stores; /* how many there were; the newest has this number less one */
	struct store history[HISTORY]; /* by number, modulo */
	struct clock users, writers; /* when each fiber last used it, and wrote to it */
	uint8_t sightings[MAX_FIBERS]; /* how many, modulo */
	struct sighting seen[MAX_FIBERS][SIGHTINGS];
};

/* What is known of four bytes. */
struct cell {
	uint32_t execution; /* else nothing is known yet */
	uint16_t written; /* when, by @writer's clock */
	uint8_t writer; /* of the last plain write, or NOBODY */
	bool freed;
	uint16_t word; /* the number of the atomic word that lies here, or 0 */
	uint16_t read[MAX_FIBERS]; /* when each fiber last read it plainly */
	uint32_t written_at; /* where in the program */
};

struct range {
	uintptr_t begin, end;
	struct cell *cells;
	unsigned char *kept; /* what it is at the start of each execution, or NULL */
};

struct memory {
	struct range fibers, data;
	struct word words[MAX_WORDS];
	unsigned word_count;
	struct block blocks[MAX_BLOCKS];
	unsigned block_count;
};
static struct memory *mem;

extern unsigned char __data_start[], _end[], __executable_start[];

/* --- Clocks -------------------------------------------------------------------------------------------------------------- */

static uint16_t now(void)
{
	return fiber_now()->clock.of[ex->current];
}

/* Whether this fiber has seen what @fiber did at @time. */
static bool has_seen(int fiber, uint16_t time)
{
	return time <= fiber_now()->clock.of[fiber];
}

void memory_acquire(const struct clock *seen)
{
	clock_join(&fiber_now()->clock, seen);
}

void memory_release(struct clock *seen)
{
	clock_join(seen, &fiber_now()->clock);
	fiber_now()->clock.of[ex->current]++;
}

/* Whether all that is noted in @times was seen; else who was not, in *ret_fiber. */
static bool all_seen(const uint16_t *times, int *ret_fiber)
{
	for (int i = 0; i < MAX_FIBERS; i++) {
		if (i != ex->current && !has_seen(i, times[i])) {
			*ret_fiber = i;
			return false;
		}
	}
	return true;
}

/* --- Cells --------------------------------------------------------------------------------------------------------------- */

static const struct range *range_of(uintptr_t addr)
{
	if (addr >= mem->fibers.begin && addr < mem->fibers.end)
		return &mem->fibers;
	if (addr >= mem->data.begin && addr < mem->data.end)
		return &mem->data;
	return NULL;
}

/* Whether an address lies in one of the heaps. */
static bool is_heap(uintptr_t addr)
{
	return addr >= mem->fibers.begin && addr < mem->fibers.end && (addr - mem->fibers.begin) % FIBER_SIZE >= LOCAL_SIZE + STACK_SIZE;
}

static void clear_cell(struct cell *c)
{
	*c = (struct cell){ .execution = ex->execution, .writer = NOBODY };
}

static struct cell *cell_in(const struct range *r, uintptr_t addr)
{
	struct cell *c = &r->cells[(addr - r->begin) / CELL];

	if (c->execution != ex->execution) {
		if (is_heap(addr) && ex->execution)
			explore_fail("memory is used that was never allocated");
		clear_cell(c);
	}
	if (c->freed)
		explore_fail("memory is used that was freed");
	return c;
}

static void race(const char *what, const char *with, int fiber, uint32_t at)
{
	char where[64] = "";

	if (at)
		snprintf(where, sizeof(where), " (at +%#x)", at);
	explore_fail("a data race: %s, and %s by thread %d%s is not ordered before it", what, with, fiber, where);
}

static uint32_t offset_of(const void *site)
{
	return site ? (uint32_t)((const unsigned char *)site - __executable_start) : 0;
}

/* --- Plain accesses ------------------------------------------------------------------------------------------------------ */

static void plain_read(struct cell *c)
{
	int other;

	if (c->writer != NOBODY && c->writer != ex->current && !has_seen(c->writer, c->written))
		race("a plain read", "a plain write", c->writer, c->written_at);
	if (c->word && !all_seen(mem->words[c->word].writers.of, &other))
		race("a plain read", "an atomic write", other, 0);
	c->read[ex->current] = now();
}

static void plain_write(struct cell *c, const void *site, const char *what)
{
	int other;

	if (c->writer != NOBODY && c->writer != ex->current && !has_seen(c->writer, c->written))
		race(what, "a plain write", c->writer, c->written_at);
	if (!all_seen(c->read, &other))
		race(what, "a plain read", other, 0);
	if (c->word && !all_seen(mem->words[c->word].users.of, &other))
		race(what, "an atomic access", other, 0);
	c->word = 0;
	c->writer = (uint8_t)ex->current;
	c->written = now();
	c->written_at = offset_of(site);
}

static void plain(const void *ptr, size_t size, bool writes, const void *site)
{
	uintptr_t addr = (uintptr_t)ptr, last = addr + size - 1;
	const struct range *r = mem ? range_of(addr) : NULL; /* constructors come before us */

	if (!r || size == 0)
		return;
	for (addr &= ~(uintptr_t)(CELL - 1); addr <= last; addr += CELL) {
		struct cell *c = cell_in(r, addr);

		if (writes)
			plain_write(c, site, "a plain write");
		else
			plain_read(c);
	}
}

/* The names that the compiler's instrumentation calls. */
#define ACCESS(name, size, writes)													\
	void __tsan_##name(void *addr);													\
	void __tsan_##name(void *addr)													\
	{																\
		plain(addr, size, writes, __builtin_return_address(0));									\
	}
#define ACCESSES(size)															\
	ACCESS(read##size, size, false)													\
	ACCESS(write##size, size, true)													\
	ACCESS(unaligned_read##size, size, false)											\
	ACCESS(unaligned_write##size, size, true)
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

void __tsan_init(void);
void __tsan_func_entry(void *site);
void __tsan_func_exit(void);
void __tsan_read_range(void *addr, size_t size);
void __tsan_write_range(void *addr, size_t size);

void __tsan_init(void)
{
}

void __tsan_func_entry(void *site)
{
	(void)site;
}

void __tsan_func_exit(void)
{
}

void __tsan_read_range(void *addr, size_t size)
{
	plain(addr, size, false, __builtin_return_address(0));
}

void __tsan_write_range(void *addr, size_t size)
{
	plain(addr, size, true, __builtin_return_address(0));
}

void *explore_memcpy(void *to, const void *from, size_t size)
{
	plain(from, size, false, __builtin_return_address(0));
	plain(to, size, true, __builtin_return_address(0));
	return memmove(to, from, size);
}

void *explore_memset(void *to, int byte, size_t size)
{
	plain(to, size, true, __builtin_return_address(0));
	return memset(to, byte, size);
}

/* What clang calls for copies of structs. */
void *__tsan_memcpy(void *to, const void *from, size_t size) __attribute__((alias("explore_memcpy")));
void *__tsan_memmove(void *to, const void *from, size_t size) __attribute__((alias("explore_memcpy")));
void *__tsan_memset(void *to, int byte, size_t size) __attribute__((alias("explore_memset")));

/* --- Atomic words -------------------------------------------------------------------------------------------------------- */

static uint64_t newest_value(const void *addr, unsigned size)
{
	uint64_t v8;
	uint32_t v4;

	if (size == sizeof(v8)) {
		memcpy(&v8, addr, sizeof(v8));
		return v8;
	}
	memcpy(&v4, addr, sizeof(v4));
	return v4;
}

static void set_newest_value(void *addr, unsigned size, uint64_t value)
{
	uint32_t v4 = (uint32_t)value;

	if (size == sizeof(value))
		memcpy(addr, &value, sizeof(value));
	else
		memcpy(addr, &v4, sizeof(v4));
}

/* The word at an address; its history begins with what is there. */
static struct word *word_at(const void *ptr, unsigned size)
{
	uintptr_t addr = (uintptr_t)ptr;
	const struct range *r = range_of(addr);
	struct cell *c, *second;
	struct word *w;

	if (!r)
		explore_fail("an atomic word lies where the explorer sees nothing");
	c = cell_in(r, addr);
	second = size > CELL ? cell_in(r, addr + CELL) : c;
	if (c->word && mem->words[c->word].addr == addr)
		return &mem->words[c->word];
	if (++mem->word_count == MAX_WORDS)
		explore_fail("more than %d atomic words", MAX_WORDS);
	w = &mem->words[mem->word_count];
	w->addr = addr;
	w->stores = 1;
	w->history[0] = (struct store){ .value = newest_value(ptr, size) };
	w->users = w->writers = (struct clock){ { 0 } };
	memset(w->sightings, 0, sizeof(w->sightings));
	c->word = second->word = (uint16_t)mem->word_count;
	return w;
}

/* Checks an atomic access against the plain ones. */
static void check_atomic(struct word *w, bool writes)
{
	struct cell *c = cell_in(range_of(w->addr), w->addr);
	int other;

	if (c->writer != NOBODY && c->writer != ex->current && !has_seen(c->writer, c->written))
		race("an atomic access", "a plain write", c->writer, c->written_at);
	if (writes && !all_seen(c->read, &other))
		race("an atomic write", "a plain read", other, 0);
	w->users.of[ex->current] = now();
	if (writes)
		w->writers.of[ex->current] = now();
}

/* The number of the oldest store that this fiber may still read: it has not seen a newer one, nor has one that it has heard from. */
static uint32_t oldest_visible(const struct word *w)
{
	uint32_t oldest = w->stores > HISTORY ? w->stores - HISTORY : 0;

	for (int i = 0; i < MAX_FIBERS; i++) {
		unsigned first = w->sightings[i] > SIGHTINGS ? w->sightings[i] - SIGHTINGS : 0;

		for (unsigned n = w->sightings[i]; n > first; n--) {
			const struct sighting *s = &w->seen[i][(n - 1) % SIGHTINGS];

			if (!has_seen(i, s->at))
				continue;
			if (s->store > oldest)
				oldest = s->store;
			break;
		}
	}
	return oldest;
}

/*
 * The first time that a fiber sees a store says most; so a sighting that drops out of those that are kept is of a store that has dropped out of
 * the history (SIGHTINGS >= HISTORY).
 */
static void note_sighting(struct word *w, uint32_t store)
{
	uint8_t *n = &w->sightings[ex->current];

	if (*n > 0 && w->seen[ex->current][(*n - 1) % SIGHTINGS].store == store)
		return;
	if (*n == UINT8_MAX)
		*n = (uint8_t)(UINT8_MAX - (UINT8_MAX - SIGHTINGS) / SIGHTINGS * SIGHTINGS);
	w->seen[ex->current][*n % SIGHTINGS] = (struct sighting){ now(), store };
	++*n;
}

static bool acquires(int order)
{
	return order != memory_order_relaxed && order != memory_order_release;
}

static bool releases(int order)
{
	return order == memory_order_release || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

/* Takes the value of a store over. */
static uint64_t read_store(struct word *w, uint32_t number, int order)
{
	const struct store *s = &w->history[number % HISTORY];

	if (acquires(order))
		memory_acquire(&s->seen);
	note_sighting(w, number);
	return s->value;
}

/* Stores; an exchange passes on what the store before gave away. */
static void write_store(struct word *w, void *addr, unsigned size, uint64_t value, int order, bool exchanges)
{
	struct store s = { .value = value };

	if (exchanges)
		s.seen = w->history[(w->stores - 1) % HISTORY].seen;
	note_sighting(w, w->stores);
	if (releases(order))
		memory_release(&s.seen);
	w->history[w->stores++ % HISTORY] = s;
	set_newest_value(addr, size, value);
	explorer_wrote(addr);
}

uint64_t explore_load(const void *addr, unsigned size, int order)
{
	const void *site = __builtin_return_address(0);
	struct word *w;
	uint64_t value;
	unsigned age;

	explorer_point(addr, false);
	w = word_at(addr, size);
	check_atomic(w, false);
	age = explorer_choose_value(w->stores - oldest_visible(w));
	if (age > 0)
		fiber_now()->stale = true;
	value = read_store(w, w->stores - 1 - age, order);
	explorer_event(age ? "loads an old value of" : "loads", addr, size, order, value, site);
	return value;
}

void explore_store(void *addr, unsigned size, uint64_t value, int order)
{
	struct word *w;

	explorer_point(addr, true);
	w = word_at(addr, size);
	check_atomic(w, true);
	write_store(w, addr, size, value, order, false);
	explorer_event("stores", addr, size, order, value, __builtin_return_address(0));
}

uint64_t explore_rmw(void *addr, unsigned size, enum explore_rmw op, uint64_t value, int order)
{
	static const char *const names[] = { "exchanges", "adds to", "subtracts from" };
	struct word *w;
	uint64_t old;

	explorer_point(addr, true);
	w = word_at(addr, size);
	check_atomic(w, true);
	old = read_store(w, w->stores - 1, order);
	explorer_event(names[op], addr, size, order, value, __builtin_return_address(0));
	write_store(w, addr, size, op == EXPLORE_XCHG ? value : op == EXPLORE_ADD ? old + value : old - value, order, true);
	return old;
}

bool explore_cas(void *addr, unsigned size, uint64_t *expected, uint64_t desired, int ok, int fail)
{
	struct word *w;
	bool equal;

	explorer_point(addr, true);
	w = word_at(addr, size);
	equal = w->history[(w->stores - 1) % HISTORY].value == *expected;
	check_atomic(w, equal);
	*expected = read_store(w, w->stores - 1, equal ? ok : fail);
	explorer_event(equal ? "compares and exchanges" : "compares and leaves", addr, size, equal ? ok : fail, equal ? desired : *expected,
		__builtin_return_address(0));
	if (equal)
		write_store(w, addr, size, desired, ok, true);
	return equal;
}

/* --- Heap ---------------------------------------------------------------------------------------------------------------- */

void *memory_alloc(void *user, size_t size, size_t align)
{
	struct fiber *f = fiber_now();
	struct block *b = &mem->blocks[mem->block_count];
	size_t at = (f->heap_used + align - 1) / align * align;

	(void)user;
	if (mem->block_count == MAX_BLOCKS || at + size + align > HEAP_SIZE)
		explore_fail("the scenario needs more memory than there is");
	*b = (struct block){ f->heap + at, size, (uint8_t)ex->current, false, __builtin_return_address(0) };
	mem->block_count++;
	f->heap_used = at + size + align; /* a gap, which is never allocated */
	for (size_t i = 0; i < (size + CELL - 1) / CELL; i++)
		clear_cell(&mem->fibers.cells[((uintptr_t)b->addr - mem->fibers.begin) / CELL + i]);
	memset(b->addr, 0xa5, size);
	return b->addr;
}

static struct block *block_of(const void *ptr)
{
	for (unsigned i = mem->block_count; i-- > 0;) {
		struct block *b = &mem->blocks[i];

		if ((const unsigned char *)ptr >= b->addr && (const unsigned char *)ptr < b->addr + b->size)
			return b;
	}
	return NULL;
}

void memory_free(void *user, void *ptr)
{
	struct block *b = block_of(ptr);

	(void)user;
	if (!b || b->addr != ptr)
		explore_fail("what is freed was not allocated");
	if (b->freed)
		explore_fail("a block is freed twice");
	explorer_event("frees", ptr, 0, 0, b->size, __builtin_return_address(0));
	for (size_t i = 0; i < (b->size + CELL - 1) / CELL; i++) {
		struct cell *c = cell_in(&mem->fibers, (uintptr_t)b->addr + i * CELL);

		plain_write(c, __builtin_return_address(0), "a free");
		c->freed = true;
	}
	b->freed = true;
}

void memory_check_leaks(void)
{
	for (unsigned i = 0; i < mem->block_count; i++) {
		const struct block *b = &mem->blocks[i];

		if (!b->freed)
			explore_fail("%zu bytes are left, the block %u of thread %u (made at +%#x)", b->size, i, b->fiber, offset_of(b->made_at));
	}
}

void memory_name(const void *addr, char *buf, size_t size)
{
	uintptr_t a = (uintptr_t)addr;
	const struct block *b = block_of(addr);

	if (b)
		snprintf(buf, size, "block %u + %zu (of %zu)", (unsigned)(b - mem->blocks), (size_t)((const unsigned char *)addr - b->addr), b->size);
	else if (range_of(a) == &mem->data)
		snprintf(buf, size, "data + %#zx", (size_t)(a - (uintptr_t)__executable_start));
	else if (range_of(a))
		snprintf(buf, size, "stack of thread %zu + %#zx", (size_t)((a - mem->fibers.begin) / FIBER_SIZE),
			(size_t)((a - mem->fibers.begin) % FIBER_SIZE));
	else
		snprintf(buf, size, "%p", addr);
}

/* --- Life ---------------------------------------------------------------------------------------------------------------- */

void *memory_get(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED) {
		perror("explore: no memory");
		exit(2);
	}
	return memory;
}

static struct range make_range(uintptr_t begin, uintptr_t end)
{
	begin &= ~(uintptr_t)(CELL - 1);
	return (struct range){ begin, end, memory_get(((end - begin) / CELL + 2) * sizeof(struct cell)), NULL };
}

void memory_init(unsigned char *memory, size_t size)
{
	mem = memory_get(sizeof(*mem));
	mem->fibers = make_range((uintptr_t)memory, (uintptr_t)memory + size);
	mem->data = make_range((uintptr_t)__data_start, (uintptr_t)_end);
}

void memory_keep_data(void)
{
	size_t size = mem->data.end - mem->data.begin;

	mem->data.kept = memory_get(size);
	memcpy(mem->data.kept, (const void *)mem->data.begin, size);
}

void memory_begin(void)
{
	memcpy((void *)mem->data.begin, mem->data.kept, mem->data.end - mem->data.begin);
	mem->word_count = 0;
	mem->block_count = 0;
}
