/* test_loop.c: hs_loop and hs_loop_waiter: parking, being due, being woken, times, numbers that
 * come back.
 *
 * A struct waiter is what a driver keeps for one call: the op, its waiter, and how the last step
 * ended. Most wait to receive a byte.
 */
#include "support.h"

#include "../../csrc/cancel/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

struct waiter {
    struct hs_op op;
    struct hs_loop_waiter *loop_waiter;
    struct hs_conn *conn;
    struct hs_listener *listener; /* instead of conn: accepts */
    uint8_t byte;
    hs_err rv;
    int named; /* how often the loop named it */
};

static struct hs_loop *
loop_new(void)
{
    struct hs_loop *l;

    ASSERT_OK(hs_loop_new(fresh(), &l));
    return l;
}

static hs_err
step(struct waiter *w)
{
    size_t n = 0;

    hs_loop_waiter_unpark(w->loop_waiter);
    if (w->listener == NULL)
        return w->rv = hs_conn_recv(w->conn, &w->op, &w->byte, 1, 0, fresh(), &n);
    w->rv = hs_listener_accept(w->listener, &w->op, 1, fresh(), &w->conn, &n);
    return w->rv;
}

static void
set_up(struct waiter *w, struct hs_loop *l)
{
    w->rv = HS_WANT;
    w->op.stepping = true;
    ASSERT_OK(hs_loop_waiter_new(l, w, fresh(), &w->loop_waiter));
    w->op.loop_waiter = w->loop_waiter;
}

/* Steps it for the first time: there is nothing yet. Its time does not count before that: on a slow
 * machine it would have passed. */
static void
begin(struct waiter *w, struct hs_loop *l, struct hs_conn *c, struct hs_op op)
{
    *w = (struct waiter){.op = op, .conn = c};
    w->op.deadline_ns = HS_NEVER;
    set_up(w, l);
    ASSERT_ERR(HS_WANT, step(w));
    w->op.deadline_ns = op.deadline_ns;
    if (op.deadline_ns < w->op.want_at_ns)
        w->op.want_at_ns = op.deadline_ns;
}

static void
park(struct waiter *w)
{
    ASSERT_OK(hs_loop_waiter_park(w->loop_waiter, &w->op, fresh()));
}

static void
end(struct waiter *w)
{
    hs_loop_waiter_free(w->loop_waiter);
    if (w->listener != NULL)
        hs_conn_unref(w->conn);
    else if (w->rv == HS_WANT)
        hs_conn_abandon(w->conn, &w->op, NULL);
}

static bool
is_readable(struct hs_loop *l, int timeout_ms)
{
    struct pollfd fd = {.fd = hs_loop_fileno(l), .events = POLLIN};

    return poll(&fd, 1, timeout_ms) == 1;
}

/* What an event loop does: sleeps, collects, takes the first that is due. */
static struct waiter *
next_due(struct hs_loop *l)
{
    struct waiter *w = hs_loop_next(l);

    while (w == NULL) {
        ck_assert_msg(is_readable(l, 10000), "nothing became due");
        hs_loop_collect(l);
        w = hs_loop_next(l);
    }
    w->named++;
    return w;
}

static void
nothing_is_due(struct hs_loop *l)
{
    hs_loop_collect(l);
    ck_assert_ptr_null(hs_loop_next(l));
}

static struct hs_token *
token(int64_t deadline_ns)
{
    struct hs_token *t;

    ASSERT_OK(hs_token_new(NULL, 0, deadline_ns, NULL, fresh(), &t));
    return t;
}

/* ---- Being ready --------------------------------------------------------------------------- */

START_TEST(bytes_make_the_waiting_op_due_and_no_other)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_unix(), q = pair_tcp();
    struct waiter w, other;

    begin(&w, l, p.c, op_in(10 * SECOND));
    begin(&other, l, q.c, op_in(10 * SECOND));
    park(&w);
    park(&other);
    nothing_is_due(l);
    ck_assert(!is_readable(l, 0));
    put(p.peer, "x", 1);
    ck_assert_ptr_eq(next_due(l), &w);
    ASSERT_OK(step(&w));
    ck_assert_int_eq(w.byte, 'x');
    nothing_is_due(l);
    end(&w);
    end(&other);
    hs_loop_free(l);
    pair_free(&p);
    pair_free(&q);
}
END_TEST

START_TEST(bytes_between_the_step_and_the_parking_count)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_unix();
    struct waiter w;

    for (int i = 0; i < 3; i++) { /* with a number that is new, and known */
        begin(&w, l, p.c, op_in(10 * SECOND));
        put(p.peer, "x", 1);
        park(&w);
        ck_assert_ptr_eq(next_due(l), &w);
        ASSERT_OK(step(&w));
        end(&w);
    }
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

START_TEST(an_edge_that_nobody_waited_for_is_found_by_the_next_try)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_unix();
    struct waiter w;

    begin(&w, l, p.c, op_in(10 * SECOND));
    park(&w);
    hs_loop_waiter_unpark(w.loop_waiter);
    put(p.peer, "x", 1);
    ck_assert(is_readable(l, 10000));
    nothing_is_due(l);
    ASSERT_OK(step(&w));
    end(&w);
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

START_TEST(a_socket_is_entered_once_and_serves_for_ever)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_unix();
    struct waiter w;

    for (int i = 0; i < 1000; i++) {
        begin(&w, l, p.c, op_in(10 * SECOND));
        park(&w);
        put(p.peer, "x", 1);
        ck_assert_ptr_eq(next_due(l), &w);
        ASSERT_OK(step(&w));
        end(&w);
    }
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

START_TEST(readiness_wins_over_a_deadline_that_passed_meanwhile)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_unix();
    struct waiter w;

    begin(&w, l, p.c, op_in(2 * MS));
    park(&w);
    ck_assert_ptr_eq(next_due(l), &w);
    put(p.peer, "x", 1);
    ASSERT_OK(step(&w));
    end(&w);
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

