"""What the names of class folders are: class names, WordNet ids, or ImageNet's numbers.

The names of a whole tree are looked at together. ImageNet-A and -R are recognised by the set of
their ids, ImageNet-V2 by its folders 0 to 999. A folder's place in sorted order says nothing: "10"
sorts before "2", and the first folder of ImageNet-A is not ImageNet's first class.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tpt.data.class_lists import Choice, choose_classes, keyword_of, named_ids, split_entry
from tpt.data.imagenet import PARTS, imagenet_ids, is_wnid, names_by_id, subset_ids, subset_of
from tpt.data.labelled_sets import ReadOptions
from tpt.errors import SourceError
from tpt.text import as_text, fold, some

_ALIKE = 0.75  # from this ratio of difflib's on, two class names may be two spellings of one


def label_folders(folders: Sequence[str], options: ReadOptions, path: str) -> tuple[Choice, str]:
    """Find out what the names of a tree's class folders are, and choose the classes.

    Args:
        folders: the names in all groups of the tree, each once.
        options: the layouts "folders", "wnid" and "numbers" say what the names are.
        path: what the user named, for messages.

    Returns:
        The choice, whose `label_of` has the class folders that are read; the layout in words.

    Raises:
        SourceError: ids beside names, ids that ImageNet lacks, and what `choose_classes` refuses.
    """
    kind = find_kind(folders, options, path)
    if kind == "folders":
        return _label_names(folders, options, path)
    id_of = _identify(folders, kind, options, path)
    layout, notes = _describe(id_of, kind, options)
    id_of, left_out = _keep_part(id_of, options, path)
    if kind == "numbers":
        options = _with_wnids(options)
    known = names_by_id()
    choice = choose_classes({wnid: known.get(wnid, wnid) for wnid in id_of.values()}, options, path)
    label_of = {name: choice.label_of[wnid] for name, wnid in id_of.items()}
    return replace(choice, label_of=label_of, notes=(*notes, *left_out, *choice.notes)), layout


def _label_names(folders: Sequence[str], options: ReadOptions, path: str) -> tuple[Choice, str]:
    """The classes of folders that are named after them."""
    rename = options.rename or str
    names = {name: as_text(rename(name)).replace("_", " ").strip() for name in folders}
    choice = choose_classes(names, options, path)
    if options.classes is None and options.layout == "auto" and all(map(_is_number, folders)):
        note = (
            "The folders' numbers are taken for class names. If they are ImageNet-V2's class "
            "numbers, say so: --layout numbers."
        )
        choice = replace(choice, notes=(note, *choice.notes))
    return choice, "one folder a class"


def find_kind(folders: Sequence[str], options: ReadOptions, path: str) -> str:
    """ "wnid", "numbers" or "folders" (names), for the names of class folders.

    Raises:
        SourceError: WordNet ids beside names, or names that are not what `options.layout` says.
    """
    wnids = [name for name in folders if is_wnid(name)]
    names = [name for name in folders if not is_wnid(name)]
    if options.layout == "wnid" and names:
        raise SourceError(
            f'Not all class folders of "{path}" are WordNet ids: {some(names)}. Expected n and '
            "eight digits, as in n01440764. Rename or ignore them, or drop --layout wnid."
        )
    if options.layout == "numbers":
        if other := [name for name in folders if not _is_number(name)]:
            raise SourceError(
                f'Not all class folders of "{path}" are numbers from 0 to 999: {some(other)}. '
                "Rename or ignore them, or drop --layout numbers."
            )
        if len({int(name) for name in folders}) < len(folders):
            raise SourceError(
                f'Two class folders of "{path}" are the same number: '
                f"{some(name for name in folders if name != str(int(name)))} with zeros before it "
                "and without. Put them together."
            )
        return "numbers"
    if options.layout == "folders":
        return "folders"
    if wnids and names:
        raise SourceError(
            f'"{path}" mixes WordNet ids ({some(wnids)}) with other folders ({some(names)}). '
            "Expected one kind. Take the others away, or take every folder by its name "
            "(--layout folders, with --classes n01440764=tench,... for the ids)."
        )
    if wnids:
        return "wnid"
    numbers = {int(name) for name in folders if _is_number(name)}
    return "numbers" if len(folders) == len(numbers) == 1000 else "folders"


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and int(name) < 1000


def _identify(folders: Sequence[str], kind: str, options: ReadOptions, path: str) -> dict[str, str]:
    """Each folder's WordNet id, in the order of the classes."""
    order = {wnid: place for place, wnid in enumerate(imagenet_ids())}
    if kind == "numbers":
        return {name: imagenet_ids()[int(name)] for name in sorted(folders, key=int)}
    known = named_ids(options.classes).union(order)
    if strange := [name for name in folders if name not in known]:
        raise SourceError(
            f'{len(strange):,} of the {len(folders):,} WordNet ids of "{path}" '
            f"{'are' if len(strange) > 1 else 'is'} not among ImageNet's 1,000: {some(strange)}. "
            f"Give them class names (--classes {strange[0]}=NAME,... or a file of such lines, all "
            "classes listed), or ignore those folders."
        )
    return {name: name for name in sorted(folders, key=lambda x: (order.get(x, 1000), x))}


