"""The lab's experiments: they show what they claim, and what they leave can be read."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from hardsock.cli.main import main
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments import EXPERIMENTS, Experiment, Finding
from hardsock.lab.experiments import command as lab_command
from hardsock.lab.experiments.chapters import CHAPTERS
from hardsock.lab.experiments.experiment import Arrow, Bar, Chart, Line
from hardsock.lab.experiments.packets import Tap, arrows
from hardsock.lab.experiments.page import verdict_of, write_index, write_page
from hardsock.lab.experiments.picture import draw
from hardsock.lab.namespaces import run_in_namespace
from hardsock.lab.unavailable import Unavailable
from support.require import available, need_module

PAGES = Path(__file__).resolve().parents[2] / "docs" / "experiments"


TRIES, TRIES_AT_NIGHT = 2, 5


def try_it(experiment: Experiment, tries: int) -> Finding:
    """The first finding that can be stood for, else the last."""
    for left in reversed(range(tries)):
        with available():
            finding = experiment.measure()
        if not (finding.invalid and left):
            break
    return finding


def compare(experiment: Experiment, finding: Finding) -> None:
    """Verdicts are compared, not numbers: those are the machine's."""
    page = json.loads((PAGES / f"{experiment.name}.json").read_text())
    assert verdict_of(finding) == page["verdict"] == "shown", finding.text


@pytest.mark.net
@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.parametrize(
    "experiment", [pytest.param(one, id=one.name) for one in EXPERIMENTS if one.is_short]
)
def test_each_shows_again_what_its_page_says(experiment: Experiment) -> None:
    finding = try_it(experiment, TRIES)
    if finding.invalid:
        pytest.skip(f"INVALID here and now, {TRIES} times: {finding.invalid}")
    compare(experiment, finding)


@pytest.mark.net
@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.nightly
@pytest.mark.parametrize("experiment", [pytest.param(one, id=one.name) for one in EXPERIMENTS])
def test_each_can_be_stood_for(experiment: Experiment) -> None:
    """One that is INVALID each time shows nothing, and by day would only ever be skipped."""
    stand_for(experiment)


def stand_for(experiment: Experiment) -> None:
    finding = try_it(experiment, TRIES_AT_NIGHT)
    assert not finding.invalid, f"INVALID {TRIES_AT_NIGHT} times in a row: {finding.invalid}"
    compare(experiment, finding)


def test_one_that_is_always_invalid_does_not_pass_the_night() -> None:
    findings = [replace(FINDING, invalid="The machine was busy.")] * TRIES_AT_NIGHT + [FINDING]
    with pytest.raises(AssertionError, match="INVALID 5 times in a row: The machine was busy"):
        stand_for(replace(fake("nagle", FINDING), measure=iter(findings).__next__))
    stand_for(replace(fake("nagle", FINDING), measure=iter(findings[1:]).__next__))


def test_each_has_a_page_and_a_line_in_the_index() -> None:
    index = (PAGES / "README.md").read_text()
    for one in EXPERIMENTS:
        assert f"[{one.title}]({one.name}.md) | {one.claim} | shown" in index
        text = (PAGES / f"{one.name}.md").read_text()
        assert one.title in text
        for theme in ("light", "dark"):
            assert (PAGES / f"{one.name}-{theme}.svg").exists()


BARS = Chart(
    kind="timeline",
    title="A <title> & more",
    x="seconds",
    bars=[Bar("a", 0, 1, "plain", failed=True, note="1 s"), Bar("b", 0, 0.5, "hardsock")],
    limit=(0.7, "limit"),
)
FINDING = Finding(
    plain={"seconds": 1.0, "calls": 1200},
    hardsock={"seconds": 0.5},
    shown=True,
    text="It took.",
    chart=BARS,
)


QUIET = {"kernel": "6.1", "python": "3.13.1", "processors": 2, "load": 0.3}


@pytest.mark.may_leave("matplotlib keeps fonts open", fds=["*/mpl-data/*"], threads=["*"])
@pytest.mark.parametrize(
    "chart",
    [
        BARS,
        replace(BARS, kind="lines", bars=[], lines=[Line("l", "plain", [(0, 1), (1, 2000)])]),
        replace(
            BARS, kind="percentiles", bars=[], lines=[Line("l", "hardsock", [3, 1, 2])], log=True
        ),
        replace(
            BARS,
            kind="sequence",
            bars=[],
            arrows=[Arrow("one", True, "SYN"), Arrow("two", False, "RST", failed=True)],
        ),
    ],
    ids=lambda chart: chart.kind,
)
def test_pictures_are_700_wide_have_text_and_suit_both_backgrounds(
    chart: Chart, tmp_path: Path
) -> None:
    need_module("matplotlib")
    light, dark = draw(chart, tmp_path, "it")
    again = draw(chart, tmp_path, "it")
    for path, background in ((light, "#ffffff"), (dark, "#0d1117")):
        text = path.read_text()
        root = ElementTree.fromstring(text)
        assert float(root.attrib["width"].removesuffix("pt")) * 100 / 72 == pytest.approx(700)
        assert f"fill: {background}" in text
        assert "A &lt;title&gt; &amp; more" in text  # not outlines
        assert text == again[0 if path == light else 1].read_text()


