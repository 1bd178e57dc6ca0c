"""The text of a deadline on the wire, both ways."""

from __future__ import annotations

import time
from typing import Any

import pytest

import hardsock as hs
from hardsock import deadline


def test_without_a_deadline_nothing_is_sent() -> None:
    assert deadline.to_header() is None
    assert deadline.to_header(hs.CancelToken()) is None
    assert deadline.headers() == {}
    assert deadline.remaining() is None
    with hs.timeout(None):
        assert deadline.headers(names=("grpc-timeout",)) == {}


def test_what_is_sent_is_what_is_left_rounded_down() -> None:
    with hs.timeout(5):
        text = deadline.to_header()
        left = deadline.remaining()
    assert text is not None
    assert left is not None
    assert left * 1000 - 1 <= int(text) <= 5000  # *left* was asked for later.
    with hs.timeout(5):
        assert int(deadline.to_header(spend=1) or 0) <= 4000


def test_the_earlier_of_scope_and_token_is_sent() -> None:
    with hs.timeout(50):
        assert int(deadline.to_header(hs.CancelToken(5)) or 0) <= 5000
    with hs.timeout(5):
        assert int(deadline.to_header(hs.CancelToken(50)) or 0) <= 5000


def test_each_try_says_what_is_left_then() -> None:
    token = hs.CancelToken(5)
    first = int(deadline.to_header(token) or 0)
    token.set_timeout(2)
    assert int(deadline.to_header(token) or 0) <= 2000 < first


@pytest.mark.parametrize(
    ("seconds", "want"),
    [
        # Eight digits at most, in the finest unit that holds them.
        (0.05, "n"),
        (30, "u"),
        (3600 * 12, "m"),
        (3600 * 24 * 365, "S"),
    ],
)
def test_grpc_texts_have_the_finest_unit_that_fits(seconds: float, want: str) -> None:
    text = deadline.to_header(hs.CancelToken(seconds), form="grpc")
    assert text is not None
    assert text[-1] == want
    assert len(text) <= 9
    assert 0 < (deadline.from_header(text, cap=None) or 0) <= seconds


def test_nobody_is_asked_in_vain() -> None:
    with pytest.raises(hs.DeadlineExceeded, match="too little is left") as caught:
        deadline.to_header(hs.CancelToken(0.5), spend=0.4, floor=0.2)
    assert caught.value.op == "to_header"
    assert "600.0 ms" in str(caught.value.hint)
    with pytest.raises(hs.DeadlineExceeded):
        deadline.to_header(hs.CancelToken(0))
    with pytest.raises(hs.DeadlineExceeded):
        deadline.to_header(hs.CancelToken(0), floor=0)
    token = hs.CancelToken()
    token.cancel("stop")
    with pytest.raises(hs.Cancelled, match="stop"):
        deadline.headers(token)
    with pytest.raises(hs.Cancelled), hs.scope(token):
        deadline.to_header()


def test_headers_are_written_in_the_form_of_their_name() -> None:
    found = deadline.headers(hs.CancelToken(5), names=deadline.DEFAULT_NAMES)
    assert list(found) == list(deadline.DEFAULT_NAMES)
    assert found["x-request-timeout-ms"].isdigit()
    assert found["x-envoy-expected-rq-timeout-ms"].isdigit()
    assert found["grpc-timeout"].endswith("u")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        # Plain milliseconds.
        ("250", 0.25),
        (" 250\t", 0.25),
        (b"250", 0.25),
        ("0", 0.0),
        ("99999999", 60.0),
        # gRPC.
        ("1S", 1.0),
        ("100m", 0.1),
        ("5000000u", 5.0),
        ("99999999H", 60.0),
        ("0n", 0.0),
        # Nonsense of strangers is no deadline.
        (None, None),
        ("", None),
        ("-5", None),
        ("+5", None),
        ("1e3", None),
        ("1.5", None),
        ("100 m", None),
        ("100s", None),
        ("123456789", None),
        ("123456789m", None),
        ("m", None),
        ("nan", None),
        ("inf", None),
        ("\u0661", None),  # A digit, but not of ASCII.
        ("5\n", None),
    ],
)
def test_reading_a_header(text: Any, want: float | None) -> None:
    assert deadline.from_header(text, cap=60) == (None if want is None else pytest.approx(want))


def test_a_form_may_be_insisted_on() -> None:
    assert deadline.from_header("250", cap=60, form="grpc") is None
    assert deadline.from_header("250m", cap=60, form="ms") is None
    assert deadline.from_header("250m", cap=60, form="grpc") == 0.25


def test_time_in_a_queue_counts() -> None:
    arrived = time.monotonic() - 2
    left = deadline.from_header("5000", cap=60, arrived=arrived)
    assert left is not None
    assert 0 < left <= 3
    assert deadline.from_header("1000", cap=60, arrived=arrived) == 0
    assert deadline.from_header("1000", cap=60, arrived=time.monotonic() + 100) == 1.0


def test_of_several_headers_the_shortest_counts() -> None:
    pairs = [(b"GRPC-Timeout", b"2S"), (b"X-Request-Timeout-Ms", b"900"), (b"host", b"1")]
    assert deadline.from_headers(pairs, cap=60) == 0.9
    assert deadline.from_headers({"grpc-timeout": "2S"}, cap=1) == 1
    assert deadline.from_headers({"grpc-timeout": "2000"}, cap=60) is None
    assert deadline.from_headers({"x-mine": "70"}, cap=60, names=["X-Mine"]) == 0.07
    assert deadline.from_headers({}, cap=60) is None


@pytest.mark.parametrize("bad", [{"spend": -1}, {"floor": float("nan")}, {"floor": float("inf")}])
def test_parameters_are_checked_by_name(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
        deadline.to_header(hs.CancelToken(5), **bad)
    with pytest.raises(ValueError, match="form must be"):
        deadline.to_header(form="s")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cap must be"):
        deadline.from_header("5", cap=-1)


@pytest.mark.parametrize("seconds", [0.0011, 0.5, 77.7, 4000.0, 123456.0, 4e8, 5e9])
def test_what_was_sent_is_never_more_than_what_is_left(seconds: float) -> None:
    for form in ("ms", "grpc"):
        token = hs.CancelToken(seconds)
        text = deadline.to_header(token, form=form, floor=0)  # type: ignore[arg-type]
        back = deadline.from_header(text, cap=None)
        assert back is not None
        assert back <= seconds
