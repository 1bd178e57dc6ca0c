/* tls_resume.c: see tls_resume.h.
 *
 * A server keeps nothing: what it needs to know stands in the ticket, sealed with it, as OpenSSL's
 * "application data": FORMAT, the second in which the full handshake was, and that in which the
 * first certificate of the client's chain expires (big endian, 8 bytes each); if there are
 * revocation lists, also the intermediates in DER, one after the other. The client's own
 * certificate is in the session already, and the root in the store. A resumption hands the bytes
 * on as they are. Without them, or with more than MAX_NOTE, a ticket is never resumed.
 */
#include "tls_resume.h"

#include "../base/time.h"

#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <string.h>
#include <time.h>

#define FORMAT 1
#define HEAD 17
/* A ticket travels in the first record of a client; one certificate takes 0.5 to 2 KiB. */
#define MAX_NOTE ((size_t)8192)

/* The second in which the first of them expires; INT64_MAX: there is none. */
static int64_t
first_end(STACK_OF(X509) * chain)
{
    int64_t end = INT64_MAX;

    for (int i = 0; i < sk_X509_num(chain); i++) {
        struct tm tm = {0};
        int64_t one = 0; /* Of what cannot be read nothing is good. */

        if (ASN1_TIME_to_tm(X509_get0_notAfter(sk_X509_value(chain, i)), &tm))
            one = timegm(&tm);
        end = one < end ? one : end;
    }
    return end;
}

/* Verifies as the handshake did, by what is true now. untrusted may be NULL. */
static bool
still_verified(SSL *ssl, X509 *leaf, STACK_OF(X509) * untrusted, const char *purpose)
{
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    X509_VERIFY_PARAM *param;
    bool ok = false;

    (void)ERR_set_mark(); /* What is in the queue is the handshake's. */
    if (ctx != NULL &&
        X509_STORE_CTX_init(ctx, SSL_CTX_get_cert_store(SSL_get_SSL_CTX(ssl)), leaf, untrusted) &&
        X509_STORE_CTX_set_default(ctx, purpose)) {
        param = X509_STORE_CTX_get0_param(ctx);
        X509_VERIFY_PARAM_set_auth_level(param, SSL_get_security_level(ssl));
        ok = X509_VERIFY_PARAM_set1(param, SSL_get0_param(ssl)) && X509_verify_cert(ctx) == 1;
    }
    X509_STORE_CTX_free(ctx);
    (void)ERR_pop_to_mark();
    return ok;
}

/* ---- Server: the note in a ticket ---------------------------------------------------------- */

struct note {
    int64_t began_s, first_end_s;
    const uint8_t *chain;
    size_t chain_len;
};

/* Appends the intermediates of what this handshake has verified. False: too long, or no memory. */
static bool
note_chain(SSL *ssl, uint8_t note[MAX_NOTE], size_t *len)
{
    STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);

    for (int i = 1; i < sk_X509_num(chain) - 1; i++) {
        X509 *x = sk_X509_value(chain, i);
        unsigned char *at = note + *len;
        int n = i2d_X509(x, NULL);

        if (n <= 0 || (size_t)n > MAX_NOTE - *len || i2d_X509(x, &at) != n)
            return false;
        *len += (size_t)n;
    }
    return true;
}

static void
put_second(uint8_t at[8], int64_t second)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)((uint64_t)second >> (56 - 8 * i));
}

static int64_t
get_second(const uint8_t at[8])
{
    uint64_t second = 0;

    for (int i = 0; i < 8; i++)
        second = second << 8 | at[i];
    return (int64_t)second;
}

/* before: of the session that this one follows from, or NULL. What it ends with stays. */
static void
write_note(SSL *ssl, SSL_SESSION *session, bool lists, const struct note *before)
{
    int64_t end = first_end(SSL_get0_verified_chain(ssl));
    uint8_t note[MAX_NOTE];
    size_t len = HEAD;

    if (before != NULL && before->first_end_s < end)
        end = before->first_end_s;
    note[0] = FORMAT;
    put_second(note + 1, before != NULL ? before->began_s : hs_calendar_s());
    put_second(note + 9, end);
    if (lists && !note_chain(ssl, note, &len))
        len = 0;
    (void)SSL_SESSION_set1_ticket_appdata(session, note, len); /* Without one it is not resumed. */
}

/* False: there is none that can be read. The chain is borrowed from the session. */
static bool
read_note(SSL_SESSION *session, struct note *ret_note)
{
    uint8_t *note = NULL;
    size_t len = 0;

    if (!SSL_SESSION_get0_ticket_appdata(session, (void **)&note, &len) || len < HEAD ||
        note[0] != FORMAT)
        return false;
    *ret_note = (struct note){.began_s = get_second(note + 1),
                              .first_end_s = get_second(note + 9),
                              .chain = note + HEAD,
                              .chain_len = len - HEAD};
    return true;
}

