/* test_storms.c: the data path when every byte comes alone and most calls fail for nothing.
 *
 * EAGAIN and EINTR from most calls, transfers of one byte, and all of it at once: what arrives must
 * be what was sent. Then calls that go wrong at moments that only a hook can choose.
 */
#include "inject.h"

#include "../c/support.h"
#include "../../csrc/base/addr.h"
#include "../../csrc/listen/proxy_reader.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define TOTAL 3000

struct end {
    struct hs_conn *c;
    hs_err rv;
    uint8_t bytes[TOTAL];
};

static void *
receive(void *arg)
{
    struct end *e = arg;
    struct hs_op op = op_in(20 * SECOND);

    e->rv = DONE(hs_conn_recv_exactly(e->c, &op, e->bytes, TOTAL, fresh()));
    return NULL;
}

static const struct storm {
    const char *title;
    int sys, period;
    unsigned chunk;
} storms[] = {
    {"one byte at a time", 0, 1, 1},           {"EAGAIN three times of four", EAGAIN, 4, 0},
    {"EINTR nine times of ten", EINTR, 10, 0}, {"EAGAIN and single bytes", EAGAIN, 3, 1},
    {"EINTR and seven bytes", EINTR, 2, 7},
};

static const struct hs_framing framings[] = {
    {.kind = HS_FRAMING_PREFIX, .width = 2, .max_size = 99},
    {.kind = HS_FRAMING_LINE, .ending = HS_LINE_CRLF, .max_size = 99},
    {.kind = HS_FRAMING_DELIMITER, .sep = (const uint8_t *)"aab", .sep_len = 3, .max_size = 99},
};

/* Frame i: so many letters, without an "a". */
static size_t
make_frame(const struct hs_framing *f, size_t i, uint8_t *out)
{
    size_t len = i % 20, n = 0;

    if (f->kind == HS_FRAMING_PREFIX) {
        ASSERT_OK(hs_framing_header(f, len, 0, fresh(), out, &n));
    }
    for (size_t at = 0; at < len; at++)
        out[n++] = (uint8_t)('b' + (i + at) % 25);
    if (f->kind == HS_FRAMING_LINE) {
        memcpy(out + n, "\r\n", 2);
        n += 2;
    } else if (f->kind == HS_FRAMING_DELIMITER) {
        memcpy(out + n, "aab", 3);
        n += 3;
    }
    return n;
}

struct framed_end {
    struct hs_conn *c;
    const struct hs_framing *f;
    size_t frames, right;
    hs_err rv;
};

/* Short deadlines: after each of them the search goes on. */
static void *
receive_frames(void *arg)
{
    struct framed_end *e = arg;
    const uint8_t *data;
    size_t len;

    e->rv = HS_OK;
    while (e->frames < 300 && (e->rv == HS_OK || e->rv == HS_E_DEADLINE)) {
        struct hs_op op = op_in(e->frames % 2 ? 20 * SECOND : MS / 4);

        if ((e->rv = DONE(hs_conn_recv_frames(e->c, &op, e->f, fresh()))) != HS_OK)
            continue;
        while (e->frames < 300 && hs_conn_frame(e->c, e->f, &data, &len)) {
            e->right += len == e->frames % 20 && (len == 0 || data[0] == 'b' + e->frames % 25);
            e->frames++;
            hs_conn_frame_taken(e->c);
        }
        hs_conn_frames_end(e->c, &op);
    }
    return NULL;
}

START_TEST(every_frame_comes_out_whole)
{
    const struct storm *s = &storms[_i / 3];
    struct hs_op op = op_in(20 * SECOND);
    struct pair p = pair_tcp();
    struct framed_end e = {.f = &framings[_i % 3]};
    uint8_t bytes[300 * 24];
    struct thread t;
    size_t n = 0;

    ASSERT_OK(hs_conn_adopt(p.peer, NULL, fresh(), &e.c));
    p.peer = -1;
    for (size_t i = 0; i < 300; i++)
        n += make_frame(e.f, i, bytes + n);
    inject_storm(s->sys, s->period, s->chunk);
    thread_start(&t, receive_frames, &e);
    ASSERT_OK(DONE(hs_conn_send_all(p.c, &op, bytes, n, fresh())));
    (void)thread_join(&t);
    (void)inject_disarm();
    ASSERT_OK(e.rv);
    ck_assert_uint_eq(e.right, 300);
    hs_conn_unref(e.c);
    pair_free(&p);
}
END_TEST

