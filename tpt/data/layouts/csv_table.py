"""Labelled pictures listed in a CSV file.

The first line names the columns: `path` (relative to the file's folder) and `label`, and if wanted
`split` (train, val, test) and `domain` (a set each). A label is a class name, a WordNet id of
ImageNet, or the id of an "id=name" entry of --classes. Other columns are ignored.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tpt.data.class_files import QUOTED
from tpt.data.class_lists import choose_classes
from tpt.data.imagenet import is_wnid, names_by_id
from tpt.data.labelled_sets import SPLITS, LabelledSet, ReadOptions
from tpt.errors import SourceError, why
from tpt.streaming.sources import find_listed
from tpt.text import some

NAME, SUMMARY = "table", "a CSV file with columns path and label"
COLUMNS = ("path", "label", "split", "domain")
_TRIED = 20  # of the first pictures one has to exist, so that a wrong folder shows at once


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the file."""

    line: int
    path: str  # as written, with "/"
    label: str
    split: str
    domain: str  # "" without that column


def matches(path: str) -> bool:
    """Whether a path is a .csv file."""
    return path.lower().endswith(".csv") and os.path.isfile(path)


def read(path: str, name: str, options: ReadOptions) -> tuple[LabelledSet, ...]:
    """Read a CSV file: the test split if it has one, else val, else all lines.

    Args:
        name: the sets' common name.
        options: `classes` and `rename`.

    Returns:
        One set, or with a column `domain` one a domain ("name/sketch"), which share their classes.

    Raises:
        SourceError: the file cannot be read, a line is incomplete, a picture has two labels, or
            labels fit no class.
    """
    rows, columns = read_rows(path)
    rows, notes = _take_split(rows, "split" in columns)
    unused = [column or "one without a name" for column in columns if column not in COLUMNS]
    if unused:
        notes.append(f"Columns that are not used: {some(unused)}.")
    rows, repeated = _drop_repeated(rows, path)
    if repeated:
        notes.append(
            f"{len(repeated):,} line{'s repeat' if len(repeated) > 1 else ' repeats'} a picture "
            f"with the same label and {'are' if len(repeated) > 1 else 'is'} left out: "
            f"{some(repeated)}."
        )
    _check_there(rows, path)
    names, is_imagenet = _name_labels(rows, path, options)
    choice = choose_classes(names, options, path)
    if options.classes is None and all(label.isdecimal() for label in names):
        notes.append(
            "The labels are numbers and stand as class names; --classes 0=NAME,1=NAME,... gives "
            "them names."
        )
    base = os.path.dirname(path)
    return tuple(
        choice.make_set(
            f"{name}/{domain}" if domain else name,
            "CSV by WordNet id" if is_imagenet else "CSV",
            path,
            [
                (row.path, row.label, os.path.join(base, row.path))
                for row in rows
                if row.domain == domain
            ],
            notes=notes,
            domain=domain or None,
        )
        for domain in dict.fromkeys(row.domain for row in rows)
    )


# --- lines ---


