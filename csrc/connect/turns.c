/* turns.c: see turns.h.
 *
 * Zones with something to run stand in a ring, and each turn goes to the next of them: a thousand
 * queued names of one zone delay another zone's by one turn each round, not by a thousand. A zone
 * that has HS_TURNS_PER_ZONE threads leaves the ring until one of them ends.
 *
 * Invariants: a zone is in `ready` exactly if its queue is not empty and n_running is below the
 * limit; n_running is the length of `running`; `fresh` holds RUNNING turns only; a zone has a
 * reference of each of its turns.
 */
#include "turns.h"

#include "../base/check.h"

#include <stdlib.h>
#include <string.h>

static bool
is_in(const struct hs_list *node)
{
    return !hs_list_empty(node);
}

void
hs_turns_init(struct hs_turns *t)
{
    memset(t, 0, sizeof(*t));
    t->total = HS_TURNS_TOTAL;
    for (size_t i = 0; i < HS_TURNS_BUCKETS; i++)
        hs_list_init(&t->buckets[i]);
    hs_list_init(&t->ready);
    hs_list_init(&t->fresh);
}

const char *
hs_zone_name(const char *host)
{
    const char *dot = strchr(host, '.');
    const char *next = dot != NULL ? strchr(dot + 1, '.') : NULL;

    return next != NULL && next[1] != '\0' ? dot + 1 : host; /* A last dot ends no label. */
}

static struct hs_list *
turns_bucket_of(struct hs_turns *t, const char *name)
{
    uint32_t hash = 2166136261U; /* FNV-1a */

    for (; *name != '\0'; name++)
        hash = (hash ^ (uint8_t)*name) * 16777619U;
    return &t->buckets[hash % HS_TURNS_BUCKETS];
}

struct hs_zone *
hs_turns_zone(struct hs_turns *t, const char *host)
{
    const char *name = hs_zone_name(host);
    struct hs_list *bucket = turns_bucket_of(t, name);

    for (struct hs_list *n = bucket->next; n != bucket; n = n->next) {
        struct hs_zone *z = HS_CONTAINER(n, struct hs_zone, link);

        if (strcmp(z->name, name) == 0)
            return z;
    }
    return NULL;
}

static void
settle_ready(struct hs_turns *t, struct hs_zone *z)
{
    bool may = !hs_list_empty(&z->queue) && z->n_running < HS_TURNS_PER_ZONE;

    if (may && !is_in(&z->ready))
        hs_list_append(&t->ready, &z->ready);
    else if (!may)
        hs_list_unlink(&z->ready);
}

void
hs_turns_enter(struct hs_turns *t, struct hs_turn *turn, const char *host, struct hs_zone **made)
{
    struct hs_zone *z = hs_turns_zone(t, host);

    if (z == NULL) {
        const char *name = hs_zone_name(host);

        z = *made;
        *made = NULL;
        memset(z, 0, sizeof(*z));
        memcpy(z->name, name, strnlen(name, sizeof(z->name) - 1));
        hs_list_init(&z->ready);
        hs_list_init(&z->queue);
        hs_list_init(&z->running);
        hs_list_append(turns_bucket_of(t, z->name), &z->link);
    }
    z->refs++;
    *turn = (struct hs_turn){.zone = z, .state = HS_TURN_QUEUED};
    hs_list_init(&turn->fresh);
    hs_list_append(&z->queue, &turn->link);
    t->n_queued++;
    settle_ready(t, z);
}

static void
stop_being_fresh(struct hs_turns *t, struct hs_turn *turn)
{
    if (!is_in(&turn->fresh))
        return;
    hs_list_unlink(&turn->fresh);
    t->n_fresh--;
}

struct hs_turn *
hs_turns_head(struct hs_turns *t)
{
    if (hs_list_empty(&t->ready))
        return NULL;
    return HS_CONTAINER(HS_CONTAINER(t->ready.next, struct hs_zone, ready)->queue.next,
                        struct hs_turn, link);
}

int64_t
hs_turns_head_at(const struct hs_turns *t)
{
    if (t->n_fresh < HS_TURNS_FRESH)
        return INT64_MAX;
    return HS_CONTAINER(t->fresh.next, struct hs_turn, fresh)->started_ns + HS_TURN_FRESH_NS;
}

/* Amortised: each is aged once. */
static void
age(struct hs_turns *t, int64_t now)
{
    while (!hs_list_empty(&t->fresh)) {
        struct hs_turn *oldest = HS_CONTAINER(t->fresh.next, struct hs_turn, fresh);

        if (oldest->started_ns + HS_TURN_FRESH_NS > now)
            return;
        stop_being_fresh(t, oldest);
    }
}

struct hs_turn *
hs_turns_next(struct hs_turns *t, int64_t now)
{
    struct hs_turn *turn;
    struct hs_zone *z;

    age(t, now);
    if ((turn = hs_turns_head(t)) == NULL || t->n_fresh >= HS_TURNS_FRESH ||
        t->n_running >= t->total)
        return NULL;
    z = turn->zone;
    turn->state = HS_TURN_RUNNING;
    turn->started_ns = t->youngest_ns = now;
    hs_list_unlink(&turn->link);
    hs_list_append(&z->running, &turn->link);
    hs_list_append(&t->fresh, &turn->fresh);
    t->n_queued--;
    t->n_fresh++;
    t->n_running++;
    z->n_running++;
    hs_list_unlink(&z->ready); /* to the end of the ring */
    settle_ready(t, z);
    return turn;
}

void
hs_turns_forsake(struct hs_turns *t, struct hs_turn *turn)
{
    HS_ASSERT(turn->state == HS_TURN_RUNNING);
    stop_being_fresh(t, turn);
}

void
hs_turns_leave(struct hs_turns *t, struct hs_turn *turn)
{
    struct hs_zone *z = turn->zone;

    if (turn->state == HS_TURN_NONE)
        return;
    hs_list_unlink(&turn->link);
    if (turn->state == HS_TURN_RUNNING) {
        stop_being_fresh(t, turn);
        t->n_running--;
        z->n_running--;
    } else {
        t->n_queued--;
    }
    turn->state = HS_TURN_NONE;
    turn->zone = NULL;
    settle_ready(t, z);
    if (--z->refs > 0)
        return;
    hs_list_unlink(&z->link);
    free(z);
}
