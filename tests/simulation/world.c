/* world.c: the beginning of a world, and its end.
 *
 * A seed chooses how the machine and the way are. Then there are servers and clients of the core,
 * plain peers that behave badly, and one who disturbs all of them. At the end everything that was
 * made must be gone: handles, threads, descriptors, and both ends of each connection.
 */
#include "world.h"

#include "stream/sockopt.h"

#include <string.h>

#define MANY_DESCRIPTORS 512

static bool disturbed;

void
must(hs_err rv, const char *what, const struct hs_error *err)
{
    if (rv != HS_OK)
        sim_violation("%s: %s: %s, errno %d", what, hs_err_text(rv), err->msg, err->sys);
}

int64_t
any_span(void)
{
    static const int64_t spans[] = {0, 1, 1, 5, 50, 300, 2000, 20000};

    if (world_is_calm())
        return calm_span();
    return (spans[sim_below(SIM_LENGTH(spans))] * SIM_MS) + sim_between(0, SIM_MS);
}

void
make_endpoint(int family, int host, uint16_t port, struct hs_endpoint *ret_where)
{
    *ret_where = (struct hs_endpoint){.family = family, .port = port};
    ret_where->addr.len = sim_name(family, host, port, &ret_where->addr.storage);
}

bool
world_is_scarce(void)
{
    return sim_settings.descriptors < MANY_DESCRIPTORS;
}

static void
choose_settings(void)
{
    static const unsigned losses[] = {0, 0, 10, 50, 150}, cuts[] = {0, 100, 400};
    static const unsigned signals[] = {0, 5, 50}, preempts[] = {0, 20, 200, 500};
    static const unsigned stalls[] = {0, 0, 0, 1, 10};

    sim_settings = (struct sim_settings){
        .preempt = preempts[sim_below(SIM_LENGTH(preempts))],
        .stalled = stalls[sim_below(SIM_LENGTH(stalls))],
        .interrupted = signals[sim_below(SIM_LENGTH(signals))],
        .cut = cuts[sim_below(SIM_LENGTH(cuts))],
        .loss = losses[sim_below(SIM_LENGTH(losses))],
        .latency_ns = sim_between(0, 150) * sim_between(0, SIM_MS),
        .buffer = (size_t)sim_between(2048, 65536),
        .descriptors = sim_chance(150) ? (int)sim_between(12, 40) : MANY_DESCRIPTORS,
        .ipv6 = sim_chance(600),
        .slow_names = 100,
    };
    sim_settings.stalls = sim_settings.stalled > 0;
    sim_settings.jitter_ns = sim_between(0, sim_settings.latency_ns);
    sim_log("preempt %u, stalled %u, interrupted %u, cut %u, loss %u, latency %lld, jitter %lld, "
            "buffer %zu, %d descriptors, IPv6 %d",
            sim_settings.preempt, sim_settings.stalled, sim_settings.interrupted, sim_settings.cut,
            sim_settings.loss, (long long)sim_settings.latency_ns,
            (long long)sim_settings.jitter_ns, sim_settings.buffer, sim_settings.descriptors,
            sim_settings.ipv6);
}

/* Before the clock moves. */
static void
look(void)
{
    calls_look();
    servers_look();
    told_look();
    if (sim_tcp_unseen() != NULL)
        sim_violation("a socket is connected, or refused, and nobody has looked at it");
}

static bool
clients_have_ended(void *arg)
{
    (void)arg;
    return !clients_are_there();
}

static bool
disturber_has_ended(void *arg)
{
    (void)arg;
    return !disturbed;
}

static bool
threads_have_ended(void *arg)
{
    (void)arg;
    return sim_live_threads() == 0;
}

static bool
network_is_quiet(void *arg)
{
    (void)arg;
    return sim_endpoints() == 0 && sim_packets() == 0;
}

static void
check_nothing_is_left(void)
{
    struct hs_live live;

    hs_live_counts(&live);
    if (live.tokens != 0 || live.conns != 0 || live.listeners != 0 || live.connectors != 0 ||
        live.buffers != 0 || live.lingering != 0 || live.pools != 0 || live.lookups != 0 ||
        live.orphans != 0 || live.parkings != 0 || live.notifiers != 0 || live.departures != 0)
        sim_violation("left: %ld tokens, %ld connections, %ld listeners, %ld connectors, %ld "
                      "buffers, %ld lingering, %ld pools, %ld lookups, %ld orphans, %ld parkings, "
                      "%ld notifiers, %ld departures",
                      live.tokens, live.conns, live.listeners, live.connectors, live.buffers,
                      live.lingering, live.pools, live.lookups, live.orphans, live.parkings,
                      live.notifiers, live.departures);
    if (sim_open_numbers() != 0) {
        sim_log_open();
        sim_violation("%zu descriptors are left", sim_open_numbers());
    }
}

static void
run_disturber_to_its_end(void *arg)
{
    run_disturber(arg);
    disturbed = false;
}

static void
begin_disturbances(void)
{
    for (int i = 1; i <= PLAIN_HOSTS; i++)
        sim_spawn(i == 1 ? "plain-1" : "plain-2", i, run_plain, NULL);
    disturbed = true;
    sim_spawn("disturber", DISTURBER_HOST, run_disturber_to_its_end, NULL);
}

/* In a calm world nobody has to wait until somebody else has ended a connection. */
static int
any_number_of_clients(void)
{
    int n = 1 + (int)sim_below(MAX_CLIENTS);

    return world_is_calm() && !servers_are_many() && n > servers_count() ? servers_count() : n;
}

static void
start(void)
{
    hs_sockopts_seed(1 + sim_random());
    messages_begin();
    if (!world_is_scarce() && sim_chance(100))
        calm_begin();
    if (!world_is_scarce() && !world_is_calm() && sim_chance(150))
        poor_begin();
    if (!world_is_scarce() && !world_is_poor() && sim_chance(200))
        tls_begin();
    servers_begin();
    if (!world_is_calm())
        begin_disturbances();
    clients_begin(any_number_of_clients());
    if (!world_is_scarce() && !proxy_is_there() && (servers_are_many() || !world_is_calm()) &&
        sim_chance(400))
        pool_begin();
    if (!world_is_scarce() && sim_chance(250))
        told_begin();
}

void
world(void)
{
    choose_settings();
    sim_before_time_passes(look);
    start();
    (void)sim_wait(clients_have_ended, NULL, SIM_NEVER);
    sim_log("the clients have ended");
    (void)sim_wait(disturber_has_ended, NULL, SIM_NEVER);
    if (!world_is_scarce())
        calm_examine();
    if (pool_is_there())
        pool_end();
    servers_stop();
    if (!sim_wait(threads_have_ended, NULL, sim_now() + 300 * SIM_S))
        sim_violation("%zu threads do not end", sim_live_threads());
    sim_before_time_passes(NULL);
    servers_end();
    tls_end();
    check_nothing_is_left();
    if (!sim_wait(network_is_quiet, NULL, sim_now() + 3600 * SIM_S))
        sim_violation("%zu ends of connections do not go", sim_endpoints());
}
