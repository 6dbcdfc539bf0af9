"""Pictures in webdataset tars keep their labels, and nothing of an archive is lost in silence."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from data.set_files import rows, touch, write
from PIL import Image
from refusals import refusal

from tpt.data.imagenet import imagenet_ids, imagenet_names
from tpt.data.labelled_sets import LabelledSet, ReadOptions, TarMember, open_source
from tpt.data.layouts import webdataset_tars
from tpt.errors import ImageError, SourceError
from tpt.images.decode import decode_image

PLAIN = ReadOptions()
TEMPLATES = webdataset_tars.TEMPLATES


def picture(grey: int, form: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (4, 3), (grey, grey, grey)).save(data, form)
    return data.getvalue()


def pack(path: str, members: Mapping[str, bytes | str]) -> str:
    touch(path)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def pack_labels(path: str, *labels: int, first: int = 0) -> str:
    """An archive with one picture a label; the picture's grey is its number in the name."""
    members: dict[str, bytes | str] = {}
    for number, label in enumerate(labels, start=first):
        members[f"s{number:07d}.cls"] = str(label)
        members[f"s{number:07d}.png"] = picture(number)
    return pack(path, members)


def make_set(folder: str = "wds") -> str:
    """Two archives of a test split, as the benchmark writes them."""
    write(f"{folder}/classnames.txt", "cat\ndog\nsea lion\n")
    write(f"{folder}/zeroshot_classification_templates.txt", "a photo of a {c}.\n{c}, a sketch\n")
    write(f"{folder}/test/nshards.txt", "2\n")
    pack_labels(f"{folder}/test/0.tar", 2, 0)
    pack_labels(f"{folder}/test/1.tar", 1, first=2)
    return folder


def read_one(path: str, options: ReadOptions = PLAIN) -> LabelledSet:
    (one,) = webdataset_tars.read(path, "set", options)
    return one


def message_of(path: str, options: ReadOptions = PLAIN) -> str:
    return refusal(SourceError, webdataset_tars.read, path, "set", options)


# --- the layout ---


def test_the_benchmarks_layout() -> None:
    path = make_set()
    assert webdataset_tars.matches(path)
    one = read_one(path)
    assert rows(one) == [
        ("0.tar/s0000000", "sea lion"),
        ("0.tar/s0000001", "cat"),
        ("1.tar/s0000002", "dog"),
    ]
    assert one.classes == ("cat", "dog", "sea lion")
    assert one.ids == ("0", "1", "2")
    assert one.templates == ("a photo of a {}.", "{}, a sketch")
    assert (one.name, one.path, one.layout, one.family) == ("set", "wds", "webdataset tars", None)
    assert one.notes == ('The archives of "test" are read.',)


def test_each_member_is_opened_by_itself() -> None:
    one = read_one(make_set())
    for number in (2, 0, 1):
        pixels = decode_image(open_source(one.samples[number].source))
        assert np.array_equal(pixels, np.full((3, 4, 3), number))


@pytest.mark.parametrize(
    "path", ["wds", "wds/", "wds/test", "wds/test/", "wds/test/0.tar", "./wds/test/../test"]
)
def test_the_set_by_its_folder_its_split_or_an_archive(path: str) -> None:
    make_set()
    assert webdataset_tars.matches(path)
    one = read_one(path)
    assert rows(one)[:2] == [("0.tar/s0000000", "sea lion"), ("0.tar/s0000001", "cat")]
    assert len(one.samples) == (2 if path.endswith("0.tar") else 3)