START_TEST(one_socket_serves_a_reader_and_a_writer)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_small();
    struct hs_op out = op_step(10 * SECOND);
    struct hs_loop_waiter *loop_waiter;
    struct waiter w;
    uint8_t sink[4096];
    size_t n;

    (void)fill(p.c);
    begin(&w, l, p.c, op_in(10 * SECOND));
    park(&w);
    ASSERT_OK(hs_loop_waiter_new(l, &out, fresh(), &loop_waiter));
    out.loop_waiter = loop_waiter;
    ASSERT_ERR(HS_WANT, hs_conn_send(p.c, &out, (const uint8_t *)"y", 1, fresh(), &n));
    ASSERT_OK(hs_loop_waiter_park(loop_waiter, &out, fresh()));
    nothing_is_due(l);
    while (recv(p.peer, sink, sizeof(sink), MSG_DONTWAIT) > 0)
        continue;
    while (!is_readable(l, 10000))
        continue;
    hs_loop_collect(l);
    ck_assert_ptr_eq(hs_loop_next(l), &out);
    ck_assert_ptr_null(hs_loop_next(l));
    ASSERT_OK(hs_conn_send(p.c, &out, (const uint8_t *)"y", 1, fresh(), &n));
    hs_loop_waiter_free(loop_waiter);
    put(p.peer, "x", 1);
    ck_assert_ptr_eq(next_due(l), &w);
    ASSERT_OK(step(&w));
    end(&w);
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

#define CROWD 300

START_TEST(more_than_a_batch_at_once_are_all_named_once)
{
    static struct pair pairs[CROWD];
    static struct waiter w[CROWD];
    struct hs_loop *l = loop_new();
    int left = CROWD;

    for (int i = 0; i < CROWD; i++) {
        pairs[i] = pair_unix();
        begin(&w[i], l, pairs[i].c, op_in(20 * SECOND));
        park(&w[i]);
    }
    for (int i = 0; i < CROWD; i++)
        put(pairs[i].peer, "x", 1);
    while (left > 0) {
        int before = left;

        ck_assert_msg(is_readable(l, 10000), "%d are left over", left);
        hs_loop_collect(l);
        for (struct waiter *due; (due = hs_loop_next(l)) != NULL; left--) {
            due->named++;
            ASSERT_OK(step(due));
        }
        ck_assert_int_lt(left, before);
    }
    ck_assert(!is_readable(l, 0));
    for (int i = 0; i < CROWD; i++) {
        ck_assert_int_eq(w[i].named, 1);
        end(&w[i]);
        pair_free(&pairs[i]);
    }
    hs_loop_free(l);
}
END_TEST

/* ---- Trying for nothing ---------------------------------------------------------------------- */

static atomic_int tries;

ssize_t __real_recv(int fd, void *buf, size_t len, int flags);
ssize_t __wrap_recv(int fd, void *buf, size_t len, int flags);

ssize_t
__wrap_recv(int fd, void *buf, size_t len, int flags)
{
    atomic_fetch_add(&tries, 1);
    return __real_recv(fd, buf, len, flags);
}

/* A receive that has room for more than the peer ever sends here. */
struct roomy {
    struct hs_op op;
    struct hs_loop_waiter *loop_waiter;
    struct hs_conn *conn;
    uint8_t bytes[64];
    size_t n;
};

static void
roomy_begin(struct roomy *r, struct hs_loop *l, struct hs_conn *c)
{
    *r = (struct roomy){.op = op_in(30 * SECOND), .conn = c};
    r->op.stepping = true;
    ASSERT_OK(hs_loop_waiter_new(l, r, fresh(), &r->loop_waiter));
    r->op.loop_waiter = r->loop_waiter;
}

static hs_err
roomy_step(struct roomy *r)
{
    hs_loop_waiter_unpark(r->loop_waiter);
    return hs_conn_recv(r->conn, &r->op, r->bytes, sizeof(r->bytes), 0, fresh(), &r->n);
}

static void
roomy_await(struct roomy *r, struct hs_loop *l)
{
    void *due;

    ASSERT_OK(hs_loop_waiter_park(r->loop_waiter, &r->op, fresh()));
    while ((due = hs_loop_next(l)) == NULL) {
        ck_assert_msg(is_readable(l, 30000), "nothing became due");
        hs_loop_collect(l);
    }
    ck_assert_ptr_eq(due, r);
}

/* One whole receive of "x"; how many tries it took is checked if it is not negative. */
static void
roomy_receive(struct hs_loop *l, struct pair *p, int want_tries)
{
    int before = atomic_load(&tries);
    struct roomy r;

    roomy_begin(&r, l, p->c);
    ASSERT_ERR(HS_WANT, roomy_step(&r));
    put(p->peer, "x", 1);
    roomy_await(&r, l);
    ASSERT_OK(roomy_step(&r));
    ck_assert_uint_eq(1, r.n);
    hs_loop_waiter_free(r.loop_waiter);
    if (want_tries >= 0)
        ck_assert_int_eq(want_tries, atomic_load(&tries) - before);
}

static int
set_with(int fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};
    int set = epoll_create1(EPOLL_CLOEXEC);

    ck_assert_int_ge(set, 0);
    ck_assert_int_eq(0, epoll_ctl(set, EPOLL_CTL_ADD, fd, &ev));
    return set;
}

/* The others wait for the loop in a second way, so the kernel refuses a circle (ELOOP). */
START_TEST(others_that_cannot_be_taken_wait_for_the_loop_as_before)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_tcp();
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = -1};
    int inner = set_with(hs_loop_fileno(l)), others = set_with(hs_loop_fileno(l));
    struct roomy r;

    ck_assert_int_eq(0, epoll_ctl(others, EPOLL_CTL_ADD, inner, &ev));
    ASSERT_ERR(HS_E_SYSTEM, hs_loop_take_others(l, others, fresh()));
    ck_assert_int_eq(0, epoll_ctl(others, EPOLL_CTL_DEL, inner, NULL));
    roomy_begin(&r, l, p.c);
    ASSERT_ERR(HS_WANT, roomy_step(&r));
    ASSERT_OK(hs_loop_waiter_park(r.loop_waiter, &r.op, fresh()));
    put(p.peer, "x", 1);
    ck_assert_int_eq(1, epoll_wait(others, &ev, 1, 30000));
    ck_assert_int_eq(ev.data.fd, hs_loop_fileno(l));
    hs_loop_collect(l);
    ck_assert_ptr_eq(hs_loop_next(l), &r);
    ASSERT_OK(roomy_step(&r));
    hs_loop_waiter_free(r.loop_waiter);
    hs_loop_free(l);
    (void)close(inner);
    (void)close(others);
    pair_free(&p);
}
END_TEST

