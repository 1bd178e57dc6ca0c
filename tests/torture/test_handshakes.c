/* test_handshakes.c: a listener with TLS, many who accept, and clients of every kind at once.
 *
 * Some shake hands, exchange a byte and leave; some leave at once, say nothing, or talk nonsense,
 * and are cut. Settings are reloaded beside; in the end the listener closes in the middle of it.
 * Then the books must balance: every handshake that began was completed, failed, or cut, and every
 * completed one came out of accept exactly once.
 */
#include "../c/support.h"
#include "../c/support_tls.h"

#include <stdlib.h>
#include <unistd.h>

#define ACCEPTORS 4
#define CLIENTS 6
#define ROUNDS 40
#define TIMEOUT_NS (200 * MS)

struct storm {
    struct hs_listener *listener;
    struct hs_tls_config *server, *client;
    struct hs_addr addr;
    struct hs_tls_options options;
    atomic_bool stop;
    atomic_long accepted, shaken;
};

static void *
accept_all(void *arg)
{
    struct storm *s = arg;
    struct hs_conn *conns[3];
    hs_err rv = HS_OK;

    while (rv == HS_OK || rv == HS_E_DEADLINE) {
        struct hs_op op = op_in(50 * MS); /* Callers come and go; handshakes stay. */
        size_t n = 0;

        rv = DONE(hs_listener_accept(s->listener, &op, LENGTH(conns), fresh(), conns, &n));
        for (size_t i = 0; rv == HS_OK && i < n; i++) {
            struct hs_op send = op_in(5 * SECOND);
            struct hs_tls_info info;
            size_t sent;

            ck_assert(hs_conn_tls_info(conns[i], &info));
            (void)DONE(hs_conn_send(conns[i], &send, (const uint8_t *)"!", 1, fresh(), &sent));
            hs_conn_close(conns[i], false);
            hs_conn_unref(conns[i]);
            s->accepted++;
        }
    }
    ASSERT_ERR(HS_E_CLOSED, rv);
    return NULL;
}

/* The listener may close, or cut it, at any time: then any failure will do. */
static void
shake_and_read(struct storm *s, struct hs_conn *c)
{
    struct hs_op op = op_in(5 * SECOND), read = op;
    uint8_t byte;
    size_t n;

    if (DONE(hs_conn_start_tls(c, &op, s->client, "a.example", fresh())) != HS_OK)
        return;
    s->shaken++;
    (void)DONE(hs_conn_recv(c, &read, &byte, 1, 0, fresh(), &n));
}

static void
be_client(struct storm *s, struct hs_conn *c, int kind)
{
    struct hs_op op = op_in(5 * SECOND);
    uint8_t byte;
    size_t n;

    switch (kind) {
    case 0:
    case 1:
    case 2:
        shake_and_read(s, c);
        break;
    case 3: /* leaves */
        break;
    case 4: /* is silent until it is cut */
        (void)DONE(hs_conn_recv(c, &op, &byte, 1, 0, fresh(), &n));
        break;
    case 5: /* talks nonsense */
        (void)DONE(hs_conn_send_all(c, &op, (const uint8_t *)"GET / HTTP/1.1\r\n", 16, fresh()));
        break;
    default: /* resets in the middle */
        (void)DONE(hs_conn_send_all(c, &op, (const uint8_t *)"\x16\x03\x01\x02", 4, fresh()));
        hs_conn_close(c, true);
    }
}

static void *
connect_all(void *arg)
{
    struct storm *s = arg;
    struct hs_endpoint ep = endpoint_of(&s->addr);
    struct hs_connect_options o;
    unsigned seed = (unsigned)gettid();

    hs_connect_options_init(&o);
    for (int round = 0; round < ROUNDS && !s->stop; round++) {
        struct hs_op op = op_in(5 * SECOND);
        struct hs_connector *cn;
        struct hs_conn *c;

        ASSERT_OK(hs_connector_new(&ep, &o, fresh(), &cn));
        if (DONE(hs_connector_run(cn, &op, fresh(), &c)) == HS_OK) {
            be_client(s, c, rand_r(&seed) % 7);
            hs_conn_close(c, false);
            hs_conn_unref(c);
        }
        hs_connector_free(cn);
    }
    return NULL;
}

static void *
reload_all(void *arg)
{
    struct storm *s = arg;

    while (!s->stop)
        ASSERT_OK(hs_tls_config_reload(s->server, &s->options, fresh()));
    return NULL;
}

static void
open_storm(struct storm *s, int max_handshakes)
{
    struct hs_tls_options client = client_options();
    struct hs_listen_options o;
    struct hs_endpoint ep;

    *s = (struct storm){.options = server_options()};
    ASSERT_OK(hs_endpoint_parse("127.0.0.1:0", 11, fresh(), &ep));
    s->options.handshake_timeout_ns = TIMEOUT_NS;
    s->server = config_of(&s->options);
    s->client = config_of(&client);
    hs_listen_options_init(&o);
    o.tls.config = s->server;
    o.tls.max_handshakes = max_handshakes;
    ASSERT_OK(hs_listener_open(&ep, &o, fresh(), &s->listener));
    ASSERT_OK(hs_listener_addr(s->listener, fresh(), &s->addr));
}

static void
check_books(struct storm *s)
{
    struct hs_listener_stats stats;
    uint64_t failed = 0;

    hs_listener_stats(s->listener, &stats);
    for (int i = 0; i < HS_TLS_FAILURES; i++)
        failed += stats.handshakes.failed[i];
    ck_assert_uint_eq(stats.handshakes.in_progress, 0);
    ck_assert_uint_eq(stats.handshakes.started, stats.handshakes.completed + failed);
    ck_assert_uint_eq(stats.handshakes.completed, (uint64_t)s->accepted);
}

/* _i 0: until the clients are through; 1: it closes in the middle. Few slots, so that some wait
 * for one. */
START_TEST(many_accept_from_clients_of_every_kind)
{
    struct thread acceptors[ACCEPTORS], clients[CLIENTS], reloader;
    struct storm s;

    open_storm(&s, 3);
    for (size_t i = 0; i < ACCEPTORS; i++)
        thread_start(&acceptors[i], accept_all, &s);
    for (size_t i = 0; i < CLIENTS; i++)
        thread_start(&clients[i], connect_all, &s);
    thread_start(&reloader, reload_all, &s);
    if (_i == 1) {
        EVENTUALLY(s.accepted >= 20);
        s.stop = true;
        hs_listener_close(s.listener);
    }
    for (size_t i = 0; i < CLIENTS; i++)
        (void)thread_join(&clients[i]);
    s.stop = true;
    hs_listener_close(s.listener);
    (void)thread_join(&reloader);
    for (size_t i = 0; i < ACCEPTORS; i++)
        (void)thread_join(&acceptors[i]);
    check_books(&s);
    ck_assert_int_gt(s.shaken, 0);
    hs_listener_unref(s.listener);
    hs_tls_config_unref(s.server);
    hs_tls_config_unref(s.client);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("handshakes");

    tls_world();
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, many_accept_from_clients_of_every_kind, 0, 2);
    return run_case(tc);
}
