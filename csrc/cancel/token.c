/* token.c: the cancellation tree.
 *
 * Truth is one atomic pointer per token, `ended`: NULL while live, else an immutable reason. It is
 * set once, by compare-and-swap, so the first reason wins. A token is ended when its own pointer is
 * set or when that of any ancestor is: the one who asks walks up (trees are shallow), copies the
 * reason it finds into the token, and so makes it sticky. Hence cancelling is one store, and every
 * descendant is cancelled at that moment, however many there are.
 *
 * Deadlines need no timer: the one who asks or waits compares the clock with the earliest deadline
 * on the way up.
 *
 * What remains is to wake those who sleep and to collect callbacks. sweep() walks down through the
 * children without recursion, one token lock at a time, chaining the tokens to visit through their
 * own `sweep_next`; one mutex (rank SWEEP) makes that field belong to one sweep at a time. A token
 * without children is woken without it. Callbacks are only unlinked during the sweep and run later,
 * by hs_callbacks_run, with no lock held.
 *
 * After a fork the child's copies of tokens keep their state and can be asked and cancelled, but
 * their lists and locks are the dead threads' and are left alone: no links, no sweeps, no freeing.
 *
 * Ownership: a child owns references to its parents; a parent's lists of children are weak, and a
 * child unlinks itself, under the lock of its list, before its memory goes. A sweep that finds a
 * child takes a reference only if the count is not already zero.
 *
 * Children of one parent that several threads make at the same time: the first who finds the
 * parent's lock taken splits it. From then on new children are listed in parts, each with a lock of
 * its own and chosen by the thread, so that those who make children neither wait nor sleep for each
 * other. What is listed stays where it is. Invariants: `parts` is set once, and freed with the
 * token; a link is in one list for its life, and link->guard is the lock of that; no two of these
 * locks are held together; who looks for children looks into the token's own list and into every
 * part, one after the other. A child that is linked behind such a look has to look up by itself,
 * which it does whenever it is asked; `ended` and the deadline are set before the look begins.
 */
#include "token.h"

#include "hardsock_binding.h"

#include "callback.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/sys.h"
#include "../base/tally.h"
#include "../base/time.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#define TOKEN_MAGIC 0x70c3e410U
#define FREED 0x71
#define IDS_AT_A_TIME 1024
#define PARTS 8

struct reason {
    atomic_long refs;
    struct hs_reason public;
};

struct parent_link {
    struct hs_token *parent, *child;
    struct hs_lock *guard; /* the parent's lock or that of one of its parts; NULL: not linked */
    struct hs_list link;   /* guarded by it */
};

/* Some of a token's children. Longer than what is written to by a cache line: no two share one. */
struct part {
    struct hs_lock lock;
    struct hs_list children; /* guarded by lock: parent_link.link */
    char apart[HS_CACHE_LINE];
};

/* The kernel objects behind hs_token_fileno. */
struct watch {
    struct hs_own_fd epoll, event, timer;
    bool early; /* event was rung for want of a timer */
};

struct hs_token {
    unsigned magic;
    atomic_long refs;
    uint64_t id;
    unsigned generation; /* hs_fork_generation() when it was made */
    struct reason *_Atomic ended;
    _Atomic int64_t deadline_ns;
    struct hs_wakelist waiters;
    struct hs_lock lock;
    struct hs_list children;     /* guarded by lock: parent_link.link; more are in parts */
    struct part *_Atomic parts;  /* owns: PARTS of them; NULL: nobody has had to wait; write once */
    struct hs_list callbacks;    /* guarded by lock: hs_callback.link */
    struct watch *watch;         /* guarded by lock; write once */
    struct hs_token *sweep_next; /* guarded by sweep_lock */
    bool in_sweep;               /* guarded by sweep_lock */
    char name[48];
    size_t paths; /* ways up to roots; immutable */
    size_t nparents;
    struct parent_link parents[]; /* immutable but for their list links */
};

static struct hs_lock sweep_lock = HS_LOCK_STATIC(HS_RANK_SWEEP);
static struct hs_tally live;

/* Used when there is no memory for a reason: cancelling must not fail. Never freed. */
static struct reason reason_without_memory = {
    .refs = 1,
    .public = {.code = HS_E_CANCELLED, .text = "cancelled (no memory for the reason)"},
};
static struct reason deadline_without_memory = {
    .refs = 1,
    .public = {.code = HS_E_DEADLINE, .text = "deadline (no memory for the reason)"},
};

