/* conn_row.c: what a connection tells to those who look from outside.
 *
 * Everything is read as it is at that moment: atomics, what is immutable, and what the kernel says
 * while the descriptor is held. See roll.h for how they find it.
 */
#include "conn_impl.h"
#include "roll.h"

#include "../base/addr.h"
#include "../base/sys.h"

#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static void
describe_waits(const struct direction *d, struct hs_conn_waits *ret_waits)
{
    *ret_waits = (struct hs_conn_waits){
        .count = atomic_load_explicit(&d->waits, memory_order_relaxed),
        .total_ns = atomic_load_explicit(&d->waited_ns, memory_order_relaxed),
        .since_ns = atomic_load_explicit(&d->waits_since_ns, memory_order_relaxed),
    };
}

static void
ask_kernel(struct hs_conn *c, struct hs_conn_row *row)
{
    int fd = hs_fd_number(&c->fd);
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);

    row->local.len = sizeof(row->local.storage);
    if (hs_sys_getsockname(fd, &row->local.sa, &row->local.len) != 0)
        row->local.len = 0;
    row->unread = row->unsent = -1;
    (void)hs_sys_ioctl(fd, SIOCINQ, &row->unread);
    (void)hs_sys_ioctl(fd, SIOCOUTQ, &row->unsent);
    if (c->family != AF_UNIX && hs_sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0) {
        row->tcp_state = info.tcpi_state;
        row->retransmits = info.tcpi_total_retrans;
        row->rtt_us = info.tcpi_rtt;
    }
}

void
hs_conn_describe(struct hs_conn *c, struct hs_conn_row *ret_row)
{
    struct hs_conn_row row = {.fd = -1};

    HS_CHECK(c, CONN_MAGIC);
    row.id = c->fd.id;
    row.how = (enum hs_made)atomic_load(&c->roll.made);
    row.site = hs_roll_site(c);
    row.thread = atomic_load_explicit(&c->roll.thread, memory_order_relaxed);
    row.holder = atomic_load_explicit(&c->roll.holder, memory_order_relaxed);
    row.service = (uint32_t)(atomic_load_explicit(&c->roll.service, memory_order_relaxed) >> 3);
    row.phase = atomic_load_explicit(&c->roll.service, memory_order_relaxed) & 7;
    row.tls = c->tls != NULL;
    hs_addr_copy(&row.peer, hs_conn_peer(c));
    row.application_ns = atomic_load_explicit(&c->roll.application_ns, memory_order_relaxed);
    row.gil_ns = atomic_load_explicit(&c->roll.gil_ns, memory_order_relaxed);
    describe_waits(&c->dirs[HS_DIR_IN], &row.reading);
    describe_waits(&c->dirs[HS_DIR_OUT], &row.writing);
    hs_conn_info(c, &row.info);
    if (hs_fd_look(&c->fd, NULL) == HS_OK) {
        row.fd = hs_fd_number(&c->fd);
        ask_kernel(c, &row);
        hs_fd_look_end(&c->fd);
    }
    *ret_row = row;
}
