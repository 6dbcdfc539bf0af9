"""ImageNet's classes are found by WordNet id or number, and its parts by the set of their ids."""

from __future__ import annotations

from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest
from refusals import refusal

from tpt.data.imagenet import (
    imagenet_ids,
    imagenet_names,
    imagenet_templates,
    name_ids,
    simple_templates,
    subset_ids,
    subset_of,
)
from tpt.data.labelled_sets import LabelledSet, ReadOptions
from tpt.data.layouts import read_sets
from tpt.errors import SourceError


def make(root: str | Path, *folders: str) -> str:
    """Class folders with one empty picture each: nothing here opens a picture."""
    for folder in folders:
        place = Path(root, folder)
        place.mkdir(parents=True)
        (place / "1.png").touch()
    return str(root)


def read(path: str, *classes: str, layout: str = "auto") -> LabelledSet:
    (made,) = read_sets(path, ReadOptions(layout, classes or None))
    return made


def truth(made: LabelledSet) -> dict[str, str]:
    """Each picture's folder -> the name of its class."""
    return {sample.key.split("/")[0]: made.classes[sample.label] for sample in made.samples}


def message_of(path: str, *classes: str, layout: str = "auto") -> str:
    return refusal(SourceError, read, path, *classes, layout=layout)


# --- the lists ---


def test_the_ids_are_in_the_order_of_open_clips_names() -> None:
    names = dict(zip(imagenet_ids(), imagenet_names(), strict=True))
    assert all(one < other for one, other in pairwise(imagenet_ids()))
    assert (names["n01440764"], names["n02125311"], names["n15075141"]) == (
        "tench",
        "cougar",
        "toilet paper",
    )
    assert [wnid for wnid in imagenet_ids() if names[wnid] == "missile"] == [
        "n03773504",
        "n04008634",
    ]
    assert name_ids(("n15075141", "n01440764")) == ("toilet paper", "tench")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("imagenet", "imagenet_synsets.txt"),
        ("imagenet-a", "imagenet_a_synsets.txt"),
        ("imagenet-r", "imagenet_r_synsets.txt"),
    ],
)
def test_the_lists_are_timms(ours: str, theirs: str) -> None:
    pytest.importorskip("timm")
    listed = files("timm").joinpath("data", "_info", theirs)
    if not listed.is_file():
        pytest.skip("this timm has no such list")
    ids = listed.read_text().split()
    assert subset_ids(ours) == tuple(sorted(ids))


def test_a_part_is_known_by_all_of_its_ids_and_no_other() -> None:
    ids = subset_ids("imagenet-r")
    part = subset_of(reversed(ids))
    assert part
    assert (part.title, part.size) == ("ImageNet-R", len(ids))
    assert subset_of(ids[1:]) is None
    assert subset_of([*ids, "n01440764"]) is None


def test_an_unknown_part_names_the_known_ones() -> None:
    with pytest.raises(SourceError, match=r'Did you mean "imagenet-a"[^.]*\? Expected one of'):
        subset_ids("imagenet_a")


def test_templates_are_text_with_a_place_for_the_class() -> None:
    assert (len(imagenet_templates()), len(simple_templates())) == (80, 7)
    assert imagenet_templates()[0] == "a bad photo of a {}."
    assert simple_templates()[0] == "itap of a {}."
    assert all(t.count("{}") == 1 for t in (*imagenet_templates(), *simple_templates()))


# --- folders by WordNet id ---


def test_a_part_of_imagenet_is_told_and_named_by_id() -> None:
    path = make("imagenette", "n03888257", "n01440764", "n02979186")
    made = read(path)
    assert made.layout == "3 of ImageNet's 1,000 classes by WordNet id"
    assert made.ids == ("n01440764", "n02979186", "n03888257")
    assert made.classes == ("tench", "cassette player", "parachute")
    assert truth(made)["n02979186"] == "cassette player"
    assert made.family == "imagenet"
    assert made.notes == (
        "ImageNet's other classes are left out; to score among all 1,000: --classes imagenet.",
    )


