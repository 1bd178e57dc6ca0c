/* store.h: the journals of transactions, below /run.
 *
 * One directory per network namespace, one file per transaction, written in full, synced and
 * renamed before the first setting changes. Whoever finds one after a kill knows every value from
 * before. The directory is locked by whoever changes settings.
 */
#ifndef TUNE_STORE_H
#define TUNE_STORE_H

#include "sys.h"

enum tx_state {
    TX_APPLYING, /* on disk while settings change; after that: interrupted */
    TX_APPLIED,
    TX_PARTLY, /* could not be taken back in full */
};

struct entry {
    const char *path;
    const char *before; /* canonical */
    const char *after;  /* what we wrote; for a side effect, what was read then, or NULL */
    bool side;
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
};

/* Without create: EXIT_AS_WANTED and dir -1 where there is none yet. With it also locks. */
enum exit_code store_open(const struct options *o, const struct sys *s, bool create,
                          struct store *ret);
void store_close(struct store *st);
/* Ids of all journals, rising. */
unsigned *store_ids(const struct store *st, size_t *ret_n);
enum exit_code journal_save(const struct store *st, const struct journal *j);
enum exit_code journal_load(const struct store *st, unsigned id, struct journal *ret);
void journal_remove(const struct store *st, unsigned id);
void journal_add(struct journal *j, const char *path, const char *before, const char *after,
                 bool side);
const char *boot_id(const struct sys *s);
/* Whether it was written in this namespace since this boot. */
bool journal_is_ours(const struct journal *j, const struct sys *s);
const char *tx_state_name(enum tx_state state);

#endif
