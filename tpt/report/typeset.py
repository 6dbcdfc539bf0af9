"""One table, three ways to set it: Markdown, LaTeX (booktabs) and plain text.

The same cells go into all three, so that no number differs between them. Names come from users:
what has a meaning in Markdown or LaTeX is escaped, and a name never spans lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

MISSING = "\N{EN DASH}"  # what stands for a number that there is not
LONGEST = 40  # rows that LaTeX keeps on one page

Tell = Callable[[float], str]


@dataclass(frozen=True)
class Cell:
    """What one cell says."""

    text: str
    value: float | None = None  # to be compared; None: not a number that can be best
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A title, a header and rows of as many cells."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    form: str  # a letter a column: l for words, to the left; r for numbers, to the right
    rules: frozenset[int] = frozenset()  # rows with a line above them
    notes: tuple[str, ...] = ()


def mark_best(
    rows: Sequence[Sequence[Cell]], columns: Mapping[int, bool], group: int | None = None
) -> list[tuple[Cell, ...]]:
    """The rows with the best cells of some columns marked; what reads the same is equally good.

    Args:
        columns: column number to whether higher is better.
        group: the column whose text says which rows compete; None: all of them do.
    """
    marked = [list(row) for row in rows]
    for column, higher in columns.items():
        rivals: dict[str, list[list[Cell]]] = {}
        for row in marked:
            if row[column].value is not None:
                rivals.setdefault("" if group is None else row[group].text, []).append(row)
        for own in (rows for rows in rivals.values() if len(rows) > 1):
            pick = max if higher else min
            top = pick((row[column] for row in own), key=lambda cell: cell.value or 0.0)
            for row in own:
                same = row[column].text.split()[0] == top.text.split()[0]
                row[column] = replace(row[column], best=same)
    return [tuple(row) for row in marked]


def rules_between(rows: Iterable[Sequence[Cell]]) -> frozenset[int]:
    """A line above every row, but the first, whose first cell is another than before."""
    firsts = [row[0].text for row in rows]
    return frozenset(i for i in range(1, len(firsts)) if firsts[i] != firsts[i - 1])


def rank(
    title: str,
    header: tuple[str, ...],
    rows: Sequence[tuple[Cell, ...]],
    form: str,
    best: Mapping[int, bool],
    *notes: str,
) -> Table:
    """A table by sets, which the first column names: each set's best marked, lines between them.

    Args:
        best: as `mark_best` has it.
    """
    marked = mark_best(rows, best, group=0)
    return Table(title, header, tuple(marked), form, rules_between(marked), notes)


# --- numbers ---


def percent(value: float, digits: int = 1) -> str:
    """0.3692 as "36.9"."""
    return f"{100 * value:.{digits}f}"


def points(value: float, digits: int = 1) -> str:
    """A difference of shares with its sign: 0.012 as "+1.2"; what rounds to nothing has none."""
    text = f"{100 * value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def tell_p(p: float) -> str:
    """A p value with three decimals; one below 0.001 or 0.05 never reads as if it were not."""
    return "<0.001" if p < 0.001 else "<0.05" if 0.0495 <= p < 0.05 else f"{p:.3f}"


def number(value: float | None, tell: Tell, interval: Sequence[float] | None = None) -> Cell:
    """A number, and in brackets its interval; a dash where there is none."""
    if value is None:
        return Cell(MISSING)
    ends = f" ({tell(interval[0])} to {tell(interval[1])})" if interval else ""
    return Cell(tell(value) + ends, value)


def exact(value: float | None) -> Cell:
    """A share in percent with two decimals, as the papers print them."""
    return number(value, lambda share: percent(share, 2))


# --- Markdown ---


def escape_markdown(text: str) -> str:
    r"""The text as it is to be read: `a|b` becomes `a\|b`; `a_b` is harmless and stays."""
    text = re.sub(r"([\\|*`<\[\]])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def to_markdown(table: Table) -> str:
    """The table under its title, notes below."""
    edges = [":--" if side == "l" else "--:" for side in table.form]
    lines = [_pipe(map(escape_markdown, table.header)), _pipe(edges)]
    lines += [_pipe(escape_markdown(cell.text) for cell in row) for row in table.rows]
    notes = [f"\n{escape_markdown(note)}" for note in table.notes]
    return "\n".join([f"## {escape_markdown(table.title)}\n", *lines, *notes]) + "\n"


def _pipe(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


# --- LaTeX ---

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    MISSING: "--",
}


def escape_latex(text: str) -> str:
    r"""The text as it is to be read: `a_b` becomes `a\_b`, and the minus of -1.2 a minus sign."""
    text = "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
    text = re.sub(r'"([^"]*)"', r"``\1''", text)
    return re.sub(r"(?<![\w)-])-(?=\d)", "$-$", text)


def to_latex(table: Table) -> str:
    """The table with booktabs' rules and best cells bold; a long one over several pages."""
    head = " & ".join(map(escape_latex, table.header)) + r" \\"
    body = []
    for number, row in enumerate(table.rows):
        body += [r"\midrule"] if number in table.rules else []
        body.append(" & ".join(map(_latex_cell, row)) + r" \\")
    notes = [rf"\par\footnotesize {escape_latex(note)}" for note in table.notes]
    caption = rf"\caption{{{escape_latex(table.title)}}}"
    if len(table.rows) > LONGEST:
        top = [rf"{caption} \\", r"\toprule", head, r"\midrule", r"\endhead", r"\bottomrule"]
        start = [rf"\begin{{longtable}}{{{table.form}}}", *top, r"\endfoot"]
        lines = [r"\begingroup\small", *start, *body, r"\end{longtable}", *notes, r"\endgroup"]
    else:
        inner = [r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
        start = [
            r"\begin{table}",
            r"\centering\small",
            caption,
            rf"\begin{{tabular}}{{{table.form}}}",
        ]
        lines = [*start, *inner, *notes, r"\end{table}"]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    return rf"\textbf{{{text}}}" if cell.best else text


# --- plain text ---


def to_text(table: Table) -> str:
    """Columns two blanks apart, a line under the header, notes below; ASCII for our own signs."""
    grid = [table.header, *(tuple(cell.text for cell in row) for row in table.rows)]
    grid = [tuple(" ".join(text.split()).replace(MISSING, "-") for text in row) for row in grid]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = [_space(row, widths, table.form) for row in grid]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([*lines, *table.notes]) + "\n"


def _space(row: Sequence[str], widths: Sequence[int], form: str) -> str:
    cells = [
        text.ljust(width) if side == "l" else text.rjust(width)
        for text, width, side in zip(row, widths, form, strict=True)
    ]
    return "  ".join(cells).rstrip()


def shorten(text: str, longest: int) -> str:
    """The text, its middle left out where it is longer than `longest` (5 or more) characters."""
    if len(text) <= longest:
        return text
    tail = (longest - 3) // 2
    return f"{text[: longest - 3 - tail]}...{text[-tail:]}"


# --- whole files ---


def make_documents(title: str, said: Iterable[str], tables: Sequence[Table]) -> tuple[str, str]:
    """Markdown, and LaTeX to be put into a paper: a title, what was run, and every table."""
    told = [" ".join(line.split()) for line in said]
    marked = [f"- {escape_markdown(line)}" for line in told]
    markdown = [f"# {title}\n", *marked, "", *map(to_markdown, tables)]
    needed = r"% Needs \usepackage{booktabs} and \usepackage{longtable}."
    latex = [needed, *(f"% {line}" for line in told), "", *map(to_latex, tables)]
    return "\n".join(markdown), "\n".join(latex)
