/* test_pool.c: lending, waiting, handing over, giving back.
 *
 * Real sockets on loopback; who waits is seen to sleep before the next thing happens.
 */
#include "pool_support.h"

#include "../../csrc/pool/pool_impl.h"
#include "../../csrc/stream/conn_impl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

START_TEST(a_guard_ends_what_is_idle_and_nothing_else)
{
    struct server server = server_new();
    struct hs_pool_options o = options(2);
    struct hs_pool *p = pool_of(&server, &o);
    struct hs_lease one = take(p), other = take(p);
    uint64_t ids[2], gone = hs_conn_id(one.conn), stays = hs_conn_id(other.conn);

    ck_assert_uint_eq(hs_pool_conn_ids(p, ids, 2), 2);
    ck_assert_int_eq(hs_pool_retire(p, gone, 0), HS_RETIRE_LENT);
    ck_assert_int_eq(give(p, &one), HS_POOL_NONE);
    ck_assert_int_eq(hs_pool_retire(p, gone, 60 * SECOND), HS_RETIRE_FRESH);
    ck_assert_int_eq(hs_pool_retire(p, gone, 0), HS_RETIRE_CLOSED);
    ck_assert_int_eq(hs_pool_retire(p, gone, 0), HS_RETIRE_GONE);
    ck_assert_uint_eq(hs_pool_conn_ids(p, ids, 2), 1);
    ck_assert_uint_eq(ids[0], stays);
    ck_assert_uint_eq(stats_of(p).closed_by_reason[HS_POOL_EVICTED], 1);
    ck_assert_int_eq(give(p, &other), HS_POOL_NONE);
    pool_end(p);
    server_free(&server);
}
END_TEST

