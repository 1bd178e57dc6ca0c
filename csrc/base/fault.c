/* fault.c: the plan in force, those below it, and the log of what was done. See fault.h.
 *
 * Knows nothing of what a fault means to the call that has it.
 */
#include "fault.h"

#include "err.h"
#include "lock.h"
#include "recorder.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define STACK_MAX 8

_Atomic int hs_faults_on;

static int plan_decides(enum hs_call call, size_t *len);
static hs_fault_decider *_Atomic decider = plan_decides;

/* ---- The plan in force ------------------------------------------------------------------- */

static struct {
    _Atomic uint64_t seq, seed;
    _Atomic size_t n;
    struct {
        _Atomic int call, fault;
        _Atomic uint64_t first, last, chance;
    } rules[HS_FAULT_RULES];
    _Atomic uint64_t calls[HS_CALLS];
    _Atomic char log[HS_FAULT_PATH];
} now;

/* guarded by lock */
static struct hs_lock lock = HS_LOCK_STATIC(HS_RANK_FAULTS);
static struct hs_fault_plan stack[STACK_MAX]; /* the last one is in force; its calls are in `now` */
static size_t depth;
static uint64_t last_id;

/* ---- The log ----------------------------------------------------------------------------- */

/* One word, so that it is whole: the call (from 1 on; 0: nothing was here), the fault, the call's
 * number, and how often the ring had been full before. By that a reader knows what is still of an
 * earlier round: a writer has taken the place and is about to fill it. A writer that was left
 * behind by a round writes nothing any more. */
#define LOG_CALL_SHIFT 58
#define LOG_FAULT_SHIFT 48
#define LOG_ROUND_SHIFT 36
#define LOG_ROUNDS (UINT64_C(1) << (LOG_FAULT_SHIFT - LOG_ROUND_SHIFT))
#define LOG_FAULTS (UINT64_C(1) << (LOG_CALL_SHIFT - LOG_FAULT_SHIFT))
#define LOG_NUMBERS ((UINT64_C(1) << LOG_ROUND_SHIFT) - 1)
_Static_assert(HS_CALLS < 64 && HS_FAULT_INTERNAL < LOG_FAULTS, "an entry has room for all");

static _Atomic uint64_t entries[HS_FAULTS_LOGGED];
static _Atomic uint64_t logged;

static uint64_t
round_of(uint64_t entry)
{
    return entry >> LOG_ROUND_SHIFT & (LOG_ROUNDS - 1);
}

/* at: which fault this is, from 0 on. */
static void
put_entry(uint64_t at, enum hs_call call, int fault, uint64_t number)
{
    _Atomic uint64_t *place = &entries[at % HS_FAULTS_LOGGED];
    uint64_t round = at / HS_FAULTS_LOGGED % LOG_ROUNDS;
    uint64_t entry = ((uint64_t)call + 1) << LOG_CALL_SHIFT | (uint64_t)fault << LOG_FAULT_SHIFT |
                     round << LOG_ROUND_SHIFT | (number & LOG_NUMBERS);
    uint64_t was = atomic_load_explicit(place, memory_order_relaxed);

    do {
        uint64_t ahead = (round_of(was) - round) % LOG_ROUNDS;

        if (was != 0 && ahead != 0 && ahead < LOG_ROUNDS / 2)
            return;
    } while (!atomic_compare_exchange_weak_explicit(place, &was, entry, memory_order_release,
                                                    memory_order_relaxed));
}

static void
write_line(const char *text, uint64_t nth)
{
    char path[HS_FAULT_PATH], line[128];
    int n, fd;

    for (size_t i = 0; i < sizeof(path); i++)
        path[i] = atomic_load_explicit(&now.log[i], memory_order_relaxed);
    path[sizeof(path) - 1] = '\0';
    if (path[0] == '\0' || (fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NONBLOCK)) < 0)
        return; /* What opens it for each line has no descriptor to lose. */
    n = snprintf(line, sizeof(line), "%d %llu %s\n", (int)getpid(), (unsigned long long)nth, text);
    if (n > 0 && (size_t)n < sizeof(line))
        (void)!write(fd, line, (size_t)n); /* If not, the ring has it. */
    (void)close(fd);
}

