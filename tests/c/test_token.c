/* test_token.c: the cancellation tree: reasons, deadlines, linked tokens, waiters, depth and width.
 *
 * Callbacks are in test_callback.c, descriptors and forks in test_token_os.c.
 */
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static struct hs_token *
token(struct hs_token *parent, int64_t deadline_ns)
{
    struct hs_token *t;

    ASSERT_OK(hs_token_new(&parent, parent != NULL, deadline_ns, "t", fresh(), &t));
    return t;
}

static struct hs_token *
linked(struct hs_token *const *parents, size_t n)
{
    struct hs_token *t;

    ASSERT_OK(hs_token_new(parents, n, HS_NEVER, NULL, fresh(), &t));
    return t;
}

static void
wait_until_ended(struct hs_token *t)
{
    ASSERT_OK(DONE(hs_token_wait(t, hs_deadline_after(10 * SECOND), fresh())));
}

static void *
waiter(void *arg)
{
    wait_until_ended(arg);
    return NULL;
}

START_TEST(the_first_reason_wins)
{
    struct hs_token *t = token(NULL, HS_NEVER);
    struct hs_reason r = {.origin = 77};

    ASSERT_OK(hs_token_check(t));
    ck_assert(!hs_token_reason(t, &r));
    ck_assert_uint_eq(r.origin, 77);
    ck_assert(hs_token_cancel(t, "first", 11, NULL));
    ck_assert(!hs_token_cancel(t, "second", 22, NULL));
    ASSERT_ERR(HS_E_CANCELLED, hs_token_check(t));
    ck_assert(hs_token_reason(t, &r));
    ck_assert_str_eq(r.text, "first");
    ck_assert_uint_eq(r.cookie, 11);
    ck_assert_uint_eq(r.origin, hs_token_id(t));
    hs_token_unref(t);
}
END_TEST

START_TEST(long_reasons_and_names_are_cut)
{
    char text[400];
    struct hs_token *t;
    struct hs_reason r;

    memset(text, 'r', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, text, fresh(), &t));
    ck_assert_uint_eq(strlen(hs_token_name(t)), 47);
    ck_assert(hs_token_cancel(t, text, 0, NULL));
    ck_assert(hs_token_reason(t, &r));
    ck_assert_uint_eq(strlen(r.text), sizeof(r.text) - 1);
    hs_token_unref(t);
    t = token(NULL, HS_NEVER);
    ck_assert(hs_token_cancel(t, NULL, 0, NULL));
    ck_assert(hs_token_reason(t, &r));
    ck_assert_str_eq(r.text, "");
    hs_token_unref(t);
}
END_TEST

START_TEST(children_end_with_the_parent_and_not_the_other_way)
{
    struct hs_token *parent = token(NULL, HS_NEVER);
    struct hs_token *a = token(parent, HS_NEVER), *b = token(parent, HS_NEVER);
    struct hs_reason r;

    ck_assert(hs_token_cancel(a, "only a", 0, NULL));
    ASSERT_OK(hs_token_check(parent));
    ASSERT_OK(hs_token_check(b));
    ck_assert(hs_token_cancel(parent, "all", 0, NULL));
    ck_assert(!hs_token_cancel(b, "late", 0, NULL));
    ck_assert(hs_token_reason(b, &r));
    ck_assert_str_eq(r.text, "all");
    ck_assert_uint_eq(r.origin, hs_token_id(parent));
    ck_assert(hs_token_reason(a, &r));
    ck_assert_str_eq(r.text, "only a");
    hs_token_unref(parent); /* Children keep it alive. */
    hs_token_unref(a);
    hs_token_unref(b);
}
END_TEST

START_TEST(a_child_of_an_ended_parent_is_born_ended)
{
    struct hs_token *parent = token(NULL, HS_NEVER), *child;

    ck_assert(hs_token_cancel(parent, "over", 0, NULL));
    child = token(parent, HS_NEVER);
    hs_token_unref(parent);
    ASSERT_ERR(HS_E_CANCELLED, hs_token_check(child));
    hs_token_unref(child);
}
END_TEST