def read_rows(path: str, known: Sequence[str] = COLUMNS) -> tuple[list[Row], list[str]]:
    """The lines of the file, at least one, and its columns.

    Args:
        known: the columns that mean something, `path` and `label` first.

    Raises:
        SourceError: it cannot be read, or lacks a column, or a line is incomplete.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            # Written by hand, a quote may follow a blank: x.jpg, "cup".
            reader = csv.DictReader(file, strict=True, skipinitialspace=True)
            columns = [name.strip().lower() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            lines = [(reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(
            f'The CSV file "{path}" cannot be read ({why(error)}). Expected UTF-8 text with '
            "columns path and label."
        ) from error
    twice = [name for name, count in Counter(columns).items() if count > 1 and name in known]
    if "path" not in columns or "label" not in columns or twice:
        raise SourceError(
            f'The CSV file "{path}" has the columns {", ".join(columns) or "none"}; expected a '
            f"first line that names path and label (and, if wanted, {' and '.join(known[2:])}), "
            "each once."
        )
    rows = [_read_row(path, number, line, columns, known) for number, line in lines]
    if not rows:
        raise SourceError(f'The CSV file "{path}" lists no pictures. Add some lines.')
    return rows, columns


def _read_row(
    path: str, number: int, line: dict[str, str], columns: list[str], known: Sequence[str]
) -> Row:
    if any(line.get(None, ())):  # type: ignore[call-overload]  # what is behind the last column
        raise SourceError(
            f'Line {number} of "{path}" has more fields than the first line names columns '
            f"({', '.join(columns)}). Write a path or a label with a comma in double quotes."
        )
    fields = {name: (line.get(name) or "").strip() for name in known}
    lacking = [n for n in known if n in columns and n != "split" and not fields[n]]
    if lacking:
        raise SourceError(f'Line {number} of "{path}" has no {lacking[0]}. Complete or remove it.')
    broken = [name for name, value in fields.items() if set("\n\r\0") & set(value)]
    if broken:
        raise SourceError(
            f'The {broken[0]} that ends in line {number} of "{path}" holds a line break or a NUL: '
            "expected one line a picture. Check the double quotes in the lines before it."
        )
    split = SPLITS.get(fields["split"].lower() or "train")
    if split is None:
        raise SourceError(
            f'Line {number} of "{path}" has the split {fields["split"]!r}: expected train, val or '
            "test. Correct it."
        )
    place = find_listed(fields["path"], os.path.dirname(path))
    if QUOTED.fullmatch(fields["label"]):
        raise SourceError(
            f'Line {number} of "{path}" has the label {fields["label"]}, in quotes. Remove them, '
            'or write "," and "label" without a space between them.'
        )
    return Row(number, place.replace(os.sep, "/"), fields["label"], split, fields.get("domain", ""))


def _take_split(rows: list[Row], has_column: bool) -> tuple[list[Row], list[str]]:
    if not has_column:
        return rows, []
    for split in ("test", "val"):
        taken = [row for row in rows if row.split == split]
        if taken:
            return taken, [f"Of {len(rows):,} lines the {len(taken):,} of split {split} are read."]
    return rows, ["No line is of split test or val, so all are read."]


def _drop_repeated(rows: list[Row], path: str) -> tuple[list[Row], list[str]]:
    """The lines without those that repeat one of their domain, and the paths of the repeated."""
    first: dict[str, Row] = {}
    kept: dict[tuple[str, str], Row] = {}
    repeated = []
    for row in rows:
        place = os.path.normpath(row.path)
        other = first.setdefault(place, row)
        if other.label != row.label:
            raise SourceError(
                f'Lines {other.line} and {row.line} of "{path}" give "{row.path}" two labels, '
                f'"{other.label}" and "{row.label}". Expected one label a picture. Remove one of '
                "the lines."
            )
        if kept.setdefault((row.domain, place), row) is not row:
            repeated.append(row.path)
    return list(kept.values()), repeated


def _check_there(rows: list[Row], path: str) -> None:
    """Refuse a file whose first pictures are all somewhere else.

    A single missing picture gets an error record of its own.
    """
    base = os.path.dirname(path)
    if not any(os.path.exists(os.path.join(base, row.path)) for row in rows[:_TRIED]):
        raise SourceError(
            f'The pictures that "{path}" lists were not found ("{rows[0].path}" in line '
            f'{rows[0].line}, for example). Expected paths relative to "{base or os.curdir}". Move '
            "the file to the folder that they are relative to."
        )


# --- labels ---


def _name_labels(rows: list[Row], path: str, options: ReadOptions) -> tuple[dict[str, str], bool]:
    """The class name each label has by default, and whether all are ImageNet's WordNet ids."""
    lines: dict[str, int] = {}
    for row in rows:
        lines.setdefault(row.label, row.line)
    numbers = all(label.isdecimal() for label in lines)
    labels = sorted(lines, key=lambda label: (int(label) if numbers else 0, label))
    wnids = [label for label in labels if is_wnid(label)]
    known = names_by_id() if wnids else {}
    if wnids and known.keys() >= set(labels):
        return {label: known[label] for label in labels}, True
    if wnids and options.classes is None:
        odd = [f"{label} (line {lines[label]})" for label in labels if label not in known]
        raise SourceError(
            f'{len(odd):,} of the {len(labels):,} labels of "{path}" '
            f"{'is' if len(odd) == 1 else 'are'} no WordNet id of ImageNet's 1,000 classes, while "
            f"others have that form: {some(odd)}. Expected class names or WordNet ids, not both. "
            f'Correct them, or name them with --classes ("{wnids[0]}=NAME,...").'
        )
    rename = options.rename or str
    return {
        label: known.get(label) or " ".join(rename(label).replace("_", " ").split())
        for label in labels
    }, False
