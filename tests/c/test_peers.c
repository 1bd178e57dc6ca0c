/* test_peers.c: what one stranger may take.
 *
 * Beside the examples a model: thousands of random comings and goings of addresses that are close
 * to each other, against a list that counts them naively. A failing seed is in the message.
 */
#include "support.h"

#include "../../csrc/listen/peers.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

static struct hs_addr
v4(uint32_t bits)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(9)};
    struct hs_addr addr = {.len = sizeof(sin)};

    sin.sin_addr.s_addr = htonl(bits);
    memcpy(&addr.storage, &sin, sizeof(sin));
    return addr;
}

static struct hs_addr
v6(const char *text)
{
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6};
    struct hs_addr addr = {.len = sizeof(sin6)};

    ck_assert_int_eq(inet_pton(AF_INET6, text, &sin6.sin6_addr), 1);
    memcpy(&addr.storage, &sin6, sizeof(sin6));
    return addr;
}

static struct hs_peers *
peers_with(const struct hs_peer_limits *limits)
{
    struct hs_peers *p;

    ASSERT_OK(hs_peers_new(limits, fresh(), &p));
    return p;
}

static struct hs_peer_stats
stats_of(struct hs_peers *p)
{
    struct hs_peer_stats s;

    ck_assert_msg(hs_peers_find_disagreement(p) == NULL, "%s", hs_peers_find_disagreement(p));
    hs_peers_stats(p, &s);
    return s;
}

START_TEST(a_peer_has_so_many_places_and_no_more)
{
    const struct hs_peer_limits limits = {.connections = 2, .table_size = 8};
    struct hs_peers *p = peers_with(&limits);
    struct hs_addr a = v4(0x01020304), b = v4(0x01020305), mapped = v6("::ffff:1.2.3.4");
    struct hs_peer_slots one, two, three, none = {.peer = 77};

    ck_assert(hs_peers_enter(p, &a, 1, &one));
    ck_assert(hs_peers_enter(p, &mapped, 1, &two)); /* The same address, as IPv6 sockets show it. */
    ck_assert(!hs_peers_enter(p, &a, 1, &none));
    ck_assert_uint_eq(none.peer, 77);
    ck_assert(hs_peers_enter(p, &b, 1, &three));
    ck_assert_uint_eq(stats_of(p).refused_connections, 1);
    hs_peers_leave(p, &one);
    ck_assert(hs_peers_enter(p, &a, 1, &one));
    hs_peers_leave(p, &one);
    hs_peers_leave(p, &two);
    hs_peers_leave(p, &three);
    (void)stats_of(p);
    hs_peers_unref(p);
}
END_TEST

START_TEST(ipv6_counts_by_64_and_48_bits_and_ipv4_by_24)
{
    const struct hs_peer_limits limits = {
        .connections = 1, .network_connections = 2, .table_size = 64};
    struct hs_peers *p = peers_with(&limits);
    struct hs_addr host = v6("2001:db8:1:1::1"), same = v6("2001:db8:1:1:ffff::2"),
                   beside = v6("2001:db8:1:2::1"), third = v6("2001:db8:1:3::1"),
                   elsewhere = v6("2001:db8:2:1::1");
    struct hs_addr four[] = {v4(0x01020301), v4(0x01020302), v4(0x010203ff), v4(0x01020401)};
    struct hs_peer_slots slots;

    ck_assert(hs_peers_enter(p, &host, 1, &slots));
    ck_assert(!hs_peers_enter(p, &same, 1, &slots));
    ck_assert(hs_peers_enter(p, &beside, 1, &slots));
    ck_assert(!hs_peers_enter(p, &third, 1, &slots));
    ck_assert(hs_peers_enter(p, &elsewhere, 1, &slots));
    ck_assert(hs_peers_enter(p, &four[0], 1, &slots));
    ck_assert(hs_peers_enter(p, &four[1], 1, &slots));
    ck_assert(!hs_peers_enter(p, &four[2], 1, &slots));
    ck_assert(hs_peers_enter(p, &four[3], 1, &slots));
    ck_assert_uint_eq(stats_of(p).refused_connections, 1);
    ck_assert_uint_eq(stats_of(p).refused_network, 2);
    hs_peers_unref(p);
}
END_TEST

