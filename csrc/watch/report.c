/* report.c: what this process has, as JSON, for a reader who may not need the interpreter.
 *
 * Each report takes references to what there is, asks each of them, and lets go. Locks are held
 * only while pointers or numbers are copied. Ages are seconds before the moment of the report;
 * times that are not known, or never were, are null.
 */
#include "json.h"

#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ONE "connection"

const char *
hs_report_name(enum hs_report_kind kind)
{
    static const char *const names[] = {
#define REPORT_NAME(name, text) text,
        HS_REPORTS_ALL(REPORT_NAME)
#undef REPORT_NAME
    };

    return kind < HS_REPORT_KINDS ? names[kind] : NULL;
}

const char *
hs_tcp_state_name(int state)
{
    static const char *const names[HS_TCP_STATES] = {
        NULL,    "established", "syn_sent", "syn_recv", "fin_wait1", "fin_wait2",    "time_wait",
        "close", "close_wait",  "last_ack", "listen",   "closing",   "new_syn_recv",
    };

    return state > 0 && state < HS_TCP_STATES ? names[state] : NULL;
}

/* take_TYPE: all that there are, as hs_conns and its like list them; NULL: no memory. */
#define DEFINE_TAKE(type, list)                                                                    \
    static struct type **take_##type(size_t *ret_n)                                                \
    {                                                                                              \
        struct type **all;                                                                         \
        size_t room, n;                                                                            \
                                                                                                   \
        *ret_n = 0;                                                                                \
        for (;;) {                                                                                 \
            room = list(NULL, 0) + 16;                                                             \
            if ((all = hs_sys_calloc(room, sizeof(struct type *))) == NULL)                        \
                return NULL;                                                                       \
            if ((n = list(all, room)) <= room)                                                     \
                break;                                                                             \
            for (size_t i = 0; i < room; i++) /* More were made meanwhile. */                      \
                type##_unref(all[i]);                                                              \
            free((void *)all);                                                                     \
        }                                                                                          \
        *ret_n = n;                                                                                \
        return all;                                                                                \
    }

DEFINE_TAKE(hs_conn, hs_conns)
DEFINE_TAKE(hs_pool, hs_pools)
DEFINE_TAKE(hs_listener, hs_listeners)
DEFINE_TAKE(hs_breaker, hs_breakers)
DEFINE_TAKE(hs_service, hs_services)

/* Writes one item; of an array of references it also lets go of its own. */
typedef void write_item(struct hs_json *j, const void *item, int64_t now);

/* The n items, each of the size, as a list of that name. takes: all; NULL: there was no memory. */
static void
write_list(struct hs_json *j, const char *key, void *all, size_t n, size_t size, write_item *item)
{
    int64_t now = hs_now();

    if (all == NULL) {
        j->failed = true;
        return;
    }
    hs_json_open(j, key, '[');
    for (size_t i = 0; i < n; i++)
        item(j, (const char *)all + i * size, now);
    hs_json_close(j, ']');
    free(all);
}

/* ---- Parts --------------------------------------------------------------------------------- */

static void
site(struct hs_json *j, const char *key, const struct hs_call_site *s)
{
    struct hs_call_site_name name;

    if (s == NULL) {
        hs_json_text(j, key, NULL);
        return;
    }
    hs_call_site_name(s, &name);
    hs_json_open(j, key, '{');
    hs_json_text(j, "file", name.file);
    hs_json_signed(j, "line", name.line);
    hs_json_text(j, "function", name.function);
    hs_json_close(j, '}');
}

static void
address(struct hs_json *j, const char *key, const struct hs_addr *addr)
{
    char text[HS_ADDR_TEXT_SIZE];

    hs_json_text(j, key, addr->len == 0 ? NULL : hs_addr_text(addr, text, sizeof(text)));
}

/* When, as how long ago; 0: never. */
static void
ago(struct hs_json *j, const char *key, int64_t at_ns, int64_t now)
{
    hs_json_seconds(j, key, at_ns == 0 ? HS_NEVER : at_ns > now ? 0 : now - at_ns);
}

