/* listener.h: what the rest of the core needs of listeners beyond hardsock.h.
 *
 * A count, for the inventory of live objects.
 */
#ifndef HS_LISTEN_LISTENER_H
#define HS_LISTEN_LISTENER_H

#include "hardsock_binding.h"

long hs_listener_live(void);

#endif
