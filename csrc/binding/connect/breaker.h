/* breaker.h: the objects Breaker and Permit, between type_breaker.c and type_permit.c.
 *
 * Neither holds a Python object but its type: the core's reference counts are all the ownership
 * there is.
 */
#ifndef HS_BINDING_BREAKER_H
#define HS_BINDING_BREAKER_H

#include "binding/base/args.h"
#include "binding/base/run.h"

typedef struct {
    HS_HEAD
    struct hs_breaker *core; /* owns: a reference; write once */
    PyObject *weakrefs;
} BreakerObject;

typedef struct {
    HS_HEAD
    struct hs_breaker *core;   /* owns: a reference; write once */
    struct hs_breaker_key key; /* write once */
    struct hs_permit permit;   /* guarded by the object's lock; zero once it was reported */
    bool probe;                /* write once */
    bool would_refuse;         /* write once */
} PermitObject;

/* Takes the reference core and the permit, also on failure. */
PyObject *permit_object_new(mod_state *st, struct hs_breaker *core,
                            const struct hs_breaker_key *key, const struct hs_permit *permit,
                            bool probe);
PyObject *breaker_key_object(const struct hs_breaker_key *key);

#endif
