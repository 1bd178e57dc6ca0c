/* test_scan.c: the lab's scan recorder: what is a SYN, whose it is, and that none is forgotten.
 *
 * The kernel's filter is tried on a pair of sockets of this process: it runs on their packets too.
 */
#include "support.h"

#include "../../lab/scan/distinct.c"
#include "../../lab/scan/filter.c"
#include "../../lab/scan/frame.c"
#include "../../lab/scan/place.c"
#include "../../lab/scan/sketch.c"
#include "../../lab/scan/tally.c"

#include <sys/socket.h>
#include <unistd.h>

static const uint64_t KEY[2] = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};

/* ---- Packets ------------------------------------------------------------------------------- */

#define PACKET_MAX 256

struct packet {
    size_t len;
    uint8_t data[PACKET_MAX];
};

static void
add(struct packet *p, const void *data, size_t len)
{
    memcpy(p->data + p->len, data, len);
    p->len += len;
}

static void
add_tcp(struct packet *p, uint16_t port, uint8_t flags)
{
    uint8_t tcp[20] = {0x12, 0x34, (uint8_t)(port >> 8), (uint8_t)port, [12] = 0x50, [13] = flags};

    add(p, tcp, sizeof(tcp));
}

/* From 10.0.0.7 to port 80; options: bytes of IP options. */
static struct packet
ipv4(size_t options, uint8_t protocol, uint16_t fragment, uint8_t flags)
{
    struct packet p = {0};
    uint8_t head[60] = {0};

    head[0] = (uint8_t)(0x45 + options / 4);
    head[3] = (uint8_t)(40 + options);
    head[6] = (uint8_t)(fragment >> 8);
    head[7] = (uint8_t)fragment;
    head[9] = protocol;
    memcpy(head + 12, (uint8_t[]){10, 0, 0, 7}, 4);
    add(&p, head, 20 + options);
    add_tcp(&p, 80, flags);
    return p;
}

/* From 2001:db8::7 to port 443, with extension headers. */
static struct packet
ipv6(const uint8_t *extensions, size_t len, uint8_t next, uint8_t flags)
{
    struct packet p = {0};
    uint8_t head[40] = {0x60, [5] = (uint8_t)(len + 20), [6] = next};

    memcpy(head + 8, (uint8_t[16]){0x20, 0x01, 0x0d, 0xb8, [15] = 7}, 16);
    add(&p, head, sizeof(head));
    if (len > 0)
        add(&p, extensions, len);
    add_tcp(&p, 443, flags);
    return p;
}

static enum frame_kind
kind_of(const struct packet *p)
{
    struct syn syn;

    return frame_read(p->data, p->len, &syn);
}

/* ---- What is a SYN ------------------------------------------------------------------------- */

static const uint8_t HOP_BY_HOP[8] = {6}, TWO[16] = {60, [8] = 6}, AH[12] = {6, 1},
                     LATER[8] = {6, 0, 0, 8}, FIRST[8] = {6, 0, 0, 1}, UDP_BEHIND[8] = {17};

struct shape {
    const char *title;
    struct packet packet;
    enum frame_kind want;
};

#define SHAPES 17

static void
all_shapes(struct shape ret[SHAPES])
{
    struct shape rows[] = {
        {"a SYN", ipv4(0, 6, 0, 0x02), FRAME_SYN},
        {"with IP options", ipv4(40, 6, 0, 0x02), FRAME_SYN},
        {"with ECN", ipv4(0, 6, 0, 0xc2), FRAME_SYN},
        {"the first fragment, which has the header", ipv4(0, 6, 0x2000, 0x02), FRAME_SYN},
        {"a later fragment", ipv4(0, 6, 0x2001, 0x02), FRAME_OTHER},
        {"an answer", ipv4(0, 6, 0, 0x12), FRAME_OTHER},
        {"data", ipv4(0, 6, 0, 0x18), FRAME_OTHER},
        {"UDP", ipv4(0, 17, 0, 0x02), FRAME_OTHER},
        {"IPv6", ipv6(NULL, 0, 6, 0x02), FRAME_SYN},
        {"IPv6 answer", ipv6(NULL, 0, 6, 0x12), FRAME_OTHER},
        {"IPv6 behind options", ipv6(HOP_BY_HOP, 8, 0, 0x02), FRAME_SYN},
        {"IPv6 behind two headers", ipv6(TWO, 16, 43, 0x02), FRAME_SYN},
        {"IPv6 behind an authentication header", ipv6(AH, 12, 51, 0x02), FRAME_SYN},
        {"IPv6 first fragment", ipv6(FIRST, 8, 44, 0x02), FRAME_SYN},
        {"IPv6 later fragment", ipv6(LATER, 8, 44, 0x02), FRAME_OTHER},
        {"IPv6 with UDP behind options", ipv6(UDP_BEHIND, 8, 0, 0x02), FRAME_OTHER},
        {"no version that there is", {.len = 40, .data = {0x50, [6] = 17}}, FRAME_OTHER},
    };

    _Static_assert(LENGTH(rows) == SHAPES, "as many as there are");
    memcpy(ret, rows, sizeof(rows));
}

