/* SPDX-License-Identifier: MIT */
/*
 * Race test of the queue: thousands of jobs with random dependencies over eight queues that fail like hardware.
 *
 * Oracle. Hooks and observers only take notes, each with a ticket from one counter; when all is over, a checker that knows nothing of the
 * queue goes through the notes:
 *  - every job is announced before it starts, starts before it is done, is done exactly once, and its fence has the result that its run
 *    hook returned, or -ETIME when its run hung;
 *  - a job's run hook is entered after those of all its dependencies have returned, sees their fences signaled, and finds in their (plain,
 *    unlocked) payloads what they wrote: each job's payload is a function of its dependencies';
 *  - in each queue jobs start in the order of seqnos, and time stamps of fences do not go backwards.
 * In the rounds with a loss or a close: every job that was pushed is finished, and those refused are refused for good.
 *
 * Healthy output: the numbers of hangs, lost, late and reordered interrupts are all above 0; in the rounds, jobs were finished both
 * with and without an error.
 */
#include "testing.h"

#include <unistd.h>

enum { QUEUES = 8, MAX_JOBS = 40000, MAX_DEPENDENCIES = 3, PUSHERS = 2 };

struct note {
	int queue;
	int dependencies[MAX_DEPENDENCIES], dependency_count;
	uint64_t payload; /* plain: ordered by the fences alone */
	uint64_t queued, started, returned, done; /* tickets; 0 is never */
	unsigned runs, dones;
	bool hung, saw_pending;
	int result, done_error;
	struct lf_fence *finished;
	struct lf_fence *visible; /* the same, for other pushers: atomic */
};

static struct note notes[MAX_JOBS];
static uint64_t tickets;
static struct lf_queue *queues[QUEUES];
static int per_pusher;
static bool in_virtual_time;

static uint64_t ticket(void)
{
	return __atomic_add_fetch(&tickets, 1, __ATOMIC_RELAXED);
}

static uint64_t payload_of(int i)
{
	uint64_t sum = (uint64_t)i + 1;

	for (int k = 0; k < notes[i].dependency_count; k++)
		sum = sum * 31 + notes[notes[i].dependencies[k]].payload;
	return sum;
}

static int run(struct lf_job *job, void *data)
{
	struct note *n = data;

	(void)job;
	n->started = ticket();
	n->runs++;
	/* Before anything is asked of a fence, which would be ordered by that. */
	n->payload = payload_of((int)(n - notes));
	for (int k = 0; k < n->dependency_count; k++)
		n->saw_pending |= !lf_fence_is_signaled(notes[n->dependencies[k]].finished);
	n->returned = ticket();
	return n->result;
}

static void observe(void *user, const struct lf_queue_event *event)
{
	struct note *n = event->job ? lf_job_data(event->job) : NULL;

	(void)user;
	if (event->kind == LF_QUEUE_JOB_QUEUE) {
		n->queued = ticket();
	} else if (event->kind == LF_QUEUE_FAULT_HANG) {
		n->hung = true;
		n->started = ticket();
	} else if (event->kind == LF_QUEUE_JOB_DONE) {
		n->done = ticket();
		n->dones++;
		n->done_error = event->error;
	}
}

static const struct lf_queue_ops ops = { .run = run };

static void make_queues(enum lf_queue_mode mode, struct lf_vclock *clock, uint64_t seed)
{
	in_virtual_time = mode == LF_QUEUE_VIRTUAL;
	for (int i = 0; i < QUEUES; i++) {
		struct lf_queue_desc desc = {
			.name = "engine",
			.mode = mode,
			.clock = clock,
			.credits = (uint32_t)(4 + i),
			.timeout = 2000000,
			.ops = &ops,
			.observe = observe,
			.faults = {
				.seed = seed + (uint64_t)i,
				.hang_one_in = 100,
				.lost_interrupt_one_in = 20,
				.late_one_in = 20,
				.late_ns = 50000,
				.reorder_one_in = 10,
			},
		};

		must(lf_queue_create(&desc, &queues[i]) == 0);
	}
}

