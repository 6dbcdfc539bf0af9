"""Labelled pictures are the same from every layout, and a list that cannot be read says why."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from data.set_files import touch, write
from refusals import refusal

from tpt.data.training_sets import TrainingSet, check_training_set, read_training_set
from tpt.errors import MethodError, PromptError, SourceError

Row = tuple[str, str]  # path, class name


def write_split(path: str, train: list[Any], val: Any = (), test: Any = ()) -> str:
    return write(path, json.dumps({"train": train, "val": val, "test": test}))


def rows(dataset: TrainingSet, split: str) -> list[Row]:
    return [(item.path, dataset.classes[item.label]) for item in getattr(dataset, split)]


def message_of(path: str, **options: Any) -> str:
    return refusal(SourceError, lambda: check_training_set(read_training_set(path, **options)))


# --- folders ---


def test_a_folder_a_class() -> None:
    touch("pets/dog/10.jpg", "pets/dog/9.jpg", "pets/cat/a.png", "pets/cat/more/b.WEBP")
    dataset = read_training_set("pets")
    assert (dataset.name, dataset.layout, dataset.preset) == ("pets", "folder", None)
    assert dataset.classes == ("cat", "dog")
    assert rows(dataset, "train") == [
        ("pets/cat/a.png", "cat"),
        ("pets/cat/more/b.WEBP", "cat"),
        ("pets/dog/9.jpg", "dog"),
        ("pets/dog/10.jpg", "dog"),
    ]
    assert (dataset.val, dataset.test, dataset.notes) == ((), (), ())
    assert check_training_set(dataset) is dataset


@pytest.mark.parametrize("path", ["pets/", "./pets", "pets/../pets", "{here}/pets"])
def test_the_name_is_the_folders_however_it_is_spelt(path: str) -> None:
    touch("pets/cat/1.png", "pets/dog/1.png")
    path = path.format(here=os.getcwd())
    dataset = read_training_set(path)
    assert dataset.name == "pets"
    assert dataset.train[0].path == os.path.join(path, "cat/1.png")


def test_the_current_folder_has_a_name_too(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("pets/cat/1.png", "pets/dog/1.png")
    monkeypatch.chdir("pets")
    assert read_training_set(".").name == "pets"


def test_classes_are_in_the_order_of_sorted_labels() -> None:
    """As the field sorts them: by code point, where pictures are in natural order."""
    touch(*(f"d/{label}/1.png" for label in ["10", "9", "ant", "Zebra", "éland"]))
    assert read_training_set("d").classes == ("10", "9", "Zebra", "ant", "éland")


def test_hidden_and_other_files_are_no_pictures() -> None:
    touch("pets/.git/x.png", "pets/.DS_Store", "pets/._cat.png", "pets/README.txt")
    touch("pets/cat/1.png", "pets/cat/.2.png", "pets/cat/Thumbs.db", "pets/dog/1.png")
    dataset = read_training_set("pets")
    assert rows(dataset, "train") == [("pets/cat/1.png", "cat"), ("pets/dog/1.png", "dog")]
    assert dataset.notes == ()


@pytest.mark.parametrize(
    ("loose", "told"), [(["x.png"], "1 picture directly"), (["x.png", "y.jpg"], "2 pictures dir")]
)
def test_loose_pictures_are_left_out_and_told(loose: list[str], told: str) -> None:
    touch("pets/cat/1.png", "pets/dog/1.png", *(f"pets/{name}" for name in loose))
    dataset = read_training_set("pets")
    assert len(dataset.train) == 2
    (note,) = dataset.notes
    assert note.startswith(told)
    verbs = "belongs to no class and is" if len(loose) == 1 else "belong to no class and are"
    assert note.endswith(f'"pets" {verbs} left out.')


def test_loose_pictures_beside_the_split_folders_are_told_too() -> None:
    touch("d/train/cat/1.png", "d/train/dog/1.png", "d/x.png")
    assert read_training_set("d").notes[1:] == (
        '1 picture directly in "d" belongs to no class and is left out.',
    )


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("Training", "Testing")])
def test_split_folders_as_archives_spell_them(train: str, test: str) -> None:
    """They would be taken for two classes, in silence."""
    touch(f"d/{train}/cat/1.png", f"d/{train}/dog/1.png", f"d/{test}/cat/2.png")
    dataset = read_training_set("d")
    assert dataset.classes == ("cat", "dog")
    assert rows(dataset, "test") == [(f"d/{test}/cat/2.png", "cat")]


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_train_val_and_test_folders(val: str) -> None:
    touch("d/train/cat/1.png", "d/train/dog/1.png", f"d/{val}/cat/2.png", "d/test/dog/3.png")
    touch("d/README.txt", "d/.cache/x.png")
    dataset = check_training_set(read_training_set("d"))
    assert dataset.classes == ("cat", "dog")
    assert rows(dataset, "train") == [("d/train/cat/1.png", "cat"), ("d/train/dog/1.png", "dog")]
    assert rows(dataset, "val") == [(f"d/{val}/cat/2.png", "cat")]
    assert rows(dataset, "test") == [("d/test/dog/3.png", "dog")]
    assert dataset.notes == (f"Splits: test, train, {val}.",)


def test_a_train_folder_alone_holds_the_classes() -> None:
    touch("d/train/cat/1.png", "d/train/dog/1.png")
    dataset = read_training_set("d")
    assert dataset.classes == ("cat", "dog")
    assert dataset.test == ()


def test_a_val_folder_without_a_test_folder_is_the_test_set() -> None:
    """As ImageNet is used everywhere."""
    touch("d/train/cat/1.png", "d/train/dog/1.png", "d/val/cat/2.png", "d/val/dog/2.png")
    dataset = read_training_set("d")
    assert rows(dataset, "test") == [("d/val/cat/2.png", "cat"), ("d/val/dog/2.png", "dog")]
    assert dataset.val == ()
    assert "the validation folder is the test set" in dataset.notes[-1]


def test_a_class_called_train_beside_others_is_a_class() -> None:
    touch("vehicles/bus/1.png", "vehicles/train/1.png", "vehicles/train/2.png")
    dataset = read_training_set("vehicles")
    assert dataset.classes == ("bus", "train")
    assert [item.label for item in dataset.train] == [0, 1, 1]


def test_a_loose_picture_in_a_split_is_told_too() -> None:
    touch("d/train/cat/1.png", "d/train/dog/1.png", "d/test/cat/1.png", "d/test/x.png")
    assert any(
        note.startswith('1 picture directly in "d/test"') for note in read_training_set("d").notes
    )


@pytest.mark.parametrize("split", ["", "train", "test"])
def test_empty_class_folders_are_named(split: str) -> None:
    touch("d/train/cat/1.png", "d/test/cat/1.png", "d/cat/1.png" if not split else "d/README.txt")
    folder = os.path.join("d", split) if split else "d"
    touch(os.path.join(folder, "newt/notes.txt"), os.path.join(folder, "eel/.1.png"))
    assert message_of("d") == (
        f'2 class folders of "{folder}" hold no pictures: eel, newt. Add pictures, or remove the '
        f"folders. 1 file skipped (not an image's extension): {folder}/newt/notes.txt. "
        "--all-files (tpt train, tpt eval) looks inside them."
    )


def test_one_empty_class_folder_and_many() -> None:
    touch("d/cat/1.png", "d/dog/1.png")
    os.mkdir("d/elk")
    assert '1 class folder of "d" holds no pictures: elk. Add' in message_of("d")
    for name in ["fox", "gnu", "hen", "ibis"]:
        os.mkdir(f"d/{name}")
    assert '5 class folders of "d" hold no pictures: elk, fox, gnu and 2 more.' in message_of("d")


def test_one_class_is_nothing_to_tell_apart() -> None:
    touch("d/cat/1.png")
    message = message_of("d")
    assert message.startswith('"d" holds 1 class (cat); expected at least two.')
    assert message.endswith("name the folder above the class folders.")


def test_a_folder_of_pictures_has_no_classes() -> None:
    touch("d/1.png", "d/2.png")
    message = message_of("d")
    assert 'The folder "d" has no sub-folders, but 2 pictures. Expected one sub-folder a' in message
    touch("f/1.png")
    assert 'The folder "f" has no sub-folders, but 1 picture. Expected' in message_of("f")
    touch("e/README.txt")
    assert 'The folder "e" has no sub-folders. Expected one sub-folder a class' in message_of("e")


def test_a_class_with_test_pictures_only_cannot_be_learned() -> None:
    touch("d/train/cat/1.png", "d/train/dog/1.png", "d/test/cat/2.png", "d/test/yak/1.png")
    message = message_of("d")
    assert message.startswith('1 of the 3 classes of "d" have no training picture: yak. Add')


def test_a_path_that_leads_nowhere() -> None:
    assert message_of("pets").startswith('There is no "pets". Expected a folder with one sub-f')
    assert 'There is no "pets.csv".' in message_of("pets.csv")
    write("pets.txt", "a.png cat\n")
    assert '"pets.txt" is neither a folder nor a .csv nor a .json file.' in message_of("pets.txt")


# --- CSV ---


def test_a_csv_file_without_splits() -> None:
    path = write("lists/pets.csv", "path,label\nb.png,dog\nsub/a.png,cat\n/far/c.png,dog\n")
    dataset = check_training_set(read_training_set(path))
    assert (dataset.name, dataset.layout, dataset.classes) == ("pets.csv", "csv", ("cat", "dog"))
    assert rows(dataset, "train") == [
        ("lists/b.png", "dog"),
        ("lists/sub/a.png", "cat"),
        ("/far/c.png", "dog"),
    ]
    assert (dataset.val, dataset.test) == ((), ())


def test_a_csv_file_in_the_current_folder() -> None:
    write("pets.csv", "path,label\na.png,cat\n")
    assert read_training_set("pets.csv").train[0].path == "a.png"


def test_a_csv_file_with_splits() -> None:
    lines = [
        *("label,split,path", "cat,train,1.png", "cat, ,2.png", "dog,TRAIN ,3.png"),
        *("cat,val,4.png", "cat,valid,5.png", "dog,Validation,6.png", "dog,test,7.png"),
    ]
    dataset = read_training_set(write("pets.csv", "\n".join(lines)))
    assert rows(dataset, "train") == [("1.png", "cat"), ("2.png", "cat"), ("3.png", "dog")]
    assert rows(dataset, "val") == [("4.png", "cat"), ("5.png", "cat"), ("6.png", "dog")]
    assert rows(dataset, "test") == [("7.png", "dog")]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffpath,label\na b.png,tabby cat\n",  # as spreadsheets save it
        "path,label\r\na b.png,tabby cat\r\n",
        " Path , LABEL \n a b.png , tabby cat \n",
        'path,label\n"a b.png","tabby cat"',
        "path,label\n\na b.png,tabby cat\n\n\n",
        "width,path,label,note\n640,a b.png,tabby cat,nice\n",
    ],
)
def test_csv_as_programs_write_it(text: str) -> None:
    assert rows(read_training_set(write("pets.CSV", text)), "train") == [("a b.png", "tabby cat")]


def test_csv_keeps_commas_and_quotes_of_names() -> None:
    write("d.csv", 'path,label\n"a,b.png","say ""x"", cat\'s"\n猫.png,naïve 猫\n')
    assert rows(read_training_set("d.csv"), "train") == [
        ("a,b.png", 'say "x", cat\'s'),
        ("猫.png", "naïve 猫"),
    ]


COLUMNS = 'The CSV file "pets.csv" has the columns '
START = "path,label,split\na.png,cat,train\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,label\na.png,cat\n", f"{COLUMNS}file, label; expected a first line that names path"),
        ("path,class\na.png,cat\n", f"{COLUMNS}path, class; expected"),
        ("path;label\na.png;cat\n", f"{COLUMNS}path;label; expected"),
        ("a.png,cat\nb.png,dog\n", f"{COLUMNS}a.png, cat; expected"),
        ("", f"{COLUMNS}none; expected"),
        (
            "path,label,label\na.png,cat,dog\n",
            f"{COLUMNS}path, label, label; expected a first line that names path and label (and, "
            "if wanted, split), each once.",
        ),
        (f"{START}b.png,,train\n", 'Line 3 of "pets.csv" has no label. Complete or remove it.'),
        (f"{START}b.png,  ,train\n", 'Line 3 of "pets.csv" has no label. Complete or remove it.'),
        (f"{START},dog,train\n", 'Line 3 of "pets.csv" has no path. Complete or remove it.'),
        (f"{START}b.png\n", 'Line 3 of "pets.csv" has no label. Complete or remove it.'),
        (
            f"{START}b.png,dog,dev\n",
            "Line 3 of \"pets.csv\" has the split 'dev': expected train, val or test. Correct it.",
        ),
        (  # a line is named by its place in the file
            'path,label,note\n\na.png,cat,"two\nlines"\n\nc.png,,\n',
            'Line 6 of "pets.csv" has no label. Complete or remove it.',
        ),
        (  # its label would be a part of the path
            "path,label\nb.png,dog,\na,1.png,cat\n",
            'Line 3 of "pets.csv" has more fields than the first line names columns (path, label). '
            "Write a path or a label with a comma in double quotes.",
        ),
        ("path,label,split\n", 'The CSV file "pets.csv" lists no pictures. Add some lines.'),
        (
            "path,label,split\na.png,cat,test\n",
            'The CSV file "pets.csv" lists no training picture. Add some lines.',
        ),
        (
            'path,label\n"a.png,cat\nb.png,dog\n',
            'The CSV file "pets.csv" cannot be read (unexpected end of data). Expected UTF-8 text '
            "with columns path and label.",
        ),
    ],
)
def test_a_csv_file_that_cannot_be_meant(text: str, told: str) -> None:
    assert message_of(write("pets.csv", text)).startswith(told)


def test_a_csv_column_that_training_does_not_know_may_be_empty() -> None:
    write("pets.csv", "path,label,domain\na.png,cat,\nb.png,dog,sketch\n")
    assert rows(read_training_set("pets.csv"), "train") == [("a.png", "cat"), ("b.png", "dog")]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_csv_that_is_not_utf8(encoding: str) -> None:
    message = message_of(write("pets.csv", "path,label\nchaton é.png,cat\n".encode(encoding)))
    assert message.startswith('The CSV file "pets.csv" cannot be read (')
    assert message.endswith("Expected UTF-8 text with columns path and label.")


def test_one_class_in_a_csv() -> None:
    assert '"pets.csv" holds 1 class (cat)' in message_of(write("pets.csv", "path,label\na,cat\n"))


# --- split_zhou_*.json ---


def test_a_split_file() -> None:
    touch("d/cat/1.jpg")
    train = [["cat/1.jpg", 7, "tabby cat"], ["dog/1.jpg", 2, "dog"], ["cat/2.jpg", 7, "tabby cat"]]
    path = write_split("d/mine.json", train, [["dog/2.jpg", 2, "dog"]], [["eel.jpg", 4, "eel"]])
    dataset = read_training_set(path)
    assert (dataset.name, dataset.layout, dataset.preset) == ("mine", "split", None)
    assert dataset.classes == ("dog", "eel", "tabby cat")  # by label number, not by name
    assert rows(dataset, "train") == [
        ("d/cat/1.jpg", "tabby cat"),
        ("d/dog/1.jpg", "dog"),
        ("d/cat/2.jpg", "tabby cat"),
    ]
    assert rows(dataset, "val") == [("d/dog/2.jpg", "dog")]
    assert rows(dataset, "test") == [("d/eel.jpg", "eel")]


def test_label_numbers_are_sorted_as_numbers() -> None:
    touch("1.jpg")
    path = write_split("mine.json", [["1.jpg", 10, "ten"], ["2.jpg", 9, "nine"]])
    assert read_training_set(path).classes == ("nine", "ten")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("split_zhou_Caltech101.json", ""),
        ("split_zhou_Caltech101.json", "101_ObjectCategories"),
        ("split_zhou_Caltech101.json", "renamed"),
        ("mine.json", "pictures"),
    ],
)
@pytest.mark.parametrize("base", ["", "data", "{here}/data"])
def test_pictures_are_found_beside_the_split_file(base: str, name: str, folder: str) -> None:
    base = base.format(here=os.getcwd())
    root = os.path.join(base, folder)
    touch(os.path.join(base, "other", "x.jpg"), os.path.join(root, "cat/1.jpg"))
    path = write_split(os.path.join(base, name), [["cat/1.jpg", 0, "cat"], ["dog/1.jpg", 1, "dog"]])
    paths = [item.path for item in read_training_set(path).train]
    assert paths == [os.path.join(root, "cat/1.jpg"), os.path.join(root, "dog/1.jpg")]


def test_the_presets_own_folder_is_looked_in_first() -> None:
    touch("101_ObjectCategories_small/cat/1.jpg", "101_ObjectCategories/cat/1.jpg", "1/cat/1.jpg")
    path = write_split("split_zhou_Caltech101.json", [["cat/1.jpg", 0, "cat"]])
    assert read_training_set(path).train[0].path == "101_ObjectCategories/cat/1.jpg"


def test_a_few_missing_pictures_do_not_hide_the_folder() -> None:
    """They become errors where they are encoded, each under its own name."""
    touch("jpg/3.jpg")
    path = write_split("mine.json", [[f"{n}.jpg", n % 2, f"class {n % 2}"] for n in range(6)])
    assert read_training_set(path).train[0].path == "jpg/0.jpg"


def test_pictures_that_are_nowhere() -> None:
    train = [["cat/1.jpg", 0, "cat"], ["dog/1.jpg", 1, "dog"]]
    message = message_of(write_split("d/mine.json", train))
    assert message == (
        'The pictures that "d/mine.json" lists were not found ("cat/1.jpg", for example). '
        "Expected them beside the split file or in a folder there."
    )
    message = message_of(write_split("d/split_zhou_EuroSAT.json", train))
    assert message.endswith('or in a folder there, by convention "2750".')


def test_a_split_file_of_no_pictures() -> None:
    assert 'The split file "mine.json" lists no pictures.' in message_of(
        write_split("mine.json", [])
    )


def test_two_names_for_one_label() -> None:
    touch("1.jpg")
    path = write_split("mine.json", [["1.jpg", 0, "cat"]], [], [["2.jpg", 0, "tabby"]])
    assert message_of(path) == (
        '"mine.json" gives label 0 two names, "cat" and "tabby". Expected one name a label.'
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"train": [], "val": []}',
        '{"train": 3, "val": [], "test": []}',
        '{"train": [["1.jpg", 0]], "val": [], "test": []}',
        '{"train": [["1.jpg", "cat", 0]], "val": [], "test": []}',
        '{"train": [["1.jpg", null, "cat"]], "val": [], "test": []}',
        '{"train": [["1.jpg", Infinity, "cat"]], "val": [], "test": []}',
        '{"train": ' + "[" * 100_000,
    ],
)
def test_malformed_split_files(text: str) -> None:
    message = message_of(write("mine.json", text))
    assert message.startswith('"mine.json" is not a split file (')
    assert 'Expected {"train": [[path, label number, class name], ...], "val":' in message


def test_a_split_file_that_is_not_utf8() -> None:
    text = '{"train": [["é.jpg", 0, "cat"]], "val": [], "test": []}'
    path = write("mine.json", text.encode("latin-1"))
    assert '"mine.json" is not a split file (UnicodeDecodeError' in message_of(path)


# --- classes as the user wants them ---


def make_pets() -> None:
    touch("pets/cat/1.png", "pets/dog/1.png", "pets/golden_retriever/1.png")


def test_classes_give_the_order() -> None:
    make_pets()
    touch("pets/cat/2.png")
    dataset = read_training_set("pets", classes=["golden retriever", "Dog", "cat"])
    assert dataset.classes == ("golden retriever", "Dog", "cat")
    assert rows(dataset, "train") == [
        ("pets/cat/1.png", "cat"),
        ("pets/cat/2.png", "cat"),
        ("pets/dog/1.png", "Dog"),
        ("pets/golden_retriever/1.png", "golden retriever"),
    ]


def test_classes_move_every_split_and_keep_what_was_told() -> None:
    touch("d/train/a/1.png", "d/train/b/1.png", "d/val/b/2.png", "d/test/a/3.png")
    plain, moved = read_training_set("d"), read_training_set("d", classes=["b", "a"])
    assert moved.classes == ("b", "a")
    for split in ("train", "val", "test"):
        assert rows(moved, split) == rows(plain, split)
    assert (moved.name, moved.layout, moved.notes) == (plain.name, plain.layout, plain.notes)


def test_labels_missing_in_classes_are_named() -> None:
    make_pets()
    message = message_of("pets", classes=["cat", "dog"])
    assert message.startswith(
        '1 of the 3 labels of "pets" fits none of the 2 classes given: golden_retriever.'
    )
    message = message_of("pets", classes=["kitten", "dog", "golden retriver", "cat"])
    assert 'golden_retriever (did you mean "golden retriver"?). Say which class each is' in message


def test_label_and_name_entries() -> None:
    touch("d/n02/1.png", "d/n01/1.png", "d/newt/1.png")
    dataset = read_training_set("d", classes=["n02 = tench", "newt", "n01=great white shark"])
    assert dataset.classes == ("tench", "newt", "great white shark")
    assert dict(rows(dataset, "train")) == {
        "d/n01/1.png": "great white shark",
        "d/n02/1.png": "tench",
        "d/newt/1.png": "newt",
    }


def test_labels_and_names_may_swap() -> None:
    touch("d/cat/1.png", "d/dog/1.png")
    dataset = read_training_set("d", classes=["cat=dog", "dog=cat"])
    assert rows(dataset, "train") == [("d/cat/1.png", "dog"), ("d/dog/1.png", "cat")]


@pytest.mark.parametrize("names", [("polish", "Polish"), ("caf\u00e9", "cafe\u0301")])
def test_two_spellings_of_one_name_are_not_two_classes(names: tuple[str, str]) -> None:
    touch(*(f"d/{name}/1.png" for name in names))
    assert 'in "d" are one class name' in message_of("d")
    assert "twice" in message_of("d", classes=names)


def test_a_list_of_classes_is_one_and_in_order() -> None:
    make_pets()
    for classes in ({"cat", "dog"}, "cat,dog", [1, 2], ["cat", None]):
        with pytest.raises(PromptError, match=r"expected (as a list|text)"):
            read_training_set("pets", classes=classes)


def test_numbers_of_one_name_in_a_split_file_are_not_two_classes() -> None:
    touch("1.jpg")
    message = message_of(write_split("mine.json", [["1.jpg", 0, "cat"], ["2.jpg", 1, "cat"]]))
    assert 'gives the labels 0 and 1 one name, "cat". Expected one label a name.' in message


def test_a_split_file_made_on_windows() -> None:
    touch("pics/1.jpg")
    path = write_split("mine.json", [["pics\\1.jpg", 0, "cat"], ["pics\\2.jpg", 1, "dog"]])
    assert dict(rows(read_training_set(path), "train"))["pics/1.jpg"] == "cat"


def test_a_label_may_hold_an_equals_sign() -> None:
    touch("d/a=b/1.png", "d/c/1.png")
    assert read_training_set("d", classes=["c", "a=b=first"]).classes == ("c", "first")


def test_two_labels_of_one_name_are_one_class() -> None:
    touch("d/tabby/1.png", "d/siamese/1.png", "d/pug/1.png")
    dataset = check_training_set(
        read_training_set("d", classes=["siamese=cat", "pug=dog", "tabby=cat"])
    )
    assert dataset.classes == ("cat", "dog")
    assert rows(dataset, "train") == [
        ("d/pug/1.png", "dog"),
        ("d/siamese/1.png", "cat"),
        ("d/tabby/1.png", "cat"),
    ]


def test_a_class_without_pictures_is_not_learned() -> None:
    make_pets()
    message = message_of("pets", classes=["cat", "dog", "golden retriever", "newt"])
    assert message.startswith('1 of the 4 classes of "pets" have no training picture: newt.')


def test_classes_of_a_csv_and_of_a_split_file() -> None:
    touch("1.jpg")
    csv = write("d.csv", "path,label\n1.jpg,0\n2.jpg,1\n")
    assert read_training_set(csv, classes=["1=one", "0=zero"]).classes == ("one", "zero")
    split = write_split("mine.json", [["1.jpg", 0, "cat"], ["2.jpg", 1, "dog"]])
    dataset = read_training_set(split, classes=["dog", "cat=kitten"])
    assert rows(dataset, "train") == [("1.jpg", "kitten"), ("2.jpg", "dog")]


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("Annual Crop Land", "Annual Crop Land"),  # as the preset calls it
        ("AnnualCrop", "AnnualCrop"),  # as the folder is called
        ("AnnualCrop=fields", "fields"),
        ("annual crop land=fields", "fields"),
    ],
)
def test_classes_of_a_preset_are_found_by_name_and_by_label(entry: str, name: str) -> None:
    touch("d/AnnualCrop/1.png", "d/River/2.png")
    dataset = read_training_set("d", preset="eurosat", classes=["River", entry])
    assert rows(dataset, "train") == [("d/AnnualCrop/1.png", name), ("d/River/2.png", "River")]


def test_classes_name_labels_before_a_preset_does() -> None:
    """A part of ImageNet fits no list of 1,000 names; names that are given do."""
    touch("d/n01440764/1.png", "d/n01443537/1.png")
    classes = ["n01440764=tench", "n01443537=goldfish"]
    dataset = read_training_set("d", preset="imagenet", classes=classes)
    assert dataset.classes == ("tench", "goldfish")


def test_an_unknown_preset_is_refused_before_anything_is_read() -> None:
    with pytest.raises(MethodError, match='Unknown preset "petz"'):
        read_training_set("nowhere", preset="petz")


def test_labels_that_are_numbers_are_in_the_order_of_numbers() -> None:
    lines = [f"{label}.png,{label}" for label in (10, 9, 100, 0)]
    path = write("labels.csv", "path,label\n" + "\n".join(lines))
    assert read_training_set(path).classes == ("0", "9", "10", "100")
