/* test_roll.c: what is noted for those who look: durations by fixed edges, lines of the program,
 * the list of all connections.
 */
#include "support.h"

#include "base/spans.h"
#include "stream/conn.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- Durations ----------------------------------------------------------------------------- */

START_TEST(edges_grow_and_hold_what_is_not_longer)
{
    for (size_t i = 0; i < HS_EDGES; i++) {
        int64_t edge = hs_edge_ns(i);

        ck_assert_int_lt(edge, hs_edge_ns(i + 1));
        ck_assert_uint_eq(hs_edge_index(edge), i);
        ck_assert_uint_eq(hs_edge_index(edge + 1), i + 1);
    }
    ck_assert_int_eq(hs_edge_ns(HS_EDGES), HS_NEVER);
    ck_assert_uint_eq(hs_edge_index(-5), 0);
    ck_assert_uint_eq(hs_edge_index(HS_NEVER), HS_EDGES);
}
END_TEST

START_TEST(times_are_counted_by_the_common_edges)
{
    struct hs_spread s, other = {0};

    hs_span_add(HS_SPAN_WORKER_WAIT, -1);
    hs_span_add(HS_SPAN_WORKER_WAIT, 2 * MS);
    hs_span_add(HS_SPAN_WORKER_WAIT, 86401 * SECOND);
    hs_span_read(HS_SPAN_WORKER_WAIT, &s);
    ck_assert_uint_eq(s.count, 3);
    ck_assert_uint_eq(s.sum_ns, (uint64_t)(2 * MS + 86401 * SECOND));
    ck_assert_uint_eq(s.buckets[0], 1);
    ck_assert_uint_eq(s.buckets[hs_edge_index(2 * MS)], 1);
    ck_assert_uint_eq(s.buckets[HS_EDGES], 1);
    hs_spread_add(&other, 2 * MS);
    hs_spread_add(&other, -1);
    ck_assert_uint_eq(other.count, 2);
    ck_assert_uint_eq(other.sum_ns, (uint64_t)(2 * MS));
    ck_assert_uint_eq(other.buckets[hs_edge_index(2 * MS)], s.buckets[hs_edge_index(2 * MS)]);
}
END_TEST

/* ---- Lines --------------------------------------------------------------------------------- */

START_TEST(a_line_is_one_site)
{
    struct hs_call_site *s = hs_call_site_intern("orders.py", "place", 88);
    struct hs_call_site_name name;
    char file[] = "orders.py"; /* by what it says, not by where it stands */

    ck_assert_ptr_eq(s, hs_call_site_intern(file, "place", 88));
    ck_assert_ptr_ne(s, hs_call_site_intern("orders.py", "place", 89));
    ck_assert_ptr_ne(s, hs_call_site_intern("orders.py", "cancel", 88));
    hs_call_site_name(s, &name);
    ck_assert_str_eq(name.file, "orders.py");
    ck_assert_str_eq(name.function, "place");
    ck_assert_int_eq(name.line, 88);
}
END_TEST

START_TEST(long_names_are_cut_and_still_one_site)
{
    char text[5000];
    struct hs_call_site_name name;

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    ck_assert_ptr_eq(hs_call_site_intern(text, text, 1), hs_call_site_intern(text, text, 1));
    hs_call_site_name(hs_call_site_intern(text, text, 1), &name);
    ck_assert_uint_lt(strlen(name.file), sizeof(text) - 1);
}
END_TEST

START_TEST(lines_without_end_become_one)
{
    struct hs_call_site *last = NULL, *all[HS_SITES_MAX + 1];
    char file[32];

    for (int i = 0; i < HS_SITES_MAX + 10; i++) {
        (void)snprintf(file, sizeof(file), "made%d.py", i);
        last = hs_call_site_intern(file, "f", 1);
    }
    ck_assert_ptr_eq(last, hs_call_site_unknown());
    ck_assert_uint_eq(hs_call_sites(all, LENGTH(all)), HS_SITES_MAX + 1);
    ck_assert_ptr_eq(all[0], hs_call_site_unknown());
    ck_assert_ptr_ne(all[HS_SITES_MAX], NULL);
}
END_TEST

