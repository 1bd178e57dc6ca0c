/* conn.c: a connection's life, and the questions one may ask it.
 *
 * Owns the memory and the reference count; the descriptor is fd.h's, calls are conn_call.c's. See
 * conn_impl.h for the invariants.
 */
#include "conn.h"
#include "spot.h"

#include "conn_impl.h"
#include "roll.h"
#include "sockopt.h"
#include "../base/addr.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define FREED 0x72

static atomic_long live;

long
hs_conn_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

/* The peer's address is the last member, and may be much shorter than there is room for. A unix
 * socket's may have no name, and is looked at as if it had one. */
static size_t
conn_size(const struct hs_addr *peer)
{
    size_t len = peer->len;

    if (len < sizeof(struct sockaddr_in))
        len = sizeof(struct sockaddr_in);
    return offsetof(struct hs_conn, peer) + offsetof(struct hs_addr, storage) + len;
}

static struct hs_conn *
conn_new(int family, const struct hs_addr *peer, const struct hs_sockopts *opts, unsigned changed,
         struct hs_error *err)
{
    struct hs_conn *c = hs_sys_calloc(1, conn_size(peer));

    if (c == NULL) {
        (void)hs_err_setx(err, HS_E_NOMEM, NULL, "no memory for a connection");
        return NULL;
    }
    c->magic = CONN_MAGIC;
    c->refs = 1;
    c->handles = 1;
    c->family = (sa_family_t)family;
    hs_addr_copy(&c->peer, peer);
    c->layer = &hs_tcp_layer;
    for (int dir = HS_DIR_IN; dir <= HS_DIR_OUT; dir++)
        c->dirs[dir].deadline_ns = c->dirs[dir].turn_ns = HS_NEVER;
    c->half_closed_ns = c->pace.until_ns = c->handshake_until_ns = HS_NEVER;
    c->quiet.span_ns = c->quiet.first_by_ns = HS_NEVER;
    hs_wakelist_init(&c->wakers);
    c->created_ns = hs_now();
    c->changed = (uint16_t)changed;
    c->opts = *opts;
    c->mptcp = opts->mptcp == 1;
    return c;
}

static void
conn_begin(struct hs_conn *c, struct hs_conn **ret_conn)
{
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    hs_roll_add(c);
    *ret_conn = c;
}

hs_err
hs_conn_wrap(int fd, int family, const struct hs_addr *peer, const struct hs_addr *local,
             const struct hs_sockopts *opts, unsigned changed, struct hs_error *err,
             struct hs_conn **ret_conn)
{
    struct hs_conn *c = conn_new(family, peer, opts, changed, err);

    if (c == NULL)
        return HS_E_NOMEM;
    if (local != NULL && local->len != 0 && family != AF_UNIX) {
        memcpy(&c->local, &local->storage, sizeof(c->local));
        c->local_state = LOCAL_KNOWN;
    }
    hs_fd_init(&c->fd, fd);
    conn_begin(c, ret_conn);
    return HS_OK;
}

/* A stream socket that has a peer, of a family that we know. */
static hs_err
check_adoptable(int fd, struct hs_error *err, int *ret_family, struct hs_addr *ret_peer)
{
    struct hs_addr peer = {.len = sizeof(peer.storage)};
    int type, family;
    socklen_t len = sizeof(int);

    if (hs_sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 ||
        hs_sys_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len) != 0) {
        hs_fd_no_socket(fd, "adopt", err);
        return HS_E_INVALID;
    }
    if (type != SOCK_STREAM || (family != AF_INET && family != AF_INET6 && family != AF_UNIX))
        return hs_err_setx(err, HS_E_INVALID, "adopt",
                           "descriptor %d is not a TCP or unix stream socket", fd);
    if (hs_sys_getpeername(fd, &peer.sa, &peer.len) != 0)
        return hs_err_set(err, HS_E_INVALID, errno, "adopt", "descriptor %d has no peer", fd);
    *ret_family = family;
    *ret_peer = peer;
    return HS_OK;
}

hs_err
hs_conn_adopt(int fd, const struct hs_sockopts *opts, struct hs_error *err,
              struct hs_conn **ret_conn)
{
    struct hs_sockopts none, own;
    struct hs_addr peer;
    struct hs_conn *c;
    unsigned changed;
    int family;
    hs_err rv;

    hs_sockopts_init(&none);
    if (opts == NULL)
        opts = &none;
    if ((rv = check_adoptable(fd, err, &family, &peer)) != HS_OK ||
        (rv = hs_fd_check_free(fd, "adopt", err)) != HS_OK)
        return rv;
    hs_sockopts_draw(opts, &own);
    if ((rv = hs_sockopts_apply(fd, family, &own, HS_USE_CONNECTION, err, &changed)) != HS_OK)
        return rv;
    if ((c = conn_new(family, &peer, &own, changed, err)) == NULL)
        return HS_E_NOMEM;
    if ((rv = hs_fd_take(&c->fd, fd, "adopt", err)) != HS_OK) {
        hs_wakelist_fini(&c->wakers);
        free(c);
        return rv;
    }
    c->may_linger = true;
    c->mptcp = hs_sockopt_may_be_mptcp(fd);
    conn_begin(c, ret_conn);
    return HS_OK;
}

