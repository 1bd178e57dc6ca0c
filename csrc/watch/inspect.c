/* inspect.c: a unix socket at which this process tells what it has, served by a thread of our own.
 *
 * A request is a line as hs_report_asked takes it, the answer that report as a line of JSON. The
 * thread needs no interpreter, so that it answers while Python code holds the GIL; nor any
 * descriptor that is not there: some are kept for the day on which none is left. It only reads.
 *
 * The one who asks has to be of the same user, or root (SO_PEERCRED); the directory that keeps
 * others out is the caller's to make. What an asker can cost is bounded: so many at a time, the one
 * that has been silent for longest goes first; a line's length; a time for each answer to be taken;
 * and a quarter of one processor.
 *
 * Invariants:
 * - lock is held from the beginning of a start or stop to its end, so that they come one after the
 *   other: a socket at the path is that of `current`.
 * - An inspector belongs to its thread once that is started; a stop closes its reactor and leaves
 *   the rest to it. It takes itself off the list, under lock, before it frees anything: what is
 *   `current` is there for the one who holds lock.
 * - turn is held while the thread has something in its hands, and by nobody else but fork. With
 *   both locks held each inspector that has a descriptor is on the list, and each descriptor of it
 *   in the inspector, so that a child finds them all.
 * - At most ENDING of them are ending when one is made, but for what starts at the same moment.
 * - A client is parked whenever the thread is not working on it; its fd is -1 while it is free.
 * - So is `listening`, unless the kernel refuses: then listens_ns is when it is tried again, and
 *   the thread does not sleep for longer than that.
 *
 * In a forked child the thread does not exist: its descriptors are closed there, and the child may
 * start one of its own.
 */
#include "hardsock_binding.h"
#include "../base/err.h"
#include "../base/lock.h"
#include "../base/own_fd.h"
#include "../base/sys.h"
#include "../base/thread.h"
#include "../base/time.h"
#include "../cancel/reactor.h"
#include "../cancel/wait.h"
#include "../cancel/waker.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS 16
#define SPARES 4 /* descriptors for when there are none */
#define BACKLOG 64
#define LINE_MAX_BYTES 256
#define SILENCE_NS (60 * HS_NS_PER_S) /* between two requests, and for an answer to be taken */
#define STACK_BYTES ((size_t)256 * 1024)
/* After work for so many times as long as it took nobody is accepted, or given a report. What is
 * done all the same, as reading and sending, makes the rest longer, and is bounded for each. */
#define REST 3
#define RETRY_NS (20 * HS_NS_PER_MS)
/* So many that were stopped may still be ending when one more is started: each has eight
 * descriptors and a thread. */
#define ENDING 4
#define ENDING_NS (5 * HS_NS_PER_S)

struct client {
    struct hs_parked parked;
    struct hs_own_fd fd;
    char line[LINE_MAX_BYTES];
    size_t len;
    char *answer; /* owns; NULL: none to be sent */
    size_t answer_len, sent;
    int64_t until_ns; /* when it is given up */
    int64_t asked_ns; /* when a whole line was there; 0: none is */
    bool last;        /* after this answer it is closed */
};

struct inspector {
    struct hs_list link; /* in inspectors */
    struct hs_reactor *reactor;
    struct hs_parked listening;
    struct hs_own_fd fd;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    struct hs_own_fd spares[SPARES]; /* HS_OWN_FD_NONE: given up */
    int64_t rests_until_ns;
    int64_t listens_ns; /* HS_NEVER: it is parked */
    struct client clients[CLIENTS];
};

static struct hs_lock turn = HS_LOCK_STATIC(HS_RANK_INSPECT_TURN);
static struct hs_lock lock = HS_LOCK_STATIC(HS_RANK_INSPECT);
/* All below are guarded by lock. */
static struct hs_list inspectors = {&inspectors, &inspectors}; /* also those that end */
static struct inspector *current;

static struct hs_wakelist gone = {
    .lock = HS_LOCK_STATIC(HS_RANK_WAKELIST),
    .nodes = {&gone.nodes, &gone.nodes},
}; /* woken when an inspector has ended */

static void
close_all(struct inspector *ins)
{
    hs_own_fd_close(&ins->fd);
    for (size_t i = 0; i < SPARES; i++)
        hs_own_fd_close(&ins->spares[i]);
    for (size_t i = 0; i < CLIENTS; i++)
        hs_own_fd_close(&ins->clients[i].fd);
}