START_TEST(a_linked_token_ends_with_any_of_sixteen_parents)
{
    struct hs_token *parents[HS_TOKEN_MAX_PARENTS], *t;
    struct hs_reason r;

    for (size_t i = 0; i < HS_TOKEN_MAX_PARENTS; i++)
        parents[i] = token(NULL, HS_NEVER);
    t = linked(parents, HS_TOKEN_MAX_PARENTS);
    ASSERT_OK(hs_token_check(t));
    ck_assert(hs_token_cancel(parents[_i], "one of them", 0, NULL));
    ASSERT_ERR(HS_E_CANCELLED, hs_token_check(t));
    ck_assert(hs_token_reason(t, &r));
    ck_assert_uint_eq(r.origin, hs_token_id(parents[_i]));
    for (size_t i = 0; i < HS_TOKEN_MAX_PARENTS; i++)
        hs_token_unref(parents[i]);
    hs_token_unref(t);
}
END_TEST

START_TEST(seventeen_parents_are_refused)
{
    struct hs_token *parents[HS_TOKEN_MAX_PARENTS + 1], *one = token(NULL, HS_NEVER), *t = NULL;

    for (size_t i = 0; i < LENGTH(parents); i++)
        parents[i] = one;
    ASSERT_ERR(HS_E_INVALID, hs_token_new(parents, LENGTH(parents), HS_NEVER, NULL, fresh(), &t));
    ck_assert_ptr_null(t);
    t = linked(parents, HS_TOKEN_MAX_PARENTS); /* the same one sixteen times */
    ck_assert(hs_token_cancel(one, NULL, 0, NULL));
    ASSERT_ERR(HS_E_CANCELLED, hs_token_check(t));
    hs_token_unref(one);
    hs_token_unref(t);
}
END_TEST

START_TEST(a_deadline_needs_no_timer_and_names_its_owner)
{
    struct hs_token *parent = token(NULL, hs_deadline_after(20 * MS));
    struct hs_token *child = token(parent, hs_deadline_after(SECOND));
    struct hs_reason r;
    int64_t deadline = hs_token_deadline(child);

    ck_assert_int_eq(deadline, hs_token_deadline(parent));
    wait_until_ended(child);
    ck_assert_int_ge(hs_now(), deadline);
    ASSERT_ERR(HS_E_DEADLINE, hs_token_check(child));
    ck_assert(hs_token_reason(child, &r));
    ck_assert_int_eq(r.code, HS_E_DEADLINE);
    ck_assert_uint_eq(r.origin, hs_token_id(parent));
    hs_token_unref(child);
    hs_token_unref(parent);
}
END_TEST

START_TEST(waiting_for_a_live_token_ends_by_its_own_deadline)
{
    struct hs_token *t = token(NULL, HS_NEVER);

    ASSERT_ERR(HS_E_DEADLINE, hs_token_wait(t, HS_TRY_ONCE, fresh()));
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_token_wait(t, hs_deadline_after(5 * MS), fresh())));
    ASSERT_OK(hs_token_check(t));
    hs_token_unref(t);
}
END_TEST

START_TEST(moving_an_ancestors_deadline_wakes_the_waiter)
{
    struct hs_token *parent = token(NULL, hs_deadline_after(100 * SECOND));
    struct hs_token *middle = token(parent, HS_NEVER), *child = token(middle, HS_NEVER);
    struct thread t;

    thread_start(&t, waiter, child);
    thread_wait_asleep(&t);
    ASSERT_OK(hs_token_set_deadline(parent, hs_now()));
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_DEADLINE, hs_token_check(child));
    hs_token_unref(child);
    hs_token_unref(middle);
    hs_token_unref(parent);
}
END_TEST

START_TEST(a_deadline_can_be_put_off_while_the_token_lives)
{
    struct hs_token *t = token(NULL, hs_deadline_after(100 * SECOND));

    ASSERT_OK(hs_token_set_deadline(t, HS_NEVER));
    ck_assert(hs_token_deadline(t) == HS_NEVER);
    ASSERT_OK(hs_token_set_deadline(t, 1));
    ASSERT_ERR(HS_E_DEADLINE, hs_token_set_deadline(t, HS_NEVER));
    ASSERT_ERR(HS_E_DEADLINE, hs_token_check(t));
    hs_token_unref(t);
}
END_TEST

START_TEST(an_ended_token_stays_ended)
{
    struct hs_token *t = token(NULL, HS_NEVER);

    ck_assert(hs_token_cancel(t, NULL, 0, NULL));
    ASSERT_ERR(HS_E_CANCELLED, hs_token_set_deadline(t, HS_NEVER));
    ASSERT_ERR(HS_E_CANCELLED, hs_token_check(t));
    hs_token_unref(t);
    t = token(NULL, HS_TRY_ONCE); /* a point in time long past */
    ASSERT_ERR(HS_E_DEADLINE, hs_token_check(t));
    ck_assert(!hs_token_cancel(t, NULL, 0, NULL));
    ASSERT_ERR(HS_E_DEADLINE, hs_token_check(t));
    hs_token_unref(t);
}
END_TEST

