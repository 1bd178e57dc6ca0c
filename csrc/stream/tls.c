/* tls.c: driving one SSL object. See tls_impl.h for the invariants, tls.h for the contract.
 *
 * Every entry is hs_tls_call_begin() .. call_end(): the lock, an empty error queue, an io that has
 * said nothing yet; then one SSL call; then what it meant.
 */
#include "tls.h"

#include "tls_config.h"
#include "tls_error.h"
#include "tls_fault.h"
#include "tls_impl.h"
#include "tls_resume.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The plaintext of one record (RFC 8446 section 5.1). */
#define RECORD_MAX 16384
/* How much one call reads that is no data before somebody may look at a deadline: a peer can send
 * key updates and tickets for ever, and OpenSSL would take them in for as long. A handshake has
 * limits of its own. */
#define IDLE_TALK_MAX ((size_t)131072)

/* ---- The frame of every call --------------------------------------------------------------- */

static hs_err
repeat_failure(struct hs_tls *t, struct hs_error *err)
{
    if (t->failure == NULL)
        return hs_err_setx(err, HS_E_TLS, NULL, "TLS failed earlier");
    if (err != NULL && err->code == HS_OK)
        *err = *t->failure;
    return t->failure->code;
}

hs_err
hs_tls_call_begin(struct hs_tls *t, struct hs_error *err)
{
    hs_lock_take(&t->lock);
    if (t->state == TLS_FAILED) {
        hs_err rv = repeat_failure(t, err);

        hs_lock_drop(&t->lock);
        return rv;
    }
    if (ERR_peek_error() != 0) /* It is empty as a rule, and clearing it takes its time. */
        ERR_clear_error();
    t->io.rv = HS_OK;
    t->io.want = 0;
    t->io.tired = false;
    t->io.taken = 0;
    t->io.limit = t->state == TLS_OPEN ? IDLE_TALK_MAX : SIZE_MAX;
    return HS_OK;
}

static hs_err
call_end(struct hs_tls *t, hs_err rv)
{
    hs_lock_drop(&t->lock);
    return rv;
}

hs_err
hs_tls_write_call_end(struct hs_tls *t, hs_err rv)
{
    if (t->io.taken > 0)
        atomic_store(&t->took_input, true);
    return call_end(t, rv);
}

static void
tls_give_up(struct hs_tls *t, const struct hs_error *err)
{
    if (t->state == TLS_HANDSHAKE && t->context->sessions != NULL && t->session_key != NULL)
        hs_tls_sessions_forget(t->context->sessions, t->session_key);
    t->state = TLS_FAILED;
    if ((t->failure = hs_sys_malloc(sizeof(*t->failure))) != NULL)
        *t->failure = *err;
}

/* Fatal: from now on the object is only good to be freed. */
static hs_err
fatal(struct hs_tls *t, int ssl_error, struct hs_error *err)
{
    struct hs_error own = {0}, *e = err != NULL ? err : &own;
    struct tls_failing f = {
        .io = &t->io,
        .peer = t->expected != NULL                 ? t->expected
                : t->context->role == HS_TLS_SERVER ? "the client"
                                                    : "the server",
        .handshake = t->state == TLS_HANDSHAKE,
        .ended = t->state == TLS_HANDSHAKE && ssl_error == SSL_ERROR_ZERO_RETURN,
        .is_server = t->context->role == HS_TLS_SERVER,
        .verdict = t->verdict != NULL && t->verdict->code != 0 ? t->verdict->text : NULL,
        .verify = t->verdict != NULL ? t->verdict->code : 0,
        .flaw = t->verdict != NULL ? t->verdict->flaw : HS_TLS_FLAW_NONE,
    };
    hs_err rv = hs_tls_failed(&f, ssl_error, e);

    tls_give_up(t, e);
    return rv;
}