/* The program has closed the loop's set, and made one of its own that has the number now. */
START_TEST(a_lost_loop_takes_nothing_out_of_the_set_that_has_its_number)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_tcp();
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET};
    int number = hs_loop_fileno(l), theirs = epoll_create1(EPOLL_CLOEXEC);
    int event = eventfd(0, EFD_CLOEXEC), ms = -1;
    bool due, others;
    struct roomy r;

    roomy_begin(&r, l, p.c);
    ASSERT_ERR(HS_WANT, roomy_step(&r));
    ASSERT_OK(hs_loop_waiter_park(r.loop_waiter, &r.op, fresh()));
    ck_assert_int_eq(number, dup3(theirs, number, O_CLOEXEC));
    ck_assert_int_eq(0, epoll_ctl(theirs, EPOLL_CTL_ADD, event, &ev));
    ck_assert_int_eq(0, eventfd_write(event, 1));
    hs_loop_collect(l); /* So it finds out. */
    ck_assert(hs_loop_is_lost(l));
    ck_assert_int_eq(0, eventfd_write(event, 1)); /* An edge, told once. */
    ck_assert(hs_loop_may_sleep(l, &ms));
    ck_assert_int_eq(0, ms);
    hs_loop_sleep(l, ms);
    hs_loop_slept(l, &due, &others);
    ck_assert(due);
    ck_assert_int_eq(1, epoll_wait(theirs, &ev, 1, 0));
    ck_assert_ptr_eq(hs_loop_next(l), &r);
    ck_assert(!hs_loop_may_sleep(l, &ms));
    put(p.peer, "x", 1);
    ASSERT_OK(roomy_step(&r));
    hs_loop_waiter_free(r.loop_waiter);
    hs_loop_free(l);
    (void)close(event);
    (void)close(theirs);
    (void)close(number);
    pair_free(&p);
}
END_TEST

/* Or it would sleep for ever in a loop that another thread has ended. */
START_TEST(a_ring_ends_the_sleep)
{
    struct hs_loop *l = loop_new();
    int ms = -1;
    bool due, others;

    ck_assert(hs_loop_may_sleep(l, &ms));
    ck_assert_int_eq(-1, ms);
    hs_loop_ring(l);
    hs_loop_sleep(l, ms);
    hs_loop_slept(l, &due, &others);
    ck_assert(!due);
    ck_assert(!others);
    hs_loop_free(l);
}
END_TEST

START_TEST(what_was_emptied_is_not_tried_before_it_is_waited_for)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_tcp();

    roomy_receive(l, &p, 2);
    for (int i = 0; i < 100; i++)
        roomy_receive(l, &p, 1);
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

/* Nobody has promised of MPTCP that a short try takes all. A socket of it may be adopted, or come
 * from a listener that was; a second handle on it is no other. */
static int
mptcp_listener(struct hs_addr *ret_addr)
{
    const struct hs_addr any = addr_of("127.0.0.1:0");
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);

    if (fd < 0)
        return -1;
    ck_assert_int_eq(0, bind(fd, &any.sa, any.len));
    ck_assert_int_eq(0, listen(fd, 1));
    ret_addr->len = sizeof(ret_addr->storage);
    ck_assert_int_eq(0, getsockname(fd, &ret_addr->sa, &ret_addr->len));
    return fd;
}

static int
mptcp_connected(const struct hs_addr *to)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(0, connect(fd, &to->sa, to->len));
    return fd;
}

static void
tries_after_a_short_one(struct pair *p)
{
    struct hs_loop *l = loop_new();

    for (int i = 0; i < 5; i++)
        roomy_receive(l, p, 2);
    hs_loop_free(l);
}

START_TEST(of_mptcp_a_short_try_says_nothing)
{
    struct hs_listen_options options;
    struct hs_listener *listener;
    struct pair p, second, accepted;
    struct hs_addr addr;
    struct hs_op op;
    size_t n;
    int fd = mptcp_listener(&addr);

    if (fd < 0) {
        skipped("a socket of MPTCP", errno);
        return;
    }
    ASSERT_OK(hs_conn_adopt(mptcp_connected(&addr), NULL, fresh(), &p.c));
    p.peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    ck_assert_int_ge(p.peer, 0);
    tries_after_a_short_one(&p);
    second.peer = p.peer;
    ASSERT_OK(hs_conn_dup(p.c, fresh(), &second.c));
    tries_after_a_short_one(&second);
    hs_conn_unref(second.c);
    pair_free(&p);
    hs_listen_options_init(&options);
    ASSERT_OK(hs_listener_adopt(fd, &options, fresh(), &listener));
    accepted.peer = mptcp_connected(&addr);
    op = op_in(30 * SECOND);
    ASSERT_OK(hs_listener_accept(listener, &op, 1, fresh(), &accepted.c, &n));
    tries_after_a_short_one(&accepted);
    pair_free(&accepted);
    hs_listener_unref(listener);
}
END_TEST

START_TEST(what_came_while_nobody_waited_is_tried_for)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_tcp();
    struct roomy r;

    roomy_receive(l, &p, -1);
    put(p.peer, "y", 1);
    while (!is_readable(l, 1000))
        continue;
    nothing_is_due(l); /* The loop has heard of it, and nobody else. */
    roomy_begin(&r, l, p.c);
    ASSERT_OK(roomy_step(&r));
    ck_assert_uint_eq(1, r.n);
    hs_loop_waiter_free(r.loop_waiter);
    roomy_receive(l, &p, -1);
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

START_TEST(an_end_that_came_with_the_last_bytes_is_found)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_tcp();
    struct roomy r;
    struct pollfd ended = {.events = POLLRDHUP};

    roomy_receive(l, &p, -1);
    roomy_begin(&r, l, p.c);
    ASSERT_ERR(HS_WANT, roomy_step(&r));
    put(p.peer, "z", 1);
    ck_assert_int_eq(0, shutdown(p.peer, SHUT_WR));
    ended.fd = hs_conn_fileno(p.c);
    ck_assert_int_eq(1, poll(&ended, 1, 30000));
    roomy_await(&r, l);
    ASSERT_OK(roomy_step(&r));
    ck_assert_uint_eq(1, r.n);
    hs_loop_waiter_free(r.loop_waiter);

    roomy_begin(&r, l, p.c);
    ASSERT_OK(roomy_step(&r));
    ck_assert_uint_eq(0, r.n);
    hs_loop_waiter_free(r.loop_waiter);
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

/* A try stops before the urgent byte, however much room it has. */
START_TEST(what_is_behind_urgent_data_is_found)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_tcp();
    struct roomy r;
    size_t got = 0;

    roomy_receive(l, &p, -1);
    put(p.peer, "before", 6);
    ck_assert_int_eq(1, (int)send(p.peer, "!", 1, MSG_OOB));
    put(p.peer, "behind", 6);
    while (got < 12) {
        roomy_begin(&r, l, p.c);
        if (roomy_step(&r) == HS_WANT) {
            roomy_await(&r, l);
            ASSERT_OK(roomy_step(&r));
        }
        got += r.n;
        hs_loop_waiter_free(r.loop_waiter);
    }
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

