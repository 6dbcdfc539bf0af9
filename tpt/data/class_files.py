"""Class lists as people and other programs write them, read into names and "id=name" entries.

It reads names separated by commas, files with a name a line, JSON, tables whose first line names
the columns, and lines that begin or end with a number or a WordNet id. Any other syntax is an error
that names it, so that none becomes part of a prompt.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tpt.data._class_json import ID_WORDS, NAME_WORDS, read_json
from tpt.data.class_lists import keyword_of, note_names, split_entry
from tpt.data.imagenet import KEYWORDS, imagenet_ids, is_wnid, name_ids
from tpt.data.presets import PRESETS
from tpt.errors import SourceError, suggest, why
from tpt.text import drop_invisible, fold

_MOST_BYTES = 16_000_000
_FILES = (".txt", ".csv", ".tsv", ".json", ".yaml", ".yml", ".names", ".npy", ".pkl", ".xlsx")
_DATA_SETS = (
    *(word for key, preset in PRESETS.items() for word in (key, preset.title)),
    *("cifar10", "cifar100", "coco", "coco80", "voc", "voc2007", "mnist", "svhn", "stl10"),
    *("places365", "flowers102", "imagenet1k", "imagenet21k", "imagenet100", "imagenetv2"),
    *("imagenetsketch", "imagenette", "ilsvrc2012", "pacs", "domainnet"),
)
QUOTED = re.compile(r"""(["'`])(.*)\1|[\u201c\u2018](.*)[\u201d\u2019]""")
_BULLET = re.compile(r"[-*\u2022]\s+(.*)")
_WNID_FIRST = re.compile(r"(?P<id>n\d{8})(?:\s*[:,\t]\s*|\s+)(?P<name>\S.*)")


@dataclass(frozen=True)
class _Item:
    """One class as it was written."""

    name: str
    where: str  # "name 3", "line 3 of ..."
    label: str = ""
    quoted: bool = False  # a name then, whatever is in it


def read_class_list(value: str) -> tuple[str, ...]:
    """The entries of a class list: names separated by commas, or the name of a file of them.

    Returns:
        Names and "id=name" entries as `ReadOptions.classes` takes them, or one word of
        `tpt.data.imagenet.KEYWORDS`.

    Raises:
        SourceError: no such file, no names, an empty name, a name twice, or an unknown form.
    """
    value = drop_invisible(value)
    if os.path.isfile(value):
        items = _read_text(_read_file(value), f'"{value}"', value.lower())
    elif len(value.strip().splitlines()) > 1 or value.strip()[:1] in ("[", "{"):
        items = _read_text(value.strip(), "the list", "")
    else:
        keyword = keyword_of([value])
        if keyword is not None:
            return (keyword,)
        if "," not in value:
            _check_word(value)
        items = _read_forms(_split_commas(value))
    _check_each(items)
    return tuple(f"{item.label}={item.name}" if item.label else item.name for item in items)


def note_list(classes: Sequence[str], entries: Sequence[str] | None) -> tuple[str, ...]:
    """Notes on the class names of a list of entries, for pictures without labels."""
    notes = list(note_names(classes))
    if entries is not None and 1 < len(entries) > len(classes):
        notes.append(
            f"The list has {len(entries):,} entries but {len(classes):,} classes: entries of one "
            "name are one class."
        )
    if len(classes) == 1:
        notes.append(f'There is one class, "{classes[0]}", so every picture is given it.')
    elif all(map(str.isdecimal, classes)):
        notes.append("The class names are numbers, and a model reads them as such.")
    return tuple(notes)


def _read_file(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        text = drop_invisible(data.decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f'"{path}" cannot be read as UTF-8 text: {why(error)}.') from error
    if len(data) > _MOST_BYTES or "\0" in text:
        what = "is no text" if "\0" in text else f"is larger than {_MOST_BYTES // 10**6} MB"
        raise SourceError(f'The class file "{path}" {what}. Give it one name a line, in UTF-8.')
    if not text.strip():
        raise SourceError(f'The class file "{path}" is empty. Give it one name a line.')
    return text


def _check_word(value: str) -> None:
    """Refuse a single name that was meant as a file or as a data set."""
    if os.path.isdir(value):
        raise SourceError(
            f'"{value}" is a folder; expected class names, or a file with one a line.'
        )
    if value.startswith("@") or os.sep in value or value.lower().endswith(_FILES):
        there = value.startswith("@") and os.path.isfile(value[1:])
        raise SourceError(
            f'There is no class file "{value}". Give a file with one name a line, or the names '
            "separated by commas." + (f' Did you mean "{value[1:]}"?' if there else "")
        )
    squeezed = [re.sub(r"[\W_]", "", word).lower() for word in (value, *_DATA_SETS)]
    if squeezed[0] in squeezed[1:]:
        raise SourceError(
            f'"{value}" is the name of a data set whose class list is not kept here.'
            f"{suggest(value, KEYWORDS)} Expected {', '.join(KEYWORDS)}, class names separated by "
            "commas, or a file with one name a line."
        )


def _read_text(text: str, where: str, path: str) -> list[_Item]:
    if text.lstrip()[:1] in ("[", "{"):
        pairs = read_json(text, where)
        return [_Item(name, f"{n} of {where}", x, True) for n, (x, name) in enumerate(pairs, 1)]
    lines = text.rstrip().splitlines()
    if len(lines) == 1 and "," in text:
        return _read_forms(_split_commas(lines[0]))
    items = [_unquote(_Item(x, f"line {n} of {where}")) for n, x in enumerate(lines, start=1)]
    table = _read_table(lines, where)
    if table is not None:
        return table
    if len(items) > 1 and fold(items[0].name) in NAME_WORDS and not items[0].quoted:
        if not path.endswith((".csv", ".tsv")):
            raise SourceError(
                f'The first line of {where}, "{items[0].name}", looks like the title of a column. '
                "Remove it, or write it in double quotes if it is a class."
            )
        del items[0]
    return _read_forms(items)


def _split_commas(line: str) -> list[_Item]:
    """Names separated by commas; one in double quotes may hold a comma."""
    cells = next(_cut_cells([line.strip("\r\n")], ",")) or [""]
    return [
        _unquote(_Item(cell, f"name {number}", quoted="," in cell))
        for number, cell in enumerate(cells, start=1)
    ]


def _cut_cells(lines: Sequence[str], mark: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines, delimiter=mark, skipinitialspace=True)
    except csv.Error as error:
        raise SourceError(
            f"The list of classes cannot be read ({error}). Give a file with one name a line."
        ) from error


def _unquote(item: _Item) -> _Item:
    text = item.name.strip()
    match = None if item.quoted else QUOTED.fullmatch(text)
    if match is None:
        return replace(item, name=text)
    return replace(item, name=(match[2] or match[3] or "").strip(), quoted=True)


def _read_table(lines: Sequence[str], where: str) -> list[_Item] | None:
    """The classes of a table whose first line names its columns; None for anything else."""
    cut = next((mark for mark in "\t;," if mark in lines[0]), None)
    if cut is None:
        return None
    titles, *rows = _cut_cells(lines, cut)
    titles = [fold(title) for title in titles]
    if not {*NAME_WORDS, *ID_WORDS, "path", "image", "filename"}.issuperset(titles[:2]):
        return None
    columns = {
        title: [row[place].strip() if place < len(row) else "" for row in rows]
        for place, title in enumerate(titles)
    }
    named = [word for word in NAME_WORDS if word in titles]
    named = [word for word in named if not all(map(str.isdecimal, columns[word]))] or named
    if not named or len(titles) > len(columns) or {"path", "image", "filename"} & set(titles):
        raise SourceError(
            f"{where} is a table with the columns {', '.join(titles)}; expected a list of classes: "
            "columns id and name, or one name a line."
        )
    ids = next((columns[w] for w in ID_WORDS if w in titles and w != named[0]), [""] * len(rows))
    return [
        _unquote(_Item(name, f"line {number} of {where}", label))
        for number, (label, name) in enumerate(zip(ids, columns[named[0]], strict=True), start=2)
    ]


# --- lines that hold more than a name ---


def _is_count(items: Sequence[_Item]) -> bool:
    """Whether the labels are 0, 1, 2, ... or 1, 2, 3, ... in any order, and the names differ."""
    found = sorted(int(item.label) for item in items)
    differ = len({fold(item.name) for item in items}) == len(items) > 1
    return differ and found in (list(range(len(found))), list(range(1, len(found) + 1)))


_FORMS: tuple[tuple[re.Pattern[str], Callable[[Sequence[_Item]], bool]], ...] = (
    (_WNID_FIRST, bool),  # n02123045 cat
    (re.compile(r"(?P<id>\d{1,9})\s*[:\t]\s*(?P<name>\S.*)"), bool),  # 0: cat
    (re.compile(r"(?P<id>\d{1,9})(?:[.)]?\s+|\s*,\s*)(?P<name>\S.*)"), _is_count),  # 0 cat, 0. cat
    (re.compile(r"(?P<name>\S.*?)(?:\s*[:,=]\s*|\s+)(?P<id>\d{1,9})"), _is_count),  # cat 0
    (re.compile(r"(?P<id>[^=]*)=(?P<name>.*)"), lambda items: False),
)


def _read_forms(items: list[_Item]) -> list[_Item]:
    """The classes of names, some forms of which carry a number or an id."""
    if all(_BULLET.fullmatch(item.name) for item in items):
        items = [_unquote(replace(item, name=item.name[1:])) for item in items]
    if len(items) > 1 and all(item.name.endswith(",") for item in items[:-1]):
        items = [_unquote(replace(item, name=item.name.rstrip(", "))) for item in items]
    names = [item.name for item in items]
    if all(map(is_wnid, names)) and set(imagenet_ids()).issuperset(names):
        return [
            replace(i, label=i.name, name=n) for i, n in zip(items, name_ids(names), strict=True)
        ]
    for form, fits in _FORMS:
        found = [form.fullmatch(item.name) for item in items]
        if all(found) and not any(item.quoted for item in items):
            read = [
                _unquote(replace(item, label=match["id"], name=match["name"]))
                for item, match in zip(items, found, strict=True)
                if match
            ]
            if fits(read):
                return read
    _check_syntax(items)
    return [item if item.quoted or "=" not in item.name else _split_equals(item) for item in items]


def _split_equals(item: _Item) -> _Item:
    label, name = split_entry(item.name)
    return _unquote(replace(item, label=label, name=name))


def _check_syntax(items: Sequence[_Item]) -> None:
    """Refuse lines of another form, and lines with several names."""
    for item in items:
        text, why = item.name, ""
        if item.quoted:
            continue
        if is_wnid(text) or _WNID_FIRST.fullmatch(text):
            why = "holds a WordNet id, which no model can read; expected id=name for all"
        elif re.match(r"\d+:\s", text):
            why = "holds a number and a name; expected that of all classes or of none"
        elif text.endswith(":") or re.match(r"(names|classes|nc|path|train|val)\s*:", text):
            why = "is a line of YAML; expected a name a line"
        elif text.startswith(("#", "//")):
            why = "is a comment; expected names alone"
        elif re.search(r"[{}]|<[^<>]*>", text) or text.count("[") != text.count("]"):
            why = "holds brackets of a file format; expected names alone"
        elif re.search(r"[;|\t]", re.sub(r"&#?\w+;", "", text)):
            why = "holds several names; expected commas, or in a file line breaks, between them"
        elif re.search(r"\\[nrt](?![a-z])|\\[nrt][a-z]+\\[nrt]", text):
            why = "holds a line break or a tab as two letters; expected a name a line"
        elif len(items) > 1 and all(re.search(r"\w: ", other.name) for other in items):
            why = "holds a colon, as every line does; expected one name a line, and no more"
        elif len(items) > 1 and all("," in other.name for other in items if not other.quoted):
            why = "holds a comma, as every line does; expected one name a line, or columns id,name"
        if why:
            raise SourceError(
                f"Class {item.where} ({text!r:.80}) {why}. Correct the list, or write a class name "
                "that looks so in double quotes."
            )


def _check_each(items: Sequence[_Item]) -> None:
    """Refuse no names, an empty one, and one name twice (ids of one name are one class)."""
    if not items:
        raise SourceError("The list of classes is empty. Give it class names.")
    seen: dict[str, _Item] = {}
    for item in items:
        name = fold(item.name)
        if not name:
            raise SourceError(f"Class {item.where} is empty. Remove it or give it a name.")
        if "=" in item.name:
            raise SourceError(
                f'Class {item.where} ({item.name!r:.80}) holds "=", which stands between an id and '
                "a name here. Rename it."
            )
        first = seen.setdefault(name, item)
        if first is not item and not (first.label and item.label):
            raise SourceError(
                f'Class "{item.name}" ({item.where}) is the same prompt as '
                f"{first.where.partition(' of ')[0]}; the model could not tell them apart. Remove "
                "one."
            )
