/* listener.h: the Listener object, for type_listener.c and for tracking.c.
 *
 * tracking.c copies what it tells of one; only its own type changes it.
 */
#ifndef HS_BINDING_LISTENER_H
#define HS_BINDING_LISTENER_H

#include "binding/base/tracking.h"

struct unaccepted;

typedef struct {
    HS_HEAD
    struct hs_listener *core; /* owns: a reference; write once */
    struct opened opened;     /* where it was made */
    atomic_bool serves;       /* what it accepts counts as made there too */
    struct unaccepted *left;  /* own: accepted, but there was no memory for their objects */
    PyObject *weakrefs;
} ListenerObject;

static inline ListenerObject *
listener_with(struct opened *o)
{
    return (ListenerObject *)(void *)((char *)o - offsetof(ListenerObject, opened));
}

#endif
