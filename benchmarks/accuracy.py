"""Accuracy of the embedded model, zero-shot and adapted, on folders of real images.

    python benchmarks/accuracy.py DATA                       # the four sets below
    python benchmarks/accuracy.py DATA --images 400 --views 32 --init examples/prompt.safetensors

DATA holds `cifar10/test`, `imagenette/val`, `pacs/sketch` and `caltech101`, one folder per class.
Of Caltech101 only the images that training never saw are used (every fifth of each folder). Images
are taken evenly over all classes. The standard error of one figure is at most about
50 / sqrt(images) percent; differences between methods on the same images are more precise.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

from _common import CALTECH, IMAGENETTE, list_set, take_evenly

import tpt
from tpt.methods import Method

SETS: dict[str, tuple[str, dict[str, str], int]] = {
    "CIFAR-10 test": ("cifar10/test", {}, 1),
    "Imagenette val": ("imagenette/val", IMAGENETTE, 1),
    "Caltech101, held out": ("caltech101", CALTECH, 5),
    "PACS sketch": ("pacs/sketch", {}, 1),
}


def methods(engine: tpt.PromptEngine) -> dict[str, Method]:
    return {
        "zero-shot": tpt.ZeroShot(engine),
        "TPT lr 0.005": tpt.TPT(engine),
        "TPT lr 0.02": tpt.TPT(engine, lr=0.02),
        "TPT lr 0.05": tpt.TPT(engine, lr=0.05),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--images", type=int, default=1000, help="images per set, at most")
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--init", help="prompt file; default: the words 'a photo of a'")
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    clip = tpt.load_clip(args.model, device="cpu", precision=args.precision)
    make = tpt.Views(clip, n=args.views)
    context = tpt.Context.load(args.init) if args.init else None
    for title, (folder, names, every) in SETS.items():
        pictures = list_set(args.data / folder, names, every)
        classes = sorted({name for _, name in pictures})
        pictures = take_evenly(pictures, args.images)
        tried = methods(tpt.PromptEngine(clip, classes, context))
        right: Counter[str] = Counter()
        seconds: dict[str, float] = dict.fromkeys(tried, 0.0)
        for file, name in pictures:
            features = clip.encode_views(make([file]))[0]
            for label, method in tried.items():
                start = time.perf_counter()
                logits = method.adapt_features(features).logits
                seconds[label] += time.perf_counter() - start
                right[label] += classes[int(logits.argmax())] == name
        figures = ", ".join(f"{label} {100 * right[label] / len(pictures):.1f}" for label in tried)
        print(f"{title} ({len(pictures)} pictures, {len(classes)} classes): {figures}", flush=True)


if __name__ == "__main__":
    main()
