/* held.h: a context variable that is set in a block, for the types that are such a block.
 *
 * Code in Python cannot pair the set of a variable with its reset. An exception from outside
 * (Ctrl-C, PyThreadState_SetAsyncExc) comes between two of its instructions: also between the call
 * that sets and the line that notes it, or at the first instruction of an __exit__. It does not
 * come in the middle of a call of C. CPython up to 3.13 does not look for one between __enter__ and
 * what the end of the block guards. From 3.14 on it may, and then nothing holds the object any
 * more: its end takes back what it has set. ADR 83.
 *
 * Invariants:
 * - `state` is BUSY while __enter__ or __exit__ is at work; who made it BUSY is alone with what is
 *   not write once.
 * - A variable is set while `state` is ENTERED, and at no other time outside of these calls.
 */
#ifndef HS_BINDING_HELD_H
#define HS_BINDING_HELD_H

#include "binding/base/state.h"

#include <stdatomic.h>

enum { IDLE, BUSY, ENTERED };

struct held {
    PyObject *variable, *value; /* write once; NULL: there is none */
    PyObject *undo;             /* owns: what resets it, or NULL */
    PyObject *was;              /* owns: what it had before, while `undo` is there, or NULL */
};

static inline bool
held_claim(atomic_int *state, int wanted)
{
    return atomic_compare_exchange_strong(state, &wanted, BUSY);
}

int held_set(struct held *held);
/* 0, or -1 with the ValueError of a context that is another one. */
int held_reset(struct held *held);
/* For the end of an object: in another context, or where another value covers it, it stays. Leaves
 * no exception. */
void held_drop(struct held *held);

#endif
