"""What a run walks over: variants, class lists, clean counterparts, names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tpt.data.labelled_sets import LabelledSet, Sample
from tpt.errors import MethodError, SourceError
from tpt.evaluate.walks import CLEAN, RESTRICTED, SHIFT, draw_some, match_classes, plan_walks


def make_set(name: str, *classes: str, ids: tuple[str, ...] = (), **more: object) -> LabelledSet:
    samples = tuple(Sample(f"{c}/{n}.png", i, "") for i, c in enumerate(classes) for n in range(2))
    return LabelledSet(name, "folders", f"/data/{name}", classes, ids or classes, samples, **more)  # type: ignore[arg-type]


PHOTO = make_set("photo", "dog", "cat", "horse", "house")
SKETCH = make_set("sketch", "dog", "cat", "horse", "house")


def result_sets(walks: object) -> list[tuple[str, str, str | None]]:
    return [(h.name, h.role, h.clean) for walk in walks for _, h in walk.result_sets()]  # type: ignore[attr-defined]


def test_sets_alone_have_no_counterpart() -> None:
    assert result_sets(plan_walks([SKETCH])) == [("sketch", SHIFT, None)]


def test_the_clean_set_comes_first_and_is_the_counterpart() -> None:
    assert result_sets(plan_walks([SKETCH], [PHOTO])) == [
        ("photo", CLEAN, None),
        ("sketch", SHIFT, "photo"),
    ]


def test_a_set_with_fewer_classes_is_compared_over_those_alone() -> None:
    few = make_set("few", "house", "Cat")
    clean, shift = plan_walks([few], [PHOTO])
    assert result_sets([clean, shift]) == [
        ("photo", CLEAN, None),
        ("photo (2 classes of few)", RESTRICTED, None),
        ("few", SHIFT, "photo (2 classes of few)"),
    ]
    _, (_, restricted) = clean.result_sets()
    assert restricted.classes == ("house", "Cat")
    assert restricted.label_of == (-1, 1, -1, 0)  # dog, cat, horse, house
    assert [clean.lines(sample) for sample in PHOTO.samples] == [1, 1, 2, 2, 1, 1, 2, 2]


def test_the_same_classes_in_another_order_need_a_result_set_of_their_own() -> None:
    other = make_set("other", "cat", "dog", "horse", "house")
    assert result_sets(plan_walks([other], [PHOTO]))[1][0] == "photo (4 classes of other)"


def test_several_sets_of_the_same_fewer_classes_share_one_counterpart() -> None:
    parts = [make_set(f"c/fog/{s}", "cat", "dog", corruption="fog", severity=s) for s in (1, 2)]
    assert result_sets(plan_walks(parts, [PHOTO])) == [
        ("photo", CLEAN, None),
        ("photo (2 classes of c)", RESTRICTED, None),
        ("c/fog/1", SHIFT, "photo (2 classes of c)"),
        ("c/fog/2", SHIFT, "photo (2 classes of c)"),
    ]


def test_a_class_that_the_clean_set_lacks_leaves_no_counterpart() -> None:
    odd = make_set("odd", "dog", "giraffe")
    assert match_classes(PHOTO, odd) is None
    assert result_sets(plan_walks([odd], [PHOTO]))[-1] == ("odd", SHIFT, None)


def test_classes_are_matched_by_id_before_they_are_by_name() -> None:
    clean = make_set("a", "crane", "crane", ids=("n1", "n2"))  # a bird and a machine
    assert match_classes(clean, make_set("b", "crane", ids=("n2",))) == (-1, 0)


def test_corruptions_are_variants_of_one_walk_with_the_set_itself_as_clean() -> None:
    (walk,) = plan_walks([PHOTO], corruptions=[("fog", 3), ("snow", 1)])
    assert result_sets([walk]) == [
        ("photo", CLEAN, None),
        ("photo/fog/3", SHIFT, "photo"),
        ("photo/snow/1", SHIFT, "photo"),
    ]
    assert [v.corruption for v in walk.variants] == [None, "fog", "snow"]


def test_corruptions_beside_another_clean_set() -> None:
    walks = plan_walks([SKETCH], [PHOTO], [("fog", 3)])
    assert result_sets(walks) == [
        ("photo", CLEAN, None),
        ("sketch", SHIFT, "photo"),
        ("sketch/fog/3", SHIFT, "photo"),
    ]


def test_corruptions_of_the_clean_set_itself_share_its_pictures() -> None:
    (walk,) = plan_walks([PHOTO], [PHOTO], [("fog", 3)])
    assert result_sets([walk]) == [("photo", CLEAN, None), ("photo/fog/3", SHIFT, "photo")]


def test_base_to_new_halves_the_classes_the_first_half_rounded_up() -> None:
    five = make_set("five", *"abcde")
    (walk,) = plan_walks([five], halves=True)
    base, new = (result_set for _, result_set in walk.result_sets())
    assert (base.name, base.classes, base.label_of) == (
        "five (base)",
        ("a", "b", "c"),
        (0, 1, 2, -1, -1),
    )
    assert (new.name, new.part, new.label_of) == ("five (new)", "new", (-1, -1, -1, 0, 1))
    assert {walk.lines(sample) for sample in five.samples} == {1}


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (SourceError, 'Two sets are called "sketch"', ([SKETCH, SKETCH],)),
        (SourceError, "both as a set to evaluate and as the clean set", ([PHOTO], [PHOTO])),
        (SourceError, "holds 2 sets (photo, sketch, ...)", ([SKETCH], [PHOTO, SKETCH])),
        (MethodError, "Leave --clean out", ([SKETCH], [PHOTO], (), True)),
        (MethodError, "base-to-new needs at least four", ([make_set("x", "a", "b")], (), (), True)),
        (
            MethodError,
            '"c" is corrupted already',
            ([make_set("c", "a", "b", corruption="fog", severity=1)], (), [("fog", 1)]),
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    error: type[Exception], words: str, arguments: tuple[object, ...]
) -> None:
    with pytest.raises(error) as refused:
        plan_walks(*arguments)  # type: ignore[arg-type]
    assert words in str(refused.value)


def test_a_limit_draws_the_same_pictures_in_their_order_whatever_else_is_there() -> None:
    many = make_set("many", *(f"c{n}" for n in range(20)))
    drawn = draw_some(many, 10)
    assert len(drawn.samples) == 10
    assert drawn.samples == tuple(s for s in many.samples if s in drawn.samples)
    assert drawn.notes == ("10 of the 40 pictures are drawn, by --limit.",)
    keys = {sample.key for sample in drawn.samples}
    fewer = replace(many, samples=tuple(s for s in many.samples if s.key in keys or s.label < 3))
    assert keys <= {sample.key for sample in draw_some(fewer, 12).samples}
    assert keys != {sample.key for sample in draw_some(many, 10, seed=1).samples}
    assert draw_some(many, 40) is many


def test_numbers_are_no_ids_that_two_sets_share() -> None:
    numbers = ("0", "1", "2", "3")
    clean = make_set("stl", "plane", "bird", "car", "cat", ids=numbers)
    shift = make_set("cifar", "plane", "car", "bird", "cat", ids=numbers)
    assert match_classes(clean, shift) == (0, 2, 1, 3)
    assert match_classes(clean, make_set("odd", "plane", "frog", "car", "cat", ids=numbers)) is None


def test_two_trees_of_one_name_and_other_classes_are_refused() -> None:
    first = make_set("c/fog/1", "cat", "dog", corruption="fog", severity=1)
    other = make_set("c/snow/1", "cat", "house", corruption="snow", severity=1)
    with pytest.raises(SourceError, match=r'Two sets called "c" .* other="/data/c/snow/1"'):
        plan_walks([first, other], [PHOTO])
