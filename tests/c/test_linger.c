/* test_linger.c: descriptors that were closed and are read to their end.
 *
 * Over sockets of a pair: what is written to one that is closed at the other side is EPIPE, and
 * SIOCOUTQ says whether all was read.
 */
#include "support.h"

#include "../../csrc/stream/linger.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MANY 300
#define PATIENCE (5 * SECOND) /* linger.c */

/* returns: the other end of one that lingers. */
static int
lingering(void)
{
    int fds[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    hs_linger(fds[0]);
    return fds[1];
}

static bool
all_is_read(int fd)
{
    int queued;

    ck_assert_int_eq(ioctl(fd, SIOCOUTQ, &queued), 0);
    return queued == 0;
}

static bool
is_open(int fd)
{
    return send(fd, "x", 1, MSG_NOSIGNAL) == 1;
}

static bool
number_is(long n)
{
    return hs_linger_live() == n;
}

START_TEST(the_end_of_others_ends_nobody_s_patience)
{
    int fds[10];

    for (int i = 0; i < 10; i++)
        fds[i] = lingering();
    for (int i = 0; i < MANY; i++) {
        (void)close(lingering());
        EVENTUALLY(number_is(10));
    }
    for (int i = 0; i < 10; i++) {
        ck_assert(is_open(fds[i]));
        EVENTUALLY(all_is_read(fds[i]));
    }
    for (long i = 0; i < 10; i++) { /* each by its own end, no matter who was moved where */
        (void)close(fds[i]);
        EVENTUALLY(number_is(9 - i));
    }
}
END_TEST

/* As tickets come over a bad wire. */
START_TEST(what_comes_in_pieces_is_read_to_its_end)
{
    int fd = lingering();

    for (int i = 0; i < 600; i++) {
        ck_assert(is_open(fd));
        EVENTUALLY(all_is_read(fd));
    }
    ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
    EVENTUALLY(number_is(0));
    (void)close(fd);
}
END_TEST

START_TEST(much_that_has_come_before_is_read_at_once)
{
    static const char block[100000];
    int fds[2];
    ssize_t n;

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    n = send(fds[1], block, sizeof(block), MSG_DONTWAIT);
    ck_assert_int_gt(n, 20000); /* more than one read takes */
    hs_linger(fds[0]);
    EVENTUALLY(all_is_read(fds[1]));
    ck_assert(is_open(fds[1]));
    (void)close(fds[1]);
}
END_TEST

START_TEST(who_sends_without_end_is_left)
{
    static const char block[65536];
    int fd = lingering();
    int64_t sent = 0;
    ssize_t n;

    while ((n = send(fd, block, sizeof(block), MSG_NOSIGNAL)) > 0)
        sent += n;
    ck_assert(errno == EPIPE || errno == ECONNRESET); /* the latter with some unread */
    ck_assert_int_lt(sent, 32 * 1024 * 1024);
    EVENTUALLY(number_is(0));
    (void)close(fd);
}
END_TEST

static int64_t
cpu_ns(void)
{
    struct rusage u;

    ck_assert_int_eq(getrusage(RUSAGE_SELF, &u), 0);
    return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * SECOND +
           (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000;
}

/* Its descriptor does not end with ours, and would go on being ready. */
START_TEST(a_duplicate_of_what_has_ended_keeps_nobody_busy)
{
    int waiting = lingering(), fds[2], twin;
    int64_t before;

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    twin = dup(fds[0]);
    hs_linger(fds[0]);
    (void)close(fds[1]);
    EVENTUALLY(number_is(1));
    before = cpu_ns();
    ck_assert_int_eq(poll(NULL, 0, 400), 0);
    ck_assert_int_lt(cpu_ns() - before, SECOND / 25);
    (void)close(twin);
    (void)close(waiting);
}
END_TEST

/* Five seconds: that is how long one lingers of which nothing is heard. */
START_TEST(patience_ends_though_the_program_has_closed_the_epoll_set)
{
    int64_t began = hs_now(), before = cpu_ns();
    int one = lingering(), other = lingering();
    bool open;

    EVENTUALLY(number_is(2));
    ck_assert_int_eq(close_all_of_kind("eventpoll"), 1);
    open = is_open(one); /* The thread hears that, and nothing from then on. */
    ck_assert(open || hs_now() - began >= PATIENCE); /* on a machine that stood still */
    while (!number_is(0))
        ck_assert_int_eq(poll(NULL, 0, 20), 0);
    ck_assert_int_lt(cpu_ns() - before, 3 * SECOND);
    (void)close(one);
    (void)close(other);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("linger");

    tcase_add_test(tc, the_end_of_others_ends_nobody_s_patience);
    tcase_add_test(tc, what_comes_in_pieces_is_read_to_its_end);
    tcase_add_test(tc, much_that_has_come_before_is_read_at_once);
    tcase_add_test(tc, who_sends_without_end_is_left);
    tcase_add_test(tc, a_duplicate_of_what_has_ended_keeps_nobody_busy);
    tcase_add_test(tc, patience_ends_though_the_program_has_closed_the_epoll_set);
    return run_case(tc);
}