static void
size(struct hs_json *j, const char *key, int n)
{
    if (n < 0)
        hs_json_text(j, key, NULL);
    else
        hs_json_signed(j, key, n);
}

/* Cumulative, as Prometheus has them: how many took no longer than each edge. */
static void
histogram(struct hs_json *j, const char *key, const struct hs_spread *s)
{
    uint64_t sum = 0;

    hs_json_open(j, key, '{');
    hs_json_number(j, "count", s->count);
    hs_json_seconds(j, "sum", (int64_t)s->sum_ns);
    hs_json_open(j, "buckets", '[');
    for (size_t i = 0; i < HS_EDGES; i++)
        hs_json_number(j, NULL, sum += s->buckets[i]);
    hs_json_close(j, ']');
    hs_json_close(j, '}');
}

/* ---- Connections --------------------------------------------------------------------------- */

static void
waits(struct hs_json *j, const char *key, const struct hs_conn_waits *w, int64_t now)
{
    hs_json_open(j, key, '{');
    hs_json_number(j, "count", w->count);
    hs_json_seconds(j, "total", w->total_ns);
    ago(j, "now", w->since_ns, now);
    hs_json_close(j, '}');
}

static void
write_row(struct hs_json *j, const struct hs_conn_row *r, int64_t now)
{
    hs_json_number(j, "id", r->id);
    hs_json_signed(j, "fd", r->fd);
    hs_json_text(j, "how", hs_made_name(r->how));
    site(j, "site", r->site);
    site(j, "holder", r->holder);
    hs_json_number(j, "thread", r->thread);
    address(j, "local", &r->local);
    address(j, "peer", &r->peer);
    hs_json_text(j, "phase", r->service != 0 ? hs_phase_name((enum hs_phase)r->phase) : NULL);
    hs_json_flag(j, "tls", r->tls);
    hs_json_text(j, "state", hs_tcp_state_name(r->tcp_state));
    ago(j, "age", r->info.created_ns, now);
    ago(j, "last_read", r->info.last_read_ns, now);
    ago(j, "last_write", r->info.last_write_ns, now);
    hs_json_number(j, "received", r->info.bytes_received);
    hs_json_number(j, "sent", r->info.bytes_sent);
    hs_json_number(j, "buffered", r->info.buffered);
    size(j, "unread", r->unread);
    size(j, "unsent", r->unsent);
    hs_json_number(j, "retransmits", r->retransmits);
    hs_json_seconds(j, "rtt", (int64_t)r->rtt_us * 1000);
    hs_json_flag(j, "poisoned", r->info.poisoned_in || r->info.poisoned_out);
    waits(j, "reading", &r->reading, now);
    waits(j, "writing", &r->writing, now);
    hs_json_seconds(j, "application", r->application_ns);
    hs_json_seconds(j, "gil", r->gil_ns);
}

static void
connection(struct hs_json *j, const void *item, int64_t now)
{
    hs_json_open(j, NULL, '{');
    write_row(j, item, now);
    hs_json_close(j, '}');
}

/* Rows of all that is open, or NULL. */
static struct hs_conn_row *
rows(size_t *ret_n)
{
    struct hs_conn_row *all = NULL;
    struct hs_conn **conns;
    size_t n, open = 0;

    *ret_n = 0;
    if ((conns = take_hs_conn(&n)) == NULL)
        return NULL;
    if ((all = hs_sys_malloc((n + 1) * sizeof(*all))) != NULL)
        for (size_t i = 0; i < n; i++) {
            hs_conn_describe(conns[i], &all[open]);
            open += all[open].fd >= 0;
        }
    for (size_t i = 0; i < n; i++)
        hs_conn_unref(conns[i]);
    free((void *)conns);
    *ret_n = open;
    return all;
}

static void
write_connections(struct hs_json *j)
{
    size_t n;
    struct hs_conn_row *all = rows(&n);

    write_list(j, "connections", all, n, sizeof(*all), connection);
}

/* ---- Sites --------------------------------------------------------------------------------- */

/* The line that is to be named for a row: of a pool's connection, who has borrowed it. */
static const struct hs_call_site *
named(const struct hs_conn_row *r)
{
    return r->holder != NULL ? r->holder : r->site;
}