hs_err
hs_tls_meaning(struct hs_tls *t, int ret, struct hs_error *err, short *want)
{
    int ssl_error = SSL_get_error(t->ssl, ret);

    switch (ssl_error) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        if (t->io.tired)
            return HS_INTR;
        if (t->io.rv < 0) /* See bio_write: reading may go on. */
            return hs_tls_io_error(&t->io, err);
        *want = t->io.want; /* A TLS below may wait for the other direction. */
        if (*want == 0)
            *want = ssl_error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
        return HS_WANT;
    case SSL_ERROR_ZERO_RETURN:
        /* With accept_truncation the end of TCP is taken for it. */
        if (!t->io.eof)
            atomic_store(&t->goodbye_received, true);
        return HS_E_END;
    default:
        return fatal(t, ssl_error, err);
    }
}

/* ---- Life ---------------------------------------------------------------------------------- */

static hs_err
tls_no_memory(struct hs_error *err)
{
    ERR_clear_error();
    return hs_err_setx(err, HS_E_NOMEM, "tls", "no memory for a TLS connection");
}

static hs_err
prepare_client(struct hs_tls *t, const char *name, const char *where, struct hs_error *err)
{
    const struct hs_tls_context *c = t->context;
    size_t size;
    hs_err rv;

    if (name != NULL && (t->expected = hs_sys_strdup(name)) == NULL)
        return tls_no_memory(err);
    if (name == NULL && c->verify_name)
        return hs_err_setx(err, HS_E_INVALID, "tls",
                           "server_name must be given: the certificate is checked against it");
    if (name != NULL && ((rv = hs_tls_ask_for_name(t->ssl, name, err)) != HS_OK ||
                         (c->verify_name && (rv = hs_tls_expect_name(t->ssl, name, err)) != HS_OK)))
        return rv;
    if (c->ocsp != HS_TLS_OCSP_OFF && !SSL_set_tlsext_status_type(t->ssl, TLSEXT_STATUSTYPE_ocsp))
        return tls_no_memory(err);
    SSL_set_connect_state(t->ssl);
    if (name == NULL || !c->sessions_on)
        return HS_OK;
    size = strlen(name) + strlen(where) + 2;
    if ((t->session_key = hs_sys_malloc(size)) == NULL)
        return tls_no_memory(err);
    (void)snprintf(t->session_key, size, "%s@%s", name, where);
    hs_tls_resume_offer(t);
    ERR_clear_error();
    return HS_OK;
}

static hs_err
prepare(struct hs_tls *t, const char *name, const char *where, struct hs_error *err)
{
    BIO *bio;

    ERR_clear_error();
    if ((t->ssl = hs_sys_ssl_new(t->context->ctx)) == NULL ||
        (bio = hs_tls_bio_new(&t->io)) == NULL)
        return tls_no_memory(err);
    SSL_set_bio(t->ssl, bio, bio); /* takes bio */
    if (!SSL_set_app_data(t->ssl, t))
        return tls_no_memory(err);
    if (t->context->role == HS_TLS_CLIENT)
        return prepare_client(t, name, where, err);
    SSL_set_accept_state(t->ssl);
    return HS_OK;
}

hs_err
hs_tls_new(struct hs_tls_config *config, int fd, struct hs_tls *below, const char *server_name,
           const char *where, struct hs_error *err, struct hs_tls **ret_tls)
{
    struct hs_tls *t = hs_sys_calloc(1, sizeof(*t));
    hs_err rv;

    if (t == NULL)
        return tls_no_memory(err);
    hs_lock_init(&t->lock, below != NULL ? HS_RANK_TLS_ABOVE : HS_RANK_TLS);
    t->config = hs_tls_config_ref(config);
    t->context = hs_tls_config_context(config);
    t->io.layer = below != NULL ? &hs_tls_layer : &hs_tcp_layer;
    t->io.fd = fd;
    if ((rv = prepare(t, server_name, where, err)) != HS_OK) {
        hs_tls_free(t);
        return rv;
    }
    t->io.below = below;
    *ret_tls = t;
    return HS_OK;
}

