"""How far bf16 and screening agree with fp32, on real images.

    python benchmarks/agreement.py DATA                        # the embedded model, 43 classes
    python benchmarks/agreement.py DATA --images 200 --model ViT-B-16 --pretrained random

DATA holds sets of one folder per class (`imagenette/val`, `pacs/sketch`, ...). Every image's views
are made once. For TPT, C-TPT, VTE and ZERO it prints the share of images with the same first class
as in fp32, the share with the same kept views, and the mean and largest difference of the first
class's score (not for ZERO, which votes). It also prints the seconds that encoding the views took.
With a random model only the numbers mean something, not the classes.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from _common import CALTECH, IMAGENETTE, list_set, take_evenly

import tpt
from tpt.errors import ImageError
from tpt.methods import Adapted
from tpt.methods.registry import make_method
from tpt.streaming.screen import SCREENED, Screen

METHODS = (*SCREENED, "vte", "zero")
_TIMED = 10  # pictures
SETS = ("imagenette/val", "caltech101", "pacs/photo", "pacs/sketch")


@dataclass
class Agreement:
    """What was counted for one method against fp32."""

    same_top: list[bool] = field(default_factory=list)
    same_kept: list[bool] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    def add(self, exact: Adapted, other: Adapted) -> None:
        top = int(exact.logits.argmax())
        self.same_top.append(int(other.logits.argmax()) == top)
        self.same_kept.append(set(exact.selected.tolist()) == set(other.selected.tolist()))
        scores = [out.logits.softmax(-1)[top] for out in (exact, other)]
        self.gaps.append(float((scores[0] - scores[1]).abs()))

    def tell(self, name: str) -> str:
        share = [100 * sum(part) / len(part) for part in (self.same_top, self.same_kept)]
        gap = (
            ""
            if name == "zero"
            else f", {sum(self.gaps) / len(self.gaps):.4f} / {max(self.gaps):.3f}"
        )
        return f"first class {share[0]:.1f} %, kept views {share[1]:.1f} %{gap}"


def list_pictures(root: Path, count: int) -> tuple[list[str], list[str]]:
    """(files, class names) of the sets that are there, evenly over all."""
    found = [
        pair
        for name in SETS
        if (root / name).is_dir()
        for pair in list_set(root / name, IMAGENETTE | CALTECH)
    ]
    names = sorted({name for _, name in found})
    return [path for path, _ in take_evenly(found, count)], names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--pretrained")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    paths, names = list_pictures(args.data, args.images)
    high, low = (
        tpt.load_clip(args.model, args.pretrained, device=args.device, precision=precision)
        for precision in ("fp32", "bf16")
    )
    engines = [tpt.PromptEngine(clip, names) for clip in (high, low)]
    methods = [{name: make_method(name, engine) for name in METHODS} for engine in engines]
    make, screen = tpt.Views(high, n=args.views), Screen(low)
    found: dict[tuple[str, str], Agreement] = defaultdict(Agreement)
    seconds: dict[str, float] = defaultdict(float)
    cosines = []
    done = 0
    for path in paths:
        try:
            views = make([path])
        except ImageError:
            continue
        done += 1
        encoded = []
        for how, clip in (("fp32", high), ("bf16", low)):
            started = time.perf_counter()
            encoded.append(clip.encode_views(views))
            seconds[how] += (time.perf_counter() - started) * (done <= _TIMED)
        exact, cheap = encoded
        cosines.append(float((exact * cheap).sum(-1).mean()))
        for name, method in methods[0].items():
            if done <= _TIMED:
                started = time.perf_counter()
                screen.encode(high, views, [method])
                seconds[f"screened for {name}"] += time.perf_counter() - started
            screened = screen.merge(cheap, exact, [method])
            out = method.adapt_features(exact)
            found["screened", name].add(out.image(0), method.adapt_features(screened).image(0))
            found["bf16", name].add(out.image(0), methods[1][name].adapt_features(cheap).image(0))
    print(
        f"{high.name}, {args.views} views, {done} pictures, {len(names)} classes; bf16 features' "
        f"mean cosine to fp32's {sum(cosines) / len(cosines):.5f}"
    )
    for (how, name), agreement in sorted(found.items()):
        print(f"{how:9} {name:5}: {agreement.tell(name)}")
    for how, spent in seconds.items():
        print(f"encoding, {how}: {spent / min(done, _TIMED):.3f} s a picture")


if __name__ == "__main__":
    main()
