/* call.h: one call from Python into the core, as data: its deadline, its tokens, its errors.
 *
 * run.c begins and ends it, detach.c runs a step of it, errors.c makes exceptions of what it met.
 */
#ifndef HS_BINDING_CALL_H
#define HS_BINDING_CALL_H

#include "state.h"

struct call;

/* What was tried to reach a peer: by a call, or by the dial of a pool whose error the call gets.
 * Borrows all; zero: nothing was. */
struct call_route {
    const struct hs_attempt *attempts;
    size_t n;
    int64_t began_ns;                 /* what the times of the attempts are told from */
    const struct hs_addr *refused;    /* of HS_E_BREAKER_OPEN, or NULL */
    const struct hs_addr *target;     /* what was to be listened on, or NULL */
    char endpoint[HS_ADDR_TEXT_SIZE]; /* what was to be connected to, as it was asked for, or "" */
};

/* What a kind of call knows of its errors beyond c->err. Each hook may be NULL. */
struct call_kind {
    /* Another class than that of the code, borrowed; NULL: that of the code. */
    PyObject *(*class_of)(const struct call *c, hs_err code);
    /* Fills *route, which is zero. */
    void (*route)(const struct call *c, struct call_route *route);
    /* Adds attributes to dict, the exception's own, after those that every call has. */
    void (*describe)(const struct call *c, hs_err code, PyObject *dict);
    /* Last, with all attributes there. May run Python code; exceptions of its own are dropped. */
    void (*explain)(const struct call *c, hs_err code, PyObject *exc);
};

struct call {
    mod_state *st;
    struct hs_op op;
    int64_t started_ns;
    PyObject *token;              /* owns: the ambient CancelToken, or NULL */
    PyObject *given;              /* owns: the token= that the caller gave, or NULL */
    PyObject *bound;              /* owns: the token that the connection is bound to, or NULL */
    struct hs_token *linked;      /* owns: made when several of these apply */
    struct hs_conn *conn;         /* borrows: what is used, and for addresses in errors; or NULL */
    const struct call_kind *kind; /* static: how it describes its errors; NULL: nothing to add */
    void *about;                  /* borrows: what the hooks of kind look at */
    bool nonblocking;             /* settimeout(0): raise BlockingIOError */
    bool by_default;              /* no timeout= was given: span_ns is what settimeout said */
    bool by_process; /* nor did settimeout or a token: span_ns is that of hs.defaults */
    bool is_patient; /* hs.defaults is not for it: it waits for as long as nobody comes */
    int64_t span_ns;
    struct hs_error *err; /* borrows: the caller's, empty before each step; a call that waits in an
                           * event loop has none in between */
};

#endif
