"""What a run walks over: sets of pictures, what is done to each picture, which classes it may be.

A *walk* goes once through the pictures of a set. Each picture is decoded once and has one or more
*variants* (as it is, or corrupted on the fly). Each variant is encoded once and judged in one or
more *result sets*, each with its own list of classes. A clean set has a result set for its own
classes and one for the classes of every shift set that has fewer, so that accuracies are compared
over the same classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tpt.data.labelled_sets import LabelledSet, Sample
from tpt.errors import MethodError, SourceError
from tpt.evaluate.order import draw_ticket
from tpt.text import fold, some

SHIFT, CLEAN, RESTRICTED = "shift", "clean", "clean, same classes"


@dataclass(frozen=True, eq=False)
class ResultSet:
    """One result set: some or all of a walk's pictures under a list of classes."""

    name: str
    classes: tuple[str, ...]
    label_of: tuple[int, ...]  # this set's label for each of the walk's; -1: it has none
    role: str = SHIFT
    clean: str | None = None  # the result set that its accuracies are compared with
    part: str | None = None  # "base" or "new", where the classes are halved

    def label(self, sample: Sample) -> int:
        return self.label_of[sample.label]


@dataclass(frozen=True, eq=False)
class Variant:
    """What is done to every picture of a walk, and in which result sets it counts."""

    result_sets: tuple[ResultSet, ...]
    corruption: str | None = None  # on the fly; None where the set came corrupted
    severity: int | None = None


@dataclass(frozen=True, eq=False)
class Walk:
    """One way through a set's pictures."""

    set: LabelledSet
    variants: tuple[Variant, ...]
    notes: tuple[str, ...] = ()  # what a reader must know of the plan, beside the set's own

    def result_sets(self) -> Iterator[tuple[Variant, ResultSet]]:
        return (
            (variant, result_set) for variant in self.variants for result_set in variant.result_sets
        )

    def lines(self, sample: Sample) -> int:
        """How many lines of predictions a picture makes."""
        return sum(result_set.label(sample) >= 0 for _, result_set in self.result_sets())


def list_result_sets(walks: Iterable[Walk]) -> list[tuple[Walk, Variant, ResultSet]]:
    """The result sets of a run, in order, each with its walk and its variant."""
    return [(walk, *found) for walk in walks for found in walk.result_sets()]


def plan_walks(
    shifts: Sequence[LabelledSet],
    clean: Sequence[LabelledSet] = (),
    corruptions: Sequence[tuple[str, int]] = (),
    halves: bool = False,
) -> tuple[Walk, ...]:
    """The walks of a run, the clean set's first.

    Args:
        shifts: the sets to evaluate. If one of a tree's sets (usually a domain) is also the clean
            set, it is evaluated once, as the clean set.
        clean: what the path of the clean set held; one set, or none.
        corruptions: (kind, severity) pairs to corrupt every shift set with. Each set is also
            evaluated as it is, and is the clean counterpart of its corruptions if no clean set
            was given.
        halves: evaluate the first and the second half of the classes apart (base-to-new).

    Raises:
        SourceError: two sets of the same name, or several clean sets.
        MethodError: options that do not go together.
    """
    if len(clean) > 1:
        names = ", ".join(part.name for part in clean[:3])
        raise SourceError(
            f'The clean set "{clean[0].path}" holds {len(clean)} sets ({names}, ...). Name one of '
            "them."
        )
    if halves and clean:
        raise MethodError(
            "The base-to-new protocol compares the two halves of a set's own classes and has no "
            "clean set. Leave --clean out."
        )
    base = clean[0] if clean else None
    same = next((s for s in shifts if base and _is_same(s, base)), None)
    if same is not None and not corruptions:
        if same.domain is None and same.corruption is None:
            raise SourceError(
                f'"{same.path}" is given both as a set to evaluate and as the clean set. Leave it '
                "out of the sets: the clean set is evaluated in any case."
            )
        shifts = [s for s in shifts if s is not same]
    base = same or base
    walks = [_walk_shift(s, base, corruptions) for s in shifts]
    if base is not None:
        plain = Variant(_clean_result_sets(base, shifts))
        place = next((n for n, walk in enumerate(walks) if walk.set is base), None)
        if place is None:
            walks.insert(0, Walk(base, (plain,)))
        else:  # the first variant is the set as it is
            walks[place] = replace(walks[place], variants=(plain, *walks[place].variants[1:]))
    if halves:
        walks = [replace(walk, variants=tuple(map(_halve, walk.variants))) for walk in walks]
    _check_names(walks)
    return tuple(walks)


def draw_some(whole: LabelledSet, limit: int, seed: int = 0) -> LabelledSet:
    """A set with at most `limit` of its pictures, in their order.

    The draw depends only on the seed and the pictures' keys, and each picture is equally likely.
    """
    if len(whole.samples) <= limit:
        return whole
    mixed = sorted(whole.samples, key=lambda sample: draw_ticket(seed, "limit", sample.key))
    drawn = {sample.key for sample in mixed[:limit]}
    note = f"{limit:,} of the {len(whole.samples):,} pictures are drawn, by --limit."
    samples = tuple(sample for sample in whole.samples if sample.key in drawn)
    return replace(whole, samples=samples, notes=(*whole.notes, note))


def _is_same(one: LabelledSet, other: LabelledSet) -> bool:
    """Whether two sets are the same pictures, perhaps found through another folder."""
    kind, other_kind = ((s.domain, s.corruption, s.severity) for s in (one, other))
    if os.path.realpath(one.path) == os.path.realpath(other.path):
        return kind == other_kind
    first, other_first = (s.samples[0].source if s.samples else None for s in (one, other))
    if not isinstance(first, str) or not isinstance(other_first, str):
        return False
    labels, other_labels = ([(x.key, x.label) for x in s.samples] for s in (one, other))
    return (
        (one.classes, labels) == (other.classes, other_labels)
        and os.path.exists(first)
        and os.path.exists(other_first)
        and os.path.samefile(first, other_first)
    )


