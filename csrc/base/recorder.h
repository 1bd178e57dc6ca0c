/* recorder.h: noting an event in the flight recorder.
 *
 * From any thread, under any lock, in any finalizer: it takes no lock, allocates nothing and never
 * waits. Reading is in hardsock.h.
 *
 * Invariants:
 * - A slot's seq is even while its words are whole, odd while somebody writes them. Only who has
 *   changed it from even to odd writes; who finds it odd, or newer than its own, gives its event up
 *   (it is counted all the same).
 * - The words are stored with release and loaded with acquire: who has seen a new word sees the odd
 *   seq that came before it.
 */
#ifndef HS_BASE_RECORDER_H
#define HS_BASE_RECORDER_H

#include "hardsock_binding.h"

/* Fills in when, which number, which thread. */
void hs_event_note(enum hs_event_kind kind, const struct hs_event *e);
/* Sets e->text, or as much of it as fits. */
void hs_event_text(struct hs_event *e, const char *text);
/* The number of the last event so far. Async-signal-safe. */
uint64_t hs_event_last(void);
/* Slot i of HS_EVENTS_MAX. False: nothing, or not whole at this moment. Async-signal-safe. */
bool hs_event_read(size_t i, struct hs_event *ret_event);

#endif
