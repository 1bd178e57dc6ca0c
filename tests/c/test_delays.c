/* test_delays.c: how long what has arrived lay in the kernel's queue, by the kernel's stamps.
 *
 * Bounds are times that were measured around what is measured: none is a constant.
 */
#include "support.h"

#include "../../csrc/stream/delays.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOKS 14 /* of which two are measured */

static struct hs_delays *
delays(void)
{
    struct hs_delays *d;

    ASSERT_OK(hs_delays_new(fresh(), &d));
    return d;
}

static struct hs_fixed_counts
counts(const struct hs_delays *d)
{
    struct hs_fixed_counts c;

    hs_delays_read(d, &c);
    return c;
}

static void
look(struct hs_conn *c)
{
    for (int i = 0; i < LOOKS; i++)
        hs_delays_look(c);
}

static void
await_bytes(struct hs_conn *c)
{
    struct pollfd fd = {.fd = hs_conn_fileno(c), .events = POLLIN};

    ck_assert_int_eq(poll(&fd, 1, 10000), 1);
}

/* A wait for a token that nobody cancels. */
static void
let_time_pass(int64_t span)
{
    struct hs_token *token;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &token));
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_token_wait(token, hs_now() + span, fresh())));
    hs_token_unref(token);
}

/* The kernel begins to stamp some time after it was asked for the first time. */
static void
await_stamps(void)
{
    struct hs_delays *d = delays();
    struct pair p = pair_tcp();

    hs_conn_measure(p.c, d);
    EVENTUALLY(({
        struct hs_op op = op_in(10 * SECOND);
        uint8_t byte;

        put(p.peer, "x", 1);
        await_bytes(p.c);
        look(p.c);
        ASSERT_OK(DONE(hs_conn_recv_exactly(p.c, &op, &byte, 1, fresh())));
        counts(d).count > 0;
    }));
    pair_free(&p);
    hs_delays_unref(d);
}

START_TEST(what_lay_in_the_queue_is_measured_from_its_arrival)
{
    struct hs_delays *d = delays();
    struct pair p = pair_tcp();
    struct hs_fixed_counts c;
    int64_t sent, arrived, looked;

    hs_conn_measure(p.c, d);
    await_stamps();
    look(p.c);
    ck_assert_uint_eq(counts(d).count, 0); /* Nothing is there. */
    sent = hs_now();
    put(p.peer, "x", 1);
    await_bytes(p.c);
    arrived = hs_now();
    let_time_pass(5 * MS);
    looked = hs_now();
    look(p.c);
    c = counts(d);
    ck_assert_uint_eq(c.count, 2);
    ck_assert_int_ge((int64_t)c.sum_ns, 2 * (looked - arrived - MS)); /* Another clock. */
    ck_assert_int_le((int64_t)c.sum_ns, 2 * (hs_now() - sent + MS));
    hs_delays_unref(d); /* The connection keeps it. */
    look(p.c);
    pair_free(&p);
}
END_TEST

START_TEST(looking_takes_nothing_and_only_beginnings_count)
{
    struct hs_delays *d = delays();
    struct pair p = pair_tcp();
    struct hs_op op = op_in(10 * SECOND);
    uint8_t bytes[3];

    hs_conn_measure(p.c, d);
    put(p.peer, "abc", 3);
    await_bytes(p.c);
    look(p.c);
    ASSERT_OK(DONE(hs_conn_recv_exactly(p.c, &op, bytes, 3, fresh())));
    ck_assert_mem_eq(bytes, "abc", 3);
    pair_free(&p);
    hs_delays_unref(d);
}
END_TEST

START_TEST(what_has_no_stamps_or_is_not_measured_costs_nothing)
{
    struct hs_delays *d = delays();
    struct pair unix_pair = pair_unix(), other = pair_tcp();

    hs_conn_measure(unix_pair.c, d);
    put(unix_pair.peer, "x", 1);
    put(other.peer, "x", 1);
    await_bytes(unix_pair.c);
    await_bytes(other.c);
    look(unix_pair.c);
    look(other.c);
    ck_assert_uint_eq(counts(d).count, 0);
    hs_conn_close(other.c, false);
    hs_conn_measure(other.c, d); /* Nor is what is closed. */
    look(other.c);
    hs_delays_unref(NULL);
    pair_free(&unix_pair);
    pair_free(&other);
    hs_delays_unref(d);
}
END_TEST

/* As much room for ancillary data as `room`; returns how much came, and the flags. */
static size_t
receive(struct hs_conn *c, size_t room, int *ret_flags)
{
    union {
        char bytes[256];
        struct cmsghdr align;
    } control;
    struct hs_op op = op_in(10 * SECOND);
    uint8_t byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    size_t n;

    msg.msg_control = room > 0 ? control.bytes : NULL;
    msg.msg_controllen = room;
    ASSERT_OK(DONE(hs_conn_recvmsg(c, &op, &msg, 0, fresh(), &n)));
    ck_assert_uint_eq(n, 1);
    *ret_flags = msg.msg_flags;
    for (struct cmsghdr *m = CMSG_FIRSTHDR(&msg); m != NULL; m = CMSG_NXTHDR(&msg, m))
        ck_assert_int_eq(m->cmsg_type, TCP_CM_INQ);
    return msg.msg_controllen;
}

START_TEST(user_of_a_measured_connection_sees_no_stamps)
{
    struct hs_delays *d = delays();
    struct pair p = pair_tcp();
    struct hs_conn *second;
    const int on = 1;
    int flags, fd, how = 1;
    socklen_t len = sizeof(how);

    await_stamps();
    hs_conn_measure(p.c, d);
    put(p.peer, "abcdef", 6);
    await_bytes(p.c);
    ck_assert_uint_eq(receive(p.c, 0, &flags), 0);
    ck_assert_int_eq(flags & MSG_CTRUNC, 0);
    ck_assert_uint_eq(receive(p.c, 256, &flags), 0);
    ck_assert_int_eq(flags & MSG_CTRUNC, 0);
    ASSERT_OK(hs_conn_dup(p.c, fresh(), &second));
    ck_assert_uint_eq(receive(second, 256, &flags), 0);
    ASSERT_OK(hs_conn_setsockopt(p.c, IPPROTO_TCP, TCP_INQ, &on, sizeof(on), fresh()));
    ck_assert_uint_eq(receive(p.c, 256, &flags), CMSG_SPACE(sizeof(int)));
    ck_assert_int_eq(flags & MSG_CTRUNC, 0);
    ck_assert_uint_eq(receive(p.c, 8, &flags), 0);
    ck_assert_int_ne(flags & MSG_CTRUNC, 0);
    ASSERT_OK(hs_conn_detach(p.c, fresh(), &fd));
    ck_assert_int_eq(getsockopt(fd, SOL_SOCKET, 65, &how, &len), 0); /* SO_TIMESTAMPING_NEW */
    ck_assert_int_eq(how, 0);
    ck_assert_int_eq(close(fd), 0);
    hs_conn_unref(second);
    pair_free(&p);
    hs_delays_unref(d);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("delays");

    tcase_add_test(tc, what_lay_in_the_queue_is_measured_from_its_arrival);
    tcase_add_test(tc, looking_takes_nothing_and_only_beginnings_count);
    tcase_add_test(tc, what_has_no_stamps_or_is_not_measured_costs_nothing);
    tcase_add_test(tc, user_of_a_measured_connection_sees_no_stamps);
    return run_case(tc);
}
