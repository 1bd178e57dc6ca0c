/* conn_impl.h: the inside of a connection, for the files that make it up. Each calls only those
 * before it: conn_state.c (what is known without a call), roll.c (the list of all), resets.c,
 * conn_call.c (the frame of every call), conn_input.c (what comes in), conn_frame.c (what is cut
 * out of it), conn_tls.c (the change to TLS), conn_end.c (endings), conn_fd.c (the descriptor
 * handed over), conn_io.c (bytes), conn.c (life, questions).
 *
 * Every call runs hs_call_begin() .. hs_call_end(). Begin holds the descriptor (fd.h), claims the
 * direction, and refuses what must not run; end gives both back, unless the call is merely
 * interrupted (HS_INTR) or stepped (HS_WANT): then the op keeps hold and claim, so that nobody gets
 * between its halves.
 *
 * Invariants:
 * - user of a direction is USER_CALL exactly while one op has claimed it; only the claimer touches
 *   that direction's data (in and pace belong to HS_DIR_IN) and lets it go. USER_VISIT is the same
 *   for a moment in which nobody waits for anything: the one who comes meanwhile is not turned
 *   away.
 * - A turn, for who bounds it (hs_conn_set_turns): that of HS_DIR_IN begins with the first byte
 *   that comes, that of HS_DIR_OUT with the first call that sends, and either ends the other; that
 *   of HS_DIR_OUT ends, too, when a call waits to read and none writes. Times are relaxed atomics:
 *   two calls at the same time, one in each direction, have no turns that a timeout could be about.
 * - quiet.first_by_ns is set first, and who waits to read is woken after; the reader joins the list
 *   first and looks after, as it does at the mark of closing. A writer gives its direction back
 *   before it looks whether a reader has to be woken, which may have been waiting for just that.
 * - poison, which is about one direction, and broken, about both, go from 0 to a code once.
 * - Closing marks the descriptor first and wakes the list after; a waiter joins the list first and
 *   looks at the mark after.
 * - A call that names its lease counts itself in `entering` before it looks at the lease's word,
 *   and leaves the count when it has its claim, or has done all that it does. Ending a lease writes
 *   the word first, waits until nobody is entering, and then looks for claims: each call is
 *   refused, or over, or found to be in progress.
 */
#ifndef HS_STREAM_CONN_IMPL_H
#define HS_STREAM_CONN_IMPL_H

#include "hardsock_binding.h"

#include "fd.h"
#include "frame.h"
#include "layer.h"
#include "tls.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/list.h"
#include "../cancel/wait.h"

#include <netinet/in.h>

#define CONN_MAGIC 0x70c3c044U
/* Rounds of a fast endless transfer before signals get a chance. */
#define SLICE_ROUNDS 64

/* Unknown, being written, there. */
enum { LOCAL_UNKNOWN, LOCAL_BEGUN, LOCAL_KNOWN };
/* Who has a direction. */
enum { USER_NONE, USER_CALL, USER_VISIT };

/* Members of structures below are in an order that leaves no holes: there may be ten thousands. */
struct direction {
    atomic_uchar user;
    atomic_bool late;    /* a turn was over before what it was for */
    atomic_bool asks;    /* the kernel, or has been told and not noted it yet: see resets.c */
    uint8_t waits_first; /* of HS_DIR_IN: calls that are to wait before they try; as `drained` */
    _Atomic hs_err poison;
    _Atomic int64_t deadline_ns;
    _Atomic int64_t last_ns;
    _Atomic uint64_t bytes;
    _Atomic int64_t turn_ns;       /* the most that one turn may take, or HS_NEVER */
    _Atomic int64_t turn_began_ns; /* 0: it is not this direction's turn */
    /* For who looks (roll.h); relaxed, and only the claimer writes: */
    _Atomic int64_t waits_since_ns; /* a call waits for the peer; 0: none */
    _Atomic int64_t waited_ns;
    _Atomic uint64_t waits;
};

/* How long a call may wait for a message of which nothing has come: what a server asks for, decided
 * by the call itself, which asks the kernel last. So nothing that has arrived is lost by it.
 *
 * A call that ends by span_ns puts ~span_ns, which is negative, in its place: if another time was
 * set meanwhile, it judges again. So who takes a time back knows whether a call has ended by it. */
struct quiet {
    atomic_bool bounded;         /* somebody sets one of the next two, or has */
    atomic_bool stays;           /* op->told ends no call before first_by_ns is set */
    atomic_bool asked;           /* span_ns is a guard's, which puts back what was there */
    _Atomic int ended;           /* enum hs_quiet: what has ended a call, and ends all others */
    _Atomic int64_t span_ns;     /* from the last byte on, either way; or HS_NEVER */
    _Atomic int64_t first_by_ns; /* when a first message has to begin, and no other is waited for;
                                  * HS_NEVER: as many as come */
};

