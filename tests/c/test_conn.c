/* test_conn.c: reading and writing on a connection: bytes, deadlines, poison, who may when.
 *
 * Ending a connection (close, detach, adopt, fork) is in test_conn_end.c.
 */
#include "support.h"

#define S (1000 * MS)

#include "../../csrc/cancel/wait.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static size_t
recv_some(struct hs_conn *c, void *buf, size_t len, int flags)
{
    struct hs_op op = op_in(10 * SECOND);
    size_t n = 777;

    ASSERT_OK(DONE(hs_conn_recv(c, &op, buf, len, flags, fresh(), &n)));
    return n;
}

static struct hs_conn_info
info_of(struct hs_conn *c)
{
    struct hs_conn_info info;

    hs_conn_info(c, &info);
    return info;
}

START_TEST(recv_gives_what_is_there_and_then_the_end)
{
    struct pair p = pair_tcp();
    char buf[16];

    put(p.peer, "hello", 5);
    ck_assert_uint_eq(recv_some(p.c, buf, 2, 0), 2);
    ck_assert_uint_eq(recv_some(p.c, buf, sizeof(buf), MSG_PEEK), 3);
    ck_assert_uint_eq(recv_some(p.c, buf, sizeof(buf), 0), 3);
    ck_assert_mem_eq(buf, "llo", 3);
    ck_assert_uint_eq(recv_some(p.c, buf, 0, 0), 0);
    (void)shutdown(p.peer, SHUT_WR);
    ck_assert_uint_eq(recv_some(p.c, buf, sizeof(buf), 0), 0);
    ck_assert_uint_eq(recv_some(p.c, buf, sizeof(buf), 0), 0);
    ck_assert_uint_eq(info_of(p.c).bytes_received, 5); /* peeking does not count */
    pair_free(&p);
}
END_TEST

/* Seen by what is counted as a wait. */
static uint64_t
waits_of_recv(struct hs_conn *c, int peer)
{
    struct pollfd here = {.fd = hs_conn_fileno(c), .events = POLLIN};
    struct hs_conn_row row;
    uint64_t before;
    char buf[2]; /* With room left, so that all is known to be taken. */

    hs_conn_describe(c, &row);
    before = row.reading.count;
    put(peer, "x", 1);
    ck_assert_int_eq(1, poll(&here, 1, 30000));
    ck_assert_uint_eq(recv_some(c, buf, sizeof(buf), 0), 1);
    hs_conn_describe(c, &row);
    return row.reading.count - before;
}

/* Until it is counted: on a slow machine a deadline passes before the first try. */
static void
wait_in_vain(struct hs_conn *c)
{
    struct hs_conn_row row;
    uint64_t before;
    uint8_t byte;
    size_t n;

    hs_conn_describe(c, &row);
    before = row.reading.count;
    for (int64_t wait = 5 * MS; row.reading.count == before; wait *= 2) {
        struct hs_op op = op_in(wait);

        ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_recv(c, &op, &byte, 1, 0, fresh(), &n)));
        hs_conn_describe(c, &row);
    }
}

START_TEST(who_has_tried_in_vain_waits_first_the_next_times)
{
    struct pair p = pair_tcp();

    for (int i = 0; i < 3; i++)
        ck_assert_uint_eq(0, waits_of_recv(p.c, p.peer)); /* What is here is tried for. */
    wait_in_vain(p.c);
    ck_assert_uint_eq(0, waits_of_recv(p.c, p.peer));
    for (int i = 0; i < 16; i++)
        ck_assert_uint_eq(1, waits_of_recv(p.c, p.peer));
    for (int i = 0; i < 3; i++)
        ck_assert_uint_eq(0, waits_of_recv(p.c, p.peer)); /* It was tried again, and was here. */
    pair_free(&p);
}
END_TEST

START_TEST(who_may_not_wait_tries_also_after_one_in_vain)
{
    struct pair p = pair_tcp();
    struct hs_op once = HS_OP_INIT(HS_TRY_ONCE, NULL);
    uint8_t buf[16];
    size_t n = 777;

    ck_assert_uint_eq(0, waits_of_recv(p.c, p.peer));
    wait_in_vain(p.c);
    ck_assert_uint_eq(0, waits_of_recv(p.c, p.peer));
    put(p.peer, "yz", 2);
    ASSERT_OK(DONE(hs_conn_recv(p.c, &once, buf, sizeof(buf), 0, fresh(), &n)));
    ck_assert_uint_eq(2, n);
    pair_free(&p);
}
END_TEST