/* ---- Being woken --------------------------------------------------------------------------- */

enum moment { BEFORE_PARKING, PARKED, COLLECTED, UNPARKED, MOMENTS };

START_TEST(a_cancel_is_found_whenever_it_comes)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_unix();

    for (int moment = 0; moment < MOMENTS; moment++)
        for (int with_bytes = 0; with_bytes < 2; with_bytes++) {
            struct hs_token *t = token(HS_NEVER);
            struct waiter w;
            uint8_t byte;

            begin(&w, l, p.c, op_with(t));
            if (moment == BEFORE_PARKING)
                ck_assert(hs_token_cancel(t, NULL, 0, NULL));
            park(&w);
            if (moment == PARKED)
                ck_assert(hs_token_cancel(t, NULL, 0, NULL));
            if (with_bytes)
                put(p.peer, "x", 1);
            hs_loop_collect(l);
            if (moment == COLLECTED)
                ck_assert(hs_token_cancel(t, NULL, 0, NULL));
            if (moment == UNPARKED) {
                hs_loop_waiter_unpark(w.loop_waiter);
                ck_assert(hs_token_cancel(t, NULL, 0, NULL));
                nothing_is_due(l);
            } else {
                ck_assert_ptr_eq(next_due(l), &w);
            }
            ASSERT_ERR(HS_E_CANCELLED, step(&w));
            nothing_is_due(l);
            end(&w);
            hs_token_unref(t);
            if (with_bytes) /* not lost by the cancel */
                get(hs_conn_fileno(p.c), &byte, 1);
        }
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

START_TEST(closing_and_moved_deadlines_ring)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_unix();
    struct waiter w;

    begin(&w, l, p.c, op_in(HS_NEVER));
    park(&w);
    hs_conn_set_deadline(p.c, HS_DIR_IN, hs_deadline_after(60 * SECOND));
    ck_assert_ptr_eq(next_due(l), &w);
    ASSERT_ERR(HS_WANT, step(&w));
    park(&w);
    hs_conn_set_deadline(p.c, HS_DIR_IN, 1);
    ck_assert_ptr_eq(next_due(l), &w);
    ASSERT_ERR(HS_E_DEADLINE, step(&w));
    end(&w);
    hs_conn_set_deadline(p.c, HS_DIR_IN, HS_NEVER);
    begin(&w, l, p.c, op_in(HS_NEVER));
    park(&w);
    hs_conn_close(p.c, false);
    ck_assert_ptr_eq(next_due(l), &w);
    ASSERT_ERR(HS_E_CLOSED, step(&w));
    end(&w);
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

START_TEST(a_token_is_awaited)
{
    struct hs_loop *l = loop_new();
    struct hs_token *t = token(HS_NEVER);
    struct hs_op op = op_step(HS_NEVER);
    struct hs_loop_waiter *loop_waiter;

    ASSERT_OK(hs_loop_waiter_new(l, &op, fresh(), &loop_waiter));
    op.token = t;
    op.loop_waiter = loop_waiter;
    ASSERT_ERR(HS_WANT, hs_token_await(&op, fresh()));
    ASSERT_OK(hs_loop_waiter_park(loop_waiter, &op, fresh()));
    nothing_is_due(l);
    ck_assert(hs_token_cancel(t, NULL, 0, NULL));
    ck_assert(is_readable(l, 10000));
    hs_loop_collect(l);
    ck_assert_ptr_eq(hs_loop_next(l), &op);
    ASSERT_OK(hs_token_await(&op, fresh()));
    hs_loop_waiter_free(loop_waiter);
    hs_token_unref(t);
    hs_loop_free(l);
}
END_TEST

enum news { CLOSING, CANCELLING, DEADLINE_OF_DIRECTION, DEADLINE_OF_TOKEN, NEWS };

struct teller {
    enum news news;
    struct hs_conn *c;
    struct hs_token *token;
};

static void *
tell(void *arg)
{
    struct teller *t = arg;

    switch (t->news) {
    case CLOSING:
        hs_conn_close(t->c, false);
        break;
    case CANCELLING:
        (void)hs_token_cancel(t->token, NULL, 0, NULL);
        break;
    case DEADLINE_OF_DIRECTION:
        hs_conn_set_deadline(t->c, HS_DIR_IN, 1);
        break;
    case DEADLINE_OF_TOKEN:
        ASSERT_OK(hs_token_set_deadline(t->token, hs_now()));
        break;
    case NEWS:
        break;
    }
    return NULL;
}

static hs_err
verdict(enum news news)
{
    return news == CLOSING ? HS_E_CLOSED : news == CANCELLING ? HS_E_CANCELLED : HS_E_DEADLINE;
}

START_TEST(news_from_other_threads_make_it_due)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_unix();
    struct teller t = {.news = (enum news)_i, .c = p.c, .token = token(HS_NEVER)};
    struct thread thread;
    struct waiter w;

    begin(&w, l, p.c, op_with(t.token));
    park(&w);
    nothing_is_due(l);
    thread_start(&thread, tell, &t);
    ck_assert_ptr_eq(next_due(l), &w);
    (void)thread_join(&thread);
    ASSERT_ERR(verdict(t.news), step(&w));
    end(&w);
    hs_token_unref(t.token);
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

/* The other thread rings at every moment of a waiter's life: none is missed, none comes late. */
START_TEST(ringing_races_with_parking_and_leaving)
{
    struct hs_loop *l = loop_new();

    for (int i = 0; i < 3000; i++) {
        struct pair p = pair_unix();
        struct teller t = {.news = (enum news)(i % NEWS), .c = p.c, .token = token(HS_NEVER)};
        struct thread thread;
        struct waiter w;

        begin(&w, l, p.c, op_with(t.token));
        thread_start(&thread, tell, &t);
        while (step(&w) == HS_WANT) {
            park(&w);
            if (i % 3 == 0)
                break;
            ck_assert_ptr_eq(next_due(l), &w);
        }
        if (i % 3 != 0)
            ASSERT_ERR(verdict(t.news), w.rv);
        end(&w);
        nothing_is_due(l);
        (void)thread_join(&thread);
        hs_token_unref(t.token);
        pair_free(&p);
    }
    hs_loop_free(l);
}
END_TEST

