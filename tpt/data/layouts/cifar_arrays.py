"""CIFAR-10-C, CIFAR-100-C and CIFAR-10.1: pictures as rows of numpy arrays.

- CIFAR-10-C and CIFAR-100-C (Hendrycks and Dietterich, 1903.12261): a folder with one
  `<corruption>.npy` (5 n, 32, 32, 3) a corruption, its five severities one after another, and
  `labels.npy` with n labels, or with the same n labels five times. n is 10,000 in the original.
- CIFAR-10.1 (Recht et al., 1806.00451): `cifar10.1_v4_data.npy` and `cifar10.1_v4_labels.npy`,
  or v6.

The arrays stay on the disk; a row is read when its picture is opened. Pickled objects are refused,
because reading them can run code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tpt.corrupt.corruption_kinds import CORRUPTIONS
from tpt.data.class_lists import Choice, choose_classes
from tpt.data.labelled_sets import ArrayRow, LabelledSet, ReadOptions
from tpt.errors import SourceError, why
from tpt.streaming.folders import scan_folder

NAME, SUMMARY = "cifar", "arrays as of CIFAR-10-C, CIFAR-100-C and CIFAR-10.1"

Array: TypeAlias = npt.NDArray[Any]

SEVERITIES = 5
LARGEST_HEADER = 10_000  # bytes: what numpy takes too

_TEN = "airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck"
CIFAR10 = tuple(_TEN.split(", "))
"""CIFAR-10's class names by label number."""

_FINE = """
apple, aquarium fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy, bridge,
bus, butterfly, camel, can, castle, caterpillar, cattle, chair, chimpanzee, clock, cloud,
cockroach, couch, crab, crocodile, cup, dinosaur, dolphin, elephant, flatfish, forest, fox, girl,
hamster, house, kangaroo, keyboard, lamp, lawn mower, leopard, lion, lizard, lobster, man,
maple tree, motorcycle, mountain, mouse, mushroom, oak tree, orange, orchid, otter, palm tree,
pear, pickup truck, pine tree, plain, plate, poppy, porcupine, possum, rabbit, raccoon, ray, road,
rocket, rose, sea, seal, shark, shrew, skunk, skyscraper, snail, snake, spider, squirrel,
streetcar, sunflower, sweet pepper, table, tank, telephone, television, tiger, tractor, train,
trout, tulip, turtle, wardrobe, whale, willow tree, wolf, woman, worm
"""
CIFAR100 = tuple(" ".join(name.split()) for name in _FINE.split(","))
"""CIFAR-100's fine class names by label number: they are in alphabetical order."""

_KNOWN = frozenset(CORRUPTIONS) | {"speckle_noise", "gaussian_blur", "spatter", "saturate"}
_NEWER = re.compile(r"cifar10\.1_(v\d+)_(data|labels)\.npy", re.IGNORECASE)
_LABELS = "labels.npy"


def matches(path: str) -> bool:
    """Whether a path is an .npy file, or a folder with files named as in these sets."""
    if os.path.isdir(path):
        names = _list_arrays(path)
        return any(
            name == _LABELS or name.removesuffix(".npy") in _KNOWN or _NEWER.fullmatch(name)
            for name in names
        )
    return path.lower().endswith(".npy") and os.path.isfile(path)


