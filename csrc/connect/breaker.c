/* breaker.c: what has kept failing is not tried for a while: the table of keys, and its lock.
 *
 * One lock (rank BREAKER) guards everything but the count of references; under it nothing waits,
 * calls out or reads a clock. Memory is only taken when a key fails for the first time: a key that
 * never failed has no entry, and is closed. At most max_keys entries; who makes room is the one not
 * used for longest, an open one only when the ones before it are open, too.
 *
 * Fork: nothing here belongs to the kernel, so the child goes on with its copy. Only if a thread of
 * the parent was at work in it just then, its lock is nobody's any more and its table half changed:
 * then the child starts with an empty one.
 */
#include "breaker.h"

#include "../base/check.h"
#include "../base/err.h"
#include "../base/lock.h"
#include "../base/roster.h"
#include "../base/sys.h"
#include "../base/time.h"
#include "../cancel/wait.h"
#include "breaker_entry.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BREAKER_MAGIC 0x70c3b4eaU
#define FREED 0x74
#define MAX_PROBES 64
#define MAX_KEYS (1U << 20)
#define MAX_COUNT 1000000
#define MIN_WINDOW_NS HS_NS_PER_MS
/* How many of the oldest entries are looked at for one that is closed. */
#define EVICTION_TRIES 16
/* Added to the generation while one thread of a child puts the table right. */
#define REPAIRING (UINT32_C(1) << 31)

struct hs_breaker {
    unsigned magic;
    atomic_int refs;
    struct hs_list roster;            /* roster.h */
    _Atomic uint32_t fork_generation; /* whose lock and table these are */
    struct hs_lock lock;
    struct machine m;       /* guarded by lock */
    struct hs_list by_use;  /* guarded by lock: entry.lru, the one used last at the end */
    struct entry **buckets; /* own; guarded by lock */
    size_t n_buckets;       /* a power of two */
};

static atomic_long live;

long
hs_breaker_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

void
hs_breaker_options_init(struct hs_breaker_options *o)
{
    *o = (struct hs_breaker_options){
        .failures = 5,
        .rate_permille = 500,
        .min_calls = 20,
        .window_ns = 30 * HS_NS_PER_S,
        .open_ns = 30 * HS_NS_PER_S,
        .max_open_ns = 300 * HS_NS_PER_S,
        .jitter_permille = 200,
        .probes = 1,
        .successes = 1,
        .probe_ns = 10 * HS_NS_PER_S,
        .patience_ns = HS_NS_PER_S,
        .max_ejected_permille = 1000,
        .max_keys = 4096,
    };
}

/* ---- Options -------------------------------------------------------------------------------- */

static hs_err
check_ranges(const struct hs_breaker_options *o, struct hs_error *err)
{
    const struct {
        const char *name;
        int64_t value, min, max;
    } rows[] = {
        {"failures", o->failures, 0, MAX_COUNT},
        {"failure_rate", o->rate_permille, 0, 1000},
        {"min_calls", o->min_calls, 1, MAX_COUNT},
        {"window", o->window_ns, MIN_WINDOW_NS, HS_NEVER - 1},
        {"open_time", o->open_ns, 1, HS_NEVER},
        {"max_open_time", o->max_open_ns, 1, HS_NEVER},
        {"jitter", o->jitter_permille, 0, 1000},
        {"probes", o->probes, 1, MAX_PROBES},
        {"successes", o->successes, 1, MAX_COUNT},
        {"probe_time", o->probe_ns, 1, HS_NEVER - 1},
        {"patience", o->patience_ns, 0, HS_NEVER},
        {"max_ejected", o->max_ejected_permille, 0, 1000},
        {"max_keys", (int64_t)(o->max_keys > MAX_KEYS ? MAX_KEYS + 1 : o->max_keys), 1, MAX_KEYS},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].value < rows[i].min || rows[i].value > rows[i].max)
            return hs_err_setx(err, HS_E_INVALID, "breaker", "%s is out of its range",
                               rows[i].name);
    return HS_OK;
}

static hs_err
breaker_check_options(const struct hs_breaker_options *o, struct hs_error *err)
{
    hs_err rv = check_ranges(o, err);

    if (rv != HS_OK)
        return rv;
    if (o->failures == 0 && o->rate_permille == 0)
        return hs_err_setx(err, HS_E_INVALID, "breaker",
                           "failures and failure_rate are both off: nothing could be too many");
    if (o->max_open_ns < o->open_ns)
        return hs_err_setx(err, HS_E_INVALID, "breaker",
                           "max_open_time must not be shorter than open_time");
    if (o->fail_fast && o->max_ejected_permille < 1000)
        return hs_err_setx(err, HS_E_INVALID, "breaker",
                           "fail_fast contradicts max_ejected, which keeps some addresses in use");
    return HS_OK;
}

