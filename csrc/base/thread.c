/* thread.c: see thread.h.
 *
 * Signals are for the program's own threads: all are blocked while the thread is made, which it
 * inherits. All but those that a fault raises in the thread that has it: blocked, they would end
 * the process without a handler being run, and nothing would be dumped. SIGABRT is one of them:
 * POSIX lets abort(3) override a block, but glibc since 2.42 does so for the default action only.
 */
#include "thread.h"

#include "sys.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};

int
hs_thread_start(const char *name, size_t stack_bytes, void *(*fn)(void *arg), void *arg)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t blocked, old;
    int sys;

    if ((sys = pthread_attr_init(&attr)) != 0)
        return sys;
    (void)pthread_attr_setstacksize(&attr, stack_bytes);
    (void)sigfillset(&blocked);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        (void)sigdelset(&blocked, faults[i]);
    (void)pthread_sigmask(SIG_SETMASK, &blocked, &old);
    sys = hs_sys_pthread_create(&thread, &attr, fn, arg);
    if (sys == 0) {
        (void)pthread_setname_np(thread, name);
        (void)pthread_detach(thread); /* Not before: one that has ended is no thread any more. */
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)pthread_attr_destroy(&attr);
    return sys;
}

/* "TID (NAME) STATE ...", where NAME may have parentheses of its own but has 15 bytes at most. */
bool
hs_thread_sleeps(pid_t tid)
{
    char path[64], text[64];
    const char *end;
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
    if ((fd = hs_sys_open(path, O_RDONLY | O_CLOEXEC, 0)) < 0)
        return false;
    n = hs_sys_read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    text[n > 0 ? n : 0] = '\0';
    end = strrchr(text, ')');
    return end != NULL && strncmp(end, ") S", 3) == 0;
}

unsigned
hs_thread_number(void)
{
    static atomic_uint given;
    static _Thread_local unsigned own; /* plus 1; 0: none yet */

    if (own == 0)
        own = atomic_fetch_add_explicit(&given, 1, memory_order_relaxed) % INT_MAX + 1;
    return own - 1;
}
