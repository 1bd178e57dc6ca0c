/* time.c: reading CLOCK_MONOTONIC and saturating arithmetic on it.
 *
 * CLOCK_MONOTONIC does not run while the machine is suspended: deadlines of single calls do not
 * expire in a closed laptop. Ages that must survive suspend are read from CLOCK_BOOTTIME.
 */
#include "time.h"

#include "check.h"

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
