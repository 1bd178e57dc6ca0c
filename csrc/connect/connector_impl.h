/* connector_impl.h: what the files of a connector share.
 *
 * lookup_order.c asks for the addresses and says which comes next; race.c has the attempts, from
 * the breaker's permit to the end of the TLS handshake; connector.c drives both and tells the
 * caller. Neither of the first two knows the other, nor connector.c.
 */
#ifndef HS_CONNECT_CONNECTOR_IMPL_H
#define HS_CONNECT_CONNECTOR_IMPL_H

#include "attempt.h"
#include "breaker.h"
#include "breaker_entry.h"
#include "resolve.h"

#define CONNECTOR_MAGIC 0x70c3c01aU
#define FREED 0x73
#define MAX_ATTEMPTS (2 * HS_MAX_ADDRS)
#define LOOKUP_SLOT UINT32_MAX

enum { V6 = 0, V4 = 1 };

struct hs_connector {
    unsigned magic;
    unsigned generation;
    int64_t began_ns;          /* of hs_connector_run */
    struct hs_call_site *site; /* or NULL; for those who look */
    struct hs_endpoint ep;
    struct hs_connect_options opts;
    bool started, failed;
    struct hs_dial_place *place;    /* owns; NULL: no limits, or not yet, or no more */
    bool committed;                 /* to the one attempt that is in its handshake */
    char server_name[256];          /* what opts.server_name points to */
    struct hs_error tls_error;      /* of the first handshake that failed */
    struct hs_own_fd epoll, lookup; /* own; none for literals */
    struct hs_ticket tickets[2];
    struct hs_answer answers[2];
    struct hs_addr *found[2]; /* own; HS_MAX_ADDRS each, NULL for literals */
    size_t next[2];           /* the next of found to be tried */
    int first_family, last_family;
    int64_t wait_v6_until; /* RFC 8305 resolution delay; 0: not running */
    int64_t next_attempt_ns, retry_ns;
    struct attempt *attempts; /* own; a growing log */
    struct hs_attempt *log;   /* own; what hs_connector_attempts shows */
    struct hs_addr *plan;     /* own; what hs_connector_plan shows */
    size_t n_attempts, capacity, in_flight;
    size_t n_skipped; /* of n_attempts: refused by the breaker, and nothing has changed that */
    size_t n_forced;  /* of n_attempts: refused at first */
};

/* ---- lookup_order.c ------------------------------------------------------------------------ */

/* Lookups of both families begin, or the one address is taken as it is. */
HS_NODISCARD hs_err hs_order_begin(struct hs_connector *cn, struct hs_error *err);
/* Takes the answers that have come. Never sleeps. */
void hs_order_collect(struct hs_connector *cn);
/* All lookups have ended. */
bool hs_order_is_complete(const struct hs_connector *cn);
/* An address that was not tried is known. */
bool hs_order_has_more(const struct hs_connector *cn);
/* The next one, while there are more. borrows: until the connector goes. */
const struct hs_addr *hs_order_take(struct hs_connector *cn);
/* All that are known, in their order, into cn->plan; how many. */
size_t hs_order_plan(struct hs_connector *cn);
/* When a lookup may get its turn although nothing ends. */
int64_t hs_order_until(const struct hs_connector *cn);
/* Adds to the message of a deadline that passed before a lookup had even begun. */
void hs_order_tell_starved(const struct hs_connector *cn, struct hs_error *err);

/* ---- race.c -------------------------------------------------------------------------------- */

/* These return HS_OK with the winner, or HS_WANT: the race goes on. */
/* Tries the address, if the breaker lets it. */
hs_err hs_race_start(struct hs_connector *cn, const struct hs_addr *addr,
                     struct attempt **ret_winner);
/* When nothing else is left: one that the breaker refused, if it agrees now; false: none. */
bool hs_race_start_skipped(struct hs_connector *cn, hs_err *ret_rv, struct attempt **ret_winner);
/* A unix socket whose backlog was full. */
hs_err hs_race_retry(struct hs_connector *cn, struct attempt **ret_winner);
/* What has happened to the running attempts since the last look. Never sleeps. */
hs_err hs_race_collect(struct hs_connector *cn, struct hs_error *err, struct attempt **ret_winner);
/* A handshake has a time of its own, which no descriptor tells: when, and what is due. */
int64_t hs_race_until(const struct hs_connector *cn);
hs_err hs_race_collect_expired(struct hs_connector *cn, struct attempt **ret_winner);
bool hs_race_is_handshaking(const struct hs_connector *cn);
/* Ends all attempts that run. cancelled: not by a fault of theirs. */
void hs_race_stop(struct hs_connector *cn, bool cancelled);
/* The race is over: the winner's connection; the others are called off. */
HS_NODISCARD hs_err hs_race_take(struct hs_connector *cn, struct attempt *winner,
                                 struct hs_error *err, struct hs_conn **ret_conn);

#endif
