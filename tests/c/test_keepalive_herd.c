/* test_keepalive_herd.c: thousands of idle connections, opened at once, on a model of the kernel.
 *
 * The kernel's timers (kernel/time/timer.c) fire at the ticks of a wheel: 63 slots to each level,
 * each level eight times as coarse as the one below, always rounded up. All that are due in one
 * tick send their probes before any is answered, into a queue of 1,000 (netdev_max_backlog), and
 * what finds it full is lost. tcp_keepalive_timer() probes again after the interval, and ends the
 * connection when the user timeout has passed. The network itself loses nothing here: whatever dies
 * was healthy.
 */
#include "support.h"

#include "../../csrc/stream/sockopt.h"

#include <stdlib.h>
#include <string.h>

#define ENDS 18000
#define QUEUE 1000
#define RUN_S 45

struct end {
    struct hs_sockopts own;
    int32_t next; /* in the list of those that are due in the same tick; -1 ends it */
    int64_t heard_at;
    int probes_out;
};

struct kernel {
    int hz;
    int64_t now;
    int64_t nticks;
    int32_t *due; /* of each tick, the first end that is due then, or -1 */
    struct end ends[ENDS];
};

static int64_t
wheel_tick(int64_t now, int64_t delay)
{
    int64_t at = now + delay;
    int level = 0;

    while (delay >= (INT64_C(63) << (3 * level)) && level < 8)
        level++;
    return ((at >> (3 * level)) + 1) << (3 * level);
}

static void
arm(struct kernel *k, int32_t i, int64_t delay)
{
    int64_t at = wheel_tick(k->now, delay);

    if (at >= k->nticks)
        return;
    k->ends[i].next = k->due[at];
    k->due[at] = i;
}

static int
fire(struct kernel *k, int32_t i, int *room)
{
    struct end *e = &k->ends[i];
    int64_t silent = k->now - e->heard_at, idle = (int64_t)e->own.keepalive_idle_s * k->hz;

    if (silent < idle) {
        arm(k, i, idle - silent);
        return 0;
    }
    if (silent * 1000 >= (int64_t)e->own.user_timeout_ms * k->hz && e->probes_out > 0)
        return 1;
    e->probes_out++;
    if (*room > 0) {
        (*room)--;
        e->heard_at = k->now;
        e->probes_out = 0;
    }
    arm(k, i, (int64_t)e->own.keepalive_interval_s * k->hz);
    return 0;
}

/* Runs a herd that was opened within opened_ms; returns how many of it die. */
static int
deaths(int hz, int dead_after_s, int opened_ms, int interval_s)
{
    struct kernel *k = calloc(1, sizeof(*k));
    struct hs_sockopts asked;
    int dead = 0;

    ck_assert_ptr_nonnull(k);
    k->hz = hz;
    k->nticks = (int64_t)RUN_S * hz;
    k->due = malloc((size_t)k->nticks * sizeof(*k->due));
    ck_assert_ptr_nonnull(k->due);
    memset(k->due, 0xff, (size_t)k->nticks * sizeof(*k->due));
    hs_sockopts_init(&asked);
    hs_sockopts_dead_after(&asked, dead_after_s * 1000);
    for (int32_t i = 0; i < ENDS; i++) {
        struct end *e = &k->ends[i];

        hs_sockopts_draw(&asked, &e->own);
        if (interval_s != 0)
            e->own.keepalive_interval_s = interval_s;
        k->now = e->heard_at = (int64_t)i * opened_ms * hz / 1000 / ENDS;
        arm(k, i, (int64_t)e->own.keepalive_idle_s * hz);
    }
    for (k->now = 0; k->now < k->nticks; k->now++) {
        int room = QUEUE;

        for (int32_t next, i = k->due[k->now]; i >= 0; i = next) {
            next = k->ends[i].next;
            dead += fire(k, i, &room);
        }
    }
    free(k->due);
    free(k);
    return dead;
}

START_TEST(none_dies_of_its_neighbours_probes)
{
    static const int hz[] = {250, 1000}, dead_after_s[] = {15, 20, 30, 45, 90};

    for (uint64_t seed = 1; seed <= 5; seed++)
        for (size_t h = 0; h < LENGTH(hz); h++)
            for (size_t d = 0; d < LENGTH(dead_after_s); d++) {
                int dead;

                hs_sockopts_seed(seed);
                dead = deaths(hz[h], dead_after_s[d], 450, 0);
                ck_assert_msg(dead == 0, "%d Hz, dead_after %d s, seed %d: %d die", hz[h],
                              dead_after_s[d], (int)seed, dead);
            }
}
END_TEST

/* What the model is for: it sees the deaths that intervals of one second bring. */
START_TEST(intervals_of_one_length_kill_some)
{
    hs_sockopts_seed(1);
    ck_assert_int_gt(deaths(250, 15, 300, 1), 100);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("keepalive herd");

    tcase_add_test(tc, none_dies_of_its_neighbours_probes);
    tcase_add_test(tc, intervals_of_one_length_kill_some);
    return run_case(tc);
}
