"""Every method of the shelf on the same real pictures: accuracy, calibration, cost.

    python benchmarks/methods.py DATA --output docs/methods       # .table.md, .json and .png
    python benchmarks/methods.py DATA --images 200 --views 32

DATA holds `cifar10/test`, `imagenette/val` and `pacs/sketch`, one folder a class. The views of
every picture are made and encoded once, and all methods see the same features, as they do in `tpt
predict`. Milliseconds an image are split into the image side (making and encoding the views that
the method reads) and the text side (all that the method does with features): medians over the
pictures, one at a time; behind a gate, means. Calibration is the expected calibration error with
20 bins, in percent; ZERO gives votes, so it has none. An accuracy's standard error is about
50 / sqrt(images) percent; the methods share their pictures, so differences are surer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import IMAGENETTE, list_set, take_evenly
from torch import Tensor

import tpt
from tpt.images.decode import decode_image
from tpt.methods import Gate, Method
from tpt.methods.registry import METHODS, make_method

TEMPLATES = ("a photo of a {}.", "a blurry photo of a {}.", "a sketch of a {}.")
BINS = 20
Pixels = Any  # (H, W, 3) uint8


def add_noise(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Gaussian noise of CIFAR-10-C's third severity, deviation 0.08 (Hendrycks, 1903.12261)."""
    noisy = pixels / 255 + rng.normal(0, 0.08, pixels.shape)
    return (255 * noisy.clip(0, 1)).round().astype(np.uint8)


