/* Parked connections against a model: any order of acts of both ends and of a drain.
 *
 * What is believed of each is computed beside it, and compared with the news after every act.
 */
#include "parking_support.h"

#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNS 5
#define ACTS 500

/* What is believed of one connection. Unix sockets: what a peer does is here when its call is over.
 */
struct belief {
    struct pair pair;
    enum { OWNED, PARKED, LINGERING, OVER } state;
    bool peer_ended, closed_here;
    bool late, stays, more; /* as it was parked */
    bool given, rest;
    int unread, buffered; /* bytes in the kernel, and in the buffer */
    int read, read_when_given, buffered_when_given;
};

struct model {
    struct hs_parking *p;
    struct belief conns[CONNS];
    bool draining;
    uint64_t random;
};

static unsigned
pick(struct model *m, unsigned n)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return (unsigned)((m->random >> 11) % n);
}

/* HS_PARKED_FINISHED for what lingers; -1: no news. */
static int
expected_news(const struct model *m, const struct belief *b)
{
    if (b->state == LINGERING)
        return b->peer_ended || b->closed_here || b->late ? HS_PARKED_FINISHED : -1;
    if (b->state != PARKED)
        return -1;
    if (b->closed_here)
        return HS_PARKED_ENDED;
    if (b->unread > 0 || (b->buffered > 0 && !b->more))
        return HS_PARKED_MESSAGE;
    if (b->peer_ended)
        return HS_PARKED_ENDED;
    if (m->draining && !b->stays)
        return HS_PARKED_QUIET;
    return b->late ? HS_PARKED_EXPIRED : -1;
}

static enum hs_parking_answer
expected_answer(const struct model *m, const struct belief *b, bool newcomer)
{
    bool more = b->given && b->read == b->read_when_given;

    if (b->closed_here)
        return HS_PARKING_CLOSED;
    if (more && b->buffered == b->buffered_when_given && !b->rest)
        return HS_PARKING_UNREAD;
    if (m->draining && !newcomer && !more && b->unread == 0 && b->buffered == 0 && !b->peer_ended)
        return HS_PARKING_QUIET;
    return HS_PARKING_TAKEN;
}

static struct belief *
belief_of(struct model *m, const struct hs_conn *c)
{
    for (int i = 0; i < CONNS; i++)
        if (m->conns[i].pair.c == c)
            return &m->conns[i];
    ck_abort_msg("a connection that nobody has parked");
}

/* Right as it is believed, in every part; then it is the model's again. */
static void
check_news(struct model *m, const struct hs_parked_conn *got)
{
    struct belief *b = belief_of(m, got->conn);
    bool over = got->news == HS_PARKED_ENDED || got->news == HS_PARKED_FINISHED;

    ck_assert_int_eq(got->news, expected_news(m, b));
    ck_assert_ptr_eq(got->arg, b);
    if (over) {
        enum hs_ending ending =
            got->news == HS_PARKED_ENDED && b->buffered > 0 ? HS_ENDING_TRUNCATED : HS_ENDING_CLEAN;

        ck_assert_int_eq(got->closed_here, b->closed_here);
        if (!b->closed_here && b->peer_ended)
            ck_assert_int_eq(got->ending, ending);
        else if (!b->closed_here)
            ck_assert_int_eq(got->ending, HS_ENDING_DEADLINE);
        ck_assert(hs_conn_is_closed(got->conn));
    }
    if (got->news == HS_PARKED_MESSAGE) {
        b->given = true;
        b->rest = b->buffered > 0 && !b->more;
        b->read_when_given = b->read;
        b->buffered_when_given = b->buffered;
    }
    b->state = over ? OVER : OWNED;
    b->late = false;
    hs_conn_unref(got->conn);
}

static void
do_park(struct model *m, struct belief *b)
{
    bool newcomer = pick(m, 4) == 0;
    enum hs_parking_answer want = expected_answer(m, b, newcomer), got;
    int64_t span = pick(m, 3) == 0 ? 0 : HS_NEVER;

    ASSERT_OK(hs_parking_park(m->p, b->pair.c, b, span, newcomer, fresh(), &got));
    ck_assert_int_eq(got, want);
    if (got == HS_PARKING_TAKEN) {
        b->more = b->given && b->read == b->read_when_given;
        b->stays = newcomer || b->more;
        b->late = span == 0;
        b->state = PARKED;
    }
}

