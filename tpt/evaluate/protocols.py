"""The published protocols: which sets make which table, and what is averaged over what.

- Domain generalisation (CoOp 2109.01134, CoCoOp 2203.05557, TPT 2209.07511): one prompt, its source
  set, several shifts; the average of all, and of the shifts alone (OOD average).
- Base to new (CoCoOp): accuracy on the classes a prompt was learned on and on the others, and the
  harmonic mean.

Both work on measured accuracies. If one set of an average was not measured, the average is None:
over fewer sets it would be another average. Published rows are never mixed with measured ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tpt.errors import OutputError, suggest
from tpt.evaluate.published import COLUMNS, SHIFTS, SPLITS, harmonic_mean, model_rows

_PICTURES = {"IN": 50_000, "A": 7_500, "V2": 10_000, "R": 30_000, "Sketch": 50_889}
_CLASSES = {"IN": 1000, "A": 200, "V2": 1000, "R": 200, "Sketch": 1000}
_REFERENCE_MODEL = "ViT-B-16"  # its published rows are shown if the run's model has none

Accuracies = Mapping[tuple[str, str], float | None]


def read_accuracies(results: Mapping[str, Any]) -> dict[tuple[str, str], float | None]:
    """Top-1 accuracy by (set, method) of the dictionary of results.json."""
    return {(r["dataset"], r["method"]): r["metrics"]["acc1"] for r in results["results"]}


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None if there are no values, or one is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


# --- corruptions ---

_BETWEEN = "/+: "  # signs that may separate a set's name from its corruption


def find_parent(entry: Mapping[str, Any]) -> str:
    """The name of the set that was corrupted: "cifar10-c" for "cifar10-c/fog/3".

    A corruption without such a name is its own parent: "fog" for "fog/3", "mine" for "mine/3".
    """
    name: str = entry["name"]
    before, kind, _ = name.rpartition(entry["corruption"] or "\0")
    if kind and (not before or before[-1] in _BETWEEN):
        return before.rstrip(_BETWEEN) or kind
    return name.removesuffix(f"/{entry.get('severity')}") or name


def group_corruptions(sets: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[int, str]]]:
    """Names of the corrupted sets by parent, kind and severity, in the order of the sets."""
    groups: dict[str, dict[str, dict[int, str]]] = {}
    for entry in sets:
        if entry["corruption"] is not None and entry["part"] is None:
            kinds = groups.setdefault(find_parent(entry), {})
            kinds.setdefault(entry["corruption"], {})[entry["severity"] or 0] = entry["name"]
    return groups


def average_corruptions(
    kinds: Mapping[str, Mapping[int, str]], accuracies: Accuracies, method: str
) -> float | None:
    """The mean over corruptions of the mean over each one's severities."""
    return mean(
        [
            mean([accuracies.get((name, method)) for name in severities.values()])
            for severities in kinds.values()
        ]
    )


# --- domain generalisation ---


def published_column(entry: Mapping[str, Any]) -> str | None:
    """The column of the published table that a set fills: "IN", "A", "V2", "R", "Sketch" or None.

    The set must have all the classes of the column; ImageNet-V2 must be the matched-frequency one,
    which the papers use.
    """
    if entry["corruption"] is not None or entry["part"] is not None:
        return None
    layout, name = entry["layout"], f"{entry['name']} {entry['path']}".lower()
    column = next((c for c in ("A", "R", "V2") if f"ImageNet-{c}" in layout), None)
    if column is None and "ImageNet or ImageNet-Sketch" in layout:
        column = "Sketch" if "sketch" in name else "IN"
    if column is None or len(entry["classes"]) != _CLASSES[column]:
        return None
    if column == "V2" and ("threshold" in name or "top-images" in name):
        return None
    return column


def domain_generalisation(
    results: Mapping[str, Any], source: str | None = None
) -> dict[str, Any] | None:
    """One row a method, one column a shift, the source first; None with fewer than two columns.

    The corruptions and severities of one set are one column, their mean.

    Args:
        results: the dictionary of results.json.
        source: name of the set that the others are shifts of; None: this run has none.

    Returns:
        "source"; "columns" of {"title", "sets", "source", "published"}; "rows" of {"method",
        "accuracy" (one a column), "average" (None without a source), "ood_average"};
        "published" of {"beside": whether its columns are those above, "columns", "rows" as above}
        or None; "notes" for the reader of the table.

    Raises:
        OutputError: the source is not among the sets.
    """
    names = [entry["name"] for entry in results["sets"]]
    if source is not None and source not in names:
        raise OutputError(
            f'There is no set "{source}" in the results.{suggest(source, names)} Expected one of '
            "their sets as the source."
        )
    accuracies = read_accuracies(results)
    columns = _list_columns(results["sets"], source)
    if len(columns) < 2:
        return None
    rows = []
    for method in (entry["name"] for entry in results["methods"]):
        values = [average_corruptions(column["kinds"], accuracies, method) for column in columns]
        rows.append({"method": method, **_with_averages(values, source is not None)})
    return {
        "source": source,
        "columns": [{k: v for k, v in column.items() if k != "kinds"} for column in columns],
        "rows": rows,
        "published": _published_shifts(results, columns, source is not None),
        "notes": _list_notes(results["sets"], columns, source),
    }


