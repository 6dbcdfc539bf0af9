"""One table in three forms: Markdown, LaTeX (booktabs) and plain text.

The same cells go into all three, so no number differs between them. Names come from users: signs
with a meaning in Markdown or LaTeX are escaped, and a name never spans lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

MISSING = "\N{EN DASH}"  # shown where there is no number
LONGEST = 40  # rows that LaTeX keeps on one page

Writer = Callable[[float], str]


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    value: float | None = None  # to find the best; None: this cell does not compete
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A title, a header, and rows with as many cells as the header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    form: str  # a letter a column: l for words, to the left; r for numbers, to the right
    rules: frozenset[int] = frozenset()  # rows with a line above them
    notes: tuple[str, ...] = ()


def mark_best(
    rows: Sequence[Sequence[Cell]], columns: Mapping[int, bool], group: int | None = None
) -> list[tuple[Cell, ...]]:
    """The rows with the best cells of some columns marked, also those that show the same number.

    Args:
        columns: column number to whether higher is better.
        group: rows with the same text in this column compete; None: all rows do.
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
    """A line above every row, except the first, whose first cell differs from the row before."""
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
    """A table by sets, named in the first column: each set's best cells marked, lines between sets.

    Args:
        best: column number to whether higher is better.
    """
    marked = mark_best(rows, best, group=0)
    return Table(title, header, tuple(marked), form, rules_between(marked), notes)


# --- numbers ---


def percent(value: float, digits: int = 1) -> str:
    """0.3692 as "36.9"."""
    return f"{100 * value:.{digits}f}"


def points(value: float, digits: int = 1) -> str:
    """A difference of shares with its sign: 0.012 as "+1.2"; what rounds to 0.0 has no sign."""
    text = f"{100 * value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def format_p(p: float) -> str:
    """A p value with three decimals; one below 0.001 or 0.05 always shows that it is."""
    return "<0.001" if p < 0.001 else "<0.05" if 0.0495 <= p < 0.05 else f"{p:.3f}"


def number(value: float | None, write: Writer, interval: Sequence[float] | None = None) -> Cell:
    """A number with its interval in brackets; a dash where there is no number."""
    if value is None:
        return Cell(MISSING)
    ends = f" ({' to '.join(map(write, interval))})" if interval else ""
    return Cell(write(value) + ends, value)


def exact(value: float | None) -> Cell:
    """A share in percent with two decimals, as the papers print them."""
    return number(value, lambda share: percent(share, 2))


# --- Markdown ---


def escape_markdown(text: str) -> str:
    r"""Text that Markdown shows as it is: `a|b` becomes `a\|b`; `a_b` is harmless and stays."""
    text = re.sub(r"([\\|*`<\[\]])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def to_markdown(table: Table) -> str:
    """The table under its title, with the notes below."""
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
    r"""Text that LaTeX shows as it is: `a_b` becomes `a\_b`, and the minus of -1.2 a minus sign."""
    text = "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
    text = re.sub(r'"([^"]*)"', r"``\1''", text)
    return re.sub(r"(?<![\w)-])-(?=\d)", "$-$", text)


def to_latex(table: Table) -> str:
    """The table with booktabs' rules and bold best cells; a long one spans several pages."""
    head = " & ".join(map(escape_latex, table.header)) + r" \\"
    body = []
    for place, row in enumerate(table.rows):
        body += [r"\midrule"] if place in table.rules else []
        body.append(" & ".join(map(_latex_cell, row)) + r" \\")
    notes = [rf"\par\footnotesize {escape_latex(note)}" for note in table.notes]
    caption = rf"\caption{{{escape_latex(table.title)}}}"
    if len(table.rows) > LONGEST:
        start = [r"\begingroup\small", rf"\begin{{longtable}}{{{table.form}}}", rf"{caption} \\"]
        start += [r"\toprule", head, r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot"]
        lines = [*start, *body, r"\end{longtable}", *notes, r"\endgroup"]
    else:
        start = [r"\begin{table}", r"\centering\small", caption]
        start += [rf"\begin{{tabular}}{{{table.form}}}", r"\toprule", head, r"\midrule"]
        lines = [*start, *body, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}"]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    return rf"\textbf{{{text}}}" if cell.best else text


# --- plain text ---


def to_text(table: Table) -> str:
    """Columns two blanks apart, a line under the header, the notes below; dashes are ASCII."""
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
    """The text; its middle is left out if it is longer than `longest` (5 or more) characters."""
    if len(text) <= longest:
        return text
    tail = (longest - 3) // 2
    return f"{text[: longest - 3 - tail]}...{text[-tail:]}"


# --- whole files ---


def make_documents(title: str, facts: Iterable[str], tables: Sequence[Table]) -> tuple[str, str]:
    """Markdown, and LaTeX to include in a paper: a title, facts about the run, and every table."""
    lines = [" ".join(fact.split()) for fact in facts]
    listed = [f"- {escape_markdown(line)}" for line in lines]
    markdown = [f"# {title}\n", *listed, "", *map(to_markdown, tables)]
    needed = r"% Needs \usepackage{booktabs} and \usepackage{longtable}."
    latex = [needed, *(f"% {line}" for line in lines), "", *map(to_latex, tables)]
    return "\n".join(markdown), "\n".join(latex)
