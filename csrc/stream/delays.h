/* delays.h: how long what has arrived waits for somebody to look at it.
 *
 * What servers ask of it is in hardsock_binding.h.
 */
#ifndef HS_STREAM_DELAYS_H
#define HS_STREAM_DELAYS_H

#include "hardsock_binding.h"

/* Just before somebody takes what may be the beginning of a message out of c's kernel queue: one of
 * some such moments is measured. c->delays may be NULL. */
void hs_delays_look(struct hs_conn *c);

#endif