START_TEST(a_childs_deadline_does_not_end_the_parent)
{
    struct hs_token *parent = token(NULL, HS_NEVER), *child = token(parent, 1);

    ASSERT_ERR(HS_E_DEADLINE, hs_token_check(child));
    ASSERT_OK(hs_token_check(parent));
    hs_token_unref(parent);
    hs_token_unref(child);
}
END_TEST

START_TEST(cancelling_wakes_every_waiter_below)
{
    struct hs_token *root = token(NULL, HS_NEVER), *leaves[8];
    struct thread threads[8];

    for (size_t i = 0; i < 8; i++) {
        leaves[i] = token(root, HS_NEVER);
        thread_start(&threads[i], waiter, leaves[i]);
    }
    for (size_t i = 0; i < 8; i++)
        thread_wait_asleep(&threads[i]);
    ck_assert(hs_token_cancel(root, NULL, 0, NULL));
    for (size_t i = 0; i < 8; i++) {
        (void)thread_join(&threads[i]);
        hs_token_unref(leaves[i]);
    }
    hs_token_unref(root);
}
END_TEST

#define MANY 100000

/* Freeing, asking and sweeping must not recurse: the stack of a thread is small. */
START_TEST(a_chain_of_100000_is_cancelled_and_freed)
{
    struct hs_token *root = token(NULL, HS_NEVER), *last = hs_token_ref(root);
    struct thread t;

    for (int i = 0; i < MANY; i++) {
        struct hs_token *next = token(last, HS_NEVER);

        hs_token_unref(last);
        last = next;
    }
    ASSERT_OK(hs_token_check(last));
    ck_assert(hs_token_deadline(last) == HS_NEVER);
    thread_start(&t, waiter, last);
    thread_wait_asleep(&t);
    ck_assert(hs_token_cancel(root, NULL, 0, NULL));
    (void)thread_join(&t);
    hs_token_unref(root);
    hs_token_unref(last);
}
END_TEST

/* Asking walks every way up, and further parents on the stack: what would take for ever, or too
 * deep, is refused when it is made. */
static int
link_until_refused(bool diamonds)
{
    struct hs_token *pair[2] = {token(NULL, HS_NEVER), token(NULL, HS_NEVER)}, *next;
    int levels = 0;

    while (levels < MANY) {
        if (hs_token_new(pair, 2, HS_NEVER, NULL, fresh(), &next) != HS_OK)
            break;
        hs_token_unref(pair[1]);
        pair[1] = next;
        hs_token_unref(pair[0]);
        pair[0] = diamonds ? hs_token_ref(next) : token(NULL, HS_NEVER);
        levels++;
    }
    ASSERT_ERR(HS_E_INVALID, last_error()->code);
    ASSERT_OK(hs_token_check(pair[1]));
    ck_assert(hs_token_deadline(pair[1]) == HS_NEVER);
    hs_token_unref(pair[0]);
    hs_token_unref(pair[1]);
    return levels;
}

START_TEST(a_ladder_of_diamonds_is_refused_before_asking_takes_for_ever)
{
    ck_assert_int_ge(link_until_refused(true), 8);
}
END_TEST

START_TEST(a_long_chain_through_second_parents_is_refused_before_the_stack_ends)
{
    ck_assert_int_ge(link_until_refused(false), 100);
}
END_TEST

START_TEST(one_hundred_thousand_children_end_at_once_and_a_waiter_wakes)
{
    static struct hs_token *children[MANY];
    struct hs_token *root = token(NULL, HS_NEVER);
    struct thread t;

    for (int i = 0; i < MANY; i++)
        children[i] = token(root, HS_NEVER);
    thread_start(&t, waiter, children[MANY / 2]);
    thread_wait_asleep(&t);
    ck_assert(hs_token_cancel(root, NULL, 0, NULL));
    for (int i = 0; i < MANY; i++)
        ASSERT_ERR(HS_E_CANCELLED, hs_token_check(children[i]));
    (void)thread_join(&t);
    for (int i = 0; i < MANY; i++)
        hs_token_unref(children[i]);
    hs_token_unref(root);
}
END_TEST

