/* fuzz_addr.c: whatever text is given, hs_endpoint_parse refuses it or understands it for good.
 *
 * What was understood must come back as a text that is understood alike, and never overrun.
 */
#include "hardsock.h"

#include "../../csrc/base/addr.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_round_trip(const struct hs_endpoint *ep)
{
    char text[HS_ADDR_TEXT_SIZE], tiny[9];
    struct hs_endpoint again;

    (void)hs_endpoint_text(ep, text, sizeof(text));
    (void)hs_endpoint_text(ep, tiny, sizeof(tiny));
    /* An abstract name may hold a NUL, which no C string shows. */
    if (ep->family == AF_UNIX && ep->addr.un.sun_path[0] == '\0')
        return;
    if (hs_endpoint_parse(text, strlen(text), NULL, &again) != HS_OK)
        abort();
    if (again.family != ep->family || again.port != ep->port)
        abort();
    if (ep->family == AF_UNSPEC ? strcmp(again.host, ep->host) != 0
                                : !hs_addr_equal(&again.addr, &ep->addr))
        abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hs_error err = {0};
    struct hs_endpoint ep;
    hs_err rv = hs_endpoint_parse((const char *)data, size, &err, &ep);

    if (rv == HS_OK)
        check_round_trip(&ep);
    else if (rv != HS_E_INVALID || err.msg[0] == '\0' ||
             memchr(err.msg, 0, sizeof(err.msg)) == NULL)
        abort();
    if (hs_endpoint_from_path((const char *)data, size, NULL, &ep) == HS_OK) {
        /* unix(7): an abstract name, which begins with a NUL, needs none at its end. */
        if (size > (size_t)(data[0] == '\0' ? 108 : 107))
            abort();
        if (size > 0 && data[0] != '@') /* Such a path is shown as "./@...". */
            check_round_trip(&ep);
    }
    return 0;
}
