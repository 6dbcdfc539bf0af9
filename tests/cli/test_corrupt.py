"""`tpt corrupt SRC DST`: whole files in ImageNet-C's layout, the same again, and every mistake."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from refusals import error_of

import tpt
from tpt.corrupt import CORRUPTIONS, corrupt
from tpt.corrupt import corrupted_copy as folder
from tpt.images.decode import decode_image

Run = Callable[..., Result]
NAMES = ("in/cat/1.png", "in/cat/2.png", "in/dog/old/3.png")
NOISE = ("--kind", "gaussian_noise", "--severity", "2")


@pytest.fixture
def pictures(make_images: Callable[..., list[str]]) -> list[str]:
    return make_images(*NAMES)


def list_files(top: str) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its bytes."""
    return {
        path.relative_to(top).as_posix(): path.read_bytes()
        for path in sorted(Path(top).rglob("*"))
        if path.is_file()
    }


def refusal(run_tpt: Run, *words: object, code: int) -> str:
    return error_of(run_tpt("corrupt", *words), code)


# --- what is written ---


@pytest.mark.usefixtures("pictures")
def test_every_picture_comes_in_every_kind_and_severity_with_its_folders(run_tpt: Run) -> None:
    result = run_tpt("corrupt", "in", "out", "--kind", "contrast,fog", "--severity", "1,4-5")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "18 files of 3 pictures written to out in " in result.stderr
    expected = {
        f"{kind}/{severity}/{name.removeprefix('in/')}"
        for kind in ("contrast", "fog")
        for severity in (1, 4, 5)
        for name in NAMES
    }
    assert set(list_files("out")) == {"corruptions.json", *expected}


def test_all_kinds_and_severities_are_the_default(
    run_tpt: Run, make_images: Callable[..., list[str]]
) -> None:
    make_images("in/a.png")
    assert run_tpt("corrupt", "in", "out").exit_code == 0
    found = {
        (kind, level) for kind, level, _ in (p.split("/") for p in list_files("out") if "/" in p)
    }
    assert found == {(kind, str(level)) for kind in CORRUPTIONS for level in range(1, 6)}


@pytest.mark.usefixtures("pictures")
def test_a_file_holds_what_the_function_gives_for_the_seed_and_the_path_inside_the_folder(
    run_tpt: Run,
) -> None:
    run_tpt("corrupt", "in", "out", *NOISE, "--seed", 7)
    expected = corrupt(decode_image(NAMES[2]), "gaussian_noise", 2, 7, "dog/old/3.png")
    assert (decode_image("out/gaussian_noise/2/dog/old/3.png") == expected).all()


@pytest.mark.usefixtures("pictures")
def test_neither_workers_nor_other_pictures_nor_the_folders_name_change_a_file(
    run_tpt: Run,
) -> None:
    for workers in (0, 3):
        run_tpt("corrupt", "in", f"out{workers}", *NOISE, "--num-workers", workers)
    files = [list_files(f"out{workers}/gaussian_noise") for workers in (0, 3)]
    assert files[0] == files[1]
    os.remove(NAMES[0])
    os.rename("in", "renamed")
    run_tpt("corrupt", "renamed", "alone", *NOISE)
    alone = list_files("alone/gaussian_noise")
    assert alone == {name: files[0][name] for name in ("2/cat/2.png", "2/dog/old/3.png")}


@pytest.mark.usefixtures("pictures")
def test_jpg_is_written_on_request(run_tpt: Run) -> None:
    run_tpt("corrupt", "in", "out", "--kind", "fog", "--severity", 1, "--format", "jpg")
    with Image.open("out/fog/1/cat/1.jpg") as image:
        assert image.format == "JPEG"


def test_two_pictures_of_one_name_keep_their_extensions(
    run_tpt: Run, make_images: Callable[..., list[str]]
) -> None:
    make_images("in/a.png", "in/A.jpg", "in/b.jpg")
    assert run_tpt("corrupt", "in", "out", *NOISE).exit_code == 0
    assert sorted(os.listdir("out/gaussian_noise/2")) == ["A.jpg.png", "a.png.png", "b.png"]


@pytest.mark.usefixtures("pictures")
def test_the_sidecar_says_how_the_pictures_were_made(run_tpt: Run) -> None:
    run_tpt("corrupt", "in", "out", *NOISE, "--seed", 3)
    run_tpt("corrupt", "in", "out", "--kind", "fog", "--severity", 5, "--seed", 3)
    note = json.loads(Path("out/corruptions.json").read_text())
    assert note["kinds"] == ["fog", "gaussian_noise"]
    assert note["severities"] == [2, 5]
    assert note["settings"]["seed"] == 3
    assert note["version"] == tpt.__version__


