/* test_notifier.c: hs_notifier and hs_alarm: what nobody waits for is told, once, and never after
 * the end of its alarm.
 *
 * The alarms here watch a token; a struct alarm counts what happens to it.
 */
#include "support.h"

#include "../../csrc/cancel/wait.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

struct alarm {
    struct hs_token *token; /* owns */
    struct hs_alarm *handle;
    atomic_int told, held, released;
    atomic_int failures; /* so many steps fail first */
    atomic_bool blocks, entered;
};

static struct hs_notifier *
notifier_new(void (*serve)(struct hs_notifier *n, void *arg), void *arg)
{
    struct hs_notifier_hooks hooks = {.serve = serve, .arg = arg};
    struct hs_notifier *n;

    ASSERT_OK(hs_notifier_new(&hooks, fresh(), &n));
    return n;
}

static void
tell_all(struct hs_notifier *n, void *arg)
{
    struct alarm *a;

    (void)arg;
    while ((a = hs_notifier_next(n)) != NULL) {
        a->told++;
        a->entered = true;
        while (a->blocks)
            breathe();
    }
}

static hs_err
step(void *arg, struct hs_op *op, struct hs_error *err)
{
    struct alarm *a = arg;

    if (a->failures > 0) {
        a->failures--;
        return HS_E_NOMEM;
    }
    return hs_token_await(op, err);
}

static void
hold(void *arg)
{
    ((struct alarm *)arg)->held++;
}

static void
release(void *arg)
{
    ((struct alarm *)arg)->released++;
}

static struct hs_alarm_hooks
hooks(void)
{
    return (struct hs_alarm_hooks){.step = step, .hold = hold, .release = release};
}

static void
arm(struct hs_notifier *n, struct alarm *a, int64_t deadline_ns, const struct hs_alarm_hooks *h)
{
    struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);

    ASSERT_OK(hs_token_new(NULL, 0, deadline_ns, NULL, fresh(), &a->token));
    op.token = a->token;
    ASSERT_OK(hs_alarm_new(n, h, a, &op, fresh(), &a->handle));
}

static void
start(struct hs_notifier *n)
{
    ASSERT_OK(hs_notifier_start(n, fresh()));
}

static void
disarm(struct alarm *a)
{
    hs_alarm_end(a->handle);
    EVENTUALLY(a->released == 1);
    hs_token_unref(a->token);
}

/* Its thread and descriptors go, too: ledger_close looks. */
static void
finish(struct hs_notifier *n)
{
    hs_notifier_stop(n, HS_STOP_ALL);
    hs_notifier_unref(n);
}

START_TEST(a_deadline_is_told_once)
{
    struct hs_notifier *n = notifier_new(tell_all, NULL);
    struct hs_alarm_hooks h = hooks();
    struct alarm a = {0}, later = {0};

    arm(n, &later, hs_now() + 60 * SECOND, &h);
    arm(n, &a, hs_now() + 5 * MS, &h);
    start(n);
    EVENTUALLY(a.told == 1);
    ck_assert_int_eq(a.held, 1);
    disarm(&a);
    disarm(&later);
    ck_assert_int_eq(a.told, 1);
    ck_assert_int_eq(later.told, 0);
    finish(n);
}
END_TEST

START_TEST(there_is_no_thread_without_an_alarm_that_was_started)
{
    struct hs_notifier *n = notifier_new(tell_all, NULL);
    struct hs_alarm_hooks h = hooks();
    struct alarm a = {0};
    long fds = count_fds();

    start(n);
    arm(n, &a, HS_NEVER, &h);
    ck_assert_int_eq(count_fds(), fds);
    start(n);
    ck_assert_int_gt(count_fds(), fds);
    disarm(&a);
    EVENTUALLY(count_fds() == fds);
    arm(n, &a, hs_now(), &h); /* and again */
    a.released = 0;
    start(n);
    EVENTUALLY(a.told == 1);
    disarm(&a);
    finish(n);
}
END_TEST

START_TEST(a_deadline_that_is_set_later_is_told)
{
    struct hs_notifier *n = notifier_new(tell_all, NULL);
    struct hs_alarm_hooks h = hooks();
    struct alarm a = {0};

    arm(n, &a, HS_NEVER, &h);
    start(n);
    ASSERT_OK(hs_token_set_deadline(a.token, hs_now() + 60 * SECOND));
    ASSERT_OK(hs_token_set_deadline(a.token, hs_now() + 1 * MS));
    EVENTUALLY(a.told == 1);
    disarm(&a);
    finish(n);
}
END_TEST

