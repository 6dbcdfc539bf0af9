"""Class folders become labelled pictures; what is no class is told or refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from data.set_files import touch, truth
from refusals import refusal

from tpt.data.labelled_sets import LabelledSet, ReadOptions
from tpt.data.layouts import LAYOUTS, read_sets
from tpt.data.training_sets import read_training_set
from tpt.errors import SourceError

PLAIN = ReadOptions()


def read(path: str, options: ReadOptions = PLAIN) -> LabelledSet:
    (made,) = read_sets(path, options)
    return made


def message_of(path: str, options: ReadOptions = PLAIN) -> str:
    return refusal(SourceError, read_sets, path, options)


def test_a_folder_a_class() -> None:
    touch("pets/wire_fox/b.JPG", "pets/wire_fox/a.png", "pets/cat/10.webp", "pets/cat/.hidden.png")
    touch("pets/README.txt", "pets/LICENSE", "pets/.git/x/1.png", "pets/cat/notes.txt")
    made = read("pets")
    assert (made.name, made.layout, made.path) == ("pets", "one folder a class", "pets")
    assert (made.classes, made.ids) == (("cat", "wire fox"), ("cat", "wire_fox"))
    assert truth(made) == {
        "cat/10.webp": "cat",
        "wire_fox/a.png": "wire fox",
        "wire_fox/b.JPG": "wire fox",
    }
    assert [sample.source for sample in made.samples] == [
        os.path.join("pets", sample.key) for sample in made.samples
    ]
    assert (made.family, made.domain, made.corruption, made.severity) == (None,) * 4
    left_out = os.path.join("pets", "cat", "notes.txt")
    note = f"1 file skipped (not an image's extension): {left_out}."
    note += " --all-files (tpt train, tpt eval) looks inside them."
    assert (made.notes, made.templates) == ((note,), ())


def test_files_without_an_extension_are_looked_into_where_that_is_asked_for() -> None:
    touch("pets/cat/1.png", "pets/cat/notes.txt", "pets/dog/notes")
    png = b"\x89PNG\r\n\x1a\n" + bytes(8)
    for name in ("cat/2", "dog/3.bin", "dog/deep/4"):
        Path("pets", name).parent.mkdir(exist_ok=True)
        Path("pets", name).write_bytes(png)
    options = ReadOptions(layout="folders", all_files=True)
    (made,) = read_sets("pets", options)
    assert truth(made) == {
        "cat/1.png": "cat",
        "cat/2": "cat",
        "dog/3.bin": "dog",
        "dog/deep/4": "dog",
    }
    left_out = [os.path.join("pets", name) for name in ("cat/notes.txt", "dog/notes")]
    assert made.notes == (f"2 files skipped (no picture inside): {', '.join(left_out)}.",)
    learned = read_training_set("pets", all_files=True)
    assert [os.path.relpath(sample.path, "pets") for sample in learned.train] == sorted(truth(made))
    message = message_of("pets", ReadOptions(layout="folders"))
    assert '1 class folder of "pets" holds no pictures: dog' in message
    assert "--all-files (tpt train, tpt eval) looks inside them." in message
    Path("pets/dog/deep/4").unlink()
    (shallow,) = read_sets("pets", ReadOptions(all_files=True))
    assert truth(shallow).keys() == {"cat/1.png", "cat/2", "dog/3.bin"}


def test_what_network_disks_leave_is_no_class_and_no_picture() -> None:
    touch("s/cat/1.jpg", "s/cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "s/@eaDir/cat/THUMB.jpg")
    touch("s/dog/2.jpg", "s/#recycle/dog/3.jpg", "s/@Recycle/4.jpg", "s/__MACOSX/cat/5.jpg")
    touch("s/$RECYCLE.BIN/6.jpg", "s/dog/Thumbs.db", "s/System Volume Information/7.jpg")
    made = read("s")
    assert truth(made) == {"cat/1.jpg": "cat", "dog/2.jpg": "dog"}
    assert made.notes == ()


def test_a_folder_in_one_spelling_is_found_by_the_other() -> None:
    touch("s/cafe\u0301/1.jpg", "s/rock \u2019n\u2019 roll/2.jpg")
    made = read("s", ReadOptions(classes=("caf\u00e9", "rock 'n' roll")))
    assert sorted(truth(made).values()) == ["caf\u00e9", "rock 'n' roll"]
    touch("s/caf\u00e9/3.jpg")
    assert "are one class name" in message_of("s")


@pytest.mark.parametrize("path", ["pets/", "./pets", "pets/../pets", "{here}/pets"])
def test_the_name_is_the_folders_however_it_is_spelt(path: str) -> None:
    touch("pets/cat/1.png", "pets/dog/1.png")
    made = read(path.format(here=os.getcwd()))
    assert made.name == "pets"
    assert made.samples[0].key == "cat/1.png"
    assert os.path.exists(str(made.samples[0].source))


def test_the_name_of_the_current_folder_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("pets/cat/1.png", "pets/dog/1.png")
    monkeypatch.chdir("pets")
    assert read(".").name == "pets"
    assert [made.name for made in read_sets(".", name="mine")] == ["mine"]


def test_linked_folders_are_read() -> None:
    touch("store/1.png", "pets/dog/1.png")
    os.symlink(os.path.abspath("store"), "pets/cat")
    assert sorted(truth(read("pets"))) == ["cat/1.png", "dog/1.png"]


def test_folders_are_renamed_and_left_out_by_convention() -> None:
    touch("c/Faces/1.png", "c/BACKGROUND/1.png", "c/ant/1.png", "c/water_lilly/1.png")
    made = read("c", ReadOptions(rename=str.upper, ignored=frozenset({"BACKGROUND"})))
    assert made.classes == ("FACES", "ANT", "WATER LILLY")
    assert made.ids == ("Faces", "ant", "water_lilly")
    assert made.notes == ("Left out, as no class: BACKGROUND.",)


def test_loose_pictures_are_told() -> None:
    touch("pets/cat/1.png", "pets/dog/1.png", "pets/1.png")
    assert read("pets").notes == (
        '1 picture directly in "pets" belongs to no class and is left out.',
    )
    touch("pets/2.png")
    assert read("pets").notes == (
        '2 pictures directly in "pets" belong to no class and are left out.',
    )


def test_empty_class_folders_are_an_error() -> None:
    touch("pets/cat/1.png", "pets/dog/readme.txt")
    skipped = (
        " 1 file skipped (not an image's extension): pets/dog/readme.txt. --all-files (tpt train, "
        "tpt eval) looks inside them."
    )
    assert message_of("pets") == (
        '1 class folder of "pets" holds no pictures: dog. Add pictures, or remove the folders.'
        + skipped
    )
    for name in ("ant", "bee", "cow"):
        os.mkdir(f"pets/{name}")
    assert message_of("pets") == (
        '4 class folders of "pets" hold no pictures: ant, bee, cow and 1 more. Add pictures, or '
        "remove the folders." + skipped
    )


def test_one_class_is_nothing_to_tell_apart() -> None:
    touch("pets/cat/1.png")
    assert message_of("pets") == (
        '"pets" holds one class only (cat), and there is nothing to tell it from. Name the folder '
        "above the class folders, or list all classes (--classes)."
    )
    assert truth(read("pets", ReadOptions(classes=("dog", "cat")))) == {"cat/1.png": "cat"}


def test_one_class_is_nothing_to_tell_apart_in_a_table_either() -> None:
    touch("cat/1.png")
    with open("pets.csv", "w") as file:
        file.write("path,label\ncat/1.png,cat\n")
    assert '"pets.csv" holds one class only (cat)' in message_of("pets.csv")


@pytest.mark.parametrize(
    ("made", "held"),
    [
        ("cat/1.png", "1 picture and no class folders"),
        ("cat/a.txt", "no pictures"),
    ],
)
def test_a_folder_without_class_folders_is_an_error(made: str, held: str) -> None:
    touch(made)
    assert message_of("cat") == (
        f'The folder "cat" holds {held}: expected one sub-folder a class, named by its class name, '
        "its WordNet id or its ImageNet number. Sort the pictures into such folders, or name "
        "another folder or a CSV file with columns path and label."
    )


def test_a_missing_path_suggests_one_that_is_there() -> None:
    touch("pets/cat/1.png")
    expected = "expected a folder of class folders, a CSV file, a folder of .npy files or of tars."
    assert message_of("pet") == f'There is no "pet": {expected} Did you mean "pets"?'
    assert message_of("zzz") == f'There is no "zzz": {expected} Check the spelling.'
    assert message_of("no/pets") == (
        f'There is no "no/pets": {expected} Its folder "no" cannot be listed either. Check the '
        "path."
    )


def test_a_file_of_another_kind_is_an_error() -> None:
    touch("pets.zip")
    wanted = (
        ": expected a folder of class folders, a CSV file with columns path and label, a folder of "
        ".npy files or of tars. Name one of these."
    )
    assert message_of("pets.zip") == f'"pets.zip" is a file of no known layout{wanted}'
    assert message_of("pets.zip", ReadOptions("domains")) == f'"pets.zip" is a file{wanted}'


def test_an_unknown_layout_lists_the_known_ones() -> None:
    assert message_of("pets", ReadOptions("domain")) == (
        'There is no layout "domain". Did you mean "domains"? Expected one of '
        f"{', '.join(LAYOUTS)}."
    )


def test_a_folder_that_cannot_be_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("pets/cat/1.png", "pets/dog/1.png")
    real = os.scandir

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        if path == "pets/cat":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read everything
    assert message_of("pets") == (
        "The folder 'pets/cat' cannot be read (Permission denied). Give this user the right to "
        "read it, or name other folders."
    )


# --- splits ---


def test_the_test_split_is_read() -> None:
    for split in ("train", "valid", "Test"):
        touch(f"pets/{split}/cat/{split}.png", f"pets/{split}/dog/{split}.png")
    made = read("pets")
    assert made.name == "pets"
    assert truth(made) == {"cat/Test.png": "cat", "dog/Test.png": "dog"}
    assert made.notes == ('Of the splits, "Test" is read, and not train, valid.',)


def test_the_validation_split_is_read_where_there_is_no_other() -> None:
    touch("pets/train/cat/1.png", "pets/val/cat/2.png", "pets/val/dog/2.png")
    made = read("pets")
    assert sorted(truth(made)) == ["cat/2.png", "dog/2.png"]
    assert made.notes == ('Of the splits, "val" is read, and not train.',)


def test_the_training_split_is_read_where_it_is_alone() -> None:
    touch("pets/train/cat/1.png", "pets/train/dog/2.png")
    made = read("pets")
    assert sorted(truth(made)) == ["cat/1.png", "dog/2.png"]
    assert made.notes == ('There is one split, "train", and it is read.',)


def test_a_validation_split_without_class_folders_is_not_replaced_by_training() -> None:
    touch("imagenet/train/n01440764/1.png", "imagenet/val/1.png", "imagenet/val/2.png")
    assert 'The folder "imagenet/val" holds 2 pictures and no class folders' in message_of(
        "imagenet"
    )


def test_splits_beside_other_folders_are_an_error() -> None:
    touch("pets/train/cat/1.png", "pets/test/cat/1.png", "pets/extra/1.png")
    assert message_of("pets") == (
        '"pets" mixes split folders (test, train) with others (extra). Name the split itself '
        '("pets/test"), or take the others away.'
    )


def test_a_class_may_have_a_splits_name() -> None:
    touch("vehicles/train/1.png", "vehicles/test/1.png")
    assert read("vehicles").classes == ("test", "train")
    touch("tracks/train/1.png", "tracks/bus/1.png")
    assert read("tracks").classes == ("bus", "train")


def test_a_lone_images_folder_is_passed_through() -> None:
    touch("food/images/pie/1.png", "food/images/soup/1.png", "food/readme.txt")
    made = read("food")
    assert sorted(truth(made)) == ["pie/1.png", "soup/1.png"]
    assert made.notes == ('The class folders lie in "food/images".',)
