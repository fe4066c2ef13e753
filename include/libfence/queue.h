/* SPDX-License-Identifier: MIT */
/**
 * @file
 * A stubbed hardware queue: an in-order engine that runs jobs and signals their fences, and fails like hardware where it is told to.
 *
 * A job waits for its dependencies (by callback: no thread blocks), goes to the engine when it is the oldest of its queue and its credits
 * fit, *runs* (its scheduled fence signals), and *completes*: the engine writes the job's seqno to memory and raises an interrupt, whose
 * handler reads that memory and signals everything up to it (the finished fence). That is also how a lost interrupt heals itself.
 *
 *     created --push--> queued --dependencies done, credits fit--> in the ring --oldest--> running --> finished
 *                                                                     ^------ retried ------- reset (timeout)
 *
 * Time is one of three things: real (a thread for each engine), a step of the caller's, or a virtual clock that several queues
 * share and that makes a run repeat itself to the last event. Fences carry the time of their queue.
 */
#ifndef LIBFENCE_QUEUE_H
#define LIBFENCE_QUEUE_H

#include <libfence/timeline.h>

LF_BEGIN_DECLS

struct lf_job;
struct lf_queue;
struct lf_vclock;

/* --- Virtual time ------------------------------------------------------------------------------------------------------- */

/**
 * Makes a virtual clock at time 0, for queues of mode #LF_QUEUE_VIRTUAL.
 *
 * @param ret_clock a new reference
 * @return 0; -ENOMEM; -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_vclock_create(struct lf_vclock **ret_clock) LF_MUST_CHECK;

/**
 * Consumes the maker's reference; each queue on the clock holds one. Since nobody can run the clock any more, its queues are closed: what
 * they have not finished completes as lf_queue_close() says.
 *
 * @param clock may be NULL
 *
 * @par Context
 * Like lf_fence_signal(): callbacks and hooks of those queues may run here.
 */
LF_API void lf_vclock_put(struct lf_vclock *clock);

/**
 * Reads a virtual clock.
 *
 * @param clock borrowed for the call
 * @return nanoseconds since its creation
 */
LF_API int64_t lf_vclock_now(struct lf_vclock *clock);

/**
 * Lets the queues of a clock work, event by event in the order of time (at the same time: in the order in which the queues were made),
 * until nothing is left to do or the next event lies beyond @p until. Jobs, callbacks and hooks run in this call.
 *
 * @param clock borrowed for the call
 * @param until nanoseconds of the clock; #LF_DEADLINE_NEVER for all there is. When it is not that, the clock stands there afterwards.
 *
 * @par Context
 * One thread at a time. Not inside a callback, a hook or a read section.
 * @return the number of events; -EBUSY (reported): another thread runs it; -EDEADLK (reported): called where it may not be.
 */
LF_API int64_t lf_vclock_run(struct lf_vclock *clock, int64_t until);

/* --- Queues ------------------------------------------------------------------------------------------------------------- */

/** Where a queue's time comes from. */
enum lf_queue_mode {
	LF_QUEUE_THREAD, /**< a thread of its own, lf_now(): run hooks take what they take, durations are slept */
	LF_QUEUE_MANUAL, /**< lf_queue_step(): a time of the queue's own, from 0, that each step moves on to the next event */
	LF_QUEUE_VIRTUAL, /**< a virtual clock */
};

/** What a reset does with a job that was in the ring. */
enum lf_reset_verdict {
	LF_RESET_RETRY, /**< run it again */
	LF_RESET_FAIL, /**< complete it: the guilty one with -ETIME, another with -ECANCELED */
};

/** The driver's part of a queue. Hooks run with no lock held, on the engine's thread (or in the step or run call). */
struct lf_queue_ops {
	/**
	 * Does the work of a job; may be called again for the same job after a reset. Its own time is not the job's: duration and timeout
	 * count from its return.
	 * @return 0, or a negative errno that the finished fence carries.
	 */
	int (*run)(struct lf_job *job, void *job_data);
	/**
	 * Decides for each job in the ring that is not complete, oldest first, when the engine is reset. NULL: the guilty one fails, the
	 * others are retried. @p guilty is the job whose timeout it was. A job that fails behind one that is retried finishes after it.
	 */
	enum lf_reset_verdict (*reset)(struct lf_job *job, void *job_data, bool guilty);
};

