/* connector.c: from a name to one connection: lookups, order, race (RFC 8305).
 *
 * The connector only tries; hs_connector_run is a loop of "do what can be done, then wait for one
 * descriptor or a time". A literal or unix address waits on its own socket. A name brings lookups
 * and several attempts: then one epoll descriptor stands for all of them, so that ppoll and every
 * event loop drive it alike. Timers need no descriptor: the wait takes a time.
 *
 * Order (RFC 8305 sections 4 and 5): families alternate, IPv6 first if there is a route to its
 * first address; within a family glibc's order (RFC 6724) stands. If A comes in before AAAA, AAAA
 * gets 50 ms. A new attempt starts when 250 ms have passed, at once when one fails or none is
 * running. A seventh calls off the oldest. The first to connect wins, the others are closed at
 * once. With TLS the winner then does its handshake, alone, and its failure is the connect's; or,
 * with commit_at_tls, the race is about finished handshakes.
 *
 * Owned by one caller at a time; takes no lock. fds: every attempt's until it ends, epoll_fd,
 * lookup_fd. After a fork the child's copy may only be freed.
 */
#include "../base/addr.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/spans.h"
#include "../base/recorder.h"
#include "../base/time.h"
#include "../cancel/wait.h"
#include "../stream/conn.h"
#include "attempt.h"
#include "breaker.h"
#include "breaker_entry.h"
#include "connector.h"
#include "resolve.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define CONNECTOR_MAGIC 0x70c3c01aU
#define FREED 0x73
#define MAX_ATTEMPTS (2 * HS_MAX_ADDRS)
#define LOOKUP_SLOT UINT32_MAX
/* How often a unix socket with a full backlog is tried: the kernel has no event for it. */
#define RETRY_NS (10 * HS_NS_PER_MS)

enum { V6 = 0, V4 = 1 };
static const int families[2] = {[V6] = AF_INET6, [V4] = AF_INET};

struct hs_connector {
    unsigned magic;
    unsigned generation;
    int64_t began_ns;          /* of hs_connector_run */
    struct hs_call_site *site; /* or NULL; for those who look */
    struct hs_endpoint ep;
    struct hs_connect_options opts;
    bool started, failed;
    struct hs_dial_place *place; /* owns; NULL: no limits, or not yet, or no more */
    bool committed;              /* to the one attempt that is in its handshake */
    char server_name[256];       /* what opts.server_name points to */
    struct hs_error tls_error;   /* of the first handshake that failed */
    int epoll_fd, lookup_fd;     /* own; -1 for literals */
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

static atomic_long live;

long
hs_connector_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

void
hs_connect_options_init(struct hs_connect_options *o)
{
    memset(o, 0, sizeof(*o));
    hs_sockopts_init(&o->sockopts);
    o->family = AF_UNSPEC;
    o->attempt_delay_ns = 250 * HS_NS_PER_MS;
    o->resolution_delay_ns = 50 * HS_NS_PER_MS;
    o->max_in_flight = 6;
}

static hs_err
check_target(const struct hs_endpoint *ep, const struct hs_connect_options *opts,
             struct hs_error *err)
{
    if (ep->family == AF_UNSPEC && ep->host[0] == '\0')
        return hs_err_setx(err, HS_E_INVALID, "connect", "host must not be empty");
    if (ep->family != AF_UNIX && ep->port == 0)
        return hs_err_setx(err, HS_E_INVALID, "connect", "port must be in 1..65535, got 0");
    if (opts->tls != NULL && hs_tls_config_role(opts->tls) != HS_TLS_CLIENT)
        return hs_err_setx(err, HS_E_INVALID, "connect", "tls must be a client's configuration");
    if (opts->server_name != NULL && strlen(opts->server_name) > 255)
        return hs_err_setx(err, HS_E_INVALID, "connect",
                           "server_name must have 255 characters at most");
    if (opts->family != AF_UNSPEC && ep->family != AF_UNSPEC && ep->family != AF_UNIX &&
        opts->family != ep->family)
        return hs_err_setx(err, HS_E_INVALID, "connect",
                           "the address is not of the family that was asked for");
    return HS_OK;
}

/* Who is expected: the host that was asked for, unless the caller says otherwise. */
static void
prepare_tls(struct hs_connector *cn)
{
    const char *name = cn->opts.server_name != NULL ? cn->opts.server_name
                       : cn->ep.family != AF_UNIX   ? cn->ep.host
                                                    : "";

    if (cn->opts.tls == NULL)
        return;
    cn->opts.tls = hs_tls_config_ref(cn->opts.tls);
    (void)snprintf(cn->server_name, sizeof(cn->server_name), "%s", name);
    cn->opts.server_name = name[0] != '\0' ? cn->server_name : NULL;
}

static hs_err
connector_open_descriptors(struct hs_connector *cn, struct hs_error *err)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u32 = LOOKUP_SLOT};

    cn->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    cn->lookup_fd = cn->epoll_fd < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (cn->lookup_fd < 0 || epoll_ctl(cn->epoll_fd, EPOLL_CTL_ADD, cn->lookup_fd, &ev) != 0)
        return hs_err_set(err, HS_E_SYSTEM, errno, "connect", "descriptors for a name lookup");
    return HS_OK;
}

