/* race.c: the attempts of a connector, and which of them wins (RFC 8305 section 5).
 *
 * An attempt begins when connector.c says so; a seventh calls off the oldest. The first to connect
 * wins, and the others are closed at once. With TLS the winner then does its handshake, alone, and
 * its failure is the race's; or, with commit_at_tls, the race is about finished handshakes. Each
 * attempt asks the breaker before it begins and tells it how it ended. Knows nothing of names.
 *
 * All attempts of a name are in one epoll set; a literal's waits on its own socket.
 */
#include "connector_impl.h"

#include "../base/check.h"
#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

/* How often a unix socket with a full backlog is tried: the kernel has no event for it. */
#define RETRY_NS (10 * HS_NS_PER_MS)

/* ---- Breaker -------------------------------------------------------------------------------- */

/* Whether the address may be tried; if not, the log says so. */
static bool
race_ask_breaker(struct hs_connector *cn, struct attempt *a, const struct hs_addr *addr)
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
race_tell_breaker(struct hs_connector *cn, struct attempt *a, enum hs_fail how)
{
    struct hs_breaker_key key;

    if (cn->opts.breaker == NULL)
        return;
    hs_breaker_key_addr(&a->log.addr, &key);
    hs_breaker_record(cn->opts.breaker, &key, &a->permit, how, hs_now());
}

/* Of an attempt that has ended without a connection, and not because somebody cancelled. */
static enum hs_fail
race_failure_of(const struct attempt *a)
{
    if (a->log.tls != HS_TLS_NONE)
        return hs_fail_of_tls(a->log.tls);
    if (a->log.phase != HS_ATTEMPT_CONNECT && a->log.phase != HS_ATTEMPT_TLS)
        return HS_FAIL_NOT_COUNTED; /* No socket, no such option, no local address: our fault. */
    return a->log.sys != 0 ? hs_fail_of_errno(a->log.sys) : HS_FAIL_DEADLINE;
}

/* When nothing else is left: the skipped address that is tried all the same, as a fresh slot. */
static bool
race_take_skipped(struct hs_connector *cn, size_t *ret_slot, struct hs_addr *ret_addr)
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
    cn->attempts[slots[i]] = (struct attempt){.fd = -1, .permit = permit};
    return true;
}

/* ---- Ending --------------------------------------------------------------------------------- */

static void
race_call_off(struct hs_connector *cn, struct attempt *a, bool cancelled)
{
    hs_attempt_stop(a);
    race_tell_breaker(cn, a, cancelled ? HS_FAIL_NOT_COUNTED : race_failure_of(a));
}

void
hs_race_stop(struct hs_connector *cn, bool cancelled)
{
    for (size_t i = 0; i < cn->n_attempts; i++)
        if (cn->attempts[i].log.ended_ns == 0)
            race_call_off(cn, &cn->attempts[i], cancelled);
    cn->in_flight = 0;
}

/* ---- Attempts ------------------------------------------------------------------------------- */

static void
race_call_off_oldest(struct hs_connector *cn)
{
    for (size_t i = 0; i < cn->n_attempts; i++)
        if (cn->attempts[i].log.ended_ns == 0) {
            race_call_off(cn, &cn->attempts[i], false);
            cn->in_flight--;
            return;
        }
}

static hs_err
race_watch(struct hs_connector *cn, size_t slot)
{
    struct attempt *a = &cn->attempts[slot];
    bool handshaking = a->conn != NULL;
    struct epoll_event ev = {
        .events = handshaking && a->op.want_events == POLLIN ? EPOLLIN : EPOLLOUT,
        .data.u32 = (uint32_t)slot,
    };
    int sys;

    if (cn->epoll.number < 0 || a->fd < 0 || (a->epoll != NULL && !handshaking))
        return HS_OK;
    if (hs_sys_epoll_ctl(cn->epoll.number, a->epoll != NULL ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, a->fd,
                         &ev) == 0) {
        a->epoll = &cn->epoll;
        return HS_OK;
    }
    sys = errno;
    hs_attempt_stop(a);
    a->log.sys = sys;
    return HS_E_SYSTEM;
}

static void
race_stop_others(struct hs_connector *cn, const struct attempt *winner)
{
    for (size_t i = 0; i < cn->n_attempts; i++)
        if (&cn->attempts[i] != winner && cn->attempts[i].log.ended_ns == 0) {
            race_call_off(cn, &cn->attempts[i], false);
            cn->in_flight--;
        }
}

/* rv of an attempt so far: one that is connected goes on with TLS. */
static hs_err
race_secure(struct hs_connector *cn, struct attempt *a, hs_err rv)
{
    struct hs_error err = {0};

    /* 1. Plain TCP has won by being connected. */
    if (rv != HS_OK || cn->opts.tls == NULL)
        return rv;
    /* 2. With TLS that decides the race as well, unless it is about finished handshakes. */
    if (!cn->opts.commit_at_tls && !cn->committed) {
        cn->committed = true;
        race_stop_others(cn, a);
    }
    /* 3. The handshake as far as the bytes go. The first that fails is what the caller is told. */
    rv = hs_attempt_handshake(a, &cn->opts, &err);
    if (rv < 0 && cn->tls_error.code == HS_OK)
        cn->tls_error = err;
    return rv;
}

/* rv of an attempt: HS_OK ends the race, a failure brings the next one forward. */
static hs_err
race_judge(struct hs_connector *cn, struct attempt *a, hs_err rv, struct attempt **ret_winner)
{
    if (rv == HS_OK)
        *ret_winner = a;
    if (rv == HS_OK || rv == HS_WANT)
        return rv;
    /* It ended alone: the others run on, and the next need not wait for its 250 ms. */
    race_tell_breaker(cn, a, race_failure_of(a));
    cn->in_flight--;
    cn->next_attempt_ns = 0;
    return HS_WANT;
}

