/* ring.c: see ring.h.
 *
 * A block is either the kernel's or ours, as its status says: reading that with acquire makes the
 * packets visible, and writing it with release gives them back.
 */
#include "ring.h"

#include "filter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCK_MAX 65536
#define FRAME_SIZE 512 /* of no matter for this version, but it must divide a block */

static bool
fail(struct ring *r, const char *what)
{
    int code = errno;

    (void)snprintf(r->why, sizeof(r->why), "%s: %s", what, strerror(code));
    ring_close(r);
    errno = code;
    return false;
}

static bool
set_up(struct ring *r, const struct sock_fprog *filter, size_t bytes)
{
    int version = TPACKET_V3;
    unsigned page = (unsigned)sysconf(_SC_PAGESIZE);
    struct tpacket_req3 q = {.tp_retire_blk_tov = RING_BLOCK_MS, .tp_frame_size = FRAME_SIZE};

    r->block_size = bytes / 2 < BLOCK_MAX ? (unsigned)(bytes / 2) / page * page : BLOCK_MAX;
    if (r->block_size == 0)
        r->block_size = page;
    r->blocks = (unsigned)(bytes / r->block_size);
    if (r->blocks < 2)
        r->blocks = 2;
    q.tp_block_size = r->block_size;
    q.tp_block_nr = r->blocks;
    q.tp_frame_nr = r->block_size / FRAME_SIZE * r->blocks;
    r->bytes = (size_t)r->block_size * r->blocks;
    if (setsockopt(r->fd, SOL_SOCKET, SO_ATTACH_FILTER, filter, sizeof(*filter)) < 0)
        return fail(r, "SO_ATTACH_FILTER");
    if (setsockopt(r->fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) < 0)
        return fail(r, "PACKET_VERSION");
    if (setsockopt(r->fd, SOL_PACKET, PACKET_RX_RING, &q, sizeof(q)) < 0)
        return fail(r, "PACKET_RX_RING");
    return true;
}

bool
ring_open(struct ring *r, bool ipv6, int ifindex, size_t bytes)
{
    unsigned short protocol = htons(ipv6 ? ETH_P_IPV6 : ETH_P_IP);
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = protocol};
    struct sock_fprog filter = ipv6 ? filter_6() : filter_4();
    void *map;

    /* Without a protocol it hears nothing until it is bound: no packet comes before the filter. */
    *r = (struct ring){.fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (r->fd < 0)
        return fail(r, "socket(AF_PACKET)");
    if (!set_up(r, &filter, bytes))
        return false;
    map = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
    if (map == MAP_FAILED)
        return fail(r, "mmap of the ring");
    r->map = map;
    to.sll_ifindex = ifindex;
    if (bind(r->fd, (const struct sockaddr *)&to, sizeof(to)) < 0)
        return fail(r, "bind to the interface");
    return true;
}

void
ring_close(struct ring *r)
{
    if (r->map != NULL)
        (void)munmap(r->map, r->bytes);
    if (r->fd >= 0)
        (void)close(r->fd);
    r->map = NULL;
    r->fd = -1;
}

static void
take_block(struct ring *r, const struct tpacket_block_desc *block, struct tally *t)
{
    const uint8_t *at = (const uint8_t *)block + block->hdr.bh1.offset_to_first_pkt;

    for (uint32_t i = 0; i < block->hdr.bh1.num_pkts; i++) {
        const struct tpacket3_hdr *head = (const void *)at;

        tally_packet(t, at + head->tp_net, head->tp_snaplen,
                     (int64_t)head->tp_sec * 1000000000 + head->tp_nsec);
        at += head->tp_next_offset;
    }
    r->taken += block->hdr.bh1.num_pkts;
}

void
ring_take(struct ring *r, struct tally *t)
{
    for (unsigned i = 0; i < r->blocks; i++) {
        struct tpacket_block_desc *block = (void *)(r->map + (size_t)r->at * r->block_size);

        if ((__atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER) == 0)
            return;
        take_block(r, block, t);
        __atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
        r->at = (r->at + 1) % r->blocks;
    }
}

void
ring_heed(struct ring *r, short revents)
{
    int code = 0;
    socklen_t len = sizeof(code);

    /* ENETDOWN; once asked for it is gone. The socket goes on when the interface is up again. */
    if ((revents & POLLERR) != 0 && getsockopt(r->fd, SOL_SOCKET, SO_ERROR, &code, &len) == 0)
        r->downs += code != 0;
}

void
ring_count(struct ring *r)
{
    struct tpacket_stats_v3 stats;
    socklen_t len = sizeof(stats);

    /* Each look starts the kernel's counters anew; what had no room is in both of them. */
    if (getsockopt(r->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len) < 0)
        return;
    r->put += stats.tp_packets - stats.tp_drops;
    r->dropped += stats.tp_drops;
}
