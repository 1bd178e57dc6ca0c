/* thread.h: threads of our own: detached, with a name, deaf to signals but to those of
 * their own faults.
 *
 * Nobody joins them: at exit and in a forked child they are simply not there any more.
 */
#ifndef HS_BASE_THREAD_H
#define HS_BASE_THREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* 0 or an errno. name: at most 15 bytes. */
int hs_thread_start(const char *name, size_t stack_bytes, void *(*fn)(void *arg), void *arg);
/* Whether the thread waits in the kernel (for a descriptor, a time, a lock), as opposed to running
 * or waiting for a processor. False for one that is not there. Reads /proc. */
bool hs_thread_sleeps(pid_t tid);
/* A small number that this thread has for good, given as it first asks: for what threads would all
 * write to if each did not have a part of its own (tally.h). Threads may have come to share one. */
unsigned hs_thread_number(void);

#endif
