"""Which adapter is tested for which wait: a table, made from the names of the tests.

    adapter_contract.py            print it
    adapter_contract.py --write    put it into docs/adapters.md
    adapter_contract.py --missing  print what is promised and has no test

The tests of tests/adapters say it by their names and parameters; `RULES` says how to read them. A cell
is ``plain / TLS``, each with the ends that are tested: d, the client's own limit; c, a cancel from
another thread; s, a scope.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import common

PAGE = common.ROOT / "docs/adapters.md"
BEGIN, END = "<!-- contract: begin -->", "<!-- contract: end -->"
WAITS = ("dead DNS", "black hole", "TLS stall", "silent", "drip", "queue", "pause")
ENDINGS = ("reset", "truncated", "early answer", "redirect", "streamed body", "reuse after cancel")
BREAKS = ENDINGS[:2]
"""What every client must tell from an answer; the other ones are of HTTP and of pools."""
ALL_ENDS, HOW = "dcs", {"deadline": "d", "own": "d", "cancel": "c", "scope": "s"}


@dataclass(frozen=True)
class Rule:
    """How to read the names of some tests: patterns of the module, the function and the parameters."""

    module: str
    function: str
    what: str
    parameters: str = ""
    """Only those tests; what its group ``who`` matches is the adapter."""
    adapter: str = ""
    ends: str = ""
    """Without a parameter that tells: those that the test goes through."""
    transports: tuple[str, ...] = ()


_HTTP = "requests|stdlib|botocore|aiohttp|openai|anthropic|httpcore"
_WHO = r"(?P<who>[^\]]*?)-?(?:plain|tls)?-?(?:deadline|scope|cancel)?"
_HTTPX = r"(?P<who>(?:sync|asyncio|uvloop|trio)-(?:httpx2?))"
_SDK = "(?P<who>openai|anthropic).*"
_TAKES = "(?P<who>pg8000|websocket-client|websockets|paramiko)"
_WAYS = ("sync", "asyncio", "uvloop", "trio")
_BOTH = ("plain", "TLS")
_POOLED = ("silent", "drip", "queue")
_MANY = r"(?P<who>redis[-.]\w+, \w+)"
RULES = (
    # The contract of HTTP libraries: http_contract.py.
    Rule(_HTTP, "a_dead_name_server_ends", "dead DNS", _WHO, transports=_BOTH),
    Rule(_HTTP, "a_connect_into_a_black_hole_ends", "black hole", _WHO, transports=_BOTH),
    Rule(_HTTP, "a_stalled_handshake_ends", "TLS stall", _WHO, transports=("TLS",)),
    Rule(_HTTP, "what_the_server_does_ends", "silent", _WHO + "-/silent"),
    Rule(_HTTP, "what_the_server_does_ends", "drip", _WHO + "-/drip"),
    Rule(_HTTP, "the_queue_of_the_pool_ends", "queue", _WHO),
    Rule("aiohttp", "the_queue_of_the_connector_ends", "queue", _WHO),
    Rule(_HTTP, "the_pause_before_another_try_ends", "pause", _WHO),
    Rule(_HTTP, "a_peer_that_breaks_off_is_a_failure", "reset", _WHO + "-/reset"),
    Rule(_HTTP, "a_peer_that_breaks_off_is_a_failure", "truncated", _WHO + "-/truncated"),
    Rule(_HTTP, "an_answer_that_comes_before_the_request_is_whole_is_read", "early answer", _WHO),
    Rule(_HTTP, "redirects_are_followed", "redirect", _WHO),
    Rule(_HTTP, "a_redirect_to_a_drip_ends", "redirect", _WHO),
    Rule(_HTTP, "a_body_that_is_streamed_ends", "streamed body", _WHO + "-/.*"),
    Rule(
        *(_HTTP, "after_a_cancel_the_next_request_gets_its_own_answer", "reuse after cancel"),
        _WHO + "-/.*",
    ),
    # httpx and httpx2, four ways of waiting each.
    Rule("httpx", "a_dead_name_server_costs", "dead DNS", _HTTPX, "", ALL_ENDS, _BOTH),
    Rule("httpx", "a_connect_that_hangs_ends", "black hole", _HTTPX, "", ALL_ENDS, _BOTH),
    Rule("httpx", "a_handshake_that_hangs_ends", "TLS stall", _HTTPX, "", ALL_ENDS, ("TLS",)),
    *(
        Rule("httpx", function, what, rf"{_HTTPX}-(?:plain|tls)-{path}", ends=end)
        for function, end in (
            ("the_total_ends_whatever_the_server_does", "d"),
            ("the_scope_around_ends_it_as_itself", "s"),
            ("another_thread_cancels_it", "c"),
        )
        for what, path in (("silent", "/silent"), ("drip", "/drip"), ("redirect", "/redirect/drip"))
    ),
    Rule("httpx", "a_full_pool_is_waited_for", "queue", _HTTPX + "-.*", ends=ALL_ENDS),
    Rule("httpx", "pauses_between_connect_retries", "pause", ".*", "httpcore"),
    Rule("httpx", "a_body_that_is_cut_is_an_error", "reset", _HTTPX + "-.*-/reset"),
    Rule("httpx", "a_body_that_is_cut_is_an_error", "truncated", _HTTPX + "-.*-/truncated"),
    Rule("httpx", "a_request_that_is_answered_early", "early answer", _HTTPX + "-.*"),
    *(
        Rule(
            "httpx",
            f"a_body_that_is_streamed_later_obeys_{of}",
            "streamed body",
            _HTTPX + "-.*",
            "",
            end,
        )
        for of, end in (("the_total", "d"), ("the_time_of_the_scope", "s"), ("a_cancel", "c"))
    ),
    Rule("httpx", "a_cancelled_call_never_hands_on", "reuse after cancel", _HTTPX + "-.*"),
    Rule("llm_sdks", "the_total_bounds_", "streamed body", _SDK, ends="d"),
    Rule("llm_sdks", "the_stop_button_ends_", "streamed body", _SDK, ends="c"),
    Rule("llm_sdks", "the_pause_before_the_next_", "pause", _SDK, ends="s"),
    Rule("llm_sdks", "a_cancel_ends_the_pause_", "pause", _SDK, ends="c"),
    # Redis.
    *(
        Rule(module, function, what, parameters, adapter, "", transports)
        for module, adapter in (("redis", "redis-py"), ("redis_asyncio", "redis.asyncio"))
        for function, what, parameters, transports in (
            ("a_dead_name_server_ends", "dead DNS", ".*", _BOTH),
            ("a_connect_into_a_black_hole_ends", "black hole", ".*", _BOTH),
            ("a_stalled_handshake_ends", "TLS stall", ".*", ("TLS",)),
            ("a_reply_that_does_not_come_ends", "silent", ".*silent-False", ("plain",)),
            ("a_reply_that_does_not_come_ends", "silent", ".*silent-True", ("TLS",)),
            ("a_reply_that_does_not_come_ends", "drip", ".*drip-False", ("plain",)),
            ("a_reply_that_does_not_come_ends", "drip", ".*drip-True", ("TLS",)),
            ("the_queue_of_the_pool_ends", "queue", ".*", ()),
            ("the_pauses_between_tries_end", "pause", ".*", ()),
            ("a_blocking_command_ends_and_the_next", "reuse after cancel", ".*", ()),
            ("a_reply_that_breaks_off", "reset", ".*reset-False", ("plain",)),
            ("a_reply_that_breaks_off", "reset", ".*reset-True", ("TLS",)),
            ("a_reply_that_breaks_off", "truncated", ".*truncated-False", ("plain",)),
            ("a_reply_that_breaks_off", "truncated", ".*truncated-True", ("TLS",)),
        )
    ),
    *(
        Rule("redis_many", f"a_command_of_{function}_ends", what, ".*", adapter)
        for what in ("silent", "reuse after cancel")
        for function, adapter in (
            ("a_cluster", "redis-py, cluster"),
            ("a_client_of_sentinel", "redis-py, Sentinel"),
            ("an_awaited_cluster", "redis.asyncio, cluster"),
            ("an_awaited_client_of_sentinel", "redis.asyncio, Sentinel"),
        )
    ),
    *(
        Rule("redis_many", f"a_first_question_{function}", what, f"{word}.*{_MANY}.*", "", "", how)
        for function, what, word, how in (
            ("to_a_name_that_is_not_found_ends", "dead DNS", "", _BOTH),
            ("into_a_black_hole_ends", "black hole", "", ()),
            ("behind_a_stalled_handshake_ends", "TLS stall", "", ("TLS",)),
            ("that_is_not_answered_ends", "silent", "(?=.*silent)", ()),
            ("that_is_not_answered_ends", "drip", "(?=.*drip)", ()),
            ("whose_answer_breaks_off", "reset", "(?=.*reset)", ()),
            ("whose_answer_breaks_off", "truncated", "(?=.*truncated)", ()),
        )
    ),
    Rule("redis_many", "the_pause_before_sentinel_is_asked", "pause", f".*{_MANY}.*"),
    Rule(
        *("redis_many", "the_pause_of_an_awaited_cluster", "pause", ".*", "redis.asyncio, cluster")
    ),
    # Databases. Their clients have no limit of their own that is a total: the scope is the limit.
    *(
        Rule("psycopg", function, what, parameters, adapter, "", transports)
        for function, what, parameters, adapter, transports in (
            ("a_dead_name_server_ends", "dead DNS", ".*", "psycopg", _BOTH),
            ("a_black_hole_ends", "black hole", ".*", "psycopg", _BOTH),
            ("a_server_that_does_not_go_on", "silent", ".*silent.*", "psycopg", ("plain",)),
            ("a_server_that_does_not_go_on", "TLS stall", ".*handshake.*", "psycopg", ("TLS",)),
            ("a_statement_that_is_not_answered", "silent", ".*stall.*", "psycopg", ()),
            ("a_statement_that_is_not_answered", "drip", ".*drip.*", "psycopg", ()),
            ("rows_that_come_slowly_are_cancelled", "streamed body", ".*", "psycopg", ()),
            ("a_slow_statement_is_cancelled", "reuse after cancel", ".*", "psycopg", ()),
            ("the_queue_of_the_pool_ends", "queue", ".*", "psycopg_pool", ()),
            ("a_pool_with_a_dead_name_server", "dead DNS", ".*", "psycopg_pool", _BOTH),
            ("a_pool_in_a_black_hole_ends", "black hole", ".*", "psycopg_pool", _BOTH),
            ("a_pool_behind_a_stalled", "TLS stall", ".*", "psycopg_pool", ("TLS",)),
            ("a_pool_whose_server_stalls_ends", "silent", ".*silent.*", "psycopg_pool", ()),
            ("a_pool_whose_server_stalls_ends", "drip", ".*drip.*", "psycopg_pool", ()),
            ("the_check_of_a_pool_ends", "pause", ".*", "psycopg_pool", ()),
            ("a_connection_of_the_pool_is", "reuse after cancel", ".*", "psycopg_pool", ()),
            ("rows_of_a_connection_of_the_pool", "streamed body", ".*", "psycopg_pool", ()),
            *(
                ("a_connection_of_the_pool_that_breaks", w, f".*{w}.*", "psycopg_pool", ())
                for w in BREAKS
            ),
        )
    ),
    Rule("asyncpg", "a_statement_that_was_ended_leaves", "reuse after cancel", ".*", "asyncpg"),
    Rule("asyncpg", "rows_that_are_streamed_end", "streamed body", ".*", "asyncpg"),
    Rule("mariadb", "rows_that_are_streamed_end", "streamed body", "(?P<who>[a-z]*)-.*"),
    Rule("mariadb", "rows_that_pymysql_streams_end", "streamed body", ".*", "PyMySQL"),
    Rule("databases", "connecting_ends", "black hole", ".*", "PyMySQL", "", _BOTH),
    Rule("databases", "a_dead_name_server_ends", "dead DNS", ".*", "PyMySQL", "", _BOTH),
    Rule("databases", "a_stalled_handshake_ends", "TLS stall", ".*", "PyMySQL", "", ("TLS",)),
    *(
        Rule("databases", "a_statement_ends", what, f".*{way}-{tls}", "PyMySQL", "", (name,))
        for what, way in (("silent", "stall"), ("drip", "drip"))
        for tls, name in (("False", "plain"), ("True", "TLS"))
    ),
    *(
        Rule(f"{library}_waits", function, what, parameters, library, "", transports)
        for library in ("asyncpg", "aiomysql", "asyncmy")
        for function, what, parameters, transports in (
            *(("what_the_client_waits_for_ends", w, f".*{w}.*", ()) for w in _POOLED),
            *(("an_answer_to_the_client", w, f".*{w}.*", ()) for w in BREAKS),
            ("a_stalled_handshake_of_the_client", "TLS stall", ".*", ("TLS",)),
            ("the_client_connects_into_a_black_hole", "black hole", ".*", _BOTH),
            ("a_dead_name_server_ends_for_the_client", "dead DNS", ".*", _BOTH),
        )
    ),
    *(
        Rule(module, f"{function}_that_breaks_off", what, parameters, adapter, "", transports)
        for what in ("reset", "truncated")
        for module, function, parameters, adapter, transports in (
            ("databases", "an_answer", f"{what}-False", "PyMySQL", ("plain",)),
            ("databases", "an_answer", f"{what}-True", "PyMySQL", ("TLS",)),
            ("psycopg", "an_answer", f".*{what}.*", "psycopg", ()),
            ("messaging", "a_greeting_of_a_broker", f"{what}-.*", "kombu", ()),
            ("messaging", "an_answer_to_paho", f"{what}-.*", "paho-mqtt", ()),
            ("stdlib", "an_answer", f".*{what}-(?P<who>.*)", "", ()),
        )
    ),
    # Brokers.
    Rule("messaging", "a_connect_into_a_black_hole_ends", "black hole", ".*", "kombu", "", _BOTH),
    Rule("messaging", "a_dead_name_server_ends", "dead DNS", "kombu-.*", "kombu", "", _BOTH),
    Rule("messaging", "a_dead_name_server_ends", "dead DNS", "paho-.*", "paho-mqtt", "", _BOTH),
    *(
        Rule("messaging", "a_broker_that_has_heard_", what, f"{what}-.*", "kombu")
        for what in ("silent", "drip")
    ),
    Rule("messaging", "a_handshake_with_a_broker", "TLS stall", ".*", "kombu", "", ("TLS",)),
    Rule("messaging", "the_pauses_between_tries", "pause", ".*", "kombu"),
    Rule(
        "messaging",
        "connecting_to_a_broker_ends",
        "black hole",
        ".*-connect",
        "paho-mqtt",
        "",
        _BOTH,
    ),
    Rule(
        "messaging",
        "connecting_to_a_broker_ends",
        "TLS stall",
        ".*-handshake",
        "paho-mqtt",
        "",
        ("TLS",),
    ),
    *(
        Rule("celery", "sending_to_a_broker_that_stalls", what, f"{what}-.*", "celery")
        for what in ("silent", "drip")
    ),
    *(
        Rule("celery", function, what, ".*", "celery", "", transports)
        for function, what, transports in (
            ("a_handshake_with_a_broker_that", "TLS stall", ("TLS",)),
            ("sending_into_a_black_hole_ends", "black hole", _BOTH),
            ("a_dead_name_server_ends", "dead DNS", _BOTH),
            ("the_pause_after_a_refusal", "pause", ()),
        )
    ),
    *(Rule("celery", "a_broker_that_breaks_off", what, f"{what}-.*", "celery") for what in BREAKS),
    # What is given a connection.
    *(
        Rule("given_waits", function, what, parameters, "", "", transports)
        for function, what, parameters, transports in (
            ("connecting_into_a_black_hole", "black hole", f"{_TAKES}-.*", _BOTH),
            ("a_dead_name_server_ends", "dead DNS", f"{_TAKES}-.*", _BOTH),
            ("a_stalled_handshake_ends", "TLS stall", f"{_TAKES}-.*", ("TLS",)),
            *(
                ("an_answer_that_does_not_come", w, f"{_TAKES}-.*{w}", ())
                for w in ("silent", "drip")
            ),
            *(("an_answer_that_breaks_off", w, f"{_TAKES}-.*{w}", ()) for w in BREAKS),
        )
    ),
    # The other clients of the standard library.
    *(
        Rule(
            "stdlib",
            "a_server_that_falls_silent",
            what,
            rf".*-{way}-(?P<who>.*)",
        )
        for what, way in (("silent", "stall"), ("drip", "drip"))
    ),
    *(
        Rule("stdlib", function, what, "(?:scope|cancel)-(?P<who>.*)", "", "", _BOTH)
        for function, what in (
            ("mail_and_ftp_to_a_name_that", "dead DNS"),
            ("mail_and_ftp_into_a_black_hole", "black hole"),
        )
    ),
    Rule("stdlib", "a_transfer_that_drips_ends", "streamed body", ".*", "ftp"),
    Rule(
        "stdlib",
        "a_stalled_handshake_with_a_mail",
        "TLS stall",
        "(?:scope|cancel)-(?P<who>[a-z]*).*",
        "",
        "",
        ("TLS",),
    ),
)

_REDIS = [
    f"{one}{kind}"
    for one in ("redis-py", "redis.asyncio")
    for kind in ("", ", cluster", ", Sentinel")
]
_LINES = ("smtp", "pop", "imap", "ftp")
_BROKERS = ("kombu", "celery", "paho-mqtt")
_GIVEN = ("pg8000", "websocket-client", "websockets", "paramiko")
_OF_ONE = ("http.client", "urllib.request", "xmlrpc.client", "PyMySQL", "psycopg", *_LINES, *_GIVEN)
_AWAITED_SQL = ("aiomysql", "asyncmy", "asyncpg")
_NOT_HTTP = (
    *_LINES,
    *_BROKERS,
    *_GIVEN,
    *_REDIS,
    *_AWAITED_SQL,
    "PyMySQL",
    "psycopg",
    "psycopg_pool",
)
LACKS: dict[str, tuple[str, ...]] = {
    "TLS stall": ("paramiko",),
    "silent": ("paho-mqtt",),
    "drip": ("paho-mqtt",),
    "queue": (*_OF_ONE, *_BROKERS, "botocore", *(one for one in _REDIS if "," in one)),
    "pause": (
        *(*_OF_ONE, *_AWAITED_SQL, "paho-mqtt", "aiohttp", "aiohttp over hardsock's TLS"),
        *(f"{way}-{one}" for way in _WAYS for one in ("httpx", "httpx2")),
    ),
    "early answer": _NOT_HTTP,
    "redirect": (*_NOT_HTTP, "http.client", "xmlrpc.client", "botocore", "httpcore"),
    "streamed body": (
        *(*_REDIS, *_BROKERS, "smtp", "pop", "imap", "xmlrpc.client"),
        *("pg8000", "websocket-client", "websockets"),
    ),
    "reuse after cancel": (
        *(*_LINES, *_BROKERS, *_GIVEN, "PyMySQL", "aiomysql", "asyncmy", "urllib.request"),
    ),
}
"""Which libraries have nothing of it that could be tested."""
UNSEEN = {"queue": ("httpcore",), "pause": ("redis-py, cluster",), "streamed body": ("paramiko",)}
"""Which have it, where no adapter can reach."""

Cells = dict[str, dict[str, dict[str, set[str]]]]  # adapter, what, transport: ends


def collect() -> list[str]:
    """The names of all tests of adapters, from the one who runs them."""
    done = subprocess.run(
        [sys.executable, *"-m pytest -q --collect-only -n 0 tests/adapters -m".split(), ""],
        cwd=common.ROOT,
        capture_output=True,
        text=True,
    )
    found = [line for line in done.stdout.splitlines() if "::" in line]
    if done.returncode or not found:
        raise RuntimeError(f"the tests could not be listed:\n{done.stdout[-2000:]}{done.stderr}")
    return found


def read(name: str) -> Iterator[tuple[str, str, str, str]]:
    """(adapter, what, transport, end) of one test; the end is "" where it is about none."""
    match = re.fullmatch(r".*?/test_(\w+)\.py::test_(\w+)(?:\[(.*)\])?", name)
    if match is None:
        return
    module, function, parameters = match.group(1), match.group(2), match.group(3) or ""
    words = re.split(r"-(?!hardsock)", parameters)
    for rule in RULES:
        if not re.fullmatch(rule.module, module) or not function.startswith(rule.function):
            continue
        found = re.fullmatch(rule.parameters or ".*", parameters)
        if found is None:
            continue
        adapter = rule.adapter or found.groupdict().get("who", "")
        transports = rule.transports or tuple(
            {"plain": "plain", "tls": "TLS"}[word] for word in words if word in ("plain", "tls")
        )
        told = [HOW[word] for word in words if word in HOW]
        for transport in transports or ("plain",):
            for end in told or list(rule.ends) or [""]:
                yield adapter, rule.what, transport, end


def cells(names: list[str]) -> Cells:
    """All that is tested."""
    made: Cells = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    for name in names:
        for adapter, what, transport, end in read(name):
            made[adapter][what][transport].add(end)
    return made


def ends_of(found: set[str]) -> str:
    return "".join(end for end in ALL_ENDS if end in found) or ("yes" if found else "")


def cell(adapter: str, what: str, made: Cells) -> str:
    if adapter in LACKS.get(what, ()):
        return "has none"
    if adapter in UNSEEN.get(what, ()):
        return "not covered"
    found = made[adapter].get(what)
    if not found:
        return ""
    plain, tls = ends_of(found.get("plain", set())), ends_of(found.get("TLS", set()))
    if what == "TLS stall":
        return tls
    return plain if plain == tls else f"{plain or '-'} / {tls or '-'}"


def table(names: list[str]) -> str:
    """Two tables in Markdown."""
    made, lines = cells(names), []
    for columns in (WAITS, ENDINGS):
        rows = [one for one in sorted(made, key=str.lower) if any(c in made[one] for c in columns)]
        lines += [f"| adapter | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
        for adapter in rows:
            lines.append(f"| {adapter} | {' | '.join(cell(adapter, c, made) for c in columns)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def written(names: list[str]) -> str:
    """The page with the table in it."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(names)}\n\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Which adapter is tested for which wait.")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--missing", action="store_true")
    args = parser.parse_args()
    names = collect()
    if args.write:
        PAGE.write_text(written(names))
    elif args.missing:
        made = cells(names)
        for adapter in sorted(made):
            for what in WAITS:
                said = cell(adapter, what, made)
                if said not in ("has none", "not covered") and (
                    what == "TLS stall" or "/" in said or said != ALL_ENDS
                ):
                    if said != ALL_ENDS:
                        print(f"{adapter}: {what}: {said or 'nothing'}")
            for what in ENDINGS:
                said = cell(adapter, what, made)
                if not said or "/" in said:
                    print(f"{adapter}: {what}: {said or 'nothing'}")
    else:
        print(table(names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
