/* addr.c: parsing and printing of addresses: "host:port", "[v6%scope]:port", "unix:/path",
 * "unix:@abstract".
 *
 * Bounds: a host name has at most 253 bytes (RFC 1035 section 2.3.4 without the final dot's byte),
 * a unix path at most 107 so that it always ends in a NUL, as unix(7) advises. Literals are told
 * from names here, so that a literal never costs a lookup.
 */
#include "addr.h"

#include "err.h"
#include "sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HOST 253

static struct sockaddr_in *
in4(const struct hs_addr *a)
{
    return (struct sockaddr_in *)(void *)&((struct hs_addr *)(uintptr_t)a)->storage;
}

static struct sockaddr_in6 *
in6(const struct hs_addr *a)
{
    return (struct sockaddr_in6 *)(void *)&((struct hs_addr *)(uintptr_t)a)->storage;
}

uint16_t
hs_addr_port(const struct hs_addr *addr)
{
    if (addr->sa.sa_family == AF_INET)
        return ntohs(in4(addr)->sin_port);
    return addr->sa.sa_family == AF_INET6 ? ntohs(in6(addr)->sin6_port) : 0;
}

void
hs_addr_set_port(struct hs_addr *addr, uint16_t port)
{
    if (addr->sa.sa_family == AF_INET)
        in4(addr)->sin_port = htons(port);
    else if (addr->sa.sa_family == AF_INET6)
        in6(addr)->sin6_port = htons(port);
}

void
hs_addr_copy(struct hs_addr *to, const struct hs_addr *from)
{
    to->len = from->len;
    memcpy(&to->storage, &from->storage, from->len);
}

bool
hs_addr_equal(const struct hs_addr *a, const struct hs_addr *b)
{
    if (a->sa.sa_family != b->sa.sa_family)
        return false;
    switch (a->sa.sa_family) {
    case AF_INET:
        return in4(a)->sin_addr.s_addr == in4(b)->sin_addr.s_addr &&
               in4(a)->sin_port == in4(b)->sin_port;
    case AF_INET6:
        return memcmp(&in6(a)->sin6_addr, &in6(b)->sin6_addr, sizeof(struct in6_addr)) == 0 &&
               in6(a)->sin6_port == in6(b)->sin6_port &&
               in6(a)->sin6_scope_id == in6(b)->sin6_scope_id;
    default:
        return a->len == b->len && memcmp(&a->storage, &b->storage, a->len) == 0;
    }
}

/* A scope is an interface name or a number (RFC 4007 section 11). */
static hs_err
parse_scope(const char *scope, struct hs_error *err, uint32_t *ret_scope)
{
    char *end;
    unsigned long number;
    unsigned index = hs_sys_if_nametoindex(scope);
    int sys = errno;

    if (index == 0) {
        errno = 0;
        number = strtoul(scope, &end, 10);
        if (scope[0] < '0' || scope[0] > '9' || *end != '\0' || errno != 0 || number > UINT32_MAX) {
            if (sys != ENODEV && sys != ENXIO) /* Nobody could be asked. */
                return hs_err_set(err, HS_E_SYSTEM, sys, NULL, "interface '%s'", scope);
            return hs_err_setx(err, HS_E_INVALID, NULL,
                               "address scope '%s' is neither a network interface nor a number",
                               scope);
        }
        index = (unsigned)number;
    }
    *ret_scope = index;
    return HS_OK;
}

static hs_err
literal_v6(const char *host, uint16_t port, struct hs_error *err, struct hs_addr *ret_addr)
{
    const char *percent = strchr(host, '%');
    char address[INET6_ADDRSTRLEN];
    size_t len = percent != NULL ? (size_t)(percent - host) : strlen(host);
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    hs_err rv;

    if (len >= sizeof(address))
        return HS_WANT;
    memcpy(address, host, len);
    address[len] = '\0';
    if (inet_pton(AF_INET6, address, &sin6.sin6_addr) != 1)
        return HS_WANT;
    if (percent != NULL && (rv = parse_scope(percent + 1, err, &sin6.sin6_scope_id)) != HS_OK)
        return rv;
    *ret_addr = (struct hs_addr){.len = sizeof(sin6)};
    memcpy(&ret_addr->storage, &sin6, sizeof(sin6));
    return HS_OK;
}

