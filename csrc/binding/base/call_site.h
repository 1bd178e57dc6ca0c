/* call_site.h: somewhere in the program, as a value that costs next to nothing.
 *
 * A call site is (code, offset): no string is made until somebody asks for file, line and function.
 */
#ifndef HS_BINDING_CALL_SITE_H
#define HS_BINDING_CALL_SITE_H

#include "state.h"

struct call_site {
    PyObject *code; /* a code object, or NULL: not known; whose reference the holder says */
    int at;         /* an offset in its bytecode */
};

/* Which files are passed over: once per module. */
int call_site_init(mod_state *st);
/* The innermost frame: no more than a look. False, without an exception: there is none.
 * borrows: code, which the frame keeps while it runs. */
bool call_site_of_caller(struct call_site *ret_site);
/* That of the program which asked: not our own, nor a library's (see .c); else as above. */
bool call_site_outside(mod_state *st, struct call_site *ret_site);
/* n frames, from there outward: a tuple of (code, offset), or NULL with an exception. */
PyObject *call_site_trace(mod_state *st, int n);
int call_site_line(const struct call_site *site);
/* The same as C strings, for those who look without the interpreter; never NULL. */
struct hs_call_site *call_site_intern(mod_state *st, const struct call_site *site);
/* With the module. */
void call_site_free_interned(mod_state *st);

#endif
