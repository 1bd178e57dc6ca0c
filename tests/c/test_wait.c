/* test_wait.c: who wins when several things happen at once, what a signal does, whom a wake wakes.
 *
 * Covers hs_wait, hs_wait_op and hs_await_change of csrc/cancel and the hold count of
 * csrc/stream/fd.
 */
#include "support.h"

#include "../../csrc/cancel/wait.h"
#include "../../csrc/stream/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct hs_token *
token(int64_t deadline_ns)
{
    struct hs_token *t;

    ASSERT_OK(hs_token_new(NULL, 0, deadline_ns, NULL, fresh(), &t));
    return t;
}

/* Cancelled by the first look at the clock behind this thread's next wait, and so after a look at
 * whether it is cancelled. */
static _Thread_local struct hs_token *to_be_cancelled;
static _Thread_local bool has_waited;

int __real_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                 const sigset_t *mask);
int __wrap_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                 const sigset_t *mask);
int __real_clock_gettime(clockid_t clock, struct timespec *ts);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);

int
__wrap_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
    int rv = __real_ppoll(fds, n, timeout, mask);

    has_waited = true;
    return rv;
}

int
__wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
    struct hs_token *t = to_be_cancelled;

    if (t != NULL && has_waited) {
        to_be_cancelled = NULL;
        (void)hs_token_cancel(t, "test", 0, NULL);
    }
    return __real_clock_gettime(clock, ts);
}

struct ready {
    int fds[2];
};

/* A descriptor that is readable. */
static struct ready
ready_new(void)
{
    struct ready r;

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, r.fds), 0);
    put(r.fds[1], "x", 1);
    return r;
}

START_TEST(readiness_wins_over_a_passed_deadline)
{
    struct ready r = ready_new();
    short revents = 0;

    ASSERT_OK(hs_wait(r.fds[0], POLLIN, NULL, 1, fresh(), &revents));
    ck_assert_int_eq(revents, POLLIN);
    close_all(r.fds, 2);
}
END_TEST

START_TEST(an_ended_token_wins_over_readiness)
{
    struct hs_token *cancelled = token(HS_NEVER), *late = token(1);
    struct ready r = ready_new();
    short revents;

    ck_assert(hs_token_cancel(cancelled, NULL, 0, NULL));
    ASSERT_ERR(HS_E_CANCELLED, hs_wait(r.fds[0], POLLIN, cancelled, HS_NEVER, fresh(), &revents));
    ASSERT_ERR(HS_E_DEADLINE, hs_wait(r.fds[0], POLLIN, late, HS_NEVER, fresh(), &revents));
    close_all(r.fds, 2);
    hs_token_unref(cancelled);
    hs_token_unref(late);
}
END_TEST

START_TEST(deadlines_of_the_call_and_of_the_token_both_count)
{
    struct hs_token *t = token(hs_deadline_after(5 * MS));
    short revents;

    ASSERT_ERR(HS_E_DEADLINE, hs_wait(-1, 0, NULL, hs_deadline_after(5 * MS), fresh(), &revents));
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_wait(-1, 0, t, HS_NEVER, fresh(), &revents)));
    hs_token_unref(t);
}
END_TEST

static void
do_nothing(int sig)
{
    (void)sig;
}

static void *
wait_for_ever(void *arg)
{
    short revents;
    hs_err rv = hs_wait(-1, 0, arg, hs_deadline_after(10 * SECOND), fresh(), &revents);

    return (void *)(intptr_t)rv;
}

START_TEST(a_signal_handler_interrupts)
{
    struct sigaction act = {.sa_handler = do_nothing, .sa_flags = SA_RESTART};
    struct thread t;

    ck_assert_int_eq(sigaction(SIGUSR1, &act, NULL), 0);
    thread_start(&t, wait_for_ever, NULL);
    thread_wait_asleep(&t);
    ck_assert_int_eq(pthread_kill(t.id, SIGUSR1), 0);
    ck_assert_int_eq((intptr_t)thread_join(&t), HS_INTR);
}
END_TEST

