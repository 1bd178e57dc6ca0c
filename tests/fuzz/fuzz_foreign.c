/* fuzz_foreign.c: whatever bytes a file of tuned or Ansible holds, what is taken has key and value.
 *
 * And what is imported from that must be a profile that is accepted.
 */
#include "foreign.h"
#include "import.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct options o = {.root = "/nonexistent"};
    char *text = mem_copy((const char *)data, size);
    struct profile p = {0};
    struct text t = {0};
    struct conf c = {0};
    size_t n, left_out;
    struct setting *settings;

    if (tuned_is(text))
        tuned_read("/nonexistent", "/nonexistent/profile/tuned.conf", text, &c);
    else
        (void)ansible_read("fuzz.yml", text, strlen(text), &c);
    for (size_t i = 0; i < c.n; i++)
        if (c.lines[i].path[0] == '/' || strstr(c.lines[i].path, "//") != NULL ||
            c.lines[i].value == NULL)
            abort();
    settings = import_settings(&c, &n, &left_out);
    if (n > 0 && import_compose(settings, n, &t) &&
        profile_from_text(&o, "imported", (const unsigned char *)t.s, t.len, &p) != EXIT_AS_WANTED)
        abort();
    mem_release();
    return 0;
}
