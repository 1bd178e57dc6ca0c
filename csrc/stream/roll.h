/* roll.h: the list of all connections of the process, for those who look at it, and what is noted
 * on each for them.
 *
 * Looking needs neither the interpreter nor a connection's own calls: the reader takes references,
 * and reads what is immutable or atomic. The list is in parts, each with a lock of its own, so that
 * threads that open connections do not wait for one another.
 *
 * Invariants:
 * - A connection is in the list from hs_roll_add to hs_roll_remove, which is called with no
 *   reference left and before anything of it is taken apart. A reader takes a reference under the
 *   part's lock, and only if there is one left.
 * - Each connection is counted as opened by its site once, and as closed once if it was; whichever
 *   of hs_conn_set_site and hs_roll_ended comes second sees that the other was there.
 * - waits_since_ns of a direction is not 0 only while a call has it claimed. Only the claimer
 *   writes it, and ends it before it lets the direction go.
 */
#ifndef HS_STREAM_ROLL_H
#define HS_STREAM_ROLL_H

#include "hardsock_binding.h"

void hs_roll_add(struct hs_conn *c);
void hs_roll_remove(struct hs_conn *c);
/* Never NULL. */
struct hs_call_site *hs_roll_site(struct hs_conn *c);
/* It was closed, or given away. Once. */
void hs_roll_ended(struct hs_conn *c);

/* An event that is about c. */
void hs_roll_note(struct hs_conn *c, enum hs_event_kind kind, hs_err code, int64_t span_ns);

/* In a call that has claimed dir: before it waits, and after; now: hs_now(). */
void hs_stall_begin(struct hs_conn *c, const struct hs_op *op, enum hs_dir dir);
void hs_stall_end(struct hs_conn *c, enum hs_dir dir, int64_t now);
/* Bytes were there without waiting: now and then, since when. Reading claimed. */
void hs_stall_ask_kernel(struct hs_conn *c);

#endif