@pytest.mark.usefixtures("pictures")
def test_quiet_says_nothing(run_tpt: Run) -> None:
    assert run_tpt("corrupt", "in", "out", *NOISE, "--quiet").stderr == ""


# --- going on ---


@pytest.mark.usefixtures("pictures")
def test_a_stopped_run_goes_on_to_the_bytes_of_an_unbroken_one(
    run_tpt: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_tpt("corrupt", "in", "whole", *NOISE)
    with monkeypatch.context() as broken:
        stop_at(broken, "3.png", KeyboardInterrupt())
        result = run_tpt("corrupt", "in", "out", *NOISE, "--num-workers", 0)
    assert result.exit_code == 130
    assert result.stderr.endswith("Interrupted.\n")
    assert list(list_files("out/gaussian_noise")) == ["2/cat/1.png", "2/cat/2.png"]

    result = run_tpt("corrupt", "in", "out", *NOISE)
    assert "1 files of 3 pictures written" in result.stderr
    assert "2 were there already (--overwrite makes them again)" in result.stderr
    assert list_files("out") == list_files("whole")


def stop_at(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    """Let the last step of writing a file of this name fail."""
    replace = os.replace

    def fail(old: Any, new: Any) -> None:
        if str(new).endswith(name):
            raise error
        replace(old, new)

    monkeypatch.setattr(folder.os, "replace", fail)


@pytest.mark.usefixtures("pictures")
def test_files_that_are_there_are_made_again_only_with_overwrite(run_tpt: Run) -> None:
    run_tpt("corrupt", "in", "out", *NOISE)
    before = list_files("out")
    path = Path("out/gaussian_noise/2/cat/1.png")
    path.write_bytes(b"changed")
    run_tpt("corrupt", "in", "out", *NOISE)
    assert path.read_bytes() == b"changed"
    result = run_tpt("corrupt", "in", "out", *NOISE, "--overwrite")
    assert "3 files of 3 pictures written" in result.stderr
    assert list_files("out") == before


@pytest.mark.usefixtures("pictures")
def test_what_a_killed_run_left_is_used_up_by_the_next(run_tpt: Run) -> None:
    run_tpt("corrupt", "in", "out", *NOISE)
    names = set(list_files("out"))
    digest = folder.hashlib.sha256(b"1.png").hexdigest()[:16]
    left = Path("out/gaussian_noise/2/cat", f".tpt-{digest}.part")
    left.write_bytes(b"half")
    (left.parent / "1.png").unlink()
    run_tpt("corrupt", "in", "out", *NOISE)
    assert set(list_files("out")) == names


# --- broken pictures and disks ---


@pytest.mark.usefixtures("pictures")
def test_broken_pictures_are_named_and_counted_and_the_others_go_on(run_tpt: Run) -> None:
    Path("in/cat/broken.png").write_bytes(b"no picture")
    Path("in/cat/empty.jpg").touch()
    result = run_tpt("corrupt", "in", "out", *NOISE, "--quiet")
    assert result.exit_code == 3
    assert "Warning: 'in/cat/broken.png' is not an image" in result.stderr
    assert "Warning: 'in/cat/empty.jpg' is empty" in result.stderr
    result = run_tpt("corrupt", "in", "out", *NOISE)
    assert result.exit_code == 3
    assert "0 files of 5 pictures written" in result.stderr
    assert "; 2 pictures could not be read." in result.stderr
    assert len(list_files("out/gaussian_noise")) == 3


def test_a_picture_too_long_for_jpg_is_named(run_tpt: Run) -> None:
    os.mkdir("in")
    Image.fromarray(np.zeros((1, 65_501, 3), np.uint8)).save("in/long.png")
    words = ("--kind", "contrast", "--severity", 1, "--format", "jpg")
    result = run_tpt("corrupt", "in", "out", *words)
    assert result.exit_code == 3
    assert (
        "'in/long.png': A picture of 65501 x 1 pixels does not fit in a JPEG file. Use --format"
        in result.stderr
    )


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_one_sentence_and_leaves_no_part_of_a_file(
    run_tpt: Run, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "x.part")
    stop_at(monkeypatch, "2.png", full)
    text = refusal(run_tpt, "in", "out", *NOISE, "--num-workers", workers, code=1)
    assert text.startswith("Corrupted pictures could not be written to")
    assert "No space left on device. What was written before is whole; put this right" in text
    assert not [name for name in list_files("out") if ".part" in name or "2.png" in name]


@pytest.mark.usefixtures("pictures")
def test_a_target_that_is_a_file_is_refused(run_tpt: Run) -> None:
    Path("out").touch()
    text = refusal(run_tpt, "in", "out", *NOISE, code=1)
    assert 'could not be written to "out" in "out": File exists.' in text


# --- mistakes ---


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("--seed", "1"), "(seed; seed was 0, now 1)"),
        (("--format", "jpg"), '(format; format was "png", now "jpg")'),
        (("--seed", "1", "--overwrite"), "(seed; seed was 0, now 1)"),
    ],
)
def test_a_set_made_with_other_settings_is_refused_and_left_alone(
    run_tpt: Run, change: tuple[str, ...], told: str
) -> None:
    run_tpt("corrupt", "in", "out", *NOISE)
    before = list_files("out")
    text = refusal(run_tpt, "in", "out", *NOISE, *change, code=1)
    assert f'"out" was made with other settings {told}, and a set must not mix two.' in text
    assert list_files("out") == before


