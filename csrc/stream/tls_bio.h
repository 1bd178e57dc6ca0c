/* tls_bio.h: what an SSL object reads from and writes to: the layer below, by a BIO of our own.
 *
 * OpenSSL's own socket BIO writes with write(2), so it raises SIGPIPE, and it takes ENOTCONN and
 * EPROTO for "try again". Ours asks the layer, and remembers what that said: OpenSSL's error queue
 * and errno are not to be trusted with it. The layer below may be TLS itself (a connection through
 * an HTTPS proxy), whose calls need the thread's error queue for themselves.
 */
#ifndef HS_STREAM_TLS_BIO_H
#define HS_STREAM_TLS_BIO_H

#include "hardsock.h"
#include "layer.h"
#include "../base/buf.h"

#include <openssl/bio.h>

struct hs_tls;

struct hs_tls_io {
    const struct hs_layer *layer; /* below */
    struct hs_tls *below;         /* owns: its state; NULL: the layer is plain */
    int fd;                       /* borrows: the connection's; held while it is used */
    short want; /* of the last read or write that would block: the poll events, else 0 */
    hs_err rv;  /* of the last read or write: HS_OK, HS_WANT, HS_INTR, or an error, then of ... */
    int sys;    /* ... this system call: errno and name */
    const char *op;
    int send_flags;      /* of the layer's call that is running, else 0 */
    bool is_http;        /* its first bytes were the beginning of an HTTP answer */
    bool eof;            /* the peer's TCP has ended, */
    bool closed_at_eof;  /* and ours with it, as after a reset that somebody else was told of */
    bool told_dead;      /* the kernel told a read or a write that the peer is dead */
    bool keep_reading;   /* a write that failed must not end reading: see bio_write */
    int64_t received_ns; /* when its first byte came, or 0 */
    size_t taken;        /* bytes read since somebody set it to 0 ... */
    size_t limit;        /* ... of which no more than these, then ... */
    struct hs_buf ahead; /* read before TLS began: comes first */
    bool tired;          /* ... it says that it would block, though it might not; as below does */
};

/* What io.rv, an error, was about; of a layer below that has failed, all that it said. */
HS_NODISCARD hs_err hs_tls_io_error(const struct hs_tls_io *io, struct hs_error *err);

/* borrows: io until the BIO is freed. NULL: no memory. */
BIO *hs_tls_bio_new(struct hs_tls_io *io);

#endif
