/* test_breaker_crowd.c: many threads on one breaker, and forks in the middle of it.
 *
 * The clock is an atomic that the threads push forward themselves. More keys than the table holds,
 * so that entries go while their permits are out.
 */
#include "../c/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 6
#define ROUNDS 20000
#define KEYS 5
#define HELD 4

static struct hs_breaker *b;
static _Atomic int64_t now;
static atomic_ulong granted, refused, reported;

static struct hs_breaker_key
nth_key(unsigned i)
{
    struct hs_breaker_key key;
    char text[16];

    (void)snprintf(text, sizeof(text), "key %u", i);
    ASSERT_OK(hs_breaker_key_parse(text, strlen(text), fresh(), &key));
    return key;
}

static void
make(size_t max_keys)
{
    struct hs_breaker_options o;

    hs_breaker_options_init(&o);
    o.max_keys = max_keys;
    o.probe_ns = 2 * SECOND;
    ASSERT_OK(hs_breaker_new(&o, fresh(), &b));
    now = SECOND;
}

struct player {
    struct thread thread;
    unsigned seed;
    struct hs_permit held[HELD];
    unsigned keys[HELD];
    size_t n;
};

static void
report(struct player *p, enum hs_fail fail)
{
    struct hs_breaker_key key = nth_key(p->keys[--p->n]);

    hs_breaker_record(b, &key, &p->held[p->n], fail, now);
    reported++;
}

static void
look(struct player *p)
{
    struct hs_breaker_status all[KEYS];
    struct hs_breaker_stats stats;
    struct hs_breaker_key key = nth_key((unsigned)rand_r(&p->seed) % KEYS);

    ck_assert_uint_le(hs_breaker_states(b, now, all, LENGTH(all)), KEYS - 1);
    hs_breaker_stats(b, now, &stats);
    ck_assert_uint_le(stats.keys_open, stats.keys);
    ck_assert_uint_ge(stats.opened, stats.half_opened);
    if (rand_r(&p->seed) % 8 == 0)
        (void)hs_breaker_reset(b, &key);
}

static void *
play(void *arg)
{
    struct player *p = arg;

    for (int i = 0; i < ROUNDS; i++) {
        unsigned dice = (unsigned)rand_r(&p->seed);

        now += dice % 16 == 0 ? 10 * SECOND : MS;
        if (dice % 64 == 1)
            look(p);
        if (p->n > 0 && (p->n == HELD || dice % 2 == 0)) {
            report(p, dice % 3 == 0 ? HS_FAIL_NONE : (enum hs_fail)(dice % HS_FAIL_CLASSES));
        } else {
            struct hs_breaker_key key = nth_key(p->keys[p->n] = dice / 64 % KEYS);

            if (hs_breaker_permit(b, &key, now, &p->held[p->n]) == HS_BREAKER_OPEN) {
                refused++;
            } else {
                granted++;
                p->n++;
            }
        }
    }
    while (p->n > 0)
        report(p, HS_FAIL_NOT_COUNTED);
    return NULL;
}

START_TEST(the_books_balance_after_a_crowd)
{
    struct player players[THREADS];
    struct hs_breaker_stats stats;

    make(KEYS - 1);
    memset(players, 0, sizeof(players));
    for (unsigned i = 0; i < THREADS; i++) {
        players[i].seed = i;
        thread_start(&players[i].thread, play, &players[i]);
    }
    for (unsigned i = 0; i < THREADS; i++)
        (void)thread_join(&players[i].thread);
    hs_breaker_stats(b, now, &stats);
    ck_assert_uint_eq(stats.permitted, granted);
    ck_assert_uint_eq(stats.refused, refused);
    ck_assert_uint_eq(granted, reported);
    ck_assert_uint_eq(stats.successes + stats.failures + stats.not_counted, reported);
    ck_assert_uint_gt(stats.opened, 0);
    ck_assert_uint_gt(stats.closed, 0);
    ck_assert_uint_gt(stats.probes, 0);
    ck_assert_uint_gt(stats.evicted, 0);
    ck_assert_uint_gt(stats.refused, 0);
    hs_breaker_unref(b);
}
END_TEST

static atomic_int probing, most;

