/* frame.h: whether an IP packet begins a TCP connection, and whose it is.
 *
 * The packets are the network's own and may be anything; what has been captured of them may end
 * anywhere. They begin with the IP header: VLAN tags and Ethernet headers are off already.
 */
#ifndef LAB_FRAME_H
#define LAB_FRAME_H

#include "place.h"

#include <stddef.h>

enum frame_kind {
    FRAME_SYN,   /* TCP with SYN and without ACK */
    FRAME_OTHER, /* anything else; a fragment that is not the first, and what makes no sense */
    FRAME_SHORT, /* ends before it could be told */
};

struct syn {
    struct place from;
    uint16_t port; /* at the receiver */
};

/* ret is written for FRAME_SYN only. */
enum frame_kind frame_read(const uint8_t *data, size_t len, struct syn *ret);

#endif
