/* layer.h: what a stream is made of: functions that try, and never wait.
 *
 * A layer's function does what can be done now and answers HS_OK, HS_WANT with the poll events to
 * wait for in *want (TLS may want the opposite direction), or an error with err filled. It is
 * called with the descriptor held and by one reader and one writer at a time. It must not block,
 * sleep, take a lock over a system call that can wait, or know about deadlines and tokens.
 */
#ifndef HS_STREAM_LAYER_H
#define HS_STREAM_LAYER_H

#include "hardsock.h"

#include <sys/socket.h>

/* state: the layer's own, NULL for tcp. fd: the connection's. */
struct hs_layer {
    /* *ret_n == 0 is the end of the peer's stream. len > 0. */
    hs_err (*try_recv)(void *state, int fd, uint8_t *buf, size_t len, int flags,
                       struct hs_error *err, short *want, size_t *ret_n);
    /* Takes what it can of n > 0 pieces; *ret_n > 0. flags: 0 or MSG_MORE. */
    hs_err (*try_send)(void *state, int fd, const struct iovec *iov, size_t n, int flags,
                       struct hs_error *err, short *want, size_t *ret_n);
    /* Takes what it can of len > 0 bytes of the file; *ret_n == 0 is the file's end. */
    hs_err (*try_send_file)(void *state, int fd, int file, int64_t *offset, size_t len,
                            struct hs_error *err, short *want, size_t *ret_n);
    /* It has failed for good, and err, which may be NULL, is told how. NULL: a layer without a
     * state never does. */
    bool (*has_failed)(void *state, struct hs_error *err);
};

extern const struct hs_layer hs_tcp_layer;

/* What an errno of a connected socket means: HS_E_RESET, HS_E_DEAD_PEER or HS_E_SYSTEM. */
hs_err hs_tcp_meaning(int sys);

/* The tcp layer's, with ancillary data, for the one who knows that there is no other layer above
 * it. Descriptors that come with it are close-on-exec; msg_flags does not show how that was done.
 * */
hs_err hs_tcp_try_sendmsg(int fd, const struct msghdr *msg, int flags, struct hs_error *err,
                          short *want, size_t *ret_n);
hs_err hs_tcp_try_recvmsg(int fd, struct msghdr *msg, int flags, struct hs_error *err, short *want,
                          size_t *ret_n);

#endif
