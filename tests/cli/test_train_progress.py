"""A training shows bars on a terminal, plain lines elsewhere, and only warnings when quiet."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
from terminal import Clock, Terminal

import cli.train_progress
from cli.train import watching
from cli.train_progress import Bars, Plain, Silent
from coop.loop import Epoch, State


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cli.train_progress, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 100 columns in the place of standard error, for the rest of a test."""
    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def epoch(number: int) -> Epoch:
    return Epoch(number, 0.00175, 1.23456, {}, 0.625, 0.1, State(number + 1, {}))


# --- plain lines ---


def test_elsewhere_than_on_a_terminal_epochs_are_told_every_20_seconds_and_at_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Plain()
    for number in range(8):
        clock.now += 9
        watch.epoch(epoch(number), 8)
    out, err = capsys.readouterr()
    assert out == ""
    tail = "loss 1.2346, learning rate 1.75e-03, accuracy 62.5 %"
    assert err.splitlines() == [f"Epoch {number} of 8: {tail}" for number in (3, 6, 8)]


def test_the_last_epoch_of_every_run_is_told(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Plain()
    for _ in range(3):
        for number in range(2):
            watch.epoch(epoch(number), 2)
    assert capsys.readouterr().err.count("Epoch 2 of 2: ") == 3


def test_elsewhere_than_on_a_terminal_encoding_is_told_every_20_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Plain()
    for done in range(1, 2001):
        clock.now += 0.05
        watch.encode("test pictures", done, 2000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) in (4, 5)
    assert lines[0].startswith("Encoding test pictures: 4")
    assert all(line.endswith(" of 2,000") for line in lines)


def test_a_short_training_says_nothing_of_its_encoding(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Plain()
    for done in (1, 2, 3):
        watch.encode("test pictures", done, 3)
    assert capsys.readouterr().err == ""


# --- quiet ---


@pytest.mark.parametrize("on_terminal", [True, False])
def test_quiet_prints_warnings_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, on_terminal: bool
) -> None:
    screen = Terminal() if on_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    with watching(quiet=True) as watch:
        assert isinstance(watch, Silent)
        watch.say("Going on after epoch 2 of 4.")
        watch.encode("test pictures", 1, 1)
        watch.epoch(epoch(0), 1)
        watch.say("Warning: skipped one of the test pictures. It is broken.")
    assert screen.getvalue() == "Warning: skipped one of the test pictures. It is broken.\n"


# --- bars ---


def test_on_a_terminal_a_bar_shows_epochs_with_loss_rate_and_accuracy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = open_terminal(monkeypatch)
    with watching(quiet=False) as watch:
        assert isinstance(watch, Bars)
        watch.epoch(epoch(0), 20)
        watch.epoch(epoch(6), 20)
    shown = screen.getvalue()
    assert "loss 1.2346  lr 1.75e-03  accuracy 62.5 %" in shown
    assert "7/20" in shown


def test_on_a_terminal_a_bar_shows_what_is_encoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = open_terminal(monkeypatch)
    with Bars() as watch:
        watch.encode("validation pictures", 1, 9)
        watch.encode("validation pictures", 4, 9)
    assert "Encoding validation pictures" in screen.getvalue()
    assert "4/9" in screen.getvalue()


def test_a_bar_follows_another_and_a_resumed_training_begins_in_the_middle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = open_terminal(monkeypatch)
    with Bars() as watch:
        for done in (1, 2, 3):
            watch.encode("training pictures", done, 3)
        watch.epoch(epoch(4), 7)  # the first that is seen
        watch.epoch(epoch(5), 7)
    assert "6/7" in screen.getvalue()


def test_what_is_said_on_a_terminal_stands_as_it_is_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = open_terminal(monkeypatch)
    text = f"Warning: [bold]a:cat:b.png[/bold] {'very ' * 30}long/path.png"
    with Bars() as watch:
        watch.encode("training pictures", 1, 3)
        watch.say(text)
        watch.epoch(epoch(0), 3)
    assert text in screen.getvalue()


def test_bars_go_away_when_something_breaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = open_terminal(monkeypatch)

    def train() -> None:
        with Bars() as watch:
            watch.epoch(epoch(0), 3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert screen.getvalue().endswith("\x1b[2K")  # the line of the bar is erased
    assert "\x1b[?25h" in screen.getvalue()  # and the cursor is back


def test_without_a_terminal_there_are_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with watching(quiet=False) as watch:
        assert isinstance(watch, Plain)
