/* test_callback.c: callbacks of tokens: once, removable, and never running after removal.
 *
 * Also what the operating system sees of tokens: the descriptor behind hs_token_fileno, and forks.
 */
#include "support.h"

#include <sched.h>

#include <poll.h>
#include <unistd.h>

static struct hs_token *
token(struct hs_token *parent, int64_t deadline_ns)
{
    struct hs_token *t;

    ASSERT_OK(hs_token_new(&parent, parent != NULL, deadline_ns, NULL, fresh(), &t));
    return t;
}

struct tally {
    atomic_int runs, releases;
    atomic_bool entered, may_leave;
    struct hs_callback *cb;
    hs_err removed;
    struct hs_token *token;
};

static void
note_run(void *arg)
{
    ((struct tally *)arg)->runs++;
}

static void
note_release(void *arg)
{
    ((struct tally *)arg)->releases++;
}

static struct hs_callback *
on_cancel(struct hs_token *t, void (*fn)(void *arg), struct tally *tally)
{
    struct hs_callback *cb;

    ASSERT_OK(hs_token_on_cancel(t, fn, note_release, tally, fresh(), &cb));
    return cb;
}

START_TEST(a_callback_runs_once_when_an_ancestor_is_cancelled)
{
    struct hs_token *root = token(NULL, HS_NEVER), *t = token(root, HS_NEVER);
    struct tally tally = {0};
    struct hs_callback *cb = on_cancel(t, note_run, &tally);

    ck_assert(hs_token_cancel(root, NULL, 0, NULL));
    ck_assert_int_eq(tally.runs, 1);
    ck_assert(!hs_token_cancel(t, NULL, 0, NULL));
    ck_assert(!hs_token_expire(t, NULL));
    ck_assert_int_eq(tally.runs, 1);
    ck_assert_int_eq(tally.releases, 1);
    hs_callback_unref(cb);
    ck_assert_int_eq(tally.releases, 1);
    hs_token_unref(t);
    hs_token_unref(root);
}
END_TEST

START_TEST(what_a_cancel_set_off_may_be_run_by_the_caller_later)
{
    struct hs_token *t = token(NULL, HS_NEVER);
    struct hs_callback *fired;
    struct tally tally = {0};

    for (int i = 0; i < 5; i++)
        hs_callback_unref(on_cancel(t, note_run, &tally));
    ck_assert(hs_token_cancel(t, NULL, 0, &fired));
    hs_token_unref(t); /* Those that wait to be run keep it alive. */
    ck_assert_int_eq(tally.runs, 0);
    hs_callbacks_run(fired);
    ck_assert_int_eq(tally.runs, 5);
    ck_assert_int_eq(tally.releases, 5);
    hs_callbacks_run(NULL);
}
END_TEST

START_TEST(a_removed_callback_never_runs)
{
    struct hs_token *t = token(NULL, HS_NEVER);
    struct tally tally = {0};
    struct hs_callback *cb = on_cancel(t, note_run, &tally), *claimed, *fired;

    ASSERT_OK(hs_callback_remove(cb));
    ASSERT_OK(hs_callback_remove(cb));
    hs_callback_unref(cb);
    ck_assert_int_eq(tally.releases, 1);
    claimed = on_cancel(t, note_run, &tally);
    ck_assert(hs_token_cancel(t, NULL, 0, &fired));
    ASSERT_OK(hs_callback_remove(claimed)); /* taken by the canceller, not yet started */
    hs_callbacks_run(fired);
    hs_callback_unref(claimed);
    ck_assert_int_eq(tally.runs, 0);
    ck_assert_int_eq(tally.releases, 2);
    hs_token_unref(t);
}
END_TEST

START_TEST(an_ended_token_takes_no_callback)
{
    struct hs_token *t = token(NULL, HS_NEVER), *late = token(NULL, 1);
    struct hs_callback *cb = NULL;
    struct tally tally = {0};

    ck_assert(hs_token_cancel(t, NULL, 0, NULL));
    ASSERT_ERR(HS_E_CANCELLED, hs_token_on_cancel(t, note_run, note_release, &tally, fresh(), &cb));
    ASSERT_ERR(HS_E_DEADLINE,
               hs_token_on_cancel(late, note_run, note_release, &tally, fresh(), &cb));
    ck_assert_ptr_null(cb);
    ck_assert_int_eq(tally.runs + tally.releases, 0);
    hs_token_unref(t);
    hs_token_unref(late);
}
END_TEST

START_TEST(a_forgotten_callback_does_not_keep_its_token)
{
    struct hs_token *t = token(NULL, HS_NEVER);
    struct tally tally = {0};

    hs_callback_unref(on_cancel(t, note_run, &tally));
    ck_assert_int_eq(tally.releases, 0);
    hs_token_unref(t);
    ck_assert_int_eq(tally.releases, 1);
    ck_assert_int_eq(tally.runs, 0);
    hs_callback_unref(NULL);
}
END_TEST