/**
 * What an engine does wrong: in each run of a job at most one of hang, lost, late and reorder, in this order. "One in n" is drawn from the
 * seed; 0 is never.
 */
struct lf_queue_faults {
	uint64_t seed; /**< the same seed, jobs and mode (but for THREAD) give the same faults */
	bool exact; /**< every nth run instead of one in n at random */
	uint32_t hang_one_in; /**< the run hook is not called, and the job never completes: the timeout resets the engine */
	uint32_t lost_interrupt_one_in; /**< the job completes in memory, but nobody is told: a later interrupt or the timeout finds it */
	uint32_t late_one_in; /**< the interrupt comes later, by @c late_ns, unless an earlier one or the timeout tells of the job first */
	int64_t late_ns; /**< nanoseconds */
	uint32_t reorder_one_in; /**< the interrupt comes after that of the next job (or, if there is none in the ring, at once, uncounted) */
	uint64_t lose_engine_at; /**< the engine is lost with -ENODEV when it is about to start its nth run, counted from 1 */
};

/** What happens in a queue, named as in the kernel's gpu_scheduler trace events where they have a name. */
enum lf_queue_event_kind {
	LF_QUEUE_JOB_QUEUE, /**< pushed */
	LF_QUEUE_JOB_RUN, /**< started on the engine */
	LF_QUEUE_JOB_DONE, /**< finished fence signaled; @c error says how */
	LF_QUEUE_FAULT_HANG, /**< injected: this run hangs */
	LF_QUEUE_FAULT_LOST_INTERRUPT, /**< injected */
	LF_QUEUE_FAULT_LATE, /**< injected */
	LF_QUEUE_FAULT_REORDER, /**< injected */
	LF_QUEUE_RESET, /**< the engine was reset; @c job is the guilty one */
	LF_QUEUE_LOST, /**< the engine was lost; no job */
};

/** One event. */
struct lf_queue_event {
	enum lf_queue_event_kind kind; /**< which */
	int64_t time; /**< nanoseconds of the queue's clock */
	struct lf_job *job; /**< borrowed for the call; NULL where there is none */
	int error; /**< 0 or a negative errno, of JOB_DONE and LOST */
};

/** What a queue is made from. */
struct lf_queue_desc {
	const char *name; /**< of the engine, copied; its timelines are called so, and with " scheduled" behind it */
	enum lf_queue_mode mode; /**< where its time comes from */
	struct lf_vclock *clock; /**< for #LF_QUEUE_VIRTUAL, else NULL; takes a reference */
	uint32_t credits; /**< how many credits of jobs fit into the ring at once; 0 for 16 */
	int64_t timeout; /**< nanoseconds that a job may run before the engine is reset; 0 for 1 s; #LF_DEADLINE_NEVER for none */
	const struct lf_queue_ops *ops; /**< borrowed until the queue is gone; run is not NULL */
	struct lf_queue_faults faults; /**< what goes wrong; all zero for nothing */
	/** Told of every event, if not NULL; runs like a hook, in the order of the events of the queue (JOB_QUEUE: on the thread that pushes). */
	void (*observe)(void *user, const struct lf_queue_event *event);
	void *user; /**< handed to observe */
	/**
	 * Whose code the hooks are; takes a reference; may be NULL. Its close loses the engine with -ENODEV, closes the queue and waits
	 * until no hook runs; release hooks of jobs that others still hold are called then, too.
	 */
	struct lf_provider *provider;
};

/**
 * Makes a queue, and starts its thread if it has one.
 *
 * @param desc borrowed for the call
 * @param ret_queue a new reference
 * @return 0; -ENOMEM; -EAGAIN: no thread; -EINVAL (reported): no name, no run hook, a negative time, or mode and clock do not match;
 * -ESHUTDOWN: the provider is closing; -EOWNERDEAD in a poisoned child. May sleep.
 */
