/* ended.c: what the pools that are no more had counted, by name, for as long as the process.
 *
 * A pool's counts go with it, and who exports them may have asked last long before. So they are
 * added up here at its end, within the lock that takes it out of the list of pools: a reader finds
 * each pool in exactly one of the two.
 *
 * Names are bounded: programs make them up. The first two rows are for all that find no room, those
 * that the program has named and those that are called after their addresses.
 */
#include "pool_impl.h"

#include "../base/lock.h"

#include <string.h>

#define OVERFLOW_ROWS 2
/* Each address makes a name: they leave most rows to those that the program has named. */
#define UNNAMED_ROWS 64

/* guarded by the caller's lock, as the next */
static struct hs_pool_ended rows[HS_POOLS_ENDED_MAX] = {
    {.name = "other", .named = true},
    {.name = "other", .named = false},
};
static size_t n_rows = OVERFLOW_ROWS;

static struct hs_pool_ended *
ended_row(struct hs_pool_ended *all, size_t *n, const struct hs_pool *p)
{
    for (size_t i = OVERFLOW_ROWS; i < *n; i++)
        if (all[i].named == p->named && strcmp(all[i].name, p->name) == 0)
            return &all[i];
    if (*n >= (p->named ? HS_POOLS_ENDED_MAX : UNNAMED_ROWS))
        return &all[p->named ? 0 : 1];
    all[*n] = (struct hs_pool_ended){.named = p->named};
    memcpy(all[*n].name, p->name, sizeof(p->name));
    return &all[(*n)++];
}

static void
ended_add_spread(struct hs_spread *into, const struct hs_histogram *h)
{
    into->count += h->count;
    into->sum_ns += h->sum_ns;
    for (size_t i = 0; i <= HS_EDGES; i++)
        into->buckets[i] += h->edges[i];
}

static void
ended_add(struct hs_pool_ended *all, size_t *n, struct hs_pool *p)
{
    struct hs_pool_ended *row;
    uint64_t sum = 0;

    hs_lock_take(&p->lock);
#define SUM_COUNT(name) sum += p->stats.name;
    HS_POOL_COUNTS_ALL(SUM_COUNT)
#undef SUM_COUNT
    if (sum == 0) { /* It was never used, and needs no row. */
        hs_lock_drop(&p->lock);
        return;
    }
    row = ended_row(all, n, p);
#define ADD_COUNT(name) row->name += p->stats.name;
    HS_POOL_COUNTS_ALL(ADD_COUNT)
#undef ADD_COUNT
    for (int i = 0; i < HS_POOL_REASON_COUNT; i++)
        row->closed_by_reason[i] += p->stats.closed_by_reason[i];
    ended_add_spread(&row->wait, &p->stats.wait);
    ended_add_spread(&row->usage, &p->stats.usage);
    ended_add_spread(&row->dial, &p->stats.dial);
    hs_lock_drop(&p->lock);
}

void
hs_pool_ended_forget_parent_locked(void)
{
    n_rows = OVERFLOW_ROWS;
    for (size_t i = 0; i < OVERFLOW_ROWS; i++) {
        struct hs_pool_ended none = {.named = rows[i].named};

        memcpy(none.name, rows[i].name, sizeof(none.name));
        rows[i] = none;
    }
}

void
hs_pool_ended_add_locked(struct hs_pool *p)
{
    ended_add(rows, &n_rows, p);
}

size_t
hs_pool_ended_copy_locked(struct hs_pool_ended *ret_rows)
{
    memcpy(ret_rows, rows, n_rows * sizeof(rows[0]));
    return n_rows;
}

void
hs_pool_ended_add_to_locked(struct hs_pool_ended *copied, size_t *n, struct hs_pool *p)
{
    ended_add(copied, n, p);
}
