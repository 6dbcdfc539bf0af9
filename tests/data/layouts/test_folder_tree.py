"""Trees of domains and of corruptions are told apart, and a mixture says what was found."""

from __future__ import annotations

import os

import numpy as np
import pytest
from data.set_files import touch, truth
from PIL import Image
from refusals import refusal

from tpt.corrupt.corrupted_copy import Settings, open_target, plan_pictures, write_corrupted
from tpt.data.imagenet import subset_ids
from tpt.data.labelled_sets import LabelledSet, ReadOptions
from tpt.data.layouts import read_sets
from tpt.data.layouts.folder_tree import read_tree
from tpt.errors import SourceError


def read(path: str, layout: str = "auto", *classes: str) -> dict[str, LabelledSet]:
    made = read_sets(path, ReadOptions(layout, classes or None))
    assert len({one.classes for one in made}) == 1
    return {one.name: one for one in made}


def message_of(path: str, layout: str = "auto", *classes: str) -> str:
    return refusal(SourceError, read, path, layout, *classes)


# --- domains ---


def test_a_folder_a_domain() -> None:
    touch("pacs/photo/dog/1.png", "pacs/photo/horse/1.png", "pacs/README.txt")
    touch("pacs/sketch/dog/1.png", "pacs/sketch/dog/2.png", "pacs/sketch/person/1.png")
    made = read("pacs")
    assert list(made) == ["pacs/photo", "pacs/sketch"]
    photo, sketch = made.values()
    assert photo.layout == "a folder a domain, one folder a class"
    assert photo.classes == photo.ids == ("dog", "horse", "person")
    assert (sketch.domain, sketch.corruption, sketch.severity) == ("sketch", None, None)
    assert truth(sketch) == {"dog/1.png": "dog", "dog/2.png": "dog", "person/1.png": "person"}
    assert sketch.path == "pacs"
    assert sketch.notes == ("1 of the 3 classes has no pictures here: horse.",)
    assert photo.notes == ("1 of the 3 classes has no pictures here: person.",)


def test_domains_may_have_splits_or_an_images_folder() -> None:
    for domain in ("amazon", "dslr"):
        touch(f"office/{domain}/images/mug/1.png", f"office/{domain}/images/pen/1.png")
        for split in ("train", "test"):
            touch(*(f"vlcs/{domain}/{split}/{name}/{split}.png" for name in ("cat", "bird")))
    made = read("office")
    assert list(made) == ["office/amazon", "office/dslr"]
    assert truth(made["office/dslr"]) == {"mug/1.png": "mug", "pen/1.png": "pen"}
    assert made["office/dslr"].notes == ('The class folders lie in "office/dslr/images".',)
    made = read("vlcs")
    assert truth(made["vlcs/amazon"]) == {"bird/test.png": "bird", "cat/test.png": "cat"}
    assert made["vlcs/amazon"].notes == ('Of the splits, "test" is read, and not train.',)


def test_domains_by_wordnet_id_share_imagenets_order() -> None:
    touch("nets/photo/n02123045/1.png", "nets/photo/n01440764/1.png", "nets/toy/n02123045/1.png")
    made = read("nets")
    assert made["nets/toy"].ids == ("n01440764", "n02123045")
    assert truth(made["nets/toy"]) == {"n02123045/1.png": "tabby cat"}
    assert made["nets/toy"].layout == (
        "a folder a domain, 2 of ImageNet's 1,000 classes by WordNet id"
    )


def test_a_class_misspelt_in_one_domain_is_an_error() -> None:
    for domain in ("art", "photo"):
        touch(f"pacs/{domain}/dog/1.png", f"pacs/{domain}/giraffe/1.png")
    touch("pacs/sketch/dog/1.png", "pacs/sketch/giraf/1.png")
    assert message_of("pacs") == (
        'Only "pacs/sketch" has a class "giraf", and it lacks "giraffe", which "pacs/art" has: is '
        "one of them misspelt? Rename the folder, or list the classes (--classes "
        "giraf=giraffe,...), both of them if they are two."
    )
    made = read("pacs", "auto", "dog", "giraf=giraffe")
    assert truth(made["pacs/sketch"])["giraf/1.png"] == "giraffe"
    assert truth(made["pacs/art"])["giraffe/1.png"] == "giraffe"


