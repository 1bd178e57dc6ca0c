"""What the release is made with: the parts that need no compiler and no other system.

`make wheel` and `make debian` build and try the packages; here is what can be wrong before that.
"""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

import hardsock as hs
from hardsock.lab import Unavailable
from hardsock.lab.servers.process import clean_environment
from support.require import available, need_module

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"packaging_{name}", PACKAGING / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- one version


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("debian/changelog", r"^hardsock \((\S+)\)"),
        ("packaging/hardsock.spec", r"^Version: +(\S+)$"),
        ("packaging/conda/recipe.yaml", r"^  version: (\S+)$"),
    ],
)
def test_each_package_has_the_version_of_the_header(file: str, pattern: str) -> None:
    found = re.search(pattern, (ROOT / file).read_text(), re.M)
    assert found is not None
    assert found[1].replace("~", ".") == hs.__version__


def test_the_library_package_has_the_name_of_its_abi() -> None:
    abi = re.search(r"^#define HS_ABI (\d+)", (ROOT / "csrc/include/hardsock.h").read_text(), re.M)
    assert abi is not None
    assert f"Package: libhardsock{abi[1]}\n" in (ROOT / "debian/control").read_text()
    assert f"libhardsock.so.{abi[1]}" in (ROOT / f"debian/libhardsock{abi[1]}.install").read_text()
    assert f"%global soversion {abi[1]}\n" in (PACKAGING / "hardsock.spec").read_text()


