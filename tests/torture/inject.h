/* inject.h: making calls of the core fail, or answer short, at a chosen moment.
 *
 * The core asks at its seam (base/fault.h), as it does for those who use it; here the tests answer.
 * While nothing is armed nobody is asked. What the tests call themselves never fails.
 */
#ifndef TESTS_TORTURE_INJECT_H
#define TESTS_TORTURE_INJECT_H

#include "../../csrc/base/fault.h"

#include <stdbool.h>
#include <stddef.h>

/* Lets the nth call (1 is the next) of this kind fail, and with persistent all after it. sys 0: the
 * kind's own errno. */
void inject_arm(enum hs_call call, int nth, bool persistent, int sys);
/* Ends it; returns how many calls of the kind were made meanwhile. */
int inject_disarm(void);
/* Nothing fails in the calling thread. */
void inject_spare_me(void);
/* Storms on the data path, until inject_disarm: of period calls one goes through, the others fail
 * with sys; and no call moves more than chunk bytes (0: as many as asked for). */
void inject_storm(int sys, int period, unsigned chunk);
/* A function that runs inside the next call of the kind, before it, in the thread that makes it. */
void inject_hook(enum hs_call call, void (*hook)(void *arg), void *arg);

#endif
