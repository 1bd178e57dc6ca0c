/* getaddr.c: getaddrinfo(3) and the resolver state that glibc keeps for each thread.
 *
 * glibc keeps a thread's resolver state (`_res`: options, name servers, open sockets) beside the
 * thread's stack, empties it as the thread ends, and gives both to a later thread as they are. In
 * a forked child the stacks of the parent's threads are free to be used again, but those threads
 * never ended there. A new thread on the stack of one that was inside a lookup finds the parent's
 * socket in `_res`, sends its question on it, and parent and child take each other's answers. So
 * the state is emptied before each lookup. What it names is the parent's: nothing is closed, since
 * the number may be another descriptor's by now.
 *
 * After the lookup the state is emptied again, because the end of a thread that leaves something
 * there takes a lock of glibc's (resolv_conf.c), at a time that nobody can know; see resolve.c on
 * forks.
 */
#include "getaddr.h"

#include "../base/fault.h"
#include "../cancel/wait.h"

#include <errno.h>
#include <netinet/in.h>
#include <resolv.h>
#include <string.h>
#include <sys/socket.h>

/* How long a lookup hangs that was asked to, while faults are on; and when it looks again. */
#define HANG_NS (INT64_C(60) * 1000 * 1000 * 1000)
#define LOOK_NS (INT64_C(20) * 1000 * 1000)

#ifdef __GLIBC__
static void
forget_state(void)
{
    memset(&_res, 0, sizeof(_res));
}

static void
close_state(void)
{
    if (_res.nscount == 0) /* never filled; a zeroed state would have descriptor 0 closed */
        return;
    res_nclose(&_res);
    forget_state();
}
#else
static void
forget_state(void)
{
}

static void
close_state(void)
{
}
#endif

/* The thread is the lookup's own and nobody waits for it longer than they want: so it can hang. */
static int
faulted(int fault)
{
    int64_t until = hs_deadline_after(HANG_NS);
    short ready;

    switch (fault) {
    case HS_FAULT_NO_NAME:
        return EAI_NONAME;
    case HS_FAULT_NAME_FAILED:
        return EAI_FAIL;
    case HS_FAULT_HANG:
        while (hs_faults_are_on() && hs_now() < until) {
            hs_err slept = hs_wait(-1, 0, NULL, hs_deadline_after(LOOK_NS), NULL, &ready);

            if (slept != HS_E_DEADLINE && slept != HS_INTR)
                break;
        }
        return EAI_AGAIN;
    case EAGAIN:
        return EAI_AGAIN;
    case ENOMEM:
        return EAI_MEMORY;
    default:
        errno = fault;
        return EAI_SYSTEM;
    }
}

static int
ask_or_fail(const char *host, const struct addrinfo *hints, struct addrinfo **ret_list)
{
    int fault = hs_faults_are_on() ? hs_fault_decide(HS_CALL_lookup, NULL) : 0;

    return fault == 0 ? getaddrinfo(host, NULL, hints, ret_list) : faulted(fault);
}

int
hs_getaddr(const char *host, int family, struct addrinfo **ret_list, int *ret_sys)
{
    const struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int gai, sys;

    forget_state();
    errno = 0;
    gai = ask_or_fail(host, &hints, &list);
    sys = errno;
    close_state();
    /* EAI_SYSTEM with errno 0 has been seen when descriptors had run out. */
    *ret_sys = gai != EAI_SYSTEM ? 0 : sys != 0 ? sys : EMFILE;
    if (gai == 0)
        *ret_list = list;
    return gai;
}
