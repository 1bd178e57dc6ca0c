/* Reactors: what is parked is given to one owner at a time, none is lost, none comes too early.
 *
 * The things are ends of socket pairs. Besides single behaviours there is a model, which acts in an
 * order that a seed decides, and a storm of threads. A failure of the model names its seed.
 */
#include "support.h"

#include "../../csrc/cancel/reactor.h"

#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CROWD 8
#define LONG_AGO 1

struct thing {
    struct hs_parked parked;
    int fd, peer;
    atomic_int owners;
    atomic_long turns;
};

static void
thing_init(struct thing *t)
{
    int fds[2];

    *t = (struct thing){0};
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    t->fd = fds[0];
    t->peer = fds[1];
}

static void
thing_fini(struct hs_reactor *r, struct thing *t)
{
    hs_reactor_forget(r, &t->parked);
    (void)close(t->fd);
    (void)close(t->peer);
}

static struct hs_reactor *
reactor(void)
{
    struct hs_reactor *r;

    ASSERT_OK(hs_reactor_new(fresh(), &r));
    return r;
}

static void
park(struct hs_reactor *r, struct thing *t, int64_t at_ns)
{
    ASSERT_OK(hs_reactor_park(r, &t->parked, t->fd, EPOLLIN, at_ns, fresh()));
}

static struct thing *
thing_of(struct hs_parked *p)
{
    return HS_CONTAINER(p, struct thing, parked);
}

/* NULL: nothing is due. */
static struct thing *
next_now(struct hs_reactor *r)
{
    struct hs_parked *p = NULL;
    hs_err rv = hs_reactor_next(r, false, fresh(), &p);

    if (rv == HS_WANT)
        return NULL;
    ASSERT_OK(rv);
    return thing_of(p);
}

static struct thing *
poll_now(struct hs_reactor *r)
{
    struct hs_parked *p = NULL;
    hs_err rv = hs_reactor_poll(r, fresh(), &p);

    if (rv == HS_WANT)
        return NULL;
    ASSERT_OK(rv);
    return thing_of(p);
}

static bool
readable_within(struct hs_reactor *r, int ms)
{
    struct pollfd fd = {.fd = hs_reactor_fileno(r), .events = POLLIN};

    return poll(&fd, 1, ms) == 1;
}

static struct thing *
next_waiting(struct hs_reactor *r)
{
    struct hs_parked *p = NULL;

    ASSERT_OK(DONE(hs_reactor_next(r, true, fresh(), &p)));
    return thing_of(p);
}

static void
say(struct thing *t)
{
    put(t->peer, "x", 1);
}

static void
hear(struct thing *t)
{
    char byte;

    ck_assert_int_eq(read(t->fd, &byte, 1), 1);
}

static struct hs_reactor_counts
counts(struct hs_reactor *r)
{
    struct hs_reactor_counts c;

    hs_reactor_counts(r, &c);
    return c;
}

static bool
sleeping(struct hs_reactor *r, size_t n)
{
    return counts(r).sleeping == n;
}

START_TEST(what_is_ready_is_given_once)
{
    struct hs_reactor *r = reactor();
    struct thing t;

    thing_init(&t);
    park(r, &t, HS_NEVER);
    ck_assert_ptr_null(next_now(r));
    say(&t);
    ck_assert_ptr_eq(next_now(r), &t);
    ck_assert_int_eq(t.parked.cause, HS_CAUSE_READY);
    ck_assert_uint_eq(t.parked.events, EPOLLIN);
    ck_assert_ptr_null(next_now(r)); /* though there is still something to read */
    park(r, &t, HS_NEVER);
    ck_assert_ptr_eq(next_waiting(r), &t);
    thing_fini(r, &t);
    hs_reactor_free(r);
}
END_TEST

START_TEST(a_time_that_has_come_is_due_and_leaves_the_descriptor_silent)
{
    struct hs_reactor *r = reactor();
    struct thing t;

    thing_init(&t);
    park(r, &t, hs_now() + MS);
    ck_assert_ptr_eq(next_waiting(r), &t);
    ck_assert_int_eq(t.parked.cause, HS_CAUSE_TIME);
    say(&t); /* It is still armed, for an earlier time. */
    ASSERT_OK(hs_reactor_park(r, &t.parked, -1, 0, HS_NEVER, fresh()));
    ck_assert_ptr_null(next_now(r));
    hs_reactor_call(r, &t.parked);
    ck_assert_ptr_eq(next_now(r), &t);
    ck_assert_int_eq(t.parked.cause, HS_CAUSE_CALLED);
    thing_fini(r, &t);
    hs_reactor_free(r);
}
END_TEST

