/* test_inspect.c: the inspect socket's thread: its life, and those who ask while it ends.
 *
 * What it answers, and to whom, is looked at in Python (tests/py/test_inspect.py).
 */
#include "support.h"

#include "hardsock_binding.h"

#include "../../csrc/base/fault.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
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

#define STARTS 4

static void *
start_one(void *arg)
{
    (void)arg;
    ASSERT_OK(hs_inspect_start(path, fresh()));
    return NULL;
}

/* None takes away the socket of another: the last one's is there. */
START_TEST(of_those_that_start_at_once_one_stays)
{
    long fds = count_fds();

    for (int round = 0; round < 50; round++) {
        struct thread t[STARTS];
        int fd;

        for (int i = 0; i < STARTS; i++)
            thread_start(&t[i], start_one, NULL);
        for (int i = 0; i < STARTS; i++)
            (void)thread_join(&t[i]);
        ck_assert_int_ge(fd = dial(), 0);
        ck_assert(ask(fd));
        (void)close(fd);
    }
    stop_and_wait(fds);
}
END_TEST

/* Nobody waits for a thread to end, and yet they do not pile up. */
START_TEST(started_and_stopped_in_a_tight_loop_it_does_not_pile_up)
{
    long fds = count_fds(), most = 0;

    for (int i = 0; i < 300; i++) {
        long now;

        ASSERT_OK(hs_inspect_start(path, fresh()));
        now = count_fds();
        most = now > most ? now : most;
        hs_inspect_stop();
    }
    ck_assert_int_le(most - fds, 6 * 9); /* The waker of this thread, too. */
    hs_inspect_stop();
    EVENTUALLY(count_fds() <= fds + 1);
}
END_TEST

static atomic_bool storm_is_over;

static void *
ask_in_a_storm(void *arg)
{
    (void)arg;
    while (!atomic_load(&storm_is_over)) {
        int fd = dial();

        if (fd < 0)
            continue;
        (void)ask(fd);
        (void)close(fd);
    }
    return NULL;
}

static void *
start_and_stop_in_a_storm(void *arg)
{
    (void)arg;
    while (!atomic_load(&storm_is_over)) {
        int fd;

        ASSERT_OK(hs_inspect_start(path, fresh()));
        ck_assert_int_ge(fd = dial(), 0);
        ck_assert(ask(fd)); /* Also, so that those that end come to it. */
        (void)close(fd);
        hs_inspect_stop();
        breathe();
    }
    return NULL;
}

/* Such as an inspector has: of a reactor, a spare one, or a socket that is bound to the path, which
 * those are, too, that it has accepted. */
static bool
may_be_an_inspectors(int fd)
{
    struct sockaddr_un addr = {0};
    socklen_t len = sizeof(addr);
    char name[40], what[32] = "";

    (void)snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    if (readlink(name, what, sizeof(what) - 1) > 0 &&
        (strcmp(what, "anon_inode:[eventpoll]") == 0 || strcmp(what, "/dev/null") == 0))
        return true;
    return getsockname(fd, (struct sockaddr *)&addr, &len) == 0 && addr.sun_family == AF_UNIX &&
           strncmp(addr.sun_path, path, sizeof(addr.sun_path)) == 0;
}

static int
count_such(void *arg)
{
    int n = 0;

    (void)arg;
    for (int fd = 0; fd < 300; fd++)
        n += may_be_an_inspectors(fd);
    return n;
}

START_TEST(child_has_nothing_of_it_whenever_it_is_forked)
{
    long fds = count_fds();
    int others = count_such(NULL);
    struct thread t[3];

    atomic_store(&storm_is_over, false);
    thread_start(&t[0], start_and_stop_in_a_storm, NULL);
    thread_start(&t[1], ask_in_a_storm, NULL);
    thread_start(&t[2], ask_in_a_storm, NULL);
    for (int i = 0; i < 300; i++)
        ck_assert_int_eq(in_child(count_such, NULL), others);
    atomic_store(&storm_is_over, true);
    for (size_t i = 0; i < LENGTH(t); i++)
        (void)thread_join(&t[i]);
    stop_and_wait(fds);
}
END_TEST

/* ---- Who waits for whom -------------------------------------------------------------------- */

