/* tx.h: changing settings, all or none.
 *
 * Everything is checked before anything is written; the journal is on disk before the first write;
 * every write is read back; a failure takes back what was done, in reverse order, and says what
 * could not be taken back.
 */
#ifndef TUNE_TX_H
#define TUNE_TX_H

#include "report.h"
#include "store.h"

/* What became of one key, for the three output formats. */
struct change {
    const char *action, *path, *before, *after, *note;
};

struct changes {
    struct change *items;
    size_t n, capacity;
    const char *command, *summary;
    unsigned id;
};

void change_add(struct changes *c, const char *action, const char *path, const char *before,
                const char *after, const char *note);
void changes_show(const struct options *o, const struct changes *c, enum exit_code rv);

/* One plan for all profiles, and its steps. Says what stands against it (conflicting profiles, keys
 * that cannot be written, broken rules). It can be done too with EXIT_DRIFT, where some settings
 * were left out since they cannot be had here, and with EXIT_GLOBAL, where all of these belong to
 * the machine's first network namespace. */
enum exit_code tx_prepare(const struct options *o, const struct report *r, struct plan *ret_plan,
                          struct journal *ret);
bool tx_can_run(enum exit_code rv);
/* Adds what the steps would change besides: entries to keep where the plan wants the present value,
 * side effects else. */
void tx_add_sides(const struct sys *s, const struct plan *plan, struct journal *j);
void tx_order(struct journal *j);
/* What the step does that restoring the key does not undo, or NULL. *ret_harm: no mere detail. */
const char *tx_lasting(const struct entry *e, bool *ret_harm);

/* Whether the key holds that text, by type. Missing keys hold nothing. */
bool tx_holds(const struct sys *s, const char *path, const char *text);
/* Writes and reads back: 0, an errno, or EILSEQ if another value came back. */
int tx_set(const struct sys *s, const char *path, const char *text);
/* Writes every step, and compares the whole plan after the last one, since a write may change other
 * keys; on failure takes back and says so. */
enum exit_code tx_run(const struct sys *s, const struct store *st, const struct plan *plan,
                      struct journal *j, struct changes *c);
/* Sets the chosen entries to what they were: steps, last first, then what that changed again.
 * ret_sys[i] becomes 0 or what is in the way. */
void tx_restore(const struct sys *s, const struct journal *j, const bool *chosen, int *ret_sys);
const char *tx_strerror(int sys);

#endif
