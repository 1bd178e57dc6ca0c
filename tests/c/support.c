/* support.c: see support.h. Linked into every test program, torture programs included, so it must
 * not define main and must work while system calls are being made to fail only for others.
 */
#include "support.h"

#include "base/thread.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static _Thread_local struct hs_error own_error;
static long fds_before;

struct hs_error *
fresh(void)
{
    own_error = (struct hs_error){0};
    return &own_error;
}

struct hs_error *
last_error(void)
{
    return &own_error;
}

void
assert_err(hs_err want, hs_err got, const char *what, const char *file, int line)
{
    ck_assert_msg(want == got, "%s:%d: %s\n  wanted: %s\n  got:    %s [%s, errno %d]", file, line,
                  what, hs_err_text(want), hs_err_text(got), own_error.msg, own_error.sys);
}

bool
under_valgrind(void)
{
    const char *text = getenv("LD_PRELOAD");

    return text != NULL && strstr(text, "vgpreload") != NULL;
}

int
slowness(void)
{
    const char *text = getenv("CK_TIMEOUT_MULTIPLIER");

    return text == NULL || atoi(text) < 1 ? 1 : atoi(text);
}

struct hs_op
op_in(int64_t span_ns)
{
    /* A deadline of milliseconds is over before the first look where a call takes that long. */
    if (span_ns > 0 && span_ns < SECOND)
        span_ns *= slowness();
    return (struct hs_op)HS_OP_INIT(hs_deadline_after(span_ns), NULL);
}

struct hs_op
op_with(struct hs_token *token)
{
    return (struct hs_op)HS_OP_INIT(hs_deadline_after(10 * SECOND), token);
}

struct hs_op
op_step(int64_t span_ns)
{
    struct hs_op op = op_in(span_ns);

    op.stepping = true;
    return op;
}

void
wait_for_want(const struct hs_op *op)
{
    struct pollfd fd = {.fd = op->want_fd, .events = op->want_events};
    int64_t now = hs_now(), until = now + 10 * SECOND, left;
    struct timespec timeout;

    if (op->want_at_ns < until)
        until = op->want_at_ns;
    left = until > now ? until - now : 0;
    timeout = (struct timespec){.tv_sec = left / SECOND, .tv_nsec = left % SECOND};
    ck_assert_int_ge(ppoll(&fd, 1, &timeout, NULL), 0);
}

void
breathe(void)
{
    const struct timespec moment = {.tv_nsec = 200000};

    (void)nanosleep(&moment, NULL);
}

long
count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    long n = -3; /* ".", "..", and the directory itself */

    ck_assert_ptr_nonnull(dir);
    while (readdir(dir) != NULL)
        n++;
    (void)closedir(dir);
    return n;
}

void
ledger_open(void)
{
    struct hs_token *t;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &t));
    ASSERT_ERR(HS_E_DEADLINE, hs_token_wait(t, HS_TRY_ONCE, fresh())); /* Makes our waker. */
    hs_token_unref(t);
    fds_before = count_fds();
}

static bool
lookups_are_over(struct hs_live *live)
{
    hs_live_counts(live);
    return live->orphans == 0 && live->lookups == 0 && live->lingering == 0;
}

static bool
pools_are_over(struct hs_live *live)
{
    hs_live_counts(live);
    return live->pools == 0;
}

static bool
notifiers_are_over(struct hs_live *live)
{
    hs_live_counts(live);
    return live->notifiers == 0;
}

void
ledger_close(void)
{
    struct hs_live live;

    EVENTUALLY(lookups_are_over(&live));   /* A abandoned lookup ends when libc lets it. */
    EVENTUALLY(notifiers_are_over(&live)); /* By their threads. */
    EVENTUALLY(pools_are_over(&live));     /* Their pool worker lets go of them, then ends. */
    ck_assert_int_eq(live.tokens, 0);
    ck_assert_int_eq(live.conns, 0);
    ck_assert_int_eq(live.listeners, 0);
    ck_assert_int_eq(live.connectors, 0);
    ck_assert_int_eq(live.buffers, 0);
    ck_assert_int_eq(live.breakers, 0);
    ck_assert_int_eq(live.slots, 0);
    ck_assert_int_eq(live.parkings, 0);
    ck_assert_int_eq(live.departures, 0);
    ck_assert_int_eq(live.delays, 0);
    EVENTUALLY(count_fds() == fds_before); /* The pool worker of pools ends when it is ready. */
}

