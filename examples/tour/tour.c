/* SPDX-License-Identifier: MIT */
/*
 * The program of docs/TOUR.md: one job, from the making of its memory to the reuse of it.
 *
 * Purpose. To show each object of the library once, in the order in which a job meets it. Driver, engine, application, memory manager and
 * importer are all here; say() tells who does what. The parts between the marks stand in the tour, and what the program prints is
 * expected.txt, which the tour quotes, and from which its picture is drawn.
 *
 * Not here: errors. must() ends the program; examples/minigpu is a driver that handles them.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libfence/libfence.h>

enum { SIZE = 65536 };
#define FIRST_ADDRESS UINT64_C(0x100000000)
#define SOON          (lf_now() + INT64_C(10000000000)) /* a deadline that is never reached, unless something is wrong */

static void say(const char *who, const char *what)
{
	printf("%-8s  %s\n", who, what);
}

static void must(int ret)
{
	if (ret) {
		fprintf(stderr, "tour: %s\n", strerror(-ret));
		exit(1);
	}
}

/* --- 1. A driver ---------------------------------------------------------------------------------------------------------- */

/* part: driver */
static struct lf_provider *driver; /* its code */
static struct lf_timeline *dma; /* an engine that copies */
static struct lf_queue *engine; /* one that runs jobs */

static int run(struct lf_job *job, void *data);

static void load_driver(void)
{
	static const struct lf_queue_ops ops = { .run = run };

	must(lf_provider_create("driver", &driver));
	must(lf_timeline_create(&(struct lf_timeline_desc){ .name = "dma", .provider = driver }, &dma));
	must(lf_queue_create(&(struct lf_queue_desc){ .name = "engine", .mode = LF_QUEUE_MANUAL, .ops = &ops, .provider = driver }, &engine));
	say("driver", "has a copy engine, dma, and an engine for jobs");
}
/* part ends */

/* --- 2. Memory ------------------------------------------------------------------------------------------------------------ */

/* part: memory */
static char device_memory[SIZE], system_memory[SIZE];

static void give_back(void *memory, void *user)
{
	(void)user;
	say("memory", memory == device_memory ? "device memory is free again" : "system memory is free again");
}

struct buffer { /* what the driver keeps for a buffer */
	struct lf_bo bo;
};

struct page { /* what the driver keeps for a mapping: its page table entry */
	struct lf_mapping mapping; /* the first, so that a cast leads from it to the page */
	char *memory;
};
/* part ends */

static int bring_in(struct lf_vm_bo *vm_bo, struct lf_exec *x, void *data);
static int apply(struct lf_vm *vm, const struct lf_vm_op *ops, size_t count, void *data);

/* part: objects */
static struct lf_vm *vm;
static struct lf_va_heap *heap;
static struct lf_bo *bo;

static struct lf_bo *make_buffer(const struct lf_backing *where)
{
	struct buffer *b = lf_alloc(sizeof(*b));

	must(b ? 0 : -ENOMEM);
	must(lf_bo_init(&b->bo, &(struct lf_bo_desc){ .offset = offsetof(struct buffer, bo), .size = SIZE, .resv = lf_vm_resv(vm),
					.backing = *where, .provider = driver, .name = "buffer" }));
	return &b->bo;
}

static void make_memory(void)
{
	static const struct lf_vm_ops ops = { .validate = bring_in, .apply = apply };

	must(lf_vm_create(&(struct lf_vm_desc){ .name = "vm", .flags = LF_VM_BIND, .mapping_size = sizeof(struct page),
				  .mapping_offset = offsetof(struct page, mapping), .ops = &ops, .provider = driver }, &vm));
	must(lf_va_heap_create(FIRST_ADDRESS, SIZE, &heap)); /* room for one buffer */
	bo = make_buffer(&(struct lf_backing){ .memory = NULL });
	say("app", "makes a buffer, which is nowhere yet");
}
/* part ends */

/* --- 3. An address --------------------------------------------------------------------------------------------------------- */

/* part: apply */
static int apply(struct lf_vm *of, const struct lf_vm_op *ops, size_t count, void *data)
{
	(void)of;
	(void)data;
	for (size_t i = 0; i < count; i++)
		say("driver", ops[i].kind == LF_VM_OP_MAP ? "applies a bind: engines find the buffer" : "applies a bind: engines find nothing");
	return 0;
}
/* part ends */