static const char *
kind_of(const struct hs_conn_row *r)
{
    if (r->how != HS_MADE_POOL)
        return hs_made_name(r->how);
    return r->holder != NULL ? "lent" : "idle";
}

static int
by_site(const void *a, const void *b)
{
    const struct hs_conn_row *x = a, *y = b;
    uintptr_t at = (uintptr_t)named(x), other = (uintptr_t)named(y);

    if (at != other)
        return at < other ? -1 : 1;
    return strcmp(kind_of(x), kind_of(y));
}

static int64_t
report_last_use(const struct hs_conn_row *r)
{
    int64_t at = r->info.created_ns;

    if (r->info.last_read_ns > at)
        at = r->info.last_read_ns;
    return r->info.last_write_ns > at ? r->info.last_write_ns : at;
}

/* n rows of one site and kind. */
static void
group(struct hs_json *j, const struct hs_conn_row *r, size_t n, int64_t now)
{
    int64_t oldest = now, idle = now;
    uint64_t received = 0, sent = 0, unread = 0, unsent = 0, retransmits = 0, waiting = 0;

    for (size_t i = 0; i < n; i++) {
        oldest = hs_min_ns(oldest, r[i].info.created_ns);
        idle = hs_min_ns(idle, report_last_use(&r[i]));
        received += r[i].info.bytes_received;
        sent += r[i].info.bytes_sent;
        unread += r[i].unread > 0 ? (uint64_t)r[i].unread : 0;
        unsent += r[i].unsent > 0 ? (uint64_t)r[i].unsent : 0;
        retransmits += r[i].retransmits;
        waiting += r[i].reading.since_ns != 0 || r[i].writing.since_ns != 0;
    }
    hs_json_open(j, NULL, '{');
    site(j, "site", named(r));
    hs_json_text(j, "how", kind_of(r));
    hs_json_number(j, "open", n);
    ago(j, "oldest", oldest, now);
    ago(j, "idle", idle, now);
    hs_json_number(j, "received", received);
    hs_json_number(j, "sent", sent);
    hs_json_number(j, "unread", unread);
    hs_json_number(j, "unsent", unsent);
    hs_json_number(j, "retransmits", retransmits);
    hs_json_number(j, "waiting", waiting);
    hs_json_close(j, '}');
}

static void
total(struct hs_json *j, const void *item, int64_t now)
{
    const struct hs_call_site *s = *(const struct hs_call_site *const *)item;
    struct hs_call_site_counts c;

    (void)now;
    hs_call_site_counts(s, &c);
    if (c.opened == 0 && c.leaked == 0)
        return;
    hs_json_open(j, NULL, '{');
    site(j, "site", s);
    hs_json_number(j, "opened", c.opened);
    hs_json_number(j, "leaked", c.leaked);
    hs_json_number(j, "received", c.received);
    hs_json_number(j, "sent", c.sent);
    hs_json_close(j, '}');
}

static void
write_totals(struct hs_json *j)
{
    size_t n = 0, room = hs_call_sites(NULL, 0) + 16;
    struct hs_call_site **all = hs_sys_calloc(room, sizeof(struct hs_call_site *));

    if (all != NULL && (n = hs_call_sites(all, room)) > room)
        n = room;
    write_list(j, "totals", (void *)all, n, sizeof(struct hs_call_site *), total);
}

static void
write_sites(struct hs_json *j)
{
    size_t n;
    struct hs_conn_row *all = rows(&n);
    int64_t now = hs_now();

    if (all == NULL) {
        j->failed = true;
        return;
    }
    if (n > 1)
        qsort(all, n, sizeof(*all), by_site);
    hs_json_open(j, "sites", '[');
    for (size_t from = 0, to; from < n; from = to) {
        for (to = from + 1; to < n && by_site(&all[from], &all[to]) == 0; to++)
            continue;
        group(j, &all[from], to - from, now);
    }
    hs_json_close(j, ']');
    free(all);
    write_totals(j);
}

/* ---- Pools --------------------------------------------------------------------------------- */

