"""Which file may make which call: see CONTRIBUTING.md, "The house".

One place sleeps, one reads the clock, one takes mutexes, one releases the GIL; that is what makes
deadlines, fault injection and lock ranks hold everywhere. The core prints nothing. A function of
the C library that the core calls is in the seam, where it can be made to fail, or in the list below
of what cannot fail, with the reason.
"""

import ctypes
import re
import sys

import common

# What is matched (as a whole word, in code), where it may stand, and why it may not elsewhere.
# Paths are prefixes.
CALL = r"\s*\("
RULES: list[tuple[str, tuple[str, ...], str]] = [
    (
        r"(hs_sys_)?ppoll" + CALL,
        ("csrc/cancel/waker.c", "csrc/base/sys.h"),
        "only csrc/cancel/waker.c waits",
    ),
    (
        r"(hs_sys_)?epoll_p?wait2?" + CALL,
        (
            "csrc/base/sys.",
            "csrc/connect/race.c",
            "csrc/cancel/loop.c",
            "csrc/cancel/reactor.c",
            "csrc/cancel/waker.c",
            "csrc/listen/handshakes.c",
            "csrc/pool/worker.c",
            "csrc/stream/departures.c",
        ),
        "only waker.c waits, and only those that own an epoll set drain it",
    ),
    (
        r"(hs_sys_)?poll" + CALL,
        ("csrc/base/sys.h", "csrc/stream/conn_probe.c"),
        "only csrc/stream/conn_probe.c, and without waiting",
    ),
    (
        r"clock_nanosleep" + CALL,
        ("csrc/cancel/waker.c",),
        "nothing sleeps but hs_sleep",
    ),
    (
        r"(p?select|nanosleep|u?sleep|pause|sem_\w*wait)" + CALL,
        (),
        "nothing sleeps but hs_sleep",
    ),
    (r"sigtimedwait" + CALL, ("csrc/stream/tcp.c",), "only there, and without waiting"),
    (r"pthread_cond_\w+", (), "waiting on a condition would be deaf to signals and tokens"),
    (
        r"pthread_(mutex|rwlock|spin)_\w+" + CALL,
        ("csrc/base/lock.",),
        "use base/lock.h, which checks ranks",
    ),
    (
        r"(clock_gettime|gettimeofday|time)" + CALL,
        ("csrc/base/time.c",),
        "only csrc/base/time.c reads the clock",
    ),
    (
        r"Py_(BEGIN|END)_ALLOW_THREADS\b|Py_(UN)?BLOCK_THREADS\b|PyEval_(Save|Restore)Thread"
        + CALL,
        ("csrc/binding/base/detach.c",),
        "only csrc/binding/base/detach.c releases the GIL",
    ),
    (
        r"PyList_New\s*\((?!0\))",
        ("csrc/binding/base/compat.h",),
        "use hs_list_new: without the GIL this one crashes for want of memory",
    ),
    (r"PyGILState_\w+" + CALL, (), "it ignores subinterpreters"),
    (
        r"struct tcp_info \w+;",
        (),
        "an older kernel, or one that is emulated, fills its beginning only: begin with = {0}",
    ),
]
# The calls that hs_sys_* stand for.
SEAM = "only csrc/base/sys.h calls the kernel and the C library: use hs_sys_*"
# The plan itself draws and writes as it is, while it lets others fail.
SEAM_FILES = ("csrc/base/sys.", "csrc/base/fault.c", "csrc/base/fault_spec.c")
SEAM_RULES: list[tuple[str, tuple[str, ...], str]] = [
    (
        r"(malloc|calloc|realloc|reallocarray|strn?dup|socket|connect|accept4?|bind|listen|recv|recvmsg|"
        r"recvfrom|send|sendmsg|sendto|sendfile|shutdown|[gs]etsockopt|getpeername|getsockname|ioctl|"
        r"dup[23]?|open(at)?|p?poll|epoll_create1?|epoll_ctl|epoll_p?wait2?|eventfd|"
        r"timerfd_create|timerfd_settime|[lf]?stat|fstatat|f?access(at)?|readlink(at)?|"
        r"(fd)?opendir|readdir|unlink(at)?|f?chmod|flock|getrandom|if_nametoindex|if_indextoname|"
        r"pthread_create|pthread_key_create|pthread_setspecific)" + CALL,
        SEAM_FILES,
        SEAM,
    ),
    # own_fd.c: eight bytes of an eventfd or timerfd, which fail when there is nothing to do.
    # check.c and dump.c: last words, of a process that ends.
    (
        r"(p?readv?|p?writev?)" + CALL,
        (*SEAM_FILES, "csrc/base/own_fd.c", "csrc/base/check.c", "csrc/base/dump.c"),
        SEAM,
    ),
    # Whether a number is open has no other answer than that.
    (
        r"fcntl" + CALL,
        (*SEAM_FILES, "csrc/base/own_fd.c", "csrc/watch/fdtable.c"),
        SEAM,
    ),
    (r"getaddrinfo" + CALL, ("csrc/connect/getaddr.c",), "only there, where faults are, too"),
    (
        r"SSL_(new|do_handshake|read|read_ex|peek|peek_ex|write|write_ex|shutdown)" + CALL,
        ("csrc/stream/tls_fault.h", "csrc/stream/tls_rehearse.c"),
        "use hs_sys_ssl_*",
    ),
    (
        r"BIO_new_(file|fp|fd|socket|connect)" + CALL,
        (),
        "OpenSSL's own calls of the kernel cannot be made to fail, nor be waited for: use hs_sys_*",
    ),
]
# What the core calls of the C library and has no place in the seam.
CANNOT_FAIL: dict[str, str] = {
    "memory, text and numbers": "memchr memcmp memcpy memmem memmove memrchr memset strchr strcmp "
    "strcspn strerror_r strftime strlen strncasecmp strncmp strncpy strnlen strpbrk strrchr strspn "
    "strtol strtoll strtoul strtoull snprintf vsnprintf qsort timegm htons ntohl ntohs inet_ntop "
    "inet_pton gai_strerror sigaddset sigdelset sigemptyset sigfillset sigismember secure_getenv",
    "who and where we are": "getpid gettid geteuid dirfd pthread_self pthread_equal",
    "gives back, and what was given back is gone either way": "free close closedir freeaddrinfo "
    "res_nclose pthread_key_delete pthread_attr_destroy pthread_detach pthread_exit",
    "fails for wrong arguments only, which ours are not": "getrlimit pthread_once pthread_sigmask "
    "sigpending pthread_attr_init pthread_attr_setstacksize clock_getres clock_gettime time",
    "fails when there is nothing to do: no signal waits, the word has changed": "sigtimedwait syscall",
    "at worst it is over early, or not done, which does no harm": "sched_yield clock_nanosleep "
    "pthread_setname_np",
    "called while the library is loaded, before a fault can be asked for": "pthread_atfork",
    "base/lock.h asserts that it did not": "pthread_mutex_init pthread_mutex_destroy "
    "pthread_mutex_lock pthread_mutex_trylock pthread_mutex_unlock",
    "of a process that ends": "abort raise sigaction",
}
ELSEWHERE = {name for names in CANNOT_FAIL.values() for name in names.split()}
LIBC = ctypes.CDLL(None)
CORE_RULES: list[tuple[str, str]] = [
    (r"(v?printf|puts|putchar|perror|v?dprintf|psignal)" + CALL, "the core prints nothing"),
    (r"(stdout|stderr)\b", "the core prints nothing"),
    (r"assert" + CALL, "use HS_ASSERT, which stays on in release builds"),
]


