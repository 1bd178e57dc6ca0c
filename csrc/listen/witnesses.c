/* witnesses.c: see witnesses.h.
 *
 * A ring that is walked as a whole: failed handshakes are rare, and cost more than that.
 */
#include "witnesses.h"

bool
hs_witness_counts(struct hs_witnesses *w, const struct hs_addr *peer, int64_t now_ns)
{
    struct hs_peer_key key, network;

    if (!hs_peer_keys(peer, &key, &network))
        return true;
    for (unsigned i = 0; i < HS_WITNESSES; i++)
        if (w->until_ns[i] > now_ns && hs_peer_key_is(&w->keys[i], &key))
            return false;
    w->keys[w->next] = key;
    w->until_ns[w->next] = now_ns + HS_WITNESS_NS;
    w->next = (w->next + 1) % HS_WITNESSES;
    return true;
}
