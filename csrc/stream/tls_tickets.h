/* tls_tickets.h: the keys with which a server seals session tickets.
 *
 * A ticket outlives the key that sealed it at most by the lifetime of sessions: the present key is
 * replaced after half of it, the two before still open tickets (which are then sealed anew). Who
 * steals a key can read the TLS 1.2 sessions that it sealed, so keys are made here, at random, kept
 * in memory only, and wiped.
 */
#ifndef HS_STREAM_TLS_TICKETS_H
#define HS_STREAM_TLS_TICKETS_H

#include "hardsock.h"

#include <openssl/ssl.h>

struct hs_tls_tickets;

/* returns: NULL for want of memory or randomness. */
struct hs_tls_tickets *hs_tls_tickets_new(int64_t lifetime_s, int64_t now_ns);
struct hs_tls_tickets *hs_tls_tickets_ref(struct hs_tls_tickets *t);
void hs_tls_tickets_unref(struct hs_tls_tickets *t);
/* n keys, at most three, the first of which seals: the bytes of hs_tls_config_give_ticket_keys. */
void hs_tls_tickets_give(struct hs_tls_tickets *t, const uint8_t *bytes, size_t n);
/* What SSL_CTX_set_tlsext_ticket_key_evp_cb asks, at `now_ns`: its manual page has the results. */
int hs_tls_tickets_key(struct hs_tls_tickets *t, int64_t now_ns, unsigned char name[16],
                       unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int enc);

#endif
