/* test_pauses.c: what the kernel refuses for a time, and those who wait meanwhile: they ask again
 * seldom, lose nothing, and go on when they may.
 *
 * A turn shows as a call, which the plan of faults counts: so many at most for the time that has
 * passed, however slow the machine is. Who goes round makes hundreds in each millisecond.
 */
#include "parking_support.h"
#include "pool_support.h"
#include "support_tls.h"

#include "../../csrc/base/fault.h"
#include "../../csrc/cancel/wait.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define A_WHILE (300 * MS)

struct plan {
    uint64_t id;
    int64_t began_ns;
};

static struct plan
begin(const char *spec)
{
    struct plan p = {.began_ns = hs_now()};

    ASSERT_OK(hs_faults_begin(spec, fresh(), &p.id));
    return p;
}

static void
end(const struct plan *p)
{
    hs_faults_end(p->id);
    ck_assert_uint_gt(hs_faults_logged(), 0); /* Else nothing was tested. */
}

static uint64_t
calls_of(const struct plan *p, enum hs_call call)
{
    uint64_t seed, calls[HS_FAULT_CALLS];

    ck_assert(hs_faults_plan(p->id, &seed, calls));
    return calls[call];
}

/* `each` for each `span`, and some for the beginning. */
static void
check_seldom(const struct plan *p, enum hs_call call, uint64_t each, int64_t span)
{
    uint64_t n = calls_of(p, call);
    uint64_t most = each * (uint64_t)((hs_now() - p->began_ns) / span + 4);

    ck_assert_msg(n <= most, "%lu calls, at most %lu", (unsigned long)n, (unsigned long)most);
}

static void
let_pass(int64_t span)
{
    for (int64_t until = hs_now() + span; hs_now() < until;)
        breathe();
}

static bool
is_readable(int fd, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, timeout_ms) == 1;
}

/* ---- Newcomers ----------------------------------------------------------------------------- */

/* Its clients come through no proxy, so that each is ready at once; all the same they come in by
 * the gate. */
static struct hs_listener *
gated(struct hs_addr *ret_addr)
{
    static const struct hs_network others = {AF_INET, 8, {10}};
    struct hs_listen_options o;
    struct hs_endpoint ep;
    struct hs_listener *l;

    hs_listen_options_init(&o);
    o.proxy.from = &others;
    o.proxy.n_from = 1;
    ASSERT_OK(hs_endpoint_parse("127.0.0.1:0", 11, fresh(), &ep));
    ASSERT_OK(hs_listener_open(&ep, &o, fresh(), &l));
    ASSERT_OK(hs_listener_addr(l, fresh(), ret_addr));
    return l;
}

static int
client_of(const struct hs_addr *addr)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(connect(fd, &addr->sa, addr->len), 0);
    return fd;
}

static hs_err
accept_once(struct hs_listener *l, struct hs_op *op)
{
    struct hs_conn *c;
    size_t n;
    hs_err rv = hs_listener_accept(l, op, 1, fresh(), &c, &n);

    if (rv == HS_OK)
        hs_conn_unref(c);
    return rv;
}

static void
end_listener(struct hs_listener *l, int client)
{
    (void)close(client);
    hs_listener_close(l);
    hs_listener_unref(l);
}

/* No descriptors: the listener pauses for 5 to 100 ms, again and again. */
static const char no_files_and_no_time[] = "accept.no_files=1,timerfd_settime.fail=1";

START_TEST(a_thread_waits_out_a_pause_that_no_time_can_be_set_for)
{
    struct hs_addr addr;
    struct hs_listener *l = gated(&addr);
    struct hs_op op = op_in(A_WHILE), later = op_in(60 * SECOND);
    int client = client_of(&addr);
    struct plan p = begin(no_files_and_no_time);

    ASSERT_ERR(HS_E_DEADLINE, DONE(accept_once(l, &op)));
    check_seldom(&p, HS_CALL_timerfd_settime, 8, 5 * MS);
    check_seldom(&p, HS_CALL_accept, 4, 5 * MS);
    end(&p);
    ASSERT_OK(DONE(accept_once(l, &later)));
    end_listener(l, client);
}
END_TEST

