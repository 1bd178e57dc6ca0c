/* test_own_fd.c: a program that closes descriptors of the library's own, and opens others that get
 * their numbers.
 *
 * The strangers are ends of socket pairs with bytes that nobody has read yet: always ready, so that
 * who believes that they are its own goes round; and afterwards it shows whether one byte was read,
 * written, or one was closed. Or they are epoll sets that say what no set of ours says.
 */
#include "pool_support.h"

#include "../../csrc/base/own_fd.h"
#include "../../csrc/base/time.h"
#include "../../csrc/cancel/loop.h"
#include "../../csrc/cancel/reactor.h"
#include "../../csrc/cancel/wait.h"
#include "../../csrc/stream/conn_impl.h"
#include "../../csrc/stream/conn_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define UNREAD "sixteen bytes..."
#define MOST 64
#define HIGH 300

static const char name[] = "127.0.0.2 hole\n";

struct strangers {
    int fds[MOST], others[MOST];
    int n;
};

/* Above those that are taken: a thread of the library that finds out that one is lost closes what
 * is left, and whatever is opened next has one of the numbers that are still to be taken. */
static void
pair_of_high_numbers(int *pair)
{
    int low[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, low), 0);
    for (int i = 0; i < 2; i++)
        ck_assert_int_ge(pair[i] = fcntl(low[i], F_DUPFD_CLOEXEC, HIGH), HIGH);
    close_all(low, 2);
}

/* Another thread may be about to use that number: unseen by TSan, for this race is meant. */
static void
take_number_by(int number, const int *pair, struct strangers *s)
{
    ck_assert_int_lt(s->n, MOST);
    ck_assert_int_eq(write(pair[1], UNREAD, sizeof(UNREAD)), sizeof(UNREAD));
    ck_assert_int_eq((int)syscall(SYS_dup3, pair[0], number, O_CLOEXEC), number);
    (void)close(pair[0]);
    s->fds[s->n] = number;
    s->others[s->n++] = pair[1];
}

static void
take_number(int number, struct strangers *s)
{
    int pair[2];

    pair_of_high_numbers(pair);
    take_number_by(number, pair, s);
}

static void
take_numbers_of(const char *kind, struct strangers *s)
{
    int fds[MOST], pairs[MOST][2], n;

    for (int i = 0; i < MOST; i++)
        pair_of_high_numbers(pairs[i]);
    ck_assert_int_gt(n = fds_of_kind(kind, fds, MOST), 0);
    for (int i = 0; i < n; i++)
        take_number_by(fds[i], pairs[i], s);
    for (int i = n; i < MOST; i++)
        close_all(pairs[i], 2);
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

/* For the rest of this process. */
static bool
filter_calls(struct sock_filter *code, unsigned short n)
{
    struct sock_fprog program = {n, code};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* What says 77 where there is no filter. */
static void
passes_filtered(int (*fn)(void *arg))
{
    int code = in_child(fn, NULL);

    if (code == 77)
        skipped("no filter of system calls", 0);
    else
        ck_assert_int_eq(0, code);
}

static int answer; /* of fcntl(F_SETSIG); 0: it says that it has, and has not */

/* The only ones that ask the kernel for a mark here; x32 and such have other numbers. */
static int
lives_without_marks(void *arg)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_SETSIG, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)answer),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct hs_own_fd fd;
    int number;

    (void)arg;
    if (!filter_calls(code, LENGTH(code)))
        return 77;
    if (!hs_own_fd_open(&fd, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) || fd.mark != 0)
        return 1;
    if (!hs_own_fd_is_there(&fd) || !hs_own_fd_ring(&fd) || !hs_own_fd_drain(&fd))
        return 2;
    number = fd.number;
    (void)close(number);
    if (hs_own_fd_is_there(&fd) || hs_own_fd_ring(&fd))
        return 3;
    return 0;
}

/* It is read back whether the kernel has taken the mark: else ours would be taken for another's. */
START_TEST(where_the_kernel_keeps_no_mark_only_a_closed_number_is_noticed)
{
    static const int answers[] = {0, EINVAL};

    answer = answers[_i];
    passes_filtered(lives_without_marks);
}
END_TEST

