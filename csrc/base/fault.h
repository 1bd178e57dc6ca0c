/* fault.h: faults on demand: which call fails, and how.
 *
 * Every call of the core that can fail goes through base/sys.h (check_calls.py sees to that), which
 * asks here while faults are on. What is asked is the decider: the plan of hs_faults_begin, or a
 * test's own. It knows numbers and kinds; what they mean for a call is sys.c's to know, for TLS
 * tls_fault.h's, for lookups getaddr.c's.
 *
 * Whether call number n of a kind fails depends on the seed, the rule and n alone: the same numbers
 * fail again, whichever thread makes them.
 *
 * Invariants of the plan (fault.c):
 * - Who asks takes no lock, allocates nothing and never waits: allocations ask under any lock.
 * - seq is odd while a plan is being put in place; who has asked before and after a change of it
 *   takes no fault. So a fault is always one that a single plan asked for.
 * - The lock guards the stack of plans, and is held by who makes seq odd; fork takes it, so a
 *   child's seq is even.
 */
#ifndef HS_BASE_FAULT_H
#define HS_BASE_FAULT_H

#include "fault_spec.h"

#include <stdatomic.h>

extern _Atomic int hs_faults_on;

/* The one branch. HS_WITHOUT_FAULTS: a build without, to measure what it costs (bench/seam.py). */
static inline bool
hs_faults_are_on(void)
{
#ifdef HS_WITHOUT_FAULTS
    return false;
#endif
    return __builtin_expect(atomic_load_explicit(&hs_faults_on, memory_order_relaxed) != 0, 0);
}

/* Counts the call. An errno or enum hs_fault, or 0; *len may become less, but not 0. len is NULL
 * for calls that move no bytes. */
int hs_fault_decide(enum hs_call call, size_t *len);
/* True and errno: it fails. */
bool hs_fault_fails(enum hs_call call);

/* For tests that decide themselves: in the place of the plan; NULL: no more. */
typedef int hs_fault_decider(enum hs_call call, size_t *len);
void hs_fault_set_decider(hs_fault_decider *decider);

#endif
