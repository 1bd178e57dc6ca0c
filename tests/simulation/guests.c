/* guests.c: the connections of a server that are parked, and the few threads that serve them.
 *
 * Each is given to one thread at a time, with news that are true, in the moment in which there are
 * any: a message of which bytes have come, an end that has come, a time that has passed. While a
 * client is being answered its leaving is watched for: the token of its connection is cancelled
 * when it has reset it, and only then.
 */
#include "world.h"

#include <stdlib.h>

#define MAX_WORKERS 4
#define POLLED 3 /* at a time */
#define DRAIN_NS (30 * SIM_S)

/* A connection that is parked, or was given to a thread. */
struct guest {
    struct end e;
    struct hs_conn *conn; /* while it is parked: the parking has the reference */
    bool parked, lingers;
    bool newcomer; /* it has not said anything yet: it may stay while others are sent away */
    int64_t until_ns;
    bool watched;
    int64_t watched_ns;
    struct guest *next;
};

static const char *const worker_names[] = {"worker-0", "worker-1", "worker-2", "worker-3"};
static struct hs_parking *parking; /* NULL: there is none */
static struct hs_departures *departures;
static struct hs_token *stop;
static struct guest *guests;
static int n_workers, n_waiting, n_tenders;
static bool draining, polls;
static int64_t young_ns;

bool
guests_are_kept(void)
{
    return parking != NULL;
}

bool
guests_are_all_parked(void)
{
    return n_waiting == n_workers;
}

/* ---- Parked connections -------------------------------------------------------------------- */

static void
guest_free(struct guest *g)
{
    struct guest **at = &guests;

    while (*at != g)
        at = &(*at)->next;
    *at = g->next;
    free(g);
}

static void
guest_leave(struct guest *g)
{
    end_leave(&g->e);
    guest_free(g);
}

/* From now on it may be another thread's, and gone. */
static struct hs_conn *
let_go(struct guest *g, int64_t span_ns, bool newcomer, bool lingers)
{
    g->conn = g->e.conn;
    g->e.conn = NULL;
    g->until_ns = span_ns == HS_NEVER ? HS_NEVER : sim_now() + span_ns;
    g->newcomer = newcomer;
    g->lingers = lingers;
    g->parked = true;
    return g->conn;
}

/* It was not parked. */
static void
take_back(struct guest *g)
{
    g->parked = g->lingers = false;
    g->e.conn = g->conn;
}

static void
guest_park(struct guest *g, bool newcomer)
{
    int64_t span_ns = world_is_calm() || sim_chance(300) ? HS_NEVER : 10 * any_span();
    struct hs_conn *conn = let_go(g, span_ns, newcomer, false);
    enum hs_parking_answer said = HS_PARKING_TAKEN;
    struct hs_error err = {0};
    hs_err rv = hs_parking_park(parking, conn, g, span_ns, newcomer, &err, &said);

    if (rv == HS_OK && said == HS_PARKING_TAKEN) {
        hs_conn_unref(conn);
        return;
    }
    sim_log("not parked: %s, %d", rv == HS_OK ? "ok" : hs_err_text(rv), (int)said);
    take_back(g);
    if (rv != HS_OK)
        must(rv, "a connection is not parked", &err);
    if (said == HS_PARKING_QUIET && !draining)
        sim_violation("a connection is not parked, though nobody has drained the parking");
    if (said == HS_PARKING_CLOSED && !g->e.closed)
        sim_violation("a connection is not parked because it was closed, which it was not");
    guest_leave(g);
}

static void
guest_linger(struct guest *g)
{
    int64_t span_ns = any_span();
    struct hs_conn *conn = let_go(g, span_ns, false, true);
    struct hs_close_report report = {0};
    struct hs_error err = {0};
    hs_err rv = hs_parking_linger(parking, conn, g, span_ns, &err, &report);

    if (rv == HS_WANT) {
        hs_conn_unref(conn);
        return;
    }
    take_back(g);
    sim_log("not lingering: %s", rv == HS_OK ? "ok" : hs_err_text(rv));
    if (rv == HS_OK)
        check_ending(&g->e, report.ending);
    end_close(&g->e, false);
    guest_free(g);
}

/* ---- Clients that leave --------------------------------------------------------------------- */

static bool
has_left(const struct guest *g)
{
    return g->e.facts->reset || g->e.facts->timed_out;
}

static void
watch(struct guest *g)
{
    struct hs_error err = {0};
    hs_err rv;

    must(hs_token_new(&stop, 1, HS_NEVER, NULL, &err, &g->e.token), "no token", &err);
    rv = hs_departures_watch(departures, g->e.conn, g->e.token, &err);
    if (rv != HS_OK && rv != HS_E_CLOSED)
        must(rv, "a client is not watched", &err);
    g->watched = rv == HS_OK;
    g->watched_ns = sim_now();
}

