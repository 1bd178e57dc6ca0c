"""``hardsock explain HOST:PORT``: how a connect would go, without connecting.

Asks the resolver and the kernel, and opens one connection to itself on loopback to read back what
becomes of the socket options. Nothing is sent to the address that is explained.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import hardsock as hs

_ATTEMPT_DELAY = 0.25
_MAX_IN_FLIGHT = 6
_LONGEST_TIMEOUT = 86400.0
_LOOPBACK_TIMEOUT = 5.0
_INITIAL_RTO = 1.0
_LONGEST_RTO = 120.0
_FAMILIES = {2: "A", 10: "AAAA"}
_NOT_RESOLVABLE, _USAGE = 1, 2


@dataclass(frozen=True)
class Lookup:
    """What the resolver said about one family."""

    record: str
    addresses: tuple[str, ...]
    seconds: float
    error: str | None


@dataclass(frozen=True)
class PlannedAttempt:
    """One address that would be tried."""

    address: str
    start: float
    """Seconds after the addresses are known, if no earlier attempt has failed or connected."""
    in_time: bool
    """Whether it starts before the deadline."""
    sockets: dict[str, int] | None
    """TCP sockets of this network namespace towards the address, by state; None: not told."""


@dataclass(frozen=True)
class Limits:
    """What the kernel and the process would limit; None where the kernel does not say."""

    port_range: tuple[int, int] | None
    ports: int | None
    syn_retries: int | None
    kernel_gives_up: float | None
    """Seconds until the kernel itself would end an attempt that nobody answers."""
    somaxconn: int | None
    rmem_max: int | None
    wmem_max: int | None
    nofile: tuple[int, int]
    """RLIMIT_NOFILE, soft and hard; -1 is no limit."""
    descriptors: dict[str, int]
    """Descriptors that are open in this process, by kind."""


@dataclass(frozen=True)
class Explanation:
    """All that ``hardsock explain`` has to say."""

    address: str
    timeout: float
    source: str
    """``"literal"``, ``"unix"``, or ``"lookup"``."""
    lookup_order: str | None
    """The ``hosts:`` line of nsswitch.conf, for lookups."""
    lookups: tuple[Lookup, ...]
    plan: tuple[PlannedAttempt, ...]
    options: tuple[hs.Setting, ...]
    limits: Limits
    notes: tuple[str, ...] = field(default=())


def explain(address: str, *, timeout: float = 5.0, as_json: bool = False) -> int:
    """Print how a connect to *address* within *timeout* seconds would go.

    Returns:
        The exit status: 0, or 1 if the name has no address or the lookup took too long, or 2 if
        *address* or *timeout* make no sense.
    """
    try:
        explanation = examine(address, timeout=timeout)
    except ValueError as exc:
        return _complain(str(exc), _USAGE)
    except hs.HardsockError as exc:
        return _complain(str(exc), _NOT_RESOLVABLE)
    if as_json:
        print(json.dumps(_as_json(explanation), indent=2))
    else:
        print("\n".join(_lines(explanation)))
    return 0


def examine(address: str, *, timeout: float = 5.0) -> Explanation:
    """Find out how a connect to *address* within *timeout* seconds would go.

    Raises:
        ValueError: If *address* or *timeout* makes no sense.
        ResolveError: If the name has no address.
        DeadlineExceeded: If the lookup took longer than *timeout*.
    """
    if not 0 < timeout <= _LONGEST_TIMEOUT:  # Also refuses a NaN.
        raise ValueError(f"timeout must be above 0 and at most {_LONGEST_TIMEOUT:g}, got {timeout}")
    resolution = hs.resolve(address, timeout=timeout)
    lookups = tuple(
        Lookup(
            _FAMILIES.get(answer.family, str(answer.family)),
            tuple(_host(found) for found in answer.addresses),
            answer.elapsed,
            answer.error,
        )
        for answer in resolution.answers
    )
    is_unix = address.startswith("unix:")
    source = "unix" if is_unix else "lookup" if lookups else "literal"
    longest = max((lookup.seconds for lookup in lookups), default=0.0)
    plan = tuple(_plan(resolution.plan, timeout - longest, is_unix))
    limits = _limits()
    return Explanation(
        address=address,
        timeout=timeout,
        source=source,
        lookup_order=_lookup_order() if lookups else None,
        lookups=lookups,
        plan=plan,
        options=tuple(_options_in_effect(resolution.plan[0])),
        limits=limits,
        notes=tuple(_notes(plan, limits, timeout, is_unix)),
    )


def _complain(message: str, status: int) -> int:
    print(f"hardsock explain: {message}", file=sys.stderr)
    return status


def _plan(addresses: Sequence[str], left: float, is_unix: bool) -> Iterator[PlannedAttempt]:
    for index, address in enumerate(addresses):
        start = index * _ATTEMPT_DELAY
        counts = None
        if not is_unix:
            with contextlib.suppress(hs.HardsockError):
                counts = {state: count for state, count in hs.tcp_counts(address).items() if count}
        yield PlannedAttempt(address, start, start < left, counts)


def _options_in_effect(address: str) -> list[hs.Setting]:
    """What becomes of the default options, read back from a loopback connection to ourselves.

    Nothing if there is no loopback here.
    """
    candidates: list[hs.Address] = [("127.0.0.1", 0)]
    if address.startswith("unix:"):
        candidates = [f"unix:@hardsock-explain-{os.getpid()}"]
    elif address.startswith("["):
        candidates.insert(0, ("::1", 0))
    for candidate in candidates:
        with contextlib.suppress(hs.HardsockError), warnings.catch_warnings():
            warnings.simplefilter("ignore", hs.SettingWarning)  # The table tells.
            with hs.listen(candidate, backlog=1) as listener:
                there = candidate if isinstance(candidate, str) else listener.getsockname()
                with hs.connect(there, timeout=_LOOPBACK_TIMEOUT) as conn:
                    return conn.audit()
    return []


def _limits() -> Limits:
    ports = _numbers("net/ipv4/ip_local_port_range")
    retries = _number("net/ipv4/tcp_syn_retries")
    return Limits(
        port_range=(ports[0], ports[1]) if len(ports) == 2 else None,
        ports=_usable_ports(ports) if len(ports) == 2 else None,
        syn_retries=retries,
        kernel_gives_up=None if retries is None else _kernel_gives_up(retries),
        somaxconn=_number("net/core/somaxconn"),
        rmem_max=_number("net/core/rmem_max"),
        wmem_max=_number("net/core/wmem_max"),
        nofile=resource.getrlimit(resource.RLIMIT_NOFILE),
        descriptors={kind: count for kind, count in hs.fd_inventory().items() if count},
    )


def _usable_ports(port_range: Sequence[int]) -> int:
    """The size of the range without the reserved ports in it."""
    low, high = port_range
    reserved = 0
    for part in _read("/proc/sys/net/ipv4/ip_local_reserved_ports").split(","):
        first, _, last = part.partition("-")
        if first.strip():
            begin, end = max(low, int(first)), min(high, int(last or first))
            reserved += max(0, end - begin + 1)
    return high - low + 1 - reserved


def _kernel_gives_up(retries: int) -> float:
    """Seconds from the first SYN until ETIMEDOUT: see tcp_syn_retries in the kernel's ip-sysctl.

    The first few (tcp_syn_linear_timeouts, where the kernel has it) come at the same distance, then
    each waits twice as long as the one before, up to 120 s.
    """
    linear = _number("net/ipv4/tcp_syn_linear_timeouts") or 0
    growing = (min(_INITIAL_RTO * 2.0**step, _LONGEST_RTO) for step in range(retries + 1))
    return linear * _INITIAL_RTO + math.fsum(growing)


def _notes(
    plan: Sequence[PlannedAttempt], limits: Limits, timeout: float, is_unix: bool
) -> Iterator[str]:
    """What of all this may hurt."""
    late = sum(not attempt.in_time for attempt in plan)
    if late:
        yield f"{late} of {len(plan)} addresses are only tried if earlier ones fail at once"
    if len(plan) > _MAX_IN_FLIGHT:
        yield f"at most {_MAX_IN_FLIGHT} attempts run together: one more calls off the oldest"
    if is_unix:
        return
    for attempt in plan:
        used = sum((attempt.sockets or {}).values())
        if limits.ports and used > 0.8 * limits.ports:
            yield f"{used} of {limits.ports} local ports to {attempt.address} are taken"
    if limits.kernel_gives_up is not None and limits.kernel_gives_up > timeout:
        yield f"without the timeout a silent address would take {limits.kernel_gives_up:g} s"
    soft, _hard = limits.nofile
    used = sum(limits.descriptors.values())
    if soft != resource.RLIM_INFINITY and used > 0.8 * soft:
        yield f"{used} of {soft} descriptors are open"


def _lines(found: Explanation) -> Iterator[str]:
    yield f"{found.address}, {found.timeout:g} s for everything"
    yield from _lookup_lines(found)
    yield from _plan_lines(found)
    yield from _option_lines(found.options)
    yield from _limit_lines(found)
    if found.notes:
        yield "\nMind"
        yield from (f"  {note}" for note in found.notes)


def _lookup_lines(found: Explanation) -> Iterator[str]:
    yield "\nName"
    if found.source == "literal":
        yield "  a literal address: no lookup, no thread"
    elif found.source == "unix":
        yield "  a unix socket: no lookup"
    else:
        order = f" (nsswitch.conf, hosts: {found.lookup_order})" if found.lookup_order else ""
        yield f"  looked up by libc{order}, both families side by side"
    for lookup in found.lookups:
        answer = ", ".join(lookup.addresses) or lookup.error or "no address"
        yield f"  {lookup.record:<4}  {lookup.seconds * 1e3:7.1f} ms  {answer}"


def _plan_lines(found: Explanation) -> Iterator[str]:
    yield "\nAttempts, unless an earlier one has connected; at once when the one before failed"
    width = max(len(attempt.address) for attempt in found.plan)
    for attempt in found.plan:
        ports = ""
        if attempt.sockets is not None:
            ports = f"  local ports in use towards it: {sum(attempt.sockets.values())}"
            if found.limits.ports is not None:
                ports += f" of {found.limits.ports}"
            if attempt.sockets:
                ports += f" ({_counts(attempt.sockets)})"
        late = "" if attempt.in_time else "  after the deadline"
        yield f"  {attempt.start:6.2f} s  {attempt.address:<{width}}{ports}{late}"


def _option_lines(options: Sequence[hs.Setting]) -> Iterator[str]:
    if not options:
        yield "\nOptions: there is no loopback here on which to read them back"
        return
    yield "\nOptions, as the kernel reports them on a loopback connection made with the defaults"
    for setting in options:
        asked = "kernel's default" if setting.asked is None else f"asked {setting.asked}"
        effective = "not told" if setting.effective is None else str(setting.effective)
        changed = ""
        if setting.differs:
            changed = f"  CHANGED, see {setting.limited_by}" if setting.limited_by else "  CHANGED"
        yield f"  {setting.name:<20} {effective:>10}  {asked}{changed}"


def _limit_lines(found: Explanation) -> Iterator[str]:
    limits = found.limits
    by_name = {setting.name: setting for setting in found.options}
    yield "\nLimits"
    if found.source != "unix":
        if limits.port_range is not None:
            low, high = limits.port_range
            yield f"  ip_local_port_range  {low}-{high}: {limits.ports} ports for each destination"
        if limits.kernel_gives_up is not None:
            yield (
                f"  tcp_syn_retries      {limits.syn_retries}: the kernel alone gives up after "
                f"{limits.kernel_gives_up:g} s"
            )
    for label, most, name in (
        ("rmem_max", limits.rmem_max, "recv_buffer"),
        ("wmem_max", limits.wmem_max, "send_buffer"),
    ):
        asked = by_name[name].asked if name in by_name else None
        what = "not asked for, so left to the kernel" if asked is None else f"asked {asked}"
        if most is not None:
            yield f"  {label:<20} {most}: most that {name} may ask for ({what})"
    if limits.somaxconn is not None:
        yield f"  {'somaxconn':<20} {limits.somaxconn}: the longest accept queue of a listener here"
    soft, hard = (_limit(value) for value in limits.nofile)
    total = sum(limits.descriptors.values())
    kinds = _counts(limits.descriptors)
    yield f"  {'RLIMIT_NOFILE':<20} {soft} (hard {hard}); open here: {total} ({kinds})"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def _as_json(found: Explanation) -> dict[str, object]:
    value = asdict(found)
    value["options"] = [setting._asdict() for setting in found.options]
    return value


def _lookup_order() -> str | None:
    for line in _read("/etc/nsswitch.conf").splitlines():
        database, _, order = line.partition("#")[0].partition(":")
        if database.strip() == "hosts":
            return " ".join(order.split())
    return None


def _host(address: str) -> str:
    """The address without its port."""
    return address.rpartition(":")[0].strip("[]")


def _number(key: str) -> int | None:
    numbers = _numbers(key)
    return numbers[0] if len(numbers) == 1 else None


def _numbers(key: str) -> list[int]:
    """The numbers of a sysctl; none if there is no such key here."""
    return [int(word) for word in _read(f"/proc/sys/{key}").split()]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
