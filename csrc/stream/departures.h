/* departures.h: which peers of a crowd of connections have left, while nobody looks at them.
 *
 * A handler that works for its client does not read from it meanwhile, and so does not hear that
 * the client has gone. A set of connections stands in one epoll set, which is asked for errors and
 * hang-ups only: data that arrives wakes nobody. When a peer has left, the token of its connection
 * is cancelled.
 */
#ifndef HS_STREAM_DEPARTURES_H
#define HS_STREAM_DEPARTURES_H

#include "hardsock_binding.h"

long hs_departures_live(void);
/* Its descriptor is the caller's now: the number lives on, and its entry in the set would. */
void hs_departures_given_away(struct hs_conn *c);

#endif
