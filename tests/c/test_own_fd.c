/* test_own_fd.c: a program that closes descriptors of the library's own, and opens others that get
 * their numbers.
 *
 * The strangers are ends of socket pairs with bytes that nobody has read yet: always ready, so that
 * who believes that they are its own goes round; and afterwards it shows whether one byte was read,
 * written, or one was closed. Or they are epoll sets that say what no set of ours says.
 */
#include "pool_support.h"

#include "../../csrc/base/own_fd.h"
#include "../../csrc/cancel/loop.h"
#include "../../csrc/cancel/reactor.h"
#include "../../csrc/cancel/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define UNREAD "sixteen bytes..."
#define MOST 64

struct strangers {
    int fds[MOST], others[MOST];
    int n;
};

/* Another thread may be about to use that number: unseen by TSan, for this race is meant. */
static void
take_number(int number, struct strangers *s)
{
    int pair[2];

    ck_assert_int_lt(s->n, MOST);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    ck_assert_int_eq(write(pair[1], UNREAD, sizeof(UNREAD)), sizeof(UNREAD));
    ck_assert_int_eq((int)syscall(SYS_dup3, pair[0], number, O_CLOEXEC), number);
    (void)close(pair[0]);
    s->fds[s->n] = number;
    s->others[s->n++] = pair[1];
}

static void
take_numbers_of(const char *kind, struct strangers *s)
{
    int fds[MOST], n = fds_of_kind(kind, fds, MOST);

    ck_assert_int_gt(n, 0);
    for (int i = 0; i < n; i++)
        take_number(fds[i], s);
}

static void
take_all_numbers(struct strangers *s)
{
    take_numbers_of("eventpoll", s);
    take_numbers_of("eventfd", s);
    take_numbers_of("timerfd", s);
}

static void
untouched(struct strangers *s)
{
    char bytes[64];

    for (int i = 0; i < s->n; i++) {
        ck_assert_int_eq(recv(s->fds[i], bytes, sizeof(bytes), MSG_DONTWAIT), sizeof(UNREAD));
        ck_assert_int_eq(recv(s->others[i], bytes, sizeof(bytes), MSG_DONTWAIT), -1);
        ck_assert_int_eq(errno, EAGAIN);
        ck_assert_int_eq(close(s->fds[i]) + close(s->others[i]), 0);
    }
    s->n = 0;
}

/* This thread's own waker was among them: the first wait finds out, the second one gets another. */
static void
hear_again(void)
{
    short revents;

    for (int i = 0; i < 2; i++)
        (void)!hs_wait(-1, 0, NULL, hs_deadline_after(MS), fresh(), &revents);
}

/* ---- The question -------------------------------------------------------------------------- */

START_TEST(a_descriptor_is_known_from_all_others_of_its_number)
{
    struct hs_own_fd fd, none = HS_OWN_FD_NONE;
    struct strangers s = {0};
    int other, number;

    errno = EMFILE;
    ck_assert(!hs_own_fd_open(&fd, -1));
    ck_assert_int_eq(errno, EMFILE);
    ck_assert(hs_own_fd_open(&fd, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)));
    ck_assert(hs_own_fd_is_there(&fd));
    ck_assert(hs_own_fd_ring(&fd));
    ck_assert(hs_own_fd_drain(&fd));
    ck_assert_int_ge(other = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), 0);
    number = fd.number;
    ck_assert_int_eq(dup3(other, number, O_CLOEXEC), number);
    ck_assert(!hs_own_fd_is_there(&fd));
    take_number(number, &s);
    ck_assert(!hs_own_fd_ring(&fd) && !hs_own_fd_drain(&fd));
    hs_own_fd_close(&fd);
    ck_assert_int_eq(fd.number, -1);
    untouched(&s);
    fd = (struct hs_own_fd){number, 1};
    ck_assert(!hs_own_fd_is_there(&fd) && !hs_own_fd_is_there(&none));
    (void)close(other);
}
END_TEST

/* ---- Threads ------------------------------------------------------------------------------- */

START_TEST(a_thread_whose_waker_is_another_s_number_gets_a_new_one)
{
    int64_t until = hs_deadline_after(200 * MS);
    struct strangers s = {0};
    struct hs_wakelist list;
    struct hs_wakenode node;
    short revents;
    int rounds = 0;

    hs_wakelist_init(&list);
    hs_wakelist_join(&list, &node);
    take_numbers_of("eventfd", &s);
    hs_wakelist_wake(&list);
    ck_assert(hs_wakenode_is_deaf(&node));
    while (hs_wait(-1, 0, NULL, until, fresh(), &revents) != HS_E_DEADLINE)
        rounds++;
    ck_assert_int_le(rounds, 20); /* one each 20 ms */
    hs_wakelist_leave(&list, &node);
    hs_wakelist_join(&list, &node);
    ck_assert(!hs_wakenode_is_deaf(&node));
    hs_wakelist_wake(&list);
    ASSERT_OK(hs_wait(-1, 0, NULL, HS_NEVER, fresh(), &revents));
    hs_wakelist_leave(&list, &node);
    hs_wakelist_fini(&list);
    untouched(&s);
}
END_TEST

