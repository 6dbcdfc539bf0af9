"""Lines reach the disk one by one; a journal is gone on with by the same settings or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpt.errors import MethodError, OutputError
from tpt.runs.journal import Journal, check_same, open_lines, read_lines

JOURNAL = Journal("out")


def write(*items: Any, append: bool = True, header: str | None = None) -> bytes:
    with open_lines("out", json.dumps, append=append, header=header) as put:
        for item in items:
            put(item)
    return Path("out").read_bytes()


# --- lines ---


def test_every_line_is_on_the_disk_as_soon_as_it_is_written() -> None:
    with open_lines("out", json.dumps) as put:
        for number in range(3):
            put(number)
            assert Path("out").read_bytes().splitlines()[-1] == str(number).encode()


def test_a_file_is_gone_on_with_or_begun_again_and_has_one_header() -> None:
    assert write(1, header="h") == b"h\n1\n"
    assert write(2, header="h") == b"h\n1\n2\n"
    assert write(3, append=False, header="h") == b"h\n3\n"


def test_names_that_are_not_utf8_keep_their_bytes() -> None:
    with open_lines("out", str) as put:
        put("é\udce9")
    assert Path("out").read_bytes() == b"\xc3\xa9\xe9\n"


def test_a_disk_that_refuses_is_the_callers_sentence() -> None:
    def refuse(path: str, error: OSError, can_resume: bool) -> OutputError:
        return OutputError(f"{path}, {error.errno}, {can_resume}")

    with pytest.raises(OutputError, match=f"^a/out, {errno.ENOENT}, False$"):
        open_lines("a/out", str, refuse=refuse).__enter__()
    if os.path.exists("/dev/full"):
        told = f"^/dev/full, {errno.ENOSPC}, True$"
        with (
            pytest.raises(OutputError, match=told),
            open_lines("/dev/full", str, refuse=refuse) as put,
        ):
            put("x")


def test_a_broken_line_behind_the_others_is_cut_off() -> None:
    whole = b"1\n22\n333\n"
    for size in range(len(whole) + 1):
        Path("out").write_bytes(whole[:size])
        lines = list(read_lines("out"))
        assert b"".join(lines) == whole[: whole.rfind(b"\n", 0, size) + 1]
        assert Path("out").read_bytes() == b"".join(lines)


def test_nothing_is_cut_off_before_all_lines_are_read() -> None:
    Path("out").write_bytes(b"1\n2\n3")
    lines = read_lines("out")
    next(lines)
    lines.close()  # type: ignore[attr-defined]  # a generator
    assert Path("out").read_bytes() == b"1\n2\n3"


def test_a_line_may_hold_breaks_and_may_lack_its_end() -> None:
    Path("out").write_bytes(b'"a\nb"\nc')
    closed = list(read_lines("out", lambda line: line.count(b'"') != 1, lambda rest: rest == b"c"))
    assert closed == [b'"a\nb"\n', b"c\n"]
    assert Path("out").read_bytes() == b'"a\nb"\nc\n'


def test_a_file_that_cannot_be_read_is_a_sentence() -> None:
    with pytest.raises(OutputError, match='written to "out": No such file'):
        list(read_lines("out"))


# --- settings ---


def test_the_settings_stand_beside_the_lines() -> None:
    JOURNAL.begin({"lr": 1}, {"device": "cpu"})
    kept = json.loads(Path("out.settings.json").read_text())
    assert kept == {"settings": {"lr": 1}, "run": {"device": "cpu"}}
    assert JOURNAL.read_settings() == {"lr": 1}
    assert os.listdir() == ["out.settings.json"]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"5", b'{"run": {}}', b'{"settings": 5}', b"\xff", None]
)
def test_settings_that_nobody_knows_are_a_sentence(damage: bytes | None) -> None:
    if damage is not None:
        JOURNAL.sidecar.write_bytes(damage)
    with pytest.raises(OutputError, match=r'"out\.settings\.json" is missing or damaged'):
        JOURNAL.read_settings()


def test_old_lines_never_stand_beside_new_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    JOURNAL.begin({"lr": 1}, {})
    write("old")

    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for step, left in (("truncate", b'"old"\n'), ("replace", b"")):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, fail)
            with pytest.raises(OutputError, match="No space left"):
                JOURNAL.begin({"lr": 2}, {})
        assert Path("out").read_bytes() == left
        assert JOURNAL.read_settings() == {"lr": 1}
        assert sorted(os.listdir()) == ["out", "out.settings.json"]


def test_other_settings_are_refused_by_what_changed() -> None:
    check_same({"classes": ["a"]}, {"classes": ("a",)}, "out")
    with pytest.raises(OutputError) as refused:
        check_same({"lr": 1}, {"lr": 2}, "out")
    assert str(refused.value) == (
        '"out" was made with other settings (lr; lr was 1, now 2). Use the same settings, another '
        "--output, or --overwrite."
    )


# --- one writer ---


def test_a_model_is_the_same_by_its_weights_and_not_by_its_place() -> None:
    begun = {"model": "local-dir:/a", "pretrained": None, "weights": "1f"}
    check_same(begun, {**begun, "model": "local-dir:/b"}, "out")
    with pytest.raises(OutputError, match='weights was "1f", now "2e"'):
        check_same(begun, {**begun, "weights": "2e"}, "out")
    older = {"model": "local-dir:/a", "pretrained": None}  # which did not say its weights
    check_same(older, begun, "out")
    with pytest.raises(OutputError, match='model was "local-dir:/a", now "local-dir:/b"'):
        check_same(older, {**begun, "model": "local-dir:/b"}, "out")


def test_a_journal_that_is_begun_is_never_written_over_unasked() -> None:
    JOURNAL.check(False, False)
    write("mine")
    with pytest.raises(OutputError, match=r'"out" exists already. Use --resume .* --overwrite'):
        JOURNAL.check(False, False)
    with pytest.raises(MethodError, match="Give one of them"):
        JOURNAL.check(True, True)


@pytest.mark.parametrize("again", [(False, False), (True, False), (False, True)])
def test_a_journal_has_one_writer(again: tuple[bool, bool]) -> None:
    told = f'Another run writes to "out": process {os.getpid()} on '
    with JOURNAL.claim(*again):
        with pytest.raises(OutputError, match=told):
            JOURNAL.check(*again)
        with pytest.raises(OutputError, match=told), JOURNAL.claim(*again):
            pass
    assert os.listdir() == []


def test_a_run_that_ended_between_the_check_and_the_claim_is_not_lost() -> None:
    JOURNAL.check(False, False)
    write("theirs")
    with pytest.raises(OutputError, match="exists already"), JOURNAL.claim(False, False):
        pass
    assert Path("out").read_bytes() == b'"theirs"\n'


# --- any lines, killed anywhere ---


@given(st.lists(st.text(max_size=8), min_size=1, max_size=5), st.data())
def test_what_a_killed_run_leaves_is_gone_on_with_to_the_same_bytes(
    items: list[str], data: st.DataObject
) -> None:
    whole = write(*items, append=False)
    size = data.draw(st.integers(0, len(whole)))
    Path("out").write_bytes(whole[:size])
    kept = [json.loads(line) for line in read_lines("out")]
    assert kept == items[: len(kept)]
    assert write(*items[len(kept) :]) == whole


@given(st.binary(max_size=60))
def test_any_bytes_are_whole_lines_and_a_rest_that_is_cut_off(content: bytes) -> None:
    Path("out").write_bytes(content)
    lines = list(read_lines("out"))
    assert b"".join(lines) == Path("out").read_bytes() == content[: content.rfind(b"\n") + 1]
