"""Draws a finished run from its folder: tables, report page, heat map.

`tpt eval` and `tpt transfer` end with it, and `tpt report DIR` does only this, without a model. It
reads only results.json or transfer.json, so all three write the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tpt.errors import OutputError, describe_error, why
from tpt.evaluate.results import FORMAT, TRANSFER_FORMAT, TRANSFER_VERSION, VERSION
from tpt.report import eval_tables, transfer_tables
from tpt.report.console import console_table
from tpt.report.heatmap import draw_heatmap
from tpt.report.page import render_report
from tpt.runs.whole_files import write_whole
from tpt.text import read_json

KNOWN = {
    "results.json": (FORMAT, VERSION),
    "transfer.json": (TRANSFER_FORMAT, TRANSFER_VERSION),
}


def write_report(folder: Path, output: Path | None = None) -> tuple[str, Path]:
    """Write tables.md, tables.tex, and report.html or heatmap.png.

    Args:
        folder: of a finished run, with results.json or transfer.json.
        output: the folder to write to, made if it is missing; default `folder`.

    Returns:
        The main table for a terminal, and the file to look at.

    Raises:
        OutputError: no finished run there, or one that is damaged or of another version; the
            output cannot be made; the disk refused; matplotlib is missing for a heat map, after
            the tables were written.
        ImportError: jinja2 is not installed.
    """
    name, content = read_run(folder)
    output = folder if output is None else output
    try:
        output.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a file, or below one; a NUL in its name
        raise OutputError(
            f'The output "{output}" cannot be made: {why(error)}. Name another folder.'
        ) from error
    try:
        return (_draw_eval if name == "results.json" else _draw_transfer)(content, output)
    except (ImportError, MemoryError, OutputError):
        raise
    except Exception as error:  # entries that are missing, or of other types than they should be
        raise _damaged(folder / name, error) from error


# Everything is made before anything is written: damaged content leaves earlier files unchanged.


def _draw_eval(content: Mapping[str, Any], output: Path) -> tuple[str, Path]:
    table, page = console_table(content), render_report(content).encode()
    _write_tables(*eval_tables.set_tables(content), output)
    write_whole(output / "report.html", page, what="report")
    return table, output / "report.html"


def _draw_transfer(content: Mapping[str, Any], output: Path) -> tuple[str, Path]:
    table, panels = transfer_tables.console_table(content), transfer_tables.list_panels(content)
    title = f"Transfer, {content['settings']['model']}: top-1, %"
    _write_tables(*transfer_tables.set_tables(content), output)
    draw_heatmap(panels, title, output / "heatmap.png")
    return table, output / "heatmap.png"


def _write_tables(markdown: str, latex: str, output: Path) -> None:
    for suffix, text in (("md", markdown), ("tex", latex)):
        body = text.encode("utf-8", "backslashreplace")
        write_whole(output / f"tables.{suffix}", body, what="tables")


def read_run(folder: Path) -> tuple[str, Mapping[str, Any]]:
    """(file name, content) of a finished run's results.

    Raises:
        OutputError: there is none, or it is damaged or of another version.
    """
    if not folder.is_dir():
        raise OutputError(
            f'"{folder}" is not a folder: expected the --output of a finished `tpt eval` or `tpt '
            "transfer`. Check the path."
        )
    name = next((name for name in KNOWN if (folder / name).is_file()), None)
    if name is None:
        raise OutputError(
            f'"{folder}" holds neither results.json nor transfer.json: expected the --output of a '
            "finished `tpt eval` or `tpt transfer`. Finish an unfinished run with --resume."
        )
    try:
        content = read_json(folder / name)
        found = content["format"], content["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder / name, error) from error
    kind, version = KNOWN[name]
    if found != (kind, version):
        raise OutputError(
            f'"{folder / name}" is {found[0]} version {found[1]}; expected {kind} version '
            f"{version}. Use the version of tpt-runtime that wrote it."
        )
    return name, content


def _damaged(path: Path, error: Exception) -> OutputError:
    return OutputError(
        f'"{path}" is damaged ({describe_error(error)}): expected what `tpt eval` or `tpt '
        "transfer` wrote. Run the command again with --resume."
    )