static hs_err
connector_allocate(struct hs_connector *cn, struct hs_error *err)
{
    bool named = cn->ep.family == AF_UNSPEC;

    cn->capacity = named ? MAX_ATTEMPTS : 1;
    cn->attempts = calloc(cn->capacity, sizeof(*cn->attempts));
    cn->log = calloc(cn->capacity, sizeof(*cn->log));
    cn->plan = calloc(cn->capacity, sizeof(*cn->plan));
    for (int i = 0; named && i < 2; i++)
        cn->found[i] = calloc(HS_MAX_ADDRS, sizeof(struct hs_addr));
    if (cn->attempts == NULL || cn->log == NULL || cn->plan == NULL ||
        (named && (cn->found[V6] == NULL || cn->found[V4] == NULL)))
        return hs_err_setx(err, HS_E_NOMEM, "connect", "no memory for a connection attempt");
    return named ? connector_open_descriptors(cn, err) : HS_OK;
}

hs_err
hs_connector_new(const struct hs_endpoint *ep, const struct hs_connect_options *opts,
                 struct hs_error *err, struct hs_connector **ret_cn)
{
    struct hs_connector *cn;
    hs_err rv;

    if ((rv = check_target(ep, opts, err)) != HS_OK)
        return rv;
    if ((cn = calloc(1, sizeof(*cn))) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "connect", "no memory for a connection attempt");
    cn->magic = CONNECTOR_MAGIC;
    cn->generation = hs_fork_generation();
    cn->ep = *ep;
    cn->opts = *opts;
    prepare_tls(cn);
    if (opts->breaker != NULL)
        (void)hs_breaker_ref(opts->breaker);
    if (opts->limits != NULL)
        (void)hs_dial_limits_ref(opts->limits);
    cn->epoll_fd = cn->lookup_fd = -1;
    cn->last_family = -1;
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    if ((rv = connector_allocate(cn, err)) != HS_OK) {
        hs_connector_free(cn);
        return rv;
    }
    *ret_cn = cn;
    return HS_OK;
}

/* ---- Breaker -------------------------------------------------------------------------------- */

/* Whether the address may be tried; if not, the log says so. */
static bool
ask_breaker(struct hs_connector *cn, struct attempt *a, const struct hs_addr *addr)
{
    struct hs_breaker_key key;
    int64_t now = hs_now();

    if (cn->opts.breaker == NULL)
        return true;
    hs_breaker_key_addr(addr, &key);
    if (hs_breaker_permit(cn->opts.breaker, &key, now, &a->permit) != HS_BREAKER_OPEN)
        return true;
    a->log = (struct hs_attempt){
        .addr = *addr, .phase = HS_ATTEMPT_SKIPPED, .started_ns = now, .ended_ns = now};
    cn->n_skipped++;
    return false;
}

static void
connector_tell_breaker(struct hs_connector *cn, struct attempt *a, enum hs_fail how)
{
    struct hs_breaker_key key;

    if (cn->opts.breaker == NULL)
        return;
    hs_breaker_key_addr(&a->log.addr, &key);
    hs_breaker_record(cn->opts.breaker, &key, &a->permit, how, hs_now());
}

/* Of an attempt that has ended without a connection, and not because somebody cancelled. */
static enum hs_fail
connector_failure_of(const struct attempt *a)
{
    if (a->log.tls != HS_TLS_NONE)
        return hs_fail_of_tls(a->log.tls);
    if (a->log.phase != HS_ATTEMPT_CONNECT && a->log.phase != HS_ATTEMPT_TLS)
        return HS_FAIL_NOT_COUNTED; /* No socket, no such option, no local address: our fault. */
    return a->log.sys != 0 ? hs_fail_of_errno(a->log.sys) : HS_FAIL_DEADLINE;
}