/* It was looked at before the waiting list was joined, or after: never in between. */
START_TEST(an_op_that_ends_by_itself_may_still_listen_until_it_is_unparked)
{
    struct hs_loop *l = loop_new();
    struct hs_token *t = token(hs_deadline_after(300 * MS));
    struct pair p = pair_unix();
    struct waiter w;

    begin(&w, l, p.c, op_with(t));
    park(&w);
    ck_assert_ptr_eq(next_due(l), &w);
    ASSERT_ERR(HS_E_DEADLINE, step(&w));
    end(&w);
    hs_token_unref(t); /* asserts that nobody listens */
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

struct canceller {
    _Atomic(struct hs_token *) next;
    struct hs_conn *conn;
    atomic_bool stop;
    int rounds;
};

static void *
cancel_all(void *arg)
{
    struct canceller *c = arg;

    while (!c->stop) {
        struct hs_token *t = atomic_exchange(&c->next, NULL);

        if (t == NULL)
            continue;
        (void)hs_token_cancel(t, "from outside", 0, NULL);
        hs_token_unref(t);
    }
    return NULL;
}

static void *
move_deadlines(void *arg)
{
    struct canceller *c = arg;

    while (!c->stop)
        hs_conn_set_deadline(c->conn, HS_DIR_IN, hs_deadline_after(60 * SECOND));
    return NULL;
}

/* Waits until the token is found cancelled, being woken for nothing all the time; every third gives
 * up while it may be being woken. */
static void
wait_for_cancel(struct hs_loop *l, struct canceller *c, int round)
{
    struct hs_token *t = token(HS_NEVER);
    struct waiter w;

    begin(&w, l, c->conn, op_with(t));
    atomic_store(&c->next, hs_token_ref(t));
    while (w.rv == HS_WANT) {
        park(&w);
        if (round % 3 == 0)
            break;
        ck_assert_ptr_eq(next_due(l), &w);
        (void)step(&w);
    }
    if (round % 3 != 0)
        ASSERT_ERR(HS_E_CANCELLED, w.rv);
    end(&w);
    while (atomic_load(&c->next) != NULL)
        continue;
    hs_token_unref(t);
}

START_TEST(no_ring_from_another_thread_is_lost_and_none_comes_too_late)
{
    struct pair p = pair_unix();
    struct canceller c = {.conn = p.c};
    struct thread cancelling, moving;
    struct hs_loop *l = loop_new();
    int64_t until = hs_now() + 8 * SECOND; /* A busy machine has fewer rounds. */

    thread_start(&cancelling, cancel_all, &c);
    thread_start(&moving, move_deadlines, &c);
    for (int i = 0; i < 1500 && (i < 100 || hs_now() < until); i++) {
        wait_for_cancel(l, &c, i);
        if (i % 50 == 0) { /* Its waker may be being written. */
            hs_loop_free(l);
            l = loop_new();
        }
    }
    c.stop = true;
    (void)thread_join(&cancelling);
    (void)thread_join(&moving);
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

/* Two lists are woken at once; both have a waiter of the loop, and somebody else. */
struct crossing {
    struct hs_loop *loop;
    struct hs_wakelist other;
    int fd;
};

/* The loop's thread, and then another one, while the first list is being worked off. */
static void *
look_and_wake_the_other(void *arg)
{
    struct crossing *x = arg;

    hs_loop_forget(x->loop, x->fd);
    hs_loop_collect(x->loop);
    hs_wakelist_wake(&x->other);
    return NULL;
}

static void
on_wake_cross(void *arg)
{
    struct thread t;

    thread_start(&t, look_and_wake_the_other, arg);
    thread_join(&t);
}

static void
ignore(void *arg)
{
    (void)arg;
}

START_TEST(a_loop_that_rings_itself_while_others_are_about_to_mixes_up_nobodys_chain)
{
    struct crossing x = {.loop = loop_new()};
    struct hs_op op = op_step(10 * SECOND);
    struct hs_waker *one = hs_waker_new(), *two = hs_waker_new();
    struct hs_loop_waiter *here, *there;
    struct hs_wakenode of_one, of_two;
    struct pair p = pair_unix();
    struct hs_wakelist list;

    x.fd = op.want_fd = hs_conn_fileno(p.c);
    op.want_events = POLLIN;
    op.want_at_ns = HS_NEVER;
    hs_wakelist_init(&list);
    hs_wakelist_init(&x.other);
    atomic_fetch_add(&two->refs, 1); /* So that one too few frees nothing. */
    ASSERT_OK(hs_loop_waiter_new(x.loop, &here, fresh(), &here));
    ASSERT_OK(hs_loop_waiter_new(x.loop, &there, fresh(), &there));
    hs_loop_waiter_listen(here, HS_LISTEN_OWNER, &list);
    hs_wakelist_join_for(&list, &of_one, one, on_wake_cross, &x);
    hs_wakelist_join_for(&x.other, &of_two, two, ignore, NULL);
    hs_loop_waiter_listen(there, HS_LISTEN_OWNER, &x.other);
    ASSERT_OK(hs_loop_waiter_park(here, &op, fresh()));
    hs_wakelist_wake(&list);
    ck_assert_int_eq(atomic_load(&one->refs), 1);
    ck_assert_int_eq(atomic_load(&two->refs), 2);
    hs_loop_waiter_free(here);
    hs_loop_waiter_free(there);
    hs_wakelist_leave(&list, &of_one);
    hs_wakelist_leave(&x.other, &of_two);
    hs_wakelist_fini(&list);
    hs_wakelist_fini(&x.other);
    hs_waker_unref(one);
    hs_waker_unref(two);
    hs_waker_unref(two);
    hs_loop_free(x.loop);
    pair_free(&p);
}
END_TEST

/* ---- Times --------------------------------------------------------------------------------- */

START_TEST(times_come_earliest_first)
{
    static const int64_t spans[] = {30, 10, 50, 20, 40};
    static const int order[] = {1, 3, 0, 4, 2};
    struct hs_loop *l = loop_new();
    struct pair pairs[LENGTH(spans)];
    struct waiter w[LENGTH(spans)];
    struct hs_op op = op_in(HS_NEVER);
    int64_t start = hs_now();

    for (size_t i = 0; i < LENGTH(spans); i++) {
        pairs[i] = pair_unix();
        op.deadline_ns = start + spans[i] * MS;
        begin(&w[i], l, pairs[i].c, op);
        park(&w[i]);
    }
    for (size_t i = 0; i < LENGTH(spans); i++) {
        ck_assert_ptr_eq(next_due(l), &w[order[i]]);
        ck_assert_int_ge(hs_now(), w[order[i]].op.deadline_ns);
        ASSERT_ERR(HS_E_DEADLINE, step(&w[order[i]]));
    }
    for (size_t i = 0; i < LENGTH(spans); i++) {
        end(&w[i]);
        pair_free(&pairs[i]);
    }
    hs_loop_free(l);
}
END_TEST

START_TEST(a_time_that_left_disturbs_nobody)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_unix(), q = pair_unix();
    struct waiter soon, late;

    begin(&late, l, q.c, op_in(40 * MS));
    begin(&soon, l, p.c, op_in(5 * MS));
    park(&late);
    park(&soon);
    hs_loop_waiter_unpark(soon.loop_waiter);
    ck_assert_ptr_eq(next_due(l), &late);
    ck_assert_int_ge(hs_now(), late.op.deadline_ns);
    ASSERT_ERR(HS_E_DEADLINE, step(&late));
    end(&soon);
    end(&late);
    hs_loop_free(l);
    pair_free(&p);
    pair_free(&q);
}
END_TEST

START_TEST(a_tokens_deadline_may_move_both_ways)
{
    struct hs_token *t = token(hs_deadline_after(300 * MS));
    struct hs_loop *l = loop_new();
    struct pair p = pair_unix();
    struct waiter w;

    begin(&w, l, p.c, op_with(t));
    park(&w);
    ASSERT_OK(hs_token_set_deadline(t, hs_deadline_after(60 * SECOND)));
    ck_assert_ptr_eq(next_due(l), &w);
    ASSERT_ERR(HS_WANT, step(&w));
    park(&w);
    ck_assert(is_readable(l, 10000)); /* The timer was set to the former time. */
    nothing_is_due(l);
    ck_assert(!is_readable(l, 0));
    ASSERT_OK(hs_token_set_deadline(t, hs_deadline_after(5 * MS)));
    ck_assert_ptr_eq(next_due(l), &w);
    if (step(&w) == HS_WANT) { /* Rung before the time was there. */
        park(&w);
        ck_assert_ptr_eq(next_due(l), &w);
        (void)step(&w);
    }
    ASSERT_ERR(HS_E_DEADLINE, w.rv);
    end(&w);
    hs_token_unref(t);
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

START_TEST(a_past_time_is_due_at_once)
{
    struct hs_loop *l = loop_new();
    struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);
    struct hs_loop_waiter *loop_waiter;

    ASSERT_OK(hs_loop_waiter_new(l, &op, fresh(), &loop_waiter));
    for (int64_t at = -1; at <= 1; at++) {
        op.want_at_ns = at;
        ASSERT_OK(hs_loop_waiter_park(loop_waiter, &op, fresh()));
        ck_assert(is_readable(l, 10000));
        hs_loop_collect(l);
        ck_assert_ptr_eq(hs_loop_next(l), &op);
    }
    hs_loop_waiter_free(loop_waiter);
    hs_loop_free(l);
}
END_TEST

#define TIMES 400

/* Parks and unparks at random: what stays is named once, in the order of its time. */
START_TEST(a_crowd_of_times_keeps_its_order)
{
    static struct hs_op ops[TIMES];
    static struct hs_loop_waiter *loop_waiters[TIMES];
    static int named[TIMES];
    struct hs_loop *l = loop_new();
    int64_t began = hs_now(), last = 0;
    unsigned seed = 1;
    int parked = 0;

    for (int i = 0; i < TIMES; i++) {
        ops[i] = (struct hs_op)HS_OP_INIT(HS_NEVER, NULL);
        ops[i].want_at_ns = began + (int64_t)(rand_r(&seed) % 30) * MS;
        ASSERT_OK(hs_loop_waiter_new(l, &ops[i], fresh(), &loop_waiters[i]));
        ASSERT_OK(hs_loop_waiter_park(loop_waiters[i], &ops[i], fresh()));
        if (rand_r(&seed) % 3 == 0)
            hs_loop_waiter_unpark(loop_waiters[rand_r(&seed) % (unsigned)(i + 1)]);
    }
    for (int i = 0; i < TIMES; i++)
        hs_loop_waiter_unpark(loop_waiters[i]);
    for (int i = 0; i < TIMES; i += 1 + (int)(rand_r(&seed) % 2), parked++)
        ASSERT_OK(hs_loop_waiter_park(loop_waiters[i], &ops[i], fresh()));
    while (parked > 0) {
        struct hs_op *op;

        ck_assert(is_readable(l, 10000));
        hs_loop_collect(l);
        while ((op = hs_loop_next(l)) != NULL) {
            ck_assert_int_ge(op->want_at_ns, last);
            last = op->want_at_ns;
            ck_assert_int_eq(named[op - ops]++, 0);
            parked--;
        }
    }
    for (int i = 0; i < TIMES; i++)
        hs_loop_waiter_free(loop_waiters[i]);
    hs_loop_free(l);
}
END_TEST

/* As a reactor's descriptor has none: whose it is is not known, but the kernel knows that it is the
 * same file. */
START_TEST(two_that_wait_for_one_descriptor_without_a_name_leave_each_other_alone)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_unix(), q = pair_unix();
    struct waiter w, other, *first, *second;

    begin(&w, l, p.c, op_in(10 * SECOND));
    begin(&other, l, q.c, op_in(10 * SECOND));
    other.op.want_fd = w.op.want_fd;
    other.op.want_id = w.op.want_id = 0;
    for (int i = 0; i < 3; i++) {
        hs_loop_waiter_unpark(w.loop_waiter);
        park(&w);
        nothing_is_due(l);
        hs_loop_waiter_unpark(other.loop_waiter);
        park(&other);
        nothing_is_due(l);
    }
    put(p.peer, "x", 1);
    first = next_due(l);
    hs_loop_waiter_unpark(first->loop_waiter);
    second = next_due(l);
    hs_loop_waiter_unpark(second->loop_waiter);
    ck_assert(first != second);
    end(&w);
    end(&other);
    hs_loop_free(l);
    pair_free(&p);
    pair_free(&q);
}
END_TEST

