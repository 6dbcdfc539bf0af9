"""Labelled pictures to learn from, by split, in the layouts people have.

- a folder with one sub-folder a class, or with `train/` (and `val/`, `test/`) of that form;
- a CSV file with columns `path` and `label` (and, if wanted, `split`: train, val or test);
- CoOp's `split_zhou_*.json`: {"train": [[path, label number, class name], ...], "val", "test"}.

Class folders and CSV files are read as evaluation reads them (`tpt.data.layouts`), except that all
splits are kept, and that class names are the labels, with a preset's corrections, in the order of
the sorted labels (in a split file, of the label numbers).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tpt.data.class_lists import choose_classes
from tpt.data.labelled_sets import SPLITS, ReadOptions, Sample
from tpt.data.layouts.class_folders import list_pictures, note_ignored, note_loose
from tpt.data.layouts.csv_table import read_rows
from tpt.data.presets import Preset, find_preset, name_labels, preset_of_split
from tpt.errors import SourceError, describe_error
from tpt.streaming.folders import scan_folder, sort_naturally
from tpt.text import as_text, read_json, some

Rows = dict[str, list[tuple[str, str]]]  # split -> (path, label)

_EXPECTED = (
    "Expected a folder with one sub-folder a class, a CSV file with columns path and label, or a "
    "split_zhou_*.json file."
)


@dataclass(frozen=True)
class TrainingSet:
    """Labelled pictures by split, and their class names; `val` and `test` may be empty."""

    name: str
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...] = ()
    test: tuple[Sample, ...] = ()
    layout: str = "folder"  # "folder", "csv" or "split"
    notes: tuple[str, ...] = ()  # what the user should know
    preset: Preset | None = None


def read_training_set(
    path: str,
    *,
    preset: str | None = None,
    classes: Sequence[str] | None = None,
    all_files: bool = False,
) -> TrainingSet:
    """Read a folder, a CSV file or a split file; no picture is opened.

    Args:
        preset: name of a preset (`tpt.data.presets.PRESETS`); default: the one that a split
            file's name implies.
        classes: class names in the order wanted; every label has to fit one of them
            (`tpt.data.class_lists.choose_classes`).
        all_files: look inside files of class folders without an image's extension.

    Raises:
        SourceError: no such path, an unknown layout, an empty class folder, a label that
            `classes` lacks, a list that cannot be read.
        MethodError: unknown preset.
    """
    conventions = find_preset(preset or preset_of_split(os.path.basename(path)))
    names: Mapping[str, str] = {}  # of the labels, in the order of the classes
    notes: list[str] = []
    if os.path.isdir(path):
        layout, (rows, notes) = "folder", _read_folder(path, conventions, all_files)
    elif not os.path.exists(path):
        raise SourceError(f'There is no "{path}". {_EXPECTED}')
    elif path.lower().endswith(".csv"):
        layout, rows = "csv", _read_csv(path)
    elif path.lower().endswith(".json"):
        layout, (rows, names) = "split", _read_split(path, conventions)
    else:
        raise SourceError(f'"{path}" is neither a folder nor a .csv nor a .json file. {_EXPECTED}')
    file_name = os.path.basename(os.path.abspath(path)).removesuffix(".json")
    name = conventions.title if conventions else as_text(file_name)
    if layout != "split":
        labels = sorted({label for split in rows.values() for _, label in split})
        if all(map(str.isdecimal, labels)):
            labels.sort(key=int)  # "9" before "10"
        # A preset's list need not fit where the user names the labels.
        to_name = conventions.class_name if conventions and classes is not None else None
        named = map(to_name, labels) if to_name else name_labels(labels, conventions)
        names = dict(zip(labels, named, strict=True))
    choice = choose_classes(names, ReadOptions(classes=classes), name)
    train, val, test = (
        tuple(Sample.of_file(file, choice.label_of[label]) for file, label in rows.get(split, []))
        for split in ("train", "val", "test")
    )
    all_notes = (*notes, *choice.notes)
    return TrainingSet(name, choice.classes, train, val, test, layout, all_notes, conventions)


def check_training_set(dataset: TrainingSet) -> TrainingSet:
    """Refuse a set that nothing can be learned from.

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
    present = {sample.label for sample in dataset.train}
    empty = [name for label, name in enumerate(dataset.classes) if label not in present]
    if empty:
        raise SourceError(
            f'{len(empty)} of the {len(dataset.classes)} classes of "{dataset.name}" have no '
            f"training picture: {some(empty)}. Add pictures, or remove those classes."
        )
    return dataset


