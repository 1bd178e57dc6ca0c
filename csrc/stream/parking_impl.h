/* parking_impl.h: the inside of a parking and its spots, for parking.c and spot.c.
 *
 * The invariants stand in parking.c.
 */
#ifndef HS_STREAM_PARKING_IMPL_H
#define HS_STREAM_PARKING_IMPL_H

#include "conn_impl.h"
#include "../cancel/reactor.h"

#define PARKING_MAGIC 0x70c3ba4cU

struct hs_parking {
    unsigned magic;
    atomic_int refs;
    struct hs_reactor *reactor; /* owns */
    atomic_bool draining;
};

struct lingering {
    struct hs_op op;
    struct hs_close_report report;
};

struct hs_spot {
    struct hs_parked parked;
    struct hs_parking *parking;  /* owns: a reference; write once, as the next */
    struct hs_conn *conn;        /* borrows: the spot is its */
    struct lingering *lingering; /* owns; NULL: it waits for a message */
    void *arg;
    int64_t until_ns;
    uint64_t read; /* bytes that were read out of the buffer, when it was given; as the next */
    size_t buffered;
    bool given, more;
    bool rest;         /* it was given for what the last message had left, not for what has come */
    bool known;        /* it is a message: no other look is needed */
    _Atomic int guard; /* enum: whether one wants it gone, if there is still nothing */
    bool stays;        /* in a drain, though quiet: it is new, or in the middle of a message */
};

/* Of spot.guard. From WANTS_IT it goes to one of the others once, by compare-and-swap: taken back
 * by the guard, or decided by the one who was given it. */
enum { NO_GUARD, WANTS_IT, HAS_IT };

#endif
