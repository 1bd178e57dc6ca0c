"""The documents say what is true: examples run, links lead somewhere, named tests exist."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hardsock as hs
import hardsock.aio
from support.pki import CLIENT, make_authority
from support.require import Unavailable, available

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which examples run: they find ca.pem, and a server's and a client's files."""
    directory = tmp_path_factory.mktemp("examples")
    authority = make_authority(directory, "ca")
    authority.issue(file="server")
    authority.issue(("alice.example",), file="client", usages=CLIENT)
    return directory


def _python_blocks(document: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)


def _output_of(code: str, directory: Path) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=240,  # a guard: importing requests has taken a minute on a busy machine
        cwd=directory,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_readme_example_runs(files: Path) -> None:
    output = _output_of(_python_blocks(ROOT / "README.md")[0], files)
    assert "11 bytes so far, none lost" in output
    assert "b'half a message'" in output


def test_the_line_for_requests_in_the_readme_ends_a_drip(files: Path) -> None:
    blocks = _python_blocks(ROOT / "README.md")
    assert len(blocks) == 2
    assert "Read timed out" in _output_of(blocks[1], files)


def test_the_readme_is_short_and_quotes_only_figures_of_the_board() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 1000  # about 900, and the commands
    measured = text.partition("## How fast\n")[2].partition("\n## ")[0]
    figures = re.findall(r"\d+\.\d+", measured)
    assert len(figures) >= 4
    assert [one for one in figures if not is_on("docs/benchmarks.md", one)] == []


def is_on(page: str, figure: str) -> bool:
    return re.search(rf"\b{re.escape(figure)}\b", (ROOT / page).read_text()) is not None


def test_what_is_compared_quotes_figures_that_were_measured() -> None:
    text = (ROOT / "docs/compared.md").read_text().partition("## Where they are better\n")[2]
    figures = re.findall(r"(?<!Python )\b\d+\.\d\d\b", text)
    assert len(figures) > 10
    pages = ("docs/benchmarks.md", "docs/speed.md")
    assert [one for one in figures if not any(is_on(page, one) for page in pages)] == []


def test_nothing_else_is_installed() -> None:
    wanted = importlib.metadata.requires("hardsock") or []
    assert wanted  # the extras
    assert [one for one in wanted if "extra ==" not in one] == []


def test_what_else_the_readme_says_is_said_there_in_these_words() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    page = (ROOT / "docs/promises.md").read_text().partition("## What else the README says\n")[2]
    rows = re.findall(r"^\| (.+?) \| (?=\[)", page, re.MULTILINE)
    assert len(rows) > 10
    assert [row for row in rows if row not in readme] == []


def _guides() -> list[Path]:
    return [p for p in sorted((ROOT / "docs").rglob("*.md")) if "```python" in p.read_text()]


@pytest.mark.parametrize("guide", _guides(), ids=lambda path: path.name)
def test_examples_of_guides_run(guide: Path, files: Path) -> None:
    """All blocks of a page are one program: later ones go on with what earlier ones made."""
    _output_of("\n".join(_python_blocks(guide)), files)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("http"):
            assert not target.startswith("reference/"), f"{target} is made for the site only"
            assert (document.parent / target).exists(), target


