/* spot.c: the lives of parkings and of the spots that connections have in them.
 *
 * Knows the reactor and nothing of what connections do: a connection's end calls this, and what
 * parking.c does may end connections.
 */
#include "parking_impl.h"
#include "spot.h"

#include "../base/sys.h"

#include <stdlib.h>
#include <string.h>

#define FREED 0x7b
#define SPOT_FREED 0x7c

static atomic_long live;

long
hs_parking_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

hs_err
hs_parking_new(struct hs_error *err, struct hs_parking **ret_p)
{
    struct hs_parking *p = hs_sys_calloc(1, sizeof(*p));
    hs_err rv;

    if (p == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "parking", "no memory for a parking");
    if ((rv = hs_reactor_new(err, &p->reactor)) != HS_OK) {
        free(p);
        return rv;
    }
    p->magic = PARKING_MAGIC;
    p->refs = 1;
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    *ret_p = p;
    return HS_OK;
}

struct hs_parking *
hs_parking_ref(struct hs_parking *p)
{
    HS_CHECK(p, PARKING_MAGIC);
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void
hs_parking_unref(struct hs_parking *p)
{
    if (p == NULL)
        return;
    HS_CHECK(p, PARKING_MAGIC);
    if (atomic_fetch_sub(&p->refs, 1) != 1)
        return;
    hs_reactor_free(p->reactor);
    memset(p, FREED, sizeof(*p));
    free(p);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

void
hs_parking_close(struct hs_parking *p)
{
    HS_CHECK(p, PARKING_MAGIC);
    hs_reactor_close(p->reactor);
}

void
hs_spot_free(struct hs_spot *s)
{
    if (s == NULL)
        return;
    hs_reactor_forget(s->parking->reactor, &s->parked);
    hs_parking_unref(s->parking);
    free(s->lingering);
    memset(s, SPOT_FREED, sizeof(*s));
    free(s);
}

void
hs_spot_ended(struct hs_spot *s)
{
    if (s != NULL)
        hs_reactor_call(s->parking->reactor, &s->parked);
}

bool
hs_spot_waits(struct hs_spot *s)
{
    return s != NULL && hs_reactor_waits(s->parking->reactor, &s->parked) && s->lingering == NULL;
}

bool
hs_spot_retire(struct hs_spot *s)
{
    if (!hs_reactor_take_this(s->parking->reactor, &s->parked))
        return false;
    atomic_store(&s->guard, s->lingering == NULL ? WANTS_IT : NO_GUARD);
    hs_reactor_queue(s->parking->reactor, &s->parked);
    return true;
}

bool
hs_spot_unretire(struct hs_spot *s)
{
    int guard = WANTS_IT;

    return s != NULL && !atomic_compare_exchange_strong(&s->guard, &guard, NO_GUARD) &&
           guard == HAS_IT;
}