START_TEST(a_quiet_second_gives_control_back)
{
    int64_t before = hs_now();
    short revents;

    ASSERT_ERR(HS_INTR, hs_wait(-1, 0, NULL, HS_NEVER, fresh(), &revents));
    ck_assert_int_ge(hs_now() - before, SECOND);
    ck_assert_int_lt(hs_now() - before, 3 * SECOND);
}
END_TEST

START_TEST(waiting_does_not_burn_the_processor)
{
    struct rusage before, after;
    struct hs_token *t = token(HS_NEVER);
    struct ready r = ready_new();
    char byte;
    short revents;

    get(r.fds[0], &byte, 1);
    for (int i = 0; i < 3; i++) { /* old rings in the waker must not keep it busy */
        struct thread waiter;

        thread_start(&waiter, wait_for_ever, t);
        thread_wait_asleep(&waiter);
        if (i == 0)
            ck_assert(hs_token_cancel(t, NULL, 0, NULL));
        (void)thread_join(&waiter);
        hs_token_unref(t);
        t = token(i < 1 ? hs_deadline_after(20 * MS) : 1);
        if (i > 0)
            break;
    }
    ck_assert_int_eq(getrusage(RUSAGE_THREAD, &before), 0);
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_wait(r.fds[0], POLLIN, NULL, hs_deadline_after(300 * MS),
                                           fresh(), &revents)));
    ck_assert_int_eq(getrusage(RUSAGE_THREAD, &after), 0);
    ck_assert_int_le(after.ru_nvcsw - before.ru_nvcsw, 20);
    hs_token_unref(t);
    close_all(r.fds, 2);
}
END_TEST

struct sleeper {
    struct hs_wakelist *list;
    atomic_bool news, woke;
};

static void *
sleep_on_list(void *arg)
{
    struct sleeper *s = arg;
    struct hs_wakenode node;
    short revents;

    hs_wakelist_join(s->list, &node);
    while (!s->news)
        (void)DONE(hs_wait(-1, 0, NULL, hs_deadline_after(10 * SECOND), fresh(), &revents));
    hs_wakelist_leave(s->list, &node);
    s->woke = true;
    return NULL;
}

START_TEST(a_wake_reaches_those_on_the_list_and_nobody_else)
{
    struct hs_wakelist a, b;
    struct sleeper on_a = {.list = &a}, on_b = {.list = &b};
    struct thread ta, tb;

    hs_wakelist_init(&a);
    hs_wakelist_init(&b);
    thread_start(&ta, sleep_on_list, &on_a);
    thread_start(&tb, sleep_on_list, &on_b);
    thread_wait_asleep(&ta);
    thread_wait_asleep(&tb);
    on_a.news = on_b.news = true;
    hs_wakelist_wake(&a);
    (void)thread_join(&ta);
    thread_wait_asleep(&tb);
    ck_assert(!on_b.woke);
    hs_wakelist_wake(&b);
    (void)thread_join(&tb);
    hs_wakelist_fini(&a);
    hs_wakelist_fini(&b);
}
END_TEST

static void *
wake_many(void *arg)
{
    struct sleeper *s = arg;

    while (!s->woke)
        hs_wakelist_wake(s->list);
    return NULL;
}

/* News are stored first, the list is woken after: they are seen although wakes pour in. */
START_TEST(no_wake_is_lost_among_many)
{
    struct hs_wakelist list;

    hs_wakelist_init(&list);
    for (int i = 0; i < 100; i++) {
        struct sleeper s = {.list = &list};
        struct thread sleeping, waking;

        thread_start(&sleeping, sleep_on_list, &s);
        thread_start(&waking, wake_many, &s);
        s.news = true;
        hs_wakelist_wake(&list);
        (void)thread_join(&sleeping);
        (void)thread_join(&waking);
    }
    hs_wakelist_fini(&list);
}
END_TEST

