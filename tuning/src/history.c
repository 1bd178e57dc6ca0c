/* history.c: see history.h.
 *
 * One line each: "count NAME NUMBER", "seen SECONDS NAME" and "port NUMBER MARKS TURNS". A file
 * that does not begin and end as ours is never replaced, since a path may be mistyped.
 */
#include "history.h"

#include "mem.h"
#include "out.h"
#include "store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAGIC "hardsock-tune history 1"
#define MAX_ENTRIES 256

static bool
take_number(const char **at, int64_t *ret)
{
    char *end;
    long long n;

    if (**at < '0' || **at > '9')
        return false;
    errno = 0;
    n = strtoll(*at, &end, 10);
    if (errno != 0 || (*end != ' ' && *end != '\0'))
        return false;
    *at = *end == ' ' ? end + 1 : end;
    *ret = n;
    return true;
}

static bool
take_count(struct history *h, const char *line)
{
    size_t len = strcspn(line, " ");
    const char *rest = line + len + (line[len] == ' ');
    struct history_count c = {.name = mem_copy(line, len)};

    if (len == 0 || h->n_before == MAX_ENTRIES || !take_number(&rest, &c.n) || *rest != '\0')
        return false;
    h->before = mem_grow(h->before, h->n_before, &h->cap_before, sizeof(c));
    h->before[h->n_before++] = c;
    return true;
}

static bool
take_seen(struct history *h, const char *line)
{
    struct history_seen s = {0};

    if (h->n_seen == MAX_ENTRIES || !take_number(&line, &s.first) || *line == '\0')
        return false;
    s.name = mem_dup(line);
    h->seen = mem_grow(h->seen, h->n_seen, &h->cap_seen, sizeof(s));
    h->seen[h->n_seen++] = s;
    return true;
}

static bool
take_port(struct history *h, const char *line)
{
    struct history_port p = {0};
    int64_t port;

    if (h->n_ports_before == HISTORY_PORTS || !take_number(&line, &port) ||
        !take_number(&line, &p.marks) || !take_number(&line, &p.turns) || *line != '\0' ||
        port >= PORTS || p.turns < 1)
        return false;
    p.port = (unsigned)port;
    h->ports_before[h->n_ports_before++] = p;
    return true;
}

static bool
take_line(struct history *h, const char *line)
{
    if (strncmp(line, "boot ", 5) == 0)
        return (h->boot = mem_dup(line + 5)) != NULL;
    if (strncmp(line, "namespace ", 10) == 0)
        return (h->ns = mem_dup(line + 10)) != NULL;
    if (strncmp(line, "at ", 3) == 0) {
        line += 3;
        return take_number(&line, &h->uptime_ms) && take_number(&line, &h->time) && *line == '\0';
    }
    if (strncmp(line, "count ", 6) == 0)
        return take_count(h, line + 6);
    if (strncmp(line, "port ", 5) == 0)
        return take_port(h, line + 5);
    return strncmp(line, "seen ", 5) == 0 && take_seen(h, line + 5);
}

bool
history_parse(const char *text, size_t len, struct history *h)
{
    const char *end = text + len;
    bool first = true;

    for (const char *newline; (newline = memchr(text, '\n', (size_t)(end - text))) != NULL;) {
        const char *line = mem_copy(text, (size_t)(newline - text));

        if (strlen(line) != (size_t)(newline - text))
            return false; /* a NUL character */
        text = newline + 1;
        if (first && strcmp(line, MAGIC) != 0)
            return false;
        if (!first && strcmp(line, "end") == 0)
            return text == end && h->boot != NULL && h->ns != NULL;
        if (!first && !take_line(h, line))
            return false;
        first = false;
    }
    return false;
}