#define INTERNERS 4
#define LINES 1000

static struct hs_call_site *interned[INTERNERS][LINES];

static void *
intern_all(void *arg)
{
    struct hs_call_site **mine = arg;

    for (int i = 0; i < LINES; i++)
        mine[i] = hs_call_site_intern("crowd.py", "f", i % 50);
    return NULL;
}

START_TEST(threads_that_intern_the_same_line_get_the_same_site)
{
    struct thread t[INTERNERS];

    for (int i = 0; i < INTERNERS; i++)
        thread_start(&t[i], intern_all, interned[i]);
    for (int i = 0; i < INTERNERS; i++)
        (void)thread_join(&t[i]);
    for (int i = 1; i < INTERNERS; i++)
        ck_assert_mem_eq(interned[0], interned[i], sizeof(interned[0]));
}
END_TEST

/* ---- Connections --------------------------------------------------------------------------- */

static struct hs_conn_row
row_of(struct hs_conn *c)
{
    struct hs_conn_row row;

    hs_conn_describe(c, &row);
    return row;
}

/* The only one that is open. */
static struct hs_conn *
only_one(void)
{
    struct hs_conn *conns[2];

    ck_assert_uint_eq(hs_conns(conns, 2), 1);
    hs_conn_unref(conns[0]);
    return conns[0];
}

START_TEST(open_connections_are_listed_with_their_line)
{
    struct pair p = pair_tcp();
    struct hs_call_site *site = hs_call_site_intern("client.py", "call", 7);
    struct hs_call_site_counts before, counts;
    struct hs_conn_row row;
    struct hs_op op = op_in(10 * SECOND);
    uint8_t buf[8];
    size_t n;

    hs_call_site_counts(site, &before);
    hs_conn_set_site(p.c, HS_MADE_CONNECT, site, 42);
    ck_assert_ptr_eq(only_one(), p.c);
    put(p.peer, "hello", 5);
    ASSERT_OK(DONE(hs_conn_recv(p.c, &op, buf, 3, 0, fresh(), &n)));
    row = row_of(p.c);
    ck_assert_int_eq(row.fd, hs_conn_fileno(p.c));
    ck_assert_int_eq(row.how, HS_MADE_CONNECT);
    ck_assert_str_eq(hs_made_name(row.how), "connect");
    ck_assert_ptr_eq(row.site, site);
    ck_assert_uint_eq(row.thread, 42);
    ck_assert_ptr_eq(row.holder, NULL);
    ck_assert(!row.tls);
    ck_assert_uint_eq(row.info.bytes_received, 3);
    ck_assert_int_gt(row.info.last_read_ns, 0);
    ck_assert_int_eq(row.unread, 2);
    ck_assert_int_eq(row.unsent, 0);
    ck_assert_int_gt(row.local.len, 0);
    ck_assert_int_gt(row.peer.len, 0);
    ck_assert_ptr_eq(hs_conn_find(row.id), p.c);
    hs_conn_unref(p.c);
    ck_assert_ptr_null(hs_conn_find(row.id + 16)); /* Of the same part of the list. */
    hs_call_site_counts(site, &counts);
    ck_assert_uint_eq(counts.open[HS_MADE_CONNECT], before.open[HS_MADE_CONNECT] + 1);
    hs_conn_close(p.c, false);
    ck_assert_uint_eq(hs_conns(NULL, 0), 0);
    ck_assert_ptr_null(hs_conn_find(row.id));
    ck_assert_int_eq(row_of(p.c).fd, -1);
    hs_call_site_counts(site, &counts);
    ck_assert_uint_eq(counts.open[HS_MADE_CONNECT], before.open[HS_MADE_CONNECT]);
    ck_assert_uint_eq(counts.opened, before.opened + 1);
    ck_assert_uint_eq(counts.received, before.received + 3);
    pair_free(&p);
}
END_TEST

