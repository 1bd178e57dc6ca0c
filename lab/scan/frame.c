/* frame.c: see frame.h. RFC 791, RFC 8200 and RFC 9293.
 *
 * Nothing is read before it has been asked whether it is there; lengths of the packet only make it
 * shorter.
 */
#include "frame.h"

#include <netinet/in.h>
#include <string.h>

#define HEAD_4 20
#define HEAD_6 40
#define TCP_NEEDED 14 /* up to the flags */
#define TCP_SYN 0x02
#define TCP_ACK 0x10
#define FRAGMENT_OFFSET_4 0x1fff
#define FRAGMENT_OFFSET_6 0xfff8
/* RFC 8200 knows seven kinds, each once but one. A chain that is longer is made to cost time. */
#define EXTENSIONS_MAX 8

static unsigned
two_bytes(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

static enum frame_kind
read_tcp(const uint8_t *data, size_t len, struct place from, struct syn *ret)
{
    if (len < TCP_NEEDED)
        return FRAME_SHORT;
    if ((data[13] & (TCP_SYN | TCP_ACK)) != TCP_SYN)
        return FRAME_OTHER;
    *ret = (struct syn){.from = from, .port = (uint16_t)two_bytes(data + 2)};
    return FRAME_SYN;
}

static enum frame_kind
read_4(const uint8_t *data, size_t len, struct syn *ret)
{
    struct place from = {.family = 4};
    size_t head, total;

    if (len < HEAD_4)
        return FRAME_SHORT;
    head = (size_t)(data[0] & 0x0f) * 4;
    total = two_bytes(data + 2);
    if (head < HEAD_4 || total < head || data[9] != IPPROTO_TCP)
        return FRAME_OTHER;
    if ((two_bytes(data + 6) & FRAGMENT_OFFSET_4) != 0)
        return FRAME_OTHER;
    if (total < len)
        len = total; /* the rest is padding of the link */
    if (len < head)
        return FRAME_SHORT;
    memcpy(from.address, data + 12, 4);
    return read_tcp(data + head, len - head, from, ret);
}

/* How long the extension header is, of which two bytes are there. 0: it is none, or a later
 * fragment's. */
static size_t
extension(uint8_t kind, const uint8_t *data)
{
    switch (kind) {
    case IPPROTO_HOPOPTS:
    case IPPROTO_ROUTING:
    case IPPROTO_DSTOPTS:
        return ((size_t)data[1] + 1) * 8;
    case IPPROTO_AH:
        return ((size_t)data[1] + 2) * 4;
    case IPPROTO_FRAGMENT:
        return (two_bytes(data + 2) & FRAGMENT_OFFSET_6) == 0 ? 8 : 0;
    default:
        return 0;
    }
}

static enum frame_kind
read_6(const uint8_t *data, size_t len, struct syn *ret)
{
    struct place from = {.family = 6};
    size_t at = HEAD_6, total, n;
    uint8_t next;

    if (len < HEAD_6)
        return FRAME_SHORT;
    total = HEAD_6 + two_bytes(data + 4);
    if (total < len)
        len = total;
    memcpy(from.address, data + 8, 16);
    next = data[6];
    for (int i = 0; i < EXTENSIONS_MAX && next != IPPROTO_TCP; i++) {
        if (len < at + 4)
            return FRAME_SHORT;
        n = extension(next, data + at);
        if (n == 0)
            return FRAME_OTHER;
        next = data[at];
        at += n;
    }
    if (next != IPPROTO_TCP)
        return FRAME_OTHER;
    if (len < at)
        return FRAME_SHORT;
    return read_tcp(data + at, len - at, from, ret);
}

enum frame_kind
frame_read(const uint8_t *data, size_t len, struct syn *ret)
{
    if (len == 0)
        return FRAME_SHORT;
    switch (data[0] >> 4) {
    case 4:
        return read_4(data, len, ret);
    case 6:
        return read_6(data, len, ret);
    default:
        return FRAME_OTHER;
    }
}
