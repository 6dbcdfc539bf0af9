"""A labelled set that has been read: classes, and labelled pictures that can be opened.

Training and evaluation share it, and nothing is decoded here. A set of a million pictures is a
million `Sample`s: a name, a label and where the bytes are. Arrays stay on the disk (memory-mapped),
and archives are read member by member.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tpt.errors import ImageError, why
from tpt.prompts.checks import take_names


@dataclass(frozen=True, slots=True, eq=False)
class ArrayRow:
    """One picture of an array (n, H, W, 3) of bytes, which may lie on the disk."""

    array: npt.NDArray[Any]
    row: int


@dataclass(frozen=True, slots=True)
class TarMember:
    """One file inside a tar archive that is not compressed."""

    archive: str
    offset: int  # of its first byte
    size: int
    name: str


SPLITS = {
    **{"test": "test", "testing": "test"},
    **{"val": "val", "valid": "val", "validation": "val"},
    **{"train": "train", "training": "train"},
}
"""The names of splits in folders and lists -> the split, in the order of choice for testing."""

Source = str | ArrayRow | TarMember
"""Where a picture is: a path, a row of an array, or a member of an archive."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled picture."""

    key: str  # its name inside the set, with "/"; unique in the set
    label: int  # place in the set's classes
    source: Source

    @classmethod
    def of_file(cls, path: str, label: int) -> Sample:
        """A picture whose key is its file's path."""
        return cls(path, label, path)

    @property
    def path(self) -> str:
        """The path of a picture that is a file; the key of any other."""
        return self.source if isinstance(self.source, str) else self.key


@dataclass(frozen=True)
class LabelledSet:
    """Labelled pictures whose classes are known.

    A tree of several domains, corruptions or severities is several sets, one each.
    """

    name: str  # "pacs/sketch", "imagenet-c/fog/3"; unique in a run
    layout: str  # how it was read, in words: "one folder a class", "ImageNet-A by WordNet id"
    path: str  # as the user gave it
    classes: tuple[str, ...]  # class names, in the order of the labels
    ids: tuple[str, ...]  # what each class is known by: WordNet id, folder name, number
    samples: tuple[Sample, ...]
    templates: tuple[str, ...] = ()  # the set's own, with {} for the class name
    family: str | None = None  # "imagenet" for all sets labelled by ImageNet's classes
    domain: str | None = None
    corruption: str | None = None
    severity: int | None = None
    notes: tuple[str, ...] = ()  # what the user should know of how it was read


@dataclass(frozen=True)
class ReadOptions:
    """What a user says about a set beyond its path."""

    layout: str = "auto"  # a name of `tpt.data.layouts.LAYOUTS`
    classes: Sequence[str] | None = None  # names, "id=name" entries; None: the set's own
    rename: Callable[[str], str] | None = None  # folder name to class name, where not by wnid
    ignored: frozenset[str] = frozenset()  # folders that are no class, by convention
    all_files: bool = False  # look inside files of class folders whose names are no pictures'

    def __post_init__(self) -> None:
        if self.classes is not None:
            object.__setattr__(self, "classes", take_names(self.classes))


def open_source(source: Source) -> Any:
    """What `tpt.images.decode.decode_image` takes: a path, bytes of an image file, or an array.

    Raises:
        ImageError: the archive or its member cannot be read.
    """
    if isinstance(source, ArrayRow):
        return np.ascontiguousarray(source.array[source.row])
    if isinstance(source, str):
        return source
    try:
        with open(source.archive, "rb") as file:
            file.seek(source.offset)
            data = file.read(source.size)
    except OSError as error:
        raise ImageError(
            f'"{source.name}" in "{source.archive}" cannot be read ({why(error)}): expected '
            "a tar archive that is still there. Check the file."
        ) from error
    if len(data) < source.size:
        raise ImageError(
            f'"{source.name}" in "{source.archive}" is cut off: {len(data)} of {source.size} bytes '
            "are there. Fetch the archive again."
        )
    return data
