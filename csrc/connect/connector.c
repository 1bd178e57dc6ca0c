/* connector.c: from a name to one connection: lookups, order, race (RFC 8305).
 *
 * The connector only tries; hs_connector_run is a loop of "do what can be done, then wait for one
 * descriptor or a time". A literal or unix address waits on its own socket. A name brings lookups
 * and several attempts: then one epoll descriptor stands for all of them, so that ppoll and every
 * event loop drive it alike. Timers need no descriptor: the wait takes a time.
 *
 * Which address comes next is lookup_order.c's, what becomes of it race.c's. When an attempt begins
 * is told here: when 250 ms have passed since the last one, at once when one fails or none is
 * running; and what the caller is told when none is left.
 *
 * Owned by one caller at a time; takes no lock. fds: every attempt's until it ends, epoll,
 * lookup. After a fork the child's copy may only be freed.
 */
#include "connector.h"

#include "connector_impl.h"

#include "../base/addr.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/recorder.h"
#include "../base/spans.h"
#include "../base/sys.h"
#include "../base/time.h"
#include "../cancel/wait.h"

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

    if (!hs_own_fd_open(&cn->epoll, hs_sys_epoll_create1(EPOLL_CLOEXEC)) ||
        !hs_own_fd_open(&cn->lookup, hs_sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) ||
        hs_sys_epoll_ctl(cn->epoll.number, EPOLL_CTL_ADD, cn->lookup.number, &ev) != 0)
        return hs_err_set(err, HS_E_SYSTEM, errno, "connect", "descriptors for a name lookup");
    return HS_OK;
}

static hs_err
connector_allocate(struct hs_connector *cn, struct hs_error *err)
{
    bool named = cn->ep.family == AF_UNSPEC;

    cn->capacity = named ? MAX_ATTEMPTS : 1;
    cn->attempts = hs_sys_calloc(cn->capacity, sizeof(*cn->attempts));
    cn->log = hs_sys_calloc(cn->capacity, sizeof(*cn->log));
    cn->plan = hs_sys_calloc(cn->capacity, sizeof(*cn->plan));
    for (int i = 0; named && i < 2; i++)
        cn->found[i] = hs_sys_calloc(HS_MAX_ADDRS, sizeof(struct hs_addr));
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
    if ((cn = hs_sys_calloc(1, sizeof(*cn))) == NULL)
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
    cn->epoll = cn->lookup = HS_OWN_FD_NONE;
    cn->last_family = -1;
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    if ((rv = connector_allocate(cn, err)) != HS_OK) {
        hs_connector_free(cn);
        return rv;
    }
    *ret_cn = cn;
    return HS_OK;
}