#define PLACES 16 /* of the inspector, for those who ask */
#define KEYS 1000
#define GREEDY 12
#define ROUNDS 41

#define LONG 4

/* A report of breakers that no socket's buffer takes whole, and that takes its time. */
static void
make_reports_long(struct hs_breaker *b[LONG])
{
    struct hs_breaker_options o;

    hs_breaker_options_init(&o);
    for (int k = 0; k < LONG * KEYS; k++) {
        struct hs_breaker_key key;
        struct hs_permit permit;
        char name[HS_BREAKER_NAME_MAX + 1];
        int n = snprintf(name, sizeof(name), "%0110d", k);

        if (k % KEYS == 0)
            ASSERT_OK(hs_breaker_new(&o, fresh(), &b[k / KEYS]));
        ASSERT_OK(hs_breaker_key_parse(name, (size_t)n, fresh(), &key));
        (void)hs_breaker_permit(b[k / KEYS], &key, hs_now(), &permit);
        hs_breaker_record(b[k / KEYS], &key, &permit, HS_FAIL_REFUSED, hs_now());
    }
}

static void
make_reports_short(struct hs_breaker *b[LONG])
{
    for (int i = 0; i < LONG; i++)
        hs_breaker_unref(b[i]);
}

static int
dialled(void)
{
    int fd = dial();

    ck_assert_int_ge(fd, 0);
    return fd;
}

static size_t
there(int fd)
{
    int n;

    ck_assert_int_eq(ioctl(fd, FIONREAD, &n), 0);
    return (size_t)n;
}

/* Asks for what does not fit, and gives back how much has come once no more does. */
static size_t
ask_and_let_it_wait(int fd, int other)
{
    size_t n;

    put(fd, "breakers\n", 9);
    do { /* Who is answered shows that the thread has been back with the rest. */
        n = there(fd);
        ck_assert(ask(other));
    } while (n == 0 || there(fd) != n);
    return n;
}

static void
read_some(int fd, size_t n)
{
    static char bytes[65536];

    while (n > 0) {
        ssize_t got = recv(fd, bytes, n < sizeof(bytes) ? n : sizeof(bytes), 0);

        ck_assert_int_gt(got, 0);
        n -= (size_t)got;
    }
}

/* One that reads slowly is silent for longest, and is parked again at each piece that it takes: it
 * stands behind all others, and goes all the same. */
START_TEST(newcomer_gets_the_place_of_one_that_reads_slowly)
{
    long fds = count_fds();
    struct hs_breaker *b[LONG];
    int asks[PLACES], slow, late;
    size_t n;

    make_reports_long(b);
    ASSERT_OK(hs_inspect_start(path, fresh()));
    slow = dialled();
    for (int i = 1; i < PLACES; i++)
        asks[i] = dialled();
    n = ask_and_let_it_wait(slow, asks[1]);
    for (int i = 1; i < PLACES; i++)
        ck_assert(ask(asks[i]));
    read_some(slow, n);
    EVENTUALLY(there(slow) > 0);
    ck_assert(ask(asks[1])); /* It waits again. */
    late = dialled();
    ck_assert(ask(late));
    for (int i = 1; i < PLACES; i++) {
        ck_assert(ask(asks[i]));
        (void)close(asks[i]);
    }
    (void)close(slow);
    (void)close(late);
    make_reports_short(b);
    stop_and_wait(fds);
}
END_TEST

struct greedy {
    int fd;
    atomic_int answers;
};

/* Has always so many more requests there than were answered. */
static void *
ask_all_the_time(void *arg)
{
    struct greedy *g = arg;
    static const char request[] = "metrics\n";
    char bytes[65536];
    ssize_t n;

    for (int i = 0; i < 16; i++)
        put(g->fd, request, sizeof(request) - 1);
    while ((n = recv(g->fd, bytes, sizeof(bytes), 0)) > 0)
        for (ssize_t i = 0; i < n; i++)
            if (bytes[i] == '\n') {
                atomic_fetch_add(&g->answers, 1);
                (void)send(g->fd, request, sizeof(request) - 1, MSG_NOSIGNAL);
            }
    return NULL;
}

static int
all_answers(struct greedy *g)
{
    int n = 0;

    for (int i = 0; i < GREEDY; i++)
        n += atomic_load(&g[i].answers);
    return n;
}

