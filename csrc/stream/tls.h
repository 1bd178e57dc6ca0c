/* tls.h: one connection's TLS as a layer, for conn*.c. Knows nothing of waiting.
 *
 * hs_tls_layer's functions take a struct hs_tls as their state. They answer as any layer's do; an
 * end of the stream is close_notify, any other end is HS_E_TRUNCATED.
 */
#ifndef HS_STREAM_TLS_H
#define HS_STREAM_TLS_H

#include "hardsock.h"
#include "layer.h"
#include "../base/buf.h"

struct hs_tls;

extern const struct hs_layer hs_tls_layer;

/* server_name: as hs_conn_start_tls; where: makes sessions of one name apart that are at different
 * places ("192.0.2.1:443"). fd is borrowed until hs_tls_free. below: the TLS whose stream this one
 * goes through, which must have shaken hands and have none below itself; taken over on success.
 * NULL: none. */
HS_NODISCARD hs_err hs_tls_new(struct hs_tls_config *config, int fd, struct hs_tls *below,
                               const char *server_name, const char *where, struct hs_error *err,
                               struct hs_tls **ret_tls);
/* NULL: none, or t is NULL. */
struct hs_tls *hs_tls_below(const struct hs_tls *t);
/* What was received before, for the handshake to begin with. Empties buf. */
void hs_tls_hand_over(struct hs_tls *t, struct hs_buf *buf);
/* Without I/O. Not in a forked child: a thread that is gone may have been in it. NULL is fine. */
void hs_tls_free(struct hs_tls *t);
int64_t hs_tls_handshake_timeout(const struct hs_tls *t);
/* HS_OK when it is done, HS_WANT, or an error, after which only hs_tls_free may follow. */
HS_NODISCARD hs_err hs_tls_try_handshake(struct hs_tls *t, struct hs_error *err, short *want);
/* See hs_conn_confirm. */
HS_NODISCARD hs_err hs_tls_try_confirm(struct hs_tls *t, struct hs_error *err, short *want);
/* See hs_conn_request_certificate: HS_OK when the request is out, now or earlier. */
HS_NODISCARD hs_err hs_tls_try_request(struct hs_tls *t, bool required, struct hs_error *err,
                                       short *want);
/* The answer to it is here, and was accepted. Once; then another may be sent. */
bool hs_tls_take_answer(struct hs_tls *t);
/* Sends close_notify; idempotent. The TLS below goes on. */
HS_NODISCARD hs_err hs_tls_try_end(struct hs_tls *t, struct hs_error *err, short *want);
/* The same for the TLS below as well. */
HS_NODISCARD hs_err hs_tls_try_end_all(struct hs_tls *t, struct hs_error *err, short *want);
/* A record is encrypted and not all of it is out: its bytes must be tried again, and no others. */
bool hs_tls_is_half_sent(struct hs_tls *t);
/* A call that writes has read, because OpenSSL had to: somebody who waits for the descriptor to be
 * readable must try again, since what it waits for may be here by now. Once. */
bool hs_tls_took_input(struct hs_tls *t);
/* For a caller that will come again with them in another call: the layer checks that it does. */
void hs_tls_keep_half_sent(struct hs_tls *t, const struct iovec *iov, size_t n_iov);
/* For a connection that closes now: says so if that may still be said, and takes in what the peer
 * has sent that is not data, so that the kernel finds nothing unread to reset the connection for.
 * clean: whether the last message is whole. Never blocks. True: tickets may still be on their way,
 * and be answered with a reset if the descriptor is simply closed. ret_unread (NULL: reading goes
 * on) is told whether there is data; then nothing is said, as a reset is due. */
bool hs_tls_say_goodbye(struct hs_tls *t, bool clean, bool *ret_unread);
/* The handshake was done: without that OpenSSL has no session, and crashes when asked about it. */
bool hs_tls_is_handshaken(struct hs_tls *t);
/* A byte of the peer's has come. */
bool hs_tls_has_heard(struct hs_tls *t);
/* The next three only if hs_tls_is_handshaken. */
void hs_tls_get_info(struct hs_tls *t, struct hs_tls_info *ret_info);
size_t hs_tls_chain_length(struct hs_tls *t);
HS_NODISCARD hs_err hs_tls_chain_copy(struct hs_tls *t, size_t i, uint8_t **ret_der,
                                      size_t *ret_len);
/* See hs_conn_tls_export and hs_conn_tls_binding. */
HS_NODISCARD hs_err hs_tls_export(struct hs_tls *t, const struct hs_tls_exported *what,
                                  uint8_t *out, size_t len, struct hs_error *err);
HS_NODISCARD hs_err hs_tls_binding(struct hs_tls *t, enum hs_tls_binding kind,
                                   uint8_t out[HS_TLS_BINDING_MAX], size_t *ret_len,
                                   struct hs_error *err);
/* After an end: whether the peer itself said so; else, whether TCP was over on both sides then. */
bool hs_tls_ended(struct hs_tls *t, bool *ret_tcp_closed);
/* Whether the kernel has told it, or the TLS below, that the peer is dead; waits for a try. */
bool hs_tls_told_dead(struct hs_tls *t);
/* Bytes that reading gives without the kernel; belongs to the reader. *ret_ready: it would not
 * wait: because of them, or because of an end or a failure. */
size_t hs_tls_pending(struct hs_tls *t, bool *ret_ready);
/* Decrypted bytes, or whole records, that no readiness of the descriptor will tell of. */
bool hs_tls_has_pending(struct hs_tls *t);

#endif