START_TEST(a_look_is_due_a_second_after_the_last)
{
    struct hs_own_look look = {0};
    int64_t before = hs_now();

    ck_assert(hs_own_look_is_due(&look)); /* The clock has run for longer. */
    ck_assert_int_ge(look.at_ns, before);
    look.at_ns = hs_now() + 3600 * SECOND; /* This thread may stand still here. */
    ck_assert(!hs_own_look_is_due(&look));
    ck_assert_int_gt(look.at_ns, hs_now());
    look.at_ns = (before = hs_now()) - SECOND;
    ck_assert(hs_own_look_is_due(&look));
    ck_assert_int_ge(look.at_ns, before);
}
END_TEST

/* ---- Sets of others ------------------------------------------------------------------------ */

/* An epoll set in the place of another, which watches fd. */
static void
take_by_set(int number, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN};
    int set = epoll_create1(EPOLL_CLOEXEC);

    ck_assert_int_eq(epoll_ctl(set, EPOLL_CTL_ADD, fd, &ev), 0);
    ck_assert_int_eq((int)syscall(SYS_dup3, set, number, O_CLOEXEC), number);
    (void)close(set);
}

static bool
is_watched_by(int set, int fd)
{
    char path[64], line[256];
    bool found = false;
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", set);
    ck_assert_ptr_nonnull(f = fopen(path, "re"));
    while (!found && fgets(line, sizeof(line), f) != NULL)
        found = strncmp(line, "tfd:", 4) == 0 && (int)strtol(line + 4, NULL, 10) == fd;
    (void)fclose(f);
    return found;
}

static int
only_set(void)
{
    int sets[MOST];

    ck_assert_int_eq(fds_of_kind("eventpoll", sets, MOST), 1);
    return sets[0];
}

START_TEST(another_s_set_keeps_what_departures_watch_no_longer)
{
    struct hs_departures *d;
    struct hs_token *token;
    struct pair a = pair_tcp();
    int set, fd = hs_conn_fileno(a.c);

    ASSERT_OK(hs_departures_new(0, fresh(), &d));
    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, "client", fresh(), &token));
    ASSERT_OK(hs_departures_watch(d, a.c, token, fresh()));
    ck_assert(is_watched_by(set = only_set(), fd));
    take_by_set(set, fd);
    hs_conn_leave_departures(a.c);
    ck_assert(is_watched_by(set, fd));
    pair_free(&a);
    hs_departures_unref(d);
    hs_token_unref(token);
    (void)close(set);
}
END_TEST

/* Its listener's queue is full, so that the attempt goes on. */
static int
full_listener(struct sockaddr_in *addr, int fds[4])
{
    socklen_t len = sizeof(*addr);
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(0x7f000002)}};
    ck_assert_int_eq(bind(l, (struct sockaddr *)addr, sizeof(*addr)), 0);
    ck_assert_int_eq(listen(l, 0), 0);
    ck_assert_int_eq(getsockname(l, (struct sockaddr *)addr, &len), 0);
    for (int i = 0; i < 4; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)!connect(fds[i], (struct sockaddr *)addr, sizeof(*addr));
    }
    return l;
}

static int
socket_watched_by(int set)
{
    socklen_t len = sizeof(int);
    int type;

    for (int fd = 3; fd < 256; fd++)
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && is_watched_by(set, fd))
            return fd;
    return -1;
}

START_TEST(another_s_set_keeps_what_an_attempt_was_watched_with)
{
    struct hs_op op = op_step(60 * SECOND);
    struct hs_connect_options opts;
    struct sockaddr_in addr;
    struct hs_endpoint ep;
    struct hs_connector *cn;
    struct hs_conn *c;
    int fds[4], listener, set, fd, kept;

    if (!enter_namespace(name, ""))
        return;
    listener = full_listener(&addr, fds);
    hs_connect_options_init(&opts);
    ASSERT_OK(hs_endpoint_from_host("hole", 4, ntohs(addr.sin_port), fresh(), &ep));
    ASSERT_OK(hs_connector_new(&ep, &opts, fresh(), &cn));
    set = only_set();
    EVENTUALLY(hs_connector_run(cn, &op, fresh(), &c) == HS_WANT &&
               (fd = socket_watched_by(set)) >= 0);
    kept = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* Or else the kernel takes it out as it is closed. */
    take_by_set(set, fd);
    hs_connector_free(cn);
    ck_assert(is_watched_by(set, fd));
    close_all((int[]){listener, kept, set}, 3);
    close_all(fds, 4);
}
END_TEST

