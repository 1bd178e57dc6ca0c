/* calm.c: times in which nothing disturbs, so that everything has to succeed.
 *
 * A world may be calm from its beginning: then no exchange fails. And at the end of each one, when
 * the ways are whole and no packet is lost any more, the server comes back to its queue, and who
 * connects and asks is answered, in a time that follows from the length of the way.
 */
#include "world.h"

#include <string.h>

/* Longer than the largest exchange takes by the longest way. */
#define FAR_NS (300 * SIM_S)
#define BACK_NS (3600 * SIM_S) /* Who serves has patience with each that was cut off. */
#define ADDRESSES 6            /* of a name, of both families */
#define QUESTIONS 3

static bool calm, examined;

bool
world_is_calm(void)
{
    return calm;
}

void
calm_begin(void)
{
    calm = true;
    sim_settings.loss = sim_settings.slow_names = sim_settings.stalled = 0;
    sim_heal_all();
    poor_end();
    sim_log("it is calm");
}

int64_t
calm_span(void)
{
    return FAR_NS;
}

void
calm_expect(hs_err rv, const char *what)
{
    if (calm && rv != HS_OK)
        sim_violation("%s fails, and nothing disturbs it: %s", what, hs_err_text(rv));
}

/* ---- The examination ----------------------------------------------------------------------- */

static int64_t
round_trip(void)
{
    return 2 * (sim_settings.latency_ns + sim_settings.jitter_ns);
}

static void
expect_within(hs_err rv, int64_t began_ns, int64_t span_ns, const char *what)
{
    calm_expect(rv, what);
    sim_log("%s took %lld of %lld ns", what, (long long)(sim_now() - began_ns), (long long)span_ns);
    if (sim_now() - began_ns > span_ns)
        sim_violation("%s has taken %lld ns, the way allows %lld", what,
                      (long long)(sim_now() - began_ns), (long long)span_ns);
}

static int64_t
connect_span(const struct hs_connect_options *o, bool by_name)
{
    int64_t span = round_trip() * (tls_is_there() ? 8 : 1) + 10 * SIM_MS;
    int64_t each = o->attempt_delay_ns;

    if (!by_name)
        return span;
    /* An address where nobody listens refuses, but one that leads nowhere is waited for. */
    if (!servers_are_lost_to_ipv6() && round_trip() < each)
        each = round_trip();
    return span + SIM_NAME_NS + o->resolution_delay_ns + ADDRESSES * each;
}

/* Half a buffer in each round, and a few rounds for the ends. */
static int64_t
exchange_span(uint64_t bytes)
{
    return round_trip() * (int64_t)(4 + 2 * bytes / (sim_settings.buffer / 2));
}

static void
examine_connection(struct client *c, bool by_name)
{
    struct hs_connect_options options;
    struct hs_endpoint where;
    struct end *e = &c->end;
    int64_t began = sim_now();
    uint64_t moved;
    hs_err rv;

    *e = (struct end){.peer_host = SERVER_HOST, .secured = tls_is_there()};
    hs_connect_options_init(&options);
    tls_for_client(&options);
    server_endpoint(by_name, &where);
    rv = end_connect(e, &where, &options, FAR_NS);
    expect_within(rv, began, connect_span(&options, by_name), "connecting");
    calm_expect(proxy_say(c), "a header");
    for (uint32_t i = 0; i < QUESTIONS; i++) {
        began = sim_now();
        moved = e->facts->taken + e->facts->given;
        rv = client_ask(c, i);
        moved = e->facts->taken + e->facts->given - moved;
        expect_within(rv, began, exchange_span(moved), "an exchange");
    }
    began = sim_now();
    rv = end_finish(e, FAR_NS);
    expect_within(rv, began, 4 * round_trip() + 10 * SIM_MS, "finishing");
    end_close(e, false);
}

/* A dial that began before may fail yet. */
static void
examine_pool(struct client *c)
{
    struct hs_lease lease;
    hs_err rv;
    int tries = 0;

    do {
        c->end = (struct end){.peer_host = SERVER_HOST};
        rv = pool_borrow(&c->end, c->number, FAR_NS, &lease);
        if (rv != HS_OK) {
            sim_sleep(10 * SIM_S);
            continue;
        }
        for (uint32_t i = 0; rv == HS_OK && i < QUESTIONS; i++)
            rv = client_ask(c, i);
        pool_return(&c->end, &lease, rv == HS_OK);
    } while (rv != HS_OK && tries++ < 5);
    calm_expect(rv, "an exchange with a pool's connection, again and again,");
}

/* A slow lookup of before would be shared. */
static void
await_lookups(void)
{
    struct hs_live live;

    do {
        sim_sleep(100 * SIM_MS);
        hs_live_counts(&live);
    } while (live.lookups > 0 || live.orphans > 0);
}

/* Nobody of before has yet something to say, for whom a server would have to wait. */
static void
await_servers(void)
{
    int64_t until = sim_now() + BACK_NS;

    while (sim_is_spoken_to(SERVER_PORT) || !servers_are_free()) {
        if (sim_now() > until)
            sim_violation("the server does not come back to its queue");
        sim_sleep(200 * SIM_MS);
    }
}

static void
run_examiner(void *arg)
{
    struct client c = {0};

    (void)arg;
    calls_begin();
    if (pool_is_there() && servers_are_many())
        examine_pool(&c);
    if (pool_is_there())
        pool_end();
    await_lookups();
    for (int by_name = 0; by_name < 2; by_name++) {
        await_servers();
        examine_connection(&c, by_name != 0);
    }
    calls_end();
    examined = true;
}

static bool
is_examined(void *arg)
{
    (void)arg;
    return examined;
}

void
calm_examine(void)
{
    if (!calm)
        calm_begin();
    sim_spawn("examiner", FIRST_CLIENT_HOST, run_examiner, NULL);
    (void)sim_wait(is_examined, NULL, SIM_NEVER);
}