static void
inspect_free(struct inspector *ins)
{
    close_all(ins);
    for (size_t i = 0; i < CLIENTS; i++)
        free(ins->clients[i].answer);
    hs_reactor_free(ins->reactor);
    free(ins);
}

/* ---- Clients ------------------------------------------------------------------------------- */

static void
keep_spares(struct inspector *ins)
{
    for (size_t i = 0; i < SPARES; i++)
        if (ins->spares[i].number < 0)
            (void)hs_own_fd_open(&ins->spares[i],
                                 hs_sys_open("/dev/null", O_RDONLY | O_CLOEXEC, 0));
}

static void
end_client(struct inspector *ins, struct client *c)
{
    hs_reactor_forget(ins->reactor, &c->parked);
    hs_own_fd_close(&c->fd);
    free(c->answer);
    *c = (struct client){.fd = HS_OWN_FD_NONE};
    keep_spares(ins);
}

static void
inspect_park(struct inspector *ins, struct client *c, uint32_t events, int64_t at_ns)
{
    if (hs_reactor_park(ins->reactor, &c->parked, events == 0 ? -1 : c->fd.number, events, at_ns,
                        NULL) != HS_OK)
        end_client(ins, c);
}

static void
set_answer(struct client *c, char *text, size_t len)
{
    text[len] = '\n'; /* Instead of the NUL. */
    c->answer = text;
    c->answer_len = len + 1;
    c->sent = 0;
    c->until_ns = hs_now() + SILENCE_NS;
}

static void
inspect_refuse(struct client *c, const char *why)
{
    char text[128];
    char *copy;
    int n =
        snprintf(text, sizeof(text), "{\"version\":%d,\"error\":\"%s\"}", HS_REPORT_VERSION, why);

    c->last = true;
    if (n > 0 && (copy = hs_sys_strdup(text)) != NULL)
        set_answer(c, copy, (size_t)n);
}

static bool
rests(const struct inspector *ins)
{
    return hs_now() < ins->rests_until_ns;
}

static void
rest_after(struct inspector *ins, int64_t began_ns)
{
    int64_t now = hs_now();

    if (ins->rests_until_ns < now)
        ins->rests_until_ns = now;
    ins->rests_until_ns += REST * (now - began_ns);
}

static void
answer(struct client *c, const char *request)
{
    char *text;
    size_t len;

    switch (hs_report_asked(request, NULL, &text, &len)) {
    case HS_OK:
        set_answer(c, text, len);
        break;
    case HS_E_INVALID:
        inspect_refuse(c, "there is no such report");
        break;
    case HS_E_CLOSED:
        inspect_refuse(c, "there is no such connection");
        c->last = c->answer == NULL; /* It asked well: the connection has ended meanwhile. */
        break;
    default:
        inspect_refuse(c, "no memory for a report");
    }
}

static char *
line_end(struct client *c)
{
    return memchr(c->line, '\n', c->len);
}

/* Answers the line that is here, if it may be answered now. */
static void
inspect_take_line(struct inspector *ins, struct client *c)
{
    char *end = line_end(c);
    char name[LINE_MAX_BYTES];
    size_t n;

    if (end == NULL) {
        if (c->len == sizeof(c->line))
            inspect_refuse(c, "the request is too long");
        return;
    }
    if (c->asked_ns == 0)
        c->asked_ns = hs_now();
    if (rests(ins))
        return;
    n = (size_t)(end - c->line);
    memcpy(name, c->line, n);
    name[n > 0 && name[n - 1] == '\r' ? n - 1 : n] = '\0';
    c->len -= n + 1;
    memmove(c->line, end + 1, c->len);
    c->asked_ns = line_end(c) != NULL ? hs_now() : 0; /* The next has been asked already. */
    answer(c, name);
}

