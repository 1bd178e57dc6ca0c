/* peer.h: what the peers of the bench share.
 *
 * A peer listens on 127.0.0.1, prints its port, and serves until its stdin ends. Its listener has
 * SO_LINGER 0, which accepted sockets inherit: its close answers with a reset, which removes the
 * client's TIME_WAIT. So no run leaves thousands of occupied ports behind that would slow the next
 * one, and all clients are treated alike.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static inline void
die(const char *what)
{
    fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

static inline int
open_listener(void)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    socklen_t len = sizeof sin;
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        bind(fd, (struct sockaddr *)&sin, sizeof sin) != 0 || listen(fd, 4096) != 0 ||
        getsockname(fd, (struct sockaddr *)&sin, &len) != 0)
        die("listen");
    printf("%d\n", ntohs(sin.sin_port));
    fflush(stdout);
    return fd;
}

/* -1 when the client has left already. */
static inline int
accept_one(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0 && errno != ECONNABORTED && errno != EINTR)
        die("accept");
    return fd;
}

static inline void
raise_descriptor_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static inline void *
exit_at_end_of_stdin(void *arg)
{
    char byte;
    (void)arg;
    while (read(STDIN_FILENO, &byte, 1) > 0) {}
    _exit(0);
}

static inline void
end_with_stdin(void)
{
    pthread_t watcher;
    if (pthread_create(&watcher, NULL, exit_at_end_of_stdin, NULL) != 0)
        die("pthread_create");
    pthread_detach(watcher);
}

#endif
