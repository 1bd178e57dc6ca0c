/* ever.c: see ever.h.
 *
 * Relaxed atomics, only ever counters; a forked child begins at 0.
 */
#include "ever.h"

#include "../base/check.h"

#include <pthread.h>
#include <stdatomic.h>

static _Atomic uint64_t listeners[HS_LISTENER_COUNTS], services[HS_SERVICE_COUNTS];

void
hs_ever_count_listener(enum hs_listener_count which)
{
    HS_ASSERT(which < HS_LISTENER_COUNTS);
    atomic_fetch_add_explicit(&listeners[which], 1, memory_order_relaxed);
}

void
hs_ever_count_service(enum hs_service_count which)
{
    HS_ASSERT(which < HS_SERVICE_COUNTS);
    atomic_fetch_add_explicit(&services[which], 1, memory_order_relaxed);
}

uint64_t
hs_listeners_counted(enum hs_listener_count which)
{
    HS_ASSERT(which < HS_LISTENER_COUNTS);
    return atomic_load_explicit(&listeners[which], memory_order_relaxed);
}

uint64_t
hs_services_counted(enum hs_service_count which)
{
    HS_ASSERT(which < HS_SERVICE_COUNTS);
    return atomic_load_explicit(&services[which], memory_order_relaxed);
}

const char *
hs_listener_count_name(enum hs_listener_count which)
{
    static const char *const names[] = {
#define COUNT_NAME(name, text) text,
        HS_LISTENER_COUNTS_ALL(COUNT_NAME)
#undef COUNT_NAME
    };

    HS_ASSERT(which < HS_LISTENER_COUNTS);
    return names[which];
}

static void
ever_begin_anew(void)
{
    for (int i = 0; i < HS_LISTENER_COUNTS; i++)
        atomic_store_explicit(&listeners[i], 0, memory_order_relaxed);
    for (int i = 0; i < HS_SERVICE_COUNTS; i++)
        atomic_store_explicit(&services[i], 0, memory_order_relaxed);
}

__attribute__((constructor)) static void
ever_watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, ever_begin_anew);
}
