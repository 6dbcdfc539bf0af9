"""CIFAR's shifted sets: every row has its own label, and arrays that do not fit say why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refusal

from tpt.data.labelled_sets import LabelledSet, ReadOptions, open_source
from tpt.data.layouts import cifar_arrays
from tpt.errors import SourceError
from tpt.images.decode import decode_image

PLAIN = ReadOptions()


def save(path: str, array: Any) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def pictures(count: int) -> Any:
    """Pictures whose every byte is their number."""
    values = np.arange(count, dtype=np.uint8)
    return np.broadcast_to(values[:, None, None, None], (count, 32, 32, 3))


def make_corrupted(labels: list[int], *kinds: str, folder: str = "c") -> str:
    for kind in kinds or ("fog",):
        save(f"{folder}/{kind}.npy", pictures(5 * len(labels)))
    save(f"{folder}/labels.npy", np.array(labels))
    return folder


def pixel(one: LabelledSet, place: int) -> int:
    """What the bytes of a picture of the set are, after it was opened and decoded."""
    pixels = decode_image(open_source(one.samples[place].source))
    assert pixels.shape == (32, 32, 3)
    return int(pixels[3, 4, 1])


def message_of(path: str, options: ReadOptions = PLAIN) -> str:
    return refusal(SourceError, cifar_arrays.read, path, "set", options)


# --- CIFAR-10-C and CIFAR-100-C ---


def test_a_set_a_corruption_and_severity() -> None:
    path = make_corrupted([3, 0, 9], "snow", "fog")
    assert cifar_arrays.matches(path)
    sets = cifar_arrays.read(path, "cifar", PLAIN)
    expected = [(f"cifar/{k}/{s}", k, s) for k in ("fog", "snow") for s in (1, 2, 3, 4, 5)]
    assert [(one.name, one.corruption, one.severity) for one in sets] == expected
    assert [sample.key for sample in sets[7].samples] == [*("00000", "00001", "00002")]
    assert (sets[0].path, sets[0].layout) == ("c", "CIFAR-10-C, one array a corruption")


def test_the_severities_lie_one_after_another() -> None:
    fog = cifar_arrays.read(make_corrupted([3, 0, 9]), "cifar", PLAIN)
    assert [pixel(one, 1) for one in fog] == [1, 4, 7, 10, 13]
    names = [[one.classes[sample.label] for sample in one.samples] for one in fog]
    assert names == [["cat", "airplane", "truck"]] * 5


def test_labels_that_repeat_for_each_severity_are_the_same_set() -> None:
    make_corrupted([3, 0, 9])
    save("c/labels.npy", np.array([3, 0, 9] * 5, dtype=np.uint8))
    sets = cifar_arrays.read("c", "cifar", PLAIN)
    assert [len(one.samples) for one in sets] == [3] * 5
    assert [pixel(one, 0) for one in sets] == [0, 3, 6, 9, 12]


def test_one_corruption_by_its_file() -> None:
    make_corrupted([3, 0], "snow", "fog")
    assert cifar_arrays.matches("c/snow.npy")
    assert {one.corruption for one in cifar_arrays.read("c/snow.npy", "cifar", PLAIN)} == {"snow"}


def test_class_names_stand_in_the_labels_order() -> None:
    assert len(cifar_arrays.CIFAR10) == 10
    assert len(set(cifar_arrays.CIFAR100)) == 100
    assert list(cifar_arrays.CIFAR100) == sorted(cifar_arrays.CIFAR100)
    assert [cifar_arrays.CIFAR100[number] for number in (0, 23, 47, 58, 83, 99)] == [
        *("apple", "cloud", "maple tree", "pickup truck", "sweet pepper", "worm")
    ]


@pytest.mark.parametrize(("highest", "count"), [(9, 10), (10, 100), (99, 100)])
def test_the_highest_label_tells_the_classes_and_it_is_said(highest: int, count: int) -> None:
    one = cifar_arrays.read(make_corrupted([0, highest]), "cifar", PLAIN)[0]
    assert one.ids == tuple(str(number) for number in range(count))
    assert one.layout.startswith(f"CIFAR-{count}-C")
    told, absent = one.notes
    assert told == f"The labels reach to {highest}, so the classes are CIFAR-{count}'s."
    assert absent.startswith(f"{count - 2} of the {count} classes have no pictures here")


def test_classes_of_ones_own_are_found_by_name_and_by_number() -> None:
    options = ReadOptions(classes=("lorry=vehicle", "9=vehicle", "cat"))
    one = cifar_arrays.read(make_corrupted([3, 9]), "cifar", options)[0]
    assert one.classes == ("vehicle", "cat")
    assert [sample.label for sample in one.samples] == [1, 0]


def test_classes_that_lack_one_that_has_pictures() -> None:
    message = message_of(make_corrupted([3, 9]), ReadOptions(classes=("cat", "dog")))
    assert '1 of the 2 labels of "c/labels.npy" fits none of the 2 classes given: 9' in message


def test_labels_are_missing() -> None:
    save("c/fog.npy", pictures(5))
    assert cifar_arrays.matches("c")
    assert message_of("c") == (
        'There is no "c/labels.npy": expected the label numbers of fog.npy beside it. Copy the '
        "file there; it comes with CIFAR-10-C and CIFAR-100-C."
    )


def test_labels_alone_or_nothing() -> None:
    save("c/labels.npy", np.array([1]))
    Path("empty").mkdir()
    assert '"c" holds labels (labels.npy) without their pictures' in message_of("c")
    assert '"c/labels.npy" is labels (labels.npy) without' in message_of("c/labels.npy")
    assert '"empty" holds no .npy files: expected arrays of pictures' in message_of("empty")


def test_labels_of_the_wrong_length_name_both_lengths() -> None:
    make_corrupted([1, 2, 3, 4])
    save("c/labels.npy", np.array([1, 2, 3]))
    message = message_of("c")
    assert '"c/labels.npy" holds 3 labels, but fog.npy holds 20 pictures.' in message
    assert "Expected 4 labels (one for each picture of a severity) or 20." in message


def test_one_corruption_of_the_wrong_length_is_named() -> None:
    make_corrupted([1, 2], "fog", "snow")
    save("c/snow.npy", pictures(9))
    message = message_of("c")
    assert 'snow.npy holds 9 pictures, but "c/labels.npy" holds 2 labels.' in message
    assert "Expected 10 pictures, 2 for each of five severities." in message


def test_a_single_severity_is_not_taken_for_five() -> None:
    make_corrupted([1])
    save("c/labels.npy", np.array([1, 2, 3, 4, 5]))
    message = message_of("c")
    assert "one for each of the 5 labels" in message
    assert "the labels do not repeat five times" in message


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ([0, 100], "labels from 0 to 100: expected 0 to 9 (CIFAR-10) or 0 to 99"),
        ([-1, 5], "labels from -1 to 5"),
        ([0.0, 1.0], "holds float64 of shape (2,): expected whole numbers"),
        ([[0], [1]], "holds int64 of shape (2, 1)"),
        (["cat", "dog"], "holds <U3 of shape (2,)"),
        ([], "of shape (0,)"),
    ],
)
def test_labels_that_are_no_labels(labels: Any, what: str) -> None:
    make_corrupted([0, 1])
    save("c/labels.npy", np.array(labels))
    assert what in message_of("c")


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (pictures(10).astype(np.float32), "float32 of shape (10, 32, 32, 3): expected uint8"),
        (pictures(10).transpose(0, 3, 1, 2), "shape (10, 3, 32, 32): expected uint8 of shape"),
        (pictures(10).reshape(10, -1), "uint8 of shape (10, 3072)"),
    ],
)
def test_arrays_that_are_no_pictures(array: Any, what: str) -> None:
    make_corrupted([0, 1])
    save("c/fog.npy", array)
    assert what in message_of("c")


def test_an_array_that_is_cut_short() -> None:
    make_corrupted([0, 1])
    os.truncate("c/fog.npy", 9_000)
    message = message_of("c")
    assert message.startswith('"c/fog.npy" is damaged or cut short')
    assert message.endswith("Fetch it again.")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "it is empty (0 bytes)"),
        (b"<html>not found</html>", "it starts with b'<html>'"),
        (b"PK\x03\x04 an npz renamed", "it starts with"),
        (b"\x93NUMPY\x01\x00\x05\x00{'de", "damaged or cut short"),
        (b"\x93NUMPY\x09\x00\x05\x00{'de", "damaged or cut short"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{'de", "its header is 2,147,483,647 bytes long"),
        (b"\x93NUMPY\x01\x00\x08\x00{'a':\x1b  \n", "damaged or cut short"),
    ],
)
def test_a_file_that_is_no_array(data: bytes, what: str) -> None:
    make_corrupted([0, 1])
    Path("c/fog.npy").write_bytes(data)
    assert what in message_of("c")


class Trap:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("name", ["fog.npy", "labels.npy"])
def test_pickled_objects_are_never_unpickled(name: str) -> None:
    make_corrupted([0, 1])
    np.save(f"c/{name}", np.array([Trap(), None], dtype=object), allow_pickle=True)
    assert f'"c/{name}" holds pickled Python objects' in message_of("c")
    assert not Path("unpickled").exists()


# --- CIFAR-10.1 ---


def make_newer(version: str, labels: list[int], folder: str = "new") -> None:
    save(f"{folder}/cifar10.1_{version}_data.npy", pictures(len(labels)))
    save(f"{folder}/cifar10.1_{version}_labels.npy", np.array(labels, dtype=np.int32))


@pytest.mark.parametrize("path", ["new", "new/cifar10.1_v6_data.npy"])
def test_cifar_10_1_by_its_folder_or_its_file(path: str) -> None:
    make_newer("v6", [5, 2])
    assert cifar_arrays.matches(path)
    (one,) = cifar_arrays.read(path, "newer", PLAIN)
    assert (one.name, one.corruption, one.severity) == ("newer", None, None)
    assert [(s.key, one.classes[s.label]) for s in one.samples] == [
        *(("00000", "dog"), ("00001", "bird"))
    ]
    assert [pixel(one, 0), pixel(one, 1)] == [0, 1]


def test_two_versions_are_two_sets() -> None:
    make_newer("v4", [1])
    make_newer("v6", [5, 2])
    sets = cifar_arrays.read("new", "newer", PLAIN)
    assert [(one.name, len(one.samples)) for one in sets] == [("newer/v4", 1), ("newer/v6", 2)]


def test_labels_of_cifar_10_1_are_missing() -> None:
    make_newer("v4", [1])
    Path("new/cifar10.1_v4_labels.npy").unlink()
    assert 'There is no "new/cifar10.1_v4_labels.npy"' in message_of("new")


def test_labels_of_cifar_10_1_are_too_few() -> None:
    make_newer("v4", [1, 2])
    save("new/cifar10.1_v4_labels.npy", np.array([1]))
    assert "holds 1 labels, but cifar10.1_v4_data.npy holds 2 pictures" in message_of("new")


def test_both_kinds_in_one_folder() -> None:
    make_newer("v4", [1, 2], folder="c")
    message = message_of(make_corrupted([1]))
    assert "CIFAR-10.1 (cifar10.1_v4_data.npy) and of CIFAR-10-C (fog.npy)" in message


def test_other_folders_and_files_do_not_match() -> None:
    save("other/embeddings.npy", np.zeros(3))
    Path("a.csv").touch()
    assert not any(
        cifar_arrays.matches(path) for path in ("other", "a.csv", "missing", "missing.npy")
    )
