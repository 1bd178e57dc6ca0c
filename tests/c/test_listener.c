/* test_listener.c: accepting, ending, unix paths, and running out of descriptors.
 *
 * Every test runs in its own process, so that RLIMIT_NOFILE may be lowered.
 */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct hs_listener *
open_with(const char *text, const struct hs_listen_options *opts)
{
    struct hs_listen_options defaults;
    struct hs_endpoint ep;
    struct hs_listener *l;

    hs_listen_options_init(&defaults);
    ASSERT_OK(hs_endpoint_parse(text, strlen(text), fresh(), &ep));
    ASSERT_OK(hs_listener_open(&ep, opts != NULL ? opts : &defaults, fresh(), &l));
    return l;
}

static hs_err
open_fails(const char *text, const struct hs_listen_options *opts)
{
    struct hs_endpoint ep;
    struct hs_listener *l = NULL;
    hs_err rv;

    ASSERT_OK(hs_endpoint_parse(text, strlen(text), fresh(), &ep));
    rv = hs_listener_open(&ep, opts, fresh(), &l);
    ck_assert_ptr_null(l);
    return rv;
}

static int
dial(struct hs_listener *l)
{
    struct hs_addr addr;
    int fd;

    ASSERT_OK(hs_listener_addr(l, fresh(), &addr));
    fd = socket(addr.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(connect(fd, &addr.sa, addr.len), 0);
    return fd;
}

static struct hs_listener_stats
stats_of(struct hs_listener *l)
{
    struct hs_listener_stats stats;

    hs_listener_stats(l, &stats);
    return stats;
}

static hs_err
accept_in(struct hs_listener *l, int64_t span_ns, size_t max, struct hs_conn **conns, size_t *ret_n)
{
    struct hs_op op = op_in(span_ns);

    return DONE(hs_listener_accept(l, &op, max, fresh(), conns, ret_n));
}

START_TEST(accept_takes_one_or_as_many_as_wait)
{
    struct hs_listener *l = open_with("127.0.0.1:0", NULL);
    struct hs_conn *conns[8];
    int fds[5];
    size_t n;

    for (size_t i = 0; i < 5; i++)
        fds[i] = dial(l);
    ASSERT_OK(accept_in(l, SECOND, 1, conns, &n));
    ck_assert_uint_eq(n, 1);
    ASSERT_OK(accept_in(l, SECOND, 8, conns + 1, &n));
    ck_assert_uint_eq(n, 4);
    ck_assert_uint_eq(stats_of(l).accepted, 5);
    ASSERT_ERR(HS_E_DEADLINE, accept_in(l, 5 * MS, 8, conns + 5, &n));
    ASSERT_ERR(HS_E_DEADLINE, accept_in(l, 0, 8, conns + 5, &n));
    for (size_t i = 0; i < 5; i++) {
        struct hs_op op = op_in(10 * SECOND);

        ASSERT_OK(hs_conn_send_all(conns[i], &op, (const uint8_t *)"x", 1, fresh()));
        hs_conn_unref(conns[i]);
    }
    close_all(fds, 5);
    hs_listener_unref(l);
}
END_TEST

START_TEST(accepting_at_most_none_ends_at_once)
{
    struct hs_listener *l = open_with("127.0.0.1:0", NULL);
    struct hs_op op = op_in(10 * SECOND);
    size_t n = 0;
    hs_err rv = HS_INTR;
    int fd = dial(l);

    for (int i = 0; i < 100 && rv == HS_INTR; i++)
        rv = hs_listener_accept(l, &op, 0, fresh(), NULL, &n);
    ck_assert_msg(rv == HS_OK || rv == HS_E_INVALID, "%s", hs_err_text(rv));
    (void)close(fd);
    hs_listener_unref(l);
}
END_TEST

struct acceptor {
    struct hs_listener *l;
    struct hs_token *token;
    hs_err rv;
    size_t got;
    atomic_int *seen;
};

static void *
accept_until_the_end(void *arg)
{
    struct acceptor *a = arg;

    for (;;) {
        struct hs_op op = op_with(a->token), in = op_in(10 * SECOND);
        struct hs_conn *conns[3];
        size_t n;
        uint32_t id;

        a->rv = DONE(hs_listener_accept(a->l, &op, 3, fresh(), conns, &n));
        if (a->rv != HS_OK)
            return NULL;
        for (size_t i = 0; i < n; i++) {
            in = op_in(10 * SECOND);
            ASSERT_OK(
                DONE(hs_conn_recv_exactly(conns[i], &in, (uint8_t *)&id, sizeof(id), fresh())));
            a->seen[id]++;
            hs_conn_unref(conns[i]);
        }
        a->got += n;
    }
}

START_TEST(closing_or_cancelling_wakes_every_acceptor)
{
    struct hs_token *token;
    struct acceptor a[3];
    struct thread threads[3];
    struct hs_listener *l = open_with("127.0.0.1:0", NULL);

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &token));
    for (size_t i = 0; i < 3; i++) {
        a[i] = (struct acceptor){.l = l, .token = token};
        thread_start(&threads[i], accept_until_the_end, &a[i]);
    }
    for (size_t i = 0; i < 3; i++)
        thread_wait_asleep(&threads[i]);
    if (_i == 0)
        hs_listener_close(l);
    else
        ck_assert(hs_token_cancel(token, NULL, 0, NULL));
    for (size_t i = 0; i < 3; i++) {
        (void)thread_join(&threads[i]);
        ASSERT_ERR(_i == 0 ? HS_E_CLOSED : HS_E_CANCELLED, a[i].rv);
    }
    hs_listener_close(l);
    hs_listener_close(l);
    ck_assert(hs_listener_is_closed(l));
    ck_assert_int_eq(hs_listener_fileno(l), -1);
    hs_listener_unref(l);
    hs_token_unref(token);
}
END_TEST