@pytest.mark.may_leave("matplotlib keeps fonts open", fds=["*/mpl-data/*"], threads=["*"])
@pytest.mark.parametrize(("high_at", "left"), [(10, True), (0, False)])
def test_the_label_of_a_limit_hides_no_points(high_at: int, left: bool, tmp_path: Path) -> None:
    need_module("matplotlib")
    points = [(x, 9.9 if x == high_at else 0) for x in range(11)]
    chart = replace(
        BARS, kind="lines", bars=[], lines=[Line("l", "plain", points)], limit=(10, "here")
    )
    light, _ = draw(chart, tmp_path, "it")
    (label,) = (
        one for one in ElementTree.fromstring(light.read_text()).iter() if one.text == "here"
    )
    assert ("text-anchor: end" in label.attrib["style"]) is not left


def test_colours_are_told_apart_by_luminance_from_their_background() -> None:
    from hardsock.lab.experiments.picture import _BACKGROUND, _COLOURS

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    for theme, colours in _COLOURS.items():
        for name, least in (("plain", 3.0), ("hardsock", 3.0), ("text", 7.0)):
            pair = sorted([luminance(colours[name]), luminance(_BACKGROUND[theme])])
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= least, (theme, name)


def test_the_packets_of_a_connection_are_seen_in_their_order() -> None:
    with available():
        seen = run_in_namespace(packets_inside)
    assert seen[:3] == [[True, "SYN"], [False, "SYN"], [True, "ACK"]]
    assert [label for _, label in seen if label != "ACK"][2:] == ["7 bytes", "FIN", "FIN"]


def packets_inside() -> list[tuple[bool, str]]:
    """A connection, seven bytes, and an end; another one beside it that is not asked for."""
    with listen() as listener, listen() as other, Tap() as tap:
        for one in (other, listener):
            with socket.create_connection(one.getsockname()) as client:
                client.sendall(b"x" * 7)
                client.shutdown(socket.SHUT_WR)
                server, _ = one.accept()
                with server:
                    while server.recv(100):
                        pass
        return tap.read(listener.getsockname()[1])


def test_acknowledgements_are_left_out_of_a_picture_and_resets_are_broken_lines() -> None:
    packets = [(True, "ACK"), (True, "3 bytes"), (False, "RST")]
    assert arrows(packets, "p") == [
        Arrow("p", True, "3 bytes"),
        Arrow("p", False, "RST", failed=True),
    ]
    assert len(arrows(packets, "p", without_acks=False)) == 3


def test_every_experiment_has_its_chapter() -> None:
    named = [name for chapter in CHAPTERS for name in chapter.names]
    assert sorted(named) == sorted(one.name for one in EXPERIMENTS)


def fake(name: str, finding: Finding | Exception) -> Experiment:
    def measure() -> Finding:
        if isinstance(finding, Exception):
            raise finding
        return finding

    return Experiment(
        name=name, title="T", claim="C.", why="W.", instead="I.", measure=measure, seconds=1
    )


def test_a_page_has_what_was_found(tmp_path: Path) -> None:
    one = fake("it", FINDING)
    write_page(one, FINDING, tmp_path, QUIET)
    write_index([one, fake("other", FINDING)], tmp_path)
    text = (tmp_path / "it.md").read_text()
    assert "**Shown.** It took." in text
    assert "| seconds | 1 | 0.5 |" in text
    assert "| calls | 1,200 |  |" in text
    assert "Linux 6.1, Python 3.13.1, 2 processors with a load of 0.3 when it began.\n" in text
    assert json.loads((tmp_path / "it.json").read_text())["plain"]["calls"] == 1200
    assert re.findall(r"^\| \[.*", (tmp_path / "README.md").read_text(), re.M) == [
        "| [T](it.md) | C. | shown |"
    ]


def test_a_page_says_when_the_machine_was_busy_and_what_a_wire_did(tmp_path: Path) -> None:
    wire = {"backend": "tun", "seed": 7, "sysctls": {"tcp_congestion_control": "reno"}}
    finding = replace(FINDING, conditions=wire)
    write_page(fake("it", finding), finding, tmp_path, {**QUIET, "load": 7.5})
    text = " ".join((tmp_path / "it.md").read_text().split())
    assert "a load of 7.5 when it began, so others wanted them too" in text
    assert "Wire: tun, seed 7, reno, offloads off." in text
    assert json.loads((tmp_path / "it.json").read_text())["conditions"] == wire


@pytest.mark.parametrize(
    ("finding", "status", "says"),
    [
        (FINDING, 0, "  shown"),
        (replace(FINDING, shown=False), 1, "  not shown"),
        (replace(FINDING, invalid="Packets were lost."), 3, "Packets were lost.\n  INVALID"),
        (Unavailable("no namespaces"), 3, "cannot run here: no namespaces"),
    ],
    ids=["shown", "not shown", "invalid", "unavailable"],
)
def test_the_command_says_how_it_went(
    finding: Any,
    status: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(lab_command, "EXPERIMENTS", (fake("it", finding),))
    assert main(["lab", "run", "it"]) == status
    assert says in capsys.readouterr().out


def test_the_command_lists_them_and_knows_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(one.claim in listed for one in EXPERIMENTS)
    assert main(["lab", "run", "nagel"]) == 2
    assert "there is no experiment 'nagel'; there are dns-hang, nagle" in capsys.readouterr().err


def test_without_matplotlib_a_page_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(lab_command, "EXPERIMENTS", (fake("it", FINDING),))
    assert main(["lab", "run", "all", "--out", str(tmp_path)]) == 3
    assert "pip install 'hardsock[lab]'" in capsys.readouterr().out
    assert not (tmp_path / "it.md").exists()