START_TEST(a_file_goes_out_in_any_pieces)
{
    const struct storm *s = &storms[_i];
    struct hs_op op = op_in(20 * SECOND);
    struct pair p = pair_tcp();
    struct end e = {.rv = HS_E_SYSTEM};
    int file = memfd_create("hardsock-test", MFD_CLOEXEC);
    uint8_t bytes[TOTAL];
    int64_t offset = 0;
    struct thread t;

    ASSERT_OK(hs_conn_adopt(p.peer, NULL, fresh(), &e.c));
    p.peer = -1;
    for (size_t i = 0; i < TOTAL; i++)
        bytes[i] = pattern(3, i);
    ck_assert_int_eq(write(file, bytes, TOTAL), TOTAL);
    inject_storm(s->sys, s->period, s->chunk);
    thread_start(&t, receive, &e);
    ASSERT_OK(DONE(hs_conn_send_file(p.c, &op, file, &offset, TOTAL, fresh())));
    (void)thread_join(&t);
    (void)inject_disarm();
    ASSERT_OK(e.rv);
    ck_assert_uint_eq(op.done, TOTAL);
    ck_assert_mem_eq(e.bytes, bytes, TOTAL);
    (void)close(file);
    hs_conn_unref(e.c);
    pair_free(&p);
}
END_TEST

/* Else neither a signal handler nor a deadline gets its turn while a peer keeps up. */
START_TEST(looking_ahead_and_skipping_come_up_for_air)
{
    const struct hs_framing skip = {.kind = HS_FRAMING_PREFIX,
                                    .width = 2,
                                    .max_size = 9,
                                    .too_long = HS_TOO_LONG_SKIP,
                                    .max_skip = 9999};
    struct hs_op op = op_step(10 * SECOND);
    struct pair p = pair_unix();
    uint8_t bytes[1000] = {0};
    size_t n;

    inject_storm(0, 1, 1);
    put(p.peer, bytes, 1);
    (void)inject_disarm();
    put(p.peer, bytes, sizeof(bytes) - 1);
    inject_storm(0, 1, 1);
    ASSERT_ERR(HS_INTR, hs_conn_peek(p.c, &op, 200, fresh()));
    hs_conn_abandon(p.c, &op, NULL);
    (void)inject_disarm();
    op = op_in(10 * SECOND);
    ASSERT_OK(DONE(hs_conn_recv_exactly(p.c, &op, bytes, sizeof(bytes), fresh())));
    bytes[0] = 1; /* a frame of 256 bytes and more */
    op = op_step(10 * SECOND);
    put(p.peer, bytes, 10);
    ASSERT_ERR(HS_WANT, hs_conn_recv_frames(p.c, &op, &skip, fresh()));
    hs_conn_abandon(p.c, &op, NULL);
    put(p.peer, bytes + 2, 248);
    op = op_step(10 * SECOND);
    inject_storm(0, 1, 1);
    ASSERT_ERR(HS_INTR, hs_conn_recv(p.c, &op, bytes, 1, 0, fresh(), &n));
    ASSERT_ERR(HS_E_FRAME_TOO_LARGE, DONE(hs_conn_recv(p.c, &op, bytes, 1, 0, fresh(), &n)));
    (void)inject_disarm();
    pair_free(&p);
}
END_TEST

struct last_words {
    struct hs_conn *c;
    struct thread reader;
    atomic_bool done;
    uint8_t bytes[16];
    size_t n;
    hs_err rv;
};

static void *
read_once(void *arg)
{
    struct last_words *w = arg;
    struct hs_op op = op_in(10 * SECOND);

    w->rv = DONE(hs_conn_recv(w->c, &op, w->bytes, sizeof(w->bytes), 0, fresh(), &w->n));
    w->done = true;
    return NULL;
}

/* Runs in the writer, which is saving what the peer had said. */
static void
start_a_reader(void *arg)
{
    struct last_words *w = arg;
    int64_t until = hs_deadline_after(20 * MS);

    thread_start(&w->reader, read_once, w);
    while (!w->done && hs_now() < until) /* It has to wait for us: there is nothing to see. */
        breathe();
}