static inline int64_t
hs_quiet_span(int64_t span_ns)
{
    return span_ns < 0 ? ~span_ns : span_ns;
}

/* The slowest that a message may come: by when its next byte has to be here. */
struct pace {
    _Atomic uint64_t min_rate; /* bytes per second; 0: none */
    _Atomic int64_t grace_ns;
    int64_t since_ns; /* when the message's first byte was here, or 0 */
    int64_t until_ns; /* HS_NEVER outside of waits */
};

/* For those who look: see roll.h. */
struct hs_roll_entry {
    struct hs_list link; /* guarded by its part's lock */
    struct hs_call_site *_Atomic site;
    atomic_uchar made;    /* enum hs_made */
    atomic_uchar counted; /* COUNTED_* in roll.c */
    atomic_bool served;   /* a server's: its handler works on it when no call does */
    uint32_t reads;       /* belongs to who has claimed HS_DIR_IN */
    _Atomic uint64_t thread;
    struct hs_call_site *_Atomic holder; /* written by its pool: who has borrowed it */
    _Atomic uint64_t service;            /* whose, times 8, and enum hs_phase; 0: no server's */
    _Atomic int64_t application_ns, gil_ns;
};

/* A server has one for each quiet client: the order of the fields leaves few holes. */
struct hs_conn {
    unsigned magic;
    atomic_int refs;
    atomic_int handles;
    sa_family_t family;
    bool mptcp; /* asked for, or what it is; before others know c */
    struct hs_fd fd;
    const struct hs_layer *layer; /* changes once, with both directions claimed, as tls does */
    struct hs_tls *_Atomic tls;   /* owns; NULL: plain */
    int64_t handshake_until_ns;   /* HS_NEVER but during a handshake; belongs to it, as the next */
    int64_t handshaking_since_ns; /* of the first step */
    struct direction dirs[2];
    _Atomic hs_err broken;  /* HS_E_RESET or HS_E_DEAD_PEER, no matter who found out first */
    atomic_uint asking;     /* as direction.asks, for those who have claimed none */
    atomic_uint entering;   /* calls that look at `lease`, and have done nothing yet */
    atomic_bool out_ended;  /* by our own shutdown or close_notify */
    atomic_bool fin_sent;   /* by our own shutdown; who asks: hs_conn_may_have_ended */
    atomic_uchar fin_tries; /* shutdowns of ours under way, which may have */
    atomic_bool may_linger; /* somebody other than us may have set SO_LINGER */
    atomic_bool in_slots;
    atomic_bool has_turns;   /* somebody bounds one of them, or has */
    atomic_bool handshaking; /* between the first step of a handshake and its last */
    atomic_bool mid_message; /* a call waits for the rest of something */
    uint32_t read_size;      /* how much is asked of the kernel at once when buffering; as `in` */
    struct hs_slots *slots;  /* owns a reference, or NULL; write once, before in_slots */
    struct hs_departures *departures; /* owns a reference, or NULL; write once, as slots */
    struct hs_delays *delays;         /* owns a reference, or NULL; write once, as slots */
    _Atomic uint64_t left; /* id of the token that was cancelled because the peer left, or 0 */
    /* Borrows: the pool's word for the lease that it is under now; NULL: no pool's; write once. */
    const _Atomic uint64_t *lease;
    struct hs_wakelist wakers;
    struct hs_deframer in; /* belongs to who has claimed HS_DIR_IN, as the next two */
    struct hs_frame found; /* consumed 0: none; the frame that a call waited for */
    struct pace pace;
    struct quiet quiet;
    _Atomic size_t buffered; /* in the buffer, for those who only look */
    _Atomic int64_t half_closed_ns;
    int64_t created_ns;
    struct hs_addr *_Atomic client;      /* owns; write once: the peer is a proxy, and this its
                                          * client. Others know c by then, and may look. */
    struct hs_conn_guest *_Atomic guest; /* NULL: none, or told already */
    struct hs_spot *_Atomic spot;        /* owns: where it is parked; NULL: it never was */
    uint16_t changed;                    /* settings that the kernel made into something else */
    atomic_uchar local_state;            /* LOCAL_*: whether local is there */
    bool drained;                        /* the last try took all there was; belongs with `in` */
    struct sockaddr_in6 local;           /* of either family, from the first question on */
    struct hs_sockopts opts;             /* as asked; immutable */
    struct hs_roll_entry roll;
    struct hs_addr peer; /* the socket's; immutable; at the end, and of its storage there is only as
                          * much as it needs (hs_addr_copy) */
};

/* Keeps the lease that op names, if any, from ending: for a moment, in which nothing may wait.
 * HS_E_CLOSED: it has ended. After HS_OK call hs_lease_drop once. */