static void
spread_of(const struct hs_histogram *h, struct hs_spread *ret_spread)
{
    *ret_spread = (struct hs_spread){.count = h->count, .sum_ns = h->sum_ns};
    memcpy(ret_spread->buckets, h->edges, sizeof(h->edges));
}

/* clang-format off */
#define POOL_NUMBERS(X)                                                                            \
    X(max_size) X(idle) X(lent) X(dialing) X(handshaking) X(closing) X(waiting) X(dial_failures)   \
    HS_POOL_COUNTS_ALL(X)
/* clang-format on */

static void
pool_reasons(struct hs_json *j, const uint64_t closed[HS_POOL_REASON_COUNT])
{
    hs_json_open(j, "closed_by_reason", '{');
    for (int i = HS_POOL_NONE + 1; i < HS_POOL_REASON_COUNT; i++)
        hs_json_number(j, hs_pool_reason_name((enum hs_pool_reason)i), closed[i]);
    hs_json_close(j, '}');
}

static void
pool_numbers(struct hs_json *j, struct hs_pool *p)
{
    struct hs_pool_label label;
    struct hs_pool_stats s;
    struct hs_spread spread;

    hs_pool_stats(p, &s);
    hs_pool_label(p, &label);
    hs_json_text(j, "name", label.name);
    hs_json_flag(j, "named", label.named);
    hs_json_number(j, "id", label.id);
    site(j, "site", label.site);
    hs_json_flag(j, "is_closed", hs_pool_is_closed(p));
#define POOL_NUMBER(name) hs_json_number(j, #name, s.name);
    POOL_NUMBERS(POOL_NUMBER)
#undef POOL_NUMBER
    pool_reasons(j, s.closed_by_reason);
    hs_json_text(j, "dial_error", s.dial_error.code == HS_OK ? NULL : s.dial_error.msg);
    spread_of(&s.wait, &spread);
    histogram(j, "wait_seconds", &spread);
    spread_of(&s.usage, &spread);
    histogram(j, "use_seconds", &spread);
    spread_of(&s.dial, &spread);
    histogram(j, "dial_seconds", &spread);
}

#define NAMED_MAX 1000 /* of those who hold and who wait: the longest */

static void
pool_people(struct hs_json *j, struct hs_pool *p)
{
    struct hs_held *held = hs_sys_calloc(NAMED_MAX, sizeof(*held));
    struct hs_waiting *waiting = hs_sys_calloc(NAMED_MAX, sizeof(*waiting));
    size_t n_held = held == NULL ? 0 : hs_pool_holders(p, held, NAMED_MAX);
    size_t n_waiting = waiting == NULL ? 0 : hs_pool_waiting(p, waiting, NAMED_MAX);

    j->failed |= held == NULL || waiting == NULL;
    hs_json_open(j, "holders", '[');
    for (size_t i = 0; i < n_held && i < NAMED_MAX; i++) {
        hs_json_open(j, NULL, '{');
        site(j, "site", held[i].site);
        hs_json_number(j, "thread", held[i].lent.holder.thread);
        hs_json_signed(j, "fd", held[i].lent.fd);
        hs_json_seconds(j, "age", held[i].lent.age_ns);
        hs_json_number(j, "received", held[i].lent.bytes_received);
        hs_json_number(j, "sent", held[i].lent.bytes_sent);
        hs_json_flag(j, "overdue", held[i].lent.overdue);
        hs_json_close(j, '}');
    }
    hs_json_close(j, ']');
    hs_json_open(j, "waiters", '[');
    for (size_t i = 0; i < n_waiting && i < NAMED_MAX; i++) {
        hs_json_open(j, NULL, '{');
        site(j, "site", waiting[i].site);
        hs_json_number(j, "thread", waiting[i].thread);
        hs_json_seconds(j, "age", waiting[i].age_ns);
        hs_json_close(j, '}');
    }
    hs_json_close(j, ']');
    free(held);
    free(waiting);
}

static void
pool(struct hs_json *j, struct hs_pool *p, bool people)
{
    hs_json_open(j, NULL, '{');
    pool_numbers(j, p);
    if (people)
        pool_people(j, p);
    hs_json_close(j, '}');
    hs_pool_unref(p);
}