long
hs_token_live(void)
{
    return hs_tally_sum(&live);
}

/* The sweeping thread, if there was one, is not in the child. */
static void
token_after_fork_in_child(void)
{
    hs_lock_init(&sweep_lock, HS_RANK_SWEEP);
}

__attribute__((constructor)) static void
token_watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, token_after_fork_in_child);
}

static struct reason *
reason_new(hs_err code, uint64_t origin, const char *text, uint64_t cookie)
{
    struct reason *r = hs_sys_malloc(sizeof(*r));

    if (r == NULL)
        return code == HS_E_DEADLINE ? &deadline_without_memory : &reason_without_memory;
    r->refs = 1;
    r->public = (struct hs_reason){.code = code, .origin = origin, .cookie = cookie};
    if (text != NULL)
        (void)strncpy(r->public.text, text, sizeof(r->public.text) - 1);
    return r;
}

static void
reason_unref(struct reason *r)
{
    if (r == NULL || r == &reason_without_memory || r == &deadline_without_memory)
        return;
    if (atomic_fetch_sub(&r->refs, 1) == 1)
        free(r);
}

/* Consumes the reference r; the first reason stays. */
static bool
set_ended(struct hs_token *t, struct reason *r)
{
    struct reason *none = NULL;
    bool first = atomic_compare_exchange_strong(&t->ended, &none, r);

    if (!first)
        reason_unref(r);
    return first;
}

bool
hs_token_is_ours(const struct hs_token *t)
{
    return t->generation == hs_fork_generation();
}

/* ---- Lists of children ---------------------------------------------------------------------- */

/* NULL: there is no memory, and the token's own list has to do. */
static struct part *
token_split(struct hs_token *t)
{
    struct part *made = hs_sys_calloc(PARTS, sizeof(*made)), *none = NULL;

    if (made == NULL)
        return NULL;
    for (size_t i = 0; i < PARTS; i++) {
        hs_lock_init(&made[i].lock, HS_RANK_TOKEN);
        hs_list_init(&made[i].children);
    }
    if (atomic_compare_exchange_strong(&t->parts, &none, made))
        return made;
    for (size_t i = 0; i < PARTS; i++) /* Another thread was first. */
        hs_lock_fini(&made[i].lock);
    free(made);
    return none;
}

static void
link_child(struct hs_token *parent, struct parent_link *l)
{
    struct part *parts = atomic_load(&parent->parts);
    struct hs_list *children = &parent->children;

    l->guard = &parent->lock;
    if (parts != NULL || !hs_lock_try(l->guard)) {
        if (parts != NULL || (parts = token_split(parent)) != NULL) {
            struct part *mine = &parts[hs_thread_number() % PARTS];

            l->guard = &mine->lock;
            children = &mine->children;
        }
        hs_lock_take(l->guard);
    }
    hs_list_append(children, &l->link);
    hs_lock_drop(l->guard);
}

static void
link_to_parents(struct hs_token *t)
{
    for (size_t i = 0; i < t->nparents; i++)
        if (hs_token_is_ours(t->parents[i].parent))
            link_child(t->parents[i].parent, &t->parents[i]);
}

static void
unlink_child(struct parent_link *l)
{
    if (l->guard == NULL)
        return;
    hs_lock_take(l->guard);
    hs_list_unlink(&l->link);
    hs_lock_drop(l->guard);
}

static bool
has_none_in_parts(struct hs_token *t)
{
    struct part *parts = atomic_load(&t->parts);
    bool none = true;

    for (size_t i = 0; parts != NULL && none && i < PARTS; i++) {
        hs_lock_take(&parts[i].lock);
        none = hs_list_empty(&parts[i].children);
        hs_lock_drop(&parts[i].lock);
    }
    return none;
}

static void
free_parts(struct part *parts)
{
    for (size_t i = 0; parts != NULL && i < PARTS; i++) {
        HS_ASSERT(hs_list_empty(&parts[i].children));
        hs_lock_fini(&parts[i].lock);
    }
    free(parts);
}

/* ---- Making and freeing --------------------------------------------------------------------- */

/* Bounds the walk up, and with it the recursion through further parents. */
static size_t
count_paths(struct hs_token *const *parents, size_t nparents)
{
    size_t paths = nparents == 0 ? 1 : 0;

    for (size_t i = 0; i < nparents; i++)
        paths += parents[i]->paths;
    return paths;
}

