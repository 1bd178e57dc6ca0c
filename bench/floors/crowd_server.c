/* crowd_server.c: the floor of works "ten_thousand_*": one epoll loop accepts and echoes.
 *
 * Variants: "echo" and "churn", which is what it has its clients (peers/crowd.c) do. The server has
 * a thread of its own; the main thread gives the crowd its commands and passes its answers on.
 */
#define _GNU_SOURCE
#include "worker.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#define BACKLOG 4096
#define EVENTS 256
#define RECEIVE_SIZE 4096

static int listener;

static void
watch(int ep, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0)
        die("epoll_ctl");
}

static void
accept_all(int ep)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
        watch(ep, fd);
}

static void *
serve(void *arg)
{
    char buf[RECEIVE_SIZE];
    struct epoll_event events[EVENTS];
    int ep = epoll_create1(EPOLL_CLOEXEC);
    (void)arg;
    watch(ep, listener);
    for (;;) {
        int n = epoll_wait(ep, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                accept_all(ep);
                continue;
            }
            ssize_t got = recv(fd, buf, sizeof buf, 0);
            if (got <= 0 || send(fd, buf, (size_t)got, MSG_NOSIGNAL) != got)
                close(fd);
        }
    }
}

static int
open_server(void)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    socklen_t len = sizeof sin;
    struct rlimit limit;
    pthread_t thread;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&sin, sizeof sin) != 0 ||
        listen(listener, BACKLOG) != 0 ||
        getsockname(listener, (struct sockaddr *)&sin, &len) != 0 ||
        pthread_create(&thread, NULL, serve, NULL) != 0)
        die("listen");
    return ntohs(sin.sin_port);
}

static void
command(FILE *crowd, char *answer, int size)
{
    fflush(crowd);
    if (fgets(answer, size, crowd) == NULL)
        die("the crowd");
    fseek(crowd, 0, SEEK_CUR); /* from reading to writing */
}

int
main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    struct sockaddr_in sin = parse_target(argv[2], argv[3]);
    FILE *crowd = NULL;
    char answer[128];
    double seconds;
    long count;

    say_ready();
    while (next_command(&seconds, &count)) {
        if (crowd == NULL) {
            int port = open_server();
            crowd = fdopen(connect_plain(&sin, 0, 0), "r+");
            fprintf(crowd, "open %d %ld\n", port, count);
            command(crowd, answer, sizeof answer);
        }
        fprintf(crowd, "%s %f\n", argv[1], seconds);
        command(crowd, answer, sizeof answer);
        fputs(answer, stdout);
        fflush(stdout);
    }
    return 0;
}
