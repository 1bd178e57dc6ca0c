/* proxy_header.h: the header that a proxy puts before a connection's own bytes, to say who is
 * behind it (HAProxy's proxy-protocol.txt, versions 1 and 2).
 *
 * A function of bytes alone: no matter who reads decides from whom such a header is believed.
 */
#ifndef HS_LISTEN_PROXY_HEADER_H
#define HS_LISTEN_PROXY_HEADER_H

#include "hardsock.h"

/* Version 1 ends within 107 bytes. Version 2 could say 65,551; the largest that proxies send hold a
 * client certificate. */
#define HS_PROXY_HEADER_MAX 4096

struct hs_proxy_header {
    int version;
    size_t length; /* what follows is the connection's */
    /* False: the proxy speaks for itself (a health check), or does not know for whom. The
     * connection's own addresses count then. */
    bool proxied;
    struct hs_addr source, destination;
};

/* HS_WANT: incomplete so far; *ret_need is how many bytes there must be before it is worth while to
 * ask again. HS_E_BAD_FRAME: no such header, as soon as it shows. */
HS_NODISCARD hs_err hs_proxy_header_parse(const uint8_t *bytes, size_t n, struct hs_error *err,
                                          size_t *ret_need, struct hs_proxy_header *ret_header);

#endif