def _walk_shift(
    shift: LabelledSet, clean: LabelledSet | None, corruptions: Sequence[tuple[str, int]]
) -> Walk:
    """A set as it is, and in its corruptions."""
    whole = tuple(range(len(shift.classes)))
    is_clean = shift is clean or (clean is None and bool(corruptions))
    found = None if clean is None else _find_counterpart(shift, clean)
    reference = shift.name if is_clean else found and found[0]
    notes = () if reference or clean is None else (_explain_uncompared(shift, clean),)
    if corruptions and shift.corruption is not None:
        raise MethodError(
            f'The set "{shift.name}" is corrupted already, so --corrupt would corrupt it twice. '
            "Leave --corrupt out, or name the clean pictures."
        )
    role, counterpart = (CLEAN, None) if is_clean else (SHIFT, reference)
    variants = [Variant((ResultSet(shift.name, shift.classes, whole, role, counterpart),))]
    for kind, severity in corruptions:
        name = f"{shift.name}/{kind}/{severity}"
        corrupted = ResultSet(name, shift.classes, whole, clean=reference)
        variants.append(Variant((corrupted,), kind, severity))
    return Walk(shift, tuple(variants), notes)


def _explain_uncompared(shift: LabelledSet, clean: LabelledSet) -> str:
    """Why the clean set has no counterpart to a set."""
    there = {*map(fold, clean.classes)}
    lacking = [name for name in shift.classes if fold(name) not in there]
    what = f"lacks {some(lacking)}" if lacking else "knows its classes by other ids or names"
    return f'it is not compared with the clean set "{clean.name}", which {what}.'


def _clean_result_sets(clean: LabelledSet, shifts: Sequence[LabelledSet]) -> tuple[ResultSet, ...]:
    """The clean set under its own classes, and under those of each set that has fewer."""
    whole = tuple(range(len(clean.classes)))
    by_name = {clean.name: ResultSet(clean.name, clean.classes, whole, CLEAN)}
    for shift in shifts:
        if (found := _find_counterpart(shift, clean)) is None:
            continue
        name, labels = found
        there = by_name.setdefault(name, ResultSet(name, shift.classes, labels, RESTRICTED))
        if there.label_of != labels:
            raise SourceError(
                f'Two sets called "{_name_tree(shift)}" have as many classes, but not the same '
                f'ones, so "{name}" could be either. Give one another name, for example '
                f'other="{shift.path}".'
            )
    return tuple(by_name.values())


def _name_tree(shift: LabelledSet) -> str:
    """What a set is called without its domain, or its corruption and severity."""
    return shift.name.split("/")[0] if shift.corruption or shift.domain else shift.name


def _find_counterpart(shift: LabelledSet, clean: LabelledSet) -> tuple[str, tuple[int, ...]] | None:
    """Name and labels of the clean result set over the same classes; None if there can be none."""
    labels = match_classes(clean, shift)
    if labels is None:
        return None
    if labels == tuple(range(len(clean.classes))):
        return clean.name, labels
    return f"{clean.name} ({len(shift.classes)} classes of {_name_tree(shift)})", labels


def match_classes(clean: LabelledSet, shift: LabelledSet) -> tuple[int, ...] | None:
    """For each class of the clean set its place among the shift set's classes, or -1.

    Classes are matched by id (WordNet id, folder), or by name where the ids do not cover the shift
    set. None if the shift set has a class that the clean one lacks.
    """
    # A number means something only in its own set: label 2 is a bird in CIFAR-10, a car in STL-10.
    by_id = {key: place for place, key in enumerate(shift.ids) if not key.isdecimal()}
    labels = tuple(by_id.get(key, -1) for key in clean.ids)
    if len({label for label in labels if label >= 0}) == len(shift.classes):
        return labels
    by_name = {fold(name): place for place, name in enumerate(shift.classes)}
    labels = tuple(by_name.get(fold(name), -1) for name in clean.classes)
    found = {label for label in labels if label >= 0}
    return labels if len(found) == len(shift.classes) else None


def _halve(variant: Variant) -> Variant:
    """CoOp's base and new classes: the first ceil(K / 2), and the rest."""
    result_sets = []
    for result_set in variant.result_sets:
        count = len(result_set.classes)
        if count < 4:
            raise MethodError(
                f'The set "{result_set.name}" has {count} classes; base-to-new needs at least '
                "four, two in each half."
            )
        cut = (count + 1) // 2
        for part, first, last in (("base", 0, cut), ("new", cut, count)):
            labels = tuple(
                label - first if first <= label < last else -1 for label in result_set.label_of
            )
            result_sets.append(
                replace(
                    result_set,
                    name=f"{result_set.name} ({part})",
                    classes=result_set.classes[first:last],
                    label_of=labels,
                    part=part,
                    clean=f"{result_set.clean} ({part})" if result_set.clean else None,
                )
            )
    return replace(variant, result_sets=tuple(result_sets))


def _check_names(walks: Sequence[Walk]) -> None:
    paths: dict[str, str] = {}
    for walk, _, result_set in list_result_sets(walks):
        path = walk.set.path
        if result_set.name in paths:
            raise SourceError(
                f'Two sets are called "{result_set.name}": "{paths[result_set.name]}" and '
                f'"{path}". Give one another name, for example other="{path}".'
            )
        paths[result_set.name] = path
