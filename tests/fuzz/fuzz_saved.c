/* fuzz_saved.c: whatever bytes a saved `sysctl -a` holds, each key that is found is one of its own.
 *
 * Keys are sorted, each stands once, and a profile made of them wants only what may be touched.
 */
#include "key.h"
#include "mem.h"
#include "saved.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct profile p = {0};
    struct saved s = {0};
    const char *why;

    saved_parse("fuzz", (const char *)data, size, &s);
    for (size_t i = 0; i < s.n; i++) {
        if (i > 0 && strcmp(s.keys[i - 1].path, s.keys[i].path) >= 0)
            abort();
        if (saved_find(&s, s.keys[i].path) != s.keys[i].text)
            abort();
    }
    for (char **name = saved_names(&s, "net/ipv4/conf"); *name != NULL; name++)
        if (**name == '\0' || strchr(*name, '/') != NULL)
            abort();
    saved_profile(&s, &p);
    for (size_t i = 0; i < p.n; i++)
        if (!key_allowed(p.settings[i].path, &why))
            abort();
    mem_release();
    return 0;
}
