/* tls_impl.h: one connection's TLS, for the tls*.c files.
 *
 * Invariants:
 * - Nobody enters ssl without lock; the lock is held around {clear the error queue, the SSL call,
 *   SSL_get_error}, never over a wait. One reader and one writer and one closer may come at once.
 * - failure, once set, is what every later call answers: after a fatal error ssl is not touched
 *   again but to be freed (SSL_get_error(3)).
 * - half_sent > 0: a record of so many bytes of the caller's is encrypted and not all of it is out.
 *   OpenSSL then takes the same bytes again and nothing else, not even close_notify. Belongs to the
 *   writer; others, who may be in a forked child with the lock gone astray, only look at it.
 * - A TLS below belongs to the one above: it is entered with the lock of that one held, but by who
 *   asked it something when there was none above. It is never given back.
 * - request: a server's for the client's certificate, after the handshake. SENT from when OpenSSL
 *   has it, which may be before it is out; ANSWERED when the client's Finished has come, which
 *   OpenSSL verifies in the same call: only TLS_OPEN makes it an answer.
 * - goodbye_begun: close_notify was given to OpenSSL, which from then on refuses data for ever;
 *   goodbye_sent: it is out.
 */
#ifndef HS_STREAM_TLS_IMPL_H
#define HS_STREAM_TLS_IMPL_H

#include "tls_bio.h"
#include "tls_context_impl.h"
#include "tls_verify.h"
#include "../base/lock.h"

enum tls_state { TLS_HANDSHAKE, TLS_OPEN, TLS_FAILED };
enum tls_request { REQUEST_NONE, REQUEST_SENT, REQUEST_ANSWERED };

struct hs_tls {
    struct hs_lock lock;
    SSL *ssl; /* owns; guarded by lock, as all that follows unless said otherwise */
    struct hs_tls_io io;
    struct hs_tls_config *config;     /* owns a reference; immutable */
    struct hs_tls_context *context;   /* owns a reference; immutable */
    char *expected;                   /* owns: the name that was asked for, or NULL; immutable */
    char *session_key;                /* owns: client, or NULL; immutable */
    struct tls_limits session_limits; /* client: of its session and all that follow from it */
    enum tls_state state;
    enum tls_request request;
    bool late_certificate;       /* of a server: the client's has come after the handshake */
    struct hs_error *failure;    /* owns */
    struct tls_verdict *verdict; /* owns; until the handshake is over */
    enum hs_ocsp_state ocsp;
    bool goodbye_begun, goodbye_sent, got_data;
    atomic_bool goodbye_received;
    uint64_t tickets;
    atomic_size_t half_sent;
    atomic_bool took_input;  /* a call that writes has taken in what a reader may be waiting for */
    uint64_t half_sent_hash; /* of those bytes, when another call has to bring them again; else 0 */
    int64_t started_ns, verified_ns, finished_ns;
};

/* ---- tls.c ---- */
/* After HS_OK the lock is held, the error queue empty and io has said nothing yet. */
HS_NODISCARD hs_err hs_tls_call_begin(struct hs_tls *t, struct hs_error *err);
/* Of a call that does not read for anybody: see hs_tls_took_input. Drops the lock; returns rv. */
HS_NODISCARD hs_err hs_tls_write_call_end(struct hs_tls *t, hs_err rv);
/* What a call that returned ret <= 0 meant. HS_E_END: close_notify. */
HS_NODISCARD hs_err hs_tls_meaning(struct hs_tls *t, int ret, struct hs_error *err, short *want);

/* ---- tls_impl.c ---- */
/* The object behind an SSL, in callbacks: its lock is held. */
struct hs_tls *hs_tls_of(const SSL *ssl);
/* Where a verdict goes; NULL: no memory. */
struct tls_verdict *hs_tls_verdict(struct hs_tls *t);

#endif