def test_debians_list_of_symbols_is_that_of_the_library(tmp_path: Path) -> None:
    """The package's build fails where one has come or gone (debian/rules: -c4)."""
    library = ROOT / "build/release/libhardsock.so"
    if not library.exists():
        pytest.skip("make lib builds it")
    with available():
        if shutil.which("dpkg-gensymbols") is None:
            raise Unavailable("dpkg-gensymbols is not installed (Debian: dpkg-dev)")
    (tmp_path / "debian").mkdir()
    for name in ("control", "changelog", "libhardsock0.symbols"):
        shutil.copy2(ROOT / "debian" / name, tmp_path / "debian")
    kept = tmp_path / "debian/libhardsock0.symbols"

    def said() -> tuple[int, str]:
        made = tmp_path / "made"
        made.unlink(missing_ok=True)  # It would be what is compared with.
        command = [
            "dpkg-gensymbols",
            "-plibhardsock0",
            "-c4",
            f"-e{library.resolve()}",
            f"-O{made}",
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout

    assert said()[0] == 0
    text = kept.read_text()
    kept.write_text(text.replace(" hs_version@", " hs_was_there@"))
    state, text = said()
    assert state != 0
    assert re.search(r"^\+#MISSING: .* hs_was_there@Base", text, re.M)
    assert re.search(r"^\+ hs_version@Base", text, re.M)


def test_the_spec_parses_and_names_its_packages() -> None:
    with available():
        if shutil.which("rpmspec") is None:
            raise Unavailable("rpmspec is not installed (Debian: rpm)")
    command = ["rpmspec", "-q", "--queryformat", "%{name} %{version}\\n"]
    done = subprocess.run(
        [*command, PACKAGING / "hardsock.spec"],
        capture_output=True,
        text=True,
        timeout=120,
        env=clean_environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")
    packages = ("hardsock", "python3-hardsock", "libhardsock", "libhardsock-devel", "hardsock-tune")
    version = hs.__version__.replace(".dev", "~dev")
    assert sorted(done.stdout.splitlines()) == sorted(f"{name} {version}" for name in packages)


def test_the_conda_recipe_has_what_a_build_needs() -> None:
    """`make conda` has rattler-build read it, build by it and run its tests."""
    need_module("yaml")
    yaml = importlib.import_module("yaml")
    recipe = yaml.safe_load((PACKAGING / "conda/recipe.yaml").read_text())
    assert recipe["package"] == {"name": "hardsock", "version": "${{ version }}"}
    assert (PACKAGING / "conda" / recipe["source"]["path"] / "pyproject.toml").is_file()
    host, run = (set(recipe["requirements"][part]) for part in ("host", "run"))
    assert {"openssl", "python", "yaml"} <= host  # conda-forge's libyaml is called so
    assert run - {"ca-certificates"} <= host
    build = re.search(r'^requires = \["(\S+)"\]$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert build is not None
    assert build[1].replace(">=", " >=") in host


def test_openssl_names_itself() -> None:
    assert re.fullmatch(r"OpenSSL \d+\.\d+\.\d+\S* .+", hs.openssl_version())


def test_the_page_of_the_index_has_no_link_that_needs_the_repository(tmp_path: Path) -> None:
    program = (
        "import sys, setuptools.build_meta as b; b.prepare_metadata_for_build_wheel(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (metadata,) = tmp_path.glob("*/METADATA")
    text = metadata.read_text()
    assert "Description-Content-Type: text/markdown" in text
    (source,) = re.findall(r"^Project-URL: Source, (.+)$", text, re.M)
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert f"{source}docs/index.md" in links
    assert [one for one in links if not one.startswith("https://")] == []


# ---- the changelog


def test_fragments_become_the_section_of_a_release(tmp_path: Path) -> None:
    changelog = _tool("changelog")
    for name, text in {
        "7.added.md": "- Seven.\n",
        "12.added.md": "- Twelve.\n",
        "3.fixed.md": "- Three.\n",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "README.md").write_text("no fragment")
    before = "# Changelog\n\n## Unreleased\n\n### Added\n\n- Before.\n\n## 0.0.9 (2026-01-01)\n\n- Old.\n"
    gathered = changelog.gather(before, changelog.fragments(tmp_path))
    after = changelog.release(before, "0.1.0", "2026-02-03", gathered)
    assert after == (
        "# Changelog\n\n## Unreleased\n\n## 0.1.0 (2026-02-03)\n\n"
        "### Added\n\n- Before.\n- Seven.\n- Twelve.\n\n### Fixed\n\n- Three.\n\n"
        "## 0.0.9 (2026-01-01)\n\n- Old.\n"
    )


def test_every_fragment_of_the_repository_has_a_place() -> None:
    changelog = _tool("changelog")
    assert changelog.fragments(ROOT / "changelog.d") is not None
    assert changelog.gather((ROOT / "CHANGELOG.md").read_text(), [])


def test_a_fragment_without_a_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "7.news.md").write_text("- Seven.\n")
    with pytest.raises(ValueError, match=r"7\.news\.md: no name of a fragment: ISSUE\.KIND\.md"):
        _tool("changelog").fragments(tmp_path)


# ---- what is linked in


def _archives(folder: Path) -> tuple[ModuleType, dict[str, str]]:
    """The tool, and a release that is expected to be the file a.tar.gz in the folder."""
    folder.mkdir()
    pin = {
        "version": "1.2.3",
        "upstream": "http://127.0.0.1:1/a.tar.gz",
        "debian": "none/b.orig.tar.gz",
        "sha256": hashlib.sha256(b"the release").hexdigest(),
    }
    return _tool("static_libs"), pin


def test_an_archive_is_taken_from_the_folder_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, pin = _archives(tmp_path / "archives")
    (tmp_path / "archives/a.tar.gz").write_bytes(b"the release")
    monkeypatch.setenv("HARDSOCK_ARCHIVES", str(tmp_path / "archives"))
    tool.fetch("thing", pin, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"the release"


def test_an_archive_with_another_checksum_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, pin = _archives(tmp_path / "archives")
    (tmp_path / "archives/a.tar.gz").write_bytes(b"something else")
    monkeypatch.setenv("HARDSOCK_ARCHIVES", str(tmp_path / "archives"))
    monkeypatch.setattr(tool, "debian_mirror", lambda: None)
    with pytest.raises(tool.StaticError) as caught:
        tool.fetch("thing", pin, tmp_path / "got")
    assert hashlib.sha256(b"something else").hexdigest() in str(caught.value)
    assert f"no thing 1.2.3 with SHA-256 {pin['sha256']}" in str(caught.value)
    assert "127.0.0.1:1/a.tar.gz: [Errno 111] Connection refused" in str(caught.value)


def test_setup_names_the_tool_that_makes_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-temp", str(tmp_path)]
    environment = os.environ | {"HARDSOCK_STATIC": str(tmp_path / "none")}
    done = subprocess.run(
        [*command, "--build-lib", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 1
    assert (
        f"no lib/libssl.a there; packaging/static_libs.py {tmp_path}/none makes it." in done.stderr
    )


def test_a_bare_machine_is_told_all_that_is_missing_at_once(tmp_path: Path) -> None:
    """Nothing is compiled before: the first thing said is not that some program was not found."""
    (tmp_path / "bin").mkdir()
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(tmp_path / "lib")]
    environment = os.environ | {"CC": "no-such-compiler", "PATH": str(tmp_path / "bin")}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)
    assert done.returncode == 1
    assert "\nhardsock cannot be built here. Missing:\n" in f"\n{done.stderr}"
    asked = re.findall(r": apt install (\S+) \| dnf install \S+ \| apk add \S+$", done.stderr, re.M)
    assert set(asked) == {"gcc", "make", "libc6-dev", "python3-dev", "libssl-dev", "libyaml-dev"}


# ---- the wheel


def test_the_sbom_says_what_is_linked_in() -> None:
    text = json.loads(_tool("repair").sbom("1.2.3"))
    pinned = json.loads((PACKAGING / "pinned.json").read_text())
    assert {c["name"]: c["version"] for c in text["components"]} == {
        name: pin["version"] for name, pin in pinned.items()
    }
    for component in text["components"]:
        assert component["version"] in component["purl"]
        assert component["version"] in component["cpe"]
        (hashed,) = component["hashes"]
        assert re.fullmatch(r"[0-9a-f]{64}", hashed["content"])
    refs = {text["metadata"]["component"]["bom-ref"], *(c["bom-ref"] for c in text["components"])}
    assert {d["ref"] for d in text["dependencies"]} == refs


def _folder(top: Path) -> Path:
    for name, text in {"pkg/a.py": "a = 1\n", "pkg-1.dist-info/METADATA": "Name: pkg\n"}.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    return top


def test_the_record_of_a_wheel_is_true(tmp_path: Path) -> None:
    repair = _tool("repair")
    repair.write_wheel(_folder(tmp_path / "folder"), tmp_path / "one.whl")
    with zipfile.ZipFile(tmp_path / "one.whl") as archive:
        rows = list(csv.reader(archive.read("pkg-1.dist-info/RECORD").decode().splitlines()))
        assert {row[0] for row in rows} == set(archive.namelist())
        for name, digest, size in rows[:-1]:
            assert len(archive.read(name)) == int(size)
            assert digest.startswith("sha256=")
        assert rows[-1] == ["pkg-1.dist-info/RECORD", "", ""]


def test_a_wheel_that_is_made_twice_is_the_same(tmp_path: Path) -> None:
    repair = _tool("repair")
    for name in ("one", "two"):
        repair.write_wheel(_folder(tmp_path / name), tmp_path / f"{name}.whl")
    assert (tmp_path / "one.whl").read_bytes() == (tmp_path / "two.whl").read_bytes()


def test_a_program_that_is_not_stripped_is_seen(tmp_path: Path) -> None:
    sections = _tool("try_wheel").sections
    program = tmp_path / "program"
    source = "int main(void) { return 0; }\n"
    subprocess.run(["cc", "-g", "-xc", "-", "-o", program], input=source, text=True, check=True)
    whole = sections(program.read_bytes())
    assert {".text", ".symtab", ".debug_info"} <= whole
    subprocess.run(["strip", "--strip-unneeded", program], check=True)
    assert whole - sections(program.read_bytes()) >= {".symtab", ".debug_info"}


# ---- what users may rely on


def test_what_has_gone_or_changed_is_told_apart_from_what_has_come() -> None:
    interfaces = _tool("interfaces")
    before = ["python hardsock.connect(address, *, timeout=None)", "c call int hs_a(void)", "c b"]
    after = ["c b", "python hardsock.connect(address, *, timeout=30)", "python hardsock.new()"]
    assert interfaces.differences(before, after) == (before[:2], after[1:], [])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("python f(a, *, b=1)", "python f(a, *, b=1, c=None)"),
        ("python f(a, *, b=1)", "python f(a, *, c=None, b=1)"),
        ("python f(a, *, b=1)", "python f(a, c=None, *, b=1)"),
        ("python f(a, b=(1, 2))", "python f(a, b=(1, 2), c='(', *, d={})"),
        ("python f()", "python f(*, a=<sentinel>)"),
        ("python f(a='b,c')", "python f(a='b,c', d=1)"),
        ("python C(a)", "python C(a, *, b=1)"),
        ("python f(a, *args)", "python f(a, *args, b=None)"),
    ],
)
def test_a_parameter_that_can_be_left_out_takes_nothing_away(before: str, after: str) -> None:
    assert _tool("interfaces").differences([before], [after]) == ([], [], [(before, after)])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("python f(a)", "python f(a, b)"),
        ("python f(a)", "python f(a, *, b)"),
        ("python f(a, b=1)", "python f(a, c=None, b=1)"),
        ("python f(a, b=1)", "python f(a, *, b=1)"),
        ("python f(a, b=1)", "python f(a, b=2)"),
        ("python f(a, b=1)", "python f(a)"),
        ("python f(a)", "python f"),
        ("python f(a, *args)", "python f(a, b=None, *args)"),
        ("python f", "python f(a=1)"),
        ("python f(a)", "python g(a)"),
    ],
)
def test_what_a_call_of_before_would_feel_is_a_change(before: str, after: str) -> None:
    assert _tool("interfaces").differences([before], [after]) == ([before], [after], [])


