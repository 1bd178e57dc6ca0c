/* breaker_key.c: what a breaker tells apart, as bytes and as text.
 *
 * Addresses are packed field by field: a sockaddr has padding and, for IPv6, a flow label, and
 * neither makes another peer. Text and key go both ways, so that what a snapshot shows can be given
 * to hs_breaker_reset.
 */
#include "breaker_key.h"

#include "../base/addr.h"
#include "../base/err.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

enum key_kind {
    KEY_NAME = 1,
    KEY_V4,
    KEY_V6,
    KEY_UNIX,
    KEY_LISTENER = 0x80 /* with one of those */
};

#define LISTENER_PREFIX "listener "

_Static_assert(sizeof(struct hs_breaker_key) == 2 + HS_BREAKER_NAME_MAX, "no padding");
_Static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) <= HS_BREAKER_NAME_MAX, "a path fits");

static void
append(struct hs_breaker_key *key, const void *bytes, size_t n)
{
    memcpy(key->bytes + key->len, bytes, n);
    key->len = (uint8_t)(key->len + n);
}

void
hs_breaker_key_addr(const struct hs_addr *addr, struct hs_breaker_key *ret_key)
{
    const struct sockaddr_in *in = (const void *)&addr->storage;
    const struct sockaddr_in6 *in6 = (const void *)&addr->storage;
    const size_t path = offsetof(struct sockaddr_un, sun_path);

    memset(ret_key, 0, sizeof(*ret_key));
    switch (addr->sa.sa_family) {
    case AF_INET:
        ret_key->kind = KEY_V4;
        append(ret_key, &in->sin_port, sizeof(in->sin_port));
        append(ret_key, &in->sin_addr, sizeof(in->sin_addr));
        break;
    case AF_INET6:
        ret_key->kind = KEY_V6;
        append(ret_key, &in6->sin6_port, sizeof(in6->sin6_port));
        append(ret_key, &in6->sin6_addr, sizeof(in6->sin6_addr));
        append(ret_key, &in6->sin6_scope_id, sizeof(in6->sin6_scope_id));
        break;
    default:
        ret_key->kind = KEY_UNIX;
        if (addr->len > path)
            append(ret_key, addr->un.sun_path, addr->len - path);
        break;
    }
}

void
hs_breaker_key_listener(const struct hs_addr *addr, struct hs_breaker_key *ret_key)
{
    hs_breaker_key_addr(addr, ret_key);
    ret_key->kind |= KEY_LISTENER;
}

hs_err
hs_breaker_key_parse(const char *text, size_t len, struct hs_error *err,
                     struct hs_breaker_key *ret_key)
{
    const size_t prefix = sizeof(LISTENER_PREFIX) - 1;
    bool listener = len > prefix && memcmp(text, LISTENER_PREFIX, prefix) == 0;
    size_t skip = listener ? prefix : 0;
    struct hs_error ignored = {0};
    struct hs_endpoint ep;

    if (hs_endpoint_parse(text + skip, len - skip, &ignored, &ep) == HS_OK &&
        ep.family != AF_UNSPEC) {
        (listener ? hs_breaker_key_listener : hs_breaker_key_addr)(&ep.addr, ret_key);
        return HS_OK;
    }
    if (len == 0 || len > HS_BREAKER_NAME_MAX)
        return hs_err_setx(err, HS_E_INVALID, "breaker", "a key must have 1 to %d bytes, got %zu",
                           HS_BREAKER_NAME_MAX, len);
    memset(ret_key, 0, sizeof(*ret_key));
    ret_key->kind = KEY_NAME;
    append(ret_key, text, len);
    return HS_OK;
}

/* The way back; false for a name. */
static bool
unpack(const struct hs_breaker_key *key, struct hs_addr *ret_addr)
{
    struct sockaddr_in *in = (void *)&ret_addr->storage;
    struct sockaddr_in6 *in6 = (void *)&ret_addr->storage;

    memset(ret_addr, 0, sizeof(*ret_addr));
    switch (key->kind & ~KEY_LISTENER) {
    case KEY_V4:
        ret_addr->len = sizeof(*in);
        in->sin_family = AF_INET;
        memcpy(&in->sin_port, key->bytes, sizeof(in->sin_port));
        memcpy(&in->sin_addr, key->bytes + 2, sizeof(in->sin_addr));
        return true;
    case KEY_V6:
        ret_addr->len = sizeof(*in6);
        in6->sin6_family = AF_INET6;
        memcpy(&in6->sin6_port, key->bytes, sizeof(in6->sin6_port));
        memcpy(&in6->sin6_addr, key->bytes + 2, sizeof(in6->sin6_addr));
        memcpy(&in6->sin6_scope_id, key->bytes + 18, sizeof(in6->sin6_scope_id));
        return true;
    case KEY_UNIX:
        ret_addr->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + key->len);
        ret_addr->un.sun_family = AF_UNIX;
        memcpy(ret_addr->un.sun_path, key->bytes, key->len);
        return true;
    default:
        return false;
    }
}

const char *
hs_breaker_key_text(const struct hs_breaker_key *key, char *buf, size_t size)
{
    char text[HS_ADDR_TEXT_SIZE];
    struct hs_addr addr;

    if (unpack(key, &addr))
        (void)snprintf(buf, size, "%s%s", hs_breaker_key_is_listener(key) ? LISTENER_PREFIX : "",
                       hs_addr_text(&addr, text, sizeof(text)));
    else
        (void)snprintf(buf, size, "%.*s", (int)key->len, (const char *)key->bytes);
    return buf;
}

bool
hs_breaker_key_equal(const struct hs_breaker_key *a, const struct hs_breaker_key *b)
{
    return a->kind == b->kind && a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

bool
hs_breaker_key_is_listener(const struct hs_breaker_key *key)
{
    return (key->kind & KEY_LISTENER) != 0;
}

/* FNV-1a; the seed, so that nobody outside can choose addresses that share a hash bucket. */
uint64_t
hs_breaker_key_hash(const struct hs_breaker_key *key, uint64_t seed)
{
    uint64_t h = seed ^ UINT64_C(0xcbf29ce484222325) ^ key->kind;

    for (size_t i = 0; i < key->len; i++)
        h = (h ^ key->bytes[i]) * UINT64_C(0x100000001b3);
    return h ^ (h >> 32);
}
