/* roll.c: the list of all connections, and what one of them tells.
 *
 * See roll.h. Nothing here waits; looking takes one part's lock at a time, and only to copy
 * pointers.
 */
#include "roll.h"

#include "conn_impl.h"
#include "../base/spans.h"
#include "../base/lock.h"
#include "../base/event_peer.h"
#include "../base/call_site.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define PARTS 16
/* One read in so many asks the kernel since when its bytes were there: it takes a system call. */
#define READS_PER_QUESTION 32

enum { COUNTED_NOT, COUNTED_OPENED, COUNTED_ENDED };

static struct part {
    struct hs_lock lock;
    struct hs_list conns; /* guarded by lock */
} parts[PARTS];

static void
for_each_lock(void (*fn)(struct hs_lock *lock))
{
    for (size_t i = 0; i < PARTS; i++)
        fn(&parts[i].lock);
}

static void
roll_before_fork(void)
{
    for_each_lock(hs_lock_take_for_fork);
}

static void
roll_after_fork(void)
{
    for_each_lock(hs_lock_drop_after_fork);
}

HS_REGISTERS_FORK_LOCK(HS_RANK_ROLL)
static void
roll_begin(void)
{
    for (size_t i = 0; i < PARTS; i++) {
        hs_lock_init(&parts[i].lock, HS_RANK_ROLL);
        hs_list_init(&parts[i].conns);
    }
    (void)pthread_atfork(roll_before_fork, roll_after_fork, roll_after_fork);
}

/* Numbers are given out in turn, so that threads that connect at once are in different parts. */
static struct part *
part_of(uint64_t id)
{
    return &parts[id % PARTS];
}

void
hs_roll_add(struct hs_conn *c)
{
    struct part *p = part_of(c->fd.id);

    HS_ASSERT(c->fd.id != 0);
    hs_lock_take(&p->lock);
    hs_list_append(&p->conns, &c->roll.link);
    hs_lock_drop(&p->lock);
}

void
hs_roll_remove(struct hs_conn *c)
{
    struct part *p = part_of(c->fd.id);

    hs_lock_take(&p->lock);
    hs_list_unlink(&c->roll.link);
    hs_lock_drop(&p->lock);
}

/* ---- Sites --------------------------------------------------------------------------------- */

static void
roll_count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

struct hs_call_site *
hs_roll_site(struct hs_conn *c)
{
    struct hs_call_site *site = atomic_load(&c->roll.site);

    return site != NULL ? site : hs_call_site_unknown();
}

void
hs_conn_set_site(struct hs_conn *c, enum hs_made how, struct hs_call_site *site, uint64_t thread)
{
    unsigned char not = COUNTED_NOT;

    HS_CHECK(c, CONN_MAGIC);
    HS_ASSERT(how < HS_MADE_KINDS && atomic_load(&c->roll.site) == NULL);
    atomic_store_explicit(&c->roll.made, (unsigned char)how, memory_order_relaxed);
    atomic_store_explicit(&c->roll.thread, thread, memory_order_relaxed);
    roll_count(&site->opened[how], 1);
    atomic_store(&c->roll.site, site);
    if (!atomic_compare_exchange_strong(&c->roll.counted, &not, COUNTED_OPENED))
        roll_count(&site->closed[how], 1);
}

void
hs_roll_ended(struct hs_conn *c)
{
    unsigned char was = atomic_exchange(&c->roll.counted, COUNTED_ENDED);
    struct hs_call_site *site = hs_roll_site(c);

    if (was == COUNTED_OPENED) /* Also the copy in a forked child: it was copied as open. */
        roll_count(&site->closed[atomic_load(&c->roll.made)], 1);
    if (!hs_fd_is_ours(&c->fd))
        return;
    hs_span_add(HS_SPAN_CONN_AGE, hs_now() - c->created_ns);
    roll_count(&site->received,
               atomic_load_explicit(&c->dirs[HS_DIR_IN].bytes, memory_order_relaxed));
    roll_count(&site->sent, atomic_load_explicit(&c->dirs[HS_DIR_OUT].bytes, memory_order_relaxed));
}

/* ---- Events -------------------------------------------------------------------------------- */

void
hs_roll_note(struct hs_conn *c, enum hs_event_kind kind, hs_err code, int64_t span_ns)
{
    struct hs_event e = {.code = code, .site = hs_roll_site(c), .span_ns = span_ns};

    if (hs_fd_look(&c->fd, NULL) == HS_OK) {
        e.fd = hs_fd_number(&c->fd);
        hs_fd_look_end(&c->fd);
    }
    hs_event_peer(&e, hs_conn_peer(c));
    hs_event_note(kind, &e);
}

void
hs_call_site_leaked(struct hs_call_site *s, struct hs_conn *c)
{
    struct hs_event e = {.site = s};

    roll_count(&s->leaked, 1);
    if (c != NULL) {
        HS_CHECK(c, CONN_MAGIC);
        e.span_ns = hs_now() - c->created_ns;
        hs_event_peer(&e, hs_conn_peer(c));
    }
    hs_event_note(HS_EVENT_LEAKED, &e);
}

/* ---- Stalls -------------------------------------------------------------------------------- */

void
hs_stall_begin(struct hs_conn *c, const struct hs_op *op, enum hs_dir dir)
{
    _Atomic int64_t *since = &c->dirs[dir].waits_since_ns;

    if (op->deadline_ns != HS_TRY_ONCE && atomic_load_explicit(since, memory_order_relaxed) == 0)
        atomic_store_explicit(since, hs_now(), memory_order_relaxed);
}

