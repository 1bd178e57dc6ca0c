/* fuzz_scan.c: packets of any kind given to the lab's scan recorder, in tables of a few rows.
 *
 * The input is a series of packets, each behind a byte that says its length. Each lies alone in
 * memory, so that a byte too far is seen. No packet is forgotten, what is told of a packet does not
 * change when more of it is captured, and the books agree after each.
 */
#include "../../lab/scan/distinct.c"
#include "../../lab/scan/frame.c"
#include "../../lab/scan/place.c"
#include "../../lab/scan/sketch.c"
#include "../../lab/scan/tally.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ROWS 3

static void
must(bool cond)
{
    if (!cond)
        abort();
}

static void
check_books(const struct tally *t, const struct sketch *s)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < s->n; i++) {
        const struct row *r = &s->rows[s->heap[i]];

        must(r->heap_at == i && r->count > r->error && r->ports_n >= 1);
        must(i == 0 || s->rows[s->heap[(i - 1) / 2]].count <= r->count);
        sum += r->count;
    }
    must(sum == t->saw && sketch_attributed(s) <= t->saw);
    must(s->n < ROWS || s->rows[s->heap[0]].count <= t->saw / ROWS);
}

static void
check_prefixes(const uint8_t *packet, size_t len)
{
    struct syn whole = {0}, part = {0};
    enum frame_kind end = frame_read(packet, len, &whole), kind;

    for (size_t n = 0; n < len; n++) {
        kind = frame_read(packet, n, &part);
        must(kind == FRAME_SHORT || kind == end);
        must(kind != FRAME_SYN ||
             (part.port == whole.port && memcmp(&part.from, &whole.from, sizeof(part.from)) == 0));
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint64_t key[2] = {1, 2};
    uint64_t given = 0;
    char *text = NULL;
    size_t text_len;
    FILE *to;
    struct tally t;

    must(tally_init(&t, ROWS, key));
    while (size > 0) {
        size_t len = data[0] < size - 1 ? data[0] : size - 1;
        uint8_t *packet = malloc(len > 0 ? len : 1);

        must(packet != NULL);
        memcpy(packet, data + 1, len);
        tally_packet(&t, packet, len, (int64_t)given + 1);
        check_prefixes(packet, len);
        free(packet);
        given++;
        must(t.saw + t.other + t.cut == given);
        check_books(&t, &t.sources);
        check_books(&t, &t.networks);
        data += len + 1;
        size -= len + 1;
    }
    to = open_memstream(&text, &text_len);
    must(to != NULL);
    tally_write(&t, ROWS, to);
    must(fclose(to) == 0 && text_len > 0);
    free(text);
    tally_fini(&t);
    return 0;
}
