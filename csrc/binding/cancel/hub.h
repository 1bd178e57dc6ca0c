/* hub.h: what a Hub (one event loop's waiting room) and its Operations know of each other.
 *
 * An Operation that has to wait is parked: the Hub then holds a reference to it and lists it, so
 * that the garbage collector sees the cycle through the task that waits. One that is to be stepped
 * again is listed as well, without a reference: when the loop is closed, all that have begun end.
 */
#ifndef HS_BINDING_HUB_H
#define HS_BINDING_HUB_H

#include "binding/base/job.h"

#include <sys/types.h>

/* How many operations may end at once, one after the other, before the loop gets a turn. */
#define HUB_BUDGET 128

typedef struct operation_object OperationObject;

typedef struct {
    HS_HEAD
    struct hs_loop *core;    /* owns; NULL once the loop has ended and nothing needs it */
    PyObject *get_loop;      /* owns: a weak reference to the asyncio loop, or NULL */
    const void *loop;        /* which asyncio loop that is; never used but to compare */
    PyObject *get_running;   /* owns: says which asyncio loop runs in this thread, or NULL */
    PyObject *cancelled;     /* owns: asyncio.CancelledError, or NULL */
    PyObject *drive;         /* owns: awaits an Operation where it is no asyncio loop, or NULL */
    PyObject *find;          /* owns: returns the Hub of the event loop that runs here */
    PyObject *told;          /* owns: called when a deadline or a cancel ended a call; or NULL */
    PyObject *unheard;       /* owns: called when the kernel does not say what is ready; or NULL */
    PyObject *trio;          /* owns: the name of a module */
    PyObject *key;           /* owns: where asyncio keeps the running loop, see compat.h */
    struct scratch scratch;  /* owns */
    OperationObject *parked; /* a list; own: a reference each */
    OperationObject *woken;  /* a list: have begun, and are to be stepped again */
    size_t operations;       /* those that have a waiter */
    int budget;              /* left of HUB_BUDGET */
    unsigned long thread;    /* in which its loop was last seen to run */
    pid_t process;
    bool closed;
    bool waiting;   /* a thread is in wait(), and needs the core */
    bool collected; /* what is due was found by wait() */
    bool told_lost; /* its core has lost its descriptors, and those that wait were told */
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
    HubObject *hub;                     /* owns */
    struct hs_loop_waiter *loop_waiter; /* owns; NULL once it has ended */
    enum operation_state state;
    bool blocking;                /* asyncio's protocol: what was yielded is waited for */
    bool cancelled;               /* by asyncio, while parked */
    PyObject *callback;           /* owns: how to resume the task */
    PyObject *context;            /* owns: in which contextvars context, or NULL */
    PyObject *message;            /* owns: of the cancel, or NULL */
    PyObject *value;              /* owns: what it ended with, for a driver to take */
    OperationObject **list;       /* that it is in: the hub's parked or woken; or NULL */
    OperationObject *prev, *next; /* in that */
    PyObject *stop;               /* owns: made by the first step that may need it, or NULL */
    struct job job;
};

/* A new reference to the Hub of the event loop that runs in this thread: hint, if that is it. NULL
 * with an exception set: none runs. */
HubObject *hub_here(HubObject *hint);

/* Has it waited for by the loop. 0, or -1 with an exception. */
int operation_park(OperationObject *op);
/* To be stepped again in any case: it has begun, so it may hold a claim. */
void operation_step_again(OperationObject *op);
/* A new reference to its asyncio loop, or None. */
PyObject *operation_loop(const OperationObject *op);
/* Resumes a task in asyncio's next turn. 0, or -1 with an exception. */
int operation_call_soon(OperationObject *op, PyObject *callback, PyObject *context);
/* Takes it out of all that could resume it. */
void operation_unpark(OperationObject *op);
/* Gives it up: what it has claimed is free again, or poisoned. */
void operation_end(OperationObject *op);
/* Unparks it and resumes its task: at once, or (soon, or when that cannot be) in asyncio's next
 * turn. */
int operation_wake(OperationObject *op, bool soon);

#endif