START_TEST(a_deadline_runs_callbacks_when_it_is_told_to)
{
    struct hs_token *t = token(NULL, hs_deadline_after(SECOND * 100));
    struct tally tally = {0};
    struct hs_callback *cb = on_cancel(t, note_run, &tally);

    ck_assert(!hs_token_expire(t, NULL));
    ASSERT_OK(hs_token_set_deadline(t, 1));
    ck_assert_int_eq(tally.runs, 0);
    ck_assert(hs_token_expire(t, NULL));
    ck_assert_int_eq(tally.runs, 1);
    ck_assert(hs_token_expire(t, NULL));
    ck_assert_int_eq(tally.runs, 1);
    hs_callback_unref(cb);
    hs_token_unref(t);
}
END_TEST

static void
remove_yourself(void *arg)
{
    struct tally *tally = arg;

    tally->runs++;
    tally->removed = hs_callback_remove(tally->cb);
}

START_TEST(a_callback_may_remove_itself)
{
    struct hs_token *t = token(NULL, HS_NEVER);
    struct tally tally = {.removed = HS_E_SYSTEM};

    tally.cb = on_cancel(t, remove_yourself, &tally);
    ck_assert(hs_token_cancel(t, NULL, 0, NULL));
    ck_assert_int_eq(tally.removed, HS_OK);
    ck_assert_int_eq(tally.runs, 1);
    hs_callback_unref(tally.cb);
    hs_token_unref(t);
}
END_TEST

static void
let_everything_go(void *arg)
{
    struct tally *tally = arg;

    tally->runs++;
    hs_callback_unref(tally->cb);
    hs_token_unref(tally->token);
    ck_assert_int_eq(tally->releases, 0); /* not while it runs */
}

START_TEST(a_callback_may_free_itself_and_its_token)
{
    struct tally tally = {.token = token(NULL, HS_NEVER)};

    tally.cb = on_cancel(tally.token, let_everything_go, &tally);
    ck_assert(hs_token_cancel(tally.token, NULL, 0, NULL));
    ck_assert_int_eq(tally.runs, 1);
    ck_assert_int_eq(tally.releases, 1);
}
END_TEST

static void
stay_inside(void *arg)
{
    struct tally *tally = arg;

    tally->entered = true;
    EVENTUALLY(tally->may_leave);
    tally->runs++;
}

static void *
cancel_it(void *arg)
{
    (void)hs_token_cancel(arg, NULL, 0, NULL);
    return NULL;
}

static void *
remove_it(void *arg)
{
    struct tally *tally = arg;

    ASSERT_OK(DONE(hs_callback_remove(tally->cb)));
    ck_assert_int_eq(tally->runs, 1);
    return NULL;
}

START_TEST(removal_waits_for_a_running_callback)
{
    struct hs_token *t = token(NULL, HS_NEVER);
    struct tally tally = {0};
    struct thread canceller, remover;

    tally.cb = on_cancel(t, stay_inside, &tally);
    thread_start(&canceller, cancel_it, t);
    EVENTUALLY(tally.entered);
    thread_start(&remover, remove_it, &tally);
    thread_wait_asleep(&remover);
    ck_assert_int_eq(tally.runs, 0);
    tally.may_leave = true;
    (void)thread_join(&remover);
    (void)thread_join(&canceller);
    hs_callback_unref(tally.cb);
    ck_assert_int_eq(tally.releases, 1);
    hs_token_unref(t);
}
END_TEST

/* Whatever the order: it ran and was registered, or it was refused and never ran; one release. */
START_TEST(registering_races_with_cancelling)
{
    for (int i = 0; i < 300; i++) {
        struct hs_token *root = token(NULL, HS_NEVER), *t = token(root, HS_NEVER);
        struct hs_callback *cb = NULL;
        struct tally tally = {0};
        struct thread canceller;
        hs_err rv;

        thread_start(&canceller, cancel_it, i % 2 ? root : t);
        rv = hs_token_on_cancel(t, note_run, note_release, &tally, fresh(), &cb);
        (void)thread_join(&canceller);
        ck_assert(rv == HS_OK || rv == HS_E_CANCELLED);
        ck_assert_int_eq(tally.runs, rv == HS_OK ? 1 : 0);
        hs_callback_unref(cb);
        ck_assert_int_eq(tally.releases, rv == HS_OK ? 1 : 0);
        hs_token_unref(t);
        hs_token_unref(root);
    }
}
END_TEST

struct duel {
    struct hs_token *_Atomic target;
    atomic_bool stop;
};