/* One reader and one writer are within their rights: nobody is told that it is busy. */
START_TEST(a_reader_that_comes_while_last_words_are_saved_gets_them)
{
    const struct linger reset = {.l_onoff = 1};
    struct pair p = pair_tcp();
    struct last_words w = {.c = p.c};
    struct hs_op op;
    hs_err rv;

    put(p.peer, "last words", 10);
    (void)setsockopt(p.peer, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    (void)close(p.peer);
    p.peer = -1;
    inject_hook(HS_CALL_recv, start_a_reader, &w);
    do {
        op = op_in(10 * SECOND);
        rv = DONE(hs_conn_send_all(p.c, &op, w.bytes, 1, fresh()));
    } while (rv == HS_OK);
    ASSERT_ERR(HS_E_RESET, rv);
    (void)thread_join(&w.reader);
    (void)inject_disarm();
    ASSERT_OK(w.rv);
    ck_assert_uint_eq(w.n, 10);
    ck_assert_mem_eq(w.bytes, "last words", 10);
    pair_free(&p);
}
END_TEST

static void
cut(uint8_t *bytes, struct iovec *iov, size_t n)
{
    for (size_t i = 0; i < n; i++)
        iov[i] = (struct iovec){.iov_base = bytes + i * TOTAL / n, .iov_len = TOTAL / n};
}

START_TEST(every_byte_arrives_in_its_place)
{
    const struct storm *s = &storms[_i / 2];
    struct hs_op op = op_in(20 * SECOND);
    struct pair p = pair_tcp();
    struct end e = {.rv = HS_E_SYSTEM};
    uint8_t bytes[TOTAL];
    struct iovec iov[30];
    struct thread t;

    ASSERT_OK(hs_conn_adopt(p.peer, NULL, fresh(), &e.c));
    p.peer = -1;
    for (size_t i = 0; i < TOTAL; i++)
        bytes[i] = pattern(3, i);
    inject_storm(s->sys, s->period, s->chunk);
    thread_start(&t, receive, &e);
    cut(bytes, iov, LENGTH(iov));
    if (_i % 2)
        ASSERT_OK(DONE(hs_conn_sendv(p.c, &op, iov, LENGTH(iov), true, fresh())));
    else
        ASSERT_OK(DONE(hs_conn_send_all(p.c, &op, bytes, TOTAL, fresh())));
    ck_assert_uint_eq(op.done, TOTAL);
    (void)thread_join(&t);
    (void)inject_disarm();
    ASSERT_OK(e.rv);
    for (size_t i = 0; i < TOTAL; i++)
        ck_assert_msg(e.bytes[i] == pattern(3, i), "%s: byte %zu", s->title, i);
    hs_conn_unref(e.c);
    pair_free(&p);
}
END_TEST

START_TEST(bytes_that_cannot_be_put_back_for_want_of_memory_poison)
{
    struct hs_op op = op_step(10 * SECOND), next = op_in(SECOND);
    struct pair p = pair_unix();
    uint8_t buf[8];
    size_t n;

    put(p.peer, "abc", 3);
    ASSERT_ERR(HS_WANT, hs_conn_recv_exactly(p.c, &op, buf, 8, fresh()));
    inject_arm(HS_CALL_alloc, 1, true, 0);
    hs_conn_abandon(p.c, &op, buf);
    (void)inject_disarm();
    put(p.peer, "def", 3);
    ASSERT_ERR(HS_E_POISONED, hs_conn_recv(p.c, &next, buf, 8, 0, fresh(), &n));
    pair_free(&p);
}
END_TEST

START_TEST(a_token_ends_without_memory_for_the_reason)
{
    struct hs_token *t, *late;
    struct hs_reason r;
    hs_err rv;
    bool first;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &t));
    ASSERT_OK(hs_token_new(NULL, 0, 1, NULL, fresh(), &late));
    inject_arm(HS_CALL_alloc, 1, true, 0);
    first = hs_token_cancel(t, "why", 0, NULL);
    rv = hs_token_check(late);
    (void)inject_disarm();
    ck_assert(first);
    ASSERT_ERR(HS_E_DEADLINE, rv);
    ck_assert(hs_token_reason(t, &r));
    ck_assert_int_eq(r.code, HS_E_CANCELLED);
    hs_token_unref(t);
    hs_token_unref(late);
}
END_TEST

