/* cmd_status.c: `status`: what is applied, by which transaction, and what changed since.
 *
 * Reads only, takes no lock. Exit code 1 when a key no longer holds what was written, 7 when a
 * transaction was interrupted.
 */
#include "key.h"
#include "mem.h"
#include "out.h"
#include "tx.h"

#include <stdio.h>

static const char *
state_of(const struct sys *s, const struct entry *e, const char **ret_now)
{
    struct value v;
    int sys;

    *ret_now = NULL;
    if (sys_value(s, e->path, &v, ret_now, &sys) != ACCESS_OK)
        return "gone";
    if (tx_holds(s, e->path, e->after))
        return "ok";
    return tx_holds(s, e->path, e->before) ? "before" : "changed";
}

static void
show_head(const struct options *o, const struct journal *j)
{
    if (o->format == FORMAT_JSON) {
        json_open(NULL, '{');
        json_number("transaction", j->id);
        json_text("state", tx_state_name(j->state));
        json_text("profiles", j->profiles);
        json_text("time", j->time);
        json_open("settings", '[');
    } else if (o->format == FORMAT_PRETTY) {
        put_rest(0, 4,
                 mem_format("transaction %u: %s, %s, %s", j->id, tx_state_name(j->state),
                            j->profiles, j->time));
    }
}

static void
show_entry(const struct options *o, const struct journal *j, const struct entry *e,
           const char *state, const char *now)
{
    const char *key = key_show(e->path);

    if (o->format == FORMAT_JSON) {
        json_open(NULL, '{');
        json_text("key", key);
        json_text("status", state);
        json_text("before", e->before);
        json_text("wrote", e->after);
        json_text("now", now);
        json_close();
    } else if (o->format == FORMAT_TSV) {
        tsv_line(mem_format("%u", j->id), state, key, e->before, e->after, now == NULL ? "" : now,
                 NULL);
    } else {
        const bool other = now != NULL && *state != 'o';

        put_entry(state, 8, key,
                  mem_format("%s -> %s%s%s", *e->before == '\0' ? "(empty)" : e->before,
                             *e->after == '\0' ? "(empty)" : e->after, other ? ", now " : "",
                             other ? now : ""));
    }
}

static enum exit_code
show_journal(const struct options *o, const struct sys *s, const struct journal *j)
{
    enum exit_code rv = j->state == TX_APPLIED ? EXIT_AS_WANTED : EXIT_CONFLICT;

    show_head(o, j);
    for (size_t i = 0; i < j->n; i++) {
        const char *now, *state;

        if (j->entries[i].kind != ENTRY_STEP && j->entries[i].kind != ENTRY_THEIRS)
            continue;
        state = state_of(s, &j->entries[i], &now);
        show_entry(o, j, &j->entries[i], state, now);
        if (*state != 'o' && rv == EXIT_AS_WANTED)
            rv = EXIT_DRIFT;
    }
    if (o->format == FORMAT_JSON) {
        json_close();
        json_close();
    }
    return rv;
}

enum exit_code
cmd_status(const struct options *o)
{
    enum exit_code rv = EXIT_AS_WANTED, one;
    struct store st = {.dir = -1};
    struct journals all;
    struct sys s;

    if ((rv = sys_open(o, &s)) != EXIT_AS_WANTED)
        return rv;
    if ((rv = store_open(o, &s, false, &st)) != EXIT_AS_WANTED)
        goto out;
    rv = store_load(&st, &s, &all);
    store_say_foreign(&st, &all);
    if (st.hidden && rv == EXIT_AS_WANTED)
        rv = fail_with(EXIT_PERMISSION, "what root applied is not known: only root may read that");
    json_rows(o, "status", "transactions");
    for (size_t i = 0; i < all.n; i++) {
        one = show_journal(o, &s, &all.items[i]);
        rv = one > rv ? one : rv;
    }
    json_rows_end(o, rv);
    if (all.n == 0 && rv == EXIT_AS_WANTED && o->format == FORMAT_PRETTY)
        (void)puts("nothing is applied");
out:
    store_close(&st);
    sys_close(&s);
    return rv;
}