hs_err
hs_addr_from_literal(const char *host, uint16_t port, struct hs_error *err,
                     struct hs_addr *ret_addr)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};

    if (inet_pton(AF_INET, host, &sin.sin_addr) != 1)
        return literal_v6(host, port, err, ret_addr);
    *ret_addr = (struct hs_addr){.len = sizeof(sin)};
    memcpy(&ret_addr->storage, &sin, sizeof(sin));
    return HS_OK;
}

static hs_err
check_host(const char *host, size_t len, struct hs_error *err)
{
    const char *name = host;
    size_t label = 0;
    bool literal = memchr(host, ':', len) != NULL || memchr(host, '%', len) != NULL;

    if (memchr(host, '\0', len) != NULL)
        return hs_err_setx(err, HS_E_INVALID, NULL, "host name contains a NUL byte");
    if (len > MAX_HOST + (name[len - 1] == '.'))
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "host name has %zu bytes, the limit is %d (RFC 1035)", len, MAX_HOST);
    for (size_t i = 0; i < len && !literal; i++) {
        if ((unsigned char)host[i] <= ' ' || host[i] == 0x7f)
            return hs_err_setx(err, HS_E_INVALID, NULL,
                               "host name contains the byte 0x%02x, which no name may contain",
                               (unsigned char)host[i]);
        label = host[i] == '.' ? 0 : label + 1;
        if (label > 63)
            return hs_err_setx(err, HS_E_INVALID, NULL,
                               "host name has a label of more than 63 bytes (RFC 1035)");
    }
    return HS_OK;
}

hs_err
hs_endpoint_from_host(const char *host, size_t len, long port, struct hs_error *err,
                      struct hs_endpoint *ret_endpoint)
{
    struct hs_endpoint ep = {.family = AF_UNSPEC};
    hs_err rv;

    if (port < 0 || port > 65535)
        return hs_err_setx(err, HS_E_INVALID, NULL, "port must be in 0..65535, got %ld", port);
    if (len > 0 && (rv = check_host(host, len, err)) != HS_OK)
        return rv;
    ep.port = (uint16_t)port;
    memcpy(ep.host, host, len);
    if (len > 0) {
        rv = hs_addr_from_literal(ep.host, ep.port, err, &ep.addr);
        if (rv != HS_OK && rv != HS_WANT)
            return rv;
        if (rv == HS_OK)
            ep.family = ep.addr.sa.sa_family;
        else if (strpbrk(ep.host, ":%") != NULL)
            return hs_err_setx(err, HS_E_INVALID, NULL, "'%.100s' is not a valid IPv6 address",
                               ep.host);
    }
    *ret_endpoint = ep;
    return HS_OK;
}

hs_err
hs_endpoint_from_path(const char *path, size_t len, struct hs_error *err,
                      struct hs_endpoint *ret_endpoint)
{
    struct hs_endpoint ep = {.family = AF_UNIX};
    struct sockaddr_un *un = &ep.addr.un;
    bool abstract = len > 0 && path[0] == '\0';

    if (len == 0)
        return hs_err_setx(err, HS_E_INVALID, NULL, "unix socket path is empty");
    if (abstract && len > sizeof(un->sun_path))
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "abstract name has %zu bytes, the limit is %zu (unix(7))", len - 1,
                           sizeof(un->sun_path) - 1);
    if (!abstract && len >= sizeof(un->sun_path))
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "unix socket path has %zu bytes, the limit is %zu (unix(7))", len,
                           sizeof(un->sun_path) - 1);
    if (!abstract && memchr(path, '\0', len) != NULL)
        return hs_err_setx(err, HS_E_INVALID, NULL, "unix socket path contains a NUL byte");
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, len);
    ep.addr.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (abstract ? 0 : 1));
    *ret_endpoint = ep;
    return HS_OK;
}

