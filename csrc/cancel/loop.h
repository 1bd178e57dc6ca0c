/* loop.h: what the waiting code needs of event loops beyond hardsock.h.
 *
 * A waiter is to a stepped op what a waker is to a thread: it listens to the wake lists of the
 * things that the op depends on, and can be rung from any thread.
 */
#ifndef HS_CANCEL_LOOP_H
#define HS_CANCEL_LOOP_H

#include "wait.h"

/* Each op listens to at most one list of either kind. */
enum hs_loop_source { HS_BELL_TOKEN, HS_BELL_TOLD, HS_BELL_OWNER, HS_BELL_EARS };

/* Joins the list, until the waiter is unparked. */
void hs_loop_waiter_listen(struct hs_loop_waiter *b, enum hs_loop_source source,
                           struct hs_wakelist *list);
/* Called under the lock of a wake list that the waiter listens to; the caller then rings the
 * waker. */
void hs_loop_waiter_wake(struct hs_loop_waiter *b);

#endif