START_TEST(try_once_never_waits)
{
    struct hs_op op = HS_OP_INIT(HS_TRY_ONCE, NULL);
    short revents = 7;

    ASSERT_OK(hs_op_check(&op, HS_TRY_ONCE, fresh()));
    ASSERT_ERR(HS_E_DEADLINE, hs_wait_op(&op, -1, 0, HS_TRY_ONCE, HS_NEVER, fresh(), &revents));
    ck_assert_int_eq(revents, 7);
}
END_TEST

START_TEST(a_passed_deadline_fails_before_the_call)
{
    struct hs_token *t = token(HS_NEVER);
    struct hs_op op = HS_OP_INIT(1, t);

    ASSERT_ERR(HS_E_DEADLINE, hs_op_check(&op, op.deadline_ns, fresh()));
    ck_assert(hs_token_cancel(t, NULL, 0, NULL));
    ASSERT_ERR(HS_E_CANCELLED, hs_op_check(&op, op.deadline_ns, fresh()));
    hs_token_unref(t);
}
END_TEST

START_TEST(a_stepped_wait_says_what_to_watch)
{
    struct hs_token *t = token(hs_deadline_after(5 * SECOND));
    struct hs_op op = op_step(20 * SECOND);
    short revents;

    op.token = t;
    ASSERT_ERR(HS_WANT, hs_wait_op(&op, 42, POLLOUT, op.deadline_ns, HS_NEVER, fresh(), &revents));
    ck_assert_int_eq(op.want_fd, 42);
    ck_assert_int_eq(op.want_events, POLLOUT);
    ck_assert_int_eq(op.want_at_ns, hs_token_deadline(t));
    ASSERT_ERR(HS_WANT, hs_wait_op(&op, -1, 0, op.deadline_ns, 99, fresh(), &revents));
    ck_assert_int_eq(op.want_at_ns, 99);
    ck_assert_int_eq(op.want_fd, -1);
    ck_assert(hs_token_cancel(t, NULL, 0, NULL));
    ASSERT_ERR(HS_E_CANCELLED,
               hs_wait_op(&op, 42, POLLIN, op.deadline_ns, HS_NEVER, fresh(), &revents));
    hs_token_unref(t);
}
END_TEST

START_TEST(a_further_time_gives_control_back_without_error)
{
    struct hs_op op = op_in(10 * SECOND);
    int64_t until = hs_deadline_after(5 * MS);
    short revents = 7;

    ASSERT_OK(DONE(hs_wait_op(&op, -1, 0, op.deadline_ns, until, fresh(), &revents)));
    ck_assert_int_eq(revents, 0);
    ck_assert_int_ge(hs_now(), until);
}
END_TEST

START_TEST(a_cancellation_right_behind_a_further_time_is_told_as_one)
{
    struct hs_token *t = token(hs_deadline_after(3600 * SECOND));
    struct hs_op op = op_with(t);
    short revents;

    has_waited = false;
    to_be_cancelled = t;
    ASSERT_ERR(HS_E_CANCELLED,
               hs_wait_op(&op, -1, 0, op.deadline_ns, hs_deadline_after(MS), fresh(), &revents));
    ck_assert_ptr_null(to_be_cancelled);
    hs_token_unref(t);
}
END_TEST

static bool
is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

/* ---- Changes ------------------------------------------------------------------------------- */

struct looked {
    struct hs_wakelist list;
    atomic_int times;
    bool was_linked; /* when it was asked the first time */
    int ends_at;     /* the look that ends it */
    hs_err end;
    int64_t until_ns;
};

static hs_err
look(void *arg, struct hs_change *change)
{
    struct looked *l = arg;
    int times = atomic_fetch_add(&l->times, 1) + 1;

    if (times == 1) {
        hs_lock_take(&l->list.lock);
        l->was_linked = !hs_list_empty(&l->list.nodes);
        hs_lock_drop(&l->list.lock);
    }
    if (l->until_ns != 0)
        change->until_ns = l->until_ns;
    return times >= l->ends_at ? l->end : HS_WANT;
}

