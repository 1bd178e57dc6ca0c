/* lookup_order.c: which addresses there are, and which comes next (RFC 8305 sections 3 and 4).
 *
 * Two lookups, one for each family, whose answers are taken as they come. Families alternate, IPv6
 * first if there is a route to its first address; within a family the order of glibc (RFC 6724)
 * stands. If A comes in before AAAA, AAAA gets 50 ms. Knows nothing of attempts.
 */
#include "connector_impl.h"

#include "../base/addr.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const int families[2] = {[V6] = AF_INET6, [V4] = AF_INET};

hs_err
hs_order_begin(struct hs_connector *cn, struct hs_error *err)
{
    for (int i = 0; i < 2; i++) {
        hs_err rv;

        cn->answers[i] = (struct hs_answer){.family = families[i], .addrs = cn->found[i]};
        if (cn->ep.family != AF_UNSPEC ||
            (cn->opts.family != AF_UNSPEC && cn->opts.family != families[i])) {
            cn->answers[i].finished = true;
            continue;
        }
        rv = hs_lookup_enter(cn->ep.host, families[i], &cn->lookup, err, &cn->tickets[i]);
        if (rv != HS_OK)
            return rv;
    }
    return HS_OK;
}

/* RFC 6724 rule 1 without a packet: connecting a datagram socket only looks for a route. */
static bool
has_route(const struct hs_addr *addr)
{
    int fd = hs_sys_socket(addr->sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool found;

    if (fd < 0)
        return false;
    found = hs_sys_connect(fd, &addr->sa, addr->len) == 0;
    (void)close(fd);
    return found;
}

/* /etc/hosts may name an address twice, and glibc answers 127.0.0.1 for ::1 when asked for IPv4. */
static size_t
drop_doubles(struct hs_addr *addrs, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        size_t j = 0;

        while (j < kept && !hs_addr_equal(&addrs[i], &addrs[j]))
            j++;
        if (j == kept)
            addrs[kept++] = addrs[i];
    }
    return kept;
}

void
hs_order_collect(struct hs_connector *cn)
{
    for (int i = 0; i < 2; i++) {
        if (cn->answers[i].finished ||
            !hs_lookup_answer(&cn->tickets[i], cn->ep.port, &cn->answers[i], cn->found[i]))
            continue;
        cn->answers[i].addrs = cn->found[i];
        cn->answers[i].n = drop_doubles(cn->found[i], cn->answers[i].n);
        hs_lookup_leave(&cn->tickets[i]);
        if (i == V6 && cn->answers[i].n > 0 && cn->last_family < 0)
            cn->first_family = has_route(&cn->found[V6][0]) ? V6 : V4;
    }
    if (cn->answers[V4].finished && cn->answers[V4].n > 0 && !cn->answers[V6].finished &&
        cn->wait_v6_until == 0)
        cn->wait_v6_until = hs_deadline_after(cn->opts.resolution_delay_ns);
}

bool
hs_order_is_complete(const struct hs_connector *cn)
{
    return cn->answers[V6].finished && cn->answers[V4].finished;
}

/* Which family comes next, or -1 when nothing is left of what is known by now. */
static int
next_family(const struct hs_connector *cn, const size_t next[2], int last)
{
    int wish = last < 0 ? cn->first_family : 1 - last;

    if (next[wish] < cn->answers[wish].n)
        return wish;
    return next[1 - wish] < cn->answers[1 - wish].n ? 1 - wish : -1;
}

static bool
literal_left(const struct hs_connector *cn)
{
    return cn->ep.family != AF_UNSPEC && cn->n_attempts == 0;
}

bool
hs_order_has_more(const struct hs_connector *cn)
{
    if (cn->committed)
        return false;
    return literal_left(cn) || next_family(cn, cn->next, cn->last_family) >= 0;
}

const struct hs_addr *
hs_order_take(struct hs_connector *cn)
{
    int family;

    if (cn->ep.family != AF_UNSPEC)
        return &cn->ep.addr;
    family = next_family(cn, cn->next, cn->last_family);
    cn->last_family = family;
    return &cn->found[family][cn->next[family]++];
}

size_t
hs_order_plan(struct hs_connector *cn)
{
    size_t next[2] = {0, 0}, n = 0;
    int family = -1;

    while ((family = next_family(cn, next, family)) >= 0)
        cn->plan[n++] = cn->found[family][next[family]++];
    return n;
}

int64_t
hs_order_until(const struct hs_connector *cn)
{
    return hs_min_ns(hs_lookup_look_at(&cn->tickets[V6]), hs_lookup_look_at(&cn->tickets[V4]));
}

void
hs_order_tell_starved(const struct hs_connector *cn, struct hs_error *err)
{
    char why[sizeof(err->msg)] = "";
    size_t used = strlen(err->msg);

    for (int i = 0; i < 2 && why[0] == '\0'; i++)
        hs_lookup_tell_starved(&cn->tickets[i], why, sizeof(why));
    if (why[0] != '\0')
        (void)snprintf(err->msg + used, sizeof(err->msg) - used, "; %s", why);
}