def test_every_line_of_the_table_is_taken_apart_and_is_its_own_growth() -> None:
    interfaces = _tool("interfaces")
    lines = interfaces.TABLE.read_text().splitlines()
    assert len(lines) > 1000
    assert interfaces.differences(lines, lines) == ([], [], [])
    for line in lines:
        if line.startswith("python ") and "(" in line and "(..." not in line:
            name, parameters = interfaces.split(line)
            assert f"{name}({', '.join(parameters)})" == line


def test_the_release_stops_where_something_was_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interfaces = _tool("interfaces")
    monkeypatch.setattr(interfaces, "TABLE", tmp_path / "interfaces.txt")
    monkeypatch.setattr(interfaces, "now", lambda: ["python hardsock.connect(address)"])
    monkeypatch.setattr(
        interfaces, "last_table", lambda: ("v0", interfaces.TABLE.read_text().splitlines())
    )
    assert interfaces.main(["record"]) == 0
    assert interfaces.main(["diff"]) == 0
    assert interfaces.main(["check"]) == 0
    with interfaces.TABLE.open("a") as table:
        table.write("python hardsock.was_there_once(a)\n")
    monkeypatch.setattr(interfaces, "version_of", lambda _root: "0.1.0.dev0")
    assert interfaces.main(["check"]) == 0
    said = capsys.readouterr().out
    assert "lacks 0 lines of this tree, and has 1 that are not of it" in said
    assert "this is 0.1.0.dev0: nothing is owed before the commit of the release" in said
    monkeypatch.setattr(interfaces, "version_of", lambda _root: "0.1.0")
    assert interfaces.main(["check"]) == 1
    assert "0.1.0, a release: run interfaces.py record" in capsys.readouterr().out
    assert interfaces.main(["diff"]) == 1
    said = capsys.readouterr().out
    assert "- python hardsock.was_there_once(a)\n" in said
    assert "hardsock.was_there_once has gone or changed, and the changelog does not say so" in said
    monkeypatch.setattr(interfaces, "told_of", lambda _root: "`hs.was_there_once` is gone.")
    assert interfaces.main(["diff"]) == 0


