/* check.h: how hardsock states what it has proven about itself.
 *
 * HS_ASSERT is for our own bugs only and stays on in release builds: data from peers, system calls
 * and memory are handled, never asserted. Every handle type starts with a magic number that its
 * free function overwrites, so that a stale pointer is caught at the next entry point.
 */
#ifndef HS_BASE_CHECK_H
#define HS_BASE_CHECK_H

#include <stdint.h>

#ifndef HS_DEBUG
#define HS_DEBUG 0
#endif

_Noreturn void hs_assert_failed(const char *file, int line, const char *what);

#define HS_ASSERT(cond)                                                                            \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0))                                                          \
            hs_assert_failed(__FILE__, __LINE__, #cond);                                           \
    } while (0)

#define HS_CHECK(obj, wanted) HS_ASSERT((obj) != NULL && (obj)->magic == (wanted))

#endif