static struct hs_listener *
listener(struct hs_addr *ret_addr)
{
    struct hs_addr any = addr_of("127.0.0.1:0");
    struct hs_endpoint ep = endpoint_of(&any);
    struct hs_listen_options opts;
    struct hs_listener *l;

    hs_listen_options_init(&opts);
    ASSERT_OK(hs_listener_open(&ep, &opts, fresh(), &l));
    ASSERT_OK(hs_listener_addr(l, fresh(), ret_addr));
    return l;
}

static int
dial(const struct hs_addr *addr)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(connect(fd, &addr->sa, addr->len), 0);
    return fd;
}

struct shedding {
    struct hs_listener *l;
    struct hs_conn *got;
};

/* What another thread may do while this one is turning clients away. */
static void
accept_meanwhile(void *arg)
{
    struct shedding *s = arg;
    struct hs_op op = op_in(10 * SECOND);
    size_t n;

    ASSERT_OK(hs_listener_accept(s->l, &op, 1, fresh(), &s->got, &n));
}

static void
arm_second_accept(void *arg)
{
    inject_hook(HS_CALL_accept, accept_meanwhile, arg);
}

/* The second shedding meets a thread that finds the reserve gone and takes a new one. */
START_TEST(the_reserve_descriptor_is_taken_back_once)
{
    struct hs_addr addr;
    struct shedding s = {.l = listener(&addr)};
    struct hs_op op = op_in(3 * MS), again = op_in(10 * MS);
    int fd = dial(&addr), other;
    struct hs_conn *c = NULL;
    int64_t until;
    size_t n;

    inject_arm(HS_CALL_accept, 1, false, EMFILE);
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_listener_accept(s.l, &op, 1, fresh(), &c, &n)));
    (void)inject_disarm();
    other = dial(&addr);
    until = hs_deadline_after(10 * MS); /* the first back off is 5 ms */
    EVENTUALLY(hs_now() > until);
    inject_arm(HS_CALL_accept, 1, false, EMFILE);
    inject_hook(HS_CALL_accept, arm_second_accept, &s);
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_listener_accept(s.l, &again, 1, fresh(), &c, &n)));
    (void)inject_disarm();
    hs_conn_unref(s.got);
    hs_conn_unref(c);
    hs_listener_unref(s.l);
    (void)close(fd);
    (void)close(other);
}
END_TEST

START_TEST(clients_that_fail_are_counted_and_passed_over)
{
    static const int errors[] = {ECONNABORTED, EPERM, ENETDOWN, EPROTO, EHOSTUNREACH, EINTR};
    struct hs_listener_stats stats;
    struct hs_addr addr;
    struct hs_listener *l = listener(&addr);
    int fds[LENGTH(errors)];

    for (size_t i = 0; i < LENGTH(errors); i++) {
        struct hs_op op = op_in(10 * SECOND);
        struct hs_conn *c;
        size_t n;

        fds[i] = dial(&addr);
        inject_arm(HS_CALL_accept, 1, false, errors[i]);
        ASSERT_OK(DONE(hs_listener_accept(l, &op, 1, fresh(), &c, &n)));
        (void)inject_disarm();
        hs_conn_unref(c);
    }
    hs_listener_stats(l, &stats);
    ck_assert_uint_eq(stats.accepted, LENGTH(errors));
    ck_assert_uint_eq(stats.aborted, 1);
    ck_assert_uint_eq(stats.denied, 1);
    ck_assert_uint_eq(stats.network_errors, 3);
    ck_assert_uint_eq(stats.exhausted, 0);
    close_all(fds, LENGTH(fds));
    hs_listener_unref(l);
}
END_TEST

