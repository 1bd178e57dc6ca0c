/* recorder.c: the rings of the flight recorder, and reading them.
 *
 * One ring for each kind, so that what happens a thousand times a second does not push out what
 * happened once. See recorder.h for the protocol of a slot.
 */
#include "recorder.h"

#include "check.h"
#include "time.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define WORDS (sizeof(struct hs_event) / sizeof(uint64_t))

_Static_assert(sizeof(struct hs_event) == WORDS * sizeof(uint64_t), "events are whole words");
_Static_assert(sizeof(struct hs_event) == 120, "a slot is two cache lines");

struct slot {
    _Atomic uint64_t seq; /* 2 * turn + 1 while it is written, + 2 when it is whole; 0: unused */
    _Atomic uint64_t words[WORDS];
};

static struct ring {
    _Atomic uint64_t next; /* turn: how many events there have been */
    struct slot slots[HS_EVENTS_EACH];
} rings[HS_EVENT_KINDS];

static _Atomic uint64_t last_number;

const char *
hs_event_name(enum hs_event_kind kind)
{
    static const char *const names[] = {
#define EVENT_NAME(name, text) text,
        HS_EVENTS_ALL(EVENT_NAME)
#undef EVENT_NAME
    };

    HS_ASSERT(kind < HS_EVENT_KINDS);
    return names[kind];
}

/* ---- Writing ------------------------------------------------------------------------------- */

void
hs_event_text(struct hs_event *e, const char *text)
{
    size_t n = strnlen(text, sizeof(e->text) - 1);

    while (n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80) /* Never a part of a character. */
        n--;
    memcpy(e->text, text, n);
    e->text[n] = '\0';
}

static void
write_slot(struct slot *s, uint64_t turn, const struct hs_event *e)
{
    uint64_t seq = atomic_load_explicit(&s->seq, memory_order_relaxed), words[WORDS];

    if ((seq & 1) != 0 || seq > 2 * turn ||
        !atomic_compare_exchange_strong_explicit(&s->seq, &seq, 2 * turn + 1, memory_order_acq_rel,
                                                 memory_order_relaxed))
        return;
    memcpy(words, e, sizeof(words));
    for (size_t i = 0; i < WORDS; i++)
        atomic_store_explicit(&s->words[i], words[i], memory_order_release);
    atomic_store_explicit(&s->seq, 2 * turn + 2, memory_order_release);
}

void
hs_event_note(enum hs_event_kind kind, const struct hs_event *e)
{
    struct ring *r = &rings[kind];
    struct hs_event event = *e;
    uint64_t turn;

    HS_ASSERT(kind < HS_EVENT_KINDS);
    turn = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
    event.kind = (int32_t)kind;
    event.at_ns = hs_now();
    event.number = atomic_fetch_add_explicit(&last_number, 1, memory_order_relaxed) + 1;
    event.thread = (uint64_t)pthread_self();
    write_slot(&r->slots[turn % HS_EVENTS_EACH], turn, &event);
}

/* ---- Reading ------------------------------------------------------------------------------- */

uint64_t
hs_event_count(enum hs_event_kind kind)
{
    HS_ASSERT(kind < HS_EVENT_KINDS);
    return atomic_load_explicit(&rings[kind].next, memory_order_relaxed);
}

uint64_t
hs_event_last(void)
{
    return atomic_load_explicit(&last_number, memory_order_relaxed);
}

bool
hs_event_read(size_t i, struct hs_event *ret_event)
{
    struct slot *s = &rings[i / HS_EVENTS_EACH].slots[i % HS_EVENTS_EACH];
    uint64_t seq = atomic_load_explicit(&s->seq, memory_order_acquire), words[WORDS];

    if (seq == 0 || (seq & 1) != 0)
        return false;
    for (size_t w = 0; w < WORDS; w++)
        words[w] = atomic_load_explicit(&s->words[w], memory_order_acquire);
    if (atomic_load_explicit(&s->seq, memory_order_relaxed) != seq)
        return false;
    memcpy(ret_event, words, sizeof(words));
    return true;
}

static int
by_number(const void *a, const void *b)
{
    uint64_t x = ((const struct hs_event *)a)->number, y = ((const struct hs_event *)b)->number;

    return (x > y) - (x < y);
}

size_t
hs_events(struct hs_event *events, size_t room)
{
    size_t n = 0;

    for (size_t i = 0; i < HS_EVENTS_MAX && n < room; i++)
        n += hs_event_read(i, &events[n]);
    qsort(events, n, sizeof(events[0]), by_number);
    return n;
}

/* ---- Fork ---------------------------------------------------------------------------------- */

/* What another thread was writing will never be whole here. */
static void
recorder_after_fork_in_child(void)
{
    struct hs_event none = {0};

    for (size_t i = 0; i < HS_EVENTS_MAX; i++) {
        struct slot *s = &rings[i / HS_EVENTS_EACH].slots[i % HS_EVENTS_EACH];

        if ((atomic_load_explicit(&s->seq, memory_order_relaxed) & 1) != 0)
            atomic_store_explicit(&s->seq, 0, memory_order_relaxed);
    }
    hs_event_note(HS_EVENT_FORKED, &none);
}

__attribute__((constructor)) static void
watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, recorder_after_fork_in_child);
}