static void
pool_in_numbers(struct hs_json *j, const void *item, int64_t now)
{
    (void)now;
    pool(j, *(struct hs_pool *const *)item, false);
}

static void
pool_in_full(struct hs_json *j, const void *item, int64_t now)
{
    (void)now;
    pool(j, *(struct hs_pool *const *)item, true);
}

static void
write_pools(struct hs_json *j)
{
    size_t n;
    struct hs_pool **all = take_hs_pool(&n);

    write_list(j, "pools", (void *)all, n, sizeof(struct hs_pool *), pool_in_full);
}

static void
pool_ended(struct hs_json *j, const void *item, int64_t now)
{
    const struct hs_pool_ended *e = item;

    (void)now;
    if ((e->opened | e->timeouts | e->cancelled | e->refused | e->failed) == 0)
        return; /* It has had no use. */
    hs_json_open(j, NULL, '{');
    hs_json_text(j, "name", e->name);
    hs_json_flag(j, "named", e->named);
#define ENDED_NUMBER(name) hs_json_number(j, #name, e->name);
    HS_POOL_COUNTS_ALL(ENDED_NUMBER)
#undef ENDED_NUMBER
    pool_reasons(j, e->closed_by_reason);
    histogram(j, "wait_seconds", &e->wait);
    histogram(j, "use_seconds", &e->usage);
    histogram(j, "dial_seconds", &e->dial);
    hs_json_close(j, '}');
}

/* All that have been, in numbers: what has once been counted is in one list or the other. */
static void
write_pool_numbers(struct hs_json *j)
{
    struct hs_pool_ended *ended = hs_sys_calloc(HS_POOLS_ENDED_MAX, sizeof(*ended));
    struct hs_pool **all = NULL;
    size_t room, n = 0, n_ended = 0;

    while (ended != NULL) {
        room = n + 16;
        if ((all = hs_sys_calloc(room, sizeof(struct hs_pool *))) == NULL ||
            (n = hs_pools_ever(all, room, ended, &n_ended)) <= room)
            break;
        for (size_t i = 0; i < room; i++) /* There are more. */
            hs_pool_unref(all[i]);
        free((void *)all);
    }
    if (ended == NULL || all == NULL)
        j->failed = true;
    write_list(j, "pools", (void *)all, n, sizeof(struct hs_pool *), pool_in_numbers);
    write_list(j, "pools_ended", ended, n_ended, sizeof(*ended), pool_ended);
}

/* ---- Servers, breakers, events ------------------------------------------------------------- */

static void
server(struct hs_json *j, const void *item, int64_t now)
{
    struct hs_listener *l = *(struct hs_listener *const *)item;
    struct hs_listener_stats s;
    struct hs_addr addr;

    (void)now;
    hs_listener_stats(l, &s);
    if (hs_listener_addr(l, NULL, &addr) != HS_OK)
        addr.len = 0;
    hs_json_open(j, NULL, '{');
    hs_json_number(j, "id", hs_listener_id(l));
    address(j, "address", &addr);
    hs_json_signed(j, "fd", hs_listener_fileno(l));
    hs_json_number(j, "accepted", s.accepted);
    hs_json_number(j, "shed", s.shed);
    hs_json_number(j, "exhausted", s.exhausted);
    hs_json_number(j, "aborted", s.aborted);
    size(j, "queue", s.queue_length);
    size(j, "backlog", s.backlog_effective);
    hs_json_flag(j, "tls", s.tls);
    hs_json_number(j, "handshakes", s.handshakes.in_progress);
    hs_json_number(j, "handshakes_completed", s.handshakes.completed);
    hs_json_close(j, '}');
    hs_listener_unref(l);
}

static const char *
state_of(const struct hs_service_row *r)
{
    if (r->ended_ns != 0)
        return "ended";
    if (r->draining_ns != 0)
        return "draining";
    if (!r->accepts)
        return "failing";
    return r->limit != 0 && r->phases[HS_PHASE_WAITING] + r->phases[HS_PHASE_PARKED] +
                                    r->phases[HS_PHASE_BUSY] >=
                                r->limit
               ? "full"
               : "accepting";
}