START_TEST(a_peer_may_come_so_often_after_a_burst)
{
    const struct hs_peer_limits limits = {.per_s = 10, .burst = 3, .table_size = 8};
    struct hs_peers *p = peers_with(&limits);
    struct hs_addr a = v4(0x01020304);
    struct hs_peer_slots slots;
    int64_t now = SECOND;
    int let_in = 0;

    for (int i = 0; i < 5; i++)
        let_in += hs_peers_enter(p, &a, now, &slots);
    ck_assert_int_eq(let_in, 3);
    ck_assert(!hs_peers_enter(p, &a, now + SECOND / 10 - 1, &slots));
    ck_assert(hs_peers_enter(p, &a, now + SECOND / 10, &slots));
    ck_assert(!hs_peers_enter(p, &a, now + SECOND / 10, &slots));
    for (let_in = 0; now < 11 * SECOND; now += SECOND / 100)
        let_in += hs_peers_enter(p, &a, now, &slots);
    ck_assert_int_ge(let_in, 98);
    ck_assert_int_le(let_in, 103);
    hs_peers_unref(p);
}
END_TEST

START_TEST(the_exempt_and_unix_peers_have_no_limits)
{
    const struct hs_network exempt = {.family = AF_INET, .prefix = 9, .bits = {10, 0x80}};
    const struct hs_peer_limits limits = {
        .connections = 1, .table_size = 8, .exempt = &exempt, .n_exempt = 1};
    struct hs_peers *p = peers_with(&limits);
    struct hs_addr inside = v4(0x0aff0001), outside = v4(0x0a7f0001), local = {.len = 2};
    struct hs_peer_slots slots;

    local.sa.sa_family = AF_UNIX;
    for (int i = 0; i < 3; i++) {
        ck_assert(hs_peers_enter(p, &inside, 1, &slots));
        ck_assert_uint_eq(slots.peer, 0);
        ck_assert(hs_peers_enter(p, &local, 1, &slots));
    }
    ck_assert(hs_peers_enter(p, &outside, 1, &slots));
    ck_assert(!hs_peers_enter(p, &outside, 1, &slots));
    hs_peers_unref(p);
}
END_TEST

START_TEST(a_full_table_forgets_the_longest_quiet_and_then_lets_in_uncounted)
{
    const struct hs_peer_limits limits = {.connections = 1, .per_s = 1, .table_size = 2};
    struct hs_peers *p = peers_with(&limits);
    struct hs_addr a = v4(1), b = v4(2), c = v4(3);
    struct hs_peer_slots of_a, of_b, of_c;

    ck_assert(hs_peers_enter(p, &a, 1, &of_a));
    ck_assert(hs_peers_enter(p, &b, 1, &of_b));
    ck_assert(hs_peers_enter(p, &c, 1, &of_c));
    ck_assert_uint_eq(stats_of(p).untracked, 1);
    hs_peers_leave(p, &of_c); /* It has no slot. */
    hs_peers_leave(p, &of_b);
    hs_peers_leave(p, &of_a);
    ck_assert(
        !hs_peers_enter(p, &b, 1, &of_b)); /* Its rate is remembered, and it is seen last now */
    ck_assert(hs_peers_enter(p, &c, 1, &of_c));  /* in the slot of a, */
    ck_assert(!hs_peers_enter(p, &b, 1, &of_b)); /* not of b. */
    hs_peers_leave(p, &of_c);
    ck_assert_uint_eq(stats_of(p).tracked, 2);
    hs_peers_unref(p);
}
END_TEST

START_TEST(what_makes_no_sense_is_refused)
{
    const struct hs_network odd = {.family = AF_INET, .prefix = 33};
    const struct hs_peer_limits bad[] = {
        {.connections = -1, .table_size = 8},
        {.connections = 1, .table_size = 0},
        {.connections = 1, .table_size = 1 << 21},
        {.connections = 1, .table_size = 8, .exempt = &odd, .n_exempt = 1},
    };
    struct hs_peers *p = NULL;

    for (size_t i = 0; i < LENGTH(bad); i++)
        ASSERT_ERR(HS_E_INVALID, hs_peers_new(&bad[i], fresh(), &p));
    ck_assert_ptr_null(p);
}
END_TEST

