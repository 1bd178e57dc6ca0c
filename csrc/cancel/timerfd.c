/* timerfd.c: see timerfd.h.
 *
 * set_ns is only believed when the kernel took it: what failed to be set is tried again with the
 * next time.
 */
#include "timerfd.h"

#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

hs_err
hs_timerfd_open(struct hs_timerfd *t, const char *what, struct hs_error *err)
{
    int fd = hs_sys_timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

    if (fd < 0)
        return hs_err_set(err, HS_E_SYSTEM, errno, what, "timerfd_create");
    *t = (struct hs_timerfd){.fd = fd, .set_ns = HS_NEVER};
    return HS_OK;
}

void
hs_timerfd_close(struct hs_timerfd *t)
{
    if (t->fd >= 0)
        (void)close(t->fd);
    *t = (struct hs_timerfd)HS_TIMERFD_INIT;
}

void
hs_timerfd_set(struct hs_timerfd *t, int64_t at_ns)
{
    struct itimerspec spec = {0};

    if (at_ns >= t->set_ns)
        return;
    spec.it_value = hs_timespec_until(at_ns > 0 ? at_ns : 1, 0); /* Zero would stop it. */
    if (timerfd_settime(t->fd, TFD_TIMER_ABSTIME, &spec, NULL) == 0)
        t->set_ns = at_ns;
}

void
hs_timerfd_heard(struct hs_timerfd *t)
{
    uint64_t count;
    ssize_t ignored = read(t->fd, &count, sizeof(count));

    (void)ignored; /* Another thread may have read it. */
    t->set_ns = HS_NEVER;
}
