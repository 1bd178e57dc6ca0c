/* fuzz_profile.c: whatever bytes a profile holds, the reader refuses them or means what it shows.
 *
 * What was accepted must have values of the right type, that print and parse to the same again.
 * Built by tuning/Makefile, together with the tool's sources.
 */
#include "key.h"
#include "mem.h"
#include "profile.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_value(const struct setting *w, const struct value *v)
{
    const struct kb_key *k = kb_find(w->path);
    struct value again;
    const char *why;

    if (k == NULL || *value_show(v) == '\0')
        return;
    if (v->type != k->type)
        abort();
    if (!value_parse(value_show(v), v->type, v->type == TYPE_INTS ? v->n : 0, true, &again, &why))
        abort();
    if (!value_equal(v, &again))
        abort();
}

static void
check_setting(const struct setting *w)
{
    char path[KEY_MAX];
    const char *why, *shown = key_show(w->path);

    if (!key_allowed(w->path, &why))
        abort();
    if (!key_parse(shown, strlen(shown), path, &why) || strcmp(path, w->path) != 0)
        abort();
    for (size_t i = 0; i < w->n; i++)
        check_value(w, &w->values[i]);
    (void)setting_show(w);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct options o = {.root = "/nonexistent"};
    struct profile p = {0};

    if (profile_from_text(&o, "fuzz", data, size, &p) == EXIT_AS_WANTED)
        for (size_t i = 0; i < p.n; i++)
            check_setting(&p.settings[i]);
    mem_release();
    return 0;
}