static hs_err
addr_parse_port(const char *text, size_t len, struct hs_error *err, long *ret_port)
{
    long port = 0;

    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9' || len > 5)
            return hs_err_setx(err, HS_E_INVALID, NULL,
                               "port must be a number in 0..65535, got '%.*s'",
                               (int)(len > 40 ? 40 : len), text);
        port = port * 10 + (text[i] - '0');
    }
    *ret_port = port;
    return HS_OK;
}

static hs_err
parse_unix(const char *path, size_t len, struct hs_error *err, struct hs_endpoint *ret_endpoint)
{
    char abstract[sizeof(((struct sockaddr_un *)0)->sun_path)];

    if (len > sizeof(abstract) && path[0] == '@')
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "abstract name has %zu bytes, the limit is %zu (unix(7))", len - 1,
                           sizeof(abstract) - 1);
    if (len == 0 || path[0] != '@')
        return hs_endpoint_from_path(path, len, err, ret_endpoint);
    memcpy(abstract, path, len);
    abstract[0] = '\0';
    return hs_endpoint_from_path(abstract, len, err, ret_endpoint);
}

#define SHOWN(len) ((int)((len) > 80 ? 80 : (len)))

static bool
is_number(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    return len > 0;
}

/* text has the form of a URL, whose host begins at the given place. */
static hs_err
refuse_url(const char *text, size_t len, size_t host, struct hs_error *err)
{
    const char *slash = memchr(text + host, '/', len - host);
    size_t host_len = slash != NULL ? (size_t)(slash - text) - host : len - host;
    bool has_port = memchr(text + host, ':', host_len) != NULL;
    bool http = host == 7 && memcmp(text, "http", 4) == 0;
    bool https = host == 8 && memcmp(text, "https", 5) == 0;
    const char *port = has_port ? "" : https ? ":443" : http ? ":80" : ":PORT";

    return hs_err_setx(err, HS_E_INVALID, NULL, "'%.*s' is a URL: give its host and port, '%.*s%s'",
                       SHOWN(len), text, SHOWN(host_len), text + host, port);
}

/* What somebody may have meant by what is no address. */
static hs_err
refuse_form(const char *text, size_t len, struct hs_error *err)
{
    if (is_number(text, len))
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "'%.*s' is a port without a host: give 'host:port', as in "
                           "'127.0.0.1:%.*s'",
                           SHOWN(len), text, SHOWN(len), text);
    if (len > 0 && memchr(text, ':', len) == NULL)
        return hs_err_setx(
            err, HS_E_INVALID, NULL,
            "'%.*s' has no port: give 'host:port', as in '%.*s:443', or 'unix:/path'", SHOWN(len),
            text, SHOWN(len), text);
    return hs_err_setx(
        err, HS_E_INVALID, NULL,
        "'%.*s' must have the form 'host:port', '[v6]:port' (an IPv6 address goes in "
        "brackets) or 'unix:/path'",
        SHOWN(len), text);
}

/* Finds where the host ends; brackets, when there are any, are not part of it. */
static hs_err
split_host(const char *text, size_t len, struct hs_error *err, size_t *ret_host, size_t *ret_len,
           size_t *ret_port)
{
    const char *close = memchr(text, ']', len);
    const char *colon = memrchr(text, ':', len);
    bool bracketed = len > 0 && text[0] == '[';

    if (bracketed && (close == NULL || (size_t)(close - text) + 1 >= len || close[1] != ':'))
        return hs_err_setx(err, HS_E_INVALID, NULL, "'%.*s' must have the form '[v6]:port'",
                           SHOWN(len), text);
    if (!bracketed && (colon == NULL || memchr(text, ':', (size_t)(colon - text)) != NULL))
        return refuse_form(text, len, err);
    *ret_host = bracketed ? 1 : 0;
    *ret_len = bracketed ? (size_t)(close - text) - 1 : (size_t)(colon - text);
    *ret_port = bracketed ? (size_t)(close - text) + 2 : (size_t)(colon - text) + 1;
    return HS_OK;
}

