/* support_dns.c: see support_dns.h.
 *
 * A process of its own, so that it neither shares a thread with the tests nor dies of their forks.
 */
#include "support_dns.h"

#include "support.h"

#include <netinet/in.h>
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

        len = sizeof(peer);
        if ((got = recvfrom(fd, q, sizeof(q), 0, (struct sockaddr *)&peer, &len)) < 0)
            _exit(1);
        if ((end = question_end(q, (size_t)got)) == 0 || memmem(q, end, "slow", 4) != NULL)
            continue;
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
    pid_t pid;

    ck_assert_int_eq(bind(fd, &addr.sa, addr.len), 0);
    ck_assert_int_ge(pid = fork(), 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(fd, n);
    }
    (void)close(fd);
    return pid;
}

void
name_server_stop(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}
