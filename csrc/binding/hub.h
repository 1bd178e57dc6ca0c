/* hub.h: what a Hub (one event loop's waiting room) and its Operations know of each other.
 *
 * An Operation that has to wait is parked: the Hub then holds a reference to it and lists it, so
 * that the garbage collector sees the cycle through the task that waits.
 */
#ifndef HS_BINDING_HUB_H
#define HS_BINDING_HUB_H

#include "job.h"

/* How many operations may end at once, one after the other, before the loop gets a turn. */
#define HUB_BUDGET 128

typedef struct operation_object OperationObject;

typedef struct {
    HS_HEAD
    struct hs_loop *core;    /* owns */
    PyObject *get_loop;      /* owns: a weak reference to the asyncio loop, or NULL */
    PyObject *get_running;   /* owns: says which asyncio loop runs in this thread, or NULL */
    PyObject *cancelled;     /* owns: asyncio.CancelledError, or NULL */
    PyObject *drive;         /* owns: awaits an Operation where it is no asyncio loop, or NULL */
    struct scratch scratch;  /* owns */
    OperationObject *parked; /* a list; own: a reference each */
    int budget;              /* left of HUB_BUDGET */
    unsigned long thread;    /* in which its loop was last seen to run */
    bool closed;
    PyObject *weakrefs;
} HubObject;

enum operation_state {
    OP_NEW,
    OP_PARKED, /* waits; listed by the hub */
    OP_WOKEN,  /* to be stepped again */
    OP_ENDED,
};

struct operation_object {
    HS_HEAD
    HubObject *hub;       /* owns */
    struct hs_bell *bell; /* owns; NULL once it has ended */
    enum operation_state state;
    bool blocking;                /* asyncio's protocol: what was yielded is waited for */
    bool cancelled;               /* by asyncio, while parked */
    PyObject *callback;           /* owns: how to resume the task */
    PyObject *context;            /* owns: in which contextvars context, or NULL */
    PyObject *message;            /* owns: of the cancel, or NULL */
    PyObject *value;              /* owns: what it ended with, for a driver to take */
    OperationObject *prev, *next; /* in hub->parked */
    PyObject *stop;               /* owns: made by the first step that may need it, or NULL */
    struct job job;
};

/* -1 with an exception set when the hub's loop does not run in this thread: nothing of the hub may
 * be touched then. */
int hub_enter(HubObject *hub);

/* Takes it out of the hub's list and of all that could resume it. */
void operation_unpark(OperationObject *op);
/* Unparks it and resumes its task: at once, or (soon, or when that cannot be) in asyncio's next
 * turn. */
int operation_wake(OperationObject *op, bool soon);

#endif
