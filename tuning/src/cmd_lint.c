/* cmd_lint.c: `lint FILE...`: is a profile well formed, and does it make sense?
 *
 * Errors are what `check` would refuse; warnings are what the knowledge base doubts. With --strict
 * warnings count as errors.
 */
#include "key.h"
#include "mem.h"
#include "profile.h"
#include "strict.h"
#include "tree.h"

#include <string.h>

/* How much counts: nothing, or one. */
static size_t
counts(const struct options *o, unsigned class)
{
    return (o->strict & class) != 0;
}

/* A doubtful value is an author's own choice where the risk is named; a harmful one never is. */
static size_t
judge_value(const struct options *o, const struct setting *w, const struct kb_key *k,
            const struct value *v)
{
    enum level level = LEVEL_POINTLESS;
    const char *text = w->want == WANT_EXACT ? kb_judge(k, v, &level) : NULL;

    if (text == NULL || (level == LEVEL_DOUBTFUL && setting_names_risk(w)))
        return 0;
    say_at(w->file, w->line, w->column, "warning: %s = %s: %s [%s]", key_show(w->path),
           value_show(v), text, level_name(level));
    return counts(o, strict_of(level_name(level)));
}

static size_t
doubts(const struct options *o, const struct profile *p)
{
    size_t n = 0;

    for (size_t i = 0; i < p->n; i++) {
        const struct setting *w = &p->settings[i];
        const struct kb_key *k = kb_find(w->path);

        if (k == NULL) {
            say_at(w->file, w->line, w->column,
                   "warning: %s is not known to this tool: no checks [unknown]", key_show(w->path));
            n += counts(o, STRICT_UNKNOWN);
            continue;
        }
        if (strpbrk(w->path, "*?[") != NULL && !key_is_pattern(w->path)) {
            say_at(w->file, w->line, w->column,
                   "warning: %s means an interface of that very name; only a whole * in its place "
                   "is a pattern [pattern]",
                   key_show(w->path));
            n += counts(o, STRICT_PATTERN);
        }
        for (size_t v = 0; v < w->n; v++)
            n += judge_value(o, w, k, &w->values[v]);
        if (w->why == NULL && w->verdict == NULL) {
            say_at(w->file, w->line, w->column, "warning: %s does not say why [why]",
                   key_show(w->path));
            n += counts(o, STRICT_WHY);
        }
        if (!setting_names_risk(w) && w->want != WANT_NOTHING) {
            say_at(w->file, w->line, w->column, "warning: %s does not name its risk [risk]",
                   key_show(w->path));
            n += counts(o, STRICT_RISK);
        }
    }
    return n;
}

enum exit_code
cmd_lint(const struct options *o)
{
    enum exit_code rv = EXIT_AS_WANTED;
    struct options any = *o;

    any.unsigned_too = true;
    if (o->n_args == 0)
        return fail_with(EXIT_USAGE, "lint wants a file or the name of a profile");
    for (size_t i = 0; i < o->n_args; i++) {
        struct profile p = {0};
        enum exit_code one = profile_load(&any, o->args[i], &p);

        if (one == EXIT_AS_WANTED && doubts(o, &p) > 0)
            one = EXIT_PROFILE;
        if (one != EXIT_AS_WANTED)
            rv = one;
    }
    return rv;
}