static hs_err
race_start_at(struct hs_connector *cn, size_t slot, const struct hs_addr *addr,
              struct attempt **ret_winner)
{
    struct attempt *a = &cn->attempts[slot];
    int64_t now = hs_now();
    hs_err rv;

    /* 1. Room: the oldest has had the most time, and is the least likely to answer yet. */
    if (cn->in_flight >= (size_t)cn->opts.max_in_flight)
        race_call_off_oldest(cn);
    cn->in_flight++;
    cn->next_attempt_ns = hs_deadline_after(cn->opts.attempt_delay_ns);
    /* 2. connect(2); on the loopback it may be connected at once, or refused. */
    rv = race_secure(cn, a, hs_attempt_start(a, addr, &cn->opts));
    /* 3. It is watched. For a unix socket whose backlog is full there is no event, only a time. */
    if (rv == HS_WANT && a->fd < 0)
        cn->retry_ns = now + RETRY_NS;
    else if (rv == HS_WANT && race_watch(cn, slot) != HS_OK)
        rv = HS_E_SYSTEM;
    return race_judge(cn, a, rv, ret_winner);
}

hs_err
hs_race_start(struct hs_connector *cn, const struct hs_addr *addr, struct attempt **ret_winner)
{
    size_t slot = cn->n_attempts++;
    struct attempt *a = &cn->attempts[slot];

    a->epoll = NULL;
    a->fd = -1;
    return race_ask_breaker(cn, a, addr) ? race_start_at(cn, slot, addr, ret_winner) : HS_WANT;
}

/* A unix socket whose backlog was full. */
hs_err
hs_race_retry(struct hs_connector *cn, struct attempt **ret_winner)
{
    struct attempt *a = &cn->attempts[0];
    hs_err rv = race_secure(cn, a, hs_attempt_start(a, &cn->ep.addr, &cn->opts));

    cn->retry_ns = rv == HS_WANT && a->fd < 0 ? hs_now() + RETRY_NS : 0;
    return race_judge(cn, a, rv, ret_winner);
}

static hs_err
race_settle(struct hs_connector *cn, size_t slot, struct attempt **ret_winner)
{
    struct attempt *a = &cn->attempts[slot];
    hs_err rv;

    if (a->log.ended_ns != 0 || a->fd < 0)
        return HS_WANT; /* An event of before it ended. */
    rv = race_secure(cn, a, a->conn != NULL ? HS_OK : hs_attempt_settle(a, &cn->opts));
    if (rv == HS_WANT && race_watch(cn, slot) != HS_OK) /* It may have a new socket. */
        rv = HS_E_SYSTEM;
    return race_judge(cn, a, rv, ret_winner);
}

/* What has happened to the running attempts since the last look. Never sleeps. */
hs_err
hs_race_collect(struct hs_connector *cn, struct hs_error *err, struct attempt **ret_winner)
{
    struct epoll_event events[MAX_ATTEMPTS + 1];
    hs_err rv = HS_WANT;
    int n;

    if (cn->epoll.number < 0)
        return cn->in_flight > 0 ? race_settle(cn, 0, ret_winner) : HS_WANT;
    n = hs_sys_epoll_wait(cn->epoll.number, events, MAX_ATTEMPTS + 1, 0);
    if (n < 0 && errno != EINTR) /* It stays readable: who waited for it would go round. */
        return hs_err_set(err, HS_E_SYSTEM, errno, "connect", "epoll_wait");
    for (int i = 0; i < n && rv == HS_WANT; i++) {
        if (events[i].data.u32 == LOOKUP_SLOT)
            (void)hs_own_fd_drain(&cn->lookup);
        else if (events[i].data.u32 < cn->n_attempts) /* Else it is no set of ours any more. */
            rv = race_settle(cn, events[i].data.u32, ret_winner);
    }
    return rv;
}

/* A handshake has a time of its own, which no descriptor tells. */
int64_t
hs_race_until(const struct hs_connector *cn)
{
    int64_t until = HS_NEVER;

    for (size_t i = 0; cn->opts.tls != NULL && i < cn->n_attempts; i++)
        if (cn->attempts[i].conn != NULL)
            until = hs_min_ns(until, cn->attempts[i].op.want_at_ns);
    return until;
}

hs_err
hs_race_collect_expired(struct hs_connector *cn, struct attempt **ret_winner)
{
    hs_err rv = HS_WANT;

    if (hs_race_until(cn) > hs_now())
        return HS_WANT;
    for (size_t i = 0; i < cn->n_attempts && rv == HS_WANT; i++)
        if (cn->attempts[i].conn != NULL)
            rv = race_settle(cn, i, ret_winner);
    return rv;
}

bool
hs_race_is_handshaking(const struct hs_connector *cn)
{
    for (size_t i = 0; i < cn->n_attempts; i++)
        if (cn->attempts[i].conn != NULL)
            return true;
    return false;
}

bool
hs_race_start_skipped(struct hs_connector *cn, hs_err *ret_rv, struct attempt **ret_winner)
{
    struct hs_addr addr;
    size_t slot;

    if (cn->n_skipped == 0 || cn->committed || !race_take_skipped(cn, &slot, &addr))
        return false;
    *ret_rv = race_start_at(cn, slot, &addr, ret_winner);
    return true;
}

hs_err
hs_race_take(struct hs_connector *cn, struct attempt *winner, struct hs_error *err,
             struct hs_conn **ret_conn)
{
    hs_err rv = hs_attempt_take(winner, err, ret_conn);

    race_tell_breaker(cn, winner, HS_FAIL_NONE);
    cn->in_flight--;
    hs_race_stop(cn, false);
    return rv;
}
