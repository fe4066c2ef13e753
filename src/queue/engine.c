/* SPDX-License-Identifier: MIT */
/*
 * The engine: what the emulated hardware does next, and its interrupt handler.
 *
 * Purpose: one state machine for all three clocks. engine_next() says what comes next and when, engine_do() does it; the thread,
 * lf_queue_step() and lf_vclock_run() differ only in how they let time pass in between. States, invariants and locking are in queue.c.
 *
 * Everything here runs with the right to drive (Q2), which owns the ring and its jobs. No real time and no address takes part in a
 * decision, so that the same seed gives the same events.
 *
 * Completion is what hardware does: engine_complete() writes to the memory word and raises an interrupt, or not, as the fault wants it;
 * interrupt() reads the word and finishes everything up to it, each job with its own result (Q6). So whatever comes next heals
 * what was lost: another interrupt, or the timeout, which reads the word before it takes the engine for hung.
 *
 * Not here: who may drive (queue.c), dependencies (job.c).
 */
#include "queue/queue.h"

/* --- Time and chance ----------------------------------------------------------------------------------------------------- */

static int64_t time_add(int64_t time, int64_t duration)
{
	int64_t sum;

	return __builtin_add_overflow(time, duration, &sum) ? LF_DEADLINE_NEVER : sum;
}

/* xorshift64*; the state is never 0. */
static uint64_t random_next(struct lf_queue *q)
{
	q->random ^= q->random >> 12;
	q->random ^= q->random << 25;
	q->random ^= q->random >> 27;
	return q->random * UINT64_C(0x2545f4914f6cdd1d);
}

/* Draws for one fault. It always draws, so that one fault's odds do not move another's. */
static bool draw(struct lf_queue *q, uint64_t run, uint32_t one_in)
{
	uint64_t r = q->faults.exact ? run : random_next(q) >> 32;

	return one_in && r % one_in == 0;
}

/* What the nth run does wrong: at most one thing. */
static enum fault draw_fault(struct lf_queue *q, uint64_t run)
{
	const struct lf_queue_faults *faults = &q->faults;
	bool hang = draw(q, run, faults->hang_one_in);
	bool lost = draw(q, run, faults->lost_interrupt_one_in);
	bool late = draw(q, run, faults->late_one_in);
	bool reorder = draw(q, run, faults->reorder_one_in);

	if (hang)
		return FAULT_HANG;
	if (lost)
		return FAULT_LOST_INTERRUPT;
	if (late)
		return FAULT_LATE;
	return reorder ? FAULT_REORDER : FAULT_NONE;
}

