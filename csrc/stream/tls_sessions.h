/* tls_sessions.h: what a client has kept to resume connections with.
 *
 * A small table: by the name under which the peer was verified and where it was, a few sessions
 * each. A TLS 1.3 session is used once (RFC 8446 appendix C.4: or an observer could link the
 * connections). Least recently used names leave first.
 */
#ifndef HS_STREAM_TLS_SESSIONS_H
#define HS_STREAM_TLS_SESSIONS_H

#include "hardsock.h"

#include <openssl/ssl.h>

struct hs_tls_sessions;

struct hs_tls_sessions *hs_tls_sessions_new(void); /* NULL: no memory */
void hs_tls_sessions_free(struct hs_tls_sessions *s);
/* What a session and all that follow from it by resumptions have from the first handshake. */
struct tls_limits {
    int64_t until_ns;    /* its lifetime */
    int64_t first_end_s; /* Unix time: until then all certificates of its chain are valid */
};

/* Takes the reference. The session ends with its limits at the latest, whatever itself says. */
void hs_tls_sessions_keep(struct hs_tls_sessions *s, const char *key, SSL_SESSION *session,
                          const struct tls_limits *limits);
/* returns: new reference, with its limits; or NULL. */
SSL_SESSION *hs_tls_sessions_take(struct hs_tls_sessions *s, const char *key,
                                  struct tls_limits *ret_limits);
/* After a failure: nothing that was agreed on under this name may be trusted. */
void hs_tls_sessions_forget(struct hs_tls_sessions *s, const char *key);
size_t hs_tls_sessions_count(struct hs_tls_sessions *s);

#endif