START_TEST(pool_lends_what_came_back)
{
    struct server s = server_new();
    struct hs_pool_options o = options(2);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct hs_conn *first = lease.conn;
    struct hs_pool_stats stats;

    ck_assert_uint_eq(lease.times_lent, 1);
    ck_assert_int_eq(give(p, &lease), HS_POOL_NONE);
    ASSERT_OK(hs_pool_try_acquire(p, &ME, &lease));
    ck_assert_ptr_eq(lease.conn, first);
    ck_assert_uint_eq(lease.times_lent, 2);
    ck_assert_int_eq(give(p, &lease), HS_POOL_NONE);
    stats = stats_of(p);
    ck_assert_uint_eq(stats.opened, 1);
    ck_assert_uint_eq(stats.acquired, 2);
    ck_assert_uint_eq(stats.acquired_waited, 1);
    ck_assert_uint_eq(stats.wait.count, 2);
    ck_assert_uint_eq(stats.usage.count, 2);
    ck_assert_uint_eq(stats.dial.count, 1);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(pool_lends_the_latest_first_or_the_oldest)
{
    struct server s = server_new();
    struct hs_pool_options o = options(2);
    struct hs_pool *p;
    struct hs_lease a, b, c;
    struct hs_conn *first;

    for (int oldest = 0; oldest < 2; oldest++) {
        o.oldest_first = oldest == 1;
        p = pool_of(&s, &o);
        a = take(p);
        b = take(p);
        first = oldest ? a.conn : b.conn;
        (void)give(p, &a);
        (void)give(p, &b);
        c = take(p);
        ck_assert_ptr_eq(c.conn, first);
        (void)give(p, &c);
        pool_end(p);
    }
    server_free(&s);
}
END_TEST

START_TEST(pool_never_opens_more_than_max_size)
{
    struct server s = server_new();
    struct hs_pool_options o = options(2);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease a = take(p), b = take(p), c;
    struct hs_op op = op_in(20 * MS);
    struct hs_request r = {.holder = ME};

    ASSERT_ERR(HS_E_DEADLINE, acquire(p, &op, &r, fresh(), &c));
    ck_assert_str_eq(last_error()->op, "acquire");
    op = (struct hs_op)HS_OP_INIT(HS_TRY_ONCE, NULL);
    ASSERT_ERR(HS_E_DEADLINE, acquire(p, &op, &r, fresh(), &c));
    ck_assert_uint_eq(stats_of(p).opened, 2);
    ck_assert_uint_eq(stats_of(p).timeouts, 2);
    ck_assert_uint_eq(stats_of(p).waiting, 0);
    (void)give(p, &a);
    (void)give(p, &b);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* ---- Waiting ------------------------------------------------------------------------------- */

#define CALLERS 8

START_TEST(waiters_are_served_in_the_order_of_arrival)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct caller callers[CALLERS] = {0};
    int order[CALLERS];
    atomic_int served = 0;

    for (int i = 0; i < CALLERS; i++) {
        callers[i].number = i;
        callers[i].order = order;
        callers[i].served = &served;
        caller_start_waiting(&callers[i], p, 20 * SECOND);
    }
    for (int i = 0; i < CALLERS; i++) {
        ck_assert_int_eq(give(p, &lease), HS_POOL_NONE);
        ck_assert_uint_eq(stats_of(p).idle, 0); /* Handed over, not put down. */
        ASSERT_OK(caller_join(&callers[i]));
        ck_assert_int_eq(order[i], i);
        lease = callers[i].lease;
    }
    ck_assert_uint_eq(stats_of(p).handed_over, CALLERS + 1); /* The dial's, too. */
    (void)give(p, &lease);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(newcomer_does_not_pass_a_waiter)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p), other;
    struct stepped waiter = stepped_new(10 * SECOND);

    ASSERT_ERR(HS_WANT, stepped_step(&waiter, p));
    (void)give(p, &lease);
    /* The waiter has not run yet, and has it all the same. */
    ASSERT_ERR(HS_WANT, hs_pool_try_acquire(p, &ME, &other));
    ASSERT_OK(stepped_step(&waiter, p));
    (void)give(p, &waiter.lease);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(waiter_that_leaves_is_out_of_the_queue_at_once)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p;
    struct hs_lease lease;
    struct stepped a = stepped_new(10 * SECOND), b = a, c = a;

    o.max_waiting = 2;
    p = pool_of(&s, &o);
    lease = take(p);
    ASSERT_ERR(HS_WANT, stepped_step(&a, p));
    ASSERT_ERR(HS_WANT, stepped_step(&b, p));
    ASSERT_ERR(HS_E_LIMIT, stepped_step(&c, p));
    hs_pool_abandon(p, &a.request);
    ck_assert_uint_eq(stats_of(p).waiting, 1);
    c = stepped_new(10 * SECOND);
    ASSERT_ERR(HS_WANT, stepped_step(&c, p)); /* The dead are not counted. */
    (void)give(p, &lease);
    ASSERT_OK(stepped_step(&b, p));
    (void)give(p, &b.lease);
    ASSERT_OK(stepped_step(&c, p));
    (void)give(p, &c.lease);
    ck_assert_uint_eq(stats_of(p).refused, 1);
    ck_assert_uint_eq(stats_of(p).cancelled, 1);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(waiter_out_of_time_is_passed_over)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct stepped late = stepped_new(MS), next = stepped_new(10 * SECOND);

    ASSERT_ERR(HS_WANT, stepped_step(&late, p));
    ASSERT_ERR(HS_WANT, stepped_step(&next, p));
    while (hs_now() <= late.op.deadline_ns) /* Nobody steps it meanwhile. */
        breathe();
    (void)give(p, &lease);
    ck_assert_uint_eq(stats_of(p).expired_skipped, 1);
    ASSERT_OK(stepped_step(&next, p));
    ASSERT_ERR(HS_E_DEADLINE, stepped_step(&late, p));
    (void)give(p, &next.lease);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(cancel_wins_over_a_connection_that_came_and_passes_it_on)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct stepped first = stepped_new(10 * SECOND), second = first;
    struct hs_token *token;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &token));
    first.op.token = token;
    ASSERT_ERR(HS_WANT, stepped_step(&first, p));
    ASSERT_ERR(HS_WANT, stepped_step(&second, p));
    (void)give(p, &lease); /* The first has it now ... */
    (void)hs_token_cancel(token, "enough", 0, NULL);
    ASSERT_ERR(HS_E_CANCELLED, stepped_step(&first, p)); /* ... and gives it back by this. */
    ASSERT_OK(stepped_step(&second, p));
    (void)give(p, &second.lease);
    ck_assert_uint_eq(stats_of(p).lent, 0);
    pool_end(p);
    hs_token_unref(token);
    server_free(&s);
}
END_TEST

START_TEST(abandoned_request_passes_on_what_it_was_given)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct stepped first = stepped_new(10 * SECOND), second = first;

    ASSERT_ERR(HS_WANT, stepped_step(&first, p));
    ASSERT_ERR(HS_WANT, stepped_step(&second, p));
    (void)give(p, &lease);
    hs_pool_abandon(p, &first.request);
    ASSERT_OK(stepped_step(&second, p));
    ck_assert_uint_eq(second.lease.times_lent, 2); /* The first never saw it. */
    (void)give(p, &second.lease);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(cancel_from_another_thread_ends_the_wait)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct caller c = {0};

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &c.token));
    caller_start_waiting(&c, p, HS_NEVER);
    (void)hs_token_cancel(c.token, "enough", 0, NULL);
    ASSERT_ERR(HS_E_CANCELLED, caller_join(&c));
    ck_assert_uint_eq(stats_of(p).waiting, 0);
    (void)give(p, &lease);
    pool_end(p);
    hs_token_unref(c.token);
    server_free(&s);
}
END_TEST