def test_all_of_imagenet_is_asked_for_and_told() -> None:
    made = read(make("few", "n15075141", "n01440764"), "ImageNet")
    assert made.ids == imagenet_ids()
    assert made.classes == imagenet_names()
    assert {sample.key: sample.label for sample in made.samples} == {
        "n01440764/1.png": 0,
        "n15075141/1.png": 999,
    }
    assert made.family == "imagenet"
    assert made.notes == (
        "Scored among all 1,000 classes of ImageNet, as asked.",
        "998 of the 1,000 classes have no pictures here: goldfish, great white shark, tiger shark "
        "and 995 more.",
    )


def test_imagenet_a_is_scored_among_its_own_classes() -> None:
    ids = subset_ids("imagenet-a")
    path = make("a", *ids)
    made = read(path)
    assert made.layout == "ImageNet-A by WordNet id"
    assert made.ids == ids
    assert made.classes == name_ids(ids)
    assert [sample.label for sample in made.samples] == list(range(200))
    assert made.notes == (
        "Scored among ImageNet-A's own 200 classes, as published, not among ImageNet's 1,000.",
    )
    asked = read(path, "imagenet")
    assert (asked.classes, asked.ids) == (made.classes, made.ids)
    assert asked.notes == (
        "The pictures are ImageNet-A's: scored among its 200 classes, as published, not among "
        "ImageNet's 1,000.",
    )
    assert read(path, "imagenet-a").notes == ()


def test_imagenet_r_is_known_and_one_folder_less_is_not() -> None:
    ids = subset_ids("imagenet-r")
    assert read(make("r", *ids)).layout == "ImageNet-R by WordNet id"
    made = read(make("less", *ids[1:]))
    assert made.layout == "199 of ImageNet's 1,000 classes by WordNet id"
    assert read("less", "imagenet-r").notes == (
        "1 of the 200 classes has no pictures here: goldfish.",
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("whole"), *imagenet_ids())


def test_all_ids_are_imagenet_or_its_sketches(whole: str) -> None:
    made = read(whole)
    assert made.layout == "ImageNet or ImageNet-Sketch by WordNet id"
    assert (made.classes, made.ids, made.notes) == (imagenet_names(), imagenet_ids(), ())
    assert made.classes.count("missile") == 2
    assert {sample.label for sample in made.samples} == set(range(1000))


def test_the_clean_set_takes_a_parts_classes(whole: str) -> None:
    made = read(whole, "imagenet-r")
    assert made.ids == subset_ids("imagenet-r")
    assert [sample.key.split("/")[0] for sample in made.samples] == list(made.ids)
    assert made.notes == (
        "800 of the 1,000 class folders are not among ImageNet-R's 200 classes and are left out, "
        "as asked.",
    )


def test_a_part_that_shares_no_class_is_an_error() -> None:
    assert message_of(make("few", "n01440764", "n01494475"), "imagenet-a") == (
        'None of the 2 class folders of "few" is among ImageNet-A\'s 200 classes (n01440764, '
        "n01494475). Give other classes."
    )


def test_ids_that_imagenet_lacks_are_an_error_until_they_are_named() -> None:
    path = make("birds", "n01440764", *(f"n0000000{i}" for i in range(4)))
    assert message_of(path) == (
        '4 of the 5 WordNet ids of "birds" are not among ImageNet\'s 1,000: n00000000, n00000001, '
        "n00000002 and 1 more. Give them class names (--classes n00000000=NAME,... or a file of "
        "such lines, all classes listed), or ignore those folders."
    )
    listed = ["tench", *(f"n0000000{i}=bird {i}" for i in range(4))]
    made = read(path, *listed)
    assert truth(made)["n00000003"] == "bird 3"
    assert truth(made)["n01440764"] == "tench"
    assert made.family is None