TCase *
case_new(const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, ledger_open, ledger_close);
    return tc;
}

int
run_case(TCase *tc)
{
    return run_cases(&tc, 1);
}

int
run_cases(TCase *const *tcs, size_t n)
{
    Suite *suite = suite_create("hardsock");
    SRunner *runner;
    int failed;

    for (size_t i = 0; i < n; i++)
        suite_add_tcase(suite, tcs[i]);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void *
thread_main(void *arg)
{
    struct thread *t = arg;

    t->tid = (pid_t)syscall(SYS_gettid);
    return t->fn(t->arg);
}

void
thread_start(struct thread *t, void *(*fn)(void *arg), void *arg)
{
    t->tid = 0;
    t->fn = fn;
    t->arg = arg;
    ck_assert_int_eq(pthread_create(&t->id, NULL, thread_main, t), 0);
}

/* What /proc says is the machine's number: below an emulator it is not the program's own. */
#ifndef MACHINE_SYS_PPOLL
#define MACHINE_SYS_PPOLL SYS_ppoll
#endif

/* One that has ended sleeps for good: what became of it is for the test to say. */
static bool
sleeps_in_ppoll(struct thread *t)
{
    char path[64], text[64] = "";
    int fd;

    if (t->tid == 0)
        return false;
    (void)snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", t->tid);
    if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return errno == ENOENT;
    if (read(fd, text, sizeof(text) - 1) < 0)
        text[0] = '\0';
    (void)close(fd);
    return text[0] >= '0' && text[0] <= '9' && atoi(text) == MACHINE_SYS_PPOLL;
}

void
thread_wait_asleep(struct thread *t)
{
    EVENTUALLY(sleeps_in_ppoll(t));
}

void *
thread_join(struct thread *t)
{
    void *result;

    ck_assert_int_eq(pthread_join(t->id, &result), 0);
    return result;
}

struct hs_endpoint
endpoint_of(const struct hs_addr *addr)
{
    char text[HS_ADDR_TEXT_SIZE];
    struct hs_endpoint ep;

    (void)hs_addr_text(addr, text, sizeof(text));
    ASSERT_OK(hs_endpoint_parse(text, strlen(text), fresh(), &ep));
    return ep;
}

struct hs_addr
addr_of(const char *text)
{
    struct hs_endpoint ep;

    ASSERT_OK(hs_endpoint_parse(text, strlen(text), fresh(), &ep));
    return ep.addr;
}

int
tcp_listener(int backlog, struct hs_addr *ret_addr)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *ret_addr = addr_of("127.0.0.1:0");
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(bind(fd, &ret_addr->sa, ret_addr->len), 0);
    ck_assert_int_eq(listen(fd, backlog), 0);
    ret_addr->len = sizeof(ret_addr->storage);
    ck_assert_int_eq(getsockname(fd, &ret_addr->sa, &ret_addr->len), 0);
    return fd;
}

/* A backlog of 0 has room for one; what comes later waits for an answer to its SYN. */
void
black_hole(int fds[BLACK_HOLE_FDS], struct hs_addr *ret_addr)
{
    fds[0] = tcp_listener(0, ret_addr);
    for (int i = 1; i < BLACK_HOLE_FDS; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        ck_assert_int_ge(fds[i], 0);
        (void)connect(fds[i], &ret_addr->sa, ret_addr->len);
    }
}

void
close_all(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        (void)close(fds[i]);
}

static int
bound_to(const struct hs_addr *addr)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    ck_assert_int_eq(bind(fd, &addr->sa, addr->len), 0);
    return fd;
}