/* Picks jobs that were pushed before, of any pusher, since a job that waits for a later one might wait for itself. */
static void choose_dependencies(struct note *n, int pusher, int index, uint64_t *random)
{
	int wanted = (int)(random_next(random) % (MAX_DEPENDENCIES + 1));

	n->dependency_count = 0;
	for (int k = 0; k < wanted && index > 0; k++) {
		int back = (int)(random_next(random) % 40) + 1;
		int other = (int)(random_next(random) % PUSHERS);
		int i = other * per_pusher + index - back;

		if (index >= back && (other == pusher || __atomic_load_n(&notes[i].visible, __ATOMIC_ACQUIRE)))
			n->dependencies[n->dependency_count++] = i;
	}
}

static void push_one(int pusher, int index, uint64_t *random)
{
	int i = pusher * per_pusher + index;
	struct note *n = &notes[i];
	struct lf_job_desc desc = { .data = n, .credits = (uint32_t)(random_next(random) % 4) };
	struct lf_job *job;

	if (in_virtual_time)
		desc.duration = (int64_t)(random_next(random) % 1000);
	n->queue = (int)(random_next(random) % QUEUES);
	n->result = random_next(random) % 50 ? 0 : -EIO;
	choose_dependencies(n, pusher, index, random);
	must(lf_job_create(queues[n->queue], &desc, &job) == 0);
	for (int k = 0; k < n->dependency_count; k++)
		must(lf_job_add_dependency(job, notes[n->dependencies[k]].finished) == 0);
	must(lf_job_push(job, &n->finished) == 0);
	__atomic_store_n(&n->visible, n->finished, __ATOMIC_RELEASE);
	lf_job_put(job);
}

struct pusher {
	int number;
	uint64_t random;
};

static void *push_many(void *arg)
{
	struct pusher *p = arg;

	for (int i = 0; i < per_pusher; i++)
		push_one(p->number, i, &p->random);
	return NULL;
}

/* --- The checker --------------------------------------------------------------------------------------------------------- */

static void check_job(int i)
{
	const struct note *n = &notes[i];
	int error = n->hung ? -ETIME : n->result;

	assert_int_equal(n->dones, 1);
	assert_int_equal(n->runs, n->hung ? 0 : 1);
	assert_int_equal(n->done_error, error);
	assert_int_equal(lf_fence_status(n->finished), error ? error : 1);
	assert_true(n->queued != 0 && n->queued < n->started && n->started < n->done);
	assert_false(n->saw_pending);
	if (n->hung)
		return;
	assert_true(n->payload == payload_of(i));
	for (int k = 0; k < n->dependency_count; k++) {
		const struct note *d = &notes[n->dependencies[k]];

		assert_true(d->started < n->started);
		assert_true(d->hung || d->returned < n->started);
	}
}

static int by_place(const void *a, const void *b)
{
	const struct note *x = *(struct note *const *)a, *y = *(struct note *const *)b;

	if (x->queue != y->queue)
		return x->queue < y->queue ? -1 : 1;
	return lf_fence_seqno(x->finished) < lf_fence_seqno(y->finished) ? -1 : 1;
}

static void check_order(int jobs)
{
	static struct note *sorted[MAX_JOBS];

	for (int i = 0; i < jobs; i++)
		sorted[i] = &notes[i];
	qsort(sorted, (size_t)jobs, sizeof(sorted[0]), by_place);
	for (int i = 1; i < jobs; i++) {
		if (sorted[i]->queue != sorted[i - 1]->queue)
			continue;
		assert_true(sorted[i]->started > sorted[i - 1]->started);
		assert_true(sorted[i]->done > sorted[i - 1]->done);
		assert_true(lf_fence_timestamp(sorted[i]->finished) >= lf_fence_timestamp(sorted[i - 1]->finished));
	}
}

static void check_all(int jobs)
{
	struct lf_queue_stats sum = { 0 }, one;

	for (int i = 0; i < jobs; i++)
		check_job(i);
	check_order(jobs);
	for (int i = 0; i < QUEUES; i++) {
		lf_queue_get_stats(queues[i], &one);
		sum.finished += one.finished;
		sum.failed += one.failed;
		sum.resets += one.resets;
		sum.hangs += one.hangs;
		sum.lost_interrupts += one.lost_interrupts;
		sum.late += one.late;
		sum.reordered += one.reordered;
	}
	assert_int_equal(sum.finished, jobs);
	assert_int_equal(sum.resets, sum.hangs);
	for (int i = 0; i < jobs; i++)
		sum.failed -= lf_fence_status(notes[i].finished) < 0;
	assert_int_equal(sum.failed, 0);
	test_note("%d jobs: %u hangs, interrupts: %u lost, %u late, %u reordered", jobs, (unsigned)sum.hangs, (unsigned)sum.lost_interrupts,
		(unsigned)sum.late, (unsigned)sum.reordered);
	assert_true(sum.hangs && sum.lost_interrupts && sum.late && sum.reordered);
}

