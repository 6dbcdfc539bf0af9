"""`tpt eval`: what it writes is what the methods say, and every option reaches what it names."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result
from every_method import TOWERS
from PIL import Image

import tpt
from tpt.data.imagenet import simple_templates
from tpt.data.layouts import LAYOUTS
from tpt.evaluate.runner import judge
from tpt.methods import Method
from tpt.methods.registry import make_method
from tpt.prompts.prompt_info import PromptInfo

Run = Callable[..., Result]
Make = Callable[..., list[str]]

CLASSES = ("cat", "cup", "dog")
METHODS = ("zero-shot", "zero-shot+ensemble", "tpt", "tpt+init")
WORDS = "a blurry picture of a {}."
ZERO_SHOT = ("--methods", "zero-shot", "--quiet")
FAST = ("--views", 4, "--keep", 0.5)
FILES = {
    *("predictions.jsonl", "predictions.jsonl.settings.json", "results.json"),
    *("tables.md", "tables.tex", "report.html"),
}


def names_of(root: str | Path, *classes: str, count: int = 2) -> list[str]:
    return [f"{root}/{name}/{number}.png" for name in classes for number in range(count)]


def lines_of(folder: str | Path, dataset: str | None = None) -> list[dict[str, Any]]:
    text = (Path(folder) / "predictions.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if dataset in (None, line["set"])]


def results_of(folder: str | Path) -> dict[str, Any]:
    return json.loads((Path(folder) / "results.json").read_text())


def entry_of(results: dict[str, Any], dataset: str, method: str = "zero-shot") -> dict[str, Any]:
    (entry,) = (
        entry
        for entry in results["results"]
        if (entry["dataset"], entry["method"]) == (dataset, method)
    )
    return entry


def forget_ms(value: Any) -> Any:
    """Numbers alone, without timings."""
    if isinstance(value, dict):
        return {k: forget_ms(v) for k, v in value.items() if k not in ("ms", "image_ms")}
    return value


def answers_of(folder: str | Path, dataset: str) -> dict[str, Any]:
    """By key, what the lines of a set say beside its name."""
    return {
        line["key"]: {k: v for k, v in forget_ms(line).items() if k != "set"}
        for line in lines_of(folder, dataset)
    }


def said_by(clip: tpt.Clip, method: Method, path: str | Path, views: int) -> Any:
    """The entry of a line that a method, used by itself, would get for one picture."""
    features = clip.encode_views(tpt.Views(clip, n=views)([path]))
    return forget_ms(judge(features, [0], {"": method})[0][""])


# --- one run of several methods on several sets ---


@pytest.fixture(scope="module")
def made(
    run_tpt_once: Run, make_images: Make, tmp_path_factory: pytest.TempPathFactory, tiny: tpt.Clip
) -> SimpleNamespace:
    """Two domains, a prompt, and what `tpt eval` made of them."""
    root = tmp_path_factory.mktemp("eval")
    make_images(*names_of(root / "pacs/photo", *CLASSES), *names_of(root / "pacs/sketch", *CLASSES))
    tpt.Context.from_words(tiny, WORDS).save(root / "init.safetensors")
    result = run_tpt_once(
        *("eval", root / "pacs", "--methods", ",".join(METHODS), *FAST),
        *("--init", root / "init.safetensors", "--output", root / "out"),
    )
    assert result.exit_code == 0, result.stderr
    return SimpleNamespace(
        root=root, result=result, results=results_of(root / "out"), lines=lines_of(root / "out")
    )


def test_a_run_writes_all_its_files_and_a_line_for_every_picture(made: SimpleNamespace) -> None:
    assert {path.name for path in (made.root / "out").iterdir()} == FILES
    assert [(line["set"], line["key"]) for line in made.lines] == [
        (f"pacs/{domain}", f"{name}/{number}.png")
        for domain in ("photo", "sketch")
        for name in CLASSES
        for number in range(2)
    ]
    assert all(CLASSES[line["label"]] == line["key"].split("/")[0] for line in made.lines)
    assert all(tuple(line["methods"]) == METHODS for line in made.lines)


def test_the_table_is_on_standard_output_and_all_else_on_the_other(made: SimpleNamespace) -> None:
    told, table = made.result.stderr, made.result.stdout
    for domain in ("photo", "sketch"):
        where = "a folder a domain, one folder a class; 3 classes, 6 pictures"
        assert f"pacs/{domain}: {where}\n" in told
        assert f"pacs/{domain}" in table
        for method in METHODS:
            acc1 = entry_of(made.results, f"pacs/{domain}", method)["metrics"]["acc1"]
            assert f" {100 * acc1:.1f} (" in table
    assert "Methods: zero-shot, zero-shot+ensemble, tpt, tpt+init\n" in told
    assert "12 of 12 images in " in told
    assert f"Report: {made.root / 'out' / 'report.html'}\n" in told
    assert "Report" not in table


def test_the_numbers_are_those_of_the_lines(made: SimpleNamespace) -> None:
    assert len(made.results["results"]) == 2 * len(METHODS)
    for entry in made.results["results"]:
        rows = [line for line in made.lines if line["set"] == entry["dataset"]]
        said = [line["methods"][entry["method"]] for line in rows]
        right = [told["top"][0][0] == line["label"] for told, line in zip(said, rows, strict=True)]
        plain = [line["methods"]["zero-shot"]["top"][0][0] == line["label"] for line in rows]
        metrics = entry["metrics"]
        assert entry["images"] == len(rows) == 6
        assert metrics["acc1"] == pytest.approx(sum(right) / 6, abs=1e-6)
        assert metrics["nll"] == pytest.approx(sum(told["nll"] for told in said) / 6, abs=1e-5)
        assert metrics["brier"] == pytest.approx(sum(told["brier"] for told in said) / 6, abs=1e-5)
        assert metrics["acc5"] is None  # of three classes
        low, high = entry["intervals"]["acc1"]
        assert low <= metrics["acc1"] <= high
        versus = entry["versus_baseline"]
        if entry["method"] == "zero-shot":
            assert versus is None
        else:
            pairs = list(zip(right, plain, strict=True))
            assert versus["put_right"] == pairs.count((True, False))
            assert versus["put_wrong"] == pairs.count((False, True))


def test_the_settings_say_what_was_run(made: SimpleNamespace) -> None:
    results = made.results
    expected = {"model": "tiny", "views": 4, "augment": "crop", "seed": 0, "precision": "fp32"}
    assert expected.items() <= results["settings"].items()
    assert [method["name"] for method in results["methods"]] == list(METHODS)
    plain, ensemble, tuned, started = results["methods"]
    assert plain["context"] == tuned["context"] == {"words": "a photo of a {}."}
    assert (tuned["method"], tuned["settings"]["keep"]) == ("tpt", 0.5)
    assert ensemble["templates"] == ["each set's own, else open_clip's"]
    assert started["context"]["file"] == "init.safetensors"
    assert started["context"]["words"] == WORDS
    photo, sketch = results["sets"]
    assert (photo["domain"], sketch["domain"]) == ("photo", "sketch")
    assert photo["classes"] == list(CLASSES)
    assert (photo["images"], photo["failed"]) == (6, 0)


def test_tables_and_report_stand_on_their_own(made: SimpleNamespace) -> None:
    for name in ("tables.md", "tables.tex", "report.html"):
        text = (made.root / "out" / name).read_text()
        assert "pacs/photo" in text
        assert "zero-shot+ensemble" in text


def test_the_baseline_says_what_predict_says(made: SimpleNamespace, run_tpt: Run) -> None:
    pacs = made.root / "pacs"
    words = ("--method", "zero_shot", "--recursive", "--classes", ",".join(CLASSES))
    records = {
        Path(record["path"]).relative_to(pacs).as_posix(): record["predictions"]
        for record in map(json.loads, run_tpt("predict", pacs, *words).stdout.splitlines())
    }
    assert len(records) == 12
    for line in made.lines:
        key = f"{line['set'].removeprefix('pacs/')}/{line['key']}"
        told = [[p["index"], pytest.approx(p["score"], abs=2e-6)] for p in records[key]]
        assert line["methods"]["zero-shot"]["top"] == told


def test_each_method_says_what_it_says_by_itself(made: SimpleNamespace, tiny: tpt.Clip) -> None:
    engine = tpt.PromptEngine(tiny, CLASSES)
    started = tpt.PromptEngine(tiny, CLASSES, tpt.Context.load(made.root / "init.safetensors"))
    methods = {
        "zero-shot": tpt.ZeroShot(engine),
        "zero-shot+ensemble": tpt.ZeroShot(engine, simple_templates()),
        "tpt": tpt.TPT(engine, keep=0.5),
        "tpt+init": tpt.TPT(started, keep=0.5),
    }
    for line in (made.lines[0], made.lines[7]):
        path = made.root / line["set"] / line["key"]
        for name, method in methods.items():
            alone = said_by(tiny, method, path, views=4)
            assert forget_ms(line["methods"][name])["top"] == alone["top"]
            assert line["methods"][name].get("kept") == alone.get("kept")
            assert line["methods"][name].get("entropy") == alone.get("entropy")


def test_the_page_is_drawn_again_from_the_folder(
    made: SimpleNamespace, run_tpt: Run, tmp_path: Path
) -> None:
    done = run_tpt("report", made.root / "out", "--output", tmp_path / "again", "--quiet")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    drawn = sorted((tmp_path / "again").iterdir())
    assert [path.name for path in drawn] == ["report.html", "tables.md", "tables.tex"]
    for path in drawn:
        assert path.read_bytes() == (made.root / "out" / path.name).read_bytes()


# --- what is said ---


def test_quiet_leaves_the_table_alone(run_tpt: Run, make_images: Make) -> None:
    make_images(*names_of("set", "cat", "dog", count=1))
    result = run_tpt("eval", "set", *ZERO_SHOT, "--output", "out")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "zero-shot" in result.stdout


def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(
    run_tpt: Run, make_images: Make, no_forward_pass: None
) -> None:
    make_images(*names_of("set", "cat", "dog"))
    result = run_tpt("eval", "set", "--output", "out", "--dry-run", "--corrupt", "fog:1")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "set: one folder a class; 2 classes, 4 pictures\n" in result.stderr
    assert "Methods: zero-shot, tpt\n" in result.stderr
    assert "8 pictures to predict" in result.stderr
    assert not Path("out").exists()


def test_a_set_may_be_given_another_name(run_tpt: Run, make_images: Make) -> None:
    make_images(*names_of("one/test", "cat", "dog"), *names_of("two/test", "cat", "dog"))
    result = run_tpt("eval", "one/test", "other=two/test", *ZERO_SHOT, "--output", "out")
    assert result.exit_code == 0
    assert [part["name"] for part in results_of("out")["sets"]] == ["test", "other"]


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="names are UTF-8 there")
def test_names_of_other_bytes_than_utf8_go_through(run_tpt: Run, make_images: Make) -> None:
    odd = "latin-\udce9"
    make_images(*names_of(odd, "cat", f"dog {odd}", count=1), f"{odd}/cat/{odd}\n.png")
    words = ("--methods", "tpt:lr=0.5", "--views", 4, "--quiet")
    result = run_tpt("eval", odd, *words, "--output", f"out {odd}")
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in Path(f"out {odd}").iterdir()} == FILES
    assert results_of(f"out {odd}")["sets"][0]["classes"] == ["cat", "dog latin-\\udce9"]
    assert f"cat/{odd}\n.png" in [line["key"] for line in lines_of(f"out {odd}")]


# --- clean sets ---


def test_a_clean_set_is_compared_over_the_same_classes(run_tpt: Run, make_images: Make) -> None:
    make_images(*names_of("photo", "cat", "cup", "dog", "horse"))
    make_images(*names_of("few", "dog", "cup", count=3))
    shutil.copytree("photo", "half")
    shutil.rmtree("half/cat")
    shutil.rmtree("half/horse")
    words = ("--methods", "zero-shot,vte", "--views", 4, "--quiet")
    run_tpt("eval", "few", "--clean", "photo", *words, "--output", "out")
    run_tpt("eval", "half", *words, "--output", "alone")
    results, same = results_of("out"), "photo (2 classes of few)"
    assert [(part["name"], part["role"], part["clean"]) for part in results["sets"]] == [
        ("photo", "clean", None),
        (same, "clean, same classes", None),
        ("few", "shift", same),
    ]
    assert answers_of("out", same) == answers_of("alone", "half")
    for method in ("zero-shot", "vte"):
        clean = entry_of(results, same, method)["metrics"]["acc1"]
        shifted = entry_of(results, "few", method)
        assert shifted["clean"]["dataset"] == same
        assert shifted["clean"]["acc1"] == clean
        gap = pytest.approx(clean - shifted["metrics"]["acc1"], abs=2e-6)
        assert shifted["clean"]["gap"] == gap
    assert entry_of(results, "photo")["images"] == 8
    assert entry_of(results, same)["images"] == 4


def test_a_domain_of_the_tree_may_be_the_clean_set_and_is_evaluated_once(
    run_tpt: Run, make_images: Make
) -> None:
    make_images(*names_of("pacs/photo", "cat", "dog"), *names_of("pacs/sketch", "cat", "dog"))
    words = ("eval", "pacs", "--clean", "pacs/photo", *ZERO_SHOT)
    for more, count in (((), 1), (("--corrupt", "fog:1"), 2)):
        folder = f"out-{count}"
        assert run_tpt(*words, *more, "--output", folder).exit_code == 0
        found = {part["name"]: (part["role"], part["clean"]) for part in results_of(folder)["sets"]}
        assert len(found) == 2 * count
        assert found["pacs/photo"] == ("clean", None)
        assert found["pacs/sketch"] == ("shift", "pacs/photo")
        assert len(lines_of(folder)) == 8 * count


def test_a_clean_set_that_lacks_a_class_is_told(run_tpt: Run, make_images: Make) -> None:
    make_images(*names_of("photo", "cat", "dog"), *names_of("more", "cat", "dog", "horse"))
    result = run_tpt(
        "eval", "more", "--clean", "photo", "--methods", "zero-shot", "--output", "out"
    )
    assert result.exit_code == 0
    told = 'not compared with the clean set "photo", which lacks horse.'
    assert f"Warning: more: it is {told}\n" in result.stderr
    results = results_of("out")
    assert told in results["sets"][1]["notes"][0]
    assert entry_of(results, "more")["clean"] is None


def test_a_clean_set_that_is_corrupted_too_keeps_its_other_class_lists(
    run_tpt: Run, make_images: Make
) -> None:
    make_images(*names_of("photo", "cat", "cup", "dog", "horse"), *names_of("few", "dog", "cup"))
    words = ("few", "photos=photo", "--clean", "photo", "--corrupt", "fog:1")
    assert run_tpt("eval", *words, *ZERO_SHOT, "--output", "out").exit_code == 0
    few = "photos (2 classes of few)"
    found = {part["name"]: (part["role"], part["clean"]) for part in results_of("out")["sets"]}
    assert found == {
        "few": ("shift", few),
        "few/fog/1": ("shift", few),
        "photos": ("clean", None),
        few: ("clean, same classes", None),
        "photos/fog/1": ("shift", "photos"),
    }


# --- corruptions ---


def test_corruptions_on_the_fly_are_those_of_the_corrupted_tree(
    run_tpt: Run, make_images: Make
) -> None:
    make_images(*names_of("set", "cat", "dog"))
    corruptions = {"gaussian_noise": 3, "contrast": 5}
    words = ("--methods", "tpt", *FAST, "--seed", 7, "--quiet")
    wanted = ",".join(f"{kind}:{severity}" for kind, severity in corruptions.items())
    run_tpt("eval", "set", *words, "--corrupt", wanted, "--output", "fly")
    for kind, severity in corruptions.items():
        run_tpt("corrupt", "set", "set-c", "--kind", kind, "--severity", severity, "--seed", 7)
    run_tpt("eval", "set-c", *words, "--output", "tree")
    for kind, severity in corruptions.items():
        name = f"{kind}/{severity}"
        pairs = [answers_of("fly", f"set/{name}"), answers_of("tree", f"set-c/{name}")]
        # The plain views are the same pixels; the others are drawn from each file's own content.
        plain = [{k: a["methods"]["zero-shot"] for k, a in answers.items()} for answers in pairs]
        assert plain[0] == plain[1]
        assert answers_of("fly", f"set/{name}") != answers_of("fly", "set")
    found = {part["name"]: part for part in results_of("fly")["sets"]}
    assert found["set"]["role"] == "clean"
    assert found["set/contrast/5"]["clean"] == "set"
    assert (found["set/contrast/5"]["corruption"], found["set/contrast/5"]["severity"]) == (
        "contrast",
        5,
    )


# --- classes, templates, pictures ---


def evaluate_classes(run_tpt: Run, *words: object) -> dict[str, Any]:
    """The one set of a zero-shot run."""
    result = run_tpt("eval", *words, *ZERO_SHOT, "--output", "out", "--overwrite")
    assert result.exit_code == 0, result.stderr
    (part,) = results_of("out")["sets"]
    return part


def test_classes_come_in_the_order_wanted_from_words_or_a_file(
    run_tpt: Run, make_images: Make
) -> None:
    make_images(*names_of("set", "cat", "dog", count=1))
    Path("names.txt").write_text("dog\nTea cup\ncat\n")
    for given in ("dog,Tea cup,cat", "names.txt", "dog,Tea cup,cat=cat"):
        part = evaluate_classes(run_tpt, "set", "--classes", given)
        assert part["classes"] == ["dog", "Tea cup", "cat"]
        assert [(line["key"], line["label"]) for line in lines_of("out")] == [
            ("cat/0.png", 2),
            ("dog/0.png", 0),
        ]
        assert any("Tea cup" in note for note in part["notes"])  # it has no pictures


def test_a_folder_is_mapped_by_its_id(run_tpt: Run, make_images: Make) -> None:
    make_images(*names_of("set", "0", "1", count=1))
    part = evaluate_classes(run_tpt, "set", "--classes", "1=dog,0=cat", "--layout", "folders")
    assert part["classes"] == ["dog", "cat"]
    assert [line["label"] for line in lines_of("out")] == [1, 0]


def test_wordnet_ids_get_the_names_of_imagenet(run_tpt: Run, make_images: Make) -> None:
    make_images(*names_of("set", "n01443537", "n02123159", count=1))
    part = evaluate_classes(run_tpt, "set")
    assert part["classes"] == ["goldfish", "tiger cat"]
    part = evaluate_classes(run_tpt, "set", "--classes", "imagenet")
    assert len(part["classes"]) == 1000
    assert [part["classes"][line["label"]] for line in lines_of("out")] == ["goldfish", "tiger cat"]


def test_a_preset_names_classes_leaves_folders_out_and_has_a_template(
    run_tpt: Run, make_images: Make
) -> None:
    make_images(*names_of("dtd", "banded", "waffled"))
    make_images(*names_of("caltech", "Faces", "BACKGROUND_Google", "airplanes"))
    part = evaluate_classes(run_tpt, "dtd", "--preset", "dtd")
    assert results_of("out")["methods"][0]["context"] == {"words": "{} texture."}
    part = evaluate_classes(run_tpt, "caltech", "--preset", "caltech101")
    assert part["classes"] == ["face", "airplane"]
    assert "Left out, as no class: BACKGROUND_Google." in part["notes"]


def test_one_template_is_the_words_that_all_start_from(
    run_tpt: Run, make_images: Make, tiny: tpt.Clip
) -> None:
    make_images(*names_of("set", "cat", "dog", count=1))
    words = ("--methods", "tpt", "--views", 4, "--template", WORDS, "--quiet")
    assert run_tpt("eval", "set", *words, "--output", "out").exit_code == 0
    engine = tpt.PromptEngine(tiny, ("cat", "dog"), tpt.Context.from_words(tiny, WORDS))
    line = lines_of("out")[0]
    for name, method in {"zero-shot": tpt.ZeroShot(engine), "tpt": tpt.TPT(engine)}.items():
        alone = said_by(tiny, method, "set/cat/0.png", views=4)
        check_near(forget_ms(line["methods"][name]), alone)


def check_near(found: Any, wanted: Any) -> None:
    """Equal up to rounding: sentences and contexts are packed differently."""
    if isinstance(wanted, (dict, list)):
        assert len(found) == len(wanted)
        for key in wanted if isinstance(wanted, dict) else range(len(wanted)):
            check_near(found[key], wanted[key])
    else:
        assert found == pytest.approx(wanted, abs=1e-5)


def test_several_templates_are_the_ensemble(
    run_tpt: Run, make_images: Make, tiny: tpt.Clip
) -> None:
    make_images(*names_of("set", "cat", "dog", count=1))
    templates = ("a photo of a {}.", "a sketch of the {}.")
    Path("templates.txt").write_text("\n".join(templates))
    words = ("--methods", "zero-shot+ensemble", "--template", "templates.txt", "--quiet")
    assert run_tpt("eval", "set", *words, "--output", "out").exit_code == 0
    method = tpt.ZeroShot(tpt.PromptEngine(tiny, ("cat", "dog")), templates)
    line = lines_of("out")[0]
    alone = said_by(tiny, method, "set/cat/0.png", views=1)
    assert forget_ms(line["methods"]["zero-shot+ensemble"]) == alone
    assert results_of("out")["methods"][1]["templates"] == list(templates)


def test_a_large_ensemble_says_what_is_waited_for(
    run_tpt: Run, make_images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(*names_of("set", "cat", "dog", count=1))
    monkeypatch.setattr("cli.evaluating._MANY_SENTENCES", 14)  # open_clip's 7, of two classes
    words = ("--methods", "zero-shot+ensemble", "--dry-run", "--output", "out")
    assert "14 sentences of template ensembles are encoded" in run_tpt("eval", "set", *words).stderr


def test_a_limit_draws_some_pictures_by_the_seed(run_tpt: Run, make_images: Make) -> None:
    make_images(*names_of("set", *CLASSES, count=4))
    drawn = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        words = ("--limit", 4, "--seed", seed, "--output", folder)
        assert run_tpt("eval", "set", *ZERO_SHOT, *words).exit_code == 0
        drawn.append([line["key"] for line in lines_of(folder)])
    assert [len(keys) for keys in drawn] == [4, 4, 4]
    assert drawn[0] == drawn[1] != drawn[2]
    (part,) = results_of("a")["sets"]
    assert "4 of the 12 pictures are drawn, by --limit." in part["notes"]


def test_base_to_new_evaluates_the_halves_of_the_classes_apart(
    run_tpt: Run, make_images: Make
) -> None:
    make_images(*names_of("set", "cat", "cup", "dog", "horse", "house"))
    words = ("--protocol", "base-to-new", *ZERO_SHOT, "--output", "out")
    assert run_tpt("eval", "set", *words).exit_code == 0
    results = results_of("out")
    assert [(part["name"], part["part"], part["classes"]) for part in results["sets"]] == [
        ("set (base)", "base", ["cat", "cup", "dog"]),
        ("set (new)", "new", ["horse", "house"]),
    ]
    assert [line["label"] for line in lines_of("out", "set (new)")] == [0, 0, 1, 1]
    assert "base_to_new" in results["protocols"]


def test_a_half_without_pictures_has_no_numbers(run_tpt: Run, make_images: Make) -> None:
    make_images(*names_of("set", "cat", "cup", "dog", "horse", count=1))
    words = ("--protocol", "base-to-new", "--limit", 1, *ZERO_SHOT, "--output", "out")
    assert run_tpt("eval", "set", *words).exit_code == 0
    results = results_of("out")
    empty, full = sorted(results["sets"], key=lambda part: part["images"])
    assert (empty["images"], full["images"]) == (0, 1)
    assert entry_of(results, empty["name"])["metrics"]["acc1"] is None
    assert entry_of(results, full["name"])["metrics"]["acc1"] in (0, 1)


# --- methods ---


def test_options_reach_the_methods_that_have_them(run_tpt: Run, make_images: Make) -> None:
    make_images(*names_of("set", "cat", "dog", count=1))
    words = ("--methods", "zero-shot,tpt,ctpt,tpt:lr=0.5", "--views", 6, "--keep", 0.5)
    more = ("--lr", 0.1, "--steps", 2, "--set", "weight=3", "--quiet")
    assert run_tpt("eval", "set", *words, *more, "--output", "out").exit_code == 0
    settings = {method["name"]: method["settings"] for method in results_of("out")["methods"]}
    assert settings["zero-shot"] == {}
    assert (settings["tpt"]["lr"], settings["tpt"]["steps"]) == (0.1, 2)
    assert (settings["ctpt"]["lr"], settings["ctpt"]["weight"]) == (0.1, 3)
    assert settings["tpt:lr=0.5"]["lr"] == 0.5
    for line in lines_of("out"):
        assert len(line["methods"]["tpt"]["kept"]) == 3
        ends = [line["methods"][name]["entropy"][1] for name in ("tpt", "ctpt", "tpt:lr=0.5")]
        assert len(set(ends)) == 3


def test_a_gate_leaves_sure_pictures_as_they_were(run_tpt: Run, make_images: Make) -> None:
    make_images(*names_of("set", "cat", "dog", count=1))
    words = ("--methods", "tpt,zero", "--views", 4, "--gate", 0.01, "--quiet", "--output", "out")
    assert run_tpt("eval", "set", *words).exit_code == 0
    for line in lines_of("out"):
        assert line["methods"]["tpt"]["skipped"] is True
        assert line["methods"]["zero"]["skipped"] is True
        assert line["methods"]["tpt"]["top"] == line["methods"]["zero-shot"]["top"]
    assert results_of("out")["settings"]["gate"] == 0.01


def test_a_method_that_votes_has_no_probabilities(run_tpt: Run, make_images: Make) -> None:
    make_images(*names_of("set", "cat", "dog", count=1))
    words = ("--methods", "zero", "--views", 6, "--quiet", "--output", "out")
    assert run_tpt("eval", "set", *words).exit_code == 0
    entry = entry_of(results_of("out"), "set", "zero")
    assert entry["metrics"]["nll"] is entry["metrics"]["ece15"] is entry["reliability"] is None
    assert entry["metrics"]["acc1"] is not None


def test_a_method_that_learns_from_the_stream_has_one_stream_a_set(
    run_tpt: Run, make_images: Make, tiny: tpt.Clip
) -> None:
    make_images(*names_of("one", "cat", "dog", count=3), *names_of("two", "cat", "dog", count=3))
    words = ("eval", "one", "two", "--methods", "tda", "--output", "out")
    result = run_tpt(*words)
    assert result.exit_code == 0
    assert "Note: a method learns from each picture, so its numbers depend on" in result.stderr
    for name in ("one", "two"):
        method = tpt.TDA(tpt.PromptEngine(tiny, ("cat", "dog")))
        for line in lines_of("out", name):
            alone = said_by(tiny, method, f"{name}/{line['key']}", views=1)
            assert line["methods"]["tda"]["top"] == alone["top"]


@pytest.mark.parametrize("name", TOWERS)
def test_methods_that_tune_towers_are_given_the_pictures(
    run_tpt: Run, make_images: Make, tiny: tpt.Clip, name: str
) -> None:
    make_images(*names_of("one", "cat", "dog", count=3), *names_of("two", "cat", "dog", count=3))
    methods = ("--methods", f"zero-shot,vte,{name}", "--views", 2, "--batch-size", 4)
    assert run_tpt("eval", "one", "two", *methods, "--output", "out").exit_code == 0
    for part in ("one", "two"):
        lines = lines_of("out", part)
        method = make_method(name, tpt.PromptEngine(tiny, ("cat", "dog")))
        paths = [f"{part}/{line['key']}" for line in lines]
        told = tpt.stream(paths, method, tpt.Views(tiny, n=1), batch_size=4)
        for line, record in zip(lines, told, strict=True):
            best, probability = line["methods"][name]["top"][0]
            assert best == record.predictions[0].index
            assert probability == pytest.approx(record.predictions[0].score, abs=1e-5)


def test_prompts_have_names_and_start_all_methods_where_none_says_which(
    run_tpt: Run, make_images: Make, tiny: tpt.Clip
) -> None:
    make_images(*names_of("set", "cat", "dog", count=1))
    for name, words in (("a", WORDS), ("b", "a sketch of a {}.")):
        tpt.Context.from_words(tiny, words).save(f"{name}.safetensors")
    both = ("--init", "coop=a.safetensors", "--init", r"\d=b.safetensors")
    words = ("--methods", "zero-shot,vte", "--views", 2, *both, "--quiet", "--output", "out")
    assert run_tpt("eval", "set", *words).exit_code == 0
    assert [method["name"] for method in results_of("out")["methods"]] == [
        *("zero-shot", "zero-shot+coop", r"zero-shot+\d", "vte+coop", r"vte+\d")
    ]


def test_a_prompt_of_single_classes_decides_on_them(
    run_tpt: Run, make_images: Make, tiny: tpt.Clip
) -> None:
    make_images(*names_of("set", "cat", "dog", count=1))
    context = tpt.PromptEngine(tiny, ("dog", "cat")).context
    vectors = context.vectors.expand(2, *context.vectors.shape[-2:]).clone()
    info = PromptInfo(model="tiny", classes=("dog", "cat"))
    tpt.Context(vectors, info=info).save("own.safetensors")
    words = ("--methods", "zero-shot+init", "--init", "own.safetensors", "--quiet")
    assert run_tpt("eval", "set", *words, "--output", "out").exit_code == 0
    assert results_of("out")["sets"][0]["classes"] == ["dog", "cat"]


def test_pictures_and_classes_that_a_prompt_learned_from_are_told(
    run_tpt: Run, make_images: Make, tiny: tpt.Clip
) -> None:
    classes = ("ant", "bee", "cat", "dog")
    make_images(*names_of("set", *classes, count=1))
    context = tpt.PromptEngine(tiny, classes).context
    info = PromptInfo(model="tiny", classes=("ant", "cat"), shots=1, seed=2)
    tpt.Context(context.vectors, info=info).save("own.safetensors")
    rows = ["split,shots,seed,path", "train,1,2,set/ant/0.png", "val,1,2,set/bee/0.png"]
    Path("own.files.csv").write_text("\n".join(rows) + "\n")
    words = ("--methods", "zero-shot", "--init", "own.safetensors", "--output", "out")
    result = run_tpt("eval", "set", "--protocol", "base-to-new", *words)
    assert result.exit_code == 0, result.stderr
    seen = 'The prompt "init" learned from 1 of these 4 pictures'
    halves = (
        'the prompt "init" was not learned on the base classes of this set, but with cat and '
        "without bee"
    )
    assert f"  Note: set: {seen}" in result.stderr
    assert f"Warning: set: {halves}" in result.stderr
    for part in results_of("out")["sets"]:
        assert [
            note.startswith(said) for note, said in zip(part["notes"], (seen, halves), strict=True)
        ] == [*(True, True)]


# --- sizes and batches ---


def test_pictures_of_a_batch_are_told_apart(run_tpt: Run, make_images: Make) -> None:
    make_images(*names_of("set", *CLASSES))
    Image.new("RGB", (9, 31)).save("set/cat/7.png")
    words = ("eval", "set", "--methods", "tpt", *FAST, "--quiet")
    run_tpt(*words, "--output", "one")
    run_tpt(*words, "--output", "four", "--batch-size", 4, "--num-workers", 0)
    one, four = answers_of("one", "set"), answers_of("four", "set")
    assert list(one) == list(four)
    for key, line in one.items():
        for name, told in line["methods"].items():
            assert four[key]["methods"][name]["nll"] == pytest.approx(told["nll"], abs=1e-4)


def test_the_help_names_every_layout(run_tpt: Run) -> None:
    told = " ".join(run_tpt("eval", "--help").stdout.split())
    assert all(f"{name}," in told or f"or {name}." in told for name in LAYOUTS)