/* ---- Numbers that come back ---------------------------------------------------------------- */

/* A listener's waiting op holds nothing: its number is free at once. */
static struct hs_listener *
begin_accept(struct waiter *w, struct hs_loop *l)
{
    struct hs_listen_options options;
    struct hs_endpoint ep;

    hs_listen_options_init(&options);
    *w = (struct waiter){.op = op_in(10 * SECOND)};
    ASSERT_OK(hs_endpoint_parse("127.0.0.1:0", 11, fresh(), &ep));
    ASSERT_OK(hs_listener_open(&ep, &options, fresh(), &w->listener));
    set_up(w, l);
    ASSERT_ERR(HS_WANT, step(w));
    return w->listener;
}

START_TEST(accepting_is_stepped_and_ended_by_closing)
{
    struct hs_loop *l = loop_new();
    struct waiter w;
    struct hs_listener *listener = begin_accept(&w, l);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct hs_addr addr;

    ASSERT_OK(hs_listener_addr(listener, fresh(), &addr));
    park(&w);
    nothing_is_due(l);
    ck_assert_int_eq(connect(client, &addr.sa, addr.len), 0);
    ck_assert_ptr_eq(next_due(l), &w);
    ASSERT_OK(step(&w));
    hs_conn_unref(w.conn);
    w.conn = NULL;
    w.op = op_step(10 * SECOND);
    w.op.loop_waiter = w.loop_waiter;
    ASSERT_ERR(HS_WANT, step(&w));
    park(&w);
    hs_listener_close(listener);
    ck_assert_ptr_eq(next_due(l), &w);
    ASSERT_ERR(HS_E_CLOSED, step(&w));
    end(&w);
    hs_listener_unref(listener);
    (void)close(client);
    hs_loop_free(l);
}
END_TEST

