/* own_fd.h: descriptors of the library's own, which the program may close behind its back.
 *
 * A program that closes every number (os.closerange, as daemons do) or one number twice closes ours
 * as well, and the number is somebody else's soon: a file's, a socket's, another epoll set's.
 * Writing a wake-up there would damage what is not ours. So before one of these is read, written,
 * waited at or closed it is asked whether it is still the one that was opened.
 *
 * The answer is one cheap system call: each gets a mark, which belongs to the open file description
 * and is 0 for all others. It is a signal number (F_SETSIG of fcntl(2)), which says nothing without
 * O_ASYNC. Where the kernel knows no such thing there is no mark, and only EBADF is noticed.
 *
 * What this does not know: another descriptor of the library that has both the number and, by one
 * chance in 64, the mark; and a number that changes hands between the question and the call.
 */
#ifndef HS_BASE_OWN_FD_H
#define HS_BASE_OWN_FD_H

#include <stdbool.h>
#include <stdint.h>

struct hs_own_fd {
    int number; /* -1: none */
    int mark;   /* 0: it has none */
};

#define HS_OWN_FD_NONE ((struct hs_own_fd){-1, 0})

/* Takes a number that a system call has just returned. False, and errno as it was, if it failed. */
bool hs_own_fd_open(struct hs_own_fd *fd, int number);
bool hs_own_fd_is_there(const struct hs_own_fd *fd);
/* Of an eventfd. False: it is not there, and nothing was written or read. */
bool hs_own_fd_ring(const struct hs_own_fd *fd);
bool hs_own_fd_drain(const struct hs_own_fd *fd);
/* Harmless when it is not there. It is HS_OWN_FD_NONE then. */
void hs_own_fd_close(struct hs_own_fd *fd);
/* Of an epoll set: fd is watched there no more. Another's set keeps what it watches. */
void hs_own_fd_unwatch(const struct hs_own_fd *set, int fd);

/* What is lost alone, a timer that was set already, or an eventfd that is only read, is told by
 * nothing. Each question is a system call, so those who wait with it ask once a second. All zero at
 * first; guarded by the one who owns it. */
struct hs_own_look {
    int64_t at_ns;
};

/* True, when the last look was a second ago or more: the next one is counted from now. */
bool hs_own_look_is_due(struct hs_own_look *look);

#endif