START_TEST(times_come_in_their_order_and_readiness_takes_one_back)
{
    struct hs_reactor *r = reactor();
    struct thing t[3];
    int64_t now = hs_now(), unit = 20 * MS * slowness();

    for (int i = 0; i < 3; i++) {
        thing_init(&t[i]);
        park(r, &t[i], now + (3 - i) * unit);
    }
    say(&t[1]);
    ck_assert_ptr_eq(next_waiting(r), &t[1]);
    ck_assert_ptr_eq(next_waiting(r), &t[2]);
    ck_assert_int_ge(hs_now(), now + unit);
    ck_assert_ptr_eq(next_waiting(r), &t[0]);
    ck_assert_int_ge(hs_now(), now + 3 * unit);
    for (int i = 0; i < 3; i++)
        thing_fini(r, &t[i]);
    hs_reactor_free(r);
}
END_TEST

START_TEST(who_is_queued_comes_behind_all_that_are_ready)
{
    struct hs_reactor *r = reactor();
    struct thing greedy, quiet;

    thing_init(&greedy);
    thing_init(&quiet);
    park(r, &quiet, HS_NEVER);
    hs_reactor_queue(r, &greedy.parked);
    say(&quiet);
    ck_assert_ptr_eq(next_now(r), &greedy);
    hs_reactor_queue(r, &greedy.parked);
    ck_assert_ptr_eq(next_now(r), &quiet);
    ck_assert_ptr_eq(next_now(r), &greedy);
    thing_fini(r, &greedy);
    thing_fini(r, &quiet);
    hs_reactor_free(r);
}
END_TEST

START_TEST(calling_what_has_an_owner_does_nothing)
{
    struct hs_reactor *r = reactor();
    struct thing t;

    thing_init(&t);
    hs_reactor_call(r, &t.parked);
    ck_assert_ptr_null(next_now(r));
    hs_reactor_queue(r, &t.parked);
    hs_reactor_call(r, &t.parked);
    ck_assert_ptr_eq(next_now(r), &t);
    ck_assert_ptr_null(next_now(r));
    thing_fini(r, &t);
    hs_reactor_free(r);
}
END_TEST

START_TEST(all_that_wait_can_be_taken_the_longest_first)
{
    struct hs_reactor *r = reactor();
    struct thing t[3];

    for (int i = 0; i < 3; i++) {
        thing_init(&t[i]);
        park(r, &t[i], hs_now() + 100 * SECOND);
    }
    say(&t[1]);
    ck_assert_ptr_eq(next_now(r), &t[1]);
    ck_assert_ptr_eq(hs_reactor_take(r, 0, NULL, NULL), &t[0].parked);
    ck_assert_ptr_eq(hs_reactor_take(r, 0, NULL, NULL), &t[2].parked);
    ck_assert_ptr_null(hs_reactor_take(r, 0, NULL, NULL));
    for (int i = 0; i < 3; i++)
        thing_fini(r, &t[i]);
    hs_reactor_free(r);
}
END_TEST

static bool
is_wanted(const struct hs_parked *p, const void *arg)
{
    ++*(int *)(uintptr_t)arg;
    return p->lane == 1 && HS_CONTAINER(p, const struct thing, parked)->turns == 1;
}