void engine_init(struct lf_queue *q)
{
	/* Spreads small seeds over the word, and avoids 0. */
	q->random = (q->faults.seed + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
	q->interrupt_at = LF_DEADLINE_NEVER;
	for (int i = 0; i < 4; i++)
		random_next(q);
}

/* --- The interrupt handler ----------------------------------------------------------------------------------------------- */

/* The last of those at the head of the ring that are complete in memory with the same result; NULL when there is none. */
static struct lf_job *last_alike(const struct lf_queue *q)
{
	const struct lf_job *head = q->ring.head;
	struct lf_job *last = NULL;

	for (struct lf_job *job = q->ring.head; job && job->stage == STAGE_COMPLETED && job->seqno <= q->memory; job = job->next) {
		if (job->result != head->result && !PLANTED(42))
			break;
		last = job;
	}
	return last;
}

static void count_finished(struct lf_queue *q, uint64_t n, int error)
{
	port_mutex_lock(&q->mutex);
	q->stats.finished += n;
	if (error)
		q->stats.failed += n;
	port_mutex_unlock(&q->mutex);
}

/* The loss of the engine may have come before us with a result of its own. */
static int final_error(struct lf_queue *q, const struct lf_job *job, int error)
{
	int status = lf_fence_status(job->finished);
	int final = status < 0 ? status : 0;

	if (!final != !error) {
		port_mutex_lock(&q->mutex);
		if (final)
			q->stats.failed++;
		else
			q->stats.failed--;
		port_mutex_unlock(&q->mutex);
	}
	return final;
}

/* A job whose fences are signaled leaves the queue. */
static void retire(struct lf_queue *q, struct lf_job *job, int error, int64_t now)
{
	if (job->has_credits && !PLANTED(47))
		q->ring_credits -= job->credits;
	job_drop_dependencies(job);
	queue_observe(q, LF_QUEUE_JOB_DONE, job, final_error(q, job, error), now);
	port_mutex_lock(&q->mutex);
	q->unfinished--;
	port_mutex_unlock(&q->mutex);
	lf_job_put(job); /* the queue's reference */
}

/* Finishes the jobs at the head of the ring up to @last, which all have its result. */
static void finish(struct lf_queue *q, struct lf_job *last, int64_t now)
{
	int error = last->result;
	struct lf_job *job;
	uint64_t n = 1;

	for (job = q->ring.head; job != last; job = job->next)
		n++;
	/* Counted first: who has seen the fence signaled finds it in the figures. */
	count_finished(q, n, error);
	/* Of jobs that never started. */
	if (error)
		lf_timeline_signal_to_at(q->scheduled, last->seqno, error, now);
	lf_timeline_signal_to_at(q->finished, last->seqno, error, now);
	do {
		job = list_take_first(&q->ring);
		retire(q, job, error, now);
	} while (n-- > 1);
}

/* Reads the memory word and finishes everything up to it. Returns whether there was anything. */
static bool interrupt(struct lf_queue *q, int64_t now)
{
	bool any = false;
	struct lf_job *last;

	/* What else is under way has nothing to tell any more. */
	q->interrupt_at = LF_DEADLINE_NEVER;
	q->interrupt_held = false;
	while ((last = last_alike(q)) != NULL) {
		finish(q, last, now);
		any = true;
	}
	return any;
}

/* --- The hardware -------------------------------------------------------------------------------------------------------- */

static struct lf_job *next_to_run(const struct lf_queue *q)
{
	struct lf_job *job = q->ring.head;

	while (job && job->stage != STAGE_RING)
		job = job->next;
	return job;
}

/* Writes to memory how far the ring is complete. */
static void write_memory(struct lf_queue *q)
{
	for (const struct lf_job *job = q->ring.head; job && job->stage == STAGE_COMPLETED; job = job->next)
		q->memory = job->seqno;
}

static void complete_with(struct lf_job *job, int result)
{
	job->stage = STAGE_COMPLETED;
	job->result = result;
}

static void inject(struct lf_queue *q, uint64_t *count, enum lf_queue_event_kind kind, struct lf_job *job, int64_t now)
{
	port_mutex_lock(&q->mutex);
	++*count;
	port_mutex_unlock(&q->mutex);
	queue_observe(q, kind, job, 0, now);
}

static int call_run(struct lf_queue *q, struct lf_job *job)
{
	struct hook_frame frame;
	int result;

	queue_hook_enter(&frame, q);
	result = q->ops->run(job, job->data);
	hook_leave(&frame);
	return check_error("run hook of a queue", result);
}

/* What the first start of a job brings with it. */
static void start_first(struct lf_queue *q, struct lf_job *job, int64_t now)
{
	job_drop_dependencies(job);
	lf_timeline_signal_to_at(q->scheduled, job->seqno, 0, now);
}

static enum lf_queue_step_result engine_run(struct lf_queue *q, int64_t now)
{
	struct lf_job *job = next_to_run(q);
	uint64_t run = q->stats.runs + 1; /* only the engine writes it */

	if (run == q->faults.lose_engine_at) {
		queue_lose(q, -ENODEV);
		return LF_STEP_LOST;
	}
	job->fault = draw_fault(q, run);
	inject(q, &q->stats.runs, LF_QUEUE_JOB_RUN, job, now);
	if (u32_fetch_add(&job->runs, 1, memory_order_relaxed) == 0) /* relaxed: a figure; only the engine writes it */
		start_first(q, job, now);
	if (job->fault == FAULT_HANG)
		inject(q, &q->stats.hangs, LF_QUEUE_FAULT_HANG, job, now);
	else
		job->result = call_run(q, job);
	job->started = queue_now(q);
	job->stage = STAGE_RUNNING;
	q->running = job;
	return LF_STEP_RUN;
}

static enum lf_queue_step_result engine_complete(struct lf_queue *q, int64_t now)
{
	struct lf_job *job = q->running;
	int64_t late;

	q->running = NULL;
	complete_with(job, job->result);
	write_memory(q);
	if (job->fault == FAULT_LOST_INTERRUPT) {
		inject(q, &q->stats.lost_interrupts, LF_QUEUE_FAULT_LOST_INTERRUPT, job, now);
		if (!q->interrupt_held)
			return LF_STEP_COMPLETE;
	} else if (job->fault == FAULT_LATE) {
		inject(q, &q->stats.late, LF_QUEUE_FAULT_LATE, job, now);
		late = time_add(now, q->faults.late_ns);
		if (late < q->interrupt_at)
			q->interrupt_at = late;
		return LF_STEP_COMPLETE;
	} else if (job->fault == FAULT_REORDER && next_to_run(q)) {
		inject(q, &q->stats.reordered, LF_QUEUE_FAULT_REORDER, job, now);
		q->interrupt_held = true;
		return LF_STEP_COMPLETE;
	}
	interrupt(q, now);
	return LF_STEP_COMPLETE;
}

/* --- Reset --------------------------------------------------------------------------------------------------------------- */

static enum lf_reset_verdict ask_verdict(struct lf_queue *q, struct lf_job *job, bool guilty)
{
	enum lf_reset_verdict verdict;
	struct hook_frame frame;

	if (!q->ops->reset)
		return guilty ? LF_RESET_FAIL : LF_RESET_RETRY;
	queue_hook_enter(&frame, q);
	verdict = q->ops->reset(job, job->data, guilty);
	hook_leave(&frame);
	return verdict;
}

/* The head of the ring has run too long. Those that an earlier reset failed stay so. */
static void reset(struct lf_queue *q, int64_t now)
{
	struct lf_job *guilty = q->ring.head;

	inject(q, &q->stats.resets, LF_QUEUE_RESET, guilty, now);
	q->running = NULL;
	for (struct lf_job *job = guilty; job; job = job->next) {
		if (job->stage == STAGE_COMPLETED)
			continue;
		if (ask_verdict(q, job, job == guilty) == LF_RESET_RETRY)
			job->stage = STAGE_RING;
		else
			complete_with(job, job == guilty ? -ETIME : -ECANCELED);
	}
	write_memory(q);
	interrupt(q, now);
}

static enum lf_queue_step_result engine_timeout(struct lf_queue *q, int64_t now)
{
	if (!PLANTED(46) && interrupt(q, now))
		return LF_STEP_INTERRUPT;
	reset(q, now);
	return LF_STEP_RESET;
}

/* --- Loss and close ------------------------------------------------------------------------------------------------------ */

/* Whether the oldest job outside the ring is through its push, so that it can be finished. */
static bool has_announced(const struct lf_queue *q) LF_REQUIRES(&q->mutex)
{
	return q->waiting.head && q->waiting.head->announced;
}

/* Moves everything into the ring that is through its push, to be finished there. */
static void take_all_waiting(struct lf_queue *q)
{
	port_mutex_lock(&q->mutex);
	while (has_announced(q))
		list_append(&q->ring, list_take_first(&q->waiting));
	port_mutex_unlock(&q->mutex);
}

/* Everything that is not complete in memory completes with @error. */
static void complete_rest(struct lf_queue *q, int error, int64_t now)
{
	take_all_waiting(q);
	for (struct lf_job *job = q->ring.head; job; job = job->next) {
		if (job->stage != STAGE_COMPLETED)
			complete_with(job, error);
	}
	write_memory(q);
	interrupt(q, now);
}

static void engine_lost(struct lf_queue *q, int64_t now)
{
	bool tell;
	int error;

	port_mutex_lock(&q->mutex);
	error = q->lost;
	tell = q->loss_untold;
	q->loss_untold = false;
	port_mutex_unlock(&q->mutex);
	/* Who lost it may not be through with that yet; but no fence may be told done before it is. */
	lf_timeline_lose(q->scheduled, error);
	lf_timeline_lose(q->finished, error);
	if (tell)
		queue_observe(q, LF_QUEUE_LOST, NULL, error, now);
	q->running = NULL;
	complete_rest(q, error, now);
}

/* The queue closes, and nothing runs but what has hung. */
static void engine_cancel(struct lf_queue *q, int64_t now)
{
	interrupt(q, now);
	if (q->running)
		complete_with(q->running, -ETIME);
	q->running = NULL;
	complete_rest(q, -ECANCELED, now);
}

bool queue_must_settle(const struct lf_queue *q)
{
	return q->loss_untold || ((q->lost || q->closing) && (q->ring.head || has_announced(q)));
}

/* --- Invariants ---------------------------------------------------------------------------------------------------------- */

/* Asserts of queue.c's what the driver can see. */
static void queue_assert_valid(const struct lf_queue *q) LF_REQUIRES(&q->mutex)
{
	const struct lf_job *last = NULL, *running = NULL;
	uint32_t credits = 0;

	if (!DEBUG_CHECKS)
		return;
	invariant(q->driven); /* Q2 */
	for (const struct lf_job *job = q->ring.head; job; job = job->next) {
		invariant(!last || last->seqno < job->seqno); /* Q1 */
		invariant(job->stage != STAGE_WAITING);
		if (job->stage == STAGE_RUNNING)
			running = job;
		credits += job->has_credits ? job->credits : 0;
		last = job;
	}
	invariant(running == q->running);
	invariant(!last || !q->waiting.head || last->seqno < q->waiting.head->seqno); /* Q1 */
	invariant(credits == q->ring_credits && credits <= q->credits); /* Q5 */
	invariant(!q->waiting.head || q->unfinished); /* Q7 */
}

/* --- What comes next ----------------------------------------------------------------------------------------------------- */

/* What is ready enters the ring, in order. */
static void admit(struct lf_queue *q) LF_REQUIRES(&q->mutex)
{
	struct lf_job *job;

	while ((job = q->waiting.head) != NULL && job_is_ready(job) && q->credits - q->ring_credits >= job->credits) {
		q->ring_credits += job->credits;
		job->has_credits = true;
		job->stage = STAGE_RING;
		list_append(&q->ring, list_take_first(&q->waiting));
	}
}

/* Keeps the earlier one; of equals the first. What is overdue is due now. */
static void consider(struct event *best, enum event_kind kind, int64_t time, int64_t now)
{
	if (time < now)
		time = now;
	if (time < best->time)
		*best = (struct event){ kind, time };
}

static struct event next_event(const struct lf_queue *q, int64_t now)
{
	struct event best = { EVENT_NONE, LF_DEADLINE_NEVER };
	const struct lf_job *head = q->ring.head;

	if (q->running && q->running->fault != FAULT_HANG)
		consider(&best, EVENT_COMPLETE, time_add(q->running->started, q->running->duration), now);
	consider(&best, EVENT_INTERRUPT, q->interrupt_at, now);
	if (head && head->stage != STAGE_RING)
		consider(&best, EVENT_TIMEOUT, time_add(head->started, q->timeout), now);
	if (!q->running && next_to_run(q))
		consider(&best, EVENT_RUN, now, now);
	return best;
}

/* While closing only the running job goes on; one that hangs, or is out of time, ends. */
static struct event next_when_closing(const struct lf_queue *q, int64_t now)
{
	struct event best = { EVENT_COMPLETE, LF_DEADLINE_NEVER };

	if (!q->running || q->running->fault == FAULT_HANG)
		return (struct event){ EVENT_CANCEL, now };
	consider(&best, EVENT_COMPLETE, time_add(q->running->started, q->running->duration), now);
	consider(&best, EVENT_CANCEL, time_add(q->running->started, q->timeout), now);
	return best;
}

struct event engine_next(struct lf_queue *q, int64_t now)
{
	bool settle, lost, closing;

	port_mutex_lock(&q->mutex);
	lost = q->lost;
	closing = q->closing;
	settle = queue_must_settle(q);
	if (!lost && !closing)
		admit(q);
	queue_assert_valid(q);
	port_mutex_unlock(&q->mutex);
	if (!lost && !closing)
		return next_event(q, now);
	if (!settle)
		return (struct event){ EVENT_NONE, LF_DEADLINE_NEVER };
	return lost ? (struct event){ EVENT_LOST, now } : next_when_closing(q, now);
}

enum lf_queue_step_result engine_do(struct lf_queue *q, enum event_kind kind, int64_t now)
{
	switch (kind) {
	case EVENT_NONE:
		return LF_STEP_IDLE;
	case EVENT_COMPLETE:
		return engine_complete(q, now);
	case EVENT_INTERRUPT:
		interrupt(q, now);
		return LF_STEP_INTERRUPT;
	case EVENT_TIMEOUT:
		return engine_timeout(q, now);
	case EVENT_RUN:
		return engine_run(q, now);
	case EVENT_LOST:
		engine_lost(q, now);
		return LF_STEP_LOST;
	case EVENT_CANCEL:
		engine_cancel(q, now);
		return LF_STEP_COMPLETE;
	}
	return LF_STEP_IDLE;
}
