"""Which file may make which call: see CONTRIBUTING.md, "The house".

One place sleeps, one reads the clock, one takes mutexes, one releases the GIL; that is what makes
deadlines, fault injection and lock ranks hold everywhere. The core prints nothing.
"""

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
        r"epoll_p?wait2?" + CALL,
        (
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
    (r"poll" + CALL, ("csrc/stream/conn_probe.c",), "only there, and without waiting"),
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
]
# The calls that hs_sys_* stand for.
SEAM = "only csrc/base/sys.h calls the kernel and the C library: use hs_sys_*"
SEAM_FILES = ("csrc/base/sys.", "csrc/base/fault.c")
SEAM_RULES: list[tuple[str, tuple[str, ...], str]] = [
    (
        r"(malloc|calloc|realloc|reallocarray|strn?dup|socket|connect|accept4?|bind|listen|recv|recvmsg|"
        r"recvfrom|send|sendmsg|sendto|sendfile|shutdown|[gs]etsockopt|getpeername|getsockname|ioctl|"
        r"dup[23]?|open(at)?|ppoll|epoll_create1?|epoll_ctl|eventfd|timerfd_create|"
        r"pthread_create)" + CALL,
        SEAM_FILES,
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
        r"SSL_(do_handshake|read|read_ex|write|write_ex)" + CALL,
        ("csrc/stream/tls_fault.h", "csrc/stream/tls_rehearse.c"),
        "use hs_sys_ssl_*",
    ),
]
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
    return problems + check_formats(path, text)


if __name__ == "__main__":
    sys.exit(common.main_over_c(check, "check_calls", "csrc"))
