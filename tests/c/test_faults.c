/* test_faults.c: faults on demand: what a spec may say, which calls fail by it, and that the same
 * ones fail again.
 */
#include "support.h"

#include "../../csrc/base/recorder.h"
#include "../../csrc/base/sys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t
begin(const char *spec)
{
    uint64_t id;

    ASSERT_OK(hs_faults_begin(spec, fresh(), &id));
    return id;
}

#define BILLIONTH (UINT64_MAX / UINT64_C(1000000000))
#define HALF (UINT64_C(500000000) * BILLIONTH)

/* ---- Specs --------------------------------------------------------------------------------- */

static const struct {
    const char *title, *spec;
    enum hs_call want_call;
    int want_fault;
    uint64_t want_first, want_last, want_chance, want_seed;
} good[] = {
    {"a chance of all", "recv.short=0.5,seed=3", HS_CALL_recv, HS_FAULT_SHORT, 1, UINT64_MAX, HALF,
     3},
    {"one call", "seed=18446744073709551,send.reset@120", HS_CALL_send, ECONNRESET, 120, 120,
     UINT64_MAX, UINT64_C(18446744073709551)},
    {"one call, and always", "seed=0,send.reset@120=1", HS_CALL_send, ECONNRESET, 120, 120,
     UINT64_MAX, 0},
    {"a range", "seed=0,connect.refused@2-9=1.0", HS_CALL_connect, ECONNREFUSED, 2, 9, UINT64_MAX,
     0},
    {"from one on", "seed=0,alloc.fail@7-", HS_CALL_alloc, ENOMEM, 7, UINT64_MAX, UINT64_MAX, 0},
    {"never", "seed=0,accept.no_files=0", HS_CALL_accept, EMFILE, 1, UINT64_MAX, 0, 0},
    {"no leading zero", "seed=0,accept.again=.5", HS_CALL_accept, EAGAIN, 1, UINT64_MAX, HALF, 0},
    {"a billionth", "seed=0,lookup.hang=0.000000001", HS_CALL_lookup, HS_FAULT_HANG, 1, UINT64_MAX,
     BILLIONTH, 0},
    {"TLS", "seed=0,tls_read.bad_record@1", HS_CALL_tls_read, HS_FAULT_BAD_RECORD, 1, 1, UINT64_MAX,
     0},
};

START_TEST(spec_is_read)
{
    struct hs_fault_plan plan;

    ASSERT_OK(hs_fault_parse(good[_i].spec, fresh(), &plan));
    ck_assert_uint_eq(plan.n, 1);
    ck_assert_int_eq((int)plan.rules[0].call, (int)good[_i].want_call);
    ck_assert_int_eq(plan.rules[0].fault, good[_i].want_fault);
    ck_assert_uint_eq(plan.rules[0].first, good[_i].want_first);
    ck_assert_uint_eq(plan.rules[0].last, good[_i].want_last);
    ck_assert_uint_eq(plan.rules[0].chance, good[_i].want_chance);
    ck_assert_uint_eq(plan.seed, good[_i].want_seed);
}
END_TEST

