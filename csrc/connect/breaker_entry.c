/* breaker_entry.c: the state machine of one key: when it opens, for how long, who may probe.
 *
 *     closed --- too many failures ---> open --- its time is up ---> half open
 *       ^                                ^                              |  |
 *       |                                +--- a probe failed -----------+  |
 *       +--------------------------------- enough probes succeeded --------+
 *
 * Invariants:
 * - Every change of state takes a generation of its own. A permit carries the one it was granted
 *   in; a report from another one changes nothing.
 * - While half open at most o.probes permits are held that have not expired. One that expired
 *   holds up nobody, yet its report is believed as long as the state is the same.
 * - open until retry_ns, which is at most max_open_ns away: from there on somebody may probe.
 *   So nothing is refused for ever, no matter who forgets to report.
 */
#include "breaker_entry.h"

#include "../base/recorder.h"
#include "../base/time.h"

#include <errno.h>
#include <string.h>

/* ---- What failures weigh -------------------------------------------------------------------- */

/* client: towards an address that we connect to, or a name of the caller's.
 * listener: our own handshakes with the one who comes. There a client must not be able to open the
 * breaker by itself being broken, silent or gone, and nothing opens at once: it would take one
 * stranger with an old TLS version to switch a server over. */
static const struct {
    const char *name;
    unsigned client, listener;
} classes[HS_FAIL_CLASSES] = {
    [HS_FAIL_NONE] = {"success", 0, 0},
    /* Cancels, EMFILE, a port range that is used up: about us, not about the peer. */
    [HS_FAIL_NOT_COUNTED] = {"not_counted", 0, 0},
    [HS_FAIL_DEADLINE] = {"deadline", 0, 0}, /* hs_breaker_record makes it one of its neighbours */
    [HS_FAIL_REFUSED] = {"refused", 1, 0},   /* restarting, perhaps: back in a second or two */
    [HS_FAIL_RESET] = {"reset", 1, 0},       /* one of them is any proxy's daily life */
    [HS_FAIL_TIMEOUT] = {"timeout", 1, 0},   /* the dearest: each cost its caller a whole wait */
    [HS_FAIL_UNREACHABLE] = {"unreachable", 1, 0},
    /* Trying again cannot help, it needs a person; and each try costs both ends a handshake. */
    [HS_FAIL_TLS_CERTIFICATE] = {"tls_certificate", HS_WEIGHT_OPENS, 1},
    [HS_FAIL_TLS_VERSION] = {"tls_version", HS_WEIGHT_OPENS, 1},
    [HS_FAIL_TLS_OTHER] = {"tls_other", 1, 1},
    [HS_FAIL_APPLICATION] = {"application", 1, 1},
};

const char *
hs_fail_name(enum hs_fail fail)
{
    return classes[fail].name;
}

enum hs_fail
hs_fail_of_errno(int sys)
{
    switch (sys) {
    case 0:
        return HS_FAIL_NONE;
    case ECONNREFUSED:
    case ENOENT: /* a unix path that nobody has made (yet) */
        return HS_FAIL_REFUSED;
    case ECONNRESET:
    case EPIPE:
        return HS_FAIL_RESET;
    case ETIMEDOUT:
    case ECONNABORTED: /* keepalive, or another timer of the kernel */
        return HS_FAIL_TIMEOUT;
    case EHOSTUNREACH:
    case EHOSTDOWN:
        return HS_FAIL_UNREACHABLE;
    default:
        /* ENETUNREACH and ENETDOWN, too: as a rule it is us who have no network, for no address. */
        return HS_FAIL_NOT_COUNTED;
    }
}