def lose_contrast(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Contrast of CIFAR-10-C's third severity: a third of the distance to the mean."""
    x = pixels / 255
    return (255 * ((x - x.mean((0, 1))) * 0.3 + x.mean((0, 1)))).round().astype(np.uint8)


SETS: dict[str, tuple[str, dict[str, str], Callable[..., Pixels] | None]] = {
    "CIFAR-10": ("cifar10/test", {}, None),
    "CIFAR-10, noise": ("cifar10/test", {}, add_noise),
    "CIFAR-10, low contrast": ("cifar10/test", {}, lose_contrast),
    "Imagenette": ("imagenette/val", IMAGENETTE, None),
    "PACS sketch": ("pacs/sketch", {}, None),
}


def list_methods(engine: tpt.PromptEngine) -> dict[str, Method]:
    """The registered methods with their published settings, and what people ask of beside them.

    Those whose pictures decide in batches are in benchmarks/shelf.py.
    """
    single = [name for name, info in METHODS.items() if info.together is None]
    named: dict[str, Method] = {name: make_method(name, engine) for name in single}
    named["zero_shot, 3 templates"] = tpt.ZeroShot(engine, TEMPLATES)
    named["vte, 3 templates"] = make_method("vte", engine, templates=TEMPLATES)
    named["tpt, lr 0.02"] = tpt.TPT(engine, lr=0.02)
    named["tpt behind a gate"] = Gate(tpt.TPT(engine), threshold=0.9)
    return named


def load_pictures(
    root: Path, names: dict[str, str], change: Callable[..., Pixels] | None, count: int
) -> Iterator[tuple[str, Pixels, str]]:
    """(path, pixels, class name), evenly over all classes, in a shuffled order."""
    chosen = take_evenly(list_set(root, names), count)
    for place in np.random.default_rng(0).permutation(len(chosen)):
        path, name = chosen[place]
        pixels = decode_image(path)
        yield path, change(pixels, np.random.default_rng(place)) if change else pixels, name


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Expected calibration error: sum over bins of their share times |accuracy - confidence|."""
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    total = 0.0
    for b in bins.unique():
        inside = bins == b
        gap = right[inside].double().mean() - confidence[inside].double().mean()
        total += float(inside.double().mean() * gap.abs())
    return total


def run_set(
    clip: tpt.Clip, data: Path, name: str, images: int, views: int
) -> dict[str, dict[str, float]]:
    """Figures of every method on one set."""
    folder, names, change = SETS[name]
    pictures = list(load_pictures(data / folder, names, change, images))
    classes = sorted({label for _, _, label in pictures})
    methods = list_methods(tpt.PromptEngine(clip, classes))
    make = tpt.Views(clip, n=views)
    seen: dict[str, list[tuple[int, float, float]]] = {label: [] for label in methods}
    image_ms: dict[bool, list[float]] = {True: [], False: []}
    for method in methods.values():
        method.start_stream()
    for _, pixels, label in pictures:
        started = time.perf_counter()
        features = clip.encode_views(make([pixels]))[0]
        image_ms[True].append(1e3 * (time.perf_counter() - started))
        started = time.perf_counter()
        clip.encode_views(make.plain([pixels]))
        image_ms[False].append(1e3 * (time.perf_counter() - started))
        for key, method in methods.items():
            started = time.perf_counter()
            out = method.adapt_features(features if method.reads_views else features[:1])
            ms = 1e3 * (time.perf_counter() - started)
            best = int(out.logits.argmax())
            sure = float(out.logits.softmax(-1)[best]) if method.gives_probabilities else 0.0
            seen[key].append((classes[best] == label, sure, ms))
    return {
        key: summarise(method, seen[key], {k: statistics.median(v) for k, v in image_ms.items()})
        for key, method in methods.items()
    }


def summarise(
    method: Method, rows: list[tuple[int, float, float]], image_ms: dict[bool, float]
) -> dict[str, float]:
    right = torch.tensor([row[0] for row in rows])
    sure = torch.tensor([row[1] for row in rows])
    found = {
        "accuracy": 100 * float(right.double().mean()),
        "text_ms": statistics.median(row[2] for row in rows),
        "image_ms": image_ms[method.reads_views],
    }
    if method.gives_probabilities:
        found["ece"] = 100 * calibration_error(sure, right)
    if isinstance(method, Gate):  # the skipped images are spared all views but the plain one
        found["skipped"] = 100 * method.share_skipped
        found["text_ms"] = statistics.mean(row[2] for row in rows)
        share = method.share_skipped
        found["image_ms"] = image_ms[False] + (1 - share) * image_ms[True]
    return found


def write_table(results: dict[str, dict[str, dict[str, float]]], path: Path) -> str:
    """Markdown: accuracy (calibration error) by set, and the cost on the first."""
    sets = list(results)
    lines = [f"| method | {' | '.join(sets)} | image ms | text ms |"]
    lines.append("|---" * (len(sets) + 3) + "|")
    for key in results[sets[0]]:
        cells = []
        for name in sets:
            found = results[name][key]
            error = f" ({found['ece']:.1f})" if "ece" in found else ""
            cells.append(f"{found['accuracy']:.1f}{error}")
        cost = results[sets[0]][key]
        lines.append(
            f"| {key} | {' | '.join(cells)} | {cost['image_ms']:.0f} | {cost['text_ms']:.1f} |"
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "\n".join(lines)


def draw(results: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Mean accuracy over the sets against milliseconds an image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    first = next(iter(results.values()))
    for number, key in enumerate(first):
        mean = statistics.mean(found[key]["accuracy"] for found in results.values())
        cost = first[key]["image_ms"] + first[key]["text_ms"]
        axes.plot(cost, mean, "osD^"[number % 4], label=key)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_formatter("{x:.0f}")
    axes.set(
        xlabel="milliseconds an image (image and text side)",
        ylabel=f"accuracy (%), mean of {len(results)} sets",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small", ncols=2)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--images", type=int, default=1000, help="of each set, at most")
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--output", type=Path, default=Path("methods"))
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    clip = tpt.load_clip(args.model, device="cpu", precision=args.precision)
    warnings.filterwarnings("ignore", category=UserWarning)  # TDA's, on correlated streams
    results = {}
    for name in SETS:
        results[name] = run_set(clip, args.data, name, args.images, args.views)
        print(f"{name}: {json.dumps(results[name])}", file=sys.stderr, flush=True)
    print(write_table(results, args.output.with_suffix(".table.md")))
    args.output.with_suffix(".json").write_text(json.dumps(results, indent=1))
    draw(results, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
