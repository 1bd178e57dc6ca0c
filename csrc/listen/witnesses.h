/* witnesses.h: whose failed handshakes speak against the listener's own settings.
 *
 * Anybody can refuse a certificate as often as they like. So the word of each stranger counts once
 * in a while, however often it is said: for five failures it takes five of them.
 */
#ifndef HS_LISTEN_WITNESSES_H
#define HS_LISTEN_WITNESSES_H

#include "peer_key.h"

#define HS_WITNESSES 256
#define HS_WITNESS_NS (600 * INT64_C(1000000000))

/* All zero at first. The caller guards it. */
struct hs_witnesses {
    struct hs_peer_key keys[HS_WITNESSES];
    int64_t until_ns[HS_WITNESSES]; /* 0: free */
    unsigned next;                  /* to be written; the oldest */
};

/* Whether its word counts; then it does not count again for HS_WITNESS_NS, or until as many others
 * have been heard as there is room for. Unix peers always count. */
HS_NODISCARD bool hs_witness_counts(struct hs_witnesses *w, const struct hs_addr *peer,
                                    int64_t now_ns);

#endif
