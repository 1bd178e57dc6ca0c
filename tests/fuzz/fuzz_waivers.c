/* fuzz_waivers.c: whatever bytes a file of waivers holds, it is refused or every waiver is whole.
 *
 * Whole: a name that is a key without path tricks or an id, a reason, and a last day of ten
 * characters that can be compared as text.
 */
#include "mem.h"
#include "waive.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct node *root = yaml_read("fuzz", data, size);
    struct waivers all = {0};

    if (root != NULL && waivers_read("fuzz", root, &all))
        for (size_t i = 0; i < all.n; i++) {
            const struct waiver *w = &all.items[i];

            if (w->name[0] == '/' || w->reason[0] == '\0')
                abort();
            if (strspn(w->until, "0123456789-") != 10 || w->until[10] != '\0')
                abort();
        }
    mem_release();
    return 0;
}
