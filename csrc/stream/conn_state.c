/* conn_state.c: what is known of a connection without a call on it: its addresses, what its socket
 * says, whether it broke.
 *
 * The lowest file of a connection; needs no claim of a direction.
 */
#include "conn_impl.h"

#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

const struct hs_addr *
hs_conn_peer(struct hs_conn *c)
{
    const struct hs_addr *client = atomic_load_explicit(&c->client, memory_order_acquire);

    return client != NULL ? client : &c->peer;
}

bool
hs_conn_known_local(struct hs_conn *c, struct hs_addr *ret_addr)
{
    if (atomic_load(&c->local_state) != LOCAL_KNOWN)
        return false;
    ret_addr->len =
        c->family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    memcpy(&ret_addr->storage, &c->local, ret_addr->len);
    return true;
}

/* Of a connected socket it stays as it is. A unix socket's may be long, and is not kept. */
static void
conn_state_keep_local(struct hs_conn *c, const struct hs_addr *addr)
{
    unsigned char unknown = LOCAL_UNKNOWN;

    if (c->family == AF_UNIX ||
        !atomic_compare_exchange_strong(&c->local_state, &unknown, LOCAL_BEGUN))
        return;
    memcpy(&c->local, &addr->storage, sizeof(c->local));
    atomic_store(&c->local_state, LOCAL_KNOWN);
}

hs_err
hs_conn_local_addr(struct hs_conn *c, struct hs_error *err, struct hs_addr *ret_addr)
{
    struct hs_addr addr = {.len = sizeof(addr.storage)};
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_fd_look(&c->fd, err)) != HS_OK)
        return rv;
    if (!hs_conn_known_local(c, &addr)) {
        if (hs_sys_getsockname(hs_fd_number(&c->fd), &addr.sa, &addr.len) == 0)
            conn_state_keep_local(c, &addr);
        else
            rv = hs_err_set(err, HS_E_SYSTEM, errno, "getsockname", "getsockname");
    }
    hs_fd_look_end(&c->fd);
    if (rv == HS_OK)
        *ret_addr = addr;
    return rv;
}

void
hs_conn_remember_local(struct hs_conn *c)
{
    struct hs_addr addr;

    if (c->family != AF_UNIX && hs_conn_local_addr(c, NULL, &addr) != HS_OK)
        return; /* Then errors that come after do not tell it. */
}

bool
hs_conn_has_unread(struct hs_conn *c)
{
    int unread = 0;

    if (hs_fd_look(&c->fd, NULL) != HS_OK)
        return false;
    (void)hs_sys_ioctl(hs_fd_number(&c->fd), SIOCINQ, &unread);
    hs_fd_look_end(&c->fd);
    return unread > 0;
}

bool
hs_conn_tcp_is_closed(struct hs_conn *c)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);

    return c->family != AF_UNIX &&
           hs_sys_getsockopt(hs_fd_number(&c->fd), IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
           info.tcpi_state == TCP_CLOSE;
}

/* Whether our end has gone out, as far as one can know beside another thread's shutdown(2): the
 * kernel has sent it before we have noted so. Who looks first whether the connection is over, and
 * then here, takes no end of ours for the peer's reset. */
bool
hs_conn_may_have_ended(const struct hs_conn *c)
{
    return atomic_load(&c->fin_tries) > 0 || atomic_load(&c->fin_sent);
}

bool
hs_conn_set_once(_Atomic hs_err *where, hs_err code)
{
    hs_err none = HS_OK;

    return atomic_compare_exchange_strong(where, &none, code);
}

hs_err
hs_conn_check_broken(struct hs_conn *c, struct hs_error *err)
{
    hs_err broken = atomic_load(&c->broken);

    if (broken == HS_OK)
        return HS_OK;
    return hs_err_setx(err, broken, NULL, "%s, as was found earlier", hs_err_text(broken));
}

bool
hs_conn_half_sent(struct hs_conn *c)
{
    return c->tls != NULL && hs_tls_is_half_sent(c->tls);
}

void
hs_conn_wake_reader(struct hs_conn *c)
{
    if (c->tls != NULL && hs_tls_took_input(c->tls))
        hs_wakelist_wake(&c->wakers);
}

void
hs_half_closed(struct hs_conn *c, enum hs_dir other)
{
    int64_t until = hs_deadline_after(atomic_load(&c->half_closed_ns));
    int64_t was = atomic_load(&c->dirs[other].deadline_ns);

    do { /* A deadline that somebody sets at this moment must not be lost. */
        if (until >= was)
            return;
    } while (!atomic_compare_exchange_weak(&c->dirs[other].deadline_ns, &was, until));
    hs_wakelist_wake(&c->wakers);
}