def test_breeds_can_be_one_class() -> None:
    path = make("dogs", "n02085620", "n02085782", "n02123045")
    made = read(path, "n02123045=cat", "n02085620=dog", "n02085782=dog")
    assert made.classes == ("cat", "dog")
    assert truth(made)["n02085782"] == "dog"
    assert made.family is None  # dog is no class of ImageNet
    assert made.notes == (
        '1 class takes the pictures of several labels: "dog" is n02085620, n02085782.',
    )


def test_ids_beside_names_are_an_error() -> None:
    path = make("mixed", "n01440764", "dog", "cat", "n01443537")
    assert message_of(path) == (
        '"mixed" mixes WordNet ids (n01440764, n01443537) with other folders (cat, dog). Expected '
        "one kind. Take the others away, or take every folder by its name (--layout folders, with "
        "--classes n01440764=tench,... for the ids)."
    )
    made = read(path, "n01440764=tench", "n01443537=goldfish", "cat", "dog", layout="folders")
    assert truth(made) == {
        "n01440764": "tench",
        "n01443537": "goldfish",
        "cat": "cat",
        "dog": "dog",
    }


def test_the_forced_layout_wants_ids_only() -> None:
    path = make("mixed", "n01440764", "dog")
    assert message_of(path, layout="wnid") == (
        'Not all class folders of "mixed" are WordNet ids: dog. Expected n and eight digits, as in '
        "n01440764. Rename or ignore them, or drop --layout wnid."
    )


# --- folders by number ---


def test_imagenet_v2_is_mapped_by_number(tmp_path: Path) -> None:
    made = read(make(tmp_path / "v2", *map(str, range(1000))))
    assert made.layout == "ImageNet-V2 by class number"
    assert (made.classes, made.ids) == (imagenet_names(), imagenet_ids())
    # Sorted as text, "10" would be the third folder, and "2" the 112th.
    assert all(sample.key == f"{sample.label}/1.png" for sample in made.samples)
    assert (made.family, made.notes) == ("imagenet", ())


def test_few_numbers_are_names_until_the_layout_is_said() -> None:
    path = make("v2", "10", "2", "999")
    assert read(path).classes == ("10", "2", "999")
    assert read(path).family is None
    assert read(path).notes == (
        "The folders' numbers are taken for class names. If they are ImageNet-V2's class numbers, "
        "say so: --layout numbers.",
    )
    made = read(path, layout="numbers")
    assert made.layout == "3 of ImageNet's 1,000 classes by class number"
    assert made.ids == ("n01484850", "n01530575", "n15075141")
    assert truth(made) == {"2": "great white shark", "10": "brambling", "999": "toilet paper"}
    assert made.family == "imagenet"


def test_numbers_take_all_classes_or_other_names() -> None:
    path = make("v2", "2", "999")
    assert read(path, "imagenet", layout="numbers").samples[1].label == 999
    made = read(path, "999=paper", "2=shark", layout="numbers")
    assert truth(made) == {"2": "shark", "999": "paper"}
    assert made.ids == ("n15075141", "n01484850")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ("1", "1000", "dog"),
            'Not all class folders of "v2" are numbers from 0 to 999: 1000, dog. Rename or ignore '
            "them, or drop --layout numbers.",
        ),
        (
            ("1", "01", "2"),
            'Two class folders of "v2" are the same number: 01 with zeros before it and without. '
            "Put them together.",
        ),
    ],
)
def test_the_forced_layout_wants_numbers_only(folders: tuple[str, ...], message: str) -> None:
    assert message_of(make("v2", *folders), layout="numbers") == message


# --- ImageNet's names ---


def test_folders_by_name_are_found_among_imagenets_names() -> None:
    made = read(make("named", "tench", "Great_White_Shark"), "imagenet")
    assert {sample.label for sample in made.samples} == {0, 2}
    assert made.ids == imagenet_ids()


def test_a_name_that_imagenet_has_twice_is_an_error() -> None:
    assert message_of(make("named", "tench", "missile"), "imagenet") == (
        'The label "missile" of "named" fits two classes of ImageNet, n03773504 and n04008634, '
        "which have one name. Give it the id that is meant."
    )
