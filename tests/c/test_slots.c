/* Slots: never more at a time than there are, in the order of arrival, and none is lost.
 *
 * What a connection does with them is tested with servers, in tests/py/test_serve.py.
 */
#include "support.h"

#include "../../csrc/cancel/slots.h"

#include <stdatomic.h>

#define CROWD 8
#define ROUNDS 2000

static struct hs_slots *
slots_of(long n)
{
    struct hs_slots *t;

    ASSERT_OK(hs_slots_new(n, fresh(), &t));
    return t;
}

START_TEST(less_than_one_is_refused)
{
    struct hs_slots *t = NULL;

    ASSERT_ERR(HS_E_INVALID, hs_slots_new(0, fresh(), &t));
    ck_assert_ptr_null(t);
    ck_assert_int_eq(hs_slots_live(), 0);
}
END_TEST

struct taking {
    struct hs_slots *slots;
    struct hs_token *token;
    atomic_bool has;
};

static void *
take_one(void *arg)
{
    struct taking *t = arg;

    hs_slots_take(t->slots, t->token, HS_NEVER);
    atomic_store(&t->has, true);
    return NULL;
}

START_TEST(a_slot_is_handed_to_the_one_who_waits)
{
    struct hs_slots *slots = slots_of(1);
    struct taking t = {.slots = slots};
    struct thread thread;

    hs_slots_take(slots, NULL, HS_NEVER);
    thread_start(&thread, take_one, &t);
    thread_wait_asleep(&thread);
    ck_assert(!atomic_load(&t.has));
    hs_slots_give(slots);
    (void)thread_join(&thread);
    ck_assert(atomic_load(&t.has));
    hs_slots_give(slots);
    hs_slots_unref(slots);
}
END_TEST

START_TEST(an_ended_token_takes_one_too_many_which_is_paid_back)
{
    struct hs_slots *slots = slots_of(1);
    struct taking forced = {.slots = slots}, later = {.slots = slots};
    struct thread thread, second;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &forced.token));
    hs_slots_take(slots, NULL, HS_NEVER);
    thread_start(&thread, take_one, &forced);
    thread_wait_asleep(&thread);
    ck_assert(hs_token_cancel(forced.token, NULL, 0, NULL));
    (void)thread_join(&thread);
    ck_assert(atomic_load(&forced.has));
    thread_start(&second, take_one, &later);
    thread_wait_asleep(&second);
    hs_slots_give(slots); /* Pays for the one too many. */
    ck_assert(!atomic_load(&later.has));
    hs_slots_give(slots);
    (void)thread_join(&second);
    ck_assert(atomic_load(&later.has));
    hs_slots_give(slots);
    hs_token_unref(forced.token);
    hs_slots_unref(slots);
}
END_TEST

START_TEST(a_passed_deadline_does_not_wait)
{
    struct hs_slots *slots = slots_of(1);

    hs_slots_take(slots, NULL, HS_NEVER);
    hs_slots_take(slots, NULL, 1);
    hs_slots_give(slots);
    hs_slots_give(slots);
    hs_slots_take(slots, NULL, HS_NEVER);
    hs_slots_give(slots);
    hs_slots_unref(slots);
}
END_TEST

struct crowd {
    struct hs_slots *slots;
    atomic_int inside, most;
};

static void *
work(void *arg)
{
    struct crowd *c = arg;

    for (int i = 0; i < ROUNDS; i++) {
        int inside, most;

        hs_slots_take(c->slots, NULL, HS_NEVER);
        inside = atomic_fetch_add(&c->inside, 1) + 1;
        most = atomic_load(&c->most);
        while (inside > most && !atomic_compare_exchange_weak(&c->most, &most, inside))
            ;
        atomic_fetch_sub(&c->inside, 1);
        hs_slots_give(c->slots);
    }
    return NULL;
}

START_TEST(a_crowd_is_never_more_than_there_are_slots)
{
    struct crowd c = {.slots = slots_of(2)};
    struct thread threads[CROWD];

    for (int i = 0; i < CROWD; i++)
        thread_start(&threads[i], work, &c);
    for (int i = 0; i < CROWD; i++)
        (void)thread_join(&threads[i]);
    ck_assert_int_le(atomic_load(&c.most), 2);
    hs_slots_take(c.slots, NULL, HS_TRY_ONCE); /* Both are free again. */
    hs_slots_take(c.slots, NULL, HS_TRY_ONCE);
    hs_slots_give(c.slots);
    hs_slots_give(c.slots);
    hs_slots_unref(c.slots);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("slots");

    tcase_add_test(tc, less_than_one_is_refused);
    tcase_add_test(tc, a_slot_is_handed_to_the_one_who_waits);
    tcase_add_test(tc, an_ended_token_takes_one_too_many_which_is_paid_back);
    tcase_add_test(tc, a_passed_deadline_does_not_wait);
    tcase_add_test(tc, a_crowd_is_never_more_than_there_are_slots);
    return run_case(tc);
}
