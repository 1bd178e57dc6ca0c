/* run.h: one call from Python into the core: deadline, token, detaching, errors.
 *
 * The one who makes a struct call begins it with call_begin and ends it with call_end on every
 * path.
 */
#ifndef HS_BINDING_RUN_H
#define HS_BINDING_RUN_H

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

/* For a call that is all zero. timeout and token as given by the caller (NULL or None: not given);
 * default_ns: what the object's settimeout says, HS_NEVER for none, 0 for non-blocking. Call
 * call_end afterwards in any case. */
int call_begin(struct call *c, mod_state *st, PyObject *timeout, PyObject *token,
               int64_t default_ns);
/* Lets it end with token as well; takes token, which is a CancelToken, or NULL: nothing. */
int call_bind(struct call *c, PyObject *token);
void call_end(struct call *c);

/* Whether neither the ambient scope nor bound (NULL: none) has ended, so that a call may begin.
 * False also when that cannot be told; never an exception. */
bool scopes_are_live(mod_state *st, PyObject *bound);

/* Detaches, calls fn(c, arg) once, re-attaches. No core lock is held when it returns. */
typedef hs_err (*call_fn)(struct call *c, void *arg);
hs_err call_step(struct call *c, call_fn fn, void *arg);
/* The same, again on HS_INTR unless a signal handler raised. The op holds an absolute deadline, so
 * that a retry never buys time (PEP 475). 0, or -1 with an exception set; then the caller abandons
 * the op. */
int call_run(struct call *c, call_fn fn, void *arg);

/* Detaches around something that neither waits for long nor fails. */
void run_detached(void (*fn)(void *arg), void *arg);
/* The same around a wait: how long attaching takes after it is measured, if anybody wants it. */
void run_waiting(mod_state *st, void (*fn)(void *arg), void *arg);

/* ---- errors.c ---- */
/* For hooks: steals value; an attribute that cannot be made (NULL) is left out. */
void error_put(PyObject *dict, PyObject *name, PyObject *value);
/* The bytes of the kernel's address, or None; NULL with an exception set. */
PyObject *error_raw_address(const struct hs_addr *addr);
/* Sets the exception for c->err, with all that is known; returns -1. */
int raise_error(struct call *c, hs_err code);
/* What a connect has tried so far, as an exception's `attempts`. Returns a new reference, or NULL
 * with an exception. */
PyObject *attempts_tuple(mod_state *st, const struct call_route *r);
/* For calls that do not wait. */
int raise_plain_error(mod_state *st, const struct hs_error *err, hs_err code);
/* The same on a connection, whose addresses it tells. */
int raise_conn_error(mod_state *st, struct hs_conn *conn, const struct hs_error *err, hs_err code);
/* The same for HS_E_BREAKER_OPEN. Takes address, which may be NULL. */
int raise_breaker_open(mod_state *st, const struct hs_error *err, PyObject *address);
/* The same; o tells more when it is HS_E_FRAME_TOO_LARGE. */
int raise_frame_error(mod_state *st, const struct hs_error *err, hs_err code,
                      const struct hs_oversize *o);

#endif