START_TEST(ended_token_gets_nothing_though_something_is_idle)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct hs_request r = {.holder = ME};
    struct hs_token *token;
    struct hs_op op;

    (void)give(p, &lease);
    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &token));
    (void)hs_token_cancel(token, "before", 0, NULL);
    op = op_with(token);
    ASSERT_ERR(HS_E_CANCELLED, hs_pool_acquire(p, &op, &r, fresh(), &lease));
    ck_assert_uint_eq(stats_of(p).idle, 1);
    pool_end(p);
    hs_token_unref(token);
    server_free(&s);
}
END_TEST

START_TEST(event_loop_is_rung_when_its_waiter_is_served)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct stepped w = stepped_new(10 * SECOND);
    struct hs_loop *loop;

    ASSERT_OK(hs_loop_new(fresh(), &loop));
    ASSERT_OK(hs_loop_waiter_new(loop, &w, fresh(), &w.op.loop_waiter));
    ASSERT_ERR(HS_WANT, stepped_step(&w, p));
    ASSERT_OK(hs_loop_waiter_park(w.op.loop_waiter, &w.op, fresh()));
    hs_loop_collect(loop);
    ck_assert_ptr_null(hs_loop_next(loop));
    (void)give(p, &lease);
    hs_loop_collect(loop);
    ck_assert_ptr_eq(hs_loop_next(loop), &w);
    ASSERT_OK(stepped_step(&w, p));
    hs_loop_waiter_free(w.op.loop_waiter);
    hs_loop_free(loop);
    (void)give(p, &w.lease);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(waiting_for_oneself_is_refused_at_once)
{
    struct server s = server_new();
    struct hs_pool_options o = options(2);
    struct hs_pool *p;
    struct hs_lease a, b, c;
    struct hs_op op = op_in(10 * SECOND);
    struct hs_request r = {.holder = ME};

    o.refuse_deadlock = true;
    p = pool_of(&s, &o);
    a = take(p);
    b = take(p);
    ASSERT_ERR(HS_E_LIMIT, hs_pool_acquire(p, &op, &r, fresh(), &c));
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "deadlock"));
    (void)give(p, &a);
    (void)give(p, &b);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* ---- Giving back --------------------------------------------------------------------------- */

START_TEST(second_return_is_refused)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p), copy = lease, again;

    (void)give(p, &lease);
    ck_assert_uint_eq(lease.id, 0);
    ASSERT_ERR(HS_E_INVALID, hs_pool_release(p, &lease, HS_RETURN_DONE, fresh(), NULL, NULL));
    ASSERT_ERR(HS_E_INVALID, hs_pool_release(p, &copy, HS_RETURN_DONE, fresh(), NULL, NULL));
    again = take(p);
    /* Not even now that the same connection is lent to somebody. */
    ASSERT_ERR(HS_E_INVALID, hs_pool_release(p, &copy, HS_RETURN_DONE, fresh(), NULL, NULL));
    (void)give(p, &again);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* ---- Calls under a lease ------------------------------------------------------------------- */

static struct hs_op
op_under(uint64_t lease, int64_t deadline_ns)
{
    struct hs_op op = HS_OP_INIT(deadline_ns, NULL);

    op.lease = lease;
    return op;
}

static hs_err
recv_under(struct hs_conn *c, uint64_t lease, uint8_t *ret_byte)
{
    struct hs_op op = op_under(lease, HS_TRY_ONCE);
    size_t n;

    return DONE(hs_conn_recv(c, &op, ret_byte, 1, 0, fresh(), &n));
}

START_TEST(call_under_an_ended_lease_touches_nothing_of_the_next_borrowers)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    uint64_t ended = lease.id;
    struct hs_op op = op_under(ended, HS_TRY_ONCE);
    struct hs_framing line = {.kind = HS_FRAMING_LINE, .max_size = 99};
    struct hs_close_report report;
    int peer = server_accept(&s);
    uint8_t byte;
    size_t n;

    put(peer, "a", 1);
    ASSERT_OK(recv_under(lease.conn, ended, &byte));
    ck_assert_int_eq(give(p, &lease), HS_POOL_NONE);
    lease = take(p); /* The same connection. */
    ck_assert_uint_eq(lease.times_lent, 2);
    put(peer, "b", 1);

    ASSERT_ERR(HS_E_CLOSED, recv_under(lease.conn, ended, &byte));
    ck_assert_str_eq(last_error()->msg, "it was returned to its pool");
    ASSERT_ERR(HS_E_CLOSED, hs_conn_recv_frames(lease.conn, &op, &line, fresh()));
    ASSERT_ERR(HS_E_CLOSED, hs_conn_peek(lease.conn, &op, 1, fresh()));
    ASSERT_ERR(HS_E_CLOSED, hs_conn_send(lease.conn, &op, (const uint8_t *)"x", 1, fresh(), &n));
    ASSERT_ERR(HS_E_CLOSED, hs_conn_close_write(lease.conn, &op, fresh()));
    ASSERT_ERR(HS_E_CLOSED, hs_conn_finish(lease.conn, &op, fresh(), &report));
    ck_assert_uint_eq(op.claim, 0);
    hs_conn_abandon(lease.conn, &op, NULL);

    ASSERT_OK(recv_under(lease.conn, lease.id, &byte));
    ck_assert_uint_eq(byte, 'b');
    ck_assert_int_eq(give(p, &lease), HS_POOL_NONE);
    (void)close(peer);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(call_that_names_a_lease_of_no_pool_is_refused)
{
    struct pair p = pair_tcp();
    uint8_t byte;

    put(p.peer, "a", 1);
    ASSERT_ERR(HS_E_CLOSED, recv_under(p.c, 1, &byte));
    ASSERT_OK(recv_under(p.c, 0, &byte));
    pair_free(&p);
}
END_TEST

