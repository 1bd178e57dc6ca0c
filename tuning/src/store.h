/* store.h: the journals of transactions, below /run.
 *
 * One directory per network namespace, one file per transaction, written in full, synced and
 * renamed before the first setting changes. The one who finds one after a kill knows every value
 * from before. The directory is locked by the one who changes settings.
 */
#ifndef TUNE_STORE_H
#define TUNE_STORE_H

#include "sys.h"

enum tx_state {
    TX_APPLYING, /* on disk while settings change; after that: interrupted */
    TX_APPLIED,
    TX_PARTLY,    /* could not be taken back in full */
    TX_REVERTING, /* on disk while settings go back */
};

enum entry_kind {
    ENTRY_STEP,   /* written */
    ENTRY_KEEP,   /* as wanted, but a step may change it: then written too */
    ENTRY_SIDE,   /* nobody wants it, but a step may change it */
    ENTRY_THEIRS, /* found changed by someone else when it was to be restored */
};

struct entry {
    const char *path;
    const char *before; /* canonical */
    const char *after;  /* what we wrote; for a side effect, what was read then, or NULL */
    enum entry_kind kind;
};

struct journal {
    unsigned id;
    enum tx_state state;
    uint64_t ns_cookie;
    const char *boot, *profiles, *time;
    struct entry *entries;
    size_t n, capacity;
};

struct store {
    int dir;
    const char *path;
    bool hidden; /* root has a place too, which we may not read */
};

/* Without create: EXIT_AS_WANTED and dir -1 where there is none yet. With it also locks. */
enum exit_code store_open(const struct options *o, const struct sys *s, bool create,
                          struct store *ret);
void store_close(struct store *st);
/* All that were written in this namespace since this boot, oldest first. Others are counted and
 * left alone: the number of a namespace may be used again, and what they hold is not of this one.
 * After a failure the readable ones are there all the same. */
struct journals {
    struct journal *items;
    size_t n, capacity, foreign;
    unsigned next; /* the first free number */
};
enum exit_code store_load(const struct store *st, const struct sys *s, struct journals *ret);
/* Says how many were left alone, if any. */
void store_say_foreign(const struct store *st, const struct journals *all);
enum exit_code journal_save(const struct store *st, const struct journal *j);
void journal_remove(const struct store *st, unsigned id);
void journal_add(struct journal *j, const char *path, const char *before, const char *after,
                 enum entry_kind kind);
const char *boot_id(const struct sys *s);
const char *tx_state_name(enum tx_state state);

#endif
