/* SPDX-License-Identifier: MIT */
/*
 * The memory manager: buffers that take turns in device memory.
 *
 * Purpose. A job runs when all buffers of its address space are in device memory. When there is no room, those used longest ago that belong
 * to other spaces have to leave, whatever is still to run on them:
 *
 *     nowhere --bring--> device memory --evict--> host memory --bring--> device memory ...
 *
 * Nobody waits for jobs here. A move is a job of the copy engine that comes after all that was pushed before and uses the buffer, and
 * before all that is pushed later; it copies the pages (from nowhere: clears them) and then writes the page table entries (entry.h). The
 * old pages come back when it is done, through the release hook of the backing.
 *
 * Invariants.
 * M1. b->place is what the library has as the buffer's memory. If b->moved succeeded, the contents are there from its signal on.
 * M2. A move that fails has written nothing, and all later ones fail with its error: contents are lost, never wrong.
 * M3. A move can run twice: it copies the same bytes, since the place that it reads stays until it has signaled.
 * M4. Pages are waited for without any lock (manager_wait), and only when they will come: they belong to places that were left.
 *
 * Locking. One thread. A move holds the reservations of the buffer and of all spaces that it is bound in, whose entries change.
 *
 * Not here: address spaces (space.c).
 */
#include "manager.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "entry.h"

/* --- Moves: the copy engine's part --------------------------------------------------------------------------------------- */

struct move {
	struct op op; /* first */
	const struct place *from; /* NULL: nothing to be copied */
	struct place *to;
	struct lf_mapping **mappings; /* references: whose entries change */
	size_t count, capacity;
	struct lane *lane;
	int64_t asked; /* ns */
};

static void copy_pages(const struct place *from, const struct place *to)
{
	for (size_t i = 0; i < to->count; i++) {
		if (from)
			memcpy(to->pages[i], from->pages[i], GPU_PAGE);
		else
			memset(to->pages[i], 0, GPU_PAGE);
	}
}

static int run_move(struct op *op)
{
	struct move *move = (struct move *)op;
	struct activity activity = { op->record.group, op->record.number, move->asked, lf_now(), 0 };
	int error = op_error(op);

	if (error) /* as it is, so that everyone sees what was first (M2) */
		return error;
	copy_pages(move->from, move->to);
	for (size_t i = 0; i < move->count; i++)
		entry_write(move->mappings[i], move->to);
	activity.end = lf_now();
	record_activity(move->lane, &activity);
	return 0;
}

static void fini_move(struct op *op)
{
	struct move *move = (struct move *)op;

	for (size_t i = 0; i < move->count; i++)
		lf_mapping_put(move->mappings[i]);
	free(move->mappings);
}

/* --- Moves: the driver's part ------------------------------------------------------------------------------------------- */

static void collect_mappings(struct move *move, const struct buffer *b)
{
	for (unsigned i = 0; i < SPACES; i++) {
		struct lf_mapping *m = NULL;

		while (b->vm_bos[i] && (m = lf_vm_bo_next_mapping(b->vm_bos[i], m))) {
			move->mappings = grow(move->mappings, move->count, &move->capacity, sizeof(struct lf_mapping *));
			move->mappings[move->count++] = lf_mapping_get(m);
		}
	}
}

static struct move *create_move(struct buffer *b, struct place *to)
{
	struct move *move = allocate(1, sizeof(*move));

	*move = (struct move){
		.op = { .record = { .group = b->group, .number = b->number }, .run = run_move, .fini = fini_move },
		.from = b->place,
		.to = to,
		.lane = place_is_device(to) ? b->manager->bring_lane : b->manager->evict_lane,
		.asked = lf_now(),
	};
	op_need(&move->op, b->moved);
	collect_mappings(move, b);
	return move;
}

/* The buffer is locked, with its spaces. */
static void move_buffer(struct buffer *b, struct place *to)
{
	struct lf_backing backing = { .memory = to, .release = place_release };
	struct place *from = b->place;
	struct lf_fence *moved;
	struct lf_job *job;

	must(lf_bo_prepare_move(&b->bo), "cannot prepare a move");
	job = gpu_job(b->manager->gpu, COPY_ENGINE, &create_move(b, to)->op);
	gpu_wait_for(job, b->bo.resv, LF_USAGE_BOOKKEEP);
	moved = gpu_push(b->manager->gpu, COPY_ENGINE, job);
	place_leave(from);
	lf_bo_move(&b->bo, &backing, moved);
	b->place = to;
	replace_fence(&b->moved, moved);
}

/* --- Buffers ------------------------------------------------------------------------------------------------------------ */

struct buffer *buffer_create(struct manager *m, size_t pages, struct lf_resv *resv)
{
	struct lf_bo_desc desc = { .offset = offsetof(struct buffer, bo), .size = pages * GPU_PAGE, .resv = resv };
	struct buffer *b = lf_alloc(sizeof(*b));

	must(b ? lf_bo_init(&b->bo, &desc) : -ENOMEM, "cannot make a buffer");
	b->manager = m;
	b->next = m->first;
	if (m->first)
		m->first->prev = b;
	m->first = b;
	return b;
}

