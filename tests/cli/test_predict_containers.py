"""`tpt predict` of tars and Parquet files: the records of their pictures, lazily, and --resume."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import Result

ZERO_SHOT = ("--classes", "cat,dog", "--method", "zero_shot", "--device", "cpu")


def records_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def test_members_and_rows_get_their_files_records(
    run_tpt: Callable[..., Result], make_images: Callable[..., list[str]]
) -> None:
    names = make_images("in/1.png", "in/2.png", "in/3.png")
    with tarfile.open("s.tar", "w") as archive:
        for name in names:
            archive.add(name, arcname=Path(name).name)
        broken = tarfile.TarInfo("bad.png")
        broken.size = 5
        archive.addfile(broken, io.BytesIO(b"12345"))
    cells = [Path(name).read_bytes() for name in names]
    pq.write_table(pa.table({"pixels": [*cells, None]}), "t.parquet")

    assert run_tpt("predict", "in", *ZERO_SHOT, "--output", "files").exit_code == 0
    words = ("predict", "s.tar", "t.parquet", *ZERO_SHOT, "--column", "pixels", "--output", "out")
    assert run_tpt(*words, "--batch-size", 2).exit_code == 3
    expected = [record["predictions"] for record in records_of("files")]
    found = records_of("out")
    assert [record["path"] for record in found] == [
        *("s.tar/1.png", "s.tar/2.png", "s.tar/3.png", "s.tar/bad.png"),
        *(f"t.parquet#{row}" for row in range(4)),
    ]
    assert [record["predictions"] for record in found if "error" not in record] == expected * 2
    assert found[3]["error"]["type"] == found[7]["error"]["type"] == "ImageError"

    whole = Path("out").read_bytes()
    lines = whole.splitlines(keepends=True)
    Path("out").write_bytes(b"".join(lines[:5]) + lines[5][:20])
    result = run_tpt(*words, "--batch-size", 2, "--resume")
    assert result.exit_code == 3
    assert Path("out").read_bytes() == whole
    assert "3 images in" in result.stderr
    assert "5 were done before." in result.stderr


def test_a_column_that_is_not_there_is_wrong_usage(run_tpt: Callable[..., Result]) -> None:
    pq.write_table(pa.table({"pixels": [b"1"]}), "t.parquet")
    result = run_tpt("predict", "t.parquet", *ZERO_SHOT, "--column", "image")
    assert result.exit_code == 2
    assert 'The column "image" of "t.parquet" is not there' in result.stderr


def test_a_dry_run_opens_no_archive(run_tpt: Callable[..., Result]) -> None:
    Path("s.tar").write_bytes(b"junk")
    result = run_tpt("predict", "s.tar", *ZERO_SHOT, "--dry-run")
    assert result.exit_code == 0
    assert "counted as they come" in result.stdout
