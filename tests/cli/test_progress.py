"""Progress is a bar on a terminal, a plain line now and then elsewhere, and can be silent."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
from terminal import Clock, Terminal

import cli.progress
from cli.progress import Tally, progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cli.progress, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.mark.parametrize(
    ("total", "text"),
    [
        (101, "about 10 s left"),
        (980, "about 88 s left"),
        (6400, "about 10.5 min left"),
        (1_000_000, "about 27.8 h left"),
        (100, "about 0 s left"),
    ],
)
def test_the_time_left_follows_from_the_rate(clock: Clock, total: int, text: str) -> None:
    tally = Tally(total, 100, started=clock.now)
    clock.now += 1000 if total == 101 else 10
    assert tally.left() == text


@pytest.mark.parametrize(
    ("tally", "text"),
    [
        (Tally(5000, 5000), "5,000 of 5,000 images in 200.0 s (25/s)"),
        (Tally(3, 1), "1 of 3 images in 200.0 s (0.005/s)"),
        (
            Tally(8, 8, failed=2, warned=3),
            "8 of 8 images in 200.0 s (0.04/s), 2 failed, 3 with a warning",
        ),
        (Tally(8, 8, failed=2), "8 of 8 images in 200.0 s (0.04/s), 2 failed"),
        (
            Tally(9, 8, failed=1, changed=1200),
            "8 of 9 images in 200.0 s (0.04/s), 1 failed, 1,200 changed by adaptation",
        ),
        (
            Tally(8, 8, skipped=3),
            "8 of 8 images in 200.0 s (0.04/s), 3 left alone by the gate (38 %)",
        ),
        (
            Tally(9000, 4000, failed=1, changed=2, skipped=3000),
            "4,000 of 9,000 images in 200.0 s (20/s), 1 failed, 2 changed by adaptation, "
            "3,000 left alone by the gate (75 %)",
        ),
    ],
)
def test_the_tally_counts_images_time_failures_changes_and_what_was_left_alone(
    clock: Clock, tally: Tally, text: str
) -> None:
    tally.started = clock.now
    clock.now += 200
    assert tally.summary() == text


def test_a_run_that_took_no_time_has_a_rate_all_the_same(clock: Clock) -> None:
    assert "0 of 0 images in 0.0 s (0/s)" in Tally(0, started=clock.now).summary()


def test_elsewhere_than_on_a_terminal_a_plain_line_comes_every_30_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = Tally(100, started=clock.now)
    with progress(quiet=False) as show:
        for _ in range(7):
            clock.now += 10
            tally.done += 1
            show(tally)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "3 of 100 images in 30.0 s (0.1/s) so far, about 16.2 min left",
        "6 of 100 images in 60.0 s (0.1/s) so far, about 15.7 min left",
    ]


@pytest.mark.parametrize("on_terminal", [True, False])
def test_quiet_prints_nothing(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, on_terminal: bool
) -> None:
    screen = Terminal() if on_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress(quiet=True) as show:
        clock.now += 1000
        show(Tally(5, 3, started=0.0))
    assert screen.getvalue() == ""


def test_on_a_terminal_the_bar_shows_counts_and_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", screen)
    with progress(quiet=False) as show:
        show(Tally(5, 3, failed=2))
    assert "3/5" in screen.getvalue()
    assert "2 failed" in screen.getvalue()
