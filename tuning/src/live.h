/* live.h: what the running machine says beyond its settings.
 *
 * Findings come with a severity; a finding is advice and changes the exit code only with --strict.
 */
#ifndef TUNE_LIVE_H
#define TUNE_LIVE_H

#include "diag.h"
#include "history.h"

enum severity { SEVERITY_INFO, SEVERITY_WARNING, SEVERITY_CRITICAL };

struct finding {
    const char *id; /* stable, for scripts */
    enum severity severity;
    const char *what, *advice;
    const char *subject;   /* what it is about, where there can be several; or NULL */
    const char *waived;    /* until when, and why; or NULL */
    int64_t first;         /* when it was first seen without a break, in seconds since 1970; or 0 */
    int64_t more, more_ms; /* a counter's growth, and the time that it took; or 0 */
};

struct findings {
    struct finding *items;
    size_t n, capacity;
};

void finding_add(struct findings *f, const char *id, enum severity severity, const char *what,
                 const char *advice);
void live_look(const struct sys *s, const struct diag *d, struct history *h, struct findings *ret);
/* Gives each its age. */
void findings_date(struct findings *f, struct history *h);
/* "12 s", "3 min", "5 h", "2 days" */
const char *duration_text(int64_t ms);
/* A counter of TcpExt in /proc/net/netstat; -1 if there is none. */
long long live_counter(const struct sys *s, const char *name);
/* Pages that TCP's buffers hold on the whole machine (sockstat); -1 if that is not told. */
long long live_tcp_pages(const struct sys *s);
/* Packets that met a full queue of a CPU; -1 if that is not told. */
long long live_softnet_drops(const struct sys *s);
const char *severity_name(enum severity severity);

#endif
