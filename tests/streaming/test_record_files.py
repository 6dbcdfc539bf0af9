"""Records in Parquet are those of JSON lines; conversions and exports say what records say."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tpt.errors import MethodError, OutputError
from tpt.streaming.output import Target, check_target, finish, prepare, write_records
from tpt.streaming.record_files import convert, read_records
from tpt.streaming.record_parquet import read_about
from tpt.streaming.records import Adaptation, Failure, Prediction, Record

CAT, DOG = Prediction("cat", 0.75, 4), Prediction("dog", 0.25, 0)
ADAPT = Adaptation(entropy_before=0.5, entropy_after=None, views_kept=6, ms=12.0)
RECORDS = [
    Record("a.png", 0, (CAT, DOG), DOG, ADAPT),
    Record("s3://b/c.png", 1, (CAT,), CAT, Adaptation(None, None, 1, 1.5, skipped=True)),
    Record(None, 2, (Prediction("cat", None, 4, votes=5),), warning="It was grey."),
    Record("latin-\udce9.png", 3, (CAT, DOG), DOG, rejected=True),
    Record("bad.png", 4, error=Failure("ImageError", "It is broken.")),
]
SETTINGS = {"model": "tiny", "top_k": 2}


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(form: str, records: list[Record] = RECORDS, resume: bool = False) -> str:
    target = Target(f"out.{form}", form, 2)
    check_target(target, resume, False)
    done = prepare(target, SETTINGS, {"device": "cpu"}, resume)
    with write_records(target.lines, append=done is not None) as put:
        for record in records:
            put(record)
    finish(target)
    return target.path


def read_csv(path: str) -> list[list[str]]:
    with Path(path).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


def plain(records: list[Record]) -> list[dict[str, Any]]:
    return [record.to_dict() for record in records]


def test_parquet_holds_a_record_whole_and_the_settings() -> None:
    path = write("parquet")
    assert list(read_records(path)) == plain(RECORDS)
    assert read_about(path) == {"settings": SETTINGS, "run": {"device": "cpu"}}
    assert os.listdir() == ["out.parquet"]
    table = pq.read_table(path, columns=["path", "label", "score"]).to_pylist()
    assert table[0] == {"path": "a.png", "label": "cat", "score": 0.75}
    assert table[4] == {"path": "bad.png", "label": None, "score": None}


def test_a_broken_off_parquet_run_goes_on_from_its_lines() -> None:
    target = Target("out.parquet", "parquet", 2)
    prepare(target, SETTINGS, {}, False)
    with write_records(target.lines, append=False) as put:
        put(RECORDS[0])
    assert not Path("out.parquet").exists()
    with pytest.raises(OutputError, match="exists already"):
        check_target(target, False, False)
    done = prepare(target, SETTINGS, {}, True)
    assert done is not None
    assert done.paths == {"a.png"}


def test_a_finished_parquet_file_is_gone_on_with() -> None:
    write("parquet", RECORDS[:3])
    with pytest.raises(OutputError, match="exists already"):
        check_target(Target("out.parquet", "parquet", 2), False, False)
    path = write("parquet", RECORDS[3:], resume=True)
    assert list(read_records(path)) == plain(RECORDS)
    with pytest.raises(OutputError, match="was made with other settings"):
        prepare(Target(path, "parquet", 2), {**SETTINGS, "model": "lite"}, {}, True)


def test_parquet_is_not_written_to_standard_output() -> None:
    with pytest.raises(MethodError, match=r"Give --output FILE\.parquet"):
        check_target(Target("-", "parquet", 2), False, False)


def test_lines_become_parquet_and_lines_again_to_the_last_byte() -> None:
    before = Path(write("jsonl")).read_bytes()
    assert convert("out.jsonl", "x.parquet", "parquet") == len(RECORDS)
    assert convert("x.parquet", "y.jsonl", "jsonl") == len(RECORDS)
    assert Path("y.jsonl").read_bytes() == before


def test_csv_has_the_columns_of_the_command() -> None:
    write("csv")
    write("jsonl")
    convert("out.jsonl", "x.csv", "csv")
    assert read_csv("x.csv") == read_csv("out.csv")


@pytest.mark.parametrize("name", ["a\rb.png", "a\nb.png", "a\r\nb.png", 'a,"b".png'])
def test_csv_gives_names_with_line_breaks_and_quotes_back(name: str) -> None:
    write("jsonl", [Record(name, 0, (CAT, DOG), DOG)])
    convert("out.jsonl", "x.csv", "csv")
    assert [row[0] for row in read_csv("x.csv")] == ["path", name]


def test_label_studio_gets_a_task_for_every_picture() -> None:
    convert(write("jsonl"), "tasks.json", "label-studio")
    tasks = json.loads(Path("tasks.json").read_text())
    assert len(tasks) == len(RECORDS)
    place = Path("a.png").absolute()
    assert tasks[0]["data"] == {"image": f"/data/local-files/?d={str(place)[1:]}", "path": "a.png"}
    (said,) = tasks[0]["predictions"]
    assert (said["model_version"], said["score"]) == ("tiny", 0.75)
    (result,) = said["result"]
    assert result["value"] == {"choices": ["cat"]}
    names = [result[key] for key in ("from_name", "to_name", "type")]
    assert names == ["choice", "image", "choices"]
    assert tasks[1]["data"]["image"] == "s3://b/c.png"
    assert "predictions" not in tasks[4]


def test_fiftyone_gets_labels_and_places() -> None:
    convert(write("jsonl"), "samples", "fiftyone")
    labels = json.loads(Path("samples/labels.json").read_text())["labels"]
    places = json.loads(Path("samples/data.json").read_text())
    assert list(labels) == list(places)
    assert len(labels) == len(RECORDS) - 1
    first = next(iter(labels))
    assert labels[first] == {"label": "cat", "confidence": 0.75}
    assert places[first] == str(Path("a.png").absolute())


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet", "folder"])
def test_what_holds_no_records_is_told(name: str) -> None:
    if name == "folder":
        Path(name).mkdir()
    else:
        Path(name).write_text('{"a": 1}\n')
    with pytest.raises(OutputError, match=r"records|not a record"):
        convert(name, "y.jsonl", "jsonl")
    assert not Path("y.jsonl").exists()