static void
service(struct hs_json *j, const void *item, int64_t now)
{
    struct hs_service *s = *(struct hs_service *const *)item;
    struct hs_service_row r;

    hs_service_describe(s, &r);
    hs_conns_by_phase(r.id, r.phases);
    hs_json_open(j, NULL, '{');
    hs_json_number(j, "id", r.id);
    hs_json_text(j, "name", r.name);
    hs_json_text(j, "kind", hs_service_kind_name(r.kind));
    hs_json_text(j, "state", state_of(&r));
    ago(j, "draining", r.draining_ns, now);
    hs_json_number(j, "limit", r.limit);
    for (int i = 0; i < HS_PHASES; i++)
        hs_json_number(j, hs_phase_name((enum hs_phase)i), r.phases[i]);
    for (int i = 0; i < HS_SERVICE_COUNTS; i++)
        hs_json_number(j, hs_service_count_name((enum hs_service_count)i), r.counts[i]);
    hs_json_close(j, '}');
    hs_service_unref(s);
}

static void
write_services(struct hs_json *j)
{
    size_t n;
    struct hs_service **all = take_hs_service(&n);

    write_list(j, "services", (void *)all, n, sizeof(struct hs_service *), service);
}

static void
write_servers(struct hs_json *j)
{
    size_t n;
    struct hs_listener **all = take_hs_listener(&n);

    write_list(j, "servers", (void *)all, n, sizeof(struct hs_listener *), server);
    write_services(j);
}

#define STATES_MAX 1000 /* keys of one breaker that are told */

static void
breaker(struct hs_json *j, const void *item, int64_t now)
{
    struct hs_breaker *b = *(struct hs_breaker *const *)item;
    struct hs_breaker_status *s = hs_sys_calloc(STATES_MAX, sizeof(*s));
    char text[HS_BREAKER_KEY_TEXT_SIZE];
    size_t n = s == NULL ? 0 : hs_breaker_states(b, now, s, STATES_MAX);

    j->failed |= s == NULL;
    for (size_t i = 0; i < n && i < STATES_MAX; i++) {
        hs_json_open(j, NULL, '{');
        hs_json_text(j, "key", hs_breaker_key_text(&s[i].key, text, sizeof(text)));
        hs_json_text(j, "state", hs_breaker_state_name(s[i].state));
        ago(j, "opened", s[i].opened_ns, now);
        hs_json_seconds(j, "retry_in",
                        s[i].retry_ns == 0 || s[i].retry_ns == HS_NEVER ? HS_NEVER
                        : s[i].retry_ns < now                           ? 0
                                                                        : s[i].retry_ns - now);
        hs_json_number(j, "calls", s[i].calls);
        hs_json_number(j, "failures", s[i].failures);
        hs_json_number(j, "refused", s[i].refused);
        hs_json_close(j, '}');
    }
    free(s);
    hs_breaker_unref(b);
}

static void
write_breakers(struct hs_json *j)
{
    size_t n;
    struct hs_breaker **all = take_hs_breaker(&n);

    write_list(j, "breakers", (void *)all, n, sizeof(struct hs_breaker *), breaker);
}

static void
event(struct hs_json *j, const void *item, int64_t now)
{
    const struct hs_event *e = item;

    hs_json_open(j, NULL, '{');
    hs_json_number(j, "number", e->number);
    hs_json_text(j, "kind", hs_event_name((enum hs_event_kind)e->kind));
    ago(j, "age", e->at_ns, now);
    hs_json_text(j, "what", e->text);
    hs_json_text(j, "error", e->code == HS_OK ? NULL : hs_err_text(e->code));
    hs_json_signed(j, "errno", e->sys);
    size(j, "fd", e->fd > 0 ? e->fd : -1);
    hs_json_seconds(j, "span", e->span_ns == 0 ? HS_NEVER : e->span_ns);
    site(j, "site", e->site);
    hs_json_number(j, "thread", e->thread);
    hs_json_close(j, '}');
}

