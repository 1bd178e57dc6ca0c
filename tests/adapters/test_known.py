"""``hardsock explain --adapters``, and that it says what the documents and the modules say."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hardsock.adapters
from hardsock.__main__ import main
from hardsock.adapters import _known
from support.require import need_module

ROOT = Path(__file__).resolve().parents[2]
PAGE = "".join(one.read_text() for one in sorted((ROOT / "docs").glob("adapters*.md")))


def _shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["explain", "--adapters", *arguments]) == 0
    return capsys.readouterr().out


def test_it_lists_what_is_installed_and_the_line_to_write(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_known, "REFUSED", ())
    shown = _shown(capsys)
    assert re.search(
        r"^requests 2\.\d+\.\d+\n  write   session = hardsock\.adapters\.requests\.session\(total=10\)\n"
        r"  covers  all\n  lost    SOCKS4 proxies\n",
        shown,
        re.MULTILINE,
    )
    assert "\nsmtplib\n  write   from hardsock.adapters.smtplib import SMTP\n" in shown
    assert "psycopg2 " not in shown


def test_what_is_refused_is_told_where_it_is_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"psycopg2": "2.9.9", "urllib3": "2.99.0"}
    monkeypatch.setattr(_known, "_installed", versions.get)
    shown = _shown(capsys)
    assert "psycopg2 2.9.9\n  cannot  its C library" in shown
    assert "  rather  psycopg 3\n" in shown
    assert "urllib3 2.99.0\n" in shown
    assert "  beware  tested with 2.0 to 2.8 only\n" in shown
    assert "requests" not in shown.partition("psycopg2")[0].splitlines()[0]


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(_shown(capsys, "--json"))
    by_name = {one["library"]: one for one in found["adapters"]}
    assert by_name["redis"]["tested"] is True
    assert by_name["urllib3"]["line"].startswith("http = ")
    assert {one["library"] for one in found["refused"]} <= {"grpcio"}


def test_an_address_or_adapters_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["explain"], ["explain", "x:1", "--adapters"]):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        assert caught.value.code == 2
    capsys.readouterr()


def test_the_table_of_what_is_tested_is_what_the_tests_say() -> None:
    for module in ("cryptography", "psycopg", "psycopg_pool"):
        need_module(module)  # Without it whole files are not listed.
    tool = ROOT / "tools/adapter_contract.py"
    done = subprocess.run([sys.executable, tool], capture_output=True, text=True)
    if done.returncode and os.environ.get("CI") != "true":
        pytest.skip("not all libraries are installed, so the tests cannot be listed")
    assert done.returncode == 0, done.stderr
    begin, end = "<!-- contract: begin -->", "<!-- contract: end -->"
    said = PAGE.partition(begin)[2].partition(end)[0]
    assert said.strip() == done.stdout.strip(), "run tools/adapter_contract.py --write"
    assert "|  |" not in said, (
        "a cell is empty: test it, or say in the tool what the library has not"
    )


@pytest.mark.parametrize("one", _known.ADAPTERS, ids=lambda one: one.library)
def test_the_page_and_the_module_say_the_same(one: _known.Adapter) -> None:
    names = {"redis": "redis-py", "psycopg": "psycopg 3"}
    assert names.get(one.library, one.library) in PAGE
    module = re.search(r"hardsock\.adapters\.(\w+)", one.line)
    if module is None:
        return
    try:
        loaded = importlib.import_module(f"hardsock.adapters.{module[1]}")
    except ModuleNotFoundError as exc:
        need_module(str(exc.name))
        raise
    for name in re.findall(rf"adapters\.{module[1]}\.(\w+)|import (\w+)$", one.line):
        assert hasattr(loaded, "".join(name))
    if one.oldest != one.newest and one.newest:
        assert f"{one.oldest} to {one.newest}" in (loaded.__doc__ or "")
        (row,) = (
            line for line in PAGE.splitlines() if one.line.split("(")[0] in line and line[0] == "|"
        )
        assert one.oldest in row
        assert one.newest in row


@pytest.mark.parametrize(
    "one", [one for one in _known.ADAPTERS if one.newest], ids=lambda one: one.library
)
def test_the_versions_of_the_page_are_those_that_are_run(one: _known.Adapter) -> None:
    """tools/check_adapters.py takes them from the same place, and runs both ends."""
    name = {"redis": "redis-py", "psycopg": "psycopg 3"}.get(one.library, one.library)
    page = (ROOT / "docs/adapters.md").read_text().partition("## What is tested")[0]
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    said = [row[-2].strip() for row in rows if name in row[1].strip().split(", ")]
    wanted = one.newest if one.oldest == one.newest else f"{one.oldest} to {one.newest}"
    assert any(wanted == cell or f"{one.library} {wanted}" in cell.split(", ") for cell in said)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("gunicorn", "gunicorn"),
        ("hypercorn", "uvicorn"),  # The page has "the same" in its row.
        ("paramiko", "paramiko"),
        ("pg8000", "pg8000"),
        ("uvicorn", "uvicorn"),
        ("websocket-client", "websocket-client"),
        ("websockets", "websockets"),
    ],
)
def test_what_is_covered_is_said_in_the_words_of_the_page(name: str, row: str) -> None:
    """No more than that: ``all`` was said of servers, and "its own TLS" of what needs none."""
    (one,) = (one for one in _known.ADAPTERS if one.library == name)
    rows = (line for line in PAGE.splitlines() if line.startswith(f"| {row}"))
    said = " | ".join(rows).replace("[the event loop](adapters-asyncio.md): ", "")
    assert f"| {one.waits}" in said


@pytest.mark.parametrize("one", _known.REFUSED, ids=lambda one: one.library)
def test_the_page_tells_of_what_is_refused(one: _known.Refused) -> None:
    assert one.library.removesuffix("-binary") in PAGE


def test_hardsock_imports_no_library_and_no_adapter() -> None:
    code = (
        "import sys, hardsock, hardsock.adapters, hardsock.adapters._known as k\n"
        "k.report(False)\n"
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('requests', 'urllib3', 'redis', 'psycopg', 'pymysql') "
        "or m in ('http.client', 'smtplib', 'ftplib')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
    assert hardsock.adapters.UntestedVersionWarning
