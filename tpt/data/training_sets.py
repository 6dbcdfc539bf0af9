"""Labelled pictures from the layouts people have them in.

- a folder with one sub-folder a class, or with `train/` (and `val/`, `test/`) of that form;
- a CSV file with columns `path` and `label` (and, if wanted, `split`: train, val or test);
- CoOp's `split_zhou_*.json`: {"train": [[path, label number, class name], ...], "val", "test"}.

Nothing is opened here but the list itself: a picture that is broken shows when it is encoded.
Class names come from folders or labels, through a preset's corrections, and their order is that of
the sorted labels (of the label numbers in a split file), never of anything else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tpt.data.presets import Preset, find_preset, name_labels, preset_of_split
from tpt.data.training_layouts import Rows, read_csv, read_folder
from tpt.errors import SourceError, suggest
from tpt.streaming.sources import list_folder
from tpt.text import as_text, fold, some


@dataclass(frozen=True)
class Item:
    """One labelled picture."""

    path: str
    label: int  # place in the data set's classes


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures and their class names; `val` and `test` may be empty."""

    name: str
    classes: tuple[str, ...]
    train: tuple[Item, ...]
    val: tuple[Item, ...] = ()
    test: tuple[Item, ...] = ()
    layout: str = "folder"  # "folder", "csv" or "split"
    notes: tuple[str, ...] = ()  # what a person should be told
    preset: Preset | None = None


def read_dataset(
    path: str, *, preset: str | None = None, classes: Sequence[str] | None = None
) -> Dataset:
    """Read a folder, a CSV file or a split file.

    Args:
        path: the folder or file.
        preset: name of a preset (`tpt.data.presets.PRESETS`); a split file's own name tells its.
        classes: class names in the order wanted; every label has to be among them. An entry
            "label=name" gives a label ("n01440764") its class name ("tench").

    Raises:
        SourceError: no such path, an unknown layout, an empty class folder, a label that
            `classes` lacks, a list that cannot be read.
        MethodError: unknown preset.
    """
    named = find_preset(preset or preset_of_split(os.path.basename(path)))
    if os.path.isdir(path):
        layout, (rows, notes) = "folder", read_folder(path, named)
    elif not os.path.exists(path):
        raise SourceError(
            f'There is no "{path}". Expected a folder with one sub-folder a class, a CSV file with '
            "columns path and label, or a split_zhou_*.json file."
        )
    elif path.lower().endswith(".csv"):
        layout, rows, notes = "csv", read_csv(path), []
    elif path.lower().endswith(".json"):
        return _with_classes(_read_split(path, named), classes)
    else:
        raise SourceError(
            f'"{path}" is neither a folder nor a .csv nor a .json file. Expected a folder with one '
            "sub-folder a class, a CSV file with columns path and label, or a split_zhou_*.json."
        )
    labels = _sort({label for split in rows.values() for _, label in split})
    if classes is None:
        names = name_labels(labels, named)
    else:
        names = [named.class_name(label) if named else label for label in labels]
    made = _build(path, layout, labels, names, rows, notes, named)
    return _with_classes(made, classes, labels)


def _sort(labels: Iterable[str]) -> list[str]:
    """Labels in order: numbers as numbers, "9" before "10", where all of them are."""
    found = sorted(labels)
    return sorted(found, key=int) if all(map(str.isdecimal, found)) else found


def check_dataset(dataset: Dataset) -> Dataset:
    """Refuse what nothing can be learned from.

    Raises:
        SourceError: fewer than two classes, or a class without a training picture.
    """
    if len(dataset.classes) < 2:
        raise SourceError(
            f'"{dataset.name}" holds {len(dataset.classes)} class'
            f"{'es' if not dataset.classes else f' ({dataset.classes[0]})'}; expected at least "
            "two. A classifier needs something to tell apart: name the folder above the class "
            "folders."
        )
    present = {item.label for item in dataset.train}
    empty = [name for label, name in enumerate(dataset.classes) if label not in present]
    if empty:
        raise SourceError(
            f'{len(empty)} of the {len(dataset.classes)} classes of "{dataset.name}" have no '
            f"training picture: {some(empty)}. Add pictures, or remove those classes."
        )
    return dataset


# --- split_zhou_*.json ---