/* False: it has left, or is to be ended; also for want of memory to refuse it in words. */
static bool
send_answer(struct client *c)
{
    while (c->answer != NULL) {
        ssize_t n = hs_sys_send(c->fd.number, c->answer + c->sent, c->answer_len - c->sent,
                                MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        c->sent += (size_t)n;
        if (c->sent < c->answer_len)
            continue;
        free(c->answer);
        c->answer = NULL;
    }
    return !c->last;
}

/* The same. */
static bool
receive(struct client *c)
{
    ssize_t n;

    if (c->len == sizeof(c->line))
        return true;
    n = hs_sys_recv(c->fd.number, c->line + c->len, sizeof(c->line) - c->len, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    c->len += (size_t)n;
    if (n > 0)
        c->until_ns = hs_now() + SILENCE_NS;
    return n > 0;
}

static void
inspect_serve(struct inspector *ins, struct client *c)
{
    int64_t began = hs_now();
    bool goes_on = began < c->until_ns;

    if (goes_on && c->answer == NULL && line_end(c) == NULL)
        goes_on = receive(c);
    if (goes_on && c->answer == NULL)
        inspect_take_line(ins, c);
    if (goes_on)
        goes_on = send_answer(c);
    if (!goes_on)
        end_client(ins, c);
    rest_after(ins, began);
    if (!goes_on)
        return;
    if (c->answer != NULL)
        inspect_park(ins, c, EPOLLOUT, c->until_ns);
    else if (line_end(c) != NULL)
        inspect_park(ins, c, 0, ins->rests_until_ns);
    else
        inspect_park(ins, c, EPOLLIN, c->until_ns);
}

/* The one that has waited for longest for an answer that may be given now: one that asks all the
 * time comes no sooner than one that asks once. c, which is due, has to wait for its turn. One that
 * is due, too, cannot be taken: it comes next, and c waits behind it. */
static void
serve_in_turn(struct inspector *ins, struct client *c)
{
    int64_t asked_ns = c->asked_ns != 0 ? c->asked_ns : HS_NEVER;
    struct client *first = c;

    if (c->answer == NULL && !rests(ins))
        for (size_t i = 0; i < CLIENTS; i++) {
            struct client *other = &ins->clients[i];

            if (other->asked_ns != 0 && other->answer == NULL && other->asked_ns < asked_ns) {
                first = other;
                asked_ns = other->asked_ns;
            }
        }
    if (first == c)
        inspect_serve(ins, c);
    else if (hs_reactor_take_this(ins->reactor, &first->parked)) {
        inspect_serve(ins, first);
        inspect_serve(ins, c);
    } else {
        hs_reactor_queue(ins->reactor, &c->parked);
    }
}

/* ---- Accepting ----------------------------------------------------------------------------- */

static bool
may_ask(int fd)
{
    struct ucred who;
    socklen_t len = sizeof(who);

    return hs_sys_getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 &&
           (who.uid == geteuid() || who.uid == 0);
}

/* A free place; else that of the one who has been silent for longest, who is not in anybody's way.
 * */
static struct client *
place_for_one(struct inspector *ins)
{
    struct client *longest = &ins->clients[0];

    for (size_t i = 0; i < CLIENTS; i++) {
        if (ins->clients[i].fd.number < 0)
            return &ins->clients[i];
        if (ins->clients[i].until_ns < longest->until_ns)
            longest = &ins->clients[i];
    }
    return longest;
}

/* At the limit of descriptors one that was kept is given up; another thread may be quicker to take
 * it, so there are several. */
static int
inspect_accept_one(struct inspector *ins)
{
    int fd = hs_sys_accept4(ins->fd.number, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    for (size_t i = 0; i < SPARES && fd < 0 && (errno == EMFILE || errno == ENFILE); i++) {
        if (ins->spares[i].number < 0)
            continue;
        hs_own_fd_close(&ins->spares[i]);
        fd = hs_sys_accept4(ins->fd.number, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    }
    return fd;
}

static void
inspect_welcome(struct inspector *ins, int fd)
{
    struct client *c = place_for_one(ins);

    /* One that is due already is being waited for by nobody else, and ends when it is its turn. */
    if (c->fd.number >= 0 && !hs_reactor_take_this(ins->reactor, &c->parked)) {
        (void)close(fd);
        return;
    }
    if (c->fd.number >= 0)
        end_client(ins, c);
    (void)hs_own_fd_open(&c->fd, fd);
    c->until_ns = hs_now() + SILENCE_NS;
    inspect_park(ins, c, EPOLLIN, c->until_ns);
}

static void
listen_again(struct inspector *ins, uint32_t events, int64_t at_ns)
{
    bool parked = hs_reactor_park(ins->reactor, &ins->listening, events == 0 ? -1 : ins->fd.number,
                                  events, at_ns, NULL) == HS_OK;

    ins->listens_ns = parked ? HS_NEVER : hs_deadline_after(RETRY_NS);
}

static void
accept_all(struct inspector *ins)
{
    int64_t began = hs_now();
    bool starved = false;
    int fd;

    if (began < ins->rests_until_ns) {
        listen_again(ins, 0, ins->rests_until_ns);
        return;
    }

    for (int i = 0; i < BACKLOG; i++) {
        if ((fd = inspect_accept_one(ins)) < 0) {
            starved = errno == EMFILE || errno == ENFILE;
            break;
        }
        if (may_ask(fd))
            inspect_welcome(ins, fd);
        else
            (void)close(fd);
    }
    keep_spares(ins);
    rest_after(ins, began);
    /* Without a descriptor its readiness would be told for ever. */
    listen_again(ins, starved ? 0 : EPOLLIN, starved ? hs_now() + RETRY_NS : HS_NEVER);
}

/* ---- The thread ---------------------------------------------------------------------------- */

static void
inspect_work(struct inspector *ins, struct hs_parked *p)
{
    hs_lock_take(&turn);
    if (p == &ins->listening)
        accept_all(ins);
    else
        serve_in_turn(ins, HS_CONTAINER(p, struct client, parked));
    hs_lock_drop(&turn);
}

/* Where the program has closed what it waits with or accepts from, it is over: what cannot be
 * parked would be due again and again, and another's clients are not ours. */
static hs_err
inspect_check(struct inspector *ins)
{
    return hs_own_fd_is_there(&ins->fd) ? hs_reactor_check(ins->reactor, NULL) : HS_E_SYSTEM;
}

/* The kernel does not let it wait, for now: what is lost is told by inspect_check(). */
static void
rest_a_moment(void)
{
    short ignored;

    (void)!hs_wait(-1, 0, NULL, hs_now() + RETRY_NS, NULL, &ignored);
}

/* The next that is due, as hs_reactor_next. */
static hs_err
inspect_next(struct inspector *ins, struct hs_parked **ret_p)
{
    hs_err rv;

    if (ins->listens_ns == HS_NEVER)
        return hs_reactor_next(ins->reactor, true, NULL, ret_p);
    if (ins->listens_ns > hs_now()) {
        if ((rv = hs_reactor_next(ins->reactor, false, NULL, ret_p)) != HS_WANT)
            return rv;
        rest_a_moment();
    }
    ins->listens_ns = HS_NEVER;
    *ret_p = &ins->listening;
    return HS_OK;
}

static void *
inspect_run(void *arg)
{
    struct inspector *ins = arg;
    struct hs_parked *p;
    hs_err rv;

    for (;;) {
        rv = inspect_next(ins, &p);
        if (rv == HS_OK)
            rv = inspect_check(ins);
        if (rv == HS_OK)
            inspect_work(ins, p);
        else if (rv == HS_E_SYSTEM && inspect_check(ins) == HS_OK)
            rest_a_moment();
        else if (rv != HS_INTR)
            break;
    }
    hs_lock_take(&turn);
    if (rv == HS_E_CLOSED)
        while (hs_reactor_take(ins->reactor, 0, NULL, NULL) != NULL)
            continue;
    hs_lock_take(&lock);
    hs_list_unlink(&ins->link);
    hs_lock_drop(&lock);
    if (rv == HS_E_CLOSED)
        inspect_free(ins);
    else /* The kernel does not let it wait: what is parked, and a stop may still close, stays. */
        close_all(ins);
    hs_lock_drop(&turn);
    hs_wakelist_wake(&gone);
    return NULL;
}

static hs_err
listen_at(struct inspector *ins, const char *path, struct hs_error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t size = strlen(path) + 1;

    if (size > sizeof(addr.sun_path))
        return hs_err_setx(err, HS_E_INVALID, "inspect", "path has %zu bytes, at most %zu fit",
                           size - 1, sizeof(addr.sun_path) - 1);
    memcpy(addr.sun_path, path, size);
    memcpy(ins->path, path, size);
    (void)hs_sys_unlink(path);
    if (!hs_own_fd_open(&ins->fd,
                        hs_sys_socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)))
        return hs_err_set(err, HS_E_SYSTEM, errno, "inspect", "a socket");
    if (hs_sys_bind(ins->fd.number, (struct sockaddr *)&addr, sizeof(addr)) != 0)
        return hs_err_set(err, HS_E_SYSTEM, errno, "inspect", "bind %.80s", path);
    if (hs_sys_listen(ins->fd.number, BACKLOG) != 0)
        return hs_err_set(err, HS_E_SYSTEM, errno, "inspect", "listen");
    return HS_OK;
}

static hs_err
inspect_make(const char *path, struct hs_error *err, struct inspector **ret_ins)
{
    struct inspector *ins = hs_sys_calloc(1, sizeof(*ins));
    hs_err rv;
    int sys;

    if (ins == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "inspect", "no memory to be inspected");
    ins->fd = HS_OWN_FD_NONE;
    ins->listens_ns = HS_NEVER;
    for (size_t i = 0; i < SPARES; i++)
        ins->spares[i] = HS_OWN_FD_NONE;
    for (size_t i = 0; i < CLIENTS; i++)
        ins->clients[i].fd = HS_OWN_FD_NONE;
    if ((rv = hs_reactor_new(err, &ins->reactor)) == HS_OK &&
        (rv = listen_at(ins, path, err)) == HS_OK)
        rv = hs_reactor_park(ins->reactor, &ins->listening, ins->fd.number, EPOLLIN, HS_NEVER, err);
    keep_spares(ins);
    if (rv == HS_OK && (sys = hs_thread_start("hs-inspect", STACK_BYTES, inspect_run, ins)) != 0)
        rv = hs_err_set(err, HS_E_SYSTEM, sys, "inspect", "a thread");
    if (rv == HS_OK) {
        *ret_ins = ins;
        return HS_OK;
    }
    if (ins->path[0] != '\0')
        (void)hs_sys_unlink(ins->path);
    if (ins->reactor != NULL)
        (void)hs_reactor_take_this(ins->reactor, &ins->listening);
    inspect_free(ins);
    return rv;
}

static void
inspect_stop_locked(void)
{
    if (current == NULL)
        return;
    (void)hs_sys_unlink(current->path);
    hs_reactor_close(current->reactor);
    current = NULL;
}

static bool
may_start_locked(void)
{
    size_t n = 0;

    for (const struct hs_list *l = inspectors.next; l != &inspectors; l = l->next)
        n++;
    return n <= ENDING;
}

static hs_err
look_for_room(void *arg, struct hs_change *change)
{
    bool room;

    (void)arg, (void)change;
    hs_lock_take(&lock);
    room = may_start_locked();
    hs_lock_drop(&lock);
    return room ? HS_OK : HS_WANT;
}

/* Takes lock, with room for one more. HS_E_BUSY, without it: those that end take their time. */
static hs_err
lock_with_room(struct hs_error *err)
{
    struct hs_op op = HS_OP_INIT(hs_deadline_after(ENDING_NS), NULL);
    hs_err rv;

    for (;;) {
        hs_lock_take(&lock);
        if (may_start_locked())
            return HS_OK;
        hs_lock_drop(&lock);
        rv = hs_await_change(&op, &gone, look_for_room, NULL, NULL);
        if (rv != HS_OK && rv != HS_INTR)
            return hs_err_setx(err, HS_E_BUSY, "inspect",
                               "%d that were stopped have not ended within %d s", ENDING + 1,
                               (int)(ENDING_NS / HS_NS_PER_S));
    }
}

hs_err
hs_inspect_start(const char *path, struct hs_error *err)
{
    struct inspector *made = NULL;
    hs_err rv;

    if ((rv = lock_with_room(err)) != HS_OK)
        return rv;
    inspect_stop_locked();
    if ((rv = inspect_make(path, err, &made)) == HS_OK) {
        current = made;
        hs_list_append(&inspectors, &made->link); /* Before its thread can end: under the lock. */
    }
    hs_lock_drop(&lock);
    return rv;
}

void
hs_inspect_stop(void)
{
    hs_lock_take(&lock);
    inspect_stop_locked();
    hs_lock_drop(&lock);
}

/* ---- Fork ---------------------------------------------------------------------------------- */

static void
inspect_before_fork(void)
{
    hs_lock_take_for_fork(&turn);
    hs_lock_take_for_fork(&lock);
}

static void
inspect_after_fork_in_parent(void)
{
    hs_lock_drop_after_fork(&lock);
    hs_lock_drop_after_fork(&turn);
}

/* The path stays: it is the parent's. */
static void
inspect_after_fork_in_child(void)
{
    hs_wakelist_init(&gone);
    current = NULL;
    while (!hs_list_empty(&inspectors)) {
        struct inspector *ins = HS_CONTAINER(inspectors.next, struct inspector, link);

        hs_list_unlink(&ins->link);
        inspect_free(ins);
    }
    hs_lock_drop_after_fork(&lock);
    hs_lock_drop_after_fork(&turn);
}

HS_REGISTERS_FORK_LOCK(HS_RANK_INSPECT_TURN)
static void
inspect_watch_forks(void)
{
    (void)pthread_atfork(inspect_before_fork, inspect_after_fork_in_parent,
                         inspect_after_fork_in_child);
}
