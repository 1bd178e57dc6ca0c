/* framing.h: framings as arguments of methods.
 *
 * A hardsock.LengthPrefix, Delimiter or Line holds a _core.Framing, which was checked when it was
 * made and never changes: methods take what it points to without parsing or copying anything.
 */
#ifndef HS_BINDING_FRAMING_H
#define HS_BINDING_FRAMING_H

#include "binding/base/state.h"

struct framing_arg {
    PyObject *owner;            /* owns: keeps f alive */
    const struct hs_framing *f; /* borrows: owner */
    PyObject *encoding;         /* borrows: owner; NULL: frames are bytes */
    bool utf8;                  /* that is what encoding says */
};

/* 0, or -1 with a TypeError. Ends with framing_release on every path, also after -1. */
int parse_framing(mod_state *st, PyObject *obj, struct framing_arg *ret);
void framing_release(struct framing_arg *a);
/* A frame as the caller wants it: bytes, or str. May run Python code, but not while it reads data.
 * UnicodeDecodeError holds the bytes. */
PyObject *frame_object(const struct framing_arg *a, const uint8_t *data, size_t len);

#endif
