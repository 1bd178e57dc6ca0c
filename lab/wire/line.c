/* line.c: fates, the queue, and lateness of one direction. See line.h.
 *
 * Owns the packets that are on their way. A heap: only reordered packets come out of turn.
 */
#include "line.h"

#include <stdlib.h>
#include <string.h>

/* On the way at once; more is not asked for, and counted apart. */
#define MAX_QUEUED ((size_t)256 << 20)
/* A corrupted bit is behind the IP header and the ports, so that the packet still finds its way. */
#define SPARED 44

enum draw { DRAW_LOSS, DRAW_JITTER, DRAW_REORDER, DRAW_DUPLICATE, DRAW_CORRUPT, DRAW_PLACE };

void
line_init(struct line *l, uint64_t seed)
{
    *l = (struct line){.seed = seed, .set = {.burst = 1}};
}

void
line_fini(struct line *l)
{
    while (l->n > 0)
        free(l->heap[--l->n]);
    free(l->heap);
}

/* ---- Fates --------------------------------------------------------------------------------- */

static uint64_t
mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t
draw_bits(const struct line *l, enum draw which)
{
    return mix(mix(l->seed ^ (uint64_t)which << 56) ^ l->number);
}

/* From 0 to 1, 1 never. */
static double
draw(const struct line *l, enum draw which)
{
    return (double)(draw_bits(l, which) >> 11) / 9007199254740992.0;
}

/* Gilbert's model: a burst ends with each of its packets by a chance of 1 / burst. */
static bool
is_lost(struct line *l)
{
    double leave, enter, u = draw(l, DRAW_LOSS);

    if (l->set.loss <= 0)
        return false;
    if (l->set.burst <= 1 || l->set.loss >= 1)
        return u < l->set.loss;
    leave = 1 / l->set.burst;
    enter = leave * l->set.loss / (1 - l->set.loss);
    l->in_burst = l->in_burst ? u >= leave : u < enter;
    return l->in_burst;
}

/* ---- The queue ----------------------------------------------------------------------------- */

static bool
is_before(const struct packet *a, const struct packet *b)
{
    return a->due_ns < b->due_ns || (a->due_ns == b->due_ns && a->turn < b->turn);
}

static bool
push(struct line *l, struct packet *p)
{
    size_t i = l->n;

    if (l->n == l->room) {
        size_t room = l->room > 0 ? l->room * 2 : 1024;
        struct packet **bigger = realloc(l->heap, room * sizeof(*bigger));

        if (bigger == NULL)
            return false;
        l->heap = bigger;
        l->room = room;
    }
    for (l->n++; i > 0 && is_before(p, l->heap[(i - 1) / 2]); i = (i - 1) / 2)
        l->heap[i] = l->heap[(i - 1) / 2];
    l->heap[i] = p;
    l->queued_bytes += p->len;
    return true;
}

static struct packet *
pop(struct line *l)
{
    struct packet *top = l->heap[0], *last = l->heap[--l->n];
    size_t i = 0, child;

    for (; (child = 2 * i + 1) < l->n; i = child) {
        if (child + 1 < l->n && is_before(l->heap[child + 1], l->heap[child]))
            child++;
        if (!is_before(l->heap[child], last))
            break;
        l->heap[i] = l->heap[child];
    }
    if (l->n > 0)
        l->heap[i] = last;
    l->queued_bytes -= top->len;
    return top;
}

/* Jitter keeps the order; a packet that is to fall back does not hold up the others. */
static int64_t
due_at(struct line *l, size_t len, int64_t now_ns)
{
    int64_t due = now_ns;
    double extra = l->set.delay;

    if (l->set.rate > 0) {
        if (l->free_ns > due)
            due = l->free_ns;
        due += (int64_t)((double)len * 8e9 / l->set.rate);
        l->free_ns = due;
    }
    if (l->set.jitter > 0)
        extra += (2 * draw(l, DRAW_JITTER) - 1) * l->set.jitter;
    due += extra > 0 ? (int64_t)(extra * 1e9) : 0;
    if (l->set.reorder > 0 && draw(l, DRAW_REORDER) < l->set.reorder) {
        l->counts.reordered++;
        return due + (int64_t)(l->set.gap * 1e9);
    }
    if (due < l->last_due_ns)
        due = l->last_due_ns;
    l->last_due_ns = due;
    return due;
}

