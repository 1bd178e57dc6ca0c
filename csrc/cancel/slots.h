/* slots.h: at most n threads of a crowd run at a time.
 *
 * A thread takes a slot before it works, and gives it back while it waits for something outside;
 * the one that has waited for the longest is the next. Taking back never fails: a thread whose time
 * is up goes on all the same, so that for a moment more than n may run.
 */
#ifndef HS_CANCEL_SLOTS_H
#define HS_CANCEL_SLOTS_H

#include "hardsock_binding.h"

#include "wait.h"

long hs_slots_live(void);

#endif