def test_classes_much_alike_that_one_domain_has_both_are_two() -> None:
    touch(*(f"home/art/{name}/1.png" for name in ("horse", "house")))
    touch("home/real/horse/1.png")
    assert read("home")["home/real"].classes == ("horse", "house")


def test_loose_pictures_of_a_tree_and_of_a_domain_are_told() -> None:
    touch("pacs/all.png", "pacs/photo/thumb.png")
    touch(*(f"pacs/{domain}/{name}/1.png" for domain in ("photo", "art") for name in "ab"))
    made = read("pacs")
    loose = '1 picture directly in "pacs" belongs to no class and is left out.'
    assert made["pacs/art"].notes == (loose,)
    assert made["pacs/photo"].notes == (
        loose,
        '1 picture directly in "pacs/photo" belongs to no class and is left out.',
    )


def test_one_domain_is_a_domain() -> None:
    touch("pacs/photo/dog/1.png", "pacs/photo/horse/1.png")
    assert read("pacs")["pacs/photo"].domain == "photo"


def test_an_empty_class_of_a_domain_is_an_error() -> None:
    touch("pacs/photo/dog/1.png", "pacs/art/dog/1.png")
    os.mkdir("pacs/art/horse")
    assert message_of("pacs") == (
        '1 class folder of "pacs/art" holds no pictures: horse. Add pictures, or remove the '
        "folders."
    )


def test_an_empty_domain_is_an_error() -> None:
    touch("pacs/photo/dog/1.png", "pacs/photo/cat/1.png", "pacs/art/notes.txt")
    assert message_of("pacs") == (
        '1 class folder of "pacs" holds no pictures: art. Add pictures, or remove the folders.'
    )
    assert message_of("pacs", "domains").startswith('The folder "pacs/art" holds no pictures:')


def test_a_folder_of_a_tree_can_be_left_out() -> None:
    touch(*(f"pacs/{domain}/{name}/1.png" for domain in ("photo", "art") for name in "ab"))
    touch("pacs/extra/1.png")
    made = read_sets("pacs", ReadOptions(ignored=frozenset({"extra", "b"}), classes=("a", "c")))
    assert [one.name for one in made] == ["pacs/art", "pacs/photo"]
    assert made[0].notes == (
        "Left out, as no class: extra.",
        "Left out, as no class: b.",
        "1 of the 2 classes has no pictures here: c.",
    )


def test_folders_that_share_no_class_are_an_error() -> None:
    touch("zoo/animals/dog/1.png", "zoo/vehicles/car/1.png")
    assert message_of("zoo") == (
        '"zoo" has two levels of folders (animals/dog, vehicles/car), but they share no class, so '
        "they seem to be no domains. Say what they are: --layout domains if each is a domain, "
        "--layout folders if each is a class with all that lies below it; or name one of them."
    )
    assert list(read("zoo", "domains")) == ["zoo/animals", "zoo/vehicles"]
    assert truth(read("zoo", "folders")["zoo"]) == {
        "animals/dog/1.png": "animals",
        "vehicles/car/1.png": "vehicles",
    }


# --- corruptions ---


def make_corrupted(root: str, kinds: tuple[str, ...], classes: tuple[str, ...]) -> None:
    touch(
        *(f"{root}/{kind}/{i}/{name}/1.png" for kind in kinds for i in (1, 3) for name in classes)
    )


def test_a_folder_a_corruption_and_severity() -> None:
    make_corrupted("c", ("fog", "snow"), ("n02123045", "n01440764"))
    made = read("c")
    assert list(made) == ["c/fog/1", "c/fog/3", "c/snow/1", "c/snow/3"]
    fog = made["c/fog/3"]
    assert (fog.domain, fog.corruption, fog.severity) == (None, "fog", 3)
    assert fog.layout == (
        "a folder a corruption and severity, 2 of ImageNet's 1,000 classes by WordNet id"
    )
    # The key is the same in all of them: the same picture gets the same views.
    assert truth(fog) == {"n01440764/1.png": "tench", "n02123045/1.png": "tabby cat"}
    assert fog.samples[0].source == "c/fog/3/n01440764/1.png"