def _read_split(path: str, preset: Preset | None) -> Dataset:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        splits = {
            split: [(str(file), int(label), str(name)) for file, label, name in content[split]]
            for split in ("train", "val", "test")
        }
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SourceError(
            f'"{path}" is not a split file ({type(error).__name__}: {error}). Expected '
            '{"train": [[path, label number, class name], ...], "val": ..., "test": ...}.'
        ) from error
    names: dict[int, str] = {}
    for rows in splits.values():
        for _, label, name in rows:
            if names.setdefault(label, name) != name:
                raise SourceError(
                    f'"{path}" gives label {label} two names, "{names[label]}" and "{name}". '
                    "Expected one name a label."
                )
    root = _find_root(path, splits["train"] or splits["test"], preset)
    order = sorted(names)
    place = {label: index for index, label in enumerate(order)}
    shown = [preset.class_name(names[label]) if preset else names[label] for label in order]
    train, val, test = (
        tuple(Item(os.path.join(root, file), place[label]) for file, label, _ in splits[split])
        for split in ("train", "val", "test")
    )
    title = preset.title if preset else as_text(os.path.basename(path).removesuffix(".json"))
    return Dataset(title, tuple(shown), train, val, test, layout="split", preset=preset)


def _find_root(path: str, rows: list[tuple[str, int, str]], preset: Preset | None) -> str:
    """The folder that a split file's paths are relative to."""
    base = os.path.dirname(path)
    if not rows:
        raise SourceError(f'The split file "{path}" lists no pictures.')
    named = [preset.images] if preset and preset.images else []
    below = [os.path.basename(folder) for folder in list_folder(base)[1]]
    for folder in ["", *named, *below]:
        if any(os.path.exists(os.path.join(base, folder, row[0])) for row in rows[:20]):
            return os.path.join(base, folder)
    raise SourceError(
        f'The pictures that "{path}" lists were not found ("{rows[0][0]}", for example). Expected '
        "them beside the split file or in a folder there"
        + (f', by convention "{named[0]}".' if named else ".")
    )


# --- classes ---


def _build(
    path: str,
    layout: str,
    labels: list[str],
    names: list[str],
    rows: Rows,
    notes: list[str],
    preset: Preset | None,
) -> Dataset:
    """A data set of rows with labels as text."""
    place = {label: number for number, label in enumerate(labels)}
    train, val, test = (
        tuple(Item(file, place[label]) for file, label in rows.get(split, []))
        for split in ("train", "val", "test")
    )
    title = preset.title if preset else as_text(os.path.basename(os.path.abspath(path)))
    return Dataset(title, tuple(names), train, val, test, layout, tuple(notes), preset)


def _with_classes(
    dataset: Dataset, wanted: Sequence[str] | None, labels: Sequence[str] = ()
) -> Dataset:
    """The data set with its classes in the order, and under the names, that were asked for.

    A class is found by its name, or by its label (the folder's own name) where that is another.
    """
    if wanted is None:
        return dataset
    asked = [tuple(part.strip() for part in entry.rsplit("=", 1)) for entry in wanted]
    names = list(dict.fromkeys(entry[-1] for entry in asked))  # labels of one name are one class
    places = {name: number for number, name in enumerate(names)}
    # What stands left of "=" wins over a name that reads the same: cat=dog, dog=cat swaps two.
    exact = {**places, **{entry[0]: places[entry[-1]] for entry in asked}}
    folded = {fold(word): number for word, number in exact.items()}
    found = {  # a word as it is written wins over the same in another case
        word: exact.get(word, folded.get(fold(word), -1)) for word in (*dataset.classes, *labels)
    }
    pairs = zip(dataset.classes, labels or dataset.classes, strict=True)
    known = [name if found[name] >= 0 else label for name, label in pairs]
    unknown = [word for word in known if found[word] < 0]
    if unknown:
        raise SourceError(
            f'{len(unknown)} of the {len(dataset.classes)} labels of "{dataset.name}" are not '
            f"among the {len(names)} classes given: {some(unknown)}."
            f"{suggest(unknown[0], names)} Add them (label=name, if the label is no name), or "
            "remove those pictures."
        )
    moved = [found[word] for word in known]
    train, val, test = (
        tuple(Item(item.path, moved[item.label]) for item in items)
        for items in (dataset.train, dataset.val, dataset.test)
    )
    return replace(dataset, classes=tuple(names), train=train, val=val, test=test)