#define CLIENTS 300

START_TEST(each_connection_goes_to_exactly_one_of_several_acceptors)
{
    static atomic_int seen[CLIENTS];
    struct hs_listener *l = open_with("127.0.0.1:0", NULL);
    struct acceptor a[4];
    struct thread threads[4];
    size_t total = 0;
    int fds[CLIENTS];

    for (size_t i = 0; i < 4; i++) {
        a[i] = (struct acceptor){.l = l, .seen = seen};
        thread_start(&threads[i], accept_until_the_end, &a[i]);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        fds[i] = dial(l);
        put(fds[i], &i, sizeof(i));
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        char byte;

        ck_assert_int_eq(recv(fds[i], &byte, 1, 0), 0);
        (void)close(fds[i]);
    }
    hs_listener_close(l);
    for (size_t i = 0; i < 4; i++) {
        (void)thread_join(&threads[i]);
        total += a[i].got;
    }
    ck_assert_uint_eq(total, CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++)
        ck_assert_int_eq(seen[i], 1);
    hs_listener_unref(l);
}
END_TEST

#define PROXIED 100

static struct hs_listener *
proxied_listener(struct hs_addr *ret_addr)
{
    static const struct hs_network loopback = {.family = AF_INET, .prefix = 8, .bits = {127}};
    struct hs_listen_options options;
    struct hs_endpoint ep;
    struct hs_listener *l;

    hs_listen_options_init(&options);
    options.proxy.from = &loopback;
    options.proxy.n_from = 1;
    ASSERT_OK(hs_endpoint_parse("127.0.0.1:0", 11, fresh(), &ep));
    ASSERT_OK(hs_listener_open(&ep, &options, fresh(), &l));
    ASSERT_OK(hs_listener_addr(l, fresh(), ret_addr));
    return l;
}

/* The one who tends has held newcomers when it began: the next slices of it do not hold them up
 * again, beside one who accepts by now. */
START_TEST(who_tends_on_holds_up_nobody_who_accepts)
{
    struct hs_addr addr;
    struct hs_listener *l = proxied_listener(&addr);
    struct hs_op tending = op_step(30 * SECOND), accepting = op_step(30 * SECOND);
    struct pollfd fd = {.fd = hs_listener_wait_fileno(l), .events = POLLIN};
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct hs_conn *conn;
    size_t n;

    ASSERT_ERR(HS_WANT, DONE(hs_listener_tend(l, &tending, fresh())));
    ASSERT_ERR(HS_WANT, DONE(hs_listener_accept(l, &accepting, 1, fresh(), &conn, &n)));
    ASSERT_ERR(HS_WANT, DONE(hs_listener_tend(l, &tending, fresh())));
    ck_assert_int_eq(connect(client, &addr.sa, addr.len), 0);
    ck_assert_int_eq(poll(&fd, 1, 10000), 1);
    (void)close(client);
    hs_listener_unref(l);
}
END_TEST

