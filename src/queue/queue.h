/* SPDX-License-Identifier: MIT */
/*
 * The inside of the stubbed hardware queue: what queue.c, engine.c, job.c and vclock.c share. Overview and invariants are in queue.c.
 */
#ifndef LF_QUEUE_QUEUE_H
#define LF_QUEUE_QUEUE_H

#include <libfence/queue.h>

#include "base/check.h"
#include "base/library.h"
#include "base/port.h"
#include "base/reclaim.h"
#include "base/refcount.h"
#include "fence/core.h"
#include "fence/provider.h"

/* --- Jobs (job.c) -------------------------------------------------------------------------------------------------------- */

/* Whose a job is: its maker's, a push's, or its queue's. */
enum job_state { JOB_CREATED, JOB_PUSHING, JOB_PUSHED };

/* Where a job of a queue is, see the states in queue.c. */
enum job_stage { STAGE_WAITING, STAGE_RING, STAGE_RUNNING, STAGE_COMPLETED };

/* What a run of a job does wrong. */
enum fault { FAULT_NONE, FAULT_HANG, FAULT_LOST_INTERRUPT, FAULT_LATE, FAULT_REORDER };

/* A fence that a job waits for. The node is on it from the push until the fence signals or the job is finished. */
struct dependency {
	struct lf_fence_cb cb;
	struct lf_job *job;
	struct lf_fence *fence; /* a reference of the job's; NULL when it had signaled before the push */
};

struct lf_job {
	lf_atomic_u32 count; /* users', one of the queue while unfinished, one while waits is not 0 */
	lf_atomic_u32 state; /* enum job_state */
	lf_atomic_u32 waits; /* dependencies that have not signaled, and one for the push until it is through */
	lf_atomic_u32 dependency_error; /* the first one, negated */
	lf_atomic_u32 runs;
	struct lf_queue *queue; /* immutable; a reference */
	struct lf_fence *scheduled, *finished; /* immutable once pushed; references */
	uint32_t credits; /* immutable */
	int64_t duration; /* immutable */
	void *data; /* immutable */
	void (*release)(void *data); /* immutable; who takes the job out of the list of unreleased ones calls it */
	struct dependency *dependencies; /* the maker's until pushed, then the engine's */
	size_t dependency_count, dependency_capacity;
	struct lf_job *next; /* of the list it is in: waiting (protected by the queue's mutex), ring (the engine's), dying (one thread's) */
	struct lf_job *unreleased_prev, *unreleased_next; /* protected by the queue's mutex */
	bool unreleased; /* protected by the queue's mutex: in that list */
	bool announced; /* protected by the queue's mutex: JOB_QUEUE was told, the push will not touch the dependencies any more */
	uint64_t seqno; /* immutable once pushed */
	/* The engine's: */
	enum job_stage stage;
	enum fault fault; /* of the run */
	bool has_credits; /* its credits are counted in the ring's */
	int result; /* of the run, or of the reset */
	int64_t started; /* when its run hook had returned: duration and timeout count from here */
	struct lf_deferred deferred;
};

/* Jobs in a row, linked by next. */
struct job_list {
	struct lf_job *head, *tail;
};

static inline void list_append(struct job_list *list, struct lf_job *job)
{
	job->next = NULL;
	if (list->tail)
		list->tail->next = job;
	else
		list->head = job;
	list->tail = job;
}

static inline struct lf_job *list_take_first(struct job_list *list)
{
	struct lf_job *job = list->head;

	list->head = job->next;
	if (!list->head)
		list->tail = NULL;
	return job;
}

/* Whether nothing is left that the job waits for. */
static inline bool job_is_ready(struct lf_job *job)
{
	/* order: queue-waits (acquire): sees what was written before the dependencies were signaled, and all that the push did */
	return u32_load(&job->waits, PLANT_ORDER(161, memory_order_relaxed, memory_order_acquire)) == 0;
}

/* Lets go of the fences that the job waited or still waits for. The engine's, for an announced job. */
void job_drop_dependencies(struct lf_job *job);

/* --- Queues (queue.c) ---------------------------------------------------------------------------------------------------- */

/* Of a queue with a thread. */
enum thread_state { THREAD_NONE, THREAD_STARTED, THREAD_JOINING, THREAD_JOINED };

struct lf_queue {
	lf_atomic_u32 handles; /* the users' references */
	lf_atomic_u32 count; /* what keeps the memory: one for all handles, one a job, one a call that needs it */
	lf_atomic_u32 kicks; /* changes when the thread has something to look at; bit 0: it sleeps on this word */
	lf_atomic_u32 changes; /* changes when the queue is over, and when its thread is joined; closers sleep on it, and who waits for the join */
	lf_atomic_u64 now; /* of a manual queue: its time, moved by steps */

	/* Immutable: */
	enum lf_queue_mode mode;
	uint32_t credits;
	int64_t timeout;
	const struct lf_queue_ops *ops;
	struct lf_queue_faults faults;
	void (*observe)(void *user, const struct lf_queue_event *event);
	void *user;
	struct lf_timeline *scheduled, *finished;
	struct lf_vclock *clock; /* a reference, of a virtual queue */
	struct provider_resource resource;