/* Each thread takes many at a time: tokens that have nothing in common share no cache line either.
 * A forked child goes on with those of its thread, as the parent does: ids are a process's own. */
static uint64_t
new_id(void)
{
    static _Atomic uint64_t taken;
    static _Thread_local uint64_t last, end;

    if (last == end) {
        last = atomic_fetch_add_explicit(&taken, IDS_AT_A_TIME, memory_order_relaxed);
        end = last + IDS_AT_A_TIME;
    }
    return ++last;
}

hs_err
hs_token_new(struct hs_token *const *parents, size_t nparents, int64_t deadline_ns,
             const char *name, struct hs_error *err, struct hs_token **ret_token)
{
    struct hs_token *t;
    size_t paths;

    if (nparents > HS_TOKEN_MAX_PARENTS)
        return hs_err_setx(err, HS_E_INVALID, NULL, "a token has at most %d parents, got %zu",
                           HS_TOKEN_MAX_PARENTS, nparents);
    if ((paths = count_paths(parents, nparents)) > HS_TOKEN_MAX_PATHS)
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "tokens are linked too often: more than %d ways up to roots",
                           HS_TOKEN_MAX_PATHS);
    t = hs_sys_calloc(1, sizeof(*t) + nparents * sizeof(t->parents[0]));
    if (t == NULL)
        return hs_err_setx(err, HS_E_NOMEM, NULL, "no memory for a token");
    t->paths = paths;
    t->magic = TOKEN_MAGIC;
    t->refs = 1;
    t->id = new_id();
    t->generation = hs_fork_generation();
    t->deadline_ns = deadline_ns;
    hs_wakelist_init(&t->waiters);
    hs_lock_init(&t->lock, HS_RANK_TOKEN);
    hs_list_init(&t->children);
    hs_list_init(&t->callbacks);
    (void)snprintf(t->name, sizeof(t->name), "%s", name != NULL ? name : "");
    t->nparents = nparents;
    for (size_t i = 0; i < nparents; i++)
        t->parents[i] = (struct parent_link){.parent = hs_token_ref(parents[i]), .child = t};
    link_to_parents(t);
    hs_tally_add(&live, 1);
    *ret_token = t;
    return HS_OK;
}

