/* support_dns.c: see support_dns.h.
 *
 * A process of its own, so that it neither shares a thread with the tests nor dies of their forks.
 */
#include "support_dns.h"

#include "support.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HEADER = 12, TYPE_A = 1 };

/* Where the question ends, or 0 when it is not a question. */
static size_t
question_end(const uint8_t *q, size_t n)
{
    size_t at = HEADER;

    while (at < n && q[at] != 0)
        at += (size_t)q[at] + 1;
    return at + 5 <= n ? at + 5 : 0;
}

static size_t
append_address(uint8_t *at, int last)
{
    const uint8_t record[] = {0xc0, HEADER, 0, TYPE_A, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 0};

    memcpy(at, record, sizeof(record));
    at[sizeof(record) - 1] = (uint8_t)last;
    return sizeof(record);
}

/* A slow question. It has room for the names of the tests. */
struct question {
    struct sockaddr_in peer;
    uint8_t bytes[120];
    size_t len;
};

static struct question kept[4096];
static size_t n_kept;
static volatile sig_atomic_t let_go;

static void
on_let_go(int sig)
{
    (void)sig;
    let_go = 1;
}

static void
refuse(int fd, struct question *q)
{
    memcpy(q->bytes + 2, (const uint8_t[]){0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0}, 10);
    (void)sendto(fd, q->bytes, q->len, 0, (struct sockaddr *)&q->peer, sizeof(q->peer));
}

static void
keep_or_refuse(int fd, const struct sockaddr_in *peer, const uint8_t *bytes, size_t len)
{
    struct question q = {.peer = *peer, .len = len};

    if (len > sizeof(q.bytes))
        return;
    memcpy(q.bytes, bytes, len);
    if (let_go)
        refuse(fd, &q);
    else if (n_kept < sizeof(kept) / sizeof(kept[0]))
        kept[n_kept++] = q;
}

/* Waits for a question. The signal comes in here only, so none is missed. */
static void
wait_for_question(int fd)
{
    struct pollfd in = {.fd = fd, .events = POLLIN};
    sigset_t none;

    (void)sigemptyset(&none);
    while (ppoll(&in, 1, NULL, &none) <= 0) {
        if (errno != EINTR)
            _exit(1);
        while (let_go && n_kept > 0)
            refuse(fd, &kept[--n_kept]);
    }
}

static void
serve(int fd, int n)
{
    uint8_t q[512];
    struct sockaddr_in peer;
    socklen_t len;
    ssize_t got;

    for (;;) {
        size_t end;
        bool a;

        wait_for_question(fd);
        len = sizeof(peer);
        if ((got = recvfrom(fd, q, sizeof(q), 0, (struct sockaddr *)&peer, &len)) < 0)
            _exit(1);
        if ((end = question_end(q, (size_t)got)) == 0)
            continue;
        if (memmem(q, end, "slow", 4) != NULL) {
            keep_or_refuse(fd, &peer, q, end);
            continue;
        }
        a = q[end - 3] == TYPE_A;
        memcpy(q + 2, (uint8_t[]){0x81, 0x80, 0, 1, 0, a ? (uint8_t)n : 0, 0, 0, 0, 0}, 10);
        for (int i = 1; a && i <= n; i++)
            end += append_address(q + end, i);
        (void)sendto(fd, q, end, 0, (struct sockaddr *)&peer, len);
    }
}

pid_t
name_server_start(int n)
{
    struct hs_addr addr = addr_of("127.0.0.1:53");
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sigaction action = {.sa_handler = on_let_go}, before;
    sigset_t usr1, mask;
    pid_t pid;

    ck_assert_int_eq(bind(fd, &addr.sa, addr.len), 0);
    (void)sigemptyset(&usr1);
    (void)sigaddset(&usr1, SIGUSR1);
    (void)pthread_sigmask(SIG_BLOCK, &usr1, &mask);
    (void)sigaction(SIGUSR1, &action, &before);
    ck_assert_int_ge(pid = fork(), 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(fd, n);
    }
    (void)sigaction(SIGUSR1, &before, NULL);
    (void)pthread_sigmask(SIG_SETMASK, &mask, NULL);
    (void)close(fd);
    return pid;
}

void
name_server_let_go(pid_t pid)
{
    ck_assert_int_eq(kill(pid, SIGUSR1), 0);
}

static bool
lookups_are_over(void)
{
    struct hs_resolver_stats stats;

    hs_resolver_stats(&stats);
    return stats.live == 0;
}

void
name_server_stop(pid_t pid)
{
    name_server_let_go(pid);
    EVENTUALLY(lookups_are_over());
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}
