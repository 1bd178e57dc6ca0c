/* test_conn_end.c: how connections begin and end: adopt, close, abort, detach, sharing, forks.
 *
 * And what they tell about themselves: options asked for and in effect, addresses, counts.
 */
#include "support.h"

#include "../../csrc/stream/sockopt.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct call {
    struct hs_conn *c;
    bool sends;
    hs_err rv;
    struct hs_close_report report;
};

static void *
block(void *arg)
{
    struct call *call = arg;
    struct hs_op op = op_in(10 * SECOND);
    uint8_t some[4096] = {0};
    size_t n;

    /* The kernel may find room once more in what was full a moment ago. */
    do
        call->rv = call->sends ? DONE(hs_conn_send(call->c, &op, some, sizeof(some), fresh(), &n))
                               : DONE(hs_conn_recv(call->c, &op, some, 1, 0, fresh(), &n));
    while (call->sends && call->rv == HS_OK);
    return NULL;
}

START_TEST(closing_wakes_a_blocked_reader_and_writer)
{
    struct pair p = pair_small();
    struct call in = {.c = p.c}, out = {.c = p.c, .sends = true};
    struct thread a, b;

    (void)fill(p.c);
    thread_start(&a, block, &in);
    thread_start(&b, block, &out);
    thread_wait_asleep(&a);
    thread_wait_asleep(&b);
    hs_conn_close(p.c, _i);
    (void)thread_join(&a);
    (void)thread_join(&b);
    ASSERT_ERR(HS_E_CLOSED, in.rv);
    ASSERT_ERR(HS_E_CLOSED, out.rv);
    ck_assert_int_eq(hs_conn_fileno(p.c), -1);
    pair_free(&p);
}
END_TEST

static void *
finish_it(void *arg)
{
    struct call *call = arg;
    struct hs_op op = op_in(60 * SECOND);

    call->rv = DONE(hs_conn_finish(call->c, &op, fresh(), &call->report));
    return NULL;
}

/* The peer has ended its side, and not read ours: whether it would is not known any more. */
START_TEST(a_close_while_finish_waits_for_the_peer_is_no_clean_ending)
{
    struct pair p = pair_unix();
    struct call finishing = {.c = p.c};
    struct hs_op op = op_in(10 * SECOND);
    struct thread t;

    ASSERT_OK(DONE(hs_conn_send_all(p.c, &op, (const uint8_t *)"unread", 6, fresh())));
    ck_assert_int_eq(shutdown(p.peer, SHUT_WR), 0);
    thread_start(&t, finish_it, &finishing);
    thread_wait_asleep(&t);
    hs_conn_close(p.c, false);
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_CLOSED, finishing.rv);
    pair_free(&p);
}
END_TEST

/* Its queue is gone with it, so nothing is unread any more. */
START_TEST(a_peer_that_closes_without_reading_while_finish_waits_has_reset)
{
    struct pair p = pair_unix();
    struct call finishing = {.c = p.c};
    struct hs_op op = op_in(10 * SECOND);
    struct thread t;

    ASSERT_OK(DONE(hs_conn_send_all(p.c, &op, (const uint8_t *)"unread", 6, fresh())));
    ck_assert_int_eq(shutdown(p.peer, SHUT_WR), 0);
    thread_start(&t, finish_it, &finishing);
    thread_wait_asleep(&t);
    (void)close(p.peer);
    (void)thread_join(&t);
    ASSERT_OK(finishing.rv);
    ck_assert_int_eq(finishing.report.ending, HS_ENDING_RESET);
    p.peer = -1;
    pair_free(&p);
}
END_TEST

