/* retire.c: ending a connection that is idle, for a guard that wants its place.
 *
 * Invariants:
 * - Judging only looks. Who acts judges again with what it needs in hand, so that nobody uses the
 *   connection between the last look and the end:
 *   + nobody is in a call: both directions are visited, then the kernel is asked, then it ends;
 *   + a call waits for a message: it gets an idle timeout and is woken. It asks the kernel last,
 *     and ends by itself, or has its message (check_quiet in conn_call.c);
 *   + it is parked: the one who is given it looks again (parking.c).
 * - quiet.ended says of the last two whether it came to that.
 * - A waiting call has one guard's time at most: the first one's, until that puts back what was
 *   there. A second guard would take it for the connection's own, and leave it there.
 * - What is judged moves meanwhile: a byte since the first look makes it fresh, whatever was seen
 *   of calls that waited then.
 * - Whose turn it is decides when nobody is in a call: a request that was read is being worked on.
 */
#include "conn_impl.h"
#include "spot.h"
#include "roll.h"

#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum { NO_TURN = -1 };

uint64_t
hs_conn_id(const struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    return c->fd.id;
}

const char *
hs_retire_name(enum hs_retire how)
{
    static const char *const names[] = {
#define RETIRE_NAME(name, text) text,
        HS_RETIRE_ALL(RETIRE_NAME)
#undef RETIRE_NAME
    };

    HS_ASSERT(how < HS_RETIRE_KINDS);
    return names[how];
}

static int64_t
retire_last_use(const struct hs_conn *c)
{
    int64_t in = atomic_load(&c->dirs[HS_DIR_IN].last_ns);
    int64_t out = atomic_load(&c->dirs[HS_DIR_OUT].last_ns);
    int64_t last = in > out ? in : out;

    return last > c->created_ns ? last : c->created_ns;
}

/* What c->lease points to is the pool's, which may end while somebody only looks. */
static bool
is_lent(struct hs_conn *c)
{
    return atomic_load(&c->roll.holder) != NULL;
}

/* Bytes that one side has sent and the other has not taken; also when the kernel does not say. */
static bool
has_bytes(struct hs_conn *c)
{
    int unread = 0, unsent = 0, fd = hs_fd_number(&c->fd);

    if (atomic_load(&c->buffered) > 0 || atomic_load(&c->mid_message) || hs_conn_half_sent(c))
        return true;
    return hs_sys_ioctl(fd, SIOCINQ, &unread) != 0 || unread > 0 ||
           hs_sys_ioctl(fd, SIOCOUTQ, &unsent) != 0 || unsent > 0;
}

static bool
has_user(struct hs_conn *c, enum hs_dir dir)
{
    return atomic_load(&c->dirs[dir].user) == USER_CALL;
}

static bool
waits_to_read(struct hs_conn *c)
{
    return has_user(c, HS_DIR_IN) && atomic_load(&c->dirs[HS_DIR_IN].waits_since_ns) != 0;
}

/* In which direction the next byte is due: against the last one. NO_TURN: none went. */
static int
turn_of(struct hs_conn *c)
{
    int64_t in = atomic_load(&c->dirs[HS_DIR_IN].last_ns);
    int64_t out = atomic_load(&c->dirs[HS_DIR_OUT].last_ns);

    return in > out ? HS_DIR_OUT : out > in ? HS_DIR_IN : NO_TURN;
}

/* Whether somebody works on it, or is owed something. Nobody waits, and it has no bytes. */
static enum hs_retire
judge_turn(struct hs_conn *c)
{
    unsigned char made = atomic_load(&c->roll.made);
    bool served = atomic_load(&c->roll.served);

    if (made != HS_MADE_ACCEPT && made != HS_MADE_CONNECT && made != HS_MADE_POOL && !served)
        return HS_RETIRE_UNKNOWN;
    if (made == HS_MADE_CONNECT || made == HS_MADE_POOL) {
        if (has_user(c, HS_DIR_IN))
            return HS_RETIRE_BUSY;
        return turn_of(c) == HS_DIR_IN ? HS_RETIRE_OWED
               : made == HS_MADE_POOL  ? HS_RETIRE_POOLED
                                       : HS_RETIRE_IDLE;
    }
    if (hs_spot_waits(c->spot))
        return HS_RETIRE_IDLE;
    if (has_user(c, HS_DIR_IN) && !waits_to_read(c))
        return HS_RETIRE_BUSY;
    if (turn_of(c) == HS_DIR_OUT)
        return HS_RETIRE_OWED;
    return served && !has_user(c, HS_DIR_IN) ? HS_RETIRE_BUSY : HS_RETIRE_IDLE;
}

/* The descriptor is held. */
static enum hs_retire
judge_held(struct hs_conn *c, int64_t idle_ns, int64_t age_ns)
{
    int64_t now = hs_now();
    enum hs_retire how;

    if (is_lent(c))
        return HS_RETIRE_LENT;
    if (now - c->created_ns < age_ns)
        return HS_RETIRE_YOUNG;
    if (now - retire_last_use(c) < idle_ns)
        return HS_RETIRE_FRESH;
    if (has_user(c, HS_DIR_OUT) || c->handshaking)
        return HS_RETIRE_BUSY;
    if (has_bytes(c))
        return HS_RETIRE_BYTES;
    how = judge_turn(c);
    return how == HS_RETIRE_IDLE && now - retire_last_use(c) < idle_ns ? HS_RETIRE_FRESH : how;
}