static void *
await_looked(void *arg)
{
    struct looked *l = arg;
    struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);
    hs_err rv;

    while ((rv = hs_await_change(&op, &l->list, look, l, NULL)) == HS_INTR)
        continue;
    ASSERT_OK(rv);
    return NULL;
}

/* It is linked as it looks, so a change after the look finds it; and it looks again when woken. */
START_TEST(a_change_is_looked_at_after_listening_and_after_each_wake)
{
    struct looked l = {.ends_at = 3, .end = HS_OK};
    pthread_t thread;

    hs_wakelist_init(&l.list);
    ck_assert_int_eq(pthread_create(&thread, NULL, await_looked, &l), 0);
    while (atomic_load(&l.times) < 3) {
        hs_wakelist_wake(&l.list);
        (void)sched_yield();
    }
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert(l.was_linked);
    hs_wakelist_fini(&l.list); /* asserts that it is linked no more */
}
END_TEST

START_TEST(what_look_says_ends_the_wait_without_one)
{
    struct looked l = {.ends_at = 1, .end = HS_E_CLOSED};
    struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);

    hs_wakelist_init(&l.list);
    ASSERT_ERR(HS_E_CLOSED, hs_await_change(&op, &l.list, look, &l, fresh()));
    ck_assert_int_eq(atomic_load(&l.times), 1);
    hs_wakelist_fini(&l.list);
}
END_TEST

/* The time that look sets ends a turn, not the call. */
START_TEST(look_is_asked_again_at_the_time_that_it_set)
{
    struct looked l = {.ends_at = 3, .end = HS_OK};
    struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);

    hs_wakelist_init(&l.list);
    l.until_ns = 1; /* long past */
    ASSERT_OK(hs_await_change(&op, &l.list, look, &l, fresh()));
    ck_assert_int_eq(atomic_load(&l.times), 3);
    hs_wakelist_fini(&l.list);
}
END_TEST

/* Neither a thread nor the waiter of a loop: nothing would ever unlink the latter. */
START_TEST(an_op_that_only_tries_listens_to_nothing)
{
    struct looked l = {.ends_at = 2, .end = HS_OK};
    struct hs_op op = HS_OP_INIT(HS_TRY_ONCE, NULL);
    struct hs_loop *loop;

    hs_wakelist_init(&l.list);
    ASSERT_ERR(HS_E_DEADLINE, hs_await_change(&op, &l.list, look, &l, fresh()));
    ck_assert(!l.was_linked);
    ASSERT_OK(hs_loop_new(fresh(), &loop));
    ASSERT_OK(hs_loop_waiter_new(loop, NULL, fresh(), &op.loop_waiter));
    op.stepping = true;
    atomic_store(&l.times, 0);
    ASSERT_ERR(HS_E_DEADLINE, hs_await_change(&op, &l.list, look, &l, fresh()));
    ck_assert(!l.was_linked);
    hs_wakelist_fini(&l.list);
    hs_loop_waiter_free(op.loop_waiter);
    hs_loop_free(loop);
}
END_TEST

START_TEST(a_stepped_op_is_due_after_a_change)
{
    struct looked l = {.ends_at = 2, .end = HS_OK};
    struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);
    struct hs_loop *loop;

    hs_wakelist_init(&l.list);
    ASSERT_OK(hs_loop_new(fresh(), &loop));
    ASSERT_OK(hs_loop_waiter_new(loop, &l, fresh(), &op.loop_waiter));
    op.stepping = true;
    ASSERT_ERR(HS_WANT, hs_await_change(&op, &l.list, look, &l, fresh()));
    ck_assert(l.was_linked);
    ASSERT_OK(hs_loop_waiter_park(op.loop_waiter, &op, fresh()));
    ck_assert_ptr_null(hs_loop_next(loop));
    hs_wakelist_wake(&l.list);
    hs_loop_collect(loop);
    ck_assert_ptr_eq(hs_loop_next(loop), &l);
    ASSERT_OK(hs_await_change(&op, &l.list, look, &l, fresh()));
    hs_loop_waiter_free(op.loop_waiter);
    hs_wakelist_fini(&l.list);
    hs_loop_free(loop);
}
END_TEST