START_TEST(syns_are_told_from_all_else)
{
    struct shape shapes[SHAPES];

    all_shapes(shapes);
    for (size_t i = 0; i < SHAPES; i++)
        ck_assert_msg(kind_of(&shapes[i].packet) == shapes[i].want, "%s", shapes[i].title);
}
END_TEST

/* One end of a pair of sockets, with a filter that the kernel runs on what is sent to it. */
static int
filtered_pair(const struct sock_fprog *filter, int *ret_other)
{
    int fds[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds), 0);
    ck_assert_int_eq(setsockopt(fds[0], SOL_SOCKET, SO_ATTACH_FILTER, filter, sizeof(*filter)), 0);
    *ret_other = fds[1];
    return fds[0];
}

/* What the kernel lets through of it, and as much of it as it captures. False: it was dropped. */
static bool
pass(const struct packet *p, struct packet *ret)
{
    struct sock_fprog filter = p->data[0] >> 4 == 4 ? filter_4() : filter_6();
    int other, fd = filtered_pair(&filter, &other);
    ssize_t n;

    ck_assert_int_eq(send(other, p->data, p->len, 0), (ssize_t)p->len);
    n = recv(fd, ret->data, sizeof(ret->data), 0);
    ret->len = n > 0 ? (size_t)n : 0;
    ck_assert_int_eq(close(fd) + close(other), 0);
    return n > 0;
}

START_TEST(kernel_lets_through_all_syns_and_hardly_more)
{
    struct shape shapes[SHAPES];
    struct packet captured;

    all_shapes(shapes);
    for (size_t i = 0; i < SHAPES; i++) {
        bool ipv6_extension = shapes[i].packet.data[0] == 0x60 && shapes[i].packet.data[6] != 6;
        bool passes = pass(&shapes[i].packet, &captured);

        ck_assert_msg(passes == (shapes[i].want == FRAME_SYN || ipv6_extension), "%s",
                      shapes[i].title);
        if (passes)
            ck_assert_msg(kind_of(&captured) == shapes[i].want, "%s", shapes[i].title);
    }
}
END_TEST

START_TEST(what_is_captured_of_a_large_packet_is_enough)
{
    struct packet p = ipv4(40, 6, 0, 2), captured;

    p.len = sizeof(p.data);
    p.data[3] = (uint8_t)(p.len - 1);
    ck_assert(pass(&p, &captured));
    ck_assert_uint_eq(captured.len, SNAP_4);
    ck_assert_int_eq(kind_of(&captured), FRAME_SYN);
    p.len = 20 + 40 + 10; /* a header that ends before its flags */
    ck_assert(!pass(&p, &captured));
}
END_TEST

START_TEST(source_and_port_are_those_of_the_packet)
{
    struct packet p4 = ipv4(8, 6, 0, 2), p6 = ipv6(HOP_BY_HOP, 8, 0, 2);
    struct syn syn;
    struct place network;

    ck_assert_int_eq(frame_read(p4.data, p4.len, &syn), FRAME_SYN);
    ck_assert_uint_eq(syn.port, 80);
    ck_assert_uint_eq(syn.from.family, 4);
    ck_assert_mem_eq(syn.from.address, ((uint8_t[16]){10, 0, 0, 7}), 16);
    network = place_network(&syn.from);
    ck_assert_mem_eq(network.address, ((uint8_t[16]){10}), 16);
    ck_assert_int_eq(frame_read(p6.data, p6.len, &syn), FRAME_SYN);
    ck_assert_uint_eq(syn.port, 443);
    network = place_network(&syn.from);
    ck_assert_mem_eq(network.address, ((uint8_t[16]){0x20, 0x01, 0x0d, 0xb8}), 16);
}
END_TEST

/* Wherever it is cut, and if the link pads it: never something else than what the whole one is. */
START_TEST(cut_packet_is_never_taken_for_something_else)
{
    struct packet all[] = {ipv4(0, 6, 0, 2), ipv4(40, 6, 0, 2), ipv6(NULL, 0, 6, 2),
                           ipv6(TWO, 16, 43, 2), ipv6(AH, 12, 51, 2)};

    for (size_t i = 0; i < LENGTH(all); i++) {
        struct packet whole = all[i], p = whole;
        size_t needed = whole.len - 20 + TCP_NEEDED;

        for (p.len = 0; p.len < needed; p.len++)
            ck_assert_int_eq(kind_of(&p), FRAME_SHORT);
        for (; p.len <= whole.len; p.len++)
            ck_assert_int_eq(kind_of(&p), FRAME_SYN);
    }
}
END_TEST