# What PyErr_Format and its like know in every version that we support: %lx and %X are of 3.12, and
# an older interpreter prints the rest of the format as it stands.
FORMATTING = re.compile(r"\bPy(?:Err_(?:Warn)?Format|Unicode_FromFormat)\s*\(")
KNOWN_FORMAT = re.compile(r"%(?:-?\d*(?:\.\d+)?(?:l|ll|z)?[diu]|\d*x|(?:\.\d+)?[sUVSRAc]|[cp%])")


def check_formats(path: str, text: str) -> list[str]:
    problems = []
    for call in FORMATTING.finditer(text):
        end = text.find(";", call.end())
        strings = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', text[call.end() : end]))
        if "%" in KNOWN_FORMAT.sub("", strings):
            line = text.count("\n", 0, call.start()) + 1
            bad = KNOWN_FORMAT.sub("", strings)
            bad = bad[bad.index("%") :][:4]
            problems.append(f"{path}:{line}: {bad}: CPython 3.10 does not know this format")
    return problems


def check_list(path: str, code: str) -> list[str]:
    """Functions of the C library that neither the seam's rules nor the list know."""
    known = re.compile("|".join(f"(?:{p})" for p, _, _ in [*RULES, *SEAM_RULES]))
    problems = []
    for number, line in enumerate(code.split("\n"), 1):
        for call in re.finditer(r"(?<![\w.>])([a-z]\w*)\s*\(", line):
            name = call[1]
            if name in ELSEWHERE or known.match(line, call.start()) or not hasattr(LIBC, name):
                continue
            problems.append(
                f"{path}:{number}: {name}: it can be made to fail nowhere: give it a place in "
                "csrc/base/sys.h, or say in tools/check_calls.py why it cannot fail"
            )
    return problems


def check(path: str, text: str) -> list[str]:
    code = common.code_only(text)
    rules = [
        (p, allowed, why) for p, allowed, why in RULES if not path.startswith(allowed or ("\0",))
    ]
    if not path.startswith("csrc/binding/"):
        rules += [(pattern, (), why) for pattern, why in CORE_RULES]
        rules += [(p, (), why) for p, allowed, why in SEAM_RULES if not path.startswith(allowed)]
    problems = []
    for number, line in enumerate(code.split("\n"), 1):
        if line.lstrip().startswith("#include"):
            continue
        for pattern, _, why in rules:
            # Whole words only; a member such as layer->poll(x) is not the C library's function.
            if found := re.search(rf"(?<![\w.>])(?:{pattern})", line):
                problems.append(f"{path}:{number}: {found[0].rstrip('( ')}: {why}")
    if not path.startswith(("csrc/binding/", *SEAM_FILES)):
        problems += check_list(path, code)
    return problems + check_formats(path, text)


if __name__ == "__main__":
    sys.exit(common.main_over_c(check, "check_calls", "csrc"))
