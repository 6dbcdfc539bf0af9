"""Accuracy by shots of every training method, on folders of real pictures, with the embedded model.

    python benchmarks/fewshot.py DATA --work DIR                      # every set, some twelve hours
    python benchmarks/fewshot.py DATA --work DIR --sets imagenette    # one set, forty minutes
    python benchmarks/fewshot.py DATA --work DIR --sets imagenette --methods CoCoOp --shots 1,16
    python benchmarks/fewshot_report.py DIR                           # what is there, as tables

DATA holds `cifar10/test`, `imagenette/val`, `pacs/photo`, `pacs/sketch` and `caltech101`, one
folder a class. The script first writes `DIR/<set>.csv` with a split column, so that any line of the
table can be made again by hand:

    tpt train DIR/imagenette.csv --shots 1,2,4,8,16 --seeds 1,2,3 --output coop.safetensors

Shots come from pictures that the embedded model was not trained on (as CLIP was not trained on
CoOp's), except for Caltech101, of which too few are left; test pictures are always others.
Every finished run is a line of `DIR/<set>.jsonl`; runs that are there are not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _common import CALTECH, IMAGENETTE

import tpt
from coop.features import FeatureBank
from coop.head_run import fit_head
from coop.recipes import HEADS, RecipeSettings
from coop.run import context_of, fit_probe, measure, measure_run, prepare_run, train_prompt
from coop.scoring import score, template_logits
from coop.train_job import TrainJob, TrainSettings
from tpt.data.training_sets import read_training_set

SHOTS, SEEDS = (1, 2, 4, 8, 16), (1, 2, 3)
SINGLE = "a photo of a {}."
ENSEMBLE = (  # the public program's seven, and the single one
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
    SINGLE,
)
WORDS = "a photo of a"
METHODS: dict[str, dict[str, Any]] = {
    "CoOp, M = 16": {},
    "CoOp, M = 4": {"context_length": 4},
    "CoOp, M = 4, from words": {"context_words": WORDS},
    "CoOp, M = 4, from words, lr 0.02": {"context_words": WORDS, "lr": 0.02},
    "CoOp, M = 16, middle": {"position": "middle"},
    "CoOp, M = 16, class-specific": {"class_specific": True},
    "CoCoOp": {"method": "cocoop"},
    "KgCoOp": {"method": "kgcoop"},
    "E2MIM": {"method": "e2mim"},
    "linear probe": {"method": "linear-probe"},
    "Tip-Adapter": {"method": "tip-adapter"},
    "Tip-Adapter-F": {"method": "tip-adapter-f"},
    "GDA": {"method": "gda"},
    "LP++": {"method": "lpp"},
}
ABLATION: dict[str, dict[str, Any]] = {
    "E2MIM without text term": {"method": "e2mim", "mi_text": 0.0},
    "E2MIM without image term": {"method": "e2mim", "mi_image": 0.0},
    "E2MIM without mixing": {"method": "e2mim", "mixup": 0.0},
    "E2MIM without critic": {"method": "e2mim", "critic": False},
    "E2MIM without ensemble": {"method": "e2mim", "alpha": 1.0},
    "E2MIM, ensemble alone": {"method": "e2mim", "mi_text": 0.0, "mi_image": 0.0},
}
BASE_TO_NEW = ("CoOp, M = 16", "CoOp, M = 4, from words", "CoCoOp", "KgCoOp", "E2MIM")


class Quiet:
    """A watch that only says what a person must know."""

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def encode(self, what: str, done: int, total: int) -> None:
        pass

    def epoch(self, epoch: Any, epochs: int) -> None:
        pass


def rows_of(root: Path, names: dict[str, str], pool: int, every: int = 1) -> list[list[str]]:
    """(path, label, split) of each n-th file of a folder: the first `pool` train, the rest test."""
    rows = []
    for folder in sorted(root.iterdir()):
        label = names.get(folder.name, folder.name.replace("_", " "))
        for place, file in enumerate(sorted(folder.iterdir())[::every]):
            rows.append([str(file.resolve()), label, "train" if place < pool else "test"])
    return rows


def caltech_rows(root: Path) -> list[list[str]]:
    """Every fifth picture was held out of the model's training: those are the test."""
    rows = []
    for folder in sorted(root.iterdir()):
        if folder.name == "Faces_easy":  # as the published split has it
            continue
        label = CALTECH.get(folder.name, folder.name.replace("_", " "))
        for place, file in enumerate(sorted(folder.iterdir())):
            rows.append([str(file.resolve()), label, "train" if place % 5 else "test"])
    return rows


