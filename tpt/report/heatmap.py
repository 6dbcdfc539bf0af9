"""A matrix of accuracies as a picture: rows learned on, columns tested on.

Each cell shows its accuracy in percent and, below it, the difference to the hand-crafted words on
the same pictures; its colour is that difference (blue better, red worse, which people with the
usual colour deficiencies can tell apart). A frame marks the cells of a prompt's own training set.
Text can be read at half size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpt.report._figures import make_figure, save_figure
from tpt.report.typeset import MISSING, percent, points, shorten

COLOURS = "RdBu"  # red below, white at, blue above the words
SMALLEST_RANGE = 0.05  # of the colours, so that differences within noise stay pale
LONGEST = 24  # characters of a name
_CELL = (1.45, 0.9)  # inches
_DPI = 150
_EMPTY = "#d9d9d9"

Row = Sequence[float | None]

MISSING_LIBRARY = (
    "The heat map needs matplotlib to be drawn. Install it: pip install "
    "'tpt-runtime[eval]'; its numbers are in transfer.json."
)


@dataclass(frozen=True)
class Panel:
    """One matrix. Accuracies are fractions in [0, 1]; None where nothing was measured."""

    title: str
    words: str  # name of the first row
    base: Row  # its accuracies, one a column
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    accuracy: Sequence[Row]  # one row each of `rows`, one number each of `columns`


def draw_heatmap(panels: Sequence[Panel], title: str, path: Path) -> None:
    """Draw one matrix above the other as PNG, all with the same colours.

    Raises:
        OutputError: matplotlib is not installed, or the disk refused.
    """
    changes = [d for panel in panels for row in find_differences(panel) for d in row]
    limit = max([SMALLEST_RANGE, *(abs(change) for change in changes if change is not None)])
    names = [_show(name) for panel in panels for name in (*panel.rows, panel.words)]
    width = 2.2 + 0.13 * max(map(len, names)) + _CELL[0] * len(panels[0].columns)
    heights = [_CELL[1] * (len(panel.rows) + 1) + 2.0 for panel in panels]
    figure = make_figure(MISSING_LIBRARY, figsize=(width, sum(heights) + 0.6), dpi=_DPI)
    figure.suptitle(title, fontsize=15, parse_math=False)
    all_axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, panel in zip(all_axes, panels, strict=True):
        _draw_panel(axes, panel, limit)
    _draw_key(figure, all_axes, limit)
    if any(row in panel.columns for panel in panels for row in panel.rows):
        figure.supxlabel("framed: tested on the set that it was learned on", fontsize=13)
    save_figure(figure, path, "heat map")


def find_differences(panel: Panel) -> list[list[float | None]]:
    """Each cell less the words' accuracy on the same column."""
    return [
        [None if a is None or b is None else a - b for a, b in zip(row, panel.base, strict=True)]
        for row in panel.accuracy
    ]


def pick_ink(colour: Any) -> str:
    """Black or white, whichever has more contrast with a colour of matplotlib's.

    By WCAG 2's contrast ratio of relative luminances, (L1 + 0.05) / (L2 + 0.05).
    """
    from matplotlib.colors import to_rgb

    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def _draw_panel(axes: Any, panel: Panel, limit: float) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    palette, scale = colormaps[COLOURS], Normalize(-limit, limit)
    for x, value in enumerate(panel.base):
        _draw_cell(axes, x, 0, value, None, _EMPTY if value is None else palette(0.5))
    for y, changes in enumerate(find_differences(panel), start=1):
        for x, change in enumerate(changes):
            colour = _EMPTY if change is None else palette(scale(change))
            _draw_cell(axes, x, y, panel.accuracy[y - 1][x], change, colour)
            if panel.rows[y - 1] == panel.columns[x]:
                _draw_frame(axes, x, y, pick_ink(colour))
    axes.set(xlim=(-0.5, len(panel.columns) - 0.5), ylim=(len(panel.rows) + 0.5, -0.5))
    _write_names(axes, panel)


def _draw_cell(
    axes: Any, x: int, y: int, value: float | None, change: float | None, colour: Any
) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white"))
    text = MISSING if value is None else percent(value)
    style = {"ha": "center", "va": "center", "color": pick_ink(colour)}
    axes.text(x, y if change is None else y - 0.14, text, fontsize=17, **style)
    if change is not None:
        axes.text(x, y + 0.24, points(change), fontsize=12.5, **style)


def _draw_frame(axes: Any, x: int, y: int, ink: str) -> None:
    """A frame inside the cell, so that frames of neighbours do not touch."""
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (x - 0.455, y - 0.43), 0.91, 0.86, fill=False, edgecolor=ink, linewidth=3, zorder=3
        )
    )


def _write_names(axes: Any, panel: Panel) -> None:
    columns = [_show(name) for name in panel.columns]
    axes.tick_params(length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
    axes.set_xticks(range(len(columns)), columns, fontsize=14, parse_math=False)
    if max(map(len, columns)) > 13:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="left", rotation_mode="anchor")
    rows = [_show(name) for name in (panel.words, *panel.rows)]
    axes.set_yticks(range(len(rows)), rows, fontsize=14, parse_math=False)
    axes.axhline(0.5, color="black", linewidth=1.5)
    axes.set_title(panel.title, fontsize=15, pad=12, loc="left", parse_math=False)
    axes.set_xlabel("tested on", fontsize=14, labelpad=8)
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("learned on", fontsize=14)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _show(name: str) -> str:
    """A name on one line, shortened to leave room for the cells."""
    return shorten(" ".join(name.split()), LONGEST)


def _draw_key(figure: Any, axes: Any, limit: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    key = figure.colorbar(
        ScalarMappable(Normalize(-100 * limit, 100 * limit), COLOURS),
        ax=list(axes),
        fraction=0.06,
        pad=0.03,
        shrink=0.9,
    )
    key.set_label("points against the words", fontsize=14)
    key.ax.tick_params(labelsize=13)