static void
note(enum hs_call call, int fault, uint64_t number)
{
    uint64_t at = atomic_fetch_add_explicit(&logged, 1, memory_order_relaxed);
    struct hs_event e = {.sys = fault < HS_FAULT_SHORT ? fault : 0};
    int before = errno;

    put_entry(at, call, fault, number);
    (void)hs_fault_text(call, fault, number, e.text, sizeof(e.text));
    hs_event_note(HS_EVENT_FAULT, &e);
    write_line(e.text, at + 1);
    errno = before;
}

uint64_t
hs_faults_logged(void)
{
    return atomic_load_explicit(&logged, memory_order_acquire);
}

const char *
hs_faults_log(uint64_t nth, char *buf, size_t size)
{
    uint64_t n = hs_faults_logged(), e;

    if (nth == 0 || nth > n || n - nth >= HS_FAULTS_LOGGED)
        return NULL;
    e = atomic_load_explicit(&entries[(nth - 1) % HS_FAULTS_LOGGED], memory_order_acquire);
    if (e == 0 || round_of(e) != (nth - 1) / HS_FAULTS_LOGGED % LOG_ROUNDS)
        return NULL;
    return hs_fault_text((enum hs_call)((e >> LOG_CALL_SHIFT) - 1),
                         (int)(e >> LOG_FAULT_SHIFT & (LOG_FAULTS - 1)), e & LOG_NUMBERS, buf,
                         size);
}

/* ---- Deciding ---------------------------------------------------------------------------- */

/* Of splitmix64: every bit of the answer depends on every bit of x. */
static uint64_t
mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static int
plan_decides(enum hs_call call, size_t *len)
{
    uint64_t seq = atomic_load_explicit(&now.seq, memory_order_acquire), number, seed, draw = 0;
    size_t n = atomic_load_explicit(&now.n, memory_order_acquire);
    int fault = 0;

    if ((seq & 1) != 0)
        return 0;
    number = atomic_fetch_add_explicit(&now.calls[call], 1, memory_order_relaxed) + 1;
    seed = atomic_load_explicit(&now.seed, memory_order_acquire);
    for (size_t i = 0; i < n && i < HS_FAULT_RULES && fault == 0; i++) {
        if (atomic_load_explicit(&now.rules[i].call, memory_order_acquire) != (int)call ||
            number < atomic_load_explicit(&now.rules[i].first, memory_order_acquire) ||
            number > atomic_load_explicit(&now.rules[i].last, memory_order_acquire))
            continue;
        fault = atomic_load_explicit(&now.rules[i].fault, memory_order_acquire);
        draw = mix(mix(mix(seed) ^ ((uint64_t)call << 32 | (uint64_t)fault)) ^ number);
        if (draw > atomic_load_explicit(&now.rules[i].chance, memory_order_acquire) ||
            (fault == HS_FAULT_SHORT && (len == NULL || *len < 2)))
            fault = 0;
    }
    if (fault == 0 || atomic_load_explicit(&now.seq, memory_order_relaxed) != seq)
        return 0;
    note(call, fault, number);
    if (fault != HS_FAULT_SHORT)
        return fault;
    /* Without the seed: the log, which has none, is a spec, too. */
    *len = 1 + (size_t)(mix((uint64_t)call << 48 ^ number) % (*len - 1));
    return 0;
}

int
hs_fault_decide(enum hs_call call, size_t *len)
{
    return atomic_load_explicit(&decider, memory_order_acquire)(call, len);
}

bool
hs_fault_fails(enum hs_call call)
{
    int fault = hs_fault_decide(call, NULL);

    if (fault != 0)
        errno = fault;
    return fault != 0;
}

/* ---- Beginning and ending ---------------------------------------------------------------- */

static void
keep_calls_locked(struct hs_fault_plan *p)
{
    for (int i = 0; i < HS_CALLS; i++)
        p->calls[i] = atomic_load_explicit(&now.calls[i], memory_order_relaxed);
}

static void
switch_on_locked(void)
{
    bool own = atomic_load(&decider) != plan_decides;

    atomic_store(&hs_faults_on, depth > 0 || own);
}