/* Each of them had a request there before, and gets one answer until it is the turn of one that
 * asks once. Not in turn: most rounds give it one at once, and some after a thousand. What a busy
 * machine adds between two looks is no fault, so that most rounds count. */
START_TEST(one_that_asks_once_and_those_that_ask_all_the_time_are_answered_in_turn)
{
    long fds = count_fds();
    struct greedy g[GREEDY] = {0};
    struct thread t[GREEDY];
    int once, in_turn = 0;

    ASSERT_OK(hs_inspect_start(path, fresh()));
    once = dialled();
    for (int i = 0; i < GREEDY; i++) {
        g[i].fd = dialled();
        thread_start(&t[i], ask_all_the_time, &g[i]);
        EVENTUALLY(atomic_load(&g[i].answers) > 0);
    }
    for (int round = 0; round < ROUNDS; round++) {
        int before = all_answers(g), n;

        ck_assert(ask(once));
        n = all_answers(g) - before;
        in_turn += n >= GREEDY / 2 && n <= 2 * GREEDY;
    }
    ck_assert_int_gt(in_turn, ROUNDS / 2);
    (void)close(once);
    hs_inspect_stop();
    for (int i = 0; i < GREEDY; i++) {
        (void)thread_join(&t[i]);
        (void)close(g[i].fd);
    }
    stop_and_wait(fds);
}
END_TEST

/* Of the inspector's thread; in seconds. */
static double
cpu_of_thread(void)
{
    DIR *tasks = opendir("/proc/self/task");
    unsigned long ticks[2] = {0};
    struct dirent *e;

    ck_assert_ptr_nonnull(tasks);
    while ((e = readdir(tasks)) != NULL) {
        char name[300], text[400];
        FILE *f;

        (void)snprintf(name, sizeof(name), "/proc/self/task/%s/stat", e->d_name);
        if ((f = fopen(name, "re")) == NULL)
            continue;
        if (fgets(text, sizeof(text), f) != NULL && strstr(text, "(hs-inspect)") != NULL)
            ck_assert_int_eq(sscanf(strchr(text, ')'), /* proc_pid_stat(5): utime, stime */
                                    ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                                    &ticks[0], &ticks[1]),
                             2);
        (void)fclose(f);
    }
    (void)closedir(tasks);
    return (double)(ticks[0] + ticks[1]) / (double)sysconf(_SC_CLK_TCK);
}

static void *
come_and_go(void *arg)
{
    (void)arg;
    while (!atomic_load(&storm_is_over)) {
        int fd = dial();

        if (fd >= 0)
            (void)close(fd);
    }
    return NULL;
}

/* Those that only come and go cost a quarter of one processor, too. Waiting and parking are not
 * counted, which is why it may be a little more. */