void
hs_tls_free(struct hs_tls *t)
{
    if (t == NULL)
        return;
    if (t->ssl != NULL) {
        /* Else OpenSSL would strike out sessions that others may resume. */
        SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(t->ssl);
    }
    hs_tls_free(t->io.below);
    hs_buf_fini(&t->io.ahead);
    hs_tls_context_unref(t->context);
    hs_tls_config_unref(t->config);
    free(t->expected);
    free(t->session_key);
    free(t->failure);
    free(t->verdict);
    hs_lock_fini(&t->lock);
    free(t);
}

struct hs_tls *
hs_tls_below(const struct hs_tls *t)
{
    return t != NULL ? t->io.below : NULL;
}

void
hs_tls_hand_over(struct hs_tls *t, struct hs_buf *buf)
{
    t->io.ahead = *buf;
    *buf = (struct hs_buf){0};
}

int64_t
hs_tls_handshake_timeout(const struct hs_tls *t)
{
    return t->context->handshake_timeout_ns;
}

/* ---- The handshake ------------------------------------------------------------------------- */

/* Nothing of this can fail if OpenSSL did what it was told; it is asked all the same. */
static bool
is_secured(const struct hs_tls *t)
{
    const struct hs_tls_context *c = t->context;
    bool must_have = c->verify && (c->role == HS_TLS_CLIENT ||
                                   hs_tls_certs_required(c->certs, SSL_version(t->ssl)));
    bool has = SSL_get0_peer_certificate(t->ssl) != NULL;

    return SSL_is_init_finished(t->ssl) && (has || !must_have) &&
           (!c->verify || SSL_get_verify_result(t->ssl) == X509_V_OK);
}

static hs_err
finished(struct hs_tls *t, struct hs_error *err)
{
    struct hs_error own = {0}, *e = err != NULL ? err : &own;

    if (!is_secured(t)) {
        hs_err rv =
            hs_tls_refuse(e, HS_TLS_VERIFY, "the handshake ended without a verified certificate");

        tls_give_up(t, e);
        return rv;
    }
    if (SSL_session_reused(t->ssl) && t->context->ocsp != HS_TLS_OCSP_OFF)
        t->ocsp = HS_OCSP_SKIPPED;
    t->state = TLS_OPEN;
    t->io.keep_reading = true;
    t->finished_ns = hs_now();
    free(t->verdict);
    t->verdict = NULL;
    return HS_OK;
}

hs_err
hs_tls_try_handshake(struct hs_tls *t, struct hs_error *err, short *want)
{
    int ret;
    hs_err rv;

    if ((rv = hs_tls_call_begin(t, err)) != HS_OK)
        return rv;
    if (t->started_ns == 0)
        t->started_ns = hs_now();
    /* 1. As far as the bytes go. Callbacks only write down what they decide: no wait is inside. */
    ret = hs_sys_ssl_handshake(t->ssl);
    /* 2. Done, and believed only if all was checked that had to be. */
    if (ret == 1)
        rv = finished(t, err);
    /* 3. What it wants; or why it failed, and an end of the stream in the middle is a failure. */
    else if ((rv = hs_tls_meaning(t, ret, err, want)) == HS_E_END)
        rv = fatal(t, SSL_ERROR_ZERO_RETURN, err);
    return call_end(t, rv);
}

hs_err
hs_tls_try_confirm(struct hs_tls *t, struct hs_error *err, short *want)
{
    char byte;
    size_t n;
    int ret;
    hs_err rv;

    if ((rv = hs_tls_call_begin(t, err)) != HS_OK)
        return rv;
    if (SSL_version(t->ssl) < TLS1_3_VERSION || t->context->role == HS_TLS_SERVER)
        return call_end(t, HS_OK); /* The handshake has already told. */
    if ((ret = hs_sys_ssl_peek(t->ssl, &byte, 1, &n)) > 0)
        return call_end(t, HS_OK);
    rv = hs_tls_meaning(t, ret, err, want);
    if (rv == HS_WANT)
        (void)SSL_free_buffers(t->ssl);
    if (rv == HS_E_END || (rv == HS_WANT && t->tickets > 0))
        rv = HS_OK;
    return call_end(t, rv);
}

