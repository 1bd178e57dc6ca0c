/* check.c: the end of a process that has caught itself lying.
 *
 * Writes with write(2) alone: the heap and stdio may be what is broken.
 */
#include "check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void
check_put(const char *s)
{
    ssize_t ignored = write(STDERR_FILENO, s, strlen(s));

    (void)ignored;
}

_Noreturn void
hs_assert_failed(const char *file, int line, const char *what)
{
    char digits[12];
    char *p = digits + sizeof(digits) - 1;

    *p = '\0';
    do {
        *--p = (char)('0' + line % 10);
        line /= 10;
    } while (line > 0);
    check_put("hardsock: bug: ");
    check_put(file);
    check_put(":");
    check_put(p);
    check_put(": ");
    check_put(what);
    check_put("\n");
    abort();
}
