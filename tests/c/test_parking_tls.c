/* Parked connections with TLS: what of a message may be where, and how TLS ends.
 *
 * Readiness of the descriptor tells nothing of what OpenSSL holds already.
 */
#include "parking_support.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const int versions[] = {HS_TLS_1_2, HS_TLS_1_3};

/* A record that comes in pieces wakes nobody before it is whole. */
START_TEST(a_message_over_tls_is_given_when_its_record_is_whole)
{
    struct hs_parking *p = parking();
    struct hs_parked_conn got;
    struct pump pump;
    struct tls_pair t = pumped_pair(&pump, versions[_i]);
    struct hs_op op = op_in(10 * SECOND);
    int pieces = 0; /* that were no news */

    park(p, t.server, HS_NEVER);
    ASSERT_OK(DONE(hs_conn_send_all(t.client, &op, (const uint8_t *)"hello", 5, fresh())));
    while (pump_move(&pump, 0, 3) == 3) {
        ck_assert_uint_eq(hs_parking_tend(p, 1, &got), 0);
        pieces += due(p) == 0 ? 1 : 0;
    }
    ck_assert_int_gt(pieces, 5);
    expect(p, t.server, HS_PARKED_MESSAGE);
    recv_exactly(t.server, 5);
    tls_pair_free(&t);
    pump_free(&pump);
    hs_parking_unref(p);
}
END_TEST

/* One that sends a record byte by byte is parked again at each, and is no younger for it. */
START_TEST(one_that_drips_half_a_record_is_evicted_before_a_younger_one)
{
    struct hs_parking *p = parking();
    struct hs_parked_conn got;
    struct pump pump;
    struct tls_pair t = pumped_pair(&pump, versions[_i]);
    struct pair young = pair_unix();
    struct hs_op op = op_in(10 * SECOND);
    struct hs_conn *conn;
    void *arg;

    park(p, t.server, HS_NEVER);
    park(p, young.c, HS_NEVER);
    ASSERT_OK(DONE(hs_conn_send_all(t.client, &op, (const uint8_t *)"hello", 5, fresh())));
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_eq(pump_move(&pump, 0, 3), 3);
        EVENTUALLY(hs_parking_tend(p, 1, &got) == 0 && due(p) == 0 && parked(p) == 2);
    }
    ck_assert(hs_parking_evict(p, 0, &conn, &arg));
    ck_assert_ptr_eq(conn, t.server);
    hs_conn_unref(conn);
    ck_assert(hs_parking_evict(p, 0, &conn, &arg));
    ck_assert_ptr_eq(conn, young.c);
    hs_conn_unref(conn);
    pair_free(&young);
    tls_pair_free(&t);
    pump_free(&pump);
    hs_parking_unref(p);
}
END_TEST

START_TEST(what_tls_holds_of_the_next_message_is_given_at_once)
{
    struct hs_parking *p = parking();
    struct tls_pair t = default_pair(true, versions[_i]);
    struct hs_op op = op_in(10 * SECOND);

    park(p, t.server, HS_NEVER);
    ASSERT_OK(DONE(hs_conn_send_all(t.client, &op, (const uint8_t *)"onetwo", 6, fresh())));
    expect(p, t.server, HS_PARKED_MESSAGE);
    recv_exactly(t.server, 3);
    park(p, t.server, HS_NEVER);
    expect(p, t.server, HS_PARKED_MESSAGE);
    recv_exactly(t.server, 3);
    park(p, t.server, MS);
    expect(p, t.server, HS_PARKED_EXPIRED);
    tls_pair_free(&t);
    hs_parking_unref(p);
}
END_TEST

/* They come in one read of the socket, which then has nothing more to tell of. */
START_TEST(what_was_looked_at_hides_nothing_that_tls_holds)
{
    static const size_t sizes[] = {100, 16300, 200};
    struct hs_parking *p = parking();
    struct pump pump;
    struct tls_pair t = pumped_pair(&pump, versions[_i]);
    struct hs_parked_conn got;
    uint8_t bytes[16300] = {0};

    for (size_t i = 0; i < LENGTH(sizes); i++) {
        struct hs_op op = op_in(10 * SECOND);

        ASSERT_OK(DONE(hs_conn_send_all(t.client, &op, bytes, sizes[i], fresh())));
    }
    while (pump_move(&pump, 0, SIZE_MAX) > 0)
        ;
    park(p, t.server, HS_NEVER);
    expect(p, t.server, HS_PARKED_MESSAGE);
    peek_at(t.server, 4);
    park(p, t.server, HS_NEVER);
    ck_assert_uint_eq(hs_parking_tend(p, 1, &got), 0);
    ck_assert_uint_eq(due(p), 1);
    expect(p, t.server, HS_PARKED_MESSAGE);
    tls_pair_free(&t);
    pump_free(&pump);
    hs_parking_unref(p);
}
END_TEST