@pytest.mark.parametrize("path", [".", "0.tar"])
def test_the_split_from_within(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_set()
    monkeypatch.chdir("wds/test")
    assert read_one(path).classes == ("cat", "dog", "sea lion")


def test_archives_beside_the_class_names() -> None:
    write("flat/classnames.txt", "cat\r\ndog\r\n")
    pack_labels("flat/shard-2.tar", 1)
    pack_labels("flat/shard-10.tar", 0)
    assert webdataset_tars.matches("flat")
    one = read_one("flat")
    assert rows(one) == [("shard-2.tar/s0000000", "dog"), ("shard-10.tar/s0000000", "cat")]
    assert (one.templates, one.notes) == ((), ())


@pytest.mark.parametrize(
    ("splits", "read"),
    [
        (("train", "val", "test"), "test"),
        (("train", "Validation"), "Validation"),
        (("train",), "train"),
    ],
)
def test_test_is_read_rather_than_val_rather_than_train(splits: list[str], read: str) -> None:
    write("wds/classnames.txt", "cat\ndog\n")
    for split in splits:
        pack_labels(f"wds/{split}/0.tar", int(split == read))
    one = read_one("wds")
    assert rows(one) == [("0.tar/s0000000", "dog")]
    assert one.notes[0].startswith(f'The archives of "{read}" are read')
    for split in splits:
        assert split in one.notes[0]


def test_an_archive_beside_class_folders_is_no_set() -> None:
    pack_labels("imagenet-a/imagenet-a.tar", 0)
    Path("imagenet-a/n01440764").mkdir()
    pack_labels("split/test/all.tar", 0)
    Path("split/test/n01440764").mkdir()
    Path("empty").mkdir()
    assert not any(
        webdataset_tars.matches(path) for path in ("imagenet-a", "split", "empty", "missing.tar")
    )
    assert 'The folder "empty" holds no tar archives' in message_of("empty")


def test_archives_beside_other_folders_are_read_if_they_are_said_to_be_tars() -> None:
    pack_labels("wds/0.tar", 1)
    Path("wds/logs").mkdir()
    assert not webdataset_tars.matches("wds")
    one = read_one("wds", ReadOptions(layout="tars", classes=("cat", "dog")))
    assert rows(one) == [("0.tar/s0000000", "dog")]


def test_pictures_of_all_kinds_before_or_after_their_label_and_other_members() -> None:
    write("wds/classnames.txt", "cat\ndog\n")
    members = {
        "a.jpg": picture(1, "JPEG"),
        "a.cls": "1\n",
        "a.json": "{}",
        "./b.cls": "0",
        "./b.WEBP": picture(2, "WEBP"),
        "more/a.jpeg": picture(3, "JPEG"),
        "more/a.cls": "1",
        "._a.jpg": b"of macOS",
        "README": "text",
    }
    pack("wds/0.tar", members)
    one = read_one("wds")
    assert rows(one) == [("0.tar/a", "dog"), ("0.tar/b", "cat"), ("0.tar/more/a", "dog")]
    assert [decode_image(open_source(s.source))[0, 0, 0] for s in one.samples] == [1, 2, 3]
    assert one.notes == ()


def test_names_longer_than_a_header_holds() -> None:
    write("wds/classnames.txt", "cat\n")
    stem = "long/" * 30 + "ä" * 120
    pack("wds/0.tar", {f"{stem}.png": picture(9), f"{stem}.cls": "0"})
    (sample,) = read_one("wds").samples
    assert sample.key == f"0.tar/{stem}"
    assert decode_image(open_source(sample.source))[0, 0, 0] == 9


# --- classes ---


def test_without_class_names_it_says_what_to_add() -> None:
    make_set()
    Path("wds/classnames.txt").unlink()
    message = message_of("wds")
    assert 'There is no "wds/classnames.txt"' in message
    assert "Add that file, or give the names with --classes." in message
    assert "If the archives hold class folders instead, unpack them" in message


@pytest.mark.parametrize("classes", [("cat", "dog", "owl"), ("2=owl", "0=cat", "1=dog")])
def test_classes_given_stand_for_the_missing_file(classes: tuple[str, ...]) -> None:
    make_set()
    Path("wds/classnames.txt").unlink()
    one = read_one("wds", ReadOptions(classes=classes))
    assert [name for _, name in rows(one)] == ["owl", "cat", "dog"]
    assert set(one.classes) == {"cat", "dog", "owl"}


def test_classes_given_are_found_by_name_where_the_file_is_there() -> None:
    one = read_one(make_set(), ReadOptions(classes=("Sea_Lion", "fox", "1=wolf", "cat")))
    assert one.classes == ("Sea_Lion", "fox", "wolf", "cat")
    assert [name for _, name in rows(one)] == ["Sea_Lion", "cat", "wolf"]
    assert "1 of the 4 classes has no pictures here: fox." in one.notes


def test_a_label_that_the_classes_given_lack() -> None:
    message = message_of(make_set(), ReadOptions(classes=("cat", "dog")))
    assert '1 of the 3 labels of "wds" fits none of the 2 classes given: 2' in message


def test_classes_without_pictures_are_told() -> None:
    make_set()
    write("wds/classnames.txt", "cat\ndog\nsea lion\nowl\n")
    assert "1 of the 4 classes has no pictures here: owl." in read_one("wds").notes


def test_class_names_may_repeat() -> None:
    make_set()
    write("wds/classnames.txt", "crane\nmaillot\ncrane\n")
    one = read_one("wds")
    assert one.classes == ("crane", "maillot", "crane")
    assert [sample.label for sample in one.samples] == [2, 0, 1]


def test_imagenets_own_names_are_of_its_family() -> None:
    make_set()
    names = list(imagenet_names())
    write("wds/classnames.txt", "\n".join(names))
    one = read_one("wds")
    assert (one.family, one.ids, one.classes) == ("imagenet", imagenet_ids(), imagenet_names())
    write("wds/classnames.txt", "\n".join([*names[:999], "another"]))
    assert read_one("wds").family is None


def test_imagenets_classes_asked_for_by_their_word() -> None:
    make_set()
    write("wds/classnames.txt", "goldfish\nblack swan\ntench\n")
    one = read_one("wds", ReadOptions(classes=("imagenet",)))
    assert (one.family, one.ids) == ("imagenet", imagenet_ids())
    assert [name for _, name in rows(one)] == ["tench", "goldfish", "black swan"]
    Path("wds/classnames.txt").unlink()
    bare = read_one("wds", ReadOptions(classes=("imagenet",)))
    assert (bare.family, [sample.label for sample in bare.samples]) == ("imagenet", [2, 0, 1])


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_out_of_range(label: int) -> None:
    make_set()
    pack_labels("wds/test/1.tar", 1, label)
    message = message_of("wds")
    assert f'"1.tar/s0000001" in "wds" has the label {label}: expected 0 to 2' in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("classnames.txt", "cat\n\nsea lion\n", 'Line 2 of "wds/classnames.txt" is empty'),
        ("classnames.txt", b"caf\xe9\n", '"wds/classnames.txt" cannot be read'),
        (TEMPLATES, "a {c}\n\na photo\n", "is 'a photo': expected one {c} in it"),
        (TEMPLATES, "a {c}\n\n{c} and {c}\n", f'Line 3 of "wds/{TEMPLATES}"'),
        ("dataset_type.txt", "retrieval\n", "says 'retrieval': expected a set for classification"),
        ("test/nshards.txt", "two", "holds 'two': expected the number of archives"),
        ("test/nshards.txt", "4", "(4 in all), but 2 are, with 2.tar, 3.tar missing"),
        ("test/nshards.txt", "4", '"wds/test/nshards.txt" says that 0.tar to 3.tar are there'),
        ("test/nshards.txt", "1", "(1 in all), but 2 are, with 1.tar there as well"),
    ],
)
def test_a_text_file_that_does_not_fit(name: str, content: str | bytes, words: str) -> None:
    write(f"{make_set()}/{name}", content)
    assert words in message_of("wds")


