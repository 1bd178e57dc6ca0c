/* service.c: what the servers of this process say of themselves, for those who look from outside.
 *
 * A driver (threads, tasks of an event loop, a supervisor of processes) makes one, says when it
 * drains and when that is over, and counts what ends. How many connections are where is not
 * counted: each connection has the service's number and its phase (hs_conn_set_phase), and who
 * wants to know walks over them, so that nothing can disagree. A supervisor has none, and says what
 * its processes have said.
 *
 * Everything is atomic or immutable; there is no lock but the roster's.
 */
#include "ever.h"
#include "shed.h"

#include "../base/check.h"
#include "../base/err.h"
#include "../base/lock.h"
#include "../base/recorder.h"
#include "../base/roster.h"
#include "../base/sys.h"
#include "../base/time.h"
#include "../cancel/waker.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVICE_MAGIC 0x5e7b1ceU
#define FREED 0x5e

struct hs_service {
    unsigned magic;
    atomic_int refs;
    struct hs_list roster; /* roster.h */
    unsigned generation;   /* hs_fork_generation() in which it was made: immutable, as the next */
    uint32_t id;           /* never used again */
    uint64_t limit;
    enum hs_service_kind kind;
    char name[HS_SERVICE_NAME_SIZE];
    atomic_bool accepts; /* false while accepting fails */
    _Atomic int64_t draining_ns, ended_ns;
    _Atomic uint64_t counts[HS_SERVICE_COUNTS]; /* only ever counters, but a supervisor's */
    _Atomic uint64_t told[HS_PHASES];           /* by a supervisor */
};

static _Atomic uint32_t last_id;

const char *
hs_service_kind_name(enum hs_service_kind kind)
{
    static const char *const names[] = {
#define KIND_NAME(name, text) text,
        HS_SERVICE_KINDS_ALL(KIND_NAME)
#undef KIND_NAME
    };

    HS_ASSERT(kind < HS_SERVICE_KINDS);
    return names[kind];
}

const char *
hs_service_count_name(enum hs_service_count which)
{
    static const char *const names[] = {
#define COUNT_NAME(name, text) text,
        HS_SERVICE_COUNTS_ALL(COUNT_NAME)
#undef COUNT_NAME
    };

    HS_ASSERT(which < HS_SERVICE_COUNTS);
    return names[which];
}

const char *
hs_phase_name(enum hs_phase phase)
{
    static const char *const names[] = {
#define PHASE_NAME(name, text) text,
        HS_PHASES_ALL(PHASE_NAME)
#undef PHASE_NAME
    };

    HS_ASSERT(phase < HS_PHASES);
    return names[phase];
}

hs_err
hs_service_new(enum hs_service_kind kind, const char *name, uint64_t limit, struct hs_error *err,
               struct hs_service **ret_s)
{
    struct hs_service *s = hs_sys_calloc(1, sizeof(*s));

    HS_ASSERT(kind < HS_SERVICE_KINDS);
    if (s == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "serve", "no memory for a server's state");
    s->magic = SERVICE_MAGIC;
    s->refs = 1;
    s->generation = hs_fork_generation();
    s->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
    s->limit = limit;
    s->kind = kind;
    s->accepts = true;
    (void)snprintf(s->name, sizeof(s->name), "%s", name);
    hs_roster_add(HS_ROSTER_SERVICES, &s->roster);
    *ret_s = s;
    return HS_OK;
}

void
hs_service_unref(struct hs_service *s)
{
    if (s == NULL)
        return;
    HS_CHECK(s, SERVICE_MAGIC);
    if (atomic_fetch_sub(&s->refs, 1) != 1)
        return;
    hs_roster_remove(HS_ROSTER_SERVICES, &s->roster);
    memset(s, FREED, sizeof(*s));
    free(s);
}

static bool
service_take(struct hs_list *link, size_t i, void *arg)
{
    struct hs_service *s = HS_CONTAINER(link, struct hs_service, roster);

    ((struct hs_service **)arg)[i] = s;
    return s->generation == hs_fork_generation() && hs_roster_try_ref(&s->refs);
}

size_t
hs_services(struct hs_service **services, size_t room)
{
    return hs_roster_take(HS_ROSTER_SERVICES, room, service_take, services);
}

uint32_t
hs_service_id(const struct hs_service *s)
{
    HS_CHECK(s, SERVICE_MAGIC);
    return s->id;
}

void
hs_service_set_accepts(struct hs_service *s, bool accepts)
{
    HS_CHECK(s, SERVICE_MAGIC);
    atomic_store(&s->accepts, accepts);
}

void
hs_service_count(struct hs_service *s, enum hs_service_count which)
{
    HS_CHECK(s, SERVICE_MAGIC);
    HS_ASSERT(which < HS_SERVICE_COUNTS);
    atomic_fetch_add_explicit(&s->counts[which], 1, memory_order_relaxed);
    hs_ever_count_service(which);
    if (which == HS_SERVICE_REFUSED)
        hs_shed_note(HS_SHED_GUARD, s->name);
}

void
hs_service_tell(struct hs_service *s, const uint64_t phases[HS_PHASES],
                const uint64_t counts[HS_SERVICE_COUNTS])
{
    HS_CHECK(s, SERVICE_MAGIC);
    for (int i = 0; i < HS_PHASES; i++)
        atomic_store_explicit(&s->told[i], phases[i], memory_order_relaxed);
    for (int i = 0; i < HS_SERVICE_COUNTS; i++)
        atomic_store_explicit(&s->counts[i], counts[i], memory_order_relaxed);
}

void
hs_service_drains(struct hs_service *s)
{
    int64_t not_yet = 0;

    HS_CHECK(s, SERVICE_MAGIC);
    (void)atomic_compare_exchange_strong(&s->draining_ns, &not_yet, hs_now());
}

void
hs_service_ended(struct hs_service *s)
{
    int64_t not_yet = 0, now = hs_now(), since;
    struct hs_event e = {.span_ns = 0};

    hs_service_drains(s);
    if (!atomic_compare_exchange_strong(&s->ended_ns, &not_yet, now))
        return;
    since = atomic_load(&s->draining_ns);
    e.span_ns = now > since ? now - since : 1;
    hs_event_text(&e, s->name);
    hs_event_note(HS_EVENT_DRAINED, &e);
}

void
hs_service_describe(const struct hs_service *s, struct hs_service_row *ret_row)
{
    struct hs_service_row row = {0};

    HS_CHECK(s, SERVICE_MAGIC);
    row.id = s->id;
    row.kind = s->kind;
    row.name = s->name;
    row.limit = s->limit;
    row.accepts = atomic_load(&s->accepts);
    row.draining_ns = atomic_load(&s->draining_ns);
    row.ended_ns = atomic_load(&s->ended_ns);
    for (int i = 0; i < HS_SERVICE_COUNTS; i++)
        row.counts[i] = atomic_load_explicit(&s->counts[i], memory_order_relaxed);
    for (int i = 0; i < HS_PHASES; i++)
        row.phases[i] = atomic_load_explicit(&s->told[i], memory_order_relaxed);
    *ret_row = row;
}
