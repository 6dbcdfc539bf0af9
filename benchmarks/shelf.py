"""Ten methods on shifted sets: paired gains, calibration before and after, orders, cost.

    python benchmarks/shelf.py DATA --images 600 --output shelf   # shelf.md, shelf.json, shelf.png
    python benchmarks/shelf.py DATA --images 100 --sets "PACS sketch;Imagenette, fog"

DATA holds `cifar10/test`, `imagenette/val`, `pacs/photo`, `pacs/sketch` and `cue_conflict`, one
folder per class; missing ones are left out. Every image's views are made and encoded once, in a
shuffled order, and all methods see the same features. Methods with state see the images sorted by
class too. Sets that are already in OUTPUT.json are not measured again.

A table per set has:

- accuracy, and the paired difference to zero-shot with its 95 % interval;
- the expected calibration error (15 bins), without and with one temperature (each half of the
  images uses the temperature fitted on the other half);
- the median milliseconds of views and image tower (of one view if the method reads only one), and
  of the method itself. Behind a gate both are means, because the gate skips the other views of some
  images.

A table of the differences comes first, bold if the interval excludes zero. The chart has a panel
per set: every method's difference to zero-shot with its interval.
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
GATE = 0.9
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
        """The indices of the images, sorted by class."""
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
    """(method, figures); for methods with state, the sorted stream after the shuffled one.

    TPT has a row behind a gate too.
    """
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
        if spec.name == "tpt":
            gate = tpt.Gate(method, threshold=GATE)
            logits, _ = run(gate, seen.rows)
            rest = 1 - gate.share_skipped
            row = measure(plain, logits, seen.labels, False) | {"skipped": gate.share_skipped}
            image = statistics.median(seen.ms[False]) + rest * image
            yield f"tpt behind a gate of {GATE}", row | {"ms": (image, rest * ms)}


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


def sum_up(results: dict[str, Any]) -> list[str]:
    """The lines of one table of all sets: zero-shot's accuracy, and points above it."""
    lines = [f"| | {' | '.join(results)} |", "|---" * (1 + len(results)) + "|"]
    for name in next(iter(results.values()))["rows"]:
        cells = []
        for row in (found["rows"][name] for found in results.values()):
            gain, (low, high) = 100 * row["gain"], row["interval"]
            plain = f"{gain:+.1f}" if name != "zero-shot" else f"{100 * row['acc']:.1f}"
            cells.append(f"**{plain}**" if low > 0 or high < 0 else plain)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def draw(results: dict[str, Any], path: Path) -> None:
    """A panel a set: every method's points above zero-shot with the 95 % interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in next(iter(results.values()))["rows"] if name != "zero-shot"]
    across = min(4, len(results))
    down = -(-len(results) // across)
    size = (2 + 2.3 * across, 0.6 + (0.5 + 0.22 * len(names)) * down)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes, (title, found) in zip(panels.flat, results.items(), strict=False):
        rows = found["rows"]
        for place, name in enumerate(names):
            gain, (low, high) = rows[name]["gain"], rows[name]["interval"]
            color = "#13743a" if low > 0 else "#b3261e" if high < 0 else "#888888"
            axes.plot([100 * low, 100 * high], [place, place], color=color, linewidth=1.5)
            axes.plot(100 * gain, place, "o", color=color, markersize=4)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(f"{title}\n(zero-shot {100 * rows['zero-shot']['acc']:.1f} %)", fontsize=9)
        axes.grid(axis="x", alpha=0.3)
    for axes in panels.flat[len(results) :]:
        axes.set_axis_off()
    panels[0, 0].set_yticks(range(len(names)), names)
    panels[0, 0].invert_yaxis()
    figure.supxlabel("points above zero-shot, 95 % interval", fontsize=9)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--images", type=int, default=600, help="images per set, at most")
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--sets", help="sets by name, separated by semicolons")
    parser.add_argument("--methods", help="as for tpt eval; default: all ten")
    parser.add_argument("--output", type=Path, default=Path("shelf"))
    args = parser.parse_args()
    clip = tpt.load_clip(args.model, device="cpu", precision=args.precision)
    warnings.filterwarnings("ignore", category=UserWarning)  # TDA's, on sorted streams
    specs = parse_methods([args.methods] if args.methods else list_shelf(clip.logit_scale))
    wanted = args.sets.split(";") if args.sets else SETS
    head = "| method | top-1, % | against zero-shot, points | ECE | after | image ms | own ms |"
    kept = args.output.with_suffix(".json")
    results = json.loads(kept.read_text()) if kept.exists() else {}
    lines, shown = [], {}
    for name in (each.strip() for each in wanted):
        if not (args.data / FOLDERS[SETS[name][0]][0]).is_dir():
            continue
        if name not in results:
            seen = Features(clip, args.data, name, args.images, args.views)
            size = f"{len(seen.labels)} pictures, {len(seen.classes)} classes"
            results[name] = {"size": size, "rows": dict(rows_of(clip, seen, specs))}
            kept.write_text(json.dumps(results, indent=1))
            print(f"{name}: done", file=sys.stderr, flush=True)
        shown[name] = results[name]
        rows = (tell(*item) for item in results[name]["rows"].items())
        lines += [f"**{name}** ({results[name]['size']})", "", head, "|---" * 7 + "|", *rows, ""]
        told = [*sum_up(shown), *lines]
        args.output.with_suffix(".md").write_text("\n".join(told), encoding="utf-8")
    if not lines:
        parser.error(f"{args.data} holds none of the sets {', '.join(wanted)}.")
    draw(shown, args.output.with_suffix(".png"))
    print("\n".join(told))


if __name__ == "__main__":
    main()