START_TEST(recv_ends_by_its_deadline_and_may_be_tried_again)
{
    struct pair p = pair_unix();
    struct hs_op op = op_in(5 * MS);
    char buf[4];
    size_t n = 777;

    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_recv(p.c, &op, (uint8_t *)buf, 4, 0, fresh(), &n)));
    ck_assert_uint_eq(n, 777);
    ck_assert_str_eq(last_error()->op, "recv");
    ck_assert_uint_eq(op.claim, 0);
    put(p.peer, "x", 1);
    ck_assert_uint_eq(recv_some(p.c, buf, 4, 0), 1);
    pair_free(&p);
}
END_TEST

START_TEST(a_passed_deadline_and_an_ended_token_stop_before_the_first_byte)
{
    struct pair p = pair_unix();
    struct hs_op late = HS_OP_INIT(1, NULL), once = HS_OP_INIT(HS_TRY_ONCE, NULL), op;
    struct hs_token *t;
    uint8_t byte;
    size_t n;

    put(p.peer, "x", 1);
    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &t));
    ck_assert(hs_token_cancel(t, NULL, 0, NULL));
    op = op_with(t);
    ASSERT_ERR(HS_E_DEADLINE, hs_conn_recv(p.c, &late, &byte, 1, 0, fresh(), &n));
    ASSERT_ERR(HS_E_CANCELLED, hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n));
    ASSERT_ERR(HS_E_CANCELLED, hs_conn_send_all(p.c, &op, &byte, 1, fresh()));
    ck_assert(!info_of(p.c).poisoned_out);
    ASSERT_OK(hs_conn_recv(p.c, &once, &byte, 1, 0, fresh(), &n));
    ASSERT_ERR(HS_E_DEADLINE, hs_conn_recv(p.c, &once, &byte, 1, 0, fresh(), &n));
    hs_token_unref(t);
    pair_free(&p);
}
END_TEST

struct reading {
    struct hs_conn *c;
    struct hs_op op;
    uint8_t buf[64];
    size_t len;
    hs_err rv;
};

static void *
read_exactly(void *arg)
{
    struct reading *r = arg;

    r->rv = DONE(hs_conn_recv_exactly(r->c, &r->op, r->buf, r->len, fresh()));
    return NULL;
}

START_TEST(recv_exactly_collects_a_drip)
{
    struct pair p = pair_tcp();
    struct reading r = {.c = p.c, .op = op_in(10 * SECOND), .len = 26};
    struct thread t;

    thread_start(&t, read_exactly, &r);
    for (char byte = 'a'; byte <= 'z'; byte++) {
        thread_wait_asleep(&t);
        put(p.peer, &byte, 1);
    }
    (void)thread_join(&t);
    ASSERT_OK(r.rv);
    ck_assert_mem_eq(r.buf, "abcdefghijklmnopqrstuvwxyz", 26);
    ck_assert_uint_eq(r.op.done, 26);
    pair_free(&p);
}
END_TEST

START_TEST(a_deadline_in_recv_exactly_keeps_what_had_arrived)
{
    struct pair p = pair_unix();
    struct hs_op op = op_in(20 * MS), again = op_in(10 * SECOND);
    uint8_t buf[8] = {0};
    char some[3];

    put(p.peer, "abc", 3);
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_recv_exactly(p.c, &op, buf, 6, fresh())));
    ck_assert_uint_eq(op.done, 3);
    ck_assert_uint_eq(info_of(p.c).buffered, 3);
    ck_assert(!info_of(p.c).poisoned_in);
    ck_assert_uint_eq(recv_some(p.c, some, 1, MSG_PEEK), 1);
    ck_assert_int_eq(some[0], 'a');
    put(p.peer, "def", 3);
    ASSERT_OK(DONE(hs_conn_recv_exactly(p.c, &again, buf, 6, fresh())));
    ck_assert_mem_eq(buf, "abcdef", 6);
    ck_assert_uint_eq(info_of(p.c).buffered, 0);
    ck_assert_uint_eq(info_of(p.c).bytes_received, 6);
    pair_free(&p);
}
END_TEST