static void *
cancel_what_appears(void *arg)
{
    struct duel *duel = arg;
    struct hs_token *t;

    while (!duel->stop)
        if ((t = atomic_exchange(&duel->target, NULL)) != NULL) {
            (void)hs_token_cancel(t, NULL, 0, NULL);
            hs_token_unref(t);
        } else {
            (void)sched_yield(); /* On a busy machine the other may be waiting for this CPU. */
        }
    return NULL;
}

/* The same with a canceller that is already running, so that the two meet more closely. */
START_TEST(registering_in_the_same_moment_as_cancelling_releases_once)
{
    struct duel duel = {0};
    struct thread canceller;

    thread_start(&canceller, cancel_what_appears, &duel);
    for (int i = 0; i < 20000; i++) {
        struct hs_token *t = token(NULL, HS_NEVER);
        struct hs_callback *cb = NULL;
        struct tally tally = {0};
        hs_err rv;

        duel.target = hs_token_ref(t);
        for (int spin = 0; spin < i % 200; spin++)
            atomic_signal_fence(memory_order_seq_cst);
        rv = hs_token_on_cancel(t, note_run, note_release, &tally, fresh(), &cb);
        while (duel.target != NULL || hs_token_check(t) == HS_OK)
            (void)sched_yield();
        ck_assert(rv == HS_OK || rv == HS_E_CANCELLED);
        if (rv == HS_OK)
            ASSERT_OK(DONE(hs_callback_remove(cb)));
        EVENTUALLY(tally.releases == (rv == HS_OK));
        hs_callback_unref(cb);
        hs_token_unref(t);
    }
    duel.stop = true;
    (void)thread_join(&canceller);
}
END_TEST

START_TEST(removing_races_with_cancelling)
{
    for (int i = 0; i < 300; i++) {
        struct hs_token *t = token(NULL, HS_NEVER);
        struct tally tally = {0};
        struct hs_callback *cb = on_cancel(t, note_run, &tally);
        struct thread canceller;
        int runs;

        thread_start(&canceller, cancel_it, t);
        ASSERT_OK(DONE(hs_callback_remove(cb)));
        runs = tally.runs;
        hs_callback_unref(cb);
        (void)thread_join(&canceller);
        ck_assert_int_eq(tally.runs, runs); /* not after the removal */
        ck_assert_int_eq(tally.releases, 1);
        hs_token_unref(t);
    }
}
END_TEST

static bool
readable(int fd, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, timeout_ms) == 1;
}

static int
fileno_of(struct hs_token *t)
{
    int fd, again;

    ASSERT_OK(hs_token_fileno(t, fresh(), &fd));
    ASSERT_OK(hs_token_fileno(t, fresh(), &again));
    ck_assert_int_eq(fd, again);
    return fd;
}

START_TEST(the_descriptor_is_readable_after_a_cancel_and_stays_so)
{
    struct hs_token *root = token(NULL, HS_NEVER), *t = token(root, HS_NEVER);
    int fd = fileno_of(t);

    ck_assert(!readable(fd, 0));
    ck_assert(hs_token_cancel(root, NULL, 0, NULL));
    ck_assert(readable(fd, 0));
    ck_assert(readable(fd, 0));
    hs_token_unref(t);
    t = token(root, HS_NEVER);
    ck_assert(readable(fileno_of(t), 0)); /* made after the end */
    hs_token_unref(t);
    hs_token_unref(root);
}
END_TEST

START_TEST(the_descriptor_is_readable_at_the_deadline)
{
    struct hs_token *t = token(NULL, hs_deadline_after(10 * MS)), *past = token(NULL, 1);

    ck_assert(readable(fileno_of(t), 10000));
    ASSERT_ERR(HS_E_DEADLINE, hs_token_check(t));
    ck_assert(readable(fileno_of(past), 0));
    hs_token_unref(t);
    hs_token_unref(past);
}
END_TEST

START_TEST(the_descriptor_follows_an_ancestors_new_deadline)
{
    struct hs_token *root = token(NULL, hs_deadline_after(100 * SECOND));
    struct hs_token *t = token(root, HS_NEVER);
    int fd = fileno_of(t);

    ASSERT_OK(hs_token_set_deadline(root, HS_NEVER));
    ASSERT_OK(hs_token_set_deadline(root, hs_deadline_after(5 * MS)));
    ck_assert(readable(fd, 10000));
    ASSERT_ERR(HS_E_DEADLINE, hs_token_check(t));
    hs_token_unref(t);
    hs_token_unref(root);
}
END_TEST