static int
recv_in_child(void *arg)
{
    const struct hs_lease *lease = arg;
    uint8_t byte;

    return recv_under(lease->conn, lease->id, &byte) == HS_E_FORKED ? 0 : 1;
}

START_TEST(call_under_the_parents_lease_is_told_of_the_fork)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);

    ck_assert_int_eq(in_child(recv_in_child, &lease), 0);
    (void)give(p, &lease);
    pool_end(p);
    server_free(&s);
}
END_TEST

struct returning {
    struct thread thread;
    struct hs_pool *pool;
    struct hs_lease lease;
    enum hs_pool_reason why;
    atomic_bool *held;
    bool returned_while_held;
};

static void *
give_back(void *arg)
{
    struct returning *r = arg;

    r->why = give(r->pool, &r->lease);
    r->returned_while_held = *r->held;
    return NULL;
}

/* A call that has seen its lease well is followed by its claim before anybody can have the
 * connection: the return waits for that moment, and finds the claim. */
START_TEST(lease_does_not_end_between_a_calls_look_and_its_claim)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    atomic_bool held = true;
    struct returning r = {.pool = p, .lease = take(p), .held = &held};
    struct hs_conn *c = hs_conn_ref(r.lease.conn);
    struct hs_op op = op_under(r.lease.id, HS_TRY_ONCE);
    uint8_t byte;

    ASSERT_OK(hs_lease_hold(c, &op, fresh()));
    thread_start(&r.thread, give_back, &r);
    EVENTUALLY(atomic_load(c->lease) == 0);
    ASSERT_ERR(HS_E_CLOSED, recv_under(c, op.lease, &byte)); /* Who looks now is refused. */
    ck_assert(hs_call_take(c, HS_DIR_IN));
    ASSERT_OK(hs_fd_hold(&c->fd, fresh()));
    op.claim = 1U << HS_DIR_IN;
    held = false;
    hs_lease_drop(c, &op);
    (void)thread_join(&r.thread);
    ck_assert(!r.returned_while_held);
    ck_assert_int_eq(r.why, HS_POOL_BUSY);
    hs_conn_abandon(c, &op, NULL);
    hs_conn_unref(c);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(return_to_another_pool_is_refused)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o), *q = pool_of(&s, &o);
    struct hs_lease lease = take(p);

    ASSERT_ERR(HS_E_INVALID, hs_pool_release(q, &lease, HS_RETURN_DONE, fresh(), NULL, NULL));
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "another pool"));
    (void)give(p, &lease);
    pool_end(p);
    pool_end(q);
    server_free(&s);
}
END_TEST

static void
say(const struct hs_lease *lease, const char *text)
{
    struct hs_op op = op_in(10 * SECOND);

    ASSERT_OK(
        DONE(hs_conn_send_all(lease->conn, &op, (const uint8_t *)text, strlen(text), fresh())));
}

static void
hear(const struct hs_lease *lease, size_t n)
{
    struct hs_op op = op_in(10 * SECOND);
    uint8_t buf[64];

    ASSERT_OK(DONE(hs_conn_recv_exactly(lease->conn, &op, buf, n, fresh())));
}

START_TEST(bytes_not_marked_clean_are_never_left_to_the_next)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p;
    struct hs_lease lease;
    int peer;

    o.reuse = HS_REUSE_MARKED;
    p = pool_of(&s, &o);
    lease = take(p);
    peer = server_accept(&s);
    say(&lease, "ask");
    put(peer, "answer", 6);
    hear(&lease, 6);
    hs_lease_mark_clean(&lease);
    ck_assert_int_eq(give(p, &lease), HS_POOL_NONE);
    lease = take(p);
    say(&lease, "ask");
    put(peer, "answer", 6);
    hear(&lease, 6);
    ck_assert_int_eq(give(p, &lease), HS_POOL_DIRTY);
    (void)close(peer);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(answered_is_enough_if_that_is_wanted)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    int peer = server_accept(&s);

    say(&lease, "ask");
    put(peer, "answer", 6);
    hear(&lease, 6);
    ck_assert_int_eq(give(p, &lease), HS_POOL_NONE);
    lease = take(p);
    say(&lease, "ask");
    ck_assert_int_eq(give(p, &lease), HS_POOL_DIRTY); /* without an answer */
    (void)close(peer);

    lease = take(p);
    peer = server_accept(&s);
    say(&lease, "ask");
    put(peer, "answer", 6);
    hear(&lease, 6);
    ck_assert_int_eq(give_as(p, &lease, HS_RETURN_FAILED), HS_POOL_DIRTY);
    (void)close(peer);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* How the peer's stream ends, after all that was said to it. */
