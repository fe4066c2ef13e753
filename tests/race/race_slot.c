/* SPDX-License-Identifier: MIT */
/*
 * Readers look at slots inside read sections while writers replace what is there, and put it for the last time.
 *
 * Oracle:
 * - what a reader finds is a live fence, and stays the same one until its section ends: what surrounds it (a magic word, an id and its
 *   complement), its context and its seqno read the same at the section's beginning and end, and belong together;
 * - its status, once not 0, does not change, and comes with its timestamp; it is what a writer signaled, or -ECANCELED for one that was put
 *   for the last time while pending;
 * - tryget inside the section either refuses or gives a reference that keeps the fence after the section has ended; get does so always;
 * - at the end nothing is left: every fence that was made is freed.
 * Freed memory is overwritten, so a fence that dies under its reader is seen even without a sanitizer.
 *  A look is hit when the slot was replaced before its section ended; a tryget is hit when it came after the last put. Healthy output
 * has some of each.
 */
#include "testing.h"

#include <sched.h>
#include <stdatomic.h>

enum { SLOTS = 2, READERS = 2, WRITERS = 2 };

static const uint64_t magic = UINT64_C(0x600df00dcafe5107);

struct payload {
	uint64_t magic;
	uint64_t id;
	struct lf_fence fence;
	uint64_t complement;
};

static struct {
	long rounds;
	uint64_t seed;
	struct lf_fence_slot slots[SLOTS];
	struct lf_timeline *timelines[WRITERS];
	atomic_int writing;
	atomic_long looks, replaced, empty, taken, refused, got;
} shared;

static struct payload *to_payload(struct lf_fence *f)
{
	return (struct payload *)(void *)((char *)f - offsetof(struct payload, fence));
}

/* A stand-alone fence has an even id; one of a timeline an odd one, with the seqno in the upper bits and the writer below it. */
static void check_identity(struct lf_fence *f)
{
	const struct payload *p = to_payload(f);
	must(p->magic == magic);
	must(p->complement == ~p->id);
	if (p->id % 2 == 0) {
		must(lf_fence_context(f) == 0);
		must(lf_fence_seqno(f) == 0);
	} else {
		must(lf_fence_context(f) == lf_timeline_context(shared.timelines[p->id / 2 % WRITERS]));
		must(lf_fence_seqno(f) == p->id / (2 * WRITERS));
	}
}

static void check_status(struct lf_fence *f)
{
	int status = lf_fence_status(f);
	int64_t timestamp = lf_fence_timestamp(f);
	/* may have been signaled between the two loads: then only the second one knows */
	/* -ECANCELED: pending when its last reference was put; writers use other errors */
	must(status == 0 || status == -ECANCELED || timestamp == 1000 - status);
}

static void look_once(struct lf_fence_slot *slot, uint64_t *random)
{
	struct lf_fence *mine = NULL;
	lf_read_lock();
	struct lf_fence *f = lf_fence_slot_look(slot);
	if (f == NULL) {
		lf_read_unlock();
		atomic_fetch_add(&shared.empty, 1);
		return;
	}
	check_identity(f);
	uint64_t id = to_payload(f)->id;
	int status = lf_fence_status(f);
	check_status(f);
	uint64_t choice = random_next(random);
	if (choice % 8 == 0)
		sched_yield();
	if (choice / 8 % 4 == 0) {
		mine = lf_fence_tryget(f);
		must(mine == f || mine == NULL);
		atomic_fetch_add(mine != NULL ? &shared.taken : &shared.refused, 1);
	}
	check_identity(f);
	check_status(f);
	must(to_payload(f)->id == id);
	must(status == 0 || lf_fence_status(f) == status);
	atomic_fetch_add(lf_fence_slot_look(slot) != f ? &shared.replaced : &shared.looks, 1);
	lf_read_unlock();
	if (mine != NULL) {
		check_identity(mine);
		must(to_payload(mine)->id == id);
		lf_fence_put(mine);
	}
}