/* part: views */
static bool applied(void) /* whether engines find the buffer */
{
	struct lf_view view;
	bool found;

	lf_read_lock();
	lf_vm_view_applied(vm, &view);
	found = lf_view_lookup(&view, FIRST_ADDRESS) != NULL;
	lf_read_unlock();
	return found;
}

static bool asked_for(void) /* whether who asks finds it */
{
	bool found;

	lf_read_lock();
	found = lf_vm_lookup(vm, FIRST_ADDRESS) != NULL;
	lf_read_unlock();
	return found;
}
/* part ends */

/* part: map */
static uint64_t va;

static struct lf_fence *map_buffer(void)
{
	struct lf_fence *cleared, *bound;
	struct lf_vm_bo *vm_bo;
	struct lf_txn txn;

	must(lf_va_heap_alloc(heap, &(struct lf_va_request){ .size = SIZE, .align = 4096 }, &va));
	must(lf_vm_bo_obtain(vm, bo, &vm_bo));
	must(lf_timeline_emit(dma, 1, &cleared)); /* dma clears the page tables first */

	must(lf_resv_lock(lf_vm_resv(vm), NULL));
	must(lf_txn_begin(&txn, vm));
	must(lf_txn_map(&txn, &(struct lf_map_desc){ .va = va, .size = SIZE, .vm_bo = vm_bo }, NULL));
	must(lf_txn_submit(&txn, &cleared, 1, &bound));
	lf_bo_set_evicted(bo, true); /* it is not where engines could use it */
	lf_resv_unlock(lf_vm_resv(vm));

	lf_vm_bo_put(vm_bo); /* the mapping has a reference of its own */
	lf_fence_put(cleared); /* so has the bind */
	say("app", "maps it; the bind waits for dma 1");
	printf("%-8s  asked for: %s, applied: %s\n", "app", asked_for() ? "mapped" : "a hole", applied() ? "mapped" : "a hole");
	return bound;
}
/* part ends */

/* --- 4. and 5. The job ----------------------------------------------------------------------------------------------------- */

/* part: validate */
static int bring_in(struct lf_vm_bo *vm_bo, struct lf_exec *x, void *data)
{
	struct lf_mapping *m = NULL;
	struct lf_fence *arrived;

	(void)x;
	(void)data;
	must(lf_bo_prepare_move(vm_bo->bo));
	must(lf_timeline_emit(dma, 2, &arrived));
	lf_bo_move(vm_bo->bo, &(struct lf_backing){ .memory = device_memory, .release = give_back }, arrived);
	lf_fence_put(arrived); /* the reservation has it */
	while ((m = lf_vm_bo_next_mapping(vm_bo, m)))
		((struct page *)m)->memory = device_memory;
	say("driver", "moves the buffer into device memory, behind dma 2");
	return 0;
}
/* part ends */

/* part: run */
static int run(struct lf_job *job, void *data)
{
	const struct lf_mapping *m;
	struct lf_view view;
	char *memory = NULL;

	(void)job;
	lf_read_lock();
	lf_vm_view_applied(vm, &view); /* as an engine walks its page tables */
	m = lf_view_lookup(&view, *(uint64_t *)data);
	if (m)
		memory = ((const struct page *)m)->memory;
	lf_read_unlock();
	if (!memory)
		return -EFAULT;
	memory[0]++; /* the place stays as long as the job's fence is pending, so this needs no section */
	say("engine", "runs the job");
	return 0;
}
/* part ends */

/* part: submit */
static struct lf_fence *submit(struct lf_fence *bound)
{
	struct lf_fence *moves, *ready, *finished;
	struct lf_job *job;
	struct lf_exec x;

	must(lf_job_create(engine, &(struct lf_job_desc){ .data = &va }, &job));
	lf_exec_init(&x, NULL);
	while (lf_exec_next(&x)) {
		if (lf_vm_exec_lock(vm, &x, 1) == 0)
			must(lf_vm_validate(vm, &x));
	}
	must(lf_exec_error(&x));

	must(lf_resv_get_singleton(bo->resv, LF_USAGE_KERNEL, &moves));
	must(lf_array_create((struct lf_fence *[]){ bound, moves }, 2, LF_ARRAY_ALL, &ready)); /* consumes both references */
	must(lf_job_add_dependency(job, ready));
	must(lf_job_push(job, &finished));
	lf_vm_add_fence(vm, &x, finished, LF_USAGE_WRITE, LF_USAGE_WRITE);
	lf_exec_fini(&x); /* unlocks */