static int
end_at(int peer, const char *said)
{
    char bytes[16];
    ssize_t n;

    get(peer, bytes, strlen(said));
    ck_assert_int_eq(memcmp(bytes, said, strlen(said)), 0);
    n = recv(peer, bytes, sizeof(bytes), 0);
    ck_assert_int_le(n, 0);
    return n == 0 ? 0 : errno;
}

static void
time_out(const struct hs_lease *lease, size_t wanted)
{
    struct hs_op op = HS_OP_INIT(hs_deadline_after(MS), NULL);
    uint8_t bytes[8];

    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_recv_exactly(lease->conn, &op, bytes, wanted, fresh())));
    hs_conn_abandon(lease->conn, &op, bytes);
}

static const struct {
    const char *title;
    enum hs_return how;
    bool fails, clean;
    int want_end;
} given_back[] = {
    {"without an answer", HS_RETURN_FAILED, true, false, ECONNRESET},
    {"the same, and nobody says so", HS_RETURN_DONE, true, false, 0},
    {"discarded in order", HS_RETURN_DISCARD, false, true, 0},
};

/* In FIN_WAIT_2 it would keep its port for as long as the peer is stuck. */
START_TEST(exchange_that_failed_ends_by_a_reset_and_no_other)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    int peer = server_accept(&s);

    say(&lease, "ask");
    if (given_back[_i].fails)
        time_out(&lease, 1);
    if (given_back[_i].clean)
        hs_lease_mark_clean(&lease);
    EVENTUALLY(hs_conn_is_settled(lease.conn)); /* An acknowledgement may be late. */
    ck_assert_int_ne(give_as(p, &lease, given_back[_i].how), HS_POOL_NONE);
    ck_assert_int_eq(end_at(peer, "ask"), given_back[_i].want_end);
    (void)close(peer);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(half_of_an_answer_is_the_end_by_a_reset)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct hs_framing line = {.kind = HS_FRAMING_LINE, .max_size = 2};
    struct hs_op op = op_in(10 * SECOND);
    int peer = server_accept(&s);

    say(&lease, "ask");
    put(peer, "far too long\n", 13);
    ASSERT_ERR(HS_E_FRAME_TOO_LARGE, DONE(hs_conn_recv_frames(lease.conn, &op, &line, fresh())));
    hs_conn_abandon(lease.conn, &op, NULL);
    ck_assert_int_eq(give(p, &lease), HS_POOL_BROKEN);
    ck_assert_int_eq(end_at(peer, "ask"), ECONNRESET);
    (void)close(peer);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(half_read_connection_is_not_lent_again)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct hs_op op = op_in(10 * SECOND);
    const struct hs_framing line = {.kind = HS_FRAMING_LINE, .max_size = 99};
    const uint8_t *data;
    size_t len;
    int peer = server_accept(&s);

    put(peer, "one\ntwo\n", 8);
    ASSERT_OK(DONE(hs_conn_recv_frames(lease.conn, &op, &line, fresh())));
    ck_assert(hs_conn_frame(lease.conn, &line, &data, &len));
    hs_conn_frame_taken(lease.conn);
    hs_conn_frames_end(lease.conn, &op);
    hs_lease_mark_clean(&lease); /* As if; the second line is still there. */
    ck_assert_int_eq(give(p, &lease), HS_POOL_HALF_READ);
    (void)close(peer);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(connection_in_use_or_broken_is_not_lent_again)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct hs_op op = op_step(10 * SECOND);
    struct hs_conn *c = hs_conn_ref(lease.conn);
    uint8_t byte;
    size_t n;

    ASSERT_ERR(HS_WANT, hs_conn_recv(c, &op, &byte, 1, 0, fresh(), &n));
    ck_assert_int_eq(give(p, &lease), HS_POOL_BUSY);
    ck_assert(hs_conn_is_closed(c)); /* So that the call which is still there ends. */
    hs_conn_abandon(c, &op, NULL);
    hs_conn_unref(c);

    lease = take(p);
    hs_conn_close(lease.conn, false);
    ck_assert_int_eq(give(p, &lease), HS_POOL_BROKEN);
    lease = take(p);
    ASSERT_OK(hs_conn_shutdown(lease.conn, SHUT_WR, fresh()));
    ck_assert_int_eq(give(p, &lease), HS_POOL_BROKEN);
    lease = take(p);
    hs_conn_share(lease.conn); /* A file made of it. */
    c = hs_conn_ref(lease.conn);
    ck_assert_int_eq(give(p, &lease), HS_POOL_BUSY);
    ck_assert(hs_conn_is_closed(c));
    hs_conn_unref(c);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(what_one_borrower_wished_does_not_bind_the_next)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);

    hs_conn_set_deadline(lease.conn, HS_DIR_IN, 1);
    hs_conn_set_deadline(lease.conn, HS_DIR_OUT, 1);
    ck_assert_int_eq(give(p, &lease), HS_POOL_NONE);
    lease = take(p);
    ck_assert_int_eq(hs_conn_get_deadline(lease.conn, HS_DIR_IN), HS_NEVER);
    ck_assert_int_eq(hs_conn_get_deadline(lease.conn, HS_DIR_OUT), HS_NEVER);
    (void)give(p, &lease);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(retry_is_safe_while_a_reused_connection_sent_nothing)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct hs_lease_info info;

    hs_lease_info(&lease, &info);
    ck_assert(info.clean && !info.reused && !info.retry_is_safe);
    (void)give(p, &lease);
    lease = take(p);
    hs_lease_info(&lease, &info);
    ck_assert(info.clean && info.reused && info.retry_is_safe);
    say(&lease, "x");
    hs_lease_info(&lease, &info);
    ck_assert(!info.clean && !info.retry_is_safe);
    ck_assert_uint_eq(info.bytes_sent, 1);
    (void)give_as(p, &lease, HS_RETURN_DISCARD);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(lease_thrown_away_is_closed_and_its_place_is_free_again)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct caller c = {0};

    caller_start_waiting(&c, p, 10 * SECOND);
    hs_pool_lose(&lease);
    ck_assert_uint_eq(lease.id, 0);
    ASSERT_OK(caller_join(&c));
    ck_assert_uint_eq(c.lease.times_lent, 1); /* Another one. */
    ck_assert_uint_eq(stats_of(p).closed_by_reason[HS_POOL_LOST], 1);
    (void)give(p, &c.lease);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* ---- Those who look ------------------------------------------------------------------------ */

