/* sched.c: threads that take turns, the clock, the generator, the log.
 *
 * Each thread is a real one, so that thread-local variables and destructors of keys are as ever,
 * and waits for its baton. The one that has it looks for the next: threads that can go on and
 * events that are due are equals, among which the generator chooses. When there are none the clock
 * moves.
 *
 * The locks of the core are places to hand over, too, before they are taken and after they are
 * dropped: they are taken without blocking here, and who finds one taken waits for it as for
 * anything else.
 */
#include "sim.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 512
#define MAX_CANDIDATES (MAX_THREADS + 1)
#define TAIL_LINES 60
#define LINE_SIZE 240
#define EPOCH_NS (1000 * SIM_S)
#define CALENDAR_NS (1700000000 * SIM_S)
/* Turns without any time passing: beyond that somebody spins. */
#define MAX_TURNS 100000
#define MAX_LINES 1000000
/* Of a loop that waits for another thread, while one has no processor. */
#define YIELD_NS (SIM_MS / 100)
#define MAX_STALL_NS (100 * SIM_MS)
#define MAX_SPAN_NS (24 * 3600 * SIM_S)

struct sim_thread {
    char name[24];
    int host;
    sem_t baton;
    bool waits;
    bool (*ready)(void *arg);
    void *arg;
    int64_t until_ns;
    bool cores; /* the core has started it */
    void *(*run)(void *arg);
    void *run_arg;
    const char *promised;
    int64_t by_ns;
};

struct event {
    int64_t at_ns;
    uint64_t order;
    void (*fn)(void *arg, uint64_t number);
    void *arg;
    uint64_t number;
};

struct sim_settings sim_settings;

static uint64_t state, first_seed;
static int64_t now_ns = EPOCH_NS;
static struct sim_thread *threads[MAX_THREADS];
static size_t n_threads, n_made;
static struct event *events;
static size_t n_events, room_events;
static uint64_t n_ordered;
static uint64_t hash = UINT64_C(0xcbf29ce484222325), n_lines, n_switches, turns, lines;
static char tail[TAIL_LINES][LINE_SIZE];
static int log_to = -1;
static pthread_key_t last_words;
static _Thread_local struct sim_thread *self;
static bool quiet;
static void (*look_first)(void);
/* Who has no processor, and who waits for such a one by yielding. */
static size_t n_stalled, n_yielding;
static int64_t excused_until_ns; /* the end of the latest stall */

int __real_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);
int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __real_pthread_mutex_unlock(pthread_mutex_t *m);
int __real_clock_gettime(clockid_t clock, struct timespec *ts);
int __real_clock_nanosleep(clockid_t clock, int flags, const struct timespec *span,
                           struct timespec *rest);
time_t __real_time(time_t *ret);
int __real_sched_yield(void);
int __real_clock_getres(clockid_t clock, struct timespec *ts);
ssize_t __real_getrandom(void *buf, size_t len, unsigned flags);

int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);
int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *span,
                           struct timespec *rest);
time_t __wrap_time(time_t *ret);
int __wrap_sched_yield(void);
int __wrap_clock_getres(clockid_t clock, struct timespec *ts);
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags);
long __wrap_syscall(long number, ...);

/* ---- The generator ------------------------------------------------------------------------- */