/* ---- Reading ------------------------------------------------------------------------------- */

/* As many records as are here already: the second and later ones cost no system call unless a part
 * of one is here. */
static hs_err
read_records(struct hs_tls *t, uint8_t *buf, size_t len, struct hs_error *err, short *want,
             size_t *ret_n)
{
    uint64_t tickets = t->tickets;
    size_t done = 0, n;
    hs_err rv = HS_OK;

    do {
        int ret = hs_sys_ssl_read(t->ssl, buf + done, len - done, &n);

        if (ret == 1) {
            done += n;
            t->io.taken = 0;
            t->got_data = true;
        } else {
            rv = hs_tls_meaning(t, ret, err, want);
        }
    } while (rv == HS_OK && done < len && SSL_has_pending(t->ssl));
    if ((rv == HS_WANT && done == 0) || t->tickets != tickets)
        (void)SSL_free_buffers(t->ssl); /* After a ticket OpenSSL keeps one, 16 KiB, by itself. */
    if (done > 0) { /* What went wrong behind it is said again by the next call. */
        if (rv < 0 && err != NULL)
            *err = (struct hs_error){0};
        rv = HS_OK;
    }
    if (rv == HS_OK)
        *ret_n = done;
    return rv;
}

static hs_err
tls_try_recv(void *state, int fd, uint8_t *buf, size_t len, int flags, struct hs_error *err,
             short *want, size_t *ret_n)
{
    struct hs_tls *t = state;
    size_t n = 0;
    hs_err rv;

    (void)fd;
    if ((rv = hs_tls_call_begin(t, err)) != HS_OK)
        return rv;
    if ((flags & MSG_PEEK) == 0) {
        rv = read_records(t, buf, len, err, want, &n);
    } else {
        int ret = hs_sys_ssl_peek(t->ssl, buf, len, &n);

        rv = ret == 1 ? HS_OK : hs_tls_meaning(t, ret, err, want);
    }
    if (rv == HS_E_END) {
        n = 0;
        rv = HS_OK;
    }
    if (rv == HS_OK)
        *ret_n = n;
    return call_end(t, rv);
}

bool
hs_tls_ended(struct hs_tls *t, bool *ret_tcp_closed)
{
    hs_lock_take(&t->lock);
    *ret_tcp_closed = t->io.closed_at_eof;
    if (!*ret_tcp_closed && t->io.below != NULL) /* whose stream then ended in an error */
        (void)hs_tls_ended(t->io.below, ret_tcp_closed);
    hs_lock_drop(&t->lock);
    return atomic_load(&t->goodbye_received);
}

bool
hs_tls_told_dead(struct hs_tls *t)
{
    bool told;

    hs_lock_take(&t->lock);
    told = t->io.told_dead || (t->io.below != NULL && hs_tls_told_dead(t->io.below));
    hs_lock_drop(&t->lock);
    return told;
}

/* Here already, so that no readiness will tell of it. */
static bool
has_more(const struct hs_tls *t)
{
    return SSL_has_pending(t->ssl) || hs_buf_len(&t->io.ahead) > 0 ||
           (t->io.below != NULL && hs_tls_has_pending(t->io.below));
}

bool
hs_tls_has_pending(struct hs_tls *t)
{
    bool has;

    hs_lock_take(&t->lock);
    has = t->state == TLS_OPEN && has_more(t);
    hs_lock_drop(&t->lock);
    return has;
}

