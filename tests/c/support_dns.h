/* support_dns.h: a name server of our own, at 127.0.0.1:53 of a private namespace.
 *
 * Which names it answers follows from the names.
 */
#ifndef TESTS_C_SUPPORT_DNS_H
#define TESTS_C_SUPPORT_DNS_H

#include <sys/types.h>

/* /etc/resolv.conf for it. libc waits for half a minute, longer than a thread stands still: how
 * long a slow question waits, the test says by name_server_let_go(). It asks again every 5 s, in
 * case the question or its answer found a full buffer. */
#define NAME_SERVER "nameserver 127.0.0.1\noptions timeout:5 attempts:6\n"

/* A process that answers each A question with n addresses (127.0.0.1 and up) and each AAAA
 * question with none, but keeps those whose name has "slow" in it. It is there when this
 * returns. */
pid_t name_server_start(int n);

/* It answers the slow questions, those to come too: there is no such name. */
void name_server_let_go(pid_t pid);

/* Lets go of them, and ends when no lookup of this process is under way. */
void name_server_stop(pid_t pid);

#endif
