/* loop.h: what the waiting code needs of event loops beyond hardsock.h.
 *
 * A waiter is to a stepped op what a waker is to a thread: it listens to the wake lists of the
 * things that the op depends on, and can be woken from any thread.
 */
#ifndef HS_CANCEL_LOOP_H
#define HS_CANCEL_LOOP_H

#include "waker.h"

/* Each op listens to at most one list of either kind. */
enum hs_loop_source { HS_LISTEN_TOKEN, HS_LISTEN_TOLD, HS_LISTEN_OWNER, HS_LISTEN_SOURCES };

/* Joins the list, until the waiter is unparked. */
void hs_loop_waiter_listen(struct hs_loop_waiter *b, enum hs_loop_source source,
                           struct hs_wakelist *list);

/* Whether the loop is told of all that comes for this descriptor, and has heard of nothing that
 * nobody waited for: so what the last try has emptied is empty still. From the loop's thread. */
bool hs_loop_waiter_hears(const struct hs_loop_waiter *b, int fd, uint64_t id);

#endif