static const struct {
    const char *spec, *want_msg;
} bad[] = {
    {"", "part 1, \"\": empty"},
    {"recv.short=0.2,", "part 2, \"\": empty"},
    {"recv", "part 1, \"recv\": it must be seed=N, log=FILE or CALL.KIND=CHANCE, as in "
             "recv.short=0.2"},
    {"seed=7,knock.refused=0.1", "part 2, \"knock.refused=0.1\": there is no call \"knock\"; "
                                 "there are connect, recv, send, ...: see docs/faults.md"},
    {"connect.refusd=1", "part 1, \"connect.refusd=1\": connect has no \"refusd\"; it has fail, "
                         "reset, timeout, ..."},
    {"connect.short=1", "part 1, \"connect.short=1\": connect has no \"short\"; it has fail, "
                        "reset, timeout, ..."},
    {"recv.x=1", "part 1, \"recv.x=1\": recv has no \"x\"; it has fail, reset, timeout, ..., "
                 "short, end, spoilt"},
    {"alloc.refused=1", "part 1, \"alloc.refused=1\": alloc has no \"refused\"; it has fail"},
    {"handshake.x=1",
     "part 1, \"handshake.x=1\": handshake has no \"x\"; it has fail, alert, bad_record, internal"},
    {"recv.short", "part 1, \"recv.short\": how often? =CHANCE of 0 to 1, as in =0.2, or @NUMBER "
                   "of the call"},
    {"recv.short=1.5", "part 1, \"recv.short=1.5\": after = comes the chance, from 0 to 1, as in "
                       "0.2"},
    {"recv.short=", "part 1, \"recv.short=\": after = comes the chance, from 0 to 1, as in 0.2"},
    {"recv.short=.", "part 1, \"recv.short=.\": after = comes the chance, from 0 to 1, as in 0.2"},
    {"recv.short=0,2", "part 2, \"2\": it must be seed=N, log=FILE or CALL.KIND=CHANCE, as in "
                       "recv.short=0.2"},
    {"recv.short=-1", "part 1, \"recv.short=-1\": after = comes the chance, from 0 to 1, as in "
                      "0.2"},
    {"recv.short=1e-3", "part 1, \"recv.short=1e-3\": after = comes the chance, from 0 to 1, as "
                        "in 0.2"},
    {"recv.end@0", "part 1, \"recv.end@0\": after @ comes the number of a call, from 1 on: 120, "
                   "120-130 or 120-"},
    {"recv.end@", "part 1, \"recv.end@\": after @ comes the number of a call, from 1 on: 120, "
                  "120-130 or 120-"},
    {"recv.end@9-3", "part 1, \"recv.end@9-3\": the range ends before it begins"},
    {"recv.end@99999999999999999999", "part 1, \"recv.end@99999999999999999999\": after @ comes "
                                      "the number of a call, from 1 on: 120, 120-130 or 120-"},
    {"seed=-1", "part 1, \"seed=-1\": the seed must be a whole number of at most 19 digits"},
    {"seed=1,seed=2", "part 2, \"seed=2\": the seed is given twice"},
    {"log=", "part 1, \"log=\": the path must have 1 to 107 bytes"},
};

START_TEST(error_names_the_part)
{
    uint64_t id = 77;

    ASSERT_ERR(HS_E_INVALID, hs_faults_begin(bad[_i].spec, fresh(), &id));
    ck_assert_str_eq(last_error()->msg, bad[_i].want_msg);
    ck_assert_uint_eq(id, 77);
    ck_assert(!hs_faults_are_on());
}
END_TEST

START_TEST(too_many_rules_and_plans_are_refused)
{
    char spec[64 * (HS_FAULT_RULES + 1)] = "seed=1";
    uint64_t ids[9];
    size_t n = 0;

    for (int i = 0; i <= HS_FAULT_RULES; i++)
        (void)strcat(spec, ",recv.end@1");
    ASSERT_ERR(HS_E_INVALID, hs_faults_begin(spec, fresh(), &ids[0]));
    while (n < 8)
        ids[n++] = begin("recv.end@1");
    ASSERT_ERR(HS_E_LIMIT, hs_faults_begin("recv.end@1", fresh(), &ids[8]));
    while (n > 0)
        hs_faults_end(ids[--n]);
    ck_assert(!hs_faults_are_on());
}
END_TEST

START_TEST(log_that_cannot_be_written_is_refused)
{
    uint64_t id;

    ASSERT_ERR(HS_E_INVALID, hs_faults_begin("log=/nowhere/x,recv.end@1", fresh(), &id));
    ck_assert_int_eq(last_error()->sys, ENOENT);
    ck_assert_str_eq(last_error()->msg, "\"log=/nowhere/x\": No such file or directory");
}
END_TEST

/* ---- What fails ---------------------------------------------------------------------------- */

