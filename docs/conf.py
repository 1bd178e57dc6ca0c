"""The documentation as a site: Sphinx with furo, the pages as they stand in this folder.

`make docs` builds it in build/site with warnings as errors. The same files read well in a checkout;
what differs is done here: links that leave this folder go to the source, and the reference is written
from docstrings for every public name (reference.py).

Sphinx rather than MkDocs: it reads C extension types by their text signatures, fails the build
when a page or an anchor that is linked is not there, and its search works in a folder without a server.
"""

import importlib
import inspect
import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "python")]

import reference  # noqa: E402
from pygments.lexers.special import TextLexer  # noqa: E402
from sphinx.highlighting import lexers  # noqa: E402

import hardsock  # noqa: E402

lexers["haproxy"] = TextLexer()  # Pygments does not know it.

project = "hardsock"
author = "The hardsock authors"
copyright = "2026, The hardsock authors"
version = release = hardsock.__version__
# Where the repository is read.
source = re.search(r'^Source = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]  # type: ignore[index]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.linkcode", "sphinx.ext.napoleon"]
exclude_patterns = ["site/**", "experiments/**/result.json"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
# Examples of shells, wire texts and profiles need no colours; python and c do.
highlight_language = "text"
nitpicky = False
napoleon_use_ivar = False  # "Attributes:" makes a place for each, which links lead to.
autodoc_member_order = "bysource"
autodoc_typehints = "none"
default_role = "code"  # docstrings name things as Markdown does

html_theme = "furo"
html_title = f"hardsock {version}"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5d86", "color-brand-content": "#0b5d86"},
    "dark_css_variables": {"color-brand-primary": "#7cc4e8", "color-brand-content": "#7cc4e8"},
}

OUTWARD = re.compile(r"\]\((?P<up>(?:\.\./)+)(?P<path>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")


def leads_out(app: object, docname: str, text: list[str]) -> None:
    """A link to a file of the repository that is no page: to where the source is read."""
    here = (HERE / docname).parent

    def rewrite(match: re.Match[str]) -> str:
        target = (here / match["up"] / match["path"]).resolve()
        if target.is_relative_to(HERE) and target.suffix == ".md":
            return match[0]
        return f"]({source}{target.relative_to(ROOT).as_posix()}{match['anchor'] or ''})"

    text[0] = OUTWARD.sub(rewrite, text[0])


def c_sources() -> dict[str, str]:
    """Return which file of the binding makes each type of C."""
    found = {}
    for path in sorted((ROOT / "csrc/binding").rglob("*.c")):
        for name in re.findall(r'\.name = "hardsock\.(?:_core\.)?(\w+)"', path.read_text()):
            found[name] = path.relative_to(ROOT).as_posix()
    return found


TYPES_OF_C = c_sources()


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Return where the source of a name of the reference is read."""
    if domain != "py" or not info["module"]:
        return None
    value = importlib.import_module(info["module"])
    path = [value]
    for part in info["fullname"].split("."):
        if (value := getattr(value, part, None)) is None:
            return None
        path.append(value)
    for one in (getattr(p, "fget", None) or p for p in reversed(path[1:])):
        try:
            file = Path(inspect.getsourcefile(inspect.unwrap(one)) or "")
            line = inspect.getsourcelines(inspect.unwrap(one))[1]
        except (OSError, TypeError):
            if name := TYPES_OF_C.get(getattr(one, "__name__", "")):
                return source + name
            continue
        if file.is_relative_to(ROOT):
            return f"{source}{file.relative_to(ROOT).as_posix()}#L{line}"
    return None


NAMES = re.compile(r" *[\w*]+(, [\w*]+)*,")


def before_napoleon(
    app: object, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """What napoleon would read otherwise than it is meant."""
    if name.startswith("hardsock.adapters") and getattr(value, "__doc__", None) is None:
        lines.clear()  # The library's own text, of the method that is replaced.
    if what in ("attribute", "data", "property") and lines:
        lines[:0] = [
            "..",
            "",
        ]  # "Client: ..." says for whom it is, and is no type: a comment first.
    # Several parameters with one description may take several lines: napoleon reads one.
    i = 0
    while i + 1 < len(lines):
        if NAMES.fullmatch(lines[i]):
            lines[i] += " " + lines.pop(i + 1).strip()
        else:
            i += 1


# What the theme leaves to be said to those who do not see the page, or have no mouse: what scrolls
# in itself can have the focus, headings have a level, and each part of the page a name.
SAID = {
    "<pre>": '<pre tabindex="0">',
    '<table class="docutils': '<table tabindex="0" class="docutils',
    'class="caption" role="heading">': 'class="caption" role="heading" aria-level="2">',
    '<th class="head"><p></p></th>': "<td></td>",  # above the names of rows
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<aside class="toc-drawer': '<aside aria-label="On this page" class="toc-drawer',
}


def finish(app: object, problem: Exception | None) -> None:
    """Make the pages whole: what the theme leaves out, and pictures that HTML of a page names."""
    outdir = Path(app.outdir)  # type: ignore[attr-defined]
    if problem is not None:
        return
    for path in outdir.rglob("*.html"):
        text = path.read_text()
        for before, after in SAID.items():
            text = text.replace(before, after)
        path.write_text(text)
    for picture in HERE.glob("experiments/*.svg"):
        shutil.copy(picture, outdir / "experiments")


def without_board(app: object, name: str, source: list[str]) -> None:
    """Take the board out of the contents where none was made: it comes with `make board`."""
    if name == "index" and not (HERE / "benchmarks.md").exists():
        source[0] = source[0].replace("\nbenchmarks\n", "\n")


def setup(app: object) -> None:
    reference.write(HERE / "reference")
    app.connect("source-read", leads_out)  # type: ignore[attr-defined]
    app.connect("source-read", without_board)  # type: ignore[attr-defined]
    app.connect("build-finished", finish)  # type: ignore[attr-defined]
    # Before napoleon, which has the usual priority of 500.
    app.connect("autodoc-process-docstring", before_napoleon, priority=400)  # type: ignore[attr-defined]
