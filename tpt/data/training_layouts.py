"""Folders and CSV files of labelled pictures, as rows of (path, label) for each split.

Nothing is opened here but the list itself. What becomes of the labels is `tpt.data.training_sets`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from tpt.data.labelled_sets import SPLITS
from tpt.data.layouts.csv_table import read_rows
from tpt.data.presets import Preset
from tpt.errors import SourceError
from tpt.streaming.sources import list_folder, walk_images
from tpt.text import some

Rows = dict[str, list[tuple[str, str]]]  # split -> (path, label)


# --- folders ---


def read_folder(path: str, preset: Preset | None) -> tuple[Rows, list[str]]:
    """One sub-folder a class, or `train/` (and `val/`, `test/`) of that form; rows and notes.

    Raises:
        SourceError: no sub-folders, or some without pictures.
    """
    loose, folders = list_folder(path)
    names = [os.path.basename(folder) for folder in folders]
    splits = [SPLITS.get(name.lower(), "") for name in names]  # some archives hold Train and Test
    if "train" in splits and all(splits):
        rows: Rows = {}
        notes = [f"Splits: {', '.join(names)}.", *_tell_loose(loose, path)]
        for folder, split in zip(folders, splits, strict=True):
            part, said = _read_class_folders(folder, preset)
            rows.setdefault(split, []).extend(part)
            notes += said
        if "val" in rows and "test" not in rows:  # as ImageNet is used everywhere
            rows["test"] = rows.pop("val")
            notes.append("There is no test folder, so the validation folder is the test set.")
        return rows, notes
    rows_here, notes = _read_class_folders(path, preset)
    return {"train": rows_here}, notes


def _read_class_folders(
    path: str, preset: Preset | None
) -> tuple[list[tuple[str, str]], list[str]]:
    loose, folders = list_folder(path)
    if not folders:
        raise SourceError(
            f'The folder "{path}" has no sub-folders'
            + (f", but {len(loose)} picture{'s' * (len(loose) > 1)}" if loose else "")
            + ". Expected one sub-folder a class, named after it."
        )
    rows, empty, notes = [], [], []
    for folder in folders:
        label = os.path.basename(folder)
        if preset and label in preset.ignored:
            notes.append(f'The folder "{label}" is left out, as the data set\'s convention has it.')
            continue
        images = walk_images(folder)
        if not images:
            empty.append(label)
        rows += [(image, label) for image in images]
    if empty:
        raise SourceError(
            f'{len(empty)} class folder{"s" * (len(empty) > 1)} of "{path}" '
            f"{'holds' if len(empty) == 1 else 'hold'} no pictures: {some(empty)}. Add pictures, "
            "or remove the folders."
        )
    return rows, [*notes, *_tell_loose(loose, path)]


def _tell_loose(loose: Sequence[str], path: str) -> list[str]:
    if not loose:
        return []
    many = len(loose) > 1
    return [
        f'{len(loose)} picture{"s" * many} directly in "{path}" belong{"s" * (not many)} to no '
        f"class and {'are' if many else 'is'} left out."
    ]


# --- CSV ---


def read_csv(path: str) -> Rows:
    """Columns `path` and `label` and, if wanted, `split`.

    Raises:
        SourceError: it cannot be read, lacks a column, a line of it lacks a part, or none is of
            the training split.
    """
    base = os.path.dirname(path)
    rows: Rows = {"train": []}
    for row in read_rows(path, ("path", "label", "split"))[0]:
        rows.setdefault(row.split, []).append((os.path.join(base, row.path), row.label))
    if not rows["train"]:
        raise SourceError(f'The CSV file "{path}" lists no training picture. Add some lines.')
    return rows