# --- folders ---


def _read_folder(path: str, preset: Preset | None, all_files: bool) -> tuple[Rows, list[str]]:
    """Rows and notes of class folders, or of `train/` (and `val/`, `test/`) with class folders."""
    here = scan_folder(path, all_files)
    names = sort_naturally(here.folders)
    splits = [SPLITS.get(name.lower(), "") for name in names]  # some archives hold Train and Test
    if "train" not in splits or not all(splits):
        rows_here, notes = _read_class_folders(path, preset, all_files)
        return {"train": rows_here}, notes
    rows: Rows = {}
    notes = [f"Splits: {', '.join(names)}.", *note_loose(here.images, path)]
    for name, split in zip(names, splits, strict=True):
        part, part_notes = _read_class_folders(os.path.join(path, name), preset, all_files)
        rows.setdefault(split, []).extend(part)
        notes += part_notes
    if "val" in rows and "test" not in rows:  # as ImageNet is used everywhere
        rows["test"] = rows.pop("val")
        notes.append("There is no test folder, so the validation folder is the test set.")
    return rows, notes


def _read_class_folders(
    path: str, preset: Preset | None, all_files: bool
) -> tuple[list[tuple[str, str]], list[str]]:
    here = scan_folder(path, all_files)
    if not here.folders:
        count = len(here.images)
        raise SourceError(
            f'The folder "{path}" has no sub-folders'
            + (f", but {count} picture{'s' * (count > 1)}" if count else "")
            + ". Expected one sub-folder a class, named after it."
        )
    ignored = preset.ignored if preset else frozenset()
    names = [name for name in sort_naturally(here.folders) if name not in ignored]
    pictures, others = list_pictures(path, names, any_depth=True, natural=True, all_files=all_files)
    rows = [(file, label) for _, label, file in pictures]
    return rows, [*note_ignored(here, ignored), *note_loose(here.images, path), *others]


# --- lists ---


def _read_csv(path: str) -> Rows:
    """The rows of a CSV file with the columns `path`, `label` and, if wanted, `split`."""
    base = os.path.dirname(path)
    rows: Rows = {"train": []}
    for row in read_rows(path, ("path", "label", "split"))[0]:
        rows.setdefault(row.split, []).append((os.path.join(base, row.path), row.label))
    if not rows["train"]:
        raise SourceError(f'The CSV file "{path}" lists no training picture. Add some lines.')
    return rows


def _read_split(path: str, preset: Preset | None) -> tuple[Rows, dict[str, str]]:
    """The rows of a split_zhou_*.json, and its class names in the order of their numbers."""
    try:
        content = read_json(Path(path))
        splits = {
            split: [
                (str(file).replace("\\", "/"), int(label), str(name))
                for file, label, name in content[split]
            ]
            for split in ("train", "val", "test")
        }
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise SourceError(
            f'"{path}" is not a split file ({describe_error(error)}). Expected '
            '{"train": [[path, label number, class name], ...], "val": ..., "test": ...}.'
        ) from error
    names: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for listed in splits.values():
        for _, label, name in listed:
            if names.setdefault(label, name) != name:
                raise SourceError(
                    f'"{path}" gives label {label} two names, "{names[label]}" and "{name}". '
                    "Expected one name a label."
                )
            if numbers.setdefault(name, label) != label:
                raise SourceError(
                    f'"{path}" gives the labels {numbers[name]} and {label} one name, "{name}". '
                    "Expected one label a name."
                )
    root = _find_root(path, splits["train"] or splits["test"], preset)
    rows = {
        split: [(os.path.join(root, file), name) for file, _, name in listed]
        for split, listed in splits.items()
    }
    to_name = preset.class_name if preset else str
    return rows, {names[label]: to_name(names[label]) for label in sorted(names)}


def _find_root(path: str, rows: list[tuple[str, int, str]], preset: Preset | None) -> str:
    """The folder that a split file's paths are relative to."""
    base = os.path.dirname(path)
    if not rows:
        raise SourceError(f'The split file "{path}" lists no pictures.')
    named = [preset.images] if preset and preset.images else []
    for folder in ["", *named, *sort_naturally(scan_folder(base).folders)]:
        if any(os.path.exists(os.path.join(base, folder, row[0])) for row in rows[:20]):
            return os.path.join(base, folder)
    raise SourceError(
        f'The pictures that "{path}" lists were not found ("{rows[0][0]}", for example). Expected '
        "them beside the split file or in a folder there"
        + (f', by convention "{named[0]}".' if named else ".")
    )