static void
do_linger(struct model *m, struct belief *b)
{
    int64_t span = pick(m, 2) == 0 ? MS : HS_NEVER;
    struct hs_close_report report;
    hs_err rv = hs_parking_linger(m->p, b->pair.c, b, span, fresh(), &report);

    if (b->closed_here) {
        ASSERT_ERR(HS_E_CLOSED, rv);
        b->state = OVER;
    } else if (rv == HS_OK && span == MS && report.ending == HS_ENDING_DEADLINE) {
        b->state = OVER; /* A slow machine: its time was up before the look. */
    } else if (b->peer_ended) {
        ASSERT_OK(rv);
        ck_assert_int_eq(report.ending, HS_ENDING_CLEAN);
        b->state = OVER;
    } else {
        ASSERT_ERR(HS_WANT, rv);
        b->late = span == MS;
        b->state = LINGERING;
    }
    b->unread = 0;
}

static void
act_on_own(struct model *m, struct belief *b)
{
    unsigned what = pick(m, 10);

    if (what == 0) {
        do_linger(m, b);
    } else if (what <= 2 && b->buffered + b->unread > 0 && !b->closed_here) {
        int all = b->buffered + b->unread;

        peek_at(b->pair.c, (size_t)all);
        b->buffered = all;
        b->unread = 0;
    } else if (what <= 5 && b->buffered > 0 && !b->closed_here) {
        recv_exactly(b->pair.c, 1);
        b->buffered--;
        b->read++;
    } else {
        do_park(m, b);
    }
}

static void
act_as_peer(struct model *m, struct belief *b)
{
    if (b->peer_ended || b->closed_here || b->state == OVER || b->state == LINGERING)
        return;
    if (pick(m, 12) == 0) {
        ck_assert_int_eq(shutdown(b->pair.peer, SHUT_WR), 0);
        b->peer_ended = true;
    } else if (b->unread + b->buffered < 4) {
        put(b->pair.peer, "x", 1);
        b->unread++;
    }
}

static int
news_due(const struct model *m)
{
    int n = 0;

    for (int i = 0; i < CONNS; i++)
        n += expected_news(m, &m->conns[i]) >= 0;
    return n;
}

/* All news that there are, and no more, by either way. */
static void
collect(struct model *m, bool tend)
{
    struct hs_parked_conn got[CONNS];

    if (tend)
        for (size_t i = 0, n = hs_parking_tend(m->p, CONNS, got); i < n; i++) {
            ck_assert_int_ne(got[i].news, HS_PARKED_MESSAGE);
            check_news(m, &got[i]);
        }
    else if (news_due(m) > 0) {
        ASSERT_OK(DONE(hs_parking_next(m->p, fresh(), got)));
        check_news(m, got);
    }
}

static void
act(struct model *m)
{
    struct belief *b = &m->conns[pick(m, CONNS)];

    switch (pick(m, 8)) {
    case 0:
        collect(m, true);
        break;
    case 1:
        collect(m, false);
        break;
    case 2:
        if (pick(m, 60) == 0) {
            hs_parking_drain(m->p);
            m->draining = true;
        } else if (pick(m, 30) == 0 && b->state != OVER) {
            hs_conn_close(b->pair.c, false);
            b->closed_here = true;
        }
        break;
    case 3:
    case 4:
        act_as_peer(m, b);
        break;
    default:
        if (b->state == OWNED)
            act_on_own(m, b);
    }
}

START_TEST(any_order_of_acts_keeps_the_promises)
{
    struct model m = {.random = ((uint64_t)_i + 1) * UINT64_C(0x9e3779b97f4a7c15)};
    struct hs_conn *left;
    void *arg;
    bool quiet;

    m.p = parking();
    for (int i = 0; i < CONNS; i++)
        m.conns[i].pair = pair_unix();
    for (int i = 0; i < ACTS; i++)
        act(&m);
    while (news_due(&m) > 0)
        collect(&m, false);
    for (int i = 0; i < CONNS; i++)
        if (m.conns[i].state == PARKED || m.conns[i].state == LINGERING) {
            ck_assert(hs_parking_take(m.p, &left, &arg, &quiet));
            hs_conn_unref(left);
        }
    ck_assert(!hs_parking_take(m.p, &left, &arg, &quiet));
    for (int i = 0; i < CONNS; i++)
        pair_free(&m.conns[i].pair);
    hs_parking_unref(m.p);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("parking_model");

    tls_world();
    (void)signal(SIGPIPE, SIG_IGN); /* Peers write to what was closed. */
    tcase_add_loop_test(tc, any_order_of_acts_keeps_the_promises, 0, 150);
    return run_case(tc);
}
