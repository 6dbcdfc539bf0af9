"""Which folder layout a tree has, found by listing folders down to the class folders.

    CLASS/*.png                          one folder a class
    test/CLASS/*.png                     the same with splits: test, else val, else train
    DOMAIN/CLASS/*.png                   PACS, Office, DomainNet
    CORRUPTION/SEVERITY/CLASS/*.png      ImageNet-C, and what `tpt corrupt` writes
    GROUP/CORRUPTION/SEVERITY/CLASS      ImageNet-C as it is unpacked (blur/defocus_blur/1/...)
    SEVERITY/CLASS/*.png                 one corruption of it

A tree that could be two of these is an error that says what was found; then `--layout` decides.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tpt.data.labelled_sets import SPLITS, ReadOptions
from tpt.data.layouts.class_folders import (
    Group,
    describe_depths,
    describe_empty,
    note_ignored,
    note_loose,
)
from tpt.errors import SourceError
from tpt.streaming.folders import Listing, scan_folder, sort_naturally, walk_folders
from tpt.text import fold, some

FOLDER_LAYOUTS = {
    "folders": "one folder a class, named after it, or test/val/train folders of such",
    "wnid": "one folder a class, named by its WordNet id: ImageNet, -A, -R, -Sketch",
    "numbers": "one folder a class, named by its number among ImageNet's 1,000: ImageNet-V2",
    "domains": "one folder a domain, with class folders in each: PACS, Office, DomainNet",
    "corruptions": "CORRUPTION/SEVERITY with class folders in each: ImageNet-C",
}
"""The layouts of class folders, and what they mean."""

_CLASS_FOLDERS = ("folders", "wnid", "numbers")
_SEVERITIES = frozenset("12345")


def read_tree(path: str, name: str, options: ReadOptions) -> tuple[Sequence[Group], str]:
    """Find the groups of class folders in a folder, and what they are, in words.

    Args:
        path: an existing folder.
        name: what the sets' names begin with.
        options: the layout asked for, and folders that are no class.

    Raises:
        SourceError: no class folders, empty ones, a mixture of layouts, or another than asked for.
    """
    root, notes = find_class_root(path)
    here = scan_folder(root, options.all_files)
    if not here.folders:
        raise SourceError(_describe_flat(root, here))
    if options.layout in _CLASS_FOLDERS:
        return [Group(name, root, notes)], ""
    inside = {
        folder: scan_folder(os.path.join(root, folder), options.all_files)
        for folder in sort_naturally(here.folders)
        if folder not in options.ignored
    }
    deep = [folder for folder in inside if inside[folder].folders]
    if options.layout == "auto":
        deep = _check_mixture(root, inside)
        if not deep:
            return [Group(name, root, notes)], ""
    notes = (*notes, *note_ignored(here, options.ignored), *note_loose(here.images, root))
    if options.layout != "domains":
        if groups := _find_corruptions(root, name, inside, deep):
            return _with_class_roots(groups, notes), "a folder a corruption and severity, "
        if options.layout == "corruptions":
            raise SourceError(
                f'"{root}" is no tree of corruptions: expected CORRUPTION/SEVERITY/CLASS with '
                f"severities from 1 to 5, as ImageNet-C has it, and found {some(inside)}. Name "
                "another folder, or drop --layout corruptions."
            )
    groups = [
        Group(f"{name}/{folder}", os.path.join(root, folder), domain=folder) for folder in inside
    ]
    groups = _with_class_roots(groups, notes)
    if options.layout == "auto":
        _check_shared(root, groups)
    return groups, "a folder a domain, "


def find_class_root(path: str) -> tuple[str, tuple[str, ...]]:
    """The folder of the class folders, below split folders and a lone "images", and notes.

    Raises:
        SourceError: split folders beside other folders.
    """
    notes: list[str] = []
    while True:
        folders = scan_folder(path).folders
        inside = [name for name in folders if name.lower() in SPLITS or name == "images"]
        if not any(scan_folder(os.path.join(path, name)).folders for name in inside):
            return path, tuple(notes)  # class folders, whatever their names
        splits = [name for name in folders if name.lower() in SPLITS]
        if folders == ("images",):
            chosen = "images"
            notes.append(f'The class folders lie in "{os.path.join(path, chosen)}".')
        elif splits and len(splits) == len(folders):
            chosen = min(splits, key=lambda name: list(SPLITS).index(name.lower()))
            left = [name for name in splits if name != chosen]
            notes.append(
                f'Of the splits, "{chosen}" is read, and not {some(left)}.'
                if left
                else f'There is one split, "{chosen}", and it is read.'
            )
        elif len({SPLITS[name.lower()] for name in splits}) > 1:
            others = [name for name in folders if name not in splits]
            raise SourceError(
                f'"{path}" mixes split folders ({some(splits)}) with others ({some(others)}). Name '
                f'the split itself ("{os.path.join(path, splits[0])}"), or take the others away.'
            )
        else:
            return path, tuple(notes)
        path = os.path.join(path, chosen)


def _with_class_roots(groups: Sequence[Group], notes: Sequence[str]) -> list[Group]:
    below = []
    for group in groups:
        root, own_notes = find_class_root(group.root)
        here = scan_folder(root)
        if not here.folders:
            raise SourceError(_describe_flat(root, here))
        below.append(replace(group, root=root, notes=(*notes, *own_notes)))
    return below


def _describe_flat(root: str, here: Listing) -> str:
    count = len(here.images)
    held = f"{count:,} picture{'s' * (count > 1)} and no class folders" if count else "no pictures"
    return (
        f'The folder "{root}" holds {held}: expected one sub-folder a class, named by its class '
        "name, its WordNet id or its ImageNet number. Sort the pictures into such folders, or name "
        "another folder or a CSV file with columns path and label."
    )


# --- mixtures ---


def _check_mixture(root: str, inside: Mapping[str, Listing]) -> list[str]:
    """The folders that hold class folders, none if all are class folders; refuses a mixture."""
    # Sub-folders without pictures do not count.
    deep = [folder for folder, here in inside.items() if _first_below(root, folder, here)]
    plain = [folder for folder in inside if folder not in deep]
    if not deep:
        return []
    empty = [folder for folder in plain if not inside[folder].images]
    if empty:
        raise SourceError(describe_empty(empty, root))
    if not plain and not all(inside[folder].images for folder in deep):
        return deep  # loose pictures beside the class folders of a domain get a note later
    both = [folder for folder in deep if inside[folder].images]
    if both:
        here = inside[both[0]]
        own = [os.path.join(root, both[0], here.images[0])]
        raise SourceError(describe_depths(root, both[0], own, [_first_below(root, both[0], here)]))
    below = [os.path.join(folder, inside[folder].folders[0]) for folder in deep]
    raise SourceError(
        f'"{root}" mixes layouts: class folders with pictures ({some(plain)}) beside folders of '
        f"class folders ({some(below)}). Expected one layout. Take one kind away, name one of the "
        "folders inside, or say what the folders are: --layout folders if each of them is a class "
        "with all that lies below it."
    )


def _first_below(root: str, folder: str, here: Listing) -> str:
    """The first picture in the sub-folders of a folder, or ""."""
    all_files = here.looks_in is not None
    below = (os.path.join(root, folder, name) for name in here.folders)
    walks = (walk_folders(path, all_files=all_files) for path in below)
    return next((images[0] for walk in walks for _, images in walk if images), "")


def _check_shared(root: str, groups: Sequence[Group]) -> None:
    """Refuse folders that share no class: nothing shows that they are domains."""
    names = {group.domain or "": scan_folder(group.root).folders for group in groups}
    homes = Counter(fold(name) for folders in names.values() for name in set(folders))
    if (len(groups) > 1 and max(homes.values()) > 1) or (len(groups) == 1 and len(homes) > 1):
        return
    shown = [os.path.join(domain, folders[0]) for domain, folders in names.items()]
    raise SourceError(
        f'"{root}" has two levels of folders ({some(shown)}), but they share no class, so they '
        "seem to be no domains. Say what they are: --layout domains if each is a domain, --layout "
        "folders if each is a class with all that lies below it; or name one of them."
    )


# --- corruptions ---


def _find_corruptions(
    root: str, name: str, inside: Mapping[str, Listing], deep: Sequence[str]
) -> list[Group]:
    """A group a corruption and severity, at one of three depths; none if it is no such tree."""
    if _are_severities(deep):
        kind = os.path.basename(os.path.realpath(root))
        return [_make_group(name, os.path.join(root, level), kind, level) for level in deep]
    levels = {
        os.path.join(root, folder): inside[folder].folders for folder in deep
    }  # of the folder of each corruption
    strange = [folder for folder in levels if not _are_severities(levels[folder])]
    if len(strange) == len(levels):  # one level deeper, perhaps: blur/defocus_blur/1
        below = [
            os.path.join(root, folder, kind) for folder in deep for kind in inside[folder].folders
        ]
        if not below or not _are_severities(scan_folder(below[0]).folders):
            return []
        levels = {folder: scan_folder(folder).folders for folder in below}
        strange = [folder for folder in levels if not _are_severities(levels[folder])]
    if strange:
        fine = [folder for folder in levels if folder not in strange]
        raise SourceError(
            f'"{root}" mixes layouts: folders of severities from 1 to 5 '
            f"({some(os.path.relpath(folder, root) for folder in fine)}) beside others "
            f"({some(os.path.relpath(folder, root) for folder in strange)}). Take the others away, "
            "or say what the folders are: --layout domains if 1 to 5 are class names."
        )
    first: dict[str, str] = {}
    for folder in levels:
        kind = os.path.basename(folder)
        if first.setdefault(kind, folder) != folder:
            raise SourceError(
                f'The corruption "{kind}" comes twice, in "{first[kind]}" and in "{folder}". '
                "Remove or rename one."
            )
    return [
        _make_group(f"{name}/{kind}", os.path.join(folder, level), kind, level)
        for kind, folder in first.items()
        for level in levels[folder]
    ]


def _are_severities(folders: Sequence[str]) -> bool:
    return bool(folders) and _SEVERITIES.issuperset(folders)


def _make_group(prefix: str, root: str, kind: str, level: str) -> Group:
    return Group(f"{prefix}/{level}", root, corruption=kind, severity=int(level))
