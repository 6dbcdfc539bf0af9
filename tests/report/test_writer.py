"""A finished run is drawn again from its folder: the same bytes, without a model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from report.report_sample import sample_confusions, sample_gallery, with_pictures
from report.sample import sample_results

from tpt.errors import OutputError
from tpt.report.writer import write_report

DRAWN = ["report.html", "results.json", "tables.md", "tables.tex"]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder of a finished run, as far as it was measured."""
    results = with_pictures(sample_results(), sample_gallery(), sample_confusions())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    return tmp_path / "run"


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_run_is_drawn_whole_and_again_to_the_same_bytes(finished: Path) -> None:
    table, page = write_report(finished)
    first = read_all(finished)
    assert list(first) == DRAWN
    assert page == finished / "report.html"
    assert first["report.html"].endswith(b"</html>")
    assert first["report.html"].count(b"data:image/jpeg") == 15
    assert table.startswith("set ")
    assert write_report(finished) == (table, page)
    assert read_all(finished) == first


def test_it_goes_elsewhere_if_wanted(finished: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else" / "where"
    write_report(finished, elsewhere)
    assert list(read_all(elsewhere)) == [name for name in DRAWN if name != "results.json"]
    assert list(read_all(finished)) == ["results.json"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "holds neither results.json nor transfer.json"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ('{"format": "tpt-eval"}', "is damaged"),
        ('{"format": "tpt-eval", "format_version": 1}', "is damaged (KeyError"),
        ('{"format": "tpt-eval", "format_version": 1, "tool": "", "sets": 3}', "is damaged"),
        ('{"format": "tpt-eval", "format_version": 9}', "tpt-eval version 9; expected tpt-eval"),
        ('{"format": "other", "format_version": 1}', "is other version 1; expected tpt-eval"),
    ],
)
def test_what_is_no_finished_run_is_refused(tmp_path: Path, content: str | None, text: str) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(OutputError) as caught:
        write_report(tmp_path)
    assert text in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"] * (content is not None)


def test_a_transfer_without_its_matrices_is_refused(tmp_path: Path) -> None:
    (tmp_path / "transfer.json").write_text('{"format": "tpt-transfer", "format_version": 1}')
    with pytest.raises(OutputError, match=r"transfer\.json\" is damaged \(KeyError"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["transfer.json"]


def test_an_output_that_cannot_be_made_is_a_sentence(finished: Path) -> None:
    for output in (finished / "results.json", finished / "results.json" / "in"):
        with pytest.raises(OutputError, match=r"cannot be made: (File exists|Not a directory)"):
            write_report(finished, output)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is not a folder: expected the --output of a finished"):
        write_report(tmp_path / "missing")


def test_the_command_draws_without_torch(finished: Path) -> None:
    program = (
        "import sys\nfrom cli.main import main\n"
        f"main(['report', {str(finished)!r}], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("set ")
    assert done.stderr == f"Written: {finished / 'report.html'}\n"


def test_the_command_says_what_is_missing_in_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli", "report", str(tmp_path)]
    done: Any = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Finish an unfinished run with --resume." in done.stderr
    assert "Traceback" not in done.stderr
