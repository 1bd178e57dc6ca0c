/* disturber.c: who cuts ways, cancels tokens, and closes connections in the middle of calls.
 *
 * What was cancelled or closed is to be back in that moment, which each thread then has promised.
 */
#include "world.h"

static bool is_moment; /* somebody has just begun something */

static void
heal(void *arg, uint64_t number)
{
    (void)arg;
    sim_log("way %llu heals", (unsigned long long)number);
    sim_cut((int)(number / SIM_HOSTS), (int)(number % SIM_HOSTS), false);
}

static void
cut_way(int from, int to)
{
    sim_log("way %d is cut", from * SIM_HOSTS + to);
    sim_cut(from, to, true);
    sim_at(sim_now() + sim_between(0, 30 * SIM_S), heal, NULL, (uint64_t)(from * SIM_HOSTS + to));
}

static void
hurry(struct client *c, const char *what)
{
    int64_t by = sim_now() + (world_is_scarce() || world_is_poor() ? 20 * SIM_MS : 0);

    sim_promise_sooner(c->thread, what, by);
    if (c->writer != NULL)
        sim_promise_sooner(c->writer, what, by);
}

static void
disturb(struct client *c)
{
    struct hs_token *token = c->end.token;
    struct hs_conn *conn = c->end.conn;
    int host = FIRST_CLIENT_HOST + c->number;

    switch (sim_below(8)) {
    case 0:
    case 1:
        if (token == NULL)
            break;
        (void)hs_token_ref(token);
        sim_log("cancels client %d", c->number);
        hurry(c, "a call that was cancelled");
        (void)hs_token_cancel(token, "disturbed", 0, NULL);
        hs_token_unref(token);
        break;
    case 2:
    case 3:
        if (conn == NULL)
            break;
        (void)hs_conn_ref(conn);
        sim_log("closes the connection of client %d", c->number);
        c->end.closed = true;
        hurry(c, "a call whose connection was closed");
        hs_conn_close(conn, sim_chance(300));
        hs_conn_unref(conn);
        break;
    case 4:
        guests_disturb();
        break;
    case 5:
        cut_way(host, c->end.peer_host);
        cut_way(c->end.peer_host, host);
        break;
    case 6:
        cut_way(host, c->end.peer_host);
        break;
    default:
        cut_way(c->end.peer_host, host);
        break;
    }
}

static bool
moment_has_come(void *arg)
{
    (void)arg;
    return is_moment;
}

/* What happens while all others wait is soon known. Sometimes it happens in the middle. */
void
disturber_note_call(void)
{
    is_moment |= sim_chance(10);
}

void
run_disturber(void *arg)
{
    struct client *chosen;

    (void)arg;
    for (;;) {
        is_moment = false;
        (void)sim_wait(moment_has_come, NULL,
                       sim_now() + sim_between(0, sim_chance(500) ? 20 * SIM_S : 100 * SIM_MS));
        if (!clients_are_there())
            break;
        chosen = any_client();
        do
            disturb(chosen);
        while (sim_chance(500));
    }
}
