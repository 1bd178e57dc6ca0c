/* time.h: the one clock.
 *
 * Everything is int64_t nanoseconds on CLOCK_MONOTONIC; deadlines are points, HS_NEVER is none and
 * HS_TRY_ONCE is "do not wait". No other file may read a clock.
 */
#ifndef HS_BASE_TIME_H
#define HS_BASE_TIME_H

#include "hardsock.h"

#include <time.h>

#define HS_NS_PER_S INT64_C(1000000000)
#define HS_NS_PER_MS INT64_C(1000000)

static inline int64_t
hs_min_ns(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Nanoseconds on CLOCK_BOOTTIME, which goes on while the machine is suspended: for ages, never for
 * deadlines. */
int64_t hs_boot_now(void);
/* Unix time in seconds, as certificates count, and in nanoseconds, as the kernel stamps what it
 * receives: it can be set, also back. For nothing else. */
int64_t hs_calendar_s(void);
int64_t hs_calendar_ns(void);

/* Ticks of the kernel's timers in a second (CONFIG_HZ, time(7)): 100, 250, 300 or 1000 mostly. 250
 * where the kernel does not tell. */
int hs_timer_hz(void);

/* Time left until deadline as ppoll wants it, not below zero. */
struct timespec hs_timespec_until(int64_t deadline_ns, int64_t now_ns);

#endif
