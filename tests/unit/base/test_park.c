/* SPDX-License-Identifier: MIT */
/* Sleeping on a word: no wake-up is lost, no sleep without reason to, deadlines end it. */
#include "base/park.h"
#include "producer.h"

#include <sched.h>
#include <sys/mman.h>

static void store(lf_atomic_u32 *word, uint32_t value)
{
	__atomic_store_n(&word->value, value, __ATOMIC_SEQ_CST);
}

static uint32_t load(const lf_atomic_u32 *word)
{
	return __atomic_load_n(&word->value, __ATOMIC_SEQ_CST);
}

static void other_value_is_no_sleep(void **state)
{
	lf_atomic_u32 word = { .value = 1 };

	(void)state;
	/* Would never return if it slept. */
	assert_true(park_wait(&word, 0, LF_DEADLINE_NEVER));
	assert_true(park_wait(&word, 2, lf_now() + 3600 * INT64_C(1000000000)));
}

static void past_deadline_is_no_sleep(void **state)
{
	lf_atomic_u32 word = { .value = 0 };

	(void)state;
	assert_false(park_wait(&word, 0, 0));
	assert_false(park_wait(&word, 0, INT64_MIN));
	assert_false(park_wait(&word, 0, lf_now()));
}

static void deadline_ends_the_sleep_and_not_before(void **state)
{
	lf_atomic_u32 word = { .value = 0 };
	int64_t deadline = lf_now() + 2000000;

	(void)state;
	while (park_wait(&word, 0, deadline))
		;
	assert_true(lf_now() >= deadline);
}

static void replaced_clock_ends_the_sleep(void **state)
{
	lf_atomic_u32 word = { .value = 0 };

	(void)state;
	clock_set(1000);
	assert_false(park_wait(&word, 0, 1000));
	assert_false(park_wait(&word, 0, 500));
}

static void wake_of_what_nobody_sleeps_on_does_nothing(void **state)
{
	const char *preload = getenv("LD_PRELOAD");
	lf_atomic_u32 *word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	assert_true(word != MAP_FAILED);
	park_wake(word);
	assert_int_equal(munmap(word, 4096), 0);
	/* Only the address is used: the word may be gone by then. (Valgrind takes an address that a futex call gets for a use of memory.) */
	if (!preload || !strstr(preload, "vgpreload"))
		park_wake(word);
}

struct sleeper {
	lf_atomic_u32 *word;
	struct flag started;
	bool result;
};

static void *sleep_on_it(void *arg)
{
	struct sleeper *s = arg;

	flag_set(&s->started);
	while (load(s->word) == 0)
		s->result = park_wait(s->word, 0, LF_DEADLINE_NEVER);
	return NULL;
}

static void wake_ends_the_sleep_of_all_who_sleep_on_the_word(void **state)
{
	enum { N = 4 };
	lf_atomic_u32 word = { .value = 0 };
	struct sleeper s[N];
	pthread_t threads[N];

	(void)state;
	for (int i = 0; i < N; i++) {
		s[i] = (struct sleeper){ .word = &word, .result = true };
		flag_init(&s[i].started);
		threads[i] = thread_start(sleep_on_it, &s[i], 0);
		flag_wait(&s[i].started);
	}
	store(&word, 1);
	park_wake(&word);
	for (int i = 0; i < N; i++) {
		thread_join(threads[i]);
		assert_true(s[i].result);
		flag_fini(&s[i].started);
	}
}

/* --- That it is a sleep, and not a call that returns at once, over and over -------------------------------------------------------- */

struct at_rest {
	lf_atomic_u32 word;
	int64_t deadline;
	pid_t tid; /* atomic; 0 until the thread runs */
};

static void *rest(void *arg)
{
	struct at_rest *r = arg;

	__atomic_store_n(&r->tid, gettid(), __ATOMIC_RELEASE);
	while (load(&r->word) == 0)
		park_wait(&r->word, 0, r->deadline);
	return NULL;
}