START_TEST(finish_after_half_a_message_is_a_report)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_in(20 * MS);
    struct hs_close_report report;
    static uint8_t bytes[1 << 20];
    hs_err rv;

    do
        rv = DONE(hs_conn_send_all(p.c, &op, bytes, sizeof(bytes), fresh()));
    while (rv == HS_OK);
    ASSERT_ERR(HS_E_DEADLINE, rv);
    op = op_step(60 * SECOND);
    ASSERT_ERR(HS_WANT, hs_conn_finish(p.c, &op, fresh(), &report));
    while (recv(p.peer, bytes, sizeof(bytes), 0) > 0)
        continue;
    ck_assert_int_eq(shutdown(p.peer, SHUT_WR), 0);
    while ((rv = hs_conn_finish(p.c, &op, fresh(), &report)) == HS_WANT || rv == HS_INTR)
        if (rv == HS_WANT)
            wait_for_want(&op);
    ASSERT_OK(rv);
    ck_assert_int_eq(report.ending, HS_ENDING_CLEAN);
    ck_assert_uint_eq(report.unsent, 0);
    pair_free(&p);
}
END_TEST

/* The kernel tells it once. To the one who asks next it says that nothing can be sent. */
START_TEST(a_writer_hears_of_a_dead_peer_what_the_reader_was_told)
{
    struct pair p = pair_small();
    struct call out = {.c = p.c, .sends = true};
    struct hs_op op = op_in(10 * SECOND);
    struct thread t;
    uint64_t fault;
    uint8_t byte;
    size_t n;

    (void)fill(p.c);
    thread_start(&t, block, &out);
    thread_wait_asleep(&t);
    ASSERT_OK(hs_faults_begin("recv.timeout@1", fresh(), &fault));
    ASSERT_ERR(HS_E_DEAD_PEER, DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    hs_faults_end(fault);
    ck_assert_int_eq(shutdown(hs_conn_fileno(p.c), SHUT_RDWR), 0);
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_DEAD_PEER, out.rv);
    pair_free(&p);
}
END_TEST

START_TEST(a_closed_connection_refuses_everything)
{
    struct pair p = pair_unix();
    struct hs_op op = op_in(10 * SECOND);
    struct hs_addr addr;
    struct hs_setting settings[HS_SETTINGS_MAX];
    uint8_t byte = 0;
    size_t n;
    int fd;

    ck_assert(!hs_conn_is_closed(p.c));
    hs_conn_close(p.c, false);
    hs_conn_close(p.c, true);
    ck_assert(hs_conn_is_closed(p.c));
    ASSERT_ERR(HS_E_CLOSED, hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n));
    ASSERT_ERR(HS_E_CLOSED, hs_conn_send_all(p.c, &op, &byte, 1, fresh()));
    ASSERT_ERR(HS_E_CLOSED, hs_conn_detach(p.c, fresh(), &fd));
    ASSERT_ERR(HS_E_CLOSED, hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    ASSERT_ERR(HS_E_CLOSED, hs_conn_local_addr(p.c, fresh(), &addr));
    ASSERT_ERR(HS_E_CLOSED, hs_conn_peer_addr(p.c, fresh(), &addr));
    ASSERT_ERR(HS_E_CLOSED, hs_conn_audit(p.c, settings, fresh(), &n));
    ck_assert_int_eq(recv(p.peer, &byte, 1, 0), 0); /* The peer sees an orderly end. */
    pair_free(&p);
}
END_TEST

START_TEST(closing_keeps_the_number_while_a_step_is_pending)
{
    struct pair p = pair_unix();
    struct hs_op op = op_step(10 * SECOND);
    int number = hs_conn_fileno(p.c), other;
    uint8_t byte;
    size_t n;

    ASSERT_ERR(HS_WANT, hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n));
    hs_conn_close(p.c, false);
    ck_assert_int_ne(other = open("/dev/null", O_RDONLY | O_CLOEXEC), number);
    (void)close(other);
    ASSERT_ERR(HS_E_CLOSED, hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n));
    ck_assert_int_eq(other = open("/dev/null", O_RDONLY | O_CLOEXEC), number);
    (void)close(other);
    pair_free(&p);
}
END_TEST

START_TEST(an_abort_resets_the_peer)
{
    struct pair p = pair_tcp();
    char byte;

    hs_conn_close(p.c, true);
    ck_assert_int_eq(recv(p.peer, &byte, 1, 0), -1);
    ck_assert_int_eq(errno, ECONNRESET);
    pair_free(&p);
}
END_TEST

