"""Puts the page together: the template, its style and script, and the data it shows."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import zip_longest
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from tpt.report.page import _charts as charts
from tpt.report.page import _reliability_section as reliability
from tpt.report.page import _severity_section as severity
from tpt.report.page import _table_sections as tables
from tpt.report.page import _text as text
from tpt.report.page._facts import (
    VERDICTS,
    Facts,
    group_sets,
    judge,
    make_cards,
    make_scores,
    read_facts,
)
from tpt.report.page._outside_section import OUTSIDE
from tpt.report.page._protocol_section import PROTOCOLS

SECTIONS = (PROTOCOLS, OUTSIDE)
"""The independent sections, in the order of the page."""

MOST_ROWS = 24  # sets in one chart of intervals; more are split by tree and corruption
SHOWN_ABOVE = ("gallery", "confusions")  # shown in full, so not embedded again
MOST_CHANGES = 10  # changed answers shown a set and method; half of it for many sets


def render_page(results: Mapping[str, Any]) -> str:
    """The page of `results`; see `render_report`."""
    facts = read_facts(results)
    script = _read("report.js")
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Every name goes through here: file names may hold bytes that are no text.
        finalize=lambda value: text.clean_text(value) if type(value) is str else value,
    )
    environment.filters |= {"mark": charts.draw_mark, "score": charts.draw_score, **text.WRITERS}
    robustness = tables.make_robustness_table(facts)
    template = environment.get_template("report.html")
    drawn = [(section, section.make(results, environment)) for section in SECTIONS]
    page: str = template.render(
        results=results,
        facts=facts,
        set_names=[entry["name"] for entry in facts.sets],
        style=Markup(_read("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        shapes=charts.draw_shapes(),
        verdicts=VERDICTS,
        images=_count_images(facts),
        failed=[entry for entry in results["sets"] if entry["failed"]],
        **_make_overview(facts),
        accuracy=tables.make_accuracy_table(facts),
        intervals=_draw_intervals(facts),
        families=severity.make_families(facts),
        calibration=tables.make_calibration_table(facts),
        reliability=reliability.make_panels(facts),
        pooled=len(facts.sets) > reliability.MOST_SETS,
        write_bins=reliability.write_bins,
        robustness=robustness if robustness.rows else None,
        sections=[(section, Markup(html)) for section, html in drawn if html],
        changes=_list_changes(facts, results.get("confusions", ())),
        gallery=[_show_item(facts, item) for item in results.get("gallery", ())],
        describe_tone=tables.describe_tone,
        lines=_write_lines,
        document=embed_json({k: v for k, v in results.items() if k not in SHOWN_ABOVE}),
    )
    return page.lstrip()


def embed_json(document: Any) -> Markup:
    """`document` as JSON that HTML cannot mistake for its own: `<`, `>` and `&` as `\\u....`."""
    content = json.dumps(document, separators=(",", ":"))
    for sign in "<>&":
        content = content.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(content)


def _read(name: str) -> str:
    return resources.files("tpt.report.page").joinpath(name).read_text(encoding="utf-8")


def _count_images(facts: Facts) -> int:
    """Images over all sets, counted for each set's first method."""
    first = {dataset: entry for (dataset, _), entry in reversed(facts.cells.items())}
    return sum(entry["images"] for entry in first.values())


def _make_overview(facts: Facts) -> dict[str, Any]:
    """The cards with their small lines, all on one scale, and the methods' scores."""
    cards = make_cards(facts)
    ends = [abs(end) for card in cards for end in (card.paired or (card.difference or 0.0,))]
    reach = max([*ends, 0.005]) * 1.1
    lines = [
        None
        if card.difference is None
        else charts.draw_difference(card.difference, card.paired, reach)
        for card in cards
    ]
    scores = make_scores(facts)
    bars = [charts.draw_verdicts(score.counts, score.total) for score in scores]
    return {
        "cards": list(zip(cards, lines, strict=True)),
        "scores": list(zip(scores, bars, strict=True)),
    }