static int64_t
clock_ms(clockid_t clock)
{
    struct timespec ts = {0};

    (void)clock_gettime(clock, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

enum exit_code
history_open(const struct options *o, const struct sys *s, struct history *ret)
{
    const struct sys here = {.root = ""};
    struct history h = {.path = o->history};
    const char *boot = boot_id(s);
    /* The number of a namespace may be used again; its cookie is not, where the kernel has one. */
    const char *ns = mem_format("%" PRIx64 "-%" PRIu64, s->ns_cookie, s->ns_inode);
    int64_t uptime = clock_ms(CLOCK_BOOTTIME);
    size_t len = 0;
    char *text = h.path == NULL ? NULL : sys_file(&here, h.path, HISTORY_MAX, &len);

    if (h.path != NULL && text == NULL && errno != ENOENT)
        return fail_with(errno == EACCES ? EXIT_PERMISSION : EXIT_SYSTEM, "--history: %s: %s",
                         h.path, strerror(errno));
    if (text != NULL && !history_parse(text, len, &h))
        return fail_with(EXIT_SYSTEM,
                         "--history: %s: not a history that this version understands; it is left "
                         "as it is",
                         h.path);
    h.passed_ms = uptime - h.uptime_ms;
    h.known =
        text != NULL && strcmp(h.boot, boot) == 0 && strcmp(h.ns, ns) == 0 && h.passed_ms >= 0;
    if (text == NULL || strcmp(h.ns, ns) != 0)
        h.n_ports_before = 0;
    for (size_t i = 0; i < h.n_ports_before && strcmp(h.boot, boot) != 0; i++)
        h.ports_before[i].marks = 0;
    h.boot = boot;
    h.ns = ns;
    h.uptime_ms = uptime;
    h.time = clock_ms(CLOCK_REALTIME) / 1000;
    *ret = h;
    return EXIT_AS_WANTED;
}

bool
history_count(struct history *h, const char *name, int64_t n, int64_t *ret_more)
{
    if (h->path == NULL)
        return false;
    h->now = mem_grow(h->now, h->n_now, &h->cap_now, sizeof(*h->now));
    h->now[h->n_now++] = (struct history_count){name, n};
    if (!h->known)
        return false;
    for (size_t i = 0; i < h->n_before; i++)
        /* Less than before: somebody else's counter after all. */
        if (strcmp(h->before[i].name, name) == 0 && h->before[i].n <= n) {
            *ret_more = n - h->before[i].n;
            return true;
        }
    return false;
}

int64_t
history_date(struct history *h, const char *name)
{
    struct history_seen found = {name, h->time};

    if (h->path == NULL)
        return 0;
    for (size_t i = 0; i < h->n_seen; i++)
        if (strcmp(h->seen[i].name, name) == 0 && h->seen[i].first <= h->time)
            found.first = h->seen[i].first;
    if (h->n_found < MAX_ENTRIES) {
        h->found = mem_grow(h->found, h->n_found, &h->cap_found, sizeof(found));
        h->found[h->n_found++] = found;
    }
    return found.first;
}

int64_t
history_mark(uint32_t inode)
{
    return (int64_t)1 << inode % 63;
}

struct history_port
history_port(const struct history *h, unsigned port)
{
    for (size_t i = 0; i < h->n_ports_before; i++)
        if (h->ports_before[i].port == port)
            return h->ports_before[i];
    return (struct history_port){.port = port};
}

void
history_keep_port(struct history *h, const struct history_port *port)
{
    if (h->n_ports < HISTORY_PORTS)
        h->ports[h->n_ports++] = *port;
}

enum exit_code
history_save(const struct history *h)
{
    struct text t = {0};

    if (h->path == NULL)
        return EXIT_AS_WANTED;
    text_format(&t, MAGIC "\nboot %s\nnamespace %s\nat %" PRId64 " %" PRId64 "\n", h->boot, h->ns,
                h->uptime_ms, h->time);
    for (size_t i = 0; i < h->n_now; i++)
        text_format(&t, "count %s %" PRId64 "\n", h->now[i].name, h->now[i].n);
    for (size_t i = 0; i < h->n_found; i++)
        text_format(&t, "seen %" PRId64 " %s\n", h->found[i].first, h->found[i].name);
    for (size_t i = 0; i < h->n_ports; i++)
        text_format(&t, "port %u %" PRId64 " %" PRId64 "\n", h->ports[i].port, h->ports[i].marks,
                    h->ports[i].turns);
    text_puts(&t, "end\n");
    return out_replace("--history", h->path, t.s, t.len) ? EXIT_AS_WANTED : EXIT_SYSTEM;
}