	struct port_mutex mutex;
	/* Protected by mutex: */
	struct job_list waiting;
	struct lf_job *unreleased; /* jobs whose release hook nobody has taken on */
	unsigned releasing; /* release hooks that run */
	uint64_t unfinished; /* jobs that are pushed or being pushed */
	struct lf_queue_stats stats;
	bool driven; /* somebody has the engine: see engine_begin() */
	bool closing; /* nothing more is pushed, nothing more starts */
	bool revoked; /* the provider closes: no hook once all is finished */
	bool registered; /* the resource is its provider's */
	int lost; /* the error of the loss, or 0 */
	bool loss_untold; /* LF_QUEUE_LOST is to be observed */
	unsigned closers; /* threads that sleep until the queue is over */
	enum thread_state thread_state;

	/* The engine's, that is of who drives it: */
	struct job_list ring;
	uint32_t ring_credits;
	struct lf_job *running; /* in the ring */
	uint64_t memory; /* what the hardware wrote: everything up to this seqno is complete */
	int64_t interrupt_at; /* when the first late interrupt comes */
	bool interrupt_held; /* an interrupt comes behind that of the next job */
	uint64_t random;

	port_thread thread;
	pid_t pid; /* of the process whose thread it is */
	struct lf_queue *clock_next; /* protected by the clock's mutex */
	struct lf_deferred deferred;
	char name[]; /* immutable */
};

/* hook_enter() for a hook of a queue, whose end is a hook_leave(). */
void queue_hook_enter(struct hook_frame *frame, struct lf_queue *q) LF_EXCLUDES(&q->mutex);

/* Reports and returns -EDEADLK where a call that drives or waits for an engine may not be. */
int queue_check_drive(const char *function);

/* The queue's time. */
int64_t queue_now(struct lf_queue *q);

/* Tells the observer. */
void queue_observe(struct lf_queue *q, enum lf_queue_event_kind kind, struct lf_job *job, int error, int64_t time) LF_EXCLUDES(&q->mutex);

void queue_ref(struct lf_queue *q);
void queue_unref(struct lf_queue *q) LF_EXCLUDES(&q->mutex);

/* After a change by which the queue may be over: tells who waits for that. */
void queue_settled(struct lf_queue *q) LF_EXCLUDES(&q->mutex);

/* Takes a job out of the list of unreleased ones. */
void queue_take_release(struct lf_queue *q, struct lf_job *job) LF_REQUIRES(&q->mutex);

/* Calls a release hook that was taken on. Afterwards the queue may be settled. */
void queue_call_release(struct lf_queue *q, void (*release)(void *data), void *data) LF_EXCLUDES(&q->mutex);

/* Everything unfinished and everything pushed later completes with @error. */
void queue_lose(struct lf_queue *q, int error) LF_EXCLUDES(&q->mutex);

/* Nothing more is pushed; what does not run is cancelled, as far as that can be done without waiting. */
void queue_begin_close(struct lf_queue *q) LF_EXCLUDES(&q->mutex);

/* --- Who drives the engine (queue.c) ------------------------------------------------------------------------------------- */

/* Takes the right to drive the engine. Returns false when somebody has it. */
bool engine_begin(struct lf_queue *q) LF_EXCLUDES(&q->mutex);

/* Gives it back, after what a loss or a close asked for meanwhile was done. */
void engine_end(struct lf_queue *q) LF_EXCLUDES(&q->mutex);

/* A loss, a close, or a job behind one of them: sees to it that somebody does what is left. */
void engine_kick(struct lf_queue *q) LF_EXCLUDES(&q->mutex);

/* Tells the thread, if there is one, that something is ready. Runs no code of users. */
void engine_wake(struct lf_queue *q);

/* --- The engine (engine.c), for who drives it ---------------------------------------------------------------------------- */

enum event_kind { EVENT_NONE, EVENT_COMPLETE, EVENT_INTERRUPT, EVENT_TIMEOUT, EVENT_RUN, EVENT_LOST, EVENT_CANCEL };

/* What the engine does next, and when. */
struct event {
	enum event_kind kind;
	int64_t time; /* not before now */
};

void engine_init(struct lf_queue *q);

/* Whether a loss or a close left something that needs nobody's step. For who has the engine, or could take it. */
bool queue_must_settle(const struct lf_queue *q) LF_REQUIRES(&q->mutex);

struct event engine_next(struct lf_queue *q, int64_t now) LF_EXCLUDES(&q->mutex);
enum lf_queue_step_result engine_do(struct lf_queue *q, enum event_kind kind, int64_t now) LF_EXCLUDES(&q->mutex);

/* --- Virtual clocks (vclock.c) ------------------------------------------------------------------------------------------- */

void vclock_add(struct lf_vclock *clock, struct lf_queue *q);
void vclock_remove(struct lf_vclock *clock, struct lf_queue *q);

#endif /* LF_QUEUE_QUEUE_H */