START_TEST(a_site_that_is_told_too_late_counts_all_the_same)
{
    struct pair p = pair_tcp();
    struct hs_call_site *site = hs_call_site_intern("late.py", "call", 7);
    struct hs_call_site_counts counts;

    hs_conn_close(p.c, false);
    hs_conn_set_site(p.c, HS_MADE_ACCEPT, site, 1);
    hs_call_site_counts(site, &counts);
    ck_assert_uint_eq(counts.opened, 1);
    ck_assert_uint_eq(counts.open[HS_MADE_ACCEPT], 0);
    pair_free(&p);
}
END_TEST

START_TEST(detached_connection_has_ended)
{
    struct pair p = pair_tcp();
    struct hs_spread before, after;
    int fd;

    hs_span_read(HS_SPAN_CONN_AGE, &before);
    ASSERT_OK(hs_conn_detach(p.c, fresh(), &fd));
    hs_span_read(HS_SPAN_CONN_AGE, &after);
    ck_assert_uint_eq(after.count, before.count + 1);
    ck_assert_uint_eq(hs_conns(NULL, 0), 0);
    ck_assert_int_eq(close(fd), 0);
    pair_free(&p);
}
END_TEST

static void *
read_one(void *arg)
{
    struct pair *p = arg;
    struct hs_op op = op_in(10 * SECOND);
    uint8_t byte;
    size_t n;

    ASSERT_OK(DONE(hs_conn_recv(p->c, &op, &byte, 1, 0, fresh(), &n)));
    return NULL;
}

static void
feed(struct pair *p, struct thread *t)
{
    put(p->peer, "x", 1);
    (void)thread_join(t);
}

START_TEST(wait_for_the_peer_is_seen_while_it_lasts_and_counted_after)
{
    struct pair p = pair_tcp();
    struct hs_spread before, after;
    struct hs_conn_row row;
    struct thread t;

    hs_span_read(HS_SPAN_READ_STALL_PEER, &before);
    thread_start(&t, read_one, &p);
    thread_wait_asleep(&t);
    row = row_of(p.c);
    ck_assert_int_gt(row.reading.since_ns, 0);
    ck_assert_uint_eq(row.reading.count, 0);
    ck_assert_int_eq(row.writing.since_ns, 0);
    feed(&p, &t);
    row = row_of(p.c);
    ck_assert_int_eq(row.reading.since_ns, 0);
    ck_assert_uint_eq(row.reading.count, 1);
    ck_assert_int_gt(row.reading.total_ns, 0);
    hs_span_read(HS_SPAN_READ_STALL_PEER, &after);
    ck_assert_uint_eq(after.count, before.count + 1);
    ck_assert_uint_eq(after.sum_ns - before.sum_ns, (uint64_t)row.reading.total_ns);
    pair_free(&p);
}
END_TEST

START_TEST(wait_that_ends_at_the_deadline_is_counted_too)
{
    struct pair p = pair_tcp();
    uint8_t byte;
    size_t n;

    /* A busy machine may reach the deadline before the call does: then nothing has waited. */
    for (int64_t span = MS; row_of(p.c).reading.count == 0 && span < 60 * SECOND; span *= 2) {
        struct hs_op op = op_in(span);

        ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    }
    ck_assert_uint_eq(row_of(p.c).reading.count, 1);
    ck_assert_int_eq(row_of(p.c).reading.since_ns, 0);
    pair_free(&p);
}
END_TEST

START_TEST(abandoned_wait_of_a_stepped_call_is_over)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_step(10 * SECOND);
    uint8_t byte;
    size_t n;

    ASSERT_ERR(HS_WANT, hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n));
    ck_assert_int_gt(row_of(p.c).reading.since_ns, 0);
    hs_conn_abandon(p.c, &op, NULL);
    ck_assert_int_eq(row_of(p.c).reading.since_ns, 0);
    ck_assert_uint_eq(row_of(p.c).reading.count, 1);
    pair_free(&p);
}
END_TEST

