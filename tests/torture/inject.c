/* inject.c: see inject.h. One decision for the whole process; counters are atomic since any thread
 * may make the call that fails. It is changed only while no other thread of the test is running.
 */
#include "inject.h"

#include <stdatomic.h>
#include <stddef.h>

static atomic_int armed = -1, count, fail_at, fail_with;
static atomic_bool keep_failing;
static atomic_int storm_sys, storm_period, storm_count;
static atomic_size_t storm_chunk;
static _Thread_local bool spared;
static atomic_int hooked = -1;
static void (*hook_fn)(void *arg);
static void *hook_arg;

static int
decide(enum hs_call call, size_t *len)
{
    int expected = (int)call, n;
    size_t chunk;

    if (atomic_compare_exchange_strong(&hooked, &expected, -1))
        hook_fn(hook_arg);
    if (!spared && armed == (int)call) {
        n = atomic_fetch_add(&count, 1) + 1;
        if (n == fail_at || (keep_failing && n > fail_at))
            return fail_with;
    }
    if (len == NULL)
        return 0;
    chunk = storm_chunk;
    if (chunk != 0 && *len > chunk)
        *len = chunk;
    return storm_sys == 0 || atomic_fetch_add(&storm_count, 1) % storm_period == 0 ? 0 : storm_sys;
}

void
inject_arm(enum hs_call call, int nth, bool persistent, int sys)
{
    count = 0;
    fail_at = nth;
    keep_failing = persistent;
    fail_with = sys != 0 ? sys : hs_call_facts[call].fail;
    armed = (int)call;
    hs_fault_set_decider(decide);
}

int
inject_disarm(void)
{
    armed = -1;
    hooked = -1;
    storm_sys = storm_period = 0;
    storm_chunk = 0;
    hs_fault_set_decider(NULL);
    return count;
}

void
inject_spare_me(void)
{
    spared = true;
}

void
inject_storm(int sys, int period, unsigned chunk)
{
    storm_count = 0;
    storm_period = period;
    storm_chunk = chunk;
    storm_sys = sys;
    hs_fault_set_decider(decide);
}

void
inject_hook(enum hs_call call, void (*hook)(void *arg), void *arg)
{
    hook_fn = hook;
    hook_arg = arg;
    hooked = (int)call;
    hs_fault_set_decider(decide);
}