/* Of ten thousand that wait in the other lane none is looked at, nor any behind the first. */
START_TEST(only_the_first_of_a_lane_is_looked_at)
{
    struct hs_reactor *r = reactor();
    struct thing t[6];
    int looks = 0;

    for (int i = 0; i < 6; i++) {
        thing_init(&t[i]);
        t[i].parked.lane = i % 2;
        t[i].turns = i == 3;
        park(r, &t[i], HS_NEVER);
    }
    ck_assert_ptr_null(hs_reactor_take(r, 1, is_wanted, &looks));
    ck_assert_ptr_eq(hs_reactor_take(r, 1, NULL, NULL), &t[1].parked);
    ck_assert_ptr_eq(hs_reactor_take(r, 1, is_wanted, &looks), &t[3].parked);
    ck_assert_int_eq(looks, 2);
    ck_assert_ptr_eq(hs_reactor_take(r, 0, NULL, NULL), &t[0].parked);
    hs_reactor_call_all(r);
    for (int i = 0; i < 3; i++) /* Those of both lanes. */
        ck_assert_ptr_nonnull(next_now(r));
    ck_assert_ptr_null(next_now(r));
    for (int i = 0; i < 6; i++)
        thing_fini(r, &t[i]);
    hs_reactor_free(r);
}
END_TEST

START_TEST(the_oldest_is_taken_first_however_often_it_was_parked_again)
{
    static const int64_t since[] = {30, 10, 0, 20, 40};
    static const int order[] = {1, 3, 0, 4, 2};
    struct hs_reactor *r = reactor();
    struct thing t[LENGTH(since)];

    for (size_t i = 0; i < LENGTH(t); i++) {
        thing_init(&t[i]);
        t[i].parked.since_ns = since[i];
        park(r, &t[i], HS_NEVER);
    }
    for (int i = 0; i < 3; i++) {
        say(&t[i]);
        ck_assert_ptr_eq(next_now(r), &t[i]);
        hear(&t[i]);
        park(r, &t[i], HS_NEVER);
    }
    for (size_t i = 0; i < LENGTH(t); i++)
        ck_assert_ptr_eq(hs_reactor_take(r, 0, NULL, NULL), &t[order[i]].parked);
    ck_assert_ptr_null(hs_reactor_take(r, 0, NULL, NULL));
    for (size_t i = 0; i < LENGTH(t); i++)
        thing_fini(r, &t[i]);
    hs_reactor_free(r);
}
END_TEST

START_TEST(one_that_waits_can_be_taken_wherever_it_stands)
{
    struct hs_reactor *r = reactor();
    struct thing t[4];

    for (int i = 0; i < 4; i++) {
        thing_init(&t[i]);
        ck_assert(!hs_reactor_take_this(r, &t[i].parked)); /* It was never parked. */
        park(r, &t[i], hs_now() + 100 * SECOND);
    }
    ck_assert(hs_reactor_take_this(r, &t[2].parked));
    ck_assert(!hs_reactor_take_this(r, &t[2].parked)); /* It is ours. */
    hs_reactor_call(r, &t[1].parked);
    ck_assert(!hs_reactor_take_this(r, &t[1].parked)); /* It is due. */
    ck_assert(hs_reactor_take_this(r, &t[3].parked));
    ck_assert_uint_eq(counts(r).waiting, 1);
    ck_assert_ptr_eq(next_now(r), &t[1]);
    ck_assert(hs_reactor_take_this(r, &t[0].parked));
    for (int i = 0; i < 4; i++)
        say(&t[i]);
    ck_assert_ptr_null(next_now(r)); /* What was taken is silent. */
    for (int i = 0; i < 4; i++)
        thing_fini(r, &t[i]);
    hs_reactor_free(r);
}
END_TEST

START_TEST(a_descriptor_that_cannot_be_watched_stays_its_owner_s)
{
    struct hs_reactor *r = reactor();
    struct thing t;
    int fds[2];

    thing_init(&t);
    ck_assert_int_eq(pipe(fds), 0);
    (void)close(fds[0]);
    ASSERT_ERR(HS_E_SYSTEM, hs_reactor_park(r, &t.parked, fds[0], EPOLLIN, HS_NEVER, fresh()));
    ck_assert_uint_eq(counts(r).waiting, 0);
    park(r, &t, HS_NEVER);
    ck_assert_ptr_eq(hs_reactor_take(r, 0, NULL, NULL), &t.parked);
    (void)close(fds[1]);
    thing_fini(r, &t);
    hs_reactor_free(r);
}
END_TEST

struct waiter {
    struct hs_reactor *r;
    struct thing *got;
    hs_err rv;
};