/* ---- Holds --------------------------------------------------------------------------------- */

START_TEST(the_last_hold_closes_the_descriptor)
{
    int number = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct hs_fd f;

    hs_fd_init(&f, number);
    ASSERT_OK(hs_fd_hold(&f, fresh()));
    ASSERT_OK(hs_fd_hold(&f, fresh()));
    ck_assert(hs_fd_mark_closed(&f));
    ck_assert(!hs_fd_mark_closed(&f));
    ck_assert(hs_fd_is_closed(&f));
    ASSERT_ERR(HS_E_CLOSED, hs_fd_hold(&f, fresh()));
    hs_fd_drop(&f);
    hs_fd_drop(&f);
    ck_assert(is_open(number));
    ck_assert_int_eq(hs_fd_number(&f), number);
    hs_fd_drop(&f); /* the closer's */
    ck_assert(!is_open(number));
}
END_TEST

struct detaching {
    struct hs_fd fd;
    int number;
    atomic_bool done;
};

static void *
detach_one(void *arg)
{
    struct detaching *d = arg;

    ASSERT_OK(hs_fd_detach(&d->fd, 1, fresh(), &d->number));
    atomic_store(&d->done, true);
    return NULL;
}

START_TEST(detaching_is_refused_by_a_hold_and_waits_for_a_look)
{
    struct detaching d = {.number = -1};
    int number = dup(STDERR_FILENO);
    struct thread t;

    hs_fd_init(&d.fd, number);
    ASSERT_OK(hs_fd_hold(&d.fd, fresh()));
    ASSERT_OK(hs_fd_hold(&d.fd, fresh()));
    ASSERT_OK(hs_fd_look(&d.fd, fresh()));
    ASSERT_ERR(HS_E_BUSY, hs_fd_detach(&d.fd, 1, fresh(), &d.number));
    ck_assert_int_eq(d.number, -1);
    hs_fd_drop(&d.fd);
    ASSERT_OK(hs_fd_look(&d.fd, fresh()));
    thread_start(&t, detach_one, &d);
    EVENTUALLY(hs_fd_is_closed(&d.fd));
    ASSERT_ERR(HS_E_CLOSED, hs_fd_look(&d.fd, fresh())); /* No other can begin. */
    ck_assert(!hs_fd_mark_closed(&d.fd));
    hs_fd_look_end(&d.fd);
    ck_assert_int_eq(hs_fd_number(&d.fd), number); /* It is there for the other look. */
    ck_assert(!atomic_load(&d.done));
    hs_fd_look_end(&d.fd);
    (void)thread_join(&t);
    ck_assert_int_eq(d.number, number);
    ck_assert(is_open(number));
    (void)close(number);
}
END_TEST

START_TEST(last_look_closes_what_was_closed_meanwhile)
{
    int number = dup(STDERR_FILENO);
    struct hs_fd f;

    hs_fd_init(&f, number);
    ASSERT_OK(hs_fd_look(&f, fresh()));
    ck_assert(hs_fd_mark_closed(&f));
    hs_fd_drop(&f); /* the closer's */
    ck_assert(is_open(number));
    hs_fd_look_end(&f);
    ck_assert(!is_open(number));
}
END_TEST

/* Of two that take one number at the same time both may have found it free before. */
START_TEST(number_that_has_an_owner_cannot_be_taken)
{
    int number = dup(STDERR_FILENO), flags;
    struct hs_fd first, second;

    hs_fd_init(&first, number);
    flags = fcntl(number, F_GETFL);
    ASSERT_ERR(HS_E_INVALID, hs_fd_take(&second, number, "adopt", fresh()));
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "has an owner here already"));
    ck_assert_int_eq(fcntl(number, F_GETFL), flags); /* Nothing was changed. */
    ASSERT_OK(hs_fd_hold(&first, fresh()));
    hs_fd_drop(&first);
    ck_assert(hs_fd_mark_closed(&first));
    hs_fd_drop(&first);
}
END_TEST

