/* ends.h: the two ends of the wire: a device "wire0" in each of two network namespaces.
 *
 * Either TUN devices, or veth pairs whose other half is here, read and written by AF_PACKET. The
 * second way needs no /dev/net/tun, so that an ordinary user has it in a user namespace.
 */
#ifndef LAB_ENDS_H
#define LAB_ENDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct end {
    int fd;    /* where packets come from and go to; nonblocking */
    int net;   /* borrows: a descriptor of its namespace */
    int other; /* 0 or 1 */
    char why[160];
    bool is_packet;      /* else TUN */
    uint64_t drops_seen; /* PACKET_STATISTICS starts anew with each look */
};

#define ETHERNET_HEAD 14

/* home: descriptor of the namespace to come back to. cc: what tcp_congestion_control is to be, the
 * first of a list that there is, or NULL. False: e->why says why; then nothing of it is left. */
bool end_open_tun(struct end *e, int home, const char *cc);
bool end_open_packet(struct end *e, int home, const char *cc);
void end_close(struct end *e);
/* What the kernel dropped on the way to us and from us, unasked. */
uint64_t end_drops(struct end *e, int home);
/* True: a packet that keeps the link itself alive (ARP, neighbour discovery, group membership). */
bool is_housekeeping(const uint8_t *data, size_t len, bool ethernet);

#endif
