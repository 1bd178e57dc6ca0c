/* place.h: somewhere in the program, as a value that costs next to nothing.
 *
 * A place is (code, offset): no string is made until somebody asks for file, line and function.
 */
#ifndef HS_BINDING_PLACE_H
#define HS_BINDING_PLACE_H

#include "state.h"

struct place {
    PyObject *code; /* a code object, or NULL: not known; whose reference the holder says */
    int at;         /* an offset in its bytecode */
};

/* Which files are passed over: once per module. */
int place_init(mod_state *st);
/* The innermost frame: no more than a look. False, without an exception: there is none.
 * borrows: code, which the frame keeps while it runs. */
bool place_of_caller(struct place *ret_place);
/* That of the program which asked: not our own, nor a library's (see place.c); else as above. */
bool place_outside(mod_state *st, struct place *ret_place);
/* n frames, from that place outward: a tuple of (code, offset), or NULL with an exception. */
PyObject *place_trace(mod_state *st, int n);
int place_line(const struct place *place);
/* The same as C strings, for those who look without the interpreter; never NULL. */
struct hs_site *place_site(mod_state *st, const struct place *place);
/* With the module. */
void place_free_sites(mod_state *st);

#endif
