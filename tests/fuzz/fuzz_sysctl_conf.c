/* fuzz_sysctl_conf.c: whatever bytes a sysctl.conf holds, its reader skips them or takes a key.
 *
 * What was taken must be a name that holds no path tricks, a winner must be one of the lines, and
 * what is imported must be a profile that is accepted, with as many settings.
 */
#include "import.h"
#include "key.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_import(const struct conf *c)
{
    const struct options o = {.root = "/nonexistent"};
    struct profile p = {0};
    struct text t = {0};
    size_t n, left_out;
    const struct setting *settings = import_settings(c, &n, &left_out);

    if (n == 0 || !import_compose(settings, n, &t))
        return;
    if (profile_from_text(&o, "imported", (const unsigned char *)t.s, t.len, &p) != EXIT_AS_WANTED)
        abort();
    if (p.n != n)
        abort();
}

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
    check_import(&c);
    mem_release();
    return 0;
}