static void end_queues(int jobs)
{
	for (int i = 0; i < QUEUES; i++) {
		assert_int_equal(lf_queue_close(queues[i], LF_DEADLINE_NEVER), 0);
		lf_queue_put(queues[i]);
	}
	for (int i = 0; i < jobs; i++)
		lf_fence_put(notes[i].finished);
}

static void begin(int jobs)
{
	must(jobs <= MAX_JOBS);
	memset(notes, 0, sizeof(notes));
	tickets = 0;
	per_pusher = jobs / PUSHERS;
}

static void jobs_over_eight_threads_finish_in_order_with_their_results(void **state)
{
	int jobs = (int)test_rounds(10000);
	struct pusher pushers[PUSHERS];
	pthread_t threads[PUSHERS];
	uint64_t seed = test_seed();

	if (jobs > MAX_JOBS)
		jobs = MAX_JOBS;
	jobs -= jobs % PUSHERS;
	begin(jobs);
	make_queues(LF_QUEUE_THREAD, NULL, seed);
	test_watchdog(60, "a job did not finish");
	for (int i = 0; i < PUSHERS; i++) {
		pushers[i] = (struct pusher){ i, seed * 2 + (uint64_t)i + 1 };
		threads[i] = thread_start(push_many, &pushers[i], 0);
	}
	for (int i = 0; i < PUSHERS; i++)
		thread_join(threads[i]);
	for (int i = 0; i < jobs; i++)
		assert_int_equal(lf_fence_wait(notes[i].finished, LF_DEADLINE_NEVER), 0);
	/* DONE is told after the fence: close waits for that. */
	for (int i = 0; i < QUEUES; i++)
		assert_int_equal(lf_queue_close(queues[i], LF_DEADLINE_NEVER), 0);
	test_watchdog(0, NULL);
	check_all(jobs);
	end_queues(jobs);
}

/* All of it, in virtual time: returns what must be the same the next time. */
static uint64_t virtual_run(int jobs, uint64_t seed)
{
	struct pusher pushers[PUSHERS];
	struct lf_vclock *clock;
	uint64_t sum = 0;

	begin(jobs);
	assert_int_equal(lf_vclock_create(&clock), 0);
	make_queues(LF_QUEUE_VIRTUAL, clock, seed);
	for (int i = 0; i < PUSHERS; i++)
		pushers[i] = (struct pusher){ i, seed * 2 + (uint64_t)i + 1 };
	for (int i = 0; i < per_pusher; i++) {
		for (int k = 0; k < PUSHERS; k++)
			push_one(k, i, &pushers[k].random);
	}
	lf_vclock_run(clock, LF_DEADLINE_NEVER);
	check_all(jobs);
	for (int i = 0; i < jobs; i++)
		sum = sum * 31 + (uint64_t)lf_fence_timestamp(notes[i].finished) + notes[i].done * 7 + notes[i].started;
	end_queues(jobs);
	lf_vclock_put(clock);
	return sum;
}

static void the_same_in_virtual_time_repeats_itself(void **state)
{
	int jobs = (int)test_rounds(20000);
	uint64_t seed = test_seed(), sum;

	jobs = jobs > MAX_JOBS ? MAX_JOBS : jobs - jobs % PUSHERS;
	sum = virtual_run(jobs, seed);
	assert_true(virtual_run(jobs, seed) == sum);
	assert_true(virtual_run(jobs, seed + 1) != sum);
}

/* --- Ends, while others push --------------------------------------------------------------------------------------------- */

enum { ROUND_JOBS = 40 };

struct round {
	struct lf_queue *q;
	struct gate gate;
	struct lf_fence *finished[PUSHERS][ROUND_JOBS];
	unsigned released, done, refused;
};