START_TEST(an_alarm_that_repeats_is_stepped_again)
{
    struct hs_notifier *n = notifier_new(tell_all, NULL);
    struct hs_alarm_hooks h = hooks();
    struct alarm a = {0};

    h.repeats = true; /* The token stays ended: it is due at once again. */
    arm(n, &a, hs_now(), &h);
    start(n);
    EVENTUALLY(a.told >= 3);
    disarm(&a);
    finish(n);
}
END_TEST

START_TEST(want_of_memory_delays_and_loses_nothing)
{
    struct hs_notifier *n = notifier_new(tell_all, NULL);
    struct hs_alarm_hooks h = hooks();
    struct alarm a = {.failures = 2}, other = {0};

    arm(n, &a, hs_now(), &h);
    arm(n, &other, hs_now(), &h);
    start(n);
    EVENTUALLY(a.told == 1 && other.told == 1);
    disarm(&a);
    disarm(&other);
    finish(n);
}
END_TEST

START_TEST(an_alarm_that_ends_while_it_is_told_is_freed_after_that)
{
    struct hs_notifier *n = notifier_new(tell_all, NULL);
    struct hs_alarm_hooks h = hooks();
    struct alarm a = {.blocks = true};

    h.repeats = true;
    arm(n, &a, hs_now(), &h);
    start(n);
    EVENTUALLY(a.entered);
    hs_alarm_end(a.handle);
    ck_assert_int_eq(a.released, 0);
    a.blocks = false;
    EVENTUALLY(a.released == 1);
    ck_assert_int_eq(a.told, 1);
    hs_token_unref(a.token);
    finish(n);
}
END_TEST

struct stopping {
    struct hs_notifier *n;
    atomic_bool done;
};

static void *
stop_patiently(void *arg)
{
    struct stopping *s = arg;

    hs_notifier_stop(s->n, HS_STOP_ALL);
    s->done = true;
    return NULL;
}

START_TEST(stopping_waits_for_the_call_or_does_not)
{
    struct hs_notifier *n = notifier_new(tell_all, NULL);
    struct hs_alarm_hooks h = hooks();
    struct alarm a = {.blocks = true}, never = {0};
    struct stopping patient = {.n = n};
    struct thread thread;
    struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);
    struct hs_alarm *refused;

    arm(n, &a, hs_now(), &h);
    arm(n, &never, HS_NEVER, &h);
    start(n);
    EVENTUALLY(a.entered);
    hs_notifier_stop(n, HS_STOP_IDLE);
    op.token = a.token;
    ASSERT_ERR(HS_E_CLOSED, hs_alarm_new(n, &h, &a, &op, fresh(), &refused));
    thread_start(&thread, stop_patiently, &patient);
    thread_wait_asleep(&thread);
    ck_assert(!patient.done);
    a.blocks = false;
    thread_join(&thread);
    ck_assert(hs_token_cancel(never.token, NULL, 0, NULL));
    disarm(&a);
    disarm(&never);
    ck_assert_int_eq(never.told, 0);
    finish(n);
}
END_TEST

static void
stop_ourselves(struct hs_notifier *n, void *arg)
{
    struct alarm *a = hs_notifier_next(n);

    (void)arg;
    hs_notifier_stop(n, HS_STOP_ALL);
    a->told++;
    ck_assert_ptr_null(hs_notifier_next(n));
}

START_TEST(each_notifier_of_the_process_can_be_stopped)
{
    struct hs_notifier *busy = notifier_new(tell_all, NULL), *idle = notifier_new(tell_all, NULL);
    struct hs_alarm_hooks h = hooks();
    struct alarm a = {.blocks = true}, b = {0};

    arm(busy, &a, hs_now(), &h);
    arm(idle, &b, hs_now() + 60 * SECOND, &h);
    start(busy);
    start(idle);
    EVENTUALLY(a.entered);
    hs_notifier_stop_each(HS_STOP_IDLE);
    hs_notifier_stop_each(HS_STOP_UNSEEN); /* There is nothing left to do. */
    ASSERT_OK(hs_token_set_deadline(b.token, hs_now()));
    a.blocks = false;
    disarm(&a);
    disarm(&b);
    ck_assert_int_eq(b.told, 0);
    finish(busy);
    finish(idle);
}
END_TEST

START_TEST(stopping_in_a_call_does_not_wait_for_itself)
{
    struct hs_notifier *n = notifier_new(stop_ourselves, NULL);
    struct hs_alarm_hooks h = hooks();
    struct alarm a = {0};

    arm(n, &a, hs_now(), &h);
    start(n);
    EVENTUALLY(a.told == 1);
    disarm(&a);
    finish(n);
}
END_TEST