struct hs_token *
hs_token_ref(struct hs_token *t)
{
    HS_CHECK(t, TOKEN_MAGIC);
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

/* For weak pointers: a token whose count has reached zero stays dead. */
static bool
ref_unless_dead(struct hs_token *t)
{
    long refs = atomic_load(&t->refs);

    while (refs > 0)
        if (atomic_compare_exchange_weak(&t->refs, &refs, refs + 1))
            return true;
    return false;
}

static void
watch_free(struct watch *w)
{
    if (w == NULL)
        return;
    hs_own_fd_close(&w->epoll);
    hs_own_fd_close(&w->event);
    hs_own_fd_close(&w->timer);
    free(w);
}

static void
token_free(struct hs_token *t)
{
    HS_ASSERT(hs_list_empty(&t->children)); /* Each child holds a reference to us. */
    hs_callbacks_drop_all(&t->callbacks);
    hs_wakelist_fini(&t->waiters);
    hs_lock_fini(&t->lock);
    watch_free(t->watch);
    free_parts(atomic_load(&t->parts));
    reason_unref(atomic_load(&t->ended));
    memset(t, FREED, sizeof(*t));
    free(t);
    hs_tally_add(&live, -1);
}

/* Freeing a leaf may free its parents: long chains are unwound in a loop, not by recursion. The
 * first parent goes on the loop; others (linked tokens) are few and may recurse. */
void
hs_token_unref(struct hs_token *t)
{
    while (t != NULL) {
        struct hs_token *next = NULL;

        HS_CHECK(t, TOKEN_MAGIC);
        if (atomic_fetch_sub(&t->refs, 1) != 1 || !hs_token_is_ours(t))
            return;
        for (size_t i = 0; i < t->nparents; i++) {
            struct hs_token *parent = t->parents[i].parent;

            unlink_child(&t->parents[i]);
            if (i == 0)
                next = parent;
            else
                hs_token_unref(parent);
        }
        token_free(t);
        t = next;
    }
}

uint64_t
hs_token_id(const struct hs_token *t)
{
    return t->id;
}

const char *
hs_token_name(const struct hs_token *t)
{
    return t->name;
}

struct hs_wakelist *
hs_token_wakelist(struct hs_token *t)
{
    return &t->waiters;
}

/* The way up is a loop along first parents; only the further parents of linked tokens, which are
 * few, recurse. */
#define FIRST_PARENT(t) ((t)->nparents > 0 ? (t)->parents[0].parent : NULL)

/* The nearest reason on the way up. Returns a new reference or NULL. */
static struct reason *
find_reason(struct hs_token *t)
{
    struct reason *r;

    for (; t != NULL; t = FIRST_PARENT(t)) {
        if ((r = atomic_load(&t->ended)) != NULL) {
            atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
            return r;
        }
        for (size_t i = 1; i < t->nparents; i++)
            if ((r = find_reason(t->parents[i].parent)) != NULL)
                return r;
    }
    return NULL;
}

static void
earliest(struct hs_token *t, int64_t *deadline_ns, struct hs_token **owner)
{
    for (; t != NULL; t = FIRST_PARENT(t)) {
        int64_t own = atomic_load(&t->deadline_ns);

        if (own < *deadline_ns) {
            *deadline_ns = own;
            *owner = t;
        }
        for (size_t i = 1; i < t->nparents; i++)
            earliest(t->parents[i].parent, deadline_ns, owner);
    }
}

int64_t
hs_token_deadline(struct hs_token *t)
{
    int64_t deadline_ns = HS_NEVER;
    struct hs_token *owner = NULL;

    HS_CHECK(t, TOKEN_MAGIC);
    earliest(t, &deadline_ns, &owner);
    return deadline_ns;
}

bool
hs_token_is_cancelled(struct hs_token *t)
{
    struct reason *r;

    HS_CHECK(t, TOKEN_MAGIC);
    if (atomic_load(&t->ended) == NULL && (r = find_reason(t)) != NULL)
        (void)set_ended(t, r);
    r = atomic_load(&t->ended);
    return r != NULL && r->public.code == HS_E_CANCELLED;
}

hs_err
hs_token_check(struct hs_token *t)
{
    int64_t deadline_ns = HS_NEVER;
    struct hs_token *owner = NULL;

    (void)hs_token_is_cancelled(t);
    if (atomic_load(&t->ended) == NULL) {
        earliest(t, &deadline_ns, &owner);
        if (deadline_ns == HS_NEVER || deadline_ns > hs_now())
            return HS_OK;
        (void)set_ended(t, reason_new(HS_E_DEADLINE, owner->id, owner->name, 0));
    }
    return atomic_load(&t->ended)->public.code;
}

bool
hs_token_reason(struct hs_token *t, struct hs_reason *ret_reason)
{
    if (hs_token_check(t) == HS_OK)
        return false;
    *ret_reason = atomic_load(&t->ended)->public;
    return true;
}

/* Called with t->lock held: arms the timer behind hs_token_fileno. False, and errno: the kernel
 * does not take the time. */
static bool
arm_watch_locked(struct hs_token *t)
{
    struct itimerspec when = {{0}, {0}};
    int64_t deadline_ns;

    if (t->watch == NULL || atomic_load(&t->ended) != NULL)
        return true; /* What has ended stays readable. */
    deadline_ns = hs_token_deadline(t);
    if (deadline_ns != HS_NEVER) {
        if (deadline_ns < 1)
            deadline_ns = 1; /* All zero would disarm it. */
        when.it_value = (struct timespec){.tv_sec = deadline_ns / HS_NS_PER_S,
                                          .tv_nsec = deadline_ns % HS_NS_PER_S};
    }
    /* Where the program has closed what it asked for, nothing is left to tell it with. */
    return !hs_own_fd_is_there(&t->watch->timer) ||
           hs_sys_timerfd_settime(t->watch->timer.number, TFD_TIMER_ABSTIME, &when, NULL) == 0;
}

/* The end claims callbacks and makes the descriptor readable; a moved deadline moves the timer, or,
 * when the kernel does not take it, makes the descriptor readable, too: better early than never. */
static void
touch_locked(struct hs_token *t, bool ended, struct hs_list *fired)
{
    if (!ended) {
        if (!arm_watch_locked(t))
            t->watch->early = hs_own_fd_ring(&t->watch->event) || t->watch->early;
        else if (t->watch != NULL && t->watch->early && atomic_load(&t->ended) == NULL)
            t->watch->early = !hs_own_fd_drain(&t->watch->event);
        return;
    }
    hs_callbacks_claim(t, &t->callbacks, fired);
    if (t->watch != NULL)
        (void)hs_own_fd_ring(&t->watch->event);
}

static void
hand_over_locked(const struct hs_list *children, struct hs_token **queue)
{
    for (struct hs_list *l = children->next; l != children; l = l->next) {
        struct hs_token *child = HS_CONTAINER(l, struct parent_link, link)->child;

        if (child->in_sweep || !ref_unless_dead(child))
            continue;
        child->in_sweep = true;
        child->sweep_next = *queue;
        *queue = child;
    }
}

/* Wakes who waits on t and hands its children to the sweep. */
static void
token_visit(struct hs_token *t, bool ended, struct hs_token **queue, struct hs_list *fired)
{
    struct part *parts;

    hs_lock_take(&t->lock);
    touch_locked(t, ended, fired);
    hand_over_locked(&t->children, queue);
    hs_lock_drop(&t->lock);
    parts = atomic_load(&t->parts);
    for (size_t i = 0; parts != NULL && i < PARTS; i++) {
        hs_lock_take(&parts[i].lock);
        hand_over_locked(&parts[i].children, queue);
        hs_lock_drop(&parts[i].lock);
    }
    hs_wakelist_wake(&t->waiters);
}

/* The common case needs no sweep. A child that is linked a moment later looks up for itself. */
static bool
visit_leaf(struct hs_token *t, bool ended, struct hs_list *fired)
{
    bool leaf;

    if (!has_none_in_parts(t))
        return false;
    hs_lock_take(&t->lock);
    leaf = hs_list_empty(&t->children);
    if (leaf)
        touch_locked(t, ended, fired);
    hs_lock_drop(&t->lock);
    if (leaf)
        hs_wakelist_wake(&t->waiters);
    return leaf;
}

/* Gives back the sweep's references. Where ours is the last, the token goes on a private chain,
 * still marked: it can be found through its parents' lists, but no other sweep will touch it. */
static struct hs_token *
release_swept(struct hs_token *done)
{
    struct hs_token *dying = NULL, *next;

    for (; done != NULL; done = next) {
        long refs = atomic_load(&done->refs);

        next = done->sweep_next;
        done->in_sweep = false;
        while (refs > 1 && !atomic_compare_exchange_weak(&done->refs, &refs, refs - 1))
            ;
        if (refs > 1)
            continue;
        done->in_sweep = true;
        done->sweep_next = dying;
        dying = done;
    }
    return dying;
}

/* Visits t and all its descendants, each once. Last references are given up after the lock: freeing
 * may call release functions of callbacks. */
static void
sweep(struct hs_token *t, bool ended, struct hs_list *fired)
{
    struct hs_token *queue = NULL, *done = NULL, *next;

    if (!hs_token_is_ours(t) || visit_leaf(t, ended, fired))
        return;
    hs_lock_take(&sweep_lock);
    t->in_sweep = true;
    token_visit(t, ended, &queue, fired);
    while (queue != NULL) {
        next = queue;
        queue = next->sweep_next;
        if (ended)
            (void)hs_token_is_cancelled(next); /* Makes the ancestor's reason its own. */
        token_visit(next, ended, &queue, fired);
        next->sweep_next = done;
        done = next;
    }
    done = release_swept(done);
    t->in_sweep = false;
    hs_lock_drop(&sweep_lock);
    for (; done != NULL; done = next) {
        next = done->sweep_next;
        hs_token_unref(done);
    }
}

static struct hs_callback *
sweep_ended(struct hs_token *t)
{
    struct hs_list fired;

    hs_list_init(&fired);
    sweep(t, true, &fired);
    return hs_callbacks_detach(&fired);
}

static void
token_hand_over(struct hs_callback *fired, struct hs_callback **ret_fired)
{
    if (ret_fired != NULL)
        *ret_fired = fired;
    else
        hs_callbacks_run(fired);
}

bool
hs_token_cancel(struct hs_token *t, const char *text, uint64_t cookie,
                struct hs_callback **ret_fired)
{
    bool first =
        hs_token_check(t) == HS_OK && set_ended(t, reason_new(HS_E_CANCELLED, t->id, text, cookie));

    if (ret_fired != NULL)
        *ret_fired = NULL;
    /* A deadline that passed unnoticed has run no callbacks yet. */
    if (first || atomic_load(&t->ended)->public.code == HS_E_DEADLINE)
        token_hand_over(sweep_ended(t), ret_fired);
    return first;
}

bool
hs_token_expire(struct hs_token *t, struct hs_callback **ret_fired)
{
    if (ret_fired != NULL)
        *ret_fired = NULL;
    if (hs_token_check(t) != HS_E_DEADLINE)
        return false;
    token_hand_over(sweep_ended(t), ret_fired);
    return true;
}

hs_err
hs_token_set_deadline(struct hs_token *t, int64_t deadline_ns)
{
    hs_err rv = hs_token_check(t);
    struct hs_list none;

    if (rv != HS_OK)
        return rv;
    hs_list_init(&none);
    atomic_store(&t->deadline_ns, deadline_ns);
    sweep(t, false, &none);
    return HS_OK;
}

hs_err
hs_token_on_cancel(struct hs_token *t, void (*fn)(void *arg), void (*release)(void *arg), void *arg,
                   struct hs_error *err, struct hs_callback **ret_callback)
{
    struct hs_callback *cb;
    hs_err rv;

    HS_CHECK(t, TOKEN_MAGIC);
    if ((rv = hs_token_check(t)) != HS_OK)
        return rv;
    if (!hs_token_is_ours(t))
        return hs_err_setx(err, HS_E_FORKED, NULL, "%s", hs_err_text(HS_E_FORKED));
    if ((cb = hs_callback_new(t, &t->lock, &t->callbacks, fn, release, arg)) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, NULL, "no memory for a callback");
    /* A cancel that came in between may have swept past before we were linked: then nobody will
     * run it, and the caller must be told that the token has ended. If the sweep did take it, the
     * removal fails to find it idle and the callback counts as registered. */
    if (hs_token_is_cancelled(t) && hs_callback_withdraw(cb))
        return HS_E_CANCELLED;
    *ret_callback = cb;
    return HS_OK;
}

static hs_err
watch_new(struct hs_error *err, struct watch **ret_watch)
{
    struct epoll_event ev = {.events = EPOLLIN};
    struct watch *w = hs_sys_malloc(sizeof(*w));

    if (w == NULL)
        return hs_err_setx(err, HS_E_NOMEM, NULL, "no memory to watch a token");
    *w = (struct watch){.epoll = HS_OWN_FD_NONE, .event = HS_OWN_FD_NONE, .timer = HS_OWN_FD_NONE};
    if (!hs_own_fd_open(&w->epoll, hs_sys_epoll_create1(EPOLL_CLOEXEC)) ||
        !hs_own_fd_open(&w->event, hs_sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) ||
        !hs_own_fd_open(&w->timer,
                        hs_sys_timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) ||
        hs_sys_epoll_ctl(w->epoll.number, EPOLL_CTL_ADD, w->event.number, &ev) != 0 ||
        hs_sys_epoll_ctl(w->epoll.number, EPOLL_CTL_ADD, w->timer.number, &ev) != 0) {
        hs_err rv = hs_err_set(err, HS_E_SYSTEM, errno, NULL, "descriptors to watch a token");

        watch_free(w);
        return rv;
    }
    *ret_watch = w;
    return HS_OK;
}

static bool
has_watch(struct hs_token *t, int *ret_fd)
{
    bool has;

    hs_lock_take(&t->lock);
    has = t->watch != NULL;
    if (has)
        *ret_fd = t->watch->epoll.number;
    hs_lock_drop(&t->lock);
    return has;
}

hs_err
hs_token_fileno(struct hs_token *t, struct hs_error *err, int *ret_fd)
{
    struct watch *made = NULL;
    hs_err rv;

    HS_CHECK(t, TOKEN_MAGIC);
    if (!hs_token_is_ours(t))
        return hs_err_setx(err, HS_E_FORKED, NULL, "%s", hs_err_text(HS_E_FORKED));
    if (has_watch(t, ret_fd))
        return HS_OK;
    if ((rv = watch_new(err, &made)) != HS_OK)
        return rv;
    hs_lock_take(&t->lock);
    if (t->watch == NULL) {
        t->watch = made;
        made = NULL;
        (void)hs_token_is_cancelled(t);
        if (atomic_load(&t->ended) !=
            NULL) /* The sweep may have passed before there was a watch. */
            (void)hs_own_fd_ring(&t->watch->event);
        if (!arm_watch_locked(t)) {
            rv = hs_err_set(err, HS_E_SYSTEM, errno, NULL, "timerfd_settime");
            made = t->watch; /* Nobody has been given it. */
            t->watch = NULL;
        }
    }
    if (rv == HS_OK)
        *ret_fd = t->watch->epoll.number;
    hs_lock_drop(&t->lock);
    watch_free(made);
    return rv;
}