/* When nothing else is left: the skipped address that is tried all the same, as a fresh slot. */
static bool
take_skipped(struct hs_connector *cn, size_t *ret_slot, struct hs_addr *ret_addr)
{
    const struct hs_addr *refused[MAX_ATTEMPTS];
    size_t slots[MAX_ATTEMPTS], n = 0, i;
    struct hs_permit permit;

    for (size_t slot = 0; slot < cn->n_attempts; slot++)
        if (cn->attempts[slot].log.phase == HS_ATTEMPT_SKIPPED) {
            refused[n] = &cn->attempts[slot].log.addr;
            slots[n++] = slot;
        }
    if (n == 0 || !hs_breaker_permit_one(cn->opts.breaker, refused, n, cn->n_attempts, cn->n_forced,
                                         hs_now(), &i, &permit))
        return false;
    cn->n_skipped--;
    cn->n_forced++;
    *ret_slot = slots[i];
    *ret_addr = *refused[i];
    cn->attempts[slots[i]] = (struct attempt){.fd = -1, .epoll_fd = -1, .permit = permit};
    return true;
}

/* ---- Ending --------------------------------------------------------------------------------- */

static void
connector_call_off(struct hs_connector *cn, struct attempt *a, bool cancelled)
{
    hs_attempt_stop(a);
    connector_tell_breaker(cn, a, cancelled ? HS_FAIL_NOT_COUNTED : connector_failure_of(a));
}

static void
stop_all(struct hs_connector *cn, bool cancelled)
{
    for (size_t i = 0; i < cn->n_attempts; i++)
        if (cn->attempts[i].log.ended_ns == 0)
            connector_call_off(cn, &cn->attempts[i], cancelled);
    cn->in_flight = 0;
}

