/* fuzz_history.c: whatever bytes a history holds, its reader takes or refuses them whole.
 *
 * What it takes is saved names and numbers: none of them may be empty or hold a line break.
 */
#include "history.h"
#include "mem.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct history h = {.path = "-"};

    if (history_parse((const char *)data, size, &h)) {
        int64_t more = -1;

        if (h.boot == NULL || h.ns == NULL)
            abort();
        h.known = true;
        for (size_t i = 0; i < h.n_before; i++) {
            if (h.before[i].name[0] == '\0' || strpbrk(h.before[i].name, " \n") != NULL)
                abort();
            if (history_count(&h, h.before[i].name, INT64_MAX, &more) && more < 0)
                abort();
        }
        for (size_t i = 0; i < h.n_seen; i++)
            if (h.seen[i].name[0] == '\0' || strchr(h.seen[i].name, '\n') != NULL ||
                history_date(&h, h.seen[i].name) > h.time)
                abort();
    }
    mem_release();
    return 0;
}
