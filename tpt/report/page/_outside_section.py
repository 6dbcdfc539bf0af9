"""How well confidence separates a set's pictures from outside ones, for runs with `--outside`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from jinja2 import Environment

from tpt.report.page._text import write_percent
from tpt.report.page.sections import Section

SHARES = ("auroc", "fpr95", "false_alarms", "misses")


def make_groups(entries: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The entries of each set against each outside folder; `best` names each entry's best shares.

    Shares that show the same number are all best; an entry without rivals has no best.
    """
    groups = [list(found) for _, found in groupby(entries, lambda e: (e["dataset"], e["outside"]))]
    made = []
    for group in groups:
        most = {"auroc": max(e["auroc"] for e in group), "fpr95": min(e["fpr95"] for e in group)}
        top = {key: write_percent(value) for key, value in most.items() if len(group) > 1}
        rows = []
        for entry in group:
            shown = {key: write_percent(entry[key]) for key in SHARES}
            best = {key for key, text in top.items() if shown[key] == text}
            rows.append({**entry, "shown": shown, "best": best})
        made.append(rows)
    return made


def _draw(results: Mapping[str, Any], templates: Environment) -> str:
    groups = make_groups(results.get("outside") or [])
    template = templates.get_template("outside.html")
    return template.render(groups=groups, shares=SHARES) if groups else ""


OUTSIDE = Section("outside", "Outside", "Pictures that are none of the classes", _draw)