static void *
wait_for_one(void *arg)
{
    struct waiter *w = arg;
    struct hs_parked *p = NULL;

    w->rv = DONE(hs_reactor_next(w->r, true, fresh(), &p));
    w->got = w->rv == HS_OK ? thing_of(p) : NULL;
    return NULL;
}

START_TEST(closing_lets_all_go_who_wait)
{
    struct waiter w[CROWD];
    struct thread threads[CROWD];
    struct hs_reactor *r = reactor();

    for (int i = 0; i < CROWD; i++) {
        w[i] = (struct waiter){.r = r};
        thread_start(&threads[i], wait_for_one, &w[i]);
    }
    EVENTUALLY(sleeping(r, CROWD));
    hs_reactor_close(r);
    for (int i = 0; i < CROWD; i++) {
        (void)thread_join(&threads[i]);
        ASSERT_ERR(HS_E_CLOSED, w[i].rv);
    }
    hs_reactor_free(r);
}
END_TEST

START_TEST(a_closed_one_still_gives_what_is_due)
{
    struct hs_reactor *r = reactor();
    struct hs_parked *p;
    struct thing t;

    thing_init(&t);
    hs_reactor_queue(r, &t.parked);
    hs_reactor_close(r);
    ck_assert_ptr_eq(next_waiting(r), &t);
    ASSERT_ERR(HS_E_CLOSED, hs_reactor_next(r, true, fresh(), &p));
    thing_fini(r, &t);
    hs_reactor_free(r);
}
END_TEST

/* Parked quietly, and found so by who polls; then the thing happens. */
static void
expect_told(struct hs_reactor *r, struct thing *t,
            void (*happen)(struct hs_reactor *, struct thing *))
{
    thing_init(t);
    park(r, t, HS_NEVER);
    ck_assert_ptr_null(poll_now(r));
    ck_assert(!readable_within(r, 0));
    happen(r, t);
    ck_assert(readable_within(r, 10000));
    ck_assert_ptr_eq(poll_now(r), t);
    ck_assert_ptr_null(poll_now(r));
    ck_assert(!readable_within(r, 0));
    thing_fini(r, t);
}

static void
it_speaks(struct hs_reactor *r, struct thing *t)
{
    (void)r;
    say(t);
}

static void
it_is_called(struct hs_reactor *r, struct thing *t)
{
    hs_reactor_call(r, &t->parked);
}

static void
all_are_called(struct hs_reactor *r, struct thing *t)
{
    (void)t;
    hs_reactor_call_all(r);
}

static void
it_is_queued(struct hs_reactor *r, struct thing *t)
{
    ck_assert_ptr_eq(thing_of(hs_reactor_take(r, 0, NULL, NULL)), t);
    hs_reactor_queue(r, &t->parked);
}

static void
its_time_comes(struct hs_reactor *r, struct thing *t)
{
    ck_assert_ptr_eq(thing_of(hs_reactor_take(r, 0, NULL, NULL)), t);
    park(r, t, hs_now() + MS);
}

static void
somebody_collects(struct hs_reactor *r, struct thing *t)
{
    say(t);
    hs_reactor_collect(r);
}

START_TEST(who_polls_is_told_by_the_descriptor_whatever_happens)
{
    static void (*const all[])(struct hs_reactor *, struct thing *) = {
        it_speaks, it_is_called, all_are_called, it_is_queued, its_time_comes, somebody_collects};
    struct hs_reactor *r = reactor();
    struct hs_parked *p;
    struct thing t;

    for (size_t i = 0; i < LENGTH(all); i++)
        expect_told(r, &t, all[i]);
    hs_reactor_close(r);
    ck_assert(readable_within(r, 10000));
    ASSERT_ERR(HS_E_CLOSED, hs_reactor_poll(r, fresh(), &p));
    hs_reactor_free(r);
}
END_TEST

/* What the two who poll see is one thing: who takes less than there is leaves the descriptor
 * readable for the next, however often. */
