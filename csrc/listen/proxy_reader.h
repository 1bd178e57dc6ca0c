/* proxy_reader.h: takes the PROXY header off a new connection that nobody else uses yet.
 *
 * Just the header: what is behind it is the handshake's, or the handler's.
 */
#ifndef HS_LISTEN_PROXY_READER_H
#define HS_LISTEN_PROXY_READER_H

#include "hardsock.h"

/* What has come of a header so far. {0} to begin with; a header that comes in one piece, as almost
 * all do, leaves it so. */
struct hs_proxy_reader {
    uint8_t *bytes; /* own; NULL: nothing */
    size_t n;
};

/* Never waits. HS_OK: conn's peer is the client that the header names, *ret_local: none. HS_WANT:
 * more must come. HS_E_BAD_FRAME, HS_E_TRUNCATED (it left), HS_E_RESET, HS_E_NOMEM. Bytes behind
 * the header stay in the kernel. */
HS_NODISCARD hs_err hs_proxy_read(struct hs_proxy_reader *r, struct hs_conn *conn,
                                  struct hs_error *err, bool *ret_local);
void hs_proxy_reader_fini(struct hs_proxy_reader *r);

#endif