/* ---- Life ----------------------------------------------------------------------------------- */

/* Differs between processes and breakers; nobody has to be unable to guess it for long. */
static uint64_t
chosen_seed(const struct hs_breaker *b)
{
    return (uint64_t)hs_now() * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)getpid() << 40 ^
           (uint64_t)(uintptr_t)b;
}

hs_err
hs_breaker_new(const struct hs_breaker_options *o, struct hs_error *err, struct hs_breaker **ret_b)
{
    struct hs_breaker *b;
    hs_err rv;

    if ((rv = breaker_check_options(o, err)) != HS_OK)
        return rv;
    if ((b = hs_sys_calloc(1, sizeof(*b))) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "breaker", "no memory for a breaker");
    b->n_buckets = 8;
    while (b->n_buckets < o->max_keys)
        b->n_buckets *= 2;
    if ((b->buckets = hs_sys_calloc(b->n_buckets, sizeof(struct entry *))) == NULL) {
        free(b);
        return hs_err_setx(err, HS_E_NOMEM, "breaker", "no memory for a breaker");
    }
    b->magic = BREAKER_MAGIC;
    b->refs = 1;
    b->fork_generation = hs_fork_generation();
    hs_lock_init(&b->lock, HS_RANK_BREAKER);
    hs_list_init(&b->by_use);
    b->m.o = *o;
    b->m.random = o->seed != 0 ? o->seed : chosen_seed(b);
    if (b->m.o.seed == 0)
        b->m.o.seed = b->m.random;
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    hs_roster_add(HS_ROSTER_BREAKERS, &b->roster);
    *ret_b = b;
    return HS_OK;
}