def test_each_name_that_went_is_asked_for_in_the_changelog() -> None:
    interfaces = _tool("interfaces")
    gone = [
        "python hardsock.Old is tuple",
        "python hardsock.Old(a)",
        "python hardsock.Old.a",
        "python hardsock.Pool.acquire(self)",
        "c call hs_err hs_conn_recv(struct hs_conn *c)",
        "c struct hs_span 8 a@0+8",
    ]
    after = ["python hardsock.Pool is a class", "python hardsock.Pool.acquire(self, a)"]
    wanted = ["hardsock.Old", "hardsock.Pool.acquire", "hs_conn_recv", "hs_span"]
    assert interfaces.untold(gone, after, "### Changed\n- Something else.") == wanted
    told = "`Old` and `hs_span` are gone; `Pool.acquire()` takes *a*."
    assert interfaces.untold(gone, after, told) == ["hs_conn_recv"]


def test_what_users_are_told_is_the_coming_section_and_the_fragments(tmp_path: Path) -> None:
    interfaces = _tool("interfaces")
    for folder in ("csrc/include", "changelog.d"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "csrc/include/hardsock.h").write_text('#define HS_VERSION "0.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## 0.2.0 (2027)\n\n### Added\n\n- new\n\n### Removed\n\n- gone\n\n"
        "## 0.1.0 (2026)\n\n### Removed\n\n- earlier\n"
    )
    for kind in ("added", "changed", "deprecated"):
        (tmp_path / f"changelog.d/7.{kind}.md").write_text(f"- is {kind}\n")
    told = interfaces.told_of(tmp_path)
    words = {word for word in ("new", "gone", "earlier", "is added") if word in told}
    assert (words, "is changed" in told, "is deprecated" in told) == ({"gone"}, True, True)


