/* strict.c: see strict.h.
 *
 * The names are those that lint and judge put beside a line, and the severities of findings.
 */
#include "strict.h"

#include "mem.h"

#include <string.h>

static const struct {
    const char *name;
    unsigned bit;
} classes[] = {
    {"missing", STRICT_MISSING}, {"warning", STRICT_WARNING},     {"critical", STRICT_CRITICAL},
    {"waived", STRICT_WAIVED},   {"repeated", STRICT_REPEATED},   {"unknown", STRICT_UNKNOWN},
    {"range", STRICT_RANGE},     {"pointless", STRICT_POINTLESS}, {"doubtful", STRICT_DOUBTFUL},
    {"harmful", STRICT_HARMFUL}, {"pattern", STRICT_PATTERN},     {"why", STRICT_WHY},
    {"risk", STRICT_RISK},       {"unjudged", STRICT_UNJUDGED},
};

#define N_CLASSES (sizeof(classes) / sizeof(classes[0]))

static unsigned
find(const char *name, size_t len)
{
    for (size_t i = 0; i < N_CLASSES; i++)
        if (strlen(classes[i].name) == len && memcmp(classes[i].name, name, len) == 0)
            return classes[i].bit;
    return 0;
}

unsigned
strict_of(const char *name)
{
    return find(name, strlen(name));
}

bool
strict_parse(const char *text, unsigned *ret_strict)
{
    unsigned all = 0;
    struct text known = {0};

    for (size_t i = 0; text == NULL && i < N_CLASSES; i++)
        all |= classes[i].bit & ~(unsigned)(STRICT_WAIVED | STRICT_UNJUDGED);
    while (text != NULL) {
        size_t len = strcspn(text, ",");
        unsigned one = find(text, len);

        if (one == 0) {
            for (size_t i = 0; i < N_CLASSES; i++)
                text_format(&known, "%s%s", i > 0 ? ", " : "", classes[i].name);
            say("--strict: '%.*s' is no class; they are %s", len > 40 ? 40 : (int)len, text,
                text_str(&known));
            return false;
        }
        all |= one;
        text = text[len] == ',' ? text + len + 1 : NULL;
    }
    *ret_strict |= all;
    return true;
}
