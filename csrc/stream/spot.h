/* spot.h: what connections know of where they are parked.
 *
 * What servers ask of a parking is in hardsock.h.
 */
#ifndef HS_STREAM_SPOT_H
#define HS_STREAM_SPOT_H

#include "hardsock_binding.h"

/* A connection's slot in a parking, made when it is parked for the first time. */
struct hs_spot;

/* The connection was closed, or has left us. NULL is fine. */
void hs_spot_ended(struct hs_spot *s);
/* Whether it is parked and waits for a message. NULL: it is not. */
bool hs_spot_waits(struct hs_spot *s);
/* It is given out as expired, unless something comes before. False: it does not wait any more. */
HS_NODISCARD bool hs_spot_retire(struct hs_spot *s);
/* Takes that back. True: it is given out as expired all the same. NULL is fine. */
bool hs_spot_unretire(struct hs_spot *s);
/* With the connection. NULL is fine. */
void hs_spot_free(struct hs_spot *s);

long hs_parking_live(void);

#endif