/* OpenSSL tells of the bytes of the record that it has opened. Of one behind it it only knows that
 * there is something, which may be a part, or no data: peeking opens it. */
size_t
hs_tls_pending(struct hs_tls *t, bool *ret_ready)
{
    hs_err rv = HS_WANT;
    size_t peeked;
    int n, ret;
    char byte;
    short want;

    *ret_ready = hs_tls_call_begin(t, NULL) != HS_OK; /* It says so at once. */
    if (*ret_ready)
        return 0;
    n = t->state == TLS_OPEN ? SSL_pending(t->ssl) : 0;
    if (n == 0 && t->state == TLS_OPEN && has_more(t)) {
        ret = hs_sys_ssl_peek(t->ssl, &byte, 1, &peeked);
        rv = ret > 0 ? HS_OK : hs_tls_meaning(t, ret, NULL, &want);
        n = ret > 0 ? SSL_pending(t->ssl) : 0;
    }
    if (t->state == TLS_OPEN && (SSL_get_shutdown(t->ssl) & SSL_RECEIVED_SHUTDOWN) != 0)
        rv = HS_E_END;
    *ret_ready = n > 0 || rv < 0;
    (void)call_end(t, rv);
    return (size_t)n;
}

/* ---- Writing ------------------------------------------------------------------------------- */

/* FNV-1a: to tell whether a caller brings the same bytes again; nobody is kept out by it. */
static uint64_t
tls_hash(const uint8_t *bytes, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < n; i++)
        h = (h ^ bytes[i]) * UINT64_C(0x100000001b3); /* NOLINT: gather() filled n */
    return h | 1;
}

/* Small pieces make one record. The same pieces give the same bytes when they are tried again. */
static const uint8_t *
gather(const struct iovec *iov, size_t n_iov, uint8_t room[RECORD_MAX], size_t *ret_len)
{
    size_t len = 0;

    if (n_iov == 1 || iov[0].iov_len >= RECORD_MAX) {
        *ret_len = iov[0].iov_len;
        return iov[0].iov_base;
    }
    for (size_t i = 0; i < n_iov && len < RECORD_MAX; i++) {
        size_t n = iov[i].iov_len < RECORD_MAX - len ? iov[i].iov_len : RECORD_MAX - len;

        if (n > 0)
            memcpy(room + len, iov[i].iov_base, n);
        len += n;
    }
    *ret_len = len;
    return room;
}

/* A record of another call is still half out: only its bytes may come now. */
static hs_err
check_same(struct hs_tls *t, const uint8_t *bytes, size_t len, struct hs_error *err)
{
    if (t->half_sent_hash == 0)
        return HS_OK;
    if (len < t->half_sent || tls_hash(bytes, t->half_sent) != t->half_sent_hash)
        return hs_err_setx(err, HS_E_POISONED, NULL,
                           "a TLS record with the first %zu bytes of an earlier send is half out: "
                           "only the same bytes may be sent now",
                           t->half_sent);
    t->half_sent_hash = 0;
    return HS_OK;
}

static hs_err
write_record(struct hs_tls *t, const uint8_t *bytes, size_t len, struct hs_error *err, short *want,
             size_t *ret_n)
{
    size_t n = 0;
    int ret;
    hs_err rv;

    if (t->goodbye_begun)
        return hs_err_setx(err, HS_E_CLOSED, NULL, "the TLS stream was ended here");
    if ((rv = check_same(t, bytes, len, err)) != HS_OK)
        return rv;
    ret = hs_sys_ssl_write(t->ssl, bytes, len, &n);
    rv = ret == 1 ? HS_OK : hs_tls_meaning(t, ret, err, want);
    t->half_sent = rv == HS_OK ? 0 : len < RECORD_MAX ? len : RECORD_MAX;
    if (rv == HS_E_END)
        rv = hs_err_setx(err, HS_E_RESET, NULL, "the peer ended the TLS stream");
    if (rv == HS_OK)
        *ret_n = n;
    return rv;
}

