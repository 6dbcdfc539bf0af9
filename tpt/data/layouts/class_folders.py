"""Class folders: one folder a class, known by its name, its WordNet id or its ImageNet number.

A tree may hold several groups of class folders, a domain each or a corruption and severity each;
`folder_tree` finds them. All groups of a tree share one list of classes. No picture is opened, and
every folder is listed once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tpt.data.labelled_sets import LabelledSet, ReadOptions
from tpt.data.layouts._folder_labels import check_spelling, label_folders
from tpt.errors import SourceError
from tpt.streaming.sources import Listing, scan_folder, walk_images
from tpt.text import as_text, some


@dataclass(frozen=True)
class Group:
    """A folder with class folders directly in it; it becomes a set."""

    name: str
    root: str
    notes: tuple[str, ...] = ()
    domain: str | None = None
    corruption: str | None = None
    severity: int | None = None


def read_groups(
    path: str, groups: Sequence[Group], options: ReadOptions, layout: str = ""
) -> tuple[LabelledSet, ...]:
    """Read groups of class folders: a set each, all with the same classes.

    Args:
        path: what the user named.
        groups: at least one.
        options: its layout "folders", "wnid" or "numbers" says what the folders' names are; else
            it is found by looking at all of them.
        layout: what the groups are, in words, before what the folders' names are.

    Raises:
        SourceError: see `tpt.data.layouts.read_sets`.
    """
    listings = [scan_folder(group.root) for group in groups]
    present = [[n for n in here.folders if n not in options.ignored] for here in listings]
    check_spelling(dict(zip((group.name for group in groups), present, strict=True)), options)
    labels = label_folders(sorted({name for names in present for name in names}), options, path)
    sets = []
    for group, here, names in zip(groups, listings, present, strict=True):
        told = (*group.notes, *tell_ignored(here, options), *tell_loose(here.images, group.root))
        one = labels.choice.make_set(
            as_text(group.name),
            layout + labels.layout,
            path,
            _list_pictures(group.root, names, labels.id_of, options),
            notes=(*told, *labels.notes),
            domain=group.domain,
            corruption=group.corruption,
            severity=group.severity,
        )
        sets.append(one)
    return tuple(sets)


# --- pictures ---


def _list_pictures(
    root: str, names: Sequence[str], id_of: Mapping[str, str], options: ReadOptions
) -> list[tuple[str, str, str]]:
    """(key, id of its class, path) of every picture in the class folders that have an id."""
    pictures, empty = [], []
    start = len(os.path.join(root, ""))
    for name in names:
        if name not in id_of:
            continue
        folder = os.path.join(root, name)
        here = scan_folder(folder)
        images = [os.path.join(folder, image) for image in here.images]
        below = [x for sub in here.folders for x in walk_images(os.path.join(folder, sub))]
        if below and options.layout == "auto":
            raise SourceError(describe_depths(root, name, images, below))
        if not images + below:
            empty.append(name)
        keys = (image[start:].replace(os.sep, "/") for image in images + below)
        pictures += [(key, id_of[name], at) for key, at in zip(keys, images + below, strict=True)]
    if empty:
        raise SourceError(describe_empty(empty, root))
    if not pictures:
        raise SourceError(
            f'None of the class folders of "{root}" is among the classes given. Give other '
            "classes, or leave that folder out."
        )
    return pictures


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


def tell_ignored(here: Listing, options: ReadOptions) -> list[str]:
    """A note on folders that are no class, if there are any."""
    left = [name for name in here.folders if name in options.ignored]
    return [f"Left out, as no class: {some(left)}."] if left else []
