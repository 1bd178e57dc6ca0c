/* test_inspect.c: the inspect socket's thread: its life, and those who ask while it ends.
 *
 * What it answers, and to whom, is looked at in Python (tests/py/test_inspect.py).
 */
#include "support.h"

#include "hardsock_binding.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char dir[] = "/tmp/test_inspect_XXXXXX", path[sizeof(dir) + 16];

static void
make_dir(void)
{
    ck_assert_ptr_ne(mkdtemp(dir), NULL);
    (void)snprintf(path, sizeof(path), "%s/sock", dir);
}

static void
remove_dir(void)
{
    ck_assert_int_eq(rmdir(dir), 0); /* The socket is gone. */
}

/* A connected socket, or -1: nobody listens. */
static int
dial(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_ge(fd, 0);
    memcpy(addr.sun_path, path, sizeof(path));
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

/* Whether a report came. */
static bool
ask(int fd)
{
    char text[4096];
    ssize_t n;

    if (send(fd, "events\n", 7, MSG_NOSIGNAL) != 7)
        return false;
    n = recv(fd, text, sizeof(text), 0);
    return n > 11 && memcmp(text, "{\"version\":", 11) == 0;
}

/* Its thread lets go of what it has a moment after the stop. */
static void
stop_and_wait(long fds)
{
    hs_inspect_stop();
    EVENTUALLY(count_fds() == fds);
}

START_TEST(starts_answers_stops_and_starts_again)
{
    long fds = count_fds();

    for (int i = 0; i < 3; i++) {
        int fd;

        ASSERT_OK(hs_inspect_start(path, fresh()));
        ck_assert_int_ge(fd = dial(), 0);
        ck_assert(ask(fd));
        ck_assert(ask(fd));
        hs_inspect_stop();
        hs_inspect_stop();
        ck_assert_int_eq(dial(), -1);
        (void)close(fd);
    }
    stop_and_wait(fds);
}
END_TEST

START_TEST(second_start_takes_the_place_of_the_first)
{
    long fds = count_fds();
    int fd;

    ASSERT_OK(hs_inspect_start(path, fresh()));
    ASSERT_OK(hs_inspect_start(path, fresh()));
    ck_assert_int_ge(fd = dial(), 0);
    ck_assert(ask(fd));
    (void)close(fd);
    stop_and_wait(fds);
}
END_TEST

START_TEST(path_that_cannot_be_is_refused_and_leaves_nothing)
{
    long fds = count_fds();
    char longer[200];

    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    ASSERT_ERR(HS_E_INVALID, hs_inspect_start(longer, fresh()));
    ASSERT_ERR(HS_E_SYSTEM, hs_inspect_start("/tmp/is/not/there/sock", fresh()));
    ck_assert_int_eq(count_fds(), fds);
}
END_TEST

static void *
ask_until_it_ends(void *arg)
{
    long *answers = arg;
    int fd;

    while ((fd = dial()) >= 0) {
        while (ask(fd))
            ++*answers;
        (void)close(fd);
    }
    return NULL;
}

START_TEST(stop_ends_those_who_ask_at_that_moment)
{
    long fds = count_fds(), answers[3] = {0};
    struct thread t[LENGTH(answers)];
    int fd;

    ASSERT_OK(hs_inspect_start(path, fresh()));
    for (size_t i = 0; i < LENGTH(t); i++)
        thread_start(&t[i], ask_until_it_ends, &answers[i]);
    ck_assert_int_ge(fd = dial(), 0);
    for (int i = 0; i < 20; i++)
        ck_assert(ask(fd));
    (void)close(fd);
    hs_inspect_stop();
    for (size_t i = 0; i < LENGTH(t); i++)
        (void)thread_join(&t[i]);
    stop_and_wait(fds);
}
END_TEST

static int
look_in_child(void *arg)
{
    int fd = dial();
    bool parents = fd >= 0 && ask(fd);

    (void)arg;
    (void)close(fd);
    hs_inspect_stop(); /* Not the parent's. */
    fd = dial();
    return parents && fd >= 0 ? 0 : 1;
}

START_TEST(forked_child_leaves_the_parents_alone)
{
    long fds = count_fds();
    int fd;

    ASSERT_OK(hs_inspect_start(path, fresh()));
    ck_assert_int_eq(in_child(look_in_child, NULL), 0);
    ck_assert_int_ge(fd = dial(), 0);
    ck_assert(ask(fd));
    (void)close(fd);
    stop_and_wait(fds);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("inspect");

    tcase_add_checked_fixture(tc, make_dir, remove_dir);
    tcase_add_test(tc, starts_answers_stops_and_starts_again);
    tcase_add_test(tc, second_start_takes_the_place_of_the_first);
    tcase_add_test(tc, path_that_cannot_be_is_refused_and_leaves_nothing);
    tcase_add_test(tc, stop_ends_those_who_ask_at_that_moment);
    tcase_add_test(tc, forked_child_leaves_the_parents_alone);
    return run_case(tc);
}
