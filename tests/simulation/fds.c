/* fds.c: descriptors that are numbers in a table, and what is waited for at them.
 *
 * A new one gets the lowest number that is free, as in a kernel, so that numbers are used again as
 * soon as they can be. Numbers below FIRST are real, and go to the real calls.
 *
 * A file that changes wakes the sets that watch it: an item with EPOLLET is told once for each
 * wake, one without as long as there is something. Sets may be watched as well. Waiting looks at
 * the files themselves, so nothing can be missed here that a kernel would have told.
 */
#include "sim.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define FIRST 1000
#define NUMBERS 512

struct sim_item {
    struct sim_file *set, *file;
    int number;
    struct epoll_event wanted;
    bool armed, edge;
    struct sim_item *next_of_set, *next_of_file;
};

struct number {
    struct sim_file *file;
    int flags;
};

static struct number table[NUMBERS];

int __real_close(int fd);
int __real_fcntl(int fd, int command, ...);
int __real_open(const char *path, int flags, ...);
ssize_t __real_read(int fd, void *buf, size_t n);
ssize_t __real_write(int fd, const void *buf, size_t n);

int __wrap_close(int fd);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_open(const char *path, int flags, ...);
ssize_t __wrap_read(int fd, void *buf, size_t n);
ssize_t __wrap_write(int fd, const void *buf, size_t n);
int __wrap_dup3(int from, int to, int flags);
int __wrap_eventfd(unsigned initial, int flags);
int __wrap_timerfd_create(int clock, int flags);
int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *spec,
                           struct itimerspec *old);
int __wrap_epoll_create1(int flags);
int __wrap_epoll_ctl(int set, int op, int fd, struct epoll_event *ev);
int __wrap_epoll_wait(int set, struct epoll_event *events, int most, int timeout_ms);
int __wrap_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                 const sigset_t *mask);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms);

/* ---- The table ----------------------------------------------------------------------------- */

bool
sim_is_ours(int number)
{
    return number >= FIRST;
}

struct sim_file *
sim_file(int number)
{
    return number >= FIRST && number < FIRST + NUMBERS ? table[number - FIRST].file : NULL;
}

static struct sim_file *
file_of(int number, enum sim_kind kind)
{
    struct sim_file *f = sim_file(number);

    if (f == NULL || f->kind != kind) {
        errno = f == NULL ? EBADF : EINVAL;
        return NULL;
    }
    return f;
}

size_t
sim_open_numbers(void)
{
    size_t n = 0;

    for (size_t i = 0; i < NUMBERS; i++)
        n += table[i].file != NULL;
    return n;
}

void
sim_log_open(void)
{
    static const char *const kinds[] = {"eventfd", "timerfd", "epoll", "socket", "null"};

    for (size_t i = 0; i < NUMBERS; i++)
        if (table[i].file != NULL)
            sim_log("open: %zu, %s", FIRST + i, kinds[table[i].file->kind]);
}

int
sim_open(enum sim_kind kind, int flags, struct sim_file **ret_file)
{
    struct sim_file *f;
    int i = 0;

    while (i < NUMBERS && table[i].file != NULL)
        i++;
    if (i >= sim_settings.descriptors || i == NUMBERS) {
        errno = EMFILE;
        return -1;
    }
    if ((f = calloc(1, sizeof(*f))) == NULL)
        abort();
    f->kind = kind;
    f->numbers = 1;
    f->status = flags & O_NONBLOCK;
    table[i] = (struct number){f, (flags & O_CLOEXEC) != 0 ? FD_CLOEXEC : 0};
    *ret_file = f;
    return FIRST + i;
}

static void
drop_item(struct sim_item *item)
{
    struct sim_item **at = &item->set->watches;

    while (*at != item)
        at = &(*at)->next_of_set;
    *at = item->next_of_set;
    for (at = &item->file->watched_by; *at != item; at = &(*at)->next_of_file)
        continue;
    *at = item->next_of_file;
    free(item);
}

static void
end_file(struct sim_file *f)
{
    while (f->watched_by != NULL)
        drop_item(f->watched_by);
    while (f->watches != NULL)
        drop_item(f->watches);
    if (f->kind == SIM_SOCKET)
        sim_tcp_close(f->tcp);
    free(f);
}