/* ---- The model ----------------------------------------------------------------------------- */

#define STEPS 20000
#define GUESTS 200
#define SEEDS 20

struct guest {
    uint32_t bits; /* 0: nobody */
    struct hs_peer_slots slots;
};

static uint64_t state;

static uint32_t
draw(uint32_t below)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33) % below;
}

static int
count(const struct guest *guests, uint32_t bits, int shift)
{
    int n = 0;

    for (int i = 0; i < GUESTS; i++)
        n += guests[i].bits != 0 && guests[i].bits >> shift == bits >> shift;
    return n;
}

/* Whether a table so small was full is the table's to know: then anybody may come in. */
START_TEST(the_table_counts_as_a_list_would)
{
    const struct hs_peer_limits limits = {
        .connections = 3, .network_connections = 7, .table_size = _i % 2 ? 4096 : 40};
    struct hs_peers *p = peers_with(&limits);
    struct guest guests[GUESTS] = {{0}};

    state = (uint64_t)_i + 1;
    for (int step = 0; step < STEPS; step++) {
        struct guest *g = &guests[draw(GUESTS)];
        uint32_t bits = 0x01000001U + draw(12) * 256 + draw(8);
        struct hs_addr addr = v4(bits);
        bool expected = count(guests, bits, 0) < 3 && count(guests, bits, 8) < 7, may;

        if (g->bits != 0 && draw(5) < 2) {
            hs_peers_leave(p, &g->slots);
            *g = (struct guest){0};
        } else if (g->bits == 0) {
            may = hs_peers_enter(p, &addr, 1, &g->slots);
            ck_assert_msg(may == expected || (may && limits.table_size == 40), "seed %d, step %d",
                          _i, step);
            g->bits = may ? bits : 0;
        }
        if (step % 64 == 0)
            (void)stats_of(p);
    }
    for (int i = 0; i < GUESTS; i++)
        if (guests[i].bits != 0)
            hs_peers_leave(p, &guests[i].slots);
    (void)stats_of(p);
    if (limits.table_size == 4096)
        ck_assert_uint_eq(stats_of(p).untracked, 0);
    else
        ck_assert_uint_gt(stats_of(p).untracked, 0);
    hs_peers_unref(p);
}
END_TEST

/* ---- Many at once -------------------------------------------------------------------------- */

#define CROWD 4

static struct hs_peers *shared;
static _Atomic int present[16];

static void *
come_and_go(void *arg)
{
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t who = (i * 7 + (uint32_t)(uintptr_t)arg) % 16;
        struct hs_addr addr = v4(0x01000000U + who);
        struct hs_peer_slots slots;

        if (!hs_peers_enter(shared, &addr, 1, &slots))
            continue;
        ck_assert_int_lt(atomic_fetch_add(&present[who], 1), 2);
        atomic_fetch_sub(&present[who], 1);
        hs_peers_leave(shared, &slots);
    }
    return NULL;
}

START_TEST(a_crowd_never_has_more_than_it_may)
{
    const struct hs_peer_limits limits = {.connections = 2, .table_size = 32};
    struct thread threads[CROWD];

    shared = peers_with(&limits);
    for (uintptr_t i = 0; i < CROWD; i++)
        thread_start(&threads[i], come_and_go, (void *)i);
    for (int i = 0; i < CROWD; i++)
        (void)thread_join(&threads[i]);
    (void)stats_of(shared);
    hs_peers_unref(shared);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("peers");

    tcase_add_test(tc, a_peer_has_so_many_places_and_no_more);
    tcase_add_test(tc, ipv6_counts_by_64_and_48_bits_and_ipv4_by_24);
    tcase_add_test(tc, a_peer_may_come_so_often_after_a_burst);
    tcase_add_test(tc, the_exempt_and_unix_peers_have_no_limits);
    tcase_add_test(tc, a_full_table_forgets_the_longest_quiet_and_then_lets_in_uncounted);
    tcase_add_test(tc, what_makes_no_sense_is_refused);
    tcase_add_loop_test(tc, the_table_counts_as_a_list_would, 0, SEEDS);
    tcase_add_test(tc, a_crowd_never_has_more_than_it_may);
    return run_case(tc);
}
