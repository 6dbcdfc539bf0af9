"""The pictures of a run are those of the public program's draw, and no split sees another's."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from refusals import refusal

from coop.sampling import choose_classes, draw_shots
from tpt.data.labelled_sets import Sample
from tpt.data.training_sets import TrainingSet
from tpt.errors import MethodError, SourceError

NAMES = ("ant", "bee", "cat", "dog", "eel")


def make_items(folder: str, counts: Sequence[int], seed: int = 0) -> tuple[Sample, ...]:
    """`counts[label]` pictures of each label, mixed up: lists need not be sorted by class."""
    items = [
        Sample.of_file(f"{folder}/{NAMES[label]}/{n}.jpg", label)
        for label, count in enumerate(counts)
        for n in range(count)
    ]
    random.Random(seed).shuffle(items)
    return tuple(items)


def make_dataset(
    train: Sequence[int], val: Sequence[int] = (), test: Sequence[int] = ()
) -> TrainingSet:
    return TrainingSet(
        name="pets",
        classes=NAMES[: len(train)],
        train=make_items("train", train),
        val=make_items("val", val),
        test=make_items("test", test),
    )


def draw_as_published(
    train: Iterable[Sample], val: Iterable[Sample], shots: int, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """The public program's rule, plainly: one seeded generator, first train, then val.

    Class after class in the order of first appearance; k pictures without putting back; a class
    that has fewer gives all it has, in the list's order, and takes nothing from the generator.
    """
    generator = random.Random()
    generator.seed(seed)

    def take(items: Iterable[Sample], count: int) -> list[Sample]:
        groups: dict[int, list[Sample]] = {}
        for item in items:
            groups.setdefault(item.label, []).append(item)
        taken: list[Sample] = []
        for group in groups.values():
            taken += generator.sample(group, count) if len(group) >= count else group
        return taken

    return take(train, shots), take(val, min(shots, 4))


def count_labels(items: Iterable[Sample]) -> dict[int, int]:
    return dict(Counter(item.label for item in items))


def assert_apart(draw: TrainingSet) -> None:
    """No picture stands twice, in one split or in two."""
    paths = [item.path for part in (draw.train, draw.val, draw.test) for item in part]
    assert len(set(paths)) == len(paths)


# --- the draw ---


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
def test_the_published_draw(shots: int, seed: int) -> None:
    dataset = make_dataset(train=[16, 20, 17], val=[9, 5, 4], test=[3, 3, 3])
    draw = draw_shots(dataset, shots, seed)
    train, val = draw_as_published(dataset.train, dataset.val, shots, seed)
    assert list(draw.train) == train
    assert list(draw.val) == val
    assert draw.test == dataset.test
    assert (draw.classes, draw.notes) == (dataset.classes, ())
    assert count_labels(draw.train) == dict.fromkeys(range(3), shots)
    assert count_labels(draw.val) == dict.fromkeys(range(3), min(shots, 4))


def test_the_draw_of_seed_1_never_changes() -> None:
    """Values of Python's own generator, written down: 4 of 10, then 4 of 6."""
    items = tuple(Sample.of_file(f"{label}/{n}", label) for label in (1, 0) for n in range(10))
    val = tuple(Sample.of_file(f"val/{label}/{n}", label) for label in (0, 1) for n in range(6))
    draw = draw_shots(TrainingSet("d", ("a", "b"), items, val), 4, seed=1)
    train = "1/2 1/1 1/4 1/0 0/7 0/9 0/8 0/5"
    val_0, val_1 = "val/0/3 val/0/1 val/0/0 val/0/4", "val/1/0 val/1/3 val/1/4 val/1/2"
    assert [item.path for item in draw.train] == train.split()
    assert [item.path for item in draw.val] == [*val_0.split(), *val_1.split()]


