"""Class folders: one folder a class, named by class name, WordNet id or ImageNet number.

A tree may hold several groups of class folders: one a domain, or one a corruption and severity.
`folder_tree` finds them, and they share one list of classes. No picture is opened, and every folder
is listed once.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from tpt.data.labelled_sets import LabelledSet, ReadOptions
from tpt.data.layouts._folder_labels import check_spelling, label_folders
from tpt.errors import SourceError
from tpt.streaming.folders import Listing, note_left_out, scan_folder, walk_folders
from tpt.text import as_text, some


@dataclass(frozen=True)
class Group:
    """A folder that holds class folders; it becomes a set."""

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
        options: the layouts "folders", "wnid" and "numbers" say what the folders' names are;
            with others the names themselves tell.
        layout: what the groups are, in words; the kind of class folders is appended.

    Raises:
        SourceError: see `tpt.data.layouts.read_sets`.
    """
    listings = [scan_folder(group.root, options.all_files) for group in groups]
    present = [[n for n in here.folders if n not in options.ignored] for here in listings]
    check_spelling(dict(zip((group.name for group in groups), present, strict=True)), options)
    choice, kind = label_folders(sorted({n for names in present for n in names}), options, path)
    sets = []
    for group, here, names in zip(groups, listings, present, strict=True):
        kept = [name for name in names if name in choice.label_of]
        deep, inside = options.layout != "auto", options.all_files
        pictures, others = list_pictures(group.root, kept, any_depth=deep, all_files=inside)
        loose = note_loose(here.images, group.root)
        one = choice.make_set(
            as_text(group.name),
            layout + kind,
            path,
            pictures,
            notes=(*group.notes, *note_ignored(here, options.ignored), *loose, *others),
            domain=group.domain,
            corruption=group.corruption,
            severity=group.severity,
        )
        sets.append(one)
    return tuple(sets)


# --- pictures ---


def list_pictures(
    root: str,
    folders: Iterable[str],
    *,
    any_depth: bool,
    natural: bool = False,
    all_files: bool = False,
) -> tuple[list[tuple[str, str, str]], list[str]]:
    """(key, class folder, path) of every picture in some class folders of `root`, and notes.

    Args:
        root: the folder they lie in.
        folders: the names of the class folders.
        any_depth: take the pictures of a class folder's sub-folders too; else refuse them.
        natural: order pictures naturally, which is slow for a million; else as text.
        all_files: look inside files without an image's extension.

    Raises:
        SourceError: class folders without pictures, or with sub-folders where `any_depth` is false.
    """
    pictures, empty = [], []
    others: list[str] = []
    start = len(os.path.join(root, ""))
    for name in folders:
        folder = os.path.join(root, name)
        (_, images), *deeper = walk_folders(
            folder, natural=natural, others=others, all_files=all_files
        )
        below = [image for _, more in deeper for image in more]
        if below and not any_depth:
            raise SourceError(describe_depths(root, name, images, below))
        if not images + below:
            empty.append(name)
        pictures += [(at[start:].replace(os.sep, "/"), name, at) for at in images + below]
    left_out = note_left_out(others, all_files) if others else ""
    if others and not all_files:
        left_out += " --all-files (tpt train, tpt eval) looks inside them."
    if empty:
        raise SourceError(f"{describe_empty(empty, root)} {left_out}".strip())
    if not pictures:
        raise SourceError(
            f'None of the class folders of "{root}" is among the classes given. Give other '
            "classes, or leave that folder out."
        )
    return pictures, [left_out] if left_out else []


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


def note_loose(images: Sequence[str], root: str) -> list[str]:
    """A note on pictures that lie beside class folders, if there are any."""
    if not images:
        return []
    many = len(images) > 1
    return [
        f'{len(images):,} picture{"s" * many} directly in "{root}" belong{"s" * (not many)} to no '
        f"class and {'are' if many else 'is'} left out."
    ]


def note_ignored(here: Listing, ignored: Container[str]) -> list[str]:
    """A note on folders that are no class, if there are any."""
    left = [name for name in here.folders if name in ignored]
    return [f"Left out, as no class: {some(left)}."] if left else []
