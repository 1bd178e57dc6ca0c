/* fdsocket.c: what a socket of this process is, the one who made it.
 *
 * Only asks: no option, flag or buffer of the socket changes, and no descriptor is opened. Its
 * owner may close it meanwhile; then the answer is about nothing, or about what has the number
 * next.
 */
#include "hardsock_binding.h"

#include "../base/sys.h"

#include <linux/tcp.h>
#include <netinet/in.h>

static bool
fdsocket_ask(int fd, int level, int name, int *ret_value)
{
    socklen_t len = sizeof(*ret_value);

    return hs_sys_getsockopt(fd, level, name, ret_value, &len) == 0;
}

static int
fdsocket_tcp_state(int fd)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);

    if (hs_sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
        info.tcpi_state >= HS_TCP_STATES)
        return 0;
    return info.tcpi_state;
}

typedef int name_fn(int fd, struct sockaddr *addr, socklen_t *len);

static void
ask_name(int fd, name_fn *fn, struct hs_addr *ret_addr)
{
    socklen_t len = sizeof(ret_addr->storage);

    if (fn(fd, &ret_addr->sa, &len) == 0)
        ret_addr->len = len < sizeof(ret_addr->storage) ? len : sizeof(ret_addr->storage);
}

bool
hs_fd_socket(int fd, struct hs_fd_socket *ret_socket)
{
    struct hs_fd_socket found = {0};
    int listens = 0, protocol = 0;

    if (!fdsocket_ask(fd, SOL_SOCKET, SO_DOMAIN, &found.family) ||
        !fdsocket_ask(fd, SOL_SOCKET, SO_TYPE, &found.type))
        return false;
    found.listens = fdsocket_ask(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens) && listens != 0;
    if (found.type == SOCK_STREAM && fdsocket_ask(fd, SOL_SOCKET, SO_PROTOCOL, &protocol) &&
        protocol == IPPROTO_TCP)
        found.state = fdsocket_tcp_state(fd);
    ask_name(fd, getsockname, &found.local);
    ask_name(fd, getpeername, &found.peer);
    *ret_socket = found;
    return true;
}