static void
end_watch(struct guest *g)
{
    struct hs_token *token = g->e.token;
    bool cancelled;

    g->watched = false;
    hs_conn_leave_departures(g->e.conn);
    cancelled = hs_token_check(token) != HS_OK;
    if (cancelled && hs_token_check(stop) == HS_OK && !has_left(g))
        sim_violation("a client has left, it is said, and it is there");
    g->e.token = stop;
    hs_token_unref(token);
}

static hs_err
answer_watched(struct guest *g)
{
    hs_err rv;

    watch(g);
    rv = server_answer(&g->e);
    end_watch(g);
    return rv;
}

static void
run_tender(void *arg)
{
    struct end nothing = {.token = stop};
    struct hs_callback *fired;
    hs_err rv;

    (void)arg;
    calls_begin();
    do {
        struct call c;

        fired = NULL;
        call_begin(&c, "departures_tend", &nothing, any_span());
        do
            rv = hs_departures_tend(departures, &c.op, &c.err, &fired);
        while (call_again(&c, rv));
        call_end(&c, &nothing, rv);
        hs_callbacks_run(fired);
    } while (rv == HS_OK || rv == HS_E_DEADLINE || is_for_want(rv));
    calls_end();
    n_tenders--;
}

/* ---- News ---------------------------------------------------------------------------------- */

static void
check_message(const struct guest *g)
{
    const struct sim_facts *f = g->e.facts;
    struct hs_conn_info info;

    hs_conn_info(g->e.conn, &info);
    if (!g->e.secured && !g->e.closed && f->unread == 0 && info.buffered == 0 && !f->reset)
        sim_violation("a message is told of which nothing has come");
}

static void
check_ended(const struct guest *g, const struct hs_parked_conn *news)
{
    if (news->closed_here != g->e.closed && !g->e.closed)
        sim_violation("a parked connection was closed here, and it was not");
    if (news->closed_here)
        return;
    if (news->news == HS_PARKED_FINISHED)
        check_ending(&g->e, news->ending);
    else if (news->ending == HS_ENDING_CLEAN && (!g->e.facts->ended || g->e.facts->unread > 0) &&
             !g->e.secured)
        sim_violation("a parked connection has ended, it is said, and there is more to come");
}

static void
take_guest(const struct hs_parked_conn *news)
{
    static const char *const texts[] = {"a message", "ended", "expired", "quiet", "finished"};
    struct guest *g = news->arg;
    bool lingered = g->lingers;

    sim_log("is given %s", texts[news->news]);
    if (!g->parked || news->conn != g->conn)
        sim_violation("a connection is given to two");
    take_back(g);
    switch (news->news) {
    case HS_PARKED_MESSAGE:
        check_message(g);
        if (answer_watched(g) != HS_OK)
            guest_leave(g);
        else if (!world_is_calm() && sim_chance(100))
            guest_linger(g);
        else
            guest_park(g, false);
        return;
    case HS_PARKED_ENDED:
        check_ended(g, news);
        break;
    case HS_PARKED_EXPIRED:
        if (sim_now() < g->until_ns && !world_is_poor())
            sim_violation("a parked connection's time is over %lld ns early",
                          (long long)(g->until_ns - sim_now()));
        guest_linger(g);
        return;
    case HS_PARKED_QUIET:
        if (!draining)
            sim_violation("a connection is quiet, and nobody has drained the parking");
        guest_leave(g);
        return;
    case HS_PARKED_FINISHED:
        if (!lingered)
            sim_violation("a connection has finished that did not linger");
        check_ended(g, news);
        break;
    }
    end_close(&g->e, false); /* It is closed; this lets go of it. */
    guest_free(g);
}

static bool
poll_guests(void)
{
    struct end nothing = {0};
    struct hs_parked_conn news[POLLED];
    struct call c;
    size_t n = 0;
    hs_err rv;

    call_begin(&c, "parking_poll", &nothing, any_span());
    n_waiting++;
    do
        rv = hs_parking_poll(parking, &c.op, POLLED, &c.err, news, &n);
    while (call_again(&c, rv));
    n_waiting--;
    nothing.closed = draining;
    call_end(&c, &nothing, rv);
    if (rv != HS_OK)
        return rv != HS_E_CLOSED;
    for (size_t i = 0; i < n; i++)
        take_guest(&news[i]);
    return true;
}

static bool
await_guest(void)
{
    struct hs_parked_conn news;
    struct hs_error err = {0};
    hs_err rv;

    n_waiting++;
    rv = hs_parking_next(parking, &err, &news);
    n_waiting--;
    if (rv == HS_OK)
        take_guest(&news);
    else if (rv != HS_INTR && rv != HS_E_CLOSED)
        must(rv, "no news of parked connections", &err);
    return rv != HS_E_CLOSED;
}

static void
run_worker(void *arg)
{
    (void)arg;
    calls_begin();
    while (polls ? poll_guests() : await_guest())
        continue;
    calls_end();
    n_workers--;
}