def test_a_class_with_fewer_pictures_gives_all_and_is_told() -> None:
    dataset = make_dataset(train=[10, 3, 12, 1], val=[6, 6, 2, 6])
    draw = draw_shots(dataset, 8, seed=1)
    train, val = draw_as_published(dataset.train, dataset.val, 8, 1)
    assert list(draw.train) == train
    assert list(draw.val) == val
    assert count_labels(draw.train) == {0: 8, 1: 3, 2: 8, 3: 1}
    (note,) = draw.notes
    assert note.startswith("2 of 4 classes have fewer than 8 pictures and give all they have: ")
    assert {"bee (3)", "dog (1)"} == set(note.split(": ")[1].rstrip(".").split(", "))


def test_a_class_with_fewer_pictures_moves_no_others_draw() -> None:
    """It takes no number from the generator: the classes behind it get the pictures they had."""
    few = [Sample.of_file(f"few/{n}.jpg", 0) for n in range(3)]
    many = [Sample.of_file(f"many/{n}.jpg", 1) for n in range(30)]
    behind = draw_shots(TrainingSet("d", ("few", "many"), (*few, *many)), 4, seed=1)
    before = draw_shots(TrainingSet("d", ("few", "many"), (*many, *few)), 4, seed=1)
    assert behind.train[:3] == tuple(few)
    assert behind.train[3:] == before.train[:4]


def test_exactly_enough_pictures_are_not_few() -> None:
    draw = draw_shots(make_dataset(train=[4, 4], test=[1, 1]), 4, seed=1)
    assert count_labels(draw.train) == {0: 4, 1: 4}
    assert draw.notes == ()


def test_many_classes_with_few_pictures_are_told_in_short() -> None:
    (note,) = draw_shots(make_dataset(train=[1, 1, 1, 1, 1]), 2, seed=1).notes
    assert note.startswith("5 of 5 classes have fewer than 2 pictures")
    assert note.endswith(" and 2 more.")


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    dataset = make_dataset(train=[20, 20, 20])
    first = draw_shots(dataset, 4, seed=1)
    assert draw_shots(dataset, 4, seed=1) == first
    assert draw_shots(dataset, 4, seed=2).train != first.train
    assert draw_shots(dataset, 4, seed=2).val != first.val


def test_the_draw_leaves_pythons_own_generator_alone() -> None:
    before = random.getstate()
    draw_shots(make_dataset(train=[9, 9]), 4, seed=1)
    assert random.getstate() == before


# --- validation and test ---


@pytest.mark.parametrize("shots", [1, 2, 4, 8, None])
@pytest.mark.parametrize(
    ("val", "test"), [((), ()), ((6, 6, 6), ()), ((), (3, 3, 3)), ((6, 6, 6), (3, 3, 3))]
)
def test_no_picture_is_in_two_splits(
    val: tuple[int, ...], test: tuple[int, ...], shots: int | None
) -> None:
    draw = draw_shots(make_dataset([10, 3, 14], val, test), shots, seed=1)
    assert_apart(draw)


def test_validation_comes_from_the_training_pictures_left() -> None:
    dataset = make_dataset(train=[20, 20, 20])
    draw = draw_shots(dataset, 8, seed=1)
    left = [item for item in dataset.train if item not in draw.train]
    train, _ = draw_as_published(dataset.train, [], 8, 1)
    assert list(draw.train) == train  # as with a validation list of its own
    assert count_labels(draw.val) == {0: 4, 1: 4, 2: 4}
    assert set(draw.val) <= set(left)
    assert draw.test == tuple(item for item in left if item not in draw.val)
    assert len(draw.train) + len(draw.val) + len(draw.test) == 60


def test_a_picture_listed_under_two_labels_stays_in_its_split() -> None:
    items = [Sample.of_file(f"{n}.jpg", label) for n in range(4) for label in (0, 1)]
    draw = draw_shots(TrainingSet("d", ("a", "b"), tuple(items)), 1, seed=1)
    paths = [{item.path for item in part} for part in (draw.train, draw.val, draw.test)]
    assert not paths[0] & paths[1]
    assert not paths[0] & paths[2]
    assert not paths[1] & paths[2]


