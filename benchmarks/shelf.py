"""The whole shelf on shifted sets: paired gains, calibration before and after, orders, cost.

    python benchmarks/shelf.py DATA --images 600 --output shelf        # shelf.md and shelf.json
    python benchmarks/shelf.py DATA --images 100 --sets "PACS sketch;Imagenette, fog"

DATA holds `cifar10/test`, `imagenette/val`, `pacs/photo`, `pacs/sketch` and `cue_conflict`, one
folder a class; those that are missing are left out. Every picture's views are made and encoded
once, in a shuffled order, and all methods see the same features; those that keep a state see the
pictures sorted by class too. The table has accuracy, the paired difference to zero-shot with its 95
% interval, the expected calibration error (15 bins) as it is and after one temperature (each half
of the pictures read with the other half's), and the median milliseconds of views and image tower
(for one view where the method reads one) and of the method itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import IMAGENETTE, list_set, take_evenly
from torch import Tensor

import tpt
from tpt.corrupt.corruptions import corrupt
from tpt.evaluate.advice import list_shelf
from tpt.evaluate.calibration import as_scores, measure_calibration
from tpt.evaluate.method_specs import MethodSpec, parse_methods
from tpt.evaluate.metrics import measure_set
from tpt.images.decode import decode_image
from tpt.methods import Method
from tpt.methods.registry import make_method

FOLDERS: dict[str, tuple[str, dict[str, str]]] = {
    "Imagenette": ("imagenette/val", IMAGENETTE),
    "CIFAR-10": ("cifar10/test", {}),
    "PACS photo": ("pacs/photo", {}),
    "PACS sketch": ("pacs/sketch", {}),
    "cue conflict": ("cue_conflict", {}),
}
CORRUPTED = ("gaussian_noise", "fog", "contrast")  # of the first two, at severity 3
SETS = {name: (name, None) for name in FOLDERS} | {
    f"{name}, {kind}": (name, kind) for name in ("Imagenette", "CIFAR-10") for kind in CORRUPTED
}
Row = dict[str, Any]


class Features:
    """The encoded views of a set's pictures in a shuffled order, and what they cost."""

    def __init__(self, clip: tpt.Clip, data: Path, name: str, images: int, views: int) -> None:
        folder, kind = SETS[name]
        path, names = FOLDERS[folder]
        chosen = take_evenly(list_set(data / path, names), images)
        self.classes = sorted({label for _, label in chosen})
        make, rows, labels = tpt.Views(clip, n=views), [], []
        self.ms: dict[bool, list[float]] = {True: [], False: []}  # by whether all views are read
        for place in np.random.default_rng(0).permutation(len(chosen)):
            file, label = chosen[place]
            pixels = decode_image(file)
            if kind is not None:
                pixels = corrupt(pixels, kind, 3, 0, file)
            for every in (False, True):
                started = time.perf_counter()
                seen = clip.encode_views(make([pixels]) if every else make.plain([pixels]))
                self.ms[every].append(1e3 * (time.perf_counter() - started))
            rows.append(seen[0])
            labels.append(self.classes.index(label))
        self.rows, self.labels = torch.stack(rows), torch.tensor(labels)  # (n, N, E)

    def sorted(self) -> Tensor:
        """The places of the pictures, sorted by class."""
        return self.labels.argsort(stable=True)


def run(method: Method, rows: Tensor) -> tuple[Tensor, float]:
    """Logits (n, K) of a stream of features (n, N, E), and the median milliseconds a picture."""
    found, ms = [], []
    method.start_stream()
    for part in rows.split(method.together or 1):
        started = time.perf_counter()
        out = method.adapt_features(part if method.reads_views else part[:, :1])
        ms.append(1e3 * (time.perf_counter() - started) / len(part))
        found.append(out.logits.double())
    return torch.cat(found), statistics.median(ms)


def measure(plain: Tensor, logits: Tensor, labels: Tensor, votes: bool) -> Row:
    """Accuracy against zero-shot's, and calibration, on the same pictures."""
    scores = as_scores(logits, labels)
    if votes:
        scores = replace(scores, score=None, nll=None, brier=None)
    found = measure_set({"plain": as_scores(plain, labels), "own": scores}, "plain")["own"]
    row: Row = {"acc": found.metrics["acc1"]}
    if found.versus is not None:
        row |= {"gain": found.versus.difference, "interval": found.versus.interval}
        row["p"] = found.versus.mcnemar_p
    if not votes:
        both = measure_calibration(logits, labels)
        row |= {f"ece {k}": both[k].metrics["ece15"] for k in ("before", "after")}
    return row


def rows_of(
    clip: tpt.Clip, seen: Features, specs: tuple[MethodSpec, ...]
) -> Iterator[tuple[str, Row]]:
    """(method, figures), the sorted stream after the shuffled one for those that keep a state."""
    engine = tpt.PromptEngine(clip, seen.classes)
    plain, _ = run(tpt.ZeroShot(engine), seen.rows)
    order = seen.sorted()
    for spec in specs:
        method = make_method(spec.method, engine, spec.options)
        votes = not method.gives_probabilities
        logits, ms = run(method, seen.rows)
        image = statistics.median(seen.ms[bool(method.reads_views)])
        yield spec.name, measure(plain, logits, seen.labels, votes) | {"ms": (image, ms)}
        if method.keeps_state:
            logits, ms = run(method, seen.rows[order])
            row = measure(plain[order], logits, seen.labels[order], votes) | {"ms": (image, ms)}
            yield f"{spec.name} (sorted)", row


def tell(name: str, row: Row) -> str:
    """A line of the table."""
    cells = [f"{100 * row['acc']:.1f}"]
    low, high = (100 * end for end in row.get("interval", (0, 0)))
    gain = f"{100 * row['gain']:+.1f} ({low:+.1f} to {high:+.1f})" if "gain" in row else ""
    star = "*" if row.get("p", 1) < 0.05 else ""
    cells.append(gain + star)
    cells += [f"{100 * row[k]:.1f}" if k in row else "" for k in ("ece before", "ece after")]
    cells += [f"{value:.1f}" for value in row["ms"]]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--images", type=int, default=600, help="of each set, at most")
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--sets", help="of the table, by name, with semicolons")
    parser.add_argument("--methods", help="as tpt eval has it; default the shelf")
    parser.add_argument("--output", type=Path, default=Path("shelf"))
    args = parser.parse_args()
    clip = tpt.load_clip(args.model, device="cpu", precision=args.precision)
    warnings.filterwarnings("ignore", category=UserWarning)  # TDA's, on sorted streams
    specs = parse_methods([args.methods] if args.methods else list_shelf(clip.logit_scale))
    wanted = args.sets.split(";") if args.sets else SETS
    head = "| method | top-1, % | against zero-shot, points | ECE | after | image ms | own ms |"
    lines, results = [], {}
    for name in wanted:
        if not (args.data / FOLDERS[SETS[name.strip()][0]][0]).is_dir():
            continue
        seen = Features(clip, args.data, name.strip(), args.images, args.views)
        found = dict(rows_of(clip, seen, specs))
        results[name.strip()] = found
        lines += [f"**{name.strip()}** ({len(seen.labels)} pictures, {len(seen.classes)} classes)"]
        lines += ["", head, "|---" * 7 + "|", *(tell(*item) for item in found.items()), ""]
        args.output.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")
        args.output.with_suffix(".json").write_text(json.dumps(results, indent=1))
        print(f"{name.strip()}: done", file=sys.stderr, flush=True)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
