/* tls_fault.h: OpenSSL's calls on a connection, which may fail while faults are on (base/fault.h).
 *
 * One that fails leaves OpenSSL's reason in its queue, as OpenSSL does, and touches nothing else.
 */
#ifndef HS_STREAM_TLS_FAULT_H
#define HS_STREAM_TLS_FAULT_H

#include "../base/fault.h"

#include <openssl/ssl.h>

/* True: it fails, and why is in the queue. */
bool hs_tls_fault_raise(enum hs_call call);

static inline SSL *
hs_sys_ssl_new(SSL_CTX *ctx)
{
    return hs_faults_are_on() && hs_tls_fault_raise(HS_CALL_tls_new) ? NULL : SSL_new(ctx);
}

static inline int
hs_sys_ssl_handshake(SSL *ssl)
{
    return hs_faults_are_on() && hs_tls_fault_raise(HS_CALL_handshake) ? -1 : SSL_do_handshake(ssl);
}

static inline int
hs_sys_ssl_read(SSL *ssl, void *buf, size_t len, size_t *ret_n)
{
    return hs_faults_are_on() && hs_tls_fault_raise(HS_CALL_tls_read)
               ? 0
               : SSL_read_ex(ssl, buf, len, ret_n);
}

static inline int
hs_sys_ssl_peek(SSL *ssl, void *buf, size_t len, size_t *ret_n)
{
    return hs_faults_are_on() && hs_tls_fault_raise(HS_CALL_tls_peek)
               ? 0
               : SSL_peek_ex(ssl, buf, len, ret_n);
}

static inline int
hs_sys_ssl_shutdown(SSL *ssl)
{
    return hs_faults_are_on() && hs_tls_fault_raise(HS_CALL_tls_shutdown) ? -1 : SSL_shutdown(ssl);
}

static inline int
hs_sys_ssl_write(SSL *ssl, const void *buf, size_t len, size_t *ret_n)
{
    return hs_faults_are_on() && hs_tls_fault_raise(HS_CALL_tls_write)
               ? 0
               : SSL_write_ex(ssl, buf, len, ret_n);
}

#endif
