/* tracking.h: the part of a Connection or Listener object that says where in the program it was
 * made.
 *
 * Each is in a list of the module's from tracking_add to tracking_remove, so that what is open can
 * be told. In a listing nothing is kept alive: it is a copy.
 */
#ifndef HS_BINDING_TRACKING_H
#define HS_BINDING_TRACKING_H

#include "call_site.h"

enum opened_how {
    OPENED_CONNECT,
    OPENED_ACCEPT,
    OPENED_ADOPT,
    OPENED_LISTEN,
    OPENED_LENT, /* in the list only while the module tells owners: a pool has its own books */
};

struct opened;

/* What each sort of object that holds a struct opened can be asked. No Python is run: they are
 * called within the list's lock. */
struct opened_kind {
    struct hs_conn *(*conn)(const struct opened *o); /* borrowed; NULL: it is no connection */
    struct hs_listener *(*listener)(const struct opened *o); /* the same */
    bool (*is_open)(const struct opened *o);                 /* as far as its object knows */
};

struct opened {
    const struct opened_kind *kind; /* write once, before it is added */
    struct opened *prev, *next;     /* guarded by conn_type: in st->opened */
    bool listed;                    /* it is in there */
    enum opened_how how;
    uint64_t serial; /* never used again; what makefile() shares has the same */
    int64_t since_ns;
    uint64_t thread;
    struct call_site site; /* owns */
    PyObject *owner;       /* owns: to whom the context said it belongs, or NULL; if it is listed */
};

/* What a connection that is being made will have: looked for when the call begins, since an
 * event loop ends it somewhere else. Ends with opening_end. */
struct opening {
    enum opened_how how;
    struct call_site site;
    PyObject *owner;
};
void opening_begin(mod_state *st, struct opening *o, enum opened_how how);
/* As `from` has them. */
void opening_like(struct opening *o, enum opened_how how, const struct opened *from);
void opening_end(struct opening *o);

/* Never fails; fd is looked at by the watch on descriptors, which may run Python code. */
void tracking_add(mod_state *st, struct opened *o, const struct opening *from, int fd);
/* On the same connection. */
void tracking_share(mod_state *st, struct opened *o, const struct opened *from);
void opened_end(mod_state *st, struct opened *o);
/* The rest of opened_lent, while owners are told. */
void opened_list_lent(mod_state *st, struct opened *o);

/* For a lent connection. Borrowers are in a hurry, so this is inline. */
static inline void
opened_lent(mod_state *st, struct opened *o, const struct call_site *site)
{
    o->how = OPENED_LENT;
    o->site.at = site->at;
    o->site.code = Py_XNewRef(site->code);
    if (atomic_load_explicit(&st->tells_owners, memory_order_relaxed))
        opened_list_lent(st, o);
}

static inline void
tracking_remove(mod_state *st, struct opened *o)
{
    if (o->listed)
        opened_end(st, o);
    Py_CLEAR(o->site.code);
}
/* Called by a finalizer of something open, with the exception state put away: tells the user, and
 * the one who wants to know owners. */
void tracking_warn(const struct opened *o, PyObject *obj);
void tracking_thrown_away(mod_state *st, const struct opened *o, PyObject *obj);
/* A call failed with this errno: the watch on descriptors looks if there are none left. */
void tracking_failed(mod_state *st, int sys);

#endif