def test_corruptions_in_their_groups() -> None:
    make_corrupted("c/blur", ("defocus_blur", "motion_blur"), ("cat", "dog"))
    make_corrupted("c/noise", ("shot_noise",), ("cat", "dog"))
    made = read("c")
    assert list(made) == [
        *("c/defocus_blur/1", "c/defocus_blur/3", "c/motion_blur/1", "c/motion_blur/3"),
        *("c/shot_noise/1", "c/shot_noise/3"),
    ]
    assert made["c/motion_blur/3"].corruption == "motion_blur"
    assert list(read("c/noise")) == ["noise/shot_noise/1", "noise/shot_noise/3"]


def test_one_corruption_of_a_tree() -> None:
    make_corrupted("c", ("fog",), ("cat", "dog"))
    made = read("c/fog")
    assert list(made) == ["fog/1", "fog/3"]
    assert (made["fog/3"].corruption, made["fog/3"].severity) == ("fog", 3)


def test_what_tpt_corrupt_writes_is_read() -> None:
    for name in ("cat", "dog"):
        os.makedirs(f"pets/{name}")
        Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(f"pets/{name}/1.png")
    settings = Settings(os.path.abspath("pets"), 0, "png")
    plan = plan_pictures("pets", "made", "png")
    with open_target("made", settings, ["contrast"], [2]):
        outcomes = list(write_corrupted(plan, "made", [("contrast", 2)], settings))
    assert all(outcome.written for outcome in outcomes)
    made = read("made")["made/contrast/2"]
    assert truth(made) == {"cat/1.png": "cat", "dog/1.png": "dog"}
    assert made.notes == ()


def test_severities_of_a_split_set_are_read() -> None:
    make_corrupted("c", ("fog/1/train", "fog/1/test"), ())
    touch("c/fog/1/train/a/1.png", "c/fog/1/test/a/2.png", "c/fog/1/test/b/2.png")
    assert truth(read("c")["c/fog/1"]) == {"a/2.png": "a", "b/2.png": "b"}


def test_a_severity_without_class_folders_is_an_error() -> None:
    make_corrupted("c", ("fog",), ("cat", "dog"))
    touch("c/fog/2/1.png")
    assert message_of("c").startswith('The folder "c/fog/2" holds 1 picture and no class folders:')


def test_a_corruption_that_comes_twice_is_an_error() -> None:
    make_corrupted("c", ("blur/fog", "weather/fog"), ("cat", "dog"))
    assert message_of("c") == (
        'The corruption "fog" comes twice, in "c/blur/fog" and in "c/weather/fog". Remove or '
        "rename one."
    )


def test_severities_beside_other_folders_are_an_error() -> None:
    make_corrupted("c", ("fog", "snow"), ("cat", "dog"))
    touch("c/photo/cat/1.png", "c/photo/dog/1.png")
    assert message_of("c") == (
        '"c" mixes layouts: folders of severities from 1 to 5 (fog, snow) beside others (photo). '
        "Take the others away, or say what the folders are: --layout domains if 1 to 5 are class "
        "names."
    )


def test_classes_named_1_to_5_are_read_as_such_when_it_is_said() -> None:
    touch(*(f"digits/{domain}/{i}/1.png" for domain in ("svhn", "usps") for i in (1, 2)))
    assert message_of("digits").startswith('The folder "digits/svhn/1" holds 1 picture and no ')
    assert read("digits", "domains")["digits/usps"].classes == ("1", "2")


