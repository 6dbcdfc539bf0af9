"""Records as a table for people: fixed columns, one line an image, printed as they come."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

from tpt.streaming.records import Adaptation, Prediction, Record

_WIDTHS = (32, 25, 27, 4, 16, 6)
_TITLES = ("image", "zero-shot", "adapted", "kept", "entropy (nats)", "ms")


def table_header() -> str:
    """The column titles and a rule."""
    titles = _line(_TITLES)
    return f"{titles}\n{'-' * len(titles)}"


def table_row(record: Record) -> str:
    """One image: its name, the zero-shot and the adapted prediction, and the cost."""
    name = record.path if record.path is not None else f"#{record.index}"
    shown = _elide(_printable(name), _WIDTHS[0])
    if record.error is not None:
        return f"{set_cell_size(shown, _WIDTHS[0])}  error: {_printable(record.error.message)}"
    adapt = record.adapt
    cells = (
        shown,
        _describe(record.zero_shot),
        "none of these" if record.rejected else _describe(record.predictions[0]) + _mark(record),
        str(adapt.views_kept) if adapt else "",
        _describe_entropy(adapt),
        f"{adapt.ms:.0f}" if adapt else "",
    )
    warning = f"  warning: {_printable(record.warning)}" if record.warning else ""
    return _line(cells) + warning


def _mark(record: Record) -> str:
    """A star if adaptation changed the answer."""
    first, before = record.predictions[0], record.zero_shot
    return "  *" if before is not None and first.index != before.index else ""


def _describe_entropy(adapt: Adaptation | None) -> str:
    if adapt is None or adapt.entropy_before is None:
        return "skipped" if adapt and adapt.skipped else ""
    after = "" if adapt.entropy_after is None else f" -> {adapt.entropy_after:.3f}"
    return f"{adapt.entropy_before:.3f}{after}"


def _describe(prediction: Prediction | None) -> str:
    if prediction is None:
        return ""
    label = _printable(prediction.label)
    if prediction.score is None:
        noun = "vote " if prediction.votes == 1 else "votes"
        return f"{_elide(label, 14)} {prediction.votes:3d} {noun}"
    return f"{_elide(label, 17)} {prediction.score:6.1%}"


def _line(cells: tuple[str, ...]) -> str:
    return "  ".join(map(set_cell_size, cells, _WIDTHS)).rstrip()


def _elide(text: str, width: int) -> str:
    """The end of a long text, because paths differ at their end."""
    while cell_len(text) > width:
        text = "…" + text[2:]
    return text


def _printable(text: str) -> str:
    """The text with line breaks, control characters and undecodable bytes escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
