/* network.c: see network.h.
 *
 * A host's part of a network's bits is not looked at, so that the one who made them need not clear
 * it.
 */
#include "network.h"

#include "err.h"

#include <netinet/in.h>
#include <string.h>

hs_err
hs_network_check(const struct hs_network *n, struct hs_error *err)
{
    unsigned most = n->family == AF_INET ? 32 : n->family == AF_INET6 ? 128 : 0;

    if (n->family != AF_INET && n->family != AF_INET6 && n->family != AF_UNIX)
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "a network must be of AF_INET, AF_INET6 or AF_UNIX, not of family %d",
                           n->family);
    if (n->prefix > most)
        return hs_err_setx(err, HS_E_INVALID, NULL, "a network's prefix must be in 0..%u, got %u",
                           most, n->prefix);
    return HS_OK;
}

/* The address's bits, as what its family is; NULL: it has none. */
static const uint8_t *
bits_of(const struct hs_addr *addr, struct sockaddr_in6 *room, int *ret_family)
{
    struct sockaddr_in sin;

    *ret_family = addr->sa.sa_family;
    if (addr->sa.sa_family == AF_INET) {
        memcpy(&sin, &addr->storage, sizeof(sin));
        memcpy(&room->sin6_addr, &sin.sin_addr, sizeof(sin.sin_addr));
        return room->sin6_addr.s6_addr;
    }
    if (addr->sa.sa_family != AF_INET6)
        return NULL;
    memcpy(room, &addr->storage, sizeof(*room));
    if (!IN6_IS_ADDR_V4MAPPED(&room->sin6_addr))
        return room->sin6_addr.s6_addr;
    *ret_family = AF_INET;
    return room->sin6_addr.s6_addr + 12;
}

static bool
begins_alike(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;

    return memcmp(a, b, whole) == 0 &&
           (rest == 0 || ((a[whole] ^ b[whole]) & (0xff00U >> rest) & 0xffU) == 0);
}

bool
hs_networks_have(const struct hs_network *networks, size_t n, const struct hs_addr *addr)
{
    struct sockaddr_in6 room;
    int family;
    const uint8_t *bits = bits_of(addr, &room, &family);

    for (size_t i = 0; i < n; i++)
        if (networks[i].family == family &&
            (bits == NULL || begins_alike(networks[i].bits, bits, networks[i].prefix)))
            return true;
    return false;
}
