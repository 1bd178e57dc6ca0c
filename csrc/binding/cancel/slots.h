/* slots.h: the object Slots, between type_slots.c and the connections that join it.
 *
 * It holds no Python object but its type and its module.
 */
#ifndef HS_BINDING_SLOTS_H
#define HS_BINDING_SLOTS_H

#include "binding/base/state.h"

typedef struct {
    HS_HEAD
    struct hs_slots *core; /* owns: a reference; write once */
} SlotsObject;

#endif