START_TEST(an_early_end_is_truncation_and_loses_nothing)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_in(10 * SECOND);
    uint8_t buf[8];

    put(p.peer, "abc", 3);
    (void)shutdown(p.peer, SHUT_WR);
    ASSERT_ERR(HS_E_TRUNCATED, DONE(hs_conn_recv_exactly(p.c, &op, buf, 6, fresh())));
    ck_assert_uint_eq(op.done, 3);
    ck_assert_uint_eq(recv_some(p.c, buf, 8, 0), 3);
    ck_assert_mem_eq(buf, "abc", 3);
    ck_assert_uint_eq(recv_some(p.c, buf, 8, 0), 0);
    pair_free(&p);
}
END_TEST

/* As the kernel does: what had come before the reset is still given out. */
START_TEST(bytes_put_back_survive_a_reset)
{
    const struct linger reset = {.l_onoff = 1};
    struct pair p = pair_tcp();
    struct reading r = {.c = p.c, .op = op_in(10 * SECOND), .len = 6};
    struct thread t;
    int unread = 1;

    put(p.peer, "abc", 3);
    thread_start(&t, read_exactly, &r);
    thread_wait_asleep(&t);
    EVENTUALLY(ioctl(hs_conn_fileno(p.c), FIONREAD, &unread) == 0 && unread == 0);
    (void)setsockopt(p.peer, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    (void)close(p.peer);
    p.peer = -1;
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_RESET, r.rv);
    ck_assert_uint_eq(info_of(p.c).buffered, 3);
    ck_assert_uint_eq(recv_some(p.c, r.buf, 6, 0), 3);
    pair_free(&p);
}
END_TEST

START_TEST(a_reset_is_told_apart_and_stays)
{
    const struct linger reset = {.l_onoff = 1};
    struct pair p = pair_tcp();
    struct hs_op op = op_in(10 * SECOND), next = op_in(10 * SECOND);
    uint8_t byte;
    size_t n;

    (void)setsockopt(p.peer, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    (void)close(p.peer);
    p.peer = -1;
    ASSERT_ERR(HS_E_RESET, DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    ck_assert_int_eq(last_error()->sys, ECONNRESET);
    ASSERT_ERR(HS_E_RESET, DONE(hs_conn_recv(p.c, &next, &byte, 1, 0, fresh(), &n)));
    pair_free(&p);
}
END_TEST

static uint8_t big[4 << 20];

START_TEST(a_deadline_in_the_middle_of_send_all_poisons)
{
    struct pair p = pair_small();
    struct hs_op op = op_in(20 * MS), next = op_in(10 * SECOND);
    size_t n;

    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_send_all(p.c, &op, big, sizeof(big), fresh())));
    ck_assert_uint_gt(op.done, 0);
    ck_assert_uint_lt(op.done, sizeof(big));
    ck_assert(info_of(p.c).poisoned_out);
    ASSERT_ERR(HS_E_POISONED, hs_conn_send(p.c, &next, big, 1, fresh(), &n));
    ASSERT_ERR(HS_E_POISONED, hs_conn_send_all(p.c, &next, big, 1, fresh()));
    put(p.peer, "x", 1);
    ck_assert_uint_eq(recv_some(p.c, big, 1, 0), 1); /* the other direction is sound */
    pair_free(&p);
}
END_TEST

START_TEST(a_deadline_before_the_first_byte_does_not_poison)
{
    struct pair p = pair_small();
    struct hs_op op = op_in(5 * MS), next = op_in(10 * SECOND);
    size_t full = fill(p.c), n;
    uint8_t *drain = malloc(full);

    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_send_all(p.c, &op, big, 10, fresh())));
    ck_assert_uint_eq(op.done, 0);
    ck_assert(!info_of(p.c).poisoned_out);
    get(p.peer, drain, full);
    free(drain);
    ASSERT_OK(DONE(hs_conn_send(p.c, &next, big, 10, fresh(), &n)));
    ck_assert_uint_eq(n, 10);
    ck_assert_uint_eq(info_of(p.c).bytes_sent, full + 10);
    pair_free(&p);
}
END_TEST

struct draining {
    int fd;
    size_t total;
    bool matches;
};