/* S in /proc: the kernel has put the thread to sleep. */
static bool sleeps(pid_t tid)
{
	char path[64], text[256] = "";
	const char *behind_name;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	file = fopen(path, "r");
	if (!file)
		return false;
	text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
	fclose(file);
	behind_name = strrchr(text, ')');
	return behind_name && behind_name[1] == ' ' && behind_name[2] == 'S';
}

/* The last is beyond what seconds of 32 bits can say: it must not become the past, nor what the kernel refuses. */
static void who_waits_sleeps(void **state)
{
	const int64_t deadlines[] = { LF_DEADLINE_NEVER, lf_now() + 3600 * INT64_C(1000000000), LF_DEADLINE_NEVER - 1 };

	(void)state;
	for (size_t i = 0; i < sizeof(deadlines) / sizeof(deadlines[0]); i++) {
		struct at_rest r = { .deadline = deadlines[i] };
		pthread_t thread = thread_start(rest, &r, 0);

		test_watchdog(20, "a thread that waits does not sleep");
		while (!sleeps(__atomic_load_n(&r.tid, __ATOMIC_ACQUIRE)))
			sched_yield();
		test_watchdog(0, NULL);
		store(&r.word, 1);
		park_wake(&r.word);
		thread_join(thread);
	}
}

/*
 * Two threads hand a word to and fro; each sleeps until it is its turn. Oracle: it ends, with the word where it must be. A lost wake-up is
 * a test that does not end. A hit is a turn that was waited for asleep (at least once), a miss one that had come already.
 */
struct ping_pong {
	lf_atomic_u32 word;
	uint32_t rounds;
	unsigned hits, misses;
};

static void take_turns(struct ping_pong *p, uint32_t parity)
{
	for (;;) {
		uint32_t now = load(&p->word);
		bool slept = false;

		if (now >= p->rounds)
			return;
		while (now % 2 != parity && now < p->rounds) {
			slept = true;
			park_wait(&p->word, now, LF_DEADLINE_NEVER);
			now = load(&p->word);
		}
		count_up(slept ? &p->hits : &p->misses);
		if (now >= p->rounds)
			return;
		store(&p->word, now + 1);
		park_wake(&p->word);
	}
}

static void *take_odd_turns(void *arg)
{
	take_turns(arg, 1);
	return NULL;
}

static void no_wake_up_is_lost_between_two_threads(void **state)
{
	struct ping_pong p = { .rounds = (uint32_t)test_rounds(20000) };
	pthread_t thread = thread_start(take_odd_turns, &p, 0);

	(void)state;
	take_turns(&p, 0);
	thread_join(thread);
	test_note("rounds %u: hits %u, misses %u", (unsigned)p.rounds, p.hits, p.misses);
	assert_true(load(&p.word) == p.rounds);
}

/* Words that share a bucket of whatever table there is must not take each other's wake-ups: many words, one thread on each. */
static void sleepers_on_different_words_are_woken_by_their_own(void **state)
{
	enum { N = 32 };
	static lf_atomic_u32 words[N * 16];
	struct sleeper s[N];
	pthread_t threads[N];

	(void)state;
	for (int i = 0; i < N; i++) {
		store(&words[i * 16], 0);
		s[i] = (struct sleeper){ .word = &words[i * 16], .result = true };
		flag_init(&s[i].started);
		threads[i] = thread_start(sleep_on_it, &s[i], 0);
	}
	for (int i = 0; i < N; i++)
		flag_wait(&s[i].started);
	for (int i = N - 1; i >= 0; i--) {
		store(&words[i * 16], 1);
		park_wake(&words[i * 16]);
		thread_join(threads[i]);
		flag_fini(&s[i].started);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(other_value_is_no_sleep),
		TEST(past_deadline_is_no_sleep),
		TEST(deadline_ends_the_sleep_and_not_before),
		TEST(replaced_clock_ends_the_sleep),
		TEST(wake_of_what_nobody_sleeps_on_does_nothing),
		TEST(wake_ends_the_sleep_of_all_who_sleep_on_the_word),
		TEST(who_waits_sleeps),
		TEST(no_wake_up_is_lost_between_two_threads),
		TEST(sleepers_on_different_words_are_woken_by_their_own),
	};

	return TEST_MAIN(tests);
}