START_TEST(a_number_that_comes_back_makes_its_former_waiter_due)
{
    struct hs_loop *l = loop_new();
    struct waiter accepting, reading;
    struct hs_listener *listener = begin_accept(&accepting, l);
    int number = hs_listener_fileno(listener);
    struct pair p;

    park(&accepting);
    hs_listener_close(listener);
    p = pair_unix();
    ck_assert_int_eq(hs_conn_fileno(p.c), number);
    begin(&reading, l, p.c, op_in(10 * SECOND));
    park(&reading);
    ck_assert_ptr_eq(next_due(l), &accepting);
    ASSERT_ERR(HS_E_CLOSED, step(&accepting));
    nothing_is_due(l);
    put(p.peer, "x", 1);
    ck_assert_ptr_eq(next_due(l), &reading);
    ASSERT_OK(step(&reading));
    end(&accepting);
    end(&reading);
    hs_listener_unref(listener);
    hs_loop_free(l);
    pair_free(&p);
}
END_TEST

START_TEST(a_listener_closed_between_step_and_parking_is_found_closed)
{
    struct hs_loop *l = loop_new();

    for (int taken = 0; taken < 2; taken++) {
        struct waiter w;
        struct hs_listener *listener = begin_accept(&w, l);
        int number = hs_listener_fileno(listener), file = -1;

        hs_listener_close(listener);
        if (taken) /* by something that cannot be watched */
            ck_assert_int_eq(file = open("/dev/null", O_RDONLY | O_CLOEXEC), number);
        park(&w);
        ck_assert_ptr_eq(next_due(l), &w);
        ASSERT_ERR(HS_E_CLOSED, step(&w));
        end(&w);
        hs_listener_unref(listener);
        if (taken)
            (void)close(file);
    }
    hs_loop_free(l);
}
END_TEST

START_TEST(events_of_a_former_owner_are_dropped)
{
    struct hs_loop *l = loop_new();
    struct pair p = pair_unix(), q;
    int number = hs_conn_fileno(p.c), copy = dup(number), old_peer = p.peer;
    struct waiter w;

    begin(&w, l, p.c, op_in(10 * SECOND));
    park(&w);
    hs_conn_close(p.c, false);
    ck_assert_ptr_eq(next_due(l), &w);
    ASSERT_ERR(HS_E_CLOSED, step(&w));
    end(&w);
    q = pair_unix();
    ck_assert_int_eq(hs_conn_fileno(q.c), number);
    begin(&w, l, q.c, op_in(10 * SECOND));
    park(&w);
    put(old_peer, "stale", 5);
    ck_assert(is_readable(l, 10000)); /* The copy keeps the old one in the set. */
    nothing_is_due(l);
    put(q.peer, "x", 1);
    ck_assert_ptr_eq(next_due(l), &w);
    ASSERT_OK(step(&w));
    ck_assert_int_eq(w.byte, 'x');
    end(&w);
    (void)close(copy);
    hs_loop_free(l);
    pair_free(&p);
    pair_free(&q);
}
END_TEST

START_TEST(forgetting_a_number_makes_its_waiters_due_and_stops_its_events)
{
    struct hs_loop *l = loop_new();
    struct waiter w;
    struct hs_listener *listener = begin_accept(&w, l);
    struct hs_addr addr;
    int fd, client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ASSERT_OK(hs_listener_addr(listener, fresh(), &addr));
    park(&w);
    ASSERT_OK(hs_listener_detach(listener, fresh(), &fd));
    hs_loop_forget(l, fd);
    ck_assert_ptr_eq(next_due(l), &w);
    ASSERT_ERR(HS_E_CLOSED, step(&w));
    nothing_is_due(l);
    ck_assert_int_eq(connect(client, &addr.sa, addr.len), 0);
    ck_assert(!is_readable(l, 0));
    hs_loop_forget(l, fd);
    hs_loop_forget(l, -1);
    hs_loop_forget(l, 1 << 20);
    end(&w);
    (void)close(client);
    (void)close(fd);
    hs_listener_unref(listener);
    hs_loop_free(l);
}
END_TEST

START_TEST(detaching_a_listener_wakes_who_accepts_in_any_loop)
{
    struct hs_loop *l = loop_new();
    struct waiter w;
    struct hs_listener *listener = begin_accept(&w, l);
    int fd;

    park(&w);
    ASSERT_OK(hs_listener_detach(listener, fresh(), &fd));
    ck_assert_ptr_eq(next_due(l), &w);
    ASSERT_ERR(HS_E_CLOSED, step(&w));
    end(&w);
    (void)close(fd);
    hs_listener_unref(listener);
    hs_loop_free(l);
}
END_TEST

START_TEST(one_connection_may_be_watched_by_two_loops)
{
    struct hs_loop *l = loop_new(), *m = loop_new();
    struct pair p = pair_unix();
    struct waiter w;

    for (int i = 0; i < 4; i++) {
        struct hs_loop *turn = i % 2 == 0 ? l : m;

        begin(&w, turn, p.c, op_in(10 * SECOND));
        park(&w);
        put(p.peer, "x", 1);
        ck_assert_ptr_eq(next_due(turn), &w);
        ASSERT_OK(step(&w));
        end(&w);
    }
    hs_loop_free(l);
    hs_loop_free(m);
    pair_free(&p);
}
END_TEST

/* ---- Forks --------------------------------------------------------------------------------- */