def read(path: str, name: str, options: ReadOptions) -> tuple[LabelledSet, ...]:
    """Read the arrays of a folder, or one file of it.

    Args:
        path: the folder; or one corruption's file, with `labels.npy` beside it; or one data file
            of CIFAR-10.1.
        name: the sets' common name.
        options: `classes` gives other names or another order; a class is known by its number.

    Returns:
        One set a corruption and severity ("name/fog/3"), or one a version of CIFAR-10.1 ("name";
        "name/v4" and "name/v6" where a folder holds both).

    Raises:
        SourceError: a file is missing, damaged, or of another kind.
    """
    one = None if os.path.isdir(path) else os.path.basename(path)
    folder = path if one is None else os.path.dirname(path)
    names = _list_arrays(folder) if one is None else [one]
    newer = [file for file in names if _NEWER.fullmatch(file)]
    kinds = [file for file in names if file not in (*newer, _LABELS)]
    data = [file for file in newer if file.lower().endswith("_data.npy")]
    if newer and (kinds or _LABELS in names):
        raise SourceError(
            f'"{path}" holds files of CIFAR-10.1 ({newer[0]}) and of CIFAR-10-C '
            f"({(kinds or [_LABELS])[0]}): expected one of the two. Give each a folder of its own."
        )
    if not data and not kinds:
        what = f"labels ({names[0]}) without their pictures" if names else "no .npy files"
        raise SourceError(
            f'"{path}" {"is" if one and names else "holds"} {what}: expected arrays of pictures, '
            "such as fog.npy or cifar10.1_v4_data.npy. Name the folder that holds both."
        )
    if data:
        several = len(data) > 1
        return tuple(_read_newer(path, folder, file, name, several, options) for file in data)
    return _read_corruptions(path, folder, kinds, name, options)


def _list_arrays(folder: str) -> list[str]:
    return [name for name in scan_folder(folder).files if name.endswith(".npy")]


# --- CIFAR-10-C and CIFAR-100-C ---


def _read_corruptions(
    path: str, folder: str, files: list[str], name: str, options: ReadOptions
) -> tuple[LabelledSet, ...]:
    labels_path = os.path.join(folder, _LABELS)
    labels = _load_labels(labels_path, files[0], "CIFAR-10-C and CIFAR-100-C")
    arrays = {file: _load_pictures(os.path.join(folder, file)) for file in files}
    counts = {file: _count_a_severity(array, labels) for file, array in arrays.items()}
    _check_counts(labels_path, counts, arrays, labels)
    choice = _choose(labels, labels_path, options)
    title = "CIFAR-10-C" if labels.max() < len(CIFAR10) else "CIFAR-100-C"
    sets = []
    for file, count in counts.items():
        corruption = file.removesuffix(".npy")
        for severity in range(1, SEVERITIES + 1):
            one = choice.make_set(
                f"{name}/{corruption}/{severity}",
                f"{title}, one array a corruption",
                path,
                _take_rows(arrays[file], labels, count, severity - 1),
                corruption=corruption,
                severity=severity,
            )
            sets.append(one)
    return tuple(sets)


def _count_a_severity(array: Array, labels: Array) -> int:
    """The pictures of one severity; 0 where pictures and labels do not fit together."""
    if len(array) == SEVERITIES * len(labels):
        return len(labels)
    if len(array) == len(labels) and len(labels) % SEVERITIES == 0:
        each = labels.reshape(SEVERITIES, -1)
        return len(labels) // SEVERITIES if (each == each[0]).all() else 0
    return 0


def _check_counts(
    labels_path: str, counts: dict[str, int], arrays: dict[str, Array], labels: Array
) -> None:
    wrong = [file for file, count in counts.items() if not count]
    if not wrong:
        return
    pictures, count = len(arrays[wrong[0]]), len(labels)
    if pictures == count:
        raise SourceError(
            f"{wrong[0]} holds {pictures:,} pictures, one for each of the {count:,} labels of "
            f'"{labels_path}", but the labels do not repeat five times. Expected five severities, '
            f"one after another: {SEVERITIES * count:,} pictures, or the same labels five times."
        )
    if len(wrong) == len(arrays) and pictures % SEVERITIES == 0:  # it is the labels that are odd
        raise SourceError(
            f'"{labels_path}" holds {count:,} labels, but {wrong[0]} holds {pictures:,} pictures. '
            f"Expected {pictures // SEVERITIES:,} labels (one for each picture of a severity) or "
            f"{pictures:,}. Fetch the file again."
        )
    whole = [len(arrays[file]) for file, right in counts.items() if right]
    expected = whole[0] if whole else SEVERITIES * count
    raise SourceError(
        f'{wrong[0]} holds {pictures:,} pictures, but "{labels_path}" holds {count:,} labels. '
        f"Expected {expected:,} pictures, {expected // SEVERITIES:,} for each of five severities. "
        "Fetch the file again, or move it elsewhere if it is no corruption."
    )


# --- CIFAR-10.1 ---