int
refused_addr(struct hs_addr *ret_addr)
{
    const struct hs_addr any = addr_of("127.0.0.1:0");
    int fd = bound_to(&any);

    ret_addr->len = sizeof(ret_addr->storage);
    ck_assert_int_eq(getsockname(fd, &ret_addr->sa, &ret_addr->len), 0);
    return fd;
}

/* Both sockets allow it (SO_REUSEADDR), and only one of them listens: socket(7). */
int
listener_at(const struct hs_addr *addr, int backlog)
{
    int fd = bound_to(addr);

    ck_assert_int_eq(listen(fd, backlog), 0);
    return fd;
}

void
tcp_pair(int fds[2])
{
    struct hs_addr addr;
    int listener = tcp_listener(1, &addr);

    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(fds[0], &addr.sa, addr.len), 0);
    fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    ck_assert_int_ge(fds[1], 0);
    (void)close(listener);
}

static struct pair
pair_of(int fds[2], const struct hs_sockopts *opts)
{
    struct pair p = {.peer = fds[1]};

    ASSERT_OK(hs_conn_adopt(fds[0], opts, fresh(), &p.c));
    return p;
}

struct pair
pair_unix(void)
{
    int fds[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    return pair_of(fds, NULL);
}

struct pair
pair_tcp(void)
{
    int fds[2];

    tcp_pair(fds);
    return pair_of(fds, NULL);
}

struct pair
pair_small(void)
{
    struct hs_sockopts opts;
    int fds[2];

    hs_sockopts_init(&opts);
    opts.send_buffer = 4096;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    return pair_of(fds, &opts);
}

void
pair_free(struct pair *p)
{
    hs_conn_unref(p->c);
    if (p->peer >= 0)
        (void)close(p->peer);
}

void
put(int fd, const void *bytes, size_t n)
{
    ck_assert_int_eq(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
}

void
get(int fd, void *bytes, size_t n)
{
    ck_assert_int_eq(recv(fd, bytes, n, MSG_WAITALL), (ssize_t)n);
}

size_t
fill(struct hs_conn *c)
{
    static const uint8_t zeros[4096];
    size_t total = 0, n;
    hs_err rv;

    for (;;) {
        struct hs_op op = HS_OP_INIT(HS_TRY_ONCE, NULL);

        if ((rv = hs_conn_send(c, &op, zeros, sizeof(zeros), fresh(), &n)) != HS_OK)
            break;
        total += n;
    }
    ASSERT_ERR(HS_E_DEADLINE, rv);
    return total;
}

uint8_t
pattern(uint64_t stream, size_t at)
{
    uint64_t x = (stream + 1) * UINT64_C(0x9e3779b97f4a7c15) + at * UINT64_C(0xbf58476d1ce4e5b9);

    return (uint8_t)((x ^ (x >> 29)) >> 17);
}

void
write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
}

static void
mount_over(const char *path, const char *text)
{
    char temporary[] = "/tmp/hardsock-test-XXXXXX";
    int fd;

    if (text == NULL)
        return;
    ck_assert_int_ge(fd = mkstemp(temporary), 0);
    (void)close(fd);
    (void)chmod(temporary, 0644);
    write_file(temporary, text);
    ck_assert_msg(mount(temporary, path, "none", MS_BIND, NULL) == 0, "%s: %s", path,
                  strerror(errno));
    (void)unlink(temporary);
}

static bool
unshare_all(void)
{
    char map[64];
    unsigned uid = getuid(), gid = getgid();

    if (unshare(CLONE_NEWNET | CLONE_NEWNS) == 0)
        return true;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS) != 0)
        return false;
    write_file("/proc/self/setgroups", "deny");
    (void)snprintf(map, sizeof(map), "0 %u 1", uid);
    write_file("/proc/self/uid_map", map);
    (void)snprintf(map, sizeof(map), "0 %u 1", gid);
    write_file("/proc/self/gid_map", map);
    return true;
}

