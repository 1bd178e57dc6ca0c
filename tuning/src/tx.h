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

/* The steps of all plans in the order to write them, as `set` entries. Says what stands against it
 * (conflicting profiles, keys that cannot be written, broken rules). EXIT_DRIFT: it can be done,
 * but some settings were left out, since they cannot be had here. */
enum exit_code tx_prepare(const struct options *o, const struct report *r, struct journal *ret);
/* Adds what the steps would change besides, as `side` entries. */
void tx_add_sides(const struct sys *s, struct journal *j);
void tx_order(struct journal *j);

/* Whether the key holds that text, by type. Missing keys hold nothing. */
bool tx_holds(const struct sys *s, const char *path, const char *text);
/* Writes and reads back: 0, an errno, or EILSEQ if another value came back. */
int tx_set(const struct sys *s, const char *path, const char *text);
/* Writes every step; on failure takes back and says so. */
enum exit_code tx_run(const struct sys *s, const struct store *st, struct journal *j,
                      struct changes *c);
const char *tx_strerror(int sys);

#endif
