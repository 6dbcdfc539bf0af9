"""A label belongs to a class by its id or its name, and one that fits none says how to go on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from refusals import refusal

from tpt.data.class_lists import Choice, choose_classes, note_absent
from tpt.data.imagenet import imagenet_ids
from tpt.data.labelled_sets import ReadOptions
from tpt.errors import SourceError


def choose(found: dict[str, str], *classes: str) -> Choice:
    """The choice, with the note on absent classes that a set of all these labels has."""
    choice = choose_classes(found, ReadOptions(classes=classes), "pets")
    absent = note_absent(choice.classes, set(choice.label_of.values()))
    return replace(choice, notes=choice.notes + absent)


def message_of(found: dict[str, str], *classes: str) -> str:
    return refusal(SourceError, choose, found, *classes)


def same(*names: str) -> dict[str, str]:
    return {name: name.replace("_", " ") for name in names}


def test_without_a_list_the_labels_are_the_classes() -> None:
    choice = choose_classes({"b": "bee", "a": "ant"}, ReadOptions(), "pets")
    assert choice == Choice(("bee", "ant"), ("b", "a"), {"b": 0, "a": 1})


def test_a_list_gives_order_and_spelling() -> None:
    choice = choose(same("wire_fox", "CAT"), "Cat", "dog", "wire fox")
    assert choice.classes == ("Cat", "dog", "wire fox")
    assert choice.ids == ("CAT", "dog", "wire_fox")
    assert choice.label_of == {"wire_fox": 2, "CAT": 0}
    assert choice.notes == ("1 of the 3 classes has no pictures here: dog.",)


def test_classes_without_pictures_are_told_three_at_a_time() -> None:
    assert choose(same("a"), *"abcdef").notes == (
        "5 of the 6 classes have no pictures here: b, c, d and 2 more.",
    )


def test_an_id_is_given_its_name() -> None:
    choice = choose({"7": "7", "x": "x"}, "x=horse", " 7 = zebra ")
    assert (choice.classes, choice.ids) == (("horse", "zebra"), ("x", "7"))
    assert choice.label_of == {"7": 1, "x": 0}
    assert choice.notes == ()


def test_an_id_wins_over_a_name_that_reads_the_same() -> None:
    choice = choose(same("cat", "dog"), "cat=dog", "dog=cat")
    assert {label: choice.classes[place] for label, place in choice.label_of.items()} == {
        "cat": "dog",
        "dog": "cat",
    }


def test_a_label_is_found_by_its_new_name_or_its_own() -> None:
    found = {"Faces": "face", "Motorbikes": "motorbike"}
    assert choose(found, "motorbike", "faces").label_of == {"Faces": 1, "Motorbikes": 0}


def test_an_id_is_kept_where_no_label_has_it() -> None:
    assert choose(same("dog"), "n1=cat", "dog").ids == ("n1", "dog")


def test_labels_of_one_class_are_told() -> None:
    found = same("oak", "elm", "ash", "fir", "cat", "Cat")
    trees = [f"{name}=tree" for name in ("oak", "elm", "ash", "fir")]
    choice = choose(found, *trees, "cat")
    assert choice.classes == ("tree", "cat")
    assert choice.label_of == {"oak": 0, "elm": 0, "ash": 0, "fir": 0, "cat": 1, "Cat": 1}
    assert choice.notes == (
        '2 classes take the pictures of several labels: "tree" is oak, elm, ash and 1 more; "cat" '
        "is cat, Cat.",
    )


def test_labels_that_fit_no_class_are_named_with_the_way_on() -> None:
    found = same("dog", "giraf", "qqq", "hrose", "zzz")
    assert message_of(found, "dog", "giraffe", "horse") == (
        '4 of the 5 labels of "pets" fit none of the 3 classes given: giraf (did you mean '
        '"giraffe"?), qqq, hrose (did you mean "horse"?) and 1 more. Say which class each is '
        "(--classes giraf=giraffe,... or a file of such lines), or leave those pictures out."
    )
    assert message_of(same("dog", "qqq"), "dog", "cat") == (
        '1 of the 2 labels of "pets" fits none of the 2 classes given: qqq. Say which class each '
        "is (--classes qqq=NAME,... or a file of such lines), or leave those pictures out."
    )


def test_two_labels_of_one_name_are_an_error() -> None:
    for found in (same("Dog", "dog"), {"Dog": "hound", "dog": "Hound"}):
        assert refusal(SourceError, choose_classes, found, ReadOptions(), "pets") == (
            f'"Dog" and "dog" in "pets" are one class name ("{found["dog"]}"). Rename one of them, '
            "or say which class each is: --classes Dog=...,dog=..."
        )


def test_ids_and_numbers_may_share_a_name() -> None:
    found = {"n03773504": "missile", "n04008634": "missile", "657": "crane", "744": "crane"}
    assert len(set(choose_classes(found, ReadOptions(), "pets").label_of.values())) == 4


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ("dog", "cat", "Dog"),
            'The list of classes names "Dog" twice (also as "dog"). Remove one; if two classes '
            "have one name, give them names that differ: id=name.",
        ),
        (
            ("dog", "dog"),
            'The list of classes names "dog" twice. Remove one; if two classes have one name, give '
            "them names that differ: id=name.",
        ),
        (
            ("a=dog", "a=cat"),
            'The list of classes gives "a" two names, "dog" and "cat". Expected one name an id.',
        ),
        (
            ("dog", "a="),
            '"a=" in the list of classes lacks a name: expected a class name or "id=name".',
        ),
        (
            ("=dog", "cat"),
            '"=dog" in the list of classes lacks an id: expected a class name or "id=name".',
        ),
        (
            ("dog", " "),
            '" " in the list of classes lacks a name: expected a class name or "id=name".',
        ),
        ((), 'The list of classes is empty: expected class names or "id=name" entries.'),
    ],
)
def test_a_list_that_cannot_be_meant_is_an_error(classes: tuple[str, ...], message: str) -> None:
    assert message_of(same("dog", "cat"), *classes) == message


def test_imagenets_numbers_count_where_they_agree_with_the_names() -> None:
    found = {"744": "missile", "657": "missile", "2": "2", "7": "goldfish"}
    choice = choose(found, "imagenet")
    assert choice.label_of == {"744": 744, "657": 657, "2": 2, "7": 1}
    assert choice.ids == imagenet_ids()