uint64_t
sim_random(void) /* splitmix64 */
{
    uint64_t z = (state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t
sim_below(uint64_t n)
{
    return n == 0 ? 0 : sim_random() % n;
}

int64_t
sim_between(int64_t low, int64_t high)
{
    return low + (int64_t)sim_below((uint64_t)(high - low) + 1);
}

bool
sim_chance(unsigned permille)
{
    return permille > 0 && sim_below(1000) < permille;
}

/* ---- The log ------------------------------------------------------------------------------- */

void
sim_log(const char *format, ...)
{
    char *line = tail[n_lines % TAIL_LINES];
    int n, sys = errno;
    va_list args;

    n = snprintf(line, LINE_SIZE, "%lld.%09lld %s ", (long long)((now_ns - EPOCH_NS) / SIM_S),
                 (long long)(now_ns % SIM_S), self != NULL ? self->name : "-");
    va_start(args, format);
    n += vsnprintf(line + n, LINE_SIZE - 1 - (size_t)n, format, args);
    va_end(args);
    n = n < LINE_SIZE - 2 ? n : LINE_SIZE - 2;
    line[n++] = '\n';
    line[n] = '\0';
    for (int i = 0; i < n; i++) /* FNV-1a */
        hash = (hash ^ (uint8_t)line[i]) * UINT64_C(0x100000001b3);
    n_lines++;
    if (++lines > MAX_LINES)
        sim_violation("no time passes, and nobody waits");
    if (log_to >= 0 && write(log_to, line, (size_t)n) != n)
        abort();
    errno = sys;
}

void
sim_violation(const char *format, ...)
{
    va_list args;

    if (!quiet) {
        quiet = true;
        printf("seed %llu: the end of its log:\n", (unsigned long long)first_seed);
        for (uint64_t i = n_lines > TAIL_LINES ? n_lines - TAIL_LINES : 0; i < n_lines; i++)
            printf("    %s", tail[i % TAIL_LINES]);
        printf("seed %llu: %lld.%09lld s, %s: ", (unsigned long long)first_seed,
               (long long)((now_ns - EPOCH_NS) / SIM_S), (long long)(now_ns % SIM_S),
               self != NULL ? self->name : "-");
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        printf("\n");
        (void)fflush(stdout);
    }
    _exit(1);
}

/* ---- Events -------------------------------------------------------------------------------- */

int64_t
sim_now(void)
{
    return now_ns;
}

static bool
is_before(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void
exchange(size_t i, size_t j)
{
    struct event e = events[i];

    events[i] = events[j];
    events[j] = e;
}

void
sim_at(int64_t at_ns, void (*fn)(void *arg, uint64_t number), void *arg, uint64_t number)
{
    size_t i = n_events++;

    if (n_events > room_events) {
        room_events = room_events == 0 ? 1024 : 2 * room_events;
        if ((events = realloc(events, room_events * sizeof(*events))) == NULL)
            abort();
    }
    events[i] = (struct event){at_ns > now_ns ? at_ns : now_ns, n_ordered++, fn, arg, number};
    for (; i > 0 && is_before(&events[i], &events[(i - 1) / 2]); i = (i - 1) / 2)
        exchange(i, (i - 1) / 2);
}

static void
run_event(void)
{
    struct event e = events[0];
    size_t i = 0, child;

    events[0] = events[--n_events];
    while ((child = 2 * i + 1) < n_events) {
        if (child + 1 < n_events && is_before(&events[child + 1], &events[child]))
            child++;
        if (!is_before(&events[child], &events[i]))
            break;
        exchange(i, child);
        i = child;
    }
    e.fn(e.arg, e.number);
}

/* ---- Turns --------------------------------------------------------------------------------- */

static bool
can_go_on(const struct sim_thread *t)
{
    return !t->waits || t->until_ns <= now_ns || (t->ready != NULL && t->ready(t->arg));
}

/* Nobody can go on now. */
static void
advance(void)
{
    int64_t to = n_events > 0 ? events[0].at_ns : SIM_NEVER;

    if (look_first != NULL && n_stalled + n_yielding == 0)
        look_first();
    for (size_t i = 0; i < n_threads; i++)
        to = threads[i]->until_ns < to ? threads[i]->until_ns : to;
    for (size_t i = 0; i < n_threads; i++)
        if (n_stalled + n_yielding == 0 && threads[i]->promised != NULL && threads[i]->by_ns < to)
            sim_violation("%s was to be back from %s by %lld.%09lld s, and still waits",
                          threads[i]->name, threads[i]->promised,
                          (long long)((threads[i]->by_ns - EPOCH_NS) / SIM_S),
                          (long long)(threads[i]->by_ns % SIM_S));
    if (to == SIM_NEVER)
        sim_violation("everybody waits, and nothing will happen any more");
    if (to - EPOCH_NS > MAX_SPAN_NS)
        sim_violation("it does not come to an end");
    now_ns = to;
    turns = lines = 0;
}

static struct sim_thread *
choose_next(void)
{
    struct sim_thread *candidates[MAX_CANDIDATES];

    for (;;) {
        size_t n = 0;
        bool due = n_events > 0 && events[0].at_ns <= now_ns;
        uint64_t chosen;

        for (size_t i = 0; i < n_threads; i++)
            if (can_go_on(threads[i]))
                candidates[n++] = threads[i];
        if (n == 0 && !due) {
            advance();
            continue;
        }
        if (++turns > MAX_TURNS)
            sim_violation("no time passes: %s among others takes turn after turn",
                          n > 0 ? candidates[0]->name : "an event");
        chosen = sim_below(n + (due ? 1 : 0));
        if (chosen < n)
            return candidates[chosen];
        run_event();
    }
}

static void
take_baton(struct sim_thread *t)
{
    while (sem_wait(&t->baton) != 0)
        if (errno != EINTR)
            abort();
}

static void
hand_over(void)
{
    struct sim_thread *next = choose_next();

    n_switches++;
    if (next == self)
        return;
    if (sem_post(&next->baton) != 0)
        abort();
    take_baton(self);
}

bool
sim_wait(bool (*ready)(void *arg), void *arg, int64_t until_ns)
{
    struct sim_thread *me = self;
    bool is_ready;

    me->waits = true;
    me->ready = ready;
    me->arg = arg;
    me->until_ns = until_ns;
    hand_over();
    is_ready = ready != NULL && ready(arg);
    me->waits = false;
    me->ready = NULL;
    me->until_ns = SIM_NEVER;
    return is_ready;
}

void
sim_yield(void)
{
    if (self != NULL)
        hand_over();
}

/* A processor is somebody else's for a while. Who may have to wait for this thread is excused. */
static void
lose_processor(int64_t span, size_t *count)
{
    for (size_t i = 0; i < n_threads; i++)
        if (threads[i]->promised != NULL && threads[i]->by_ns < SIM_NEVER - span)
            threads[i]->by_ns += span;
    if (now_ns + span > excused_until_ns)
        excused_until_ns = now_ns + span;
    *count += 1;
    (void)sim_wait(NULL, NULL, now_ns + span);
    *count -= 1;
}

static void
stall(void)
{
    lose_processor(sim_between(0, sim_chance(500) ? SIM_MS : MAX_STALL_NS), &n_stalled);
}

void
sim_maybe_yield(void)
{
    if (self == NULL)
        return;
    if (sim_chance(sim_settings.preempt))
        hand_over();
    if (sim_chance(sim_settings.stalled))
        stall();
}

long
sim_done(long rv)
{
    int sys = errno;

    sim_maybe_yield();
    errno = sys;
    return rv;
}

void
sim_before_time_passes(void (*look)(void))
{
    look_first = look;
}

void
sim_sleep(int64_t span_ns)
{
    (void)sim_wait(NULL, NULL, now_ns + span_ns);
}

/* ---- Promises ------------------------------------------------------------------------------ */

void
sim_promise(const char *what, int64_t by_ns)
{
    self->promised = what;
    self->by_ns = by_ns > now_ns ? by_ns : now_ns;
}

void
sim_promise_sooner(struct sim_thread *t, const char *what, int64_t by_ns)
{
    if (t->promised == NULL || by_ns >= t->by_ns)
        return;
    t->promised = what;
    t->by_ns = by_ns;
}

void
sim_promise_kept(void)
{
    if (self->by_ns < now_ns && excused_until_ns < now_ns)
        sim_violation("back from %s %lld ns late", self->promised,
                      (long long)(now_ns - self->by_ns));
    self->promised = NULL;
}

/* ---- Threads ------------------------------------------------------------------------------- */

struct sim_thread *
sim_self(void)
{
    return self;
}

bool
sim_is_cores(const struct sim_thread *t)
{
    return t->cores;
}

int
sim_host(void)
{
    return self->host;
}

const char *
sim_thread_name(const struct sim_thread *t)
{
    return t->name;
}

static struct sim_thread *
thread_new(const char *name, int host)
{
    struct sim_thread *t = calloc(1, sizeof(*t));

    if (t == NULL || n_threads == MAX_THREADS || sem_init(&t->baton, 0, 0) != 0)
        sim_violation("too many threads");
    (void)snprintf(t->name, sizeof(t->name), "%s", name);
    t->host = host;
    t->until_ns = SIM_NEVER;
    threads[n_threads++] = t;
    n_made++;
    return t;
}

/* The destructors of the core's keys run after a thread's function, and close descriptors: this one
 * asks to be called again, after all others, and hands over for good then. */
static void
end_thread(void *arg)
{
    struct sim_thread *t = arg, *next;
    size_t i = 0;

    if (t->run != NULL) {
        t->run = NULL;
        (void)pthread_setspecific(last_words, t);
        return;
    }
    sim_log("ends");
    while (threads[i] != t)
        i++;
    memmove(&threads[i], &threads[i + 1], (--n_threads - i) * sizeof(threads[0]));
    next = choose_next();
    self = NULL;
    (void)sem_destroy(&t->baton);
    free(t);
    if (sem_post(&next->baton) != 0)
        abort();
}

static void *
run_thread(void *arg)
{
    struct sim_thread *t = arg;

    self = t;
    take_baton(t);
    (void)pthread_setspecific(last_words, t);
    sim_log("begins");
    return t->run(t->run_arg);
}

int
__wrap_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
    struct sim_thread *t;
    char name[24];
    int rv;

    if (self == NULL)
        return __real_pthread_create(id, attr, fn, arg);
    (void)snprintf(name, sizeof(name), "core-%zu", n_made);
    t = thread_new(name, self->host);
    t->cores = true;
    t->run = fn;
    t->run_arg = arg;
    sim_log("starts %s", name);
    rv = __real_pthread_create(id, attr, run_thread, t);
    if (rv != 0)
        sim_violation("no thread for %s: error %d", name, rv);
    return rv;
}

struct start {
    void (*fn)(void *arg);
    void *arg;
};

static void *
run_start(void *arg)
{
    struct start s = *(struct start *)arg;

    free(arg);
    s.fn(s.arg);
    return NULL;
}

void
sim_spawn(const char *name, int host, void (*fn)(void *arg), void *arg)
{
    struct sim_thread *t = thread_new(name, host);
    struct start *s = malloc(sizeof(*s));
    pthread_attr_t attr;
    pthread_t id;

    if (s == NULL)
        abort();
    *s = (struct start){fn, arg};
    t->run = run_start;
    t->run_arg = s;
    if (pthread_attr_init(&attr) != 0 ||
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED) != 0 ||
        pthread_attr_setstacksize(&attr, (size_t)512 * 1024) != 0 ||
        __real_pthread_create(&id, &attr, run_thread, t) != 0)
        sim_violation("no thread for %s", name);
    (void)pthread_attr_destroy(&attr);
}

size_t
sim_live_threads(void)
{
    return n_threads - 1;
}

static bool
is_over(void *arg)
{
    (void)arg;
    return n_threads == 1;
}

void
sim_run(uint64_t seed, int log_fd, void (*world)(void), struct sim_result *ret_result)
{
    state = first_seed = seed;
    log_to = log_fd;
    if (pthread_key_create(&last_words, end_thread) != 0)
        abort();
    self = thread_new("world", 0);
    world();
    (void)sim_wait(is_over, NULL, SIM_NEVER);
    *ret_result = (struct sim_result){
        .hash = hash, .lines = n_lines, .switches = n_switches, .span_ns = now_ns - EPOCH_NS};
    self = NULL;
}

/* ---- Locks, time, chance: as the core asks for them ----------------------------------------- */

static bool
is_free(void *arg)
{
    if (pthread_mutex_trylock(arg) != 0)
        return false;
    (void)__real_pthread_mutex_unlock(arg);
    return true;
}

int
__wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
    if (self == NULL)
        return __real_pthread_mutex_lock(m);
    sim_maybe_yield();
    while (pthread_mutex_trylock(m) != 0)
        (void)sim_wait(is_free, m, SIM_NEVER);
    return 0;
}

