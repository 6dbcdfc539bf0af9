"""`tpt records convert` takes B's ending for its form, and never replaces a file unasked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import Result

LINE = '{"path": "a.png", "predictions": [{"label": "cat", "score": 0.5, "index": 0}]}\n'


def test_the_form_is_by_the_ending_or_said(run_tpt: Callable[..., Result]) -> None:
    Path("a.jsonl").write_text(LINE)
    assert run_tpt("records", "convert", "a.jsonl", "b.parquet").exit_code == 0
    assert run_tpt("records", "convert", "b.parquet", "c.jsonl").exit_code == 0
    assert Path("c.jsonl").read_text() == LINE
    refused = run_tpt("records", "convert", "a.jsonl", "c.jsonl")
    assert refused.exit_code == 1
    assert '"c.jsonl" exists already' in refused.stderr
    assert run_tpt("records", "convert", "a.jsonl", "c.jsonl", "--overwrite").exit_code == 0
    unknown = run_tpt("records", "convert", "a.jsonl", "tasks.json")
    assert unknown.exit_code == 2
    assert "Say the form with --to" in unknown.stderr
    told = run_tpt("records", "convert", "a.jsonl", "tasks.json", "--to", "label-studio")
    assert told.exit_code == 0
    assert "1 records: tasks.json" in told.stderr


def test_predict_writes_parquet_by_its_name(
    run_tpt: Callable[..., Result], make_images: Callable[..., list[str]]
) -> None:
    make_images("a.png", "b.png")
    words = ("predict", "a.png", "b.png", "--classes", "cat,dog", "--method", "zero_shot")
    assert run_tpt(*words, "--output", "out.parquet").exit_code == 0
    assert run_tpt(*words, "--output", "out.jsonl").exit_code == 0
    assert run_tpt("records", "convert", "out.parquet", "back.jsonl").exit_code == 0
    assert Path("back.jsonl").read_bytes() == Path("out.jsonl").read_bytes()
    before = Path("out.parquet").read_bytes()
    again = run_tpt(*words, "--output", "out.parquet", "--resume")
    assert "2 were done before" in again.stderr
    assert len(Path("out.parquet").read_bytes()) == len(before)
