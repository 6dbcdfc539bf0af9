"""`tpt predict --method NAME`: every method, its options, a gate, and TDA's state."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result
from every_method import ALL, METHODS, TOWERS
from refusals import error_of

import tpt
from tpt.methods.registry import make_settings
from tpt.streaming import predict_job as job

CLASSES = ("cat", "dog", "cup")
NAMES = [f"{number}.png" for number in range(8)]
READING = [name for name, info in METHODS.items() if info.needs_views]
TUNING = [name for name, info in METHODS.items() if info.gradient]
STATELESS = [name for name, info in METHODS.items() if not info.keeps_state]
WITH_TEMPLATES = [name for name, info in METHODS.items() if info.takes_templates]
TEMPLATES = ("--template", "a sketch of a {}.", "--template", "itap of my {}")
SPLIT = 0.455  # a threshold that some of the eight pictures reach

Predict = Callable[..., Result]


@pytest.fixture
def clip(golden: SimpleNamespace) -> tpt.Clip:
    """The small seeded model, under a name."""
    return tpt.Clip(golden.clip.model, golden.clip.tokenizer, name="seeded")


@pytest.fixture
def predict(
    run_tpt: Callable[..., Result],
    make_images: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    clip: tpt.Clip,
) -> Predict:
    """Run `tpt predict` with the small model; on all eight pictures, unless `paths` says which."""
    monkeypatch.setattr(job, "load_clip", lambda *args, **options: clip)
    make_images(*NAMES)

    def run(*options: object, paths: list[str] = NAMES, classes: tuple[str, ...] = CLASSES) -> Any:
        # Views are said only where they are read: elsewhere they are refused.
        words = [str(option) for option in options]
        name = words[words.index("--method") + 1] if "--method" in words else "tpt"
        reads = "--keep" in words or name.lower().replace("-", "") in READING
        views = ("--views", "4") if reads and "--views" not in words else ()
        return run_tpt("predict", *paths, "--classes", ",".join(classes), *views, *options)

    return run


def records_of(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout_bytes.decode().splitlines()]


def assert_refused(result: Result, *words: str) -> None:
    """Wrong usage, told in a sentence before any record."""
    message = error_of(result)
    for word in words:
        assert word in message


def settings_of(output: str) -> dict[str, Any]:
    return json.loads(Path(f"{output}.settings.json").read_text())["settings"]


# --- every method ---


@pytest.mark.parametrize("name", ALL)
def test_every_method_gives_every_image_its_record(predict: Predict, name: str) -> None:
    records = records_of(predict("--method", name))
    assert [record["path"] for record in records] == NAMES
    kind = "votes" if name == "zero" else "score"
    for record in records:
        adapt = [] if name in ("zero_shot", *TOWERS) else ["adapt"]  # no views to tell of
        assert list(record) == ["path", "predictions", "zero_shot", *adapt]
        values = [prediction[kind] for prediction in record["predictions"]]
        assert values == sorted(values, reverse=True)
        for prediction in record["predictions"]:
            assert list(prediction) == ["label", kind, "index"]
            assert CLASSES[prediction["index"]] == prediction["label"]
        assert list(record["zero_shot"]) == ["label", "score", "index"]
        assert sum(values) == pytest.approx(1, abs=1e-5) or name == "zero"


@pytest.mark.parametrize("name", ALL)
def test_every_method_starts_from_zero_shot(predict: Predict, name: str) -> None:
    plain = records_of(predict("--method", "zero_shot"))
    for record, zero_shot in zip(records_of(predict("--method", name)), plain, strict=True):
        assert record["zero_shot"] == pytest.approx(zero_shot["predictions"][0], abs=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_the_settings_file_holds_the_methods_settings(predict: Predict, name: str) -> None:
    assert predict("--method", name, "--output", "out.jsonl").exit_code == 0
    settings = settings_of("out.jsonl")
    assert settings["method"] == name
    assert vars(make_settings(name, {})).items() <= settings.items()
    views = {"views": 4, "augment": "crop"} if name in READING else {}
    assert {key: settings[key] for key in ("views", "augment") if key in settings} == views
    assert "gate" not in settings
    assert "state" not in settings


def test_a_method_may_be_written_as_in_its_paper(predict: Predict, still_clock: None) -> None:
    written = predict("--method", "C-TPT", "--output", "out.jsonl", "--views", 4)
    assert written.exit_code == 0
    assert Path("out.jsonl").read_bytes() == predict("--method", "ctpt").stdout_bytes
    assert settings_of("out.jsonl")["method"] == "ctpt"


@pytest.mark.parametrize("name", [name for name in METHODS if name != "zero_shot"])
def test_entropy_after_is_told_by_methods_that_tune(predict: Predict, name: str) -> None:
    for record in records_of(predict("--method", name)):
        assert 0 <= record["adapt"]["entropy_before"] <= math.log(3)
        after = record["adapt"]["entropy_after"]
        assert (after is not None) is (name in TUNING)


def test_the_entropies_of_ctpt_are_entropies_and_not_its_loss(predict: Predict) -> None:
    tuned = records_of(predict("--method", "tpt"))
    for record, of_tpt in zip(records_of(predict("--method", "ctpt")), tuned, strict=True):
        assert record["adapt"]["entropy_before"] == of_tpt["adapt"]["entropy_before"]
        assert 0 <= record["adapt"]["entropy_after"] <= math.log(3)


# --- votes ---


def test_zero_tells_votes_and_no_scores(predict: Predict) -> None:
    changed = 0
    for record in records_of(predict("--method", "zero", "--keep", 0.75)):
        votes = [prediction["votes"] for prediction in record["predictions"]]
        assert sum(votes) == record["adapt"]["views_kept"] == 3
        assert all(isinstance(count, int) for count in votes)
        changed += votes[0] < 3
    assert changed  # not all views agree on every picture


def test_votes_have_a_column_of_their_own_in_csv(predict: Predict) -> None:
    told = records_of(predict("--method", "zero"))
    text = predict("--method", "zero", "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == len(told)
    for row, record in zip(rows, told, strict=True):
        assert row["score"] == row["score_2"] == ""
        assert row["votes"] == str(record["predictions"][0]["votes"])
        assert row["label"] == record["predictions"][0]["label"]
        assert float(row["zero_shot_score"]) == record["zero_shot"]["score"]
        assert row["entropy_after"] == ""


def test_scores_leave_the_column_of_votes_empty(predict: Predict) -> None:
    text = predict("--method", "vte", "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert {row["votes"] for row in rows} == {""}
    assert all(float(row["score"]) > 0 for row in rows)


def test_a_table_tells_votes_where_a_method_votes(predict: Predict) -> None:
    _, _, *rows = predict("--method", "zero", "--format", "table").stdout.splitlines()
    assert all(row.count(" vote") == 1 and row.count("%") == 1 for row in rows)


# --- options ---


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        (("--method", "ctpt", "--set", "weight=20"), "weight", 20),
        (("--method", "ctpt", "--set", "weight=1.5e1"), "weight", 15.0),
        (("--method", "mta", "--set", " lambda-q = 2 "), "lambda_q", 2),
        (("--method", "tda", "--set", "negative_capacity=0"), "negative_capacity", 0),
        (("--method", "tda", "--set", "alpha=1", "--set", "beta=8"), "beta", 8),
        (("--method", "zero", "--keep", "0.5"), "keep", 0.5),
        (("--method", "tps", "--steps", "2"), "steps", 2),
        (("--method", "tda", "--reset", "stream"), "reset", "stream"),
        (("--method", "ctpt", "--set", "penalty=orthogonal"), "weight", 18),
        (("--method", "ctpt", "--set", "penalty=angular", "--set", "weight=-80"), "weight", -80),
        (("--method", "tps", "--set", "per_class=false"), "per_class", False),
        (("--method", "stata", "--set", "soft=true"), "soft", True),
        (("--method", "stata", "--batch-size", "16"), "batch_size", 16),
        (("--method", "oga"), "batch_size", 32),
    ],
)
def test_an_option_reaches_its_method(
    predict: Predict, options: tuple[str, ...], name: str, value: Any
) -> None:
    assert predict(*options, "--output", "out.jsonl", paths=NAMES[:1]).exit_code == 0
    assert settings_of("out.jsonl")[name] == value


def test_a_setting_changes_what_comes_out(predict: Predict) -> None:
    def scores(*options: str) -> list[float]:
        records = records_of(predict(*options))
        return [p["score"] for r in records for p in sorted(r["predictions"], key=place)]

    def place(prediction: dict[str, Any]) -> int:
        return prediction["index"]

    tuned = scores("--method", "tpt")
    weightless = scores("--method", "ctpt", "--set", "weight=0")
    assert weightless == pytest.approx(tuned, abs=1e-4)  # C-TPT without its weight is TPT
    assert scores("--method", "ctpt") != pytest.approx(tuned, abs=1e-3)


@pytest.mark.parametrize(
    ("method", "assignments", "words"),
    [
        ("ctpt", ["weight"], '"weight" is not of the form NAME=VALUE, for example weight=50.'),
        ("ctpt", ["=3"], '"=3" is not of the form NAME=VALUE'),
        ("ctpt", ["weight=1", "weight=2"], '"weight" cannot be set here: it came before.'),
        ("mta", ["lambda_q=1", "lambda-q=1"], '"lambda_q" cannot be set here: it came before.'),
        ("ctpt", ["keep=1"], '"keep" cannot be set here: --keep is an option of its own.'),
        ("tda", ["reset=never"], "--reset is an option of its own"),
        (
            "ctpt",
            ["alpha=1"],
            "--alpha has no meaning with --method ctpt; it belongs to tda, stata.",
        ),
        ("zero_shot", ["weight=1"], "--weight has no meaning with --method zero_shot"),
        ("ctpt", ["wieght=1"], 'No method has the option "wieght". Did you mean "weight"?'),
        ("tda", ["templates=a"], 'No method has the option "templates".'),
        ("ctpt", ["weight=-1"], "a number from 0 on; got -1."),
        (
            "ctpt",
            ["weight=much"],
            "weight is how much dispersion counts, a number from 0 on; got m",
        ),
        ("ctpt", ["weight="], "a number from 0 on; got ."),
        ("ctpt", ["weight=nan"], "a number from 0 on; got nan."),
        ("tda", ["positive_capacity=1.5"], "a whole number from 0 on; got 1.5."),
        ("tda", ["entropy_low=0.9"], "0 <= low < high <= 1 is expected; got 0.9 and 0.5."),
        ("tda", ["entropy_low=some"], "0 <= low < high <= 1 is expected; got some and 0.5."),
        ("tda", ["mask_high="], "0 <= low < high <= 1 is expected; got 0.03 and ."),
        ("tda", ["positive_capacity=0", "negative_capacity=0"], "use tpt.ZeroShot"),
    ],
)
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_a_setting_that_cannot_be_is_refused(
    predict: Predict, method: str, assignments: list[str], words: str, dry_run: list[str]
) -> None:
    sets = [word for assignment in assignments for word in ("--set", assignment)]
    assert_refused(predict("--method", method, *sets, *dry_run), words)


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "tpt", "--lr", "1e30"),
        ("--method", "mta", "--set", "lambda_q=1e300"),
        ("--method", "tda", "--set", "alpha=1e300"),
    ],
)
def test_settings_that_break_an_image_make_it_an_error_and_no_record_of_nan(
    predict: Predict, options: tuple[str, ...]
) -> None:
    result = predict(*options, paths=NAMES[:2])
    assert result.exit_code == 3
    assert "NaN," not in result.stdout
    for line in result.stdout.splitlines():
        error = json.loads(line)["error"]
        assert error["type"] == "MethodError"
        assert (
            "gave NaN or infinite numbers for this image. Use settings closer" in error["message"]
        )


def test_more_than_the_memory_holds_is_one_sentence(predict: Predict) -> None:
    result = predict("--method", "tda", "--set", "positive_capacity=99999999999")
    assert result.exit_code == 1
    assert "ran out of memory" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", WITH_TEMPLATES)
def test_templates_make_an_ensemble_with_methods_that_tune_no_context(
    predict: Predict, name: str
) -> None:
    plain = records_of(predict("--method", "zero_shot", *TEMPLATES))
    assert predict("--method", name, *TEMPLATES, "--output", "out.jsonl").exit_code == 0
    lines = Path("out.jsonl").read_bytes().splitlines()
    for line, zero_shot in zip(lines, plain, strict=True):
        assert json.loads(line)["zero_shot"] == pytest.approx(zero_shot["zero_shot"], abs=1e-5)
    assert settings_of("out.jsonl")["templates"] == list(TEMPLATES[1::2])
    assert plain != records_of(predict("--method", "zero_shot"))


@pytest.mark.parametrize("name", ["tpt", "ctpt", "rtpt"])
def test_methods_that_tune_the_context_start_it_from_one_template(
    predict: Predict, name: str
) -> None:
    assert_refused(
        predict("--method", name, *TEMPLATES),
        f"--method {name} starts from one template, but 2 were given.",
    )
    one = ("--template", "a sketch of a {}.")
    told = records_of(predict("--method", name, *one))
    plain = records_of(predict("--method", "zero_shot", *one))
    for record, zero_shot in zip(told, plain, strict=True):
        assert record["zero_shot"] == pytest.approx(zero_shot["zero_shot"], abs=1e-4)


@pytest.mark.parametrize("name", ["zero_shot", "tda", "oga", "stata"])
@pytest.mark.parametrize("option", ["--views 4", "--augment crop", "--gate 0.5"])
def test_what_makes_more_views_is_refused_where_one_is_read(
    predict: Predict, name: str, option: str
) -> None:
    words = f"{option.split()[0]} has no meaning with --method {name}"
    assert_refused(predict("--method", name, *option.split()), words)


def test_what_would_give_tda_views_is_told(predict: Predict) -> None:
    assert_refused(predict("--method", "tda", "--gate", 0.5), "Leave it out, or give --keep too.")


def test_tda_reads_views_of_which_it_keeps_a_share(predict: Predict) -> None:
    options = ("--method", "tda", "--keep", 0.5, "--augment", "augmix", "--gate", SPLIT)
    records = records_of(predict(*options))
    assert {record["adapt"]["views_kept"] for record in records} == {1, 2}
    kept = {record["adapt"]["views_kept"] for record in records if "skipped" in record["adapt"]}
    assert kept == {1}


# --- a gate ---


@pytest.mark.parametrize("name", READING)
def test_a_gate_leaves_the_images_it_is_sure_of_and_touches_no_other(
    predict: Predict, still_clock: None, name: str
) -> None:
    plain = records_of(predict("--method", "zero_shot"))
    alone = records_of(predict("--method", name))
    gated = predict("--method", name, "--gate", SPLIT)
    skipped = 0
    for record, zero_shot, usual in zip(records_of(gated), plain, alone, strict=True):
        if zero_shot["zero_shot"]["score"] < SPLIT:
            assert record == usual
            continue
        skipped += 1
        assert record["zero_shot"] == zero_shot["zero_shot"]
        assert record["adapt"] == {
            **{"entropy_before": None, "entropy_after": None, "views_kept": 1, "ms": 0.0},
            "skipped": True,
        }
        if name == "zero":
            assert [prediction["votes"] for prediction in record["predictions"]] == [1, 0, 0]
            assert record["predictions"][0]["label"] == zero_shot["zero_shot"]["label"]
        else:
            assert record["predictions"] == zero_shot["predictions"]
    assert 0 < skipped < len(NAMES)
    share = round(100 * skipped / len(NAMES))
    assert f"{skipped} left alone by the gate ({share} %)" in gated.stderr


def test_an_image_that_is_left_alone_costs_one_view(
    predict: Predict, clip: tpt.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = clip.encode_views

    def count(views: torch.Tensor) -> torch.Tensor:
        encoded.append(views.shape[0] * views.shape[1])
        return encode(views)

    monkeypatch.setattr(clip, "encode_views", count)
    records = records_of(predict("--gate", SPLIT))
    skipped = sum(record["adapt"].get("skipped", False) for record in records)
    assert 0 < skipped < len(NAMES)
    assert sorted(encoded) == [1] * len(NAMES) + [4] * (len(NAMES) - skipped)


def test_a_gate_may_look_at_several_views(predict: Predict) -> None:
    options = ("--method", "vte", "--gate", 0.4, "--output")
    assert predict(*options, "one.jsonl").exit_code == 0
    assert predict(*options, "three.jsonl", "--gate-views", 3).exit_code == 0
    assert settings_of("one.jsonl")["gate"] == {"threshold": 0.4, "views": 1}
    assert settings_of("three.jsonl")["gate"] == {"threshold": 0.4, "views": 3}
    one, three = (
        [json.loads(line) for line in Path(name).read_bytes().splitlines()]
        for name in ("one.jsonl", "three.jsonl")
    )
    assert all(record["adapt"].get("skipped") for record in one)
    assert 0 < sum(record["adapt"].get("skipped", False) for record in three) < len(NAMES)


def test_a_gate_that_asks_for_certainty_leaves_nothing_alone(
    predict: Predict, still_clock: None
) -> None:
    gated = predict("--gate", 1.0)
    assert gated.stdout_bytes == predict().stdout_bytes
    assert "gate" not in gated.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gate-views", "3"], "--gate-views says what a gate looks at; give --gate too."),
        (["--gate", "0"], "--gate"),
        (["--gate", "1.1"], "--gate"),
        (["--gate", "nan"], "the score from which an image is left as it is, in (0, 1]; got nan."),
        (["--gate", "0.5", "--gate-views", "0"], "--gate-views"),
        (
            ["--gate", "0.5", "--gate-views", "5"],
            "--gate-views 5 is more than the 4 views that are",
        ),
    ],
)
def test_a_gate_that_cannot_be_is_refused(predict: Predict, options: list[str], words: str) -> None:
    assert_refused(predict(*options), words)


def test_bad_images_under_a_gate_are_records_in_their_places(
    predict: Predict, still_clock: None
) -> None:
    sound = records_of(predict("--gate", SPLIT, "--batch-size", 3))
    Path("bad.png").write_text("no image")
    paths = [*NAMES[:2], "bad.png", *NAMES[2:], "gone.png"]
    Path("list.txt").write_text("\n".join(paths))
    result = predict("--gate", SPLIT, "--batch-size", 3, paths=["@list.txt"])
    assert result.exit_code == 3
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["path"] for record in records] == paths
    assert [record for record in records if "error" not in record] == sound
    assert "10 of 10 images" in result.stderr
    assert ", 2 failed" in result.stderr


def test_a_gated_run_is_continued_to_the_same_bytes(predict: Predict, still_clock: None) -> None:
    options = ("--gate", SPLIT, "--output", "out.jsonl", "--batch-size", 3)
    assert predict(*options).exit_code == 0
    whole = Path("out.jsonl").read_bytes()
    Path("out.jsonl").write_bytes(whole[: len(whole) // 2])
    assert predict(*options, "--resume").exit_code == 0
    assert Path("out.jsonl").read_bytes() == whole
    other = predict("--gate", 0.9, *options[2:], "--resume")
    assert other.exit_code == 1
    assert "made with other settings (gate threshold;" in other.stderr


# --- methods that tune the towers ---


@pytest.mark.parametrize("name", TOWERS)
def test_methods_that_tune_towers_go_on_from_batch_to_batch(
    predict: Predict, clip: tpt.Clip, name: str
) -> None:
    before = [p.clone() for p in clip.model.parameters()]
    rates = ("--method", name, "--lr", 0.01)
    whole = records_of(predict(*rates))
    halves = records_of(predict(*rates, "--batch-size", 4))
    plain = records_of(predict("--method", "zero_shot"))
    near = {"rel": 1e-4}
    for place, (one, other) in enumerate(zip(whole, halves, strict=True)):
        same = other["predictions"][0]["score"] == pytest.approx(
            one["predictions"][0]["score"], **near
        )
        assert same is (place < 4)  # the second half meets what the first has taught
    for record, zero_shot in zip(halves, plain, strict=True):
        assert record["zero_shot"] == pytest.approx(zero_shot["predictions"][0], abs=1e-5)
    assert all(
        torch.equal(p, q) for p, q in zip(clip.model.parameters(), before, strict=True)
    )  # the caller's weights


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--resume", "--output", "o.jsonl"), "--resume cannot go on with a method that keeps"),
        (("--gate", 0.9), "--gate has no meaning with"),
        (("--views", 4), "--views has no meaning with"),
        (("--keep", 0.1), "--keep has no meaning with"),
        (("--save-state", "s.safetensors"), "has no meaning with --method"),
        (("--load-state", "s.safetensors"), "has no meaning with"),
        (TEMPLATES, "starts from one template, but 2 were given"),
        (("--set", "optimizer=SGD"), 'Unknown optimizer "SGD": expected Adam or AdamW.'),
    ],
)
def test_what_has_no_meaning_where_towers_are_tuned_is_refused(
    predict: Predict, name: str, options: tuple[str, ...], words: str
) -> None:
    assert_refused(predict("--method", name, *options), words)


def test_a_tower_without_layer_norms_is_refused(run_tpt: Callable[..., Result]) -> None:
    words = ("predict", "0.png", "--classes", "cat,dog", "--method", "tent", "--model", "lite")
    Path("0.png").touch()
    assert_refused(run_tpt(*words), "image tower has no layer norms to tune", "Use a vision tr")


def test_a_stream_of_batches_in_order_is_told(predict: Predict) -> None:
    stderr = predict("--method", "tent", paths=NAMES[:1]).stderr
    assert "Note: results depend on the order of the images" in stderr
    assert "Note: 64 images are learned from at a time" in stderr


# --- state ---


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--method", "tda"), True),
        (("--reset", "stream"), True),
        (("--method", "tda", "--keep", 0.5, "--gate", 0.9), True),
        (("--method", "vte"), False),
        (("--method", "tda", "--quiet"), False),
    ],
)
def test_that_order_matters_is_told_where_a_method_learns_from_the_images(
    predict: Predict, options: tuple[str, ...], told: bool
) -> None:
    stderr = predict(*options, paths=NAMES[:1]).stderr
    assert ("Note: results depend on the order of the images" in stderr) is told


@pytest.mark.parametrize("fresh", [True, False])
def test_a_stream_that_left_state_is_not_resumed(predict: Predict, fresh: bool) -> None:
    options = ("--method", "tda", "--output", "out.jsonl")
    if not fresh:
        assert predict(*options, paths=NAMES[:2]).exit_code == 0
    before = Path("out.jsonl").read_bytes() if not fresh else None
    assert_refused(
        predict(*options, "--resume"), "--resume cannot go on with a method that keeps state"
    )
    assert before is None or Path("out.jsonl").read_bytes() == before


@pytest.mark.parametrize("quiet", [False, True])
def test_a_correlated_stream_is_warned_of_in_a_line(predict: Predict, quiet: bool) -> None:
    for number in range(60):
        shutil.copy("0.png", f"frame-{number}.png")
    options = ("--method", "tda", *(["--quiet"] if quiet else []))
    result = predict(*options, paths=["frame-*.png"])
    assert result.exit_code == 0
    lines = [line for line in result.stderr.splitlines() if "looks correlated" in line]
    assert len(lines) == (0 if quiet else 1)
    assert all(line.startswith("Warning: 46 of the last 50 images") for line in lines)
    assert "UserWarning" not in result.stderr
    assert not quiet or result.stderr == ""


@pytest.mark.parametrize("save", [(), ("--save-state", "s.safetensors")])
def test_ctrl_c_promises_no_resume_where_state_is_lost(
    predict: Predict, monkeypatch: pytest.MonkeyPatch, save: tuple[str, ...]
) -> None:
    adapt, calls = tpt.TDA.adapt_checked, []

    def interrupt(self: tpt.TDA, features: torch.Tensor) -> tpt.Adapted:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return adapt(self, features)

    monkeypatch.setattr(tpt.TDA, "adapt_checked", interrupt)
    result = predict("--method", "tda", "--output", "out.jsonl", *save)
    assert result.exit_code == 130
    assert "Interrupted after 2 of 8 images in " in result.stderr
    assert "--resume" not in result.stderr
    assert ("No state was saved." in result.stderr) is bool(save)
    assert not Path("s.safetensors").exists()


@pytest.mark.parametrize(
    "method",
    [
        *(("tda", *more) for more in ((), ("--keep", "0.5"), TEMPLATES)),
        ("tda", "--set", "negative_capacity=0"),
        *(("oga", "--batch-size", 2, *more) for more in ((), ("--set", "capacity=4"), TEMPLATES)),
    ],
)
def test_two_halves_with_a_saved_state_are_one_unbroken_stream(
    predict: Predict, still_clock: None, method: tuple[object, ...]
) -> None:
    words = ("--method", *method)
    whole = predict(*words)
    first = predict(*words, "--save-state", "half.safetensors", paths=NAMES[:4])
    rest = ("--load-state", "half.safetensors", "--save-state", "half.safetensors")
    second = predict(*words, *rest, paths=NAMES[4:])
    assert first.stdout_bytes + second.stdout_bytes == whole.stdout_bytes
    assert predict(*words, paths=NAMES[4:]).stdout_bytes != second.stdout_bytes


def test_the_state_of_one_method_is_not_anothers(predict: Predict) -> None:
    assert predict("--method", "oga", "--save-state", "s.safetensors").exit_code == 0
    assert_refused(
        predict("--method", "tda", "--load-state", "s.safetensors"),
        '"s.safetensors" is not a state of TDA.',
    )
    assert_refused(
        predict("--method", "tda", "--save-state", "s.safetensors"), "it is not written over"
    )
    again = ("--method", "oga", "--load-state", "s.safetensors")
    assert_refused(predict(*again, "--set", "capacity=3"), "Use the capacities")
    assert_refused(predict(*again, classes=("cat", "dog")), "was made for 3 classes, but there")


def test_a_loaded_state_is_written_into_the_settings(predict: Predict) -> None:
    digests = []
    for count in (2, 4):
        predict("--method", "tda", "--save-state", "s.safetensors", paths=NAMES[:count])
        options = ("--load-state", "s.safetensors", "--output", f"{count}.jsonl")
        assert predict("--method", "tda", *options).exit_code == 0
        digests.append(settings_of(f"{count}.jsonl")["state"])
    assert len(set(digests)) == 2


def test_a_gated_stream_goes_on_from_a_state_too(predict: Predict, still_clock: None) -> None:
    tda = ("--method", "tda", "--keep", 0.5)
    assert predict(*tda, "--save-state", "s.safetensors").exit_code == 0
    going_on = (*tda, "--load-state", "s.safetensors")
    assert predict(*going_on, "--gate", 1.0).stdout_bytes == predict(*going_on).stdout_bytes


def test_a_gated_stream_saves_its_state_too(predict: Predict, still_clock: None) -> None:
    tda = ("--method", "tda", "--keep", 0.5, "--gate", SPLIT)
    whole = predict(*tda)
    first = predict(*tda, "--save-state", "s.safetensors", paths=NAMES[:4])
    second = predict(*tda, "--load-state", "s.safetensors", paths=NAMES[4:])
    assert first.stdout_bytes + second.stdout_bytes == whole.stdout_bytes


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("s.pt", 'A state of TDA ends in .safetensors, but "s.pt" does not.'),
        ("nowhere/s.safetensors", 'there is no folder "nowhere".'),
        ("folder.safetensors", "exists already and is not a state of TDA; it is not written over."),
        ("prompt.safetensors", "exists already and is not a state of TDA; it is not written over."),
    ],
)
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_where_no_state_can_be_saved_is_told_before_the_first_image(
    predict: Predict, clip: tpt.Clip, name: str, words: str, dry_run: list[str]
) -> None:
    Path("folder.safetensors").mkdir()
    tpt.Context.from_words(clip, "a photo of a").save("prompt.safetensors")
    before = Path("prompt.safetensors").read_bytes()
    options = ("--method", "tda", "--save-state", name, "--output", "out.jsonl")
    assert_refused(predict(*options, *dry_run), words)
    assert not Path("out.jsonl").exists()
    assert Path("prompt.safetensors").read_bytes() == before


def test_a_state_of_something_else_is_refused(
    predict: Predict, clip: tpt.Clip, golden: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tda = ("--method", "tda")
    assert predict(*tda, "--save-state", "s.safetensors").exit_code == 0
    load = (*tda, "--load-state", "s.safetensors")
    assert_refused(
        predict(*load, classes=("cat", "dog")), "was made for 3 classes, but there are 2"
    )
    assert_refused(
        predict(*load, classes=("dog", "cat", "cup")),
        'Class number 1 of the state of TDA "s.safetensors" is "cat", but "dog" was given there.',
    )
    assert_refused(predict(*load, "--set", "positive_capacity=2"), "Use the capacities")
    model = copy.deepcopy(golden.clip.model)
    with torch.no_grad():
        model.token_embedding.weight.add_(1)
    other = tpt.Clip(model, golden.clip.tokenizer, name="other")
    monkeypatch.setattr(job, "load_clip", lambda *args, **options: other)
    assert_refused(predict(*load), "was made with seeded, but the model is other")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone.safetensors", "cannot be read: No such file or directory."),
        ("folder.safetensors", "cannot be read: Is a directory."),
        ("empty.safetensors", "is damaged or truncated"),
        ("0.png", "is damaged or truncated"),
    ],
)
def test_what_is_no_state_is_refused(predict: Predict, name: str, words: str) -> None:
    Path("folder.safetensors").mkdir()
    Path("empty.safetensors").touch()
    assert_refused(
        predict("--method", "tda", "--load-state", name), f'state of TDA "{name}"', words
    )


def test_a_prompt_file_is_no_state(predict: Predict, clip: tpt.Clip) -> None:
    tpt.Context.from_words(clip, "a photo of a").save("prompt.safetensors")
    assert_refused(predict("--method", "tda", "--load-state", "prompt.safetensors"), "state of TDA")


@pytest.mark.parametrize("name", STATELESS)
@pytest.mark.parametrize("option", ["--load-state", "--save-state"])
def test_state_has_no_meaning_with_methods_that_keep_none(
    predict: Predict, name: str, option: str
) -> None:
    result = predict("--method", name, option, "s.safetensors")
    assert_refused(result, f"{option} has no meaning with --method {name}", "or use --method tda.")
    assert not Path("s.safetensors").exists()