/* It was not rung: the sleeper itself finds out, for the stranger is ready. */
START_TEST(a_thread_reads_nothing_of_who_has_its_waker_s_number)
{
    struct strangers s = {0};
    short revents = 1;
    int rounds = 0;

    (void)!hs_wait(-1, 0, NULL, hs_deadline_after(MS), fresh(), &revents); /* It is made here. */
    take_numbers_of("eventfd", &s);
    for (int64_t until = hs_deadline_after(100 * MS); hs_now() < until; rounds++)
        (void)!hs_wait(-1, 0, NULL, until, fresh(), &revents);
    ck_assert_int_le(rounds, 10);
    hear_again();
    untouched(&s);
}
END_TEST

START_TEST(waiting_for_a_number_that_is_not_open_is_an_error)
{
    short revents = 77;
    int fds[2];

    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    ck_assert_int_eq(close(fds[0]) + close(fds[1]), 0);
    ASSERT_ERR(HS_E_SYSTEM, hs_wait(fds[0], POLLIN, NULL, HS_NEVER, fresh(), &revents));
    ck_assert_int_eq(last_error()->sys, EBADF);
    ck_assert_int_eq(revents, 77);
}
END_TEST

/* RLIMIT_NOFILE below 2 is one of the ways: ppoll(2) takes two no more. */
START_TEST(where_the_kernel_lets_nobody_wait_each_try_takes_a_pause)
{
    int64_t until = hs_deadline_after(200 * MS);
    struct rlimit former, none;
    short revents;
    int rounds = 0;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &former), 0);
    none = (struct rlimit){1, former.rlim_max};
    (void)!hs_wait(-1, 0, NULL, hs_deadline_after(MS), fresh(), &revents);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (; hs_now() < until; rounds++)
        ASSERT_ERR(HS_E_SYSTEM, hs_wait(-1, 0, NULL, until, fresh(), &revents));
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &former), 0);
    ck_assert_int_le(rounds, 20);
}
END_TEST

/* ---- Event loops --------------------------------------------------------------------------- */

struct waiter {
    struct hs_op op;
    struct hs_loop_waiter *loop_waiter;
    struct pair pair;
};

static hs_err
step(struct waiter *w)
{
    uint8_t byte;
    size_t n;

    hs_loop_waiter_unpark(w->loop_waiter);
    return hs_conn_recv(w->pair.c, &w->op, &byte, 1, 0, fresh(), &n);
}

static void
begin(struct waiter *w, struct hs_loop *l, int64_t deadline_ns)
{
    *w = (struct waiter){.op = op_step(10 * SECOND), .pair = pair_unix()};
    ASSERT_OK(hs_loop_waiter_new(l, w, fresh(), &w->loop_waiter));
    w->op.loop_waiter = w->loop_waiter;
    w->op.deadline_ns = deadline_ns;
    ASSERT_ERR(HS_WANT, step(w));
    ASSERT_OK(hs_loop_waiter_park(w->loop_waiter, &w->op, fresh()));
}

static void
end(struct waiter *w)
{
    hs_loop_waiter_free(w->loop_waiter);
    hs_conn_abandon(w->pair.c, &w->op, NULL);
    pair_free(&w->pair);
}

static const char *const kinds[] = {"eventpoll", "eventfd", "timerfd"};

/* The waiters have no time: of the timer's end they hear by a look that finds nothing. */
START_TEST(a_loop_without_one_of_its_descriptors_tells_all_who_wait)
{
    struct strangers s = {0};
    struct waiter w, other;
    struct hs_loop *l;

    ASSERT_OK(hs_loop_new(fresh(), &l));
    begin(&w, l, HS_NEVER);
    begin(&other, l, HS_NEVER);
    take_numbers_of(kinds[_i], &s);
    EVENTUALLY((hs_loop_collect(l), hs_loop_is_lost(l)));
    ck_assert_ptr_eq(hs_loop_next(l), &w);
    ck_assert_ptr_eq(hs_loop_next(l), &other);
    ck_assert_ptr_null(hs_loop_next(l));
    ASSERT_ERR(HS_WANT, step(&w));
    ASSERT_ERR(HS_E_SYSTEM, hs_loop_waiter_park(w.loop_waiter, &w.op, fresh()));
    ck_assert_int_eq(last_error()->sys, EBADF);
    hs_loop_collect(l);
    ck_assert_ptr_null(hs_loop_next(l));
    end(&w);
    end(&other);
    hs_loop_free(l);
    hear_again();
    untouched(&s);
}
END_TEST