START_TEST(a_wake_up_with_no_error_is_not_yet_a_connection)
{
    struct hs_connect_options opts;
    struct hs_op op = op_in(10 * SECOND);
    struct hs_connector *cn;
    struct hs_endpoint ep;
    struct hs_addr addr;
    struct hs_conn *c;
    char host[] = "localhost";
    int fd = tcp_listener(8, &addr);

    if (_i)
        ep = endpoint_of(&addr);
    else
        ASSERT_OK(hs_endpoint_from_host(host, strlen(host),
                                        ntohs(((struct sockaddr_in *)&addr.storage)->sin_port),
                                        fresh(), &ep));
    hs_connect_options_init(&opts);
    opts.family = AF_INET;
    ASSERT_OK(hs_connector_new(&ep, &opts, fresh(), &cn));
    inject_arm(HS_CALL_getname, 1, false, ENOTCONN);
    ASSERT_OK(DONE(hs_connector_run(cn, &op, fresh(), &c)));
    (void)inject_disarm();
    hs_connector_free(cn);
    hs_conn_unref(c);
    (void)close(fd);
}
END_TEST

/* ---- A header that somebody else reads, too ------------------------------------------------ */

static void
steal_five_bytes(void *arg)
{
    char bytes[5];

    ck_assert_int_eq(read(*(int *)arg, bytes, sizeof(bytes)), 5);
}

static struct hs_conn *
proxied(int fds[2], const char *behind)
{
    static const char header[] = "PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n";
    struct hs_conn *c;

    tcp_pair(fds);
    put(fds[1], header, sizeof(header) - 1);
    put(fds[1], behind, strlen(behind));
    ASSERT_OK(hs_conn_adopt(fds[0], NULL, fresh(), &c));
    return c;
}

START_TEST(header_of_which_a_part_is_gone_is_no_errno_of_another_call)
{
    struct hs_proxy_reader r = {0};
    int fds[2];
    struct hs_conn *c = proxied(fds, "");
    bool local;

    inject_hook(HS_CALL_recv, steal_five_bytes, &fds[0]); /* The look before it is a peek. */
    errno = EPERM;
    ASSERT_ERR(HS_E_RESET, hs_proxy_read(&r, c, fresh(), &local));
    ck_assert_int_eq(last_error()->sys, 0);
    ck_assert_str_eq(last_error()->msg, "somebody else has read 5 bytes of the PROXY header");
    hs_proxy_reader_fini(&r);
    hs_conn_unref(c);
    (void)close(fds[1]);
}
END_TEST

static void
shrink(void *arg)
{
    (void)arg;
    inject_storm(0, 1, 7);
}

START_TEST(header_that_is_taken_in_pieces_is_whole)
{
    struct hs_proxy_reader r = {0};
    int fds[2];
    struct hs_conn *c = proxied(fds, "hello");
    struct hs_addr peer;
    char rest[5];
    bool local;

    inject_hook(HS_CALL_recv, shrink, NULL);
    ASSERT_OK(hs_proxy_read(&r, c, fresh(), &local));
    (void)inject_disarm();
    ck_assert(!local);
    ASSERT_OK(hs_conn_peer_addr(c, fresh(), &peer));
    ck_assert_int_eq(hs_addr_port(&peer), 1234);
    ck_assert_int_eq(read(fds[0], rest, 5), 5);
    ck_assert_mem_eq(rest, "hello", 5);
    hs_proxy_reader_fini(&r);
    hs_conn_unref(c);
    (void)close(fds[1]);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("storms");

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, every_byte_arrives_in_its_place, 0, 2 * LENGTH(storms));
    tcase_add_loop_test(tc, every_frame_comes_out_whole, 0, 3 * LENGTH(storms));
    tcase_add_loop_test(tc, a_file_goes_out_in_any_pieces, 0, LENGTH(storms));
    tcase_add_test(tc, looking_ahead_and_skipping_come_up_for_air);
    tcase_add_test(tc, a_reader_that_comes_while_last_words_are_saved_gets_them);
    tcase_add_test(tc, bytes_that_cannot_be_put_back_for_want_of_memory_poison);
    tcase_add_test(tc, a_token_ends_without_memory_for_the_reason);
    tcase_add_test(tc, the_reserve_descriptor_is_taken_back_once);
    tcase_add_test(tc, clients_that_fail_are_counted_and_passed_over);
    tcase_add_loop_test(tc, a_wake_up_with_no_error_is_not_yet_a_connection, 0, 2);
    tcase_add_test(tc, header_of_which_a_part_is_gone_is_no_errno_of_another_call);
    tcase_add_test(tc, header_that_is_taken_in_pieces_is_whole);
    return run_case(tc);
}