static void
serve_late(struct hs_notifier *n, void *arg)
{
    atomic_int *fails = arg;

    if (*fails > 0)
        (*fails)--;
    else
        tell_all(n, NULL);
}

START_TEST(a_serve_that_cannot_is_called_again)
{
    atomic_int fails = 2;
    struct hs_notifier *n = notifier_new(serve_late, &fails);
    struct hs_alarm_hooks h = hooks();
    struct alarm a = {0};

    arm(n, &a, hs_now(), &h);
    start(n);
    EVENTUALLY(a.told == 1);
    disarm(&a);
    finish(n);
}
END_TEST

struct forking {
    struct hs_notifier *n;
    struct alarm *goes, *stays;
};

static int
look_in_child(void *arg)
{
    struct forking *f = arg;
    struct alarm fresh_one = {0};
    struct hs_alarm_hooks h = hooks();
    int64_t until = hs_now() + 5 * SECOND;

    arm(f->n, &fresh_one, hs_now(), &h);
    if (hs_notifier_start(f->n, NULL) != HS_OK)
        return 1;
    while (fresh_one.told == 0 && hs_now() < until)
        breathe();
    hs_alarm_end(f->goes->handle);
    hs_alarm_end(f->stays->handle);
    hs_alarm_end(fresh_one.handle);
    hs_notifier_stop(f->n, HS_STOP_ALL);
    return fresh_one.told == 1 && f->goes->told == 0 ? 0 : 2;
}

START_TEST(a_forked_child_has_a_thread_of_its_own_when_it_needs_one)
{
    struct hs_notifier *n = notifier_new(tell_all, NULL);
    struct hs_alarm_hooks h = hooks();
    struct alarm goes = {0}, stays = {0};
    struct forking f = {n, &goes, &stays};

    arm(n, &goes, hs_now() + 60 * SECOND, &h);
    arm(n, &stays, hs_now() + 60 * SECOND, &h);
    start(n);
    for (int i = 0; i < 20; i++)
        ck_assert_int_eq(in_child(look_in_child, &f), 0);
    ASSERT_OK(hs_token_set_deadline(goes.token, hs_now()));
    EVENTUALLY(goes.told == 1);
    disarm(&goes);
    disarm(&stays);
    finish(n);
}
END_TEST

static atomic_bool thread_ended;

static void
note_end(void *arg)
{
    (void)arg;
    thread_ended = true;
}

static void
end_thread(struct hs_notifier *n, void *arg)
{
    struct alarm *a = hs_notifier_next(n);

    (void)arg;
    a->told++;
    pthread_cleanup_push(note_end, NULL);
    pthread_exit(NULL);
    pthread_cleanup_pop(0);
}

static int
outlive_thread(void *arg)
{
    struct hs_notifier *n = notifier_new(end_thread, NULL);
    struct hs_alarm_hooks h = hooks();
    struct alarm a = {0}, later = {0};

    (void)arg;
    arm(n, &a, hs_now(), &h);
    start(n);
    EVENTUALLY(a.told == 1);
    EVENTUALLY(thread_ended);
    arm(n, &later, HS_NEVER, &h);
    hs_notifier_stop(n, HS_STOP_IDLE);
    hs_alarm_end(later.handle);
    hs_alarm_end(a.handle);
    hs_notifier_unref(n); /* The thread's reference stays. */
    return later.released == 1 ? 0 : 1;
}

/* As CPython before 3.14 ends a thread that wants to go on after the main one has gone. */
START_TEST(a_thread_that_is_ended_in_a_call_is_not_touched_again)
{
    ck_assert_int_eq(in_child(outlive_thread, NULL), 0);
}
END_TEST

static void
leave_quietly(void)
{
    _exit(7);
}

static void
fork_in_call(struct hs_notifier *n, void *arg)
{
    struct alarm *a = hs_notifier_next(n);
    struct rlimit none;
    _Atomic int *status = arg;
    int waited;
    pid_t child;

    if ((child = fork()) == 0) {
        (void)atexit(leave_quietly); /* The end of the last thread is the process's. */
        (void)getrlimit(RLIMIT_NOFILE, &none);
        none.rlim_cur = 0;
        (void)setrlimit(RLIMIT_NOFILE, &none);
        return;
    }
    ck_assert_int_eq(waitpid(child, &waited, 0), child);
    atomic_store(status, waited);
    a->told++;
    (void)hs_notifier_next(n);
}