static void
write_events(struct hs_json *j)
{
    struct hs_event *all = hs_sys_calloc(HS_EVENTS_MAX, sizeof(*all));
    size_t n = all == NULL ? 0 : hs_events(all, HS_EVENTS_MAX);

    write_list(j, "events", all, n, sizeof(*all), event);
}

/* ---- Metrics ------------------------------------------------------------------------------- */

static void
write_open(struct hs_json *j)
{
    uint64_t open[HS_MADE_KINDS];
    struct hs_spread ages;

    hs_conns_count(open, &ages);
    hs_json_open(j, "open_connections", '{');
    for (int how = 0; how < HS_MADE_KINDS; how++)
        hs_json_number(j, hs_made_name((enum hs_made)how), open[how]);
    hs_json_close(j, '}');
    histogram(j, "live_conn_age", &ages);
}

static void
write_process(struct hs_json *j)
{
    struct hs_reset_counts r;
    struct hs_resolver_stats s;
    struct hs_fd_usage fds;

    hs_fd_usage(&fds);
    hs_json_open(j, "descriptors", '{');
    hs_json_signed(j, "open", fds.open);
    size(j, "limit", fds.limit > INT32_MAX ? -1 : (int)fds.limit);
    hs_json_close(j, '}');
    hs_reset_counts(&r);
    hs_json_open(j, "resets", '{');
    hs_json_number(j, "by_peer", r.by_peer);
    hs_json_number(j, "dead_peer", r.dead_peer);
    hs_json_number(j, "by_abort", r.by_abort);
    hs_json_number(j, "by_linger", r.by_linger);
    hs_json_number(j, "by_unread", r.by_unread);
    hs_json_close(j, '}');
    hs_resolver_stats(&s);
    hs_json_open(j, "resolver", '{');
    hs_json_signed(j, "running", s.running);
    hs_json_signed(j, "queued", s.queued);
    hs_json_signed(j, "orphans", s.orphans);
    hs_json_seconds(j, "oldest_orphan", s.oldest_orphan_ns);
    hs_json_number(j, "started", s.started);
    hs_json_number(j, "abandoned", s.abandoned);
    hs_json_close(j, '}');
}

static void
write_guards(struct hs_json *j)
{
    hs_json_open(j, "guards", '{');
    hs_json_number(j, "running", hs_guards_running());
    hs_json_open(j, "decisions", '{');
    for (int i = 0; i < HS_GUARD_OUTCOMES; i++)
        hs_json_number(j, hs_guard_outcome_name((enum hs_guard_outcome)i),
                       hs_guard_counted((enum hs_guard_outcome)i));
    hs_json_close(j, '}');
    hs_json_close(j, '}');
}

static void
write_ever(struct hs_json *j)
{
    hs_json_open(j, "ever", '{');
    hs_json_open(j, "listeners", '{');
    for (int i = 0; i < HS_LISTENER_COUNTS; i++)
        hs_json_number(j, hs_listener_count_name((enum hs_listener_count)i),
                       hs_listeners_counted((enum hs_listener_count)i));
    hs_json_close(j, '}');
    hs_json_open(j, "servers", '{');
    for (int i = 0; i < HS_SERVICE_COUNTS; i++)
        hs_json_number(j, hs_service_count_name((enum hs_service_count)i),
                       hs_services_counted((enum hs_service_count)i));
    hs_json_close(j, '}');
    hs_json_close(j, '}');
}

static void
write_metrics(struct hs_json *j)
{
    struct hs_spread spread;

    write_open(j);
    write_process(j);
    hs_json_open(j, "events", '{');
    for (int kind = 0; kind < HS_EVENT_KINDS; kind++)
        hs_json_number(j, hs_event_name((enum hs_event_kind)kind),
                       hs_event_count((enum hs_event_kind)kind));
    hs_json_close(j, '}');
    hs_json_open(j, "edges", '[');
    for (size_t i = 0; i < HS_EDGES; i++)
        hs_json_seconds(j, NULL, hs_edge_ns(i));
    hs_json_close(j, ']');
    hs_json_open(j, "seconds", '{');
    for (int i = 0; i < HS_SPANS; i++) {
        hs_span_read((enum hs_span)i, &spread);
        histogram(j, hs_span_name((enum hs_span)i), &spread);
    }
    hs_json_close(j, '}');
    write_pool_numbers(j);
    write_servers(j);
    write_ever(j);
    write_breakers(j);
    write_guards(j);
}