def _anchors(page: Path) -> set[str]:
    """What GitHub and the site make of a page's headings."""
    text = re.sub(r"^\s*```.*?^\s*```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found: dict[str, int] = {}
    anchors = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", heading.strip().lower())
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        again = found.get(anchor, 0)
        found[anchor] = again + 1
        anchors.add(f"{anchor}-{again}" if again else anchor)
    return anchors


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_headings(document: Path) -> None:
    text = re.sub(r"^\s*```.*?^\s*```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    lost = []
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", text):
        page = document.parent / target if target else document
        if (
            not target.startswith("http")
            and page.suffix == ".md"
            and page.parent.name != "reference"
        ):
            lost += [] if anchor in _anchors(page) else [f"{target}#{anchor}"]
    assert lost == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_a_document_names_exists(document: Path) -> None:
    links = re.findall(r"\[`(\w+)`\]\(([^)#]*tests/[^)#]+)\)", document.read_text())
    assert len(links) > 10 or document.name != "promises.md"
    for name, file in links:
        text = (document.parent / file).read_text()
        assert re.search(rf"(def|START_TEST)[ (]{name}\b", text), (name, file)


def test_every_setting_that_scaling_names_can_be_explained() -> None:
    text = (ROOT / "docs" / "scaling.md").read_text()
    keys = sorted(set(re.findall(r"`((?:net|fs|vm|kernel)\.[\w.-]+)`", text)))
    assert len(keys) > 10
    with available():
        tune = shutil.which("hardsock-tune", path=Path(sys.executable).parent)
        if tune is None:
            raise Unavailable("hardsock-tune is not built")
    subprocess.run([tune, "explain", *keys], check=True, stdout=subprocess.DEVNULL, timeout=60)


def test_every_adr_has_its_four_parts() -> None:
    for adr in (ROOT / "docs" / "adr").glob("0*.md"):
        text = adr.read_text()
        for part in ("Context", "Decision", "Consequences", "What would change our mind"):
            assert f"**{part}.**" in text, (adr.name, part)


def test_the_index_of_decisions_has_each_with_its_title_and_status() -> None:
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    rows = re.findall(r"^\| \[(\d+)\]\(([\w.-]+)\) \| (.+) \| (.+) \|$", index, re.MULTILINE)
    numbers = [int(number) for number, *_ in rows]
    assert numbers == sorted(set(numbers))
    expected = []
    for adr in sorted((ROOT / "docs" / "adr").glob("0*.md")):
        heading = re.match(r"# (\d+)\. (.+)\n", adr.read_text())
        assert heading, f"{adr.name}: begins with no '# number. title'"
        assert int(heading[1]) == int(adr.name[:4]), adr.name
        expected.append((heading[1], adr.name, heading[2]))
    assert [row[:3] for row in rows] == expected, "docs/adr/README.md: a row for each, in order"
    for number, _, _, status in rows:
        assert re.fullmatch(r"accepted|withdrawn|superseded by \[\d+\]\([\w.-]+\)", status), number


def _named_functions() -> list[tuple[str, str]]:
    text = (ROOT / "docs/journeys.md").read_text()
    return re.findall(r"`(\w+)`\s+\(`([\w/.]+\.(?:c|py))`\)", text)


def test_the_functions_of_each_journey_are_where_it_says() -> None:
    named = _named_functions()
    assert len(named) > 100
    missing = []
    for name, file in named:
        path = ROOT / file
        pattern = (
            rf"^{name}\(" if file.endswith(".c") else rf"^\s*(?:async )?(?:def|class) {name}\b"
        )
        if not path.exists() or not re.search(pattern, path.read_text(), re.M):
            missing.append(f"{name} in {file}")
    assert missing == []


INTERNALS = sorted((ROOT / "docs/internals").glob("*.md"))


@pytest.fixture(scope="module")
def sources() -> dict[str, list[Path]]:
    """Files by each end of their path: `token.c`, `cancel/token.c`, `csrc/cancel/token.c`."""
    found: dict[str, list[Path]] = {}
    for top in ("csrc", "python", "tuning", "tests", "tools", "lab", "bench"):
        for path in (ROOT / top).rglob("*.*"):
            if path.suffix in (".c", ".h", ".py"):
                parts = path.relative_to(ROOT).parts
                for at in range(len(parts)):
                    found.setdefault("/".join(parts[at:]), []).append(path)
    return found


@pytest.fixture(scope="module")
def names_of_the_core() -> set[str]:
    texts = (path.read_text() for path in (ROOT / "csrc").rglob("*.[ch]"))
    return {name for text in texts for name in re.findall(r"\bhs_\w+", text)}


@pytest.mark.parametrize("page", INTERNALS, ids=lambda path: path.name)
def test_what_an_internal_page_names_exists(
    page: Path, sources: dict[str, list[Path]], names_of_the_core: set[str]
) -> None:
    """Files, functions of the core, and functions that stand behind the name of their file."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    words = {word for quoted in re.findall(r"`([^`]+)`", text) for word in quoted.split()}
    files = {word for word in words if re.fullmatch(r"[\w./-]*\w\.(?:c|h|py)", word)}
    functions = set(re.findall(r"\bhs_\w+", " ".join(words)))
    assert sorted(files - sources.keys()) == []
    assert sorted(functions - names_of_the_core) == []
    elsewhere = [
        f"{name} in {file}"
        for file, name in re.findall(r"`([\w/]+\.c)(?:` `| )(\w+)`", text)
        if not any(re.search(rf"\b{name}\(", path.read_text()) for path in sources[file])
    ]
    assert elsewhere == []


def test_the_glossary_is_in_order_and_names_files_that_exist() -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| [^|]+ \| (.+) \|$", (ROOT / "docs/glossary.md").read_text(), re.M
    )
    terms = [term for term, _ in rows[1:]]
    assert terms == sorted(terms, key=str.lower)
    paths = re.findall(r"`((?:csrc|python)/[\w/.]+)`", " ".join(what for _, what in rows))
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_map_of_the_house_has_every_folder() -> None:
    """Also those that somebody adds; only folders with something of ours in them."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = "\n".join(line for line in text.split("\n") if line.startswith("| `"))
    parts = {part.rstrip("/").split("/")[-1] for part in re.findall(r"`([\w./]+)`", rows)}
    folders = [
        path
        for parent in (ROOT / "csrc", ROOT / "python/hardsock", ROOT / "tests")
        for path in parent.iterdir()
        if path.is_dir() and {".c", ".py"} & {file.suffix for file in path.iterdir()}
    ]
    assert len(folders) > 40
    assert [path for path in folders if path.name not in parts] == []


def test_the_reference_has_a_page_for_the_names_of_the_api(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path[:0] = ['docs']; import reference, pathlib;"
        "reference.write(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "pages")], cwd=ROOT, check=True)
    api = (ROOT / "docs/api.md").read_text()
    pages = sorted((tmp_path / "pages").glob("hardsock*.md"))
    assert {page.stem for page in pages} == set(re.findall(r"^## `([\w.]+)`$", api, re.M))
    for page in pages:
        section = api.split(f"## `{page.stem}`\n")[1].split("\n## ")[0]
        told = set(re.findall(r"^\| `(\w+)` \|", section, re.M)) - {"__version__"}
        shown = set(re.findall(r"^### (\w+)$", page.read_text(), re.M))
        modules = {"guard", "deadline"} if page.stem == "hardsock" else set()
        assert shown == told - modules
        stable = set(re.findall(r"^\| `(\w+)` \| .* \*Stable\.\* \|$", section, re.M)) & shown
        marks = dict(re.findall(r"^### (\w+)\n\n\[(\w+)\]\(", page.read_text(), re.M))
        wanted = {name: "Stable" if name in stable else "Provisional" for name in shown}
        assert marks == wanted, page.stem
    manuals = {page.name for page in (tmp_path / "pages").glob("man-*.md")}
    assert manuals == {"man-hardsock.md", "man-hardsock-tune.md"}
    for name in manuals:
        assert "## Exit status" in (tmp_path / "pages" / name).read_text()


def test_each_public_name_is_stable_or_provisional_and_never_both() -> None:
    """The page that promises, and the page that marks: neither has a name that the other lacks."""
    page = (ROOT / "docs/stability.md").read_text()
    promised, _, rest = page.partition("**Stable**")[2].partition("**Provisional**")
    listed = set(re.findall(r"`(\w+)`", promised)) - {"hardsock"}
    errors = {
        name
        for name in hs.__all__
        if isinstance(getattr(hs, name), type) and issubclass(getattr(hs, name), BaseException)
    }
    api = (ROOT / "docs/api.md").read_text()
    marked: dict[str, set[str]] = {}
    for section in api.split("\n## `")[1:]:
        names = re.findall(r"^\| `(\w+)` \| .* \*Stable\.\* \|$", section, re.M)
        marked[section.partition("`")[0]] = set(names)
    assert listed <= set(hs.__all__)
    assert marked.pop("hardsock") == listed | errors | {"__version__"}
    assert marked.pop("hardsock.aio") == listed & set(hs.aio.__all__)
    assert set().union(*marked.values()) == set()
    examples = set(re.findall(r"`(\w+)`", rest.partition("**Internal**")[0])) - {"hardsock"}
    assert "is every other public name" in rest
    assert examples <= set(hs.__all__) - listed - errors
