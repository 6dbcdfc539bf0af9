"""Every program in benchmarks/ and tools/ runs at its smallest size and prints what it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from program_runs import ROOT, fail, run, start
from torch.utils import backend_registration


def test_every_program_is_run_here() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py"))
    programs = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "tools").glob("*.py")]
    for program in programs:
        if not program.name.startswith("_"):
            assert f'run("{program.parent.name}/{program.stem}"' in text, program


@pytest.mark.slow
def test_speed_agrees_with_the_plain_recipe() -> None:
    small = ("--model", "lite", "--views", 12, "--classes", 3, "--precision", "fp32", "screened")
    printed = run("benchmarks/speed", *small, "--jacobian")
    assert re.search(
        r"^      with --jacobian: tuning and predicting .* tuned pictures\]$", printed, re.M
    )
    assert "matrix products in fp32" in printed
    assert "3 classes fp32" in printed
    assert "x the image tower, peak" in printed
    assert "x as fast; logits differ by" in printed
    assert re.search(
        r"^      with --screen: .* x as fast as without; logits move by", printed, re.M
    )


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch takes no device that is written in Python",
)
def test_launches_are_printed() -> None:
    small = ("--classes", 3, "--batch", 2, "--layers", 1, "--augment", "augmix", "--most", 2)
    printed = run("benchmarks/launches", *small, "--cuda-graphs")
    assert "3 classes, batch 2, tpt:" in printed
    assert "synchronisations a batch: predict" in printed


@pytest.mark.slow
def test_throughput_is_measured_end_to_end() -> None:
    small = ("--model", "lite", "--views", 2, "--classes", 3, "--images", 2, "--few", 1)
    printed = run("benchmarks/throughput", *small, "--repeats", 1, "--sizes", "64x48")
    assert "2 JPEGs of 64x48: decode " in printed
    for command in ("predict", "eval"):
        assert re.search(rf"^  tpt {command}: [\d.-]+ pictures a second", printed, re.M)


@pytest.mark.slow
def test_training_agrees_with_the_plain_recipe() -> None:
    small = ("--model", "lite", "--classes", 4, "--steps", 1, "--case", "CoCoOp, batch 8")
    printed = run("benchmarks/training", *small)
    assert "CoCoOp, batch 8, 4 classes" in printed
    assert "text/step image/step     epoch   memory" in printed
    assert "the losses differ by" in printed


@pytest.mark.slow
def test_the_shelf_is_measured_in_both_orders(data: Path, tmp_path: Path) -> None:
    small = ("--images", 4, "--views", 4, "--output", tmp_path / "shelf")
    sets = ("--sets", "PACS sketch;Imagenette, fog", "--methods", "vte,zero,oga,tpt,tpt:lr=0.02")
    printed = run("benchmarks/shelf", data, *small, *sets)
    assert printed.startswith("| | PACS sketch | Imagenette, fog |\n")
    assert "**PACS sketch** (4 pictures, 2 classes)" in printed
    assert "**Imagenette, fog**" in printed
    names = ("zero-shot", "vte", "zero", "oga", "oga (sorted)", "tpt", "tpt:lr=0.02")
    for name in (*names, "tpt behind a gate of 0.9"):
        assert f"\n| {name} | " in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("shelf.json", "shelf.md", "shelf.png")
    ]
    for folder in ("pacs/sketch", "imagenette/val"):
        (tmp_path / folder).mkdir(parents=True)
    assert run("benchmarks/shelf", tmp_path, *small, *sets) == printed  # nothing measured again


@pytest.mark.slow
def test_a_cluster_gives_the_rows_of_a_single_run_whatever_dies(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    for number in range(39):
        pixels = np.random.RandomState(number).randint(0, 256, (40, 44, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "7-bad.png").write_text("no picture")
    parts = ("--parts", "node,driver,speed")
    printed = run("benchmarks/cluster", tmp_path, "--pictures", 40, *parts)  # five groups of 8
    for what in ("node", "driver"):
        assert re.search(rf"^{what}: 40 rows, the same, .* killed after \d\d", printed, re.M)
    assert re.search(r"^tpt predict --ray local: [\d.]+ pictures/s", printed, re.M)
    assert re.search(r"^two actors / alone: ratio [\d.]+$", printed, re.M)


@pytest.mark.slow
def test_an_attack_is_survived_or_not(data: Path) -> None:
    printed = run("benchmarks/adversarial", data, "--images", 2, "--views", 4)
    assert "| R-TPT | " in printed
    assert "R-TPT under attack / zero-shot without: ratio " in printed


@pytest.mark.slow
def test_precisions_are_compared(data: Path) -> None:
    printed = run("benchmarks/agreement", data, "--images", 4, "--views", 8)
    assert "8 views, 4 pictures, " in printed
    assert "bf16 features' mean cosine to fp32's 0.99" in printed
    for how in ("bf16", "screened"):
        for method in ("ctpt", "tpt", "vte", "zero"):
            assert re.search(
                rf"^{how} +{method} *: first class [\d.]+ %, kept views", printed, re.M
            )
    assert "encoding, screened for tpt: " in printed


@pytest.mark.slow
def test_accuracy_is_printed_by_set(data: Path) -> None:
    printed = run("benchmarks/accuracy", data, "--images", 2, "--views", 4)
    assert len(printed.splitlines()) == 4
    assert "PACS sketch (2 pictures, 2 classes): zero-shot" in printed
    assert "TPT lr 0.05" in printed


@pytest.mark.slow
def test_evaluating_together_is_compared_with_one_by_one(data: Path) -> None:
    small = ("--images", 3, "--methods", "zero-shot,vte", "--rounds", 1)
    printed = run("benchmarks/evaluation", data / "pacs/sketch", *small)
    assert "2 methods, 3 pictures: together" in printed
    assert "ratio" in printed


@pytest.mark.slow
def test_memory_is_sampled(data: Path) -> None:
    pictures = data / "cifar10/train"
    words = (pictures, "--recursive", "--classes", "cat,dog", "--every", 0.1)
    printed = run("benchmarks/memory", *words, "--views", 64)
    assert "records" in printed
    assert "after the first tenth" in printed
    assert "exit code 0" in printed


@pytest.mark.slow
def test_a_long_run_of_broken_pictures_stays_sound() -> None:
    printed = run("benchmarks/endurance", "--pictures", 300, "--hangs", 1)
    for source in ("folder", "list", "parquet", "arrays"):
        assert f"{source}: 300 records of 300" in printed
    assert "'broken': 60" in printed
    assert "threads and files before" in printed


@pytest.mark.slow
def test_few_shot_runs_become_tables_and_curves(data: Path, tmp_path: Path) -> None:
    sets = ("--sets", "caltech101", "--shots", 1, "--seeds", 1)
    heads = "linear probe;Tip-Adapter;Tip-Adapter-F;GDA;LP++"
    words = (data, "--work", tmp_path, "--images", 3)
    prompts = "CoOp, M = 4, from words;CoCoOp;KgCoOp;E2MIM"
    run("benchmarks/fewshot", *words, *sets, "--methods", prompts)
    features = (tmp_path / "caltech101.features.safetensors").read_bytes()
    run("benchmarks/fewshot", *words, *sets, "--methods", f"{heads};KgCoOp")  # the latter is there
    assert (tmp_path / "caltech101.features.safetensors").read_bytes() == features
    assert len((tmp_path / "caltech101.jsonl").read_text().splitlines()) == 9
    printed = run("benchmarks/fewshot_report", tmp_path)
    assert "3 test pictures" in printed
    assert "| method, by shots | 1 | seconds, 1 |" in printed
    for method in ("CoOp, M = 4, from words", "CoCoOp", "KgCoOp", "E2MIM", *heads.split(";")):
        assert f"| {method} |" in printed
    assert (tmp_path / "caltech101.png").stat().st_size > 1000
    refused = fail("benchmarks/fewshot", data, "--work", tmp_path, *sets)
    assert refused.startswith(f"{tmp_path} holds runs with images 3; this one asks for ")


@pytest.mark.slow
def test_the_example_prompt_can_be_learned(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "prompt.safetensors"
    printed = run("tools/learn_example_prompt", data, "--output", output, "--epochs", 1)
    assert "epoch 1: loss" in printed
    assert output.stat().st_size > 1000


@pytest.mark.slow
def test_the_demo_answers_every_example_and_draws_a_sheet(tmp_path: Path) -> None:
    printed = run("examples/demo", "--views", 4, "--output", tmp_path / "demo.jpg").splitlines()
    rows = (ROOT / "examples/labels.csv").read_text().splitlines()[1:]
    pictures = sorted(Path(row.split(",")[0]).name for row in rows)
    assert sorted(line.split()[0] for line in printed[1:-1]) == pictures
    assert printed[-1].startswith("zero-shot: ")
    assert "TPT + learned prompt: " in printed[-1]
    with Image.open(tmp_path / "demo.jpg") as sheet:
        assert sheet.width > 600


@pytest.mark.slow
def test_the_demo_goes_on_past_a_broken_picture(tmp_path: Path) -> None:
    for name in ("classes.txt", "prompt.safetensors"):
        shutil.copy(ROOT / "examples" / name, tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    Image.new("RGB", (40, 40)).save(tmp_path / "sound.png")
    (tmp_path / "labels.csv").write_text("path,label\nbroken.jpg,cat\nsound.png,cat\n")
    words = ("--folder", tmp_path, "--views", 4, "--output", tmp_path / "demo.jpg")
    done = start("examples/demo", *words)
    assert done.returncode == 0
    assert "broken.jpg: " in done.stderr
    assert done.stdout.splitlines()[1].startswith("sound.png")


@pytest.mark.slow
def test_programs_say_what_is_missing(tmp_path: Path) -> None:
    said = fail("examples/demo", "--folder", tmp_path)
    assert said.startswith("The demo needs labels.csv, classes.txt and prompt.safetensors: ")
    said = fail("tools/learn_example_prompt", tmp_path, "--output", tmp_path / "p.safetensors")
    assert said.startswith(f"{tmp_path} has none of pacs/photo, caltech101, cifar10/train")
    assert "cue_conflict" in fail("tools/make_examples", "--data", tmp_path, "--output", tmp_path)


def test_the_example_pictures_can_be_made_again(tmp_path: Path) -> None:
    printed = run("tools/make_examples", "--output", tmp_path)
    assert re.match(r"wrote ([5-9]|1\d) pictures", printed)
    for made in (tmp_path / "images").iterdir():
        shown = ROOT / "examples" / "images" / made.name
        with Image.open(made) as one, Image.open(shown) as other:
            gap = np.abs(np.asarray(one, float) - np.asarray(other, float)).mean()
        assert gap < 2, made.name


@pytest.mark.skipif(
    not os.environ.get("CI_CHROMIUM") and shutil.which("chromium") is None,
    reason="chromium is not installed",
)
def test_a_page_is_photographed(tmp_path: Path) -> None:
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text("<h1 id='top'>Report</h1>", encoding="utf-8")
    run("tools/shoot_report", page, picture, "--section", "top", "--width", 300, "--height", 200)
    with Image.open(picture) as image:
        assert image.size == (300, 200)


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("CI_CHROMIUM") and shutil.which("chromium") is None,
    reason="chromium is not installed",
)
def test_the_page_of_a_service_is_photographed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli", "serve", "--port", "0", "--classes", "cat,cup"]
    with subprocess.Popen(
        [*command, "--views", "4"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as service:
        assert service.stderr is not None
        found = re.search(r"http://[\d.:]+", service.stderr.readline())
        assert found is not None
        examples, picture = ROOT / "examples" / "images", tmp_path / "page.png"
        run("tools/shoot_serve", picture, examples / "cup.jpg", "--address", found[0] + "/")
        service.terminate()
        service.communicate()
    with Image.open(picture) as image:
        assert image.width == 1100


@pytest.mark.slow
def test_a_service_is_put_under_load() -> None:
    small = ("--views", 2, "--pictures", 4, "--clients", 2, "--seconds", 1, "--queue", 2)
    printed = run("benchmarks/serve", "examples/images", *small)
    assert "2 clients: " in printed
    assert "ratio" in printed
    assert "queue x service time" in printed
    assert "clients that send a byte a second (16 of them): 8 x 200, 0 wrong" in printed
    assert "beside requests of a thousand new names" in printed
    assert "exit code after SIGTERM: 0" in printed
    assert ", 0 wrong" in printed
    assert not re.search("[1-9] wrong", printed)


def test_decoding_in_processes_is_compared_with_threads() -> None:
    printed = run("benchmarks/decoding", "--pictures", 6, "--turns", 1)
    assert [line.split()[0] for line in printed.splitlines()] == [
        *("threads", "processes", "ratio", "start")
    ]


def test_fuzzing_finds_no_fault() -> None:
    printed = run("benchmarks/fuzz_decoding", "--inputs", 60)
    assert "faults        0" in printed
    assert "memory grew by at most" in printed


def test_typed_lists_are_scored(tmp_path: Path) -> None:
    for wordnet_id in ("n02084071", "n02924116", "n02958343"):  # dog, bus, car
        (tmp_path / wordnet_id).mkdir()
        Image.new("RGB", (40, 40), "red").save(tmp_path / wordnet_id / "a.png")
    printed = run("benchmarks/typed_lists", tmp_path)
    assert "| list | words | pairs | right | 95 % interval |" in printed
    assert "| vehicles | 11 | 2 |" in printed
    assert "| all | 103 | 4 |" in printed


@pytest.mark.slow
def test_cuts_are_found_to_the_frame() -> None:
    printed = run("benchmarks/cuts", "examples/images", "--shots", 3, "--frames", 5)
    assert "3 shots of 5 frames" in printed
    assert len(printed.splitlines()) == 11
