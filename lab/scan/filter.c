/* filter.c: see filter.h.
 *
 * Jumps count instructions: the last two of each program let a packet pass and drop it.
 */
#include "filter.h"

#include <linux/if_packet.h>
#include <netinet/in.h>

#define SYN_ACK 0x12
#define SYN 0x02
#define LENGTH_OF(a) (sizeof(a) / sizeof((a)[0]))

/* Loads beyond the packet's end drop it. "To us" leaves out what a switch shows to everybody, and
 * what is tagged for a VLAN that this machine is not in. */
#define DROP_UNLESS_TO_US(drop)                                                                    \
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, (__u32)(SKF_AD_OFF + SKF_AD_PKTTYPE)),                      \
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_HOST, 0, drop)

/* clang-format off */
static struct sock_filter program_4[] = {
    DROP_UNLESS_TO_US(9),
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 9),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 7),
    BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 6),
    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x1fff, 5, 0), /* a later fragment */
    BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0),
    BPF_STMT(BPF_LD | BPF_B | BPF_IND, 13),
    BPF_STMT(BPF_ALU | BPF_AND | BPF_K, SYN_ACK),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYN, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SNAP_4),
    BPF_STMT(BPF_RET | BPF_K, 0),
};

static struct sock_filter program_6[] = {
    DROP_UNLESS_TO_US(11),
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 6),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 5, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_HOPOPTS, 7, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_ROUTING, 6, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_FRAGMENT, 5, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_AH, 4, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_DSTOPTS, 3, 4),
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 40 + 13),
    BPF_STMT(BPF_ALU | BPF_AND | BPF_K, SYN_ACK),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYN, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SNAP_6),
    BPF_STMT(BPF_RET | BPF_K, 0),
};
/* clang-format on */

struct sock_fprog
filter_4(void)
{
    return (struct sock_fprog){.len = LENGTH_OF(program_4), .filter = program_4};
}

struct sock_fprog
filter_6(void)
{
    return (struct sock_fprog){.len = LENGTH_OF(program_6), .filter = program_6};
}
