/* proxy_header.c: see proxy_header.h. Sections are those of proxy-protocol.txt.
 *
 * Strict, since it names the peer that bounds and logs go by: what is not written as section 2 says
 * is no header. Extensions (TLVs) are walked, so that their lengths add up, and a checksum that is
 * there has to be right; what they say is not looked at.
 */
#include "proxy_header.h"

#include "../base/addr.h"
#include "../base/err.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define V1_MAX 107 /* section 2.1, with its CRLF */
#define V2_FIXED 16U
#define TYPE_CRC32C 0x03

static const char v1_start[] = "PROXY ";
static const uint8_t v2_start[12] = {0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D,
                                     0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A};

static hs_err
proxy_header_bad(struct hs_error *err, const char *what)
{
    return hs_err_setx(err, HS_E_BAD_FRAME, NULL, "PROXY header: %s", what);
}

/* ---- Version 1 ----------------------------------------------------------------------------- */

/* Cuts the next word off *rest; NULL when there is none. Words are one space apart. */
static char *
next_word(char **rest)
{
    char *word = *rest, *end;

    if (word == NULL || *word == '\0')
        return NULL;
    if ((end = strchr(word, ' ')) != NULL)
        *end++ = '\0';
    *rest = end;
    return *word == '\0' ? NULL : word;
}

/* Decimal, without a leading zero. */
static bool
proxy_header_parse_port(const char *word, uint16_t *ret_port)
{
    unsigned port = 0;
    size_t n = word == NULL ? 0 : strspn(word, "0123456789");

    if (n == 0 || n > 5 || word[n] != '\0' || (word[0] == '0' && n > 1))
        return false;
    for (size_t i = 0; i < n; i++)
        port = 10 * port + (unsigned)(word[i] - '0');
    if (port > UINT16_MAX)
        return false;
    *ret_port = (uint16_t)port;
    return true;
}

static bool
parse_address(int family, const char *word, uint16_t port, struct hs_addr *ret_addr)
{
    struct hs_addr addr;

    /* Of IPv6 a scope means something on one machine only. */
    if (word == NULL || strchr(word, '%') != NULL ||
        hs_addr_from_literal(word, port, NULL, &addr) != HS_OK || addr.sa.sa_family != family)
        return false;
    *ret_addr = addr;
    return true;
}

static hs_err
parse_v1_line(char *line, struct hs_error *err, struct hs_proxy_header *h)
{
    char *rest = line;
    const char *protocol = next_word(&rest), *source, *destination, *from, *to;
    uint16_t from_port = 0, to_port = 0;
    int family;

    if (protocol == NULL)
        return proxy_header_bad(err, "no protocol");
    if (strcmp(protocol, "UNKNOWN") == 0)
        return HS_OK; /* "the receiver must ignore anything presented before the CRLF" */
    if (strcmp(protocol, "TCP4") != 0 && strcmp(protocol, "TCP6") != 0)
        return proxy_header_bad(err, "the protocol is none of TCP4, TCP6 and UNKNOWN");
    family = protocol[3] == '4' ? AF_INET : AF_INET6;
    source = next_word(&rest);
    destination = next_word(&rest);
    from = next_word(&rest);
    to = next_word(&rest);
    if (to == NULL || rest != NULL)
        return proxy_header_bad(err, "not two addresses and two ports");
    if (!proxy_header_parse_port(from, &from_port) || !proxy_header_parse_port(to, &to_port))
        return proxy_header_bad(err, "a port is not a number in 0..65535");
    if (!parse_address(family, source, from_port, &h->source) ||
        !parse_address(family, destination, to_port, &h->destination))
        return proxy_header_bad(err, "an address is not one of its protocol");
    h->proxied = true;
    return HS_OK;
}

static hs_err
parse_v1(const uint8_t *bytes, size_t n, struct hs_error *err, size_t *ret_need,
         struct hs_proxy_header *h)
{
    const size_t start = sizeof(v1_start) - 1, seen = n < V1_MAX ? n : V1_MAX;
    const uint8_t *lf = memchr(bytes, '\n', seen);
    char line[V1_MAX + 1];
    size_t length;

    if (memcmp(bytes, v1_start, n < start ? n : start) != 0)
        return proxy_header_bad(err, "the stream begins with something else");
    if (lf == NULL && n < V1_MAX) {
        *ret_need = n + 1;
        return HS_WANT;
    }
    if (lf == NULL || lf - bytes < (ptrdiff_t)start || lf[-1] != '\r')
        return proxy_header_bad(err, "the line does not end with CR LF within 107 bytes");
    length = (size_t)(lf - bytes) - 1;
    if (memchr(bytes, '\0', length) != NULL)
        return proxy_header_bad(err, "a NUL byte");
    memcpy(line, bytes, length);
    line[length] = '\0';
    h->version = 1;
    h->length = length + 2;
    return parse_v1_line(line + start, err, h);
}

/* ---- Version 2 ----------------------------------------------------------------------------- */

static uint16_t
get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

/* CRC-32C (RFC 9260 appendix A), bits reversed. Headers are short and few: no table. */
static uint32_t
crc32c_add(uint32_t crc, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0);
    }
    return crc;
}

