/* bind.h: making a listening socket; listener.c then owns it.
 *
 * Everything that happens once, before the first accept, is behind these two functions.
 */
#ifndef HS_LISTEN_BIND_H
#define HS_LISTEN_BIND_H

#include "hardsock.h"

#include <sys/types.h>

struct bound {
    int fd;
    int family;
    unsigned changed;
    bool mptcp; /* found so in a socket that was adopted */
    /* A unix path that we made, to be removed at the end if it is still the same file. */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    dev_t device;
    ino_t inode;
};

HS_NODISCARD hs_err hs_bind(const struct hs_endpoint *ep, const struct hs_listen_options *o,
                            struct hs_error *err, struct bound *ret_bound);
void hs_bound_remove_path(const struct bound *b);

#endif
