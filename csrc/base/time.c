/* time.c: reading CLOCK_MONOTONIC and saturating arithmetic on it.
 *
 * CLOCK_MONOTONIC does not run while the machine is suspended: deadlines of single calls do not
 * expire in a closed laptop. Ages that must survive suspend are read from CLOCK_BOOTTIME.
 */
#include "time.h"

#include "check.h"

#include <stdatomic.h>

int64_t
hs_now(void)
{
    struct timespec ts;

    HS_ASSERT(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
    return (int64_t)ts.tv_sec * HS_NS_PER_S + ts.tv_nsec;
}

int64_t
hs_boot_now(void)
{
    struct timespec ts;

    HS_ASSERT(clock_gettime(CLOCK_BOOTTIME, &ts) == 0);
    return (int64_t)ts.tv_sec * HS_NS_PER_S + ts.tv_nsec;
}

int64_t
hs_calendar_s(void)
{
    return (int64_t)time(NULL);
}

int64_t
hs_calendar_ns(void)
{
    struct timespec ts;

    HS_ASSERT(clock_gettime(CLOCK_REALTIME, &ts) == 0);
    return (int64_t)ts.tv_sec * HS_NS_PER_S + ts.tv_nsec;
}

int
hs_timer_hz(void)
{
    static _Atomic int known; /* The first call asks; all get the same answer. */
    int hz = atomic_load_explicit(&known, memory_order_relaxed);
    struct timespec tick;

    if (hz != 0)
        return hz;
    /* The coarse clocks move with each tick: clock_getres(2), KTIME_LOW_RES of the kernel. */
    hz = 250;
    if (clock_getres(CLOCK_MONOTONIC_COARSE, &tick) == 0 && tick.tv_sec == 0 &&
        tick.tv_nsec >= HS_NS_PER_MS / 10 && tick.tv_nsec <= 100 * HS_NS_PER_MS)
        hz = (int)(HS_NS_PER_S / tick.tv_nsec);
    atomic_store_explicit(&known, hz, memory_order_relaxed);
    return hz;
}

int64_t
hs_deadline_after(int64_t span_ns)
{
    int64_t now = hs_now();

    if (span_ns <= 0)
        return now;
    return span_ns >= HS_NEVER - now ? HS_NEVER : now + span_ns;
}

struct timespec
hs_timespec_until(int64_t deadline_ns, int64_t now_ns)
{
    int64_t left = deadline_ns > now_ns ? deadline_ns - now_ns : 0;

    return (struct timespec){.tv_sec = left / HS_NS_PER_S, .tv_nsec = left % HS_NS_PER_S};
}
