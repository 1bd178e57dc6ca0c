/* test_sockopt.c: what dead_after becomes: every schedule, against the kernel's own rules.
 *
 * The model is tcp_keepalive_timer() in net/ipv4/tcp_timer.c: the timer fires after the quiet time
 * and then after each interval; it ends the connection if the user timeout has passed and a probe
 * is out, else it sends one. Timers are never early, and late by 8/63 at most.
 */
#include "support.h"

#include "../../csrc/base/time.h"
#include "../../csrc/stream/sockopt.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LATEST (1 + 8.0 / 63)
#define TICK_S 0.01 /* of a kernel with 100 Hz, the coarsest */

/* How many probes go unanswered until the connection is dead, and when that is. */
static int
probes_until_dead(const struct hs_sockopts *o, double late, double tick, double *ret_dead_s)
{
    double at = o->keepalive_idle_s * late + tick;
    int probes = 0;

    while (at * 1000 < o->user_timeout_ms || probes == 0) {
        probes++;
        at += o->keepalive_interval_s * late + tick;
    }
    *ret_dead_s = at;
    return probes;
}

static void
check_schedule(int dead_after_ms, const struct hs_sockopts *own)
{
    int seconds = dead_after_ms / 1000, least = seconds >= 6 ? 4 : seconds >= 4 ? 3 : seconds - 1;
    double dead_s, limit_s = dead_after_ms < 2000 ? 2 : dead_after_ms / 1000.0;
    int probes = probes_until_dead(own, 1, 0, &dead_s);

    BULK_ASSERT(dead_s <= limit_s, "%d ms: dead after %g s", dead_after_ms, dead_s);
    BULK_ASSERT(seconds < 5 || dead_s >= seconds * 0.8, "%d ms: dead after %g s", dead_after_ms,
                dead_s);
    BULK_ASSERT(probes >= (least > 1 ? least : 1), "%d ms: %d probes", dead_after_ms, probes);
    BULK_ASSERT(own->keepalive_idle_s >= 1 && own->keepalive_idle_s <= 32767,
                "%d ms: idle for %d s", dead_after_ms, own->keepalive_idle_s);
    BULK_ASSERT(own->keepalive_interval_s >= 1 && own->keepalive_interval_s <= 32767,
                "%d ms: every %d s", dead_after_ms, own->keepalive_interval_s);
    BULK_ASSERT(own->user_timeout_ms <= dead_after_ms, "%d ms: unanswered for %d ms", dead_after_ms,
                own->user_timeout_ms);
    if (seconds < 5)
        return;
    /* Also with every timer as late as it can be. */
    probes = probes_until_dead(own, LATEST, 0, &dead_s);
    BULK_ASSERT(dead_s <= limit_s, "%d ms: late, dead after %g s", dead_after_ms, dead_s);
    BULK_ASSERT(probes >= 3, "%d ms: late, %d probes", dead_after_ms, probes);
    (void)probes_until_dead(own, LATEST, TICK_S, &dead_s);
    BULK_ASSERT(dead_s <= limit_s + 0.02, "%d ms: 100 Hz, %g s", dead_after_ms, dead_s);
}

static int
next_time(int ms)
{
    return ms < 60000 ? ms + 7 : ms < 600000 ? ms + 97 : ms + 5003;
}

/* Kernels of all tick rates that there are, and of some that nobody builds. */
static const int all_hz[] = {100, 250, 300, 1000, 24, 128, 1024, 1200};

START_TEST(every_schedule_is_in_time_and_probes_often_enough)
{
    struct hs_sockopts asked, own;

    hs_sockopts_seed(1);
    hs_sockopts_assume_hz(all_hz[_i]);
    for (int ms = 1000; ms <= 86400 * 1000; ms = next_time(ms)) {
        hs_sockopts_init(&asked);
        hs_sockopts_dead_after(&asked, ms);
        check_schedule(ms, &asked);
        for (int i = 0; i < 8; i++) {
            hs_sockopts_draw(&asked, &own);
            check_schedule(ms, &own);
            BULK_ASSERT(own.keepalive_interval_s <= asked.keepalive_interval_s, "%d ms: every %d s",
                        ms, own.keepalive_interval_s);
        }
    }
}
END_TEST

struct range {
    int idle_min, idle_max, interval_min, interval_max;
};

static struct range
range_of(int hz, int seconds)
{
    struct range r = {INT32_MAX, 0, INT32_MAX, 0};
    struct hs_sockopts asked, own;

    hs_sockopts_assume_hz(hz);
    hs_sockopts_seed(7);
    hs_sockopts_init(&asked);
    hs_sockopts_dead_after(&asked, seconds * 1000);
    for (int i = 0; i < 1000; i++) {
        hs_sockopts_draw(&asked, &own);
        r.idle_min = own.keepalive_idle_s < r.idle_min ? own.keepalive_idle_s : r.idle_min;
        r.idle_max = own.keepalive_idle_s > r.idle_max ? own.keepalive_idle_s : r.idle_max;
        r.interval_min =
            own.keepalive_interval_s < r.interval_min ? own.keepalive_interval_s : r.interval_min;
        r.interval_max =
            own.keepalive_interval_s > r.interval_max ? own.keepalive_interval_s : r.interval_max;
    }
    return r;
}