static int run_nothing(struct lf_job *job, void *data)
{
	(void)job;
	(void)data;
	return 0;
}

static void count_release(void *data)
{
	__atomic_fetch_add(&((struct round *)data)->released, 1, __ATOMIC_RELAXED);
}

static void count_done(void *user, const struct lf_queue_event *event)
{
	if (event->kind == LF_QUEUE_JOB_DONE)
		__atomic_fetch_add(&((struct round *)user)->done, 1, __ATOMIC_RELAXED);
}

struct round_pusher {
	struct round *round;
	int number;
};

static void *push_a_chain(void *arg)
{
	struct round_pusher *p = arg;
	struct round *r = p->round;
	struct lf_fence **mine = r->finished[p->number];

	gate_wait(&r->gate);
	for (int i = 0; i < ROUND_JOBS; i++) {
		struct lf_job_desc desc = { .data = r, .release = count_release };
		struct lf_job *job;
		int ret = lf_job_create(r->q, &desc, &job);

		must(ret == 0);
		if (i > 0 && mine[i - 1])
			must(lf_job_add_dependency(job, mine[i - 1]) == 0);
		ret = lf_job_push(job, &mine[i]);
		must(ret == 0 || ret == -ESHUTDOWN);
		if (ret)
			__atomic_fetch_add(&r->refused, 1, __ATOMIC_RELAXED);
		lf_job_put(job);
	}
	return NULL;
}

static void one_round(struct round *r, bool lose, uint64_t *random)
{
	static const struct lf_queue_ops round_ops = { .run = run_nothing };
	struct lf_queue_desc desc = { .name = "engine", .ops = &round_ops, .observe = count_done, .user = r };
	struct round_pusher pushers[PUSHERS];
	pthread_t threads[PUSHERS];

	memset(r, 0, sizeof(*r));
	gate_init(&r->gate, PUSHERS + 1);
	assert_int_equal(lf_queue_create(&desc, &r->q), 0);
	for (int i = 0; i < PUSHERS; i++) {
		pushers[i] = (struct round_pusher){ r, i };
		threads[i] = thread_start(push_a_chain, &pushers[i], 0);
	}
	gate_wait(&r->gate);
	usleep((unsigned)(random_next(random) % (test_is_sanitized() ? 10000 : 200)));
	if (lose)
		lf_queue_lose(r->q, -ENODEV);
	else
		assert_int_equal(lf_queue_close(r->q, LF_DEADLINE_NEVER), 0);
	for (int i = 0; i < PUSHERS; i++)
		thread_join(threads[i]);
	assert_int_equal(lf_queue_close(r->q, LF_DEADLINE_NEVER), 0);
	gate_fini(&r->gate);
}

static void rounds_of(bool lose, int expected)
{
	long rounds = test_rounds(200), good = 0, bad = 0, refused = 0;
	uint64_t random = test_seed();
	static struct round r;

	test_watchdog(60, "a round did not end");
	for (long n = 0; n < rounds; n++) {
		unsigned pushed = 0;

		one_round(&r, lose, &random);
		for (int i = 0; i < PUSHERS * ROUND_JOBS; i++) {
			struct lf_fence *f = r.finished[i / ROUND_JOBS][i % ROUND_JOBS];

			if (!f)
				continue;
			pushed++;
			assert_true(lf_fence_status(f) == 1 || lf_fence_status(f) == expected);
			good += lf_fence_status(f) == 1;
			bad += lf_fence_status(f) != 1;
			lf_fence_put(f);
		}
		assert_int_equal(pushed + r.refused, PUSHERS * ROUND_JOBS);
		assert_int_equal(r.done, pushed);
		lf_queue_put(r.q);
		assert_int_equal(lf_reclaim_barrier(), 0);
		assert_int_equal(r.released, PUSHERS * ROUND_JOBS);
		refused += (long)r.refused;
	}
	test_watchdog(0, NULL);
	test_note("%ld rounds: %ld jobs before the end, %ld hit by it, %ld refused", rounds, good, bad, refused);
}

static void a_loss_while_others_push(void **state)
{
	rounds_of(true, -ENODEV);
}

