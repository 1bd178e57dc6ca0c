/* pooled.c: a pool that all clients borrow from.
 *
 * Nobody is lent what another has, nor what another has left half-way: the next borrower's answers
 * are its own, which the ones who ask look at. A connection that is lent is not over, and has
 * nothing that came before and is still to be read. The books of the pool agree at every turn of
 * hands.
 */
#include "world.h"

#include <netinet/in.h>
#include <string.h>

static struct hs_pool *pool;
static const struct hs_member *lent[16];
static size_t n_lent;

bool
pool_is_there(void)
{
    return pool != NULL;
}

static int64_t
any_age(void)
{
    return sim_between(1, 30) * SIM_S + sim_between(0, SIM_S);
}

void
pool_begin(void)
{
    struct hs_pool_options o;
    struct hs_endpoint where;
    struct hs_error err = {0};

    hs_pool_options_init(&o);
    o.max_size = 1 + (size_t)sim_below(4);
    o.min_idle = (size_t)sim_below(2);
    o.max_dials = 1 + (size_t)sim_below(3);
    /* What nothing disturbs is over by then: a name with all its addresses, and TLS. */
    o.dial_timeout_ns =
        world_is_calm()
            ? calm_span()
            : 2 * SIM_S + any_age() / 4 + 16 * (sim_settings.latency_ns + sim_settings.jitter_ns);
    o.idle_timeout_ns = sim_chance(500) ? any_age() : HS_NEVER;
    o.max_lifetime_ns = sim_chance(500) ? any_age() : HS_NEVER;
    o.reuse = sim_chance(500) ? HS_REUSE_MARKED : HS_REUSE_ANSWERED;
    o.keep_trying = sim_chance(300);
    o.oldest_first = sim_chance(300);
    tls_for_client(&o.connect);
    server_endpoint(sim_chance(400), &where);
    must(hs_pool_new(&where, 1, &o, &err, &pool), "no pool", &err);
    sim_log("a pool of %zu", o.max_size);
}

static void
check_books(void)
{
    struct hs_error err = {0};

    must(hs_pool_verify(pool, &err), "the books of the pool", &err);
}

/* By its place in the pool: a number is another's as soon as the borrower has closed it. */
static void
note_lent(const struct hs_member *m)
{
    for (size_t i = 0; i < n_lent; i++)
        if (lent[i] == m)
            sim_violation("a connection is lent to two");
    if (n_lent == SIM_LENGTH(lent))
        sim_violation("more are lent than there are clients");
    lent[n_lent++] = m;
}

static void
note_returned(const struct hs_member *m)
{
    size_t i = 0;

    while (lent[i] != m)
        i++;
    lent[i] = lent[--n_lent];
}

/* For how long somebody who is served may not know it: for want of memory it is not woken. */
static int64_t
deafness(void)
{
    return world_is_poor() ? 20 * SIM_MS : 0;
}

/* Who is served while it waits is back in that moment. */
static void
check_served_now(uint64_t lease)
{
    struct hs_lent all[16];
    size_t n = hs_pool_lent(pool, all, SIM_LENGTH(all));

    for (size_t i = 0; i < n && i < SIM_LENGTH(all) && !sim_settings.stalls; i++)
        if (all[i].id == lease && all[i].age_ns > deafness())
            sim_violation("acquire is back %lld ns after it was served", (long long)all[i].age_ns);
}

hs_err
pool_borrow(struct end *e, int borrower, int64_t span_ns, struct hs_lease *ret_lease)
{
    struct hs_request request = {.holder = {.thread = (uint64_t)borrower + 1}};
    struct hs_conn_info info;
    struct call c;
    hs_err rv;

    call_begin(&c, "acquire", e, span_ns);
    do
        rv = hs_pool_acquire(pool, &c.op, &request, &c.err, ret_lease);
    while (call_again(&c, rv));
    hs_dial_failure_unref(request.failure);
    call_end(&c, e, rv);
    check_books();
    if (rv != HS_OK)
        return rv;
    end_adopt(e, hs_conn_ref(ret_lease->conn));
    e->lease = ret_lease->id;
    e->secured = tls_is_there();
    hs_conn_info(e->conn, &info);
    if (info.buffered > 0 || info.poisoned_in || info.poisoned_out)
        sim_violation("a connection is lent that somebody has left half-way");
    if (e->facts->over_ns != 0 && e->facts->over_ns + deafness() < sim_now() &&
        !sim_settings.stalls)
        sim_violation("a connection is lent that is over");
    check_served_now(ret_lease->id);
    note_lent(ret_lease->member);
    return HS_OK;
}

void
pool_return(struct end *e, struct hs_lease *lease, bool done)
{
    struct hs_conn *conn = e->conn;
    int64_t began = sim_now();
    enum hs_pool_reason why;
    struct hs_error err = {0};

    if (done && sim_chance(900))
        hs_lease_mark_clean(lease);
    e->conn = NULL;
    e->lease = 0;
    note_returned(lease->member);
    hs_conn_unref(conn);
    must(hs_pool_release(pool, lease, done ? HS_RETURN_DONE : HS_RETURN_FAILED, &err, &why, NULL),
         "no return", &err);
    sim_log("returned: %s", hs_pool_reason_name(why));
    if (sim_now() != began && !sim_settings.stalls)
        sim_violation("a return has waited");
    check_books();
}

void
pool_end(void)
{
    struct hs_pool *p = pool;

    pool = NULL;
    hs_pool_close(p);
    hs_pool_unref(p);
}
