"""Which class each label of a set belongs to: by its id or its name, never by sorted position.

A label is what the data has: a folder's name, a WordNet id, a number, a word in a table. A class is
what the model is asked for: a name and its place in the list. Without `--classes` every label is a
class of its own; with it the list decides, and a label that fits no class is an error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tpt.data.imagenet import KEYWORDS, imagenet_ids, is_wnid, name_ids, subset_ids, subset_of
from tpt.data.labelled_sets import LabelledSet, ReadOptions, Sample, Source
from tpt.errors import SourceError
from tpt.prompts.checks import take_names
from tpt.text import drop_invisible, fold, some

_CODE_FIRST = re.compile(
    r"(n\d{8}[-._ ]|\d{1,4}[-._])\s*[^\W\d]"
)  # n02085620-Chihuahua, 001.Albatross
_NOT_A_NAME = frozenset({"nan", "none", "null", "n/a", "na", "unnamed", "unknown"})


@dataclass(frozen=True)
class Choice:
    """The classes of a set, and where its labels belong."""

    classes: tuple[str, ...]  # names, in the order of the labels' numbers
    ids: tuple[str, ...]  # as in `LabelledSet`
    label_of: dict[str, int]  # each id found in the data -> place in `classes`
    notes: tuple[str, ...] = ()

    @property
    def family(self) -> str | None:
        """ "imagenet" if every label is a different class of ImageNet."""
        one_each = len(set(self.label_of.values())) == len(self.label_of)
        return "imagenet" if one_each and set(self.ids).issubset(imagenet_ids()) else None

    def make_set(
        self,
        name: str,
        layout: str,
        path: str,
        pictures: Iterable[tuple[str, str, Source]],
        *,
        notes: Sequence[str] = (),
        **facts: Any,
    ) -> LabelledSet:
        """The set of some pictures, with a note on classes without any.

        Args:
            name, layout, path: as in `LabelledSet`.
            pictures: (key, id of its class, where its bytes are) of each.
            notes: they come before the notes on classes.
            facts: further fields of `LabelledSet`, such as `domain`.
        """
        samples = tuple(Sample(key, self.label_of[label], at) for key, label, at in pictures)
        absent = note_absent(self.classes, {sample.label for sample in samples})
        all_notes = (*notes, *self.notes, *absent)
        own = (name, layout, path, self.classes, self.ids, samples)
        return LabelledSet(*own, family=self.family, notes=all_notes, **facts)


def choose_classes(name_of: Mapping[str, str], options: ReadOptions, where: str) -> Choice:
    """Choose the classes of a set, and the class of each of its labels.

    Without `options.classes` every label found is a class, in the order given. With it the classes
    are those of the list, in its order, and each label has to fit one: by "id=name", else by its
    class name, else by itself as a name, where "_" is a space and case does not matter. The words
    "imagenet", "imagenet-a" and "imagenet-r" stand for those sets' classes, by WordNet id.

    Args:
        name_of: each id that has pictures -> its default class name, in default order. Ids are
            folder names, WordNet ids, numbers or words; names are as they should be shown
            (`options.rename` applied, no "_").
        where: the path, for messages.

    Raises:
        SourceError: two labels of one name, a label that fits no class (or two of ImageNet's with
            one name), or a list that contradicts itself.
    """
    name_of = {label: drop_invisible(name) for label, name in name_of.items()}
    if options.classes is None:
        return _take_all(name_of, where)
    asked = _read_list(options.classes, name_of)
    labels, unknown = {}, []
    for label, name in name_of.items():
        places = asked.find(label, name)
        if len(places) > 1:
            raise SourceError(
                f'The label "{label}" of "{where}" fits two classes of ImageNet, '
                f"{' and '.join(asked.ids[place] for place in places)}, which have one name. Give "
                "it the id that is meant."
            )
        if places:
            labels[label] = places[0]
        else:
            unknown.append(label)
    if unknown:
        raise SourceError(_describe_unknown(unknown, len(name_of), asked.classes, where))
    known_by = {place: label for label, place in reversed(labels.items())}  # the first wins
    ids = [
        asked.ids[place] or known_by.get(place, name) for place, name in enumerate(asked.classes)
    ]
    notes = (*asked.notes, *note_names(asked.classes), *_note_merged(labels, asked.classes))
    return Choice(tuple(asked.classes), tuple(ids), labels, notes)


def list_names(entries: Sequence[str]) -> tuple[str, ...]:
    """The class names that a list stands for, where there are no labels to fit.

    Raises:
        SourceError: a list that contradicts itself.
    """
    return tuple(_read_list(take_names(entries), {}).classes)


def note_names(names: Iterable[str]) -> tuple[str, ...]:
    """Notes on class names that a model may not read as they were meant."""
    names = tuple(names)
    coded = [name for name in names if _CODE_FIRST.match(name)]
    absent = [name for name in names if fold(name) in _NOT_A_NAME]
    listed = [name for name in names if "," in name]
    told = (
        (coded if len(coded) > 1 or len(coded) == len(names) else [], "begins", "begin",
         "with a number or an id, which the model reads as words. Give names alone, or id=name"),
        (absent, "is", "are", "what programs write where a label is missing. Check the list"),
        (listed, "holds", "hold", "a comma: each is taken for one name"),
    )  # fmt: skip
    return tuple(
        f"{len(found):,} class name{f's {many}' if len(found) > 1 else f' {one}'} {what}: "
        f"{some(found)}."
        for found, one, many, what in told
        if found
    )


def note_absent(classes: Sequence[str], present: Container[int]) -> tuple[str, ...]:
    """A note on the classes without pictures, if any; `present` holds the places of the others."""
    absent = [name for place, name in enumerate(classes) if place not in present]
    if not absent:
        return ()
    verb = "has" if len(absent) == 1 else "have"
    return (
        f"{len(absent):,} of the {len(classes):,} classes {verb} no pictures here: {some(absent)}.",
    )


def split_entry(entry: str) -> tuple[str, str]:
    """(id, name) of "id=name", ("", name) of a name alone.

    Raises:
        SourceError: one of the two is missing.
    """
    label, equals, name = (part.strip() for part in entry.rpartition("="))
    if not name or (equals and not label):
        raise SourceError(
            f'"{entry}" in the list of classes lacks {"a name" if not name else "an id"}: '
            'expected a class name or "id=name".'
        )
    return label, name


def named_ids(entries: Sequence[str] | None) -> frozenset[str]:
    """The ids of a list's "id=name" entries."""
    return frozenset(entry.rpartition("=")[0].strip() for entry in entries or ()) - {""}