START_TEST(forgotten_children_leave_no_trace_in_a_long_lived_parent)
{
    struct hs_token *root = token(NULL, HS_NEVER);
    struct hs_live live;

    for (int i = 0; i < MANY; i++)
        hs_token_unref(token(root, HS_NEVER));
    hs_live_counts(&live);
    ck_assert_int_eq(live.tokens, 1);
    ck_assert(hs_token_cancel(root, NULL, 0, NULL));
    hs_token_unref(root);
}
END_TEST

struct family {
    struct hs_token *root;
    atomic_bool stop;
};

static void *
breed(void *arg)
{
    struct family *f = arg;

    while (!f->stop) {
        struct hs_token *child = token(f->root, HS_NEVER), *grandchild = token(child, HS_NEVER);

        hs_token_unref(child);
        hs_token_unref(grandchild);
    }
    return NULL;
}

START_TEST(trees_may_grow_and_shrink_while_they_are_swept)
{
    struct family f = {.root = token(NULL, HS_NEVER)};
    struct thread threads[2];

    for (int i = 0; i < 2; i++)
        thread_start(&threads[i], breed, &f);
    for (int i = 0; i < 300; i++) {
        struct hs_token *kept = token(f.root, HS_NEVER), *below = token(kept, HS_NEVER);

        ASSERT_OK(hs_token_set_deadline(f.root, hs_deadline_after((100 + i) * SECOND)));
        ck_assert(hs_token_cancel(kept, NULL, 0, NULL));
        ASSERT_ERR(HS_E_CANCELLED, hs_token_check(below));
        hs_token_unref(kept);
        hs_token_unref(below);
    }
    ck_assert(hs_token_cancel(f.root, NULL, 0, NULL));
    f.stop = true;
    for (int i = 0; i < 2; i++)
        (void)thread_join(&threads[i]);
    hs_token_unref(f.root);
}
END_TEST

#define THREADS 4
#define EACH 1500 /* more than one of them takes at a time */

static void *
make_each(void *arg)
{
    struct hs_token **made = arg;

    for (int i = 0; i < EACH; i++)
        made[i] = token(NULL, HS_NEVER);
    return NULL;
}

static int
by_id(const void *a, const void *b)
{
    uint64_t x = hs_token_id(*(struct hs_token *const *)a);
    uint64_t y = hs_token_id(*(struct hs_token *const *)b);

    return (x > y) - (x < y);
}

START_TEST(tokens_of_several_threads_have_ids_of_their_own_and_all_are_counted)
{
    static struct hs_token *made[THREADS * EACH];
    struct thread threads[THREADS];
    struct hs_live live;

    for (int i = 0; i < THREADS; i++)
        thread_start(&threads[i], make_each, made + i * EACH);
    for (int i = 0; i < THREADS; i++)
        (void)thread_join(&threads[i]);
    hs_live_counts(&live);
    ck_assert_int_eq(live.tokens, THREADS * EACH);
    qsort(made, THREADS * EACH, sizeof(made[0]), by_id);
    for (int i = 1; i < THREADS * EACH; i++)
        ck_assert_uint_lt(hs_token_id(made[i - 1]), hs_token_id(made[i]));
    /* By a thread that has made none. */
    for (int i = 0; i < THREADS * EACH; i++)
        hs_token_unref(made[i]);
    hs_live_counts(&live);
    ck_assert_int_eq(live.tokens, 0);
}
END_TEST

static void *
cancel_it(void *arg)
{
    return hs_token_cancel(arg, "race", 0, NULL) ? arg : NULL;
}

START_TEST(of_two_racing_cancels_one_is_first)
{
    for (int i = 0; i < 200; i++) {
        struct hs_token *t = token(NULL, HS_NEVER);
        struct thread threads[2];
        int first = 0;

        for (int j = 0; j < 2; j++)
            thread_start(&threads[j], cancel_it, t);
        for (int j = 0; j < 2; j++)
            first += thread_join(&threads[j]) != NULL;
        ck_assert_int_eq(first, 1);
        hs_token_unref(t);
    }
}
END_TEST

/* ---- Children in parts ---------------------------------------------------------------------- */

static atomic_bool all_taken;

int __real_pthread_mutex_trylock(pthread_mutex_t *m);
int __wrap_pthread_mutex_trylock(pthread_mutex_t *m);

/* As if another thread had every lock at the moment in which somebody tries. */
int
__wrap_pthread_mutex_trylock(pthread_mutex_t *m)
{
    return all_taken ? EBUSY : __real_pthread_mutex_trylock(m);
}

static void
split_every_parent(void)
{
    all_taken = true;
}

