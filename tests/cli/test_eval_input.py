"""What `tpt eval` says to sets, prompts and options that it cannot use: a sentence each."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from refusals import error_of

import tpt
from tpt.data.imagenet import subset_ids
from tpt.prompts.prompt_info import PromptInfo

Run = Callable[..., Result]
Make = Callable[..., list[str]]

ZERO_SHOT = ("--methods", "zero-shot")
OUT = Path("out")


def names_of(root: str, *classes: str, count: int = 1) -> list[str]:
    return [f"{root}/{name}/{number}.png" for name in classes for number in range(count)]


@pytest.fixture
def pets(make_images: Make) -> list[str]:
    """A set of a cat and a dog."""
    return make_images(*names_of("pets", "cat", "dog"))


@pytest.fixture
def refuse(run_tpt: Run) -> Callable[..., str]:
    """The sentence of a run that is refused: nothing printed, nothing written."""

    def run(*words: object, code: int = 2) -> str:
        result = run_tpt("eval", *words, "--output", "out")
        assert not OUT.exists()
        return error_of(result, code)

    return run


def results() -> dict[str, Any]:
    return json.loads((OUT / "results.json").read_text())


def evaluate(run_tpt: Run, *words: object, code: int = 0) -> Result:
    result = run_tpt("eval", *words, *ZERO_SHOT, "--output", "out")
    assert result.exit_code == code, result.stderr
    return result


# --- classes ---


def test_a_class_that_a_set_lacks_is_a_note(run_tpt: Run, make_images: Make) -> None:
    make_images(
        *names_of("pacs/photo", "cat", "dog", "cup"), *names_of("pacs/sketch", "cat", "dog")
    )
    result = evaluate(run_tpt, "pacs")
    assert "  Note: 1 of the 3 classes has no pictures here: cup.\n" in result.stderr
    photo, sketch = results()["sets"]
    assert photo["classes"] == sketch["classes"] == ["cat", "cup", "dog"]
    assert (photo["notes"], sketch["notes"]) == (
        [],
        ["1 of the 3 classes has no pictures here: cup."],
    )


def test_files_without_an_extension_are_looked_into_where_that_is_asked_for(
    run_tpt: Run, refuse: Callable[..., str], pets: list[str]
) -> None:
    Path("pets/dog/0.png").rename("pets/dog/0")
    message = refuse("pets", *ZERO_SHOT)
    assert "1 file skipped (not an image's extension): pets/dog/0. --all-files" in message
    evaluate(run_tpt, "pets", "--all-files")
    assert results()["sets"][0]["classes"] == ["cat", "dog"]


def test_a_misspelt_class_is_told_with_the_nearest(
    refuse: Callable[..., str], make_images: Make, pets: list[str]
) -> None:
    message = refuse("pets", *ZERO_SHOT, "--classes", "cat,dgo,cup")
    assert message == (
        '1 of the 2 labels of "pets" fits none of the 3 classes given: dog (did you mean "dgo"?). '
        "Say which class each is (--classes dog=dgo,... or a file of such lines), or leave those "
        "pictures out."
    )
    elephants = ("elephant", "giraffe", "guitar")
    make_images(*names_of("pacs/photo", *elephants), *names_of("pacs/art", *elephants))
    make_images(*names_of("pacs/sketch", "elefant", "giraffe", "guitar"))
    message = refuse("pacs", *ZERO_SHOT)
    assert '"elefant"' in message
    assert '"elephant"' in message


def test_a_tree_of_imagenet_a_is_scored_among_its_200_classes(
    run_tpt: Run, make_images: Make
) -> None:
    (picture,) = make_images("1.png")
    for wnid in subset_ids("imagenet-a"):
        Path("ina", wnid).mkdir(parents=True)
        shutil.copy(picture, Path("ina", wnid))
    result = evaluate(run_tpt, "ina", "--classes", "imagenet", "--limit", 3)
    assert "ina: ImageNet-A by WordNet id; 200 classes, 200 pictures\n" in result.stderr
    assert (
        "Note: The pictures are ImageNet-A's: scored among its 200 classes, as published, not "
        "among ImageNet's 1,000.\n"
    ) in result.stderr
    (part,) = results()["sets"]
    assert len(part["classes"]) == 200
    assert part["images"] == 3


def test_class_names_are_refused_where_they_are_none(
    refuse: Callable[..., str], pets: list[str]
) -> None:
    Path("empty.txt").write_text("")
    assert 'The class file "empty.txt" is empty' in refuse("pets", "--classes", "empty.txt")
    assert 'There is no class file "no.txt"' in refuse("pets", "--classes", "no.txt")
    assert 'Class "Dog" (name 2) is the same prompt' in refuse("pets", "--classes", "dog,Dog")
    assert '"=dog" in the list of classes lacks an id' in refuse("pets", "--classes", "cat,=dog")


# --- folders ---


def test_text_files_among_class_folders_are_no_class(run_tpt: Run, pets: list[str]) -> None:
    Path("pets/README.txt").write_text("Pictures of pets.")
    Path("pets/cat/list.csv").write_text("0.png")
    evaluate(run_tpt, "pets")
    (part,) = results()["sets"]
    assert (part["classes"], part["images"]) == (["cat", "dog"], 2)


def test_empty_class_folders_are_refused(refuse: Callable[..., str], pets: list[str]) -> None:
    Path("pets/horse").mkdir()
    assert refuse("pets") == (
        '1 class folder of "pets" holds no pictures: horse. Add pictures, or remove the folders.'
    )


def test_mixed_layouts_are_refused(
    refuse: Callable[..., str], make_images: Make, pets: list[str]
) -> None:
    make_images(*names_of("pets/sketch", "cat", "dog"))
    message = refuse("pets")
    assert message.startswith('"pets" mixes layouts: class folders with pictures (cat, dog) beside')
    assert "--layout folders" in message


def test_places_without_a_set_are_refused(refuse: Callable[..., str], pets: list[str]) -> None:
    Path("nothing").mkdir()
    assert 'There is no "pest"' in refuse("pest")
    assert 'Did you mean "pets"?' in refuse("pest")
    assert 'There is no "pest"' in refuse("pets", "--clean", "pest")
    assert 'There is no "pest"' in refuse("name=pest")
    assert 'The folder "nothing" holds no pictures: expected one sub-folder' in refuse("nothing")
    assert 'The folder "pets/cat" holds 1 picture and no class folders' in refuse("pets/cat")
    assert '"pets/cat/0.png" is a file of no known layout' in refuse("pets/cat/0.png")


def test_names_that_do_not_exist_are_told_with_the_nearest(
    refuse: Callable[..., str], pets: list[str]
) -> None:
    told = {
        ("--layout", "folder"): 'There is no layout "folder". Did you mean "folders"?',
        ("--preset", "caltech"): 'Unknown preset "caltech". Did you mean "caltech101"?',
        ("--methods", "tqt"): 'Unknown method "tqt". Did you mean "tpt"',
        ("--methods", ","): "No method was named",
        ("--methods", "tpt+init"): 'starts from "init", which is neither ensemble nor a prompt',
        ("--corrupt", "fgo:3"): 'Unknown corruption "fgo"',
        ("--corrupt", "fog"): '"fog" is no corruption with its severity',
        ("--corrupt", "fog:6"): '"6" is no severity',
        ("--set", "weigth=3"): "weigth",
        ("--set", "weight"): '"weight" is not of the form NAME=VALUE',
        ("--protocol", "base"): "'base' is not one of",
        ("--limit", 0): "0 is not in the range x>=1",
    }
    for words, message in told.items():
        assert message in refuse("pets", *words)
    assert 'Unknown model "tniy". Did you mean "tiny"?' in refuse("pets", "--model", "tniy", code=1)
    assert 'Unknown device "gpu0"' in refuse("pets", "--device", "gpu0", code=1)


# --- sets that do not go together ---


def test_two_sets_of_one_name_are_refused(refuse: Callable[..., str], make_images: Make) -> None:
    make_images(*names_of("a/test", "cat", "dog"), *names_of("b/test", "cat", "dog"))
    assert refuse("a/test", "b/test") == (
        'Two sets are called "test": "a/test" and "b/test". Give one another name, for example '
        'other="b/test".'
    )
    assert 'Two sets are called "test"' in refuse("a/test", "--clean", "b/test")


def test_a_set_that_is_clean_and_shifted_is_refused(
    refuse: Callable[..., str], make_images: Make, pets: list[str]
) -> None:
    message = refuse("pets", "--clean", "./pets/")
    assert message.startswith('"pets" is given both as a set to evaluate and as the clean set.')
    make_images(*names_of("pacs/photo", "cat", "dog"), *names_of("pacs/sketch", "cat", "dog"))
    message = refuse("pets", "--clean", "pacs")
    assert message.startswith('The clean set "pacs" holds 2 sets (pacs/photo, pacs/sketch, ...).')


def test_protocols_that_cannot_be_followed_are_refused(
    refuse: Callable[..., str], make_images: Make, pets: list[str]
) -> None:
    message = refuse("pets", "--protocol", "base-to-new")
    assert '"pets" has 2 classes; base-to-new needs at least four' in message
    make_images(*names_of("four", "cat", "dog", "cup", "cow"))
    message = refuse("four", "--clean", "pets", "--protocol", "base-to-new")
    assert "Leave --clean out." in message
    make_images(*names_of("pets-c/fog/1", "cat", "dog"))
    message = refuse("pets-c", "--corrupt", "snow:1")
    assert '"pets-c/fog/1" is corrupted already' in message


# --- arrays, archives, tables ---


@pytest.fixture
def cifar() -> Path:
    """CIFAR-10-C's layout: five severities of four pictures."""
    folder = Path("cifar10-c")
    folder.mkdir()
    pixels = np.random.RandomState(0).randint(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    np.save(folder / "fog.npy", pixels)
    np.save(folder / "labels.npy", np.arange(4))
    return folder


def test_arrays_are_evaluated_a_severity_a_set(run_tpt: Run, cifar: Path) -> None:
    result = evaluate(run_tpt, cifar)
    assert "cifar10-c/fog/5: CIFAR-10-C, one array a corruption; 10 classes, 4 pictures" in (
        result.stderr
    )
    sets = results()["sets"]
    assert [part["severity"] for part in sets] == [1, 2, 3, 4, 5]
    assert [part["images"] for part in sets] == [4] * 5
    assert results()["results"][0]["metrics"]["acc5"] is not None


def test_arrays_that_do_not_fit_are_refused(refuse: Callable[..., str], cifar: Path) -> None:
    np.save(cifar / "labels.npy", np.arange(5))
    message = refuse(cifar)
    assert '"cifar10-c/labels.npy" holds 5 labels, but fog.npy holds 20 pictures.' in message
    os.remove(cifar / "labels.npy")
    assert 'There is no "cifar10-c/labels.npy"' in refuse(cifar)
    np.save(cifar / "labels.npy", np.array([{}]), allow_pickle=True)
    assert "Pickles can run code" in refuse(cifar)
    (cifar / "labels.npy").write_bytes(b"")
    assert '"cifar10-c/labels.npy" is damaged or cut short (it is empty (0 bytes))' in refuse(cifar)
    np.save(cifar / "labels.npy", np.arange(4))
    data = (cifar / "fog.npy").read_bytes()
    for broken in (data[:5000], b"x" * 5000, data[:60]):
        (cifar / "fog.npy").write_bytes(broken)
        assert '"cifar10-c/fog.npy" is damaged or cut short' in refuse(cifar)


def pack(archive: str, members: dict[str, bytes]) -> None:
    Path(archive).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_an_unreadable_member_of_a_tar_is_counted_and_the_others_go_on(
    run_tpt: Run, make_images: Make
) -> None:
    good = [Path(name).read_bytes() for name in make_images("1.png", "2.png", "3.png")]
    members = {
        **{"s0.png": good[0], "s0.cls": b"0", "s1.png": b"no picture", "s1.cls": b"1"},
        **{"s2.png": good[1][:300], "s2.cls": b"0", "s3.png": good[2], "s3.cls": b"1"},
    }
    pack("wds/test/0.tar", members)
    Path("wds/classnames.txt").write_text("cat\ndog\n")
    result = evaluate(run_tpt, "wds", code=3)
    assert "wds: webdataset tars; 2 classes, 4 pictures\n" in result.stderr
    assert "4 of 4 images in " in result.stderr
    assert ", 2 failed" in result.stderr
    (part,) = results()["sets"]
    assert (part["images"], part["failed"]) == (2, 2)
    lines = [json.loads(line) for line in (OUT / "predictions.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines if "error" in line] == [
        line["key"] for line in lines if line["key"].rpartition("/")[2].startswith(("s1", "s2"))
    ]


def test_a_tar_that_is_none_or_cut_off_is_told(
    run_tpt: Run, refuse: Callable[..., str], make_images: Make
) -> None:
    Path("wds").mkdir()
    Path("wds/classnames.txt").write_text("cat\ndog\n")
    Path("wds/0.tar").write_text("no tar")
    message = refuse("wds")
    assert "0.tar" in message
    good = [Path(name).read_bytes() for name in make_images("1.png", "2.png")]
    pack("wds/0.tar", {"s0.png": good[0], "s0.cls": b"0", "s1.png": good[1], "s1.cls": b"1"})
    data = Path("wds/0.tar").read_bytes()
    Path("wds/0.tar").write_bytes(data[: 512 * (len(good[0]) // 512 + 4) + 100])
    result = evaluate(run_tpt, "wds")
    assert 'Note: "wds/0.tar" is cut off after 1 picture; fetch it again.' in result.stderr


def test_a_table_is_evaluated_and_a_picture_that_is_missing_is_counted(
    run_tpt: Run, refuse: Callable[..., str], pets: list[str]
) -> None:
    Path("list.csv").write_text(
        "path,label\npets/cat/0.png,cat\npets/cat/9.png,cat\npets/dog/0.png,dog\n"
    )
    result = evaluate(run_tpt, "list.csv", code=3)
    assert "list: CSV; 2 classes, 3 pictures\n" in result.stderr
    assert (results()["sets"][0]["images"], results()["sets"][0]["failed"]) == (2, 1)
    shutil.rmtree(OUT)
    Path("list.csv").write_text("file,class\npets/cat/0.png,cat\n")
    assert "has the columns file, class; expected a first line" in refuse("list.csv")


# --- pictures ---


def test_a_broken_picture_is_counted_and_the_others_go_on(
    run_tpt: Run, make_images: Make, pets: list[str]
) -> None:
    Path("pets/cat/1.png").write_text("no picture")
    result = run_tpt("eval", "pets", "--methods", "tpt", "--views", 2, "--output", "out")
    assert result.exit_code == 3
    assert "3 of 3 images in " in result.stderr
    assert ", 1 failed" in result.stderr
    (part,) = results()["sets"]
    assert (part["images"], part["failed"]) == (2, 1)
    assert {entry["images"] for entry in results()["results"]} == {2}


def test_a_set_of_broken_pictures_has_no_numbers(run_tpt: Run, pets: list[str]) -> None:
    for path in pets:
        Path(path).write_bytes(b"")
    result = evaluate(run_tpt, "pets", code=3)
    assert "2 failed" in result.stderr
    (part,) = results()["sets"]
    assert (part["images"], part["failed"]) == (0, 2)
    assert results()["results"][0]["metrics"]["acc1"] is None


def test_strict_stops_at_the_first_broken_picture(run_tpt: Run, pets: list[str]) -> None:
    Path(pets[0]).write_text("no picture")
    result = run_tpt("eval", "pets", *ZERO_SHOT, "--strict", "--output", "out")
    assert result.exit_code == 1
    assert "Error: 'cat/0.png': 'pets/cat/0.png' is not an image" in result.stderr
    assert not (OUT / "results.json").exists()


# --- prompts, templates, options ---


def test_prompts_that_cannot_be_used_are_refused(
    refuse: Callable[..., str], pets: list[str], tiny: tpt.Clip
) -> None:
    tiny_ = ("--model", "tiny")
    assert 'The prompt file "no.pt" cannot be read' in refuse("pets", "--init", "no.pt", code=1)
    assert 'The prompt file "no.pt" cannot be read' in refuse("pets", "--init", "a=no.pt", code=1)
    Path("junk.pt").write_text("junk")
    assert '"junk.pt"' in refuse("pets", "--init", "junk.pt", code=1)
    context = tpt.Context.from_words(tiny, "a photo of a {}.")
    tpt.Context(context.vectors, info=PromptInfo(model="ViT-B-16", pretrained="openai")).save(
        "other.pt"
    )
    message = refuse("pets", "--init", "other.pt", *tiny_, code=1)
    assert message.startswith('On the set "pets": ')
    assert "ViT-B-16" in message
    assert "--force" in message
    wide = context.vectors.repeat(1, 1, 2)
    tpt.Context(wide, info=PromptInfo(model="tiny")).save("wide.pt")
    assert "256" in refuse("pets", "--init", "wide.pt", *tiny_, "--force", code=1)
    tpt.Context(context.vectors).save("nameless.pt")
    message = refuse("pets", "--init", "nameless.pt", code=1)
    assert "does not say which model it was made for" in message
    for name in ("ensemble", "a,b", "a+b", "a:b"):
        message = refuse("pets", "--init", f"{name}=other.pt")
        assert f'A prompt cannot be called "{name}": expected a name without' in message
    assert '"tpt+" does not say where it starts' in refuse("pets", "--methods", "tpt+")
    message = refuse("pets", "--init", "other.pt", "--init", "wide.pt")
    assert 'Two prompt files are called "init". Give them names' in message


def test_a_prompt_of_other_classes_is_refused_for_the_set(
    refuse: Callable[..., str], pets: list[str], tiny: tpt.Clip
) -> None:
    vectors = tpt.Context.from_words(tiny, "a photo of a {}.").vectors
    info = PromptInfo(model="tiny", classes=("cup", "cow"))
    tpt.Context(vectors.repeat(2, 1, 1), info=info).save("own.pt")
    assert 'of "pets" fit none of the 2 classes given: cat' in refuse("pets", "--init", "own.pt")
    message = refuse("pets", "--init", "own.pt", "--classes", "cat,dog", code=1)
    assert message.startswith('On the set "pets": ')


def test_force_takes_a_prompt_of_another_model(
    run_tpt: Run, pets: list[str], tiny: tpt.Clip
) -> None:
    vectors = tpt.Context.from_words(tiny, "a photo of a {}.").vectors
    tpt.Context(vectors, info=PromptInfo(model="ViT-B-16")).save("other.pt")
    result = evaluate(run_tpt, "pets", "--init", "other.pt", "--model", "tiny", "--force")
    assert "Warning: " in result.stderr


def test_templates_that_cannot_be_used_are_refused(
    refuse: Callable[..., str], pets: list[str]
) -> None:
    for template, count in (("a photo", 0), ("{} {}", 2)):
        message = refuse("pets", "--template", template, code=1)
        assert f'The template "{template}" holds {count} places for the class name' in message
    several = ("--template", "a {}", "--template", "the {}")
    assert "no method uses an ensemble" in refuse("pets", *several)
    Path("t.txt").write_bytes(b"caf\xe9 {}")
    assert '"t.txt" cannot be read as UTF-8 text' in refuse("pets", "--template", "t.txt")


def test_options_that_no_method_heeds_are_refused(
    refuse: Callable[..., str], pets: list[str]
) -> None:
    for option, value in (("--views", 8), ("--augment", "crop"), ("--gate", 0.9)):
        assert refuse("pets", *ZERO_SHOT, option, value) == (
            f"{option} has no meaning with these methods (zero-shot), which look at the plain "
            "picture alone. Leave it out, or add another method, such as tpt."
        )
    assert "--lr has no meaning with --method zero_shot" in refuse("pets", *ZERO_SHOT, "--lr", 1)
    assert "--weight has no meaning with --method tpt" in refuse("pets", "--set", "weight=3")
    assert "give --gate too" in refuse("pets", "--gate-views", 2)
    many = ("--views", 4, "--gate", 0.5, "--gate-views", 5)
    assert "--gate-views 5 is more than the 4 views that are made" in refuse("pets", *many)
    assert "--pretrained names the weights of a --model" in refuse("pets", "--pretrained", "x")


# --- places to write to ---


def test_an_output_that_cannot_be_a_folder_is_refused_before_anything_is_read(
    run_tpt: Run, pets: list[str]
) -> None:
    Path("file").write_text("mine")
    told = {
        "file": 'The output "file" is a file: expected a folder for the predictions',
        "file/deep/out": f'cannot be written: "{Path("file").absolute()}" is no folder. Choose',
    }
    for folder, message in told.items():
        result = run_tpt("eval", "pets", *ZERO_SHOT, "--output", folder)
        assert result.exit_code == 1
        assert message in result.stderr
        assert "pets:" not in result.stderr
    assert Path("file").read_text() == "mine"


def test_an_output_inside_a_set_of_folders_is_refused(
    run_tpt: Run, pets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("pets/out", "pets", "pets/cat/../new/out"):
        result = run_tpt("eval", "pets", *ZERO_SHOT, "--output", folder)
        assert result.exit_code == 1
        assert f'The output "{folder}" lies in the set "pets", where it would' in result.stderr
    monkeypatch.chdir("pets")
    assert run_tpt("eval", ".", *ZERO_SHOT, "--output", "out").exit_code == 1
    assert sorted(os.listdir()) == ["cat", "dog"]
    assert run_tpt("eval", ".", *ZERO_SHOT, "--output", "../pets-out").exit_code == 0


def test_a_run_without_the_extra_says_what_to_install(
    refuse: Callable[..., str], pets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def hide(*names: str) -> None:
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *more: None if name in names else find(name)
        )

    hide("sklearn")
    message = refuse("pets", code=1)
    assert "`tpt eval` needs scikit-learn for " in message
    assert message.endswith("pip install 'tpt-runtime[eval]'.")
    hide("torchmetrics", "jinja2")
    assert "needs torchmetrics, jinja2 for" in refuse("pets", code=1)
