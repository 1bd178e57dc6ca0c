/* getaddr.h: one getaddrinfo(3), in a thread whose memory may have been another's.
 *
 * Knows what glibc keeps for a thread; does not know what a lookup is.
 */
#ifndef HS_CONNECT_GETADDR_H
#define HS_CONNECT_GETADDR_H

#include <netdb.h>

/* Blocks for as long as libc likes. Returns an EAI_* or 0; *ret_sys is the errno of EAI_SYSTEM,
 * else 0. *ret_list is set on success only; freeaddrinfo it. libc holds nothing for this thread
 * when it returns: no socket, no configuration, nothing for the end of the thread to do. */
int hs_getaddr(const char *host, int family, struct addrinfo **ret_list, int *ret_sys);

#endif