START_TEST(an_orderly_end_of_tls_is_told_from_a_cut)
{
    struct hs_parking *p = parking();
    struct tls_pair t = default_pair(true, versions[_i]), cut = default_pair(true, versions[_i]);

    park(p, t.server, HS_NEVER);
    hs_conn_close(t.client, false);
    expect_ended(p, t.server, HS_ENDING_CLEAN);
    park(p, cut.server, HS_NEVER);
    ck_assert_int_eq(shutdown(hs_conn_fileno(cut.client), SHUT_WR), 0); /* below TLS */
    expect_ended(p, cut.server, HS_ENDING_TRUNCATED);
    tls_pair_free(&t);
    tls_pair_free(&cut);
    hs_parking_unref(p);
}
END_TEST

START_TEST(a_linger_that_fails_is_not_told_as_closed_here)
{
    struct hs_parking *p = parking();
    struct tls_pair t = default_pair(true, versions[_i]);
    struct hs_close_report report;
    struct hs_parked_conn got;

    ASSERT_ERR(HS_WANT,
               hs_parking_linger(p, t.server, &parking_mark, 100 * SECOND, fresh(), &report));
    put(hs_conn_fileno(t.client), "this is no record", 17);
    got = next(p);
    ck_assert_int_eq(got.news, HS_PARKED_FINISHED);
    ck_assert(!got.closed_here && hs_conn_is_closed(got.conn));
    ck_assert_int_eq(got.ending, HS_ENDING_TRUNCATED);
    hs_conn_unref(got.conn);
    tls_pair_free(&t);
    hs_parking_unref(p);
}
END_TEST

/* A peer that talks for ever without saying anything holds up nobody, and is no end. */
START_TEST(a_flood_of_key_updates_is_taken_in_slices_while_parked)
{
    struct hs_parking *p = parking();
    struct hs_parked_conn got;
    struct pair other = pair_tcp();
    struct shaking s;
    SSL_CTX *ctx;
    SSL *raw = raw_client_of(&s, &ctx, HS_TLS_1_3);
    int slices = 0;

    for (size_t sent = 0; sent < 20000; sent++) {
        ck_assert_int_eq(SSL_key_update(raw, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        if (SSL_do_handshake(raw) != 1)
            break;
    }
    park(p, s.c, _i == 0 ? HS_NEVER : 0);
    if (_i != 0) {
        expect(p, s.c, HS_PARKED_EXPIRED);
    } else {
        park(p, other.c, HS_NEVER);
        put(other.peer, "x", 1);
        expect(p, other.c, HS_PARKED_MESSAGE);
        do {
            ck_assert_uint_eq(hs_parking_tend(p, 1, &got), 0);
            slices++;
        } while (due(p) > 0);
        ck_assert_int_ge(slices, 2);
        ck_assert(SSL_want(raw) == SSL_NOTHING || SSL_do_handshake(raw) == 1);
        raw_write(raw, "data", 4);
        expect(p, s.c, HS_PARKED_MESSAGE);
        recv_exactly(s.c, 4);
    }
    pair_free(&other);
    raw_client_free(&s, raw, ctx);
    hs_parking_unref(p);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("parking_tls");

    tls_world();
    (void)signal(SIGPIPE, SIG_IGN); /* Peers write to what was closed. */
    tcase_add_loop_test(tc, a_message_over_tls_is_given_when_its_record_is_whole, 0, 2);
    tcase_add_loop_test(tc, one_that_drips_half_a_record_is_evicted_before_a_younger_one, 0, 2);
    tcase_add_loop_test(tc, what_tls_holds_of_the_next_message_is_given_at_once, 0, 2);
    tcase_add_loop_test(tc, what_was_looked_at_hides_nothing_that_tls_holds, 0, 2);
    tcase_add_loop_test(tc, an_orderly_end_of_tls_is_told_from_a_cut, 0, 2);
    tcase_add_loop_test(tc, a_flood_of_key_updates_is_taken_in_slices_while_parked, 0, 2);
    tcase_add_loop_test(tc, a_linger_that_fails_is_not_told_as_closed_here, 0, 2);
    return run_case(tc);
}
