/* conn_probe.h: what a pool asks of a connection between two borrowers.
 *
 * Whether the peer is still there, whether something was left in it, and how much went through it
 * since a moment. Nothing here waits.
 */
#ifndef HS_STREAM_CONN_PROBE_H
#define HS_STREAM_CONN_PROBE_H

#include "hardsock_binding.h"
#include "../base/own_fd.h"

#include <stdatomic.h>

enum hs_liveness {
    HS_LIVE_IDLE,   /* open, and nothing to be read */
    HS_LIVE_DATA,   /* bytes of the peer's wait to be read */
    HS_LIVE_CLOSED, /* the peer has ended its side or reset it, or it is closed here */
    HS_LIVE_DEAD,   /* the peer did not answer: keepalive or retransmissions gave up */
};
/* Asks the kernel, without consuming what the peer said. Under TLS what is not data (session
 * tickets, key updates) is taken in on the way: readable does not mean stale. */
enum hs_liveness hs_conn_probe(struct hs_conn *c);

/* Once, before others know c: where its pool tells which lease it is under, 0 for none. borrows:
 * word, as long as calls name leases. */
void hs_conn_set_lease(struct hs_conn *c, const _Atomic uint64_t *word);
/* Where its pool tells whose line has borrowed it; NULL: nobody's. Lives as long as c. */
struct hs_call_site *_Atomic *hs_conn_holder(struct hs_conn *c);
/* The word has changed, with seq_cst. After this no call that names the earlier lease touches c,
 * but those that hs_conn_leftover finds. Spins for as long as somebody looks. */
void hs_conn_end_lease(struct hs_conn *c);

/* A moment in a connection's life, in bytes. */
struct hs_conn_mark {
    _Atomic uint64_t received, sent;
};
void hs_conn_set_mark(struct hs_conn *c, struct hs_conn_mark *mark);
void hs_conn_since(struct hs_conn *c, const struct hs_conn_mark *mark, uint64_t *ret_received,
                   uint64_t *ret_sent);
/* Something was received after the last byte was sent. */
bool hs_conn_was_answered(struct hs_conn *c);

enum hs_leftover {
    HS_LEFT_NOTHING,
    HS_LEFT_BROKEN, /* closed, ended, poisoned, reset */
    HS_LEFT_UNREAD, /* received bytes are buffered here, or a frame is being skipped */
    HS_LEFT_IN_USE, /* a call is in progress, or several own it */
};
/* Whether somebody else could take it over. Looks at our own state only. */
enum hs_leftover hs_conn_leftover(struct hs_conn *c);
/* Whether there is nothing that an orderly end would save: half a message was sent or read; or the
 * exchange on it has failed, and the peer's kernel has all that was sent. */
bool hs_conn_is_spent(struct hs_conn *c, bool failed);
/* Forgets what one user of it wished: deadlines, the minimum rate, the half-closed time. */
void hs_conn_renew(struct hs_conn *c);

/* epoll_ctl(2) on its descriptor, while that is surely its own: adds it, or arms it again. False:
 * it is closed, or the kernel would not. */
bool hs_conn_watch(struct hs_conn *c, const struct hs_own_fd *set, uint32_t events, uint64_t data);
/* Its number, for those who only tell it; -1: closed. */
int hs_conn_peek_fd(struct hs_conn *c);
/* Not inherited by fork. */
bool hs_conn_is_ours(struct hs_conn *c);
/* Closes it and drops a reference. orderly: a TLS peer may be told that it has all. */
void hs_conn_dispose(struct hs_conn *c, bool orderly);

#endif
