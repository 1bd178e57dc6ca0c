/* connector.h: what the rest of the core needs of connectors beyond hardsock.h.
 *
 * A count, for the inventory of live objects.
 */
#ifndef HS_CONNECT_CONNECTOR_H
#define HS_CONNECT_CONNECTOR_H

long hs_connector_live(void);

#endif