/* A client is there, and the one who waits to accept is not stepped: the tender hears of it once.
 * The acceptor is woken, and gets it. */
START_TEST(who_tends_does_not_go_round_for_newcomers_that_nobody_takes)
{
    struct hs_addr addr;
    struct hs_listener *l = proxied_listener(&addr);
    struct hs_op tending = op_step(30 * SECOND), accepting = op_step(30 * SECOND);
    struct pollfd fd = {.fd = hs_listener_wait_fileno(l), .events = POLLIN};
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct hs_conn *conn;
    size_t n;

    ASSERT_ERR(HS_WANT, DONE(hs_listener_tend(l, &tending, fresh())));
    ASSERT_ERR(HS_WANT, DONE(hs_listener_accept(l, &accepting, 1, fresh(), &conn, &n)));
    ck_assert_int_eq(connect(client, &addr.sa, addr.len), 0);
    ck_assert_int_eq(poll(&fd, 1, 10000), 1);
    ASSERT_ERR(HS_WANT, hs_listener_tend(l, &tending, fresh()));
    ck_assert_int_eq(poll(&fd, 1, 0), 0);
    put(client, "PROXY UNKNOWN\r\n", 15);
    while (DONE(hs_listener_accept(l, &accepting, 1, fresh(), &conn, &n)) == HS_WANT)
        ck_assert_int_eq(poll(&fd, 1, 10000), 1);
    hs_conn_unref(conn);
    (void)close(client);
    hs_listener_unref(l);
}
END_TEST

struct tending {
    struct hs_listener *l;
    struct hs_token *over;
    struct hs_error err;
    size_t n;
};

static void *
tend_until_over(void *arg)
{
    struct tending *t = arg;
    struct hs_op op = op_with(t->over);

    ASSERT_ERR(HS_E_CANCELLED, DONE(hs_listener_tend(t->l, &op, &t->err)));
    return NULL;
}

static void *
accept_proxied(void *arg)
{
    struct tending *t = arg;
    struct hs_op op = op_in(30 * SECOND);
    struct hs_conn *conn;
    size_t n;

    for (; t->n < PROXIED; t->n += n) {
        if (DONE(hs_listener_accept(t->l, &op, 1, NULL, &conn, &n)) != HS_OK)
            break;
        hs_conn_unref(conn);
    }
    return NULL;
}

/* In a thread: it sleeps while newcomers are held, and hears of it. */
START_TEST(who_waits_to_accept_is_woken_when_a_tender_meets_newcomers)
{
    struct hs_addr addr;
    struct tending t = {.l = proxied_listener(&addr)};
    struct hs_op op = op_step(30 * SECOND);
    struct thread acceptor;
    int fds[PROXIED];

    thread_start(&acceptor, accept_proxied, &t);
    for (int i = 0; i < PROXIED; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(connect(fds[i], &addr.sa, addr.len), 0);
        put(fds[i], "PROXY UNKNOWN\r\n", 15);
        (void)!hs_listener_tend(t.l, &op, fresh());
    }
    (void)thread_join(&acceptor);
    ck_assert_uint_eq(t.n, PROXIED);
    close_all(fds, PROXIED);
    hs_listener_unref(t.l);
}
END_TEST

/* Who tends may be the one who hears that a client is ready, and takes nobody. */
START_TEST(who_tends_beside_an_acceptor_loses_no_client)
{
    const struct hs_network loopback = {.family = AF_INET, .prefix = 8, .bits = {127}};
    static const char header[] = "PROXY UNKNOWN\r\n";
    struct hs_listen_options o;
    struct tending t = {.n = 0};
    struct thread tender, acceptor;
    int fds[PROXIED];

    hs_listen_options_init(&o);
    o.proxy.from = &loopback;
    o.proxy.n_from = 1;
    t.l = open_with("127.0.0.1:0", &o);
    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &t.over));
    thread_start(&tender, tend_until_over, &t);
    thread_start(&acceptor, accept_proxied, &t);
    for (int i = 0; i < PROXIED; i++)
        fds[i] = dial(t.l);
    for (size_t half = 0; half < 2; half++) /* Most of them wait in between. */
        for (int i = 0; i < PROXIED; i++)
            put(fds[i], header + 8 * half, half == 0 ? 8 : sizeof(header) - 1 - 8);
    thread_join(&acceptor);
    ck_assert_uint_eq(t.n, PROXIED);
    ck_assert(hs_token_cancel(t.over, NULL, 0, NULL));
    thread_join(&tender);
    close_all(fds, PROXIED);
    hs_token_unref(t.over);
    hs_listener_unref(t.l);
}
END_TEST

