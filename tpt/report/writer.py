"""Draw a finished run again from its folder: tables, report page, heat map.

`tpt eval` and `tpt transfer` end with it, and `tpt report DIR` calls it alone, without a model: it
reads results.json or transfer.json and nothing else, so all three write the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tpt.errors import OutputError
from tpt.evaluate.results import FORMAT, TRANSFER_FORMAT, TRANSFER_VERSION, VERSION
from tpt.report import eval_tables, transfer_tables
from tpt.report.console import console_table
from tpt.report.heatmap import draw_heatmap
from tpt.report.page import render_report
from tpt.runs.whole_files import write_whole

KNOWN = {
    "results.json": (FORMAT, VERSION),
    "transfer.json": (TRANSFER_FORMAT, TRANSFER_VERSION),
}


def write_report(folder: Path, output: Path | None = None) -> tuple[str, Path]:
    """Write tables.md, tables.tex, and report.html or heatmap.png.

    Args:
        folder: of a finished run, with results.json or transfer.json.
        output: where the files go; default `folder`.

    Returns:
        The main table for a terminal, and the file to look at.

    Raises:
        OutputError: no finished run there, or one of another version; the disk refused; matplotlib
            is missing for a heat map (the tables are written by then).
        ImportError: jinja2 is not installed.
    """
    name, content = read_run(folder)
    output = folder if output is None else output
    is_eval = name == "results.json"
    tables = eval_tables if is_eval else transfer_tables
    files = {"md": tables.markdown_tables(content), "tex": tables.latex_tables(content)}
    for suffix, text in files.items():
        body = text.encode("utf-8", "backslashreplace")
        write_whole(output / f"tables.{suffix}", body, what="tables")
    if is_eval:
        page = output / "report.html"
        write_whole(page, render_report(content).encode(), what="report")
        return console_table(content), page
    title = f"Transfer, {content['settings']['model']}: top-1, %"
    draw_heatmap(transfer_tables.list_panels(content), title, output / "heatmap.png")
    return transfer_tables.console_table(content), output / "heatmap.png"


def read_run(folder: Path) -> tuple[str, Mapping[str, Any]]:
    """(file name, content) of what a finished run measured.

    Raises:
        OutputError: none is there, or it is damaged or of another version.
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
            "finished `tpt eval` or `tpt transfer`. An unfinished run ends with --resume."
        )
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        found = content["format"], content["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f'"{folder / name}" is damaged: expected what `tpt eval` or `tpt transfer` wrote. Run '
            "the command again with --resume."
        ) from error
    kind, version = KNOWN[name]
    if found != (kind, version):
        raise OutputError(
            f'"{folder / name}" is {found[0]} version {found[1]}; expected {kind} version '
            f"{version}. Use the version of tpt-runtime that wrote it."
        )
    return name, content
