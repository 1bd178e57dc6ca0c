/* test_conn_file.c: files on a connection.
 *
 * sendfile(2) takes no flags: it must neither block nor raise a signal all the same. A file may end
 * before it should, or shrink while it goes out.
 */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static _Atomic size_t most_asked;

ssize_t __real_sendfile(int fd, int file, off_t *offset, size_t len);
ssize_t __wrap_sendfile(int fd, int file, off_t *offset, size_t len);

ssize_t
__wrap_sendfile(int fd, int file, off_t *offset, size_t len)
{
    if (len > most_asked)
        most_asked = len;
    return __real_sendfile(fd, file, offset, len);
}

static int
file_of(size_t size)
{
    int fd = memfd_create("hardsock-test", MFD_CLOEXEC);
    uint8_t *bytes = malloc(size + 1);

    ck_assert_int_ge(fd, 0);
    for (size_t i = 0; i < size; i++)
        bytes[i] = pattern(7, i);
    ck_assert_int_eq(write(fd, bytes, size), (ssize_t)size);
    free(bytes);
    return fd;
}

struct draining {
    int fd;
    size_t total, start;
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
            d->matches &= buf[i] == pattern(7, d->start + d->total++);
    return NULL;
}

static bool
poisoned_out(struct hs_conn *c)
{
    struct hs_conn_info info;

    hs_conn_info(c, &info);
    return info.poisoned_out;
}

START_TEST(a_part_of_a_file_goes_out_and_the_offset_moves)
{
    const size_t size = 10U << 20, from = 12345, len = (9U << 20) + 1;
    struct pair p = _i ? pair_tcp() : pair_small();
    struct draining d = {.fd = p.peer, .start = from};
    struct hs_op op = op_in(20 * SECOND);
    int64_t offset = (int64_t)from;
    int file = file_of(size);
    struct thread t;

    thread_start(&t, drain_all, &d);
    ASSERT_OK(DONE(hs_conn_send_file(p.c, &op, file, &offset, len, fresh())));
    ck_assert_uint_eq(op.done, len);
    ck_assert_int_eq(offset, (int64_t)(from + len));
    ck_assert_int_eq(lseek(file, 0, SEEK_CUR), (off_t)size); /* Its own position is not ours. */
    ASSERT_OK(hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    (void)thread_join(&t);
    ck_assert_uint_eq(d.total, len);
    ck_assert(d.matches);
    /* One round in the kernel, which moves 16 pages: at the end of the next one it would throw away
     * what the socket says. */
    ck_assert_uint_le(most_asked, (size_t)15 * (size_t)sysconf(_SC_PAGESIZE));
    (void)close(file);
    pair_free(&p);
}
END_TEST

START_TEST(a_file_that_ends_before_is_no_error_and_says_so)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_in(10 * SECOND), none = op_in(10 * SECOND);
    int64_t offset = 90, beyond = 1000;
    int file = file_of(100);

    ASSERT_OK(DONE(hs_conn_send_file(p.c, &op, file, &offset, 50, fresh())));
    ck_assert_uint_eq(op.done, 10);
    ck_assert_int_eq(offset, 100);
    ASSERT_OK(DONE(hs_conn_send_file(p.c, &none, file, &beyond, 50, fresh())));
    ck_assert_uint_eq(none.done, 0);
    ASSERT_OK(DONE(hs_conn_send_file(p.c, &none, file, &beyond, 0, fresh())));
    ck_assert(!poisoned_out(p.c));
    (void)close(file);
    pair_free(&p);
}
END_TEST

START_TEST(a_file_that_shrinks_meanwhile_ends_where_it_ends)
{
    struct pair p = pair_small();
    struct hs_op op = op_step(10 * SECOND);
    int file = file_of(4U << 20);
    struct draining d = {.fd = p.peer};
    int64_t offset = 0;
    struct thread t;
    hs_err rv;

    ASSERT_ERR(HS_WANT, DONE(hs_conn_send_file(p.c, &op, file, &offset, 4U << 20, fresh())));
    ck_assert_uint_gt(op.done, 0);
    ck_assert_int_eq(ftruncate(file, offset), 0);
    thread_start(&t, drain_all, &d);
    while ((rv = DONE(hs_conn_send_file(p.c, &op, file, &offset, 4U << 20, fresh()))) == HS_WANT)
        wait_for_want(&op);
    ASSERT_OK(rv);
    ck_assert_uint_eq(op.done, (size_t)offset);
    ASSERT_OK(hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    (void)thread_join(&t);
    ck_assert_uint_le(d.total, op.done); /* What was in the pipe is the file's old or new bytes. */
    (void)close(file);
    pair_free(&p);
}
END_TEST

START_TEST(half_a_file_sent_poisons)
{
    struct pair p = pair_small();
    int file = file_of(4U << 20);
    struct hs_op op = op_in(50 * MS), next = op_in(10 * SECOND), first;
    int64_t offset = 0, at = 0;

    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_send_file(p.c, &op, file, &offset, 4U << 20, fresh())));
    ck_assert_str_eq(last_error()->op, "sendfile");
    ck_assert_uint_gt(op.done, 0);
    ck_assert_uint_eq(op.done, (size_t)offset);
    ASSERT_ERR(HS_E_POISONED, hs_conn_send_file(p.c, &next, file, &offset, 1, fresh()));
    pair_free(&p);
    p = pair_small();
    (void)fill(p.c);
    first = op_in(5 * MS);
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_send_file(p.c, &first, file, &at, 10, fresh())));
    ck_assert_int_eq(at, 0);
    ck_assert(!poisoned_out(p.c));
    (void)close(file);
    pair_free(&p);
}
END_TEST