START_TEST(padding_of_the_link_is_not_read)
{
    struct packet p = ipv4(0, 6, 0, 2);

    p.data[3] = 20; /* the packet is its header; what follows is padding that looks like a SYN */
    ck_assert_int_eq(kind_of(&p), FRAME_SHORT);
    p.data[3] = 19;
    ck_assert_int_eq(kind_of(&p), FRAME_OTHER);
    p = ipv6(NULL, 0, 6, 2);
    p.data[5] = 0;
    ck_assert_int_eq(kind_of(&p), FRAME_SHORT);
}
END_TEST

/* ---- Places and how many they are ----------------------------------------------------------- */

static struct place
place_number(uint32_t n)
{
    struct place p = {.family = n % 2 == 0 ? 4 : 6};

    memcpy(p.address, &n, sizeof(n));
    return p;
}

/* The number is from a program in Python that also gives the vector of the paper (SipHash-2-4). */
START_TEST(hash_is_siphash_1_3)
{
    struct place p = {.family = 4, .address = {10, 0, 0, 7}};

    ck_assert_uint_eq(place_hash(&p, KEY), UINT64_C(0xcb99681fdf2aefed));
}
END_TEST

START_TEST(different_ones_are_counted_within_the_promised_error)
{
    static uint8_t seen[1 << SOURCE_BITS];

    for (uint32_t n = 1; n <= 300000; n++) {
        struct place p = place_number(n);

        distinct_add(seen, SOURCE_BITS, place_hash(&p, KEY));
        distinct_add(seen, SOURCE_BITS, place_hash(&p, KEY));
        if (n == 10 || n == 1000 || n == 10000 || n == 100000 || n == 300000) {
            double error = distinct_estimate(seen, SOURCE_BITS) / n - 1;

            /* Three times 1.04 / sqrt(4096); the key is fixed, so this is no matter of chance. */
            ck_assert_msg(error > -0.05 && error < 0.05, "%u: off by %.3f", n, error);
        }
    }
}
END_TEST

/* ---- The model: exact counts ---------------------------------------------------------------- */

#define PLACES 600
#define PACKETS 20000

static uint64_t
draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* All of what sketch.h says, and that its three structures say the same. */
static void
check_against(struct sketch *s, const uint64_t *truth, uint64_t packets)
{
    uint64_t sum = 0, lowest = s->n < s->capacity ? 0 : s->rows[s->heap[0]].count, sure = 0;

    ck_assert_uint_le(lowest, packets / s->capacity);
    for (uint32_t i = 0; i < s->n; i++) {
        BULK_ASSERT(s->rows[s->heap[i]].heap_at == i, "heap and row disagree");
        BULK_ASSERT(i == 0 || count_at(s, (i - 1) / 2) <= count_at(s, i), "the heap is none");
        BULK_ASSERT(*find(s, &s->rows[i].who) == i, "a row is not found by its place");
        sum += s->rows[i].count;
    }
    ck_assert_uint_eq(sum, packets);
    for (uint32_t n = 0; n < PLACES; n++) {
        struct place p = place_number(n);
        uint32_t i = *find(s, &p);

        if (i == NONE) {
            BULK_ASSERT(truth[n] <= lowest, "a heavy one has no row");
            continue;
        }
        BULK_ASSERT(truth[n] <= s->rows[i].count, "its count is too low");
        BULK_ASSERT(truth[n] >= s->rows[i].count - s->rows[i].error, "more than there were");
        sure += s->rows[i].count - s->rows[i].error;
    }
    ck_assert_uint_eq(sketch_attributed(s), sure);
}

/* How the next place is drawn: all alike; some heavy ones; each in turn, which is the worst. */
static uint32_t
next_place(int how, uint64_t *state, uint32_t i)
{
    uint32_t a = (uint32_t)(draw(state) % PLACES), b = (uint32_t)(draw(state) % PLACES);

    switch (how % 3) {
    case 0:
        return a;
    case 1:
        return a * b / PLACES * b / PLACES;
    default:
        return i % PLACES;
    }
}

START_TEST(counts_are_within_what_space_saving_promises)
{
    static const uint32_t capacities[] = {1, 7, 64, PLACES};
    uint64_t truth[PLACES] = {0}, state = (uint64_t)_i + 1;
    struct sketch s;

    ck_assert(sketch_init(&s, capacities[_i / 3], KEY));
    for (uint32_t i = 0; i < PACKETS; i++) {
        uint32_t n = next_place(_i, &state, i);
        struct place p = place_number(n);
        struct row *r = sketch_count(&s, &p);

        truth[n]++;
        BULK_ASSERT(memcmp(&r->who, &p, sizeof(p)) == 0 && r->count > r->error, "the wrong row");
        if (i % 997 == 0 || i + 1 == PACKETS)
            check_against(&s, truth, i + 1);
    }
    if (s.capacity == PLACES)
        ck_assert_uint_eq(sketch_attributed(&s), PACKETS);
    sketch_fini(&s);
}
END_TEST