static void unlink_buffer(struct buffer *b)
{
	if (b->prev)
		b->prev->next = b->next;
	else
		b->manager->first = b->next;
	if (b->next)
		b->next->prev = b->prev;
}

/* Moved to nowhere first, so that its pages come back when its fences have signaled: the buffer itself stays for its last mapping. */
void buffer_drop(struct buffer *b)
{
	struct lf_resv *resv = b->bo.resv;

	must(lf_resv_lock(resv, NULL), "cannot lock a buffer");
	must(lf_bo_prepare_move(&b->bo), "cannot prepare a move");
	place_leave(b->place);
	lf_bo_move(&b->bo, NULL, NULL);
	lf_resv_unlock(resv);
	unlink_buffer(b);
	replace_fence(&b->moved, NULL);
	b->place = NULL;
	lf_bo_put(&b->bo);
}

int buffer_lock(struct buffer *b, struct lf_exec *x)
{
	int error = lf_exec_lock(x, b->bo.resv, 0);

	for (unsigned i = 0; i < SPACES && !error; i++) {
		if (b->vm_bos[i])
			error = lf_exec_lock(x, lf_vm_resv(b->vm_bos[i]->vm), 0);
	}
	return error;
}

void buffer_set_absent(struct buffer *b)
{
	if (!place_is_device(b->place))
		lf_bo_set_evicted(&b->bo, true);
}

/* --- Eviction ----------------------------------------------------------------------------------------------------------- */

static void evict_locked(struct buffer *b)
{
	struct manager *m = b->manager;

	m->evictions++;
	m->busy_evictions += !lf_resv_test_signaled(b->bo.resv, LF_USAGE_BOOKKEEP);
	move_buffer(b, device_take_host(&m->device, b->place->count));
	lf_bo_set_evicted(&b->bo, true);
}

bool manager_evict(struct buffer *b)
{
	struct lf_exec x;

	if (!place_is_device(b->place))
		return false;
	lf_exec_init(&x, NULL);
	while (lf_exec_next(&x))
		buffer_lock(b, &x);
	must(lf_exec_error(&x), "cannot lock a buffer");
	evict_locked(b);
	lf_exec_fini(&x);
	return true;
}

/* Who was used longest ago, among those that the space does without. */
static struct buffer *choose_victim(const struct manager *m, unsigned space)
{
	struct buffer *victim = NULL;

	for (struct buffer *b = m->first; b; b = b->next) {
		if (place_is_device(b->place) && !b->vm_bos[space] && (!victim || b->used < victim->used))
			victim = b;
	}
	return victim;
}

/* Unlocks the victim at once: the fence of the job that needs the room is none of its business. */
static int evict_one(struct manager *m, unsigned space, struct lf_exec *x)
{
	struct buffer *victim = choose_victim(m, space);
	size_t mark = lf_exec_mark(x);
	int error;

	if (!victim)
		return -ENOSPC;
	error = buffer_lock(victim, x);
	if (error)
		return error;
	evict_locked(victim);
	lf_exec_rollback(x, mark);
	return 0;
}

static size_t absent_pages(const struct manager *m, unsigned space)
{
	size_t pages = 0;

	for (const struct buffer *b = m->first; b; b = b->next) {
		if (b->vm_bos[space] && !place_is_device(b->place))
			pages += (size_t)(b->bo.size / GPU_PAGE);
	}
	return pages;
}

int manager_make_room(struct manager *m, unsigned space, struct lf_exec *x)
{
	int error = 0;

	m->wanted = absent_pages(m, space);
	while (!error && device_free_soon(&m->device) < m->wanted)
		error = evict_one(m, space, x);
	if (error)
		return error;
	return device_free_now(&m->device) < m->wanted ? -EAGAIN : 0;
}

/* --- Bringing in -------------------------------------------------------------------------------------------------------- */

int manager_bring(struct buffer *b, unsigned space, struct lf_exec *x)
{
	struct manager *m = b->manager;
	size_t mark = lf_exec_mark(x);
	struct place *to;
	int error;

	if (place_is_device(b->place) || !b->vm_bos[space]) /* for another space, or closed here */
		return 0;
	error = buffer_lock(b, x);
	if (error)
		return error;
	to = device_take(&m->device, (size_t)(b->bo.size / GPU_PAGE));
	if (!to)
		return -EAGAIN;
	m->returns += b->place != NULL;
	move_buffer(b, to);
	lf_exec_rollback(x, mark);
	return 0;
}

void manager_wait(struct manager *m)
{
	m->waits++;
	device_wait(&m->device, m->wanted);
}

void manager_touch(struct manager *m, unsigned space)
{
	m->clock++;
	for (struct buffer *b = m->first; b; b = b->next) {
		if (b->vm_bos[space])
			b->used = m->clock;
	}
}

/* --- Life --------------------------------------------------------------------------------------------------------------- */

void manager_init(struct manager *m, struct gpu *gpu, struct record *record, size_t bytes)
{
	*m = (struct manager){ .gpu = gpu };
	device_init(&m->device, bytes);
	m->evict_lane = record_add_lane(record, "evict", LANE_ACTIVITY);
	m->bring_lane = record_add_lane(record, "bring in", LANE_ACTIVITY);
}

void manager_fini(struct manager *m)
{
	device_fini(&m->device);
}
