/* thread.c: see thread.h.
 *
 * Signals are for the program's own threads: all are blocked while the thread is made, which it
 * inherits.
 */
#include "thread.h"

#include <pthread.h>
#include <signal.h>

int
hs_thread_start(const char *name, size_t stack_bytes, void *(*fn)(void *arg), void *arg)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, old;
    int sys;

    if ((sys = pthread_attr_init(&attr)) != 0)
        return sys;
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attr, stack_bytes);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    sys = pthread_create(&thread, &attr, fn, arg);
    if (sys == 0)
        (void)pthread_setname_np(thread, name);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)pthread_attr_destroy(&attr);
    return sys;
}