enum hs_retire
hs_conn_judge(struct hs_conn *c, int64_t idle_ns, int64_t age_ns, int64_t *ret_idle_ns)
{
    enum hs_retire how = HS_RETIRE_GONE;

    HS_CHECK(c, CONN_MAGIC);
    *ret_idle_ns = hs_now() - retire_last_use(c);
    if (!hs_fd_is_ours(&c->fd) || hs_fd_look(&c->fd, NULL) != HS_OK)
        return how;
    how = judge_held(c, idle_ns, age_ns);
    hs_fd_look_end(&c->fd);
    return how;
}

/* Nobody is in a call, and nobody comes into one until this returns. */
static enum hs_retire
end_unused(struct hs_conn *c, int64_t idle_ns, int64_t age_ns)
{
    enum hs_retire how = HS_RETIRE_BUSY;

    if (!hs_call_visit(c, HS_DIR_IN))
        return how;
    if (hs_call_visit(c, HS_DIR_OUT)) {
        if ((how = judge_held(c, idle_ns, age_ns)) == HS_RETIRE_IDLE) {
            hs_conn_end(c, HS_END_ORDERLY);
            how = HS_RETIRE_CLOSED;
        }
        hs_call_leave(c, HS_DIR_OUT);
    }
    hs_call_leave(c, HS_DIR_IN);
    return how;
}

/* Its owner decides: the call that waits, which is woken. */
static enum hs_retire
ask_reader(struct hs_conn *c, int64_t idle_ns, int64_t *ret_was_ns)
{
    int64_t was;

    if (atomic_exchange(&c->quiet.asked, true))
        return HS_RETIRE_BUSY;
    was = atomic_load(&c->quiet.span_ns); /* HS_NEVER before it is bounded */
    if (was > idle_ns && atomic_compare_exchange_strong(&c->quiet.span_ns, &was, idle_ns)) {
        atomic_store(&c->quiet.bounded, true);
        *ret_was_ns = was;
    } else { /* It has a shorter one, or has just been given another. */
        atomic_store(&c->quiet.asked, false);
        *ret_was_ns = idle_ns;
    }
    hs_wakelist_wake(&c->wakers);
    return HS_RETIRE_ASKED;
}

enum hs_retire
hs_conn_retire(struct hs_conn *c, int64_t idle_ns, int64_t age_ns, int64_t *ret_idle_ns,
               int64_t *ret_was_ns)
{
    enum hs_retire how = hs_conn_judge(c, idle_ns, age_ns, ret_idle_ns);

    *ret_was_ns = HS_NEVER;
    if (how != HS_RETIRE_IDLE)
        return how;
    if (hs_spot_waits(c->spot)) {
        *ret_was_ns = idle_ns; /* nothing to put back */
        return hs_spot_retire(c->spot) ? HS_RETIRE_ASKED : HS_RETIRE_BUSY;
    }
    if (has_user(c, HS_DIR_IN))
        return ask_reader(c, idle_ns, ret_was_ns);
    return end_unused(c, idle_ns, age_ns);
}

bool
hs_conn_was_retired(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    return atomic_load(&c->quiet.ended) == HS_QUIET_FOR_LONG;
}

bool
hs_conn_unretire(struct hs_conn *c, int64_t idle_ns, int64_t was_ns)
{
    int64_t span = idle_ns;
    bool ended;

    HS_CHECK(c, CONN_MAGIC);
    if (hs_spot_unretire(c->spot))
        return true;
    if (was_ns == idle_ns) /* There is nothing to put back; the time may be another guard's. */
        return hs_conn_was_retired(c);
    /* Somebody else may have set another time meanwhile, which stays. */
    ended = !atomic_compare_exchange_strong(&c->quiet.span_ns, &span, was_ns) && span < 0;
    atomic_store(&c->quiet.asked, false);
    return ended || hs_conn_was_retired(c);
}

void
hs_conn_set_served(struct hs_conn *c, bool stays)
{
    HS_CHECK(c, CONN_MAGIC);
    atomic_store(&c->quiet.stays, stays);
    atomic_store(&c->roll.served, true);
}

hs_err
hs_conn_set_user_timeout(struct hs_conn *c, unsigned ms, bool shorten, struct hs_error *err,
                         unsigned *ret_was_ms)
{
    socklen_t len = sizeof(unsigned);
    unsigned was = 0;
    hs_err rv = HS_OK;

    HS_CHECK(c, CONN_MAGIC);
    if (c->family == AF_UNIX || !hs_fd_is_ours(&c->fd) || hs_fd_look(&c->fd, NULL) != HS_OK)
        return HS_E_CLOSED;
    if (hs_sys_getsockopt(hs_fd_number(&c->fd), IPPROTO_TCP, TCP_USER_TIMEOUT, &was, &len) != 0 ||
        (!(shorten && 0 < was && (ms == 0 || was <= ms)) &&
         hs_sys_setsockopt(hs_fd_number(&c->fd), IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms)) !=
             0))
        rv = hs_err_set(err, HS_E_SYSTEM, errno, "guard", "TCP_USER_TIMEOUT");
    hs_fd_look_end(&c->fd);
    if (rv == HS_OK)
        *ret_was_ms = was;
    return rv;
}
