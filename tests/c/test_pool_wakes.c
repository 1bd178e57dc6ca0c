/* test_pool_wakes.c: the pool worker is woken by callers for what it can do, and else left alone.
 *
 * A wakeup costs the caller a system call, and both a switch of threads: at a full pool, where
 * every caller waits, that would be one for each.
 */
#include "../../csrc/cancel/waker.h"
#include "../../csrc/pool/pool_impl.h"
#include "pool_support.h"

static _Thread_local unsigned woken; /* the worker, by this thread */

void __real_hs_wakelist_wake(struct hs_wakelist *w);
void __wrap_hs_wakelist_wake(struct hs_wakelist *w);

void
__wrap_hs_wakelist_wake(struct hs_wakelist *w)
{
    woken += w == hs_pool_asked();
    __real_hs_wakelist_wake(w);
}

static struct stepped
join(struct hs_pool *p)
{
    struct stepped s = stepped_new(60 * SECOND);

    ASSERT_ERR(HS_WANT, stepped_step(&s, p));
    return s;
}

/* What was asked before is done, so that the next who asks wakes it. */
static void
wait_until_idle(const struct hs_pool *p)
{
    EVENTUALLY(!atomic_load(&p->asks));
}

START_TEST(caller_who_joins_a_full_pool_wakes_nobody)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct stepped waiting[20];

    for (size_t i = 0; i < LENGTH(waiting); i++) {
        wait_until_idle(p);
        woken = 0;
        waiting[i] = join(p);
        ck_assert_uint_eq(woken, 0);
    }
    ck_assert_uint_eq(stats_of(p).waiting, LENGTH(waiting));
    for (size_t i = 0; i < LENGTH(waiting); i++)
        hs_pool_abandon(p, &waiting[i].request);
    ck_assert_int_eq(give(p, &lease), HS_POOL_NONE);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* A dial for each who waits is under way. */
START_TEST(caller_who_joins_where_all_dials_are_under_way_wakes_nobody)
{
    struct hs_pool_options o = options(8);
    struct hs_endpoint ep;
    struct hs_addr hole;
    int fds[BLACK_HOLE_FDS];
    struct stepped first, second;
    struct hs_pool *p;

    black_hole(fds, &hole);
    ep = endpoint_of(&hole);
    o.max_dials = 1;
    ASSERT_OK(hs_pool_new(&ep, 1, &o, fresh(), &p));
    first = join(p);
    EVENTUALLY(stats_of(p).dialing == 1);
    wait_until_idle(p);
    woken = 0;
    second = join(p);
    ck_assert_uint_eq(woken, 0);
    hs_pool_abandon(p, &first.request);
    hs_pool_abandon(p, &second.request);
    pool_end(p);
    close_all(fds, BLACK_HOLE_FDS);
}
END_TEST

START_TEST(caller_who_joins_where_there_is_room_wakes_the_worker_once)
{
    struct server s = server_new();
    struct hs_pool_options o = options(2);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p), other;
    struct hs_request r = {.holder = ME};
    struct hs_op op = op_in(60 * SECOND);

    wait_until_idle(p);
    woken = 0;
    ASSERT_OK(acquire(p, &op, &r, fresh(), &other));
    ck_assert_uint_eq(woken, 1);
    ck_assert_int_eq(give(p, &lease), HS_POOL_NONE);
    ck_assert_int_eq(give(p, &other), HS_POOL_NONE);
    pool_end(p);
    server_free(&s);
}
END_TEST

int
main(void)
{
    TCase *tc = tcase_create("pool_wakes");

    tcase_add_test(tc, caller_who_joins_a_full_pool_wakes_nobody);
    tcase_add_test(tc, caller_who_joins_where_all_dials_are_under_way_wakes_nobody);
    tcase_add_test(tc, caller_who_joins_where_there_is_room_wakes_the_worker_once);
    return run_case(tc);
}