static void *
drain_all(void *arg)
{
    struct draining *d = arg;
    uint8_t buf[8192];
    ssize_t n;

    d->matches = true;
    while ((n = recv(d->fd, buf, sizeof(buf), 0)) > 0)
        for (ssize_t i = 0; i < n; i++)
            d->matches &= buf[i] == pattern(1, d->total++);
    return NULL;
}

static void
fill_pattern(uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = pattern(1, i);
}

START_TEST(send_all_delivers_every_byte_in_order)
{
    struct pair p = pair_small();
    struct draining d = {.fd = p.peer};
    struct hs_op op = op_in(10 * SECOND);
    struct thread t;

    fill_pattern(big, sizeof(big));
    thread_start(&t, drain_all, &d);
    ASSERT_OK(DONE(hs_conn_send_all(p.c, &op, big, sizeof(big), fresh())));
    ck_assert_uint_eq(op.done, sizeof(big));
    ASSERT_OK(hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    (void)thread_join(&t);
    ck_assert_uint_eq(d.total, sizeof(big));
    ck_assert(d.matches);
    pair_free(&p);
}
END_TEST

#define PIECES 3000

/* Pieces of 0, 1, 2 .. bytes, more than IOV_MAX of them, the first and the last empty. */
static size_t
cut(struct iovec iov[PIECES])
{
    size_t at = 0;

    for (size_t i = 0; i < PIECES; i++) {
        size_t len = i == PIECES - 1 ? 0 : (i * 7) % 300 * (i % 3 != 0);

        iov[i] = (struct iovec){.iov_base = big + at, .iov_len = len};
        at += len;
    }
    ck_assert_uint_le(at, sizeof(big));
    return at;
}

START_TEST(sendv_delivers_thousands_of_pieces_empty_ones_among_them)
{
    static struct iovec iov[PIECES];
    struct pair p = pair_small();
    struct draining d = {.fd = p.peer};
    struct hs_op op = op_in(10 * SECOND);
    size_t total = cut(iov);
    struct thread t;

    fill_pattern(big, sizeof(big));
    thread_start(&t, drain_all, &d);
    ASSERT_OK(DONE(hs_conn_sendv(p.c, &op, iov, PIECES, true, fresh())));
    ck_assert_uint_eq(op.done, total);
    ASSERT_OK(hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    (void)thread_join(&t);
    ck_assert_uint_eq(d.total, total);
    ck_assert(d.matches);
    pair_free(&p);
}
END_TEST

START_TEST(sendv_in_part_stops_where_the_kernel_does)
{
    static struct iovec iov[PIECES];
    struct pair p = pair_small();
    struct hs_op op = op_in(10 * SECOND), none = op_in(10 * SECOND), full = op_in(5 * MS);
    struct iovec empty[2] = {{.iov_base = big}, {.iov_base = big}};

    ASSERT_OK(hs_conn_sendv(p.c, &none, empty, 2, true, fresh()));
    ASSERT_OK(hs_conn_sendv(p.c, &none, NULL, 0, false, fresh()));
    ck_assert_uint_eq(none.done, 0);
    (void)cut(iov);
    ASSERT_OK(DONE(hs_conn_sendv(p.c, &op, iov, PIECES, false, fresh())));
    ck_assert_uint_gt(op.done, 0);
    (void)fill(p.c);
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_sendv(p.c, &full, iov, PIECES, true, fresh())));
    ck_assert(!info_of(p.c).poisoned_out);
    pair_free(&p);
}
END_TEST

START_TEST(a_second_reader_is_told_that_it_is_busy)
{
    struct pair p = pair_unix();
    struct reading r = {.c = p.c, .op = op_in(10 * SECOND), .len = 2};
    struct hs_op op = op_in(10 * SECOND), out = op_in(10 * SECOND);
    struct thread t;
    uint8_t byte = 0;
    size_t n;
    int fd;

    thread_start(&t, read_exactly, &r);
    thread_wait_asleep(&t);
    ASSERT_ERR(HS_E_BUSY, hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n));
    ASSERT_ERR(HS_E_BUSY, hs_conn_detach(p.c, fresh(), &fd));
    ASSERT_OK(hs_conn_send_all(p.c, &out, &byte, 1, fresh())); /* one of each is fine */
    put(p.peer, "ok", 2);
    (void)thread_join(&t);
    ASSERT_OK(r.rv);
    pair_free(&p);
}
END_TEST

struct deadline_case {
    struct hs_conn *c;
    enum hs_dir dir;
    hs_err rv;
};