static hs_err
tls_try_send(void *state, int fd, const struct iovec *iov, size_t n_iov, int flags,
             struct hs_error *err, short *want, size_t *ret_n)
{
    struct hs_tls *t = state;
    uint8_t room[RECORD_MAX];
    const uint8_t *bytes;
    size_t len;
    hs_err rv;

    (void)fd;
    bytes = gather(iov, n_iov, room, &len);
    if ((rv = hs_tls_call_begin(t, err)) != HS_OK)
        return rv;
    t->io.send_flags = flags;
    rv = write_record(t, bytes, len, err, want, ret_n);
    t->io.send_flags = 0;
    return hs_tls_write_call_end(t, rv);
}

/* A record of this call that is half out is not read again: the file may have changed, and OpenSSL
 * sends what it sealed, whatever it is given. */
static ssize_t
read_piece(struct hs_tls *t, int file, int64_t offset, uint8_t room[RECORD_MAX], size_t len)
{
    size_t half = atomic_load(&t->half_sent);

    if (half > 0 && t->half_sent_hash == 0) {
        memset(room, 0, half);
        return (ssize_t)half;
    }
    return hs_sys_pread(file, room, len < RECORD_MAX ? len : RECORD_MAX, offset);
}

static hs_err
tls_try_send_file(void *state, int fd, int file, int64_t *offset, size_t len, struct hs_error *err,
                  short *want, size_t *ret_n)
{
    struct hs_tls *t = state;
    uint8_t room[RECORD_MAX];
    ssize_t n = read_piece(t, file, *offset, room, len);
    size_t sent = 0;
    hs_err rv;

    (void)fd;
    if (n < 0)
        return errno == EINTR ? HS_INTR : hs_err_set(err, HS_E_SYSTEM, errno, "sendfile", "pread");
    if (n > 0) {
        if ((rv = hs_tls_call_begin(t, err)) != HS_OK)
            return rv;
        rv = hs_tls_write_call_end(t, write_record(t, room, (size_t)n, err, want, &sent));
        if (rv != HS_OK)
            return rv;
    }
    *offset += (int64_t)sent;
    *ret_n = sent;
    return HS_OK;
}

bool
hs_tls_is_half_sent(struct hs_tls *t)
{
    return atomic_load(&t->half_sent) > 0;
}

bool
hs_tls_took_input(struct hs_tls *t)
{
    bool took = atomic_load(&t->took_input) && atomic_exchange(&t->took_input, false);

    return (t->io.below != NULL && hs_tls_took_input(t->io.below)) || took;
}

void
hs_tls_keep_half_sent(struct hs_tls *t, const struct iovec *iov, size_t n_iov)
{
    uint8_t room[RECORD_MAX];
    const uint8_t *bytes;
    size_t len;

    bytes = gather(iov, n_iov, room, &len);
    hs_lock_take(&t->lock);
    if (t->half_sent > 0 && t->half_sent <= len)
        t->half_sent_hash = tls_hash(bytes, t->half_sent);
    hs_lock_drop(&t->lock);
}

/* ---- Ending -------------------------------------------------------------------------------- */

/* 0 of SSL_shutdown is no error: ours is out, the peer's is not here yet. In the middle of a
 * message after the handshake, such as a ticket in several records, OpenSSL refuses to end: that
 * one has to be read first. */
static hs_err
send_goodbye(struct hs_tls *t, struct hs_error *err, short *want)
{
    int ret;
    hs_err rv;

    if (t->goodbye_sent)
        return HS_OK;
    if (t->half_sent > 0)
        return hs_err_setx(err, HS_E_POISONED, NULL,
                           "a TLS record of an earlier send is half out: nothing can be said "
                           "behind it");
    if (SSL_in_init(t->ssl) && (ret = hs_sys_ssl_handshake(t->ssl)) <= 0)
        return hs_tls_meaning(t, ret, err, want);
    t->goodbye_begun = true;
    ret = hs_sys_ssl_shutdown(t->ssl);
    rv = ret >= 0 ? HS_OK : hs_tls_meaning(t, ret, err, want);
    if (rv == HS_E_END)
        rv = HS_OK;
    if (rv == HS_OK)
        t->goodbye_sent = true;
    return rv;
}

