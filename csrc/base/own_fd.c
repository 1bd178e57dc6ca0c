/* own_fd.c: see own_fd.h.
 *
 * fcntl(2) is called by its own name: a fault that is made to happen here would say that a
 * descriptor is another's which is not.
 */
#include "own_fd.h"

#include "sys.h"
#include "time.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <unistd.h>

#define MARKS 64U /* the signals that fcntl(2) takes, from 1 */

bool
hs_own_fd_open(struct hs_own_fd *fd, int number)
{
    static _Atomic unsigned opened;
    int mark;

    if (number < 0)
        return false;
    mark = (int)(atomic_fetch_add_explicit(&opened, 1, memory_order_relaxed) % MARKS) + 1;
    if (fcntl(number, F_SETSIG, mark) != 0 || fcntl(number, F_GETSIG) != mark)
        mark = 0;
    *fd = (struct hs_own_fd){number, mark};
    return true;
}

bool
hs_own_fd_is_there(const struct hs_own_fd *fd)
{
    int mark;

    if (fd->number < 0)
        return false;
    if ((mark = fcntl(fd->number, F_GETSIG)) < 0)
        return errno != EBADF;
    return fd->mark == 0 || mark == fd->mark;
}

bool
hs_own_fd_ring(const struct hs_own_fd *fd)
{
    ssize_t ignored;

    if (!hs_own_fd_is_there(fd))
        return false;
    ignored = write(fd->number, &(uint64_t){1}, sizeof(uint64_t));
    (void)ignored; /* EAGAIN: the counter is full, so the descriptor is readable anyway. */
    return true;
}

bool
hs_own_fd_drain(const struct hs_own_fd *fd)
{
    uint64_t count;
    ssize_t ignored;

    if (!hs_own_fd_is_there(fd))
        return false;
    ignored = read(fd->number, &count, sizeof(count));
    (void)ignored;
    return true;
}

void
hs_own_fd_close(struct hs_own_fd *fd)
{
    if (hs_own_fd_is_there(fd))
        (void)close(fd->number);
    *fd = HS_OWN_FD_NONE;
}

void
hs_own_fd_unwatch(const struct hs_own_fd *set, int fd)
{
    if (hs_own_fd_is_there(set))
        (void)hs_sys_epoll_ctl(set->number, EPOLL_CTL_DEL, fd, NULL);
}

bool
hs_own_look_is_due(struct hs_own_look *look)
{
    int64_t now = hs_now();

    if (now - look->at_ns < HS_NS_PER_S)
        return false;
    look->at_ns = now;
    return true;
}