static int
use_inherited(void *arg)
{
    struct hs_token *t = arg, *child;
    struct hs_callback *cb;
    int fd;

    if (hs_token_check(t) != HS_OK || hs_token_deadline(t) == HS_NEVER)
        return 1;
    if (hs_token_fileno(t, NULL, &fd) != HS_E_FORKED ||
        hs_token_on_cancel(t, note_run, NULL, NULL, NULL, &cb) != HS_E_FORKED)
        return 2;
    if (hs_token_new(&t, 1, HS_NEVER, NULL, NULL, &child) != HS_OK ||
        hs_token_set_deadline(t, hs_deadline_after(50 * SECOND)) != HS_OK)
        return 3;
    if (!hs_token_cancel(t, "in the child", 0, NULL) || hs_token_check(t) != HS_E_CANCELLED)
        return 4;
    if (hs_token_check(child) != HS_E_CANCELLED || DONE(hs_token_wait(child, HS_NEVER, NULL)) != 0)
        return 5;
    hs_token_unref(child);
    hs_token_unref(t);
    return 0;
}

START_TEST(a_forked_child_asks_and_cancels_its_own_copy)
{
    struct hs_token *t = token(NULL, hs_deadline_after(100 * SECOND));

    ck_assert_int_eq(in_child(use_inherited, t), 0);
    ASSERT_OK(hs_token_check(t)); /* The parent's is another. */
    hs_token_unref(t);
}
END_TEST

/* The address sanitizer's allocator has locks of its own, which a fork in the middle of another
 * thread's call leaves held in the child: seen with GCC 12. */
#ifdef __SANITIZE_ADDRESS__
#define FORK_BREAKS_MALLOC 1
#else
#define FORK_BREAKS_MALLOC 0
#endif

struct forker {
    atomic_bool stop, failed;
    struct hs_token *root;
};

/* Keeps the one lock that all sweeps share busy. Calls nothing else: the test forks meanwhile. */
static void *
sweep_for_ever(void *arg)
{
    struct forker *f = arg;

    while (!f->stop)
        if (hs_token_set_deadline(f->root, hs_deadline_after(1000 * SECOND)) != HS_OK)
            f->failed = true;
    return NULL;
}

static int
sweep_once(void *arg)
{
    struct hs_token *root, *child;
    bool swept;

    (void)arg;
    if (hs_token_new(NULL, 0, HS_NEVER, NULL, NULL, &root) != HS_OK ||
        hs_token_new(&root, 1, HS_NEVER, NULL, NULL, &child) != HS_OK)
        return 1;
    swept = hs_token_cancel(root, NULL, 0, NULL) && hs_token_check(child) == HS_E_CANCELLED;
    hs_token_unref(child);
    hs_token_unref(root);
    return swept ? 0 : 2;
}

START_TEST(a_fork_in_the_middle_of_a_sweep_leaves_the_child_able_to_cancel)
{
    struct hs_token *children[2000];
    struct forker f = {.root = token(NULL, HS_NEVER)};
    struct thread t;

    for (size_t i = 0; i < LENGTH(children); i++)
        children[i] = token(f.root, HS_NEVER);
    thread_start(&t, sweep_for_ever, &f);
    for (int i = 0; i < 20; i++)
        ck_assert_int_eq(in_child(sweep_once, NULL), 0);
    f.stop = true;
    (void)thread_join(&t);
    ck_assert(!f.failed);
    for (size_t i = 0; i < LENGTH(children); i++)
        hs_token_unref(children[i]);
    hs_token_unref(f.root);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("callback");

    tcase_add_test(tc, a_callback_runs_once_when_an_ancestor_is_cancelled);
    tcase_add_test(tc, what_a_cancel_set_off_may_be_run_by_the_caller_later);
    tcase_add_test(tc, a_removed_callback_never_runs);
    tcase_add_test(tc, an_ended_token_takes_no_callback);
    tcase_add_test(tc, a_forgotten_callback_does_not_keep_its_token);
    tcase_add_test(tc, a_deadline_runs_callbacks_when_it_is_told_to);
    tcase_add_test(tc, a_callback_may_remove_itself);
    tcase_add_test(tc, a_callback_may_free_itself_and_its_token);
    tcase_add_test(tc, removal_waits_for_a_running_callback);
    tcase_add_test(tc, registering_races_with_cancelling);
    tcase_add_test(tc, registering_in_the_same_moment_as_cancelling_releases_once);
    tcase_add_test(tc, removing_races_with_cancelling);
    tcase_add_test(tc, the_descriptor_is_readable_after_a_cancel_and_stays_so);
    tcase_add_test(tc, the_descriptor_is_readable_at_the_deadline);
    tcase_add_test(tc, the_descriptor_follows_an_ancestors_new_deadline);
    tcase_add_test(tc, a_forked_child_asks_and_cancels_its_own_copy);
    if (!FORK_BREAKS_MALLOC)
        tcase_add_test(tc, a_fork_in_the_middle_of_a_sweep_leaves_the_child_able_to_cancel);
    return run_case(tc);
}