/* 0 or less: none. */
static int64_t
seconds_left(const struct note *note, const struct hs_tls_context *c)
{
    int64_t now = hs_calendar_s(), age = now - note->began_s;

    if (now > note->first_end_s)
        return 0;
    return c->session_lifetime_s - (age > 0 ? age : 0); /* below: the clock was set back */
}

static STACK_OF(X509) * read_chain(const uint8_t *der, size_t len)
{
    STACK_OF(X509) *chain = sk_X509_new_null();
    const unsigned char *at = der, *end = der + len;
    X509 *x;

    while (chain != NULL && at < end) {
        if ((x = d2i_X509(NULL, &at, end - at)) != NULL && sk_X509_push(chain, x))
            continue;
        X509_free(x);
        sk_X509_pop_free(chain, X509_free);
        chain = NULL;
    }
    return chain;
}

static void
set_time(SSL_SESSION *session, int64_t now)
{
#if OPENSSL_VERSION_NUMBER >= 0x30400000L
    (void)SSL_SESSION_set_time_ex(session, (time_t)now);
#else
    (void)SSL_SESSION_set_time(session, (long)now);
#endif
}

/* Called for each ticket, also for those that follow from a resumption. 0 would end the handshake:
 * what cannot be written down is only not resumed. */
static int
on_ticket_made(SSL *ssl, void *arg)
{
    const struct hs_tls_context *c = arg;
    SSL_SESSION *session = SSL_get_session(ssl);
    bool late = hs_tls_of(ssl)->late_certificate;
    struct note note;
    bool has = read_note(session, &note);

    if (!SSL_session_reused(ssl)) {
        write_note(ssl, session, c->lists, late && has ? &note : NULL);
    } else {
        int64_t left = has ? seconds_left(&note, c) : 0;

        if (late && has) /* The chain that the note has is not that of the certificate now. */
            write_note(ssl, session, c->lists, &note);
        set_time(session, hs_calendar_s()); /* With TLS 1.2 it is that of the first handshake. */
        (void)SSL_SESSION_set_timeout(session, left > 0 ? (long)left : 1);
    }
    return 1;
}

static bool
is_good(SSL *ssl, SSL_SESSION *session, const struct hs_tls_context *c)
{
    X509 *leaf = SSL_SESSION_get0_peer(session);
    STACK_OF(X509) * chain;
    struct note note;
    bool ok;

    if (!read_note(session, &note) || seconds_left(&note, c) <= 0)
        return false;
    if (leaf == NULL)
        return !hs_tls_certs_required(c->certs, SSL_SESSION_get_protocol_version(session));
    if (!c->lists)
        return true;
    (void)ERR_set_mark();
    chain = read_chain(note.chain, note.chain_len);
    (void)ERR_pop_to_mark();
    ok = chain != NULL && still_verified(ssl, leaf, chain, "ssl_client");
    sk_X509_pop_free(chain, X509_free);
    return ok;
}

/* "Ignore and renew" is a full handshake, with new tickets behind it. */
static SSL_TICKET_RETURN
on_ticket_shown(SSL *ssl, SSL_SESSION *session, const unsigned char *key_name, size_t key_name_len,
                SSL_TICKET_STATUS status, void *arg)
{
    (void)key_name;
    (void)key_name_len;
    if ((status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) ||
        !is_good(ssl, session, arg))
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

void
hs_tls_resume_install(struct hs_tls_context *context)
{
    (void)SSL_CTX_set_session_ticket_cb(context->ctx, on_ticket_made, on_ticket_shown, context);
}

/* ---- Client -------------------------------------------------------------------------------- */

/* The session brings its chain with it, which can be had only from an SSL that has it. */
void
hs_tls_resume_offer(struct hs_tls *t)
{
    SSL_SESSION *session =
        hs_tls_sessions_take(t->context->sessions, t->session_key, &t->session_limits);
    X509 *leaf;

    if (session == NULL)
        return;
    leaf = SSL_SESSION_get0_peer(session);
    if (leaf == NULL || hs_calendar_s() > t->session_limits.first_end_s ||
        !SSL_set_session(t->ssl, session) ||
        (t->context->lists &&
         !still_verified(t->ssl, leaf, SSL_get_peer_cert_chain(t->ssl), "ssl_server"))) {
        (void)SSL_set_session(t->ssl, NULL);
        hs_tls_sessions_forget(t->context->sessions, t->session_key);
    }
    SSL_SESSION_free(session);
}

void
hs_tls_resume_keep(struct hs_tls *t, SSL_SESSION *session)
{
    if (!SSL_session_reused(t->ssl))
        t->session_limits = (struct tls_limits){
            .until_ns = hs_deadline_after(t->context->session_lifetime_s * HS_NS_PER_S),
            .first_end_s = first_end(SSL_get0_verified_chain(t->ssl)),
        };
    hs_tls_sessions_keep(t->context->sessions, t->session_key, session, &t->session_limits);
}