START_TEST(a_number_is_not_given_out_again_while_it_is_held)
{
    int number = open("/dev/null", O_RDONLY | O_CLOEXEC), other;
    struct hs_fd f;

    hs_fd_init(&f, number);
    ASSERT_OK(hs_fd_hold(&f, fresh()));
    ck_assert(hs_fd_mark_closed(&f));
    hs_fd_drop(&f);
    ck_assert_int_ne(other = open("/dev/null", O_RDONLY | O_CLOEXEC), number);
    (void)close(other);
    hs_fd_drop(&f);
    ck_assert_int_eq(other = open("/dev/null", O_RDONLY | O_CLOEXEC), number);
    (void)close(other);
}
END_TEST

START_TEST(detaching_is_refused_while_somebody_holds_it)
{
    int number = open("/dev/null", O_RDONLY | O_CLOEXEC), got = -7;
    struct hs_fd f;

    hs_fd_init(&f, number);
    ASSERT_OK(hs_fd_hold(&f, fresh()));
    ASSERT_ERR(HS_E_BUSY, hs_fd_detach(&f, 0, fresh(), &got));
    ck_assert_int_eq(got, -7);
    hs_fd_drop(&f);
    ASSERT_OK(hs_fd_detach(&f, 0, fresh(), &got));
    ck_assert_int_eq(got, number);
    ck_assert(hs_fd_is_closed(&f));
    ck_assert(!hs_fd_mark_closed(&f));
    ASSERT_ERR(HS_E_CLOSED, hs_fd_detach(&f, 0, fresh(), &got));
    ck_assert(is_open(number));
    (void)close(number);
}
END_TEST

START_TEST(using_a_number_without_a_hold_ends_the_process)
{
    struct hs_fd f;

    hs_fd_init(&f, 0);
    (void)hs_fd_number(&f);
}
END_TEST

/* The shortest of several: on a slow machine each may be late. */
static void *
sleep_deaf(void *arg)
{
    int64_t *shortest = arg;
    struct hs_wakelist list;
    struct hs_wakenode node;
    short ignored;

    hs_wakelist_init(&list);
    hs_wakers_spare(hs_deadline_after(60 * SECOND));
    hs_wakelist_join(&list, &node);
    hs_wakers_spare(0);
    for (int i = 0; i < 5; i++) {
        int64_t began = hs_now();

        ASSERT_ERR(HS_INTR, hs_sleep(-1, 0, HS_NEVER, fresh(), &ignored));
        if (hs_now() - began < *shortest)
            *shortest = hs_now() - began;
    }
    hs_wakelist_leave(&list, &node);
    hs_wakelist_fini(&list);
    return NULL;
}

START_TEST(who_listens_without_a_waker_looks_up_often_though_it_gets_one)
{
    int64_t shortest = HS_NEVER;
    struct thread t;

    thread_start(&t, sleep_deaf, &shortest);
    thread_join(&t);
    ck_assert_int_lt(shortest, SECOND / 2);
}
END_TEST

/* ---- What the program has closed under us -------------------------------------------------- */

START_TEST(a_waker_that_was_closed_costs_looks_and_no_processor)
{
    int64_t until = hs_deadline_after(200 * MS);
    short revents;
    int rounds = 0;

    (void)!hs_wait(-1, 0, NULL, hs_deadline_after(MS), fresh(), &revents); /* It is made here. */
    ck_assert_int_eq(close_all_of_kind("eventfd"), 1);
    while (hs_wait(-1, 0, NULL, until, fresh(), &revents) != HS_E_DEADLINE)
        rounds++;
    ck_assert_int_le(rounds, 20);
}
END_TEST