def _list_columns(sets: Sequence[Mapping[str, Any]], source: str | None) -> list[dict[str, Any]]:
    """The source, then the shifts in order; a tree of corruptions is one column."""
    columns = [_make_column(entry, True) for entry in sets if entry["name"] == source]
    groups = group_corruptions(sets)
    for entry in sets:
        if entry["role"] != "shift" or entry["part"] is not None or entry["name"] == source:
            continue
        if entry["corruption"] is None:
            columns.append(_make_column(entry, False))
        elif kinds := groups.pop(find_parent(entry), None):
            columns.append(_make_mean_column(find_parent(entry), kinds))
    return columns


def _make_column(entry: Mapping[str, Any], is_source: bool) -> dict[str, Any]:
    return {
        "title": entry["name"],
        "sets": [entry["name"]],
        "source": is_source,
        "published": published_column(entry),
        "kinds": {"": {0: entry["name"]}},
    }


def _make_mean_column(parent: str, kinds: Mapping[str, Mapping[int, str]]) -> dict[str, Any]:
    names = [name for severities in kinds.values() for name in severities.values()]
    if len(names) == 1:
        title = names[0]
    elif len(kinds) == 1:
        title = f"{parent}, {next(iter(kinds))}, mean of {len(names)} severities"
    else:
        title = f"{parent}, mean of {len(kinds)} corruptions"
    return {"title": title, "sets": names, "source": False, "published": None, "kinds": kinds}


def _with_averages(values: Sequence[float | None], has_source: bool) -> dict[str, Any]:
    return {
        "accuracy": list(values),
        "average": mean(values) if has_source else None,
        "ood_average": mean(values[1:] if has_source else values),
    }


def _published_shifts(
    results: Mapping[str, Any], columns: Sequence[Mapping[str, Any]], has_source: bool
) -> dict[str, Any] | None:
    """The papers' rows: in this run's columns if all are published for its model."""
    settings = results["settings"]
    titles = [column["published"] for column in columns]
    rows = model_rows(str(settings.get("model")), str(settings.get("pretrained")))
    beside = bool(rows) and None not in titles
    if not beside and not any(titles):
        return None
    if not beside:
        titles, has_source = list(COLUMNS), True
        rows = rows or tuple(row for row in SHIFTS if row.model == _REFERENCE_MODEL)
    table = []
    for row in rows:
        values = [row.accuracy[COLUMNS.index(title)] for title in titles]
        averages = _with_averages(values, has_source)
        if row.ood_average is not None and sorted(titles[has_source:]) == sorted(COLUMNS[1:]):
            averages["ood_average"] = row.ood_average  # as printed, not from rounded columns
        table.append({"method": row.label, "model": row.model, **averages})
    return {"beside": beside, "columns": titles, "rows": table}


def _list_notes(
    sets: Sequence[Mapping[str, Any]], columns: Sequence[Mapping[str, Any]], source: str | None
) -> list[str]:
    """What a reader of the table must know of its columns."""
    entries = {entry["name"]: entry for entry in sets}
    firsts = [(column, entries[column["sets"][0]]) for column in columns]
    notes = []
    if source is not None:
        known = set(entries[source]["classes"])
        foreign = [c["title"] for c, entry in firsts if not set(entry["classes"]) <= known]
        if foreign:
            notes.append(
                f"With classes that {source} lacks, but averaged all the same: "
                f"{', '.join(foreign)}."
            )
    for column, entry in firsts:
        whole = _PICTURES.get(column["published"] or "", 0)
        if entry["images"] < whole:
            notes.append(
                f"{column['title']}: {entry['images']:,} of {whole:,} pictures, so it cannot be "
                "compared with the published figures, which are of all pictures."
            )
    return notes


# --- base to new ---


def base_to_new(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Accuracy on base and new classes and their harmonic mean; None if no set is split.

    Returns:
        "parents"; "rows" of {"parent", "method", "base", "new", "harmonic_mean"}; "average", rows
        over all parents with parent None (harmonic mean of the means, as in the papers), [] for
        one parent; "published", rows of {"method", "base", "new", "harmonic_mean"}: the papers'
        mean of eleven data sets with ViT-B/16.
    """
    parts: dict[str, dict[str, str]] = {}
    for entry in results["sets"]:
        if entry["part"] is not None:
            parent = entry["name"].removesuffix(f"({entry['part']})")
            parent = parent.removesuffix(entry["part"]).rstrip(" /:+")
            parts.setdefault(parent or entry["name"], {})[entry["part"]] = entry["name"]
    pairs = {parent: part for parent, part in parts.items() if {"base", "new"} <= part.keys()}
    if not pairs:
        return None
    accuracies = read_accuracies(results)
    methods = [entry["name"] for entry in results["methods"]]
    rows = [
        _split_row(parent, method, *(accuracies.get((part[p], method)) for p in ("base", "new")))
        for parent, part in pairs.items()
        for method in methods
    ]
    average = []
    for method in methods if len(pairs) > 1 else ():
        own = [row for row in rows if row["method"] == method]
        average.append(
            _split_row(None, method, *(mean([r[p] for r in own]) for p in ("base", "new")))
        )
    published = [
        {"method": row.label, "base": row.base, "new": row.new, "harmonic_mean": row.harmonic_mean}
        for row in SPLITS
    ]
    return {"parents": list(pairs), "rows": rows, "average": average, "published": published}


def _split_row(
    parent: str | None, method: str, base: float | None, new: float | None
) -> dict[str, Any]:
    both = None if base is None or new is None else harmonic_mean(base, new)
    return {"parent": parent, "method": method, "base": base, "new": new, "harmonic_mean": both}