START_TEST(call_that_does_not_wait_is_no_stall)
{
    struct pair p = pair_tcp();
    struct hs_op op = HS_OP_INIT(HS_TRY_ONCE, NULL);
    uint8_t byte;
    size_t n;

    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    ck_assert_uint_eq(row_of(p.c).reading.count, 0);
    pair_free(&p);
}
END_TEST

START_TEST(bytes_that_lay_here_are_found_to_have_done_so)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_in(10 * SECOND);
    int64_t since = hs_now();
    uint8_t byte;
    size_t n;

    put(p.peer, "x", 1);
    while (hs_now() - since < 60 * MS) /* The kernel counts in ticks of up to 10 ms. */
        breathe();
    ASSERT_OK(DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    ck_assert_int_ge(row_of(p.c).application_ns, 30 * MS);
    pair_free(&p);
}
END_TEST

START_TEST(caller_that_goes_on_late_is_counted)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_in(10 * SECOND);
    struct hs_spread before, after;
    uint8_t byte;
    size_t n;

    hs_span_read(HS_SPAN_READ_STALL_GIL, &before);
    put(p.peer, "x", 1);
    ASSERT_OK(DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    ck_assert_int_gt(op.came_ns, 0);
    hs_conn_resumed(p.c, &op);
    ck_assert_int_eq(op.came_ns, 0);
    hs_span_read(HS_SPAN_READ_STALL_GIL, &after);
    ck_assert_uint_eq(after.count, before.count + 1);
    ck_assert_int_gt(row_of(p.c).gil_ns, 0);
    pair_free(&p);
}
END_TEST

/* ---- Looking while things happen ----------------------------------------------------------- */

static atomic_bool enough;