START_TEST(one_that_polls_may_leave_the_rest_to_others)
{
    struct hs_reactor *r = reactor();
    struct thing t[CROWD];
    struct hs_parked *p;

    for (int i = 0; i < CROWD; i++)
        thing_init(&t[i]);
    ASSERT_ERR(HS_WANT, hs_reactor_poll_any(r, fresh(), &p));
    /* 1. Said by the kernel, one by one. 2. Times, which come all at once. 3. Called ones. */
    for (int how = 0; how < 3; how++) {
        for (int i = 0; i < CROWD; i++) {
            park(r, &t[i], how == 1 ? hs_now() + MS : HS_NEVER);
            if (how == 0)
                say(&t[i]);
        }
        if (how == 2)
            hs_reactor_call_all(r);
        for (int i = 0; i < CROWD; i++) {
            ck_assert(readable_within(r, 10000));
            while (hs_reactor_poll_any(r, fresh(), &p) == HS_WANT) /* The timer is not there yet. */
                ck_assert(readable_within(r, 10000));
            if (how == 0)
                hear(thing_of(p));
        }
        ASSERT_ERR(HS_WANT, hs_reactor_poll_any(r, fresh(), &p));
        ck_assert(!readable_within(r, 0));
    }
    hs_reactor_close(r);
    for (int i = 0; i < 2; i++) {
        ck_assert(readable_within(r, 10000));
        ASSERT_ERR(HS_E_CLOSED, hs_reactor_poll_any(r, fresh(), &p));
    }
    for (int i = 0; i < CROWD; i++)
        thing_fini(r, &t[i]);
    hs_reactor_free(r);
}
END_TEST

START_TEST(a_lane_tells_how_many_have_an_age_and_the_earliest)
{
    struct hs_reactor *r = reactor();
    struct thing t[3];

    for (int i = 0; i < 3; i++) {
        thing_init(&t[i]);
        t[i].parked.lane = 1;
        t[i].parked.since_ns = i == 2 ? 0 : 7 - i;
    }
    ck_assert_int_eq(hs_reactor_earliest(r, 1), HS_NEVER);
    for (int i = 0; i < 3; i++)
        park(r, &t[i], HS_NEVER);
    ck_assert_uint_eq(hs_reactor_count(r, 0), 0);
    ck_assert_uint_eq(hs_reactor_count(r, 1), 2);
    ck_assert_int_eq(hs_reactor_earliest(r, 1), 6);
    for (int i = 0; i < 3; i++) {
        ck_assert(hs_reactor_take_this(r, &t[i].parked));
        thing_fini(r, &t[i]);
    }
    hs_reactor_free(r);
}
END_TEST

START_TEST(who_leaves_with_an_open_descriptor_is_heard_of_no_more)
{
    struct hs_reactor *r = reactor();
    struct thing t;

    thing_init(&t);
    park(r, &t, HS_NEVER);
    ck_assert(hs_reactor_take_this(r, &t.parked));
    hs_reactor_leave(r, &t.parked, t.fd);
    say(&t);
    ck_assert(!readable_within(r, 0));
    hs_reactor_leave(r, &t.parked, t.fd); /* It is not there. */
    thing_fini(r, &t);
    hs_reactor_free(r);
}
END_TEST

static void
one_each(bool queue)
{
    struct waiter w[CROWD];
    struct thread threads[CROWD];
    struct thing t[CROWD];
    struct hs_reactor *r = reactor();

    for (int i = 0; i < CROWD; i++) {
        thing_init(&t[i]);
        if (!queue)
            park(r, &t[i], HS_NEVER);
        w[i] = (struct waiter){.r = r};
        thread_start(&threads[i], wait_for_one, &w[i]);
    }
    EVENTUALLY(sleeping(r, CROWD));
    for (int i = 0; i < CROWD; i++)
        if (queue)
            hs_reactor_queue(r, &t[i].parked);
        else
            say(&t[i]);
    for (int i = 0; i < CROWD; i++) {
        (void)thread_join(&threads[i]);
        ASSERT_OK(w[i].rv);
        ck_assert_int_eq(atomic_fetch_add(&w[i].got->owners, 1), 0);
    }
    for (int i = 0; i < CROWD; i++)
        thing_fini(r, &t[i]);
    hs_reactor_free(r);
}

START_TEST(each_of_a_crowd_that_waits_is_given_one_that_is_ready)
{
    one_each(false);
}
END_TEST

START_TEST(each_of_a_crowd_that_waits_is_given_one_that_is_queued)
{
    one_each(true);
}
END_TEST

