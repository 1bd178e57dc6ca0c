/* diag.h: which TCP and UDP sockets there are, as the kernel tells.
 *
 * From sock_diag(7) for the running kernel, else from /proc/net (which does not know backlogs).
 */
#ifndef TUNE_DIAG_H
#define TUNE_DIAG_H

#include "sys.h"

struct listener {
    int family;
    uint32_t addr[4];
    uint16_t port;
    uint32_t waiting, backlog; /* of the accept queue */
    uint32_t inode;            /* of the socket; 0: not known */
};

struct peer {
    int family;
    uint32_t addr[4];
    uint16_t port;
    size_t count;     /* local ports in use towards it */
    size_t time_wait; /* of those in TIME_WAIT */
};

struct diag {
    struct listener *listeners;
    size_t n_listeners, cap_listeners;
    struct peer *peers; /* most ports first */
    size_t n_peers, cap_peers;
    size_t combine_at; /* so many peers may be the same ones again */
    size_t time_wait;
    bool has_backlogs;
    struct value tcp_ports, udp_ports; /* listening; bound without a peer */
    /* Of both: those inside the range that are not reserved. The kernel may have picked them for
     * programs that asked for port 0, and tells nobody whether it did. */
    struct value untold;
};

/* Of connections only where they could take half of the automatic ports, or every one. */
void diag_read(const struct sys *s, bool every, struct diag *ret);
const char *diag_address(int family, const uint32_t addr[4], uint16_t port);

#endif
