"""Every block of the documents is run, parsed or listed here with the reason why it is neither.

A language has a check below, or pages whose own tests run it. What has neither fails: so does a
block without a language, and one that is only indented, which no test would see.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

import hardsock as hs
from hardsock.cli.main import _make_parser
from support.require import Unavailable, available, need_module, require
from support.servers import postgres

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(p for p in sorted((ROOT / "docs").rglob("*.md")) if p.parent.name != "reference"),
]
THEIRS = "what the reader has now: no hardsock in it, and names that are the reader's"
OWN_TEST = "the page's own test runs it"
# Python that test_docs.py does not run: it is parsed, and the names of hardsock in it exist.
UNRUN = {
    "docs/adapters-databases.md": "needs a server: test_what_needs_postgres_runs",
    "docs/guides/from-asyncio.md": THEIRS,
    "docs/guides/from-database-pools.md": THEIRS,
    "docs/guides/from-http-clients.md": THEIRS,
    "docs/guides/from-socket.md": THEIRS,
    "docs/guides/my-service-hangs.md": "the service as it hangs, before it is mended",
    "docs/lab.md": "modules and servers of the reader's, and an interface to listen on",
    "docs/serving.md": f"{OWN_TEST}: test_serving_page.py",
    "docs/threads.md": "needs gevent: test_what_needs_gevent_runs",
}
# Languages of other programs, by the pages whose tests give the blocks to these programs.
ELSEWHERE = {
    "c": ({"docs/c-api.md"}, "tests/py/test_c_api.py"),
    "dockerfile": ({"docs/deploying.md"}, "tests/serving/test_deploying.py"),
    "haproxy": ({"docs/deploying.md"}, "tests/serving/test_deploying.py"),
    "nginx": ({"docs/deploying.md"}, "tests/serving/test_deploying.py"),
    "{toctree}": ({"docs/index.md"}, "tests/isolated/test_docs_site.py"),
}
# Commands that are not run: words they begin with, and why.
NOT_RUN = {
    "echo metrics": "tests/py/test_inspect.py asks the socket",
    "socat": "tests/py/test_inspect.py asks the socket",
    "gunicorn": "tests/adapters run it",
    "docker stop": "tests/serving/test_deploying.py compares its time with the drain's",
    "hardsock-tune": "tests/tuning/test_tutorial.py runs it on a machine that is a folder",
    "make install": "tests/isolated/test_packaging.py installs",
    "ldconfig": "changes the machine",
    "cc": "tests/py/test_c_api.py compiles",
    "cat": "shows a file of tests/tuning/test_tutorial.py",
    "pip install hardsock": "nothing is on the index before the first release",
    "py-spy dump": "another project's program",
    "python app.py": "a program of the reader's; its environment is tried",
}
READS_ONLY = {"ss", "ls", "awk", "grep", "sort", "uniq", "head", "nstat"}


@dataclass
class Block:
    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    found: list[Block] = []
    fence = language = ""
    begin = 0
    lines: list[str] = []
    name = str(page.relative_to(ROOT))
    for number, line in enumerate(page.read_text().split("\n"), 1):
        mark = re.match(r"\s*(`{3,}|~{3,})(.*)", line)
        if fence and mark and mark[1] == fence:
            found.append(Block(name, begin, language, "\n".join(lines) + "\n"))
            fence = ""
        elif fence:
            lines.append(line)
        elif mark:
            fence, language, lines, begin = mark[1], mark[2].strip(), [], number
    assert not fence, f"{name}:{begin}: is not closed"
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def commands(block: Block) -> list[str]:
    """The lines that somebody types: all of ``sh``, and of ``console`` those behind a prompt."""
    text = block.text.replace("\\\n", "")
    if block.language == "sh":
        return [line for line in text.split("\n") if line]
    return [line[2:] for line in text.split("\n") if line.startswith("$ ")]


COMMANDS = [
    pytest.param(line, id=f"{block}-{at}")
    for block in of("sh", "console")
    for at, line in enumerate(commands(block))
]


def stages(line: str) -> list[list[str]]:
    """The words of each command of a line, without comments, ``sudo`` and the environment."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;"):
            found.append([])
        elif found[-1] or not (word == "sudo" or re.match(r"[A-Z_]+=", word)):
            found[-1].append(word)
    return found