static void
split_no_more(void)
{
    all_taken = false;
}

static void
count_call(void *arg)
{
    (*(int *)arg)++;
}

/* Callbacks tell what the sweep has found: who waits or asks looks up by itself sooner or later. */
START_TEST(the_sweep_finds_children_from_before_and_after_a_split)
{
    struct hs_token *root = token(NULL, HS_NEVER), *children[20];
    struct hs_callback *callbacks[20];
    int calls = 0;

    for (int i = 0; i < 20; i++) {
        all_taken = _i == 0 ? i >= 10 : true; /* Its own list first, then a part; or parts only. */
        children[i] = token(root, HS_NEVER);
        ASSERT_OK(
            hs_token_on_cancel(children[i], count_call, NULL, &calls, fresh(), &callbacks[i]));
    }
    hs_callback_unref(callbacks[3]);
    hs_token_unref(children[3]);
    hs_callback_unref(callbacks[13]);
    hs_token_unref(children[13]);
    ck_assert(hs_token_cancel(root, "over", 0, NULL));
    ck_assert_int_eq(calls, 18);
    for (int i = 0; i < 20; i++)
        if (i != 3 && i != 13) {
            hs_callback_unref(callbacks[i]);
            hs_token_unref(children[i]);
        }
    hs_token_unref(root);
}
END_TEST

START_TEST(without_memory_for_parts_the_parents_own_list_has_to_do)
{
    struct hs_token *root = token(NULL, HS_NEVER), *child;
    struct thread t;
    uint64_t fault;

    all_taken = true;
    ASSERT_OK(hs_faults_begin("alloc.fail@2", fresh(), &fault)); /* The first is the child's. */
    child = token(root, HS_NEVER);
    hs_faults_end(fault);
    thread_start(&t, waiter, child);
    thread_wait_asleep(&t);
    ck_assert(hs_token_cancel(root, NULL, 0, NULL));
    (void)thread_join(&t);
    hs_token_unref(child);
    hs_token_unref(root);
}
END_TEST

static void
add_tests_of_trees(TCase *tc)
{
    tcase_add_test(tc, children_end_with_the_parent_and_not_the_other_way);
    tcase_add_test(tc, a_child_of_an_ended_parent_is_born_ended);
    tcase_add_loop_test(tc, a_linked_token_ends_with_any_of_sixteen_parents, 0,
                        HS_TOKEN_MAX_PARENTS);
    tcase_add_test(tc, moving_an_ancestors_deadline_wakes_the_waiter);
    tcase_add_test(tc, a_deadline_can_be_put_off_while_the_token_lives);
    tcase_add_test(tc, a_childs_deadline_does_not_end_the_parent);
    tcase_add_test(tc, cancelling_wakes_every_waiter_below);
    tcase_add_test(tc, one_hundred_thousand_children_end_at_once_and_a_waiter_wakes);
    tcase_add_test(tc, forgotten_children_leave_no_trace_in_a_long_lived_parent);
    tcase_add_test(tc, trees_may_grow_and_shrink_while_they_are_swept);
}

int
main(void)
{
    TCase *tc = case_new("token"), *parts = case_new("token, children in parts");

    tcase_add_test(tc, the_first_reason_wins);
    tcase_add_test(tc, long_reasons_and_names_are_cut);
    tcase_add_test(tc, seventeen_parents_are_refused);
    tcase_add_test(tc, a_deadline_needs_no_timer_and_names_its_owner);
    tcase_add_test(tc, waiting_for_a_live_token_ends_by_its_own_deadline);
    tcase_add_test(tc, an_ended_token_stays_ended);
    tcase_add_test(tc, a_chain_of_100000_is_cancelled_and_freed);
    tcase_add_test(tc, a_long_chain_through_second_parents_is_refused_before_the_stack_ends);
    tcase_add_test(tc, a_ladder_of_diamonds_is_refused_before_asking_takes_for_ever);
    tcase_add_test(tc, tokens_of_several_threads_have_ids_of_their_own_and_all_are_counted);
    tcase_add_test(tc, of_two_racing_cancels_one_is_first);
    add_tests_of_trees(tc);
    tcase_add_checked_fixture(parts, split_every_parent, split_no_more);
    tcase_add_loop_test(parts, the_sweep_finds_children_from_before_and_after_a_split, 0, 2);
    tcase_add_test(parts, without_memory_for_parts_the_parents_own_list_has_to_do);
    add_tests_of_trees(parts);
    return run_cases((TCase *const[]){tc, parts}, 2);
}
