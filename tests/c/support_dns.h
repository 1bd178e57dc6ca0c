/* support_dns.h: a name server of our own, at 127.0.0.1:53 of a private namespace.
 *
 * Which names it answers follows from the names.
 */
#ifndef TESTS_C_SUPPORT_DNS_H
#define TESTS_C_SUPPORT_DNS_H

#include <sys/types.h>

/* /etc/resolv.conf for it: one try, one second. */
#define NAME_SERVER "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"

/* A process that answers each A question with n addresses (127.0.0.1 and up) and each AAAA
 * question with none, but never one whose name has "slow" in it. It is there when this returns. */
pid_t name_server_start(int n);
void name_server_stop(pid_t pid);

#endif