int
__wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
    return (int)sim_done(__real_pthread_mutex_unlock(m));
}

int
__wrap_sched_yield(void)
{
    if (self == NULL)
        return __real_sched_yield();
    if (n_stalled > 0) /* Who is asked to go on may be one of them: that takes time. */
        lose_processor(YIELD_NS, &n_yielding);
    else
        hand_over();
    return 0;
}

int
__wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
    int64_t t = clock == CLOCK_REALTIME ? now_ns + CALENDAR_NS : now_ns;

    if (self == NULL)
        return __real_clock_gettime(clock, ts);
    *ts = (struct timespec){.tv_sec = t / SIM_S, .tv_nsec = t % SIM_S};
    return 0;
}

time_t
__wrap_time(time_t *ret)
{
    time_t t = (time_t)((now_ns + CALENDAR_NS) / SIM_S);

    if (self == NULL)
        return __real_time(ret);
    if (ret != NULL)
        *ret = t;
    return t;
}

int
__wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *span,
                       struct timespec *rest)
{
    int64_t t = span->tv_sec * SIM_S + span->tv_nsec;

    if (self == NULL)
        return __real_clock_nanosleep(clock, flags, span, rest);
    (void)sim_wait(NULL, NULL, (flags & TIMER_ABSTIME) != 0 ? t : now_ns + t);
    return 0;
}

