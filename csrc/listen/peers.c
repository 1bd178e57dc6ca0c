/* peers.c: see peers.h.
 *
 * A hash table with chains over entries that never move, since connections remember theirs by
 * number. Invariants, under lock (rank PEERS):
 * - An entry is free (in the list of those), or in its chain. One without connections is in the
 *   list `quiet`, the one that had its last connection first in front: a newcomer takes a free
 *   entry, or the first of these.
 * - connections is how many slots name the entry; a slot names it until it is left.
 * The rate is a bucket of `burst` tokens: next_ns is when it will be full, and a connection that
 * would move it further than a bucketful away is refused (GCRA). An entry that gives way to another
 * before that forgets its debt; with a table as large as an attacker's network nothing better can
 * be had.
 * The hash has a secret, so that nobody can choose addresses that all fall into one chain.
 */
#include "peers.h"

#include "peer_key.h"
#include "shed.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/list.h"
#include "../base/lock.h"
#include "../base/network.h"
#include "../base/sys.h"
#include "../base/time.h"
#include "../cancel/wait.h"
#include "../stream/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define TABLE_MAX (1 << 20)

struct entry {
    struct hs_peer_key key;
    uint32_t connections;
    uint32_t next_in_chain; /* from 1 on; 0: the last */
    int64_t next_ns;
    struct hs_list link; /* of free or quiet ones; by itself while there are connections */
};

struct hs_peers {
    atomic_int refs;
    unsigned generation;
    struct hs_peer_limits limits; /* immutable; exempt: own */
    int64_t interval_ns;          /* between two tokens; 0: no rate */
    uint64_t secret[2];
    uint32_t mask; /* of the chains' number */
    struct hs_lock lock;
    uint32_t *chains;      /* own; the first entry of each, from 1 on */
    struct entry *entries; /* own; limits.table_size of them */
    struct hs_list free, quiet;
    struct hs_peer_stats stats;
};

/* ---- Life ---------------------------------------------------------------------------------- */

static hs_err
peers_check(const struct hs_peer_limits *o, struct hs_error *err)
{
    hs_err rv;

    if (o->connections < 0 || o->network_connections < 0 || o->per_s < 0 || o->burst < 0)
        return hs_err_setx(err, HS_E_INVALID, "listen", "a limit of peers must not be negative");
    if (o->table_size < 1 || o->table_size > TABLE_MAX)
        return hs_err_setx(err, HS_E_INVALID, "listen",
                           "the table of peers must have 1..%d entries, got %d", TABLE_MAX,
                           o->table_size);
    for (size_t i = 0; i < o->n_exempt; i++)
        if ((rv = hs_network_check(&o->exempt[i], err)) != HS_OK)
            return rv;
    return HS_OK;
}

static bool
peers_allocate(struct hs_peers *p, const struct hs_peer_limits *o)
{
    size_t n = (size_t)o->table_size, chains = 1;
    struct hs_network *exempt = hs_sys_calloc(o->n_exempt + 1, sizeof(*exempt));

    while (chains < n)
        chains *= 2;
    p->limits.exempt = exempt;
    p->mask = (uint32_t)chains - 1;
    p->chains = hs_sys_calloc(chains, sizeof(*p->chains));
    p->entries = hs_sys_calloc(n, sizeof(*p->entries));
    if (exempt == NULL || p->chains == NULL || p->entries == NULL)
        return false;
    if (o->n_exempt > 0)
        memcpy(exempt, o->exempt, o->n_exempt * sizeof(*exempt));
    for (size_t i = 0; i < n; i++)
        hs_list_append(&p->free, &p->entries[i].link);
    return true;
}

/* A table is made before any attack, so that at worst a later one knows the boot time. */
static void
draw_secret(struct hs_peers *p)
{
    const ssize_t n = hs_sys_getrandom(p->secret, sizeof(p->secret), GRND_NONBLOCK);

    if (n != (ssize_t)sizeof(p->secret)) {
        p->secret[0] = (uint64_t)hs_now();
        p->secret[1] = (uint64_t)(uintptr_t)p;
    }
    p->secret[1] |= 1;
}

hs_err
hs_peers_new(const struct hs_peer_limits *limits, struct hs_error *err, struct hs_peers **ret_peers)
{
    struct hs_peers *p;
    hs_err rv;

    if ((rv = peers_check(limits, err)) != HS_OK)
        return rv;
    if ((p = hs_sys_calloc(1, sizeof(*p))) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "listen", "no memory for a table of peers");
    p->refs = 1;
    p->generation = hs_fork_generation();
    p->limits = *limits;
    if (limits->per_s > 0) {
        p->interval_ns = HS_NS_PER_S / limits->per_s;
        if (limits->burst == 0)
            p->limits.burst = limits->per_s;
    }
    draw_secret(p);
    hs_list_init(&p->free);
    hs_list_init(&p->quiet);
    hs_lock_init(&p->lock, HS_RANK_PEERS);
    if (!peers_allocate(p, limits)) {
        hs_peers_unref(p);
        return hs_err_setx(err, HS_E_NOMEM, "listen", "no memory for a table of peers");
    }
    *ret_peers = p;
    return HS_OK;
}