START_TEST(who_parks_where_the_set_or_the_timer_is_gone_is_told_and_so_are_the_others)
{
    struct strangers s = {0};
    struct waiter w, late;
    struct hs_loop *l;

    ASSERT_OK(hs_loop_new(fresh(), &l));
    begin(&w, l, HS_NEVER);
    begin(&late, l, HS_NEVER);
    hs_loop_waiter_unpark(late.loop_waiter);
    take_numbers_of(_i == 0 ? "eventpoll" : "timerfd", &s);
    late.op.want_at_ns = hs_deadline_after(SECOND);
    late.op.want_id++; /* as another's, which has to be entered */
    ASSERT_ERR(HS_E_SYSTEM, hs_loop_waiter_park(late.loop_waiter, &late.op, fresh()));
    ck_assert(hs_loop_is_lost(l));
    ck_assert_ptr_eq(hs_loop_next(l), &w);
    ck_assert_ptr_null(hs_loop_next(l));
    end(&w);
    end(&late);
    hs_loop_free(l);
    untouched(&s);
}
END_TEST

static const uint64_t foreign[] = {
    0, 7, (uint64_t)1 << 40 | 3, UINT32_MAX - 2, UINT64_MAX, UINT64_MAX - 1, INT64_MAX};

/* An epoll set in the place of another, with one event. */
static int
foreign_set(int number, uint64_t data)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = data};
    int set = epoll_create1(EPOLL_CLOEXEC), ready = eventfd(1, EFD_CLOEXEC);

    ck_assert_int_eq(epoll_ctl(set, EPOLL_CTL_ADD, ready, &ev), 0);
    ck_assert_int_eq(dup3(set, number, O_CLOEXEC), number);
    (void)close(set);
    return ready;
}

START_TEST(a_loop_finds_nothing_of_its_own_in_another_s_events)
{
    struct waiter w;
    struct hs_loop *l;
    int ready, number;

    ASSERT_OK(hs_loop_new(fresh(), &l));
    begin(&w, l, HS_NEVER);
    number = hs_loop_fileno(l);
    ready = foreign_set(number, foreign[_i]);
    hs_loop_collect(l);
    ck_assert(hs_loop_is_lost(l));
    ck_assert_ptr_eq(hs_loop_next(l), &w);
    end(&w);
    hs_loop_free(l);
    ck_assert_int_eq(close(number) + close(ready), 0);
}
END_TEST

/* A step that does not find out that its descriptor was closed must not go round. */
START_TEST(parking_for_a_closed_number_is_an_error_at_the_second_time)
{
    struct hs_op op = op_step(10 * SECOND);
    struct hs_loop_waiter *waiter;
    struct hs_loop *l;
    int fds[2];

    ASSERT_OK(hs_loop_new(fresh(), &l));
    ASSERT_OK(hs_loop_waiter_new(l, &op, fresh(), &waiter));
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    ck_assert_int_eq(close(fds[0]) + close(fds[1]), 0);
    op.want_fd = fds[0];
    op.want_events = POLLIN;
    op.want_at_ns = HS_NEVER;
    ASSERT_OK(hs_loop_waiter_park(waiter, &op, fresh()));
    ck_assert_ptr_eq(hs_loop_next(l), &op);
    ASSERT_ERR(HS_E_SYSTEM, hs_loop_waiter_park(waiter, &op, fresh()));
    ck_assert_int_eq(last_error()->sys, EBADF);
    ck_assert_ptr_null(hs_loop_next(l));
    hs_loop_waiter_free(waiter);
    hs_loop_free(l);
}
END_TEST

/* ---- Reactors ------------------------------------------------------------------------------ */

struct thing {
    struct hs_parked parked;
    int fds[2];
};

static struct hs_reactor *
reactor_with(struct thing *t)
{
    struct hs_reactor *r;

    *t = (struct thing){0};
    ASSERT_OK(hs_reactor_new(fresh(), &r));
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, t->fds), 0);
    ASSERT_OK(hs_reactor_park(r, &t->parked, t->fds[0], EPOLLIN, HS_NEVER, fresh()));
    return r;
}

