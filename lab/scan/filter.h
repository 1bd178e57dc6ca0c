/* filter.h: what the kernel passes on to us: a program of classic BPF for each kind of IP.
 *
 * Packets are as a SOCK_DGRAM packet socket has them: from the IP header on. The programs let
 * through all that frame.h takes for a SYN, and next to nothing else: the rest costs no copy.
 */
#ifndef LAB_FILTER_H
#define LAB_FILTER_H

#include <linux/filter.h>

/* At most that much of a packet is captured. */
#define SNAP_4 96
#define SNAP_6 256

struct sock_fprog filter_4(void);
/* Extension headers are not followed there: those packets pass. */
struct sock_fprog filter_6(void);

#endif
