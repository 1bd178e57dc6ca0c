/* ever.h: what all listeners and servers of this process have counted, also those that are no more.
 *
 * A listener's counts go with it, and who exports them may have asked last long before. So each is
 * counted twice: with the one that it is about, and here.
 */
#ifndef HS_LISTEN_EVER_H
#define HS_LISTEN_EVER_H

#include "hardsock_binding.h"

void hs_ever_count_listener(enum hs_listener_count which);
void hs_ever_count_service(enum hs_service_count which);

#endif
