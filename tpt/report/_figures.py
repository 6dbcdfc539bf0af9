"""PNG pictures by matplotlib, which is an extra: make a figure without a window, save it whole."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

from tpt.errors import OutputError
from tpt.runs.whole_files import write_whole


def make_figure(missing: str, **options: Any) -> Any:
    """A `matplotlib.figure.Figure` without a window.

    Raises:
        OutputError: matplotlib is not installed; the message is `missing`.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OutputError(missing) from error
    figure = Figure(layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path, what: str) -> None:
    """Write the figure as PNG; `what` names it in a message.

    Raises:
        OutputError: the disk refused.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about glyphs that the font lacks
        figure.savefig(buffer, format="png")
    write_whole(path, buffer.getvalue(), what)
