"""Class folders: one folder a class, known by its name, its WordNet id or its ImageNet number.

A tree may hold several groups of class folders, a domain each or a corruption and severity each;
which ones is `detect`'s business. All groups of a tree share one list of classes. No picture is
opened, and every folder is listed once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from tpt.data.class_lists import note_absent
from tpt.data.folder_labels import Labels, check_spelling, label_folders
from tpt.data.labelled_sets import ReadOptions, Sample, ShiftSet
from tpt.errors import SourceError
from tpt.streaming.sources import IMAGE_EXTENSIONS, walk_images
from tpt.text import as_text, some


@dataclass(frozen=True)
class FolderScan:
    """What lies directly in a folder, hidden things left out."""

    images: tuple[str, ...]  # names, in the order of their text
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """A folder with class folders directly in it; it becomes a set."""

    name: str
    root: str
    notes: tuple[str, ...] = ()
    domain: str | None = None
    corruption: str | None = None
    severity: int | None = None


def scan_folder(folder: str) -> FolderScan:
    """List a folder once.

    `tpt.streaming.sources.list_folder` orders names naturally, at 40 µs each: a minute for the
    folders of a million pictures, whose order means nothing here.

    Raises:
        SourceError: the folder cannot be read.
    """
    images, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    folders.append(entry.name)
                elif os.path.splitext(entry.name)[1].lower() in IMAGE_EXTENSIONS:
                    images.append(entry.name)
    except OSError as error:
        raise SourceError(
            f'The folder "{folder}" cannot be read ({error.strerror}). Give this user the right to '
            "read it, or name another folder."
        ) from error
    return FolderScan(tuple(sorted(images)), tuple(sorted(folders)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def read_groups(
    path: str, groups: Sequence[Group], options: ReadOptions, *, said: str = ""
) -> tuple[ShiftSet, ...]:
    """Read groups of class folders: a set each, all with the same classes.

    Args:
        path: what the user named.
        groups: at least one.
        options: its layout "folders", "wnid" or "numbers" says what the folders' names are; else
            it is found by looking at all of them.
        said: what the groups are, in words, before what the folders' names are.

    Raises:
        SourceError: see `tpt.data.layouts.read_sets`.
    """
    looks = [scan_folder(group.root) for group in groups]
    present = [[name for name in here.folders if name not in options.ignored] for here in looks]
    check_spelling(dict(zip((group.name for group in groups), present, strict=True)), options)
    labels = label_folders(sorted({name for names in present for name in names}), options, path)
    choice = labels.choice
    sets = []
    for group, here, names in zip(groups, looks, present, strict=True):
        names = [name for name in names if name in labels.id_of]
        samples = _read_pictures(group, names, labels, options)
        absent = note_absent(choice, (labels.id_of[name] for name in names))
        told = (*group.notes, *tell_ignored(here, options), *tell_loose(here.images, group.root))
        sets.append(
            ShiftSet(
                as_text(group.name),
                said + labels.layout,
                path,
                choice.classes,
                choice.ids,
                samples,
                family=labels.family,
                domain=group.domain,
                corruption=group.corruption,
                severity=group.severity,
                notes=(*told, *labels.notes, *choice.notes, *absent),
            )
        )
    return tuple(sets)


# --- pictures ---


def _read_pictures(
    group: Group,
    names: Sequence[str],
    labels: Labels,
    options: ReadOptions,
) -> tuple[Sample, ...]:
    """The pictures of a group's class folders."""
    choice = labels.choice
    samples, empty = [], []
    for name in names:
        folder = os.path.join(group.root, name)
        here = scan_folder(folder)
        images = [os.path.join(folder, image) for image in here.images]
        if here.folders:
            below = [x for sub in here.folders for x in walk_images(os.path.join(folder, sub))]
            if below and options.layout == "auto":
                raise SourceError(describe_depths(group.root, name, images, below))
            images += below
        if not images:
            empty.append(name)
        label = choice.label_of[labels.id_of[name]]
        start = len(os.path.join(group.root, ""))
        samples += [Sample(image[start:].replace(os.sep, "/"), label, image) for image in images]
    if empty:
        raise SourceError(describe_empty(empty, group.root))
    if not samples:
        raise SourceError(
            f'None of the class folders of "{group.root}" is among the classes given. Give other '
            "classes, or leave that folder out."
        )
    return tuple(samples)


def describe_empty(empty: Sequence[str], root: str) -> str:
    """The message for class folders without pictures."""
    many = len(empty) > 1
    return (
        f'{len(empty):,} class folder{"s" * many} of "{root}" {"hold" if many else "holds"} no '
        f"pictures: {some(empty)}. Add pictures, or remove the folders."
    )


def describe_depths(root: str, name: str, images: Sequence[str], below: Sequence[str]) -> str:
    """The message for a class folder with pictures in its sub-folders."""
    there = f'"{os.path.relpath(below[0], root)}"'
    beside = f'"{os.path.relpath(images[0], root)}" beside ' if images else ""
    return (
        f'The folder "{name}" of "{root}" holds {beside}{there}: expected the pictures of a class '
        "directly in its folder. If all below it are that class's, say so (--layout folders); else "
        "name the folder right above the class folders, or put the pictures into one layout."
    )


def tell_loose(images: Sequence[str], root: str) -> list[str]:
    """A note on pictures that lie beside class folders, if there are any."""
    if not images:
        return []
    many = len(images) > 1
    return [
        f'{len(images):,} picture{"s" * many} directly in "{root}" belong{"s" * (not many)} to no '
        f"class and {'are' if many else 'is'} left out."
    ]


def tell_ignored(here: FolderScan, options: ReadOptions) -> list[str]:
    """A note on folders that are no class, if there are any."""
    left = [name for name in here.folders if name in options.ignored]
    return [f"Left out, as no class: {some(left)}."] if left else []