	lf_fence_put(ready);
	lf_job_put(job); /* the queue has it until it is finished */
	say("app", "submits the job, behind the bind and the move");
	return finished;
}
/* part ends */

/* --- 6. Who waits ---------------------------------------------------------------------------------------------------------- */

/* part: care */
static void job_done(struct lf_fence *f, struct lf_fence_cb *cb)
{
	(void)cb;
	printf("%-8s  is called back: the job has status %d\n", "app", lf_fence_status(f));
}

static void idle(struct lf_notice *notice)
{
	(void)notice;
	say("app", "gets its notice: all that was in the reservation is done");
}

static struct lf_fence_cb callback = LF_FENCE_CB_INIT;
static struct lf_notice notice;
static struct lf_fence_slot last_job;
static struct lf_fence *semaphore; /* the newest link of a chain */

static void care(struct lf_fence *finished)
{
	must(lf_fence_add_callback(finished, &callback, job_done));
	lf_notice_init(&notice);
	must(lf_notice_arm(&notice, bo->resv, LF_USAGE_BOOKKEEP, idle));
	must(lf_chain_append(NULL, lf_fence_get(finished), 1, 0, &semaphore));
	lf_fence_slot_set(&last_job, finished);
}
/* part ends */

/* --- 7. Another driver ------------------------------------------------------------------------------------------------------ */

/* part: importer */
static struct lf_attachment *importer;
static struct lf_bo_map *before, *after; /* its mappings: of the place before the move, and after it */

static void moved(struct lf_attachment *a, void *data)
{
	(void)data;
	say("importer", "is told of the move, and maps the new place as well");
	must(lf_attachment_map(a, &after));
}

static void import(void)
{
	must(lf_bo_attach(bo, &(struct lf_attachment_desc){ .name = "importer", .invalidate = moved }, &importer));
	must(lf_resv_lock(bo->resv, NULL));
	must(lf_attachment_map(importer, &before));
	lf_resv_unlock(bo->resv);
	say("importer", "maps the buffer where it is");
}
/* part ends */

/* --- 8. All changes, and nobody waits ---------------------------------------------------------------------------------------- */

/* part: evict */
static void evict(void)
{
	struct lf_fence *saved;

	must(lf_resv_lock(bo->resv, NULL));
	must(lf_bo_prepare_move(bo));
	must(lf_timeline_emit(dma, 3, &saved)); /* a copy that dma begins when the job is finished */
	say("driver", "moves the buffer out to system memory, behind the job and dma 3");
	lf_bo_move(bo, &(struct lf_backing){ .memory = system_memory, .release = give_back }, saved);
	lf_bo_set_evicted(bo, true);
	lf_resv_unlock(bo->resv);
	must(lf_chain_append(semaphore, saved, 2, 0, &semaphore)); /* consumes both references */
}
/* part ends */

/* part: unmap */
static struct lf_held *held;

static void unmap_buffer(struct lf_fence *finished)
{
	struct lf_fence *unbound;
	struct lf_view view;
	struct lf_txn txn;

	must(lf_vm_hold(vm, &held)); /* for a debugger, say */
	must(lf_resv_lock(lf_vm_resv(vm), NULL));
	must(lf_txn_begin(&txn, vm));
	must(lf_txn_unmap(&txn, va, SIZE));
	must(lf_txn_submit(&txn, &finished, 1, &unbound));
	lf_resv_unlock(lf_vm_resv(vm));
	lf_va_heap_retire(heap, va, SIZE, lf_vm_resv(vm), unbound);
	lf_fence_put(unbound);

	say("app", "unmaps it; the bind waits for the job");
	lf_held_view(held, &view);
	printf("%-8s  asked for: %s, applied: %s, held: %s\n", "app", asked_for() ? "mapped" : "a hole", applied() ? "mapped" : "a hole",
		lf_view_lookup(&view, va) ? "mapped" : "a hole");
	printf("%-8s  wants the address again: %s\n", "app", lf_va_heap_alloc_at(heap, va, SIZE) == -EBUSY ? "busy" : "free");
}
/* part ends */

/* --- 9. It happens ----------------------------------------------------------------------------------------------------------- */