def test_a_set_made_of_another_folder_is_refused(
    run_tpt: Run, make_images: Callable[..., list[str]]
) -> None:
    make_images("a/1.png", "b/1.png")
    run_tpt("corrupt", "a", "out", *NOISE)
    assert "made with other settings (source;" in refusal(run_tpt, "b", "out", *NOISE, code=1)


@pytest.mark.usefixtures("pictures")
def test_a_folder_of_other_things_is_not_written_to(run_tpt: Run) -> None:
    Path("out").mkdir()
    assert run_tpt("corrupt", "in", "out", *NOISE).exit_code == 0
    Path("out/corruptions.json").write_text("[]")
    text = refusal(run_tpt, "in", "out", *NOISE, code=1)
    assert '"out/corruptions.json" is damaged, so nobody knows how "out" was made.' in text
    Path("out/corruptions.json").unlink()
    text = refusal(run_tpt, "in", "out", *NOISE, code=1)
    assert '"out" is not empty and holds no corruptions.json' in text


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("target", ["in", "in/out", "in/cat/../cat/x", "link/out"])
def test_a_target_inside_the_source_is_refused(run_tpt: Run, target: str) -> None:
    os.symlink("in", "link")
    text = refusal(run_tpt, "in", target, *NOISE, code=2)
    assert f"would go to '{target}', which lies inside 'in'" in text
    assert not os.path.exists("in/out")


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            "inn",
            "The source 'inn' does not exist: expected a folder of pictures. Did you mean \"in\"?",
        ),
        (
            "zzz/q",
            "The source 'zzz/q' does not exist: expected a folder of pictures. Its folder \"zzz\" "
            "cannot be listed either. Check the path.",
        ),
        ("in/cat/1.png", "The source 'in/cat/1.png' is a file: expected a folder of pictures"),
        ("none", "The folder 'none' holds no images, nor do its sub-folders"),
    ],
)
def test_a_source_without_pictures_is_refused(run_tpt: Run, source: str, told: str) -> None:
    os.mkdir("none")
    assert told in refusal(run_tpt, source, "out", *NOISE, code=2)
    assert not os.path.exists("out")


def test_names_that_cannot_be_kept_apart_are_refused(
    run_tpt: Run, make_images: Callable[..., list[str]]
) -> None:
    make_images("in/a.png", "in/a.jpg", "in/a.jpg.bmp")
    text = refusal(run_tpt, "in", "out", *NOISE, code=2)
    assert "'a.jpg' and 'a.jpg.bmp' would become the same file. Rename one of them." in text


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--kind", "contrst"), 'Unknown corruption "contrst": expected one of gaussian_noise,'),
        (("--kind", "contrst"), 'Did you mean "contrast"?'),
        (("--kind", "fog,fog"), '"fog" is named twice. Name it once.'),
        (("--kind", "all,fog"), '"all" is every kind, so it stands alone. Leave the others out.'),
        (("--severity", "6"), '"6" is no severity: expected a whole number from 1 (weak) to 5'),
        (("--severity", "1,1"), '"1" is named twice. Name it once.'),
    ],
)
def test_kinds_and_severities_that_do_not_exist_are_refused(
    run_tpt: Run, words: tuple[str, ...], told: str
) -> None:
    assert told in refusal(run_tpt, "in", "out", *words, code=2)
    assert not os.path.exists("out")
