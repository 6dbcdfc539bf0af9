"""Records reach the disk one by one, and an interrupted file is continued where it broke."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tpt.errors import MethodError, OutputError
from tpt.streaming.output import (
    FinishedRecords,
    Target,
    check_target,
    prepare,
    read_done,
    write_records,
)
from tpt.streaming.records import Adaptation, Failure, Prediction, Record, csv_header

CAT = Prediction("cat, the", 0.75, 1)
ODD_NAMES = ["a,b.png", 'say "x".png', 'new\n"li\n,ne.png', "cr\r.png", "猫é.png", "latin-\udce9"]
RECORDS = [
    Record("plain.png", 0, (CAT,), CAT, Adaptation(0.5, 0.25, 6, 12.5)),
    *[Record(name, place, (CAT,), CAT) for place, name in enumerate(ODD_NAMES, start=1)],
    Record("bad.png", 7, error=Failure("ImageError", 'It is "bad",\nreally.')),
    Record("last.png", 8, (CAT,), CAT),
]
PATHS = [str(record.path) for record in RECORDS]
SETTINGS = {"model": "tiny", "lr": 0.005, "classes": ["cat", "dog"], "context": {"words": "a"}}


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def target_of(form: str, path: str = "out", top_k: int = 2) -> Target:
    return Target(path, form, top_k)


def write_all(target: Target, records: list[Record] = RECORDS, append: bool = False) -> bytes:
    with write_records(target, append) as write:
        for record in records:
            write(record)
    return Path(target.path).read_bytes()


def read_csv(data: bytes) -> list[list[str]]:
    text = data.decode("utf-8", "surrogateescape")
    return list(csv.reader(io.StringIO(text, newline="")))


# --- writing ---


@pytest.mark.parametrize("form", ["jsonl", "csv", "table"])
def test_every_record_is_on_the_disk_as_soon_as_it_is_written(form: str) -> None:
    target, file = target_of(form), Path("out")
    with write_records(target, append=False) as write:
        for record in RECORDS:
            before = file.stat().st_size
            write(record)
            added = file.read_bytes()[before:]
            assert added.endswith(b"\n")
            assert b".png" in added or b"latin" in added


def test_json_lines_hold_the_records_and_nothing_else() -> None:
    lines = write_all(target_of("jsonl")).decode().splitlines()
    assert [json.loads(line) for line in lines] == [record.to_dict() for record in RECORDS]


def test_csv_gives_every_name_back_whatever_it_holds() -> None:
    header, *rows = read_csv(write_all(target_of("csv")))
    assert header == csv_header(2)
    assert [row[0] for row in rows] == PATHS
    assert rows[-2][header.index("error_message")] == 'It is "bad",\nreally.'
    assert {row[1] for row in rows} == {"cat, the", ""}
    assert {len(row) for row in rows} == {len(header)}


def test_a_table_has_titles_and_a_line_an_image() -> None:
    title, rule, *rows = write_all(target_of("table")).decode().splitlines()
    assert title.split()[0] == "image"
    assert set(rule) == {"-"}
    assert len(rows) == len(RECORDS)
    assert "0.500 -> 0.250" in rows[0]
    assert 'error: It is "bad",\\nreally.' in rows[-2]


def test_a_table_marks_what_adaptation_changed_and_keeps_its_columns() -> None:
    changed = replace(RECORDS[0], zero_shot=Prediction("dog", 0.5, 0))
    _, _, row, other, wide = (
        write_all(
            target_of("table"), [changed, RECORDS[0], replace(RECORDS[0], path="猫" * 40 + ".png")]
        )
        .decode()
        .splitlines()
    )
    assert "*" in row
    assert "*" not in other
    assert row.index("0.500") == other.index("0.500")
    assert wide.startswith("…")
    assert wide.index("0.500") + wide.count("猫") == other.index("0.500")


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_standard_output_gets_utf8_and_exact_names_whatever_the_locale(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", newline="\r\n"))
    with write_records(target_of(form, "-"), append=False) as write:
        for record in RECORDS:
            write(record)
        sent = raw.getvalue()
    assert sent == write_all(target_of(form))
    assert not sys.stdout.closed


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_full_disk_is_one_sentence_and_the_records_before_are_whole(form: str) -> None:
    target = target_of(form)
    with pytest.raises(OutputError) as caught, at_most_bytes(500):
        write_all(target)
    message = str(caught.value)
    assert message.startswith('Records could not be written to "out": ')
    assert message.endswith("make room, then go on with --resume.")
    done = read_done(target)
    assert 0 < len(done.paths) < len(RECORDS)
    resumed = write_all(target, RECORDS[len(done.paths) :], append=True)
    assert resumed == write_all(target_of(form, "unbroken"))


@contextmanager
def at_most_bytes(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("form", ["jsonl", "csv", "table"])
def test_a_full_device_does_not_promise_a_resume(form: str) -> None:
    with pytest.raises(OutputError, match="No space left") as caught:
        write_all(target_of(form, "/dev/full"))
    assert "--resume" not in str(caught.value)


# --- what may be written where ---


@pytest.mark.parametrize(
    ("path", "form", "resume", "overwrite", "words"),
    [
        ("-", "jsonl", True, False, "standard output"),
        ("/dev/null", "jsonl", True, False, '"/dev/null"'),
        (".", "jsonl", True, False, "a file of records"),
        ("out", "table", True, False, "--format jsonl or csv"),
        ("out", "jsonl", True, True, "one of them"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(
    path: str, form: str, resume: bool, overwrite: bool, words: str
) -> None:
    with pytest.raises(MethodError, match=words):
        check_target(target_of(form, path), resume, overwrite)


def test_an_existing_file_is_never_written_over_unasked() -> None:
    Path("out").write_text("mine")
    with pytest.raises(OutputError, match=r'"out" exists already. Use --resume .* --overwrite'):
        check_target(target_of("table"), resume=False, overwrite=False)


@pytest.mark.parametrize("path", ["new", "empty", "/dev/null", "-"])
def test_a_new_or_empty_file_a_device_and_standard_output_need_no_permission(path: str) -> None:
    Path("empty").touch()
    check_target(target_of("jsonl", path), resume=False, overwrite=False)


@pytest.mark.parametrize("path", ["-", "/dev/null"])
def test_only_files_get_a_settings_file(path: str) -> None:
    assert prepare(target_of("jsonl", path), SETTINGS, {}, resume=False) is None
    assert os.listdir() == []


def test_a_fresh_file_gets_its_settings_beside_it() -> None:
    assert prepare(target_of("csv"), SETTINGS, {"device": "cpu"}, resume=False) is None
    assert os.listdir() == ["out.settings.json"]
    kept = json.loads(Path("out.settings.json").read_text())
    assert kept == {"settings": SETTINGS, "run": {"device": "cpu"}}


@pytest.mark.parametrize("path", ["file/out", "missing/out"])
def test_a_folder_that_cannot_be_written_is_one_sentence(path: str) -> None:
    Path("file").touch()
    with pytest.raises(OutputError, match="could not be written to") as caught:
        prepare(target_of("jsonl", path), SETTINGS, {}, resume=False)
    assert path in str(caught.value)
    assert "--resume" not in str(caught.value)


def test_a_folder_as_output_is_one_sentence() -> None:
    with pytest.raises(OutputError, match=r'written to "\.": Is a directory'):
        write_all(target_of("jsonl", "."))


def test_old_records_never_stand_beside_new_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_of("jsonl")
    prepare(target, SETTINGS, {}, resume=False)
    write_all(target)

    def fail(*args: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="Input/output error"):
        prepare(target, {**SETTINGS, "lr": 1.0}, {}, resume=False)
    assert Path("out").read_bytes() == b""
    assert json.loads(target.journal.sidecar.read_text())["settings"] == SETTINGS
    assert sorted(os.listdir()) == ["out", "out.settings.json"]


# --- going on ---


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_file_cut_at_any_byte_is_read_up_to_its_last_whole_record(form: str) -> None:
    records = RECORDS[2:4] + RECORDS[6:8]  # with quotes, line breaks, odd bytes and an error
    parts = [write_all(target_of(form), records[:count]) for count in range(len(records) + 1)]
    for size in range(len(parts[-1]) + 1):
        Path("out").write_bytes(parts[-1][:size])
        whole = sum(len(part) <= size for part in parts) - 1  # -1: not even the header of a CSV
        done = read_done(target_of(form))
        assert done.paths == {record.path for record in records[: max(whole, 0)]}, size
        assert done.failed == (whole == 4), size
        assert Path("out").read_bytes() == (parts[whole] if whole >= 0 else b""), size


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.77, 1.0])
def test_a_cut_file_is_completed_to_the_same_bytes(form: str, share: float) -> None:
    target = target_of(form)
    assert prepare(target, SETTINGS, {}, resume=False) is None
    whole = write_all(target)
    os.truncate("out", int(share * len(whole)))
    done = prepare(target, SETTINGS, {}, resume=True)
    rest = [r for r in RECORDS if done is None or r.path not in done.paths]
    assert write_all(target, rest, append=done is not None) == whole


def test_a_file_that_does_not_exist_yet_is_begun_by_resume() -> None:
    target = target_of("jsonl")
    assert prepare(target, SETTINGS, {}, resume=True) is None
    assert target.journal.sidecar.exists()


def test_all_that_was_done_is_counted_with_its_failures() -> None:
    target = target_of("jsonl")
    prepare(target, SETTINGS, {}, resume=False)
    before = write_all(target)
    assert prepare(target, SETTINGS, {}, resume=True) == FinishedRecords(frozenset(PATHS), failed=1)
    assert Path("out").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.1}, r"\(lr; lr was 0.005, now 0.1\)"),
        ({"model": "b", "lr": 0.1}, r'\(lr, model; model was "tiny", now "b"\)'),
        ({"extra": [1]}, r"\(extra; extra was null, now \[1\]\)"),
        ({"context": {"words": "b"}}, r'\(context words; context words was "a", now "b"\)'),
        ({"classes": [str(n) for n in range(99)]}, r"now \[.{56}\.\.\.\)"),
    ],
)
def test_other_settings_are_refused_by_name(changes: dict[str, Any], words: str) -> None:
    target = target_of("jsonl")
    prepare(target, SETTINGS, {}, resume=False)
    before = write_all(target)
    with pytest.raises(OutputError, match=words):
        prepare(target, {**SETTINGS, **changes}, {}, resume=True)
    assert Path("out").read_bytes() == before


def test_tuples_and_lists_are_the_same_settings() -> None:
    target = target_of("jsonl")
    prepare(target, {"classes": ("cat", "dog")}, {}, resume=False)
    write_all(target)
    assert prepare(target, {"classes": ["cat", "dog"]}, {}, resume=True) is not None


@pytest.mark.parametrize(
    "damage",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"5",
        b'{"run": {}}',
        b'{"settings": 5}',
        b'{"settings": "a"}',
        b"\xff",
    ],
)
def test_without_its_settings_a_file_is_not_continued(damage: bytes | None) -> None:
    target = target_of("jsonl")
    before = write_all(target)
    if damage is not None:
        target.journal.sidecar.write_bytes(damage)
    with pytest.raises(OutputError, match=r'"out\.settings\.json" is missing or damaged'):
        prepare(target, SETTINGS, {}, resume=True)
    assert Path("out").read_bytes() == before


@pytest.mark.parametrize(
    ("form", "data", "line"),
    [
        ("jsonl", b"hello\n", 1),
        ("jsonl", b'{"path": "a"}\n{"path": "b\n{"path": "c"}\n', 2),
        ("jsonl", b'{"name": "a"}\n', 1),
        ("jsonl", b"[1]\n", 1),
        ("jsonl", b"5\n", 1),
        ("jsonl", b"\n", 1),
        ("csv", b"hello\n", 1),
        ("csv", b"path,label\na.png,cat\n", 1),
        ("csv", b"HEADER\na.png,cat\n", 2),
        ("csv", b"HEADER\n\n", 2),
    ],
)
def test_a_file_that_is_not_records_is_not_continued(form: str, data: bytes, line: int) -> None:
    data = data.replace(b"HEADER", ",".join(csv_header(2)).encode())
    Path("out").write_bytes(data)
    with pytest.raises(OutputError, match=f'Line {line} of "out" is not a record'):
        read_done(target_of(form))
    assert Path("out").read_bytes() == data
