/* fd.c: the hold count of a descriptor (after Go's fdMutex), in one atomic word.
 *
 * Invariants:
 * - close(2) is called by the one who brings the word to exactly CLOSED, that is closed and no
 *   holds; only hs_fd_drop and hs_fd_look_end do so, and it can happen once because holds cannot
 *   grow from there.
 * - A look is a hold that is counted apart, too. The one who detaches is refused by holds, but
 *   waits for looks: it sets CLOSED and DETACHED, so that none can begin, and the last look to end
 *   wakes it. Nothing waits within a look, so that wait is short; it is a futex, of the process, as
 *   there is no descriptor of the waiter's to write to, and nothing else can end the wait.
 */
#include "fd.h"

#include "fd_owner.h"
#include "linger.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/sys.h"
#include "../cancel/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CLOSED (UINT64_C(1) << 63)
#define DETACHED (UINT64_C(1) << 62) /* with CLOSED: the number is not ours to close */
#define LOOK ((UINT64_C(1) << 32) | 1)
#define HOLDS UINT64_C(0xffffffff) /* with those of looks */

static _Atomic uint64_t last_id;
static _Atomic uint32_t looks_ended; /* a futex: how often the last look at a detached one ended */

/* ---- Who owns a number --------------------------------------------------------------------- */

static bool
is_owner(const struct hs_fd *f)
{
    _Atomic uint64_t *owner = hs_fd_owner(f->number, false);

    return owner == NULL || atomic_load_explicit(owner, memory_order_relaxed) == f->id;
}

/* False: the number is somebody else's by now. */
static bool
fd_leave(const struct hs_fd *f)
{
    _Atomic uint64_t *owner = hs_fd_owner(f->number, false);
    uint64_t id = f->id;

    return owner == NULL || atomic_compare_exchange_strong(owner, &id, 0);
}

void
hs_fd_no_socket(int number, const char *op, struct hs_error *err)
{
    const char *advice = strcmp(op, "listen") == 0
                             ? " (a port goes with a host: (\"\", port) is every address of this "
                               "machine)"
                             : "";
    const char *what = errno == EBADF      ? "is not open in this process"
                       : errno == ENOTSOCK ? "is open, but not a socket"
                                           : NULL;

    if (what != NULL)
        hs_err_fill(err, HS_E_INVALID, 0, op, "descriptor %d %s%s", number, what, advice);
    else
        hs_err_fill(err, HS_E_INVALID, errno, op, "descriptor %d", number);
}

static hs_err
refuse_owned(int number, const char *op, struct hs_error *err)
{
    return hs_err_setx(err, HS_E_INVALID, op,
                       "descriptor %d has an owner here already, a Connection or Listener (after a "
                       "fork, also one of the parent's): detach() it from that one, or take an "
                       "os.dup() of it",
                       number);
}

hs_err
hs_fd_check_free(int number, const char *op, struct hs_error *err)
{
    _Atomic uint64_t *owner = number >= 0 ? hs_fd_owner(number, false) : NULL;

    return owner == NULL || atomic_load(owner) == 0 ? HS_OK : refuse_owned(number, op, err);
}

/* ---- Life ---------------------------------------------------------------------------------- */

static void
fd_make(struct hs_fd *f, int number)
{
    f->number = number;
    f->generation = hs_fork_generation();
    f->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
    f->state = 0;
    f->lingers = false;
    f->was_blocking = true;
    f->inheritable = false;
}

void
hs_fd_init(struct hs_fd *f, int number)
{
    _Atomic uint64_t *owner = hs_fd_owner(number, true);

    fd_make(f, number);
    if (owner != NULL)
        atomic_store(owner, f->id);
}

hs_err
hs_fd_take(struct hs_fd *f, int number, const char *op, struct hs_error *err)
{
    _Atomic uint64_t *owner = hs_fd_owner(number, true);
    int status = hs_sys_fcntl(number, F_GETFL, 0), flags = hs_sys_fcntl(number, F_GETFD, 0);
    uint64_t nobody = 0;

    fd_make(f, number);
    if (status < 0 || flags < 0)
        return hs_err_set(err, HS_E_SYSTEM, errno, op, "fcntl");
    f->was_blocking = (status & O_NONBLOCK) == 0;
    f->inheritable = (flags & FD_CLOEXEC) == 0;
    if (owner != NULL && !atomic_compare_exchange_strong(owner, &nobody, f->id))
        return refuse_owned(number, op, err); /* It came since hs_fd_check_free looked. */
    if ((!f->was_blocking || hs_sys_fcntl(number, F_SETFL, status | O_NONBLOCK) == 0) &&
        hs_sys_fcntl(number, F_SETFD, FD_CLOEXEC) == 0)
        return HS_OK;
    (void)hs_err_set(err, HS_E_SYSTEM, errno, op, "fcntl");
    hs_fd_give_back(f);
    return HS_E_SYSTEM;
}

