/* peer_key.c: see peer_key.h.
 *
 * An IPv4 address that is mapped into IPv6, as dual-stack listeners see it, is the IPv4 one.
 */
#include "peer_key.h"

#include <netinet/in.h>
#include <string.h>

bool
hs_peer_keys(const struct hs_addr *addr, struct hs_peer_key *ret_peer,
             struct hs_peer_key *ret_network)
{
    struct sockaddr_in6 sin6;
    struct sockaddr_in sin;
    uint32_t v4;
    uint64_t v6 = 0;

    if (addr->sa.sa_family == AF_INET) {
        memcpy(&sin, &addr->storage, sizeof(sin));
        v4 = ntohl(sin.sin_addr.s_addr);
    } else if (addr->sa.sa_family == AF_INET6) {
        memcpy(&sin6, &addr->storage, sizeof(sin6));
        for (int i = 0; i < 8; i++)
            v6 = v6 << 8 | sin6.sin6_addr.s6_addr[i];
        if (!IN6_IS_ADDR_V4MAPPED(&sin6.sin6_addr)) {
            *ret_peer = (struct hs_peer_key){.bits = v6, .width = 64};
            *ret_network = (struct hs_peer_key){.bits = v6 >> 16, .width = 48};
            return true;
        }
        memcpy(&v4, sin6.sin6_addr.s6_addr + 12, sizeof(v4));
        v4 = ntohl(v4);
    } else {
        return false;
    }
    *ret_peer = (struct hs_peer_key){.bits = v4, .width = 32};
    *ret_network = (struct hs_peer_key){.bits = v4 >> 8, .width = 24};
    return true;
}

bool
hs_peer_key_is(const struct hs_peer_key *a, const struct hs_peer_key *b)
{
    return a->bits == b->bits && a->width == b->width;
}
