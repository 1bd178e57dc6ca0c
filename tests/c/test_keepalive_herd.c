/* test_keepalive_herd.c: thousands of idle connections, opened at once, on a model of the kernel.
 *
 * The kernel's timers (kernel/time/timer.c) fire at the ticks of a wheel: 63 slots to each level,
 * each level eight times as coarse as the one below, always rounded up; of one tick, those of the
 * coarsest level first, and of a level those that were set last. All that are due in one tick send
 * their probes before any is answered, into a queue of 1,000 (netdev_max_backlog), and what finds
 * it full is lost. Now and then the processor is busy with something else for a while, and what was
 * due meanwhile is due at once. tcp_keepalive_timer() probes again after the interval, and ends the
 * connection when the user timeout has passed. The network itself loses nothing here: whatever dies
 * was healthy.
 */
#include "support.h"

#include "../../csrc/stream/sockopt.h"

#include <stdlib.h>
#include <string.h>

#define ENDS 18000
#define QUEUE 1000
#define LEVELS 6
#define ANSWERS_PER_S 250000

/* How a herd lives: on which kernel, opened within which time, with or without stalls. */
struct life {
    int hz, dead_after_s, opened_ms;
    int ends;
    bool stalls;
    void (*change)(int32_t i, struct hs_sockopts *own); /* NULL: what is drawn */
};

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
    int64_t stalled_until;
    int32_t *due; /* of each tick and level, the first end that is due then, or -1 */
    int room;
    uint64_t random;
    struct end ends[ENDS];
};

static uint32_t
chance(struct kernel *k, uint32_t below)
{
    k->random = k->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(k->random >> 33) % below;
}

static void
arm(struct kernel *k, int32_t i, int64_t delay)
{
    int64_t at = k->now + delay;
    int level = 0;

    while (delay >= (INT64_C(63) << (3 * level)) && level < LEVELS - 1)
        level++;
    at = ((at >> (3 * level)) + 1) << (3 * level);
    if (at >= k->nticks)
        return;
    k->ends[i].next = k->due[at * LEVELS + level];
    k->due[at * LEVELS + level] = i;
}

static int
fire(struct kernel *k, int32_t i)
{
    struct end *e = &k->ends[i];
    int64_t silent = k->now > e->heard_at ? k->now - e->heard_at : 0;
    int64_t idle = (int64_t)e->own.keepalive_idle_s * k->hz;

    if (silent < idle) {
        arm(k, i, idle - silent);
        return 0;
    }
    if (silent * 1000 >= (int64_t)e->own.user_timeout_ms * k->hz && e->probes_out > 0)
        return 1;
    e->probes_out++;
    if (k->room > 0) {
        k->room--;
        e->heard_at = k->now + (int64_t)(QUEUE - k->room) * k->hz / ANSWERS_PER_S;
        e->probes_out = 0;
    }
    arm(k, i, (int64_t)e->own.keepalive_interval_s * k->hz);
    return 0;
}

/* Everything that is due in one tick. */
static int
tick(struct kernel *k, bool stalls)
{
    int dead = 0;

    if (k->now >= k->stalled_until) {
        k->room = QUEUE;
        if (stalls && chance(k, (uint32_t)k->hz) < 2)
            k->stalled_until = k->now + k->hz * (20 + (int)chance(k, 100)) / 1000;
    }
    for (int level = LEVELS - 1; level >= 0; level--)
        for (int32_t next, i = k->due[k->now * LEVELS + level]; i >= 0; i = next) {
            next = k->ends[i].next;
            dead += fire(k, i);
        }
    return dead;
}

static void
open_all(struct kernel *k, const struct life *life, int64_t from)
{
    struct hs_sockopts asked;

    hs_sockopts_init(&asked);
    hs_sockopts_dead_after(&asked, life->dead_after_s * 1000);
    for (int32_t i = 0; i < life->ends; i++) {
        struct end *e = &k->ends[i];

        hs_sockopts_draw(&asked, &e->own);
        if (life->change != NULL)
            life->change(i, &e->own);
        k->now = e->heard_at = from + (int64_t)i * life->opened_ms * k->hz / 1000 / life->ends;
        arm(k, i, (int64_t)e->own.keepalive_idle_s * k->hz);
    }
}

