/* fortify.c: for `make static` alone, where libyaml.a was built for glibc and is linked with musl.
 *
 * Distributions compile it with _FORTIFY_SOURCE, which turns sprintf into glibc's checked one.
 * Every other function that it calls is in musl under the same name, with the same meaning. Weak,
 * so that a libc that has it keeps its own.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int __sprintf_chk(char *s, int flag, size_t size, const char *format, ...);

__attribute__((weak)) int
__sprintf_chk(char *s, int flag, size_t size, const char *format, ...)
{
    va_list args;
    int n;

    (void)flag;
    va_start(args, format);
    n = vsnprintf(s, size, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= size)
        abort();
    return n;
}