hs_err
hs_tls_try_end(struct hs_tls *t, struct hs_error *err, short *want)
{
    hs_err rv;

    if ((rv = hs_tls_call_begin(t, err)) != HS_OK)
        return rv;
    return hs_tls_write_call_end(t, send_goodbye(t, err, want));
}

hs_err
hs_tls_try_end_all(struct hs_tls *t, struct hs_error *err, short *want)
{
    hs_err rv = hs_tls_try_end(t, err, want);

    return rv == HS_OK && t->io.below != NULL ? hs_tls_try_end(t->io.below, err, want) : rv;
}

/* After a failed handshake: bytes that wait would make the kernel reset the connection, and our
 * alert would be lost with it. Two looks, as much as a flight of handshake messages. */
static void
discard_raw(struct hs_tls *t)
{
    uint8_t room[RECORD_MAX];
    ssize_t n = 1;

    for (int i = 0; i < 2 && n > 0; i++)
        n = hs_sys_recv(t->io.fd, room, sizeof(room), MSG_DONTWAIT);
    if (n < 0 && hs_tcp_meaning(errno) == HS_E_DEAD_PEER)
        t->io.told_dead = true;
}

/* With the lock held. */
static bool
part(struct hs_tls *t, bool clean, bool stays, bool *ret_unread)
{
    bool expects_tickets = false, unread = false;
    size_t n;
    char byte;
    short want;

    if (t->state == TLS_OPEN) {
        ERR_clear_error();
        t->io.rv = HS_OK;
        t->io.taken = 0;
        t->io.limit = IDLE_TALK_MAX;
        /* Takes in session tickets and the like, and stops at data. */
        unread = hs_sys_ssl_peek(t->ssl, &byte, 1, &n) > 0;
        ERR_clear_error();
        if (clean && t->state == TLS_OPEN && (stays || !unread))
            (void)send_goodbye(t, NULL, &want);
        ERR_clear_error();
        /* They are sent before data, so the one who got data has them. */
        expects_tickets = t->state == TLS_OPEN && !t->got_data && !t->goodbye_received &&
                          t->context->role == HS_TLS_CLIENT &&
                          SSL_version(t->ssl) >= TLS1_3_VERSION && !SSL_has_pending(t->ssl);
    }
    *ret_unread = unread;
    return expects_tickets;
}

bool
hs_tls_say_goodbye(struct hs_tls *t, bool clean, bool *ret_unread)
{
    bool expects_tickets, unread, stays = ret_unread == NULL;

    hs_lock_take(&t->lock);
    expects_tickets = part(t, clean, stays, &unread);
    if (t->io.below != NULL)
        (void)hs_tls_say_goodbye(t->io.below, clean && (stays || !unread),
                                 stays ? NULL : &(bool){false});
    if (t->state != TLS_OPEN)
        discard_raw(t);
    hs_lock_drop(&t->lock);
    if (!stays)
        *ret_unread = unread;
    return expects_tickets;
}

static bool
tls_has_failed(void *state, struct hs_error *err)
{
    struct hs_tls *t = state;
    bool failed;

    hs_lock_take(&t->lock);
    if ((failed = t->state == TLS_FAILED))
        (void)repeat_failure(t, err);
    hs_lock_drop(&t->lock);
    return failed;
}

const struct hs_layer hs_tls_layer = {
    .try_recv = tls_try_recv,
    .try_send = tls_try_send,
    .try_send_file = tls_try_send_file,
    .has_failed = tls_has_failed,
};