START_TEST(row_that_changes_hands_keeps_nothing_of_its_former_place)
{
    struct tally t;
    struct packet p = ipv4(0, 6, 0, 2);

    ck_assert(tally_init(&t, 1, KEY));
    tally_packet(&t, p.data, p.len, 5);
    p.data[15] = 8;
    p.data[23] = 81;
    tally_packet(&t, p.data, p.len, 9);
    ck_assert_uint_eq(t.sources.rows[0].count, 2);
    ck_assert_uint_eq(t.sources.rows[0].error, 1);
    ck_assert_int_eq(t.sources.rows[0].first_ns, 9);
    ck_assert_uint_eq(t.sources.rows[0].ports_n, 1);
    ck_assert_uint_eq(t.sources.rows[0].ports[0], 81);
    ck_assert_uint_eq(t.networks.rows[0].count, 2);
    ck_assert_uint_eq(t.networks.rows[0].error, 0);
    tally_fini(&t);
}
END_TEST

/* ---- What is told --------------------------------------------------------------------------- */

START_TEST(report_names_sources_networks_and_ports_with_what_is_sure)
{
    struct packet p4 = ipv4(0, 6, 0, 2), p6 = ipv6(NULL, 0, 6, 2), ack = ipv4(0, 6, 0, 0x10);
    struct tally t;
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);

    ck_assert_ptr_nonnull(to);
    ck_assert(tally_init(&t, 4, KEY));
    for (int i = 0; i < 3; i++)
        tally_packet(&t, p4.data, p4.len, 1500000000);
    tally_packet(&t, p6.data, p6.len, 2500000000);
    tally_packet(&t, ack.data, ack.len, 1);
    tally_packet(&t, p4.data, 10, 1);
    tally_write(&t, 1, to);
    ck_assert_int_eq(fclose(to), 0);
    ck_assert_str_eq(
        text,
        "\"saw\": 4, \"saw_6\": 1, \"attributed\": 4, \"attributed_networks\": 4, \"other\": 1, "
        "\"cut\": 1, \"different_sources\": 2, \"different_ports\": 2, \"sources\": [{\"who\": "
        "\"10.0.0.7\", \"count\": 3, \"error\": 0, \"first\": 1.500000, \"last\": 1.500000, "
        "\"different\": 1, \"ports\": [80]}], \"networks\": [{\"who\": \"10.0.0.0/24\", \"count\": "
        "3, \"error\": 0, \"first\": 1.500000, \"last\": 1.500000, \"different\": 1, \"ports\": "
        "[80]}], \"ports\": [[80, 3]]");
    free(text);
    tally_fini(&t);
}
END_TEST

START_TEST(ports_are_exact_while_they_fit_and_estimated_beyond)
{
    struct packet p = ipv4(0, 6, 0, 2);
    struct tally t;

    ck_assert(tally_init(&t, 4, KEY));
    for (int port = 0; port < PORTS; port++) {
        double found;

        p.data[22] = (uint8_t)(port >> 8);
        p.data[23] = (uint8_t)port;
        tally_packet(&t, p.data, p.len, 1);
        found = tally_ports_of(&t.sources.rows[0]);
        if (port + 1 < SOME_PORTS)
            ck_assert_double_eq(found, port + 1);
        else /* three times 1.04 / sqrt(256), with a key that is fixed */
            BULK_ASSERT(found > port * 0.8 && found < port * 1.2 + 4, "%d: %f", port, found);
    }
    tally_fini(&t);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("scan");

    tcase_add_test(tc, syns_are_told_from_all_else);
    tcase_add_test(tc, kernel_lets_through_all_syns_and_hardly_more);
    tcase_add_test(tc, what_is_captured_of_a_large_packet_is_enough);
    tcase_add_test(tc, source_and_port_are_those_of_the_packet);
    tcase_add_test(tc, cut_packet_is_never_taken_for_something_else);
    tcase_add_test(tc, padding_of_the_link_is_not_read);
    tcase_add_test(tc, hash_is_siphash_1_3);
    tcase_add_test(tc, different_ones_are_counted_within_the_promised_error);
    tcase_add_loop_test(tc, counts_are_within_what_space_saving_promises, 0, 12);
    tcase_add_test(tc, row_that_changes_hands_keeps_nothing_of_its_former_place);
    tcase_add_test(tc, report_names_sources_networks_and_ports_with_what_is_sure);
    tcase_add_test(tc, ports_are_exact_while_they_fit_and_estimated_beyond);
    return run_case(tc);
}
