/* event_peer.h: the peer in an event of the flight recorder.
 *
 * Apart from recorder.h, since addresses ask the kernel, which faults may answer for, and those are
 * events: who prints an address must not be below who notes one.
 */
#ifndef HS_BASE_EVENT_PEER_H
#define HS_BASE_EVENT_PEER_H

#include "recorder.h"

/* Sets e->text; addr NULL: nothing. */
static inline void
hs_event_peer(struct hs_event *e, const struct hs_addr *addr)
{
    char text[HS_ADDR_TEXT_SIZE];

    if (addr != NULL && addr->len != 0)
        hs_event_text(e, hs_addr_text(addr, text, sizeof(text)));
}

#endif