void
hs_stall_end(struct hs_conn *c, enum hs_dir dir, int64_t now)
{
    struct direction *d = &c->dirs[dir];
    int64_t span = now - atomic_load_explicit(&d->waits_since_ns, memory_order_relaxed);

    atomic_store_explicit(&d->waits_since_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&d->waited_ns,
                          atomic_load_explicit(&d->waited_ns, memory_order_relaxed) + span,
                          memory_order_relaxed);
    atomic_store_explicit(&d->waits, atomic_load_explicit(&d->waits, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    hs_span_add(dir == HS_DIR_IN ? HS_SPAN_READ_STALL_PEER : HS_SPAN_WRITE_STALL_PEER, span);
}

void
hs_stall_ask_kernel(struct hs_conn *c)
{
    struct tcp_info info = {0};
    socklen_t len = offsetof(struct tcp_info, tcpi_last_ack_recv);
    int64_t span;

    if (c->roll.reads++ % READS_PER_QUESTION != 0 || c->family == AF_UNIX ||
        hs_sys_getsockopt(hs_fd_number(&c->fd), IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        return;
    span = (int64_t)info.tcpi_last_data_recv * HS_NS_PER_MS;
    hs_span_add(HS_SPAN_READ_STALL_APP, span);
    if (span > atomic_load_explicit(&c->roll.application_ns, memory_order_relaxed))
        atomic_store_explicit(&c->roll.application_ns, span, memory_order_relaxed);
}

void
hs_conn_resumed(struct hs_conn *c, struct hs_op *op)
{
    int64_t span = hs_now() - op->came_ns;

    HS_CHECK(c, CONN_MAGIC);
    op->came_ns = 0;
    hs_span_add(HS_SPAN_READ_STALL_GIL, span);
    atomic_fetch_add_explicit(&c->roll.gil_ns, span, memory_order_relaxed);
}

/* ---- Looking ------------------------------------------------------------------------------- */

const char *
hs_made_name(enum hs_made how)
{
    static const char *const names[] = {
#define MADE_NAME(name, text) text,
        HS_MADE_ALL(MADE_NAME)
#undef MADE_NAME
    };

    HS_ASSERT(how < HS_MADE_KINDS);
    return names[how];
}

static bool
try_ref(struct hs_conn *c)
{
    int refs = atomic_load(&c->refs);

    while (refs > 0)
        if (atomic_compare_exchange_weak(&c->refs, &refs, refs + 1))
            return true;
    return false;
}

size_t
hs_conns(struct hs_conn **conns, size_t room)
{
    size_t n = 0;

    for (size_t i = 0; i < PARTS; i++) {
        struct part *p = &parts[i];

        hs_lock_take(&p->lock);
        for (const struct hs_list *l = p->conns.next; l != &p->conns; l = l->next) {
            struct hs_conn *c = HS_CONTAINER(l, struct hs_conn, roll.link);

            if (hs_fd_is_closed(&c->fd) || !hs_fd_is_ours(&c->fd))
                continue;
            if (n >= room)
                n++;
            else if (try_ref(c))
                conns[n++] = c;
        }
        hs_lock_drop(&p->lock);
    }
    return n;
}

struct hs_conn *
hs_conn_find(uint64_t id)
{
    struct part *p = part_of(id);
    struct hs_conn *found = NULL;

    hs_lock_take(&p->lock);
    for (const struct hs_list *l = p->conns.next; l != &p->conns; l = l->next) {
        struct hs_conn *c = HS_CONTAINER(l, struct hs_conn, roll.link);

        if (c->fd.id != id)
            continue;
        if (!hs_fd_is_closed(&c->fd) && hs_fd_is_ours(&c->fd) && try_ref(c))
            found = c;
        break;
    }
    hs_lock_drop(&p->lock);
    return found;
}

void
hs_conns_count(uint64_t counts[HS_MADE_KINDS], struct hs_spread *ret_ages)
{
    int64_t now = hs_now();

    *ret_ages = (struct hs_spread){0};
    memset(counts, 0, HS_MADE_KINDS * sizeof(counts[0]));
    for (size_t i = 0; i < PARTS; i++) {
        struct part *p = &parts[i];

        hs_lock_take(&p->lock);
        for (const struct hs_list *l = p->conns.next; l != &p->conns; l = l->next) {
            struct hs_conn *c = HS_CONTAINER(l, struct hs_conn, roll.link);

            if (hs_fd_is_closed(&c->fd) || !hs_fd_is_ours(&c->fd))
                continue;
            hs_spread_add(ret_ages, now - c->created_ns);
            counts[atomic_load_explicit(&c->roll.made, memory_order_relaxed)]++;
        }
        hs_lock_drop(&p->lock);
    }
}

/* ---- Of servers ---------------------------------------------------------------------------- */

void
hs_conn_set_phase(struct hs_conn *c, uint32_t service, enum hs_phase phase)
{
    HS_CHECK(c, CONN_MAGIC);
    HS_ASSERT(phase < HS_PHASES);
    atomic_store_explicit(&c->roll.service, (uint64_t)service << 3 | (uint64_t)phase,
                          memory_order_relaxed);
}

void
hs_conns_by_phase(uint32_t service, uint64_t counts[HS_PHASES])
{
    for (size_t i = 0; i < PARTS; i++) {
        struct part *p = &parts[i];

        hs_lock_take(&p->lock);
        for (const struct hs_list *l = p->conns.next; l != &p->conns; l = l->next) {
            struct hs_conn *c = HS_CONTAINER(l, struct hs_conn, roll.link);
            uint64_t word = atomic_load_explicit(&c->roll.service, memory_order_relaxed);

            if (word >> 3 == service && !hs_fd_is_closed(&c->fd) && hs_fd_is_ours(&c->fd))
                counts[word & 7]++;
        }
        hs_lock_drop(&p->lock);
    }
}
