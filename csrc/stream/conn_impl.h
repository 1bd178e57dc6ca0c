/* conn_impl.h: the inside of a connection, for the files that make it up: conn.c (life, questions),
 * conn_call.c (the frame of every call), conn_io.c (bytes), conn_end.c (endings).
 *
 * Every call runs hs_call_begin() .. hs_call_end(). Begin holds the descriptor (fd.h), claims the
 * direction, and refuses what must not run; end gives both back, unless the call is merely
 * interrupted (HS_INTR) or stepped (HS_WANT): then the op keeps hold and claim, so that nobody gets
 * between its halves.
 *
 * Invariants:
 * - busy of a direction is true exactly while one op has claimed it; only the claimer touches that
 *   direction's data (inbuf belongs to HS_DIR_IN) and clears the flag.
 * - poison, which is about one direction, and broken, about both, go from 0 to a code once.
 * - Closing marks the descriptor first and wakes the list after; a waiter joins the list first and
 *   looks at the mark after.
 */
#ifndef HS_STREAM_CONN_IMPL_H
#define HS_STREAM_CONN_IMPL_H

#include "fd.h"
#include "layer.h"
#include "../base/buf.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../cancel/wait.h"

#define CONN_MAGIC 0x70c3c044U
/* Rounds of a fast endless transfer before signals get a chance. */
#define SLICE_ROUNDS 64

struct direction {
    atomic_bool busy;
    _Atomic hs_err poison;
    _Atomic int64_t deadline_ns;
    _Atomic int64_t last_ns;
    _Atomic uint64_t bytes;
};

struct hs_conn {
    unsigned magic;
    atomic_int refs;
    atomic_int handles;
    int family;
    struct hs_fd fd;
    const struct hs_layer *layer;
    struct direction dirs[2];
    _Atomic hs_err broken;  /* HS_E_RESET or HS_E_DEAD_PEER, whoever found out first */
    atomic_bool out_ended;  /* by our own shutdown */
    atomic_bool may_linger; /* somebody other than us may have set SO_LINGER */
    struct hs_wakelist wakers;
    struct hs_buf inbuf;     /* belongs to who has claimed HS_DIR_IN */
    _Atomic size_t buffered; /* its length, for those who only look */
    int64_t created_ns;
    unsigned changed;
    struct hs_addr peer;     /* immutable */
    struct hs_sockopts opts; /* as asked; immutable */
};

/* Adds the direction to the op's claim; each claim holds the descriptor. */
HS_NODISCARD hs_err hs_call_claim(struct hs_conn *c, struct hs_op *op, enum hs_dir dir,
                                  struct hs_error *err);
void hs_call_release(struct hs_conn *c, struct hs_op *op, enum hs_dir dir);
HS_NODISCARD hs_err hs_call_begin(struct hs_conn *c, struct hs_op *op, enum hs_dir dir,
                                  struct hs_error *err);
/* Passes rv on, filled into err under the name of the call. */
HS_NODISCARD hs_err hs_call_end(struct hs_conn *c, struct hs_op *op, enum hs_dir dir,
                                const char *name, hs_err rv, struct hs_error *err);
/* Until the descriptor has one of the events, or a time: HS_OK means "try again". */
HS_NODISCARD hs_err hs_call_wait(struct hs_conn *c, struct hs_op *op, enum hs_dir dir, short want,
                                 struct hs_error *err);
HS_NODISCARD hs_err hs_conn_check_poison(struct hs_conn *c, enum hs_dir dir, struct hs_error *err);
HS_NODISCARD hs_err hs_conn_check_broken(struct hs_conn *c, struct hs_error *err);
/* Whether the kernel has nothing more to do with this TCP: it broke, or both sides ended. */
HS_NODISCARD bool hs_conn_tcp_is_closed(struct hs_conn *c);
/* The first code stays. */
void hs_conn_set_once(_Atomic hs_err *where, hs_err code);

#endif