static atomic_bool looked_enough;

static void *
look_at_labels(void *arg)
{
    struct hs_pool *pools[8];
    struct hs_pool_label label;

    while (!atomic_load(&looked_enough)) {
        size_t n = hs_pools(pools, LENGTH(pools));

        for (size_t i = 0; i < n && i < LENGTH(pools); i++) {
            hs_pool_label(pools[i], &label);
            ck_assert_str_eq(label.name, "orders");
            ck_assert_ptr_eq(label.site, arg);
            ck_assert_uint_eq(label.thread, 42);
            hs_pool_unref(pools[i]);
        }
    }
    return NULL;
}

START_TEST(pool_has_its_name_from_when_it_can_be_found)
{
    struct hs_pool_opening origin = {
        .site = hs_call_site_intern("orders.py", "start", 7), .thread = 42, .name = "orders"};
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct thread looker;

    atomic_store(&looked_enough, false);
    thread_start(&looker, look_at_labels, origin.site);
    for (int i = 0; i < 1000; i++) {
        struct hs_pool *p;

        ASSERT_OK(hs_pool_new_at(&s.ep, 1, &o, &origin, fresh(), &p));
        pool_end(p);
    }
    atomic_store(&looked_enough, true);
    (void)thread_join(&looker);
    server_free(&s);
}
END_TEST

/* Those of that name: what the living ones have opened and what the ended ones had. */
static uint64_t
opened_ever(const char *name, bool *ret_lives)
{
    static struct hs_pool_ended ended[HS_POOLS_ENDED_MAX];
    struct hs_pool *pools[32];
    struct hs_pool_label label;
    uint64_t sum = 0;
    size_t n_ended, n = hs_pools_ever(pools, LENGTH(pools), ended, &n_ended);

    ck_assert_uint_le(n, LENGTH(pools));
    ck_assert_uint_le(n_ended, HS_POOLS_ENDED_MAX);
    *ret_lives = false;
    for (size_t i = 0; i < n; i++) {
        hs_pool_label(pools[i], &label);
        if (strcmp(label.name, name) == 0) {
            *ret_lives = true;
            sum += stats_of(pools[i]).opened;
        }
        hs_pool_unref(pools[i]);
    }
    for (size_t i = 0; i < n_ended; i++)
        if (strcmp(ended[i].name, name) == 0)
            sum += ended[i].opened;
    return sum;
}

static struct hs_pool *
pool_named(const struct server *s, const char *name, bool named)
{
    struct hs_pool_opening origin = {.site = hs_call_site_unknown(), .name = name, .named = named};
    struct hs_pool_options o = options(1);
    struct hs_pool *p;

    ASSERT_OK(hs_pool_new_at(&s->ep, 1, &o, &origin, fresh(), &p));
    return p;
}