enum hs_fail
hs_fail_of_tls(enum hs_tls_failure failure)
{
    switch (failure) {
    case HS_TLS_NONE:
        return HS_FAIL_NONE;
    case HS_TLS_VERIFY:
        return HS_FAIL_TLS_CERTIFICATE;
    case HS_TLS_VERSION:
    case HS_TLS_CIPHER:
    case HS_TLS_HTTP:
    case HS_TLS_NOT_TLS:
        return HS_FAIL_TLS_VERSION; /* It will not speak better TLS the next time. */
    case HS_TLS_TIMEOUT:
        return HS_FAIL_TIMEOUT;
    case HS_TLS_RESET:
    case HS_TLS_EMPTY:
    case HS_TLS_ABORTED:
        return HS_FAIL_RESET;
    case HS_TLS_LOCAL:
    case HS_TLS_PLAINTEXT:
    case HS_TLS_EVICTED:
        return HS_FAIL_NOT_COUNTED;
    case HS_TLS_ALERT:
    case HS_TLS_ALPN:
    case HS_TLS_PROTOCOL:
    case HS_TLS_FAILURES:
        break;
    }
    return HS_FAIL_TLS_OTHER;
}

const char *
hs_breaker_state_name(enum hs_breaker_state state)
{
    static const char *const names[] = {
        [HS_BREAKER_CLOSED] = "closed",
        [HS_BREAKER_HALF_OPEN] = "half_open",
        [HS_BREAKER_OPEN] = "open",
    };

    return names[state];
}

unsigned
hs_fail_weight(const struct hs_breaker_key *key, enum hs_fail fail)
{
    return hs_breaker_key_is_listener(key) ? classes[fail].listener : classes[fail].client;
}

/* ---- The window ----------------------------------------------------------------------------- */

static int64_t
bucket_number(const struct machine *m, int64_t now_ns)
{
    return now_ns / (m->o.window_ns / BREAKER_BUCKETS);
}

static void
count_call(struct entry *e, const struct machine *m, bool failed, int64_t now_ns)
{
    int64_t number = bucket_number(m, now_ns);
    struct bucket *b = &e->window[number % BREAKER_BUCKETS];

    /* Clocks are read before the lock is taken: a later one may have been here already. */
    if (b->number < number)
        *b = (struct bucket){.number = number};
    b->calls++;
    b->failures += failed;
}

void
hs_entry_sum(struct entry *e, const struct machine *m, int64_t now_ns)
{
    int64_t oldest = bucket_number(m, now_ns) - BREAKER_BUCKETS + 1;

    e->s.window_calls = e->s.window_failures = 0;
    for (size_t i = 0; i < BREAKER_BUCKETS; i++)
        if (e->window[i].number >= oldest) {
            e->s.window_calls += e->window[i].calls;
            e->s.window_failures += e->window[i].failures;
        }
}

/* ---- Changing state ------------------------------------------------------------------------- */

