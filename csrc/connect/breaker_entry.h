/* breaker_entry.h: the state machine of one key of a breaker.
 *
 * Pure: no lock, no clock, no memory. The breaker owns entries, finds them, and holds its lock
 * around every call here.
 */
#ifndef HS_CONNECT_BREAKER_ENTRY_H
#define HS_CONNECT_BREAKER_ENTRY_H

#include "../base/list.h"
#include "breaker_key.h"

#include "hardsock.h"

#define BREAKER_BUCKETS 10

enum permit_kind {
    PERMIT_NONE,
    PERMIT_NORMAL, /* while closed, or a probe */
    PERMIT_FORCED, /* for want of another address: a success is good news, a failure none */
    PERMIT_SHADOW, /* what only a dry run lets through: its end is what would not have been */
};

/* What all entries of a breaker share. */
struct machine {
    struct hs_breaker_options o;
    uint64_t generation; /* of the last change of any state; never used twice */
    uint64_t probe;      /* of the last probe */
    uint64_t random;
    struct hs_breaker_stats stats;
};

struct bucket {
    int64_t number; /* time / length */
    unsigned calls, failures;
};

struct probe {
    uint64_t id; /* 0: free */
    int64_t expires_ns;
};

struct entry {
    struct hs_list lru;
    struct entry *next; /* of its hash bucket */
    struct hs_breaker_status s;
    uint64_t generation; /* 0 until it changes for the first time */
    unsigned good_probes;
    int64_t closed_ns; /* 0: not since it was opened */
    int64_t span_ns;   /* for how long it was open the last time */
    struct bucket window[BREAKER_BUCKETS];
    struct probe probes[]; /* o.probes */
};

/* What a class weighs for a key: 0, a number of failures, or HS_WEIGHT_OPENS. */
#define HS_WEIGHT_OPENS UINT32_MAX
unsigned hs_fail_weight(const struct hs_breaker_key *key, enum hs_fail fail);

/* What time alone changes: open becomes half open. Before every look at e->s. */
void hs_entry_advance(struct entry *e, struct machine *m, int64_t now_ns);
enum hs_breaker_state hs_entry_permit(struct entry *e, struct machine *m, int64_t now_ns,
                                      struct hs_permit *ret_permit);
/* Let through although it was refused. */
void hs_entry_force(struct entry *e, struct machine *m, int64_t now_ns,
                    struct hs_permit *ret_permit);
/* fail is not HS_FAIL_DEADLINE. */
void hs_entry_record(struct entry *e, struct machine *m, const struct hs_permit *permit,
                     enum hs_fail fail, int64_t now_ns);
/* Sums the window into e->s. */
void hs_entry_sum(struct entry *e, const struct machine *m, int64_t now_ns);
/* Of a client's handshake. */
enum hs_fail hs_fail_of_tls(enum hs_tls_failure failure);

#endif
