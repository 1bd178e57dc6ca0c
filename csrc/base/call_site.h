/* call_site.h: lines of the program, as C strings that outlive the interpreter's own, and what is
 * counted by line.
 *
 * A site is made once per (file, function, line) and never freed: the one who has a pointer to one
 * may read it at any time, in any thread, without a lock. Code that is made at run time must not
 * fill the memory: beyond HS_SITES_MAX all places are one.
 *
 * Invariants: a bucket's list only grows, at its head; name and line of a site in it never change.
 */
#ifndef HS_BASE_CALL_SITE_H
#define HS_BASE_CALL_SITE_H

#include "hardsock_binding.h"

#include <stdatomic.h>

struct hs_call_site {
    const char *file, *function; /* own */
    int line;
    struct hs_call_site *next;
    /* Relaxed counters: */
    _Atomic uint64_t opened[HS_MADE_KINDS], closed[HS_MADE_KINDS];
    _Atomic uint64_t leaked, received, sent;
};

#endif
