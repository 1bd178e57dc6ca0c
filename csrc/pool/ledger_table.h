/* ledger_table.h: who holds what, counted by the call site that borrowed it.
 *
 * A site is (code, at), two opaque values. Its memory lives as long as the ledger. The
 * ledger's owner guards it with its lock.
 */
#ifndef HS_POOL_LEDGER_TABLE_H
#define HS_POOL_LEDGER_TABLE_H

#include "hardsock_binding.h"

#define SITE_BUCKETS 256
/* Code that is made at run time must not fill the memory: beyond these all sites are one. */
#define SITES_MAX 4096

struct ledger_site {
    const void *code; /* borrows: the one who said so keeps it until hs_pool_forget_sites */
    int at;
    struct hs_call_site *where; /* the same, for those who look */
    struct ledger_site *next;
    size_t lent;
    uint64_t acquired, lost, overdue, dirty;
    int64_t held_max_ns, held_sum_ns;
};

struct ledger {
    struct ledger_site *buckets[SITE_BUCKETS];
    struct ledger_site other; /* of those who did not say, and of those beyond SITES_MAX */
    size_t n;
};

static inline size_t
site_hash(const void *code, int at)
{
    uintptr_t x = (uintptr_t)code;

    return ((x >> 4) ^ (x >> 12) ^ (uintptr_t)(unsigned)at * 31) % SITE_BUCKETS;
}

/* NULL: it is not known. */
static inline struct ledger_site *
site_find(struct ledger *l, const struct hs_holder *h)
{
    struct ledger_site *s;

    if (h->code == NULL)
        return &l->other;
    for (s = l->buckets[site_hash(h->code, h->at)]; s != NULL; s = s->next)
        if (s->code == h->code && s->at == h->at)
            return s;
    return NULL;
}

/* The same, but never NULL. */
static inline struct ledger_site *
site_of(struct ledger *l, const struct hs_holder *h)
{
    struct ledger_site *s = site_find(l, h);

    return s != NULL ? s : &l->other;
}

#endif