def _draw_intervals(facts: Facts) -> dict[str, Any]:
    """The chart of accuracies and of differences: a row a set, in parts if there are many."""
    ends: list[float | None] = []
    gaps: list[float | None] = [0.0]
    for result in facts.cells.values():
        ends += [result["metrics"]["acc1"], *(result["intervals"]["acc1"] or ())]
        if versus := result["versus_baseline"]:
            gaps += [versus["difference"], *versus["interval"]]
    level, change = charts.make_axis(ends, bounds=(0.0, 1.0)), charts.make_axis(gaps)
    many = len(facts.sets) > MOST_ROWS
    parts = group_sets(facts, by_corruption=True) if many else {"": list(facts.sets)}
    return {
        "parts": {
            tree: [_draw_row(facts, entry["name"], level, change) for entry in entries]
            for tree, entries in parts.items()
        },
        "level": charts.draw_ticks(level, signed=False),
        "change": charts.draw_ticks(change, signed=True) if len(facts.methods) > 1 else None,
    }


def _draw_row(facts: Facts, name: str, level: charts.Axis, change: charts.Axis) -> dict[str, Any]:
    levels, changes = [], []
    for place, method in enumerate(facts.methods):
        result = facts.get_result(name, method)
        value = facts.get_accuracy(name, method)
        if result is None or value is None:
            continue
        cell = tables.make_cell(tables.ACCURACY[0], value, result["intervals"]["acc1"])
        said = f"{method} {cell.text} %" + (f" ({cell.note})" if cell.note else "")
        levels.append(charts.Dot(place, said, value, cell.interval, method))
        if versus := result["versus_baseline"]:
            gap, ends = versus["difference"], versus["interval"]
            cell = tables.make_cell(tables.ACCURACY[1], gap, ends)
            said = f"{method} {cell.text} points ({cell.note}), {VERDICTS[judge(result)]}"
            changes.append(charts.Dot(place, said, gap, ends, method))
    count = len(facts.methods)

    def draw(axis: charts.Axis, dots: list[charts.Dot], what: str, zero: bool) -> Markup:
        label = f"{name}, {what}: " + "; ".join(dot.text for dot in dots)
        return charts.draw_dots(axis, dots, count, label, zero)

    return {
        "name": name,
        "level": draw(level, levels, "top-1 accuracy", False),
        "change": draw(change, changes, f"difference to {facts.baseline}", True),
    }


def _list_changes(facts: Facts, confusions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The most frequent changed answers, and how many more there are."""
    most = MOST_CHANGES if len(confusions) <= MOST_ROWS else MOST_CHANGES // 2
    listed = []
    for confusion in confusions:
        rest = confusion["changes"][most:]
        listed.append(
            {
                "dataset": confusion["dataset"],
                "method": confusion["method"],
                "place": _find_place(facts, confusion["method"]),
                "shown": [(change, _name_change(change)) for change in confusion["changes"][:most]],
                "more": len(rest) + confusion["rarer"],
                "more_images": sum(c["count"] for c in rest) + confusion["rarer_images"],
            }
        )
    return [entry for entry in listed if entry["shown"]]


def _name_change(change: Any) -> str:
    right, wrong = change["after"] == change["truth"], change["before"] == change["truth"]
    return "put right" if right else "put wrong" if wrong else "still wrong"


def _show_item(facts: Facts, item: Mapping[str, Any]) -> dict[str, Any]:
    pairs = zip_longest(item["kept"], item["kept_pictures"])
    return {
        "item": item,
        "place": _find_place(facts, item["method"]),
        "picture": _write_jpeg(item["picture"]),
        "kept": [(place, entropy, _write_jpeg(shown)) for (place, entropy), shown in pairs],
    }


def _find_place(facts: Facts, method: str) -> int:
    return facts.methods.index(method) if method in facts.methods else 0


def _write_jpeg(picture: str | None) -> str | None:
    return None if picture is None else f"data:image/jpeg;base64,{picture}"


def _write_lines(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings as (name, value), nested ones as JSON without its quotes around plain text."""
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in values.items()
        if value is not None
    ]