/* part: happens */
static void *work(void *data)
{
	while (lf_queue_step(data) > LF_STEP_IDLE)
		;
	return NULL;
}

static void let_it_happen(struct lf_fence *finished)
{
	struct lf_fence *point;
	pthread_t thread;

	say("dma", "has cleared the page tables");
	lf_timeline_signal_to(dma, 1, 0);
	device_memory[0] = 41;
	say("dma", "has filled device memory");
	lf_timeline_signal_to(dma, 2, 0);

	must(lf_chain_find_seqno(semaphore, 1, &point));
	must(-pthread_create(&thread, NULL, work, engine));
	must(lf_fence_wait(point, SOON)); /* sleeps until the engine's thread has finished the job */
	must(lf_fence_wait_drained(finished, SOON)); /* and until the callbacks have returned */
	pthread_join(thread, NULL);
	lf_fence_put(point);
	say("app", "has waited for point 1 of its chain");
	printf("%-8s  takes its callback back: %s\n", "app", lf_fence_cancel_callback_sync(finished, &callback) == LF_CB_RAN ? "it has run" : "?");
	lf_notice_fini(&notice);
}
/* part ends */

/* --- 10. and 11. What was left behind, and its reuse --------------------------------------------------------------------------- */

/* part: reuse */
static struct lf_bo *next;

static void reuse(void)
{
	say("importer", "unmaps the old place");
	lf_bo_unmap(before);
	memcpy(system_memory, device_memory, SIZE);
	say("dma", "has copied the buffer out");
	lf_timeline_signal_to(dma, 3, 0); /* the last that the ghost waited for */

	must(lf_fence_wait(semaphore, SOON));
	printf("%-8s  reads %d in system memory\n", "app", ((char *)lf_bo_map_memory(after))[0]);
	printf("%-8s  asks the reservation: %s\n", "app", lf_resv_test_signaled(bo->resv, LF_USAGE_BOOKKEEP) ? "idle" : "busy");
	printf("%-8s  wants the address again: %s\n", "app", lf_va_heap_alloc_at(heap, va, SIZE) == -EBUSY ? "busy" : "free");
	next = make_buffer(&(struct lf_backing){ .memory = device_memory, .release = give_back });
	say("app", "makes another buffer, in the same device memory");
}
/* part ends */

/* --- 12. The end --------------------------------------------------------------------------------------------------------------- */

/* part: look */
static void look(void)
{
	struct lf_fence *f;

	lf_read_lock();
	f = lf_fence_slot_look(&last_job); /* no reference: the section keeps it */
	printf("%-8s  looks at the last job: status %d\n", "app", f ? lf_fence_status(f) : 0);
	lf_read_unlock();
	lf_fence_slot_set(&last_job, NULL);
}
/* part ends */

/* part: end */
static void unload_driver(struct lf_fence *finished)
{
	char name[32];

	lf_bo_unmap(after);
	lf_attachment_put(importer);
	lf_held_put(held);
	must(lf_resv_lock(lf_vm_resv(vm), NULL));
	must(lf_vm_close(vm));
	lf_resv_unlock(lf_vm_resv(vm));
	lf_vm_put(vm);
	lf_va_heap_destroy(heap);
	lf_bo_put(bo);
	lf_bo_put(next);
	must(lf_reclaim_barrier()); /* the reclaimer has done all that was deferred: release hooks, and what waited for a grace period */

	lf_queue_put(engine);
	lf_timeline_put(dma);
	must(lf_provider_close(driver, SOON));
	lf_provider_put(driver);
	say("driver", "is gone, and may be unloaded");

	lf_fence_name(finished, name, sizeof(name));
	printf("%-8s  still has the job's fence: %s, status %d\n", "app", name, lf_fence_status(finished));
	lf_fence_put(finished);
	lf_fence_put(semaphore);
}

int main(void)
{
	struct lf_fence *bound, *finished;

	must(lf_track(LF_TRACK_OBJECTS)); /* so that lf_fini() knows what was forgotten */
	load_driver();
	make_memory();
	bound = map_buffer();
	finished = submit(bound);
	care(finished);
	import();
	evict();
	unmap_buffer(finished);
	let_it_happen(finished);
	reuse();
	look();
	unload_driver(finished);
	printf("%-8s  has forgotten %d objects\n", "app", lf_fini());
	return 0;
}
/* part ends */
