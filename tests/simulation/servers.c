/* servers.c: who listens, accepts, and answers each asker what belongs to it.
 *
 * A thread serves a connection to its end, or leaves it to those of guests.c, where it is parked.
 */
#include "world.h"

#include "stream/sockopt.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#define RETRIES_NS (50 * SIM_MS)

enum where { ON_IPV4, ON_IPV6, ON_BOTH, ON_UNIX };

static const char *const server_names[] = {"server-0", "server-1", "server-2", "server-3"};
static struct hs_listener *listener;
static struct hs_token *stop;
static enum where where;
static int n_servers;
static bool ipv6_is_lost;

/* ---- Answers ------------------------------------------------------------------------------- */

hs_err
server_answer(struct end *e)
{
    struct header h, back;
    uint8_t *buf;
    hs_err rv;

    if ((rv = receive_header(e, &h, 60 * SIM_S)) != HS_OK)
        return rv;
    if (h.mark != 'Q' || h.kind >= KINDS || h.len > MAX_MESSAGE || h.answer_len > MAX_MESSAGE)
        sim_violation("a request that nobody has sent");
    proxy_check(e, h.client);
    if ((rv = receive_message(e, &h, false, h.len)) != HS_OK)
        return rv;
    if (!world_is_calm() && sim_chance(100))
        sim_sleep(sim_between(0, 3 * SIM_S));
    if ((buf = malloc(MAX_MESSAGE)) == NULL)
        abort();
    fill_pattern(message_of(&h, true), 0, buf, h.answer_len);
    back = h;
    back.mark = 'A';
    rv = h.kind == FRAMES
             ? send_frames(e, &back, buf)
             : send_message(e, (const uint8_t *)&back, sizeof(back), buf, h.answer_len);
    free(buf);
    return rv;
}

static void
serve(struct hs_conn *conn)
{
    struct end e = {.token = stop, .secured = tls_is_there()};
    hs_err rv = HS_OK;

    end_adopt(&e, conn);
    while (rv == HS_OK)
        rv = server_answer(&e);
    end_leave(&e);
}

/* ---- Threads ------------------------------------------------------------------------------- */

static void
run_server(void *arg)
{
    struct end nothing = {.token = stop};
    struct hs_conn *conns[2];
    size_t n;
    hs_err rv;

    (void)arg;
    calls_begin();
    for (;;) {
        struct call c;

        call_begin(&c, "accept", &nothing, any_span());
        nothing.closed = hs_listener_is_closed(listener);
        do
            rv = hs_listener_accept(listener, &c.op, 1, &c.err, conns, &n);
        while (call_again(&c, rv));
        nothing.closed = hs_listener_is_closed(listener);
        call_end(&c, &nothing, rv);
        if (rv == HS_OK && guests_are_kept())
            guests_welcome(conns[0]);
        else if (rv == HS_OK)
            serve(conns[0]);
        else if (rv != HS_E_DEADLINE && !is_for_want(rv))
            break;
    }
    calls_end();
    n_servers--;
}

/* ---- Looking ------------------------------------------------------------------------------- */

/* One that was refused for want of room in the queue tries again every 10 ms, as nothing tells of
 * it; a few times others may be quicker. */
static void
look_at_refused(void)
{
    static int64_t since_ns;
    bool waits = where == ON_UNIX && !tls_is_there() && !world_is_poor() &&
                 calls_connecting(SERVER_HOST) > 0 && sim_has_room(hs_listener_fileno(listener));

    if (!waits)
        since_ns = 0;
    else if (since_ns == 0)
        since_ns = sim_now();
    else if (sim_now() - since_ns > RETRIES_NS)
        sim_violation("somebody waits to connect, and there is room in the queue");
}