static int
use_in_child(void *arg)
{
    struct hs_reactor *r = arg;
    struct hs_parked *p, mine = {0};

    if (hs_reactor_next(r, true, fresh(), &p) != HS_E_FORKED ||
        hs_reactor_park(r, &mine, -1, 0, HS_NEVER, fresh()) != HS_E_FORKED ||
        hs_reactor_take(r, 0, NULL, NULL) != NULL || hs_reactor_take_this(r, &mine))
        return 1;
    hs_reactor_queue(r, &mine);
    hs_reactor_free(r);
    return 0;
}

START_TEST(a_forked_child_can_only_free_it)
{
    struct hs_reactor *r = reactor();
    struct thing t;

    thing_init(&t);
    park(r, &t, HS_NEVER);
    ck_assert_int_eq(in_child(use_in_child, r), 0);
    say(&t);
    ck_assert_ptr_eq(next_now(r), &t);
    thing_fini(r, &t);
    hs_reactor_free(r);
}
END_TEST

/* ---- A model ------------------------------------------------------------------------------- */

#define THINGS 6
#define ACTS 400

enum belief { MINE, PARKED, DUE };

struct world {
    struct hs_reactor *r;
    struct thing things[THINGS];
    enum belief belief[THINGS];
    int said[THINGS];  /* bytes that were not read */
    bool late[THINGS]; /* parked with a time that has passed */
    bool watching;     /* the last to poll found nothing */
    uint64_t random;
};

static unsigned
pick(struct world *w, unsigned n)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return (unsigned)((w->random >> 11) % n);
}

static void
check_given(struct world *w, const struct thing *t)
{
    ptrdiff_t i = t - w->things;

    ck_assert_int_ne(w->belief[i], MINE);
    if (w->belief[i] == PARKED)
        ck_assert(t->parked.cause == HS_CAUSE_READY ? w->said[i] > 0 : w->late[i]);
    w->belief[i] = MINE;
    w->late[i] = false;
}

static void
act_on_own(struct world *w, unsigned i)
{
    struct thing *t = &w->things[i];

    switch (pick(w, 5)) {
    case 0:
        hs_reactor_queue(w->r, &t->parked);
        w->belief[i] = DUE;
        break;
    case 1:
        if (w->said[i] > 0) {
            hear(t);
            w->said[i]--;
        }
        break;
    case 2:
        hs_reactor_forget(w->r, &t->parked);
        break;
    default:
        w->late[i] = pick(w, 3) == 0;
        park(w->r, t, w->late[i] ? LONG_AGO : pick(w, 2) == 0 ? HS_NEVER : hs_now() + 100 * SECOND);
        w->belief[i] = PARKED;
    }
}

static void
act_take_this(struct world *w, unsigned i)
{
    if (hs_reactor_take_this(w->r, &w->things[i].parked)) {
        ck_assert_int_eq(w->belief[i], PARKED);
        w->belief[i] = MINE;
        w->late[i] = false;
    } else if (w->belief[i] == PARKED) { /* It has become due by itself. */
        ck_assert(w->late[i] || w->said[i] > 0);
    }
}

static void
act(struct world *w)
{
    unsigned i = pick(w, THINGS);
    struct thing *t;
    struct hs_parked *p;

    switch (pick(w, 8)) {
    case 0:
        if (w->said[i] < 3) {
            say(&w->things[i]);
            w->said[i]++;
        }
        break;
    case 1:
        hs_reactor_call(w->r, &w->things[i].parked);
        if (w->belief[i] == PARKED)
            w->belief[i] = DUE;
        break;
    case 2:
        if ((t = next_now(w->r)) != NULL)
            check_given(w, t);
        break;
    case 3:
        if (pick(w, 10) == 0 && (p = hs_reactor_take(w->r, 0, NULL, NULL)) != NULL) {
            ck_assert_int_eq(w->belief[thing_of(p) - w->things], PARKED);
            w->belief[thing_of(p) - w->things] = MINE;
            w->late[thing_of(p) - w->things] = false;
        }
        break;
    case 4:
        if ((t = poll_now(w->r)) != NULL)
            check_given(w, t);
        w->watching = t == NULL;
        break;
    case 5:
        act_take_this(w, i);
        break;
    default:
        if (w->belief[i] == MINE)
            act_on_own(w, i);
    }
}

