"""What one run with several methods saves: views and image tower are computed once.

    python benchmarks/evaluation.py FOLDER                      # one folder per class
    python benchmarks/evaluation.py FOLDER --images 40 --methods zero-shot,tpt,vte

Every method runs alone, then all together, in turns, three times; medians are compared. Both sides
predict the same images from the same views, and the answers are checked to be equal.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from tpt.data.layouts import read_sets
from tpt.evaluate.evaluation import EvalSettings, Evaluation, build_evaluation
from tpt.evaluate.method_pool import Starts
from tpt.evaluate.method_specs import BASELINE, parse_methods
from tpt.evaluate.walks import draw_some, plan_walks

METHODS = "zero-shot,tpt,vte,zero,mta,tps,ctpt"


def answers_of(evaluation: Evaluation) -> tuple[float, dict[str, list[object]]]:
    """(seconds, what every method said) of one run; class features are made before."""
    (walk,) = evaluation.walks
    for by_name in evaluation.methods(walk).values():
        for method in by_name.values():
            method.start_classes(torch.zeros(1, evaluation.clip.embedding_width))
    started = time.perf_counter()
    lines = list(evaluation.run(walk, batch_size=1, num_workers=2))
    seconds = time.perf_counter() - started
    names = [spec.name for spec in evaluation.pool.specs]
    return seconds, {name: [line["methods"][name]["top"] for line in lines] for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    walks = plan_walks([draw_some(read_sets(str(args.folder))[0], args.images)])

    def build(methods: str) -> Evaluation:
        wanted = EvalSettings(parse_methods([methods]), Starts({}), args.model, device="cpu")
        return build_evaluation(wanted, walks)

    together, alone = build(args.methods), [build(name) for name in args.methods.split(",")]
    times: list[tuple[float, float]] = []
    for _ in range(args.rounds):
        seconds, answers = answers_of(together)
        apart = [answers_of(evaluation) for evaluation in alone]
        for _, said in apart:
            for name, answer in said.items():
                assert name == BASELINE or answer == answers[name], f"{name} answered otherwise"
        times.append((seconds, sum(part for part, _ in apart)))
    one, each = (statistics.median(column) for column in zip(*times, strict=True))
    count = len(alone)
    print(f"{count} methods, {args.images} pictures: together {one:.1f} s, apart {each:.1f} s")
    print(f"ratio {each / one:.2f}")


if __name__ == "__main__":
    main()