def test_a_tree_that_is_not_the_forced_one_is_an_error() -> None:
    touch("pacs/photo/dog/1.png", "pacs/art/dog/1.png")
    assert message_of("pacs", "corruptions") == (
        '"pacs" is no tree of corruptions: expected CORRUPTION/SEVERITY/CLASS with severities from '
        "1 to 5, as ImageNet-C has it, and found art, photo. Name another folder, or drop "
        "--layout corruptions."
    )
    assert message_of("pacs/photo", "corruptions").endswith("drop --layout corruptions.")
    assert message_of("pacs/photo", "domains").startswith(
        'The folder "pacs/photo/dog" holds 1 picture and no class folders:'
    )


def test_a_million_files_are_not_listed_to_find_the_layout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = tuple(f"kind_{i}" for i in range(5))
    make_corrupted("c", kinds, tuple("abcdefghij"))
    listed: list[str] = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (listed.append(path), real(path))[1])
    assert len(read_tree("c", "c", ReadOptions())[0]) == 10
    in_class_folders = [path for path in listed if path.count("/") >= 3]
    assert len(in_class_folders) <= len(kinds)  # of 100


# --- mixtures ---


def test_class_folders_beside_domains_are_an_error() -> None:
    touch("mix/cat/1.png", "mix/dog/1.png", "mix/sketch/cat/1.png", "mix/sketch/dog/1.png")
    assert message_of("mix") == (
        '"mix" mixes layouts: class folders with pictures (cat, dog) beside folders of class '
        "folders (sketch/cat). Expected one layout. Take one kind away, name one of the folders "
        "inside, or say what the folders are: --layout folders if each of them is a class with all "
        "that lies below it."
    )
    assert truth(read("mix", "folders")["mix"])["sketch/dog/1.png"] == "sketch"


DEPTHS = (
    "expected the pictures of a class directly in its folder. If all below it are that class's, "
    "say so (--layout folders); else name the folder right above the class folders, or put the "
    "pictures into one layout."
)


def test_pictures_of_a_class_at_two_depths_are_an_error() -> None:
    touch("pets/cat/1.png", "pets/dog/1.png", "pets/dog/more/2.png")
    assert message_of("pets") == (
        f'The folder "dog" of "pets" holds "dog/1.png" beside "dog/more/2.png": {DEPTHS}'
    )
    assert sorted(truth(read("pets", "folders")["pets"])) == [
        *("cat/1.png", "dog/1.png", "dog/more/2.png"),
    ]


def test_domains_of_different_depth_are_an_error() -> None:
    touch("pacs/art/dog/1.png", "pacs/art/cat/1.png", "pacs/photo/dog/1.png")
    touch("pacs/photo/set_2/dog/1.png")
    assert message_of("pacs") == (
        f'The folder "set_2" of "pacs/photo" holds "set_2/dog/1.png": {DEPTHS}'
    )


def test_a_hollow_folder_inside_a_class_folder_does_no_harm() -> None:
    touch("pets/cat/1.png", "pets/dog/1.png", "pets/dog/meta/more/x.txt")
    os.symlink(os.path.abspath("pets/dog/meta"), "pets/dog/meta/loop")
    assert sorted(truth(read("pets")["pets"])) == ["cat/1.png", "dog/1.png"]


def test_ids_beside_names_are_an_error_over_all_domains() -> None:
    touch("x/a/dog/1.png", "x/a/cat/1.png", "x/b/dog/1.png", "x/b/n02123045/1.png")
    assert '"x" mixes WordNet ids (n02123045) with other folders (cat, dog).' in message_of("x")


def test_a_parts_classes_can_be_asked_of_every_domain() -> None:
    inside, outside = subset_ids("imagenet-r")[:2], "n01440764"
    touch(*(f"x/{domain}/{wnid}/1.png" for domain in "ab" for wnid in (*inside, outside)))
    made = read("x", "auto", "imagenet-r")["x/b"]
    assert made.ids == subset_ids("imagenet-r")
    assert [sample.label for sample in made.samples] == [0, 1]
    assert made.notes[0] == (
        "1 of the 3 class folders is not among ImageNet-R's 200 classes and is left out, as asked."
    )
    touch(f"x/c/{outside}/1.png")
    assert message_of("x", "auto", "imagenet-r") == (
        'None of the class folders of "x/c" is among the classes given. Give other classes, or '
        "leave that folder out."
    )