/* O_NONBLOCK belongs to the socket, not to the number, so it may be another process's, too: it is
 * only touched where this library changed it. */
void
hs_fd_give_back(struct hs_fd *f)
{
    int status;

    if (!fd_leave(f))
        return;
    if (f->was_blocking && (status = hs_sys_fcntl(f->number, F_GETFL, 0)) >= 0)
        (void)hs_sys_fcntl(f->number, F_SETFL, status & ~O_NONBLOCK);
    if (atomic_load(&f->inheritable))
        (void)hs_sys_fcntl(f->number, F_SETFD, 0);
}

bool
hs_fd_is_ours(const struct hs_fd *f)
{
    return f->generation == hs_fork_generation();
}

static hs_err
take_hold(struct hs_fd *f, uint64_t what, struct hs_error *err)
{
    uint64_t state = atomic_load(&f->state);

    do {
        if ((state & CLOSED) != 0)
            return hs_err_setx(err, HS_E_CLOSED, NULL, "it was closed here");
        if (!hs_fd_is_ours(f))
            return hs_err_setx(err, HS_E_FORKED, NULL, "%s", hs_err_text(HS_E_FORKED));
        if (!is_owner(f))
            return hs_err_setx(err, HS_E_CLOSED, NULL,
                               "descriptor %d was closed by other code, and has another owner here "
                               "by now",
                               f->number);
    } while (!atomic_compare_exchange_weak(&f->state, &state, state + what));
    return HS_OK;
}

static void
drop_hold(struct hs_fd *f, uint64_t what)
{
    uint64_t before = atomic_fetch_sub(&f->state, what);

    HS_ASSERT((before & HOLDS) != 0);
    if (before == (CLOSED | DETACHED | what)) {
        atomic_fetch_add(&looks_ended, 1);
        (void)syscall(SYS_futex, &looks_ended, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
        return;
    }
    if (before != (CLOSED | what) || !is_owner(f))
        return;
    if (atomic_load(&f->lingers))
        hs_linger(f->number); /* with its place in the table */
    else if (fd_leave(f))
        (void)close(f->number);
}

hs_err
hs_fd_hold(struct hs_fd *f, struct hs_error *err)
{
    return take_hold(f, 1, err);
}

void
hs_fd_drop(struct hs_fd *f)
{
    drop_hold(f, 1);
}

hs_err
hs_fd_look(struct hs_fd *f, struct hs_error *err)
{
    return take_hold(f, LOOK, err);
}

void
hs_fd_look_end(struct hs_fd *f)
{
    drop_hold(f, LOOK);
}

/* In a forked child the holds were those of threads that are not here: they never drop. */
bool
hs_fd_mark_closed(struct hs_fd *f)
{
    uint64_t state = atomic_load(&f->state);

    do {
        if ((state & CLOSED) != 0)
            return false;
    } while (!atomic_compare_exchange_weak(&f->state, &state,
                                           hs_fd_is_ours(f) ? (state | CLOSED) + 1 : (CLOSED | 1)));
    return true;
}

bool
hs_fd_is_closed(struct hs_fd *f)
{
    return (atomic_load(&f->state) & CLOSED) != 0;
}

static void
await_looks(struct hs_fd *f)
{
    uint32_t seen;

    for (;;) {
        seen = atomic_load(&looks_ended);
        if ((atomic_load(&f->state) & HOLDS) == 0)
            return;
        (void)syscall(SYS_futex, &looks_ended, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    }
}

hs_err
hs_fd_detach(struct hs_fd *f, unsigned holds, struct hs_error *err, int *ret_fd)
{
    uint64_t state = atomic_load(&f->state), looks;

    do {
        if ((state & CLOSED) != 0)
            return hs_err_setx(err, HS_E_CLOSED, NULL, "it was closed here");
        looks = (state >> 32) * LOOK;
        if (state != looks + holds)
            return hs_err_setx(err, HS_E_BUSY, NULL, "a call is in progress");
    } while (!atomic_compare_exchange_weak(&f->state, &state, CLOSED | DETACHED | looks));
    await_looks(f);
    hs_fd_give_back(f);
    *ret_fd = f->number;
    return HS_OK;
}

int
hs_fd_number(struct hs_fd *f)
{
    HS_ASSERT((atomic_load(&f->state) & HOLDS) != 0);
    return f->number;
}