static void
is_told(struct hs_reactor *r, struct thing *t)
{
    struct hs_parked *p;
    hs_err rv;

    while ((rv = hs_reactor_next(r, true, fresh(), &p)) == HS_INTR)
        continue;
    ASSERT_OK(rv);
    ck_assert_ptr_eq(p, &t->parked);
    ck_assert_int_eq(p->cause, HS_CAUSE_CALLED);
    ASSERT_ERR(HS_E_SYSTEM, hs_reactor_next(r, true, fresh(), &p));
    ASSERT_ERR(HS_E_SYSTEM, hs_reactor_poll(r, fresh(), &p));
    ASSERT_ERR(HS_E_SYSTEM, hs_reactor_check(r, fresh()));
    ASSERT_ERR(HS_E_SYSTEM, hs_reactor_park(r, &t->parked, t->fds[0], EPOLLIN, HS_NEVER, fresh()));
    ck_assert_int_eq(last_error()->sys, EBADF);
    hs_reactor_forget(r, &t->parked);
    hs_reactor_free(r);
    close_all(t->fds, 2);
}

START_TEST(a_reactor_without_one_of_its_descriptors_tells_all_who_wait)
{
    struct strangers s = {0};
    struct thing t;
    struct hs_reactor *r = reactor_with(&t);

    take_numbers_of(kinds[_i], &s);
    is_told(r, &t);
    hear_again();
    untouched(&s);
}
END_TEST

/* Nobody sleeps there: another event loop is to wait for it. */
START_TEST(who_only_polls_a_reactor_is_told_of_its_loss_within_a_second)
{
    struct strangers s = {0};
    struct hs_parked *p = NULL;
    struct thing t;
    struct hs_reactor *r = reactor_with(&t);

    take_numbers_of(kinds[_i], &s);
    EVENTUALLY(hs_reactor_poll(r, fresh(), &p) == HS_OK);
    ck_assert_ptr_eq(p, &t.parked);
    ASSERT_ERR(HS_E_SYSTEM, hs_reactor_poll(r, fresh(), &p));
    hs_reactor_forget(r, &t.parked);
    hs_reactor_free(r);
    close_all(t.fds, 2);
    hear_again();
    untouched(&s);
}
END_TEST

START_TEST(a_reactor_finds_nothing_of_its_own_in_another_s_events)
{
    struct thing t;
    struct hs_reactor *r = reactor_with(&t);
    int number = hs_reactor_fileno(r), ready = foreign_set(number, foreign[_i]);

    is_told(r, &t);
    ck_assert_int_eq(close(number) + close(ready), 0);
}
END_TEST

/* ---- Who waits with them ------------------------------------------------------------------- */

START_TEST(a_token_s_descriptors_may_be_gone)
{
    struct strangers s = {0};
    struct hs_token *t;
    int number;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &t));
    ASSERT_OK(hs_token_fileno(t, fresh(), &number));
    take_all_numbers(&s);
    ASSERT_OK(hs_token_set_deadline(t, hs_deadline_after(60 * SECOND)));
    ck_assert(hs_token_cancel(t, "enough", 0, NULL));
    hs_token_unref(t);
    hear_again();
    untouched(&s);
}
END_TEST

/* The first caller's dial is asked for by a wake-up that may be lost: it is found at the end of a
 * slice at the latest. */
START_TEST(pools_dial_again_after_all_their_numbers_are_another_s)
{
    struct server server = server_new();
    struct hs_pool_options o = options(2);
    struct hs_pool *p = pool_of(&server, &o);
    struct strangers s = {0};
    struct hs_lease first = take(p), second;

    take_all_numbers(&s);
    second = take(p);
    (void)give(p, &first);
    (void)give(p, &second);
    pool_end(p);
    hear_again();
    untouched(&s);
    server_free(&server);
}
END_TEST

static const char name[] = "127.0.0.2 hole\n";

START_TEST(a_connect_to_a_name_ends_when_its_descriptors_are_gone)
{
    struct strangers s = {0};
    struct hs_connect_options opts;
    struct hs_op op = op_step(60 * SECOND);
    struct hs_endpoint ep;
    struct hs_connector *cn;
    struct hs_conn *c;

    if (!enter_namespace(name, ""))
        return;
    hs_connect_options_init(&opts);
    ASSERT_OK(hs_endpoint_from_host("hole", 4, 4711, fresh(), &ep));
    ASSERT_OK(hs_connector_new(&ep, &opts, fresh(), &cn));
    take_numbers_of(kinds[_i], &s);
    if (_i == 2)
        ASSERT_ERR(HS_E_SYSTEM, hs_connector_resolve(cn, &op, fresh()));
    else
        ASSERT_ERR(HS_E_SYSTEM, hs_connector_run(cn, &op, fresh(), &c));
    ck_assert_int_eq(last_error()->sys, EBADF);
    hs_connector_free(cn);
    hear_again();
    untouched(&s);
}
END_TEST

