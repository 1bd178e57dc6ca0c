/* tally.c: see tally.h.
 *
 * One hash of a source serves for the sketch of all sources and for those of its network.
 */
#include "tally.h"

#include "distinct.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdlib.h>

bool
tally_init(struct tally *t, uint32_t rows, const uint64_t key[2])
{
    *t = (struct tally){.key = {key[0], key[1]}};
    t->ports = calloc(PORTS, sizeof(*t->ports));
    t->sorted = calloc(rows, sizeof(*t->sorted));
    if (t->ports == NULL || t->sorted == NULL || !sketch_init(&t->sources, rows, key) ||
        !sketch_init(&t->networks, rows, key)) {
        tally_fini(t);
        return false;
    }
    return true;
}

void
tally_fini(struct tally *t)
{
    sketch_fini(&t->sources);
    sketch_fini(&t->networks);
    free(t->ports);
    free(t->sorted);
    *t = (struct tally){0};
}

/* ---- Counting ------------------------------------------------------------------------------ */

static void
note_port(struct row *r, uint16_t port)
{
    for (uint32_t i = 0; i < r->ports_n; i++)
        if (r->ports[i] == port)
            return;
    if (r->ports_n < SOME_PORTS)
        r->ports[r->ports_n++] = port;
}

static void
count_in(struct sketch *s, const struct syn *syn, const struct place *who, uint64_t of, int64_t at)
{
    struct row *r = sketch_count(s, who);

    if (r->first_ns == 0)
        r->first_ns = at;
    r->last_ns = at;
    note_port(r, syn->port);
    distinct_add(r->seen, ROW_BITS, of);
}

static void
count_syn(struct tally *t, const struct syn *syn, int64_t at_ns)
{
    struct place port = {.address = {(uint8_t)(syn->port >> 8), (uint8_t)syn->port}};
    struct place network = place_network(&syn->from);
    uint64_t source_hash = place_hash(&syn->from, t->key);

    t->saw++;
    t->saw_6 += syn->from.family == 6;
    t->ports[syn->port]++;
    distinct_add(t->seen, SOURCE_BITS, source_hash);
    count_in(&t->sources, syn, &syn->from, place_hash(&port, t->key), at_ns);
    count_in(&t->networks, syn, &network, source_hash, at_ns);
}

void
tally_packet(struct tally *t, const uint8_t *data, size_t len, int64_t at_ns)
{
    struct syn syn;

    switch (frame_read(data, len, &syn)) {
    case FRAME_SYN:
        count_syn(t, &syn, at_ns);
        break;
    case FRAME_OTHER:
        t->other++;
        break;
    case FRAME_SHORT:
        t->cut++;
        break;
    }
}

/* ---- Telling ------------------------------------------------------------------------------- */

double
tally_ports_of(const struct row *r)
{
    double estimate;

    if (r->ports_n < SOME_PORTS)
        return r->ports_n;
    estimate = distinct_estimate(r->seen, ROW_BITS);
    return estimate < SOME_PORTS ? SOME_PORTS : estimate > PORTS ? PORTS : estimate;
}

static void
write_row(const struct row *r, const char *suffix, double different, FILE *to)
{
    char text[INET6_ADDRSTRLEN] = "";

    (void)inet_ntop(r->who.family == 4 ? AF_INET : AF_INET6, r->who.address, text, sizeof(text));
    (void)fprintf(to,
                  "{\"who\": \"%s%s\", \"count\": %" PRIu64 ", \"error\": %" PRIu64
                  ", \"first\": %.6f, \"last\": %.6f, \"different\": %.0f, \"ports\": [",
                  text, suffix, r->count, r->error, (double)r->first_ns / 1e9,
                  (double)r->last_ns / 1e9, different);
    for (uint32_t i = 0; i < r->ports_n; i++)
        (void)fprintf(to, "%s%u", i > 0 ? ", " : "", r->ports[i]);
    (void)fprintf(to, "]}");
}

static void
write_table(struct tally *t, const struct sketch *s, uint32_t n, FILE *to)
{
    bool networks = s == &t->networks;
    uint32_t rows = sketch_sorted(s, t->sorted);

    (void)fprintf(to, "\"%s\": [", networks ? "networks" : "sources");
    for (uint32_t i = 0; i < n && i < rows; i++) {
        const struct row *r = t->sorted[i];
        const char *suffix = !networks ? "" : r->who.family == 4 ? "/24" : "/64";

        (void)fprintf(to, "%s", i > 0 ? ", " : "");
        write_row(r, suffix, networks ? distinct_estimate(r->seen, ROW_BITS) : tally_ports_of(r),
                  to);
    }
    (void)fprintf(to, "]");
}

static void
write_ports(const struct tally *t, uint32_t n, FILE *to)
{
    uint64_t before = UINT64_MAX; /* the count of the one written last */
    uint32_t written = 0;

    (void)fprintf(to, "\"ports\": [");
    while (written < n) {
        uint64_t next = 0;

        for (uint32_t i = 0; i < PORTS; i++)
            if (t->ports[i] < before && t->ports[i] > next)
                next = t->ports[i];
        if (next == 0)
            break;
        for (uint32_t i = 0; i < PORTS && written < n; i++)
            if (t->ports[i] == next)
                (void)fprintf(to, "%s[%u, %" PRIu64 "]", written++ > 0 ? ", " : "", i, next);
        before = next;
    }
    (void)fprintf(to, "]");
}

void
tally_write(struct tally *t, uint32_t n, FILE *to)
{
    uint32_t ports = 0;

    for (uint32_t i = 0; i < PORTS; i++)
        ports += t->ports[i] > 0;
    (void)fprintf(to,
                  "\"saw\": %" PRIu64 ", \"saw_6\": %" PRIu64 ", \"attributed\": %" PRIu64
                  ", \"attributed_networks\": %" PRIu64 ", \"other\": %" PRIu64
                  ", \"cut\": %" PRIu64 ", \"different_sources\": %.0f, \"different_ports\": %u, ",
                  t->saw, t->saw_6, sketch_attributed(&t->sources), sketch_attributed(&t->networks),
                  t->other, t->cut, distinct_estimate(t->seen, SOURCE_BITS), ports);
    write_table(t, &t->sources, n, to);
    (void)fprintf(to, ", ");
    write_table(t, &t->networks, n, to);
    (void)fprintf(to, ", ");
    write_ports(t, n, to);
}
