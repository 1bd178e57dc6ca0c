"""What judges the site (`make docs`): a link that leads nowhere is found, whatever is wrong with it."""

from __future__ import annotations

import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tools"), str(ROOT / "docs")]

import c_reference  # noqa: E402
import docs_site  # noqa: E402

from support.browser import browser  # noqa: E402
from support.require import require  # noqa: E402


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "guides").mkdir()
    (tmp_path / "guides/one page.html").write_text('<h1 id="top">One</h1><a href="../#all">all</a>')
    (tmp_path / "picture.svg").write_text("<svg/>")
    return tmp_path


def test_links_that_lead_somewhere_are_silent(site: Path) -> None:
    (site / "index.html").write_text(
        '<h1 id="all">All</h1><a href="#all">here</a><a href="guides/one%20page.html#top">one</a>'
        '<img src="picture.svg"><a href="https://example.org/x#y">out</a><a href="mailto:a@b">me</a>'
    )
    assert list(docs_site.broken(site)) == []
    assert docs_site.links(site) == 0


@pytest.mark.parametrize(
    ("tag", "problem"),
    [
        ('<a href="none.html">', "none.html: no such file"),
        ('<img src="none.svg">', "none.svg: no such file"),
        ('<a href="#none">', "#none: no such heading"),
        ('<a href="guides/one%20page.html#none">', "one%20page.html#none: no such heading"),
        ('<a href="http://example.org/">', "http://example.org/: http, not https"),
        ('<a href="//example.org/">', "//example.org/: no scheme, not https"),
        ('<a href="https://example/">', "https://example/: no host name: 'example'"),
        ('<a href="https://example.org/a b">', "a b: a space in 'https://example.org/a b'"),
    ],
)
def test_a_link_that_leads_nowhere_is_named_with_its_page(
    site: Path, tag: str, problem: str
) -> None:
    (site / "index.html").write_text(f'<h1 id="all">All</h1>{tag}')
    (found,) = docs_site.broken(site)
    assert found.startswith("index.html: ")
    assert found.endswith(problem)
    assert docs_site.links(site) == 1


def test_a_site_that_was_not_built_is_no_site_without_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert docs_site.links(tmp_path) == 1
    assert "make docs" in capsys.readouterr().out


# ---- in a browser

FAULTS = {
    "text is cut off: 'much longer than its box'": '<p style="width: 4em; overflow: hidden; '
    'white-space: nowrap">much longer than its box</p>',
    "text is cut off: 'beyond the edge'": '<p style="position: absolute; left: 100%; top: 0">'
    "beyond the edge</p>",
    "is 300 pixels wider than the window": '<div style="width: 690px; position: absolute; left: 0">x</div>',
    "picture is missing: none.png": '<img src="none.png" alt="none">',
    "console.error: it is said": "<script>console.error('it is', 'said')</script>",
}
SOUND = """<h1>All</h1><img src="picture.svg" alt="" width="9"><pre style="overflow: auto">%s</pre>
<span style="position: absolute; width: 1px; height: 1px; overflow: hidden">for readers of screens</span>
<p style="overflow: hidden">It fits.</p>
""" % ("what scrolls in itself " * 40)  # fmt: skip


@pytest.mark.slow
def test_what_a_page_hides_or_lacks_is_found_in_the_browser(tmp_path: Path) -> None:
    (tmp_path / "picture.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    page = tmp_path / "page.html"
    begin = '<!DOCTYPE html><meta name="viewport" content="width=device-width"><body>' + SOUND
    with require(browser()) as tab:
        page.write_text(begin)
        docs_site.show(tab, page, 390, 844, "light")
        assert list(docs_site.judge(tab)) == []
        for problem, fault in FAULTS.items():
            page.write_text(begin + fault)
            docs_site.show(tab, page, 390, 844, "light")
            found = list(docs_site.judge(tab))
            assert problem in found, fault
            assert not any(one.startswith("text is cut off") for one in found if one != problem)


# ---- the reference of the C library

HEADER = """/* thing.h: things.
 *
 * Rules:
 * - hs_thing_new takes *all*.
 *
 *     struct hs_thing *t;
 *
 * That is it.
 */
extern "C" {
#endif

#define HS_ONE 1
#define HS_TWO 2
#define HS_API hidden

/* ---- Things: what there is --------------------------------------- */

struct hs_other;
/* A thing; see hs_thing_new(). */
struct hs_thing;

/* Makes one.
 * HS_E_NOMEM: no memory. */
HS_API HS_NODISCARD hs_err hs_thing_new(int n, /* more than 0; */
                                        struct hs_thing **ret_thing);
HS_API void hs_thing_free(struct hs_thing *t); /* NULL is fine */
HS_API int hs_thing_stats(struct hs_thing *t);

#ifdef __cplusplus
}
#endif
"""


STABILITY = """**Internal**: `hs_thing_free`, *Version*.

**The C library**: of `thing.h` the parts *Some other* and
*Things* are stable, without `*_stats`; *all else* is provisional.

*Version* is more.
"""


def test_a_header_becomes_a_page_with_each_contract_above_its_prototype() -> None:
    assert (
        c_reference.page(HEADER, STABILITY)
        == """# hardsock.h

thing.h: things.

Rules:
- [`hs_thing_new`](#hs_thing_new) takes \\*all\\*.

```c
struct hs_thing *t;
```

That is it.

## Version

Constants: [Provisional](../stability.md).

```c
#define HS_ONE 1
#define HS_TWO 2
```

## Things: what there is

### struct hs_thing

[Stable](../stability.md)

A thing; see [`hs_thing_new()`](#hs_thing_new).

```c
struct hs_thing;
```

### hs_thing_new

[Stable](../stability.md)

Makes one.
`HS_E_NOMEM`: no memory.

```c
hs_err hs_thing_new(int n, /* more than 0; */
                    struct hs_thing **ret_thing);
```

### hs_thing_free

[Stable](../stability.md)

```c
void hs_thing_free(struct hs_thing *t); /* NULL is fine */
```

### hs_thing_stats

[Provisional](../stability.md)

```c
int hs_thing_stats(struct hs_thing *t);
```

"""
    )


def test_every_function_of_the_header_has_a_place_of_its_own() -> None:
    header = (ROOT / "csrc/include/hardsock.h").read_text()
    names = [p.name for s in c_reference.sections(header) for p in s.parts if p.name]
    functions = re.findall(r"^HS_API [^(]*?\b(hs_\w+)\(", header, re.M)
    assert len(functions) > 150
    assert [name for name in functions if names.count(name) != 1] == []


def test_what_is_promised_of_the_header_is_there() -> None:
    """Each part and each pattern of docs/stability.md, and both classes on the page."""
    header = (ROOT / "csrc/include/hardsock.h").read_text()
    stability = (ROOT / "docs/stability.md").read_text()
    promised = c_reference.promise(stability)
    found = c_reference.sections(header)
    names = [p.name.rpartition(" ")[2] for s in found for p in s.parts]
    assert len(promised.parts) > 10
    assert promised.parts <= {section.title.partition(":")[0] for section in found}
    assert len(promised.without) > 3
    for pattern in promised.without:
        assert any(fnmatchcase(name, pattern) for name in names), pattern
    page = c_reference.page(header, stability)
    entries = re.findall(r"^### .*", page, re.M)
    marks = re.findall(r"^### .*\n\n\[(Stable|Provisional)\]\(\.\./stability\.md\)$", page, re.M)
    assert len(marks) == len(entries)
    assert set(marks) == {"Stable", "Provisional"}