START_TEST(out_of_descriptors_it_sheds_backs_off_and_recovers)
{
    struct hs_listener *l = open_with("127.0.0.1:0", NULL);
    struct hs_conn *c = NULL;
    int64_t until = hs_now() + 10 * SECOND;
    uint64_t rounds = 0, shed = under_valgrind() ? 5 : 6; /* It loses the first: support.h. */
    int fds[6];
    char byte;
    size_t n;

    for (size_t i = 0; i < 6; i++)
        fds[i] = dial(l);
    forbid_more_descriptors();
    do {
        ASSERT_ERR(HS_E_DEADLINE, accept_in(l, 200 * MS, 1, &c, &n));
        rounds++;
    } while (stats_of(l).shed < shed && hs_now() < until);
    ck_assert_uint_eq(stats_of(l).shed, shed);
    ck_assert_uint_ge(stats_of(l).exhausted, 1);
    ck_assert_uint_le(stats_of(l).exhausted, 30 * rounds); /* 5, 10, .. 100 ms: no spinning */
    for (size_t i = 0; i < 6; i++) {
        if (i >= 6 - shed) { /* They learn at once. */
            ck_assert_int_eq(recv(fds[i], &byte, 1, 0), -1);
            ck_assert_int_eq(errno, ECONNRESET);
        }
        (void)close(fds[i]);
    }
    allow_descriptors();
    fds[0] = dial(l);
    ASSERT_OK(accept_in(l, 10 * SECOND, 1, &c, &n));
    hs_conn_unref(c);
    (void)close(fds[0]);
    hs_listener_unref(l);
}
END_TEST

static void *
accept_for_a_while(void *arg)
{
    struct acceptor *a = arg;
    struct hs_conn *c;
    size_t n;

    a->rv = accept_in(a->l, 50 * MS, 1, &c, &n);
    return NULL;
}

/* Waiting needs an eventfd per thread, and there is no descriptor left for it. */
START_TEST(out_of_descriptors_a_thread_that_never_waited_backs_off_too)
{
    struct acceptor a = {.l = open_with("127.0.0.1:0", NULL)};
    struct thread t;
    int fd = dial(a.l);

    forbid_more_descriptors();
    thread_start(&t, accept_for_a_while, &a);
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_DEADLINE, a.rv);
    allow_descriptors();
    (void)close(fd);
    hs_listener_unref(a.l);
}
END_TEST

