/* guards.c: what the guards of this process have decided, for reports.
 *
 * Guards are Python's. Their counts are here so that a reader who may not need the interpreter has
 * them: another process that collects for all. Atomics only; no lock, nothing is made.
 *
 * A forked child has no thread of a guard, so the number of running ones is one of a generation.
 * Number and generation are one word: a child's first guard cannot add to its parent's number.
 */
#include "hardsock_binding.h"

#include "../base/check.h"
#include "../cancel/waker.h"

#include <stdatomic.h>

static _Atomic uint64_t counts[HS_GUARD_OUTCOMES]; /* only ever counters */
static _Atomic uint64_t running;                   /* generation << 32 | number */

const char *
hs_guard_outcome_name(enum hs_guard_outcome which)
{
    static const char *const names[] = {
#define OUTCOME_NAME(name, text) text,
        HS_GUARD_OUTCOMES_ALL(OUTCOME_NAME)
#undef OUTCOME_NAME
    };

    HS_ASSERT(which < HS_GUARD_OUTCOMES);
    return names[which];
}

void
hs_guard_count(enum hs_guard_outcome which, uint64_t n)
{
    HS_ASSERT(which < HS_GUARD_OUTCOMES);
    atomic_fetch_add_explicit(&counts[which], n, memory_order_relaxed);
}

uint64_t
hs_guard_counted(enum hs_guard_outcome which)
{
    HS_ASSERT(which < HS_GUARD_OUTCOMES);
    return atomic_load_explicit(&counts[which], memory_order_relaxed);
}

static uint32_t
number_in(uint64_t word, unsigned generation)
{
    return word >> 32 == generation ? (uint32_t)word : 0;
}

void
hs_guard_runs(bool runs)
{
    unsigned generation = hs_fork_generation();
    uint64_t was = atomic_load(&running), now;

    do {
        uint32_t n = number_in(was, generation);

        if (!runs && n == 0)
            return; /* It was the parent's. */
        now = (uint64_t)generation << 32 | (runs ? n + 1 : n - 1);
    } while (!atomic_compare_exchange_weak(&running, &was, now));
}

uint32_t
hs_guards_running(void)
{
    return number_in(atomic_load(&running), hs_fork_generation());
}