/* ---- The whole ----------------------------------------------------------------------------- */

static void
begin_report(struct hs_json *j, const char *name)
{
    hs_json_open(j, NULL, '{');
    hs_json_number(j, "version", HS_REPORT_VERSION);
    hs_json_text(j, "report", name);
    hs_json_signed(j, "pid", getpid());
    hs_json_signed(j, "at", hs_calendar_s());
}

hs_err
hs_report(enum hs_report_kind kind, struct hs_error *err, char **ret_text, size_t *ret_len)
{
    static void (*const writers[])(struct hs_json *) = {
        [HS_REPORT_METRICS] = write_metrics, [HS_REPORT_CONNECTIONS] = write_connections,
        [HS_REPORT_SITES] = write_sites,     [HS_REPORT_POOLS] = write_pools,
        [HS_REPORT_SERVERS] = write_servers, [HS_REPORT_BREAKERS] = write_breakers,
        [HS_REPORT_EVENTS] = write_events,
    };
    struct hs_json j = {0};

    if (kind >= HS_REPORT_KINDS)
        return hs_err_setx(err, HS_E_INVALID, "report", "there is no such report");
    begin_report(&j, hs_report_name(kind));
    writers[kind](&j);
    hs_json_close(&j, '}');
    return hs_json_end(&j, err, ret_text, ret_len);
}

/* What the kernel tells now; null: it is not TCP, or has ended meanwhile. */
static void
write_tcp(struct hs_json *j, struct hs_conn *c)
{
    struct hs_tcp_field fields[HS_TCP_FIELDS_MAX];
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    size_t n;

    if (hs_conn_getsockopt(c, IPPROTO_TCP, TCP_INFO, &info, &len, NULL) != HS_OK) {
        hs_json_text(j, "tcp", NULL);
        return;
    }
    hs_json_open(j, "tcp", '{');
    n = hs_tcp_fields(&info, len, fields);
    for (size_t i = 0; i < n; i++)
        hs_json_number(j, fields[i].name, fields[i].value);
    hs_json_close(j, '}');
}

static hs_err
report_one(uint64_t id, struct hs_error *err, char **ret_text, size_t *ret_len)
{
    struct hs_conn_row row = {.fd = -1};
    struct hs_json j = {0};
    struct hs_conn *c = hs_conn_find(id);

    if (c != NULL)
        hs_conn_describe(c, &row);
    if (row.fd >= 0) {
        begin_report(&j, ONE);
        hs_json_open(&j, ONE, '{');
        write_row(&j, &row, hs_now());
        write_tcp(&j, c);
        hs_json_close(&j, '}');
        hs_json_close(&j, '}');
    }
    if (c != NULL)
        hs_conn_unref(c);
    if (row.fd < 0)
        return hs_err_setx(err, HS_E_CLOSED, "report",
                           "there is no open connection with the id %" PRIu64, id);
    return hs_json_end(&j, err, ret_text, ret_len);
}

hs_err
hs_report_asked(const char *request, struct hs_error *err, char **ret_text, size_t *ret_len)
{
    static const char one[] = ONE " ";
    enum hs_report_kind kind = HS_REPORT_METRICS;
    const char *digits = request + sizeof(one) - 1;
    uint64_t id;
    char *end;

    if (strncmp(request, one, sizeof(one) - 1) == 0 && *digits >= '0' && *digits <= '9') {
        errno = 0;
        id = strtoull(digits, &end, 10);
        if (*end == '\0' && errno == 0)
            return report_one(id, err, ret_text, ret_len);
    }
    while (kind < HS_REPORT_KINDS && strcmp(request, hs_report_name(kind)) != 0)
        kind++;
    return hs_report(kind, err, ret_text, ret_len);
}