START_TEST(rounds_of_a_thread_go_on_without_its_descriptor)
{
    int64_t until = hs_deadline_after(300 * MS);
    struct hs_wakelist list;
    struct hs_wakenode node;
    int rounds = 0, fds[2];

    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    ck_assert_int_eq(close(fds[0]) + close(fds[1]), 0);
    hs_wakelist_init(&list);
    hs_wakelist_join(&list, &node);
    for (; hs_now() < until; rounds++)
        hs_wait_round(&list, &node, fds[0], until);
    ck_assert_int_le(rounds, 12);
    hs_wakelist_wake(&list);
    hs_wait_round(&list, &node, fds[0], HS_NEVER); /* A wake is heard all the same. */
    hs_wakelist_leave(&list, &node);
    hs_wakelist_fini(&list);
}
END_TEST

START_TEST(a_round_hears_readiness_and_wakes)
{
    int64_t began = hs_now();
    struct hs_wakelist list;
    struct hs_wakenode node;
    int fds[2];

    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    hs_wakelist_init(&list);
    hs_wakelist_join(&list, &node);
    hs_wakelist_wake(&list);
    hs_wait_round(&list, &node, fds[0], hs_deadline_after(3600 * SECOND));
    ck_assert_int_eq(write(fds[1], "x", 1), 1);
    for (int i = 0; i < 100; i++)
        hs_wait_round(&list, &node, fds[0], hs_deadline_after(3600 * SECOND));
    ck_assert_int_lt(hs_now() - began, 15 * SECOND); /* Slices of a second would take 100. */
    hs_wakelist_leave(&list, &node);
    hs_wakelist_fini(&list);
    (void)close(fds[0]);
    (void)close(fds[1]);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("wait");

    tcase_add_test(tc, readiness_wins_over_a_passed_deadline);
    tcase_add_test(tc, an_ended_token_wins_over_readiness);
    tcase_add_test(tc, deadlines_of_the_call_and_of_the_token_both_count);
    tcase_add_test(tc, a_signal_handler_interrupts);
    tcase_add_test(tc, a_quiet_second_gives_control_back);
    tcase_add_test(tc, waiting_does_not_burn_the_processor);
    tcase_add_test(tc, a_wake_reaches_those_on_the_list_and_nobody_else);
    tcase_add_test(tc, no_wake_is_lost_among_many);
    tcase_add_test(tc, who_listens_without_a_waker_looks_up_often_though_it_gets_one);
    tcase_add_test(tc, try_once_never_waits);
    tcase_add_test(tc, a_passed_deadline_fails_before_the_call);
    tcase_add_test(tc, a_stepped_wait_says_what_to_watch);
    tcase_add_test(tc, a_further_time_gives_control_back_without_error);
    tcase_add_test(tc, a_cancellation_right_behind_a_further_time_is_told_as_one);
    tcase_add_test(tc, a_change_is_looked_at_after_listening_and_after_each_wake);
    tcase_add_test(tc, what_look_says_ends_the_wait_without_one);
    tcase_add_test(tc, look_is_asked_again_at_the_time_that_it_set);
    tcase_add_test(tc, an_op_that_only_tries_listens_to_nothing);
    tcase_add_test(tc, a_stepped_op_is_due_after_a_change);
    tcase_add_test(tc, the_last_hold_closes_the_descriptor);
    tcase_add_test(tc, detaching_is_refused_by_a_hold_and_waits_for_a_look);
    tcase_add_test(tc, last_look_closes_what_was_closed_meanwhile);
    tcase_add_test(tc, number_that_has_an_owner_cannot_be_taken);
    tcase_add_test(tc, a_number_is_not_given_out_again_while_it_is_held);
    tcase_add_test(tc, detaching_is_refused_while_somebody_holds_it);
    tcase_add_test_raise_signal(tc, using_a_number_without_a_hold_ends_the_process, SIGABRT);
    tcase_add_test(tc, a_waker_that_was_closed_costs_looks_and_no_processor);
    tcase_add_test(tc, rounds_of_a_thread_go_on_without_its_descriptor);
    tcase_add_test(tc, a_round_hears_readiness_and_wakes);
    return run_case(tc);
}