/* Of the whole header, with four zero bytes where the checksum is (section 2.2.3). */
static bool
checksum_is_right(const uint8_t *header, size_t length, size_t at)
{
    static const uint8_t zeros[4];
    uint32_t said = (uint32_t)get_u16(header + at) << 16 | get_u16(header + at + 2);
    uint32_t crc = crc32c_add(~0U, header, at);

    crc = crc32c_add(crc, zeros, sizeof(zeros));
    crc = crc32c_add(crc, header + at + sizeof(zeros), length - at - sizeof(zeros));
    return ~crc == said;
}

static hs_err
check_extensions(const uint8_t *header, size_t at, size_t length, struct hs_error *err)
{
    while (at < length) {
        size_t size;

        if (length - at < 3)
            return proxy_header_bad(err, "half an extension at its end");
        size = get_u16(header + at + 1);
        if (length - at - 3 < size)
            return proxy_header_bad(err, "an extension is longer than the header");
        if (header[at] == TYPE_CRC32C && (size != 4 || !checksum_is_right(header, length, at + 3)))
            return proxy_header_bad(err, "the checksum is wrong");
        at += 3 + size;
    }
    return HS_OK;
}

static void
take_v4(const uint8_t *p, struct hs_proxy_header *h)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};

    h->source = h->destination = (struct hs_addr){.len = sizeof(sin)};
    memcpy(&sin.sin_addr, p, 4);
    sin.sin_port = htons(get_u16(p + 8));
    memcpy(&h->source.storage, &sin, sizeof(sin));
    memcpy(&sin.sin_addr, p + 4, 4);
    sin.sin_port = htons(get_u16(p + 10));
    memcpy(&h->destination.storage, &sin, sizeof(sin));
}

static void
take_v6(const uint8_t *p, struct hs_proxy_header *h)
{
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6};

    h->source = h->destination = (struct hs_addr){.len = sizeof(sin6)};
    memcpy(&sin6.sin6_addr, p, 16);
    sin6.sin6_port = htons(get_u16(p + 32));
    memcpy(&h->source.storage, &sin6, sizeof(sin6));
    memcpy(&sin6.sin6_addr, p + 16, 16);
    sin6.sin6_port = htons(get_u16(p + 34));
    memcpy(&h->destination.storage, &sin6, sizeof(sin6));
}

/* What its 13th and 14th bytes say of the rest. */
static hs_err
parse_v2_addresses(const uint8_t *header, size_t length, struct hs_error *err,
                   struct hs_proxy_header *h)
{
    static const size_t sizes[] = {0, 12, 36, 216}; /* unspecified, IPv4, IPv6, unix */
    unsigned command = header[12] & 0xfU, family = header[13] >> 4, protocol = header[13] & 0xfU;

    if (command > 1)
        return proxy_header_bad(err, "the command is neither LOCAL nor PROXY");
    if (family > 3 || protocol > 2)
        return proxy_header_bad(err, "an unknown family or protocol");
    if (length - V2_FIXED < sizes[family])
        return proxy_header_bad(err, "too short for its addresses");
    /* Datagrams have no place here; unix addresses name nobody beyond the proxy's machine. */
    if (command == 1 && protocol == 1 && (family == 1 || family == 2)) {
        h->proxied = true;
        if (family == 1)
            take_v4(header + V2_FIXED, h);
        else
            take_v6(header + V2_FIXED, h);
    }
    return check_extensions(header, V2_FIXED + sizes[family], length, err);
}

static hs_err
parse_v2(const uint8_t *bytes, size_t n, struct hs_error *err, size_t *ret_need,
         struct hs_proxy_header *h)
{
    size_t length;

    if (memcmp(bytes, v2_start, n < sizeof(v2_start) ? n : sizeof(v2_start)) != 0)
        return proxy_header_bad(err, "the stream begins with something else");
    if (n > 12 && bytes[12] >> 4 != 2)
        return proxy_header_bad(err, "its version is not 2");
    if (n < V2_FIXED) {
        *ret_need = V2_FIXED;
        return HS_WANT;
    }
    length = V2_FIXED + get_u16(bytes + 14);
    if (length > HS_PROXY_HEADER_MAX)
        return hs_err_setx(err, HS_E_BAD_FRAME, NULL,
                           "PROXY header: it would have %zu bytes, the limit is %d", length,
                           HS_PROXY_HEADER_MAX);
    if (n < length) {
        *ret_need = length;
        return HS_WANT;
    }
    h->version = 2;
    h->length = length;
    return parse_v2_addresses(bytes, length, err, h);
}

hs_err
hs_proxy_header_parse(const uint8_t *bytes, size_t n, struct hs_error *err, size_t *ret_need,
                      struct hs_proxy_header *ret_header)
{
    struct hs_proxy_header header = {0};
    hs_err rv;

    if (n == 0) {
        *ret_need = 1;
        return HS_WANT;
    }
    rv = bytes[0] == v2_start[0] ? parse_v2(bytes, n, err, ret_need, &header)
                                 : parse_v1(bytes, n, err, ret_need, &header);
    if (rv == HS_OK)
        *ret_header = header;
    return rv;
}
