/* test_turns.c: whose turn it is, beside a model that recounts everything from scratch.
 *
 * Lookups enter, run, are abandoned, end and are given up in an order that a seed decides, while
 * time passes. After each act the books agree with a recount, and who was let through, or nobody,
 * is what the rules say. A failure names its test with its seed.
 */
#include "support.h"
#include "../../csrc/connect/turns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEEDS 20
#define ACTS 5000
#define MANY 700
#define ZONES 6

struct item {
    struct hs_turn turn;
    int zone;
    bool abandoned;
    uint64_t entered; /* a number that grows */
};

struct world {
    uint64_t random, next;
    int64_t now;
    struct hs_turns t;
    struct item items[MANY];
    uint64_t rounds[ZONES]; /* turns of others since this zone could have had one */
    long full, held;        /* how often either limit was met */
};

static unsigned
any(struct world *w, unsigned n)
{
    w->random = w->random * 6364136223846793005U + 1442695040888963407U;
    return (unsigned)(w->random >> 33) % n;
}

struct books {
    long queued[ZONES], running[ZONES], all_queued, all_running, fresh;
};

static struct books
recount(const struct world *w)
{
    struct books b = {0};

    for (int n = 0; n < MANY; n++) {
        const struct item *i = &w->items[n];

        b.queued[i->zone] += i->turn.state == HS_TURN_QUEUED;
        b.running[i->zone] += i->turn.state == HS_TURN_RUNNING;
        b.all_queued += i->turn.state == HS_TURN_QUEUED;
        b.all_running += i->turn.state == HS_TURN_RUNNING;
        b.fresh += i->turn.state == HS_TURN_RUNNING && !i->abandoned &&
                   i->turn.started_ns + HS_TURN_FRESH_NS > w->now;
    }
    return b;
}

static bool
may_run(const struct books *b, int zone)
{
    return b->queued[zone] > 0 && b->running[zone] < HS_TURNS_PER_ZONE;
}

static void
enter(struct world *w, struct item *i)
{
    /* The last zone is a crowd. */
    int zone = any(w, 2) == 0 ? ZONES - 1 : (int)any(w, ZONES);
    struct hs_zone *made = malloc(sizeof(*made));
    char host[40];

    (void)snprintf(host, sizeof(host), "h%u.z%d.test", any(w, 1000), zone);
    ck_assert_ptr_nonnull(made);
    *i = (struct item){.zone = zone, .entered = w->next++};
    hs_turns_enter(&w->t, &i->turn, host, &made);
    free(made);
}

/* Of its zone the oldest, and no zone waits longer than one round of the others. */
static void
judge_turn(struct world *w, struct item *i, const bool could[ZONES])
{
    BULK_ASSERT(could[i->zone], "zone %d", i->zone);
    for (int j = 0; j < MANY; j++)
        BULK_ASSERT(w->items[j].turn.state != HS_TURN_QUEUED || w->items[j].zone != i->zone ||
                        w->items[j].entered > i->entered,
                    "%d is older", j);
    for (int z = 0; z < ZONES; z++) {
        w->rounds[z] = z == i->zone || !could[z] ? 0 : w->rounds[z] + 1;
        ck_assert_uint_lt(w->rounds[z], ZONES);
    }
}

static void
launch(struct world *w)
{
    bool could[ZONES], any_could = false;
    struct books b = recount(w);
    struct hs_turn *turn;

    for (int z = 0; z < ZONES; z++)
        any_could |= could[z] = may_run(&b, z);
    any_could = any_could && b.fresh < HS_TURNS_FRESH;
    w->full += b.fresh == HS_TURNS_FRESH;
    turn = hs_turns_next(&w->t, w->now);
    ck_assert_int_eq(turn != NULL, any_could);
    if (turn != NULL)
        judge_turn(w, (struct item *)((char *)turn - offsetof(struct item, turn)), could);
    else if (hs_turns_head(&w->t) != NULL) /* Then the time at which it may is known. */
        ck_assert_int_gt(hs_turns_head_at(&w->t), w->now);
}

static void
check(struct world *w)
{
    struct books b = recount(w);

    ck_assert_int_eq(w->t.n_queued, b.all_queued);
    ck_assert_int_eq(w->t.n_running, b.all_running);
    ck_assert_int_ge(w->t.n_fresh, b.fresh); /* Age is looked at by next(). */
    ck_assert_int_le(w->t.n_fresh, HS_TURNS_FRESH);
    for (int z = 0; z < ZONES; z++) {
        BULK_ASSERT(b.running[z] <= HS_TURNS_PER_ZONE, "zone %d has %ld", z, b.running[z]);
        w->held += b.running[z] == HS_TURNS_PER_ZONE && b.queued[z] > 0;
        if (!may_run(&b, z))
            w->rounds[z] = 0; /* It comes back at the end of the ring. */
    }
}