START_TEST(rests_from_those_that_only_come_and_go)
{
    long fds = count_fds();
    struct thread t[2];
    int64_t began;
    double spent, passed;

    ASSERT_OK(hs_inspect_start(path, fresh()));
    atomic_store(&storm_is_over, false);
    for (size_t i = 0; i < LENGTH(t); i++)
        thread_start(&t[i], come_and_go, NULL);
    for (began = hs_now(); hs_now() - began < SECOND;)
        breathe();
    spent = cpu_of_thread();
    passed = (double)(hs_now() - began) / (double)SECOND;
    atomic_store(&storm_is_over, true);
    for (size_t i = 0; i < LENGTH(t); i++)
        (void)thread_join(&t[i]);
    ck_assert_msg(spent <= 0.3 * passed, "%.2f s of %.2f", spent, passed);
    stop_and_wait(fds);
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

/* ---- Refusals ------------------------------------------------------------------------------ */

static _Thread_local bool spared;
static atomic_int without_memory; /* so many allocations of the thread that answers */

static int
fail_allocations(enum hs_call call, size_t *len)
{
    (void)len;
    if (call != HS_CALL_alloc || spared || atomic_load(&without_memory) == 0)
        return 0;
    atomic_fetch_sub(&without_memory, 1);
    return ENOMEM;
}

static const struct {
    const char *request, *says; /* NULL: it is closed without a word */
    int failures;
    bool goes_on;
} refusals[] = {
    {"nothing\n", "there is no such report", 0, false},
    {"connection 1\n", "there is no such connection", 0, true},
    {"events\n", "no memory for a report", 1, false},
    {"events\n", NULL, 1000, false}, /* nor for saying that */
    {"nothing\n", NULL, 1000, false},
    {"connection 1\n", NULL, 1000, false},
};

/* Who is not answered for want of memory is not left to wait for it, and others are as before. */
START_TEST(who_is_refused_is_told_why_or_at_least_that)
{
    const char *says = refusals[_i].says;
    long fds = count_fds();
    char text[4096] = "";
    int fd, other;

    ASSERT_OK(hs_inspect_start(path, fresh()));
    ck_assert_int_ge(fd = dial(), 0);
    ck_assert_int_ge(other = dial(), 0);
    ck_assert(ask(fd));
    ck_assert(ask(other));
    spared = true;
    atomic_store(&without_memory, refusals[_i].failures);
    hs_fault_set_decider(fail_allocations);
    put(fd, refusals[_i].request, strlen(refusals[_i].request));
    if (says != NULL) {
        ck_assert_int_gt(recv(fd, text, sizeof(text) - 1, 0), 0);
        ck_assert_msg(strstr(text, says) != NULL, "%s", text);
    }
    if (!refusals[_i].goes_on)
        ck_assert_int_eq(recv(fd, text, sizeof(text), 0), 0);
    hs_fault_set_decider(NULL);
    if (refusals[_i].failures > 0)
        ck_assert_int_lt(atomic_load(&without_memory), refusals[_i].failures);
    ck_assert(ask(fd) == refusals[_i].goes_on);
    ck_assert(ask(other));
    (void)close(fd);
    (void)close(other);
    stop_and_wait(fds);
}
END_TEST

START_TEST(without_memory_it_is_not_started_and_leaves_nothing)
{
    long fds = count_fds();

    atomic_store(&without_memory, 1);
    hs_fault_set_decider(fail_allocations);
    ASSERT_ERR(HS_E_NOMEM, hs_inspect_start(path, fresh()));
    hs_fault_set_decider(NULL);
    ck_assert_int_eq(dial(), -1);
    ck_assert_int_eq(count_fds(), fds);
}
END_TEST

/* Neither a descriptor for a newcomer, nor a time at which to try again. */
START_TEST(what_it_cannot_take_now_it_tries_again_seldom_and_takes_later)
{
    uint64_t id, seed, calls[HS_FAULT_CALLS], most;
    long fds = count_fds();
    int64_t began;
    int fd;

    ASSERT_OK(hs_inspect_start(path, fresh()));
    began = hs_now();
    ASSERT_OK(hs_faults_begin("accept.no_files=1,timerfd_settime.fail=1", fresh(), &id));
    ck_assert_int_ge(fd = dial(), 0);
    while (hs_now() - began < 300 * MS)
        breathe();
    ck_assert(hs_faults_plan(id, &seed, calls));
    most = 5 * (uint64_t)((hs_now() - began) / (20 * MS) + 4); /* the kept descriptors, too */
    hs_faults_end(id);
    ck_assert_uint_gt(calls[HS_CALL_timerfd_settime], 0);
    ck_assert_msg(calls[HS_CALL_accept] <= most, "%lu turns", (unsigned long)calls[HS_CALL_accept]);
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
    tcase_add_test(tc, of_those_that_start_at_once_one_stays);
    tcase_add_test(tc, started_and_stopped_in_a_tight_loop_it_does_not_pile_up);
    tcase_add_test(tc, child_has_nothing_of_it_whenever_it_is_forked);
    tcase_add_test(tc, newcomer_gets_the_place_of_one_that_reads_slowly);
    tcase_add_test(tc, one_that_asks_once_and_those_that_ask_all_the_time_are_answered_in_turn);
    tcase_add_test(tc, rests_from_those_that_only_come_and_go);
    tcase_add_test(tc, stop_ends_those_who_ask_at_that_moment);
    tcase_add_test(tc, forked_child_leaves_the_parents_alone);
    tcase_add_loop_test(tc, who_is_refused_is_told_why_or_at_least_that, 0, (int)LENGTH(refusals));
    tcase_add_test(tc, without_memory_it_is_not_started_and_leaves_nothing);
    tcase_add_test(tc, what_it_cannot_take_now_it_tries_again_seldom_and_takes_later);
    return run_case(tc);
}