HS_NODISCARD hs_err hs_lease_hold(struct hs_conn *c, const struct hs_op *op, struct hs_error *err);
void hs_lease_drop(struct hs_conn *c, const struct hs_op *op);
/* hs_conn_shutdown_by, by who keeps c longer than its lease does. */
HS_NODISCARD hs_err hs_conn_shutdown_kept(struct hs_conn *c, const struct hs_op *op, int how,
                                          struct hs_error *err);
/* One try of TLS' end, of which it is noted what the kernel says. */
HS_NODISCARD hs_err hs_conn_ask_end(struct hs_conn *c,
                                    hs_err (*try_end)(struct hs_tls *, struct hs_error *, short *),
                                    struct hs_error *err, short *want);
/* Adds the direction to the op's claim; each claim holds the descriptor. */
HS_NODISCARD hs_err hs_call_claim(struct hs_conn *c, struct hs_op *op, enum hs_dir dir,
                                  struct hs_error *err);
void hs_call_release(struct hs_conn *c, struct hs_op *op, enum hs_dir dir);
/* For a moment, to touch the direction's data beside calls. False: a call has it, or another visit,
 * or it is closed. Calls spin while it lasts: hs_call_leave soon. */
HS_NODISCARD bool hs_call_visit(struct hs_conn *c, enum hs_dir dir);
void hs_call_leave(struct hs_conn *c, enum hs_dir dir);
/* Makes the caller USER_CALL and nothing else: for what touches the direction's data, but never the
 * descriptor. False: another call has it. Ends with a store of USER_NONE. */
bool hs_call_take(struct hs_conn *c, enum hs_dir dir);
HS_NODISCARD hs_err hs_call_begin(struct hs_conn *c, struct hs_op *op, enum hs_dir dir,
                                  struct hs_error *err);
/* A byte went in dir, or is about to go: it is its turn, and the other's is over. */
void hs_turn_moves(struct hs_conn *c, enum hs_dir dir, int64_t now);
/* By when dir's turn has to be over; HS_NEVER when nothing bounds it, or it is not its turn. */
int64_t hs_turn_until(struct hs_conn *c, enum hs_dir dir);
/* hs_op_begin for a call on c: what ended the token may be what c itself will tell. */
HS_NODISCARD hs_err hs_call_check(struct hs_conn *c, struct hs_op *op, int64_t other_deadline_ns,
                                  struct hs_error *err);
/* Passes rv on, filled into err under the name of the call. */
HS_NODISCARD hs_err hs_call_end(struct hs_conn *c, struct hs_op *op, enum hs_dir dir,
                                const char *name, hs_err rv, struct hs_error *err);
/* Until the descriptor has one of the events, or a time: HS_OK means "try again". */
HS_NODISCARD hs_err hs_call_wait(struct hs_conn *c, struct hs_op *op, enum hs_dir dir, short want,
                                 struct hs_error *err);
HS_NODISCARD hs_err hs_conn_check_poison(struct hs_conn *c, enum hs_dir dir, struct hs_error *err);
HS_NODISCARD hs_err hs_conn_check_broken(struct hs_conn *c, struct hs_error *err);
/* Whether the kernel has something of the peer's that no call has taken yet. */
bool hs_conn_has_unread(struct hs_conn *c);
/* Whether the kernel has nothing more to do with this TCP: it broke, or both sides ended. */
HS_NODISCARD bool hs_conn_tcp_is_closed(struct hs_conn *c);
HS_NODISCARD bool hs_conn_may_have_ended(const struct hs_conn *c);
/* The first code stays; whether this one is it. */
bool hs_conn_set_once(_Atomic hs_err *where, hs_err code);

extern const char hs_ended_here[];

/* Who is at the other end: the client, when there is a proxy between that has named it. */
const struct hs_addr *hs_conn_peer(struct hs_conn *c);
/* Half a TLS record is out: only its own rest may follow. */
bool hs_conn_half_sent(struct hs_conn *c);
/* After a try to write. */
void hs_conn_wake_reader(struct hs_conn *c);
/* One direction has ended: the other may have a time of its own. */
void hs_half_closed(struct hs_conn *c, enum hs_dir other);
/* Before the descriptor goes: errors that come after still tell both addresses. */
void hs_conn_remember_local(struct hs_conn *c);
/* The own address without a question to the kernel, if somebody has asked; closed ones, too. */
bool hs_conn_known_local(struct hs_conn *c, struct hs_addr *ret_addr);