START_TEST(another_s_set_gets_no_idle_connection_to_watch)
{
    struct pair a = pair_tcp();
    struct hs_own_fd set;
    int other = eventfd(0, EFD_CLOEXEC), fd = hs_conn_fileno(a.c);

    ck_assert(hs_own_fd_open(&set, epoll_create1(EPOLL_CLOEXEC)));
    ck_assert(hs_conn_watch(a.c, &set, EPOLLRDHUP, 1));
    ck_assert(is_watched_by(set.number, fd));
    take_by_set(set.number, other);
    ck_assert(!hs_conn_watch(a.c, &set, EPOLLRDHUP, 1));
    ck_assert(!is_watched_by(set.number, fd) && is_watched_by(set.number, other));
    pair_free(&a);
    close_all((int[]){set.number, other}, 2);
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

static int
waits_where_nobody_may(void *arg)
{
    int64_t until = hs_deadline_after(200 * MS);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ppoll, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    short revents;
    int rounds = 0;

    (void)arg;
    (void)!hs_wait(-1, 0, NULL, hs_deadline_after(MS), fresh(), &revents);
    if (!filter_calls(code, LENGTH(code)))
        return 77;
    for (; hs_now() < until; rounds++)
        if (hs_wait(-1, 0, NULL, HS_NEVER, fresh(), &revents) != HS_E_SYSTEM)
            return 1;
    return last_error()->sys == ENOMEM && rounds <= 20 ? 0 : 2;
}

/* By a filter: valgrind keeps a limit of descriptors, which refuses ppoll(2) as well, to itself. */
START_TEST(where_the_kernel_lets_nobody_wait_each_try_takes_a_pause)
{
    passes_filtered(waits_where_nobody_may);
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
    0, 7, (uint64_t)1 << 40 | 3, UINT32_MAX - 3, UINT64_MAX, UINT64_MAX - 1, INT64_MAX};

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

START_TEST(another_s_set_keeps_what_a_reactor_watches_no_longer)
{
    struct hs_parked *p;
    struct thing t;
    struct hs_reactor *r = reactor_with(&t);
    int number = hs_reactor_fileno(r);

    take_by_set(number, t.fds[0]);
    hs_reactor_call_all(r);
    ASSERT_OK(hs_reactor_next(r, false, fresh(), &p));
    ck_assert_ptr_eq(p, &t.parked);
    hs_reactor_leave(r, p, t.fds[0]);
    ck_assert(is_watched_by(number, t.fds[0]));
    hs_reactor_free(r);
    close_all(t.fds, 2);
    (void)close(number);
}
END_TEST

START_TEST(another_s_set_keeps_what_a_loop_watches_no_longer)
{
    struct waiter w;
    struct hs_loop *l;
    int number, fd;

    ASSERT_OK(hs_loop_new(fresh(), &l));
    begin(&w, l, HS_NEVER);
    number = hs_loop_fileno(l);
    fd = hs_conn_fileno(w.pair.c);
    ck_assert(is_watched_by(number, fd));
    take_by_set(number, fd);
    hs_loop_forget(l, fd);
    ck_assert(is_watched_by(number, fd));
    end(&w);
    hs_loop_free(l);
    (void)close(number);
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

/* Other descriptors of the library have their numbers, and by chance their marks: what is asked of
 * them they do not know, and the token is none the worse. */
START_TEST(a_token_s_descriptors_may_be_others_of_the_same_mark)
{
    struct hs_token *t;
    int set, timers[MOST], events[MOST], event, timer;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &t));
    ASSERT_OK(hs_token_fileno(t, fresh(), &set));
    ck_assert_int_eq(fds_of_kind("timerfd", timers, MOST), 1);
    ck_assert_int_le(fds_of_kind("eventfd", events, MOST), 2); /* One is this thread's waker. */
    events[0] = is_watched_by(set, events[0]) ? events[0] : events[1];
    event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    ck_assert_int_eq(fcntl(event, F_SETSIG, fcntl(timers[0], F_GETSIG)), 0);
    ck_assert_int_eq(fcntl(timer, F_SETSIG, fcntl(events[0], F_GETSIG)), 0);
    ck_assert_int_eq(dup3(event, timers[0], O_CLOEXEC), timers[0]);
    ck_assert_int_eq(dup3(timer, events[0], O_CLOEXEC), events[0]);
    ASSERT_OK(hs_token_set_deadline(t, hs_deadline_after(60 * SECOND)));
    ck_assert(hs_token_cancel(t, "enough", 0, NULL));
    ASSERT_ERR(HS_E_CANCELLED, hs_token_check(t));
    hs_token_unref(t);
    close_all((int[]){event, timer}, 2);
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

/* Of two sets the one that the other watches, that of idle connections; -1: it is not yet so. */
static int
inner_set(void)
{
    int sets[MOST];

    if (fds_of_kind("eventpoll", sets, MOST) != 2)
        return -1;
    return is_watched_by(sets[0], sets[1])   ? sets[1]
           : is_watched_by(sets[1], sets[0]) ? sets[0]
                                             : -1;
}

/* Lends one, so that the worker has something to do, now or soon. */
static int
inner_set_after_a_turn(struct hs_pool *p)
{
    struct hs_lease lease = take(p);

    (void)give(p, &lease);
    return inner_set();
}

START_TEST(a_pool_worker_without_its_set_makes_itself_a_new_one)
{
    struct server server = server_new();
    struct hs_pool_options o = options(2);
    struct hs_pool *p = pool_of(&server, &o);
    struct strangers s = {0};
    int set;

    EVENTUALLY((set = inner_set_after_a_turn(p)) >= 0);
    take_number(set, &s);
    EVENTUALLY(inner_set_after_a_turn(p) >= 0);
    pool_end(p);
    hear_again();
    untouched(&s);
    server_free(&server);
}
END_TEST

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

/* The timer goes on in the set under another number, after it was looked for: it is its own event
 * that tells. */
START_TEST(a_timer_whose_number_is_another_s_is_told_by_its_event)
{
    struct hs_op op = op_step(10 * SECOND);
    struct hs_callback *fired = NULL;
    struct strangers s = {0};
    struct hs_departures *d;
    struct hs_token *token;
    struct pair a = pair_tcp();
    int timers[MOST], kept;

    ASSERT_OK(hs_departures_new(MS, fresh(), &d));
    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, "client", fresh(), &token));
    ASSERT_ERR(HS_WANT, hs_departures_tend(d, &op, fresh(), &fired));
    ASSERT_OK(hs_departures_watch(d, a.c, token, fresh()));
    ck_assert_int_eq(fds_of_kind("timerfd", timers, MOST), 1);
    kept = fcntl(timers[0], F_DUPFD_CLOEXEC, 0);
    take_number(timers[0], &s);
    ck_assert_int_eq(poll(&(struct pollfd){.fd = kept, .events = POLLIN}, 1, -1), 1);
    ASSERT_ERR(HS_E_SYSTEM, hs_departures_tend(d, &op, fresh(), &fired));
    ck_assert_int_eq(last_error()->sys, EBADF);
    ck_assert_ptr_null(fired);
    pair_free(&a);
    hs_departures_unref(d);
    hs_token_unref(token);
    untouched(&s);
    (void)close(kept);
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
    tcase_add_loop_test(tc, where_the_kernel_keeps_no_mark_only_a_closed_number_is_noticed, 0, 2);
    tcase_add_test(tc, a_look_is_due_a_second_after_the_last);
    tcase_add_test(tc, another_s_set_keeps_what_departures_watch_no_longer);
    tcase_add_test(tc, another_s_set_keeps_what_an_attempt_was_watched_with);
    tcase_add_test(tc, another_s_set_gets_no_idle_connection_to_watch);
    tcase_add_test(tc, another_s_set_keeps_what_a_reactor_watches_no_longer);
    tcase_add_test(tc, another_s_set_keeps_what_a_loop_watches_no_longer);
    tcase_add_test(tc, a_token_s_descriptors_may_be_others_of_the_same_mark);
    tcase_add_test(tc, a_timer_whose_number_is_another_s_is_told_by_its_event);
    tcase_add_test(tc, a_token_s_descriptors_may_be_gone);
    tcase_add_test(tc, clients_are_not_watched_where_the_timer_is_gone);
    tcase_add_test(tc, a_pool_worker_without_its_set_makes_itself_a_new_one);
    tcase_add_test(tc, pools_dial_again_after_all_their_numbers_are_another_s);
    tcase_add_loop_test(tc, a_connect_to_a_name_ends_when_its_descriptors_are_gone, 0, 2);
    tcase_add_loop_test(tc, a_listener_whose_handshakes_wait_with_what_is_gone_says_so, 0, 2);
    return run_case(tc);
}
