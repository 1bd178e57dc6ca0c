/* simulate.c: runs seeds, each in a process of its own.
 *
 *     simulate                     seeds 1 to 100, a few of them twice; fewer in a slow build
 *     simulate --seeds A B         these
 *     simulate --search A B        these, up to the first that fails
 *     simulate --seconds N [A]     as many as fit, from A on
 *     simulate --seed A [FILE]     this one, here; FILE: its log
 *
 * A seed that fails prints the end of its log, and how to run it again.
 */
#include "world.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FIXED_SEEDS 100
#define PROVED_SEEDS 10
#define LIMIT_S 120 /* of one seed, in real time */

static unsigned passed, failed;
static int64_t simulated_ns;
static uint64_t switches;

static double
real_now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* How much slower this run is said to be than a plain one, as for the C tests. */
static unsigned
slowness(void)
{
    const char *text = getenv("CK_TIMEOUT_MULTIPLIER");

    return text == NULL || atoi(text) < 1 ? 1 : (unsigned)atoi(text);
}

/* One thread runs at a time: handing over is quicker without a second processor to wake. */
static void
stay_on_one_processor(void)
{
    int here = sched_getcpu();
    cpu_set_t set;

    CPU_ZERO(&set);
    if (here < 0 || here >= CPU_SETSIZE)
        return;
    CPU_SET(here, &set);
    (void)sched_setaffinity(0, sizeof(set), &set);
}

static int
run_here(uint64_t seed, int log_fd, int result_fd)
{
    struct sim_result result;

    stay_on_one_processor();
    (void)alarm(LIMIT_S * slowness());
    sim_run(seed, log_fd, world, &result);
    (void)alarm(0);
    if (result_fd < 0)
        printf("seed %llu: %llu lines, hash %016llx, %lld s simulated, %llu turns\n",
               (unsigned long long)seed, (unsigned long long)result.lines,
               (unsigned long long)result.hash, (long long)(result.span_ns / SIM_S),
               (unsigned long long)result.switches);
    else if (write(result_fd, &result, sizeof(result)) != (ssize_t)sizeof(result))
        return 1;
    return 0;
}

/* In a child: by a fork of this process, or by the program anew, which has other addresses. */
static bool
run_seed(uint64_t seed, bool anew, struct sim_result *ret_result)
{
    int ends[2], status = 0;
    char text[24], number[12];
    ssize_t n;
    pid_t pid;

    (void)fflush(stdout);
    if (pipe(ends) != 0 || (pid = fork()) < 0)
        abort();
    if (pid == 0) {
        (void)close(ends[0]);
        if (!anew)
            _exit(run_here(seed, -1, ends[1]));
        (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)seed);
        (void)snprintf(number, sizeof(number), "%d", ends[1]);
        (void)execl("/proc/self/exe", "simulate", "--to", number, text, (char *)NULL);
        _exit(127);
    }
    (void)close(ends[1]);
    n = read(ends[0], ret_result, sizeof(*ret_result));
    (void)close(ends[0]);
    if (waitpid(pid, &status, 0) != pid)
        abort();
    if (WIFSIGNALED(status))
        printf("seed %llu: ended by signal %d\n", (unsigned long long)seed, WTERMSIG(status));
    return n == (ssize_t)sizeof(*ret_result) && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void
judge(uint64_t seed, bool prove)
{
    struct sim_result first, second;
    bool good = run_seed(seed, false, &first);

    if (good) {
        simulated_ns += first.span_ns;
        switches += first.switches;
    }
    if (good && prove) {
        good = run_seed(seed, true, &second);
        if (good && (first.hash != second.hash || first.lines != second.lines)) {
            printf("seed %llu: two runs differ: %016llx, %016llx\n", (unsigned long long)seed,
                   (unsigned long long)first.hash, (unsigned long long)second.hash);
            good = false;
        }
    }
    passed += good;
    failed += !good;
    if (!good)
        printf("seed %llu fails; again, with its log: make simulate SEED=%llu\n",
               (unsigned long long)seed, (unsigned long long)seed);
}

static int
sum_up(double began)
{
    double seconds = real_now() - began;

    printf("%lld simulated seconds in %.1f s, %llu turns of threads\n",
           (long long)(simulated_ns / SIM_S), seconds, (unsigned long long)switches);
    printf("%u passed, %u failed\n", passed, failed);
    return failed > 0 || passed == 0;
}

int
main(int argc, char **argv)
{
    uint64_t from = 1, to = FIXED_SEEDS / slowness(), proved = PROVED_SEEDS / slowness();
    double began = real_now(), until = -1;
    bool searches = false;
    int fd = -1;

    if (argc > 3 && strcmp(argv[1], "--to") == 0)
        return run_here(strtoull(argv[3], NULL, 10), -1, atoi(argv[2]));
    if (argc > 2 && strcmp(argv[1], "--seed") == 0) {
        if (argc > 3 && (fd = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0) {
            perror(argv[3]);
            return 2;
        }
        return run_here(strtoull(argv[2], NULL, 10), fd, -1);
    }
    if (argc > 3 &&
        (strcmp(argv[1], "--seeds") == 0 || (searches = strcmp(argv[1], "--search") == 0))) {
        from = strtoull(argv[2], NULL, 10);
        to = strtoull(argv[3], NULL, 10);
        proved = 0;
    } else if (argc > 2 && strcmp(argv[1], "--seconds") == 0) {
        until = began + atof(argv[2]);
        from = argc > 3 ? strtoull(argv[3], NULL, 10) : (uint64_t)time(NULL);
        to = UINT64_MAX;
        proved = 0;
    }
    for (uint64_t seed = from; seed <= to && (until < 0 || real_now() < until); seed++) {
        judge(seed, seed - from < proved);
        if (searches && failed > 0)
            break;
    }
    if (until >= 0)
        printf("seeds %llu to %llu\n", (unsigned long long)from,
               (unsigned long long)(from + passed + failed - 1));
    return sum_up(began);
}