/* One call of a kind through the seam: less than 0, and errno, if it fails. */
static int
call_for_a_file(enum hs_call call)
{
    char buf[64] = "";
    struct stat st;
    DIR *dir;
    int fd, ret = 0;

    switch (call) {
    case HS_CALL_read:
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        ret = (int)hs_sys_read(fd, buf, sizeof(buf));
        (void)close(fd);
        return ret;
    case HS_CALL_stat:
        return hs_sys_lstat("/", &st);
    case HS_CALL_readlink:
        return hs_sys_readlink("/proc/self", buf, sizeof(buf)) < 0 ? -1 : 0;
    case HS_CALL_opendir:
        if ((dir = hs_sys_opendir("/")) == NULL)
            return -1;
        return closedir(dir);
    case HS_CALL_readdir:
        dir = opendir("/");
        ret = hs_sys_readdir(dir) == NULL ? -1 : 0;
        (void)closedir(dir);
        return ret;
    case HS_CALL_unlink:
        return hs_sys_unlink("/proc/none") == 0 || errno != ENOENT ? -1 : 0;
    case HS_CALL_chmod:
        return hs_sys_chmod("/proc/none", 0600) == 0 || errno != ENOENT ? -1 : 0;
    case HS_CALL_flock:
        fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ret = hs_sys_flock(fd, LOCK_SH);
        (void)close(fd);
        return ret;
    default:
        ck_abort_msg("not here");
    }
}

static int
call_for_waiting(enum hs_call call)
{
    struct itimerspec when = {{0}, {0}};
    struct epoll_event event;
    pthread_key_t key;
    char byte;
    int fd, ret;

    switch (call) {
    case HS_CALL_epoll_wait:
        fd = epoll_create1(EPOLL_CLOEXEC);
        ret = hs_sys_epoll_wait(fd, &event, 1, 0);
        (void)close(fd);
        return ret;
    case HS_CALL_timerfd_settime:
        fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
        ret = hs_sys_timerfd_settime(fd, 0, &when, NULL);
        (void)close(fd);
        return ret;
    case HS_CALL_getrandom:
        return hs_sys_getrandom(&byte, 1, 0) == 1 ? 0 : -1;
    case HS_CALL_interface:
        return hs_sys_if_nametoindex("lo") == 0 ? -1 : 0;
    case HS_CALL_thread_key:
        errno = hs_sys_pthread_key_create(&key, NULL);
        return errno != 0 ? -1 : pthread_key_delete(key);
    default:
        return call_for_a_file(call);
    }
}

/* One call of a kind through the seam; 0 or its errno. */
static int
one_call(enum hs_call call)
{
    int fds[2], value = 0, ret = 0;
    socklen_t len = sizeof(value);
    struct iovec piece = {.iov_base = &value, .iov_len = 1};
    void *p;

    tcp_pair(fds);
    errno = 0;
    switch (call) {
    case HS_CALL_alloc:
        ret = (p = hs_sys_malloc(1)) == NULL ? -1 : 0;
        free(p);
        break;
    case HS_CALL_socket:
        ret = hs_sys_socket(AF_INET, SOCK_STREAM, 0);
        break;
    case HS_CALL_shutdown:
        ret = hs_sys_shutdown(fds[0], SHUT_WR);
        break;
    case HS_CALL_setsockopt:
        ret = hs_sys_setsockopt(fds[0], SOL_SOCKET, SO_KEEPALIVE, &value, len);
        break;
    case HS_CALL_getsockopt:
        ret = hs_sys_getsockopt(fds[0], SOL_SOCKET, SO_ERROR, &value, &len);
        break;
    case HS_CALL_open:
        ret = hs_sys_open("/dev/null", O_RDONLY | O_CLOEXEC, 0);
        break;
    case HS_CALL_eventfd:
        ret = hs_sys_eventfd(0, EFD_CLOEXEC);
        break;
    case HS_CALL_write:
        ret = hs_sys_writev(fds[0], &piece, 1) < 0 ? -1 : 0;
        break;
    default:
        ret = call_for_waiting(call);
    }
    value = ret < 0 ? errno : 0;
    if (ret > 2)
        (void)close(ret);
    close_all(fds, 2);
    return value;
}

