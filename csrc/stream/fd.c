/* fd.c: the hold count of a descriptor (after Go's fdMutex), in one atomic word.
 *
 * Invariant: close(2) is called by whoever brings the word to exactly CLOSED, that is closed and no
 * holds; only hs_fd_drop does so, and it can happen once because holds cannot grow from there.
 */
#include "fd.h"

#include "linger.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../cancel/wait.h"

#include <unistd.h>

#define CLOSED (UINT64_C(1) << 63)

static _Atomic uint64_t last_id;

void
hs_fd_init(struct hs_fd *f, int number)
{
    f->number = number;
    f->generation = hs_fork_generation();
    f->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
    f->state = 0;
    f->lingers = false;
}

bool
hs_fd_is_ours(const struct hs_fd *f)
{
    return f->generation == hs_fork_generation();
}

hs_err
hs_fd_hold(struct hs_fd *f, struct hs_error *err)
{
    uint64_t state = atomic_load(&f->state);

    do {
        if ((state & CLOSED) != 0)
            return hs_err_setx(err, HS_E_CLOSED, NULL, "it was closed here");
        if (!hs_fd_is_ours(f))
            return hs_err_setx(err, HS_E_FORKED, NULL, "%s", hs_err_text(HS_E_FORKED));
    } while (!atomic_compare_exchange_weak(&f->state, &state, state + 1));
    return HS_OK;
}

void
hs_fd_drop(struct hs_fd *f)
{
    uint64_t before = atomic_fetch_sub(&f->state, 1);

    HS_ASSERT((before & ~CLOSED) != 0);
    if (before != (CLOSED | 1))
        return;
    if (atomic_load(&f->lingers))
        hs_linger(f->number);
    else
        (void)close(f->number);
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

hs_err
hs_fd_detach(struct hs_fd *f, unsigned holds, struct hs_error *err, int *ret_fd)
{
    uint64_t expected = holds;

    if (atomic_compare_exchange_strong(&f->state, &expected, CLOSED)) {
        *ret_fd = f->number;
        return HS_OK;
    }
    if ((expected & CLOSED) != 0)
        return hs_err_setx(err, HS_E_CLOSED, NULL, "it was closed here");
    return hs_err_setx(err, HS_E_BUSY, NULL, "a call is in progress");
}

int
hs_fd_number(struct hs_fd *f)
{
    HS_ASSERT((atomic_load(&f->state) & ~CLOSED) != 0);
    return f->number;
}
