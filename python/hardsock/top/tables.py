"""From reports to lines: what ``hardsock top`` shows, at any width, as text or as tab-separated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

_WIDE = 120  # columns


@dataclass(frozen=True)
class Column:
    """One column: its title, what it shows of a row, and how."""

    title: str
    value: Callable[[Row], Any]
    text: Callable[[Any], str] = str
    left: bool = False
    wide: bool = False
    """Shown only where there is room for all."""


@dataclass(frozen=True)
class View:
    """A table, and where its rows are from."""

    key: str
    name: str
    report: str
    rows: Callable[[Row], list[Row]]
    columns: tuple[Column, ...]


def plain(text: str) -> str:
    """Text of a peer's, a file's or a process's, without anything that a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in text)


def seconds(value: float | None) -> str:
    """``"0.25s"``, ``"41s"``, ``"3m"``, ``"5h"``, ``"2d"``; ``"-"``: never, or not known."""
    if value is None:
        return "-"
    if value < 10:
        return f"{value:.2f}s"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if value >= 2 * size:
            return f"{value / size:.0f}{unit}"
    return f"{value:.0f}s"


def size(value: int | None) -> str:
    """Bytes: ``"512"``, ``"20K"``, ``"3.1M"``."""
    if value is None:
        return "-"
    number, units = float(value), iter("KMGTP")
    unit = ""
    while number >= 10000:
        number, unit = number / 1024, next(units)
    return f"{number:.0f}{unit}"


def site(value: Row | None) -> str:
    """``file:line in function``; the file's last two parts are enough to find it."""
    if value is None or (value["line"] == 0 and value["file"] == "?"):
        return "-"
    name = "/".join(value["file"].split("/")[-2:])
    return f"{name}:{value['line']} in {value['function']}"


def text_or_dash(value: Any) -> str:
    """``None`` as ``"-"``."""
    return "-" if value is None else str(value)


def _of(name: str) -> Callable[[Row], Any]:
    return lambda row: row.get(name)


def _column(
    title: str, name: str, text: Callable[[Any], str] = text_or_dash, wide: bool = False
) -> Column:
    return Column(title, _of(name), text, left=title.islower(), wide=wide)


def _waits(report: Row) -> list[Row]:
    return [
        {"pool": pool["name"], "what": what, **one}
        for pool in report["pools"]
        for what, many in (("waits", pool["waiters"]), ("holds", pool["holders"]))
        for one in many
    ]


def _newest_first(report: Row) -> list[Row]:
    return list(reversed(report["events"]))


def _most_first(report: Row) -> list[Row]:
    return sorted(report["sites"], key=lambda row: -int(row["open"]))


def _oldest_first(report: Row) -> list[Row]:
    return sorted(report["connections"], key=lambda row: -float(row.get("age") or 0))


VIEWS = (
    View(
        "s",
        "sites",
        "sites",
        _most_first,
        (
            _column("OPEN", "open"),
            _column("how", "how"),
            _column("OLDEST", "oldest", seconds),
            _column("IDLE", "idle", seconds),
            _column("WAIT", "waiting"),
            _column("RECV", "received", size, wide=True),
            _column("SENT", "sent", size, wide=True),
            _column("UNREAD", "unread", size),
            _column("UNSENT", "unsent", size),
            _column("RETR", "retransmits", wide=True),
            _column("site", "site", site),
        ),
    ),
    View(
        "c",
        "connections",
        "connections",
        _oldest_first,
        (
            _column("FD", "fd"),
            _column("how", "how"),
            _column("state", "state"),
            _column("phase", "phase"),
            _column("AGE", "age", seconds),
            _column("READ", "last_read", seconds),
            _column("WRITE", "last_write", seconds, wide=True),
            _column("RECV", "received", size, wide=True),
            _column("SENT", "sent", size, wide=True),
            _column("UNREAD", "unread", size),
            _column("UNSENT", "unsent", size),
            _column("RETR", "retransmits", wide=True),
            _column("peer", "peer"),
            _column("site", "site", site),
        ),
    ),
    View(
        "p",
        "pools",
        "pools",
        lambda report: list(report["pools"]),
        (
            _column("LENT", "lent"),
            _column("IDLE", "idle"),
            _column("DIAL", "dialing"),
            _column("CLOSING", "closing", wide=True),
            _column("MAX", "max_size"),
            _column("WAIT", "waiting"),
            _column("TIMEOUTS", "timeouts"),
            _column("OVERDUE", "overdue", wide=True),
            _column("name", "name"),
            _column("site", "site", site),
        ),
    ),
    View(
        "w",
        "waiters",
        "pools",
        _waits,
        (
            _column("AGE", "age", seconds),
            _column("what", "what"),
            _column("pool", "pool"),
            _column("site", "site", site),
        ),
    ),
    View(
        "v",
        "servers",
        "servers",
        lambda report: list(report["services"]),
        (
            _column("state", "state"),
            _column("DRAINS", "draining", seconds),
            _column("BUSY", "busy"),
            _column("PARKED", "parked"),
            _column("WAIT", "waiting"),
            _column("LINGER", "lingering", wide=True),
            _column("LIMIT", "limit"),
            _column("ACCEPTED", "accepted"),
            _column("FAILED", "failed"),
            _column("CUT", "cut", wide=True),
            _column("kind", "kind"),
            _column("name", "name"),
        ),
    ),
    View(
        "l",
        "listeners",
        "servers",
        lambda report: list(report["servers"]),
        (
            _column("FD", "fd"),
            _column("ACCEPTED", "accepted"),
            _column("QUEUE", "queue"),
            _column("BACKLOG", "backlog"),
            _column("SHED", "shed"),
            _column("HANDSHAKES", "handshakes"),
            _column("address", "address"),
        ),
    ),
    View(
        "b",
        "breakers",
        "breakers",
        lambda report: list(report["breakers"]),
        (
            _column("state", "state"),
            _column("OPEN", "opened", seconds),
            _column("RETRY", "retry_in", seconds),
            _column("CALLS", "calls"),
            _column("FAILED", "failures"),
            _column("REFUSED", "refused"),
            _column("key", "key"),
        ),
    ),
    View(
        "e",
        "events",
        "events",
        _newest_first,
        (
            _column("AGO", "age", seconds),
            _column("kind", "kind"),
            _column("AFTER", "span", seconds),
            _column("what", "what"),
            _column("error", "error"),
            _column("site", "site", site),
        ),
    ),
)


