/* delays.h: how long what has arrived waits for somebody to look at it.
 *
 * What servers ask of it is in hardsock_binding.h.
 */
#ifndef HS_STREAM_DELAYS_H
#define HS_STREAM_DELAYS_H

#include "hardsock_binding.h"

long hs_delays_live(void);
/* Just before somebody takes what may be the beginning of a message out of c's kernel queue: one of
 * some such moments is measured. c->delays may be NULL. */
void hs_delays_look(struct hs_conn *c);
/* As hs_tcp_try_recvmsg, on a connection that is measured: without the stamps, for which the caller
 * has not asked. */
HS_NODISCARD hs_err hs_delays_try_recvmsg(int fd, struct msghdr *msg, int flags,
                                          struct hs_error *err, short *want, size_t *ret_n);
/* fd was c's, and is the user's: the kernel stops stamping. */
void hs_delays_end(const struct hs_conn *c, int fd);
/* to has the same socket, in which stamps arrive, too. */
void hs_delays_share(const struct hs_conn *c, struct hs_conn *to);

#endif