/* The worker lets go of a closed pool when it comes by. Returns how many names have ended. */
static size_t
until_pools_are_left(size_t n)
{
    static struct hs_pool_ended ended[HS_POOLS_ENDED_MAX];
    size_t n_ended;

    while (hs_pools_ever(NULL, 0, ended, &n_ended) != n)
        (void)sched_yield();
    return n_ended;
}

/* A pool that has lent once, and its end; so many others are there. */
static void
use_once(struct server *s, const char *name, bool named, size_t others)
{
    struct hs_pool *p = pool_named(s, name, named);
    struct hs_lease lease = take(p);
    int fd = server_accept(s);

    (void)give(p, &lease);
    pool_end(p);
    (void)until_pools_are_left(others);
    (void)close(fd);
}

START_TEST(what_a_pool_has_counted_outlives_it_and_is_counted_once)
{
    static struct hs_pool_ended ended[HS_POOLS_ENDED_MAX];
    struct server s = server_new();
    struct hs_pool *p = pool_named(&s, "brief", true);
    struct hs_lease lease = take(p);
    struct hs_pool *found[4];
    size_t n_ended;
    bool lives;

    ck_assert_uint_eq(opened_ever("brief", &lives), 1);
    ck_assert(lives);
    hs_pool_close(
        p); /* The worker has nothing more to do with it; what is lent comes back later. */
    (void)give(p, &lease);
    ck_assert_uint_eq(opened_ever("brief", &lives), 1);
    ck_assert(lives);
    pool_end(p);
    (void)until_pools_are_left(0);
    ck_assert_uint_eq(opened_ever("brief", &lives), 1);
    ck_assert(!lives);
    ck_assert_uint_eq(hs_pools_ever(found, LENGTH(found), ended, &n_ended), 0);
    for (size_t i = 0; i < n_ended; i++)
        if (strcmp(ended[i].name, "brief") == 0) {
            ck_assert(ended[i].named);
            ck_assert_uint_eq(ended[i].returned, 1);
            ck_assert_uint_eq(ended[i].connected, 1);
            ck_assert_uint_eq(ended[i].usage.count, 1);
            ck_assert_uint_eq(ended[i].dial.count, 1);
            ck_assert_uint_eq(ended[i].wait.count, 1);
        }
    server_free(&s);
}
END_TEST

START_TEST(pools_of_any_number_of_names_are_counted_in_bounded_rows)
{
    struct server s = server_new();
    struct hs_pool *stays = pool_named(&s, "stays", true); /* And with it the worker. */
    size_t n = 0;
    bool lives;

    pool_end(pool_named(&s, "never used", true)); /* It takes no row. */
    ck_assert_uint_eq(until_pools_are_left(1), 2);
    for (int i = 0; i < 100; i++) { /* Those called after their addresses leave room. */
        char name[32];

        (void)snprintf(name, sizeof(name), "10.0.0.%d:80", i);
        use_once(&s, name, false, 1);
    }
    ck_assert_uint_eq(until_pools_are_left(1), 64);
    for (int i = 0; i < HS_POOLS_ENDED_MAX; i++) {
        char name[32];

        (void)snprintf(name, sizeof(name), "tenant %d", i);
        use_once(&s, name, true, 1);
    }
    n = until_pools_are_left(1);
    ck_assert_uint_eq(n, HS_POOLS_ENDED_MAX);
    ck_assert_uint_eq(opened_ever("other", &lives), 38 + 64); /* the unnamed, and tenants */
    use_once(&s, "orders", true, 1);
    use_once(&s, "stocks", false, 1);
    use_once(&s, "tenant 0", true, 1);
    pool_end(stays);
    ck_assert_uint_eq(opened_ever("orders", &lives), 0);
    ck_assert_uint_eq(opened_ever("other", &lives), 38 + 64 + 2);
    ck_assert_uint_eq(opened_ever("tenant 0", &lives), 2);
    server_free(&s);
}
END_TEST

static void *
look_at_sums(void *arg)
{
    uint64_t was = 0, now;
    bool lives;

    (void)arg;
    while (!atomic_load(&looked_enough)) {
        now = opened_ever("orders", &lives);
        ck_assert_uint_ge(now, was);
        was = now;
    }
    return NULL;
}

/* Each is in one of the two lists, at every moment: of its life, and of its end. */
START_TEST(sum_of_what_pools_count_never_goes_down)
{
    struct server s = server_new();
    struct hs_pool *stays = pool_named(&s, "stays", true);
    struct thread looker;
    bool lives;

    atomic_store(&looked_enough, false);
    thread_start(&looker, look_at_sums, NULL);
    for (int i = 0; i < 100; i++)
        use_once(&s, "orders", true, 1);
    atomic_store(&looked_enough, true);
    (void)thread_join(&looker);
    ck_assert_uint_eq(opened_ever("orders", &lives), 100);
    pool_end(stays);
    server_free(&s);
}
END_TEST

