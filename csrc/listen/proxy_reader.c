/* proxy_reader.c: see proxy_reader.h.
 *
 * The kernel shows what has come (MSG_PEEK), and just the header's own bytes are taken: what is
 * behind it, a TLS ClientHello, has to be read by somebody else. As long as a header is incomplete
 * all that is there belongs to it.
 */
#include "proxy_reader.h"

#include "proxy_header.h"
#include "../base/err.h"
#include "../base/sys.h"
#include "../stream/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static hs_err
proxy_reader_peek(int fd, uint8_t *buf, size_t len, struct hs_error *err, size_t *ret_n)
{
    ssize_t n;

    do
        n = hs_sys_recv(fd, buf, len, MSG_PEEK | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return HS_WANT;
    if (n < 0)
        return hs_err_set(err, HS_E_RESET, errno, "accept", "before the PROXY header");
    if (n == 0)
        return hs_err_setx(err, HS_E_TRUNCATED, "accept", "it ended before the PROXY header did");
    *ret_n = (size_t)n;
    return HS_OK;
}

/* What was seen is there, in as many pieces as the kernel likes, unless another process that has
 * the socket, too, has read it meanwhile. */
static hs_err
proxy_reader_take(int fd, uint8_t *buf, size_t len, struct hs_error *err)
{
    for (size_t taken = 0; taken < len;) {
        ssize_t n = hs_sys_recv(fd, buf + taken, len - taken, MSG_DONTWAIT);

        if (n > 0)
            taken += (size_t)n;
        else if (n == 0 || errno == EAGAIN)
            return hs_err_setx(err, HS_E_RESET, "accept",
                               "somebody else has read %zu bytes of the PROXY header", len - taken);
        else if (errno != EINTR)
            return hs_err_set(err, HS_E_RESET, errno, "accept", "the PROXY header");
    }
    return HS_OK;
}

static hs_err
proxy_keep(struct hs_proxy_reader *r, const uint8_t *bytes, size_t n, struct hs_error *err)
{
    if (r->bytes == NULL && (r->bytes = hs_sys_malloc(HS_PROXY_HEADER_MAX)) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "accept", "no memory for half a PROXY header");
    memcpy(r->bytes, bytes, n);
    r->n = n;
    return HS_OK;
}

hs_err
hs_proxy_read(struct hs_proxy_reader *r, struct hs_conn *conn, struct hs_error *err,
              bool *ret_local)
{
    uint8_t bytes[HS_PROXY_HEADER_MAX];
    struct hs_proxy_header header;
    int fd = hs_conn_fileno(conn);
    size_t before = r->n, n = 0, need;
    hs_err rv, verdict;

    if (before > 0)
        memcpy(bytes, r->bytes, before);
    if ((rv = proxy_reader_peek(fd, bytes + before, sizeof(bytes) - before, err, &n)) != HS_OK)
        return rv;
    n += before;
    verdict = hs_proxy_header_parse(bytes, n, err, &need, &header);
    if (verdict == HS_OK)
        n = header.length;
    else if (verdict != HS_WANT)
        return verdict;
    if ((rv = proxy_reader_take(fd, bytes + before, n - before, err)) != HS_OK)
        return rv;
    if (verdict == HS_WANT)
        return (rv = proxy_keep(r, bytes, n, err)) == HS_OK ? HS_WANT : rv;
    if (header.proxied && (rv = hs_conn_set_client(conn, &header.source, err)) != HS_OK)
        return rv;
    *ret_local = !header.proxied;
    return HS_OK;
}

void
hs_proxy_reader_fini(struct hs_proxy_reader *r)
{
    free(r->bytes);
    *r = (struct hs_proxy_reader){0};
}