START_TEST(quiet_times_differ_by_a_quarter_at_least)
{
    for (size_t h = 0; h < LENGTH(all_hz); h++)
        for (int seconds = 35; seconds <= 3600; seconds++) {
            struct range r = range_of(all_hz[h], seconds);

            ck_assert_msg(r.idle_min * 4 <= r.idle_max * 3, "%d Hz, %d s: %d to %d", all_hz[h],
                          seconds, r.idle_min, r.idle_max);
        }
}
END_TEST

/* What the wheel of the kernel's timers makes of each, ADR 77. */
START_TEST(short_times_are_those_that_the_timers_keep_best)
{
    static const struct {
        int hz, seconds;
        struct range is;
    } rows[] = {
        {250, 6, {1, 1, 1, 1}},    {250, 8, {2, 2, 1, 1}},    {250, 10, {2, 2, 1, 1}},
        {250, 11, {1, 2, 2, 2}},   {250, 15, {1, 2, 2, 2}},   {250, 18, {1, 2, 2, 2}},
        {250, 19, {3, 10, 2, 2}},  {250, 30, {4, 16, 2, 2}},  {250, 45, {4, 16, 2, 3}},
        {1000, 8, {3, 3, 1, 1}},   {1000, 15, {4, 4, 1, 1}},  {1000, 21, {1, 4, 4, 4}},
        {1000, 30, {3, 13, 3, 4}}, {1000, 45, {4, 16, 3, 4}}, {300, 15, {1, 1, 1, 1}},
        {300, 19, {3, 10, 1, 2}},  {100, 15, {5, 5, 1, 1}},   {100, 26, {1, 5, 5, 5}},
        {100, 45, {4, 16, 4, 5}},
    };

    for (size_t i = 0; i < LENGTH(rows); i++) {
        struct range r = range_of(rows[i].hz, rows[i].seconds);

        ck_assert_msg(memcmp(&r, &rows[i].is, sizeof(r)) == 0,
                      "%d Hz, %d s: quiet for %d to %d s, every %d to %d s", rows[i].hz,
                      rows[i].seconds, r.idle_min, r.idle_max, r.interval_min, r.interval_max);
    }
}
END_TEST

/* clock_getres(2) is what the schedules rest on: it tells one of the rates that kernels are built
 * with, or is not believed. */
START_TEST(the_kernel_tells_its_tick_rate)
{
    int hz = hs_timer_hz();

    ck_assert_int_ge(hz, 10);
    ck_assert_int_le(hz, 10000);
    ck_assert_int_eq(hz, hs_timer_hz());
}
END_TEST

START_TEST(a_seed_gives_the_same_numbers_and_none_gives_others)
{
    struct hs_sockopts asked, first[64], again[64];

    hs_sockopts_init(&asked);
    hs_sockopts_dead_after(&asked, 3600 * 1000);
    for (int round = 0; round < 3; round++) {
        hs_sockopts_seed(round < 2 ? 42 : 0);
        for (size_t i = 0; i < LENGTH(again); i++)
            hs_sockopts_draw(&asked, &again[i]);
        if (round == 0)
            memcpy(first, again, sizeof(first));
        if (round == 1)
            ck_assert_mem_eq(first, again, sizeof(first));
    }
    ck_assert_mem_ne(first, again, sizeof(first));
}
END_TEST

START_TEST(what_was_set_by_hand_is_left_alone)
{
    struct hs_sockopts asked, own;

    hs_sockopts_init(&asked);
    asked.keepalive = 1;
    asked.keepalive_idle_s = 30;
    hs_sockopts_draw(&asked, &own);
    ck_assert_mem_eq(&asked, &own, sizeof(own));
    hs_sockopts_draw_accepted(-1, AF_INET, &asked, &own);
    ck_assert_mem_eq(&asked, &own, sizeof(own));
}
END_TEST

START_TEST(a_socket_that_takes_no_new_times_keeps_the_inherited)
{
    struct hs_sockopts asked, own;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    ck_assert_int_ge(fd, 0);
    hs_sockopts_init(&asked);
    hs_sockopts_dead_after(&asked, 3600 * 1000);
    hs_sockopts_draw_accepted(fd, AF_INET, &asked, &own); /* Knows no TCP option. */
    ck_assert_mem_eq(&asked, &own, sizeof(own));
    (void)close(fd);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("sockopt");

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, every_schedule_is_in_time_and_probes_often_enough, 0,
                        (int)LENGTH(all_hz));
    tcase_add_test(tc, quiet_times_differ_by_a_quarter_at_least);
    tcase_add_test(tc, short_times_are_those_that_the_timers_keep_best);
    tcase_add_test(tc, the_kernel_tells_its_tick_rate);
    tcase_add_test(tc, a_seed_gives_the_same_numbers_and_none_gives_others);
    tcase_add_test(tc, what_was_set_by_hand_is_left_alone);
    tcase_add_test(tc, a_socket_that_takes_no_new_times_keeps_the_inherited);
    return run_case(tc);
}
