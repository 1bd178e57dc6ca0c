/* timerfd.h: a descriptor that becomes readable at the earliest of many times.
 *
 * Setting it costs a system call, and most times are cancelled before they come. So it is only
 * ever set earlier: one that fires for a time that nobody waits for any more is a look for nothing,
 * after which it is set anew.
 *
 * The program may have closed it: that is told, nothing of a stranger is read or set, and what
 * waits for it would wait for ever.
 *
 * No lock: the one who owns it guards it, as the times.
 */
#ifndef HS_CANCEL_TIMERFD_H
#define HS_CANCEL_TIMERFD_H

#include "hardsock.h"
#include "../base/own_fd.h"

struct hs_timerfd {
    struct hs_own_fd fd; /* own; of timerfd_create(2), CLOCK_MONOTONIC */
    int64_t set_ns;      /* it fires then or before; HS_NEVER: not at all */
};

#define HS_TIMERFD_INIT                                                                            \
    {                                                                                              \
        {-1, 0}, HS_NEVER                                                                          \
    }

/* what: for the error's op. */
HS_NODISCARD hs_err hs_timerfd_open(struct hs_timerfd *t, const char *what, struct hs_error *err);
void hs_timerfd_close(struct hs_timerfd *t); /* harmless when not open */
/* It fires at at_ns or before. HS_NEVER: nothing. 0, or the errno: EBADF, it is not there any more;
 * else the kernel has not taken this time, and what was set before stands. */
HS_NODISCARD int hs_timerfd_set(struct hs_timerfd *t, int64_t at_ns);
/* To be called when it has fired, before the earliest of what is left is set. False: it is not
 * there any more. */
bool hs_timerfd_heard(struct hs_timerfd *t);

#endif