def _with_wnids(options: ReadOptions) -> ReadOptions:
    """The options with "207=golden retriever" as "n02099601=golden retriever"."""
    if options.classes is None:
        return options
    entries = []
    for label, name in map(split_entry, options.classes):
        wnid = imagenet_ids()[int(label)] if _is_number(label) else label
        entries.append(f"{wnid}={name}" if wnid else name)
    return replace(options, classes=tuple(entries))


def _keep_part(
    id_of: dict[str, str], options: ReadOptions, path: str
) -> tuple[dict[str, str], list[str]]:
    """The folders among ImageNet-A's or -R's classes, if those were asked for, and a note."""
    keyword = keyword_of(options.classes)
    part = next((part for part in PARTS if part.keyword == keyword), None)
    if part is None:
        return id_of, []
    ids = frozenset(subset_ids(part.keyword))
    kept = {name: label for name, label in id_of.items() if label in ids}
    if not kept:
        raise SourceError(
            f'None of the {len(id_of):,} class folders of "{path}" is among {part.title}\'s '
            f"{part.size} classes ({some(id_of)}). Give other classes."
        )
    left = len(id_of) - len(kept)
    verb = "is" if left == 1 else "are"
    note = (
        f"{left:,} of the {len(id_of):,} class folders {verb} not among {part.title}'s "
        f"{part.size} classes and {verb} left out, as asked."
    )
    return kept, [note] if left else []


def _describe(id_of: Mapping[str, str], kind: str, options: ReadOptions) -> tuple[str, list[str]]:
    """The layout in words, and notes on it."""
    free = options.classes is None
    present = frozenset(id_of.values()).intersection(imagenet_ids())
    part = subset_of(present)
    by = "WordNet id" if kind == "wnid" else "class number"
    if len(present) == 1000:
        return f"{'ImageNet or ImageNet-Sketch' if kind == 'wnid' else 'ImageNet-V2'} by {by}", []
    if part:
        note = (
            f"Scored among {part.title}'s own {part.size} classes, as published, not among "
            "ImageNet's 1,000."
        )
        return f"{part.title} by {by}", [note] if free else []
    note = "ImageNet's other classes are left out; to score among all 1,000: --classes imagenet."
    return f"{len(present):,} of ImageNet's 1,000 classes by {by}", [note] if free else []


def check_spelling(present: Mapping[str, Sequence[str]], options: ReadOptions) -> None:
    """Refuse a class that only one group has, if that group lacks a class of a similar name.

    Args:
        present: each group -> the names of its class folders.

    Raises:
        SourceError: such a class ("giraf" in one domain, "giraffe" in the others).
    """
    if options.classes is not None or len(present) < 2:
        return
    homes: dict[str, list[str]] = {}
    for group, names in present.items():
        for name in names:
            homes.setdefault(name, []).append(group)
    alone = [name for name, groups in homes.items() if len(groups) == 1 and not is_wnid(name)]
    for name in alone:
        here = homes[name][0]
        others = {fold(other): other for other, groups in homes.items() if here not in groups}
        near = difflib.get_close_matches(fold(name), others, n=1, cutoff=_ALIKE)
        if near and not name.isdecimal():
            other = others[near[0]]
            raise SourceError(
                f'Only "{here}" has a class "{name}", and it lacks "{other}", which '
                f'"{homes[other][0]}" has: is one of them misspelt? Rename the folder, or list the '
                f"classes (--classes {name}={other},...), both of them if they are two."
            )