static bool
is_full(const struct line *l, size_t len, int64_t now_ns)
{
    /* What waits for its turn, not what is on its way. */
    double waiting = l->set.rate > 0 && l->free_ns > now_ns
                         ? (double)(l->free_ns - now_ns) * l->set.rate / 8e9
                         : 0;

    return l->set.queue > 0 && waiting + (double)len > l->set.queue;
}

static void
put_one(struct line *l, const uint8_t *data, size_t len, size_t head, int64_t now_ns)
{
    struct packet *p;

    if (is_full(l, len, now_ns)) {
        l->counts.full++;
        return;
    }
    if (l->queued_bytes + len > MAX_QUEUED || (p = malloc(sizeof(*p) + len)) == NULL) {
        l->counts.overflow++;
        return;
    }
    memcpy(p->data, data, len);
    p->len = len;
    p->turn = l->turn++;
    p->due_ns = due_at(l, len - head, now_ns);
    if (len > head + SPARED && draw(l, DRAW_CORRUPT) < l->set.corrupt) {
        uint64_t bits = draw_bits(l, DRAW_PLACE);

        p->data[head + SPARED + (bits >> 3) % (len - head - SPARED)] ^= (uint8_t)(1u << (bits & 7));
        l->counts.corrupted++;
    }
    if (!push(l, p)) {
        l->counts.overflow++;
        free(p);
    }
}

void
line_put(struct line *l, const uint8_t *data, size_t len, size_t head, int64_t now_ns)
{
    l->number++;
    l->counts.got++;
    if (l->set.down) {
        l->counts.cut++;
        return;
    }
    if (is_lost(l)) {
        l->counts.lost++;
        return;
    }
    put_one(l, data, len, head, now_ns);
    if (draw(l, DRAW_DUPLICATE) < l->set.duplicate) {
        l->counts.doubled++;
        put_one(l, data, len, head, now_ns);
    }
}

/* ---- What comes out ------------------------------------------------------------------------ */

int64_t
line_due(const struct line *l)
{
    return l->n > 0 ? l->heap[0]->due_ns : INT64_MAX;
}

struct packet *
line_take(struct line *l, int64_t now_ns)
{
    struct packet *p;
    int64_t late;
    size_t bucket;

    if (l->n == 0 || line_due(l) > now_ns)
        return NULL;
    p = pop(l);
    late = now_ns - p->due_ns;
    bucket = (size_t)(late / LATE_BUCKET_NS);
    l->counts.late[bucket < LATE_BUCKETS ? bucket : LATE_BUCKETS - 1]++;
    l->counts.late_sum_ns += late;
    if (late > l->counts.late_max_ns)
        l->counts.late_max_ns = late;
    l->counts.taken++;
    l->counts.bytes += p->len;
    return p;
}

int64_t
line_late_ns(const struct counts *c, double share)
{
    double more = (double)c->taken * (1 - share);
    uint64_t seen = 0;

    for (size_t i = LATE_BUCKETS - 1; i > 0; i--) {
        seen += c->late[i];
        if ((double)seen > more)
            return i == LATE_BUCKETS - 1 ? c->late_max_ns : (int64_t)(i + 1) * LATE_BUCKET_NS;
    }
    return c->taken > 0 ? LATE_BUCKET_NS : 0;
}

bool
line_set(struct settings *s, const char *name, double value)
{
    const struct {
        const char *name;
        double *value;
    } all[] = {{"delay", &s->delay},         {"jitter", &s->jitter},   {"gap", &s->gap},
               {"loss", &s->loss},           {"burst", &s->burst},     {"rate", &s->rate},
               {"duplicate", &s->duplicate}, {"reorder", &s->reorder}, {"corrupt", &s->corrupt},
               {"queue", &s->queue}};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (strcmp(all[i].name, name) == 0) {
            *all[i].value = value;
            return true;
        }
    if (strcmp(name, "down") != 0)
        return false;
    s->down = value != 0;
    return true;
}
