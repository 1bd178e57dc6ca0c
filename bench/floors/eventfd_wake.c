/* eventfd_wake.c: the floor of work "cancel_latency": one thread sleeps in read(2) on an eventfd,
 * the other writes to it; measured from just before the write to just after the read.
 *
 * As in every other worker the sleeper is first seen asleep in the kernel, and then left asleep
 * for ASLEEP_FOR_NS more (spinning, not sleeping), so that its core is equally idle everywhere.
 */
#define _GNU_SOURCE
#include "worker.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#define ASLEEP_FOR_NS 200000
#define MAX_SAMPLES 20000

struct shared {
    int wake_fd;
    pid_t sleeper;
    int stop;
    int64_t woken_at;
    sem_t go, ready, caught;
};

static void *
sleeper(void *arg)
{
    struct shared *s = arg;
    s->sleeper = (pid_t)syscall(SYS_gettid);
    for (;;) {
        uint64_t value;
        sem_wait(&s->go);
        if (s->stop)
            return NULL;
        sem_post(&s->ready);
        if (read(s->wake_fd, &value, sizeof value) != sizeof value)
            die("read");
        s->woken_at = now_ns();
        sem_post(&s->caught);
    }
}

/* Asleep in a system call other than a futex (the semaphores): then it can only be the read. */
static int
is_asleep(int proc_fd)
{
    char text[32];
    ssize_t n = pread(proc_fd, text, sizeof text - 1, 0);
    if (n <= 0)
        die("/proc/self/task/TID/syscall");
    text[n] = '\0';
    return text[0] >= '0' && text[0] <= '9' && atol(text) != SYS_futex;
}

static int64_t
one_sample(struct shared *s, int *proc_fd)
{
    sem_post(&s->go);
    sem_wait(&s->ready);
    if (*proc_fd < 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)s->sleeper);
        *proc_fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    while (!is_asleep(*proc_fd)) {}
    int64_t until = now_ns() + ASLEEP_FOR_NS;
    while (now_ns() < until) {}
    uint64_t one = 1;
    int64_t start = now_ns();
    if (write(s->wake_fd, &one, sizeof one) != sizeof one)
        die("write");
    sem_wait(&s->caught);
    return s->woken_at - start;
}

int
main(int argc, char **argv)
{
    (void)argv;
    if (argc != 4)
        return 2;
    static int64_t samples[MAX_SAMPLES];
    double seconds;
    long count;

    say_ready();
    while (next_command(&seconds, &count)) {
        struct shared s = {.wake_fd = eventfd(0, EFD_CLOEXEC)};
        pthread_t thread;
        int proc_fd = -1;
        size_t n = 0;
        sem_init(&s.go, 0, 0);
        sem_init(&s.ready, 0, 0);
        sem_init(&s.caught, 0, 0);
        if (s.wake_fd < 0 || pthread_create(&thread, NULL, sleeper, &s) != 0)
            die("start");
        int64_t end = now_ns() + (int64_t)(seconds * 1e9);
        while (n < MAX_SAMPLES && now_ns() < end)
            samples[n++] = one_sample(&s, &proc_fd);
        s.stop = 1;
        sem_post(&s.go);
        pthread_join(thread, NULL);
        close(proc_fd);
        close(s.wake_fd);

        fputs("{\"latencies_ns\": [", stdout);
        for (size_t i = 0; i < n; i++)
            printf("%s%lld", i > 0 ? "," : "", (long long)samples[i]);
        puts("]}");
        fflush(stdout);
    }
    return 0;
}