void
hs_conn_set_mptcp(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    c->mptcp = true;
}

struct hs_conn *
hs_conn_ref(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void
hs_conn_unref(struct hs_conn *c)
{
    if (c == NULL)
        return;
    HS_CHECK(c, CONN_MAGIC);
    if (atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    hs_roll_remove(c);
    hs_conn_leave_departures(c);
    hs_conn_end(c, HS_END_LOST);
    hs_deframer_fini(&c->in);
    hs_slots_unref(c->slots);
    hs_spot_free(c->spot);
    hs_departures_unref(c->departures);
    hs_delays_unref(c->delays);
    if (hs_fd_is_ours(&c->fd)) { /* In a forked child threads that waited are gone, what they were
                                  * in the middle of is not. */
        hs_wakelist_fini(&c->wakers);
        hs_tls_free(c->tls);
    }
    free(c->client);
    memset(c, FREED, conn_size(&c->peer));
    free(c);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

void
hs_conn_share(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    atomic_fetch_add(&c->handles, 1);
}

void
hs_conn_unshare(struct hs_conn *c, bool lost)
{
    HS_CHECK(c, CONN_MAGIC);
    if (atomic_fetch_sub(&c->handles, 1) == 1)
        hs_conn_end(c, lost ? HS_END_LOST : HS_END_ORDERLY);
}

/* ---- Asking -------------------------------------------------------------------------------- */

int
hs_conn_fileno(struct hs_conn *c)
{
    int fd = -1;

    if (hs_fd_look(&c->fd, NULL) == HS_OK) {
        fd = hs_fd_number(&c->fd);
        hs_fd_look_end(&c->fd);
    }
    return fd;
}

void
hs_conn_set_deadline(struct hs_conn *c, enum hs_dir dir, int64_t deadline_ns)
{
    HS_CHECK(c, CONN_MAGIC);
    if (deadline_ns == HS_TRY_ONCE)
        deadline_ns = 1; /* A point in time long past, not a mode. */
    atomic_store(&c->dirs[dir].deadline_ns, deadline_ns);
    if (hs_fd_is_ours(&c->fd))
        hs_wakelist_wake(&c->wakers);
}

void
hs_conn_join_slots(struct hs_conn *c, struct hs_slots *t)
{
    HS_CHECK(c, CONN_MAGIC);
    HS_ASSERT(c->slots == NULL);
    c->slots = hs_slots_ref(t);
    atomic_store(&c->in_slots, true);
}

void
hs_conn_leave_slots(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    atomic_store(&c->in_slots, false);
}

void
hs_conn_set_turns(struct hs_conn *c, int64_t read_ns, int64_t write_ns)
{
    HS_CHECK(c, CONN_MAGIC);
    atomic_store(&c->dirs[HS_DIR_IN].turn_ns, read_ns);
    atomic_store(&c->dirs[HS_DIR_OUT].turn_ns, write_ns);
    for (int dir = HS_DIR_IN; dir <= HS_DIR_OUT; dir++) /* It had other bounds. */
        atomic_store(&c->dirs[dir].turn_began_ns, 0);
    if (read_ns != HS_NEVER || write_ns != HS_NEVER)
        atomic_store(&c->has_turns, true);
}

/* Before others know c, or else a call that waits already is not bounded. */
void
hs_conn_set_idle_timeout(struct hs_conn *c, int64_t span_ns)
{
    HS_CHECK(c, CONN_MAGIC);
    atomic_store(&c->quiet.span_ns, span_ns);
    atomic_store(&c->quiet.bounded, true);
}

void
hs_conn_expect_no_more(struct hs_conn *c, int64_t first_by_ns)
{
    HS_CHECK(c, CONN_MAGIC);
    atomic_store(&c->quiet.first_by_ns, first_by_ns);
    atomic_store(&c->quiet.bounded, true);
    if (hs_fd_is_ours(&c->fd))
        hs_wakelist_wake(&c->wakers);
}

int64_t
hs_conn_get_deadline(struct hs_conn *c, enum hs_dir dir)
{
    return atomic_load(&c->dirs[dir].deadline_ns);
}

/* A look from outside: what it sees may be over a moment later. */
static bool
is_idle(struct hs_conn *c)
{
    struct direction *in = &c->dirs[HS_DIR_IN], *out = &c->dirs[HS_DIR_OUT];

    return atomic_load(&in->user) == USER_CALL && atomic_load(&out->user) != USER_CALL &&
           !atomic_load(&c->mid_message) && atomic_load(&c->buffered) == 0 &&
           atomic_load(&in->last_ns) <= atomic_load(&out->last_ns) && !hs_conn_has_unread(c);
}

void
hs_conn_info(struct hs_conn *c, struct hs_conn_info *ret_info)
{
    const struct direction *in = &c->dirs[HS_DIR_IN], *out = &c->dirs[HS_DIR_OUT];
    bool broken = atomic_load(&c->broken) != HS_OK;

    HS_CHECK(c, CONN_MAGIC);
    *ret_info = (struct hs_conn_info){
        .created_ns = c->created_ns,
        .last_read_ns = atomic_load_explicit(&in->last_ns, memory_order_relaxed),
        .last_write_ns = atomic_load_explicit(&out->last_ns, memory_order_relaxed),
        .bytes_received = atomic_load_explicit(&in->bytes, memory_order_relaxed),
        .bytes_sent = atomic_load_explicit(&out->bytes, memory_order_relaxed),
        .buffered = atomic_load_explicit(&c->buffered, memory_order_relaxed),
        .family = c->family,
        .changed_settings = c->changed,
        .poisoned_in = broken || atomic_load(&in->poison) != HS_OK,
        .poisoned_out = broken || atomic_load(&out->poison) != HS_OK || hs_conn_half_sent(c),
        .idle = is_idle(c),
        .quiet = (enum hs_quiet)atomic_load(&c->quiet.ended),
        .idle_timeout_ns =
            hs_quiet_span(atomic_load_explicit(&c->quiet.span_ns, memory_order_relaxed)),
        .late_in = atomic_load(&in->late),
        .late_out = atomic_load(&out->late),
        .left = atomic_load(&c->left) != 0,
    };
}

/* Kept from the beginning: after a reset the kernel has forgotten it. */
hs_err
hs_conn_peer_addr(struct hs_conn *c, struct hs_error *err, struct hs_addr *ret_addr)
{
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_fd_look(&c->fd, err)) != HS_OK)
        return rv;
    hs_addr_copy(ret_addr, hs_conn_peer(c));
    hs_fd_look_end(&c->fd);
    return HS_OK;
}

hs_err
hs_conn_set_client(struct hs_conn *c, const struct hs_addr *client, struct hs_error *err)
{
    struct hs_addr *copy = hs_sys_malloc(sizeof(*copy));

    if (copy == NULL)
        return hs_err_setx(err, HS_E_NOMEM, NULL, "no memory for a client's address");
    hs_addr_copy(copy, client);
    HS_ASSERT(atomic_load(&c->client) == NULL);
    atomic_store_explicit(&c->client, copy, memory_order_release);
    return HS_OK;
}

void
hs_conn_set_guest(struct hs_conn *c, struct hs_conn_guest *guest)
{
    c->guest = guest;
}

bool
hs_conn_proxy_addr(struct hs_conn *c, struct hs_addr *ret_addr)
{
    HS_CHECK(c, CONN_MAGIC);
    if (atomic_load(&c->client) == NULL)
        return false;
    hs_addr_copy(ret_addr, &c->peer);
    return true;
}

void
hs_conn_addresses(struct hs_conn *c, struct hs_addr *ret_local, struct hs_addr *ret_peer)
{
    hs_addr_copy(ret_peer, hs_conn_peer(c));
    if (!hs_conn_known_local(c, ret_local) && hs_conn_local_addr(c, NULL, ret_local) != HS_OK)
        ret_local->len = 0;
}

hs_err
hs_conn_getsockopt(struct hs_conn *c, int level, int name, void *value, socklen_t *len,
                   struct hs_error *err)
{
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_fd_look(&c->fd, err)) != HS_OK)
        return rv;
    if ((level == SOL_SOCKET && name == SO_ERROR
             ? hs_ask_error(c, value, len)
             : hs_sys_getsockopt(hs_fd_number(&c->fd), level, name, value, len)) != 0)
        rv = hs_err_set(err, HS_E_SYSTEM, errno, "getsockopt", "getsockopt");
    hs_fd_look_end(&c->fd);
    return rv;
}

hs_err
hs_conn_setsockopt(struct hs_conn *c, int level, int name, const void *value, socklen_t len,
                   struct hs_error *err)
{
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_fd_look(&c->fd, err)) != HS_OK)
        return rv;
    if (level == SOL_SOCKET && name == SO_LINGER)
        atomic_store(&c->may_linger, true);
    if (hs_sys_setsockopt(hs_fd_number(&c->fd), level, name, value, len) != 0)
        rv = hs_err_set(err, HS_E_SYSTEM, errno, "setsockopt", "setsockopt");
    hs_fd_look_end(&c->fd);
    return rv;
}

hs_err
hs_conn_audit(struct hs_conn *c, struct hs_setting *settings, struct hs_error *err, size_t *ret_n)
{
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_fd_look(&c->fd, err)) != HS_OK)
        return rv;
    *ret_n =
        hs_sockopts_audit(hs_fd_number(&c->fd), c->family, &c->opts, HS_USE_CONNECTION, settings);
    hs_fd_look_end(&c->fd);
    return HS_OK;
}