SETS: dict[str, Callable[[Path], list[list[str]]]] = {
    "cifar10": lambda data: rows_of(data / "cifar10/test", {}, 100),
    "imagenette": lambda data: rows_of(data / "imagenette/val", IMAGENETTE, 40),
    "pacs_photo": lambda data: rows_of(data / "pacs/photo", {}, 20, every=5),
    "pacs_sketch": lambda data: rows_of(data / "pacs/sketch", {}, 20),
    "caltech101": lambda data: caltech_rows(data / "caltech101"),
}


def write_csv(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])


def plan(name: str) -> list[tuple[str, dict[str, Any], tuple[int, ...], str]]:
    """(label, options, shots, split of the classes) of every run of a set."""
    runs: list[tuple[str, dict[str, Any], tuple[int, ...], str]]
    runs = [(label, options, SHOTS, "all") for label, options in METHODS.items()]
    runs += [(label, METHODS[label], (16,), "base") for label in BASE_TO_NEW]
    if name != "caltech101":  # a hundred classes: what is compared with itself is left out
        runs += [(label, options, (1, 4, 16), "all") for label, options in ABLATION.items()]
        runs.append(("CoOp, M = 16, no cached views", {"cache_views": 0}, (4,), "all"))
    return runs


def run_set(
    data: Path, work: Path, name: str, clip: tpt.Clip, only: Callable[[str, int, int], bool]
) -> None:
    table = work / f"{name}.csv"
    write_csv(table, SETS[name](data))
    dataset = read_training_set(str(table))
    bank = FeatureBank(clip)
    log = work / f"{name}.jsonl"
    done = {key_of(line) for line in read_lines(log)}
    for label, options, shots, split in plan(name):
        settings = TrainSettings(
            str(table), RecipeSettings(**options), classes_split=split, templates=(SINGLE,)
        )
        job = TrainJob(settings, clip, dataset, bank, (SINGLE,))
        for count in shots:
            for seed in SEEDS:
                if (label, split, count, seed) in done or not only(label, count, seed):
                    continue
                line = {"set": name, "method": label, "split": split, **one(job, count, seed)}
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
    zero_shot(
        TrainJob(TrainSettings(str(table)), clip, dataset, bank, (SINGLE,)), work / f"{name}.json"
    )


def one(job: TrainJob, shots: int, seed: int) -> dict[str, Any]:
    """Run once; accuracies and seconds."""
    watch = Quiet()
    run = prepare_run(job, shots, seed, watch)
    started = time.perf_counter()
    if job.settings.recipe.method == "linear-probe":
        learned: Any = fit_probe(run, watch)
    elif job.settings.recipe.method in HEADS:
        learned = fit_head(run, watch)
    else:
        *_, last = train_prompt(run, None, watch)
        learned = context_of(run, last.state)
    seconds = time.perf_counter() - started
    found = measure_run(run, learned, watch)
    return {
        "shots": shots,
        "seed": seed,
        "accuracy": {k: s.accuracy for k, s in found["scores"].items()},
        "template": {k: s.accuracy for k, s in found["template"].items()},
        "images": {k: s.images for k, s in found["scores"].items()},
        "harmonic": found["harmonic"],
        "template_harmonic": found["template_harmonic"],
        "seconds": seconds,
    }


def zero_shot(job: TrainJob, path: Path) -> None:
    """The hand-crafted prompts on all test pictures."""
    test = measure(job.bank, job.dataset.test, Quiet(), "")
    engine = tpt.PromptEngine(job.clip, job.dataset.classes)
    found = {}
    for label, templates in (("single", (SINGLE,)), ("ensemble", ENSEMBLE)):
        scored = score(template_logits(engine, test.features, templates), test.labels)
        found[label] = scored.accuracy if scored else None
    path.write_text(json.dumps({**found, "images": len(test.labels)}))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def key_of(line: dict[str, Any]) -> tuple[str, str, int, int]:
    return line["method"], line["split"], line["shots"], line["seed"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--methods", help="only these rows of the table, with commas")
    parser.add_argument("--shots", default=",".join(map(str, SHOTS)))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    args = parser.parse_args()
    shots, seeds = (set(map(int, text.split(","))) for text in (args.shots, args.seeds))

    def only(label: str, count: int, seed: int) -> bool:
        named = args.methods is None or label in args.methods.split(",")
        return named and count in shots and seed in seeds

    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # so small a model gains nothing from more; run two sets side by side
    clip = tpt.load_clip("lite", device="cpu", precision="fp32")
    for name in args.sets.split(","):
        started = time.perf_counter()
        run_set(args.data, args.work, name, clip, only)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
