/* fuzz_sysctl_conf.c: whatever bytes a sysctl.conf holds, its reader skips them or takes a key.
 *
 * What was taken must be a name that holds no path tricks, and a winner must be one of the lines.
 */
#include "conf.h"
#include "key.h"
#include "mem.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf c = {0};

    conf_read("fuzz", (const char *)data, size, size % 2 == 0, &c);
    for (size_t i = 0; i < c.n && i < 64; i++) {
        const struct line *l = &c.lines[i], *winner = conf_winner(&c, l->path);

        if (l->path[0] == '/' || strstr(l->path, "//") != NULL || strlen(l->path) >= KEY_MAX)
            abort();
        for (const char *s = l->path; s != NULL; s = strchr(s, '/')) {
            s += *s == '/';
            if (strncmp(s, "../", 3) == 0 || strcmp(s, "..") == 0)
                abort();
        }
        if (winner != NULL && (winner < c.lines || winner >= c.lines + c.n))
            abort();
    }
    mem_release();
    return 0;
}
