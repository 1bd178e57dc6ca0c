/* test_sockopt.c: what dead_after becomes: every schedule, against the kernel's own rules.
 *
 * The model is tcp_keepalive_timer() in net/ipv4/tcp_timer.c: the timer fires after the quiet time
 * and then after each interval; it ends the connection if the user timeout has passed and a probe
 * is out, else it sends one. Timers are never early, and late by 8/63 at most.
 */
#include "support.h"

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

START_TEST(every_schedule_is_in_time_and_probes_often_enough)
{
    struct hs_sockopts asked, own;

    hs_sockopts_seed(1);
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

START_TEST(quiet_times_differ_by_a_quarter_at_least)
{
    for (int seconds = 8; seconds <= 3600; seconds++) {
        int idle_min = INT32_MAX, idle_max = 0, interval_min = INT32_MAX, interval_max = 0;
        struct hs_sockopts asked, own;

        hs_sockopts_seed(7);
        hs_sockopts_init(&asked);
        hs_sockopts_dead_after(&asked, seconds * 1000);
        for (int i = 0; i < 1000; i++) {
            hs_sockopts_draw(&asked, &own);
            idle_min = own.keepalive_idle_s < idle_min ? own.keepalive_idle_s : idle_min;
            idle_max = own.keepalive_idle_s > idle_max ? own.keepalive_idle_s : idle_max;
            interval_min =
                interval_min < own.keepalive_interval_s ? interval_min : own.keepalive_interval_s;
            interval_max =
                interval_max > own.keepalive_interval_s ? interval_max : own.keepalive_interval_s;
        }
        ck_assert_msg(idle_min * 4 <= idle_max * 3, "%d s: %d to %d", seconds, idle_min, idle_max);
        /* What is sent again meets the next probes, and is lost with them, unless two lengths of
         * interval set it apart: from 12 s on; the kernel counts in whole seconds. */
        if (seconds >= 12)
            ck_assert_int_gt(asked.keepalive_interval_s, 1);
        if (asked.keepalive_interval_s > 1)
            ck_assert_msg(interval_min * 4 <= interval_max * 3, "%d s: every %d to %d", seconds,
                          interval_min, interval_max);
    }
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
    tcase_add_test(tc, every_schedule_is_in_time_and_probes_often_enough);
    tcase_add_test(tc, quiet_times_differ_by_a_quarter_at_least);
    tcase_add_test(tc, a_seed_gives_the_same_numbers_and_none_gives_others);
    tcase_add_test(tc, what_was_set_by_hand_is_left_alone);
    tcase_add_test(tc, a_socket_that_takes_no_new_times_keeps_the_inherited);
    return run_case(tc);
}
