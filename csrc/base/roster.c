/* roster.c: lists of living objects. See roster.h.
 *
 * Objects of a parent stay in the lists of a forked child, whose copies they are; they say
 * themselves that they are not its own.
 */
#include "roster.h"

#include "lock.h"

static struct {
    struct hs_lock lock;
    struct hs_list list; /* guarded by lock */
} rosters[HS_ROSTERS];

static void
roster_before_fork(void)
{
    for (int i = 0; i < HS_ROSTERS; i++)
        hs_lock_take_for_fork(&rosters[i].lock);
}

static void
roster_after_fork(void)
{
    for (int i = 0; i < HS_ROSTERS; i++)
        hs_lock_drop_after_fork(&rosters[i].lock);
}

HS_REGISTERS_FORK_LOCK(HS_RANK_ROLL)
static void
roster_begin(void)
{
    for (int i = 0; i < HS_ROSTERS; i++) {
        hs_lock_init(&rosters[i].lock, HS_RANK_ROLL);
        hs_list_init(&rosters[i].list);
    }
    (void)pthread_atfork(roster_before_fork, roster_after_fork, roster_after_fork);
}

void
hs_roster_add(enum hs_roster which, struct hs_list *link)
{
    hs_lock_take(&rosters[which].lock);
    hs_list_append(&rosters[which].list, link);
    hs_lock_drop(&rosters[which].lock);
}

void
hs_roster_remove(enum hs_roster which, struct hs_list *link)
{
    hs_lock_take(&rosters[which].lock);
    hs_list_unlink(link);
    hs_lock_drop(&rosters[which].lock);
}

size_t
hs_roster_take(enum hs_roster which, size_t room,
               bool (*show)(struct hs_list *link, size_t i, void *arg), void *arg)
{
    struct hs_list *list = &rosters[which].list;
    size_t n = 0;

    hs_lock_take(&rosters[which].lock);
    for (struct hs_list *l = list->next; l != list; l = l->next)
        if (n >= room || show(l, n, arg))
            n++;
    hs_lock_drop(&rosters[which].lock);
    return n;
}

bool
hs_roster_try_ref(atomic_int *refs)
{
    int n = atomic_load(refs);

    while (n > 0)
        if (atomic_compare_exchange_weak(refs, &n, n + 1))
            return true;
    return false;
}