struct hs_peers *
hs_peers_ref(struct hs_peers *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void
hs_peers_unref(struct hs_peers *p)
{
    if (p == NULL || atomic_fetch_sub(&p->refs, 1) != 1)
        return;
    if (p->generation == hs_fork_generation())
        hs_lock_fini(&p->lock);
    free((void *)(uintptr_t)p->limits.exempt);
    free(p->chains);
    free(p->entries);
    free(p);
}

/* ---- The table ----------------------------------------------------------------------------- */

static uint32_t *
chain_of(struct hs_peers *p, const struct hs_peer_key *key)
{
    uint64_t h = (key->bits ^ p->secret[0] ^ (uint64_t)key->width << 56) * p->secret[1];

    h ^= h >> 32;
    h *= UINT64_C(0xd6e8feb86659fd93); /* a mixing step of Degski's */
    h ^= h >> 32;
    return &p->chains[(uint32_t)h & p->mask];
}

static uint32_t
peers_find_locked(struct hs_peers *p, const struct hs_peer_key *key)
{
    uint32_t i = *chain_of(p, key);

    while (i != 0 && !hs_peer_key_is(&p->entries[i - 1].key, key))
        i = p->entries[i - 1].next_in_chain;
    return i;
}

static void
peers_forget_locked(struct hs_peers *p, struct entry *e)
{
    uint32_t *at = chain_of(p, &e->key);

    while (&p->entries[*at - 1] != e)
        at = &p->entries[*at - 1].next_in_chain;
    *at = e->next_in_chain;
    p->stats.tracked--;
}

/* 0: all entries belong to somebody who has connections. */
static uint32_t
find_or_make_locked(struct hs_peers *p, const struct hs_peer_key *key)
{
    uint32_t i = peers_find_locked(p, key), *chain = chain_of(p, key);
    struct hs_list *link = !hs_list_empty(&p->free) ? p->free.next : p->quiet.next;
    struct entry *e;

    if (i != 0 || link == &p->quiet)
        return i;
    e = HS_CONTAINER(link, struct entry, link);
    if (hs_list_empty(&p->free))
        peers_forget_locked(p, e);
    hs_list_unlink(link);
    *e = (struct entry){.key = *key, .next_in_chain = *chain};
    hs_list_init(&e->link);
    hs_list_append(&p->quiet, &e->link);
    i = (uint32_t)(e - p->entries) + 1;
    *chain = i;
    p->stats.tracked++;
    return i;
}

/* ---- Coming and going ---------------------------------------------------------------------- */

static bool
peers_is_full(const struct hs_peers *p, uint32_t i, int limit)
{
    return limit > 0 && i != 0 && p->entries[i - 1].connections >= (uint32_t)limit;
}

/* Takes a token. */
static bool
comes_too_fast(const struct hs_peers *p, uint32_t i, int64_t now_ns)
{
    struct entry *e = &p->entries[i - 1];
    int64_t next;

    if (p->interval_ns == 0 || i == 0)
        return false;
    next = (e->next_ns > now_ns ? e->next_ns : now_ns) + p->interval_ns;
    if (next - now_ns > p->interval_ns * p->limits.burst)
        return true;
    e->next_ns = next;
    return false;
}

static void
sit_locked(struct hs_peers *p, uint32_t i)
{
    if (i == 0)
        return;
    hs_list_unlink(&p->entries[i - 1].link);
    hs_list_init(&p->entries[i - 1].link);
    p->entries[i - 1].connections++;
}

static void
rise_locked(struct hs_peers *p, uint32_t i)
{
    if (i == 0)
        return;
    HS_ASSERT(p->entries[i - 1].connections > 0);
    if (--p->entries[i - 1].connections == 0)
        hs_list_append(&p->quiet, &p->entries[i - 1].link);
}

/* The peer's entry is seated before the network's is looked for: one must not give way to the
 * other. */
static bool
enter_locked(struct hs_peers *p, const struct hs_peer_key *peer, const struct hs_peer_key *network,
             int64_t now_ns, struct hs_peer_slots *ret_slots, enum hs_shed *ret_why)
{
    struct hs_peer_slots slots = {.peer = find_or_make_locked(p, peer)};

    if (peers_is_full(p, slots.peer, p->limits.connections)) {
        p->stats.refused_connections++;
        *ret_why = HS_SHED_PEER_CONNECTIONS;
        return false;
    }
    sit_locked(p, slots.peer);
    slots.network = p->limits.network_connections > 0 ? find_or_make_locked(p, network) : 0;
    if (peers_is_full(p, slots.network, p->limits.network_connections)) {
        p->stats.refused_network++;
        *ret_why = HS_SHED_PEER_NETWORK;
        rise_locked(p, slots.peer);
        return false;
    }
    if (comes_too_fast(p, slots.peer, now_ns)) {
        p->stats.refused_rate++;
        *ret_why = HS_SHED_PEER_RATE;
        rise_locked(p, slots.peer);
        return false;
    }
    sit_locked(p, slots.network);
    p->stats.untracked += slots.peer == 0;
    *ret_slots = slots;
    return true;
}

bool
hs_peers_enter(struct hs_peers *p, const struct hs_addr *addr, int64_t now_ns,
               struct hs_peer_slots *ret_slots)
{
    struct hs_peer_key peer, network;
    enum hs_shed why;
    bool may;

    if (!hs_peer_keys(addr, &peer, &network) ||
        hs_networks_have(p->limits.exempt, p->limits.n_exempt, addr)) {
        *ret_slots = (struct hs_peer_slots){0};
        return true;
    }
    hs_lock_take(&p->lock);
    may = enter_locked(p, &peer, &network, now_ns, ret_slots, &why);
    hs_lock_drop(&p->lock);
    if (!may)
        hs_shed_note_addr(why, addr);
    return may;
}

void
hs_peers_leave(struct hs_peers *p, const struct hs_peer_slots *slots)
{
    if (slots->peer == 0 && slots->network == 0)
        return;
    hs_lock_take(&p->lock);
    rise_locked(p, slots->peer);
    rise_locked(p, slots->network);
    hs_lock_drop(&p->lock);
}

/* ---- Connections --------------------------------------------------------------------------- */

struct seat {
    struct hs_conn_guest guest;
    struct hs_peers *peers; /* own reference */
    struct hs_peer_slots slots;
};

static void
conn_ended(struct hs_conn_guest *guest, bool ours)
{
    struct seat *seat = HS_CONTAINER(guest, struct seat, guest);

    if (ours)
        hs_peers_leave(seat->peers, &seat->slots);
    hs_peers_unref(seat->peers);
    free(seat);
}

hs_err
hs_peers_seat(struct hs_peers *p, const struct hs_peer_slots *slots, struct hs_conn *conn,
              struct hs_error *err)
{
    struct seat *seat;

    if (slots->peer == 0 && slots->network == 0)
        return HS_OK;
    if ((seat = hs_sys_malloc(sizeof(*seat))) == NULL) {
        hs_peers_leave(p, slots);
        return hs_err_setx(err, HS_E_NOMEM, "accept", "no memory for a peer's slot");
    }
    *seat =
        (struct seat){.guest = {.ended = conn_ended}, .peers = hs_peers_ref(p), .slots = *slots};
    hs_conn_set_guest(conn, &seat->guest);
    return HS_OK;
}

/* ---- Asking -------------------------------------------------------------------------------- */

void
hs_peers_stats(struct hs_peers *p, struct hs_peer_stats *ret_stats)
{
    hs_lock_take(&p->lock);
    *ret_stats = p->stats;
    hs_lock_drop(&p->lock);
}

static size_t
peers_length(const struct hs_list *list)
{
    size_t n = 0;

    for (const struct hs_list *l = list->next; l != list; l = l->next)
        n++;
    return n;
}

static const char *
find_disagreement_locked(struct hs_peers *p)
{
    size_t chained = 0, seated = 0, n = (size_t)p->limits.table_size;

    for (uint32_t c = 0; c <= p->mask; c++)
        for (uint32_t i = p->chains[c]; i != 0; i = p->entries[i - 1].next_in_chain) {
            const struct entry *e = &p->entries[i - 1];

            if (chain_of(p, &e->key) != &p->chains[c])
                return "an entry in another's chain";
            if (++chained > n)
                return "a chain without an end";
            if ((e->connections > 0) != hs_list_empty(&e->link))
                return "an entry that is quiet with connections, or not quiet without";
            seated += e->connections > 0;
        }
    if (chained != p->stats.tracked || chained != seated + peers_length(&p->quiet))
        return "the chains and the lists";
    return chained + peers_length(&p->free) == n ? NULL : "the free ones";
}

const char *
hs_peers_find_disagreement(struct hs_peers *p)
{
    const char *what;

    hs_lock_take(&p->lock);
    what = find_disagreement_locked(p);
    hs_lock_drop(&p->lock);
    return what;
}