static void
forget_number(int number)
{
    struct sim_file *f = table[number - FIRST].file;

    table[number - FIRST].file = NULL;
    if (--f->numbers == 0)
        end_file(f);
}

int
__wrap_close(int fd)
{
    if (fd < FIRST)
        return __real_close(fd);
    if (sim_file(fd) == NULL)
        sim_violation("close of %d, which is not open", fd);
    sim_maybe_yield();
    sim_log("close %d", fd);
    forget_number(fd);
    return (int)sim_done(0);
}

int
__wrap_dup3(int from, int to, int flags)
{
    struct sim_file *f = sim_file(from);

    if (f == NULL || to < FIRST) {
        errno = EBADF;
        return -1;
    }
    sim_log("dup3 %d %d", from, to);
    f->numbers++;
    if (sim_file(to) != NULL)
        forget_number(to);
    table[to - FIRST] = (struct number){f, (flags & O_CLOEXEC) != 0 ? FD_CLOEXEC : 0};
    return to;
}

int
__wrap_open(const char *path, int flags, ...)
{
    struct sim_file *f;
    va_list args;
    int mode, fd;

    va_start(args, flags);
    mode = va_arg(args, int);
    va_end(args);
    if (sim_self() == NULL || strcmp(path, "/dev/null") != 0)
        return __real_open(path, flags, mode);
    fd = sim_open(SIM_NULL, flags, &f);
    sim_log("open -> %d", fd);
    return fd;
}

int
__wrap_fcntl(int fd, int command, ...)
{
    struct sim_file *f = sim_file(fd);
    va_list args;
    int value;

    va_start(args, command);
    value = va_arg(args, int);
    va_end(args);
    if (fd >= 0 && fd < FIRST)
        return __real_fcntl(fd, command, value);
    if (f == NULL) {
        errno = EBADF;
        return -1;
    }
    switch (command) {
    case F_GETFL:
        return f->status | O_RDWR;
    case F_SETFL:
        f->status = value & O_NONBLOCK;
        return 0;
    case F_GETFD:
        return table[fd - FIRST].flags;
    case F_SETFD:
        table[fd - FIRST].flags = value;
        return 0;
    case F_GETSIG:
        return f->mark;
    case F_SETSIG:
        f->mark = value;
        return 0;
    default:
        sim_violation("fcntl %d is not simulated", command);
    }
}

/* ---- Waking -------------------------------------------------------------------------------- */

static short poll_file(const struct sim_file *f);

static short
pending(const struct sim_item *item)
{
    if (!item->armed || ((item->wanted.events & EPOLLET) != 0 && !item->edge))
        return 0;
    return (short)(poll_file(item->file) & (short)(item->wanted.events | POLLERR | POLLHUP));
}

static bool
has_pending(const struct sim_file *set)
{
    for (const struct sim_item *item = set->watches; item != NULL; item = item->next_of_set)
        if (pending(item) != 0)
            return true;
    return false;
}

static short
poll_file(const struct sim_file *f)
{
    switch (f->kind) {
    case SIM_EVENTFD:
        return (short)((f->count > 0 ? POLLIN : 0) | POLLOUT);
    case SIM_TIMERFD:
        return f->count > 0 ? POLLIN : 0;
    case SIM_EPOLL:
        return has_pending(f) ? POLLIN : 0;
    case SIM_SOCKET:
        return sim_tcp_poll(f->tcp);
    case SIM_NULL:
        break;
    }
    return POLLIN | POLLOUT;
}

short
sim_poll(int number)
{
    const struct sim_file *f = sim_file(number);

    return f != NULL ? poll_file(f) : POLLNVAL;
}

void
sim_wake(struct sim_file *f)
{
    for (struct sim_item *item = f->watched_by; item != NULL; item = item->next_of_file) {
        item->edge = true;
        if (item->armed)
            sim_wake(item->set);
    }
}

/* ---- Eventfd, timerfd ---------------------------------------------------------------------- */

int
__wrap_eventfd(unsigned initial, int flags)
{
    struct sim_file *f;
    int fd = sim_open(SIM_EVENTFD, flags, &f);

    if (fd >= 0)
        f->count = initial;
    sim_log("eventfd -> %d", fd);
    return fd;
}

