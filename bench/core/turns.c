/* turns.c: what the seam of faults is measured with: calls of the core, again and again.
 *
 *     turns exchange N    N times 64 bytes from one end of a socket pair to the other, by the core
 *     turns connect N     N times connect to a listener on loopback, and close
 *
 * Prints the nanoseconds of processor time that one turn took, in user space and in all.
 */
#include "hardsock.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static void
must(hs_err rv, const char *what)
{
    if (rv == HS_OK)
        return;
    (void)fprintf(stderr, "turns: %s: %s\n", what, hs_err_text(rv));
    exit(1);
}

static void
exchange(long n)
{
    struct hs_conn *a, *b;
    uint8_t bytes[64] = {0};
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        exit(1);
    must(hs_conn_adopt(fds[0], NULL, NULL, &a), "adopt");
    must(hs_conn_adopt(fds[1], NULL, NULL, &b), "adopt");
    for (long i = 0; i < n; i++) {
        struct hs_op out = HS_OP_INIT(HS_NEVER, NULL), in = HS_OP_INIT(HS_NEVER, NULL);

        must(hs_conn_send_all(a, &out, bytes, sizeof(bytes), NULL), "send");
        must(hs_conn_recv_exactly(b, &in, bytes, sizeof(bytes), NULL), "recv");
    }
    hs_conn_unref(a);
    hs_conn_unref(b);
}

/* The listener's end is closed first, by a reset: nothing stays in TIME_WAIT. */
static void
connect_and_close(long n)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct linger now = {.l_onoff = 1};
    socklen_t len = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct hs_connect_options opts;
    struct hs_endpoint ep;

    if (bind(listener, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(listener, 128) != 0 ||
        getsockname(listener, (struct sockaddr *)&at, &len) != 0)
        exit(1);
    hs_connect_options_init(&opts);
    must(hs_endpoint_from_host("127.0.0.1", 9, ntohs(at.sin_port), NULL, &ep), "endpoint");
    for (long i = 0; i < n; i++) {
        struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);
        struct hs_connector *cn;
        struct hs_conn *c;
        int fd;

        must(hs_connector_new(&ep, &opts, NULL, &cn), "connector");
        must(hs_connector_run(cn, &op, NULL, &c), "connect");
        hs_connector_free(cn);
        if ((fd = accept(listener, NULL, NULL)) < 0)
            exit(1);
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        (void)close(fd);
        hs_conn_unref(c);
    }
    (void)close(listener);
}

static double
ns_of(struct timeval t)
{
    return (double)t.tv_sec * 1e9 + (double)t.tv_usec * 1e3;
}

int
main(int argc, char **argv)
{
    long n = argc == 3 ? atol(argv[2]) : 0;
    struct rusage before, after;
    double user;

    if (n <= 0)
        return 2;
    (void)getrusage(RUSAGE_SELF, &before);
    if (strcmp(argv[1], "exchange") == 0)
        exchange(n);
    else
        connect_and_close(n);
    (void)getrusage(RUSAGE_SELF, &after);
    user = ns_of(after.ru_utime) - ns_of(before.ru_utime);
    (void)printf("%.1f %.1f\n", user / (double)n,
                 (user + ns_of(after.ru_stime) - ns_of(before.ru_stime)) / (double)n);
    return 0;
}