int
__wrap_clock_getres(clockid_t clock, struct timespec *ts)
{
    if (self == NULL)
        return __real_clock_getres(clock, ts);
    *ts = (struct timespec){.tv_nsec = 4 * SIM_MS}; /* 250 Hz */
    return 0;
}

ssize_t
__wrap_getrandom(void *buf, size_t len, unsigned flags)
{
    if (self == NULL)
        return __real_getrandom(buf, len, flags);
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)buf)[i] = (uint8_t)sim_random();
    return (ssize_t)len;
}

struct futex {
    const uint32_t *word;
    uint32_t value;
};

static bool
has_changed(void *arg)
{
    const struct futex *f = arg;

    return __atomic_load_n(f->word, __ATOMIC_SEQ_CST) != f->value;
}

/* Of futexes only the word counts: who changes it wakes, and who waits looks. */
long
__wrap_syscall(long number, ...)
{
    struct futex f;
    va_list args;
    int how;

    va_start(args, number);
    f.word = va_arg(args, const uint32_t *);
    how = va_arg(args, int);
    f.value = (uint32_t)va_arg(args, int);
    va_end(args);
    if (number == SYS_gettid)
        return 1000;
    if (number != SYS_futex)
        sim_violation("syscall %ld is not simulated", number);
    if (how == FUTEX_WAIT_PRIVATE && self != NULL)
        (void)sim_wait(has_changed, &f, SIM_NEVER);
    return 0;
}