static void *
open_and_close(void *arg)
{
    struct hs_call_site *site = hs_call_site_intern("crowd.py", "open", 1);

    (void)arg;
    for (int i = 0; i < 300; i++) {
        struct pair p = pair_unix();
        struct hs_op op = op_in(10 * SECOND);
        uint8_t byte;
        size_t n;

        hs_conn_set_site(p.c, HS_MADE_ADOPT, site, (uint64_t)i);
        put(p.peer, "x", 1);
        ASSERT_OK(DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
        pair_free(&p);
    }
    return NULL;
}

static void *
look_all_the_time(void *arg)
{
    struct hs_conn *conns[64];
    long *looks = arg;

    for (; !atomic_load(&enough); (*looks)++) {
        size_t n = hs_conns(conns, LENGTH(conns));

        for (size_t i = 0; i < n && i < LENGTH(conns); i++) {
            (void)row_of(conns[i]);
            hs_conn_unref(conns[i]);
        }
    }
    return NULL;
}

START_TEST(looking_disturbs_nobody_who_opens_and_closes)
{
    struct hs_call_site *site = hs_call_site_intern("crowd.py", "open", 1);
    struct hs_call_site_counts counts;
    struct thread workers[3], looker;
    long looks = 0;

    atomic_store(&enough, false);
    thread_start(&looker, look_all_the_time, &looks);
    for (size_t i = 0; i < LENGTH(workers); i++)
        thread_start(&workers[i], open_and_close, NULL);
    for (size_t i = 0; i < LENGTH(workers); i++)
        (void)thread_join(&workers[i]);
    atomic_store(&enough, true);
    (void)thread_join(&looker);
    ck_assert_int_gt(looks, 0);
    ck_assert_uint_eq(hs_conns(NULL, 0), 0);
    hs_call_site_counts(site, &counts);
    ck_assert_uint_eq(counts.opened, 900);
    ck_assert_uint_eq(counts.open[HS_MADE_ADOPT], 0);
    ck_assert_uint_eq(counts.received, 900);
}
END_TEST

START_TEST(looking_keeps_nobody_from_detaching)
{
    struct thread looker;
    long looks = 0;
    int fd;

    atomic_store(&enough, false);
    thread_start(&looker, look_all_the_time, &looks);
    for (int i = 0; i < 3000; i++) {
        struct pair p = pair_unix();

        ASSERT_OK(hs_conn_detach(p.c, fresh(), &fd));
        ck_assert_int_eq(close(fd), 0);
        pair_free(&p);
    }
    atomic_store(&enough, true);
    (void)thread_join(&looker);
    ck_assert_int_gt(looks, 0);
}
END_TEST

static void *
look_at_peers(void *arg)
{
    const struct hs_addr *client = arg;
    struct hs_conn *conns[4];

    while (!atomic_load(&enough)) {
        size_t n = hs_conns(conns, LENGTH(conns));

        for (size_t i = 0; i < n && i < LENGTH(conns); i++) {
            struct hs_addr peer = row_of(conns[i]).peer;

            hs_conn_unref(conns[i]);
            ck_assert_int_eq(peer.len, peer.sa.sa_family == AF_INET ? sizeof(struct sockaddr_in)
                                                                    : client->len);
            if (peer.sa.sa_family == AF_INET6)
                ck_assert_mem_eq(&peer.storage, &client->storage, client->len);
        }
    }
    return NULL;
}

START_TEST(client_that_a_proxy_names_is_seen_whole_or_not_at_all)
{
    struct hs_addr client = addr_of("[2001:db8:1:2:3:4:5:6]:4242"), addr;
    struct thread looker;

    atomic_store(&enough, false);
    thread_start(&looker, look_at_peers, &client);
    for (int i = 0; i < 500; i++) {
        struct pair p = pair_tcp();

        ck_assert(!hs_conn_proxy_addr(p.c, &addr));
        ASSERT_OK(hs_conn_set_client(p.c, &client, fresh()));
        ck_assert(hs_conn_proxy_addr(p.c, &addr));
        ck_assert_int_eq(addr.sa.sa_family, AF_INET);
        ASSERT_OK(hs_conn_peer_addr(p.c, fresh(), &addr));
        ck_assert_mem_eq(&addr.storage, &client.storage, client.len);
        pair_free(&p);
    }
    atomic_store(&enough, true);
    (void)thread_join(&looker);
}
END_TEST

static int
count_in_child(void *arg)
{
    struct pair *p = arg, own;
    size_t inherited = hs_conns(NULL, 0), both;

    own = pair_tcp();
    both = hs_conns(NULL, 0);
    pair_free(&own);
    return (int)inherited + (both == 1 ? 0 : 10) + (row_of(p->c).fd == -1 ? 0 : 20);
}

START_TEST(forked_child_lists_only_its_own)
{
    struct pair p = pair_tcp();

    ck_assert_int_eq(in_child(count_in_child, &p), 0);
    pair_free(&p);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("roll");

    tcase_add_test(tc, edges_grow_and_hold_what_is_not_longer);
    tcase_add_test(tc, times_are_counted_by_the_common_edges);
    tcase_add_test(tc, a_line_is_one_site);
    tcase_add_test(tc, long_names_are_cut_and_still_one_site);
    tcase_add_test(tc, lines_without_end_become_one);
    tcase_add_test(tc, threads_that_intern_the_same_line_get_the_same_site);
    tcase_add_test(tc, open_connections_are_listed_with_their_line);
    tcase_add_test(tc, a_site_that_is_told_too_late_counts_all_the_same);
    tcase_add_test(tc, detached_connection_has_ended);
    tcase_add_test(tc, wait_for_the_peer_is_seen_while_it_lasts_and_counted_after);
    tcase_add_test(tc, wait_that_ends_at_the_deadline_is_counted_too);
    tcase_add_test(tc, abandoned_wait_of_a_stepped_call_is_over);
    tcase_add_test(tc, call_that_does_not_wait_is_no_stall);
    tcase_add_test(tc, bytes_that_lay_here_are_found_to_have_done_so);
    tcase_add_test(tc, caller_that_goes_on_late_is_counted);
    tcase_add_test(tc, looking_disturbs_nobody_who_opens_and_closes);
    tcase_add_test(tc, looking_keeps_nobody_from_detaching);
    tcase_add_test(tc, client_that_a_proxy_names_is_seen_whole_or_not_at_all);
    tcase_add_test(tc, forked_child_lists_only_its_own);
    return run_case(tc);
}
