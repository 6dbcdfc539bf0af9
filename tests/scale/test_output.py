"""The folder of parts goes on where a run was broken off, wherever that was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tpt.errors import MethodError, OutputError
from tpt.scale import output
from tpt.scale.output import Parts
from tpt.streaming.record_files import read_records

ABOUT: dict[str, Any] = {"settings": {"model": "tiny"}, "run": {}}
RECORDS: list[dict[str, Any]] = [
    {"path": f"{n}.png", "predictions": [{"label": "cat", "score": 0.5, "index": 0}]}
    for n in range(7)
]
RECORDS[5] = {"path": "5.png", "error": {"type": "ImageError", "message": "It is broken."}}


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.setattr(output, "RECORDS_A_PART", 3)
    return Parts(str(tmp_path / "out"))


def run(parts: Parts, records: list[dict[str, Any]], resume: bool = False, stop: int = 99) -> int:
    """Write what is not done, and break off before record number `stop`; how many were done."""
    parts.check(resume, False)
    with parts.claim():
        done = parts.prepare(ABOUT, resume)
        with parts.write(ABOUT) as write:
            for number, record in enumerate(records):
                if number == stop:
                    raise KeyboardInterrupt
                if record["path"] not in done.paths:
                    write(record)
    return len(done.paths)


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4, 6])
def test_a_broken_off_run_is_completed(parts: Parts, stop: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(parts, RECORDS, stop=stop)
    assert run(parts, RECORDS, resume=True) == stop
    assert list(read_records(parts.folder)) == RECORDS
    names = sorted(path.name for path in Path(parts.folder).iterdir())
    assert names == [*(f"part-{n:06}.parquet" for n in range(3)), "settings.json"]
    assert run(parts, RECORDS, resume=True) == len(RECORDS)


def test_lines_of_which_a_part_was_made_are_not_doubled(parts: Parts) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(parts, RECORDS, stop=3)
    lines = [json.dumps(record) for record in RECORDS[:3]]
    Path(parts.lines).write_text("\n".join(lines) + '\n{"path": "3.p')  # killed in between
    assert run(parts, RECORDS, resume=True) == 3
    assert list(read_records(parts.folder)) == RECORDS


def test_what_must_not_be_written_is_refused(parts: Parts, tmp_path: Path) -> None:
    run(parts, RECORDS)
    with pytest.raises(OutputError, match="holds a run already"):
        parts.check(False, False)
    with pytest.raises(MethodError, match="Give one of them"):
        parts.check(True, True)
    with pytest.raises(OutputError, match="model was"):
        parts.prepare({"settings": {"model": "lite"}, "run": {}}, True)
    parts.settings.write_text("no JSON")
    with pytest.raises(OutputError, match="Start again with --overwrite"):
        parts.prepare(ABOUT, True)
    parts.prepare(ABOUT, False)
    assert [path.name for path in Path(parts.folder).iterdir()] == ["settings.json"]
    with pytest.raises(MethodError, match="Give --output FOLDER"):
        Parts("-").check(False, False)
    (tmp_path / "file").write_text("")
    with pytest.raises(MethodError, match="Give --output FOLDER"):
        Parts(str(tmp_path / "file")).check(False, False)