/* Puts the plan on top of the stack in force. */
static void
put_in_force_locked(void)
{
    static const struct hs_fault_plan none;
    const struct hs_fault_plan *p = depth > 0 ? &stack[depth - 1] : &none;

    atomic_fetch_add(&now.seq, 1);
    atomic_store(&now.seed, p->seed);
    atomic_store(&now.n, p->n);
    for (size_t i = 0; i < p->n; i++) {
        atomic_store(&now.rules[i].call, (int)p->rules[i].call);
        atomic_store(&now.rules[i].fault, p->rules[i].fault);
        atomic_store(&now.rules[i].first, p->rules[i].first);
        atomic_store(&now.rules[i].last, p->rules[i].last);
        atomic_store(&now.rules[i].chance, p->rules[i].chance);
    }
    for (int i = 0; i < HS_CALLS; i++)
        atomic_store(&now.calls[i], p->calls[i]);
    for (size_t i = 0; i < sizeof(p->log); i++)
        atomic_store(&now.log[i], p->log[i]);
    atomic_fetch_add(&now.seq, 1);
    switch_on_locked();
}

static hs_err
check_log(const struct hs_fault_plan *p, const char *spec, struct hs_error *err)
{
    char line[256];
    int n, fd;

    if (p->log[0] == '\0')
        return HS_OK;
    fd = open(p->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
    n = snprintf(line, sizeof(line), "%d 0 seed=%llu: %s\n", (int)getpid(),
                 (unsigned long long)p->seed, spec);
    if ((size_t)n >= sizeof(line))
        memcpy(&line[sizeof(line) - 5], "...\n", 5);
    if (fd < 0 || write(fd, line, strlen(line)) < 0) {
        (void)hs_err_set(err, HS_E_INVALID, errno, "faults", "\"log=%.60s\"", p->log);
        if (fd >= 0)
            (void)close(fd);
        return HS_E_INVALID;
    }
    (void)close(fd);
    return HS_OK;
}

hs_err
hs_faults_begin(const char *spec, struct hs_error *err, uint64_t *ret_id)
{
    struct hs_fault_plan plan;
    hs_err rv;

    if ((rv = hs_fault_parse(spec, err, &plan)) != HS_OK ||
        (rv = check_log(&plan, spec, err)) != HS_OK)
        return rv;
    hs_lock_take(&lock);
    if (depth == STACK_MAX) {
        hs_lock_drop(&lock);
        return hs_err_setx(err, HS_E_LIMIT, "faults",
                           "%d plans are in force already, one in the "
                           "other: end one first",
                           STACK_MAX);
    }
    if (depth > 0)
        keep_calls_locked(&stack[depth - 1]);
    plan.id = ++last_id;
    stack[depth++] = plan;
    put_in_force_locked();
    hs_lock_drop(&lock);
    *ret_id = plan.id;
    return HS_OK;
}

void
hs_faults_end(uint64_t id)
{
    size_t i = 0;

    hs_lock_take(&lock);
    while (i < depth && stack[i].id != id)
        i++;
    if (i < depth) {
        keep_calls_locked(&stack[depth - 1]);
        depth--;
        for (; i < depth; i++)
            stack[i] = stack[i + 1];
        put_in_force_locked();
    }
    hs_lock_drop(&lock);
}

bool
hs_faults_plan(uint64_t id, uint64_t *ret_seed, uint64_t ret_calls[HS_FAULT_CALLS])
{
    bool found = false;

    hs_lock_take(&lock);
    for (size_t i = 0; i < depth; i++) {
        if (stack[i].id != id)
            continue;
        found = true;
        if (i + 1 == depth)
            keep_calls_locked(&stack[i]);
        *ret_seed = stack[i].seed;
        memcpy(ret_calls, stack[i].calls, sizeof(stack[i].calls));
    }
    hs_lock_drop(&lock);
    return found;
}

const char *
hs_fault_call_name(size_t call)
{
    return call < HS_CALLS ? hs_call_facts[call].name : NULL;
}

void
hs_fault_set_decider(hs_fault_decider *own)
{
    hs_lock_take(&lock);
    atomic_store_explicit(&decider, own != NULL ? own : plan_decides, memory_order_release);
    switch_on_locked();
    hs_lock_drop(&lock);
}

/* ---- Fork -------------------------------------------------------------------------------- */

static void
before_fork(void)
{
    hs_lock_take_for_fork(&lock);
}

static void
after_fork(void)
{
    hs_lock_drop_after_fork(&lock);
}

HS_REGISTERS_FORK_LOCK(HS_RANK_FAULTS)
static void
guard_forks(void)
{
    (void)pthread_atfork(before_fork, after_fork, after_fork);
}