struct family {
    struct hs_loop *loop;
    struct waiter w;
    bool close_first;
};

static int
use_and_free(void *arg)
{
    struct family *f = arg;
    hs_err parked;

    hs_loop_collect(f->loop);
    if (hs_loop_next(f->loop) != NULL)
        return 2;
    parked = hs_loop_waiter_park(f->w.loop_waiter, &f->w.op, NULL);
    if (parked != HS_E_FORKED)
        return 3;
    hs_loop_forget(f->loop, hs_conn_fileno(f->w.conn));
    if (f->close_first)
        hs_conn_close(f->w.conn, true);
    else if (step(&f->w) != HS_E_FORKED)
        return 4;
    end(&f->w);
    hs_conn_close(f->w.conn, false);
    hs_conn_unref(f->w.conn);
    hs_loop_free(f->loop);
    return 0;
}

START_TEST(a_forked_child_can_only_free)
{
    struct family f = {.loop = loop_new()};
    struct pair p = pair_unix();

    for (int i = 0; i < 4; i++) {
        f.close_first = i % 2 == 0;
        begin(&f.w, f.loop, p.c, op_in(10 * SECOND));
        park(&f.w);
        if (i >= 2)
            put(p.peer, "x", 1); /* There is something that the child could take. */
        ck_assert_int_eq(in_child(use_and_free, &f), 0);
        if (i < 2)
            put(p.peer, "x", 1);
        ck_assert_ptr_eq(next_due(f.loop), &f.w);
        ASSERT_OK(step(&f.w));
        end(&f.w);
    }
    hs_loop_free(f.loop);
    pair_free(&p);
}
END_TEST

static int
free_loop(void *arg)
{
    struct family *f = arg;

    end(&f->w);
    hs_loop_free(f->loop);
    return 0;
}

/* The lock of the loop may be a dead thread's in the child. */
START_TEST(a_child_forked_while_others_ring_frees_the_loop)
{
    struct pair p = pair_unix();
    struct canceller c = {.conn = p.c};
    struct family f = {.loop = loop_new()};
    struct thread moving;

    thread_start(&moving, move_deadlines, &c);
    begin(&f.w, f.loop, p.c, op_in(600 * SECOND)); /* The time of all the forks. */
    for (int i = 0; i < 100; i++) {
        park(&f.w);
        ck_assert_int_eq(in_child(free_loop, &f), 0);
        ASSERT_ERR(HS_WANT, step(&f.w));
    }
    c.stop = true;
    (void)thread_join(&moving);
    end(&f.w);
    hs_loop_free(f.loop);
    pair_free(&p);
}
END_TEST

START_TEST(freeing_a_loop_before_its_waiters_ends_the_process)
{
    struct hs_loop *l = loop_new();
    struct hs_loop_waiter *loop_waiter;

    ASSERT_OK(hs_loop_waiter_new(l, NULL, fresh(), &loop_waiter));
    hs_loop_free(l);
}
END_TEST

START_TEST(nothing_is_fine)
{
    hs_loop_free(NULL);
    hs_loop_waiter_free(NULL);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("loop");

    tcase_add_test(tc, bytes_make_the_waiting_op_due_and_no_other);
    tcase_add_test(tc, bytes_between_the_step_and_the_parking_count);
    tcase_add_test(tc, an_edge_that_nobody_waited_for_is_found_by_the_next_try);
    tcase_add_test(tc, others_that_cannot_be_taken_wait_for_the_loop_as_before);
    tcase_add_test(tc, a_lost_loop_takes_nothing_out_of_the_set_that_has_its_number);
    tcase_add_test(tc, a_ring_ends_the_sleep);
    tcase_add_test(tc, what_was_emptied_is_not_tried_before_it_is_waited_for);
    tcase_add_test(tc, of_mptcp_a_short_try_says_nothing);
    tcase_add_test(tc, what_came_while_nobody_waited_is_tried_for);
    tcase_add_test(tc, an_end_that_came_with_the_last_bytes_is_found);
    tcase_add_test(tc, what_is_behind_urgent_data_is_found);
    tcase_add_test(tc, a_socket_is_entered_once_and_serves_for_ever);
    tcase_add_test(tc, readiness_wins_over_a_deadline_that_passed_meanwhile);
    tcase_add_test(tc, one_socket_serves_a_reader_and_a_writer);
    tcase_add_test(tc, more_than_a_batch_at_once_are_all_named_once);
    tcase_add_test(tc, a_cancel_is_found_whenever_it_comes);
    tcase_add_test(tc, closing_and_moved_deadlines_ring);
    tcase_add_test(tc, a_token_is_awaited);
    tcase_add_loop_test(tc, news_from_other_threads_make_it_due, 0, NEWS);
    tcase_add_test(tc, ringing_races_with_parking_and_leaving);
    tcase_add_test(tc, an_op_that_ends_by_itself_may_still_listen_until_it_is_unparked);
    tcase_add_test(tc, no_ring_from_another_thread_is_lost_and_none_comes_too_late);
    tcase_add_test(tc, a_loop_that_rings_itself_while_others_are_about_to_mixes_up_nobodys_chain);
    tcase_add_test(tc, times_come_earliest_first);
    tcase_add_test(tc, a_time_that_left_disturbs_nobody);
    tcase_add_test(tc, a_tokens_deadline_may_move_both_ways);
    tcase_add_test(tc, a_past_time_is_due_at_once);
    tcase_add_test(tc, a_crowd_of_times_keeps_its_order);
    tcase_add_test(tc, accepting_is_stepped_and_ended_by_closing);
    tcase_add_test(tc, two_that_wait_for_one_descriptor_without_a_name_leave_each_other_alone);
    tcase_add_test(tc, a_number_that_comes_back_makes_its_former_waiter_due);
    tcase_add_test(tc, a_listener_closed_between_step_and_parking_is_found_closed);
    tcase_add_test(tc, events_of_a_former_owner_are_dropped);
    tcase_add_test(tc, forgetting_a_number_makes_its_waiters_due_and_stops_its_events);
    tcase_add_test(tc, detaching_a_listener_wakes_who_accepts_in_any_loop);
    tcase_add_test(tc, one_connection_may_be_watched_by_two_loops);
    tcase_add_test(tc, a_forked_child_can_only_free);
    tcase_add_test(tc, a_child_forked_while_others_ring_frees_the_loop);
    tcase_add_test_raise_signal(tc, freeing_a_loop_before_its_waiters_ends_the_process, SIGABRT);
    tcase_add_test(tc, nothing_is_fine);
    return run_case(tc);
}
