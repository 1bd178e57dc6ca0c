"""The documentation site, judged as it was built: `make docs`, then `make check-docs`.

    docs_site.py links [SITE]          each link leads somewhere; those that leave the site are only read
    docs_site.py look [SITE] [PAGE...] each page in a browser, light and dark, 1280 and 390 pixels wide

`look` asks axe-core (fetched by npm, in build/npm) about accessibility (contrast, headings without text),
and the page itself: does it fit its width, is text cut off or a picture missing, does it complain on the
console, does the search find something without a server, does the keyboard reach the content. Pictures
of all go to build/site-pictures.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import common

if TYPE_CHECKING:
    from support.browser import Browser

SITE = common.ROOT / "build/site"
NPM = common.ROOT / "build/npm"
PICTURES = common.ROOT / "build/site-pictures"
AXE = "axe-core@4.14.1"
WIDTHS = ((1280, 900), (390, 844))
SCHEMES = ("light", "dark")
# axe asks in two of the four views: each width and each scheme is in one of them.
ASKED = ((1280, "light"), (390, "dark"))
# WCAG 2.1 levels A and AA, and what axe's makers call good practice.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
# axe runs in the page and leaves its answer there: the caller asks until it has come.
RUN_AXE = """
window.axeSaid = null;
axe.run(document, {runOnly: %s, resultTypes: ["violations"], preload: false}).then(r => {
  window.axeSaid = r.violations.map(v => ({
    id: v.id, help: v.help, nodes: v.nodes.map(n => n.target.join(" ") + ": " + n.html.slice(0, 90))
  }));
}, e => { window.axeSaid = [{id: "axe", help: String(e), nodes: []}]; });
"""


# ---- links


@dataclass
class Page(HTMLParser):
    """What one page offers to links, and where its own lead."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            if name in ("href", "src") and value is not None:
                self.links.append(value)


def outside_is_wrong(link: str) -> str:
    """Return what is wrong with a link that leaves the site; nothing is fetched."""
    parts = urlsplit(link)
    if parts.scheme in ("data", "mailto"):
        return ""
    if parts.scheme != "https":
        return f"{parts.scheme or 'no scheme'}, not https"
    if not re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", parts.netloc):
        return f"no host name: {parts.netloc!r}"
    return f"a space in {link!r}" if re.search(r"\s", link) else ""


def broken(site: Path) -> Iterator[str]:
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                problem = outside_is_wrong(link)
            else:
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                target = target / "index.html" if target.is_dir() else target
                anchor = unquote(parts.fragment)
                problem = "" if target.exists() else "no such file"
                if not problem and anchor and target in pages:
                    problem = "" if anchor in pages[target].anchors else "no such heading"
            if problem:
                yield f"{path.relative_to(site)}: {link}: {problem}"


def links(site: Path) -> int:
    if not (site / "index.html").exists():
        print(f"site: no {site}/index.html: make docs")
        return 1
    found = list(broken(site))
    print("".join(f"site: {line}\n" for line in found), end="")
    return 1 if found else 0


# ---- in a browser


def axe() -> str:
    """Return axe-core's program, fetched when it is not there."""
    script = NPM / "node_modules/axe-core/axe.min.js"
    if not script.exists():
        if not shutil.which("npm"):
            raise SystemExit("site: npm is not installed; it fetches axe-core")
        NPM.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["npm", "install", "--silent", "--no-save", "--ignore-scripts", "--prefix", NPM, AXE],
            check=True,
        )
    return script.read_text()


def turn(tab: Browser, width: int, height: int, scheme: str) -> None:
    """Show the page that is there in another window; its pictures may be others then."""
    tab.resize(width, height)
    tab.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    tab.wait_for("[...document.images].every(image => image.complete)")


def show(tab: Browser, path: Path, width: int, height: int, scheme: str) -> None:
    # A fragment alone would not load the page anew.
    tab.call("Page.navigate", url="about:blank")
    tab.open(path.as_uri(), width, height)
    tab.wait_for(
        f"document.readyState == 'complete' && location.href == {json.dumps(path.as_uri())}"
    )
    turn(tab, width, height, scheme)