START_TEST(clients_are_not_watched_where_the_timer_is_gone)
{
    struct strangers s = {0};
    struct hs_callback *fired = NULL;
    struct hs_departures *d;
    struct hs_token *token;
    struct hs_op op = op_step(10 * SECOND);
    struct pair a = pair_tcp();

    ASSERT_OK(hs_departures_new(SECOND, fresh(), &d));
    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, "client", fresh(), &token));
    take_numbers_of("timerfd", &s);
    for (int i = 0; i < 2; i++) {
        ASSERT_ERR(HS_E_SYSTEM, hs_departures_watch(d, a.c, token, fresh()));
        ck_assert_int_eq(last_error()->sys, EBADF);
    }
    ASSERT_ERR(HS_E_SYSTEM, hs_departures_tend(d, &op, fresh(), &fired));
    ck_assert_ptr_null(fired);
    pair_free(&a);
    hs_departures_unref(d);
    hs_token_unref(token);
    untouched(&s);
}
END_TEST

START_TEST(a_listener_whose_handshakes_wait_with_what_is_gone_says_so)
{
    static const struct hs_network loopback = {AF_INET, 8, {127}};
    struct strangers s = {0};
    struct hs_op op = op_step(60 * SECOND);
    struct hs_listen_options options;
    struct hs_endpoint ep;
    struct hs_listener *l;
    struct hs_conn *c;
    size_t n;

    hs_listen_options_init(&options);
    options.proxy.from = &loopback;
    options.proxy.n_from = 1;
    ASSERT_OK(hs_endpoint_parse("127.0.0.1:0", 11, fresh(), &ep));
    ASSERT_OK(hs_listener_open(&ep, &options, fresh(), &l));
    ASSERT_ERR(HS_WANT, hs_listener_accept(l, &op, 1, fresh(), &c, &n));
    take_numbers_of("eventpoll", &s);
    if (_i == 0)
        ASSERT_ERR(HS_E_SYSTEM, hs_listener_accept(l, &op, 1, fresh(), &c, &n));
    else
        ASSERT_ERR(HS_E_SYSTEM, hs_listener_tend(l, &op, fresh()));
    ck_assert_int_eq(last_error()->sys, EBADF);
    hs_listener_close(l);
    hs_listener_unref(l);
    untouched(&s);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("own_fd");

    tcase_add_test(tc, a_descriptor_is_known_from_all_others_of_its_number);
    tcase_add_test(tc, a_thread_whose_waker_is_another_s_number_gets_a_new_one);
    tcase_add_test(tc, a_thread_reads_nothing_of_who_has_its_waker_s_number);
    tcase_add_test(tc, waiting_for_a_number_that_is_not_open_is_an_error);
    tcase_add_test(tc, where_the_kernel_lets_nobody_wait_each_try_takes_a_pause);
    tcase_add_loop_test(tc, a_loop_without_one_of_its_descriptors_tells_all_who_wait, 0,
                        LENGTH(kinds));
    tcase_add_loop_test(
        tc, who_parks_where_the_set_or_the_timer_is_gone_is_told_and_so_are_the_others, 0, 2);
    tcase_add_loop_test(tc, a_loop_finds_nothing_of_its_own_in_another_s_events, 0,
                        LENGTH(foreign));
    tcase_add_test(tc, parking_for_a_closed_number_is_an_error_at_the_second_time);
    tcase_add_loop_test(tc, a_reactor_without_one_of_its_descriptors_tells_all_who_wait, 0,
                        LENGTH(kinds));
    tcase_add_loop_test(tc, who_only_polls_a_reactor_is_told_of_its_loss_within_a_second, 0,
                        LENGTH(kinds));
    tcase_add_loop_test(tc, a_reactor_finds_nothing_of_its_own_in_another_s_events, 0,
                        LENGTH(foreign));
    tcase_add_test(tc, a_token_s_descriptors_may_be_gone);
    tcase_add_test(tc, clients_are_not_watched_where_the_timer_is_gone);
    tcase_add_test(tc, pools_dial_again_after_all_their_numbers_are_another_s);
    tcase_add_loop_test(tc, a_connect_to_a_name_ends_when_its_descriptors_are_gone, 0, 2);
    tcase_add_loop_test(tc, a_listener_whose_handshakes_wait_with_what_is_gone_says_so, 0, 2);
    return run_case(tc);
}
