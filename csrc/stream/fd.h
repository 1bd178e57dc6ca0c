/* fd.h: one owner per descriptor.
 *
 * A word counts the calls that are using the descriptor and says whether it is closed. Closing
 * marks it; the last user out calls close(2), once, and never retries it (on Linux the number is
 * free even after EINTR). So a number is never reused under a running call. An object made before a
 * fork refuses work in the child: there only closing is allowed.
 *
 * A table of the process says which number has an owner, so that no second one takes it.
 */
#ifndef HS_STREAM_FD_H
#define HS_STREAM_FD_H

#include "hardsock.h"

#include <stdatomic.h>

struct hs_fd {
    int number;
    unsigned generation;    /* hs_fork_generation() when it was made */
    uint64_t id;            /* unlike the number never used again */
    _Atomic uint64_t state; /* CLOSED and DETACHED bits, number of looks, number of holds */
    atomic_bool lingers;    /* set before the last drop: hs_linger has it then */
    bool was_blocking;      /* how hs_fd_detach gives it back */
    atomic_bool inheritable;
};

/* A number that the kernel has just given us: non-blocking, close-on-exec. */
void hs_fd_init(struct hs_fd *f, int number);
/* A caller's, which is made non-blocking and close-on-exec. HS_E_INVALID: it has an owner here. */
HS_NODISCARD hs_err hs_fd_take(struct hs_fd *f, int number, const char *op, struct hs_error *err);
/* The error for a number of which the kernel knows no socket, HS_E_INVALID; errno says why. */
void hs_fd_no_socket(int number, const char *op, struct hs_error *err);
/* What hs_fd_take would refuse, before anything is changed. */
HS_NODISCARD hs_err hs_fd_check_free(int number, const char *op, struct hs_error *err);
/* Not ours any more, unclosed, as it was before hs_fd_take; one of ours as `socket` makes them. */
void hs_fd_give_back(struct hs_fd *f);
/* HS_OK, HS_E_CLOSED or HS_E_FORKED. After HS_OK call hs_fd_drop once. */
HS_NODISCARD hs_err hs_fd_hold(struct hs_fd *f, struct hs_error *err);
void hs_fd_drop(struct hs_fd *f);
/* The same for a moment in which nothing waits, and nobody is called: who detaches waits until it
 * is over. After HS_OK call hs_fd_look_end once. */
HS_NODISCARD hs_err hs_fd_look(struct hs_fd *f, struct hs_error *err);
void hs_fd_look_end(struct hs_fd *f);
/* Marks it closed; true for the first. That caller then owes one hs_fd_drop. */
bool hs_fd_mark_closed(struct hs_fd *f);
bool hs_fd_is_closed(struct hs_fd *f);
bool hs_fd_is_ours(const struct hs_fd *f); /* not inherited by fork */
/* Takes the number away, unclosed and given back, and with it the caller's holds: HS_E_BUSY while
 * there are more. The caller has no look; those of others are waited for. */
HS_NODISCARD hs_err hs_fd_detach(struct hs_fd *f, unsigned holds, struct hs_error *err,
                                 int *ret_fd);
/* Holds are asserted: the number may not be used without one. */
int hs_fd_number(struct hs_fd *f);

#endif
