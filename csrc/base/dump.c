/* dump.c: the flight recorder as text, also from the handler of a fatal signal.
 *
 * Everything between hs_dump and write(2) is async-signal-safe: no allocation, no locale, no lock.
 * The handlers stand in front of those that were set before (faulthandler's, or none), and pass the
 * signal on: they dump, put the earlier ones back, and return. A fault then happens again at once,
 * and abort(3) raises its signal again by itself. They stay in front until the dump is out, so that
 * a second thread with a fault comes here, too, and waits for it: what it does after ends the
 * process. It does not wait for ever, as the descriptor may take nothing any more.
 *
 * A program that survives the signal may ask for the handlers again.
 */
#include "err.h"
#include "recorder.h"
#include "time.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct line {
    char text[512];
    size_t n;
};

static bool
is_plain(char c)
{
    return (unsigned char)c >= ' ' && c != 127;
}

static void
dump_add(struct line *l, const char *text)
{
    static const char other = '?';

    for (; *text != '\0' && l->n < sizeof(l->text) - 1; text++) /* One is kept for the end. */
        l->text[l->n++] = *(is_plain(*text) ? text : &other);
}

static void
add_number(struct line *l, uint64_t number, int min_digits)
{
    char digits[24];
    int i = (int)sizeof(digits) - 1;

    digits[i] = '\0';
    for (; number > 0 || min_digits > 0; number /= 10, min_digits--)
        digits[--i] = (char)('0' + number % 10);
    dump_add(l, &digits[i]);
}

/* Seconds with three places. */
static void
add_seconds(struct line *l, int64_t ns)
{
    uint64_t ms = ns > 0 ? (uint64_t)ns / 1000000 : 0;

    add_number(l, ms / 1000, 1);
    dump_add(l, ".");
    add_number(l, ms % 1000, 3);
    dump_add(l, " s");
}

static void
dump_put(int fd, struct line *l)
{
    size_t done = 0;

    l->text[l->n++] = '\n';
    while (done < l->n) {
        ssize_t n = write(fd, l->text + done, l->n - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
}

static void
put_event(int fd, const struct hs_event *e, int64_t now)
{
    struct hs_call_site_name name;
    struct line l = {.n = 0};

    dump_add(&l, "  ");
    add_seconds(&l, now - e->at_ns);
    dump_add(&l, " ago: ");
    dump_add(&l, hs_event_name((enum hs_event_kind)e->kind));
    if (e->text[0] != '\0') {
        dump_add(&l, " ");
        dump_add(&l, e->text);
    }
    if (e->fd > 0) {
        dump_add(&l, " fd ");
        add_number(&l, (uint64_t)e->fd, 1);
    }
    if (e->code != HS_OK) {
        dump_add(&l, ": ");
        dump_add(&l, hs_err_text(e->code));
    }
    if (e->sys > 0) {
        dump_add(&l, ", errno ");
        add_number(&l, (uint64_t)e->sys, 1);
    }
    if (e->span_ns > 0) {
        dump_add(&l, " after ");
        add_seconds(&l, e->span_ns);
    }
    if (e->site != NULL) {
        hs_call_site_name(e->site, &name);
        dump_add(&l, " at ");
        dump_add(&l, name.file);
        dump_add(&l, ":");
        add_number(&l, (uint64_t)name.line, 1);
        dump_add(&l, " in ");
        dump_add(&l, name.function);
    }
    dump_put(fd, &l);
}

/* The one with the next number: looked for among all each time, which takes no memory. */
static bool
next_event(uint64_t after, uint64_t last, struct hs_event *ret_event)
{
    struct hs_event e;
    bool found = false;

    for (size_t i = 0; i < HS_EVENTS_MAX; i++)
        if (hs_event_read(i, &e) && e.number > after && e.number <= last &&
            (!found || e.number < ret_event->number)) {
            *ret_event = e;
            found = true;
        }
    return found;
}

void
hs_dump(int fd)
{
    uint64_t last = hs_event_last(); /* Others may note faster than this is written. */
    struct line head = {.n = 0};
    struct hs_event e = {0};
    int64_t now = hs_now();
    int saved = errno;

    dump_add(&head, "hardsock: what happened last in process ");
    add_number(&head, (uint64_t)getpid(), 1);
    dump_add(&head, ":");
    dump_put(fd, &head);
    while (next_event(e.number, last, &e))
        put_event(fd, &e, now);
    errno = saved;
}

/* ---- Fatal signals ------------------------------------------------------------------------- */

static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
#define DUMP_WAIT_NS (5 * HS_NS_PER_S)
#define N_FATAL (sizeof(fatal) / sizeof(fatal[0]))

static struct sigaction earlier[N_FATAL];
static atomic_int dump_fd = -1;
static atomic_bool installed;
static _Atomic uint32_t dumper; /* a futex: the thread that dumps, or 0 */

static void
await_dump(uint32_t other)
{
    int64_t until = hs_now() + DUMP_WAIT_NS, left;
    struct timespec span;

    while (atomic_load(&dumper) == other && (left = until - hs_now()) > 0) {
        span = (struct timespec){.tv_sec = left / HS_NS_PER_S, .tv_nsec = left % HS_NS_PER_S};
        (void)syscall(SYS_futex, &dumper, FUTEX_WAIT_PRIVATE, other, &span, NULL, 0);
    }
}

/* Once, whatever happens in here: a fault of the dump itself finds its own thread. */
static void
dump_once(void)
{
    uint32_t other = 0, self = (uint32_t)syscall(SYS_gettid);
    int fd;

    if (!atomic_compare_exchange_strong(&dumper, &other, self)) {
        if (other != self)
            await_dump(other);
        return;
    }
    if ((fd = atomic_exchange(&dump_fd, -1)) >= 0)
        hs_dump(fd);
    atomic_store(&dumper, 0);
    (void)syscall(SYS_futex, &dumper, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void
on_fatal(int number, siginfo_t *info, void *context)
{
    int saved = errno;

    dump_once();
    if (atomic_exchange(&installed, false))
        for (size_t i = 0; i < N_FATAL; i++)
            (void)sigaction(fatal[i], &earlier[i], NULL);
    errno = saved;
    (void)context;
    if (info->si_code <= 0) /* Somebody sent it: it does not happen again by itself. */
        (void)raise(number);
}

hs_err
hs_dump_at_fatal_signals(int fd, struct hs_error *err)
{
    struct sigaction action = {.sa_sigaction = on_fatal,
                               .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

    atomic_store(&dump_fd, fd);
    if (fd < 0 || atomic_exchange(&installed, true))
        return HS_OK;
    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < N_FATAL; i++)
        if (sigaction(fatal[i], NULL, &earlier[i]) != 0 ||
            sigaction(fatal[i], &action, NULL) != 0) {
            hs_err rv = hs_err_set(err, HS_E_SYSTEM, errno, "dump", "sigaction");

            while (i-- > 0)
                (void)sigaction(fatal[i], &earlier[i], NULL);
            atomic_store(&installed, false);
            atomic_store(&dump_fd, -1);
            return rv;
        }
    return HS_OK;
}