def module_of(name: str) -> types.ModuleType:
    """The module, or a skip where the library that it adapts is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("hardsock"):
            raise
        need_module(exc.name)
        raise


def names_that_are_missing(tree: ast.AST) -> list[str]:
    """What a program takes from hardsock and hardsock does not have."""
    missing = []
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    imported = {
        ".".join(alias.name.split(".")[:2])
        for node in imports
        for alias in node.names
        if alias.name.startswith("hardsock.") and module_of(alias.name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hardsock":
            module = module_of(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    try:
                        importlib.import_module(f"{node.module}.{alias.name}")
                    except ImportError:
                        missing.append(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            whole = f"hardsock.{node.attr}"
            if node.value.id not in ("hs", "hardsock") or whole in imported:
                continue
            if not hasattr(hs, node.attr):
                missing.append(f"hs.{node.attr}")
    return missing


def parse(text: str) -> ast.AST:
    code = compile(text, "<block>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    assert isinstance(code, ast.AST)
    return code


def test_every_block_has_a_language_and_somebody_who_looks_at_it() -> None:
    seen_here = {"python", "py", "sh", "console", "ini", "yaml", "text"}
    lost = []
    for block in BLOCKS:
        pages, _ = ELSEWHERE.get(block.language, (set(), ""))
        in_docs = block.page.startswith("docs/") or block.page == "README.md"
        if block.language not in seen_here and block.page not in pages:
            lost.append(f"{block}: nobody looks at {block.language!r}")
        if block.language == "python" and not in_docs:
            lost.append(f"{block}: test_docs.py runs README.md and docs/ only")
        if block.language == "py" and block.page not in UNRUN:
            lost.append(f"{block}: not run, and no reason is given")
        if block.language == "text" and re.match(r"(\$ |import |from \w+ import )", block.text):
            lost.append(f"{block}: a program or a command that calls itself text")
        if block.language == "console" and not block.text.startswith("$ "):
            lost.append(f"{block}: begins with no command")
    assert lost == []


def test_the_reasons_are_those_of_blocks_that_exist() -> None:
    assert {block.page for block in of("py")} == set(UNRUN)
    for language, (pages, test) in ELSEWHERE.items():
        assert {block.page for block in of(language)} == pages
        assert (ROOT / test).exists()
    begun = [" ".join(words) for line in COMMANDS for words in stages(str(line.values[0]))]
    assert [one for one in NOT_RUN if not any(line.startswith(one) for line in begun)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_program_is_only_indented(page: Path) -> None:
    """Markdown takes four spaces for a block, too; nothing would run or parse it."""
    text = re.sub(r"^\s*```.*?^\s*```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = []
    in_list = False
    lines = text.split("\n")
    for before, line in zip(["", *lines], lines, strict=False):
        if re.match(r"\s*([-*+]|\d+\.) ", line):
            in_list = True
        elif line and not line.startswith(" "):
            in_list = False
        if line.startswith("    ") and not before.strip() and not in_list:
            found.append(line)
    assert found == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_of_prose_begins_as_something_else(page: Path) -> None:
    """A line broken before ``>`` is a quotation, and one before ``1.`` or ``-`` a list."""
    text = re.sub(r"^\s*```.*?^\s*```", "\n", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = text.split("\n")
    found = [line for line in lines if line.startswith(">")]
    for before, line in zip(["", *lines], lines, strict=False):
        begins = re.match(r"([-+*]|\d+[.)]|#{1,6}) |=+$|-+$", line)
        if begins and re.match(r"\w", before) and not re.match(r"\d+[.)] ", before):
            found.append(line)
    assert found == []


@pytest.mark.parametrize("block", of("py"), ids=str)
def test_python_that_is_not_run_is_python_and_its_names_exist(block: Block) -> None:
    assert names_that_are_missing(parse(block.text)) == []


def test_what_needs_gevent_runs() -> None:
    need_module("gevent")
    (block,) = (one for one in of("py") if one.page == "docs/threads.md")
    argv = [sys.executable, "-c", block.text]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "b'hello'\n"), done.stderr


def test_what_needs_postgres_runs() -> None:
    need_module("psycopg")
    (block,) = (one for one in of("py") if one.page == "docs/adapters-databases.md")
    with require(postgres()) as server:
        there = "host={} port={} user=postgres dbname=postgres".format(*server.address)
        text = block.text.replace("dbname=orders", there)
        assert text.count("select 1") == 1
        text = text.replace(
            'conn.execute("select 1")', 'print(conn.execute("select 1").fetchone())'
        )
        argv = [sys.executable, "-c", text]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (0, "(1,)\n"), done.stderr


def test_the_service_of_the_tutorial_passes_its_own_test_and_the_plugin(tmp_path: Path) -> None:
    """Beside it the same with a connection that is not given back: the page's test finds it."""
    page = "docs/guides/my-service-hangs.md"
    wanted = ("def make_service", "def ask", "def test_")
    blocks = [b.text for b in of("python") if b.page == page and any(w in b.text for w in wanted)]
    text = "import hardsock as hs\nfrom hardsock.lab import PeerScript\n" + "\n".join(blocks)
    kept = "            kept.append(hs.connect(silent.address, timeout=30))\n"
    (tmp_path / "test_service.py").write_text(text)
    (tmp_path / "test_leak.py").write_text(f"kept = []\n{text}{kept}")
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1
    assert "2 passed, 1 error" in done.stdout
    assert "test_leak.py::test_a_silent_backend_is_told_in_time left behind" in done.stdout