static const enum hs_call plain_calls[] = {
    HS_CALL_alloc,           HS_CALL_socket,  HS_CALL_shutdown,  HS_CALL_setsockopt,
    HS_CALL_getsockopt,      HS_CALL_open,    HS_CALL_eventfd,   HS_CALL_epoll_wait,
    HS_CALL_timerfd_settime, HS_CALL_read,    HS_CALL_write,     HS_CALL_stat,
    HS_CALL_readlink,        HS_CALL_opendir, HS_CALL_readdir,   HS_CALL_unlink,
    HS_CALL_chmod,           HS_CALL_flock,   HS_CALL_getrandom, HS_CALL_interface,
    HS_CALL_thread_key};

START_TEST(numbered_call_fails_and_no_other)
{
    enum hs_call call = plain_calls[_i];
    char spec[64], want[64];
    uint64_t id, before = hs_faults_logged();

    (void)snprintf(spec, sizeof(spec), "seed=0,%s.fail@2", hs_call_facts[call].name);
    (void)snprintf(want, sizeof(want), "%s.", hs_call_facts[call].name);
    id = begin(spec);
    ck_assert_int_eq(one_call(call), 0);
    ck_assert_int_eq(one_call(call), hs_call_facts[call].fail);
    ck_assert_int_eq(one_call(call), 0);
    hs_faults_end(id);
    ck_assert_int_eq(one_call(call), 0);
    ck_assert_uint_eq(hs_faults_logged(), before + 1);
    ck_assert(strncmp(hs_faults_log(before + 1, spec, sizeof(spec)), want, strlen(want)) == 0);
    ck_assert(strcmp(strrchr(spec, '@'), "@2") == 0);
}
END_TEST

START_TEST(bytes_come_short_never_come_and_come_spoilt)
{
    uint64_t id;
    char buf[16];
    int fds[2];

    tcp_pair(fds);
    put(fds[1], "abcdefgh", 8);
    id = begin("seed=7,recv.short@1,recv.spoilt@2,recv.end@3,recv.reset@4");
    ck_assert_int_eq(hs_sys_recv(fds[0], buf, 16, MSG_PEEK), 8); /* A look is no such call. */
    ck_assert_int_lt(hs_sys_recv(fds[0], buf, 4, MSG_PEEK), 5);
    {
        ssize_t n = hs_sys_recv(fds[0], buf, 4, 0);
        ck_assert(n >= 1 && n < 4 && memcmp(buf, "abc", (size_t)n) == 0);
        ck_assert_int_eq(hs_sys_recv(fds[0], buf, 16, 0), 8 - n);
        ck_assert(memcmp(buf, "abcdefgh" + n, (size_t)(8 - n)) != 0);
    }
    ck_assert_int_eq(hs_sys_recv(fds[0], buf, 16, 0), 0);
    ck_assert_int_eq(hs_sys_recv(fds[0], buf, 16, 0), -1);
    ck_assert_int_eq(errno, ECONNRESET);
    hs_faults_end(id);
    close_all(fds, 2);
}
END_TEST

START_TEST(vectors_come_and_go_short)
{
    char letters[] = "abcdefgh";
    struct iovec iov[3] = {{letters, 0}, {letters, 4}, {letters + 4, 4}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 3};
    char one[4], two[4];
    struct iovec in[2] = {{one, 4}, {two, 4}};
    struct msghdr got = {.msg_iov = in, .msg_iovlen = 2};
    uint64_t id;
    ssize_t n;
    int fds[2];

    tcp_pair(fds);
    id = begin("seed=7,send.short@1,recv.short@1,recv.spoilt@2");
    n = hs_sys_sendmsg(fds[0], &msg, 0);
    ck_assert(n >= 1 && n <= 4);
    ck_assert_int_eq(hs_sys_sendmsg(fds[0], &msg, 0), 8);
    n = hs_sys_recvmsg(fds[1], &got, 0);
    ck_assert(n >= 1 && n <= 4 && memcmp(one, "abcd", 1) == 0);
    ck_assert_ptr_eq(got.msg_iov, in);
    ck_assert_uint_eq(got.msg_iovlen, 2);
    n = hs_sys_recvmsg(fds[1], &got, 0);
    ck_assert(n >= 1 && n <= 4);
    n = hs_sys_recvmsg(fds[1], &got, 0);
    ck_assert(n >= 1 && n <= 8);
    hs_faults_end(id);
    close_all(fds, 2);
}
END_TEST