/* libcheck has no skip: the reason is printed, and in continuous integration it is a failure. */
void
skipped(const char *why, int sys)
{
    const char *ci = getenv("CI");

    ck_assert_msg(ci == NULL || strcmp(ci, "true") != 0, "CI must provide this: %s: %s", why,
                  strerror(sys));
    (void)printf("skipped: %s: %s\n", why, strerror(sys));
}

bool
enter_namespace(const char *hosts, const char *resolv)
{
    struct ifreq request = {.ifr_name = "lo"};
    int fd;

    if (!unshare_all()) {
        skipped("no namespace of our own", errno);
        return false;
    }
    ck_assert_int_eq(mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL), 0);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    ck_assert_int_ge(fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 0);
    ck_assert_int_eq(ioctl(fd, SIOCSIFFLAGS, &request), 0);
    (void)close(fd);
    mount_over("/etc/hosts", hosts);
    mount_over("/etc/resolv.conf", resolv);
    return true;
}

/* The locks of the address sanitizer's allocator stay locked in a child, no matter which thread had
 * them at the fork (seen with GCC 12; the C library sees to its own). A thread of ours that has
 * just started allocates; one that sleeps holds none of them. */
#ifdef __SANITIZE_ADDRESS__
static bool
is_awake(pid_t tid)
{
    char path[64], name[16] = "";
    FILE *comm;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%d/comm", (int)tid);
    if ((comm = fopen(path, "re")) == NULL)
        return false;
    (void)!fgets(name, sizeof(name), comm);
    (void)fclose(comm);
    return strncmp(name, "hs-", 3) == 0 && !hs_thread_sleeps(tid);
}

static bool
threads_of_ours_sleep(void)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    bool awake = false;

    while (tasks != NULL && !awake && (task = readdir(tasks)) != NULL)
        awake = task->d_name[0] != '.' && is_awake((pid_t)atoi(task->d_name));
    if (tasks != NULL)
        (void)closedir(tasks);
    return !awake;
}
#endif

static pid_t
fork_when_safe(void)
{
#ifdef __SANITIZE_ADDRESS__
    int64_t until = hs_now() + 5 * SECOND;

    while (!threads_of_ours_sleep() && hs_now() < until)
        breathe();
#endif
    return fork();
}

int
in_child(int (*fn)(void *arg), void *arg)
{
    pid_t pid = fork_when_safe();
    int64_t until = hs_now() + 10 * SECOND;
    int status;
    pid_t got;

    if (pid == 0) /* No ck_assert here: another thread may have held libcheck's lock at the fork. */
        _exit(fn(arg));
    ck_assert_int_ge(pid, 0);
    while ((got = waitpid(pid, &status, WNOHANG)) == 0 && hs_now() < until)
        breathe();
    if (got == 0) {
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, &status, 0);
        return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void
limit_descriptors(rlim_t n)
{
    struct rlimit limit;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = n < limit.rlim_max ? n : limit.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

void
forbid_more_descriptors(void)
{
    int next = dup(0);

    ck_assert_int_ge(next, 0);
    (void)close(next);
    limit_descriptors((rlim_t)next);
}

void
allow_descriptors(void)
{
    limit_descriptors(1024);
}

int
fds_of_kind(const char *kind, int *fds, int most)
{
    char path[64], target[64], want[64];
    int found = 0;

    (void)snprintf(want, sizeof(want), "anon_inode:[%s]", kind);
    for (int fd = 3; fd < 256; fd++) {
        ssize_t n;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        if ((n = readlink(path, target, sizeof(target) - 1)) < 0)
            continue;
        target[n] = '\0';
        if (strcmp(target, want) == 0) {
            ck_assert_int_lt(found, most);
            fds[found++] = fd;
        }
    }
    return found;
}

int
close_all_of_kind(const char *kind)
{
    int fds[256], n = fds_of_kind(kind, fds, 256), closed = 0;

    for (int i = 0; i < n; i++)
        closed += syscall(SYS_close, fds[i]) == 0; /* Unseen by TSan: this race is meant. */
    return closed;
}