@pytest.mark.parametrize("block", of("ini"), ids=str)
def test_ini_is_read(block: Block) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_file(io.StringIO(block.text))
    assert parser.sections()


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml_is_read_and_rules_are_rules(block: Block) -> None:
    need_module("yaml")
    import yaml

    from hardsock.guard.rules_file import parse_rules

    document = yaml.safe_load(block.text)
    if "rules" in document:
        assert len(parse_rules(block.text)) == len(document["rules"])
    else:
        assert {"apiVersion", "kind"} <= document.keys()


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one_that_its_program_takes(line: str, tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", "-c", line], check=True)
    line = re.sub(r"\bPID\b", str(os.getpid()), line)
    every = stages(line)
    if {words[0] for words in every} <= READS_ONLY:
        look(line, every)
        return
    for words in every:
        if words[0] == "hardsock":
            takes(_make_parser(), words[1:])
        elif words[:2] == ["python3", "-c"]:
            assert names_that_are_missing(parse(words[2])) == []
        else:
            said = " ".join(words)
            assert [one for one in NOT_RUN if said.startswith(one)], f"no check for {said!r}"
    for spec in re.findall(r'\bHARDSOCK_FAULTS="([^"]+)"', line):
        env = {**os.environ, "HARDSOCK_FAULTS": spec.replace("/tmp", str(tmp_path))}
        subprocess.run([sys.executable, "-c", "import hardsock"], env=env, check=True, timeout=60)


def takes(parser: argparse.ArgumentParser, words: list[str]) -> None:
    try:
        parser.parse_args(words)
    except SystemExit as exc:
        pytest.fail(f"hardsock does not take {words}: {exc}")


def look(line: str, every: list[list[str]]) -> None:
    """Run what only reads, while this process has a connection: it finds something, without complaint."""
    with available():
        for words in every:
            if shutil.which(words[0]) is None:
                raise Unavailable(f"{words[0]} is not installed")
    with (
        hs.listen(("127.0.0.1", 0)) as listener,
        hs.connect(listener.address, timeout=30),
        listener.accept(timeout=30),
    ):
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    if every[0][0] == "nstat":
        told = {row.split()[0] for row in done.stdout.split("\n") if row and row[0] != "#"}
        assert told == {word for word in every[0][1:] if not word.startswith("-")}
