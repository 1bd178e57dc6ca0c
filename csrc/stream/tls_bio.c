/* tls_bio.c: see tls_bio.h.
 *
 * Owns nothing but its method table, made once per process and never freed.
 */
#include "tls_bio.h"

#include "layer.h"
#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

static BIO_METHOD *method;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* As many as OpenSSL keeps of a thread's errors. */
#define QUEUE_MAX 16

struct queue {
    unsigned long codes[QUEUE_MAX];
    size_t n;
};

/* An SSL object that fails queues the reason first and sends its alert after. The one below needs
 * an empty queue for that: SSL_get_error(3) takes any entry for its own. Nobody asks for more of an
 * entry than its code. */
static void
put_aside(const struct hs_tls_io *io, struct queue *q)
{
    q->n = 0;
    if (io->below != NULL)
        while (q->n < QUEUE_MAX && (q->codes[q->n] = ERR_get_error()) != 0)
            q->n++;
}

static void
tls_bio_put_back(const struct queue *q)
{
    for (size_t i = 0; i < q->n; i++) {
        ERR_new();
        ERR_set_error(ERR_GET_LIB(q->codes[i]), ERR_GET_REASON(q->codes[i]), NULL);
    }
}

static int
tls_bio_fail(BIO *bio, struct hs_tls_io *io, hs_err rv, const struct hs_error *err, int direction,
             bool retry)
{
    io->rv = rv;
    io->told_dead = io->told_dead || rv == HS_E_DEAD_PEER;
    io->sys = err->sys;
    io->op = err->op;
    if (retry)
        BIO_set_flags(bio, direction | BIO_FLAGS_SHOULD_RETRY);
    errno = io->sys;
    return -1;
}

static void
note_first(struct hs_tls_io *io, const char *buf, size_t n)
{
    static const char http[] = "HTTP/";

    io->received_ns = hs_now();
    io->is_http = n >= sizeof(http) - 1 && memcmp(buf, http, sizeof(http) - 1) == 0;
}

static bool
is_closed(int fd)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);

    return hs_sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
           info.tcpi_state == TCP_CLOSE;
}

static hs_err
ask_below(struct hs_tls_io *io, uint8_t *buf, size_t len, struct hs_error *err, size_t *ret_n)
{
    struct queue q;
    hs_err rv;

    put_aside(io, &q);
    rv = io->layer->try_recv(io->below, io->fd, buf, len, 0, err, &io->want, ret_n);
    tls_bio_put_back(&q);
    return rv;
}

/* HS_INTR: the layer below wants its caller to look at the clock, as we do when we are tired. A TLS
 * below that could not write, for itself, may be read from all the same. */
static bool
would_block(struct hs_tls_io *io, hs_err rv)
{
    io->tired = rv == HS_INTR;
    return rv == HS_WANT || rv == HS_INTR ||
           (io->keep_reading && io->below != NULL && !io->layer->has_failed(io->below, NULL));
}

static int
bio_read(BIO *bio, char *buf, int len)
{
    struct hs_tls_io *io = BIO_get_data(bio);
    struct hs_error err = {0};
    hs_err rv = HS_OK;
    size_t n;

    BIO_clear_retry_flags(bio);
    if (buf == NULL || len <= 0)
        return 0;
    io->tired = io->taken >= io->limit;
    if (io->tired)
        return tls_bio_fail(bio, io, HS_WANT, &err, BIO_FLAGS_READ, true);
    if ((n = hs_buf_take(&io->ahead, (uint8_t *)buf, (size_t)len)) == 0)
        rv = ask_below(io, (uint8_t *)buf, (size_t)len, &err, &n);
    if (rv != HS_OK)
        return tls_bio_fail(bio, io, rv, &err, BIO_FLAGS_READ, would_block(io, rv));
    io->rv = HS_OK;
    io->want = 0;
    io->taken += n;
    if (n == 0 && !io->eof) {
        io->eof = true;
        io->closed_at_eof =
            is_closed(io->fd); /* Now: OpenSSL sends an alert, which may close it. */
    }
    if (n == 0)
        return 0;
    if (io->received_ns == 0)
        note_first(io, buf, n);
    return (int)n;
}

/* Once a write has failed for good, OpenSSL wants nothing more to do with the object; but what the
 * peer had sent before is often here already (openssl issue 6944, RFC 1122 section 4.2.2.13). So it
 * is told that the write would block, and our caller, who finds the error in io, knows better.
 * During a handshake OpenSSL looks at errno itself: a client that is gone by the time that tickets
 * are sent has still finished its handshake. */
static int
bio_write(BIO *bio, const char *buf, int len)
{
    struct hs_tls_io *io = BIO_get_data(bio);
    struct hs_error err = {0};
    const struct iovec iov = {.iov_base = (void *)(uintptr_t)buf,
                              .iov_len = len > 0 ? (size_t)len : 0};
    struct queue q;
    size_t n;
    hs_err rv;

    BIO_clear_retry_flags(bio);
    if (buf == NULL || len <= 0)
        return 0;
    put_aside(io, &q);
    rv = io->layer->try_send(io->below, io->fd, &iov, 1, io->send_flags, &err, &io->want, &n);
    tls_bio_put_back(&q);
    io->tired = rv == HS_INTR;
    if (rv != HS_OK)
        return tls_bio_fail(bio, io, rv, &err, BIO_FLAGS_WRITE,
                            rv == HS_WANT || rv == HS_INTR || io->keep_reading);
    io->rv = HS_OK;
    io->want = 0;
    return (int)n;
}

static long
bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    struct hs_tls_io *io = BIO_get_data(bio);

    (void)num;
    (void)ptr;
    switch (cmd) {
    case BIO_CTRL_FLUSH:
    case BIO_CTRL_DUP:
        return 1;
    case BIO_CTRL_EOF:
        return io->eof;
    default:
        return 0;
    }
}

static void
make_method(void)
{
    int index = BIO_get_new_index();

    if (index < 0 || (method = BIO_meth_new(index | BIO_TYPE_SOURCE_SINK, "hardsock")) == NULL)
        return;
    if (!BIO_meth_set_read(method, bio_read) || !BIO_meth_set_write(method, bio_write) ||
        !BIO_meth_set_ctrl(method, bio_ctrl)) {
        BIO_meth_free(method);
        method = NULL;
    }
}

hs_err
hs_tls_io_error(const struct hs_tls_io *io, struct hs_error *err)
{
    if (io->below != NULL && io->layer->has_failed(io->below, err))
        return io->rv;
    return hs_err_set(err, io->rv, io->sys, io->op, "%s", io->op != NULL ? io->op : "");
}

BIO *
hs_tls_bio_new(struct hs_tls_io *io)
{
    BIO *bio;

    (void)pthread_once(&once, make_method);
    if (method == NULL || (bio = BIO_new(method)) == NULL)
        return NULL;
    BIO_set_data(bio, io);
    BIO_set_init(bio, 1);
    return bio;
}