START_TEST(a_step_waits_for_the_end_of_such_a_pause_and_not_for_a_descriptor)
{
    struct hs_addr addr;
    struct hs_listener *l = gated(&addr);
    struct hs_op op = op_step(60 * SECOND);
    int client = client_of(&addr);
    struct plan p = begin(no_files_and_no_time);
    hs_err rv;

    ASSERT_ERR(HS_WANT, DONE(accept_once(l, &op)));
    ck_assert(!is_readable(op.want_fd, 0));
    ck_assert_int_lt(op.want_at_ns, hs_now() + SECOND);
    end(&p);
    while ((rv = DONE(accept_once(l, &op))) == HS_WANT)
        wait_for_want(&op);
    ASSERT_OK(rv);
    end_listener(l, client);
}
END_TEST

START_TEST(who_waited_before_hears_that_nobody_will_be_told)
{
    struct hs_op first = op_step(60 * SECOND), second = op_step(60 * SECOND);
    struct hs_addr addr;
    struct hs_listener *l = gated(&addr);
    struct hs_loop_waiter *w;
    struct hs_loop *loop;
    struct plan p;
    int client, named = 0;

    ASSERT_OK(hs_loop_new(fresh(), &loop));
    ASSERT_OK(hs_loop_waiter_new(loop, &named, fresh(), &w));
    first.loop_waiter = w;
    ASSERT_ERR(HS_WANT, accept_once(l, &first));
    first.want_fd = -1; /* Its turn is late: the second is quicker. */
    ASSERT_OK(hs_loop_waiter_park(w, &first, fresh()));
    p = begin(no_files_and_no_time);
    client = client_of(&addr);
    ASSERT_ERR(HS_WANT, DONE(accept_once(l, &second)));
    hs_loop_collect(loop);
    ck_assert_ptr_eq(hs_loop_next(loop), &named);
    ASSERT_ERR(HS_WANT, DONE(accept_once(l, &first)));
    ck_assert_int_lt(first.want_at_ns, hs_now() + SECOND);
    end(&p);
    hs_loop_waiter_free(w);
    hs_loop_free(loop);
    end_listener(l, client);
}
END_TEST

START_TEST(who_only_tries_finds_the_descriptor_readable_until_the_kernel_tells)
{
    struct hs_addr addr;
    struct hs_listener *l = gated(&addr);
    struct hs_op once = HS_OP_INIT(HS_TRY_ONCE, NULL);
    int client = client_of(&addr);
    struct plan p = begin(no_files_and_no_time);

    for (int i = 0; i < 20; i++) {
        ck_assert(is_readable(hs_listener_wait_fileno(l), 30000));
        ASSERT_ERR(HS_E_DEADLINE, DONE(accept_once(l, &once)));
    }
    end(&p);
    EVENTUALLY(is_readable(hs_listener_wait_fileno(l), 30000) &&
               DONE(accept_once(l, &once)) == HS_OK);
    ASSERT_ERR(HS_E_DEADLINE, DONE(accept_once(l, &once)));
    ck_assert(!is_readable(hs_listener_wait_fileno(l), 0));
    end_listener(l, client);
}
END_TEST

/* Neither an event nor a time can be asked for: newcomers are looked for. */
START_TEST(newcomers_come_in_though_the_kernel_tells_of_none)
{
    struct hs_addr addr;
    struct hs_listener *l = gated(&addr);
    struct hs_op op = op_in(60 * SECOND), none = op_in(A_WHILE);
    struct plan p = begin(_i == 0 ? "epoll_ctl.fail=1,timerfd_settime.fail=1" : "epoll_ctl.fail=1");

    for (int i = 0; i < 3; i++) {
        int client = client_of(&addr);

        ASSERT_OK(DONE(accept_once(l, &op)));
        (void)close(client);
    }
    ASSERT_ERR(HS_E_DEADLINE, DONE(accept_once(l, &none)));
    check_seldom(&p, HS_CALL_accept, 4, 10 * MS);
    end(&p);
    end_listener(l, -1);
}
END_TEST

/* ---- Loops that are not told what is ready ------------------------------------------------- */

static atomic_int looks;

static int
fail_all_looks(enum hs_call call, size_t *len)
{
    (void)len;
    if (call != HS_CALL_epoll_wait)
        return 0;
    atomic_fetch_add(&looks, 1);
    return EINVAL;
}

