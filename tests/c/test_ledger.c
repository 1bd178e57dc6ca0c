/* test_ledger.c: who holds what since when, by place; what is overdue; histograms.
 *
 * Places are made up: to the core they are two opaque values.
 */
#include "pool_support.h"

#include <string.h>

static const char here[1], there[1];

static struct hs_lease
take_from(struct hs_pool *p, const void *code, int at, uint64_t thread)
{
    struct hs_op op = op_in(10 * SECOND);
    struct hs_request r = {.holder = {.code = code, .at = at, .thread = thread, .task = 5}};
    struct hs_lease lease;

    (void)hs_pool_know_site(p, &r.holder, NULL);
    ASSERT_OK(acquire(p, &op, &r, fresh(), &lease));
    return lease;
}

static struct hs_call_site_stats
site(struct hs_pool *p, const void *code, int at)
{
    struct hs_call_site_stats sites[8] = {0};
    size_t n = hs_pool_sites(p, sites, LENGTH(sites));

    ck_assert_uint_le(n, LENGTH(sites));
    for (size_t i = 0; i < n; i++)
        if (sites[i].code == code && sites[i].at == at)
            return sites[i];
    return (struct hs_call_site_stats){0};
}

START_TEST(lent_connections_are_listed_with_who_holds_them)
{
    struct server s = server_new();
    struct hs_pool_options o = options(3);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease a = take_from(p, here, 10, 77), b = take_from(p, there, 20, 78);
    struct hs_lent lent[2];
    struct hs_op op = op_in(10 * SECOND);

    ASSERT_OK(DONE(hs_conn_send_all(b.conn, &op, (const uint8_t *)"four", 4, fresh())));
    ck_assert_uint_eq(hs_pool_lent(p, lent, 1), 2); /* As many as there is room for. */
    ck_assert_uint_eq(hs_pool_lent(p, lent, 2), 2);
    ck_assert_uint_eq(lent[0].id, a.id);
    ck_assert_ptr_eq(lent[0].holder.code, here);
    ck_assert_int_eq(lent[0].holder.at, 10);
    ck_assert_uint_eq(lent[0].holder.thread, 77);
    ck_assert_uint_eq(lent[0].holder.task, 5);
    ck_assert_int_eq(lent[0].fd, hs_conn_fileno(a.conn));
    ck_assert_int_ge(lent[0].age_ns, lent[1].age_ns);
    ck_assert_uint_eq(lent[1].bytes_sent, 4);
    (void)give(p, &a);
    (void)give_as(p, &b, HS_RETURN_DISCARD);
    ck_assert_uint_eq(hs_pool_lent(p, NULL, 0), 0);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(waiter_served_by_another_is_listed_as_itself)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease a = take_from(p, here, 1, 1);
    struct stepped w = stepped_new(10 * SECOND);
    struct hs_lent lent;

    w.request.holder = (struct hs_holder){.code = there, .at = 2, .thread = 9};
    (void)hs_pool_know_site(p, &w.request.holder, NULL);
    ASSERT_ERR(HS_WANT, stepped_step(&w, p));
    (void)give(p, &a);
    ck_assert_uint_eq(hs_pool_lent(p, &lent, 1), 1);
    ck_assert_ptr_eq(lent.holder.code, there);
    ck_assert_uint_eq(lent.holder.thread, 9);
    ck_assert_uint_eq(site(p, there, 2).lent, 1);
    ASSERT_OK(stepped_step(&w, p));
    (void)give(p, &w.lease);
    pool_end(p);
    server_free(&s);
}
END_TEST

static int released;

static void
release(const void *code)
{
    ck_assert(code == here || code == there);
    released++;
}

