/* tls_bio.c: see tls_bio.h.
 *
 * Owns nothing but its method table, made once per process and never freed.
 */
#include "tls_bio.h"

#include "layer.h"
#include "../base/err.h"
#include "../base/time.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

static BIO_METHOD *method;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static int
fail(BIO *bio, struct hs_tls_io *io, hs_err rv, const struct hs_error *err, int direction,
     bool retry)
{
    io->rv = rv;
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
    struct tcp_info info;
    socklen_t len = sizeof(info);

    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 && info.tcpi_state == TCP_CLOSE;
}

static int
bio_read(BIO *bio, char *buf, int len)
{
    struct hs_tls_io *io = BIO_get_data(bio);
    struct hs_error err = {0};
    hs_err rv = HS_OK;
    short want;
    size_t n;

    BIO_clear_retry_flags(bio);
    if (buf == NULL || len <= 0)
        return 0;
    io->tired = io->taken >= io->limit;
    if (io->tired)
        return fail(bio, io, HS_WANT, &err, BIO_FLAGS_READ, true);
    if ((n = hs_buf_take(&io->ahead, (uint8_t *)buf, (size_t)len)) == 0)
        rv = hs_tcp_layer.try_recv(NULL, io->fd, (uint8_t *)buf, (size_t)len, 0, &err, &want, &n);
    if (rv != HS_OK)
        return fail(bio, io, rv, &err, BIO_FLAGS_READ, rv == HS_WANT);
    io->rv = HS_OK;
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
    short want;
    size_t n;
    hs_err rv;

    BIO_clear_retry_flags(bio);
    if (buf == NULL || len <= 0)
        return 0;
    rv = hs_tcp_layer.try_send(NULL, io->fd, &iov, 1, io->send_flags, &err, &want, &n);
    if (rv != HS_OK)
        return fail(bio, io, rv, &err, BIO_FLAGS_WRITE, rv == HS_WANT || io->keep_reading);
    io->rv = HS_OK;
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