START_TEST(an_abandoned_file_poisons_if_something_is_out)
{
    struct pair p = pair_small();
    struct hs_op op = op_step(10 * SECOND);
    int file = file_of(4U << 20);
    int64_t offset = 0;

    ASSERT_ERR(HS_WANT, DONE(hs_conn_send_file(p.c, &op, file, &offset, 4U << 20, fresh())));
    hs_conn_abandon(p.c, &op, NULL);
    ck_assert(poisoned_out(p.c));
    (void)close(file);
    pair_free(&p);
}
END_TEST

START_TEST(what_is_no_file_is_an_error_of_the_system)
{
    struct pair p = pair_unix();
    struct hs_op op = op_in(10 * SECOND), closed = op_in(10 * SECOND);
    int fds[2], file = file_of(10), writable;
    int64_t offset = 0;
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    ck_assert_int_ge(writable = open(path, O_WRONLY | O_CLOEXEC), 0);
    ck_assert_int_eq(pipe(fds), 0);
    ASSERT_ERR(HS_E_SYSTEM, hs_conn_send_file(p.c, &op, fds[0], &offset, 10, fresh()));
    ASSERT_ERR(HS_E_SYSTEM, hs_conn_send_file(p.c, &op, writable, &offset, 10, fresh()));
    ck_assert_int_eq(last_error()->sys, EBADF);
    ck_assert(!poisoned_out(p.c));
    hs_conn_close(p.c, false);
    ASSERT_ERR(HS_E_CLOSED, hs_conn_send_file(p.c, &closed, file, &offset, 10, fresh()));
    close_all(fds, 2);
    (void)close(writable);
    (void)close(file);
    pair_free(&p);
}
END_TEST

/* libcheck runs each test in a process of its own, which the signal would end. */
START_TEST(a_broken_connection_raises_no_signal)
{
    struct pair p = pair_unix();
    struct hs_op op = op_in(10 * SECOND);
    int file = file_of(100);
    int64_t offset = 0;
    sigset_t blocked, pending;

    (void)signal(SIGPIPE, SIG_DFL);
    (void)close(p.peer);
    p.peer = -1;
    ASSERT_ERR(HS_E_RESET, hs_conn_send_file(p.c, &op, file, &offset, 100, fresh()));
    ck_assert_int_eq(last_error()->sys, EPIPE);
    (void)sigpending(&pending);
    ck_assert_int_eq(sigismember(&pending, SIGPIPE), 0);
    (void)pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    ck_assert_int_eq(sigismember(&blocked, SIGPIPE), 0);
    (void)close(file);
    pair_free(&p);
}
END_TEST

/* O_NONBLOCK belongs to the one who shares the description: a descriptor that was passed, a child.
 * */
START_TEST(a_socket_that_somebody_made_blocking_blocks_nobody)
{
    struct pair p = pair_small();
    struct hs_op op = op_in(10 * MS);
    int file = file_of(4U << 20), fd = hs_conn_fileno(p.c);
    int64_t offset = 0;

    ck_assert_int_eq(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK), 0);
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_send_file(p.c, &op, file, &offset, 4U << 20, fresh())));
    (void)close(file);
    pair_free(&p);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("conn_file");

    tcase_add_loop_test(tc, a_part_of_a_file_goes_out_and_the_offset_moves, 0, 2);
    tcase_add_test(tc, a_file_that_ends_before_is_no_error_and_says_so);
    tcase_add_test(tc, a_file_that_shrinks_meanwhile_ends_where_it_ends);
    tcase_add_test(tc, half_a_file_sent_poisons);
    tcase_add_test(tc, an_abandoned_file_poisons_if_something_is_out);
    tcase_add_test(tc, what_is_no_file_is_an_error_of_the_system);
    tcase_add_test(tc, a_broken_connection_raises_no_signal);
    tcase_add_test(tc, a_socket_that_somebody_made_blocking_blocks_nobody);
    return run_case(tc);
}