LF_API int lf_queue_create(const struct lf_queue_desc *desc, struct lf_queue **ret_queue) LF_MUST_CHECK;

/**
 * Takes a reference.
 *
 * @param q may be NULL
 * @return @p q
 */
LF_API struct lf_queue *lf_queue_get(struct lf_queue *q);

/**
 * Consumes the caller's reference. Each job holds the queue, so what was pushed still finishes after the last put; only a manual queue is
 * closed by it (see lf_queue_close()), since nobody could step it any more.
 *
 * @param q may be NULL
 *
 * @par Context
 * Any, also inside the queue's own hooks; never waits. The last put of a manual queue is like lf_fence_signal().
 */
LF_API void lf_queue_put(struct lf_queue *q);

/**
 * Ends a queue: nothing more can be pushed; jobs that do not run yet complete with -ECANCELED; the one that runs is waited for (a hung one
 * fails with -ETIME at once, and so does one that runs into its timeout); then the thread is joined. In manual and virtual time the
 * rest of the running job's duration is skipped, and callbacks and hooks run here.
 *
 * @param q borrowed for the call
 * @param deadline absolute nanoseconds (of lf_now(), whatever the mode)
 *
 * @par Context
 * Waits. Not from the queue's own hooks.
 * @return 0: every job has finished, no hook runs or will run but release. -ETIME: the running job went on beyond the deadline; can be
 * called again. -EDEADLK (reported): called where it may not be. -EOWNERDEAD in a poisoned child.
 */
LF_API int lf_queue_close(struct lf_queue *q, int64_t deadline);

/**
 * Loses the engine: everything unfinished and everything pushed later completes with the error. Sticky.
 *
 * @param q borrowed for the call
 * @param error like lf_timeline_lose()
 *
 * @par Context
 * Like lf_fence_signal(). A run hook that is running goes on, without effect on its fence. The fences are signaled when this returns; a
 * thread queue's events and release hooks follow on its thread.
 */
LF_API void lf_queue_lose(struct lf_queue *q, int error);

/** What one step did. */
enum lf_queue_step_result {
	LF_STEP_IDLE = 0, /**< nothing: the queue is empty or waits for dependencies */
	LF_STEP_RUN = 1, /**< the oldest job in the ring was started, and its run hook called */
	LF_STEP_COMPLETE = 2, /**< the running job completed, and its interrupt was handled, lost or put off */
	LF_STEP_INTERRUPT = 3, /**< a late interrupt came, or the timeout found what a lost one had to tell */
	LF_STEP_RESET = 4, /**< a job had hung: the engine was reset */
	LF_STEP_LOST = 5, /**< the engine was lost (lf_queue_faults.lose_engine_at) */
};

/**
 * Lets a queue of mode #LF_QUEUE_MANUAL do the next thing.
 *
 * @param q borrowed for the call
 *
 * @par Context
 * One thread at a time. Not inside a callback, a hook or a read section. Jobs, callbacks and hooks run in this call.
 * @return enum lf_queue_step_result; -EINVAL (reported): another mode; -EBUSY (reported): a step is under way; -EDEADLK (reported):
 * called where it may not be.
 */
LF_API int lf_queue_step(struct lf_queue *q);

/** What a queue has done. A job that its engine finishes is counted before its fence signals; one that was lost with the engine, after. */
struct lf_queue_stats {
	uint64_t pushed; /**< jobs */
	uint64_t finished; /**< jobs, with whatever result */
	uint64_t failed; /**< of those, with an error */
	uint64_t runs; /**< starts of jobs on the engine, retries included */
	uint64_t resets; /**< of the engine */
	uint64_t hangs; /**< injected */
	uint64_t lost_interrupts; /**< injected */
	uint64_t late; /**< injected */
	uint64_t reordered; /**< injected, where there was a next job */
};

/**
 * Reads the counters.
 *
 * @param q borrowed for the call
 * @param ret_stats filled in, of one moment
 */