static void *
use_direction(void *arg)
{
    struct deadline_case *d = arg;
    struct hs_op op = op_in(10 * SECOND);
    uint8_t byte = 0;
    size_t n;

    d->rv = d->dir == HS_DIR_IN ? DONE(hs_conn_recv(d->c, &op, &byte, 1, 0, fresh(), &n))
                                : DONE(hs_conn_send(d->c, &op, &byte, 1, fresh(), &n));
    return NULL;
}

START_TEST(a_directions_deadline_set_from_outside_wakes_that_direction)
{
    struct pair p = pair_small();
    enum hs_dir dir = _i % 2 ? HS_DIR_OUT : HS_DIR_IN;
    struct deadline_case d = {.c = p.c, .dir = dir}, other = {.c = p.c, .dir = !dir};
    struct thread t, u;

    (void)fill(p.c);
    hs_conn_set_deadline(p.c, dir, hs_deadline_after(100 * SECOND));
    thread_start(&t, use_direction, &d);
    thread_start(&u, use_direction, &other);
    thread_wait_asleep(&t);
    thread_wait_asleep(&u);
    hs_conn_set_deadline(p.c, dir, _i < 2 ? HS_TRY_ONCE : hs_now()); /* both are in the past */
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_DEADLINE, d.rv);
    thread_wait_asleep(&u);
    hs_conn_close(p.c, false);
    (void)thread_join(&u);
    ASSERT_ERR(HS_E_CLOSED, other.rv);
    pair_free(&p);
}
END_TEST

START_TEST(a_directions_deadline_is_sticky_until_it_is_moved)
{
    struct pair p = pair_unix();
    struct hs_op op = op_in(10 * SECOND);
    uint8_t byte;
    size_t n;

    put(p.peer, "x", 1);
    ck_assert(hs_conn_get_deadline(p.c, HS_DIR_IN) == HS_NEVER);
    hs_conn_set_deadline(p.c, HS_DIR_IN, 5);
    ck_assert_int_eq(hs_conn_get_deadline(p.c, HS_DIR_IN), 5);
    ASSERT_ERR(HS_E_DEADLINE, hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n));
    ASSERT_ERR(HS_E_DEADLINE, hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n));
    hs_conn_set_deadline(p.c, HS_DIR_IN, HS_NEVER);
    ASSERT_OK(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n));
    pair_free(&p);
}
END_TEST

START_TEST(an_interrupted_op_keeps_its_direction_until_it_is_abandoned)
{
    struct pair p = pair_unix();
    struct hs_op op = op_step(10 * SECOND), other = op_in(10 * SECOND);
    uint8_t buf[6], byte;
    size_t n;

    put(p.peer, "abc", 3);
    ASSERT_ERR(HS_WANT, hs_conn_recv_exactly(p.c, &op, buf, 6, fresh()));
    ck_assert_uint_eq(op.done, 3);
    ASSERT_ERR(HS_E_BUSY, hs_conn_recv(p.c, &other, &byte, 1, 0, fresh(), &n));
    hs_conn_abandon(p.c, &op, buf);
    hs_conn_abandon(p.c, &op, buf); /* nothing left to give up */
    ck_assert_uint_eq(info_of(p.c).buffered, 3);
    ck_assert_uint_eq(recv_some(p.c, buf, 6, 0), 3);
    ck_assert_mem_eq(buf, "abc", 3);
    pair_free(&p);
}
END_TEST

START_TEST(an_abandoned_send_poisons_if_something_is_out)
{
    struct pair p = pair_small();
    struct hs_op op = op_step(10 * SECOND), next = op_in(10 * SECOND);
    hs_err rv;

    while ((rv = hs_conn_send_all(p.c, &op, big, sizeof(big), fresh())) == HS_INTR)
        continue;
    ASSERT_ERR(HS_WANT, rv);
    ck_assert_int_eq(op.want_events, POLLOUT);
    hs_conn_abandon(p.c, &op, NULL);
    ASSERT_ERR(HS_E_POISONED, hs_conn_send_all(p.c, &next, big, 1, fresh()));
    pair_free(&p);
    p = pair_small();
    (void)fill(p.c);
    op = op_step(10 * SECOND);
    ASSERT_ERR(HS_WANT, hs_conn_send_all(p.c, &op, big, 1, fresh()));
    hs_conn_abandon(p.c, &op, NULL);
    ck_assert(!info_of(p.c).poisoned_out);
    pair_free(&p);
}
END_TEST