static int64_t
begin_blindness(void)
{
    atomic_store(&looks, 0);
    hs_fault_set_decider(fail_all_looks);
    return hs_now();
}

static void
check_looks(int64_t began_ns, int each)
{
    int n = atomic_load(&looks), most = each * (int)((hs_now() - began_ns) / (50 * MS) + 4);

    ck_assert_msg(n > 0 && n <= most, "%d looks, at most %d", n, most);
}

struct alarm {
    struct hs_token *token; /* owns */
    struct hs_alarm *handle;
    atomic_int told, released;
};

static hs_err
step(void *arg, struct hs_op *op, struct hs_error *err)
{
    (void)arg;
    return hs_token_await(op, err);
}

static void
release(void *arg)
{
    ((struct alarm *)arg)->released++;
}

static void
tell_all(struct hs_notifier *n, void *arg)
{
    struct alarm *a;

    (void)arg;
    while ((a = hs_notifier_next(n)) != NULL)
        a->told++;
}

static struct hs_notifier *
notifier(void)
{
    struct hs_notifier_hooks hooks = {.serve = tell_all};
    struct hs_notifier *n;

    ASSERT_OK(hs_notifier_new(&hooks, fresh(), &n));
    return n;
}

static void
arm(struct hs_notifier *n, struct alarm *a, int64_t deadline_ns)
{
    const struct hs_alarm_hooks hooks = {.step = step, .release = release};
    struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);

    ASSERT_OK(hs_token_new(NULL, 0, deadline_ns, NULL, fresh(), &a->token));
    op.token = a->token;
    ASSERT_OK(hs_alarm_new(n, &hooks, a, &op, fresh(), &a->handle));
}

static void
disarm(struct alarm *a)
{
    hs_alarm_end(a->handle);
    EVENTUALLY(a->released == 1);
    hs_token_unref(a->token);
}

START_TEST(alarms_are_told_by_a_thread_that_does_not_hear_and_does_not_go_round)
{
    struct hs_notifier *n = notifier();
    struct alarm soon = {0}, late = {0};
    int64_t began;

    arm(n, &late, hs_now() + 3600 * SECOND);
    arm(n, &soon, hs_now() + 20 * MS);
    began = begin_blindness();
    ASSERT_OK(hs_notifier_start(n, fresh()));
    EVENTUALLY(soon.told == 1);
    let_pass(A_WHILE);
    check_looks(began, 2);
    hs_fault_set_decider(NULL);
    ck_assert_int_eq(late.told, 0);
    disarm(&soon);
    disarm(&late);
    hs_notifier_stop(n, HS_STOP_ALL);
    hs_notifier_unref(n);
}
END_TEST

START_TEST(the_pools_thread_that_does_not_hear_does_not_go_round)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    int peer = server_accept(&s);
    int64_t began;

    (void)give(p, &lease);
    began = begin_blindness();
    (void)close(peer);
    EVENTUALLY(atomic_load(&looks) > 0);
    let_pass(A_WHILE);
    check_looks(began, 6); /* of the loop, and of the set of those that are idle */
    hs_fault_set_decider(NULL);
    EVENTUALLY(stats_of(p).idle == 0);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* ---- Parking that is refused --------------------------------------------------------------- */

START_TEST(a_connection_whose_parking_is_refused_is_the_callers_and_whole)
{
    struct hs_parking *pk = parking();
    struct pair p = pair_tcp();
    enum hs_parking_answer answer = HS_PARKING_UNFIT;
    struct plan plan = begin(_i == 0 ? "timerfd_settime.fail=1" : "epoll_ctl.fail=1");

    ASSERT_ERR(HS_E_SYSTEM,
               hs_parking_park(pk, p.c, &parking_mark, SECOND, false, fresh(), &answer));
    ck_assert_int_eq(answer, HS_PARKING_UNFIT);
    ck_assert_uint_eq(parked(pk), 0);
    end(&plan);
    put(p.peer, "still here", 10);
    recv_exactly(p.c, 10);
    park(pk, p.c, HS_NEVER);
    put(p.peer, "x", 1);
    expect(pk, p.c, HS_PARKED_MESSAGE);
    pair_free(&p);
    hs_parking_unref(pk);
}
END_TEST