def keyword_of(entries: Sequence[str] | None) -> str | None:
    """ "imagenet", "imagenet-a" or "imagenet-r", if a list of classes is just that word."""
    word = entries[0].strip().lower() if entries and len(entries) == 1 else None
    return word if word in KEYWORDS else None


# --- no list ---


def _take_all(name_of: Mapping[str, str], where: str) -> Choice:
    first: dict[str, str] = {}
    for label, name in name_of.items():
        other = first.setdefault(fold(name), label)
        # Two of ImageNet's classes may share a name: ids and numbers keep them apart.
        if other != label and not (_is_code(label) and _is_code(other)):
            raise SourceError(
                f'"{other}" and "{label}" in "{where}" are one class name ("{name}"). Rename one '
                f"of them, or say which class each is: --classes {other}=...,{label}=..."
            )
    label_of = {label: place for place, label in enumerate(name_of)}
    return Choice(tuple(name_of.values()), tuple(name_of), label_of, note_names(name_of.values()))


def _is_code(label: str) -> bool:
    return is_wnid(label) or label.isdecimal()


# --- a list ---


@dataclass(frozen=True)
class _ClassList:
    """A list of classes, read."""

    classes: Sequence[str]
    ids: Sequence[str]  # "" where only a name was given
    by_id: Mapping[str, int]
    by_name: Mapping[str, list[int]]  # folded
    by_number: bool = False  # a number is a place in ImageNet's 1,000
    notes: tuple[str, ...] = ()

    def find(self, label: str, name: str) -> list[int]:
        """The places of a label: none, one, or two where two of ImageNet's classes share a name."""
        # An id wins over a name that reads the same: cat=dog,dog=cat swaps two classes.
        for known in (label, fold(label), fold(name)):
            if known in self.by_id:
                return [self.by_id[known]]
        # A number counts only if its name is the number itself, or that place's class name.
        if self.by_number and label.isdecimal() and int(label) < len(self.classes):
            place = int(label)
            if fold(name) in (fold(label), fold(self.classes[place])):
                return [place]
        return self.by_name.get(fold(name)) or self.by_name.get(fold(label)) or []