/* ---- resets.c ---- */
/* hs_conn_set_once for c->broken, which is counted. */
void hs_conn_set_broken(struct hs_conn *c, hs_err code);
/* Around each try of the layer's in a claimed or visited direction; passes rv on. */
static inline void
hs_ask_begin(struct hs_conn *c, enum hs_dir dir)
{
    atomic_store_explicit(&c->dirs[dir].asks, true, memory_order_release);
    if (dir == HS_DIR_IN)
        c->drained = false;
}
hs_err hs_ask_end(struct hs_conn *c, enum hs_dir dir, hs_err rv);
/* The layer's, with that around it. */
HS_NODISCARD hs_err hs_ask_recv(struct hs_conn *c, uint8_t *buf, size_t len, int flags,
                                struct hs_error *err, short *want, size_t *ret_n);
/* For who has found a socket that is over, and not been told why: c->broken, when all who may have
 * been told have noted it. The caller asks nothing at the time. */
HS_NODISCARD hs_err hs_conn_why_broken(struct hs_conn *c);
/* After HS_E_RESET: EPIPE only says that it is over. Fills err anew when it was not a reset. */
HS_NODISCARD hs_err hs_conn_judge_reset(struct hs_conn *c, struct hs_error *err);
/* Around what else may be told by the kernel, by who has claimed no direction. sys: the errno that
 * it gave, or 0. */
void hs_ask_aside_begin(struct hs_conn *c);
void hs_ask_aside_end(struct hs_conn *c, int sys);
/* getsockopt(2) for SO_ERROR, which takes away the error that calls would be told: it is noted. */
int hs_ask_error(struct hs_conn *c, void *value, socklen_t *len);
/* Before the descriptor goes. unread_above: the peer had sent what nobody has read, above the
 * kernel. A connection that never moved a byte is not asked for unread ones. */
void hs_resets_count_close(struct hs_conn *c, bool abortive, bool unread_above);

/* ---- conn_input.c: with HS_DIR_IN claimed ---- */
/* n bytes went in dir; returns the time. */
int64_t hs_conn_account(struct hs_conn *c, enum hs_dir dir, size_t n);
/* What looks like a clean end: HS_OK, or what it was in truth. */
HS_NODISCARD hs_err hs_input_check_end(struct hs_conn *c, struct hs_error *err);
/* What a try that has not to wait gave, in truth: rv HS_OK and n 0 is an end. */
HS_NODISCARD hs_err hs_input_judge(struct hs_conn *c, hs_err rv, size_t n, struct hs_error *err);
/* len > 0 bytes from the layer, past the buffer; waits. *ret_n 0: a clean end. */
HS_NODISCARD hs_err hs_input_read(struct hs_conn *c, struct hs_op *op, uint8_t *buf, size_t len,
                                  int flags, struct hs_error *err, size_t *ret_n);

/* The same without a wait: HS_WANT. */
HS_NODISCARD hs_err hs_input_try(struct hs_conn *c, uint8_t *buf, size_t len, struct hs_error *err,
                                 short *want, size_t *ret_n);

/* The buffer has changed: lets those who only look see it. */
void hs_input_changed(struct hs_conn *c);
/* Bytes of the message that is waited for, or of the one that is being skipped. */
uint64_t hs_input_arrived(struct hs_conn *c);
/* Adds what comes next to the buffer; waits. *ret_n 0: the peer's clean end. need is how many bytes
 * are missing for what is wanted. */
HS_NODISCARD hs_err hs_input_more(struct hs_conn *c, struct hs_op *op, size_t need,
                                  struct hs_error *err, size_t *ret_n);
/* Adds at least a byte to the buffer; waits. need is how many are missing for what is wanted.
 * HS_E_END or HS_E_TRUNCATED at the peer's end, depending on whether there is something. */
HS_NODISCARD hs_err hs_input_fill(struct hs_conn *c, struct hs_op *op, size_t need,
                                  struct hs_error *err);
/* Gets a frame that is being skipped out of the way of who knows no frames. */
HS_NODISCARD hs_err hs_input_settle(struct hs_conn *c, struct hs_op *op, struct hs_error *err);
/* Sets the time by when the next byte of a message has to be here, of which `have` bytes are. */
void hs_pace_start(struct hs_conn *c, uint64_t have);
/* After a message, or the end of a wait. Renames a deadline that was the pace's. */
void hs_pace_end(struct hs_conn *c, hs_err rv, struct hs_error *err);

/* ---- conn_tls.c ---- */
/* An unfinished hs_conn_start_tls ends here: nobody may use what is left. */
void hs_conn_tls_abandoned(struct hs_conn *c);

/* ---- conn_end.c ---- */
/* Tells the guest, if there is one that was not told. */
void hs_conn_tell_guest(struct hs_conn *c);
/* ORDERLY: a TLS peer is told that it has all, unless a message is half out. LOST: it is not. */
enum hs_end { HS_END_ORDERLY, HS_END_LOST, HS_END_ABORT };
void hs_conn_end(struct hs_conn *c, enum hs_end how);

#endif
