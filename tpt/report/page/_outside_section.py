"""How well confidence tells a set's pictures from outside ones, where `--outside` judged some."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from jinja2 import Environment

from tpt.report.page._text import write_percent
from tpt.report.page.sections import Section

SHARES = ("auroc", "fpr95", "false_alarms", "misses")


def make_groups(entries: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The entries of each set against each outside folder; `best` are the shares that none beats.

    What reads the same is equally good; alone, nothing is best.
    """
    groups = [list(found) for _, found in groupby(entries, lambda e: (e["dataset"], e["outside"]))]
    made = []
    for group in groups:
        heights = {write_percent(max(entry["auroc"] for entry in group))}
        depths = {write_percent(min(entry["fpr95"] for entry in group))}
        made.append([_make_row(entry, heights, depths, len(group) > 1) for entry in group])
    return made


def _make_row(
    entry: dict[str, Any], heights: set[str], depths: set[str], compared: bool
) -> dict[str, Any]:
    shown = {key: write_percent(entry[key]) for key in SHARES}
    best = (
        {key for key, texts in (("auroc", heights), ("fpr95", depths)) if shown[key] in texts}
        if compared
        else set()
    )
    return {**entry, "shown": shown, "best": best}


def _draw(results: Mapping[str, Any], templates: Environment) -> str:
    groups = make_groups(results.get("outside") or [])
    template = templates.get_template("outside.html")
    return template.render(groups=groups, shares=SHARES) if groups else ""


OUTSIDE = Section("outside", "Outside", "Pictures that are none of the classes", _draw)
