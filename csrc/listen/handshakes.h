/* handshakes.h: the connections of a listener that are not ready yet: their proxy has still to say
 * for whom it comes, or they are in their TLS handshake.
 *
 * Accepting and shaking hands are apart: a client that is silent or slow takes a slot here, not
 * the acceptor. Places are bounded, and so is how many handshakes may begin per second; while there
 * is no room newcomers wait in the kernel's queue. Each is cut at its own absolute deadline, and
 * what failed is counted by kind.
 *
 * All is behind one descriptor, an epoll set with the listening socket in it, so that the one who
 * waits for a connection, a thread or an event loop, drives every handshake; any number at once
 * may. While nobody accepts or tends, nothing moves. While it is held (a server is full) handshakes
 * that have begun go on, and wait, secured, to be taken.
 *
 * A client that has said nothing keeps its slot only while nobody else wants it: when all slots
 * are taken, the oldest silent one leaves to the next newcomer, once it had a moment to speak.
 */
#ifndef HS_LISTEN_HANDSHAKES_H
#define HS_LISTEN_HANDSHAKES_H

#include "peers.h"

struct hs_handshakes;

/* borrows: listen_fd until hs_handshakes_close. where: the breaker's key is made of it. peers: the
 * limits of a proxy's clients, or NULL. */
HS_NODISCARD hs_err hs_handshakes_new(const struct hs_listen_options *o, int listen_fd,
                                      const struct hs_addr *where, struct hs_peers *peers,
                                      struct hs_error *err, struct hs_handshakes **ret_h);
/* Nobody may be in a call. NULL is fine. */
void hs_handshakes_free(struct hs_handshakes *h);
/* Cuts all; idempotent, from any thread. Calls in progress cut what they hold. */
void hs_handshakes_close(struct hs_handshakes *h);
/* Readable when there is something to be done. */
int hs_handshakes_fileno(const struct hs_handshakes *h);

/* Whether peer is a proxy that has to say for whom it comes. */
bool hs_handshakes_expect_header(const struct hs_handshakes *h, const struct hs_addr *peer);

enum hs_due {
    HS_DUE_NOTHING,    /* wait */
    HS_DUE_NEWCOMERS,  /* accept as long as hs_handshakes_has_room, and add */
    HS_DUE_CONNECTION, /* *ret_conn is ready, and the caller's */
    HS_DUE_SOMETHING,  /* it was done: ask again */
    HS_DUE_FAILED,     /* nothing will be due any more: *err tells why */
};
/* Does the next thing that is due, without waiting. ret_conn NULL: the caller takes none, and what
 * gets ready is kept for who does. */
enum hs_due hs_handshakes_next(struct hs_handshakes *h, struct hs_error *err,
                               struct hs_conn **ret_conn);
/* Something was kept although newcomers are not held: who accepts is to be woken. */
bool hs_handshakes_wait_for_taker(struct hs_handshakes *h);
/* While the kernel refuses to tell of newcomers: when who waits should ask for the next anyway;
 * HS_NEVER: it tells. */
int64_t hs_handshakes_look_ns(const struct hs_handshakes *h);
/* It is not HS_NEVER any more, which those who wait are to be told; true once. */
bool hs_handshakes_look_is_new(struct hs_handshakes *h);
/* For who waits with nothing but the descriptor: it is readable until the kernel does tell. */
void hs_handshakes_tell_gate(struct hs_handshakes *h);
/* Takes a slot, which hs_handshakes_add fills or hs_handshakes_give_back leaves. False: there is
 * none now; newcomers will be due again when there is. */
bool hs_handshakes_take_slot(struct hs_handshakes *h);
void hs_handshakes_give_back(struct hs_handshakes *h);
/* Takes conn. It comes back at once if a quick peer has done all of its part; else NULL. */
HS_NODISCARD struct hs_conn *hs_handshakes_add(struct hs_handshakes *h, struct hs_conn *conn);
/* Newcomers begin no handshake while it is held, and what is secured waits in it. */
void hs_handshakes_hold(struct hs_handshakes *h, bool held);
bool hs_handshakes_are_held(struct hs_handshakes *h);
/* No newcomers any more. */
void hs_handshakes_last_call(struct hs_handshakes *h);
/* Whether there is something left of which a byte has come. */
bool hs_handshakes_busy(struct hs_handshakes *h);
/* No newcomers before that time. */
void hs_handshakes_pause(struct hs_handshakes *h, int64_t until_ns);

void hs_handshakes_proxy_stats(struct hs_handshakes *h, struct hs_proxy_stats *ret_stats);
void hs_handshakes_stats(struct hs_handshakes *h, struct hs_handshake_stats *ret_stats);

#endif