# --- archives ---


def test_a_gap_in_the_archives_numbers_is_told() -> None:
    make_set()
    Path("wds/test/nshards.txt").unlink()
    Path("wds/test/1.tar").rename("wds/test/2.tar")
    assert "There is no 1.tar in wds/test." in read_one("wds").notes


@pytest.mark.parametrize("name", ["1.tar.gz", "1.tar"])
def test_compressed_archives_are_to_be_decompressed(name: str) -> None:
    make_set()
    Path("wds/test/nshards.txt").unlink()
    data = Path("wds/test/1.tar").read_bytes()
    Path("wds/test/1.tar").unlink()
    Path(f"wds/test/{name}").write_bytes(gzip.compress(data))
    assert webdataset_tars.matches(f"wds/test/{name}")
    message = message_of("wds")
    assert f'"wds/test/{name}" is compressed' in message
    assert "Decompress it first" in message


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<html>not found</html>", "is no tar archive"),
        (b"x" * 2000, "is no tar archive"),
    ],
)
def test_a_file_that_is_no_tar(data: bytes, what: str) -> None:
    make_set()
    Path("wds/test/1.tar").write_bytes(data)
    message = message_of("wds")
    assert f'"wds/test/1.tar" {what}' in message
    assert message.endswith("Fetch it again.")


