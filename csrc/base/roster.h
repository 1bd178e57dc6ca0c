/* roster.h: lists of living objects of one kind, for those who look from outside.
 *
 * An object is in its list from the end of its making to the beginning of its taking apart, when no
 * reference is left. A reader is shown each under the list's lock and takes a reference, if there
 * is one left (hs_roster_try_ref); it does nothing else there.
 */
#ifndef HS_BASE_ROSTER_H
#define HS_BASE_ROSTER_H

#include "list.h"

#include <stdatomic.h>

enum hs_roster { HS_ROSTER_LISTENERS, HS_ROSTER_BREAKERS, HS_ROSTER_SERVICES, HS_ROSTERS };

void hs_roster_add(enum hs_roster which, struct hs_list *link);
void hs_roster_remove(enum hs_roster which, struct hs_list *link);
/* show runs under the lock, and returns whether it took one. Returns how many there are, of which
 * at most `room` are shown. */
size_t hs_roster_take(enum hs_roster which, size_t room,
                      bool (*show)(struct hs_list *link, size_t i, void *arg), void *arg);
/* False: it is being taken apart. */
bool hs_roster_try_ref(atomic_int *refs);

#endif