/* Runs a herd for three times dead_after; returns how many of it die. */
static int
deaths(const struct life *life, uint64_t seed)
{
    struct kernel *k = calloc(1, sizeof(*k));
    int64_t from;
    int dead = 0;

    ck_assert_ptr_nonnull(k);
    hs_sockopts_seed(seed);
    hs_sockopts_assume_hz(life->hz);
    k->hz = life->hz;
    k->random = seed;
    from = chance(k, 4096); /* Where the wheel stands. */
    k->nticks = from + (int64_t)(3 * life->dead_after_s + 1) * life->hz;
    k->due = malloc((size_t)k->nticks * LEVELS * sizeof(*k->due));
    ck_assert_ptr_nonnull(k->due);
    memset(k->due, 0xff, (size_t)k->nticks * LEVELS * sizeof(*k->due));
    open_all(k, life, from);
    for (k->now = 0; k->now < k->nticks; k->now++)
        dead += tick(k, life->stalls);
    free(k->due);
    free(k);
    hs_sockopts_assume_hz(0);
    hs_sockopts_seed(0);
    return dead;
}

static const int all_hz[] = {100, 250, 300, 1000};

/* From 12 s on, half of them from 7 s on, though the processor is busy elsewhere now and then, for
 * up to an eighth of a second, twice a second. */
START_TEST(none_dies_of_its_neighbours_probes)
{
    static const struct {
        int dead_after_s, ends;
    } rows[] = {
        {7, 9000},  {10, 9000}, {12, ENDS}, {15, ENDS}, {20, ENDS},
        {25, ENDS}, {30, ENDS}, {45, ENDS}, {90, ENDS},
    };
    struct life life = {.hz = all_hz[_i], .opened_ms = 450, .stalls = true};

    for (uint64_t seed = 1; seed <= 2; seed++)
        for (size_t d = 0; d < LENGTH(rows); d++) {
            int dead;

            life.dead_after_s = rows[d].dead_after_s;
            life.ends = rows[d].ends;
            dead = deaths(&life, seed);
            ck_assert_msg(dead == 0, "%d Hz, dead_after %d s, seed %d: %d die", life.hz,
                          life.dead_after_s, (int)seed, dead);
        }
}
END_TEST

/* Opened within a quarter of a second, they hold where nothing disturbs them. */
START_TEST(none_dies_of_those_opened_within_a_quarter_of_a_second)
{
    static const int dead_after_s[] = {15, 30, 45};
    struct life life = {.hz = all_hz[_i], .opened_ms = 250, .ends = ENDS};

    for (size_t d = 0; d < LENGTH(dead_after_s); d++) {
        int dead;

        life.dead_after_s = dead_after_s[d];
        dead = deaths(&life, 1);
        ck_assert_msg(dead == 0, "%d Hz, dead_after %d s: %d die", life.hz, life.dead_after_s,
                      dead);
    }
}
END_TEST

static void
draw_without_regard_to_the_wheel(int32_t i, struct hs_sockopts *own)
{
    uint32_t mixed = ((uint32_t)i + 1) * UINT32_C(2654435761);

    own->keepalive_idle_s = 2 + (int)(mixed >> 8) % 5;
    own->keepalive_interval_s = 1 + (int)(mixed >> 24) % 2;
}

static void
probe_each_second(int32_t i, struct hs_sockopts *own)
{
    (void)i;
    own->keepalive_idle_s = 7;
    own->keepalive_interval_s = 1;
}

static int
deaths_of_eight_herds(const struct life *life)
{
    int dead = 0;

    for (uint64_t seed = 1; seed <= 8; seed++)
        dead += deaths(life, seed);
    return dead;
}

/* What the model is for: it sees the deaths of quiet times and intervals that the wheel bunches. */
START_TEST(times_drawn_without_regard_to_the_wheel_kill_some)
{
    struct life life = {.hz = 250, .dead_after_s = 15, .opened_ms = 450, .ends = ENDS};

    life.change = draw_without_regard_to_the_wheel;
    ck_assert_int_gt(deaths_of_eight_herds(&life), 100);
    life.change = probe_each_second;
    ck_assert_int_gt(deaths_of_eight_herds(&life), 10000);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("keepalive herd");

    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, none_dies_of_its_neighbours_probes, 0, (int)LENGTH(all_hz));
    tcase_add_loop_test(tc, none_dies_of_those_opened_within_a_quarter_of_a_second, 0,
                        (int)LENGTH(all_hz));
    tcase_add_test(tc, times_drawn_without_regard_to_the_wheel_kill_some);
    return run_case(tc);
}