static void a_close_while_others_push(void **state)
{
	rounds_of(false, -ECANCELED);
}

/*
 * What was written before a dependency signals is seen by the run hook, whichever dependency comes last. Two threads write and signal a
 * fence each; the job waits for both. The thread that signals first has nothing to do with the engine but its count.
 *
 * Oracle: the hook reads what both wrote. A lost order shows under ThreadSanitizer as a race between a writer and the hook. Each round is
 * a hit.
 */
struct both {
	struct gate gate;
	struct lf_fence *fence[2];
	long written[2]; /* plain: the dependency is what orders it */
	long seen[2];
	long round;
	bool end;
};

struct both_writer {
	struct both *b;
	int index;
};

static int both_run(struct lf_job *job, void *data)
{
	struct both *b = data;

	(void)job;
	b->seen[0] = b->written[0];
	b->seen[1] = b->written[1];
	return 0;
}

static void *both_write(void *arg)
{
	struct both_writer *w = arg;
	struct both *b = w->b;

	for (;;) {
		gate_wait(&b->gate);
		if (b->end)
			return NULL;
		b->written[w->index] = b->round;
		lf_fence_signal(b->fence[w->index], 0);
		gate_wait(&b->gate);
	}
}

static void both_round(struct both *b, struct lf_queue *q)
{
	const struct lf_job_desc desc = { .data = b };
	struct lf_fence *finished;
	struct lf_job *job;

	assert_int_equal(lf_job_create(q, &desc, &job), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(lf_fence_create(&b->fence[i]), 0);
		assert_int_equal(lf_job_add_dependency(job, b->fence[i]), 0);
	}
	assert_int_equal(lf_job_push(job, &finished), 0);
	gate_wait(&b->gate);
	assert_int_equal(lf_fence_wait(finished, LF_DEADLINE_NEVER), 0);
	gate_wait(&b->gate);
	assert_int_equal(b->seen[0], b->round);
	assert_int_equal(b->seen[1], b->round);
	for (int i = 0; i < 2; i++)
		lf_fence_put(b->fence[i]);
	lf_fence_put(finished);
	lf_job_put(job);
}

static void run_hook_sees_what_came_before_each_dependency(void **state)
{
	static const struct lf_queue_ops both_ops = { .run = both_run };
	const struct lf_queue_desc desc = { .name = "both", .mode = LF_QUEUE_THREAD, .ops = &both_ops };
	struct both b = { .end = false };
	struct both_writer writers[2] = { { &b, 0 }, { &b, 1 } };
	long rounds = test_rounds(5000);
	struct lf_queue *q;
	pthread_t threads[2];

	(void)state;
	assert_int_equal(lf_queue_create(&desc, &q), 0);
	gate_init(&b.gate, 3);
	for (int i = 0; i < 2; i++)
		threads[i] = thread_start(both_write, &writers[i], 0);
	for (b.round = 1; b.round <= rounds; b.round++)
		both_round(&b, q);
	b.end = true;
	gate_wait(&b.gate);
	for (int i = 0; i < 2; i++)
		thread_join(threads[i]);
	gate_fini(&b.gate);
	assert_int_equal(lf_queue_close(q, LF_DEADLINE_NEVER), 0);
	lf_queue_put(q);
	test_note("%ld rounds, each a hit", rounds);
}

/* The reclaimer keeps a little memory from the first time on that something it destroys defers memory itself. */
static void warm_up(void **state)
{
	static const struct lf_queue_ops none = { .run = run_nothing };
	const struct lf_queue_desc desc = { .name = "engine", .ops = &none };
	struct lf_queue *q;

	assert_int_equal(lf_queue_create(&desc, &q), 0);
	lf_queue_put(q);
	assert_int_equal(lf_reclaim_barrier(), 0);
}

static const struct CMUnitTest queue_races[] = {
	cmocka_unit_test(warm_up), /* first, and without counting blocks */
	TEST(jobs_over_eight_threads_finish_in_order_with_their_results),
	TEST(the_same_in_virtual_time_repeats_itself),
	TEST(a_loss_while_others_push),
	TEST(a_close_while_others_push),
	TEST(run_hook_sees_what_came_before_each_dependency),
};

int main(void)
{
	return TEST_MAIN(queue_races);
}