static void get_once(struct lf_fence_slot *slot)
{
	struct lf_fence *f = lf_fence_slot_get(slot);
	if (f == NULL)
		return;
	check_identity(f);
	check_status(f);
	atomic_fetch_add(&shared.got, 1);
	lf_fence_put(f);
}

static void *reader(void *arg)
{
	uint64_t random = shared.seed + (uint64_t)*(int *)arg + 1;
	while (atomic_load(&shared.writing) > 0) {
		struct lf_fence_slot *slot = &shared.slots[random_next(&random) % SLOTS];
		if (random_next(&random) % 8 == 0)
			get_once(slot);
		else
			look_once(slot, &random);
	}
	return NULL;
}

static struct lf_fence *make_payload(uint64_t id)
{
	struct payload *p = lf_alloc(sizeof(*p));
	must(p != NULL);
	must(lf_fence_init(&p->fence, offsetof(struct payload, fence)) == 0);
	p->magic = magic;
	p->id = id;
	p->complement = ~id;
	return &p->fence;
}

static void write_once(int me, uint64_t n, uint64_t *random)
{
	struct lf_fence_slot *slot = &shared.slots[random_next(random) % SLOTS];
	struct lf_timeline *tl = shared.timelines[me];
	bool emitted = random_next(random) % 2;
	int error = random_next(random) % 2 ? -EIO : 0;
	struct lf_fence *f = make_payload(emitted ? (n * WRITERS + (uint64_t)me) * 2 + 1 : n * 2);
	if (emitted)
		must(lf_timeline_emit_fence(tl, n, f) == 0);
	lf_fence_slot_set(slot, f);
	/* check_status() knows the time that belongs to each result: 999 to done (1), 1005 to -EIO */
	if (emitted)
		must(lf_timeline_signal_to_at(tl, n, error, error == 0 ? 999 : 1000 - error) == 1);
	else if (random_next(random) % 4 != 0)
		must(lf_fence_signal_at(f, error, error == 0 ? 999 : 1000 - error));
	lf_fence_put(f);
	if (random_next(random) % 16 == 0)
		lf_fence_slot_set(slot, NULL);
}

static void *writer(void *arg)
{
	int me = *(int *)arg;
	uint64_t random = shared.seed + (uint64_t)me + 1000;
	for (long i = 1; i <= shared.rounds; i++)
		write_once(me, (uint64_t)i, &random);
	atomic_fetch_sub(&shared.writing, 1);
	return NULL;
}

static void fence_found_in_a_read_section_is_the_same_live_one_until_its_end(void **state)
{
	const struct lf_timeline_desc desc = { .name = "race", .flags = LF_TIMELINE_UNORDERED };
	pthread_t threads[READERS + WRITERS];
	int numbers[READERS + WRITERS];
	shared.seed = test_seed();
	shared.rounds = test_rounds(300000);
	test_watchdog(100, "race_slot");
	atomic_store(&shared.writing, WRITERS);
	for (int w = 0; w < WRITERS; w++)
		must(lf_timeline_create(&desc, &shared.timelines[w]) == 0);
	for (int t = 0; t < READERS + WRITERS; t++) {
		numbers[t] = t < READERS ? t : t - READERS;
		threads[t] = thread_start(t < READERS ? reader : writer, &numbers[t], 0);
	}
	for (int t = 0; t < READERS + WRITERS; t++)
		thread_join(threads[t]);
	for (int i = 0; i < SLOTS; i++)
		lf_fence_slot_set(&shared.slots[i], NULL);
	for (int w = 0; w < WRITERS; w++)
		lf_timeline_put(shared.timelines[w]);
	test_watchdog(0, "");
	test_note("race_slot: %ld replacements; looks: replaced meanwhile %ld, not replaced %ld, empty %ld", shared.rounds * WRITERS,
		atomic_load(&shared.replaced), atomic_load(&shared.looks), atomic_load(&shared.empty));
	test_note("race_slot: tryget: taken %ld, refused %ld; got %ld", atomic_load(&shared.taken), atomic_load(&shared.refused),
		atomic_load(&shared.got));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(fence_found_in_a_read_section_is_the_same_live_one_until_its_end),
	};
	return TEST_MAIN(tests);
}