void
hs_connector_free(struct hs_connector *cn)
{
    if (cn == NULL)
        return;
    HS_CHECK(cn, CONNECTOR_MAGIC);
    for (size_t i = 0; i < cn->n_attempts && cn->generation != hs_fork_generation(); i++)
        cn->attempts[i].epoll = NULL; /* The set is the parent's, who is still waiting on it. */
    hs_race_stop(cn, true);
    for (int i = 0; i < 2; i++) {
        if (cn->generation == hs_fork_generation())
            hs_lookup_leave(&cn->tickets[i]);
        free(cn->found[i]);
    }
    hs_own_fd_close(&cn->epoll);
    hs_own_fd_close(&cn->lookup);
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

static bool
may_start(const struct hs_connector *cn, int64_t now)
{
    if (!hs_order_has_more(cn))
        return false;
    if (cn->wait_v6_until > now && !hs_order_is_complete(cn))
        return false;
    /* AAAA alone is enough to start with, A alone waits for its delay. */
    return cn->in_flight == 0 || cn->next_attempt_ns <= now;
}

static bool
exhausted(const struct hs_connector *cn)
{
    return cn->in_flight == 0 && (hs_order_is_complete(cn) || cn->committed) &&
           !hs_order_has_more(cn);
}

/* The program may have closed what a name's attempts are waited for with, which nothing else would
 * tell: no look finds news there, and every wait ends at once. */
static hs_err
check_descriptors(const struct hs_connector *cn, struct hs_error *err)
{
    if (cn->epoll.number < 0 || (hs_own_fd_is_there(&cn->epoll) && hs_own_fd_is_there(&cn->lookup)))
        return HS_OK;
    return hs_err_set(err, HS_E_SYSTEM, EBADF, "connect",
                      "the program has closed the descriptors that this call waits with");
}

/* One round of all that can be done now: HS_OK with a winner, HS_WANT, or an error. */
static hs_err
connector_advance(struct hs_connector *cn, struct hs_error *err, struct attempt **ret_winner)
{
    hs_err rv;

    if ((rv = check_descriptors(cn, err)) != HS_OK)
        return rv;
    /* 1. Once: lookups for both families begin, or the one address is taken as it is. */
    if (!cn->started) {
        cn->started = true;
        if ((rv = hs_order_begin(cn, err)) != HS_OK)
            return rv;
    }
    /* 2. Attempts that are ready: connected, failed, or a step further in their handshakes. */
    if ((rv = hs_race_collect(cn, err, ret_winner)) != HS_WANT ||
        (rv = hs_race_collect_expired(cn, ret_winner)) != HS_WANT)
        return rv;
    /* 3. Addresses that have come meanwhile. */
    hs_order_collect(cn);
    /* 4. New attempts, as many as the times and numbers of RFC 8305 allow. */
    if (cn->retry_ns != 0 && cn->retry_ns <= hs_now())
        rv = hs_race_retry(cn, ret_winner);
    while (rv == HS_WANT && may_start(cn, hs_now()))
        rv = hs_race_start(cn, hs_order_take(cn), ret_winner);
    /* 5. Nothing else is left: one of those that the breaker refused. */
    while (rv == HS_WANT && exhausted(cn) && hs_race_start_skipped(cn, &rv, ret_winner))
        continue;
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

static hs_err
gave_up(struct hs_connector *cn, hs_err rv, struct hs_error *err)
{
    bool resolving = cn->n_attempts == cn->n_skipped && cn->ep.family == AF_UNSPEC;

    if (err != NULL) {
        if (resolving && rv == HS_E_DEADLINE)
            hs_order_tell_starved(cn, err);
        err->op = "connect";
        if (err->phase == NULL)
            err->phase = resolving ? "resolve" : hs_race_is_handshaking(cn) ? "tls" : "connect";
        if (hs_race_is_handshaking(cn) && err->tls == HS_TLS_NONE)
            err->tls = rv == HS_E_DEADLINE ? HS_TLS_TIMEOUT : HS_TLS_LOCAL;
    }
    hs_race_stop(cn, rv != HS_E_DEADLINE);
    cn->failed = true;
    return rv;
}

/* ---- Driving ------------------------------------------------------------------------------- */

static hs_err
take_winner(struct hs_connector *cn, struct attempt *winner, struct hs_error *err,
            struct hs_conn **ret_conn)
{
    cn->failed = true; /* Used up: it gives one connection. */
    return hs_race_take(cn, winner, err, ret_conn);
}

static hs_err
wait_for_news(struct hs_connector *cn, struct hs_op *op, struct hs_error *err)
{
    int64_t until = hs_min_ns(cn->retry_ns != 0 ? cn->retry_ns : HS_NEVER, hs_race_until(cn));
    int fd = cn->epoll.number;
    short revents, events = POLLIN;

    /* 1. Until when. Times have no descriptors: the earliest of them ends the wait. */
    if (hs_order_has_more(cn))
        until = hs_min_ns(until, cn->in_flight > 0 ? cn->next_attempt_ns : HS_NEVER);
    if (cn->wait_v6_until != 0 && !hs_order_is_complete(cn) && cn->n_attempts == 0)
        until = hs_min_ns(until, cn->wait_v6_until);
    until = hs_min_ns(until, hs_order_until(cn));
    /* 2. For what: the set of all, or the only socket of a literal, which has none. */
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

    /* 1. A turn, where dials are limited. Once it is granted it stays until the connector ends. */
    if (cn->opts.limits != NULL && !cn->started &&
        (rv = hs_dial_place_take(cn->opts.limits, op, err, &cn->place)) != HS_OK) {
        cn->failed = rv != HS_INTR && rv != HS_WANT;
        return rv;
    }
    /* 2. No packet is sent for a caller that is out of time or cancelled. */
    if ((rv = hs_op_begin(op, HS_NEVER, err)) != HS_OK)
        return gave_up(cn, rv, err);
    for (;;) {
        /* 3. All that can be done now: a winner ends it, and so does it that none is left. */
        rv = connector_advance(cn, err, &winner);
        if (rv == HS_OK)
            return take_winner(cn, winner, err, ret_conn);
        if (rv == HS_WANT && exhausted(cn))
            return no_connection(cn, err);
        /* 4. Sleep, or leave to be stepped again; nothing was given up by then. */
        if (rv == HS_WANT)
            rv = wait_for_news(cn, op, err);
        if (rv == HS_INTR || rv == HS_WANT)
            return rv;
        /* 5. The time is up, or it was cancelled: every attempt ends with it. */
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
    if (rv == HS_OK && span < HS_SLOW_CONNECT_NS)
        return;
    e.sys = rv != HS_OK && err != NULL ? err->sys : 0;
    hs_event_text(&e, hs_endpoint_text(&cn->ep, text, sizeof(text)));
    hs_event_note(rv == HS_OK ? HS_EVENT_CONNECT_SLOW : HS_EVENT_CONNECT_FAILED, &e);
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
        if ((rv = hs_order_begin(cn, err)) != HS_OK)
            return gave_up(cn, rv, err);
    }
    for (;;) {
        struct attempt *none;

        if ((rv = check_descriptors(cn, err)) != HS_OK)
            return gave_up(cn, rv, err);
        if ((rv = hs_race_collect(cn, err, &none)) < 0)
            return gave_up(cn, rv, err);
        hs_order_collect(cn);
        if (hs_order_is_complete(cn))
            break;
        rv = hs_wait_op(op, cn->epoll.number, POLLIN, op->deadline_ns, hs_order_until(cn), err,
                        &revents);
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
    HS_CHECK(cn, CONNECTOR_MAGIC);
    if (cn->ep.family != AF_UNSPEC) {
        *ret_n = 1;
        return &cn->ep.addr;
    }
    *ret_n = hs_order_plan(cn);
    return cn->plan;
}