static void *
feed(void *arg)
{
    int fd = *(int *)arg;

    for (size_t at = 0; at < 100000; at += 1000) {
        uint8_t chunk[1000];

        for (size_t i = 0; i < sizeof(chunk); i++)
            chunk[i] = pattern(1, at + i);
        put(fd, chunk, sizeof(chunk));
    }
    return NULL;
}

START_TEST(an_event_loop_can_drive_both_directions)
{
    struct pair p = pair_small();
    struct hs_op in = op_step(10 * SECOND), out = op_step(10 * SECOND);
    static uint8_t got[100000];
    struct draining d = {.fd = p.peer};
    struct thread feeding, drain;
    hs_err rv;

    thread_start(&feeding, feed, &p.peer);
    while ((rv = DONE(hs_conn_recv_exactly(p.c, &in, got, sizeof(got), fresh()))) == HS_WANT)
        wait_for_want(&in);
    ASSERT_OK(rv);
    (void)thread_join(&feeding);
    for (size_t i = 0; i < sizeof(got); i++)
        ck_assert_uint_eq(got[i], pattern(1, i));
    thread_start(&drain, drain_all, &d);
    while ((rv = DONE(hs_conn_send_all(p.c, &out, got, sizeof(got), fresh()))) == HS_WANT)
        wait_for_want(&out);
    ASSERT_OK(rv);
    ASSERT_OK(hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    (void)thread_join(&drain);
    ck_assert(d.matches);
    ck_assert_uint_eq(d.total, sizeof(got));
    pair_free(&p);
}
END_TEST

START_TEST(a_stepped_op_ends_at_its_deadline)
{
    struct pair p = pair_unix();
    struct hs_op op = op_step(5 * MS);
    uint8_t byte;
    size_t n;
    hs_err rv;

    while ((rv = hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)) == HS_WANT)
        wait_for_want(&op);
    ASSERT_ERR(HS_E_DEADLINE, rv);
    ck_assert_uint_eq(op.claim, 0);
    pair_free(&p);
}
END_TEST

START_TEST(a_token_stops_a_blocked_call_at_once)
{
    struct pair p = pair_small();
    struct reading r = {.c = p.c, .len = 6};
    struct hs_token *t;
    struct thread thread;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &t));
    r.op = op_with(t);
    put(p.peer, "abc", 3);
    thread_start(&thread, read_exactly, &r);
    thread_wait_asleep(&thread);
    ck_assert(hs_token_cancel(t, NULL, 0, NULL));
    (void)thread_join(&thread);
    ASSERT_ERR(HS_E_CANCELLED, r.rv);
    ck_assert_uint_eq(recv_some(p.c, r.buf, 6, 0), r.op.done);
    ck_assert_uint_eq(r.op.done, 3);
    hs_token_unref(t);
    pair_free(&p);
}
END_TEST

START_TEST(a_told_call_takes_what_is_there_and_waits_only_for_the_rest_of_a_message)
{
    struct pair p = pair_small();
    struct reading r = {.c = p.c, .len = 6};
    struct hs_op op = op_in(10 * S);
    struct hs_token *t;
    struct thread thread;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &t));
    r.op = op_in(10 * S);
    r.op.told = op.told = t;
    put(p.peer, "abc", 3);
    thread_start(&thread, read_exactly, &r);
    thread_wait_asleep(&thread);
    ck_assert(hs_token_cancel(t, NULL, 0, NULL));
    put(p.peer, "def", 3);
    (void)thread_join(&thread);
    ASSERT_OK(r.rv);
    put(p.peer, "more", 4);
    ASSERT_OK(hs_conn_recv_exactly(p.c, &op, (uint8_t *)r.buf, 4, fresh()));
    op = op_in(10 * S);
    op.told = t;
    ASSERT_ERR(HS_E_CANCELLED, hs_conn_recv_exactly(p.c, &op, (uint8_t *)r.buf, 1, fresh()));
    op = op_in(10 * S);
    op.told = t;
    ASSERT_ERR(HS_E_CANCELLED, hs_conn_send_all(p.c, &op, (uint8_t *)r.buf, 1, fresh()));
    ck_assert(!info_of(p.c).poisoned_out);
    hs_token_unref(t);
    pair_free(&p);
}
END_TEST

