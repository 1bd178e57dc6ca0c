/* turns.h: the object Turns, between type_turns.c and the connections that join it.
 *
 * It holds no Python object but its type.
 */
#ifndef HS_BINDING_TURNS_H
#define HS_BINDING_TURNS_H

#include "state.h"

typedef struct {
    PyObject_HEAD
    struct hs_turns *core; /* owns: a reference; write once */
} TurnsObject;

#endif