static uint64_t
breaker_entry_next_random(struct machine *m) /* splitmix64 */
{
    uint64_t z = (m->random += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Never longer than asked for; shorter by a random part, so that many clients that saw the same
 * failure do not all come back in the same moment. */
static int64_t
open_span(struct machine *m, unsigned openings)
{
    int64_t span = hs_min_ns(m->o.open_ns, m->o.max_open_ns), part;

    for (unsigned i = 0; i < openings && span < m->o.max_open_ns; i++)
        span = span > m->o.max_open_ns / 2 ? m->o.max_open_ns : 2 * span;
    if (span == HS_NEVER)
        return span;
    part = span / 1000 * m->o.jitter_permille;
    return span - (int64_t)(breaker_entry_next_random(m) % ((uint64_t)part + 1));
}

static void
breaker_entry_enter(struct entry *e, struct machine *m, enum hs_breaker_state state)
{
    e->s.state = state;
    e->generation = ++m->generation;
    e->good_probes = 0;
    memset(e->probes, 0, (size_t)m->o.probes * sizeof(e->probes[0]));
}

static void
breaker_entry_note(enum hs_event_kind kind, const struct entry *e, int64_t span_ns)
{
    char text[HS_BREAKER_KEY_TEXT_SIZE];
    struct hs_event event = {.span_ns = span_ns};

    hs_event_text(&event, hs_breaker_key_text(&e->s.key, text, sizeof(text)));
    hs_event_note(kind, &event);
}

static void
open_it(struct entry *e, struct machine *m, int64_t now_ns)
{
    /* It had been well for as long as it had been open before: that is forgiven. */
    if (e->closed_ns != 0 && now_ns - e->closed_ns >= e->span_ns)
        e->s.openings = 0;
    e->span_ns = open_span(m, e->s.openings++);
    e->s.opened_ns = now_ns;
    e->s.retry_ns = e->span_ns < HS_NEVER - now_ns ? now_ns + e->span_ns : HS_NEVER;
    e->closed_ns = 0;
    breaker_entry_enter(e, m, HS_BREAKER_OPEN);
    e->s.opened++;
    m->stats.opened++;
    breaker_entry_note(HS_EVENT_BREAKER_OPENED, e, e->span_ns);
}

static void
close_it(struct entry *e, struct machine *m, int64_t now_ns)
{
    e->closed_ns = now_ns;
    e->s.opened_ns = e->s.retry_ns = 0;
    e->s.in_a_row = 0;
    memset(e->window, 0, sizeof(e->window));
    breaker_entry_enter(e, m, HS_BREAKER_CLOSED);
    m->stats.closed++;
    breaker_entry_note(HS_EVENT_BREAKER_CLOSED, e, 0);
}

void
hs_entry_advance(struct entry *e, struct machine *m, int64_t now_ns)
{
    if (e->s.state != HS_BREAKER_OPEN || now_ns < e->s.retry_ns)
        return;
    breaker_entry_enter(e, m, HS_BREAKER_HALF_OPEN);
    m->stats.half_opened++;
}

/* ---- Permits -------------------------------------------------------------------------------- */

/* A free place, or one whose holder never reported; else NULL, and retry_ns says when. */
static struct probe *
free_probe(struct entry *e, struct machine *m, int64_t now_ns)
{
    e->s.retry_ns = HS_NEVER;
    for (int i = 0; i < m->o.probes; i++) {
        struct probe *p = &e->probes[i];

        if (p->id == 0)
            return p;
        if (p->expires_ns <= now_ns) {
            m->stats.expired_probes++;
            return p;
        }
        e->s.retry_ns = hs_min_ns(e->s.retry_ns, p->expires_ns);
    }
    return NULL;
}

static struct hs_permit
permit_of(const struct entry *e, enum permit_kind kind, int64_t now_ns)
{
    return (struct hs_permit){
        .generation = e->generation, .granted_ns = now_ns, .kind = (uint8_t)kind};
}

static void
grant_probe(struct entry *e, struct machine *m, struct probe *p, int64_t now_ns,
            struct hs_permit *ret_permit)
{
    p->id = ++m->probe;
    p->expires_ns = m->o.probe_ns < HS_NEVER - now_ns ? now_ns + m->o.probe_ns : HS_NEVER;
    e->s.retry_ns = now_ns;
    m->stats.probes++;
    *ret_permit = permit_of(e, PERMIT_NORMAL, now_ns);
    ret_permit->probe = p->id;
}

static enum hs_breaker_state
breaker_entry_refuse(struct entry *e, struct machine *m, int64_t now_ns,
                     struct hs_permit *ret_permit)
{
    if (m->o.dry_run) {
        m->stats.would_refuse++;
        *ret_permit = permit_of(e, PERMIT_SHADOW, now_ns);
        ret_permit->would_refuse = true;
        return HS_BREAKER_CLOSED;
    }
    e->s.refused++;
    m->stats.refused++;
    *ret_permit = (struct hs_permit){.retry_ns = e->s.retry_ns, .last_fail = e->s.last_fail};
    return HS_BREAKER_OPEN;
}

enum hs_breaker_state
hs_entry_permit(struct entry *e, struct machine *m, int64_t now_ns, struct hs_permit *ret_permit)
{
    struct probe *p;

    hs_entry_advance(e, m, now_ns);
    switch (e->s.state) {
    case HS_BREAKER_CLOSED:
        *ret_permit = permit_of(e, PERMIT_NORMAL, now_ns);
        break;
    case HS_BREAKER_OPEN:
        return breaker_entry_refuse(e, m, now_ns, ret_permit);
    case HS_BREAKER_HALF_OPEN:
        if ((p = free_probe(e, m, now_ns)) == NULL)
            return breaker_entry_refuse(e, m, now_ns, ret_permit);
        grant_probe(e, m, p, now_ns, ret_permit);
        break;
    }
    m->stats.permitted++;
    return e->s.state;
}

void
hs_entry_force(struct entry *e, struct machine *m, int64_t now_ns, struct hs_permit *ret_permit)
{
    hs_entry_advance(e, m, now_ns);
    *ret_permit = permit_of(e, PERMIT_FORCED, now_ns);
    m->stats.permitted++;
    m->stats.forced++;
}

/* ---- Reports -------------------------------------------------------------------------------- */

static void
breaker_entry_give_back(struct entry *e, const struct machine *m, uint64_t probe)
{
    for (int i = 0; probe != 0 && i < m->o.probes; i++)
        if (e->probes[i].id == probe)
            e->probes[i].id = 0;
}

static bool
too_many(struct entry *e, const struct machine *m, int64_t now_ns)
{
    if (m->o.failures > 0 && e->s.in_a_row >= (unsigned)m->o.failures)
        return true;
    if (m->o.rate_permille == 0)
        return false;
    hs_entry_sum(e, m, now_ns);
    return e->s.window_calls >= (unsigned)m->o.min_calls &&
           (uint64_t)e->s.window_failures * 1000 >=
               (uint64_t)m->o.rate_permille * e->s.window_calls;
}

static void
note_success(struct entry *e, struct machine *m, int64_t now_ns)
{
    if (e->s.state == HS_BREAKER_CLOSED) {
        count_call(e, m, false, now_ns);
        e->s.in_a_row = 0;
    } else if (++e->good_probes >= (unsigned)m->o.successes) {
        close_it(e, m, now_ns);
    }
}

static void
note_failure(struct entry *e, struct machine *m, unsigned weight, int64_t now_ns)
{
    switch (e->s.state) {
    case HS_BREAKER_CLOSED:
        count_call(e, m, true, now_ns);
        e->s.in_a_row += weight == HS_WEIGHT_OPENS ? 1 : weight;
        if (weight == HS_WEIGHT_OPENS || too_many(e, m, now_ns))
            open_it(e, m, now_ns);
        break;
    case HS_BREAKER_HALF_OPEN:
        e->s.in_a_row++;
        open_it(e, m, now_ns);
        break;
    case HS_BREAKER_OPEN: /* No permit of its generation but forced ones. */
        break;
    }
}

void
hs_entry_record(struct entry *e, struct machine *m, const struct hs_permit *permit,
                enum hs_fail fail, int64_t now_ns)
{
    unsigned weight = hs_fail_weight(&e->s.key, fail);

    hs_entry_advance(e, m, now_ns);
    e->s.calls += fail == HS_FAIL_NONE || weight > 0;
    if (weight > 0) {
        e->s.failures++;
        e->s.last_fail = fail;
        e->s.last_fail_ns = now_ns;
    }
    if (permit->kind == PERMIT_SHADOW)
        return;
    if (permit->generation != e->generation) {
        m->stats.late++;
        return;
    }
    breaker_entry_give_back(e, m, permit->probe);
    if (fail == HS_FAIL_NONE)
        note_success(e, m, now_ns);
    else if (weight > 0 && permit->kind != PERMIT_FORCED)
        note_failure(e, m, weight, now_ns);
}
