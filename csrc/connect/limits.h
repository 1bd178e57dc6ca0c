/* limits.h: what the rest of the core needs of dial limits beyond hardsock.h.
 *
 * A count, for the inventory of live objects.
 */
#ifndef HS_CONNECT_LIMITS_H
#define HS_CONNECT_LIMITS_H

long hs_dial_limits_live(void);

#endif