# Text whose box hides what does not fit, or that goes beyond the window where nothing scrolls; not what
# is shown to those alone who do not see the page, in a box of a pixel.
CUT_OFF = """
(() => {
  const edges = new Map([[null, document.documentElement.clientWidth]]), found = [];
  const edge_of = at => {
    if (!edges.has(at)) {
      const style = getComputedStyle(at), box = at.getBoundingClientRect();
      let edge = edge_of(at.parentElement);
      if (["hidden", "clip"].includes(style.overflowX)) edge = Math.min(edge, box.right);
      if (["auto", "scroll"].includes(style.overflowX) || style.position == "fixed" || box.width <= 1)
        edge = Infinity;
      edges.set(at, edge);
    }
    return edges.get(at);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  while (walker.nextNode()) {
    const text = walker.currentNode, said = text.data.trim();
    if (!said) continue;
    range.selectNodeContents(text);
    const box = range.getBoundingClientRect();
    if (box.width < 1 || box.height < 1 || box.right <= edge_of(text.parentElement) + 1) continue;
    if (text.parentElement.checkVisibility({visibilityProperty: true})) found.push(said.slice(0, 60));
  }
  return found;
})()
"""
MISSING = """
[...document.images].filter(i => i.checkVisibility() && (!i.complete || i.naturalWidth == 0))
  .map(i => i.getAttribute("src"))
"""


def judge(tab: Browser) -> Iterator[str]:
    # Not innerWidth: a phone's browser zooms out until what is too wide fits, and tells that width.
    over = tab.ask("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if over > 0:
        yield f"is {over} pixels wider than the window"
    for text in tab.ask(CUT_OFF):
        yield f"text is cut off: {text!r}"
    for source in tab.ask(MISSING):
        yield f"picture is missing: {source}"
    yield from tab.problems
    tab.problems.clear()


def ask_axe(tab: Browser, program: str) -> Iterator[str]:
    tab.ask(program)
    tab.ask(RUN_AXE % json.dumps(RULES))
    tab.wait_for("window.axeSaid !== null")
    for said in tab.ask("window.axeSaid"):
        nodes = said["nodes"]
        yield f"{said['id']}: {said['help']} ({len(nodes)}): " + " | ".join(nodes[:3])


def search_finds(tab: Browser, site: Path) -> Iterator[str]:
    """Yield nothing if a word is found in a site that no server serves."""
    tab.open((site / "search.html").as_uri() + "?q=deadline", *WIDTHS[0])
    tab.wait_for("/found (\\d+) page/.test(document.querySelector('#search-results').textContent)")
    count = int(
        tab.ask(
            "/found (\\d+) page/.exec(document.querySelector('#search-results').textContent)[1]"
        )
    )
    if count < 20:
        yield f"search.html: 'deadline' is on {count} pages"
    tab.problems.clear()  # Previews of results are fetched, which a file may not do.


def keyboard_reaches(tab: Browser, site: Path) -> Iterator[str]:
    """Yield nothing if the first key leads past the navigation, and what has the focus shows it."""
    show(tab, site / "index.html", *WIDTHS[0], "light")
    for kind in ("keyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab",
                 windowsVirtualKeyCode=9)  # fmt: skip
    text = tab.ask("document.activeElement.textContent.trim()")
    if text != "Skip to content":
        yield f"index.html: the first Tab leads to {text!r}"
    for kind in ("keyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab",
                 windowsVirtualKeyCode=9)  # fmt: skip
    if tab.ask("getComputedStyle(document.activeElement).outlineStyle") == "none":
        yield "index.html: what has the focus does not show it"


def look(site: Path, names: list[str]) -> int:
    sys.path.insert(0, str(common.ROOT / "tests"))
    from support.browser import browser

    program = axe()
    pages = [site / n for n in names] or sorted(site.rglob("*.html"))
    found: list[str] = []

    def tell(lines: Iterator[str], where: str = "") -> None:
        for line in lines:
            found.append(line)
            print(f"site: {where}{line}", flush=True)

    with browser(timeout=600) as tab:
        for path in pages:
            name = path.relative_to(site).as_posix()
            show(tab, path, *WIDTHS[0], SCHEMES[0])
            for width, height in WIDTHS:
                for scheme in SCHEMES:
                    turn(tab, width, height, scheme)
                    picture = PICTURES / f"{name.replace('/', '_')[:-5]}-{width}-{scheme}.png"
                    picture.parent.mkdir(parents=True, exist_ok=True)
                    tab.screenshot(picture)
                    where = f"{name}, {width}, {scheme}: "
                    tell(judge(tab), where)
                    if (width, scheme) in ASKED:
                        tell(ask_axe(tab, program), where)
        tell(search_finds(tab, site))
        tell(keyboard_reaches(tab, site))
    print(f"site: {len(pages)} pages, {len(found)} findings; pictures in {PICTURES}")
    return 1 if found else 0


def main(argv: list[str]) -> int:
    if not argv or argv[0] not in ("links", "look"):
        print(__doc__)
        return 2
    site = Path(argv[1]).resolve() if len(argv) > 1 else SITE
    return links(site) if argv[0] == "links" else look(site, argv[2:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