/* All that ought to be due comes, and nothing else. */
static void
settle(struct world *w)
{
    size_t expected = 0, quiet = 0;

    for (int i = 0; i < THINGS; i++) {
        bool due =
            w->belief[i] == DUE || (w->belief[i] == PARKED && (w->late[i] || w->said[i] > 0));

        expected += due;
        quiet += w->belief[i] == PARKED && !due;
    }
    if (w->watching && expected > 0)
        ck_assert(readable_within(w->r, 10000));
    for (; expected > 0; expected--)
        check_given(w, next_waiting(w->r));
    ck_assert_ptr_null(next_now(w->r));
    ck_assert_uint_eq(counts(w->r).waiting, quiet);
    for (; quiet > 0; quiet--)
        ck_assert_ptr_nonnull(hs_reactor_take(w->r, 0, NULL, NULL));
}

START_TEST(any_order_of_acts_keeps_the_promises)
{
    struct world w = {.random = ((uint64_t)_i + 1) * UINT64_C(0x9e3779b97f4a7c15)};

    w.r = reactor();
    for (int i = 0; i < THINGS; i++)
        thing_init(&w.things[i]);
    for (int i = 0; i < ACTS; i++)
        act(&w);
    settle(&w);
    for (int i = 0; i < THINGS; i++)
        thing_fini(w.r, &w.things[i]);
    hs_reactor_free(w.r);
}
END_TEST

/* ---- A storm ------------------------------------------------------------------------------- */

#define MANY 100
#define TURNS 200

struct storm {
    struct hs_reactor *r;
    struct thing things[MANY];
    atomic_int done;
    atomic_bool over;
};

/* What the owner of one does: reads, asks for more, lets it wait in one of four ways. */
static void
take_turn(struct storm *s, struct thing *t)
{
    long turn = atomic_fetch_add(&t->turns, 1) + 1;
    char bytes[16];
    ssize_t ignored = read(t->fd, bytes, sizeof(bytes));

    (void)ignored;
    ck_assert_int_eq(atomic_fetch_sub(&t->owners, 1), 1);
    if (turn >= TURNS) {
        if (atomic_fetch_add(&s->done, 1) == MANY - 1)
            hs_reactor_close(s->r);
    } else if (turn % 4 == 0) {
        hs_reactor_queue(s->r, &t->parked);
    } else if (turn % 4 == 1) {
        park(s->r, t, hs_now() + (turn % 3) * MS / 4);
    } else {
        say(t);
        park(s->r, t, turn % 8 == 2 ? hs_now() + MS : HS_NEVER);
    }
}

static void *
weather(void *arg)
{
    struct storm *s = arg;
    struct hs_parked *p;
    hs_err rv;

    while ((rv = DONE(hs_reactor_next(s->r, true, fresh(), &p))) == HS_OK) {
        ck_assert_int_eq(atomic_fetch_add(&thing_of(p)->owners, 1), 0);
        take_turn(s, thing_of(p));
    }
    ASSERT_ERR(HS_E_CLOSED, rv);
    return NULL;
}

/* The same as weather, of those that wait for the descriptor only. */
static void
poll_storm(struct storm *s,
           hs_err (*poll_it)(struct hs_reactor *, struct hs_error *, struct hs_parked **))
{
    struct hs_parked *p;
    hs_err rv;

    while ((rv = poll_it(s->r, fresh(), &p)) != HS_E_CLOSED) {
        if (rv == HS_WANT) {
            ck_assert(readable_within(s->r, 10000));
            continue;
        }
        ASSERT_OK(rv);
        ck_assert_int_eq(atomic_fetch_add(&thing_of(p)->owners, 1), 0);
        take_turn(s, thing_of(p));
    }
}

static void *
watch(void *arg)
{
    poll_storm(arg, hs_reactor_poll);
    return NULL;
}

static void *
watch_with_others(void *arg)
{
    poll_storm(arg, hs_reactor_poll_any);
    return NULL;
}