START_TEST(a_childs_closed_pool_has_counted_nothing_and_can_be_looked_at)
{
    struct server s = server_new();
    struct hs_pool *stays = pool_named(&s, "stays", true), *p = pool_named(&s, "closed", true);
    struct hs_lease lease = take(p);
    int status;
    pid_t pid;
    bool lives;

    use_once(&s, "before", true, 2);
    (void)give(p, &lease);
    hs_pool_close(p);
    while (hs_pools(NULL, 0) != 1) /* Until the worker is done with it. */
        (void)sched_yield();
    ck_assert_int_ge(pid = fork(), 0);
    if (pid == 0)
        _exit(opened_ever("closed", &lives) == 0 && lives && opened_ever("before", &lives) == 0
                  ? 0
                  : 1);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert_uint_eq(opened_ever("closed", &lives), 1);
    pool_end(p);
    pool_end(stays);
    server_free(&s);
}
END_TEST

START_TEST(children_of_a_fork_draw_their_own_jitter)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    uint64_t drawn[2];
    int ends[2], status;

    ck_assert_int_eq(pipe(ends), 0);
    for (int i = 0; i < 2; i++) {
        pid_t pid = fork();

        ck_assert_int_ge(pid, 0);
        if (pid == 0)
            _exit(write(ends[1], &p->random, sizeof(p->random)) != (ssize_t)sizeof(p->random));
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_int_eq(status, 0);
        ck_assert_int_eq(read(ends[0], &drawn[i], sizeof(drawn[i])), sizeof(drawn[i]));
        ck_assert(drawn[i] != p->random);
    }
    ck_assert(drawn[0] != drawn[1]);
    (void)close(ends[0]);
    (void)close(ends[1]);
    pool_end(p);
    server_free(&s);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("pool");

    tcase_add_test(tc, children_of_a_fork_draw_their_own_jitter);

    tcase_add_test(tc, what_a_pool_has_counted_outlives_it_and_is_counted_once);
    tcase_add_test(tc, pools_of_any_number_of_names_are_counted_in_bounded_rows);
    tcase_add_test(tc, sum_of_what_pools_count_never_goes_down);
    tcase_add_test(tc, a_childs_closed_pool_has_counted_nothing_and_can_be_looked_at);

    tcase_add_test(tc, a_guard_ends_what_is_idle_and_nothing_else);
    tcase_add_test(tc, pool_lends_what_came_back);
    tcase_add_test(tc, pool_lends_the_latest_first_or_the_oldest);
    tcase_add_test(tc, pool_never_opens_more_than_max_size);
    tcase_add_test(tc, waiters_are_served_in_the_order_of_arrival);
    tcase_add_test(tc, newcomer_does_not_pass_a_waiter);
    tcase_add_test(tc, waiter_that_leaves_is_out_of_the_queue_at_once);
    tcase_add_test(tc, waiter_out_of_time_is_passed_over);
    tcase_add_test(tc, cancel_wins_over_a_connection_that_came_and_passes_it_on);
    tcase_add_test(tc, abandoned_request_passes_on_what_it_was_given);
    tcase_add_test(tc, cancel_from_another_thread_ends_the_wait);
    tcase_add_test(tc, ended_token_gets_nothing_though_something_is_idle);
    tcase_add_test(tc, event_loop_is_rung_when_its_waiter_is_served);
    tcase_add_test(tc, waiting_for_oneself_is_refused_at_once);
    tcase_add_test(tc, second_return_is_refused);
    tcase_add_test(tc, call_under_an_ended_lease_touches_nothing_of_the_next_borrowers);
    tcase_add_test(tc, call_that_names_a_lease_of_no_pool_is_refused);
    tcase_add_test(tc, call_under_the_parents_lease_is_told_of_the_fork);
    tcase_add_test(tc, lease_does_not_end_between_a_calls_look_and_its_claim);
    tcase_add_test(tc, return_to_another_pool_is_refused);
    tcase_add_test(tc, bytes_not_marked_clean_are_never_left_to_the_next);
    tcase_add_test(tc, answered_is_enough_if_that_is_wanted);
    tcase_add_loop_test(tc, exchange_that_failed_ends_by_a_reset_and_no_other, 0,
                        LENGTH(given_back));
    tcase_add_test(tc, half_of_an_answer_is_the_end_by_a_reset);
    tcase_add_test(tc, half_read_connection_is_not_lent_again);
    tcase_add_test(tc, connection_in_use_or_broken_is_not_lent_again);
    tcase_add_test(tc, what_one_borrower_wished_does_not_bind_the_next);
    tcase_add_test(tc, retry_is_safe_while_a_reused_connection_sent_nothing);
    tcase_add_test(tc, lease_thrown_away_is_closed_and_its_place_is_free_again);
    tcase_add_test(tc, pool_has_its_name_from_when_it_can_be_found);
    return run_case(tc);
}