START_TEST(one_byte_cannot_come_short)
{
    uint64_t id = begin("seed=7,recv.short=1"), before = hs_faults_logged();
    char byte;
    int fds[2];

    tcp_pair(fds);
    put(fds[1], "a", 1);
    ck_assert_int_eq(hs_sys_recv(fds[0], &byte, 1, 0), 1);
    ck_assert_uint_eq(hs_faults_logged(), before);
    hs_faults_end(id);
    close_all(fds, 2);
}
END_TEST

/* ---- Seeds --------------------------------------------------------------------------------- */

static uint64_t
which_fail(const char *spec)
{
    uint64_t id = begin(spec), set = 0;

    for (int i = 0; i < 64; i++)
        set |= (uint64_t)hs_fault_fails(HS_CALL_socket) << i;
    hs_faults_end(id);
    return set;
}

START_TEST(seed_says_which_calls_fail)
{
    uint64_t seven = which_fail("seed=7,socket.fail=0.5");

    ck_assert_uint_eq(which_fail("seed=7,socket.fail=0.5"), seven);
    ck_assert_uint_eq(which_fail("recv.short=0.1,socket.fail=0.5,seed=7"), seven);
    ck_assert_uint_ne(which_fail("seed=8,socket.fail=0.5"), seven);
    ck_assert_uint_eq(which_fail("seed=7,socket.fail=0"), 0);
    ck_assert_uint_eq(which_fail("seed=7,socket.fail=1"), UINT64_MAX);
    ck_assert_uint_eq(which_fail("seed=7,socket.fail@1-3,socket.fail@64"),
                      UINT64_C(7) | 1ull << 63);
}
END_TEST

/* 200,000 draws: six standard deviations are 0.0027. */
START_TEST(chance_is_met)
{
    uint64_t id = begin("seed=1,socket.fail=0.2"), n = 0;

    for (int i = 0; i < 200000; i++)
        n += hs_fault_fails(HS_CALL_socket);
    hs_faults_end(id);
    ck_assert_uint_ge(n, 40000 - 1080);
    ck_assert_uint_le(n, 40000 + 1080);
}
END_TEST

/* ---- Plans in one another ------------------------------------------------------------------ */

START_TEST(outer_plan_goes_on_where_it_was)
{
    uint64_t outer = begin("seed=0,socket.fail@2"), inner, calls[HS_FAULT_CALLS], seed;

    ck_assert(!hs_fault_fails(HS_CALL_socket));
    inner = begin("seed=5,socket.fail@1");
    ck_assert(hs_fault_fails(HS_CALL_socket));
    ck_assert(!hs_fault_fails(HS_CALL_socket));
    ck_assert(hs_faults_plan(inner, &seed, calls));
    ck_assert_uint_eq(seed, 5);
    ck_assert_uint_eq(calls[HS_CALL_socket], 2);
    hs_faults_end(inner);
    ck_assert(!hs_faults_plan(inner, &seed, calls));
    ck_assert(hs_fault_fails(HS_CALL_socket));
    ck_assert(hs_faults_plan(outer, &seed, calls));
    ck_assert_uint_eq(calls[HS_CALL_socket], 2);
    hs_faults_end(outer);
    hs_faults_end(outer);
    ck_assert(!hs_faults_are_on());
}
END_TEST

START_TEST(plan_that_ends_early_leaves_the_inner_one)
{
    uint64_t outer = begin("seed=0,socket.fail=1"), inner = begin("seed=0,socket.fail@2");

    ck_assert(!hs_fault_fails(HS_CALL_socket));
    hs_faults_end(outer);
    ck_assert(hs_fault_fails(HS_CALL_socket));
    hs_faults_end(inner);
    ck_assert(!hs_faults_are_on());
}
END_TEST

/* ---- The log ------------------------------------------------------------------------------- */

