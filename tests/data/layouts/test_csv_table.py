"""A CSV file's pictures have the labels it gives them, and a line that cannot be meant is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from data.set_files import rows, touch, write
from refusals import refusal

from tpt.data.labelled_sets import LabelledSet, ReadOptions
from tpt.data.layouts import csv_table
from tpt.errors import SourceError

PLAIN = ReadOptions()


def write_list(text: str, path: str = "data/list.csv", encoding: str = "utf-8") -> str:
    """The file, and beside it the first picture that the tests list, empty."""
    touch(*(str(Path(path).parent / name) for name in ("a.png", "b.png", "c.png")))
    return write(path, text.encode(encoding))


def read_one(text: str, options: ReadOptions = PLAIN) -> LabelledSet:
    (one,) = csv_table.read(write_list(text), "set", options)
    return one


def message_of(text: str, options: ReadOptions = PLAIN, encoding: str = "utf-8") -> str:
    return refusal(SourceError, csv_table.read, write_list(text, encoding=encoding), "set", options)


def test_paths_and_labels() -> None:
    one = read_one('\ufeffLabel, PATH\nsea_lion,b.png\ncat,"x, y/a.png"\nsea_lion,c.png\n')
    assert one.classes == ("cat", "sea lion")
    assert one.ids == ("cat", "sea_lion")
    assert rows(one) == [("b.png", "sea lion"), ("x, y/a.png", "cat"), ("c.png", "sea lion")]
    assert [sample.source for sample in one.samples][1] == "data/x, y/a.png"
    assert (one.name, one.path, one.layout, one.family) == ("set", "data/list.csv", "CSV", None)
    assert one.notes == ()


def test_only_csv_files_match() -> None:
    Path("folder.csv").mkdir()
    assert csv_table.matches(write_list("path,label\n"))
    assert not any(csv_table.matches(path) for path in ("folder.csv", "data", "missing.csv"))


def test_wordnet_ids_are_named_by_id_and_never_by_position() -> None:
    one = read_one("path,label\na.png,n02123045\nb.png,n01443537\n")
    assert one.ids == ("n01443537", "n02123045")
    assert rows(one) == [("a.png", "tabby cat"), ("b.png", "goldfish")]
    assert (one.family, one.layout) == ("imagenet", "CSV by WordNet id")


def test_wordnet_ids_merged_to_classes_of_ones_own_are_no_longer_imagenets() -> None:
    options = ReadOptions(classes=("n02123045=animal", "n01443537=animal"))
    one = read_one("path,label\na.png,n02123045\nb.png,n01443537\n", options)
    assert rows(one) == [("a.png", "animal"), ("b.png", "animal")]
    assert one.family is None


def test_wordnet_ids_that_imagenet_lacks() -> None:
    message = message_of("path,label\na.png,n02123045\nb.png,n00000001\n")
    assert '1 of the 2 labels of "data/list.csv" is no WordNet id of ImageNet' in message
    assert "n00000001 (line 3)" in message
    assert "--classes" in message


def test_wordnet_ids_among_names() -> None:
    message = message_of("path,label\na.png,n02123045\nb.png,dog\nc.png,cat\n")
    assert "2 of the 3 labels" in message
    assert "cat (line 4), dog (line 3)" in message


def test_a_list_of_classes_names_ids_of_any_kind() -> None:
    options = ReadOptions(classes=("dog", "7=cat", "n00000001=fox", "owl"))
    one = read_one("path,label\na.png,7\nb.png,DOG\nc.png,n00000001\n", options)
    assert one.classes == ("dog", "cat", "fox", "owl")
    assert rows(one) == [("a.png", "cat"), ("b.png", "dog"), ("c.png", "fox")]
    assert one.notes == ("1 of the 4 classes has no pictures here: owl.",)


def test_a_label_that_the_list_of_classes_lacks() -> None:
    message = message_of("path,label\na.png,cta\nb.png,dog\n", ReadOptions(classes=("cat", "dog")))
    assert 'cta (did you mean "cat"?)' in message


def test_labels_are_renamed_as_a_preset_says() -> None:
    options = ReadOptions(rename={"airplanes": "airplane"}.get)  # type: ignore[arg-type]
    assert read_one("path,label\na.png,airplanes\n", options).classes == ("airplane",)


def test_numbers_as_labels_stand_in_their_order_and_are_told() -> None:
    one = read_one("path,label\na.png,10\nb.png,9\n")
    assert one.classes == ("9", "10")
    assert "The labels are numbers and stand as class names" in one.notes[0]


@pytest.mark.parametrize(
    ("splits", "kept", "note"),
    [
        (("Training", "val", "Test"), ["c.png"], "Of 3 lines the 1 of split test are read."),
        (("train", "validation", ""), ["b.png"], "Of 3 lines the 1 of split val are read."),
        (
            ("train", "", "train"),
            ["a.png", "b.png", "c.png"],
            "No line is of split test or val, so all are read.",
        ),
    ],
)
def test_test_is_read_rather_than_val_rather_than_all(
    splits: tuple[str, str, str], kept: list[str], note: str
) -> None:
    lines = [f"{name}.png,cat,{split}\n" for name, split in zip("abc", splits, strict=True)]
    one = read_one("path,label,split\n" + "".join(lines))
    assert [sample.key for sample in one.samples] == kept
    assert one.notes == (note,)


def test_a_domain_is_a_set_and_all_share_their_classes() -> None:
    text = "path,label,domain\na.png,cat,photo\nb.png,dog,sketch\nc.png,cat,sketch\n"
    photo, sketch = csv_table.read(write_list(text), "pets", PLAIN)
    assert (photo.name, photo.domain) == ("pets/photo", "photo")
    assert (sketch.name, sketch.domain) == ("pets/sketch", "sketch")
    assert photo.classes == sketch.classes == ("cat", "dog")
    assert rows(photo) == [("a.png", "cat")]
    assert rows(sketch) == [("b.png", "dog"), ("c.png", "cat")]
    assert photo.notes == ("1 of the 2 classes has no pictures here: dog.",)


def test_columns_that_mean_nothing_here_are_told() -> None:
    one = read_one("path,label,severity,width\na.png,cat,3,20\n")
    assert one.notes == ("Columns that are not used: severity, width.",)


def test_a_picture_listed_twice_is_kept_once_and_told() -> None:
    one = read_one("path,label\na.png,cat\nb.png,cat\n./a.png,cat\n")
    assert [sample.key for sample in one.samples] == ["a.png", "b.png"]
    assert one.notes == ("1 line repeats a picture with the same label and is left out: ./a.png.",)


def test_a_picture_with_two_labels_names_both_lines() -> None:
    message = message_of("path,label\na.png,cat\nb.png,cat\na.png,dog\n")
    assert 'Lines 2 and 4 of "data/list.csv" give "a.png" two labels, "cat" and "dog"' in message


def test_a_picture_of_two_domains_belongs_to_both() -> None:
    text = "path,label,domain\na.png,cat,photo\na.png,cat,art\n"
    assert [len(one.samples) for one in csv_table.read(write_list(text), "pets", PLAIN)] == [1, 1]


def test_back_slashes_of_another_system_are_read() -> None:
    one = read_one("path,label\na.png,cat\nmore\\d.png,cat\n")
    assert (one.samples[1].key, one.samples[1].source) == ("more/d.png", "data/more/d.png")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "has the columns none; expected a first line that names path and label"),
        ("file,class\na.png,cat\n", "has the columns file, class"),
        ("path,label,path\na.png,cat,b.png\n", "has the columns path, label, path"),
        ("path,label\n", "lists no pictures"),
        ("path,label\na.png,cat\n,cat\n", 'Line 3 of "data/list.csv" has no path'),
        ("path,label\na.png\n", 'Line 2 of "data/list.csv" has no label'),
        ("path,label,domain\na.png,cat,\n", 'Line 2 of "data/list.csv" has no domain'),
        ("path,label\nx, y.png,cat\n", "has more fields than the first line names columns"),
        ("path,label,split\na.png,cat,dev\n", "has the split 'dev': expected train, val or test"),
        ('path,label\n"a.png,cat\nb.png",dog\n', "The path that ends in line 3 of"),
        ('path,label\n"a.png,cat\n', "cannot be read (unexpected end of data)"),
    ],
)
def test_a_file_that_cannot_be_meant(text: str, what: str) -> None:
    assert what in message_of(text)


def test_a_file_of_another_encoding() -> None:
    assert "Expected UTF-8 text" in message_of("path,label\na.png,cat\n", encoding="utf-16")


def test_pictures_that_are_all_elsewhere() -> None:
    message = message_of("path,label\nimages/d.png,cat\nimages/e.png,dog\n")
    assert '"images/d.png" in line 2, for example' in message
    assert 'relative to "data"' in message


# --- by hand, and by other programs ---


def test_quotes_behind_a_blank_are_quotes() -> None:
    one = read_one('path, label\na.png, cat\n"b.png", "cup, small"\n')
    assert one.classes == ("cat", "cup, small")


@pytest.mark.parametrize("label", ["'cup'", "\u201ccup\u201d", '"""cup"""', "`cup`"])
def test_a_label_in_other_quotes_is_refused(label: str) -> None:
    message = message_of(f"path,label\na.png,cat\nb.png,{label}\n")
    assert message.startswith('Line 3 of "data/list.csv" has the label ')
    assert "in quotes. Remove them" in message


def test_a_column_without_a_name_is_told_as_one() -> None:
    one = read_one(",path,label\n0,a.png,cat\n1,b.png,cup\n")
    assert one.notes == ("Columns that are not used: one without a name.",)


def test_labels_that_are_missing_are_told() -> None:
    (note,) = read_one("path,label\na.png,nan\nb.png,cup\n").notes
    assert note.startswith("1 class name is what programs write where a label is missing")
