"""Changed answers are counted by true class, class before and class after."""

from __future__ import annotations

from typing import Any

from tpt.evaluate.confusions import Change, ChangeCounter, Confusion, compare_answers

CLASSES = ("ant", "bee", "cat")


def make_row(label: int, **tops: int) -> dict[str, Any]:
    """A row whose methods' top classes are given; "zero_shot" is the baseline."""
    methods = {name.replace("_", "-"): {"top": [[top, 0.6]]} for name, top in tops.items()}
    return {"set": "zoo", "key": "a.png", "label": label, "methods": methods}


def count(*rows: dict[str, Any], limit: int = 15) -> tuple[Confusion, ...]:
    counter = ChangeCounter()
    for row in rows:
        counter.add(row)
    return counter.confusions("zoo", CLASSES, limit)


def test_changed_answers_are_counted_by_truth_before_and_after() -> None:
    found = count(
        make_row(0, zero_shot=1, tpt=0),
        make_row(2, zero_shot=2, tpt=1),
        make_row(0, zero_shot=1, tpt=0),
        make_row(1, zero_shot=1, tpt=1),  # no change
        make_row(2, zero_shot=0, tpt=1),  # wrong both times, and still a change
    )
    changes = (
        Change("ant", "bee", "ant", 2),
        Change("cat", "ant", "bee", 1),
        Change("cat", "cat", "bee", 1),
    )
    assert found == (Confusion("zoo", "tpt", changes),)


def test_each_method_is_compared_with_the_baseline_alone() -> None:
    found = count(make_row(0, vte=2, zero_shot=1, tpt=0))
    assert found == (
        Confusion("zoo", "vte", (Change("ant", "bee", "cat", 1),)),
        Confusion("zoo", "tpt", (Change("ant", "bee", "ant", 1),)),
    )


def test_only_the_most_frequent_changes_are_given() -> None:
    rare, often = make_row(0, zero_shot=1, tpt=2), make_row(2, zero_shot=1, tpt=0)
    (found,) = count(rare, often, often, limit=1)
    assert found.changes == (Change("cat", "bee", "ant", 2),)


def test_changes_that_are_not_given_are_counted() -> None:
    rare, rarer = make_row(0, zero_shot=1, tpt=2), make_row(1, zero_shot=0, tpt=2)
    often = make_row(2, zero_shot=1, tpt=0)
    (found,) = count(rare, rare, rarer, often, often, often, limit=1)
    assert (found.rarer, found.rarer_images) == (2, 3)


def test_equally_frequent_changes_do_not_depend_on_the_order_of_the_rows() -> None:
    rows = [make_row(label, zero_shot=0, tpt=1) for label in (2, 0, 1)]
    assert count(*rows) == count(*reversed(rows))


def test_a_method_that_changed_nothing_comes_without_changes() -> None:
    assert count(make_row(0, zero_shot=1, tpt=1)) == (Confusion("zoo", "tpt", ()),)


def test_a_picture_that_failed_counts_nowhere() -> None:
    failed = {"set": "zoo", "key": "b.png", "label": 0, "error": {"type": "ImageError"}}
    assert count(failed) == ()


def test_a_method_without_an_answer_counts_nowhere() -> None:
    row = make_row(0, zero_shot=1, tpt=0)
    row["methods"]["vte"] = {"error": {"type": "MethodError"}}
    assert list(compare_answers(row, "zero-shot")) == [("tpt", 1, 0)]


def test_another_method_can_be_the_baseline() -> None:
    row = make_row(0, zero_shot=1, tpt=2)
    assert list(compare_answers(row, "tpt")) == [("zero-shot", 2, 1)]
