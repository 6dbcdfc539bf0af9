"""Kernels and synchronisations per image, counted on a simulated GPU.

    python benchmarks/launches.py              # 8 images, 12 layers, 10 to 1,000 classes
    python benchmarks/launches.py --classes 100 --batch 1 8 --augment augmix

A GPU is fast if it gets few, large kernels and nothing waits for their end. A narrow model of
ViT-B/16's depth runs on a device that computes on the CPU and enforces a GPU's rules
(`_simulated_gpu`). An operator that only makes a view of its input costs nothing, any other counts
as one kernel; a fused attention is one. A synchronisation is whatever makes the host wait: a number
or a mask that Python reads, and a copy from memory that is not page-locked. The counts do not
depend on width or weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import _simulated_gpu as gpu  # before anything is differentiated
import open_clip
import torch
from _simulated_gpu import Counts
from open_clip.model import CLIP

import tpt
from tpt.evaluate.runner import judge
from tpt.images.decode import load_picture
from tpt.methods import Method
from tpt.methods.registry import make_method
from tpt.streaming.batches import encode, launch_batch
from tpt.streaming.loading import Loaded

PICTURES = sorted((Path(__file__).parent.parent / "examples" / "images").glob("*.jpg"))


def build_clip(layers: int) -> tpt.Clip:
    """A narrow model of `layers` layers, where it is built: on the host."""
    vision = {"image_size": 32, "layers": layers, "width": 64, "patch_size": 16, "head_width": 32}
    text = {"width": 64, "heads": 2, "layers": layers, "vocab_size": 49408, "context_length": 77}
    torch.manual_seed(0)
    return tpt.Clip(CLIP(32, vision, text), open_clip.get_tokenizer("ViT-B-16"), micro_batch=4096)


def move_clip(clip: tpt.Clip, graphs: bool = False) -> tpt.Clip:
    """The model on the simulated GPU."""
    model, most = gpu.move(clip.model), clip.micro_batch
    return tpt.Clip(model, clip.tokenizer, micro_batch=most, cuda_graphs=graphs)


def measure(
    *,
    classes: int,
    batch: int,
    layers: int,
    augment: str,
    name: str,
    jacobian: bool = False,
    graphs: bool = False,
) -> dict[str, Counts]:
    """Counts of a batch, by stage, and of all that `predict` and `eval` do with it."""
    clip = build_clip(layers)
    with gpu.simulating():
        clip = move_clip(clip, graphs)
        names = list(open_clip.IMAGENET_CLASSNAMES)[:classes]
        method = make_method(name, tpt.PromptEngine(clip, names))
        if jacobian:
            method.engine.build_jacobian()
        return _measure(method, tpt.Views(clip, kind=augment), batch, 4 if graphs else 1)


def _measure(method: Method, views: tpt.Views, batch: int, before: int) -> dict[str, Counts]:
    pictures = [load_picture(PICTURES[place % len(PICTURES)]) for place in range(batch)]
    items = [Loaded(place, None, picture) for place, picture in enumerate(pictures)]
    for _ in range(before):  # what is made once a class list, and what is recorded
        list(launch_batch(items, method, views, 5)())
    clip = method.engine.clip
    made = views(pictures)
    features = clip.encode_views(made)
    stages: dict[str, Callable[[], Any]] = {
        "views": lambda: views(pictures),
        "tower": lambda: clip.encode_views(made),
        "method": lambda: method.adapt_features(features),
        "predict": lambda: list(launch_batch(items, method, views, 5)()),
        "encode": lambda: encode(items, clip, views, check=method.weighs_others),
        "judge": partial(judge, features, [0] * batch, {"it": method}),
    }
    found = {}
    for stage, work in stages.items():
        with gpu.counting() as found[stage]:
            work()
    return found


def show(found: dict[str, Counts], classes: int, batch: int, name: str) -> None:
    """One line of figures."""
    each = {stage: counts.kernels.total() / batch for stage, counts in found.items()}
    print(
        f"{classes:5} classes, batch {batch}, {name}: {each['predict']:6.0f} kernels a picture in "
        f"all (views {each['views']:.0f}, tower {each['tower']:.0f}, method {each['method']:.0f}); "
        f"synchronisations a batch: predict {found['predict'].waits.total()}, eval "
        f"{found['encode'].waits.total()} and {found['judge'].waits.total()} a method",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 100, 1000])
    parser.add_argument("--batch", nargs="+", type=int, default=[8])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--augment", choices=["crop", "augmix"], default="crop")
    parser.add_argument("--method", nargs="+", default=["tpt"])
    parser.add_argument("--jacobian", action="store_true", help="as `tpt predict` has it")
    parser.add_argument("--cuda-graphs", action="store_true", help="the same")
    parser.add_argument("--most", type=int, default=0, metavar="N", help="kernels listed per stage")
    args = parser.parse_args()
    print(f"{args.layers} layers, 64 views ({args.augment})")
    for name in args.method:
        for batch in args.batch:
            for classes in args.classes:
                found = measure(
                    classes=classes,
                    batch=batch,
                    layers=args.layers,
                    augment=args.augment,
                    name=name,
                    jacobian=args.jacobian,
                    graphs=args.cuda_graphs,
                )
                show(found, classes, batch, name)
                for stage, counts in found.items() if args.most else ():
                    print(f"      {stage}: {counts.kernels.most_common(args.most)}")


if __name__ == "__main__":
    main()