LF_API void lf_queue_get_stats(struct lf_queue *q, struct lf_queue_stats *ret_stats);

/* --- Jobs --------------------------------------------------------------------------------------------------------------- */

/** What a job is made from. */
struct lf_job_desc {
	void *data; /**< handed to the hooks */
	uint32_t credits; /**< 0 for 1; at most those of the queue */
	int64_t duration; /**< nanoseconds that the engine is busy besides the run hook; not negative */
	/**
	 * Called once, when the job is finished (or was never pushed) and has been put for the last time, or when the queue's provider has
	 * closed; like a hook, on any thread. May be NULL.
	 */
	void (*release)(void *data);
};

/**
 * Makes a job, with both its fences. All that a job needs later is allocated here or by lf_job_push().
 *
 * @param q takes a reference, until the job is gone
 * @param desc borrowed for the call
 * @param ret_job a new reference
 * @return 0; -ENOMEM; -EINVAL (reported): more credits than the queue has, or a negative duration; -ESHUTDOWN: the provider is closed;
 * -EOWNERDEAD in a poisoned child. May sleep like lf_fence_create().
 */
LF_API int lf_job_create(struct lf_queue *q, const struct lf_job_desc *desc, struct lf_job **ret_job) LF_MUST_CHECK;

/**
 * Takes a reference.
 *
 * @param job may be NULL
 * @return @p job
 */
LF_API struct lf_job *lf_job_get(struct lf_job *job);

/**
 * Consumes the caller's reference. An unfinished job that was pushed is held by its queue.
 *
 * @param job may be NULL
 */
LF_API void lf_job_put(struct lf_job *job);

/**
 * Makes a job wait for a fence. Of several fences of one ordered timeline only the latest is kept; a signaled one is not kept at all.
 * A dependency that completes with an error lets the job run; lf_job_dependency_error() tells (of those that are, or would be, kept).
 *
 * @param job not pushed yet; one thread at a time
 * @param f takes a reference
 * @return 0; -ENOMEM; -EINVAL (reported): the job was pushed.
 */
LF_API int lf_job_add_dependency(struct lf_job *job, struct lf_fence *f) LF_MUST_CHECK;

/**
 * Hands a job to its queue: the fences get their seqnos, in the order of the pushes.
 *
 * @param job borrowed for the call; the queue takes a reference until it is finished
 * @param ret_finished when not NULL: a new reference on the finished fence
 *
 * @par Context
 * The dependencies' enable hooks run here. When the engine is lost already the fences complete at once, and their hooks and callbacks run
 * here too. Threads that push to one queue take turns, each for as long as two fences are emitted.
 * @return 0; -ENOMEM; -ESHUTDOWN: the queue is closed; -EINVAL (reported): pushed before; -EOWNERDEAD in a poisoned child. On failure the
 * job is as it was.
 */
LF_API int lf_job_push(struct lf_job *job, struct lf_fence **ret_finished) LF_MUST_CHECK;

/**
 * The fence that signals when the job starts (for the first time; retries do not un-signal it).
 *
 * @param job pushed
 * @return borrowed from the job; NULL (reported) before the push
 */
LF_API struct lf_fence *lf_job_scheduled(struct lf_job *job);

/**
 * The fence that signals when the job is finished.
 *
 * @param job pushed
 * @return borrowed from the job; NULL (reported) before the push
 */
LF_API struct lf_fence *lf_job_finished(struct lf_job *job);

/**
 * The first error among the dependencies that have signaled.
 *
 * @param job in its run hook this is final
 * @return 0 or a negative errno
 */
LF_API int lf_job_dependency_error(struct lf_job *job);

/**
 * How often the job was started on the engine.
 *
 * @param job borrowed for the call
 * @return 0 before the first time
 */
LF_API uint32_t lf_job_runs(struct lf_job *job);

/**
 * What the job was made with.
 *
 * @param job borrowed for the call
 * @return the data of its descriptor
 */
LF_API void *lf_job_data(struct lf_job *job);

LF_END_DECLS

#endif /* LIBFENCE_QUEUE_H */
