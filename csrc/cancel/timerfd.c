/* timerfd.c: see timerfd.h.
 *
 * set_ns is what the kernel took.
 */
#include "timerfd.h"

#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <sys/timerfd.h>

hs_err
hs_timerfd_open(struct hs_timerfd *t, const char *what, struct hs_error *err)
{
    struct hs_own_fd fd;

    if (!hs_own_fd_open(&fd, hs_sys_timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)))
        return hs_err_set(err, HS_E_SYSTEM, errno, what, "timerfd_create");
    *t = (struct hs_timerfd){.fd = fd, .set_ns = HS_NEVER};
    return HS_OK;
}

void
hs_timerfd_close(struct hs_timerfd *t)
{
    hs_own_fd_close(&t->fd);
    *t = (struct hs_timerfd)HS_TIMERFD_INIT;
}

int
hs_timerfd_set(struct hs_timerfd *t, int64_t at_ns)
{
    struct itimerspec spec = {0};

    if (at_ns >= t->set_ns)
        return 0;
    if (!hs_own_fd_is_there(&t->fd))
        return EBADF;
    spec.it_value = hs_timespec_until(at_ns > 0 ? at_ns : 1, 0); /* Zero would stop it. */
    if (hs_sys_timerfd_settime(t->fd.number, TFD_TIMER_ABSTIME, &spec, NULL) != 0)
        return errno;
    t->set_ns = at_ns;
    return 0;
}

bool
hs_timerfd_heard(struct hs_timerfd *t)
{
    t->set_ns = HS_NEVER;
    return hs_own_fd_drain(&t->fd); /* Another thread may have read it. */
}
