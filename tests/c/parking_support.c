/* parking_support.c: see parking_support.h.
 *
 * Each of these asserts: a test that goes on has got what it asked for.
 */
#include "parking_support.h"

int parking_mark;

struct hs_parking *
parking(void)
{
    struct hs_parking *p;

    ASSERT_OK(hs_parking_new(fresh(), &p));
    return p;
}

enum hs_parking_answer
ask(struct hs_parking *p, struct hs_conn *c, int64_t span, bool newcomer)
{
    enum hs_parking_answer answer;

    ASSERT_OK(hs_parking_park(p, c, &parking_mark, span, newcomer, fresh(), &answer));
    return answer;
}

void
park(struct hs_parking *p, struct hs_conn *c, int64_t span)
{
    ck_assert_int_eq(ask(p, c, span, false), HS_PARKING_TAKEN);
}

struct hs_parked_conn
next(struct hs_parking *p)
{
    struct hs_parked_conn got;

    ASSERT_OK(DONE(hs_parking_next(p, fresh(), &got)));
    ck_assert_ptr_eq(got.arg, &parking_mark);
    return got;
}

void
expect(struct hs_parking *p, const struct hs_conn *c, enum hs_parked_news news)
{
    struct hs_parked_conn got = next(p);

    ck_assert_ptr_eq(got.conn, c);
    ck_assert_int_eq(got.news, news);
    hs_conn_unref(got.conn);
}

void
expect_ended(struct hs_parking *p, struct hs_conn *c, enum hs_ending ending)
{
    struct hs_parked_conn got = next(p);

    ck_assert_ptr_eq(got.conn, c);
    ck_assert_int_eq(got.news, HS_PARKED_ENDED);
    ck_assert(!got.closed_here);
    ck_assert_int_eq(got.ending, ending);
    ck_assert(hs_conn_is_closed(c));
    hs_conn_unref(got.conn);
}

size_t
parked(struct hs_parking *p)
{
    size_t n, due;

    hs_parking_counts(p, &n, &due);
    return n;
}

size_t
due(struct hs_parking *p)
{
    size_t n, waiting;

    hs_parking_counts(p, &waiting, &n);
    return n;
}

void
recv_exactly(struct hs_conn *c, size_t n)
{
    struct hs_op op = op_in(10 * SECOND);
    uint8_t bytes[64];

    ASSERT_OK(DONE(hs_conn_recv_exactly(c, &op, bytes, n, fresh())));
}

void
peek_at(struct hs_conn *c, size_t n)
{
    struct hs_op op = op_in(10 * SECOND);

    ASSERT_OK(DONE(hs_conn_peek(c, &op, n, fresh())));
    hs_conn_frames_end(c, &op);
}
