"""`tpt predict` writes one record an image, in order, in the asked form, and exits truthfully."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

import cli.predict
import tpt
from cli.main import main
from tpt.streaming.records import csv_header

EXAMPLES = Path(__file__).parents[2] / "examples"
FAST = ("--classes", "cat,dog,cup", "--views", "2", "--device", "cpu")
ODD_NAMES = [
    *("a b.png", "a,b.png", "it's.png", 'say "x".png', "new\nline.png", "猫é.png", "#.png"),
    *("[1].png", "@x.png", "-.png", "{}.png"),
    *([] if sys.platform in ("darwin", "win32") else ["latin-\udce9.png"]),
]

Run = Callable[..., Result]
Make = Callable[..., list[str]]


def records_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout_bytes.decode().splitlines()]


def paths_of(result: Result) -> list[str]:
    return [record["path"] for record in records_of(result)]


# --- records ---


def test_every_example_image_gets_its_documented_record(run_tpt: Run) -> None:
    result = run_tpt(
        *("predict", EXAMPLES / "images", "--classes", EXAMPLES / "classes.txt", "--views", 10),
        *("--model", "lite", "--keep", 0.3),
    )
    assert result.exit_code == 0
    records = records_of(result)
    names = [Path(record["path"]).name for record in records]
    with (EXAMPLES / "labels.csv").open(encoding="utf-8", newline="") as file:
        labels = {Path(row["path"]).name: row["label"] for row in csv.DictReader(file)}
    assert sorted(names) == sorted(path.name for path in (EXAMPLES / "images").iterdir())
    assert set(labels) < set(names)
    classes = (EXAMPLES / "classes.txt").read_text().split()
    for record in records:
        assert list(record) == ["path", "predictions", "zero_shot", "adapt"]
        assert len(record["predictions"]) == 5
        scores = [prediction["score"] for prediction in record["predictions"]]
        assert scores == sorted(scores, reverse=True)
        for prediction in [*record["predictions"], record["zero_shot"]]:
            assert list(prediction) == ["label", "score", "index"]
            assert classes[prediction["index"]] == prediction["label"]
        assert list(record["adapt"]) == ["entropy_before", "entropy_after", "views_kept", "ms"]
        assert record["adapt"]["views_kept"] == 3
    first = {Path(r["path"]).name: r["predictions"][0]["label"] for r in records}
    right = [name for name, label in labels.items() if first[name] == label]
    assert len(right) >= len(labels) / 2  # of 43 classes


def test_the_records_are_those_of_the_python_names(run_tpt: Run, make_images: Make) -> None:
    names = make_images("a.png", "b.png")
    said = records_of(run_tpt("predict", *names, *FAST, "--seed", 3))
    clip = tpt.load_clip("tiny", device="cpu")
    method = tpt.TPT(tpt.PromptEngine(clip, ["cat", "dog", "cup"]))
    computed = [r.to_dict() for r in tpt.stream(names, method, tpt.Views(clip, n=2, seed=3))]
    for record in [*said, *computed]:
        del record["adapt"]["ms"]
    assert said == computed


def test_images_of_a_folder_come_in_natural_order(run_tpt: Run, make_images: Make) -> None:
    make_images("in/10.png", "in/2.png", "in/B.png", "in/a.png")
    result = run_tpt("predict", "in", *FAST)
    assert paths_of(result) == ["in/2.png", "in/10.png", "in/a.png", "in/B.png"]


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (9, 3)])
def test_top_k_sets_the_number_of_predictions(
    run_tpt: Run, make_images: Make, top_k: int, count: int
) -> None:
    make_images("a.png")
    (record,) = records_of(run_tpt("predict", "a.png", *FAST, "--top-k", top_k))
    assert len(record["predictions"]) == count


def test_a_single_class_is_certain(run_tpt: Run, make_images: Make) -> None:
    make_images("a.png")
    (record,) = records_of(run_tpt("predict", "a.png", "--classes", "cat", "--views", 2))
    assert record["predictions"] == [{"label": "cat", "score": 1.0, "index": 0}]


# --- methods ---


@pytest.mark.parametrize("method", ["zero_shot", "zero-shot"])
def test_zero_shot_does_not_adapt(run_tpt: Run, make_images: Make, method: str) -> None:
    make_images("a.png")
    zero_shot = ("--classes", "cat,dog,cup", "--method", method)
    (plain,) = records_of(run_tpt("predict", "a.png", *zero_shot))
    (tuned,) = records_of(run_tpt("predict", "a.png", *FAST))
    assert list(plain) == ["path", "predictions", "zero_shot"]
    assert plain["predictions"][0] == plain["zero_shot"]
    assert plain["zero_shot"] == pytest.approx(tuned["zero_shot"], abs=1e-5)


def test_templates_make_an_ensemble_from_options_or_a_file(run_tpt: Run, make_images: Make) -> None:
    make_images("a.png")
    templates = ["a photo of a {}.", "a blurry photo of the {}."]
    Path("templates.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(templates).encode())

    def predict(*options: str) -> list[dict[str, Any]]:
        zero_shot = ("--classes", "cat,dog,cup", "--method", "zero_shot")
        result = run_tpt("predict", "a.png", *zero_shot, *options)
        assert result.exit_code == 0
        return records_of(result)

    both = predict("--template", templates[0], "--template", templates[1])
    assert predict("--template", "templates.txt") == both
    assert predict("--template", templates[0]) != both
    assert predict("--template", templates[1]) != both
    # Sentences and contexts are packed differently, so their last digits may differ.
    (one,), (default,) = predict("--template", templates[0]), predict()
    lists = [record.pop("predictions") for record in (one, default)]
    zero_shot = [record.pop("zero_shot") for record in (one, default)]
    assert one == default
    for given, found in [zero_shot, *zip(*lists, strict=True)]:
        assert given == pytest.approx(found, abs=1e-5)


def test_a_template_moves_the_start_of_tpt(run_tpt: Run, make_images: Make) -> None:
    make_images("a.png")
    words = ("--template", "a blurry photo of the {} in the wild")
    (record,) = records_of(run_tpt("predict", "a.png", *FAST, *words))
    (default,) = records_of(run_tpt("predict", "a.png", *FAST))
    assert record["zero_shot"]["score"] != default["zero_shot"]["score"]


def test_seed_augment_and_keep_change_what_adaptation_sees(run_tpt: Run, make_images: Make) -> None:
    make_images("a.png")
    options = [(), ("--seed", 1), ("--augment", "augmix"), ("--keep", 1), ("--lr", 0.1)]
    entropies = []
    for more in [*options, ("--steps", 2)]:
        (record,) = records_of(
            run_tpt("predict", "a.png", *FAST, "--views", 8, "--keep", 0.5, *more)
        )
        entropies.append((record["adapt"]["entropy_before"], record["adapt"]["entropy_after"]))
    assert len(set(entropies)) == len(entropies)


# --- forms and places of the output ---


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_file_name_comes_back_exactly(run_tpt: Run, make_images: Make, name: str) -> None:
    make_images(f"in/{name}")
    result = run_tpt("predict", "in", "--classes", "cat,dog", "--method", "zero_shot")
    assert result.exit_code == 0
    assert paths_of(result) == [f"in/{name}"]


def test_csv_gives_every_name_back(run_tpt: Run, make_images: Make) -> None:
    make_images(*(f"in/{name}" for name in ODD_NAMES))
    Path("in/bad,\n.png").write_text("no image")
    result = run_tpt("predict", "in", *FAST, "--format", "csv")
    assert result.exit_code == 3
    text = result.stdout_bytes.decode("utf-8", "surrogateescape")
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == csv_header(5)
    assert {row[0] for row in rows} == {f"in/{n}" for n in [*ODD_NAMES, "bad,\n.png"]}
    assert len(rows) == len(ODD_NAMES) + 1
    assert {len(row) for row in rows} == {len(header)}


def test_a_table_is_for_people(run_tpt: Run, make_images: Make) -> None:
    make_images("a.png", "b\n.png")
    result = run_tpt("predict", "a.png", "b\n.png", *FAST, "--format", "table")
    title, _, first, second = result.stdout.splitlines()
    assert title.startswith("image")
    assert first.startswith("a.png ")
    assert second.startswith("b\\n.png ")
    assert " -> " in first


@pytest.mark.parametrize(("name", "start"), [("o.jsonl", "{"), ("o.csv", "path,"), ("o.CSV", "p")])
def test_a_file_takes_its_form_from_its_name(
    run_tpt: Run, make_images: Make, name: str, start: str
) -> None:
    make_images("a.png")
    result = run_tpt("predict", "a.png", *FAST, "--output", name)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert Path(name).read_text().startswith(start)
    assert f"Records: {name}" in result.stderr


def test_the_file_holds_what_standard_output_would(
    run_tpt: Run, make_images: Make, still_clock: None
) -> None:
    make_images("a.png", "b.png")
    printed = run_tpt("predict", ".", *FAST).stdout_bytes
    run_tpt("predict", ".", *FAST, "--output", "out.jsonl")
    assert Path("out.jsonl").read_bytes() == printed


def test_a_settings_file_stands_beside_the_output(run_tpt: Run, make_images: Make) -> None:
    make_images("a.png")
    run_tpt("predict", "a.png", *FAST, "--output", "out.jsonl", "--lr", 0.01, "--top-k", 2)
    kept = json.loads(Path("out.jsonl.settings.json").read_text())
    expected = {"model": "tiny", "method": "tpt", "views": 2, "lr": 0.01, "seed": 0, "top_k": 2}
    assert expected.items() <= kept["settings"].items()
    assert kept["settings"]["classes"] == ["cat", "dog", "cup"]
    assert kept["settings"]["format"] == "jsonl"
    assert kept["run"].keys() == {"tpt_runtime", "torch", "init", "device"}


def test_overwrite_starts_again(run_tpt: Run, make_images: Make, still_clock: None) -> None:
    make_images("a.png", "b.png")
    run_tpt("predict", "a.png", "b.png", *FAST, "--output", "out.jsonl")
    result = run_tpt("predict", "b.png", *FAST, "--output", "out.jsonl", "--overwrite", "--seed", 9)
    assert result.exit_code == 0
    assert Path("out.jsonl").read_bytes() == (
        run_tpt("predict", "b.png", *FAST, "--seed", 9).stdout_bytes
    )
    assert json.loads(Path("out.jsonl.settings.json").read_text())["settings"]["seed"] == 9


# --- sources ---


@pytest.mark.parametrize("text", ["b.png\na.png\n", "\ufeffb.png\r\na.png\r\n", "b.png\0a.png\0"])
def test_paths_come_from_standard_input_or_a_list(
    run_tpt: Run, make_images: Make, text: str
) -> None:
    make_images("a.png", "b.png")
    Path("list.txt").write_bytes(text.encode())
    assert paths_of(run_tpt("predict", "-", *FAST, stdin=text.encode())) == ["b.png", "a.png"]
    assert paths_of(run_tpt("predict", "@list.txt", *FAST)) == ["b.png", "a.png"]


def test_names_that_are_not_utf8_come_from_standard_input(run_tpt: Run, make_images: Make) -> None:
    (name,) = make_images("latin-\udce9.png")
    assert paths_of(run_tpt("predict", "-", *FAST, stdin=os.fsencode(name))) == [name]


def test_recursive_walks_into_folders(run_tpt: Run, make_images: Make) -> None:
    make_images("in/a.png", "in/sub/b.png")
    assert paths_of(run_tpt("predict", "in", *FAST)) == ["in/a.png"]
    assert paths_of(run_tpt("predict", "in", *FAST, "--recursive")) == ["in/a.png", "in/sub/b.png"]


def test_files_that_no_name_calls_pictures_are_told_or_looked_into(
    run_tpt: Run, make_images: Make
) -> None:
    make_images("in/a.png", "in/photo")
    Path("in/notes.txt").write_text("no picture")
    told = run_tpt("predict", "in", *FAST)
    assert paths_of(told) == ["in/a.png"]
    assert (
        "Note: 2 files skipped (not an image's extension): in/notes.txt, in/photo. "
        "--all-files looks inside them." in told.stderr
    )
    looked = run_tpt("predict", "in", *FAST, "--all-files")
    assert paths_of(looked) == ["in/a.png", "in/photo"]
    assert "Note: 1 file skipped (no picture inside): in/notes.txt." in looked.stderr


def test_a_pipe_goes_on_where_an_earlier_run_stopped(
    run_tpt: Run, make_images: Make, still_clock: None
) -> None:
    names = make_images("a.png", "b.png", "c.png")
    words = ("predict", "-", *FAST, "--output", "out.jsonl")
    assert run_tpt(*words, stdin=b"a.png\n").exit_code == 0
    result = run_tpt(*words, "--resume", stdin="\n".join(names).encode())
    assert result.exit_code == 0
    assert "2 images in" in result.stderr
    whole = run_tpt("predict", *names, *FAST).stdout_bytes
    assert Path("out.jsonl").read_bytes() == whole


@pytest.mark.skipif(os.name == "nt", reason="pipes there are others")
def test_lines_are_predicted_as_they_come(command: list[str], make_images: Make) -> None:
    make_images("a.png", "b.png")
    words = ["predict", "-", *FAST, "--method", "zero_shot", "--quiet"]
    words = [word for word in words if word not in ("--views", "2")]
    with subprocess.Popen(
        [*command, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for name in ("b.png", "gone.png", "a.png"):
            process.stdin.write(f"{name}\n".encode())
            line = process.stdout.readline()  # while the pipe stays open
            assert json.loads(line)["path"] == name
        process.stdin.close()
        assert process.wait(60) == 3


# --- class lists ---


def test_one_list_is_read_alike_by_every_command(run_tpt: Run, make_images: Make) -> None:
    make_images("s/n02123045/a.png", "s/n02085620/b.png")
    Path("list.json").write_text('{"n02085620": "dog", "n02123045": "cat"}')
    zero_shot = ("--classes", "list.json", "--device", "cpu")
    (record,) = records_of(
        run_tpt("predict", "s/n02123045/a.png", *zero_shot, "--method", "zero_shot")
    )
    assert {p["label"]: p["index"] for p in record["predictions"]} == {"dog": 0, "cat": 1}
    told = run_tpt(
        "eval", "s", *zero_shot, "--methods", "zero-shot", "--output", "out", "--dry-run"
    )
    assert told.exit_code == 0, told.stderr
    assert "2 classes, 2 pictures" in told.stderr
    for command in (
        ["predict", "s/n02123045/a.png"],
        ["eval", "s", "--output", "out"],
        ["train", "s", "--output", "p.safetensors"],
    ):
        refused = run_tpt(*command, "--classes", "cat;dog")
        assert refused.exit_code == 2
        assert (
            "Invalid value for --classes: Class name 1 ('cat;dog') holds several" in refused.stderr
        )


def test_doubtful_names_are_told(run_tpt: Run, make_images: Make) -> None:
    make_images("a.png")
    result = run_tpt("predict", "a.png", "--classes", "001.Cat,002.Dog", "--method", "zero_shot")
    assert "Note: 2 class names begin with a number or an id" in result.stderr


# --- what is said on stderr ---


def test_the_embedded_model_and_the_summary_are_told(run_tpt: Run, make_images: Make) -> None:
    make_images("a.png", "b.png")
    assert "embedded" not in run_tpt("predict", ".", *FAST).stderr
    stderr = CliRunner().invoke(main, ["predict", ".", *FAST]).stderr
    assert "Model: lite, the small embedded model. For real work give --model" in stderr
    assert "2 of 2 images in " in stderr


def test_what_was_assumed_of_a_picture_is_in_every_form(run_tpt: Run, make_images: Make) -> None:
    make_images("a.png")
    Path("b.png").write_bytes(Path("a.png").read_bytes()[:-12])
    lost = "Its last bytes are missing or wrong, but all its pixels are there."
    result = run_tpt("predict", ".", *FAST)
    first, second = records_of(result)
    assert ("warning" in first, second["warning"]) == (False, lost)
    assert "2 of 2 images in " in result.stderr
    assert ", 1 with a warning" in result.stderr
    rows = list(
        csv.DictReader(io.StringIO(run_tpt("predict", ".", *FAST, "--format", "csv").stdout))
    )
    assert [row["warning"] for row in rows] == ["", lost]
    assert f"  warning: {lost}" in run_tpt("predict", ".", *FAST, "--format", "table").stdout


def test_random_weights_are_told(run_tpt: Run, make_images: Make) -> None:
    make_images("a.png")
    result = run_tpt("predict", ".", *FAST, "--model", "tiny", "--pretrained", "random")
    assert result.exit_code == 0
    assert "the predictions mean nothing" in result.stderr


def test_quiet_leaves_stderr_empty_even_with_bad_images(run_tpt: Run, make_images: Make) -> None:
    make_images("a.png")
    Path("bad.png").write_text("no image")
    result = run_tpt("predict", ".", *FAST, "--quiet")
    assert result.exit_code == 3
    assert result.stderr == ""
    assert len(records_of(result)) == 2


def test_pillows_notes_on_broken_metadata_are_not_shown(run_tpt: Run) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03\0\0"  # five entries, cut in the first
    Image.new("RGB", (40, 30)).save("a.jpg", exif=exif)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Image.open("a.jpg").getexif()
        assert caught
        caught.clear()
        assert run_tpt("predict", "a.jpg", *FAST).exit_code == 0
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.parametrize(
    ("on_terminal", "output", "silent"),
    [(True, "-", True), (True, "out.jsonl", False), (False, "-", False)],
)
def test_no_bar_is_drawn_into_records_on_a_terminal(
    run_tpt: Run,
    make_images: Make,
    monkeypatch: pytest.MonkeyPatch,
    on_terminal: bool,
    output: str,
    silent: bool,
) -> None:
    make_images("a.png")
    asked, real = [], cli.predict.progress

    def watch(quiet: bool) -> Any:
        asked.append(quiet)
        return real(quiet)

    monkeypatch.setattr(cli.predict, "progress", watch)
    screen = SimpleNamespace(isatty=lambda: on_terminal)
    monkeypatch.setattr(cli.predict, "sys", SimpleNamespace(stdin=None, stdout=screen))
    result = run_tpt("predict", "a.png", *FAST, "--output", output)
    assert asked == [silent]
    assert "1 of 1 images" in result.stderr


def test_dry_run_prints_the_settings_and_runs_nothing(
    run_tpt: Run, make_images: Make, no_forward_pass: None
) -> None:
    make_images("a.png", "b.png")
    result = run_tpt(
        *("predict", ".", *FAST, "--views", 30, "--dry-run", "--output", "out-\udce9.csv")
    )
    assert result.exit_code == 0
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert rows["images"] == "2"
    assert rows["views_kept"] == "3"
    assert rows["classes"] == "cat, dog, cup"
    assert rows["output"] == "out-\\udce9.csv (csv)"
    assert sorted(os.listdir()) == ["a.png", "b.png"]


# --- exit codes ---


def test_some_bad_images_are_records_and_exit_code_3(run_tpt: Run, make_images: Make) -> None:
    make_images("a.png", "c.png")
    Path("b.png").write_text("no image")
    result = run_tpt("predict", ".", *FAST)
    assert result.exit_code == 3
    first, bad, last = records_of(result)
    assert list(bad) == ["path", "error"]
    assert bad["error"]["type"] == "ImageError"
    assert "'./b.png' is not an image" in bad["error"]["message"]
    assert "error" not in first
    assert "error" not in last
    assert ", 1 failed" in result.stderr


@pytest.mark.parametrize("method", ["tpt", "zero_shot"])
def test_only_bad_images_are_all_records_and_exit_code_3(run_tpt: Run, method: str) -> None:
    Path("a.png").touch()
    Path("b.png").mkdir()
    Path("list.txt").write_text("a.png\nb.png\nmissing.png\n")
    result = run_tpt("predict", "@list.txt", "--classes", "cat,dog", "--method", method)
    assert result.exit_code == 3
    assert [list(record) for record in records_of(result)] == [["path", "error"]] * 3


@pytest.mark.parametrize("size", [1, 2, 8])
def test_strict_stops_at_the_first_bad_image(run_tpt: Run, make_images: Make, size: int) -> None:
    make_images("1.png", "2.png", "4.png")
    Path("3.png").write_text("no image")
    result = run_tpt(
        "predict", ".", *FAST, "--strict", "--output", "out.jsonl", "--batch-size", size
    )
    assert result.exit_code == 1
    assert "Error: './3.png' is not an image" in result.stderr
    written = [json.loads(line) for line in Path("out.jsonl").read_bytes().splitlines()]
    assert [record["path"] for record in written] == ["./1.png", "./2.png"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (["--model", "ViT-B16"], 1, 'Unknown model "ViT-B16". Did you mean "ViT-B-16"'),
        (["--model", "ViT-B-16"], 1, "needs weights"),
        (["--precision", "fp16"], 1, "fp16 is not available on a CPU"),
        (["--device", "gpu"], 1, 'Unknown device "gpu": expected auto, cpu'),
        (["--init", "missing.pt"], 1, '"missing.pt" cannot be read'),
        (["--vews", "3"], 2, "--views"),
        (["--method", "tpd"], 2, 'Did you mean "tpt"'),
        (["--views", "0"], 2, "--views"),
        (["--keep", "0"], 2, "--keep"),
        (["--keep", "1.5"], 2, "--keep"),
        (["--keep", "nan"], 2, "keep"),
        (["--lr", "inf"], 2, "lr must be a positive number"),
        (["--top-k", "0"], 2, "--top-k"),
        (["--batch-size", "0"], 2, "--batch-size"),
        (["--num-workers", "-1"], 2, "--num-workers"),
        (["--reset", "never"], 2, "--reset"),
        (["no-such-folder"], 2, "'no-such-folder' does not exist"),
        (["empty"], 2, "'empty' holds no images"),
        (["@missing.txt"], 2, "'missing.txt' cannot be read"),
        (["*.gif"], 2, "matches nothing"),
    ],
)
def test_what_cannot_run_fails_in_one_sentence_before_any_record(
    run_tpt: Run, make_images: Make, error: list[str], code: int, words: str
) -> None:
    make_images("a.png")
    Path("empty").mkdir()
    result = run_tpt("predict", "a.png", *FAST, *error, "--output", "out.jsonl")
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stdout == ""
    assert not Path("out.jsonl").exists()
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")


def test_no_sources_is_wrong_usage(run_tpt: Run) -> None:
    result = run_tpt("predict", *FAST)
    assert result.exit_code == 2
    assert "SOURCES" in result.stderr


def test_nothing_on_standard_input_is_wrong_usage(run_tpt: Run) -> None:
    result = run_tpt("predict", "-", *FAST, stdin="")
    assert result.exit_code == 2
    assert "Check the command before the pipe" in result.stderr


@pytest.mark.parametrize("place", ["a.png/out.jsonl", "missing/out.jsonl", "."])
def test_an_output_that_cannot_be_written_is_one_sentence(
    run_tpt: Run, make_images: Make, place: str
) -> None:
    make_images("a.png")
    result = run_tpt("predict", "a.png", *FAST, "--output", place)
    assert result.exit_code == 1
    assert "Error: Records could not be written to " in result.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("form", ["jsonl", "csv", "table"])
def test_a_full_disk_is_one_sentence(run_tpt: Run, make_images: Make, form: str) -> None:
    make_images("a.png")
    result = run_tpt("predict", "a.png", *FAST, "--output", "/dev/full", "--format", form)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(
        'Error: Records could not be written to "/dev/full": No space left on device.'
    )


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_standard_output_is_one_sentence(command: list[str], make_images: Make) -> None:
    make_images("a.png")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*command, "predict", ".", *FAST, "--quiet"],
            **{"stdout": full, "stderr": subprocess.PIPE, "text": True},
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "written to standard output: No space left on device" in done.stderr


@pytest.mark.slow
def test_a_reader_that_closes_early_gets_its_line_and_no_traceback(
    command: list[str], make_images: Make
) -> None:
    make_images(*(f"{number}.png" for number in range(6)))
    process = subprocess.Popen(
        [*command, "predict", ".", *FAST, "--quiet"],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE},
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["path"] == "./0.png"
    process.stdout.close()
    _, stderr = process.communicate(timeout=120)
    assert stderr == b""
    assert process.returncode == 1