START_TEST(log_keeps_the_last)
{
    uint64_t id = begin("seed=0,socket.fail=1"), n = hs_faults_logged();
    char buf[64];

    ck_assert_ptr_null(hs_faults_log(0, buf, sizeof(buf)));
    ck_assert_ptr_null(hs_faults_log(n + 1, buf, sizeof(buf)));
    for (int i = 0; i < HS_FAULTS_LOGGED + 1; i++)
        (void)hs_fault_fails(HS_CALL_socket);
    ck_assert_ptr_null(hs_faults_log(n + 1, buf, sizeof(buf)));
    ck_assert_str_eq(hs_faults_log(n + 2, buf, sizeof(buf)), "socket.no_files@2");
    ck_assert_str_eq(hs_faults_log(hs_faults_logged(), buf, sizeof(buf)), "socket.no_files@4097");
    hs_faults_end(id);
}
END_TEST

START_TEST(flight_recorder_has_them)
{
    uint64_t id = begin("seed=0,socket.reset@1");
    static struct hs_event events[HS_EVENTS_MAX];
    size_t n;

    ck_assert(hs_fault_fails(HS_CALL_socket));
    hs_faults_end(id);
    n = hs_events(events, HS_EVENTS_MAX);
    ck_assert_int_eq(events[n - 1].kind, HS_EVENT_FAULT);
    ck_assert_int_eq(events[n - 1].sys, ECONNRESET);
    ck_assert_str_eq(events[n - 1].text, "socket.reset@1");
}
END_TEST

START_TEST(log_file_has_the_spec_and_a_line_for_each)
{
    char path[] = "/tmp/hardsock-faults-XXXXXX", spec[128], text[256], want[256];
    int fd = mkstemp(path);
    uint64_t id, n = hs_faults_logged();
    ssize_t len;

    (void)snprintf(spec, sizeof(spec), "seed=4,log=%s,socket.reset@2", path);
    id = begin(spec);
    errno = 0;
    ck_assert(!hs_fault_fails(HS_CALL_socket));
    ck_assert(hs_fault_fails(HS_CALL_socket));
    ck_assert_int_eq(errno, ECONNRESET);
    hs_faults_end(id);
    len = read(fd, text, sizeof(text) - 1);
    text[len] = '\0';
    (void)snprintf(want, sizeof(want), "%d 0 seed=4: %s\n%d %llu socket.reset@2\n", (int)getpid(),
                   spec, (int)getpid(), (unsigned long long)n + 1);
    ck_assert_str_eq(text, want);
    (void)close(fd);
    (void)unlink(path);
}
END_TEST

/* ---- Threads and forks --------------------------------------------------------------------- */

static atomic_bool over;
static atomic_int wrong;

static void *
ask(void *arg)
{
    (void)arg;
    while (!over) {
        size_t len = 8;
        int fault = hs_faults_are_on() ? hs_fault_decide(HS_CALL_recv, &len) : 0;

        wrong += fault != 0 && fault != ECONNRESET && fault != ETIMEDOUT;
        wrong += len == 0 || len > 8;
    }
    return NULL;
}

/* Plans come and go while others ask: each answer is one that some plan gives. */
START_TEST(who_asks_meanwhile_gets_what_one_plan_asked_for)
{
    struct thread threads[3];

    over = false;
    for (size_t i = 0; i < LENGTH(threads); i++)
        thread_start(&threads[i], ask, NULL);
    for (int i = 0; i < 2000; i++) {
        uint64_t a = begin("seed=1,recv.reset=0.5,connect.refused=1");
        uint64_t b = begin("seed=2,connect.refused=1,recv.timeout=0.5,recv.short=0.5");

        hs_faults_end(a);
        hs_faults_end(b);
    }
    over = true;
    for (size_t i = 0; i < LENGTH(threads); i++)
        (void)thread_join(&threads[i]);
    ck_assert_int_eq(wrong, 0);
}
END_TEST

static void *
fail_on_and_on(void *arg)
{
    (void)arg;
    while (!over)
        (void)hs_fault_fails(HS_CALL_socket);
    return NULL;
}