START_TEST(places_are_counted)
{
    struct server s = server_new();
    struct hs_pool_options o = options(4);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_holder h = {.code = here, .at = 1};
    struct hs_lease a, b, c;
    struct hs_op op = op_in(10 * SECOND);

    ck_assert(hs_pool_know_site(p, &h, NULL));
    ck_assert(!hs_pool_know_site(p, &h, NULL)); /* Once. */
    a = take_from(p, here, 1, 1);
    b = take_from(p, here, 1, 1);
    c = take_from(p, there, 1, 1);
    ck_assert_uint_eq(site(p, here, 1).lent, 2);
    ck_assert_uint_eq(site(p, here, 1).acquired, 2);
    (void)give(p, &a);
    hs_pool_lose(&b);
    EVENTUALLY(stats_of(p).lent == 1);
    ck_assert_uint_eq(site(p, here, 1).lent, 0);
    ck_assert_uint_eq(site(p, here, 1).lost, 1);
    ck_assert_int_gt(site(p, here, 1).held_max_ns, 0);
    ASSERT_OK(DONE(hs_conn_send_all(c.conn, &op, (const uint8_t *)"x", 1, fresh())));
    ck_assert_int_eq(give(p, &c), HS_POOL_DIRTY);
    ck_assert_uint_eq(site(p, there, 1).dirty, 1);
    hs_pool_close(p);
    hs_pool_forget_sites(p, release);
    ck_assert_int_eq(released, 2);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(place_that_was_not_told_is_counted_with_the_others)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease a = take(p);

    ck_assert_uint_eq(site(p, NULL, 0).lent, 1);
    (void)give(p, &a);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(endless_places_do_not_fill_the_memory)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_holder h = {.code = here};
    int known = 0;

    for (h.at = 0; h.at < 10000; h.at++)
        known += hs_pool_know_site(p, &h, NULL);
    ck_assert_int_eq(known, 4096);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* ---- Overdue ------------------------------------------------------------------------------- */

START_TEST(overdue_lease_is_told_once_and_its_late_return_too)
{
    struct server s = server_new();
    struct hs_pool_options o = options(2);
    struct hs_lease a, b;
    struct hs_lent lent;
    struct hs_op op = op_in(10 * SECOND);
    struct hs_pool *p;
    int64_t since;
    bool late;

    o.overdue_after_ns = 10 * MS;
    p = pool_of(&s, &o);
    a = take_from(p, here, 3, 1);
    ASSERT_OK(DONE(hs_pool_await_overdue(p, &op, fresh(), &lent)));
    ck_assert_uint_eq(lent.id, a.id);
    ck_assert(lent.overdue);
    ck_assert_int_ge(lent.age_ns, 10 * MS);
    op = op_in(30 * MS);
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_pool_await_overdue(p, &op, fresh(), &lent)));
    ck_assert_uint_eq(site(p, here, 3).overdue, 1);
    ASSERT_OK(hs_pool_release(p, &a, HS_RETURN_DONE, fresh(), NULL, &late));
    ck_assert(late);
    ck_assert_uint_eq(stats_of(p).overdue, 1);
    ck_assert_uint_eq(stats_of(p).returned_late, 1);
    since = hs_now();
    b = take(p);
    ASSERT_OK(hs_pool_release(p, &b, HS_RETURN_DONE, fresh(), NULL, &late));
    ck_assert(!late || hs_now() - since >= 10 * MS); /* It was late indeed, on a slow machine. */
    pool_end(p);
    server_free(&s);
}
END_TEST

static void *
await_overdue(void *arg)
{
    struct hs_op op = op_in(10 * SECOND);
    struct hs_lent lent;

    ASSERT_ERR(HS_E_CLOSED, DONE(hs_pool_await_overdue(arg, &op, fresh(), &lent)));
    return NULL;
}

START_TEST(who_awaits_the_overdue_is_told_that_the_pool_closes)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct thread t;

    thread_start(&t, await_overdue, p);
    thread_wait_asleep(&t);
    hs_pool_close(p);
    (void)thread_join(&t);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* ---- Histograms ---------------------------------------------------------------------------- */

START_TEST(buckets_are_in_order_and_hold_what_they_say)
{
    int64_t last = 0;

    for (size_t i = 0; i + 1 < HS_HISTOGRAM_BUCKETS; i++) {
        int64_t bound = hs_histogram_bound(i);

        ck_assert_int_gt(bound, last);
        ck_assert_uint_eq(hs_histogram_bucket(bound - 1), i);
        ck_assert_uint_eq(hs_histogram_bucket(bound), i + 1);
        ck_assert(bound <= 8 || (bound - last) * 4 <= last); /* A quarter at most. */
        last = bound;
    }
    ck_assert_int_gt(last, 36 * 3600 * SECOND);
    ck_assert_int_eq(hs_histogram_bound(HS_HISTOGRAM_BUCKETS - 1), HS_NEVER);
    ck_assert_uint_eq(hs_histogram_bucket(-5), 0);
    ck_assert_uint_eq(hs_histogram_bucket(HS_NEVER), HS_HISTOGRAM_BUCKETS - 1);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("ledger");

    tcase_add_test(tc, lent_connections_are_listed_with_who_holds_them);
    tcase_add_test(tc, waiter_served_by_another_is_listed_as_itself);
    tcase_add_test(tc, places_are_counted);
    tcase_add_test(tc, place_that_was_not_told_is_counted_with_the_others);
    tcase_add_test(tc, endless_places_do_not_fill_the_memory);
    tcase_add_test(tc, overdue_lease_is_told_once_and_its_late_return_too);
    tcase_add_test(tc, who_awaits_the_overdue_is_told_that_the_pool_closes);
    tcase_add_test(tc, buckets_are_in_order_and_hold_what_they_say);
    return run_case(tc);
}