/* It was given, and nothing had come: where it cannot wait on, its time is said to be over. */
START_TEST(a_parked_one_that_cannot_be_parked_again_is_told_of)
{
    struct tls_pair p = default_pair(false, HS_TLS_1_3);
    struct hs_parking *pk = parking();
    static const uint8_t half_a_record[] = {0x17, 3, 3, 0, 64, 1, 2, 3};
    struct plan plan;

    park(pk, p.server, HS_NEVER);
    plan = begin("epoll_ctl.fail=1");
    put(hs_conn_fileno(p.client), half_a_record, sizeof(half_a_record));
    expect(pk, p.server, HS_PARKED_EXPIRED);
    end(&plan);
    ck_assert(!hs_conn_is_closed(p.server));
    ck_assert_uint_eq(parked(pk) + due(pk), 0);
    tls_pair_free(&p);
    hs_parking_unref(pk);
}
END_TEST

START_TEST(a_linger_whose_parking_is_refused_is_an_error_and_keeps_nothing)
{
    struct hs_parking *pk = parking();
    struct pair p = pair_tcp();
    struct hs_close_report report = {.discarded = 77};
    struct plan plan = begin(_i == 0 ? "timerfd_settime.fail=1" : "epoll_ctl.fail=1");

    ASSERT_ERR(HS_E_SYSTEM,
               hs_parking_linger(pk, p.c, &parking_mark, 60 * SECOND, fresh(), &report));
    ck_assert_uint_eq(report.discarded, 77);
    end(&plan);
    ck_assert_uint_eq(parked(pk) + due(pk), 0);
    hs_conn_close(p.c, true); /* Both directions are free again: nobody waits for the number. */
    ck_assert_int_eq(hs_conn_fileno(p.c), -1);
    pair_free(&p);
    hs_parking_unref(pk);
}
END_TEST

/* What was sent may not have come through: it ends as broken, at once, and is told. */
START_TEST(one_that_lingers_and_cannot_be_parked_again_ends_as_broken)
{
    struct hs_parking *pk = parking();
    struct pair p = pair_tcp();
    struct hs_close_report report;
    struct hs_parked_conn got;
    struct plan plan;

    ASSERT_ERR(HS_WANT, hs_parking_linger(pk, p.c, &parking_mark, 60 * SECOND, fresh(), &report));
    plan = begin("epoll_ctl.fail=1");
    put(p.peer, "more", 4);
    got = next(pk);
    ck_assert_ptr_eq(got.conn, p.c);
    ck_assert_int_eq(got.news, HS_PARKED_FINISHED);
    ck_assert_int_eq(got.ending, HS_ENDING_RESET);
    ck_assert(!got.closed_here);
    ck_assert(hs_conn_is_closed(p.c));
    hs_conn_unref(got.conn);
    end(&plan);
    pair_free(&p);
    hs_parking_unref(pk);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("pauses");

    tls_world();
    tcase_add_test(tc, a_thread_waits_out_a_pause_that_no_time_can_be_set_for);
    tcase_add_test(tc, a_step_waits_for_the_end_of_such_a_pause_and_not_for_a_descriptor);
    tcase_add_test(tc, who_waited_before_hears_that_nobody_will_be_told);
    tcase_add_test(tc, who_only_tries_finds_the_descriptor_readable_until_the_kernel_tells);
    tcase_add_loop_test(tc, newcomers_come_in_though_the_kernel_tells_of_none, 0, 2);
    tcase_add_test(tc, alarms_are_told_by_a_thread_that_does_not_hear_and_does_not_go_round);
    tcase_add_test(tc, the_pools_thread_that_does_not_hear_does_not_go_round);
    tcase_add_loop_test(tc, a_connection_whose_parking_is_refused_is_the_callers_and_whole, 0, 2);
    tcase_add_test(tc, a_parked_one_that_cannot_be_parked_again_is_told_of);
    tcase_add_loop_test(tc, a_linger_whose_parking_is_refused_is_an_error_and_keeps_nothing, 0, 2);
    tcase_add_test(tc, one_that_lingers_and_cannot_be_parked_again_ends_as_broken);
    return run_case(tc);
}