/* When a server is full it looks after others itself, and sends away who has said nothing. */
static void
make_room(void)
{
    struct hs_parked_conn news[2];
    struct hs_conn *conn;
    void *arg;

    if (polls)
        return;
    for (size_t i = 0, n = hs_parking_tend(parking, SIM_LENGTH(news), news); i < n; i++) {
        if (news[i].news == HS_PARKED_MESSAGE)
            sim_violation("tending gives a message");
        take_guest(&news[i]);
    }
    if (!hs_parking_evict(parking, sim_between(0, SIM_S), &conn, &arg))
        return;
    sim_log("sends a silent one away");
    if (!((struct guest *)arg)->parked || ((struct guest *)arg)->conn != conn)
        sim_violation("a connection is sent away that another has");
    take_back(arg);
    /* With stalls they may come between the look and this one. */
    if (((struct guest *)arg)->e.facts->unread > 0 && !sim_settings.stalls)
        sim_violation("a connection is sent away of which bytes have come");
    guest_leave(arg);
}

void
guests_welcome(struct hs_conn *conn)
{
    struct guest *g = calloc(1, sizeof(*g));

    if (g == NULL)
        abort();
    g->e = (struct end){.token = stop, .secured = tls_is_there()};
    g->next = guests;
    guests = g;
    end_adopt(&g->e, conn);
    guest_park(g, true);
    if (!world_is_calm() && sim_chance(300))
        make_room();
}

void
guests_disturb(void)
{
    struct guest *g = guests;
    struct hs_conn *conn;

    if (parking != NULL && sim_chance(500)) {
        make_room();
        return;
    }
    for (uint64_t n = sim_below(4); g != NULL && (n > 0 || !g->parked); g = g->next)
        n -= n > 0;
    if (g == NULL)
        return;
    sim_log("closes a parked connection");
    conn = hs_conn_ref(g->conn);
    g->e.closed = true;
    hs_conn_close(conn, sim_chance(300));
    hs_conn_unref(conn);
}

/* ---- Looking ------------------------------------------------------------------------------- */

static void
look_at_parked(const struct guest *g)
{
    const struct sim_facts *f = g->e.facts;

    if (g->e.closed)
        sim_violation("a parked connection was closed, and nobody is told");
    if (g->until_ns <= sim_now())
        sim_violation("the time of a parked connection is over, and nobody is told");
    if (g->lingers)
        return;
    if (draining && !g->newcomer)
        sim_violation("the parking is drained, and a connection waits on");
    if (f->unread > 0 || f->over_ns != 0)
        sim_violation("of a parked connection %zu bytes have come%s, and nobody is told", f->unread,
                      f->over_ns != 0 ? ", and its end" : "");
}

/* Those that are young are looked at a few at a time. */
static void
look_at_watched(const struct guest *g)
{
    if (has_left(g) && !g->e.closed && sim_now() - g->watched_ns > young_ns + young_ns / 4 &&
        hs_token_check(g->e.token) == HS_OK)
        sim_violation("a client has left, and its token goes on");
}

void
guests_look(void)
{
    for (const struct guest *g = guests; g != NULL; g = g->next)
        if (g->parked && n_waiting > 0)
            look_at_parked(g);
        else if (!g->parked && g->watched && n_tenders > 0)
            look_at_watched(g);
}

/* ---- Life ---------------------------------------------------------------------------------- */

void
guests_begin(struct hs_token *token)
{
    struct hs_error err = {0};

    stop = token;
    young_ns = sim_between(0, SIM_S);
    must(hs_parking_new(&err, &parking), "no parking", &err);
    must(hs_departures_new(young_ns, &err, &departures), "no departures", &err);
    n_workers = 1 + (int)sim_below(MAX_WORKERS);
    n_tenders = 1;
    polls = n_workers == 1 && sim_chance(500);
    for (int i = 0, n = n_workers; i < n; i++)
        sim_spawn(worker_names[i], SERVER_HOST, run_worker, NULL);
    sim_spawn("tender", SERVER_HOST, run_tender, NULL);
}

static bool
nobody_is_there(void *arg)
{
    (void)arg;
    return guests == NULL;
}

static bool
nobody_works(void *arg)
{
    (void)arg;
    return n_workers == 0 && n_tenders == 0;
}

static void
take_all(void)
{
    struct hs_conn *conn;
    bool quiet;
    void *arg;

    while (hs_parking_take(parking, &conn, &arg, &quiet)) {
        struct guest *g = arg;

        if (!g->parked || g->conn != conn)
            sim_violation("a connection is taken at the end that another has");
        take_back(g);
        end_close(&g->e, false);
        guest_free(g);
    }
}

void
guests_stop(void)
{
    draining = true;
    hs_parking_drain(parking);
    (void)sim_wait(nobody_is_there, NULL, sim_now() + DRAIN_NS);
    hs_parking_close(parking);
    take_all();
    (void)sim_wait(nobody_works, NULL, SIM_NEVER);
    take_all();
    if (guests != NULL)
        sim_violation("connections are neither parked nor anybody's");
    hs_parking_unref(parking);
    hs_departures_close(departures);
    hs_departures_unref(departures);
}
