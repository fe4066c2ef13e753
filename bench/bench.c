/* SPDX-License-Identifier: MIT */
/* The harness: see bench.h. */
#include "bench.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* How long and how often; see parse_options() for what --quick makes of it. */
static struct {
	const char *json;
	const char *only;
	const char *tag;
	int64_t run_ns; /* how long the timed part of a run shall be */
	size_t repeats;
	int attempts; /* how often a noisy case is measured at most */
	bool ratios_only; /* budgets of nanoseconds are not judged */
	bool scaling;
	bool smoke; /* with as few operations as there may be */
	size_t max_size;
} options = { .tag = "", .run_ns = 1000 * 1000, .repeats = 51, .attempts = 4, .max_size = SIZE_MAX };

static int cpus[2];
static int cpu_count;
static int64_t overhead[3]; /* of bench_start() and bench_stop() themselves, by clock */

/* --- Time --------------------------------------------------------------------------------------------------------------- */

static int64_t read_clock(enum bench_clock clock)
{
	static const clockid_t ids[] = {
		[BENCH_THREAD_TIME] = CLOCK_THREAD_CPUTIME_ID,
		[BENCH_PROCESS_TIME] = CLOCK_PROCESS_CPUTIME_ID,
		[BENCH_WALL_TIME] = CLOCK_MONOTONIC,
	};
	struct timespec ts;

	clock_gettime(ids[clock], &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

uint64_t bench_draw(void)
{
	static uint64_t state = 0x2545f4914f6cdd1d;

	state ^= state << 13; /* Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8, 2003 */
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

int64_t bench_wall_ns(void)
{
	return read_clock(BENCH_WALL_TIME);
}

void bench_start(struct bench_run *run)
{
	run->started = read_clock(run->clock);
}

void bench_stop(struct bench_run *run)
{
	run->ns += read_clock(run->clock) - run->started - overhead[run->clock];
}

void bench_value(struct bench_run *run, int64_t value)
{
	run->ns = value;
	run->n = 1;
}

void bench_mutex_pairs(struct bench_run *run)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

	bench_start(run);
	for (size_t i = 0; i < run->n; i++) {
		pthread_mutex_lock(&mutex);
		pthread_mutex_unlock(&mutex);
	}
	bench_stop(run);
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts the values. */
static double quantile(double *values, size_t count, double q)
{
	qsort(values, count, sizeof(*values), compare_doubles);
	return values[(size_t)(q * (double)(count - 1) + 0.5)];
}

static void measure_overhead(void)
{
	for (int clock = BENCH_THREAD_TIME; clock <= BENCH_WALL_TIME; clock++) {
		double empty[255];

		for (size_t i = 0; i < 255; i++) {
			struct bench_run run = { .clock = (enum bench_clock)clock };

			bench_start(&run);
			bench_stop(&run);
			empty[i] = (double)run.ns;
		}
		overhead[clock] = (int64_t)quantile(empty, 255, 0.5);
	}
}

/* --- CPUs and threads --------------------------------------------------------------------------------------------------- */

static void find_cpus(void)
{
	cpu_set_t allowed;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
		return;
	for (int cpu = 0; cpu < CPU_SETSIZE && cpu_count < 2; cpu++) {
		if (CPU_ISSET((size_t)cpu, &allowed))
			cpus[cpu_count++] = cpu;
	}
}

static void pin(pthread_t thread, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpus[cpu], &set);
	BENCH_CHECK(pthread_setaffinity_np(thread, sizeof(set), &set) == 0);
}

pthread_t bench_thread(void *(*fn)(void *), void *arg, int cpu)
{
	pthread_attr_t attr;
	cpu_set_t set;
	pthread_t thread;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpus[cpu], &set);
	BENCH_CHECK(pthread_attr_init(&attr) == 0);
	BENCH_CHECK(pthread_attr_setaffinity_np(&attr, sizeof(set), &set) == 0);
	BENCH_CHECK(pthread_create(&thread, &attr, fn, arg) == 0);
	pthread_attr_destroy(&attr);
	return thread;
}

void bench_join(pthread_t thread)
{
	BENCH_CHECK(pthread_join(thread, NULL) == 0);
}

/* Threads that share the operations of a run. */
struct share {
	void (*work)(void *arg, size_t n, size_t thread);
	void *arg;
	size_t n; /* of each */
	atomic_size_t joined; /* gives each its index */
	atomic_bool begun;
};

static void *share_member(void *arg)
{
	struct share *share = arg;
	size_t thread = atomic_fetch_add_explicit(&share->joined, 1, memory_order_acq_rel);

	while (!atomic_load_explicit(&share->begun, memory_order_acquire))
		sched_yield();
	share->work(share->arg, share->n, thread);
	return NULL;
}

void bench_share(struct bench_run *run, void (*work)(void *arg, size_t n, size_t thread), void *arg)
{
	size_t count = (size_t)run->param;
	struct share share = { .work = work, .arg = arg, .n = (run->n + count - 1) / count };
	pthread_t threads[BENCH_MAX_THREADS];

	BENCH_CHECK(count <= BENCH_MAX_THREADS);
	for (size_t i = 0; i < count; i++)
		threads[i] = bench_thread(share_member, &share, (int)i % cpu_count);
	while (atomic_load_explicit(&share.joined, memory_order_acquire) < count)
		sched_yield();
	bench_start(run);
	atomic_store_explicit(&share.begun, true, memory_order_release);
	for (size_t i = 0; i < count; i++)
		bench_join(threads[i]);
	bench_stop(run);
	run->n = share.n * count;
}

/*
 * The C library's mutexes, and its malloc, leave out their locked operations while a process has a single thread. Nobody needs a fence
 * in such a process, so every case is measured in one that has two.
 */
static void *sleep_forever(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return NULL;
}

void *bench_alloc(size_t size)
{
	void *block = aligned_alloc(64, (size + 63) & ~(size_t)63);

	BENCH_CHECK(block != NULL);
	memset(block, 0, size);
	return block;
}

/* --- Measuring ---------------------------------------------------------------------------------------------------------- */

/* What came out for one implementation. */
struct series {
	double *ns; /* per operation, one value a repeat */
	double *reclaim;
	double median, spread, reclaim_median;
	size_t n;
};

struct measurement {
	struct series series[BENCH_MAX_IMPLS];
	double ratio; /* median of the first over the peer; 0 without a peer */
	double noise; /* the worse spread of those two */
	double budget; /* what counts in this run: of the ratio if there is one, else of the time; 0: none */
	bool ok;
};

static bool present(const struct bench_case *c, size_t i)
{
	return i < BENCH_MAX_IMPLS && c->impls[i].run;
}

static size_t peer_index(const struct bench_case *c)
{
	for (size_t i = 0; c->peer && i < BENCH_MAX_IMPLS; i++) {
		if (present(c, i) && strcmp(c->impls[i].name, c->peer) == 0)
			return i;
	}
	return BENCH_MAX_IMPLS;
}

static struct bench_run run_once(const struct bench_case *c, size_t i, size_t n)
{
	struct bench_run run = { .n = n, .param = c->param, .clock = c->clock };

	c->impls[i].run(&run);
	BENCH_CHECK(run.n > 0);
	return run;
}

/* How many operations fill the time of a run, less what other processes had of it. The runs that find it out are the warm-up. */
static size_t calibrate(const struct bench_case *c, size_t i)
{
	int64_t length = options.run_ns * (c->stretch ? c->stretch : 1);
	size_t n = c->step;

	for (;;) {
		int64_t before = read_clock(BENCH_PROCESS_TIME), ns = run_once(c, i, n).ns, used = read_clock(BENCH_PROCESS_TIME) - before;

		if (c->clock == BENCH_NO_TIME || options.smoke || (ns >= length / 2 && used >= length / 2) || (c->max_n && n * 2 > c->max_n))
			return n;
		n *= 2;
	}
}

static size_t repeats_of(const struct bench_case *c)
{
	if (c->clock == BENCH_NO_TIME)
		return 1;
	return c->repeats && c->repeats < options.repeats ? c->repeats : options.repeats;
}

static void measure(const struct bench_case *c, struct measurement *m)
{
	size_t peer = peer_index(c), repeats = repeats_of(c);
	double *ratios = bench_alloc(repeats * sizeof(*ratios));

	for (size_t i = 0; i < BENCH_MAX_IMPLS; i++) {
		if (!present(c, i))
			continue;
		m->series[i].ns = bench_alloc(repeats * sizeof(double));
		m->series[i].reclaim = bench_alloc(repeats * sizeof(double));
		m->series[i].n = calibrate(c, i);
	}
	for (size_t r = 0; r < repeats; r++) {
		/* Each repeat starts with another one, so that none always runs in the wake of the same neighbour. */
		for (size_t k = 0; k < BENCH_MAX_IMPLS; k++) {
			size_t i = (k + r) % BENCH_MAX_IMPLS;
			struct series *s = &m->series[i];

			if (present(c, i)) {
				struct bench_run run = run_once(c, i, s->n);

				s->ns[r] = (double)run.ns / (double)run.n;
				s->reclaim[r] = (double)run.reclaim_ns / (double)run.n;
			}
		}
		if (peer < BENCH_MAX_IMPLS)
			ratios[r] = m->series[0].ns[r] / m->series[peer].ns[r];
	}
	for (size_t i = 0; i < BENCH_MAX_IMPLS; i++) {
		struct series *s = &m->series[i];

		if (!present(c, i))
			continue;
		s->spread = quantile(s->ns, repeats, 0.9) / quantile(s->ns, repeats, 0.1);
		s->median = quantile(s->ns, repeats, 0.5);
		s->reclaim_median = quantile(s->reclaim, repeats, 0.5);
		free(s->ns);
		free(s->reclaim);
	}
	m->noise = m->series[0].spread;
	m->ratio = 0;
	if (peer < BENCH_MAX_IMPLS) {
		m->ratio = quantile(ratios, repeats, 0.5);
		if (m->series[peer].spread > m->noise)
			m->noise = m->series[peer].spread;
	}
	free(ratios);
}

/* Measures until it is calm, a few times at most, and keeps the calmest. */
static void measure_calmly(const struct bench_case *c, struct measurement *best)
{
	for (int attempt = 0; attempt < options.attempts; attempt++) {
		struct measurement m = { 0 };

		measure(c, &m);
		if (attempt == 0 || m.noise < best->noise)
			*best = m;
		if (best->noise <= BENCH_NOISY || c->repeats)
			return;
	}
}

/* --- Output ------------------------------------------------------------------------------------------------------------- */

static const char *unit(const struct bench_case *c)
{
	return c->unit ? c->unit : "ns";
}

static void print_row(const struct bench_case *c, const struct measurement *m, size_t i)
{
	const struct series *s = &m->series[i];

	printf("  %-30s%-8s %10.1f %s  x%-6.2f", c->impls[i].name, options.tag, s->median, unit(c), s->spread);
	if (i == 0 && m->ratio > 0)
		printf(" %6.2f x %s", m->ratio, c->peer);
	if (i == 0 && m->budget > 0)
		printf(" (budget %.2f %s): %s", m->budget, m->ratio > 0 ? "x" : unit(c), m->ok ? "ok" : "over budget");
	if (s->reclaim_median > 0)
		printf(" + %.1f ns to reclaim", s->reclaim_median);
	printf("\n");
	fflush(stdout);
}

/* The names and keys are ours and need no escaping. */
static void json_row(FILE *json, const char *table, const struct bench_case *c, const char *impl, double ns, double spread)
{
	static bool any;

	fprintf(json, "%s\n{\"table\": \"%s\", \"case\": \"%s\", \"impl\": \"%s%s\", ", any ? "," : "", table, c->name, impl, options.tag);
	if (c->unit)
		fprintf(json, "\"unit\": \"%s\", ", c->unit);
	fprintf(json, "\"ns\": %.2f, \"spread\": %.3f, ", ns, spread);
	any = true;
}

static void json_no_verdict(FILE *json)
{
	fprintf(json, "\"peer\": null, \"ratio\": null, \"budget\": null, \"ok\": null}");
}

static void json_verdict(FILE *json, const struct bench_case *c, const struct measurement *m)
{
	if (m->ratio > 0)
		fprintf(json, "\"peer\": \"%s\", \"ratio\": %.3f, ", c->peer, m->ratio);
	else
		fprintf(json, "\"peer\": null, \"ratio\": null, ");
	if (m->budget > 0)
		fprintf(json, "\"budget\": %.3f, \"ok\": %s}", m->budget, m->ok ? "true" : "false");
	else
		fprintf(json, "\"budget\": null, \"ok\": null}");
}

static void write_json(FILE *json, const char *table, const struct bench_case *c, const struct measurement *m, size_t i)
{
	const struct series *s = &m->series[i];

	json_row(json, table, c, c->impls[i].name, s->median, s->spread);
	if (i == 0)
		json_verdict(json, c, m);
	else
		json_no_verdict(json);
	if (s->reclaim_median > 0) {
		json_row(json, table, c, "reclaim after", s->reclaim_median, 1);
		json_no_verdict(json);
	}
}

static void judge(const struct bench_case *c, struct measurement *m)
{
	if (m->ratio > 0 && c->max_ratio > 0) {
		if (c->calls && options.ratios_only)
			return;
		m->budget = c->max_ratio;
		m->ok = m->ratio <= m->budget;
	} else if (c->max_ns > 0 && (!options.ratios_only || c->unit)) {
		m->budget = c->max_ns;
		m->ok = m->series[0].median <= m->budget;
	}
}

/* What the system could give without swapping. */
static size_t free_memory(void)
{
	FILE *info = fopen("/proc/meminfo", "r");
	size_t kib = 0;
	char line[256];

	while (info && kib == 0 && fgets(line, sizeof(line), info)) {
		if (sscanf(line, "MemAvailable: %zu kB", &kib) != 1)
			kib = 0;
	}
	if (info)
		fclose(info);
	return kib * 1024;
}

/* Says so when it cannot. */
static bool can_run(const struct bench_case *c)
{
	if (c->cpus > cpu_count) {
		printf("%s: left out, needs %d CPUs\n", c->name, c->cpus);
		return false;
	}
	if (c->memory > free_memory()) {
		printf("%s: left out, needs %zu MiB of free memory\n", c->name, c->memory >> 20);
		return false;
	}
	return true;
}

static bool is_wanted(const struct bench_case *c)
{
	return c->scaling == options.scaling && c->size <= options.max_size && (!options.only || strstr(c->name, options.only));
}

static void run_case(const char *table, const struct bench_case *c, FILE *json)
{
	struct measurement m = { 0 };

	if (!can_run(c))
		return;
	measure_calmly(c, &m);
	judge(c, &m);
	printf("%s\n", c->name);
	for (size_t i = 0; i < BENCH_MAX_IMPLS; i++) {
		if (!present(c, i))
			continue;
		print_row(c, &m, i);
		if (json)
			write_json(json, table, c, &m, i);
	}
}

static bool parse_flag(const char *flag)
{
	if (strcmp(flag, "--ratios-only") == 0) {
		options.ratios_only = true;
	} else if (strcmp(flag, "--scaling") == 0) {
		options.scaling = true;
	} else if (strcmp(flag, "--quick") == 0) {
		options.max_size = 1000 * 1000;
		options.run_ns = 200 * 1000;
		options.repeats = 9;
		options.attempts = 1;
	} else if (strcmp(flag, "--smoke") == 0) {
		options.smoke = true;
		options.max_size = 100 * 1000;
		options.repeats = 1;
		options.attempts = 1;
	} else {
		return false;
	}
	return true;
}

static void parse_options(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (parse_flag(argv[i]))
			continue;
		if (value && strcmp(argv[i], "--json") == 0) {
			options.json = value;
		} else if (value && strcmp(argv[i], "--case") == 0) {
			options.only = value;
		} else if (value && strcmp(argv[i], "--tag") == 0) {
			options.tag = value;
		} else {
			fprintf(stderr, "usage: %s [--quick | --smoke] [--scaling] [--ratios-only] [--json FILE] [--case TEXT] [--tag TEXT]\n",
				argv[0]);
			exit(2);
		}
		i++;
	}
}

int bench_main(int argc, char **argv, const char *table, const struct bench_case *cases, size_t count)
{
	FILE *json = NULL;

	parse_options(argc, argv);
	find_cpus();
	BENCH_CHECK(cpu_count > 0);
	pin(pthread_self(), 0);
	bench_thread(sleep_forever, NULL, 0);
	measure_overhead();
	if (options.json) {
		json = fopen(options.json, "w");
		if (!json) {
			perror(options.json);
			return 1;
		}
		fprintf(json, "[");
	}
	for (size_t i = 0; i < count; i++) {
		if (is_wanted(&cases[i]))
			run_case(table, &cases[i], json);
	}
	if (json) {
		fprintf(json, "\n]\n");
		if (fclose(json) != 0) {
			perror(options.json);
			return 1;
		}
	}
	return 0;
}
