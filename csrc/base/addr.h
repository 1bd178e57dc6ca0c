/* addr.h: what the other floors need to know about addresses beyond hardsock.h.
 *
 * An address is a value: no allocation, no lookup, no system call except if_nametoindex(3) for an
 * IPv6 scope.
 */
#ifndef HS_BASE_ADDR_H
#define HS_BASE_ADDR_H

#include "hardsock.h"

/* HS_OK when host is an IPv4 or IPv6 literal (with an optional %scope); HS_WANT when it is a name;
 * HS_E_INVALID when it is a literal with a bad scope. */
HS_NODISCARD hs_err hs_addr_from_literal(const char *host, uint16_t port, struct hs_error *err,
                                         struct hs_addr *ret_addr);
void hs_addr_set_port(struct hs_addr *addr, uint16_t port);
uint16_t hs_addr_port(const struct hs_addr *addr);
/* As assignment, from one of which no more is there than its length needs. */
void hs_addr_copy(struct hs_addr *to, const struct hs_addr *from);
/* Same family, address, scope and port. */
bool hs_addr_equal(const struct hs_addr *a, const struct hs_addr *b);

#endif
