/* poor.c: want of memory and of threads.
 *
 * Of what the core asks for in a call that is watched, and in threads of its own, a part is
 * refused. Calls may fail by it, and say so; what they promise holds all the same, but that who
 * cannot be woken for want of memory looks up every 20 ms. Once there is plenty again all works as
 * before.
 */
#include "world.h"

#include "base/fault.h"

#include <errno.h>

static bool poor;
static unsigned without_memory, without_threads; /* of a thousand */
static _Thread_local bool exposed;

bool
world_is_poor(void)
{
    return poor;
}

void
poor_expose(bool on)
{
    exposed = on;
}

bool
is_for_want(hs_err rv)
{
    return poor && (rv == HS_E_NOMEM || rv == HS_E_SYSTEM);
}

static int
decide(enum hs_call call, size_t *len)
{
    (void)len;
    if (sim_self() == NULL || (!exposed && !sim_is_cores(sim_self())))
        return 0;
    if (call == HS_CALL_alloc && sim_chance(without_memory)) {
        sim_log("no memory");
        return ENOMEM;
    }
    if (call == HS_CALL_thread && sim_chance(without_threads)) {
        sim_log("no thread");
        return EAGAIN;
    }
    return 0;
}

void
poor_begin(void)
{
    poor = true;
    without_memory = (unsigned)sim_between(5, 200);
    without_threads = (unsigned)sim_between(0, 300);
    sim_log("%u of memory and %u of threads are wanting", without_memory, without_threads);
    hs_fault_set_decider(decide);
}

void
poor_end(void)
{
    if (poor)
        hs_fault_set_decider(NULL);
    without_memory = without_threads = 0;
}