# Each picture takes 512 + 512 (label) + 512 + 512 (a tiny PNG) bytes.
@pytest.mark.parametrize(
    ("size", "kept", "how"),
    [
        (2 * 2048 + 1024 + 512 + 20, 2, "is cut off"),  # in the third picture
        (2 * 2048 + 1024 + 300, 2, "is cut off"),  # in its header
        (2 * 2048 + 512 + 1, 2, "is cut off or damaged"),  # behind its label
        (2 * 2048, 2, "has no end mark, so it may be cut off,"),
        (3 * 2048 + 100, 3, "is cut off"),  # in the end mark
    ],
)
def test_a_tar_that_is_cut_off_keeps_its_whole_pictures(size: int, kept: int, how: str) -> None:
    make_set()
    pack_labels("wds/test/1.tar", 1, 1, 1)
    os.truncate("wds/test/1.tar", size)
    one = read_one("wds")
    assert len(one.samples) == 2 + kept
    assert f'"wds/test/1.tar" {how} after {kept} pictures; fetch it again.' in one.notes
    for sample in one.samples:
        decode_image(open_source(sample.source))


def test_a_header_that_is_overwritten_in_the_middle_is_told() -> None:
    make_set()
    pack_labels("wds/test/1.tar", 1, 1, 1)
    with open("wds/test/1.tar", "r+b") as file:
        file.seek(2048)
        file.write(b"\xff" * 512)
    one = read_one("wds")
    assert len(one.samples) == 3
    assert '"wds/test/1.tar" is damaged after 1 picture; fetch it again.' in one.notes


def test_samples_that_lack_something_are_left_out_and_told() -> None:
    make_set()
    members: dict[str, bytes | str] = {f"x{number}.png": picture(1) for number in range(5)}
    members |= {"y.cls": "1", "z.cls": "cat", "z.png": picture(1)}
    members |= {"w.cls": "1", "w.png": picture(1), "w.jpg": picture(1, "JPEG")}
    pack("wds/test/1.tar", {**members, "ok.cls": "1", "ok.png": picture(1)})
    one = read_one("wds")
    assert rows(one)[2:] == [("1.tar/ok", "dog")]
    assert one.notes[1:] == (
        "5 samples are left out, without a label (.cls): 1.tar/x0, 1.tar/x1, 1.tar/x2 and 2 more.",
        "1 sample is left out, without a picture: 1.tar/y.",
        "1 sample is left out, whose label (.cls) is no number: 1.tar/z.",
        "1 sample is left out, with several pictures or labels: 1.tar/w.",
    )


def test_odd_bytes_and_control_characters_in_names_are_written_out() -> None:
    write("wds/classnames.txt", "cat\n")
    pack("wds/0.tar", {"a\x1b.png": picture(1), "a\x1b.cls": "0", "b\udce9.cls": "0"})
    one = read_one("wds")
    assert rows(one) == [("0.tar/a\\x1b", "cat")]
    assert one.notes == (r"1 sample is left out, without a picture: 0.tar/b\udce9.",)


def test_a_size_below_zero_ends_the_walk() -> None:
    make_set()
    pack_labels("wds/test/1.tar", 1, 1)
    data = bytearray(Path("wds/test/1.tar").read_bytes())
    header = tarfile.TarInfo.frombuf(bytes(data[2048:2560]), "utf-8", "strict")
    header.size = -2048
    data[2048:2560] = header.tobuf(tarfile.GNU_FORMAT)
    Path("wds/test/1.tar").write_bytes(data)
    assert '"wds/test/1.tar" is damaged after 1 picture; fetch it again.' in read_one("wds").notes


def test_archives_without_a_usable_picture() -> None:
    write("wds/classnames.txt", "cat\n")
    pack("wds/0.tar", {"a.png": picture(1)})
    message = message_of("wds")
    assert '"wds" holds no usable picture. 1 sample is left out, without a label' in message
    pack("wds/0.tar", {})
    assert '"wds" holds no usable picture. Expected pictures' in message_of("wds")


def test_a_member_that_is_gone_when_it_is_opened() -> None:
    source = read_one(make_set()).samples[0].source
    assert isinstance(source, TarMember)
    os.truncate("wds/test/0.tar", source.offset + 10)
    with pytest.raises(ImageError, match=r'"s0000000\.png" in "wds/test/0\.tar" is cut off: 10 of'):
        open_source(source)