def _read_newer(
    path: str, folder: str, file: str, name: str, several: bool, options: ReadOptions
) -> LabelledSet:
    labels_path = os.path.join(folder, file[: -len("data.npy")] + "labels.npy")
    labels = _load_labels(labels_path, file, "CIFAR-10.1")
    pictures = _load_pictures(os.path.join(folder, file))
    if len(pictures) != len(labels):
        raise SourceError(
            f'"{labels_path}" holds {len(labels):,} labels, but {file} holds {len(pictures):,} '
            "pictures. Expected one label a picture. Fetch both files again."
        )
    version = file.split("_")[1]
    return _choose(labels, labels_path, options).make_set(
        f"{name}/{version}" if several else name,
        "CIFAR-10.1, one array",
        path,
        _take_rows(pictures, labels, len(pictures)),
    )


# --- both ---


def _take_rows(
    array: Array, labels: Array, count: int, part: int = 0
) -> Iterator[tuple[str, str, ArrayRow]]:
    """The pictures of one part of an array whose parts have `count` rows each.

    A picture's key is its number in the part, so that it has the same views in every corruption and
    severity, and that --limit draws it in all of them or in none.
    """
    for number, label in enumerate(labels[:count].tolist()):
        yield f"{number:05d}", str(label), ArrayRow(array, part * count + number)


def _choose(labels: Array, where: str, options: ReadOptions) -> Choice:
    """The classes of label numbers, with a note on where they come from."""
    names = CIFAR10 if labels.max() < len(CIFAR10) else CIFAR100
    by_number = {str(number): name for number, name in enumerate(names)}
    if options.classes is not None:  # it need not name classes that have no pictures
        by_number = {number: by_number[number] for number in map(str, np.unique(labels).tolist())}
    note = f"The labels reach to {labels.max()}, so the classes are CIFAR-{len(names)}'s."
    choice = choose_classes(by_number, options, where)
    return replace(choice, notes=(note, *choice.notes))


def _load_labels(path: str, pictures: str, title: str) -> Array:
    if not os.path.exists(path):
        raise SourceError(
            f'There is no "{path}": expected the label numbers of {pictures} beside it. Copy the '
            f"file there; it comes with {title}."
        )
    labels = _load(path)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise SourceError(
            f'"{path}" holds {labels.dtype} of shape {labels.shape}: expected whole numbers of '
            "shape (n,), one label a picture. Fetch the file again."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(CIFAR100):
        raise SourceError(
            f'"{path}" holds labels from {low} to {high}: expected 0 to 9 (CIFAR-10) or 0 to 99 '
            "(CIFAR-100). Check that it is the labels' file."
        )
    return np.array(labels)  # small, so it need not stay on the disk


def _load_pictures(path: str) -> Array:
    array = _load(path)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != (32, 32, 3):
        raise SourceError(
            f'"{path}" holds {array.dtype} of shape {array.shape}: expected uint8 of shape '
            "(n, 32, 32, 3), as CIFAR's pictures are. Fetch the file again, or move it elsewhere "
            "if it holds no pictures."
        )
    return array


def _load(path: str) -> Array:
    """An array that stays on the disk."""
    try:
        with open(path, "rb") as file:
            start = file.read(12)
        if start[:6] != b"\x93NUMPY":  # np.load would take it for pickled objects and say so
            raise ValueError(f"it starts with {start[:6]!r}" if start else "it is empty (0 bytes)")
        header = int.from_bytes(start[8 : 10 if start[6:7] == b"\x01" else 12], "little")
        if header > LARGEST_HEADER:  # np.load would read all of it before it looks
            raise ValueError(f"its header is {header:,} bytes long, not at most {LARGEST_HEADER:,}")
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises nearly every kind on a broken header
        reason = why(error)
        if "Python objects" in reason or "allow_pickle" in reason:
            raise SourceError(
                f'"{path}" holds pickled Python objects: expected a plain array of numbers. '
                "Pickles can run code, so they are not read. Fetch the original file."
            ) from error
        raise SourceError(
            f'"{path}" is damaged or cut short ({reason}): expected an array in '
            "numpy's .npy format. Fetch it again."
        ) from error
    return array
