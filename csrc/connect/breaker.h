/* breaker.h: what the rest of the core needs of breakers beyond hardsock.h.
 *
 * A count, for the inventory of live objects.
 */
#ifndef HS_CONNECT_BREAKER_H
#define HS_CONNECT_BREAKER_H

long hs_breaker_live(void);

#endif
