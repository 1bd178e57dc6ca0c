/* tcp_fields.c: what the kernel tells of one TCP connection (TCP_INFO, tcp(7)), by name.
 *
 * The names are those of struct tcp_info (include/uapi/linux/tcp.h) without their prefix. A kernel
 * that is older fills less of the structure than these headers know: who has it must say how much.
 */
#include "hardsock_binding.h"

#include <linux/tcp.h>
#include <string.h>

#define FIELD(name)                                                                                \
    {                                                                                              \
#name, offsetof(struct tcp_info, tcpi_##name), sizeof(((struct tcp_info *)0)->tcpi_##name) \
    }

static const struct {
    const char *name;
    size_t offset, size;
} tcp_fields[] = {
    FIELD(state),
    FIELD(retransmits),
    FIELD(probes),
    FIELD(backoff),
    FIELD(rto),
    FIELD(rtt),
    FIELD(rttvar),
    FIELD(min_rtt),
    FIELD(unacked),
    FIELD(lost),
    FIELD(retrans),
    FIELD(total_retrans),
    FIELD(last_data_sent),
    FIELD(last_data_recv),
    FIELD(last_ack_recv),
    FIELD(snd_cwnd),
    FIELD(snd_ssthresh),
    FIELD(snd_mss),
    FIELD(rcv_mss),
    FIELD(pmtu),
    FIELD(rcv_space),
    FIELD(notsent_bytes),
    FIELD(bytes_acked),
    FIELD(bytes_received),
    FIELD(bytes_sent),
    FIELD(bytes_retrans),
    FIELD(segs_out),
    FIELD(segs_in),
    FIELD(delivery_rate),
    FIELD(busy_time),
    FIELD(rwnd_limited),
    FIELD(sndbuf_limited),
    FIELD(rcv_ooopack),
    FIELD(snd_wnd),
};

size_t
hs_tcp_fields(const void *info, size_t len, struct hs_tcp_field fields[HS_TCP_FIELDS_MAX])
{
    size_t n = 0;

    _Static_assert(sizeof(tcp_fields) / sizeof(tcp_fields[0]) <= HS_TCP_FIELDS_MAX, "room");
    for (size_t i = 0; i < sizeof(tcp_fields) / sizeof(tcp_fields[0]); i++) {
        const char *at = (const char *)info + tcp_fields[i].offset;
        uint64_t wide;
        uint32_t narrow;

        if (tcp_fields[i].offset + tcp_fields[i].size > len)
            continue;
        fields[n].name = tcp_fields[i].name;
        if (tcp_fields[i].size == sizeof(wide)) {
            memcpy(&wide, at, sizeof(wide));
            fields[n].value = wide;
        } else if (tcp_fields[i].size == sizeof(narrow)) {
            memcpy(&narrow, at, sizeof(narrow));
            fields[n].value = narrow;
        } else {
            fields[n].value = (uint8_t)*at;
        }
        n++;
    }
    return n;
}
