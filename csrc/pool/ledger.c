/* ledger.c: the table of call sites that borrow, and the list of what is lent.
 *
 * See ledger_table.h. Who borrows is a handful of numbers in the member itself, so that borrowing
 * costs no allocation; names for them are found by the one who asks.
 */
#include "ledger_table.h"

#include "../base/recorder.h"
#include "../base/sys.h"
#include "pool_impl.h"

#include <stdlib.h>

void
hs_ledger_forget_lent(struct ledger *l)
{
    l->other.lent = 0;
    for (size_t i = 0; i < SITE_BUCKETS; i++)
        for (struct ledger_site *s = l->buckets[i]; s != NULL; s = s->next)
            s->lent = 0;
}

bool
hs_pool_know_site(struct hs_pool *p, const struct hs_holder *holder, struct hs_call_site *where)
{
    struct ledger_site *made, *s;
    size_t i;

    HS_CHECK(p, POOL_MAGIC);
    hs_lock_take(&p->lock);
    s = site_find(&p->ledger, holder);
    hs_lock_drop(&p->lock);
    if (s != NULL || (made = hs_sys_calloc(1, sizeof(*made))) == NULL)
        return false;
    made->code = holder->code;
    made->at = holder->at;
    made->where = where != NULL ? where : hs_call_site_unknown();
    i = site_hash(holder->code, holder->at);
    hs_lock_take(&p->lock);
    if (p->ledger.n < SITES_MAX && site_find(&p->ledger, holder) == NULL) {
        made->next = p->ledger.buckets[i];
        p->ledger.buckets[i] = made;
        p->ledger.n++;
        made = NULL;
    }
    hs_lock_drop(&p->lock);
    free(made);
    return made == NULL;
}

void
hs_pool_forget_sites(struct hs_pool *p, void (*release)(const void *code))
{
    HS_CHECK(p, POOL_MAGIC);
    for (size_t i = 0; i < SITE_BUCKETS; i++)
        while (p->ledger.buckets[i] != NULL) {
            struct ledger_site *s = p->ledger.buckets[i];

            p->ledger.buckets[i] = s->next;
            if (release != NULL)
                release(s->code);
            free(s);
        }
    p->ledger.n = 0;
}

/* ---- Telling ------------------------------------------------------------------------------- */

struct hs_lent
hs_ledger_describe_locked(const struct hs_member *m, int64_t boot_now)
{
    struct hs_lent l = {
        .holder = m->holder,
        .id = m->lent_as,
        .times_lent = m->times_lent,
        .age_ns = boot_now - m->since_boot,
        .endpoint = m->endpoint,
        .overdue = m->overdue,
        .fd = -1,
    };

    hs_conn_since(m->conn, &m->lent, &l.bytes_received, &l.bytes_sent);
    l.fd = hs_conn_peek_fd(m->conn);
    return l;
}

size_t
hs_pool_lent(struct hs_pool *p, struct hs_lent *lent, size_t n)
{
    int64_t boot_now = hs_boot_now();
    size_t total = 0;

    HS_CHECK(p, POOL_MAGIC);
    hs_lock_take(&p->lock);
    for (const struct hs_list *l = p->lent.next; l != &p->lent; l = l->next, total++)
        if (total < n)
            lent[total] =
                hs_ledger_describe_locked(HS_CONTAINER(l, struct hs_member, link), boot_now);
    hs_lock_drop(&p->lock);
    return total;
}

size_t
hs_pool_holders(struct hs_pool *p, struct hs_held *held, size_t n)
{
    int64_t boot_now = hs_boot_now();
    size_t total = 0;

    HS_CHECK(p, POOL_MAGIC);
    hs_lock_take(&p->lock);
    for (const struct hs_list *l = p->lent.next; l != &p->lent; l = l->next, total++)
        if (total < n) {
            const struct hs_member *m = HS_CONTAINER(l, struct hs_member, link);

            held[total] = (struct hs_held){hs_ledger_describe_locked(m, boot_now), m->site->where};
        }
    hs_lock_drop(&p->lock);
    return total;
}

static void
describe_site(const struct ledger_site *s, struct hs_call_site_stats *sites, size_t n,
              size_t *total)
{
    if (s->acquired == 0)
        return;
    if (*total < n)
        sites[*total] = (struct hs_call_site_stats){
            .code = s->code,
            .at = s->at,
            .lent = s->lent,
            .acquired = s->acquired,
            .lost = s->lost,
            .overdue = s->overdue,
            .dirty = s->dirty,
            .held_max_ns = s->held_max_ns,
            .held_sum_ns = s->held_sum_ns,
        };
    (*total)++;
}

size_t
hs_pool_sites(struct hs_pool *p, struct hs_call_site_stats *sites, size_t n)
{
    size_t total = 0;

    HS_CHECK(p, POOL_MAGIC);
    hs_lock_take(&p->lock);
    for (size_t i = 0; i < SITE_BUCKETS; i++)
        for (const struct ledger_site *s = p->ledger.buckets[i]; s != NULL; s = s->next)
            describe_site(s, sites, n, &total);
    describe_site(&p->ledger.other, sites, n, &total);
    hs_lock_drop(&p->lock);
    return total;
}

/* ---- Overdue ------------------------------------------------------------------------------- */

static void
note_overdue(const struct hs_pool *p, const struct hs_member *m, int64_t boot_now)
{
    struct hs_event e = {.site = m->site->where, .span_ns = boot_now - m->since_boot};

    hs_event_text(&e, p->name);
    hs_event_note(HS_EVENT_OVERDUE, &e);
}

int64_t
hs_ledger_note_overdue_locked(struct hs_pool *p, int64_t boot_now, struct deferred *d)
{
    int64_t limit = p->o.overdue_after_ns;

    if (limit == HS_NEVER)
        return HS_NEVER;
    for (struct hs_list *l = p->lent.next; l != &p->lent; l = l->next) {
        struct hs_member *m = HS_CONTAINER(l, struct hs_member, link);

        if (boot_now - m->since_boot < limit)
            return m->since_boot + limit - boot_now;
        if (m->overdue)
            continue;
        m->overdue = m->untold = true;
        note_overdue(p, m, boot_now);
        m->site->overdue++;
        p->stats.overdue++;
        d->changed = true;
    }
    return limit;
}
