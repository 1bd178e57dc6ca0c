/* history.h: what the last check saw, for the age of findings and the rate of counters.
 *
 * Kept in a file that the caller names: without one a check writes nothing, and tells counters for
 * information only. What was seen in another boot or network namespace is not of this one: counters
 * begin anew, ages go on. A socket of another boot is another one than that of now.
 */
#ifndef TUNE_HISTORY_H
#define TUNE_HISTORY_H

#include "sys.h"

#define HISTORY_MAX (64 * 1024)

struct history_count {
    const char *name;
    int64_t n;
};

struct history_seen {
    const char *name; /* of a finding, and what it is about */
    int64_t first;    /* seconds since 1970 */
};

/* Where somebody listens inside the range of automatic ports. */
struct history_port {
    unsigned port;
    int64_t marks; /* of the sockets there: history_mark; 0: none that could be there still */
    int64_t turns; /* how many times all that were there before had gone, and one before */
};

#define HISTORY_PORTS 32

struct history {
    const char *path; /* NULL: nobody asked for one */
    bool known;       /* there are counters of this boot and namespace */
    const char *boot, *ns;
    int64_t uptime_ms, time; /* of the last check, then of this one */
    int64_t passed_ms;       /* since the last one */
    struct history_count *before, *now;
    struct history_seen *seen, *found;
    size_t n_before, cap_before, n_now, cap_now, n_seen, cap_seen, n_found, cap_found;
    struct history_port ports_before[HISTORY_PORTS], ports[HISTORY_PORTS];
    size_t n_ports_before, n_ports;
};

/* The lines of a file; false if it is none of ours. */
bool history_parse(const char *text, size_t len, struct history *h);
/* Of o->history, if there is such a file yet. Says why it cannot be used. */
enum exit_code history_open(const struct options *o, const struct sys *s, struct history *ret);
/* Notes a counter. True if it is known how much it grew since the last check. */
bool history_count(struct history *h, const char *name, int64_t n, int64_t *ret_more);
/* Notes a finding; when it was first seen, without a break. */
int64_t history_date(struct history *h, const char *name);
/* One of 63 bits for a socket: two may share it, and are then taken for one. */
int64_t history_mark(uint32_t inode);
/* What the last check saw there; turns is 0 if nothing. */
struct history_port history_port(const struct history *h, unsigned port);
/* For the next check; at most HISTORY_PORTS. */
void history_keep_port(struct history *h, const struct history_port *port);
/* Replaces the file at once. */
enum exit_code history_save(const struct history *h);

#endif
