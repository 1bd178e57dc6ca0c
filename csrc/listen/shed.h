/* shed.h: telling the flight recorder of clients that were sent away before they were served.
 *
 * Needs no lock of the one who calls, and may be called under any: the recorder is lock-free.
 */
#ifndef HS_LISTEN_SHED_H
#define HS_LISTEN_SHED_H

#include "hardsock_binding.h"

/* X(name, text): the texts are those of ServerStats.shed_reasons. */
#define HS_SHEDS_ALL(X)                                                                            \
    X(DESCRIPTORS, "descriptors")                                                                  \
    X(GUARD, "guard")                                                                              \
    X(SILENT, "silent")                                                                            \
    X(SLOW_HANDSHAKE, "slow handshake")                                                            \
    X(BAD_HEADER, "bad header")                                                                    \
    X(SLOW_HEADER, "slow header")                                                                  \
    X(PEER_CONNECTIONS, "peer connections")                                                        \
    X(PEER_NETWORK, "peer network")                                                                \
    X(PEER_RATE, "peer rate")
enum hs_shed {
#define HS_SHED_ENUM(name, text) HS_SHED_##name,
    HS_SHEDS_ALL(HS_SHED_ENUM)
#undef HS_SHED_ENUM
        HS_SHEDS,
};

/* An HS_EVENT_SHED: who (an address, or the name of who sent it away), and why. */
void hs_shed_note(enum hs_shed why, const char *who);
void hs_shed_note_addr(enum hs_shed why, const struct hs_addr *who);
/* Of the peer of a connection. */
void hs_shed_note_conn(enum hs_shed why, struct hs_conn *conn);

#endif