START_TEST(half_a_close_lets_the_peer_answer)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_in(10 * SECOND);
    uint8_t buf[4];
    size_t n;

    ASSERT_ERR(HS_E_INVALID, hs_conn_shutdown(p.c, 99, fresh()));
    ASSERT_OK(hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    ck_assert_int_eq(recv(p.peer, buf, 1, 0), 0);
    put(p.peer, "bye", 3);
    ASSERT_OK(DONE(hs_conn_recv(p.c, &op, buf, 4, 0, fresh(), &n)));
    ck_assert_uint_eq(n, 3);
    pair_free(&p);
}
END_TEST

static void
wait_until_over(int fd)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);

    EVENTUALLY(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
               info.tcpi_state == TCP_CLOSE);
}

/* The kernel says ENOTCONN, as it does of what broke. */
START_TEST(to_shut_down_what_both_sides_have_ended_is_no_error)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_in(10 * SECOND);
    uint8_t byte;
    size_t n;

    if (_i == 0)
        ASSERT_OK(hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    ck_assert_int_eq(shutdown(p.peer, SHUT_WR), 0);
    if (_i == 1)
        ASSERT_OK(hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    wait_until_over(hs_conn_fileno(p.c));
    ck_assert_int_eq(shutdown(hs_conn_fileno(p.c), SHUT_RDWR), -1);
    ck_assert_int_eq(errno, ENOTCONN);
    ASSERT_OK(hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    ASSERT_OK(hs_conn_shutdown(p.c, SHUT_RDWR, fresh()));
    ASSERT_OK(hs_conn_shutdown(p.c, SHUT_RD, fresh()));
    ASSERT_ERR(HS_E_END, DONE(hs_conn_recv_exactly(p.c, &op, &byte, 1, fresh())));
    ASSERT_OK(DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    ck_assert_uint_eq(n, 0);
    pair_free(&p);
}
END_TEST

/* Another thread's call comes between ours and the kernel, and ends the connection. */
static struct hs_conn *overtaken;

int __real_shutdown(int fd, int how);
int __wrap_shutdown(int fd, int how);

int
__wrap_shutdown(int fd, int how)
{
    struct hs_conn *c = overtaken;

    overtaken = NULL;
    if (c != NULL) {
        ASSERT_OK(hs_conn_shutdown(c, SHUT_RDWR, fresh()));
        wait_until_over(fd);
    }
    return __real_shutdown(fd, how);
}

START_TEST(of_two_that_shut_down_neither_makes_the_clean_end_a_reset)
{
    const int how[] = {SHUT_RDWR, SHUT_WR, SHUT_RD};
    struct pair p = pair_tcp();
    struct hs_op op = op_in(10 * SECOND);
    uint8_t byte;
    size_t n;

    ck_assert_int_eq(shutdown(p.peer, SHUT_WR), 0);
    overtaken = p.c;
    ASSERT_OK(hs_conn_shutdown(p.c, how[_i], fresh()));
    ck_assert_ptr_null(overtaken);
    ASSERT_OK(DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    ck_assert_uint_eq(n, 0);
    pair_free(&p);
}
END_TEST

static void
reset_by_peer(struct pair *p)
{
    const struct linger now = {.l_onoff = 1};

    ck_assert_int_eq(setsockopt(p->peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    (void)close(p->peer);
    p->peer = -1;
    wait_until_over(hs_conn_fileno(p->c));
}

/* Ours had been sent before in the first case; in the second nobody here is told of the reset. */
START_TEST(to_shut_down_what_was_reset_is_a_reset_and_hides_none)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_in(10 * SECOND);
    socklen_t len = sizeof(int);
    uint8_t byte;
    int sys;
    size_t n;

    if (_i == 0)
        ASSERT_OK(hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    reset_by_peer(&p);
    if (_i == 1)
        ck_assert_int_eq(getsockopt(hs_conn_fileno(p.c), SOL_SOCKET, SO_ERROR, &sys, &len), 0);
    ASSERT_ERR(HS_E_RESET, hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    ck_assert_int_eq(last_error()->sys, ENOTCONN);
    ASSERT_ERR(HS_E_RESET, hs_conn_shutdown(p.c, SHUT_RDWR, fresh()));
    ASSERT_ERR(HS_E_RESET, DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    pair_free(&p);
}
END_TEST

START_TEST(a_detached_descriptor_is_the_callers_and_works)
{
    struct pair p = pair_unix();
    int fd = -7, number = hs_conn_fileno(p.c);

    ASSERT_OK(hs_conn_detach(p.c, fresh(), &fd));
    ck_assert_int_eq(fd, number);
    ck_assert(hs_conn_is_closed(p.c));
    hs_conn_close(p.c, true);
    put(fd, "x", 1);
    pair_free(&p);
    ck_assert_int_eq(close(fd), 0);
}
END_TEST

START_TEST(buffered_bytes_make_detaching_busy)
{
    struct pair p = pair_unix();
    struct hs_op op = op_step(10 * SECOND);
    uint8_t buf[8];
    size_t n;
    int fd;

    put(p.peer, "abc", 3);
    ASSERT_ERR(HS_WANT, hs_conn_recv_exactly(p.c, &op, buf, 8, fresh()));
    ASSERT_ERR(HS_E_BUSY, hs_conn_detach(p.c, fresh(), &fd));
    hs_conn_abandon(p.c, &op, buf);
    ASSERT_ERR(HS_E_BUSY, hs_conn_detach(p.c, fresh(), &fd));
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "3 received bytes"));
    op = op_in(10 * SECOND);
    ASSERT_OK(hs_conn_recv(p.c, &op, buf, 8, 0, fresh(), &n));
    ASSERT_OK(hs_conn_detach(p.c, fresh(), &fd));
    (void)close(fd);
    pair_free(&p);
}
END_TEST

START_TEST(the_last_of_several_owners_closes)
{
    struct pair p = pair_unix();
    char byte;

    hs_conn_share(p.c);
    hs_conn_share(p.c);
    hs_conn_unshare(p.c, false);
    hs_conn_unshare(p.c, false);
    ck_assert(!hs_conn_is_closed(p.c));
    hs_conn_unshare(p.c, false);
    ck_assert(hs_conn_is_closed(p.c));
    ck_assert_int_eq(recv(p.peer, &byte, 1, 0), 0);
    pair_free(&p);
}
END_TEST

START_TEST(the_last_reference_closes_and_drops_what_was_buffered)
{
    struct pair p = pair_unix();
    struct hs_op op = op_step(10 * SECOND);
    uint8_t buf[8];

    put(p.peer, "abc", 3);
    ASSERT_ERR(HS_WANT, hs_conn_recv_exactly(p.c, &op, buf, 8, fresh()));
    hs_conn_abandon(p.c, &op, buf);
    (void)hs_conn_ref(p.c);
    hs_conn_unref(p.c);
    ck_assert(!hs_conn_is_closed(p.c));
    hs_conn_unref(p.c);
    hs_conn_unref(NULL);
    p.c = NULL;
    pair_free(&p);
}
END_TEST

static void
assert_refused(int fd, hs_err want)
{
    struct hs_conn *c = NULL;
    int flags = fcntl(fd, F_GETFL), fd_flags = fcntl(fd, F_GETFD);

    ASSERT_ERR(want, hs_conn_adopt(fd, NULL, fresh(), &c));
    ck_assert_ptr_null(c);
    ck_assert_int_eq(fcntl(fd, F_GETFL), flags);
    ck_assert_int_eq(fcntl(fd, F_GETFD), fd_flags);
}

START_TEST(what_is_no_connected_stream_is_refused_and_left_alone)
{
    struct hs_addr addr;
    int fds[] = {open("/dev/null", O_RDONLY), socket(AF_INET, SOCK_DGRAM, 0),
                 socket(AF_INET, SOCK_STREAM, 0), tcp_listener(1, &addr),
                 socket(AF_UNIX, SOCK_SEQPACKET, 0)};

    for (size_t i = 0; i < LENGTH(fds); i++)
        assert_refused(fds[i], HS_E_INVALID);
    close_all(fds, LENGTH(fds));
    assert_refused(-1, HS_E_INVALID);
    assert_refused(fds[0], HS_E_INVALID);
}
END_TEST

START_TEST(an_adoption_that_fails_leaves_the_descriptor_to_the_caller)
{
    struct hs_sockopts opts;
    struct hs_conn *c;
    int fds[2];

    tcp_pair(fds);
    hs_sockopts_init(&opts);
    memcpy(opts.interface, "nosuchif0", 10);
    ASSERT_ERR(HS_E_SYSTEM, hs_conn_adopt(fds[0], &opts, fresh(), &c));
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "interface"));
    put(fds[0], "x", 1);
    ck_assert_int_eq(close(fds[0]), 0);
    ck_assert_int_eq(close(fds[1]), 0);
}
END_TEST

static const struct hs_setting *
setting(const struct hs_setting *settings, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(settings[i].name, name) == 0)
            return &settings[i];
    ck_abort_msg("no setting %s", name);
}

START_TEST(the_kernel_is_asked_what_became_of_the_options)
{
    struct hs_setting settings[HS_SETTINGS_MAX];
    struct hs_conn_info info;
    struct hs_sockopts opts;
    struct pair p = {0};
    int fds[2];
    size_t n;

    tcp_pair(fds);
    hs_sockopts_assume_hz(250);
    hs_sockopts_init(&opts);
    hs_sockopts_dead_after(&opts, 30000);
    opts.nodelay = 1;
    opts.recv_buffer = 1 << 30; /* more than any rmem_max */
    ASSERT_OK(hs_conn_adopt(fds[0], &opts, fresh(), &p.c));
    p.peer = fds[1];
    ASSERT_OK(hs_conn_audit(p.c, settings, fresh(), &n));
    ck_assert_uint_le(n, HS_SETTINGS_MAX);
    ck_assert_int_eq(setting(settings, n, "nodelay")->effective, 1);
    ck_assert(!setting(settings, n, "nodelay")->differs);
    ck_assert_int_eq(setting(settings, n, "user_timeout_ms")->effective, 27715);
    ck_assert(!setting(settings, n, "user_timeout_ms")->differs);
    ck_assert_int_ge(setting(settings, n, "keepalive_idle_s")->effective, 4);
    ck_assert_int_le(setting(settings, n, "keepalive_idle_s")->effective, 16);
    ck_assert(setting(settings, n, "recv_buffer")->differs);
    ck_assert_str_eq(setting(settings, n, "recv_buffer")->limited_by, "net.core.rmem_max");
    ck_assert_int_eq(setting(settings, n, "linger_s")->asked, HS_UNSET);
    hs_conn_info(p.c, &info);
    ck_assert_uint_eq(info.changed_settings, 1);
    ck_assert_int_eq(info.family, AF_INET);
    pair_free(&p);
}
END_TEST

START_TEST(addresses_and_options_go_through_the_connection)
{
    struct pair p = pair_tcp();
    struct hs_addr local, peer, want = {.len = sizeof(want.storage)};
    char text[HS_ADDR_TEXT_SIZE], want_text[HS_ADDR_TEXT_SIZE];
    int on = 1, got = 0;
    socklen_t len = sizeof(got);

    ASSERT_OK(hs_conn_local_addr(p.c, fresh(), &local));
    ASSERT_OK(hs_conn_peer_addr(p.c, fresh(), &peer));
    ck_assert_int_eq(getpeername(p.peer, &want.sa, &want.len), 0);
    ck_assert_str_eq(hs_addr_text(&local, text, sizeof(text)),
                     hs_addr_text(&want, want_text, sizeof(want_text)));
    ASSERT_OK(hs_conn_setsockopt(p.c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on), fresh()));
    ASSERT_OK(hs_conn_getsockopt(p.c, IPPROTO_TCP, TCP_NODELAY, &got, &len, fresh()));
    ck_assert_int_eq(got, 1);
    ASSERT_ERR(HS_E_SYSTEM, hs_conn_setsockopt(p.c, 9999, 1, &on, sizeof(on), fresh()));
    pair_free(&p);
}
END_TEST

/* ---- Half an end --------------------------------------------------------------------------- */

START_TEST(an_own_half_close_bounds_reading_and_no_earlier_deadline_moves)
{
    struct pair p = pair_tcp();
    int64_t before = hs_now(), deadline;

    ASSERT_OK(hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    ck_assert(hs_conn_get_deadline(p.c, HS_DIR_IN) == HS_NEVER); /* Nobody asked for one. */
    hs_conn_set_half_closed(p.c, 100 * SECOND);
    ASSERT_OK(hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    deadline = hs_conn_get_deadline(p.c, HS_DIR_IN);
    ck_assert_int_ge(deadline, before + 100 * SECOND);
    ck_assert_int_le(deadline, hs_now() + 100 * SECOND);
    ck_assert(hs_conn_get_deadline(p.c, HS_DIR_OUT) == HS_NEVER);
    hs_conn_set_half_closed(p.c, 200 * SECOND);
    ASSERT_OK(hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    ck_assert_int_eq(hs_conn_get_deadline(p.c, HS_DIR_IN), deadline);
    pair_free(&p);
}
END_TEST

START_TEST(the_peers_end_bounds_writing_and_wakes_the_writer)
{
    struct pair p = pair_small();
    struct call out = {.c = p.c, .sends = true};
    struct hs_op op = op_in(10 * SECOND);
    struct thread t;
    uint8_t byte;
    size_t n;

    (void)fill(p.c);
    hs_conn_set_half_closed(p.c, 5 * MS);
    thread_start(&t, block, &out);
    thread_wait_asleep(&t);
    (void)shutdown(p.peer, SHUT_WR);
    ASSERT_OK(DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    ck_assert_uint_eq(n, 0);
    ck_assert(hs_conn_get_deadline(p.c, HS_DIR_IN) == HS_NEVER);
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_DEADLINE, out.rv);
    pair_free(&p);
}
END_TEST

/* Our own half close, by another thread, is not the peer's doing. */
START_TEST(a_writer_whose_side_is_shut_meanwhile_is_closed_not_reset)
{
    int fds[2];
    struct pair p = {0};
    struct call out = {.sends = true};
    struct hs_reset_counts before, after;
    struct hs_op op = op_in(10 * SECOND);
    struct thread t;
    uint8_t byte;
    size_t n;

    if (_i) {
        tcp_pair(fds);
        ASSERT_OK(hs_conn_adopt(fds[0], NULL, fresh(), &p.c));
        p.peer = fds[1];
    } else {
        p = pair_small();
    }
    hs_reset_counts(&before);
    (void)fill(p.c);
    out.c = p.c;
    thread_start(&t, block, &out);
    thread_wait_asleep(&t);
    ASSERT_OK(hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_CLOSED, out.rv);
    hs_reset_counts(&after);
    ck_assert_uint_eq(after.by_peer, before.by_peer);
    put(p.peer, "x", 1);
    ASSERT_OK(DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    (void)shutdown(p.peer, SHUT_WR);
    op = op_in(10 * SECOND);
    ASSERT_OK(DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    ck_assert_uint_eq(n, 0);
    pair_free(&p);
}
END_TEST

/* ---- Resets -------------------------------------------------------------------------------- */

static void
reset_peer(struct pair *p)
{
    const struct linger reset = {.l_onoff = 1};

    (void)setsockopt(p->peer, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    (void)close(p->peer);
    p->peer = -1;
}

enum { BY_PEER, BY_ABORT, BY_LINGER_OPTION, BY_LINGER_SETSOCKOPT, BY_UNREAD, BY_NOBODY, CAUSES };

static struct pair
pair_that_lingers(bool option)
{
    const struct linger linger = {.l_onoff = 1};
    struct hs_sockopts opts;
    struct pair p;
    int fds[2];

    tcp_pair(fds);
    hs_sockopts_init(&opts);
    opts.linger_s = option ? 0 : HS_UNSET;
    ASSERT_OK(hs_conn_adopt(fds[0], &opts, fresh(), &p.c));
    p.peer = fds[1];
    if (!option)
        ASSERT_OK(hs_conn_setsockopt(p.c, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger), fresh()));
    return p;
}

static void
end_by(struct pair *p, int cause)
{
    struct hs_op op = op_in(10 * SECOND);
    uint8_t byte;
    size_t n;

    if (cause == BY_UNREAD || cause == BY_NOBODY) {
        put(p->peer, "ab", 2);
        for (int i = 0; i < (cause == BY_NOBODY ? 2 : 1); i++)
            ASSERT_OK(DONE(hs_conn_recv(p->c, &op, &byte, 1, 0, fresh(), &n)));
    }
    if (cause == BY_PEER) {
        reset_peer(p);
        ASSERT_ERR(HS_E_RESET, DONE(hs_conn_recv(p->c, &op, &byte, 1, 0, fresh(), &n)));
    }
    hs_conn_close(p->c, cause == BY_ABORT);
}

START_TEST(each_reset_is_counted_once_by_its_cause)
{
    struct pair p = _i == BY_LINGER_OPTION || _i == BY_LINGER_SETSOCKOPT
                        ? pair_that_lingers(_i == BY_LINGER_OPTION)
                        : pair_tcp();
    struct hs_reset_counts before, after;
    char byte;

    hs_reset_counts(&before);
    end_by(&p, _i);
    hs_reset_counts(&after);
    ck_assert_uint_eq(after.by_peer - before.by_peer, _i == BY_PEER);
    ck_assert_uint_eq(after.by_abort - before.by_abort, _i == BY_ABORT);
    ck_assert_uint_eq(after.by_linger - before.by_linger,
                      _i == BY_LINGER_OPTION || _i == BY_LINGER_SETSOCKOPT);
    ck_assert_uint_eq(after.by_unread - before.by_unread, _i == BY_UNREAD);
    ck_assert_uint_eq(after.dead_peer, before.dead_peer);
    if (_i != BY_PEER) /* The peer saw what was counted. */
        ck_assert_int_eq(recv(p.peer, &byte, 1, 0), _i == BY_NOBODY ? 0 : -1);
    pair_free(&p);
}
END_TEST

static hs_err
send_somehow(struct hs_conn *c, int how)
{
    static const uint8_t bytes[1000];
    struct iovec iov[2] = {{.iov_base = (void *)(uintptr_t)bytes, .iov_len = 1},
                           {.iov_base = (void *)(uintptr_t)bytes, .iov_len = 1}};
    struct hs_op op = op_in(10 * SECOND);
    int64_t offset = 0;
    int file;
    size_t n;
    hs_err rv;

    switch (how) {
    case 0:
        return DONE(hs_conn_send(c, &op, bytes, sizeof(bytes), fresh(), &n));
    case 1:
        return DONE(hs_conn_send_all(c, &op, bytes, sizeof(bytes), fresh()));
    case 2:
        return DONE(hs_conn_sendv(c, &op, iov, 2, true, fresh()));
    default:
        ck_assert_int_ge(file = memfd_create("hardsock-test", MFD_CLOEXEC), 0);
        ck_assert_int_eq(write(file, bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
        rv = DONE(hs_conn_send_file(c, &op, file, &offset, sizeof(bytes), fresh()));
        (void)close(file);
        return rv;
    }
}

START_TEST(what_the_peer_said_before_it_reset_is_kept_by_whatever_send_finds_out)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_in(10 * SECOND);
    uint8_t bytes[16];
    size_t n;
    hs_err rv;

    put(p.peer, "413 too large", 13);
    reset_peer(&p);
    while ((rv = send_somehow(p.c, _i)) == HS_OK)
        continue;
    ASSERT_ERR(HS_E_RESET, rv);
    ck_assert_uint_eq(hs_conn_copy_buffered(p.c, bytes, sizeof(bytes)), 13);
    ck_assert_mem_eq(bytes, "413 too large", 13);
    ASSERT_OK(DONE(hs_conn_recv(p.c, &op, bytes, sizeof(bytes), 0, fresh(), &n)));
    ck_assert_uint_eq(n, 13);
    op = op_in(10 * SECOND);
    ASSERT_ERR(HS_E_RESET, DONE(hs_conn_recv(p.c, &op, bytes, 1, 0, fresh(), &n)));
    pair_free(&p);
}
END_TEST

static int
use_inherited(void *arg)
{
    struct pair *p = arg;
    struct hs_op op = HS_OP_INIT(HS_TRY_ONCE, NULL);
    uint8_t byte = 0;
    size_t n;
    int fd;

    if (hs_conn_recv(p->c, &op, &byte, 1, 0, NULL, &n) != HS_E_FORKED ||
        hs_conn_send_all(p->c, &op, &byte, 1, NULL) != HS_E_FORKED)
        return 1;
    if (hs_conn_detach(p->c, NULL, &fd) != HS_E_FORKED || hs_conn_fileno(p->c) != -1)
        return 2;
    hs_conn_close(p->c, true); /* must not reset the parent's connection */
    if (!hs_conn_is_closed(p->c))
        return 3;
    hs_conn_unref(p->c);
    return 0;
}

START_TEST(a_forked_child_may_only_let_go)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_in(10 * SECOND);
    struct hs_conn_info info;
    char byte;

    ck_assert_int_eq(in_child(use_inherited, &p), 0);
    ASSERT_OK(hs_conn_send_all(p.c, &op, (const uint8_t *)"x", 1, fresh()));
    get(p.peer, &byte, 1);
    hs_conn_info(p.c, &info);
    ck_assert_uint_eq(info.bytes_sent, 1);
    pair_free(&p);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("conn_end");

    tcase_add_loop_test(tc, closing_wakes_a_blocked_reader_and_writer, 0, 2);
    tcase_add_test(tc, a_close_while_finish_waits_for_the_peer_is_no_clean_ending);
    tcase_add_test(tc, a_peer_that_closes_without_reading_while_finish_waits_has_reset);
    tcase_add_test(tc, finish_after_half_a_message_is_a_report);
    tcase_add_test(tc, a_writer_hears_of_a_dead_peer_what_the_reader_was_told);
    tcase_add_test(tc, a_closed_connection_refuses_everything);
    tcase_add_test(tc, closing_keeps_the_number_while_a_step_is_pending);
    tcase_add_test(tc, an_abort_resets_the_peer);
    tcase_add_test(tc, half_a_close_lets_the_peer_answer);
    tcase_add_loop_test(tc, to_shut_down_what_both_sides_have_ended_is_no_error, 0, 2);
    tcase_add_loop_test(tc, of_two_that_shut_down_neither_makes_the_clean_end_a_reset, 0, 3);
    tcase_add_loop_test(tc, to_shut_down_what_was_reset_is_a_reset_and_hides_none, 0, 2);
    tcase_add_test(tc, a_detached_descriptor_is_the_callers_and_works);
    tcase_add_test(tc, buffered_bytes_make_detaching_busy);
    tcase_add_test(tc, the_last_of_several_owners_closes);
    tcase_add_test(tc, the_last_reference_closes_and_drops_what_was_buffered);
    tcase_add_test(tc, what_is_no_connected_stream_is_refused_and_left_alone);
    tcase_add_test(tc, an_adoption_that_fails_leaves_the_descriptor_to_the_caller);
    tcase_add_test(tc, the_kernel_is_asked_what_became_of_the_options);
    tcase_add_test(tc, addresses_and_options_go_through_the_connection);
    tcase_add_test(tc, a_forked_child_may_only_let_go);
    tcase_add_test(tc, an_own_half_close_bounds_reading_and_no_earlier_deadline_moves);
    tcase_add_test(tc, the_peers_end_bounds_writing_and_wakes_the_writer);
    tcase_add_loop_test(tc, a_writer_whose_side_is_shut_meanwhile_is_closed_not_reset, 0, 2);
    tcase_add_loop_test(tc, each_reset_is_counted_once_by_its_cause, 0, CAUSES);
    tcase_add_loop_test(tc, what_the_peer_said_before_it_reset_is_kept_by_whatever_send_finds_out,
                        0, 4);
    return run_case(tc);
}