hs_err
hs_endpoint_parse(const char *text, size_t len, struct hs_error *err,
                  struct hs_endpoint *ret_endpoint)
{
    size_t host, host_len, port_at;
    const char *scheme;
    long port;
    hs_err rv;

    if (len >= 5 && memcmp(text, "unix:", 5) == 0)
        return parse_unix(text + 5, len - 5, err, ret_endpoint);
    if ((scheme = memmem(text, len, "://", 3)) != NULL)
        return refuse_url(text, len, (size_t)(scheme - text) + 3, err);
    if ((rv = split_host(text, len, err, &host, &host_len, &port_at)) != HS_OK)
        return rv;
    if (port_at == len)
        return hs_err_setx(err, HS_E_INVALID, NULL, "'%.*s' has no port behind its ':'", SHOWN(len),
                           text);
    if ((rv = addr_parse_port(text + port_at, len - port_at, err, &port)) != HS_OK)
        return rv;
    if (host == 1 && memchr(text + 1, ':', host_len) == NULL)
        return hs_err_setx(err, HS_E_INVALID, NULL, "only IPv6 addresses go in brackets");
    return hs_endpoint_from_host(text + host, host_len, port, err, ret_endpoint);
}

static const char *
unix_text(const struct hs_addr *addr, char *buf, size_t size)
{
    size_t len = addr->len > offsetof(struct sockaddr_un, sun_path)
                     ? addr->len - offsetof(struct sockaddr_un, sun_path)
                     : 0;
    const char *path = addr->un.sun_path;

    if (len > 0 && path[0] == '\0')
        (void)snprintf(buf, size, "unix:@%.*s", (int)len - 1, path + 1);
    else
        (void)snprintf(buf, size, "unix:%s%.*s", len > 0 && path[0] == '@' ? "./" : "",
                       (int)strnlen(path, len), path);
    return buf;
}

static char *
put_decimal(char *to, unsigned value)
{
    char digits[10];
    size_t n = 0;

    do
        digits[n++] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    while (n > 0)
        *to++ = digits[--n];
    return to;
}

/* By hand: the one who lists ten thousand connections would spend a third of the time in snprintf.
 * */
static void
ipv4_text(const uint8_t bytes[4], unsigned port, char text[INET6_ADDRSTRLEN])
{
    for (int i = 0; i < 4; i++) {
        text = put_decimal(text, bytes[i]);
        *text++ = i < 3 ? '.' : ':';
    }
    *put_decimal(text, port) = '\0';
}

const char *
hs_addr_text(const struct hs_addr *addr, char *buf, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "?";
    char scope[IF_NAMESIZE + 1] = "";

    switch (addr->len == 0 ? AF_UNSPEC : addr->sa.sa_family) {
    case AF_UNIX:
        return unix_text(addr, buf, size);
    case AF_INET:
        ipv4_text((const uint8_t *)&in4(addr)->sin_addr, hs_addr_port(addr), host);
        (void)snprintf(buf, size, "%s", host);
        return buf;
    case AF_INET6:
        (void)inet_ntop(AF_INET6, &in6(addr)->sin6_addr, host, sizeof(host));
        if (in6(addr)->sin6_scope_id != 0) {
            scope[0] = '%';
            if (hs_sys_if_indextoname(in6(addr)->sin6_scope_id, scope + 1) == NULL)
                (void)snprintf(scope, sizeof(scope), "%%%u", in6(addr)->sin6_scope_id);
        }
        (void)snprintf(buf, size, "[%s%s]:%u", host, scope, hs_addr_port(addr));
        return buf;
    default:
        (void)snprintf(buf, size, "(none)");
        return buf;
    }
}

const char *
hs_endpoint_text(const struct hs_endpoint *ep, char *buf, size_t size)
{
    if (ep->family != AF_UNSPEC)
        return hs_addr_text(&ep->addr, buf, size);
    (void)snprintf(buf, size, "%s:%u", ep->host, ep->port);
    return buf;
}