static void
make_folder(char folder[40])
{
    (void)snprintf(folder, 40, "/tmp/hardsock-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

START_TEST(a_unix_path_is_made_with_its_mode_and_goes_with_the_listener)
{
    char folder[40], path[60], text[80];
    struct hs_listen_options opts;
    struct hs_listener *l;
    struct stat st;
    int fd;

    make_folder(folder);
    (void)snprintf(path, sizeof(path), "%s/s", folder);
    (void)snprintf(text, sizeof(text), "unix:%s", path);
    hs_listen_options_init(&opts);
    opts.unix_mode = 0640;
    l = open_with(text, &opts);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0640);
    fd = dial(l);
    (void)close(fd);
    hs_listener_close(l);
    ck_assert_int_eq(stat(path, &st), -1);
    hs_listener_unref(l);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

START_TEST(a_path_is_replaced_when_stale_and_only_then)
{
    char folder[40], path[60], text[80];
    struct hs_listen_options opts;
    struct hs_listener *l, *other;
    struct stat st;
    int stale;

    make_folder(folder);
    (void)snprintf(path, sizeof(path), "%s/s", folder);
    (void)snprintf(text, sizeof(text), "unix:%s", path);
    hs_listen_options_init(&opts);
    write_file(path, "a file");
    opts.unlink_stale = true;
    ASSERT_ERR(HS_E_SYSTEM, open_fails(text, &opts)); /* no socket: not ours to remove */
    ck_assert_int_eq(last_error()->sys, EADDRINUSE);
    ck_assert_int_eq(unlink(path), 0);
    l = open_with(text, &opts);
    ASSERT_ERR(HS_E_SYSTEM, open_fails(text, &opts)); /* somebody listens */
    ck_assert_int_eq(stat(path, &st), 0);
    ASSERT_OK(hs_listener_detach(l, fresh(), &stale));
    hs_listener_unref(l);
    (void)close(stale); /* leaves the path behind */
    ck_assert_int_eq(stat(path, &st), 0);
    opts.unlink_stale = false;
    ASSERT_ERR(HS_E_SYSTEM, open_fails(text, &opts));
    opts.unlink_stale = true;
    other = open_with(text, &opts);
    hs_listener_unref(other);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

struct replacing {
    const char *text;
    pthread_barrier_t *begin;
    struct hs_listener *listener;
    int sys;
};

static void *
replace_stale(void *arg)
{
    struct replacing *r = arg;
    struct hs_listen_options opts;
    struct hs_error err = {0};
    struct hs_endpoint ep;

    hs_listen_options_init(&opts);
    opts.unlink_stale = true;
    ASSERT_OK(hs_endpoint_parse(r->text, strlen(r->text), &err, &ep));
    (void)pthread_barrier_wait(r->begin);
    if (hs_listener_open(&ep, &opts, &err, &r->listener) != HS_OK)
        r->sys = err.sys;
    return NULL;
}

START_TEST(of_many_that_replace_a_stale_path_at_once_one_has_it)
{
    enum { THREADS = 4, ROUNDS = 200 };
    char folder[40], text[80];
    pthread_barrier_t begin;

    make_folder(folder);
    (void)snprintf(text, sizeof(text), "unix:%s/s", folder);
    ck_assert_int_eq(pthread_barrier_init(&begin, NULL, THREADS), 0);
    for (int round = 0; round < ROUNDS; round++) {
        struct replacing each[THREADS];
        struct hs_listener *l = open_with(text, NULL);
        pthread_t threads[THREADS];
        int stale, n_open = 0;

        ASSERT_OK(hs_listener_detach(l, fresh(), &stale));
        hs_listener_unref(l);
        (void)close(stale);
        for (int i = 0; i < THREADS; i++) {
            each[i] = (struct replacing){.text = text, .begin = &begin};
            ck_assert_int_eq(pthread_create(&threads[i], NULL, replace_stale, &each[i]), 0);
        }
        for (int i = 0; i < THREADS; i++)
            ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        for (int i = 0; i < THREADS; i++) {
            n_open += each[i].listener != NULL;
            if (each[i].listener == NULL)
                ck_assert_int_eq(each[i].sys, EADDRINUSE);
            else
                hs_listener_unref(each[i].listener); /* and its path goes */
        }
        ck_assert_int_eq(n_open, 1);
    }
    (void)pthread_barrier_destroy(&begin);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

START_TEST(a_path_that_is_another_listeners_by_now_stays)
{
    char folder[40], text[80], path[60], aside[60];
    struct hs_listener *first, *second;
    struct stat st;

    make_folder(folder);
    (void)snprintf(path, sizeof(path), "%s/s", folder);
    (void)snprintf(aside, sizeof(aside), "%s/t", folder);
    (void)snprintf(text, sizeof(text), "unix:%s", path);
    first = open_with(text, NULL);
    if (_i == 0)
        ck_assert_int_eq(rename(path, aside), 0);
    else
        ck_assert_int_eq(unlink(path), 0);
    second = open_with(text, NULL);
    hs_listener_unref(first);
    ck_assert_int_eq(stat(path, &st), 0);
    hs_listener_unref(second);
    ck_assert_int_eq(stat(path, &st), -1);
    (void)unlink(aside);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

START_TEST(no_host_is_every_address_of_both_families)
{
    struct hs_listener *l = open_with(":0", NULL);
    const char *hosts[] = {"127.0.0.1", "[::1]"};
    struct hs_addr addr;

    ASSERT_OK(hs_listener_addr(l, fresh(), &addr));
    for (size_t i = 0; i < (addr.sa.sa_family == AF_INET6 ? 2 : 1); i++) {
        char text[80];
        struct hs_addr target;
        struct hs_conn *c;
        size_t n;
        int fd;

        (void)snprintf(text, sizeof(text), "%s:%d", hosts[i],
                       ntohs(((struct sockaddr_in *)&addr.storage)->sin_port));
        target = addr_of(text);
        fd = socket(target.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(connect(fd, &target.sa, target.len), 0);
        ASSERT_OK(accept_in(l, 10 * SECOND, 1, &c, &n));
        hs_conn_unref(c);
        (void)close(fd);
    }
    hs_listener_unref(l);
}
END_TEST

START_TEST(what_cannot_be_listened_on_is_refused)
{
    struct hs_listener *l = open_with("127.0.0.1:0", NULL);
    struct hs_listen_options opts;
    char text[HS_ADDR_TEXT_SIZE];
    struct hs_addr addr;

    hs_listen_options_init(&opts);
    ASSERT_ERR(HS_E_INVALID, open_fails("localhost:0", &opts));
    ASSERT_OK(hs_listener_addr(l, fresh(), &addr));
    ASSERT_ERR(HS_E_SYSTEM, open_fails(hs_addr_text(&addr, text, sizeof(text)), &opts));
    ck_assert_int_eq(last_error()->sys, EADDRINUSE);
    ck_assert_str_eq(last_error()->op, "listen");
    opts.backlog = -1;
    ASSERT_ERR(HS_E_INVALID, open_fails("127.0.0.1:0", &opts));
    hs_listen_options_init(&opts);
    opts.sockopts.linger_s = 0;
    ASSERT_ERR(HS_E_INVALID, open_fails("127.0.0.1:0", &opts));
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "linger=0: all that are accepted"));
    hs_listener_unref(l);
}
END_TEST

START_TEST(the_backlog_is_read_back)
{
    struct hs_listen_options opts;
    struct hs_listener *l;
    int fd;

    hs_listen_options_init(&opts);
    opts.backlog = 7;
    l = open_with("127.0.0.1:0", &opts);
    ck_assert_int_eq(stats_of(l).backlog_asked, 7);
    ck_assert_int_eq(stats_of(l).backlog_effective, 7);
    ck_assert_int_eq(stats_of(l).queue_length, 0);
    fd = dial(l);
    EVENTUALLY(stats_of(l).queue_length == 1);
    (void)close(fd);
    hs_listener_unref(l);
    opts.backlog = 1 << 30; /* more than any somaxconn */
    l = open_with("127.0.0.1:0", &opts);
    ck_assert_int_lt(stats_of(l).backlog_effective, 1 << 30);
    hs_listener_unref(l);
}
END_TEST

START_TEST(a_listening_socket_can_be_adopted_and_nothing_else)
{
    struct hs_listen_options opts;
    struct hs_listener *l = NULL;
    struct hs_addr addr;
    int fds[2], fd = tcp_listener(8, &addr), client;
    struct hs_conn *c;
    size_t n;

    hs_listen_options_init(&opts);
    tcp_pair(fds);
    ASSERT_ERR(HS_E_INVALID, hs_listener_adopt(fds[0], &opts, fresh(), &l));
    ASSERT_ERR(HS_E_INVALID, hs_listener_adopt(-1, &opts, fresh(), &l));
    ck_assert_ptr_null(l);
    close_all(fds, 2);
    ASSERT_OK(hs_listener_adopt(fd, &opts, fresh(), &l));
    client = dial(l);
    ASSERT_OK(accept_in(l, 10 * SECOND, 1, &c, &n));
    hs_conn_unref(c);
    (void)close(client);
    ASSERT_OK(hs_listener_detach(l, fresh(), &fd));
    hs_listener_unref(l);
    ck_assert_int_eq(close(fd), 0);
}
END_TEST

struct asking {
    struct hs_listener *listener;
    atomic_long rounds;
    struct thread thread;
};

static void *
ask_until_it_ends(void *arg)
{
    struct asking *a = arg;
    struct hs_listener_stats stats;
    struct hs_addr addr;

    for (; hs_listener_addr(a->listener, NULL, &addr) == HS_OK; atomic_fetch_add(&a->rounds, 1))
        hs_listener_stats(a->listener, &stats);
    return NULL;
}

START_TEST(asking_a_listener_keeps_nobody_from_detaching_it)
{
    struct hs_listen_options opts;
    struct asking a;
    struct hs_addr addr;
    int fd;

    hs_listen_options_init(&opts);
    for (int i = 0; i < 300; i++) {
        ASSERT_OK(hs_listener_adopt(tcp_listener(8, &addr), &opts, fresh(), &a.listener));
        atomic_store(&a.rounds, 0);
        thread_start(&a.thread, ask_until_it_ends, &a);
        EVENTUALLY(atomic_load(&a.rounds) > 0);
        ASSERT_OK(hs_listener_detach(a.listener, fresh(), &fd));
        (void)thread_join(&a.thread);
        hs_listener_unref(a.listener);
        ck_assert_int_eq(close(fd), 0);
    }
}
END_TEST

START_TEST(accepted_connections_have_the_listeners_options)
{
    struct hs_setting settings[HS_SETTINGS_MAX];
    struct hs_listen_options opts;
    struct hs_listener *l;
    struct hs_conn *c;
    size_t n;
    int fd;

    hs_listen_options_init(&opts);
    hs_sockopts_dead_after(&opts.sockopts, 30000);
    opts.sockopts.nodelay = 1;
    opts.sockopts.reuse_port = 1;
    opts.sockopts.defer_accept_s = 0;
    l = open_with("127.0.0.1:0", &opts);
    fd = dial(l);
    ASSERT_OK(accept_in(l, 10 * SECOND, 1, &c, &n));
    ASSERT_OK(hs_conn_audit(c, settings, fresh(), &n));
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(!settings[i].differs, "%s: %d", settings[i].name, settings[i].effective);
    ck_assert_uint_eq(stats_of(l).unverified, 0);
    ASSERT_OK(hs_listener_audit(l, settings, fresh(), &n));
    hs_conn_unref(c);
    (void)close(fd);
    hs_listener_unref(l);
}
END_TEST

START_TEST(an_event_loop_can_drive_accept)
{
    struct hs_listener *l = open_with("127.0.0.1:0", NULL);
    struct hs_op op = op_step(10 * SECOND);
    struct hs_conn *c;
    size_t n;
    int fd;

    ASSERT_ERR(HS_WANT, hs_listener_accept(l, &op, 1, fresh(), &c, &n));
    ck_assert_int_eq(op.want_fd, hs_listener_fileno(l));
    fd = dial(l);
    wait_for_want(&op);
    ASSERT_OK(hs_listener_accept(l, &op, 1, fresh(), &c, &n));
    hs_conn_unref(c);
    (void)close(fd);
    hs_listener_unref(l);
}
END_TEST

static int
use_inherited(void *arg)
{
    struct hs_listener *l = arg;
    struct hs_op op = HS_OP_INIT(HS_TRY_ONCE, NULL);
    struct hs_conn *c;
    size_t n;

    if (hs_listener_accept(l, &op, 1, NULL, &c, &n) != HS_E_FORKED)
        return 1;
    hs_listener_unref(l);
    return 0;
}

static struct hs_listener *
share_port(const char *text)
{
    struct hs_listen_options opts;

    hs_listen_options_init(&opts);
    opts.sockopts.reuse_port = 1;
    return open_with(text, &opts);
}

static hs_err
accept_now(struct hs_listener *l, struct hs_conn **ret_conn)
{
    struct hs_op op = HS_OP_INIT(HS_TRY_ONCE, NULL);
    size_t n;

    return DONE(hs_listener_accept(l, &op, 1, fresh(), ret_conn, &n));
}

static size_t
accept_until_it_would_wait(struct hs_listener *l, hs_err want_end)
{
    struct hs_conn *c;
    size_t n = 0;
    hs_err rv;

    for (; (rv = accept_now(l, &c)) == HS_OK; n++)
        hs_conn_unref(c);
    ASSERT_ERR(want_end, rv);
    return n;
}

/* In the moment in which its queue is empty it is out of the group: nobody is sent to it who would
 * be reset when it is closed. */
START_TEST(the_last_call_of_a_shared_port_leaves_the_rest_to_the_others)
{
    struct hs_listener *old = share_port("127.0.0.1:0"), *new;
    char text[HS_ADDR_TEXT_SIZE];
    struct hs_addr addr;
    size_t n_old, n_new;
    int fds[32];

    ASSERT_OK(hs_listener_addr(old, fresh(), &addr));
    (void)hs_addr_text(&addr, text, sizeof(text));
    new = share_port(text);
    for (size_t i = 0; i < LENGTH(fds) / 2; i++)
        fds[i] = dial(new);
    hs_listener_last_call(old);
    n_old = accept_until_it_would_wait(old, HS_E_CLOSED);
    ck_assert_int_eq(stats_of(old).queue_length, 0);
    for (size_t i = LENGTH(fds) / 2; i < LENGTH(fds); i++)
        fds[i] = dial(new);
    n_new = accept_until_it_would_wait(new, HS_E_DEADLINE);
    ck_assert_uint_eq(n_old + n_new, LENGTH(fds));
    ck_assert_uint_ge(n_new, LENGTH(fds) / 2);
    close_all(fds, LENGTH(fds));
    hs_listener_unref(old);
    hs_listener_unref(new);
}
END_TEST

START_TEST(what_was_handed_over_is_the_others)
{
    char folder[40], path[60], text[80];
    struct hs_listener *l;
    struct hs_conn *c;
    int fd;

    make_folder(folder);
    (void)snprintf(path, sizeof(path), "%s/s", folder);
    (void)snprintf(text, sizeof(text), "unix:%s", path);
    l = open_with(text, NULL);
    fd = dial(l);
    hs_listener_hand_over(l);
    ASSERT_ERR(HS_E_CLOSED, accept_now(l, &c));
    hs_listener_unref(l);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(rmdir(folder), 0);
    (void)close(fd);
}
END_TEST

START_TEST(a_forked_child_leaves_the_path_and_the_queue_alone)
{
    char folder[40], path[60], text[80];
    struct hs_listener *l;
    struct stat st;

    make_folder(folder);
    (void)snprintf(path, sizeof(path), "%s/s", folder);
    (void)snprintf(text, sizeof(text), "unix:%s", path);
    l = open_with(text, NULL);
    ck_assert_int_eq(in_child(use_inherited, l), 0);
    ck_assert_int_eq(stat(path, &st), 0);
    hs_listener_unref(l);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("listener");

    tcase_add_test(tc, accept_takes_one_or_as_many_as_wait);
    tcase_add_test(tc, who_tends_on_holds_up_nobody_who_accepts);
    tcase_add_test(tc, who_tends_does_not_go_round_for_newcomers_that_nobody_takes);
    tcase_add_test(tc, who_waits_to_accept_is_woken_when_a_tender_meets_newcomers);
    tcase_add_test(tc, accepting_at_most_none_ends_at_once);
    tcase_add_loop_test(tc, closing_or_cancelling_wakes_every_acceptor, 0, 2);
    tcase_add_test(tc, each_connection_goes_to_exactly_one_of_several_acceptors);
    tcase_add_test(tc, who_tends_beside_an_acceptor_loses_no_client);
    tcase_add_test(tc, out_of_descriptors_it_sheds_backs_off_and_recovers);
    tcase_add_test(tc, out_of_descriptors_a_thread_that_never_waited_backs_off_too);
    tcase_add_test(tc, a_unix_path_is_made_with_its_mode_and_goes_with_the_listener);
    tcase_add_test(tc, a_path_is_replaced_when_stale_and_only_then);
    tcase_add_test(tc, of_many_that_replace_a_stale_path_at_once_one_has_it);
    tcase_add_loop_test(tc, a_path_that_is_another_listeners_by_now_stays, 0, 2);
    tcase_add_test(tc, no_host_is_every_address_of_both_families);
    tcase_add_test(tc, what_cannot_be_listened_on_is_refused);
    tcase_add_test(tc, the_backlog_is_read_back);
    tcase_add_test(tc, a_listening_socket_can_be_adopted_and_nothing_else);
    tcase_add_test(tc, asking_a_listener_keeps_nobody_from_detaching_it);
    tcase_add_test(tc, accepted_connections_have_the_listeners_options);
    tcase_add_test(tc, an_event_loop_can_drive_accept);
    tcase_add_test(tc, the_last_call_of_a_shared_port_leaves_the_rest_to_the_others);
    tcase_add_test(tc, what_was_handed_over_is_the_others);
    tcase_add_test(tc, a_forked_child_leaves_the_path_and_the_queue_alone);
    return run_case(tc);
}