START_TEST(a_call_that_waits_for_a_message_is_woken_by_being_told)
{
    struct pair p = pair_small();
    struct reading r = {.c = p.c, .len = 6};
    struct hs_token *t;
    struct thread thread;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &t));
    put(p.peer, "first", 5);
    ck_assert_uint_eq(recv_some(p.c, r.buf, 5, 0), 5);
    r.op = op_in(60 * S);
    r.op.told = t;
    thread_start(&thread, read_exactly, &r);
    thread_wait_asleep(&thread);
    ck_assert(hs_token_cancel(t, NULL, 0, NULL));
    (void)thread_join(&thread);
    ASSERT_ERR(HS_E_CANCELLED, r.rv);
    ck_assert_uint_eq(r.op.done, 0);
    hs_token_unref(t);
    pair_free(&p);
}
END_TEST

/* Who has just connected is about to say something. */
START_TEST(the_first_message_is_waited_for_by_who_was_told)
{
    struct pair p = pair_small();
    struct reading before = {.c = p.c, .len = 3}, after = before;
    struct hs_token *t;
    struct thread thread;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &t));
    before.op = op_in(60 * S);
    before.op.told = t;
    thread_start(&thread, read_exactly, &before);
    thread_wait_asleep(&thread);
    ck_assert(hs_token_cancel(t, NULL, 0, NULL));
    thread_wait_asleep(&thread); /* It has looked, and waits on. */
    ck_assert(info_of(p.c).idle);
    put(p.peer, "abc", 3);
    (void)thread_join(&thread);
    ASSERT_OK(before.rv);
    after.op = op_in(60 * S);
    after.op.told = t;
    (void)read_exactly(&after);
    ASSERT_ERR(HS_E_CANCELLED, after.rv);
    hs_token_unref(t);
    pair_free(&p);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("conn");

    tcase_add_test(tc, recv_gives_what_is_there_and_then_the_end);
    tcase_add_test(tc, who_has_tried_in_vain_waits_first_the_next_times);
    tcase_add_test(tc, who_may_not_wait_tries_also_after_one_in_vain);
    tcase_add_test(tc, recv_ends_by_its_deadline_and_may_be_tried_again);
    tcase_add_test(tc, a_passed_deadline_and_an_ended_token_stop_before_the_first_byte);
    tcase_add_test(tc, recv_exactly_collects_a_drip);
    tcase_add_test(tc, a_deadline_in_recv_exactly_keeps_what_had_arrived);
    tcase_add_test(tc, an_early_end_is_truncation_and_loses_nothing);
    tcase_add_test(tc, bytes_put_back_survive_a_reset);
    tcase_add_test(tc, a_reset_is_told_apart_and_stays);
    tcase_add_test(tc, a_deadline_in_the_middle_of_send_all_poisons);
    tcase_add_test(tc, a_deadline_before_the_first_byte_does_not_poison);
    tcase_add_test(tc, send_all_delivers_every_byte_in_order);
    tcase_add_test(tc, sendv_delivers_thousands_of_pieces_empty_ones_among_them);
    tcase_add_test(tc, sendv_in_part_stops_where_the_kernel_does);
    tcase_add_test(tc, a_second_reader_is_told_that_it_is_busy);
    tcase_add_loop_test(tc, a_directions_deadline_set_from_outside_wakes_that_direction, 0, 4);
    tcase_add_test(tc, a_directions_deadline_is_sticky_until_it_is_moved);
    tcase_add_test(tc, an_interrupted_op_keeps_its_direction_until_it_is_abandoned);
    tcase_add_test(tc, an_abandoned_send_poisons_if_something_is_out);
    tcase_add_test(tc, an_event_loop_can_drive_both_directions);
    tcase_add_test(tc, a_stepped_op_ends_at_its_deadline);
    tcase_add_test(tc, a_token_stops_a_blocked_call_at_once);
    tcase_add_test(tc, a_told_call_takes_what_is_there_and_waits_only_for_the_rest_of_a_message);
    tcase_add_test(tc, the_first_message_is_waited_for_by_who_was_told);
    tcase_add_test(tc, a_call_that_waits_for_a_message_is_woken_by_being_told);
    return run_case(tc);
}
