/* resets.c: counting who resets whom, and why.
 *
 * A reset that nobody meant shows here: bytes that nobody had read, or SO_LINGER.
 */
#include "conn_impl.h"
#include "roll.h"
#include "sockopt.h"

#include "../base/recorder.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

static struct {
    _Atomic uint64_t by_peer, dead_peer, by_abort, by_linger, by_unread;
} resets;

static void
resets_add(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

void
hs_conn_set_broken(struct hs_conn *c, hs_err code)
{
    bool dead = code == HS_E_DEAD_PEER;

    if (!hs_conn_set_once(&c->broken, code))
        return;
    resets_add(dead ? &resets.dead_peer : &resets.by_peer);
    hs_roll_note(c, dead ? HS_EVENT_DEAD_PEER : HS_EVENT_RESET, code, hs_now() - c->created_ns);
}

void
hs_reset_counts(struct hs_reset_counts *ret_counts)
{
    *ret_counts = (struct hs_reset_counts){
        .by_peer = resets.by_peer,
        .dead_peer = resets.dead_peer,
        .by_abort = resets.by_abort,
        .by_linger = resets.by_linger,
        .by_unread = resets.by_unread,
    };
}

/* A connection that never moved a byte is not asked for unread ones: it costs a system call, which
 * shows in the time of a bare connect and close. */
void
hs_resets_count_close(struct hs_conn *c, bool abortive, bool unread_above)
{
    bool used = atomic_load_explicit(&c->dirs[HS_DIR_IN].bytes, memory_order_relaxed) > 0 ||
                atomic_load_explicit(&c->dirs[HS_DIR_OUT].bytes, memory_order_relaxed) > 0;
    int unread = 0;

    if (c->family == AF_UNIX || atomic_load(&c->broken) != HS_OK)
        return;
    if (abortive)
        resets_add(&resets.by_abort);
    else if (c->opts.linger_s == 0 ||
             (atomic_load(&c->may_linger) && hs_sockopt_resets_on_close(hs_fd_number(&c->fd))))
        resets_add(&resets.by_linger);
    else if (unread_above ||
             (used && hs_sys_ioctl(hs_fd_number(&c->fd), SIOCINQ, &unread) == 0 && unread > 0))
        resets_add(&resets.by_unread);
}