ssize_t
__wrap_read(int fd, void *buf, size_t n)
{
    struct sim_file *f = sim_file(fd);

    if (fd < FIRST)
        return __real_read(fd, buf, n);
    if (f == NULL || (f->kind != SIM_EVENTFD && f->kind != SIM_TIMERFD) || n < sizeof(f->count)) {
        errno = f == NULL ? EBADF : EINVAL;
        return -1;
    }
    sim_maybe_yield();
    sim_log("read %d -> %llu", fd, (unsigned long long)f->count);
    if (f->count == 0) {
        errno = EAGAIN;
        return -1;
    }
    memcpy(buf, &f->count, sizeof(f->count));
    f->count = 0;
    return sim_done(sizeof(f->count));
}

ssize_t
__wrap_write(int fd, const void *buf, size_t n)
{
    struct sim_file *f;
    uint64_t count;

    if (fd < FIRST)
        return __real_write(fd, buf, n);
    sim_maybe_yield();
    if ((f = file_of(fd, SIM_EVENTFD)) == NULL || n != sizeof(count))
        return -1;
    memcpy(&count, buf, sizeof(count));
    f->count += count;
    sim_log("write %d", fd);
    sim_wake(f);
    return sim_done(sizeof(count));
}

int
__wrap_timerfd_create(int clock, int flags)
{
    struct sim_file *f;
    int fd = sim_open(SIM_TIMERFD, flags, &f);

    (void)clock;
    sim_log("timerfd -> %d", fd);
    return fd;
}

/* The set that armed it may be gone by then, and its number another file's. */
static void
fire(void *arg, uint64_t armed)
{
    (void)arg;
    for (int i = 0; i < NUMBERS; i++) {
        struct sim_file *f = table[i].file;

        if (f != NULL && f->kind == SIM_TIMERFD && f->armed == armed) {
            f->count++;
            sim_wake(f);
        }
    }
}

int
__wrap_timerfd_settime(int fd, int flags, const struct itimerspec *spec, struct itimerspec *old)
{
    static uint64_t settings;
    struct sim_file *f = file_of(fd, SIM_TIMERFD);
    int64_t at = spec->it_value.tv_sec * SIM_S + spec->it_value.tv_nsec;

    (void)old;
    if (f == NULL)
        return -1;
    f->count = 0;
    f->armed = ++settings;
    sim_log("timer %d at %lld", fd, (long long)at);
    if (at != 0)
        sim_at((flags & TFD_TIMER_ABSTIME) != 0 ? at : sim_now() + at, fire, NULL, f->armed);
    return (int)sim_done(0);
}

/* ---- Epoll --------------------------------------------------------------------------------- */

int
__wrap_epoll_create1(int flags)
{
    struct sim_file *f;
    int fd = sim_open(SIM_EPOLL, flags, &f);

    sim_log("epoll -> %d", fd);
    return fd;
}

static struct sim_item *
find_item(const struct sim_file *set, const struct sim_file *file, int number)
{
    struct sim_item *item = set->watches;

    while (item != NULL && (item->file != file || item->number != number))
        item = item->next_of_set;
    return item;
}

static int
refuse(int sys)
{
    errno = sys;
    return -1;
}

int
__wrap_epoll_ctl(int set_fd, int op, int fd, struct epoll_event *ev)
{
    struct sim_file *set, *file = sim_file(fd);
    struct sim_item *item;

    sim_maybe_yield();
    if ((set = file_of(set_fd, SIM_EPOLL)) == NULL)
        return -1;
    if ((file = sim_file(fd)) == NULL)
        return refuse(EBADF);
    item = find_item(set, file, fd);
    sim_log("epoll_ctl %d %d %d %x", set_fd, op, fd, op == EPOLL_CTL_DEL ? 0 : ev->events);
    if (op == EPOLL_CTL_ADD && item != NULL)
        return refuse(EEXIST);
    if (op != EPOLL_CTL_ADD && item == NULL)
        return refuse(ENOENT);
    if (op == EPOLL_CTL_DEL) {
        drop_item(item);
        return (int)sim_done(0);
    }
    if (item == NULL) {
        if ((item = calloc(1, sizeof(*item))) == NULL)
            abort();
        *item = (struct sim_item){.set = set,
                                  .file = file,
                                  .number = fd,
                                  .next_of_set = set->watches,
                                  .next_of_file = file->watched_by};
        set->watches = file->watched_by = item;
    }
    item->wanted = *ev;
    item->armed = item->edge = true;
    if (pending(item) != 0)
        sim_wake(set);
    return (int)sim_done(0);
}