void
servers_look(void)
{
    int fd;

    if (!world_is_scarce())
        look_at_refused();
    if (!world_is_scarce() && !world_is_poor() && calls_named("accept") > 0 &&
        !hs_listener_is_closed(listener)) {
        fd = hs_listener_fileno(listener);
        if (fd >= 0 && (sim_poll(fd) & POLLIN) != 0)
            sim_violation("somebody waits to accept, and somebody waits to be accepted");
    }
    guests_look();
}

bool
servers_are_free(void)
{
    return guests_are_kept() ? guests_are_all_parked() : calls_named("accept") == (size_t)n_servers;
}

bool
servers_are_many(void)
{
    return guests_are_kept();
}

int
servers_count(void)
{
    return n_servers;
}

bool
servers_are_lost_to_ipv6(void)
{
    return ipv6_is_lost;
}

/* ---- Where they are ------------------------------------------------------------------------ */

void
server_endpoint(bool by_name, struct hs_endpoint *ret_where)
{
    bool by_ipv6 = where == ON_IPV6 || (where == ON_BOTH && !ipv6_is_lost && sim_chance(500));
    struct hs_error err = {0};

    if (where == ON_UNIX)
        make_endpoint(AF_UNIX, SERVER_HOST, SERVER_PORT, ret_where);
    else if (by_name)
        must(hs_endpoint_from_host("server.test", 11, SERVER_PORT, &err, ret_where), "a name",
             &err);
    else
        make_endpoint(by_ipv6 ? AF_INET6 : AF_INET, SERVER_HOST, SERVER_PORT, ret_where);
}

static void
choose_where(struct hs_endpoint *ret_where)
{
    where = sim_chance(120)                         ? ON_UNIX
            : !sim_settings.ipv6 || sim_chance(300) ? ON_IPV4
            : sim_chance(200)                       ? ON_IPV6
                                                    : ON_BOTH;
    if (sim_settings.ipv6 && where != ON_IPV6 && sim_chance(250)) {
        ipv6_is_lost = true;
        sim_lose_ipv6();
    }
    sim_log("the server is at %d, IPv6 %s", (int)where, ipv6_is_lost ? "leads nowhere" : "works");
    if (where == ON_BOTH)
        *ret_where = (struct hs_endpoint){.family = AF_UNSPEC, .port = SERVER_PORT};
    else
        make_endpoint(where == ON_UNIX   ? AF_UNIX
                      : where == ON_IPV6 ? AF_INET6
                                         : AF_INET,
                      SERVER_HOST, SERVER_PORT, ret_where);
}

/* ---- Life ---------------------------------------------------------------------------------- */

void
servers_begin(void)
{
    struct hs_listen_options options;
    struct hs_endpoint at;
    struct hs_error err = {0};

    must(hs_token_new(NULL, 0, HS_NEVER, NULL, &err, &stop), "no token", &err);
    hs_listen_options_init(&options);
    options.backlog = (int)sim_between(0, 8);
    tls_for_listener(&options);
    proxy_for_listener(&options);
    if (sim_chance(500))
        hs_sockopts_dead_after(&options.sockopts, (int)sim_between(5000, 60000));
    choose_where(&at);
    must(hs_listener_open(&at, &options, &err, &listener), "no listener", &err);
    if (!world_is_scarce() && sim_chance(500))
        guests_begin(stop);
    n_servers = 1 + (int)sim_below(guests_are_kept() ? 2 : 4);
    for (int i = 0, n = n_servers; i < n; i++)
        sim_spawn(server_names[i], SERVER_HOST, run_server, NULL);
}

static bool
nobody_accepts(void *arg)
{
    (void)arg;
    return n_servers == 0;
}

void
servers_stop(void)
{
    hs_listener_close(listener);
    (void)hs_token_cancel(stop, "stop", 0, NULL);
    (void)sim_wait(nobody_accepts, NULL, SIM_NEVER);
    if (guests_are_kept())
        guests_stop();
}

void
servers_end(void)
{
    hs_listener_unref(listener);
    hs_token_unref(stop);
}