def _read_list(entries: Sequence[str], name_of: Mapping[str, str]) -> _ClassList:
    keyword = keyword_of(entries)
    if keyword is None:
        return _read_entries(entries)
    notes = []
    if keyword == "imagenet":
        part = subset_of(name_of)
        if part is None:
            notes.append("Scored among all 1,000 classes of ImageNet, as asked.")
        else:
            keyword = part.keyword
            notes.append(
                f"The pictures are {part.title}'s: scored among its {part.size} classes, as "
                "published, not among ImageNet's 1,000."
            )
    ids = subset_ids(keyword)
    names = name_ids(ids)
    by_name: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        by_name.setdefault(fold(name), []).append(place)
    by_id = {wnid: place for place, wnid in enumerate(ids)}
    return _ClassList(names, ids, by_id, by_name, keyword == "imagenet", tuple(notes))


def _read_entries(entries: Sequence[str]) -> _ClassList:
    """Names and "id=name" entries; ids of one name are one class."""
    classes: list[str] = []
    ids: list[str] = []
    by_id: dict[str, int] = {}
    by_name: dict[str, list[int]] = {}
    plain: dict[str, str] = {}
    for entry in entries:
        label, name = split_entry(entry)
        places = by_name.setdefault(fold(name), [len(classes)])
        if places[0] == len(classes):
            classes.append(name)
            ids.append(label)
        if not label:
            if fold(name) in plain:
                raise SourceError(
                    f'The list of classes names "{name}" twice'
                    + (f' (also as "{plain[fold(name)]}")' if plain[fold(name)] != name else "")
                    + ". Remove one; if two classes have one name, give them names that differ: "
                    "id=name."
                )
            plain[fold(name)] = name
        elif by_id.setdefault(label, places[0]) != places[0]:
            raise SourceError(
                f'The list of classes gives "{label}" two names, "{classes[by_id[label]]}" and '
                f'"{name}". Expected one name an id.'
            )
        ids[places[0]] = ids[places[0]] or label
    if not classes:
        raise SourceError(
            'The list of classes is empty: expected class names or "id=name" entries.'
        )
    folded = {fold(label): place for label, place in by_id.items()}
    return _ClassList(classes, ids, {**folded, **by_id}, by_name)


def _note_merged(labels: Mapping[str, int], classes: Sequence[str]) -> list[str]:
    """A note on the classes to which several labels belong."""
    members: dict[int, list[str]] = {}
    for label, place in labels.items():
        members.setdefault(place, []).append(label)
    merged = [(classes[place], group) for place, group in members.items() if len(group) > 1]
    if not merged:
        return []
    shown = [f'"{name}" is {some(group)}' for name, group in merged]
    many = len(merged) > 1
    return [
        f"{len(merged):,} class{'es take' if many else ' takes'} the pictures of several labels: "
        f"{'; '.join(shown[:3])}{f'; and {len(merged) - 3:,} more' if len(merged) > 3 else ''}."
    ]


def _describe_unknown(unknown: list[str], count: int, classes: Sequence[str], where: str) -> str:
    near = {label: _nearest(label, classes) for label in unknown[:3]}
    shown = [label + (f' (did you mean "{name}"?)' if name else "") for label, name in near.items()]
    label, name = next(((x, n) for x, n in near.items() if n), (unknown[0], "NAME"))
    return (
        f'{len(unknown):,} of the {count:,} labels of "{where}" fit{"s" * (len(unknown) == 1)} '
        f"none of the {len(classes):,} classes given: {some([*shown, *unknown[3:]])}. Say which "
        f"class each is (--classes {label}={name},... or a file of such lines), or leave those "
        "pictures out."
    )


def _nearest(label: str, classes: Sequence[str]) -> str:
    """The class name most like a label, or "" where none is."""
    by_fold = {fold(name): name for name in classes}
    close = difflib.get_close_matches(fold(label), by_fold, n=1, cutoff=0.6)
    return by_fold[close[0]] if close else ""
