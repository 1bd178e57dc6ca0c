/* test_tls_request.c: the client's certificate, asked for after the handshake.
 *
 * Over a wire whose bytes come one by one, and given up at each of them.
 */
#include "support.h"
#include "support_tls.h"

#include <stdio.h>
#include <stdlib.h>

static struct tls_pair
asking_pair(struct pump *ret_pump, bool has_certificate)
{
    struct tls_pair p = plain_pumped_pair(ret_pump);
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_identity id = identity(world.client);
    struct shaking a = {.c = p.client, .name = "a.example"}, b = {.c = p.server};

    client.identities = &id;
    client.n_identities = has_certificate;
    client.post_handshake_auth = true;
    server.cas = client.cas;
    server.n_cas = 1;
    server.certs = HS_TLS_CERTS_ON_REQUEST;
    a.config = config_of(&client);
    b.config = config_of(&server);
    for (int i = 0; i < 100 && (a.rv != HS_OK || b.rv != HS_OK || i == 0); i++) {
        (void)shake_step(&a);
        (void)pump_move(ret_pump, 0, SIZE_MAX);
        (void)shake_step(&b);
        (void)pump_move(ret_pump, 1, SIZE_MAX);
    }
    ASSERT_OK(a.rv);
    ASSERT_OK(b.rv);
    hs_tls_config_unref(a.config);
    hs_tls_config_unref(b.config);
    return p;
}

/* One step of each end, and one byte each way. */
static hs_err
step(struct tls_pair *p, struct pump *pump, struct hs_op *asking, bool required)
{
    struct hs_op reading = op_step(10 * SECOND);
    hs_err rv = hs_conn_request_certificate(p->server, asking, required, true, fresh());
    uint8_t byte;
    size_t n;

    (void)pump_move(pump, 1, 1);
    ck_assert_int_gt(hs_conn_recv(p->client, &reading, &byte, 1, 0, fresh(), &n), 0);
    hs_conn_abandon(p->client, &reading, NULL);
    (void)pump_move(pump, 0, 1);
    return rv;
}

/* Gives up after so many steps, if that is before the end; returns how many it took. */
static int
ask_given_up_after(int steps)
{
    struct pump pump;
    struct tls_pair p = asking_pair(&pump, true);
    struct hs_op asking = op_step(10 * SECOND);
    hs_err rv = HS_WANT;
    int n = 0;

    for (; rv > 0 && n < 20000; n++) {
        if (n == steps) {
            hs_conn_abandon(p.server, &asking, NULL);
            asking = op_step(10 * SECOND);
        }
        rv = step(&p, &pump, &asking, true);
    }
    ASSERT_OK(rv);
    ck_assert_uint_ge(hs_conn_tls_chain_length(p.server), 1);
    for (int i = 0; i < 2; i++) { /* The answer may have a rest: tickets. */
        (void)pump_move(&pump, 1, SIZE_MAX);
        (void)pump_move(&pump, 0, SIZE_MAX);
    }
    pump_free(&pump);
    tls_pair_free(&p);
    return n;
}

START_TEST(a_request_may_come_and_be_answered_byte_by_byte)
{
    ck_assert_int_gt(ask_given_up_after(-1), 100);
}
END_TEST

START_TEST(a_request_that_is_given_up_at_any_byte_is_taken_up_again)
{
    int all = ask_given_up_after(-1);

    for (int steps = 0; steps < all; steps += steps < 40 ? 1 : 17)
        (void)ask_given_up_after(steps);
}
END_TEST

/* The client has none, and was asked by a call that did not require one. 1: it has answered. */
START_TEST(who_requires_one_is_not_content_with_an_answer_without)
{
    struct pump pump;
    struct tls_pair p = asking_pair(&pump, false);
    struct hs_op asking = op_step(10 * SECOND), reading = op_step(10 * SECOND);
    bool is_answered = _i == 1;
    hs_err rv = HS_WANT;
    uint8_t byte;
    size_t n;

    ASSERT_ERR(HS_WANT, step(&p, &pump, &asking, false));
    hs_conn_abandon(p.server, &asking, NULL);
    for (int i = 0; i < 5000 && is_answered; i++) { /* by what somebody receives */
        (void)pump_move(&pump, 1, 1);
        ck_assert_int_gt(hs_conn_recv(p.client, &reading, &byte, 1, 0, fresh(), &n), 0);
        hs_conn_abandon(p.client, &reading, NULL);
        reading = op_step(10 * SECOND);
        (void)pump_move(&pump, 0, 1);
        ck_assert_int_gt(hs_conn_recv(p.server, &reading, &byte, 1, 0, fresh(), &n), 0);
        hs_conn_abandon(p.server, &reading, NULL);
        reading = op_step(10 * SECOND);
    }
    asking = op_step(10 * SECOND);
    for (int i = 0; i < 20000 && rv > 0; i++)
        rv = step(&p, &pump, &asking, true);
    ASSERT_ERR(HS_E_CERTIFICATE, rv);
    pump_free(&pump);
    tls_pair_free(&p);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("tls request");

    tls_world();
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, a_request_may_come_and_be_answered_byte_by_byte);
    tcase_add_test(tc, a_request_that_is_given_up_at_any_byte_is_taken_up_again);
    tcase_add_loop_test(tc, who_requires_one_is_not_content_with_an_answer_without, 0, 2);
    return run_case(tc);
}