/* And without a descriptor: what pthread_exit(3) loads cannot be opened then. */
START_TEST(a_child_of_a_fork_in_a_call_that_comes_back_just_ends)
{
    _Atomic int status = -1;
    struct hs_notifier *n = notifier_new(fork_in_call, &status);
    struct hs_alarm_hooks h = hooks();
    struct alarm a = {0};

    arm(n, &a, hs_now(), &h);
    start(n);
    EVENTUALLY(a.told == 1);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 7);
    disarm(&a);
    finish(n);
}
END_TEST

#define RACERS 4
#define ROUNDS 300

static void *
race(void *arg)
{
    struct hs_notifier *n = arg;
    struct hs_alarm_hooks h = hooks();

    for (int i = 0; i < ROUNDS; i++) {
        struct alarm a = {0};

        h.repeats = i % 3 == 0;
        arm(n, &a, i % 2 == 0 ? HS_NEVER : hs_now() + i * 100, &h);
        start(n);
        if (i % 4 == 0)
            ASSERT_OK(hs_token_set_deadline(a.token, hs_now() + 60 * SECOND));
        if (i % 8 == 0)
            EVENTUALLY(hs_token_cancel(a.token, NULL, 0, NULL));
        if (i % 8 == 0)
            EVENTUALLY(a.told >= 1);
        disarm(&a);
    }
    return NULL;
}

START_TEST(alarms_of_many_threads_come_and_go)
{
    struct hs_notifier *n = notifier_new(tell_all, NULL);
    struct thread threads[RACERS];

    for (size_t i = 0; i < RACERS; i++)
        thread_start(&threads[i], race, n);
    for (size_t i = 0; i < RACERS; i++)
        thread_join(&threads[i]);
    finish(n);
}
END_TEST

static bool
hears_again(long fds)
{
    short revents;

    (void)!hs_wait(-1, 0, NULL, hs_deadline_after(MS), fresh(), &revents);
    return count_fds() == fds;
}

/* Its thread may be asleep on the set, or not yet: either way time passes. */
START_TEST(alarms_are_told_though_the_program_has_closed_what_the_thread_waits_with)
{
    static const char *const kinds[] = {"eventpoll", "eventfd", "timerfd"};
    struct hs_notifier *n = notifier_new(tell_all, NULL);
    struct hs_alarm_hooks h = hooks();
    struct alarm a = {0}, b = {0}, last = {0};
    long before = count_fds();

    arm(n, &a, hs_deadline_after(50 * MS), &h);
    arm(n, &b, hs_deadline_after(200 * MS), &h);
    arm(n, &last, hs_deadline_after(600 * SECOND), &h); /* Keeps the thread, once it is there. */
    start(n);
    EVENTUALLY(close_all_of_kind(kinds[_i]) >= 1); /* Also of this thread's waker. */
    EVENTUALLY(a.told == 1);
    EVENTUALLY(b.told == 1);
    disarm(&a);
    disarm(&b);
    disarm(&last);
    finish(n);
    /* Ours gets another once it is found out. The number may have been the notifier's meanwhile. */
    EVENTUALLY(hears_again(before));
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("notifier");

    tcase_add_test(tc, a_deadline_is_told_once);
    tcase_add_test(tc, there_is_no_thread_without_an_alarm_that_was_started);
    tcase_add_test(tc, a_deadline_that_is_set_later_is_told);
    tcase_add_test(tc, an_alarm_that_repeats_is_stepped_again);
    tcase_add_test(tc, want_of_memory_delays_and_loses_nothing);
    tcase_add_test(tc, an_alarm_that_ends_while_it_is_told_is_freed_after_that);
    tcase_add_test(tc, stopping_waits_for_the_call_or_does_not);
    tcase_add_test(tc, each_notifier_of_the_process_can_be_stopped);
    tcase_add_test(tc, stopping_in_a_call_does_not_wait_for_itself);
    tcase_add_test(tc, a_serve_that_cannot_is_called_again);
    tcase_add_test(tc, a_forked_child_has_a_thread_of_its_own_when_it_needs_one);
    tcase_add_test(tc, a_thread_that_is_ended_in_a_call_is_not_touched_again);
    tcase_add_test(tc, a_child_of_a_fork_in_a_call_that_comes_back_just_ends);
    tcase_add_test(tc, alarms_of_many_threads_come_and_go);
    tcase_add_loop_test(
        tc, alarms_are_told_though_the_program_has_closed_what_the_thread_waits_with, 0, 3);
    return run_case(tc);
}