/* Calls and takes what others park, as somebody who drains does. */
static void *
disturb(void *arg)
{
    struct storm *s = arg;
    struct hs_parked *p;

    for (unsigned i = 0; !atomic_load(&s->over); i++) {
        hs_reactor_call(s->r, &s->things[i % MANY].parked);
        if (i % 5 == 0 && hs_reactor_take_this(s->r, &s->things[i % MANY].parked)) {
            ck_assert_int_eq(atomic_fetch_add(&s->things[i % MANY].owners, 1), 0);
            take_turn(s, &s->things[i % MANY]);
        }
        if (i % 7 == 0 && (p = hs_reactor_take(s->r, 0, NULL, NULL)) != NULL) {
            ck_assert_int_eq(atomic_fetch_add(&thing_of(p)->owners, 1), 0);
            take_turn(s, thing_of(p));
        }
        breathe();
    }
    return NULL;
}

static void
brew(int workers, void *(*work)(void *))
{
    static struct storm s;
    struct thread threads[CROWD], disturber;

    memset(&s, 0, sizeof(s));
    s.r = reactor();
    for (int i = 0; i < MANY; i++) {
        thing_init(&s.things[i]);
        hs_reactor_queue(s.r, &s.things[i].parked);
    }
    for (int i = 0; i < workers; i++)
        thread_start(&threads[i], work, &s);
    thread_start(&disturber, disturb, &s);
    for (int i = 0; i < workers; i++)
        (void)thread_join(&threads[i]);
    atomic_store(&s.over, true);
    (void)thread_join(&disturber);
    for (int i = 0; i < MANY; i++) {
        ck_assert_int_eq(atomic_load(&s.things[i].turns), TURNS);
        thing_fini(s.r, &s.things[i]);
    }
    hs_reactor_free(s.r);
}

START_TEST(a_storm_of_threads_gives_each_to_one_at_a_time)
{
    brew(CROWD, weather);
}
END_TEST

START_TEST(a_storm_leaves_nothing_untold_to_who_polls)
{
    brew(1, watch);
}
END_TEST

START_TEST(a_storm_leaves_nothing_untold_to_all_who_poll)
{
    brew(CROWD, watch_with_others);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("reactor");

    tcase_add_test(tc, what_is_ready_is_given_once);
    tcase_add_test(tc, a_time_that_has_come_is_due_and_leaves_the_descriptor_silent);
    tcase_add_test(tc, times_come_in_their_order_and_readiness_takes_one_back);
    tcase_add_test(tc, who_is_queued_comes_behind_all_that_are_ready);
    tcase_add_test(tc, calling_what_has_an_owner_does_nothing);
    tcase_add_test(tc, all_that_wait_can_be_taken_the_longest_first);
    tcase_add_test(tc, only_the_first_of_a_lane_is_looked_at);
    tcase_add_test(tc, the_oldest_is_taken_first_however_often_it_was_parked_again);
    tcase_add_test(tc, one_that_waits_can_be_taken_wherever_it_stands);
    tcase_add_test(tc, a_descriptor_that_cannot_be_watched_stays_its_owner_s);
    tcase_add_test(tc, closing_lets_all_go_who_wait);
    tcase_add_test(tc, a_closed_one_still_gives_what_is_due);
    tcase_add_test(tc, who_polls_is_told_by_the_descriptor_whatever_happens);
    tcase_add_test(tc, one_that_polls_may_leave_the_rest_to_others);
    tcase_add_test(tc, a_lane_tells_how_many_have_an_age_and_the_earliest);
    tcase_add_test(tc, who_leaves_with_an_open_descriptor_is_heard_of_no_more);
    tcase_add_test(tc, each_of_a_crowd_that_waits_is_given_one_that_is_ready);
    tcase_add_test(tc, each_of_a_crowd_that_waits_is_given_one_that_is_queued);
    tcase_add_test(tc, a_forked_child_can_only_free_it);
    tcase_add_loop_test(tc, any_order_of_acts_keeps_the_promises, 0, 60);
    tcase_add_test(tc, a_storm_of_threads_gives_each_to_one_at_a_time);
    tcase_add_test(tc, a_storm_leaves_nothing_untold_to_who_polls);
    tcase_add_test(tc, a_storm_leaves_nothing_untold_to_all_who_poll);
    return run_case(tc);
}