static bool
set_is_ready(void *arg)
{
    return has_pending(arg);
}

/* Begins anywhere: a kernel's order is that of what happened, and of who asked before. */
static int
take_pending(struct sim_file *set, struct epoll_event *events, int most)
{
    struct sim_item *items[NUMBERS];
    size_t n = 0, first;
    int found = 0;

    for (struct sim_item *item = set->watches; item != NULL; item = item->next_of_set)
        items[n++] = item;
    first = (size_t)sim_below(n);
    for (size_t i = 0; i < n && found < most; i++) {
        struct sim_item *item = items[(first + i) % n];
        short what = pending(item);

        if (what == 0)
            continue;
        item->edge = false;
        if ((item->wanted.events & EPOLLONESHOT) != 0)
            item->armed = false;
        events[found++] =
            (struct epoll_event){.events = (uint32_t)(uint16_t)what, .data = item->wanted.data};
    }
    return found;
}

int
__wrap_epoll_wait(int fd, struct epoll_event *events, int most, int timeout_ms)
{
    struct sim_file *set = file_of(fd, SIM_EPOLL);
    int64_t until = timeout_ms < 0 ? SIM_NEVER : sim_now() + timeout_ms * SIM_MS;
    int n;

    if (set == NULL)
        return -1;
    do {
        if (timeout_ms != 0 && sim_chance(sim_settings.interrupted))
            return refuse(EINTR);
        if (timeout_ms != 0)
            (void)sim_wait(set_is_ready, set, until);
        else
            sim_maybe_yield();
        if (sim_file(fd) != set)
            sim_violation("epoll set %d was closed while it was waited at", fd);
        n = take_pending(set, events, most);
    } while (n == 0 && sim_now() < until);
    sim_log("epoll_wait %d -> %d", fd, n);
    return (int)sim_done(n);
}

/* ---- Poll ---------------------------------------------------------------------------------- */

struct polled {
    struct pollfd *fds;
    nfds_t n;
};

static int
look(struct pollfd *fds, nfds_t n)
{
    int found = 0;

    for (nfds_t i = 0; i < n; i++) {
        const struct sim_file *f = sim_file(fds[i].fd);

        fds[i].revents = 0;
        if (fds[i].fd < 0)
            continue;
        fds[i].revents = POLLNVAL;
        if (f != NULL)
            fds[i].revents =
                (short)(poll_file(f) & (short)(fds[i].events | (short)(POLLERR | POLLHUP)));
        found += fds[i].revents != 0;
    }
    return found;
}

static bool
one_is_ready(void *arg)
{
    const struct polled *p = arg;

    return look(p->fds, p->n) > 0;
}

static int
wait_for_one(struct pollfd *fds, nfds_t n, int64_t until)
{
    struct polled p = {fds, n};
    int found;

    if (until > sim_now() && sim_chance(sim_settings.interrupted)) {
        sim_log("poll: a signal");
        return refuse(EINTR);
    }
    (void)sim_wait(one_is_ready, &p, until);
    found = look(fds, n);
    sim_log("poll %d %d -> %d", n > 1 ? fds[1].fd : fds[0].fd,
            n > 1 ? fds[1].events : fds[0].events, found);
    return (int)sim_done(found);
}

int
__wrap_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
    (void)mask;
    return wait_for_one(fds, n,
                        timeout == NULL ? SIM_NEVER
                                        : sim_now() + timeout->tv_sec * SIM_S + timeout->tv_nsec);
}

int
__wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
    if (timeout_ms != 0)
        return wait_for_one(fds, n, timeout_ms < 0 ? SIM_NEVER : sim_now() + timeout_ms * SIM_MS);
    sim_maybe_yield();
    return look(fds, n);
}
