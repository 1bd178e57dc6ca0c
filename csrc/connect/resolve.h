/* resolve.h: name lookups that nobody has to wait for.
 *
 * A lookup runs glibc's getaddrinfo in a detached thread of its own. Callers hold a ticket; when
 * the answer is in, the ticket's eventfd is written. A caller may leave at any time: the last to
 * leave makes the lookup an orphan, which ends when libc lets it.
 */
#ifndef HS_CONNECT_RESOLVE_H
#define HS_CONNECT_RESOLVE_H

#include "hardsock.h"
#include "../base/list.h"
#include "../base/own_fd.h"

/* More addresses than this in one answer are ignored: nobody tries so many before a deadline, and
 * an answer of 4,000 addresses has been seen to hang callers. */
#define HS_MAX_ADDRS 32

struct hs_lookup;

struct hs_ticket {
    struct hs_list link;      /* guarded by the resolver's lock */
    struct hs_lookup *lookup; /* owns: a reference; NULL when unused */
    struct hs_own_fd notify;  /* borrows: an eventfd, until leave */
};

/* Starts, joins or queues a lookup of (host, family). Never blocks on the network. */
HS_NODISCARD hs_err hs_lookup_enter(const char *host, int family, const struct hs_own_fd *notify,
                                    struct hs_error *err, struct hs_ticket *ticket);
/* False while there is no answer; else fills ret_answer (addrs NULL) and copies at most
 * HS_MAX_ADDRS addresses, with port, to addrs. */
bool hs_lookup_answer(struct hs_ticket *ticket, uint16_t port, struct hs_answer *ret_answer,
                      struct hs_addr *addrs);
/* When a caller that waits should call hs_lookup_answer although nothing has rung; HS_NEVER
 * mostly. */
int64_t hs_lookup_look_at(const struct hs_ticket *ticket);
/* If the lookup has not started: what keeps it from that. Else buf is left alone. */
void hs_lookup_tell_starved(const struct hs_ticket *ticket, char *buf, size_t size);
/* Gives the ticket back; harmless when it is unused. */
void hs_lookup_leave(struct hs_ticket *ticket);

#endif