def test_a_class_used_up_by_training_has_no_validation() -> None:
    draw = draw_shots(make_dataset(train=[8, 10, 20]), 8, seed=1)
    assert count_labels(draw.val) == {1: 2, 2: 4}
    assert count_labels(draw.test) == {2: 8}


def test_all_pictures() -> None:
    dataset = make_dataset(train=[3, 9, 5], val=[6, 2, 6], test=[1, 1, 1])
    draw = draw_shots(dataset, None, seed=1)
    assert sorted(draw.train, key=str) == sorted(dataset.train, key=str)
    assert count_labels(draw.val) == {0: 4, 1: 2, 2: 4}
    assert draw.test == dataset.test
    assert draw.notes == ()


@pytest.mark.parametrize("shots", [0, -1])
def test_no_shots_are_refused(shots: int) -> None:
    with pytest.raises(MethodError, match=rf"^shots must be at least 1; got {shots}\. `all` takes"):
        draw_shots(make_dataset(train=[3, 3]), shots, seed=1)


def test_what_nothing_can_be_learned_from_is_refused() -> None:
    with pytest.raises(SourceError, match=r'^"pets" holds 1 class \(ant\); expected at least two'):
        draw_shots(make_dataset(train=[3]), 1, seed=1)
    with pytest.raises(SourceError, match=r'^"pets" holds 0 classes; expected at least two'):
        draw_shots(make_dataset(train=[]), 1, seed=1)
    with pytest.raises(SourceError, match="have no training picture: bee"):
        draw_shots(make_dataset(train=[3, 0, 3], test=[1, 1, 1]), 1, seed=1)


# --- base and new classes ---


@pytest.mark.parametrize(("count", "base"), [(4, 2), (5, 3)])
def test_base_is_the_first_half_rounded_up(count: int, base: int) -> None:
    dataset = make_dataset([6] * count, [5] * count, [2] * count)
    first, second = (draw_shots(dataset, 2, 1, split) for split in ("base", "new"))
    assert first.classes == NAMES[:base]
    assert second.classes == NAMES[base:count]
    for draw in (first, second):
        labels = set(range(len(draw.classes)))
        for part in (draw.train, draw.val, draw.test):
            assert {item.label for item in part} == labels
            assert all(f"/{draw.classes[item.label]}/" in item.path for item in part)


@pytest.mark.parametrize("val", [(), (6, 6, 6, 6, 6)])
def test_the_halves_are_taken_after_the_draw(val: tuple[int, ...]) -> None:
    """As published: a class's pictures are the same in its half as among all classes."""
    dataset = make_dataset([20] * 5, val)
    whole, base, new = (draw_shots(dataset, 4, 1, split) for split in ("all", "base", "new"))
    for part in ("train", "val", "test"):
        paths = [item.path for item in getattr(whole, part)]
        halves = [{item.path for item in getattr(half, part)} for half in (base, new)]
        assert not halves[0] & halves[1]
        assert halves[0] | halves[1] == set(paths)
        in_order = [path for path in paths if path in halves[0]]
        assert in_order == [item.path for item in getattr(base, part)]


@pytest.mark.parametrize("split", ["base", "new"])
def test_too_few_classes_to_halve(split: str) -> None:
    dataset = make_dataset(train=[3, 3, 3])
    assert refusal(SourceError, draw_shots, dataset, 1, seed=1, split=split) == (
        "Base and new classes need at least two classes each, but there are 3 in all. "
        "Use --classes-split all."
    )


def test_an_unknown_split_of_the_classes() -> None:
    draw = draw_shots(make_dataset(train=[3, 3, 3, 3]), 1, seed=1)
    assert choose_classes(draw, "all") == draw
    with pytest.raises(MethodError, match=r'^Unknown split of the classes "old": '):
        choose_classes(draw, "old")
