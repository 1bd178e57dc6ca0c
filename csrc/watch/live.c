/* live.c: what of hardsock is alive in this process; all zero when all was released.
 *
 * The one place that knows every kind of object. Counters are relaxed atomics of their modules.
 */
#include "hardsock_binding.h"

#include "../base/buf.h"
#include "../cancel/notifier.h"
#include "../cancel/token.h"
#include "../cancel/slots.h"
#include "../connect/breaker.h"
#include "../connect/connector.h"
#include "../connect/limits.h"
#include "../listen/listener.h"
#include "../pool/pool_impl.h"
#include "../stream/conn.h"
#include "../stream/delays.h"
#include "../stream/departures.h"
#include "../stream/linger.h"
#include "../stream/spot.h"

void
hs_live_counts(struct hs_live *ret_live)
{
    struct hs_resolver_stats resolver;

    hs_resolver_stats(&resolver);
    *ret_live = (struct hs_live){
        .tokens = hs_token_live(),
        .conns = hs_conn_live(),
        .listeners = hs_listener_live(),
        .slots = hs_slots_live(),
        .departures = hs_departures_live(),
        .delays = hs_delays_live(),
        .connectors = hs_connector_live(),
        .lookups = resolver.live - resolver.orphans,
        .orphans = resolver.orphans,
        .buffers = hs_buf_live(),
        .lingering = hs_linger_live(),
        .breakers = hs_breaker_live(),
        .dial_limits = hs_dial_limits_live(),
        .pools = hs_pool_live(),
        .notifiers = hs_notifier_live(),
        .parkings = hs_parking_live(),
    };
}
