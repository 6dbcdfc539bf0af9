"""The commands on a simulated GPU: every way of training, of predicting, and of evaluating."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import _simulated_gpu as gpu
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from running_service import ANIMALS, run_service
from safetensors.torch import load_file
from tiny_model import name_tiny

from cli.main import main
from tpt.evaluate import runner
from tpt.model import load
from tpt.serve.settings import ServeSettings
from tpt.streaming.predict_settings import PredictSettings

HEADS = ("linear-probe", "tip-adapter", "tip-adapter-f", "gda", "lpp")
PROMPTS = ("coop", "cocoop", "kgcoop", "e2mim")
STEPPING = (*PROMPTS, "tip-adapter-f", "lpp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of each of three classes."""
    root = tmp_path_factory.mktemp("gpu")
    random = np.random.RandomState(0)
    for name in ("cat", "dog", "frog"):
        (root / "data" / name).mkdir(parents=True)
        for number in range(6):
            pixels = random.randint(0, 256, (60, 70, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "data" / name / f"{number}.png")
    return root


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module", autouse=True)
def _named_cuda() -> Iterator[None]:
    """`--device cuda` is the simulated one."""
    find = load.find_device
    with pytest.MonkeyPatch.context() as patch, gpu.simulating():
        place = torch.device(gpu.KIND, 0)
        patch.setattr(load, "find_device", lambda d: place if str(d) == "cuda" else find(d))
        yield


def run(*args: object, device: str = "cuda") -> Result:
    words = [*name_tiny([str(arg) for arg in args]), "--device", device]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def read(path: str) -> list[dict[str, object]]:
    records = [json.loads(line) for line in Path(path).read_text().splitlines()]
    assert records
    assert not any("error" in record for record in records), records
    return records


def train(method: str, output: str, device: str = "cuda") -> None:
    steps = ("--epochs", 2) if method in STEPPING else ()
    words = ("--method", method, "--shots", 2, *steps, "--output", output)
    run("train", "data", *words, device=device)


@pytest.mark.parametrize("method", [*PROMPTS, *HEADS])
def test_what_is_learned_there_is_what_is_learned_on_a_cpu(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(method, f"{method}.safetensors")
    for home in ("tpt.images.resample", "tpt.images.views"):
        monkeypatch.setattr(f"{home}.works_on_bytes", lambda device: False)
    train(method, f"{method}-cpu.safetensors", device="cpu")
    there, here = (load_file(f"{method}{end}.safetensors") for end in ("", "-cpu"))
    assert there.keys() == here.keys()
    for name, tensor in here.items():
        torch.testing.assert_close(there[name], tensor, atol=2e-3, rtol=2e-2)
    if method == "linear-probe":  # a baseline, from which nothing predicts
        return
    way = "tpt" if method in PROMPTS else "zero_shot"
    init = ("--init", f"{method}.safetensors", "--output", f"{method}.records.jsonl")
    run("predict", "data/cat", "--method", way, *init, *(("--views", 4) if way == "tpt" else ()))
    assert len(read(f"{method}.records.jsonl")) == 6


WAYS: dict[str, tuple[object, ...]] = {
    "screened": ("--views", 4, "--screen"),
    "jacobian": ("--views", 4, "--jacobian"),
    "bf16": ("--views", 4, "--precision", "bf16"),
    "fp16": ("--views", 4, "--precision", "fp16"),
    "augmix": ("--views", 4, "--augment", "augmix"),
    "recorded": ("--views", 4, "--cuda-graphs", "--batch-size", 2),
    "gate": ("--views", 4, "--gate", 0.5),
    "carried": ("--views", 4, "--reset", "stream"),
    "rejecting": ("--views", 4, "--reject", 0.2),
    "steps": ("--views", 4, "--steps", 2),
    "templates": ("--method", "vte", "--views", 4, "--template", "a {}.", "--template", "the {}."),
    "tda": ("--method", "tda", "--save-state", "tda.safetensors"),
    "oga": ("--method", "oga", "--save-state", "oga.safetensors"),
    "tent": ("--method", "tent"),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_ways_of_predicting(way: str) -> None:
    run("predict", "data/cat", "--classes", "a,b,c", *WAYS[way], "--output", f"{way}.jsonl")
    assert len(read(f"{way}.jsonl")) == 6


@pytest.mark.parametrize("method", ["tda", "oga"])
def test_a_state_goes_on_there(method: str) -> None:
    words = ("predict", "data/cat", "--classes", "a,b,c", "--method", method)
    state = f"{method}-first.safetensors"
    run(*words, "--save-state", state, "--output", f"{method}-first.jsonl")
    run(*words, "--load-state", state, "--output", f"{method}-second.jsonl")
    assert len(read(f"{method}-second.jsonl")) == 6


@pytest.mark.parametrize("corrupted", [False, True])
def test_an_evaluation_waits_once_a_batch_and_method(corrupted: bool) -> None:
    output, methods = f"eval-{corrupted}", "tpt,vte,zero"
    words = ("--corrupt", "gaussian_noise:3,contrast:2") if corrupted else ()
    with gpu.counting() as counts:
        run("eval", "data", "--methods", methods, "--views", 4, *words, "--output", output)
    fetched = [times for line, times in counts.waits.items() if "fetching.py" in line]
    batches, variants = 3, 3 if corrupted else 1
    assert fetched == [4 * batches * variants]  # zero-shot beside the three
    encoding = [line for line in counts.waits if "tpt/images" in line or "runner.py" in line]
    assert not encoding, encoding


def test_the_next_variant_is_encoded_before_this_one_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []

    def note(name: str) -> None:
        own = getattr(runner, name)
        monkeypatch.setattr(runner, name, lambda *args: order.append(name[1]) or own(*args))

    note("_encode_variant")
    note("_judge_variant")
    words = ("--methods", "tpt", "--views", 4, "--limit", 9, "--corrupt", "contrast:2")
    run("eval", "data", *words, "--output", "ahead")
    assert "".join(order) == "ee" + "je" * 2 + "jj"  # two batches, each as it is and corrupted


def test_calibrating_and_advising() -> None:
    train("coop", "start.safetensors")
    calibrated = ("--init", "start.safetensors", "--output", "calibrated.safetensors")
    run("calibrate", "data", *calibrated, "--views", 4)
    assert Path("calibrated.safetensors").is_file()
    assert "zero_shot" in run("advise", "data/cat", "--classes", "a,b,c", "--views", 4).output


def test_a_service_answers_batches_of_many_lists_and_methods(folder: Path) -> None:
    wanted = PredictSettings(classes=ANIMALS, model="tiny", views=4, keep=0.5, device="cuda")
    pictures = [path.read_bytes() for path in sorted((folder / "data").glob("*/0.png"))]
    asked = [("tpt", ANIMALS), ("vte", ("owl", "elk")), ("zero", ANIMALS), ("ctpt", ("a", "b"))]
    with run_service(wanted, ServeSettings(max_batch=8, max_wait_ms=50)) as running:

        def ask(method: str, classes: tuple[str, ...]) -> list[dict[str, object]]:
            fields = {"method": method, "classes": list(classes), "details": "true"}
            answer = running.predict(*pictures, **fields)
            assert answer.status_code == 200, [line.get("traceback", "") for line in running.lines]
            return list(answer.json()["records"])

        alone = [ask(*one) for one in asked]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda one: ask(*one), asked))
    for mine, theirs in zip(together, alone, strict=True):
        assert not [record["error"] for record in [*mine, *theirs] if "error" in record]
        labels = [[r["predictions"][0]["label"] for r in records] for records in (mine, theirs)]
        assert labels[0] == labels[1]