static void
act(struct world *w)
{
    struct item *i = &w->items[any(w, MANY)];

    switch (i->turn.state) {
    case HS_TURN_NONE:
        enter(w, i);
        break;
    case HS_TURN_QUEUED:
        if (any(w, 8) == 0)
            hs_turns_leave(&w->t, &i->turn);
        break;
    case HS_TURN_RUNNING:
        if (any(w, 3) != 0)
            break;
        if (i->abandoned || any(w, 2) == 0) {
            hs_turns_leave(&w->t, &i->turn);
        } else {
            i->abandoned = true;
            hs_turns_forsake(&w->t, &i->turn);
        }
        break;
    }
}

START_TEST(any_order_of_acts_lets_the_right_one_through)
{
    struct world *w = calloc(1, sizeof(*w));

    ck_assert_ptr_nonnull(w);
    w->random = (uint64_t)_i;
    w->now = 1000 * SECOND;
    hs_turns_init(&w->t);
    for (int n = 0; n < ACTS; n++) {
        act(w);
        if (any(w, 8) == 0)
            w->now += any(w, 3000) * (MS / 1000) * (any(w, 20) == 0 ? 40 : 1);
        if (any(w, 4) != 0)
            launch(w);
        check(w);
    }
    ck_assert_int_gt(w->full, 0); /* Else the acts test nothing. */
    ck_assert_int_gt(w->held, 0);
    for (int i = 0; i < MANY; i++)
        hs_turns_leave(&w->t, &w->items[i].turn);
    for (int i = 0; i < HS_TURNS_BUCKETS; i++)
        ck_assert(hs_list_empty(&w->t.buckets[i]));
    ck_assert(hs_list_empty(&w->t.ready) && hs_list_empty(&w->t.fresh));
    free(w);
}
END_TEST

START_TEST(there_is_a_ceiling_for_all_zones)
{
    struct hs_turns *t = malloc(sizeof(*t));
    struct hs_turn *turns = calloc(HS_TURNS_TOTAL + 1, sizeof(*turns));

    ck_assert(t != NULL && turns != NULL);
    hs_turns_init(t);
    for (int i = 0; i <= HS_TURNS_TOTAL; i++) {
        struct hs_zone *made = malloc(sizeof(*made));
        char host[40];

        (void)snprintf(host, sizeof(host), "z%d.test", i);
        hs_turns_enter(t, &turns[i], host, &made);
        ck_assert_ptr_null(made);
        if (hs_turns_next(t, 1) != NULL)
            hs_turns_forsake(t, &turns[i]);
    }
    ck_assert_int_eq(t->n_running, HS_TURNS_TOTAL);
    ck_assert_int_eq(t->n_queued, 1);
    ck_assert_ptr_eq(hs_turns_head(t), &turns[HS_TURNS_TOTAL]);
    hs_turns_leave(t, &turns[7]);
    t->total = 3; /* The caller may lower it at any time. */
    ck_assert_ptr_null(hs_turns_next(t, 1));
    t->total = HS_TURNS_TOTAL;
    ck_assert_ptr_eq(hs_turns_next(t, 1), &turns[HS_TURNS_TOTAL]);
    for (int i = 0; i <= HS_TURNS_TOTAL; i++)
        hs_turns_leave(t, &turns[i]);
    free(turns);
    free(t);
}
END_TEST

static const struct {
    const char *host, *want_zone;
} zones[] = {
    {"localhost", "localhost"},           {"example.org", "example.org"},
    {"example.org.", "example.org."}, /* a last dot ends no label */
    {"www.example.org", "example.org"},   {"www.example.org.", "example.org."},
    {"a.b.example.org", "b.example.org"}, {"", ""},
};

START_TEST(a_zone_is_the_name_without_its_first_label)
{
    ck_assert_str_eq(hs_zone_name(zones[_i].host), zones[_i].want_zone);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("turns");

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, any_order_of_acts_lets_the_right_one_through, 0, SEEDS);
    tcase_add_test(tc, there_is_a_ceiling_for_all_zones);
    tcase_add_loop_test(tc, a_zone_is_the_name_without_its_first_label, 0, (int)LENGTH(zones));
    return run_case(tc);
}