struct hs_breaker *
hs_breaker_ref(struct hs_breaker *b)
{
    HS_CHECK(b, BREAKER_MAGIC);
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

/* In a child, for the one thread that gets to do it. What the table held is given up, not freed, if
 * it may be half changed. */
static void
put_right(struct hs_breaker *b)
{
    if (hs_lock_try(&b->lock)) {
        hs_lock_drop(&b->lock);
    } else {
        hs_lock_init(&b->lock, HS_RANK_BREAKER);
        hs_list_init(&b->by_use);
        memset(b->buckets, 0, b->n_buckets * sizeof(struct entry *));
        b->m.stats.keys = 0;
    }
    b->m.random ^= (uint64_t)getpid() << 32; /* Not the parent's jitter, nor a sibling's. */
}

static void
breaker_enter(struct hs_breaker *b)
{
    uint32_t own = hs_fork_generation(), found;

    HS_CHECK(b, BREAKER_MAGIC);
    while ((found = atomic_load_explicit(&b->fork_generation, memory_order_acquire)) != own) {
        if (found != (own | REPAIRING) &&
            atomic_compare_exchange_strong(&b->fork_generation, &found, own | REPAIRING)) {
            put_right(b);
            atomic_store_explicit(&b->fork_generation, own, memory_order_release);
        } else {
            (void)sched_yield(); /* Another thread of this child is at it: a few microseconds. */
        }
    }
    hs_lock_take(&b->lock);
}

static void
breaker_leave(struct hs_breaker *b)
{
    hs_lock_drop(&b->lock);
}

/* ---- Table ---------------------------------------------------------------------------------- */

static struct entry **
breaker_bucket_of(struct hs_breaker *b, const struct hs_breaker_key *key)
{
    return &b->buckets[hs_breaker_key_hash(key, b->m.o.seed) & (b->n_buckets - 1)];
}

static struct entry *
breaker_find_locked(struct hs_breaker *b, const struct hs_breaker_key *key)
{
    struct entry *e = *breaker_bucket_of(b, key);

    while (e != NULL && !hs_breaker_key_equal(&e->s.key, key))
        e = e->next;
    if (e != NULL) {
        hs_list_unlink(&e->lru);
        hs_list_append(&b->by_use, &e->lru);
    }
    return e;
}

static void
breaker_forget_locked(struct hs_breaker *b, struct entry *e)
{
    struct entry **at = breaker_bucket_of(b, &e->s.key);

    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    hs_list_unlink(&e->lru);
    b->m.stats.keys--;
    free(e);
}

/* What is open is what the breaker is there to remember. */
static void
make_room_locked(struct hs_breaker *b)
{
    struct hs_list *l = b->by_use.next;

    for (int i = 0; i < EVICTION_TRIES && l != &b->by_use; i++, l = l->next) {
        struct entry *e = HS_CONTAINER(l, struct entry, lru);

        if (e->s.state == HS_BREAKER_CLOSED) {
            breaker_forget_locked(b, e);
            b->m.stats.evicted++;
            return;
        }
    }
    breaker_forget_locked(b, HS_CONTAINER(b->by_use.next, struct entry, lru));
    b->m.stats.evicted++;
}

/* NULL when there is no memory: then this failure is not remembered. */
static struct entry *
breaker_add_locked(struct hs_breaker *b, const struct hs_breaker_key *key)
{
    struct entry **at = breaker_bucket_of(b, key);
    struct entry *e;

    e = hs_sys_calloc(1, sizeof(*e) + (size_t)b->m.o.probes * sizeof(e->probes[0]));
    if (e == NULL)
        return NULL;
    if (b->m.stats.keys >= b->m.o.max_keys)
        make_room_locked(b);
    e->s.key = *key;
    e->next = *at;
    *at = e;
    hs_list_append(&b->by_use, &e->lru);
    b->m.stats.keys++;
    return e;
}

void
hs_breaker_unref(struct hs_breaker *b)
{
    if (b == NULL)
        return;
    HS_CHECK(b, BREAKER_MAGIC);
    if (atomic_fetch_sub(&b->refs, 1) != 1)
        return;
    hs_roster_remove(HS_ROSTER_BREAKERS, &b->roster);
    breaker_enter(b); /* For the sake of put_right: nobody else is here any more. */
    while (!hs_list_empty(&b->by_use))
        breaker_forget_locked(b, HS_CONTAINER(b->by_use.next, struct entry, lru));
    breaker_leave(b);
    hs_lock_fini(&b->lock);
    free(b->buckets);
    memset(b, FREED, sizeof(*b));
    free(b);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

static bool
breaker_take(struct hs_list *link, size_t i, void *arg)
{
    struct hs_breaker *b = HS_CONTAINER(link, struct hs_breaker, roster);

    ((struct hs_breaker **)arg)[i] = b;
    return hs_roster_try_ref(&b->refs);
}

size_t
hs_breakers(struct hs_breaker **breakers, size_t room)
{
    return hs_roster_take(HS_ROSTER_BREAKERS, room, breaker_take, breakers);
}

/* ---- Permits and reports -------------------------------------------------------------------- */

static void
permit_unknown_locked(struct hs_breaker *b, int64_t now_ns, struct hs_permit *ret_permit)
{
    *ret_permit = (struct hs_permit){.granted_ns = now_ns, .kind = PERMIT_NORMAL};
    b->m.stats.permitted++;
}

enum hs_breaker_state
hs_breaker_permit(struct hs_breaker *b, const struct hs_breaker_key *key, int64_t now_ns,
                  struct hs_permit *ret_permit)
{
    enum hs_breaker_state state = HS_BREAKER_CLOSED;
    struct entry *e;

    breaker_enter(b);
    if ((e = breaker_find_locked(b, key)) != NULL)
        state = hs_entry_permit(e, &b->m, now_ns, ret_permit);
    else
        permit_unknown_locked(b, now_ns, ret_permit);
    breaker_leave(b);
    return state;
}

/* A deadline says that the caller was in a hurry, unless there was time enough for an answer. */
static enum hs_fail
effective(const struct hs_breaker *b, const struct hs_permit *permit, enum hs_fail fail,
          int64_t now_ns)
{
    if (fail != HS_FAIL_DEADLINE)
        return fail;
    return now_ns - permit->granted_ns >= b->m.o.patience_ns ? HS_FAIL_TIMEOUT
                                                             : HS_FAIL_NOT_COUNTED;
}

static void
count_report(struct hs_breaker_stats *s, enum hs_fail fail, unsigned weight)
{
    s->by_class[fail]++;
    if (fail == HS_FAIL_NONE)
        s->successes++;
    else if (weight > 0)
        s->failures++;
    else
        s->not_counted++;
}

void
hs_breaker_record(struct hs_breaker *b, const struct hs_breaker_key *key, struct hs_permit *permit,
                  enum hs_fail fail, int64_t now_ns)
{
    const struct hs_permit given = *permit;
    struct entry *e;
    unsigned weight;

    HS_ASSERT((unsigned)fail < HS_FAIL_CLASSES);
    *permit = (struct hs_permit){0};
    if (given.kind == PERMIT_NONE)
        return;
    breaker_enter(b);
    fail = effective(b, &given, fail, now_ns);
    weight = hs_fail_weight(key, fail);
    count_report(&b->m.stats, fail, weight);
    e = breaker_find_locked(b, key);
    if (e == NULL && given.generation != 0)
        b->m.stats.late++; /* Its entry has been forgotten. */
    else if (e == NULL && weight > 0)
        e = breaker_add_locked(b, key);
    if (e != NULL)
        hs_entry_record(e, &b->m, &given, fail, now_ns);
    breaker_leave(b);
}

/* ---- Several addresses of one name ---------------------------------------------------------- */

/* How many of the refused ones must be tried after all. */
static size_t
quota(const struct hs_breaker_options *o, size_t n_refused, size_t n_all)
{
    size_t ejectable = n_all * (size_t)o->max_ejected_permille / 1000;

    if (n_refused > ejectable)
        return n_refused - ejectable;
    return n_all > 1 && !o->fail_fast ? 1 : 0;
}

/* The one to be tried again first; *ret_e is NULL when it was forgotten meanwhile: then nothing is
 * known against it. */
static size_t
due_first_locked(struct hs_breaker *b, const struct hs_addr *const *addrs, size_t n,
                 struct entry **ret_e)
{
    int64_t earliest = 0;
    size_t first = 0;

    for (size_t i = 0; i < n; i++) {
        struct hs_breaker_key key;
        struct entry *e;
        int64_t due;

        hs_breaker_key_addr(addrs[i], &key);
        e = breaker_find_locked(b, &key);
        due = e != NULL && e->s.state != HS_BREAKER_CLOSED ? e->s.retry_ns : 0;
        if (i == 0 || due < earliest) {
            first = i;
            earliest = due;
            *ret_e = e;
        }
    }
    return first;
}

bool
hs_breaker_permit_one(struct hs_breaker *b, const struct hs_addr *const *refused, size_t n,
                      size_t n_all, size_t n_forced, int64_t now_ns, size_t *ret_i,
                      struct hs_permit *ret_permit)
{
    struct entry *e = NULL;
    bool wanted;

    breaker_enter(b);
    wanted = n > 0 && n_forced < quota(&b->m.o, n + n_forced, n_all);
    if (wanted) {
        *ret_i = due_first_locked(b, refused, n, &e);
        if (e != NULL)
            hs_entry_force(e, &b->m, now_ns, ret_permit);
        else
            permit_unknown_locked(b, now_ns, ret_permit);
    }
    breaker_leave(b);
    return wanted;
}

/* ---- Telling -------------------------------------------------------------------------------- */

size_t
hs_breaker_states(struct hs_breaker *b, int64_t now_ns, struct hs_breaker_status *s, size_t max)
{
    size_t n = 0, total;

    breaker_enter(b);
    for (struct hs_list *l = b->by_use.prev; l != &b->by_use && n < max; l = l->prev) {
        struct entry *e = HS_CONTAINER(l, struct entry, lru);

        hs_entry_advance(e, &b->m, now_ns);
        hs_entry_sum(e, &b->m, now_ns);
        s[n++] = e->s;
    }
    total = b->m.stats.keys;
    breaker_leave(b);
    return total;
}

void
hs_breaker_stats(struct hs_breaker *b, int64_t now_ns, struct hs_breaker_stats *ret_stats)
{
    size_t n_open = 0;

    breaker_enter(b);
    for (struct hs_list *l = b->by_use.next; l != &b->by_use; l = l->next) {
        struct entry *e = HS_CONTAINER(l, struct entry, lru);

        hs_entry_advance(e, &b->m, now_ns);
        n_open += e->s.state == HS_BREAKER_OPEN;
    }
    *ret_stats = b->m.stats;
    ret_stats->keys_open = n_open;
    breaker_leave(b);
}

size_t
hs_breaker_reset(struct hs_breaker *b, const struct hs_breaker_key *key)
{
    struct entry *e;
    size_t n = 0;

    breaker_enter(b);
    if (key != NULL && (e = breaker_find_locked(b, key)) != NULL) {
        breaker_forget_locked(b, e);
        n = 1;
    }
    while (key == NULL && !hs_list_empty(&b->by_use)) {
        breaker_forget_locked(b, HS_CONTAINER(b->by_use.next, struct entry, lru));
        n++;
    }
    breaker_leave(b);
    return n;
}