def test_what_is_compared_with_is_the_table_of_the_last_tag_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interfaces = _tool("interfaces")
    monkeypatch.setattr(interfaces, "ROOT", tmp_path)
    table = tmp_path / "packaging/interfaces.txt"
    monkeypatch.setattr(interfaces, "TABLE", table)
    table.parent.mkdir()

    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    tables = {}
    for version in ("v0.1.0", "v0.2.0"):
        table.write_text(f"python hardsock.of_{version}\n")
        git("add", ".")
        git("commit", "-qm", version)
        tables[version] = interfaces.last_table()
        git("tag", version)
    assert tables["v0.1.0"][0].endswith("there is no tag")
    assert tables["v0.2.0"] == ("v0.1.0", ["python hardsock.of_v0.1.0"])
    assert interfaces.last_table() == tables["v0.2.0"]  # At a tag: what was before it.
    git("commit", "-q", "--allow-empty", "-m", "later")
    assert interfaces.last_table() == ("v0.2.0", ["python hardsock.of_v0.2.0"])


def test_the_table_has_every_public_module() -> None:
    interfaces = _tool("interfaces")
    listed = set(re.findall(r"^## `([\w.]+)`", (ROOT / "docs/api.md").read_text(), re.M))
    assert set(interfaces.modules()) | {"hardsock.compat.socket"} >= listed
    table = interfaces.TABLE.read_text()
    silent = [
        name
        for name in listed - {"hardsock.compat.socket"}
        if not re.search(rf"^python {re.escape(name)}\.[A-Za-z]", table, re.M)
    ]
    assert silent == []


def test_the_table_of_the_last_release_has_both_languages() -> None:
    table = _tool("interfaces").TABLE.read_text()
    assert re.search(r"^python hardsock\.Pool\.acquire\(self, /, \*, timeout=None", table, re.M)
    assert re.search(r"^c call hs_err hs_conn_recv\(", table, re.M)


def test_a_class_is_described_by_its_bases_parameters_and_members() -> None:
    interfaces = _tool("interfaces")
    lines = list(interfaces.describe("hardsock.Truncated", hs.Truncated))
    assert lines[0] == "hardsock.Truncated is SocketError, EOFError"
    assert "hardsock.Truncated.bytes_done" in lines
    assert list(interfaces.describe("f", lambda a, /, b=1, *, c: None)) == ["f(a, /, b=1, *, c)"]


def test_the_source_archive_has_what_builds_tests_and_explains() -> None:
    """Distributions build from it, and run the suite: every folder of the repository is in it."""
    lines = (ROOT / "MANIFEST.in").read_text().split("\n")
    words = [word for line in lines for word in line.split()]
    shown = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if shown.returncode != 0:
        pytest.skip("not a checkout")
    tops = {path.split("/")[0] for path in shown.stdout.split()}
    by_setuptools = {"pyproject.toml", "setup.py", "README.md", "MANIFEST.in"}
    of_the_repository = {"reports"}
    missing = {
        top
        for top in tops - by_setuptools - of_the_repository
        if not top.startswith(".") and not any(fnmatch.fnmatch(top, word) for word in words)
    }
    assert missing == set()


def test_the_page_on_fragments_names_each_kind_that_is_taken() -> None:
    said = (ROOT / "changelog.d/README.md").read_text()
    kinds = re.findall(r"<((?:\w+\|)+\w+)>", said)[0].split("|")
    assert kinds == [heading.lower() for heading in _tool("changelog").HEADINGS]


def test_a_base_that_is_ours_alone_is_no_part_of_the_interface() -> None:
    hidden = type("_Hidden", (tuple,), {"__module__": "hardsock._records"})
    cls = type("Shown", (hidden,), {"__module__": "hardsock._records"})
    assert next(iter(_tool("interfaces").describe("Shown", cls))) == "Shown is tuple"


def test_what_tests_run_is_installed_with_the_other_peers() -> None:
    """`./bootstrap packages`, which other platforms use, leaves out what only looks at sources."""
    text = (ROOT / "bootstrap").read_text()
    checkers = text.partition("look_for_checkers() {")[2].partition("\n}\n")[0]
    only_checkers = set(re.findall(r"want cmd (\S+)", checkers))
    wanted = set()
    for file in (ROOT / "tests").rglob("*.py"):
        for call in re.findall(r"\b(?:find_program|need)\(([^()]*)\)", file.read_text()):
            wanted |= set(re.findall(r'"([a-z][\w.-]*)"', call))
    assert {"nginx", "mandoc"} <= wanted
    assert wanted & only_checkers == set()
