/* loop.h: what the waiting code needs of event loops beyond hardsock.h.
 *
 * A bell is to a stepped op what a waker is to a thread: it listens to the wake lists of the things
 * that the op depends on, and can be rung from any thread.
 */
#ifndef HS_CANCEL_LOOP_H
#define HS_CANCEL_LOOP_H

#include "wait.h"

/* Each op listens to at most one list of either kind. */
enum hs_bell_ear { HS_BELL_TOKEN, HS_BELL_TOLD, HS_BELL_OWNER, HS_BELL_EARS };

/* Joins the list, until the bell is unparked. */
void hs_bell_listen(struct hs_bell *b, enum hs_bell_ear ear, struct hs_wakelist *list);
/* Called under the lock of a wake list that the bell listens to; the caller then rings the
 * waker. */
void hs_bell_ring(struct hs_bell *b);

#endif
