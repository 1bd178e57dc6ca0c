/* fuzz_proxy_header.c: what a header means does not depend on how much of it has come.
 *
 * A verdict, once given, stays; "more" asks for more than there is, and never for more than the
 * limit; a header is never longer than what was given.
 */
#include "hardsock.h"

#include "../../csrc/listen/proxy_header.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hs_proxy_header whole, part;
    struct hs_error err = {0};
    size_t need = 0;
    hs_err end = hs_proxy_header_parse(data, size, &err, &need, &whole);

    if (end == HS_WANT && (need <= size || need > HS_PROXY_HEADER_MAX))
        abort();
    if (end == HS_OK && (whole.length > size || (whole.version != 1 && whole.version != 2)))
        abort();
    for (size_t n = 0; n < size && n < 600; n++) {
        hs_err rv = hs_proxy_header_parse(data, n, NULL, &need, &part);

        if (rv == HS_OK && (end != HS_OK || part.length != whole.length))
            abort();
        if (rv != HS_OK && rv != HS_WANT && rv != end)
            abort();
    }
    return 0;
}
