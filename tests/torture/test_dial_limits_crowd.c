/* test_dial_limits_crowd.c: many threads want few places, and many of them give up.
 *
 * More than the limit never have one, every place comes back, and nobody waits for ever: who gives
 * up hands on what it was about to get.
 */
#include "../c/support.h"

#include <stdlib.h>

#define THREADS 8
#define ROUNDS 3000
#define MOST 3

static struct hs_dial_limits *limits;
static atomic_long inside, took;

struct player {
    struct thread thread;
    unsigned seed;
};

static struct hs_op
some_op(struct player *p, struct hs_token *token)
{
    switch (rand_r(&p->seed) % 4) {
    case 0:
        return op_in(rand_r(&p->seed) % 50000);
    case 1:
        return (struct hs_op)HS_OP_INIT(HS_TRY_ONCE, NULL);
    case 2:
        return op_with(token);
    default:
        return op_in(60 * SECOND);
    }
}

static void *
play(void *arg)
{
    struct player *p = arg;

    for (int i = 0; i < ROUNDS; i++) {
        struct hs_dial_place *place = NULL;
        struct hs_token *token;
        struct hs_op op;

        ASSERT_OK(hs_token_new(NULL, 0, hs_deadline_after(rand_r(&p->seed) % 50000), NULL, fresh(),
                               &token));
        op = some_op(p, token);
        if (DONE(hs_dial_place_take(limits, &op, fresh(), &place)) == HS_OK) {
            took++;
            ck_assert_int_le(atomic_fetch_add(&inside, 1), MOST - 1);
            atomic_fetch_sub(&inside, 1);
        } else {
            ck_assert_ptr_null(place);
        }
        hs_dial_place_leave(place);
        hs_token_unref(token);
    }
    return NULL;
}

START_TEST(a_crowd_keeps_the_limit_and_loses_no_place)
{
    struct player players[THREADS];
    struct hs_dial_stats s;

    took = 0;
    ASSERT_OK(hs_dial_limits_new(MOST, _i * 20000, fresh(), &limits));
    for (unsigned i = 0; i < THREADS; i++) {
        players[i].seed = i + 1;
        thread_start(&players[i].thread, play, &players[i]);
    }
    for (unsigned i = 0; i < THREADS; i++)
        (void)thread_join(&players[i].thread);
    hs_dial_limits_stats(limits, &s);
    ck_assert_int_eq(s.in_flight, 0);
    ck_assert_int_eq(s.waiting, 0);
    ck_assert_int_ge((long)s.begun, took); /* A cancel may meet a place that was just given. */
    ck_assert_int_gt(took, ROUNDS);
    hs_dial_limits_unref(limits);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("dial limits crowd");

    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, a_crowd_keeps_the_limit_and_loses_no_place, 0, 2);
    return run_case(tc);
}
