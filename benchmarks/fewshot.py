"""Accuracy by shots of every training method, on folders of real images, with the embedded model.

    python benchmarks/fewshot.py DATA --work DIR --short              # three sets, 20 minutes
    python benchmarks/fewshot.py DATA --work DIR                      # every set, some twelve hours
    python benchmarks/fewshot.py DATA --work DIR --sets imagenette --methods CoCoOp --shots 1,16
    python benchmarks/fewshot_report.py DIR                           # what is there, as tables

DATA holds `cifar10/test`, `imagenette/val`, `pacs/photo`, `pacs/sketch` and `caltech101`, one
folder per class. The script first writes `DIR/<set>.csv` with a split column, so that any line of
the table can be made again by hand:

    tpt train DIR/imagenette.csv --shots 1,2,4,8,16 --seeds 1,2,3 --output coop.safetensors

Shots are never drawn from the test images. Every finished run is a line of `DIR/<set>.jsonl`, and
finished runs are not repeated. Image features are encoded once per set and kept in
`DIR/<set>.features.safetensors`. A run's seconds are those of training alone. `--short` runs the
methods shown in the chart, with 1, 4 and 16 shots, two seeds, 600 test images and bf16.
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
from _fewshot import ENSEMBLE, SEEDS, SETS, SHORT, SHOTS, SINGLE, plan, thin
from safetensors.torch import load_file, save_file

import tpt
from coop.features import FeatureBank
from coop.head_run import fit_head
from coop.recipes import HEADS, RecipeSettings
from coop.run import (
    Run,
    context_of,
    epoch_views,
    fit_probe,
    measure,
    measure_run,
    prepare_run,
    train_prompt,
)
from coop.scoring import score, template_logits
from coop.train_job import TrainJob, TrainSettings
from tpt.data.training_sets import read_training_set

Only = Callable[[str, str, int, int], bool]
"""Whether to run a (method, split of the classes, shots, seed)."""


class KeptBank(FeatureBank):
    """A feature bank saved in a file, so that a continued run encodes nothing twice."""

    def __init__(self, clip: tpt.Clip, path: Path) -> None:
        super().__init__(clip)
        self.path = path
        for name, feature in load_file(path).items() if path.exists() else ():
            seed, view, file = name.split("|", 2)
            if view:
                self._views[file, int(seed), int(view)] = feature
            else:
                self._plain[file] = feature
        self._kept = self._count()

    def keep(self) -> None:
        if self._count() == self._kept:
            return
        made = {f"||{file}": feature for file, feature in self._plain.items()}
        for (file, seed, view), feature in self._views.items():
            made[f"{seed}|{view}|{file}"] = feature.clone()  # not a part of all views' tensor
        part = self.path.with_suffix(".part")
        save_file(made, part)
        part.replace(self.path)
        self._kept = self._count()

    def _count(self) -> int:
        return len(self._plain) + len(self._views)


class Quiet:
    """A watch that prints messages and no progress."""

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def encode(self, what: str, done: int, total: int) -> None:
        pass

    def epoch(self, epoch: Any, epochs: int) -> None:
        pass


def write_csv(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])


def run_set(
    work: Path, name: str, clip: tpt.Clip, only: Callable[[str, str, int, int], bool]
) -> None:
    table = work / f"{name}.csv"
    dataset = read_training_set(str(table))
    bank = KeptBank(clip, work / f"{name}.features.safetensors")
    zero_shot(
        TrainJob(TrainSettings(str(table)), clip, dataset, bank, (SINGLE,)), work / f"{name}.json"
    )
    bank.keep()
    log = work / f"{name}.jsonl"
    done = {key_of(line) for line in read_lines(log)}
    for label, options, shots, split in plan(name):
        settings = TrainSettings(
            str(table), RecipeSettings(**options), classes_split=split, templates=(SINGLE,)
        )
        job = TrainJob(settings, clip, dataset, bank, (SINGLE,))
        for count in shots:
            for seed in SEEDS:
                if (label, split, count, seed) in done or not only(label, split, count, seed):
                    continue
                line = {"set": name, "method": label, "split": split, **one(job, count, seed)}
                bank.keep()
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                Quiet().say(tell(line))


def tell(line: dict[str, Any]) -> str:
    return (
        f"{line['set']}, {line['method']}, {line['shots']} shots, seed {line['seed']}: "
        f"{100 * line['accuracy']['test']:.1f} %, {line['seconds']:.1f} s "
        f"(and {line['encoding']:.1f} s of encoding)"
    )


def one(job: TrainJob, shots: int, seed: int) -> dict[str, Any]:
    """Run once; accuracies and seconds."""
    watch = Quiet()
    begun = time.perf_counter()
    run = prepare_run(job, shots, seed, watch)
    encode(run, watch)
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
        "accuracy": found["accuracy"],
        "template": found["template_accuracy"],
        "images": found["measured_on"],
        "harmonic": found["harmonic_mean"],
        "template_harmonic": found["template_harmonic_mean"],
        "seconds": seconds,
        "encoding": started - begun,
    }


def encode(run: Run, watch: Quiet) -> None:
    """Fill the bank with the features of the run, so that its seconds are those of training."""
    bank, recipe = run.job.bank, run.recipe
    measure(bank, run.draw.val, watch, "validation pictures")
    if recipe.cache_views and recipe.method not in ("linear-probe", "lpp"):
        epoch_views(bank, run.train, run.seed, recipe, watch)


def zero_shot(job: TrainJob, path: Path) -> None:
    """Write the accuracy of the hand-crafted prompts on all test images."""
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


def claim(work: Path, facts: dict[str, Any]) -> None:
    """Use a folder for runs of these settings, or continue one that has the same settings."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / "settings.json"
    found = json.loads(path.read_text()) if path.exists() else facts
    differs = [f"{name} {found.get(name)}" for name in facts if found.get(name) != facts[name]]
    if differs:
        raise SystemExit(
            f"{work} holds runs with {', '.join(differs)}; this one asks for "
            f"{', '.join(f'{name} {value}' for name, value in facts.items())}. Ask for the same, "
            "or give another --work."
        )
    path.write_text(json.dumps(facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--methods", help="rows of the table, separated by semicolons")
    parser.add_argument("--shots", default=",".join(map(str, SHOTS)))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--images", type=int, help="test images per set, at most")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--short", action="store_true", help="1, 4, 16 shots, two seeds, bf16")
    if "--short" in sys.argv:
        parser.set_defaults(**SHORT)
    args = parser.parse_args()
    shots, seeds = (set(map(int, text.split(","))) for text in (args.shots, args.seeds))
    methods = None if args.methods is None else args.methods.split(";")

    def only(label: str, split: str, count: int, seed: int) -> bool:
        wanted = methods is None or label in methods
        return wanted and count in shots and seed in seeds and not (args.short and split != "all")

    facts = {"data": str(args.data.resolve()), "images": args.images, "precision": args.precision}
    claim(args.work, facts)
    torch.set_num_threads(1)  # so small a model gains nothing from more; run two sets side by side
    clip = tpt.load_clip("lite", device="cpu", precision=args.precision)
    for name in args.sets.split(","):
        started = time.perf_counter()
        write_csv(args.work / f"{name}.csv", thin(SETS[name](args.data), args.images))
        run_set(args.work, name, clip, only)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