static void *
probe_often(void *arg)
{
    struct hs_breaker_key key = nth_key(0);

    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct hs_permit permit;

        if (hs_breaker_permit(b, &key, now, &permit) == HS_BREAKER_OPEN)
            continue;
        if (++probing > most)
            most = probing;
        probing--;
        hs_breaker_record(b, &key, &permit, HS_FAIL_NOT_COUNTED, now);
    }
    return NULL;
}

START_TEST(one_probe_at_a_time_however_many_ask)
{
    struct hs_breaker_key key = nth_key(0);
    struct thread threads[THREADS];
    struct hs_permit permit;
    struct hs_breaker_stats stats;

    make(KEYS);
    (void)hs_breaker_permit(b, &key, now, &permit);
    hs_breaker_record(b, &key, &permit, HS_FAIL_TLS_CERTIFICATE, now);
    now += 30 * SECOND;
    for (int i = 0; i < THREADS; i++)
        thread_start(&threads[i], probe_often, NULL);
    for (int i = 0; i < THREADS; i++)
        (void)thread_join(&threads[i]);
    ck_assert_int_eq(most, 1);
    hs_breaker_stats(b, now, &stats);
    ck_assert_uint_gt(stats.probes, 1);
    ck_assert_uint_eq(stats.probes + stats.refused, THREADS * ROUNDS);
    ck_assert_int_eq(hs_breaker_permit(b, &key, now, &permit), HS_BREAKER_HALF_OPEN);
    hs_breaker_unref(b);
}
END_TEST

/* The address sanitizer's allocator has locks of its own, which a fork in the middle of another
 * thread's call leaves held in the child; the thread sanitizer does not follow threads there. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FORK_BREAKS_TOOLS 1
#else
#define FORK_BREAKS_TOOLS 0
#endif

static atomic_bool stop;

/* Holds the lock most of the time, and allocates nothing. */
static void *
count_for_ever(void *arg)
{
    struct hs_breaker_stats stats;

    (void)arg;
    while (!stop)
        hs_breaker_stats(b, now, &stats);
    return NULL;
}

static void *
ask_for_all(void *arg)
{
    struct hs_permit permit;

    (void)arg;
    for (unsigned i = 0; i < 100; i++) {
        struct hs_breaker_key key = nth_key(i);

        (void)hs_breaker_permit(b, &key, now, &permit);
        hs_breaker_record(b, &key, &permit, HS_FAIL_REFUSED, now);
    }
    return NULL;
}

/* Several threads come upon the parent's lock at once. 1: the table was as the parent had it. */
static int
use_inherited(void *arg)
{
    struct hs_breaker_key known = nth_key(0);
    struct thread threads[3];
    struct hs_permit permit;
    bool kept;

    (void)arg;
    for (size_t i = 0; i < LENGTH(threads); i++)
        thread_start(&threads[i], ask_for_all, NULL);
    for (size_t i = 0; i < LENGTH(threads); i++)
        (void)thread_join(&threads[i]);
    kept = hs_breaker_permit(b, &known, now, &permit) == HS_BREAKER_OPEN;
    hs_breaker_unref(b);
    return kept ? 1 : 0;
}

START_TEST(a_fork_in_the_middle_leaves_the_child_able_to_go_on)
{
    int kept = 0, emptied = 0;
    struct thread t;

    make(4096);
    for (unsigned i = 0; i < 4096; i++) {
        struct hs_breaker_key key = nth_key(i);
        struct hs_permit permit;

        (void)hs_breaker_permit(b, &key, now, &permit);
        hs_breaker_record(b, &key, &permit, HS_FAIL_TLS_CERTIFICATE, now);
    }
    ck_assert_int_eq(in_child(use_inherited, NULL), 1); /* Nobody is at work: nothing is lost. */
    thread_start(&t, count_for_ever, NULL);
    while (kept + emptied < 20 || emptied == 0) {
        int status = in_child(use_inherited, NULL);

        ck_assert_int_ge(status, 0);
        kept += status == 1;
        emptied += status == 0;
    }
    stop = true;
    (void)thread_join(&t);
    hs_breaker_unref(b);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("breaker crowd");

    tcase_add_test(tc, the_books_balance_after_a_crowd);
    tcase_add_test(tc, one_probe_at_a_time_however_many_ask);
    if (!FORK_BREAKS_TOOLS)
        tcase_add_test(tc, a_fork_in_the_middle_leaves_the_child_able_to_go_on);
    return run_case(tc);
}
