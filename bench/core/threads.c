/* threads.c: what a second thread is worth in the core by itself, without an interpreter.
 *
 * The floor of bench.freethreaded, which starts it, writes lines "WORK THREADS SECONDS" and reads
 * for each a line "CALLS_PER_SECOND GAP_NS SWITCHES": of all threads together, between the first
 * and the last to begin, and how often one was taken from its CPU. Works:
 *
 *     arithmetic   nothing is shared: what this machine can give
 *     tokens       a child of one token, cancelled and let go
 *     tokens_own   the same, each thread has a parent of its own
 *     pool         try_acquire and release at one pool
 *     pool_own     the same, each thread has a pool of its own
 *
 * Each thread has a CPU of its own, and begins when all are there, without having slept.
 */
#include "hardsock.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_THREADS 8
#define BATCH 50 /* calls between two looks at the clock */

struct worker {
    pthread_t thread;
    int cpu;
    void (*step)(struct worker *);
    struct hs_token *parent;
    struct hs_pool *pool;
    struct hs_holder holder;
    unsigned number; /* what arithmetic is done with */
    int64_t span_ns, began_ns;
    double rate;
    long switches;
};

static struct hs_token *parents[MOST_THREADS];
static struct hs_pool *pools[MOST_THREADS];
static int cpus[CPU_SETSIZE], n_cpus, n_expected;
static atomic_int n_arrived;

static void
must(hs_err rv, const char *what)
{
    if (rv == HS_OK)
        return;
    (void)fprintf(stderr, "threads: %s: %s\n", what, hs_err_text(rv));
    exit(1);
}

static int64_t
now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- Works --------------------------------------------------------------------------------- */

static void
step_arithmetic(struct worker *w)
{
    for (int i = 0; i < 20; i++)
        w->number = w->number * 3 % 1021;
}

static void
step_token(struct worker *w)
{
    struct hs_token *child;

    must(hs_token_new(&w->parent, 1, HS_NEVER, NULL, NULL, &child), "token");
    (void)hs_token_cancel(child, "", 0, NULL);
    hs_token_unref(child);
}

static struct hs_lease
borrow(struct worker *w)
{
    struct hs_request request = {.holder = w->holder};
    struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);
    struct hs_lease lease;

    if (hs_pool_try_acquire(w->pool, &w->holder, &lease) != HS_OK)
        must(hs_pool_acquire(w->pool, &op, &request, NULL, &lease), "acquire");
    return lease;
}

static void
step_pool(struct worker *w)
{
    struct hs_lease lease = borrow(w);

    must(hs_pool_release(w->pool, &lease, HS_RETURN_DONE, NULL, NULL, NULL), "release");
}

static const struct work {
    const char *name;
    void (*step)(struct worker *);
    bool own;
} works[] = {
    {"arithmetic", step_arithmetic, true}, {"tokens", step_token, false},
    {"tokens_own", step_token, true},      {"pool", step_pool, false},
    {"pool_own", step_pool, true},
};

static const struct work *
work_of(const char *name)
{
    for (size_t i = 0; i < sizeof(works) / sizeof(works[0]); i++)
        if (strcmp(works[i].name, name) == 0)
            return &works[i];
    (void)fprintf(stderr, "threads: there is no work \"%s\"\n", name);
    exit(2);
}

/* ---- What they work on --------------------------------------------------------------------- */

/* Who connects stays in the listener's queue; nobody ever asks it anything. */
static struct hs_pool *
pool_to(const struct sockaddr_in *at)
{
    struct hs_pool_options o;
    struct hs_endpoint ep;
    struct hs_pool *p;

    hs_pool_options_init(&o);
    o.max_size = MOST_THREADS;
    o.reuse = HS_REUSE_ANSWERED;
    must(hs_endpoint_from_host("127.0.0.1", 9, ntohs(at->sin_port), NULL, &ep), "endpoint");
    must(hs_pool_new(&ep, 1, &o, NULL, &p), "pool");
    return p;
}

static void
make_all(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cpu_set_t set;

    if (bind(listener, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(listener, 128) != 0 ||
        getsockname(listener, (struct sockaddr *)&at, &len) != 0 ||
        sched_getaffinity(0, sizeof(set), &set) != 0)
        exit(1);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set))
            cpus[n_cpus++] = cpu;
    for (int i = 0; i < MOST_THREADS; i++) {
        must(hs_token_new(NULL, 0, HS_NEVER, NULL, NULL, &parents[i]), "parent");
        pools[i] = pool_to(&at);
    }
}

/* ---- A slice ------------------------------------------------------------------------------- */

static void *
run(void *arg)
{
    struct worker *w = arg;
    struct rusage before, after;
    int64_t now;
    long calls = 0;
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(w->cpu, &one);
    (void)pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
    w->step(w); /* The dial is not measured. */
    atomic_fetch_add(&n_arrived, 1);
    while (atomic_load(&n_arrived) < n_expected)
        continue;
    (void)getrusage(RUSAGE_THREAD, &before);
    now = w->began_ns = now_ns();
    while (now - w->began_ns < w->span_ns) {
        for (int i = 0; i < BATCH; i++)
            w->step(w);
        calls += BATCH;
        now = now_ns();
    }
    (void)getrusage(RUSAGE_THREAD, &after);
    w->rate = (double)calls * 1e9 / (double)(now - w->began_ns);
    w->switches = after.ru_nivcsw - before.ru_nivcsw;
    return NULL;
}

static void
run_slice(const struct work *work, int n, double seconds)
{
    static struct worker workers[MOST_THREADS];
    int64_t first = INT64_MAX, last = 0;
    double rate = 0;
    long switches = 0;

    n_expected = n;
    atomic_store(&n_arrived, 0);
    for (int i = 0; i < n; i++) {
        workers[i] = (struct worker){
            .cpu = cpus[i % n_cpus],
            .step = work->step,
            .parent = parents[work->own ? i : 0],
            .pool = pools[work->own ? i : 0],
            .holder = {.thread = (uint64_t)i + 1},
            .number = 1,
            .span_ns = (int64_t)(seconds * 1e9),
        };
        if (pthread_create(&workers[i].thread, NULL, run, &workers[i]) != 0)
            exit(1);
    }
    for (int i = 0; i < n; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        rate += workers[i].rate;
        switches += workers[i].switches;
        first = workers[i].began_ns < first ? workers[i].began_ns : first;
        last = workers[i].began_ns > last ? workers[i].began_ns : last;
    }
    (void)printf("%.0f %lld %ld\n", rate, (long long)(last - first), switches);
    (void)fflush(stdout);
}

int
main(void)
{
    char line[128], name[32];
    double seconds;
    int n;

    make_all();
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (sscanf(line, "%31s %d %lf", name, &n, &seconds) != 3 || n < 1 || n > MOST_THREADS)
            return 2;
        run_slice(work_of(name), n, seconds);
    }
    for (int i = 0; i < MOST_THREADS; i++) {
        hs_pool_close(pools[i]);
        hs_pool_unref(pools[i]);
        hs_token_unref(parents[i]);
    }
    return 0;
}
