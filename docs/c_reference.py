"""Writes the reference of the C library: hardsock.h as a page, each contract above its prototype.

The header is the only text: what stands above a declaration there, or behind it on its line, is what
this page says. Names that the header declares become links. docs/stability.md says which parts of the
header are stable, and each entry shows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

BEGIN = 'extern "C" {\n#endif\n'
SECTION = re.compile(r"/\* ---- (.+?) -*\s*\*/")
NAMED = re.compile(r"(?:\b|`)((?:(?:struct|enum) )?(?:hs|HS)_\w*\w)\b`?(\(\))?")
SPECIAL = re.compile(r"([\\`*_<>\[\]#|])")
MARK = re.compile(r"#define HS_(API|NODISCARD|PRINTF)\b")  # for compilers alone
FUNCTION = re.compile(r"\b(hs_\w+)\(")
TYPE = re.compile(r"^((?:struct|enum) hs_\w+)\s*(\{|;)|^typedef .*?\b(hs_\w+);", re.S)


@dataclass
class Part:
    """A declaration with what is said of it; without code, what is said of all that follows."""

    said: str
    code: str = ""
    name: str = ""


@dataclass
class Section:
    title: str
    parts: list[Part] = field(default_factory=list)


def comment_text(comment: str) -> str:
    lines = comment.strip().removeprefix("/*").removesuffix("*/").rstrip().splitlines()
    return "\n".join(re.sub(r"^ \* ?|^ ", "", line) for line in lines).strip("\n")


def name_of(code: str) -> str:
    """Return what a declaration is called in a heading; "" for constants, which go with others."""
    if code.startswith("#"):
        return ""
    if found := TYPE.match(code):
        return found[1] or found[3]
    found = FUNCTION.search(code)
    return found[1] if found else ""


def plain(code: str) -> str:
    """Return a prototype without what only the compiler reads, and its lines below each other."""
    if not code.startswith("HS_API"):
        return code
    first, *others = code.splitlines()
    short = re.sub(r"^HS_API (HS_NODISCARD )?", "", first)
    gone = len(first) - len(short)
    return "\n".join([short, *(line.removeprefix(" " * gone) for line in others)])


def depth(code: str) -> int:
    bare = re.sub(r"/\*.*?\*/", "", code, flags=re.S)
    return bare.count("{") + bare.count("(") - bare.count("}") - bare.count(")")


def is_whole(code: str) -> bool:
    bare = re.sub(r"/\*.*?\*/", "", code, flags=re.S).rstrip()
    if code.startswith("#"):
        return not code.endswith("\\")
    return depth(code) == 0 and bare.endswith(";") and code.count("/*") == code.count("*/")


def parts_of(lines: list[str]) -> Iterator[Part | Section]:
    said, at = "", 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if not line.strip() or line.startswith(("#if", "#endif", "#undef", "}")):
            if said:
                yield Part(said)
                said = ""
            continue
        whole = line
        if line.startswith("/*"):
            while "*/" not in whole:
                whole += "\n" + lines[at]
                at += 1
            if heading := SECTION.fullmatch(whole.strip()):
                yield Section(heading[1])
            else:
                said = comment_text(whole)
            continue
        while not is_whole(whole):
            whole += "\n" + lines[at]
            at += 1
        yield Part(said, whole, name_of(whole))
        said = ""


def sections(header: str) -> list[Section]:
    found = [Section("Version")]
    for one in parts_of(header.partition(BEGIN)[2].splitlines()):
        if isinstance(one, Section):
            found.append(one)
        elif not MARK.match(one.code):
            found[-1].parts.append(one)
    return found


def prose(text: str, known: set[str], own: str = "") -> str:
    """Return Markdown: names as code, with links; what is set in by four columns as it is."""

    def mark(line: str) -> str:
        out, end = "", 0
        for match in NAMED.finditer(line):
            out += SPECIAL.sub(r"\\\1", line[end : match.start()])
            name, end = match[1], match.end()
            code = f"`{name}{match[2] or ''}`"
            linked = name in known and name != own
            out += f"[{code}](#{name.replace(' ', '-')})" if linked else code
        return out + SPECIAL.sub(r"\\\1", line[end:])

    out, code = [], False
    for line in text.splitlines():
        inset = line.startswith("    ") or (code and not line.strip())
        if inset != code:
            while out and not out[-1]:
                out.pop()
            out.append("\n```c" if inset else "```\n")
        code = inset
        out.append(line.removeprefix("    ") if inset else mark(line))
    if code:
        out.append("```")
    return "\n".join(out)


def merged(parts: list[Part]) -> list[Part]:
    """Return them with constants that follow each other as one."""
    out: list[Part] = []
    for part in parts:
        if out and not part.name and not part.said and not out[-1].name and out[-1].code:
            out[-1].code += "\n" + part.code
        else:
            out.append(part)
    return out


def is_forward(part: Part) -> bool:
    return re.fullmatch(r"(struct|enum) \w+;", part.code) is not None


@dataclass
class Promise:
    """Which parts of the header are stable, and the patterns of names there that are not."""

    parts: set[str]
    without: list[str]

    def mark(self, section: Section, name: str = "") -> str:
        """Return the class of an entry; without a name, that of the constants of a part."""
        bare = name.rpartition(" ")[2]
        kept = section.title.partition(":")[0] in self.parts
        kept = kept and not any(fnmatchcase(bare, one) for one in self.without)
        return f"[{'Stable' if kept else 'Provisional'}](../stability.md)"


def promise(stability: str) -> Promise:
    """Read the paragraph of docs/stability.md."""
    text = stability.partition("**The C library**:")[2].partition("\n\n")[0]
    stable = " ".join(text.partition(" are stable")[0].split())
    patterns = re.findall(r"`(hs_\w+\*|\*_\w+)`", text)
    return Promise(set(re.findall(r"\*([^*]+)\*", stable)), patterns)


def page(header: str, stability: str) -> str:
    found = sections(header)
    promised = promise(stability)
    for section in found:  # A type without a contract of its own says nothing yet.
        section.parts = merged([p for p in section.parts if p.said or not is_forward(p)])
    known = {p.name for s in found for p in s.parts if p.name}
    out = ["# hardsock.h\n", prose(comment_text(header[: header.index("*/") + 2]), known) + "\n"]
    for section in found:
        out.append(f"## {section.title}\n")
        if any(part.code and not part.name for part in section.parts):
            out.append(f"Constants: {promised.mark(section)}.\n")
        for part in section.parts:
            if part.name:
                out.append(f"### {part.name}\n\n{promised.mark(section, part.name)}\n")
            if part.said:
                out.append(prose(part.said, known, part.name) + "\n")
            if part.code:
                out.append(f"```c\n{plain(part.code)}\n```\n")
    return "\n".join(out) + "\n"


__all__ = ["page", "promise", "sections"]