def table(view: View, rows: Sequence[Row], width: int) -> list[str]:
    """Lines of at most *width* characters; the last column gets what room is left.

    What no row tells of (a kernel's view has no lines) and, below 120 columns, what is of less
    interest is left out.
    """
    columns = [
        column
        for column in view.columns
        if (width >= _WIDE or not column.wide)
        and (not rows or any(column.value(row) is not None for row in rows))
    ]
    columns = columns or list(view.columns)
    body = [[plain(column.text(column.value(row))) for column in columns] for row in rows]
    heads = [column.title.upper() for column in columns]
    widths = [max([len(head), *(len(line[at]) for line in body)]) for at, head in enumerate(heads)]
    for at, column in enumerate(columns[:-1]):
        if column.left:
            widths[at] = min(widths[at], max(12, width // 4))
    lines = []
    for line in [heads, *body]:
        words = [
            text[: widths[at]].ljust(widths[at]) if columns[at].left else text.rjust(widths[at])
            for at, text in enumerate(line)
        ]
        lines.append(fit("  ".join(words).rstrip(), width))
    return lines


def fit(line: str, width: int) -> str:
    """Cut, with a sign that it was."""
    return line if len(line) <= width else line[: width - 1] + "…"


def tsv(view: View, rows: Sequence[Row]) -> list[str]:
    """Tab-separated, in the columns' order, without a head: numbers as they are told."""
    lines = []
    for row in rows:
        values = [column.value(row) for column in view.columns]
        lines.append(
            "\t".join(
                plain(site(value) if isinstance(value, dict) else text_or_dash(value))
                for value in values
            )
        )
    return lines


def header(metrics: Row, command: str, width: int) -> list[str]:
    """Five lines about the whole process."""
    fds, open_ones = metrics["descriptors"], metrics["open_connections"]
    limit = fds["limit"]
    share = f" ({100 * fds['open'] // limit} %)" if limit else ""
    how = ", ".join(f"{count} {name}" for name, count in open_ones.items() if count)
    total = Counter[str]()
    pools_open = [one for one in metrics["pools"] if not one["is_closed"] or one["lent"]]
    for pool in pools_open:
        for name in ("lent", "idle", "dialing", "closing", "waiting", "max_size"):
            total[name] += int(pool[name])
    states = Counter(str(one["state"]) for one in metrics["breakers"])
    breakers = ", ".join(f"{count} {name}" for name, count in sorted(states.items())) or "none"
    events = ", ".join(f"{name} {count}" for name, count in metrics["events"].items() if count)
    servers = Counter(str(one["state"]) for one in metrics["services"] if one["state"] != "ended")
    serving = ", ".join(f"{count} {name}" for name, count in sorted(servers.items())) or "none"
    pools = (
        f"pools {len(pools_open)}: {total['lent']} lent + {total['idle']} idle + "
        f"{total['dialing']} dialing + {total['closing']} closing of {total['max_size']}, "
        f"{total['waiting']} waiting   breakers {breakers}"
    )
    process = (
        f"descriptors {fds['open']} of {limit or 'unlimited'}{share}   "
        f"orphans {metrics['resolver']['orphans']}   "
        f"connections {sum(open_ones.values())}{f' ({how})' if how else ''}"
    )
    stalls = {
        name: seconds(metrics["seconds"][f"read_stall_{name}"]["sum"])
        for name in ("peer", "application", "gil")
    }
    lines = [
        f"hardsock top  pid {metrics['pid']}  {plain(command)}",
        process,
        pools,
        f"servers {serving}   events {events or 'none'}",
        (
            f"reads waited in all: for peers {stalls['peer']}, "
            f"for the program {stalls['application']}, for the GIL {stalls['gil']}"
        ),
    ]
    return [fit(line, width) for line in lines]