void
hs_connector_free(struct hs_connector *cn)
{
    if (cn == NULL)
        return;
    HS_CHECK(cn, CONNECTOR_MAGIC);
    for (size_t i = 0; i < cn->n_attempts && cn->generation != hs_fork_generation(); i++)
        cn->attempts[i].epoll_fd = -1; /* The set is the parent's, who is still waiting on it. */
    stop_all(cn, true);
    for (int i = 0; i < 2; i++) {
        if (cn->generation == hs_fork_generation())
            hs_lookup_leave(&cn->tickets[i]);
        free(cn->found[i]);
    }
    if (cn->epoll_fd >= 0)
        (void)close(cn->epoll_fd);
    if (cn->lookup_fd >= 0)
        (void)close(cn->lookup_fd);
    hs_tls_config_unref(cn->opts.tls);
    free(cn->attempts);
    free(cn->log);
    free(cn->plan);
    hs_breaker_unref(cn->opts.breaker);
    hs_dial_place_leave(cn->place);
    hs_dial_limits_unref(cn->opts.limits);
    memset(cn, FREED, sizeof(*cn));
    free(cn);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

/* ---- Names --------------------------------------------------------------------------------- */

static hs_err
start_lookups(struct hs_connector *cn, struct hs_error *err)
{
    for (int i = 0; i < 2; i++) {
        hs_err rv;

        cn->answers[i] = (struct hs_answer){.family = families[i], .addrs = cn->found[i]};
        if (cn->ep.family != AF_UNSPEC ||
            (cn->opts.family != AF_UNSPEC && cn->opts.family != families[i])) {
            cn->answers[i].finished = true;
            continue;
        }
        rv = hs_lookup_enter(cn->ep.host, families[i], cn->lookup_fd, err, &cn->tickets[i]);
        if (rv != HS_OK)
            return rv;
    }
    return HS_OK;
}

/* RFC 6724 rule 1 without a packet: connecting a datagram socket only looks for a route. */
static bool
has_route(const struct hs_addr *addr)
{
    int fd = socket(addr->sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool found;

    if (fd < 0)
        return false;
    found = connect(fd, &addr->sa, addr->len) == 0;
    (void)close(fd);
    return found;
}

/* /etc/hosts may name an address twice, and glibc answers 127.0.0.1 for ::1 when asked for IPv4. */
static size_t
drop_doubles(struct hs_addr *addrs, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        size_t j = 0;

        while (j < kept && !hs_addr_equal(&addrs[i], &addrs[j]))
            j++;
        if (j == kept)
            addrs[kept++] = addrs[i];
    }
    return kept;
}

static void
collect_answers(struct hs_connector *cn)
{
    for (int i = 0; i < 2; i++) {
        if (cn->answers[i].finished ||
            !hs_lookup_answer(&cn->tickets[i], cn->ep.port, &cn->answers[i], cn->found[i]))
            continue;
        cn->answers[i].addrs = cn->found[i];
        cn->answers[i].n = drop_doubles(cn->found[i], cn->answers[i].n);
        hs_lookup_leave(&cn->tickets[i]);
        if (i == V6 && cn->answers[i].n > 0 && cn->last_family < 0)
            cn->first_family = has_route(&cn->found[V6][0]) ? V6 : V4;
    }
    if (cn->answers[V4].finished && cn->answers[V4].n > 0 && !cn->answers[V6].finished &&
        cn->wait_v6_until == 0)
        cn->wait_v6_until = hs_deadline_after(cn->opts.resolution_delay_ns);
}

static bool
all_answered(const struct hs_connector *cn)
{
    return cn->answers[V6].finished && cn->answers[V4].finished;
}

/* ---- Order --------------------------------------------------------------------------------- */

/* Which family comes next, or -1 when nothing is left of what is known by now. */
static int
next_family(const struct hs_connector *cn, const size_t next[2], int last)
{
    int wish = last < 0 ? cn->first_family : 1 - last;

    if (next[wish] < cn->answers[wish].n)
        return wish;
    return next[1 - wish] < cn->answers[1 - wish].n ? 1 - wish : -1;
}

static bool
literal_left(const struct hs_connector *cn)
{
    return cn->ep.family != AF_UNSPEC && cn->n_attempts == 0;
}

static bool
addresses_left(const struct hs_connector *cn)
{
    if (cn->committed)
        return false;
    return literal_left(cn) || next_family(cn, cn->next, cn->last_family) >= 0;
}

static const struct hs_addr *
take_next(struct hs_connector *cn)
{
    int family;

    if (cn->ep.family != AF_UNSPEC)
        return &cn->ep.addr;
    family = next_family(cn, cn->next, cn->last_family);
    cn->last_family = family;
    return &cn->found[family][cn->next[family]++];
}

/* ---- Race ---------------------------------------------------------------------------------- */

static void
call_off_oldest(struct hs_connector *cn)
{
    for (size_t i = 0; i < cn->n_attempts; i++)
        if (cn->attempts[i].log.ended_ns == 0) {
            connector_call_off(cn, &cn->attempts[i], false);
            cn->in_flight--;
            return;
        }
}

static hs_err
connector_watch(struct hs_connector *cn, size_t slot)
{
    struct attempt *a = &cn->attempts[slot];
    bool shaking = a->conn != NULL;
    struct epoll_event ev = {
        .events = shaking && a->op.want_events == POLLIN ? EPOLLIN : EPOLLOUT,
        .data.u32 = (uint32_t)slot,
    };
    int sys;

    if (cn->epoll_fd < 0 || a->fd < 0 || (a->epoll_fd >= 0 && !shaking))
        return HS_OK;
    if (epoll_ctl(cn->epoll_fd, a->epoll_fd >= 0 ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, a->fd, &ev) ==
        0) {
        a->epoll_fd = cn->epoll_fd;
        return HS_OK;
    }
    sys = errno;
    hs_attempt_stop(a);
    a->log.sys = sys;
    return HS_E_SYSTEM;
}

static void
stop_others(struct hs_connector *cn, const struct attempt *winner)
{
    for (size_t i = 0; i < cn->n_attempts; i++)
        if (&cn->attempts[i] != winner && cn->attempts[i].log.ended_ns == 0) {
            connector_call_off(cn, &cn->attempts[i], false);
            cn->in_flight--;
        }
}

/* rv of an attempt so far: one that is connected goes on with TLS. */
static hs_err
connector_secure(struct hs_connector *cn, struct attempt *a, hs_err rv)
{
    struct hs_error err = {0};

    if (rv != HS_OK || cn->opts.tls == NULL)
        return rv;
    if (!cn->opts.commit_at_tls && !cn->committed) {
        cn->committed = true;
        stop_others(cn, a);
    }
    rv = hs_attempt_handshake(a, &cn->opts, &err);
    if (rv < 0 && cn->tls_error.code == HS_OK)
        cn->tls_error = err;
    return rv;
}

/* rv of an attempt: HS_OK ends the race, a failure brings the next one forward. */
static hs_err
connector_judge(struct hs_connector *cn, struct attempt *a, hs_err rv, struct attempt **ret_winner)
{
    if (rv == HS_OK)
        *ret_winner = a;
    if (rv == HS_OK || rv == HS_WANT)
        return rv;
    connector_tell_breaker(cn, a, connector_failure_of(a));
    cn->in_flight--;
    cn->next_attempt_ns = 0;
    return HS_WANT;
}

static hs_err
start_at(struct hs_connector *cn, size_t slot, const struct hs_addr *addr,
         struct attempt **ret_winner)
{
    struct attempt *a = &cn->attempts[slot];
    int64_t now = hs_now();
    hs_err rv;

    if (cn->in_flight >= (size_t)cn->opts.max_in_flight)
        call_off_oldest(cn);
    cn->in_flight++;
    cn->next_attempt_ns = hs_deadline_after(cn->opts.attempt_delay_ns);
    rv = connector_secure(cn, a, hs_attempt_start(a, addr, &cn->opts));
    if (rv == HS_WANT && a->fd < 0)
        cn->retry_ns = now + RETRY_NS;
    else if (rv == HS_WANT && connector_watch(cn, slot) != HS_OK)
        rv = HS_E_SYSTEM;
    return connector_judge(cn, a, rv, ret_winner);
}

static hs_err
start_next(struct hs_connector *cn, struct attempt **ret_winner)
{
    const struct hs_addr *addr = take_next(cn);
    size_t slot = cn->n_attempts++;
    struct attempt *a = &cn->attempts[slot];

    a->fd = a->epoll_fd = -1;
    return ask_breaker(cn, a, addr) ? start_at(cn, slot, addr, ret_winner) : HS_WANT;
}

/* A unix socket whose backlog was full. */
static hs_err
retry_unix(struct hs_connector *cn, struct attempt **ret_winner)
{
    struct attempt *a = &cn->attempts[0];
    hs_err rv = connector_secure(cn, a, hs_attempt_start(a, &cn->ep.addr, &cn->opts));

    cn->retry_ns = rv == HS_WANT && a->fd < 0 ? hs_now() + RETRY_NS : 0;
    return connector_judge(cn, a, rv, ret_winner);
}

static hs_err
connector_settle(struct hs_connector *cn, size_t slot, struct attempt **ret_winner)
{
    struct attempt *a = &cn->attempts[slot];
    hs_err rv;

    if (a->log.ended_ns != 0 || a->fd < 0)
        return HS_WANT;
    rv = connector_secure(cn, a, a->conn != NULL ? HS_OK : hs_attempt_settle(a, &cn->opts));
    if (rv == HS_WANT && connector_watch(cn, slot) != HS_OK) /* It may have a new socket. */
        rv = HS_E_SYSTEM;
    return connector_judge(cn, a, rv, ret_winner);
}

/* What has happened to the running attempts since the last look. Never sleeps. */
static hs_err
collect_attempts(struct hs_connector *cn, struct attempt **ret_winner)
{
    struct epoll_event events[MAX_ATTEMPTS + 1];
    hs_err rv = HS_WANT;
    uint64_t count;
    int n;

    if (cn->epoll_fd < 0)
        return cn->in_flight > 0 ? connector_settle(cn, 0, ret_winner) : HS_WANT;
    n = epoll_wait(cn->epoll_fd, events, MAX_ATTEMPTS + 1, 0);
    for (int i = 0; i < n && rv == HS_WANT; i++) {
        if (events[i].data.u32 != LOOKUP_SLOT) {
            rv = connector_settle(cn, events[i].data.u32, ret_winner);
        } else {
            ssize_t ignored = read(cn->lookup_fd, &count, sizeof(count));

            (void)ignored;
        }
    }
    return rv;
}

/* A handshake has a time of its own, which no descriptor tells. */
static int64_t
handshakes_until(const struct hs_connector *cn)
{
    int64_t until = HS_NEVER;

    for (size_t i = 0; cn->opts.tls != NULL && i < cn->n_attempts; i++)
        if (cn->attempts[i].conn != NULL)
            until = hs_min_ns(until, cn->attempts[i].op.want_at_ns);
    return until;
}

static hs_err
connector_collect_expired(struct hs_connector *cn, struct attempt **ret_winner)
{
    hs_err rv = HS_WANT;

    if (handshakes_until(cn) > hs_now())
        return HS_WANT;
    for (size_t i = 0; i < cn->n_attempts && rv == HS_WANT; i++)
        if (cn->attempts[i].conn != NULL)
            rv = connector_settle(cn, i, ret_winner);
    return rv;
}

static bool
may_start(const struct hs_connector *cn, int64_t now)
{
    if (!addresses_left(cn))
        return false;
    if (cn->wait_v6_until > now && !all_answered(cn))
        return false;
    /* AAAA alone is enough to start with, A alone waits for its delay. */
    return cn->in_flight == 0 || cn->next_attempt_ns <= now;
}

static bool
exhausted(const struct hs_connector *cn)
{
    return cn->in_flight == 0 && (all_answered(cn) || cn->committed) && !addresses_left(cn);
}

/* One round of all that can be done now: HS_OK with a winner, HS_WANT, or an error. */
static hs_err
connector_advance(struct hs_connector *cn, struct hs_error *err, struct attempt **ret_winner)
{
    struct hs_addr addr;
    size_t slot;
    hs_err rv;

    /* 1. Once: lookups for both families begin, or the one address is taken as it is. */
    if (!cn->started) {
        cn->started = true;
        if ((rv = start_lookups(cn, err)) != HS_OK)
            return rv;
    }
    /* 2. Attempts that are ready: connected, failed, or a step further in their handshakes. */
    if ((rv = collect_attempts(cn, ret_winner)) != HS_WANT ||
        (rv = connector_collect_expired(cn, ret_winner)) != HS_WANT)
        return rv;
    /* 3. Addresses that have come meanwhile. */
    collect_answers(cn);
    /* 4. New attempts, as many as the times and numbers of RFC 8305 allow. */
    if (cn->retry_ns != 0 && cn->retry_ns <= hs_now())
        rv = retry_unix(cn, ret_winner);
    while (rv == HS_WANT && may_start(cn, hs_now()))
        rv = start_next(cn, ret_winner);
    /* 5. Nothing else is left: one of those that the breaker refused. */
    while (rv == HS_WANT && cn->n_skipped > 0 && !cn->committed && exhausted(cn) &&
           take_skipped(cn, &slot, &addr))
        rv = start_at(cn, slot, &addr, ret_winner);
    return rv;
}

/* ---- Failing ------------------------------------------------------------------------------- */

static hs_err
no_address(struct hs_connector *cn, struct hs_error *err)
{
    const struct hs_answer *worst = &cn->answers[V4];

    /* "Try again" from one family outweighs "no such name" from the other: it may exist. */
    if (worst->gai == 0 || (cn->answers[V6].gai != 0 && worst->gai == EAI_NONAME))
        worst = &cn->answers[V6];
    if (err != NULL) {
        if (worst->gai == EAI_SYSTEM)
            (void)hs_err_set(err, HS_E_RESOLVE, worst->sys, "connect", "%.100s", cn->ep.host);
        else
            (void)hs_err_setx(err, HS_E_RESOLVE, "connect", "%s: %s", cn->ep.host,
                              worst->gai != 0 ? gai_strerror(worst->gai) : "no usable address");
        err->gai = worst->gai != 0 ? worst->gai : EAI_NODATA;
        err->sys = worst->sys;
        err->phase = "resolve";
    }
    return HS_E_RESOLVE;
}

/* The one that is due first; NULL unless all were refused. */
static const struct attempt *
refused_first(const struct hs_connector *cn)
{
    const struct attempt *first = NULL;

    if (cn->n_skipped != cn->n_attempts)
        return NULL;
    for (size_t i = 0; i < cn->n_attempts; i++)
        if (first == NULL || cn->attempts[i].permit.retry_ns < first->permit.retry_ns)
            first = &cn->attempts[i];
    return first;
}

static hs_err
all_refused(struct hs_connector *cn, struct hs_error *err)
{
    const struct attempt *first = refused_first(cn);
    char text[HS_ADDR_TEXT_SIZE], others[48] = "";

    if (err == NULL)
        return HS_E_BREAKER_OPEN;
    (void)hs_addr_text(&first->log.addr, text, sizeof(text));
    if (cn->n_attempts > 1)
        (void)snprintf(others, sizeof(others), " and %zu more addresses", cn->n_attempts - 1);
    (void)hs_err_setx(err, HS_E_BREAKER_OPEN, "connect",
                      "%.100s%s not tried: the breaker is open (last failure: %s)", text, others,
                      hs_fail_name(first->permit.last_fail));
    err->phase = "breaker";
    err->retry_ns = first->permit.retry_ns;
    err->last_failure = (int)first->permit.last_fail;
    return HS_E_BREAKER_OPEN;
}

static const struct hs_attempt *
first_tried(const struct hs_connector *cn)
{
    size_t i = 0;

    while (cn->attempts[i].log.phase == HS_ATTEMPT_SKIPPED)
        i++;
    return &cn->attempts[i].log;
}

static hs_err
no_connection(struct hs_connector *cn, struct hs_error *err)
{
    char text[HS_ADDR_TEXT_SIZE];
    const struct hs_attempt *first;

    cn->failed = true;
    if (cn->n_attempts == 0)
        return no_address(cn, err);
    if (cn->n_skipped == cn->n_attempts)
        return all_refused(cn, err);
    if (cn->tls_error.code != HS_OK) {
        if (err != NULL && err->code == HS_OK)
            *err = cn->tls_error;
        if (err != NULL)
            err->op = "connect";
        return cn->tls_error.code;
    }
    first = first_tried(cn);
    (void)hs_addr_text(&first->addr, text, sizeof(text));
    if (cn->n_attempts == 1)
        (void)hs_err_set(err, HS_E_CONNECT, first->sys, "connect", "%.100s", text);
    else
        (void)hs_err_set(err, HS_E_CONNECT, first->sys, "connect",
                         "none of %zu addresses could be connected, first %.100s", cn->n_attempts,
                         text);
    if (err != NULL)
        err->phase = first->phase == HS_ATTEMPT_SOCKET ? "socket"
                     : first->phase == HS_ATTEMPT_BIND ? "bind"
                                                       : "connect";
    return HS_E_CONNECT;
}

static bool
is_handshaking(const struct hs_connector *cn)
{
    for (size_t i = 0; i < cn->n_attempts; i++)
        if (cn->attempts[i].conn != NULL)
            return true;
    return false;
}

/* A deadline that passed before a lookup had even begun. */
static void
tell_starved(const struct hs_connector *cn, struct hs_error *err)
{
    char why[sizeof(err->msg)] = "";
    size_t used = strlen(err->msg);

    for (int i = 0; i < 2 && why[0] == '\0'; i++)
        hs_lookup_tell_starved(&cn->tickets[i], why, sizeof(why));
    if (why[0] != '\0')
        (void)snprintf(err->msg + used, sizeof(err->msg) - used, "; %s", why);
}

static hs_err
gave_up(struct hs_connector *cn, hs_err rv, struct hs_error *err)
{
    bool resolving = cn->n_attempts == cn->n_skipped && cn->ep.family == AF_UNSPEC;

    if (err != NULL) {
        if (resolving && rv == HS_E_DEADLINE)
            tell_starved(cn, err);
        err->op = "connect";
        if (err->phase == NULL)
            err->phase = resolving ? "resolve" : is_handshaking(cn) ? "tls" : "connect";
        if (is_handshaking(cn) && err->tls == HS_TLS_NONE)
            err->tls = rv == HS_E_DEADLINE ? HS_TLS_TIMEOUT : HS_TLS_LOCAL;
    }
    stop_all(cn, rv != HS_E_DEADLINE);
    cn->failed = true;
    return rv;
}

/* ---- Driving ------------------------------------------------------------------------------- */

static hs_err
take_winner(struct hs_connector *cn, struct attempt *winner, struct hs_error *err,
            struct hs_conn **ret_conn)
{
    hs_err rv = hs_attempt_take(winner, err, ret_conn);

    connector_tell_breaker(cn, winner, HS_FAIL_NONE);
    cn->in_flight--;
    stop_all(cn, false);
    cn->failed = true; /* Used up: it gives one connection. */
    return rv;
}

/* When a lookup may get its turn although nothing ends. */
static int64_t
lookups_until(const struct hs_connector *cn)
{
    return hs_min_ns(hs_lookup_look_at(&cn->tickets[V6]), hs_lookup_look_at(&cn->tickets[V4]));
}

static hs_err
wait_for_news(struct hs_connector *cn, struct hs_op *op, struct hs_error *err)
{
    int64_t until = hs_min_ns(cn->retry_ns != 0 ? cn->retry_ns : HS_NEVER, handshakes_until(cn));
    int fd = cn->epoll_fd;
    short revents, events = POLLIN;

    if (addresses_left(cn))
        until = hs_min_ns(until, cn->in_flight > 0 ? cn->next_attempt_ns : HS_NEVER);
    if (cn->wait_v6_until != 0 && !all_answered(cn) && cn->n_attempts == 0)
        until = hs_min_ns(until, cn->wait_v6_until);
    until = hs_min_ns(until, lookups_until(cn));
    if (fd < 0) {
        fd = cn->attempts[0].fd;
        events = POLLOUT;
        if (cn->attempts[0].conn != NULL)
            events = cn->attempts[0].op.want_events;
    }
    return hs_wait_op(op, fd, events, op->deadline_ns, until, err, &revents);
}

static hs_err
check_usable(const struct hs_connector *cn, struct hs_error *err)
{
    if (cn->generation != hs_fork_generation())
        return hs_err_setx(err, HS_E_FORKED, "connect", "%s", hs_err_text(HS_E_FORKED));
    if (cn->failed)
        return hs_err_setx(err, HS_E_INVALID, "connect", "this connector has already ended");
    return HS_OK;
}

static hs_err
connector_run(struct hs_connector *cn, struct hs_op *op, struct hs_error *err,
              struct hs_conn **ret_conn)
{
    struct attempt *winner = NULL;
    hs_err rv;

    if (cn->opts.limits != NULL && !cn->started &&
        (rv = hs_dial_place_take(cn->opts.limits, op, err, &cn->place)) != HS_OK) {
        cn->failed = rv != HS_INTR && rv != HS_WANT;
        return rv;
    }
    if ((rv = hs_op_begin(op, HS_NEVER, err)) != HS_OK)
        return gave_up(cn, rv, err);
    for (;;) {
        rv = connector_advance(cn, err, &winner);
        if (rv == HS_OK)
            return take_winner(cn, winner, err, ret_conn);
        if (rv == HS_WANT && exhausted(cn))
            return no_connection(cn, err);
        if (rv == HS_WANT)
            rv = wait_for_news(cn, op, err);
        if (rv == HS_INTR || rv == HS_WANT)
            return rv;
        if (rv != HS_OK)
            return gave_up(cn, rv, err);
    }
}

void
hs_connector_set_site(struct hs_connector *cn, struct hs_call_site *site)
{
    HS_CHECK(cn, CONNECTOR_MAGIC);
    cn->site = site;
}

static void
note_end(const struct hs_connector *cn, hs_err rv, const struct hs_error *err)
{
    int64_t span = hs_now() - cn->began_ns;
    char text[HS_ADDR_TEXT_SIZE];
    struct hs_event e = {.code = rv, .site = cn->site, .span_ns = span};

    hs_span_add(HS_SPAN_CONNECT, span);
    if (rv == HS_OK)
        return;
    e.sys = err != NULL ? err->sys : 0;
    hs_event_text(&e, hs_endpoint_text(&cn->ep, text, sizeof(text)));
    hs_event_note(HS_EVENT_CONNECT_FAILED, &e);
}

hs_err
hs_connector_run(struct hs_connector *cn, struct hs_op *op, struct hs_error *err,
                 struct hs_conn **ret_conn)
{
    hs_err rv;

    HS_CHECK(cn, CONNECTOR_MAGIC);
    if ((rv = check_usable(cn, err)) != HS_OK)
        return rv;
    if (cn->began_ns == 0)
        cn->began_ns = hs_now();
    rv = connector_run(cn, op, err, ret_conn);
    if (rv == HS_INTR || rv == HS_WANT)
        return rv;
    hs_dial_place_leave(cn->place);
    cn->place = NULL;
    note_end(cn, rv, err);
    return rv;
}

hs_err
hs_connector_resolve(struct hs_connector *cn, struct hs_op *op, struct hs_error *err)
{
    short revents;
    hs_err rv;

    HS_CHECK(cn, CONNECTOR_MAGIC);
    if ((rv = check_usable(cn, err)) != HS_OK)
        return rv;
    if ((rv = hs_op_begin(op, HS_NEVER, err)) != HS_OK)
        return gave_up(cn, rv, err);
    if (!cn->started) {
        cn->started = true;
        if ((rv = start_lookups(cn, err)) != HS_OK)
            return gave_up(cn, rv, err);
    }
    for (;;) {
        struct attempt *none;

        (void)collect_attempts(cn, &none);
        collect_answers(cn);
        if (all_answered(cn))
            break;
        rv =
            hs_wait_op(op, cn->epoll_fd, POLLIN, op->deadline_ns, lookups_until(cn), err, &revents);
        if (rv == HS_INTR || rv == HS_WANT)
            return rv;
        if (rv != HS_OK)
            return gave_up(cn, rv, err);
    }
    if (cn->ep.family == AF_UNSPEC && cn->answers[V6].n + cn->answers[V4].n == 0)
        return no_address(cn, err);
    return HS_OK;
}

/* ---- Telling ------------------------------------------------------------------------------- */

const struct hs_attempt *
hs_connector_attempts(struct hs_connector *cn, size_t *ret_n)
{
    HS_CHECK(cn, CONNECTOR_MAGIC);
    for (size_t i = 0; i < cn->n_attempts; i++)
        cn->log[i] = cn->attempts[i].log;
    *ret_n = cn->n_attempts;
    return cn->log;
}

const struct hs_answer *
hs_connector_answers(struct hs_connector *cn, size_t *ret_n)
{
    HS_CHECK(cn, CONNECTOR_MAGIC);
    *ret_n = cn->ep.family == AF_UNSPEC ? 2 : 0;
    return cn->answers;
}

const struct hs_endpoint *
hs_connector_endpoint(const struct hs_connector *cn)
{
    return &cn->ep;
}

const struct hs_addr *
hs_connector_refused(struct hs_connector *cn)
{
    const struct attempt *first;

    HS_CHECK(cn, CONNECTOR_MAGIC);
    first = refused_first(cn);
    return first != NULL ? &first->log.addr : NULL;
}

const struct hs_addr *
hs_connector_plan(struct hs_connector *cn, size_t *ret_n)
{
    size_t next[2] = {0, 0}, n = 0;
    int family = -1;

    HS_CHECK(cn, CONNECTOR_MAGIC);
    if (cn->ep.family != AF_UNSPEC) {
        *ret_n = 1;
        return &cn->ep.addr;
    }
    while ((family = next_family(cn, next, family)) >= 0)
        cn->plan[n++] = cn->found[family][next[family]++];
    *ret_n = n;
    return cn->plan;
}
