/* turns.h: whose turn it is to get a thread for a lookup; counting only.
 *
 * Knows names and times; does not know threads, callers or locks. Every function is called under
 * one lock of the caller's and takes constant time, except where a comment says otherwise.
 */
#ifndef HS_CONNECT_TURNS_H
#define HS_CONNECT_TURNS_H

#include "../base/list.h"

#include <stdint.h>

/* Lookups that are younger than HS_TURN_FRESH_NS and still wanted: what a burst may ask at once. An
 * older one waits for a name server that does not answer, and no longer holds up the others. */
#define HS_TURNS_FRESH 64
#define HS_TURN_FRESH_NS (100 * INT64_C(1000000))
/* Lookups with a thread, of one zone: what one dead name server may hold. */
#define HS_TURNS_PER_ZONE 64
/* The same of all zones: about 18 KiB and one descriptor each, 10 to 30 s until libc gives up. */
#define HS_TURNS_TOTAL 4096
#define HS_TURNS_BUCKETS 256

enum hs_turn_state { HS_TURN_NONE, HS_TURN_QUEUED, HS_TURN_RUNNING };

struct hs_zone {
    struct hs_list link;    /* in a bucket */
    struct hs_list ready;   /* in turns.ready: something is queued and may run */
    struct hs_list queue;   /* hs_turn.link of what is QUEUED, oldest first */
    struct hs_list running; /* hs_turn.link of what is RUNNING, oldest first */
    long n_running, refs;
    char name[256];
};

struct hs_turn {
    struct hs_list link, fresh;
    struct hs_zone *zone; /* owns: a reference */
    enum hs_turn_state state;
    int64_t started_ns;
};

struct hs_turns {
    struct hs_list buckets[HS_TURNS_BUCKETS];
    struct hs_list ready; /* zones, the next one first */
    struct hs_list fresh; /* turns, oldest first */
    long n_fresh, n_running, n_queued;
    long total;          /* HS_TURNS_TOTAL, or less if the caller says so */
    int64_t youngest_ns; /* when the last one was started */
};

void hs_turns_init(struct hs_turns *t);
/* What belongs together: the name without its first label, or all of it when less than two labels
 * would be left. */
const char *hs_zone_name(const char *host);
/* The zone of a name, or NULL. Walks one bucket. */
struct hs_zone *hs_turns_zone(struct hs_turns *t, const char *host);
/* Queues turn. made: an allocated zone, used and set to NULL if the name's is not there yet. */
void hs_turns_enter(struct hs_turns *t, struct hs_turn *turn, const char *host,
                    struct hs_zone **made);
/* The next that may run, now RUNNING, or NULL. */
struct hs_turn *hs_turns_next(struct hs_turns *t, int64_t now);
/* The next in order even if it may not run yet, or NULL if nothing that is queued has a turn. */
struct hs_turn *hs_turns_head(struct hs_turns *t);
/* When the head may run although nothing ends; INT64_MAX if only an end helps it. */
int64_t hs_turns_head_at(const struct hs_turns *t);
/* Nobody wants a running one any more: it stops counting as fresh. */
void hs_turns_forsake(struct hs_turns *t, struct hs_turn *turn);
/* Takes it out of wherever it is; frees its zone with the last one. */
void hs_turns_leave(struct hs_turns *t, struct hs_turn *turn);

#endif