/* An entry is that of the fault asked for, or not there yet: never what was in its place before. */
START_TEST(log_tells_nothing_of_an_earlier_round)
{
    uint64_t id = begin("seed=0,socket.fail=1"), first = hs_faults_logged(), n = 0;
    struct thread t;

    over = false;
    thread_start(&t, fail_on_and_on, NULL);
    while (n < (uint64_t)20 * HS_FAULTS_LOGGED) {
        char buf[64], want[64];
        const char *text;

        if (n == hs_faults_logged() - first)
            continue;
        n = hs_faults_logged() - first;
        text = hs_faults_log(first + n, buf, sizeof(buf));
        (void)snprintf(want, sizeof(want), "socket.no_files@%llu", (unsigned long long)n);
        if (text != NULL)
            ck_assert_str_eq(text, want);
    }
    over = true;
    (void)thread_join(&t);
    hs_faults_end(id);
}
END_TEST

static int
fails_in_child(void *arg)
{
    uint64_t id;

    (void)arg;
    if (!hs_fault_fails(HS_CALL_socket))
        return 1;
    return hs_faults_begin("seed=0,bind.fail@1", NULL, &id) == HS_OK && hs_fault_fails(HS_CALL_bind)
               ? 0
               : 2;
}

START_TEST(forked_child_has_the_same_plan)
{
    uint64_t id = begin("seed=0,socket.fail@2");

    ck_assert(!hs_fault_fails(HS_CALL_socket));
    ck_assert_int_eq(in_child(fails_in_child, NULL), 0);
    ck_assert(hs_fault_fails(HS_CALL_socket));
    hs_faults_end(id);
}
END_TEST

START_TEST(message_without_room_for_bytes_is_not_spoilt)
{
    struct msghdr none = {0};
    uint64_t id;
    int fds[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    ASSERT_OK(hs_faults_begin("recv.spoilt=1", fresh(), &id));
    ck_assert_int_le(hs_sys_recvmsg(fds[0], &none, MSG_DONTWAIT), 0); /* as for MSG_ERRQUEUE */
    hs_faults_end(id);
    close_all(fds, 2);
}
END_TEST

START_TEST(kernel_that_says_nothing_ends_the_question)
{
    uint32_t counts[HS_TCP_STATES];
    struct hs_foreign *rows;
    uint64_t id;
    size_t n;

    ASSERT_OK(hs_faults_begin("recv.end=1", fresh(), &id));
    ASSERT_ERR(HS_E_SYSTEM, hs_foreign_list(fresh(), &rows, &n));
    ASSERT_ERR(HS_E_SYSTEM, hs_diag_count(NULL, fresh(), counts));
    hs_faults_end(id);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("faults");

    tcase_add_loop_test(tc, spec_is_read, 0, LENGTH(good));
    tcase_add_loop_test(tc, error_names_the_part, 0, LENGTH(bad));
    tcase_add_test(tc, too_many_rules_and_plans_are_refused);
    tcase_add_test(tc, log_that_cannot_be_written_is_refused);
    tcase_add_loop_test(tc, numbered_call_fails_and_no_other, 0, LENGTH(plain_calls));
    tcase_add_test(tc, bytes_come_short_never_come_and_come_spoilt);
    tcase_add_test(tc, vectors_come_and_go_short);
    tcase_add_test(tc, one_byte_cannot_come_short);
    tcase_add_test(tc, seed_says_which_calls_fail);
    tcase_add_test(tc, chance_is_met);
    tcase_add_test(tc, outer_plan_goes_on_where_it_was);
    tcase_add_test(tc, plan_that_ends_early_leaves_the_inner_one);
    tcase_add_test(tc, log_keeps_the_last);
    tcase_add_test(tc, flight_recorder_has_them);
    tcase_add_test(tc, log_file_has_the_spec_and_a_line_for_each);
    tcase_add_test(tc, who_asks_meanwhile_gets_what_one_plan_asked_for);
    tcase_add_test(tc, log_tells_nothing_of_an_earlier_round);
    tcase_add_test(tc, forked_child_has_the_same_plan);
    tcase_add_test(tc, message_without_room_for_bytes_is_not_spoilt);
    tcase_add_test(tc, kernel_that_says_nothing_ends_the_question);
    return run_case(tc);
}
